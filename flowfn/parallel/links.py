"""How the tasks of a pass get to whoever does them: threads, worker processes, somebody's executor.

    link.send(feed)  ->  sent        a task is out
    sent.reply()     ->  Reply       it is back; None, if it was sent again, since its worker lacked something; Gone
    link.close()                     nobody wants any more

A link is made for one pass over one tree. What differs between the three is how a task and its reply cross, and that
only worker processes can be ended and replaced.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import partial
from typing import Any

from flowfn.kinds.failures import failure_place, mark
from flowfn.kinds.nodes import Node
from flowfn.kinds.notes import add_note
from flowfn.parallel.clusters import Cluster
from flowfn.parallel.crew import Crew
from flowfn.parallel.crossing import slots
from flowfn.parallel.crossing.bundles import bundled
from flowfn.parallel.crossing.errors import raise_again
from flowfn.parallel.crossing.slots import Desk, Slot
from flowfn.parallel.crossing.transport import Parcel, pack_value, unpack_value
from flowfn.parallel.tasks import versions
from flowfn.parallel.tasks.background import collecting, may_wait
from flowfn.parallel.tasks.plan import unloadable
from flowfn.parallel.tasks.surroundings import Context
from flowfn.parallel.tasks.task import Feed, Reply, UnfinishedTask, perform, stop_task
from flowfn.parallel.tasks.threads import Team
from flowfn.parallel.tasks.versions import Ledger
from flowfn.parallel.workers.answering import Answer, answer_learned, answer_task, perform_here, stop_here
from flowfn.parallel.workers.pool import crew_of
from flowfn.parallel.workers.processes import Gone, Job, Workers, since_ready
from flowfn.parallel.workers.program import Prepared, accept, packed, prepared, send_whole
from flowfn.parallel.workers.starting import occupy_descriptors
from flowfn.process import forks
from flowfn.showing import as_written, brief

Performer = Callable[[Node, Feed], Reply]

SMALL_TREE = 1 << 16
"""Bytes up to which a tree goes along with every task to an executor of which nothing is known."""


@contextlib.contextmanager
def somebodys(crew: Crew) -> Iterator[None]:
    """Say of an error that it is that of somebody's executor: those of user functions come back in replies."""
    try:
        yield
    except (TimeoutError, Unfit, Gone):
        raise
    except Exception as error:
        if crew.executor is not None:
            add_note(
                error,
                f"in prefetch({crew.ahead}, executor={brief(crew.executor)}): its executor ended, or could not do a "
                "task, and is left as "
                "it is; make a new one, or prefetch with processes=, whose workers are replaced when they end",
            )
        raise


class Unfit(Exception):
    """A task cannot go to a worker process, or what came of it not come back:
    something in it cannot be pickled, or made again."""


class Sent:
    """A task that is out."""

    future: Future[Any]
    worker: int | None = None  # who does it, where that is known

    def __init__(self, feed: Feed, crew: Crew) -> None:
        self.feed, self.crew = feed, crew

    def reply(self, timeout: float | None = None) -> Reply | None:
        """Wait for what came of it; None if whoever does it lacked something, was given that, and does it again."""
        with somebodys(self.crew):
            reply: Reply = self.future.result(timeout)
        return reply

    @property
    def lacking(self) -> bool:
        """Whether it is back undone, since whoever does it lacks something that can be sent."""
        return self.future.done() and not self.failed and bool(getattr(self.future.result(), "lacks", ""))

    @property
    def failed(self) -> bool:
        """Whether it is over, and no reply will come."""
        if not self.future.done():
            return False
        over = self.future.cancelled() or self.future.exception() is not None
        return over or getattr(self.future.result(), "refused", False)

    @property
    def innocent(self) -> bool:
        """Whether it is over because whoever was to do it has ended, and not of this."""
        over = self.future.done() and not self.future.cancelled()
        return over and isinstance(failure := self.future.exception(), Gone) and not failure.guilty

    @property
    def since(self) -> float | None:
        """When whoever does it was ready for it; None if that is not known to be so yet."""
        return 0.0

    def cancel(self) -> None:
        """Nobody wants it any more; it is not done unless it is being done."""
        self.future.cancel()

    def end(self) -> None:
        """End whoever does it, if that can be."""


