"""Balancing: costs in equal parts, sequences in rows of equal cost, rows in steps."""

import json
from functools import partial
from itertools import combinations, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lengths import CAPACITY, SHAPES, attention, bimodal, log_normal

import flowfn as ff
from flowfn.testing import check
from flowfn.vocabulary.balancing.costs import as_integers, costs_of
from flowfn.vocabulary.balancing.filling import RowsToFill, fill_some
from flowfn.vocabulary.balancing.partitions import any_counts, equal_counts
from flowfn.vocabulary.balancing.steps import steps_of
from flowfn.vocabulary.packing.balanced import balanced_fit
from flowfn.vocabulary.packing.packers import best_fit

costs = st.lists(st.integers(0, 50), min_size=1, max_size=24)


def sums(costs, parts):
    return [int(costs[part].sum()) for part in parts]


# Partitions


@given(costs, st.integers(1, 5))
def test_every_item_is_in_one_part_and_parts_have_equally_many(numbers, parts):
    one = np.array(numbers[: len(numbers) // parts * parts], np.int64)
    (found,) = equal_counts(one[None], parts)
    assert found.shape == (parts, len(one) // parts)
    assert sorted(found.ravel().tolist()) == list(range(len(one)))


@given(costs, st.integers(1, 5))
def test_every_item_is_in_one_part_and_no_part_is_empty(numbers, parts):
    one = np.array(numbers + [0] * parts, np.int64)
    found = any_counts(one, parts)
    assert len(found) == parts
    assert all(map(len, found))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(one)))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 50), min_size=8, max_size=8))
def test_halves_are_within_a_sixth_of_the_best_that_there_are(numbers):
    one = np.array(numbers, np.int64)
    best = min(max(sum(half), sum(numbers) - sum(half)) for half in combinations(numbers, 4))
    assert max(sums(one, equal_counts(one[None], 2)[0])) <= best * 7 / 6 + 1


def test_differencing_is_taken_where_it_is_better_than_longest_first():
    # 8 7 6 5 4: longest-first gives 17 and 13, differencing 16 and 14
    assert sorted(sums(np.array([8, 7, 6, 5, 4]), any_counts(np.array([8, 7, 6, 5, 4]), 2))) == [14, 16]
    # 9 7 | 6 5 | 4 2 in pairs: both ways come to the best there is
    one = np.array([9, 7, 6, 5, 4, 2])
    assert sorted(sums(one, equal_counts(one[None], 2)[0])) == [16, 17]


@pytest.mark.parametrize(
    ("numbers", "parts", "expected"),
    [([9, 4, 7, 6, 8, 5], 3, [13, 13, 13]), ([5, 9, 1, 3], 2, [9, 9]), ([5, 9, 2, 4], 2, [9, 11])],
)
def test_small_problems_are_solved_as_well_as_they_can_be(numbers, parts, expected):
    one = np.array(numbers)
    assert sorted(sums(one, any_counts(one, parts))) == expected
    assert any_counts(one, 1)[0].tolist() == list(range(len(one)))
    assert [part.tolist() for part in any_counts(one, len(one))] == [[number] for number in range(len(one))]


def test_one_of_great_cost_goes_with_the_cheapest():
    one = np.array([100, *range(1, 16)])
    (parts,) = equal_counts(one[None], 4)
    assert parts[0].tolist() == [0, 1, 2, 3]
    assert max(sums(one, parts[1:])) - min(sums(one, parts[1:])) <= 1


def test_longest_first_is_taken_where_it_is_better_than_differencing():
    # Graham's worst case for m = 2 the other way round: 3 3 2 2 2
    assert max(sums(np.array([3, 3, 2, 2, 2]), any_counts(np.array([3, 3, 2, 2, 2]), 2))) <= 7
    one = np.array([5, 5, 4, 3, 3, 3, 1])
    assert max(sums(one, any_counts(one, 3))) == 8


def test_many_problems_at_once_are_solved_as_each_by_itself():
    many = np.random.Generator(np.random.Philox(key=1)).integers(0, 1000, (40, 24))
    together = equal_counts(many, 4)
    assert all(np.array_equal(one, equal_counts(many[[n]], 4)[0]) for n, one in enumerate(together))


