"""Routes: where output i of an order stage comes from.

A route has a `length` (an int or `math.inf`) and maps a whole block of indices at once. A plain route gives the
indices of its one source; a switching route gives, for each index, (source, index in it, round or -1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from flowfn.blocks import Block
from flowfn.kinds.runs import Length

Switch = tuple[np.ndarray, np.ndarray, np.ndarray]


class Route(Protocol):
    """Anything that maps outputs to inputs, a block at a time."""

    length: float
    switches: ClassVar[bool]

    def take(self, block: Block) -> Any:
        """The inputs of the outputs in `block`."""


@dataclass(frozen=True, slots=True)
class Span:
    """Every `step`-th input from `start` on, `length` of them (which may be endless)."""

    start: int
    step: int
    length: float
    switches: ClassVar[bool] = False

    def take(self, block: Block) -> Block:
        """The inputs of the outputs in `block`; ranges stay ranges."""
        return strided(self.start, self.step, block)


@dataclass(frozen=True, slots=True)
class IndexTable:
    """Inputs as listed in an array, or in anything that can be indexed by one."""

    indices: Any
    length: float
    switches: ClassVar[bool] = False

    def take(self, block: Block) -> Block:
        """The inputs of the outputs in `block`."""
        if type(block) is range and block.step > 0:
            return self.indices[block.start : block.stop : block.step]
        return self.indices[np.asarray(block, np.int64)]


@dataclass(frozen=True, slots=True)
class Copies:
    """Each of `size` inputs `times` times, one after the other."""

    size: float
    times: int
    switches: ClassVar[bool] = False

    @property
    def length(self) -> float:
        """How many outputs there are."""
        return product(self.size, self.times)

    def take(self, block: Block) -> Block:
        """The inputs of the outputs in `block`."""
        return np.asarray(block, np.int64) // self.times


@dataclass(frozen=True, slots=True)
class Rounds:
    """All `size` inputs, `count` times over (which may be endless), each time in a round of its own."""

    size: float
    count: float
    switches: ClassVar[bool] = True

    @property
    def length(self) -> float:
        """How many outputs there are."""
        return product(self.size, self.count)

    def take(self, block: Block) -> Switch:
        """(source 0, index, round) of the outputs in `block`."""
        indices = np.asarray(block, np.int64)
        rounds, within = (0 * indices, indices) if self.size == math.inf else np.divmod(indices, int(self.size))
        return np.zeros_like(indices), within, rounds


@dataclass(frozen=True, slots=True)
class Joined:
    """All inputs of the first source, then all of the second, and so on."""

    lengths: tuple[float, ...]
    switches: ClassVar[bool] = True

    @property
    def length(self) -> float:
        """How many outputs there are."""
        return sum(self.lengths)

    def take(self, block: Block) -> Switch:
        """(source, index, no round) of the outputs in `block`."""
        indices = np.asarray(block, np.int64)
        bounds = np.cumsum([0, *(min(n, 2**62) for n in self.lengths)]).astype(np.int64)
        sources = np.searchsorted(bounds, indices, side="right") - 1
        return sources, indices - bounds[sources], np.full_like(indices, -1)


def strided(start: int, step: int, block: Block) -> Block:
    """`start + step * i` for each i in a block; ranges stay ranges."""
    if type(block) is range:
        return range(start + step * block.start, start + step * block.stop, step * block.step)
    return start + step * block


def product(a: float, b: float) -> float:
    """`a * b`, where nothing times endless is nothing."""
    return 0 if 0 in (a, b) else a * b


def as_route(order: Any, n: Length) -> Any:
    """A route from what an order function returned: a route, a range, or an array of indices below n."""
    if hasattr(order, "take") and hasattr(order, "switches"):
        return order
    if type(order) is range:
        _check_within(order, n)
        return Span(order.start, order.step, len(order))
    if not hasattr(order, "__array__") and not isinstance(order, Sequence):
        return IndexTable(order, len(order))
    indices = np.asarray(order)
    if indices.dtype.kind not in "iu" and len(indices):
        raise TypeError(f"an order function returns integer indices, but it returned {indices.dtype} ones")
    if indices.ndim != 1:
        raise ValueError(f"an order function returns a row of indices, but it returned shape {indices.shape}")
    _check_within(indices, n)
    return IndexTable(indices.astype(np.int64, copy=False), len(indices))


def _check_within(indices: Any, n: Length) -> None:
    if n is None or not len(indices):
        return
    low, high = (
        (min(indices[0], indices[-1]), max(indices[0], indices[-1]))
        if type(indices) is range
        else (indices.min(), indices.max())
    )
    if low < 0 or high >= n:
        raise IndexError(f"indices must lie in [0, {n}), but they reach from {low} to {high}")
