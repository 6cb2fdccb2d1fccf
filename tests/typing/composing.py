"""What `flow`, `pipe` and `compose` know of the datapoints, from the source to the end;
checked by mypy and pyright, never run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar, assert_type

import numpy as np
from numpy.typing import NDArray

import flowfn as ff

T = TypeVar("T")


def half(x: int) -> float:
    return x / 2


def shown(x: float) -> str:
    return f"{x:.2f}"


def same(x: T) -> T:
    return x


def first(x: Sequence[T]) -> T:
    return x[0]


def neighbours(source: Iterable[int]) -> Iterator[tuple[int, int]]:
    yield from pairwise(source)


class Indexed:
    """A data set as torch knows them: a length and integer indices, no iterator."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> str:
        return "abc"[index]


class Old:
    """A sequence as Python knew them before it had iterators."""

    def __getitem__(self, index: int) -> float:
        return [1.5][index]


class DataFlow:
    """A source in tensorpack's style."""

    def reset_state(self) -> None: ...

    def get_data(self) -> Iterator[bytes]:
        yield b""

    def size(self) -> int:
        return 1


def numbers_of_epoch(*, epoch: int, rng: np.random.Generator, start: int) -> Iterator[int]:
    yield from range(start, epoch)


def sources() -> None:
    assert_type(ff.flow([1, 2]), ff.Flow[int])
    assert_type(ff.flow((1, "a") for _ in range(3)), ff.Flow[tuple[int, str]])
    assert_type(ff.flow(Indexed()), ff.Flow[str])
    assert_type(ff.flow(Old()), ff.Flow[float])
    assert_type(ff.flow(DataFlow()), ff.Flow[bytes])
    assert_type(ff.flow(numbers_of_epoch), ff.Flow[int])
    assert_type(ff.flow(lambda: ["a"]), ff.Flow[str])
    assert_type(ff.flow(np.zeros((2, 3))), ff.Flow[Any])
    assert_type(ff.flow(ff.flow([1])), ff.Flow[int])
    assert_type(ff.from_arrays(np.zeros((2, 3)), [0, 1]), ff.Flow[list[Any]])
    assert_type(ff.from_arrays(x=np.zeros((2, 3)), y=[0, 1]), ff.Flow[dict[str, Any]])
    assert_type(ff.files("*.jpg"), ff.Flow[str])
    assert_type(ff.fake((3, 4), 10), ff.Flow[NDArray[Any]])
    assert_type(ff.fake([(3, 4), ()]), ff.Flow[list[NDArray[Any]]])
    assert_type(ff.fake({"x": (3, 4)}, None, random=False), ff.Flow[dict[str, NDArray[Any]]])


def reading_a_flow() -> None:
    flow = ff.flow([1, 2])
    assert_type(flow[0], int)
    assert_type(flow[1:], ff.Flow[int])
    assert_type(iter(flow), ff.FlowIterator[int])
    assert_type(next(iter(flow)), int)
    assert_type(flow.run(epoch=3), ff.FlowIterator[int])
    assert_type(flow.reset_state(1).set_epoch(2), ff.Flow[int])
    assert_type(flow.load_state_dict(flow.state_dict()), ff.Flow[int])
    assert_type(len(flow), int)
    assert_type(list(flow), list[int])
    with flow.run() as datapoints:
        assert_type(datapoints.position, int)
        for datapoint in datapoints:
            assert_type(datapoint, int)


def a_flow_of_a_subclass_is_a_flow(flow: ff.Flow[bool]) -> ff.Flow[int]:
    return flow


