"""`cache`: each datapoint is made once, by whoever wants it first, and what comes out cannot be spoilt."""

import itertools
import pickle
from collections import namedtuple
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
from sources import streamed

import flowfn as ff

Pair = namedtuple("Pair", "image label")


@dataclass
class Record:
    image: np.ndarray


def counted(source, *stages):
    """A cached flow and the list of the calls that its map has seen."""
    calls = []
    return ff.pipe(source, ff.map(lambda x: calls.append(x) or x * x), ff.cache(), *stages), calls


@pytest.mark.parametrize("source", [range(6), streamed(range(6))], ids=["sequence", "stream"])
def test_every_datapoint_is_made_once(source):
    flow, calls = counted(source)
    for _ in range(3):
        assert list(flow) == [0, 1, 4, 9, 16, 25]
    assert calls == list(range(6))


@pytest.mark.parametrize("source", [range(6), streamed(range(6))], ids=["sequence", "stream"])
def test_an_unfinished_pass_is_useful_and_is_not_taken_for_a_whole_one(source):
    flow, calls = counted(source)
    assert list(islice(flow, 2)) == [0, 1]
    assert list(flow) == [0, 1, 4, 9, 16, 25]
    assert sorted(calls) == list(range(6))


@pytest.mark.parametrize("source", [range(6), streamed(range(6))], ids=["sequence", "stream"])
def test_two_passes_at_once_share_what_is_known(source):
    flow, calls = counted(source)
    both = list(itertools.chain.from_iterable(zip(flow, flow)))
    assert both[::2] == both[1::2] == [0, 1, 4, 9, 16, 25]
    if flow.seekable:
        assert sorted(calls) == list(range(6))


@pytest.mark.parametrize("source", [range(6), streamed(range(6))], ids=["sequence", "stream"])
@pytest.mark.parametrize("known", [0, 2, 6])
@pytest.mark.parametrize("start", [0, 1, 4, 6])
def test_a_pass_may_start_anywhere_whatever_is_known(source, known, start):
    flow, _ = counted(source)
    list(islice(flow, known))
    assert list(flow.run(start=start)) == [0, 1, 4, 9, 16, 25][start:]
    assert list(flow) == [0, 1, 4, 9, 16, 25]


def test_an_index_makes_only_its_own_datapoint():
    flow, calls = counted(range(10**9))
    assert (flow[3], flow[3], flow[-1]) == (9, 9, (10**9 - 1) ** 2)
    assert calls == [3, 10**9 - 1]


