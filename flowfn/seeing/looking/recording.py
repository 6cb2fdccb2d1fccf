"""Seeing datapoints pass: a copy of a tree with a node behind every stage that notes what it gives.

    source --> seen --> stage --> seen --> stage --> seen --> who looks

Nothing is noted but what is `wanted`: a shuffle buffer may take a thousand datapoints before it gives the first. What
is noted is made of a datapoint at once, before the next stage may change it. The time of a step is its own: what the
steps before it took, and what noting took, is taken off.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

from flowfn.blocks import Block, each_index, shared
from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.flows.stages import stage
from flowfn.kinds.nodes import Each
from flowfn.kinds.runs import Epoch, Outputs, Run
from flowfn.vocabulary.keeping.caching import CacheNode


class Spot(NamedTuple):
    """An output of a node: the node's place, the epoch (and round), the number."""

    place: int
    epoch: Epoch
    number: int


class TooSlow(BaseException):
    """Looking takes longer than it may. No error of the pipeline's, so no `guard` takes it for one."""


class Sighting:
    """What is noted of one pass: of each wanted spot, what `note` makes of the datapoint, and how long that took."""

    def __init__(self, note: Callable[[Spot, Any], Any], seconds: float = math.inf) -> None:
        self.end = perf_counter() + seconds
        self.note, self.wanted = note, set[Spot]()
        self.notes: dict[Spot, Any] = {}
        self.seconds: dict[Spot, float] = {}
        self.passed: Counter[int] = Counter()  # by place
        self.spent: Counter[int] = Counter()
        self._elsewhere = [0.0]  # for each step in work, the time that it spent in others

    def begin(self, wanted: set[Spot]) -> None:
        """From now on, what is wanted is noted; what passed before is not counted."""
        self.wanted = wanted
        self.passed.clear()
        self.spent.clear()

    @property
    def silent(self) -> bool:
        """Whether there is nothing to note yet, and no hurry."""
        return not self.wanted and self.end == math.inf

    def passing(
        self, place: int, run: Run, outputs: Iterator[Any], numbers: Iterator[int], pairs: bool
    ) -> Iterator[Any]:
        """The outputs of a node, timed and noted as they pass."""
        for number in numbers:
            began = perf_counter()
            if began > self.end:
                raise TooSlow
            self._elsewhere.append(0.0)
            try:
                output = next(outputs)
            except StopIteration:
                return
            finally:
                took = perf_counter() - began - self._elsewhere.pop()
                self.spent[place] += took  # type: ignore[assignment]
                self._elsewhere[-1] += perf_counter() - began
            noting = perf_counter()
            self.passed[place] += 1
            spot = Spot(place, run.epoch, number)
            if spot in self.wanted and spot not in self.notes:
                self.notes[spot] = self.note(spot, output[0] if pairs else output)
                self.seconds[spot] = took
            self._elsewhere[-1] += perf_counter() - noting
            yield output


class SeenNode(Each):
    """Stands behind a stage; datapoints pass unchanged, and one by one."""

    here = True

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The datapoints as they come, by index."""
        if self.part.arguments["recording"].silent:
            return self.sources[0].read(run, series)
        series, again = shared(series, 2)
        inputs = self.sources[0].read(run, series)
        return Outputs(self._passing(run, inputs, each_index(again)), None, [inputs])

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The datapoints as they come, with their lineage if it is asked for."""
        inputs = self.sources[0].stream(run, start, lineage)
        if self.part.arguments["recording"].silent:
            return inputs
        return Outputs(self._passing(run, inputs, count(start), lineage), None, [inputs], start)

    def _passing(self, run: Run, inputs: Outputs, numbers: Iterator[int], pairs: bool = False) -> Iterator[Any]:
        recording: Sighting = self.part.arguments["recording"]
        return recording.passing(self.sources[0].place, run, inputs, numbers, pairs)


@stage.of_node(SeenNode, transparent=True, said="look()")
def seen(recording: Any, source: Any) -> Any:
    """What a stage gives."""


def recorded(flow: Flow[Any], recording: Sighting, copies: dict[int, Flow[Any]] | None = None) -> Flow[Any]:
    """A copy of a tree that is recorded behind every stage; a flow used twice stays one, and its caches are new."""
    copies = {} if copies is None else copies
    if id(flow) not in copies:
        made = copy.copy(flow)
        made.sources = tuple(recorded(source, recording, copies) for source in flow.sources)
        if flow.part.kind is not None and issubclass(flow.part.kind, CacheNode):
            made.part = Stage(flow.part.definition, flow.part.arguments, flow.part.pinned)
        copies[id(flow)] = made if flow.part.traits.transparent else seen(recording, made)
    return copies[id(flow)]
