"""Stages that put datapoints together and take them apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowfn import rules
from flowfn.collating import BATCHING, COLLATION, as_list, batched, collated, stack
from flowfn.columns import Rows
from flowfn.components import with_fields
from flowfn.failures import brief
from flowfn.rebatching import joined
from flowfn.stages import stage

__all__ = ["as_list", "batch", "collate", "collated", "rows_of", "stack", "unbatch", "window"]


def _rows_joined(batches: Sequence[Any], collate: Any, **others: Any) -> Any:
    """One batch of the rows of several, if it is what stacking them all would give: their columns have to be alike."""
    return joined(batches) if collate is stack else None


@stage.group(size="size", whole="drop_remainder", where={"size": rules.positive, **BATCHING}, joins=_rows_joined)
def batch(size: int, source: Any, *, drop_remainder: bool = False, collate: Any = stack) -> Iterator[Any]:
    """Put `size` datapoints together; the last batch may be smaller, unless it is dropped.

    A batch has the form of its datapoints: lists give a list of arrays, dicts a dict, namedtuples a namedtuple,
    dataclasses a dataclass, bare numbers or arrays one array. `collate` says how: `stack` (the default; int -> int64,
    float -> float64, arrays keep their dtype, strings and bytes stay lists), `pad(0)` (arrays of different sizes),
    `as_list`, any function of the list of values of a component, or one for each component:
    `{"image": stack, "boxes": as_list}`. With None a batch is the plain list of its datapoints (see `inside`, `collate`).

    Raises:
        ValueError: datapoints differ in their number of components, or arrays in shape; they are shown.

    >>> import flowfn as ff
    >>> list(ff.batch(2, [[1, "a"], [2, "b"], [3, "c"]]))
    [[array([1, 2]), ['a', 'b']], [array([3]), ['c']]]
    >>> list(ff.batch(2, [{"x": 1.5}, {"x": 2}], collate=ff.as_list))
    [{'x': [1.5, 2]}]
    >>> list(ff.batch(2, ["a", "b", "c"], collate=None))
    [['a', 'b'], ['c']]
    """
    for datapoints in source:
        if type(datapoints) is Rows and datapoints.columns.stackable and collate is stack:
            yield datapoints.stacked()
        elif collate is None:
            yield list(datapoints)
        else:
            yield collated(datapoints, collate)


@stage.group(size="size", step="step", whole="drop_remainder", where={"size": rules.positive, "step": rules.positive, **BATCHING})
def window(size: int, source: Any, *, step: int = 1, drop_remainder: bool = False, collate: Any = stack) -> Iterator[Any]:
    """Put `size` datapoints together, beginning anew every `step`: windows overlap, or leave gaps.

    The last window may be short, unless it is dropped; there is none that holds nothing but what the one before held.
    So the windows are those of `more_itertools.windowed` without its filling, and fewer at the end than those of
    `tf.data.Dataset.window`, which begins a window at every `step` until the source is used up. `collate` is that of
    `batch`.

    >>> import flowfn as ff
    >>> [w.tolist() for w in ff.window(3, range(6), step=2)]
    [[0, 1, 2], [2, 3, 4], [4, 5]]
    >>> [w.tolist() for w in ff.window(2, range(7), step=3, drop_remainder=True)]
    [[0, 1], [3, 4]]
    """
    for datapoints in source:
        yield batched(datapoints, collate)


@stage.each(where={"how": COLLATION})
def collate(how: Any = stack, source: Any = None) -> Iterator[Any]:
    """Make a batch of each list of datapoints, as `batch` would: `how` is what its `collate` is.

    It ends what `batch(..., collate=None)` began, so that the datapoints of a batch can be chosen first and loaded later
    (see `inside`).

    Raises:
        TypeError: a datapoint is no list (or tuple) of datapoints.
        ValueError: it is empty; or what `batch` raises.

    >>> import flowfn as ff
    >>> list(ff.pipe(range(3), ff.batch(2, collate=None), ff.collate()))
    [array([0, 1]), array([2])]
    """
    for datapoint in source:
        if not isinstance(datapoint, (list, tuple)):
            raise TypeError(
                f"collate(): a datapoint must be a list of datapoints, got {brief(datapoint)}; batch(n, collate=None) makes them"
            )
        if not datapoint:
            raise ValueError("collate(): a list of datapoints must not be empty; filter(len) leaves empty ones out")
        yield collated(datapoint, how)


@stage.expand
def unbatch(source: Any) -> Iterator[Any]:
    """Take batches apart: the inverse of `batch`. Rows of arrays are views.

    Lists of datapoints, as `batch(..., collate=None)` gives them, are taken apart by `flat_map(iter)`.

    Raises:
        ValueError: the components of a batch have different lengths.

    >>> import flowfn as ff
    >>> [[int(x), s] for x, s in ff.unbatch(ff.batch(2, [[1, "a"], [2, "b"], [3, "c"]]))]
    [[1, 'a'], [2, 'b'], [3, 'c']]
    """
    for datapoint in source:
        yield from rows_of(datapoint)


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
        return map(list, zip(*map(_items, batched)))
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
