"""The types of the words for batches: a batch has the form of its datapoints.

mypy knows that form where the stage comes first in its pipe, or is called on its source; elsewhere it says Any, which
an annotated variable makes precise.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, assert_type

import numpy as np
from numpy.typing import NDArray

import flowfn as ff

Image = NDArray[np.uint8]
Array = NDArray[Any]


class Sample(NamedTuple):
    image: Image
    label: int


class Row(TypedDict):
    image: Image
    label: int


@dataclass
class Record:
    image: Image
    label: int


def half(x: int) -> float:
    return x / 2


def read(path: str) -> Image:
    return np.zeros((2, 2), np.uint8)


def batches(image: Image, sample: Sample, row: Row, record: Record) -> None:
    assert_type(ff.pipe([1], ff.batch(2)), ff.Flow[Array])
    assert_type(ff.pipe([1.5, True], ff.batch(2)), ff.Flow[Array])
    assert_type(ff.pipe([image], ff.batch(2)), ff.Flow[Array])
    assert_type(ff.pipe(["a"], ff.batch(2)), ff.Flow[list[str]])
    assert_type(ff.pipe([b"a"], ff.batch(2)), ff.Flow[list[bytes]])
    assert_type(ff.pipe([[image, 1]], ff.batch(2)), ff.Flow[list[Any]])
    assert_type(ff.pipe([(image, 1)], ff.batch(2)), ff.Flow[tuple[Any, Any]])
    assert_type(ff.pipe([(image, 1, "a")], ff.batch(2)), ff.Flow[tuple[Any, Any, Any]])
    assert_type(ff.pipe([(image, 1, "a", 2, 3)], ff.batch(2)), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe([{"x": 1}], ff.batch(2)), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([row], ff.batch(2)), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([sample], ff.batch(2)), ff.Flow[Any])
    assert_type(ff.pipe([record], ff.batch(2)), ff.Flow[Any])
    assert_type(ff.pipe(ff.from_arrays([1], [2]), ff.batch(2)), ff.Flow[list[Any]])
    assert_type(ff.pipe(ff.from_arrays(x=[1]), ff.batch(2)), ff.Flow[dict[str, Any]])


def batches_by_themselves(image: Image) -> None:
    assert_type(ff.batch(2)([1]), ff.Flow[Array])
    assert_type(ff.batch(2, [1]), ff.Flow[Array])
    assert_type(ff.batch(2, source=[image], drop_remainder=True), ff.Flow[Array])
    assert_type(ff.batch(2, ["a"]), ff.Flow[list[str]])
    assert_type(ff.batch(2, [(image, 1)]), ff.Flow[tuple[Any, Any]])
    assert_type(ff.batch(2, [[image, 1]]), ff.Flow[list[Any]])
    assert_type(ff.batch(2, [{"x": 1}]), ff.Flow[dict[str, Any]])
    assert_type(ff.batch(2, ff.map(half, [1])), ff.Flow[Array])


def batches_in_a_pipe() -> None:
    numbers: ff.Flow[Array] = ff.pipe([1, 2, 3], ff.map(half), ff.batch(2))
    words: ff.Flow[list[str]] = ff.pipe([1, 2, 3], ff.shuffle(), ff.map(str), ff.batch(2), ff.prefetch(2))
    samples: ff.Flow[tuple[Image, Array]] = ff.pipe(
        [("a.jpg", 1)], ff.shuffle(), ff.map_component(read, 0), ff.batch(128), ff.prefetch(4)
    )
    for images, labels in samples:
        assert_type(images, Image)
        assert_type(labels, Array)
    first = ff.pipe([1, 2, 3], ff.shuffle(), ff.map(half))
    assert_type(ff.pipe(first, ff.batch(2), ff.shuffle(), ff.prefetch(2)), ff.Flow[Array])
    assert_type(ff.pipe(first, ff.batch(2), ff.map(np.sum)), ff.Flow[Any])
    assert_type((numbers, words), tuple[ff.Flow[Array], ff.Flow[list[str]]])


def how_they_are_collated(image: Image) -> None:
    assert_type(
        ff.pipe([(image, 1)], ff.shuffle(), ff.batch(2, collate=None), ff.shuffle()), ff.Flow[list[tuple[Image, int]]]
    )
    assert_type(ff.batch(2, ["a"], collate=None), ff.Flow[list[str]])
    assert_type(ff.batch(2, [(image, 1)], collate=ff.as_list), ff.Flow[tuple[Any, ...]])
    assert_type(ff.batch(2, [[image, 1]], collate=[ff.pad(0), ff.stack]), ff.Flow[list[Any]])
    assert_type(ff.batch(2, [{"image": image}], collate={"image": ff.pad(0, multiple=8)}), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([{"image": image}], ff.batch(2, collate={"image": ff.as_list})), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([(image, 1)], ff.batch(2, collate=ff.as_list)), ff.Flow[tuple[Any, Any]])
    assert_type(ff.pipe([1], ff.batch(2, collate=ff.as_list)), ff.Flow[Any])
    assert_type(ff.batch(2, [1], collate=ff.as_list), ff.Flow[Any])


def what_is_real_beside_what_was_padded(image: Image) -> None:
    with_mask = ff.pad(0, mask=True, lengths="n")
    assert_type(ff.pipe([{"ids": [1]}], ff.batch(2, collate=with_mask)), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([{"ids": [1]}], ff.batch(2, collate={"ids": with_mask})), ff.Flow[dict[str, Any]])
    assert_type(ff.pipe([(image, 1)], ff.batch(2, collate=with_mask)), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe([(image, 1)], ff.batch(2, collate=[with_mask, ff.stack])), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe([image], ff.batch(2, collate=with_mask)), ff.Flow[Any])
    assert_type(ff.batch(2, [(image, 1)], collate=with_mask), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe([(image, 1)], ff.window(2, collate=with_mask)), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe([(image, 1)], ff.batch_by_key(lambda d: d[1], 4, collate=with_mask)), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe([(image, 1)], ff.batch_by_length(0, tokens=9, collate=with_mask)), ff.Flow[tuple[Any, ...]])


def windows() -> None:
    assert_type(ff.pipe([1], ff.window(3, step=2)), ff.Flow[Array])
    assert_type(ff.window(3, step=2)([1]), ff.Flow[Array])
    assert_type(ff.pipe([1], ff.shuffle(), ff.window(3, collate=None)), ff.Flow[list[int]])
    assert_type(ff.window(3, [1], collate=None), ff.Flow[list[int]])
    assert_type(ff.window(3, [1], drop_remainder=True), ff.Flow[Any])


def batches_of_like_datapoints(image: Image) -> None:
    assert_type(ff.pipe([image], ff.batch_by_key(ff.shape_of(), 4)), ff.Flow[Array])
    assert_type(ff.pipe([(image, 1)], ff.batch_by_key(lambda d: d[1], 4)), ff.Flow[tuple[Any, Any]])
    assert_type(ff.pipe(["a"], ff.shuffle(), ff.batch_by_key(len, 4, collate=None)), ff.Flow[list[str]])
    assert_type(ff.batch_by_key(len, 4, ["a"], collate=None), ff.Flow[list[str]])
    assert_type(ff.batch_by_key(len, 4, ["a"]), ff.Flow[Any])
    assert_type(ff.pipe([{"x": [1]}], ff.batch_by_length("x", tokens=100)), ff.Flow[dict[str, Any]])
    assert_type(
        ff.pipe([{"x": [1]}], ff.batch_by_length("x", tokens=9, collate=None)), ff.Flow[list[dict[str, list[int]]]]
    )
    assert_type(
        ff.batch_by_length(len, ["a"], boundaries=[4], sizes=[2], pad_to="bucket", collate=None), ff.Flow[list[str]]
    )


def batches_planned_for_all_ranks() -> None:
    assert_type(ff.pipe(["a"], ff.batch_by_cost(lambda n: n * n, ranks=8, size=64)), ff.Flow[Any])
    assert_type(ff.batch_by_cost(np.square, ["a"], ranks=8, tokens=512, collate=None), ff.Flow[Any])
    assert_type(ff.balance(ff.batch_by_cost(np.square, ["a"], ranks=8, tokens=512), steps=None).imbalance, np.ndarray)
    assert_type(ff.pack(512, [[1, 2]], how=functools.partial(ff.balanced_fit, ranks=8)), ff.Flow[list[Any]])


def plan_first_and_load_later() -> None:
    lists = ff.pipe(["a.jpg"], ff.shuffle(), ff.batch(2, collate=None))
    assert_type(lists, ff.Flow[list[str]])
    assert_type(ff.pipe(lists, ff.inside(ff.map(read))), ff.Flow[list[Image]])
    assert_type(ff.pipe(lists, ff.inside(ff.shuffle(), ff.map(read), name="load")), ff.Flow[list[Image]])
    assert_type(ff.pipe(lists, ff.inside(ff.shuffle(), ff.map(read), ff.map(len))), ff.Flow[list[int]])
    assert_type(ff.pipe(lists, ff.inside(ff.map(read)), ff.collate(ff.pad(0))), ff.Flow[Any])
    assert_type(ff.collate(ff.stack, lists), ff.Flow[Any])
    assert_type(ff.collate(source=lists), ff.Flow[Any])


def batches_taken_apart_and_made_anew(image: Image) -> None:
    pairs = ff.batch(2, [(image, 1)])
    assert_type(ff.pipe(pairs, ff.unbatch()), ff.Flow[tuple[Any, Any]])
    assert_type(ff.unbatch([{"x": [1, 2]}]), ff.Flow[dict[str, Any]])
    assert_type(ff.unbatch([image]), ff.Flow[Any])
    assert_type(ff.rebatch(4, pairs), ff.Flow[tuple[Any, Any]])
    assert_type(ff.pipe([1], ff.batch(2), ff.rebatch(4, drop_remainder=True)), ff.Flow[Array])


def packed_rows_and_masks(tokens: Sequence[int]) -> None:
    assert_type(ff.pipe([{"inputs": tokens}], ff.pack(512)), ff.Flow[dict[str, Any]])
    assert_type(ff.pack(512, [[1, 2]], how=ff.best_fit), ff.Flow[list[Any]])
    assert_type(
        ff.pipe([{"inputs": tokens, "from": "web"}], ff.pack(512, keep="from", multiple=8)), ff.Flow[dict[str, Any]]
    )
    assert_type(ff.pack(512, [[1, 2]], ranks=8, cost=lambda n: n + n * n), ff.Flow[list[Any]])
    assert_type(ff.cu_seqlens([1, 1, 2]), tuple[np.ndarray, int])
    assert_type(ff.pipe([tokens], ff.map(ff.with_ends(1, 2)), ff.flat_map(ff.split_long(8, overlap=2))), ff.Flow[Any])
    assert_type(ff.pipe([{"x": 1}], ff.pad_to_multiple(8, mask="real")), ff.Flow[dict[str, Any]])
    assert_type(ff.pad_to_multiple(8, [("a", 1)]), ff.Flow[tuple[Any, ...]])
