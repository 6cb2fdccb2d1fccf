"""Writing Parquet and Arrow: datapoints become columns, a thousand at a time, and go to the file in groups of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from more_itertools import ichunked

from flowfn import rules
from flowfn.extras import needed
from flowfn.formats.joining.members import Makeup, parts_as, parts_of
from flowfn.formats.tables.values import FORM
from flowfn.storage.writing import shown, written_whole

ROWS_AT_ONCE = 1000
"""How many datapoints become Arrow arrays at once."""
GROUP_BYTES = 1 << 23
"""Bytes that make a group of rows, if nobody says how many rows do."""


@rules.checked(
    compression=rules.one_of("zstd", "snappy", "gzip", "brotli", "lz4", None),
    group=rules.optional(rules.positive),
    overwrite=rules.boolean,
)
def write_parquet(
    path: Any,
    flow: Any,
    *,
    group: int | None = None,
    compression: str | None = "zstd",
    schema: Any = None,
    overwrite: bool = False,
) -> None:
    """Write datapoints to a Parquet file: a column for each component, named by its key (of lists: "0", "1").

    Components are what Arrow knows: numbers, texts, bytes, None, dates, lists and dicts of these, and numpy arrays
    (with one axis, of any length; with more, all of one shape). Types are found out from the first thousand datapoints,
    or given as a `schema` of pyarrow. `group` is how many rows make a row group, which is decoded as a whole (None: so
    many as make 8 MB); `compression` is "zstd", "snappy", "gzip", "brotli", "lz4" or None. `read_parquet` gives back
    what was written, except that tuples become lists, and numpy's numbers Python's. A bar is shown; the file appears at
    `path` when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or there are none; Arrow does not know what is in them.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/images.parquet"
    >>> from flowfn.formats.tables.reading import read_parquet
    >>> write_parquet(path, [[np.zeros((2, 2)), "zero"], [np.ones((2, 2)), "one"]])
    >>> read_parquet(path)[1]
    [array([[1., 1.],
           [1., 1.]]), 'one']
    """
    parquet: Any = needed("pyarrow.parquet", "write_parquet()", extra="parquet")

    def begin(sink: Any, schema: Any) -> tuple[Any, Callable[[Any], None]]:
        writer = parquet.ParquetWriter(sink, schema, compression=compression or "none")
        return writer, lambda table: writer.write_table(table, row_group_size=len(table))

    _write_table("write_parquet", path, flow, group, schema, overwrite, begin)


@rules.checked(
    compression=rules.one_of("zstd", "lz4", None), group=rules.optional(rules.positive), overwrite=rules.boolean
)
def write_arrow(
    path: Any,
    flow: Any,
    *,
    group: int | None = None,
    compression: str | None = None,
    schema: Any = None,
    overwrite: bool = False,
) -> None:
    """Write datapoints to an Arrow file (Feather 2): a column for each component,
    named by its key (of lists: "0", "1").

    As `write_parquet`; `compression` is None (what is read is then read in place), "lz4" or "zstd", and `group` is how
    many rows make a record batch.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or there are none; Arrow does not know what is in them.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/words.arrow"
    >>> from flowfn.formats.tables.reading import read_arrow
    >>> write_arrow(path, ["some", "words"])
    >>> list(read_arrow(path))
    ['some', 'words']
    """
    pa: Any = needed("pyarrow", "write_arrow()", extra="parquet")

    def begin(sink: Any, schema: Any) -> tuple[Any, Callable[[Any], None]]:
        writer = pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression=compression))
        return writer, lambda table: writer.write_table(table.combine_chunks(), max_chunksize=max(len(table), 1))

    _write_table("write_arrow", path, flow, group, schema, overwrite, begin)


def _write_table(who: str, path: Any, flow: Any, group: int | None, schema: Any, overwrite: bool, begin: Any) -> None:
    pa: Any = needed("pyarrow", f"{who}()", extra="parquet")
    if schema is not None and not isinstance(schema, pa.Schema):
        raise TypeError(f"{who}(): schema must be a pyarrow.Schema or None, got {type(schema).__name__}")
    with (
        shown(flow, who) as datapoints,
        written_whole(path, overwrite, who) as beside,
        pa.OSFile(beside, "wb") as sink,  # which a writer that cannot end itself would leave open
        _writing() as opened,
    ):
        pending: list[Any] = []
        put: Any = None
        for table in _tables(datapoints, who, schema):
            if put is None:
                writer, put = begin(sink, table.schema)
                opened.append(writer)
            pending.append(table)
            pending = _put_groups(pa, pending, group, put)
        if put is None:
            raise ValueError(f"{who}(): there are no datapoints, so nobody knows what columns to write")
        if pending:
            put(pa.concat_tables(pending))


@contextmanager
def _writing() -> Iterator[list[Any]]:
    opened: list[Any] = []
    try:
        yield opened
    finally:
        for writer in opened:
            writer.close()


def _put_groups(pa: Any, pending: list[Any], group: int | None, put: Callable[[Any], None]) -> list[Any]:
    """Write what makes whole groups; what is left is returned."""
    rows = sum(map(len, pending))
    if group is None:
        if sum(table.nbytes for table in pending) < GROUP_BYTES and rows < 100 * ROWS_AT_ONCE:
            return pending
        put(pa.concat_tables(pending))
        return []
    if rows < group:
        return pending
    whole = pa.concat_tables(pending)
    for start in range(0, rows - group + 1, group):
        put(whole.slice(start, group))
    return [whole.slice(rows - rows % group)] if rows % group else []


def _tables(datapoints: Iterable[Any], who: str, schema: Any) -> Iterator[Any]:
    """Datapoints as Arrow tables of one schema."""
    pa: Any = needed("pyarrow", f"{who}()", extra="parquet")
    form: Makeup | None = None
    number = 0
    for chunk in ichunked(datapoints, ROWS_AT_ONCE):
        rows = []
        for at, datapoint in enumerate(chunk, number):
            form = form or parts_of(datapoint, who)[0]
            parts = parts_as(form, datapoint, who)
            if parts is None:
                raise ValueError(
                    f"{who}(): all datapoints must have the components of the first, {form.names}, but datapoint "
                    f"{at} has {parts_of(datapoint, who)[0].names}"
                )
            rows.append(parts)
        if form is None or not form.names:
            raise ValueError(f"{who}(): datapoints must have components, got {datapoint!r}")
        columns = list(zip(*rows))
        if schema is None:
            schema = pa.schema([_schema_field(pa, name, column, who) for name, column in zip(form.names, columns)])
        schema = _schema_with_form(schema, form, who)
        yield pa.Table.from_arrays(
            [_column_array(pa, schema.field(n), c, who, number) for n, c in zip(form.names, columns)], schema=schema
        )
        number += len(rows)


def _schema_with_form(schema: Any, form: Makeup, who: str) -> Any:
    """The schema, which also says what datapoints look like."""
    if schema.names != form.names:
        raise ValueError(f"{who}(): schema must have the columns {form.names}, as datapoints do, got {schema.names}")
    if form.keys is not None:
        return schema
    return schema.with_metadata({**(schema.metadata or {}), FORM: b"bare" if form.bare else b"list"})


def _schema_field(pa: Any, name: str, column: tuple[Any, ...], who: str) -> Any:
    """The name and type of a column, from its first values."""
    arrays = [value for value in column if isinstance(value, np.ndarray) and value.ndim]
    if not arrays:
        return pa.field(name, _converted(pa, [_arrow_value(value) for value in column], None, name, who, 0).type)
    dtypes, shapes = {array.dtype.newbyteorder("=") for array in arrays}, {array.shape for array in arrays}
    flat = all(len(shape) == 1 for shape in shapes)
    if (
        len(dtypes) > 1
        or len(arrays) + sum(value is None for value in column) < len(column)
        or not (flat or len(shapes) == 1)
    ):
        told = sorted({f"{array.dtype} {array.shape}" for array in arrays})[:5]
        raise ValueError(
            f"{who}(): the arrays of column {name!r} must have one dtype, and one axis or all the same shape, got "
            f"{', '.join(told)}; "
            "make them alike before, or write bytes"
        )
    try:
        kind = pa.from_numpy_dtype(next(iter(dtypes)))
    except (pa.ArrowNotImplementedError, TypeError) as error:
        raise TypeError(
            f"{who}(): column {name!r} holds arrays of {arrays[0].dtype}, which Arrow does not know; convert them "
            "before"
        ) from error
    if flat:
        return pa.field(name, pa.list_(kind), metadata={FORM: b"array"})
    return pa.field(name, pa.fixed_shape_tensor(kind, arrays[0].shape))


def _column_array(pa: Any, field: Any, column: tuple[Any, ...], who: str, number: int) -> Any:
    """The values of a column as an Arrow array."""
    if not isinstance(field.type, pa.FixedShapeTensorType):
        return _converted(pa, [_arrow_value(value) for value in column], field.type, field.name, who, number)
    shape, dtype = tuple(field.type.shape), np.dtype(field.type.value_type.to_pandas_dtype())
    if 0 in shape and who == "write_parquet":
        raise ValueError(
            f"{who}(): column {field.name!r} holds arrays {shape}, which are empty, and Parquet cannot read such; "
            "leave it out"
        )
    for at, value in enumerate(column, number):
        alike = isinstance(value, np.ndarray) and value.shape == shape and np.can_cast(value.dtype, dtype, "safe")
        if value is not None and not alike:
            given = f"an array of {value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)[:80]
            raise ValueError(
                f"{who}(): column {field.name!r} holds arrays of {dtype} {shape}, but datapoint {at} has {given}; "
                "make them alike before"
            )
    flat = [value if value is None else _native(value.reshape(-1)) for value in column]
    return pa.ExtensionArray.from_storage(field.type, pa.array(flat, field.type.storage_type))


def _converted(pa: Any, column: list[Any], kind: Any, name: str, who: str, number: int) -> Any:
    """Values as an array of a type; those that do not fit are an error, and are not made to fit."""
    kinds = {value.dtype if isinstance(value, np.generic) else None for value in column}
    dtype = kinds.pop() if len(kinds) == 1 else None
    try:
        try:
            array = pa.array(np.array(column, dtype) if dtype is not None and dtype.kind in "biufmM" else column)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            if kind is None:
                raise
            return pa.array(column, kind)
        if kind is None or array.type == kind:
            return array
        try:
            return array.cast(kind)
        except pa.ArrowNotImplementedError:
            return pa.array(column, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{who}(): column {name!r} of datapoints {number} to {number + len(column) - 1} cannot be written as "
            f"{'one type' if kind is None else kind}: {error}; make values alike before, or pass schema="
        ) from error


def _arrow_value(value: Any) -> Any:
    return _native(value) if isinstance(value, np.ndarray) else value


def _native(array: np.ndarray) -> Any:
    """An array in this machine's order of bytes, or its one value."""
    if not array.ndim:
        return array[()]
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
