"""Text files of records (lines, mostly): an index of where each begins makes them seekable,
and is made when it is first wanted.

What is compressed (by its suffix: .gz, .bz2, .xz) is read from its beginning, or held in memory if that is asked for.

A record ends with a line break, so a file that has been cut off within one can be told by its end. Many a whole file
lacks the last line break too, and what stands before it then looks the same: it is read, and `warn_of_end` says so
once. Where the last record shows that it is whole (JSON in brackets), nothing is said; where it has become no record,
it is an error as anywhere else. What is compressed has a mark at its end, without which it is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any, Protocol

import numpy as np

from flowfn.flows.flow import Flow
from flowfn.formats.joining.several import together
from flowfn.formats.text.kept_starts import kept_starts
from flowfn.process import forks
from flowfn.storage.compression import compressing, opened_in_order, suffix_of, telling
from flowfn.storage.damage import Unreadable, warn_of_end
from flowfn.storage.files import InOrder, Opened, ReadablePieces, flow_of, is_url, stamp
from flowfn.storage.writing import shown, written_whole

PIECE = 1 << 18
"""Bytes that are read at once."""
LONGEST_RECORD = 1 << 28
"""Bytes beyond which a record is none."""
TAIL = 1 << 12
"""Bytes at the end of a file in which its last line is looked at."""
NEWLINE = 10
BOM = b"\xef\xbb\xbf"
"""What some begin a file of UTF-8 with."""


class Format(Protocol):
    """How records lie in a file. It pickles small."""

    @property
    def start(self) -> int:
        """Bytes before the first record."""

    @property
    def cutting(self) -> str:
        """What decides where records begin, beside what is in the file."""

    def cut(self, block: bytes, last: bool) -> tuple[np.ndarray, int]:
        """Where in a block whole records begin, and where what is left over does; with `last`,
        nothing comes behind it."""

    def parse(self, block: bytes) -> Iterator[Any]:
        """The records in a block of whole ones, as fast as can be."""

    def carefully(self, block: bytes) -> Iterator[Any]:
        """The same, one by one; of one that cannot be read it says why."""

    def ends(self, tail: bytes) -> bool:
        """Whether the last line of a file, or what is kept of it, has all that was written,
        though no line break is behind it."""


class RecordFile(Opened):
    """The records of a file, by index."""

    def __init__(self, path: Any, who: str, form: Format, save_index: bool = False) -> None:
        super().__init__(path, who)
        self.form, self.save_index = form, save_index and suffix_of(self.path) is None
        self.indexes: list[
            np.ndarray
        ] = []  # where records begin, once that is known: to all that are `fresh` from this one
        if suffix_of(self.path) is None and not is_url(
            self.path
        ):  # here, where the user is told once, whoever reads it
            with contextlib.closing(ReadablePieces(self.path, f"{who}()")) as pieces:
                self.look_at_end(pieces)

    def look_at_end(self, file: ReadablePieces) -> None:
        """Warn of an end that may be none."""
        tail = file.read(max(file.size - TAIL, self.form.start), TAIL).rpartition(b"\n")[2]
        if tail and not self.form.ends(tail):
            warn_of_end(self.path, self.who)

    def fresh(self) -> Any:
        """The same, not open; what is held in memory stays there."""
        return super().fresh() if suffix_of(self.path) is None else self

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "indexes": []}  # too large to travel; whoever reads looks for himself

    def open(self) -> _Records:
        """Open the file; the index is made when it is wanted."""
        if suffix_of(self.path) is None:
            pieces = ReadablePieces(self.path, f"{self.who}()")
            if is_url(self.path):
                self.look_at_end(pieces)
            return _Records(self, pieces)
        with opened_in_order(self.path, self.who) as file, telling(self.path, self.who):
            return _Records(self, _InMemory(file.read()))

    def __len__(self) -> int:
        return len(self.handle.starts) - 1

    def __getitem__(self, index: int) -> Any:
        return self._one(self.within(index))

    def __getitems__(self, indices: Sequence[int]) -> Iterator[Any]:
        if len(indices) < 2:
            return map(self.__getitem__, indices)
        wanted = np.asarray(indices, np.int64)
        if wanted[-1] - wanted[0] == len(wanted) - 1 and bool((np.diff(wanted) == 1).all()):
            self.within(int(wanted[0])), self.within(int(wanted[-1]))
            return chain.from_iterable(self._in_order(int(wanted[0]), int(wanted[-1]) + 1))
        self.within(int(wanted.min())), self.within(int(wanted.max()))
        return map(self._one, wanted.tolist())

    def _one(self, index: int) -> Any:
        block = self._block(index, index + 1)
        try:
            (record,) = self.form.parse(block)
        except Exception as error:
            raise unreadable(self.form, block, index, self.path, self.who, error) from error
        return record

    def _in_order(self, start: int, stop: int) -> Iterator[Iterator[Any]]:
        starts = self.handle.starts
        while start < stop:
            end = int(np.searchsorted(starts, starts[start] + PIECE, "right")) - 1
            end = min(max(end, start + 1), stop)
            yield self._parsed(start, end)
            start = end

    def _parsed(self, start: int, stop: int) -> Iterator[Any]:
        return numbered_records(self.form, self._block(start, stop), start, self.path, self.who)

    def _block(self, start: int, stop: int) -> bytes:
        handle = self.handle
        begin, end = handle.starts.item(start), handle.starts.item(stop)
        block: bytes = handle.file.read(begin, end - begin)
        if len(block) < end - begin:
            raise ValueError(f"{self.who}(): {self.path} has become shorter while it was read")
        return block


class _InMemory:
    """Bytes in memory, read as a file is."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes from there on."""
        return self.data[offset : offset + length]

    def close(self) -> None:
        """There is nothing to close."""


