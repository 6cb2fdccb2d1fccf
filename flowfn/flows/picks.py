"""Which source each output of a mix came from: remembered for a while, and written down in few letters.

A stage behind a mix may hold what it has read. To give it the same again, whatever the weights are by then, one has to
know from which source each of these datapoints came.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 1 << 14
"""So many picks are remembered, and may stand in a state."""


class PickLog:
    """The newest picks of a pass over a mix: the source of each output from a number on."""

    __slots__ = ("grows", "known")

    def __init__(self, start: int, picks: Sequence[int] = (), grows: bool = False) -> None:
        self.known, self.grows = (start, list(picks)), grows

    def add(self, source: int) -> None:
        """Remember one more."""
        start, picks = self.known
        picks.append(source)
        if len(picks) >= 2 * MOST:
            self.known = start + MOST, picks[MOST:]  # at once: others may be reading

    def between(self, start: int, stop: int) -> list[int] | None:
        """The sources of some outputs, if they are remembered."""
        first, picks = self.known
        return picks[start - first : stop - first] if start >= first else None


class Picked:
    """Where a mix stands, and the picks that led there: `row` is after `outputs` outputs; `over`: there are no more."""

    __slots__ = ("log", "outputs", "over", "row")

    def __init__(self, log: PickLog, outputs: int, row: tuple[Any, ...], over: bool = False) -> None:
        self.log, self.outputs, self.row, self.over = log, outputs, row, over

    def picks(self, outputs: int) -> list[int] | None:
        """The sources of the outputs from a number on, if they are remembered."""
        return self.log.between(outputs, self.outputs)

    def since(self, outputs: int) -> Picked:
        """The same without what was picked before so many outputs."""
        picks = self.picks(outputs)
        return self if picks is None else Picked(PickLog(outputs, picks), self.outputs, self.row, self.over)

    def __reduce__(self) -> Any:
        cut = self.since(self.outputs) if self.log.grows else self  # who wanted more has cut it
        return _rebuilt, (*cut.log.known, self.outputs, self.row, self.over)


def encoded(picks: Sequence[int], sources: int) -> str:
    """Picks among so many sources as a short text.

    >>> encoded([0, 2, 1, 1], 3), decoded(encoded([0, 2, 1, 1], 3), 3)
    ('4:8U', [0, 2, 1, 1])
    """
    bits = (np.asarray(picks, np.int64)[:, None] >> np.arange(_bits(sources))) & 1
    return f"{len(picks)}:{base64.b85encode(np.packbits(bits.astype(np.uint8)).tobytes()).decode()}"


def decoded(text: Any, sources: int) -> list[int] | None:
    """The picks that a text stands for, or None if it is none of these."""
    try:
        count, letters = text.split(":", 1)
        held, wanted = np.frombuffer(base64.b85decode(letters), np.uint8), int(count) * _bits(sources)
    except (AttributeError, ValueError):
        return None
    if not 0 <= int(count) <= MOST or -(-wanted // 8) != len(held):
        return None
    each = np.unpackbits(held, count=wanted).reshape(-1, _bits(sources)).astype(np.int64)
    picks: list[int] = (each << np.arange(_bits(sources))).sum(1).tolist()
    return picks if max(picks, default=0) < sources else None


def _bits(sources: int) -> int:
    return max((sources - 1).bit_length(), 1)


def _rebuilt(start: int, picks: list[int], *now: Any) -> Picked:
    return Picked(PickLog(start, picks), *now)
