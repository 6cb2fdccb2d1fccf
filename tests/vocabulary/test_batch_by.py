"""Batches by key and by length: which datapoints come together, when, and where a pass can be resumed."""

import json
import math
import pickle
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Stream

import flowfn as ff
from flowfn.datapoints.padding import pad
from flowfn.testing import check, same
from flowfn.vocabulary.bucketing import batch_by_key, batch_by_length, shape_of


def both(data):
    return [ff.flow(data), ff.flow(Stream(data))]


def lists(flow):
    return [batch.tolist() for batch in flow]


def parity(number):
    return number % 2


def third(number):
    return number % 3


# By key


def test_batches_by_key_are_those_of_group_by_window():
    """Its documented example, and another, run with TensorFlow 2.21."""
    for source in both(range(10)):
        assert lists(batch_by_key(parity, 5, source)) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
        assert lists(batch_by_key(third, 2, source)) == [[0, 3], [1, 4], [2, 5], [6, 9], [7], [8]]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4)), st.integers(1, 4), st.booleans())
def test_every_batch_has_one_key_and_full_ones_come_first(keys, size, drop):
    data = list(enumerate(keys))
    batches = list(batch_by_key(lambda pair: pair[1], size, data, drop_remainder=drop, collate=None))
    assert all(len({key for _, key in batch}) == 1 for batch in batches)
    for key in set(keys):
        mine = [pair for batch in batches if batch[0][1] == key for pair in batch]
        whole = [pair for pair in data if pair[1] == key]
        assert mine == whole[: len(whole) // size * size if drop else None]
    full = [len(batch) == size for batch in batches]
    assert full == sorted(full, reverse=True)
    assert [batch[-1] for batch in batches[: sum(full)]] == sorted(
        batch[-1] for batch in batches[: sum(full)]
    )  # as soon as it is full
    assert [batch[0] for batch in batches[sum(full) :]] == sorted(batch[0] for batch in batches[sum(full) :])


def test_what_is_left_comes_in_order_of_the_first_that_waits():
    assert list(batch_by_key(str.lower, 2, ["a", "b", "A", "c", "B", "d", "b"], collate=None)) == [
        ["a", "A"],
        ["b", "B"],
        ["c"],
        ["d"],
        ["b"],
    ]


def test_images_are_batched_by_their_shape():
    images = [np.zeros((n % 2 + 1, 2)) for n in range(5)]
    assert [b.shape for b in batch_by_key(shape_of(), 2, images)] == [(2, 1, 2), (2, 2, 2), (1, 1, 2)]
    data = [{"image": image, "label": n} for n, image in enumerate(images)]
    assert [b["label"].tolist() for b in batch_by_key(shape_of("image"), 2, data)] == [[0, 2], [1, 3], [4]]
    assert [b[1].tolist() for b in batch_by_key(shape_of(0), 2, [[d["image"], d["label"]] for d in data])] == [
        [0, 2],
        [1, 3],
        [4],
    ]


def test_shape_of_is_a_value():
    assert shape_of("x") == pickle.loads(pickle.dumps(shape_of("x"))) != shape_of()
    assert (repr(shape_of()), repr(shape_of("x")), repr(shape_of(0))) == ("shape_of()", "shape_of('x')", "shape_of(0)")
    assert shape_of()([[1, 2], [3, 4]]) == (2, 2)
    assert shape_of()(5) == ()
    with pytest.raises(KeyError, match="no component 'y'"):
        shape_of("y")({"x": 1})


@pytest.mark.parametrize("key", [list, lambda number: np.zeros(1), lambda number: {}])
def test_keys_have_to_be_hashable(key):
    with pytest.raises(
        TypeError,
        match=r"^batch_by_key\(\): keys must be hashable, got .*; let key return a string, a number or a tuple",
    ):
        list(batch_by_key(key, 2, [[1]]))


def test_batches_by_key_are_collated_as_batch_does():
    data = [[n, [n] * n] for n in range(4)]
    (batch, *_) = batch_by_key(lambda d: d[0] % 2, 2, data, collate=[ff.stack, pad(-1)])
    assert same(batch, [np.array([0, 2]), np.array([[-1, -1], [2, 2]])])
    assert list(batch_by_key(lambda d: None, 3, [None, None], collate=None)) == [[None, None]]


def test_only_what_waits_is_held():
    endless = ff.cycle(range(7))
    assert len(list(islice(batch_by_key(third, 50, endless), 200))) == 200


# By length. Against tf.data: Dataset.bucket_by_sequence_length, whose bounds are exclusive (its [3, 5] is our [2, 4]),
# run with TensorFlow 2.21.

DOCUMENTED = [[0], [1, 2, 3, 4], [5, 6, 7], [7, 8, 9, 10, 11], [13, 14, 15, 16, 19, 20], [21, 22]]


def test_batches_by_length_are_those_of_bucket_by_sequence_length():
    for source in both([np.array(row) for row in DOCUMENTED]):
        assert lists(batch_by_length(len, source, boundaries=[2, 4], sizes=[2, 2, 2])) == [
            [[1, 2, 3, 4], [5, 6, 7, 0]],
            [[7, 8, 9, 10, 11, 0], [13, 14, 15, 16, 19, 20]],
            [[0, 0], [21, 22]],
        ]
    rows = [np.array(row) for row in [[0], [1, 2, 3, 4], [5, 6, 7], [7, 8, 9, 10], [13, 14], [21, 22]]]
    assert lists(batch_by_length(len, rows, boundaries=[2, 4], sizes=[2, 2], pad_to="bucket")) == [
        [[1, 2, 3, 4], [5, 6, 7, 0]],
        [[0, 0], [13, 14]],
        [[21, 22]],
        [[7, 8, 9, 10]],
    ]


def rows_of(lengths):
    return [np.full(n, i) for i, n in enumerate(lengths, 1)]


def numbers(flow):
    """Which datapoints are in which batch; each holds its own number."""
    return [[int(row.max()) for row in batch] for batch in flow]


def test_a_boundary_holds_its_own_length():
    assert numbers(batch_by_length(len, rows_of([1, 2, 3, 4, 2, 4]), boundaries=[2, 4], sizes=[3, 3])) == [
        [1, 2, 5],
        [3, 4, 6],
    ]


def test_what_is_left_comes_in_the_order_of_the_buckets():
    flow = batch_by_length(len, rows_of([9, 5, 1, 6]), boundaries=[2, 8], sizes=[4, 4, 4])
    assert numbers(flow) == [[3], [2, 4], [1]]
    assert numbers(
        batch_by_length(len, rows_of([9, 5, 1, 6]), boundaries=[2, 8], sizes=[1, 4, 4], drop_remainder=True)
    ) == [[3]]


@pytest.mark.parametrize(
    "length", ["ids", lambda datapoint: len(datapoint["ids"]), lambda datapoint: np.int64(len(datapoint["ids"]))]
)
def test_the_length_is_that_of_a_component_or_of_a_function(length):
    data = [{"ids": [1] * n, "label": n} for n in (1, 3, 2, 4)]
    batches = list(batch_by_length(length, data, boundaries=[2, 4], sizes=[2, 2]))
    assert [batch["label"].tolist() for batch in batches] == [[1, 2], [3, 4]]
    assert [batch["ids"].shape for batch in batches] == [(2, 2), (2, 4)]
    assert [b[0].shape for b in batch_by_length(0, [[[1] * n] for n in (1, 3)], boundaries=[4], sizes=[2])] == [(2, 3)]


def test_a_datapoint_longer_than_the_last_boundary_needs_a_size():
    assert numbers(batch_by_length(len, rows_of([9, 1]), boundaries=[2], sizes=[1, 1])) == [[1], [2]]
    with pytest.raises(
        ValueError,
        match=(
            r"^batch_by_length\(\): .* length 9 is longer than the last boundary, 2: int64 array \(9,\); one more "
            r"number in sizes="
        ),
    ):
        list(batch_by_length(len, rows_of([1, 9]), boundaries=[2], sizes=[1]))


def test_one_size_without_boundaries_is_batch():
    assert numbers(batch_by_length(len, rows_of([3, 1, 2]), sizes=[2])) == [[1, 2], [3]]


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 9)),
    st.sampled_from([None, [3], [2, 5], [1, 9]]),
    st.integers(9, 40),
    st.sampled_from(["longest", "bucket"]),
)
def test_no_batch_has_more_tokens_than_it_may(lengths, boundaries, tokens, pad_to):
    if boundaries is None:
        pad_to = "longest"
    data = [{"ids": np.full(n, i), "number": i} for i, n in enumerate(lengths)]
    flow = batch_by_length(
        "ids", data, boundaries=boundaries, tokens=tokens, pad_to=pad_to, collate={"ids": pad(-1), "number": ff.stack}
    )
    batches = list(flow)
    assert all(batch["ids"].size <= tokens for batch in batches)
    assert sorted(number for batch in batches for number in batch["number"].tolist()) == list(range(len(lengths)))
    bounds = [0, *(boundaries or []), 99]
    for low, high in pairwise(bounds):
        mine = [batch for batch in batches if low < max(lengths[i] for i in batch["number"]) <= high]
        flat = [int(i) for batch in mine for i in batch["number"]]
        assert flat == sorted(flat)
        for before, after in pairwise(mine):  # the next would not have fitted
            width = max(before["ids"].shape[1], 0 if pad_to == "bucket" and high < 99 else lengths[after["number"][0]])
            assert (len(before["ids"]) + 1) * width > tokens


