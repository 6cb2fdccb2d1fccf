"""The decorator, currying, `pipe` and `compose`: what a call means, how it looks, and what is refused where."""

import functools
import inspect
import pickle
import pydoc
from itertools import islice

import cloudpickle
import more_itertools
import numpy as np
import pytest
from sources import streamed

import flowfn as ff


@ff.stage.each
def scale(factor, source):
    """Multiply every number."""
    for datapoint in source:
        yield datapoint * factor


@ff.stage.group(size="size", step="step")
def window(size, source, *, step=1):
    for datapoints in source:
        yield tuple(datapoints)


@ff.stage.order
def backwards(n):
    return range(n - 1, -1, -1)


@ff.stage.expand
def twice(source):
    for datapoint in source:
        yield datapoint
        yield datapoint


@ff.stage.stream
def running_sum(source, *, mark):
    total = 0
    for datapoint in source:
        total += datapoint
        yield total


def add_one(x):
    return x + 1


# Currying


@pytest.mark.parametrize(
    "made",
    [
        lambda s: ff.batch(2, s),
        lambda s: ff.batch(2)(s),
        lambda s: ff.batch(2, source=s),
        lambda s: ff.batch(size=2, source=s),
        lambda s: ff.batch(size=2)(s),
        lambda s: ff.batch(source=s, size=2),
        lambda s: ff.pipe(s, ff.batch(2)),
        lambda s: ff.compose(ff.batch(2))(s),
    ],
)
def test_every_way_to_give_the_source_makes_the_same_flow(made):
    flow = made([1, 2, 3])
    assert isinstance(flow, ff.Flow)
    assert [batch.tolist() for batch in flow] == [[1, 2], [3]]
    assert repr(flow) == "pipe(flow([1, 2, 3]), batch(2))"


def test_a_call_without_its_source_is_a_stage():
    assert not isinstance(ff.batch(2), ff.Flow)
    assert callable(ff.batch(2))
    assert list(ff.shuffle()([])) == list(ff.shuffle([])) == []


def test_a_falsy_source_is_a_source():
    for empty in ([], (), range(0), np.zeros(0)):
        assert list(ff.map(add_one, empty)) == []
        assert list(ff.batch(2, source=empty)) == []


def test_none_as_a_source_is_refused_and_not_taken_for_left_out():
    with pytest.raises(TypeError, match=r"^batch\(\): a source is .*, got None$"):
        ff.batch(2, None)


def test_currying_never_swallows_the_type_error_of_a_function():
    def broken(x):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine"):
        list(ff.map(broken, [1]))


def test_stages_are_values_that_can_be_used_again():
    halves = ff.batch(2)
    assert len(halves([1, 2, 3])) == 2
    assert len(halves(range(10))) == 5


