"""Train with Lightning on scanned digits, kill the process in an epoch, and end with the very same weights.

A small convolutional network with dropout learns scikit-learn's 1797 digits from batches that are shuffled and
augmented anew in each epoch, made in worker processes, and given to Lightning's Trainer by `as_loader`. It is trained
from beginning to end, and again in another process, which is killed without warning in the middle of an epoch. A third
one, with another number of workers, goes on from the newest checkpoint that ModelCheckpoint wrote. Then the weights of
both trainings are equal to the last bit.

    pip install "flowfn[examples,torch]" lightning
    python examples/lightning_training.py
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import flowfn as ff
from flowfn.image import normalize
from flowfn.interop import as_loader, to_torch

try:
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from sklearn.datasets import load_digits
except ImportError as error:
    install = 'pip install "flowfn[examples,torch]" lightning'
    raise SystemExit(f"This example needs {error.name}: {install} brings it.") from error

SAVED_EVERY = 10
NORMALIZE = normalize(4.9, 6.0)  # the mean of the digits' pixels, which are 0 to 16, and their standard deviation
REQUIRED_ACCURACY = 0.9


def main(options: argparse.Namespace) -> None:
    train_digits, test_digits = split_digits()
    epoch = len(pipeline(train_digits))
    killed_at = options.epochs // 2 * epoch + epoch // 2
    print(f"{len(train_digits)} digits to train on, {len(test_digits)} to test on", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Path(folder) / "whole", Path(folder) / "resumed"
        train(whole, options.epochs, processes=2)
        print("trained without an interruption, with 2 workers", flush=True)
        train_in_a_process(resumed, options.epochs, processes=2, kill_at=killed_at)
        print(f"trained again, and killed behind batch {killed_at} of {options.epochs * epoch}", flush=True)
        train_in_a_process(resumed, options.epochs, processes=3)
        compare(*(Digits.load_from_checkpoint(path / "trained.ckpt") for path in (whole, resumed)))


def train_in_a_process(folder: Path, epochs: int, processes: int, kill_at: int = 0) -> None:
    """Train in a new process, as this program with `--folder` does, and see that it ends as it should."""
    command = [sys.executable, __file__, "--folder", str(folder), "--epochs", str(epochs)]
    command += ["--processes", str(processes), "--kill-at", str(kill_at)]
    quiet = os.environ | {"PYTHONWARNINGS": "ignore:resource_tracker"}  # it clears away what a killed process leaves
    status = subprocess.run(command, env=quiet, timeout=600).returncode
    if status != (-signal.SIGKILL if kill_at else 0):
        raise SystemExit(f"the process that trains ended with status {status}")


def train(folder: Path, epochs: int, processes: int, kill_at: int = 0) -> None:
    """Train up to the end of the last epoch, from the beginning or from a checkpoint that is in the folder."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    newest = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)
    if newest:
        print(f"resumed from {newest.name}, with {processes} workers", flush=True)
    train_digits, test_digits = split_digits()
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=SAVED_EVERY)
    trainer = quiet_trainer(max_epochs=epochs, callbacks=[saving, Kill(kill_at)], default_root_dir=folder)
    loader = as_loader(pipeline(train_digits, processes), trainer)
    trainer.fit(Digits(), loader, test_batches(test_digits), ckpt_path=newest)
    trainer.save_checkpoint(folder / "trained.ckpt")


def quiet_trainer(**options: Any) -> lightning.Trainer:
    """A Trainer that computes the same each time, and writes nothing but checkpoints."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # of a folder with checkpoints, which is meant to have them
    return lightning.Trainer(
        accelerator="cpu",
        deterministic=True,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def split_digits() -> list[ff.Flow]:
    """The digits as [image (8, 8, 1), label] for training and testing: the same split in every epoch and process."""
    digits = load_digits()
    return ff.split(ff.from_arrays(digits.images[..., None].astype(np.float32), digits.target), 0.8, 0.2)


def pipeline(train: ff.Flow, processes: int = 2) -> ff.Flow:
    """Batches made in worker processes, the number of which changes nothing of them."""
    return ff.pipe(
        train,
        ff.shuffle(),
        ff.map_component(augment, 0, rng=True),
        ff.batch(32),
        ff.map_component(NORMALIZE, 0),
        ff.prefetch(4, processes=processes),
        to_torch(),
    )


def test_batches(test: ff.Flow) -> ff.Flow:
    """Batches as they are, for validation."""
    return ff.pipe(test, ff.batch(128), ff.map_component(NORMALIZE, 0), to_torch())


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift an image by a pixel at most, and add a little noise."""
    down, right = rng.integers(3, size=2)
    shifted = np.pad(image, [(1, 1), (1, 1), (0, 0)])[down : down + 8, right : right + 8]
    return shifted + rng.normal(scale=0.3, size=image.shape).astype(np.float32)


class Digits(lightning.LightningModule):
    """Two convolutions and a linear layer: images [n, 1, 8, 8] become scores [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(32 * 4 * 4, 10),
        )

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        images, labels = batch
        right = self.network(images).argmax(1) == labels
        self.log("accuracy", right.float().mean(), batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add torch's random numbers, which dropout draws: Lightning does not save them."""
        checkpoint["random"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["random"])


class Kill(lightning.Callback):
    """Kills the process behind so many batches, as a machine that fails does."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.batches:
            os.kill(os.getpid(), signal.SIGKILL)


def compare(whole: Digits, resumed: Digits) -> None:
    if any(bits(one) != bits(other) for one, other in zip(whole.parameters(), resumed.parameters())):
        raise SystemExit("the resumed training ended with other weights than the uninterrupted one")
    print("the weights after the resumed and the uninterrupted training are bit-identical")
    (result,) = quiet_trainer().validate(resumed, test_batches(split_digits()[1]), verbose=False)
    print(f"test accuracy: {result['accuracy']:.3f}")
    if result["accuracy"] < REQUIRED_ACCURACY:
        raise SystemExit(f"the test accuracy is below {REQUIRED_ACCURACY}")


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=10, help="how often to go through the training digits (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="train once in this process, with checkpoints in this folder")
    parser.add_argument("--processes", type=int, default=2, help="how many workers make batches (default: %(default)s)")
    parser.add_argument("--kill-at", type=int, default=0, help="kill this process behind so many batches")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse_options()
    if options.folder:
        train(options.folder, options.epochs, options.processes, options.kill_at)
    else:
        main(options)