@pytest.mark.parametrize("lengths", SHAPES)
def test_512_sequences_on_8_ranks_are_shared_to_a_thousandth(lengths):
    one = as_integers(attention(lengths(512)))
    shares = np.array(sums(one, equal_counts(one[None], 8)[0]), float)
    assert shares.max() / shares.mean() < 1.001


def test_ties_go_to_what_comes_first():
    assert equal_counts(np.ones((1, 6), np.int64), 3).tolist() == [[[0, 3], [1, 4], [2, 5]]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((1, 5), np.int64), 2), "a multiple of parts"),
        ((np.ones((1, 4)), 2), "an array of problems in rows"),
        ((-np.ones((1, 4), np.int64), 2), "integers >= 0"),
        ((np.ones((1, 4), np.int64), 0), "parts must be a positive integer, got 0"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        equal_counts(*arguments)


# Costs


def test_costs_are_integers_that_cannot_overflow_and_keep_their_ratios():
    numbers = as_integers(np.array([3.0, 1.5, 0.0, 1e-3]))
    assert numbers[0] == 2 * numbers[1]
    assert numbers[2] == 0
    assert abs(numbers[0] / numbers[3] - 3000) < 1e-6
    assert 0 < int(sum(map(int, as_integers(np.full(1000, 7e300))))) < 2**63


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (lambda n: n[:-1], ValueError, r"returned shape \(2,\) for 3 lengths"),
        (lambda n: 7, ValueError, r"returned shape \(\)"),
        (lambda n: -n, ValueError, "finite and not negative"),
        (lambda n: n / 0.0, ValueError, "finite and not negative"),
        (lambda n: ["a", "b", "c"], TypeError, "a function of an array of lengths"),
        (lambda n: n if n > 3 else 3, TypeError, "failed on"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_function_that_gives_no_costs_is_told(cost, error, message):
    with pytest.raises(error, match=message):
        costs_of("pack", cost, np.array([1, 2, 3]))


def test_a_cost_function_cannot_change_the_lengths():
    lengths = np.array([1, 2])
    costs_of("pack", lambda n: np.add(n, 1, out=n), lengths)
    assert lengths.tolist() == [1, 2]


# Rows


def check_rows(lengths, rows, capacity):
    """Each sequence is given once and whole, and no row holds more than it can, or nothing."""
    assert sorted(index for row in rows for index, _, _ in row) == list(range(len(lengths)))
    assert all((start, stop) == (0, lengths[index]) for row in rows for index, start, stop in row)
    assert all(0 < sum(stop for _, _, stop in row) <= capacity for row in rows)


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 16), max_size=60), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 5, 16, None])
)
def test_every_sequence_is_in_one_row_and_ranks_have_equally_many_rows(lengths, ranks, rows, window):
    made = list(balanced_fit(lengths, 16, ranks=ranks, rows=rows, window=window))
    check_rows(lengths, made, 16)
    alone = len(made) % ranks  # fewer sequences than ranks, in the end
    assert all(len(row) == 1 for row in made[len(made) - alone :])


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("ranks", [8, 64])
def test_rows_are_as_full_as_those_of_best_fit_and_their_costs_are_equal_on_all_ranks(lengths, ranks):
    every = lengths(100_000)
    made = list(balanced_fit(every.tolist(), CAPACITY, ranks=ranks, cost=attention))
    check_rows(every, made, CAPACITY)
    fitted = list(best_fit(every.tolist(), CAPACITY))
    assert len(made) - ranks <= 1.01 * len(fitted)
    assert imbalance(every, made[: len(made) - ranks], ranks) < 1.02  # without the last step, in which rows have room
    assert imbalance(every, fitted[: len(fitted) // ranks * ranks], ranks) > 1.3


def imbalance(lengths, rows, ranks):
    """The costs of the dearest ranks over the mean ones, over all steps."""
    costs = attention(lengths)
    steps = np.array([sum(costs[index] for index, _, _ in row) for row in rows]).reshape(-1, ranks)
    return steps.max(1).sum() / steps.mean(1).sum()


def test_several_rows_for_each_rank_are_balanced_together():
    every = log_normal(50_000)
    made = list(balanced_fit(every.tolist(), CAPACITY, ranks=8, rows=4, cost=attention))
    costs = attention(every)
    whole = np.array([sum(costs[index] for index, _, _ in row) for row in made[: len(made) // 32 * 32]])
    ranks = whole.reshape(-1, 4, 8).sum(1)[:-1]  # row j of rank r at r + 8 j
    assert (ranks.max(1) / ranks.mean(1)).mean() < 1.012


def test_long_sequences_are_packed_as_tightly_as_by_best_fit():
    every = np.random.Generator(np.random.Philox(key=2)).choice([70, 50, 30, 25], 4000).tolist()
    assert len(list(balanced_fit(every, 100, ranks=8))) <= len(list(best_fit(every, 100)))


def test_sequences_with_several_lengths_fit_in_all_of_them():
    draw = np.random.Generator(np.random.Philox(key=3))
    pairs = list(zip(draw.integers(1, 60, 900).tolist(), draw.integers(0, 20, 900).tolist()))
    rows = list(balanced_fit(pairs, (100, 40), ranks=4, cost=lambda n: n[:, 0] + n[:, 1] ** 2))
    assert sorted(index for row in rows for index, _, _ in row) == list(range(900))
    assert len(rows) % 4 == 0
    assert all(sum(pairs[i][0] for i, _, _ in row) <= 100 and sum(pairs[i][1] for i, _, _ in row) <= 40 for row in rows)
    assert rows[0][0][1] == (0, 0)
    assert len(rows) <= 1.02 * len(list(best_fit(pairs, (100, 40))))


def test_whenever_it_reads_on_it_holds_the_last_sequences_and_nothing_else_matters():
    lengths = bimodal(3000).tolist()
    packer = partial(balanced_fit, ranks=4, rows=2, cost=attention, window=500)
    whole, read, given = [], 0, 0

    def feed():
        nonlocal read
        for read, length in enumerate(lengths):
            if whole and given < len(whole):
                anchors.append((read, len(whole)))
            yield length

    anchors = []
    for row in packer(feed(), CAPACITY):
        whole.append(row)
    given_of = [sum(len(row) for row in whole[:count]) for count in range(len(whole) + 1)]
    beginnings = sorted({count: given_of[count] for _, count in anchors}.items())
    assert len(beginnings) > 3
    for count, first in beginnings:
        assert sorted(index for row in whole[:count] for index, _, _ in row) == list(range(first))
        again = [[(index + first, *rest) for index, *rest in row] for row in packer(lengths[first:], CAPACITY)]
        assert again == whole[count:]


def test_a_window_that_makes_no_step_grows():
    rows = list(balanced_fit([5] * 64, 10, ranks=16, window=4))
    assert len(rows) == 32
    assert all(len(row) == 2 for row in rows)


def test_it_reads_no_more_than_its_window():
    read = []
    rows = balanced_fit((read.append(n) or 5 for n in range(10_000)), 10, ranks=2, window=100)
    next(rows)
    assert len(read) == 100


def test_steps_of_a_window_are_not_in_the_order_of_their_costs():
    every = log_normal(30_000)
    rows = list(balanced_fit(every.tolist(), CAPACITY, ranks=4, cost=attention, window=30_000))
    costs = attention(every)
    steps = np.array([sum(costs[index] for index, _, _ in row) for row in rows])[: len(rows) // 4 * 4].reshape(-1, 4)
    ranked = np.argsort(np.argsort(steps.mean(1)))
    assert abs(np.corrcoef(ranked, np.arange(len(ranked)))[0, 1]) < 0.15
    assert len(set(np.argmax(steps, 1).tolist())) == 4  # no rank has always the dearest row


def test_a_sequence_that_is_too_long_is_told():
    with pytest.raises(ValueError, match=r"balanced_fit\(\): a sequence of length 7 does not fit into a row of 6"):
        list(balanced_fit([3, 7, 2], 6))


def test_an_endless_stream_of_lengths_is_packed_window_by_window():
    endless = iter(lambda: 5, 0)
    assert len(list(islice(balanced_fit(endless, 10, ranks=8, window=64), 200))) == 200


def test_filling_never_leaves_a_row_empty():
    for n in range(1, 20):
        count, row = fill_some(np.full((20, 1), 5), np.full(20, 5), RowsToFill(n, 1, np.array([10])))
        assert count == min(2 * n, 20)
        assert set(row.tolist()) == set(range(n))


# Packed


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
@pytest.mark.timeout(120)
def test_laws_of_rows_packed_for_ranks(workers):
    rows = [np.full(n, n) for n in (bimodal(160) // 100 + 1).tolist()]
    how = partial(balanced_fit, ranks=3, rows=2, cost=attention, window=50)
    check(lambda: ff.pipe(rows, ff.shuffle(), ff.pack(100, how=how)), workers=[workers], stops=4)
    check(lambda: ff.pipe(rows, ff.filter(is_long), ff.pack(100, how=how)), workers=[workers], stops=3)


def is_long(row):
    return len(row) > 2


def test_packing_for_ranks_goes_on_from_its_window():
    read = []

    def note(length):
        read.append(length)
        return np.zeros(length, np.int32)

    def make():
        how = partial(balanced_fit, ranks=4, cost=attention, window=500)
        return ff.pipe(bimodal(10_000).tolist(), ff.map(note), ff.filter(is_long), ff.pack(CAPACITY, how=how))

    with make().run() as iterator:
        for _ in islice(iterator, 800):
            pass
        state = iterator.state_dict()
        following = next(iterator)
    read.clear()
    assert all(np.array_equal(a, b) for a, b in zip(next(iter(make().load_state_dict(state))), following))
    assert len(read) < 1200
    assert len(json.dumps(state)) < 1000


@pytest.mark.parametrize(("world", "taken"), [(4, 1), (16, 5)])
def test_rows_packed_for_8_ranks_go_on_under_other_worlds(world, taken):
    def flow(rank, world):
        rows = ff.pipe((bimodal(6000) // 16 + 1).tolist(), ff.shuffle(), ff.map(partial(np.full, fill_value=7)))
        how = partial(balanced_fit, ranks=8, cost=attention, window=2000)
        return ff.pipe(rows, ff.pack(520, how=how), ff.shard(rank, world), ff.map(segments))

    whole = list(flow(0, 1))
    states = []
    for rank in range(8):
        with flow(rank, 8).run() as iterator:
            assert list(islice(iterator, taken)) == whole[rank : 8 * taken : 8]
            states.append(json.loads(json.dumps(iterator.state_dict())))
    rest = [list(flow(rank, world).load_state_dict(states[rank % 8])) for rank in range(world)]
    assert rest == [whole[8 * taken + rank :: world] for rank in range(world)]


def segments(row):
    return row[1].tolist()


def test_each_rank_gets_its_step_from_rows_packed_for_all():
    lengths = bimodal(4000) // 16 + 1
    rows = [np.full(n, number) for number, n in enumerate(lengths.tolist(), 1)]
    how = partial(balanced_fit, ranks=4, rows=2, cost=attention, window=2000)
    ranks = [list(ff.pipe(rows, ff.pack(520, how=how), ff.shard(rank, 4), ff.batch(2))) for rank in range(4)]
    assert len({len(steps) for steps in ranks}) == 1
    assert sorted({number for steps in ranks for tokens, _, _ in steps for number in np.unique(tokens)} - {0}) == list(
        range(1, 4001)
    )
    costs = np.array([[cost_of(tokens, lengths) for tokens, _, _ in steps] for steps in ranks])[:, :-1]
    assert (costs.max(0) / costs.mean(0)).mean() < 1.01


def cost_of(tokens, lengths):
    return sum(attention(lengths[number - 1]) for number in np.unique(tokens) if number)


# Steps


@given(costs, st.integers(1, 4), st.integers(0, 9))
def test_every_share_is_dealt_once(numbers, ranks, key):
    one = np.array(numbers[: len(numbers) // ranks * ranks], np.int64)
    made = steps_of(one, ranks, key)
    assert made.shape == (len(one) // ranks, ranks)
    assert sorted(made.ravel().tolist()) == list(range(len(one)))


def test_shares_of_a_step_are_neighbours_in_cost():
    numbers = np.random.Generator(np.random.Philox(key=4)).permutation(40)
    assert np.all(np.ptp(numbers[steps_of(numbers, 4, key=1)], axis=1) == 3)
