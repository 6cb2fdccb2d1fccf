"""The framing of TFRecord files: length, its checksum, the bytes, their checksum;
and where each record of a file begins.

The format is that of tensorflow/core/lib/io/record_writer.h: a length of 8 bytes (little endian) and its masked
CRC-32C, then that many bytes and theirs. A CRC is masked by a rotation and a constant.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np

from flowfn.extras import needed
from flowfn.storage.damage import Unreadable, reading
from flowfn.storage.files import ReadablePieces
from flowfn.storage.in_order import open_in_order
from flowfn.storage.recent import Recent
from flowfn.storage.signatures import GZIP, ZLIB, likely_kind
from flowfn.storage.unpacking import unpacked_by

LENGTH, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
RECORD_HEAD = struct.Struct("<QI")
AROUND = RECORD_HEAD.size + CHECKSUM.size
"""How many bytes of a record are not its payload's."""
SMALL_RECORD = 1 << 12
"""Records up to this size are looked for many at once."""
LARGE_RECORD = 1 << 15
"""Records beyond this size are read to memory of their own."""
READ_SIZE = 1 << 20
OPEN_RECORD_FILES = 64
_MASK_DELTA = 0xA282EAD8
Payload = TypeVar("Payload", bytes, memoryview)


@functools.cache
def checksums(who: str) -> Callable[[Any], int]:
    """The function from bytes to their CRC-32C."""
    checksum: Callable[[Any], int] = needed("crc32c", who, extra="tfrecord").crc32c
    return checksum


def masked(checksum: int) -> int:
    """A CRC as it stands in a file.

    >>> hex(masked(0)), hex(masked(0xFFFFFFFF))
    ('0xa282ead8', '0xa282ead7')
    """
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def framed(payload: bytes, crc: Callable[[Any], int]) -> bytes:
    """A payload as a record."""
    length = LENGTH.pack(len(payload))
    return b"".join((length, CHECKSUM.pack(masked(crc(length))), payload, CHECKSUM.pack(masked(crc(payload)))))


def begins(pieces: ReadablePieces, called: str, crc: Callable[[Any], int]) -> np.ndarray:
    """Where each record of a file begins, and where the last one ends; only heads are read.

    Raises:
        ValueError: a length is not what its checksum says, or goes beyond the end of the file.
    """
    starts, at, size = [0], 0, pieces.size
    buffer, base, step = b"", 0, READ_SIZE
    while at < size:
        if at + RECORD_HEAD.size > base + len(buffer):
            buffer, base = pieces.read(at, step), at
            if len(buffer) < RECORD_HEAD.size:
                raise _cut(called, len(starts) - 1, at, RECORD_HEAD.size, size - at)
        length, checksum = RECORD_HEAD.unpack_from(buffer, at - base)
        if masked(crc(buffer[at - base : at - base + LENGTH.size])) != checksum:
            raise corrupt(
                called, len(starts) - 1, at, "the checksum of its length is wrong", buffer[:2] if not at else b""
            )
        if at + length + AROUND > size:
            raise _cut(called, len(starts) - 1, at, length + AROUND, size - at)
        at += length + AROUND
        step = READ_SIZE if length <= SMALL_RECORD else RECORD_HEAD.size
        starts.append(at)
    return np.array(starts, np.int64)


def payload_at(pieces: ReadablePieces, begin: int, end: int, crc: Callable[[Any], int]) -> bytes:
    """What is in the record at a place of a file, if it is whole.

    Raises:
        Unreadable: it is not.
    """
    size = end - begin - AROUND
    if size > LARGE_RECORD and pieces.local:  # read to where it is to be, which is faster than to copy it there
        return _checked(
            pieces.read(begin, RECORD_HEAD.size),
            pieces.read(begin + RECORD_HEAD.size, size),
            pieces.read(end - CHECKSUM.size, CHECKSUM.size),
            crc,
        )
    record = pieces.read(begin, end - begin)
    return _checked(record, record[RECORD_HEAD.size : size + RECORD_HEAD.size], record[size + RECORD_HEAD.size :], crc)


def _checked(head: bytes, payload: Payload, tail: bytes, crc: Callable[[Any], int]) -> Payload:
    if len(tail) < CHECKSUM.size:
        raise Unreadable("the file ends before it; it is shorter than it was when its records were counted")
    if LENGTH.unpack_from(head)[0] != len(payload):
        raise Unreadable("its length is not that of the index: the file has changed since, or the index is of another")
    checksum = crc(payload)
    if ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF != CHECKSUM.unpack(tail)[0]:
        raise Unreadable("the checksum of its bytes is wrong")
    return payload


