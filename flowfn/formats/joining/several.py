"""Several files as one: the datapoints of each come after those of the one before it, wherever one begins to read."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flowfn.blocks import Block, ints
from flowfn.datapoints import buffers
from flowfn.formats.joining.members import RowKind
from flowfn.process import forks
from flowfn.storage.finding import paths_of
from flowfn.storage.recent import Recent

FILES = 32
"""How many files are held open."""


def open_paths(paths: Any, who: str, opened: Callable[[str], Any], *, folders: bool = False) -> Any:
    """What `opened` makes of the path that is meant, or of all of them as one sequence; see `paths_of`.

    Each is a sequence of datapoints; those that can be asked for blocks of rows (`Columns`,
    `StoredRows`) are so together.

    Raises:
        FileNotFoundError: a path or a pattern stands for nothing.
        ValueError: rows of one file are of another kind than those of the first.
    """
    return together([opened(path) for path in paths_of(paths, who, folders)], who)


def together(parts: list[Any], who: str) -> Any:
    """Several sequences over files as one."""
    if len(parts) == 1:
        return parts[0]
    if not hasattr(parts[0], "rows"):
        return Several(parts, who)
    for part in parts:
        if not _kinds_agree(parts[0].kinds, part.kinds):
            raise ValueError(
                f"{who}(): {part.path} has {_kinds_text(part.kinds)}, where {parts[0].path} has "
                f"{_kinds_text(parts[0].kinds)}; read them apart, or choose what they have in common"
            )
    return SeveralColumns(parts, who)


class Several:
    """Sequences over files, one after the other. Those that have not been used for long let go of their files."""

    def __init__(self, parts: list[Any], who: str) -> None:
        self.parts, self.who = parts, who
        self._ends: list[int] | None = None
        self._used: Recent[int] = Recent(FILES)
        self._turn = forks.lock()

    @property
    def ends(self) -> list[int]:
        """How many datapoints there are up to the end of each."""
        if self._ends is None:
            self._ends = np.cumsum([len(self.using(at)) for at in range(len(self.parts))]).tolist()
        return self._ends

    def using(self, at: int) -> Any:
        """One of them, to be used now."""
        with self._turn:
            part = self.parts[at]
            for oldest in self._used.put(at, at):
                if hasattr(self.parts[oldest], "fresh"):  # the old one is closed when no other thread uses it any more
                    self.parts[oldest] = self.parts[oldest].fresh()
        return part

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Any:
        self.within(index)
        at = bisect_right(self.ends, index)
        return self.using(at)[index - self._begin(at)]

    def __getitems__(self, indices: Sequence[int]) -> Iterator[Any]:
        return self.each(np.asarray(indices, np.int64))

    def within(self, index: int) -> int:
        """The index, if there is a datapoint there."""
        if not 0 <= index < len(self):
            raise IndexError(
                f"{self.who}(): index {index} is out of range for {len(self)} datapoints in {len(self.parts)} files"
            )
        return index

    def each(self, block: Block) -> Iterator[Any]:
        """The datapoints at the indices of a block: what is wanted of a file is asked for at once,
        unless it is of very many."""
        files, inside = self._places(block)
        which = np.unique(files).tolist()
        if len(which) == 1:
            return iter(_each(self.using(which[0]), inside))
        if len(which) > FILES:
            return (self.using(at)[index] for at, index in zip(files.tolist(), inside.tolist()))
        coming = {at: iter(_each(self.using(at), inside[files == at])) for at in which}
        return (next(coming[at]) for at in files.tolist())

    def _begin(self, at: int) -> int:
        return self.ends[at - 1] if at else 0

    def _places(self, block: Block) -> tuple[np.ndarray, Any]:
        """In which file each index is, and at which place there; of one file alone,
        places are a range if the block is one."""
        ends, wanted = self.ends, np.asarray(block, np.int64)
        for index in (wanted.min(), wanted.max()) if len(wanted) else ():
            self.within(int(index))
        files = np.searchsorted(ends, wanted, side="right")
        if len(wanted) and files.min() == files.max():
            return files[:1], _block_moved(block, -self._begin(int(files[0])))
        return files, wanted - np.array([0, *ends])[files]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_used", "_turn")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _used=Recent(FILES), _turn=forks.lock())


class SeveralColumns(Several):
    """The same of what can be asked for whole blocks of rows, as `Columns` can."""

    row = Several.__getitem__

    selections: tuple[Sequence[Any], ...] = ()

    def using(self, at: int) -> Any:
        """One of them, with those arrays that are selected."""
        part = super().using(at)
        for components in self.selections:
            part = part.selected(components)
        return part

    @property
    def bare(self) -> bool:
        """Whether a datapoint is a row of the one array."""
        return bool(self.using(0).bare)

    @property
    def stackables(self) -> list[bool]:
        """Of each array, whether rows, taken together, are what stacking them one by one would give;
        all files are alike in it."""
        made: list[bool] = self.using(0).stackables
        return made

    def selected(self, components: Sequence[Any]) -> SeveralColumns:
        """Some of the arrays, as `select` would select components of their rows."""
        made = copy.copy(self)
        vars(made).update(vars(self), selections=(*self.selections, components))
        made.using(0)  # which says so if there is no such component
        return made

    def rows(self, block: Block) -> Any:
        """The rows at the indices of a block, stacked: of each file at once, wherever in the block they belong."""
        files, inside = self._places(block)
        which = np.unique(files).tolist()
        if len(which) == 1:
            return self.using(which[0]).rows(inside)
        places = [np.flatnonzero(files == at) for at in which]
        return _gathered([self.using(at).rows(inside[place]) for at, place in zip(which, places)], places, len(files))


def _each(part: Any, block: Block) -> Any:
    return part.each(block) if hasattr(part, "each") else part.__getitems__(list(ints(block)))


def _block_moved(block: Block, by: int) -> Block:
    return range(block.start + by, block.stop + by, block.step) if type(block) is range else np.asarray(block) + by


def _gathered(pieces: list[Any], places: list[np.ndarray], count: int) -> Any:
    """Rows of several files in one array for each component."""
    first = pieces[0]
    if isinstance(first, dict):
        return {key: _gathered([one[key] for one in pieces], places, count) for key in first}
    if isinstance(first, list):
        return [_gathered(list(parts), places, count) for parts in zip(*pieces)]
    dtype, shape = np.result_type(*pieces), (count, *first.shape[1:])  # texts are as wide as the widest
    made = np.empty(shape, dtype) if dtype.hasobject else buffers.empty(shape, dtype)
    for rows, place in zip(pieces, places):
        made[place] = rows
    return made


def _kinds_agree(first: dict[str, RowKind], other: dict[str, RowKind]) -> bool:
    """Whether rows have the same components, of the same shapes and dtypes; texts may be of any width."""
    return first.keys() == other.keys() and all(_kind_agrees(kind, other[name]) for name, kind in first.items())


def _kind_agrees(one: RowKind, other: RowKind) -> bool:
    dtypes = one.dtype.newbyteorder("="), other.dtype.newbyteorder("=")
    return one.shape == other.shape and (
        dtypes[0] == dtypes[1] or (one.dtype.kind == other.dtype.kind and one.dtype.kind in "US")
    )


def _kinds_text(kinds: dict[str, RowKind]) -> str:
    return ", ".join(
        f"{name!r} " * bool(name) + f"{kind.dtype} {kind.shape}" for name, kind in list(kinds.items())[:20]
    )
