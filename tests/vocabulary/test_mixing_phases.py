"""Mixes that change on the way: phases, how often sources may be read, and temperatures."""

import itertools
import json
import math
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixes import begin, calm, noisy, rows
from sources import streamed

import flowfn as ff
from flowfn.testing import check

# Phases


def letters(sizes, form=list):
    return {name: form([name] * size) for name, size in sizes.items()}


def test_a_phase_holds_until_the_next_begins():
    schedule = ff.phases({0: {"a": 3, "b": 1}, 8: {"b": 1}, 12: {"c": 1, "a": 1}})
    made = begin(ff.mix(letters({"a": 50, "b": 50, "c": 50}), weights=schedule), 20)
    assert Counter(made[:8]) == {"a": 6, "b": 2}
    assert made[8:12] == ["b"] * 4
    assert Counter(made[12:]) == {"a": 4, "c": 4}


@pytest.mark.parametrize(
    ("at", "shares"),
    [
        (0, [1, 0]),
        (50, [1, 0]),
        (60, [0.9, 0.1]),
        (100, [0.5, 0.5]),
        (149, [0.5, 0.5]),
        (175, [0.25, 0.75]),
        (200, [0, 1]),
    ],
)
def test_over_a_ramp_shares_change_linearly(at, shares):
    schedule = ff.phases({0: [4, 0], 100: [1, 1], 200: [0, 9]}, ramp=50)
    assert schedule(at) == pytest.approx(shares)


def test_a_warm_up_begins_at_once_and_an_anneal_ends_where_its_phase_begins():
    warm = ff.phases({0: {"easy": 1}, 10: {"easy": 1, "hard": 1}}, ramp={10: 10})
    assert [warm(at)["easy"] for at in (0, 5, 10)] == [1, 0.75, 0.5]
    anneal = ff.phases({0: {"web": 1}, 100: {"good": 1}}, ramp=10)
    assert [anneal(at).get("good", 0) for at in (0, 90, 95, 100, 10**9)] == [0, 0, 0.5, 1, 1]


def test_in_a_mix_with_units_phases_begin_at_units():
    sizes = {"a": 10, "b": 2}
    schedule = ff.phases({0: {"a": 1}, 100: {"a": 1, "b": 1}, 300: {"b": 1}})
    flow = ff.mix(letters({"a": 99, "b": 999}), weights=schedule, unit=lambda x: sizes[x])
    made = begin(flow, 200)
    units = list(itertools.accumulate(map(sizes.__getitem__, made), initial=0))
    assert all(one == "a" for one, before in zip(made, units) if before < 100)
    assert all(one == "b" for one, before in zip(made, units) if before >= 300)
    middle = [one for one, before in zip(made, units) if 100 <= before < 300]
    assert abs(10 * middle.count("a") - 2 * middle.count("b")) <= 20


def test_a_schedule_of_phases_is_a_value():
    first, second = (ff.phases({0: {"a": 1}, 5: {"a": 1, "b": 2}}, ramp=2) for _ in range(2))
    assert first == second != ff.phases({0: {"a": 1}, 5: {"a": 1, "b": 2}}, ramp=3)
    assert pickle.loads(pickle.dumps(first)) == first
    assert repr(first) == "phases(mixtures={0: {'a': 1}, 5: {'a': 1, 'b': 2}}, ramp=2)"
    flows = [ff.mix(letters({"a": 9, "b": 9}), weights=weights) for weights in (first, second)]
    with iter(flows[0]) as iterator:
        next(iterator)
        state = iterator.state_dict()
    flows[1].load_state_dict(state)
    other = ff.mix(letters({"a": 9, "b": 9}), weights=ff.phases({0: {"a": 1}, 6: {"a": 1, "b": 2}}, ramp=2))
    with pytest.raises(ValueError, match="saved by another pipeline"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({},), ValueError, "mixtures must be a dict of weights"),
        (({1: [1]},), ValueError, "mixtures must be a dict of weights"),
        (({0: [1], 5: [2], 3: [1]},), ValueError, "mixtures must be a dict of weights"),
        (({0: [0, 0]},), TypeError, "mixtures must be a dict of weights"),
        (({0: {"a": -1}},), TypeError, "mixtures must be a dict of weights"),
        (([1, 2],), TypeError, "mixtures must be a dict of weights"),
        (({0: [1], 10: [2]}, -1), ValueError, "ramp must be a number >= 0"),
        (({0: [1], 10: [2]}, "x"), TypeError, "ramp must be a number >= 0"),
        (
            ({0: [1], 10: [2]}, 11),
            ValueError,
            "ramp must be at most as long as the phase before it (10 before 10), got 11",
        ),
        (({0: [1], 10: [2]}, {5: 1}), ValueError, "ramp must be for phases that begin at [0, 10], got {5: 1}"),
        (({0: [1], 10: {"a": 2}},), ValueError, "mixtures must all be dicts, or all be lists of one length"),
    ],
    ids=str,
)
def test_what_is_no_schedule_is_refused(arguments, error, message):
    with pytest.raises(error) as caught:
        ff.phases(*arguments)
    assert str(caught.value).startswith(f"phases(): {message}")


