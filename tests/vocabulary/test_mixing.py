"""Mixing: whose turn it is, when it stops, how it goes on,
against slow and obvious references and other libraries' rules."""

import itertools
import json
import math
import pickle
import tracemalloc
from collections import Counter, namedtuple
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources import streamed

import flowfn as ff
from flowfn.testing import check
from flowfn.vocabulary.mixing.shares import LONGEST, Picks, Quotas, integer_weights

calm = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
UNTIL = ["first", "all", "cycle_all", "forever"]
WORKERS = [None, {}, {"threads": 2}, {"processes": 1}, {"processes": 2}]
Pair = namedtuple("Pair", "x y")


def rows(*lengths):
    """Lists of so many datapoints, each of which says where it comes from: (source, index)."""
    return [[(source, index) for index in range(length)] for source, length in enumerate(lengths)]


def begin(flow, count=200):
    """The first outputs of a pass of epoch 0."""
    with flow.run(epoch=0) as iterator:
        return list(itertools.islice(iterator, count))


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
    return lambda active, given: Picks(active, integer_weights(weights), None, given=tuple(given)).each(0)


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


def furthest(sources, weights):
    """How far, over all prefixes, a count of outputs is at most from its share."""
    shares = np.array(weights, float) / sum(weights)
    given = np.cumsum(np.eye(len(weights))[np.asarray(sources, int)], axis=0)
    return np.abs(given - np.arange(1, len(sources) + 1)[:, None] * shares).max(initial=0)


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
        first = next(Picks(active, integer_weights(weights), None, given=given).each(0))
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

lengths = st.lists(st.sampled_from([0, 1, 1, 2, 3, 7, 20]), min_size=1, max_size=4)
proportions = st.sampled_from([1, 1, 2, 3, 0.1, 0.7, 50, 3.14159])


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


FIVE = (rows(4, 2), [1, 1])


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


# Both forms

sources = st.lists(st.tuples(st.sampled_from([0, 1, 1, 2, 3, 8, 60]), proportions), min_size=1, max_size=4)


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


def noisy(datapoint, rng):
    return (*datapoint, int(rng.integers(1 << 40)))


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


def rising(step):
    return [1, step % 5, 2]


def by_name(step):
    return {0: 3, 2: 1} if step > 6 else {1: 1}


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
            "mix(): weights must be a number > 0 for each of 2 sources, got [1, 0]",
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


# Tags, names, looks


@pytest.mark.parametrize(
    ("datapoint", "expected"),
    [
        ({"x": 1}, {"x": 1, "from": "web"}),
        ([1, 2], [1, 2, "web"]),
        ((1, 2), (1, 2, "web")),
        ([], ["web"]),
        (7, (7, "web")),
        ("text", ("text", "web")),
        (None, (None, "web")),
        (Pair(1, 2), (Pair(1, 2), "web")),
    ],
)
@pytest.mark.parametrize("form", [list, streamed])
def test_tags_say_where_a_datapoint_comes_from(datapoint, expected, form):
    (made,) = ff.mix({"web": form([datapoint])}, tag="from")
    assert (made, type(made)) == (expected, type(expected))


def test_tags_are_numbers_where_sources_have_no_names():
    assert list(ff.mix(["a"], ["b"], tag="from")) == [("a", 0), ("b", 1)]


def test_a_tag_changes_no_input_and_overwrites_no_key():
    given = [{"x": 1}]
    assert list(ff.mix({"a": given}, tag="from")) == [{"x": 1, "from": "a"}]
    assert given == [{"x": 1}]
    with pytest.raises(ValueError, match=r"^mix\(\): datapoints of source 'a' already have the key 'x'"):
        list(ff.mix({"a": given}, tag="x"))


def test_names_may_be_anything_that_a_dict_takes():
    names = {"a": 1, 2: 2, (3, "x"): 3, None: 1, 4.5: 1}
    flow = ff.mix({name: [weight] * 9 for name, weight in names.items()}, weights=names, tag="from")
    with iter(flow) as iterator:
        assert {name for _, name in itertools.islice(iterator, 16)} == set(names)
        assert {name: quota.delivered for name, quota in ff.quotas(iterator).items()} == {
            name: 2 * n for name, n in names.items()
        }
        state = json.loads(json.dumps(iterator.state_dict()))
        rest = list(iterator)
    other = ff.mix({name: [weight] * 9 for name, weight in reversed(names.items())}, weights=names, tag="from")
    with iter(other.load_state_dict(state, strict=False)) as iterator:
        assert Counter(iterator) == Counter(rest)


