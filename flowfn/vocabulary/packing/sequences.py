"""Sequences of any lengths packed into rows of one length, with segment ids and positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from more_itertools import peekable

from flowfn import rules
from flowfn.datapoints.padding import VALUE
from flowfn.flows.stages import stage
from flowfn.kinds.nodes import MISSING
from flowfn.kinds.runs import Anchor, naturals
from flowfn.kinds.streams import Mark
from flowfn.kinds.traces import Trace
from flowfn.showing import as_written
from flowfn.vocabulary.packing.layouts import Item, ItemPart, Layout
from flowfn.vocabulary.packing.packers import PackedRow, Packer, Size, best_fit, concat_then_split, first_fit

__all__ = ["best_fit", "concat_then_split", "first_fit", "pack"]

_ROW_LENGTHS = rules.Rule(
    "a positive integer, or a dict of one for each component",
    lambda value: (
        rules.is_integer(value) or (isinstance(value, Mapping) and all(map(rules.is_integer, value.values())))
    ),
    lambda value, others: (min(value.values(), default=0) if isinstance(value, Mapping) else value) > 0,
)


_PACKED = rules.Rule(
    "how much of the first sequence was gone, and how many rows were given since",
    lambda note: naturals(note, 2),
    lambda note, facts: note[1] <= facts["outputs"],
)


@stage.stream(
    where={"length": _ROW_LENGTHS, "how": rules.function, "value": VALUE, "drop_remainder": rules.boolean}, note=_PACKED
)
def pack(
    length: int | Mapping[Any, int],
    source: Any,
    *,
    how: Packer = first_fit,
    value: Any = 0,
    drop_remainder: bool = False,
    mark: Mark,
    trace: Trace | None,
) -> Iterator[Any]:
    """Pack sequences into rows of `length`, each row with segment ids and positions (int32) beside it.

    A datapoint is a sequence (an array of one axis, or a list of numbers), or a list, tuple or dict of equally long
    ones. What comes out has two components more: which sequence of the row an element belongs to (1, 2, ...; 0 is
    padding), and which place it has in its segment (0, 1, ...). A single sequence gives [row, segment ids, positions],
    a dict has them by the keys "segment_ids" and "positions". Dtypes stay (lists of ints are int64); what is not used
    is filled with `value`, one for all components or a dict or list of one for each (those not named in a dict get 0).

    `length={"inputs": 512, "targets": 128}`: the components have lengths of their own. A datapoint goes where all of
    them fit, and each has "inputs_segment_ids" and "inputs_positions" of its own.

    `how` is the packer: `first_fit` (the default), `best_fit`, `concat_then_split`, `functools.partial(best_fit,
    bins=8)`, or a generator function of your own; whenever that reads on, nothing it remembers may matter but the
    sequences that it has not given yet. Where a sequence is cut, each part is a segment with positions from 0, as in
    grain, so that positions stay below `length`. Empty sequences are left out. `drop_remainder` leaves the last row
    out, unless it is full. Only sequences that are not given yet are held; resuming packs again from where the packer
    last began anew.

    On packing without attention across segments: Krell et al.,
    "Efficient Sequence Packing without Cross-contamination", 2021.

    Raises:
        ValueError: a sequence is longer than a row; those of a datapoint differ in length; `value` does not fit the
            dtype; no dtype holds the sequences of a row together as they are.
        TypeError: sequences of a row carry different units.

    >>> import flowfn as ff
    >>> for tokens, segments, positions in ff.pack(5, [[7, 7, 7], [8, 8], [9]]):
    ...     print(tokens, segments, positions)
    [7 7 7 8 8] [1 1 1 2 2] [0 1 2 0 1]
    [9 0 0 0 0] [1 0 0 0 0] [0 0 0 0 0]
    """
    layout = Layout(length, value)
    waiting = Waiting(source, layout, how, mark)
    mark.anywhere(waiting.note)
    rows = peekable(how(waiting.lengths(), layout.capacity))
    while (row := next(rows, None)) is not None:
        pieces = waiting.pieces(row)
        if drop_remainder and waiting.ended and not rows and not layout.is_full(pieces):
            return
        made = layout.row(pieces) if waiting.rows >= waiting.rows_before else None
        waiting.give(row)
        if trace is not None:
            trace(piece.item.number for piece in pieces)
        if made is not None:
            yield made
    waiting.check_all_given()


class Waiting:
    """The sequences that have been read and not given, and where packing last began anew.

    There, nothing was held but perhaps one sequence, or the rest of one. To resume is to read again from that one,
    without what was gone of it (`offset`), and to leave out the `rows` given since.
    """

    def __init__(self, source: Any, layout: Layout, how: Packer, mark: Mark) -> None:
        self.source, self.layout, self.how, self.mark = source, layout, how, mark
        self.offset, self.rows_before = mark.note or (0, 0)
        self.upstream: dict[int, Anchor] = mark.upstream
        self.items: dict[int, Item] = {}
        self.fresh = self.position = int(source.position)
        self.rows, self.fed, self.ended = 0, 0, False

    def note(self) -> tuple[int, int, int]:
        """How many inputs back packing last began, how much of the first of them was gone, and the rows given since."""
        self.mark.upstream = self.upstream
        return self.source.position - self.fresh, self.offset, max(self.rows, self.rows_before)

    def lengths(self) -> Iterator[Size]:
        """The lengths of the sequences, each read when it is asked for."""
        offset = self.offset
        while True:
            if self.rows:
                self._begin_anew()
            datapoint = next(self.source, MISSING)
            if datapoint is MISSING:
                self.ended = True
                return
            item = self.layout.item(datapoint, self.position, offset)
            if offset and (item is None or isinstance(item.size, tuple) or item.size <= 0):
                raise ValueError(
                    f"pack(): the state says that {offset} of a sequence are gone, but it is shorter: the data differs"
                )
            self.position, offset = self.position + 1, 0
            if item is not None:
                self.items[self.fed] = item
                self.fed += 1
                yield item.size

    def pieces(self, row: PackedRow) -> list[ItemPart]:
        """The pieces of a row with what they are pieces of, if the packer keeps to the rules."""
        parts: list[ItemPart] = []
        stops: dict[int, Size] = {}
        for index, start, stop in row:
            item = self.items.get(index)
            if item is None or start != stops.get(index, item.progress) or not _is_within(start, stop, item.size):
                raise ValueError(
                    f"pack(): {as_written(self.how)} gave the piece {(index, start, stop)}, which is not what comes "
                    "next of a sequence that it read; a packer gives each sequence once, from its start to its end"
                )
            parts.append(ItemPart(item, start, stop))
            stops[index] = stop
        if not parts or not self.layout.holds(parts):
            raise ValueError(
                f"pack(): {as_written(self.how)} gave a row that is empty, or longer than {self.layout.capacity}: {row}"
            )
        return parts

    def give(self, row: PackedRow) -> None:
        """Note that a row is given."""
        self.rows += 1
        for index, _, stop in row:
            self.items[index].progress = stop
            if stop == self.items[index].size:
                del self.items[index]

    def _begin_anew(self) -> None:
        """Rows have been given, and the packer reads on: if it holds next to nothing, note that it could begin here."""
        fresh, offset = self.position, 0
        if self.items:
            index, item = next(iter(self.items.items()))
            if index != self.fed - 1 or (isinstance(item.progress, tuple) and any(item.progress)):
                return
            fresh, offset = item.number, item.offset + (0 if isinstance(item.progress, tuple) else item.progress)
        self.upstream = self.source.facts(before_last=fresh < self.position)
        self.fresh, self.offset, self.rows, self.rows_before = fresh, offset, 0, 0

    def check_all_given(self) -> None:
        """Make sure that the packer has given whatever it read."""
        if self.items:
            raise ValueError(
                f"pack(): {as_written(self.how)} ended without giving {len(self.items)} of the sequences that it read"
            )


def _is_within(start: Size, stop: Size, size: Size) -> bool:
    """Whether a piece is some of what a sequence is."""
    if isinstance(size, tuple):
        return len(stop) == len(size) and all(a <= b <= n for a, b, n in zip(start, stop, size)) and start != stop
    return bool(start < stop <= size)
