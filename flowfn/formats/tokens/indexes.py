"""The index of Megatron-LM's documents: PREFIX.idx, which says where in PREFIX.bin each sequence of tokens lies.

All little-endian: "MMIDIDX\\0\\0", a version (uint64, 1), a code for the dtype (uint8), the number of sequences and of
documents and one (uint64 each); then of each sequence its length in tokens (int32), of each the byte where it begins
(int64), the number of the first sequence of each document and, at last, of all (int64); and, if it is multimodal, of
each sequence its mode (int8).

The format: https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from flowfn.datapoints.columns import readonly
from flowfn.formats.tokens.files import stamp_of
from flowfn.formats.tokens.layouts import INDEX_MAGIC
from flowfn.process import forks
from flowfn.storage.signatures import unexpected_kind

DTYPES = {code: np.dtype(name) for code, name in enumerate(("u1", "i1", "<i2", "<i4", "<i8", "<f8", "<f4", "<u2"), 1)}
"""What the codes stand for."""
HEAD = struct.Struct("<9sQBQQ")
PER_SEQUENCE, PER_DOCUMENT = 12, 8
"""Bytes of a length and a place, and of the number of a document's first sequence."""


class DocumentIndex:
    """What an index says, mapped into memory, of documents in a file beside it."""

    def __init__(self, prefix: str, who: str) -> None:
        self.prefix, self.who = prefix, who
        self.path, self.tokens_path = f"{prefix}.idx", f"{prefix}.bin"
        self.stamp = stamp_of(self.path), stamp_of(self.tokens_path)
        size = self.stamp[0][0]
        with open(self.path, "rb") as file:
            head = file.read(HEAD.size)
        if not head.startswith(INDEX_MAGIC) or len(head) < HEAD.size:
            other = unexpected_kind(head, who)
            what = (
                "is empty"
                if not head
                else "does not begin as an index of Megatron-LM does" + f"; {other}" * bool(other)
            )
            raise ValueError(f"{who}(): {self.path} {what}")
        _, version, code, self.sequences, entries = HEAD.unpack(head)
        if version != 1 or code not in DTYPES:
            what = f"is of version {version}" if version != 1 else f"says that tokens are of dtype {code}"
            raise ValueError(f"{who}(): {self.path} {what}; version 1 and the dtypes 1 to {len(DTYPES)} are known")
        self.dtype, self.documents = DTYPES[code], entries - 1
        whole = HEAD.size + PER_SEQUENCE * self.sequences + PER_DOCUMENT * entries
        if size not in (whole, whole + self.sequences) or not entries:
            raise ValueError(
                f"{who}(): {self.path} should have {whole} bytes for {self.sequences} sequences in "
                f"{self.documents} documents, but it has {size}; it is damaged, or not whole"
            )
        self.multimodal = size > whole
        self._check_ends()

    def _check_ends(self) -> None:
        """Make sure that the index is of the tokens that are there, as far as its ends tell."""
        held = self.stamp[1][0]
        last = self.firsts[-1]
        told = int(self.places[-1]) + int(self.lengths[-1]) * self.dtype.itemsize if self.sequences else 0
        if self.firsts[0] or last != self.sequences or told != held:
            what = (
                f"says that {told} bytes of tokens are in {self.tokens_path}, which has {held}"
                if told != held
                else f"says that documents end with sequence {last} of {self.sequences}"
            )
            raise ValueError(f"{self.who}(): {self.path} {what}; one of both is damaged, not whole, or of another pair")

    def _array(self, dtype: str, offset: int, count: int) -> np.ndarray:
        return np.ndarray((count,), dtype, self._raw, offset)

    @forks.cached_property
    def _raw(self) -> np.ndarray:
        return np.memmap(self.path, np.uint8, "r")

    @forks.cached_property
    def lengths(self) -> np.ndarray:
        """How many tokens each sequence has."""
        return self._array("<i4", HEAD.size, self.sequences)

    @forks.cached_property
    def places(self) -> np.ndarray:
        """At which byte each sequence begins."""
        return self._array("<i8", HEAD.size + 4 * self.sequences, self.sequences)

    @forks.cached_property
    def firsts(self) -> np.ndarray:
        """The number of the first sequence of each document; behind the last, of all."""
        return self._array("<i8", HEAD.size + PER_SEQUENCE * self.sequences, self.documents + 1)

    @forks.cached_property
    def modes(self) -> np.ndarray:
        """The mode of each sequence, of a multimodal index."""
        return self._array(
            "<i1", HEAD.size + PER_SEQUENCE * self.sequences + PER_DOCUMENT * (self.documents + 1), self.sequences
        )

    @forks.cached_property
    def held(self) -> np.ndarray:
        """All that is in the file of tokens, which nobody can write to."""
        size = self.stamp[1][0]
        raw = np.memmap(self.tokens_path, np.uint8, "r") if size else np.empty(0, np.uint8)
        return readonly(np.ndarray((size // self.dtype.itemsize,), self.dtype, raw))

    @forks.cached_property
    def tokens(self) -> np.ndarray:
        """The tokens, which nobody can write to, of an index whose sequences follow one another.

        Raises:
            ValueError: they do not.
        """
        ends = np.cumsum(self.lengths, dtype=np.int64)
        if not np.array_equal(ends[:-1] * self.dtype.itemsize, self.places[1:]) or self.places[:1].any():
            raise ValueError(
                f"{self.who}(): the sequences in {self.tokens_path} do not follow one another, as {self.path} says; "
                "slices are of those that do: read documents, and pack them"
            )
        return self.held[: int(ends[-1]) if len(ends) else 0]

    @forks.cached_property
    def document_lengths(self) -> np.ndarray:
        """How many tokens each document has (int64).

        Raises:
            ValueError: a document begins before the one before it.
        """
        ends = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        if (np.diff(self.firsts) < 0).any() or self.firsts.min() < 0 or self.firsts.max() > self.sequences:
            raise ValueError(f"{self.who}(): {self.path} says that documents run back; it is damaged")
        if len(self.lengths) and self.lengths.min() < 0:
            raise ValueError(f"{self.who}(): {self.path} says that a sequence has {self.lengths.min()} tokens")
        made: np.ndarray = np.diff(ends[self.firsts])
        return made

    def sequences_at(self, numbers: np.ndarray) -> list[np.ndarray]:
        """The tokens of sequences, which nobody can write to."""
        size, lengths = self.dtype.itemsize, self.lengths[numbers].astype(np.int64)
        begins, odd = np.divmod(self.places[numbers], size)
        ends = begins + lengths
        wrong = (begins < 0) | (lengths < 0) | (ends > len(self.held)) | (odd != 0)
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"{self.who}(): {self.path} says that sequence {numbers[at]} has {lengths[at]} tokens from byte "
                f"{self.places[numbers[at]]} of {self.tokens_path} on, where they are not; it is damaged"
            )
        held = self.held
        return [held[begin:end] for begin, end in zip(begins.tolist(), ends.tolist())]

    def documents_at(self, numbers: np.ndarray) -> Iterable[np.ndarray]:
        """The tokens of documents: of all of their sequences, one behind the other."""
        firsts, lasts = self.firsts[numbers], self.firsts[numbers + 1]
        wrong = (firsts < 0) | (firsts > lasts) | (lasts > self.sequences)
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"{self.who}(): {self.path} says that document {numbers[at]} has the sequences {firsts[at]} to "
                f"{lasts[at]}, of {self.sequences}; it is damaged"
            )
        if (lasts - firsts == 1).all():
            return self.sequences_at(firsts)
        return map(self._joined, firsts.tolist(), lasts.tolist())

    def document(self, number: int) -> np.ndarray:
        """One of them: nearly always of one sequence, which is found without arrays of numbers."""
        first, last = self.firsts[number : number + 2].tolist()
        if last - first == 1 and 0 <= first < self.sequences:
            (begin, odd), length = divmod(self.places.item(first), self.dtype.itemsize), self.lengths.item(first)
            if not odd and 0 <= begin <= begin + length <= len(self.held):
                return self.held[begin : begin + length]
        (made,) = self.documents_at(np.array([number]))
        return made

    def _joined(self, first: int, last: int) -> np.ndarray:
        """Sequences as one: a view, if they follow one another."""
        parts, places = self.sequences_at(np.arange(first, last)), self.places[first:last]
        if parts and np.array_equal(places[:-1] + [part.nbytes for part in parts[:-1]], places[1:]):
            begin = int(places[0]) // self.dtype.itemsize
            return self.held[begin : begin + sum(map(len, parts))]
        return readonly(np.concatenate([np.empty(0, self.dtype), *parts]))


def index_bytes(dtype: np.dtype, lengths: Any, firsts: Any) -> list[bytes]:
    """The parts of an index of sequences that follow one another.

    >>> [part.hex() for part in index_bytes(np.dtype("<u2"), [3, 1], [0, 2])][1:]
    ['0300000001000000', '00000000000000000600000000000000', '00000000000000000200000000000000']
    """
    counts = np.asarray(lengths, np.int64)
    code = next(code for code, held in DTYPES.items() if held == dtype)
    places = np.concatenate([[0], np.cumsum(counts)[:-1] * dtype.itemsize])[: len(counts)]
    head = HEAD.pack(INDEX_MAGIC, 1, code, len(counts), len(firsts))
    return [head, counts.astype("<i4").tobytes(), places.astype("<i8").tobytes(), np.asarray(firsts, "<i8").tobytes()]


def prefix_of(path: str) -> str:
    """The prefix that is meant by the path of either file, or of neither.

    >>> prefix_of("a/train.idx"), prefix_of("a/train.bin"), prefix_of("a/train")
    ('a/train', 'a/train', 'a/train')
    """
    stem, suffix = os.path.splitext(path)
    return stem if suffix in (".idx", ".bin") else path
