"""The second form of an order stage, for sources that are not seekable: sections, read one after the other."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from itertools import chain, islice, repeat
from typing import Any

from more_itertools import consume

from flowfn.kinds.nodes import MISSING, StageNode
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Anchor, Outputs, Run, ticked
from flowfn.kinds.traces import Use
from flowfn.randomness.generators import Label

EMPTY_ROUNDS = 1000
"""After so many rounds without a datapoint, one after the other, `repeat` over a stream gives up."""


class Section:
    """Some outputs in a row over a stream: of one source, in one round,
    every `step`-th from `start` to `stop`, `times` times each.

    `anew`: its outputs are labelled as the outputs that they are, not as the inputs that they were.
    `whole`: an input counts only if the row of `step` inputs that it is in is complete.
    `final`: no other follows, however many inputs it finds.
    """

    __slots__ = ("anew", "final", "round", "source", "start", "step", "stop", "times", "whole")

    def __init__(
        self,
        source: int = 0,
        *,
        round: int | None = None,
        start: int = 0,
        stop: float = math.inf,
        step: int = 1,
        times: int = 1,
        whole: bool = False,
        anew: bool = False,
        final: bool = False,
    ) -> None:
        self.source, self.round, self.start, self.stop, self.step, self.whole = source, round, start, stop, step, whole
        self.times, self.anew, self.final = times, anew, final

    @property
    def limit(self) -> float:
        """How many outputs it can have at most."""
        return math.inf if self.stop == math.inf else self.outputs(int(self.stop))

    def outputs(self, inputs: int) -> int:
        """How many outputs it has if its source has so many inputs."""
        if self.whole:
            return inputs // self.step
        return max(-(-(int(min(inputs, self.stop)) - self.start) // self.step), 0) * self.times


def nth(plan: Generator[Section, int, None], number: int, inputs: int) -> Section:
    """Section `number` of a plan, where the one before it found so many inputs (those before that
    some; nobody knows)."""
    section = next(plan)
    for at in range(1, number + 1):
        section = plan.send(inputs if at == number else 1)
    return section


class Sections:
    """The sections of an order stage over streams, read one after the other; its anchors are where one begins.

    The stage's generator yields sections, and is sent how many inputs the last one found.
    """

    ticks: Any
    section: Section  # that is being read
    begun = False  # until then, what was known upstream holds: one input may have been read to see if it is there

    def __init__(self, node: StageNode, run: Run, anchor: Anchor, start: int, lineage: bool) -> None:
        self.node, self.run, self.anchor, self.start = node, run, anchor, start
        self.base = run.base if node.foot else 0
        self.lineage = lineage and len(node.sources) == 1 and not node.part.traits.switches
        self.live: list[Outputs] = []
        self.newest, self.times = anchor, 1

    def tell(self) -> dict[int, Anchor]:
        """The last beginning of a section; amid copies, with the anchors from which their original
        can be made again."""
        facts: dict[int, Anchor] = {}
        if not self.begun:
            upstream = (node.place for node in top_down(*self.node.sources))
            facts = {place: self.run.anchors[place] for place in upstream if place in self.run.anchors}
        for source in self.live if self.begun and self.times > 1 else ():
            facts.update(source.facts(before_last=True))
        return {**facts, self.node.place: self.newest}

    def used(self) -> list[Use]:
        """Which input the last output is."""
        section = self.section
        behind = section.step - section.start if section.whole else 1
        return [Use(section.source, self._run_of(section), [self.live[0].position - behind])]

    def __iter__(self) -> Iterator[Any]:
        plan = self.node.part.sections(len(self.node.sources))
        number, inputs = self.anchor.inputs
        ahead = self.start - self.anchor.outputs  # outputs at the front that nobody wants, and that may be jumped over
        try:
            section = nth(plan, number, inputs)
            while True:
                self.newest = Anchor(self.run.epoch, self.anchor.outputs + ticked(self.ticks), (number, inputs))
                inputs = yield from self._read(section, ahead)
                ahead = max(self.start - self.anchor.outputs - ticked(self.ticks), 0)
                number += 1
                section = plan.send(inputs)
        except StopIteration:
            return

    def _read(self, section: Section, ahead: int) -> Generator[Any, None, int]:
        jump, self.times, self.section = int(min(ahead, section.limit)), section.times, section
        source, picks = self._pick(section, jump)
        first = next(picks, MISSING)
        if first is MISSING and jump + section.start > 0 and jump < section.limit and not section.final:
            found = self._count(section, source.first)  # perhaps it ended before the jump did
            yield from repeat(None, min(jump, section.outputs(found)))
            return found
        yield from repeat(None, jump)  # for the one who asked to start late, and who drops them
        if first is not MISSING:
            picks, self.begun = chain((first,), picks), True
            yield from picks if not (section.anew and self.lineage) else self._labelled_anew(picks)
        return source.position - self.base

    def _count(self, section: Section, end: int) -> int:
        """How many inputs a section has that has nothing at `end`: those that are known of, and all that follow."""
        place, run = self.node.sources[section.source].place, self._run_of(section)
        source = self._open(section, max(run.anchor(place, end).outputs, self.base))
        consume(source)
        return int(min(source.position - self.base, section.stop))

    def _labelled_anew(self, pairs: Iterator[tuple[Any, Label]]) -> Iterator[tuple[Any, Label]]:
        """Datapoints that are given a second time, under the labels that nobody else has."""
        for datapoint, _ in pairs:
            yield datapoint, self.node.rank + self.base + self.node.world * (self.anchor.outputs + ticked(self.ticks))

    def _pick(self, section: Section, jump: int) -> tuple[Outputs, Iterator[Any]]:
        inputs, copies = divmod(jump, section.times)
        if section.whole:
            source = self._open(section, self.base + inputs * section.step)
            return source, (row[section.start] for row in _whole_rows(source, section.step))
        source = self._open(section, self.base + section.start + inputs * section.step)
        stop = None if section.stop == math.inf else max(int(section.stop) - section.start - inputs * section.step, 0)
        picks: Iterator[Any] = islice(source, 0, stop, section.step)
        if section.times > 1:
            picks = islice(chain.from_iterable(map(repeat, picks, repeat(section.times))), copies, None)
        return source, picks

    def _open(self, section: Section, first: int) -> Outputs:
        for past in self.live:
            past.close()
        outputs = self.node.sources[section.source].stream(self._run_of(section), first, self.lineage)
        self.live[:] = [outputs]
        return outputs

    def _run_of(self, section: Section) -> Run:
        return self.run if section.round is None else self.run.round(section.round)


def _whole_rows(source: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while len(row := list(islice(source, size))) == size:
        yield row
