"""A stretch of stages spread over workers: blocks go out, outputs come back, and nothing else can be told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowfn.blocks import Block
from flowfn.kinds.nodes import Node
from flowfn.kinds.runs import Length, Outputs, Run
from flowfn.parallel.crew import Crew, Pace
from flowfn.parallel.cursor import Cursor
from flowfn.parallel.handout import Handout
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

    def gaps_within(self, run: Run) -> bool:
        """As in the stretch."""
        return self.stretch.top.gaps_within(run)

    def left_out(self, run: Run, block: Block) -> np.ndarray:
        """What is left out of the stretch."""
        return self.stretch.top.left_out(run, block)

    def unknown(self) -> str:
        """What the stretch says."""
        return self.stretch.top.unknown()

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs at the indices of a series, made by workers."""
        # a mix that goes on from another begins at an anchor without outputs
        begun = {place: anchor for place, anchor in run.anchors.items() if not anchor.outputs}
        handout = self._handout(run, Feed(run.seed, run.epoch, run.base, anchors=begun, gaps=run.gaps))
        handout.by_index(series)
        return self._outputs(handout, Cursor(self.stretch, run))

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on, made by workers."""
        if self.seekable:
            return super().stream(run, start, lineage)
        handout = self._handout(run, Feed(run.seed, run.epoch, run.base, lineage=lineage, gaps=run.gaps))
        cursor = Cursor(self.stretch, run).seek(start)
        bottom, position = self.stretch.bottom, cursor.position
        if bottom.seekable:
            handout.by_index(bottom.series(run, position))
        else:
            labelled = lineage or self.stretch.wants_labels()
            handout.by_value(lambda run: bottom.stream(run, position, labelled), position, labelled, self.exact)
        return self._outputs(handout, cursor).drop(start - cursor.first_output)

    def _handout(self, run: Run, plain: Feed) -> Handout:
        """The tasks of a pass, paced as the one before it was in the end."""
        former = self.paces.get(self.place)
        pace = self.paces[self.place] = former.again() if former is not None else Pace(self.crew)
        return Handout(self.stretch, run, pace, plain)

    def _outputs(self, handout: Handout, cursor: Cursor) -> Outputs:
        outputs = Outputs(Work(handout, cursor).outputs(), None, (), cursor.first_output, cursor.tell)
        outputs.earlier = cursor.tell_before_last if self.exact else None
        return outputs


def _mixes(node: Node) -> bool:
    """Whether upstream of map-like stages and batch there is a mix, of which a state says how far each source is,
    or what says how much of one it has read."""
    while not (hasattr(node, "progress") or node.followed):
        if isinstance(node, Spread):
            return node.exact
        if len(node.sources) != 1 or not node.elastic:
            return False
        (node,) = node.sources
    return True
