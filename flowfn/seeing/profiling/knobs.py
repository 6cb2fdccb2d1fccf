"""The knobs of a pipeline: what may be turned, what it would be then, and the sentence to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.parallel.prefetching import PrefetchNode, prefetch
from flowfn.parallel.tasks.plan import leaves_whole, stretches
from flowfn.process.interpreter import threads_compute_at_once
from flowfn.seeing.misplaced import TENSORS
from flowfn.seeing.profiling.lanes import TreePlan
from flowfn.seeing.profiling.modelling import Lane

MOST_THREADS, MOST_PROCESSES = 32, 16

COMPUTES = 0.5
"""A stage whose processor is busy for more of its time than this computes; another waits: for a disk, a network."""


@dataclass(frozen=True)
class Knob:
    """One thing to turn: a prefetch's options, or a prefetch to put last.

    `place` is that of the prefetch, None where there is none yet; `moved`: it comes last. `words` say it.
    """

    options: Mapping[str, Any]
    place: int | None = None
    moved: bool = False
    words: str = ""

    def turned(self, flow: Flow[Any]) -> Flow[Any]:
        """The flow with the knob turned."""
        if self.place is None:
            return last(flow, self.options)
        old = next(node.part for node in top_down(flow.node) if node.place == self.place)
        part = turned_prefetch(old, self.options)
        if self.moved:
            return Flow(part, (_changed(flow, old, None),))
        return _changed(flow, old, part)


def turned_prefetch(old: Any, options: Mapping[str, Any]) -> Stage:
    """A prefetch with other options; threads or processes that are asked for take the place of workers of any kind."""
    kind: dict[str, Any] = {"workers": None} if options.get("threads") or options.get("processes") else {}
    return Stage(old.definition, {**old.arguments, **kind, **options}, old.pinned)


def _changed(flow: Flow[Any], old: Any, part: Any, copies: dict[int, Flow[Any]] | None = None) -> Flow[Any]:
    """A flow with another part in the place of `old`, or with none."""
    copies = {} if copies is None else copies
    if id(flow) not in copies:
        sources = tuple(_changed(source, old, part, copies) for source in flow.sources)
        if flow.part is old and part is None:
            made = sources[0]
        else:
            same = all(one is other for one, other in zip(sources, flow.sources))
            made = flow if same and flow.part is not old else Flow(part if flow.part is old else flow.part, sources)
        copies[id(flow)] = made
    return copies[id(flow)]


def last(flow: Flow[Any], options: Mapping[str, Any]) -> Flow[Any]:
    """The flow with a prefetch that comes last, but before what is for who iterates."""
    delivery = delivery_of(flow)
    if delivery is None:
        return prefetch(source=flow, **options)
    source, deliver = delivery
    return deliver(last(source, options))


def delivery_of(flow: Flow[Any]) -> tuple[Flow[Any], Callable[[Flow[Any]], Flow[Any]]] | None:
    """(what is delivered, what does it), where a last stage only makes tensors of arrays, or sends them to a device
    ahead of time, as `to_jax` does; None where it is another."""
    if makes_tensors(flow.node):
        return flow.sources[0], lambda source: Flow(flow.part, (source,))
    if isinstance(flow.made, tuple) and any(isinstance(one.node, PrefetchNode) for one in _inner_flows(flow)):
        stage, source = flow.made
        return source, stage
    return None


def _inner_flows(flow: Flow[Any]) -> Iterator[Flow[Any]]:
    """What a stage that is made of others is made of."""
    _, source = flow.made
    while flow is not source:
        yield flow
        (flow,) = flow.sources


def makes_tensors(node: Node) -> bool:
    """Whether a stage only makes tensors of arrays."""
    return len(node.sources) == 1 and node.part.name in TENSORS


def candidates(lanes: list[Lane], plan: TreePlan, cpus: int) -> Iterator[tuple[Knob, list[Lane]]]:
    """Every knob with what would run then, the cheapest first."""
    for number, lane in enumerate(lanes):
        if lane.kind in ("threads", "processes"):
            yield from _of_workers(lanes, number, plan, cpus)
            yield from _of_lock(lanes, number, cpus)
        elif lane.kind == "thread" and lane.prefetch is not None and plan.delivers(lane.prefetch):
            yield from _of_delivery(lanes, number, plan, cpus)
        elif lane.kind == "thread" and lane.prefetch is not None:
            yield from _of_thread(lanes, number, plan, cpus)
        elif lane.kind == "executor":
            yield from _of_ahead(lanes, number)
    yield from _of_consumer(lanes, plan, cpus)


def _lanes_with(lanes: list[Lane], number: int, lane: Lane) -> list[Lane]:
    return [*lanes[:number], lane, *lanes[number + 1 :]]


def _knob(lane: Lane, **options: Any) -> Knob:
    old = lane.prefetch.part
    part = turned_prefetch(old, options)
    return Knob(options, lane.prefetch.place, words=f"{part} in the place of {old}")


def _counts(now: int, most: int) -> list[int]:
    return [count for count in sorted({now + 1, *(now * times for times in (2, 3, 4, 6, 8))}) if now < count <= most]


def _of_ahead(lanes: list[Lane], number: int) -> Iterator[tuple[Knob, list[Lane]]]:
    lane = lanes[number]
    for times in (2, 4, 8, 16):
        yield _knob(lane, ahead=times * lane.ahead), _lanes_with(lanes, number, replace(lane, ahead=times * lane.ahead))


def _of_workers(lanes: list[Lane], number: int, plan: TreePlan, cpus: int) -> Iterator[tuple[Knob, list[Lane]]]:
    lane = lanes[number]
    yield from _of_ahead(lanes, number)
    if lane.waits_for_lock:
        return
    computes = lane.share > COMPUTES
    most = cpus if computes else MOST_THREADS if lane.kind == "threads" else MOST_PROCESSES
    part = _spreads(lane.prefetch.sources[0], plan, lane) if lane.workers == 1 else 1.0
    for count in _counts(lane.workers, most) if part else ():
        yield _knob(lane, **{lane.kind: count}), _spread(lanes, number, lane.kind, count, part)


def _of_lock(lanes: list[Lane], number: int, cpus: int) -> Iterator[tuple[Knob, list[Lane]]]:
    """Processes in the place of threads that wait for Python's lock."""
    lane = lanes[number]
    if lane.waits_for_lock and leaves_whole(lane.prefetch.sources[0]):
        count = max(min(lane.workers, cpus), 1)
        yield _knob(lane, threads=None, processes=count), _spread(lanes, number, "processes", count, 1.0)


