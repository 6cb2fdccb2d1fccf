"""Datapoints in copies and in epochs of a length of one's own, against itertools and tensorpack's data flows."""

import itertools
import json
import pickle
from itertools import islice

import more_itertools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Counted, noisy, streamed

import flowfn as ff
from flowfn.flows.schema import sealed
from flowfn.testing import check

WORKERS = ({}, {"threads": 2}, {"processes": 2})
calm = settings(max_examples=100, deadline=None, derandomize=True)


def odd(datapoint):
    return datapoint % 2 == 1


class CountedStream:
    """An iterable that notes what is read of it."""

    def __init__(self, n):
        self.n, self.read = n, []

    def __iter__(self):
        for number in range(self.n):
            self.read.append(number)
            yield number


def stopped(flow, k):
    """The state after k outputs, through text."""
    with iter(flow) as iterator:
        assert len(list(islice(iterator, k))) == k
        return json.loads(json.dumps(iterator.state_dict()))


# tensorpack's data flows, as they are iterated


class RepeatedDataPoint:
    def __init__(self, ds, nr):
        self.ds, self.nr = ds, nr

    def __iter__(self):
        for dp in self.ds:
            for _ in range(self.nr):
                yield dp


class FixedSizeData:
    def __init__(self, ds, size, keep_state=True):
        self.ds, self.size, self.keep_state, self.itr = ds, size, keep_state, None

    def __iter__(self):
        if self.itr is None:
            self.itr = iter(self.ds)
        given = 0
        while True:
            try:
                dp = next(self.itr)
            except StopIteration:
                self.itr = iter(self.ds)
                dp = next(self.itr)
            given += 1
            yield dp
            if given == self.size:
                if not self.keep_state:
                    self.itr = None
                return


# repeat_each


@calm
@given(st.lists(st.one_of(st.none(), st.integers())), st.integers(1, 5), st.integers(0, 30))
def test_repeat_each_is_itertools_repeat_and_tensorpacks_repeated_data_point(data, times, start):
    expected = list(itertools.chain.from_iterable(itertools.repeat(datapoint, times) for datapoint in data))
    assert expected == list(more_itertools.repeat_each(data, times)) == list(RepeatedDataPoint(data, times))
    flow = ff.repeat_each(times, data)
    assert list(flow) == list(ff.repeat_each(times, streamed(data))) == expected
    assert len(flow) == len(expected)
    assert [flow[i] for i in range(len(expected))] == expected
    assert (
        list(flow.run(start=start)) == list(ff.repeat_each(times, streamed(data)).run(start=start)) == expected[start:]
    )


def test_the_copies_are_one_object_read_once():
    source = CountedStream(3)
    flow = ff.pipe(source, ff.map(lambda x: [x]), ff.repeat_each(3))
    given = list(flow)
    assert source.read == [0, 1, 2]
    assert [len({id(copy) for copy in given[i : i + 3]}) for i in (0, 3, 6)] == [1, 1, 1]


def test_every_copy_is_augmented_in_its_own_way_and_alike_over_sequences_and_streams():
    def made(source):
        return ff.pipe(source, ff.repeat_each(3), ff.map(noisy, rng=True))

    whole = list(made(range(10)).run(epoch=2))
    assert [datapoint for datapoint, _ in whole] == list(RepeatedDataPoint(range(10), 3))
    assert len({noise for _, noise in whole}) == 30
    assert list(made(streamed(range(10))).run(epoch=2)) == whole
    assert list(made(ff.filter(lambda x: True, range(10))).run(epoch=2)) == whole
    for start in range(31):
        assert list(made(streamed(range(10))).run(epoch=2, start=start)) == whole[start:]
    assert not set(whole) & set(made(range(10)).run(epoch=3))


def test_what_is_drawn_before_repeat_each_is_the_same_in_every_copy():
    for source in (range(10), streamed(range(10))):
        given = list(ff.pipe(source, ff.map(noisy, rng=True), ff.repeat_each(2)))
        assert given[::2] == given[1::2]
        assert len(set(given)) == 10


def test_ranks_that_share_copies_augment_them_as_one_would():
    def made(source, *stages):
        return ff.pipe(source, ff.repeat_each(2), *stages, ff.map(noisy, rng=True))

    for source in (range(9), streamed(range(9)), ff.filter(odd, range(20))):
        whole = list(made(source))
        assert [list(made(source, ff.shard(rank, 4))) for rank in range(4)] == [whole[rank::4] for rank in range(4)]


