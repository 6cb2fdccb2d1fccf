"""Stages that give datapoints more than once: in rounds, in copies, in epochs of a length of one's own."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.blocks import Block
from flowfn.flows.flow import Flow
from flowfn.flows.stages import stage
from flowfn.kinds.orders import Order
from flowfn.kinds.routes import Copies, Rounds, strided
from flowfn.kinds.runs import EpochForm, Length, Outputs, Run
from flowfn.kinds.sections import EMPTY_ROUNDS, Section


def _rounds(count: int) -> Generator[Section, int, None]:
    empty = 0
    for number in range(count):
        found = yield Section(round=number, final=number == count - 1)
        empty = 0 if found else empty + 1
        if empty == EMPTY_ROUNDS:
            raise ValueError(f"repeat(): rounds {number - empty + 1} to {number} gave no datapoint")


@stage.order(where={"count": rules.natural}, stream=_rounds, switches=True)
def repeat(count: int, n: float) -> Rounds:
    """The whole source, `count` times over, with new randomness in every round.

    >>> import flowfn as ff
    >>> list(ff.repeat(2, [1, 2]))
    [1, 2, 1, 2]
    """
    return Rounds(n, count)


def _endless() -> Generator[Section, int, None]:
    number = 0
    while True:
        found = yield Section(round=number)
        if not found:
            raise ValueError(f"cycle(): round {number} gave no datapoint; an empty source cannot be cycled")
        number += 1


@stage.order(stream=_endless, switches=True, endless=True)
def cycle(n: float) -> Rounds:
    """The whole source over and over, without end, with new randomness in every round.

    Raises:
        ValueError: a round gives no datapoint.

    >>> import flowfn as ff
    >>> list(ff.pipe([1, 2], ff.cycle(), ff.take(5)))
    [1, 2, 1, 2, 1]
    """
    if n == 0:
        raise ValueError("cycle(): the source is empty; an empty source cannot be cycled")
    return Rounds(n, math.inf)


def _section_of_copies(count: int) -> Iterator[Section]:
    yield Section(times=count, anew=True, final=True)


@stage.order(where={"count": rules.positive}, stream=_section_of_copies)
def repeat_each(count: int, n: float) -> Copies:
    """Every datapoint `count` times in a row. Stages downstream draw new random numbers for every copy.

    >>> import flowfn as ff
    >>> list(ff.repeat_each(2, ["a", "b"]))
    ['a', 'a', 'b', 'b']
    """
    return Copies(n, count)


class EpochsNode(Order):
    """In epoch e it gives the outputs [e n, (e + 1) n) of an endless source, which runs outside of epochs."""

    lasting = True
    retold = False

    def outside(self, run: Run) -> tuple[Run, int]:
        """The run of the endless source, and where in it the epoch begins."""
        *around, number = run.epoch
        return replace(run, epoch=tuple(around)), number * self.part.arguments["count"]

    def epoch_upstream(self, epoch: EpochForm) -> EpochForm:
        """Outside of epochs."""
        return epoch[:-1]

    def length(self, run: Run) -> Length:
        """The same in every epoch."""
        return self.part.arguments["count"]

    def labels(self, run: Run) -> tuple[int, int]:
        """Counted anew in every epoch."""
        return self.rank, self.world

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs of the epoch, by index."""
        outside, first = self.outside(run)
        return self.sources[0].read(outside, (strided(first, 1, block) for block in series))

    def upward(self, run: Run, block: Block) -> Iterator[tuple[int, Run, Block]]:
        """The same outputs, as the source counts them."""
        outside, first = self.outside(run)
        yield 0, outside, strided(first, 1, block)

    def left_out_above(self, run: Run, block: Block) -> np.ndarray:
        """What is left out of them."""
        outside, first = self.outside(run)
        return self.sources[0].left_out(outside, strided(first, 1, block))

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The outputs of the epoch, in order."""
        if self.seekable:
            return super().stream(run, start, lineage)
        outside, first = self.outside(run)
        endless = self.sources[0].stream(outside, first + start)
        outputs = Outputs(islice(endless, max(self.part.arguments["count"] - start, 0)), self, [endless], start)
        return outputs.labelled(self.numbers(start), start) if lineage else outputs


@stage.of_node(EpochsNode, said="epoch_of({count})")
def epochs(count: int, n: float) -> Any:
    """The outputs of one epoch of an endless source."""


@stage.composite(where={"count": rules.positive})
def epoch_of(count: int, source: Any) -> Flow[Any]:
    """Epochs of `count` datapoints, whatever the length of the source: each goes on where the one before ended.

    Epoch e is the outputs e * count to (e + 1) * count - 1 of the source cycled without end, so it does not depend on
    what was read before; the cycle's round r is what epoch r of the source would be. `take(count, cycle(source))`
    begins anew in every epoch instead.

    Raises:
        ValueError: the source is empty.

    >>> import flowfn as ff
    >>> flow = ff.epoch_of(4, ["a", "b", "c"])
    >>> list(flow), list(flow), len(flow)
    (['a', 'b', 'c', 'a'], ['b', 'c', 'a', 'b'], 4)
    """
    if source.node.length_or_none() == 0:
        raise ValueError("epoch_of(): the source is empty; an empty source has no epochs")
    return epochs(count, cycle(source))
