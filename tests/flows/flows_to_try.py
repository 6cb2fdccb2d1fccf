"""Functions and flows whose passes are looked at."""

import flowfn as ff


def add_one(x):
    return x + 1


def is_odd(x):
    return x % 2 == 1


def jitter(x, rng):
    return x, int(rng.integers(10**9))


# Who decides seed and epoch


def shuffled(n=50):
    return ff.pipe(range(n), ff.shuffle(), ff.map(jitter, rng=True))


# Elastic states


def ranks(
    world, make=lambda rank, world: ff.pipe(range(1000), ff.shuffle(), ff.shard(rank, world), ff.map(jitter, rng=True))
):
    return [make(rank, world).reset_state(3) for rank in range(world)]
