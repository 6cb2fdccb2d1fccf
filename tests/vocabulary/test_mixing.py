"""Mixing: whose turn it is, when it stops, how it goes on,
against slow and obvious references and other libraries' rules."""

import itertools
import json
import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixes import UNTIL, begin, calm, furthest, noisy, rising, rows, sources
from sources import streamed

import flowfn as ff
from flowfn.testing import check

# Both forms


def progress(iterator):
    return json.loads(json.dumps(iterator.state_dict()))["mix"]


@settings(max_examples=30, **calm)
@given(
    sources,
    st.sampled_from(UNTIL),
    st.booleans(),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from(["given", "given", "length"]),
)
@example([(1, 1), (0, 1)], "all", False, 0, False, "given")
def test_by_index_and_as_a_stream_it_is_the_same(sources, until, random, epoch, augmented, weighed):
    counts, weights = zip(*sources)
    if weighed == "length":
        weights = weighed
    if until in ("cycle_all", "forever"):
        counts = [max(count, 1) for count in counts]

    def made(form):
        inner = [ff.pipe(form(one), ff.map(noisy, rng=True) if augmented else None) for one in rows(*counts)]
        return ff.mix(*inner, weights=weights, until=until, random=random).reset_state(3).set_epoch(epoch)

    by_index, in_order = made(list), made(ff.shuffle_buffer(1) if weighed == "length" else streamed)
    assert by_index.seekable
    assert not in_order.seekable
    with iter(by_index) as one, iter(in_order) as other:
        for _ in range(70):
            assert progress(one) == progress(other)
            assert ff.quotas(one) == ff.quotas(other)
            datapoints = next(one, None), next(other, None)
            assert datapoints[0] == datapoints[1]
            if datapoints[0] is None:
                assert ff.quotas(one) == ff.quotas(other)
                return


@settings(max_examples=40, **calm)
@given(sources, st.sampled_from(["first", "all", "cycle_all"]), st.booleans())
def test_its_length_is_what_it_gives_in_every_epoch(sources, until, random):
    counts, weights = zip(*((max(count, until == "cycle_all"), weight) for count, weight in sources))
    flow = ff.mix(*rows(*counts), weights=weights, until=until, random=random)
    if len(flow) > 3000:
        return
    for _ in range(3):
        length = len(flow)
        assert len(list(flow)) == length


LISTS = rows(5, 2, 7)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("until", ["all", "cycle_all"])
@pytest.mark.parametrize(
    "kinds",
    [(list, list, list), (streamed, streamed, streamed), (list, streamed, ff.shuffle)],
    ids=["lists", "streams", "both"],
)
@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], rising], ids=["numbers", "steps"])
def test_the_laws_hold(kinds, weights, until, random):
    check(
        lambda: ff.mix(*(kind(one) for kind, one in zip(kinds, LISTS)), weights=weights, until=until, random=random),
        workers=(),
        stops=3,
        epochs=(1,),
    )


@pytest.mark.parametrize("kinds", [(list, list), (streamed, streamed)], ids=["lists", "streams"])
@pytest.mark.parametrize(
    ("until", "random", "sizes"), [("first", False, (8, 5)), ("first", True, (8, 5)), ("forever", True, (90, 40))]
)
def test_the_laws_hold_for_the_other_stop_rules(kinds, until, random, sizes):
    check(
        lambda: ff.mix(*(kind(one) for kind, one in zip(kinds, rows(*sizes))), until=until, random=random),
        workers=(),
        stops=3,
    )


@pytest.mark.parametrize("kinds", [(list, list), (streamed, list)], ids=["lists", "both"])
@pytest.mark.parametrize("until", ["all", "cycle_all"])
@pytest.mark.parametrize("weights", [{"a": 3, "b": 2.5}, lambda step: [1, 1 + step % 2]], ids=["names", "steps"])
def test_the_laws_hold_with_workers(kinds, until, weights):
    check(
        lambda: ff.pipe(
            ff.mix(
                {name: kind(one) for name, kind, one in zip("ab", kinds, rows(6, 4))},
                weights=weights,
                until=until,
                random=True,
                tag="name",
            ),
            ff.map(list),
            ff.batch(3, collate=None),
        ),
        workers=({}, {"threads": 2}),
        stops=3,
        epochs=(0,),
    )


@pytest.mark.parametrize("random", [False, True])
def test_the_laws_hold_with_processes(random):
    check(
        lambda: ff.pipe(ff.mix(ff.shuffle(range(9)), streamed("abc"), until="cycle_all", random=random), ff.map(str)),
        workers=({"processes": 2},),
        stops=3,
        epochs=(1,),
    )


