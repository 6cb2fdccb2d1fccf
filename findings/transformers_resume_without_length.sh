#!/usr/bin/env bash
# transformers 5.24.0 (accelerate 1.15.0, torch 2.14.1), Python 3.11, on the CPU: where does Trainer go on, with a loader that has no
# length, when the checkpoint was saved in the second pass over it?
#
# Guess: where it was, or with a warning that it cannot know.
# Seen: it takes all steps for one pass (max_steps for its length) and skips that many batches of the first one; this leaves nothing of
# it, and the second pass begins anew. Steps 6 and 7 had trained on batches 0 and 1 of the second pass; after the resume they come again.
# A loader without an end (passes that follow one another within one iteration) is resumed exactly.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile transformers==5.24.0 accelerate==1.15.0 torch==2.14.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import logging
import sys

import torch
import transformers
from torch.utils.data import DataLoader, IterableDataset

logging.disable(logging.WARNING)


class Five(IterableDataset):
    """Five batches, which tell the pass and their place in it."""

    def __init__(self, endless):
        self.endless, self.epoch = endless, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for epoch in range(self.epoch, 99 if self.endless else self.epoch + 1):
            for i in range(5):
                yield {"x": torch.tensor([[10.0 * epoch + i]])}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []

    def forward(self, x):
        self.seen.append(int(x))
        return {"loss": self.layer(x).sum()}


def train(endless, folder, **options):
    class Trainer(transformers.Trainer):
        def get_train_dataloader(self):
            return self.accelerator.prepare(DataLoader(Five(endless), batch_size=None))

    model = Model()
    arguments = transformers.TrainingArguments(
        folder, max_steps=9, save_steps=7, use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no"
    )
    trainer = Trainer(model, arguments)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(**options)
    return model.seen


for endless, right in ((False, False), (True, True)):
    folder = f"{sys.argv[1]}/{endless}"
    whole = train(endless, folder)
    resumed = train(endless, folder, resume_from_checkpoint=folder + "/checkpoint-7")
    print(f"transformers {transformers.__version__}, {'endless' if endless else 'five batches'}: {whole}; behind step 7 {resumed}")
    if (whole[7:] == resumed) is not right or not right and resumed != [10, 11]:
        raise SystemExit(1)
PYTHON
