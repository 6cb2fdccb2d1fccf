"""Which of several settings is fastest, on a machine that others use too: they take turns, and the slow ones leave.

Every turn is of all that are still in it, so a busy moment hits each; half of them leave after a turn, so the few that
are near to each other are measured longest. Among those that nobody could tell apart, the simplest wins.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from flowfn.flows.flow import Flow
from flowfn.kinds.parts import top_down
from flowfn.parallel.prefetching import PrefetchNode

WARM = 2
"""How many outputs are read at least before the clock is started."""

WARMING = 1 / 4
"""... and for which share of the seconds of a turn."""

SHORTEST_TURN = 0.1
"""Seconds of a turn of one setting, at least."""

FINALISTS, TURNS = 3, 4
"""How many settings are left in the end, and how many turns they take then."""

BETTER, SURE = 1.04, 0.75
"""How many times as fast a setting has to be to be taken, and in what share of turns it has to be faster."""

ALIKE_ENOUGH = 0.97
"""What comes so near to the fastest is not told from it."""


@dataclass
class Racer:
    """A setting, in words, and its outputs a second in each turn."""

    flow: Flow[Any]
    words: str
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Outputs a second: in the middle, so that one disturbed turn tells nothing."""
        return median(self.rates)

    def gain(self, other: Racer) -> float:
        """How many times as fast it is as one that took the same turns, in the middle of them."""
        return median(ours / max(theirs, 1e-9) for ours, theirs in zip(self.rates, other.rates))

    def beats(self, other: Racer) -> bool:
        """Whether it is faster by more than noise."""
        ahead = sum(ours > theirs for ours, theirs in zip(self.rates, other.rates))
        return self.gain(other) >= BETTER and ahead >= SURE * len(self.rates)

    @property
    def effort(self) -> tuple[int, int, int]:
        """What it asks of the machine: processes, threads, outputs that wait."""
        processes = threads = ahead = 0
        for node in top_down(self.flow.node):
            if isinstance(node, PrefetchNode):
                some, others = node.workers
                processes, threads = processes + others, threads + (some or 1)
                ahead += node.part.arguments["ahead"]
        return processes, threads, ahead


def told_apart(count: int, seconds: float) -> int:
    """How many of so many settings can be told apart in that time."""
    return next((n for n in range(count, 1, -1) if seconds / (_turns_until_final(n) + 2) / n >= SHORTEST_TURN), 0)


def _turns_until_final(count: int) -> int:
    """How many turns until no more than the finalists are left."""
    return max(math.ceil(math.log2(count / FINALISTS)), 0)


def race(racers: Sequence[Racer], measure: Callable[[Flow[Any], float], float], seconds: float) -> Racer:
    """The best of them. `measure` gives the outputs a second of a flow that is measured for so many seconds; the first
    of them, which is what is written now, stays to the end, and wins if it is as fast as any."""
    until, share = time.perf_counter() + seconds, seconds / (_turns_until_final(len(racers)) + 2)
    here, first = list(racers), racers[0]

    def turn(each: float) -> None:
        for racer in here[:: -1 if len(first.rates) % 2 else 1]:  # who comes first in one comes last in the next
            racer.rates.append(measure(racer.flow, each))

    while len(here) > FINALISTS:
        turn(share / len(here))
        others = sorted(here[1:], key=lambda racer: -racer.rate)
        here = [first, *others[: max(len(here) // 2, FINALISTS) - 1]]
    each = max((until - time.perf_counter()) / TURNS / len(here), SHORTEST_TURN)
    for _ in range(TURNS):
        turn(each)
        if time.perf_counter() + each * len(here) > until:
            break
    best = max(racer.rate for racer in here)
    return min(
        (racer for racer in here if racer.rate >= ALIKE_ENOUGH * best),
        key=lambda racer: (racer is not first, racer.effort),
    )


def rate_of(flow: Flow[Any], consumer: Callable[[Any], Any] | None, seconds: float) -> float:
    """Outputs a second of the next pass, which is read for so long, once it runs; 0 if it gives none.

    A pass that is over before is read again, from its beginning, and counts with what it takes to begin.
    """
    began = time.perf_counter()
    times, ended = _read_turn(flow, consumer, seconds)
    if not times:
        return 0.0
    if ended:
        count, over = len(times), times[-1]
        while (left := began + seconds - over) > 0:
            more, _ = _read_turn(flow, consumer, left)
            count, over = count + len(more), time.perf_counter()
        return count / max(over - began, 1e-9)
    start = max(min(bisect_left(times, times[0] + WARMING * seconds), len(times) // 2), WARM - 1)
    return (len(times) - 1 - start) / max(times[-1] - times[start], 1e-9)


def _read_turn(flow: Flow[Any], consumer: Callable[[Any], Any] | None, seconds: float) -> tuple[list[float], bool]:
    """When the consumer was through with each output, and whether the pass came to its end within that time."""
    times: list[float] = []
    with flow.run() as outputs:
        for output in outputs:
            if consumer is not None:
                consumer(output)
            times.append(time.perf_counter())
            if len(times) > WARM and times[-1] > times[0] + (1 + WARMING) * seconds:
                return times, False
    return times, True