# Early errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.batch(0), ValueError, "batch(): size must be a positive integer, got 0"),
        (lambda: ff.batch(-3, [1]), ValueError, "batch(): size must be a positive integer, got -3"),
        (lambda: ff.batch(2.0), TypeError, "batch(): size must be a positive integer, got 2.0"),
        (lambda: ff.batch(True), TypeError, "batch(): size must be a positive integer, got True"),
        (lambda: ff.batch("2"), TypeError, "batch(): size must be a positive integer, got '2'"),
        (lambda: ff.batch([1, 2]), TypeError, "batch(): size must be a positive integer, got [1, 2]"),
        (lambda: ff.batch(2, drop_remainder=1), TypeError, "batch(): drop_remainder must be True or False, got 1"),
        (lambda: ff.batch(), TypeError, "batch(): missing a required argument: 'size'"),
        (lambda: ff.batch(2, drop=True), TypeError, "batch(): got an unexpected keyword argument 'drop'"),
        (lambda: ff.batch(2, [1], [2]), TypeError, "batch(): too many positional arguments"),
        (lambda: ff.take(-1), ValueError, "take(): count must be an integer >= 0, got -1"),
        (lambda: ff.skip(-1), ValueError, "skip(): count must be an integer >= 0, got -1"),
        (lambda: ff.repeat(-1), ValueError, "repeat(): count must be an integer >= 0, got -1"),
        (lambda: ff.repeat(None), TypeError, "repeat(): count must be an integer >= 0, got None"),
        (lambda: ff.slice(0, 5, 0), ValueError, "slice(): step must be an integer other than 0 or None, got 0"),
        (lambda: ff.slice(0.5, 5, 1), TypeError, "slice(): start must be an integer or None, got 0.5"),
        (lambda: ff.shard(0, 0), ValueError, "shard(): world must be a positive integer, got 0"),
        (lambda: ff.shard(3, 3), ValueError, "shard(): rank must be an integer from 0 to world - 1, got 3"),
        (lambda: ff.shard(-1, 3), ValueError, "shard(): rank must be an integer from 0 to world - 1, got -1"),
        (
            lambda: ff.shard(0, 1, remainder="x"),
            ValueError,
            "shard(): remainder must be 'keep', 'drop' or 'pad', got 'x'",
        ),
        (lambda: ff.shuffle(window=0), ValueError, "shuffle(): window must be a positive integer or None, got 0"),
        (lambda: ff.shuffle_buffer(0), ValueError, "shuffle_buffer(): size must be a positive integer, got 0"),
        (lambda: ff.map(3), TypeError, "map(): f must be a function, got 3"),
        (lambda: ff.filter(None), TypeError, "filter(): predicate must be a function, got None"),
        (lambda: ff.map(add_one, rng=1), TypeError, "map(): rng must be True or False, got 1"),
        (lambda: ff.map_component(0, add_one), TypeError, "map_component(): f must be a function, got 0"),
        (lambda: ff.freeze(seed="a"), TypeError, "freeze(): seed must be an integer, got 'a'"),
        (lambda: ff.enumerate(start=0.5), TypeError, "enumerate(): start must be an integer, got 0.5"),
        (lambda: ff.zip(), TypeError, "zip() needs at least one source"),
        (lambda: ff.concat(), TypeError, "concat() needs at least one source"),
    ],
)
def test_wrong_arguments_fail_at_once_and_say_what_must_hold(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_numpy_integers_are_integers():
    assert ff.batch(np.int64(2)) == ff.batch(2)
    assert repr(ff.take(np.uint8(3))) == "take(3)"


def test_shuffle_with_a_number_names_shuffle_buffer():
    with pytest.raises(TypeError, match=r"^shuffle\(\).*shuffle_buffer\(1000\)|^shuffle\(\).*shuffle_buffer"):
        ff.shuffle(1000)


def test_shuffle_over_a_stream_names_shuffle_buffer():
    with pytest.raises(TypeError, match=r"^shuffle\(\) needs a source that can be indexed.*shuffle_buffer\(size\)"):
        ff.shuffle(streamed([1]))


def test_subset_over_a_stream_names_a_remedy():
    with pytest.raises(TypeError, match=r"^subset\(\) needs a source that can be indexed, but .*; "):
        ff.pipe([1], ff.filter(bool), ff.subset([0]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: ff.batch(2, ff.shuffle()),
        lambda: ff.batch(2)(ff.shuffle()),
        lambda: ff.pipe(ff.shuffle(), ff.batch(2)),
        lambda: ff.concat(ff.shuffle(), [1]),
        lambda: ff.zip([1], ff.batch(2)),
        lambda: ff.flow(ff.batch(2)),
        lambda: ff.map(add_one, ff.compose(ff.batch(2))),
    ],
)
def test_a_stage_where_a_source_belongs_names_pipe(call):
    with pytest.raises(TypeError, match=r"pipe\(source, "):
        call()


@pytest.mark.parametrize(
    "call", [lambda: ff.pipe(ff.shuffle, ff.batch(2)), lambda: ff.batch(2, ff.shuffle), lambda: ff.flow(ff.cycle)]
)
def test_a_stage_function_that_was_not_called_is_no_source(call):
    with pytest.raises(TypeError):
        call()


def test_concat_in_a_pipe_says_how_to_write_it():
    a, b = [1], [2]
    with pytest.raises(TypeError, match=r"write concat\(a, b\)"):
        ff.pipe(a, ff.concat(b))
    with pytest.raises(TypeError, match=r"write concat\(a, b\)"):
        ff.pipe(a, ff.concat)
    with pytest.raises(TypeError, match=r"write zip\(a, b\)"):
        ff.pipe(a, ff.map(add_one), ff.zip(b))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((3,), "pipe(): argument 2 must be a stage or a function of an iterable, got 3"),
        ((ff.batch(2), [1]), "pipe(): argument 3 must be a stage or a function of an iterable, got [1]"),
        ((ff.batch,), "pipe(): argument 2 is batch without its arguments: write batch(size)"),
        (
            (ff.map_component,),
            "pipe(): argument 2 is map_component without its arguments: write map_component(f, index)",
        ),
    ],
)
def test_what_is_no_stage_in_a_pipe_is_refused(stages, message):
    with pytest.raises(TypeError) as caught:
        ff.pipe([1], *stages)
    assert str(caught.value) == message


