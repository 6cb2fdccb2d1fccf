"""Stages that say which datapoints come, and when: output i is some input."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.caching import freeze
from flowfn.flows import Flow
from flowfn.randomness import bounded, permutation
from flowfn.routes import Rounds, Span
from flowfn.sources import flow
from flowfn.stages import stage
from flowfn.stretches import Stretch

EMPTY_ROUNDS = 1000
"""After so many rounds without a datapoint, one after the other, `repeat` over a stream gives up."""

_REMAINDER = rules.one_of("keep", "drop", "pad")
_RANK = rules.Rule("an integer from 0 to world - 1", rules.is_integer, lambda rank, others: 0 <= rank < others["world"])


@stage.order(
    where={"window": rules.optional(rules.positive)},
    remedy="; shuffle_buffer(size) shuffles a stream, or put shuffle before the stage that makes it one",
    instead="shuffle_buffer({}) to shuffle a stream through a buffer of that size, shuffle() to shuffle everything",
)
def shuffle(n: int, *, window: int | None = None, rng: np.random.Generator) -> Any:
    """A new order every epoch, of all datapoints; computed from the index, in memory that does not grow.

    `window=w`: nothing moves by w places or more, so that a file is read nearly in order. `shuffle_buffer(size)` is
    for streams, which cannot be indexed.

    Raises:
        TypeError: the source is a stream, or endless.

    >>> import flowfn as ff
    >>> flow = ff.shuffle(range(5))
    >>> sorted(flow) == [0, 1, 2, 3, 4], list(flow.run(epoch=1)) != list(flow.run(epoch=2))
    (True, True)
    """
    if n == math.inf:
        raise TypeError("shuffle(): the source is endless; shuffle before cycle(), or use shuffle_buffer(size)")
    return permutation(n, rng, window)


@stage.stream(where={"size": rules.positive}, keeps_length=True)
def shuffle_buffer(size: int, source: Any, *, rng: np.random.Generator) -> Iterator[Any]:
    """Shuffle a stream through a buffer of `size` datapoints; all of them come out, each once.

    >>> import flowfn as ff
    >>> sorted(ff.shuffle_buffer(3, range(6)))
    [0, 1, 2, 3, 4, 5]
    """
    draw = bounded(rng)
    next(draw)
    buffer: list[Any] = []
    for datapoint in source:
        if len(buffer) < size:
            buffer.append(datapoint)
            continue
        place = draw.send(size)
        out, buffer[place] = buffer[place], datapoint
        yield out
    while buffer:
        place = draw.send(len(buffer))
        buffer[place], buffer[-1] = buffer[-1], buffer[place]
        yield buffer.pop()


def _taken(count: int) -> Iterator[Stretch]:
    yield Stretch(stop=count)


@stage.order(where={"count": rules.natural}, stream=_taken)
def take(count: int, n: float) -> Span:
    """The first `count` datapoints.

    >>> import flowfn as ff
    >>> list(ff.take(2, "a b c".split()))
    ['a', 'b']
    """
    return Span(0, 1, min(count, n))


def _skipped(count: int) -> Iterator[Stretch]:
    yield Stretch(start=count)


@stage.order(where={"count": rules.natural}, stream=_skipped)
def skip(count: int, n: float) -> Span:
    """All but the first `count` datapoints.

    >>> import flowfn as ff
    >>> list(ff.skip(2, "a b c".split()))
    ['c']
    """
    return Span(count, 1, max(n - count, 0))


_INDICES = rules.Rule("a sequence of integers", lambda value: hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict)))
_BOUND = rules.optional(rules.integer)
_STEP = rules.optional(rules.Rule("an integer other than 0", rules.is_integer, lambda value, others: value != 0))


def _sliced(start: int | None, stop: int | None, step: int | None) -> Iterator[Stretch]:
    bounds = (start or 0, math.inf if stop is None else stop, 1 if step is None else step)
    if min(bounds) < 0:
        raise TypeError("slice(): negative bounds and steps need a source that can be indexed")
    yield Stretch(start=bounds[0], stop=bounds[1], step=int(bounds[2]))


@stage.order(where={"start": _BOUND, "stop": _BOUND, "step": _STEP}, stream=_sliced)
def slice(start: int | None, stop: int | None, step: int | None, n: float) -> Span:
    """The datapoints that `sequence[start:stop:step]` would give; negative numbers count from the end.

    >>> import flowfn as ff
    >>> list(ff.slice(None, None, -2, range(5)))
    [4, 2, 0]
    """
    if n == math.inf:
        if min(start or 0, 0 if stop is None else stop, step or 1) < 0:
            raise TypeError("slice(): an endless source has no end to count from")
        first, pace = start or 0, step or 1
        return Span(first, pace, math.inf if stop is None else max(-(-(stop - first) // pace), 0))
    chosen = range(int(n))[start:stop:step]
    return Span(chosen.start, chosen.step, len(chosen))


def _sharded(rank: int, world: int, remainder: str) -> Generator[Stretch, int, None]:
    found = yield Stretch(start=rank, step=world, whole=remainder == "drop")
    short = found % world
    if remainder == "pad" and 0 < short <= rank:
        yield Stretch(start=(rank - short) % found, stop=(rank - short) % found + 1, anew=True)


@stage.order(where={"world": rules.positive, "rank": _RANK, "remainder": _REMAINDER}, shards=("rank", "world"), stream=_sharded)
def shard(rank: int, world: int, n: float, *, remainder: str = "keep") -> Any:
    """Every `world`-th datapoint from `rank` on: the share of one of `world` equal processes.

    `remainder`: "keep" gives the last few to the first ranks, "drop" to nobody, "pad" gives the other ranks datapoints
    from the beginning again, so that all have the same number.

    Raises:
        ValueError: `rank` is not in [0, world), or the seed was drawn from entropy, so that ranks would disagree.

    >>> import flowfn as ff
    >>> [list(ff.shard(rank, 3, range(7))) for rank in range(3)]
    [[0, 3, 6], [1, 4], [2, 5]]
    >>> [list(ff.shard(rank, 3, range(7), remainder="pad")) for rank in range(3)]
    [[0, 3, 6], [1, 4, 0], [2, 5, 1]]
    """
    if n == math.inf:
        return Span(rank, world, n)
    full, short = divmod(int(n), world)
    if remainder == "drop" or not short:
        return Span(rank, world, full)
    if rank < short:
        return Span(rank, world, full + 1)
    if remainder == "keep":
        return Span(rank, world, full)
    return np.append(np.arange(rank, rank + world * full, world), (rank - short) % int(n))


@stage.order(where={"indices": _INDICES})
def subset(indices: Any, n: float) -> Any:
    """The datapoints at `indices`, in that order; they may repeat, and negative ones count from the end.

    Raises:
        IndexError: an index is out of range.
        TypeError: the indices are not integers, or the source cannot be indexed.

    >>> import flowfn as ff
    >>> list(ff.subset([2, 0, 0, -1], "a b c".split()))
    ['c', 'a', 'a', 'c']
    """
    listed = np.asarray(indices)
    if listed.dtype == bool:
        raise TypeError("subset(): indices must be integers, got booleans; write np.flatnonzero(mask)")
    if not len(listed) or listed.dtype.kind not in "iu" or n == math.inf:
        return listed
    if listed.min() < -n or listed.max() >= n:
        raise IndexError(f"subset(): index {int(listed.min() if listed.min() < -n else listed.max())} is out of range for {n} datapoints")
    return np.where(listed < 0, listed + int(n), listed)


def split(source: Any, *fractions: float, seed: int = 0) -> list[Flow[Any]]:
    """Cut a source into disjoint random parts that are the same in every epoch and under every seed but `seed`.

    Fractions are shares (floats that add up to at most 1), or numbers of datapoints (ints). What is not asked for is
    left out. Every part is a slice of the same frozen, shuffled flow.

    Raises:
        ValueError: the fractions are more than there is.
        TypeError: the source cannot be indexed.

    >>> import flowfn as ff
    >>> train, test = ff.split(range(10), 0.8, 0.2)
    >>> len(train), len(test), sorted([*train, *test]) == list(range(10))
    (8, 2, True)
    """
    if rules.is_number(source):
        raise TypeError(f"split(): the source comes first: split(source, {', '.join(map(repr, (source, *fractions)))})")
    parted = flow(source, "split")
    if not parted.seekable:
        raise TypeError(f"split() needs a source that can be indexed, but {parted.node.unknown()}; give a list")
    whole = freeze(shuffle(parted), seed=seed)
    n = len(whole)
    for fraction in fractions:
        if not rules.is_number(fraction) or fraction < 0:
            raise ValueError(f"split(): fractions must be shares between 0 and 1 or numbers of datapoints, got {fraction!r}")
    shares = [rules.is_integer(fraction) for fraction in fractions]
    if not fractions or len(set(shares)) > 1:
        raise ValueError(f"split(): give all fractions as shares (floats) or all as numbers of datapoints (ints), got {fractions}")
    exact = list(np.cumsum(fractions)) if shares[0] else [round(total * n) for total in np.cumsum(fractions).round(12)]
    if exact[-1] > n:
        raise ValueError(f"split(): the fractions {fractions} are more than the {n} datapoints there are")
    starts = [0, *exact]
    return [slice(int(a), int(b), None, source=whole) for a, b in zip(starts, exact)]


def _rounds(count: int) -> Generator[Stretch, int, None]:
    empty = 0
    for number in range(count):
        found = yield Stretch(round=number)
        empty = 0 if found else empty + 1
        if empty == EMPTY_ROUNDS:
            raise ValueError(f"repeat(): rounds {number - empty + 1} to {number} gave no datapoint")


@stage.order(where={"count": rules.natural}, stream=_rounds, switches=True)
def repeat(count: int, n: float) -> Rounds:
    """The whole source, `count` times over, with new randomness in every round.

    >>> import flowfn as ff
    >>> list(ff.repeat(2, [1, 2]))
    [1, 2, 1, 2]
    """
    return Rounds(n, count)


def _endless() -> Generator[Stretch, int, None]:
    number = 0
    while True:
        found = yield Stretch(round=number)
        if not found:
            raise ValueError(f"cycle(): round {number} gave no datapoint; an empty source cannot be cycled")
        number += 1


@stage.order(stream=_endless, switches=True, endless=True)
def cycle(n: float) -> Rounds:
    """The whole source over and over, without end, with new randomness in every round.

    Raises:
        ValueError: a round gives no datapoint.

    >>> import flowfn as ff
    >>> list(ff.pipe([1, 2], ff.cycle(), ff.take(5)))
    [1, 2, 1, 2, 1]
    """
    if n == 0:
        raise ValueError("cycle(): the source is empty; an empty source cannot be cycled")
    return Rounds(n, math.inf)
