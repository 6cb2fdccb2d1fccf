"""What is handed out in a pass over a stretch: tasks of a few outputs each, or of one part of one output."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeAlias

from flowfn.blocks import BLOCK, Block, shared
from flowfn.kinds.failures import mark
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import MISSING, Node
from flowfn.kinds.runs import Anchor, Outputs, Run
from flowfn.parallel.crew import Pace
from flowfn.parallel.flight import task_place
from flowfn.parallel.tasks.background import END, Claim, Intake, may_wait, output_of
from flowfn.parallel.tasks.plan import Stretch
from flowfn.parallel.tasks.supply import Supply
from flowfn.parallel.tasks.task import Feed, number_of_task

Sending: TypeAlias = tuple[Feed, list[dict[int, Anchor]]]
"""A task, and what is known of its source before it and, where that is wanted, after each of its inputs."""

UNFIT = object()
"""In the place of an output whose parts do not fit."""


class Handout:
    """The tasks of a pass, in order: every one is like `plain`, and has its datapoints or says which they are."""

    ended = False  # whether there is no task any more
    error: BaseException | None = None  # why there is none; its turn comes after what is out
    last: Mapping[int, Anchor] = {}  # what was known of the source when it ended
    unsupplied: Exception | None = None  # why what workers cannot read themselves was not there
    intake: Intake | None = None
    claim: Claim | None = None  # while this is held, the source is read
    late = False  # whether the source made one wait too long

    def __init__(self, stretch: Stretch, run: Run, pace: Pace, plain: Feed) -> None:
        self.stretch, self.run, self.pace, self.plain = stretch, run, pace, plain
        self.joins = _joins(stretch) and pace.crew.ordered
        self.splits = self.joins and stretch.bottom.size >= 2 * pace.parts  # type: ignore[attr-defined]
        self.came: list[tuple[float, Any]] = []  # parts of the next output, and how much of it they are
        self.closing: list[Callable[[], None]] = []
        self.tasks: Iterator[Sending] = iter(())
        self.top: Node  # what workers run; known with the first task

    def next(self) -> Sending | None:
        """The next task, or None if there is none any more."""
        try:
            return next(self.tasks)
        except StopIteration:
            self.ended = True
        except (Exception, SystemExit) as error:
            self.error, self.ended = error, True
        return None

    def window(self) -> int:
        """How many tasks may be out."""
        return self.pace.window(self.pace.parts if self.splits else 1)

    def ask(self, least: int, most: int) -> Future[None] | None:
        """Let up to `most` datapoints be read where they are read here. What is returned is done when `least` are."""
        return None if self.intake is None else self.intake.ask(least, most)

    def close(self) -> None:
        """Nothing more is wanted."""
        for close in self.closing:
            close()
        self.tasks = iter(())  # which held what is held here, and that this

    def where(self, feed: Feed) -> dict[str, Any]:
        """Where a task is, for the note on an error."""
        top, bottom = self.stretch.top, self.stretch.bottom
        if feed.rows is not None:
            return task_place(feed, bottom.sources[0].part)
        if self.stretch.counted() and not (len(bottom.sources) == 1 and top.sources[0] is bottom):
            return task_place(feed, f"{top.part} or a stage before it", bottom.part)
        return task_place(feed, top.part)

    # By index

    def by_index(self, series: Iterator[Block]) -> None:
        """Hand out the pieces of a series of indices of the bottom, with what the workers cannot read themselves."""
        self.tasks = self._by_index(series)

    def _by_index(self, series: Iterator[Block]) -> Iterator[Sending]:
        self.top, stay = self.stretch.for_worker(self.run, self.pace.crew.remote)
        if not stay:
            for piece in self.pace.pieces(series):
                for feed in self._of_piece(piece):
                    yield feed, [{}]
            return
        series, again = shared(series, 2)
        supply = Supply(self.stretch.bottom, self.run, stay, again)
        self.closing.append(supply.close)
        for piece in self.pace.pieces(series):
            along = supply.of(piece)
            yield replace(self.plain, block=piece, supply=along, lacking=supply.error is not None), [{}]
            if supply.error is not None:
                self.unsupplied = supply.error
                return

    def _of_piece(self, piece: Block) -> Iterator[Feed]:
        """The tasks for some outputs: one for all of them, or several for each where it takes long to make."""
        feed = replace(self.plain, block=piece)
        if not self.splits or self.pace.parts == 1:
            yield feed
            return
        for at in range(len(piece)):
            yield from self._in_parts(replace(feed, block=piece[at : at + 1]), self.pace.parts)

    def _in_parts(self, feed: Feed, count: int) -> Iterator[Feed]:
        """The tasks for the parts of one output."""
        every = self.stretch.bottom.inputs(self.run, int(feed.block[0]))  # type: ignore[attr-defined,index]
        rows = every if feed.rows is None else feed.rows
        size = max(-(-len(rows) // count), 1)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield replace(feed, rows=part, share=len(part) / len(every), number=number_of_task())

    def add_part(self, share: float, part: Any) -> Any:
        """The output of which this was the last part; MISSING if others are to come; UNFIT if its parts do not fit."""
        self.came.append((share, part))
        if sum(share for share, _ in self.came) < 1 - 1e-9:
            return MISSING
        parts = [part for _, part in self.came]
        self.came.clear()
        output = parts[0] if len(parts) == 1 else self.stretch.bottom.part.join(parts)
        if output is not None:
            return output
        self.splits = self.joins = False
        return UNFIT

    # By value

    def by_value(self, opened: Callable[[Run], Outputs], first: int, labelled: bool, exact: bool) -> None:
        """Hand out the datapoints of the stream at the bottom, which begins with number `first`.

        It is read in a thread, and no further than is asked for. `labelled`: it gives each datapoint with its label.
        `exact`: with a task goes what is known of the source after each of its datapoints, and not only before them.
        """
        self.tasks = self._by_value(opened, first, labelled, exact)

    def _by_value(self, opened: Callable[[Run], Outputs], first: int, labelled: bool, exact: bool) -> Iterator[Sending]:
        self.top, _ = self.stretch.for_worker(self.run, self.pace.crew.remote)
        anchors = dict(self.run.anchors)
        self.intake = intake = Intake(self.pace.crew.timeout)
        consumer = threading.current_thread()
        self.closing.append(lambda: intake.close(not self.late and may_wait(consumer)))
        self.claim = intake.open(self.stretch.bottom, self.run, opened)
        intake.ask(1, 1)
        while not self.ended:
            anchors_at, datapoints = [anchors], []  # the anchors behind the task before
            for output, anchors, error in self._read(intake, first):
                if output is END:
                    self.ended, self.error, self.last = True, error, anchors
                else:
                    datapoints.append(output)
                    anchors_at.append(anchors)
            feed = replace(self.plain, datapoints=datapoints, first_input=first)
            if labelled:
                feed = replace(feed, datapoints=[d for d, _ in datapoints], labels=[label for _, label in datapoints])
            if datapoints:
                yield feed, anchors_at if exact else anchors_at[:1]
            first += len(datapoints)

    def _read(self, intake: Intake, first: int) -> list[tuple[Any, dict[int, Anchor], BaseException | None]]:
        try:
            return intake.take()
        except TimeoutError as error:
            self.late = True  # nobody can end a thread
            mark(error, output_of(self.stretch.bottom, first))
            raise

    # Again

    def singles(self, feed: Feed) -> list[Feed]:
        """A task for each datapoint of one that ended its worker, or that cannot travel as a whole."""
        if len(feed) == 1 and self.joins and not feed.supply and feed.block is not None:
            return list(self._in_parts(feed, BLOCK))
        return feed.singles()


def _joins(stretch: Stretch) -> bool:
    """Whether several workers may make one output together:
    the last stage is a group that knows how to join its parts."""
    top = stretch.top
    if not isinstance(top, Group) or top is not stretch.bottom or top.part.definition.joins is None:
        return False
    return top.step == top.size and not (top.source.gathers or top.guarded or top.part.wants_labels)
