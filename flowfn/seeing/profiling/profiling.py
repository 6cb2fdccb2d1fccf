"""Profiling a pass: the configuration that really runs is timed, workers included."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, overload

from flowfn import rules
from flowfn.flows import sources
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator
from flowfn.parallel.tasks.task import weight
from flowfn.parallel.workers.pool import available
from flowfn.seeing.profiling.knobs import delivery_of, makes_tensors
from flowfn.seeing.profiling.lanes import TreePlan
from flowfn.seeing.profiling.logs import Recorder, cost
from flowfn.seeing.profiling.probing import probed
from flowfn.seeing.profiling.profiles import Profile
from flowfn.seeing.profiling.recording import Recording
from flowfn.seeing.profiling.summing import profile_of

REPLAYED, REPLAYED_BYTES, REPLAYS, REPLAY_SECONDS = 8, 1 << 28, 32, 2.0
"""How many outputs are kept for trying the consumer alone, at most of so many bytes; how often, and for how long."""


SHORT_PASSES = 8
"""How many passes are read where each gives a single output."""


@overload
def profile(flow: Any) -> Profiler: ...
@overload
def profile(flow: Any, consumer: Callable[[Any], Any] | None, n: int = ..., *, seconds: float = ...) -> Profile: ...
@overload
def profile(flow: Any, consumer: Callable[[Any], Any] | None = ..., *, n: int, seconds: float = ...) -> Profile: ...
@rules.checked(consumer=rules.optional(rules.function), n=rules.optional(rules.positive), seconds=rules.seconds)
def profile(
    flow: Any, consumer: Callable[[Any], Any] | None = None, n: int | None = None, *, seconds: float = 30.0
) -> Any:
    """Find out where the time of a pass goes, which stage holds it, and which knob to turn.

    `consumer` is called with each output, as a training step would be; without it, outputs are taken as fast as they
    come. What is read is the pass that the next `iter` would take, from its beginning, with its workers, until `n`
    outputs have come or, from the first on, `seconds` are over (and those that follow, where each is a single output);
    the flow does not advance. Afterwards the consumer is given a few of the outputs again, from memory, which tells how
    fast it is alone.

    With neither `consumer` nor `n` nothing is read yet: what is returned is for a loop of your own, and the pass is a
    real one, which advances the flow:

        with profile(flow) as profiler:
            for batch in profiler:
                step(batch)
        print(profiler.profile)

    Every stage is timed whenever control enters or leaves it, in threads, worker processes and executors too; where
    stages run, and what comes out, does not change. It costs about a microsecond for each output of each stage, and
    says how much that was.

    Raises:
        ValueError: fewer than two outputs came.

    >>> import time
    >>> import flowfn as ff
    >>> flow = ff.pipe(range(40), ff.map(lambda x: time.sleep(0.002) or x))
    >>> found = ff.profile(flow, n=40)
    >>> found.verdict.stage, found.outputs, found.verdict.knob is None
    ('map(<lambda>)', 40, False)
    """
    source = sources.flow(flow, "profile")
    if consumer is None and n is None:
        return Profiler(source)
    return _profiled(source, consumer, n or 1000, seconds)


def _profiled(flow: Flow[Any], consumer: Callable[[Any], Any] | None, most: int, limit: float) -> Profile:
    """A pass of a copy, until it has given enough."""
    recorder, twin = Recorder(), copy.copy(flow)
    twin._node = probed(flow.node, recorder.key)
    kept: list[Any] = []
    try:
        began, until, number = time.perf_counter(), math.inf, 0
        for epoch in range(SHORT_PASSES):
            with twin.run(epoch=flow.epoch + epoch) as outputs:
                for output in outputs:
                    number, until = number + 1, min(until, time.perf_counter() + limit)
                    _keep(kept, output)
                    if consumer is not None:
                        consumer(output)
                    if number >= most or (number > 1 and time.perf_counter() > until):
                        break
            if not 0 < number <= epoch + 1 < most or time.perf_counter() > until:  # no single outputs, or enough
                break
        return _profile_of(
            recorder, flow, began, outputs, _consumer_rate(consumer, kept) if consumer and kept else None
        )
    finally:
        recorder.close()


def _keep(kept: list[Any], output: Any) -> None:
    """Keep some of the first outputs."""
    if len(kept) < REPLAYED and (not kept or weight(output) * (len(kept) + 1) < REPLAYED_BYTES):
        kept.append(output)


def _consumer_rate(consumer: Callable[[Any], Any], kept: list[Any]) -> float:
    """Outputs a second that a consumer takes from memory."""
    began, number = time.perf_counter(), 0
    while number < REPLAYS and time.perf_counter() < began + REPLAY_SECONDS:
        consumer(kept[number % len(kept)])
        number += 1
    return number / max(time.perf_counter() - began, 1e-9)


def _profile_of(
    recorder: Recorder, flow: Flow[Any], began: float, iterator: FlowIterator[Any], headroom: float | None
) -> Profile:
    """What a recorder has taken of a pass."""
    chunks = recorder.collect()
    recording = Recording.of(chunks, flow.node.place)
    spent = sum(len(chunk.rows) for chunk in chunks) / 8 * cost().seconds
    dropped = tuple(iterator.dropped)
    return profile_of(
        recording, _plan(flow), available(), began, headroom, cost=spent, dropped=dropped, rank=flow.node.rank
    )


def _plan(flow: Flow[Any]) -> TreePlan:
    last = flow
    while makes_tensors(last.node):
        (last,) = last.sources
    delivery = delivery_of(last)
    return TreePlan(flow.node, None if delivery is None else delivery[0].part)


class Profiler:
    """Profiles the passes over a flow that begin while this is open (see `profile`)."""

    def __init__(self, flow: Flow[Any]) -> None:
        self.flow = flow
        self._profile: Profile | None = None
        self._iterator: FlowIterator[Any] | None = None

    def __enter__(self) -> Profiler:
        self._recorder = Recorder()
        self._node = self.flow.node
        self.flow._node = probed(self._node, self._recorder.key)
        self._began = time.perf_counter()
        return self

    def __iter__(self) -> Iterator[Any]:
        self._iterator = iter(self.flow)
        return self._iterator

    def __exit__(self, kind: Any, *_: object) -> None:
        self.flow._node = self._node
        try:
            if self._iterator is not None:
                self._iterator.close()
                if kind is None:
                    self._profile = _profile_of(self._recorder, self.flow, self._began, self._iterator, None)
        finally:
            self._recorder.close()

    @property
    def profile(self) -> Profile:
        """What came of it, once it is closed."""
        if self._profile is None:
            raise ValueError("profile(): nothing was profiled yet: iterate in `with profile(flow) as profiler:`")
        return self._profile

    def __repr__(self) -> str:
        return str(self._profile) if self._profile is not None else f"profile({self.flow!r})"
