#!/usr/bin/env bash
# datasets 5.2.0, Python 3.11: is copy.copy(stream) another IterableDataset?
#
# Guess: yes, a shallow one: what it is made of is shared, and its epoch and where it stands are its own.
# Seen: no. __getstate__ returns the attributes themselves, and __setstate__ makes them those of the copy, so both are one: set_epoch of
# the copy is that of the original, and so is load_state_dict. (And iterators of one stream write where they stand in one place, so
# state_dict() tells of whichever was started last.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
HF_HOME="$work/home" "$work/venv/bin/python" - <<'PYTHON'
import copy

import datasets

stream = datasets.Dataset.from_dict({"x": list(range(40))}).to_iterable_dataset(num_shards=4)
other = copy.copy(stream)
other.set_epoch(3)
seen = {"one and the same": vars(other) is vars(stream), "epoch of the original": stream.epoch}
print(f"datasets {datasets.__version__}: {seen}")
raise SystemExit(seen != {"one and the same": True, "epoch of the original": 3})
PYTHON
