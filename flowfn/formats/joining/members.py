"""Which arrays of a file make a datapoint, and what datapoints have to be so that they can be
written as such arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from flowfn.showing import brief

BLOCK_BYTES = 1 << 20
"""Bytes of rows that are put together before they are written."""


class RowKind(NamedTuple):
    """What the rows of an array are."""

    dtype: np.dtype
    shape: tuple[int, ...]


class Makeup(NamedTuple):
    """What datapoints look like: bare values, lists (no keys) or dicts; and where each component lies in the file."""

    keys: list[Any] | None
    bare: bool
    names: list[str]

    def made(self, parts: Sequence[Any]) -> Any:
        """A datapoint of its components."""
        return parts[0] if self.bare else dict(zip(self.keys, parts)) if self.keys is not None else list(parts)

    def each(self, columns: Sequence[Iterable[Any]]) -> Iterator[Any]:
        """Datapoints of columns of components."""
        if self.bare:
            return iter(columns[0])
        rows: Iterator[Any] = zip(*columns)
        return dicts(tuple(self.keys))(rows) if self.keys is not None else map(list, rows)


@lru_cache(maxsize=64)
def dicts(keys: tuple[Any, ...]) -> Callable[[Iterable[Sequence[Any]]], Iterator[dict[Any, Any]]]:
    """A function that makes dicts of rows, each of as many values as there are keys.

    It is made for so many keys, as `collections.namedtuple` makes its classes, and takes a third of the time of
    `dict(zip(keys, row))`, which is most of what reading a table in order costs.

    >>> list(dicts(("a", "b"))([(1, 2), (3, 4)]))
    [{'a': 1, 'b': 2}, {'a': 3, 'b': 4}]
    """
    names = [f"key{at}" for at in range(len(keys))]
    pairs = ", ".join(f"{name}: value{at}" for at, name in enumerate(names))
    values = "".join(f"value{at}, " for at in range(len(keys)))
    made = eval(
        f"lambda {', '.join(names)}: lambda rows: ({{{pairs}}} for ({values}) in rows)"
    )  # of no words but these
    return made(*keys)


def form_of(choice: Any, there: Sequence[str], who: str, argument: str, path: str) -> Makeup:
    """What a user has chosen: one name (bare values), a list of names (lists),
    a dict of names (dicts), None (dicts of all).

    Raises:
        TypeError: it is none of these.
        ValueError: there is no such name in the file, or nothing is chosen; the message lists what there is.
    """
    if choice is None:
        form = Makeup(list(there), False, list(there))
    elif isinstance(choice, str):
        form = Makeup(None, True, [choice])
    elif isinstance(choice, Mapping):
        form = Makeup(list(choice), False, list(choice.values()))
    elif isinstance(choice, (list, tuple)):
        form = Makeup(None, False, list(choice))
    else:
        raise TypeError(
            f"{who}(): {argument} must be a name, a list or dict of names, or None for all, got {brief(choice)}"
        )
    missing = [name for name in form.names if name not in there]
    if missing:
        raise ValueError(f"{who}(): there is no {missing[0]!r} in {path}; there are {_names_listed(there)}")
    if not form.names:
        raise ValueError(
            f"{who}(): {path} holds no arrays"
            if choice is None
            else f"{who}(): {argument} must name something, got {choice!r}"
        )
    return form


def names_in(choice: Any) -> list[str]:
    """The names in what a user has chosen."""
    if isinstance(choice, Mapping):
        choice = choice.values()
    elif not isinstance(choice, (list, tuple)):
        choice = [choice]
    return [name for name in choice if isinstance(name, str)]


def equal_lengths(shapes: Mapping[str, tuple[int, ...]], who: str, argument: str, path: str) -> int:
    """The number of rows that all have.

    Raises:
        ValueError: they have different numbers, or one has no rows at all.
    """
    if any(not shape for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) > 1:
        told = ", ".join(f"{name!r} {shape}" for name, shape in list(shapes.items())[:20])
        raise ValueError(
            f"{who}(): arrays must have equal lengths, but in {path} there are {told}; choose some with {argument}="
        )
    length = next(iter(shapes.values()))[0]
    if length > sys.maxsize:
        raise ValueError(f"{who}(): {path} says that it has {length} rows, which cannot be; is it damaged?")
    return length


def parts_of(datapoint: Any, who: str) -> tuple[Makeup, list[Any]]:
    """The form of a datapoint, and its components; those of lists are called by their numbers."""
    if isinstance(datapoint, Mapping):
        keys = list(datapoint)
        for key in keys:
            if not isinstance(key, str) or not key:
                raise TypeError(
                    f"{who}(): the keys of datapoints must be strings, as they are names in the file, got {key!r}"
                )
        return Makeup(keys, False, keys), list(datapoint.values())
    if isinstance(datapoint, (list, tuple)):
        return Makeup(None, False, [str(number) for number in range(len(datapoint))]), list(datapoint)
    return Makeup(None, True, ["0"]), [datapoint]


def parts_as(form: Makeup, datapoint: Any, who: str) -> list[Any] | None:
    """The components of a datapoint in the order of those of the first, whose form is `form`; None if it has others.

    >>> parts_as(Makeup(["x", "y"], False, ["x", "y"]), {"y": 2, "x": 1}, "write_x")
    [1, 2]
    """
    own, parts = parts_of(datapoint, who)
    if own == form:
        return parts
    if own.keys is None or form.keys is None or set(own.keys) != set(form.keys):
        return None
    return [datapoint[key] for key in form.keys]


class Fill:
    """Rows of one component on their way to a file: all of one dtype and shape, those of the first, written in blocks.

    `put` takes blocks of rows. Texts and bytes are put as object arrays, whatever their lengths.
    """

    def __init__(
        self, first: Any, name: str, who: str, put: Callable[[np.ndarray], None], rows: int | None = None
    ) -> None:
        self.name, self.who, self.put, self.filled = name, who, put, 0
        example = as_row(first, name, who, 0)
        self.kind = type(example) if isinstance(example, (str, bytes)) else np.ndarray
        self.dtype = np.dtype(object) if self.kind is not np.ndarray else example.dtype
        self.shape = () if self.kind is not np.ndarray else example.shape
        size = max(int(np.prod(self.shape)) * self.dtype.itemsize, 1)
        self.block = np.empty((rows or max(min(BLOCK_BYTES // size, 4096), 1), *self.shape), self.dtype)

    def add(self, value: Any, number: int) -> None:
        """Take one row.

        Raises:
            TypeError, ValueError: it does not fit the rows before it.
        """
        row = as_row(value, self.name, self.who, number)
        if self.kind is np.ndarray and isinstance(row, np.ndarray):
            fits = row.shape == self.shape and (row.dtype == self.dtype or np.can_cast(row.dtype, self.dtype, "safe"))
        else:
            fits = type(row) is self.kind
        if not fits:
            first = f"{self.dtype} {self.shape}" if self.kind is np.ndarray else self.kind.__name__
            given = f"{row.dtype} {row.shape}" if isinstance(row, np.ndarray) else type(row).__name__
            raise ValueError(
                f"{self.who}(): all rows of an array have one dtype and shape, but component {self.name!r} of "
                f"datapoint {number} "
                f"is {given}, that of the first {first}; make them alike before (map, map_component)"
            )
        self.block[self.filled] = row
        self.filled += 1
        if self.filled == len(self.block):
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self.filled:
            self.put(self.block[: self.filled])
            self.filled = 0


def as_row(value: Any, name: str, who: str, number: int) -> Any:
    """A component as a row of an array: a text, bytes, or an array of numbers.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, (str, bytes)):
        return str(value) if isinstance(value, str) else bytes(value)
    try:
        row = np.asarray(value)
    except (ValueError, OverflowError):  # a ragged list
        row = np.empty(0, object)
    if row.dtype.hasobject or (row.dtype.kind == "V" and row.dtype.names is None):
        raise TypeError(
            f"{who}(): components must be numbers, strings, bytes or arrays of them, "
            f"but component {name!r} of datapoint {number} is {brief(value)}; map it before, or write another format"
        )
    return row


def fill_columns(
    datapoints: Iterable[Any], who: str, begin: Callable[[Makeup, list[Any]], Sequence[Fill]]
) -> tuple[Makeup, int]:
    """Send all datapoints through the fills that `begin` makes for the components of the first; how many they were.

    Raises:
        ValueError: there are no datapoints, or they differ in their components.
    """
    form: Makeup | None = None
    fills: Sequence[Fill] = ()
    number = -1
    for number, datapoint in enumerate(datapoints):
        if form is None:
            form, first = parts_of(datapoint, who)
            if not first:
                raise ValueError(f"{who}(): datapoints must have components, got {brief(datapoint)}")
            fills = begin(form, first)
        parts = parts_as(form, datapoint, who)
        if parts is None:
            raise ValueError(
                f"{who}(): all datapoints must have the components of the first, {_names_listed(form.names)}, "
                f"but datapoint {number} is {brief(datapoint)}"
            )
        for fill, part in zip(fills, parts):
            fill.add(part, number)
    if form is None:
        raise ValueError(f"{who}(): there are no datapoints, so nobody knows what arrays to write")
    for fill in fills:
        fill.flush()
    return form, number + 1


def _names_listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + ", ..." * (len(names) > 20) or "none"
