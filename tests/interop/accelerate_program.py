"""A tiny model trained in a loop of Accelerate's; it writes down what it trains on, and may be killed."""

import json
import os
import signal

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("torchdata")

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from flows_for_loaders import jitter, passes
from forking import become_ranks
from torch.utils.data import DataLoader

import flowfn as ff
from flowfn.interop import as_dataset, to_torch


def pipeline(sized, *more):
    """Batches of [numbers that tell the datapoints, inputs]: 7 in each epoch, or some 6 that are not counted."""
    dropped = None if sized else ff.filter(passes)
    flow = ff.pipe(range(13), ff.shuffle(), ff.map(jitter, rng=True), dropped, *more, ff.batch(2), to_torch())
    return flow.reset_state(5)


class Place:
    """Which epoch it is, and how many of its batches were trained on."""

    def __init__(self):
        self.epoch = self.batches = 0

    def state_dict(self):
        return vars(self).copy()

    def load_state_dict(self, state):
        vars(self).update(state)


def main(folder, name, world=1, **options):
    """Train in as many processes, each of which writes a file of its own."""
    torch.set_num_threads(1)
    if world > 1:
        AcceleratorState._reset_state(reset_partial_state=True)
        name = f"{name}-{become_ranks(world)}"
    train(folder, name, **options)


def train(folder, name, kind="flow", sized=True, kill=None, save=None, late=False, accumulated=1, resume=False):
    config = DataLoaderConfiguration(dispatch_batches=False, use_stateful_dataloader=kind == "stateful")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulated, dataloader_config=config)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 0.1))
    share = ff.shard(accelerator.process_index, accelerator.num_processes, remainder="drop")
    flow, place, total = pipeline(sized, share), Place(), Place()
    accelerator.register_for_checkpointing(place, total)
    if kind == "flow":
        accelerator.register_for_checkpointing(flow)
        loader = flow
    else:
        loader = accelerator.prepare(DataLoader(as_dataset(flow), batch_size=None, generator=torch.Generator()))
    if resume:
        accelerator.load_state(f"{folder}/saved", load_kwargs={"weights_only": True})

    with open(f"{folder}/{name}.jsonl", "w", buffering=1) as log:
        for epoch in range(flow.epoch if kind == "flow" else place.epoch, 3):
            batches = loader
            if kind != "flow":
                loader.set_epoch(epoch)
            if kind == "skip" and resume and epoch == place.epoch:
                batches = skip_first_batches(loader, place.batches)
            elif not resume or epoch != place.epoch:
                place.batches = 0
            place.epoch = epoch
            for numbers, inputs in batches:
                if total.batches == kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                with accelerator.accumulate(model):
                    loss = (model(inputs[:, None].float()) ** 2).mean()
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
                log.write(json.dumps([epoch, numbers.tolist(), inputs.tolist(), loss.item()]) + "\n")
                place.batches += 1
                total.batches += 1
                if total.batches == save and not late:
                    accelerator.save_state(f"{folder}/saved")
            if total.batches == save and late:
                place.epoch, place.batches = epoch + 1, 0
                accelerator.save_state(f"{folder}/saved")
        log.write(json.dumps([p.tolist() for p in model.parameters()]) + "\n")
