"""Which source each output of a mix came from: remembered for a while, and written down in few letters.

A stage behind a mix may hold what it has read. To give it the same again, whatever the weights are by then, one has to
know from which source each of these datapoints came.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_PICKS = 1 << 14
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
        if len(picks) >= 2 * MOST_PICKS:
            self.known = start + MOST_PICKS, picks[MOST_PICKS:]  # at once: others may be reading

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


def picks_text(picks: Sequence[int], sources: int) -> str:
    """Picks among so many sources as a short text: what recurs, and sources that are rare, take less room.

    >>> picks_of(picks_text([0, 2, 1, 1], 3), 3)
    [0, 2, 1, 1]
    >>> len(picks_text([0, 1, 0, 2] * 1000, 3)) < 50
    True
    """
    each, dtype = _digit_values(sources)
    digits = np.zeros((-(-len(picks) // len(each)), len(each)), np.int64)
    digits.reshape(-1)[: len(picks)] = picks
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    short = deflate.compress((digits @ each).astype(dtype).tobytes()) + deflate.flush()
    return f"{len(picks)}:{base64.b85encode(short).decode()}"


def picks_of(text: Any, sources: int) -> list[int] | None:
    """The picks that a text stands for, or None if it is none of these."""
    each, dtype = _digit_values(sources)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        count, letters = text.split(":", 1)
        held = np.frombuffer(inflate.decompress(base64.b85decode(letters), MOST_PICKS * dtype.itemsize), dtype)
        wanted = int(count)
    except (AttributeError, ValueError, zlib.error):
        return None
    whole = inflate.eof and not inflate.unused_data
    if not whole or not 0 <= wanted <= MOST_PICKS or -(-wanted // len(each)) != len(held):
        return None
    digits = held.astype(np.int64)[:, None] // each
    digits[:, :-1] %= sources
    picks: list[int] = digits.reshape(-1)[:wanted].tolist()
    return picks if digits.max(initial=0) < sources else None


def _digit_values(sources: int) -> tuple[np.ndarray, np.dtype]:
    """What the digits of a number are worth that stands for several picks, as many as a byte holds; and its dtype."""
    many = max(count for count in range(1, 9) if count == 1 or sources**count <= 256)
    return np.maximum(sources, 1) ** np.arange(many), np.min_scalar_type(sources - 1).newbyteorder("<")


def _rebuilt(start: int, picks: list[int], *now: Any) -> Picked:
    return Picked(PickLog(start, picks), *now)
