"""A flow as what torch's DataLoader takes; imported where it is asked for, since torch is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import copy
from multiprocessing import current_process, parent_process
from multiprocessing.context import get_spawning_popen
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.sources import StreamedNode
from flowfn.flows.stages import pipe
from flowfn.flows.states import pack_state
from flowfn.interop.epochs import SharedEpochs
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.randomness.generators import hashed
from flowfn.vocabulary.ordering import shard


class FlowDataset(IterableDataset[Any]):  # type: ignore[misc]  # where torch is not installed
    """A flow that is iterated by a DataLoader: each pass is the next epoch, and its workers share the datapoints."""

    def __init__(self, flow: Flow[Any]) -> None:
        self.flow: Flow[Any] = copy(flow).reset_state(flow.seed)  # what becomes of the other, workers do not hear
        self.epochs = SharedEpochs(flow.epoch)
        self.passes: Counter[Any] = Counter()  # how many a worker has begun

    def __iter__(self) -> SharedPass:
        info = get_worker_info()
        reader = _reader(info)
        if info is None:
            return SharedPass(self, self.flow, reader, None)
        place = _loader_of(info), info.id
        key = hashed(place[0], self.passes[place]) >> 65
        self.passes[place] += 1
        return SharedPass(self, _share(self.flow, info.id, info.num_workers), reader, key)

    def __len__(self) -> int:
        return len(self.flow)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be of an epoch."""
        self.epochs.set(_reader(get_worker_info()), rules.natural.check("set_epoch", "epoch", epoch, {}))

    def __repr__(self) -> str:
        return f"as_dataset({self.flow!r})"

    def __getstate__(self) -> Any:
        # memory can be shared with processes that are being started, and with nobody else
        shared = get_spawning_popen() is not None
        return (self.flow, self.epochs if shared else self.epochs.next(_reader(get_worker_info())))

    def __setstate__(self, state: Any) -> None:
        self.flow, epochs = state
        self.epochs = SharedEpochs(epochs) if isinstance(epochs, int) else epochs
        self.passes = Counter()


class SharedPass(Iterator[Any]):
    """What one worker gives in one pass; a StatefulDataLoader saves its state and loads it."""

    def __init__(self, dataset: FlowDataset, share: Flow[Any], reader: int, key: int | None) -> None:
        self.epochs, self.reader, self.key = dataset.epochs, reader, key
        self.iterator = share.run(epoch=dataset.epochs.begin(reader, key))

    def __next__(self) -> Any:
        return next(self.iterator)

    def state_dict(self) -> dict[str, Any]:
        """Where the pass stands; at its end that is its end, and not the start of the next."""
        return pack_state(*self.iterator.progress())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, and let the next pass be of the epoch behind."""
        self.iterator.load_state_dict(state)
        self.epochs.resume(self.reader, self.key, self.iterator.epoch)


def _share(flow: Flow[Any], worker: int, workers: int) -> Flow[Any]:
    """The part of a flow that one of several workers gives; all of them must read the same."""
    if workers == 1:
        return flow
    for what, why in _unshared(flow.node):
        raise TypeError(
            f"as_dataset(): {workers} workers of torch cannot share {what}: {why}; write num_workers=0, and "
            f"prefetch(ahead, processes={workers}) in the flow"
        )
    return pipe(flow, shard(worker, workers))


def _unshared(node: Node) -> Iterator[tuple[Any, str]]:
    """What is not the same for each who reads it, and why."""
    if node.loose:
        yield node.part, "it gives datapoints as they come (ordered=False)"
    for leaf in top_down(node):
        if leaf.here and not leaf.sources:
            yield leaf.part, "each would read one of its own"
        read = None if isinstance(leaf, StreamedNode) else getattr(leaf.part, "object", None)  # which reads all of it
        if any(kind.__name__ == "IterableDataset" for one in (read, _dataset(read)) for kind in type(one).__mro__):
            yield (
                leaf.part,
                "an IterableDataset may give each of them a part, of which it would give a part; flow(lambda: dataset) "
                "is for one that does not",
            )


def _dataset(loader: Any) -> Any:
    return loader.dataset if isinstance(loader, DataLoader) else None


def _reader(info: Any) -> int:
    """The process that a pass is for: this one, or the one whose worker it is."""
    parent = parent_process()
    threaded = getattr(info, "worker_method", None) == "thread"
    return os.getpid() if info is None or threaded or parent is None else int(parent.pid or 0)


def _loader_of(info: Any) -> Any:
    """What the workers of one iterator of a loader have in common, and those of another do not.

    Beside the seed, which comes again where somebody seeds torch before every epoch: the pipe in which they put what
    they have read, and the name of the event by which they are told to end. What of these there is hangs on how they
    are started; threads have the seed alone.
    """
    arguments = getattr(current_process(), "_args", ())
    pipes = [os.fstat(one._writer.fileno()).st_ino for one in arguments if isinstance(one, Queue)]  # type: ignore[attr-defined]
    events = [one._cond._lock._semlock.name for one in arguments if isinstance(one, Event)]  # type: ignore[attr-defined]
    return info.seed - info.id, *pipes[-1:], *events