class _Records:
    """An open file, and where its records begin."""

    def __init__(self, records: RecordFile, file: ReadablePieces | _InMemory) -> None:
        self.path, self.who, self.form, self.file = records.path, records.who, records.form, file
        self.indexes, self._turn = records.indexes, forks.lock()
        self.stamp, self.save_index = records.stamp, records.save_index

    @property
    def starts(self) -> np.ndarray:
        """Where each record begins, and where the last one ends."""
        if not self.indexes:
            with self._turn:
                if not self.indexes:
                    self.indexes.append(self._kept() if self.save_index else self._found())
        return self.indexes[0]

    def _kept(self) -> np.ndarray:
        return kept_starts(self.path, self.form.cutting, self.stamp, self._found, self.who)

    def _found(self) -> np.ndarray:
        at = self.form.start
        found = []
        for _, starts, end in record_blocks(self.form, self._pieces(), self.path, self.who):
            found.append(starts + at)
            at += end
        return np.concatenate([*found, [at]]).astype(np.int64)

    def _pieces(self) -> Iterator[bytes]:
        at = self.form.start
        while piece := self.file.read(at, PIECE):
            at += len(piece)
            yield piece

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class RecordStream(InOrder):
    """The records of files that are compressed, or some of them, one after the other."""

    def __init__(self, files: Sequence[tuple[str, Format]], who: str) -> None:
        super().__init__(files[0][0], who)
        self.files = list(files)
        self.stamp = tuple(stamp(path, f"{who}()") for path, _ in files)

    def datapoints(self, start: int) -> Iterator[Any]:
        """The records from number `start` on; in files before it they are only counted."""
        for path, form in self.files:
            start = yield from self._of(path, form, start)

    def _of(self, path: str, form: Format, start: int) -> Generator[Any, None, int]:
        """The records of a file; returns how many are to be passed over in those behind it."""
        number = 0
        with opened_in_order(path, self.who) as file:
            with telling(path, self.who):
                file.read(form.start)
            for block, starts, end in record_blocks(form, self._pieces(file, path), path, self.who):
                if number + len(starts) > start:
                    first = max(start - number, 0)
                    if len(starts):
                        yield from numbered_records(form, block[starts[first] : end], number + first, path, self.who)
                number += len(starts)
        return max(start - number, 0)

    def _pieces(self, file: Any, path: str) -> Iterator[bytes]:
        with telling(path, self.who):
            while piece := file.read(PIECE):
                yield piece


