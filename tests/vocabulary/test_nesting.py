"""Stages inside of datapoints: forms, counts, randomness, what is let go of, and what is refused."""

import gc
import pickle
import threading
import weakref

import cloudpickle
import numpy as np
import pytest
from sources import Stream, noisy

import flowfn as ff
from flowfn.datapoints.padding import pad
from flowfn.testing import check, same
from flowfn.vocabulary.batching import collate
from flowfn.vocabulary.bucketing import batch_by_length
from flowfn.vocabulary.multiples import pad_to_multiple
from flowfn.vocabulary.nesting import inside


def both(data):
    return [ff.flow(data), ff.flow(Stream(data))]


def double(number):
    return 2 * number


def is_odd(number):
    return number % 2 == 1


DATA = [[1, 2, 3], [], [4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ((), DATA),
        ((ff.map(double),), [[2, 4, 6], [], [8], [10, 12, 14, 16]]),
        ((ff.map(double), ff.map(str)), [["2", "4", "6"], [], ["8"], ["10", "12", "14", "16"]]),
        ((ff.filter(is_odd),), [[1, 3], [], [], [5, 7]]),
        ((ff.flat_map(range),), [[0, 0, 1, 0, 1, 2], [], [0, 1, 2, 3], [*range(5), *range(6), *range(7), *range(8)]]),
        ((ff.batch(2, collate=None),), [[[1, 2], [3]], [], [[4]], [[5, 6], [7, 8]]]),
        ((ff.take(2),), [[1, 2], [], [4], [5, 6]]),
        ((ff.slice(None, None, -1),), [[3, 2, 1], [], [4], [8, 7, 6, 5]]),
        ((ff.cycle(), ff.take(5)), [[1, 2, 3, 1, 2], [], [4, 4, 4, 4, 4], [5, 6, 7, 8, 5]]),
        ((ff.enumerate(),), [[(0, 1), (1, 2), (2, 3)], [], [(0, 4)], [(0, 5), (1, 6), (2, 7), (3, 8)]]),
        ((lambda iterator: reversed(list(iterator)),), [[3, 2, 1], [], [4], [8, 7, 6, 5]]),
        ((ff.compose(ff.map(double), ff.take(1)),), [[2], [], [8], [10]]),
        ((None, ff.map(double), None), [[2, 4, 6], [], [8], [10, 12, 14, 16]]),
        (
            (pad_to_multiple(2),),
            [
                [(1, True), (2, True), (3, True), (1, False)],
                [],
                [(4, True), (4, False)],
                [(i, True) for i in (5, 6, 7, 8)],
            ],
        ),
        ((ff.prefetch(2, threads=2), ff.map(double)), [[2, 4, 6], [], [8], [10, 12, 14, 16]]),
        ((ff.map(double), ff.prefetch(2, processes=2)), [[2, 4, 6], [], [8], [10, 12, 14, 16]]),
    ],
)
def test_stages_run_over_the_elements_of_each_datapoint(stages, expected):
    for source in both(DATA):
        assert list(inside(*stages, source=source)) == expected
        assert list(ff.pipe(source, inside(*stages))) == expected
    assert [inside(*stages, source=DATA)[i] for i in (3, 0)] == [expected[3], expected[0]]


def test_tuples_stay_tuples():
    assert list(inside(ff.map(double), source=[(1, 2), [3], ()])) == [(2, 4), [6], ()]


def test_it_nests():
    data = [[[1, 2], [3]], [[]]]
    assert list(inside(inside(ff.map(double)), source=data)) == [[[2, 4], [6]], [[]]]


def test_a_plan_on_metadata_is_loaded_later():
    def load(name):
        loaded.append(name)
        return {"name": name, "ids": np.full(int(name), 7)}

    loaded = []
    flow = ff.pipe(
        ["3", "1", "2", "4"],
        batch_by_length(int, boundaries=[2, 4], sizes=[2, 2], collate=None),
        inside(ff.map(load)),
        collate(pad(0)),
    )
    batches = list(flow)
    assert [batch["name"] for batch in batches] == [["1", "2"], ["3", "4"]]
    assert same(batches[0]["ids"], np.array([[7, 0], [7, 7]]))
    assert loaded == ["1", "2", "3", "4"]