@pytest.mark.parametrize(("given", "shown"), [(ff.pad(-1), r"pad\(-1\)"), (ff.stack, "stack"), (ff.as_list, "as_list")])
def test_a_collation_in_the_place_of_a_stage_says_where_it_belongs(given, shown):
    with pytest.raises(
        TypeError, match=rf"^pipe\(\): argument 2 is not a stage: write batch\(size, collate={shown}\)$"
    ):
        ff.pipe([1], given)
    with pytest.raises(TypeError, match=r"^compose\(\): argument 1 is not a stage"):
        ff.compose(given)


def test_a_flow_where_a_stage_belongs_is_refused():
    with pytest.raises(TypeError, match=r"^pipe\(\): argument 2 is a flow, not a stage"):
        ff.pipe([1], ff.flow([2]))
    with pytest.raises(TypeError, match=r"^pipe\(\): argument 2 is a flow, not a stage"):
        ff.pipe([1], ff.batch(2, [2]))


# Pipe and compose


def test_a_stage_function_without_required_options_may_be_left_uncalled():
    assert sorted(ff.pipe([3, 1, 2], ff.shuffle)) == [1, 2, 3]
    assert list(ff.pipe([1, 2], ff.enumerate)) == [(0, 1), (1, 2)]


def test_plain_callables_in_a_pipe_see_the_stream_of_each_pass():
    flow = ff.pipe([1, 2, 3], ff.map(add_one), lambda source: (x * 10 for x in source), ff.batch(2))
    assert [b.tolist() for b in flow] == [[20, 30], [40]]
    assert [b.tolist() for b in flow] == [[20, 30], [40]]


def test_plain_callables_may_return_any_iterable_and_take_partials():
    assert list(ff.pipe([3, 1, 2], sorted)) == [1, 2, 3]
    assert list(ff.pipe([3, 1, 2], functools.partial(sorted, reverse=True))) == [3, 2, 1]
    assert list(ff.pipe(range(5), functools.partial(more_itertools.chunked, n=2))) == [[0, 1], [2, 3], [4]]


def test_plain_callables_are_called_once_in_each_pass_on_the_source_under_that_run():
    calls = []

    def spy(source):
        calls.append(list(source))
        return calls[-1]

    flow = ff.pipe(range(50), ff.shuffle(), spy)
    first, second = list(flow), list(flow)
    shuffled = ff.pipe(range(50), ff.shuffle())
    assert calls == [first, second] == [list(shuffled.run(epoch=0)), list(shuffled.run(epoch=1))]


def test_pipe_skips_none():
    assert repr(ff.pipe([1], None, ff.batch(2), None)) == "pipe(flow([1]), batch(2))"
    assert list(ff.compose(None, ff.map(add_one), None)([1])) == [2]


def test_pipe_without_stages_is_the_flow_itself():
    flow = ff.flow([1])
    assert ff.pipe(flow) is flow


def test_compose_runs_in_the_order_of_pipe():
    both = ff.compose(ff.map(add_one), ff.map(str))
    assert list(both([1, 2])) == list(ff.pipe([1, 2], ff.map(add_one), ff.map(str))) == ["2", "3"]
    nested = ff.compose(both, ff.batch(2))
    assert [list(b) for b in ff.pipe([1, 2, 3], nested)] == [["2", "3"], ["4"]]
    assert repr(both) == "compose(map(add_one), map(str))"
    assert both == ff.compose(ff.map(add_one), ff.map(str)) != ff.compose(ff.map(str), ff.map(add_one))
    assert list(pickle.loads(pickle.dumps(both))([1])) == ["2"]


def test_an_empty_compose_changes_nothing():
    assert list(ff.compose()([1, 2])) == [1, 2]


