"""A pipeline as lanes, and what would become of it if a knob were turned: its pass is gone through again on paper.

    lane: its workers make outputs, at most `window` ahead  -->  lane  -->  who iterates: own stages, then a step

A lane is what runs beside the others: the stages that the workers of a prefetch run, those in its thread, and those in
the thread that iterates. All is counted in outputs of the whole.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

SMALL_OUTPUTS = 8
"""How many small outputs go at once, whatever `ahead` says."""

OUTPUTS = 300
"""How many outputs are gone through."""

HANDED, HANDED_BYTE, HANDED_BYTES = 15e-6, 2e-9, 1 << 16
"""Seconds that it takes on each side to hand an output over between processes, and for each byte of it, as far as it is
small (large ones cross in shared memory): measured with tasks of many outputs."""


@dataclass(frozen=True)
class Lane:
    """What runs in one place beside others.

    seconds: what one worker needs for each output, (n,) float64     share: how much of that a processor is busy
    window: how many outputs may be out, those being made included   feeds: the lane that takes its outputs
    """

    top: int
    stages: tuple[int, ...]
    kind: str  # "consumer", "thread", "threads", "processes", "executor"
    workers: int
    seconds: np.ndarray
    share: float
    ratio: float = 1.0  # outputs of its top for one of the whole
    given: float = 0.0  # ... of its prefetch, where workers make them in parts
    ahead: int = 0
    feeds: int | None = None
    prefetch: Any = None  # the node
    waits_for_lock: bool = False  # whether Python's lock holds its threads up
    at_once: int = 1  # outputs of its top that a worker gives at once
    handed: float = 0.0  # seconds that it would take to hand its outputs to another process, for one of the whole
    own: Mapping[int, float] = field(default_factory=dict)  # seconds of each place, in the whole pass

    @property
    def chunk(self) -> int:
        """How many outputs of the whole a worker gives at once."""
        return max(int(min(self.at_once, max(self.ahead, SMALL_OUTPUTS)) / max(self.ratio, 1e-9)), 1)

    @property
    def window(self) -> int:
        """Outputs of the whole that may be out."""
        if self.at_once == 1:
            return max(int((self.ahead + self.workers) / max(self.given or self.ratio, 1e-9)), 1)
        return self.chunk * (self.workers + max(-(-int(self.ahead / max(self.ratio, 1e-9)) // self.chunk), 1))

    @property
    def hands(self) -> int:
        """How many are at work at a time."""
        return 1 if self.waits_for_lock else self.workers

    @property
    def mean(self) -> float:
        """Seconds for an output, of one worker."""
        return float(self.seconds.mean()) * (self.share if self.waits_for_lock else 1) if len(self.seconds) else 0.0

    @property
    def unlocked(self) -> Lane:
        """The same where nobody waits for Python's lock."""
        if not self.waits_for_lock:
            return self
        return replace(self, seconds=self.seconds * self.share, share=1.0, waits_for_lock=False)

    def without(self, part: float) -> Lane:
        """The same, if a part of its work were done for nothing."""
        return replace(self, seconds=self.seconds * (1 - part))


def seconds_to_hand(size: float) -> float:
    """Seconds that it takes on each side to hand an output of so many bytes over between processes.

    >>> seconds_to_hand(1e3) < 2e-5 < 1e-4 < seconds_to_hand(5e4) < seconds_to_hand(1e9) < 2e-4
    True
    """
    return HANDED + HANDED_BYTE * min(size, HANDED_BYTES)


def effective(lanes: Sequence[Lane], cpus: int) -> list[np.ndarray]:
    """The seconds of each lane's outputs, longer where more is to be computed at a time than there are processors."""
    wanted = sum(lane.workers * lane.share for lane in lanes if lane.kind != "consumer")
    slower = max(wanted / cpus, 1.0)
    return [
        lane.seconds * lane.share
        if lane.waits_for_lock
        else lane.seconds * (1 + lane.share * (slower - 1))
        if lane.workers > 1
        else lane.seconds
        for lane in lanes
    ]


def simulated(lanes: Sequence[Lane], steps: np.ndarray, cpus: int) -> float:
    """Seconds for an output of the whole, once it runs. `lanes` come sources first, who iterates last; `steps` are the
    seconds that the consumer needs for each."""
    count = OUTPUTS
    seconds = [np.resize(spent, count) if len(spent) else np.zeros(count) for spent in effective(lanes, cpus)]
    step = np.resize(steps, count) if len(steps) else np.zeros(count)
    free = [[0.0] * lane.hands for lane in lanes]
    ready = [0.0] * len(lanes)
    taken: list[deque[float]] = [deque([0.0] * lane.window, maxlen=lane.window) for lane in lanes]
    fed: list[list[int]] = [[at for at, lane in enumerate(lanes) if lane.feeds == to] for to in range(len(lanes))]
    ends = np.zeros(count)
    for number in range(count):
        for at, lane in enumerate(lanes):
            start = max([free[at][0], *(ready[source] for source in fed[at])])
            for source in fed[at]:
                taken[source].append(start)
            if number % lane.chunk:
                continue
            if lane.feeds is not None:
                start = max(start, taken[at][0])
            spent = float(seconds[at][number : number + lane.chunk].sum())
            end = start + spent + (float(step[number]) if lane.feeds is None else 0.0)
            heapq.heapreplace(free[at], end)
            ready[at] = max(ready[at], end)
        ends[number] = ready[-1]
    skipped = count // 5
    return float(ends[-1] - ends[skipped]) / (count - 1 - skipped)


def output_seconds(calls: np.ndarray, ratio: float, most: int = OUTPUTS) -> np.ndarray:
    """The seconds of outputs of the whole, from those of a lane's calls, `ratio` of which belong to one.

    >>> output_seconds(np.array([1.0, 2.0, 3.0, 4.0]), 2), output_seconds(np.array([1.0, 2.0]), 0.5)
    (array([3., 7.]), array([0.5, 0.5, 1. , 1. ]))
    """
    ratio = max(ratio, 1e-9)
    count = min(int(len(calls) / ratio + 1e-9), most) if len(calls) else 0
    if not count:
        return np.array([calls.mean() * ratio]) if len(calls) else np.zeros(0)
    total = np.concatenate([[0.0], np.cumsum(calls)])
    return np.diff(np.interp(np.arange(count + 1) * ratio, np.arange(len(total)), total))
