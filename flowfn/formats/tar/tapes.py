"""Tar files, member by member: which regular files are in them, and where.
Nothing is extracted, and nothing is created.

A reader of its own, because it only has to find files and must not believe what a file says of itself: sizes are held
against the bytes that are there, names, links and devices that do harm elsewhere are errors,
and what stands behind the end is looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flowfn.formats.tar import headers
from flowfn.formats.tar.headers import BLOCK_SIZE, TarReader
from flowfn.storage.damage import raise_clearly
from flowfn.storage.files import ReadablePieces
from flowfn.storage.in_order import open_in_order
from flowfn.storage.unpacking import LARGEST_READ, read_fully, unpacked

END_MARK = 42 * BLOCK_SIZE
"""How many zeros mark an end at most: two blocks, and what is left of a record of twenty, in which nearly all programs
write, and of another where `tar --concatenate` has added to a file."""

_REGULAR, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _LONG_LINK, _EXTENDED, _FOR_ALL = b"L", b"K", (b"x", b"X"), b"g"
_LABEL, _LISTING, _SPARSE, _CONTINUED = b"V", b"D", b"S", b"M"
_WITH_HOLES = ("GNU.sparse", "SCHILY.realsize", "SUN.holesdata")
"""How records begin that tell of a sparse file, of which only the parts that are no zeros are there."""
_REFUSED = {
    b"1": ("a hard link", "tar --hard-dereference"),
    b"2": ("a symbolic link", "tar --dereference"),
    b"3": ("a device", "without it"),
    b"4": ("a device", "without it"),
    b"6": ("a pipe", "without it"),
    _SPARSE: ("a sparse file", "without -S or --sparse; bsdtar: with --no-read-sparse"),
    _CONTINUED: ("a part of a file that begins in another volume", "without --multi-volume"),
}
"""Kinds of members that are not read, and how to do without them."""


class Member(NamedTuple):
    """A regular file in a tar file: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


class Headers:
    """A tar file of which only the headers are read."""

    def __init__(self, pieces: ReadablePieces, called: str) -> None:
        self.pieces, self.called, self.position = pieces, called, 0

    def read(self, length: int) -> bytes:
        """So many bytes; fewer where the file ends."""
        found = self.pieces.read(self.position, length)
        self.position += len(found)
        return found

    def skip(self, length: int) -> bool:
        """Pass over so many bytes; whether they are there."""
        self.position += length
        return self.position <= self.pieces.size


class Tape:
    """A tar file that is read from its beginning to its end, compressed or not. `called` as in errors.

    Raises:
        ValueError: it cannot be unpacked.
        ImportError: it is compressed by zstd, and zstandard is not installed.
    """

    def __init__(self, path: str, who: str, called: str) -> None:
        self.path, self.called, self.position = path, called, 0
        with contextlib.ExitStack() as opened:
            raw = opened.enter_context(open_in_order(path, who))
            self.file, self.packed = unpacked(raw, who)
            if self.packed:
                opened.callback(self.file.close)
            self._opened = opened.pop_all()

    def read(self, length: int) -> bytes:
        """So many bytes; fewer where the file ends."""
        try:
            data = read_fully(self.file, length)
        except Exception as error:
            what = f"is damaged or cut off: it cannot be unpacked by {self.packed}" if self.packed else "cannot be read"
            raise_clearly(error, self.path, f"{self.called} {what} behind byte {self.position}")
        self.position += len(data)
        return data

    def skip(self, length: int) -> bool:
        """Pass over so many bytes; whether they are there."""
        while length and (found := len(self.read(min(length, LARGEST_READ)))):
            length -= found
        return not length

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.close()


def members(source: TarReader, say: Callable[[str], Any]) -> Iterator[Member]:
    """The regular files of a tar file, in its order. The bytes of the newest can be read from a tape, by `payload`.

    `say` is told what is odd, but no error: "has ...".

    Raises:
        ValueError: it is no tar file, or it is damaged or cut off; there is a link, a device, a sparse file, or a name
            that leads out of the folder in it; or something stands behind its end.
    """
    for_all: dict[str, str] = {}
    for_next: dict[str, str] = {}
    while (block := headers.header(source)) is not None:
        at, kind = source.position - BLOCK_SIZE, block[156:157]
        size = headers.number(block[124:136], source.called, at)
        if kind in _EXTENDED or kind in (_LONG_NAME, _LONG_LINK, _FOR_ALL):
            held = headers.extended(source, size, at)
            if kind == _LONG_NAME:
                for_next["path"] = headers.text(held)
            elif kind != _LONG_LINK:
                (for_all if kind == _FOR_ALL else for_next).update(headers.records(held, source.called, at))
            continue
        name = ""
        if for_all or for_next:
            keywords, for_next = {**for_all, **for_next}, {}
            name = keywords.get("GNU.sparse.name") or keywords.get("path") or ""
            size = headers.size_of(keywords, size, source.called, at)
            kind = (
                _SPARSE
                if any(key.startswith(_WITH_HOLES) for key in keywords)
                else _CONTINUED
                if "GNU.volume.filename" in for_all
                else kind
            )
        member = Member(name or headers.name_in(block), source.position, size)
        if kind == _FOLDER or (kind in _REGULAR and member.name.endswith("/") and not member.size):
            continue
        if kind not in (_LABEL, _LISTING):
            _check(member, kind, source.called, at)
            yield member
        if not source.skip(member.offset + -(-member.size // BLOCK_SIZE) * BLOCK_SIZE - source.position):
            raise cut_off(source.called, member)
    _look_behind(source, say)


def payload(tape: Tape, member: Member) -> bytes:
    """The bytes of the member that a tape has come to.

    Raises:
        ValueError: there are fewer.
    """
    data = tape.read(member.size)
    if len(data) < member.size:
        raise cut_off(tape.called, member)
    return data


def cut_off(called: str, member: Member) -> ValueError:
    """The error for a member that is longer than what is there."""
    return ValueError(
        f"{called} is cut off: it ends within {member.name!r}, whose {member.size} bytes begin at byte "
        f"{member.offset}; get it again, "
        "or, if it is the first of several volumes, pack them as one"
    )


def _look_behind(source: TarReader, say: Callable[[str], Any]) -> None:
    """Hold what stands behind the first block of zeros against what marks an end."""
    begin = source.position - BLOCK_SIZE
    while piece := source.read(LARGEST_READ):
        if piece != bytes(len(piece)):
            rest = piece.lstrip(b"\0")
            raise ValueError(
                f"{source.called} goes on at byte {source.position - len(rest)}, behind the zeros at byte {begin} "
                "that mark its end, where "
                "tar and webdataset stop reading; if several tar files were joined, keep them apart, or join them by "
                "tar --concatenate"
            )
    zeros = source.position - begin
    if zeros > END_MARK:
        say(
            f"has {zeros} zeros from byte {begin} on, where {END_MARK} mark an end at most; if it lacks files, get it "
            "again: it is not whole"
        )


def _check(member: Member, kind: bytes, called: str, at: int) -> None:
    """Refuse what is no regular file, and names that lead elsewhere."""
    if kind not in _REGULAR:
        what, remedy = _REFUSED.get(kind, (f"a member of the unknown kind {kind!r}", "without it"))
        raise ValueError(
            f"{called} holds {what}, {member.name!r} at byte {at}, and only regular files are read; pack it anew "
            f"({remedy})"
        )
    if headers.leads_out(member.name):
        raise ValueError(
            f"{called} holds a file whose name leads out of the folder, {member.name!r} at byte {at}; "
            "do not trust the file, or pack it anew with names relative to the folder"
        )
