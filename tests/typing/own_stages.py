"""How one writes a stage of one's own with types: an overload without its source, one with it,
and the decorated function."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, assert_type, overload

import numpy as np

import flowfn as ff

T = TypeVar("T")


@overload
def scale(factor: float) -> Callable[[Iterable[int]], ff.Flow[float]]: ...
@overload
def scale(factor: float, source: Iterable[int]) -> ff.Flow[float]: ...
@ff.stage.each
def scale(factor: float, source: Iterable[int]) -> Iterator[float]:
    """Multiply every number."""
    for number in source:
        yield number * factor


@overload
def jitter(*, strength: float = 1.0) -> Callable[[Iterable[float]], ff.Flow[float]]: ...
@overload
def jitter(source: Iterable[float], *, strength: float = 1.0) -> ff.Flow[float]: ...
@ff.stage.each
def jitter(source: Iterable[float], *, strength: float = 1.0, rngs: Iterable[np.random.Generator]) -> Iterator[float]:
    """Add noise: what a stage asks for is no argument of its callers."""
    for number, rng in zip(source, rngs):
        yield number + strength * rng.normal()


@overload
def every(step: int) -> Callable[[Iterable[T]], ff.Flow[T]]: ...
@overload
def every(step: int, source: Iterable[T]) -> ff.Flow[T]: ...
@ff.stage.order
def every(step: int, n: int) -> range:
    """Every `step`-th datapoint, whatever it is."""
    return range(0, n, step)


@overload
def pairs() -> Callable[[Iterable[T]], ff.Flow[tuple[T, T]]]: ...
@overload
def pairs(source: Iterable[T]) -> ff.Flow[tuple[T, T]]: ...
@ff.stage.group(size=2, whole=True)
def pairs(source: Iterable[list[T]]) -> Iterator[tuple[T, T]]:
    """Neighbours two by two, the later one first."""
    for one, other in source:
        yield other, one


@ff.stage
def untyped(source: Iterable[int]) -> Iterator[int]:
    """Without overloads a stage fits everywhere, and what comes out is not known."""
    yield from source


def own_stages_are_like_the_others() -> None:
    assert_type(scale(0.5, [1, 2]), ff.Flow[float])
    assert_type(
        ff.pipe([1, 2], ff.shuffle(), scale(0.5), jitter(strength=0.1), every(2), pairs()), ff.Flow[tuple[float, float]]
    )
    assert_type(pairs(every(2, ["a", "b"])), ff.Flow[tuple[str, str]])
    assert_type(jitter([1.5]), ff.Flow[float])


def a_stage_without_types_is_any() -> None:
    assert_type(ff.pipe(["a"], untyped(), ff.map(float.is_integer)), ff.Flow[bool])
