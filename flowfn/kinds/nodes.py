"""Nodes: what all of them are asked, and those of the kind each.

    indices flow up                      source   <--  order  <--  group  <--  each   <--  the blocks wanted
    datapoints flow down                 source   -->           -->  group  -->  each   -->  the outputs

A node is a part of a tree bound for reading. A seekable one answers `read(run, blocks)`: the outputs at those indices,
which come as a lazy series of blocks. Every one answers `stream(run, start)`: all outputs from `start` on. A stream may
be asked for lineage too; it then gives (datapoint, label) pairs. Nodes hold nothing of a pass; `Outputs` do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, tee
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np

from flowfn.blocks import Block, blocks, each_index, ints, shared
from flowfn.kinds.failures import uneven
from flowfn.kinds.parts import Part, StagePart
from flowfn.kinds.routes import strided
from flowfn.kinds.runs import Anchor, EpochForm, Length, Outputs, Run
from flowfn.randomness.generators import Label, generators, hashed

MISSING = object()

KEYS = 1024
"""How many keys are remembered: an endless pass has new ones in every round."""


class Node:
    """A part of a tree, bound: its sources are nodes, it has a place in the tree and, if random, a number."""

    part: Any  # a `Part`, or None where only its datapoints are
    orders: ClassVar[bool] = False  # whether its arguments fix the order of outputs, and so count by content
    root: ClassVar[bool] = False  # whether what is upstream is a tree of its own
    lasting: ClassVar[bool] = False  # whether what is upstream goes on from epoch to epoch
    elastic: ClassVar[bool] = False  # whether a count of inputs says where it stands
    aligned: ClassVar[bool] = False  # whether it owes one output for each input
    here: ClassVar[bool] = False  # whether it stays in the process that iterates
    boundary: ClassVar[bool] = False  # whether what is upstream is handed to somebody else
    guards: ClassVar[bool] = False  # whether it counts what fails
    gives: ClassVar[frozenset[str]] = frozenset()  # what a stage function may ask of it beyond what its kind gives
    gathers: bool = False  # whether it can give whole blocks of rows at once
    seekable: bool = False
    names_sources: ClassVar[bool] = False  # whether random stages upstream are numbered source by source
    steady: bool = True  # whether the length is the same in every epoch and round
    leaves_out: ClassVar[bool] = False  # whether an input may give no output
    loose: bool = False  # whether outputs may come in any order
    foot: bool = False  # whether a pass that starts late, at a datapoint of its own, begins here (`groups.note_base`)
    based: bool = False  # whether its outputs are made of those from there on
    only_counts: ClassVar[bool] = False  # whether a source has nothing but numbers
    countable: ClassVar[bool] = True  # whether some of the datapoints of a source can be left out by their number
    retold: ClassVar[bool] = False  # whether, over what is not seekable, only reading it again tells its inputs
    defers: bool = False  # whether outputs can be given that are not made yet
    followed: bool = False  # whether its anchors say how much it has read

    def __init__(self, part: Part | None, sources: Sequence[Node], place: int, number: tuple[str, int] | None) -> None:
        self.part, self.sources, self.place, self.number = part, sources, place, number
        lead = max(sources, key=lambda node: node.world, default=None)
        self.rank: int = lead.rank if lead else 0
        self.world: int = lead.world if lead else 1
        self.steady = all(source.steady for source in sources)
        self.loose = any(source.loose for source in sources) and not self.root
        drawn = any(source.drawn for source in sources) and not self.root
        self.drawn: bool = drawn or (part is not None and part.random)  # at random, anew in each epoch
        self.guarded: bool = self.guards or any(source.guarded for source in sources)
        self.setup()

    @classmethod
    def remember(cls) -> Any:
        """A memory for one application of a stage, for kinds that have one."""
        return None

    def setup(self) -> None:
        """Find out, once, what follows from the part and the sources."""

    def length(self, run: Run) -> Length:
        """How many numbers its outputs have: what is left out keeps its own where there are indices, and has none in a
        stream, where those behind it move up. How many a pass gives, `bypass.given` says."""
        return None

    def length_or_none(self) -> Length:
        """The length in any run, for those who only want to show it."""
        return self.length(Run(0, (0,)))

    def unknown(self) -> str:
        """Why this node is not seekable."""
        return next((node.unknown() for node in self.sources if not node.seekable), f"{self.part} is read in order")

    def labels(self, run: Run) -> tuple[int, int]:
        """(offset, stride): output i is labelled offset + stride * i. A datapoint keeps its label through `each`."""
        return self.rank, self.world

    def epoch_upstream(self, epoch: EpochForm) -> EpochForm:
        """The epoch in which its sources are read, where its own is of that form."""
        return epoch

    def misfit(self, run: Run, anchor: Anchor) -> str:
        """What an anchor of this node must be, if it is something else; only nodes that are read in order have any."""
        return f"left out: {self.part} has none"

    def has_gaps(self, run: Run) -> bool:
        """Whether a pass goes round anything here or upstream."""
        return bool(run.gaps) and run.once("has gaps", self.place, lambda: self.gaps_within(run))

    def gaps_within(self, run: Run) -> bool:
        """The same, looked up."""
        return run.gaps.at(self.place) or any(source.has_gaps(run) for source in self.sources)

    def left_out(self, run: Run, block: Block) -> np.ndarray:
        """Which of the outputs at `block` a pass goes round: those, or all that they are made of."""
        if not self.has_gaps(run):
            return np.zeros(len(block), bool)
        above = self.left_out_above(run, block)
        return above | run.gaps.counted.covers(block) if self.place == run.gaps.place else above

    def left_out_above(self, run: Run, block: Block) -> np.ndarray:
        """Which of the outputs at `block` are made of nothing but what is left out, as far as an index tells."""
        gaps = run.gaps.records.get(self.place)
        return np.zeros(len(block), bool) if gaps is None or not self.seekable else gaps.covers(block)

    def without_gaps(self, run: Run, series: Iterator[Block]) -> Iterator[Block]:
        """A series of blocks of outputs, without those that a pass goes round."""
        if not self.has_gaps(run):
            return series
        kept = (block if not (out := self.left_out(run, block)).any() else np.asarray(block)[~out] for block in series)
        return (block for block in kept if len(block))

    def series(self, run: Run, start: int) -> Iterator[Block]:
        """The outputs from `start` on, where what is left out is not counted."""
        every: Iterator[Block] = blocks(0 if self.has_gaps(run) else start, self.length(run))  # type: ignore[arg-type]
        return _behind(self.without_gaps(run, every), start) if self.has_gaps(run) else every

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs at the indices of a series of blocks; for seekable nodes."""
        raise TypeError(self.unknown())

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on, as (datapoint, label) pairs if `lineage` is asked for."""
        series = self.series(run, start)
        if not lineage:
            outputs = self.read(run, series)
            outputs.first = start
            return outputs
        series, again = shared(series, 2)
        outputs = self.read(run, series)
        return outputs.labelled(self.each_label(run, again), start)

    def gather(self, run: Run, series: Iterator[Block], sizes: Iterable[int]) -> Iterator[Any]:
        """Blocks of so many rows each, to be had stacked; for nodes that gather."""
        raise TypeError(f"{self.part} has no rows to gather")

    def numbers(self, start: int, labels: tuple[int, int] | None = None) -> Iterator[int]:
        """The labels of a stream's outputs from `start` on: by default a count apart from other ranks'."""
        offset, stride = labels or (self.rank, self.world)
        return count(offset + stride * start, stride)

    def each_label(self, run: Run, series: Iterable[Block]) -> Iterator[int]:
        """The labels of the outputs at the indices of a series."""
        offset, stride = self.labels(run)
        return each_index(strided(offset, stride, block) for block in series)

    def upward(self, run: Run, block: Block) -> Iterator[tuple[int, Run, Block]]:
        """What the outputs at `block` need of which source, in which run: one step of the way up."""
        for source in range(len(self.sources)):
            yield source, run, block

    def key(self, run: Run) -> int:
        """The key of this node's random numbers in a run."""
        number = self.number or ("", 0)
        return run.once("keys", (number, run.seed, run.epoch), lambda: hashed(run.seed, *number, run.epoch), KEYS)


