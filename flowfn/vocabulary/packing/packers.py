"""Ways to pack sequences into rows of one length: plain generator functions of lengths.

A packer `packer(lengths, capacity)` reads the lengths of sequences, lazily, and yields rows, each a list of pieces
(number of the sequence, start, stop). Lengths are ints; or tuples of ints, as many as `capacity` then is, all of which
have to fit. Each sequence is given once, from its start to its end. Whenever a packer reads on, nothing that it
remembers may matter but the sequences that it has not given yet: there it can be started again with those. `pack` does
so where they are the last that it read, and at most the first of them has been begun.
"""

from __future__ import annotations

import operator
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, count, repeat
from typing import Any, Protocol, TypeAlias, TypeVar

from flowfn import rules

Size: TypeAlias = Any
"""An int, or a tuple of ints where the components of a datapoint have lengths of their own."""
PackedRow: TypeAlias = "list[tuple[int, Size, Size]]"
"""What is in a row: pieces (number of the sequence, start, stop), in order."""
Packer: TypeAlias = "Callable[[Iterable[Size], Size], Iterator[PackedRow]]"
OurPacker = TypeVar("OurPacker", bound=Packer)


def packer(function: OurPacker) -> OurPacker:
    """Have a packer say where it belongs, should it stand where a stage does."""
    function.instead = f"pack(length, how={function.__name__})"  # type: ignore[attr-defined]
    return function


@packer
@rules.checked(bins=rules.positive, most=rules.optional(rules.positive))
def first_fit(
    lengths: Iterable[Size], capacity: Size, *, bins: int = 64, most: int | None = None
) -> Iterator[PackedRow]:
    """Pack each sequence into the first open row that has room for it, or else into a new one.

    At most `bins` rows are open, and at most `most` sequences come into one (None: as many as fit). When a sequence
    fits into none of them, all are given, in the order in which they were opened, and packing begins anew with that
    sequence. Lengths are ints, or tuples of ints (and so is `capacity`), all of which have to fit.

    Raises:
        ValueError: a sequence is longer than a row.

    >>> list(first_fit([4, 3, 2, 3], 6))
    [[(0, 0, 4), (2, 0, 2)], [(1, 0, 3), (3, 0, 3)]]
    >>> list(first_fit([1, 1, 1], 6, most=2))
    [[(0, 0, 1), (1, 0, 1)], [(2, 0, 1)]]
    """
    rooms = _ManyRooms(_first) if isinstance(capacity, tuple) else _FirstRooms()
    return _fitted("first_fit", lengths, capacity, bins, most, rooms)


@packer
@rules.checked(bins=rules.positive, most=rules.optional(rules.positive))
def best_fit(
    lengths: Iterable[Size], capacity: Size, *, bins: int = 64, most: int | None = None
) -> Iterator[PackedRow]:
    """Pack each sequence into the open row that it leaves the least room in, or else into a new one.

    Otherwise as `first_fit`. It packs a little tighter; of several lengths, the sum of the room counts.

    Raises:
        ValueError: a sequence is longer than a row.

    >>> list(best_fit([3, 4, 2], 6))
    [[(0, 0, 3)], [(1, 0, 4), (2, 0, 2)]]
    """
    rooms = _ManyRooms(_tightest) if isinstance(capacity, tuple) else _BestRooms(bins)
    return _fitted("best_fit", lengths, capacity, bins, most, rooms)


