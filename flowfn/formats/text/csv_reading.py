"""CSV: datapoints as records of texts.

The format: RFC 4180, https://www.rfc-editor.org/rfc/rfc4180
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.formats.joining.members import dicts
from flowfn.formats.text.csv_writing import CHARACTER, QUOTE, check_apart, check_encoding, dialect, write_csv
from flowfn.formats.text.record_files import BOM, NEWLINE, flow_of_records, line_starts
from flowfn.showing import as_written as named
from flowfn.storage.compression import first_of_text
from flowfn.storage.damage import Unreadable
from flowfn.storage.files import call
from flowfn.storage.finding import paths_of

__all__ = ["read_csv", "write_csv"]

HEADER = 1 << 20
"""Bytes in which the names of columns have to end."""

_HEADER = rules.Rule(
    "True, False, or a list of names",
    lambda value: isinstance(value, (bool, list, tuple)),
    lambda value, others: (
        isinstance(value, bool) or (all(isinstance(name, str) for name in value) and len(set(value)) == len(value) > 0)
    ),
)
_TYPES = rules.Rule(
    "a function, a dict of functions by column, or None",
    lambda value: (
        value is None or callable(value) or (isinstance(value, Mapping) and all(map(callable, value.values())))
    ),
)


@rules.checked(
    delimiter=CHARACTER, quote=QUOTE, header=_HEADER, types=_TYPES, hold=rules.boolean, save_index=rules.boolean
)
def read_csv(
    path: Any,
    columns: Sequence[str] | None = None,
    *,
    types: Any = None,
    header: Any = True,
    delimiter: str = ",",
    quote: str | None = '"',
    encoding: str = "utf-8",
    hold: bool = False,
    save_index: bool = False,
) -> Flow[Any]:
    """A flow of the records of a CSV file, as dicts of strings: {column: text};
    or of several files, one after the other.

    `path` is a path, a URL, a glob pattern, a range in braces ("part-{00..07}.csv"), or a list of them; if there are
    names of columns in the files, all have the same, in whatever order.

    `columns` are those that are wanted (None: all). `types` says what to make of the texts: a function for all, or a
    dict of functions by column, such as `{"label": int, "score": float}` (`bool` knows true, false, 1 and 0). `header`
    is True if the first record holds the names, a list of names if they do not stand in the file, False if there are
    none: datapoints are lists then.

    Records may have line breaks between quotes; with `quote=None` a quote is a character as any other, as in most files
    that are separated by tabs (`delimiter="\\t"`). An index of where they begin is made when it is first needed (a scan
    of the file, in each process), and makes the flow seekable; `save_index=True` keeps it beside the file, as that of
    `read_jsonl` does. Files that end in .gz, .bz2 or .xz are decompressed; they can only be read in order, unless they
    are to `hold` in memory, decompressed, by each process that reads them.

    Raises:
        ValueError: a record has more or fewer fields than there are names, or a text is none of its type; a quote is
            never closed; the message says which datapoint it is.
        FileNotFoundError: there is no such file.

    Warns:
        UserWarning: no line break ends the last record, which may be less than what was written, if
            the file was cut off.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/words.csv"
    >>> write_csv(path, [{"word": "yes, no", "count": 2}, {"word": "maybe", "count": 1}])
    >>> read_csv(path, types={"count": int})[0]
    {'word': 'yes, no', 'count': 2}
    """
    who = "read_csv"
    check_apart(delimiter, quote, who)
    check_encoding(encoding, delimiter + (quote or ""), who)
    files: list[tuple[str, Csv]] = []
    for place in paths_of(path, who):
        head = _header_of(place, header, delimiter, quote, encoding)
        if files:
            _check_alike(files[0], place, *head[1:])
        wanted = (
            columns
            if columns is not None or not files or head[1] == files[0][1].names
            else list(files[0][1].names or ())
        )
        files.append((place, Csv(*head, *_columns_chosen(*head[1:], wanted, types, place), delimiter, quote, encoding)))
    options = {
        "columns": (columns, None),
        "header": (header, True),
        "delimiter": (delimiter, ","),
        "quote": (quote, '"'),
    }
    text = call(who, path, **options, encoding=(encoding, "utf-8"), hold=(hold, False), save_index=(save_index, False))
    if types is not None:
        types_text = (
            "{" + ", ".join(f"{key!r}: {named(one)}" for key, one in types.items()) + "}"
            if isinstance(types, Mapping)
            else named(types)
        )
        text = f"{text[:-1]}, types={types_text})"
    return flow_of_records(files, who, hold, text, save_index)


@dataclass(frozen=True)
class Csv:
    """How records lie in a CSV file, and what is made of them."""

    start: int
    names: tuple[str, ...] | None
    count: int
    places: tuple[int, ...] | None
    converts: tuple[tuple[int, Callable[[str], Any]], ...]
    delimiter: str
    quote: str | None
    encoding: str

    @property
    def cutting(self) -> str:
        """Lines, and what quotes."""
        return f"records from {self.start} between {self.delimiter!r} and {self.quote!r}"

    def cut(self, block: bytes, last: bool) -> tuple[np.ndarray, int]:
        """Where records begin: at lines, except for those between quotes."""
        quote = (self.quote or "").encode()
        if not quote or quote not in block:
            return line_starts(block, last)
        view = np.frombuffer(block, np.uint8)
        quotes, lines = np.flatnonzero(view == quote[0]), np.flatnonzero(view == NEWLINE)
        outside = lines[np.searchsorted(quotes, lines) % 2 == 0]
        end = len(block) if last else int(outside[-1]) + 1 if len(outside) else 0
        quotes = quotes[quotes < end]
        if not self._as_they_should(view[:end], quotes):
            return self._one_by_one(block, last)
        ends = outside if not last or (len(outside) and outside[-1] == end - 1) else np.append(outside, end - 1)
        if not len(ends):
            return ends, 0
        starts = np.concatenate([[0], ends[:-1] + 1])
        first = view[starts]
        return starts[~((first == NEWLINE) | ((first == 13) & (ends - starts <= 1)))], end

    def _as_they_should(self, view: np.ndarray, quotes: np.ndarray) -> bool:
        """Whether quotes stand where fields begin and end only, or are doubled: then every other one closes."""
        opening, closing = quotes[::2], quotes[1::2]
        if len(opening) != len(closing):
            return False
        own = ord(str(self.quote))
        before = view[opening[opening > 0] - 1]
        behind = view[closing[closing < len(view) - 1] + 1]
        around = [own, ord(self.delimiter), NEWLINE]
        return bool(np.isin(before, around).all() and np.isin(behind, [*around, 13]).all())

    def ends(self, tail: bytes) -> bool:
        """Of a line without a line break, nobody can tell: a field can end anywhere."""
        return not tail.strip(b" \t") or tail.endswith(b"\r")

    def _one_by_one(self, block: bytes, last: bool) -> tuple[np.ndarray, int]:
        """Where records begin, as Python's reader finds it: quotes stand in odd places."""
        before, starts = 0, []
        try:
            for at, record in self.counting(block if last else block[: block.rfind(b"\n") + 1], "latin1"):
                if record:
                    starts.append(before)
                before = at
        except csv.Error as error:
            if last or "unexpected end" not in str(error):
                raise Unreadable(f"{_explained(error)} (after {len(starts)} more)") from error
        return np.array(starts, np.int64), before

    def counting(self, block: bytes, encoding: str | None = None) -> Iterator[tuple[int, list[str]]]:
        """Records, one by one, and where each ends."""
        at = 0

        def lines() -> Iterator[str]:
            nonlocal at
            for line in io.BytesIO(block):
                at += len(line)
                yield line.decode(encoding or self.encoding)

        return ((at, record) for record in self._reader(lines()))

    def _lines(self, block: bytes) -> Iterator[str]:
        """Lines as `cut` knows them, which end with \\n: at a lonely \\r Python would end them too."""
        try:
            return io.StringIO(block.decode(self.encoding), newline="\n")
        except UnicodeDecodeError:  # those before the wrong one are read all the same
            return (line.decode(self.encoding) for line in io.BytesIO(block))

    def _reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(lines, strict=True, **dialect(self.delimiter, self.quote))

    def parse(self, block: bytes) -> Iterator[Any]:
        """Records: of each as many fields as there are columns, and of those the chosen ones, converted."""
        if self.names is None or self.places is not None or self.converts:
            return self.carefully(block)
        return dicts(self.names)(filter(None, self._reader(self._lines(block))))

    def carefully(self, block: bytes) -> Iterator[Any]:
        """The same, one by one."""
        names, count, places, converts = self.names, self.count, self.places, self.converts
        pick: Any = (
            None if places is None else itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
        )
        keys = names if pick is None or names is None else pick(names)
        try:
            for row in self._reader(self._lines(block)):
                if not row:
                    continue
                if len(row) != count:
                    raise Unreadable(f"it has {len(row)} fields, where there are {count} columns: {row[:20]}")
                for place, convert in converts:
                    try:
                        row[place] = convert(row[place])
                    except Exception as error:
                        column = place if names is None else repr(names[place])
                        raise Unreadable(f"column {column}, {row[place]!r}: {error}") from error
                yield row if keys is None else dict(zip(keys, row if pick is None else pick(row)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise Unreadable(_explained(error)) from error


def _explained(error: Exception) -> str:
    """What is wrong, and what helps."""
    if "new-line character" in str(error):
        return "a line ends with \\r alone; make it \\n before, in the file, or put the field into quotes"
    if isinstance(error, UnicodeDecodeError):
        return f"{error}; give the encoding that the file is in, encoding='latin-1' for one"
    return f"{error}{'; csv.field_size_limit(n) allows longer ones' * ('field larger' in str(error))}"


def _header_of(
    path: str, header: Any, delimiter: str, quote: str | None, encoding: str
) -> tuple[int, tuple[str, ...] | None, int]:
    """Where the first record begins, the names of the columns, and how many there are."""
    head = first_of_text(path, "read_csv", HEADER)
    start = len(BOM) if head.startswith(BOM) else 0
    if isinstance(header, (list, tuple)):
        return start, tuple(header), len(header)
    reader = Csv(0, None, 0, None, (), delimiter, quote, encoding).counting(head[start:])
    try:
        stop, names = next(((at, row) for at, row in reader if row), (0, []))
        if header and not names:
            raise Unreadable("it is empty" if not head.strip() else f"there is no record in its first {HEADER} bytes")
        if header and len(set(names)) < len(names):
            raise Unreadable(f"columns have the same name: {names[:20]}; name them with header=[...], and take skip(1)")
    except (Unreadable, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"read_csv(): the {'header' if header else 'first record'} of {path} cannot be read: {_explained(error)}"
        ) from error
    return (start + stop, tuple(names), len(names)) if header else (start, None, len(names))


def _check_alike(first: tuple[str, Csv], path: str, names: tuple[str, ...] | None, count: int) -> None:
    """Make sure that a file has the columns of the first."""
    known = first[1]
    if count != known.count or set(names or ()) != set(known.names or ()):
        told = [count, known.count] if names is None else [list(names[:20]), list((known.names or ())[:20])]
        raise ValueError(
            f"read_csv(): {path} has the columns {told[0]}, where {first[0]} has {told[1]}; read them apart"
        )


def _columns_chosen(names: tuple[str, ...] | None, count: int, columns: Any, types: Any, path: str) -> tuple[Any, Any]:
    """The places of the chosen columns, and what to make of which texts."""
    if names is None:
        if columns is not None or isinstance(types, Mapping):
            raise ValueError(
                f"read_csv(): with header=False columns have no names, got columns={columns!r}, types={types!r}; name "
                "them: header=[...]"
            )
        return None, () if types is None else tuple((place, _convert(types)) for place in range(count))
    if columns is not None and (not isinstance(columns, (list, tuple)) or not columns):
        raise TypeError(f"read_csv(): columns must be a list of names, or None for all, got {columns!r}")
    wanted = list(names if columns is None else columns)
    for name in [*wanted, *(types if isinstance(types, Mapping) else ())]:
        if name not in names:
            raise ValueError(
                f"read_csv(): there is no column {name!r} in {path}; there are {', '.join(map(repr, names[:20]))}"
            )
    functions = types if isinstance(types, Mapping) else {} if types is None else dict.fromkeys(wanted, types)
    converts = tuple((names.index(name), _convert(convert)) for name, convert in functions.items() if name in wanted)
    return None if columns is None else tuple(map(names.index, wanted)), tuple(
        one for one in converts if one[1] is not str
    )


def _convert(function: Callable[[str], Any]) -> Callable[[str], Any]:
    return truth if function is bool else function


def truth(text: str) -> bool:
    """What a text says that is to be True or False.

    >>> truth("True"), truth("0")
    (True, False)
    """
    told = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if told is None:
        raise ValueError("it must be true, false, 1 or 0")
    return told
