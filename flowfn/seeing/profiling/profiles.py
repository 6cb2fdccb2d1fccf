"""What came of profiling a pass."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowfn.kinds.tallies import Dropped
from flowfn.seeing.profiling.lanes import Plan, lanes_of
from flowfn.seeing.profiling.modelling import Lane
from flowfn.seeing.profiling.probing import OUTSIDE
from flowfn.seeing.profiling.recording import Recording
from flowfn.seeing.profiling.verdicts import Case, Verdict, brief_name, in_words, judged


@dataclass(frozen=True)
class StageProfile:
    """What a stage cost.

    own: its seconds, without those of its sources; in all workers together       calls: outputs it gave
    mean, p50, p90, p99: own seconds of an output     bytes: of an output, about    cpu: processor's seconds of 1 000
    waited: seconds it waited for input or workers    exposed: seconds it was at work while the consumer waited
    """

    stage: str
    place: int
    runs_in: str
    calls: int
    own: float
    mean: float
    p50: float
    p90: float
    p99: float
    bytes: float
    cpu: float
    waited: float
    exposed: float


@dataclass(frozen=True)
class LaneProfile:
    """What ran beside the others: the workers of a prefetch, its thread, or the thread that iterates.

    busy: the share of its workers' time that they were at work     waits_for_input: seconds they waited for sources
    waits_for_room: seconds, while enough outputs waited            waits_for_tasks: seconds, while the consumer waited
    queue: (n, 2) seconds and how many finished outputs waited then
    """

    name: str
    workers: int
    stages: tuple[str, ...]
    busy: float
    waits_for_input: float
    waits_for_room: float
    waits_for_tasks: float
    queue: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Profile:
    """Where the time of a pass went.

    Printed, it is the verdict and a table; in colours, if rich is installed and the screen has them.

    outputs: how many came     seconds: in which `counted` of them came, when all workers were at work
    first: seconds to the first
    step: the consumer's seconds for an output   headroom: outputs a second that it takes from memory, if that was tried
    cost: seconds that profiling itself took     dropped: what guarded stages dropped or replaced, the newest

    >>> import flowfn as ff
    >>> found = ff.profile(ff.pipe(range(40), ff.map(float), ff.batch(4)), n=10)
    >>> found.outputs, [(stage.stage, stage.calls) for stage in found.stages]
    (10, [('flow(range(0, 40))', 40), ('map(float)', 40), ('batch(4)', 10)])
    """

    outputs: int
    seconds: float
    counted: int
    first: float
    step: float
    headroom: float | None
    stages: tuple[StageProfile, ...]
    lanes: tuple[LaneProfile, ...]
    verdict: Verdict
    cost: float
    dropped: tuple[Dropped, ...] = ()
    rank: int = 0
    recording: Recording | None = field(default=None, repr=False)
    plan: Plan | None = field(default=None, repr=False)

    @property
    def per_second(self) -> float:
        """Outputs a second, once it runs."""
        return self.counted / self.seconds if self.seconds else math.nan

    def lines(self) -> Iterator[str]:
        """The verdict in words."""
        yield from in_words(self.verdict, self.outputs, self.per_second, self.first, self.headroom)
        total = self.first + self.seconds
        yield f"Profiling took {self.cost:.3f} s of it ({self.cost / total if total else 0:.1%})."
        for dropped in self.dropped[-3:]:
            yield f"Dropped: datapoint {dropped.index}, {type(dropped.error).__name__}: {dropped.error}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table, in words; the heads come first."""
        yield ("stage", "runs in", "outputs", "own s", "mean", "p50", "p90", "p99", "bytes", "cpu s/1000", "exposed s")
        for one in self.stages:
            times = (short(value) for value in (one.mean, one.p50, one.p90, one.p99))
            yield (
                brief_name(one.stage, 40),
                one.runs_in,
                str(one.calls),
                f"{one.own:.3f}",
                *times,
                size(one.bytes),
                f"{one.cpu:.3g}",
                f"{one.exposed:.3f}",
            )

    def __str__(self) -> str:
        rows = list(self.rows())
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
        return "\n".join([*self.lines(), "", *table])

    __repr__ = __str__

    def as_data(self) -> dict[str, Any]:
        """All but the recording, as JSON can hold it."""
        verdict = self.verdict
        return {
            "outputs": self.outputs,
            "seconds": self.seconds,
            "per_second": self.per_second,
            "first": self.first,
            "step": self.step,
            "headroom": self.headroom,
            "rank": self.rank,
            "cost": self.cost,
            "verdict": {
                "words": [*self.lines()],
                "waits": verdict.waits,
                "waiting": verdict.waiting,
                "share": verdict.share,
                "stage": verdict.stage,
                "bound": verdict.bound,
                "write": None if verdict.knob is None else verdict.knob.words,
                "gain": verdict.gain,
                "next": verdict.next,
            },
            "stages": [asdict(stage) for stage in self.stages],
            "lanes": [{**asdict(lane), "queue": lane.queue.tolist()} for lane in self.lanes],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page of HTML that needs nothing else: the verdict, the stages, and the pass over time.

        Raises:
            ImportError: jinja2 is not installed: `pip install "flowfn[seeing]"`.
        """
        from flowfn.seeing.profiling.pages import page_of

        Path(path).write_text(page_of(self), encoding="utf8")

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write what every thread did when, as JSON that chrome://tracing and Perfetto show."""
        from flowfn.seeing.profiling.traces import trace_of

        Path(path).write_text(json.dumps(trace_of(self)), encoding="utf8")


def profile_of(
    recording: Recording, plan: Plan, cpus: int, began: float, headroom: float | None = None, **others: Any
) -> Profile:
    """Everything that a recording tells."""
    asked, got = recording.consumed
    if len(got) < 2:
        raise ValueError(f"profile(): a pass must give at least two outputs to be profiled, this one gave {len(got)}")
    alone = float((asked[1:] - got[:-1]).mean()) * (headroom or 0.0)
    lanes = lanes_of(recording, plan, cpus, alone)
    first, began_at = got[0], min(_settled(recording, lanes, got), len(got) - 2)
    asked, got = asked[began_at:], got[began_at:]
    seconds = float(got[-1] - got[0])
    waiting = float((got[1:] - asked[1:]).sum())
    steps = asked[1:] - got[:-1]
    if headroom is not None and any(lane.waits_for_lock for lane in lanes):  # which holds the consumer up as well
        longer = max(float(steps.sum()) - len(steps) / headroom, 0.0)
        steps, waiting = steps * (1 - longer / max(float(steps.sum()), 1e-12)), waiting + longer
    passed = {
        place: len(recording.given(place)) / max(len(recording.given(node.sources[0].place)), 1)
        for place, node in plan.nodes.items()
        if len(node.sources) == 1
    }
    case = Case(lanes, plan, steps, seconds / (len(got) - 1), waiting / max(seconds, 1e-12), waiting, cpus, passed)
    verdict = judged(case)
    stages = tuple(_stages(recording, plan, lanes, asked, got))
    return Profile(
        len(got) + began_at,
        seconds,
        len(got) - 1,
        float(first - began),
        float(steps.mean()),
        headroom,
        stages,
        tuple(_lanes(recording, lanes, plan, asked, got)),
        verdict,
        recording=recording,
        plan=plan,
        **others,
    )


def _settled(recording: Recording, lanes: Sequence[Lane], got: np.ndarray) -> int:
    """The first output that was got when all worker processes were at work, in the first half of all."""
    processes = (track for lane in lanes if lane.kind == "processes" for track in recording.lane(lane.top))
    began = max((float(track.calls[0, 1]) for track in processes if len(track.calls)), default=0.0)
    return min(int(np.searchsorted(got, began)), len(got) // 2)


def _name_of(lane: Lane) -> str:
    if lane.kind == "consumer":
        return "the thread that iterates"
    who = f"{lane.workers} {lane.kind}" if lane.workers > 1 else f"a {lane.kind}".replace("processes", "process")
    return f"{who} of {lane.prefetch.part.name}"


def waited_at(asked: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(times, seconds that the consumer has waited until then)."""
    times = np.stack([asked, got], 1).ravel()
    waits = np.stack([np.zeros(len(got)), got - asked], 1).ravel()
    return times, np.cumsum(waits)


def _stages(
    recording: Recording, plan: Plan, lanes: Sequence[Lane], asked: np.ndarray, got: np.ndarray
) -> Iterator[StageProfile]:
    times, waited = waited_at(asked[1:], got[1:])
    for place, node in reversed(plan.nodes.items()):
        where = [_name_of(lane) for lane in lanes if place in lane.stages]
        own = recording.own(place)
        waits = plan.waits(place)
        spent = recording.seconds(place)
        cpu = recording.cpu(place)
        exposed = 0.0
        for track in recording.tracks:
            mine = (track.place == place) & (not waits)
            exposed += float(
                (np.interp(track.end[mine], times, waited) - np.interp(track.start[mine], times, waited)).sum()
            )
        p50, p90, p99 = np.percentile(own, [50, 90, 99]) if len(own) else (0.0, 0.0, 0.0)
        yield StageProfile(
            str(node.part),
            place,
            ", ".join(dict.fromkeys(where)) or "nowhere",
            len(own),
            cpu if waits else spent,
            float(own.mean()) if len(own) else 0.0,
            float(p50),
            float(p90),
            float(p99),
            recording.sizes.get(place, 0.0),
            1000 * cpu / len(own) if len(own) else 0.0,
            max(spent - cpu, 0.0) if waits else 0.0,
            exposed,
        )


def _lanes(
    recording: Recording, lanes: Sequence[Lane], plan: Plan, asked: np.ndarray, got: np.ndarray
) -> Iterator[LaneProfile]:
    times, waited = waited_at(asked, got)
    span = max(float(got[-1] - asked[0]), 1e-9)
    for lane in lanes:
        tracks = recording.lane(lane.top)
        input_wait = sum(
            max(recording.seconds(place, lane.top) - recording.cpu(place, lane.top), 0.0)
            for place in lane.stages
            if plan.waits(place)
        )
        busy = sum(lane.own.values())
        idle = exposed = 0.0
        for track in tracks:
            mine = (track.outer == lane.top) & (track.place == OUTSIDE)
            idle += float(track.seconds[mine].sum())
            exposed += float(
                (np.interp(track.end[mine], times, waited) - np.interp(track.start[mine], times, waited)).sum()
            )
        consumer = lane.kind == "consumer"
        yield LaneProfile(
            _name_of(lane),
            lane.workers,
            tuple(str(plan.nodes[place].part) for place in lane.stages if place in plan.nodes),
            min(busy / (lane.workers * span), 1.0),
            input_wait,
            0.0 if consumer else max(idle - exposed, 0.0),
            0.0 if consumer else exposed,
            queue_of(recording, lane),
        )


def queue_of(recording: Recording, lane: Lane) -> np.ndarray:
    """How many finished outputs of a lane waited over time, (n, 2)."""
    if lane.prefetch is None:
        return np.zeros((0, 2))
    made, taken = recording.given(lane.top), recording.given(lane.prefetch.place)
    if not len(made) or not len(taken):
        return np.zeros((0, 2))
    times = np.linspace(min(made[0], taken[0]), taken[-1], min(500, 4 * len(taken)))
    parts = max(round(len(made) / len(taken)), 1)
    waiting = np.searchsorted(made, times, "right") / parts - np.searchsorted(taken, times, "right")
    return np.stack([times - recording.began, np.maximum(waiting, 0)], 1)


def short(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def size(count: float) -> str:
    """Bytes in the unit that reads best."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"