class StageNode(Node):
    """A stage, bound."""

    part: StagePart

    def begin(
        self, run: Run, inputs: Sequence[Outputs], labels: Iterable[Label], trail: Trail | None = None
    ) -> Outputs:
        """Start the generator of an each, group or expand stage on its inputs."""
        part = self.part
        if not part.wants_labels:
            return Outputs(part.open(inputs), self, inputs, trail=trail)
        one, other = tee(labels)
        injected: dict[str, Any] = {}
        if part.random:
            injected["rngs"] = generators(self.key(run), one)
        if "indices" in part.asks:
            injected["indices"] = other
        return Outputs(part.open(inputs, **injected), self, inputs, trail=trail)


def ending(root: Node) -> Iterator[Node]:
    """The stages at the end of a tree whose outputs are made of so many datapoints each, the last one first;
    then, what gives those."""
    yield root
    while len(root.sources) == 1 and root.elastic and root.part.traits.size == root.part.traits.step:
        (root,) = root.sources
        yield root


def known_length(run: Run, source: Node) -> float:
    """At most how many outputs a source has, whatever the round."""
    length = source.length(run) if source.steady else None
    return math.inf if length is None else length


def within(run: Run, source: Node, number: int) -> bool:
    """Whether a source can have so many outputs."""
    return number <= known_length(run, source)


