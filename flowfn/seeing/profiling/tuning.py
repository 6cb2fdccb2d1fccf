"""Turning the knobs: what a profile says to turn is turned and measured, until nothing gains any more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
from more_itertools import consume

from flowfn import rules
from flowfn.digests.pipelines import Digest
from flowfn.flows import sources
from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.parallel.prefetching import PrefetchNode, bytes_in, prefetch
from flowfn.parallel.workers.pool import available
from flowfn.seeing.profiling.knobs import Knob, candidates, turned_prefetch
from flowfn.seeing.profiling.lanes import lanes_of
from flowfn.seeing.profiling.modelling import Lane, simulated
from flowfn.seeing.profiling.profiles import Profile
from flowfn.seeing.profiling.profiling import profile
from flowfn.seeing.profiling.verdicts import NEAR

OUTPUTS = 300
"""How many outputs are profiled at most."""

BETTER = 1.04
"""How many times as fast a setting has to be to be taken."""

WARM = 2
"""How many outputs are read before that."""

TRIES = 4
"""How many knobs are tried at most before another measurement says which to try."""

LEAST, SHARE = 0.3, 1 / 16
"""Seconds that a setting is measured at least, and its share of the whole budget."""


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
    or a ufunc in `map` behind `batch` in the place of before it, where that gives the same. What is
    measured to be faster is kept, until nothing is, or `seconds` are over. `consumer` is called with each output, as a
    training step would be. `bytes` (a number, or "512MB") bounds what waits in prefetches. Nothing advances, and `flow`
    stays as it is: what is returned says what to write.

    Raises:
        ValueError: a pass gives two outputs or fewer.

    >>> import time
    >>> import flowfn as ff
    >>> flow = ff.pipe(range(400), ff.map(lambda x: time.sleep(0.005) or x))
    >>> found = ff.tune(flow, lambda x: time.sleep(0.002), seconds=4)
    >>> "prefetch(" in found.sentence, found.gain > 1.2
    (True, True)
    """
    began, source = time.perf_counter(), sources.flow(flow, "tune")
    each = max(seconds * SHARE, LEAST)
    search = Search(source, consumer, each, began + seconds, bytes_in(bytes) if bytes is not None else None)
    while search.step():
        pass
    return Tuning(
        search.flow,
        search.rate / max(search.trials[0].per_second, 1e-9),
        tuple(search.changes),
        tuple(search.trials),
        search.profile,
    )


class Search:
    """What was measured so far, and the best of it."""

    def __init__(self, flow: Flow[Any], consumer: Any, each: float, until: float, most: int | None) -> None:
        self.flow, self.consumer, self.each, self.until, self.most = flow, consumer, each, until, most
        self.changes: list[str] = []
        self.trials: list[Trial] = []
        self.known: set[str] = set()
        self.rate = self.measured(flow, "as it is")
        self.profile = profile(flow, consumer, OUTPUTS, seconds=each)

    def measured(self, flow: Flow[Any], words: str) -> float:
        """Outputs a second of a setting, which is not profiled meanwhile."""
        self.known.add(repr(flow))
        count = 0
        with flow.run() as iterator:
            consume(islice(iterator, WARM))  # workers are started before the clock is
            began = now = time.perf_counter()
            for output in iterator:
                if self.consumer is not None:
                    self.consumer(output)
                count, now = count + 1, time.perf_counter()
                if now > began + self.each:
                    break
        if not count:
            raise ValueError(f"tune(): a pass must give more than {WARM} outputs to be measured")
        self.trials.append(Trial(words, count / max(now - began, 1e-9)))
        return self.trials[-1].per_second

    def step(self) -> bool:
        """Try the most promising knobs, and take the best; False if none is better."""
        chosen: tuple[Flow[Any], str, float] | None = None
        for flow, words in self.promising():
            if time.perf_counter() + self.each > self.until:
                break
            rate = self.measured(flow, words)
            if rate > BETTER * (chosen[2] if chosen else self.rate):
                chosen = flow, words, rate
        if chosen is None:
            return False
        self.flow, words, self.rate = chosen
        self.changes.append(words)
        self.profile = profile(self.flow, self.consumer, OUTPUTS, seconds=self.each)
        return time.perf_counter() + self.each < self.until

    def promising(self) -> Iterator[tuple[Flow[Any], str]]:
        """Settings that were not tried: the best on paper first, then those that many pipelines do well with."""
        found = self.profile
        for flow, words in reordered(self.flow):
            if repr(flow) not in self.known:
                yield flow, words
        yield from self._on_paper(found)
        for flow, words in _usual(self.flow):
            if repr(flow) not in self.known and self.most is None:
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
            for one in (knob, _sibling(knob)):
                turned = one.turned(self.flow) if one is not None else None
                if one is not None and turned is not None and repr(turned) not in self.known:
                    tried += 1
                    yield turned, one.words

    def _fits(self, lanes: list[Lane]) -> bool:
        """Whether what waits would fit into memory."""
        sizes = self.profile.recording.sizes if self.profile.recording is not None else {}
        waits = sum((lane.ahead + lane.workers) * _size(lane, sizes) for lane in lanes if lane.feeds is not None)
        return self.most is None or waits <= self.most


