"""Which epoch a pass is, where several processes begin it, each for itself, and nobody tells them."""

from __future__ import annotations

from multiprocessing import get_context
from typing import Any

import numpy as np

WORKERS = 1024
"""How many workers there may be at most."""


class SharedEpochs:
    """The next epoch, and which worker has begun which one last, in memory that all start methods hand on.

    The workers of one pass know one another by a seed that all of them have. It may come again (somebody seeds his
    generator in each epoch), so who has begun an epoch of that seed and begins again is the first of another one.

    >>> epochs = SharedEpochs(0)
    >>> [epochs.begin(worker, seed) for worker, seed in [(0, 7), (1, 7), (0, 8), (1, 8), (1, 8), (0, 8)]]
    [0, 0, 1, 1, 2, 2]
    """

    def __init__(self, epoch: int) -> None:
        context = get_context("spawn")  # what it makes can be sent by fork too
        self.lock: Any = context.Lock()
        self.memory: Any = context.RawArray("q", 1 + 2 * WORKERS)
        self.set(epoch)

    @property
    def next(self) -> int:
        """The epoch of the pass that begins next."""
        return int(self._rows()[0][0])

    def set(self, epoch: int) -> None:
        """Let the next pass be of an epoch."""
        following, seeds, epochs = self._rows()
        with self.lock:
            following[0], seeds[:], epochs[:] = epoch, 0, -1

    def begin(self, worker: int = 0, seed: int | None = None) -> int:
        """The epoch of a pass that a worker begins; without a seed it is alone."""
        following, seeds, epochs = self._rows()
        with self.lock:
            begun = epochs[(seeds == seed) & (epochs >= 0)].max(initial=-1) if seed is not None else -1
            if begun <= epochs[worker]:
                begun = following[0]
                following[0] += 1
            if seed is not None:
                seeds[worker], epochs[worker] = seed, begun
            return int(begun)

    def resume(self, epoch: int, worker: int = 0) -> None:
        """A worker goes on within an epoch; the next pass is of the one behind it."""
        following, _, epochs = self._rows()
        with self.lock:
            following[0], epochs[worker] = epoch + 1, epoch

    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        every = np.frombuffer(self.memory, np.int64)
        return every[:1], every[1 : 1 + WORKERS], every[1 + WORKERS :]
