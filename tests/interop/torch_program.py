"""A tiny model trained in a loop of one's own, over a flow or a loader; it writes down what it trains on, and may be killed."""

import json
import os
import signal

import pytest

pytest.importorskip("torchdata")

import torch
from flows_for_loaders import jitter, passes
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import flowfn as ff
from flowfn.interop import as_dataset, to_torch

LOADERS = {"DataLoader": DataLoader, "StatefulDataLoader": StatefulDataLoader}


def pipeline(sized, processes=0):
    """Batches of [numbers that tell the datapoints, inputs]: 7 in each epoch, or some 6 that are not counted."""
    dropped = None if sized else ff.filter(passes)
    ahead = ff.prefetch(2, processes=processes) if processes else None
    return ff.pipe(range(13), ff.shuffle(), ff.map(jitter, rng=True), dropped, ff.batch(2), ahead, to_torch())


def data_of(kind, sized, workers, own):
    """What is iterated; if `own`, a loader draws from a generator of its own."""
    if kind == "flow":
        return pipeline(sized, workers).reset_state(5)
    generator = torch.Generator() if own else None
    dataset = as_dataset(pipeline(sized).reset_state(5))
    return LOADERS[kind](dataset, batch_size=None, num_workers=workers, generator=generator)


def main(folder, name, kind="flow", sized=True, workers=0, own=True, save=None, late=False, kill=None, resume=False):
    """`save` behind so many batches, or, if `late`, behind the pass that has them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    data, begin, done = data_of(kind, sized, workers, own), 0, 0
    stateful = {"model": model, "optimizer": optimizer} | ({"data": data} if kind != "DataLoader" else {})
    if resume:
        saved = torch.load(f"{folder}/saved.pt")
        for key, one in stateful.items():
            one.load_state_dict(saved[key])
        torch.set_rng_state(saved["random"])
        begin, done = saved["epoch"], saved["done"]
        if kind == "DataLoader":
            data.dataset.set_epoch(begin)

    def checkpoint(epoch):
        states = {key: one.state_dict() for key, one in stateful.items()}
        torch.save({"epoch": epoch, "done": done, "random": torch.get_rng_state(), **states}, f"{folder}/saved.pt")

    with open(f"{folder}/{name}.jsonl", "w", buffering=1) as log:
        for epoch in range(data.epoch if kind == "flow" else begin, 3):
            for numbers, inputs in data:
                if done == kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                loss = (model(inputs[:, None].float()) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                log.write(json.dumps([epoch, numbers.tolist(), inputs.tolist(), loss.item()]) + "\n")
                done += 1
                if done == save and not late:
                    checkpoint(epoch)
            if done == save and late:
                checkpoint(epoch + 1)
        log.write(json.dumps([p.tolist() for p in model.parameters()]) + "\n")
