"""One pass over a mix with all its sources open at once, by turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from flowfn.flows.mix_rows import MixRow, SourceProgress
from flowfn.flows.picks import Picked, PickLog, picks_of
from flowfn.kinds.nodes import MISSING
from flowfn.kinds.runs import Anchor, Outputs, Run
from flowfn.kinds.traces import Use
from flowfn.randomness.drawing import words
from flowfn.vocabulary.mixing.deadlines import most_urgent
from flowfn.vocabulary.mixing.plans import since
from flowfn.vocabulary.mixing.units import whole


class Mixing:
    """One pass over a mix of streams: which sources are open, and how far each has come."""

    outputs: Outputs
    measured = False  # whether sources give (units, datapoint)
    over = False
    at_end: MixRow | None = None
    last: tuple[int, Any, Any, list[float]] | None = None  # of which source the last output is, and what was before it

    def __init__(self, node: Any, run: Run, anchor: Anchor) -> None:
        self.node, self.run, self.plan, self.step = node, run, node.plan(run), anchor.outputs
        self.lengths, self.followed = node.lengths(run), node.followed
        self.most = self.plan.limits(self.lengths)
        self.start, self.before, begun, self.spent = node.form.unpacked(anchor.inputs)
        self.first = node.first(run)
        self.origin = node.form.unpacked(self.first).sources
        columns = map(list, zip(*begun))
        self.totals, self.rounds, positions, self.ended, self.expected, self.past, self.units, self.largest = columns
        self.positions = positions if self.plan.in_rounds else list(self.totals)
        self.live = [self._open(*one) for one in enumerate(self.positions)]
        self.shares: list[float] = []  # of this step, where they are a function of it
        self.again = node.form.again(self.first)
        self.pick = chain(self._picked_again(), self._picks())
        self.log, self.known = PickLog(anchor.outputs, grows=True), anchor.read or node.made_again(run)

    def _open(self, source: int, position: int) -> Outputs:
        return self.node.sources[source].stream(self._run_of(source), position)

    def _run_of(self, source: int) -> Run:
        return self.run.round(self.rounds[source]) if self.plan.in_rounds else self.run

    def active(self) -> list[int]:
        """The sources to pick from."""
        return self.plan.active(list(map(SourceProgress, *self._columns())), self.lengths)

    def _columns(self) -> tuple[list[Any], ...]:
        counts = self.totals, self.rounds, self.positions, self.ended, self.expected, self.past
        return *counts, self.units, self.largest

    def tell(self) -> dict[int, Anchor]:
        """A mix holds nothing between its outputs, so it can go on from anywhere."""
        outputs, row = self.outputs.position, self.at_end or self._row()
        return {self.node.place: Anchor(self.run.epoch, outputs, row, self._read(outputs, row))}

    def _read(self, outputs: int, row: MixRow) -> Picked | None:
        """What has been picked; where a pass went on from a state, at least what had been by then."""
        if not self.node.followed or (self.known is not None and self.known.outputs > outputs):
            return self.known
        return Picked(self.log, outputs, row, self.over)

    def tell_before_last(self) -> dict[int, Anchor]:
        """Where it stood before its last output."""
        if self.last is None:
            return self.tell()
        source, units, largest, expected = self.last
        lists = [*map(list, self._columns())]
        for column, value in ((0, lists[0][source] - 1), (2, lists[2][source] - 1), (6, units), (7, largest)):
            lists[column][source] = value
        lists[4], outputs = expected, self.outputs.position
        row = self.node.form.packed(min(self.start, outputs - 1), self.before, lists, self.first, self.spent)
        return {self.node.place: Anchor(self.run.epoch, outputs - 1, row, self._read(outputs, self._row()))}

    def _row(self) -> MixRow:
        return self.node.form.packed(self.start, self.before, self._columns(), self.first, self.spent)

    def uses(self) -> Callable[[], list[Use]]:
        """What tells, after each output from here on, which input it is."""
        before = list(self.totals)

        def used() -> list[Use]:
            (source,) = (one for one, total in enumerate(self.totals) if total > before[one])
            before[source] = self.totals[source]
            return [Use(source, self._run_of(source), [self.positions[source] - 1])]

        return used

    def __iter__(self) -> Iterator[Any]:
        for source in self.pick:
            datapoint = self._next(source)
            if datapoint is MISSING and self._has_rounds_left(source):
                self._begin_again(source)
                datapoint = self._next(source)
            if datapoint is MISSING:
                if self.again:
                    raise ValueError(
                        f"mix(): the state says that source {self.plan.names[source]!r} gave more than it has: the "
                        "data differs, or how often it may be read"
                    )
                if self.plan.stops(source, self.ended):
                    break
                self.at_end = self.at_end or self._row()  # if nothing comes any more, this is where it stands
                self.ended[source] = True
                if not self.plan.cycles:
                    continue
                self._begin_again(source)
                datapoint = self._next(source)
            self.at_end = None
            yield self._given(source, datapoint)
        self.over = True

    def _given(self, source: int, datapoint: Any) -> Any:
        """Note that a source has given a datapoint, before which the number of its units stands if it is measured."""
        before, units = self.units[source], 1
        self.last = source, before, self.largest[source], self.expected
        self.totals[source] += 1
        self.positions[source] += 1
        self.step += 1
        if self.followed:
            self.log.add(source)
        if self.measured:
            units, datapoint = datapoint
            self.units[source] = before + units if type(before + units) is int else whole(before + units)
            if units > self.largest[source]:
                self.largest[source] = units
        if self.shares:
            self.expected = [due + units * share for due, share in zip(self.expected, self.shares)]
        return datapoint

    def _next(self, source: int) -> Any:
        if self.totals[source] >= self.most[source]:
            return MISSING
        datapoint = next(self.live[source], MISSING)
        if datapoint is MISSING and self.plan.cycles and not self.positions[source]:
            raise ValueError(f"mix(): source {self.plan.names[source]!r} gave no datapoint, it cannot begin again")
        return datapoint

    def _has_rounds_left(self, source: int) -> bool:
        """Whether a source that has ended may be read once more; one that gave nothing would give nothing again."""
        if self.again:
            return self.plan.in_rounds and self.positions[source] > 0
        if self.plan.epochs is None or not self.positions[source] or self.totals[source] >= self.most[source]:
            return False
        return self.rounds[source] + 1 < self.plan.epochs[source]

    def _picked_again(self) -> Iterator[int]:
        """The sources of what stages behind the mix had read already; then, all stands as it did there."""
        first = self.node.form.unpacked(self.first)
        if self.again and self.step <= first.start:
            picks = picks_of(self.again, len(self.totals)) or []
            yield from picks[len(picks) + self.step - first.start :]
            _, _, _, self.ended, self.expected, self.past, self.units, self.largest = map(list, zip(*first.sources))
            self.start = self.step
        self.again = ""

    def _begin_again(self, source: int) -> None:
        self.live[source].close()
        self.rounds[source] += 1
        self.positions[source] = 0
        self.live[source] = self._open(source, 0)

    def _picks(self) -> Iterator[int]:
        """Which source comes next, and next."""
        return self._scheduled() if self.node.scheduled else self._by_quota()

    def _by_quota(self) -> Iterator[int]:
        """The source of each output; when one has ended, the others share what follows."""
        while active := self.active():
            picks = self.plan.picks(active, self.lengths, since(self.origin, self.past))
            for source in picks.each(self.step - self.start):
                yield source
                if self.ended[source] and not self.plan.cycles:
                    break
            self.start, self.past = self.step, list(self.totals)

    def _scheduled(self) -> Iterator[int]:
        """The source that is furthest behind what the weights of all steps so far owe it;
        or a draw by those of this step."""
        source, steady = -1, -math.inf
        while active := self.active():
            ended, source = source, active[0]
            while self.plan.cycles or not self.ended[source]:
                at = self._place()
                if at >= steady or ended >= 0:
                    if any(self.ended) and self.plan.is_over(at, self.ended):
                        return
                    self.shares, steady = self.plan.shares(at, active), self.plan.steady_before(at)
                if ended >= 0:
                    self._bequeath(ended)
                    ended = -1
                source = self._chosen(active)
                yield source

    def _place(self) -> Any:
        """What a function of the step is called with."""
        return self.before + self.step

    def _chosen(self, active: list[int]) -> int:
        """Whose turn it is by the shares of this step."""
        if self.plan.key is not None:
            draw = words(np.array([self.before + self.step], np.uint64), self.plan.key)[0]
            return _drawn(int(draw) / 2**64, self.shares)
        behind = [due + share - given for due, share, given in zip(self.expected, self.shares, self.totals)]
        return max((one for one in active if self.shares[one]), key=lambda one: (behind[one], -one))

    def _delivered(self, source: int) -> Any:
        return self.totals[source]

    def _bequeath(self, ended: int) -> None:
        """What was still expected of a source that has ended is shared by the others."""
        given = self._delivered(ended)
        left, self.expected[ended] = self.expected[ended] - given, float(given)
        self.expected = [due + left * share for due, share in zip(self.expected, self.shares)]


class Measuring(Mixing):
    """A mix whose shares are of units: its sources give (units, datapoint)."""

    measured = True

    def _picks(self) -> Iterator[int]:
        return self._scheduled() if self.node.scheduled else self._in_turns()

    def _in_turns(self) -> Iterator[int]:
        """The source that would be too far behind first; when one has ended, the others share what follows."""
        begun = [(one.units, one.datapoints) for one in self.origin]
        anew = not any(map(any, begun))
        while active := self.active():
            deadlines, ended = self.plan.deadlines(active, self.lengths), False
            while not ended:
                units, counts = self.units, self.totals
                if not anew:  # since the mix went on from another
                    units = [whole(now - one[0]) for now, one in zip(units, begun)]
                    counts = [now - one[1] for now, one in zip(counts, begun)]
                source = deadlines.next(units, counts, max(self.largest))
                yield source
                ended = self.ended[source] and not self.plan.cycles

    def _place(self) -> Any:
        return whole(self.spent + sum(self.units))

    def _chosen(self, active: list[int]) -> int:
        behind = [due - given for due, given in zip(self.expected, self.units)]
        return most_urgent(behind, self.shares, max(self.largest))

    def _delivered(self, source: int) -> Any:
        return self.units[source]


def _drawn(fraction: float, shares: list[float]) -> int:
    """The source whose share of [0, 1) a fraction falls into."""
    chosen = 0
    for source, share in enumerate(shares):
        if share and fraction >= 0:
            chosen, fraction = source, fraction - share
    return chosen