def _behind(series: Iterator[Block], start: int) -> Iterator[Block]:
    """What follows the first `start` indices of a series."""
    for block in series:
        if start < len(block):
            yield block[start:]
        start = max(start - len(block), 0)


class Trail:
    """A series of blocks on its way up that remembers the last two, to tell which index the k-th output has."""

    __slots__ = ("before", "last", "passed", "series")

    def __init__(self, series: Iterator[Block]) -> None:
        self.series, self.passed = series, 0
        self.before: Block = range(0)
        self.last: Block = range(0)

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        block = next(self.series)
        self.passed += len(block)
        self.before, self.last = self.last, block
        return block

    def index(self, k: int) -> int:
        """The index asked for as number `k` of the series (the nearest that is remembered)."""
        known = [*ints(self.before), *ints(self.last)]
        return known[min(max(k - self.passed, -len(known)), -1)]


class Each(StageNode):
    """Output i comes from input i alone, of every source."""

    elastic = True
    aligned = True

    def setup(self) -> None:
        """Seekable where all sources are."""
        self.seekable = all(source.seekable for source in self.sources)
        self.lead = next(source for source in self.sources if source.world == self.world)
        self.plain = len(self.sources) == 1 and not self.part.wants_labels

    def length(self, run: Run) -> Length:
        """That of the shortest source; where sources must be equally long, all finite ones must be."""
        if len(self.sources) == 1:
            return self.sources[0].length(run)
        lengths = [source.length(run) for source in self.sources]
        finite = {n for n in lengths if n not in (None, math.inf)}
        if len(finite) > 1 and self.part.traits.strict:
            raise ValueError(
                f"{self.part.name}(): sources must have equal lengths, got {lengths}; strict=False stops at the "
                "shortest"
            )
        return None if None in lengths else min(lengths)  # type: ignore[type-var]

    def labels(self, run: Run) -> tuple[int, int]:
        """Those of the source."""
        return self.lead.labels(run)

    def left_out_above(self, run: Run, block: Block) -> np.ndarray:
        """Those of which any input is left out."""
        steps = self.upward(run, block)
        return np.logical_or.reduce([self.sources[source].left_out(above, part) for source, above, part in steps])

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """Every source is asked for the same indices."""
        trail = Trail(series)
        if self.plain:
            return self.begin(run, (self.sources[0].read(run, trail),), (), trail)
        *copies, again = shared(trail, len(self.sources) + 1)
        inputs = tuple(source.read(run, copy) for source, copy in zip(self.sources, copies))
        return self.begin(run, inputs, self.each_label(run, again), trail)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Every source is read from the same position; lineage passes through a stage of one source."""
        if self.seekable:
            return super().stream(run, start, lineage)
        asks = lineage or not self.plain
        labels: Iterator[Label]
        if len(self.sources) == 1 and asks:
            pairs = self.sources[0].stream(run, start, True)
            datapoints, others = tee(pairs)
            inputs = [Outputs(map(itemgetter(0), datapoints), None, [pairs], start)]
            labels = map(itemgetter(1), others)
        else:
            inputs = [source.stream(run, start) for source in self.sources]
            labels = self.numbers(start)
        labels, again = tee(labels)
        outputs = self.begin(run, inputs, labels)
        outputs.first = start
        if self.part.traits.strict:
            finite = [one for one, source in zip(inputs, self.sources) if source.length(run) != math.inf]
            outputs = Outputs(_to_the_same_end(self.part.name, outputs, finite), None, [outputs], start)
        return outputs.labelled(again, start) if lineage else outputs


def _to_the_same_end(name: str, outputs: Outputs, inputs: Sequence[Outputs]) -> Iterator[Any]:
    """The outputs, and at their end a check that the inputs end together."""
    yield from outputs
    left = [next(source, MISSING) is not MISSING for source in inputs]
    if any(left) or len({source.count for source in inputs}) > 1:
        lengths = ", ".join(f"{source.position - more}{' or more' * more}" for source, more in zip(inputs, left))
        raise ValueError(
            f"{name}(): sources must have equal lengths, got {lengths}; strict=False stops at the shortest"
        )


def fault(inputs: Outputs, expected: int) -> ValueError:
    """The error for inputs that are not as many as were asked for."""
    return uneven(inputs, None, seekable=True) or ValueError(
        f"the source gave {inputs.count} datapoints where {expected} were asked for"
    )
