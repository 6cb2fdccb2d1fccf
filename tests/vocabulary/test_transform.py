"""Stages that work on one datapoint at a time, over sequences and streams alike."""

import builtins
import multiprocessing
import os
import pickle
import threading
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest

import flowfn as ff

Pair = namedtuple("Pair", "x y")


@dataclass
class Record:
    x: int
    y: int


def flows(data):
    """The same data as a sequence and as a stream."""
    return [ff.flow(data), ff.flow(lambda: iter(data))]


def same(made, expected):
    """What a stage gives over a sequence and over a stream, element by element."""
    for got, wanted in zip(made, expected, strict=True):
        assert type(got) is type(wanted)
        np.testing.assert_equal(got, wanted)
    return True


ODDITIES = [
    None,
    "",
    "text",
    b"bytes",
    0,
    1.5,
    2j,
    True,
    np.float32(1),
    np.array(3),
    np.zeros(0),
    np.zeros((0, 3)),
    [],
    {},
    (),
    Pair(1, 2),
    ...,
    {1},
]


@pytest.mark.parametrize("n", [0, 1, 2, 5000, 10_000])
def test_map_is_pythons_map(n):
    for source in flows(range(n)):
        assert list(ff.map(str, source)) == list(builtins.map(str, range(n)))


def test_every_object_is_a_datapoint_and_passes_by_identity():
    for source in flows(ODDITIES):
        for got, given in zip(ff.map(lambda x: x, source), ODDITIES, strict=True):
            assert got is given
        for got, given in zip(ff.filter(lambda x: True, source), ODDITIES, strict=True):
            assert got is given


def test_map_keeps_none():
    for source in flows([1, None, 2]):
        assert list(ff.map(lambda x: None, source)) == [None] * 3
    assert ff.map(lambda x: None, [1])[0] is None


def test_map_is_lazy_and_calls_once_for_each_datapoint():
    calls = []
    for source in flows(range(100)):
        calls.clear()
        iterator = iter(ff.map(calls.append, source))
        assert calls == []
        list(islice(iterator, 3))
        assert calls == [0, 1, 2]


def test_map_over_an_endless_source():
    assert list(islice(ff.map(str, ff.cycle([1, 2])), 3)) == ["1", "2", "1"]
    assert ff.map(str, ff.cycle([1, 2]))[10**9] == "1"


# map_component


COMPONENTS = [
    ([1, 2, 3], 0, [-1, 2, 3]),
    ([1, 2, 3], -1, [1, 2, -3]),
    ((1, 2), 1, (1, -2)),
    (Pair(1, 2), 0, Pair(-1, 2)),
    ({"a": 1, "b": 2}, "b", {"a": 1, "b": -2}),
    (OrderedDict(a=1), "a", OrderedDict(a=-1)),
    ({0: 5}, 0, {0: -5}),
    ({("k", 1): 5}, ("k", 1), {("k", 1): -5}),
    (np.array([1, 2]), 0, np.array([-1, 2])),
    ([np.ones(2), None], 0, [-np.ones(2), None]),
]


@pytest.mark.parametrize(("datapoint", "index", "expected"), COMPONENTS, ids=str)
@pytest.mark.parametrize("rng", [False, True])
def test_map_component_replaces_one_component_and_keeps_the_type(datapoint, index, expected, rng):
    before = pickle.dumps(datapoint)
    f = (lambda x, rng: -x) if rng else (lambda x: -x)
    for source in flows([datapoint]):
        assert same(ff.map_component(f, index, source, rng=rng), [expected])
    assert pickle.dumps(datapoint) == before  # the input is not changed


def test_map_component_over_a_row_of_arrays_does_not_change_the_data_set():
    images = np.arange(6).reshape(3, 2)
    flow = ff.pipe(ff.from_arrays(images, np.arange(3)), ff.map_component(lambda x: x * 2, 0))
    np.testing.assert_equal(np.stack([image for image, _ in flow]), images * 2)
    assert images.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("datapoint", "index", "error"),
    [
        ([1], 3, IndexError),
        ((1,), 3, IndexError),
        ({"a": 1}, "b", KeyError),
        ("ab", 0, TypeError),
        (5, 0, TypeError),
        (None, 0, TypeError),
        (Record(1, 2), 0, TypeError),
        ([1], "a", TypeError),
    ],
)
@pytest.mark.parametrize("rng", [False, True])
def test_map_component_without_such_a_component_is_an_error(datapoint, index, error, rng):
    with pytest.raises(error):
        list(ff.map_component(lambda x, rng=None: x, index, [datapoint], rng=rng))


