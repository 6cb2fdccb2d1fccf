"""The packer that plans for all ranks: their rows are equally full, and cost nearly the same in every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice, repeat
from zlib import crc32

import numpy as np

from flowfn import rules
from flowfn.vocabulary.balancing.costs import Cost, as_integers, costs_of
from flowfn.vocabulary.balancing.plans import StepPlan, StepShape, filled
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
    window = window or max(4096, SEQUENCES * ranks)
    nothing = (0,) * len(capacity) if isinstance(capacity, tuple) else 0
    source, size = zip(count(), repeat(nothing), lengths), window
    held: list[tuple[int, Size, Size]] = []
    while True:
        held += islice(source, max(size - len(held), 0))
        if not held:
            return
        seen = [length for _, _, length in held[:size]]
        plan = _planned(seen, capacity, ranks, rows, cost, ended=len(seen) < size)
        if plan is None:
            size *= 2
            continue
        for step in plan.steps:
            for rows_of_ranks in zip(*step):
                for row in rows_of_ranks:
                    yield [held[item] for item in row.tolist()]
        held, size = held[plan.taken :], window


def _planned(
    lengths: list[Size], capacity: Size, ranks: int, rows: int, cost: Cost | None, ended: bool
) -> StepPlan | None:
    """The rows of whole steps, as many as there are; in the end of one that may be smaller; or none yet."""
    sizes = np.array(lengths, np.int64).reshape(len(lengths), -1)
    limit = np.array(capacity, np.int64).reshape(-1)
    if np.any(sizes > limit):
        longest = lengths[int(np.argmax(np.any(sizes > limit, 1)))]
        raise ValueError(
            f"balanced_fit(): a sequence of length {longest} does not fit into a row of {capacity}; concat_then_split "
            "cuts sequences, flat_map(split_long(...)) splits them before, filter leaves them out"
        )
    told = sizes if isinstance(capacity, tuple) else sizes[:, 0]
    costs = as_integers(costs_of("balanced_fit", cost, told))
    return filled(sizes, costs, StepShape(ranks, rows, limit), crc32(sizes.astype("<i8").tobytes()), ended)
