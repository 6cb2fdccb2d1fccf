"""What was written down, as arrays: who had control from when to when, in every thread."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from flowfn.seeing.profiling.logs import ENTER, GAVE, OUTSIDE, Chunk

SOME, FIRST = 4, 5.0
"""Of so many calls the first is left out where it took so many times as long as the others."""


@dataclass(frozen=True)
class Track:
    """One thread: intervals in which one place had control, (n,) each, and what was given when.

    `cpu` is the processor's seconds of an interval, NaN where it was not asked. `outer` is the place of the outermost
    call that an interval belongs to, or, where nobody had control, that was the last.
    """

    process: int
    thread: int
    name: str
    start: np.ndarray
    end: np.ndarray
    place: np.ndarray
    cpu: np.ndarray
    outer: np.ndarray
    given_at: np.ndarray
    given_by: np.ndarray
    calls: np.ndarray = field(repr=False)  # (n, 3): start, end, place of each outermost call that gave something
    at_once: int = 1  # how many outputs a task has

    @property
    def seconds(self) -> np.ndarray:
        """How long the intervals are."""
        return self.end - self.start

    @property
    def settled(self) -> Track:
        """The same without its first call, where that took much longer than others: something was imported then."""
        spent = self.calls[:, 1] - self.calls[:, 0]
        if len(spent) < SOME or spent[0] <= FIRST * spent[1:].mean():
            return self
        mine, given = self.start >= self.calls[0, 1], self.given_at > self.calls[0, 1]
        rows = {name: getattr(self, name)[mine] for name in ("start", "end", "place", "cpu", "outer")}
        return replace(self, **rows, given_at=self.given_at[given], given_by=self.given_by[given], calls=self.calls[1:])


def track_of(chunks: list[Chunk]) -> Track:
    """One thread's chunks, in the order in which they came."""
    rows = np.concatenate([np.array(chunk.rows).reshape(-1, 4) for chunk in chunks])
    times, after, happened, cpu = rows[:, 0], rows[:, 1].astype(np.int64), rows[:, 2].astype(np.int64), rows[:, 3]
    before = np.concatenate([[OUTSIDE], after[:-1]])
    gave = happened == GAVE
    place = after[:-1]
    known = (cpu[1:] >= 0) & (cpu[:-1] >= 0)
    begins = (before == OUTSIDE) & (happened == ENTER)
    opened = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))  # the row at which the last call began
    out = (after == OUTSIDE) & (happened != ENTER)
    ends = np.flatnonzero(gave & out)
    calls = np.stack([times[opened[ends]], times[ends], after[opened[ends]]], 1)
    gives = np.zeros(len(rows), bool)
    gives[opened[ends]] = True  # others only look whether there is more
    opened = np.maximum.accumulate(np.where(gives, np.arange(len(rows)), opened[ends[0]] if len(ends) else 0))
    return Track(
        chunks[0].process,
        chunks[0].thread,
        chunks[0].name,
        times[:-1],
        times[1:],
        place,
        np.where(known, cpu[1:] - cpu[:-1], np.nan),
        after[opened[:-1]],
        times[gave],
        before[gave],
        calls,
        _tasks(gave[out]),
    )


