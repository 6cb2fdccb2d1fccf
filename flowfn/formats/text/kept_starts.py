"""Where the records of a file begin, kept in a file beside it (`.index`), so that they are looked for once, and not by
every process.

It is of this very file, by size and time, and of records that are cut in this way; it is whole, by a checksum; anything
else is not believed, and looked for anew. Processes that start at once wait for the one that looks, where the system
has locks on files; where it has none (some network file systems), each looks, and what the last one has found, which is
the same, stays. Where nothing can be written, what was found is kept in memory.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np

from flowfn.storage.damage import warn_caller
from flowfn.storage.files import stamp
from flowfn.storage.writing import written_whole

if sys.platform != "win32":
    import fcntl

INDEX_SUFFIX = ".index"
"""What the name of the file has behind that of the records'."""

_LAYOUT = b"flowfn records 1"
_DIGEST = 16
_HEAD = struct.Struct("<16sqqq16s")
"""The layout, size and time of the file, how many records there are, and the digest of how they are cut."""


def kept_starts(path: str, cutting: str, of: tuple[Any, ...], find: Callable[[], np.ndarray], who: str) -> np.ndarray:
    """Where the records of a file begin, and where the last one ends: as it is kept beside it, or else by looking.

    `cutting` says in which way records are cut, `of` is the size and the time of the file.

    Warns:
        UserWarning: it cannot be kept there.
    """
    starts = saved_starts(path, cutting, of)
    if starts is not None:
        return starts
    with _looking_alone(path):
        starts = saved_starts(path, cutting, of)  # somebody else may have looked meanwhile
        if starts is None:
            starts = find()
            if stamp(path) == of:
                _save(path, cutting, of, starts, who)
    return starts


def saved_starts(path: str, cutting: str, of: tuple[Any, ...]) -> np.ndarray | None:
    """What is kept beside a file; None if that is nothing, or of another file, or damaged."""
    try:
        with open(path + INDEX_SUFFIX, "rb") as file:
            whole = file.read()
    except OSError:
        return None
    count = (len(whole) - _HEAD.size - _DIGEST) // 8 - 1
    if count < 0 or whole[: _HEAD.size] != _head(cutting, of, count):
        return None
    if blake2b(memoryview(whole)[:-_DIGEST], digest_size=_DIGEST).digest() != whole[-_DIGEST:]:
        return None
    return np.frombuffer(whole, "<i8", count + 1, _HEAD.size)


def _head(cutting: str, of: tuple[Any, ...], count: int) -> bytes:
    return _HEAD.pack(_LAYOUT, *of, count, blake2b(cutting.encode(), digest_size=16).digest())


def _save(path: str, cutting: str, of: tuple[Any, ...], starts: np.ndarray, who: str) -> None:
    whole = _head(cutting, of, len(starts) - 1) + starts.astype("<i8").tobytes()
    try:
        with written_whole(path + INDEX_SUFFIX, True, who) as beside, open(beside, "wb") as file:
            file.write(whole)
            file.write(blake2b(whole, digest_size=_DIGEST).digest())
    except OSError as error:
        warn_caller(
            f"{who}(): where records begin cannot be kept beside {path} ({error.strerror or error}); it is kept in "
            "memory, and every process looks for itself: make it where the folder can be written to, or leave out "
            "save_index"
        )


@contextlib.contextmanager
def _looking_alone(path: str) -> Iterator[None]:
    """Nobody else who comes here looks through the same file meanwhile, where the system can see to it."""
    if sys.platform == "win32":
        yield
        return
    with open(path, "rb") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # a child that was forked meanwhile has the file open, too
