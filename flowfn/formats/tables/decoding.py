"""Groups of rows that have been decoded: as Arrow tables, of which the last few are kept,
beside the files that are open."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

import numpy as np

from flowfn.extras import needed
from flowfn.formats.joining.several import FILES
from flowfn.formats.tables.values import DAMAGED, Convert, converter, stands_alone, with_missing
from flowfn.process import forks
from flowfn.storage.recent import Recent

GROUP_CACHE = 1 << 28
"""Bytes of decoded groups that are kept, at most, if it is more than one."""
COLUMN = 1 << 10
"""Bytes that a column of a group takes beside its values."""


@dataclass(slots=True)
class DecodedGroup:
    """A group: its table, what makes Python objects of each column, the memory that it holds,
    and the bytes of its values.

    `checked` says whether it is known to hold nothing but what a table may hold, else `seen` of how many rows; `apart`,
    whether that can be found out of some rows without looking at all.
    """

    table: Any
    convert: list[Convert]
    memory: int
    nbytes: int
    checked: bool
    apart: bool
    seen: int = 0

    def take(self, rows: np.ndarray) -> Any:
        """Some of the rows, put together."""
        try:
            return self.table.take(rows)
        except NotImplementedError:  # views, run ends, and what holds them
            return self._columns(lambda column: _rows_of(column, rows))

    def picked(self, rows: np.ndarray) -> Any:
        """Some of the rows, of which nothing else is looked at."""
        return self._columns(lambda column: _picked(column, rows))

    def _columns(self, change: Callable[[Any], Any]) -> Any:
        return type(self.table).from_arrays([change(column) for column in self.table.columns], schema=self.table.schema)


def _rows_of(column: Any, rows: np.ndarray) -> Any:
    try:
        return column.take(rows)
    except NotImplementedError:
        return _picked(column, rows)


def _picked(column: Any, rows: np.ndarray) -> Any:
    pa: Any = needed("pyarrow", "read_arrow()", extra="parquet")
    pieces = (column.slice(row, 1).chunks for row in rows.tolist())
    return pa.chunked_array([chunk for piece in pieces for chunk in piece if len(chunk)], column.type)


class Grouped(Protocol):
    """What has groups of rows: in which files they are, and how a file is opened and a group of it decoded."""

    who: str
    paths: list[str]
    form: Any
    missing: Mapping[str, Any]

    @property
    def groups(self) -> Sequence[Any]: ...

    @property
    def checked(self) -> bool: ...

    @property
    def vectors(self) -> Collection[str]: ...

    def opened(self, path: str) -> Any: ...

    def decoded(self, file: Any, number: int, names: list[str]) -> Any: ...

    def memory_of(self, file: Any, table: Any) -> int: ...

    def tell(self, error: Exception, at: int, hint: str) -> NoReturn: ...


class Tables:
    """Files that are open, and groups that have been decoded."""

    def __init__(self, rows: Grouped) -> None:
        self._rows = weakref.ref(rows)  # who is to close this when they are gone
        self._files: Recent[Any] = Recent(FILES)
        self._groups: Recent[DecodedGroup] = Recent(GROUP_CACHE)
        self._turn = forks.lock()

    def group(self, at: int) -> DecodedGroup:
        """A group."""
        with self._turn:
            group = self._groups.get(at)
            if group is None:
                group = self._decoded(at, cast("Grouped", self._rows()))
                self._groups.put(at, group, group.memory)
            return group

    def _decoded(self, at: int, rows: Grouped) -> DecodedGroup:
        group = rows.groups[at]
        try:
            file = self._file(group.file, rows)
            table = rows.decoded(file, group.number, rows.form.names)
            nbytes, memory = int(table.nbytes), rows.memory_of(file, table) + COLUMN * table.num_columns
        except Exception as error:
            rows.tell(error, at, DAMAGED)
        if len(table) != group.rows:
            path = rows.paths[group.file]
            raise ValueError(
                f"{rows.who}(): {path} has changed: group {group.number} had {group.rows} rows, now it has {len(table)}"
            )
        apart = rows.checked or all(map(stands_alone, table.schema.types))
        return DecodedGroup(
            table, [self._converter(field, rows) for field in table.schema], memory, nbytes, rows.checked, apart
        )

    def _converter(self, field: Any, rows: Grouped) -> Convert:
        made = converter(field.type, field.name in rows.vectors)
        return with_missing(made, rows.missing[field.name], field.type) if field.name in rows.missing else made

    def _file(self, number: int, rows: Grouped) -> Any:
        file = self._files.get(number)
        if file is None:
            file = rows.opened(rows.paths[number])
            for oldest in self._files.put(number, file):
                oldest.close()
        return file

    def close(self) -> None:
        """Close the files."""
        for file in self._files.clear():
            file.close()
        self._groups.clear()
