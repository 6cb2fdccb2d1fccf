"""Stages that hold a pass fast: frozen randomness, and datapoints kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.blocks import Block, ints
from flowfn.datapoints.columns import readonly
from flowfn.datapoints.components import LEAVES, Datapoints, as_tuple_like, with_fields
from flowfn.flows.definitions import Stage
from flowfn.flows.stages import stage
from flowfn.kinds.nodes import Each
from flowfn.kinds.runs import EpochForm, Outputs, Run

_FROZEN_SEED = {"seed": rules.integer}


class FrozenNode(Each):
    """What is upstream is a tree of its own, and always runs with one seed at epoch 0."""

    root = True
    elastic = False

    def setup(self) -> None:
        """Its length never changes."""
        super().setup()
        self.steady = True

    def epoch_upstream(self, epoch: EpochForm) -> EpochForm:
        """The first."""
        return (0,)

    def frozen(self, run: Run) -> Run:
        """The one run of what is upstream."""
        return replace(run, seed=self.part.arguments["seed"], epoch=(0,), in_order=True)

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The datapoints as they come."""
        return self.sources[0].read(self.frozen(run), series)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The datapoints as they come."""
        return self.sources[0].stream(self.frozen(run), start, lineage)

    def length(self, run: Run) -> Any:
        """That of the source."""
        return self.sources[0].length(self.frozen(run))

    def labels(self, run: Run) -> tuple[int, int]:
        """Those of the source."""
        return self.sources[0].labels(self.frozen(run))

    def upward(self, run: Run, block: Block) -> Iterator[Any]:
        """The same indices, in the one run."""
        yield 0, self.frozen(run), block

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        """Whole blocks of rows can be had where the source has them."""
        return self.sources[0].gathers

    def gather(self, run: Run, series: Iterator[Block], sizes: Any) -> Iterator[Any]:
        """Blocks of rows as they come."""
        return self.sources[0].gather(self.frozen(run), series, sizes)


@dataclass(slots=True)
class Memory:
    """Datapoints that were read once: by index, or (of a stream) the first so many."""

    kept: dict[int, Any] = field(default_factory=dict)
    whole: bool = False


class CacheNode(FrozenNode):
    """Reads a datapoint the first time that it is wanted, and remembers it. Stays in the process that iterates."""

    part: Stage
    here = True
    aligned = False  # it reads less than it gives
    gathers = False
    remember = Memory

    @property
    def memory(self) -> Memory:
        """It belongs to the flow, so that every tree over it shares what is known."""
        return self.part.memory

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """Known datapoints from memory, the others in one series from the source."""
        live: list[Outputs] = []
        return Outputs(self._read(self.frozen(run), series, live), self, live)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Of a stream, what is known first; then the stream goes on from there."""
        if self.seekable:
            return Each.stream(self, run, start, lineage)
        live: list[Outputs] = []
        outputs = Outputs(self._replayed(self.frozen(run), start, live), self, live, start)
        return outputs.labelled(self.numbers(start), start) if lineage else outputs

    def _read(self, run: Run, series: Iterator[Block], live: list[Outputs]) -> Iterator[Any]:
        kept = self.memory.kept
        for block in series:
            missing = [index for index in dict.fromkeys(ints(block)) if index not in kept]
            live[:] = [self.sources[0].read(run, iter((np.array(missing, np.int64),)))] if missing else []
            fresh = zip(missing, *live)
            for index in ints(block):
                while index not in kept:
                    at, datapoint = next(fresh)
                    kept.setdefault(at, frozen_arrays(datapoint))
                yield handed_out(kept[index])

    def _replayed(self, run: Run, start: int, live: list[Outputs]) -> Iterator[Any]:
        kept, position = self.memory.kept, start
        while position in kept:
            yield handed_out(kept[position])
            position += 1
        if self.memory.whole:
            return
        first = min(position, len(kept))
        live[:] = [self.sources[0].stream(run, first)]
        for at, datapoint in enumerate(live[0], first):
            kept.setdefault(at, frozen_arrays(datapoint))
            if at >= position:
                yield handed_out(kept[at])
        self.memory.whole = True


def frozen_arrays(datapoint: Any) -> Any:
    """A datapoint as it is kept: arrays as read-only views."""
    return _mapped(datapoint, lambda leaf: readonly(leaf) if isinstance(leaf, np.ndarray) else leaf)


def handed_out(datapoint: Any) -> Any:
    """A datapoint from memory in containers of its own, so that changing them changes nothing here."""
    if type(datapoint) in LEAVES:
        return datapoint
    if type(datapoint) is list and LEAVES.issuperset(map(type, datapoint)):
        return datapoint.copy()
    return _mapped(datapoint, lambda leaf: leaf)


def _mapped(value: Any, f: Any) -> Any:
    if type(value) in LEAVES:
        return f(value)
    if type(value) in (list, Datapoints):
        return type(value)(_mapped(item, f) for item in value)
    if type(value) is dict:
        return {key: _mapped(item, f) for key, item in value.items()}
    if isinstance(value, tuple):
        return as_tuple_like(value, [_mapped(item, f) for item in value])
    if is_dataclass(value) and not isinstance(value, type):
        return with_fields(value, {one.name: _mapped(getattr(value, one.name), f) for one in fields(value)})
    return f(value)


@stage.of_node(FrozenNode, where=_FROZEN_SEED)
def freeze(source: Any, *, seed: int = 0) -> Any:
    """Fix the randomness upstream: every pass over it is the one with `seed`, at epoch 0, whatever tree is around it.

    >>> import flowfn as ff
    >>> flow = ff.freeze(ff.shuffle(range(100)))
    >>> list(flow) == list(flow)
    True
    """


@stage.of_node(CacheNode, where=_FROZEN_SEED)
def cache(source: Any, *, seed: int = 0) -> Any:
    """Keep datapoints in the memory of this process: each is made once, when it is first wanted.

    What is upstream is frozen (see `freeze`). An unfinished pass is useful and is never taken for a whole one. Arrays
    that come out are read-only views.

    >>> import flowfn as ff
    >>> made = []
    >>> squares = ff.pipe([1, 2], ff.map(lambda x: made.append(x) or x * x), ff.cache())
    >>> list(squares), list(squares), made
    ([1, 4], [1, 4], [1, 2])
    """
