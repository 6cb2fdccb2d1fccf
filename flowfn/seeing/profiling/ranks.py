"""Profiles of several ranks beside each other: whom do the others wait for, and is it always the same?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CHANGES = 0.6
"""The share of steps from which on it is always the same rank that is last."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """How long each rank waited for data in each step, (steps, ranks) float64 seconds, and whose they are.

    Where ranks wait for each other in every step, the one that waits longest for its data holds up all.
    """

    waits: np.ndarray
    ranks: tuple[int, ...]
    stages: tuple[str, ...]

    @property
    def last(self) -> dict[int, float]:
        """In which share of the steps each rank was the last."""
        last = self.waits.argmax(1)
        return {rank: float((last == at).mean()) for at, rank in enumerate(self.ranks)}

    @property
    def slowest(self) -> int:
        """The rank that held up the others most often."""
        return max(self.last, key=lambda rank: self.last[rank])

    @property
    def changes(self) -> bool:
        """Whether that is now one, now another."""
        return self.last[self.slowest] < CHANGES

    @property
    def lost(self) -> float:
        """Seconds that a rank of ordinary speed waited for the slowest, in all steps."""
        return float((self.waits.max(1) - np.median(self.waits, 1)).sum())

    def __str__(self) -> str:
        share = self.last[self.slowest]
        lines = [
            f"{len(self.ranks)} ranks, {len(self.waits)} steps: the others waited {self.lost:.2f} s for the last one.",
            f"Now one and now another is last, rank {self.slowest} most often ({share:.0%}): datapoints are unequal."
            if self.changes
            else f"Rank {self.slowest} is last in {share:.0%} of the steps: look at its machine, its disk, its share.",
        ]
        for rank, stage in zip(self.ranks, self.stages):
            lines.append(f"  rank {rank:<4} last in {self.last[rank]:.0%}, held by {stage}")
        return "\n".join(lines)

    __repr__ = __str__


def beside(profiles: Iterable[Mapping[str, Any]]) -> Ranks:
    """What `Profile.as_data` returned on several ranks, beside each other; steps that not all have are left out."""
    every = sorted(profiles, key=lambda data: data["rank"])
    ranks = tuple(data["rank"] for data in every)
    if len(set(ranks)) < len(ranks) or len(ranks) < 2:
        raise ValueError(f"Profile.beside(): profiles must be of several ranks, each of another, got ranks {[*ranks]}")
    steps = min(len(data["waits"]) for data in every)
    waits = np.array([data["waits"][:steps] for data in every], np.float64).T
    return Ranks(waits, ranks, tuple(data["verdict"]["stage"] for data in every))
