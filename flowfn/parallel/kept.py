"""A whole tree in the one worker that there is, stages that see the whole stream included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowfn.kinds.nodes import Node
from flowfn.kinds.runs import Anchor, Outputs, Run
from flowfn.kinds.tallies import anchors
from flowfn.parallel.crew import Crew, Pace
from flowfn.parallel.crossing.errors import raise_again
from flowfn.parallel.flight import Flight
from flowfn.parallel.links import link_to
from flowfn.parallel.tasks.task import Feed
from flowfn.parallel.workers.answering import continue_pass


class Kept(Node):
    """A whole tree in the one worker that there is: the pass is an iterator that the worker keeps."""

    def __init__(self, top: Node, crew: Crew) -> None:
        super().__init__(top.part, (), top.place, None)
        self.top, self.crew = top, crew
        self.rank, self.world, self.guarded = top.rank, top.world, top.guarded

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on; a worker that lost the pass makes it anew from the last anchors."""
        facts: dict[int, Anchor] = dict(run.anchors)
        return Outputs(self._out(run, start, lineage, facts), None, (), start, lambda: facts)

    def _out(self, run: Run, start: int, lineage: bool, facts: dict[int, Anchor]) -> Iterator[Any]:
        pace = Pace(self.crew)
        flight = Flight(link_to(self.crew, self.top, {}), self.crew, pace, continue_pass)
        start_facts = {**run.anchors, **run.tallies.facts()}
        ended = False
        try:
            while True:
                while len(flight) < pace.window() and not ended:
                    plain = Feed(
                        run.seed,
                        run.epoch,
                        run.base,
                        first_output=start,
                        first_input=start,
                        anchors=start_facts,
                        lineage=lineage,
                        limit=pace.size,
                        gaps=run.gaps,
                    )
                    flight.send(plain, [])
                    start += pace.size
                taken = flight.take()
                if taken is None:
                    continue
                _, reply = taken
                ended = ended or reply.ended
                for output, news in zip(reply.outputs, reply.facts or ()):
                    facts.clear()
                    facts.update(anchors(news))
                    run.tallies.take(news)
                    start_facts = {**start_facts, **news}
                    yield output
                run.tallies.take(reply.last)
                if reply.error is not None:
                    raise_again(reply.error, reply.text)
                if reply.ended:
                    return
        finally:
            flight.close()
