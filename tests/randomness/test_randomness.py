"""Random numbers: permutations, generators, and keys. Nothing depends on who computes it;
everything on seed and epoch."""

import itertools
import math
import random
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from sources import streamed

import flowfn as ff
from flowfn.randomness.generators import (
    UNIFORM_BELOW,
    Network,
    Permutation,
    WindowPermutation,
    generator,
    generators,
    hashed,
    rekey,
)

POWERS = [2**k + d for k in range(1, 21) for d in (-1, 0, 1)]


def is_bijection(values, n):
    """Whether values are 0 to n - 1, each once (without sorting)."""
    return len(values) == n and (
        n == 0 or (values.min() >= 0 and values.max() < n and bool((np.bincount(values, minlength=n) == 1).all()))
    )


def draw(x, rng):
    return x, int(rng.integers(2**62))


def draws(flow):
    return [number for _, number in flow]


def chi_square(counts):
    """Standard deviations by which the chi-square statistic of counts lies from what even counts would give."""
    counts = np.asarray(counts, float)
    expected, freedom = counts.mean(), counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


# Permutations


def test_a_permutation_is_a_bijection_for_every_small_n():
    for n in range(2001):
        assert is_bijection(Permutation(n, key=n)[np.arange(n)], n)


def test_the_network_is_a_bijection_for_every_small_n():
    for n in range(1, 2001):
        assert is_bijection(Network(n, key=n)(np.arange(n, dtype=np.uint64)).astype(np.int64), n)


@pytest.mark.parametrize("n", POWERS)
def test_a_permutation_is_a_bijection_around_powers_of_two(n):
    assert is_bijection(Permutation(n, key=1)[np.arange(n)], n)
    assert is_bijection(Network(n, key=2)(np.arange(n, dtype=np.uint64)).astype(np.int64), n)


@pytest.mark.parametrize("n", [65_537, 99_991, 300_007, 2**17, 317**2, 317**2 + 1, 10**6])
def test_a_permutation_is_a_bijection_for_awkward_n(n):
    assert is_bijection(Permutation(n, key=3)[np.arange(n)], n)


def test_a_tweaked_network_is_another_bijection_for_each_tweak():
    n = 37
    orders = [
        tuple(Network(n, key=1)(np.arange(n, dtype=np.uint64), np.full(n, tweak, np.uint64)).tolist())
        for tweak in range(50)
    ]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert len(set(orders)) == 50


def test_a_network_leaves_its_input_alone():
    x = np.arange(1000, dtype=np.uint64)
    x.flags.writeable = False
    Network(1000, key=1)(x)
    assert (x == np.arange(1000)).all()


@pytest.mark.parametrize("n", [*range(0, 70), 100, 1000, 1023, 1025, 5000])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 7, 8, 64, 10_000])
def test_a_window_permutation_is_a_bijection_that_moves_nothing_by_the_window_or_more(n, window):
    order = WindowPermutation(n, window, key=5)[np.arange(n)]
    assert is_bijection(order, n)
    assert n == 0 or np.abs(order - np.arange(n)).max() < window


@pytest.mark.parametrize("window", [16, 100])
def test_a_window_permutation_moves_things_across_any_boundary(window):
    n = 10_000
    order = WindowPermutation(n, window, key=5)[np.arange(n)]
    assert np.abs(order - np.arange(n)).mean() > window / 8
    # no place splits the order in two, but by chance (in a tile of 8, one time in 70)
    for phase in range(0, window, window // 8):
        assert np.mean([order[:at].max() >= at for at in range(window + phase, n - window, window)]) > 0.9


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 2000, UNIFORM_BELOW, UNIFORM_BELOW + 1, 2**17 + 1])
def test_shuffle_gives_every_datapoint_once(n):
    assert sorted(ff.shuffle(range(n))) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 100, 70_000])
