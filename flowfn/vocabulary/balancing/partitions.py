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
    if n == parts:
        return np.tile(np.arange(n)[:, None], (problems, 1, 1))
    order = np.argsort(-costs, axis=1, kind="stable")
    made = _swapped(costs, _longest_first(costs, order, parts), parts)
    uneven = np.flatnonzero([not _is_even(costs[one][made[one]].sum(1)) for one in range(problems)])
    if len(uneven):
        some, order = costs[uneven], order[uneven]
        part = np.empty_like(order)
        merged = _differencing(np.take_along_axis(some, order, 1).reshape(len(uneven), n // parts, parts))
        np.put_along_axis(part, order, merged.reshape(order.shape), 1)
        for one, other in zip(uneven, _swapped(some, part, parts)):
            if costs[one][other].sum(1).max() < costs[one][made[one]].sum(1).max():
                made[one] = other
    return np.sort(made, axis=2)


def _swapped(costs: np.ndarray, part: np.ndarray, parts: int) -> np.ndarray:
    """Which items are in which part, after a few swaps."""
    members = np.argsort(part, axis=1, kind="stable").reshape(len(costs), parts, -1)
    for row, some in zip(costs, members):
        _swap(row, some)
    return members


def _is_even(sums: np.ndarray) -> bool:
    return bool(sums.max() - sums.min() <= sums.sum() // (len(sums) * EVEN))


def _longest_first(costs: np.ndarray, order: np.ndarray, parts: int) -> np.ndarray:
    """The part of each item: the largest that is left goes to the part that has least, of those that are not full."""
    most, part = costs.shape[1] // parts, np.empty_like(costs)
    for row, numbers, items in zip(part, np.take_along_axis(costs, order, 1).tolist(), order):
        heap, counts, found = [(0, number) for number in range(parts)], [0] * parts, list[int]()
        for cost in numbers:
            load, number = heap[0]
            found.append(number)
            counts[number] += 1
            if counts[number] < most:
                heapq.heapreplace(heap, (load + cost, number))
            else:
                heapq.heappop(heap)
        row[items] = found
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
        if _is_even(sums):
            return
        gap = sums[most] - sums[least]
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
    if parts == 1:
        return [np.arange(len(costs))]
    numbers = costs.tolist()
    order = sorted(range(len(numbers)), key=lambda item: -numbers[item])
    found = [_dealt(numbers, order, parts), _differenced(numbers, order, parts)]
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


def _differenced(costs: list[int], order: list[int], parts: int) -> list[list[int]]:
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
