"""Ray's data sets: the rows of one by index, and the datapoints of a flow as rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.data
from ray.data.block import BlockAccessor

from flowfn.flows.flow import Flow
from flowfn.showing import brief

AT_HAND = 8
"""How many blocks of a data set stay mapped that were read last."""

TASKS_PER_CPU = 4
"""Tasks for each CPU of the cluster that make the rows of a flow."""


class RowsInStore(NamedTuple):
    """A part of a data set in the object store, and which of its rows are meant."""

    reference: Any
    start: int
    stop: int


class DatasetRows:
    """The rows of a data set by index. It is made when it is first asked for, and stays in the object store."""

    def __init__(self, dataset: Any, gone: str) -> None:
        self.dataset, self.gone, self.lock = dataset, gone, threading.Lock()
        self.made: Any = None
        self.blocks: list[RowsInStore] = []
        self.ends = np.empty(0, np.int64)
        self.at_hand: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        self.make()
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        (row,) = self.__getitems__([range(len(self))[index]])
        return row

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Rows together, those of one block in one call."""
        self.make()
        wanted = np.asarray(indices, np.int64)
        numbers = np.searchsorted(self.ends, wanted, "right")
        rows: list[Any] = [None] * len(wanted)
        for number in np.unique(numbers).tolist():
            block = self.blocks[number]
            (places,) = np.nonzero(numbers == number)
            inside = wanted[places] - (self.ends[number] - block.stop)
            taken = BlockAccessor.for_block(self.mapped(number).take(inside.tolist()))
            for place, row in zip(places.tolist(), taken.iter_rows(public_row_format=True)):
                rows[place] = dict(row)
        return rows

    def make(self) -> None:
        """Have all of it made, in the order that it has by itself."""
        if not ray.is_initialized():
            raise RuntimeError(self.gone)
        with self.lock:
            if self.made is None:
                with blocks_in_order(self.dataset):
                    made = self.dataset.materialize()
                self.blocks = [*chain.from_iterable(map(_blocks, made.iter_internal_ref_bundles()))]
                self.ends = np.array([*accumulate(block.stop - block.start for block in self.blocks)], np.int64)
                self.made = made

    def mapped(self, number: int) -> Any:
        """A block, as it lies in the object store."""
        with self.lock:
            if number not in self.at_hand:
                self.at_hand[number] = BlockAccessor.for_block(ray.get(self.blocks[number].reference))
                while len(self.at_hand) > AT_HAND:
                    self.at_hand.popitem(last=False)
            self.at_hand.move_to_end(number)
            return self.at_hand[number]

    def __reduce__(self) -> Any:
        raise TypeError("rows of Ray are read in the process that has the connection to Ray")


def _blocks(bundle: Any) -> Iterator[RowsInStore]:
    slices = getattr(bundle, "slices", None) or [None] * len(bundle.block_refs)
    for reference, told, part in zip(bundle.block_refs, bundle.metadata, slices):
        start, stop = (0, told.num_rows) if part is None else (part.start_offset, part.end_offset)
        if stop > start:
            yield RowsInStore(reference, start, stop)


@contextmanager
def blocks_in_order(dataset: Any) -> Iterator[None]:
    """Have the blocks of a data set come in the order in which they are asked for, and not in which they are made."""
    options = dataset.context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        yield
    finally:
        options.preserve_order = before


class FlowParts:
    """The datapoints of a flow as rows, in so many parts, each made by a task of Ray."""

    def __init__(self, flow: Flow[Any], seed: int, epoch: int, length: int | None, count: int) -> None:
        self.flow, self.seed, self.epoch, self.length, self.count = flow, seed, epoch, length, count

    def __call__(self, part: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The rows of a part."""
        flow = self.flow
        if self.length is not None:
            first, last = (int(part["id"]) + one for one in (0, 1))
            flow = flow[first * self.length // self.count : last * self.length // self.count]
        for datapoint in flow.run(seed=self.seed, epoch=self.epoch):
            if not isinstance(datapoint, dict) or not all(isinstance(name, str) for name in datapoint):
                raise TypeError(
                    f"to_ray(): datapoints must be dicts {{column: value}}, got {brief(datapoint)}; "
                    'write map(lambda x: {"x": x}) before'
                )
            yield datapoint


def dataset_of(flow: Flow[Any], length: int | None) -> Any:
    """A flow as a data set of Ray; one of unknown length is one part."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    count = 1 if length is None else max(1, min(length, TASKS_PER_CPU * cpus))
    parts = FlowParts(flow, flow.seed, flow.epoch, length, count)
    return ray.data.range(count, override_num_blocks=count).flat_map(parts)
