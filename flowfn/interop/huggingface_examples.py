"""Flows in classes of Hugging Face's datasets; imported where they are asked for, since datasets is."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset, DatasetInfo, IterableDataset, Split
from datasets.iterable_dataset import _BaseExamplesIterable

from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.stages import pipe
from flowfn.vocabulary.ordering import shard

SHARDS = 5040
"""How many shards a flow that can be indexed is said to have: it can be shared out among any number of readers, and
`datasets` shares out well what that number divides."""


def dataset_in_memory(rows: Iterator[dict[str, Any]], features: Any) -> Dataset:
    """Rows in memory."""
    columns: dict[str, list[Any]] = {name: [] for name in features}
    for row in rows:
        if not row.keys() <= columns.keys():
            raise ValueError(f"to_hf(): columns must be those of the features, {list(features)}, got {list(row)}")
        for name, values in columns.items():
            values.append(row.get(name))
    return Dataset.from_dict({name: _arrow_times(values) for name, values in columns.items()}, features=features)


def _arrow_times(values: list[Any]) -> Any:
    """Times of numpy as Arrow's, which `datasets` leaves as they are; others as they are."""
    first = next((value for value in values if isinstance(value, (np.datetime64, np.timedelta64))), None)
    if first is None:
        return values
    pa: Any = needed("pyarrow", "to_hf()", extra="hf")
    return pa.array(np.array(values, first.dtype))


def streamed(flow: Flow[Any], features: Any) -> IterableDataset:
    """A flow that is read whenever the data set is iterated."""
    length = flow.node.length_or_none()
    known = length is not None and not math.isinf(length)
    splits = [{"name": "train", "num_bytes": 0, "num_examples": int(length or 0)}] if known else None
    info = DatasetInfo(features=features, splits=splits)
    return IterableDataset(FlowExamples(flow, features), info=info, split=Split.TRAIN)


class FlowExamples(_BaseExamplesIterable):  # type: ignore[misc,unused-ignore]
    """The datapoints of a flow in one epoch, or one of `count` shares of them."""

    _state_dict: Any

    def __init__(self, flow: Flow[Any], features: Any) -> None:
        super().__init__()
        self.flow, self.known = flow, features
        self.epoch, self.index, self.count = 0, 0, 1
        self.awaits_epoch = False
        self._sleep_on_threads_shutdown = False

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        state = self._state_dict
        start = state["given"] if state else 0
        share = pipe(self.flow, shard(self.index, self.count) if self.count > 1 else None)
        for number, datapoint in enumerate(share.run(seed=self.flow.seed, epoch=self.epoch, start=start), start + 1):
            if state:
                state["given"] = number
            yield number, datapoint

    def _init_state_dict(self) -> dict[str, Any]:
        made: dict[str, Any] = {"given": 0, "type": type(self).__name__}
        self._state_dict = made
        return made

    @property
    def is_typed(self) -> bool:
        return True

    @property
    def features(self) -> Any:
        return self.known

    @property
    def num_shards(self) -> int:
        """How many shares can be made of it."""
        return max(SHARDS // self.count, 1) if self.flow.seekable else 1

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> FlowExamples:
        """A share of it."""
        if num_shards == 1:
            return self._but(awaits_epoch=False)
        return self._but(index=self.index + self.count * index, count=self.count * num_shards, awaits_epoch=False)

    def shuffle_data_sources(self, generator: Any) -> FlowExamples:
        """The same, since the flow knows its order; if this is done for another epoch, that comes next."""
        return self._but(awaits_epoch=True)

    def reshard_data_sources(self) -> FlowExamples:
        """The same."""
        return self._but()

    def shift_rngs(self, value: int) -> FlowExamples:
        """Of an epoch; what is shifted by the number of a worker has not been shuffled just before."""
        return self._but(epoch=value, awaits_epoch=False) if self.awaits_epoch else self._but()

    def _but(self, **changes: Any) -> FlowExamples:
        made = copy.copy(self)
        for name, value in {"_state_dict": None, **changes}.items():
            setattr(made, name, value)
        return made
