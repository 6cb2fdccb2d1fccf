"""TFRecord files, without TensorFlow: datapoints one after the other, each with its checksum."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.blocks import Block
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.formats.encoding.payloads import reader_of_all, unpacker
from flowfn.formats.tfrecord import framing
from flowfn.formats.tfrecord.examples import from_example, is_form
from flowfn.formats.tfrecord.indexing import record_index
from flowfn.storage.damage import Unreadable
from flowfn.storage.files import InOrder, Opened, ReadablePieces, call, flow_of, is_url, stamp
from flowfn.storage.finding import paths_of

SPAN = 1 << 18
"""How many bytes of records that follow one another are read at once."""
EXAMPLES = frozenset((0x0A, 0x12))
"""What an Example or a SequenceExample begins with, the number and the type of a field;
nothing that is packed and longer does."""

_FEATURES = rules.Rule(
    "a list of names, a dict from names to bytes, str, int, float, (dtype, shape) or a function, or None",
    lambda value: value is None or isinstance(value, (list, tuple, Mapping)),
    lambda value, others: value is None or is_form(value),
)
COMPRESSION = rules.one_of("gzip", "zlib", None)


@rules.checked(
    features=_FEATURES,
    decode=rules.optional(rules.function),
    compression=COMPRESSION,
    save_index=rules.boolean,
    allow_pickle=rules.boolean,
)
def read_tfrecord(
    paths: Any,
    *,
    features: Any = None,
    decode: Callable[[bytes], Any] | None = None,
    compression: str | None = None,
    save_index: bool = False,
    allow_pickle: bool = False,
) -> Flow[Any]:
    """A flow of the datapoints in TFRecord files, whose checksums are checked.

    `paths` is a path, a URL, a glob pattern, a range in braces ("train-{0000..0007}.tfrecord"), or a list of them.

    A record is what it says it is: a `tf.train.Example` gives a dict of lists of bytes and of arrays, a
    `SequenceExample` that of its context with its feature lists beside them, lists of those (see `from_example`, also
    for `features`, which chooses and shapes them), and what `write_tfrecord` wrote comes out as it went in, but for
    arrays, which cannot be written to. `decode` makes a datapoint of the bytes of a record instead. What tensorpack's
    TFRecordSerializer wrote are pickles, unless it was told otherwise: they are read with `allow_pickle=True`, and only
    if it is known where they come from, as they can run code.

    Local files can be read anywhere: where each record begins is found by going from length to length, when that is
    first wanted. With `save_index=True` it is kept in a file beside each, `path` + ".idx" (lines of offset and size, as
    NVIDIA DALI has them), and read from there the next time. Compressed files ("gzip" or "zlib", as a whole) are read
    in order, and so are URLs, unless there is such an index and `save_index` says to use it.

    Raises:
        FileNotFoundError: there is no such file, or none matches.
        ValueError: a record is truncated or corrupt, cannot be decoded, or is a pickle.

    >>> import tempfile
    >>> from flowfn.formats import write_tfrecord
    >>> path = tempfile.mkdtemp() + "/words.tfrecord"
    >>> write_tfrecord(path, [["one", 1], ["two", 2]])
    >>> words = read_tfrecord(path)
    >>> len(words), words[1]
    (2, ['two', 2])
    """
    if features is not None and decode is not None:
        raise ValueError(
            "read_tfrecord(): give features, for records of tf.train.Example, or decode, for others; not both"
        )
    framing.checksums("read_tfrecord()")
    if features is None and decode is None:
        needed("msgpack", "read_tfrecord()", extra="tfrecord")
    found, form = paths_of(paths, "read_tfrecord"), RecordDecoding(features, decode, allow_pickle)
    seekable = compression is None and (save_index or not any(map(is_url, found)))
    records = Records(found, form, save_index) if seekable else RecordsInOrder(found, form, compression)
    options: dict[str, tuple[Any, Any]] = {
        name: (value, None)
        for name, value in (("features", features), ("decode", decode), ("compression", compression))
    }
    options |= {"save_index": (save_index, False), "allow_pickle": (allow_pickle, False)}
    given = os.fspath(paths) if isinstance(paths, os.PathLike) else paths
    return flow_of(records, "read_tfrecord", call("read_tfrecord", given, **options))


@dataclass(frozen=True)
class RecordDecoding:
    """What a payload is made into."""

    features: Any
    decode: Callable[[bytes], Any] | None
    allow_pickle: bool

    @property
    def reader(self) -> Callable[[Any], Any]:
        """The function that makes it."""
        if self.decode is not None:
            decode = self.decode
            return lambda payload: decode(bytes(payload))
        if self.features is not None:
            return partial(from_example, features=self.features)
        return partial(_told_apart, unpacker(self.allow_pickle))

    @property
    def is_ours(self) -> bool:
        """Whether no function of the user's is called."""
        return self.decode is None and self.features is None

    def reader_of_all(self, payloads: list[Any]) -> Callable[[Any], Any]:
        """What makes datapoints of all of these, as fast as can be where they are of one kind."""
        if self.is_ours and payloads and all(payloads) and min(map(len, payloads)) > 1:
            firsts = set(map(itemgetter(0), payloads))
            if firsts.isdisjoint(EXAMPLES):
                return reader_of_all(payloads, self.allow_pickle)
            if firsts <= EXAMPLES:
                return from_example
        return self.reader


