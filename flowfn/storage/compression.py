"""Files that are compressed as a whole, as their suffix says: .gz, .bz2, .xz."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import Any

from flowfn.storage.damage import reading
from flowfn.storage.in_order import open_in_order
from flowfn.storage.signatures import HEAD_LENGTH, kind_of, unexpected_kind
from flowfn.storage.unpacking import COMPRESSORS, packed_by, unpacked_by

_SUFFIXES = {
    compressor.suffixes[0]: name
    for name, compressor in COMPRESSORS.items()
    if compressor.packing and compressor.suffixes
}
"""How names end, and what has compressed those files."""


def telling(path: str, who: str) -> AbstractContextManager[None]:
    """What goes wrong when something is read that may be compressed is told with the name of the file."""
    if suffix_of(path) is None:
        return reading(path, f"{who}(): {path} cannot be read")
    return reading(path, f"{who}(): {path} cannot be decompressed", "; it is damaged, or not whole")


def suffix_of(path: str) -> str | None:
    """The suffix of a path that says how it is compressed."""
    return next((suffix for suffix in _SUFFIXES if path.lower().endswith(suffix)), None)


def opened_in_order(path: str, who: str) -> Any:
    """A file to read from its beginning, decompressed."""
    suffix = suffix_of(path)
    file: Any = open_in_order(path, f"{who}()")
    if suffix is None:
        return file
    try:
        _check_packing(file, suffix, path, who)
    except BaseException:
        file.close()
        raise
    return _Decompressed(file, unpacked_by(_SUFFIXES[suffix], file, f"{who}()"))


def _check_packing(file: Any, suffix: str, path: str, who: str) -> None:
    """Make sure that a file is compressed as its name says."""
    with telling(path, who):
        head = file.peek(HEAD_LENGTH)[:HEAD_LENGTH]
    kind = kind_of(head)
    if head and (kind is None or kind.program is None):
        what = f"{kind.called}" if kind else "not compressed"
        raise ValueError(f"{who}(): {path} is {what}, although its name ends with {suffix}; rename it, or compress it")
    if kind is not None and suffix not in kind.remedy:
        raise ValueError(f"{who}(): {path} is {kind.called}, although its name ends with {suffix}: {kind.remedy}")


class _Decompressed(io.RawIOBase):
    """A compressed file, closed together with the one below it."""

    def __init__(self, below: Any, file: Any) -> None:
        self.below, self.file = below, file

    def read(self, size: int = -1) -> bytes:
        return bytes(self.file.read(size))

    def close(self) -> None:
        self.file.close()
        self.below.close()
        super().close()


def first_bytes(path: str, who: str, count: int) -> bytes:
    """The first bytes of a file, decompressed."""
    with opened_in_order(path, who) as file, telling(path, who):
        return bytes(file.read(count))


def first_of_text(path: str, who: str, count: int) -> bytes:
    """The first bytes of a file of text, decompressed.

    Raises:
        ValueError: it is no text, but of another kind, or in UTF-16; the message says what to do.
    """
    head = first_bytes(path, who, max(count, HEAD_LENGTH))
    other = unexpected_kind(head, who)
    if other:
        raise ValueError(f"{who}(): {path} cannot be read: {other}")
    return head[:count]


def compressing(below: Any, suffix: str | None) -> Any:
    """A file to write to that compresses, as the suffix says, to one below it."""
    if suffix is None:
        return io.BufferedWriter(below, 1 << 20)
    return packed_by(_SUFFIXES[suffix], below)
