"""A tiny model that the Trainer of transformers trains on a flow; it writes down what it trains on, and may be killed."""

import json
import logging
import os
import signal

import pytest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import torch
import transformers
from torch.utils.data import DataLoader

import flowfn as ff
from flowfn.interop import as_dataset, to_torch

logging.disable(logging.WARNING)


def jitter(x, rng):
    return {"numbers": x, "inputs": x / 16 + rng.random(dtype="f4")}


def passes(record):
    return record["inputs"] > 0.2


def pipeline(kind):
    """Batches {"numbers": which datapoints, "inputs": ...}: 7 in each epoch, or some 6 that are not counted, or without an end."""
    stages = {
        "length": [],
        "no length": [ff.filter(passes)],
        "cycle": [ff.filter(passes), ff.batch(2), ff.cycle()],
    }[kind]
    last = None if kind == "cycle" else ff.batch(2)
    return ff.pipe(range(13), ff.shuffle(), ff.map(jitter, rng=True), *stages, last, to_torch()).reset_state(5)


class Model(torch.nn.Module):
    def __init__(self, log, kill):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        self.log, self.kill = open(log, "w", buffering=1), kill  # noqa: SIM115

    def forward(self, numbers, inputs):
        loss = (self.layers(inputs[:, None].float()) ** 2).mean()
        self.log.write(json.dumps([numbers.tolist(), inputs.tolist(), loss.item()]) + "\n")
        return {"loss": loss}


class Kill(transformers.TrainerCallback):
    def __init__(self, steps):
        self.steps = steps

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.steps:
            os.kill(os.getpid(), signal.SIGKILL)


class Trainer(transformers.Trainer):
    def get_train_dataloader(self):
        if self.given == "flow":
            return self.flow
        loader = DataLoader(as_dataset(self.flow), batch_size=None)
        return self.accelerator.prepare(loader) if self.given == "prepared" else loader


def main(folder, name, kind="length", given="prepared", kill=None, resume=None, **options):
    torch.set_num_threads(1)
    arguments = transformers.TrainingArguments(
        folder,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="steps",
        save_steps=1,
        learning_rate=0.1,
        accelerator_config={"dispatch_batches": False},
        **options,
    )
    model = Model(f"{folder}/{name}.jsonl", kill)
    trainer = Trainer(model, arguments, callbacks=[Kill(kill)])
    trainer.flow, trainer.given = pipeline(kind), given
    trainer.train(resume_from_checkpoint=resume)
    model.log.write(json.dumps([p.tolist() for p in model.parameters()]) + "\n")
