"""Tar files, header by header: which regular files are in them, and where. Nothing is extracted, and nothing is created.

A reader of its own, because it only has to find files and must not believe what a file says of itself: sizes are held
against the bytes that are there, and names, links and devices that do harm elsewhere are errors. The layout is POSIX's
(IEEE Std 1003.1, "pax", with its extended headers) and GNU tar's (long names, large sizes).
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flowfn.formats.damage import tell
from flowfn.formats.files import Pieces
from flowfn.formats.in_order import open_in_order

BLOCK = 512
LONGEST = 1 << 20
"""How many bytes a name, or an extended header, may have."""
AT_ONCE = 1 << 24
"""How many bytes are read at once, so that no memory is set aside for bytes that are not there."""
PACKED = (".gz", ".tgz", ".bz2", ".tbz2", ".tbz", ".xz", ".txz")
"""How names of compressed tar files end."""

_EMPTY = bytes(BLOCK)
_REGULAR, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _LONG_LINK, _EXTENDED, _FOR_ALL = b"L", b"K", (b"x", b"X"), b"g"
_REFUSED = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
_UNPACKING: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


class Member(NamedTuple):
    """A regular file in a tar file: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


class Headers:
    """A tar file of which only the headers are read."""

    def __init__(self, pieces: Pieces, called: str) -> None:
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
    """A tar file that is read from its beginning to its end, compressed (gzip, bzip2, xz) or not. `called` as in errors.

    Raises:
        ValueError: it cannot be unpacked.
    """

    def __init__(self, path: str, who: str, called: str) -> None:
        self.path, self.called, self.position = path, called, 0
        with contextlib.ExitStack() as opened:
            raw = opened.enter_context(open_in_order(path, who))
            begun = _Begun(raw)
            unpacking = next((made for magic, made in _UNPACKING.items() if begun.first.startswith(magic)), None)
            self.file: Any = begun if unpacking is None else opened.enter_context(unpacking(begun))
            self._opened = opened.pop_all()

    def read(self, length: int) -> bytes:
        """So many bytes; fewer where the file ends."""
        try:
            found = _read(self.file, length)
        except Exception as error:
            what = "cannot be read" if isinstance(self.file, _Begun) else "is damaged or cut off: it cannot be unpacked"
            tell(error, self.path, f"{self.called} {what} behind byte {self.position}")
        self.position += len(found)
        return found

    def skip(self, length: int) -> bool:
        """Pass over so many bytes; whether they are there."""
        while length and (found := len(self.read(min(length, AT_ONCE)))):
            length -= found
        return not length

    def finish(self) -> None:
        """Come to the end of what is compressed, where its checksum is."""
        if not isinstance(self.file, _Begun):
            self.skip(AT_ONCE)

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.close()


class _Begun:
    """A file of which the first bytes have been looked at."""

    def __init__(self, file: Any) -> None:
        self.first = self.left = _read(file, max(map(len, _UNPACKING)))
        self.file = file

    def read(self, length: int = -1) -> bytes:
        """So many bytes, or perhaps fewer."""
        if not self.left:
            return self.file.read(length)
        found, self.left = (self.left, b"") if length < 0 else (self.left[:length], self.left[length:])
        return found

    def seekable(self) -> bool:
        """It is read in order."""
        return False


