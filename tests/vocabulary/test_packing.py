"""Packing: rows of one length out of sequences of any, token for token, and where it can be resumed."""

import functools
import json
import pickle
from collections import namedtuple
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Stream

import flowfn as ff
from flowfn.testing import check, same
from flowfn.vocabulary.packing.balanced import balanced_fit
from flowfn.vocabulary.packing.sequences import best_fit, concat_then_split, first_fit, pack

PACKERS = [first_fit, best_fit, concat_then_split]
FITTING = [first_fit, best_fit]
Pair = namedtuple("Pair", "x y")


def sequences(lengths):
    """Sequence i holds 100 i, 100 i + 1, ... (i from 1)."""
    return [np.arange(n) + 100 * i for i, n in enumerate(lengths, 1)]


def rows(flow):
    return [[array.tolist() for array in row] for row in flow]


def both(data):
    return [ff.flow(data), ff.flow(Stream(data))]


# Against grain 0.2.18: what FirstFitPackIterDataset, BestFitPackIterDataset (num_packing_bins=2, shuffle_bins=False)
# and ConcatThenSplitIterDataset give for the same sequences.

FIRST_FIT = [
    [[100, 101, 102, 103, 300, 301], [1, 1, 1, 1, 2, 2], [0, 1, 2, 3, 0, 1]],
    [[200, 201, 202, 400, 401, 402], [1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2]],
    [[500, 501, 502, 503, 504, 600], [1, 1, 1, 1, 1, 2], [0, 1, 2, 3, 4, 0]],
    [[700, 701, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]],
    [[800, 801, 802, 803, 804, 805], [1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5]],
]
CONCATENATED = [
    [[100, 101, 102, 200, 201, 202], [1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2]],
    [[203, 204, 205, 300, 301, 400], [1, 1, 1, 2, 2, 3], [0, 1, 2, 0, 1, 0]],
    [[401, 402, 403, 404, 500, 501], [1, 1, 1, 1, 2, 2], [0, 1, 2, 3, 0, 1]],
    [[502, 503, 504, 505, 600, 601], [1, 1, 1, 1, 2, 2], [0, 1, 2, 3, 0, 1]],
    [[602, 603, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]],
]


@pytest.mark.parametrize("packer", FITTING)
@pytest.mark.parametrize("bins", [2, 3])
def test_rows_are_those_of_grain(packer, bins):
    for source in both(sequences([4, 3, 2, 3, 5, 1, 2, 6])):
        assert rows(pack(6, source, how=functools.partial(packer, bins=bins))) == FIRST_FIT


def test_concatenated_rows_are_those_of_grain():
    for source in both(sequences([3, 6, 2, 5, 6, 4])):
        assert rows(pack(6, source, how=concat_then_split)) == CONCATENATED


def test_components_with_lengths_of_their_own_are_those_of_grain():
    data = [
        {"inputs": np.arange(a) + 1, "targets": np.arange(b) + 11} for a, b in [(3, 1), (2, 2), (1, 3), (4, 1), (2, 1)]
    ]
    packed = pack({"inputs": 5, "targets": 4}, data, how=functools.partial(first_fit, bins=2))
    assert [{name: array.tolist() for name, array in row.items()} for row in packed] == [
        {
            "inputs": [1, 2, 3, 1, 2],
            "targets": [11, 11, 12, 0],
            "inputs_segment_ids": [1, 1, 1, 2, 2],
            "inputs_positions": [0, 1, 2, 0, 1],
            "targets_segment_ids": [1, 2, 2, 0],
            "targets_positions": [0, 0, 1, 0],
        },
        {
            "inputs": [1, 1, 2, 3, 4],
            "targets": [11, 12, 13, 11],
            "inputs_segment_ids": [1, 2, 2, 2, 2],
            "inputs_positions": [0, 0, 1, 2, 3],
            "targets_segment_ids": [1, 1, 1, 2],
            "targets_positions": [0, 1, 2, 0],
        },
        {
            "inputs": [1, 2, 0, 0, 0],
            "targets": [11, 0, 0, 0],
            "inputs_segment_ids": [1, 1, 0, 0, 0],
            "inputs_positions": [0, 1, 0, 0, 0],
            "targets_segment_ids": [1, 0, 0, 0],
            "targets_positions": [0, 0, 0, 0],
        },
    ]


# Packers, on lengths alone


def packed_simply(lengths, capacity, bins):
    """First fit as one would write it down."""
    full, open_rows = [], []
    for index, length in enumerate(lengths):
        row = next((row for row in open_rows if sum(n for _, _, n in row) + length <= capacity), None)
        if row is None:
            if len(open_rows) == bins:
                full, open_rows = full + open_rows, []
            open_rows.append(row := [])
        row.append((index, 0, length))
    return full + open_rows


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 10)), st.integers(1, 5))
def test_first_fit_is_what_its_name_says(lengths, bins):
    assert list(first_fit(lengths, 10, bins=bins)) == packed_simply(lengths, 10, bins)
    assert list(first_fit([(n, 1) for n in lengths], (10, 99), bins=bins)) == [
        [(index, (0, 0), (n, 1)) for index, _, n in row] for row in packed_simply(lengths, 10, bins)
    ]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 10)), st.integers(1, 5))