def nested():
    return ff.mix(
        ff.mix(ff.shuffle(range(9)), range(20, 25), weights=[2, 1], until="all"),
        streamed("abcd"),
        until="all",
        random=True,
    )


def twice():
    flow = ff.pipe(range(8), ff.shuffle(), ff.filter(lambda x: x != 3))
    return ff.mix(flow, flow, flow, weights=[3, 1, 1], until="all")


def rounds():
    return ff.pipe(ff.mix(ff.shuffle(range(5)), range(10, 17), random=True), ff.repeat(3), ff.map(str))


BELOW = {
    "nested": nested,
    "of one source": lambda: ff.mix(ff.shuffle(range(5)), until="cycle_all", weights=[0.1], random=True),
    "of one stream": lambda: ff.mix(streamed(range(5)), until="all"),
    "one flow thrice": twice,
    "of shards": lambda: ff.mix(
        ff.shard(1, 2, range(9)), ff.pipe(streamed(range(20, 30)), ff.shard(1, 2)), until="all"
    ),
    "repeat": lambda: ff.pipe(nested(), ff.repeat(2)),
    "rounds of different lengths": rounds,
    "a mix that cycles one that varies": lambda: ff.pipe(
        ff.mix(ff.mix(range(6), range(10, 16), random=True), range(90, 99), until="cycle_all"), ff.shuffle_buffer(4)
    ),
    "epoch_of": lambda: ff.epoch_of(7, ff.mix(ff.shuffle(range(5)), range(10, 17), until="all", random=True)),
    "epoch_of rounds that vary": lambda: ff.epoch_of(7, ff.mix(ff.shuffle(range(5)), range(10, 17), random=True)),
    "cache": lambda: ff.pipe(
        ff.mix(range(5), ff.cache(ff.shuffle(range(9))), until="cycle_all", random=True), ff.cache()
    ),
    "freeze and repeat": lambda: ff.pipe(
        ff.mix(range(5), ff.shuffle(range(9)), random=True), ff.freeze(), ff.repeat(2)
    ),
    "prefetch": lambda: ff.mix(
        ff.prefetch(2, ff.shuffle(range(5))),
        ff.pipe(streamed(range(6)), ff.map(str), ff.prefetch(1, threads=2)),
        until="cycle_all",
    ),
    "shuffle": lambda: ff.pipe(ff.mix(range(5), range(10, 30), weights=[1, 3], random=True), ff.shuffle(), ff.batch(3)),
    "shard": lambda: ff.pipe(ff.mix(range(5), range(10, 30), until="all"), ff.shard(1, 3), ff.batch(2)),
    "zip": lambda: ff.zip(ff.mix(range(5), range(9), until="all"), ff.mix(streamed(range(6)), range(8), until="all")),
    "arrays": lambda: ff.pipe(
        ff.mix(ff.from_arrays(np.arange(6)), ff.from_arrays(np.arange(9)), tag=True, until="all"), ff.batch(4)
    ),
}


@pytest.mark.parametrize("name", BELOW)
def test_the_laws_hold_above_and_below_other_stages(name):
    check(BELOW[name], workers=({"threads": 2},), stops=3, epochs=(1,))


def test_rounds_of_a_random_mix_are_as_long_as_each_is():
    flow = rounds()
    made = list(flow)
    turned = [i for i in range(1, len(made)) if made[i] in {"0", "1", "2", "3", "4"} and made[i] in made[:i]]
    assert turned
    mixed = ff.mix(range(500), range(1000, 1500), random=True)
    sizes = {len(list(mixed)) for _ in range(5)}
    assert len(sizes) > 1
    assert len(list(itertools.islice(ff.cycle(mixed), 5000))) == 5000
    with pytest.raises(TypeError, match="has another length in every round"):
        ff.repeat(2, mixed)[3]


# Random order


@pytest.mark.parametrize("weights", [[5, 3, 2], [1, 1, 1], [0.501, 0.4, 0.099], [math.pi, 1, 0.01]], ids=str)
def test_at_random_every_block_has_its_shares(weights):
    exact = [source for source, _ in begin(ff.mix(*rows(20000, 20000, 20000), weights=weights), 3 * 4096)]
    for epoch in range(2):
        made = list(
            itertools.islice(
                ff.mix(*rows(20000, 20000, 20000), weights=weights, random=True).run(epoch=epoch), 3 * 4096
            )
        )
        for block in range(0, 3 * 4096, 4096):
            ours = [source for source, _ in made[block : block + 4096]]
            assert Counter(ours) == Counter(exact[block : block + 4096])
            assert ours != exact[block : block + 4096]
        for source in range(3):
            indices = [index for one, index in made if one == source]
            assert indices == list(range(len(indices)))


