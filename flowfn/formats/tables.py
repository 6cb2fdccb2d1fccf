"""Parquet and Arrow (Feather): columns in groups of rows, as datapoints that are dicts.

The formats: https://parquet.apache.org/docs, https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

from typing import Any

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows import Flow
from flowfn.formats.files import call, flow_of, is_url, open_file
from flowfn.formats.groups import TableRows
from flowfn.formats.table_writing import write_arrow, write_parquet

__all__ = ["read_arrow", "read_parquet", "write_arrow", "write_parquet"]


def read_parquet(paths: Any, columns: Any = None, *, arrays: bool = False) -> Flow[Any]:
    """A flow of the rows of a Parquet file, or of several with the same columns, as dicts: {column: value}.

    `columns` is a list of those that are wanted (None: all). Values are Python's numbers, texts, bytes, lists, dicts,
    None; tensors, what `write_parquet` was given as arrays, and with `arrays=True` all lists of numbers are numpy arrays.
    Whole row groups are decoded, and the last are kept, up to 256 MB: read in order each is decoded once;
    `shuffle(window=n)` and `shuffle_buffer(n)` suit large groups. Paths may be URLs, glob patterns, ranges in braces
    ("part-{00..07}.parquet"), or a list or flow of them.

    Raises:
        ValueError: a file is no Parquet file, or a damaged one; it has no such column, or others than the first file.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/words.parquet"
    >>> write_parquet(path, ({"word": word, "letters": list(word)} for word in ["no", "go"]))
    >>> read_parquet(path)[1]
    {'word': 'go', 'letters': ['g', 'o']}
    >>> list(read_parquet([path, path], ["word"]))
    [{'word': 'no'}, {'word': 'go'}, {'word': 'no'}, {'word': 'go'}]
    """
    needed("pyarrow.parquet", "read_parquet()", extra="parquet")
    rules.boolean.check("read_parquet", "arrays", arrays, {})
    return _flow(ParquetRows(paths, columns, arrays, "read_parquet"), paths, columns, arrays)


def read_arrow(paths: Any, columns: Any = None, *, arrays: bool = False) -> Flow[Any]:
    """A flow of the rows of an Arrow file (Feather 2; `.arrow`, also as a stream), or of several, as dicts.

    As `read_parquet`, except that files are mapped into memory: what is not compressed is read in place.

    Raises:
        ValueError: a file is no Arrow file, or a damaged one; it has no such column, or others than the first file.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/squares.arrow"
    >>> write_arrow(path, ({"x": x, "y": [x, x * x]} for x in range(4)))
    >>> read_arrow(path)[3]
    {'x': 3, 'y': [3, 9]}
    """
    needed("pyarrow", "read_arrow()", extra="parquet")
    rules.boolean.check("read_arrow", "arrays", arrays, {})
    return _flow(ArrowRows(paths, columns, arrays, "read_arrow"), paths, columns, arrays)


def _flow(rows: TableRows, paths: Any, columns: Any, arrays: bool) -> Flow[Any]:
    named = paths if isinstance(paths, (str, list, tuple)) else rows.paths
    return flow_of(rows, rows.who, call(rows.who, named, columns=(columns, None), arrays=(arrays, False)))


class ParquetRows(TableRows):
    """The rows of Parquet files."""

    def look(self, path: str) -> tuple[Any, list[int]]:
        """The schema, and how many rows each row group has."""
        file = self.opened(path)
        try:
            told = file.metadata
            return file.schema_arrow, [told.row_group(number).num_rows for number in range(told.num_row_groups)]
        finally:
            file.close()

    def opened(self, path: str) -> Any:
        """An open file; Arrow reads local ones itself."""
        parquet: Any = needed("pyarrow.parquet", "read_parquet()", extra="parquet")
        if not is_url(path):
            return parquet.ParquetFile(path)
        below = open_file(path, who=f"{self.who}()")
        try:
            return _Parquet(parquet.ParquetFile(below), below)
        except BaseException:
            below.close()
            raise

    def decoded(self, file: Any, number: int, names: list[str]) -> Any:
        """A row group."""
        return file.read_row_group(number, columns=names).select(names)


class _Parquet:
    """An open Parquet file that closes what is below it, too."""

    def __init__(self, file: Any, below: Any) -> None:
        self.below = below
        self.metadata, self.schema_arrow, self.read_row_group = file.metadata, file.schema_arrow, file.read_row_group

    def close(self) -> None:
        """Close the file."""
        self.below.close()


class ArrowRows(TableRows):
    """The rows of Arrow files, in either form."""

    def look(self, path: str) -> tuple[Any, list[int]]:
        """The schema, and how many rows each record batch has; one column is enough to know."""
        file = _Arrow(path, self.who)
        try:
            schema = file.schema
            if file.reader is not None and len(schema):
                small = _Arrow(path, self.who, [schema.names[0]])
                try:
                    return schema, [len(small.batch(number)) for number in range(small.count)]
                finally:
                    small.close()
            return schema, [len(file.batch(number)) for number in range(file.count)]
        finally:
            file.close()

    def opened(self, path: str) -> Any:
        """An open file."""
        return _Arrow(path, self.who, self.form.names)

    def decoded(self, file: Any, number: int, names: list[str]) -> Any:
        """A record batch; of a damaged one Arrow would take values from anywhere in memory."""
        pa: Any = needed("pyarrow", "read_arrow()", extra="parquet")
        table = pa.Table.from_batches([file.batch(number)]).select(names)
        table.validate(full=True)
        return table


class _Arrow:
    """An open Arrow file: one with an index at its end, or a stream, of which all batches are noted."""

    def __init__(self, path: str, who: str, names: list[str] | None = None) -> None:
        pa: Any = needed("pyarrow", f"{who}()", extra="parquet")
        with open_file(path, who=f"{who}()") as told:
            indexed = told.read(6) == b"ARROW1"
        self.file = pa.PythonFile(open_file(path, who=f"{who}()"), "r") if is_url(path) else pa.memory_map(path, "r")
        try:
            self.reader, self.batches = None, []
            if indexed:
                self.reader = pa.ipc.open_file(self.file)
                if names is not None:
                    wanted = [at for at, name in enumerate(self.reader.schema.names) if name in names]
                    self.reader = pa.ipc.open_file(self.file, options=pa.ipc.IpcReadOptions(included_fields=wanted))
                self.schema = self.reader.schema
                self.count = self.reader.num_record_batches
            else:
                stream = pa.ipc.open_stream(self.file)
                self.schema, self.batches = stream.schema, list(stream)
                self.count = len(self.batches)
        except BaseException:
            self.file.close()
            raise

    def batch(self, number: int) -> Any:
        """A record batch."""
        return self.reader.get_batch(number) if self.reader is not None else self.batches[number]

    def close(self) -> None:
        """Close the file; batches that somebody holds keep their memory."""
        self.reader, self.batches = None, []
        self.file.close()
