#!/usr/bin/env bash
# accelerate 1.15.0 (torch 2.14.1), Python 3.11, one process on the CPU: what does prepare() do to the batches of a DataLoader over an
# IterableDataset that makes its batches itself (batch_size=None)?
#
# Guess: nothing but moving their tensors to the device, since there is but one process.
# Seen: such loaders are dispatched (dispatch_batches=None means True for them), in one process too: each batch is taken for rows of its
# first tensor, and every other tensor is cut to as many. Of four images and the eleven boxes on them four boxes come, without a word.
# DataLoaderConfiguration(dispatch_batches=False) leaves them whole.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile accelerate==1.15.0 torch==2.14.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import accelerate
import torch
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader, IterableDataset


class Batches(IterableDataset):
    def __iter__(self):
        yield {"images": torch.zeros(4, 3, 8, 8), "boxes": torch.zeros(11, 4)}


def boxes(**options):
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))
    (batch,) = accelerator.prepare(DataLoader(Batches(), batch_size=None))
    return tuple(batch["boxes"].shape)


seen = boxes(), boxes(dispatch_batches=False)
print(f"accelerate {accelerate.__version__}: boxes of shape (11, 4) are {seen[0]}; with dispatch_batches=False {seen[1]}")
raise SystemExit(seen != ((4, 4), (11, 4)))
PYTHON