def test_best_fit_leaves_the_least_room(lengths, bins):
    left: list = []
    for row in best_fit(lengths, 10, bins=bins):
        assert sum(n for _, _, n in row) <= 10
        left += row
    assert sorted(left) == [(index, 0, n) for index, n in enumerate(lengths)]


def test_best_fit_packs_tighter():
    assert list(best_fit([3, 4, 2, 3], 6)) == [[(0, 0, 3), (3, 0, 3)], [(1, 0, 4), (2, 0, 2)]]
    assert list(first_fit([3, 4, 2, 3], 6)) == [[(0, 0, 3), (2, 0, 2)], [(1, 0, 4)], [(3, 0, 3)]]
    assert list(best_fit([(3, 1), (4, 4), (1, 1)], (6, 5))) == [
        [(0, (0, 0), (3, 1))],
        [(1, (0, 0), (4, 4)), (2, (0, 0), (1, 1))],
    ]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 25)), st.integers(1, 10))
def test_concat_then_split_leaves_no_room(lengths, capacity):
    made = list(concat_then_split(lengths, capacity))
    assert [(index, place) for row in made for index, start, stop in row for place in range(start, stop)] == [
        (index, place) for index, n in enumerate(lengths) for place in range(n)
    ]
    sizes = [sum(stop - start for _, start, stop in row) for row in made]
    assert all(size == capacity for size in sizes[:-1])
    assert all(0 < size <= capacity for size in sizes[-1:])


@pytest.mark.parametrize("packer", PACKERS)
def test_packers_read_no_further_than_they_must(packer):
    read = []

    def endless():
        while True:
            read.append(4)
            yield 4

    keywords = {} if packer is concat_then_split else {"bins": 3}
    made = list(islice(packer(endless(), 8, **keywords), 3))
    assert [[stop for _, _, stop in row] for row in made] == [[4, 4]] * 3
    assert len(read) == (6 if packer is concat_then_split else 7)


@pytest.mark.parametrize("packer", FITTING)
def test_a_sequence_too_long_for_a_row_names_the_packer_that_cuts(packer):
    with pytest.raises(
        ValueError,
        match=rf"^{packer.__name__}\(\): a sequence of length 9 does not fit into a row of 8; concat_then_split",
    ):
        list(packer([9], 8))
    with pytest.raises(ValueError, match=r"of length \(1, 5\) does not fit into a row of \(8, 4\)"):
        list(packer([(1, 5)], (8, 4)))
    with pytest.raises(ValueError, match=rf"^{packer.__name__}\(\): bins must be a positive integer, got 0$"):
        list(packer([1], 8, bins=0))
    with pytest.raises(ValueError, match="does not fit into a row of 4"):
        list(pack(4, [[1], [2] * 5], how=packer))


def test_concat_then_split_cuts_one_sequence_at_a_time():
    with pytest.raises(TypeError, match=r"^concat_then_split\(\): it cuts one sequence at a time"):
        list(pack({"x": 2, "y": 2}, [{"x": [1], "y": [1]}], how=concat_then_split))


# pack


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(0, 7), max_size=20), st.sampled_from([*PACKERS, functools.partial(first_fit, bins=2)]))
def test_no_token_is_lost_or_doubled(lengths, how):
    data = sequences(lengths)
    seen = []
    for tokens, ids, positions in pack(7, data, how=how):
        assert tokens.shape == ids.shape == positions.shape == (7,)
        assert (ids.dtype, positions.dtype) == (np.int32, np.int32)
        assert (np.diff(ids[ids > 0]) >= 0).all()
        assert not tokens[ids == 0].any()
        assert not positions[ids == 0].any()
        for number in range(1, ids.max() + 1):
            assert positions[ids == number].tolist() == list(range((ids == number).sum()))
        seen += tokens[ids > 0].tolist()
    assert sorted(seen) == sorted(np.concatenate([*data, np.zeros(0, int)]).tolist())


BESIDE = [np.array([1, 1, 0], np.int32), np.array([0, 1, 0], np.int32)]


