"""Batches planned for all ranks: who gets what, what it costs them, and where it goes on."""

import json
import re
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lengths import CAPACITY, SHAPES, attention, bimodal, log_normal
from sources import Stream

import flowfn as ff
from flowfn.testing import check
from flowfn.vocabulary.planning import batch_by_cost


def told(lengths):
    """Datapoints that say how long they are, each with its number."""
    return [(number, length) for number, length in enumerate(lengths.tolist())]


def second(datapoint):
    return datapoint[1]


def kept(datapoint):
    return datapoint[0] % 7 != 3


def plan(source=None, **options):
    options = {"ranks": 4, "length": second, "collate": None} | options
    stage = batch_by_cost(attention, **options)
    return stage if source is None else stage(source)


def steps(flow, ranks):
    """The outputs of whole steps, and then of what is left."""
    outputs = list(flow)
    return [outputs[start : start + ranks] for start in range(0, len(outputs), ranks)]


def microbatches(output):
    """What a rank does, as a list of batches."""
    return output if isinstance(output[0], list) else [output]


def numbers(outputs):
    return sorted(number for output in outputs for batch in microbatches(output) for number, _ in batch)


def work(output):
    """The cost of what a rank does, nothing padded."""
    return sum(attention(np.array([length for _, length in batch])).sum() for batch in microbatches(output))


def padded_work(output):
    return sum(len(batch) * attention(max(length for _, length in batch)) for batch in microbatches(output))


PLANS = {
    "by size": {"size": 64},
    "by size, in microbatches that are padded": {"size": 64, "tokens": 20_000},
    "by size, in microbatches that are not": {"size": 64, "tokens": 20_000, "padded": False},
    "by size, in three microbatches": {"size": 64, "microbatches": 3},
    "by tokens, padded": {"tokens": 16_384, "window": 300},
    "by tokens": {"tokens": 16_384, "window": 300, "padded": False},
    "by tokens, in two microbatches, padded": {"tokens": 16_384, "window": 300, "microbatches": 2},
    "by tokens, in two microbatches": {"tokens": 16_384, "window": 300, "microbatches": 2, "padded": False},
    "by tokens, a window at a time that is too small": {"tokens": 16_384, "window": 5},
}
plans = pytest.mark.parametrize("options", PLANS.values(), ids=PLANS)


# What comes out


@plans
@pytest.mark.parametrize("n", [0, 1, 3, 4, 9, 63, 64, 65, 1000])
def test_a_plan_has_every_datapoint_once_and_equally_many_for_all_ranks(options, n):
    made = steps(plan(told(bimodal(n)), **options), 4)
    assert numbers(output for step in made for output in step) == list(range(n))
    for step in made:
        counts = {len(microbatches(output)) for output in step}
        assert len(counts) == 1
        assert len(step) == 4 or all(len(batch) == 1 for output in step for batch in microbatches(output))
    assert all(len(step) == 4 for step in made[:-1])


@plans
def test_no_batch_has_more_tokens_than_it_may(options):
    for output in plan(told(log_normal(1000)), **options) if "tokens" in options else ():
        for batch in microbatches(output):
            lengths = [length for _, length in batch]
            used = len(lengths) * max(lengths) if options.get("padded", True) else sum(lengths)
            assert used <= options["tokens"]


@pytest.mark.parametrize("options", [one for one in PLANS.values() if "size" in one])
def test_a_plan_by_size_keeps_the_order_of_its_source(options):
    made = steps(plan(told(bimodal(640)), **options), 4)
    for number, step in enumerate(made):
        assert numbers(step) == list(range(64 * number, 64 * (number + 1)))
        assert {sum(map(len, microbatches(output))) for output in step} == {16}


def test_microbatches_are_as_few_as_can_be():
    (step,) = steps(plan([(n, 60) for n in range(8)], ranks=2, size=8, tokens=120), 2)
    assert [[len(batch) for batch in output] for output in step] == [[2, 2], [2, 2]]
    (step,) = steps(plan([(n, length) for n, length in enumerate([90, 30, 60, 60])], ranks=1, size=4, tokens=120), 1)
    assert [sorted(len(batch) for batch in output) for output in step] == [[1, 1, 2]]  # padded: 90 | 60 60 | 30
    (step,) = steps(
        plan([(n, length) for n, length in enumerate([90, 30, 60, 60])], ranks=1, size=4, tokens=120, padded=False), 1
    )
    assert [len(batch) for output in step for batch in output] == [2, 2]  # 90 + 30, 60 + 60


