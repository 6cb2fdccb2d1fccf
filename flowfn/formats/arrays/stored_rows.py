"""Arrays in files that are read by blocks of rows: whole chunks in order, scattered rows sorted,
so that each chunk is read once."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, NoReturn

import numpy as np

from flowfn.blocks import Block
from flowfn.datapoints import buffers
from flowfn.datapoints.columns import stackable
from flowfn.datapoints.components import component
from flowfn.flows.flow import Flow
from flowfn.flows.sources import ArraysNode, Source
from flowfn.formats.joining.members import Makeup, RowKind
from flowfn.storage.damage import raise_clearly, reading
from flowfn.storage.files import Opened

CONSECUTIVE = 1 << 20
"""Bytes that are read at once, in order."""
SCATTERED = 1 << 22
"""Bytes of scattered rows that are read at once."""
LARGEST_CHUNK = 1 << 28
"""Bytes of a chunk beyond which it is read in parts: there may be nothing of it in the file,
and memory for all of it nowhere."""
DIRECT = 1 << 19
"""Bytes from which on rows are read straight into recycled memory."""
SMALL_GAP = 1 << 15
"""Bytes between two rows up to which it is faster to read over them than to begin anew."""


class StoredArray(NamedTuple):
    """An array in a file: where it lies, what a row is, how many rows lie in a chunk (0 if it has no chunks)."""

    name: str
    length: int
    dtype: np.dtype
    shape: tuple[int, ...]
    chunk: int

    @property
    def row_size(self) -> int:
        """Bytes of a row."""
        return max(math.prod(self.shape) * self.dtype.itemsize, 1)

    @property
    def piece(self) -> int:
        """How many rows to read at once: whole chunks, if there are any,
        and no chunk is said to be larger than any should be."""
        step = max(self.chunk, 1) if self.chunk * self.row_size <= LARGEST_CHUNK else max(SCATTERED // self.row_size, 1)
        return step * max(CONSECUTIVE // (self.row_size * step), 1)

    def scattered(self, wanted: np.ndarray) -> bool:
        """Whether it costs more to read over what lies between most of some rows,
        whose indices grow, than to begin anew."""
        span = int(wanted[-1] - wanted[0])
        return span * self.row_size > SMALL_GAP // 2 * len(wanted) or (
            self.chunk > 0 and span // self.chunk > len(wanted) // 2
        )


class StoredRows(Opened):
    """Arrays of equal length in a file, as a sequence of datapoints; it can be asked for whole blocks as `Columns` can.

    Subclasses say how to `open` the file, and how to `read` consecutive rows of an array. Rows are memory of their own.
    """

    keeps_chunks = False
    """Whether a decoded chunk is kept below, so that parts of it may be read one after another."""

    def __init__(self, path: Any, who: str) -> None:
        super().__init__(path, who)
        with reading(self.path, f"{who}(): {self.path} cannot be read", "; is it damaged?"):
            self.form, self.kept = self.looked_at()
            for kept in self.kept:
                np.empty(kept.shape, kept.dtype)  # a row for which there is no memory is refused before any is wanted
        self.chosen = list(range(len(self.kept)))

    def looked_at(self) -> tuple[Makeup, list[StoredArray]]:
        """What datapoints look like, and the arrays that they are made of."""
        raise TypeError(f"{type(self).__name__} does not say what there is in {self.path}")

    def read(self, at: int, start: int, stop: int) -> np.ndarray:
        """Rows of array number `at`, in new memory."""
        raise TypeError(f"{type(self).__name__} does not say how to read {self.path}")

    def read_one(self, at: int, index: int) -> Any:
        """One row of an array, in new memory."""
        return self.read(at, index, index + 1)[0]

    def read_into(self, at: int, start: int, stop: int, made: np.ndarray) -> None:
        """Rows of an array, into an array."""
        made[...] = self.read(at, start, stop)

    def read_each(self, at: int, wanted: np.ndarray) -> np.ndarray | None:
        """Scattered rows of an array, whose indices grow, if there is a way that is faster than one by one."""
        return None

    def __len__(self) -> int:
        return self.kept[0].length

    # As a sequence of datapoints

    def __getitem__(self, index: int) -> Any:
        index = self.within(index)
        return self.form.made([self._read_one(at, index) for at in self.chosen])

    def __getitems__(self, indices: Sequence[int]) -> Iterator[Any]:
        return self.each(np.asarray(indices, np.int64))

    def each(self, block: Block) -> Iterator[Any]:
        """The datapoints at the indices of a block, read piece by piece."""
        if len(block) == 1:
            return iter((self[int(block[0])],))
        return self.form.each([chain.from_iterable(self._pieces(at, block)) for at in self.chosen])

    # As columns, of which blocks of rows are gathered

    row = __getitem__

    @property
    def bare(self) -> bool:
        """Whether a datapoint is a row of the one array."""
        return self.form.bare

    @property
    def kinds(self) -> dict[str, RowKind]:
        """What the rows of each array are."""
        return {self.kept[at].name: RowKind(self.kept[at].dtype, self.kept[at].shape) for at in self.chosen}

    @property
    def stackables(self) -> list[bool]:
        """Of each array, whether rows, taken together, are what stacking them one by one would give."""
        return [stackable(self.kept[at].dtype, self.kept[at].shape) for at in self.chosen]

    def selected(self, components: Sequence[Any]) -> StoredRows:
        """Some of the arrays, as `select` would select components of their rows."""
        columns: Any = dict(zip(self.form.keys, self.chosen)) if self.form.keys is not None else self.chosen
        made = copy.copy(self)
        made._handles = self._handles if self.handle is not None else {}
        made.chosen = [component(columns, key) for key in components]
        made.form = Makeup(
            list(components) if self.form.keys is not None else None, False, [self.kept[at].name for at in made.chosen]
        )
        return made

    def rows(self, block: Block) -> Any:
        """The rows at the indices of a block, stacked, in new arrays."""
        return self.form.made([self._stacked(at, block) for at in self.chosen])

    # How it is read

    def _read(self, at: int, start: int, stop: int) -> np.ndarray:
        try:
            return self.read(at, start, stop)
        except Exception as error:
            self._tell(at, start, stop, error)

    def _read_one(self, at: int, index: int) -> Any:
        try:
            return self.read_one(at, index)
        except Exception as error:
            self._tell(at, index, index + 1, error)

    def _tell(self, at: int, start: int, stop: int, error: Exception) -> NoReturn:
        where = f"row {start}" if stop == start + 1 else f"rows {start} to {stop - 1}"
        failed = f"{self.who}(): {where} of {self.kept[at].name!r} cannot be read"
        raise_clearly(error, self.path, failed, self.hint(error))

    def hint(self, error: Exception) -> str:
        """What to do about an error in reading rows."""
        return f"; is {self.path} damaged, or has it changed?"

    def _together(self, at: int, wanted: np.ndarray) -> np.ndarray | None:
        try:
            return self.read_each(at, wanted)
        except Exception as error:
            self._tell(at, int(wanted[0]), int(wanted[-1]) + 1, error)

    def _pieces(self, at: int, block: Block) -> Iterator[np.ndarray]:
        kept = self.kept[at]
        if type(block) is not range:
            block = np.asarray(block)
            if len(block) and block[-1] - block[0] == len(block) - 1 and bool((np.diff(block) == 1).all()):
                block = range(int(block[0]), int(block[-1]) + 1)
        if type(block) is range and block.step == 1:
            start = block.start
            while start < block.stop:
                stop = min(start - start % kept.piece + kept.piece, block.stop)
                yield self._read(at, start, stop)
                start = stop
            return
        many = max(SCATTERED // kept.row_size, 1)
        for first in range(0, len(block), many):
            yield self._gathered(at, np.asarray(block[first : first + many]))

    def _stacked(self, at: int, block: Block) -> np.ndarray:
        kept = self.kept[at]
        if type(block) is not range or block.step != 1 or kept.dtype.hasobject:
            return self._gathered(at, np.asarray(block))
        if len(block) * kept.row_size < DIRECT:
            return self._read(at, block.start, block.stop)
        made = buffers.empty((len(block), *kept.shape), kept.dtype)
        try:
            self.read_into(at, block.start, block.stop, made)
        except Exception as error:
            self._tell(at, block.start, block.stop, error)
        return made

    def _apart(self, kept: StoredArray, wanted: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Between which of some sorted rows to begin to read anew."""
        apart = wanted[1:] // kept.piece > wanted[:-1] // kept.piece
        if kept.chunk:
            chunks = wanted // kept.chunk
            apart |= chunks[1:] > chunks[:-1] + 1
        if self.keeps_chunks or not kept.chunk:
            apart |= steps > max(SMALL_GAP // kept.row_size, 1)
        return apart

    def _gathered(self, at: int, indices: np.ndarray) -> np.ndarray:
        """Scattered rows: sorted, and read run by run; a chunk is read once, and so is what lies close together."""
        kept = self.kept[at]
        shape = (len(indices), *kept.shape)
        made = np.empty(shape, kept.dtype) if kept.dtype.hasobject else buffers.empty(shape, kept.dtype)
        order = np.argsort(indices, kind="stable")
        wanted = indices[order]
        steps = np.diff(wanted)
        again = None if steps.all() else np.cumsum(np.append(False, steps > 0))
        together = self._together(at, wanted if again is None else np.unique(wanted))
        if together is not None:
            made[order] = together if again is None else together[again]
            return made
        ends = [*(np.flatnonzero(self._apart(kept, wanted, steps)) + 1).tolist(), len(wanted)]
        begin, places = wanted.tolist(), order.tolist()
        first = 0
        for end in ends:
            if end - first == 1:
                made[places[first]] = self._read_one(at, begin[first])
            elif end > first:
                start = begin[first]
                found = self._read(at, start, begin[end - 1] + 1)
                made[order[first:end]] = found[wanted[first:end] - start]
            first = end
        return made


def flow_of_rows(rows: Any, name: str, shown: str) -> Flow[Any]:
    """The flow over arrays in a file; batches of it are read as blocks."""
    return Flow(Source(rows, ArraysNode, name=name, shown=shown))