def test_orders_and_batches_over_a_cache_make_each_datapoint_once():
    flow, calls = counted(range(20), ff.shuffle(), ff.batch(3))
    first, second = ([x for batch in flow for x in batch.tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == [x * x for x in range(20)]
    assert first != second
    assert sorted(calls) == list(range(20))
    repeated, calls = counted(range(4), ff.repeat(3))
    assert list(repeated) == [0, 1, 4, 9] * 3
    assert calls == [0, 1, 2, 3]


def test_the_trees_over_one_cache_share_it_and_two_caches_do_not():
    flow, calls = counted(range(3))
    list(ff.batch(2, flow))
    list(ff.map(str, flow))
    assert calls == [0, 1, 2]
    stage = ff.cache()
    assert list(stage([1, 2])) == [1, 2]
    assert list(stage(["a"])) == ["a"]


def test_what_is_cached_is_frozen():
    noisy = ff.pipe(range(20), ff.shuffle(), ff.map(lambda x, rng: (x, rng.random()), rng=True))
    flow = ff.cache(noisy, seed=3)
    expected = list(noisy.run(seed=3, epoch=0))
    assert list(flow) == list(flow) == list(flow.run(seed=8, epoch=5)) == expected
    assert [ff.cache(noisy, seed=3).reset_state(9)[i] for i in range(20)] == expected


def test_random_stages_over_a_cache_are_random_as_ever():
    flow = ff.pipe(range(20), ff.cache(), ff.map(lambda x, rng: rng.random(), rng=True))
    assert list(flow) != list(flow)
    assert list(flow.run(epoch=0)) == list(ff.map(lambda x, rng: rng.random(), range(20), rng=True))


def test_random_stages_over_a_cached_stream_draw_as_without_it():
    draw = lambda x, rng: rng.random()
    for _ in range(2):
        flow = ff.pipe(streamed(range(20)), ff.cache(), ff.map(draw, rng=True))
        assert (
            list(flow.run(epoch=0)) == list(flow.run(epoch=0)) == list(ff.map(draw, range(20), rng=True).run(epoch=0))
        )


ARRAY = np.arange(3.0)


@pytest.mark.parametrize(
    ("datapoint", "array"),
    [
        (lambda: np.zeros(3), lambda d: d),
        (lambda: [np.zeros(3), 1], lambda d: d[0]),
        (lambda: (np.zeros(3), 1), lambda d: d[0]),
        (lambda: {"a": {"b": [np.zeros(3)]}}, lambda d: d["a"]["b"][0]),
        (lambda: Pair(np.zeros(3), 1), lambda d: d.image),
        (lambda: Record(np.zeros(3)), lambda d: d.image),
    ],
    ids=["array", "list", "tuple", "nested", "namedtuple", "dataclass"],
)
@pytest.mark.parametrize("source", [range(2), streamed(range(2))], ids=["sequence", "stream"])
def test_arrays_out_of_a_cache_are_read_only_views(datapoint, array, source):
    flow = ff.pipe(source, ff.map(lambda _: datapoint()), ff.cache())
    for _ in range(2):
        for got in flow:
            assert type(got) is type(datapoint())
            with pytest.raises(ValueError, match="read-only"):
                array(got)[0] = 1


def test_containers_out_of_a_cache_may_be_changed():
    flow = ff.cache([[1, {"a": [2]}]])
    got = flow[0]
    got[0], got[1]["a"][0] = 9, 9
    got.append(9)
    assert flow[0] == [1, {"a": [2]}]


def test_a_cache_keeps_none_and_repeats():
    calls = []
    flow = ff.pipe(range(3), ff.map(calls.append), ff.cache())
    assert list(flow) == list(flow) == [None] * 3
    assert calls == [0, 1, 2]
    assert list(ff.pipe(flow, ff.subset([1, 1, 0]))) == [None] * 3


def test_a_failure_is_not_remembered():
    calls = []

    def flaky(x):
        calls.append(x)
        if calls == [0, 1]:
            raise OSError("first time")
        return x

    for source in (range(3), streamed(range(3))):
        calls.clear()
        flow = ff.pipe(source, ff.map(flaky), ff.cache())
        with pytest.raises(OSError, match="first time"):
            list(flow)
        assert list(flow) == [0, 1, 2]


@pytest.mark.parametrize("source", [[], streamed([])], ids=["sequence", "stream"])
def test_a_cache_of_nothing(source):
    flow = ff.cache(source)
    assert list(flow) == list(flow) == []


def test_a_one_shot_source_can_be_read_again_through_a_cache():
    flow = ff.cache(iter(range(5)))
    assert list(flow) == list(flow) == [0, 1, 2, 3, 4]


def test_an_endless_source_is_kept_as_far_as_it_was_read():
    flow, calls = counted(ff.cycle([1, 2, 3]))
    assert list(islice(flow, 5)) == list(islice(flow, 5)) == [1, 4, 9, 1, 4]
    assert calls == [1, 2, 3, 1, 2]


def test_a_cache_pickles_without_its_memory():
    flow = ff.pipe(range(3), ff.map(str), ff.cache())
    list(flow)
    assert len(pickle.dumps(flow)) < len(pickle.dumps(ff.pipe(range(3), ff.map(str)))) + 500
    assert list(pickle.loads(pickle.dumps(flow))) == ["0", "1", "2"]


def test_a_state_over_a_cache_goes_on_in_another_process_without_it():
    make = lambda: ff.pipe(
        streamed(range(9)), ff.filter(lambda x: x % 3), ff.cache(), ff.map(lambda x, rng: (x, rng.random()), rng=True)
    )
    whole = list(make().run(epoch=0))
    for k in range(len(whole)):
        iterator = iter(make())
        list(islice(iterator, k))
        assert list(make().load_state_dict(iterator.state_dict())) == whole[k:]


def test_what_fails_below_a_cache_is_named():
    def fails_at_three(x):
        return x if x != 3 else 1 / 0

    for source in ([0, 1, 2, 3, 4], lambda: iter([0, 1, 2, 3, 4])):
        flow = ff.pipe(source, ff.map(fails_at_three), ff.cache(), ff.map(str))
        with pytest.raises(ZeroDivisionError) as caught:
            list(flow)
        assert caught.value.__notes__[0].startswith("in map(fails_at_three), its datapoint 3 (input 3)")
