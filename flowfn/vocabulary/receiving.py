"""A source that is fed while it is read: what comes out of a queue."""

from __future__ import annotations

import inspect
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from queue import Empty
from typing import Any

import numpy as np
from more_itertools import consume

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.sources import LiveNode, Source
from flowfn.kinds.runs import Run
from flowfn.process import forks
from flowfn.showing import as_called, brief

try:
    from queue import ShutDown  # type: ignore[attr-defined, unused-ignore]
except ImportError:  # before Python 3.13 no queue could be shut down

    class ShutDown(Exception):  # type: ignore[no-redef]
        """Never raised."""


QUEUE_WAIT = 0.1
"""Seconds after which one who waits for a queue looks whether anybody still wants what comes."""

_QUEUE = rules.Rule(
    "a queue whose get() takes a timeout",
    lambda value: not isinstance(value, type) and _can_wait(getattr(value, "get", None)),
    hint="; queue.Queue, queue.SimpleQueue and multiprocessing.Queue are such",
)


@rules.checked(queue=_QUEUE, timeout=rules.optional(rules.seconds))
def from_queue(queue: Any, *, sentinel: Any = None, timeout: float | None = None) -> Flow[Any]:
    """A flow of what comes out of a queue: queue.Queue, SimpleQueue, multiprocessing.Queue,
    anything with get(timeout=).

    A pass reads until the sentinel comes, an item that is the sentinel or is equal to it and of its type; the next pass
    reads on behind it, up to the next one. (Through a multiprocessing.Queue only equality survives, so object() does
    not do there.) A queue that has been shut down ends a pass too. Each item comes once, so there is one pass at a
    time, and what a `prefetch` has read ahead is lost with the pass. A pass that goes on from a saved state takes as
    many items as it had delivered from the queue, and drops them: the producer starts again from the beginning.

    It is read in the process that iterates. Who waits can be interrupted; `timeout` is how many seconds to wait for one
    datapoint.

    Raises:
        TimeoutError: no datapoint came in time.
        ValueError: a pass begins while another is under way.

    >>> import queue
    >>> items = queue.SimpleQueue()
    >>> for item in ["a", "b", None, "c", None]:
    ...     items.put(item)
    >>> flow = from_queue(items, timeout=5)
    >>> list(flow), list(flow)
    (['a', 'b'], ['c'])
    """
    words = {"sentinel": brief(sentinel)} if sentinel is not None else {}
    words |= {"timeout": str(timeout)} if timeout is not None else {}
    shown = as_called("from_queue", type(queue).__name__, **words)
    return Flow(Source(Queued(queue, sentinel, timeout), QueueNode, name="from_queue", shown=shown))


@dataclass(frozen=True, slots=True)
class Queued:
    """A queue, what ends a pass over it, how long to wait, and who reads it."""

    queue: Any
    sentinel: Any
    timeout: float | None
    passes: forks.Own[dict[str, object]] = field(default_factory=partial(forks.Own, dict), compare=False)

    def items(self) -> Iterator[Any]:
        """What comes until the sentinel does."""
        while True:
            try:
                item = self.next()
            except ShutDown:
                return
            if _is_end(item, self.sentinel):
                return
            yield item

    def next(self) -> Any:
        """Wait for an item, as long as there is time and somebody wants it."""
        until = math.inf if self.timeout is None else time.monotonic() + self.timeout
        wait = QUEUE_WAIT if self.timeout is None else min(QUEUE_WAIT, self.timeout)
        while True:
            try:
                return self.queue.get(timeout=wait)
            except Empty:
                wait = min(QUEUE_WAIT, until - time.monotonic())
            if wait <= 0:
                raise TimeoutError(
                    f"from_queue(): no datapoint came within {self.timeout:g} s; does the producer still run? "
                    f"A pass ends when {brief(self.sentinel)} comes, and timeout=None waits for ever"
                )
            wanted = getattr(threading.current_thread(), "wanted", None)
            if wanted is not None and not wanted():
                raise GeneratorExit  # as if the generators downstream were closed: none of them takes it for the end


class QueueNode(LiveNode):
    """A queue, read in the process that iterates, by one pass at a time."""

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """Its items, without the first `start`."""
        queued: Queued = self.part.object
        passes, this = queued.passes(), object()
        if passes.setdefault("under way", this) is not this:
            raise ValueError(
                f"{self.part}: another pass over this queue is under way, and each datapoint comes once; "
                "close it, or let it come to its end"
            )
        try:
            items = queued.items()
            consume(items, start)
            yield from items
        finally:
            del passes["under way"]


def _can_wait(get: Any) -> bool:
    """Whether a queue's `get` takes a timeout, as far as can be told."""
    if not callable(get) or inspect.iscoroutinefunction(get):
        return False
    try:
        parameters = inspect.signature(get).parameters
    except (TypeError, ValueError):
        return True
    return "timeout" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _is_end(item: Any, sentinel: Any) -> bool:
    if item is sentinel or type(item) is not type(sentinel):
        return item is sentinel
    if isinstance(item, np.ndarray):
        return item.dtype == sentinel.dtype and bool(np.array_equal(item, sentinel))
    try:
        return bool(item == sentinel)
    except (ValueError, TypeError):  # arrays inside, which are not one truth
        return False
