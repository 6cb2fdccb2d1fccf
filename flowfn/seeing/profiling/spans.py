"""The pass over time: which stage a thread was at from when to when, no finer than a screen or a file wants it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowfn.seeing.profiling.logs import OUTSIDE
from flowfn.seeing.profiling.probing import WAITING
from flowfn.seeing.profiling.recording import Recording, Track

SHORTEST = 2e-5
"""Seconds: what is shorter is shown with its neighbours, by the name of the one that takes most of it."""


class Spans(NamedTuple):
    """What one thread did: (n,) starts and ends in seconds since the pass began, and places."""

    name: str
    process: int
    thread: int
    start: np.ndarray
    end: np.ndarray
    place: np.ndarray


def spans_of(recording: Recording, most: int) -> list[Spans]:
    """All threads, together at most about so many spans."""
    finest = SHORTEST
    while True:
        found = [_merged(track, recording.began, finest) for track in recording.tracks if len(track.start)]
        if sum(len(spans.start) for spans in found) <= most or finest > 1:
            return sorted(found, key=lambda spans: (spans.process != recording.here, spans.process, spans.name))
        finest *= 2


def _merged(track: Track, began: float, finest: float) -> Spans:
    at_work = track.place != OUTSIDE
    start, end, place = track.start[at_work] - began, track.end[at_work] - began, track.place[at_work]
    short = end - start < finest
    box = np.where(short, np.floor(start / finest), -1 - np.arange(len(start)))  # the long ones stay alone
    _, first, number = np.unique(box, return_index=True, return_inverse=True)
    places, which = np.unique(place, return_inverse=True)
    spent = np.zeros((len(first), len(places)))
    np.add.at(spent, (number, which), end - start)
    starts = start[first]
    ends = starts + spent.sum(1)
    order = np.argsort(starts)
    return Spans(track.name, track.process, track.thread, starts[order], ends[order], places[spent.argmax(1)][order])


def is_wait(place: int) -> bool:
    """Whether a place is one that stands for waiting for workers."""
    return place >= WAITING
