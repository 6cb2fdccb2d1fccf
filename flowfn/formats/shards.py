"""Which samples are in a tar file, and where: found by going from header to header, and kept in a file beside it if wanted.

A sample is what consecutive files of one name are: `dir/0001.jpg` and `dir/0001.cls` are the sample `dir/0001`, with the
components `jpg` and `cls` (the layout of WebDataset: https://github.com/webdataset/webdataset).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from flowfn import forks
from flowfn.formats.files import Pieces, stamp
from flowfn.formats.tapes import PACKED, Headers, members
from flowfn.formats.writing import written

BESIDE = ".index"
"""What the name of the file with the samples of a shard has behind that of the shard."""
MOST_OPEN = 128
"""How many shards a process has open at most."""

_LAYOUT = b"flowfn samples 1"
_DIGEST = 16
_HEAD = struct.Struct("<qqqqq")
"""Size and time of the shard; how many samples, components and bytes of names there are."""
_META = re.compile(r"__[^/]*__($|/)")


def split(name: str) -> tuple[str, str] | None:
    """The key of a file and its extension: all behind the first dot of its own name, in lower case.

    None for what is in no sample: a hidden file, a name without an extension, `__what is said of the shard__`.

    >>> split("a.b/0001.left.JPG"), split("README"), split(".hidden.txt"), split("__about__.json")
    (('a.b/0001', 'left.jpg'), None, None, ('__about__', 'json'))
    """
    folder, slash, own = name.rpartition("/")
    stem, _, extension = own.partition(".")
    if not stem or not extension or _META.match(name):
        return None
    return folder + slash + stem, extension.lower()


def twice(called: str, key: str, extension: str) -> ValueError:
    """The error for two files that are the same component."""
    return ValueError(f"{called} holds two files {key}.{extension} one after the other; a sample has one of each extension")


class Index:
    """The samples of one tar file: their keys, and the extension, offset and size of each component."""

    def __init__(self, starts: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, ends: np.ndarray, names: bytes) -> None:
        self.starts, self.offsets, self.sizes, self.ends, self.names = starts, offsets, sizes, ends, names

    def __len__(self) -> int:
        return len(self.starts) - 1

    def sample(self, number: int) -> tuple[str, list[str], list[int], list[int]]:
        """The key of a sample; extensions, offsets and sizes of its components."""
        first, last = self.starts[number : number + 2].tolist()
        begin, end = self.ends[number : number + 2].tolist()
        key, *extensions = self.names[begin:end].decode("utf-8", "surrogateescape").split("\0")
        return key, extensions, self.offsets[first:last].tolist(), self.sizes[first:last].tolist()


def scanned(pieces: Pieces, called: str) -> Index:
    """Find the samples of a tar file; only its headers are read.

    Raises:
        ValueError: it is no tar file, or one that cannot be read from anywhere; see `members`.
    """
    first = pieces.read(0, 6)
    if first.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
        raise ValueError(f"{called} is compressed, so it can only be read in order: pass index=False, or end its name with {PACKED[0]}")
    starts, offsets, sizes, names = [0], list[int](), list[int](), list[bytes]()
    newest: str | None = None
    held: dict[str, None] = {}

    def close() -> None:
        names.append("\0".join((str(newest), *held)).encode("utf-8", "surrogateescape"))
        starts.append(len(offsets))

    for member in members(Headers(pieces, called)):
        named = split(member.name)
        if named is None:
            continue
        key, extension = named
        if key != newest:
            if newest is not None:
                close()
            newest, held = key, {}
        if extension in held:
            raise twice(called, key, extension)
        held[extension] = None
        offsets.append(member.offset)
        sizes.append(member.size)
    if newest is not None:
        close()
    ends = np.fromiter(itertools.accumulate(map(len, names), initial=0), np.int64)
    return Index(np.array(starts, np.int64), np.array(offsets, np.int64), np.array(sizes, np.int64), ends, b"".join(names))


def index_of(pieces: Pieces, path: str, called: str, *, save: bool = False) -> Index:
    """The samples of a tar file: as they stand beside it, if that is of this very file, or else by looking for them.

    With `save`, what is found is written beside it.
    """
    known = _beside(path, pieces.size)
    if known is None:
        known = scanned(pieces, called)
        if save:
            save_index(known, path)
    return known


def save_index(index: Index, path: str) -> None:
    """Write the samples of a tar file beside it."""
    size, moment = stamp(path)
    body = b"".join(array.astype("<i8").tobytes() for array in (index.starts, index.offsets, index.sizes, index.ends)) + index.names
    whole = _LAYOUT + _HEAD.pack(size, moment, len(index), len(index.offsets), len(index.names)) + body
    with written(path + BESIDE, True, "read_webdataset") as beside, open(beside, "wb") as file:
        file.write(whole + blake2b(whole, digest_size=_DIGEST).digest())


def _beside(path: str, size: int) -> Index | None:
    """What stands beside a tar file, if it is whole, and of this very file."""
    try:
        moment = os.stat(path).st_mtime_ns
        with open(path + BESIDE, "rb") as file:
            whole = file.read()
    except OSError:
        return None
    start = len(_LAYOUT) + _HEAD.size
    if not whole.startswith(_LAYOUT) or blake2b(whole[:-_DIGEST], digest_size=_DIGEST).digest() != whole[-_DIGEST:] or len(whole) < start:
        return None
    told_size, told_moment, samples, components, named = _HEAD.unpack_from(whole, len(_LAYOUT))
    lengths = [samples + 1, components, components, samples + 1]
    if (
        (told_size, told_moment) != (size, moment)
        or start + 8 * sum(lengths) + named + _DIGEST != len(whole)
        or min(samples, components) < 0
    ):
        return None
    numbers = np.frombuffer(whole, "<i8", sum(lengths), start)
    starts, offsets, sizes, ends = np.split(numbers, np.cumsum(lengths)[:-1])
    fits = _rises(starts, components) and _rises(ends, named) and bool(((offsets >= 0) & (sizes >= 0) & (offsets <= size - sizes)).all())
    return Index(starts, offsets, sizes, ends, whole[-_DIGEST - named : -_DIGEST]) if fits else None


def _rises(numbers: np.ndarray, last: int) -> bool:
    """Whether numbers go from 0 to `last` without ever falling."""
    return bool(numbers[0] == 0 and numbers[-1] == last and (np.diff(numbers) >= 0).all())


class Shards:
    """Some tar files, of which a limited number is open, for any number of threads. `known` are the samples of some of them."""

    def __init__(self, paths: Sequence[str], stamps: Sequence[Any], known: dict[int, Index], who: str) -> None:
        self.paths, self.stamps, self.known, self.who = paths, stamps, known, who
        self._turn = forks.lock()
        self._open: dict[int, list[Any]] = {}  # how many use it, its pieces, its index; what was used last stands last

    @contextlib.contextmanager
    def using(self, number: int) -> Iterator[tuple[Pieces, Index]]:
        """A shard, open as long as this lasts."""
        with self._turn:
            held = self._open.pop(number, None) or self._opened(number)
            self._open[number] = held
            held[0] += 1
        try:
            yield held[1], held[2]
        finally:
            with self._turn:
                held[0] -= 1

    def _opened(self, number: int) -> list[Any]:
        if len(self._open) >= MOST_OPEN:
            idle = next((at for at, held in self._open.items() if not held[0]), None)
            if idle is not None:
                self._open.pop(idle)[1].close()
        path = self.paths[number]
        if stamp(path, f"{self.who}()") != self.stamps[number]:
            raise ValueError(f"{self.who}(): {path} has changed since it was opened; call {self.who}() again")
        pieces = Pieces(path, f"{self.who}()")
        try:
            if number not in self.known:
                self.known[number] = index_of(pieces, path, f"{self.who}(): {path}")
            return [0, pieces, self.known[number]]
        except BaseException:
            pieces.close()
            raise

    def close(self) -> None:
        """Close them all."""
        for held in self._open.values():
            held[1].close()
        self._open.clear()