def test_its_repr_is_the_call_that_made_it():
    assert repr(ff.mix([1], [2])) == "mix(flow([1]), flow([2]))"
    assert repr(
        ff.mix({"a": [1], "b": ff.shuffle([2])}, weights={"a": 2, "b": 1}, until="all", random=True, tag="from")
    ) == (
        "mix({'a': flow([1]), 'b': pipe(flow([2]), shuffle())}, weights={'a': 2, 'b': 1}, until='all', random=True, "
        "tag='from')"
    )
    assert repr(ff.mix([1], weights=rising, name="mine")) == "mix(flow([1]), weights=rising, name='mine')"
    assert repr(ff.mix([1], tag="first")) == "mix(flow([1]), tag='first')"
    assert repr(ff.mix([1], tag=0)) == "mix(flow([1]), tag=0)"
    assert repr(ff.pipe(ff.mix([1], [2]), ff.batch(2))) == "pipe(mix(flow([1]), flow([2])), batch(2))"


def test_it_pickles():
    for flow in (
        ff.mix(*rows(3, 4), random=True, tag="from"),
        ff.mix({"a": ff.shuffle(range(9)), "b": range(4)}, weights=by_name, until="all"),
    ):
        again = pickle.loads(pickle.dumps(flow))
        assert repr(again) == repr(flow)
        assert again.state_dict() == flow.state_dict()
    assert list(pickle.loads(pickle.dumps(nested_lists()))) == list(nested_lists())


def nested_lists():
    return ff.mix(ff.mix(*rows(3, 4), random=True), rows(5)[0], until="all")


def test_the_seed_is_that_of_the_first_source_that_was_reset():
    flow = ff.mix(range(9), ff.shuffle(range(9)).reset_state(5), random=True)
    assert flow.seed == 5


# What has been given


def as_it_is(x):
    return x


TAILS = [
    (),
    (ff.map(as_it_is),),
    (ff.map(as_it_is), ff.batch(4, collate=None)),
    (ff.batch(4, collate=None), ff.map(as_it_is)),
]


@pytest.mark.parametrize("workers", WORKERS, ids=str)
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("tail", TAILS, ids=["", "map", "batch", "map behind batch"])
def test_quotas_tell_what_was_given_of_what_was_due(workers, form, tail):
    lists, weights = rows(5, 21), [1, 2]
    expected = [0.0, 0.0]
    flow = ff.pipe(
        ff.mix(*map(form, lists), weights=weights, until="all"),
        *tail,
        None if workers is None else ff.prefetch(3, **workers),
    )
    with iter(flow) as iterator:
        given: Counter[int] = Counter()
        assert ff.quotas(iterator) == {0: (0.0, 0), 1: (0.0, 0)}
        for made in iterator:
            for source, _ in made if len(tail) > 1 else [made]:
                given[source] += 1
            k = given.total()
            expected = [k / 3, k * 2 / 3] if k <= 16 else [5, k - 5]  # source 0 is wanted again at output 16
            quotas = ff.quotas(iterator)
            assert {name: quota.delivered for name, quota in quotas.items()} == {0: given[0], 1: given[1]}
            assert [quota.expected for quota in quotas.values()] == pytest.approx(expected)
        assert ff.quotas(iterator) == quotas
    assert given == {0: 5, 1: 21}


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("weights", [[3, 1], rising], ids=["numbers", "steps"])
def test_quotas_go_on_after_a_resume(form, weights):
    def make():
        sources = rows(40, 40, 40)[: 3 if weights is rising else 2]
        return ff.pipe(ff.mix(*map(form, sources), weights=weights, until="cycle_all"), ff.batch(2, collate=None))

    with iter(make()) as iterator, iter(make()) as other:
        for k in range(30):
            state = json.loads(json.dumps(iterator.state_dict()))
            assert ff.quotas(other.load_state_dict(state)) == ff.quotas(iterator), k
            assert next(other) == next(iterator)
            assert ff.quotas(other) == ff.quotas(iterator)


def test_quotas_elsewhere_are_refused():
    mixed = ff.mix(range(9), range(9))
    for flow in (
        ff.flow([1]),
        ff.filter(bool, mixed),
        ff.shuffle(mixed),
        ff.shard(0, 2, mixed),
        ff.zip(mixed, mixed),
        ff.repeat(2, mixed),
    ):
        with (
            iter(flow) as iterator,
            pytest.raises(ValueError, match=r"^quotas\(\): there must be a mix, and behind it nothing but map-like"),
        ):
            ff.quotas(iterator)
    for wrong in (mixed, iter([1]), None):
        with pytest.raises(TypeError, match=r"^quotas\(\): iterator must be iter\(flow\) or flow.run\(\), got "):
            ff.quotas(wrong)