def test_without_boundaries_batches_are_of_datapoints_in_a_row():
    assert numbers(batch_by_length(len, rows_of([2, 3, 1, 5, 1, 1, 1]), tokens=6)) == [[1, 2], [3], [4], [5, 6, 7]]
    assert numbers(batch_by_length(len, rows_of([3, 3, 3]), tokens=6, drop_remainder=True)) == [[1, 2]]


def test_a_batch_is_given_as_soon_as_nothing_fits():
    read = []

    def lengths():
        for n in (3, 3, 2, 6, 1):
            read.append(n)
            yield np.zeros(n)

    with batch_by_length(len, lengths, tokens=6).run() as iterator:
        assert (next(iterator).shape, len(read)) == ((2, 3), 2)
        assert (next(iterator).shape, len(read)) == ((1, 2), 4)  # six do not fit beside two
        assert (next(iterator).shape, len(read)) == ((1, 6), 4)  # and nothing beside six
        assert (next(iterator).shape, len(read)) == ((1, 1), 5)


def test_empty_sequences_do_not_gather_without_end():
    assert [b.shape for b in batch_by_length(len, [np.zeros(0)] * 7, tokens=3)] == [(3, 0), (3, 0), (1, 0)]


def test_a_datapoint_longer_than_tokens_is_an_error():
    with pytest.raises(
        ValueError, match=r"^batch_by_length\(\): a datapoint of length 7 is longer than tokens=6: float64 array \(7,\)"
    ):
        list(batch_by_length(len, [np.zeros(7)], tokens=6))


