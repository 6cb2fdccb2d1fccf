#!/usr/bin/env bash
# megatron-core 0.16.1 (torch 2.14.1, numpy 2.4.6), Python 3.11: what does IndexedDatasetBuilder(dtype=uint16) do with a token of 70000?
#
# Guess: OverflowError, as numpy 2 says of integers that a dtype has no place for.
# Seen: that, if the document is a list (add_document); of a tensor (add_item, which preprocess_data.py calls) the token is written as
# 4464, and -1 as 65535, without a word. A tokenizer that has grown beyond the dtype, or an ignored label of -1, becomes other tokens.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile megatron-core==0.16.1 torch==2.14.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder


def builder(name):
    return IndexedDatasetBuilder(f"{sys.argv[1]}/{name}.bin", dtype=np.uint16)


made = builder("tensor")
made.add_item(torch.tensor([1, 70000, -1]))
made.end_document()
made.finalize(f"{sys.argv[1]}/tensor.idx")
read = IndexedDataset(f"{sys.argv[1]}/tensor")
tokens = read[0].tolist()
try:
    builder("list").add_document([1, 70000, -1], [3])
    told = "nothing"
except OverflowError as error:
    told = str(error)
print(f"megatron-core {version('megatron-core')}: [1, 70000, -1] as uint16: of a tensor {tokens}, of a list: {told}")
raise SystemExit(tokens != [1, 4464, 65535] or "out of bounds" not in told)
PYTHON
