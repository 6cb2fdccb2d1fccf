"""How equally work is divided: told from a plan, of all ranks, without loading anything."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
from lengths import attention, log_normal

import flowfn as ff


def itself(n):
    return n


def second(datapoint):
    return datapoint[1]


def told(n):
    return list(enumerate(log_normal(n).tolist()))


def square(n):
    return n * n


def tokens_of(datapoint):
    return np.zeros(datapoint[1], np.int32)


planned = partial(ff.batch_by_cost, attention, length=second, ranks=8, collate=None)


def test_costs_tokens_and_padding_of_every_step_and_rank():
    flow = ff.batch_by_cost(square, [7, 1, 1, 5, 2, 2, 1, 9], length=itself, ranks=2, size=4, collate=None)
    seen = ff.balance(flow)
    assert sorted(seen.costs[0]) == [26, 50]  # 7 1 | 1 5
    assert sorted(seen.costs[1]) == [8, 82]  # 1 9 | 2 2
    assert sorted(seen.tokens.ravel()) == [4, 6, 8, 10]
    assert sorted(seen.space.ravel()) == [4, 10, 14, 18]
    assert seen.imbalance.tolist() == [50 / 38, 82 / 45]
    assert seen.slowdown == (50 + 82) / (38 + 45)
    assert seen.padding.tolist() == [1 - 14 / 24, 1 - 14 / 22]


def test_of_batches_that_are_padded_each_datapoint_costs_as_much_as_the_longest():
    seen = ff.balance(
        ff.batch_by_cost(square, [3, 3, 2, 2], length=itself, ranks=2, tokens=6, collate=None), steps=None
    )
    assert sorted(seen.costs.ravel()) == [8, 18]
    seen = ff.balance(ff.batch_by_cost(square, [3, 2], length=itself, ranks=1, tokens=6, collate=None))
    assert (seen.costs.tolist(), seen.tokens.tolist(), seen.space.tolist()) == ([[18]], [[5]], [[6]])


def test_it_is_seen_what_the_flow_gives_in_its_epoch():
    flow = ff.pipe(told(3000), ff.shuffle(), planned(tokens=16_384)).reset_state(5).set_epoch(3)
    seen = ff.balance(flow, None)
    assert flow.epoch == 3
    costs = [len(batch) * attention(max(n for _, n in batch)) for batch in flow]
    assert np.allclose(seen.costs.ravel()[: len(costs)], costs)


def test_nothing_behind_the_plan_runs_and_no_batch_is_made():
    def fail(values):
        raise AssertionError("this was run")

    flow = ff.pipe(
        told(2000),
        ff.batch_by_cost(attention, length=second, ranks=4, size=64, collate=fail),
        ff.shard(1, 4),
        ff.map(fail),
        ff.prefetch(2),
    )
    assert ff.balance(flow).costs.shape == (32, 4)


def test_a_plan_is_better_than_what_comes_first():
    source = told(20_000)
    first = ff.balance(ff.batch(64, source), None, ranks=8, cost=attention, length=second)
    plan = ff.balance(planned(source, size=512), None)
    assert first.slowdown > 1.3 > 1.01 > plan.slowdown


def test_rows_are_seen_in_the_steps_for_which_they_were_packed():
    how = partial(ff.balanced_fit, ranks=8, rows=2, cost=attention)
    flow = ff.pipe(told(10_000), ff.map(tokens_of), ff.pack(8192, how=how), ff.shard(3, 8), ff.batch(2))
    seen = ff.balance(flow, steps=20)
    assert seen.costs.shape == (20, 8)
    assert np.all(seen.space == 2 * 8192)
    assert seen.slowdown < 1.02
    assert seen.padding.max() < 0.02
    plain = ff.pipe(told(10_000), ff.map(tokens_of), ff.pack(8192))
    assert ff.balance(plain, 20, ranks=8, cost=attention).slowdown > 1.2


def test_rows_packed_for_ranks_are_seen_without_naming_the_packer():
    flow = ff.pipe(told(10_000), ff.map(tokens_of), ff.pack(8192, ranks=8, cost=attention), ff.shard(3, 8))
    seen = ff.balance(flow, steps=20)
    assert seen.costs.shape == (20, 8)
    assert seen.slowdown < 1.02


def test_rows_of_components_with_lengths_of_their_own_are_seen():
    rows = [{"a": np.ones(n), "b": np.ones(2 * n)} for n in (1, 2, 3, 3)]
    how = partial(ff.balanced_fit, ranks=2, cost=lambda n: n[:, 0] * n[:, 1])
    seen = ff.balance(ff.pack({"a": 5, "b": 10}, rows, how=how))
    assert seen.costs.sum() == 2 + 8 + 18 + 18
    assert seen.tokens.sum() == 3 * 9
    assert seen.space.tolist() == [[15, 15]]


def test_of_an_iterator_it_is_seen_what_each_rank_has_been_given():
    source, given = told(4000), []
    for rank in range(8):
        flow = ff.pipe(source, ff.shuffle(), planned(size=64), ff.shard(rank, 8), ff.prefetch(2))
        with iter(flow) as iterator:
            given.append(sum(attention(np.array([n for _, n in batch])).sum() for batch in islice(iterator, 10)))
            seen = ff.balance(iterator)
    assert np.allclose(seen.delivered, given)
    assert np.isclose(seen.expected, np.mean(given))
    assert seen.costs.shape == (10, 8)


def test_of_an_iterator_in_another_world_it_is_seen_for_its_ranks():
    flow = ff.pipe(told(4000), planned(size=64), ff.shard(1, 4), ff.batch(2, collate=None))
    with iter(flow) as iterator:
        for _ in islice(iterator, 6):
            pass
        seen = ff.balance(iterator)
    assert seen.costs.shape == (6, 8)  # 6 batches of 2 outputs for each of 4 ranks
    assert seen.delivered.shape == (4,)
    assert np.isclose(seen.delivered.sum(), seen.costs.sum())


def test_of_a_pass_that_has_ended_everything_is_seen():
    iterator = iter(planned(told(640), size=64))
    assert len(list(iterator)) == 80
    assert ff.balance(iterator).costs.shape == (10, 8)


def test_in_rounds_it_is_the_first_that_is_seen():
    flow = ff.pipe(told(1000), ff.shuffle(), planned(size=64), ff.cycle())
    assert ff.balance(flow, steps=2).costs.shape == (2, 8)
    frozen = ff.pipe(told(1000), ff.shuffle(), planned(size=64), ff.freeze(seed=4))
    costs = [sum(attention(n) for _, n in batch) for batch in islice(frozen, 16)]
    assert np.allclose(ff.balance(frozen, steps=2).costs.ravel(), costs)


def test_it_is_printed_as_a_table_with_a_histogram():
    seen = ff.balance(planned([(n, 10) for n in range(128)], size=64))
    assert repr(seen) == (
        "balance of 2 steps on 8 ranks\n"
        "  most over mean cost  1.0000 in the mean, 1.0000 at most, 1.0000 of all\n"
        "  padding              0.00%\n"
        "  tokens in a step     640 in the mean, 640 to 640\n"
        "  1.000 to 1.001  2  ########################################"
    )
    with iter(planned([(n, 10) for n in range(128)], size=64)) as iterator:
        next(iterator)
        lines = repr(ff.balance(iterator)).splitlines()
    assert lines[-8:-6] == [
        "  rank 0    expected 10.0244, delivered 80.1953 (8.0000)",
        "  rank 1    expected 10.0244, delivered 0 (0.0000)",
    ]
    assert repr(ff.balance(planned([], size=64))) == "balance of 0 steps on 8 ranks"
    assert ff.balance(planned([], size=64)).histogram() == "no steps"


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (lambda: ff.flow([1]), "there must be a batch_by_cost, a pack or another word for batches"),
        (lambda: ff.batch(2, [1]), "is planned for no ranks; write"),
        (lambda: ff.pack(2, [[1]]), "is planned for no ranks; write"),
        (lambda: ff.pipe(told(9), ff.shard(0, 2), planned(size=8)), "comes behind a shard"),
        (lambda: iter(ff.pipe(told(9), planned(size=8), ff.filter(len))), "nothing but map-like stages, batch"),
    ],
)
def test_what_cannot_be_seen_is_told(flow, message):
    with pytest.raises(ValueError, match=message):
        ff.balance(flow())
