"""Tables in files, which lie there in groups of rows: a group is decoded when a row of it is wanted, and the last few are kept."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import numpy as np

from flowfn import forks
from flowfn.extras import needed
from flowfn.formats.damage import reading, tell
from flowfn.formats.files import Opened, stamp
from flowfn.formats.finding import paths_of
from flowfn.formats.members import Form

Convert: TypeAlias = Callable[[Any], list[Any]]

CACHED = 1 << 28
"""Bytes of decoded groups that are kept, at most, if it is more than one."""
FILES = 32
"""How many files are held open."""
SLICE = 1024
"""How many rows become Python objects at once."""
SCATTERED = 1 << 24
"""Bytes of scattered rows that are put together at once."""
FORM = b"flowfn"
"""Under this name a schema says whether datapoints are dicts, lists or bare values, and a field that it holds arrays."""


class Group(NamedTuple):
    """Some rows that are decoded together: in which file, the how-manieth there, how many."""

    file: int
    number: int
    rows: int


class TableRows(Opened):
    """The rows of tables in one or more files. Subclasses say how to look at a file, and how to decode a group."""

    def __init__(self, paths: Any, columns: Any, arrays: bool, who: str) -> None:
        self.paths = paths_of(paths, who)
        self.columns, self.arrays = columns, arrays
        super().__init__(self.paths[0], who)
        self.stamp = tuple(stamp(path, f"{who}()") for path in self.paths)
        self.groups: list[Group] = []
        self.form = self._looked_at()
        self.starts = np.cumsum([0, *(group.rows for group in self.groups)])

    def look(self, path: str) -> tuple[Any, list[int]]:
        """The schema of a file, and how many rows its groups have."""
        raise TypeError(f"{type(self).__name__} does not say how to read {path}")

    def opened(self, path: str) -> Any:
        """A file from which groups are decoded."""
        raise TypeError(f"{type(self).__name__} does not say how to open {path}")

    def decoded(self, file: Any, number: int, names: list[str]) -> Any:
        """A group, as an Arrow table of the named columns."""
        raise TypeError(f"{type(self).__name__} does not say how to read {self.path}")

    def open(self) -> _Tables:
        """What is open, and what has been decoded."""
        return _Tables(self)

    def _looked_at(self) -> Form:
        first: Any = None
        for at, path in enumerate(self.paths):
            schema, rows = self._told(path)
            self.groups += [Group(at, number, count) for number, count in enumerate(rows) if count]
            if first is None:
                first, form = schema, self._form(schema)
            else:
                self._agree(first, schema, form.names, path)
        return form

    def _told(self, path: str) -> tuple[Any, list[int]]:
        with reading(path, f"{self.who}(): {path} cannot be read, it is no such file, or a damaged one"):
            schema, rows = self.look(path)
            if min(rows, default=0) < 0:
                raise ValueError(f"it says that it has a group of {min(rows)} rows")
            if sum(rows) and not len(schema):
                raise ValueError(f"it says that it has {sum(rows)} rows of no columns")
            return schema, rows

    def _form(self, schema: Any) -> Form:
        names = list(schema.names)
        if self.columns is not None:
            if not isinstance(self.columns, (list, tuple)) or not all(isinstance(name, str) for name in self.columns):
                raise TypeError(f"{self.who}(): columns must be a list of names, or None for all, got {self.columns!r}")
            missing = [name for name in self.columns if name not in names]
            if missing or not self.columns:
                there = ", ".join(map(repr, names[:20]))
                raise ValueError(f"{self.who}(): columns must be some of {there} in {self.path}, got {self.columns!r}")
            return Form(list(self.columns), False, list(self.columns))
        if len(set(names)) < len(names):
            raise ValueError(f"{self.who}(): {self.path} has columns of the same name: {', '.join(map(repr, names[:20]))}")
        told = (schema.metadata or {}).get(FORM, b"dict")
        return Form(None if told in (b"list", b"bare") else names, told == b"bare", names)

    def _agree(self, first: Any, schema: Any, names: list[str], path: str) -> None:
        for name in names:
            here = schema.field(name).type if name in schema.names else "missing"
            if here != first.field(name).type:
                raise ValueError(
                    f"{self.who}(): files must have the same columns, but {name!r} is {here} in {path}, "
                    f"{first.field(name).type} in {self.path}"
                )

    # As a sequence of datapoints

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Any:
        index = self.within(index)
        at = int(np.searchsorted(self.starts, index, "right")) - 1
        (row,) = self._rows(at, self.handle.group(at).slice(index - int(self.starts[at]), 1))
        return row

    def __getitems__(self, indices: Sequence[int]) -> Iterator[Any]:
        if len(indices) < 2:
            return map(self.__getitem__, indices)
        wanted = np.asarray(indices, np.int64)
        self.within(int(wanted.min())), self.within(int(wanted.max()))
        if wanted[-1] - wanted[0] == len(wanted) - 1 and bool((np.diff(wanted) == 1).all()):
            return chain.from_iterable(self._in_order(int(wanted[0]), int(wanted[-1]) + 1))
        return self._scattered(wanted)

    def _in_order(self, start: int, stop: int) -> Iterator[Iterator[Any]]:
        at = int(np.searchsorted(self.starts, start, "right")) - 1
        while start < stop:
            first, end = int(self.starts[at]), min(int(self.starts[at + 1]), stop)
            table = self.handle.group(at)
            while start < end:
                count = min(SLICE, end - start)
                yield self._rows(at, table.slice(start - first, count))
                start += count
            at += 1

    def _scattered(self, wanted: np.ndarray) -> Iterator[Any]:
        groups = np.searchsorted(self.starts, wanted, "right") - 1
        first = 0
        while first < len(wanted):
            table = self.handle.group(int(groups[first]))
            many = min(max(SCATTERED * len(table) // max(table.nbytes, 1), 64), len(wanted) - first)
            chosen, within = groups[first : first + many], wanted[first : first + many]
            rows: list[Any] = [None] * many
            for group in dict.fromkeys(chosen.tolist()):
                places = np.flatnonzero(chosen == group)
                taken = self.handle.group(group).take(within[places] - self.starts[group])
                for place, row in zip(places.tolist(), self._rows(group, taken)):
                    rows[place] = row
            yield from rows
            first += many

    def _rows(self, at: int, table: Any) -> Iterator[Any]:
        convert = self.handle.converters(table)
        try:
            return self.form.each([one(column) for one, column in zip(convert, table.columns)])
        except Exception as error:
            self.tell(error, at)

    def tell(self, error: Exception, at: int) -> NoReturn:
        """Raise what is to be said of an error that came while a group was read."""
        group, first, end = self.groups[at], self.starts[at], self.starts[at + 1]
        path = self.paths[group.file]
        where = f"{self.who}(): group {group.number} of {path} (datapoints {first} to {end - 1})"
        tell(error, path, f"{where} cannot be read", "; is the file damaged?")


class _Tables:
    """Files that are open, and groups that have been decoded."""

    def __init__(self, rows: TableRows) -> None:
        self._rows = weakref.ref(rows)  # who is to close this when they are gone
        self._files: OrderedDict[int, Any] = OrderedDict()
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._converters: list[Convert] = []
        self._arrays, self._turn = rows.arrays, forks.lock()

    def converters(self, table: Any) -> list[Convert]:
        """What makes Python objects of each column."""
        if not self._converters:
            self._converters = [converter(field.type, self._arrays or FORM in (field.metadata or {})) for field in table.schema]
        return self._converters

    def group(self, at: int) -> Any:
        """A group as a table."""
        with self._turn:
            found = self._groups.get(at)
            if found is None:
                found = self._groups[at] = self._decoded(at, cast(TableRows, self._rows()))
                while sum(table.nbytes for table in self._groups.values()) > CACHED and len(self._groups) > 1:
                    self._groups.popitem(last=False)
            else:
                self._groups.move_to_end(at)
            return found

    def _decoded(self, at: int, rows: TableRows) -> Any:
        group = rows.groups[at]
        path = rows.paths[group.file]
        try:
            table = rows.decoded(self._file(group.file, rows), group.number, rows.form.names)
        except Exception as error:
            rows.tell(error, at)
        if len(table) != group.rows:
            raise ValueError(f"{rows.who}(): {path} has changed: group {group.number} had {group.rows} rows, now it has {len(table)}")
        return table

    def _file(self, number: int, rows: TableRows) -> Any:
        if number not in self._files:
            self._files[number] = rows.opened(rows.paths[number])
            if len(self._files) > FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(number)
        return self._files[number]

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._groups.clear()


def converter(kind: Any, arrays: bool) -> Convert:
    """What makes Python objects of a column: numbers, texts, bytes, None, lists, dicts; of tensors arrays."""
    pa: Any = needed("pyarrow", "read_parquet()", extra="parquet")
    types = pa.types
    if isinstance(kind, pa.FixedShapeTensorType):
        return _each_chunk(lambda chunk: _tensors(chunk, kind))
    if isinstance(kind, pa.BaseExtensionType):
        inner = converter(kind.storage_type, arrays)
        return _each_chunk(lambda chunk: inner(pa.chunked_array([chunk.storage])))
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        return _each_chunk(lambda chunk: chunk.to_numpy(zero_copy_only=False).tolist())
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_float32(kind) or types.is_float64(kind):
        return _each_chunk(lambda chunk: chunk.to_pylist() if chunk.null_count else chunk.to_numpy(zero_copy_only=False).tolist())
    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if arrays and listed and (types.is_integer(kind.value_type) or types.is_floating(kind.value_type) or types.is_boolean(kind.value_type)):
        return _each_chunk(_vectors)
    return _pylist


def _each_chunk(convert: Callable[[Any], list[Any]]) -> Convert:
    """What converts a column that may lie in several chunks."""

    def converted(column: Any) -> list[Any]:
        chunks = column.chunks
        return convert(chunks[0]) if len(chunks) == 1 else list(chain.from_iterable(map(convert, chunks)))

    return converted


def _pylist(column: Any) -> list[Any]:
    made: list[Any] = column.to_pylist()
    return made


def _vectors(chunk: Any) -> list[Any]:
    """Lists of numbers as arrays; one in which a number is missing stays a list."""
    flat = chunk.flatten()
    lengths = chunk.value_lengths().fill_null(0) if chunk.null_count else chunk.value_lengths()
    ends = np.cumsum(lengths.to_numpy(zero_copy_only=False)).tolist()
    held = (flat.fill_null(0) if flat.null_count else flat).to_numpy(zero_copy_only=False)
    rows: list[Any] = [held[start:end].copy() for start, end in zip([0, *ends], ends)]
    if chunk.null_count or flat.null_count:
        there, valid = flat.is_valid().to_numpy(zero_copy_only=False), chunk.is_valid().to_pylist()
        for at, (start, end) in enumerate(zip([0, *ends], ends)):
            if not valid[at] or not there[start:end].all():
                rows[at] = chunk[at].as_py()
    return rows


def _tensors(chunk: Any, kind: Any) -> list[Any]:
    storage = chunk.storage
    held = storage.flatten().to_numpy(zero_copy_only=False)
    shape, order = tuple(kind.shape), kind.permutation
    rows = iter(held.reshape(len(storage) - storage.null_count, *shape))
    arrays = (row.transpose(order) if order else row for row in rows)
    if not storage.null_count:
        return [array.copy() for array in arrays]
    return [next(arrays).copy() if is_there else None for is_there in storage.is_valid().to_pylist()]
