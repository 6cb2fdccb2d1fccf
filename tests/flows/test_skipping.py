"""What is left out of a pass, and that everything else stays what it was."""

import json
import pickle
import re
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Counted, noisy, streamed

import flowfn as ff
from flowfn.testing import same, strategies

ENDLESS = 40
BY_TWO = {"threads": 2}


def pairs(name, n):
    return [(name, number) for number in range(n)]


def a(n=41):
    return pairs("a", n)


def b(n=17):
    return pairs("b", n)


def inner(datapoint):
    return ff.pipe([datapoint] * (datapoint[1] % 3), ff.map(noisy, rng=True))


def rows(size=4):
    return ff.batch(size, collate=None)


def odd(datapoint):
    return datapoint[1] % 2 == 1


SEEKABLE = {
    "list": lambda r, w: ff.pipe(a(), ff.shard(r, w)),
    "train": lambda r, w: ff.pipe(a(), ff.shuffle(), ff.map(noisy, rng=True), ff.shard(r, w), rows()),
    "augmented behind": lambda r, w: ff.pipe(a(), ff.shuffle(), ff.shard(r, w), ff.map(noisy, rng=True), rows(3)),
    "dropped remainder": lambda r, w: ff.pipe(a(), ff.shard(r, w), ff.batch(4, drop_remainder=True, collate=None)),
    "no shard": lambda r, w: ff.pipe(a(), ff.shuffle(), rows(), ff.map(noisy, rng=True)),
    "mixed": lambda r, w: ff.pipe(
        ff.mix({"a": ff.shuffle(a()), "b": b()}, weights=[2, 1], until="cycle_all"), ff.shard(r, w), rows()
    ),
    "repeated": lambda r, w: ff.pipe(a(7), ff.shuffle(), ff.map(noisy, rng=True), ff.repeat(5), ff.shard(r, w), rows()),
    "endless": lambda r, w: ff.pipe(a(7), ff.shuffle(), ff.cycle(), ff.shard(r, w), rows(3)),
    "zipped": lambda r, w: ff.pipe(ff.zip(ff.shuffle(a(17)), b()), ff.shard(r, w), rows(3)),
    "windows": lambda r, w: ff.pipe(a(), ff.shuffle(), ff.window(5, step=2, collate=None)),
    "apart": lambda r, w: ff.pipe(a(), ff.window(2, step=3, collate=None)),
    "batches of batches": lambda r, w: ff.pipe(a(), ff.shard(r, w), rows(2), rows(3)),
    "filled up": lambda r, w: ff.pipe(a(), ff.pad_to_multiple(16), ff.shard(r, w, remainder="drop"), rows()),
    "sampled": lambda r, w: ff.pipe(a(), ff.sample(30), ff.shard(r, w), rows()),
    "copies": lambda r, w: ff.pipe(a(9), ff.repeat_each(3), ff.shard(r, w), rows()),
    "joined": lambda r, w: ff.pipe(ff.concat(a(10), ff.shuffle(b())), ff.shard(r, w), rows()),
    "epochs": lambda r, w: ff.pipe(ff.epoch_of(20, ff.shuffle(a(13))), ff.shard(r, w), rows()),
    "frozen": lambda r, w: ff.pipe(ff.freeze(ff.shuffle(a()), seed=4), ff.shuffle(), ff.shard(r, w), rows()),
    "kept": lambda r, w: ff.pipe(a(), ff.map(noisy, rng=True), ff.cache(), ff.shuffle(), ff.shard(r, w), rows()),
    "sharded early": lambda r, w: ff.pipe(a(), ff.shard(r, w), ff.shuffle(), rows()),
    "fetched within": lambda r, w: ff.pipe(a(), ff.map(noisy, rng=True), ff.prefetch(2), ff.shard(r, w), rows()),
    "guarded": lambda r, w: ff.pipe(
        a(), ff.guard(ff.map(noisy, rng=True), then=lambda x, e: x), ff.shard(r, w), rows()
    ),
}
STREAMS = {
    "filtered": lambda r, w: ff.pipe(a(), ff.shuffle(), ff.filter(odd), ff.shard(r, w), rows()),
    "filtered, augmented": lambda r, w: ff.pipe(
        a(), ff.filter(odd), ff.map(noisy, rng=True), ff.shard(r, w), ff.map(noisy, rng=True), rows(3)
    ),
    "filtered behind": lambda r, w: ff.pipe(a(), ff.shard(r, w), ff.filter(lambda x: x[1] % 3), rows()),
    "filtered batches": lambda r, w: ff.pipe(a(), rows(2), ff.filter(lambda rows: rows[0][1] % 3)),
    "flat": lambda r, w: ff.pipe(a(), ff.flat_map(inner), ff.shard(r, w), rows()),
    "interleaved": lambda r, w: ff.pipe(a(), ff.interleave(inner, cycle=3), ff.shard(r, w), rows()),
    "buffered": lambda r, w: ff.pipe(streamed(a()), ff.shuffle_buffer(5), ff.shard(r, w), rows()),
    "only iterable": lambda r, w: ff.pipe(streamed(a()), ff.shard(r, w), rows()),
    "packed": lambda r, w: ff.pipe(
        [np.arange(1 + n % 5) for n in range(30)], ff.shuffle(), ff.pack(8), ff.shard(r, w), ff.batch(2)
    ),
    "planned": lambda r, w: ff.pipe(
        [np.arange(1 + n % 7) for n in range(60)],
        ff.shuffle(),
        ff.batch_by_cost(lambda n: n * n, ranks=2, size=4),
        ff.shard(r, w),
    ),
    "packed for ranks": lambda r, w: ff.pipe(
        [np.arange(1 + n % 5) for n in range(60)], ff.shuffle(), ff.pack(8, ranks=2), ff.shard(r, w)
    ),
    "mixed by tokens": lambda r, w: ff.pipe(
        ff.mix({"a": [np.arange(1 + n % 5) for n in range(40)], "b": [np.arange(9)] * 20}, weights=[1, 1], unit=len),
        ff.pack(12),
        ff.shard(r, w),
        ff.batch(2),
    ),
    "mixed streams": lambda r, w: ff.pipe(
        ff.mix({"a": ff.filter(odd, a()), "b": b()}, weights=[2, 1], until="all"), ff.shard(r, w), rows()
    ),
    "rounds": lambda r, w: ff.pipe(a(9), ff.shuffle(), ff.filter(odd), ff.cycle(), ff.shard(r, w), rows()),
}
SHAPES = {**SEEKABLE, **STREAMS}


