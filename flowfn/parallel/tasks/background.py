"""One thread that runs ahead: outputs wait in a queue, each with the anchors at which it was made."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple

from flowfn.kinds.failures import failure_place, locate, mark, uneven
from flowfn.kinds.nodes import Node
from flowfn.kinds.runs import Anchor, Outputs, Run
from flowfn.kinds.tallies import Tallies, anchors
from flowfn.parallel.tasks.surroundings import Context
from flowfn.parallel.tasks.task import weight
from flowfn.parallel.tasks.threads import Thread, wait_for
from flowfn.process import forks
from flowfn.process.interrupts import Deferred

END = object()


class Bounds(NamedTuple):
    """How many outputs may wait, how many bytes they may have, and how many seconds one may be waited for."""

    ahead: int
    max_bytes: int | None = None
    timeout: float | None = None
    ready: Callable[[], float | None] = lambda: 0.0
    """Since when whoever makes them is ready, which is what `timeout` counts from; None if that is not so yet."""


class Channel(forks.Owned):
    """A bounded queue between the thread that makes outputs and the iterator that delivers them."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.bytes = 0
        self.waiting: deque[tuple[Any, dict[int, Anchor], BaseException | None]] = deque()
        self.lock = forks.lock()
        self.changed = threading.Condition(self.lock)
        self.closed = False
        self.thread: ChannelThread | None = None

    def put(self, output: Any, facts: dict[int, Anchor], error: BaseException | None = None) -> bool:
        """Wait for room and add an output; False if nobody wants it any more."""
        with self.lock:
            size = self._weight(output)
            self.changed.wait_for(lambda: self.closed or self._has_room(size))
            if not self.closed:
                self.bytes += size
                self.waiting.append((output, facts, error))
                self.changed.notify_all()
            return not self.closed

    def get(self) -> tuple[Any, dict[int, Anchor], BaseException | None]:
        """Wait for the next output and take it."""
        if self.inherited:
            raise RuntimeError(
                "a pass with a background thread cannot go on in a forked child; iterate the flow there, or load its "
                "state"
            )
        with self.lock:
            if not self._comes():
                raise TimeoutError(f"prefetch(): nothing came for timeout={self.bounds.timeout} seconds")
            taken = self.waiting.popleft()
            self.bytes -= self._weight(taken[0])
            self.changed.notify_all()
            return taken

    def _comes(self) -> bool:
        """Wait for an output; False if none came in time."""
        timeout = wait = self.bounds.timeout and min(self.bounds.timeout, threading.TIMEOUT_MAX)
        while not self.changed.wait_for(lambda: self.waiting, wait):
            since = self.bounds.ready()
            wait = timeout if since is None or timeout is None else since + timeout - time.monotonic()
            if wait is not None and wait <= 0:
                return False
        return True

    def _has_room(self, size: int) -> bool:
        ahead, most = self.bounds[:2]
        return len(self.waiting) < ahead and (most is None or not self.waiting or self.bytes + size <= most)

    def _weight(self, output: Any) -> int:
        return 0 if self.bounds.max_bytes is None else weight(output)

    def open(self, node: Node, run: Run, start: Callable[[Run], Outputs]) -> Claim:
        """Have what `start(run)` gives of a node made in a thread, for whoever holds what is returned.

        What is counted there is told with the outputs.
        """
        claim = Claim()
        self.claim = weakref.ref(claim, lambda _: self.close(wait=False))
        self.thread = ChannelThread(self, node, replace(run, tallies=Tallies(run.tallies.facts())), start)
        with Deferred():
            self.thread.start()
        return claim

    def close(self, wait: bool = True) -> None:
        """Tell the thread to end, and wait a while until it has."""
        self.closed = True  # even if nothing more comes of this
        with self.lock:
            self.changed.notify_all()
        if wait and self.thread is not None:
            wait_for([self.thread])


class Claim:
    """Somebody wants what a thread makes. It ends when this goes, however that comes about."""


def ahead_of_time(node: Node, run: Run, start: Callable[[Run], Outputs], bounds: Bounds, first: int = 0) -> Outputs:
    """What `start(run)` gives of a node, made in a thread that is further, within bounds."""
    facts: dict[int, Anchor] = dict(run.anchors)
    earlier: dict[int, Anchor] = {}
    outputs = Outputs(_delivered(node, run, start, bounds, (earlier, facts), first), None, (), first, lambda: facts)
    outputs.earlier = lambda: earlier
    return outputs


