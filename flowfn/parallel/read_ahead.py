"""Workers that read what a stage opens: each opening is a task that gives a bounded number of its outputs at a time.

The next are made while the last are being used. So a stage that reads several at once keeps as many workers busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flowfn.flows.opening import OpenedNode, Opener, Opening
from flowfn.kinds.nodes import Node
from flowfn.parallel.crew import Crew, Pace
from flowfn.parallel.crossing.errors import raise_again
from flowfn.parallel.flight import Flight
from flowfn.parallel.links import link_to
from flowfn.parallel.tasks.task import Feed


class WorkerOpener(Opener):
    """Opens in the workers of a prefetch, for one stage in one pass."""

    early = True

    def __init__(self, crew: Crew, node: Node) -> None:
        super().__init__(node)
        many = node.part.arguments["cycle"]
        most = crew.max_bytes and max(crew.max_bytes // many, 1)
        self.crew = replace(crew, ahead=max(crew.ahead // many, 1), max_bytes=most, ordered=True, readers=many)
        self.pace, self.link = Pace(self.crew), link_to(self.crew, OpenedNode(node), {})

    def __call__(self, opening: Opening) -> Iterator[Any]:
        """What is opened; a worker begins with it at once."""
        return ReadAhead(self, opening)

    def close(self) -> None:
        """Let go of the workers."""
        if not self.link.inherited:
            self.link.close()


class ReadAhead(Iterator[Any]):
    """The outputs of one opening."""

    def __init__(self, opener: WorkerOpener, opening: Opening) -> None:
        self.pace, self.crew = opener.pace, opener.crew
        self.flight = Flight(opener.link.branch(), self.crew, self.pace)
        self.made: deque[Any] = deque()
        self.error: BaseException | None = None
        self.text = ""
        self.flight.send(Feed(0, (0,), datapoints=[opening], limit=self.pace.reading_limit), [{}])

    def __next__(self) -> Any:
        while not self.made:
            self._receive()
        return self.made.popleft()

    def _receive(self) -> None:
        """The next outputs, while those behind them are made."""
        error, self.error = self.error, None
        if error is not None:
            raise_again(error, self.text if self.crew.remote else "")
        if not len(self.flight):
            raise StopIteration
        taken = self.flight.take()
        if taken is not None:
            task, reply = taken
            self.made.extend(reply.outputs)
            self.error, self.text = reply.error, reply.text
            if reply.more:
                task.feed = replace(task.feed, limit=self.pace.reading_limit)
                self.flight.send_rest(task, task.feed.skip + len(reply.outputs))

    def close(self) -> None:
        """Nobody wants any more."""
        if len(self.flight):  # otherwise it has ended, and no worker holds anything
            self.flight.close()
