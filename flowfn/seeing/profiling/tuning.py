"""Turning the knobs: what a profile says to turn is turned and measured, until nothing gains any more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows import sources
from flowfn.flows.flow import Flow
from flowfn.parallel.prefetching import bytes_in
from flowfn.parallel.workers.pool import available
from flowfn.seeing.profiling.alternatives import reordered, sibling, usual
from flowfn.seeing.profiling.knobs import candidates
from flowfn.seeing.profiling.lanes import lanes_of
from flowfn.seeing.profiling.modelling import Lane, simulated
from flowfn.seeing.profiling.profiles import Profile
from flowfn.seeing.profiling.profiling import profile
from flowfn.seeing.profiling.racing import BETTER, SHORTEST_TURN, Racer, race, rate_of, told_apart
from flowfn.seeing.profiling.verdicts import NEAR

OUTPUTS_TRIED = 300
"""How many outputs are profiled at most."""

TRIES = 4
"""How many knobs are tried at most before another profile says which to try."""

LEAST, SHARE = 0.3, 1 / 16
"""Seconds for which a setting is profiled at least, and what share of those that are left."""

SHARE_KEPT = 1 / 3
"""The share of the seconds that are left that is kept for what comes behind the next race."""


@dataclass(frozen=True)
class Trial:
    """A setting that was measured: what was turned, in words, and outputs a second."""

    words: str
    per_second: float


@dataclass(frozen=True)
class Tuning:
    """What to write, and what it gains. Nothing was changed: `flow` is another one.

    flow: with all knobs turned    gain: how many times as fast it is    changes: what was turned, in words
    trials: all that was measured, in this order                         profile: of the last setting that was taken
    """

    flow: Flow[Any]
    gain: float
    changes: tuple[str, ...]
    trials: tuple[Trial, ...]
    profile: Profile

    @property
    def sentence(self) -> str:
        """The pipeline to write."""
        return repr(self.flow)

    def __str__(self) -> str:
        if len(self.trials) == 1:
            return f"Leave it as it is: there was no knob to try, or no time; seconds= says how long.\n{self.sentence}"
        if not self.changes:
            return f"Leave it as it is: nothing of {len(self.trials) - 1} tried was faster.\n{self.sentence}"
        rates = f"{self.trials[0].per_second:.3g} -> {self._best:.3g} a second"
        lines = [f"About {self.gain:.2g} times as fast ({rates}). Write:"]
        return "\n".join([*lines, *(f"* {change}" for change in self.changes), self.sentence])

    __repr__ = __str__

    @property
    def _best(self) -> float:
        return self.trials[0].per_second * self.gain

    def as_data(self) -> dict[str, Any]:
        """As JSON can hold it."""
        trials = [{"words": trial.words, "per_second": trial.per_second} for trial in self.trials]
        return {"write": self.sentence, "gain": self.gain, "changes": list(self.changes), "trials": trials}


_BYTES = rules.Rule(
    'a positive integer, a size like "512MB", or None',
    lambda value: value is None or rules.is_integer(value) or isinstance(value, str),
    lambda value, others: value is None or (bytes_in(value) or 0) > 0,
)


@rules.checked(consumer=rules.optional(rules.function), seconds=rules.seconds, bytes=_BYTES)
def tune(
    flow: Any,
    consumer: Callable[[Any], Any] | None = None,
    *,
    seconds: float = 60.0,
    bytes: int | str | None = None,
) -> Tuning:
    """Turn the knobs of a pipeline, measure, and say what to write.

    A profile says what to turn: a `prefetch` to put last or to move, its workers, threads or processes, how far ahead,
    or a ufunc in `map` behind `batch` in the place of before it, where that gives the same; what many pipelines do well
    with is tried, too. All are measured by turns with what is written now, and the slow ones leave, until a few are
    left; the simplest of those that are fastest is kept, if it is faster by more than noise. Then a profile of that
    says what to turn next, until nothing gains, or `seconds` are over. `consumer` is called with each output, as a
    training step would be. `bytes` (a number, or "512MB") bounds what waits in prefetches. Nothing advances, and `flow`
    stays as it is: what is returned says what to write.

    Raises:
        ValueError: a pass gives nothing.

    >>> import time
    >>> import flowfn as ff
    >>> flow = ff.pipe(range(400), ff.map(lambda x: time.sleep(0.005) or x))
    >>> found = ff.tune(flow, lambda x: time.sleep(0.002), seconds=4)
    >>> "prefetch(" in found.sentence, found.gain > 1.2
    (True, True)
    """
    source = sources.flow(flow, "tune")
    search = Search(source, consumer, time.perf_counter() + seconds, bytes_in(bytes) if bytes is not None else None)
    while search.step():
        pass
    return Tuning(search.flow, search.gain, tuple(search.changes), tuple(search.trials), search.profile)


class Search:
    """What was measured so far, and the best of it."""

    def __init__(self, flow: Flow[Any], consumer: Any, until: float, most: int | None) -> None:
        self.flow, self.consumer, self.until, self.most = flow, consumer, until, most
        self.changes: list[str] = []
        self.trials: list[Trial] = []
        self.known = {repr(flow)}
        self.gain = 1.0
        self.measured(flow, SHORTEST_TURN)  # whatever is slow once is over
        self.profile = self._profiled()

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return max(self.until - time.perf_counter(), 0.0)

    def _profiled(self) -> Profile:
        return profile(self.flow, self.consumer, OUTPUTS_TRIED, seconds=max(self.left * SHARE, LEAST))

    def measured(self, flow: Flow[Any], seconds: float) -> float:
        """Outputs a second of a setting, which is not profiled meanwhile."""
        rate = rate_of(flow, self.consumer, seconds)
        if not rate:
            raise ValueError("tune(): a pass must give outputs to be measured, this one gave none")
        return rate

    def step(self) -> bool:
        """Let the most promising settings race what is written now; False if none is faster."""
        seconds = self.left * (1 - SHARE_KEPT)
        racers = [Racer(self.flow, "as it is" if not self.trials else self.changes[-1])]
        racers += [Racer(flow, words) for flow, words in self.promising()]
        racers = racers[: told_apart(len(racers), seconds)]
        if len(racers) < 2:
            self.trials += [] if self.trials else [Trial("as it is", self.measured(self.flow, SHORTEST_TURN))]
            return False
        self.known.update(repr(racer.flow) for racer in racers)
        won = race(racers, self.measured, seconds)
        self.trials += [Trial(racer.words, racer.rate) for racer in racers[bool(self.trials) :]]
        if not won.beats(racers[0]):
            return False
        self.flow, self.gain = won.flow, self.gain * won.gain(racers[0])
        self.changes.append(won.words)
        self.profile = self._profiled()
        return True

    def promising(self) -> Iterator[tuple[Flow[Any], str]]:
        """Settings that were not tried: the best on paper first, then those that many pipelines do well with."""
        found = self.profile
        for flow, words in reordered(self.flow):
            if repr(flow) not in self.known:
                yield flow, words
        yield from self._on_paper(found)
        for flow, words, waiting in usual(self.flow):
            if repr(flow) not in self.known and self._has_room(waiting):
                yield flow, words

    def _on_paper(self, found: Profile) -> Iterator[tuple[Flow[Any], str]]:
        """What a profile promises."""
        tried = 0
        if found.recording is None or found.plan is None:
            return
        lanes = lanes_of(found.recording, found.plan, available())
        steps = np.array([found.step])
        now = simulated(lanes, steps, available())
        options = [
            (simulated(others, steps, available()), order, knob)
            for order, (knob, others) in enumerate(candidates(lanes, found.plan, available()))
            if self._fits(others)
        ]
        least = min((paper for paper, *_ in options), default=now)
        for paper, _, knob in sorted(options, key=lambda one: (math.log(one[0] / least) // math.log(NEAR), one[1])):
            if tried == TRIES or paper > now * BETTER:
                return
            for one in (knob, sibling(knob)):
                turned = one.turned(self.flow) if one is not None else None
                if one is not None and turned is not None and repr(turned) not in self.known:
                    tried += 1
                    yield turned, one.words

    def _has_room(self, waiting: int) -> bool:
        """Whether so many outputs of the whole may wait, where nothing else does."""
        sizes = self.profile.recording.sizes if self.profile.recording is not None else {}
        return self.most is None or waiting * sizes.get(self.flow.node.place, math.inf) <= self.most

    def _fits(self, lanes: list[Lane]) -> bool:
        """Whether what waits would fit into memory."""
        sizes = self.profile.recording.sizes if self.profile.recording is not None else {}
        waits = sum(
            (lane.ahead + lane.workers) * _waiting_bytes(lane, sizes) for lane in lanes if lane.feeds is not None
        )
        return self.most is None or waits <= self.most


def _waiting_bytes(lane: Lane, sizes: Mapping[int, float]) -> float:
    """Bytes of what waits: of whole outputs, where workers make parts of them."""
    whole = sizes.get(lane.prefetch.place, 0.0) if lane.prefetch is not None else 0.0
    return max(sizes.get(lane.top, 0.0), whole)
