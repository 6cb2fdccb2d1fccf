"""The headers of tar files, block by block: what they say of the member behind them, believed as far as it can be true.

The layouts are those of Unix V7, POSIX (IEEE Std 1003.1: "ustar", and "pax" with its extended headers), GNU tar (long
names, large sizes) and star (a shorter prefix of names).
"""

from __future__ import annotations

import re
from typing import Protocol

from flowfn.storage.unpacking import known_as, packing

BLOCK_SIZE = 512
LONGEST_EXTENSION = 1 << 20
"""How many bytes a name, or an extended header, may have."""

_EMPTY, _BLANK = bytes(BLOCK_SIZE), sum(b" " * 8)
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)


class TarReader(Protocol):
    """A tar file at a place; `called` as in errors."""

    called: str
    position: int

    def read(self, length: int) -> bytes:
        """So many bytes; fewer where the file ends."""

    def skip(self, length: int) -> bool:
        """Pass over so many bytes; whether they are there."""


def header(source: TarReader) -> bytes | None:
    """The next header, None where the end is marked.

    Raises:
        ValueError: there is none.
    """
    block = source.read(BLOCK_SIZE)
    at = source.position - len(block)
    if block == _EMPTY:
        return None
    if len(block) == BLOCK_SIZE and _is_whole(block):
        return block
    other = None if at else "compressed twice" if packing(block) else known_as(block)
    if other is not None:
        raise ValueError(f"{source.called} is no tar file but {other}; unpack it, or get the file that is meant")
    if not source.position:
        raise ValueError(f"{source.called} is empty, and a tar file has at least two blocks of zeros; get it again")
    if len(block) < BLOCK_SIZE:
        where = (
            f"within a header at byte {at}" if block else f"at byte {at} without the blocks of zeros that mark the end"
        )
        raise ValueError(f"{source.called} is cut off, or no tar file: it ends {where}; get it again")
    what = (
        f"is damaged: the header at byte {at} has a wrong checksum"
        if at
        else "is no tar file: its first header has a wrong checksum"
    )
    raise ValueError(f"{source.called} {what}; get it again")


def extended(source: TarReader, size: int, at: int) -> bytes:
    """What an extended header holds."""
    if size > LONGEST_EXTENSION:
        raise ValueError(
            f"{source.called} is damaged: the extended header at byte {at} is said to have {size} bytes; get it again"
        )
    content = source.read(-(-size // BLOCK_SIZE) * BLOCK_SIZE)
    if len(content) < size:
        raise ValueError(f"{source.called} is cut off: it ends within the extended header at byte {at}; get it again")
    return content[:size]


def records(content: bytes, called: str, at: int) -> dict[str, str]:
    """The records "length key=value" of an extended header."""
    pairs: dict[str, str] = {}
    while content:
        digits, _, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = content[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(content) or not value.endswith(b"\n"):
            raise ValueError(f"{called} is damaged: the extended header at byte {at} cannot be read; get it again")
        pairs[text(key)] = text(value[:-1])
        content = content[length:]
    return pairs


def size_of(keywords: dict[str, str], size: int, called: str, at: int) -> int:
    """The size of a member, which an extended header may tell too; one that is empty takes back what another told."""
    digits = keywords.get("size")
    if not digits:
        return size
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise ValueError(
            f"{called} is damaged: the member at byte {at} is said to have {digits[:40]!r} bytes; get it again"
        )
    return int(digits)


def number(field: bytes, called: str, at: int) -> int:
    """A size: octal digits, or the bytes of a large integer behind 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        size = int(digits or b"0", 8)
    except ValueError:
        size = -1
    if size < 0:
        raise ValueError(f"{called} is damaged: the member at byte {at} is said to have {field!r} bytes; get it again")
    return size


def name_in(block: bytes) -> str:
    """The name of a member, as far as it is in its own header."""
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        times = block[508:512] == b"tar\0"  # star keeps two of them where others have the end of a prefix
        name = block[345 : 476 if times else 500].partition(b"\0")[0] + b"/" + name
    return text(name)


def text(field: bytes) -> str:
    """A text up to its end, whatever its bytes."""
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def leads_out(name: str) -> bool:
    """Whether a name, taken as a path, would lead out of the folder that it is taken from."""
    return _OUTSIDE.match(name) is not None


def _is_whole(block: bytes) -> bool:
    """Whether the checksum in a header is its own, or as some old programs computed it, of signed bytes."""
    field = block[148:156]
    try:
        wanted = int(field.strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    total = sum(block) - sum(field) + _BLANK
    return wanted == total or wanted == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
