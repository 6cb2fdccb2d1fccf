#!/usr/bin/env bash
# megatron-core 0.16.1 (torch 2.14.1, numpy 2.4.6), Python 3.11: what does IndexedDataset read of a .bin file that is cut off?
#
# Guess: an error, mapped into memory or not.
# Seen: mapped, "ValueError: buffer is smaller than requested size" of the sequences that are not there; with mmap=False
# (mmap_bin_files=False) there is no error: they have their lengths, and hold what happened to lie in memory (it reads into numpy.empty
# and does not look how much was read). A copy that is not whole is trained on.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile megatron-core==0.16.1 torch==2.14.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import os
import sys
from importlib.metadata import version

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

prefix = f"{sys.argv[1]}/text"
builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.int32)
for number in range(3):
    builder.add_item(torch.full((1000,), number + 7))
    builder.end_document()
builder.finalize(f"{prefix}.idx")
os.truncate(f"{prefix}.bin", 4000)


def read(**options):
    dataset = IndexedDataset(prefix, **options)
    try:
        return [len(dataset[number]) for number in range(3)]
    except ValueError as error:
        return str(error)


seen = read(mmap=True), read(mmap=False)
print(f"megatron-core {version('megatron-core')}: lengths read of a third of a file: mapped {seen[0]!r}, mmap=False {seen[1]}")
raise SystemExit(seen != ("buffer is smaller than requested size", [1000, 1000, 1000]))
PYTHON
