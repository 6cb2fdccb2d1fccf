"""Train on scanned digits, stop in the middle of an epoch, go on from a file, and end with the very same weights.

Softmax regression in plain numpy learns scikit-learn's 1797 digits from batches that are split, shuffled and augmented
at random. The training runs twice: once from beginning to end, and once stopped halfway, when the state of the pipeline
and the weights go into a JSON file, from which a new pipeline goes on. The first half reads ahead in two worker
processes and the second in none, which makes no difference: the weights of both trainings are equal to the last bit.

    pip install "flowfn[examples]"
    python examples/digits.py
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

try:
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples]" brings it.') from error

REQUIRED_ACCURACY = 0.93


def main(options: argparse.Namespace) -> None:
    train, test = split_digits()
    print(f"{len(train)} digits to train on, {len(test)} to test on")

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
    """The digits as [image, label] for training and for testing: the same split in every epoch and every process."""
    digits = load_digits()
    return ff.split(ff.from_arrays(digits.images / 16, digits.target), 0.8, 0.2)


def pipeline(train: ff.Flow, processes: int | None = None) -> ff.Flow:
    """Batches in a new order and with new augmentation every epoch; the number of processes changes nothing of it."""
    return ff.pipe(
        train,
        ff.shuffle(),
        ff.map_component(augment, 0, rng=True),
        ff.batch(32),
        ff.prefetch(4, processes=processes) if processes else None,
    )


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift an image by up to half a pixel, by blending it with itself one pixel further, and add a little noise."""
    down, right = rng.integers(3, size=2)
    neighbour = np.pad(image, 1)[down : down + 8, right : right + 8]
    share = rng.uniform(0, 0.5)
    return (1 - share) * image + share * neighbour + rng.normal(scale=0.02, size=image.shape)


def train_half(checkpoint: Path, epochs: int) -> None:
    """Train up to the middle of the middle epoch, and save the state there."""
    train, _ = split_digits()
    batches = pipeline(train, processes=2)
    epoch, position = epochs // 2, len(batches) // 2
    weights = last(islice(training(batches, initial_weights(), epochs), epoch * len(batches) + position))
    save(checkpoint, batches, weights)
    print(f"stopped after {position} of the {len(batches)} batches of epoch {epoch}")


def save(checkpoint: Path, batches: ff.Flow, weights: np.ndarray) -> None:
    """Write where the pipeline stands, and the weights.
    Python writes floats to JSON such that they are read back exactly."""
    checkpoint.write_text(json.dumps({"batches": batches.state_dict(), "weights": weights.tolist()}))


def load(checkpoint: Path) -> tuple[ff.Flow, np.ndarray]:
    """A new pipeline that goes on where the saved one stood, and the weights."""
    state = json.loads(checkpoint.read_text())
    train, _ = split_digits()
    return pipeline(train).load_state_dict(state["batches"]), np.array(state["weights"])


def training(batches: ff.Flow, weights: np.ndarray, epochs: int) -> Iterator[np.ndarray]:
    """The weights after every step, from where the pipeline stands to the end of the last epoch."""
    for _ in range(batches.state_dict()["epoch"], epochs):
        for images, labels in batches:
            weights = step(weights, images, labels)
            yield weights


def step(weights: np.ndarray, images: np.ndarray, labels: np.ndarray, rate: float = 0.5) -> np.ndarray:
    """One step of stochastic gradient descent on the cross-entropy."""
    inputs = features(images)
    error = probabilities(inputs @ weights) - np.eye(10)[labels]
    return weights - rate * inputs.T @ error / len(labels)


def features(images: np.ndarray) -> np.ndarray:
    """The pixels of every image in a row, and a one for the bias: [batch, 65]."""
    pixels = images.reshape(len(images), -1)
    return np.hstack([pixels, np.ones((len(pixels), 1))])


def probabilities(scores: np.ndarray) -> np.ndarray:
    """The softmax of every row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))  # the largest is 1, so that nothing overflows
    return powers / powers.sum(axis=1, keepdims=True)


def initial_weights() -> np.ndarray:
    """Zeros, [65, 10]: the problem is convex, so no randomness is needed."""
    return np.zeros((65, 10))


def accuracy(weights: np.ndarray, test: ff.Flow) -> float:
    """The share of the test images whose digit has the highest score."""
    images, labels = ff.batch(len(test), test)[0]
    return float(np.mean((features(images) @ weights).argmax(axis=1) == labels))


def last(steps: Iterator[np.ndarray]) -> np.ndarray:
    """The last of some weights."""
    return deque(steps, maxlen=1).pop()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=30, help="how often to go through the training digits (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