class Link(forks.Owned):
    """The way to the workers for one pass."""

    def __init__(self, crew: Crew, top: Node) -> None:
        self.crew, self.top, self.pass_id = crew, top, uuid.uuid4().hex

    @property
    def workers_informed(self) -> bool:
        """Whether the workers lack nothing, as far as can be told."""
        return True

    def send(
        self, feed: Feed, call: Performer = perform_here, *, short: bool = False, worker: int | None = None
    ) -> Sent:
        """Hand out a task, to a certain worker if one is named."""
        raise TypeError(f"{type(self).__name__} has no way to send")

    def branch(self) -> Link:
        """The same way, for work that is closed apart."""
        other = copy.copy(self)
        other.pass_id = f"{self.pass_id}/{uuid.uuid4().hex}"
        return other

    def close(self, wait: bool = True) -> None:
        """Let go of the workers."""


class Threads(Link):
    """Tasks are done by threads of this process; nothing has to cross."""

    def __init__(self, crew: Crew, top: Node, memo: dict[Any, Any]) -> None:
        super().__init__(crew, top)
        self.memo, self.consumer = memo, threading.current_thread()
        self.unfinished: dict[Any, UnfinishedTask] = {}
        self.trunk, self.closed, self.context = True, False, Context()
        self.executor = crew.executor or Team(crew.workers, "flowfn-worker", lambda: str(top.part or "a prefetch"))

    def branch(self) -> Link:
        """The same threads: there is one for each worker, and not more."""
        other = super().branch()
        other.trunk = False  # type: ignore[attr-defined]
        return other

    def send(
        self, feed: Feed, call: Performer = perform_here, *, short: bool = False, worker: int | None = None
    ) -> Sent:
        """Hand out a task."""
        sent = Sent(feed, self.crew)
        with somebodys(self.crew):
            sent.future = self.executor.submit(self.context.run, self._perform, feed)
        return sent

    def _perform(self, feed: Feed) -> Reply:
        reply = perform(self.top, feed, self.memo, self.unfinished)
        if self.closed:  # nobody wanted any more while this was done
            stop_task(self.unfinished, self.pass_id)
        return reply

    def close(self, wait: bool = True) -> None:
        """End the threads, unless they are somebody else's."""
        self.closed = True
        if self.crew.executor is None and self.trunk:
            self.executor.shutdown(wait=wait and may_wait(self.consumer), cancel_futures=True)
        stop_task(self.unfinished, self.pass_id)


class ByPickle(Link):
    """Tasks leave this process, and so does all that they need."""

    ledger: Ledger
    setup: Prepared | None
    apart = False  # whether large arrays travel as they are

    def __init__(self, crew: Crew, top: Node) -> None:
        super().__init__(crew, top)
        self.ledger = Ledger()
        self.setup = prepared(crew.setup, self.ledger)
        self.knowing: set[int | None] = set()

    @property
    def workers_informed(self) -> bool:
        """Whether so many workers have done something with what they were told last."""
        return len(self.knowing) >= self.crew.workers

    def pack(self, shares: bool = False) -> None:
        """Make ready what workers have to know before the next task. Settings go along to workers of our own."""
        self.knowing.clear()
        self.program = packed(self.top, self.ledger, self.setup, follows=self.crew.processes, shares=shares)
        self.named = len(self.ledger.named)

    def parcel(self, feed: Feed, desk: Desk | None = None) -> Parcel:
        """A task on its way; of what goes along with it by name, workers may have other versions."""
        made = packed_feed(feed, self.ledger, desk, self.apart)
        if len(self.ledger.named) > self.named:
            self.pack()
        return made

    def amend(self, outdated: tuple[tuple[str, str], ...]) -> None:
        """Workers cannot have what is here by its name: send it whole, or say that it cannot be sent."""
        if not send_whole(outdated) and not versions.accepted.issuperset(outdated):
            accept(outdated)
        try:
            self.pack()
        except TypeError as error:
            accept(outdated, error.__cause__)
            self.pack()


class Processes(ByPickle):
    """Tasks are done by the library's own worker processes, and arrays cross in shared memory where it can be had."""

    def __init__(self, crew: Crew, top: Node) -> None:
        super().__init__(crew, top)
        occupy_descriptors()
        self.pack(shares=not slots.denied())
        self.holding = False  # whether a worker may hold something of this pass

    @property
    def workers(self) -> Workers:
        """The workers as they are now: they may have been shut down, and others started, since the pass began."""
        return crew_of(self.crew.workers, self.crew.worker_threads, self.setup)

    def send(
        self, feed: Feed, call: Performer = perform_here, *, short: bool = False, worker: int | None = None
    ) -> Sent:
        """Hand out a task, in a slot."""
        self.holding = self.holding or feed.limit is not None
        return InProcess(self, feed, call, short, worker)

    def close(self, wait: bool = True) -> None:
        """Let the workers forget the pass."""
        for worker in range(self.crew.workers) if self.holding else ():
            self.workers.tell(worker, stop_here, self.pass_id)


