"""Read files in MNIST's own format, look at a batch, and learn to read digits from them.

The files are written here, byte for byte as MNIST's are, from scikit-learn's 1797 scanned digits of 8 x 8 pixels; with
the real files in a folder, `--folder` reads those. A linear classifier sees batches of 64 in a new order every epoch.

    pip install "flowfn[examples]"
    python examples/mnist.py
"""

import argparse
import gzip
import tempfile
from pathlib import Path

import numpy as np

import flowfn as ff
from flowfn.datasets import mnist

try:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import SGDClassifier
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples]" brings it.') from error

REQUIRED_ACCURACY = 0.9


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or write_digits(Path(temporary))
        train, test = mnist(folder, "train"), mnist(folder, "test")
        print(f"{len(train)} digits to train on, {len(test)} to test on")

        batches = pipeline(train)
        images, labels = batches[0]
        print(f"a batch: images {images.shape} {images.dtype}, labels {labels.shape} {labels.dtype}")

        model, reached = SGDClassifier(loss="log_loss", alpha=1e-3, random_state=0), 0.0
        for epoch in range(options.epochs):
            for images, labels in batches:
                model.partial_fit(features(images), labels, classes=np.arange(10))
            reached = accuracy(model, test)
            print(f"epoch {epoch}: test accuracy {reached:.3f}")
    if reached < REQUIRED_ACCURACY:
        raise SystemExit(f"the test accuracy is below {REQUIRED_ACCURACY}")


def pipeline(train: ff.Flow) -> ff.Flow:
    """Batches in a new order every epoch, made one ahead in the background;
    they are gathered straight from the file's array."""
    return ff.pipe(train, ff.shuffle(), ff.batch(64, drop_remainder=True), ff.prefetch(1))


def features(images: np.ndarray) -> np.ndarray:
    """The pixels of every image in a row, from 0 to 1: [batch, pixels]."""
    return images.reshape(len(images), -1) / 255


def accuracy(model: SGDClassifier, test: ff.Flow) -> float:
    """The share of the test images that are read right."""
    right = [model.predict(features(images)) == labels for images, labels in ff.batch(512, test)]
    return float(np.concatenate(right).mean())


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's digits as MNIST's four files: every fifth is to test."""
    digits = load_digits()
    images, labels = (digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.uint8)
    to_test = np.arange(len(labels)) % 5 == 0
    for front, chosen in (("train", ~to_test), ("t10k", to_test)):
        write_idx(folder / f"{front}-images-idx3-ubyte.gz", images[chosen])
        write_idx(folder / f"{front}-labels-idx1-ubyte.gz", labels[chosen])
    return folder


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes as an IDX file: two zeros, 8 for unsigned bytes, the number of axes,
    their lengths (big-endian), the bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=5, help="how often to go through the training digits (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, help="a folder with MNIST's four files (default: digits from scikit-learn)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
