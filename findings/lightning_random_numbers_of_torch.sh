#!/usr/bin/env bash
# lightning 2.6.6 (torch 2.14.1), Python 3.11: does a training that goes on by fit(ckpt_path=...) draw the random numbers of torch that it
# would have drawn without an interruption (those of dropout, say)?
#
# Guess: yes, the checkpoint holds the state of torch's generator beside weights, optimizers and loops; Accelerate and transformers save it.
# Seen: no. The checkpoint holds nothing of it, so the numbers after a resume are those of the beginning of the program. A module that saves
# torch.get_rng_state() in on_save_checkpoint and sets it in on_load_checkpoint draws on.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile lightning==2.6.6 torch==2.14.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import logging
import sys

import lightning
import torch

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
SAVED = sys.argv[1] + "/saved.ckpt"


class Six:
    """Six batches; nothing of torch's random numbers is drawn for them."""

    def __iter__(self):
        return iter([torch.ones(1, 1)] * 6)

    def __len__(self):
        return 6


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.drawn = torch.nn.Linear(1, 1), []

    def training_step(self, batch, index):
        self.drawn.append(round(torch.rand(()).item(), 4))
        return self.layer(batch).sum()

    def on_train_batch_end(self, outputs, batch, index):
        if index == 2:
            self.trainer.save_checkpoint(SAVED)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class Saving(Model):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["random"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint):
        torch.set_rng_state(checkpoint["random"])


def drawn(module, **options):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    model = module()
    lightning.Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(model, Six(), **options)
    return model.drawn


seen = {}
for module in (Model, Saving):
    whole, resumed = drawn(module), drawn(module, ckpt_path=SAVED)
    seen[module] = resumed == whole[:3], resumed == whole[3:]
    print(f"lightning {lightning.__version__}, {module.__name__}: {whole} without an interruption, {resumed} behind the third batch")
raise SystemExit(seen != {Model: (True, False), Saving: (False, True)})
PYTHON
