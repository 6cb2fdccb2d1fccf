"""What `explain` remarks on where stages stand in an order that makes them worse than they could be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import Each, Node
from flowfn.kinds.orders import Order
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Run
from flowfn.parallel.prefetching import PrefetchNode

MANY_BUFFERED = 64
"""Datapoints in a buffer from which on it matters how large they are."""


TENSORS = ("to_torch", "to_tensorflow")
"""Stages that make tensors, which worker processes would send as they would arrays, or slower."""


def of_places(root: Node) -> Iterator[str]:
    """Shuffles behind batch, random stages behind batch, buffers behind what makes datapoints large, tensors in
    workers."""
    for node in top_down(root):
        batch = _batch_behind(node) if len(node.sources) == 1 else None
        shuffles = (isinstance(node, Order) and node.random_order) or node.part.name == "shuffle_buffer"
        if batch is not None and shuffles:
            yield (f"{node.part} moves whole batches, so the same datapoints stay together; put it before {batch.part}")
        elif batch is not None and isinstance(node, Each) and node.part.random:
            yield (
                f"{node.part} draws once for each batch, not for each datapoint; put it before {batch.part}, unless "
                "that is meant"
            )
        yield from _of_buffer(node)
        if isinstance(node, PrefetchNode):
            yield from _of_tensors(node)


def _batch_behind(node: Node) -> Node | None:
    """The batch whose outputs a stage is given, through stages that change none of that."""
    (source,) = node.sources
    while len(source.sources) == 1 and (source.part.traits.transparent or isinstance(source, Order)):
        (source,) = source.sources
    whole = (
        isinstance(source, Group)
        and source.part.name == "batch"
        and source.part.arguments.get("collate", 0) is not None
    )
    return source if whole else None


def _of_buffer(node: Node) -> Iterator[str]:
    """A buffer behind a map that could as well come behind it."""
    size = node.part.arguments.get("size", 0) if node.part.name == "shuffle_buffer" else 0
    if size < MANY_BUFFERED:
        return
    (source,) = node.sources
    maps = []
    while isinstance(source, Each) and len(source.sources) == 1 and not source.boundary:
        if source.part.name in ("map", "map_component", "augment", "read_images", "map_components"):
            maps.append(source)
        (source,) = source.sources
    if maps:
        yield (
            f"{node.part} holds {size} datapoints as {maps[0].part} leaves them; put it before {maps[-1].part}, where "
            "they are not decoded yet"
        )


def _of_tensors(node: PrefetchNode) -> Iterator[str]:
    """Tensors that are made in worker processes, only to travel."""
    crew = node.crew(Run(0, (0,), "processes"))
    if crew is None or not crew.remote:
        return
    upstream: Iterator[Any] = top_down(*node.sources, beyond=lambda one: not one.boundary)
    for one in upstream:
        if one.part is not None and one.part.name in TENSORS:
            yield (
                f"{one.part} makes tensors in the worker processes of {node.part}, which send them as they would "
                "arrays, or slower; put it behind"
            )
