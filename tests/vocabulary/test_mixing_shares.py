"""Shares of a mix: whose turn it is, and when it stops."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixes import UNTIL, begin, calm, furthest, proportions, rows
from sources import streamed

import flowfn as ff
from flowfn.vocabulary.mixing.shares import LONGEST, Picks, Quotas, integer_weights


def reference(lists, picks, until, limit=200):
    """The rules as they are documented, read aloud. `picks(active,
    given)` are the sources to try, one after the other."""
    at, ended, made = [0] * len(lists), [False] * len(lists), []
    turns = picks(tuple(range(len(lists))), at)
    while len(made) < limit:
        source = next(turns)
        if at[source] == len(lists[source]):
            ended[source] = True
            if until == "first" or (until != "forever" and all(ended)):
                return made
            if until == "all":
                turns = picks(tuple(one for one in range(len(lists)) if not ended[one]), at)
                continue
            at[source] = 0
        made.append(lists[source][at[source]])
        at[source] += 1
    return made


def by_quota(weights):
    return lambda active, given: Picks(active, integer_weights(weights), None, start_counts=tuple(given)).each(0)


# Shares


def chairman(weights, outputs, given=None):
    """Tijdeman's rule for the chairman assignment problem, word for word; from where all have given so much."""
    shares, slack = [Fraction(weight, sum(weights)) for weight in weights], Fraction(1, max(2 * len(weights) - 2, 1))
    given = list(given or [0] * len(weights))
    for k in range(sum(given) + 1, sum(given) + outputs + 1):
        able = [i for i, share in enumerate(shares) if share * k - given[i] >= slack or len(weights) == 1]
        chosen = min(able, key=lambda i: (1 - slack - (shares[i] * k - given[i])) / shares[i])
        yield chosen
        given[chosen] += 1


@settings(max_examples=60, **calm)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_the_order_is_tijdemans(weights):
    reduced = integer_weights(weights)
    assert Quotas(weights).take(np.arange(sum(reduced)))[0].tolist() == list(chairman(reduced, sum(reduced)))


someone = st.tuples(st.integers(1, 40), st.one_of(st.integers(0, 4), st.integers(0, 40)))


@settings(max_examples=100, **calm)
@given(st.lists(someone, min_size=1, max_size=8))
def test_from_wherever_they_stand_the_order_is_tijdemans(sources):
    weights, given = zip(*sources)
    reduced = integer_weights(weights)
    assert Quotas(weights, given).take(np.arange(900))[0].tolist() == list(chairman(reduced, 900, given))


@settings(max_examples=100, **calm)
@given(
    st.lists(
        st.tuples(st.one_of(st.floats(0.001, 1000), st.integers(1, 40)), st.integers(0, 40)), min_size=1, max_size=8
    )
)
def test_who_is_behind_comes_first_until_all_have_their_shares(sources):
    weights, given = zip(*sources)
    quotas, shares = Quotas(integer_weights(weights), given), np.array(weights) / sum(weights)
    total, outputs = sum(given), np.arange(3000)
    apart = (np.cumsum(np.eye(len(weights))[quotas.take(outputs)[0]], axis=0) + given) - (total + 1 + outputs)[
        :, None
    ] * shares
    late = np.flatnonzero((np.abs(apart) >= 2).any(axis=1))
    for source, count in enumerate(given):
        if (
            count - total * shares[source] > 2
        ):  # it has given too much, and so gives nothing until the others have caught up
            waits = int((count - 2) / shares[source] - total)
            assert (quotas.take(outputs[: max(waits, 0)])[0] != source).all()
    assert late.max(initial=-1) + total <= max((count + 2) / share for count, share in zip(given, shares))


@settings(max_examples=60, **calm)
@given(
    st.lists(
        st.one_of(st.integers(1, 9), st.integers(1, 400), st.sampled_from([0.5, 0.25, 0.1])), min_size=1, max_size=12
    ).filter(lambda weights: sum(integer_weights(weights)) <= LONGEST)
)
def test_at_every_prefix_each_source_is_within_one_datapoint_of_its_share(weights):
    reduced = integer_weights(weights)
    assert furthest(Quotas(reduced).take(np.arange(2500))[0], reduced) < 1