@pytest.mark.parametrize(
    ("datapoint", "expected"),
    [
        ([5, 6], [np.array([5, 6, 9]), *BESIDE]),
        ((5, 6), [np.array([5, 6, 9]), *BESIDE]),
        (np.array([5, 6], np.uint16), [np.array([5, 6, 9], np.uint16), *BESIDE]),
        ([0.5, 6], [np.array([0.5, 6, 9]), *BESIDE]),
        ([[5, 6], [7, 8]], [np.array([5, 6, 9]), np.array([7, 8, 9]), *BESIDE]),
        (([5, 6], [7, 8]), (np.array([5, 6, 9]), np.array([7, 8, 9]), *BESIDE)),
        (
            {"a": [5, 6], "b": np.array([7, 8], np.int8)},
            {
                "a": np.array([5, 6, 9]),
                "b": np.array([7, 8, 9], np.int8),
                "segment_ids": BESIDE[0],
                "positions": BESIDE[1],
            },
        ),
    ],
    ids=str,
)
def test_a_row_has_the_form_of_its_datapoints(datapoint, expected):
    for source in both([datapoint]):
        (row,) = pack(3, source, value=9)
        assert same(row, expected)


def test_dtypes_stay_and_mixed_ones_are_promoted():
    (row,) = pack(4, [np.array([1], np.uint8), np.array([2], np.int16)])
    assert row[0].dtype == np.int16
    (row,) = pack(4, [[1], [], [0.5][:0]])
    assert row[0].dtype == np.int64
    (row,) = pack({"x": 2, "y": 2}, [{"x": [], "y": [1]}])
    assert row["x"].dtype == np.int64
    assert row["x_segment_ids"].tolist() == [0, 0]
    assert row["y_segment_ids"].tolist() == [1, 0]


@pytest.mark.parametrize("value", [{"labels": -100}, [0, -100], {"labels": -100, "ids": 0}])
def test_components_may_be_filled_with_values_of_their_own(value):
    (row,) = pack(3, [{"ids": [1], "labels": [2]}], value=value)
    assert (row["ids"].tolist(), row["labels"].tolist()) == ([1, 0, 0], [2, -100, -100])
    (row,) = pack(3, [[[1], [2]]], value=[0, -100] if isinstance(value, list) else {1: -100})
    assert (row[0].tolist(), row[1].tolist()) == ([1, 0, 0], [2, -100, -100])


def test_empty_sequences_are_left_out():
    assert rows(pack(4, sequences([2, 0, 2]))) == [[[100, 101, 300, 301], [1, 1, 2, 2], [0, 1, 0, 1]]]
    assert rows(pack(4, [[], np.zeros(0, np.int32)])) == []
    assert list(pack(4, [])) == []


def test_the_last_row_is_left_out_unless_it_is_full():
    for how in PACKERS:
        assert len(list(pack(4, sequences([4, 4, 2]), how=how, drop_remainder=True))) == 2
        assert len(list(pack(4, sequences([4, 4]), how=how, drop_remainder=True))) == 2
        assert len(list(pack(4, sequences([2]), how=how, drop_remainder=True))) == 0
        assert list(pack(4, [], how=how, drop_remainder=True)) == []


def test_a_long_sequence_makes_many_rows():
    assert rows(pack(3, sequences([7]), how=concat_then_split)) == [
        [[100, 101, 102], [1, 1, 1], [0, 1, 2]],
        [[103, 104, 105], [1, 1, 1], [0, 1, 2]],
        [[106, 0, 0], [1, 0, 0], [0, 0, 0]],
    ]


