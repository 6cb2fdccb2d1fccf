"""Files of tokens as rows of one length, `stride` apart: by their sizes it is known how many there are, and a file is
opened when a row of it is wanted.

A row lies within one file, so it is a view of what is mapped into memory; what is left over at the end of a file, less
than a row, is left out, as llm.c does. Files may so be added behind others without moving any row.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowfn.blocks import Block
from flowfn.datapoints.columns import Columns, readonly, stackable
from flowfn.formats.joining.members import RowKind
from flowfn.formats.joining.several import SeveralColumns
from flowfn.formats.tokens.layouts import TokenLayout, layout_of
from flowfn.process import forks
from flowfn.storage.damage import reading
from flowfn.storage.recent import Recent

MAPPED = 256
"""How many files are mapped at once: each holds a descriptor, of which a process may have some thousand."""


class RowShape(NamedTuple):
    """How many tokens a row has, and how many there are from the beginning of one row to that of the next."""

    length: int
    stride: int

    def rows(self, tokens: int) -> int:
        """How many whole rows there are in so many tokens.

        >>> RowShape(5, 4).rows(4), RowShape(5, 4).rows(9)
        (0, 2)
        """
        return max((tokens - self.length) // self.stride + 1, 0)


class TokenFile:
    """The rows of one file; `stamp` is its size and when it was written.

    `stackables` says whether rows, taken together, are what stacking them one by one would give.
    """

    bare = True

    def __init__(self, path: str, stamp: tuple[int, int], layout: TokenLayout, shape: RowShape, who: str) -> None:
        self.path, self.stamp, self.layout, self.shape, self.who = path, stamp, layout, shape, who
        self.tokens = layout.tokens(path, stamp[0], who)
        self.count = shape.rows(self.tokens)
        self.stackables, self.checked = [stackable(layout.dtype, (shape.length,))], False

    def __len__(self) -> int:
        return self.count

    def check(self) -> None:
        """Make sure that the file is what it was taken for, before it is read.

        Raises:
            ValueError: it has another header than the first of them.
        """
        if self.layout.told and layout_of(self.path, self.stamp[0], None, None, self.who) != self.layout:
            raise ValueError(
                f"{self.who}(): files of tokens must begin alike, but {self.path} has another header than the first "
                f"({self.layout.told}, {self.layout.dtype}); read it apart, and concat both"
            )

    @forks.cached_property
    def columns(self) -> Columns:
        """The rows, mapped into memory."""
        with reading(self.path, f"{self.who}(): {self.path} cannot be read"):
            if stamp_of(self.path) != self.stamp:
                raise ValueError(f"{self.who}(): {self.path} has changed since it was opened; call {self.who}() again")
            if not self.checked:  # which a file that is mapped again has been
                self.check()
                self.checked = True
            return Columns(rows_in(self.mapped(), self.layout.dtype, self.shape))

    def mapped(self) -> np.ndarray:
        """The bytes of all tokens."""
        size = self.tokens * self.layout.dtype.itemsize
        return np.memmap(self.path, np.uint8, "r", self.layout.start, (size,)) if size else np.empty(0, np.uint8)

    def fresh(self) -> TokenFile:
        """The same, not mapped."""
        made = copy.copy(self)
        vars(made).pop("columns", None)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "columns"}

    # As columns, of which blocks of rows are gathered

    def row(self, index: int) -> Any:
        """One row, a read-only view."""
        return self.columns.row(index)

    __getitem__ = row

    def each(self, block: Block) -> Iterator[Any]:
        """The rows at the indices of a block."""
        return self.columns.each(block)

    def rows(self, block: Block) -> Any:
        """The same, stacked in a new array."""
        return self.columns.rows(block)

    def selected(self, components: Sequence[Any]) -> Columns:
        """Some components of each row, as `select` takes them."""
        return self.columns.selected(components)

    @property
    def kinds(self) -> dict[str, RowKind]:
        """What the rows are."""
        return {"": RowKind(self.layout.dtype, (self.shape.length,))}


class TokenFiles(SeveralColumns):
    """The rows of several files, one after the other."""

    def __init__(self, parts: list[TokenFile], who: str) -> None:
        super().__init__(parts, who)
        self._ends = np.cumsum([part.count for part in parts]).tolist()
        self._used = Recent(MAPPED)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _used=Recent(MAPPED), _turn=forks.lock())


def rows_in(raw: np.ndarray, dtype: np.dtype, shape: RowShape) -> np.ndarray:
    """Rows of tokens as views of bytes, which nobody can write to."""
    step = shape.stride * dtype.itemsize
    count = shape.rows(len(raw) // dtype.itemsize)
    return readonly(np.ndarray((count, shape.length), dtype, raw, strides=(step, dtype.itemsize)))


def rows_of_files(files: Sequence[TokenFile], who: str) -> TokenFile | TokenFiles:
    """The rows of files as one sequence.

    Raises:
        ValueError: none of them has a row.
    """
    if not any(file.count for file in files):
        longest = max(files, key=lambda file: file.tokens)
        raise ValueError(
            f"{who}(): length must be at most the number of tokens in a file, {longest.tokens} in {longest.path}, for "
            f"rows of {longest.shape.length}"
        )
    return files[0] if len(files) == 1 else TokenFiles(list(files), who)


def stamp_of(path: str) -> tuple[int, int]:
    """The size of a file, and when it was written."""
    told = os.stat(path)
    return told.st_size, told.st_mtime_ns
