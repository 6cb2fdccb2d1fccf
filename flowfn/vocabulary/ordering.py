"""Stages that say which datapoints come, and when: output i is some input."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow
from flowfn.flows.stages import stage
from flowfn.flows.translating import speaks
from flowfn.kinds.routes import IndexTable, Span
from flowfn.kinds.sections import Section
from flowfn.randomness.drawing import DistinctDraws, Draws, WeightedDraws
from flowfn.randomness.generators import drawn_key, permutation
from flowfn.vocabulary.keeping.caching import freeze

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


def _section_at_front(count: int) -> Iterator[Section]:
    yield Section(stop=count, final=True)


@stage.order(where={"count": rules.natural}, stream=_section_at_front)
def take(count: int, n: float) -> Span:
    """The first `count` datapoints.

    >>> import flowfn as ff
    >>> list(ff.take(2, "a b c".split()))
    ['a', 'b']
    """
    return Span(0, 1, min(count, n))


def _skipped(count: int) -> Iterator[Section]:
    yield Section(start=count, final=True)


@stage.order(where={"count": rules.natural}, stream=_skipped)
def skip(count: int, n: float) -> Span:
    """All but the first `count` datapoints.

    >>> import flowfn as ff
    >>> list(ff.skip(2, "a b c".split()))
    ['c']
    """
    return Span(count, 1, max(n - count, 0))


_INDICES = rules.Rule(
    "a sequence of integers", lambda value: hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))
)
_SLICE_BOUND = rules.optional(rules.integer)
_STEP = rules.optional(rules.Rule("an integer other than 0", rules.is_integer, lambda value, others: value != 0))


def _sliced(start: int | None, stop: int | None, step: int | None) -> Iterator[Section]:
    bounds = (start or 0, math.inf if stop is None else stop, 1 if step is None else step)
    if min(bounds) < 0:
        raise TypeError("slice(): negative bounds and steps need a source that can be indexed")
    yield Section(start=bounds[0], stop=bounds[1], step=int(bounds[2]), final=True)


@stage.order(where={"start": _SLICE_BOUND, "stop": _SLICE_BOUND, "step": _STEP}, stream=_sliced)
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


Flow._slice_by(slice)


def _sharded(rank: int, world: int, remainder: str) -> Generator[Section, int, None]:
    found = yield Section(start=rank, step=world, whole=remainder == "drop", final=remainder != "pad")
    short = found % world
    if remainder == "pad" and 0 < short <= rank:
        yield Section(start=(rank - short) % found, stop=(rank - short) % found + 1, anew=True, final=True)


@stage.order(
    where={"world": rules.positive, "rank": _RANK, "remainder": _REMAINDER}, shards=("rank", "world"), stream=_sharded
)
def shard(rank: int, world: int, n: float, *, remainder: str = "keep") -> Any:
    """Every `world`-th datapoint from `rank` on: the share of one of `world` equal processes.

    `remainder`: "keep" gives the last few to the first ranks, "drop" to nobody, "pad" gives the other ranks datapoints
    from the beginning again, so that all have the same number. With "keep" ranks may differ in their number of steps,
    which `len` tells: torch's DistributedDataParallel then has to be trained in its `join()`, or ranks wait.
    `pad_to_multiple(world)` before `shard` pads too, and marks what is there again, so that an evaluation can be exact.

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
        raise IndexError(
            f"subset(): index {int(listed.min() if listed.min() < -n else listed.max())} is out of range for {n} "
            "datapoints"
        )
    return np.where(listed < 0, listed + int(n), listed)


_WEIGHTS = rules.Rule(
    "a row of numbers >= 0, one for each datapoint, with a finite sum above 0",
    lambda value: value is None or (hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))),
    lambda value, others: value is None or _are_shares(np.asarray(value)),
)


def _are_shares(weights: np.ndarray) -> bool:
    if weights.ndim != 1 or weights.dtype.kind not in "biuf":
        return False
    with np.errstate(over="ignore"):
        total = weights.sum(dtype=np.float64)
    return bool((weights >= 0).all() and 0 < total < math.inf)


@stage.order(
    where={"count": rules.natural, "weights": _WEIGHTS, "replacement": rules.boolean},
    remedy="; mix(..., weights=, random=True) draws from streams, or give a list",
)
def sample(count: int, n: int, *, weights: Any = None, replacement: bool = True, rng: np.random.Generator) -> Any:
    """Draw `count` datapoints at random, others in every epoch.

    `weights`: how likely each is (as in torch's WeightedRandomSampler); left out, all are alike. `replacement=False`:
    each comes at most once. Without weights nothing is remembered; with them, O(n) numbers in each pass.

    Raises:
        ValueError: there is not one weight for each datapoint, or fewer (with a weight above 0) than are to be drawn
            without replacement.
        TypeError: the source cannot be indexed, or is endless.

    >>> import flowfn as ff
    >>> sorted(ff.sample(3, "a b c".split(), replacement=False))
    ['a', 'b', 'c']
    >>> set(ff.sample(100, "a b c".split(), weights=[1, 0, 3])) == {"a", "c"}
    True
    """
    if n == math.inf:
        raise TypeError("sample(): the source is endless; take(n) makes it finite")
    key = drawn_key(rng)
    weighed = None if weights is None else np.asarray(weights, np.float64)
    if weighed is not None and len(weighed) != n:
        raise ValueError(
            f"sample(): there must be one weight for each datapoint, got {len(weighed)} weights for {n} datapoints"
        )
    there = n if weighed is None else int(np.count_nonzero(weighed))
    if count > (there if not replacement else count * there):
        what = "datapoints" if weighed is None else "datapoints with a weight above 0"
        raise ValueError(
            f"sample(): cannot draw {count} of {there} {what}{'' if replacement else ' without replacement'}"
        )
    if weighed is not None:
        return WeightedDraws(weighed, count, key) if replacement else DistinctDraws(weighed, count, key)
    return Draws(n, count, key) if replacement else IndexTable(permutation(n, rng), count)


@speaks
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
            raise ValueError(
                f"split(): fractions must be shares between 0 and 1 or numbers of datapoints, got {fraction!r}"
            )
    shares = [rules.is_integer(fraction) for fraction in fractions]
    if not fractions or len(set(shares)) > 1:
        raise ValueError(
            f"split(): give all fractions as shares (floats) or all as numbers of datapoints (ints), got {fractions}"
        )
    exact = list(np.cumsum(fractions)) if shares[0] else [round(total * n) for total in np.cumsum(fractions).round(12)]
    if exact[-1] > n:
        raise ValueError(f"split(): the fractions {fractions} are more than the {n} datapoints there are")
    starts = [0, *exact]
    return [slice(int(a), int(b), None, source=whole) for a, b in zip(starts, exact)]
