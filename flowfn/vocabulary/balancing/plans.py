"""Plans: which of the first datapoints make whole steps, and what each rank does in each.

In a step all ranks have equally many batches. What the first datapoints of a window make is planned, the others begin
the next window; in the end there may be a smaller step, and where fewer datapoints than ranks are left, one for each of
as many ranks.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from flowfn.vocabulary.balancing.filling import RowsToFill, fill_end, fill_some, in_rows
from flowfn.vocabulary.balancing.partitions import any_counts, equal_counts
from flowfn.vocabulary.balancing.steps import steps_of

Batches: TypeAlias = "list[np.ndarray]"
"""What one rank does in one step: batches, each the numbers of its datapoints, ascending."""


class StepPlan(NamedTuple):
    """How many of the first datapoints are planned, and for each step what each rank does."""

    taken: int
    steps: list[list[Batches]]


class StepShape(NamedTuple):
    """What a step is: so many ranks, each of which has so many batches of at most so much."""

    ranks: int
    each: int
    capacity: np.ndarray

    @property
    def total(self) -> int:
        """How many batches a step has."""
        return self.ranks * self.each


def filled(sizes: np.ndarray, costs: np.ndarray, shape: StepShape, key: int, ended: bool) -> StepPlan | None:
    """Batches that hold no more than `capacity` by the sum of their sizes, (n, k) int64; None if they make no step.

    `costs` are (n,) int64. If it has `ended`, there is no more, and a plan in any case.
    """
    steps = int((sizes.sum(0) // (shape.capacity * shape.total)).max())
    if steps:
        rows = RowsToFill(steps * shape.ranks, shape.each, shape.capacity)
        placed = fill_some(sizes, costs, rows)
    elif ended:
        placed, rows = fill_end(sizes, costs, *shape)
    else:
        return None
    batches = in_rows(placed, rows)
    loads = np.array([costs[items].sum() for items in batches])
    shares = np.arange(rows.total).reshape(rows.shares, rows.each)
    return StepPlan(placed.taken, _steps_of_shares(batches, loads, shares, shape.ranks, key))


def padded(lengths: np.ndarray, costs: np.ndarray, shape: StepShape, key: int, ended: bool) -> StepPlan | None:
    """Batches of neighbours in length, no more than `capacity` as their number times the longest; None for no step.

    A batch costs as much as if all of its datapoints cost what its dearest does.
    """
    n, most, order = len(lengths), int(shape.capacity[0]), np.argsort(-lengths, kind="stable")
    made = len(_cuts(lengths[order], most))
    each, count = shape.each, made // shape.total * shape.total
    if count:
        taken = _longest_beginning(lengths, order, most, count)
    elif ended:
        each = max(min(-(-made // shape.ranks), n // shape.ranks), 1)
        taken = n if made <= each * shape.ranks else each * shape.ranks
        count = min(each * shape.ranks, taken)
    else:
        return None
    order = order[order < taken]
    cuts = _cut_finer(_cuts(lengths[order], most), taken, count)
    batches = [np.sort(batch) for batch in np.split(order, cuts[1:])]
    loads = np.array([len(batch) * costs[batch].max() for batch in batches])
    return StepPlan(
        taken, _steps_of_shares(batches, loads, equal_counts(loads[None], count // each)[0], shape.ranks, key)
    )


def dealt_shares(costs: np.ndarray, ranks: int, key: int) -> np.ndarray:
    """Equally many of all datapoints for each rank, (ranks, n / ranks), in one step; of fewer than that, one each."""
    ranks = min(ranks, len(costs))
    shares = equal_counts(costs[None], ranks)[0]
    dealt: np.ndarray = shares[steps_of(costs[shares].sum(1), ranks, key)[0]]
    return dealt


def summed_microbatches(lengths: np.ndarray, shares: np.ndarray, most: int) -> list[Batches]:
    """The datapoints of each share in microbatches of no more than `most` by their sum, for all shares equally many."""
    count = max(int(-(-lengths[shares].sum(1).max() // most)), 1)
    while True:
        parts = [any_counts(lengths[share], count) for share in shares]
        if all(lengths[share[part]].sum() <= most for share, some in zip(shares, parts) for part in some):
            return [[share[part] for part in some] for share, some in zip(shares, parts)]
        count += 1


def padded_microbatches(lengths: np.ndarray, shares: np.ndarray, most: int) -> list[Batches]:
    """The same, no more than `most` by their number times the longest: neighbours in length go together."""
    shares = np.take_along_axis(shares, np.argsort(-lengths[shares], axis=1, kind="stable"), 1)
    cuts = [_cuts(lengths[share], most) for share in shares]
    count = max(map(len, cuts))
    return [
        [np.sort(batch) for batch in np.split(share, _cut_finer(some, len(share), count)[1:])]
        for share, some in zip(shares, cuts)
    ]


def _steps_of_shares(
    batches: Batches, loads: np.ndarray, shares: np.ndarray, ranks: int, key: int
) -> list[list[Batches]]:
    """The steps, of shares that cost as much as their batches together."""
    steps = steps_of(loads[shares].sum(1), min(ranks, len(shares)), key)
    return [[[batches[batch] for batch in share] for share in step] for step in shares[steps].tolist()]


def _cuts(lengths: np.ndarray, most: int) -> list[int]:
    """Where batches begin among datapoints that are sorted, the longest first."""
    cuts, start = list[int](), 0
    while start < len(lengths):
        cuts.append(start)
        start += most // max(lengths.item(start), 1)
    return cuts


def _cut_finer(cuts: list[int], n: int, count: int) -> list[int]:
    """So many batches: those of most datapoints are halved."""
    cuts = [*cuts, n]
    while len(cuts) <= count:
        counts = np.diff(cuts)
        largest = int(counts.argmax())
        cuts.insert(largest + 1, cuts[largest] + int(counts[largest]) // 2)
    return cuts[:-1]


def _longest_beginning(lengths: np.ndarray, order: np.ndarray, most: int, count: int) -> int:
    """How many of the first datapoints fit into so many batches."""
    low, high = count, len(lengths)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_cuts(lengths[order[order < middle]], most)) <= count:
            low = middle
        else:
            high = middle - 1
    return low
