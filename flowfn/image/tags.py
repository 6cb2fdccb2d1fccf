"""The tags of TIFF, in which EXIF tells how a picture is turned, too (TIFF 6.0, section 2, and BigTIFF)."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from flowfn.image.pictures import Damaged

_TYPE_CODES = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
ORIENTATION = 274


def is_tiff(data: Any) -> bool:
    """Whether these bytes begin as a TIFF or a BigTIFF does."""
    return bytes(data[:4]) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def exif_orientation(block: Any) -> int:
    """The orientation in an EXIF block, which is a TIFF: 1 to 8, or 0 where nothing is said,
    or the block is damaged."""
    try:
        found = Tags(bytes(block)).number(ORIENTATION, 0) if is_tiff(block) else 0
    except (struct.error, Damaged):
        return 0
    return found if 1 <= found <= 8 else 0


class Tags:
    """The tags of a directory (page): those of the first one, if no place is given."""

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        self.big = 43 in (data[2], data[3])
        offset, head, entry, count = ("Q", "Q", 20, "Q") if self.big else ("I", "H", 12, "I")
        if at is None:
            (at,) = self._unpacked(offset, 8 if self.big else 4)
        (entries,) = self._unpacked(head, at)
        at += struct.calcsize(head)
        self.places: dict[int, tuple[int, int, int]] = {}
        if at + entries * entry > len(data):
            raise Damaged
        for place in range(at, at + entries * entry, entry):
            tag, kind, number = self._unpacked(f"HH{count}", place)
            inside = place + 4 + struct.calcsize(count)
            if number * struct.calcsize(_TYPE_CODES.get(kind, "Q")) > struct.calcsize(offset):
                (inside,) = self._unpacked(offset, inside)
            self.places.setdefault(tag, (kind, number, inside))
        end = at + entries * entry
        self.next = self._unpacked(offset, end)[0] if end + struct.calcsize(offset) <= len(data) else 0

    def values(self, tag: int) -> np.ndarray:
        """The numbers of a tag; none if it is not there."""
        kind, number, place = self.places.get(tag, (1, 0, 0))
        dtype = np.dtype(self.order + _TYPE_CODES[kind]) if kind in _TYPE_CODES else np.dtype("u1")
        if place + number * dtype.itemsize > len(self.data):
            raise Damaged
        return np.frombuffer(self.data, dtype, number, place)

    def number(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        found = self.values(tag)
        return int(found[0]) if len(found) else default

    def _unpacked(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, at)