def _delivered(
    node: Node,
    run: Run,
    start: Callable[[Run], Outputs],
    bounds: Bounds,
    told: tuple[dict[int, Anchor], dict[int, Anchor]],
    position: int,
) -> Iterator[Any]:
    earlier, facts = told
    channel, wait, consumer = Channel(bounds), True, threading.current_thread()
    try:
        claim = channel.open(node, run, start)  # noqa: F841  # held as long as this is
        while True:
            try:
                output, news, error = channel.get()
            except TimeoutError as late:
                wait = False  # nobody can end a thread
                mark(late, output_of(node, position))
                raise
            earlier.clear()
            earlier.update(facts)
            facts.clear()
            facts.update(anchors(news))
            run.tallies.take(news)
            if error is not None:
                raise error
            if output is END:
                return
            yield output
            position += 1
    finally:  # an iterator may be collected in any thread, the one that would be waited for among them
        channel.close(wait and may_wait(consumer))


def output_of(node: Node, number: int) -> dict[str, Any]:
    """Where an output that did not come would have been."""
    return failure_place(f"in {node.part}, its output ", number)


def may_wait(consumer: threading.Thread) -> bool:
    """Whether this thread may wait for one that works for `consumer`;
    one that works for somebody itself may be what that waits for."""
    current = threading.current_thread()
    return not collecting() and (current is consumer or not current.name.startswith("flowfn-"))


_phases = OrderedDict.fromkeys(("start", "stop"))
gc.callbacks.append(_phases.move_to_end)  # type: ignore[arg-type]  # in C: an interrupt that came within a function of ours would be lost there


def collecting() -> bool:
    """Whether garbage is being collected, among it maybe an iterator.
    That may be in the midst of anything: any lock may be held."""
    while True:
        with contextlib.suppress(RuntimeError):  # a collection came in between
            return next(reversed(_phases)) == "start"


class Intake(Channel):
    """A channel that has room for as much as is asked for:
    what is there can be taken while more is waited for elsewhere."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(Bounds(0, None, timeout))
        self.least = 1
        self.coming: Future[None] = Future()

    def ask(self, least: int, most: int) -> Future[None]:
        """Let `most` outputs be made. What is returned is done when `least` are there, or all that there will be."""
        with self.lock:
            self.least, self.bounds, self.coming = least, self.bounds._replace(ahead=most), Future()
            self._tell()
            self.changed.notify_all()
            return self.coming

    def put(self, output: Any, facts: dict[int, Anchor], error: BaseException | None = None) -> bool:
        """Add an output, and wait until more are asked for; False if nobody wants any."""
        self.waiting.append((output, facts, error))
        there = len(self.waiting)
        if there < self.least and output is not END:  # nobody is told, so nobody is asked
            return not self.closed
        with self.lock:
            self._tell()
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.closed or output is END or len(self.waiting) < self.bounds.ahead)
            return not self.closed

    def take(self) -> list[tuple[Any, dict[int, Anchor], BaseException | None]]:
        """Wait until something is there, and take all of it."""
        first = self.get()
        return [first, *(self.waiting.popleft() for _ in range(len(self.waiting)))]

    def _tell(self) -> None:
        there = self.waiting
        if not self.coming.done() and (len(there) >= self.least or (there and there[-1][0] is END)):
            self.coming.set_result(None)


class ChannelThread(Thread):
    """The thread of a channel. A source that waits in it for something from outside asks now and
    then whether to go on."""

    def __init__(self, channel: Channel, node: Node, *arguments: Any) -> None:
        at_work = str(node.part or "a prefetch")
        super().__init__("flowfn-prefetch", lambda: at_work, Context().run, _make, channel, node, *arguments)
        self.channel, self.consumer = weakref.ref(channel), threading.current_thread()

    def leave(self) -> None:
        """It ends with the output that it makes now."""
        channel = self.channel()
        if channel is not None:
            channel.close(wait=False)

    def wanted(self) -> bool:
        """Whether somebody will take what this thread makes, and what whoever takes it makes of it."""
        channel = self.channel()
        return (
            channel is not None
            and not channel.closed
            and (not isinstance(self.consumer, ChannelThread) or self.consumer.wanted())
        )


def _make(channel: Channel, node: Node, run: Run, start: Callable[[Run], Outputs]) -> None:
    """What the thread does. It knows the channel, never the iterator, so that an abandoned one can end it."""
    outputs: Outputs | None = None
    error: BaseException | None = None
    tells = not node.seekable or node.guarded
    try:
        outputs = start(run)
        for output in outputs:
            if not channel.put(output, {**outputs.facts(), **run.tallies.news()} if tells else {}):
                break
        else:
            error = uneven(outputs, None, node.seekable)
    except BaseException as raised:  # raised again where the flow is iterated
        error = raised
        locate(error, outputs)
    facts = {**outputs.facts(), **run.tallies.news()} if outputs is not None and tells else {}
    try:
        if outputs is not None:
            outputs.close()
    finally:
        channel.put(END, facts, error)