def test_repeat_each_of_endless_flows():
    assert list(ff.pipe(streamed(itertools.count()), ff.repeat_each(2), ff.take(5))) == [0, 0, 1, 1, 2]
    endless = ff.pipe([1, 2], ff.cycle(), ff.repeat_each(3))
    assert list(islice(endless, 8)) == [1, 1, 1, 2, 2, 2, 1, 1]
    assert endless[3 * 10**12 + 3] == 2
    assert ff.repeat_each(10**9, range(10**9))[10**18 - 1] == 10**9 - 1


def test_repeat_each_resumes_at_the_datapoint_it_stood_at():
    for k in (0, 1, 1000, 1001, 1002, 2999):
        source = Counted(1000)

        def make_flow(source=source):
            return ff.pipe(source, ff.filter(lambda x: True), ff.repeat_each(3))

        expected = list(RepeatedDataPoint(range(1000), 3))
        state = stopped(make_flow(), k)
        source.read.clear()
        assert list(islice(iter(make_flow().load_state_dict(state)), 5)) == expected[k : k + 5]
        assert len(source.read) <= 4


def test_copies_of_batches_resume_at_the_batch_they_stood_at():
    for k in (100, 101, 102, 103, 2000, 2001):
        source = Counted(10000)

        def make_flow(source=source):
            return ff.pipe(source, ff.filter(odd), ff.batch(2, collate=ff.as_list), ff.map(tuple), ff.repeat_each(3))

        expected = list(islice(make_flow(), k + 5))[k:]
        state = stopped(make_flow(), k)
        source.read.clear()
        assert list(islice(iter(make_flow().load_state_dict(state)), 5)) == expected
        assert len(source.read) < 30


def test_repeat_each_gathers_rows_of_arrays():
    flow = ff.pipe(ff.from_arrays(np.arange(4), np.arange(8).reshape(4, 2)), ff.repeat_each(2), ff.batch(3))
    first, second = flow[1]
    np.testing.assert_array_equal(first, [1, 2, 2])
    np.testing.assert_array_equal(second, [[2, 3], [4, 5], [4, 5]])


# epoch_of


@calm
@given(st.integers(1, 7), st.integers(1, 20), st.integers(1, 4))
def test_epoch_of_is_tensorpacks_fixed_size_data(n, size, epochs):
    reference = FixedSizeData(list(range(n)), size)
    expected = [list(reference) for _ in range(epochs)]
    for source in (list(range(n)), streamed(range(n))):
        flow = ff.epoch_of(size, source)
        assert len(flow) == size
        assert [list(flow) for _ in range(epochs)] == expected
        assert list(flow.run(epoch=epochs - 1, start=1)) == expected[-1][1:]


@calm
@given(st.integers(1, 7), st.integers(1, 20), st.integers(1, 4))
def test_take_of_cycle_is_fixed_size_data_that_keeps_no_state(n, size, epochs):
    reference = FixedSizeData(list(range(n)), size, keep_state=False)
    expected = [list(reference) for _ in range(epochs)]
    for source in (list(range(n)), streamed(range(n))):
        flow = ff.take(size, ff.cycle(source))
        assert [list(flow) for _ in range(epochs)] == expected


@pytest.mark.parametrize(
    "make_source", [lambda: range(10), lambda: streamed(range(10)), lambda: ff.filter(odd, range(20))]
)
def test_epochs_end_to_end_are_the_epochs_of_the_source_end_to_end(make_source):
    source = ff.pipe(make_source(), ff.map(noisy, rng=True), ff.shuffle_buffer(4))
    rounds = [datapoint for number in range(12) for datapoint in source.run(seed=5, epoch=number)]
    flow = ff.epoch_of(7, source).reset_state(5)
    assert [list(flow) for _ in range(15)] == [rounds[7 * e : 7 * e + 7] for e in range(15)]
    assert [list(flow.run(epoch=e)) for e in (9, 0, 4)] == [rounds[63:70], rounds[:7], rounds[28:35]]