def _of_thread(lanes: list[Lane], number: int, plan: TreePlan, cpus: int) -> Iterator[tuple[Knob, list[Lane]]]:
    """Workers where there is one thread; what cannot be spread stays in it."""
    lane, options = lanes[number], lanes[number].prefetch.part.arguments
    yield from _of_ahead(lanes, number)
    if any(lane.prefetch.workers) or options["executor"]:  # a stage that its workers cannot do
        return
    part = _spreads(lane.prefetch.sources[0], plan, lane)
    if part:
        for how, count in _other_crews(lane, cpus):
            yield _knob(lane, **{how: count}), _spread(lanes, number, how, count, part)


def _of_delivery(lanes: list[Lane], number: int, plan: TreePlan, cpus: int) -> Iterator[tuple[Knob, list[Lane]]]:
    """Workers for what a thread does beside sending arrays to a device, which stays in it."""
    lane, source = lanes[number], plan.delivered
    if source is None:
        return
    upstream = {node.place for node in top_down(source)}
    own = {place: spent for place, spent in lane.own.items() if place in upstream}
    part = sum(own.values()) / max(sum(lane.own.values()), 1e-12)
    before = replace(
        lane, top=source.place, own=own, seconds=lane.seconds * part, ahead=2, feeds=number + 1, prefetch=None
    )
    rest = replace(lane, seconds=lane.seconds * (1 - part), feeds=_feeds_shifted(lane.feeds, number))
    others = [replace(one, feeds=_feeds_shifted(one.feeds, number)) for one in lanes[number + 1 :]]
    spreads = _spreads(source, plan, before)
    for how, count in _other_crews(before, cpus) if spreads else ():
        knob = Knob({"ahead": count, how: count}, words=f"prefetch({count}, {how}={count}) behind {source.part}")
        yield knob, _spread([*lanes[:number], before, rest, *others], number, how, count, spreads, count)


