"""Who had control when: logs of threads, in this process and in workers, whose logs come back with what they make.

enter batch . enter map . leave map . enter map . leave map . leave batch . (nobody: who iterates, or a wait)
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from flowfn.parallel.tasks import asides
from flowfn.parallel.tasks.task import weight

OUTSIDE = -(1 << 30)
"""The place of whoever is no stage."""

ENTER, GAVE, ENDED = 0, 1, 2
"""What happened: control came to a stage, it gave an output, it came to its end (or to an error)."""

OFTEN = 64
"""Of so many outputs one is weighed, beside the first few."""

SELDOM = 8
"""Of so many short calls one is looked at by the processor's clock too, which costs more to ask."""

SHORT, LONG = 2e-4, 4e-3
"""Seconds."""

RARELY = 8
"""Of so many others one is asked, and each long one, how long it waited for a processor, which takes some 20 µs."""


LOGS_KEPT = 32
"""How many logs a worker keeps: those of passes that are over are of no use."""


class Chunk(NamedTuple):
    """A part of a log: rows (time, place that has control now, what happened, processor's seconds of the thread or -1),
    (place, bytes) of outputs that were weighed, and (place, seconds, seconds for which it waited for a processor) of
    some outermost calls."""

    recorder: str
    process: int
    thread: int
    name: str
    rows: list[float]
    weights: list[tuple[int, int]]
    delays: list[tuple[int, float, float]]

    def arrive(self) -> None:
        """Give it to whoever records, if somebody still does."""
        recorder = _recorders.get(self.recorder)
        if recorder is not None:
            recorder.chunks.append(self)


class Log:
    """What happens in one thread."""

    __slots__ = (
        "by_cpu",
        "calls",
        "current",
        "delayed",
        "delays",
        "long",
        "name",
        "process",
        "recorder",
        "rows",
        "short",
        "thread",
        "weights",
    )

    def __init__(self, recorder: str) -> None:
        self.recorder, self.process = recorder, os.getpid()
        self.thread, self.name = threading.get_ident(), threading.current_thread().name
        self.rows: list[float] = []
        self.weights: list[tuple[int, int]] = []
        self.delays: list[tuple[int, float, float]] = []
        self.current, self.calls, self.by_cpu, self.short = OUTSIDE, 0, True, False
        self.delayed: tuple[float, float] | None = None
        self.long = False

    def outermost(self) -> None:
        """Nobody had control: decide which clocks are asked."""
        self.calls += 1
        self.by_cpu = not self.short or self.calls % SELDOM == 0
        asks = self.long or (not self.short and self.calls % RARELY == 1)
        self.delayed = (time.perf_counter(), delay()) if asks else None

    def over(self, place: int, seconds: float) -> None:
        """The outermost call is over."""
        self.short, self.long = seconds < SHORT, seconds > LONG
        if self.delayed is not None:
            began, before = self.delayed
            waited = delay() - before
            self.delays.append((place, time.perf_counter() - began, waited))

    def taken(self) -> Chunk | None:
        """What was written since it was asked last."""
        count = len(self.rows) // 4 * 4
        if not count and not self.weights:
            return None
        rows, self.rows[:count] = self.rows[:count], []
        weights, self.weights = self.weights, []
        delays, self.delays = self.delays, []
        return Chunk(self.recorder, self.process, self.thread, self.name, rows, weights, delays)


class Recorder:
    """Takes what all threads and workers write down, while it is open."""

    def __init__(self) -> None:
        self.key = f"{os.getpid()}-{next(_log_numbers)}"
        self.chunks: list[Chunk] = []
        _recorders[self.key] = self

    def collect(self) -> list[Chunk]:
        """All that has come so far, and what threads of this process have written."""
        for log in list(_logs.get(self.key, ())):
            chunk = log.taken()
            if chunk is not None:
                self.chunks.append(chunk)
        return self.chunks

    def close(self) -> None:
        """What comes from now on is nobody's."""
        _recorders.pop(self.key, None)
        _logs.pop(self.key, None)


_log_numbers = itertools.count()
_recorders: dict[str, Recorder] = {}
_logs: dict[str, list[Log]] = {}
_thread_log = threading.local()
_speaking: deque[Log] = deque()


def _log(key: str) -> Log:
    """The log of this thread for a recorder."""
    log: Log | None = _thread_log.__dict__.get(key)
    if log is None or log.process != os.getpid():
        log = Log(key)
        if len(_thread_log.__dict__) >= LOGS_KEPT:
            _thread_log.__dict__.clear()
        _thread_log.__dict__[key] = log
        if key in _recorders:
            _logs.setdefault(key, []).append(log)
        else:  # this is a worker
            asides.has_to_say(log, log.taken)
            _speaking.append(log)
            while len(_speaking) > LOGS_KEPT:
                asides.hush(_speaking.popleft())
    return log


class Timer(Iterator[Any]):
    """The outputs of a node, timed."""

    __slots__ = ("count", "key", "outputs", "place")

    def __init__(self, outputs: Iterator[Any], place: int, key: str) -> None:
        self.outputs, self.place, self.key, self.count = outputs, place, key, 0

    def __next__(self) -> Any:
        log = _thread_log.__dict__.get(self.key) or _log(self.key)
        outer = log.current
        log.current = self.place
        if outer == OUTSIDE:
            log.outermost()
        cpu, clock, rows = time.thread_time if log.by_cpu else _no_time, time.perf_counter, log.rows
        began = clock()
        rows.extend((began, self.place, ENTER, cpu()))
        happened = ENDED
        try:
            output = next(self.outputs)
            happened = GAVE
        finally:
            log.current = outer
            ended = clock()
            rows.extend((ended, outer, happened, cpu()))
            if outer == OUTSIDE:
                log.over(self.place, ended - began)
        self.count += 1
        if not self.count & (self.count - 1) or not self.count % OFTEN:
            log.weights.append((self.place, weight(output)))
        return output


def _no_time() -> float:
    return -1.0


def delay() -> float:
    """Seconds that this thread could have run and had no processor, where the system counts them."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


@dataclass(frozen=True)
class TimingCost:
    """What timing costs: seconds for an output of a stage."""

    seconds: float


@cache
def cost() -> TimingCost:
    """Measured here, once."""
    recorder = Recorder()
    try:
        timer, count = Timer(itertools.repeat(0), 0, recorder.key), 2000
        began = time.perf_counter()
        for _ in range(count):
            next(timer)
        timed = time.perf_counter() - began
    finally:
        recorder.close()
    plain = itertools.repeat(0)
    began = time.perf_counter()
    for _ in range(count):
        next(plain)
    return TimingCost(max((timed - (time.perf_counter() - began)) / count, 0.0))
