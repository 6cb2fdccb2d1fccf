"""A profile made of what was written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flowfn.seeing.profiling.lanes import TreePlan, lanes_of
from flowfn.seeing.profiling.logs import OUTSIDE
from flowfn.seeing.profiling.modelling import Lane
from flowfn.seeing.profiling.profiles import LaneProfile, Profile, StageProfile
from flowfn.seeing.profiling.recording import Recording
from flowfn.seeing.profiling.verdicts import LANE_WORDS, Case, brief_name, judged


def profile_of(
    recording: Recording, plan: TreePlan, cpus: int, began: float, headroom: float | None = None, **others: Any
) -> Profile:
    """Everything that a recording tells."""
    asked, got = recording.consumed
    if len(got) < 2:
        raise ValueError(f"profile(): a pass must give at least two outputs to be profiled, this one gave {len(got)}")
    alone = float((asked[1:] - got[:-1]).mean()) * (headroom or 0.0)
    lanes = lanes_of(recording, plan, cpus, alone)
    first, began_at = got[0], min(_first_at_work(recording, lanes, got), len(got) - 2)
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
    cpu = {place: recording.cpu(place) for place in plan.nodes if not plan.waits(place)}
    speeds = {
        place: recording.sizes.get(place, 0.0) * len(recording.given(place)) / spent
        for place, spent in cpu.items()
        if spent
    }
    case = Case(
        lanes,
        plan,
        steps,
        seconds / (len(got) - 1),
        waiting / max(seconds, 1e-12),
        waiting,
        cpus,
        passed,
        speeds,
        seconds,
    )
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


def _first_at_work(recording: Recording, lanes: Sequence[Lane], got: np.ndarray) -> int:
    """The first output that was got when all worker processes were at work, in the first half of all."""
    processes = (track for lane in lanes if lane.kind == "processes" for track in recording.lane(lane.top))
    began = max((float(track.calls[0, 1]) for track in processes if len(track.calls)), default=0.0)
    return min(int(np.searchsorted(got, began)), len(got) // 2)


def _lane_name(lane: Lane) -> str:
    if lane.kind == "consumer":
        return "the thread that iterates"
    one, more = LANE_WORDS[lane.kind]
    who = f"{lane.workers} {more}" if lane.workers > 1 else f"a {one}"
    return f"{who} of {lane.prefetch.part.name}"


def _names_of(lanes: Sequence[Lane], plan: TreePlan) -> list[str]:
    """The names of all; lanes of one name say which stage they end with."""
    names = [_lane_name(lane) for lane in lanes]
    return [
        f"{name}, to {brief_name(str(plan.nodes[lane.top].part), 40)}" if names.count(name) > 1 else name
        for name, lane in zip(names, lanes)
    ]


def waited_at(asked: np.ndarray, got: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(times, seconds that the consumer has waited until then)."""
    times = np.stack([asked, got], 1).ravel()
    waits = np.stack([np.zeros(len(got)), got - asked], 1).ravel()
    return times, np.cumsum(waits)


def _stages(
    recording: Recording, plan: TreePlan, lanes: Sequence[Lane], asked: np.ndarray, got: np.ndarray
) -> Iterator[StageProfile]:
    times, waited = waited_at(asked[1:], got[1:])
    for place, node in reversed(plan.nodes.items()):
        where = [_lane_name(lane) for lane in lanes if place in lane.stages]
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
    recording: Recording, lanes: Sequence[Lane], plan: TreePlan, asked: np.ndarray, got: np.ndarray
) -> Iterator[LaneProfile]:
    times, waited = waited_at(asked, got)
    span = max(float(got[-1] - asked[0]), 1e-9)
    for name, lane in zip(_names_of(lanes, plan), lanes):
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
            name,
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
