"""Costs divided into parts as equal as possible: by longest-first, by differencing, whichever is better.

Longest-first (Graham, "Bounds on multiprocessing timing anomalies", 1969) gives the largest that is left to the part
that has least. Differencing (Karmarkar and Karp, "The differencing method of set partitioning", 1982) merges the two
partial partitions that are most uneven, the fullest part of one with the emptiest of the other; with equally many items
in every part (Tsai, "The modified differencing method for the set partitioning problem with cardinality constraints",
1995) it begins with rows of `parts` neighbours in the order of cost. There a few swaps between the dearest part and the
cheapest follow.

Costs are integers >= 0, so that sums are exact, and ties go to what comes first: the same everywhere.
"""

from __future__ import annotations

import heapq

import numpy as np

from flowfn import rules

SWAPS = 64
"""How many swaps are made at most."""

EVEN = 10_000
"""Parts that differ by less than one in so many are even."""

_COSTS = rules.Rule(
    "an array of problems in rows, each as many integers >= 0 as a multiple of parts",
    lambda value: isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "iu",
    lambda value, others: value.shape[1] % others["parts"] == 0 and value.min(initial=0) >= 0,
)
_SOME_COSTS = rules.Rule(
    "an array of integers >= 0, at least as many as there are parts",
    lambda value: isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu",
    lambda value, others: len(value) >= others["parts"] and value.min(initial=0) >= 0,
)


@rules.checked(parts=rules.positive, costs=_COSTS)
def equal_counts(costs: np.ndarray, parts: int) -> np.ndarray:
    """Divide each row of costs, (problems, n) int64, into parts of n / parts items with sums as equal as possible.

    Gives (problems, parts, n / parts) int64: which items are in which part, ascending. All problems are solved at once.

    >>> equal_counts(np.array([[9, 7, 5, 1]]), 2).tolist()
    [[[0, 3], [1, 2]]]
    """
    problems, n = costs.shape
    order = np.argsort(-costs, axis=1, kind="stable")
    found = [_longest_first(costs, order, parts)]
    if n > parts:
        found.append(np.empty_like(order))
        rows = order.reshape(problems, n // parts, parts)
        merged = _differencing(np.take_along_axis(costs, order, 1).reshape(rows.shape))
        np.put_along_axis(found[1], order, merged.reshape(order.shape), 1)
    members = np.array([np.argsort(part, axis=1, kind="stable").reshape(problems, parts, n // parts) for part in found])
    most = np.array([np.take_along_axis(costs[:, None], some, 2).sum(2).max(1, initial=0) for some in members])
    best = members[most.argmin(0), np.arange(problems)]
    for row, parted in zip(costs, best):
        _swap(row, parted)
    return np.sort(best, axis=2)


def _longest_first(costs: np.ndarray, order: np.ndarray, parts: int) -> np.ndarray:
    """The part of each item: the largest that is left goes to the part that has least, of those that are not full."""
    most, part = costs.shape[1] // parts, np.empty_like(costs)
    for row, numbers, items in zip(part, costs.tolist(), order.tolist()):
        heap, counts = [(0, number) for number in range(parts)], [0] * parts
        for item in items:
            load, number = heap[0]
            row[item] = number
            counts[number] += 1
            if counts[number] < most:
                heapq.heapreplace(heap, (load + numbers[item], number))
            else:
                heapq.heappop(heap)
    return part


def _differencing(rows: np.ndarray) -> np.ndarray:
    """The part of each item: rows are merged, the two most uneven first, and then taken apart again."""
    problems, m, parts = rows.shape
    every, vectors = np.arange(problems), rows.copy()
    spreads = vectors[:, :, 0] - vectors[:, :, -1]
    merges = []
    for _ in range(m - 1):
        one = spreads.argmax(1)
        spreads[every, one] = -1
        other = spreads.argmax(1)
        low = np.argsort(vectors[every, one], axis=1, kind="stable")
        high = np.argsort(-vectors[every, other], axis=1, kind="stable")
        merged = np.take_along_axis(vectors[every, one], low, 1) + np.take_along_axis(vectors[every, other], high, 1)
        vectors[every, one] = merged
        spreads[every, one], spreads[every, other] = merged.max(1) - merged.min(1), -1
        merges.append((one, other, low, high))
    part = np.empty(rows.shape, np.int64)
    part[every, merges[-1][0]] = np.arange(parts)
    for one, other, low, high in reversed(merges):
        merged = part[every, one]
        for row, places in ((one, low), (other, high)):
            before = np.empty_like(merged)
            np.put_along_axis(before, places, merged, 1)
            part[every, row] = before
    return part


def _swap(costs: np.ndarray, members: np.ndarray) -> None:
    """Swap one item of the dearest part for one of the cheapest, for as long as that helps much; in place."""
    sums = costs[members].sum(1)
    for _ in range(SWAPS):
        most, least = sums.argmax(), sums.argmin()
        gap = sums[most] - sums[least]
        if gap <= sums.sum() // (len(sums) * EVEN):
            return
        moved = costs[members[most]][:, None] - costs[members[least]]
        short = np.abs(gap - 2 * moved)
        one, other = np.unravel_index(short.argmin(), short.shape)
        if short[one, other] >= gap:
            return
        members[most, one], members[least, other] = members[least, other], members[most, one]
        sums[most], sums[least] = sums[most] - moved[one, other], sums[least] + moved[one, other]


@rules.checked(parts=rules.positive, costs=_SOME_COSTS)
def any_counts(costs: np.ndarray, parts: int) -> list[np.ndarray]:
    """Divide costs, (n,) int64, into parts of any number of items (each at least one) with sums as equal as possible.

    Gives for each part which items are in it, ascending, int64; the parts come in the order of their first items.

    >>> [part.tolist() for part in any_counts(np.array([8, 7, 6, 5, 4]), 2)]
    [[0, 2], [1, 3, 4]]
    """
    numbers = costs.tolist()
    order = sorted(range(len(numbers)), key=lambda item: -numbers[item])
    found = [_dealt(numbers, order, parts), _merged(numbers, order, parts)]
    best = min(found, key=lambda dealt: (not all(dealt), max(sum(numbers[item] for item in part) for part in dealt)))
    return [np.array(part, np.int64) for part in sorted(map(sorted, best))]


def _dealt(costs: list[int], order: list[int], parts: int) -> list[list[int]]:
    """Longest-first; parts that have nothing come before those that have something of no cost."""
    dealt: list[list[int]] = [[] for _ in range(parts)]
    heap = [(0, 0, part) for part in range(parts)]
    for item in order:
        load, count, part = heap[0]
        dealt[part].append(item)
        heapq.heapreplace(heap, (load + costs[item], count + 1, part))
    return dealt


def _merged(costs: list[int], order: list[int], parts: int) -> list[list[int]]:
    """Differencing: each partial partition is its parts, the fullest first."""
    heap = [
        (-costs[item], number, [(costs[item], [item])] + [(0, [])] * (parts - 1)) for number, item in enumerate(order)
    ]
    for number in range(len(order), 2 * len(order) - 1):
        one, other = heapq.heappop(heap)[2], heapq.heappop(heap)[2]
        merged = [(a + b, [*some, *more]) for (a, some), (b, more) in zip(one, reversed(other))]
        merged.sort(key=lambda part: -part[0])
        heapq.heappush(heap, (merged[-1][0] - merged[0][0], number, merged))
    return [items for _, items in heap[0][2]]
