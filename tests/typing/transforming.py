"""The types of the words for one datapoint at a time."""

from typing import Any, NamedTuple, TypedDict, assert_type

import numpy as np
from numpy.typing import NDArray

import flowfn as ff

Image = NDArray[np.uint8]


class Sample(NamedTuple):
    path: str
    label: int


class Row(TypedDict):
    path: str
    label: int


def half(x: int) -> float:
    return x / 2


def noisy(x: float, rng: np.random.Generator) -> float:
    return x + rng.normal()


def coin(x: str, rng: np.random.Generator) -> bool:
    return rng.random() < 0.5


def number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def number_or_noise(text: str, rng: np.random.Generator) -> float | None:
    return rng.normal() if text else None


def repeated(x: int, rng: np.random.Generator) -> list[str]:
    return [str(x)] * int(rng.integers(3))


def read(path: str) -> Image:
    return np.zeros((2, 2), np.uint8)


def read_sample(sample: tuple[str, int]) -> tuple[Image, int]:
    return read(sample[0]), sample[1]


def maps() -> None:
    assert_type(ff.map(half, [1]), ff.Flow[float])
    assert_type(ff.map(half, source=[1]), ff.Flow[float])
    assert_type(ff.map(half)([1]), ff.Flow[float])
    assert_type(ff.map(lambda x: x / 2, [1]), ff.Flow[float])
    assert_type(ff.map(noisy, [1.5], rng=True, name="noise"), ff.Flow[float])
    assert_type(ff.pipe([1], ff.shuffle(), ff.map(half), ff.map(noisy, rng=True)), ff.Flow[float])
    assert_type(ff.pipe([1], ff.map(lambda x, rng: x + rng.normal(), rng=True)), ff.Flow[float])
    assert_type(ff.pipe([("a.jpg", 1)], ff.shuffle(), ff.map(read_sample)), ff.Flow[tuple[Image, int]])
    assert_type(ff.pipe([1.5], ff.map(ff.seeded(half), rng=True)), ff.Flow[float])


def filters() -> None:
    assert_type(ff.filter(str.isupper, ["A"]), ff.Flow[str])
    assert_type(ff.filter(coin, ["A"], rng=True), ff.Flow[str])
    assert_type(ff.pipe([1], ff.filter(lambda x: x > 1)), ff.Flow[int])
    assert_type(ff.pipe(["A"], ff.shuffle(), ff.filter(coin, rng=True), ff.map(str.lower)), ff.Flow[str])
    assert_type(ff.pipe([1], ff.shuffle(), ff.filter(lambda x: x > 1), ff.map(half)), ff.Flow[float])


def what_looks_at_anything_changes_no_type() -> None:
    assert_type(ff.pipe([1], ff.shuffle(), ff.filter(bool), ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe(["a"], ff.shuffle(), ff.filter(len), ff.map(str.upper)), ff.Flow[str])
    assert_type(ff.pipe([1], ff.shuffle(), ff.tap(print), ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe([1], ff.shuffle(), ff.take_while(bool), ff.map(half)), ff.Flow[float])


def what_looks_at_anything_keeps_its_type_alone_too() -> None:
    printed = ff.tap(print)
    assert_type(ff.pipe([1], ff.shuffle(), printed, ff.map(half)), ff.Flow[float])


def filter_maps() -> None:
    assert_type(ff.filter_map(number, ["1"]), ff.Flow[int])
    assert_type(ff.filter_map({"a": 1.5}.get, ["a", "b"]), ff.Flow[float])
    assert_type(ff.pipe(["1"], ff.shuffle(), ff.filter_map(number), ff.map(half)), ff.Flow[float])
    assert_type(ff.pipe(["1"], ff.filter_map(number_or_noise, rng=True)), ff.Flow[float])
    assert_type(ff.filter_map(number_or_noise, ["1"], rng=True), ff.Flow[float])
    assert_type(ff.filter_map(lambda text: len(text) or None, ["1"]), ff.Flow[int])
    large: ff.Flow[int] = ff.pipe([1], ff.filter_map(lambda x: x if x > 1 else None))  # Any for mypy
    assert_type(large, ff.Flow[int])


def flat_maps() -> None:
    assert_type(ff.flat_map(str.split, ["a b"]), ff.Flow[str])
    assert_type(ff.pipe(["a b"], ff.shuffle(), ff.flat_map(str.split), ff.map(len)), ff.Flow[int])
    assert_type(ff.pipe([1], ff.flat_map(repeated, rng=True)), ff.Flow[str])
    assert_type(ff.flat_map(repeated, [1], rng=True), ff.Flow[str])
    assert_type(ff.pipe([["a"]], ff.shuffle(), ff.flat_map(list), ff.map(str.upper)), ff.Flow[str])
    letters: ff.Flow[str] = ff.pipe([["a"]], ff.shuffle(), ff.flat_map(iter), ff.map(str.upper))
    assert_type(letters, ff.Flow[str])


def components_change_their_types() -> None:
    assert_type(ff.pipe([["a.jpg", 1]], ff.map_component(read, 0)), ff.Flow[list[Any]])
    assert_type(ff.pipe([("a.jpg", 1)], ff.map_component(read, 0)), ff.Flow[tuple[Any, Any]])
    assert_type(ff.pipe([("a.jpg", 1, 2)], ff.map_component(noisy, 1, rng=True)), ff.Flow[tuple[Any, Any, Any]])
    assert_type(ff.pipe([{"path": "a.jpg"}], ff.map_component(read, "path")), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([Row(path="a.jpg", label=1)], ff.map_component(read, "path")), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([Sample("a.jpg", 1)], ff.map_component(read, 0)), ff.Flow[Any])
    assert_type(ff.map_component(read, 0)([("a.jpg", 1)]), ff.Flow[tuple[Any, Any]])
    assert_type(ff.map_component(read, 0, [("a.jpg", 1)]), ff.Flow[tuple[Any, ...]])
    assert_type(ff.map_component(read, 0, [["a.jpg", 1]]), ff.Flow[list[Any]])
    assert_type(ff.map_component(read, "path", [{"path": "a.jpg"}], name="read"), ff.Flow[dict[str, Any]])
    read_in_a_pipe: ff.Flow[tuple[Image, int]] = ff.pipe([("a.jpg", 1)], ff.shuffle(), ff.map_component(read, 0))
    assert_type(read_in_a_pipe, ff.Flow[tuple[Image, int]])


def selections() -> None:
    assert_type(ff.pipe([["a", 1]], ff.select([1, 0])), ff.Flow[list[Any]])
    assert_type(ff.pipe([("a", 1, 2)], ff.select([1, 0])), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe([{"a": 1, "b": 2}], ff.select(["b"])), ff.Flow[dict[str, Any]])
    assert_type(ff.select(["b"], [{"a": 1, "b": 2}]), ff.Flow[dict[str, Any]])
    assert_type(ff.select([0], [Sample("a", 1)]), ff.Flow[tuple[Any, ...]])


def the_others() -> None:
    assert_type(ff.enumerate(["a"], start=1), ff.Flow[tuple[int, str]])
    assert_type(ff.pipe(["a"], ff.shuffle(), ff.enumerate(), ff.shuffle()), ff.Flow[tuple[int, str]])
    assert_type(ff.tap(print, ["a"], first=1), ff.Flow[str])
    assert_type(ff.pipe(["a"], ff.tap(lambda text: print(text.upper()))), ff.Flow[str])
    assert_type(ff.per_process(dict[str, int])(), dict[str, int])
