"""The lanes of a pass: which stages ran beside which others, told from what was written down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Run
from flowfn.parallel.crew import Crew
from flowfn.parallel.prefetching import PrefetchNode
from flowfn.seeing.profiling.logs import OUTSIDE
from flowfn.seeing.profiling.modelling import Lane, output_seconds, seconds_to_hand
from flowfn.seeing.profiling.probing import WAITING
from flowfn.seeing.profiling.recording import Recording, Track

HANDING = -(1 << 29)
"""The place of what workers do to take tasks and to send what came of them."""

LOCKED = (0.3, 1.3)
"""Processors that are busy where threads wait for Python's lock: about one, however many threads there are."""

OTHERS_SHARE = 0.1
"""The share of the time for which others compute from which on a single thread may wait for them."""

SLOWED = 1.3
"""How many times as long a consumer needs beside threads that hold that lock, at least."""

COMPUTING = 0.5
"""Of so many threads' worth of computing on."""

BY_LOCK = 0.75
"""A thread that has a processor for less of its time than this waits for something."""


class TreePlan:
    """A tree by places: which stage is where, and who takes from whom; `delivered` is what its last stage only sends to
    a device, ahead of time (see `delivery_of`)."""

    def __init__(self, root: Node, delivered: Any = None) -> None:
        self.nodes = {node.place: node for node in top_down(root)}
        self.above = {source.place: node.place for node in top_down(root) for source in node.sources}
        self.root = root.place
        self.delivered = next((node for node in self.nodes.values() if node.part is delivered), None)

    def delivers(self, node: Node) -> bool:
        """Whether a prefetch is a part of what sends to a device."""
        return self.delivered is not None and node.place in self.way(self.delivered.place)

    def way(self, place: int) -> Iterator[int]:
        """The places behind one, up to the last."""
        while place != self.root:
            place = self.above[place]
            yield place

    def prefetch(self, place: int) -> PrefetchNode | None:
        """The prefetch that runs a place."""
        behind = (self.nodes[above] for above in self.way(place))
        return next((node for node in behind if isinstance(node, PrefetchNode)), None)

    def waits(self, place: int) -> bool:
        """Whether a place is one where a thread waits for others."""
        return place >= WAITING or isinstance(self.nodes.get(place), PrefetchNode)


def lanes_of(recording: Recording, plan: TreePlan, cpus: int, slowed: float = 1.0) -> list[Lane]:
    """All lanes, sources first, who iterates last. `slowed`: how many times as long the consumer needs beside them."""
    recording = recording.settled
    tops = [top for top in recording.tops if top in plan.nodes]
    found = {top: _lane(recording, plan, top) for top in tops}
    order = sorted(found, key=lambda top: (-len(list(plan.way(top))), top))
    at = {top: number for number, top in enumerate(order)}
    lanes = []
    for top in order:
        lane = found[top]
        behind = next((at[one.top] for place in plan.way(top) for one in _having(found, place) if one.top != top), None)
        lanes.append(replace(lane, feeds=behind if top != recording.root else None))
    return _held_by_lock(_in_wholes(lanes, recording), recording, cpus, slowed > SLOWED)


def _having(found: dict[int, Lane], place: int) -> list[Lane]:
    return [lane for lane in found.values() if place in lane.stages]


def _lane(recording: Recording, plan: TreePlan, top: int) -> Lane:
    tracks = recording.lane(top)
    stages = sorted(
        {int(place) for track in tracks for place in np.unique(track.place[track.outer == top])} - {OUTSIDE}
    )
    kind, crew = _lane_kind(recording, plan, top, tracks)
    calls = np.concatenate([_busy(plan, track, top) for track in tracks])
    calls = calls[np.argsort(calls[:, 0])]
    spent = float(calls[:, 1].sum())
    handing = handing_over(tracks, top) if kind in ("processes", "executor") else 0.0
    computed = sum(recording.cpu(place, top) for place in stages) + handing * len(calls)
    prefetch = plan.prefetch(top)
    seconds = calls[:, 1] + handing
    return Lane(
        top,
        tuple(stages),
        kind,
        max(crew.workers, 1) if crew and kind in ("threads", "processes") else len(tracks) if kind == "executor" else 1,
        seconds,
        min(computed / max((spent + handing * len(calls)) * (1 - recording.delayed(top)), 1e-12), 1.0),
        ahead=prefetch.part.arguments["ahead"] if prefetch is not None else 0,
        prefetch=prefetch,
        at_once=max(track.at_once for track in tracks) if kind in ("threads", "processes", "executor") else 1,
        own={
            **{place: _spent(recording, plan, place, top) for place in stages},
            **({HANDING: handing * len(calls)} if handing else {}),
        },
    )


def _spent(recording: Recording, plan: TreePlan, place: int, top: int) -> float:
    """What a place cost in a lane."""
    return recording.cpu(place, top) if plan.waits(place) else recording.seconds(place, top)


