"""Ten thousand ranks over a million million datapoints, simulated: what a rank costs, and what its state is worth."""

import json
import random
import sys

import flowfn as ff

MANY, RANKS = 10**12, 10**4


def pipeline(rank, world, n=MANY):
    noise = ff.map(lambda i, rng: [i, rng.integers(1 << 60)], rng=True)
    return ff.pipe(range(n), ff.shuffle(), noise, ff.shard(rank, world), ff.batch(4))


def calls(work):
    """How many functions are called, in Python and in C, on the way to what `work()` gives."""
    count = 0

    def note(frame, event, what):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        given = work()
    finally:
        sys.setprofile(before)
    return count, given


def started_stopped_and_resumed(rank, world, n):
    """Three batches of a rank, its state far behind them, and what comes there."""
    flow = pipeline(rank, world, n)
    iterator = iter(flow)
    for _ in range(3):
        next(iterator)
    far = flow.run(epoch=0, start=len(flow) // 2)
    next(far)
    state = json.loads(json.dumps(far.state_dict()))
    return next(iter(pipeline(rank, world, n).load_state_dict(state))), len(json.dumps(state))


def test_a_rank_costs_the_same_whichever_it_is_and_however_many_there_are():
    few, (_, small) = calls(lambda: started_stopped_and_resumed(1, 2, 10**6))
    for rank in (0, 4711, RANKS - 1):
        many, (_, size) = calls(lambda rank=rank: started_stopped_and_resumed(rank, RANKS, MANY))
        assert many < 1.2 * few
        assert size < small + 30


def test_ranks_share_every_datapoint_and_states_load_under_other_numbers_of_ranks():
    whole, ranks = ff.shuffle(range(MANY)), [0, RANKS - 1, *random.Random(0).sample(range(RANKS), 20)]
    for rank in ranks:
        share = ff.shard(rank, RANKS, whole)
        assert len(share) == MANY // RANKS
        assert [share[i] for i in (0, 1, -1)] == [whole[rank + RANKS * i] for i in (0, 1, len(share) - 1)]
    done = 3 * 4 * RANKS
    for saved, (rank, world) in zip(ranks, ((0, 1), (6, 7), (99_999, 10**5), (4711, RANKS))):
        with iter(pipeline(saved, RANKS)) as iterator:
            assert len([next(iterator) for _ in range(3)]) == 3
            state = json.dumps(iterator.state_dict())
        numbers, noise = next(iter(pipeline(rank, world).load_state_dict(json.loads(state))))
        places = [done + rank + world * i for i in range(4)]
        assert numbers.tolist() == [whole[place] for place in places]
        assert noise.tolist() == [pipeline(0, 1)[place // 4][1][place % 4] for place in places]
