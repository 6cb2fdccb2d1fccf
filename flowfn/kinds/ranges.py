"""Sets of indices, as ranges: short to write down, and held against whole blocks at once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np

from flowfn.blocks import Block, blocks


@dataclass(frozen=True, slots=True)
class Ranges:
    """Some indices: those from each start up to the stop that follows it. `bounds` are in order, all different.

    >>> Ranges.of([(3, 5), (4, 6), (8, 9)])
    Ranges(bounds=(3, 6, 8, 9))
    """

    bounds: tuple[int, ...] = ()
    edges: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", np.array(self.bounds, np.int64))

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> Ranges:
        """The indices in any of some ranges, each (start, stop)."""
        joined: list[list[int]] = []
        for start, stop in sorted((start, stop) for start, stop in pairs if start < stop):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], stop)
            else:
                joined.append([start, stop])
        return cls(tuple(bound for pair in joined for bound in pair))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Each range as (start, stop)."""
        return zip(self.bounds[::2], self.bounds[1::2])

    def __or__(self, others: Ranges) -> Ranges:
        return Ranges.of([*self.pairs(), *others.pairs()])

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.pairs())

    def __contains__(self, index: int) -> bool:
        return bisect_right(self.bounds, index) % 2 == 1

    def covers(self, block: Block) -> np.ndarray:
        """Which indices of a block are among them."""
        return np.searchsorted(self.edges, np.asarray(block, np.int64), side="right") % 2 == 1

    def covers_all(self, count: int) -> bool:
        """Whether the first `count` indices are among them."""
        return self.bounds[:1] == (0,) and self.bounds[1] >= count

    def misses(self, start: int) -> Iterator[bool]:
        """Of each index from `start` on, whether it is not among them."""
        return chain.from_iterable((~self.covers(block)).tolist() for block in blocks(start, math.inf))

    def beside(self, number: int) -> int:
        """Number `number` of the indices that are not among them.

        >>> Ranges.of([(0, 2), (4, 5)]).beside(2)
        5
        """
        for start, stop in self.pairs():
            number += stop - start if number >= start else 0
        return number


def are_bounds(values: Sequence[object]) -> bool:
    """Whether these can be the bounds of ranges."""
    whole = all(type(value) is int and value >= 0 for value in values)
    return whole and len(values) % 2 == 0 and all(a < b for a, b in pairwise(values))  # type: ignore[operator]