@pytest.mark.parametrize(
    ("data", "keywords", "error", "message"),
    [
        (
            [np.zeros(())],
            {},
            ValueError,
            r"a sequence has one axis or more, an array \(n, ...\) or a list of numbers, got float64 array",
        ),
        ([{"x": [1], "y": "a"}], {}, ValueError, "got 'a' in .*; keep= names components that are none"),
        ([{"x": [1]}], {"keep": "y"}, ValueError, r"keep names 'y', but a datapoint has \['x'\]: "),
        ([[1]], {"keep": 0}, ValueError, "keep leaves nothing to be packed of "),
        ([np.ones(1)], {"keep": 1}, ValueError, "keep names 1, but a datapoint has no components: "),
        (
            [np.ones((1, 2)), np.ones((1, 3))],
            {},
            ValueError,
            r"but for their first axis, got shapes \[\(1, 2\), \(1, 3\)",
        ),
        ([5], {}, ValueError, "a sequence has one axis"),
        (["text"], {}, ValueError, "a sequence has one axis"),
        ([[[1, 2], "text"]], {}, ValueError, "a sequence has one axis"),
        ([None], {}, ValueError, "a sequence has one axis"),
        ([[1, None]], {}, ValueError, r"a sequence is an array \(n, ...\) or a list of numbers, got \[1, None\]"),
        ([[{"x": [1]}, {"x": [2]}]], {}, ValueError, "as split_long gives, flat_map makes one after the other"),
        ([[[1], [1, 2]]], {}, ValueError, r"must be equally long, got lengths \[1, 2\]"),
        (
            [{"a": [1], "b": [1, 2]}],
            {},
            ValueError,
            r"must be equally long, got lengths \{'a': 1, 'b': 2\}; a dict of lengths",
        ),
        ([{"a": [1]}, {"b": [1]}], {}, ValueError, "must have the same components"),
        ([[1], [[1], [2]]], {}, ValueError, "must have the same components"),
        ([{"positions": [1]}], {}, ValueError, "have the key 'positions' already"),
        ([Pair([1], [2])], {}, TypeError, "there is no place for segment ids and positions in Pair"),
        ([[1]], {"value": 0.5}, ValueError, "value must fit the dtype of what it pads, but 0.5 is no int64"),
        ([[1]], {"value": {"x": 1}}, ValueError, "value names 'x', but of components datapoints have only one"),
        ([{"y": [1]}], {"value": {"x": 1}}, ValueError, r"value names 'x', but of components datapoints have \['y'\]"),
        ([[[1], [2]]], {"value": [1]}, ValueError, "value has 1 values, but datapoints have 2 components"),
        (
            [{"x": [1]}],
            {"length": {"x": 2, "y": 2}},
            ValueError,
            r"length names the components \['x', 'y'\], but a datapoint has \['x'\]",
        ),
        ([[1]], {"length": {"x": 2}}, ValueError, r"length names the components \['x'\], but a datapoint has \[1\]"),
    ],
)
def test_what_cannot_be_packed_is_refused(data, keywords, error, message):
    for source in both(data):
        with pytest.raises(error, match=rf"^pack\(\): .*{message}"):
            list(pack(keywords.get("length", 4), source, **{k: v for k, v in keywords.items() if k != "length"}))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        (
            (0,),
            {},
            ValueError,
            r"pack\(\): length must be a positive integer, or a dict of one for each component, got 0",
        ),
        (
            (2.5,),
            {},
            TypeError,
            r"pack\(\): length must be a positive integer, or a dict of one for each component, got 2.5",
        ),
        (({"x": 0},), {}, ValueError, r"pack\(\): length must be .* got \{'x': 0\}"),
        (({},), {}, ValueError, r"pack\(\): length must be .* got \{\}"),
        ((2,), {"how": 3}, TypeError, r"pack\(\): how must be a function, got 3"),
        ((2,), {"drop_remainder": 1}, TypeError, r"pack\(\): drop_remainder must be True or False, got 1"),
        ((2,), {"keep": 0.5}, TypeError, r"pack\(\): keep must be a component, or a list or tuple of them, got 0.5"),
        (
            (6,),
            {"multiple": 4},
            ValueError,
            r"pack\(\): multiple must be a positive integer that divides length, got 4",
        ),
        (
            (2,),
            {"ranks": 0},
            ValueError,
            r"pack\(\): ranks must be a positive integer or None, and goes without how=, got 0",
        ),
        ((2,), {"ranks": 2, "how": best_fit}, ValueError, r"pack\(\): ranks must .*; how=partial\(balanced_fit"),
        ((2,), {"cost": len}, ValueError, r"pack\(\): cost must be a function of an array .*, and goes with ranks="),
        ((2,), {"ranks": 2, "cost": 1}, TypeError, r"pack\(\): cost must be a function of an array of lengths"),
        (({"x": 6},), {"multiple": 4}, ValueError, r"pack\(\): multiple must be .* that divides length, got 4"),
        ((6,), {"multiple": 0}, ValueError, r"pack\(\): multiple must be .* that divides length, got 0"),
        ((2,), {"value": np.zeros(2)}, TypeError, r"pack\(\): value must be one value, or a dict, list or tuple"),
    ],
)
def test_bad_arguments_fail_at_once(arguments, keywords, error, message):
    with pytest.raises(error, match=f"^{message}"):
        pack(*arguments, **keywords)


# Packers of one's own


def pairs(lengths, capacity):
    """Two sequences in a row, whatever their lengths."""
    row = []
    for index, length in enumerate(lengths):
        row.append((index, 0, length))
        if len(row) == 2:
            yield row
            row = []
    if row:
        yield row


def longest_first(lengths, capacity):
    """The longest of four before the others."""
    held = []
    for index, length in enumerate(lengths):
        held.append((length, index))
        if len(held) == 4:
            yield from [[(i, 0, n)] for n, i in sorted(held, reverse=True)]
            held = []
    yield from [[(i, 0, n)] for n, i in sorted(held, reverse=True)]


def by_windows(lengths, capacity, window=20, kept=5):
    """Rows of one sequence, the longest of a window first; the last few of each window stay for the next."""
    held = []
    for index, length in enumerate(lengths):
        held.append((length, index))
        if len(held) == window:
            given, held = held[:-kept], held[-kept:]
            yield from [[(i, 0, n)] for n, i in sorted(given, reverse=True)]
    yield from [[(i, 0, n)] for n, i in sorted(held, reverse=True)]


