"""States: whatever became of one, it gives the same stream or is refused where it is loaded,
and its count tells what is left."""

import copy
import io
import json
import math
import pickle
import re
from fractions import Fraction
from itertools import chain, islice

import numpy as np
import pytest
from sources import streamed

import flowfn as ff
from flowfn.flows.schema import sealed
from flowfn.testing import same

pytestmark = pytest.mark.timeout(120)

N = 40


def stream(data):
    return ff.pipe(data, ff.filter(lambda x: True))


def is_odd(x):
    return x % 2 == 1


def row(x):
    return np.arange(1, x % 5 + 2)


def twice(x):
    return [x, -x]


def flow_of(x):
    return ff.pipe(range(x, x + 3), ff.shuffle())


def inverse(x):
    return x + 60 // (x % 4)


def rising(step):
    return [1, 1 + step % 3]


def own(source, *, mark):
    yield from ()
    mark.anywhere(lambda: (0, 0.5, source.position))
    yield from source


own = ff.stage.stream(own)
DROP = ff.guard(ff.map(inverse), then="drop", budget=30)
PIPELINES = {
    "list": lambda: ff.pipe(range(N), ff.shuffle(), ff.map(float), ff.batch(4)),
    "bare": lambda: ff.flow(range(N)),
    "streamed": lambda: streamed(range(N)),
    "filter": lambda: ff.pipe(range(N), ff.filter(is_odd)),
    "filter, batch": lambda: ff.pipe(range(N), ff.shuffle(), ff.filter(is_odd), ff.map(float), ff.batch(3)),
    "expand": lambda: ff.pipe(range(N), ff.flat_map(twice), ff.filter(bool), ff.batch(8), ff.unbatch()),
    "flows inside": lambda: ff.pipe(range(N), ff.flat_map(flow_of)),
    "shuffle_buffer": lambda: ff.pipe(range(N), ff.shuffle_buffer(7), ff.filter(is_odd)),
    "scan, unique": lambda: ff.pipe([1, 2] * (N // 2), ff.scan(lambda total, x: (total + x, total), 0), ff.unique()),
    "take_while": lambda: ff.pipe(range(N), ff.take_while(lambda x: x < 30)),
    "own marks": lambda: ff.pipe(range(N), own()),
    "window": lambda: ff.pipe(range(N), ff.filter(is_odd), ff.window(4, step=2)),
    "repeat": lambda: ff.pipe(range(9), ff.filter(is_odd), ff.repeat(6)),
    "cycle": lambda: ff.pipe(range(9), ff.shuffle(), ff.filter(is_odd), ff.cycle(), ff.take(50)),
    "concat": lambda: ff.concat(*[stream(range(n)) for n in (3, 8, 20)]),
    "skip, slice": lambda: ff.pipe(stream(range(N)), ff.skip(2), ff.take(30), ff.repeat_each(2)),
    "pack": lambda: ff.pipe(range(N), ff.map(row), ff.pack(8)),
    "batch_by_length": lambda: ff.pipe(range(N), ff.map(row), ff.batch_by_length(len, tokens=12)),
    "batch_by_key": lambda: ff.pipe(range(N), ff.batch_by_key(lambda x: x % 3, 4)),
    "rebatch": lambda: ff.pipe(range(N), ff.batch(7), ff.rebatch(4)),
    "interleave": lambda: ff.pipe(range(N), ff.interleave(flow_of, cycle=3, block=2)),
    "mix": lambda: ff.mix({"a": range(N), "b": ff.shuffle(range(9))}, weights=[2, 1], until="cycle_all", random=True),
    "mix of streams": lambda: ff.pipe(ff.mix({"a": stream(range(N)), "b": stream(range(9))}, until="all"), ff.batch(2)),
    "mix in rounds": lambda: ff.mix(stream(range(N)), stream(range(5)), until="cycle_all"),
    "mix by the step": lambda: ff.mix(range(N), range(9), weights=rising, until="all"),
    "guard": lambda: ff.pipe(range(N), ff.guard(ff.map(inverse), then=lambda x, error: x, budget=30), ff.batch(3)),
    "guard, drop": lambda: ff.pipe(range(N), DROP, ff.shuffle_buffer(3)),
    "guard in rounds": lambda: ff.pipe(range(9), DROP, ff.repeat(4)),
    "shard": lambda: ff.pipe(range(N), ff.shuffle(), ff.shard(1, 3), ff.map(float), ff.batch(2)),
    "shard of a stream": lambda: ff.pipe(stream(range(N)), ff.shard(1, 3, remainder="pad"), ff.map(float)),
    "filter of a shard": lambda: ff.pipe(range(N), ff.shard(0, 3), ff.filter(is_odd)),
    "epoch_of": lambda: ff.pipe(stream(range(9)), ff.epoch_of(25)),
    "epoch_of, repeat": lambda: ff.pipe(stream(range(9)), ff.epoch_of(10), ff.repeat(3)),
    "cache": lambda: ff.pipe(stream(range(N)), ff.cache(), ff.shuffle_buffer(3)),
    "freeze": lambda: ff.pipe(range(9), ff.shuffle(), ff.filter(is_odd), ff.freeze(seed=3), ff.repeat(5)),
    "prefetch": lambda: ff.pipe(range(N), ff.filter(is_odd), ff.map(float), ff.prefetch(2)),
    "zip": lambda: ff.zip(stream(range(N)), range(N)),
}


def records(made):
    return list(chain.from_iterable(made))


def saved(make, k):
    """(a state after k outputs, what is left, what the next epoch begins with)."""
    flow = make().reset_state(7).set_epoch(2)
    with iter(flow) as iterator:
        for _ in islice(iterator, k):
            pass
        state = json.loads(json.dumps(iterator.state_dict()))
        return state, list(iterator)


def left(make, state, most, load=lambda make, state: make().load_state_dict(state)):
    """What a state gives, or the error with which it is refused."""
    try:
        loaded = load(make, state)
    except ValueError as error:
        return error
    with iter(loaded) as iterator:
        try:
            return list(islice(iterator, most))
        except ValueError as error:
            if ": the state says that" in str(error):  # what can be told only once the data is read
                return ValueError(f"load_state_dict(): anchors: {error}")
            raise


def leaves(value, path=()):
    """The path of every value in a state, containers too."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def changed(state, path, value):
    """A copy of a state with another value at a path (none at all for `...`)."""
    state = copy.deepcopy(state)
    holder = state
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return state


def at(state, path):
    for key in path:
        state = state[key]
    return state


def near(value):
    """Other values that look like it."""
    if type(value) in (int, float):
        return [value + 1, value - 1, value / 2, value + 0.5, -value]
    return [value[:-1], value[::-1], value[:1] + value] if isinstance(value, (str, list)) else []


NEVER = [
    "5",
    "",
    b"3",
    None,
    math.nan,
    math.inf,
    -math.inf,
    2.5,
    [],
    {},
    [[1]],
    {"a": 1},
    object(),
    ...,
    10**5000,
    [10**400],
    np.arange(3),
]
"""What no value of a state can be, unless it was that."""
NUMBERS = [-1, -(10**9), 0, 1, 2, 3, 7, 10**6, 10**15, 2**70, True, False]


@pytest.mark.parametrize("k", [0, 7])
@pytest.mark.parametrize("name", PIPELINES)
def test_a_state_with_one_value_changed_gives_the_same_stream_or_is_refused_by_name(name, k):
    make = PIPELINES[name]
    state, rest = saved(make, k)
    for path in leaves(state):
        if not path:
            continue
        for value in [*NEVER, *NUMBERS, *near(at(state, path))]:
            got = left(make, changed(state, path, value), len(rest) + 3)
            if isinstance(got, ValueError):
                assert str(got).startswith("load_state_dict(): "), (path, value)
                assert path[0] in str(got) or "digest" in str(got), (path, value, got)
            else:
                assert same(got, rest), (path, value)


def might_be(name, state, path, value):
    """Whether another state of the pipeline holds that value there, so that only the digest can tell."""
    if path == ("seed",):
        return value == -1
    if path[0] != "anchors" or len(path) < 4:
        return False
    if value is ... or (name == "expand" and path[-1] == 0):  # a shorter note; nobody knows how many there are
        return True
    before, expected = path[-1] == 1, path[-1] >= 10 and value == 2.5  # of the two sources of a mix
    return "mix" in name and (before or expected)


@pytest.mark.parametrize("k", [0, 7])
@pytest.mark.parametrize("name", PIPELINES)
def test_what_no_state_can_hold_is_refused_even_where_the_digest_is_right(name, k):
    make = PIPELINES[name]
    state, rest = saved(make, k)
    for path in leaves(state):
        if not path or path[0] in ("digest", "version"):
            continue
        huge = [10**15, 2**70] if path[0] not in ("seed", "epoch", "fingerprint", "order", "rank", "world") else []
        for value in ["5", None, math.nan, math.inf, -1, 2.5, {"a": 1}, [[1]], ..., *huge]:
            if might_be(name, state, path, value):
                continue
            got = left(make, sealed(changed(state, path, value)), len(rest) + 3)
            if isinstance(got, ValueError):
                assert str(got).startswith("load_state_dict(): "), (path, value)
                assert path[0] in str(got) or path[0] in ("order", "rank", "world", "epoch", "seed"), (path, value, got)
            else:
                assert same(got, rest), (path, value, state, changed(state, path, value))


@pytest.mark.parametrize("name", PIPELINES)
def test_a_key_that_does_not_belong_there_is_refused(name):
    state, _ = saved(PIPELINES[name], 5)
    for key, value in (("extra", 1), (5, 5), ("Position", 5), ("anchors ", {})):
        for whole in ({**state, key: value}, sealed({**state, key: value})):
            assert str(key) in str(left(PIPELINES[name], whole, 0))
    for other in ([], "text", 5, None):
        with pytest.raises(TypeError, match="a state is a dict"):
            PIPELINES[name]().load_state_dict(other)
    looped: list = []
    looped.append(looped)
    assert "position" in str(left(PIPELINES[name], {**state, "position": looped}, 0))


@pytest.mark.parametrize("name", PIPELINES)
def test_an_iterator_that_refuses_a_state_goes_on_as_it_was(name):
    make = PIPELINES[name]
    state, rest = saved(make, 3)
    with iter(make().reset_state(7).set_epoch(2)) as iterator:
        list(islice(iterator, 3))
        with pytest.raises(ValueError, match="position"):
            iterator.load_state_dict({**state, "position": -1})
        assert same(list(iterator), rest)
        assert same(list(iterator.load_state_dict(state)), rest)


def test_an_edited_state_is_told_by_what_was_edited():
    state, _ = saved(PIPELINES["filter, batch"], 2)
    with pytest.raises(ValueError, match="damaged or edited: position is not what was saved"):
        PIPELINES["filter, batch"]().load_state_dict({**state, "position": 3})
    with pytest.raises(ValueError, match="damaged or edited: count, position are not what was saved"):
        PIPELINES["filter, batch"]().load_state_dict({**state, "position": 3, "count": 9})
    with pytest.raises(ValueError, match=r"damaged or edited: its digest is of something else \(it may lack .*anchors"):
        PIPELINES["filter, batch"]().load_state_dict({key: value for key, value in state.items() if key != "anchors"})
    with pytest.raises(ValueError, match="version must be 1, got 2: another release"):
        PIPELINES["filter, batch"]().load_state_dict({**state, "version": 2})


# From other serialisers


def mapped(f):
    """Every number of a state made another type."""

    def over(value):
        if isinstance(value, dict):
            return {key: over(one) for key, one in value.items()}
        return (
            [over(one) for one in value]
            if isinstance(value, list)
            else f(value)
            if type(value) in (int, float)
            else value
        )

    return over


def through_savez(state):
    file = io.BytesIO()
    np.savez(file, **{key: value if not isinstance(value, dict) else json.dumps(value) for key, value in state.items()})
    file.seek(0)
    held = np.load(file)
    return {key: json.loads(held[key].item()) if key in ("anchors", "mix") else held[key] for key in held.files}


def through_torch(state):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


def through_msgpack(state):
    msgpack = pytest.importorskip("msgpack")
    return msgpack.unpackb(msgpack.packb(state))


def through_yaml(state):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(yaml.safe_dump(state))


def with_tensors(state):
    torch = pytest.importorskip("torch")
    return mapped(torch.tensor)({**state, "mix": state["mix"]} if "mix" in state else state)


WAYS = {
    "json": lambda state: json.loads(json.dumps(state)),
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "msgpack": through_msgpack,
    "torch": through_torch,
    "yaml": through_yaml,
    "savez": through_savez,
    "np.int64": mapped(lambda x: np.int64(x) if type(x) is int else np.float64(x)),
    "float": mapped(float),
    "arrays": mapped(np.asarray),
    "keys": lambda state: (
        {**state, "anchors": {int(key): one for key, one in state["anchors"].items()}} if "anchors" in state else state
    ),
    "tuples": lambda state: {
        **state,
        **(
            {"anchors": {key: tuple(map(tuple_of, one)) for key, one in state["anchors"].items()}}
            if "anchors" in state
            else {}
        ),
    },
    "np.str_": lambda state: {
        np.str_(key): np.str_(value) if isinstance(value, str) else value for key, value in state.items()
    },
}


def tuple_of(value):
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PIPELINES)
def test_numbers_that_come_back_as_other_types_mean_the_same(name, way):
    state, rest = saved(PIPELINES[name], 6)
    with iter(PIPELINES[name]().load_state_dict(WAYS[way](state))) as iterator:
        assert same(list(iterator), rest)
        if not rest:
            return
    again = iter(PIPELINES[name]().load_state_dict(WAYS[way](state)))
    assert json.loads(json.dumps(again.state_dict()))["position"] == state["position"]


def test_tensors_mean_their_numbers():
    torch = pytest.importorskip("torch")
    state, rest = saved(PIPELINES["interleave"], 6)
    assert same(list(PIPELINES["interleave"]().load_state_dict(mapped(torch.tensor)(state))), rest)


@pytest.mark.parametrize("kind", [str, bytes, Fraction, complex])
def test_text_and_other_kinds_of_number_are_refused(kind):
    state, _ = saved(PIPELINES["list"], 3)
    for key in ("seed", "epoch", "position", "count"):
        with pytest.raises(ValueError, match=key):
            PIPELINES["list"]().load_state_dict({**state, key: kind(state[key]) if kind is not bytes else b"3"})


@pytest.mark.parametrize("k", [0, 3, 7])
@pytest.mark.parametrize("name", PIPELINES)
def test_a_state_is_small(name, k):
    assert len(json.dumps(saved(PIPELINES[name], k)[0])) < 1000


# The epoch


@pytest.mark.parametrize("name", PIPELINES)
def test_set_epoch_of_the_epoch_of_a_state_keeps_its_position(name):
    make = PIPELINES[name]
    state, rest = saved(make, 5)
    flow = make().load_state_dict(state)
    assert same(list(flow.set_epoch(state["epoch"])), rest)
    assert same(list(islice(flow.set_epoch(state["epoch"] + 1), 9)), list(islice(make().run(seed=7, epoch=3), 9)))
    assert same(
        list(islice(make().load_state_dict(state).set_epoch(1), 9)), list(islice(make().run(seed=7, epoch=1), 9))
    )


def test_the_habit_of_setting_every_epoch_reads_nothing_again():
    read = []
    flow = ff.pipe(range(9), ff.map(lambda x: read.append(x) or x), ff.filter(is_odd), ff.epoch_of(50))
    for epoch in range(20):
        read.clear()
        assert len(list(flow.set_epoch(epoch))) == 50
    assert len(read) < 150


def test_set_epoch_after_a_pass_that_was_left_begins_that_epoch():
    flow = ff.flow(range(9))
    next(iter(flow))
    flow.set_epoch(1)
    assert (flow.state_dict()["epoch"], flow.state_dict()["position"]) == (1, 0)


def test_the_flow_goes_on_behind_the_pass_of_a_state_that_its_iterator_loaded():
    make = PIPELINES["filter, batch"]
    state, rest = saved(make, 3)
    flow = make()
    iterator = iter(flow).load_state_dict(state)
    assert same(list(iterator), rest)
    assert (flow.seed, flow.epoch) == (7, 3)
    assert flow.state_dict() == make().reset_state(7).set_epoch(3).state_dict()
    assert same(list(flow), list(make().run(seed=7, epoch=3)))
    aside = flow.run(epoch=1).load_state_dict(state)
    assert same(list(aside), rest)
    assert flow.epoch == 4


# In words


def test_a_state_is_described_in_words(capsys):
    make = PIPELINES["filter, batch"]
    state, _ = saved(make, 3)
    ff.describe(state)
    assert re.fullmatch(
        r"state of source\[40\] > shuffle.* #[0-9a-f]{16}\n  seed 7, epoch 2: 3 outputs given, 9 datapoints used\n"
        r"  stage 2: starts again after \d outputs\n  as it was saved: its digest is right\n",
        capsys.readouterr().out,
    )
    for name, told in {
        "filter, batch": (
            "  filter(is_odd): starts again after 8 outputs\n  as it was saved: its digest is right\n  it can be loaded"
        ),
        "filter": "it cannot be loaded here: the state was saved by another pipeline",
    }.items():
        ff.describe(state, of=PIPELINES[name]())
        assert told in capsys.readouterr().out
    ff.describe(state, of=ff.pipe(range(N), ff.shuffle(), ff.filter(is_odd), ff.batch(2)))
    assert "it can be loaded here, with strict=False\n" in capsys.readouterr().out
    ff.describe({**state, "position": 5})
    assert "damaged or edited: position is not what was saved" in capsys.readouterr().out
    with pytest.raises(TypeError, match="of= is the flow of a state"):
        ff.describe([1], of=make())


@pytest.mark.parametrize("name", PIPELINES)
def test_every_state_can_be_described(name, capsys):
    make = PIPELINES[name]
    ff.describe(saved(make, 7)[0], of=make())
    told = capsys.readouterr().out
    assert told.endswith("  as it was saved: its digest is right\n  it can be loaded here\n")
    assert max(map(len, told.splitlines()[1:])) < 160


# Other batches


FORMS = {
    "list": lambda *stages: ff.pipe(range(50), ff.shuffle(), *stages),
    "bare": lambda *stages: ff.pipe(range(50), *stages),
    "streamed": lambda *stages: ff.pipe(streamed(range(50)), *stages),
    "filter": lambda *stages: ff.pipe(range(90), ff.shuffle(), ff.filter(is_odd), *stages),
    "buffer": lambda *stages: ff.pipe(range(50), ff.shuffle_buffer(8), *stages),
    "rounds": lambda *stages: ff.pipe(range(10), ff.shuffle(), ff.repeat(5), *stages),
    "shard of one": lambda *stages: ff.pipe(range(100), ff.shard(1, 2), ff.shuffle(), *stages),
    "guard": lambda *stages: ff.pipe(range(50), ff.guard(ff.map(inverse), then="drop", budget=30), *stages),
    "arrays": lambda *stages: ff.pipe(np.arange(50), ff.shuffle(), *stages),
    "mix": lambda *stages: ff.pipe(ff.mix(range(30), stream(range(20)), until="all"), *stages),
}
NOISY = ff.map(lambda x, rng: (int(x), int(rng.integers(1 << 40))), rng=True)


def batches(size, *stages, **options):
    return lambda form: form(NOISY, *stages, ff.batch(size, collate=None, **options))


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize(("before", "after"), [(10, 16), (10, 5), (4, 12), (3, 7), (7, 50)])
@pytest.mark.parametrize("name", FORMS)
def test_with_another_batch_size_no_record_is_lost_or_repeated(name, before, after, k):
    form = FORMS[name]
    whole = records(batches(1)(form).run(seed=3, epoch=1))
    with iter(batches(before)(form).reset_state(3).set_epoch(1)) as iterator:
        seen = records(islice(iterator, k))
        state = json.loads(json.dumps(iterator.state_dict()))
    with pytest.raises(ValueError, match=r"(?s)another pipeline.*strict=False"):
        batches(after)(form).load_state_dict(state)
    loaded = batches(after)(form).load_state_dict(state, strict=False)
    if loaded.seekable:
        assert len(loaded) == len(batches(after)(form))
    with iter(loaded) as iterator:
        first = records(islice(iterator, 1))
        again = json.loads(json.dumps(iterator.state_dict()))
        rest = records(iterator)
    assert seen + first + rest == whole
    assert len(first) == min(after, len(whole) - len(seen))
    assert records(batches(after)(form).load_state_dict(again)) == rest
    assert records(batches(before)(form).load_state_dict(again, strict=False)) == rest
    assert records(loaded) == records(batches(1)(form).run(seed=3, epoch=2))


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("name", ["list", "filter", "buffer", "arrays", "mix"])
def test_workers_go_on_within_a_batch_too(name, workers):
    form = FORMS[name]
    with iter(batches(10)(form)) as iterator:
        list(islice(iterator, 3))
        state = json.loads(json.dumps(iterator.state_dict()))
    expected = list(batches(16)(form).load_state_dict(state, strict=False))
    with iter(ff.pipe(batches(16)(form), ff.prefetch(2, **workers)).load_state_dict(state, strict=False)) as iterator:
        first = list(islice(iterator, 1))
        again = json.loads(json.dumps(iterator.state_dict()))
        assert first + list(iterator) == expected
    assert list(batches(16)(form).load_state_dict(again)) == expected[1:]


@pytest.mark.parametrize(
    "stages",
    [
        (ff.map(list), ff.batch(4, collate=None, drop_remainder=True)),
        (ff.batch(2, collate=None), ff.batch(3, collate=None), ff.map(records)),
        (ff.prefetch(2), ff.batch(7, collate=None), ff.prefetch(1)),
        (ff.batch(1, collate=None),),
        (ff.guard(ff.batch(9, collate=None)),),
    ],
    ids=str,
)
def test_map_like_stages_batches_and_prefetch_may_come_and_go(stages):
    make = FORMS["list"]
    whole = records(batches(1)(make))
    with iter(batches(10)(make)) as iterator:
        seen = records(islice(iterator, 2))
        state = iterator.state_dict()
    rest = records(make(NOISY, *stages).load_state_dict(state, strict=False))
    assert [tuple(x) for x in seen + rest] == whole[: len(seen) + len(rest)]
    assert len(whole) - len(seen) - len(rest) < 4


def test_a_map_before_shuffle_may_change():
    whole = list(ff.pipe(range(20), ff.shuffle()).run(epoch=0))
    state = ff.pipe(range(20), ff.map(abs), ff.shuffle(), ff.map(float), ff.batch(5)).run(epoch=0, start=2).state_dict()
    assert list(ff.pipe(range(20), ff.shuffle()).load_state_dict(state, strict=False)) == whole[10:]


def test_what_grew_at_its_end_goes_on_where_it_was():
    state = ff.pipe(range(20), ff.batch(5)).run(start=2).state_dict()
    assert records(ff.pipe(range(30), ff.batch(4)).load_state_dict(state, strict=False)) == list(range(10, 30))


@pytest.mark.parametrize(
    "other",
    [
        lambda: ff.pipe(range(20), ff.shuffle(), ff.filter(is_odd), ff.batch(5)),
        lambda: ff.pipe(range(20), ff.batch(5)),
        lambda: ff.pipe(range(21), ff.shuffle(), ff.batch(5)),
        lambda: ff.pipe(range(20), ff.shuffle(), ff.take(15), ff.batch(5)),
        lambda: ff.pipe(range(20), ff.shuffle(), ff.repeat(2), ff.batch(5)),
        lambda: ff.pipe(range(20), ff.shuffle(), ff.shuffle(), ff.batch(5)),
        lambda: ff.pipe(range(20), ff.shuffle(window=3), ff.batch(5)),
        lambda: ff.pipe(range(20), ff.shuffle(), ff.window(5, step=2)),
        lambda: ff.pipe(range(20), ff.shuffle_buffer(5), ff.batch(5)),
        lambda: ff.pipe(range(20), ff.shuffle(), ff.batch(5), ff.unbatch()),
        lambda: ff.pipe(range(20), ff.shuffle(), ff.batch(2), ff.shuffle()),
    ],
)
def test_where_other_datapoints_are_counted_strict_false_refuses(other):
    state = ff.pipe(range(20), ff.shuffle(), ff.batch(5)).run(start=2).state_dict()
    with pytest.raises(ValueError, match="cannot be told which datapoints are left"):
        other().load_state_dict(state, strict=False)
    with pytest.raises(ValueError, match="cannot be told which datapoints are left"):
        ff.pipe(range(20), ff.shuffle(), ff.batch(5)).load_state_dict(other().run(start=1).state_dict(), strict=False)


@pytest.mark.parametrize(("before", "after"), [((4, 3), (4, 5)), ((4, 3), (2, 4)), ((2, 5), (3, 2)), ((3, 2), (1, 6))])
def test_ranks_and_batches_may_change_together(before, after):
    def make(rank, world, size):
        return ff.pipe(range(120), ff.shuffle(), ff.shard(rank, world), NOISY, ff.batch(size, collate=None))

    (world, size), (others, other) = before, after
    whole = records(make(0, 1, 1).run(epoch=0))
    states, seen = [], []
    for rank in range(world):
        with iter(make(rank, world, size)) as iterator:
            seen += records(islice(iterator, 3))
            states.append(iterator.state_dict())
    rest = [
        records(make(rank, others, other).load_state_dict(states[rank % world], strict=False)) for rank in range(others)
    ]
    assert sorted(seen + records(rest)) == sorted(whole)


def test_one_process_takes_over_from_ranks():
    state = ff.pipe(range(60), ff.shuffle(), ff.shard(1, 3), ff.batch(4)).run(start=2, epoch=0).state_dict()
    whole = list(ff.pipe(range(60), ff.shuffle()).run(epoch=0))
    assert records(ff.pipe(range(60), ff.shuffle(), ff.batch(7)).load_state_dict(state, strict=False)) == whole[24:]


def test_a_group_draws_what_no_group_drew_before():
    def make(size):
        return ff.pipe(
            range(50), ff.batch(size, collate=None), ff.map(lambda x, rng: int(rng.integers(1 << 40)), rng=True)
        )

    with iter(make(10)) as iterator:
        drawn = list(islice(iterator, 3))
        state = iterator.state_dict()
    assert not set(drawn) & set(make(16).load_state_dict(state, strict=False))


# Rounds


def test_a_round_that_was_empty_is_not_taken_for_all_rounds_being_empty():
    rounds = iter(range(10**6))
    make = lambda numbers: ff.pipe(
        lambda: iter(range(next(numbers) % 3 == 0)), ff.filter(lambda x: True), ff.repeat(3000)
    )
    with iter(make(rounds)) as iterator:
        list(islice(iterator, 500))
        state = iterator.state_dict()
    for found in (0, 1):
        (place,) = [key for key, (_, _, inputs) in state["anchors"].items() if len(inputs) == 2]
        edited = json.loads(json.dumps(state))
        edited["anchors"][place][2][1] = found
        assert len(list(islice(make(iter(range(10**6))).load_state_dict(sealed(edited)), 5))) == 5
