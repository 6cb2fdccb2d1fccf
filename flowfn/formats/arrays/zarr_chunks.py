"""Rows of an array in chunks that are decoded one by one: many in one call, those wanted again kept,
those never written passed over."""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from flowfn.formats.arrays.stored_rows import LARGEST_CHUNK, StoredArray
from flowfn.storage.recent import Recent

MANY_CHUNKS = 1 << 8
"""How many chunks beside one another are looked up before they are read:
each that is not there costs as much as one that is."""
LOOKED = 1 << 20
"""How many chunks an array may have along its rows for many to be read in one call,
in which Zarr counts all of them."""


class ChunkCache:
    """The decoded chunks of all arrays of a store that were wanted last, and which ones were wanted at all lately."""

    def __init__(self, most: int) -> None:
        self.chunks: Recent[np.ndarray] = Recent(most)
        self.wanted: Recent[bool] = Recent(most)


class ChunkedArray:
    """An array of a store. A chunk is kept when a part of it is wanted, or,
    where rows are scattered over many, when it is wanted again.

    So rows at random of an array that is larger than the shelf cost what the library's own call for them costs; those
    of a smaller one, or of a window that moves, are soon there already.
    """

    def __init__(self, array: Any, kept: StoredArray, shelf: ChunkCache, at: int, stored: Stored | None = None) -> None:
        self.array, self.kept, self.shelf, self.at, self.stored = array, kept, shelf, at, stored
        self.size = kept.chunk * kept.row_size
        self.kept_whole = self.size <= LARGEST_CHUNK

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Consecutive rows, in new memory."""
        chunk = self.kept.chunk
        first, end = start // chunk * chunk, min(-(-stop // chunk) * chunk, self.kept.length)
        if not self.kept_whole or (first, end) == (start, stop):
            return self._read(start, stop)
        made = np.empty((stop - start, *self.kept.shape), self.kept.dtype)
        for begin, rows in self._chunks(first, end):
            low, high = max(begin, start), min(begin + len(rows), stop)
            made[low - start : high - start] = rows[low - begin : high - begin]
            for at in {start // chunk, (stop - 1) // chunk}:
                self._keep(
                    at,
                    rows[at * chunk - begin : (at + 1) * chunk - begin]
                    if 0 <= at * chunk - begin < len(rows)
                    else rows[:0],
                )
        return made

    def scattered(self, wanted: np.ndarray) -> np.ndarray | None:
        """Rows whose numbers grow, in new memory; None where chunks are read in parts."""
        if not self.kept_whole or self.stored is not None or self.kept.length > LOOKED * self.kept.chunk:
            return None
        made = np.empty((len(wanted), *self.kept.shape), self.kept.dtype)
        missing = []
        for number, low, high in self._parts(wanted):
            rows = self.shelf.chunks.get((self.at, number))
            if rows is None:
                missing.append((number, low, high))
            else:
                made[low:high] = rows[wanted[low:high] - number * self.kept.chunk]
        whole = [self._again(number) or len(missing) == 1 for number, *_ in missing]
        picked = [
            self._all(part[0]) if all_of_it else wanted[part[1] : part[2]] for part, all_of_it in zip(missing, whole)
        ]
        found = np.asarray(self.array.oindex[np.concatenate(picked)]) if picked else made
        ends = np.cumsum([0, *map(len, picked)]).tolist()
        for (number, low, high), begin, end, all_of_it in zip(missing, ends, ends[1:], whole):
            rows = found[begin:end]
            made[low:high] = rows[wanted[low:high] - number * self.kept.chunk] if all_of_it else rows
            if all_of_it:
                self._keep(number, rows)
        return made

    def _parts(self, wanted: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """The chunks in which rows lie, and which of the rows those are."""
        numbers = wanted // self.kept.chunk
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(wanted)]
        return zip(numbers[edges[:-1]].tolist(), edges, edges[1:])

    def _all(self, number: int) -> np.ndarray:
        return np.arange(number * self.kept.chunk, self._end(number))

    def _end(self, number: int) -> int:
        return min((number + 1) * self.kept.chunk, self.kept.length)

    def _again(self, number: int) -> bool:
        """Whether a chunk was wanted before, not long ago."""
        key = self.at, number
        known = self.shelf.wanted.get(key) is not None
        self.shelf.wanted.put(key, True, self.size)
        return known

    def _keep(self, number: int, rows: np.ndarray) -> None:
        if len(rows) and self.shelf.chunks.get((self.at, number)) is None:
            self.shelf.chunks.put((self.at, number), rows.copy(), rows.nbytes)

    def _chunks(self, first: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
        """Whole chunks, where each begins: those on the shelf, and all others in one go."""
        chunk = self.kept.chunk
        held = {number: self.shelf.chunks.get((self.at, number)) for number in range(first // chunk, -(-end // chunk))}
        missing = [number for number, rows in held.items() if rows is None]
        yield from ((number * chunk, rows) for number, rows in held.items() if rows is not None)
        if missing:
            yield missing[0] * chunk, self._read(missing[0] * chunk, self._end(missing[-1]))

    def _read(self, start: int, stop: int) -> np.ndarray:
        found = None if self.stored is None else self.stored.regions(start, stop)
        if found is None:
            return np.asarray(self.array[start:stop])
        made = np.full((stop - start, *self.kept.shape), self.array.fill_value, self.kept.dtype)
        for region in found:
            made[slice(region[0].start - start, region[0].stop - start), *region[1:]] = self.array[region]
        return made


class Stored:
    """Which chunks of an array there are; it is looked up when it is first wanted."""

    def __init__(self, array: Any, path: str, name: str) -> None:
        self.sides: tuple[int, ...] = array.shards or array.chunks
        self.shape, self.path, self.name = array.shape, path, name
        self._there: dict[int, list[tuple[int, ...]]] | None = None

    @property
    def many(self) -> int:
        """How many lie beside one another."""
        return math.prod(-(-length // side) for length, side in zip(self.shape[1:], self.sides[1:]))

    def regions(self, start: int, stop: int) -> list[tuple[slice, ...]] | None:
        """What is stored of some rows; None where that is most of it."""
        if self._there is None:
            self._there = self._listed()
        numbers = range(start // self.sides[0], -(-stop // self.sides[0]))
        chunks = [coordinates for number in numbers for coordinates in self._there.get(number, ())]
        if 2 * len(chunks) > self.many * len(numbers):
            return None
        return [
            tuple(map(self._within, coordinates, self.sides, ((start, stop), *((0, n) for n in self.shape[1:]))))
            for coordinates in chunks
        ]

    def _within(self, number: int, side: int, bounds: tuple[int, int]) -> slice:
        return slice(max(number * side, bounds[0]), min((number + 1) * side, bounds[1]))

    def _listed(self) -> dict[int, list[tuple[int, ...]]]:
        there: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for key in self._keys():
            numbers = [int(part) for part in re.split("[./]", key.removeprefix("c").lstrip("./")) if part.isdecimal()]
            if len(numbers) == len(self.shape):
                there[numbers[0]].append(tuple(numbers))
        return there

    def _keys(self) -> Iterable[str]:
        if os.path.isfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                prefix = f"{self.name.strip('/')}/".lstrip("/")
                return [key.removeprefix(prefix) for key in archive.namelist() if key.startswith(prefix)]
        top = os.path.join(self.path, self.name.strip("/"))
        return [
            os.path.relpath(os.path.join(folder, name), top).replace(os.sep, "/")
            for folder, _, names in os.walk(top)
            for name in names
        ]
