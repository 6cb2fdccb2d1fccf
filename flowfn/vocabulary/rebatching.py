"""Batches of any sizes in, batches of one size out: by slicing and joining arrays, never row by row."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.datapoints import buffers, promotion, subclasses
from flowfn.datapoints.collating import as_array, shapes_of
from flowfn.datapoints.components import Datapoints, as_tuple_like, with_fields
from flowfn.flows.stages import stage
from flowfn.kinds.runs import Anchor, naturals
from flowfn.kinds.streams import Mark
from flowfn.kinds.traces import Trace
from flowfn.showing import brief


@stage.stream(
    where={"size": rules.positive, "drop_remainder": rules.boolean},
    note=rules.Rule("how many rows of the first batch are gone", lambda note: naturals(note, 1)),
)
def rebatch(size: int, source: Any, *, drop_remainder: bool = False, mark: Mark, trace: Trace | None) -> Iterator[Any]:
    """Make batches of `size` rows out of batches of any sizes; the last may be smaller, unless it is dropped.

    Batches are lists, tuples, namedtuples, dicts (nested ones too) or dataclasses of arrays and lists, or bare arrays,
    or the lists that `batch` makes of bare strings, and keep their form. Rows are not taken apart: what comes out of
    one batch is a slice of it (of arrays a view, not a copy, so that editing it edits the batch that came in), what
    comes out of several is one array, of the dtype that NumPy has for theirs if that holds all of them as they are
    (integers on both sides of 2**63 are uint64). Batches without rows are left out.

    Raises:
        ValueError: the components of a batch have different lengths, batches have different components, or arrays have
            rows of different shapes, or values that no dtype holds together.
        TypeError: a batch, or a component of it, is neither an array nor a list.

    >>> import flowfn as ff
    >>> [batch.tolist() for batch in ff.pipe(range(8), ff.batch(3), ff.rebatch(4))]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    rest = Rest(source, mark, trace)
    mark.anywhere(rest.note)
    for datapoint in source:
        rest.add(datapoint)
        while rest.rows >= size:
            yield rest.take(size)
    if rest.rows and not drop_remainder:
        yield rest.take(rest.rows)


class Remainder(NamedTuple):
    """A batch that is not used up: its number, the anchors upstream to read it again from, its form and its columns."""

    number: int
    upstream: dict[int, Anchor]
    form: Any
    columns: dict[Any, Any]
    rows: int


class Rest:
    """The rows that have been read and not given: batches, of the first of which `rows_gone` are gone."""

    def __init__(self, source: Any, mark: Mark, trace: Trace | None) -> None:
        self.source, self.mark, self.trace = source, mark, trace
        self.remainders: deque[Remainder] = deque()
        self.position: int = source.position
        self.rows_gone: int = mark.note[0] if mark.note else 0
        self.rows = -self.rows_gone

    def note(self) -> tuple[int, int]:
        """How many batches back the oldest is that is not used up, and how much of it is gone."""
        self.mark.upstream = self.remainders[0].upstream if self.remainders else {}
        return self.source.position - (self.remainders[0].number if self.remainders else self.position), self.rows_gone

    def add(self, batch: Any) -> None:
        """One more batch, the last that was read."""
        columns = columns_of(batch)
        rows = _row_count(columns, batch)
        if self.rows_gone > rows > 0 and not self.remainders:
            raise ValueError(
                f"rebatch(): the state says that {self.rows_gone} rows of a batch are gone, but it has {rows}: the "
                "data differs"
            )
        if rows:
            form = _rebuilt_batch(batch, dict.fromkeys(columns))
            self.remainders.append(Remainder(self.position, self.source.facts(before_last=True), form, columns, rows))
            self.rows += rows
        self.position += 1

    def take(self, count: int) -> Any:
        """A batch of the next `count` rows."""
        parts: list[tuple[Remainder, slice]] = []
        start, left = self.rows_gone, count
        for remainder in self.remainders:
            stop = min(start + left, remainder.rows)
            parts.append((remainder, slice(start, stop)))
            start, left = 0, left - (stop - start)
            if not left:
                break
        if self.trace is not None:
            self.trace((remainder.number for remainder, _ in parts), parts=True)
        made = _put_together(parts)
        last, rows = parts[-1]
        used_up = rows.stop == last.rows
        self.rows, self.rows_gone = self.rows - count, 0 if used_up else rows.stop
        for _ in range(len(parts) - (not used_up)):
            self.remainders.popleft()
        return made


def _put_together(parts: list[tuple[Remainder, slice]]) -> Any:
    """One batch of some rows of several, in the form of the first."""
    first = parts[0][0]
    for other, _ in parts:
        if type(other.form) is not type(first.form) or other.columns.keys() != first.columns.keys():
            shown = [brief(_rebuilt_batch(one.form, one.columns)) for one in (first, other)]
            raise ValueError(f"rebatch(): batches must have the same components, got {shown[0]} and {shown[1]}")
    return _rebuilt_batch(
        first.form,
        {path: _joined([remainder.columns[path][rows] for remainder, rows in parts]) for path in first.columns},
    )


