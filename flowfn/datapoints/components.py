"""The components of a datapoint: one of them, some of them, or a copy with another one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from flowfn.showing import brief

LEAVES = frozenset({int, float, complex, bool, str, bytes, type(None), np.ndarray})
"""Types of what has no components, and is so common that it is worth knowing at once."""


class Datapoints(list[Any]):
    """A list of datapoints, as a batch of bare strings is: it tells it from a datapoint that is a list of components.

    >>> Datapoints(["a", "b"])
    ['a', 'b']
    """

    __slots__ = ()


def component(datapoint: Any, index: Any) -> Any:
    """One component of a datapoint, or an error that shows the datapoint."""
    if isinstance(datapoint, (str, bytes)) or not hasattr(datapoint, "__getitem__"):
        raise TypeError(
            f"a datapoint with components is a list, tuple or dict, got {type(datapoint).__name__}; map(f) works on "
            "whole datapoints"
        )
    try:
        return datapoint[index]
    except (IndexError, KeyError) as error:
        have = f"keys {list(datapoint)}" if isinstance(datapoint, Mapping) else f"{len(datapoint)} components"
        raise type(error)(f"no component {index!r} in a datapoint with {have}") from None


def length_of(datapoint: Any, index: Any = None) -> int:
    """The `len` of a datapoint, or of its component `index`, or an error that says what to write instead."""
    found = datapoint if index is None else component(datapoint, index)
    if index is None and type(datapoint) is dict:
        raise TypeError(
            f"the len of a dict is how many keys it has, got {brief(datapoint)}; write the key of the component whose "
            "len counts instead of len"
        )
    try:
        return len(found)
    except TypeError:
        what, key = ("a datapoint", "x") if index is None else (f"component {index!r} of a datapoint", f"x[{index!r}]")
        raise TypeError(
            f"{what} must have a len, got {brief(found)}; write a function where it says itself how long it is, such "
            f"as lambda x: {key}"
        ) from None


def replaced(datapoint: Any, index: Any, value: Any) -> Any:
    """A copy of a datapoint with another component `index`."""
    if isinstance(datapoint, tuple):
        items = list(datapoint)
        items[index] = value
        return as_tuple_like(datapoint, items)
    copy = datapoint.copy()
    copy[index] = value
    return copy


def selected(datapoint: Any, components: Sequence[Any]) -> Any:
    """Some components of a datapoint, in its form."""
    if isinstance(datapoint, Mapping):
        return {key: component(datapoint, key) for key in components}
    items = [component(datapoint, index) for index in components]
    return tuple(items) if isinstance(datapoint, tuple) else items


def as_tuple_like(datapoint: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    """A tuple of items, named as those of another are."""
    return datapoint._make(items) if hasattr(datapoint, "_make") else tuple(items)


def with_fields(record: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a dataclass with other values in some fields; nothing of it runs."""
    changed = copy.copy(record)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def with_leaves(f: Callable[[Any], Any], datapoint: Any) -> Any:
    """A copy of a datapoint, in its form, with what `f` makes of each value that has no components, however deep.

    Mappings that cannot be written to become dicts.

    >>> with_leaves(str, {"x": [1, "text"], "y": (None, 2.5)})
    {'x': ['1', 'text'], 'y': ('None', '2.5')}
    """
    kind = type(datapoint)
    if kind in LEAVES:
        return f(datapoint)
    if kind is list:
        return [with_leaves(f, value) for value in datapoint]
    if kind is dict:
        return {key: with_leaves(f, value) for key, value in datapoint.items()}
    if isinstance(datapoint, tuple):
        return as_tuple_like(datapoint, [with_leaves(f, value) for value in datapoint])
    if isinstance(datapoint, Mapping) and not isinstance(datapoint, MutableMapping):
        return {key: with_leaves(f, value) for key, value in datapoint.items()}
    if isinstance(datapoint, (list, Mapping)):
        changed: Any = copy.copy(datapoint)
        for key, value in datapoint.items() if isinstance(datapoint, Mapping) else enumerate(datapoint):
            changed[key] = with_leaves(f, value)
        return changed
    if dataclasses.is_dataclass(datapoint) and not isinstance(datapoint, type):
        values = {one.name: getattr(datapoint, one.name) for one in dataclasses.fields(datapoint)}
        return with_fields(datapoint, {name: with_leaves(f, value) for name, value in values.items()})
    return f(datapoint)


def places(datapoint: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a datapoint that have no components, in their order, each with where it is.

    >>> list(places({"x": [1, "text"], "y": None}))
    [("['x'][0]", 1), ("['x'][1]", 'text'), ("['y']", None)]
    >>> list(places(7))
    [('', 7)]
    """
    if isinstance(datapoint, (list, tuple)):
        parts = [(f"[{index}]", value) for index, value in enumerate(datapoint)]
    elif isinstance(datapoint, Mapping):
        parts = [(f"[{key!r}]", value) for key, value in datapoint.items()]
    elif dataclasses.is_dataclass(datapoint) and not isinstance(datapoint, type):
        parts = [(f".{one.name}", getattr(datapoint, one.name)) for one in dataclasses.fields(datapoint)]
    else:
        yield place, datapoint
        return
    for name, value in parts:
        yield from places(value, place + name)
