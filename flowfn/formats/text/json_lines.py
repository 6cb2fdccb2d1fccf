"""JSON lines: datapoints as lines, each of them JSON.

The format: https://jsonlines.org
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.formats.text.record_files import BOM, flow_of_records, line_starts, write_records
from flowfn.storage.compression import first_of_text
from flowfn.storage.damage import Unreadable
from flowfn.storage.files import call
from flowfn.storage.finding import paths_of


@rules.checked(hold=rules.boolean, save_index=rules.boolean)
def read_jsonl(path: Any, *, hold: bool = False, save_index: bool = False) -> Flow[Any]:
    """A flow of what stands in the lines of a file, each of them JSON; or of several files, one after the other.

    `path` is a path, a URL, a glob pattern, a range in braces ("part-{00..07}.jsonl"), or a list of them.

    An index of where lines begin is made when it is first needed (a scan of the file, in each process), and makes the
    flow seekable; empty lines are passed over. With `save_index=True` it is kept in a file beside each, `path` +
    ".index": it is made once, by the first process that needs it, and again when the file has changed (in size or
    time); where the folder cannot be written to, it stays in memory, with a warning. Files that end in .gz, .bz2 or .xz
    are decompressed; they can only be read in order, unless they are to `hold` in memory, decompressed, by each process
    that reads them.

    Raises:
        ValueError: a line is no JSON; the message says which datapoint it is.
        FileNotFoundError: there is no such file.

    Warns:
        UserWarning: the last line is a number that no line break ends; it may be cut off.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/words.jsonl"
    >>> write_jsonl(path, [{"word": "yes", "ids": [1, 2]}, None, "no"])
    >>> list(read_jsonl(path))
    [{'word': 'yes', 'ids': [1, 2]}, None, 'no']
    """
    files = [(found, _form(found)) for found in paths_of(path, "read_jsonl")]
    return flow_of_records(
        files,
        "read_jsonl",
        hold,
        call("read_jsonl", path, hold=(hold, False), save_index=(save_index, False)),
        save_index,
    )


def _form(path: str) -> JsonLines:
    return JsonLines(len(BOM) * first_of_text(path, "read_jsonl", len(BOM)).startswith(BOM))


@dataclass(frozen=True)
class JsonLines:
    """How records lie in a file of JSON lines."""

    start: int

    @property
    def cutting(self) -> str:
        """Lines."""
        return f"lines from {self.start}"

    def cut(self, block: bytes, last: bool) -> tuple[np.ndarray, int]:
        """Where lines begin."""
        return line_starts(block, last)

    def ends(self, tail: bytes) -> bool:
        """What is cut off is no JSON any more, but for a number."""
        return bool(tail.strip().strip(b"0123456789+-.eE")) or not tail.strip()

    def parse(self, block: bytes) -> Iterator[Any]:
        """What the lines say."""
        text = block.decode("utf-8")
        if text.startswith("\r\n") or "\n\r\n" in text:  # empty lines that are not quite
            return self.carefully(block)
        return _decoded([*filter(None, text.split("\n"))])

    def carefully(self, block: bytes) -> Iterator[Any]:
        """The same, one by one."""
        for line in block.split(b"\n"):
            if line and line != b"\r":
                try:
                    yield _decode(line.decode("utf-8"))
                except ValueError as error:
                    raise Unreadable(
                        f"{error}: {line[:60].decode('utf-8', 'replace')!r}{_remedy(line, error)}"
                    ) from error


def _remedy(line: bytes, error: ValueError) -> str:
    """What helps, if it is plain what the file is."""
    if isinstance(error, UnicodeDecodeError):
        return "; JSON lines are UTF-8: convert the file, if it is in another encoding (iconv -f LATIN1 -t UTF-8)"
    if line.strip() in (b"[", b"{", b"[{") or line.rstrip().endswith(b","):
        return (
            "; it looks like one JSON array or object over several lines, where JSON lines have one value in each: "
            "json.load(file) gives a list, which is a source as it is"
        )
    return ""


_decode = json.JSONDecoder().decode
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _decoded(lines: list[str]) -> Iterator[Any]:
    """What lines say. The scanner alone takes half the time; it knows of nothing around a value."""
    try:
        scanned = [] if lines[:1] and lines[0].endswith("\r") else [*map(_scan, lines, repeat(0))]
    except Exception:  # what comes before the line that is none is to be given
        scanned = []
    if [end for _, end in scanned] == [*map(len, lines)]:
        return map(itemgetter(0), scanned)
    return map(_decode, lines)


@rules.checked(overwrite=rules.boolean)
def write_jsonl(path: Any, flow: Any, *, overwrite: bool = False) -> None:
    """Write datapoints to a file of JSON lines: None, bools, numbers, texts, lists and dicts of these.

    Numpy's numbers and arrays are written as numbers and lists, tuples as lists; numbers that are none as NaN and
    Infinity, which Python reads, though not everybody does. A suffix of .gz, .bz2 or .xz compresses. A bar is shown;
    the file appears at `path` when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError: a datapoint holds what JSON does not know, such as bytes, or a dict whose keys are no strings.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/numbers.jsonl"
    >>> write_jsonl(path, ({"x": x, "y": np.arange(x)} for x in range(3)))
    >>> read_jsonl(path)[2]
    {'x': 2, 'y': [0, 1]}
    """

    def encoded(datapoints: Iterator[Any]) -> Iterator[bytes]:
        encode = json.JSONEncoder(ensure_ascii=False, default=_json_value).encode
        for number, datapoint in enumerate(datapoints):
            try:
                _check_keys(datapoint)
                yield _utf8_json(encode(datapoint)) + b"\n"
            except (TypeError, ValueError, RecursionError) as error:
                raise TypeError(
                    f"write_jsonl(): datapoint {number} is no JSON: {error}; make it plain before (map), or write "
                    "another format"
                ) from error

    write_records(path, flow, "write_jsonl", overwrite, encoded)


def _utf8_json(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write down all the same
        return json.dumps(json.loads(text)).encode()


def _json_value(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind in "biufU" and value.dtype.char != "g":
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not known to it")


def _check_keys(value: Any) -> None:
    """Make sure that keys are strings, as JSON would make them such without a word."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if type(key) is not str:
                raise TypeError(f"a key is {key!r}, and keys are strings")
            if type(inner) in (dict, list, tuple):
                _check_keys(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            if type(inner) in (dict, list, tuple):
                _check_keys(inner)