@pytest.mark.parametrize("window", [None, 1, 5, 1000])
def test_shuffle_with_and_without_a_window_reads_alike_in_every_way(n, window):
    flow = ff.shuffle(range(n), window=window)
    whole = list(flow.run(epoch=0))
    assert sorted(whole) == list(range(n))
    places = random.Random(1).sample(range(n), min(n, 50))
    assert [flow[i] for i in places] == flow.__getitems__(places) == [whole[i] for i in places]
    assert list(flow[:: -max(n // 50, 1)]) == whole[:: -max(n // 50, 1)]
    if window is not None:
        assert max(abs(i - x) for i, x in enumerate(whole)) < window


@pytest.mark.parametrize("n", [1000, 100_000])
def test_blocks_single_indices_and_slices_agree(n):
    order = Permutation(n, key=9)
    whole = order[np.arange(n)]
    assert (order[:] == whole).all()
    assert (order[n - 1 : 10 : -7] == whole[n - 1 : 10 : -7]).all()
    assert [int(order[np.array([i])][0]) for i in range(0, n, n // 20)] == whole[:: n // 20].tolist()


@pytest.mark.parametrize("n", [20, 1000, 100_000])
def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else(n):
    flow = ff.shuffle(range(n))
    runs = [(seed, epoch) for seed in range(4) for epoch in range(4)]
    orders = {run: tuple(flow.run(seed=run[0], epoch=run[1])) for run in runs}
    assert len(set(orders.values())) == len(runs)
    assert all(
        tuple(ff.shuffle(list(range(n))).run(seed=seed, epoch=epoch)) == order
        for (seed, epoch), order in orders.items()
    )


def test_the_first_orders_are_what_they_were():
    # stream order is versioned: a change here needs a new ORDER_VERSION
    from flowfn.randomness.generators import ORDER_VERSION

    assert ORDER_VERSION == 1
    assert list(ff.shuffle(range(8)).run(seed=0, epoch=0)) == list(ff.shuffle(range(8)))
    # the table: sort keys that are raw Philox bits with the index as low bits; up to 65 536 a few have halves alike
    for n, key in [(8, 1), (4097, 2), *((65_536, key) for key in range(4))]:
        low = np.uint64((n - 1).bit_length())
        keys = np.random.Philox(key=key).random_raw(n) >> low << low | np.arange(n, dtype=np.uint64)
        assert (Permutation(n, key=key)[:] == np.argsort(keys)).all()


def test_shuffling_a_thousand_million_takes_no_memory():
    ff.pipe(range(10), ff.shuffle(), ff.take(10))
    tracemalloc.start()
    try:
        first = list(ff.pipe(range(10**9), ff.shuffle(), ff.take(10)))
        one = ff.shuffle(range(10**12))[10**11]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(first)) == 10
    assert max(first) > 10**7
    assert 0 <= one < 10**12
    assert peak < 2**20


def test_a_window_over_a_thousand_million_takes_no_memory():
    tracemalloc.start()
    try:
        part = list(ff.shuffle(range(10**9), window=10_000)[10**8 : 10**8 + 1000])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(part)) == 1000
    assert max(abs(x - 10**8 - i) for i, x in enumerate(part)) < 10_000
    assert peak < 2**20


@pytest.mark.parametrize("n", [2**32 - 1, 2**32, 2**32 + 1, 2**40 + 3, 2**62])
def test_large_permutations_stay_in_range_and_do_not_collide(n):
    at = np.array([0, n - 1, *range(1, n - 1, n // 20_000)])
    values = Permutation(n, key=11)[at]
    assert values.min() >= 0
    assert int(values.max()) < n
    assert len(np.unique(values)) == len(at)


# Statistics, with fixed seeds. Bounds are five standard deviations: they fail for a broken generator, not by chance.


def small_orders(n, count, key=0):
    return np.stack([Permutation(n, hashed("test", key, k))[np.arange(n)] for k in range(count)])


def network_orders(n, count):
    return np.stack(
        [Network(n, hashed("test", k))(np.arange(n, dtype=np.uint64)).astype(np.int64) for k in range(count)]
    )


@pytest.mark.parametrize("orders", [small_orders, network_orders], ids=["table", "network"])
@pytest.mark.parametrize("n", [16, 60])
def test_every_datapoint_comes_to_every_place_equally_often(orders, n):
    many = orders(n, 6000)
    counts = np.zeros((n, n))
    for place in range(n):
        counts[place] = np.bincount(many[:, place], minlength=n)
    assert abs(chi_square(counts)) < 5


def test_small_orders_are_uniform_among_all():
    many = small_orders(4, 24_000)
    codes = {order: number for number, order in enumerate(itertools.permutations(range(4)))}
    counts = np.bincount([codes[tuple(order)] for order in many.tolist()], minlength=24)
    assert abs(chi_square(counts)) < 5


@pytest.mark.parametrize("n", [60_000, 65_537, 200_000])
def test_places_are_uniform_in_large_orders(n):
    order = Permutation(n, key=17)[np.arange(n)]
    cells = np.histogram2d(np.arange(n), order, bins=50, range=[[0, n], [0, n]])[0]
    assert abs(chi_square(cells)) < 5


@pytest.mark.parametrize("n", [1000, 60_000, 65_537, 200_000, 10**6])
@pytest.mark.parametrize("lag", [1, 2, 7, 256])
def test_neighbours_are_uncorrelated(n, lag):
    order = Permutation(n, key=23)[np.arange(n)].astype(float)
    correlation = np.corrcoef(order[:-lag], order[lag:])[0, 1]
    assert abs(correlation) * math.sqrt(n) < 5


@pytest.mark.parametrize("n", [60_000, 200_000])
def test_steps_between_neighbours_are_spread_evenly(n):
    order = Permutation(n, key=29)[np.arange(n)]
    steps = np.diff(order) % n
    assert abs(chi_square(np.bincount(steps * 64 // n, minlength=64))) < 5


@pytest.mark.parametrize("n", [1000, 60_000, 200_000])
def test_seeds_and_epochs_give_unrelated_orders(n):
    flow = ff.shuffle(range(n))
    orders = [
        np.array(list(flow.run(seed=seed, epoch=epoch)), float)
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
    ]
    for one, other in itertools.combinations(orders, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) * math.sqrt(n) < 5
        assert (one == other).sum() < 12  # the number of fixed points of a random permutation is Poisson(1)


def test_fixed_points_are_as_rare_as_they_should_be():
    order = [
        int((Network(n, hashed(n))(np.arange(n, dtype=np.uint64)) == np.arange(n)).sum()) for n in range(1000, 2000)
    ]
    assert abs(np.mean(order) - 1) * math.sqrt(len(order)) < 5


def test_draws_are_uniform_over_datapoints_and_unrelated_between_neighbours():
    flow = ff.map(lambda x, rng: rng.random(), range(20_000), rng=True)
    numbers = np.array(list(flow.run(seed=1)))
    assert abs(chi_square(np.histogram(numbers, bins=100, range=(0, 1))[0])) < 5
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) * math.sqrt(len(numbers)) < 5
    other = np.array(list(flow.run(seed=2)))
    assert abs(np.corrcoef(numbers, other)[0, 1]) * math.sqrt(len(numbers)) < 5


def test_shuffle_buffer_spreads_evenly_within_its_reach():
    places = [list(ff.shuffle_buffer(8, range(8)).run(epoch=epoch)).index(0) for epoch in range(8000)]
    assert abs(chi_square(np.bincount(places, minlength=8))) < 5


# Generators


def test_neighbours_never_share_numbers():
    raw = [rng.bit_generator.random_raw(1000).tolist() for rng in generators(7, [0, 1, 2, (0, 1), (1, 1), (1, 0x7FFF)])]
    assert raw[1] != raw[0]
    seen = list(itertools.chain(*raw))
    assert len(set(seen)) == len(seen)


def test_the_words_of_the_counter_are_draws_sub_index_index_and_zero():
    # Philox at counter c gives four numbers of c + 1: draw k of a label is the block (k // 4 + 1, sub, index, 0)
    for label, (sub, index) in {5: (0, 5), (5, 3): (3, 5)}.items():
        (rng,) = generators(99, [label])
        expected = np.random.Philox(key=99, counter=[0, sub, index, 0])
        assert rng.bit_generator.random_raw(50).tolist() == expected.random_raw(50).tolist()
        moved = generator(99)
        moved.random(17)
        rekey(moved, label)
        assert (
            moved.bit_generator.random_raw(8).tolist()
            == np.random.Philox(key=99, counter=[0, sub, index, 0]).random_raw(8).tolist()
        )


@pytest.mark.parametrize("greedy", [0, 1, 3, 4, 5, 1000])
def test_how_much_one_datapoint_draws_does_not_move_its_neighbours(greedy):
    def drawn(x, rng):
        if x == 2:
            rng.random(greedy, np.float32)  # an odd number leaves half a word behind
            rng.integers(0, 10, dtype=np.int32)
        return rng.integers(0, 2**31, dtype=np.int32), rng.random(), rng.standard_normal()

    flow = ff.map(drawn, range(6), rng=True)
    quiet = ff.map(
        lambda x, rng: (rng.integers(0, 2**31, dtype=np.int32), rng.random(), rng.standard_normal()), range(6), rng=True
    )
    assert [x for i, x in enumerate(flow) if i != 2] == [x for i, x in enumerate(quiet) if i != 2]


@pytest.mark.parametrize("make", [lambda d: ff.flow(d), streamed], ids=["sequence", "stream"])
@pytest.mark.parametrize("stage", ["map", "filter", "filter_map", "flat_map", "map_component"])
def test_every_random_word_is_the_same_again_and_new_in_each_epoch(stage, make):
    stages = {
        "map": ff.map(draw, rng=True),
        "filter": ff.filter(lambda x, rng: rng.random() < 0.5, rng=True),
        "filter_map": ff.filter_map(lambda x, rng: x if rng.random() < 0.5 else None, rng=True),
        "flat_map": ff.flat_map(lambda x, rng: rng.integers(0, 99, rng.integers(3)).tolist(), rng=True),
        "map_component": ff.map_component(draw, 0, rng=True),
    }
    flow = ff.pipe(make([[i] for i in range(200)]), stages[stage])
    first, second = list(flow), list(flow)
    assert first == list(flow.run(epoch=0))
    assert first != second == list(flow.run(epoch=1))
    assert first != list(flow.run(seed=1, epoch=0))
    assert first == list(ff.pipe([[i] for i in range(200)], stages[stage]))  # over sequences and streams alike


def test_global_random_state_is_left_alone():
    np.random.seed(1)
    random.seed(1)
    before = np.random.get_state()[1].tolist(), random.getstate()
    flow = ff.pipe(
        range(100),
        ff.shuffle(),
        ff.map(draw, rng=True),
        ff.shuffle_buffer(9),
        ff.filter(lambda x, rng: rng.random() > 0, rng=True),
    )
    flow.reset_state()
    list(flow)
    ff.split(range(10), 0.5)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before


def test_a_random_datapoint_does_not_depend_on_who_reads_it():
    flow = ff.pipe(range(100), ff.shuffle(), ff.map(draw, rng=True))
    whole = list(flow.run(epoch=0))
    assert [flow[i] for i in reversed(range(100))] == whole[::-1]
    assert list(flow[20:60:3]) == whole[20:60:3]
    assert list(flow.run(epoch=0, start=77)) == whole[77:]


# Keys


def test_two_random_branches_differ():
    flow = ff.zip(ff.map(draw, range(20), rng=True), ff.map(draw, range(20), rng=True))
    assert all(a[0] == b[0] and a[1] != b[1] for a, b in flow)


def test_two_shuffles_differ_in_any_arrangement():
    side_by_side = list(ff.zip(ff.shuffle(range(100)), ff.shuffle(range(100))))
    assert sum(a == b for a, b in side_by_side) < 10
    joined = list(ff.concat(ff.shuffle(range(100)), ff.shuffle(range(100))))
    assert joined[:100] != joined[100:]
    once = ff.pipe(np.arange(100), ff.shuffle())
    twice = ff.pipe(np.arange(100), ff.shuffle(), ff.shuffle())
    order = np.array(list(once))
    assert list(twice) != order[order].tolist()  # the second is not the first again


def test_one_shared_flow_stays_aligned():
    shared = ff.pipe(range(50), ff.shuffle(), ff.map(draw, rng=True))
    assert all(a == b for a, b in ff.zip(shared, shared))
    assert all(a == (b[0] * 2, b[1]) for a, b in ff.zip(ff.map(lambda x: (x[0] * 2, x[1]), shared), shared))
    images, masks = ff.map(draw, shared, rng=True), ff.map(draw, shared, rng=True)
    assert all(a[0] == b[0] and a[1] != b[1] for a, b in ff.zip(images, masks))


def test_a_shared_stream_stays_aligned():
    shared = ff.pipe(
        range(50), ff.shuffle_buffer(9), ff.map(draw, rng=True), ff.filter(lambda x, rng: rng.random() < 0.5, rng=True)
    )
    assert all(a == b for a, b in ff.zip(shared, shared))


def test_different_words_draw_differently():
    numbers = [
        draws(ff.map(draw, range(10), rng=True)),
        [x[1] for (x,) in ff.map_component(draw, 0, [[i] for i in range(10)], rng=True)],
        draws(ff.filter_map(draw, range(10), rng=True)),
    ]
    assert len(set(itertools.chain(*numbers))) == 30


def test_rounds_differ_from_each_other_and_from_other_epochs():
    flow = ff.pipe(range(30), ff.shuffle(), ff.map(draw, rng=True), ff.repeat(4))
    rounds = [
        tuple(islice(iterator, 30)) for epoch in range(3) for iterator in [flow.run(epoch=epoch)] for _ in range(4)
    ]
    assert len(set(rounds)) == 12
    assert len({number for one in rounds for _, number in one}) == 360


def test_name_pins_the_numbers_of_a_stage():
    pinned = lambda *before: draws(
        ff.pipe(range(20), *before, ff.map(lambda x, rng: draw(0, rng), rng=True, name="noise"))
    )
    plain = lambda *before: draws(ff.pipe(range(20), *before, ff.map(lambda x, rng: draw(0, rng), rng=True)))
    another = ff.map(draw, rng=True)
    assert pinned() == pinned(another) == pinned(another, another)
    assert plain() != plain(another)
    assert pinned() != plain()


def test_names_tell_stages_apart_and_bring_them_together():
    a, b = ff.map(draw, range(9), rng=True, name="a"), ff.map(draw, range(9), rng=True, name="b")
    again = ff.map(draw, range(9), rng=True, name="a")
    assert list(a) != list(b)
    assert all(x == y for x, y in ff.zip(a, again))
    assert sorted(ff.shuffle(range(9), name="s")) == list(range(9))


def test_a_stage_upstream_that_is_not_random_moves_nothing():
    base = ff.pipe(range(50), ff.shuffle(), ff.map(draw, rng=True))
    more = ff.pipe(range(50), ff.map(int), ff.shuffle(), ff.map(int), ff.map(draw, rng=True), ff.map(tuple))
    assert list(base) == list(more)


# Below shard, group and expand


@pytest.mark.parametrize("make", [lambda: ff.flow(range(60)), lambda: streamed(range(60))], ids=["sequence", "stream"])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ranks_augment_every_record_as_one_process_would(world, make):
    alone = dict(ff.pipe(make(), ff.map(draw, rng=True)))
    for rank in range(world):
        assert dict(ff.pipe(make(), ff.shard(rank, world), ff.map(draw, rng=True))).items() <= alone.items()


def test_each_take_and_skip_keep_the_index_of_a_datapoint():
    alone = dict(ff.pipe(range(60), ff.map(draw, rng=True)))
    flow = ff.pipe(
        range(60),
        ff.skip(4),
        ff.map(int),
        ff.shard(1, 2),
        ff.skip(3),
        ff.take(20),
        ff.shard(0, 3),
        ff.map(draw, rng=True),
    )
    assert dict(flow).items() <= alone.items()
    assert [x for x, _ in flow] == list(range(60))[4:][1::2][3:][:20][::3]


def test_skip_over_a_stream_keeps_the_index_too():
    alone = dict(ff.pipe(range(60), ff.map(draw, rng=True)))
    flow = ff.pipe(streamed(range(60)), ff.skip(4), ff.shard(1, 2), ff.take(20), ff.skip(3), ff.map(draw, rng=True))
    assert dict(flow).items() <= alone.items()


def test_nested_shards_compose():
    whole = ff.pipe(range(60), ff.shuffle(), ff.map(draw, rng=True))
    parts = [
        list(ff.pipe(range(60), ff.shuffle(), ff.shard(a, 2), ff.shard(b, 3), ff.map(draw, rng=True)))
        for a in range(2)
        for b in range(3)
    ]
    assert sorted(itertools.chain(*parts)) == sorted(whole)


@pytest.mark.parametrize(
    "stages",
    [
        [ff.batch(2)],
        [ff.shuffle(), ff.batch(2)],
        [ff.batch(2), ff.shuffle()],
        [ff.filter(lambda x: x % 3 > 0)],
        [ff.filter(lambda x: x % 3 > 0), ff.batch(2)],
        [ff.flat_map(lambda x: [x, -x])],
        [ff.repeat(2)],
        [ff.shuffle_buffer(4)],
        [ff.slice(0, 9, 2)],
        [ff.batch(2), ff.unbatch()],
        [ff.subset([3, 1, 0])],
        [ff.filter(lambda x: x % 3 > 0), ff.repeat(2)],
        [ff.shard(0, 2), ff.batch(1)],
    ],
    ids=str,
)
def test_ranks_never_draw_alike(stages):
    world = 4
    numbers = [
        draws(ff.pipe(range(48), ff.shard(rank, world), *stages, ff.map(draw, rng=True))) for rank in range(world)
    ]
    everything = list(itertools.chain(*numbers))
    assert everything
    assert len(set(everything)) == len(everything)


def test_ranks_never_draw_alike_through_several_sources():
    make = lambda rank: ff.pipe(range(24), ff.shard(rank, 3))
    zipped = [draws(ff.pipe(ff.zip(make(rank), [0] * 8), ff.map(draw, rng=True))) for rank in range(3)]
    joined = [draws(ff.pipe(ff.concat(make(rank), make(rank)), ff.map(draw, rng=True))) for rank in range(3)]
    streams = [
        draws(ff.pipe(ff.concat(ff.filter(bool, make(rank)), make(rank)), ff.map(draw, rng=True))) for rank in range(3)
    ]
    for numbers in (zipped, joined, streams):
        everything = list(itertools.chain(*numbers))
        assert len(set(everything)) == len(everything)


def test_a_shuffle_buffer_below_shard_is_different_on_every_rank():
    orders = [[x // 3 for x in ff.pipe(range(60), ff.shard(rank, 3), ff.shuffle_buffer(10))] for rank in range(3)]
    assert len(set(map(tuple, orders))) == 3


def test_below_expand_numbers_belong_to_the_input_and_its_ordinal():
    noisy = ff.map(draw, rng=True)
    both = list(ff.pipe(range(30), ff.flat_map(lambda x: [x, -x]), noisy))
    assert len({number for _, number in both}) == 60
    thinned = list(ff.pipe(range(30), ff.flat_map(lambda x: [x, -x] if x % 3 else []), noisy))
    assert thinned == [pair for pair in both if pair[0] % 3]  # what others give does not matter
    kept = list(ff.pipe(range(30), ff.filter(lambda x: x % 3), noisy))
    assert kept == [pair for pair in both[::2] if pair[0] % 3]


def test_lineage_passes_through_each_take_skip_and_shard():
    noisy = ff.map(draw, rng=True)
    plain = list(ff.pipe(range(30), ff.flat_map(lambda x: [x, -x]), noisy))
    assert (
        list(
            ff.pipe(
                range(30), ff.flat_map(lambda x: [x, -x]), ff.map(int), ff.skip(5), ff.take(31), ff.shard(1, 2), noisy
            )
        )
        == plain[5:36][1::2]
    )


def test_deep_lineages_never_meet():
    deep = ff.pipe(range(20), *[ff.flat_map(lambda x: [x, x + 100])] * 4, ff.map(draw, rng=True))
    assert len(set(draws(deep))) == 20 * 16


def test_an_expand_stage_over_a_sequence_and_a_stream_draws_alike():
    stages = [
        ff.filter(lambda x, rng: rng.random() < 0.7, rng=True),
        ff.flat_map(lambda x: [x, x]),
        ff.map(draw, rng=True),
    ]
    assert list(ff.pipe(range(50), *stages)) == list(ff.pipe(streamed(range(50)), *stages))


def test_flows_made_in_flat_map_are_different_for_each_datapoint_and_the_same_again():
    flow = ff.pipe(range(5), ff.flat_map(lambda x: ff.pipe(range(50), ff.shuffle(), ff.map(draw, rng=True))))
    whole = list(flow.run(epoch=0))
    parts = [tuple(whole[i : i + 50]) for i in range(0, 250, 50)]
    assert len(set(parts)) == 5
    assert all(sorted(x for x, _ in part) == list(range(50)) for part in parts)
    assert len(set(draws(whole))) == 250
    assert whole == list(flow.run(epoch=0)) != list(flow.run(epoch=1))


# Frozen


def test_a_frozen_flow_is_what_it_is_alone_under_its_seed():
    inner = lambda: ff.pipe(range(100), ff.shuffle(), ff.map(draw, rng=True))
    expected = list(inner().run(seed=5, epoch=0))
    frozen = lambda seed=5: ff.freeze(inner(), seed=seed)
    assert list(frozen()) == list(frozen().reset_state(9).set_epoch(3)) == expected
    random_around = ff.zip(
        ff.shuffle(range(100)), ff.map(draw, range(100), rng=True), frozen(), ff.map(draw, range(100), rng=True)
    )
    for seed in (0, 5, 9):
        assert [d[2] for d in random_around.run(seed=seed)] == expected
        assert [d[2] for d in random_around.run(seed=seed, epoch=1)] == expected


@pytest.mark.parametrize("one", [0, 1])
@pytest.mark.parametrize("other", [0, 1])
def test_two_frozen_flows_in_one_tree_keep_their_own_seeds(one, other):
    a, b = (ff.freeze(ff.shuffle(range(100)), seed=seed) for seed in (one, other))
    joined = list(ff.concat(a, b))
    assert joined == list(ff.shuffle(range(100)).run(seed=one, epoch=0)) + list(
        ff.shuffle(range(100)).run(seed=other, epoch=0)
    )


def test_what_is_around_a_frozen_flow_is_random_as_ever():
    around = lambda inner: ff.pipe(inner, ff.shuffle(), ff.map(draw, rng=True))
    frozen = around(ff.freeze(ff.map(draw, ff.shuffle(range(100)), rng=True), seed=5))
    plain = around(range(100))
    for seed, epoch in ((0, 0), (7, 0), (7, 1)):
        assert draws(frozen.run(seed=seed, epoch=epoch)) == draws(plain.run(seed=seed, epoch=epoch))
    inner = list(ff.map(draw, ff.shuffle(range(100)), rng=True).run(seed=5, epoch=0))
    order = list(ff.shuffle(range(100)).run(seed=7, epoch=0))
    assert [x for x, _ in frozen.run(seed=7, epoch=0)] == [inner[i] for i in order]


def tagged(x, rng):
    return (int(np.sum(x)), int(rng.integers(1 << 40)))


def test_a_generator_forgets_the_lineage_of_the_label_before():
    mixed = [g.integers(1 << 40) for g in generators(7, [(3, 5), 3])]
    assert mixed[1] == next(generators(7, [3])).integers(1 << 40)


@pytest.mark.parametrize("remainder", ["keep", "drop"])
def test_what_is_upstream_of_a_shard_is_augmented_alike_after_moving_worlds(remainder):
    def make(rank, world):
        return ff.pipe(range(48), ff.batch(2), ff.map(tagged, rng=True), ff.shard(rank, world, remainder=remainder))

    whole = dict(make(0, 1))
    with make(0, 2).run() as iterator:
        for _ in range(4):
            next(iterator)
        state = iterator.state_dict()
    rest = [pair for rank in range(3) for pair in make(rank, 3).load_state_dict(state)]
    assert len(rest) == (15 if remainder == "drop" else 16)
    assert all(whole[key] == draw for key, draw in rest)


def test_a_padded_datapoint_draws_anew_in_both_forms():
    for n in range(9, 13):
        for rank in range(4):
            seekable = ff.pipe(range(n), ff.shard(rank, 4, remainder="pad"), ff.map(tagged, rng=True))
            stream = ff.pipe(
                lambda n=n, start=0: iter(range(n)[start:]),
                ff.shard(rank, 4, remainder="pad"),
                ff.map(tagged, rng=True),
            )
            assert list(seekable.run()) == list(stream.run())


def test_two_callable_sources_that_return_flows_draw_apart():
    flow = ff.concat(lambda: ff.shuffle(range(20)), lambda: ff.shuffle(range(20)))
    drawn = list(flow)
    assert drawn[:20] != drawn[20:]
    assert drawn == list(flow.run(epoch=0))