# How things look


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: ff.batch(128), "batch(128)"),
        (lambda: ff.batch(2, drop_remainder=True), "batch(2, drop_remainder=True)"),
        (lambda: ff.batch(2, collate=ff.as_list), "batch(2, collate=as_list)"),
        (lambda: ff.batch(2, collate={"x": ff.as_list}), "batch(2, collate={'x': as_list})"),
        (lambda: ff.map(add_one), "map(add_one)"),
        (lambda: ff.map(lambda x: x), "map(<lambda>)"),
        (lambda: ff.map(functools.partial(max, 1, key=abs)), "map(partial(max, 1, key=abs))"),
        (lambda: ff.map_component(str.upper, "text"), "map_component(upper, 'text')"),
        (lambda: ff.shuffle(), "shuffle()"),
        (lambda: ff.shuffle(window=8, name="a"), "shuffle(window=8, name='a')"),
        (lambda: ff.slice(None, 3, None), "slice(None, 3, None)"),
        (lambda: ff.shard(1, 4, remainder="pad"), "shard(1, 4, remainder='pad')"),
        (lambda: ff.map(max, rng=True), "map(max, rng=True)"),
        (lambda: scale(3), "scale(3)"),
        (lambda: window(2, step=2), "window(2, step=2)"),
        (lambda: ff.flow([1, 2]), "flow([1, 2])"),
        (lambda: ff.flow(range(3)), "flow(range(0, 3))"),
        (lambda: ff.flow(np.zeros((3, 2))), "flow(float64 array (3, 2))"),
        (lambda: ff.from_arrays(x=np.zeros(3)), "from_arrays(x=float64 array (3,))"),
        (lambda: ff.pipe([1], ff.map(add_one), ff.batch(2)), "pipe(flow([1]), map(add_one), batch(2))"),
        (lambda: ff.batch(2, ff.map(add_one, [1])), "pipe(flow([1]), map(add_one), batch(2))"),
        (lambda: ff.concat([1], [2]), "concat(flow([1]), flow([2]))"),
        (lambda: ff.zip([1], [2], strict=False), "zip(flow([1]), flow([2]), strict=False)"),
        (lambda: ff.pipe(ff.concat([1], [2]), ff.batch(2)), "pipe(concat(flow([1]), flow([2])), batch(2))"),
        (lambda: ff.pipe([5], ff.enumerate(start=1), ff.batch(2)), "pipe(flow([5]), enumerate(start=1), batch(2))"),
        (lambda: ff.flow([1, 2, 3])[1:], "pipe(flow([1, 2, 3]), slice(1, None, None))"),
    ],
)
def test_repr_is_the_call_that_made_it(made, text):
    assert repr(made()) == text


def test_repr_of_a_large_source_is_short():
    assert len(repr(ff.pipe(list(range(10**5)), ff.batch(2)))) < 200
    assert len(repr(ff.pipe(["x" * 10**5], ff.batch(2)))) < 200


def test_help_and_signature_show_the_real_function():
    assert list(inspect.signature(ff.batch).parameters) == ["size", "source", "drop_remainder", "collate"]
    assert inspect.signature(ff.batch).parameters["collate"].default is ff.stack
    assert str(inspect.signature(scale)) == "(factor, source=...)"
    assert "sources" in inspect.signature(ff.concat).parameters
    assert "name" in inspect.signature(ff.shuffle).parameters
    assert "rngs" not in inspect.signature(ff.map).parameters
    assert "Put `size` datapoints together" in pydoc.render_doc(ff.batch)
    assert (ff.batch.__name__, ff.batch.__module__, scale.__doc__) == ("batch", "flowfn", "Multiply every number.")


@pytest.mark.parametrize("name", [name for name in dir(ff) if hasattr(getattr(ff, name), "definition")])
def test_every_public_word_has_a_docstring_with_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(ff, name))


# Values


def test_stages_compare_by_function_and_arguments():
    assert ff.batch(2) == ff.batch(size=2) != ff.batch(3)
    assert ff.take(2) != ff.skip(2)
    assert ff.map(add_one) == ff.map(add_one) != ff.map(abs)
    assert ff.map(functools.partial(max, 1)) == ff.map(functools.partial(max, 1)) != ff.map(functools.partial(max, 2))
    assert ff.map(lambda x: x) != ff.map(lambda x: x)
    assert ff.subset(np.arange(3)) == ff.subset(np.arange(3)) != ff.subset(np.arange(4))
    assert ff.shuffle(name="a") != ff.shuffle(name="b")
    assert ff.batch(2) != 2
    assert len({ff.batch(2), ff.batch(2), ff.take(2)}) == 2


