"""Stages that say which datapoints come, and when, against itertools and list slices; sequences and streams agree."""

import itertools
import random
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from sources import streamed

import flowfn as ff

SIZES = [0, 1, 2, 5, 7]


def same(stage, data, expected, starts=(0, 1, 3)):
    """A stage over a sequence (read in every way) and over a stream gives what is expected."""
    flow = stage(data)
    assert list(flow) == expected
    assert len(flow) == len(expected)
    assert [flow[i] for i in range(len(expected))] == expected
    assert [flow[-i - 1] for i in range(len(expected))] == expected[::-1]
    in_order = stage(streamed(data))
    assert list(in_order) == expected
    for start in starts:
        assert list(flow.run(start=start)) == list(in_order.run(start=start)) == expected[start:]


# take, skip, slice


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("count", [0, 1, 3, 5, 100])
def test_take_and_skip_are_slices(n, count):
    data = [str(i) for i in range(n)]
    same(ff.take(count), data, data[:count])
    same(ff.skip(count), data, data[count:])
    same(ff.compose(ff.skip(1), ff.take(count), ff.skip(1)), data, data[1:][:count][1:])


def test_take_reads_no_more_than_it_gives():
    read = []

    def source():
        for number in range(100):
            read.append(number)
            yield number

    assert list(ff.take(3, source)) == [0, 1, 2]
    assert read == [0, 1, 2]
    read.clear()
    assert list(ff.take(0, source)) == []
    assert read == []


BOUNDS = [None, 0, 1, 2, 5, 100]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("step", [None, 1, 2, 3, 100])
def test_slice_is_islice(n, step):
    data = [str(i) for i in range(n)]
    for start, stop in itertools.product(BOUNDS, BOUNDS):
        same(ff.slice(start, stop, step), data, list(islice(data, start, stop, step)))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("step", [None, 1, 2, -1, -2, -100])
def test_slice_with_negative_numbers_counts_from_the_end(n, step):
    data = [str(i) for i in range(n)]
    for start, stop in itertools.product([None, -100, -3, -1, 0, 2, 100], repeat=2):
        flow = ff.slice(start, stop, step, data)
        assert list(flow) == data[start:stop:step]
        assert len(flow) == len(data[start:stop:step])


@pytest.mark.parametrize("bounds", [(-2, None, None), (None, -2, None), (None, None, -1)])
def test_negative_slices_of_streams_and_endless_flows_are_refused(bounds):
    with pytest.raises(TypeError, match=r"^slice\(\): negative bounds and steps need a source that can be indexed"):
        list(ff.slice(*bounds, streamed([1])))
    with pytest.raises(TypeError, match=r"^slice\(\): an endless source has no end to count from"):
        len(ff.slice(*bounds, ff.cycle([1])))


def test_endless_flows_take_skip_and_slice():
    counting = ff.cycle(range(10))
    assert list(ff.take(3, counting)) == [0, 1, 2]
    assert list(ff.pipe(counting, ff.skip(25), ff.take(3))) == [5, 6, 7]
    assert list(ff.slice(3, 20, 5, counting)) == [3, 8, 3, 8]
    assert list(ff.slice(5, 2, None, counting)) == []
    assert list(ff.pipe(counting, ff.slice(1, None, 3), ff.take(4))) == [1, 4, 7, 0]
    assert len(ff.take(3, counting)) == 3


# shard


def share(data, rank, world, remainder):
    """What a rank gets, by hand: rows of `world`; the last, short row kept, dropped,
    or filled up from the beginning."""
    short = len(data) % world
    if remainder == "drop":
        data = data[: len(data) - short]
    elif remainder == "pad" and short:
        data = data + [data[i % len(data)] for i in range(world - short)]
    return data[rank::world]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 6, 7, 12])
@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 13])
def test_shards_are_every_world_th_datapoint(n, world, remainder):
    data = [str(i) for i in range(n)]
    for rank in range(world):
        same(ff.shard(rank, world, remainder=remainder), data, share(data, rank, world, remainder))


@pytest.mark.parametrize("make", [ff.flow, streamed])
def test_shards_are_disjoint_and_together_the_whole(make):
    flow = ff.pipe(make(range(50)), ff.map(str))
    parts = [list(ff.shard(rank, 7, flow)) for rank in range(7)]
    assert sorted(itertools.chain(*parts)) == sorted(map(str, range(50)))


