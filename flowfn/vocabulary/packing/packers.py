"""Ways to pack sequences into rows of one length: plain generator functions of lengths.

A packer `packer(lengths, capacity)` reads the lengths of sequences, lazily, and yields rows, each a list of pieces
(number of the sequence, start, stop). Lengths are ints; or tuples of ints, as many as `capacity` then is, all of which
have to fit. Each sequence is given once, from its start to its end. Whenever a packer reads on, nothing that it
remembers may matter but the sequences that it has not given yet: there it can be started again with those.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, count, repeat
from typing import Any, TypeAlias

from flowfn import rules

Size: TypeAlias = Any
"""An int, or a tuple of ints where the components of a datapoint have lengths of their own."""
PackedRow: TypeAlias = "list[tuple[int, Size, Size]]"
"""What is in a row: pieces (number of the sequence, start, stop), in order."""
Packer: TypeAlias = "Callable[[Iterable[Size], Size], Iterator[PackedRow]]"


def packer(function: Packer) -> Packer:
    """Have a packer say where it belongs, should it stand where a stage does."""
    function.instead = f"pack(length, how={function.__name__})"  # type: ignore[attr-defined]
    return function


@packer
@rules.checked(bins=rules.positive)
def first_fit(lengths: Iterable[Size], capacity: Size, *, bins: int = 64) -> Iterator[PackedRow]:
    """Pack each sequence into the first open row that has room for it, or else into a new one.

    At most `bins` rows are open. When a sequence fits into none of them, all are given, in the order in which they were
    opened, and packing begins anew with that sequence. Lengths are ints, or tuples of ints (and so is `capacity`),
    all of which have to fit.

    Raises:
        ValueError: a sequence is longer than a row.

    >>> list(first_fit([4, 3, 2, 3], 6))
    [[(0, 0, 4), (2, 0, 2)], [(1, 0, 3), (3, 0, 3)]]
    """
    fits = _fits_into(capacity)

    def first(rooms: list[Size], length: Size) -> int | None:
        return next(compress(count(), map(fits, rooms, repeat(length))), None)

    return _fitted("first_fit", lengths, capacity, bins, first)


@packer
@rules.checked(bins=rules.positive)
def best_fit(lengths: Iterable[Size], capacity: Size, *, bins: int = 64) -> Iterator[PackedRow]:
    """Pack each sequence into the open row that it leaves the least room in, or else into a new one.

    Otherwise as `first_fit`. It packs a little tighter; of several lengths, the sum of the room counts.

    Raises:
        ValueError: a sequence is longer than a row.

    >>> list(best_fit([3, 4, 2], 6))
    [[(0, 0, 3)], [(1, 0, 4), (2, 0, 2)]]
    """
    fits = _fits_into(capacity)
    total = sum if isinstance(capacity, tuple) else None

    def best(rooms: list[Size], length: Size) -> int | None:
        room = min(compress(rooms, map(fits, rooms, repeat(length))), key=total, default=None)
        return None if room is None else rooms.index(room)

    return _fitted("best_fit", lengths, capacity, bins, best)


@packer
def concat_then_split(lengths: Iterable[int], capacity: int) -> Iterator[PackedRow]:
    """Lay the sequences end to end, and cut every `capacity`: no room is left, but sequences are cut.

    >>> list(concat_then_split([3, 6], 5))
    [[(0, 0, 3), (1, 0, 2)], [(1, 2, 6)]]
    """
    row: PackedRow = []
    room = capacity
    for index, length in enumerate(lengths):
        if isinstance(length, tuple):
            raise TypeError(
                "concat_then_split(): it cuts one sequence at a time, and cannot where length= is a dict; first_fit can"
            )
        start = 0
        while length - start >= room:
            yield [*row, (index, start, start + room)]
            start, row, room = start + room, [], capacity
        if start < length:
            row.append((index, start, length))
            room -= length - start
    if row:
        yield row


def _fitted(
    name: str, lengths: Iterable[Size], capacity: Size, bins: int, choose: Callable[[list[Size], Size], int | None]
) -> Iterator[PackedRow]:
    """Whole sequences in rows, each where `choose` says."""
    fits, less = _fits_into(capacity), _less if isinstance(capacity, tuple) else operator.sub
    nothing = (0,) * len(capacity) if isinstance(capacity, tuple) else 0
    rows: list[PackedRow] = []
    rooms: list[Size] = []
    for index, length in enumerate(lengths):
        if not fits(capacity, length):
            raise ValueError(
                f"{name}(): a sequence of length {length} does not fit into a row of {capacity}; "
                "concat_then_split cuts sequences, map and filter shorten them or leave them out"
            )
        place = choose(rooms, length)
        if place is None:
            if len(rows) == bins:
                yield from rows
                rows, rooms = [], []
            place = len(rows)
            rows.append([])
            rooms.append(capacity)
        rows[place].append((index, nothing, length))
        rooms[place] = less(rooms[place], length)
    yield from rows


def _fits_into(capacity: Size) -> Callable[[Size, Size], bool]:
    return operator.ge if not isinstance(capacity, tuple) else lambda room, length: all(map(operator.ge, room, length))


def _less(room: tuple[int, ...], length: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(operator.sub, room, length))
