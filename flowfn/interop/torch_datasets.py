"""A flow as what torch's DataLoader takes; imported where it is asked for, since torch is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from flowfn.flows.flow import Flow
from flowfn.flows.stages import pipe
from flowfn.flows.states import pack_state
from flowfn.interop.epochs import SharedEpochs
from flowfn.vocabulary.ordering import shard


class FlowDataset(IterableDataset[Any]):
    """A flow that is iterated by a DataLoader: each pass is the next epoch, and its workers share the datapoints."""

    def __init__(self, flow: Flow[Any]) -> None:
        self.flow = flow
        self.epochs = SharedEpochs(flow.epoch)

    def __iter__(self) -> SharedPass:
        info = get_worker_info()
        if info is None:
            return SharedPass(self, self.flow, self.epochs.begin(), 0)
        share = pipe(self.flow, shard(info.id, info.num_workers) if info.num_workers > 1 else None)
        return SharedPass(self, share, self.epochs.begin(info.id, info.seed - info.id), info.id)

    def __len__(self) -> int:
        return len(self.flow)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be of an epoch."""
        self.epochs.set(epoch)

    def __repr__(self) -> str:
        return f"as_dataset({self.flow!r})"

    def __getstate__(self) -> Any:
        # memory can be shared with processes that are being started, and with nobody else
        return (self.flow, self.epochs if get_spawning_popen() is not None else self.epochs.next)

    def __setstate__(self, state: Any) -> None:
        self.flow, epochs = state
        self.epochs = SharedEpochs(epochs) if isinstance(epochs, int) else epochs


class SharedPass(Iterator[Any]):
    """What one worker gives in one pass; a StatefulDataLoader saves its state and loads it."""

    def __init__(self, dataset: FlowDataset, share: Flow[Any], epoch: int, worker: int) -> None:
        self.dataset, self.worker = dataset, worker
        self.iterator = share.run(seed=dataset.flow.seed, epoch=epoch)

    def __next__(self) -> Any:
        return next(self.iterator)

    def state_dict(self) -> dict[str, Any]:
        """Where the pass stands; at its end that is its end, and not the start of the next."""
        return pack_state(*self.iterator.progress())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, and let the next pass be of the epoch behind."""
        self.iterator.load_state_dict(state)
        self.dataset.epochs.resume(self.iterator.epoch, self.worker)