def test_map_component_says_what_a_tuple_or_dict_has():
    with pytest.raises(IndexError, match=r"^no component 3 in a datapoint with 2 components"):
        list(ff.map_component(abs, 3, [(1, 2)]))
    with pytest.raises(
        TypeError,
        match=r"^a datapoint with components is a list, tuple or dict, got str; map\(f\) works on whole datapoints",
    ):
        list(ff.map_component(abs, 0, ["text"]))


def test_map_component_refuses_what_names_no_component():
    for index in (None, [0, 1], abs):
        with pytest.raises(TypeError, match=r"^map_component\(\): index must be "):
            ff.map_component(abs, index)


# filter, filter_map, flat_map


@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")
@pytest.mark.parametrize("data", [[], [0], [1], list(range(20)), [0] * 10, [1] * 10])
def test_filter_is_pythons_filter(data):
    for source in flows(data):
        assert list(ff.filter(lambda x: x % 2, source)) == list(builtins.filter(lambda x: x % 2, data))


def test_filter_over_an_endless_source():
    assert list(islice(ff.filter(lambda x: x == 2, ff.cycle([1, 2])), 3)) == [2, 2, 2]


@pytest.mark.parametrize("data", [[], [1], list(range(10))])
def test_filter_map_drops_none_and_nothing_else(data):
    f = lambda x: [0, None, "", False, [], x][x % 6]
    for source in flows(data):
        assert list(ff.filter_map(f, source)) == [f(x) for x in data if f(x) is not None]


@pytest.mark.parametrize("data", [[], [0], [3], [0, 2, 0, 1], list(range(10))])
@pytest.mark.parametrize(
    "form", [range, lambda x: list(range(x)), lambda x: (i for i in range(x)), lambda x: ff.flow(range(x)), np.arange]
)
def test_flat_map_chains_what_the_function_gives(data, form):
    for source in flows(data):
        assert list(ff.flat_map(form, source)) == [i for x in data for i in range(x)]


def test_flat_map_takes_the_next_datapoint_only_when_it_is_wanted():
    taken = []
    iterator = iter(ff.flat_map(lambda x: taken.append(x) or [x, x], range(10)))
    list(islice(iterator, 3))
    assert taken == [0, 1]


def test_flat_map_over_endless_inner_iterables():
    assert list(islice(ff.flat_map(lambda x: ff.cycle([x]), [7, 8]), 3)) == [7, 7, 7]


def test_flat_map_needs_an_iterable():
    with pytest.raises(TypeError, match="int"):
        list(ff.flat_map(lambda x: x, [1]))


def test_expands_over_expands():
    flow = ff.pipe(range(6), ff.flat_map(range), ff.filter(lambda x: x % 2), ff.flat_map(lambda x: [x] * x))
    assert list(flow) == [y for x in range(6) for i in range(x) if i % 2 for y in [i] * i]


# select, enumerate


@pytest.mark.parametrize(
    ("datapoint", "components", "expected"),
    [
        (["a", "b", "c"], [2, 0], ["c", "a"]),
        (["a", "b"], [1, 1, 1], ["b", "b", "b"]),
        (["a", "b"], [-1], ["b"]),
        (["a", "b"], [], []),
        (("a", "b"), [1], ("b",)),
        (Pair(1, 2), [1, 0], (2, 1)),
        ({"x": 1, "y": 2}, ["y"], {"y": 2}),
        ({"x": 1, "y": 2}, ("y", "x"), {"y": 2, "x": 1}),
        ([1, np.zeros(0)], [1], [np.zeros(0)]),
    ],
)
def test_select_keeps_the_named_components_in_the_order_given(datapoint, components, expected):
    for source in flows([datapoint, datapoint]):
        assert same(ff.select(components, source), [expected, expected])