@settings(max_examples=60, **calm)
@given(st.lists(st.one_of(st.floats(0.001, 1000), st.integers(1, 10**7)), min_size=1, max_size=12))
def test_where_weights_are_not_small_integers_it_is_within_two(weights):
    assert furthest(Quotas(integer_weights(weights)).take(np.arange(2500))[0], weights) < (2 if len(weights) > 2 else 1)


@pytest.mark.parametrize(
    "weights",
    [
        [math.pi, math.e, math.sqrt(10), math.sqrt(8), 3.0000001],
        [1 + 1e-9 * math.pi] * 3 + [1.0] * 200,
        [2**40 + 1, 2**41 + 3, 2**40 + 7, 2**39 + 5],
        [1e-12, 1.0, math.pi],
        [999983, 999979, 999961, 999959],
    ],
    ids=["like pi", "many alike", "huge", "one tiny", "primes"],
)
def test_large_weights_do_not_overflow(weights):
    near, far = np.arange(3000), np.arange(10**9, 10**9 + 100)
    quotas = Quotas(integer_weights(weights))
    assert furthest(quotas.take(near)[0], weights) < 2
    for first in (0, 10**9, 10**15):
        counted, sources = np.array(quotas.counts(first)), quotas.take(first + near[:100])[0]
        assert abs(counted - first * (np.array(quotas.weights) / sum(quotas.weights))).max() < 2
        after = counted + np.bincount(sources, minlength=len(weights))
        assert after.tolist() == quotas.counts(first + 100)
    assert quotas.take(far)[0].tolist() == quotas.take(far[::-1])[0].tolist()[::-1]


@settings(max_examples=60, **calm)
@given(
    st.lists(st.one_of(st.integers(1, 9), st.floats(0.01, 100)), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(0, 99)),
    st.sampled_from([7, 64, 4096]),
    st.one_of(st.just(()), st.lists(st.integers(0, 30), min_size=6, max_size=6)),
)
def test_a_pick_is_known_without_those_before_it(weights, key, block, given):
    picks = Picks(range(len(weights)), integer_weights(weights), key, block, given)
    sources, before = picks.take(np.arange(500))
    counts = [0] * len(weights)
    for output, (source, number) in enumerate(zip(sources.tolist(), before.tolist())):
        assert list(picks.counts(output).values()) == counts
        assert number == counts[source]
        counts[source] += 1
    assert list(itertools.islice(picks.each(123), 300)) == sources[123:423].tolist()
    for source in range(len(weights)):
        for number in range(0, counts[source], 37):
            assert picks.output(source, number) == np.flatnonzero((sources == source) & (before == number))[0]
    some = np.random.default_rng(0).integers(0, 500, 60)
    assert [part.tolist() for part in picks.take(some)] == [sources[some].tolist(), before[some].tolist()]


def test_weights_are_taken_as_they_are_written():
    assert integer_weights([0.7, 0.2, 0.1]) == [7, 2, 1]
    assert integer_weights([0.3, 0.3]) == [1, 1]
    assert integer_weights([10, 20, 5]) == [2, 4, 1]
    assert integer_weights([1, 1 / 3]) == [3, 1]
    assert integer_weights([1e-300, 1]) == [1, 10**9]
    assert integer_weights([np.int64(4), np.float64(0.5)]) == [8, 1]
    assert integer_weights([1]) == integer_weights([0.123456789123456789]) == [1]
    assert sum(integer_weights([1 / 3, 2 / 7, 0.1, math.pi])) == pytest.approx(10**9, abs=4)


@pytest.mark.parametrize("weights", [[5000, 5000, 5000, 1], [4000, 4000, 4000, 7, 7]])
def test_what_is_left_has_small_weights_of_its_own(weights):
    left = Picks([0, 1, 2], integer_weights(weights), None)
    assert left.take(np.arange(6))[0].tolist() == [0, 1, 2, 0, 1, 2]