# Going on with other sources

NAMED = {
    name: [(name, index) for index in range(size)]
    for name, size in (("web", 13), ("code", 6), ("books", 9), ("maths", 1))
}


def mixed(names, form=list, tail=(), workers=None, shuffled=False, **options):
    """A mix of some of the named sources, in that order."""
    inner = {name: ff.pipe(form(NAMED[name]), ff.shuffle_buffer(3, name=name) if shuffled else None) for name in names}
    return ff.pipe(ff.mix(inner, **options), *tail, None if workers is None else ff.prefetch(2, **workers))


def flat(outputs):
    return [x for output in outputs for x in (output if isinstance(output, list) else [output])]


def of(name, datapoints):
    return [datapoint for datapoint in datapoints if datapoint[0] == name]


CHANGES = [
    (("web", "code"), after)
    for after in (("web", "code", "books"), ("code",), ("code", "web"), ("maths", "web"), ("books",))
]


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize(("before", "after"), CHANGES, ids=lambda names: "+".join(names))
@pytest.mark.parametrize("until", ["first", "all", "cycle_all", "forever"])
def test_those_that_stay_go_on_where_they_were_and_new_ones_begin(form, before, after, until):
    old = begin(mixed(before, form, until=until), 60)
    places = (0, 7, 25) if until == "forever" else {*range(0, len(old), 3), len(old)}
    for k in places:
        with mixed(before, form, until=until).run(epoch=2) as iterator:
            given = list(itertools.islice(iterator, k))
            assert given == old[:k]
            state = json.loads(json.dumps(iterator.state_dict()))
        flow = mixed(after, form, until=until, weights=[2, 1, 1][: len(after)])
        with pytest.raises(ValueError, match="the state was saved by another pipeline"):
            flow.load_state_dict(state)
        with iter(flow.load_state_dict(state, strict=False)) as iterator:
            assert (iterator.epoch, iterator.position) == (2, 0)
            rest = list(itertools.islice(iterator, 60))
        for name in after:
            whole = of(name, given) + of(name, rest)
            assert whole == list(itertools.islice(itertools.cycle(NAMED[name]), len(whole)))
            if until == "all":
                assert len(whole) == len(NAMED[name])
            if until == "first":
                assert len(whole) <= len(NAMED[name])
            if until == "cycle_all":
                assert len(whole) >= len(NAMED[name])
        if until == "first":
            assert any(len(of(name, given + rest)) == len(NAMED[name]) for name in after)
        assert begin(flow.set_epoch(3), 60) == begin(
            mixed(after, form, until=until, weights=[2, 1, 1][: len(after)]), 60
        )


