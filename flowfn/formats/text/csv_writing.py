"""CSV files, written: datapoints as records of texts (RFC 4180)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.formats.joining.members import Makeup, parts_as, parts_of
from flowfn.formats.text.record_files import write_records

CHARACTER = rules.Rule(
    "one character of ASCII that ends no line",
    lambda value: isinstance(value, str),
    lambda value, others: len(value) == 1 and value.isascii() and value not in "\r\n\0",
)
QUOTE = rules.optional(CHARACTER)


@rules.checked(delimiter=CHARACTER, quote=QUOTE, header=rules.boolean, overwrite=rules.boolean)
def write_csv(
    path: Any,
    flow: Any,
    *,
    header: bool = True,
    delimiter: str = ",",
    quote: str | None = '"',
    encoding: str = "utf-8",
    overwrite: bool = False,
) -> None:
    """Write datapoints to a CSV file: dicts, with their keys as the header, or lists, or bare values, which have none.

    Values are written as `str` shows them; arrays and containers are refused. `read_csv` gives back texts, which
    `types` makes numbers again. Fields with a delimiter, a quote or a line break in them are put into quotes; with
    `quote=None` nothing is, and such fields, but for those with a quote, are refused. A suffix of .gz, .bz2 or .xz
    compresses. A bar is shown; the file appears at `path` when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or hold what cannot be a field.

    >>> import tempfile
    >>> from flowfn.formats import read_csv
    >>> path = tempfile.mkdtemp() + "/squares.csv"
    >>> write_csv(path, ([x, x * x] for x in range(3)))
    >>> list(read_csv(path, header=False, types=int))
    [[0, 0], [1, 1], [2, 4]]
    """
    who = "write_csv"
    check_apart(delimiter, quote, who)
    check_encoding(encoding, delimiter + (quote or ""), who)

    def encoded(datapoints: Iterator[Any]) -> Iterator[bytes]:
        record = _RecordWriter(delimiter, quote, encoding)
        form: Makeup | None = None
        for number, datapoint in enumerate(datapoints):
            if form is None:
                form, first = parts_of(datapoint, who)
                if not first:
                    raise ValueError(f"{who}(): datapoints must have fields, got {datapoint!r}")
                if form.keys is not None and header:
                    yield record(form.keys, "the header")
            parts = parts_as(form, datapoint, who)
            if parts is None:
                raise ValueError(
                    f"{who}(): all datapoints must have the fields of the first, {form.names}, datapoint {number} "
                    f"has {parts_of(datapoint, who)[0].names}"
                )
            yield record([_csv_value(part, number) for part in parts], f"datapoint {number}")
        if form is None:
            raise ValueError(f"{who}(): there are no datapoints, so nobody knows the header")

    write_records(path, flow, who, overwrite, encoded)


class _RecordWriter:
    """Makes a line of fields: a lonely \\r ends lines too for many who read, so it is put into quotes as \\n is."""

    def __init__(self, delimiter: str, quote: str | None, encoding: str) -> None:
        self.made, self.quote, self.encoding = io.StringIO(newline=""), quote, encoding
        self.writer = csv.writer(self.made, lineterminator="\r\n", **dialect(delimiter, quote))

    def __call__(self, fields: Sequence[Any], what: str) -> bytes:
        try:
            if self.quote is None and len(fields) == 1 and fields[0] in ("", None):
                raise csv.Error("an empty line is no record")
            self.writer.writerow(fields)
        except csv.Error as error:
            raise ValueError(
                f"write_csv(): {what} cannot be written without quotes: {error}; give a quote, or change it"
            ) from error
        text = self.made.getvalue()[:-2] + "\n"
        self.made.seek(0)
        self.made.truncate()
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise ValueError(f"write_csv(): {what} cannot be written in {self.encoding}: {error}") from error


def dialect(delimiter: str, quote: str | None) -> dict[str, Any]:
    """What Python's module is told of delimiters and quotes, which there may be none of."""
    return {
        "delimiter": delimiter,
        "quotechar": quote,
        "quoting": csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL,
    }


def _csv_value(value: Any, number: int) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray, Mapping, list, tuple, set, np.void)) or getattr(value, "ndim", None):
        raise TypeError(
            f"write_csv(): fields are texts and numbers, but datapoint {number} holds {type(value).__name__}; "
            "write_jsonl takes more"
        )
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind not in "mM" else value


def check_apart(delimiter: str, quote: str | None, who: str) -> None:
    """Make sure that what separates fields is not what holds them together."""
    if delimiter == quote:
        raise ValueError(f"{who}(): delimiter must be another character than the quote, got {delimiter!r} for both")


def check_encoding(encoding: Any, characters: str, who: str) -> None:
    """Make sure that line breaks and delimiters are bytes of their own."""
    try:
        fits = f"{characters}\n".encode(encoding) == f"{characters}\n".encode("ascii")
    except (LookupError, TypeError, UnicodeError) as error:
        raise ValueError(f"{who}(): encoding must be one that Python knows, got {encoding!r}") from error
    if not fits:
        raise ValueError(
            f"{who}(): encoding must be one in which ASCII stays as it is, got {encoding!r}; convert the file to utf-8"
        )
