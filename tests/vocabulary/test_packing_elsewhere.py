"""Rows that other libraries pack: what each of them gave for these sequences, or says that it gives."""

from functools import partial

import numpy as np
import pytest

import flowfn as ff


def sequences(lengths):
    """Sequence i holds 100 i, 100 i + 1, ... (i from 1)."""
    return [{"x": np.arange(n) + 100 * i, "id": i} for i, n in enumerate(lengths, 1)]


def as_lists(rows):
    return [
        {name: getattr(value, "tolist", lambda value=value: value)() for name, value in row.items()} for row in rows
    ]


# grain 0.2.18: FirstFitPackIterDataset(length_struct={"x": 8}, num_packing_bins=2, shuffle_bins=False)

TWO_BINS = partial(ff.first_fit, bins=2)


def test_meta_features_of_grain_are_what_is_kept():
    """With meta_features=["id"]."""
    first, second = as_lists(ff.pack(8, sequences([3, 2, 4, 1, 2]), how=TWO_BINS, keep="id"))
    assert (first["id"], second["id"]) == ([1, 2, 4, 5], [3])
    assert first["x"] == [100, 101, 102, 200, 201, 400, 500, 501]
    assert first["positions"] == [0, 1, 2, 0, 1, 0, 0, 1]
    assert first["segment_ids"] == [1, 1, 1, 2, 2, 3, 4, 4]
    assert second["segment_ids"] == [1, 1, 1, 1, 0, 0, 0, 0]


def test_segments_are_aligned_as_in_grain():
    """With pack_alignment_struct={"x": 4}, padding_struct={"x": -1}."""
    rows = ff.pack(8, sequences([3, 2, 4, 1, 2]), how=TWO_BINS, keep="id", multiple=4, value=-1)
    assert [(row["x"], row["positions"], row["segment_ids"]) for row in as_lists(rows)] == [
        ([100, 101, 102, -1, 200, 201, -1, -1], [0, 1, 2, 0, 0, 1, 0, 0], [1, 1, 1, 0, 2, 2, 0, 0]),
        ([300, 301, 302, 303, 400, -1, -1, -1], [0, 1, 2, 3, 0, 0, 0, 0], [1, 1, 1, 1, 2, 0, 0, 0]),
        ([500, 501, -1, -1, -1, -1, -1, -1], [0, 1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]),
    ]


def test_a_row_of_grain_holds_no_more_sequences_than_it_may():
    """With max_sequences_per_bin=2."""
    rows = ff.pack(8, sequences([3, 2, 4, 1, 2]), how=partial(ff.first_fit, bins=2, most=2), keep="id")
    assert [(row["id"], row["x"]) for row in as_lists(rows)] == [
        ([1, 2], [100, 101, 102, 200, 201, 0, 0, 0]),
        ([3, 4], [300, 301, 302, 303, 400, 0, 0, 0]),
        ([5], [500, 501, 0, 0, 0, 0, 0, 0]),
    ]


def test_vectors_are_packed_as_in_grain():
    data = [{"x": np.full((n, 2), i)} for i, n in enumerate([3, 2, 4], 1)]
    first, second = ff.pack(6, data, how=TWO_BINS)
    assert first["x"].tolist() == [[1, 1], [1, 1], [1, 1], [2, 2], [2, 2], [0, 0]]
    assert second["x"].tolist() == [[3, 3]] * 4 + [[0, 0]] * 2
    assert first["segment_ids"].tolist() == [1, 1, 1, 2, 2, 0]


# trl 1.16: pack_dataset(dataset, seq_length) gives rows without padding


def decreasing(lengths, capacity):
    """Best fit of all sequences, the longest first; the fullest rows come as they were opened."""
    order = sorted(enumerate(lengths), key=lambda one: -one[1])
    numbers = [number for number, _ in order]
    rows = ff.best_fit([length for _, length in order], capacity, bins=len(order))
    return ([(numbers[place], start, stop) for place, start, stop in row] for row in rows)


