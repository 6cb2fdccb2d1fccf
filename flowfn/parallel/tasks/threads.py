"""The threads of this process that work for somebody: each ends when nobody wants what it makes,
and none holds up the program.

A function under way in a thread cannot be ended from outside. So whoever lets go of a thread waits `PATIENCE` seconds
at most, and at the end of the program, code of Python's that still runs in one is ended by an exception (`SystemExit`).
What is at work even then goes with the program, which says so.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

from flowfn.process.interrupts import Deferred

PATIENCE = 1.0
"""Seconds that threads are waited for of which nobody wants anything any more."""


class Thread(threading.Thread):
    """A thread that the end of the program does not wait for. `at_work` says on what it is."""

    def __init__(self, name: str, at_work: Callable[[], str], target: Callable[..., None], *arguments: Any) -> None:
        super().__init__(name=name, target=target, args=arguments, daemon=True)
        self.at_work = at_work

    def leave(self) -> None:
        """Nobody wants any more of what it makes."""


class Hand(Thread):
    """One of a team."""

    def __init__(
        self, name: str, at_work: Callable[[], str], calls: SimpleQueue[Any], owner: weakref.ref[Team]
    ) -> None:
        super().__init__(name, at_work, _perform, calls, owner)
        self.calls, self.owner = calls, owner

    def leave(self) -> None:
        """It ends when it has done what it is at."""
        _dismiss(self.calls, self.owner)


class Team(Executor):
    """An executor of so many threads. They end when it is shut down or collected,
    as soon as they have done what they are at."""

    def __init__(self, count: int, name: str, at_work: Callable[[], str]) -> None:
        self.count, self.name, self.at_work = count, name, at_work
        self.hands: list[Hand] = []
        self.closed = False
        self.calls: SimpleQueue[Any] = SimpleQueue()
        self.owner = weakref.ref(
            self, self.calls.put
        )  # in C, so that no interrupt can come in between: a reference says that it is over

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Have a call done."""
        if self.closed:
            raise RuntimeError("a team that was shut down takes no more calls")
        future: Future[Any] = Future()
        self.calls.put((future, call, arguments, keywords))
        if len(self.hands) < self.count:
            self._take_on()
        return future

    def _take_on(self) -> None:
        """One more, if there can be: some are as good, none is an error."""
        self.hands.append(Hand(f"{self.name}_{len(self.hands)}", self.at_work, self.calls, self.owner))
        try:
            with Deferred():
                self.hands[-1].start()
        except RuntimeError:
            self.hands.pop()
            if not self.hands:
                raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and wait a while for those under way. None of those that wait is done."""
        self.closed = True
        _dismiss(self.calls, self.owner)
        if wait:
            wait_for(self.hands)


def _perform(calls: SimpleQueue[Any], owner: weakref.ref[Team]) -> None:
    """What each of a team does. It knows the calls, never the team, so that an abandoned one ends."""
    while not isinstance(call := calls.get(), weakref.ref):
        future, function, arguments, keywords = call
        if future.set_running_or_notify_cancel():
            try:
                made = function(*arguments, **keywords)
            except BaseException as error:  # raised where the future is asked
                future.set_exception(error)
            else:
                future.set_result(made)
                made = None
        call = future = function = arguments = keywords = None
    calls.put(call)  # for the next one


def _dismiss(calls: SimpleQueue[Any], owner: weakref.ref[Team]) -> None:
    with contextlib.suppress(Empty):
        while not isinstance(call := calls.get_nowait(), weakref.ref):
            call[0].cancel()
    calls.put(owner)


_gave_up = 0.0  # when threads were last waited for in vain


def wait_for(threads: Iterable[threading.Thread], patience: float = PATIENCE) -> list[threading.Thread]:
    """Wait until threads have ended, or patience is at an end: those that have not.
    Who has just lost it does not begin anew."""
    global _gave_up
    began = time.monotonic()
    until = began + (patience if began > _gave_up + patience else 0)
    left = [
        thread
        for thread in threads
        if thread is not threading.current_thread() and not _has_ended(thread, until - time.monotonic())
    ]
    if left:
        _gave_up = time.monotonic()
    return left


def _has_ended(thread: threading.Thread, seconds: float) -> bool:
    if thread.ident is None:  # it was not started
        return True
    thread.join(max(seconds, 0))
    return not thread.is_alive()


def _raise_exit(thread: threading.Thread) -> None:
    """Raise SystemExit in a thread, as soon as it runs code of Python's again."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


@atexit.register
def _end_threads() -> None:
    """Every thread is told before any is waited for."""
    left: list[threading.Thread] = [thread for thread in threading.enumerate() if isinstance(thread, Thread)]
    for thread in left:
        thread.leave()  # type: ignore[attr-defined]
    left = wait_for(left)
    for thread in left:
        _raise_exit(thread)
    for thread in _still(left):
        if sys.stderr is not None:
            print(_farewell(thread), file=sys.stderr)  # type: ignore[arg-type]


def _still(threads: list[threading.Thread]) -> list[threading.Thread]:
    until = time.monotonic() + PATIENCE / 2
    return [thread for thread in threads if not _has_ended(thread, until - time.monotonic())]


def _farewell(thread: Thread) -> str:
    """Where a thread is when the program ends."""
    frame = sys._current_frames().get(thread.ident or 0)
    where = (
        f", at {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""
    )
    return f"flowfn: {thread.at_work()} is still at work in a thread{where}; the program ends without waiting for it"
