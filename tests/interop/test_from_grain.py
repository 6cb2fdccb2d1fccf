"""What Grain does where a row of examples/from_others.md tells of a difference, beside what is done here."""

import numpy as np
import pytest
from beside import ROWS, listed, odd, plain

import flowfn as ff

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def grain():
    grain = pytest.importorskip("grain")
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # before that its loader starts no workers
    return grain


def test_an_index_goes_round_in_grain(grain):
    """A MapDataset is "virtually infinite": its length is that of one epoch (grain 0.2.18)."""
    numbers = grain.MapDataset.range(3)
    assert (len(numbers), numbers[5]) == (3, 2)
    with pytest.raises(IndexError):
        ff.flow(range(3))[5]
    with pytest.raises(ValueError, match="requires a seed"):
        numbers.shuffle()


@pytest.mark.parametrize(("size", "lost"), [(65_536, 0), (4**8 + 1, 1)])
def test_a_shuffle_of_grain_loses_a_record_of_65537(grain, size, lost):
    """The last record never comes, and another comes twice, whatever the seed (grain 0.2.18; 4**9 + 1 and 4**10 + 1
    likewise, findings/grain_shuffle_loses_a_record.sh)."""
    shuffled = grain.MapDataset.range(size).shuffle(seed=0)
    assert {*range(size)} - {shuffled[i] for i in range(size)} == {*range(size - lost, size)}
    assert len({*ff.shuffle(range(size))}) == size


def test_windows_of_grain_are_shuffled_by_themselves(grain):
    theirs = [*grain.experimental.WindowShuffleMapDataset(grain.MapDataset.range(40), window_size=8, seed=1)]
    assert all(sorted(theirs[i : i + 8]) == [*range(i, i + 8)] for i in range(0, 40, 8))
    ours = [*ff.shuffle(range(40), window=8)]
    assert any(sorted(ours[i : i + 8]) != [*range(i, i + 8)] for i in range(0, 40, 8))
    assert max(abs(i - x) for i, x in enumerate(ours)) < 8


def test_none_is_a_hole_in_grain(grain):
    numbers, holed = grain.MapDataset.range(4), lambda x: None if x == 1 else x
    assert [*numbers.map(holed)] == [0, 2, 3]
    assert [*ff.map(holed, range(4))] == [0, None, 2, 3]
    filtered = numbers.filter(odd)
    assert ([*filtered], len(filtered), filtered[0]) == ([1, 3], 4, None)
    with pytest.raises(ValueError, match="can not follow"):
        filtered.batch(2)
    assert [*ff.filter(odd, range(4))] == [1, 3]


def test_grain_draws_by_a_generator_of_the_datapoint_too(grain):
    draw = lambda x, rng: (x, rng.random())
    for source in (grain.MapDataset.range(4).seed(1).random_map(draw), ff.map(draw, range(4), rng=True)):
        number = source[2][1]
        numbers = [one for _, one in source]
        assert numbers[2] == number
        assert len({*numbers}) == 4


def test_grain_gives_a_function_index_and_datapoint(grain):
    theirs = grain.MapDataset.source("abc").map_with_index(lambda i, x: (i, x))
    assert [*theirs] == [*ff.enumerate([*"abc"])] == [*ff.pipe([*"abc"], ff.enumerate(), ff.map(tuple))]


def test_batches_of_grain_are_the_same_but_for_texts(grain):
    theirs, ours = [*grain.MapDataset.source(ROWS).batch(3)], [*ff.batch(3, ROWS)]
    assert listed(theirs) == listed(ours)
    assert [type(one) for batch in (theirs[0], ours[0]) for one in batch[1:]] == [*[np.ndarray] * 5, list]
    assert [one.dtype for one in theirs[0][:3]] == [one.dtype for one in ours[0][:3]]
    theirs = grain.MapDataset.source(ROWS).batch(3, drop_remainder=True)
    assert listed(theirs) == listed(ff.batch(3, ROWS, drop_remainder=True))


