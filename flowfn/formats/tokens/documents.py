"""Documents and sequences of Megatron-LM, each an array of tokens, by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flowfn.blocks import Block, ints
from flowfn.formats.tokens.indexes import DocumentIndex
from flowfn.storage.files import Opened, stamp


class OpenIndex:
    """An index and its tokens, mapped; they go with the last array that looks into them."""

    def __init__(self, prefix: str, who: str) -> None:
        self.index: DocumentIndex = DocumentIndex(prefix, who)

    def close(self) -> None:
        """There is nothing to close."""


class Indexed(Opened):
    """What is read by an index, as long as that is the one that was there at first."""

    def __init__(self, prefix: str, who: str) -> None:
        super().__init__(f"{prefix}.idx", who)
        self.prefix = prefix
        self.stamp = stamp(f"{prefix}.idx"), stamp(f"{prefix}.bin")

    def open(self) -> OpenIndex:
        """Map both files."""
        opened = OpenIndex(self.prefix, self.who)
        if opened.index.stamp != self.stamp:
            raise ValueError(f"{self.who}(): {self.path} has changed since it was opened; call {self.who}() again")
        return opened

    @property
    def index(self) -> DocumentIndex:
        """The index."""
        index: DocumentIndex = self.handle.index
        return index

    def __getitems__(self, indices: Sequence[int]) -> Iterator[Any]:
        return self.each(np.asarray(indices, np.int64))

    def each(self, block: Block) -> Iterator[Any]:
        """The datapoints at the indices of a block."""
        return map(self.__getitem__, ints(block))

    def __getitem__(self, index: int) -> Any:
        raise TypeError(f"{type(self).__name__} does not say how to read {self.path}")


class Documents(Indexed):
    """Documents, each an array of tokens."""

    def __init__(self, prefix: str, who: str) -> None:
        super().__init__(prefix, who)
        if self.index.multimodal:
            raise ValueError(
                f"{who}(): the sequences in {self.path} have modes, which a document, one array, has no place for; "
                "sequences=True reads them one by one, as dicts with their modes"
            )

    def __len__(self) -> int:
        return self.index.documents

    def __getitem__(self, index: int) -> np.ndarray:
        return self.index.document(self.within(index))


class Sequences(Indexed):
    """Sequences, each an array of tokens; of a multimodal index a dict, with its mode."""

    def __len__(self) -> int:
        return self.index.sequences

    def __getitem__(self, index: int) -> Any:
        held = self.index
        tokens = held.sequence(self.within(index))
        return {"tokens": tokens, "mode": int(held.modes[index])} if held.multimodal else tokens