def test_phases_of_other_sources_are_refused_when_they_are_mixed():
    for schedule in (ff.phases({0: {"a": 1}, 9: {"z": 1}}), ff.phases({0: [1, 2, 3]})):
        with pytest.raises(ValueError, match=r"^mix\(\): weights from \d on must be for \['a', 'b'\], got "):
            ff.mix(letters({"a": 1, "b": 1}), weights=schedule)


@pytest.mark.parametrize("unit", [None, len], ids=["steps", "units"])
@pytest.mark.parametrize("until", ["first", "all", "cycle_all"])
@pytest.mark.parametrize("form", [list, streamed])
def test_the_laws_hold_for_phases(form, until, unit):
    schedule = ff.phases({0: [1, 0, 0], 6: [1, 2, 1], 20: [0, 1, 1]}, ramp=4)
    sizes = [["aaa", "a", ""], ["bb"] * 7, ["c", "cccc"]]
    check(
        lambda: ff.mix(
            *map(form, sizes),
            weights=schedule,
            until=until,
            unit=unit,
            epochs=None if until == "cycle_all" else {0: 3, 2: 4},
        ),
        workers=({"threads": 2},),
        stops=4,
        epochs=(1,),
    )


def test_a_source_that_ends_in_a_phase_of_its_own_is_named():
    for options in ({}, {"unit": len}):
        flow = ff.mix(
            letters({"tiny": 2, "web": 9}), weights=ff.phases({0: {"tiny": 1}, 99: {"web": 1}}), until="all", **options
        )
        with pytest.raises(ValueError, match=r"leave nothing for \['web'\], .*; \['tiny'\] have ended: give others"):
            list(flow)


def test_a_mix_is_over_when_all_that_its_last_phase_asks_for_has_ended():
    schedule = ff.phases({0: {"a": 1, "b": 1}, 4: {"b": 1}})
    for options in ({}, {"unit": len}):
        made = list(ff.mix(letters({"a": 50, "b": 5}), weights=schedule, until="all", **options))
        assert Counter(made) == {"a": 2, "b": 5}


def test_a_tiny_source_is_read_again_within_its_phase():
    schedule = ff.phases({0: {"web": 1}, 10: {"web": 1, "tiny": 3}})
    made = begin(ff.mix(letters({"web": 99, "tiny": 2}), weights=schedule, epochs={"tiny": math.inf}), 30)
    assert Counter(made[10:]) == {"web": 5, "tiny": 15}
    assert made[:10] == ["web"] * 10


# How often


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"until": "all", "epochs": 2}, {"a": 4, "b": 10}),
        ({"until": "all", "epochs": {"a": 3}}, {"a": 6, "b": 5}),
        ({"until": "first", "epochs": {"a": 2}}, {"a": 4, "b": 4}),
        ({"until": "first", "epochs": {"a": math.inf}}, {"a": 6, "b": 5}),
        ({"until": "all", "epochs": 1}, {"a": 2, "b": 5}),
    ],
    ids=str,
)
def test_sources_are_read_as_often_as_they_may(form, options, expected):
    made = list(ff.mix(letters({"a": 2, "b": 5}, form), **options))
    assert Counter(made) == expected


