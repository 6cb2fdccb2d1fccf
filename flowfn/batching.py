"""Stages that put datapoints together and take them apart, and how components are collated."""

from __future__ import annotations

import dataclasses
from array import array as array_of
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import countOf
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.columns import Rows
from flowfn.components import with_fields
from flowfn.failures import brief
from flowfn.stages import stage

_INT64 = np.dtype(np.int64)
_NUMBERS = frozenset({int, float, bool, complex})
_COLLATE = rules.Rule(
    "a collation (stack, as_list, a function of a list) or a list, tuple or dict of one for each component",
    lambda value: all(
        map(callable, value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value])
    ),
)


def stack(values: Sequence[Any]) -> Any:
    """Collate the values of one component into an array with a new first axis.

    Numbers, arrays of one shape, and (nested) lists of numbers become an array; dicts keep their nesting; strings,
    bytes, None and other objects stay a list.

    Raises:
        ValueError: arrays or lists of different shapes; the message lists the shapes.

    >>> stack([1, 2]), stack([[1, 2], [3, 4]]).shape, stack(["a", "b"]), stack([{"x": 1}, {"x": 2}])
    (array([1, 2]), (2, 2), ['a', 'b'], {'x': array([1, 2])})
    """
    first = values[0]
    if type(first) is int:
        try:
            return np.frombuffer(array_of("q", values), _INT64)  # faster than numpy's own look at every value
        except (TypeError, OverflowError):  # not all of them integers of 64 bits: numpy knows
            return _numbers(values)
    if type(first) in _NUMBERS or isinstance(first, np.generic):
        return _numbers(values)
    if isinstance(first, np.ndarray):
        shape = first.shape
        if any(np.shape(value) != shape for value in values):
            raise ValueError(_unequal(values))
        return np.stack(values)
    if isinstance(first, Mapping):
        return _collated_dicts(values, stack)
    if isinstance(first, (list, tuple)):
        return _nested(values)
    if hasattr(first, "__array__") and not isinstance(first, (str, bytes)):
        return stack([np.asarray(value) for value in values])
    return list(values)


def as_list(values: Sequence[Any]) -> list[Any]:
    """Collate the values of one component into a list, whatever they are.

    >>> as_list(([1], [2, 3]))
    [[1], [2, 3]]
    """
    return list(values)


@stage.group(size="size", whole="drop_remainder", where={"size": rules.positive, "drop_remainder": rules.boolean, "collate": _COLLATE})
def batch(size: int, source: Any, *, drop_remainder: bool = False, collate: Any = stack) -> Iterator[Any]:
    """Put `size` datapoints together; the last batch may be smaller, unless it is dropped.

    A batch has the form of its datapoints: lists give a list of arrays, dicts a dict, namedtuples a namedtuple,
    dataclasses a dataclass, bare numbers or arrays one array. `collate` says how: `stack` (the default; int -> int64,
    float -> float64, arrays keep their dtype, strings and bytes stay lists), `as_list`, any function of the list of
    values of a component, or one for each component: `{"image": stack, "boxes": as_list}`.

    Raises:
        ValueError: datapoints differ in their number of components, or arrays in shape; they are shown.

    >>> import flowfn as ff
    >>> list(ff.batch(2, [[1, "a"], [2, "b"], [3, "c"]]))
    [[array([1, 2]), ['a', 'b']], [array([3]), ['c']]]
    >>> list(ff.batch(2, [{"x": 1.5}, {"x": 2}], collate=ff.as_list))
    [{'x': [1.5, 2]}]
    """
    for datapoints in source:
        if type(datapoints) is Rows and datapoints.columns.stackable and collate is stack:
            yield datapoints.stacked()
        else:
            yield collated(datapoints, collate)


@stage.expand
def unbatch(source: Any) -> Iterator[Any]:
    """Take batches apart: the inverse of `batch`. Rows of arrays are views.

    Raises:
        ValueError: the components of a batch have different lengths.

    >>> import flowfn as ff
    >>> [[int(x), s] for x, s in ff.unbatch(ff.batch(2, [[1, "a"], [2, "b"], [3, "c"]]))]
    [[1, 'a'], [2, 'b'], [3, 'c']]
    """
    for datapoint in source:
        yield from rows_of(datapoint)


def collated(datapoints: Sequence[Any], how: Any) -> Any:
    """Datapoints put together, in their own form; `how` is one collation or one for each component."""
    first = datapoints[0]
    if isinstance(first, (list, tuple)):
        try:
            columns = list(zip(*datapoints, strict=True))
        except (ValueError, TypeError):
            raise _different(datapoints) from None
        components = [how(column) for column in columns] if callable(how) else _one_by_one(columns, how)
        if how is not stack or list in map(type, components):  # all numbers: they cannot be the letters or keys of something else
            _check_forms(datapoints)
        return components if isinstance(first, list) else first._make(components) if hasattr(first, "_make") else tuple(components)
    _check_forms(datapoints)
    if isinstance(first, Mapping):
        return _collated_dicts(datapoints, how)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        values = [one([getattr(d, name) for d in datapoints]) for one, name in zip(_hows(how, names), names)]
        return with_fields(first, dict(zip(names, values)))
    if not callable(how):
        raise TypeError(f"batch(): collate names components, but datapoints have none: {brief(first)}")
    return how(datapoints)


