"""The order of streams is a promise: these digests change with a major version only."""

from hashlib import blake2b

import pytest

import flowfn as ff

GOLDEN = {
    "shuffle, table": (lambda: ff.pipe(range(1000), ff.shuffle()), "ef358f0c1347d3d7"),
    "shuffle, network": (lambda: ff.pipe(range(10**6), ff.shuffle(), ff.take(1000)), "77fdf80f5333b3c0"),
    "shuffle, window": (lambda: ff.pipe(range(1000), ff.shuffle(window=64)), "e456576efb4d6a59"),
    "shuffle_buffer": (lambda: ff.pipe(range(1000), ff.shuffle_buffer(64)), "04b75b92ee9964ee"),
    "split": (lambda: ff.split(range(1000), 0.3)[0], "a8d1f0c8a8f4f2c0"),
    "rounds": (lambda: ff.pipe(range(100), ff.shuffle(), ff.repeat(3)), "7856804878f0da99"),
    "raw bits": (lambda: ff.pipe(range(100), ff.map(_bits, rng=True)), "88db944122ab6c25"),
    "raw bits below a filter": (
        lambda: ff.pipe(range(100), ff.filter(_odd), ff.flat_map(_twice), ff.map(_bits, rng=True)),
        "32e702b96987bd7a",
    ),
    "raw bits below a shard": (lambda: ff.pipe(range(100), ff.shuffle(), ff.shard(1, 3), ff.map(_bits, rng=True)), "88f02579d05c5a9b"),
}


def _bits(x, rng):
    return (x, int(rng.bit_generator.random_raw()))


def _odd(x):
    return x % 2


def _twice(x):
    return [x, x]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_order_of_streams_is_kept(name):
    make, golden = GOLDEN[name]
    given = [list(make().run(seed=7, epoch=epoch)) for epoch in (0, 1)]
    assert blake2b(repr(given).encode(), digest_size=8).hexdigest() == golden
