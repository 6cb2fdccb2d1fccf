"""Races between a word and what one writes by hand: the sides of a line of the table of costs, and what they read."""

from __future__ import annotations

import atexit
import functools
import queue
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
from loky import get_reusable_executor

import flowfn as ff

N = 10_000
TAKEN = 1024
"""Words that give datapoints are read in lists of so many, by hand and in flowfn,
as they would be in front of a `batch`."""


@dataclass(frozen=True)
class Race:
    """The two sides of a line: what makes something to be read to its end,
    and how many units (datapoints, ...) that is.

    `chunked`: to be read in lists. `same`: what is equal on both sides: "all" of it, its "count" where it is drawn at
    random, or "nothing" where that is another too.
    """

    by_hand: Callable[[], Iterable[Any]]
    flowfn: Callable[[], Iterable[Any]]
    units: int = N
    chunked: bool = True
    same: str = "all"

    def sides(self) -> tuple[Callable[[], Iterable[Any]], Callable[[], Iterable[Any]]]:
        """Both of them, as they are read."""
        if not self.chunked:
            return self.by_hand, self.flowfn
        in_lists = functools.cache(functools.partial(ff.batch, TAKEN, collate=None))
        return (lambda: by_hand.chunks(TAKEN, self.by_hand())), (lambda: in_lists(self.flowfn()))


# What is read

