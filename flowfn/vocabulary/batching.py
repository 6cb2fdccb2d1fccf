"""Stages that put datapoints together and take them apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from flowfn import rules
from flowfn.datapoints.collating import BATCHING, COLLATION, as_list, batched, collated, stack
from flowfn.datapoints.components import Datapoints, with_fields
from flowfn.flows.stages import stage
from flowfn.showing import brief
from flowfn.vocabulary.rebatching import joined_batches

__all__ = ["as_list", "batch", "collate", "collated", "rows_of", "stack", "unbatch", "window"]


def _rows_joined(batches: Sequence[Any], collate: Any, **others: Any) -> Any:
    """One batch of the rows of several, if it is what collating them all would give: their columns have to be alike."""
    if isinstance(collate, (Mapping, list, tuple)):
        hows = [*collate.values()] if isinstance(collate, Mapping) else [*collate]
    else:
        hows = [collate]
    return joined_batches(batches) if all(getattr(how, "by_rows", False) for how in hows) else None


@stage.group(
    size="size", whole="drop_remainder", where={"size": rules.positive, **BATCHING}, joins=_rows_joined, together=True
)
def batch(size: int, source: Any, *, drop_remainder: bool = False, collate: Any = stack) -> Iterator[Any]:
    """Put `size` datapoints together; the last batch may be smaller, unless it is dropped.

    A batch has the form of its datapoints: lists give a list of arrays, dicts a dict, namedtuples a namedtuple,
    dataclasses a dataclass, bare numbers or arrays one array. `collate` says how: `stack` (the default; int -> int64,
    float -> float64, arrays keep their dtype, strings and bytes stay lists, tensors become arrays, None among numbers
    is an error, so that a component has one form in every batch), `pad(0)` (arrays of different sizes;
    `pad(0, mask=True)` says beside them what is real), `as_list`, any function of the list of values of a component, or
    one for each component: `{"image": stack, "boxes": as_list}`. With None a batch is the list of its datapoints (see
    `inside`, `collate`).

    A component that is a list of numbers (or of such lists) is stacked as an array would be: lists of one length make
    an array (size, length), of different lengths an error; `as_list` keeps them lists. A datapoint that is a list of
    numbers is a list of components: of a batch of [1, 2, 3], [4, 5, 6] there are three, of 2 numbers each. For one
    array (2, 3) make arrays of them before, by `map(np.array)`. `collate=torch.stack` keeps tensors.

    Raises:
        TypeError: tensors cannot become arrays (bfloat16, with gradients); `collate=torch.stack` keeps them.
        ValueError: datapoints differ in their number of components, or arrays in shape;
            None is among numbers; they are shown.

    >>> import flowfn as ff
    >>> list(ff.batch(2, [[1, "a"], [2, "b"], [3, "c"]]))
    [[array([1, 2]), ['a', 'b']], [array([3]), ['c']]]
    >>> list(ff.batch(2, [{"x": 1.5}, {"x": 2}], collate=ff.as_list))
    [{'x': [1.5, 2]}]
    >>> list(ff.batch(2, [[1, 2, 3], [4, 5, 6]])), list(ff.batch(2, [([1, 2, 3], "a"), ([4, 5, 6], "b")]))
    ([[array([1, 4]), array([2, 5]), array([3, 6])]], [(array([[1, 2, 3],
           [4, 5, 6]]), ['a', 'b'])])
    >>> list(ff.batch(2, ["a", "b", "c"], collate=None))
    [['a', 'b'], ['c']]
    """
    for datapoints in source:
        yield batched(datapoints, collate)


@stage.group(
    size="size", step="step", whole="drop_remainder", where={"size": rules.positive, "step": rules.positive, **BATCHING}
)
def window(
    size: int, source: Any, *, step: int = 1, drop_remainder: bool = False, collate: Any = stack
) -> Iterator[Any]:
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

    It ends what `batch(..., collate=None)` began, so that the datapoints of a batch can be chosen
    first and loaded later (see `inside`).

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
                f"collate(): a datapoint must be a list of datapoints, got {brief(datapoint)}; batch(n, collate=None) "
                "makes them"
            )
        if not datapoint:
            raise ValueError("collate(): a list of datapoints must not be empty; filter(len) leaves empty ones out")
        yield collated(datapoint, how)


@stage.expand
def unbatch(source: Any) -> Iterator[Any]:
    """Take batches apart: the inverse of `batch`, whatever its `collate`. Rows of arrays are views.

    What `batch` has changed stays so: numbers are those of arrays, lists of numbers are arrays,
    what was padded is padded.

    A list is a batch of datapoints with components, each an array or a list with one value for each datapoint. The
    lists that `batch` makes of bare strings (and bytes, None, whatever stays a list) or with `collate=None` are of a
    class of their own, and so are told from these. A plain list of datapoints, as a function makes it, is taken apart
    by `flat_map(iter)`.

    Raises:
        ValueError: the components of a batch have different lengths, or there are none.
        TypeError: a component is no array and no list.

    >>> import flowfn as ff
    >>> [[int(x), s] for x, s in ff.unbatch(ff.batch(2, [[1, "a"], [2, "b"], [3, "c"]]))]
    [[1, 'a'], [2, 'b'], [3, 'c']]
    >>> list(ff.unbatch(ff.batch(2, ["ab", "cd", "ef"])))
    ['ab', 'cd', 'ef']
    """
    for datapoint in source:
        yield from rows_of(datapoint)


def rows_of(batched: Any) -> Iterator[Any]:
    """The datapoints of a batch, in its form."""
    columns: Mapping[Any, Any]
    make: Callable[[tuple[Any, ...]], Any]
    if isinstance(batched, Datapoints):
        return iter(batched)
    if isinstance(batched, Mapping):
        columns, make = batched, lambda row: dict(zip(batched, row))
    elif isinstance(batched, (list, tuple)):
        columns, make = (
            dict(enumerate(batched)),
            list if isinstance(batched, list) else getattr(batched, "_make", tuple),
        )
    elif dataclasses.is_dataclass(batched) and not isinstance(batched, type):
        names = [field.name for field in dataclasses.fields(batched)]
        columns, make = (
            {name: getattr(batched, name) for name in names},
            lambda row: with_fields(batched, dict(zip(names, row))),
        )
    elif _is_column(batched) or hasattr(batched, "__next__"):
        return iter(batched)
    else:
        raise TypeError(
            "unbatch(): a batch must be an array, or a list, tuple, dict or dataclass of arrays and lists, got "
            f"{brief(batched)}; "
            "is there a batch() before it?"
        )
    if _rows_of_batch(columns) is None:
        raise ValueError(
            "unbatch(): a batch without components does not tell how many datapoints it was made of, got "
            f"{brief(batched)}"
        )
    return map(make, zip(*map(_items, columns.values())))


def _items(column: Any) -> Iterator[Any]:
    """The values of a component of a batch; a nested dict is a batch itself,
    and an empty one is so in every datapoint."""
    if not isinstance(column, Mapping):
        return iter(column)
    return ({} for _ in repeat(None)) if _rows_of_batch(column) is None else rows_of(column)


def _rows_of_batch(columns: Mapping[Any, Any]) -> int | None:
    """How many datapoints there are in a batch; None if nothing tells."""
    lengths = {name: _column_length(name, column) for name, column in columns.items()}
    known = {length for length in lengths.values() if length is not None}
    if len(known) > 1:
        raise ValueError(f"unbatch(): the components of a batch have different lengths: {lengths}")
    return next(iter(known), None)


def _column_length(name: Any, column: Any) -> int | None:
    if isinstance(column, Mapping):
        return _rows_of_batch(column)
    if not _is_column(column):
        raise TypeError(
            "unbatch(): a component of a batch must be an array or a list, one value for each datapoint, but "
            f"component {name!r} is "
            f"{brief(column)}; flat_map(iter) takes lists of datapoints apart"
        )
    return len(column)


def _is_column(column: Any) -> bool:
    """Whether there is one value for each datapoint in it."""
    return (
        hasattr(column, "__len__")
        and hasattr(column, "__getitem__")
        and getattr(column, "ndim", not isinstance(column, (str, bytes))) > 0
    )
