#!/usr/bin/env bash
# lightning 2.6.6 (torch 2.14.1), Python 3.11: how does fit(ckpt_path=...) go on from a checkpoint that was saved in on_train_epoch_end
# (where ModelCheckpoint saves, if nothing is validated), with a loader that has state_dict and load_state_dict?
#
# Guess: the loader's state is loaded like that of any other checkpoint, and the second epoch has as many batches as the first.
# Seen: with max_epochs the state is in the checkpoint, but load_state_dict is not called, for Lightning holds that a finished epoch is
# not "restarted"; a loader that counts its passes itself gives the first again. With max_steps each resume is a "restart": the state
# is loaded, but the counter of the epoch's batches stays at its end, and what is fetched is added to it, so the first batch is taken
# for the last and the loader begun again. From the middle of an epoch both go on as they should.
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


class Counting:
    """Four batches in each pass, which tell the pass."""

    def __init__(self):
        self.passes, self.loads = 0, 0

    def __iter__(self):
        for i in range(4):
            if i == 0:
                self.passes += 1
            yield torch.tensor([[10.0 * self.passes + i]])

    def __len__(self):
        return 4

    def state_dict(self):
        return {"passes": self.passes}

    def load_state_dict(self, state):
        self.passes, self.loads = state["passes"], self.loads + 1


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []

    def training_step(self, batch, index):
        self.seen.append(int(batch))
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class Save(lightning.Callback):
    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(sys.argv[1] + "/saved.ckpt")


def fit(limits, *callbacks, **options):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = lightning.Trainer(accelerator="cpu", callbacks=list(callbacks), **limits, **quiet)
    model, loader = Model(), Counting()
    trainer.fit(model, loader, **options)
    return model.seen, loader.loads


def resumed(**limits):
    """The batches behind the first epoch as they are without an interruption, as they are after one, and how many states were loaded."""
    whole, _ = fit(limits, Save())
    return whole[4:], *fit(limits, ckpt_path=sys.argv[1] + "/saved.ckpt")


epochs, steps = resumed(max_epochs=2), resumed(max_steps=8)
for name, (right, seen, loads) in {"max_epochs": epochs, "max_steps": steps}.items():
    print(f"lightning {lightning.__version__}, {name}: {right} without an interruption; {seen} after one, {loads} states loaded")
right = [20, 21, 22, 23]
raise SystemExit((epochs, steps) != ((right, [10, 11, 12, 13], 0), (right, [20, 30, 31, 32], 1)))
PYTHON