def record_blocks(
    form: Format, pieces: Iterable[bytes], path: str, who: str
) -> Iterator[tuple[bytes, np.ndarray, int]]:
    """Blocks, where in them whole records begin, and where what is left over does, which the next block begins with."""
    rest, number = b"", 0
    pieces = iter(pieces)
    piece: bytes | None = next(pieces, None)
    while piece is not None:
        following = next(pieces, None)
        block = rest + piece
        try:
            starts, end = form.cut(block, following is None)
        except Unreadable as error:
            raise ValueError(f"{who}(): {path}, from datapoint {number} on: {error}") from error
        if len(block) - end > LONGEST_RECORD:
            raise ValueError(
                f"{who}(): in {path}, datapoint {number + len(starts)} has more than {LONGEST_RECORD >> 20} MB; is it "
                "the right format?"
            )
        yield block, starts, end
        number += len(starts)
        rest, piece = block[end:], following


def numbered_records(form: Format, block: bytes, start: int, path: str, who: str) -> Iterator[Any]:
    """The records of a block, the first of which has number `start`; one that cannot be read is named."""
    try:
        yield from form.parse(block)
    except Exception as error:
        raise unreadable(form, block, start, path, who, error) from error


def unreadable(form: Format, block: bytes, start: int, path: str, who: str, error: Exception) -> Exception:
    """What to say of a block that cannot be read; nobody counts its records as long as there is
    nothing wrong with them."""
    number, cause = start - 1, error
    try:
        for number, _ in enumerate(form.carefully(block), start):  # noqa: B007 - it is told where it ends
            pass
    except Exception as told:
        cause = told
    return ValueError(f"{who}(): datapoint {number + 1} of {path} cannot be read: {cause}")


def line_starts(block: bytes, last: bool, comment: int | None = None) -> tuple[np.ndarray, int]:
    """Where lines begin that hold something, and where the last whole line ends;
    `comment` begins one that holds nothing."""
    view = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(view == NEWLINE)
    if last and len(block) and (not len(ends) or ends[-1] != len(block) - 1):
        ends = np.append(ends, len(block) - 1)
    if not len(ends):
        return ends, 0
    starts = np.concatenate([[0], ends[:-1] + 1])
    first = view[starts]
    blank = (first == NEWLINE) | ((first == 13) & (ends - starts <= 1))
    if comment is not None:
        blank |= first == comment
    return (starts[~blank] if blank.any() else starts), int(ends[-1]) + 1


def flow_of_records(
    files: Sequence[tuple[str, Format]], who: str, hold: bool, text: str, save_index: bool = False
) -> Flow[Any]:
    """The flow over files of records: seekable, unless one is compressed and not to be held.

    Raises:
        ValueError: where records begin is to be kept beside a file that is behind a URL.
    """
    for path, _ in files if save_index else ():
        if is_url(path):
            raise ValueError(f"{who}(): save_index=True needs local files, got {path!r}; leave it out")
    if not hold and any(suffix_of(path) is not None for path, _ in files):
        return flow_of(RecordStream(files, who), who, text)
    paths, forms = zip(*files)
    records = list(map(RecordFile, paths, repeat(who), forms, repeat(save_index)))
    return flow_of(together(records, who), who, text)


def write_records(
    path: Any, flow: Any, who: str, overwrite: bool, encoded: Callable[[Iterator[Any]], Iterator[bytes]]
) -> None:
    """Write what `encoded` makes of datapoints, compressed as the suffix says."""
    with (
        shown(flow, who) as datapoints,
        written_whole(path, overwrite, who) as beside,
        open(beside, "wb") as below,
        compressing(below, suffix_of(beside)) as file,
    ):
        parts = encoded(datapoints)
        while some := b"".join(islice(parts, 256)):
            file.write(some)
