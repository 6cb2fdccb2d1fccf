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
from functools import cached_property
from typing import Any

import numpy as np

from flowfn.datapoints.columns import readonly
from flowfn.formats.tokens.files import stamp_of
from flowfn.formats.tokens.layouts import INDEX_MAGIC
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

    @cached_property
    def _raw(self) -> np.ndarray:
        return np.memmap(self.path, np.uint8, "r")

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many tokens each sequence has."""
        return self._array("<i4", HEAD.size, self.sequences)

    @cached_property
    def places(self) -> np.ndarray:
        """At which byte each sequence begins."""
        return self._array("<i8", HEAD.size + 4 * self.sequences, self.sequences)

    @cached_property
    def firsts(self) -> np.ndarray:
        """The number of the first sequence of each document; behind the last, of all."""
        return self._array("<i8", HEAD.size + PER_SEQUENCE * self.sequences, self.documents + 1)

    @cached_property
    def modes(self) -> np.ndarray:
        """The mode of each sequence, of a multimodal index."""
        return self._array(
            "<i1", HEAD.size + PER_SEQUENCE * self.sequences + PER_DOCUMENT * (self.documents + 1), self.sequences
        )

    @cached_property
    def raw_tokens(self) -> np.ndarray:
        """The bytes of the tokens."""
        size = self.stamp[1][0]
        return np.memmap(self.tokens_path, np.uint8, "r") if size else np.empty(0, np.uint8)

    @cached_property
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
        return readonly(np.ndarray((int(ends[-1]) if len(ends) else 0,), self.dtype, self.raw_tokens))

    @cached_property
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

    def sequence(self, number: int) -> np.ndarray:
        """The tokens of a sequence, which nobody can write to."""
        return self._view(number, int(self.lengths[number]), f"sequence {number}")

    def document(self, number: int) -> np.ndarray:
        """The tokens of a document: of all of its sequences, one behind the other."""
        first, last = self.firsts[number : number + 2].tolist()
        if not 0 <= first <= last <= self.sequences:
            raise ValueError(
                f"{self.who}(): {self.path} says that document {number} has the sequences {first} to {last}, of "
                f"{self.sequences}; it is damaged"
            )
        if last - first == 1:
            return self.sequence(first)
        lengths, places = self.lengths[first:last].astype(np.int64), self.places[first:last]
        if first < last and np.array_equal(places[:-1] + lengths[:-1] * self.dtype.itemsize, places[1:]):
            return self._view(first, int(lengths.sum()), f"document {number}")
        return readonly(np.concatenate([np.empty(0, self.dtype), *map(self.sequence, range(first, last))]))

    def _view(self, first: int, length: int, what: str) -> np.ndarray:
        """So many tokens from the beginning of a sequence on."""
        begin = int(self.places[first])
        if length < 0 or not 0 <= begin <= self.stamp[1][0] - length * self.dtype.itemsize:
            raise ValueError(
                f"{self.who}(): {self.path} says that {what} has {length} tokens from byte {begin} of "
                f"{self.tokens_path} on, where they are not; it is damaged"
            )
        return readonly(np.ndarray((length,), self.dtype, self.raw_tokens, begin))


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
