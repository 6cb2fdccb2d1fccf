"""What `explain` says in detail: what each stage holds, why it stays where it is, and what its first output is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from flowfn.flows.flow import Flow
from flowfn.flows.sources import ForeignNode, LiveNode, OneShotNode
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import MISSING, Node
from flowfn.kinds.orders import Order
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Run
from flowfn.kinds.streams import Stream
from flowfn.parallel.prefetching import PrefetchNode
from flowfn.parallel.tasks.plan import stays, stretches
from flowfn.parallel.tasks.task import weight
from flowfn.seeing.weighing import run_at
from flowfn.showing import brief
from flowfn.vocabulary.keeping.caching import CacheNode


def details(flow: Flow[Any], nodes: list[Node], read: bool) -> Iterator[str]:
    """Lines about the stages of a flow that have something to say, and about the whole."""
    firsts = {node.place: first_output(flow, node) for node in nodes} if read else {}
    reasons = reasons_to_stay(flow.node)
    for node in nodes:
        facts = [held(node), reasons.get(node.place, "")]
        if node.place in firsts:
            output = firsts[node.place]
            facts.append("its first output is not read" if output is MISSING else f"gives {brief(output)}")
        said = [fact for fact in facts if fact]
        if said:
            yield f"{node.part}: {'; '.join(said)}"
    yield from _bound(nodes, firsts)
    yield from _of_ranks(flow)


def held(node: Node) -> str:
    """How much a stage holds at most."""
    count, what = waiting(node)
    if isinstance(node, CacheNode):
        return "keeps all that was read"
    if isinstance(node, PrefetchNode):
        most = node.part.arguments["max_bytes"]
        return f"at most {count} {what} wait or are made" + (f", and {most} bytes" if most is not None else "")
    return f"holds {count} {what}" if count > 1 else ""


def waiting(node: Node) -> tuple[int, str]:
    """How many of what a stage holds at a time, beyond the one that it works on."""
    options = node.part.arguments
    if isinstance(node, PrefetchNode):
        crew = node.crew(Run(0, (0,), "processes"))
        return options["ahead"] + (crew.workers if crew is not None else 1), "outputs"
    if isinstance(node, Group):
        return node.size, "datapoints"
    if isinstance(node, Stream) and isinstance(options.get("size"), int):
        return options["size"], "datapoints"
    return 0, ""


def reasons_to_stay(root: Node) -> dict[int, str]:
    """Why stages that come before a prefetch with workers are not done by them."""
    reasons: dict[int, str] = {}
    for prefetch in top_down(root):
        crew = prefetch.crew(Run(0, (0,), "processes")) if isinstance(prefetch, PrefetchNode) else None
        if crew is None or prefetch.kept(crew):  # type: ignore[attr-defined]
            continue
        spread: set[int] = set()
        for stretch in stretches(prefetch.sources[0]):
            left = {node.place for node in stays(stretch)}
            inside = top_down(
                stretch.top,
                beyond=lambda one, at=stretch, out=left: (
                    one.place not in out and (one is not at.bottom or one.seekable)
                ),  # type: ignore[misc]
            )
            spread |= {
                one.place for one in inside if one.place not in left and (one is not stretch.bottom or one.seekable)
            }
        for node in top_down(*prefetch.sources, beyond=lambda one: not one.boundary):
            if node.place not in spread and not node.boundary:
                reasons.setdefault(node.place, _why(node))
    return reasons


def _why(node: Node) -> str:
    if not node.sources:
        gone = node.seekable
        return (
            "stays here, as it is too large to travel"
            if gone
            else "stays here, as it can only be read in order, by one"
        )
    if node.here:
        return "stays in this process"
    if isinstance(node, Stream):
        return "is not spread over workers: a stream stage sees all datapoints, one after the other"
    if isinstance(node, (Group, Order)) or len(node.sources) > 1:
        return "is not spread over workers: its source has no index, so what an output is made of shows when it comes"
    return ""


def first_output(flow: Flow[Any], node: Node) -> Any:
    """What a stage gives first; MISSING where that is nothing, or would be lost."""
    if any(isinstance(one, (ForeignNode, LiveNode, OneShotNode)) for one in top_down(node)):
        return MISSING
    outputs = node.stream(run_at(flow.node, node, flow.seed, flow.epoch))
    try:
        return next(outputs, MISSING)
    finally:
        outputs.close()


def _bound(nodes: list[Node], firsts: dict[int, Any]) -> Iterator[str]:
    """How much memory all that waits takes, where the first outputs tell."""
    total = 0
    for node in nodes:
        count, what = waiting(node)
        size = firsts.get(node.place if what == "outputs" or not node.sources else node.sources[0].place, MISSING)
        if count and size is not MISSING:
            total += count * weight(size)
    if total:
        yield f"* about {total / 1e6:.3g} MB wait or are held at most, if all datapoints are as large as the first"


def _of_ranks(flow: Flow[Any]) -> Iterator[str]:
    root = flow.node
    length = root.length(Run(flow.seed, (flow.epoch,)))
    if root.world > 1 and length not in (None, math.inf):
        yield f"* this is rank {root.rank} of {root.world}, with {length} steps"