@pytest.mark.parametrize(
    "stage",
    [
        ff.batch(2, drop_remainder=True),
        ff.map(add_one),
        scale(3),
        ff.shuffle(window=3, name="w"),
        ff.enumerate(start=2),
        backwards(),
    ],
)
def test_importable_stages_pickle(stage):
    again = pickle.loads(pickle.dumps(stage))
    assert again == stage
    assert repr(again) == repr(stage)


def test_flows_pickle_with_their_seed_and_epoch():
    flow = ff.pipe(range(20), ff.shuffle(), ff.map(add_one), ff.enumerate(), ff.batch(3)).reset_state(7).set_epoch(2)
    again = pickle.loads(pickle.dumps(flow))
    assert repr(again) == repr(flow)
    assert [[c.tolist() for c in b] for b in again] == [[c.tolist() for c in b] for b in flow]


def test_the_public_words_pickle_by_name():
    assert pickle.loads(pickle.dumps(ff.batch)) is ff.batch
    assert pickle.loads(pickle.dumps(scale)) is scale


def test_lambdas_and_local_stages_travel_by_cloudpickle():
    @ff.stage.each
    def shifted(by, source):
        for datapoint in source:
            yield datapoint + by

    flow = ff.pipe([1, 2], shifted(10), ff.map(lambda x: -x))
    assert list(pickle.loads(cloudpickle.dumps(flow))) == [-11, -12]
    travelled = pickle.loads(cloudpickle.dumps(shifted))
    assert repr(travelled(10)) == "shifted(10)"  # still curried
    assert list(travelled(10, [1])) == [11]
    assert list(ff.pipe([1], travelled(10))) == [11]


def test_a_flow_is_true_even_when_empty():
    assert ff.flow([])
    assert ff.filter(bool, [])
    assert bool(ff.cycle([1]))


# A user's own stages, of every kind


@pytest.mark.parametrize("source", [range(6), streamed(range(6))], ids=["sequence", "stream"])
def test_own_each(source):
    assert list(ff.pipe(source, scale(3))) == [0, 3, 6, 9, 12, 15]


def test_own_each_is_seekable_and_sized():
    flow = ff.pipe(range(6), scale(3))
    assert len(flow) == 6
    assert [flow[i] for i in (5, 0, -1)] == [15, 0, 15]


def test_own_each_of_several_sources():
    @ff.stage.each
    def total(*sources, factor=1):
        for values in zip(*sources):
            yield factor * sum(values)

    assert list(total([1, 2], [10, 20])) == [11, 22]
    assert total([1, 2], [10, 20], factor=2)[1] == 44
    assert list(total(streamed([1, 2]), [10, 20])) == [11, 22]


def test_own_each_with_indices_and_rngs():
    @ff.stage.each
    def tagged(source, *, indices, rngs):
        for index, datapoint, rng in zip(indices, source, rngs):
            yield index, datapoint, rng.random()

    flow = tagged(["a", "b", "c", "d"])
    whole = list(flow.run(epoch=0))
    assert [x[:2] for x in whole] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    assert len({x[2] for x in whole}) == 4
    assert [flow.set_epoch(0)[i] for i in (2, 0)] == [whole[2], whole[0]]
    assert list(ff.pipe(streamed("abcd"), tagged).run(epoch=0)) == whole


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 7, 10])
@pytest.mark.parametrize(("size", "step"), [(1, 1), (2, 1), (3, 2), (2, 3), (3, 3), (4, 1), (1, 4)])
def test_own_group_with_size_and_step(n, size, step):
    # more_itertools.windowed pads its last window; the padding is left out, and so is a window that holds nothing new
    padded = more_itertools.windowed(range(n), size, fillvalue=None, step=step) if n else []
    expected = [tuple(x for x in w if x is not None) for w in padded]
    flow = ff.pipe(range(n), window(size, step=step))
    assert list(flow) == expected
    assert list(ff.pipe(streamed(range(n)), window(size, step=step))) == expected
    assert len(flow) == len(expected)
    assert [flow[i] for i in range(len(flow))] == expected


