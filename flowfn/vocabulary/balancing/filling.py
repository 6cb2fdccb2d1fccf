"""Sequences in rows of one capacity: as many of the first ones as fill a number of rows, in shares of about equal cost.

Longest-first with a limit: the dearest sequences begin a row each, and round by round those that are left are offered,
the dearest to the share that has least to do, and taken where there is room. So rows end nearly full, and shares nearly
alike. Where sequences are so long that this leaves much room, each is put where it leaves the least instead (best-fit
decreasing), and shares are made of rows afterwards.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from operator import ge, sub
from typing import NamedTuple

import numpy as np

from flowfn.vocabulary.balancing.partitions import equal_counts

CLOSE = 0.004
"""How much shorter than the longest the beginning may be that is packed, as a share."""

LOOSE = 0.01
"""How much room may be left in full rows before another way is tried."""


class Filled(NamedTuple):
    """How many of the first sequences are packed, and the row of each; rows s * each to s * each + each - 1 are of
    share s."""

    taken: int
    row: np.ndarray


class RowsToFill(NamedTuple):
    """What there is to fill: so many shares of `each` rows, (k,) int64 wide."""

    shares: int
    each: int
    capacity: np.ndarray

    @property
    def total(self) -> int:
        """How many rows there are."""
        return self.shares * self.each


def fill_some(sizes: np.ndarray, costs: np.ndarray, rows: RowsToFill) -> Filled:
    """Put about as many of the first sequences as there is room for into rows, none of which stays empty.

    `sizes` is (n, k) int64, one or several lengths of each sequence, all of which have to fit; `costs` (n,) int64.
    There are at least as many sequences as rows, and each fits into a row.

    >>> rows = RowsToFill(2, 1, np.array([6]))
    >>> count, row = fill_some(np.array([[3], [3], [2], [4], [9]]), np.array([3, 3, 2, 4, 9]), rows)
    >>> count, row.tolist()
    (4, [1, 1, 0, 0])
    """
    best, most = Filled(rows.total, np.arange(rows.total)), _room_for(sizes, rows.total * rows.capacity)
    tried = most
    while tried > best.taken:
        row, misfits = _by_cost(sizes[:tried], costs[:tried], rows)
        best, most = (best, tried) if len(misfits) else (Filled(tried, row), most)
        if np.all(sizes[best.taken : most].sum(0) <= CLOSE * rows.total * rows.capacity):
            break
        tried = _between(sizes, best.taken, most, sizes[misfits].sum(0))
    if np.any(sizes[: best.taken].sum(0) >= (1 - LOOSE) * rows.total * rows.capacity):
        return best
    return _tighter(best, sizes, costs, rows)


def fill_all(sizes: np.ndarray, costs: np.ndarray, rows: RowsToFill) -> Filled | None:
    """Put all sequences into rows, none of which stays empty, if there is a way that is found; else None."""
    if _room_for(sizes, rows.total * rows.capacity) < len(sizes):
        return None
    row, misfits = _by_cost(sizes, costs, rows)
    return Filled(len(sizes), row) if not len(misfits) else _by_room(sizes, costs, rows)


def fill_end(
    sizes: np.ndarray, costs: np.ndarray, ranks: int, each: int, capacity: np.ndarray
) -> tuple[Filled, RowsToFill]:
    """Put what is left in the end into one step: a share for each of `ranks`, of equally many rows, at most `each`.

    Where there are more sequences than that holds it is as many of the first as there is room for; where there are so
    few that a rank would have none of something, each is a row of its own.
    """
    n, needed = len(sizes), int((-(-sizes.sum(0) // capacity)).max())
    for some in range(max(-(-needed // ranks), 1), min(each, n // ranks) + 1):
        rows = RowsToFill(ranks, some, capacity)
        filled = fill_all(sizes, costs, rows)
        if filled is not None:
            return filled, rows
    if n >= ranks * each:
        rows = RowsToFill(ranks, each, capacity)
        return fill_some(sizes, costs, rows), rows
    rows = RowsToFill(min(ranks, n), max(n // ranks, 1), capacity)
    return Filled(rows.total, np.arange(rows.total)), rows


def in_rows(filled: Filled, rows: RowsToFill) -> list[np.ndarray]:
    """The sequences in each row, ascending."""
    order = np.argsort(filled.row, kind="stable")
    return np.split(order, np.searchsorted(filled.row[order], np.arange(1, rows.total)))


def _room_for(sizes: np.ndarray, room: np.ndarray) -> int:
    """How many of the first sequences have no more than so much together."""
    return int(np.all(np.cumsum(sizes, 0) <= room, 1).sum())


def _between(sizes: np.ndarray, fits: int, most: int, misfit: np.ndarray) -> int:
    """Between a number that fits and one that does not: without as much as found no place, or else in the middle."""
    guess = _room_for(sizes, sizes[:most].sum(0) - misfit) if np.any(misfit) else fits
    return guess if fits < guess < most else (fits + most) // 2


def _by_cost(sizes: np.ndarray, costs: np.ndarray, rows: RowsToFill) -> tuple[np.ndarray, np.ndarray]:
    """The row of each sequence, and those that found no place."""
    order = np.argsort(-costs, kind="stable")
    first, left = order[: rows.total], order[rows.total :]
    seeds = first[equal_counts(costs[first][None], rows.shares)[0]]
    row = np.full(len(costs), -1, np.int64)
    row[seeds.ravel()] = np.arange(rows.total)
    rooms, loads = rows.capacity - sizes[seeds], costs[seeds].sum(1)
    while len(left):
        offered, shares = left[: rows.shares], np.argsort(loads, kind="stable")[: len(left)]
        widest = rooms[shares].sum(2).argmax(1)
        fits = np.all(rooms[shares, widest] >= sizes[offered], 1)
        if not fits.any():
            shares = np.argsort(-rooms.sum(2).max(1), kind="stable")[: len(left)]
            widest = rooms[shares].sum(2).argmax(1)
            fits = np.all(rooms[shares, widest] >= sizes[offered], 1)
            if not fits.any():
                break
        taken, shares, widest = offered[fits], shares[fits], widest[fits]
        row[taken] = shares * rows.each + widest
        rooms[shares, widest] -= sizes[taken]
        loads[shares] += costs[taken]
        left = np.concatenate([offered[~fits], left[rows.shares :]])
    return row, left


def _tighter(best: Filled, sizes: np.ndarray, costs: np.ndarray, rows: RowsToFill) -> Filled:
    """More sequences than `best`, if they can be had by best-fit decreasing."""
    most = tried = _room_for(sizes, rows.total * rows.capacity)
    while tried > best.taken:
        filled = _by_room(sizes[:tried], costs[:tried], rows)
        best, most = (best, tried) if filled is None else (filled, most)
        tried = (best.taken + most) // 2 if most - best.taken > 1 + CLOSE * most else 0
    return best


def _by_room(sizes: np.ndarray, costs: np.ndarray, rows: RowsToFill) -> Filled | None:
    """All sequences, each in the row in which it leaves the least room; the largest ones begin a row each."""
    order = np.argsort(-(sizes / rows.capacity).sum(1), kind="stable")
    first, rest = order[: rows.total], order[rows.total :]
    places = (_best_fits if sizes.shape[1] == 1 else _best_fits_of_many)(sizes[first], sizes[rest], rows.capacity)
    if len(places) < len(rest):
        return None
    row = np.empty(len(sizes), np.int64)
    row[first], row[rest] = np.arange(rows.total), places
    loads = np.zeros(rows.total, np.int64)
    np.add.at(loads, row, costs)
    shares = equal_counts(loads[None], rows.shares)[0] if rows.each > 1 else np.arange(rows.total)
    renamed = np.empty(rows.total, np.int64)
    renamed[shares.ravel()] = np.arange(rows.total)
    return Filled(len(sizes), renamed[row])


def _best_fits(first: np.ndarray, rest: np.ndarray, capacity: np.ndarray) -> list[int]:
    """The rows of the sequences, up to the first that finds none."""
    rooms = sorted((room, row) for row, (room,) in enumerate((capacity - first).tolist()))
    found: list[int] = []
    for (size,) in rest.tolist():
        place = bisect_left(rooms, (size, -1))
        if place == len(rooms):
            break
        room, row = rooms.pop(place)
        insort(rooms, (room - size, row))
        found.append(row)
    return found


def _best_fits_of_many(first: np.ndarray, rest: np.ndarray, capacity: np.ndarray) -> list[int]:
    """The same for sequences of several lengths: the sum of the room counts."""
    rooms = sorted((sum(room), row, room) for row, room in enumerate((capacity - first).tolist()))
    found: list[int] = []
    for size in rest.tolist():
        places = range(bisect_left(rooms, (sum(size), -1)), len(rooms))
        place = next((place for place in places if all(map(ge, rooms[place][2], size))), None)
        if place is None:
            break
        _, row, room = rooms.pop(place)
        left = list(map(sub, room, size))
        insort(rooms, (sum(left), row, left))
        found.append(row)
    return found
