"""The packer that plans for all ranks: their rows are equally full, and cost nearly the same in every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice, repeat
from typing import NamedTuple
from zlib import crc32

import numpy as np

from flowfn import rules
from flowfn.vocabulary.balancing.costs import Cost, as_integers, costs_of
from flowfn.vocabulary.balancing.filling import Filled, Rows, fill, fill_all
from flowfn.vocabulary.balancing.steps import steps_of
from flowfn.vocabulary.packing.packers import PackedRow, Size, packer

SEQUENCES = 1024
"""How many sequences there are for each rank in a window that nobody chose."""


@packer
@rules.checked(
    ranks=rules.positive,
    rows=rules.positive,
    cost=rules.optional(rules.function),
    window=rules.optional(rules.positive),
)
def balanced_fit(
    lengths: Iterable[Size],
    capacity: Size,
    *,
    ranks: int = 1,
    rows: int = 1,
    cost: Cost | None = None,
    window: int | None = None,
) -> Iterator[PackedRow]:
    """Pack `window` sequences at a time, so that in every step all ranks have `rows` full rows of nearly equal cost.

    A step is `ranks * rows` rows; those of rank r are at r, r + ranks, r + 2 * ranks, ... of it, so that `pack`,
    `shard(r, ranks)`, `batch(rows)` give each rank its step. `cost` is a function of an array of lengths (int64; of
    shape (n, k) where `capacity` is k lengths) that gives what each sequence costs, such as
    `lambda n: n + n * n / 4096`; by default its length. Rows of about one cost are in one step, the steps of a window
    in any order. The first sequences of a window that make whole steps are packed, the others begin the next. In the
    end all ranks have equally many rows, perhaps with room left; but where fewer sequences than ranks are left, each is
    a row.

    By default a window is of 1024 sequences for each rank, and at least 4096. It is larger where that makes no step.

    Raises:
        ValueError: a sequence is longer than a row, or `cost` gives no cost for each.
        TypeError: `cost` cannot be called with an array.

    >>> rows = list(balanced_fit([3, 5, 2, 4, 1, 3], 6, ranks=3))
    >>> sorted(sum(stop - start for _, start, stop in row) for row in rows)
    [6, 6, 6]
    """
    least = window or max(4096, SEQUENCES * ranks)
    nothing = (0,) * len(capacity) if isinstance(capacity, tuple) else 0
    source, size = zip(count(), repeat(nothing), lengths), least
    held: list[tuple[int, Size, Size]] = []
    while True:
        held += islice(source, max(size - len(held), 0))
        if not held:
            return
        seen = [length for _, _, length in held[:size]]
        plan = _planned(seen, capacity, ranks, rows, cost, ended=len(seen) < size)
        for row in plan.rows:
            yield [held[item] for item in row]
        held, size = held[plan.taken :], least if plan.taken else 2 * size


class _Plan(NamedTuple):
    """How many of the first sequences are packed, and into which rows."""

    taken: int
    rows: list[list[int]]


def _planned(lengths: list[Size], capacity: Size, ranks: int, rows: int, cost: Cost | None, ended: bool) -> _Plan:
    """The rows of whole steps, as many as there are; in the end of one that may be smaller; or none yet."""
    sizes = np.array(lengths, np.int64).reshape(len(lengths), -1)
    limit = np.array(capacity, np.int64).reshape(-1)
    if np.any(sizes > limit):
        longest = lengths[int(np.argmax(np.any(sizes > limit, 1)))]
        raise ValueError(
            f"balanced_fit(): a sequence of length {longest} does not fit into a row of {capacity}; concat_then_split "
            "cuts sequences, map and filter shorten them or leave them out"
        )
    told = sizes if isinstance(capacity, tuple) else sizes[:, 0]
    costs = as_integers(costs_of("balanced_fit", cost, told))
    steps = int((sizes.sum(0) // (limit * ranks * rows)).max())
    if not steps and not ended:
        return _Plan(0, [])
    filled = fill(sizes, costs, Rows(steps * ranks, rows, limit)) if steps else _last_step(sizes, costs, limit, ranks)
    key = crc32(sizes.astype("<i8").tobytes())
    return _Plan(filled.taken, _in_steps(filled, costs[: filled.taken], ranks, rows if steps else None, key))


def _last_step(sizes: np.ndarray, costs: np.ndarray, limit: np.ndarray, ranks: int) -> Filled:
    """All sequences in as few rows as there can be, equally many for all ranks; or else each in a row of its own."""
    n, needed = len(sizes), int((-(-sizes.sum(0) // limit)).max())
    for each in range(max(-(-needed // ranks), 1), n // ranks + 1):
        filled = fill_all(sizes, costs, Rows(ranks, each, limit))
        if filled is not None:
            return filled
    alone = n // ranks * ranks or n
    return Filled(alone, np.arange(alone))


def _in_steps(filled: Filled, costs: np.ndarray, ranks: int, rows: int | None, key: int) -> list[list[int]]:
    """The sequences in each row, in the order in which the rows are given."""
    made = int(filled.row.max()) + 1
    order = np.argsort(filled.row, kind="stable")
    starts = np.searchsorted(filled.row[order], np.arange(made))
    held = np.split(order, starts[1:])
    ranks = min(ranks, made)
    shares = np.arange(made).reshape(-1, rows or made // ranks)
    loads = np.add.reduceat(costs[order], starts)[shares].sum(1)
    given = shares[steps_of(loads, ranks, key)].transpose(0, 2, 1)
    return [held[row].tolist() for row in given.ravel().tolist()]