def test_rounds_of_grain_are_shuffled_anew(grain):
    for rounds in (
        [*grain.MapDataset.range(20).shuffle(seed=1).repeat(2)],
        [*ff.pipe(range(20), ff.shuffle(), ff.repeat(2))],
    ):
        assert sorted(rounds[:20]) == sorted(rounds[20:]) == [*range(20)]
        assert rounds[:20] != rounds[20:]


@pytest.mark.parametrize("weights", [[1, 1], [2, 1], [1, 3], [0.7, 0.3], [5, 2, 1]], ids=str)
def test_grain_mixes_in_the_same_shares(grain, weights):
    parts = [range(100 * i, 100 * i + 40) for i in range(len(weights))]
    theirs = [*grain.MapDataset.mix([grain.MapDataset.source(part) for part in parts], weights=weights)]
    ours = [*ff.mix(*parts, weights=weights)]
    for mixed in (theirs, ours):
        for count in range(1, 41):
            given = np.bincount([x // 100 for x in mixed[:count]], minlength=len(weights))
            assert np.all(np.abs(given - count * np.array(weights) / sum(weights)) <= 1)
    assert (theirs == ours) == (len({*weights}) == 1)


@pytest.mark.long
def test_workers_of_grain_make_batches_of_their_own_records(grain):
    """So does the batch of an IterDataset before mp_prefetch; and a state names the number of workers."""

    def read(workers):
        sampler = grain.samplers.IndexSampler(6, num_epochs=1)
        batching = [grain.transforms.Batch(2)]
        return iter(grain.DataLoader(data_source=range(6), sampler=sampler, operations=batching, worker_count=workers))

    alone, shared = read(0), read(2)
    assert listed(alone) == listed(ff.batch(2, range(6))) == [[0, 1], [2, 3], [4, 5]]
    state = shared.get_state()
    assert listed(shared) == [[0, 2], [1, 3], [4], [5]]
    with pytest.raises(ValueError, match="Worker count in checkpoint does not match"):
        read(0).set_state(state)
    with iter(ff.pipe(range(6), ff.batch(2), ff.prefetch(2, processes=2))) as ours:
        assert plain(next(ours)) == [0, 1]
        assert listed(ff.batch(2, range(6)).load_state_dict(ours.state_dict())) == [[2, 3], [4, 5]]


@pytest.mark.parametrize("size", [8, 9, 10])
def test_shards_of_grain_are_blocks_and_its_loader_loses_what_is_left(grain, size):
    """Shards are blocks of 4, 3 and 3 of 10 records, and drop_remainder is False; but the loader reads as many of each
    as all have, so record 3 never comes (grain 0.2.18, findings/grain_loader_loses_the_remainder.sh)."""

    def read(rank):
        shards = grain.sharding.ShardOptions(rank, 3)
        sampler = grain.samplers.IndexSampler(size, shard_options=shards, num_epochs=1)
        return [*grain.DataLoader(data_source=range(size), sampler=sampler, worker_count=0)]

    theirs = [read(rank) for rank in range(3)]
    assert theirs[0] == [*range(size // 3)]
    assert {*range(size)} - {x for share in theirs for x in share} == {8: {2, 5}, 9: set(), 10: {3}}[size]
    for rank in range(3):
        assert [*grain.MapDataset.range(size)[rank::3]] == [*ff.shard(rank, 3, range(size))]


def test_a_loader_of_grain_is_a_pipe(grain):
    class Doubled(grain.transforms.Map):
        def map(self, x):
            return 2 * x

    sampler = grain.samplers.IndexSampler(12, shuffle=True, seed=1, num_epochs=2)
    operations = [Doubled(), grain.transforms.Batch(6)]
    theirs = grain.DataLoader(data_source=range(12), sampler=sampler, operations=operations, worker_count=0)
    ours = ff.pipe(range(12), ff.shuffle(), ff.repeat(2), ff.map(lambda x: 2 * x), ff.batch(6))
    for batches in (listed(theirs), listed(ours)):
        assert [len(batch) for batch in batches] == [6] * 4
        assert sorted(batches[0] + batches[1]) == sorted(batches[2] + batches[3]) == [*range(0, 24, 2)]