def test_an_epoch_does_not_depend_on_what_was_read_before():
    for source in (range(10), streamed(range(10))):
        flow = ff.pipe(source, ff.map(noisy, rng=True), ff.epoch_of(4), ff.map(noisy, rng=True))
        in_turn = [list(flow) for _ in range(6)]
        assert list(flow.set_epoch(4)) == in_turn[4]
        with iter(flow.set_epoch(2)) as iterator:
            next(iterator)
        assert list(flow) == in_turn[3]
        assert list(flow.run(epoch=1)) == in_turn[1]
        assert len({noise for epoch in in_turn for _, noise in epoch}) == 24


def test_epoch_of_is_indexed_in_the_epoch_to_come():
    flow = ff.pipe(range(10), ff.shuffle(), ff.epoch_of(7))
    epochs = [list(flow.run(epoch=e)) for e in range(3)]
    for e in range(3):
        flow.set_epoch(e)
        assert [flow[i] for i in (6, 0, -1)] == [epochs[e][6], epochs[e][0], epochs[e][6]]
        assert flow.__getitems__([3, 3, 1]) == [epochs[e][3], epochs[e][3], epochs[e][1]]
        with pytest.raises(IndexError):
            flow[7]
    assert sorted(epochs[0] + epochs[1][:3]) == list(range(10))
    huge = ff.epoch_of(10**12, range(10**6)).set_epoch(10**5)
    assert (len(huge), huge[10**11 + 3]) == (10**12, 3)


def test_epoch_of_an_endless_flow_goes_on_in_it():
    for source in (ff.cycle([1, 2, 3]), ff.cycle(streamed([1, 2, 3])), ff.flow(lambda: itertools.cycle([1, 2, 3]))):
        flow = ff.epoch_of(2, source)
        assert [list(flow) for _ in range(3)] == [[1, 2], [3, 1], [2, 3]]
        assert list(flow.run(epoch=7, start=1)) == [1]


def test_epochs_in_epochs():
    for source in (range(5), streamed(range(5))):
        flow = ff.pipe(source, ff.epoch_of(3), ff.epoch_of(4))  # the source goes on and on, however it is cut
        assert list(itertools.chain.from_iterable(list(flow) for _ in range(5))) == [i % 5 for i in range(20)]
        assert [list(ff.pipe(source, ff.epoch_of(3), ff.repeat(2)).run(epoch=e)) for e in (0, 1)] == [
            [0, 1, 2, 3, 4, 0]
        ] * 2


def test_two_flows_of_one_source_agree():
    source = ff.pipe(range(6), ff.shuffle(), ff.map(noisy, rng=True))
    both = ff.zip(ff.epoch_of(4, source), ff.epoch_of(4, source))
    assert all(one == other for _ in range(4) for one, other in both)
    streamed = ff.filter(lambda d: True, source)
    both = ff.concat(ff.epoch_of(4, streamed), streamed)
    for k in range(11):
        state = stopped(both.set_epoch(1), k)
        assert list(ff.concat(ff.epoch_of(4, streamed), streamed).load_state_dict(state)) == list(both.run(epoch=1))[k:]


def test_an_empty_source_has_no_epochs():
    for source in ([], ff.take(0, range(3)), np.zeros((0, 2))):
        with pytest.raises(ValueError, match=r"^epoch_of\(\): the source is empty; an empty source has no epochs$"):
            ff.epoch_of(4, source)
    with pytest.raises(ValueError, match=r"^cycle\(\): round 0 gave no datapoint; an empty source cannot be cycled"):
        list(ff.epoch_of(4, streamed([])))
    rounds = iter([[1, 2], [3], []])
    flow = ff.epoch_of(3, lambda: next(rounds))
    assert list(flow) == [1, 2, 3]
    rounds = iter([[1], []])
    with pytest.raises(ValueError, match="round 1 gave no datapoint"):
        list(ff.epoch_of(3, lambda: next(rounds)).run(epoch=0))


@pytest.mark.parametrize("prefetched", [None, ff.prefetch(3)])
@pytest.mark.parametrize("k", [0, 1, 40, 99, 100])
def test_epoch_of_resumes_without_reading_everything_again(k, prefetched):
    source = Counted(1000)

    def make_flow():
        return ff.pipe(source, ff.filter(odd), prefetched, ff.epoch_of(100))

    expected = [i % 500 * 2 + 1 for i in range(700 + k, 710 + k)]
    state = stopped(make_flow().set_epoch(7), k)
    assert (state["epoch"], state["position"]) == (7, k)
    source.read.clear()
    flow = make_flow().load_state_dict(state)
    with iter(flow) as iterator:
        given = list(islice(iterator, 10))
    assert given == expected[: 100 - k]
    if k:
        assert len(source.read) < 60
    assert list(islice(flow, 10)) == [i % 500 * 2 + 1 for i in range(800, 810)]