def joined_batches(batches: Sequence[Any]) -> Any:
    """Batches in a row as one, or None where stacking the datapoints of all might give something else.

    Columns have to be arrays of one dtype and shape, or lists beside such an array: a list alone may be anything.

    >>> joined_batches([[np.array([1, 2]), ["a", "b"]], [np.array([3]), ["c"]]])
    [array([1, 2, 3]), ['a', 'b', 'c']]
    >>> joined_batches([np.array([1, 2]), np.array([0.5])]) is None
    True
    """
    columns = [columns_of(batch) for batch in batches]
    first, forms = columns[0], {type(batch) for batch in batches}
    rows = [{len(column) for column in one.values() if hasattr(column, "__len__")} for one in columns]
    if (
        len(forms) > 1
        or any(one.keys() != first.keys() for one in columns)
        or any(len(lengths) != 1 for lengths in rows)
    ):
        return None
    kinds = [{_kind_of(one[path]) for one in columns} for path in first]
    if any(len(kind) != 1 or kind == {None} for kind in kinds) or not any(
        isinstance(column, np.ndarray) for column in first.values()
    ):
        return None
    return _rebuilt_batch(batches[0], {path: _joined([one[path] for one in columns]) for path in first})


def _kind_of(column: Any) -> Any:
    """What columns have in common that can be joined; None if there is no such thing."""
    return (
        (column.dtype, column.shape[1:])
        if type(column) is np.ndarray and column.ndim
        else list
        if type(column) is list
        else None
    )


def columns_of(batch: Any, path: tuple[Any, ...] = ()) -> dict[Any, Any]:
    """The columns of a batch by their paths; below the batch itself only dicts nest."""
    if isinstance(batch, Mapping):
        items = batch.items()
    elif not path and isinstance(batch, (list, tuple)) and not isinstance(batch, Datapoints):
        items = dict(enumerate(batch)).items()
    elif not path and dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        items = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}.items()
    else:
        return {path: list(batch) if isinstance(batch, tuple) else batch}
    return {at: column for key, value in items for at, column in columns_of(value, (*path, key)).items()}


def _rebuilt_batch(form: Any, columns: Mapping[Any, Any], path: tuple[Any, ...] = ()) -> Any:
    """A batch of the form of another, with other columns."""
    if isinstance(form, Mapping):
        return {key: _rebuilt_batch(value, columns, (*path, key)) for key, value in form.items()}
    if not path and isinstance(form, Datapoints):
        return Datapoints(columns[path] or ())
    if not path and isinstance(form, (list, tuple)):
        items = [_rebuilt_batch(value, columns, (key,)) for key, value in enumerate(form)]
        return items if isinstance(form, list) else as_tuple_like(form, items)
    if not path and dataclasses.is_dataclass(form) and not isinstance(form, type):
        names = [field.name for field in dataclasses.fields(form)]
        return with_fields(form, {name: _rebuilt_batch(getattr(form, name), columns, (name,)) for name in names})
    return columns[path]


def _row_count(columns: Mapping[Any, Any], batch: Any) -> int:
    for column in columns.values():
        if isinstance(column, (str, bytes)) or not hasattr(column, "__len__") or not getattr(column, "shape", (0,)):
            raise TypeError(
                f"rebatch(): a batch is made of arrays and lists, one value for each row, got {brief(batch)}"
            )
    lengths = {_column_name(path): len(column) for path, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"rebatch(): the components of a batch have different lengths: {lengths}")
    if not lengths:
        raise TypeError(f"rebatch(): a batch has at least one component, got {brief(batch)}")
    return next(iter(lengths.values()))


def _column_name(path: tuple[Any, ...]) -> Any:
    return path[0] if len(path) == 1 else path


def _joined(parts: list[Any]) -> Any:
    """Slices of one column in a row; a list if one of them is."""
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, list) for part in parts):
        return list(chain.from_iterable(parts))
    if any(map(subclasses.carries, set(map(type, parts)))):
        return subclasses.joined_arrays(parts, _concatenated, _concatenated, "rebatch")
    return _concatenated([as_array(part, "rebatch") for part in parts])


def _concatenated(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len({array.shape[1:] for array in arrays}) > 1:
        raise ValueError(
            f"rebatch(): cannot join arrays of shapes {shapes_of(arrays)}; make their rows equal before "
            "(pad(0, length=n)), or take the batches apart (unbatch)"
        )
    dtype = promotion.common(arrays, "rebatch")
    return np.concatenate(
        arrays, out=buffers.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype), casting="unsafe"
    )