def test_padding_to_the_bucket():
    flow = batch_by_length(len, rows_of([1, 3, 7]), boundaries=[2, 4], sizes=[1, 1, 1], pad_to="bucket")
    assert [batch.shape for batch in flow] == [(1, 2), (1, 4), (1, 7)]  # above the boundaries, to the longest
    data = [{"ids": [1], "mask": [1.0], "name": "a", "label": 5}]
    for collate in (pad(-1), {"ids": pad(-1), "mask": pad(-1, multiple=8)}):
        (batch,) = batch_by_length("ids", data, boundaries=[3], sizes=[4], pad_to="bucket", collate=collate)
        assert same(
            batch,
            {"ids": np.array([[1, -1, -1]]), "mask": np.array([[1.0, -1, -1]]), "name": ["a"], "label": np.array([5])},
        )
    (batch,) = batch_by_length(
        0, [[np.ones((2, 1))]], boundaries=[3], sizes=[4], pad_to="bucket", collate=[pad(0, axis=(0, 1))]
    )
    assert batch[0].shape == (1, 3, 3)
    assert list(batch_by_length(0, [[[1]]], boundaries=[3], sizes=[4], pad_to="bucket", collate=None)) == [[[[1]]]]
    (batch,) = batch_by_length(0, [[[1]]], boundaries=[3], sizes=[4], pad_to="bucket", collate=ff.stack)
    assert batch[0].shape == (1, 1)


