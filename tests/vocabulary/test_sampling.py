"""`sample`: what it draws, how often, and that it is the same however it is read."""

import itertools
import json
import math
import pickle
import tracemalloc
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import streamed

import flowfn as ff
from flowfn.randomness.drawing import DistinctDraws, Draws, WeightedDraws, words
from flowfn.randomness.generators import hashed
from flowfn.testing import check

calm = settings(max_examples=60, deadline=None, derandomize=True)


def fits(observed, expected):
    """Whether counts are what they are expected to be, by the chi-square statistic,
    six deviations from its mean allowed."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    assert (observed[expected == 0] == 0).all()
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    return abs(statistic - freedom) <= 6 * math.sqrt(2 * max(freedom, 1))


def drawn(flow, count):
    """The first `count` outputs of a flow over a range, as an array."""
    return np.fromiter(islice(flow, count), np.int64, count)


# What is drawn


@calm
@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 99))
def test_every_draw_is_a_datapoint(n, count, seed):
    data = [f"{i}" for i in range(n)]
    flow = ff.sample(count, data).reset_state(seed)
    given_out = list(flow.run())
    assert len(given_out) == len(flow) == count
    assert set(given_out) <= set(data)
    distinct = list(ff.sample(min(count, n), data, replacement=False).reset_state(seed))
    assert len(set(distinct)) == len(distinct) == min(count, n)


@calm
@given(
    st.lists(st.sampled_from([0, 0.0, 1e-300, 0.1, 1, 7, 1e300]), min_size=1, max_size=9),
    st.integers(0, 40),
    st.integers(0, 99),
)
def test_what_has_no_weight_is_never_drawn(weights, count, seed):
    there = [i for i, weight in enumerate(weights) if weight]
    if not there:
        return
    assert set(ff.sample(count, range(len(weights)), weights=weights).run(seed=seed)) <= set(there)
    count = min(count, len(there))
    distinct = list(ff.sample(count, range(len(weights)), weights=weights, replacement=False).run(seed=seed))
    assert len(set(distinct)) == len(distinct) == count
    assert set(distinct) <= set(there)


def test_without_replacement_all_there_are_is_an_order_of_them():
    for weights in (None, [1, 5, 0.1, 1, 1e9]):
        orders = [tuple(ff.sample(5, range(5), weights=weights, replacement=False).run(epoch=e)) for e in range(20)]
        assert all(sorted(order) == list(range(5)) for order in orders)
        assert len(set(orders)) > 3
    assert list(ff.sample(1, [None], replacement=False)) == [None]
    assert list(ff.sample(3, ["x"], weights=[0.5])) == ["x"] * 3


def test_other_epochs_and_seeds_draw_otherwise():
    for keywords in (
        {},
        {"replacement": False},
        {"weights": range(1000)},
        {"weights": range(1000), "replacement": False},
    ):
        flow = ff.sample(50, range(1000), **keywords)
        passes = [tuple(flow.run(seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)]
        assert len(set(passes)) == 9
        assert [list(flow), list(flow)] == [list(passes[0]), list(passes[1])]


def test_two_samples_in_a_tree_draw_otherwise_and_a_name_pins_one():
    source = range(1000)
    one, other = zip(*ff.zip(ff.sample(20, source), ff.sample(20, source)))
    assert one != other
    one, other = zip(*ff.zip(ff.sample(20, source, name="x"), ff.sample(20, source, name="x")))
    assert one == other


# How it is read


KINDS = [
    {},
    {"replacement": False},
    {"weights": [i % 7 for i in range(100)]},
    {"weights": np.arange(100, dtype=np.float32), "replacement": False},
]


@pytest.mark.parametrize("keywords", KINDS)
def test_indices_slices_and_iteration_agree(keywords):
    flow = ff.sample(80, range(100), **keywords).reset_state(3)
    whole = list(flow.run())
    flow.set_epoch(0)
    assert [flow[i] for i in (79, 0, 41, -1)] == [whole[79], whole[0], whole[41], whole[79]]
    assert list(flow[10:40:7]) == whole[10:40:7]
    assert list(flow[::-1]) == whole[::-1]
    assert flow.__getitems__([5, 5, 0]) == [whole[5], whole[5], whole[0]]
    assert [list(flow.run(start=k)) for k in (0, 33, 80, 99)] == [whole, whole[33:], [], []]
    with pytest.raises(IndexError):
        flow[80]


@pytest.mark.parametrize("keywords", KINDS)
@pytest.mark.parametrize("count", [0, 1, 60])
def test_the_laws(keywords, count):
    check(lambda: ff.sample(count, range(100), **keywords))
    check(
        lambda: ff.pipe(ff.sample(count, range(100), **keywords), ff.shuffle(), ff.shard(1, 2), ff.repeat(2)), stops=4
    )


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}])
def test_the_laws_in_workers(workers):
    def make_flow():
        numbers = ff.map(lambda x, rng: (x, int(rng.integers(1000))), rng=True)
        inner = ff.pipe(range(40), ff.sample(30), numbers, ff.sample(20, weights=range(30)))
        return ff.pipe(
            inner, ff.sample(15, replacement=False), ff.sample(12, weights=range(15), replacement=False), numbers
        )

    check(make_flow, workers=(workers,), stops=4)


def test_rows_of_arrays_are_gathered():
    flow = ff.pipe(ff.from_arrays(np.arange(50), np.arange(100).reshape(50, 2)), ff.sample(30), ff.batch(30))
    ((first, second),) = list(flow.run())
    np.testing.assert_array_equal(second[:, 0], 2 * first)
    assert first.tolist() == list(ff.sample(30, range(50)).run())


def test_a_state_holds_no_draws_and_knows_other_weights():
    flow = ff.sample(1000, range(1000), weights=np.arange(1000.0))
    iterator = iter(flow)
    list(islice(iterator, 500))
    text = json.dumps(iterator.state_dict())
    assert len(text) < 1000
    assert list(ff.sample(1000, range(1000), weights=np.arange(1000.0)).load_state_dict(json.loads(text))) == list(
        iterator
    )
    with pytest.raises(ValueError, match="saved by another pipeline"):
        ff.sample(1000, range(1000), weights=np.arange(1, 1001.0)).load_state_dict(json.loads(text))


GOLDEN = [
    ({}, [86, 53, 38, 48, 56, 59, 25, 74, 53, 36, 93, 90]),
    ({"replacement": False}, [48, 37, 89, 60, 52, 44, 29, 91, 85, 63, 17, 83]),
    ({"weights": [1, 2, 3, 4, 0] * 20}, [86, 53, 38, 48, 57, 58, 26, 73, 53, 36, 93, 90]),
    ({"weights": [1, 2, 3, 4, 0] * 20, "replacement": False}, [86, 53, 38, 48, 57, 58, 26, 73, 36, 93, 90, 47]),
]


@pytest.mark.parametrize(("keywords", "golden"), GOLDEN)
def test_what_is_drawn_does_not_change(keywords, golden):
    """The order of streams is a promise: these numbers change with a major version only."""
    assert list(ff.sample(12, range(100), **keywords).run(seed=7, epoch=1)) == golden


# How often


def test_draws_are_uniform_and_do_not_depend_on_those_before():
    for n in (2, 3, 10, 100):
        indices = drawn(ff.sample(40000, range(n)).run(seed=n), 40000)
        assert fits(np.bincount(indices, minlength=n), [40000 / n] * n)
        if n <= 10:
            pairs = indices[:-1] * n + indices[1:]
            assert fits(np.bincount(pairs, minlength=n * n), [39999 / n**2] * n**2)


def test_one_draw_is_uniform_over_seeds_epochs_and_places():
    single = ff.sample(3, range(7))
    assert fits(np.bincount([next(single.run(seed=seed)) for seed in range(3000)], minlength=7), [3000 / 7] * 7)
    assert fits(np.bincount([next(single.run(epoch=epoch)) for epoch in range(3000)], minlength=7), [3000 / 7] * 7)


@pytest.mark.parametrize("n", [2**31 + 3, 2**32 - 1, 2**32, 2**32 + 1, 10**12, 2**53 + 1, 2**63 - 1])
def test_draws_from_many_are_uniform(n):
    """By their leading share, and, where a number of 64 bits is scaled, by their last digit too."""
    indices = Draws(n, 50000, hashed("many", n))[np.arange(50000)]
    assert indices.min() >= 0
    assert indices.max() < n
    assert fits(np.bincount((indices.astype(object) * 16 // n).astype(int), minlength=16), [50000 / 16] * 16)
    if n < 2**60:
        assert fits(np.bincount(indices % 10, minlength=10), [5000] * 10)


def test_draws_are_exact_products_of_the_bits():
    for n in (1, 3, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 10**12 + 39, 2**62 + 1, 2**63 - 1):
        bits = words(np.arange(500, dtype=np.uint64), hashed(n))
        assert Draws(n, 500, hashed(n))[0:500].tolist() == [int(word) * n >> 64 for word in bits]


@pytest.mark.parametrize(
    "weights",
    [[1, 2, 3, 4], [5], [0, 1, 0, 1, 0], [0.001, 1, 0.5], [1e300, 2e300], [1e-300, 3e-300], [1e-9, 1, 1e9], range(30)],
)
def test_weighted_draws_come_in_proportion_to_the_weights(weights):
    share = np.array(weights, float) / np.array(weights, float).sum()
    indices = drawn(ff.sample(40000, range(len(weights)), weights=weights).run(seed=1), 40000)
    counts = np.bincount(indices, minlength=len(weights))
    seen = share * 40000 > 5
    assert fits(np.append(counts[seen], counts[~seen].sum()), np.append(share[seen], share[~seen].sum()) * 40000)
    assert (counts[share == 0] == 0).all()


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float32, np.float64]
)
def test_weights_are_numbers_of_any_kind(dtype):
    weights = np.array([1, 0, 1, 1], dtype) * dtype(100 if dtype is not np.bool_ else 1)
    assert list(ff.sample(20, range(4), weights=weights).run()) == list(
        ff.sample(20, range(4), weights=[1.0, 0, 1, 1]).run()
    )
    assert set(ff.sample(3, range(4), weights=weights, replacement=False)) == {0, 2, 3}


def test_large_weights_do_not_overflow():
    assert set(ff.sample(100, range(3), weights=np.full(3, 60000, np.float16))) == {0, 1, 2}
    assert set(ff.sample(100, range(4), weights=[2**62] * 4)) == {0, 1, 2, 3}
    assert set(ff.sample(100, range(2), weights=[8e307, 8e307])) == {0, 1}


def successive(weights, count):
    """The probability of every sequence that successive sampling without replacement gives."""
    for sequence in itertools.permutations(range(len(weights)), count):
        probability, left = 1.0, sum(weights)
        for index in sequence:
            probability *= weights[index] / left if weights[index] else 0.0
            left -= weights[index]
        yield sequence, probability


@pytest.mark.parametrize(
    ("weights", "count"),
    [
        ([1, 2, 3, 4], 2),
        ([1, 2, 3, 4], 4),
        ([1, 1, 1], 3),
        ([0, 5, 1, 1], 3),
        ([1000, 1, 1, 1], 3),
        ([0.1, 0.1, 100], 2),
    ],
)
def test_distinct_draws_are_draws_one_after_the_other_from_what_is_left(weights, count):
    trials, chances = 12000, dict(successive(weights, count))
    found = Counter(
        tuple(DistinctDraws(np.array(weights, float), count, hashed("distinct", key))[:].tolist())
        for key in range(trials)
    )
    often = [sequence for sequence, chance in chances.items() if chance * trials > 5]
    seldom = [sequence for sequence, chance in chances.items() if 0 < chance * trials <= 5]
    assert set(found) <= {*often, *seldom}
    assert (
        sum(found[sequence] for sequence in seldom) <= 20 + 2 * sum(chances[sequence] for sequence in seldom) * trials
    )
    assert fits([found[sequence] for sequence in often], [chances[sequence] * trials for sequence in often])


def test_distinct_draws_that_take_several_rounds_are_no_different():
    """More are wanted than one round of draws gives: the share of pairs in which the heavier comes
    first is still exact."""
    weights, trials = np.repeat([1.0, 8.0], 200), 300
    first_is_heavy = pairs = 0
    for key in range(trials):
        order = DistinctDraws(weights, 400, hashed("rounds", key))[:]
        place = np.argsort(order)
        first_is_heavy += int((place[200:] < place[:200]).sum())
        pairs += 200
    assert abs(first_is_heavy / pairs - 8 / 9) < 6 * math.sqrt(8 / 81 / pairs) + 0.005


def test_without_weights_and_replacement_every_order_is_as_likely():
    trials = 6000
    found = Counter(tuple(ff.sample(3, range(4), replacement=False).run(seed=seed)) for seed in range(trials))
    assert fits([found[order] for order in itertools.permutations(range(4), 3)], [trials / 24] * 24)


# How much


def test_drawing_from_a_great_many_costs_nothing():
    for replacement in (True, False):
        flow = ff.sample(10**12, range(10**12), replacement=replacement)
        flow[0]
        tracemalloc.start()
        assert len(flow) == 10**12
        assert 0 <= flow[10**12 - 1] < 10**12
        assert len(set(islice(flow.run(start=10**11), 5000))) == 5000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()
    assert len(set(ff.sample(5, range(2**62)))) == 5


def test_the_draws_of_past_rounds_are_forgotten():
    for flow, a_round in [
        (ff.pipe(range(20000), ff.shuffle(), ff.cycle()), 20000),
        (ff.pipe(range(5000), ff.sample(5000, weights=np.ones(5000)), ff.cycle()), 5000),
    ]:
        iterator = iter(flow)
        list(islice(iterator, 12 * a_round))
        tracemalloc.start()
        list(islice(iterator, 12 * a_round))
        assert tracemalloc.get_traced_memory()[0] < 9 * 8 * 20000
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["uniform", "zipf", "wild", "one above all"])
def test_a_million_weights(name):
    n = 1_000_000
    weights = {
        "uniform": np.ones(n),
        "zipf": 1 / np.arange(1, n + 1),
        "wild": np.exp(5 * np.random.Generator(np.random.Philox(0)).standard_normal(n)),
        "one above all": np.r_[1e300, np.full(n - 1, 1e-300)],
    }[name]
    some = WeightedDraws(weights, 100_000, hashed(name))[np.arange(100_000)]
    halves = np.array([weights[: n // 2].sum(), weights[n // 2 :].sum()])
    assert fits(np.bincount(some >= n // 2, minlength=2), 100_000 * halves / weights.sum())
    order = DistinctDraws(weights, n, hashed(name))[:]
    assert (np.bincount(order, minlength=n) == 1).all()
    assert name != "one above all" or (order[0] == 0 and not some.any())


# What is wrong


ROW = "a row of numbers >= 0, one for each datapoint, with a finite sum above 0"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.sample(-1), ValueError, "sample(): count must be an integer >= 0, got -1"),
        (lambda: ff.sample(1.5), TypeError, "sample(): count must be an integer >= 0, got 1.5"),
        (lambda: ff.sample([1, 2]), TypeError, "sample(): count must be an integer >= 0, got [1, 2]"),
        (lambda: ff.sample(), TypeError, "sample(): missing a required argument: 'count'"),
        (lambda: ff.sample(1, replacement=0), TypeError, "sample(): replacement must be True or False, got 0"),
        (lambda: ff.sample(1, weights="ab"), TypeError, f"sample(): weights must be {ROW}, got 'ab'"),
        (lambda: ff.sample(1, weights=3), TypeError, f"sample(): weights must be {ROW}, got 3"),
        (lambda: ff.sample(1, weights={0: 1}), TypeError, f"sample(): weights must be {ROW}, got {{0: 1}}"),
        (lambda: ff.sample(1, weights=[]), ValueError, f"sample(): weights must be {ROW}, got []"),
        (lambda: ff.sample(1, weights=[0, 0]), ValueError, f"sample(): weights must be {ROW}, got [0, 0]"),
        (lambda: ff.sample(1, weights=[1, -1]), ValueError, f"sample(): weights must be {ROW}, got [1, -1]"),
        (lambda: ff.sample(1, weights=[1, math.nan]), ValueError, f"sample(): weights must be {ROW}, got [1, nan]"),
        (lambda: ff.sample(1, weights=[1, math.inf]), ValueError, f"sample(): weights must be {ROW}, got [1, inf]"),
        (
            lambda: ff.sample(1, weights=[1e308, 1e308]),
            ValueError,
            f"sample(): weights must be {ROW}, got [1e+308, 1e+308]",
        ),
        (lambda: ff.sample(1, weights=[[1, 2]]), ValueError, f"sample(): weights must be {ROW}, got [[1, 2]]"),
        (lambda: ff.sample(1, weights=["a"]), ValueError, f"sample(): weights must be {ROW}, got ['a']"),
        (lambda: ff.sample(1, weights=[None, 1]), ValueError, f"sample(): weights must be {ROW}, got [None, 1]"),
    ],
)
def test_wrong_arguments_are_named_at_once(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("make_flow", "message"),
    [
        (lambda: ff.sample(1, []), "sample(): cannot draw 1 of 0 datapoints"),
        (
            lambda: ff.sample(4, range(3), replacement=False),
            "sample(): cannot draw 4 of 3 datapoints without replacement",
        ),
        (
            lambda: ff.sample(3, range(4), weights=[1, 0, 2, 0], replacement=False),
            "sample(): cannot draw 3 of 2 datapoints with a weight above 0 without replacement",
        ),
        (
            lambda: ff.sample(1, range(3), weights=[1, 2]),
            "sample(): there must be one weight for each datapoint, got 2 weights for 3 datapoints",
        ),
        (
            lambda: ff.sample(1, [], weights=[1]),
            "sample(): there must be one weight for each datapoint, got 1 weights for 0 datapoints",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said_before_anything_is_read(make_flow, message):
    with pytest.raises(ValueError, match=r"^sample") as raised:
        list(make_flow())
    assert str(raised.value) == message


def test_streams_and_endless_flows_cannot_be_sampled():
    remedy = "mix(..., weights=, random=True) draws from streams, or give a list"
    with pytest.raises(TypeError, match="sample") as raised:
        list(ff.sample(3, streamed([1])))
    assert str(raised.value).endswith(remedy)
    with pytest.raises(TypeError, match=r"^sample\(\): the source is endless; take\(n\) makes it finite$"):
        list(ff.sample(3, ff.cycle([1])))
    assert list(ff.sample(0, [])) == list(ff.sample(0, [], replacement=False)) == []


def test_sample_is_shown_compares_and_pickles():
    stages = [
        ff.sample(3),
        ff.sample(3, replacement=False),
        ff.sample(3, weights=[1, 2]),
        ff.sample(3, weights=np.arange(2)),
        ff.sample(4),
    ]
    assert [repr(stage) for stage in stages] == [
        "sample(3)",
        "sample(3, replacement=False)",
        "sample(3, weights=[1, 2])",
        "sample(3, weights=int64 array (2,))",
        "sample(4)",
    ]
    assert all((one == other) == (one is other) for one in stages for other in stages)
    assert pickle.loads(pickle.dumps(stages)) == stages
