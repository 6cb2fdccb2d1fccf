"""Where a flow stands: states, the anchors in them, over how many readers they go on, and fingerprints."""

import functools
import gc
import json
import operator
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from flows_to_try import add_one, is_odd, jitter, ranks, shuffled
from sources import streamed

import flowfn as ff


def doubled(x):
    return [x, -x]


def plain(value):
    """Arrays as lists, so that datapoints compare."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value


def outputs(flow):
    return [plain(datapoint) for datapoint in flow]


# State


FLOWS = {
    "shuffle, batch": lambda: ff.pipe(range(23), ff.shuffle(), ff.map(jitter, rng=True), ff.batch(3)),
    "filter": lambda: ff.pipe(range(20), ff.shuffle(), ff.filter(is_odd), ff.map(jitter, rng=True)),
    "random filter": lambda: ff.pipe(range(20), ff.filter(lambda x, rng: rng.random() < 0.5, rng=True)),
    "flat_map": lambda: ff.pipe(range(7), ff.flat_map(lambda x: range(x % 4)), ff.map(jitter, rng=True)),
    "random flat_map": lambda: ff.pipe(
        range(7), ff.flat_map(lambda x, rng: rng.integers(0, 9, x % 4).tolist(), rng=True), ff.batch(2)
    ),
    "flat_map of flows": lambda: ff.pipe(
        range(4), ff.flat_map(lambda x: ff.pipe(range(x), ff.shuffle(), ff.map(jitter, rng=True)))
    ),
    "deep expands": lambda: ff.pipe(
        range(9), ff.flat_map(doubled), ff.filter(is_odd), ff.flat_map(doubled), ff.map(jitter, rng=True)
    ),
    "filter, batch, unbatch, map": lambda: ff.pipe(
        range(20), ff.filter(is_odd), ff.batch(3), ff.unbatch(), ff.map(jitter, rng=True)
    ),
    "repeat": lambda: ff.pipe(range(5), ff.shuffle(), ff.repeat(3), ff.map(jitter, rng=True)),
    "repeat a stream": lambda: ff.pipe(range(8), ff.filter(is_odd), ff.map(jitter, rng=True), ff.repeat(3)),
    "cycle a stream": lambda: ff.pipe(range(8), ff.filter(is_odd), ff.map(jitter, rng=True), ff.cycle(), ff.take(11)),
    "concat": lambda: ff.concat(range(3), shuffled(4), []),
    "concat of streams": lambda: ff.concat(
        streamed(range(4)), [], ff.pipe(range(9), ff.filter(is_odd)), ff.pipe(range(3), ff.shuffle())
    ),
    "zip": lambda: ff.zip(shuffled(6), ff.pipe(range(6), ff.shuffle())),
    "zip of streams": lambda: ff.zip(ff.pipe(range(12), ff.filter(is_odd)), streamed(range(6))),
    "take, skip, slice": lambda: ff.pipe(
        streamed(range(30)), ff.skip(3), ff.take(20), ff.slice(1, 15, 3), ff.map(jitter, rng=True)
    ),
    "shuffle_buffer": lambda: ff.pipe(range(20), ff.shuffle_buffer(6), ff.map(jitter, rng=True), ff.batch(4)),
    "filter over shuffle_buffer": lambda: ff.pipe(range(20), ff.shuffle_buffer(6), ff.filter(is_odd)),
    "shard": lambda: ff.pipe(range(20), ff.shuffle(), ff.shard(1, 3), ff.map(jitter, rng=True), ff.batch(2)),
    "shard of a stream": lambda: ff.pipe(range(40), ff.filter(is_odd), ff.shard(1, 3), ff.map(jitter, rng=True)),
    "freeze": lambda: ff.pipe(
        range(9), ff.shuffle(), ff.filter(is_odd), ff.map(jitter, rng=True), ff.freeze(seed=3), ff.enumerate()
    ),
    "callable": lambda: ff.pipe(
        lambda rng, epoch: rng.integers(0, 100, 9).tolist() + [epoch], ff.map(jitter, rng=True)
    ),
    "callable with start": lambda: ff.pipe(lambda start: range(start, 9), ff.filter(is_odd), ff.repeat(2)),
    "plain callable": lambda: ff.pipe(range(9), ff.shuffle(), lambda source: (x for x in source if x % 3), ff.batch(2)),
    "endless": lambda: ff.pipe(range(3), ff.shuffle(), ff.cycle(), ff.enumerate(), ff.take(10)),
    "empty": lambda: ff.pipe([], ff.shuffle(), ff.batch(3)),
    "slice": lambda: shuffled(20)[3:17:2],
    "None": lambda: ff.pipe([None, None, 1], ff.map(lambda x: x)),
}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("of", ["iterator", "flow"])
def test_a_state_after_k_gives_the_rest_and_then_the_next_epoch(name, of):
    make = FLOWS[name]
    this, following = (outputs(make().run(seed=5, epoch=epoch)) for epoch in (2, 3))
    for k in range(len(this) + 1):
        flow = make().reset_state(5).set_epoch(2)
        iterator = iter(flow)
        assert [plain(x) for x in islice(iterator, k)] == this[:k]
        state = json.loads(json.dumps((iterator if of == "iterator" else flow).state_dict()))
        assert state["position"] == k
        assert len(json.dumps(state)) < 1000
        again = make().load_state_dict(state)
        rest = iter(again)
        assert rest.position == k
        assert rest.epoch == 2
        assert outputs(rest) == this[k:]
        assert outputs(again) == following
        assert outputs(iterator) == this[k:]  # taking a state disturbs nothing


@pytest.mark.parametrize("name", FLOWS)
def test_the_state_of_a_resumed_pass_goes_on_too(name):
    make = FLOWS[name]
    whole = outputs(make().run(epoch=0))
    flow, seen = make(), []
    while len(seen) < len(whole):
        flow = make().load_state_dict(json.loads(json.dumps(flow.state_dict())))
        seen += [plain(x) for x in islice(flow, 2)]
    assert seen == whole


@pytest.mark.parametrize("name", FLOWS)
def test_an_exhausted_pass_goes_on_with_the_next_epoch(name):
    flow = FLOWS[name]()
    iterator = iter(flow)
    list(iterator)
    for state in (iterator.state_dict(), flow.state_dict()):
        assert (state["position"], state["epoch"]) == (0, 1)
        assert "anchors" not in state
        assert outputs(FLOWS[name]().load_state_dict(state)) == outputs(FLOWS[name]().run(epoch=1))


def test_a_flow_that_was_never_iterated_stands_at_the_start_of_its_epoch():
    state = shuffled().reset_state(7).set_epoch(4).state_dict()
    assert (state["seed"], state["epoch"], state["position"]) == (7, 4, 0)
    assert list(shuffled().load_state_dict(state)) == list(shuffled().run(seed=7, epoch=4))


def test_the_state_of_a_flow_is_that_of_its_newest_iterator():
    flow = ff.flow(range(10))
    first, second = iter(flow), iter(flow)
    next(second)
    next(first)
    next(first)
    assert (flow.state_dict()["epoch"], flow.state_dict()["position"]) == (1, 1)


def test_a_break_out_of_a_for_loop_leaves_the_state_behind():
    flow = FLOWS["filter"]()
    seen = []
    for datapoint in flow:
        seen.append(datapoint)
        if len(seen) == 3:
            break
    gc.collect()
    again = FLOWS["filter"]().load_state_dict(json.loads(json.dumps(flow.state_dict())))
    assert seen + list(again) == list(FLOWS["filter"]().run(epoch=0))


def test_loading_returns_the_flow_and_fixes_what_looking_shows():
    flow = shuffled().reset_state(7).set_epoch(2)
    iterator = iter(flow)
    next(iterator)
    again = shuffled()
    assert again.load_state_dict(iterator.state_dict()) is again
    assert again[5] == list(shuffled().run(seed=7, epoch=2))[5]
    assert again.state_dict() == iterator.state_dict()


def test_an_iterator_loads_a_state_too():
    flow = FLOWS["filter"]()
    whole = list(flow.run(epoch=0))
    iterator = iter(flow)
    next(iterator)
    state = iterator.state_dict()
    list(iterator)
    assert iterator.load_state_dict(state) is iterator
    assert (iterator.position, iterator.epoch) == (1, 0)
    assert list(iterator) == whole[1:]


def at(make, position):
    """A state that was saved after so many outputs."""
    return make().run(start=position).state_dict()


def test_reset_state_and_another_epoch_forget_a_loaded_position():
    state = at(shuffled, 10)
    assert len(list(shuffled().load_state_dict(state))) == 40
    assert len(list(shuffled().load_state_dict(state).reset_state(1))) == 50
    assert len(list(shuffled().load_state_dict(state).set_epoch(1))) == 50


def test_a_state_is_only_used_for_one_pass():
    flow = shuffled().load_state_dict(at(shuffled, 49))
    assert [len(list(flow)), len(list(flow))] == [1, 50]


@pytest.mark.parametrize("state", [{}, {"seed": 0}, {"seed": 0, "epoch": 0, "position": 0}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match=r"^load_state_dict\(\): not a state of a flow: it lacks .*fingerprint"):
        shuffled().load_state_dict(state)


# Anchors


def counted(f, calls):
    def counting(*arguments):
        calls[f.__name__] += 1
        return f(*arguments)

    counting.__qualname__ = f.__qualname__
    return counting


N = 10_000


DEEP = {
    "map": (lambda c: ff.pipe(range(N), ff.shuffle(), ff.map(counted(add_one, c))), 2),
    "filter": (lambda c: ff.pipe(range(N), ff.map(counted(add_one, c)), ff.filter(counted(is_odd, c))), 12),
    "filter, batch": (
        lambda c: ff.pipe(range(N), ff.filter(counted(is_odd, c)), ff.map(counted(add_one, c)), ff.batch(10)),
        80,
    ),
    "flat_map": (lambda c: ff.pipe(range(N), ff.map(counted(add_one, c)), ff.flat_map(counted(doubled, c))), 6),
    "filters": (
        lambda c: ff.pipe(
            range(N), ff.filter(counted(is_odd, c)), ff.flat_map(counted(doubled, c)), ff.filter(counted(is_odd, c))
        ),
        30,
    ),
    "unbatch": (
        lambda c: ff.pipe(
            range(N), ff.filter(counted(is_odd, c)), ff.batch(8), ff.unbatch(), ff.map(counted(add_one, c))
        ),
        60,
    ),
    "repeat": (
        lambda c: ff.pipe(range(10), ff.filter(counted(is_odd, c)), ff.repeat(N), ff.map(counted(add_one, c))),
        40,
    ),
    "cycle": (lambda c: ff.pipe(range(10), ff.map(counted(add_one, c)), ff.filter(counted(is_odd, c)), ff.cycle()), 40),
    "long repeat": (
        lambda c: ff.pipe(range(N), ff.map(counted(add_one, c)), ff.filter(counted(is_odd, c)), ff.repeat(2)),
        12,
    ),
    "concat": (
        lambda c: ff.concat(*[ff.pipe(range(20), ff.map(counted(add_one, c)), ff.filter(is_odd)) for _ in range(500)]),
        50,
    ),
    "take, skip": (
        lambda c: ff.pipe(range(N), ff.map(counted(add_one, c)), ff.filter(is_odd), ff.skip(5), ff.take(N)),
        12,
    ),
    "shard": (lambda c: ff.pipe(range(N), ff.map(counted(add_one, c)), ff.filter(is_odd), ff.shard(1, 2)), 16),
}


@pytest.mark.parametrize("name", DEEP)
def test_resume_does_not_run_again_what_was_delivered(name):
    make, allowed = DEEP[name]
    flow = make(Counter())
    iterator = iter(flow)
    k = 400 if "batch" not in name or "un" in name else 150
    for _ in islice(iterator, k):
        pass
    state = json.loads(json.dumps(iterator.state_dict()))
    expected = [plain(x) for x in islice(iterator, 2)]
    calls = Counter()
    resumed = iter(make(calls).load_state_dict(state))
    assert [plain(x) for x in islice(resumed, 2)] == expected
    assert calls.total() <= allowed


LAST = {
    "keep": ff.shard(0, 3),
    "drop": ff.shard(2, 3, remainder="drop"),
    "pad": ff.shard(0, 3, remainder="pad"),
    "skip": ff.skip(3),
    "take": ff.take(900),
    "repeat": ff.repeat(2),
    "cycle": ff.cycle(),
    "copies": ff.repeat_each(2),
}


@pytest.mark.parametrize("name", LAST)
def test_what_resumes_at_the_end_of_a_stream_does_not_count_it_anew(name):
    def make(calls):
        return ff.pipe(range(1000), ff.map(counted(add_one, calls)), ff.filter(is_odd), LAST[name])

    length = 500 if name == "cycle" else len(list(make(Counter())))
    with iter(make(Counter())) as iterator:
        assert len(list(islice(iterator, length))) == length
        state = json.loads(json.dumps(iterator.state_dict()))
    calls = Counter()
    with iter(make(calls).load_state_dict(state)) as iterator:
        assert (next(iterator, None) is None) == (name != "cycle")
    assert calls.total() <= 8


def test_resume_replays_a_stage_without_an_anchor_and_is_exact():
    calls = Counter()
    make = lambda: ff.pipe(range(1000), ff.map(counted(add_one, calls)), ff.shuffle_buffer(50))
    iterator = iter(make())
    seen = list(islice(iterator, 500))
    state = iterator.state_dict()
    calls.clear()
    rest = list(make().load_state_dict(state))
    assert seen + rest == list(make().run(epoch=0))
    assert calls["add_one"] >= 1000


def test_an_endless_flow_resumes_deep_inside_at_once():
    flow = ff.pipe(range(1000), ff.shuffle(), ff.cycle(), ff.map(jitter, rng=True))
    at = 10**9 + 7
    assert next(flow.run(start=at)) == flow[at]
    state = flow.run(start=at).state_dict()
    assert (
        next(iter(ff.pipe(range(1000), ff.shuffle(), ff.cycle(), ff.map(jitter, rng=True)).load_state_dict(state)))
        == flow[at]
    )


def test_seekable_flows_have_no_anchors_in_their_state():
    iterator = iter(shuffled())
    next(iterator)
    assert set(iterator.state_dict()) == {
        "version",
        "fingerprint",
        "order",
        "seed",
        "epoch",
        "position",
        "count",
        "digest",
    }


@pytest.mark.parametrize("depth", [1, 6])
def test_a_state_is_under_one_kilobyte(depth):
    stages = [ff.filter(bool), ff.map(add_one), ff.flat_map(doubled)] * depth
    flow = ff.pipe(range(1, 10**6), *stages, ff.batch(2)).reset_state(2**63 - 1)
    iterator = iter(flow)
    next(iterator)
    assert len(json.dumps(iterator.state_dict())) < 1000


# Elastic states


def moved(flows, taken, others):
    """What the ranks of another world give after those of one have all given `taken` outputs."""
    iterators = [iter(flow) for flow in flows]
    seen = [[plain(x) for x in islice(iterator, taken)] for iterator in iterators]
    states = [json.loads(json.dumps(iterator.state_dict())) for iterator in iterators]
    rest = [outputs(flow.load_state_dict(states[number % len(states)])) for number, flow in enumerate(others)]
    return seen, rest


@pytest.mark.parametrize("world", [1, 16, 32, 64])
@pytest.mark.parametrize("taken", [0, 1, 7, 20])
def test_a_state_of_world_32_loads_elsewhere_with_nothing_lost_or_repeated(world, taken):
    seen, rest = moved(ranks(32), taken, ranks(world))
    records = list(chain(*seen, *rest))
    everything = list(ff.pipe(range(1000), ff.shuffle(), ff.map(jitter, rng=True)).run(seed=3, epoch=0))
    assert sorted(records) == sorted(everything)  # each once, and augmented as in one process
    assert sorted(x for x, _ in chain(*seen)) == sorted(x for x, _ in everything[: 32 * taken])
    assert [r[0] for r in rest if r] == everything[32 * taken :][: sum(map(bool, rest))]  # rank r goes on at g + r


def test_an_elastic_state_counts_batches_and_goes_on_after_another_move():
    make = lambda rank, world: ff.pipe(range(960), ff.shuffle(), ff.shard(rank, world), ff.batch(5), ff.map(list))
    seen, _ = moved(ranks(8, make), 3, [])
    iterators = [iter(flow) for flow in ranks(8, make)]
    for iterator in iterators:
        list(islice(iterator, 3))
    second = [iter(flow.load_state_dict(iterators[0].state_dict())) for flow in ranks(4, make)]
    more = [list(islice(iterator, 2)) for iterator in second]
    third = [outputs(flow.load_state_dict(second[rank % 4].state_dict())) for rank, flow in enumerate(ranks(16, make))]
    numbers = [x for part in (seen, more, third) for rank in part for batch in rank for x in batch]
    assert sorted(numbers) == list(range(960))


@pytest.mark.parametrize("taken", [0, 1, 5])
@pytest.mark.parametrize("world", [1, 2, 8])
def test_an_elastic_state_moves_over_a_stream_too(world, taken):
    make = lambda rank, world: ff.pipe(range(200), ff.filter(is_odd), ff.shard(rank, world), ff.map(add_one))
    seen, rest = moved(ranks(4, make), taken, ranks(world, make))
    assert sorted(chain(*seen, *rest)) == list(range(2, 202, 2))


def test_an_elastic_state_loads_into_another_rank_of_the_same_world():
    flows = ranks(4)
    iterator = iter(flows[0])
    list(islice(iterator, 10))
    assert list(ranks(4)[2].load_state_dict(iterator.state_dict())) == list(ranks(4)[2].run(seed=3, epoch=0))[10:]


def test_the_next_epoch_after_an_elastic_resume_is_whole():
    iterator = iter(ranks(4)[0])
    list(islice(iterator, 10))
    flow = ranks(2)[1].load_state_dict(iterator.state_dict())
    assert len(list(flow)) == (1000 - 40) // 2
    assert list(flow) == list(ranks(2)[1].run(seed=3, epoch=1))


def test_an_elastic_state_of_a_finished_pass_is_the_next_epoch_in_any_world():
    flow = ranks(4)[0]
    list(flow)
    assert list(ranks(2)[1].load_state_dict(flow.state_dict())) == list(ranks(2)[1].run(seed=3, epoch=1))


@pytest.mark.parametrize(
    "make",
    [
        lambda rank, world: ff.pipe(range(100), ff.shard(rank, world), ff.shuffle()),
        lambda rank, world: ff.pipe(range(100), ff.shard(rank, world), ff.filter(bool)),
        lambda rank, world: ff.pipe(range(100), ff.shard(rank, world), ff.repeat(2)),
        lambda rank, world: ff.pipe(range(100), ff.shard(rank, world), ff.take(9)),
        lambda rank, world: ff.pipe(range(100), ff.shard(rank, world), ff.shuffle_buffer(9)),
        lambda rank, world: ff.pipe(range(100), ff.shard(0, 2), ff.shard(rank, world)),
    ],
)
def test_a_state_that_is_not_elastic_refuses_another_world_and_says_why(make):
    flow = make(0, 4)
    iterator = iter(flow)
    next(iterator)
    state = iterator.state_dict()
    assert list(make(0, 4).load_state_dict(state)) == list(iterator)
    for rank, world in ((0, 2), (1, 4)):
        with pytest.raises(
            ValueError,
            match=r"the state is of rank 0 of \d, this flow is rank .*put shard after shuffle, filter and repeat",
        ):
            make(rank, world).load_state_dict(state)


# Fingerprints


def test_a_state_of_another_pipeline_is_refused_and_both_are_shown():
    state = ff.pipe(range(10), ff.map(add_one), ff.batch(3)).state_dict()
    other = ff.pipe(range(10), ff.map(add_one), ff.batch(4))
    with pytest.raises(ValueError, match="saved by another pipeline") as caught:
        other.load_state_dict(state)
    message = str(caught.value)
    assert "size=3" in message
    assert "size=4" in message
    assert "strict=False" in message


def test_strict_false_loads_all_the_same():
    state = at(lambda: ff.pipe(range(10), ff.map(add_one)), 4)
    assert list(ff.pipe(range(20), ff.map(abs)).load_state_dict(state, strict=False)) == list(range(4, 20))
    iterator = iter(ff.pipe(range(20), ff.map(abs)))
    assert list(iterator.load_state_dict(state, strict=False)) == list(range(4, 20))


def fingerprint(*stages, source=range(10)):
    return ff.pipe(source, *stages).state_dict()["fingerprint"]


def _named_alike(body):
    space = {"__name__": "somewhere"}
    exec(f"def same(x):\n    return {body}", space)
    return space["same"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fingerprint(ff.shard(0, 2)), fingerprint(ff.shard(1, 2))),
        (fingerprint(ff.shard(0, 2)), fingerprint(ff.shard(0, 5))),
        (fingerprint(ff.map(abs)), fingerprint(ff.map(abs), ff.prefetch(2))),
        (fingerprint(ff.map(_named_alike("x + 1"))), fingerprint(ff.map(_named_alike("x + 2")))),
        (fingerprint(source=range(10)), fingerprint(source=list("abcdefghij"))),
        (
            fingerprint(ff.map(functools.partial(max, np.zeros(3)))),
            fingerprint(ff.map(functools.partial(max, np.ones(3)))),
        ),
        (fingerprint(ff.batch(np.int64(3))), fingerprint(ff.batch(3))),
    ],
)
def test_what_does_not_fix_order_and_count_is_not_in_the_fingerprint(one, other):
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fingerprint(source=range(10)), fingerprint(source=range(11))),
        (fingerprint(ff.map(abs)), fingerprint(ff.map(add_one))),
        (fingerprint(ff.map(np.sqrt)), fingerprint(ff.map(np.negative))),
        (fingerprint(ff.map(abs)), fingerprint(ff.map(abs), ff.map(abs))),
        (fingerprint(ff.take(3), ff.skip(1)), fingerprint(ff.skip(1), ff.take(3))),
        (fingerprint(ff.batch(3)), fingerprint(ff.batch(3, drop_remainder=True))),
        (fingerprint(ff.shuffle()), fingerprint(ff.shuffle(window=4))),
        (fingerprint(ff.subset([1, 2])), fingerprint(ff.subset([2, 1]))),
        (fingerprint(ff.subset(np.array([1, 2]))), fingerprint(ff.subset(np.array([2, 1])))),
        (fingerprint(ff.map(functools.partial(max, 1))), fingerprint(ff.map(functools.partial(max, 2)))),
        (fingerprint(ff.map(functools.partial(max, 1))), fingerprint(ff.map(functools.partial(min, 1)))),
        (
            fingerprint(ff.map(functools.partial(max, np.zeros(3)))),
            fingerprint(ff.map(functools.partial(max, np.zeros(4)))),
        ),
        (fingerprint(ff.batch(2, collate={"a": ff.stack})), fingerprint(ff.batch(2, collate={"b": ff.stack}))),
        (fingerprint(*[ff.map(abs)] * 40, ff.take(3)), fingerprint(*[ff.map(abs)] * 40, ff.take(4))),
        (ff.concat([1], [2]).state_dict()["fingerprint"], ff.concat([1, 2]).state_dict()["fingerprint"]),
        (ff.zip([1], [2]).state_dict()["fingerprint"], ff.concat([1], [2]).state_dict()["fingerprint"]),
        (fingerprint(ff.freeze(seed=0)), fingerprint(ff.freeze(seed=1))),
        (fingerprint(sorted), fingerprint(list)),
        (fingerprint(ff.enumerate(start=0)), fingerprint(ff.enumerate(start=1))),
    ],
)
def test_what_fixes_order_and_count_is_in_the_fingerprint(one, other):
    assert one != other


class Scaler:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by

    def method(self, x):
        return x * self.by


@pytest.mark.parametrize(
    "function",
    [
        str.upper,
        "x".join,
        {"a": 1}.get,
        [].append,
        operator.itemgetter(0),
        len,
        np.sqrt,
        np.float32,
        int,
        Scaler(2),
        Scaler(2).method,
        functools.partial(str.upper),
        lambda x: x,
        operator.attrgetter("real"),
        dict.fromkeys,
        np.random.default_rng(0).random,
        ff.per_process(dict),
    ],
)
def test_a_flow_over_any_callable_has_a_state(function):
    flow = ff.pipe([["a"]], ff.map(function))
    state = json.loads(json.dumps(flow.state_dict()))
    flow.load_state_dict(state)
    assert "0x" not in state["fingerprint"]


def test_a_fingerprint_of_sets_does_not_depend_on_the_order_of_hashes():
    a, b = set("abcdefgh"), set("hgfedcba")
    assert fingerprint(ff.map(functools.partial(operator.contains, a))) == fingerprint(
        ff.map(functools.partial(operator.contains, b))
    )


def test_a_fingerprint_does_not_read_the_data():
    class Dataset:
        def __len__(self):
            return 5

        def __getitem__(self, index):
            raise AssertionError("read")

    ff.pipe(Dataset(), ff.shuffle(), ff.batch(2)).state_dict()