def all_of(iterator):
    with iterator:
        return list(islice(iterator, ENDLESS))


def numbered(iterator, count=ENDLESS):
    """Outputs, each with the number that it has."""
    with iterator:
        return [(iterator.position - 1, output) for output in islice(iterator, count)]


def assert_same(some, others):
    assert [number for number, _ in some] == [number for number, _ in others]
    for (number, one), (_, other) in zip(some, others):
        assert same(one, other), number


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("skip", "gone"), [([0], {0}), ([range(1, 4), 6, 5000], {1, 2, 3, 6})])
def test_outputs_are_left_out_and_all_others_stay(shape, skip, gone):
    flow = SHAPES[shape](1, 2).reset_state(3)
    for epoch in (0, 1):
        whole = list(enumerate(islice(flow.run(epoch=epoch), ENDLESS + 4)))
        expected = [one for one in whole if one[0] not in gone][:ENDLESS]
        got = numbered(flow.run(epoch=epoch, skip=skip))
        assert_same(got, expected)
        fetched = ff.pipe(flow, ff.prefetch(2, **(BY_TWO if epoch else {})))
        assert_same(numbered(fetched.run(epoch=epoch, skip=skip)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pass_with_gaps_resumes_everywhere(shape):
    make = SHAPES[shape]
    expected = numbered(make(0, 2).run(seed=5, epoch=1, skip=[1, range(3, 5)]), 14)
    after = all_of(make(0, 2).run(seed=5, epoch=2))[:5]
    for k in range(len(expected) + 1):
        with make(0, 2).run(seed=5, epoch=1, skip=[1, range(3, 5)]) as iterator:
            list(islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        for keywords in (None, BY_TWO) if k == 3 else (None,):
            flow = make(0, 2) if keywords is None else ff.pipe(make(0, 2), ff.prefetch(2, **keywords))
            flow.load_state_dict(state)
            assert_same(numbered(iter(flow), 14 - k), expected[k:])
            if len(expected) < 14:
                assert all(map(same, list(islice(flow, 5)), after)), "the next epoch has no gaps of outputs"


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in ("sharded early", "filtered behind")])
def test_a_step_is_left_out_by_whoever_goes_on(shape):
    """A step of four ranks, on one, two and eight: the same datapoints, and as many steps on every rank."""
    make, step = SHAPES[shape], 2
    if make(0, 2).node.world == 1 or shape == "list":
        return

    with make(0, 4).run(seed=1) as iterator:
        next(iterator)
        state = iterator.state_dict()
    for world in (1, 2, 4):
        gone = range(step * 4 // world, (step + 1) * 4 // world)
        for rank in range(world):
            every = numbered(iter(make(rank, world).load_state_dict(state)))
            spared = numbered(iter(make(rank, world).load_state_dict(state, skip=[step])))
            expected = [one for one in every if one[0] not in gone]
            assert_same(spared[: len(expected)], expected)
            assert len(spared) == len(expected) or len(every) == ENDLESS


def marks(datapoint):
    """The records in a datapoint, as (source, index)."""
    text = repr(datapoint)
    return {(name, int(number)) for name, number in re.findall(r"\('([ab])', (\d+)[,)]", text)}


def without(output, gone):
    """An output without the datapoints that are made of a record; None if there is nothing left."""
    if isinstance(output, list):
        kept = [one for one in (without(one, gone) for one in output) if one is not None]
        return kept or None
    return None if marks(output) & gone else output


@pytest.mark.parametrize("shape", [name for name in SEEKABLE if name != "no shard"])
def test_records_are_left_out_in_every_epoch_and_all_others_stay(shape):
    flow = SEEKABLE[shape](1, 2).reset_state(9)
    gone = {("a", 3), ("a", 4), ("a", 6), ("b", 2)}
    names = {"a", "b"} if shape == "mixed" else {0, 1} if shape in ("zipped", "joined") else {0}
    skip = [(name, n) for name in names for letter, n in gone if letter == (name if name in ("a", "b") else "ab"[name])]
    for epoch in (0, 1, 4):
        whole = list(islice(flow.run(epoch=epoch), ENDLESS))
        expected = [(k, kept) for k, one in enumerate(whole) if (kept := without(one, gone)) is not None]
        got = [one for one in numbered(flow.run(epoch=epoch, skip=skip)) if one[0] < ENDLESS]
        assert_same(got, expected)
        for keywords in ({}, BY_TWO):
            fetched = ff.pipe(flow, ff.prefetch(2, **keywords))
            got = [one for one in numbered(fetched.run(epoch=epoch, skip=skip)) if one[0] < ENDLESS]
            assert_same(got, expected)
    state = flow.state_dict()
    loaded = SEEKABLE[shape](1, 2).load_state_dict(state, skip=skip)
    if len(whole) < ENDLESS:
        for epoch in (0, 1):
            expected = all_of(flow.run(epoch=epoch, skip=skip))
            assert len(loaded) == len(expected)
            assert all(map(same, list(loaded), expected))


def test_what_is_left_out_is_not_read():
    source = Counted(40)
    flow = ff.pipe(source, ff.shuffle(), ff.shard(0, 2), ff.batch(4))
    whole = list(flow)
    source.read.clear()
    spared = list(flow.run(epoch=0, skip=[1, (0, int(whole[3][2]))]))
    assert set(whole[1].tolist()).isdisjoint(source.read)
    assert whole[3][2] not in source.read
    assert [batch.tolist() for batch in spared] == [
        batch.tolist() if k != 3 else np.delete(batch, 2).tolist() for k, batch in enumerate(whole) if k != 1
    ]


def test_a_record_that_crashes_is_gone_round():
    def fails(x):
        return 1 // (x - 13) and x

    def make():
        return ff.pipe(range(40), ff.shuffle(), ff.map(fails), ff.batch(4))

    flow = make()
    iterator = iter(flow)
    with pytest.raises(ZeroDivisionError):
        list(iterator)
    state = iterator.state_dict()
    assert {one.index for one in ff.origins(flow, state["position"], epoch=0)} >= {13}
    rest = list(make().load_state_dict(state, skip=[(0, 13)]))
    assert sorted(x for batch in rest for x in batch.tolist() if x == 13) == []
    assert sum(map(len, rest)) == 39 - 4 * state["position"]


ROWS = {
    "gathered": lambda: ff.pipe(ff.from_arrays(x=np.arange(150), y=np.arange(300).reshape(150, 2)), ff.shuffle()),
    "large": lambda: ff.pipe([np.full(100_000, n, np.uint8) for n in range(60)], ff.shuffle(), ff.map(len)),
    "cached": lambda: ff.pipe(range(150), ff.map(noisy, rng=True), ff.cache(), ff.shuffle(), ff.map(tuple)),
    "fetched within": lambda: ff.pipe(range(150), ff.map(noisy, rng=True), ff.prefetch(2), ff.shuffle(), ff.map(tuple)),
    "streamed": lambda: ff.pipe(streamed(range(90)), ff.map(noisy, rng=True), ff.filter(lambda x: x[0] % 3)),
    "filtered": lambda: ff.pipe(range(90), ff.shuffle(), ff.filter(lambda x: x % 3), ff.map(noisy, rng=True)),
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("workers", [{"processes": 2}, {"processes": 1}, {"threads": 3}])
def test_workers_go_round_it_wherever_the_data_is(rows, workers):
    def make(workers=None):
        return ff.pipe(ROWS[rows](), ff.batch(5), ff.prefetch(2, **workers) if workers else None)

    skip = [2, (0, 7), (0, 8), (0, 31)]
    serial = numbered(make().run(seed=3, epoch=1, skip=skip))
    assert len(serial) < len(numbered(make().run(seed=3, epoch=1)))
    assert_same(numbered(make(workers).run(seed=3, epoch=1, skip=skip)), serial)
    with make(workers).run(seed=3, epoch=1, skip=skip) as iterator:
        list(islice(iterator, 4))
        state = iterator.state_dict()
    assert_same(numbered(iter(make(workers).load_state_dict(state))), serial[4:])
    assert_same(numbered(iter(make().load_state_dict(state))), serial[4:])


def test_batches_that_several_workers_make_together_are_shorter_too():
    def slow(x):
        return np.full((64, 1024), x)

    def make(workers=None):
        return ff.pipe(range(96), ff.shuffle(), ff.map(slow), ff.batch(32), workers)

    serial = list(make().run(skip=[1, (0, 3), (0, 9)]))
    assert sum(map(len, serial)) in (62, 63, 64)
    assert same(list(make(ff.prefetch(2, processes=2)).run(skip=[1, (0, 3), (0, 9)])), serial)


@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")
@given(strategies.recipes(4), st.sets(st.integers(0, 12), min_size=1, max_size=4))
def test_any_pipeline_goes_round_any_outputs(recipe, gone):
    flow = recipe()
    whole = list(enumerate(islice(flow.run(seed=2, epoch=1), ENDLESS)))
    expected = [one for one in whole if one[0] not in gone]
    got = numbered(flow.run(seed=2, epoch=1, skip=sorted(gone)), len(expected) + 1)
    assert_same(got[: len(expected)], expected)
    assert len(got) == len(expected) or len(whole) == ENDLESS
    for k in {0, 1, len(expected) // 2, max(len(expected) - 1, 0)}:
        with recipe().run(seed=2, epoch=1, skip=sorted(gone)) as iterator:
            list(islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        if k < len(expected):
            again = numbered(iter(recipe().load_state_dict(state)), len(expected) - k)
            assert_same(again, expected[k:])


def test_records_stay_out_of_every_epoch_of_a_flow_and_its_length_says_so():
    def make():
        flow = ff.pipe(range(60), ff.shuffle(), ff.map(noisy, rng=True), ff.batch(4))
        return flow.load_state_dict(flow.reset_state(0).state_dict(), skip=[(0, 5), (0, 6), (0, 50)])

    flow = make()
    for _ in range(3):
        batches = list(flow)
        assert sum(len(batch[0]) for batch in batches) == 57
        assert len(flow) == len(batches) == 15


def test_ranks_make_the_same_steps_whoever_left_out_how_much():
    rng = np.random.Generator(np.random.Philox(key=3))
    for _ in range(60):
        world, size, saver = (int(one) for one in rng.integers(1, 6, 3))
        step = int(rng.integers(0, 4))

        def make(rank, world, size=size):
            return ff.pipe(range(97), ff.shuffle(), ff.shard(rank, world, remainder="drop"), rows(size))

        with make(0, saver, 3).run() as iterator:
            next(iterator)
            state = iterator.state_dict()
        gone = {x for rank in range(saver) for x in next(islice(make(rank, saver, 3).run(), step, None))}
        loaded = [make(rank, world).load_state_dict(state, strict=False, skip=[step]) for rank in range(world)]
        told = [len(one) for one in loaded]
        given = [list(one) for one in loaded]
        assert len({len(one) for one in given}) == 1, (world, size, saver, step)
        if state["count"] == 0 or not loaded[0].state_dict().get("base"):
            assert told[0] >= len(given[0])
        assert not gone & {x for one in given for batch in one for x in batch}


def test_a_record_in_what_is_read_in_order_is_left_out_from_the_next_pass_on():
    def make():
        return ff.pipe(range(30), ff.shuffle(), ff.filter(lambda x: x % 5), ff.batch(4))

    flow = make()
    whole = [np.concatenate(list(flow.run(epoch=epoch))) for epoch in (0, 1, 2)]
    spared = np.concatenate(list(flow.run(epoch=0, skip=[(0, 7), (0, 8)])))
    assert spared.tolist() == [x for x in whole[0].tolist() if x not in (7, 8)], "those behind it move up"
    with iter(make()) as iterator:
        next(iterator)
        state = iterator.state_dict()
    flow = make().load_state_dict(state, skip=[(0, 7), (0, 8)])
    assert flow.state_dict()["skip"] == {"later": {"0": [7, 9]}}
    assert np.concatenate(list(flow)).tolist() == whole[0][4:].tolist()
    assert flow.state_dict()["skip"] == {"records": {"0": [7, 9]}}
    for epoch in (1, 2):
        assert np.concatenate(list(flow)).tolist() == [x for x in whole[epoch].tolist() if x not in (7, 8)]
    streamed_flow = ff.pipe(streamed(range(9)), ff.map(noisy, rng=True))
    every = list(streamed_flow.run())
    assert list(streamed_flow.run(skip=[(0, 2), (0, 3)])) == [*every[:2], *every[4:]], "random numbers stay"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ff.pipe(ff.mix({"a": range(9)}, unit=lambda x: 1, until="forever"), ff.shard(0, 2), ff.batch(2)),
        lambda: ff.pipe(range(9), ff.filter(bool), ff.cycle(), ff.map(lambda x: [x]), ff.pack(4)),
    ],
)
def test_where_there_is_no_next_pass_records_are_refused_and_not_forgotten(make):
    name = "a" if "mix" in repr(make()) else 0
    with iter(make()) as iterator:
        next(iterator)
        state = iterator.state_dict()
    with pytest.raises(ValueError, match="and it never ends; leave out the outputs that they are in, by their numbers"):
        make().load_state_dict(state, skip=[(name, 3)])
    flow = make().load_state_dict(state, skip=[3])
    assert [number for number, _ in numbered(iter(flow), 4)] == [1, 2, 4, 5]
    assert ff.take(3, make()).run(skip=[(name, 3)]).position == 0, "from its beginning on they can be left out"
    assert make().load_state_dict(ff.flow(make()).state_dict(), skip=[(name, 3)]) is not None


@pytest.mark.parametrize(
    "skip", [[], [1], [0, (0, 5), (0, 9001)], [(0, 0), (0, 1), (0, 2), (0, 3), range(4, 9000)]], ids=str
)
@pytest.mark.parametrize("tail", [[], [ff.shuffle()], [ff.batch(2, collate=None)], [ff.repeat(2)]], ids=str)
def test_a_flow_has_at_an_index_what_it_gives_there(tail, skip):
    flow = ff.pipe(range(10_000), *tail)
    skip = [one for one in skip if len(flow) > 9000 or not isinstance(one, range)]
    flow.load_state_dict(flow.state_dict(), skip=skip)
    every = list(flow.run(skip=[one for one in skip if not isinstance(one, tuple)]))
    length = len(flow)
    assert length == len(every)
    picked = [0, 3, 4095, 4096, length - 1, -1, -length]
    picked = [index for index in picked if -length <= index < length]
    assert [flow[index] for index in picked] == [every[index] for index in picked] == flow.__getitems__(picked)
    for index in (length, -length - 1):
        with pytest.raises(IndexError, match="out of range"):
            flow[index]


def test_an_endless_flow_leaves_out_at_an_index_what_it_leaves_out_in_a_pass():
    flow = ff.cycle(range(5000))
    flow.load_state_dict(flow.state_dict(), skip=[1, (0, 4999)])
    assert [flow[n] for n in (0, 1, 4997, 4998, 9996, 9997)] == [0, 2, 4998, 0, 4998, 0]


def test_a_list_lasts_until_the_flow_is_reset():
    flow = ff.flow(range(4))
    flow.load_state_dict(flow.state_dict(), skip=[1, (0, 2)])
    assert len(flow) == 2
    assert ([*flow], len(flow), [*flow], [*flow.run(epoch=7)]) == ([0, 3], 3, [0, 1, 3], [0, 1, 3])
    assert [*flow.set_epoch(9)] == [0, 1, 3]
    assert [*pickle.loads(pickle.dumps(flow))] == [0, 1, 3]
    assert flow.state_dict()["skip"] == {"records": {"0": [2, 3]}}
    iterator = iter(flow)
    assert (iterator.__length_hint__(), next(iterator), iterator.__length_hint__()) == (3, 0, 2)
    iterator.load_state_dict(iterator.state_dict(), skip=[2, 3])
    assert ([*iterator], [*flow]) == ([1], [0, 1, 3])
    assert [*flow.reset_state(0)] == [0, 1, 2, 3]
    assert flow[2] == 2, "what is looked at by its index is there"


def test_what_is_made_of_a_flow_leaves_out_the_records_that_it_does():
    flow = ff.flow(range(6))
    flow.load_state_dict(flow.state_dict(), skip=[1, (0, 4)])
    assert [*flow[3:]] == [3, 5]
    assert [*ff.pipe(flow, ff.map(float), ff.prefetch(1))] == [0, 1, 2, 3, 5], "outputs are those of a pass of its own"
    stages = ff.shuffle(), ff.batch(2, collate=None)
    made, whole = ff.pipe(flow, *stages), ff.pipe(range(6), *stages)
    assert [*made] == [*whole.run(skip=[(0, 4)])]
    assert made.state_dict()["skip"] == {"records": {"0": [4, 5]}}
    assert [*made.reset_state(0)] == [*whole.run()]
    mixed = ff.mix({"a": [7, 8], "b": flow}, until="all")
    assert sorted(mixed) == [0, 1, 2, 3, 5, 7, 8]
    assert mixed.state_dict()["skip"] == {"records": {"b": [4, 5]}}
    with pytest.raises(
        ValueError, match=r"cache\(\): records of source '0' cannot be left out, because cache\(\) remem"
    ):
        ff.pipe(flow, ff.batch(2), ff.cache())


@pytest.mark.parametrize(
    ("make", "skip", "error", "words"),
    [
        (lambda: ff.flow([1]), ["a"], TypeError, "skip must hold numbers of outputs, ranges of them"),
        (lambda: ff.flow([1]), "ab", TypeError, "skip must be numbers of outputs"),
        (lambda: ff.flow([1]), [-1], ValueError, "none below 0, got -1"),
        (lambda: ff.flow([1]), [range(0, 4, 2)], ValueError, "none below 0, got range"),
        (
            lambda: ff.flow([1]),
            [("web", 3)],
            ValueError,
            "skip names source 'web', but those of the flow are called '0'",
        ),
        (lambda: ff.flow([1]), [(0, 1)], ValueError, "skip names record 1 of source '0', which has 1$"),
        (lambda: ff.pipe([1], ff.prefetch(1, ordered=False)), [0], TypeError, "outputs come in any order"),
        (
            lambda: ff.pipe([1, 2], ff.batch(2), ff.cache()),
            [(0, 1)],
            ValueError,
            r"cache\(\) remembers what they are in",
        ),
        (
            lambda: ff.zip([1, 2], ff.filter(bool, [1, 2])),
            [(0, 1)],
            ValueError,
            r"zip\(\) would put others beside each other; leave out the outputs that they are in",
        ),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_words(make, skip, error, words):
    with pytest.raises(error, match=words):
        make().run(skip=skip)


@pytest.mark.parametrize(
    "skip", [{"counted": [3, 2]}, {"counted": [1]}, {"records": {"0": [-1, 2]}}, {"more": []}, {"later": [1, 2]}]
)
def test_a_list_in_a_state_is_one_or_it_is_refused(skip):
    flow = ff.flow(range(4))
    with pytest.raises(ValueError, match="skip must be"):
        flow.load_state_dict({**flow.state_dict(), "skip": skip})


def test_steps_of_another_mix_are_not_known():
    def make(**sources):
        return ff.pipe(ff.mix(sources, until="all"), ff.batch(2))

    with iter(make(a=range(9), b=range(9))) as iterator:
        next(iterator)
        state = iterator.state_dict()
    other = make(a=range(9), c=range(100, 109))
    with pytest.raises(ValueError, match="the state is of a mix of other sources"):
        other.load_state_dict(state, strict=False, skip=[3])
    rest = np.concatenate(list(other.load_state_dict(state, strict=False, skip=[("a", 4)])))
    assert sorted(rest.tolist()) == [1, 2, 3, 5, 6, 7, 8, *range(100, 109)]


def test_outputs_in_any_order_go_round_records():
    flow = ff.pipe(range(40), ff.shuffle(), ff.map(float), ff.prefetch(2, threads=2, ordered=False))
    assert sorted(flow.run(skip=[(0, 3), (0, 30)])) == [x for x in range(40) if x not in (3, 30)]


@settings(max_examples=80, deadline=None)
@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")
@given(strategies.recipes(4), st.sets(st.integers(0, 11), min_size=1, max_size=5))
def test_any_pipeline_goes_round_records_or_says_why_not(recipe, gone):
    skip = [(0, index) for index in sorted(gone)]
    try:
        got = numbered(recipe().run(seed=2, epoch=1, skip=skip))
    except ValueError as error:
        words = ("cannot be left out, because", "gave no datapoint", "leaves nothing of source", ", which has ")
        assert any(one in str(error) for one in words), error  # noqa: PT017
        return
    if recipe().seekable:
        given = dict(got)
        for k, output in enumerate(islice(recipe().run(seed=2, epoch=1), ENDLESS)):
            origins = ff.origins(recipe(), k, seed=2, epoch=1)
            left = [one for one in origins if (one.source, one.index) not in skip]
            if left == list(origins):
                assert same(given[k], output)
            elif not left:
                assert k not in given
    for k in {0, 1, len(got) // 2, max(len(got) - 1, 0)}:
        with recipe().run(seed=2, epoch=1, skip=skip) as iterator:
            list(islice(iterator, k))
            state = json.loads(json.dumps(iterator.state_dict()))
        if k < len(got):
            assert_same(numbered(iter(recipe().load_state_dict(state)), len(got) - k), got[k:])


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("make_source", [range, lambda n: streamed(range(n))], ids=["seekable", "stream"])
def test_steps_that_are_filled_up_are_left_out_as_a_whole(remainder, make_source):
    def make(rank, size=2):
        return ff.pipe(make_source(18), ff.shard(rank, 4, remainder=remainder), rows(size))

    every = [list(enumerate(make(rank).run())) for rank in range(4)]
    for step in range(3):
        for rank in range(4):
            spared = numbered(make(rank).run(skip=[step]))
            assert_same(spared, [one for one in every[rank] if one[0] != step])


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_left_is_known_before(shape):
    flow = SHAPES[shape](1, 2)
    for skip in ([1, range(3, 5)], [0, 5000]):
        loaded = SHAPES[shape](1, 2).load_state_dict(flow.state_dict(), skip=skip)
        try:
            told = len(loaded)
        except TypeError:
            return
        iterator = iter(loaded)
        hints = [iterator.__length_hint__() for _ in iterator]
        assert (told, hints) == (len(hints), [*range(len(hints) - 1, -1, -1)])
    endless = ff.pipe(range(10**15), ff.shuffle(), ff.shard(0, 8), ff.batch(4))
    assert len(endless.load_state_dict(endless.state_dict(), skip=[7, 10**9])) == 10**15 // 32 - 2


def test_a_source_of_which_nothing_would_be_left_is_refused():
    flow = ff.pipe(range(5), ff.shuffle(), ff.cycle(), ff.batch(2))
    with pytest.raises(ValueError, match="skip leaves nothing of source 0, all 5 records of it are in the list"):
        flow.run(skip=[(0, index) for index in range(5)])


@pytest.mark.parametrize("workers", [None, {"threads": 2}, {"processes": 2}])
def test_what_guards_count_is_the_same_whoever_goes_round(workers):
    def fails(x):
        return 1 / (x % 6) and x

    def make(workers):
        guarded = ff.guard(ff.map(fails), then=lambda x, error: -1, budget=30)
        return ff.pipe(range(90), ff.shuffle(), guarded, ff.batch(5), ff.prefetch(2, **workers) if workers else None)

    def passed(flow):
        with flow.run(seed=4, skip=[2, (0, 12), (0, 13)]) as iterator:
            outputs = [batch.tolist() for batch in islice(iterator, 9)]
            return outputs, iterator.state_dict(), sorted(one.index for one in iterator.dropped)

    outputs, state, dropped = passed(make(None))
    assert sum(output.count(-1) for output in outputs) == len(dropped) > 0
    assert 12 not in {x for output in outputs for x in output}
    assert passed(make(workers)) == (outputs, state, dropped)
