"""Rebatching: the same rows in batches of another size, by slicing and joining, and where a pass can be resumed."""

import json
from collections import namedtuple
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Stream

import flowfn as ff
from flowfn.datapoints.padding import pad
from flowfn.testing import check, same
from flowfn.vocabulary.rebatching import rebatch

Pair = namedtuple("Pair", "x y")


@dataclass
class Record:
    x: np.ndarray
    y: list


def both(data):
    return [ff.flow(data), ff.flow(Stream(data))]


def test_batches_are_those_of_tf_data():
    """What Dataset.rebatch gives, run with TensorFlow 2.21."""
    for source in both(range(8)):
        assert [b.tolist() for b in ff.pipe(source, ff.batch(4), rebatch(3))] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    for source in both(range(10)):
        assert [b.tolist() for b in ff.pipe(source, ff.batch(3), rebatch(4, drop_remainder=True))] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
        ]


FORMS = {
    "array": lambda n, start: np.arange(start, start + n),
    "list": lambda n, start: [np.arange(start, start + n), [str(i) for i in range(start, start + n)]],
    "tuple": lambda n, start: (np.arange(start, start + n), np.ones((n, 2))),
    "namedtuple": lambda n, start: Pair(np.arange(start, start + n), [None] * n),
    "dict": lambda n, start: {
        "a": np.arange(start, start + n),
        "b": {"c": [str(i) for i in range(start, start + n)], "d": np.zeros((n, 0))},
    },
    "dataclass": lambda n, start: Record(np.arange(start, start + n), ["x"] * n),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@settings(deadline=None, derandomize=True, max_examples=40)
@given(sizes=st.lists(st.integers(0, 7), max_size=8), size=st.integers(1, 9), drop=st.booleans())
def test_rows_are_what_batching_them_anew_would_give(form, sizes, size, drop):
    starts = np.cumsum([0, *sizes]).tolist()
    batches = [form(n, start) for n, start in zip(sizes, starts)]
    expected = list(ff.pipe([form(sum(sizes), 0)], ff.unbatch(), ff.batch(size, drop_remainder=drop)))
    for source in both(batches):
        assert same(list(rebatch(size, source, drop_remainder=drop)), expected)


def test_what_comes_out_of_one_batch_is_a_view_of_it():
    array = np.arange(6)
    batches = list(rebatch(2, [[array]]))
    assert all(np.shares_memory(batch[0], array) for batch in batches)
    joined, *_ = rebatch(4, [[array[:3]], [array[3:]]])
    assert not np.shares_memory(joined[0], array)


def test_dtypes_that_differ_are_promoted_where_they_meet():
    first, second, third = rebatch(2, [np.zeros(3, np.int8), np.zeros(3, np.float32)])
    assert (first.dtype, second.dtype, third.dtype) == (np.int8, np.float32, np.float32)


def test_a_component_that_is_a_list_in_one_batch_is_one_where_they_meet():
    (batch,) = rebatch(4, [[[1, None]], [np.array([3, 4])]])
    assert batch == [[1, None, 3, 4]]


def test_the_order_of_keys_is_that_of_the_first_batch():
    (batch,) = rebatch(4, [{"a": np.zeros(2), "b": np.ones(2)}, {"b": np.ones(2), "a": np.zeros(2)}])
    assert same(batch, {"a": np.zeros(4), "b": np.ones(4)})


def test_batches_without_rows_are_left_out():
    assert [
        b.tolist()
        for b in rebatch(2, [np.zeros(0, int), np.arange(3), np.zeros(0, int), np.arange(1), np.zeros(0, int)])
    ] == [
        [0, 1],
        [2, 0],
    ]
    assert list(rebatch(2, [np.zeros(0)])) == list(rebatch(2, [])) == []


def test_padded_batches_of_different_widths_do_not_join():
    flow = ff.pipe([np.zeros(n) for n in (1, 2, 3)], ff.batch(2, collate=pad(0)), rebatch(3))
    with pytest.raises(
        ValueError, match=r"^rebatch\(\): cannot join arrays of shapes \(2, 2\), \(1, 3\); make their rows equal before"
    ):
        list(flow)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([[np.zeros(2), np.zeros(3)]], ValueError, r"the components of a batch have different lengths: \{0: 2, 1: 3\}"),
        (
            [{"a": {"b": [1]}, "c": [1, 2]}],
            ValueError,
            r"the components of a batch have different lengths: \{\('a', 'b'\): 1, 'c': 2\}",
        ),
        ([[np.zeros(2)], [np.zeros(2), np.zeros(2)]], ValueError, "batches must have the same components, got "),
        (
            [{"a": [1]}, {"b": [1]}],
            ValueError,
            r"batches must have the same components, got \{'a': \[1\]\} and \{'b': \[1\]\}",
        ),
        ([[[1]], ([1],)], ValueError, r"batches must have the same components, got \[\[1\]\] and \(\[1\],\)"),
        ([5], TypeError, "a batch is made of arrays and lists, one value for each row, got 5"),
        ([[5]], TypeError, "a batch is made of arrays and lists"),
        (["text"], TypeError, "a batch is made of arrays and lists"),
        ([["text"]], TypeError, "a batch is made of arrays and lists"),
        ([None], TypeError, "a batch is made of arrays and lists"),
        ([np.array(5)], TypeError, "a batch is made of arrays and lists"),
        ([[]], TypeError, r"a batch has at least one component, got \[\]"),
        ([{}], TypeError, r"a batch has at least one component, got \{\}"),
    ],
)
def test_what_is_no_batch_is_refused(batches, error, message):
    for source in both(batches):
        with pytest.raises(error, match=rf"^rebatch\(\): {message}"):
            list(rebatch(4, source))


