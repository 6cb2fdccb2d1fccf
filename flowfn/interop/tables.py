"""Tables of pandas, polars and Arrow as sources: rows by index, and batches that are gathered column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datapoints.columns import Columns
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.sources import ArraysNode, Source
from flowfn.formats.tables.values import Convert, converter, fits, with_missing
from flowfn.showing import as_called, brief

_COLUMNS_RULE = rules.optional(rules.Rule("a list of names of columns", lambda value: isinstance(value, (list, tuple))))
_MISSING_RULE = rules.optional(
    rules.Rule(
        "a dict, {column: what stands there for a missing value}",
        lambda value: isinstance(value, dict),
    )
)


@rules.checked(columns=_COLUMNS_RULE, arrays=rules.boolean, missing=_MISSING_RULE, index=rules.boolean)
def from_table(
    table: Any, columns: Any = None, *, arrays: bool = False, missing: Any = None, index: bool = False
) -> Flow[Any]:
    """A flow of the rows of a table, as dicts: {column: value}; a whole batch is gathered in one call for each column.

    A table is a DataFrame of pandas or polars, a Table or RecordBatch of Arrow, or whatever else gives its columns to
    Arrow (`__arrow_c_stream__`). `columns` names those that are wanted (None: all). pandas' index is left out, or with
    `index=True` a column, or several, by its names ("index" if it has none).

    Values are those of `from_arrays` where a column is an array of one dtype: numbers and truth values, dates, times
    without a zone and durations (datetime64, timedelta64; a missing one is NaT), lists of one fixed length of numbers
    and tensors (arrays with more axes), categories that are such values. All else are Python's values, as
    `read_parquet` gives them: texts (a list in a batch), bytes, categories that are texts, times with a zone, times of
    day, decimals, lists, dicts, and columns in which something is missing, which is None. With `arrays=True` lists of
    numbers are arrays of their dtype. `missing` says what stands for a missing value, as for `read_parquet`:
    {"age": -1}. A column of objects in pandas gives these objects, and NaN in a column of floats is a float.

    Arrays and texts stay where the table has them, unless it has them in several pieces, or in a form of its own (texts
    of polars, a bit for each truth value). Rows are read-only, lists and dicts are new ones in each row, so nobody
    edits the table by them. An edit of a pandas DataFrame afterwards is not seen (before pandas 3 it may be).

    Raises:
        TypeError: it is no such table.
        ValueError: it has no columns, no such column, or two of one name; `missing` is no value like the others.
        ImportError: a column that is not NumPy's needs pyarrow.

    >>> import flowfn as ff, pandas as pd
    >>> table = pd.DataFrame({"age": [31, 62, 45], "name": ["Ann", "Bo", "Cy"]})
    >>> flow = from_table(table)
    >>> flow[2]
    {'age': np.int64(45), 'name': 'Cy'}
    >>> list(ff.batch(2, flow))
    [{'age': array([31, 62]), 'name': ['Ann', 'Bo']}, {'age': array([45]), 'name': ['Cy']}]
    """
    named, held = _named_columns(table, index)
    chosen = _chosen_columns(named, columns)
    wrong = [name for name in missing or {} if name not in chosen]
    if wrong:
        raise ValueError(f"from_table(): missing must name some of {_column_names(chosen)}, got {wrong[0]!r}")
    made = {name: _table_column(name, one, arrays, missing or {}) for name, one in chosen.items()}
    shown = as_called("from_table", f"{type(table).__module__.partition('.')[0]}[{_extent(made)}]")
    return Flow(Source(_Held(made, held), ArraysNode, shown=shown))


class _Held(Columns):
    """Columns, and the table that they look into: as long as somebody holds it, pandas does not write to them."""

    def __init__(self, columns: dict[Any, Any], table: Any) -> None:
        super().__init__(columns)
        self.table = table


class ArrowColumn:
    """A column as Arrow has it. Its rows are Python's values, made anew wherever they are read."""

    def __init__(self, column: Any, arrays: bool, missing: Sequence[Any] = ()) -> None:
        self.column, self.arrays, self.missing = column, arrays, missing
        self.convert = _converter(column.type, arrays)
        if missing:
            self.convert = with_missing(self.convert, missing[0], column.type)

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            if rows.step in (1, None):
                return self.convert(self.column.slice(rows.start, max(rows.stop - rows.start, 0)))
            return self.convert(_taken_rows_of(self.column, np.arange(rows.start, rows.stop, rows.step)))
        if isinstance(rows, np.ndarray):
            return self.convert(_taken_rows_of(self.column, rows))
        (value,) = self.convert(self.column.slice(range(len(self))[rows], 1))
        return value

    def __getstate__(self) -> Any:
        pa: Any = needed("pyarrow", "from_table()", extra="parquet")
        sink = pa.BufferOutputStream()  # pickled by itself, a slice of a column would take all of it along
        table = pa.table({"": self.column})
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return np.frombuffer(sink.getvalue(), np.uint8), self.arrays, self.missing

    def __setstate__(self, state: Any) -> None:
        pa: Any = needed("pyarrow", "from_table()", extra="parquet")
        stored, arrays, missing = state
        with pa.ipc.open_stream(pa.py_buffer(stored)) as stream:
            self.__init__(stream.read_all().column(0), arrays, missing)  # type: ignore[misc]


