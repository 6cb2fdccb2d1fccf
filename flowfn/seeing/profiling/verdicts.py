"""What a profile says in words: whether training waits, for what, and which one knob to turn."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from flowfn.flows.flow import Flow
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import Each
from flowfn.kinds.streams import Expand
from flowfn.seeing.profiling.knobs import COMPUTES, Knob, candidates
from flowfn.seeing.profiling.lanes import HANDING, TreePlan
from flowfn.seeing.profiling.modelling import Lane, simulated

WAITS = 0.05
"""The share of its time from which on training waits for data."""

NOW_AND_THEN = 0.15
"""... where all others are faster than it, and only sometimes late."""

WORTH_WORDS = 1.1
"""How many times as fast a knob has to make it, to be worth the words."""

ENOUGH = 0.03
"""Seconds of a pass from which on they tell what to turn."""

NEAR = 1.05
"""A knob that is so near to the best, and costs less, is taken."""

BANDWIDTH, LEAST_SPEED = 0.3, 5e8
"""The share of the speed of copying from which on a stage is held by memory; from how many bytes a second on that is
measured."""

LANE_WORDS = {
    "consumer": ("thread that iterates", ""),
    "thread": ("thread", ""),
    "threads": ("thread", "threads"),
    "processes": ("process", "processes"),
    "executor": ("worker in an executor", "workers in an executor"),
}
"""One worker of a lane, and several, in words."""

CREWS = ("threads", "processes", "executor")
"""Lanes of which there may be more workers."""

HERE = ("consumer", "thread", "threads")
"""Lanes of this process."""

SMALL_OUTPUT = 1e-3
"""Seconds below which an output may not be worth handing over."""

NAMED = r"\w+\("
"""What begins with the name of a stage stays as it is written."""

AT_WORK = 0.2
"""The share of the time from which on it is worth a word what a lane is at work on."""

LITTLE_THROUGH = 0.05
"""Outputs for an input from which on a filter is said to let little through."""

TRANSPORT = 0.3
"""The share of its time that a lane may spend on handing over before that is said."""


@dataclass(frozen=True)
class Verdict:
    """Whether training waits, for which stage, and what to do about it.

    waiting: seconds it waited, the first batch apart     share: of its time
    stage: which stage holds it ("the consumer": none)    bound: outputs a second if that stage cost nothing
    knob: what to turn, or None                           gain: how many times as fast it would be then
    next: which stage would hold it then                  remarks: what else was seen
    waits: whether it waits at all
    """

    waiting: float
    share: float
    stage: str
    bound: float
    knob: Knob | None
    gain: float
    next: str
    waits: bool
    remarks: tuple[str, ...] = ()
    place: int | None = field(default=None, repr=False)

    def turned(self, flow: Flow[Any]) -> Flow[Any]:
        """The flow with the knob turned; itself, if there is none to turn."""
        return flow if self.knob is None else self.knob.turned(flow)


@dataclass(frozen=True)
class Case:
    """What a verdict is made of: the lanes, the consumer's steps (seconds), what an output took in all, and of which
    the thread that iterates waited."""

    lanes: list[Lane]
    plan: TreePlan
    steps: np.ndarray
    measured: float
    share: float
    waiting: float
    cpus: int
    passed: Mapping[int, float] = field(default_factory=dict)  # outputs for an input, by place
    speeds: Mapping[int, float] = field(default_factory=dict)  # bytes that are made in a processor's second, by place
    seconds: float = math.inf  # of the pass

    def named(self, place: int, lane: Lane | None = None) -> str:
        """A place in words."""
        if place == HANDING or self.plan.waits(place):
            part = lane.prefetch.part if lane is not None and lane.prefetch is not None else self._prefetch(place)
            return f"what {part} hands over"
        return str(self.plan.nodes[place].part)

    def _prefetch(self, place: int) -> Any:
        node = self.plan.nodes.get(place)
        return node.part if node is not None else self.plan.prefetch(place % (1 << 24)).part  # type: ignore[union-attr]

    @property
    def modelled(self) -> float:
        """Seconds for an output, on paper."""
        return simulated(self.lanes, self.steps, self.cpus)

    def expected(self, lanes: list[Lane], modelled: float) -> float:
        """Seconds for an output of other lanes: what nobody can explain stays."""
        seconds = simulated(lanes, self.steps, self.cpus)
        unknown = max(self.measured - modelled, 0.0)  # which may be there for each output, or grow with the seconds
        return seconds + (unknown + unknown * min(seconds / max(modelled, 1e-12), 1.0)) / 2


def judged(case: Case) -> Verdict:
    """The verdict on a pass."""
    modelled = case.modelled
    holder, place = holding(case.lanes, case)
    step = float(case.steps.mean())
    slower = holder is not None and holder.mean / holder.hands > step
    waits = case.share > (WAITS if slower else NOW_AND_THEN)
    stage = case.named(place, holder) if waits and holder is not None else "the consumer"
    least = case.expected(_freed(case.lanes, holder, place), modelled)
    bound = 1 / max(min(least, case.measured), 1e-9)  # nothing becomes slower by that
    short = case.seconds < ENOUGH
    knob, gain, then = _best(case, modelled) if waits and not short else (None, 1.0, "")
    remarks = (_too_short(case),) if short else tuple(dict.fromkeys(_remarks(case, waits, modelled, knob)))
    return Verdict(case.waiting, case.share, stage, bound, knob, gain, then, waits, remarks, place if waits else None)


def _too_short(case: Case) -> str:
    return f"all that took {1e3 * case.seconds:.2g} ms, which is too little to say what to turn: read more outputs"


def holding(lanes: list[Lane], case: Case) -> tuple[Lane | None, int]:
    """The lane that is slowest, and the place in it that takes longest."""
    worked = [lane for lane in lanes if any(lane.own.values())]
    if not worked:
        return None, case.plan.root
    slowest = max(worked, key=lambda lane: lane.mean / lane.hands)
    own = dict(slowest.own)
    return slowest, max(own, key=lambda place: own[place])


def _freed(lanes: list[Lane], holder: Lane | None, place: int) -> list[Lane]:
    """The lanes, if a stage cost nothing."""
    if holder is None:
        return lanes
    part = holder.own[place] / max(sum(holder.own.values()), 1e-12)
    return [lane.without(part) if lane is holder else lane for lane in lanes]


def _best(case: Case, modelled: float) -> tuple[Knob | None, float, str]:
    """The cheapest of the best knobs, how many times as fast it makes the whole, and what holds that then."""
    tried = [
        (case.expected(lanes, modelled), knob, lanes) for knob, lanes in candidates(case.lanes, case.plan, case.cpus)
    ]
    if not tried:
        return None, 1.0, ""
    least = min(seconds for seconds, *_ in tried)
    seconds, knob, lanes = next(one for one in tried if one[0] <= NEAR * least)
    gain = max(case.measured, modelled) / max(seconds, 1e-9)
    if gain < WORTH_WORDS:
        return None, 1.0, ""
    return knob, gain, _then(lanes, case)


def _then(lanes: list[Lane], case: Case) -> str:
    holder, place = holding(lanes, case)
    step = float(case.steps.mean()) if len(case.steps) else 0.0
    if holder is None or holder.mean / holder.hands <= step:
        return "the consumer"
    return case.named(place, holder)


def _remarks(case: Case, waits: bool, modelled: float, knob: Knob | None) -> Iterator[str]:
    """What else is worth knowing."""
    computing = sum(lane.workers * lane.share for lane in case.lanes if lane.kind == "processes")
    for lane in case.lanes:
        one, more = LANE_WORDS[lane.kind]
        who = f"{lane.workers} {more}" if lane.workers > 1 else f"the {one}"
        does, s = ("do", "") if lane.workers > 1 else ("does", "s")
        handing = sum(spent for at, spent in lane.own.items() if at == HANDING or case.plan.waits(at))
        over = handing / max(sum(lane.own.values()), 1e-12)
        busy = lane.mean / lane.hands / max(case.measured, 1e-12)
        if lane.waits_for_lock:
            whom = "each other" if lane.workers > 1 else "others"
            yield f"{who} wait{s} for {whom}, most likely for Python's lock, which processes do not share"
        elif waits and lane.kind in CREWS and lane.share < COMPUTES / 2 and busy > AT_WORK:
            yield (
                f"{who} wait{s} (for a disk, a network, a sleep) rather than compute: more of them than processors help"
            )
        if lane.kind == "executor" and waits:
            yield f"its executor has {lane.workers} workers at work; it takes as many tasks as it is given"
        if waits and lane.kind in CREWS and over > TRANSPORT and busy > AT_WORK:
            yield f"{over:.0%} of what {who} {does} is taking tasks and sending what came of them"
        if lane.kind in ("threads", "processes") and lane.workers > 1 and busy < 0.5 and not waits:
            needed = max(int(np.ceil(busy * lane.workers * 1.2)), 1)
            if needed < lane.workers:
                yield f"{who} are at work for {busy:.0%} of the time: {needed} would do"
    if computing > case.cpus + 0.5:
        yield f"workers want {computing:.1f} processors at a time, and there are {case.cpus}: fewer would be as fast"
    if waits and case.measured > 1.5 * modelled and modelled:
        yield (
            f"{1 - modelled / case.measured:.0%} of the time no stage accounts for: tasks on their way, or other "
            "programs on this machine"
        )
    yield from _of_places(case, waits)
    if waits and knob is None:
        yield _why_none(case)


def _why_none(case: Case) -> str:
    """Why no knob helps: where outputs are so small that to hand them over costs as much, larger ones would."""
    holder, _ = holding(case.lanes, case)
    if holder is not None and holder.share > COMPUTES and holder.mean < SMALL_OUTPUT and holder.kind in HERE:
        return (
            f"an output takes {1e6 * holder.mean:.3g} µs, about what it costs to take it from another process: workers "
            "gain where they are given more at once (batch), or threads, where what computes leaves Python's lock"
        )
    return "no knob of a prefetch makes it faster: what holds it has to become cheaper"


def _of_places(case: Case, waits: bool) -> Iterator[str]:
    """Stages that would do better elsewhere, and filters that let little through."""
    holder, place = holding(case.lanes, case)
    computes = holder is not None and holder.share > COMPUTES
    written = case.speeds.get(place, 0.0)
    if waits and computes and written > LEAST_SPEED and written > BANDWIDTH * copying():
        yield (
            f"{case.named(place)} makes {written / 1e9:.2g} GB in a processor's second, and memory is copied at "
            f"{copying() / 1e9:.2g}: what holds it is memory, which all workers share"
        )
    node = case.plan.nodes.get(place)
    if waits and isinstance(node, Each) and not node.boundary and len(node.sources) == 1:
        (source,) = node.sources
        if isinstance(source, Group) and source.size > 1:
            yield (
                f"{node.part} works on whole outputs of {source.part}; before it, it would work on datapoints, which "
                "more workers can share"
            )
    for lane in case.lanes:
        for at in lane.stages:
            one = case.plan.nodes.get(at)
            passed = case.passed.get(at, 1.0)
            if isinstance(one, Expand) and passed < LITTLE_THROUGH:
                yield f"{one.part} gives {passed:.2%} of what it is given: filter before what is expensive, or once"


@cache
def copying() -> float:
    """Bytes that a processor copies into new memory in a second here, as large outputs are made; measured once."""
    source, speed = np.ones(1 << 22), math.inf
    for _ in range(3):
        began = time.thread_time()
        source.copy()
        speed = min(speed, source.nbytes / max(time.thread_time() - began, 1e-9))
    return speed


def verdict_in_words(
    verdict: Verdict, outputs: int, rate: float, first: float, headroom: float | None
) -> Iterator[str]:
    """The verdict, line by line."""
    waits = verdict.waits
    yield (
        f"{outputs} outputs, {_three_digits(rate)} a second; the first after {first:.2f} s. "
        + (
            f"The consumer waited {verdict.waiting:.2f} s for the others, {verdict.share:.0%} of the time."
            if waits
            else f"The consumer hardly waited: {verdict.waiting:.2f} s, {verdict.share:.0%} of the time."
        )
    )
    if headroom is not None:
        yield f"Fed from memory, the consumer would take {_three_digits(headroom)} outputs a second."
    if waits:
        holds = brief_name(verdict.stage)
        yield f"{holds} holds it: if that cost nothing, {_three_digits(verdict.bound)} a second would come."
    else:
        yield "The consumer holds it: faster data would change nothing."
    if verdict.knob is not None:
        then = f", and then {brief_name(verdict.next)} holds it" if verdict.next else ""
        yield f"Write {verdict.knob.words}: about {verdict.gain:.2g} times as fast{then}."
    for remark in verdict.remarks:
        yield f"{remark if re.match(NAMED, remark) else remark[:1].upper() + remark[1:]}."


def brief_name(name: str, width: int = 60) -> str:
    """A stage's name in a line."""
    return name if len(name) <= width else name[: width - 4] + "...)"


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