def test_parts_of_an_epoch_are_the_first_datapoints_of_its_order():
    flow = ff.mix({"a": list(range(10)), "b": [None] * 30}, epochs={"a": 2.5, "b": 0.5}, until="all")
    made = list(flow)
    assert [x for x in made if x is not None] == [*range(10), *range(10), *range(5)]
    assert made.count(None) == 15
    with pytest.raises(
        ValueError, match=r"^mix\(\): epochs must be a whole number where the length of a source is not"
    ):
        ff.mix({"a": streamed([1, 2])}, epochs=2.5, until="all")
    assert list(ff.mix([1, 2, 3, 4], epochs=1.5, until="all", unit=float)) == [1, 2, 3, 4, 1, 2]


@pytest.mark.parametrize("form", [list, streamed])
def test_every_epoch_of_a_source_has_another_order(form):
    shuffled = ff.shuffle if form is list else ff.shuffle_buffer(20)
    made = list(ff.mix(ff.map(noisy, shuffled(rows(20)[0]), rng=True), epochs=3, until="all"))
    turns = [[x[1] for x in made[at : at + 20]] for at in (0, 20, 40)]
    assert all(sorted(turn) == list(range(20)) for turn in turns)
    assert len({*map(tuple, turns)}) == 3
    assert len({x[-1] for x in made}) == 60


def progress(iterator):
    return json.loads(json.dumps(iterator.state_dict()))["mix"]


@settings(max_examples=40, **calm)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([1, 2, 0.3]), st.sampled_from([1, 2, 3, math.inf])),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["first", "all"]),
    st.booleans(),
)
@example([(0, 1, math.inf), (2, 1, 2)], "all", False)
def test_by_index_and_as_a_stream_epochs_are_the_same(sources, until, random):
    counts, weights, epochs = zip(*sources)
    if until == "all" and any(one == math.inf and count for one, count in zip(epochs, counts)):
        epochs = [min(one, 4) for one in epochs]

    def made(form):
        inner = [ff.map(noisy, form(one), rng=True) for one in rows(*counts)]
        return ff.mix(*inner, weights=weights, until=until, random=random, epochs=dict(enumerate(epochs)))

    by_index, in_order = made(list), made(streamed)
    assert by_index.seekable
    assert not in_order.seekable
    with iter(by_index) as one, iter(in_order) as other:
        for _ in range(120):
            assert progress(one) == progress(other)
            assert ff.quotas(one) == ff.quotas(other)
            datapoints = next(one, None), next(other, None)
            assert datapoints[0] == datapoints[1]
            if datapoints[0] is None:
                return


@pytest.mark.parametrize("options", [{"until": "all"}, {"until": "first"}, {"until": "all", "random": True}], ids=str)
@pytest.mark.parametrize(
    "kinds", [(list, list), (streamed, list), (list, ff.shuffle)], ids=["lists", "both", "shuffled"]
)
def test_the_laws_hold_for_epochs(kinds, options):
    check(
        lambda: ff.pipe(
            ff.mix(*(kind(one) for kind, one in zip(kinds, rows(4, 7))), weights=[3, 1], epochs={0: 3}, **options),
            ff.map(list),
            ff.batch(3, collate=None),
        ),
        workers=({"threads": 2},),
        stops=4,
        epochs=(1,),
    )


def test_with_epochs_the_length_is_known_and_any_datapoint_can_be_had():
    flow = ff.mix(range(10**12), range(5), weights=[1, 1], epochs={1: 10**6}, until="all")
    assert len(flow) == 10**12 + 5 * 10**6
    assert flow[9_999_999] == 4
    assert flow[10**12] == 10**12 - 5 * 10**6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2, "until": "forever"}, "epochs must be left out where until='forever'"),
        ({"epochs": 2, "until": "cycle_all"}, "epochs must be left out where until='cycle_all'"),
        ({"epochs": 0}, "epochs must be numbers > 0 (math.inf: no bound), got 0 for 'x'"),
        ({"epochs": math.nan}, "epochs must be numbers > 0 (math.inf: no bound), got nan for 'x'"),
        ({"epochs": {"y": "2"}}, "epochs must be numbers > 0 (math.inf: no bound), got '2' for 'y'"),
        ({"epochs": {"z": 2}}, "epochs must be for ['x', 'y'], got ['z']"),
    ],
    ids=str,
)
def test_epochs_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ff.mix({"x": [1], "y": [2]}, **options)
    assert str(caught.value).startswith(f"mix(): {message}")


