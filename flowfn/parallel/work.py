"""One pass over a spread stretch: what is handed out, what comes back, and where the stages in it stand."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeAlias

from flowfn.blocks import BLOCK, Block, shared
from flowfn.kinds.failures import failure_place, mark, marked
from flowfn.kinds.losses import note_passed
from flowfn.kinds.nodes import Group, Node
from flowfn.kinds.runs import Anchor, Outputs, Run
from flowfn.kinds.tallies import Dropped, Reached, anchors
from flowfn.parallel.crew import TASK_SECONDS, Pace, raise_again
from flowfn.parallel.flight import Flight, PendingTask, numbered
from flowfn.parallel.links import link_to
from flowfn.parallel.tasks.background import END, Claim, Intake, may_wait, output_of
from flowfn.parallel.tasks.plan import Stretch
from flowfn.parallel.tasks.supply import Supply
from flowfn.parallel.tasks.task import Feed, Reply, Unsupplied, number_of_task, perform
from flowfn.process import forks
from flowfn.showing import brief

Sending: TypeAlias = tuple[Feed, list[dict[int, Anchor]]]
"""A task, and what is known of its source before it and, where that is wanted, after each of its inputs."""


class Work:
    """A pass under way. `exact` says whether what is known is told for each output, and not for each task."""

    opening: Mapping[str, Any] = {}
    owed: Mapping[int, int] = {}
    unsupplied: Exception | None = None
    broken: BaseException | None = None  # why there is no more to send; its turn comes after what is out
    ended = False  # whether there is no more to send
    last: Mapping[int, Anchor] = {}  # what was known of the source when it ended
    late = False  # whether the source made one wait too long
    intake: Intake | None = None
    flight: Flight | None = None
    claim: Claim | None = None

    def __init__(
        self,
        stretch: Stretch,
        pace: Pace,
        exact: bool,
        run: Run,
        plain: Feed,
        position: int = 0,
        standing: Mapping[int, int] = {},
    ) -> None:
        self.stretch, self.pace, self.crew, self.exact, self.run, self.plain = (
            stretch,
            pace,
            pace.crew,
            exact,
            run,
            plain,
        )
        self.position, self.start, self.standing = position, position, dict(standing)
        self.counted = self.stretch.counted()
        self.facts: dict[int, Anchor] = {}
        self.memo = run.memo
        self.joins = _joins(stretch) and self.crew.ordered
        self.splits = self.joins and stretch.bottom.size >= 2 * self.pace.parts  # type: ignore[attr-defined]
        self.made: list[tuple[float, Any]] = []  # the parts of the next output, and how much of it they are
        self.begun: dict[int, int] = {}  # the position at which the next task begins in each stage of the chain
        self.closing: list[Callable[[], None]] = []
        self.top: Node

    def tell(self) -> dict[int, Anchor]:
        """The anchors at the last output delivered."""
        return self.facts

    @property
    def behind(self) -> bool:
        """Whether a stage inside the chain still owes outputs that were delivered before,
        and that nobody may see again.

        They are dropped in the workers, so until then each task has to know what came of the one before.
        """
        return any(self.standing[place] < owed for place, owed in self.owed.items())

    @property
    def _window(self) -> int:
        return self.pace.window(self.pace.parts if self.splits else 1)

    # Going out

    def by_index(self, series: Iterator[Block]) -> Iterator[Sending]:
        """A task for each piece of a series of indices of the bottom, with what the workers cannot read themselves."""
        self.top, stay = self.stretch.for_worker(self.run, self.crew.remote)
        if not stay:
            for piece in self.pace.pieces(series):
                for feed in self._in_parts(piece):
                    yield feed, [{}]
            return
        series, again = shared(series, 2)
        supply = Supply(self.stretch.bottom, self.run, stay, again)
        self.closing.append(supply.close)
        for piece in self.pace.pieces(series):
            yield replace(self.plain, block=piece, supply=supply.of(piece)), [{}]
            if supply.error is not None:
                self.unsupplied = supply.error
                return

    def _in_parts(self, piece: Block) -> Iterator[Feed]:
        """The tasks for some outputs: one for all of them, or several for each where it takes long to make."""
        feed = replace(self.plain, block=piece)
        if not self.splits or self.pace.parts == 1:
            yield feed
            return
        for at in range(len(piece)):
            yield from self._parts(replace(feed, block=piece[at : at + 1]), self.pace.parts)

    def _parts(self, feed: Feed, count: int) -> Iterator[Feed]:
        """The tasks for the parts of one output."""
        every = self.stretch.bottom.inputs(self.run, int(feed.block[0]))  # type: ignore[attr-defined,index]
        rows = every if feed.rows is None else feed.rows
        size = max(-(-len(rows) // count), 1)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield replace(feed, rows=part, share=len(part) / len(every), number=number_of_task())

    def _singles(self, feed: Feed) -> list[Feed]:
        """A task for each datapoint of one that ended its worker."""
        if len(feed) == 1 and self.joins and not feed.supply and feed.block is not None:
            return list(self._parts(feed, BLOCK))
        return feed.singles()

    def _where(self, feed: Feed) -> dict[str, Any]:
        """Where a task is, for the note on an error."""
        top, bottom = self.stretch.top, self.stretch.bottom
        if feed.rows is not None:
            return numbered(feed, bottom.sources[0].part)
        if self.counted and not (len(bottom.sources) == 1 and top.sources[0] is bottom):
            return numbered(feed, f"{top.part} or a stage before it", bottom.part)
        return numbered(feed, top.part)

    def by_value(self, opened: Callable[[Run], Outputs], labelled: bool) -> Iterator[Sending]:
        """A task for every few datapoints of the stream at the bottom, which is read in a thread,
        and no further than is wanted."""
        self.top, _ = self.stretch.for_worker(self.run, self.crew.remote)
        first, known = self.position, dict(self.run.anchors)
        self.intake = intake = Intake(self.crew.timeout)
        consumer = threading.current_thread()
        self.closing.append(lambda: intake.close(not self.late and may_wait(consumer)))
        self.claim = intake.open(self.stretch.bottom, self.run, opened)
        intake.ask(1, 1)
        while not self.ended:
            told, taken = [known], []
            for output, known, error in self._taken(intake, first):
                if output is END:
                    self.ended, self.broken, self.last = True, error, known
                else:
                    taken.append(output)
                    told.append(known)
            feed = replace(self.plain, datapoints=taken, first=first)
            if labelled:
                feed = replace(feed, datapoints=[d for d, _ in taken], labels=[label for _, label in taken])
            if taken:
                yield feed, told if self.exact else told[:1]
            first += len(taken)

    def _taken(self, intake: Intake, first: int) -> list[Any]:
        try:
            return intake.take()
        except TimeoutError as error:
            self.late = True  # nobody can end a thread
            mark(error, output_of(self.stretch.bottom, first))
            raise

    # Coming back

    def out(self, feeds: Iterator[Sending]) -> Iterator[Any]:
        """The outputs, in order, while the next are being made."""
        try:
            while True:
                coming = self._send(feeds)
                if self.flight is None or not len(self.flight):
                    self.facts = {**self.facts, **self._known(self.last)}
                    if self.broken is not None:
                        raise self.broken
                    self._note_losses()
                    return
                taken = self.flight.take(coming)
                if taken is not None:
                    yield from self._arrived(self.flight, *taken)
        finally:
            if self.flight is not None:
                self.flight.close()
            for close in () if self.flight is not None and self.flight.link.inherited else self.closing:
                close()

    def _note_losses(self) -> None:
        taken = self.position
        for node in self.counted:
            note_passed(self.run, node, self.standing[node.place], taken)
            taken = self.standing[node.place]

    def _send(self, feeds: Iterator[Sending]) -> Future[None] | None:
        """Send what there is room for. If it has to be waited for, and something is out,
        that is returned which is done then."""
        began, out = time.perf_counter(), self.flight
        if out is not None:
            out.stay()
        while not self.ended and (out is None or len(out) < (1 if self.behind else self._window)):
            if (
                out is not None and out.ready and time.perf_counter() > began + TASK_SECONDS
            ):  # somebody waits for what is there
                return None
            if self.intake is not None:
                most = min(
                    self.pace.size, max(2 * (self.position - self.start), 1)
                )  # no further than twice what has come back
                coming = self.intake.ask(1 if out is None or out.idle else most, most)
                if out is not None and len(out) and not coming.done():
                    return coming
            try:
                feed, told = next(feeds)
            except StopIteration:
                self.ended = True
            except (Exception, SystemExit) as error:
                self.broken, self.ended = error, True
            else:
                if out is None:
                    out = self.flight = self._flight()
                out.send(replace(feed, limit=self.pace.limit if self.counted else None, **self.opening), told)
                self.opening = {}
        return None

    def _flight(self) -> Flight:
        return Flight(
            link_to(self.crew, self.top, self.memo), self.crew, self.pace, singles=self._singles, where=self._where
        )

    def _arrived(self, flight: Flight, task: PendingTask, reply: Reply) -> Iterator[Any]:
        feed, told, taken = task.feed, task.told, self.position
        if type(reply.error) is Unsupplied and self.unsupplied is None:  # it wanted more than it was given
            reply = perform(self.stretch.for_worker(self.run, None)[0], replace(feed, limit=None), {}, {})
        if feed.rows is not None and reply.error is None and not self._completed(flight, task, reply):
            return
        if reply.more:
            flight.send_rest(task, feed.skip + len(reply.outputs))
        facts = self._known(told[0])
        for node in self.counted:
            facts[node.place] = Anchor(self.run.epoch, self.standing[node.place], (taken,))
            taken = self.standing[node.place]
        self.facts = {**facts, **feed.anchors}
        outputs = iter(reply.outputs) if len(told) == 1 else self._telling(reply.outputs, told[1:])
        yield from self._counting(reply, outputs) if reply.reached else outputs
        if reply.error is not None:
            self._fail(reply, feed)
        if reply.more:
            return
        self.position += len(feed)
        for place, position in reply.positions.items():
            if place in self.standing:
                self.standing[place] = position if feed.opening else self.standing[place] + position
        if self.behind:
            taken, chain = self.position, {}
            for node in self.counted:
                chain[node.place] = Anchor(self.run.epoch, self.standing[node.place], (taken,))
                taken = max(self.owed[node.place], self.standing[node.place])
            self.opening = {"opening": True, "start": feed.start, "anchors": chain}

    def _completed(self, flight: Flight, task: PendingTask, reply: Reply) -> bool:
        """Whether this was the last part of an output, which is then the reply's.
        Parts that do not fit are made again, as a whole."""
        feed = task.feed
        self.made.append((feed.share, reply.outputs[0]))
        if sum(share for share, _ in self.made) < 1 - 1e-9:
            return False
        parts = [part for _, part in self.made]
        self.made.clear()
        whole = parts[0] if len(parts) == 1 else self.stretch.bottom.part.join(parts)
        if whole is None:
            self.splits = self.joins = False
            flight.send_first(replace(feed, rows=None, share=1.0), task.told)
            return False
        reply.outputs[0] = whole
        return True

    def _telling(self, outputs: list[Any], told: list[dict[int, Anchor]]) -> Iterator[Any]:
        """The outputs of a task, each of one input, and before each what was known once its input had been read."""
        for output, facts in zip(outputs, told):
            self.facts = {**self.facts, **self._known(facts)}
            yield output

    def _known(self, told: Mapping[int, Anchor]) -> dict[int, Anchor]:
        """The anchors in what is known of the source; counts are taken over."""
        self.run.tallies.take(told)
        return anchors(told)

    def _counting(self, reply: Reply, outputs: Iterator[Any]) -> Iterator[Any]:
        """The outputs of a task, and before each what guarded stages had counted when it was made."""
        tallies = {place: self.run.tallies.of(place) for place in reply.reached[-1]}
        begun = {place: self.begun.get(place, tally.now().inputs[1]) for place, tally in tallies.items()}
        events = deque(reply.events)
        for number, done in enumerate(reply.reached):
            while events and events[0][0] <= number:
                _, place, reached, dropped, budget = events.popleft()
                self._failed(place, reached.behind(begun[place]), dropped, budget)
            for place, reached in done.items():
                tallies[place].see(reached.behind(begun[place]))
            yield from itertools.islice(outputs, 1)
        for place, reached in reply.reached[-1].items() if not reply.more else ():
            if place in self.begun:
                self.begun[place] = reached.behind(begun[place]).position

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
        """The guarded stages of the stretch, by place."""
        found, todo = {}, [self.stretch.top]
        while todo:
            node = todo.pop()
            todo.extend(node.sources)
            if node.guards:
                found[node.place] = node.part
        return found

    def _fail(self, reply: Reply, feed: Feed) -> None:
        if type(reply.error) is Unsupplied and self.unsupplied is not None:
            raise self.unsupplied
        error: Any = reply.error
        where = marked(error)
        if where and where["counted"] != -1 and not feed.opening:
            before = self.position if self.crew.ordered or feed.block is not None else feed.first
            where["index"] += before if where["counted"] is None else self.standing.get(where["counted"], 0)
        if where:
            where["counted"] = -1
        raise_again(error, reply.text if self.crew.remote else "")


def _joins(stretch: Stretch) -> bool:
    """Whether several workers may make one output together:
    the last stage is a group that knows how to join its parts."""
    top = stretch.top
    if not isinstance(top, Group) or top is not stretch.bottom or top.part.definition.joins is None:
        return False
    return top.step == top.size and not (top.source.gathers or top.guarded or top.part.wants_labels)
