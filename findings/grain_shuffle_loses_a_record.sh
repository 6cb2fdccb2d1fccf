#!/usr/bin/env bash
# grain 0.2.18, Python 3.11: does MapDataset.shuffle give every record once?
#
# Guess: yes; it is computed from the index, by a cipher that is a bijection for every length.
# Seen: not for lengths of 4**k + 1 from 65 537 on (65 537, 262 145, ...): in every epoch, whatever the seed, the last record does not come,
# and another comes twice. 16 385, 65 536 and 65 538 are right. IndexSampler(shuffle=True), so also DataLoader, does the same.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import grain


def lost(size, seed, epoch=0):
    shuffled = grain.MapDataset.range(size).shuffle(seed=seed)
    seen = {shuffled[i] % size for i in range(epoch * size, (epoch + 1) * size)}
    return sorted({*range(size)} - seen)


def lost_by_sampler(size):
    sampler = grain.samplers.IndexSampler(size, shuffle=True, seed=0, num_epochs=1)
    return sorted({*range(size)} - {sampler[i].record_key for i in range(size)})


by_size = {size: lost(size, 0) for size in (16385, 65536, 65537, 65538, 262145)}
by_seed = [lost(65537, *which) for which in ((1, 0), (12345, 0), (0, 1))]
print(f"grain {version('grain')}: records that never come, by size: {by_size}")
print(f"of 65537, with other seeds and in another epoch: {by_seed}; by IndexSampler: {lost_by_sampler(65537)}")
right = {16385: [], 65536: [], 65537: [65536], 65538: [], 262145: [262144]}
raise SystemExit(not (by_size == right and by_seed == [[65536]] * 3 and lost_by_sampler(65537) == [65536]))
PYTHON