def _converter(kind: Any, arrays: bool) -> Convert:
    pa: Any = needed("pyarrow", "from_table()", extra="parquet")
    if not pa.types.is_dictionary(kind):
        return converter(kind, arrays)
    convert = converter(kind.value_type, arrays)
    return lambda column: convert(_without_dictionary(column))


def _without_dictionary(column: Any) -> Any:
    """A column without its dictionary."""
    pa: Any = needed("pyarrow", "from_table()", extra="parquet")
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)


def _taken_rows_of(column: Any, rows: np.ndarray) -> Any:
    pa: Any = needed("pyarrow", "from_table()", extra="parquet")
    try:
        return column.take(rows)
    except NotImplementedError:  # views of lists, run ends, and what holds them
        pieces = (column.slice(row, 1).chunks for row in rows.tolist())
        return pa.chunked_array([chunk for piece in pieces for chunk in piece if len(chunk)], column.type)


# What a table has


def _named_columns(table: Any, index: bool) -> tuple[list[tuple[Any, Any]], Any]:
    """The columns of a table, of pandas or Arrow, by name, and what is to be held as long as they are used."""
    kind = type(table)  # a DataFrame has its columns as attributes
    if hasattr(kind, "compute") or (hasattr(kind, "collect") and not hasattr(kind, "__len__")):
        word = "compute" if hasattr(kind, "compute") else "collect"
        raise TypeError(f"from_table(): a lazy table has no rows yet; write from_table(table.{word}())")
    if hasattr(kind, "iloc") and hasattr(table, "columns"):
        frame = table.reset_index() if index else table.copy(deep=False)
        return [(name, frame.iloc[:, at]) for at, name in enumerate(frame.columns)], frame
    if index:
        raise ValueError(f"from_table(): index is pandas', a table of {_library(table)} has none")
    if _library(table) == "polars" and hasattr(table, "get_columns"):
        return [(column.name, column) for column in table.get_columns()], None
    arrow = _arrow_table(table)
    return list(zip(arrow.column_names, arrow.columns)), None


def _arrow_table(table: Any) -> Any:
    if isinstance(table, dict):
        raise TypeError("from_table(): a dict is no table; write from_arrays(**columns)")
    if not hasattr(table, "__arrow_c_stream__") and not hasattr(table, "__arrow_c_array__"):
        raise _no_table(table)
    pa: Any = needed("pyarrow", "from_table()", extra="parquet")
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    try:
        return table if isinstance(table, pa.Table) else pa.table(table)
    except (pa.ArrowException, TypeError, ValueError):  # the stream of one column
        raise _no_table(table) from None


def _no_table(table: Any) -> TypeError:
    if any(kind.__name__ == "Dataset" and kind.__module__.startswith("datasets.") for kind in type(table).__mro__):
        return TypeError('from_table(): a Dataset gives its table so: from_table(dataset.with_format("arrow")[:])')
    return TypeError(
        "from_table(): a table is a DataFrame of pandas or polars, or a Table or RecordBatch of Arrow, got "
        f"{brief(table)}"
    )


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _chosen_columns(named: list[tuple[Any, Any]], wanted: Any) -> dict[Any, Any]:
    """The columns that are wanted, in that order."""
    if not named:
        raise ValueError("from_table(): a table must have columns, got one of none")
    names = [name for name, _ in named]
    twice = [name for name in (names if wanted is None else wanted) if names.count(name) > 1]
    if twice:
        raise ValueError(f"from_table(): columns must have different names, got {twice[0]!r} more than once")
    there = dict(named)
    chosen = {name: there[name] for name in (names if wanted is None else wanted) if name in there}
    if wanted is not None and (not wanted or len(chosen) < len(wanted)):
        raise ValueError(
            f"from_table(): columns must be some of {_column_names(there)}, each once, got {brief(list(wanted))}"
        )
    return chosen


def _column_names(named: dict[Any, Any]) -> str:
    return ", ".join(map(repr, list(named)[:20]))


def _extent(columns: dict[Any, Any]) -> str:
    rows = len(next(iter(columns.values())))
    return f"{rows} rows of {len(columns)} columns"


# A column as an array, or as it is


