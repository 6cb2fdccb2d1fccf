"""Zip files, of which nothing is missing: a checksum covers what a member holds,
but nothing covers the directory of the members."""

from __future__ import annotations

import os
import zipfile
from typing import BinaryIO

_END_RECORD = b"PK\x05\x06"
_LENGTH, _COMMENT = 22, 1 << 16
"""Bytes of the record at the end of a zip file, and how many may come behind it, at most."""
_MANY = 0xFFFF
"""What stands for a number of members that the record has no room for."""


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip file, in whose directory there are as many members as its end says.

    Members are lost in silence where a length in the directory is damaged: it passes over those behind it.

    Raises:
        ValueError: there are others.
        zipfile.BadZipFile: it is no zip file.

    >>> import io
    >>> file = io.BytesIO()
    >>> with zipfile.ZipFile(file, "w") as made:
    ...     made.writestr("x", b""), made.writestr("y", b"")
    (None, None)
    >>> open_zip(file).namelist()
    ['x', 'y']
    """
    archive = zipfile.ZipFile(file)
    told, found = _members_told(file), len(archive.infolist())
    if told not in (found & _MANY, _MANY):
        raise ValueError(f"its directory lists {found} members where its end says {told}; it is damaged")
    return archive


def _members_told(file: BinaryIO) -> int:
    """How many members there are, as the end of a zip file says."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _LENGTH - _COMMENT, 0))
    end = file.read()
    at = end.rfind(_END_RECORD, 0, len(end) - _LENGTH + len(_END_RECORD))
    return int.from_bytes(end[at + 10 : at + 12], "little")