def test_at_random_every_epoch_and_seed_has_another_order():
    flow = ff.mix(*rows(400, 400), random=True)
    orders = [
        tuple(source for source, _ in itertools.islice(flow.run(seed=seed, epoch=epoch), 400))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9
    other, pinned = (ff.mix(*rows(400, 400), random=True, name=name) for name in ("other", "other"))
    assert begin(other) == begin(pinned) != begin(flow)
    runs = max(len(list(same)) for _, same in itertools.groupby(orders[0]))
    assert 5 <= runs <= 25  # as in a fair sequence


def test_without_random_every_epoch_has_the_same_order():
    flow = ff.mix(ff.shuffle(range(9)), range(100, 109))
    first, second = list(flow), list(flow)
    assert first != second
    assert [x < 100 for x in first] == [x < 100 for x in second]


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("until", ["cycle_all", "forever"])
def test_every_round_has_new_randomness(form, until):
    shuffled = ff.shuffle if form is list else ff.shuffle_buffer(20)
    flow = ff.mix(
        ff.pipe(shuffled(list(range(20))), ff.map(lambda x, rng: (x, rng.random()), rng=True)),
        [None] * 100,
        weights=[2, 1],
        until=until,
    )
    made = [datapoint for datapoint in begin(flow, 240) if datapoint is not None]
    turns = [made[at : at + 20] for at in range(0, 160, 20)]
    assert all(sorted(x for x, _ in turn) == list(range(20)) for turn in turns)
    assert len({tuple(x for x, _ in turn) for turn in turns}) == 8
    assert len({draw for _, draw in made}) == len(made)


# Far out, endless


@pytest.mark.parametrize("weights", [None, [7, 2, 1], [math.pi, 1, 2], "length"], ids=str)
@pytest.mark.parametrize("random", [False, True])
def test_far_out_it_takes_no_time_and_no_memory(weights, random):
    flow = ff.mix(*[range(10**12)] * 3, weights=weights, random=random)
    places = [10**9 + 4096 * 7 * i + i for i in range(40)]
    flow[0], flow[10**9]
    tracemalloc.start()
    made = [flow[place] for place in places]
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 600_000
    assert peak < 2_000_000
    assert all(abs(index / place - 1 / 3) < 0.4 for index, place in zip(made, places))
    assert ff.subset(places, flow)[7] == made[7]
    with flow.run(start=10**9) as iterator:
        assert [next(iterator) for _ in range(3)] == [flow[10**9 + i] for i in range(3)]


@pytest.mark.parametrize("until", UNTIL)
@pytest.mark.parametrize("form", [list, streamed])
def test_endless_sources_are_fine(until, form):
    flow = ff.mix(ff.cycle(form([1, 2])), ff.cycle(form([3])), until=until)
    assert begin(flow, 6) == [1, 3, 2, 3, 1, 3]
    with pytest.raises(TypeError, match=r"endless|not known"):
        len(flow)
    mixed = ff.mix(ff.cycle(form([1, 2])), form([3, 4, 5]), until=until)
    if until == "first":
        assert list(mixed) == [1, 3, 2, 4, 1, 5, 2]
    else:
        assert begin(mixed, 9) == [1, 3, 2, 4, 1, 5, 2, *([3, 1] if until in ("cycle_all", "forever") else [1, 2])]


def test_reading_an_endless_mix_holds_little():
    for flow in (
        ff.mix(*[ff.cycle(range(50))] * 2, random=True),
        ff.mix(*[ff.cycle(streamed(range(50)))] * 2, weights=lambda step: [1, 2]),
    ):
        with iter(flow) as iterator:
            list(itertools.islice(iterator, 5000))
            tracemalloc.start()
            list(itertools.islice(iterator, 5000, 10000, 10000))
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert held < 1_000_000


def test_rounds_of_a_mix_are_let_go():
    with iter(ff.cycle(ff.mix(ff.shuffle(range(20)), range(20), random=True))) as iterator:
        list(itertools.islice(iterator, 4000))
        tracemalloc.start()
        for _ in range(6000):
            next(iterator)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 1_500_000  # a round holds a block of draws, and there are some hundred rounds


def test_streams_are_opened_together_and_read_only_when_it_is_their_turn():
    read = []
    flow = ff.mix(*[lambda one=one: (read.append(one) or one for _ in range(9)) for one in range(2)], weights=[3, 1])
    begin(flow, 4)
    assert Counter(read) == {0: 3, 1: 1}


# A function of the step


def test_a_schedule_is_followed_step_by_step():
    def steps(step):
        return {"easy": 1, "hard": 0} if step < 6 else {"easy": 1, "hard": 1} if step < 12 else {"hard": 1}

    made = begin(ff.mix({"easy": ["e"] * 50, "hard": ["h"] * 50}, weights=steps), 20)
    assert made[:6] == ["e"] * 6
    assert Counter(made[6:12]) == {"e": 3, "h": 3}
    assert made[12:] == ["h"] * 8


@settings(max_examples=60, **calm)
@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any), min_size=1, max_size=10))
def test_a_schedule_owes_each_source_the_sum_of_its_shares(table):
    flow = ff.mix(*rows(300, 300, 300), weights=lambda step: table[step % len(table)])
    assert not flow.seekable
    with iter(flow) as iterator:
        for step in range(60):
            source = next(iterator)[0]
            assert table[step % len(table)][source]
            quotas = ff.quotas(iterator)
            owed = [
                math.fsum(table[k % len(table)][one] / sum(table[k % len(table)]) for k in range(step + 1))
                for one in range(3)
            ]
            assert [quota.expected for quota in quotas.values()] == pytest.approx(owed)
            if all(map(all, table)):
                assert all(abs(quota.expected - quota.delivered) < 1.5 for quota in quotas.values())