def halves_held(lengths, capacity):
    """The first half of a sequence, and the other half when the third behind it has been read."""
    held = []
    for index, length in enumerate(lengths):
        held.append((index, length))
        if len(held) == 4:
            index, length = held.pop(0)
            yield [(index, 0, length)]
            if held[0][1] > 1:
                yield [(held[0][0], 0, 1)]
                yield [(held[0][0], 1, held[0][1])]
                held.pop(0)
    yield from [[(i, 0, n)] for i, n in held]


def test_a_packer_of_ones_own():
    assert rows(pack(6, sequences([3, 2, 1]), how=pairs))[0][0] == [100, 101, 102, 200, 201, 0]
    assert [row[0][0] for row in rows(pack(6, sequences([1, 2, 3, 4, 5]), how=longest_first))] == [
        400,
        300,
        200,
        100,
        500,
    ]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda lengths, capacity: iter([[(0, 0, 1)]]), r"gave the piece \(0, 0, 1\), which is not what comes next"),
        (
            lambda lengths, capacity: ([(i, 0, n), (i, 0, n)] for i, n in enumerate(lengths)),
            "which is not what comes next",
        ),
        (lambda lengths, capacity: ([(i, 1, n)] for i, n in enumerate(lengths)), "which is not what comes next"),
        (lambda lengths, capacity: ([(i, 0, n + 1)] for i, n in enumerate(lengths)), "which is not what comes next"),
        (lambda lengths, capacity: ([(i, 0, 0)] for i, n in enumerate(lengths)), "which is not what comes next"),
        (
            lambda lengths, capacity: iter([[(i, 0, n) for i, n in enumerate(lengths)]]),
            "gave a row that is empty, or longer than 4",
        ),
        (lambda lengths, capacity: iter([[]]), "gave a row that is empty, or longer than 4"),
        (lambda lengths, capacity: iter(list(lengths)[2:]), "ended without giving 2 of the sequences that it read"),
    ],
)
def test_a_packer_that_breaks_the_rules_is_named(how, message):
    with pytest.raises(ValueError, match=rf"^pack\(\): <lambda> .*{message}"):
        list(pack(4, sequences([3, 3]), how=how))


@pytest.mark.parametrize(
    ("how", "gave"),
    [
        (lambda lengths, capacity: 3, "it returned 3"),
        (lambda lengths, capacity: None, "it returned None"),
        (lambda lengths, capacity: iter([3]), "it gave 3"),
        (lambda lengths, capacity: iter([None]), "it gave None"),
        (lambda lengths, capacity: ([i] for i, n in enumerate(lengths)), r"it gave \[0\]"),
        (lambda lengths, capacity: ([(i, n)] for i, n in enumerate(lengths)), r"it gave \[\(0, 3\)\]"),
    ],
)
def test_a_packer_that_gives_no_rows_is_told_what_they_are(how, gave):
    rows = r"must yield rows: lists of pieces \(number of the sequence, start, stop\), but"
    with pytest.raises(TypeError, match=rf"^pack\(\): <lambda> {rows} {gave}"):
        list(pack(4, sequences([3, 3]), how=how))


# What comes along, where segments begin, and how many there are


def named(lengths):
    return [{"tokens": array, "source": "ab"[i % 2], "weight": i / 2} for i, array in enumerate(sequences(lengths))]


