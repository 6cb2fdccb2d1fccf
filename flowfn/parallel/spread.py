"""A stretch of stages spread over workers: blocks go out, outputs come back in order, and nothing else can be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowfn.blocks import Block, blocks
from flowfn.kinds.nodes import Node
from flowfn.kinds.runs import Anchor, Length, Outputs, Run
from flowfn.kinds.streams import Expand
from flowfn.parallel.crew import Crew, Pace
from flowfn.parallel.tasks.plan import Stretch
from flowfn.parallel.tasks.task import Feed
from flowfn.parallel.work import Work


class Spread(Node):
    """Stands in a tree for a stretch that workers run."""

    def __init__(self, stretch: Stretch, crew: Crew, paces: dict[int, Pace]) -> None:
        top = stretch.top
        super().__init__(top.part, (), top.place, None)
        self.stretch, self.crew, self.paces = stretch, crew, paces
        self.exact = not stretch.counted() and _mixes(stretch.bottom)
        self.rank, self.world, self.seekable, self.guarded, self.steady = (
            top.rank,
            top.world,
            top.seekable,
            top.guarded,
            top.steady,
        )

    def length(self, run: Run) -> Length:
        """That of the stretch."""
        return self.stretch.top.length(run)

    def labels(self, run: Run) -> tuple[int, int]:
        """Those of the stretch."""
        return self.stretch.top.labels(run)

    def unknown(self) -> str:
        """What the stretch says."""
        return self.stretch.top.unknown()

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs at the indices of a series, made by workers."""
        begun = {place: anchor for place, anchor in run.anchors.items() if not anchor.outputs}
        work = self._work(run, Feed(run.seed, run.epoch, run.base, anchors=begun))
        return Outputs(work.out(work.by_index(series)), None, (), 0, work.tell)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on, made by workers."""
        if self.seekable:
            return super().stream(run, start, lineage)
        position, first = start, start
        chain: dict[int, Anchor] = {}
        owed: dict[int, int] = {}
        begun: dict[int, int] = {}
        for node in self.stretch.chain():
            if isinstance(node, Expand):
                known = run.anchor(node.place, position)
                if not chain:  # what is too much of the last one is dropped here, so that it owes nothing
                    first = position = known.outputs
                    begun = dict.fromkeys(begun, first)
                chain[node.place], owed[node.place] = known, position
                position = known.inputs[0]
            begun[node.place] = position
        plain = Feed(run.seed, run.epoch, run.base, lineage=lineage)
        work = self._work(run, plain, position, {place: known.outputs for place, known in chain.items()})
        work.opening, work.owed, work.begun = {"opening": True, "start": first, "anchors": chain}, owed, begun
        work.facts = dict(run.anchors)
        bottom = self.stretch.bottom
        if bottom.seekable:
            feeds = work.by_index(blocks(position, bottom.length(run)))  # type: ignore[arg-type]
        else:
            labelled = lineage or self.stretch.wants_labels()
            feeds = work.by_value(lambda run: bottom.stream(run, position, labelled), labelled)
        return Outputs(work.out(feeds), None, (), first, work.tell).drop(start - first)

    def _work(self, run: Run, plain: Feed, position: int = 0, standing: Mapping[int, int] = {}) -> Work:
        """A pass, paced as the one before it was in the end."""
        known = self.paces.get(self.place)
        pace = self.paces[self.place] = known.again() if known is not None else Pace(self.crew)
        return Work(self.stretch, pace, self.exact, run, plain, position, standing)


def _mixes(node: Node) -> bool:
    """Whether there is a mix behind map-like stages and batch, of which a state says how far each source has come."""
    while not hasattr(node, "progress"):
        if isinstance(node, Spread):
            return node.exact
        if len(node.sources) != 1 or not node.elastic:
            return False
        (node,) = node.sources
    return True
