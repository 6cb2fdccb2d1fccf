"""Random compositions of the built-in stages, for hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal
from zlib import crc32

import numpy as np
from hypothesis import strategies as st

import flowfn as ff
from flowfn.flows.flow import Flow

ITEMS = 12


class RandomPipeline:
    """A function that makes a pipeline, and says which when it is shown."""

    def __init__(self, make_source: Callable[[], Any], stages: list[Any]) -> None:
        self.make_source, self.stages = make_source, stages

    def __call__(self) -> Flow[Any]:
        return ff.pipe(self.make_source(), *(stage() for stage in self.stages))

    def __repr__(self) -> str:
        return repr(self())


class OnlyIterable:
    """A source that can only be iterated."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return iter([number] for number in range(self.n))


def noisy(datapoint: Any, rng: np.random.Generator) -> Any:
    """A datapoint with a random number of its own."""
    return [datapoint, int(rng.integers(1000))]


def third(datapoint: Any) -> bool:
    """Whether to keep a datapoint: two of three."""
    return len(repr(datapoint)) % 3 != 0


def coin(datapoint: Any, rng: np.random.Generator) -> bool:
    """Whether to keep a datapoint, by its own draw."""
    return bool(rng.random() < 0.6)


def copies(datapoint: Any) -> list[Any]:
    """Nought to two of a datapoint."""
    return [datapoint] * (len(repr(datapoint)) % 3)


def inner(datapoint: Any) -> Flow[Any]:
    """A random flow made from a datapoint."""
    return ff.pipe([datapoint, datapoint], ff.map(noisy, rng=True))


def several(datapoint: Any) -> Iterator[Any]:
    """Nought to four datapoints made from one, for as long as somebody asks."""
    for number in range(datapoint_digest(datapoint) % 5):
        yield [datapoint, number]


def shuffled_flow(datapoint: Any) -> Flow[Any]:
    """A random flow that can be indexed, of nought to four datapoints."""
    return ff.pipe(list(several(datapoint)), ff.shuffle(), ff.map(noisy, rng=True))


def filtered(datapoint: Any) -> Flow[Any]:
    """A random flow that has to be read in order."""
    return ff.pipe(shuffled_flow(datapoint), ff.filter(coin, rng=True), ff.repeat(2))


def as_words(datapoint: Any) -> list[Any]:
    """Any datapoint as a list with one component."""
    return [repr(datapoint)]


def datapoint_digest(datapoint: Any) -> int:
    """A number that depends on nothing but the value of a datapoint."""
    return crc32(repr(datapoint).encode())


def early(datapoint: Any) -> bool:
    """Whether to go on after a datapoint: four times of five."""
    return datapoint_digest(datapoint) % 5 != 0


def kin(datapoint: Any) -> int:
    """One of a few keys."""
    return datapoint_digest(datapoint) % 6


def squared(lengths: np.ndarray) -> np.ndarray:
    """What datapoints of some lengths cost."""
    return lengths * lengths


def running_sum(state: list[int], datapoint: Any) -> tuple[list[int], Any]:
    """A state that is changed in place, and an output that depends on it."""
    state.append(kin(datapoint))
    return state, [datapoint, sum(state)]


def _batch(size: int, drop_remainder: bool) -> Any:
    return ff.compose(ff.map(as_words), ff.batch(size, drop_remainder=drop_remainder, collate=ff.as_list))


def _planned_stage(ranks: int, tokens: int | None, window: int, padded: bool) -> Any:
    size = 2 * ranks if tokens is None else None
    return ff.compose(
        ff.map(as_words),
        ff.batch_by_cost(
            squared,
            ranks=ranks,
            length=kin,
            size=size,
            tokens=tokens,
            window=window if size is None else None,
            padded=padded,
            collate=ff.as_list,
        ),
    )


small = st.integers(1, 5)
sources: Any = st.one_of(
    st.integers(0, ITEMS).map(lambda n: lambda: [[number] for number in range(n)]),
    st.integers(1, ITEMS).map(lambda n: lambda: ff.from_arrays(np.arange(n), np.arange(2 * n).reshape(n, 2))),
    st.integers(0, ITEMS).map(lambda n: lambda: ff.flow(OnlyIterable(n))),
    st.integers(0, ITEMS).map(
        lambda n: lambda: ff.flow(lambda rng, start: iter(rng.integers(99, size=n)[start:].tolist()))
    ),
)
_REMAINDERS: tuple[Literal["keep", "drop", "pad"], ...] = ("keep", "drop", "pad")