def test_what_is_no_sequence_comes_along_once_for_each_segment():
    for source in both(named([3, 2, 4])):
        packed = list(pack(6, source, keep=["source", "weight"]))
        assert [(row["source"], row["weight"]) for row in packed] == [(["a", "b"], [0.0, 0.5]), (["a"], [1.0])]
        assert list(packed[0]) == ["tokens", "source", "weight", "segment_ids", "positions"]
        cut = list(pack(6, source, keep=("source", "weight"), how=concat_then_split))
        assert [row["source"] for row in cut] == [["a", "b", "a"], ["a"]]
        for row in cut:
            numbers = [n for n in dict.fromkeys((row["tokens"] // 100).tolist()) if n]
            assert row["source"] == ["ab"[(n - 1) % 2] for n in numbers]


def test_what_is_kept_of_lists_has_its_place():
    assert same(
        list(pack(4, [("a", [1, 2], [3, 4]), ("b", [5], [6])], keep=0)),
        [
            (
                ["a", "b"],
                np.array([1, 2, 5, 0]),
                np.array([3, 4, 6, 0]),
                np.array([1, 1, 2, 0], np.int32),
                np.array([0, 1, 0, 0], np.int32),
            )
        ],
    )


def test_what_is_kept_goes_with_components_that_have_lengths_of_their_own():
    data = [{"x": [1, 2], "y": [3], "id": 7}, {"x": [4], "y": [5, 6], "id": 8}]
    (row,) = pack({"y": 4, "x": 3}, data, keep="id")
    assert (row["id"], row["x"].tolist(), row["y"].tolist()) == ([7, 8], [1, 2, 4], [3, 5, 6, 0])
    assert row["y_segment_ids"].tolist() == [1, 2, 2, 0]
    assert list(row)[:3] == ["x", "y", "id"]


def test_arrays_are_packed_along_their_first_axis():
    data = [{"tokens": [1, 2], "vectors": np.ones((2, 3), np.float32)}, {"tokens": [3], "vectors": 2 * np.ones((1, 3))}]
    (row,) = pack(4, data, value={"vectors": -1})
    assert row["vectors"].tolist() == [[1.0] * 3, [1.0] * 3, [2.0] * 3, [-1.0] * 3]
    assert row["segment_ids"].tolist() == [1, 1, 2, 0]
    (row,) = pack({"text": 3, "patches": 5}, [{"text": [1], "patches": np.ones((2, 2, 2), np.uint8)}] * 2)
    assert (row["patches"].shape, row["patches"].dtype) == ((5, 2, 2), np.uint8)
    assert row["patches_segment_ids"].tolist() == [1, 1, 2, 2, 0]
    ((pictures, ids, _),) = pack(3, [np.ones((2, 4))])
    assert (pictures.shape, ids.tolist()) == ((3, 4), [1, 1, 0])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.integers(0, 12), max_size=20),
    st.sampled_from([*PACKERS, functools.partial(concat_then_split, most=2), functools.partial(best_fit, bins=2)]),
)
def test_segments_begin_at_multiples(lengths, how):
    data, seen = sequences(lengths), []
    for tokens, ids, positions in pack(12, data, how=how, multiple=4, value=-1):
        starts = np.flatnonzero((positions == 0) & (ids > 0))
        assert (starts % 4 == 0).all()
        assert ids[starts].tolist() == list(range(1, len(starts) + 1))
        assert (tokens[ids == 0] == -1).all()
        assert not positions[ids == 0].any()
        seen += tokens[ids > 0].tolist()
    assert sorted(seen) == sorted(np.concatenate([*data, np.zeros(0, int)]).tolist())


def test_each_of_several_lengths_is_rounded_up():
    (row,) = pack({"x": 4, "y": 6}, [{"x": [1], "y": [2, 3, 4]}, {"x": [5, 6], "y": [7]}], multiple=2)
    assert (row["x"].tolist(), row["y"].tolist()) == ([1, 0, 5, 6], [2, 3, 4, 0, 7, 0])
    assert row["y_positions"].tolist() == [0, 1, 2, 0, 0, 0]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 10)), st.integers(1, 3), st.sampled_from(PACKERS))
def test_rows_hold_no_more_sequences_than_they_may(lengths, most, packer):
    made = list(packer(lengths, 10, most=most))
    assert all(len(row) <= most for row in made)
    assert sorted(index for row in made for index, start, _ in row if not start) == list(range(len(lengths)))
    if packer is not concat_then_split:
        many = [[(index, (0, 0), (n, 1)) for index, _, n in row] for row in made]
        assert packer is best_fit or list(packer([(n, 1) for n in lengths], (10, most))) == many
        assert list(packer([(n, 1) for n in lengths], (10, 99), most=most)) == many


def costly(lengths):
    return lengths + lengths**2 / 64


