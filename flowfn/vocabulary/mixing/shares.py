"""Which of several sources comes next, so that each has its share: at every moment,
and for any index without the others.

Weights that are small whole numbers repeat themselves after their sum, and one period is laid out in a table in which
no source is ever a whole datapoint away from its share (Tijdeman, "The chairman assignment problem", 1980). For others
the sources are split in two, and the parts in two again, along a tree that is as even as the weights allow: at each
fork the first k outputs are divided by rounding k times the share. Two sources are then within half a datapoint, any
number within two.

Where a source has ended, the others share what it leaves from where they stand: who is behind comes first, until all
are where they would be had it never been there.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import chain, cycle, islice
from itertools import count as counting
from typing import Any, TypeAlias

import numpy as np

from flowfn.randomness.generators import Permutation, hashed

ShareTree: TypeAlias = "int | tuple[ShareTree, ShareTree, int, int, int, int]"
"""A source, or a fork: what is on its left and on its right, the weights of the two, and what each had given before."""

STEPS_AT_ONCE = 4096
"""So many outputs have their shares exactly where the order is random, and are shuffled among themselves."""

LONGEST = 10_000
"""The longest period that is laid out in a table."""

LARGEST = 1 << 31
"""Weights add up to at most this, so that nothing overflows."""

FINEST = 10**9
"""Weights that no whole numbers of that size can stand for are shares of this, rounded."""


def integer_weights(weights: Sequence[float]) -> list[int]:
    """Weights as the smallest integers in the same proportion (decimal fractions as they are written).

    >>> integer_weights([0.7, 0.2, 0.1]), integer_weights([3.14159265358979, 1])
    ([7, 2, 1], [758546993, 241453007])
    """
    exact = [
        Fraction(repr(float(weight))) if isinstance(weight, float) else Fraction(int(weight)) for weight in weights
    ]
    scale = math.lcm(*(weight.denominator for weight in exact))
    integers = [int(weight * scale) for weight in exact]
    if sum(integers) // math.gcd(*integers) > LARGEST:
        total = sum(exact)
        integers = [max(round(weight / total * FINEST), 1) for weight in exact]
    shared = math.gcd(*integers)
    return [weight // shared for weight in integers]


class Quotas:
    """The order of sources with integer weights, which go on from `start_counts`, what they have given before.

    >>> Quotas([3, 1]).take(np.arange(8))[0].tolist(), Quotas([3, 1], [0, 1]).take(np.arange(8))[0].tolist()
    ([0, 0, 1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1, 0, 0])
    """

    def __init__(self, weights: Sequence[int], start_counts: Sequence[int] = ()) -> None:
        self.weights, self.start_counts = (
            integer_weights(weights),
            np.array(start_counts or [0] * len(weights), np.int64),
        )
        self.total = int(self.start_counts.sum())
        self.period = _period(tuple(self.weights)) if sum(self.weights) <= LONGEST else None
        if self.period is None:
            self.tree = _share_tree(list(zip(range(len(weights)), self.weights, self.start_counts.tolist())))
        else:
            self.catching_up = _catching_up(self.weights, self.start_counts.tolist(), self.period[0])

    def counts(self, k: int) -> list[int]:
        """How many of the first k outputs are of each source."""
        if self.period is not None:
            if k < len(self.catching_up[0]):
                return np.bincount(self.catching_up[0][:k], minlength=len(self.weights)).tolist()
            return [
                there - before
                for there, before in zip(
                    _periodic(self.weights, self.period[0], self.total + k), self.start_counts.tolist()
                )
            ]
        counts = [0] * len(self.weights)
        todo = [(self.tree, k)]
        while todo:
            tree, k = todo.pop()
            if isinstance(tree, int):
                counts[tree] = k
            else:
                on_left = _turns(tree, k)
                todo += [(tree[0], on_left), (tree[1], k - on_left)]
        return counts

    def take(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each output, and how many outputs of that source come before it."""
        if self.period is not None:
            rounds, rest = np.divmod(outputs + self.total, len(self.period[0]))
            sources = self.period[0][rest]
            before = rounds * np.array(self.weights)[sources] + self.period[1][rest] - self.start_counts[sources]
            early = outputs < len(self.catching_up[0])
            sources[early], before[early] = self.catching_up[0][outputs[early]], self.catching_up[1][outputs[early]]
            return sources, before
        sources, before = np.empty_like(outputs), np.empty_like(outputs)
        todo = [(self.tree, outputs, np.arange(len(outputs)))]
        while todo:
            tree, k, at = todo.pop()
            if isinstance(tree, int):
                sources[at], before[at] = tree, k
            else:
                on_left = _turns(tree, k)
                goes = _turns(tree, k + 1) > on_left
                todo += [(tree[0], on_left[goes], at[goes]), (tree[1], (k - on_left)[~goes], at[~goes])]
        return sources, before