class InProcess(Sent):
    """A task that is out to a worker process, and its slot."""

    job: Job | None = None
    slot: Slot | None

    def __init__(self, link: Processes, feed: Feed, call: Performer, short: bool, worker: int | None) -> None:
        super().__init__(feed, link.crew)
        self.link, self.call, self.short, self.wanted = link, call, short, worker
        self._send()

    def _send(self) -> None:
        self.slot = slots.take_slot()
        try:
            parcel = self.link.parcel(self.feed, Desk(self.slot) if self.slot is not None else None)
        except Unfit as error:
            self._put_back()
            self.future = failed(error)
            return
        name, self.program = self.slot.name if self.slot is not None else None, self.link.program
        self.job = self.link.workers.submit(
            answer_learned, self.call, name, parcel, tree=self.program, short=self.short, worker=self.wanted
        )
        self.future = self.job.future

    def reply(self, timeout: float | None = None) -> Reply | None:
        """Wait for what came of it; None if the worker lacked something, and was given it."""
        try:
            answer: Answer = self.future.result(timeout)
        except (Gone, CancelledError):  # a worker that is being ended may still write there
            self.link.knowing.clear()  # another begins in its place
            if self.slot is not None:
                slots.slots.part_with(self.slot)
            raise
        self.worker = self.job.worker if self.job is not None else None
        if answer.denied:
            slots.deny(answer.denied, lasting=bool(answer.lacks))
        if answer.lacks:
            self._put_back()
            if (
                answer.lacks in ("setup", "code") and not answer.fresh and self.job is not None
            ):  # the next one may do better
                self.link.workers.renew(self.job)
            if answer.fresh and self.program is self.link.program:
                self.link.amend(answer.outdated)
            if answer.lacks == "arrays":
                self.link.pack()
            refuse(self.link, answer)
            self.link.workers.forget(self.worker)
            self._send()  # to whoever has room: that worker may be at something that takes long
            return None
        if self.program is self.link.program:
            self.link.knowing.add(self.worker)
        return self._received(answer)

    def _received(self, answer: Answer) -> Reply:
        """The reply, its arrays in the slot where they are, or copied out of it if too much is held already."""
        slot, self.slot = self.slot, None
        parcel = answer.parcel
        if slot is None:
            return unpacked_reply(self.link.top, parcel)
        slot.look()
        if parcel.spans and answer.watched:
            slots.slots.part_with(slot)
            return unpacked_reply(self.link.top, parcel, slot.memory)
        if parcel.spans and slots.slots.may_lend(slot.size):
            return unpacked_reply(self.link.top, parcel, slots.slots.lend(slot).data)
        try:
            return unpacked_reply(self.link.top, parcel, slot.memory, copied=True)
        finally:
            _release_slot(slot, answer.watched)

    def _put_back(self) -> None:
        slot, self.slot = self.slot, None
        if slot is not None:
            slots.slots.give(slot)

    @property
    def since(self) -> float | None:
        """A worker is ready when it has been started and has imported what the flow needs."""
        if self.job is None:
            return 0.0
        return self.job.since if self.job.executor is not None else since_ready()

    def cancel(self) -> None:
        """Nobody wants it any more; the slot is free when nobody can write to it."""
        self.future.cancel()
        slot, self.slot = self.slot, None
        if slot is not None:
            self.future.add_done_callback(partial(_abandoned, slot))

    def end(self) -> None:
        """End the worker."""
        if self.job is not None:
            self.link.workers.end(self.job)


def _abandoned(slot: Slot, future: Future[Answer]) -> None:
    """What becomes of the slot of a task that nobody wants any more, when that is over."""
    over = future.cancelled() or future.exception() is None
    _release_slot(slot, watched=not over or (not future.cancelled() and future.result().watched))


def _release_slot(slot: Slot, watched: bool) -> None:
    if watched:
        slots.slots.part_with(slot)
    else:
        slots.slots.give(slot)


