"""Train in JAX, stop in the middle of an epoch, go on from a file, and end with the very same weights.

Softmax regression, jitted, learns scikit-learn's 1797 digits from batches that are split, shuffled and augmented at
random, and put on JAX's device while it computes. The training runs twice: once from beginning to end, and once stopped
halfway, when the state of the pipeline and the weights go into a JSON file, from which a new pipeline goes on. The
weights of both are equal to the last bit. (With Orbax that state is saved by `args.JsonSave`, see
`help(flowfn.interop.to_jax)`.)

    pip install "flowfn[examples,jax]"
    python examples/jax_training.py
"""

import argparse
import json
import tempfile
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

import flowfn as ff
from flowfn.interop import to_jax

try:
    import jax
    import jax.numpy as jnp
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples,jax]" brings it.') from error

REQUIRED_ACCURACY = 0.9


def main(options: argparse.Namespace) -> None:
    train, test = split_digits()
    print(f"{len(train)} digits to train on, {len(test)} to test on, with {jax.devices()[0].platform}")

    weights = last(training(pipeline(train), initial_weights(), options.epochs))

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.json"
        train_half(checkpoint, options.epochs)
        resumed = last(training(*load(checkpoint), options.epochs))

    if not np.array_equal(resumed, weights):
        raise SystemExit("the resumed training ended with other weights than the uninterrupted one")
    print("the weights after the resumed and the uninterrupted training are bit-identical")

    reached = accuracy(weights, test)
    print(f"test accuracy: {reached:.3f}")
    if reached < REQUIRED_ACCURACY:
        raise SystemExit(f"the test accuracy is below {REQUIRED_ACCURACY}")


def split_digits() -> list[ff.Flow]:
    """The digits as [64 pixels, label] for training and for testing: the same split in every epoch and process."""
    digits = load_digits()
    return ff.split(ff.from_arrays(digits.data.astype(np.float32) / 16, digits.target), 0.8, 0.2)


def pipeline(train: ff.Flow) -> ff.Flow:
    """Batches on JAX's device, all of one size, so that what is jitted is compiled once."""
    return ff.pipe(
        train,
        ff.shuffle(),
        ff.map_component(augment, 0, rng=True),
        ff.batch(32, drop_remainder=True),
        to_jax(),
    )


def augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a little noise."""
    return pixels + rng.normal(scale=0.05, size=pixels.shape).astype(np.float32)


def train_half(checkpoint: Path, epochs: int) -> None:
    """Train up to the middle of the middle epoch, and save the state there: two batches more are on their way."""
    train, _ = split_digits()
    batches = pipeline(train)
    epoch, position = epochs // 2, len(batches) // 2
    weights = last(islice(training(batches, initial_weights(), epochs), epoch * len(batches) + position))
    checkpoint.write_text(json.dumps({"batches": batches.state_dict(), "weights": weights.tolist()}))
    print(f"stopped after {position} of the {len(batches)} batches of epoch {epoch}")


def load(checkpoint: Path) -> tuple[ff.Flow, jax.Array]:
    """A new pipeline that goes on where the saved one stood, and the weights."""
    state = json.loads(checkpoint.read_text())
    train, _ = split_digits()
    return pipeline(train).load_state_dict(state["batches"]), jnp.array(state["weights"], jnp.float32)


def training(batches: ff.Flow, weights: jax.Array, epochs: int) -> Iterator[jax.Array]:
    """The weights after every step, from where the pipeline stands to the end of the last epoch."""
    for _ in range(batches.state_dict()["epoch"], epochs):
        for pixels, labels in batches:
            weights = step(weights, pixels, labels)
            yield weights


@jax.jit
def step(weights: jax.Array, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    """One step of stochastic gradient descent on the cross-entropy."""
    return weights - 0.5 * jax.grad(loss)(weights, pixels, labels)


def loss(weights: jax.Array, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of a batch."""
    likelihoods = jax.nn.log_softmax(pixels @ weights)
    return -jnp.take_along_axis(likelihoods, labels[:, None], axis=1).mean()


def initial_weights() -> jax.Array:
    """Zeros, [64, 10]: the problem is convex, so no randomness is needed."""
    return jnp.zeros((64, 10))


def accuracy(weights: jax.Array, test: ff.Flow) -> float:
    """The share of the test images whose digit has the highest score."""
    pixels, labels = ff.pipe(test, ff.batch(len(test)), to_jax())[0]
    return float(((pixels @ weights).argmax(axis=1) == labels).mean())


def last(steps: Iterator[jax.Array]) -> jax.Array:
    """The last of some weights."""
    return deque(steps, maxlen=1).pop()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=20, help="how often to go through the training digits (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
