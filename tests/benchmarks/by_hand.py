"""What the words of the vocabulary do, as one writes it without a library: the other side of the table of costs.

Plain loops, `itertools`, `more_itertools` and numpy, whichever is the shortest that does the same job.
"""

from __future__ import annotations

import copy
import glob
import heapq
import os
import pickle
import queue
import random
import re
import threading
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0


def generator(index: int) -> np.random.Generator:
    """A datapoint's own random numbers, the same in whatever order they are asked for."""
    return np.random.default_rng((SEED, index))


# One datapoint at a time


def mapped(f: Callable[[Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    for x in source:
        yield f(x)


def mapped_at_random(f: Callable[[Any, Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    for index, x in enumerate(source):
        yield f(x, generator(index))


def component_mapped(f: Callable[[Any], Any], index: Any, source: Iterable[Any]) -> Iterator[Any]:
    for datapoint in source:
        datapoint = datapoint.copy()
        datapoint[index] = f(datapoint[index])
        yield datapoint


def tuple_component_mapped(f: Callable[[Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    for first, second in source:
        yield f(first), second


def filtered(predicate: Callable[[Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    for x in source:
        if predicate(x):
            yield x


def filter_mapped(f: Callable[[Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    for x in source:
        if (y := f(x)) is not None:
            yield y


def flat_mapped(f: Callable[[Any], Iterable[Any]], source: Iterable[Any]) -> Iterator[Any]:
    for x in source:
        yield from f(x)


def swapped(source: Iterable[list[Any]]) -> Iterator[list[Any]]:
    for datapoint in source:
        yield [datapoint[1], datapoint[0]]


def with_keys(keys: Sequence[str], source: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for datapoint in source:
        yield {key: datapoint[key] for key in keys}


def tapped(f: Callable[[Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    for x in source:
        f(x)
        yield x


def scanned(f: Callable[[Any, Any], Any], initial: Any, source: Iterable[Any]) -> Iterator[Any]:
    state = copy.deepcopy(initial)
    for x in source:
        state, output = f(state, x)
        yield output


def seeded(f: Callable[[Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    for index, x in enumerate(source):
        held = random.getstate(), np.random.get_state()
        random.seed(SEED << 32 | index)
        np.random.seed([SEED, index])
        try:
            yield f(x)
        finally:
            random.setstate(held[0])
            np.random.set_state(held[1])


def guarded(f: Callable[[Any], Any], errors: Any, instead: Any, source: Iterable[Any]) -> Iterator[Any]:
    for x in source:
        try:
            y = f(x)
        except errors:
            y = instead
        yield y


# Batches


def chunks(size: int, source: Iterable[Any]) -> Iterator[list[Any]]:
    source = iter(source)
    while chunk := list(islice(source, size)):
        yield chunk


def batched(
    size: int, source: Iterable[Sequence[Any]], stacked: Callable[[Sequence[Any]], Any] = np.array
) -> Iterator[list[Any]]:
    for chunk in chunks(size, source):
        yield [stacked(column) for column in zip(*chunk)]


def batched_bare(size: int, source: Iterable[Any], stacked: Callable[[Sequence[Any]], Any] = np.array) -> Iterator[Any]:
    return map(stacked, chunks(size, source))


def batched_dicts(size: int, source: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for chunk in chunks(size, source):
        yield {key: np.array([datapoint[key] for datapoint in chunk]) for key in chunk[0]}


def padded(values: Sequence[np.ndarray]) -> np.ndarray:
    made = np.zeros((len(values), max(map(len, values))), values[0].dtype)
    for row, value in zip(made, values):
        row[: len(value)] = value
    return made


def in_parts(tokens: np.ndarray) -> list[np.ndarray]:
    return [tokens[start : start + 256] for start in range(0, len(tokens), 256)]


def between_ends(tokens: np.ndarray) -> np.ndarray:
    made = np.empty(len(tokens) + 2, tokens.dtype)
    made[0], made[1:-1], made[-1] = 1, tokens, 2
    return made


def cumulated(ids: np.ndarray) -> tuple[np.ndarray, int]:
    begins = np.ones(ids.shape, bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    ends = np.append(np.flatnonzero(begins), ids.size).astype(np.int32)
    return ends, int(np.diff(ends).max())


def unbatched(source: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    for batch in source:
        for row in zip(*batch):
            yield list(row)


def rebatched(size: int, source: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    pieces: list[np.ndarray] = []
    rows = 0
    for batch in source:
        pieces.append(batch)
        rows += len(batch)
        while rows >= size:
            last = pieces.pop()
            cut = len(last) - (rows - size)
            yield np.concatenate([*pieces, last[:cut]]) if pieces else last[:cut]
            pieces, rows = [last[cut:]] if rows > size else [], rows - size
    if rows:
        yield np.concatenate(pieces)


def batched_by(key: Callable[[Any], Any], size: int, source: Iterable[Any]) -> Iterator[Any]:
    groups = defaultdict(list)
    for x in source:
        value = key(x)
        groups[value].append(x)
        if len(groups[value]) == size:
            yield np.stack(groups.pop(value))
    for group in groups.values():
        yield np.stack(group)


def batched_by_length(boundaries: Sequence[int], size: int, source: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    buckets: list[list[np.ndarray]] = [[] for _ in boundaries]
    for x in source:
        place = bisect_left(boundaries, len(x))
        buckets[place].append(x)
        if len(buckets[place]) == size:
            yield padded(buckets[place])
            buckets[place] = []
    for bucket in buckets:
        if bucket:
            yield padded(bucket)


def batched_by_tokens(tokens: int, source: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    batch: list[np.ndarray] = []
    longest = 0
    for x in source:
        if batch and (len(batch) + 1) * max(longest, len(x)) > tokens:
            yield padded(batch)
            batch, longest = [], 0
        batch.append(x)
        longest = max(longest, len(x))
        if (len(batch) + 1) * longest > tokens:
            yield padded(batch)
            batch, longest = [], 0
    if batch:
        yield padded(batch)


def windows(size: int, source: Iterable[Any]) -> Iterator[np.ndarray]:
    source = iter(source)
    window = deque(islice(source, size), size)
    yield np.array(window)
    for x in source:
        window.append(x)
        yield np.array(window)


def fitted(lengths: Iterable[int], capacity: int, bins: int, best: bool) -> Iterator[list[tuple[int, int, int]]]:
    """First fit, or best fit, of whole sequences."""
    rows: list[list[tuple[int, int, int]]] = []
    rooms: list[int] = []
    for index, length in enumerate(lengths):
        found = None
        for place, room in enumerate(rooms):
            if room >= length and (found is None or room < rooms[found]):
                found = place
                if not best:
                    break
        if found is None:
            if len(rows) == bins:
                yield from rows
                rows, rooms = [], []
            found = len(rows)
            rows.append([])
            rooms.append(capacity)
        rows[found].append((index, 0, length))
        rooms[found] -= length
    yield from rows


def shared_by_cost(ranks: int, size: int, source: Iterable[Any]) -> Iterator[list[Any]]:
    """Steps of `size`, the longest that is left to the rank that has least, of those that are not full."""
    rest = iter(source)
    while step := list(islice(rest, size)):
        loads = [(0, rank) for rank in range(ranks)]
        shares: list[list[Any]] = [[] for _ in range(ranks)]
        for datapoint in sorted(step, key=len, reverse=True):
            load, rank = heapq.heappop(loads)
            shares[rank].append(datapoint)
            if len(shares[rank]) < size // ranks:
                heapq.heappush(loads, (load + len(datapoint) ** 2, rank))
        yield from shares


def laid_end_to_end(lengths: Iterable[int], capacity: int) -> Iterator[list[tuple[int, int, int]]]:
    row: list[tuple[int, int, int]] = []
    room = capacity
    for index, length in enumerate(lengths):
        start = 0
        while length - start >= room:
            yield [*row, (index, start, start + room)]
            start += room
            row, room = [], capacity
        if start < length:
            row.append((index, start, length))
            room -= length - start
    if row:
        yield row


def packed(capacity: int, source: Iterable[np.ndarray], bins: int = 64) -> Iterator[list[np.ndarray]]:
    """Rows of whole sequences by first fit, with segment ids and positions."""
    rows: list[list[np.ndarray]] = []
    rooms: list[int] = []
    for x in source:
        place = next((place for place, room in enumerate(rooms) if room >= len(x)), None)
        if place is None:
            if len(rows) == bins:
                yield from map(_packed_row, repeat(capacity), rows)
                rows, rooms = [], []
            place = len(rows)
            rows.append([])
            rooms.append(capacity)
        rows[place].append(x)
        rooms[place] -= len(x)
    yield from map(_packed_row, repeat(capacity), rows)


def _packed_row(capacity: int, sequences: list[np.ndarray]) -> list[np.ndarray]:
    row = np.zeros(capacity, sequences[0].dtype)
    segments, positions = np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
    start = 0
    for number, sequence in enumerate(sequences, 1):
        stop = start + len(sequence)
        row[start:stop] = sequence
        segments[start:stop] = number
        positions[start:stop] = np.arange(len(sequence))
        start = stop
    return [row, segments, positions]


def filled_up(multiple: int, source: Sequence[Any]) -> Iterator[tuple[Any, bool]]:
    for x in source:
        yield x, True
    for x in islice(cycle(source), -len(source) % multiple):
        yield x, False


# Which, and when


def shuffled(source: Sequence[Any]) -> Iterator[Any]:
    for index in np.random.default_rng(SEED).permutation(len(source)).tolist():
        yield source[index]


def shuffled_nearby(window: int, source: Sequence[Any]) -> Iterator[Any]:
    """Nothing moves far: places with noise of up to `window`, sorted."""
    noisy = np.arange(len(source)) + np.random.default_rng(SEED).uniform(0, window, len(source))
    return at(noisy.argsort(), source)


def shuffled_in_a_buffer(size: int, source: Iterable[Any]) -> Iterator[Any]:
    rng = random.Random(SEED)
    source = iter(source)
    buffer = list(islice(source, size))
    for x in source:
        place = int(rng.random() * size)
        out, buffer[place] = buffer[place], x
        yield out
    rng.shuffle(buffer)
    yield from buffer


def at(indices: np.ndarray, source: Sequence[Any]) -> Iterator[Any]:
    for index in indices.tolist():
        yield source[index]


def sampled(count: int, source: Sequence[Any], weights: Any = None, replacement: bool = True) -> Iterator[Any]:
    shares = None if weights is None else np.asarray(weights) / np.sum(weights)
    return at(np.random.default_rng(SEED).choice(len(source), count, replacement, shares), source)


def rounds(count: int, source: Iterable[Any]) -> Iterator[Any]:
    for _ in range(count):
        yield from source


def copies(count: int, source: Iterable[Any]) -> Iterator[Any]:
    for x in source:
        for _ in range(count):
            yield x


def interleaved(f: Callable[[Any], Iterable[Any]], slots: int, source: Iterable[Any]) -> Iterator[Any]:
    waiting = map(iter, map(f, source))
    live = deque(islice(waiting, slots))
    while live:
        for x in live[0]:
            yield x
            live.rotate(-1)
            break
        else:
            fresh = next(waiting, None)
            if fresh is None:
                live.popleft()
            else:
                live[0] = fresh


# Several sources


def mixed(pattern: Sequence[int], *sources: Iterable[Any]) -> Iterator[Any]:
    iterators = list(map(iter, sources))
    try:
        for place in cycle(pattern):
            yield next(iterators[place])
    except StopIteration:
        return


def mixed_at_random(weights: Sequence[float], *sources: Iterable[Any]) -> Iterator[Any]:
    iterators = list(map(iter, sources))
    rng = random.Random(SEED)
    try:
        while True:
            for iterator in rng.choices(iterators, weights, k=256):
                yield next(iterator)
    except StopIteration:
        return


def mixed_by_units(weights: Sequence[float], *sources: Iterable[Any]) -> Iterator[Any]:
    iterators, units = list(map(iter, sources)), [0] * len(sources)
    try:
        while True:
            place = min(range(len(units)), key=lambda one: units[one] / weights[one])
            datapoint = next(iterators[place])
            units[place] += len(datapoint)
            yield datapoint
    except StopIteration:
        return


def components_joined(one: Iterable[list[Any]], other: Iterable[list[Any]]) -> Iterator[list[Any]]:
    for a, b in zip(one, other):
        yield a + b


# Held fast


class Kept:
    """Datapoints kept in a list from the first pass on; given as copies, since what is kept should stay as it is."""

    def __init__(self, source: Iterable[Any]) -> None:
        self.source, self.kept = source, []

    def __iter__(self) -> Iterator[Any]:
        if not self.kept:
            self.kept = list(self.source)
        for datapoint in self.kept:
            yield datapoint.copy()


def written(path: Path, source: Iterable[Any]) -> Iterator[Any]:
    """Datapoints pickled one after the other into a file."""
    with open(path, "wb") as file:
        for datapoint in source:
            file.write(pickle.dumps(datapoint, 5))
            yield datapoint


def read_back(path: Path) -> Iterator[Any]:
    """What was pickled into a file."""
    with open(path, "rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return


# Sources


def rows(*arrays: np.ndarray) -> Iterator[list[Any]]:
    for index in range(len(arrays[0])):
        yield [array[index] for array in arrays]


def found(pattern: str) -> list[str]:
    """The files that match, in natural order."""
    paths = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    return sorted(
        paths, key=lambda path: [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", path)]
    )


def taken_out(items: Any, sentinel: Any = None) -> Iterator[Any]:
    while (item := items.get()) is not sentinel:
        yield item


def made_up(shape: tuple[int, ...], count: int) -> Iterator[np.ndarray]:
    for index in range(count):
        yield generator(index).random(shape, np.float32)


# In parallel


def read_ahead(ahead: int, source: Iterable[Any]) -> Iterator[Any]:
    """A thread that reads, and a queue."""
    items: queue.Queue[Any] = queue.Queue(ahead)
    end = object()

    def fill() -> None:
        for x in source:
            items.put(x)
        items.put(end)

    thread = threading.Thread(target=fill)
    thread.start()
    while (x := items.get()) is not end:
        yield x
    thread.join()


def spread(executor: Executor, ahead: int, f: Callable[[Any], Any], source: Iterable[Any]) -> Iterator[Any]:
    """A window of futures."""
    waiting: deque[Any] = deque()
    for x in source:
        waiting.append(executor.submit(f, x))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