def _check_forms(datapoints: Sequence[Any]) -> None:
    if countOf(map(type, datapoints), type(datapoints[0])) != len(datapoints) and any(map(_has_components, datapoints)):
        raise _different(datapoints)


def _has_components(datapoint: Any) -> bool:
    return isinstance(datapoint, (list, tuple, Mapping)) or dataclasses.is_dataclass(datapoint)


def _one_by_one(columns: Sequence[Any], how: Any) -> list[Any]:
    return [one(column) for one, column in zip(_hows(how, range(len(columns))), columns)]


def rows_of(batched: Any) -> Iterator[Any]:
    """The datapoints of a batch, in its form."""
    if isinstance(batched, Mapping):
        _same_lengths(batched)
        return (dict(zip(batched, row)) for row in zip(*(_items(v) for v in batched.values())))
    if isinstance(batched, tuple):
        _same_lengths(dict(enumerate(batched)))
        make = batched._make if hasattr(batched, "_make") else tuple
        return (make(row) for row in zip(*(_items(v) for v in batched)))
    if isinstance(batched, list):
        _same_lengths(dict(enumerate(batched)))
        return (list(row) for row in zip(*(_items(v) for v in batched)))
    if dataclasses.is_dataclass(batched) and not isinstance(batched, type):
        names = [field.name for field in dataclasses.fields(batched)]
        columns = {name: getattr(batched, name) for name in names}
        _same_lengths(columns)
        return (with_fields(batched, dict(zip(names, row))) for row in zip(*map(_items, columns.values())))
    return iter(batched)


def _items(column: Any) -> Iterator[Any]:
    """The values of a component of a batch; a nested dict is a batch itself."""
    return rows_of(column) if isinstance(column, Mapping) else iter(column)


def _same_lengths(columns: Mapping[Any, Any]) -> None:
    lengths = {name: _length(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"unbatch(): the components of a batch have different lengths: {lengths}")


def _length(column: Any) -> int:
    if not isinstance(column, Mapping):
        return len(column)
    _same_lengths(column)
    return _length(next(iter(column.values()))) if column else 0


def _collated_dicts(datapoints: Sequence[Any], how: Any) -> dict[Any, Any]:
    keys = list(datapoints[0])
    for datapoint in datapoints:
        if not isinstance(datapoint, Mapping) or datapoint.keys() != datapoints[0].keys():
            raise _different(datapoints)
    return {key: one([d[key] for d in datapoints]) for key, one in zip(keys, _hows(how, keys))}


def _hows(how: Any, names: Any) -> Iterator[Callable[[Any], Any]]:
    """One collation for each component; those of a dict that are not named are stacked."""
    if callable(how):
        return iter([how] * len(names))
    if isinstance(how, Mapping):
        unknown = set(how) - set(names)
        if unknown:
            raise ValueError(f"batch(): collate names {', '.join(sorted(map(repr, unknown)))}, but datapoints have {list(names)}")
        return iter([how.get(name, stack) for name in names])
    if len(how) != len(names):
        raise ValueError(f"batch(): collate has {len(how)} collations, but datapoints have {len(names)} components")
    return iter(how)


def _numbers(values: Sequence[Any]) -> Any:
    try:
        array = np.array(values)
    except ValueError:
        raise ValueError(_unequal(values)) from None
    if array.ndim != 1:
        raise ValueError(_unequal(values))
    return list(values) if array.dtype.kind in "OUS" else array


def _nested(values: Sequence[Any]) -> Any:
    """Lists (of lists) of numbers or arrays as one array; lists with anything else in them stay lists."""
    if any(isinstance(leaf, (str, bytes, Mapping)) or leaf is None for value in values for leaf in _leaves(value)):
        return list(values)
    try:
        array = np.array(values)
    except ValueError:
        raise ValueError(_unequal(values)) from None
    return array if array.dtype != object else list(values)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _shape(value: Any) -> Any:
    try:
        return np.shape(value)
    except ValueError:
        return f"ragged, {len(value)} rows"


def _unequal(values: Sequence[Any]) -> str:
    shapes = list(dict.fromkeys(map(_shape, values)))
    return (
        f"batch(): cannot stack shapes {', '.join(map(str, shapes[:6]))}{', ...' if len(shapes) > 6 else ''}; make them equal before "
        "(pad, crop, resize), or keep them apart with collate=as_list"
    )


def _different(datapoints: Sequence[Any]) -> ValueError:
    first = datapoints[0]
    odd = next((d for d in datapoints if type(d) is not type(first) or _form(d) != _form(first)), datapoints[-1])
    return ValueError(f"batch(): datapoints must have the same components, got {brief(first)} and {brief(odd)}")


def _form(datapoint: Any) -> Any:
    return set(datapoint) if isinstance(datapoint, Mapping) else len(datapoint) if hasattr(datapoint, "__len__") else None