def _tasks(gave: np.ndarray) -> int:
    """How many outputs a worker gives at once, in the middle: behind the last of a task it finds that there is no
    more."""
    runs = np.diff(np.concatenate([[-1], np.flatnonzero(~gave)])) - 1
    runs = runs[runs > 0]
    return int(np.median(runs[len(runs) // 2 :])) if len(runs) else 1


@dataclass(frozen=True)
class Recording:
    """All threads of a pass, and about how many bytes the outputs of each place have."""

    tracks: tuple[Track, ...]
    sizes: dict[int, float]
    root: int
    here: int = 0  # the process that iterated
    delays: tuple[tuple[int, float, float], ...] = ()

    @classmethod
    def of(cls, chunks: Iterable[Chunk], root: int) -> Recording:
        """What a recorder took of a pass over the node at `root`."""
        threads: dict[tuple[int, int], list[Chunk]] = defaultdict(list)
        weights: dict[int, list[int]] = defaultdict(list)
        chunks = list(chunks)
        for chunk in chunks:
            if chunk.rows:
                threads[chunk.process, chunk.thread].append(chunk)
            for place, size in chunk.weights:
                weights[place].append(size)
        delays = tuple(one for chunk in chunks for one in chunk.delays)
        ordered = [sorted(found, key=lambda chunk: chunk.rows[0]) for found in threads.values()]
        tracks = tuple(track_of(found) for found in ordered)
        return cls(
            tracks, {place: float(np.mean(sizes)) for place, sizes in weights.items()}, root, os.getpid(), delays
        )

    @cached_property
    def settled(self) -> Recording:
        """The same as it went on, once all had begun."""
        return replace(self, tracks=tuple(track.settled for track in self.tracks))

    @cached_property
    def began(self) -> float:
        """When the first of them got control."""
        return min((float(track.start[0]) for track in self.tracks if len(track.start)), default=0.0)

    def lane(self, top: int) -> list[Track]:
        """The threads in which the place is called by nobody of the tree."""
        return [track for track in self.tracks if (track.outer == top).any()]

    @cached_property
    def tops(self) -> list[int]:
        """The places that are called so."""
        return sorted({int(place) for track in self.tracks for place in np.unique(track.calls[:, 2])})

    def own(self, place: int) -> np.ndarray:
        """Own seconds of each output of a place: without what it waited for its sources."""
        return np.concatenate([np.zeros(0), *(_own_of_each(track, place) for track in self.tracks)])

    def seconds(self, place: int, top: int | None = None) -> float:
        """All own seconds of a place (in the lane of `top`)."""
        return sum(float(track.seconds[_mine(track, place, top)].sum()) for track in self.tracks)

    def cpu(self, place: int, top: int | None = None) -> float:
        """The processor's seconds of a place (in the lane of `top`): where it was not asked, as where it was."""
        every = timed = spent = 0.0
        for track in self.tracks:
            mine = _mine(track, place, top)
            known = mine & ~np.isnan(track.cpu)
            every += float(track.seconds[mine].sum())
            timed += float(track.seconds[known].sum())
            spent += float(track.cpu[known].sum())
        return every * min(spent / timed, 1.0) if timed else 0.0

    def delayed(self, top: int) -> float:
        """The share of its outermost calls' time for which a place waited for a processor that others had."""
        mine = [(seconds, delay) for place, seconds, delay in self.delays if place == top]
        whole = sum(seconds for seconds, _ in mine)
        return min(sum(delay for _, delay in mine) / whole, 0.95) if whole else 0.0

    def given(self, place: int) -> np.ndarray:
        """When a place gave its outputs, sorted."""
        return np.sort(np.concatenate([np.zeros(0), *(one.given_at[one.given_by == place] for one in self.tracks)]))

    @cached_property
    def consumed(self) -> tuple[np.ndarray, np.ndarray]:
        """(asked, got): when the outputs of the whole were asked for, and given."""
        calls = np.concatenate(
            [track.calls[track.calls[:, 2] == self.root] for track in self.tracks] or [np.zeros((0, 3))]
        )
        calls = calls[np.argsort(calls[:, 0])]
        return calls[:, 0], calls[:, 1]


def _mine(track: Track, place: int, top: int | None) -> np.ndarray:
    mine: np.ndarray = track.place == place
    return mine if top is None else mine & (track.outer == top)


def _own_of_each(track: Track, place: int) -> np.ndarray:
    """Own seconds for each output of a place in one thread."""
    mine = track.place == place
    ends = track.given_at[track.given_by == place]
    if not len(ends):
        return np.zeros(0)
    number = np.searchsorted(ends, track.end[mine])  # of the output that an interval is spent on
    spent = np.bincount(number, track.seconds[mine], minlength=len(ends))
    return spent[: len(ends)]