@pytest.mark.parametrize(("size", "step", "name"), [(0, 1, "size"), (-1, 1, "size"), (2, 0, "step")])
@pytest.mark.parametrize("source", [range(3), streamed(range(3))], ids=["sequence", "stream"])
def test_own_group_of_impossible_blocks_is_refused_at_once(size, step, name, source):
    with pytest.raises(ValueError, match=rf"^window\(\): {name} must be a positive integer, got "):
        window(size, source, step=step)


def test_own_group_of_whole_blocks_only():
    @ff.stage.group(size=3, whole=True)
    def triples(source):
        for datapoints in source:
            yield tuple(datapoints)

    for source in (range(8), streamed(range(8))):
        assert list(triples(source)) == [(0, 1, 2), (3, 4, 5)]
    assert len(triples(range(8))) == 2


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (lambda n: range(n - 1, -1, -1), [4, 3, 2, 1, 0]),
        (lambda n: range(0, n, 2), [0, 2, 4]),
        (lambda n: range(0), []),
        (lambda n: np.array([3, 3, 0]), [3, 3, 0]),
        (lambda n: np.array([4, 1], np.uint8), [4, 1]),
        (lambda n: [1, 0], [1, 0]),
        (lambda n: np.array([], np.int64), []),
        (lambda n: [], []),
    ],
)
def test_own_order_may_return_a_range_an_array_or_a_list(returned, expected):
    @ff.stage.order
    def route(n):
        return returned(n)

    flow = route(range(5))
    assert list(flow) == expected
    assert len(flow) == len(expected)
    assert [flow[i] for i in range(len(flow))] == expected


@pytest.mark.parametrize(
    "returned",
    [
        lambda n: range(n + 1),
        lambda n: range(n, -1, -1),
        lambda n: range(1, -2, -1),
        lambda n: np.array([0, n]),
        lambda n: np.array([-1, 0]),
        lambda n: [n],
    ],
    ids=["range", "down from n", "down below 0", "array", "negative", "list"],
)
@pytest.mark.parametrize("n", [0, 3])
def test_own_order_out_of_range_is_an_error_and_never_another_datapoint(returned, n):
    @ff.stage.order
    def route(n):
        return returned(n)

    with pytest.raises(IndexError, match=r"indices must lie in \[0, "):
        list(route(range(n)))


@pytest.mark.parametrize(
    ("returned", "error"),
    [(np.array([0.5]), TypeError), (np.zeros((2, 2), int), ValueError), (np.array([True, False]), TypeError)],
)
def test_own_order_with_no_indices_is_refused(returned, error):
    @ff.stage.order
    def route(n):
        return returned

    with pytest.raises(error, match=r"^an order function returns "):
        list(route(range(5)))


def test_own_order_with_rng_is_new_in_every_epoch_and_the_same_again():
    @ff.stage.order
    def mixed(n, *, rng):
        return rng.permutation(n)

    flow = mixed(range(50))
    first, second = list(flow), list(flow)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert list(flow.run(epoch=0)) == first
    assert [flow.set_epoch(1)[i] for i in range(50)] == second


def test_own_order_over_a_stream_is_refused():
    with pytest.raises(TypeError, match=r"^backwards\(\) needs a source that can be indexed, but "):
        backwards(streamed([1]))


@pytest.mark.parametrize("source", [range(3), streamed(range(3))], ids=["sequence", "stream"])
def test_own_expand(source):
    flow = ff.pipe(source, twice)
    assert list(flow) == [0, 0, 1, 1, 2, 2]
    assert list(flow.run(start=3)) == [1, 2, 2]
    assert not flow.seekable


def test_own_stream_with_mark_and_rng_goes_on_from_its_mark():
    read = []

    @ff.stage.stream
    def shuffled_pairs(source, *, rng, mark):
        while pair := list(islice(source, 2)):
            read.extend(pair)
            yield from (pair[i] for i in rng.permutation(len(pair)))
            mark()

    flow = shuffled_pairs(range(100))
    whole = list(flow.run(epoch=0))
    assert sorted(whole) == list(range(100))
    for k in (0, 1, 2, 51, 98, 99, 100):
        iterator = iter(shuffled_pairs(range(100)))
        assert list(islice(iterator, k)) == whole[:k]
        state = iterator.state_dict()
        read.clear()
        assert list(shuffled_pairs(range(100)).load_state_dict(state)) == (whole[k:] if k < 100 else [])
        assert len(read) <= 100 - k + 2