@packer
@rules.checked(most=rules.optional(rules.positive))
def concat_then_split(lengths: Iterable[int], capacity: int, *, most: int | None = None) -> Iterator[PackedRow]:
    """Lay the sequences end to end, and cut every `capacity`: no room is left, but sequences are cut.

    With `most`, a row ends behind so many sequences, however much room is left in it.

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
            if len(row) == most:
                yield row
                row, room = [], capacity
    if row:
        yield row


class _Rooms(Protocol):
    """How much room is left in each of the open rows, in the order in which they were opened."""

    def take(self, length: Size) -> int | None:
        """Take so much of the room of one; its place, or None where there is too little in all of them."""

    def open(self, room: Size) -> None:
        """Have one more row, with so much room."""

    def close(self, place: int) -> None:
        """Have no room any more in the row at a place."""

    def clear(self) -> None:
        """Have no rows any more."""


def _fitted(
    name: str, lengths: Iterable[Size], capacity: Size, bins: int, most: int | None, rooms: _Rooms
) -> Iterator[PackedRow]:
    """Whole sequences in rows, each where there is room."""
    fits, less = _fits_into(capacity), _less if isinstance(capacity, tuple) else operator.sub
    nothing = (0,) * len(capacity) if isinstance(capacity, tuple) else 0
    rows: list[PackedRow] = []
    take = rooms.take
    for index, length in enumerate(lengths):
        place = take(length)
        if place is None:
            if not fits(capacity, length):
                raise ValueError(
                    f"{name}(): a sequence of length {length} does not fit into a row of {capacity}; concat_then_split "
                    "cuts sequences, flat_map(split_long(...)) splits them before, filter leaves them out"
                )
            if len(rows) == bins:
                yield from rows
                rows = []
                rooms.clear()
            place = len(rows)
            rows.append([])
            rooms.open(less(capacity, length))
        row = rows[place]
        row.append((index, nothing, length))
        if len(row) == most:
            rooms.close(place)
    yield from rows


class _FirstRooms:
    """Rooms of which the first that is large enough is taken.

    Beside each stands the largest up to there: these grow, so that the first of a size is found by bisection, and a
    room that was taken changes them no further than to the next that is larger than it was.
    """

    def __init__(self) -> None:
        self.rooms: list[int] = []
        self.largest: list[int] = []

    def take(self, length: int) -> int | None:
        largest = self.largest
        place = bisect_left(largest, length)
        if place == len(largest):
            return None
        self._shrink(place, self.rooms[place] - length)
        return place

    def open(self, room: int) -> None:
        largest = self.largest
        self.rooms.append(room)
        largest.append(room if not largest or room > largest[-1] else largest[-1])

    def close(self, place: int) -> None:
        self._shrink(place, 0)

    def _shrink(self, place: int, room: int) -> None:
        rooms, largest = self.rooms, self.largest
        before, most = largest[place], largest[place - 1] if place else 0
        rooms[place] = room
        for at in range(place, len(rooms)):
            if largest[at] > before:
                return
            if rooms[at] > most:
                most = rooms[at]
            largest[at] = most

    def clear(self) -> None:
        self.rooms.clear()
        self.largest.clear()


class _BestRooms:
    """Rooms of which the smallest that is large enough is taken: sorted numbers, each of a room and its place."""

    def __init__(self, bins: int) -> None:
        self.shift = bins.bit_length()
        self.rooms: list[int] = []
        self.opened = 0

    def take(self, length: int) -> int | None:
        at = bisect_left(self.rooms, length << self.shift)
        if at == len(self.rooms):
            return None
        key = self.rooms.pop(at)
        insort(self.rooms, key - (length << self.shift))
        return key & ((1 << self.shift) - 1)

    def open(self, room: int) -> None:
        insort(self.rooms, (room << self.shift) + self.opened)
        self.opened += 1

    def close(self, place: int) -> None:
        mask = (1 << self.shift) - 1
        self.rooms = [key for key in self.rooms if key & mask != place]

    def clear(self) -> None:
        self.rooms, self.opened = [], 0


class _ManyRooms:
    """Rooms that are tuples, as several components have them."""

    def __init__(self, choose: Callable[[list[Size], Size], int | None]) -> None:
        self.choose = choose
        self.rooms: list[Size] = []

    def take(self, length: Size) -> int | None:
        place = self.choose(self.rooms, length)
        if place is not None:
            self.rooms[place] = _less(self.rooms[place], length)
        return place

    def open(self, room: Size) -> None:
        self.rooms.append(room)

    def close(self, place: int) -> None:
        self.rooms[place] = (-1,) * len(self.rooms[place])

    def clear(self) -> None:
        self.rooms = []


def _first(rooms: list[Size], length: Size) -> int | None:
    return next(compress(count(), map(_fit, rooms, repeat(length))), None)


def _tightest(rooms: list[Size], length: Size) -> int | None:
    room = min(compress(rooms, map(_fit, rooms, repeat(length))), key=sum, default=None)
    return None if room is None else rooms.index(room)


def _fits_into(capacity: Size) -> Callable[[Size, Size], bool]:
    return _fit if isinstance(capacity, tuple) else operator.ge


def _fit(room: tuple[int, ...], length: tuple[int, ...]) -> bool:
    return all(map(operator.ge, room, length))


def _less(room: tuple[int, ...], length: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(operator.sub, room, length))