def unpadded(rows):
    return [row["input_ids"][row["segment_ids"] > 0].tolist() for row in rows]


@pytest.mark.parametrize(
    ("length", "data", "wrapped", "fitted"),
    [
        (
            4,
            [[1, 2, 3], [4, 5], [6, 7, 8], [9]],
            [[1, 2, 3, 4], [5, 6, 7, 8], [9]],
            [[1, 2, 3, 9], [6, 7, 8], [4, 5]],
        ),
        (
            7,
            [[1] * 3, [2] * 5, [3] * 2, [4] * 4, [5], [6] * 6, [7] * 3],
            [[1, 1, 1, 2, 2, 2, 2], [2, 3, 3, 4, 4, 4, 4], [5, 6, 6, 6, 6, 6, 6], [7, 7, 7]],
            [[6, 6, 6, 6, 6, 6, 5], [2, 2, 2, 2, 2, 3, 3], [4, 4, 4, 4, 1, 1, 1], [7, 7, 7]],
        ),
    ],
)
def test_rows_are_those_of_trl(length, data, wrapped, fitted):
    """With strategy="wrapped" and "bfd", best fit decreasing."""
    data = [{"input_ids": ids} for ids in data]
    assert unpadded(ff.pack(length, data, how=ff.concat_then_split)) == wrapped
    assert unpadded(ff.pack(length, data, how=decreasing)) == fitted


# seqio: what its documentation of packing shows


def test_inputs_and_targets_share_a_row_as_in_seqio():
    data = [{"inputs": [8, 7, 1], "targets": [4, 1]}, {"inputs": [2, 3, 4, 1], "targets": [5, 6, 1]}]
    (row,) = as_lists(ff.pack({"inputs": 10, "targets": 10}, data))
    assert row == {
        "inputs": [8, 7, 1, 2, 3, 4, 1, 0, 0, 0],
        "inputs_segment_ids": [1, 1, 1, 2, 2, 2, 2, 0, 0, 0],
        "inputs_positions": [0, 1, 2, 0, 1, 2, 3, 0, 0, 0],
        "targets": [4, 1, 5, 6, 1, 0, 0, 0, 0, 0],
        "targets_segment_ids": [1, 1, 2, 2, 2, 0, 0, 0, 0, 0],
        "targets_positions": [0, 1, 0, 1, 2, 0, 0, 0, 0, 0],
    }


# Megatron-LM: get_ltor_masks_and_position_ids(reset_position_ids=True, reset_attention_mask=True) of a sample


def positions_from_ends(tokens, end):
    """They begin anew behind each end of a document, and so does what a token sees."""
    positions, begin = np.arange(len(tokens)), 0
    for place in np.flatnonzero(tokens == end):
        positions[place + 1 :] -= place + 1 - begin
        begin = place + 1
    return positions


def test_positions_are_those_that_megatron_counts_from_the_ends_of_documents():
    texts = [np.arange(1, n + 1) for n in (3, 6, 1, 5, 2)]
    for tokens, ids, positions in ff.pipe(
        texts, ff.map(ff.with_ends(last=0)), ff.pack(8, how=ff.concat_then_split, value=9)
    ):
        real = ids > 0
        np.testing.assert_array_equal(positions[real], positions_from_ends(tokens[real], 0))
        np.testing.assert_array_equal(ids[real], 1 + np.cumsum(np.append(0, tokens[real][:-1] == 0)))


def test_what_attention_takes_is_what_transformers_flattens():
    """transformers 5.24.0, DataCollatorWithFlattening(return_flash_attn_kwargs=True), of sequences of 5, 3 and 8."""
    (row,) = ff.pack(16, sequences([5, 3, 8]), keep="id")
    assert row["positions"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7]
    ends, longest = ff.cu_seqlens(row["segment_ids"])
    assert (ends.tolist(), ends.dtype, longest) == ([0, 5, 8, 16], np.int32, 8)
