#!/usr/bin/env bash
# torch 2.14.1, Python 3.11: torch is seeded alike before each pass over a shuffled DataLoader. Is the order the same in each?
#
# Guess: yes, with any workers: the order is drawn of torch's global generator when a pass begins.
# Seen: with persistent_workers=True the first pass has another order than all later ones. It alone draws the seed of the workers before
# its sampler draws; so an epoch that is seeded by its number is another one if it is the first of a program, as it is after a resume.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.utils.data import DataLoader


def orders(**options):
    """The order in each of three passes, which are seeded alike."""
    loader = DataLoader(range(8), batch_size=None, shuffle=True, **options)
    seen = []
    for _ in range(3):
        torch.manual_seed(0)
        seen.append([int(one) for one in loader])
    return seen


same = {}
for name, options in {
    "no worker": {},
    "a worker": {"num_workers": 1},
    "a worker that stays": {"num_workers": 1, "persistent_workers": True},
}.items():
    first, second, third = orders(**options)
    same[name] = first == second, second == third
    print(f"torch {torch.__version__}, {name}: {first}, {second}, {third}")
raise SystemExit(same != {"no worker": (True, True), "a worker": (True, True), "a worker that stays": (False, True)})
PYTHON