@pytest.mark.parametrize("prefetched", [None, ff.prefetch(3)])
def test_later_epochs_start_in_the_round_they_start_in(prefetched):
    """The rounds before it are not read again: not in this process, and not from a state."""
    for source, stages in [(Counted(50), (ff.filter(odd),)), (CountedStream(50), ())]:

        def make_flow(source=source, stages=stages):
            return ff.pipe(source, *stages, prefetched, ff.epoch_of(60))

        flow, reads = make_flow(), []
        for _ in range(20):
            source.read.clear()
            list(flow)
            reads.append(len(source.read))
        assert max(reads) < 300
        state = json.loads(json.dumps(flow.state_dict()))
        assert (state["epoch"], state["position"]) == (20, 0)
        expected = [list(make_flow().run(epoch=e)) for e in (20, 21)]
        resumed = make_flow().load_state_dict(state)
        for e in (0, 1):
            source.read.clear()
            assert list(resumed) == expected[e]
            assert len(source.read) < 300


@pytest.mark.parametrize(
    "stages", [(), (ff.prefetch(3),), (ff.batch(2), ff.unbatch()), (ff.interleave(lambda x: [x] * 2, cycle=3),)]
)
def test_an_epoch_begins_where_the_one_before_ended_however_long_the_round(stages):
    source = Counted(9999)

    def make_flow():
        return ff.pipe(source, ff.filter(odd), *stages, ff.epoch_of(50))

    flow = make_flow()
    for e in range(50):
        source.read.clear()
        assert list(flow) == list(make_flow().run(epoch=e)) if e % 10 == 9 else len(list(flow)) == 50
        assert e % 10 == 9 or len(source.read) < 200
    state = json.loads(json.dumps(flow.state_dict()))
    source.read.clear()
    assert len(list(make_flow().load_state_dict(state))) == 50
    assert len(source.read) < 200


def test_what_is_known_of_a_round_is_not_used_under_another_seed_or_epoch():
    flow = ff.pipe(range(20), ff.filter(lambda x, rng: rng.random() < 0.5, rng=True), ff.epoch_of(30))

    def fresh(seed, epoch):
        return list(
            ff.pipe(range(20), ff.filter(lambda x, rng: rng.random() < 0.5, rng=True), ff.epoch_of(30)).run(
                seed=seed, epoch=epoch
            )
        )

    list(flow), list(flow)
    assert list(flow.reset_state(8).set_epoch(2)) == fresh(8, 2)
    assert list(flow) == fresh(8, 3)
    assert list(flow.set_epoch(1)) == fresh(8, 1)
    assert list(flow.set_epoch(5)) == fresh(8, 5)
    state = flow.state_dict()
    assert state["epoch"] == 6
    state["seed"] = 9
    del state["anchors"]
    assert list(flow.load_state_dict(sealed(state))) == fresh(9, 6)


def test_a_finished_pass_without_epoch_of_leaves_nothing_in_the_state():
    flow = ff.pipe(streamed(range(5)), ff.filter(odd), ff.repeat(2))
    list(flow)
    assert "anchors" not in flow.state_dict()
    assert flow.state_dict() == ff.pipe(streamed(range(5)), ff.filter(odd), ff.repeat(2)).set_epoch(1).state_dict()


