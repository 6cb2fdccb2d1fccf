"""How fast are photographs read, shrunk and cropped by two processes, and by two threads?

3000 JPEG files of 430x350, made from scikit-learn's sample photographs: the shortest edge to 256, the 224x224 in the
middle, batches of 64. All use the same function around OpenCV, except tf.data, which uses its own operations. The
yardstick is the plain loop,
twice: as fast as two cores can be that have nothing in common.
What two such loops side by side reach says what the machine allows.
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import peers
from lanes import Round, best, held, steady
from loaders import AHEAD, LOADERS, WORKERS, Work, look_at
from measuring import Finding, ratio, report, shown

PHOTOGRAPHS, SIZE = 3000, 64
EDGE, CROP = 256, 224
BESIDE = ("serial, beside another", "serial, beside this")
OURS = ("flowfn, processes", "flowfn, threads")
PEERS = (
    "torch DataLoader",
    "tensorpack, processes",
    "tensorpack, threads",
    "grain, processes",
    "grain, threads",
    "spdl, threads",
    "tf.data",
)

cv2.setNumThreads(1)  # of its own; the loaders bring theirs


# The photographs


def written(folder: str, count: int) -> None:
    """Write JPEG files: pieces of two photographs, from anywhere in them, every second one mirrored."""
    import sklearn.datasets

    originals = Path(sklearn.datasets.__file__).parent / "images"
    pictures = [cv2.imread(str(originals / name)) for name in ("china.jpg", "flower.jpg")]
    rng = random.Random(0)
    for number in range(count):
        picture = pictures[number % 2]
        top, left = rng.randint(0, picture.shape[0] - 350), rng.randint(0, picture.shape[1] - 430)
        piece = picture[top : top + 350, left : left + 430]
        cv2.imwrite(path_of(folder, number), piece[:, ::-1] if rng.random() < 0.5 else piece)


def path_of(folder: str, number: int) -> str:
    """A file's path."""
    return str(Path(folder, f"{number:06d}.jpg"))


def prepared(folder: str, count: int, index: int) -> np.ndarray:
    """A photograph as a model gets it."""
    image = cv2.imread(path_of(folder, index % count))
    height, width = image.shape[:2]
    scale = EDGE / min(height, width)
    image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
    top, left = (image.shape[0] - CROP) // 2, (image.shape[1] - CROP) // 2
    return image[top : top + CROP, left : left + CROP]


# The contestants


def tf_data(folder: str, count: int, size: int) -> Iterable[Any] | None:
    """The same with TensorFlow's operations, two at a time."""
    tf = peers.tensorflow()
    if tf is None:
        return None

    def image_of(path: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        shrunk = tf.image.resize(image, tf.cast(tf.round(shape * EDGE / tf.reduce_min(shape)), tf.int32))
        return tf.image.resize_with_crop_or_pad(tf.cast(shrunk, tf.uint8), CROP, CROP)

    options = tf.data.Options()
    options.threading.private_threadpool_size = WORKERS
    paths = tf.data.Dataset.from_tensor_slices([path_of(folder, number) for number in range(count)]).repeat()
    dataset = paths.map(image_of, num_parallel_calls=WORKERS).batch(size).prefetch(AHEAD).with_options(options)
    batches: Iterable[Any] = dataset.as_numpy_iterator()
    return batches


def loading(name: str, folder: str, count: int, size: int, seconds: float) -> Round | None:
    """Batches of a loader."""
    if name == "tf.data":
        batches = tf_data(folder, count, size)
    else:
        load: Callable[[Work], Iterable[Any] | None] = LOADERS["serial" if name in BESIDE else name]
        batches = load(Work(functools.partial(prepared, folder, count), size))
    return None if batches is None else steady(iter(batches), look_at, seconds)


CONTESTANTS = {name: functools.partial(loading, name) for name in ("serial", *BESIDE, *OURS, *PEERS)}


# The question


def benchmark(quick: bool) -> list[Finding]:
    """Throughput of all, and what it takes of computing."""
    count, size = (100, 4) if quick else (PHOTOGRAPHS, SIZE)
    with tempfile.TemporaryDirectory(prefix="flowfn-photographs-") as folder:
        written(folder, count)
        settings = {"folder": folder, "count": count, "size": size, "seconds": 0.05 if quick else 1.0}
        reports = held("photographs", tuple(CONTESTANTS), 1 if quick else 6, groups=[BESIDE], **settings)
    times = {name: seconds / size for name, seconds in best(reports).items()}
    computing = {name: seconds / size for name, seconds in best(reports, "cpu").items()}
    times["two such loops side by side"] = max(times[name] for name in BESIDE) / 2
    times["twice the plain loop"] = times["serial"] / 2
    findings = []
    for ours in OURS:
        question = f"photographs by two {ours.split(', ')[1]}"
        findings.append(
            ratio(
                f"{question}: share of twice the plain loop",
                times,
                "twice the plain loop",
                ours,
                unit="ms",
                target=">= 0.93",
            )
        )
        findings.append(
            ratio(f"{question}: share of two loops side by side", times, "two such loops side by side", ours, unit="ms")
        )
        findings += [ratio(f"{question}: times as fast as {name}", times, name, ours, unit="ms") for name in PEERS]
    return findings + [
        Finding(
            f"computing for 1000 photographs: {name}",
            f"{shown(1 / times[name])} photographs a second",
            computing[name] * 1e3,
            "s",
        )
        for name in ("serial", *OURS, *PEERS)
        if name in computing
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
