"""Sequences before they are packed: too long ones in parts, and what stands at the ends."""

from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources import Stream

import flowfn as ff
from flowfn.testing import check, same

Pair = namedtuple("Pair", "tokens name")


def test_parts_begin_with_the_end_of_the_former():
    assert ff.split_long(4)([*range(6)]) == [[0, 1, 2, 3], [4, 5]]
    assert ff.split_long(4, overlap=2)([*range(8)]) == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert ff.split_long(6)([*range(6)]) == [[*range(6)]]
    assert same(
        ff.split_long(2)(np.arange(3, dtype=np.uint16)), [np.array([0, 1], np.uint16), np.array([2], np.uint16)]
    )


def test_parts_are_those_of_a_tokenizer_that_truncates():
    """What `tokenizers` 0.23 gives for ten words with enable_truncation(4, stride=1), the overflowing ones included."""
    assert ff.split_long(4, overlap=1)([*range(10)]) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert ff.split_long(5, overlap=2)([*range(10)]) == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 9]]


@given(st.integers(0, 40), st.integers(1, 10), st.integers(0, 9))
def test_every_element_counts_once(n, length, overlap):
    overlap = min(overlap, length - 1)
    parts = ff.split_long(length, overlap=overlap, mask=True)(np.arange(n))
    assert all(len(tokens) == len(mask) <= length and mask.dtype == bool for tokens, mask in parts)
    assert np.concatenate([tokens[mask] for tokens, mask in parts]).tolist() == [*range(n)]
    assert all(mask[:overlap].sum() == 0 and mask[overlap:].all() for _, mask in parts[1:])
    assert all(len(tokens) == length for tokens, _ in parts[:-1])


def test_components_are_split_alike_and_the_rest_comes_along():
    datapoint = {"tokens": np.arange(5), "vectors": np.ones((5, 2)), "name": "a", "weight": np.float32(2)}
    first, second = ff.split_long(3)(datapoint)
    assert (first["tokens"].tolist(), second["tokens"].tolist()) == ([0, 1, 2], [3, 4])
    assert (second["vectors"].shape, second["name"], second["weight"]) == ((2, 2), "a", 2)
    assert ff.split_long(2)(Pair([1, 2, 3], "b")) == [Pair([1, 2], "b"), Pair([3], "b")]
    assert ff.split_long(2)(["c", [1, 2, 3]]) == [["c", [1, 2]], ["c", [3]]]
    assert ff.split_long(2)(datapoint | {"tokens": [0]} | {"vectors": [[1, 2]]})[0]["tokens"] == [0]


def test_a_mask_that_is_there_is_kept():
    parts = ff.split_long(3, overlap=1, mask="loss")({"tokens": [*range(5)], "loss": [0, 1, 1, 1, 1]})
    assert [part["loss"].tolist() for part in parts] == [[0, 1, 1], [0, 1, 1]]
    (whole,) = ff.split_long(9, mask=True)({"tokens": [1, 2]})
    assert same(whole, {"tokens": [1, 2], "loss_mask": np.ones(2, bool)})
    assert same(ff.split_long(2, mask=True)([[1, 2], [3, 4]]), [[[1, 2], [3, 4], np.ones(2, bool)]])


def test_ends_are_put_to_sequences():
    assert ff.with_ends(1, 2)([7]) == [1, 7, 2]
    assert ff.with_ends(last=2)([]) == [2]
    assert ff.with_ends()([7]) == [7]
    assert same(ff.with_ends(0, 9)(np.ones((1, 2))), np.array([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]]))
    assert ff.with_ends([1, 0], [2, 5])(([7], "name", [8])) == ([1, 7, 2], "name", [0, 8, 5])
    assert ff.with_ends(first={"x": 1})({"x": [3], "y": [4], "n": 5}) == {"x": [1, 3], "y": [0, 4], "n": 5}
    assert ff.with_ends(1)(Pair((7,), "n")) == Pair((1, 7), "n")