def payloads_of(block: bytes, begins: np.ndarray, ends: np.ndarray, crc: Callable[[Any], int]) -> list[Any]:
    """What is in records that lie in a block one behind the other: of those before the first that is not whole."""
    there = int(np.searchsorted(ends, len(block), side="right"))
    begins, ends = begins[:there], ends[:there]
    octets = np.frombuffer(block, np.uint8)
    lengths = octets[begins[:, None] + np.arange(LENGTH.size)].view("<u8").ravel()
    stored = octets[ends[:, None] + np.arange(-CHECKSUM.size, 0)].view("<u4").ravel() - np.uint32(_MASK_DELTA)
    held: Any = (
        block if len(block) < SMALL_RECORD * there else memoryview(block)
    )  # small ones are copied faster than looked at
    payloads = list(
        map(held.__getitem__, map(slice, (begins + RECORD_HEAD.size).tolist(), (ends - CHECKSUM.size).tolist()))
    )
    computed = np.fromiter(map(crc, payloads), np.uint32, there)
    whole = (stored == (computed >> 15 | computed << 17)) & (lengths == (ends - begins - AROUND).astype(np.uint64))
    return payloads if whole.all() else payloads[: int(whole.argmin())]


def payloads_in_order(
    path: str, compression: str | None, who: str
) -> Generator[tuple[int, int, memoryview], None, None]:
    """(number, where it begins, payload) of the records of a file, one after the other.

    Raises:
        ValueError: a record is torn or corrupt, or the compression is.
    """
    crc, called = checksums(f"{who}()"), f"{who}(): {path}"
    with open_in_order(path, f"{who}()") as raw:
        file = raw if compression is None else unpacked_by(compression, raw, f"{who}()")
        number = at = 0
        while True:
            head = _read_slowly(file, RECORD_HEAD.size, path, called, number, at)
            if not head:
                return
            if len(head) < RECORD_HEAD.size:
                raise _cut(called, number, at, RECORD_HEAD.size, len(head))
            length, checksum = RECORD_HEAD.unpack(head)
            if masked(crc(head[: LENGTH.size])) != checksum:
                raise corrupt(called, number, at, "the checksum of its length is wrong", head[:2] if not at else b"")
            rest = _read_slowly(file, length + CHECKSUM.size, path, called, number, at)
            if len(rest) < length + CHECKSUM.size:
                raise _cut(called, number, at, length + AROUND, len(rest) + RECORD_HEAD.size)
            try:
                payload = _checked(head, memoryview(rest)[:-4], rest[-4:], crc)
            except Unreadable as error:
                raise corrupt(called, number, at, str(error)) from error
            yield number, at, payload
            number, at = number + 1, at + length + AROUND


def _read_slowly(file: Any, size: int, path: str, called: str, number: int, at: int) -> bytes:
    """So many bytes, a few at a time: no memory is set aside for what is not there."""
    parts: list[bytes] = []
    with reading(path, f"{called}: what is compressed is torn in record {number} (byte {at} of what it unpacks to)"):
        while size > 0:
            found = file.read(min(size, READ_SIZE))
            if not found:
                break
            parts.append(found)
            size -= len(found)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class OpenFiles:
    """The files of a set, each opened when it is first wanted."""

    def __init__(self, paths: list[str], who: str) -> None:
        self._paths, self._who = paths, who
        self._open: Recent[ReadablePieces] = Recent(OPEN_RECORD_FILES)

    def __getitem__(self, number: int) -> ReadablePieces:
        pieces = self._open.get(number)
        if pieces is None:
            pieces = ReadablePieces(self._paths[number], self._who)
            self._open.put(number, pieces)
        return pieces

    def close(self) -> None:
        """Let go of all."""
        self._open.clear()


def corrupt(called: str, number: int, at: int, why: str, first: bytes = b"") -> ValueError:
    """The error for a record that is not what was written."""
    packing = likely_kind(first, (GZIP, ZLIB))
    hint = f'; it looks compressed: pass compression="{packing.program}"' if packing else ""
    return ValueError(f"{called} is corrupt, or no TFRecord file: record {number}, at byte {at}: {why}{hint}")


def _cut(called: str, number: int, at: int, needs: int, left: int) -> ValueError:
    return ValueError(
        f"{called} is truncated: record {number}, at byte {at}, must have {needs} bytes, and {left} are left; copy or "
        "write it again"
    )
