"""Which epoch a pass is, where several processes begin it, each for itself, and nobody tells them."""

from __future__ import annotations

import os
from multiprocessing import get_context
from typing import Any

import numpy as np

from flowfn.flows.flow import Flow

PASSES = 512
"""So many passes are remembered: those of old have all been begun by everybody."""

_NEXT = 0
"""In the place of a pass: the epoch of the one that begins next."""


def loaded_within(flow: Flow[Any]) -> dict[str, Any]:
    """The state of a flow, if it was loaded and is within the epoch to come; or else none.

    >>> import flowfn as ff
    >>> flow, iterator = ff.flow([1, 2, 3]), iter(ff.flow([1, 2, 3]))
    >>> next(iterator), loaded_within(flow), loaded_within(flow.load_state_dict(iterator.state_dict()))["count"]
    (1, {}, 1)
    """
    state: dict[str, Any] = {} if flow.node.loose else flow.state_dict()
    return state if state.get("count") and state["epoch"] == flow.epoch else {}


class SharedEpochs:
    """Which epochs passes are, in memory that all start methods hand on to workers.

    `reader` is the process that a pass is for: those that were started with one and the same data set, as the ranks of
    a training are, count each for itself. `key` is what the workers of one pass have in common: the first that begins
    it takes the reader's next epoch, the others join. Who has no key is alone.

    >>> epochs = SharedEpochs(3)
    >>> [epochs.begin(reader=1, key=key) for key in (7, 8, 7, 8, None)], epochs.begin(reader=2, key=7)
    ([3, 4, 3, 4, 5], 3)
    """

    def __init__(self, epoch: int) -> None:
        context = get_context("spawn")  # what it makes can be sent by fork too
        self.lock: Any = context.Lock()
        self.memory: Any = context.RawArray("q", 4 * PASSES)
        self.first, self.maker = epoch, os.getpid()

    def next(self, reader: int) -> int:
        """The epoch of the pass that a reader begins next; the first time, it is the maker's."""
        found = [self._found(one, _NEXT) for one in (reader, self.maker)]
        return next((epoch for epoch in found if epoch is not None), self.first)

    def set(self, reader: int, epoch: int) -> None:
        """Let a reader's next pass be of an epoch."""
        with self.lock:
            self._note(reader, _NEXT, epoch)

    def begin(self, reader: int, key: int | None = None) -> int:
        """The epoch of a pass that is begun."""
        with self.lock:
            known = None if key is None else self._found(reader, key)
            return self._begun(reader, key, self.next(reader)) if known is None else known

    def resume(self, reader: int, key: int | None, epoch: int) -> None:
        """A pass that was begun goes on within an epoch, and the next is of the one behind it."""
        with self.lock:
            if key is None or self._found(reader, key) != epoch:  # or another worker has said so
                self._begun(reader, key, epoch)

    def _begun(self, reader: int, key: int | None, epoch: int) -> int:
        self._note(reader, _NEXT, epoch + 1)
        if key is not None:
            self._note(reader, key, epoch)
        return epoch

    def _rows(self) -> Any:
        """(reader, key, epoch, when that was noted) of each."""
        return np.frombuffer(self.memory, np.int64).reshape(PASSES, 4)

    def _found(self, reader: int, key: int) -> int | None:
        readers, keys, epochs, noted = self._rows().T
        found = epochs[(readers == reader) & (keys == key) & (noted > 0)]
        return int(found[0]) if len(found) else None

    def _note(self, reader: int, key: int, epoch: int) -> None:
        """In the row that is there, or else in the oldest."""
        rows = self._rows()
        readers, keys, _, noted = rows.T
        there = np.flatnonzero((readers == reader) & (keys == key) & (noted > 0))
        rows[there[0] if len(there) else noted.argmin()] = reader, key, epoch, noted.max() + 1