# What they have in common


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.repeat_each(0), ValueError, "repeat_each(): count must be a positive integer, got 0"),
        (lambda: ff.repeat_each(1.5), TypeError, "repeat_each(): count must be a positive integer, got 1.5"),
        (lambda: ff.repeat_each([1, 2]), TypeError, "repeat_each(): count must be a positive integer, got [1, 2]"),
        (lambda: ff.repeat_each(), TypeError, "repeat_each(): missing a required argument: 'count'"),
        (lambda: ff.epoch_of(0), ValueError, "epoch_of(): count must be a positive integer, got 0"),
        (lambda: ff.epoch_of(-1, [1]), ValueError, "epoch_of(): count must be a positive integer, got -1"),
        (lambda: ff.epoch_of(True), TypeError, "epoch_of(): count must be a positive integer, got True"),
        (lambda: ff.epoch_of([1, 2]), TypeError, "epoch_of(): count must be a positive integer, got [1, 2]"),
    ],
)
def test_wrong_arguments_are_named_at_once(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


def test_they_are_shown_as_they_were_written_compare_and_pickle():
    stages = [ff.repeat_each(2), ff.repeat_each(3), ff.epoch_of(2), ff.epoch_of(3)]
    assert [repr(stage) for stage in stages] == ["repeat_each(2)", "repeat_each(3)", "epoch_of(2)", "epoch_of(3)"]
    assert all((one == other) == (one is other) for one in stages for other in stages)
    assert pickle.loads(pickle.dumps(stages)) == stages
    assert repr(ff.pipe([1], *stages[1:3])) == "pipe(flow([1]), repeat_each(3), epoch_of(2))"
    flow = pickle.loads(pickle.dumps(ff.pipe([1, 2], *stages[1:3])))
    assert [list(flow) for _ in range(3)] == [[1, 1], [1, 2], [2, 2]]


def test_a_state_of_another_count_is_refused():
    state = stopped(ff.epoch_of(5, range(3)), 2)
    with pytest.raises(ValueError, match="saved by another pipeline"):
        ff.epoch_of(6, range(3)).load_state_dict(state)


SOURCES = [
    lambda: list(range(7)),
    lambda: streamed(range(7)),
    lambda: [None],
    lambda: ff.pipe(range(9), ff.shuffle()),
    lambda: ff.pipe(range(30), ff.filter(lambda x, rng: rng.random() < 0.3, rng=True)),
    lambda: ff.pipe(streamed(range(9)), ff.map(noisy, rng=True), ff.shuffle_buffer(3)),
    lambda: ff.pipe(range(9), ff.interleave(lambda x: ff.pipe([x] * x, ff.map(noisy, rng=True)), cycle=3)),
    lambda: ff.pipe(range(11), ff.filter(odd), ff.batch(2, collate=ff.as_list)),
    lambda: ff.pipe(range(5), ff.prefetch(2)),
    lambda: ff.pipe(streamed(range(9)), ff.shard(1, 2)),
    lambda: ff.pipe(streamed(range(9)), ff.cache()),
]


@pytest.mark.parametrize("source", [*SOURCES, lambda: []])
@pytest.mark.parametrize("count", [1, 3])
def test_repeat_each_keeps_the_laws(source, count):
    check(lambda: ff.pipe(source(), ff.repeat_each(count), ff.map(noisy, rng=True)), epochs=(1,), stops=8)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("count", [3, 14])
def test_epoch_of_keeps_the_laws(source, count):
    check(lambda: ff.pipe(source(), ff.epoch_of(count), ff.map(noisy, rng=True)), epochs=(0, 3), stops=5)


@pytest.mark.parametrize(
    "stages",
    [
        (ff.shuffle_buffer(3),),
        (ff.filter(lambda d: d[0] != 2), ff.batch(2, collate=ff.as_list)),
        (ff.shard(1, 3), ff.map(noisy, rng=True)),
        (ff.freeze(seed=3), ff.repeat(2)),
        (ff.cache(), ff.repeat(2)),
        (ff.repeat(2), ff.repeat_each(2)),
        (ff.enumerate(), ff.skip(2), ff.prefetch(2)),
        (ff.epoch_of(4), ff.epoch_of(6)),
    ],
)
@pytest.mark.parametrize("source", [range(5), streamed(range(5))])
def test_what_follows_epoch_of_keeps_the_laws(source, stages):
    check(lambda: ff.pipe(source, ff.map(noisy, rng=True), ff.epoch_of(8), *stages), epochs=(3,), stops=5)


@pytest.mark.parametrize("workers", WORKERS)
def test_the_laws_in_workers(workers):
    for source in (range(10), streamed(range(10))):
        check(
            lambda source=source: ff.pipe(
                source,
                ff.map(noisy, rng=True),
                ff.repeat_each(2),
                ff.map(noisy, rng=True),
                ff.epoch_of(15),
                ff.map(noisy, rng=True),
            ),
            epochs=(0, 3),
            workers=(workers,),
            stops=4,
        )