def test_shards_of_an_endless_flow():
    for rank in range(3):
        assert list(ff.pipe(range(4), ff.cycle(), ff.shard(rank, 3), ff.take(5))) == [
            (rank + 3 * i) % 4 for i in range(5)
        ]


# subset, split


@pytest.mark.parametrize(
    "indices",
    [[], [0], [2, 0, 0, -1], (1, 1), range(4, 0, -1), np.array([3, 1]), np.array([1], np.uint8), np.array([-5, 4])],
    ids=str,
)
def test_subset_is_fancy_indexing(indices):
    data = list("abcde")
    flow = ff.subset(indices, data)
    assert list(flow) == [data[i] for i in indices]
    assert len(flow) == len(indices)
    assert [flow[i] for i in range(len(indices))] == [data[i] for i in indices]


@pytest.mark.parametrize(("indices", "worst"), [([3], 3), ([-4], -4), ([0, 5, 1], 5), ([0, -9], -9)])
def test_subset_out_of_range_says_which(indices, worst):
    with pytest.raises(IndexError, match=rf"^subset\(\): index {worst} is out of range for 3 datapoints"):
        list(ff.subset(indices, range(3)))


@pytest.mark.parametrize("indices", [[True, False, True], np.array([True, False, True])])
def test_subset_by_a_mask_names_flatnonzero(indices):
    with pytest.raises(
        TypeError, match=r"^subset\(\): indices must be integers, got booleans; write np.flatnonzero\(mask\)"
    ):
        list(ff.subset(indices, range(3)))


def test_subset_by_what_is_no_indices_is_refused():
    for indices in (3, "ab", {0: 1}, None):
        with pytest.raises(TypeError, match=r"^subset\(\): indices must be a sequence of integers, got "):
            ff.subset(indices)
    for indices in ([0.5], ["a"], np.zeros((2, 2), int)):
        with pytest.raises((TypeError, ValueError)):
            list(ff.subset(indices, range(3)))


def test_subset_leaves_its_indices_alone():
    indices = np.array([-1, 0])
    list(ff.subset(indices, range(3)))
    assert indices.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("n", "fractions", "sizes"),
    [
        (10, (0.8, 0.2), [8, 2]),
        (10, (0.5,), [5]),
        (10, (0.1,) * 10, [1] * 10),
        (10, (0.25, 0.25, 0.5), [2, 3, 5]),  # cut at round(2.5) = 2 and round(5.0) = 5
        (10, (7, 3), [7, 3]),
        (10, (1, 0, 2), [1, 0, 2]),
        (10, (1.0,), [10]),
        (10, (0.0, 1.0), [0, 10]),
        (0, (0.5, 0.5), [0, 0]),
        (1, (0.9, 0.1), [1, 0]),
        (10, (np.int64(4), np.int64(6)), [4, 6]),
    ],
)
def test_split_cuts_into_disjoint_parts_of_these_sizes(n, fractions, sizes):
    parts = ff.split(range(n), *fractions)
    assert [len(part) for part in parts] == sizes
    everything = list(itertools.chain(*parts))
    assert len(everything) == len(set(everything)) == sum(sizes)
    assert set(everything) <= set(range(n))


def test_split_parts_are_the_same_in_every_epoch_and_under_every_seed_but_their_own():
    train, test = ff.split(range(100), 0.8, 0.2)
    assert (
        list(test)
        == list(test)
        == list(test.run(seed=9, epoch=5))
        == list(ff.split(range(100), 0.8, 0.2)[1].reset_state(3))
    )
    assert set(test) != set(ff.split(range(100), 0.8, 0.2, seed=1)[1])
    assert set(test) != set(range(80, 100))
    shuffled = ff.pipe(train, ff.shuffle(), ff.repeat(2))
    assert set(shuffled).isdisjoint(test)


