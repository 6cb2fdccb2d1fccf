"""What a stage reads besides its source: `f(datapoint)`, an iterable or a flow,
opened by the stage itself or by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from more_itertools import consume

from flowfn.flows.flow import Flow
from flowfn.kinds.failures import failure_place, mark, marked
from flowfn.kinds.nodes import Node
from flowfn.kinds.runs import Outputs, Run
from flowfn.kinds.streams import Stream


class Opening(NamedTuple):
    """What is to be opened: for which datapoint, under which seed if that makes a flow, and behind how many outputs."""

    datapoint: Any
    seed: int
    skip: int


def close(made: Iterator[Any]) -> None:
    """Nobody wants any more of what was opened."""
    if hasattr(made, "close"):
        made.close()


def opened(f: Callable[[Any], Any], opening: Opening) -> Iterator[Any]:
    """What `f` makes of a datapoint; a flow runs under a seed of its own."""
    made = f(opening.datapoint)
    if isinstance(made, Flow):
        return made.run(seed=opening.seed, epoch=0, start=opening.skip)
    made = iter(made)
    consume(made, opening.skip)
    return made


class Opener:
    """Who opens for a stage: the stage itself, where the run names nobody else."""

    early = False  # whether it pays to open before the outputs are wanted

    def __init__(self, node: Node) -> None:
        self.node, self.f = node, node.part.arguments["f"]

    def __call__(self, opening: Opening) -> Iterator[Any]:
        """What is opened."""
        return opened(self.f, opening)

    def failed(self, error: Exception, number: int) -> None:
        """Write on an error which datapoint it was; a flow that was opened has said so already."""
        if not (marked(error) or {}).get("noted"):
            mark(error, failure_place(f"in {self.node.part}, its datapoint ", number))

    def close(self) -> None:
        """Nothing is wanted any more."""


class OpeningNode(Stream):
    """A stage that opens something for each of its inputs."""

    gives = frozenset({"opener"})

    def injections(self, run: Run) -> dict[str, Any]:
        """Who opens."""
        return {"opener": (run.opener or Opener)(self)}


class OpenedNode(Node):
    """In a worker: what is opened for the one datapoint of a task."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.part, (), node.place, None)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All that it gives."""
        return Outputs(self._read(*run.feed.datapoints), self)

    def _read(self, opening: Opening) -> Iterator[Any]:
        """As a generator: if `f` raises StopIteration, that is an error and no end, as where the stage itself opens."""
        made = opened(self.part.arguments["f"], opening)
        try:
            for output in made:  # noqa: UP028 (`yield from` would close it twice)
                yield output
        finally:
            close(made)
