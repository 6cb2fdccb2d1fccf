"""The group kind: output i comes from a fixed block of inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice, tee
from typing import Any

import numpy as np

from flowfn.blocks import BLOCK, Block, ints, shared
from flowfn.datapoints.unmade import Together
from flowfn.kinds.nodes import MISSING, Node, StageNode, Trail, ending, fault
from flowfn.kinds.routes import strided
from flowfn.kinds.runs import Length, Outputs, Run


class Group(StageNode):
    """Output i comes from a fixed block of inputs: `size` of them, from i * step on."""

    elastic = True
    aligned = True

    def setup(self) -> None:
        """Seekable where the source is."""
        (self.source,) = self.sources
        self.seekable = self.source.seekable
        traits = self.part.traits
        self.size, self.step, self.whole = traits.size, traits.step, traits.whole

    def length(self, run: Run) -> Length:
        """From the length of the source."""
        n = self.source.length(run)
        return n if n in (None, math.inf) else self.groups(max(int(n) - self._base(run), 0))

    def groups(self, n: int) -> int:
        """How many groups n inputs make; a short one at the end counts unless only whole ones are wanted."""
        if self.whole:
            return max((n - self.size) // self.step + 1, 0)
        reach = max(self.size - self.step, 0)  # inputs that a group shares with the next
        return -(-max(n - reach, min(n, 1)) // self.step)

    def labels(self, run: Run) -> tuple[int, int]:
        """Its own count of outputs, kept apart from those of other ranks."""
        return self.rank + (run.base if self.based else 0), self.world

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """Outputs ask for their inputs, group after group."""
        total = self._total(run)
        trail = Trail(series)
        upward, sizing, labelling = shared(trail, 3)
        if self.source.gathers:
            sizes = chain.from_iterable(self._sizes(run, block, total) for block in sizing)
            groups = Outputs(self.source.gather(run, self._inputs(run, upward, total, apart=True), sizes))
        else:
            inputs = self.source.read(run, self._inputs(run, upward, total))
            groups = Outputs(_grouped(inputs, self._takes(run, sizing, total), self.size - self.step), None, [inputs])
        return self.begin(run, [groups], self.each_label(run, labelling), trail)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Over a source that is not seekable: windows over its stream."""
        if self.seekable:
            return super().stream(run, start, lineage)
        unmade = self.part.traits.together and self.source.defers
        above = replace(run, unmade=self.source.place) if unmade else run
        inputs = self.source.stream(above, self._base(run) + start * self.step)
        whole: Iterator[Any] = windows(inputs, self.size, self.step, self.whole, start > 0)
        if self.has_gaps(run):
            whole = self._spared(run, whole, start)
        groups = Outputs(map(Together, whole) if unmade else whole, None, [inputs], start)
        if not self.based:  # otherwise nobody behind it goes back
            groups = Outputs(_remembering(groups, inputs), None, [groups], start)
        labels, again = tee(self.numbers(start, self.labels(run)))
        outputs = self.begin(run, [groups], labels)
        outputs.first = start
        return outputs.labelled(again, start) if lineage else outputs

    def inputs(self, run: Run, index: int) -> Block:
        """Which inputs output `index` is made of."""
        every = self._moved(run, self._wanted(range(index, index + 1), self._total(run), in_a_row=True))
        return next(self.source.without_gaps(run, iter((every,))), range(0))

    def read_part(self, run: Run, inputs: Block) -> Outputs:
        """What the stage makes of some of the inputs of one output."""
        rows = self.source.read(run, iter((inputs,)))
        return self.begin(run, [Outputs(_grouped(rows, iter([(len(inputs), 0)])), None, [rows])], ())

    def upward(self, run: Run, block: Block) -> Iterator[tuple[int, Run, Block]]:
        """All inputs of the groups."""
        for wanted in self._inputs(run, iter((block,)), self._total(run), apart=True):
            yield 0, run, wanted

    def left_out_above(self, run: Run, block: Block) -> np.ndarray:
        """Those of which no input is left."""
        kept = [size == 0 for piece in self._pieces(iter((block,))) for size in self._kept_sizes(run, piece)]
        return np.array(kept, bool)

    def _kept_sizes(self, run: Run, outputs: Block) -> list[int]:
        """How many inputs of each output are not left out."""
        total = self._total(run)
        every = np.asarray(outputs, np.int64)[:, None] * self.step + np.arange(self.size)
        kept = every < total
        kept[kept] = ~self.source.left_out(run, self._moved(run, every[kept]))
        counts: list[int] = kept.sum(axis=1).tolist()
        return counts

    def _spared(self, run: Run, groups: Iterator[list[Any]], start: int) -> Iterator[list[Any]]:
        """The groups of a stream, without what is left out; one of which nothing is left stays, and is left out."""
        for number, group in enumerate(groups, start):
            first = self._base(run) + number * self.step
            out = self.source.left_out(run, range(first, first + len(group)))
            yield group if out.all() or not out.any() else [one for one, gone in zip(group, out) if not gone]

    def _base(self, run: Run) -> int:
        """The input with which its first output begins."""
        return run.base if self.foot else 0

    def _moved(self, run: Run, inputs: Block) -> Block:
        """Inputs that are counted from there."""
        return strided(run.base, 1, inputs) if self._base(run) else inputs

    def _total(self, run: Run) -> float:
        """How many inputs there are from there on."""
        total = self.source.length(run)
        return math.inf if total is None else max(total - self._base(run), 0)

    def _pieces(self, series: Iterator[Block]) -> Iterator[Block]:
        """The outputs of a series in pieces, the inputs of which make a block where they can."""
        pace = max(BLOCK // self.size, 1)
        return (block[at : at + pace] for block in series for at in range(0, len(block), pace))

    def _inputs(self, run: Run, series: Iterator[Block], total: float, apart: bool = False) -> Iterator[Block]:
        """The inputs of the outputs of a series, those of several groups in a row once,
        unless they are wanted `apart`."""
        apart = apart or self.source.has_gaps(run)
        for piece in self._pieces(series):
            wanted = self._wanted(piece, total, self._in_a_row(piece) and not (apart and self.step < self.size))
            parts = (self._moved(run, wanted[at : at + BLOCK]) for at in range(0, len(wanted), BLOCK))
            yield from self.source.without_gaps(run, parts)

    def _in_a_row(self, outputs: Block) -> bool:
        return isinstance(outputs, range) and outputs.step == 1 and self.step <= self.size

    def _takes(self, run: Run, series: Iterator[Block], total: float) -> Iterator[tuple[int, int]]:
        """For each output, how many inputs it has, and how many of the last ones of them it shares
        with the one before."""
        apart = self.source.has_gaps(run)
        for piece in self._pieces(series):
            shares = 0
            for size in self._sizes(run, piece, total):
                yield size, shares
                shares = self.size - self.step if self._in_a_row(piece) and not apart else 0

    def _wanted(self, outputs: Block, total: float, in_a_row: bool) -> Block:
        """The inputs of some outputs."""
        if in_a_row:
            return range(outputs.start * self.step, int(min((outputs.stop - 1) * self.step + self.size, total)))  # type: ignore[union-attr]
        starts = np.asarray(outputs, np.int64)[:, None] * self.step
        inputs: np.ndarray = (starts + np.arange(self.size)).ravel()
        return inputs[inputs < total]

    def _sizes(self, run: Run, block: Block, total: float) -> Iterator[int]:
        """How many inputs each output of a block has."""
        if self.source.has_gaps(run):
            return (size for piece in self._pieces(iter((block,))) for size in self._kept_sizes(run, piece))
        if total == math.inf or (
            isinstance(block, range) and max(block[0], block[-1]) * self.step + self.size <= total
        ):
            return iter([self.size] * len(block))
        return (int(min(self.size, total - index * self.step)) for index in ints(block))


def _remembering(groups: Outputs, inputs: Outputs) -> Iterator[Any]:
    """The groups of a stream; before each is read, the anchors to read it again from are noted on their outputs."""
    groups.earlier = inputs.facts()
    for group in groups:
        yield group
        groups.earlier = inputs.facts()


def _grouped(inputs: Outputs, takes: Iterable[tuple[int, int]], most: int = 0) -> Iterator[list[Any]]:
    """Lists of so many inputs each, of which each shares its first ones (at most `most`) with the one before.

    One that comes out short, or inputs left over, is the fault of a stage upstream.
    """
    expected = 0
    kept: list[Any] = []  # apart, because a stage may do as it likes with the list that it is given
    for size, shares in takes:
        fresh = list(islice(inputs, size - shares))
        group = kept[-shares:] + fresh if shares else fresh
        expected += size - shares
        if len(group) < size:
            raise fault(inputs, expected)
        if most > 0:
            kept = group[-most:]
        yield group
    if next(inputs, MISSING) is not MISSING:
        raise fault(inputs, expected)


def windows(inputs: Iterator[Any], size: int, step: int, whole: bool, later: bool = False) -> Iterator[list[Any]]:
    """Lists of `size` inputs, a new one every `step`; the last may be short unless only whole ones are wanted.

    >>> list(windows(iter(range(5)), 3, 2, whole=False)), list(windows(iter(range(5)), 1, 3, whole=False))
    ([[0, 1, 2], [2, 3, 4]], [[0], [3]])
    """
    group = list(islice(inputs, size))
    if later and len(group) <= size - step:
        return  # all of them were in the group before
    while len(group) == size or (group and not whole):
        kept = group[step:]  # a stage may do as it likes with the list that it is given
        yield group
        if step >= size:
            next(islice(inputs, step - size, step - size), None)
            group = list(islice(inputs, size))
        else:
            fresh = list(islice(inputs, step))
            group = kept + fresh if fresh else []


def note_base(root: Node) -> Node:
    """A tree in which it is noted where a pass begins that is to start at some datapoint: at the shard,
    or else at the first group."""
    *stages, first = ending(root)
    groups = [node for node in stages if isinstance(node, Group)]
    divides = first.part is not None and first.part.traits.shards and first.sources[0].world == 1
    for group in groups:
        group.based = True
    for foot in [first] if divides else groups[-1:]:
        foot.foot = True
    return root