def members(source: Headers | Tape) -> Iterator[Member]:
    """The regular files of a tar file, in its order. The bytes of the newest can be read from a tape, by `payload`.

    Raises:
        ValueError: it is no tar file, or it is damaged or cut off; or there is a link, a device, or a name that leads out
            of the folder in it.
    """
    known: dict[str, str] = {}
    while (header := _header(source)) is not None:
        at, kind = source.position - BLOCK, header[156:157]
        size = _number(header[124:136], source.called, at)
        if kind in _EXTENDED or kind in (_LONG_NAME, _LONG_LINK, _FOR_ALL):
            held = _held(source, size, at)
            if kind == _LONG_NAME:
                known["path"] = _decoded(held)
            elif kind in _EXTENDED:
                known.update(_records(held, source.called, at))
            continue
        member = Member(known.get("path") or _name(header), source.position, _size(known, size, source.called, at))
        if any(key.startswith("GNU.sparse") for key in known):
            kind = b"S"
        known = {}
        if kind == _FOLDER or (kind == b"\0" and member.name.endswith("/")):
            continue
        _check(member, kind, source.called, at)
        yield member
        if not source.skip(member.offset + -(-member.size // BLOCK) * BLOCK - source.position):
            raise cut_off(source.called, member)


def leads_out(name: str) -> bool:
    """Whether a name, taken as a path, would lead out of the folder that it is taken from."""
    return _OUTSIDE.match(name) is not None


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
        f"{called} is cut off: it ends within {member.name!r}, whose {member.size} bytes begin at byte {member.offset}; get it again"
    )


def _header(source: Headers | Tape) -> bytes | None:
    """The next header, None where the end is marked."""
    header = source.read(BLOCK)
    at = source.position - len(header)
    if header == _EMPTY:
        return None
    if len(header) < BLOCK:
        if not source.position:
            raise ValueError(f"{source.called} is empty, and a tar file has at least two blocks of zeros; get it again")
        where = f"within a header at byte {at}" if header else f"at byte {at} without the blocks of zeros that mark the end"
        raise ValueError(f"{source.called} is cut off, or no tar file: it ends {where}; get it again")
    told = header[148:156]
    try:
        wanted = int(told.strip(b" \0") or b"-1", 8)
    except ValueError:
        wanted = -1
    if sum(header) - sum(told) + 256 != wanted and _signed(header) != wanted:
        what = (
            f"is damaged: the header at byte {at} has a wrong checksum" if at else "is no tar file: its first header has a wrong checksum"
        )
        raise ValueError(f"{source.called} {what}; get it again")
    return header


def _signed(header: bytes) -> int:
    """The checksum as some old programs computed it."""
    return sum(byte - 256 if byte > 127 else byte for byte in header[:148] + b" " * 8 + header[156:])


def _check(member: Member, kind: bytes, called: str, at: int) -> None:
    """Refuse what is no regular file, and names that lead elsewhere."""
    if kind not in _REGULAR:
        what = _REFUSED.get(kind, f"a member of the unknown kind {kind!r}")
        raise ValueError(
            f"{called} holds {what}, {member.name!r} at byte {at}, and only regular files are read; "
            "pack it anew without (GNU tar: --dereference --hard-dereference)"
        )
    if leads_out(member.name):
        raise ValueError(
            f"{called} holds a file whose name leads out of the folder, {member.name!r} at byte {at}; "
            "do not trust the file, or pack it anew with names relative to the folder"
        )


def _held(source: Headers | Tape, size: int, at: int) -> bytes:
    """What an extended header holds."""
    if size > LONGEST:
        raise ValueError(f"{source.called} is damaged: the extended header at byte {at} is said to have {size} bytes; get it again")
    held = source.read(-(-size // BLOCK) * BLOCK)
    if len(held) < size:
        raise ValueError(f"{source.called} is cut off: it ends within the extended header at byte {at}; get it again")
    return held[:size]


def _records(held: bytes, called: str, at: int) -> dict[str, str]:
    """The records "length key=value" of an extended header."""
    records: dict[str, str] = {}
    while held:
        digits, _, _ = held.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = held[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(held) or not value.endswith(b"\n"):
            raise ValueError(f"{called} is damaged: the extended header at byte {at} cannot be read; get it again")
        records[_decoded(key)] = _decoded(value[:-1])
        held = held[length:]
    return records


def _size(known: dict[str, str], size: int, called: str, at: int) -> int:
    """The size of a member, which an extended header may tell too."""
    told = known.get("size")
    if told is None:
        return size
    if not (told.isascii() and told.isdigit() and len(told) < 20):
        raise ValueError(f"{called} is damaged: the member at byte {at} is said to have {told[:40]!r} bytes; get it again")
    return int(told)


def _number(field: bytes, called: str, at: int) -> int:
    """A size: octal digits, or the bytes of a large integer behind 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        number = int(digits or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f"{called} is damaged: the member at byte {at} is said to have {field!r} bytes; get it again")
    return number


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _decoded(text: bytes) -> str:
    return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _read(file: Any, length: int) -> bytes:
    """So many bytes of a file that may give them in parts; fewer where it ends."""
    found = file.read(min(length, AT_ONCE))
    if len(found) == length or not found:
        return found
    parts = [found]
    left = length - len(found)
    while left and (found := file.read(min(left, AT_ONCE))):
        parts.append(found)
        left -= len(found)
    return b"".join(parts)
