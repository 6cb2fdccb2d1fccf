"""A pass over the flow in a thread of its own, so that a datapoint that takes long holds nobody else up.

who polls    take(ahead)    what is there, and lets so many be made; if nothing is there, the bell will ring
the thread   makes what it may, and rings for one who found nothing
"""

from __future__ import annotations

import contextlib
import socket
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from flowfn.flows.iterating import FlowIterator
from flowfn.parallel.tasks.threads import Thread

EXHAUSTED = object()
"""What is taken behind the last datapoint."""


class Bell:
    """Wakes up one who polls `ear`, from any thread."""

    def __init__(self) -> None:
        self.ear, self._mouth = socket.socketpair()
        self.ear.setblocking(False)
        self._mouth.setblocking(False)
        self.close = weakref.finalize(self, _close_sockets, self.ear, self._mouth)

    def ring(self) -> None:
        """Wake up who polls; one that was rung is rung."""
        with contextlib.suppress(OSError):
            self._mouth.send(b"\0")

    def heard(self) -> None:
        """Be silent until it is rung again."""
        with contextlib.suppress(OSError):
            while self.ear.recv(4096):
                pass


def _close_sockets(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


class FlowThread(Thread):
    """One pass, which `begin()` begins. `close()` ends it; it is to be called, since nobody else does."""

    def __init__(self, begin: Callable[[], FlowIterator[Any]], ring: Callable[[], None]) -> None:
        super().__init__("flowfn-serve-flow", lambda: "a flow that is served", self._make)
        self.begin, self.ring = begin, ring
        self.made: deque[tuple[Any, BaseException | None]] = deque()
        self.allowed: SimpleQueue[bool] = SimpleQueue()
        self.outstanding = 0  # allowed, and not taken
        self.waited_for = self.closed = False

    def take(self, ahead: int) -> list[Any]:
        """The next datapoint, `EXHAUSTED` behind the last, if it is there; while it is used, `ahead` others are made.

        What the flow raises is raised.
        """
        if self.ident is None:
            self.start()
        while self.outstanding <= ahead:
            self.allowed.put(True)
            self.outstanding += 1
        self.waited_for = not self.made
        if not self.made:
            return []
        value, error = self.made.popleft()
        self.outstanding -= 1
        if error is not None:
            raise error
        return [value]

    def _make(self) -> None:
        outputs: FlowIterator[Any] | None = None
        try:
            outputs = self.begin()
            while self.allowed.get() and not self.closed:
                self._put(next(outputs, EXHAUSTED))
        except BaseException as error:  # raised where it is taken
            self._put(None, error)
        finally:
            if outputs is not None:
                outputs.close()

    def _put(self, value: Any, error: BaseException | None = None) -> None:
        self.made.append((value, error))
        if self.waited_for:
            self.ring()

    def wanted(self) -> bool:
        """Whether anybody takes what it makes: a source that waits for something from outside asks now and then."""
        return not self.closed

    def close(self) -> None:
        """Let go of what the flow holds, as soon as what it is at is over."""
        self.closed = True
        self.allowed.put(False)

    leave = close
