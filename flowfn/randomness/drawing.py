"""Indices drawn at random, with and without replacement, computed when they are asked for.

Everything is raw bits and arithmetic of our own, so that no release of numpy changes what is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_GOLDEN, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31, 11, 32))
_LOW = np.uint64(0xFFFFFFFF)


class Draws:
    """`count` indices below n, each drawn from all of them alike: any of them in O(1), without memory.

    >>> draws = Draws(10, 1000, key=1)[np.arange(1000)]
    >>> len(draws), int(draws.min()), int(draws.max())
    (1000, 0, 9)
    """

    def __init__(self, n: int, count: int, key: int) -> None:
        self.n, self.count, self.key = n, count, key

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        """The draws at the given places (a slice or an int64 array)."""
        return _scaled_bits(words(_positions(index, self.count), self.key), self.n)


class WeightedDraws:
    """`count` indices, each drawn with a probability proportional to its weight; O(n) memory,
    made at the first look."""

    def __init__(self, weights: np.ndarray, count: int, key: int) -> None:
        self.weights, self.count, self.key = weights, count, key
        self._totals: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        """The draws at the given places (a slice or an int64 array)."""
        if self._totals is None:
            self._totals = np.cumsum(self.weights)
        return _weighted(self._totals, words(_positions(index, self.count), self.key))


class DistinctDraws:
    """`count` different indices, drawn one after the other in proportion to the weights of those that are left.

    Draws with replacement of which repeated ones are ignored are such draws; what has been drawn is taken out now and
    then, so that heavy weights do not hold up the rest.
    """

    def __init__(self, weights: np.ndarray, count: int, key: int) -> None:
        self.weights, self.count, self.key = weights, count, key
        self._drawn: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        """The draws at the given places (a slice or an int64 array)."""
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn[index]

    def _draw(self) -> np.ndarray:
        left, drawn = self.weights.copy(), [np.zeros(0, np.int64)]
        missing, at = self.count, 0
        while missing:
            tried = at + max(missing, 64)
            draws = _weighted(np.cumsum(left), words(np.arange(at, tried, dtype=np.uint64), self.key))
            different, first = np.unique(draws, return_index=True)
            fresh = different[np.argsort(first)][:missing]
            drawn.append(fresh)
            left[fresh] = 0
            missing, at = missing - len(fresh), tried
        return np.concatenate(drawn)


def words(places: np.ndarray, key: int) -> np.ndarray:
    """64 random bits for each place: the numbers of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), keyed twice."""
    low, high = np.uint64(key & (2**64 - 1)), np.uint64(key >> 64)
    mixed: np.ndarray = places * _GOLDEN + low
    for word in (high, low):
        mixed = (mixed ^ mixed >> _SHIFTS[0]) * _FIRST
        mixed = (mixed ^ mixed >> _SHIFTS[1]) * _SECOND
        mixed = (mixed ^ mixed >> _SHIFTS[2]) + word
    return mixed


def _positions(index: Any, count: int) -> np.ndarray:
    if isinstance(index, slice):
        index = np.arange(*index.indices(count))
    return np.asarray(index, np.int64).astype(np.uint64)


def _scaled_bits(bits: np.ndarray, n: int) -> np.ndarray:
    """The high 64 bits of bits * n: integers in [0, n)."""
    size = np.uint64(n)
    low, high = bits & _LOW, bits >> _SHIFTS[4]
    if n < 1 << 32:
        return ((high * size + (low * size >> _SHIFTS[4])) >> _SHIFTS[4]).astype(np.int64)
    size_low, size_high = size & _LOW, size >> _SHIFTS[4]
    middle = high * size_low + (low * size_low >> _SHIFTS[4])
    carried = low * size_high + (middle & _LOW)
    return (high * size_high + (middle >> _SHIFTS[4]) + (carried >> _SHIFTS[4])).astype(np.int64)


def _weighted(totals: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The index whose share of the running totals a fraction falls into; one without weight has no share."""
    fractions = (bits >> _SHIFTS[3]).astype(np.float64) * 2.0**-53
    found = np.searchsorted(totals, fractions * totals[-1], side="right")
    return np.minimum(found, np.searchsorted(totals, totals[-1], side="left"))
