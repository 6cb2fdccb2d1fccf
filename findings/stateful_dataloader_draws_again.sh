#!/usr/bin/env bash
# torchdata 0.11.0 (torch 2.14.1), Python 3.11: a checkpoint holds the state of a StatefulDataLoader in the middle of an epoch and that of
# torch's random numbers. Both are loaded, the loader first: does the model draw what it would have drawn without an interruption?
#
# Guess: yes. The loader reads in order and has no workers, so it draws nothing, least of all when it goes on in the middle.
# Seen: no. Each pass, a resumed one too, takes a number out of torch's global generator when it begins (the seed of workers, had it any),
# which is after the loading, so what dropout draws is another number from there on. With generator=torch.Generator() of its own it does not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torchdata==0.11.0 torch==2.14.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from torchdata.stateful_dataloader import StatefulDataLoader


def loader(**options):
    return StatefulDataLoader(range(6), batch_size=1, **options)


def trained(batches, save=None):
    """What the model draws at each batch."""
    drawn = []
    for number, _ in enumerate(batches, 1):
        drawn.append(round(torch.rand(()).item(), 4))
        if save is not None and number == 3:
            save.update(loader=batches.state_dict(), random=torch.get_rng_state())
    return drawn


seen = {}
for name, options in {"as it comes": dict, "generator=torch.Generator()": lambda: {"generator": torch.Generator()}}.items():
    torch.manual_seed(0)
    saved = {}
    whole = trained(loader(**options()), saved)
    resumed = loader(**options())
    resumed.load_state_dict(saved["loader"])
    torch.set_rng_state(saved["random"])
    rest = trained(resumed)
    seen[name] = len(rest), rest == whole[3:]
    print(f"torchdata {version('torchdata')}, {name}: {whole} without an interruption, {rest} behind the third batch")
raise SystemExit(seen != {"as it comes": (3, False), "generator=torch.Generator()": (3, True)})
PYTHON
