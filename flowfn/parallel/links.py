"""How the tasks of a pass get to whoever does them: threads, worker processes, somebody's executor.

    link.send(feed)  ->  sent        a task is out
    sent.reply()     ->  Reply       it is back; Gone, if its worker has ended
    link.close()                     nobody wants any more

A link is made for one pass over one tree. What differs between the three is how a task and its reply cross, and that
only worker processes can be ended and replaced.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from flowfn.kinds import Node
from flowfn.parallel import slots
from flowfn.parallel.crew import Crew
from flowfn.parallel.plan import packed
from flowfn.parallel.pool import Gone, Job, Workers, crew_of
from flowfn.parallel.serving import Answer, perform_here, serve, stop_here
from flowfn.parallel.slots import Desk, Slot
from flowfn.parallel.task import Begun, Feed, Reply, perform
from flowfn.parallel.transport import Parcel, pack, unpack

Call = Callable[[Node, Feed], Reply]

SMALL_TREE = 1 << 16
"""Bytes up to which a tree goes along with every task to an executor of which nothing is known."""


class Sent:
    """A task that is out."""

    future: Future[Any]
    worker: int | None = None  # who does it, where that is known

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def reply(self, timeout: float | None = None) -> Reply:
        """Wait for what came of it."""
        reply: Reply = self.future.result(timeout)
        return reply

    def cancel(self) -> None:
        """Nobody wants it any more; it is not done unless it is being done."""
        self.future.cancel()

    def end(self) -> None:
        """End whoever does it, if that can be."""


class Link:
    """The way to the workers for one pass."""

    def __init__(self, crew: Crew, top: Node) -> None:
        self.crew, self.top, self.work = crew, top, uuid.uuid4().hex

    def send(self, feed: Feed, call: Call = perform_here, *, short: bool = False, worker: int | None = None) -> Sent:
        """Hand out a task, to a certain worker if one is named."""
        raise TypeError(f"{type(self).__name__} has no way to send")

    def close(self, wait: bool = True) -> None:
        """Let go of the workers."""


class Threads(Link):
    """Tasks are done by threads of this process; nothing has to cross."""

    def __init__(self, crew: Crew, top: Node, memo: dict[Any, Any]) -> None:
        super().__init__(crew, top)
        self.memo = memo
        self.begun: OrderedDict[Any, Begun] = OrderedDict()
        self.executor = crew.executor or ThreadPoolExecutor(crew.workers, "flowfn-worker")

    def send(self, feed: Feed, call: Call = perform_here, *, short: bool = False, worker: int | None = None) -> Sent:
        """Hand out a task."""
        sent = Sent(feed)
        sent.future = self.executor.submit(perform, self.top, feed, self.memo, self.begun)
        return sent

    def close(self, wait: bool = True) -> None:
        """End the threads, unless they are somebody else's."""
        if self.crew.executor is None:
            self.executor.shutdown(wait=wait, cancel_futures=True)
        while self.begun:
            self.begun.popitem()[1].outputs.close()


class Processes(Link):
    """Tasks are done by the library's own worker processes, and arrays cross in shared memory where it can be had."""

    def __init__(self, crew: Crew, top: Node) -> None:
        super().__init__(crew, top)
        self.tree = packed(top, shares=not slots.denied())
        self.holding: set[int] = set()  # the workers that hold something of this pass

    @property
    def workers(self) -> Workers:
        """The workers as they are now: they may have been shut down, and others started, since the pass began."""
        return crew_of(self.crew.workers, self.crew.worker_threads)

    def send(self, feed: Feed, call: Call = perform_here, *, short: bool = False, worker: int | None = None) -> Sent:
        """Hand out a task, in a slot."""
        return InProcess(self, feed, call, short, worker)

    def close(self, wait: bool = True) -> None:
        """Let the workers forget the pass."""
        for worker in self.holding:
            self.workers.tell(worker, stop_here, self.work)