def _lane_kind(recording: Recording, plan: TreePlan, top: int, tracks: list[Track]) -> tuple[str, Crew | None]:
    prefetch = plan.prefetch(top)
    if top == recording.root or prefetch is None:
        return "consumer", None
    crew = prefetch.crew(Run(0, (0,), "processes"))
    name = tracks[0].name
    if crew is None or (tracks[0].process == os.getpid() and name.startswith("flowfn-prefetch")):
        return "thread", crew
    if crew.executor is not None:
        return "executor", crew
    return ("processes" if crew.processes else "threads"), crew


def _busy(plan: TreePlan, track: Track, top: int) -> np.ndarray:
    """(n, 2): when each outermost call of a top began, and how long it was at work: what it waited for others only
    counts as far as the processor was busy."""
    calls = track.calls[track.calls[:, 2] == top]
    mine = (track.outer == top) & (track.place != OUTSIDE)
    waits = np.array([plan.waits(int(place)) for place in track.place[mine]], bool)
    spent = np.where(waits, np.nan_to_num(track.cpu[mine]), track.seconds[mine])
    number = np.searchsorted(calls[:, 1], track.end[mine])
    return np.stack([calls[:, 0], np.bincount(number, spent, minlength=len(calls) + 1)[: len(calls)]], 1)


def handing_over(tracks: list[Track], top: int) -> float:
    """Processor's seconds that a worker needs for each output to take what it is told and to send what it made; the
    longest, when it learned what to do, aside."""
    spent = np.concatenate([track.cpu[(track.outer == top) & (track.place == OUTSIDE)] for track in tracks])
    spent = np.sort(spent[~np.isnan(spent)])[: -len(tracks) or None]
    return float(spent.mean()) if len(spent) else 0.0


def _in_wholes(lanes: list[Lane], recording: Recording) -> list[Lane]:
    """Lanes counted in outputs of the whole, from the last one back."""
    whole = max(len(recording.consumed[1]), 1)
    done: dict[int, Lane] = {}
    for number in reversed(range(len(lanes))):
        lane = lanes[number]
        made = len(recording.given(lane.top))
        if lane.feeds is None:
            ratio = 1.0
        else:
            ahead = 2 * (lane.ahead + 2 * lane.workers)
            taken = _outputs_taken(lane, recording, done[lane.feeds], whole)
            ratio = (taken if taken <= made <= taken + ahead else made) / whole
        given = _parts_whole(lane, recording, ratio * whole) / whole
        handed = ratio * seconds_to_hand(recording.sizes.get(lane.top, 0.0))
        done[number] = replace(
            lane, ratio=ratio, given=given, seconds=output_seconds(lane.seconds, ratio), handed=handed
        )
    return [done[number] for number in range(len(lanes))]


def _parts_whole(lane: Lane, recording: Recording, made: float) -> int:
    """How many outputs a prefetch gave whose workers made parts of them; 0 where they made whole ones."""
    if lane.prefetch is None or lane.prefetch.sources[0].place != lane.top or lane.at_once > 1:
        return 0
    given = len(recording.given(lane.prefetch.place))
    return given if given < made else 0


def _outputs_taken(lane: Lane, recording: Recording, behind: Lane, whole: int) -> float:
    """How many outputs of a lane were taken by the one behind it."""
    place = lane.prefetch.place if lane.prefetch is not None else None
    for waits in (WAITING + lane.top, place):
        if waits in behind.stages:
            return len(recording.given(int(waits or 0)))
    return behind.ratio * whole


def _held_by_lock(lanes: list[Lane], recording: Recording, cpus: int, slowed: bool) -> list[Lane]:
    """Lanes of threads that compute in Python, one at a time: their seconds are as long as they wait for its lock."""
    here = [track for track in recording.tracks if track.process == os.getpid()]
    begins, ends = min(track.start[0] for track in here), max(track.end[-1] for track in here)
    places = {int(place) for track in here for place in np.unique(track.place)}
    tops = [lane.top for lane in lanes if lane.kind in ("consumer", "thread", "threads")]
    computed = {top: sum(recording.cpu(place, top) for place in places) / (1 - recording.delayed(top)) for top in tops}
    busy = sum(computed.values()) / max(ends - begins, 1e-9)  # it would be, if nobody else had the processors
    locked = cpus > 1 and LOCKED[0] <= busy <= LOCKED[1]

    def waits(lane: Lane) -> bool:
        held = (slowed or lane.share < BY_LOCK) and lane.share * lane.workers > COMPUTING
        if not (locked and held and lane.kind in ("thread", "threads")):
            return False
        others = sum(computed.values()) - computed[lane.top]
        return slowed or lane.workers > 1 or others > OTHERS_SHARE * (ends - begins)

    return [replace(lane, waits_for_lock=waits(lane)) for lane in lanes]