def _table_column(name: Any, column: Any, arrays: bool, missing: dict[Any, Any]) -> Any:
    """A column of pandas or Arrow as an array, if there is one that holds just the same, or else as it is."""
    if hasattr(column, "iloc"):
        if isinstance(column.dtype, np.dtype):
            return (_filled_in_pandas(column, name, missing[name]) if name in missing else column).to_numpy()
        column = _of_pandas(column)
    elif _library(column) == "polars":
        column = _of_polars(column)
    if isinstance(column, np.ndarray):
        return column
    pa: Any = needed("pyarrow", "from_table()", extra="parquet")
    column = _whole(pa, column)
    told = [missing[name]] if name in missing else []
    array = _array_of_column(pa, _without_nulls(pa, column, name, *told) if told else column)
    return ArrowColumn(column, arrays, told) if array is None else array


def _of_pandas(series: Any) -> Any:
    """A column that is not NumPy's as Arrow's where it is stored or meant like that, or else as an array."""
    kind = type(series.dtype).__name__
    if kind == "SparseDtype":
        return series.sparse.to_dense().to_numpy()  # numpy by itself makes int64 of int8
    inner = series.dtype.categories.dtype if kind == "CategoricalDtype" else None
    odd = inner is not None and not isinstance(inner, np.dtype) and type(inner).__name__ != "StringDtype"
    if odd or kind in ("PeriodDtype", "IntervalDtype"):
        return series.to_numpy(object)
    pa: Any = needed("pyarrow", "from_table()", extra="parquet")
    try:
        made = pa.array(series)
    except (pa.ArrowException, TypeError, ValueError):  # of somebody else's type, or in somebody else's time zone
        return series.to_numpy(object)
    return made if isinstance(made, pa.ChunkedArray) else pa.chunked_array([made])


def _of_polars(series: Any) -> Any:
    """A column of polars as Arrow's, or its objects and what Arrow does not have as an array of them."""
    pa: Any = needed("pyarrow", "from_table()", extra="parquet")
    try:
        if str(series.dtype) != "Object":  # of which Arrow is given the addresses
            return pa.chunked_array([series.to_arrow()])
    except pa.ArrowException:
        pass
    objects = np.empty(len(series), object)
    objects[:] = series.to_list()
    return objects


def _whole(pa: Any, column: Any) -> Any:
    """A column in one piece, if there may be one so large."""
    if column.num_chunks < 2:
        return column
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.ChunkedArray) else pa.chunked_array([whole])


def _without_nulls(pa: Any, column: Any, name: Any, value: Any) -> Any:
    """A column of numbers or times with a value in the place of each that is missing; of others as it is."""
    kind = pa.float64() if pa.types.is_integer(column.type) and isinstance(value, float) else column.type
    try:
        if not fits(value, column.type):
            raise TypeError
        return (
            column
            if value is None or not _is_plain_column(pa, kind)
            else column.cast(kind).fill_null(pa.scalar(value, kind))
        )
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise _unlike(name, column.type, value) from None


def _filled_in_pandas(series: Any, name: Any, value: Any) -> Any:
    """The same of a column that is NumPy's."""
    try:
        return series if value is None else series.fillna(np.asarray(value).astype(series.dtype)[()])
    except (TypeError, ValueError, OverflowError):
        raise _unlike(name, series.dtype, value) from None


def _unlike(name: Any, kind: Any, value: Any) -> ValueError:
    return ValueError(
        f"from_table(): missing must have a value like the others of {name!r}, {kind}, got {brief(value)}"
    )


def _array_of_column(pa: Any, column: Any) -> np.ndarray | None:
    """The array of a column, in the memory that it has where there is one such; None if none holds just the same."""
    kind, types = column.type, pa.types
    if column.num_chunks > 1:
        return None
    if types.is_dictionary(kind):
        return _array_of_column(pa, _without_dictionary(column)) if _is_plain_column(pa, kind.value_type) else None
    chunk = column.chunk(0) if column.num_chunks else pa.array([], kind)
    if isinstance(kind, pa.FixedShapeTensorType) and not chunk.null_count:
        kind, chunk, shape = kind.storage_type, chunk.storage, tuple(kind.shape)
        return None if column.type.permutation else _rows_of_lists(pa, chunk, kind, shape)
    if types.is_fixed_size_list(kind):
        return _rows_of_lists(pa, chunk, kind, (kind.list_size,))
    if not _is_plain_column(pa, kind) or (chunk.null_count and not types.is_temporal(kind)):
        return None
    made: np.ndarray = chunk.to_numpy(zero_copy_only=False)
    return made


def _is_plain_column(pa: Any, kind: Any) -> bool:
    """Whether numpy has a dtype that holds just the values of a type."""
    types = pa.types
    times = (types.is_timestamp(kind) and kind.tz is None) or types.is_date(kind) or types.is_duration(kind)
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or times)


def _rows_of_lists(pa: Any, chunk: Any, kind: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Lists of one length as an array of rows."""
    if chunk.null_count or pa.types.is_temporal(kind.value_type):
        return None
    flat = chunk.flatten()
    inner = _array_of_column(pa, pa.chunked_array([flat], kind.value_type))
    return None if inner is None or inner.dtype == object else inner.reshape(len(chunk), *shape, *inner.shape[1:])
