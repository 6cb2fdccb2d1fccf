"""Parquet and Arrow (Feather): columns in groups of rows, as datapoints that are dicts.

The formats: https://parquet.apache.org/docs, https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.formats.tables.groups import TableRows
from flowfn.formats.tables.writing import write_arrow, write_parquet
from flowfn.storage.damage import warn_caller
from flowfn.storage.files import call, flow_of, is_url, open_file
from flowfn.storage.signatures import TABLES, likely_kind

STAND_INS = rules.optional(
    rules.Rule(
        "a dict, {column: what stands there for a missing value}",
        lambda value: isinstance(value, dict) and all(isinstance(k, str) for k in value),
    )
)
__all__ = ["read_arrow", "read_parquet", "write_arrow", "write_parquet"]


@rules.checked(arrays=rules.boolean, missing=STAND_INS)
def read_parquet(paths: Any, columns: Any = None, *, arrays: bool = False, missing: Any = None) -> Flow[Any]:
    """A flow of the rows of a Parquet file, or of several with the same columns, as dicts: {column: value}.

    `columns` is a list of those that are wanted (None: all). Values are Python's numbers, texts, bytes, lists, dicts,
    None; tensors, what `write_parquet` was given as arrays, and with `arrays=True` all lists of numbers are numpy
    arrays. Columns of several files are the same if their values are: texts may be stored as such, as views or in a
    dictionary.

    A missing value is None, and `batch` refuses numbers with None among them, so that a column has one form in every
    batch. `missing` says what stands there instead, {"age": -1, "size": math.nan}: every batch of the column is an
    array (of floats, if a float stands in a column of integers); `collate={"age": as_list}` of `batch` makes lists of
    all.

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
    return _flow(ParquetRows, paths, columns, arrays, missing, "read_parquet")


@rules.checked(arrays=rules.boolean, missing=STAND_INS)
def read_arrow(paths: Any, columns: Any = None, *, arrays: bool = False, missing: Any = None) -> Flow[Any]:
    """A flow of the rows of an Arrow file (Feather 2; `.arrow`, also as a stream), or of several, as dicts.

    As `read_parquet`, except that files are mapped into memory: what is not compressed is read in place. A stream
    without the mark that ends it may have been cut off, or may be whole: it is read, with a warning.

    Raises:
        ValueError: a file is no Arrow file, or a damaged one; it has no such column, or others than the first file;
            there is something behind the end of a stream.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/squares.arrow"
    >>> write_arrow(path, ({"x": x, "y": [x, x * x]} for x in range(4)))
    >>> read_arrow(path)[3]
    {'x': 3, 'y': [3, 9]}
    """
    return _flow(ArrowRows, paths, columns, arrays, missing, "read_arrow")


def _flow(kind: type[TableRows], paths: Any, columns: Any, arrays: bool, missing: Any, who: str) -> Flow[Any]:
    needed("pyarrow", f"{who}()", extra="parquet")
    rows = kind(paths, columns, arrays, missing, who)
    named = paths if isinstance(paths, (str, list, tuple)) else rows.paths
    return flow_of(
        rows, who, call(who, named, columns=(columns, None), arrays=(arrays, False), missing=(missing, None))
    )


def _checked_magic(path: str, who: str) -> bytes:
    """The first bytes of a file, or an error if they say that it is of another kind."""
    with open_file(path, who=f"{who}()") as file:
        begin: bytes = file.read(8)
    kind = likely_kind(begin, TABLES)
    if kind is not None and who not in kind.readers:
        remedy = f"write {kind.readers[0]}(path)" if kind.readers else kind.remedy
        raise ValueError(f"{who}(): {path} is {kind.called}; {remedy}")
    return begin


class ParquetRows(TableRows):
    """The rows of Parquet files."""

    def look(self, path: str) -> tuple[Any, list[int]]:
        """The schema, and how many rows each row group has."""
        _checked_magic(path, self.who)
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
            return parquet.ParquetFile(path, page_checksum_verification=True)
        below = open_file(path, who=f"{self.who}()")
        try:
            return _Parquet(parquet.ParquetFile(below, page_checksum_verification=True), below)
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

    checked = False

    def look(self, path: str) -> tuple[Any, list[int]]:
        """The schema, and how many rows each record batch has; one column is enough to know."""
        file = _Arrow(path, self.who)
        try:
            file.whole()
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
        """A record batch."""
        pa: Any = needed("pyarrow", "read_arrow()", extra="parquet")
        table = pa.Table.from_batches([file.batch(number)]).select(names)
        table.validate()
        return table

    def memory_of(self, file: Any, table: Any) -> int:
        """What is read in place holds no memory."""
        return sum(
            size
            for chunk in chain.from_iterable(column.chunks for column in table.columns)
            for size in file.unmapped(chunk)
        )


class _Arrow:
    """An open Arrow file: one with an index at its end, or a stream, of which all batches are noted."""

    def __init__(self, path: str, who: str, names: list[str] | None = None) -> None:
        pa: Any = needed("pyarrow", f"{who}()", extra="parquet")
        self.path, self.who, self.range = path, who, range(0)
        indexed = _checked_magic(path, who).startswith(b"ARROW1")
        self.file = pa.PythonFile(open_file(path, who=f"{who}()"), "r") if is_url(path) else pa.memory_map(path, "r")
        try:
            self.reader, self.batches = None, []
            if not is_url(path):
                mapped = self.file.read_buffer()
                self.file.seek(0)
                self.range = range(mapped.address, mapped.address + mapped.size)
            if indexed:
                self.reader = pa.ipc.open_file(self.file)
                self.schema, self.count = self.reader.schema, self.reader.num_record_batches
                wanted = [at for at, name in enumerate(self.schema.names) if names is None or name in names]
                if len(wanted) < len(self.schema) and not self._in_place():
                    self.reader = pa.ipc.open_file(self.file, options=pa.ipc.IpcReadOptions(included_fields=wanted))
            else:
                stream = pa.ipc.open_stream(self.file)
                self.schema, self.last = stream.schema, self.file.tell()
                for batch in stream:
                    self.batches.append(batch)
                    self.last = self.file.tell()
                self.count = len(self.batches)
        except BaseException:
            self.file.close()
            raise

    def whole(self) -> None:
        """Warn of a stream without the mark of its end, and refuse one with something behind it."""
        if self.reader is not None:
            return
        end = self.file.tell()
        behind = self.file.size() - end
        if behind:
            raise ValueError(
                f"{self.who}(): {self.path} has {behind} bytes behind the end of its stream, after {self.count} "
                "record batches; "
                "if these are more streams, write each to a file of its own"
            )
        if end == self.last:
            warn_caller(
                f"{self.who}(): {self.path} ends without the mark that ends a stream, after "
                f"{sum(map(len, self.batches))} rows: it may "
                "have been cut off, or its writer was never closed; compare that number, and write it anew if it is "
                "right"
            )

    def batch(self, number: int) -> Any:
        """A record batch."""
        return self.reader.get_batch(number) if self.reader is not None else self.batches[number]

    def unmapped(self, array: Any) -> Iterator[int]:
        """The bytes of each of the buffers of an array that are not read in place."""
        return (buffer.size for buffer in array.buffers() if buffer is not None and buffer.address not in self.range)

    def _in_place(self) -> bool:
        """Whether batches are read in place, as far as the first one tells; only some of their columns never are."""
        return bool(self.range) and not (
            self.count and any(any(self.unmapped(column)) for column in self.batch(0).columns)
        )

    def close(self) -> None:
        """Close the file; batches that somebody holds keep their memory."""
        self.reader, self.batches = None, []
        self.file.close()
