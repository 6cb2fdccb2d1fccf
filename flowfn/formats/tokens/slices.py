"""Slices of documents that stand one behind the other, as GPT is trained on them: `length` tokens and one more, which
is the first of the next slice.

Documents as they lie in their file make one row of tokens, of which slices are views. In another order, a slice is put
together of pieces of documents; which, is found for a block of slices at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowfn.blocks import Block
from flowfn.datapoints import buffers
from flowfn.datapoints.columns import Columns, readonly, stackable
from flowfn.datapoints.components import component
from flowfn.formats.joining.members import RowKind
from flowfn.formats.tokens.documents import Indexed
from flowfn.formats.tokens.files import RowShape, TokenFile, rows_in
from flowfn.formats.tokens.indexes import DocumentIndex
from flowfn.formats.tokens.layouts import TokenLayout


class SliceFile(TokenFile):
    """Slices of the documents of one prefix, as they lie there."""

    def check(self) -> None:
        """Make sure that documents follow one another, and are of the dtype that was read of the first prefix."""
        index = DocumentIndex(self.path.removesuffix(".bin"), self.who)
        if index.dtype != self.layout.dtype:
            raise ValueError(
                f"{self.who}(): {index.path} says that tokens are {index.dtype}, those of the first "
                f"{self.layout.dtype}; read it apart, and concat both"
            )
        refuse_modes(index)
        _ = index.tokens


class DocumentPieces(NamedTuple):
    """Which parts of documents make slices, one behind the other: at which token each begins, and how long it is."""

    begins: np.ndarray
    lengths: np.ndarray


class Slices(Indexed):
    """Slices of the documents of one prefix in any order, perhaps with segment ids and positions beside the tokens."""

    def __init__(
        self, prefix: str, length: int, order: np.ndarray | None, segments: bool, sequences: bool, who: str
    ) -> None:
        super().__init__(prefix, who)
        self.shape, self.order, self.sequences = RowShape(length + 1, length), order, sequences
        refuse_modes(self.index)
        self._choose(list(range(3 if segments else 1)), not segments)
        self._known: tuple[np.ndarray, np.ndarray] | None = None
        tokens = int(self._layout()[0][-1])
        self.count = self.shape.rows(tokens)
        if not self.count:
            raise ValueError(
                f"{who}(): length must be less than the number of tokens, {tokens} of {self.path}, got {length}"
            )

    def _layout(self) -> tuple[np.ndarray, np.ndarray]:
        """0, and at which token, of all one behind the other, documents end; how much farther in the file each lies."""
        if self._known is None:
            lengths = (self.index.lengths if self.sequences else self.index.document_lengths).astype(np.int64)
            begins = np.cumsum(lengths) - lengths
            if self.order is not None:
                self._check_order(self.order, len(lengths))
                lengths, begins = lengths[self.order], begins[self.order]
            ends = np.concatenate([[0], np.cumsum(lengths)])
            self._known = ends, begins - ends[:-1]
        return self._known

    def _check_order(self, order: np.ndarray, count: int) -> None:
        wrong = order[(order < 0) | (order >= count)]
        if len(wrong):
            what = "sequences" if self.sequences else "documents"
            raise ValueError(
                f"{self.who}(): order must number some of the {count} {what} of {self.path}, got {wrong[0]}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_known": None}

    def __len__(self) -> int:
        return self.count

    row = Indexed.__getitem__

    def made(self, numbers: np.ndarray) -> Iterable[Any]:
        """Some slices."""
        made = list(map(readonly, self._made(numbers)))
        return made[0] if self.bare else map(list, zip(*made))

    def rows(self, block: Block) -> Any:
        """The same, stacked: tokens, or tokens, segment ids and positions."""
        made = self._made(np.asarray(block, np.int64))
        return made[0] if self.bare else made

    @property
    def kinds(self) -> dict[str, RowKind]:
        """What the rows of each array are."""
        dtypes = [self.index.dtype, np.dtype(np.int32), np.dtype(np.int32)]
        return {str(at): RowKind(dtypes[at], (self.shape.length,)) for at in self.chosen}

    def selected(self, components: Sequence[Any]) -> Slices:
        """Some of the arrays, as `select` would select components of their rows."""
        made: Slices = self.fresh()
        made._choose([component(self.chosen, key) for key in components], False)
        return made

    def _choose(self, chosen: list[int], bare: bool) -> None:
        """Have datapoints of some of the three arrays; `bare`, of the one."""
        self.chosen, self.bare = chosen, bare
        self.stackables = [stackable(self.index.dtype if at == 0 else np.dtype(np.int32), ()) for at in chosen]

    def _made(self, wanted: np.ndarray) -> list[np.ndarray]:
        pieces = self._pieces(wanted)
        shape = (len(wanted), self.shape.length)
        made = (
            [self._tokens(wanted, pieces, shape), *_segments(pieces.lengths, shape)]
            if max(self.chosen)
            else [self._tokens(wanted, pieces, shape)]
        )
        return [made[at] for at in self.chosen]

    def _tokens(self, wanted: np.ndarray, pieces: DocumentPieces, shape: tuple[int, int]) -> np.ndarray:
        tokens = self.index.tokens
        if self.order is None:
            found: np.ndarray = Columns(rows_in(tokens.view(np.uint8), tokens.dtype, self.shape)).rows(wanted)
            return found
        made = buffers.empty(shape, tokens.dtype)
        ends = pieces.begins + pieces.lengths
        parts = [tokens[begin:end] for begin, end in zip(pieces.begins.tolist(), ends.tolist())]
        np.concatenate(parts, out=made.reshape(-1))
        return made

    def _pieces(self, wanted: np.ndarray) -> DocumentPieces:
        """The pieces of some slices, one slice behind the other."""
        ends, shifts = self._layout()
        first = wanted * self.shape.stride
        last = first + self.shape.length
        low = ends.searchsorted(first, "right") - 1
        counts = ends.searchsorted(last, "left") - low
        behind = counts.cumsum()
        document = np.arange(behind[-1]) - (behind - counts - low).repeat(counts)
        start = np.maximum(ends[document], first.repeat(counts))
        lengths = np.minimum(ends[document + 1], last.repeat(counts)) - start
        begins = start + shifts[document]
        whole = lengths > 0  # documents without tokens are in no slice
        return DocumentPieces(begins, lengths) if whole.all() else DocumentPieces(begins[whole], lengths[whole])


def refuse_modes(index: DocumentIndex) -> None:
    """Raise an error for a multimodal index, whose sequences are of different kinds."""
    if index.multimodal:
        raise ValueError(
            f"{index.who}(): the sequences in {index.path} have modes, which slices across documents would lose; "
            "sequences=True reads them one by one, as dicts with their modes"
        )


def slice_file(prefix: str, dtype: np.dtype, length: int, who: str, stamp: tuple[int, int]) -> SliceFile:
    """Slices of one prefix, of which nothing is looked at yet but the size."""
    return SliceFile(f"{prefix}.bin", stamp, TokenLayout(dtype, 0, ""), RowShape(length + 1, length), who)


def _segments(lengths: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """Segment ids (1, 2, ... in each row) and positions (0, 1, ... in each segment) of pieces that fill rows."""
    rows, starts = np.divmod(lengths.cumsum() - lengths, shape[1])
    fresh = np.flatnonzero(starts == 0)
    ids = (np.arange(1, len(lengths) + 1) - fresh[rows]).astype(np.int32)
    positions = np.tile(np.arange(shape[1], dtype=np.int32), shape[0]) - starts.astype(np.int32).repeat(lengths)
    return [ids.repeat(lengths).reshape(shape), positions.reshape(shape)]
