"""A loss spikes in a step on four ranks: which records were that, and how is it left out on two?"""

import json
from itertools import islice

import numpy as np
import pytest
from sources import noisy

import flowfn as ff
from flowfn.testing import same

SPIKE, SAVED, EPOCH, SEED = 5210, 5000, 1, 11
WEB, CODE = 500_000, 90_000


def train(rank, world, size=8, **workers):
    web = ff.pipe(range(WEB), ff.shuffle(), ff.cycle())
    code = ff.pipe(range(1_000_000, 1_000_000 + CODE), ff.shuffle(), ff.cycle())
    mixed = ff.mix({"web": web, "code": code}, weights=[3, 1], until="forever")
    augmented = ff.pipe(mixed, ff.map(noisy, rng=True), ff.shard(rank, world), ff.batch(size))
    return ff.pipe(augmented, ff.prefetch(2, **workers)) if workers else augmented


def records(batch):
    return batch[0].tolist()


def numbered(iterator, count):
    """Batches by the numbers that they have."""
    batches = {}
    for batch in islice(iterator, count):
        batches[iterator.position - 1] = batch
    return batches


def test_which_records_were_it_is_told_by_any_rank_with_nothing_logged():
    given = [next(train(rank, 4).run(seed=SEED, epoch=EPOCH, start=SPIKE)) for rank in range(4)]
    for rank in (0, 3):
        origins = ff.origins(train(rank, 4), SPIKE, seed=SEED, epoch=EPOCH, ranks="all")
        told = [one.index + (1_000_000 if one.source == "code" else 0) for one in origins]
        assert told == [record for batch in given for record in records(batch)]
        assert (origins.exact, origins.how, len(origins)) == (True, "index", 32)
        assert {one.epoch for one in origins if one.source == "code"} == {(EPOCH, 0, SPIKE * 8 // CODE)}


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_the_step_is_left_out_on_any_number_of_ranks_and_all_else_stays(world):
    state = saved()
    bad = {r for rank in range(4) for r in records(next(train(rank, 4).run(seed=SEED, epoch=EPOCH, start=SPIKE)))}
    steps = 4 * (SPIKE - SAVED + 5) // world
    every, spared = [], []
    for rank in range(world):
        with iter(train(rank, world).load_state_dict(state)) as iterator:
            every.append(numbered(iterator, steps))
        with iter(train(rank, world).load_state_dict(state, skip=[SPIKE])) as iterator:
            spared.append(numbered(iterator, steps))
    assert len({tuple(one) for one in spared}) == 1, "all ranks make the same steps"
    for whole, rest in zip(every, spared):
        for number, batch in whole.items():
            kept = [at for at, record in enumerate(records(batch)) if record not in bad]
            if number in rest:
                assert same([column[kept] for column in batch], list(rest[number])), number
            else:
                assert len(kept) < 8, "a whole step is left out where some rank would have nothing"
    left_out = [number for number in every[0] if number not in spared[0]]
    first = (SPIKE - SAVED) * 4
    if world in (1, 2, 4):
        begun = min(every[0])
        assert left_out == [begun + number for number in range(first // world, (first + 4) // world)]
    if world == 8:
        assert not left_out
        assert [len(records(batch)) for batch in spared[3].values()].count(4) == 1, "half a step of eight ranks"


def saved():
    """A state from before the spike, as a rank of four wrote it."""
    with train(2, 4).run(seed=SEED, epoch=EPOCH, start=SAVED - 1) as iterator:
        next(iterator)
        return json.loads(json.dumps(iterator.state_dict()))


def test_states_saved_later_leave_it_out_too_and_stay_small():
    flow = train(0, 2).load_state_dict(saved(), skip=[SPIKE, ("web", 77)])
    with iter(flow) as iterator:
        list(islice(iterator, 30))
        state = json.loads(json.dumps(iterator.state_dict()))
    assert state["skip"] == {"counted": [SPIKE * 32, SPIKE * 32 + 32], "records": {"web": [77, 78]}}
    assert len(json.dumps(state)) < 1024
    with iter(train(1, 4).load_state_dict(state)) as iterator:
        numbers = [iterator.position - 1 for _ in islice(iterator, 400)]
    assert SPIKE not in numbers
    assert numbers[0] == SAVED + 15
    assert len(numbers) == 400


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}, {"processes": 1}])
def test_workers_leave_it_out_as_this_process_does(workers):
    serial = list(islice(iter(train(1, 2).load_state_dict(saved(), skip=[SAVED + 3, ("web", 5)])), 20))
    fetched = train(1, 2, **workers) if workers else ff.pipe(train(1, 2), ff.prefetch(2))
    with iter(fetched.load_state_dict(saved(), skip=[SAVED + 3, ("web", 5)])) as iterator:
        assert same(list(islice(iterator, 20)), serial)


def test_the_records_alone_can_be_left_out_of_every_epoch():
    bad = ff.origins(train(0, 4), SPIKE, seed=SEED, epoch=EPOCH)[:3]
    values = {one.index + (1_000_000 if one.source == "code" else 0) for one in bad}
    with iter(train(0, 4).load_state_dict(saved(), skip=bad)) as iterator:
        batches = numbered(iterator, SPIKE - SAVED + 3)
    whole = next(train(0, 4).run(seed=SEED, epoch=EPOCH, start=SPIKE))
    assert records(batches[SPIKE]) == [record for record in records(whole) if record not in values]
    assert len(records(batches[SPIKE])) == 5
    assert all(np.isin(records(batch), list(values)).sum() == 0 for batch in batches.values())
