"""Mixes whose shares are of units: tokens, seconds, pixels; against exact fractions, and with sizes that want to break
the bound."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixes import UNTIL, begin, calm
from sources import streamed

import flowfn as ff
from flowfn.testing import check
from flowfn.vocabulary.mixing.deadlines import Deadlines, most_urgent

# The bound


def furthest_behind_and_ahead(weights, sizes):
    """How far the source that is the worst off is from its share at any prefix, in the largest datapoint so far.

    `sizes(source, units, largest)` is called for each datapoint.
    """
    turns, total = Deadlines(range(len(weights)), weights), sum(weights)
    units, datapoints, largest, worst = [0] * len(weights), [0] * len(weights), 0, (Fraction(0), Fraction(0))
    while (size := sizes(source := turns.next(units, datapoints, largest), units)) is not None:
        units[source] += size
        datapoints[source] += 1
        largest = max(largest, size)
        apart = [one - Fraction(weight * sum(units), total) for one, weight in zip(units, weights)]
        if largest:
            worst = min(worst[0], min(apart) / largest), max(worst[1], max(apart) / largest)
    return worst


weights = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@settings(max_examples=150, **calm)
@given(weights, st.lists(st.sampled_from([0, 1, 1, 2, 7, 100, 1000, 10**9]), min_size=1, max_size=300))
def test_whatever_the_sizes_every_source_is_within_one_datapoint_of_its_share(weights, sizes):
    feed = iter(sizes)
    behind, ahead = furthest_behind_and_ahead(weights, lambda source, units: next(feed, None))
    assert behind >= -1
    assert ahead <= 1


@settings(max_examples=80, **calm)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), min_size=2, max_size=12),
    st.lists(st.sampled_from([0, 1, 3, 100]), min_size=1, max_size=40),
)
def test_when_sources_end_the_others_stay_within_one_datapoint_of_their_shares_of_the_rest(sources, sizes):
    weights, left = map(list, zip(*sources))
    units, datapoints, largest, sizes = [0] * len(weights), [0] * len(weights), 0, itertools.cycle(sizes)
    active = list(range(len(weights)))
    while len(active) > 1:
        turns, source = Deadlines(active, weights), None
        while source is None or left[source] >= 0:
            source = turns.next(units, datapoints, largest)
            left[source] -= 1
            if left[source] < 0:
                continue
            units[source] += (size := next(sizes))
            datapoints[source] += 1
            largest = max(largest, size)
            rest, total = sum(units[one] for one in active), sum(weights[one] for one in active)
            assert all(abs(units[one] - Fraction(weights[one] * rest, total)) <= largest for one in active)
        active.remove(source)


ADVERSARIES = {
    "small for whoever is behind": lambda source, apart, k: 1 if apart[source] < 0 else 100,
    "growing": lambda source, apart, k: 1 + k * k // 50,
    "large for the light ones": lambda source, apart, k: 100 if source else 1,
    "large at the end": lambda source, apart, k: 1 if k < 200 else 100,
    "nothing of the first": lambda source, apart, k: 100 * bool(source),
    "nothing": lambda source, apart, k: 0,
    "just enough to be back": lambda source, apart, k: min(max(math.floor(-apart[source]), 1), 100),
    "large for whoever is not the furthest": lambda source, apart, k: 100 if apart[source] > min(apart) else 1,
}


@pytest.mark.parametrize("adversary", ADVERSARIES)
@pytest.mark.parametrize(
    "weights", [[1] * 40, [1000] + [1] * 60, [2**k for k in range(12)], [3, 2, 1], [500, 499] + [1] * 30], ids=str
)
def test_sizes_that_want_to_break_the_bound_do_not(adversary, weights):
    steps = itertools.count()

    def size(source, units):
        k = next(steps)
        apart = [one - Fraction(weight * sum(units), sum(weights)) for one, weight in zip(units, weights)]
        return ADVERSARIES[adversary](source, apart, k) if k < 500 else None

    behind, ahead = furthest_behind_and_ahead(weights, size)
    assert -1 <= behind
    assert ahead <= 1


def test_who_is_the_furthest_behind_would_not_do():
    """The rule that comes to mind first leaves a heavy source more than two datapoints behind."""
    weights, units, worst = [10] + [1] * 40, [0] * 41, 0.0
    for _ in range(2000):
        source = min(range(41), key=lambda one: units[one] / weights[one])
        units[source] += 1
        worst = min(worst, units[0] - 10 * sum(units) / 50)
    assert worst < -2


@settings(max_examples=60, **calm)
@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n).filter(any), min_size=1, max_size=6),
            st.lists(st.integers(0, 20), min_size=20, max_size=200),
        )
    )
)
def test_while_weights_change_sources_stay_near_what_they_are_owed(drawn):
    table, sizes = drawn
    n = len(table[0])
    due, units, largest = [0.0] * n, [0] * n, 0
    for k, size in enumerate(sizes):
        row = [share + 1 for share in table[k // 10 % len(table)]]  # nobody has none
        shares = [share / sum(row) for share in row]
        source = most_urgent([a - b for a, b in zip(due, units)], shares, largest)
        due = [one + size * share for one, share in zip(due, shares)]
        units[source] += size
        largest = max(largest, size)
        assert all(abs(a - b) <= 2 * largest for a, b in zip(due, units))


# Mixes


def texts(seed, count, mean):
    lengths = np.random.default_rng(seed).poisson(mean, count)
    return [np.full(length, seed, np.int32) for length in lengths.tolist()]


CORPORA = {"web": texts(1, 400, 40), "code": texts(2, 400, 150), "books": texts(3, 50, 700)}
SHARES = {"web": 6, "code": 3, "books": 1}


def corpora(form=list, **options):
    return ff.mix({name: form(rows) for name, rows in CORPORA.items()}, weights=SHARES, unit=len, tag="from", **options)


@pytest.mark.parametrize("form", [list, streamed])
def test_every_prefix_has_its_share_of_tokens(form):
    given, largest = dict.fromkeys(SHARES, 0), 0
    for text, name in itertools.islice(corpora(form), 600):
        given[name] += len(text)
        largest = max(largest, len(text))
        for one, weight in SHARES.items():
            assert abs(given[one] - sum(given.values()) * Fraction(weight, 10)) <= largest
    assert sum(given.values()) > 25_000


def test_datapoints_of_one_size_are_mixed_as_datapoints_are():
    rows = [[source] * 100 for source in range(3)]
    made = begin(ff.mix(*rows, weights=[3, 2, 1], unit=lambda x: 7), 60)
    for k in range(61):
        assert all(abs(made[:k].count(source) - k * weight / 6) <= 1 for source, weight in enumerate([3, 2, 1]))


@pytest.mark.parametrize(
    ("unit", "rows"),
    [
        (len, ["aaaa", "bb"]),
        (0, [["aaaa"], ["bb"]]),
        ("text", [{"text": "aaaa"}, {"text": "bb"}]),
        (lambda x: x, [4, 2]),
        (lambda x: np.float32(x), [4, 2]),
        (lambda x: np.int64(x), [4, 2]),
        (lambda x: x / 8, [4, 2]),
    ],
    ids=["len", "place", "key", "int", "float32", "int64", "float"],
)
def test_a_unit_is_a_function_or_the_component_whose_length_counts(unit, rows):
    flow = ff.mix({"x": [rows[0]] * 9, "y": [rows[1]] * 9}, unit=unit, tag=None)
    assert begin(flow, 6) == [rows[0], rows[1], rows[1], rows[0], rows[1], rows[1]]


def test_datapoints_without_units_come_by_turns():
    assert begin(ff.mix(["a"] * 4, ["b"] * 4, weights=[2, 1], unit=lambda x: 0), 6) in (list("abaaba"), list("aabaab"))


def test_a_tag_does_not_count():
    flow = ff.mix({"x": ["aaaa"] * 3, "y": ["b"] * 9}, unit=len, tag="from", until="all")
    assert begin(flow, 5) == [("aaaa", "x"), *[("b", "y")] * 4]


@pytest.mark.parametrize("unit", [len, 0.5, lambda x: len(x) / 4], ids=["tokens", "wrong", "seconds"])
@pytest.mark.parametrize("until", UNTIL)
@pytest.mark.parametrize("kinds", [(list, list), (streamed, list)], ids=["lists", "both"])
def test_the_laws_hold(kinds, until, unit):
    if unit == 0.5:
        with pytest.raises(TypeError, match=r"^mix\(\): unit must be a function of a datapoint that returns a number"):
            ff.mix([1], [2], unit=unit)
        return
    rows = [["a" * n for n in (3, 0, 5, 1, 1, 2)], ["b" * n for n in (1, 4, 1)]]
    check(
        lambda: ff.pipe(
            ff.mix(*(kind(one) for kind, one in zip(kinds, rows)), weights=[2, 1], unit=unit, until=until), ff.map(list)
        ),
        workers=({}, {"threads": 2}),
        stops=4,
        epochs=(1,),
    )


def test_the_laws_hold_with_processes():
    check(
        lambda: ff.pipe(
            ff.mix(ff.shuffle(list("abcdef")), streamed(["gg", "hhh"]), unit=len, until="cycle_all"), ff.map(str)
        ),
        workers=({"processes": 1}, {"processes": 2}),
        stops=3,
        epochs=(1,),
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"unit": len, "tag": ["from"]}, TypeError, "tag must be one key, as tag=\"from\" is, got ['from']"),
        ({"unit": None, "tag": (["from"],)}, TypeError, "tag must be one key"),
        ({"unit": len, "random": True}, ValueError, "random must be False where unit= is given"),
        ({"unit": None, "temperature": 0}, ValueError, "temperature must be a number > 0, got 0"),
        ({"unit": lambda x, y: 1}, TypeError, "unit must be a function of a datapoint"),
    ],
    ids=["tag", "deep tag", "random", "temperature", "unit"],
)
def test_what_makes_no_sense_is_refused(options, error, message):
    with pytest.raises(error) as caught:
        ff.mix(["a"], ["b"], **options)
    assert str(caught.value).startswith(f"mix(): {message}")


@pytest.mark.parametrize("units", [-1, math.nan, math.inf, "x", None, True, np.array([1, 2])], ids=str)
def test_a_unit_that_is_no_number_is_named(units):
    with pytest.raises(ValueError, match=r"mix\(\): unit must give a number >= 0, got .* for 'a' of source 'x'"):
        list(ff.mix({"x": ["a"]}, unit=lambda x: units))


def test_its_state_stays_small_and_quotas_count_in_units():
    with iter(corpora(streamed, until="cycle_all")) as iterator:
        given = dict.fromkeys(SHARES, 0)
        for text, name in itertools.islice(iterator, 700):
            given[name] += len(text)
        quotas = ff.quotas(iterator)
        assert {name: quota.delivered for name, quota in quotas.items()} == given
        total = sum(given.values())
        assert {name: quota.expected for name, quota in quotas.items()} == pytest.approx(
            {name: total * weight / 10 for name, weight in SHARES.items()}
        )
        state = json.dumps(iterator.state_dict())
        assert len(state) < 1100
        rest = list(itertools.islice(iterator, 20))
    with iter(corpora(streamed, until="cycle_all").load_state_dict(json.loads(state))) as again:
        assert ff.quotas(again) == quotas
        for one, other in zip(rest, again):
            assert one[1] == other[1]
            assert np.array_equal(one[0], other[0])


def test_a_resume_reads_no_more_than_it_gives():
    read = []

    def make():
        rows = [list(range(1, 2000)), list(range(1, 2000))]
        return ff.mix(*(ff.map(lambda x: read.append(x) or x, one) for one in rows), unit=lambda x: x % 7)

    with make().run() as iterator:
        list(itertools.islice(iterator, 1500))
        state = iterator.state_dict()
    read.clear()
    with iter(make().load_state_dict(state)) as iterator:
        next(iterator)
    assert len(read) <= 2


def test_when_a_source_has_ended_the_others_share_the_rest():
    rows = {"x": ["aa"] * 2, "y": ["b"] * 30, "z": ["ccc"] * 20}
    made = list(ff.mix(rows, weights={"x": 2, "y": 1, "z": 2}, unit=len, until="all"))
    assert sorted(made) == sorted(itertools.chain.from_iterable(rows.values()))
    tokens = dict.fromkeys("abc", 0)
    for text in made[:30]:
        tokens[text[0]] += len(text)
    assert tokens["a"] == 4
    assert abs(tokens["c"] - 2 * tokens["b"]) <= 6


@pytest.mark.parametrize("k", [0, 1, 7, 40])
def test_sources_may_come_and_go_and_new_units_may_be_counted(k):
    def make(names, unit):
        return ff.mix({name: ["x" * (3 if name == "a" else 1)] * 60 for name in names}, unit=unit)

    for before, after in ((len, len), (None, len), (len, None)):
        with make("ab", before).run() as iterator:
            given = list(itertools.islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        with iter(make("bc", after).load_state_dict(state, strict=False)) as iterator:
            quotas = ff.quotas(iterator)
            assert quotas["b"].delivered == (given.count("x") if before is after or not after else 0)
            rest = list(itertools.islice(iterator, 10))
            later = json.loads(json.dumps(iterator.state_dict()))
            tail = list(iterator)
        assert all(text == "x" for text in rest)
        assert list(make("bc", after).load_state_dict(later)) == tail
