"""Steps: in each, all ranks have nearly the same to do."""

from __future__ import annotations

import numpy as np

from flowfn.randomness.drawing import words
from flowfn.randomness.generators import Permutation, hashed


def steps_of(costs: np.ndarray, ranks: int, key: int) -> np.ndarray:
    """Deal shares of work that cost so much, (n,) int64 with n a multiple of `ranks`, to ranks in steps.

    Gives which share is whose in each step, (n / ranks, ranks) int64. Neighbours in the order of cost are a step; steps
    come in an order that `key` draws, and so do the shares in each, so that no rank has always the dearest.

    >>> steps_of(np.array([1, 9, 2, 8]), 2, key=0).tolist()
    [[0, 2], [3, 1]]
    """
    steps = np.argsort(-costs, kind="stable").reshape(-1, ranks)
    order = Permutation(len(steps), hashed("steps", key))[np.arange(len(steps))]
    bits = words(np.arange(steps.size, dtype=np.uint64), hashed("ranks", key)).reshape(steps.shape)
    dealt: np.ndarray = np.take_along_axis(steps[order], np.argsort(bits, axis=1, kind="stable"), 1)
    return dealt