def test_select_over_arrays_selects_the_arrays():
    flow = ff.from_arrays(x=np.arange(4), y=np.arange(4) * 10, z=np.arange(4) * 100)
    assert list(ff.select(["z", "x"], flow))[2] == {"z": 200, "x": 2}
    (first, _) = ff.pipe(flow, ff.shuffle(), ff.select(["z", "x"]), ff.batch(2))
    np.testing.assert_equal(first["z"], first["x"] * 100)
    assert list(first) == ["z", "x"]
    listed = list(ff.pipe(ff.from_arrays(np.arange(3), np.arange(3) * 10), ff.select([1, -2, 1]), ff.batch(3)))
    np.testing.assert_equal(listed, [[np.arange(3) * 10, np.arange(3), np.arange(3) * 10]])


@pytest.mark.parametrize(
    ("datapoint", "components", "error"),
    [
        ([1], [1], IndexError),
        ({"x": 1}, ["y"], KeyError),
        ("ab", [0], TypeError),
        (5, [0], TypeError),
        (Record(1, 2), [0], TypeError),
    ],
)
def test_select_of_what_is_not_there_is_an_error_that_shows_the_datapoint(datapoint, components, error):
    with pytest.raises(error, match="a datapoint with"):
        list(ff.select(components, [datapoint]))


def test_select_over_the_rows_of_one_array_is_the_same_with_and_without_a_batch_after_it():
    def outcome(*stages):
        try:
            return np.array(list(ff.pipe(np.arange(6).reshape(3, 2), ff.select([1]), *stages, ff.batch(3)))).tolist()
        except TypeError as error:
            return str(error)

    assert outcome() == outcome(ff.map(lambda x: x))


def test_select_wants_a_list():
    with pytest.raises(TypeError, match=r"^select\(\): components must be a list of positions or keys, got 0$"):
        ff.select(0)
    with pytest.raises(TypeError, match=r"^select\(\): components must be a list of positions or keys, got 'ab'$"):
        ff.select("ab")


@pytest.mark.parametrize("n", [0, 1, 10])
@pytest.mark.parametrize("start", [0, 5, -3])
def test_enumerate_is_pythons_enumerate(n, start):
    for source in flows([str(i) for i in range(n)]):
        assert list(ff.enumerate(source, start=start)) == list(builtins.enumerate([str(i) for i in range(n)], start))


def test_enumerate_counts_places_in_this_stream():
    flow = ff.pipe(range(20), ff.shuffle(), ff.enumerate())
    whole = list(flow.run(epoch=0))
    assert [i for i, _ in whole] == list(range(20))
    assert flow[7] == whole[7]
    assert len(flow) == 20
    assert list(flow.run(epoch=0, start=15)) == whole[15:]
    filtered = ff.pipe(range(20), ff.filter(lambda x: x % 2), ff.enumerate())
    assert list(filtered.run(start=3)) == [(i, 2 * i + 1) for i in range(3, 10)]


def test_enumerate_is_applied_anew_each_time():
    stage = ff.enumerate(start=1)
    assert list(stage(["ab"])) == [(1, "ab")]
    assert list(stage(["c", "d"])) == [(1, "c"), (2, "d")]


# per_process


def test_per_process_makes_its_resource_once_and_late():
    made = []
    resource = ff.per_process(lambda: made.append(1) or object())
    assert made == []
    assert resource() is resource()
    assert made == [1]


def test_per_process_is_made_once_by_many_threads():
    made = []
    resource = ff.per_process(lambda: made.append(1) or object())
    threads = [threading.Thread(target=resource) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_per_process_pickles_without_its_resource():
    resource = ff.per_process(list)
    resource().append("here")
    assert pickle.loads(pickle.dumps(resource))() == []
    assert repr(resource) == "per_process(list)"


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_a_forked_child_makes_its_own():
    resource = ff.per_process(os.getpid)
    assert resource() == os.getpid()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, f"{int(resource() == os.getpid())}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"1"
    os.close(reading)
    os.close(writing)


def test_per_process_may_hold_none_and_try_again_after_a_failure():
    calls = []

    def flaky():
        calls.append(1)
        if len(calls) == 1:
            raise OSError("first")

    resource = ff.per_process(flaky)
    with pytest.raises(OSError, match="first"):
        resource()
    assert resource() is resource() is None
    assert len(calls) == 2


def test_per_process_wants_a_function():
    with pytest.raises(TypeError, match=r"^per_process\(\): factory must be a function, got 3$"):
        ff.per_process(3)