def pipes() -> None:
    assert_type(ff.pipe([1, 2]), ff.Flow[int])
    assert_type(ff.pipe([1, 2], ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe(Indexed(), ff.shuffle(), ff.map(len)), ff.Flow[int])
    assert_type(ff.pipe(numbers_of_epoch, ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe([1, 2], ff.shuffle(), ff.map(half), ff.cache(), ff.map(shown), ff.prefetch(2)), ff.Flow[str])
    assert_type(ff.pipe(ff.pipe([1, 2], ff.map(half)), ff.map(shown)), ff.Flow[str])


def a_plain_function_of_an_iterable_is_a_stage() -> None:
    assert_type(ff.pipe([1, 2], neighbours), ff.Flow[tuple[int, int]])
    assert_type(ff.pipe([1, 2], neighbours, ff.shuffle(), ff.map(first)), ff.Flow[int])
    assert_type(ff.pipe(["a"], ff.shuffle(), enumerate), ff.Flow[tuple[int, str]])


def none_is_no_stage(train: bool) -> None:
    assert_type(ff.pipe([1, 2], ff.shuffle() if train else None, ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe([1, 2], ff.map(half), ff.shuffle() if train else None), ff.Flow[float])
    assert_type(ff.pipe([1, 2], ff.map(half), ff.prefetch(2) if train else None, ff.map(shown)), ff.Flow[str])


def generic_functions_take_the_type_that_comes() -> None:
    assert_type(ff.pipe([1, 2], ff.shuffle(), ff.map(same), ff.map(half), ff.map(same)), ff.Flow[float])
    assert_type(ff.pipe([["a"]], ff.shuffle(), ff.map(first), ff.map(str.upper)), ff.Flow[str])
    assert_type(ff.pipe([-1, 2], ff.shuffle(), ff.map(abs), ff.map(float), ff.map(str), ff.map(len)), ff.Flow[int])


def lambdas_take_the_type_that_comes() -> None:
    assert_type(ff.pipe([1, 2], ff.map(lambda x: x / 2)), ff.Flow[float])
    assert_type(ff.pipe([1, 2], ff.map(half), ff.filter(lambda x: x.is_integer()), ff.map(shown)), ff.Flow[str])
    flow: ff.Flow[bool] = ff.pipe([1, 2], ff.shuffle(), ff.map(half), ff.map(lambda x: x.is_integer()))  # Any for mypy
    assert_type(flow, ff.Flow[bool])


def a_lambda_alone_takes_anything() -> None:
    halves = ff.map(lambda x: x / 2)
    flow: ff.Flow[float] = ff.pipe([1, 2], halves)
    assert_type(flow, ff.Flow[float])


def up_to_ten_stages_are_followed() -> None:
    number: Callable[[Iterable[float]], ff.Flow[float]] = ff.shuffle()
    ten = ff.pipe([1], ff.map(half), number, number, number, number, number, number, number, number, ff.map(shown))
    assert_type(ten, ff.Flow[str])
    eleven = ff.pipe(
        [1], ff.map(half), number, number, number, number, number, number, number, number, number, ff.map(shown)
    )
    assert_type(eleven, ff.Flow[Any])
    composed = ff.compose(number, number, number, number, number, number, number, number, number)
    assert_type(ff.pipe([1], ff.map(half), composed, ff.map(shown)), ff.Flow[str])


def compositions(train: bool) -> None:
    assert_type(ff.pipe([1], ff.compose(), ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe([1], ff.compose(ff.map(half), ff.shuffle(), ff.map(shown))), ff.Flow[str])
    assert_type(ff.pipe([1], ff.compose(ff.shuffle(), ff.cache())), ff.Flow[int])
    assert_type(ff.pipe([1], ff.map(half), ff.compose(ff.shuffle(), ff.map(shown)), ff.map(len)), ff.Flow[int])
    assert_type(ff.compose(ff.map(half), ff.map(shown))([1]), ff.Flow[str])
    assert_type(ff.pipe([1], ff.compose(ff.map(half), ff.shuffle() if train else None)), ff.Flow[float])


def augmented(strength: float) -> Callable[[Iterable[float]], ff.Flow[float]]:
    """A function that returns a stage says so like this."""

    def louder(x: float, rng: np.random.Generator) -> float:
        return x + rng.normal(scale=strength)

    return ff.compose(ff.map(louder, rng=True), ff.filter(bool))


def functions_that_return_stages() -> None:
    assert_type(ff.pipe([1], ff.map(half), augmented(0.1), ff.map(shown)), ff.Flow[str])