def test_nothing_that_comes_in_is_changed():
    tokens, lists = np.arange(3), {"x": [1, 2, 3]}
    ff.with_ends(1, 2)(tokens), ff.with_ends(1, 2)(lists), ff.split_long(2, mask=True)(lists)
    assert (tokens.tolist(), lists) == ([0, 1, 2], {"x": [1, 2, 3]})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.split_long(0), ValueError, r"split_long\(\): length must be a positive integer, got 0"),
        (lambda: ff.split_long(2, overlap=-1), ValueError, r"split_long\(\): overlap must be an integer >= 0, got -1"),
        (
            lambda: ff.split_long(2, overlap=2),
            ValueError,
            r"overlap must be less than length, got overlap=2 and length=2",
        ),
        (lambda: ff.split_long(2, mask=3), TypeError, r"split_long\(\): mask must be True, False or a name, got 3"),
        (lambda: ff.split_long(2)("text"), ValueError, r"split_long\(\): a sequence is an array .* none in 'text'"),
        (lambda: ff.split_long(2)({"x": 1}), ValueError, "there is none in {'x': 1}"),
        (lambda: ff.split_long(2)({"x": [1], "y": [1, 2]}), ValueError, r"equally long, got lengths {'x': 1, 'y': 2}"),
        (lambda: ff.split_long(1, mask=True)(Pair([1], "")), TypeError, "there is no place for a mask in Pair"),
        (lambda: ff.with_ends(np.ones(2)), TypeError, r"with_ends\(\): first must be one value"),
        (
            lambda: ff.with_ends(300)(np.ones(1, np.uint8)),
            ValueError,
            r"with_ends\(\): value must fit .* 300 is no uint8",
        ),
        (lambda: ff.with_ends({"y": 1})({"x": [1]}), ValueError, r"it names 'y', but the sequences .* are \['x'\]"),
        (lambda: ff.with_ends([1, 2])([[1]]), ValueError, "there are 2 values, but a datapoint has 1 sequences"),
        (lambda: ff.pipe([[1]], ff.split_long(2)), TypeError, r"flat_map\(split_long\(length\)\)"),
        (lambda: ff.pipe([[1]], ff.with_ends(2)), TypeError, r"map\(with_ends\(first, last\)\)"),
    ],
)
def test_what_cannot_be_done_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_how_it_looks():
    assert repr(ff.split_long(8)) == "split_long(8)"
    assert repr(ff.split_long(8, overlap=2, mask="m")) == "split_long(8, overlap=2, mask='m')"
    assert repr(ff.flat_map(ff.split_long(8))) == "flat_map(split_long(8))"
    assert repr(ff.with_ends(1, last={"x": 2})) == "with_ends(first=1, last={'x': 2})"


def test_the_order_of_the_words_says_where_ends_are():
    data = [np.array([7, 8, 9], np.uint16)]
    each_text = ff.pipe(data, ff.map(ff.with_ends(1, 2)), ff.flat_map(ff.split_long(3)))
    each_part = ff.pipe(data, ff.flat_map(ff.split_long(2)), ff.map(ff.with_ends(1, 2)))
    assert [part.tolist() for part in each_text] == [[1, 7, 8], [9, 2]]
    assert [part.tolist() for part in each_part] == [[1, 7, 8, 2], [1, 9, 2]]


def as_text(n):
    return {"tokens": np.arange(n), "name": str(n)}


@pytest.mark.parametrize("source", [range(12), Stream(range(12))], ids=type)
def test_the_laws_hold_from_texts_to_rows(source):
    check(
        lambda: ff.pipe(
            source,
            ff.map(as_text),
            ff.map(ff.with_ends({"tokens": 1}, {"tokens": 2})),
            ff.flat_map(ff.split_long(5, overlap=2, mask="counts")),
            ff.pack(8, keep="name"),
        ),
        stops=8,
    )


def test_the_laws_hold_for_them_in_threads_and_processes():
    check(
        lambda: ff.pipe(range(12), ff.map(as_text), ff.map(ff.with_ends(1)), ff.flat_map(ff.split_long(5, mask=True))),
        workers=({}, {"threads": 2}, {"processes": 2}),
        epochs=(0,),
        stops=4,
    )


def test_what_is_for_another_word_is_told():
    with pytest.raises(
        TypeError, match=r"^map\(\): f must be a function, got split_long\(4\); write flat_map\(split_long"
    ):
        ff.map(ff.split_long(4))
    with pytest.raises(
        TypeError, match=r"^flat_map\(\): f must be a function, got with_ends\(.*\); write map\(with_ends"
    ):
        ff.flat_map(ff.with_ends(1, 2))
    assert list(ff.map_component(ff.with_ends(1), "x", [{"x": [2], "y": [3]}])) == [{"x": [1, 2], "y": [3]}]
