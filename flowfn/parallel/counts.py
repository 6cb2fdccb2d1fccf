"""What guarded stages count in a pass whose work is done elsewhere: in the order of delivery, whoever does it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

from flowfn.kinds.failures import failure_place, mark
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Run
from flowfn.kinds.tallies import Dropped, Reached
from flowfn.parallel.tasks.task import Reply
from flowfn.process import forks
from flowfn.showing import brief


class Counts:
    """The counts of a pass. `begins`: the position at which the next task begins in each stage, where it is known."""

    def __init__(self, top: Node, run: Run, begins: dict[int, int]) -> None:
        self.top, self.run, self.begins = top, run, begins

    def counting(self, reply: Reply, outputs: Iterator[Any]) -> Iterator[Any]:
        """The outputs of a task, and before each what guarded stages had counted when it was made."""
        tallies = {place: self.run.tallies.of(place) for place in reply.reached[-1]}
        starts = {place: self.begins.get(place, tally.now().inputs[1]) for place, tally in tallies.items()}
        events = deque(reply.events)
        for number, reached in enumerate(reply.reached):
            while events and events[0][0] <= number:
                _, place, at, dropped, budget = events.popleft()
                self._failed(place, at.behind(starts[place]), dropped, budget)
            for place, at in reached.items():
                tallies[place].see(at.behind(starts[place]))
            yield from itertools.islice(outputs, 1)
        for place, at in reply.reached[-1].items() if not reply.more else ():
            if place in self.begins:
                self.begins[place] = at.behind(starts[place]).position

    def _failed(self, place: int, reached: Reached, dropped: Dropped, budget: float | None) -> None:
        """Count what failed in a task; if that is too much, say where it was."""
        try:
            self.run.tallies.failed(place, reached, dropped, budget)
        except Exception as error:
            shown = f" (input {brief(dropped.datapoint)})"
            mark(error, failure_place(f"in {self.guards[place]}, its datapoint ", reached.position - 1, shown))
            raise

    @forks.cached_property
    def guards(self) -> dict[int, Any]:
        """The guarded stages, by place."""
        return {node.place: node.part for node in top_down(self.top) if node.guards}