def test_split_of_a_flow_with_randomness_is_frozen():
    train, _ = ff.split(ff.map(lambda x, rng: (x, rng.random()), range(20), rng=True), 0.5, 0.5)
    assert list(train.run(epoch=0)) == list(train.run(epoch=1, seed=4))


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.8, 0.3), "split(): the fractions (0.8, 0.3) are more than the 10 datapoints there are"),
        ((8, 3), "split(): the fractions (8, 3) are more than the 10 datapoints there are"),
        (
            (0.5, 5),
            "split(): give all fractions as shares (floats) or all as numbers of datapoints (ints), got (0.5, 5)",
        ),
        ((), "split(): give all fractions as shares (floats) or all as numbers of datapoints (ints), got ()"),
        ((-0.1,), "split(): fractions must be shares between 0 and 1 or numbers of datapoints, got -0.1"),
        ((float("nan"),), "split(): fractions must be shares between 0 and 1 or numbers of datapoints, got nan"),
        (("a",), "split(): fractions must be shares between 0 and 1 or numbers of datapoints, got 'a'"),
    ],
)
def test_split_refuses_what_cannot_be_cut(fractions, message):
    with pytest.raises(ValueError, match="split") as caught:
        ff.split(range(10), *fractions)
    assert str(caught.value) == message


def test_split_of_a_stream_is_refused():
    with pytest.raises(TypeError, match=r"needs a source that can be indexed"):
        ff.split(streamed([1]), 0.5)


# shuffle, shuffle_buffer


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 5000])
def test_shuffle_gives_each_datapoint_once(n):
    flow = ff.shuffle([str(i) for i in range(n)])
    assert sorted(flow) == sorted(str(i) for i in range(n))
    assert len(flow) == n


def test_shuffle_of_an_endless_flow_names_the_remedy():
    with pytest.raises(
        TypeError, match=r"^shuffle\(\): the source is endless; shuffle before cycle\(\), or use shuffle_buffer\(size\)"
    ):
        list(ff.shuffle(ff.cycle([1])))


@pytest.mark.parametrize("make", [ff.flow, streamed])
@pytest.mark.parametrize("n", [0, 1, 5, 100])
@pytest.mark.parametrize("size", [1, 2, 10, 1000])
def test_shuffle_buffer_gives_each_datapoint_once_and_holds_no_more_than_its_size(make, n, size):
    flow = ff.shuffle_buffer(size, make(range(n)))
    whole = list(flow)
    assert sorted(whole) == list(range(n))
    # datapoint x is read when place x - size is given, so it cannot come before
    assert all(x - size <= place for place, x in enumerate(whole))
    if size == 1:
        assert whole == list(range(n))
    if n == 100 and size > 1:
        assert whole != list(flow)


def test_shuffle_buffer_over_an_endless_flow():
    assert len(list(ff.pipe(range(10), ff.cycle(), ff.shuffle_buffer(5), ff.take(50)))) == 50


# freeze


@pytest.mark.parametrize("make", [ff.flow, streamed])
def test_freeze_changes_nothing_but_randomness(make):
    flow = ff.freeze(ff.map(str, make(range(5))))
    assert list(flow) == list("01234")
    noisy = ff.pipe(make(range(20)), ff.filter(lambda x, rng: rng.random() < 0.5, rng=True), ff.freeze(seed=4))
    assert list(noisy) == list(noisy) == list(noisy.run(seed=8, epoch=2))


# repeat, cycle


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_repeat_gives_the_source_so_many_times(n, count):
    data = [str(i) for i in range(n)]
    same(ff.repeat(count), data, data * count)
    same(ff.compose(ff.repeat(2), ff.repeat(count)), data, data * 2 * count)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_cycle_is_pythons_cycle(n):
    data = [str(i) for i in range(n)]
    for source in (data, streamed(data)):
        assert list(ff.pipe(source, ff.cycle(), ff.take(12))) == list(islice(itertools.cycle(data), 12))
        assert list(islice(ff.cycle(source), 12)) == list(islice(itertools.cycle(data), 12))
        assert list(islice(ff.cycle(source).run(start=1001), 5)) == list(islice(itertools.cycle(data), 1001, 1006))


def test_cycle_of_nothing_is_an_error_and_no_endless_loop():
    for source in ([], ff.filter(bool, [0, 0]), streamed([])):
        with pytest.raises(ValueError, match=r"^cycle\(\): .*an empty source cannot be cycled"):
            next(iter(ff.cycle(source)))


def test_a_later_round_without_output_is_an_error_too():
    rounds = iter([[1, 2], [], [3]])
    iterator = iter(ff.cycle(lambda: next(rounds)))
    assert [next(iterator), next(iterator)] == [1, 2]
    with pytest.raises(ValueError, match=r"^cycle\(\): round 1 gave no datapoint; an empty source cannot be cycled"):
        next(iterator)