# Randomness


def test_each_datapoint_has_its_own_numbers_in_every_setting():
    stage = inside(ff.shuffle(), ff.map(noisy, rng=True))
    whole = list(ff.pipe([list(range(6))] * 5, stage).run(epoch=3))
    assert all(sorted(number for number, _ in datapoint) == list(range(6)) for datapoint in whole)
    assert len({tuple(datapoint) for datapoint in whole}) == 5
    assert list(ff.pipe(Stream([list(range(6))] * 5), stage).run(epoch=3)) == whole
    assert [ff.pipe([list(range(6))] * 5, stage).set_epoch(3)[i] for i in (4, 2)] == [whole[4], whole[2]]
    assert list(ff.pipe([list(range(6))] * 5, stage).run(epoch=4)) != whole


def test_a_record_is_the_same_in_every_world():
    stage = inside(ff.map(noisy, rng=True))
    whole = list(ff.pipe([[i] for i in range(6)], stage).run())
    for world in (2, 3):
        shares = [list(ff.pipe([[i] for i in range(6)], ff.shard(rank, world), stage).run()) for rank in range(world)]
        assert sorted(datapoint for share in shares for datapoint in share) == whole


def test_nothing_is_drawn_where_nothing_is_random():
    assert not inside(ff.map(double), ff.filter(is_odd), inside(ff.take(1)), lambda iterator: iterator).random
    for one in (
        ff.shuffle(),
        ff.map(noisy, rng=True),
        ff.compose(ff.map(double), ff.shuffle()),
        inside(ff.shuffle()),
        ff.enumerate(),
    ):
        assert inside(ff.map(double), one).random


def test_two_of_them_draw_different_numbers_unless_they_are_named_alike():
    data = [list(range(20))]
    one, other = (
        list(inside(ff.shuffle(), source=ff.pipe(data, stage)).run()) for stage in (ff.map(list), inside(ff.shuffle()))
    )
    assert one != other
    named = [list(inside(ff.shuffle(), source=data, name=name).run()) for name in ("a", "a", "b")]
    assert named[0] == named[1] != named[2]


# What is let go of


class Element:
    """Something that can be watched."""


def test_what_was_given_is_let_go_of():
    watched = []

    def elements():
        for _ in range(4):
            one = Element()
            watched.append(weakref.ref(one))
            yield [one]

    with ff.pipe(elements, inside(ff.map(str))).run() as iterator:
        for _ in range(3):
            next(iterator)
        gc.collect()
        assert [one() is None for one in watched[:2]] == [True, True]
    del iterator
    gc.collect()
    assert all(one() is None for one in watched)


def test_the_tree_is_made_once_for_all_datapoints():
    made = []

    def seen(iterator):
        made.append(threading.get_ident())
        return iterator

    @ff.stage.composite
    def counted(source):
        trees.append(1)
        return ff.map(double, source)

    trees = []
    assert list(inside(counted(), seen, source=[[1], [2], [3]])) == [[2], [4], [6]]
    assert (len(trees), len(made)) == (1, 3)


def test_an_abandoned_pass_leaves_nothing():
    before = threading.active_count()
    for _ in range(3):
        iterator = ff.pipe(DATA, inside(ff.map(double), ff.prefetch(2))).run()
        next(iterator)
        del iterator
    gc.collect()
    assert threading.active_count() == before


# What is refused


@pytest.mark.parametrize("datapoint", [3, "text", {"x": 1}, np.zeros(2), None])
def test_a_datapoint_has_to_be_a_list_or_a_tuple(datapoint):
    for source in both([datapoint]):
        with pytest.raises(TypeError, match=r"^inside\(\): a datapoint must be a list or a tuple of elements, got "):
            list(inside(ff.map(double), source=source))


