#!/usr/bin/env bash
# torch 2.14.1 (numpy 2.4.6), Python 3.11, gloo on the CPU: whose numbers does torch.distributed.checkpoint save, if ranks differ?
#
# Guess: those of rank 0, the coordinator, as the docstring of create_default_local_save_plan says ("on non-coordinator ranks, this
# function ignores tensors and non-tensor objects"); or, if not, those of one rank.
# Seen: a dict is taken apart, all ranks offer all of its entries, and each entry is written by the rank that has least to write so
# far (_dedup_save_plans.py). So the entries are dealt out: a dict of four numbers in which ranks differ comes back as none of them had
# it. And when it is loaded, only those entries are that the dict to be loaded into has already; the others are passed over in silence.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$work/ranks.py" <<'PYTHON'
import sys
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

warnings.simplefilter("ignore")
folder = sys.argv[1]


def save(rank):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    dcp.save({"state": dict.fromkeys("abcd", rank)}, checkpoint_id=f"{folder}/checkpoint")
    dist.destroy_process_group()


torch.multiprocessing.start_processes(save, nprocs=2, start_method="fork")
whole, part = {"state": dict.fromkeys("abcd")}, {"state": dict.fromkeys("ac")}
for state in (whole, part):
    dcp.load(state, checkpoint_id=f"{folder}/checkpoint", no_dist=True)
print(f"torch {torch.__version__}: loaded {whole['state']}; into a dict without b and d {part['state']}")
raise SystemExit(sorted(whole["state"].values()) != [0, 0, 1, 1] or set(part["state"]) != {"a", "c"})
PYTHON
GLOO_SOCKET_IFNAME=lo timeout 300 "$work/venv/bin/python" "$work/ranks.py" "$work"