def test_repeat_of_nothing_is_nothing():
    for source in ([], streamed([]), ff.filter(bool, [0])):
        assert list(ff.repeat(3, source)) == []
        assert list(ff.repeat(0, source)) == []
    assert list(ff.repeat(10**9, [])) == []
    with pytest.raises(ValueError, match=r"repeat\(\): rounds 0 to 999 gave no datapoint"):
        list(ff.repeat(10**9, streamed([])))


def test_a_round_of_repeat_without_output_is_skipped_or_refused_but_never_loses_the_others():
    rounds = iter([[1], [], [2]])
    try:
        got = list(ff.repeat(3, lambda: next(rounds)))
    except ValueError as error:
        assert "round 1" in str(error)  # noqa: PT017
    else:
        assert got == [1, 2]


def test_rounds_are_newly_random():
    flow = ff.pipe(range(30), ff.shuffle(), ff.repeat(3))
    whole = list(flow.run(epoch=0))
    rounds = [whole[i : i + 30] for i in (0, 30, 60)]
    assert all(sorted(one) == list(range(30)) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 3
    assert [flow.set_epoch(0)[i] for i in range(90)] == whole


def test_repeats_read_in_any_order():
    flow = ff.pipe(range(10), ff.shuffle(), ff.map(lambda x, rng: (x, rng.random()), rng=True), ff.repeat(4))
    whole = list(flow.run(epoch=0))
    indices = [random.Random(0).randrange(40) for _ in range(300)]
    assert list(ff.subset(indices, flow).run(epoch=0)) == [whole[i] for i in indices]
    assert list(ff.pipe(flow, ff.slice(None, None, -3)).run(epoch=0)) == whole[::-3]


# Orders of orders, and long ones


@pytest.mark.parametrize("seed", range(20))
def test_orders_of_orders_are_slices_of_slices(seed):
    rng = random.Random(seed)
    data = list(range(rng.choice([0, 1, 7, 30, 5000])))
    flow, expected = ff.flow(data), data
    in_order = streamed(data)
    for _ in range(5):
        word = rng.choice(["take", "skip", "slice", "shard", "repeat", "concat"])
        if word in ("take", "skip"):
            count = rng.randrange(20)
            stage = getattr(ff, word)(count)
            flow, in_order, expected = (
                stage(flow),
                stage(in_order),
                expected[:count] if word == "take" else expected[count:],
            )
        elif word == "slice":
            bounds = rng.randrange(5), rng.randrange(40), rng.randrange(1, 4)
            flow, in_order, expected = ff.slice(*bounds, flow), ff.slice(*bounds, in_order), expected[slice(*bounds)]
        elif word == "shard":
            world = rng.randrange(1, 4)
            rank, remainder = rng.randrange(world), rng.choice(["keep", "drop", "pad"])
            flow, in_order = (ff.shard(rank, world, one, remainder=remainder) for one in (flow, in_order))
            expected = share(expected, rank, world, remainder)
        elif word == "repeat":
            flow, in_order, expected = ff.repeat(2, flow), ff.repeat(2, in_order), expected * 2
        else:
            flow, in_order, expected = ff.concat(flow, flow), ff.concat(in_order, in_order), expected * 2
    assert list(flow) == list(in_order) == expected
    assert [flow[i] for i in range(0, len(expected), 97)] == expected[::97]
    assert list(in_order.run(start=4)) == list(flow.run(start=4)) == expected[4:]


def test_a_list_of_ten_million_is_never_copied():
    data = [None] * 10**7
    tracemalloc.start()
    try:
        flow = ff.pipe(data, ff.shuffle(), ff.map(lambda x: x), ff.shard(1, 3), ff.repeat(2), ff.batch(128))
        assert len(flow) == -(-2 * 3_333_333 // 128)
        iterator = iter(flow)
        list(islice(iterator, 20))
        iterator.state_dict()
        flow[-1], repr(flow), flow[5:7]
        list(ff.pipe(data, ff.slice(None, None, -1), ff.take(5)))
        list(islice(ff.cycle(data), 5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**21


def test_the_length_of_something_enormous_is_exact():
    assert len(ff.pipe(range(10**15), ff.shuffle(), ff.skip(1), ff.batch(7))) == -(-(10**15 - 1) // 7)
    assert ff.pipe(range(10**15), ff.repeat(1000))[10**18 - 1] == 10**15 - 1