class InProcess(Sent):
    """A task that is out to a worker process, and its slot."""

    job: Job
    slot: Slot | None

    def __init__(self, link: Processes, feed: Feed, call: Call, short: bool, worker: int | None) -> None:
        super().__init__(feed)
        self.link, self.call, self.short = link, call, short
        self._send(worker)

    def _send(self, worker: int | None) -> None:
        self.slot = slots.take()
        parcel = pack(self.feed, Desk(self.slot) if self.slot is not None else None, by_value=True)
        name = self.slot.name if self.slot is not None else None
        self.job = self.link.workers.submit(serve, self.call, name, parcel, tree=self.link.tree, short=self.short, worker=worker)
        self.future = self.job.future

    def reply(self, timeout: float | None = None) -> Reply:
        """Wait for what came of it. A worker that lacks something is given it."""
        try:
            answer: Answer = self.future.result(timeout)
        except (Gone, CancelledError):
            self._put_back()
            raise
        self.worker = self.job.worker
        if answer.denied:
            slots.deny(answer.denied)
        if answer.lacks:
            self._put_back()
            if answer.lacks == "arrays":
                self.link.tree = packed(self.link.top)
            self.link.workers.forget(self.worker)
            self._send(self.worker)
            return self.reply(timeout)
        reply = self._received(answer)
        if self.worker is not None and (reply.more or self.call is not perform_here):
            self.link.holding.add(self.worker)
        return reply

    def _received(self, answer: Answer) -> Reply:
        """The reply, its arrays in the slot where they are, or copied out of it if too much is held already."""
        slot, self.slot = self.slot, None
        parcel = answer.parcel
        if slot is None:
            return opened(self.link.top, parcel)
        slot.look()
        if parcel.spans and answer.watched:
            slots.slots.part_with(slot)
            return opened(self.link.top, parcel, slot.memory)
        if parcel.spans and slots.slots.may_lend(slot.size):
            return opened(self.link.top, parcel, slots.slots.lend(slot).data)
        try:
            return opened(self.link.top, parcel, slot.memory, copied=True)
        finally:
            self._let_go(slot, answer)

    def _let_go(self, slot: Slot, answer: Answer) -> None:
        if answer.watched:
            slots.slots.part_with(slot)
        else:
            slots.slots.give(slot)

    def _put_back(self) -> None:
        slot, self.slot = self.slot, None
        if slot is not None:
            slots.slots.give(slot)

    def cancel(self) -> None:
        """Nobody wants it any more; the slot is free when nobody can write to it."""
        self.future.cancel()
        self.future.add_done_callback(self._abandoned)

    def _abandoned(self, future: Future[Answer]) -> None:
        slot, self.slot = self.slot, None
        if slot is not None:
            done = not future.cancelled() and future.exception() is None
            self._let_go(slot, future.result() if done else Answer(Parcel(b"")))

    def end(self) -> None:
        """End the worker."""
        self.link.workers.end(self.job)


class Elsewhere(Link):
    """Tasks are done by an executor of which nothing is known but `submit`; everything is pickled."""

    def __init__(self, crew: Crew, top: Node) -> None:
        super().__init__(crew, top)
        self.digest, self.pickled = packed(top)

    def send(self, feed: Feed, call: Call = perform_here, *, short: bool = False, worker: int | None = None) -> Sent:
        """Hand out a task."""
        return ToExecutor(self, feed)


class ToExecutor(Sent):
    """A task that is out to an executor."""

    def __init__(self, link: Elsewhere, feed: Feed) -> None:
        super().__init__(feed)
        self.link = link
        self._send(link.pickled if len(link.pickled) <= SMALL_TREE else None)

    def _send(self, pickled: bytes | None) -> None:
        executor = self.link.crew.executor
        parcel = pack(self.feed, by_value=True)
        self.future = executor.submit(serve, self.link.digest, pickled, perform_here, None, parcel)  # type: ignore[union-attr]

    def reply(self, timeout: float | None = None) -> Reply:
        """Wait for what came of it; a worker that does not know the tree is told it."""
        answer: Answer = self.future.result(timeout)
        if answer.lacks:
            self._send(self.link.pickled)
            answer = self.future.result(timeout)
        return opened(self.link.top, answer.parcel)


def link_to(crew: Crew, top: Node, memo: dict[Any, Any]) -> Link:
    """The way to a crew for one pass."""
    if crew.processes:
        return Processes(crew, top)
    return Elsewhere(crew, top) if crew.remote else Threads(crew, top, memo)


def opened(top: Node, parcel: Parcel, memory: memoryview | None = None, copied: bool = False) -> Reply:
    """The reply in a parcel."""
    try:
        reply: Reply = unpack(parcel, memory, copied)
    except Exception as error:
        raise TypeError(
            f"{top.part} gave something that was sent back from its worker process and cannot be made again here: "
            f"{type(error).__name__}: {error}; give something that pickles both ways, or prefetch with threads="
        ) from error
    return reply