def shares_of_the_rest(weights, given, active):
    """What each should have given: those that have ended what they had, the others their shares of all the rest."""
    rest, total = sum(given[one] for one in active), sum(weights[one] for one in active)
    return [rest * weight / total if one in active else given[one] for one, weight in enumerate(weights)]


def furthest_from_the_rest(flow, weights, lengths):
    """How far a source is at most from its share of what those leave that have ended, and what was given of each."""
    given, active, worst, turns = [0] * len(lengths), list(range(len(lengths))), 0.0, []
    for source, _ in flow:
        turns.append(source)
        given[source] += 1
        worst = max(worst, *(abs(due - count) for due, count in zip(shares_of_the_rest(weights, given, active), given)))
        wanted = _wanted(weights, given, active, lengths)
        active = [one for one in active if one not in wanted]
    return worst, given


def _wanted(weights, given, active, lengths):
    """The sources that have given all, and whose turn it is before that of any other."""
    active, gone = list(active), []
    while active:
        first = next(Picks(active, integer_weights(weights), None, start_counts=given).each(0))
        if given[first] < lengths[first]:
            break
        active.remove(first)
        gone.append(first)
    return gone


mixtures = st.lists(st.tuples(st.integers(0, 30), st.one_of(st.integers(1, 40), st.just(1))), min_size=1, max_size=6)


@settings(max_examples=60, **calm)
@given(mixtures, st.booleans())
def test_when_sources_have_ended_the_others_keep_their_shares(sources, streams):
    lengths, weights = zip(*sources)
    lists = rows(*lengths)
    worst, given = furthest_from_the_rest(
        ff.mix(*map(streamed, lists) if streams else lists, weights=weights, until="all"), weights, lengths
    )
    assert tuple(given) == lengths
    assert worst < 1


@settings(max_examples=30, **calm)
@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0.001, 1000)), min_size=1, max_size=6))
def test_they_keep_them_within_two_where_weights_are_no_small_integers(sources):
    lengths, weights = zip(*sources)
    worst, given = furthest_from_the_rest(ff.mix(*rows(*lengths), weights=weights, until="all"), weights, lengths)
    assert tuple(given) == lengths
    assert worst < 3


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize(
    "weights",
    [None, [1] * 62, {}, lambda step: [1] * 62, lambda step: [2 + step % 3] * 62],
    ids=["", "ones", "by name", "steps", "more"],
)
@pytest.mark.parametrize("many", [5, 60])
def test_however_many_end_those_that_stay_are_alike(form, weights, many):
    sources = dict(enumerate([[-1] * 300, *([one] * (one + 1) for one in range(many)), [-2] * 300]))
    if callable(weights):
        given = lambda step, told=weights: told(step)[: many + 2]
    else:
        given = dict.fromkeys(sources, 0.3) if weights == {} else weights and weights[: many + 2]
    made = list(ff.mix({name: form(one) for name, one in sources.items()}, weights=given, until="all"))
    assert Counter(made) == {-1: 300, -2: 300, **{one: one + 1 for one in range(many)}}
    first, last = (np.cumsum([x == one for x in made]) for one in (-1, -2))
    assert np.abs(first - last).max() == 1


@pytest.mark.parametrize("form", [list, streamed])
def test_at_random_shares_are_whole_again_after_the_block_in_which_a_source_ended(form):
    weights, lengths = [3, 2, 2], (14_000, 14_000, 500)
    for epoch in range(2):
        made = [
            source
            for source, _ in ff.mix(*map(form, rows(*lengths)), weights=weights, until="all", random=True).run(
                epoch=epoch
            )
        ]
        counts = np.cumsum(np.eye(3)[made], axis=0)
        ended = int(np.flatnonzero(counts[:, 2] == 500)[0])
        apart = np.abs((counts[:, 0] + counts[:, 1]) * 3 / 5 - counts[:, 0])[counts[:, 0] < 14_000]
        assert apart[ended:].max() < 80  # within a block it is chance
        assert any(apart[at::4096].max() < 1 for at in range(ended + 4096, ended + 2 * 4096))