def test_rows_for_all_ranks_are_equally_full_and_cost_the_same():
    lengths = np.clip(np.random.default_rng(0).lognormal(2, 1, 4000), 1, 64).astype(int).tolist()
    packed = list(pack(64, sequences(lengths), ranks=8, cost=costly))
    assert len(packed) % 8 == 0
    costs = np.array([costly(np.unique(ids[ids > 0], return_counts=True)[1]).sum() for _, ids, _ in packed])
    steps = costs.reshape(-1, 8)
    assert np.mean(steps.max(1) / steps.mean(1)) < 1.1
    assert np.mean([(ids > 0).mean() for _, ids, _ in packed]) > 0.97
    first = list(pack(64, sequences(lengths)))
    plain = np.array([costly(np.unique(ids[ids > 0], return_counts=True)[1]).sum() for _, ids, _ in first])
    plain = plain[: len(plain) // 8 * 8].reshape(-1, 8)
    assert np.mean(plain.max(1) / plain.mean(1)) > 1.2
    assert same(packed, list(pack(64, sequences(lengths), how=functools.partial(balanced_fit, ranks=8, cost=costly))))


def test_a_loss_mask_is_a_sequence_that_is_0_on_padding():
    data = [{"tokens": [5, 6], "mask": np.array([False, True])}, {"tokens": [7], "mask": np.array([True])}]
    (row,) = pack(5, data, value={"tokens": 9})
    assert (row["tokens"].tolist(), row["mask"].tolist()) == ([5, 6, 7, 9, 9], [False, True, True, False, False])
    assert row["mask"].dtype == bool


# The laws, and resuming


def grown(datapoint, rng):
    return np.full(int(rng.integers(0, 6)), datapoint)


def not_five(datapoint):
    return datapoint % 5 != 0


HOWS = [
    *PACKERS,
    functools.partial(first_fit, bins=2, most=3),
    functools.partial(best_fit, bins=3),
    functools.partial(concat_then_split, most=2),
    pairs,
    longest_first,
    functools.partial(by_windows, window=4, kept=2),
    functools.partial(balanced_fit, ranks=2, window=7),
    halves_held,
]


@pytest.mark.parametrize(("how", "drop"), [*((how, False) for how in HOWS), *((how, True) for how in PACKERS)])
def test_the_laws_hold(how, drop):
    for source in (range(25), Stream(range(25))):
        check(
            lambda: ff.pipe(
                source, ff.filter(not_five), ff.map(grown, rng=True), pack(12, how=how, drop_remainder=drop)
            ),
            stops=14,
        )


def test_the_laws_hold_in_threads_and_processes():
    for source, how in ((range(20), functools.partial(first_fit, bins=2)), (Stream(range(20)), concat_then_split)):
        check(
            lambda: ff.pipe(source, ff.map(grown, rng=True), pack(6, how=how), ff.map(len)),
            workers=({}, {"threads": 2}, {"processes": 2}),
            epochs=(0,),
            stops=4,
        )


@pytest.mark.parametrize("n", [0, 1])
def test_the_laws_hold_for_next_to_nothing(n):
    check(lambda: ff.pipe([np.arange(3)] * n, pack(4)))
    check(lambda: ff.pipe(Stream([np.arange(3)] * n), pack(4, how=concat_then_split)))


def read_to_resume(flow_of, after):
    """How many inputs a pass that is resumed after so many outputs reads before its first."""
    count = [0]

    def counted(datapoint):
        count[0] += 1
        return datapoint

    with flow_of(counted).run() as iterator:
        for _ in islice(iterator, after):
            pass
        state = json.loads(json.dumps(iterator.state_dict()))
        expected = next(iterator)
    resumed = iter(flow_of(counted).load_state_dict(state))
    count[0] = 0
    assert same(next(resumed), expected)
    return count[0], state


@pytest.mark.parametrize(
    ("how", "most"), [(concat_then_split, 9 * 5), (first_fit, 128 * 5), (functools.partial(best_fit, bins=4), 12 * 5)]
)
def test_resuming_reads_again_only_since_packing_began_anew(how, most):
    lengths = np.random.default_rng(0).integers(1, 9, 5000)

    def flow_of(counted):
        return ff.pipe(Stream(lengths.tolist()), ff.filter(bool), ff.map(counted), ff.map(np.arange), pack(16, how=how))

    for after in (1, 500, 1001, 1100):
        read, state = read_to_resume(flow_of, after)
        assert read <= most
        assert len(json.dumps(state)) < 1000


def test_resuming_reads_again_what_a_packer_held_on_to():
    lengths = np.random.default_rng(0).integers(1, 9, 5000)
    for upstream in (lambda: Stream(lengths.tolist()), lambda: lengths.tolist()):

        def flow_of(counted):
            return ff.pipe(upstream(), ff.filter(bool), ff.map(counted), ff.map(np.arange), pack(16, how=by_windows))

        for after in (1, 500, 1001, 4000):
            read, state = read_to_resume(flow_of, after)
            assert read <= 2 * 20
            assert len(json.dumps(state)) < 1000


def test_of_a_long_sequence_the_rest_is_read_again():
    for after in range(12):
        source = Stream([np.arange(30), np.arange(3), np.arange(40)])
        whole = list(pack(7, source, how=concat_then_split))
        with pack(7, source, how=concat_then_split).run() as iterator:
            assert same(list(islice(iterator, after)), whole[:after])
            state = iterator.state_dict()
        assert same(list(pack(7, source, how=concat_then_split).load_state_dict(state)), whole[after:])


def with_more(tokens):
    return {"x": tokens, "vectors": np.ones((len(tokens), 2)), "n": len(tokens)}


@pytest.mark.parametrize("how", [*PACKERS, functools.partial(first_fit, bins=2, most=2)])
def test_the_laws_hold_for_rows_with_more_in_them(how):
    for source in (range(25), Stream(range(25))):
        check(
            lambda: ff.pipe(
                source,
                ff.map(grown, rng=True),
                ff.map(with_more),
                pack(12, how=how, keep="n", multiple=3, value={"x": -1}),
            ),
            stops=14,
        )


def test_the_laws_hold_for_them_in_threads_and_processes():
    check(
        lambda: ff.pipe(
            range(20),
            ff.map(grown, rng=True),
            ff.map(with_more),
            pack({"x": 6, "vectors": 8}, keep="n", multiple=2),
            ff.map(len),
        ),
        workers=({}, {"threads": 2}, {"processes": 2}),
        epochs=(0,),
        stops=4,
    )


def test_what_was_packed_for_8_ranks_goes_on_under_4():
    lengths = np.random.default_rng(0).integers(1, 17, 600).tolist()

    def flow_of(rank, world):
        return ff.pipe(lengths, ff.map(np.arange), pack(16, ranks=8, cost=costly), ff.shard(rank, world))

    rows_of_all = list(flow_of(0, 1))
    with flow_of(3, 8).run() as iterator:
        given = list(islice(iterator, 5))
        state = json.loads(json.dumps(iterator.state_dict()))
    assert same(given, rows_of_all[3:40:8])
    for rank in range(4):
        assert same(list(flow_of(rank, 4).load_state_dict(state)), rows_of_all[40 + rank :: 4])


def test_memory_is_that_of_the_open_rows():
    source = (np.zeros(3) for _ in range(10**9))
    assert len(list(islice(pack(8, lambda: source), 1000))) == 1000


def test_what_cannot_be_packed_can_be_seen_again():
    flow = pack(4, [[1, 2], [3, 4], [5], [1] * 9])
    with pytest.raises(ValueError, match="length 9") as caught:
        list(flow)
    with pytest.raises(ValueError, match="length 9"):
        ff.replay(flow, caught.value)


def test_how_it_looks():
    assert repr(pack(8)) == "pack(8)"
    assert repr(pack(8, how=best_fit)) == "pack(8, how=best_fit)"
    assert repr(pack(8, how=functools.partial(best_fit, bins=8))) == "pack(8, how=partial(best_fit, bins=8))"
    assert repr(pack({"x": 2}, value={"x": -1})) == "pack({'x': 2}, value={'x': -1})"
    stage = pack(8, how=functools.partial(best_fit, bins=8))
    assert pickle.loads(pickle.dumps(stage)) == stage != pack(8)


# Together in a batch


def varied(number):
    """Sequences of one of several forms, of plain dtypes and others."""
    length = number * 7 % 9 + 1
    plain = np.arange(number, number + length)
    return {
        "bare": plain.astype(np.uint16),
        "strided": np.arange(2 * length, dtype=np.int16)[::2],
        "list": [*range(length)],
        "pair": (plain, plain / 2),
        "listed": [plain, plain > number],
        "named": {"tokens": plain.astype(np.uint8), "mask": plain % 2 == 0},
        "turning": plain.astype([np.uint8, np.uint8, np.int64][number // 9 % 3]),
        "swapped": plain.astype(">i4"),
        "deep": np.ones((length, 2), np.float32) * number,
        "masked": np.ma.masked_equal(plain, number),
        "texts": np.array(["a"] * length),
    }


@pytest.mark.parametrize("how", PACKERS)
def test_a_batch_of_rows_is_the_same_whether_they_are_made_before_or_together(how):
    for form in varied(0):
        data = [varied(number)[form] for number in range(40)]
        for options in ({}, {"drop_remainder": True}, {"collate": ff.as_list}, {"collate": None}):
            packed = ff.pack(10, data, how=how, value="" if form == "texts" else 0)
            together, before = (ff.pipe(packed, *stages, ff.batch(3, **options)) for stages in ([], [ff.map(kept)]))
            for one, other in zip(together, before, strict=True):
                assert same(one, other), (form, options)
                assert type(one) is type(other), (form, options)


def kept(datapoint):
    return datapoint


def test_large_batches_of_rows_are_those_of_small_ones():
    data = [np.full(n % 700 + 1, n % 251, np.uint8) for n in range(3000)]
    small = ff.pipe(ff.pack(4096, data, how=concat_then_split), ff.batch(4))
    large = ff.pipe(ff.pack(4096, data, how=concat_then_split), ff.batch(100))
    joined = [np.concatenate(arrays) for arrays in zip(*large)]
    assert same(joined, [np.concatenate(arrays) for arrays in zip(*small)])
    assert all(array.flags.writeable for batch in small for array in batch)


def test_what_is_amiss_with_a_row_is_told_of_pack_where_rows_are_made_together():
    named = [{"tokens": [1, 2], "positions": [0, 1]}] * 3
    for data, words, options in ((named, "have the key", {}), ([[1, 2]] * 3, "is no int64", {"value": 0.5})):
        with pytest.raises(ValueError, match=words) as caught:
            list(ff.pipe(ff.pack(2, data, **options), ff.batch(2)))
        assert "in pack(2" in str(caught.value.__notes__)


def test_a_batch_of_rows_goes_on_from_every_state():
    data = [np.arange(n * 5 % 7 + 1) for n in range(30)]
    check(lambda: ff.pipe(ff.pack(6, data, how=concat_then_split), ff.batch(3)))
