"""Where a mix stands: how far each of its sources has come, as the row of an anchor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from flowfn.flows.picks import picks_of, picks_text
from flowfn.kinds.runs import Anchor, Run, naturals


class SourceProgress(NamedTuple):
    """How far one source of a mix has come: datapoints given, the round and the place in it, whether it has ended.

    `expected` is what it should have given; `before` is what it had given when the last of the others ended. Where
    shares are of units, `units` have been given and are expected, and `largest` is the largest datapoint so far.
    """

    datapoints: int = 0
    round: int = 0
    position: int = 0
    ended: bool = False
    expected: float = 0.0
    before: int = 0
    units: float = 0
    largest: float = 0


COUNTED, MEASURED = 6, 8
"""So many numbers tell how far a source has come, where datapoints are counted and where they are measured."""

MixRow: TypeAlias = "tuple[Any, ...]"
"""Where a mix stands: where its last phase began, how many steps came before the pass,
and of the sources field by field.

A mix that went on from another's state adds the row with which it began (its `start` is the output before which that
was), and perhaps the picks that led there, which it makes again, and the row where those begin. Empty: it stands at its
very beginning.
"""


class Standing(NamedTuple):
    """A row, unpacked: the output at which its last phase began, the steps before the pass, and its sources.

    `spent` are the units that were given by sources which are there no more.
    """

    start: int
    before: int
    sources: list[SourceProgress]
    spent: float = 0


class MixProgress(NamedTuple):
    """How far a mix has come: its steps, its sources, its units if it counts them, its outputs, whether it is over.

    Where a stage behind it may need what it has read again: how far the sources had come there (`held`), and the picks
    since, if they are known.
    """

    steps: int
    sources: list[SourceProgress]
    units: float | None
    outputs: int
    over: bool = False
    held: list[SourceProgress] | None = None
    picks: list[int] | None = None


class HeldOutputs(NamedTuple):
    """What a state tells of the outputs of a mix that a stage behind it may still hold: how many outputs came before
    them, and how many steps before the pass, how far the sources had come, and the picks since."""

    since: int
    before: int
    sources: list[list[Any]]
    picks: list[int]


HELD = "held"
"""What stands in an anchor for the row that a state tells of."""


@dataclass(frozen=True)
class RowForm:
    """How the row of a mix of so many sources is laid out."""

    sources: int
    fields: int = COUNTED

    @property
    def size(self) -> int:
        """How many numbers tell where a mix stands."""
        return 2 + self.fields * self.sources + (self.fields == MEASURED)

    def packed(
        self, start: int, before: int, columns: Iterable[Iterable[Any]], first: MixRow = (), spent: float = 0
    ) -> MixRow:
        """The row of a mix, from what is known of its sources field by field."""
        known = chain.from_iterable([*columns][: self.fields])
        return (start, before, *known, *([spent] if self.fields == MEASURED else ()), *first)

    def unpacked(self, row: MixRow) -> Standing:
        """What a row says."""
        if not row:
            return Standing(0, 0, [SourceProgress()] * self.sources)
        (start, before), values = row[:2], row[2 : 2 + self.fields * self.sources]
        every = [SourceProgress(*values[source :: self.sources]) for source in range(self.sources)]
        return Standing(start, before, every, *row[2 + self.fields * self.sources : self.size])

    def again(self, row: MixRow) -> str:
        """The picks that are made again, of the row with which a mix began."""
        return row[self.size] if len(row) > self.size else ""

    def held(self, row: MixRow) -> MixRow:
        """Where those begin, of the same row."""
        return row[self.size + 1 :] or row

    def without_past(self, row: MixRow, first: MixRow, since: int) -> MixRow:
        """The row with which a mix began that stands at `row` after `since` outputs, without the picks before there."""
        again = picks_of(self.again(first), self.sources) or []
        begun, left = first[: self.size], self.unpacked(first).start - since
        if not again or left <= 0:
            return begun
        if left >= len(again):
            return first
        return (*begun, picks_text(again[-left:], self.sources), since, *row[1 : self.size])

    def shortened(self, inputs: MixRow, held: HeldOutputs) -> MixRow:
        """What an anchor holds, without what a state tells anyway: picks that are made again are but their number if
        they are the first of those held, and the row where these begin is left out, here and behind them."""
        again = picks_of(self.again(inputs[self.size :]), self.sources) or []
        if again and list(held.picks[: len(again)]) == again:
            inputs = (*inputs[: 2 * self.size], len(again))
        own = self._own(inputs[: self.size])
        return (HELD, *own, *inputs[self.size :]) if inputs[: self.size] == self._row(own, held) else inputs

    def written_out(self, inputs: MixRow, held: HeldOutputs) -> MixRow:
        """The same, written out."""
        if inputs[:1] == (HELD,):
            many = 1 + len(self._own(range(self.size)))
            inputs = (*self._row(inputs[1:many], held), *inputs[many:])
        if len(inputs) != 2 * self.size + 1 or type(inputs[-1]) is not int:
            return inputs
        again = picks_text(held.picks[: inputs[-1]], self.sources)
        return (*inputs[:-1], again, held.since, *inputs[1 : self.size])

    def _own(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """What no table of sources says of a row: where its last phase began, and what was spent."""
        return (row[0], row[-1]) if self.fields == MEASURED else (row[0],)

    def _row(self, own: Sequence[Any], held: HeldOutputs) -> MixRow:
        return self.packed(own[0], held.before, zip(*held.sources), spent=own[-1])

    def first(self, anchor: Anchor | None, run: Run) -> MixRow:
        """The row with which a mix began in a run, told by any anchor of it."""
        if anchor is None or anchor.epoch != run.epoch:
            return ()
        return anchor.inputs[self.size :] or (() if anchor.outputs else anchor.inputs)

    def fits(self, row: MixRow, outputs: int) -> bool:
        """Whether a row, and that with which the mix began if one follows,
        can be those of a mix after so many outputs."""
        begin, again = row[self.size : 2 * self.size], row[2 * self.size :]
        if not self._is_row(row[: self.size]) or (begin and not self._is_row(begin)):
            return False
        here, first = self.unpacked(row), self.unpacked(begin or (() if outputs else row))
        if again and not self._led(again[0], again[1:], first):
            return False
        given = [sum(one.datapoints for one in some.sources) for some in (here, first)]
        owed = max(one.expected for one in here.sources) <= here.before + outputs + 1 or self.fields == MEASURED
        owed = owed and given[1] <= here.before + first.start and here.start <= outputs
        return owed and here.before == first.before and given[0] - given[1] == outputs - first.start

    def _led(self, again: Any, held: MixRow, first: Standing) -> bool:
        """Whether picks led from one row to another."""
        picks = picks_of(again, self.sources)
        if picks is None or len(picks) > first.start or not self._is_row(held):
            return False
        before = self.unpacked(held)
        counts = [one.datapoints - other.datapoints for one, other in zip(first.sources, before.sources)]
        return before.start == first.start - len(picks) and counts == [picks.count(n) for n in range(self.sources)]

    def _is_row(self, row: MixRow) -> bool:
        if len(row) != self.size or not naturals(row[:2], 2):
            return False
        standing = self.unpacked(row)
        return all(map(are_begun, standing.sources)) and is_amount(standing.spent)


def is_amount(value: Any) -> bool:
    """Whether this can be how many units there are."""
    return type(value) in (int, float) and 0 <= value < math.inf


def are_begun(values: Sequence[Any]) -> bool:
    """Whether these can be how far a source has come."""
    *counts, ended, expected, before = values[:COUNTED]
    owed = all(map(is_amount, (expected, *values[COUNTED:])))
    return naturals((*counts, before), 4) and max(*counts, before) == counts[0] and ended in (0, 1) and owed


def json_number(value: Any) -> Any:
    """What an anchor holds as JSON knows it, truth values as numbers."""
    return int(value) if isinstance(value, (bool, np.bool_)) else value