def test_a_schedule_may_draw():
    flow = ff.mix(*rows(900, 900), weights=lambda step: [1, 3], random=True)
    given = Counter(source for source, _ in begin(flow, 800))
    assert 150 < given[0] < 250
    assert begin(flow, 50) != list(itertools.islice(flow.run(epoch=1), 50))


def test_a_schedule_that_is_constant_has_the_same_shares():
    for weights in ([2, 1, 4], [0.5, 0.3, 0.2]):
        made = [source for source, _ in begin(ff.mix(*rows(500, 500, 500), weights=lambda step: weights), 400)]
        assert furthest(made, weights) < 1.5


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([1], r"weights(0) must be a number >= 0 for each of 2 sources, got [1]"),
        (None, r"weights(0) must be a number >= 0 for each of 2 sources, got None"),
        ("ab", r"weights(0) must be a number >= 0 for each of 2 sources, got 'ab'"),
        ([math.nan, 1], r"weights(0) must be a number >= 0 for each of 2 sources, got [nan, 1]"),
        ([-1, 1], r"weights(0) must be a number >= 0 for each of 2 sources, got [-1, 1]"),
        ([math.inf, 1], r"weights(0) must be a number >= 0 for each of 2 sources, got [inf, 1]"),
        (["a", 1], r"weights(0) must be a number >= 0 for each of 2 sources, got ['a', 1]"),
        ([0, 0], r"weights(0) leave nothing for ['x', 'y'], got [0, 0]"),
        ({}, r"weights(0) leave nothing for ['x', 'y'], got {}"),
        ({"x": 1, "z": 1}, r"weights(0) must be for ['x', 'y'], got {'x': 1, 'z': 1}"),
    ],
    ids=str,
)
def test_a_schedule_that_returns_rubbish_is_named(told, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        list(ff.mix({"x": [1], "y": [2]}, weights=lambda step: told))
    assert str(error.value) == f"mix(): {message}"


def test_a_schedule_that_leaves_nothing_for_who_is_left_says_so():
    with pytest.raises(ValueError, match=r"^mix\(\): weights\(2\) leave nothing for \[1\], got \[1, 0\]"):
        list(ff.mix([1, 2], [3], weights=lambda step: [1, 0], until="all"))


# What is refused


@pytest.mark.parametrize(
    ("sources", "options", "error", "message"),
    [
        ((), {}, TypeError, "mix() needs at least one source: flows, or one dict of flows by name"),
        (
            ({"a": [1]}, [2]),
            {},
            TypeError,
            "mix(): sources are flows, or one dict of flows by name, which has all of them",
        ),
        (({},), {}, TypeError, "mix() needs at least one source: flows, or one dict of flows by name"),
        (
            ([1], [2]),
            {"weights": [1]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got [1]",
        ),
        (
            ([1], [2]),
            {"weights": [1, 2, 3]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got [1, 2, 3]",
        ),
        (
            ([1], [2]),
            {"weights": [1, 0]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got [1, 0]; leave out who is to give nothing, or "
            "let phases(...) give it none for a while",
        ),
        (
            ([1], [2]),
            {"weights": [-0.5, 1]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got [-0.5, 1]",
        ),
        (
            ([1], [2]),
            {"weights": [math.nan, 1]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got [nan, 1]",
        ),
        (
            ([1], [2]),
            {"weights": [math.inf, 1]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got [inf, 1]",
        ),
        (
            ([1], [2]),
            {"weights": [True, 1]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got [True, 1]",
        ),
        (
            ([1], [2]),
            {"weights": ["1", 1]},
            ValueError,
            "mix(): weights must be a number > 0 for each of 2 sources, got ['1', 1]",
        ),
        (
            ({"a": [1], "b": [2]},),
            {"weights": {"a": 1, "c": 2}},
            ValueError,
            "mix(): weights must be given for ['a', 'b'], got ['a', 'c']",
        ),
        (
            ({"a": [1], "b": [2]},),
            {"weights": {"a": 1}},
            ValueError,
            "mix(): weights must be given for ['a', 'b'], got ['a']",
        ),
        (
            ({"a": [1], "b": streamed([2])},),
            {"weights": "length"},
            TypeError,
            "mix(): weights=\"length\" needs the length of source 'b', which is not known or endless",
        ),
        (
            ([1], ff.cycle([2])),
            {"weights": "length"},
            TypeError,
            'mix(): weights="length" needs the length of source 1, which is not known or endless',
        ),
        (
            ([1],),
            {"until": "both"},
            ValueError,
            "mix(): until must be 'first', 'all', 'cycle_all' or 'forever', got 'both'",
        ),
        (([1],), {"random": 1}, TypeError, "mix(): random must be True or False, got 1"),
        (([1], []), {"until": "cycle_all"}, ValueError, "mix(): source 1 is empty, it cannot begin again"),
        (({"a": [], "b": [2]},), {"until": "forever"}, ValueError, "mix(): source 'a' is empty, it cannot begin again"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_at_once(sources, options, error, message):
    with pytest.raises(error) as caught:
        ff.mix(*sources, **options)
    assert str(caught.value) == message


def test_weights_may_be_of_any_kind_of_number_and_in_any_sequence():
    expected = list(ff.mix(*rows(9, 9), weights=[2, 1]))
    for weights in (
        [2.0, 1],
        (2, 1),
        np.array([2, 1]),
        np.array([2.0, 1.0]),
        np.array([1.0, 0.5], np.float32),
        {0: 2, 1: 1},
        [np.int8(2), 1],
    ):
        flow = ff.mix(*rows(9, 9), weights=weights)
        assert list(flow) == expected
        assert "weights=" in repr(flow)


@pytest.mark.parametrize("weights", [3, 0.5, "lenght", "ab"])
def test_weights_that_are_none_say_what_they_must_be(weights):
    with pytest.raises((TypeError, ValueError), match=r"^mix\(\): weights must be "):
        ff.mix([1], [2], weights=weights)


def test_an_empty_stream_cannot_begin_again():
    with pytest.raises(ValueError, match=r"^mix\(\): source 'b' gave no datapoint, it cannot begin again"):
        list(ff.mix({"a": streamed([1, 2]), "b": streamed([])}, until="cycle_all"))


@pytest.mark.parametrize("form", [list, streamed])
def test_empty_sources_end_at_once(form):
    assert list(ff.mix(form([]), form([]))) == []
    assert list(ff.mix(form([]), form([]), until="all")) == []
    assert list(ff.mix(form([1, 2]), form([]))) == [1]
    assert list(ff.mix(form([]), form([1, 2]), form([]), until="all")) == [1, 2]


def test_a_mix_where_a_stage_belongs_says_how_to_write_it():
    with pytest.raises(TypeError, match=r"mix\(a, b\)|mix\(pipe"):
        ff.pipe([1], ff.mix)


def test_an_error_at_the_end_of_a_source_is_told_without_an_input():
    with pytest.raises(ValueError, match="can be read once") as caught:
        list(ff.mix(iter("ab"), iter("cd"), until="cycle_all"))
    assert caught.value.__notes__ == [
        "in mix(names=[0, 1], weights=[1, 1], until='cycle_all', random=False), its datapoint 0, seed 0, epoch 0\n"
        "to see it again, serially: flowfn.replay(flow, error)"
    ]
