"""What a pass over a mix has come to: how many steps it has made, and how far each source has come, by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowfn.flows.mix_rows import SourceProgress, json_number
from flowfn.kinds.nodes import Node, ending
from flowfn.kinds.runs import Checkpoint, Run


@dataclass(frozen=True)
class Mixture:
    """How far a mix has come: its steps, and its sources by name; and its units, if it counts in units."""

    steps: int
    sources: Mapping[Any, SourceProgress]
    fields: int
    units: Any = None

    def entry(self) -> dict[str, Any]:
        """What a state says of it."""
        begun = {name: [*map(json_number, one[: self.fields])] for name, one in self.sources.items()}
        return {"steps": self.steps, "sources": begun} | ({} if self.units is None else {"units": self.units})


def mixture(root: Node, seed: int, epoch: int, checkpoint: Checkpoint) -> Mixture | None:
    """How far the mix in a tree has come, if there is one and its steps can be told."""
    found = mix_of(root)
    if found is None:
        return None
    mix, size = found
    run = Run(seed, (epoch,), anchors=checkpoint.anchors)
    reached = mix.progress(run, checkpoint.position * size, size)
    if reached is None:
        return None
    steps, begun, units = reached
    return Mixture(steps, dict(zip(mix.names, begun)), mix.form.fields, units)


def mix_of(node: Node) -> tuple[Any, int] | None:
    """The mix upstream of a node and how many of its outputs an output of the node takes,
    if no other order is between."""
    *stages, last = ending(node)
    return (last, inputs_of_each(stages)) if hasattr(last, "progress") else None


def inputs_of_each(stages: Iterable[Node]) -> int:
    """How many inputs of the first stages an output of the last one is made of."""
    return math.prod(stage.part.traits.size for stage in stages)