def test_all_ranks_have_as_many_microbatches_as_the_one_that_needs_most():
    lengths = [100, 100, 1, 1]  # one rank may get both long ones, if their cost says so
    stage = batch_by_cost(lambda n: np.where(n > 50, 1, 2), ranks=2, length=second, size=4, tokens=100, collate=None)
    (step,) = steps(stage([(n, length) for n, length in enumerate(lengths)]), 2)
    assert {len(output) for output in step} == {2}


def test_what_is_left_in_the_end_makes_a_smaller_step_and_then_one_for_each():
    made = steps(plan(told(np.full(9 + 6 + 1, 5)), ranks=3, size=9), 3)
    assert [[len(output) for output in step] for step in made] == [[3, 3, 3], [2, 2, 2], [1]]
    made = steps(plan(told(np.full(9 + 6 + 1, 5)), ranks=3, size=9, drop_remainder=True), 3)
    assert [[len(output) for output in step] for step in made] == [[3, 3, 3]]
    made = steps(plan(told(np.full(100, 5)), ranks=3, tokens=50, drop_remainder=True, window=40), 3)
    assert [[len(output) for output in step] for step in made] == [[10, 10, 10]] * 3


def test_batches_are_collated_as_those_of_batch():
    rows = [np.full(n, n) for n in (1, 3, 2, 2)]
    made = list(batch_by_cost(lambda n: n, rows, ranks=2, size=4))
    assert sorted(batch.tolist() for batch in made) == [[[1, 0, 0], [3, 3, 3]], [[2, 2], [2, 2]]]
    made = list(batch_by_cost(lambda n: n, [{"x": row} for row in rows], ranks=1, length="x", size=4, tokens=6))
    assert [batch["x"].shape for batch in made[0]] == [(2, 2), (1, 3), (1, 1)] or len(made[0]) == 2


def test_datapoints_can_be_planned_on_and_loaded_later():
    flow = ff.pipe(
        told(bimodal(300)),
        plan(tokens=16_384, window=200, microbatches=2),
        ff.shard(1, 4),
        ff.inside(
            ff.inside(ff.map(lambda datapoint: np.zeros(datapoint[1], np.int32)), ff.batch(99, collate=ff.pad(0)))
        ),
    )
    for output in flow:
        assert [batch[0].size <= 16_384 for batch in output] == [True, True]


# Balance


def imbalance(made, cost):
    costs = np.array([[cost(output) for output in step] for step in made])
    return costs.max(1).sum() / costs.mean(1).sum()


@pytest.mark.parametrize("lengths", SHAPES)
def test_steps_of_512_on_8_ranks_are_balanced_where_those_that_come_first_are_not(lengths):
    source = told(lengths(512 * 40))
    assert imbalance(steps(plan(source, ranks=8, size=512), 8), work) < 1.001
    first = [source[start : start + 64] for start in range(0, len(source), 64)]
    assert imbalance([first[start : start + 8] for start in range(0, len(first), 8)], work) > 1.15


@pytest.mark.parametrize("lengths", SHAPES)
@pytest.mark.parametrize("ranks", [8, 64])
@pytest.mark.parametrize("options", [{}, {"padded": False}, {"microbatches": 2}])
def test_steps_by_tokens_are_balanced_on_8_and_64_ranks(lengths, ranks, options):
    made = steps(plan(told(lengths(200_000)), ranks=ranks, tokens=16_384, **options), ranks)
    whole = made[:-2]  # in the end there may be a smaller step, and one for each
    assert imbalance(whole, padded_work if options.get("padded", True) else work) < 1.02


@pytest.mark.parametrize("lengths", SHAPES)
def test_little_is_padded(lengths):
    made = list(plan(told(lengths(50_000)), ranks=8, tokens=16_384))
    used = sum(length for output in made for _, length in output)
    laid_out = sum(len(output) * max(length for _, length in output) for output in made)
    assert used / laid_out > 0.95
    batches = sum(len(output) * max(length for _, length in output) for output in made) / len(made)
    assert batches > 0.85 * 16_384