def test_tokens_count_what_is_padded_to_the_bucket():
    assert numbers(batch_by_length(len, rows_of([1, 1, 1]), boundaries=[4], tokens=8, pad_to="bucket")) == [[1, 2], [3]]
    assert numbers(batch_by_length(len, rows_of([1, 1, 1]), boundaries=[4], tokens=8)) == [[1, 2, 3]]


SIZES = (
    r"sizes must be positive integers, one for each boundary and perhaps one more for what is longer \(or else "
    r"tokens= be given"
)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        (
            {"length": 1.5, "tokens": 3},
            TypeError,
            "length must be a function of a datapoint, or a component's position or key, got 1.5",
        ),
        (
            {"boundaries": 3, "tokens": 3},
            TypeError,
            "boundaries must be positive integers, each above the one before or None, got 3",
        ),
        ({"boundaries": [1.5], "tokens": 3}, TypeError, "boundaries must be"),
        ({"boundaries": "12", "tokens": 3}, TypeError, "boundaries must be"),
        ({"boundaries": [], "tokens": 3}, ValueError, "boundaries must be"),
        (
            {"boundaries": [2, 2], "tokens": 3},
            ValueError,
            "boundaries must be positive integers, each above the one before",
        ),
        ({"boundaries": [3, 2], "tokens": 3}, ValueError, "boundaries must be"),
        ({"boundaries": [0, 2], "tokens": 3}, ValueError, "boundaries must be"),
        ({"tokens": 0}, ValueError, "tokens must be a positive integer or None, got 0"),
        ({}, ValueError, SIZES),
        ({"sizes": [1], "tokens": 3}, ValueError, SIZES),
        ({"sizes": [1, 2]}, ValueError, SIZES),
        ({"sizes": []}, ValueError, SIZES),
        ({"sizes": 3}, TypeError, SIZES),
        ({"sizes": [0], "boundaries": [2]}, ValueError, SIZES),
        ({"sizes": [1, 1, 1], "boundaries": [2]}, ValueError, SIZES),
        ({"sizes": [1], "boundaries": [2, 4]}, ValueError, SIZES),
        (
            {"tokens": 3, "pad_to": "longer"},
            ValueError,
            "pad_to must be 'longest', or 'bucket' where there are boundaries",
        ),
        ({"tokens": 3, "pad_to": "bucket"}, ValueError, "pad_to must be"),
        ({"tokens": 3, "boundaries": [2, 4], "pad_to": "bucket"}, ValueError, "pad_to must be"),
        ({"tokens": 3, "collate": 3}, TypeError, "collate must be a collation"),
        ({"tokens": 3, "drop_remainder": 3}, TypeError, "drop_remainder must be True or False, got 3"),
    ],
)
def test_bad_arguments_fail_at_once(keywords, error, message):
    with pytest.raises(error, match=rf"^batch_by_length\(\): {message}"):
        batch_by_length(**({"length": len} | keywords))


@pytest.mark.parametrize(
    "length", [lambda datapoint: 1.5, lambda datapoint: -1, lambda datapoint: None, lambda datapoint: True]
)
def test_a_length_has_to_be_an_integer(length):
    with pytest.raises(TypeError, match=r"^batch_by_length\(\): a length must be an integer >= 0, got "):
        list(batch_by_length(length, [1], tokens=3))


def test_how_they_look():
    assert repr(batch_by_length(len, tokens=8)) == "batch_by_length(len, tokens=8)"
    stage = batch_by_length("ids", boundaries=[2, 4], sizes=[8, 4], pad_to="bucket", collate={"ids": pad(-1)})
    assert (
        repr(stage)
        == "batch_by_length('ids', boundaries=[2, 4], sizes=[8, 4], pad_to='bucket', collate={'ids': pad(-1)})"
    )
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert repr(batch_by_key(len, 4)) == "batch_by_key(len, 4)"
    assert (
        repr(batch_by_key(shape_of("x"), 4, drop_remainder=True))
        == "batch_by_key(shape_of('x'), 4, drop_remainder=True)"
    )


