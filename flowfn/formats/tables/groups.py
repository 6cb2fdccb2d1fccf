"""Tables in files, which lie there in groups of rows: a group is decoded when a row of it is wanted,
and the last few are kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from flowfn.formats.joining.members import Makeup
from flowfn.formats.tables.decoding import DecodedGroup, Tables
from flowfn.formats.tables.values import DAMAGED, FORM, Agreed, fits, maybe_whole
from flowfn.storage.damage import raise_clearly, reading
from flowfn.storage.files import Opened, stamp
from flowfn.storage.finding import paths_of

SLICE = 1024
"""How many rows become Python objects at once."""
GATHERED = 1 << 24
"""Bytes of scattered rows that are put together at once."""
UNCHECKED_RATIO = 64
"""Rows are checked one by one until there are no more than so many times as many in their group;
then all of it is, once."""


class RowGroup(NamedTuple):
    """Some rows that are decoded together: in which file, the how-manieth there, how many."""

    file: int
    number: int
    rows: int


class TableRows(Opened):
    """The rows of tables in one or more files. Subclasses say how to look at a file, and how to decode a group."""

    checked: ClassVar[bool] = True
    """Whether what `decoded` returns holds nothing but what an Arrow table may hold."""

    def __init__(self, paths: Any, columns: Any, arrays: bool, missing: Any, who: str) -> None:
        self.paths = paths_of(paths, who)
        self.columns, self.arrays, self.missing = columns, arrays, missing or {}
        super().__init__(self.paths[0], who)
        self.stamp = tuple(stamp(path, f"{who}()") for path in self.paths)
        self.groups: list[RowGroup] = []
        self.form = self._looked_at()
        self.starts = np.cumsum([0, *(group.rows for group in self.groups)])
        self.begins = self.starts.tolist()

    def look(self, path: str) -> tuple[Any, list[int]]:
        """The schema of a file, and how many rows its groups have."""
        raise TypeError(f"{type(self).__name__} does not say how to read {path}")

    def opened(self, path: str) -> Any:
        """A file from which groups are decoded."""
        raise TypeError(f"{type(self).__name__} does not say how to open {path}")

    def decoded(self, file: Any, number: int, names: list[str]) -> Any:
        """A group, as an Arrow table of the named columns."""
        raise TypeError(f"{type(self).__name__} does not say how to read {self.path}")

    def memory_of(self, file: Any, table: Any) -> int:
        """How many bytes of memory a decoded group holds."""
        return int(table.nbytes)

    def open(self) -> Tables:
        """What is open, and what has been decoded."""
        return Tables(self)

    def _looked_at(self) -> Makeup:
        for at, path in enumerate(self.paths):
            schema, rows = self._layout(path)
            self.groups += [RowGroup(at, number, count) for number, count in enumerate(rows) if count]
            if not at:
                form = self._form(schema)
                metadata = {name: schema.field(name).metadata or {} for name in form.names}
                self.vectors = [name for name in form.names if self.arrays or FORM in metadata[name]]
                agreed = Agreed(form.names, self.vectors, self.columns is None, self.who)
            agreed.add(schema, path)
        self._check_missing({name: kind for name, (_, kind, _) in agreed.seen.items()})
        return form

    def _layout(self, path: str) -> tuple[Any, list[int]]:
        failed = f"{self.who}(): {path} cannot be read"
        with reading(path, failed, "; it is no such file, or a damaged one"):
            try:
                schema, rows = self.look(path)
            except Exception as error:
                if maybe_whole(error):
                    raise_clearly(error, path, failed)
                raise
            if min(rows, default=0) < 0:
                raise ValueError(f"it says that it has a group of {min(rows)} rows")
            if sum(rows) and not len(schema):
                raise ValueError(f"it says that it has {sum(rows)} rows of no columns")
            return schema, rows

    def _form(self, schema: Any) -> Makeup:
        names = list(schema.names)
        if self.columns is not None:
            if not isinstance(self.columns, (list, tuple)) or not all(isinstance(name, str) for name in self.columns):
                raise TypeError(f"{self.who}(): columns must be a list of names, or None for all, got {self.columns!r}")
            wrong = [name for name in self.columns if names.count(name) != 1]
            if wrong or not self.columns:
                twice = f", and {wrong[0]!r} is there more than once" if wrong and wrong[0] in names else ""
                there = ", ".join(map(repr, dict.fromkeys(names[:20])))
                raise ValueError(
                    f"{self.who}(): columns must be some of {there} in {self.path}, got {self.columns!r}{twice}"
                )
            return Makeup(list(self.columns), False, list(self.columns))
        if len(set(names)) < len(names):
            raise ValueError(
                f"{self.who}(): {self.path} has columns of the same name: {', '.join(map(repr, names[:20]))}"
            )
        told = (schema.metadata or {}).get(FORM, b"dict")
        return Makeup(None if told in (b"list", b"bare") else names, told == b"bare", names)

    def _check_missing(self, kinds: dict[str, Any]) -> None:
        for name, value in self.missing.items():
            if name not in kinds:
                raise ValueError(f"{self.who}(): missing must name some of {', '.join(map(repr, kinds))}, got {name!r}")
            if not fits(value, kinds[name]):
                raise ValueError(
                    f"{self.who}(): missing must have a value like the others of {name!r}, {kinds[name]}, got {value!r}"
                )

    # As a sequence of datapoints

    def __len__(self) -> int:
        return int(self.begins[-1])

    def __getitem__(self, index: int) -> Any:
        index = self.within(index)
        at = bisect_right(self.begins, index) - 1
        (row,) = self._slice(at, index - self.begins[at], 1)
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
            while start < end:
                count = min(SLICE, end - start)
                yield self._slice(at, start - first, count)
                start += count
            at += 1

    def _scattered(self, wanted: np.ndarray) -> Iterator[Any]:
        groups = np.searchsorted(self.starts, wanted, "right") - 1
        first = 0
        while first < len(wanted):
            group = self.handle.group(int(groups[first]))
            many = min(max(GATHERED * len(group.table) // max(group.nbytes, 1), 64), len(wanted) - first)
            chosen, within = groups[first : first + many], wanted[first : first + many]
            rows: list[Any] = [None] * many
            for at in dict.fromkeys(chosen.tolist()):
                places = np.flatnonzero(chosen == at)
                for place, row in zip(places.tolist(), self._take(at, within[places] - self.starts[at])):
                    rows[place] = row
            yield from rows
            first += many

    def _slice(self, at: int, start: int, count: int) -> Iterator[Any]:
        group = self.handle.group(at)
        table = group.table.slice(start, count)
        if not group.checked:
            self._check(at, group, table)
        return self._rows(at, group, table)

    def _take(self, at: int, rows: np.ndarray) -> Iterator[Any]:
        group = self.handle.group(at)
        if group.checked or not self._apart(group, len(rows)):
            self._check(at, group, group.table)
            return self._rows(at, group, group.take(rows))
        try:
            table = group.picked(rows)
        except Exception as error:
            self.tell(error, at, DAMAGED)
        self._check(at, group, table)
        return self._rows(at, group, table)

    def _apart(self, group: DecodedGroup, count: int) -> bool:
        return group.apart and (group.seen + count) * UNCHECKED_RATIO < len(group.table)

    def _check(self, at: int, group: DecodedGroup, table: Any) -> None:
        """Check rows before they are read, or all of their group;
        of a damaged one Arrow would take values from anywhere in memory."""
        if group.checked:
            return
        few = self._apart(group, len(table))
        try:
            (table if few else group.table).validate(full=True)
        except Exception as error:
            self.tell(error, at, DAMAGED)
        group.checked, group.seen = not few, group.seen + len(table)

    def _rows(self, at: int, group: DecodedGroup, table: Any) -> Iterator[Any]:
        columns = []
        try:
            for one, column in zip(group.convert, table.columns):
                columns.append(one(column))
        except Exception as error:
            name = self.form.names[len(columns)]
            self.tell(
                error,
                at,
                f"; its column {name!r} holds what cannot be a Python value; name the other columns, or convert it "
                "before",
            )
        return self.form.each(columns)

    def tell(self, error: Exception, at: int, hint: str) -> NoReturn:
        """Raise what is to be said of an error that came while a group was read."""
        group, first, end = self.groups[at], self.starts[at], self.starts[at + 1]
        path = self.paths[group.file]
        where = f"{self.who}(): group {group.number} of {path} (datapoints {first} to {end - 1})"
        raise_clearly(error, path, f"{where} cannot be read", "" if maybe_whole(error) else hint)