class Picks:
    """The order of the sources of a mix from where the last of them ended: by quotas,
    and shuffled block by block if keyed."""

    def __init__(
        self,
        active: Sequence[int],
        weights: Sequence[int],
        key: int | None,
        block: int = STEPS_AT_ONCE,
        start_counts: Sequence[int] = (),
    ) -> None:
        self.active, self.weights, self.key, self.size = np.array(active, np.int64), weights, key, block
        self.quotas = Quotas(
            [weights[source] for source in active], [start_counts[source] for source in active] if start_counts else ()
        )
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

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
            block = self._block(number)
            sources[here], before[here] = self.active[block[0][within]], block[1][within]
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
        if number not in self._blocks:
            first = number * self.size
            sources, before = self.quotas.take(np.arange(first, first + self.size))
            if self.key is not None:
                sources = sources[Permutation(self.size, hashed(self.key, number))[:]]
                for place, count in enumerate(self.quotas.counts(first)):
                    here = sources == place
                    before[here] = count + np.arange(np.count_nonzero(here))
            while len(self._blocks) >= 4:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[number] = sources, before
        return self._blocks[number]


@lru_cache(maxsize=32)
def _period(weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One period: the source of each output, and how many of that source come before it."""
    return numbered(islice(_chairmen(weights, [0] * len(weights)), sum(weights)), len(weights))


def _chairmen(weights: Sequence[int], counts: Sequence[int]) -> Iterator[int]:
    """Whose turn it is, from where all have given so much.

    At each output, of the sources that are far enough behind their shares the one whose time runs out first.
    """
    total, slack = sum(weights), max(2 * len(weights) - 2, 1)
    counts, alone = list(counts), len(weights) == 1
    waiting = [
        (-(-total * (1 + slack * count) // (slack * weight)), place)
        for place, (weight, count) in enumerate(zip(weights, counts))
    ]  # (the output it is far enough behind at, source)
    due: list[tuple[float, int]] = []  # (when its time runs out, source)
    heapq.heapify(waiting)
    for k in counting(sum(counts) + 1):
        while waiting and (waiting[0][0] <= k or alone):
            place = heapq.heappop(waiting)[1]
            heapq.heappush(due, ((slack * counts[place] + slack - 1) / weights[place], place))
        place = heapq.heappop(due)[1]
        yield place
        counts[place] += 1
        heapq.heappush(waiting, (-(-total * (1 + slack * counts[place]) // (slack * weights[place])), place))


def _catching_up(weights: Sequence[int], counts: Sequence[int], period: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs until every source is where the period has it:
    at the latest where one ends at which none is ahead."""
    rounds, rest = divmod(sum(counts), len(period))
    apart = [
        count - rounds * weight - there
        for count, weight, there in zip(counts, weights, _periodic(weights, period, rest))
    ]
    different, turns = sum(map(bool, apart)), []
    if different:
        ours = _chairmen(weights, [count - rounds * weight for count, weight in zip(counts, weights)])
        for place, theirs in zip(ours, cycle(chain(period[rest:].tolist(), period[:rest].tolist()))):
            turns.append(place)
            if place != theirs:
                different += (apart[place] == 0) - (apart[place] == -1)
                apart[place] += 1
                different += (apart[theirs] == 0) - (apart[theirs] == 1)
                apart[theirs] -= 1
            if not different:
                break
    return numbered(turns, len(weights))


def _periodic(weights: Sequence[int], period: np.ndarray, k: int) -> list[int]:
    """How many of the first k outputs are of each source, where they are periods from the first on."""
    rounds, rest = divmod(k, len(period))
    begun = np.bincount(period[:rest], minlength=len(weights)).tolist()
    return [rounds * weight + count for weight, count in zip(weights, begun)]


def numbered(turns: Iterable[int], sources: int) -> tuple[np.ndarray, np.ndarray]:
    """Turns, and how many of the same source come before each."""
    listed, counts = np.fromiter(turns, np.int64), [0] * sources
    before = np.empty_like(listed)
    for k, place in enumerate(listed.tolist()):
        before[k] = counts[place]
        counts[place] += 1
    return listed, before


def _turns(fork: tuple[Any, ...], k: Any) -> Any:
    """How many of the first k outputs at a fork go left: what is behind there comes first, what is ahead waits."""
    _, _, a, b, left, right = fork
    there = _left(k + left + right, a, a + b) - left
    return np.clip(there, 0, k) if isinstance(k, np.ndarray) else min(max(there, 0), k)


def _left(k: Any, a: int, total: int) -> Any:
    """k * a / total, rounded; exact where the product would overflow."""
    times, rest = k // total, k % total
    return times * a + (2 * rest * a + total) // (2 * total)


def _share_tree(weights: list[tuple[int, int, int]]) -> ShareTree:
    """The tree of sources: (source, weight, given before)."""
    if len(weights) == 1:
        return weights[0][0]
    halves: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]] = ([], [])
    sums, counts = [0, 0], [0, 0]
    for one in sorted(weights, key=lambda one: -one[1]):
        lighter = 0 if sums[0] <= sums[1] else 1
        halves[lighter].append(one)
        sums[lighter] += one[1]
        counts[lighter] += one[2]
    first = 0 if sums[0] >= sums[1] else 1
    return (
        _share_tree(halves[first]),
        _share_tree(halves[1 - first]),
        sums[first],
        sums[1 - first],
        counts[first],
        counts[1 - first],
    )