def test_steps_come_in_another_order_in_each_epoch():
    flow = plan(told(log_normal(20_000)), tokens=16_384)
    one, other = (list(flow.run(epoch=epoch)) for epoch in (0, 1))
    assert one != other
    assert numbers(one) == numbers(other)
    longest = np.array([max(length for _, length in output) for output in one[: len(one) // 4 * 4 : 4]])
    assert abs(np.corrcoef(np.arange(len(longest)), np.argsort(np.argsort(longest)))[0, 1]) < 0.15


def test_no_rank_has_always_the_dearest_share():
    made = steps(plan(told(log_normal(20_000)), tokens=16_384), 4)
    dearest = [int(np.argmax([padded_work(output) for output in step])) for step in made]
    assert min(dearest.count(rank) for rank in range(4)) > len(made) / 8


# Memory, and where it goes on


@plans
def test_laws(options):
    check(lambda: ff.pipe(told(bimodal(400)), plan(**options)), workers=[{}], stops=6)
    check(lambda: ff.pipe(told(bimodal(500)), ff.filter(kept), plan(**options)), workers=[{}], stops=6)


@pytest.mark.parametrize("way", ["by size, in microbatches that are padded", "by tokens"])
@pytest.mark.parametrize("workers", [{"threads": 2}, {"processes": 2}], ids=str)
@pytest.mark.timeout(120)
def test_laws_with_workers(workers, way):
    check(lambda: ff.pipe(told(bimodal(400)), ff.filter(kept), plan(**PLANS[way])), workers=[workers], stops=4)


@pytest.mark.timeout(60)
def test_laws_of_batches_that_are_collated_in_workers():
    rows = [np.full(int(n) % 50 + 1, n) for n in bimodal(300)]
    check(
        lambda: ff.pipe(rows, ff.shuffle(), batch_by_cost(attention, ranks=3, tokens=200, window=60)),
        workers=[{"processes": 2}],
        stops=4,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 16), max_size=80),
    st.integers(1, 4),
    st.one_of(
        st.integers(1, 5).map(lambda n: {"size": n}),
        st.tuples(st.integers(1, 5), st.booleans()).map(lambda a: {"size": a[0], "tokens": 20, "padded": a[1]}),
        st.tuples(st.integers(1, 3), st.booleans(), st.integers(1, 40)).map(
            lambda a: {"tokens": 20, "microbatches": a[0], "padded": a[1], "window": a[2]}
        ),
    ),
    st.integers(0, 40),
)
def test_any_plan_is_whole_and_goes_on_anywhere(lengths, ranks, options, k):
    options = options | ({"size": options["size"] * ranks} if "size" in options else {})

    def make():
        return plan(Stream(told(np.array(lengths, np.int64))), ranks=ranks, **options)

    whole = list(make())
    assert numbers(whole) == list(range(len(lengths)))
    with make().run() as iterator:
        before = list(islice(iterator, k))
        state = json.loads(json.dumps(iterator.state_dict()))
    with iter(make().load_state_dict(state)) as iterator:
        assert before + (list(iterator) if k <= len(whole) else []) == whole


@plans
@pytest.mark.parametrize(("world", "taken"), [(4, 1), (4, 5), (16, 3), (1, 0)])
def test_a_plan_for_8_ranks_goes_on_under_other_worlds(options, world, taken):
    def flow(rank, world):
        return ff.pipe(told(bimodal(1500)), ff.shuffle(), plan(ranks=8, **options), ff.shard(rank, world), ff.map(list))

    whole = list(flow(0, 1))
    iterators = [flow(rank, 8).run() for rank in range(8)]
    begun = [list(islice(iterator, taken)) for iterator in iterators]
    states = [json.loads(json.dumps(iterator.state_dict())) for iterator in iterators]
    rest = [list(flow(rank, world).load_state_dict(states[rank % 8])) for rank in range(world)]
    count = 8 * taken
    assert whole[:count] == [begun[number % 8][number // 8] for number in range(count)]
    assert rest == [whole[count + rank :: world] for rank in range(world)]
    assert len(json.dumps(states[0])) < 1000


def test_going_on_reads_one_window_and_collates_nothing_that_was_given():
    read, joined = [], []

    def note(datapoint):
        read.append(datapoint[0])
        return datapoint

    def join(values):
        joined.append(values)
        return list(values)

    def make():
        return ff.pipe(
            told(bimodal(20_000)), ff.map(note), ff.filter(kept), plan(tokens=16_384, window=1000, collate=join)
        )

    with make().run() as iterator:
        outputs = [next(iterator) for _ in range(900)]
        state = iterator.state_dict()
        following = next(iterator)
    read.clear()
    joined.clear()
    assert len(outputs) == 900
    assert next(iter(make().load_state_dict(state))) == following
    assert len(read) < 1000 / 6 * 7 + 600
    assert len(joined) == 2  # its two components


def test_no_more_than_a_window_is_held():
    read = []
    endless = ff.pipe(ff.cycle([(0, 5)]), ff.map(lambda datapoint: read.append(1) or datapoint))
    with plan(endless, ranks=2, tokens=10, window=100).run() as iterator:
        next(iterator)
        assert len(read) == 100
        for _ in range(10_000):
            next(iterator)
        assert len(read) <= 2 * 10_001 + 100


@pytest.mark.parametrize("padded", [True, False])
def test_endless_empty_datapoints_make_steps(padded):
    endless = ff.pipe(ff.cycle([(0, 0)]), plan(ranks=2, tokens=10, window=100, padded=padded))
    with endless.run() as iterator:
        assert [len(next(iterator)) for _ in range(3)] == [10, 10, 10]


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "size must be a multiple of ranks"),
        ({"size": 6}, "size must be a multiple of ranks"),
        ({"size": 8, "window": 20}, "window must be a positive integer, or None; with size= None"),
        ({"size": 8, "microbatches": 3}, "microbatches must be a positive integer, or None; with size= at most"),
        ({"size": 8, "tokens": 9, "microbatches": 2}, "None where tokens= says how many there are"),
        ({"tokens": 0}, "tokens must be a positive integer or None, got 0"),
        ({"ranks": 0, "size": 4}, "ranks must be a positive integer, got 0"),
        ({"tokens": 5, "padded": 1}, "padded must be True or False"),
        ({"tokens": 5, "length": 1.5}, "length must be a function of a datapoint"),
    ],
)
def test_wrong_arguments_are_told(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        plan(**options)


def test_what_cannot_be_planned_is_told():
    with pytest.raises(ValueError, match=r"batch_by_cost\(\): a datapoint of length 9000 is longer than tokens=8000"):
        list(plan([(0, 9000)], tokens=8000))
    with pytest.raises(TypeError, match=r"batch_by_cost\(\): a length must be an integer >= 0, got 1.5"):
        list(plan([(0, 1.5)], tokens=8000))
    with pytest.raises(ValueError, match=r"batch_by_cost\(\): cost must be a function of an array of lengths"):
        list(batch_by_cost(lambda n: 3, [[1], [2, 3]], ranks=2, size=2))


LENGTHS = [
    (len, {"tokens": [1, 2]}, "the len of a dict is how many keys it has, got {'tokens': [1, 2]}; write the key of"),
    (len, 3, "a datapoint must have a len, got 3; write a function where it says itself how long it is"),
    ("n", {"n": 3}, "component 'n' of a datapoint must have a len, got 3; write a function where it says itself how "),
]


@pytest.mark.parametrize(("length", "datapoint", "message"), LENGTHS)
def test_a_length_that_is_none_is_told_with_what_to_write(length, datapoint, message):
    flows = [
        batch_by_cost(attention, [datapoint], ranks=1, size=1, length=length),
        ff.batch_by_length(length, [datapoint], tokens=9),
        ff.mix({"a": [datapoint]}, unit=length),
    ]
    for flow in flows:
        with pytest.raises(TypeError, match="^" + re.escape(message)):
            list(flow)
    with pytest.raises(TypeError, match="^" + re.escape(message)):
        ff.balance(ff.batch(1, [datapoint]), ranks=1, cost=attention, length=length)


def test_a_state_of_other_data_is_told():
    with plan(told(np.full(400, 50)), tokens=100, window=400).run() as iterator:
        next(islice(iterator, 150, None))
        state = iterator.state_dict()
    with pytest.raises(ValueError, match="the state says that 151 outputs of a window were given"):
        list(plan(told(np.full(400, 5)), tokens=100, window=400).load_state_dict(state))


def test_capacity_is_that_of_the_lengths():
    assert max(log_normal(100_000)) == CAPACITY
