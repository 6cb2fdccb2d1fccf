#!/usr/bin/env bash
# datasets 5.2.0, Python 3.11: does set_epoch change the order of an IterableDataset that nobody has shuffled?
#
# Guess: no; the epoch is for shuffle(), "to get a different shuffle at each epoch", and without it there is nothing to shuffle.
# Seen: it does. In every epoch but 0 the shards come in an order of that epoch, whether shuffle() was called or not, and loops that
# call set_epoch for their user (torch's trainers do) shuffle them so. Behind skip() and take() they stay as they are, so
# dataset.skip(n) in a later epoch is not the rest of the pass over dataset.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
HF_HOME="$work/home" "$work/venv/bin/python" - <<'PYTHON'
import datasets


def numbers(shards):
    for shard in shards:
        yield from ({"x": 10 * shard + i} for i in range(10))


def firsts(epoch, skipped):
    stream = datasets.IterableDataset.from_generator(numbers, gen_kwargs={"shards": [0, 1, 2, 3]})
    stream = stream.skip(skipped) if skipped else stream
    stream.set_epoch(epoch)
    return [row["x"] for row in stream][:: 10]


seen = {(epoch, skipped): firsts(epoch, skipped) for epoch in (0, 2) for skipped in (0, 5)}
print(f"datasets {datasets.__version__}: every tenth number, by (epoch, skipped): {seen}")
right = {(0, 0): [0, 10, 20, 30], (0, 5): [5, 15, 25, 35], (2, 0): [30, 20, 0, 10], (2, 5): [5, 15, 25, 35]}
raise SystemExit(seen != right)
PYTHON