def test_bare_stage_means_stream():
    @ff.stage
    def evens(source):
        yield from (x for x in source if x % 2 == 0)

    assert list(evens(range(5))) == [0, 2, 4]
    assert [b.tolist() for b in ff.pipe(range(5), evens, ff.batch(2))] == [[0, 2], [4]]
    assert not evens(range(5)).seekable


@pytest.mark.parametrize(
    ("kind", "keyword"),
    [
        ("each", "rng"),
        ("each", "mark"),
        ("group", "rng"),
        ("expand", "rng"),
        ("expand", "mark"),
        ("order", "rngs"),
        ("order", "indices"),
        ("stream", "rngs"),
        ("stream", "indices"),
    ],
)
def test_asking_for_what_the_kind_cannot_give_is_an_error_at_decoration(kind, keyword):
    space = {}
    exec(f"def wanting(source, *, {keyword}): pass", space)
    with pytest.raises(
        TypeError, match=rf"^wanting: a stage\.{kind} function cannot have '{keyword}'; it can ask for "
    ):
        getattr(ff.stage, kind)(space["wanting"])


def test_a_stage_function_needs_a_place_for_its_source():
    def nothing(*, rng):
        pass

    with pytest.raises(
        TypeError, match=r"^nothing: a stage function takes its source as its last positional parameter$"
    ):
        ff.stage(nothing)


# An each stage owes one output for each input


@ff.stage.each
def too_few(source):
    for number, datapoint in enumerate(source):
        if number % 2 == 0:
            yield datapoint


@ff.stage.each
def too_many(source):
    for datapoint in source:
        yield datapoint
        yield datapoint


@ff.stage.each
def too_early(source):
    for number, datapoint in enumerate(source):
        yield datapoint
        if number == 1:
            return


@pytest.mark.parametrize(
    "after", [None, ff.map(abs), ff.batch(2), ff.enumerate()], ids=["last", "map", "batch", "enumerate"]
)
@pytest.mark.parametrize("source", [range(5), streamed(range(5))], ids=["sequence", "stream"])
@pytest.mark.parametrize("wrong", [too_few, too_many, too_early])
def test_an_each_stage_that_does_not_give_one_for_one_is_named(wrong, source, after):
    with pytest.raises(ValueError, match=rf"^{wrong.__name__}\(\) gave the wrong number of outputs \(.*stage\.expand"):
        list(ff.pipe(source, wrong, after))


def test_an_each_stage_that_gives_nothing_is_named_when_indexed():
    @ff.stage.each
    def nothing(source):
        for _ in source:
            if False:
                yield

    with pytest.raises(ValueError, match=r"^nothing\(\) gave the wrong number of outputs \(0 for 1\)"):
        ff.pipe(range(5), nothing)[2]


def test_a_right_each_stage_below_take_is_not_blamed():
    assert list(ff.pipe(range(5), scale(2), ff.take(2))) == [0, 2]
    assert list(ff.pipe(streamed(range(5)), scale(2), ff.take(2))) == [0, 2]
    assert list(ff.zip(ff.pipe(streamed(range(5)), scale(2)), [1], strict=False)) == [(0, 1)]


def one_ahead(source):
    """Gives one output for one input, always one behind what it has read."""
    before = MISSING = object()
    for datapoint in source:
        if before is not MISSING:
            yield before
        before = datapoint
    if before is not MISSING:
        yield before


@pytest.mark.parametrize("order", [ff.cycle(), ff.repeat(3), ff.compose(ff.repeat(2), ff.shuffle())], ids=str)
def test_a_stage_that_reads_ahead_works_below_rounds(order):
    behind = ff.stage.each(one_ahead)
    plain = ff.pipe(range(10), order, ff.take(15))
    assert list(ff.pipe(range(10), behind(), order, ff.take(15))) == list(plain)


@pytest.mark.parametrize("n", [28, 29, 30, 31])
def test_overlapping_groups_of_a_stream_resume(n):
    @ff.stage.group(size="size", step="step")
    def windows(size, step, source):
        for group in source:
            yield list(group)

    def make():
        return windows(4, 2, lambda: iter(range(n)))

    whole = list(make())
    assert whole == list(windows(4, 2, range(n)))
    for k in range(len(whole) + 1):
        assert list(make().run(start=k)) == whole[k:]
