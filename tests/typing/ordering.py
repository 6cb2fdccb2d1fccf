"""The types of the words that give datapoints as they come: all of them keep the type, also behind what changes it."""

import queue
from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np

import flowfn as ff


def half(x: int) -> float:
    return x / 2


def lines(path: str) -> Iterator[bytes]:
    yield path.encode()


def in_pipes(train: bool) -> None:
    assert_type(ff.pipe([1], ff.shuffle(window=8, name="order"), ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe([1], ff.map(half), ff.take(1), ff.skip(1), ff.slice(0, None, -1)), ff.Flow[float])
    assert_type(ff.pipe([1], ff.map(half), ff.shard(0, 2, remainder="pad"), ff.subset([0, -1])), ff.Flow[float])
    assert_type(ff.pipe([1], ff.map(half), ff.subset(np.arange(3)), ff.sample(3, weights=[1.0])), ff.Flow[float])
    assert_type(
        ff.pipe([1], ff.map(half), ff.repeat(2), ff.cycle(), ff.repeat_each(2), ff.epoch_of(100)), ff.Flow[float]
    )
    assert_type(
        ff.pipe([1], ff.map(half), ff.shuffle_buffer(8, reuse=2), ff.take_while(bool), ff.unique()), ff.Flow[float]
    )
    assert_type(
        ff.pipe([1], ff.map(half), ff.freeze(seed=1), ff.cache(), ff.cache_to("folder", version="2")), ff.Flow[float]
    )
    assert_type(ff.pipe([1], ff.map(half), ff.prefetch(2, processes=2), ff.progress(unit="batch")), ff.Flow[float])
    assert_type(ff.pipe([1], ff.map(half), ff.check_inputs()), ff.Flow[float])
    assert_type(ff.pipe(["a"], ff.shuffle(), ff.unique(key=str.lower)), ff.Flow[str])


def with_their_sources() -> None:
    assert_type(ff.shuffle([1]), ff.Flow[int])
    assert_type(ff.take(1, [1]), ff.Flow[int])
    assert_type(ff.skip(1, [1]), ff.Flow[int])
    assert_type(ff.slice(None, 2, None, [1]), ff.Flow[int])
    assert_type(ff.shard(0, 2, [1]), ff.Flow[int])
    assert_type(ff.subset([0], [1]), ff.Flow[int])
    assert_type(ff.sample(2, [1], replacement=False), ff.Flow[int])
    assert_type(ff.split(["a"], 0.9, 0.1, seed=1), list[ff.Flow[str]])
    assert_type(ff.repeat(2, [1]), ff.Flow[int])
    assert_type(ff.cycle([1]), ff.Flow[int])
    assert_type(ff.repeat_each(2, [1]), ff.Flow[int])
    assert_type(ff.epoch_of(2, [1]), ff.Flow[int])
    assert_type(ff.shuffle_buffer(2, [1]), ff.Flow[int])
    assert_type(ff.take_while(bool, [1]), ff.Flow[int])
    assert_type(ff.unique(["a"], key=len), ff.Flow[str])
    assert_type(ff.freeze([1], seed=2), ff.Flow[int])
    assert_type(ff.cache([1]), ff.Flow[int])
    assert_type(ff.cache_to("folder", [1]), ff.Flow[int])
    assert_type(ff.prefetch(2, [1], threads=2), ff.Flow[int])
    assert_type(ff.progress([1]), ff.Flow[int])
    assert_type(ff.check_inputs([1]), ff.Flow[int])


def integers_of_numpy(count: np.int64) -> None:
    assert_type(
        ff.pipe([1], ff.take(count), ff.shard(count, count), ff.repeat(count), ff.freeze(seed=count)), ff.Flow[int]
    )
    assert_type(ff.batch(count, [1], collate=None), ff.Flow[list[int]])


def counted(total: int, word: str) -> tuple[int, float]:
    return total + len(word), total / 2


def streams_that_change_the_type() -> None:
    assert_type(ff.scan(counted, 0, ["a"]), ff.Flow[float])
    assert_type(ff.pipe(["a"], ff.shuffle(), ff.scan(counted, 0), ff.map(float.is_integer)), ff.Flow[bool])
    assert_type(ff.interleave(lines, ["a.txt"], cycle=2), ff.Flow[bytes])
    assert_type(ff.pipe(["a.txt"], ff.shuffle(), ff.interleave(lines, block=2), ff.map(len)), ff.Flow[int])


def guarded() -> None:
    assert_type(
        ff.pipe(["1"], ff.shuffle(), ff.guard(ff.map(int), errors=ValueError, then="drop"), ff.map(half)),
        ff.Flow[float],
    )
    assert_type(ff.pipe([1], ff.shuffle(), ff.guard(ff.map(half), retry=2), ff.cache()), ff.Flow[float])
    assert_type(ff.pipe([1], ff.guard(ff.map(half), then=lambda x, error: 0.0)), ff.Flow[float])
    assert_type(ff.pipe([1], ff.shuffle(), ff.guard(ff.map(half), then=lambda x, error: None)), ff.Flow[float | None])
    assert_type(ff.pipe([(1, 2)], ff.guard(ff.batch(2), then="drop")), ff.Flow[tuple[Any, Any]])


def queues(items: queue.Queue[str], simple: queue.SimpleQueue[int]) -> None:
    assert_type(ff.from_queue(items, timeout=5), ff.Flow[str])
    assert_type(ff.from_queue(simple, sentinel=-1), ff.Flow[int])