NUMBERS = list(range(N))
LISTS = [[i, -i] for i in NUMBERS]
TUPLES = [(i, -i) for i in NUMBERS]
DICTS = [{"x": i, "y": -i, "z": 0} for i in NUMBERS]
PARTS = [NUMBERS[: N // 4], NUMBERS[N // 4 : N // 2], NUMBERS[N // 2 :]]
IN_LISTS = [NUMBERS[i : i + 64] for i in range(0, N - 64, 64)]
IMAGES = list(np.random.default_rng(0).integers(0, 256, (2048, 28, 28), np.uint8))
SEQUENCES = [np.arange(n) for n in np.random.default_rng(1).integers(1, 129, 4000).tolist()]
LENGTHS = list(map(len, SEQUENCES))
COLUMN = np.random.default_rng(2).random(N)
BATCHES = [[np.arange(i, i + 100), np.arange(i, i + 100)] for i in range(0, N, 100)]


# What is done


def add_one(x: int) -> int:
    """The work."""
    return x + 1


def with_noise(x: int, rng: np.random.Generator) -> float:
    """The work, with a random number."""
    return x + rng.random()


def with_hidden_noise(x: int) -> float:
    """The work, with a random number out of global state."""
    return x + random.random()


def is_even(x: int) -> bool:
    """Half of them are."""
    return x % 2 == 0


def even_or_none(x: int) -> int | None:
    """Half of them, and None for the others."""
    return None if x % 2 else x


def ten_from(x: int) -> range:
    """A few outputs for an input."""
    return range(x, x + 10)


def running_total(total: int, x: int) -> tuple[int, int]:
    """The next state, and an output."""
    return total + x, total + x


def nothing(x: Any) -> None:
    """A look at it."""


def some_work(x: int) -> int:
    """What takes some 0.1 ms."""
    return sum(range(x, x + 5000))


@ff.stage.each
def own_stage(source: Any) -> Iterator[int]:
    """A stage of one's own."""
    for x in source:
        yield add_one(x)


# How lines are made


def race(
    hand: Callable[[Any], Iterable[Any]], *stages: Any, source: Any = NUMBERS, units: int = 0, **options: Any
) -> Race:
    """A function of the source, by hand, against stages over it."""
    return against(lambda: hand(source), ff.pipe(source, *stages), units or len(source), **options)


def batches(hand: Callable[[Any], Iterable[Any]], *stages: Any, source: Any = NUMBERS, units: int = 0) -> Race:
    """The same, where batches come out, which are read one by one."""
    return race(hand, *stages, source=source, units=units, chunked=False)


def against(hand: Callable[[], Iterable[Any]], flow: Any, units: int = N, **options: Any) -> Race:
    """Something by hand against a flow, which is made once."""
    return Race(hand, lambda: flow, units, **options)


def calls(hand: Callable[..., Any], ours: Callable[..., Any], *arguments: Any, times: int = 100) -> Race:
    """Two functions, called again and again."""
    return Race(
        lambda: [hand(*arguments) for _ in range(times)],
        lambda: [ours(*arguments) for _ in range(times)],
        times,
        chunked=False,
    )


def beginning() -> Race:
    """Passes over nothing."""
    flow = ff.pipe([], ff.map(add_one))
    return calls(lambda: list(by_hand.mapped(add_one, ())), lambda: list(flow))


def at_an_index() -> Race:
    """Single datapoints."""
    flow, places = ff.pipe(NUMBERS, ff.map(add_one)), NUMBERS[::100]
    return Race(
        lambda: [add_one(NUMBERS[i]) for i in places], lambda: [flow[i] for i in places], len(places), chunked=False
    )


def rows_in_batches() -> Race:
    """Arrays cut into batches."""
    flow = ff.pipe(ff.from_arrays(COLUMN, COLUMN), ff.batch(64))
    return against(
        lambda: ([column[i : i + 64].copy() for column in (COLUMN, COLUMN)] for i in range(0, N, 64)),
        flow,
        chunked=False,
    )


def out_of_a_queue() -> Race:
    """Items are put into a queue, and taken out again."""

    def filled() -> Any:
        items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for x in (*NUMBERS, None):
            items.put(x)
        return items

    return Race(lambda: by_hand.taken_out(filled()), lambda: ff.from_queue(filled()))


def listed_files() -> Race:
    """A folder of empty files."""
    folder = _folder()
    for number in range(500):
        (folder / f"image{number}.png").touch()
    pattern = str(folder / "*.png")
    return Race(lambda: by_hand.found(pattern), lambda: ff.files(pattern), 500, chunked=False)


def parted() -> Race:
    """The larger of two random parts."""
    order = np.random.default_rng(0).permutation(N)[:8000]
    return against(lambda: by_hand.at(order, NUMBERS), ff.split(NUMBERS, 0.8, 0.2)[0], 8000, same="count")


def mixed(hand: Callable[..., Iterable[Any]], same: str = "all", streams: bool = False, **options: Any) -> Race:
    """Two sources, 3 to 1, until one has ended."""
    sources = range(6000), range(2000)
    flows = [(lambda one=one: iter(one)) if streams else list(one) for one in sources]
    return against(lambda: hand(*sources), ff.mix(*flows, weights=[3, 1], **options), 8000, same=same)


def mixed_by_units() -> Race:
    """Two sources of lists of two, 3 to 1 in units, until one has ended."""
    sources = LISTS[:6000], LISTS[:2000]
    return against(
        lambda: by_hand.mixed_by_units((3, 1), *sources),
        ff.mix(*sources, weights=[3, 1], unit=len),
        8000,
        same="nothing",
    )


def kept_in_memory(again: bool) -> Race:
    """The first pass, or a later one."""
    if not again:
        return Race(lambda: by_hand.Kept(LISTS), lambda: ff.cache(LISTS))
    kept, flow = by_hand.Kept(LISTS), ff.cache(LISTS)
    list(kept), list(flow)
    return against(lambda: kept, flow)


def kept_in_files(again: bool) -> Race:
    """The first pass, into new files, or a later one."""
    folder, source = _folder(), [[image, 7] for image in IMAGES]

    def flow() -> Any:
        return ff.cache_to(tempfile.mkdtemp(dir=folder), source)

    def written() -> Iterable[Any]:
        return by_hand.written(folder / "pickles", source)

    if not again:
        return Race(written, flow, len(source), chunked=False)
    known = flow()
    list(known), list(written())
    return against(lambda: by_hand.read_back(folder / "pickles"), known, len(source), chunked=False)


def in_a_thread() -> Race:
    """Batches made by a thread."""
    flow = ff.pipe(NUMBERS, ff.batch(64), ff.prefetch(2))
    return against(lambda: by_hand.read_ahead(2, by_hand.batched_bare(64, NUMBERS)), flow, -(-N // 64), chunked=False)


def in_threads() -> Race:
    """Work that two threads share."""
    flow, executor = ff.pipe(range(200), ff.map(some_work), ff.prefetch(16, threads=2)), ThreadPoolExecutor(2)
    return against(lambda: by_hand.spread(executor, 16, some_work, range(200)), flow, 200, chunked=False)


def in_processes() -> Race:
    """Work that two processes share, which run already."""

    def spread() -> Iterator[Any]:
        return by_hand.spread(get_reusable_executor(2, timeout=60), 16, some_work, range(200))

    flow = ff.pipe(range(200), ff.map(some_work), ff.prefetch(16, processes=2))
    return against(spread, flow, 200, chunked=False)


def _folder() -> Path:
    """A folder that is gone in the end."""
    folder = tempfile.mkdtemp(prefix="flowfn-costs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
