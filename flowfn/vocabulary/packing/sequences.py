"""Sequences of any lengths packed into rows of one length, with segment ids and positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from more_itertools import peekable

from flowfn import rules
from flowfn.datapoints.padding import VALUE
from flowfn.flows.stages import stage
from flowfn.kinds.runs import Anchor, naturals
from flowfn.kinds.streams import Mark
from flowfn.kinds.traces import Trace
from flowfn.showing import as_written, brief
from flowfn.vocabulary.balancing.costs import Cost
from flowfn.vocabulary.packing.balanced import balanced_fit
from flowfn.vocabulary.packing.forms import SINGLE, Items, PackInput
from flowfn.vocabulary.packing.layouts import Layout
from flowfn.vocabulary.packing.packers import PackedRow, Packer, Size, best_fit, concat_then_split, first_fit

__all__ = ["best_fit", "concat_then_split", "first_fit", "pack"]

_ROW_LENGTHS = rules.Rule(
    "a positive integer, or a dict of one for each component",
    lambda value: (
        rules.is_integer(value) or (isinstance(value, Mapping) and all(map(rules.is_integer, value.values())))
    ),
    lambda value, others: (min(value.values(), default=0) if isinstance(value, Mapping) else value) > 0,
)


_KEPT = rules.Rule(
    "a component, or a list or tuple of them",
    lambda value: all(map(_names_component, value)) if isinstance(value, (list, tuple)) else _names_component(value),
)


def _names_component(value: Any) -> bool:
    return isinstance(value, str) or (rules.is_integer(value) and value >= 0)


_MULTIPLE = rules.Rule(
    "a positive integer that divides length",
    rules.is_integer,
    lambda value, others: (
        value > 0
        and not any(
            one % value
            for one in (others["length"].values() if isinstance(others["length"], Mapping) else [others["length"]])
        )
    ),
)

_RANKS = rules.Rule(
    "a positive integer or None, and goes without how=",
    lambda value: value is None or rules.is_integer(value),
    lambda value, others: value is None or (value > 0 and others["how"] is first_fit),
    hint="; how=partial(balanced_fit, ranks=...) has more to choose from",
)
_COST = rules.Rule(
    "a function of an array of lengths, and goes with ranks=",
    lambda value: value is None or callable(value),
    lambda value, others: value is None or others["ranks"] is not None,
)
_PACKED = rules.Rule(
    "how much of the first sequence was gone, and how many rows were given since",
    lambda note: naturals(note, 2),
    lambda note, facts: note[1] <= facts["outputs"],
)


@stage.stream(
    where={
        "length": _ROW_LENGTHS,
        "how": rules.function,
        "value": VALUE,
        "drop_remainder": rules.boolean,
        "keep": _KEPT,
        "multiple": _MULTIPLE,
        "ranks": _RANKS,
        "cost": _COST,
    },
    later=("keep", "multiple", "ranks", "cost"),
    note=_PACKED,
)
def pack(
    length: int | Mapping[Any, int],
    source: Any,
    *,
    how: Packer = first_fit,
    value: Any = 0,
    drop_remainder: bool = False,
    keep: Any = (),
    multiple: int = 1,
    ranks: int | None = None,
    cost: Cost | None = None,
    mark: Mark,
    trace: Trace | None,
    unmade: bool,
) -> Iterator[Any]:
    """Pack sequences into rows of `length`, each row with segment ids and positions (int32) beside it.

    A datapoint is a sequence (an array (n, ...), packed along its first axis, or a list of numbers), or a list, tuple
    or dict of equally long ones. What comes out has two components more: which sequence of the row an element belongs
    to (1, 2, ...; 0 is padding), and which place it has in its segment (0, 1, ...). A single sequence gives [row,
    segment ids, positions], a dict has them by the keys "segment_ids" and "positions". Dtypes stay (lists of ints are
    int64); what is not used is filled with `value`, one for all components or a dict or list of one for each (those not
    named in a dict get 0: so a loss mask that comes along is 0 on padding). `cu_seqlens` makes of segment ids what
    FlashAttention takes.

    `length={"inputs": 512, "targets": 128}`: the components have lengths of their own. A datapoint goes where all of
    them fit, and each has "inputs_segment_ids" and "inputs_positions" of its own.

    `keep` names components that are no sequences (a name, an id, a weight; one, or a list of them): a row has a list of
    them, one value for each segment (numbers too: `batch(2, collate={"id": as_list})` keeps the lists of rows apart).
    With `multiple`, which divides `length`, each segment begins at a multiple of it; what is between two is padding.

    `how` is the packer: `first_fit` (the default), `best_fit`, `concat_then_split`, `functools.partial(best_fit,
    bins=8, most=16)`, or a generator function of your own; whenever that reads on, nothing it remembers may matter but
    the sequences that it has not given yet. Where a sequence is cut, each part is a segment with positions from 0, as
    in grain, so that positions stay below `length`; `flat_map(split_long(length, overlap=n))` cuts long ones before,
    with an overlap. Empty sequences are left out. `drop_remainder` leaves the last row out, unless it is full. Only
    sequences that are not given yet are held; resuming packs again from where the packer last began anew.

    `ranks` has windows of sequences planned for so many ranks, so that the rows of a step are equally full, and by
    `cost`, a function of an array of lengths, cost nearly the same: `shard(rank, ranks)` comes behind it. It is short
    for `how=partial(balanced_fit, ranks=ranks, cost=cost)`, which says more.

    On packing without attention across segments: Krell et al.,
    "Efficient Sequence Packing without Cross-contamination", 2021.

    Raises:
        ValueError: a sequence is longer than a row; those of a datapoint differ in length, those of a row in shape
            beyond the first axis; `value` does not fit the dtype; no dtype holds the sequences of a row together as
            they are; a datapoint lacks what `keep` names.
        TypeError: sequences of a row carry different units; `how` gives no rows.

    >>> import flowfn as ff
    >>> for tokens, segments, positions in ff.pack(5, [[7, 7, 7], [8, 8], [9]]):
    ...     print(tokens, segments, positions)
    [7 7 7 8 8] [1 1 1 2 2] [0 1 2 0 1]
    [9 0 0 0 0] [1 0 0 0 0] [0 0 0 0 0]
    >>> named = [{"tokens": [7, 7], "from": "a"}, {"tokens": [8], "from": "b"}]
    >>> for row in ff.pack(6, named, keep="from", multiple=3):
    ...     print(row["tokens"], row["from"], row["segment_ids"])
    [7 7 0 8 0 0] ['a', 'b'] [1 1 0 2 0 0]
    """
    layout = Layout(length, value, keep if isinstance(keep, (list, tuple)) else [keep], multiple)
    packer = how if ranks is None else partial(balanced_fit, ranks=ranks, cost=cost)
    waiting = WaitingSequences(source, layout, packer, mark)
    mark.anywhere(waiting.note)
    rows: Iterator[PackedRow] = packer(waiting.lengths(), layout.capacity)
    if not isinstance(rows, Iterable):
        raise TypeError(f"pack(): {as_written(packer)} must yield {ROWS}, but it returned {brief(rows)}")
    if drop_remainder:
        rows = peekable(rows)
    for row in rows:
        try:
            if trace is not None:
                trace(waiting.numbers(row))
            items, room = waiting.take(row)
        except (TypeError, ValueError):
            if _has_row_form(row):
                raise
            raise TypeError(f"pack(): {as_written(packer)} must yield {ROWS}, but it gave {brief(row)}") from None
        if drop_remainder and waiting.ended and not rows and room != layout.nothing:
            return
        made = layout.row(items, room, unmade) if waiting.rows >= waiting.rows_before else None
        waiting.rows += 1  # not before: a row that cannot be made is to be tried again
        if made is not None:
            yield made
    waiting.check_all_given()


Held: TypeAlias = "tuple[int, PackInput, Size]"
"""A sequence that has been read: the number of the input, itself, and how much of it has been given."""


class WaitingSequences:
    """The sequences that have been read and not given, and where packing last began anew.

    There, nothing was held but the last few sequences read, perhaps without the beginning of the first. To resume is to
    read again from that one, without what was gone of it (`offset`), and to leave out the `rows` given since.
    """

    def __init__(self, source: Any, layout: Layout, how: Packer, mark: Mark) -> None:
        self.source, self.layout, self.how, self.mark = source, layout, how, mark
        self.offset, self.rows_before = mark.note or (0, 0)
        self.fresh = self.start = int(source.position)
        self.gone = self.offset  # of the sequence there
        self.known: list[tuple[int, dict[int, Anchor]]] = [(self.fresh, mark.upstream)]  # facts from places up to there
        self.by_index = source.node is not None and source.node.seekable  # so there are none
        self.items: dict[int, Held] = {}  # by the numbers that the packer knows
        self.rows, self.ended = 0, False

    def note(self) -> tuple[int, int, int]:
        """How many inputs back packing last began, how much of the first of them was gone, and the rows given since."""
        self.mark.upstream = self.known[0][1]
        return self.source.position - self.fresh, self.offset, max(self.rows, self.rows_before)

    def lengths(self) -> Iterator[Size]:
        """The lengths of the sequences, each read when it is asked for."""
        items, nothing, offset = self.items, self.layout.nothing, self.offset
        item_of, plain = self.layout.forms.item, self.layout.forms.plain
        dtype, form, read = None, SINGLE, 0
        for number, datapoint in enumerate(self.source, self.fresh):
            if plain and type(datapoint) is np.ndarray and datapoint.ndim == 1:  # most are
                if datapoint.dtype is not dtype:
                    dtype, form = datapoint.dtype, item_of(datapoint)[1]
                item: PackInput = (len(datapoint), form, (datapoint,))
            else:
                item = item_of(datapoint)
            if offset:
                item, offset = self._rest(item, offset), 0
            size = item[0]
            if size != nothing:
                items[read] = number, item, nothing
                read += 1
                yield size
                if self.rows >= APART:
                    self._begin_anew(number + 1, read)
        self.ended = True

    def _rest(self, item: PackInput, offset: int) -> PackInput:
        if isinstance(item[0], tuple) or item[0] <= offset:
            raise ValueError(
                f"pack(): the state says that {offset} of a sequence are gone, but it is shorter: the data differs"
            )
        return self.layout.forms.part(item, offset, item[0])

    def numbers(self, row: PackedRow) -> list[int]:
        """Which inputs a row is made of."""
        return [self.items.get(index, NO_ITEM)[0] for index, _, _ in row]

    def take(self, row: PackedRow) -> tuple[Items, Size]:
        """What a row is made of, and how much room it leaves, if the packer keeps to the rules; it is given now."""
        taken = []
        items, part, nothing = self.items, self.layout.forms.part, self.layout.nothing
        for index, start, stop in row:
            number, item, gone = items.get(index, NO_ITEM)
            ends = stop == item[0]
            if start != gone or not (ends or _is_within(start, stop, item[0])):
                raise ValueError(
                    f"pack(): {as_written(self.how)} gave the piece {(index, start, stop)}, which is not what comes "
                    "next of a sequence that it read; a packer gives each sequence once, from its start to its end"
                )
            if ends:
                del items[index]
            else:
                items[index] = number, item, stop
            taken.append(item if ends and start == nothing else part(item, start, stop))
        parts: Any = tuple(zip(*taken)) or ((), (), ())
        room = self.layout.room(parts[0])
        if not taken or self.layout.too_much(room):
            raise ValueError(
                f"pack(): {as_written(self.how)} gave a row that is empty, or longer than {self.layout.capacity}: {row}"
            )
        return parts, room

    def _begin_anew(self, position: int, read: int) -> None:
        """Rows have been given, and the packer reads on, behind so many sequences: if it holds the last few of these,
        and has begun none but the first of them, note that it could begin here."""
        fresh, offset = position, 0
        if self.items:
            first, (fresh, _, begun) = next(iter(self.items.items()))
            nothing = self.layout.nothing
            others_begun = any(gone != nothing for _, _, gone in islice(self.items.values(), 1, None))
            if first != read - len(self.items) or others_begun or (begun != nothing and isinstance(begun, tuple)):
                return
            offset = 0 if isinstance(begun, tuple) else begun + (self.gone if fresh == self.start else 0)
        self._know(position, fresh)
        self.fresh, self.offset, self.rows, self.rows_before = fresh, offset, 0, 0

    def _know(self, position: int, fresh: int) -> None:
        """Keep the facts from the newest place at or before the one from which to read again, and those behind it."""
        if self.by_index:
            return
        self.known.append((min(position, max(fresh, position - 1)), self.source.facts(before_last=fresh < position)))
        while len(self.known) > 1 and self.known[1][0] <= fresh:
            del self.known[0]

    def check_all_given(self) -> None:
        """Make sure that the packer has given whatever it read."""
        if self.items:
            raise ValueError(
                f"pack(): {as_written(self.how)} ended without giving {len(self.items)} of the sequences that it read"
            )


ROWS = "rows: lists of pieces (number of the sequence, start, stop)"

APART = 8
"""Rows between two places from which packing may be begun anew: to note one costs as much as a row."""
NO_ITEM: Held = (-1, (None, SINGLE, ()), None)


def _has_row_form(row: Any) -> bool:
    """Whether something has the form of a row."""
    return isinstance(row, Sequence) and all(isinstance(piece, Sequence) and len(piece) == 3 for piece in row)


def _is_within(start: Size, stop: Size, size: Size) -> bool:
    """Whether a piece is some of what a sequence is."""
    if isinstance(size, tuple):
        return len(stop) == len(size) and all(a <= b <= n for a, b, n in zip(start, stop, size)) and start != stop
    return bool(start < stop <= size)