class Elsewhere(ByPickle):
    """Tasks are done by an executor of which nothing is known but `submit`; everything is pickled."""

    def __init__(self, crew: Crew, top: Node) -> None:
        super().__init__(crew, top)
        self.pack()
        self.holding = False
        self.apart = isinstance(crew.executor, Cluster) and crew.executor.apart

    def send(
        self, feed: Feed, call: Performer = perform_here, *, short: bool = False, worker: int | None = None
    ) -> Sent:
        """Hand out a task."""
        self.holding = self.holding or feed.limit is not None
        return ToExecutor(self, feed)

    def program_along(self, whole: bool) -> Any:
        """What goes along with a task: what is small; what is not, by way of a cluster or if the `whole` is wanted.

        Who plans the work of a cluster gives it to those that have what it needs: all to one, as long as it is short.
        """
        digest, pickled, _ = self.program
        if isinstance(self.crew.executor, Cluster) and len(pickled) > SMALL_TREE:
            return self.crew.executor.ship(digest, pickled)
        return pickled if whole or len(pickled) <= SMALL_TREE else None

    def close(self, wait: bool = True) -> None:
        """Have the pass forgotten, as far as that can be had where nobody can say who does what."""
        for _ in range(self.crew.workers) if self.holding and not collecting() else ():
            with contextlib.suppress(Exception):  # it takes nothing any more
                self.crew.executor.submit(stop_here, self.pass_id)  # type: ignore[union-attr]


class ToExecutor(Sent):
    """A task that is out to an executor."""

    def __init__(self, link: Elsewhere, feed: Feed) -> None:
        super().__init__(feed, link.crew)
        self.link = link
        self._send()

    def _send(self, with_program: bool = False) -> None:
        """Hand it out; with a program that is not small only to who does not know it."""
        executor = self.link.crew.executor
        try:
            parcel = self.link.parcel(self.feed)
        except Unfit as error:
            self.future = failed(error)
            return
        with somebodys(self.crew):
            self.program = self.link.program
            along = self.link.program_along(with_program)
            self.future = executor.submit(  # type: ignore[union-attr]
                answer_task, self.program.digest, along, perform_here, None, parcel, self.link.apart
            )
        if not isinstance(self.future, Future):
            raise TypeError(
                "prefetch(): submit() of executor must return a concurrent.futures.Future, but "
                f"{type(executor).__name__} returned "
                f"{type(self.future).__name__}; give what its library has for concurrent.futures"
            )

    def reply(self, timeout: float | None = None) -> Reply | None:
        """Wait for what came of it; None if the worker did not know the tree, and was told it."""
        with somebodys(self.crew):
            answer: Answer = self.future.result(timeout)
            if answer.lacks in ("tree", "code"):
                if answer.lacks == "code" and self.program is self.link.program:
                    self.link.amend(answer.outdated)
                self._send(with_program=True)
                return None
        refuse(self.link, answer)
        self.link.knowing.add(self.feed.number)  # nobody can say who did it
        return unpacked_reply(self.link.top, answer.parcel)


def link_to(crew: Crew, top: Node, memo: dict[Any, Any]) -> Link:
    """The way to a crew for one pass."""
    if crew.processes:
        return Processes(crew, top)
    return Elsewhere(crew, top) if crew.remote else Threads(crew, top, memo)


def failed(error: Exception) -> Future[Any]:
    """What is done already, and failed."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def refuse(link: ByPickle, answer: Answer) -> None:
    """Raise what cannot be mended of what a worker lacks."""
    if answer.lacks == "setup":
        error, text = unpack_value(answer.parcel)
        setup = as_written(link.crew.setup.function)  # type: ignore[union-attr]
        mark(error, failure_place(f"in setup={setup} of prefetch, which each worker calls first"))
        raise_again(error, text)
    if answer.lacks == "stage":
        raise TypeError(f"{unloadable(link.top)} cannot be made again in a worker process: {answer.why}")
    if answer.lacks == "sense":
        raise Unfit(answer.why)


def packed_feed(feed: Feed, ledger: Ledger, desk: Desk | None = None, apart: bool = False) -> Parcel:
    """A task on its way."""
    try:
        with versions.pickled_whole(versions.differing):
            datapoints = feed.datapoints and bundled(feed.datapoints)
            return pack_value(replace(feed, datapoints=datapoints), desk, ledger, apart)
    except Exception as error:
        raise Unfit(
            f"what comes to this stage cannot be sent to a worker process: {type(error).__name__}: {error}; "
            "give something that pickles, or prefetch with threads="
        ) from error


def unpacked_reply(top: Node, parcel: Parcel, memory: memoryview | None = None, copied: bool = False) -> Reply:
    """The reply in a parcel."""
    try:
        reply: Reply = unpack_value(parcel, memory, copied)
    except Exception as error:
        raise Unfit(
            f"{top.part} gave something that came back from its worker process and cannot be made again here: "
            f"{type(error).__name__}: {error}; give something that pickles both ways, or prefetch with threads="
        ) from error
    return reply