anywhere: Any = st.one_of(
    st.just(lambda: ff.map(as_words)),
    st.just(lambda: ff.map(noisy, rng=True)),
    st.just(lambda: ff.filter(third)),
    st.just(lambda: ff.filter(coin, rng=True)),
    st.just(lambda: ff.filter_map(lambda datapoint: datapoint if third(datapoint) else None)),
    st.just(lambda: ff.flat_map(copies)),
    st.just(lambda: ff.flat_map(inner)),
    st.just(lambda: ff.enumerate()),
    st.just(lambda: ff.compose(ff.map(as_words), ff.map_component(len, 0))),
    st.just(lambda: ff.compose(ff.map(as_words), ff.select([0, 0]))),
    st.tuples(small, st.booleans()).map(lambda a: lambda: _batch(*a)),
    st.just(lambda: ff.compose(ff.map(as_words), ff.batch(2), ff.unbatch())),
    small.map(lambda n: lambda: ff.shuffle_buffer(n)),
    st.tuples(st.integers(1, 3), st.sampled_from([None, 7]), small, st.booleans()).map(
        lambda a: lambda: _planned_stage(*a)
    ),
    st.one_of(st.none(), st.integers(0, 4)).map(lambda n: lambda: ff.tap(repr, first=n)),
    st.just(lambda: ff.scan(running_sum, [0])),
    st.just(lambda: ff.take_while(early)),
    st.sampled_from([repr, kin]).map(lambda key: lambda: ff.unique(key=key)),
    st.tuples(
        st.sampled_from([copies, several, inner, shuffled_flow, filtered]), st.integers(1, 4), st.integers(1, 3)
    ).map(lambda a: lambda: ff.interleave(a[0], cycle=a[1], block=a[2])),
    small.map(lambda n: lambda: ff.repeat_each(n)),
    st.integers(0, ITEMS).map(lambda n: lambda: ff.take(n)),
    st.integers(0, 4).map(lambda n: lambda: ff.skip(n)),
    st.tuples(st.integers(0, 3), small).map(lambda a: lambda: ff.slice(a[0], None, a[1])),
    st.tuples(st.integers(0, 1), st.sampled_from(_REMAINDERS)).map(lambda a: lambda: ff.shard(a[0], 2, remainder=a[1])),
    st.integers(0, 3).map(lambda n: lambda: ff.repeat(n)),
    st.integers(0, 9).map(lambda seed: lambda: ff.freeze(seed=seed)),
    st.just(lambda: ff.cache()),
    st.just(lambda: ff.prefetch(2)),
    st.just(lambda: lambda iterator: iterator),
    st.just(lambda: _Doubled()),
    st.just(lambda: _Zipped()),
    st.integers(1, ITEMS).map(lambda n: lambda: _Epochs(n)),
)
seekable_only: Any = st.one_of(
    st.just(lambda: ff.shuffle()),
    small.map(lambda n: lambda: ff.shuffle(window=n)),
    st.just(lambda: ff.slice(None, None, -1)),
    st.tuples(st.integers(0, ITEMS), st.booleans(), st.booleans()).map(lambda a: lambda: _Sampled(*a)),
)


class _Step:
    """A step that needs to know its source."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __call__(self, source: Any) -> Flow[Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__.strip('_').lower()}{self.arguments}"


class _Doubled(_Step):
    """A flow joined to itself, the second time shuffled through a buffer."""

    def __call__(self, source: Any) -> Flow[Any]:
        return ff.concat(source, ff.pipe(source, ff.shuffle_buffer(2)))


class _Zipped(_Step):
    """A flow beside itself, augmented."""

    def __call__(self, source: Any) -> Flow[Any]:
        return ff.zip(source, ff.pipe(source, ff.map(noisy, rng=True)))


class _Epochs(_Step):
    """Epochs of a length of their own; an empty source has none, so it is given a datapoint."""

    def __call__(self, source: Any) -> Flow[Any]:
        (count,) = self.arguments
        return ff.epoch_of(count, ff.concat([["first"]], source))


class _Sampled(_Step):
    """Drawn from a flow, as many as there can be."""

    def __call__(self, source: Any) -> Flow[Any]:
        count, weighted, replacement = self.arguments
        n = len(source)
        weights = [kin(i) for i in range(n)] + [1]
        there = sum(map(bool, weights)) if weighted else n + 1
        return ff.sample(
            count if replacement else min(count, there),
            ff.concat(source, [["last"]]),
            weights=weights if weighted else None,
            replacement=replacement,
        )


def _after(before: RandomPipeline, step: Any) -> Any:
    return step(before())


@st.composite
def recipes(draw: Any, max_stages: int = 5) -> RandomPipeline:
    """A source and up to `max_stages` stages that fit it."""
    made = RandomPipeline(draw(sources), [])
    for _ in range(draw(st.integers(0, max_stages))):
        choices = st.one_of(anywhere, seekable_only) if made().seekable else anywhere
        stage = draw(choices)
        if isinstance(stage(), _Step):
            before, step = RandomPipeline(made.make_source, list(made.stages)), stage()
            made = RandomPipeline(partial(_after, before, step), [])
        else:
            made.stages.append(stage)
    return made
