"""Where a mix stands: how far each of its sources has come, as the row of an anchor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from flowfn.kinds.runs import Anchor, Run, naturals


class SourceProgress(NamedTuple):
    """How far one source of a mix has come: datapoints given, the round and the place in it, whether it has ended.

    `expected` is what it should have given; `before` is what it had given when the last of the others ended.
    """

    datapoints: int = 0
    round: int = 0
    position: int = 0
    ended: bool = False
    expected: float = 0.0
    before: int = 0


MixRow: TypeAlias = "tuple[Any, ...]"
"""Where a mix stands: where its last phase began, how many steps came before the pass,
and of the sources field by field.

A mix that went on from another's state adds the row with which it began. Empty: it stands at its very beginning.
"""


def packed_row(start: int, before: int, columns: Iterable[Iterable[Any]], first: MixRow = ()) -> MixRow:
    """The row of a mix."""
    return (start, before, *chain.from_iterable(columns), *first)


def unpacked_row(row: MixRow, sources: int) -> tuple[int, int, list[SourceProgress]]:
    """(start, before, sources) of a row."""
    if not row:
        return 0, 0, [SourceProgress()] * sources
    start, before, *values = row
    return (
        start,
        before,
        [
            SourceProgress(*values[source : len(SourceProgress._fields) * sources : sources])
            for source in range(sources)
        ],
    )


def first_of(anchor: Anchor | None, run: Run, sources: int) -> MixRow:
    """The row with which a mix began in a run, told by any anchor of it."""
    if anchor is None or anchor.epoch != run.epoch:
        return ()
    return anchor.inputs[2 + len(SourceProgress._fields) * sources :] or (() if anchor.outputs else anchor.inputs)


def are_begun(values: Sequence[Any]) -> bool:
    """Whether these can be how far a source has come."""
    *counts, ended, expected, before = values
    owed = type(expected) in (int, float) and 0 <= expected < math.inf
    return naturals((*counts, before), 4) and max(*counts, before) == counts[0] and ended in (0, 1) and owed


def are_rows(row: MixRow, sources: int, outputs: int) -> bool:
    """Whether a row, and that with which the mix began if one follows, can be those of a mix after so many outputs."""
    size = 2 + len(SourceProgress._fields) * sources
    rows = [row[at : at + size] for at in range(0, len(row), size)]
    if not all(
        naturals(one[:2], 2) and len(one) == size and all(map(are_begun, unpacked_row(one, sources)[2])) for one in rows
    ):
        return False
    start, before, begun = unpacked_row(row, sources)
    first = unpacked_row(row[size:] or (() if outputs else row), sources)
    totals = [sum(one.datapoints for one in some) for some in (begun, first[2])]
    owed = max(one.expected for one in begun) <= before + outputs + 1
    owed = owed and sum(one.datapoints for one in first[2]) <= before
    return len(rows) <= 2 and owed and start <= outputs and before == first[1] and totals[0] - totals[1] == outputs