def test_bad_arguments_fail_at_once_and_it_looks_like_its_call():
    with pytest.raises(ValueError, match=r"^rebatch\(\): size must be a positive integer, got 0$"):
        rebatch(0)
    with pytest.raises(TypeError, match=r"^rebatch\(\): drop_remainder must be True or False, got 1$"):
        rebatch(2, drop_remainder=1)
    assert repr(rebatch(3, drop_remainder=True)) == "rebatch(3, drop_remainder=True)"


# The laws, and resuming


def grown(datapoint, rng):
    return {"x": np.full(int(rng.integers(0, 6)), datapoint)}


def not_five(datapoint):
    return datapoint % 5 != 0


@pytest.mark.parametrize("size", [1, 3, 20])
@pytest.mark.parametrize("drop", [False, True])
def test_the_laws_hold(size, drop):
    for source in (range(16), Stream(range(16))):
        check(
            lambda: ff.pipe(source, ff.filter(not_five), ff.map(grown, rng=True), rebatch(size, drop_remainder=drop)),
            stops=20,
        )
    for n in (0, 1):
        check(lambda: ff.pipe(Stream(range(n)), ff.map(grown, rng=True), rebatch(size)), epochs=(0,))


def test_the_laws_hold_in_threads_and_processes():
    for source in (range(12), Stream(range(12))):
        check(
            lambda: ff.pipe(source, ff.map(grown, rng=True), rebatch(4), ff.map(len)),
            workers=({}, {"threads": 2}, {"processes": 2}),
            epochs=(0,),
            stops=4,
        )


@pytest.mark.parametrize(("given", "size", "most"), [(1000, 999, 2), (7, 3, 2), (3, 7, 4)])
def test_resuming_reads_only_what_is_not_used_up(given, size, most):
    count = [0]

    def counted(datapoint):
        count[0] += 1
        return np.arange(datapoint, datapoint + given)

    def flow_of():
        return ff.pipe(Stream(range(10**4)), ff.filter(bool), ff.map(counted), rebatch(size))

    with flow_of().run() as iterator:
        for _ in islice(iterator, 500):
            pass
        state = json.loads(json.dumps(iterator.state_dict()))
        expected = next(iterator)
    resumed = iter(flow_of().load_state_dict(state))
    count[0] = 0
    assert same(next(resumed), expected)
    assert count[0] <= most


def test_after_an_error_nothing_is_lost():
    def flow_of(broken):
        return ff.pipe(Stream([np.arange(3), np.arange(4) if not broken else 5, np.arange(2)]), rebatch(2))

    iterator = iter(flow_of(True))
    made = [next(iterator)]
    with pytest.raises(TypeError, match="a batch is made of arrays") as caught:
        next(iterator)
    with pytest.raises(TypeError, match="a batch is made of arrays"):
        ff.replay(flow_of(True), caught.value)
    made += flow_of(False).load_state_dict(iterator.state_dict())
    assert [b.tolist() for b in made] == [[0, 1], [2, 0], [1, 2], [3, 0], [1]]
