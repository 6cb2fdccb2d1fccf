"""What is left out of a pass, and that everything else stays what it was."""

import json
import re
from itertools import islice

import numpy as np
import pytest

import flowfn as ff
from flowfn.testing import same
from tests.sources import noisy, streamed

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
    gone = {("a", 3), ("a", 4), ("a", 8), ("b", 2)}
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
