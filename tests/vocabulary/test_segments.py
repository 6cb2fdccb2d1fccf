"""Cumulative lengths: attention that keeps to them is the attention of each sequence alone."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowfn as ff

HOWS = [ff.first_fit, ff.best_fit, ff.concat_then_split, partial(ff.first_fit, most=2)]


def test_lengths_are_those_of_segments():
    ends, longest = ff.cu_seqlens([1, 1, 1, 2, 0, 0])
    assert (ends.tolist(), ends.dtype, longest, type(longest)) == ([0, 3, 4, 6], np.int32, 3, int)
    assert ff.cu_seqlens(np.array([1, 1, 1, 2, 0, 0]), padding=False)[0].tolist() == [0, 3, 4]
    assert ff.cu_seqlens(np.zeros(4, np.int32))[0].tolist() == [0, 4]


def test_no_segment_goes_on_in_the_next_row():
    assert ff.cu_seqlens(np.ones((2, 3), int))[0].tolist() == [0, 3, 6]
    assert ff.cu_seqlens(np.zeros((2, 3), int))[0].tolist() == [0, 3, 6]


def test_padding_may_be_all_there_is():
    ends, longest = ff.cu_seqlens(np.zeros((2, 3), int), padding=False)
    assert (ends.tolist(), longest) == ([0], 0)


@pytest.mark.parametrize(
    ("ids", "error"), [(0.5, TypeError), ([0.5], TypeError), (1, ValueError), ([[[1]]], ValueError), ("a", TypeError)]
)
def test_what_are_no_segment_ids_is_refused(ids, error):
    with pytest.raises(error, match=r"cu_seqlens\(\): segment_ids must be integers of shape \(length,\), or \(rows, "):
        ff.cu_seqlens(ids)


def attention(values):
    """Each element's softmax over what came before it, itself included, as queries, keys and values in one."""
    scores = np.where(np.tri(len(values), dtype=bool), values @ values.T / 2, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values


def of_vectors(tokens):
    """A vector (4,) for each token, different for all."""
    return np.sin(np.asarray(tokens)[..., None] * [1.0, 2.0, 3.0, 5.0])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.sampled_from(HOWS), st.sampled_from([1, 4]))
def test_attention_within_segments_is_that_of_each_sequence_alone(lengths, how, multiple):
    sequences = [np.arange(n) + 100 * i for i, n in enumerate(lengths, 1)]
    for tokens, ids, positions in ff.pipe(sequences, ff.pack(12, how=how, multiple=multiple), ff.batch(3)):
        for padding in (True, False):
            ends, longest = ff.cu_seqlens(ids, padding=padding)
            flat = tokens.reshape(-1) if padding else tokens[ids > 0]
            assert ends[-1] == len(flat)
            assert longest == np.diff(ends).max()
            told = [attention(of_vectors(flat[start:stop])) for start, stop in pairwise(ends)]
            within = np.concatenate(told)[(ids > 0).reshape(-1)] if padding else np.concatenate(told)
            alone = attention_of_one_row_each(tokens, ids)
            np.testing.assert_allclose(within, alone, atol=1e-12)
        assert (positions[ids > 0] == np.concatenate([np.arange(n) for n in np.diff(ends)])).all()


def attention_of_one_row_each(tokens, ids):
    """The same, with a mask over each whole row: an element sees what is before it and has the same id."""
    made = []
    for row, own in zip(tokens, ids):
        values = of_vectors(row)
        seen = (own[:, None] == own) & np.tri(len(row), dtype=bool)
        scores = np.where(seen, values @ values.T / 2, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        made.append((weights / weights.sum(-1, keepdims=True) @ values)[own > 0])
    return np.concatenate(made)


def test_torch_reads_them_as_offsets_of_a_nested_tensor():
    torch = pytest.importorskip("torch")
    sequences = [np.arange(n) + 100 * i for i, n in enumerate([5, 3, 7, 2, 1], 1)]
    tokens, ids, _ = next(iter(ff.pipe(sequences, ff.pack(8), ff.batch(3))))
    ends, longest = ff.cu_seqlens(ids, padding=False)
    vectors = torch.from_numpy(of_vectors(tokens[ids > 0]))[:, None]
    nested = torch.nested.nested_tensor_from_jagged(vectors, torch.from_numpy(ends).long(), max_seqlen=longest)
    attend = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True)
    made = torch.cat([attend(*[one.transpose(0, 1)] * 3)[0] for one in nested.unbind()]).numpy()
    np.testing.assert_allclose(made, attention_of_one_row_each(tokens, ids), atol=1e-12)