# The laws, and resuming


def grown(datapoint, rng):
    return np.full(int(rng.integers(0, 9)), datapoint)


def not_five(datapoint):
    return datapoint % 5 != 0


def length_parity(array):
    return len(array) % 3


STAGES = [
    batch_by_key(length_parity, 3, collate=pad(0)),
    batch_by_key(length_parity, 1, collate=pad(0)),
    batch_by_key(length_parity, 2, drop_remainder=True, collate=None),
    batch_by_length(len, boundaries=[2, 5], sizes=[3, 2, 2]),
    batch_by_length(len, boundaries=[2, 5], sizes=[3, 2, 1], pad_to="bucket", drop_remainder=True),
    batch_by_length(len, tokens=12),
    batch_by_length(len, boundaries=[2, 5], tokens=12),
    batch_by_length(len, boundaries=[2, 5], tokens=12, pad_to="bucket", collate=pad(-1)),
]


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_the_laws_hold(stage):
    for source in (range(22), Stream(range(22))):
        check(lambda: ff.pipe(source, ff.filter(not_five), ff.map(grown, rng=True), stage), stops=14)
    for n in (0, 1):
        check(lambda: ff.pipe(Stream(range(n)), ff.map(grown, rng=True), stage), epochs=(0,))


@pytest.mark.parametrize("stage", [STAGES[0], STAGES[6]], ids=str)
def test_the_laws_hold_in_threads_and_processes(stage):
    for source in (range(15), Stream(range(15))):
        check(
            lambda: ff.pipe(source, ff.map(grown, rng=True), stage, ff.map(len)),
            workers=({}, {"threads": 2}, {"processes": 2}),
            epochs=(0,),
            stops=4,
        )


@pytest.mark.parametrize(
    "stage",
    [batch_by_key(length_parity, 8, collate=pad(0)), batch_by_length(len, boundaries=[4, 8, 12], tokens=200)],
    ids=str,
)
def test_resuming_reads_again_only_from_the_oldest_that_waits(stage):
    count = [0]

    def counted(datapoint):
        count[0] += 1
        return np.zeros(datapoint)

    def flow_of():
        lengths = np.random.default_rng(0).integers(1, 16, 20000).tolist()
        return ff.pipe(Stream(lengths), ff.filter(bool), ff.map(counted), stage)

    with flow_of().run() as iterator:
        for _ in islice(iterator, 500):
            pass
        state = json.loads(json.dumps(iterator.state_dict()))
        expected = next(iterator)
    assert len(json.dumps(state)) < 1000
    resumed = iter(flow_of().load_state_dict(state))
    count[0] = 0
    assert same(next(resumed), expected)
    assert count[0] < 300


def roots(values):
    return [math.sqrt(value) for value in values]


@pytest.mark.parametrize("broken_at", range(1, 10))
def test_after_an_error_nothing_is_lost(broken_at):
    """A pass that failed goes on, mended, with the batch that failed."""

    def flow_of(broken):
        return ff.pipe(
            Stream(range(9, 0, -1)),
            ff.map(lambda x: -x if broken and x == broken_at else x),
            batch_by_key(parity, 2, collate=roots),
        )

    whole = list(flow_of(False))
    iterator = iter(flow_of(True))
    made = []
    with pytest.raises(ValueError, match=r"math domain error|nonnegative") as caught:
        made.extend(iterator)
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        ff.replay(flow_of(True), caught.value)
    assert made + list(flow_of(False).load_state_dict(iterator.state_dict())) == whole


def test_a_key_that_cannot_be_found_is_found_again():
    def flow_of(broken):
        return ff.pipe(
            Stream(range(9)), batch_by_key(lambda number: 1 // (number - 5) * 0 if broken else 0, 2, collate=None)
        )

    iterator = iter(flow_of(True))
    made = list(islice(iterator, 2))
    with pytest.raises(ZeroDivisionError) as caught:
        next(iterator)
    with pytest.raises(ZeroDivisionError):
        ff.replay(flow_of(True), caught.value)
    assert made + list(flow_of(False).load_state_dict(iterator.state_dict(), strict=False)) == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
        [8],
    ]
