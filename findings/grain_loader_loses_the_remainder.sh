#!/usr/bin/env bash
# grain 0.2.18, Python 3.11: which records do three shards of grain.load see together, of 10 and of 8, with drop_remainder=False (the
# default of ShardOptions)?
#
# Guess: all of them; the shards are of 4, 3 and 3 records, and only drop_remainder=True leaves some out.
# Seen: 9 of 10, and 6 of 8. The sampler cuts the records into blocks of 4, 3 and 3, but the loader reads as many of each as all shards
# have (10 // 3), so the last records of the larger blocks never come: 3 of 10, 2 and 5 of 8. With two epochs the first shard reads
# [0, 1, 2, 3, 0, 1]. The same with DataLoader(sampler=IndexSampler(..., shard_options=...)); shard_options given to DataLoader itself
# deal the records out by turns, and leave out 9 of 10.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import grain


def shards(size, epochs=1):
    of = [grain.sharding.ShardOptions(shard, 3, drop_remainder=False) for shard in range(3)]
    return [[*grain.load(range(size), num_epochs=epochs, shard_options=one)] for one in of]


def dealt(size):
    sampler = grain.samplers.IndexSampler(size, num_epochs=1)
    of = [grain.sharding.ShardOptions(shard, 3, drop_remainder=False) for shard in range(3)]
    return [[*grain.DataLoader(data_source=range(size), sampler=sampler, shard_options=one)] for one in of]


seen = shards(10), shards(8), shards(10, 2)[0], dealt(10)
print(f"grain {version('grain')}: of 10: {seen[0]}, of 8: {seen[1]}, first of 10 twice: {seen[2]}, by the loader itself: {seen[3]}")
right = (
    [[0, 1, 2], [4, 5, 6], [7, 8, 9]],
    [[0, 1], [3, 4], [6, 7]],
    [0, 1, 2, 3, 0, 1],
    [[0, 3, 6], [1, 4, 7], [2, 5, 8]],
)
raise SystemExit(seen != right)
PYTHON