@pytest.mark.parametrize("workers", WORKERS, ids=str)
@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize("tail", TAILS, ids=["", "map", "batch", "map behind batch"])
def test_it_goes_on_so_behind_batch_and_prefetch(workers, form, tail):
    for k in (1, 2, 4):
        with mixed(["web", "code"], form, tail, workers, until="all").run(epoch=1) as iterator:
            given = flat(itertools.islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        with iter(
            mixed(["code", "books", "web"], form, tail, workers, until="all").load_state_dict(state, strict=False)
        ) as iterator:
            rest = list(itertools.islice(iterator, 2))
            again = json.loads(json.dumps(iterator.state_dict()))
            rest += iterator
        with iter(mixed(["code", "books", "web"], form, tail, workers, until="all").load_state_dict(again)) as iterator:
            assert list(iterator) == rest[2:]
        with iter(
            mixed(["code", "books", "web"], form, tail, until="all").load_state_dict(state, strict=False)
        ) as iterator:
            assert list(iterator) == rest
        assert of("books", flat(rest)) == NAMED["books"]
        assert of("web", given + flat(rest)) == NAMED["web"]
        assert of("code", given + flat(rest)) == NAMED["code"]


changes = st.tuples(
    st.permutations(list(NAMED)).flatmap(lambda names: st.integers(1, 4).map(lambda n: names[:n])),
    st.permutations(list(NAMED)).flatmap(lambda names: st.integers(1, 4).map(lambda n: names[:n])),
)


@settings(max_examples=40, **calm)
@given(
    changes,
    st.sampled_from(UNTIL),
    st.booleans(),
    st.lists(proportions, min_size=8, max_size=8),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_going_on_is_the_same_in_both_forms_and_can_itself_be_resumed(names, until, random, weights, first, second):
    ends = []
    for form in (list, streamed):
        options = {"until": until, "random": random}

        def make(form=form, options=options):
            return mixed(names[1], form, weights=weights[4 : 4 + len(names[1])], **options)

        with mixed(names[0], form, weights=weights[: len(names[0])], **options).run() as iterator:
            given = list(itertools.islice(iterator, first))
            if iterator.progress()[0].node.length_or_none() == len(given):
                return  # it may have ended
            state = json.loads(json.dumps(iterator.state_dict()))
        with iter(make().load_state_dict(state, strict=False)) as iterator:
            middle = list(itertools.islice(iterator, second))
            later = json.loads(json.dumps(iterator.state_dict()))
            quotas = ff.quotas(iterator)
            rest = list(itertools.islice(iterator, 50))
        if names[0] != names[1] or weights[: len(names[0])] != weights[4 : 4 + len(names[1])]:
            for source in names[1]:
                whole = of(source, given + middle + rest)
                assert whole == list(itertools.islice(itertools.cycle(NAMED[source]), len(whole)))
                if until == "all" and len(rest) < 50:
                    assert len(whole) == len(NAMED[source])
        if rest:
            with iter(make().load_state_dict(later)) as iterator:
                assert ff.quotas(iterator) == quotas
                assert list(itertools.islice(iterator, 50)) == rest
        ends.append((given, state["mix"], middle, rest, quotas))
    assert ends[0] == ends[1]


def test_a_source_that_has_ended_is_not_forgotten():
    def make(*names, until, form):
        return ff.mix({name: form(NAMED[name]) for name in names}, until=until)

    for form in (list, streamed):
        with iter(make("code", "web", until="first", form=form)) as iterator:
            given = list(itertools.islice(iterator, 12))  # all of code; it is wanted next
            state = iterator.state_dict()
        assert len(of("code", given)) == 6
        assert list(make("code", "web", "books", until="first", form=form).load_state_dict(state, strict=False)) == []
        assert (
            len(list(make("books", "web", "code", until="first", form=form).load_state_dict(state, strict=False))) == 2
        )
        rest = list(make("books", "web", "code", until="all", form=form).load_state_dict(state, strict=False))
        assert (of("code", rest), of("web", rest), of("books", rest)) == ([], NAMED["web"][6:], NAMED["books"])
        with iter(make("maths", "web", until="cycle_all", form=form)) as iterator:
            list(itertools.islice(iterator, 8))
            state = iterator.state_dict()
        assert list(make("maths", until="cycle_all", form=form).load_state_dict(state, strict=False)) == []
        with iter(make("maths", "web", until="all", form=form)) as iterator:
            list(itertools.islice(iterator, 8))
            state = iterator.state_dict()
        assert list(make("maths", until="all", form=form).load_state_dict(state, strict=False)) == []


@pytest.mark.parametrize("form", [list, streamed])
def test_the_last_batch_may_be_short_before_the_sources_change(form):
    def make(*names):
        return ff.pipe(mixed(names, form, until="all"), ff.batch(4, collate=None))

    flow = make("web", "code")
    with iter(flow) as iterator:
        assert len(flat(itertools.islice(iterator, 5))) == 19  # all of it, but nobody has asked for more
        state = json.loads(json.dumps(iterator.state_dict()))
    assert state["mix"]["steps"] == 19
    assert flat(make("web", "code", "books").load_state_dict(state, strict=False)) == NAMED["books"]


def test_sources_with_anchors_of_their_own_go_on_too():
    def make(*names):
        parts = {
            "web": ff.shuffle_buffer(4),
            "code": ff.filter(lambda x: x[1] % 2),
            "books": ff.flat_map(lambda x: [x, x]),
        }
        return ff.pipe(
            ff.mix({name: parts[name](NAMED[name]) for name in names}, until="all"), ff.batch(2, collate=None)
        )

    for k in range(8):
        with make("web", "code", "books").run() as iterator:
            given = flat(itertools.islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        rest = flat(make("books", "code").load_state_dict(state, strict=False))
        assert of("code", given + rest) == [x for x in NAMED["code"] if x[1] % 2]
        assert of("books", given + rest) == [x for x in NAMED["books"] for _ in range(2)]
        alone = list(
            ff.pipe(ff.mix({"web": ff.shuffle_buffer(4)(NAMED["web"])}, until="all")).load_state_dict(
                state, strict=False
            )
        )
        assert sorted(of("web", given) + alone) == NAMED["web"]


def test_the_steps_of_a_schedule_go_on():
    def make(names, log):
        def weights(step):
            log.append(step)
            return dict.fromkeys(names, 1)

        return ff.mix({name: NAMED[name] for name in names}, weights=weights, until="cycle_all")

    for saved in ([3, 1], None):  # from a schedule, and from fixed weights
        with (
            iter(make(["web", "code"], []))
            if saved is None
            else iter(mixed(["web", "code"], weights=saved)) as iterator
        ):
            given = list(itertools.islice(iterator, 5))
            state = json.loads(json.dumps(iterator.state_dict()))
        steps = []
        with iter(make(["code", "books"], steps).load_state_dict(state, strict=False)) as iterator:
            rest = list(itertools.islice(iterator, 4))
            later = json.loads(json.dumps(iterator.state_dict()))
            rest += itertools.islice(iterator, 3)
        assert steps == [5, 6, 7, 8, 9, 10, 11]
        assert of("code", given + rest) == NAMED["code"][: len(of("code", given + rest))]
        resumed = []
        with iter(make(["code", "books"], resumed).load_state_dict(later)) as iterator:
            assert list(itertools.islice(iterator, 3)) == rest[4:]
        assert resumed == [9, 10, 11]


def test_an_error_in_a_source_can_be_tried_again():
    broken = [True]

    def read(x):
        if x == 3 and broken:
            broken.clear()
            raise OSError("away")
        return x

    for form in (list, streamed):
        broken[:] = [True]
        flow = ff.mix(ff.pipe(form(range(6)), ff.map(read)), form([10, 11, 12, 13]), until="all")
        expected = [0, 10, 1, 11, 2, 12, 3, 13, 4, 5]
        iterator = iter(flow)
        made = list(itertools.islice(iterator, 6))
        with pytest.raises(OSError, match="away"):
            next(iterator)
        with iter(flow.load_state_dict(json.loads(json.dumps(iterator.state_dict())))) as again:
            assert made + list(again) == expected


@pytest.mark.parametrize("tail", [(), (ff.batch(3, collate=None),)], ids=["", "batch"])
@pytest.mark.parametrize("form", [list, streamed])
def test_an_error_downstream_does_not_lose_where_the_others_were(form, tail):
    broken = set()

    def read(x):
        if x in broken:
            broken.clear()
            raise OSError("away")
        return x

    def make(*names):
        return mixed(names, form, (ff.map(read), *tail), until="all")

    with iter(make("web", "code")) as iterator:
        list(itertools.islice(iterator, 2))
        state = iterator.state_dict()
    whole = list(make("books", "web").load_state_dict(state, strict=False))
    iterator = iter(make("books", "web").load_state_dict(state, strict=False))
    made = list(itertools.islice(iterator, 2))
    broken.add(flat(whole)[len(flat(made)) + len(tail)])
    with pytest.raises(OSError, match="away"):
        next(iterator)
    assert made + list(make("books", "web").load_state_dict(json.loads(json.dumps(iterator.state_dict())))) == whole


@pytest.mark.parametrize("form", [list, streamed])
@pytest.mark.parametrize(
    "after", [("code", "books"), ("books", "web", "code"), ("code",), ("web", "maths", "code", "books")], ids="+".join
)
def test_the_randomness_of_a_source_is_its_own(form, after):
    def make(*names):
        order = ff.shuffle if form is list else ff.shuffle_buffer(5)
        inner = {
            name: ff.pipe(
                form(NAMED[name]), order, ff.map(noisy, rng=True), ff.filter(bool) if form is streamed else None
            )
            for name in names
        }
        return ff.pipe(ff.mix(inner, until="forever", weights=[1, 2, 1, 2][: len(inner)]), ff.map(noisy, rng=True))

    def without_last_draw(name, datapoints):
        return [datapoint[:-1] for datapoint in of(name, datapoints)]

    alone = {name: without_last_draw(name, begin(make(name), 40)) for name in after}
    for k in (1, 20):
        with make("web", "code").run(epoch=0) as iterator:
            given = list(itertools.islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        with iter(make(*after).load_state_dict(state, strict=False)) as iterator:
            rest = list(itertools.islice(iterator, 20))
        for name in after:
            whole = without_last_draw(name, given + rest)
            assert whole == alone[name][: len(whole)]
        assert len({datapoint[-1] for datapoint in given + rest}) == len(
            given + rest
        )  # no draw behind the mix is made twice


def test_one_flow_in_two_sources_is_read_alike_in_both():
    flow = ff.pipe(range(9), ff.shuffle())
    made = list(ff.mix({"a": flow, "b": flow}, tag="from"))
    assert [x for x, name in made if name == "a"] == [x for x, name in made if name == "b"]
