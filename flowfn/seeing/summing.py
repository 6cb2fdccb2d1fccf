"""Many datapoints, component by component: ranges, what is missing, what never changes, and what drifts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowfn.seeing.cells import COMPONENTS, NESTED, cells_of, from_to, is_row_of_numbers, one_line, shown_parts

DRIFT, FEWEST = 4.0, 8
"""By how many standard errors the means of two halves differ where something drifts; of how many datapoints that can be
said."""

MOST_COMPONENTS = 100
"""So many components are summed up; where every datapoint has keys of its own, there are more."""


@dataclass
class ComponentSummary:
    """One component of many datapoints: its types and sizes, and of numbers the range, NaN and the mean of each."""

    name: str
    depth: int
    first: Any
    constant: bool = True
    count: int = 0
    kinds: dict[str, None] = field(default_factory=dict)
    sizes: dict[str, None] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    low: Any = None
    high: Any = None
    with_nan: int = 0
    means: list[float] = field(default_factory=list)

    def add(self, value: Any) -> None:
        """See one more."""
        kind, size, _ = cells_of(value, self.depth)
        self.count += 1
        self.kinds[kind] = self.sizes[size] = None
        self.constant = self.constant and _like_first(value, self.first)
        array = _numbers_in(value)
        if array is not None and array.size:
            self._add_numbers(array)
        if hasattr(value, "__len__") and getattr(value, "shape", None) != ():
            self.lengths.append(len(value))

    def _add_numbers(self, array: np.ndarray) -> None:
        known = array[array == array]
        self.with_nan += known.size < array.size
        if known.size:
            low, high = known.min(), known.max()
            self.low = low if self.low is None else min(low, self.low)
            self.high = high if self.high is None else max(high, self.high)
            self.means.append(float(known.mean()))

    def cells(self, total: int) -> tuple[str, str, str, str, str]:
        """Name, type, size, range and remarks."""
        kinds, sizes = list(self.kinds), [size for size in self.sizes if size]
        several = f"length {min(self.lengths)} to {max(self.lengths)}" if self.lengths else ""
        if len(sizes) > 1 and not all(size.startswith("length") for size in sizes):
            several = f"{len(sizes)} shapes"
        size = sizes[0] if len(sizes) == 1 else several if sizes else ""
        range_shown = from_to(self.low, self.high) if self.low is not None else self._shown()
        return self.name, " or ".join(kinds[:3]), size, range_shown, ", ".join(self._remarks(total))

    def _shown(self) -> str:
        """What is the same in all, where it is no number and has no parts."""
        plain = self.constant and not list(shown_parts(self.first, self.depth))
        return cells_of(self.first, self.depth)[2] if plain else ""

    def _remarks(self, total: int) -> Iterator[str]:
        if self.count < total:
            yield f"in {self.count}"
        if self.with_nan:
            yield f"NaN in {self.with_nan}"
        if self.constant and self.count > 1:
            yield "constant"
        elif len(self.lengths) > 1 and len(set(self.lengths)) > 1 and (halves := _drift(self.lengths)):
            yield "length drifts: {:.4g} in the first half, {:.4g} in the last".format(*halves)
        elif halves := _drift(self.means):
            yield "drifts: {:.4g} in the first half, {:.4g} in the last".format(*halves)


class Sums:
    """What is known of many datapoints, without keeping any but the first."""

    def __init__(self) -> None:
        self.count = 0
        self.components: dict[tuple[str, ...], ComponentSummary] = {}
        self.others = False

    def add(self, datapoint: Any) -> None:
        """See one more."""
        self.count += 1
        self._add((), datapoint, COMPONENTS)

    def _add(self, path: tuple[str, ...], value: Any, most: int) -> None:
        if path not in self.components:
            if len(self.components) > MOST_COMPONENTS:
                self.others = True
                return
            name = "  " * len(path) + (path[-1] if path else "all {} datapoints")
            self.components[path] = ComponentSummary(name, len(path), value)
        self.components[path].add(value)
        for number, (name, part) in enumerate(shown_parts(value, len(path))):
            if number == most:
                break
            self._add((*path, name), part, NESTED)

    def table(self) -> str:
        """A line for each component, in columns."""
        whole, *rows = [component.cells(self.count) for _, component in sorted(self._in_order())]
        heading = f"all {self.count} datapoints: {', '.join(cell for cell in whole[1:] if cell)}"
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths) if width).rstrip() for row in rows]
        return "\n".join([heading, *lines, *["  ... and others"] * self.others])

    def _in_order(self) -> Iterator[tuple[tuple[int, ...], ComponentSummary]]:
        """Components with where they stand: what is in one comes right behind it."""
        places: dict[tuple[str, ...], tuple[int, ...]] = {}
        for number, (path, component) in enumerate(self.components.items()):
            places[path] = (*places[path[:-1]], number) if path else ()
            yield places[path], component


def _numbers_in(value: Any) -> np.ndarray | None:
    """The numbers in a value, if it consists of numbers."""
    if isinstance(value, (bool, int, float, np.generic)) or hasattr(value, "dtype") or is_row_of_numbers(value):
        try:
            array = np.asarray(value)
        except Exception:  # on a device perhaps, or an integer of too many digits
            return None
        return array if array.dtype.kind in "biuf" else None
    return None


def _like_first(value: Any, first: Any) -> bool:
    """Whether a value is what the first one was, as far as it says."""
    if value is first:
        return True
    if hasattr(value, "dtype") or hasattr(first, "dtype"):
        one, other = _numbers_in(value), _numbers_in(first)
        if one is None or other is None:
            return one_line(value) == one_line(first)
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    try:
        return type(value) is type(first) and bool(value == first)
    except Exception:  # of arrays in it, or of somebody's object
        return one_line(value) == one_line(first)


def _drift(values: list[Any]) -> tuple[float, float] | None:
    """The means of the two halves of some values, if they differ by more than chance."""
    if len(values) < FEWEST:
        return None
    halves = np.array_split(np.asarray(values, float), 2)
    before, after = (float(half.mean()) for half in halves)
    error = math.sqrt(sum(float(half.var()) / (len(half) - 1) for half in halves))
    return (before, after) if abs(after - before) > DRIFT * error and np.isfinite(after - before) else None