# When it stops


@settings(max_examples=150, **calm)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 1, 2, 3, 7, 20]), proportions, st.booleans()), min_size=1, max_size=4),
    st.sampled_from(UNTIL),
)
def test_it_stops_as_documented(sources, until):
    lists, weights = rows(*(length for length, _, _ in sources)), [weight for _, weight, _ in sources]
    if until in ("cycle_all", "forever") and [] in lists:
        with pytest.raises(
            ValueError, match=r"^mix\(\): source \d (is empty|gave no datapoint), it cannot begin again"
        ):
            begin(
                ff.mix(
                    *(streamed(rows) if streams else rows for rows, (_, _, streams) in zip(lists, sources)),
                    weights=weights,
                    until=until,
                ),
                2000,
            )
        return
    flow = ff.mix(
        *(streamed(rows) if streams else rows for rows, (_, _, streams) in zip(lists, sources)),
        weights=weights,
        until=until,
    )
    expected = reference(lists, by_quota(weights), until)
    assert begin(flow) == expected
    if flow.seekable and until != "forever" and len(expected) < 200:
        assert len(flow) == len(expected)
        assert [flow[index] for index in range(len(expected))] == expected


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("first", "a0 b0 a1 b1 a2"),
        ("all", "a0 b0 a1 b1 a2 a3"),
        ("cycle_all", "a0 b0 a1 b1 a2 b0 a3 b1"),
        ("forever", "a0 b0 a1 b1 a2 b0 a3 b1 a0 b0 a1 b1 a2 b0 a3 b1"),
    ],
)
def test_the_stop_rules_by_example(form, until, expected):
    flow = ff.mix(form(["a0", "a1", "a2", "a3"]), form(["b0", "b1"]), until=until)
    assert " ".join(begin(flow, 16)) == expected


def weighted_sampler(lists, picks, criteria, limit=100):
    """`torchdata.nodes.MultiNodeWeightedSampler.next` of torchdata 0.11, with `picks` in the place of its draws."""
    exhausted, sources, made = [False] * len(lists), [iter(one) for one in lists], []

    def stop():
        return criteria != "CYCLE_FOREVER" and (
            all(exhausted) or (criteria == "FIRST_DATASET_EXHAUSTED" and any(exhausted))
        )

    while len(made) < limit and not stop():
        key = next(picks)
        if exhausted[key] and criteria == "ALL_DATASETS_EXHAUSTED":
            continue
        try:
            made.append(next(sources[key]))
        except StopIteration:
            exhausted[key] = True
            if stop() or criteria == "ALL_DATASETS_EXHAUSTED":
                continue
            sources[key] = iter(lists[key])
            made.append(next(sources[key]))
    return made


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("sizes", [(4, 2), (3, 3), (1, 9), (5, 1, 3)])
@pytest.mark.parametrize(
    ("until", "criteria"),
    [
        ("first", "FIRST_DATASET_EXHAUSTED"),
        ("cycle_all", "CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED"),
        ("forever", "CYCLE_FOREVER"),
    ],
)
def test_torchdatas_stop_criteria(form, sizes, until, criteria):
    lists, weights = rows(*sizes), [3, 1, 2][: len(sizes)]
    picks = by_quota(weights)(tuple(range(len(sizes))), [0] * len(sizes))
    assert begin(ff.mix(*map(form, lists), weights=weights, until=until), 100) == weighted_sampler(
        lists, picks, criteria
    )


