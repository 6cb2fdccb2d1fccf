"""Faults that were reported of other libraries that mix, pack and balance: what happens here in the same situation."""

import json
from functools import partial
from itertools import islice

import numpy as np
import pytest

import flowfn as ff


def lengths_of(batch):
    return [len(one) for one in batch]


def runs(lengths):
    return [np.full(length, number) for number, length in enumerate(lengths, 1)]


def test_no_microbatch_has_more_tokens_than_are_allowed():
    """Eight sequences of 7 tokens, and at most 8 in a microbatch: ceil(56 / 8) microbatches are one too few
    (https://github.com/verl-project/verl/pull/7553)."""
    (microbatches,) = ff.batch_by_cost(np.square, runs([7] * 8), ranks=1, size=8, tokens=8, padded=False, collate=None)
    assert [lengths_of(one) for one in microbatches] == [[7]] * 8


@pytest.mark.parametrize("padded", [True, False])
def test_all_ranks_have_as_many_microbatches_though_one_would_need_fewer(padded):
    """Ranks that count their microbatches alone wait for each other for ever
    (https://github.com/verl-project/verl/issues/6176), and where all take the most that any needs, some of them may be
    empty (https://github.com/THUDM/slime/issues/1838)."""
    lengths = [100, 1, 1, 1, 60, 60, 60, 60, 100, 100, 1, 1]
    outputs = list(ff.batch_by_cost(np.square, runs(lengths), ranks=2, size=6, tokens=100, padded=padded, collate=None))
    assert len(outputs) == 4
    for step in (outputs[:2], outputs[2:]):
        assert len({len(microbatches) for microbatches in step}) == 1
    for batch in (batch for microbatches in outputs for batch in microbatches):
        used = len(batch) * max(lengths_of(batch)) if padded else sum(lengths_of(batch))
        assert batch
        assert used <= 100
    assert sorted(one[0] for output in outputs for batch in output for one in batch) == list(range(1, 13))