def test_a_source_that_gives_nothing_is_not_asked_for_ever():
    assert list(ff.mix(streamed([]), streamed([1, 2]), epochs={0: math.inf}, until="all")) == [1, 2]


# Temperatures


@pytest.mark.parametrize("temperature", [1, 1.5, 1 / 0.3, 5, 100])
def test_shares_are_lengths_to_the_power_of_one_by_the_temperature(temperature):
    sizes = [9000, 900, 30]
    flow = ff.mix(*rows(*sizes), weights="length", temperature=temperature, epochs=math.inf)
    made = np.bincount([source for source, _ in begin(flow, 3000)], minlength=3) / 3000
    powers = np.array(sizes) ** (1 / temperature)
    assert made == pytest.approx(powers / powers.sum(), abs=2 / 3000)


def test_a_temperature_goes_with_sizes_that_are_given_and_with_functions():
    sizes = {"en": 3_000_000_000, "sw": 300_000}
    flow = ff.mix({name: streamed([name]) for name in sizes}, weights=sizes, temperature=5, until="forever")
    share = (1e-4) ** 0.2
    made = Counter(begin(flow, 1000))
    assert made["sw"] / 1000 == pytest.approx(share / (1 + share), abs=2e-3)
    scheduled = ff.mix(*rows(500, 500), weights=lambda step: [16, 1], temperature=2)
    assert Counter(source for source, _ in begin(scheduled, 100)) == {0: 80, 1: 20}
    assert begin(ff.mix(*rows(5, 9), weights="length", temperature=1), 9) == begin(
        ff.mix(*rows(5, 9), weights="length"), 9
    )
    assert list(ff.mix([], [1, 2], weights="length", temperature=2, until="all")) == [1, 2]


def test_the_laws_hold_for_temperatures():
    for form in (list, streamed):
        check(
            lambda form=form: ff.mix(*map(form, rows(3, 12)), weights=[3, 12], temperature=3, until="all", random=True),
            workers=(),
            stops=3,
            epochs=(1,),
        )


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan, "hot"], ids=str)
def test_a_temperature_is_a_number_above_zero(temperature):
    with pytest.raises(ValueError, match=r"^mix\(\): temperature must be a number > 0, got "):
        ff.mix([1], [2], temperature=temperature)


# Others' rules, in our words


def test_fractions_of_an_epoch_are_as_in_streaming_of_mosaicml():
    """`Stream(repeat=1.5)` beside `Stream(choose=3)`: sizes, whatever the order."""
    made = list(ff.mix(letters({"a": 4, "b": 9}), epochs={"a": 1.5, "b": 3 / 9}, weights=[6, 3], until="all"))
    assert Counter(made) == {"a": 6, "b": 3}


def test_by_turns_with_rounds_is_oversampling_as_in_datasets():
    """`interleave_datasets(stopping_strategy="all_exhausted")` of 0..2, 10..13, 20..24."""
    flow = ff.mix([0, 1, 2], [10, 11, 12, 13], [20, 21, 22, 23, 24], epochs=2)
    assert begin(flow, 15) == [0, 10, 20, 1, 11, 21, 2, 12, 22, 0, 13, 23, 1, 10, 24]


def test_a_greedy_blend_is_as_near_as_that_of_megatron():
    """Megatron's blend takes, for sample k, who is the furthest below weight * max(k, 1)."""
    shares, ours, theirs = [0.5, 0.3, 0.2], [0, 0, 0], [0, 0, 0]
    made = begin(ff.mix(*rows(500, 500, 500), weights=shares), 400)
    for k, (source, _) in enumerate(made):
        theirs[max(range(3), key=lambda one: shares[one] * max(k, 1) - theirs[one])] += 1
        ours[source] += 1
        assert all(abs(one - other) <= 1 for one, other in zip(ours, theirs))