def test_torchdatas_all_exhausted_is_all():
    # there the turns of a source that has ended are passed over; here it is as if a mix of the others began
    for sizes in ((4, 2), (5, 1, 3), (1, 9)):
        lists = rows(*sizes)
        theirs = weighted_sampler(
            lists, by_quota([1] * len(sizes))(tuple(range(len(sizes))), [0] * len(sizes)), "ALL_DATASETS_EXHAUSTED"
        )
        ours = list(ff.mix(*lists, until="all"))
        assert sorted(ours) == sorted(theirs) == sorted(itertools.chain(*lists))
        same = len(reference(lists, by_quota([1] * len(sizes)), "first"))
        assert ours[:same] == theirs[:same]


GRAIN = [  # the sources that grain 0.2.18 picks: grain.MapDataset.mix, and (if longer) grain.IterDataset.mix
    ((6, 3), [2, 1], "001001001", ""),
    ((4, 4), [1, 1], "01010101", ""),
    ((10, 10, 10), [0.5, 0.3, 0.2], "01010201020101020102", ""),
    ((7, 2, 4), [0.7, 0.2, 0.1], "0001001002", ""),
    ((5, 9), [1, 3], "011101110111", "0"),
    ((6, 6, 6), None, "012012012012012012", ""),
    ((8, 8, 8), [3, 2, 1], "0101020101020101", ""),
]


@pytest.mark.parametrize(("sizes", "weights", "theirs", "more"), GRAIN)
@pytest.mark.parametrize("form", [list, streamed])
def test_grain_gives_as_many_of_each_after_every_whole_period(sizes, weights, theirs, more, form):
    # within a period the orders differ: grain takes from the first source as late, here each comes as evenly as can be
    ours = "".join(str(source) for source, _ in ff.mix(*map(form, rows(*sizes)), weights=weights))
    period = sum(integer_weights(weights or [1] * len(sizes)))
    theirs += more
    assert len(theirs) // period == len(ours) // period
    for end in range(period, len(theirs), period):
        assert Counter(ours[:end]) == Counter(theirs[:end])
    assert furthest([int(source) for source in ours], weights or [1] * len(sizes)) < 1


def test_it_is_tensorpacks_random_choose_data():
    # "Stop producing when any of them is exhausted", each datapoint by a draw: until="first", random=True
    for epoch in range(3):
        made = list(ff.mix(*rows(20, 30), random=True).run(epoch=epoch))
        given = Counter(source for source, _ in made)
        assert given[0] == 20 or given[1] == 30
        assert [made == sorted(made), *(index for source, index in made if source == 0)] == [False, *range(given[0])]


def test_it_is_tensorpacks_random_mix_data():
    # "Perfectly mix datapoints from several DataFlow using their __len__"; "stop when all exhausted"
    passes = [list(ff.mix(*rows(5, 0, 300, 40), weights="length", random=True).run(epoch=epoch)) for epoch in range(4)]
    for made in passes:
        assert sorted(made) == sorted(itertools.chain(*rows(5, 0, 300, 40)))
        assert all(
            [index for source, index in made if source == one] == list(range(n))
            for one, n in enumerate((5, 0, 300, 40))
        )
    assert len({tuple(source for source, _ in made) for made in passes}) == 4
    firsts = Counter(
        begin(ff.mix(*rows(1, 1, 2), weights="length", random=True).reset_state(seed), 1)[0][0] for seed in range(400)
    )
    assert 60 < firsts[0] < 140
    assert 60 < firsts[1] < 140


def test_weights_by_length_end_together():
    flow = ff.mix(*rows(30, 10, 0, 20), weights="length")
    made = list(flow)
    assert Counter(source for source, _ in made) == {0: 30, 1: 10, 3: 20}
    assert made[:6] == list(ff.mix(*rows(3, 1, 0, 2), weights="length"))
    assert list(ff.mix(*map(ff.shuffle_buffer(1), rows(30, 10, 0, 20)), weights="length")) == made
    assert list(ff.mix([], [], weights="length")) == []
    flow = ff.mix(range(10**11), range(3 * 10**11), weights="length")
    assert len(flow) == 4 * 10**11
    assert flow[4 * 10**10 + 3] in (10**10, 3 * 10**10 + 2, 3 * 10**10 + 3)
