"""One pass over a spread stretch: tasks go out, replies come back, and outputs are delivered in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from flowfn.kinds.nodes import MISSING
from flowfn.parallel.counts import Counts
from flowfn.parallel.crew import TASK_SECONDS
from flowfn.parallel.crossing.errors import raise_again
from flowfn.parallel.cursor import Cursor
from flowfn.parallel.flight import Flight, PendingTask
from flowfn.parallel.handout import UNFIT, Handout
from flowfn.parallel.links import link_to
from flowfn.parallel.tasks.task import Feed, Reply, Unsupplied, perform


class Work:
    """A pass under way: what is handed out, where the pass stands, and what guarded stages count."""

    flight: Flight | None = None

    def __init__(self, handout: Handout, cursor: Cursor) -> None:
        self.handout, self.cursor, self.pace, self.crew = handout, cursor, handout.pace, handout.pace.crew
        self.stretch, self.run, self.memo = handout.stretch, handout.run, handout.run.memo
        self.counts = Counts(self.stretch.top, self.run, cursor.begins)

    def outputs(self) -> Iterator[Any]:
        """The outputs, in order, while the next are being made."""
        try:
            while True:
                coming = self._send()
                if self.flight is None or not len(self.flight):
                    self.cursor.learn(self.handout.last)
                    if self.handout.error is not None:
                        raise self.handout.error
                    self.cursor.note_losses()
                    return
                taken = self.flight.take(coming)
                if taken is not None:
                    yield from self._arrived(self.flight, *taken)
        finally:
            if self.flight is not None:
                self.flight.close()
            if self.flight is None or not self.flight.link.inherited:
                self.handout.close()

    # Going out

    def _send(self) -> Future[None] | None:
        """Send what there is room for. If it has to be waited for, and something is out,
        that is returned which is done then."""
        began, out = time.perf_counter(), self.flight
        if out is not None:
            out.stay()
        while not self.handout.ended and (out is None or self._has_room(out)):
            if out is not None and out.ready and time.perf_counter() > began + TASK_SECONDS:
                return None  # somebody waits for what is there
            coming = self._ask(out)
            if coming is not None and out is not None and len(out) and not coming.done():
                return coming
            sending = self.handout.next()
            if sending is not None:
                feed, anchors = sending
                if out is None:
                    out = self.flight = self._new_flight()
                limit = self.pace.limit if self.cursor.counted else None
                out.send(self.cursor.opened(replace(feed, limit=limit)), anchors)
        return None

    def _has_room(self, out: Flight) -> bool:
        if self.cursor.behind:
            return not len(out)
        return out.occupied < self.handout.window()

    def _ask(self, out: Flight | None) -> Future[None] | None:
        """Let the source be read, no further than twice what has come back."""
        most = min(self.pace.size, max(2 * (self.cursor.position - self.cursor.first_input), 1))
        return self.handout.ask(1 if out is None or out.idle else most, most)

    def _new_flight(self) -> Flight:
        link = link_to(self.crew, self.handout.top, self.memo)
        return Flight(link, self.crew, self.pace, singles=self.handout.singles, where=self.handout.where)

    # Coming back

    def _arrived(self, flight: Flight, task: PendingTask, reply: Reply) -> Iterator[Any]:
        feed, anchors = task.feed, task.anchors
        if type(reply.error) is Unsupplied and self.handout.unsupplied is None:  # it wanted more than it was given
            reply = perform(self.stretch.for_worker(self.run, None)[0], replace(feed, limit=None), {}, {})
        if feed.rows is not None and reply.error is None and not self._join(flight, task, reply):
            return
        if reply.more:
            flight.send_rest(task, feed.skip + len(reply.outputs))
        self.cursor.arrive(feed, anchors[0])
        outputs = iter(reply.outputs) if len(anchors) == 1 else self.cursor.each(reply.outputs, anchors[1:])
        yield from self.counts.counting(reply, outputs) if reply.reached else outputs
        if reply.error is not None:
            self._fail(reply.error, reply.text, feed)
        if not reply.more:
            self.cursor.advance(feed, reply.positions)

    def _join(self, flight: Flight, task: PendingTask, reply: Reply) -> bool:
        """Add a part of an output to the others; whether it was the last, and the reply has the output then.
        Parts that do not fit are made again, as a whole."""
        output = self.handout.add_part(task.feed.share, reply.outputs[0])
        if output is UNFIT:
            flight.send_first(replace(task.feed, rows=None, share=1.0), task.anchors)
            return False
        reply.outputs[0] = output
        return output is not MISSING

    def _fail(self, error: BaseException, text: str, feed: Feed) -> None:
        if type(error) is Unsupplied and self.handout.unsupplied is not None:
            raise self.handout.unsupplied
        self.cursor.place_error(error, feed, self.crew.ordered)
        raise_again(error, text if self.crew.remote else "")
