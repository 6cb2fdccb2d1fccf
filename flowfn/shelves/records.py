"""Bytes kept in a folder by number, in files that many processes write and read at once.

    path/flowfn-cache.txt           says that the folder is one of these
    path/<16 digits of the key>/    what belongs to one key
        key.json                    what the key stands for, for people to read
        <writer>.data               a header, then the checksum and the bytes of one datapoint after the other
        <writer>.index              a header, then (number, offset, length) of each

Every writer has a pair of files to itself and only adds to them, first to the data, then to the index, so nobody waits
for anybody. The checksum covers key, number and bytes: what a killed writer, a full disk or a bad one leaves behind is
never taken for a datapoint.
"""

from __future__ import annotations

import os
import secrets
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from flowfn.blocks import Block, ints

RecordSpot: TypeAlias = tuple[int, int, int]
"""Where the bytes of a number are: (which file, offset of their checksum, how many they are)."""

MARKER = "flowfn-cache.txt"
MARK = (
    "Datapoints kept by flowfn.cache_to. The folders beside this file may be deleted at any time; they are made "
    "again.\n"
)
LAYOUT = b"flowfn.cache_to1"
RECORD = np.dtype([("number", "<i8"), ("offset", "<i8"), ("length", "<i8")])
SEAL = 16
"""Bytes of a checksum, and of a key."""
MANY_RECORDS = 4096
"""Additions after which a table is sorted anew."""
FULL, OLD = 1 << 16, 0.1
"""What waits is written when it is so many bytes, or when the last time was so many seconds ago."""


class SpotTable:
    """Where the bytes of each number are; of several places, the one that was added last is tried first."""

    def __init__(self) -> None:
        self.recent: dict[int, RecordSpot] = {}
        self.sorted = np.empty(0, np.int64), np.empty((0, 3), np.int64)

    def add(self, number: int, place: RecordSpot) -> None:
        """One more."""
        self.recent[number] = place
        if len(self.recent) >= max(MANY_RECORDS, len(self.sorted[0])):
            self._sort(np.empty(0, np.int64), np.empty((0, 3), np.int64))

    def add_all(self, news: Sequence[tuple[int, np.ndarray]]) -> None:
        """All that the indexes of some files name."""
        records = np.concatenate([np.empty(0, RECORD), *(records for _, records in news)])
        files = np.repeat([file for file, _ in news], [len(records) for _, records in news]).astype(np.int64)
        places = np.stack([files, records["offset"], records["length"]], axis=1)
        if len(records) >= MANY_RECORDS or not len(self.sorted[0]):
            self._sort(records["number"], places)
            return
        for number, place in zip(records["number"].tolist(), places.tolist()):
            self.add(number, tuple(place))

    def _sort(self, numbers: np.ndarray, places: np.ndarray) -> None:
        recent = np.array(list(self.recent.values()), np.int64).reshape(-1, 3)
        keys = np.concatenate([self.sorted[0], np.array(list(self.recent), np.int64), numbers])
        order = np.argsort(keys, kind="stable")
        self.sorted = keys[order], np.concatenate([self.sorted[1], recent, places])[order]
        self.recent = {}  # last, and readers look here first: what moves is seen by all of them

    def find(self, numbers: Block) -> list[RecordSpot | None]:
        """A place of each number, None where there is none."""
        recent, (keys, places) = self.recent, self.sorted
        spots: list[Any] = [None] * len(numbers)
        if len(keys):
            wanted = np.asarray(numbers, np.int64)
            at = keys.searchsorted(wanted, "right") - 1
            spots = [
                place if known else None for place, known in zip(places[at].tolist(), (keys[at] == wanted).tolist())
            ]
        return [recent.get(number, place) for number, place in zip(ints(numbers), spots)] if recent else spots

    def all(self, number: int) -> list[RecordSpot]:
        """Every place of a number, the newest first."""
        recent, (keys, places) = self.recent, self.sorted
        low, high = keys.searchsorted(number, "left"), keys.searchsorted(number, "right")
        sorted_out = [tuple(place) for place in places[low:high][::-1].tolist()]
        return [recent[number], *sorted_out] if number in recent else sorted_out


class Writer:
    """The pair of files that a shelf writes to: closed while nobody uses the shelf, and continued afterwards."""

    def __init__(self, folder: Path, header: bytes, file: int) -> None:
        self.name, self.file = secrets.token_hex(8), file
        self.paths = (folder / f"{self.name}.data", folder / f"{self.name}.index")
        self.data, self.index = [header], [header]
        self.size = self.waiting = len(header)
        self.handles: list[BinaryIO] = []
        self.begun, self.written = False, 0.0

    def add(self, number: int, seal: bytes, payload: bytes) -> RecordSpot:
        """Put a datapoint to those that wait to be written."""
        place = self.file, self.size, len(payload)
        self.data += (seal, payload)
        self.index.append(struct.pack("<qqq", number, *place[1:]))
        self.size += SEAL + len(payload)
        self.waiting += SEAL + len(payload)
        return place

    def write(self) -> None:
        """Write what waits: first the data, then where they are."""
        if not self.handles:
            for path in self.paths:
                handle: BinaryIO = open(path, "r+b" if self.begun else "xb", buffering=0)  # noqa: SIM115
                handle.seek(0, os.SEEK_END)
                self.handles.append(handle)
            self.begun = True
        data = self.data if self.waiting > 2 * FULL else [b"".join(self.data)]
        for handle, chunks in zip(self.handles, (data, [b"".join(self.index)])):
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[handle.write(rest) :]
        self.data, self.index, self.waiting, self.written = [], [], 0, time.monotonic()

    def close(self) -> None:
        """Close the files."""
        for handle in self.handles:
            handle.close()
        self.handles = []
