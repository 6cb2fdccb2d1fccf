"""The call that makes a datapoint again, of any stage of a flow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowfn.flows.flow import Flow
from flowfn.kinds.nodes import Node
from flowfn.kinds.runs import Run
from flowfn.showing import as_called


class Calls:
    """How each stage of a flow is reached from it, and whether it draws there what it draws in the whole.

    A part of a tree numbers its random stages anew, so what is left of a `zip` draws alone what it draws there, and
    what is right of it may not: of that, and of what is read in rounds, there is no call.
    """

    def __init__(self, flow: Flow[Any]) -> None:
        self.reached = dict(_ways_to(flow, flow.node, "flow"))

    def of(self, place: int, run: Run, number: int) -> str:
        """The call, or "" if there is none."""
        if place not in self.reached or len(run.epoch) != 1:
            return ""
        return as_called("flowfn.replay", self.reached[place], str(number), seed=str(run.seed), epoch=str(run.epoch[0]))


def _ways_to(flow: Flow[Any], node: Node, path: str) -> Iterator[tuple[int, str]]:
    """(place, how it is written) of the stages of a tree that are alone what they are in it."""
    if _draw_alike(flow.node, node):
        yield node.place, path
    for number, (source, above) in enumerate(zip(flow.sources, node.sources)):
        yield from _ways_to(source, above, f"{path}.sources[{number}]")


def _draw_alike(alone: Node, within: Node) -> bool:
    return alone.number == within.number and all(map(_draw_alike, alone.sources, within.sources))
