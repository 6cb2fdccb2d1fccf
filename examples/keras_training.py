"""Train a Keras model on scanned digits, kill the process in an epoch, and end with the very same weights.

A small network with dropout learns scikit-learn's 1797 digits from batches that are shuffled and augmented anew in each
epoch. It is trained in two other processes: one trains from beginning to end, and one is killed without warning in the
middle of an epoch, and started again. Then the weights of both are equal to the last bit. Keras runs on the backend
that KERAS_BACKEND names: tensorflow, torch or jax.

    pip install "flowfn[examples,keras]" tensorflow
    python examples/keras_training.py
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import flowfn as ff
from flowfn.interop import as_pydataset

try:
    import keras
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples,keras]" brings it.') from error

REQUIRED_ACCURACY = 0.8


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Path(folder) / "whole.npz", Path(folder) / "resumed.npz"
        in_a_process(options, whole)
        killed_at = options.epochs // 2 * 45 + 22
        killed = in_a_process(options, resumed, killed_at)
        print(f"killed behind batch {killed_at} of {options.epochs * 45}: exit status {killed}")
        in_a_process(options, resumed)
        compare(np.load(whole), np.load(resumed))


def in_a_process(options: argparse.Namespace, to: Path, kill_at: int = 0) -> int:
    """Train in another process, as this program with `--to` does; its exit status."""
    command = [sys.executable, __file__, "--epochs", str(options.epochs), "--to", str(to), "--kill-at", str(kill_at)]
    return subprocess.run(command, timeout=600).returncode


def train(options: argparse.Namespace) -> None:
    """Train, or go on with a training that was killed, and write the weights and the accuracy."""
    digits = ff.from_arrays(load_digits().images.astype("f4") / 16, load_digits().target)
    train, test = ff.split(digits, 0.8, 0.2)
    batches = as_pydataset(ff.pipe(train, ff.shuffle(), ff.map_component(augment, 0, rng=True), ff.batch(32)))
    network = model()
    backup = batches.backup_and_restore(options.to.with_suffix(".backup"), save_freq=10)
    network.fit(batches, epochs=options.epochs, verbose=0, callbacks=[backup, Kill(options.kill_at)])
    _, accuracy = network.evaluate(as_pydataset(ff.batch(64, test)), verbose=0)
    np.savez(options.to, *network.get_weights(), accuracy=accuracy)


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift an image by a pixel at most, and add a little noise."""
    down, right = rng.integers(3, size=2)
    shifted = np.pad(image, 1)[down : down + 8, right : right + 8]
    return shifted + rng.normal(scale=0.02, size=image.shape).astype("f4")


def model() -> keras.Model:
    """A small network, the same in each process."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return network


class Kill(keras.callbacks.Callback):
    """Kills the process behind so many batches, as a machine that fails does."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def compare(whole: np.lib.npyio.NpzFile, resumed: np.lib.npyio.NpzFile) -> None:
    if not all(np.array_equal(whole[name], resumed[name]) for name in whole.files):
        raise SystemExit("the resumed training ended with other weights than the uninterrupted one")
    print("the weights after the resumed and the uninterrupted training are bit-identical")
    print(f"test accuracy: {float(resumed['accuracy']):.3f}")
    if resumed["accuracy"] < REQUIRED_ACCURACY:
        raise SystemExit(f"the test accuracy is below {REQUIRED_ACCURACY}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=10, help="how often to go through the training digits (default: %(default)s)"
    )
    parser.add_argument("--to", type=Path, help="train once in this process, and write the weights to this file")
    parser.add_argument("--kill-at", type=int, default=0, help="kill this process behind so many batches")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse_options()
    train(options) if options.to else main(options)