def _feeds_shifted(feeds: int | None, number: int) -> int | None:
    return feeds + 1 if feeds is not None and feeds > number else feeds


def _other_crews(lane: Lane, cpus: int) -> Iterator[tuple[str, int]]:
    computes = lane.share > COMPUTES or lane.waits_for_lock
    for count in (2, 3, 4, 6, 8, 12, 16):
        if count <= (cpus if computes else 16):
            yield ("processes" if computes and not threads_compute_at_once() else "threads"), count


def _spreads(source: Node, plan: TreePlan, lane: Lane) -> float:
    """What part of a lane's work could be spread over workers."""
    free = {node.place for stretch in stretches(source) for node in _of_stretch(stretch)}
    own = lane.own or {}
    whole = sum(own.values())
    return sum(spent for place, spent in own.items() if place in free) / whole if whole else 0.0


def _of_stretch(stretch: Any) -> Iterator[Node]:
    return top_down(stretch.top, beyond=lambda node: node is not stretch.bottom or node.seekable)


def _spread(lanes: list[Lane], number: int, how: str, count: int, part: float, ahead: int | None = None) -> list[Lane]:
    """The lanes where a part of one is spread over workers; the rest comes before it, in one thread."""
    lane = lanes[number]
    ahead = lane.ahead if ahead is None else ahead
    handed = 0.0
    if how == "processes" and lane.kind != how:
        lane, handed = lane.unlocked, lane.handed
    moved = replace(lane, kind=how, workers=count, ahead=ahead, seconds=lane.seconds * part + handed)
    if part > 0.98:
        changed = _lanes_with(lanes, number, moved)
    else:
        rest = replace(lane, seconds=lane.seconds * (1 - part), ahead=max(ahead, count), feeds=number + 1)
        shifted = [replace(one, feeds=_feeds_shifted(one.feeds, number)) for one in lanes]
        moved = replace(moved, feeds=shifted[number].feeds)
        changed = [*shifted[:number], rest, moved, *shifted[number + 1 :]]
    taker = moved.feeds
    if taker is not None and handed:
        changed[taker] = replace(changed[taker], seconds=changed[taker].seconds + handed)
    return changed


def _of_consumer(lanes: list[Lane], plan: TreePlan, cpus: int) -> Iterator[tuple[Knob, list[Lane]]]:
    """A prefetch that takes over what the thread does that iterates."""
    lane = lanes[-1]
    root = plan.nodes[plan.root]
    own = dict(lane.own or {})
    tensors = 0.0
    while makes_tensors(root):
        tensors += own.pop(root.place, 0.0)
        (root,) = root.sources
    if isinstance(root, PrefetchNode) or plan.delivered is not None or not sum(own.values()):
        return
    kept = tensors / (tensors + sum(own.values()))
    idle = replace(lane, seconds=lane.seconds * kept if kept else np.zeros(1), own={}, top=plan.root)
    lane = replace(lane, seconds=lane.seconds * (1 - kept), own=own, top=root.place)
    moves = [node for node in plan.nodes.values() if isinstance(node, PrefetchNode) and len(lanes) == 2]
    if moves and lanes[0].prefetch is moves[0] and not kept:
        together = replace(lanes[0], seconds=_added(lanes[0].seconds, lane.seconds), ratio=1.0)
        if _all_spread(root):
            words = f"{moves[0].part} last, behind {root.part}"
            yield Knob({}, moves[0].place, True, words), [together, idle]
    behind = len(lanes)
    before = [*lanes[:-1], replace(lane, kind="thread", ahead=2, feeds=behind, prefetch=None), idle]
    yield Knob({"ahead": 2}, words=f"prefetch(2) behind {root.part}"), before
    part = _spreads(root, plan, lane)
    for how, count in _other_crews(lane, cpus) if part else ():
        knob = Knob({"ahead": count, how: count}, words=f"prefetch({count}, {how}={count}) behind {root.part}")
        yield knob, _spread(before, behind - 1, how, count, part, count)


def _all_spread(root: Node) -> bool:
    return root.seekable


def _added(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    count = max(len(some), len(others), 1)
    return np.resize(some, count) + np.resize(others if len(others) else np.zeros(1), count)
