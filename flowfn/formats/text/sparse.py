"""SVMlight (also of libsvm): a label and the features that are not zero, line by line.

The format: https://www.cs.cornell.edu/people/tj/svm_light, https://www.csie.ntu.edu.tw/~cjlin/libsvm
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.formats.text.record_files import flow_of_records, line_starts, write_records
from flowfn.showing import brief
from flowfn.storage.compression import first_of_text
from flowfn.storage.damage import Unreadable
from flowfn.storage.files import call
from flowfn.storage.finding import paths_of

COMMENT = ord("#")
SPACES = list(b" \t\r\v\f")
EXAMPLE = re.compile(rb"\s*[^\s:]++(?:\s++[^\s:]++:[^\s:]++)*+\s*")
"""A label, and pairs index:value."""
NUMERIC = b"0123456789.+-eE\r"
"""What numbers are written with, mostly: what is left of most lines is spaces and colons."""
EXACT_INTEGERS = 1 << 53
"""Below this every integer is a float."""

_FIRST_NUMBER = rules.one_of(0, 1)


@rules.checked(
    features=rules.optional(rules.positive),
    first=_FIRST_NUMBER,
    queries=rules.boolean,
    multilabel=rules.boolean,
    hold=rules.boolean,
)
def read_svmlight(
    path: Any,
    features: int | None = None,
    *,
    first: int = 1,
    queries: bool = False,
    multilabel: bool = False,
    hold: bool = False,
) -> Flow[Any]:
    """A flow of the examples in an SVMlight (libsvm) file: lists [x, label], with `queries` [x, label, query].

    `path` is a path, a URL, a glob pattern, a range in braces ("part-{00..07}.svm"), or a list of them,
    which are read one after the other.

    With `features`, the number of all features, x is an array (features,) of float64; without it x is what stands
    there, (indices, values): an int64 array of places, counted from 0, and a float64 array. The label is a float, with
    `multilabel` a tuple of floats. `first` is the number of the first feature, 1 by definition; scikit-learn writes 0
    unless it is told. Lines that begin with # and what stands behind one are comments.

    An index of where lines begin is made when it is first needed (a scan of the file, in each process), and makes the
    flow seekable. Files that end in .gz, .bz2 or .xz are decompressed; they can only be read in order, unless they are
    to `hold` in memory, decompressed, by each process that reads them.

    Raises:
        ValueError: a line is none of the format, or has a feature beyond `features`;
            the message says which datapoint it is.
        FileNotFoundError: there is no such file.

    Warns:
        UserWarning: no line break ends the last example, which may be less than what was written,
            if the file was cut off.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/examples.svm"
    >>> write_svmlight(path, [[np.array([0.0, 2.5, 0.0]), 1], [np.array([1.0, 0.0, 3.0]), -1]])
    >>> read_svmlight(path, 3)[0]
    [array([0. , 2.5, 0. ]), 1.0]
    >>> read_svmlight(path)[1]
    [(array([0, 2]), array([1., 3.])), -1.0]
    """
    who = "read_svmlight"
    options = {
        "first": (first, 1),
        "queries": (queries, False),
        "multilabel": (multilabel, False),
        "hold": (hold, False),
    }
    text = call(who, path, *[features] * (features is not None), **options)
    form = SvmLight(features, first, queries, multilabel)
    files = paths_of(path, who)
    for file in files:
        first_of_text(file, who, 0)
    return flow_of_records([(file, form) for file in files], who, hold, text)


@dataclass(frozen=True)
class SvmLight:
    """How examples lie in a file, and what is made of them."""

    features: int | None
    first: int
    queries: bool
    multilabel: bool
    start: int = 0
    cutting: str = "lines without comments"

    def cut(self, block: bytes, last: bool) -> tuple[np.ndarray, int]:
        """Where lines begin that are no comments."""
        starts, end = line_starts(block, last, COMMENT)
        if not len(starts):
            return starts, end
        odd = np.isin(np.frombuffer(block, np.uint8)[starts], SPACES)
        for at in np.flatnonzero(odd).tolist():
            odd[at] = not block[starts[at] : _line_end(block, starts[at])].partition(b"#")[0].strip()
        return starts[~odd], end

    def ends(self, tail: bytes) -> bool:
        """A number can end anywhere, unless a comment has begun behind it."""
        return b"#" in tail or not tail.strip() or tail.endswith(b"\r")

    def parse(self, block: bytes) -> Iterator[Any]:
        """The examples in lines; together, if there is nothing special about them."""
        if not (self.multilabel or self.queries or b"#" in block or b"qid:" in block or b"_" in block):
            made = self._together([line for line in block.split(b"\n") if line.strip()])
            if made is not None:
                return made
        return self.carefully(block)

    def _together(self, lines: list[bytes]) -> Iterator[Any] | None:
        """The examples in lines, unless there is anything wrong with them."""
        words = [line.replace(b":", b" ").split() for line in lines]
        counts = np.fromiter((line.count(b":") for line in lines), np.int64, len(lines))
        if list(map(len, words)) != (2 * counts + 1).tolist():
            return None
        if not all(
            line.translate(None, NUMERIC) == b" :" * count or EXAMPLE.fullmatch(line)
            for line, count in zip(lines, counts.tolist())
        ):
            return None
        try:
            numbers = np.fromiter(
                map(float, chain.from_iterable(words)), np.float64, int(2 * counts.sum()) + len(lines)
            )
        except ValueError:
            return None
        ends = np.cumsum(counts)
        places = 2 * (ends - counts) + np.arange(len(lines))
        others = np.ones(len(numbers), bool)
        others[places] = False
        labels, pairs = numbers[places].tolist(), numbers[others]
        columns, values = pairs[::2], pairs[1::2].copy()
        if len(columns) and not np.abs(columns).max() < EXACT_INTEGERS:
            return None
        indices = columns.astype(np.int64)
        grows = np.diff(indices, prepend=self.first - 1) > 0
        grows[(ends - counts)[counts > 0]] = True
        top = EXACT_INTEGERS if self.features is None else self.features + self.first
        fits = (indices == columns) & (indices >= self.first) & (indices < top)
        if not grows.all() or not fits.all():
            return None
        return self._cut(indices - self.first, values, ends.tolist(), labels)

    def _cut(self, indices: np.ndarray, values: np.ndarray, ends: list[int], labels: list[float]) -> Iterator[Any]:
        start = 0
        for end, label in zip(ends, labels):
            if self.features is None:
                yield [(indices[start:end].copy(), values[start:end].copy()), label]
            else:
                x = np.zeros(self.features)
                x[indices[start:end]] = values[start:end]
                yield [x, label]
            start = end

    def carefully(self, block: bytes) -> Iterator[Any]:
        """The same, one by one."""
        commented = b"#" in block
        for line in block.split(b"\n"):
            if commented:
                line = line.partition(b"#")[0]
            if line and not line.isspace():
                yield self._example(line)

    def _example(self, line: bytes) -> list[Any]:
        labels: Any = None
        query: int | None = None
        if self.multilabel:
            told, *rest = line.split(None, 1)
            if b":" in told:
                told, rest = b"", [line]
            labels = tuple(_float_array(told.replace(b",", b" ")).tolist())
            line = b" ".join([b"0", *rest])
        if b"qid:" in line:
            line, query = _without_query(line)
        if not EXAMPLE.fullmatch(line):
            raise Unreadable(f"it must be a label and pairs index:value, got {_shown(line)}")
        numbers = _float_array(line.replace(b":", b" "))
        x = self._features(numbers[1::2], numbers[2::2], line)
        if labels is None:
            labels = float(numbers[0])
        return [x, labels, query] if self.queries else [x, labels]

    def _features(self, columns: np.ndarray, values: np.ndarray, line: bytes) -> Any:
        if len(columns) and not bool(np.abs(columns).max() < EXACT_INTEGERS):
            raise Unreadable(f"indices must be whole numbers below {EXACT_INTEGERS}, got {_shown(line)}")
        indices = columns.astype(np.int64)
        if len(columns) and (bool((indices != columns).any()) or bool((np.diff(indices) <= 0).any())):
            raise Unreadable(f"indices must be whole numbers that grow, got {_shown(line)}")
        indices -= self.first
        if len(indices) and indices[0] < 0:
            raise Unreadable(
                f"the first feature has number {int(columns[0])}, below first={self.first}"
                + "; pass first=0" * bool(indices[0] == -self.first)
            )
        if self.features is None:
            return indices, values.copy()
        if len(indices) and indices[-1] >= self.features:
            raise Unreadable(
                f"it has feature {int(columns[-1])}, where there are {self.features}; pass more features, or "
                "another first"
            )
        x = np.zeros(self.features)
        x[indices] = values
        return x


def _float_array(text: bytes) -> np.ndarray:
    try:
        numbers = list(map(float, text.split()))
    except ValueError as error:
        raise Unreadable(f"{error}, in {_shown(text)}") from error
    if b"_" in text:  # which Python takes for a part of a number
        raise Unreadable(f"there is a _ in {_shown(text)}")
    return np.array(numbers, np.float64)


def _without_query(line: bytes) -> tuple[bytes, int]:
    before, _, behind = line.partition(b"qid:")
    told, *rest = behind.split(None, 1) or [b""]
    try:
        return before + b"".join(rest), int(told)
    except ValueError as error:
        raise Unreadable(f"qid must be an integer, got {_shown(told)}") from error


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace"))


@rules.checked(first=_FIRST_NUMBER, overwrite=rules.boolean)
def write_svmlight(path: Any, flow: Any, *, first: int = 1, overwrite: bool = False) -> None:
    """Write datapoints [x, label] or [x, label, query] to an SVMlight (libsvm) file.

    x is an array of all features, of which those that are not zero are written, or (indices, values), with indices that
    are counted from 0 and grow. A label is a number, or a tuple of them. `first` is the number that the first feature
    gets. Numbers are written so that they are read back exactly. A suffix of .gz, .bz2 or .xz compresses. A bar is
    shown; the file appears at `path` when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: a datapoint is no such thing.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = tempfile.mkdtemp() + "/examples.svm"
    >>> write_svmlight(path, [[([0, 7], [1.0, 0.1]), 1, 5]])
    >>> Path(path).read_text()
    '1 qid:5 1:1 8:0.1\\n'
    """
    who = "write_svmlight"

    def encoded(datapoints: Iterator[Any]) -> Iterator[bytes]:
        for number, datapoint in enumerate(datapoints):
            try:
                yield _line(datapoint, first).encode()
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"{who}(): datapoint {number} must be [x, label] or [x, label, query]: {error}; it is "
                    f"{brief(datapoint)}"
                ) from error

    write_records(path, flow, who, overwrite, encoded)


def _line(datapoint: Any, first: int) -> str:
    if not isinstance(datapoint, (list, tuple)) or len(datapoint) not in (2, 3):
        raise TypeError("it has to be a list")
    x, label, *query = datapoint
    indices, values = _pairs(x)
    labels = label if isinstance(label, (tuple, list)) else np.asarray(label).reshape(-1)
    words = [",".join(map(_number_text, labels)), *(f"qid:{int(one)}" for one in query)]
    words += [f"{index + first}:{_number_text(value)}" for index, value in zip(indices.tolist(), values.tolist())]
    return " ".join(words) + "\n"


def _pairs(x: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(x, tuple) and len(x) == 2:
        indices, values = np.asarray(x[0]), np.asarray(x[1])
        if not indices.size:
            indices = indices.astype(np.int64)
        if indices.dtype.kind not in "iu" or indices.ndim != 1 or indices.shape != values.shape:
            raise ValueError(f"indices and values must be of one length, got shapes {indices.shape} and {values.shape}")
        if bool((np.diff(indices.astype(np.int64)) <= 0).any()) or (len(indices) and indices[0] < 0):
            raise ValueError("indices must grow, from 0 on")
    else:
        dense = np.asarray(x)
        if dense.ndim != 1:
            raise ValueError(f"x must have one axis, got shape {dense.shape}")
        (indices,) = dense.nonzero()
        values = dense[indices]
    if values.dtype.kind not in "biuf":
        raise TypeError(f"x must hold numbers, got {values.dtype}")
    return indices, values.astype(np.float64) if values.dtype.kind in "bf" else values


def _number_text(value: Any) -> str:
    """A number in as few characters as read back the same."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < EXACT_INTEGERS else repr(number)


def _line_end(block: bytes, start: int) -> int:
    """Where the line ends that begins at `start`."""
    found = block.find(b"\n", start)
    return len(block) if found < 0 else found