def _told_apart(unpack: Callable[[Any], Any], payload: Any) -> Any:
    """A datapoint of what was packed, or of an Example."""
    if len(payload) > 1 and payload[0] not in EXAMPLES:
        return unpack(payload)
    return unpack(payload) if len(payload) == 1 else from_example(payload)


class Records(Opened):
    """The records of a few files, by their number."""

    def __init__(self, paths: list[str], form: RecordDecoding, save_index: bool) -> None:
        super().__init__(paths[0], "read_tfrecord")
        self.paths, self.form, self.save_index = paths, form, save_index
        self.stamp = tuple(stamp(path, "read_tfrecord()") for path in paths)
        self._firsts: np.ndarray | None = None
        self._indexes: dict[int, np.ndarray] = {}

    def open(self) -> framing.OpenFiles:
        """The files, of which each is opened when something in it is wanted."""
        return framing.OpenFiles(self.paths, f"{self.who}()")

    @property
    def firsts(self) -> np.ndarray:
        """The number of the first record of each file, and in the end how many records there are."""
        if self._firsts is None:
            self._firsts = np.cumsum([0, *(len(self.index(file)) - 1 for file in range(len(self.paths)))])
        return self._firsts

    def index(self, file: int) -> np.ndarray:
        """Where each record of a file begins, and where the last one ends."""
        if file not in self._indexes:
            self._indexes[file] = record_index(self.paths[file], self.handle[file], self.save_index, self.who)
        return self._indexes[file]

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def __getitem__(self, index: int) -> Any:
        file, number = self._place(self.within(index))
        begin, end = self.index(file)[number : number + 2].tolist()
        try:
            return self.form.reader(
                framing.payload_at(self.handle[file], begin, end, framing.checksums("read_tfrecord()"))
            )
        except Unreadable as error:
            raise self._error_for(file, number, begin, error) from error

    def __getitems__(self, indices: Sequence[int]) -> Iterator[Any]:
        return self.each(np.asarray(indices, np.int64))

    def each(self, block: Block) -> Iterator[Any]:
        """Records by number; those that follow one another, many at once."""
        return iter((self[int(block[0])],)) if len(block) == 1 else self._many(np.asarray(block, np.int64))

    def _many(self, wanted: np.ndarray) -> Iterator[Any]:
        if not len(wanted):
            return
        self.within(int(wanted.min())), self.within(int(wanted.max()))
        which = np.searchsorted(self.firsts, wanted, side="right") - 1
        within = wanted - self.firsts[which]
        begins, ends = np.empty(len(wanted), np.int64), np.empty(len(wanted), np.int64)
        for file in np.unique(which).tolist():
            here = which == file
            begins[here], ends[here] = self.index(file)[within[here]], self.index(file)[within[here] + 1]
        breaks = np.flatnonzero((ends[:-1] != begins[1:]) | (which[1:] != which[:-1])) + 1
        files, numbers, starts, stops = which.tolist(), within.tolist(), begins.tolist(), ends.tolist()
        handles, read, crc = self.handle, self.form.reader, framing.checksums("read_tfrecord()")
        for at, following in pairwise([0, *breaks.tolist(), len(wanted)]):
            pieces = handles[files[at]]
            while at < following:
                begin = starts[at]
                last = bisect_right(stops, begin + SPAN, at + 1, following) if following - at > 1 else at + 1
                try:
                    if last == at + 1:
                        yield read(framing.payload_at(pieces, begin, stops[at], crc))
                    else:
                        yield from self._near(pieces, files[at], numbers[at], begins[at:last], ends[at:last])
                except Unreadable as error:
                    raise self._error_for(files[at], numbers[at], begin, error) from error
                at = last

    def _near(
        self, pieces: ReadablePieces, file: int, number: int, begins: np.ndarray, ends: np.ndarray
    ) -> Iterator[Any]:
        """Records that follow one another in a file, read at once."""
        begin, crc = int(begins[0]), framing.checksums("read_tfrecord()")
        payloads = framing.payloads_of(pieces.read(begin, int(ends[-1]) - begin), begins - begin, ends - begin, crc)
        yield from self._all_of(payloads, file, number, begins)
        at = len(payloads)
        if at < len(begins):  # it is not whole, and this tells why
            try:
                framing.payload_at(pieces, int(begins[at]), int(ends[at]), crc)
                raise Unreadable("it changed while it was read")
            except Unreadable as error:
                raise self._error_for(file, number + at, int(begins[at]), error) from error

    def _all_of(self, payloads: list[Any], file: int, number: int, begins: np.ndarray) -> Iterator[Any]:
        """What payloads are made into, without more of Python for each than needs be;
        what is wrong is looked for afterwards."""
        try:
            yield from map(self.form.reader_of_all(payloads), payloads)
        except Exception as error:
            if self.form.is_ours or isinstance(error, Unreadable):
                for at, payload in enumerate(payloads):
                    try:
                        self.form.reader(payload)
                    except Unreadable as cause:
                        raise self._error_for(file, number + at, int(begins[at]), cause) from cause
            raise

    def _place(self, index: int) -> tuple[int, int]:
        """The file of a record, and its number there."""
        file = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return file, index - int(self.firsts[file])

    def _error_for(self, file: int, number: int, at: int, error: Unreadable) -> ValueError:
        return _unreadable(self.paths[file], number, at, error)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_indexes": {}}  # too large to travel; whoever reads a file looks for himself


class RecordsInOrder(InOrder):
    """The records of a few files, one after the other."""

    def __init__(self, paths: list[str], form: RecordDecoding, compression: str | None) -> None:
        super().__init__(paths[0], "read_tfrecord")
        self.paths, self.form, self.compression = paths, form, compression
        self.stamp = tuple(stamp(path, "read_tfrecord()") for path in paths)

    def datapoints(self, start: int) -> Iterator[Any]:
        """The datapoints from `start` on; those before it are not decoded."""
        read = self.form.reader
        for path in self.paths:
            with contextlib.closing(framing.payloads_in_order(path, self.compression, self.who)) as records:
                for number, at, payload in records:
                    if start:
                        start -= 1
                        continue
                    try:
                        datapoint = read(payload)
                    except Unreadable as error:
                        raise _unreadable(path, number, at, error) from error
                    yield datapoint


def _unreadable(path: str, number: int, at: int, error: Unreadable) -> ValueError:
    return ValueError(
        f"read_tfrecord(): record {number} of {path}, at byte {at}, cannot be read: {error}; for records of another "
        "form, give decode="
    )
