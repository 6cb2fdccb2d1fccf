"""Training that goes on exactly where it was killed: what Keras saves, what it leaves out, and where the data stood."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np

from flowfn import rules

FREQUENCY = rules.Rule(
    '"epoch" or a positive integer',
    lambda value: rules.is_integer(value) or isinstance(value, str),
    lambda value, others: value == "epoch" if isinstance(value, str) else value > 0,
)


_REST = ("random", "metrics", "torch")
"""What `rest.npz` has: states of random layers, metrics, states of torch's generators."""


class Backup(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
    """Saves as Keras's own callback does, and with it what makes resuming exact.

    A folder `EPOCH-BATCH` has what Keras's callback writes, `rest.npz`, and `flow.json`. It appears when it is whole,
    and those before it are removed.
    """

    def __init__(self, batches: Any, folder: Any, save_freq: Any) -> None:
        super().__init__()
        self._batches, self._folder, self._save_freq = batches, Path(folder), save_freq
        self._quiet = ExitStack()

    def on_train_begin(self, logs: Any = None) -> None:
        """Go on from what was saved last, if anything was."""
        self._cut = _cuts_passes()
        self._trained = self._unsaved = 0
        self._behind = 0, 0
        self._metrics: list[np.ndarray] = []
        self._torch: list[np.ndarray] = []
        self._after_last: list[np.ndarray] = []
        self._batches.count_from_here()
        saved = sorted(self._folder.glob("[0-9]*-[0-9]*"))
        if saved:
            self._restore(saved[-1])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Metrics, which Keras has reset, go on in the middle of an epoch."""
        first, behind = self._behind
        self._start = self._here = behind if epoch == first else 0
        if not self._start and not self._cut:
            self._go_on_drawing()  # before Keras begins a pass, and draws for it
        if self._start:
            _assign(self.model.metrics_variables, self._metrics)
            self._quiet.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Draw as in the middle of an epoch, now that Keras has drawn what it draws at its beginning."""
        self._go_on_drawing()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save within an epoch; at the end of it, the start of the next is saved when Keras has come there."""
        steps = self.params.get("steps")
        here = self._start + batch + 1 if steps is None else min(self._start + batch + 1, steps)
        self._trained += here - self._here
        self._unsaved += here - self._here
        self._here = here
        if self._start and here == steps and keras.backend.backend() == "tensorflow":
            self._after_last = _variable_values(_variables(self.model))
        if here != steps and self._due():
            self._save(self._epoch, here)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save that the next epoch begins."""
        self._quiet.close()
        if self._start:
            self._undo_the_end()
        if self._save_freq == "epoch" or self._due():
            self._save(epoch + 1, 0)

    def on_train_end(self, logs: Any = None) -> None:
        """Remove what was saved: the training is over."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _go_on_drawing(self) -> None:
        """Give torch's generators the states that were saved, once."""
        if self._torch:
            _set_torch_states(self._torch)
            self._torch = []

    def _undo_the_end(self) -> None:
        """Let the epoch that went on end as others do, although Keras has asked for a batch behind its last one.

        On TensorFlow that step fails, but unless XLA compiled it, what does not depend on the batch is done: iterations
        are counted, and dropout has drawn. On torch others end with a loader that is made and not used, which draws.
        """
        if keras.backend.backend() == "tensorflow":
            _assign(_variables(self.model), self._after_last)
            self._after_last = []
        if keras.backend.backend() == "torch":
            _draw_for_a_loader()

    def _due(self) -> bool:
        return self._save_freq != "epoch" and self._unsaved >= self._save_freq

    def _save(self, epoch: int, batch: int) -> None:
        """Write that training goes on with a batch of an epoch."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="part-", dir=self._folder))
        saver = self._keras(part)
        if epoch:
            saver.on_epoch_end(epoch - 1)
        saver.on_train_batch_end(0)
        kept = [_variable_values(_random(self.model)), _variable_values(self.model.metrics_variables), _torch_states()]
        rest: dict[str, Any] = {f"{what}{i}": one for what, ones in zip(_REST, kept) for i, one in enumerate(ones)}
        np.savez(part / "rest.npz", **rest)
        told = {"epoch": epoch, "batch": batch, "state": self._batches.state(self._trained)}
        (part / "flow.json").write_text(json.dumps(told))
        whole = self._folder / f"{epoch:06}-{batch:09}"
        shutil.rmtree(whole, ignore_errors=True)
        os.replace(part, whole)
        for other in self._folder.iterdir():
            if other != whole:
                shutil.rmtree(other, ignore_errors=True)
        self._unsaved = 0

    def _restore(self, saved: Path) -> None:
        told = json.loads((saved / "flow.json").read_text())
        with np.load(saved / "rest.npz") as file:
            kept = {what: [file[name] for name in file.files if name.startswith(what)] for what in _REST}
        self._metrics, self._torch = kept["metrics"], kept["torch"]
        self._keras(saved).on_train_begin()
        if told["batch"] and len(self.model.metrics_variables) < len(self._metrics):  # TensorFlow makes them late
            self.model.test_on_batch(*keras.utils.unpack_x_y_sample_weight(self._batches[0]))
        _assign(_random(self.model), kept["random"])
        self._behind = told["epoch"], told["batch"]
        self._batches.go_on_from(told["state"], self.params["steps"] - told["batch"] if told["batch"] else None)

    def _keras(self, folder: Path) -> Any:
        """Keras's own callback, which saves at each batch, and there."""
        own = keras.callbacks.BackupAndRestore(str(folder), save_freq=1)
        own.set_model(self.model)
        return own


def _cuts_passes() -> bool:
    """Whether the fit that calls was given steps_per_epoch: then a pass goes on from one epoch to the next."""
    frame: Any = sys._getframe()
    while frame is not None and "epoch_iterator" not in frame.f_locals:
        frame = frame.f_back
    return frame is not None and frame.f_locals["epoch_iterator"].steps_per_epoch is not None


def _variable_values(variables: list[Any]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(one) for one in variables]


def _torch_states() -> list[np.ndarray]:
    """The states of torch's generators, of which Keras draws on that backend where a layer was given no seed."""
    if keras.backend.backend() != "torch":
        return []
    import torch

    others = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [one.numpy() for one in (torch.get_rng_state(), *others)]


def _draw_for_a_loader() -> None:
    from torch.utils.data import DataLoader

    iter(DataLoader([0], batch_size=None))


def _set_torch_states(states: list[np.ndarray]) -> None:
    import torch

    first, *others = map(torch.from_numpy, states)
    torch.set_rng_state(first)
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(others)


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _random(model: Any) -> list[Any]:
    """The states of random layers, which Keras does not take for weights."""
    weights = {id(one) for one in model.weights}
    return [one for one in model.variables if id(one) not in weights]


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values):
        variable.assign(value)
