"""Documents and sequences of Megatron-LM, each an array of tokens, by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from flowfn.blocks import Block
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

    at_once = 1024
    """How many datapoints are looked up together, where they are wanted one by one."""

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
        if len(block) == 1:
            return iter((self[int(block[0])],))
        blocks = (np.asarray(block[at : at + self.at_once], np.int64) for at in range(0, len(block), self.at_once))
        return chain.from_iterable(map(self.made, blocks))

    def made(self, numbers: np.ndarray) -> Iterable[Any]:
        """Some datapoints."""
        raise TypeError(f"{type(self).__name__} does not say how to read {self.path}")

    def __getitem__(self, index: int) -> Any:
        (made,) = self.made(np.array([self.within(index)]))
        return made


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

    def made(self, numbers: np.ndarray) -> Iterable[np.ndarray]:
        """Some documents."""
        return self.index.documents_at(numbers)


class Sequences(Indexed):
    """Sequences, each an array of tokens; of a multimodal index a dict, with its mode."""

    def __len__(self) -> int:
        return self.index.sequences

    def made(self, numbers: np.ndarray) -> Iterable[Any]:
        """Some sequences."""
        tokens = self.index.sequences_at(numbers)
        if not self.index.multimodal:
            return tokens
        modes = self.index.modes[numbers].tolist()
        return ({"tokens": one, "mode": mode} for one, mode in zip(tokens, modes))
