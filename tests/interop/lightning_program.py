"""A tiny model that Lightning trains on a flow; it writes down what it trains on, and may be killed."""

import json
import logging
import os
import signal
import warnings
from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torchdata")

import lightning
import torch
from flows_for_loaders import jitter, passes
from forking import become_ranks
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import flowfn as ff
from flowfn.interop import as_dataset, as_loader, to_torch

warnings.simplefilter("ignore")
logging.getLogger("lightning").setLevel(logging.ERROR)


def pipeline(sized, workers=0, rank=0, world=1):
    """Batches of [numbers that tell the datapoints, inputs]: 7 in each epoch, or some 6 that are not counted."""
    flow = ff.pipe(
        range(13),
        ff.shuffle(),
        ff.map(jitter, rng=True),
        None if sized else ff.filter(passes),
        ff.shard(rank, world, remainder="drop"),
        ff.batch(2),
        ff.prefetch(2, processes=workers) if workers else None,
        to_torch(),
    )
    return flow.reset_state(5)


class Model(lightning.LightningModule):
    def __init__(self, log, kill, flow, kind):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.kill, self.flow, self.kind = torch.nn.Linear(1, 1), kill, flow, kind
        self.log = log

    def on_fit_start(self):
        rank = f"-{self.global_rank}" if self.trainer.world_size > 1 else ""
        self.log_file = open(f"{self.log}{rank}.jsonl", "w", buffering=1)  # noqa: SIM115

    def training_step(self, batch, index):
        if self.trainer.fit_loop.total_batch_idx == self.kill:
            self.trainer.strategy.barrier()
            os.kill(os.getpid(), signal.SIGKILL)
        numbers, inputs = batch
        loss = (self.layer(inputs[:, None].float()) ** 2).mean()
        told = [self.current_epoch, numbers.tolist(), inputs.tolist(), loss.item()]
        self.log_file.write(json.dumps(told) + "\n")
        return loss

    def validation_step(self, batch, index):
        self.layer(batch[1][:, None].float())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)

    def on_train_end(self):
        self.log_file.write(json.dumps([p.tolist() for p in self.parameters()]) + "\n")

    def train_dataloader(self):
        return loader(self.kind, self.flow(self.trainer), self.trainer)


class TakingModel(Model):
    """Takes its batches itself."""

    def training_step(self, dataloader_iter):
        batch, index, _ = next(dataloader_iter)
        return super().training_step(batch, index)


class DrawingModel(Model):
    """Draws of torch's random numbers in each step, as dropout does."""

    def training_step(self, batch, index):
        numbers, inputs = batch
        return super().training_step((numbers, inputs * torch.rand(())), index)


class RememberingModel(DrawingModel):
    """Saves torch's random numbers."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["random"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint):
        torch.set_rng_state(checkpoint["random"])


MODELS = {"taken": TakingModel, "drawing": DrawingModel, "remembering": RememberingModel}


class Save(lightning.Callback):
    """Save a checkpoint at one moment: in a hook, when so many batches have begun."""

    def __init__(self, folder, hook, batches):
        self.path, self.batches = folder + "/saved.ckpt", batches
        self.saved = Path(self.path).exists()
        setattr(self, hook, self.save)

    def save(self, trainer, *_):
        if trainer.fit_loop.total_batch_idx + 1 == self.batches and not self.saved:
            self.saved = True
            trainer.save_checkpoint(self.path)


def loader(kind, flow, trainer):
    if kind == "flow":
        return flow
    if kind == "as_loader":
        return as_loader(flow, trainer)
    make = DataLoader if kind == "DataLoader" else StatefulDataLoader
    return make(as_dataset(flow), batch_size=None)


def main(
    folder,
    name,
    kind="as_loader",
    sized=False,
    workers=0,
    world=1,
    strategy="auto",
    hook=None,
    batches=None,
    kill=None,
    options=None,
    resume=None,
):
    """Train in as many processes, which are started here, or by a strategy; each writes a file of its own."""
    if world > 1 and strategy == "auto":
        become_ranks(world)
    torch.set_num_threads(1)
    saver = Save(folder, hook, batches) if hook and hook != "ModelCheckpoint" else None
    if hook == "ModelCheckpoint":
        saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"max_epochs": 3, **(options or {})}
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=hook == "ModelCheckpoint",
        callbacks=[saver] if saver else [],
        **options,
    )

    def flow_of(trainer):
        return pipeline(sized, workers, trainer.global_rank, trainer.world_size)

    how, _, made = kind.rpartition(" ")
    flow = flow_of if how == "hook" else flow_of(trainer)
    model = MODELS.get(how, Model)(f"{folder}/{name}", kill, flow, made)
    trained = None if how == "hook" else loader(made, flow, trainer)
    validated = ff.pipe(range(4), ff.map(jitter, rng=True), ff.batch(2), to_torch(), ff.freeze())
    trainer.fit(model, trained, validated if "val_check_interval" in options else None, ckpt_path=resume)
