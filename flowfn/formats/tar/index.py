"""Which samples are in a tar file, and where: found by going from header to header,
and kept in a file beside it if wanted.

A sample is what consecutive files of one name are: `dir/0001.jpg` and `dir/0001.cls` are the sample `dir/0001`, with
the components `jpg` and `cls` (the layout of WebDataset: https://github.com/webdataset/webdataset). Files of one sample
that do not follow one another would be two samples, neither of them whole: keys are remembered, and one that comes
again is an error.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from flowfn.formats.tar.headers import TarReader
from flowfn.formats.tar.tapes import Headers, Member, members
from flowfn.process import forks
from flowfn.storage.files import ReadablePieces, stamp
from flowfn.storage.recent import Recent
from flowfn.storage.unpacking import LOOK, PACKED, packing
from flowfn.storage.writing import written_whole

INDEX_SUFFIX = ".index"
"""What the name of the file with the samples of a shard has behind that of the shard."""
OPEN_SHARDS = 128
"""How many shards a process has open at most."""

_LAYOUT = b"flowfn samples 2"
_DIGEST = 16
_HEAD = struct.Struct("<qqqqqq")
"""Size and time of the shard; how many samples, components, bytes of names and bytes of remarks there are."""
_META = re.compile(r"__[^/]*__($|/)")


def split_name(name: str) -> tuple[str, str] | None:
    """The key of a file and its extension: all behind the first dot of its own name, in lower case.

    None for what is in no sample: a name that begins with a dot or has no extension, `__what is said of the shard__`.

    >>> split_name("a.b/0001.left.JPG"), split_name("README"), split_name(".hidden.txt"), split_name("__about__.json")
    (('a.b/0001', 'left.jpg'), None, None, ('__about__', 'json'))
    """
    folder, slash, own = name.rpartition("/")
    stem, _, extension = own.partition(".")
    if not stem or not extension or _META.match(name):
        return None
    return folder + slash + stem, extension.lower()


def sample_parts(
    source: TarReader, say: Callable[[str], Any], remembered: int | None = None
) -> Iterator[tuple[str, str, Member, bool]]:
    """The components in a tar file: key, extension, where it is, and whether it begins a sample.

    `say` is told what is odd, but no error; `remembered` is how many keys are remembered at least, by default all.

    Raises:
        ValueError: a key comes again behind others, or an extension in a sample; and see `members`.
    """
    recent, before = dict[str, int](), dict[str, int]()
    newest, extensions, left_out = None, set[str](), False
    for member in members(source, say):
        named = split_name(member.name)
        if named is None:
            if not left_out and not _META.match(member.name):
                say(
                    f"leaves out {member.name!r} at byte {member.offset}, and whatever else begins with a dot or has "
                    "no extension"
                )
                left_out = True
            continue
        key, extension = named
        begins = key != newest
        if begins:
            first = recent.get(key, before.get(key))
            if first is not None:
                raise _apart(source.called, key, first, extension, member.offset)
            if len(recent) == remembered:
                recent, before = {}, recent
            recent[key] = member.offset
            newest, extensions = key, set()
        if extension in extensions:
            raise ValueError(
                f"{source.called} holds two files {key}.{extension} one after the other; a sample has one of each "
                "extension"
            )
        extensions.add(extension)
        yield key, extension, member, begins


def _apart(called: str, key: str, first: int, extension: str, second: int) -> ValueError:
    return ValueError(
        f"{called} holds files of the sample {key!r} in two places, at byte {first} and at byte {second} "
        f"({key}.{extension}), with others "
        "between them; those of a sample must follow one another: pack it anew in the order of names (tar --sort=name)"
    )


def lacks(called: str, key: str, at: int, missing: str, there: Sequence[str]) -> ValueError:
    """The error for a sample without a component that is to be read."""
    return ValueError(
        f"{called} has no {missing!r} for the sample {key!r}, whose {', '.join(map(repr, there))} begin at byte {at}; "
        "leave components out to read what there is, or pack the file anew if it stands elsewhere"
    )


class Index:
    """The samples of one tar file: their keys, and the extension, offset and size of each component;
    and what is odd about it."""

    def __init__(
        self,
        starts: np.ndarray,
        offsets: np.ndarray,
        sizes: np.ndarray,
        ends: np.ndarray,
        names: bytes,
        remarks: Sequence[str] = (),
    ) -> None:
        self.starts, self.offsets, self.sizes, self.ends, self.names, self.remarks = (
            starts,
            offsets,
            sizes,
            ends,
            names,
            remarks,
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def sample(self, number: int) -> tuple[str, list[str], list[int], list[int]]:
        """The key of a sample; extensions, offsets and sizes of its components."""
        first, last = self.starts[number : number + 2].tolist()
        begin, end = self.ends[number : number + 2].tolist()
        key, *extensions = self.names[begin:end].decode("utf-8", "surrogateescape").split("\0")
        return key, extensions, self.offsets[first:last].tolist(), self.sizes[first:last].tolist()

    def demand(self, components: Sequence[str], called: str) -> None:
        """Raise an error if a sample lacks one of these components."""
        begin, seen = 0, set[bytes]()
        for number, end in enumerate(self.ends[1:].tolist()):
            there = self.names[begin:end].partition(b"\0")[2]
            begin = end
            if there not in seen:  # there are few kinds of samples
                seen.add(there)
                key, extensions, offsets, _ = self.sample(number)
                for missing in filter(lambda one: one not in extensions, components):
                    raise lacks(called, key, offsets[0], missing, extensions)


def scanned(pieces: ReadablePieces, called: str) -> Index:
    """Find the samples of a tar file; only its headers are read.

    Raises:
        ValueError: it is no tar file, or one that cannot be read from anywhere; see `members`.
    """
    if packing(pieces.read(0, LOOK)):
        raise ValueError(
            f"{called} is compressed, so it can only be read in order: pass index=False, or end its name with "
            f"{PACKED[0]}"
        )
    starts, offsets, sizes, names = list[int](), list[int](), list[int](), list[bytes]()
    remarks: list[str] = []
    for key, extension, member, begins in sample_parts(Headers(pieces, called), remarks.append):
        if begins:
            starts.append(len(offsets))
            names.append(_utf8_escaped(key))
        names[-1] += b"\0" + _utf8_escaped(extension)
        offsets.append(member.offset)
        sizes.append(member.size)
    starts.append(len(offsets))
    ends = np.fromiter(itertools.accumulate(map(len, names), initial=0), np.int64)
    return Index(
        np.array(starts, np.int64),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        ends,
        b"".join(names),
        remarks,
    )


def sample_index(pieces: ReadablePieces, path: str, called: str, *, save: bool = False) -> Index:
    """The samples of a tar file: as they stand beside it, if that is of this very file, or else by looking for them.

    With `save`, what is found is written beside it.
    """
    index = _beside(path, pieces.size)
    if index is None:
        index = scanned(pieces, called)
        if save:
            save_index(index, path)
    return index


def save_index(index: Index, path: str) -> None:
    """Write the samples of a tar file beside it."""
    size, moment = stamp(path)
    remarks = _utf8_escaped("\0".join(index.remarks))
    arrays = [array.astype("<i8").tobytes() for array in (index.starts, index.offsets, index.sizes, index.ends)]
    head = _HEAD.pack(size, moment, len(index), len(index.offsets), len(index.names), len(remarks))
    whole = b"".join((_LAYOUT, head, *arrays, index.names, remarks))
    with written_whole(path + INDEX_SUFFIX, True, "read_webdataset") as beside, open(beside, "wb") as file:
        file.write(whole + blake2b(whole, digest_size=_DIGEST).digest())


def _beside(path: str, size: int) -> Index | None:
    """What stands beside a tar file, if it is whole, and of this very file."""
    try:
        moment = os.stat(path).st_mtime_ns
        with open(path + INDEX_SUFFIX, "rb") as file:
            whole = file.read()
    except OSError:
        return None
    start = len(_LAYOUT) + _HEAD.size
    if (
        not whole.startswith(_LAYOUT)
        or blake2b(whole[:-_DIGEST], digest_size=_DIGEST).digest() != whole[-_DIGEST:]
        or len(whole) < start
    ):
        return None
    told_size, told_moment, samples, components, named, remarked = _HEAD.unpack_from(whole, len(_LAYOUT))
    lengths = [samples + 1, components, components, samples + 1]
    if (
        (told_size, told_moment) != (size, moment)
        or start + 8 * sum(lengths) + named + remarked + _DIGEST != len(whole)
        or min(samples, components, named, remarked) < 0
    ):
        return None
    numbers = np.frombuffer(whole, "<i8", sum(lengths), start)
    starts, offsets, sizes, ends = np.split(numbers, np.cumsum(lengths)[:-1])
    fits = (
        _rises(starts, components)
        and _rises(ends, named)
        and bool(((offsets >= 0) & (sizes >= 0) & (offsets <= size - sizes)).all())
    )
    names, remarks = whole[start + 8 * sum(lengths) :][:named], whole[start + 8 * sum(lengths) + named : -_DIGEST]
    said = remarks.decode("utf-8", "surrogateescape").split("\0") if remarks else []
    return Index(starts, offsets, sizes, ends, names, said) if fits else None


def _utf8_escaped(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _rises(numbers: np.ndarray, last: int) -> bool:
    """Whether numbers go from 0 to `last` without ever falling."""
    return bool(numbers[0] == 0 and numbers[-1] == last and (np.diff(numbers) >= 0).all())


class Shards:
    """Some tar files, of which a limited number is open, for any number of threads.
    `indexes` are the samples of some of them."""

    def __init__(self, paths: Sequence[str], stamps: Sequence[Any], indexes: dict[int, Index], who: str) -> None:
        self.paths, self.stamps, self.indexes, self.who = paths, stamps, indexes, who
        self._turn = forks.lock()
        self._open: Recent[tuple[ReadablePieces, Index]] = Recent(OPEN_SHARDS)

    def __getitem__(self, number: int) -> tuple[ReadablePieces, Index]:
        with self._turn:
            shard = self._open.get(number)
            if shard is None:
                shard = self._opened(number)
                self._open.put(number, shard)
            return shard

    def _opened(self, number: int) -> tuple[ReadablePieces, Index]:
        path = self.paths[number]
        if stamp(path, f"{self.who}()") != self.stamps[number]:
            raise ValueError(f"{self.who}(): {path} has changed since it was opened; call {self.who}() again")
        pieces = ReadablePieces(path, f"{self.who}()")
        if number not in self.indexes:
            self.indexes[number] = sample_index(pieces, path, f"{self.who}(): {path}")
        return pieces, self.indexes[number]

    def close(self) -> None:
        """Let go of all."""
        self._open.clear()