def _size(lane: Lane, sizes: Mapping[int, float]) -> float:
    """Bytes of what waits: of whole outputs, where workers make parts of them."""
    whole = sizes.get(lane.prefetch.place, 0.0) if lane.prefetch is not None else 0.0
    return max(sizes.get(lane.top, 0.0), whole)


def _sibling(knob: Knob) -> Knob | None:
    """The same with threads in the place of processes, or the other way: which is faster shows when it is tried."""
    here = {"threads": "processes", "processes": "threads"}
    names = [name for name in here if knob.options.get(name)]
    if len(names) != 1 or knob.place is not None:
        return None
    name = names[0]
    count = min(int(knob.options[name]), available() if name == "threads" else int(knob.options[name]))
    options = {one: value for one, value in knob.options.items() if one != name} | {here[name]: count}
    return replace(
        knob, options=options, words=knob.words.replace(f"{name}={knob.options[name]}", f"{here[name]}={count}")
    )


def _usual(flow: Flow[Any]) -> Iterator[tuple[Flow[Any], str]]:
    """A prefetch that comes last, in usual settings."""
    old = flow.part if isinstance(flow.node, PrefetchNode) else None
    if old is not None and old.arguments["executor"] is not None:
        return
    base = flow if old is None else flow.sources[0]
    crews = [("threads", None), *(("threads", times * available()) for times in (1, 2, 4)), ("processes", available())]
    for how, count in crews:
        options: dict[str, Any] = {"ahead": 2, "threads": None, "processes": None, how: count}
        if old is None:
            turned: Flow[Any] = prefetch(source=base, **options)
        else:
            turned = Flow(turned_prefetch(old, options), (base,))
        yield turned, f"{turned.part} last"


def reordered(flow: Flow[Any]) -> Iterator[tuple[Flow[Any], str]]:
    """A ufunc behind a batch in the place of before it, where both give the same."""
    chain = [flow]
    while len(chain[-1].sources) == 1:
        chain.append(chain[-1].sources[0])
    for number, (behind, before) in enumerate(pairwise(chain)):
        if not (_batches(behind) and _elementwise(before)):
            continue
        swapped: Flow[Any] = Flow(before.part, (Flow(behind.part, before.sources),))
        for above in reversed(chain[:number]):
            swapped = Flow(above.part, (swapped,))
        if _same(flow, swapped):
            yield swapped, f"{before.part} behind {behind.part}"


def _batches(flow: Flow[Any]) -> bool:
    part = flow.part
    return (
        isinstance(part, Stage)
        and part.name == "batch"
        and getattr(part.arguments.get("collate"), "__name__", "") == "stack"
    )


def _elementwise(flow: Flow[Any]) -> bool:
    part = flow.part
    function = part.arguments.get("f") if isinstance(part, Stage) and part.name == "map" else None
    return isinstance(function, np.ufunc) and function.nin == function.nout == 1


def _same(flow: Flow[Any], other: Flow[Any]) -> bool:
    """Whether two flows give the same first output."""
    digests = []
    for one in (flow, other):
        with one.run() as iterator:
            digest = Digest(named=True)
            digest.value(next(iterator, None))
            digests.append(digest.hash.digest())
    return digests[0] == digests[1]