@pytest.mark.parametrize("count", range(1, 14))
def test_no_rank_is_starved_by_what_does_not_divide(count):
    """Nine sequences on four ranks, ceil(9 / 4) for each: the last has none
    (https://github.com/verl-project/verl/pull/6869)."""
    source = runs([5] * count)
    for flow in (ff.batch_by_cost(np.square, source, ranks=4, size=4), ff.pack(5, source, ranks=4)):
        for remainder, steps in (("drop", count // 4), ("pad", -(-count // 4))):
            ranks = [list(ff.pipe(flow, ff.shard(rank, 4, remainder=remainder))) for rank in range(4)]
            assert [len(outputs) for outputs in ranks] == [steps] * 4


@pytest.mark.parametrize("how", [ff.first_fit, ff.best_fit, partial(ff.balanced_fit, window=512), ff.concat_then_split])
def test_a_row_one_longer_than_a_power_of_two_is_packed_as_well(how):
    """Best fit decreasing packed nothing at all into rows of 2^k + 1 (https://github.com/huggingface/trl/issues/3887)."""
    draw = np.random.default_rng(0)
    source = [np.zeros(n, np.uint8) for n in draw.normal(256, 32, 512).astype(int).clip(10, 512)]
    rows = {length: len(list(ff.pack(length, source, how=how))) for length in (2048, 2049, 2050)}
    assert sum(map(len, source)) / 2048 <= rows[2049] <= rows[2048] < 80


def test_no_token_of_a_long_sequence_is_lost_or_comes_without_what_was_before_it():
    """What does not fit is cut off (https://github.com/huggingface/trl/issues/4554), or the rest is packed as if it
    were a sequence of its own, an answer without its question (https://github.com/huggingface/trl/issues/5075)."""
    chats = [{"tokens": np.arange(10 * n, 10 * n + length)} for n, length in enumerate([5, 2, 3, 9], 1)]
    with pytest.raises(ValueError, match=r"length 5 does not fit into a row of 4; .* flat_map\(split_long\(...\)\)"):
        list(ff.pack(4, chats))
    short = ff.pipe(chats, ff.filter(lambda chat: len(chat["tokens"]) <= 4), ff.pack(4))
    assert [row["tokens"].tolist() for row in short] == [[20, 21, 0, 0], [30, 31, 32, 0]]
    split = ff.pipe(chats, ff.flat_map(ff.split_long(4, overlap=2, mask="counts")), ff.pack(4, how=ff.best_fit))
    counted = np.concatenate([row["tokens"][row["counts"]] for row in split])
    assert sorted(counted.tolist()) == sorted(token for chat in chats for token in chat["tokens"].tolist())
    for row in split:
        starts = np.flatnonzero((row["positions"] == 0) & (row["segment_ids"] > 0))
        assert all(row["counts"][at] or row["tokens"][at] % 10 for at in starts)


def test_a_label_for_each_sequence_comes_through_a_packed_row():
    """A whole number as label was sliced as if it were one for each token
    (https://github.com/huggingface/transformers/issues/41652)."""
    source = [{"tokens": [0, 1, 2, 3], "label": 1}, {"tokens": [4, 5, 6], "label": 0}, {"tokens": [7], "label": 1}]
    flow = ff.pipe(source, ff.pack(8, keep="label"), ff.batch(1, collate={"label": ff.as_list}))
    (batch,) = flow
    assert batch["label"] == [[1, 0, 1]]
    ends, longest = ff.cu_seqlens(batch["segment_ids"])
    assert (ends.tolist(), longest) == ([0, 4, 7, 8], 4)


def test_texts_without_tokens_are_no_segments_of_length_zero():
    """Kernels for sequences of variable length failed on empty ones
    (https://github.com/Dao-AILab/flash-attention/issues/1537, https://github.com/Dao-AILab/flash-attention/issues/2562)."""
    texts = [np.arange(length) for length in (0, 3, 0, 0, 1, 2, 0)]
    for how in (ff.first_fit, ff.best_fit, ff.balanced_fit, ff.concat_then_split):
        for segment_ids in (row[1] for row in ff.pack(4, texts, how=how)):
            for padding in (True, False):
                ends, longest = ff.cu_seqlens(segment_ids, padding=padding)
                assert (np.diff(ends) > 0).all()
                assert longest == np.diff(ends).max()
        assert sum(int((row[1] > 0).sum()) for row in ff.pack(4, texts, how=how)) == 6


def test_all_without_repeating_goes_on_when_the_first_has_ended():
    """It stopped with the shortest (https://github.com/huggingface/datasets/issues/7954)."""
    sources = [0, 1, 2], [10, 11, 12, 13], [20, 21, 22]
    assert list(ff.mix(*sources, until="all")) == [0, 10, 20, 1, 11, 21, 2, 12, 22, 13]


@pytest.mark.parametrize("shuffle", [ff.shuffle(), ff.shuffle_buffer(1000)])
def test_a_mix_that_is_shuffled_behind_has_still_all_of_every_source(shuffle):
    """Shuffled, it ended before its sources had (https://github.com/huggingface/datasets/issues/5812)."""
    sources = range(3), range(10, 14), range(20, 23)
    mixed = ff.mix(*sources, weights=[0.2, 0.6, 0.2], until="cycle_all")
    shuffled = list(ff.pipe(mixed, shuffle))
    assert sorted(shuffled) == sorted(mixed)
    assert set(shuffled) == {number for source in sources for number in source}


def test_a_weight_near_zero_takes_no_more_than_there_is():
    """Blended by counts that were rounded up, a source was read beyond its end
    (https://github.com/NVIDIA/Megatron-LM/issues/705)."""
    rare, usual = range(10), range(1000, 1999)
    mixed = ff.mix(rare, usual, weights=[0.001, 0.999])
    whole = list(mixed)
    assert [mixed[k] for k in range(len(mixed))] == whole
    given = sum(one in rare for one in whole)
    assert given in (1, 2)
    assert set(usual) <= set(whole)
    for k in range(1, len(whole)):
        assert abs(sum(one in rare for one in whole[:k]) - k * 0.001) < 2


def packed(world=1, rank=0):
    rows = ff.pipe(
        range(100),
        ff.shuffle(),
        ff.map(lambda n: np.full(1 + n % 7, n)),
        ff.pack(16),
        ff.repeat(3),
        ff.shard(rank, world),
        ff.batch(2),
    )
    return ff.pipe(rows, ff.map(lambda batch: batch[0].tolist()))


@pytest.mark.parametrize("k", [1, 7, 13, 20, 31])
def test_what_waits_for_a_row_is_not_lost_where_a_pass_goes_on(k):
    """What did not fit was in nobody's state (https://github.com/pytorch/torchtitan/pull/3008), or rows were counted
    as if they were sequences, and came again (https://github.com/mosaicml/llm-foundry/pull/1277): within an epoch, and
    when the data has begun again."""
    whole = list(packed())
    with iter(packed()) as iterator:
        given, state = list(islice(iterator, k)), json.loads(json.dumps(iterator.state_dict()))
    assert given + list(packed().load_state_dict(state)) == whole


def test_a_pass_that_went_on_once_goes_on_again():
    """After the first resume the state stood still, and the second began anew
    (https://github.com/huggingface/datasets/issues/8308)."""
    whole, state, given = list(packed()), packed().state_dict(), []
    for k in (5, 9, 4):
        with iter(packed().load_state_dict(json.loads(json.dumps(state)))) as iterator:
            given += islice(iterator, k)
            state = iterator.state_dict()
        assert state["position"] == len(given)
    assert given + list(packed().load_state_dict(state)) == whole


def test_what_still_waits_when_the_data_ends_is_packed():
    """It was asserted that nothing did (https://github.com/NVIDIA/Megatron-Energon/issues/114)."""
    for how in (ff.first_fit, ff.best_fit, partial(ff.balanced_fit, ranks=3), partial(ff.best_fit, bins=64)):
        rows = list(ff.pack(10, runs([6, 6, 6, 7, 1]), how=how))
        assert sorted(token for row in rows for token in set(row[0].tolist()) - {0}) == [1, 2, 3, 4, 5]


def test_a_state_goes_to_fewer_and_to_more_ranks_and_nothing_is_missing():
    """The state of four ranks was loaded by two without a word, and half of it was missing
    (https://github.com/pytorch/torchtitan/pull/816)."""

    def rows(flow):
        return [row for batch in flow for row in batch]

    def in_turn(ranks):
        return sorted(row for rank in ranks for row in rows(rank))

    with iter(packed(4, 2)) as iterator:
        state = [next(iterator) for _ in range(3)] and iterator.state_dict()
    whole = rows(packed())
    for world in (1, 2, 4, 8):
        left = in_turn(packed(world, rank).load_state_dict(state) for rank in range(world))
        assert left == sorted(whole[24:])

    def early(rank, world):
        return ff.pipe(range(40), ff.shard(rank, world), ff.shuffle(), ff.map(lambda n: [n] * 3), ff.pack(9))

    with iter(early(0, 4)) as iterator:
        state = next(iterator) and iterator.state_dict()
    with pytest.raises(ValueError, match="the state is of rank 0 of 4, this flow is rank 0 of 2"):
        early(0, 2).load_state_dict(state)


@pytest.mark.parametrize("given", [0, 3, 12], ids=["not begun", "within", "at its end"])
def test_a_mix_goes_on_from_any_moment_and_its_next_pass_is_whole(given):
    """A state from before the first step, or from behind the last, was an error, or cut all epochs to come
    (https://github.com/Lightning-AI/litData/issues/331, https://github.com/mosaicml/streaming/pull/700)."""

    def make():
        return ff.pipe(ff.mix({"a": ff.shuffle(range(8)), "b": range(8, 24)}, weights=[1, 2]), ff.batch(2))

    epochs = [[batch.tolist() for batch in make().run(epoch=epoch)] for epoch in range(3)]
    with iter(make()) as iterator:
        assert [batch.tolist() for batch in islice(iterator, given)] == epochs[0][:given]
        state = iterator.state_dict()
    flow = make().load_state_dict(state)
    rest = [[batch.tolist() for batch in flow] for _ in range(2)]
    assert rest == [epochs[0][given:], epochs[1]]