def test_what_is_no_stage_is_refused_at_once():
    with pytest.raises(
        TypeError, match=r"^inside\(\): argument 2 must be a stage or a function of an iterable, got 3$"
    ):
        inside(ff.map(double), 3)
    with pytest.raises(TypeError, match=r"^inside\(\): argument 1 is a flow, not a stage"):
        inside(ff.flow([1]))
    with pytest.raises(
        TypeError, match=r"^pipe\(\): argument 2 is inside without its arguments: write inside\(stages\)"
    ):
        ff.pipe(DATA, inside)


def test_a_cache_would_mix_datapoints_up():
    with pytest.raises(
        TypeError,
        match=(
            r"^inside\(\): cache\(\) would remember the elements of one datapoint for all; put it before inside, or "
            r"after"
        ),
    ):
        inside(ff.map(double), ff.cache())
    with pytest.raises(TypeError, match=r"^inside\(\): cache\(\) would remember"):
        list(inside(ff.compose(ff.cache()), source=DATA))


def test_stages_that_never_end_are_refused():
    with pytest.raises(TypeError, match=r"^inside\(\): the stages cycle\(\) never end; take\(n\) makes them"):
        list(inside(ff.cycle(), source=DATA))


def test_an_error_names_the_stage_and_can_be_replayed():
    flow = ff.pipe(Stream([[1], [2, 0]]), inside(ff.map(lambda x: 1 // x)))
    with pytest.raises(ZeroDivisionError) as caught:
        list(flow)
    assert "in map(<lambda>), its datapoint 1 (input 0)" in caught.value.__notes__[0]
    with pytest.raises(ZeroDivisionError):
        ff.replay(flow, caught.value)


# How it looks


def test_it_looks_like_its_call():
    assert repr(inside(ff.map(double), ff.batch(2))) == "inside(map(double), batch(2))"
    assert repr(inside()) == "inside()"
    assert repr(inside(ff.shuffle(), name="x")) == "inside(shuffle(), name='x')"
    assert repr(inside(ff.map(double), source=[[1]])) == "pipe(flow([[1]]), inside(map(double)))"


def test_it_compares_and_pickles():
    stage = inside(ff.map(double), ff.compose(ff.take(2), ff.shuffle()), name="x")
    assert stage == pickle.loads(pickle.dumps(stage)) == cloudpickle.loads(cloudpickle.dumps(stage))
    assert pickle.loads(pickle.dumps(stage)).random
    assert hash(stage) == hash(pickle.loads(pickle.dumps(stage)))
    assert stage != inside(ff.map(double))
    assert inside(ff.take(2)) != inside(ff.take(3))
    assert list(ff.pipe(DATA, pickle.loads(pickle.dumps(inside(ff.map(double)))))) == [
        [2, 4, 6],
        [],
        [8],
        [10, 12, 14, 16],
    ]


def test_the_stages_inside_are_in_the_fingerprint():
    def state(stage):
        return ff.pipe(DATA, stage).state_dict()["fingerprint"]

    assert state(inside(ff.take(2))) == state(inside(ff.take(2)))
    assert state(inside(ff.take(2))) != state(inside(ff.take(3)))


# The laws


@pytest.mark.parametrize(
    "stages",
    [
        (ff.map(double),),
        (ff.shuffle(), ff.map(noisy, rng=True)),
        (ff.filter(is_odd), ff.batch(2, collate=None), inside(ff.map(noisy, rng=True))),
        (ff.shuffle_buffer(2),),
    ],
    ids=str,
)
def test_the_laws_hold(stages):
    for source in (DATA * 2, Stream(DATA * 2)):
        check(lambda: ff.pipe(source, inside(*stages)))
    check(lambda: ff.pipe(Stream(range(9)), ff.filter(is_odd), ff.batch(2, collate=None), inside(*stages)), epochs=(0,))


def test_the_laws_hold_in_threads_and_processes():
    for source in (range(12), Stream(range(12))):
        check(
            lambda: ff.pipe(
                source, ff.batch(3, collate=None), inside(ff.shuffle(), ff.map(noisy, rng=True)), collate()
            ),
            workers=({}, {"threads": 2}, {"processes": 2}),
            epochs=(0,),
            stops=4,
        )
