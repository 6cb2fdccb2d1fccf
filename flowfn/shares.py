"""Which of several sources comes next, so that each has its share: at every moment, and for any index without the others.

Weights that are small whole numbers repeat themselves after their sum, and one period is laid out in a table in which no
source is ever a whole datapoint away from its share (Tijdeman, "The chairman assignment problem", 1980). For others the
sources are split in two, and the parts in two again, along a tree that is as even as the weights allow: at each fork the
first k outputs are divided by rounding k times the share. Two sources are then within half a datapoint, any number within
two.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from flowfn.randomness import Permutation, hashed

Tree: TypeAlias = "int | tuple[Tree, Tree, int, int]"
"""A source, or a fork: what is on its left, what is on its right, and the weights of the two."""

BLOCK = 4096
"""So many outputs have their shares exactly where the order is random, and are shuffled among themselves."""

LONGEST = 10_000
"""The longest period that is laid out in a table."""

LARGEST = 1 << 31
"""Weights add up to at most this, so that nothing overflows."""

FINEST = 10**9
"""Weights that no whole numbers of that size can stand for are shares of this, rounded."""


def whole(weights: Sequence[float]) -> list[int]:
    """Weights as the smallest integers in the same proportion (decimal fractions as they are written).

    >>> whole([0.7, 0.2, 0.1]), whole([3.14159265358979, 1])
    ([7, 2, 1], [758546993, 241453007])
    """
    exact = [Fraction(repr(float(weight))) if isinstance(weight, float) else Fraction(int(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    integers = [int(weight * scale) for weight in exact]
    if sum(integers) // math.gcd(*integers) > LARGEST:
        total = sum(exact)
        integers = [max(round(weight / total * FINEST), 1) for weight in exact]
    shared = math.gcd(*integers)
    return [weight // shared for weight in integers]


class Quotas:
    """The order of sources with integer weights.

    >>> Quotas([3, 1]).take(np.arange(8))[0].tolist()
    [0, 0, 1, 0, 0, 0, 1, 0]
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = whole(weights)
        self.period = _period(tuple(self.weights)) if sum(self.weights) <= LONGEST else None
        self.tree = _tree(list(enumerate(self.weights)))

    def counts(self, k: int) -> list[int]:
        """How many of the first k outputs are of each source."""
        if self.period is not None:
            rounds, rest = divmod(k, len(self.period[0]))
            begun = np.bincount(self.period[0][:rest], minlength=len(self.weights)).tolist()
            return [rounds * weight + count for weight, count in zip(self.weights, begun)]
        counts = [0] * len(self.weights)
        todo = [(self.tree, k)]
        while todo:
            tree, k = todo.pop()
            if isinstance(tree, int):
                counts[tree] = k
            else:
                left, right, a, b = tree
                on_left = _left(k, a, a + b)
                todo += [(left, on_left), (right, k - on_left)]
        return counts

    def take(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each output, and how many outputs of that source come before it."""
        if self.period is not None:
            rounds, rest = np.divmod(outputs, len(self.period[0]))
            found = self.period[0][rest]
            return found, rounds * np.array(self.weights)[found] + self.period[1][rest]
        sources, before = np.empty_like(outputs), np.empty_like(outputs)
        todo = [(self.tree, outputs, np.arange(len(outputs)))]
        while todo:
            tree, k, at = todo.pop()
            if isinstance(tree, int):
                sources[at], before[at] = tree, k
            else:
                left, right, a, b = tree
                on_left = _left(k, a, a + b)
                goes = _left(k + 1, a, a + b) > on_left
                todo += [(left, on_left[goes], at[goes]), (right, (k - on_left)[~goes], at[~goes])]
        return sources, before


class Picks:
    """The order of the sources of a mix from where the last of them ended: by quotas, and shuffled block by block if keyed."""

    def __init__(self, active: Sequence[int], weights: Sequence[int], key: int | None, block: int = BLOCK) -> None:
        self.active, self.weights, self.key, self.size = np.array(active, np.int64), weights, key, block
        self.quotas = Quotas([weights[source] for source in active])
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def take(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each output, and how many outputs of that source come before it."""
        if self.key is None:
            sources, before = self.quotas.take(outputs)
            return self.active[sources], before
        sources, before = np.empty_like(outputs), np.empty_like(outputs)
        numbers = outputs // self.size
        for number in np.unique(numbers).tolist():
            here = numbers == number
            within = outputs[here] - number * self.size
            known = self._block(number)
            sources[here], before[here] = self.active[known[0][within]], known[1][within]
        return sources, before

    def each(self, start: int) -> Iterator[int]:
        """The sources of the outputs from `start` on."""
        while True:
            yield from self.take(np.arange(start, start + 256))[0].tolist()
            start += 256

    def counts(self, k: int) -> dict[int, int]:
        """How many of the first k outputs are of each source."""
        first = k // self.size * self.size
        counts = np.array(self.quotas.counts(first if self.key is not None else k))
        if self.key is not None and k > first:
            counts += np.bincount(self._block(k // self.size)[0][: k - first], minlength=len(counts))
        return dict(zip(self.active.tolist(), counts.tolist()))

    def output(self, source: int, number: float) -> float:
        """Which output is number `number` of a source."""
        if number == math.inf:
            return math.inf
        place = self.active.tolist().index(source)
        low, high = 0, 1
        while self.quotas.counts(high * self.size)[place] <= number:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self.quotas.counts(middle * self.size)[place] <= number:
                low = middle
            else:
                high = middle
        sources, before = self._block(low)
        return low * self.size + int(np.flatnonzero((sources == place) & (before == number))[0])

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The places (in `active`) of the sources of a block, and how many of each come before."""
        if number not in self._known:
            first = number * self.size
            sources, before = self.quotas.take(np.arange(first, first + self.size))
            if self.key is not None:
                sources = sources[Permutation(self.size, hashed(self.key, number))[:]]
                for place, count in enumerate(self.quotas.counts(first)):
                    here = sources == place
                    before[here] = count + np.arange(np.count_nonzero(here))
            while len(self._known) >= 4:
                self._known.pop(next(iter(self._known)))
            self._known[number] = sources, before
        return self._known[number]


@lru_cache(maxsize=32)
def _period(weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One period: the source of each output, and how many of that source come before it.

    At each output, of the sources that are far enough behind their shares the one whose time runs out first.
    """
    total, slack = sum(weights), max(2 * len(weights) - 2, 1)
    given = [0] * len(weights)
    sources, before = np.empty(total, np.int64), np.empty(total, np.int64)
    waiting = [
        (-(-total // (slack * weight)), place) for place, weight in enumerate(weights)
    ]  # (the output it is far enough behind at, source)
    due: list[tuple[float, int]] = []  # (when its time runs out, source)
    heapq.heapify(waiting)
    for k in range(1, total + 1):
        while waiting and (waiting[0][0] <= k or len(weights) == 1):
            place = heapq.heappop(waiting)[1]
            heapq.heappush(due, ((slack * given[place] + slack - 1) / weights[place], place))
        place = heapq.heappop(due)[1]
        sources[k - 1], before[k - 1] = place, given[place]
        given[place] += 1
        heapq.heappush(waiting, (-(-total * (1 + slack * given[place]) // (slack * weights[place])), place))
    return sources, before


def _left(k: Any, a: int, total: int) -> Any:
    """k * a / total, rounded; exact where the product would overflow."""
    times, rest = k // total, k % total
    return times * a + (2 * rest * a + total) // (2 * total)


def _tree(weights: list[tuple[int, int]]) -> Tree:
    if len(weights) == 1:
        return weights[0][0]
    halves: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    sums = [0, 0]
    for source, weight in sorted(weights, key=lambda pair: -pair[1]):
        lighter = 0 if sums[0] <= sums[1] else 1
        halves[lighter].append((source, weight))
        sums[lighter] += weight
    first = 0 if sums[0] >= sums[1] else 1
    return _tree(halves[first]), _tree(halves[1 - first]), sums[first], sums[1 - first]
