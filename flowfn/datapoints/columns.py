"""Arrays of equal length as a sequence of datapoints, and blocks of their rows that can be had stacked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from flowfn.blocks import Block, ints
from flowfn.datapoints import buffers
from flowfn.datapoints.components import component
from flowfn.datapoints.subclasses import carries

MADE_AT_ONCE = 256
"""So many rows are made at once of columns that are no arrays."""


class Columns:
    """Arrays of equal length as a sequence of datapoints: rows of one array, or lists or dicts of rows.

    In the place of an array there may be what makes Python's values of its rows: one by a number, a list of them by a
    slice or by an array of numbers.
    """

    def __init__(self, columns: Any) -> None:
        self.keys = list(columns) if isinstance(columns, dict) else None
        self.arrays = [
            readonly(a)
            for a in (columns.values() if self.keys else columns if isinstance(columns, list) else [columns])
        ]
        self.bare = not isinstance(columns, (dict, list))
        self.stackables = _stackables(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def row(self, index: int) -> Any:
        """Datapoint `index`, of read-only views."""
        if self.bare:
            return self.arrays[0][index]
        row = [array[index] for array in self.arrays]
        return dict(zip(self.keys, row)) if self.keys else row

    __getitem__ = row

    def each(self, block: Block) -> Iterator[Any]:
        """The datapoints at the indices of a block."""
        if not all(isinstance(array, np.ndarray) for array in self.arrays):
            pieces = (_block_places(block[at : at + MADE_AT_ONCE]) for at in range(0, len(block), MADE_AT_ONCE))
            made = ([readonly(array[places]) for array in self.arrays] for places in pieces)
            return chain.from_iterable(map(self._zipped, made))
        if type(block) is not range or block.step < 1:
            places = list(ints(block))
            return self._zipped([map(array.__getitem__, places) for array in self.arrays])
        return self._zipped([array[_block_places(block)] for array in self.arrays])

    def _zipped(self, columns: list[Any]) -> Iterator[Any]:
        if self.bare:
            return iter(columns[0])
        keys = self.keys
        return (dict(zip(keys, row)) for row in zip(*columns)) if keys else map(list, zip(*columns))

    def __getstate__(self) -> Any:
        """A memory map travels as the name of its file, other arrays by value."""
        arrays = [_mapped_from(array) or array for array in self.arrays]
        return arrays, self.keys, self.bare

    def __setstate__(self, state: Any) -> None:
        arrays, self.keys, self.bare = state
        self.arrays = [readonly(np.memmap(*told) if isinstance(told, tuple) else told) for told in arrays]
        self.stackables = _stackables(self.arrays)

    def selected(self, components: Sequence[Any]) -> Columns:
        """Some of the arrays, as `select` would select components of their rows."""
        columns = dict(zip(self.keys, self.arrays)) if self.keys else self.arrays
        chosen = [component(columns, key) for key in components]
        return Columns(dict(zip(components, chosen)) if self.keys else chosen)

    def rows(self, block: Block) -> Any:
        """The rows at the indices of a block, stacked, in new arrays."""
        places = _block_places(block)
        if isinstance(places, slice):
            taken = [_copied_rows(array[places]) for array in self.arrays]
        else:
            taken = [_taken_rows(array, places) for array in self.arrays]
        return taken[0] if self.bare else dict(zip(self.keys, taken)) if self.keys else taken


class Rows(Sequence[Any]):
    """A block of rows, as a sequence of datapoints that can be had stacked at once."""

    __slots__ = ("block", "columns")

    def __init__(self, columns: Columns, block: Block) -> None:
        self.columns, self.block = columns, block

    def __len__(self) -> int:
        return len(self.block)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Rows(self.columns, self.block[index])
        return self.columns.row(int(self.block[index]))

    def __iter__(self) -> Iterator[Any]:
        return self.columns.each(self.block)

    @property
    def apart(self) -> bool:
        """Whether each component can be stacked by itself;
        bare rows that are no numbers may have components of their own."""
        return not self.columns.bare or all(self.columns.stackables)

    def stacked(self, stack: Callable[[list[Any]], Any]) -> Any | None:
        """All rows, one array for each component, or what `stack` makes of the values where that is no such array;
        None if components cannot be stacked by themselves."""
        if not self.apart:
            return None
        made = self.columns.rows(self.block)
        if all(self.columns.stackables):
            return made
        parts = made.values() if isinstance(made, dict) else made
        whole = [part if taken else stack(list(part)) for part, taken in zip(parts, self.columns.stackables)]
        return dict(zip(made, whole)) if isinstance(made, dict) else whole


def _block_places(block: Block) -> slice | np.ndarray:
    """A block as an array is indexed by it."""
    if type(block) is range and block.step > 0:
        return slice(block.start, block.stop, block.step)
    return np.asarray(block)


def _as_it_is(array: Any) -> bool:
    """Whether its rows are stacked one by one."""
    return not isinstance(array, np.ndarray) or array.dtype.hasobject or carries(type(array))


def _copied_rows(rows: np.ndarray) -> np.ndarray:
    if _as_it_is(rows):
        return rows
    made = buffers.empty(rows.shape, rows.dtype)
    made[...] = rows
    return made


def _taken_rows(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    if _as_it_is(array):
        return array[indices]
    if not (array.flags.c_contiguous and array.flags.aligned):  # `take` would copy all of it first
        return np.ascontiguousarray(array[indices])
    if not buffers.recycled(len(indices) * array.strides[0]):
        return array.take(indices, axis=0)
    made = buffers.empty((len(indices), *array.shape[1:]), array.dtype)
    return array.take(indices, axis=0, out=made, mode="clip")


@lru_cache(maxsize=64)
def stackable(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether rows of such a dtype and shape, taken together, are what stacking them one by one would give.

    Objects, and texts that are no arrays, stay lists;
    numbers in another order of bytes become numbers in this machine's.

    >>> stackable(np.dtype("f4"), ()), stackable(np.dtype("f4").newbyteorder(), ()), stackable(np.dtype("U3"), ())
    (True, False, False)
    """
    if dtype.hasobject or (dtype.kind in "US" and not shape):
        return False
    none = np.empty(0, dtype)
    return np.concatenate([none, none]).dtype == dtype


def _stackables(arrays: list[np.ndarray]) -> list[bool]:
    return [not _as_it_is(array) and stackable(array.dtype, array.shape[1:]) for array in arrays]


def _mapped_from(array: np.ndarray) -> tuple[Any, ...] | None:
    """The arguments that map the file of a memory map again, or None for any other array."""
    if not isinstance(array, np.ndarray):
        return None
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if carries(type(array)) or not isinstance(root, np.memmap) or root.filename is None or not array.flags.c_contiguous:
        return None
    behind = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return root.filename, array.dtype, "r", root.offset + behind, array.shape


def readonly(array: np.ndarray) -> np.ndarray:
    """A view that nobody can write through; what is no array is as it was."""
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        view = np.ma.MaskedArray(view, mask=mask, fill_value=array.fill_value, hard_mask=array.hardmask)
        np.ma.getmask(view).flags.writeable = False  # it has one of its own
    return view
