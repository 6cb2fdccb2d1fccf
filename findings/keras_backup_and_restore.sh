#!/usr/bin/env bash
# keras 3.15.1 on jax 0.10.2, Python 3.11, on the CPU: keras.callbacks.BackupAndRestore(save_freq=1) after an interruption behind the
# second of four batches of epoch 1: where does training go on?
#
# Guess: behind that batch, as it is saved; with the random numbers of dropout that would have come.
# Seen: training_metadata.json holds the batch, and nothing reads it: epoch 1 begins anew, so two batches are trained on twice. Dropout
# begins at its seed again, for states of random numbers are no weights. And the epoch that is written until one has ended is 0,
# whichever was restored: interrupted once more in the same epoch, training goes on with epoch 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 jaxlib==0.10.2
KERAS_BACKEND=jax JAX_PLATFORMS=cpu "$work/venv/bin/python" - "$work/backup" <<'PYTHON'
import json
import sys

import keras
import numpy as np

folder = sys.argv[1]
steps, drawn = [], []


class Data(keras.utils.PyDataset):
    num_batches = 4

    def __getitem__(self, index):
        return np.ones((1, 3), "f4"), np.ones((1, 1), "f4")


class Interrupt(keras.callbacks.Callback):
    """Notes which batches are trained on, and stops behind the second of epoch 1."""

    def on_train_begin(self, logs=None):
        drawn.append(int(np.asarray(self.model.layers[0].seed_generator.state)[1]))

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        steps.append((self.epoch, batch))
        if steps[-1] == (1, 1):
            drawn.append(int(np.asarray(self.model.layers[0].seed_generator.state)[1]))
            raise InterruptedError


saved = []
for _ in range(2):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=1)
    try:
        model.fit(Data(), epochs=2, verbose=0, shuffle=False, callbacks=[backup, Interrupt()])
    except InterruptedError:
        with open(f"{folder}/training_metadata.json") as file:
            saved.append(json.load(file))
print(f"keras {keras.__version__}: trained on (epoch, batch) {steps}; saved {saved}; dropout had drawn {drawn}")
again = steps[6:] == [(1, 0), (1, 1)]
raise SystemExit(not again or saved != [{"epoch": 1, "batch": 1}, {"epoch": 0, "batch": 1}] or drawn != [0, 6, 0, 2])
PYTHON
