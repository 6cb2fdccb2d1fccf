"""What trainers feed: photographs, small images in memory, tokens, audio windows, and datapoints of unequal cost.

A workload is records, and what a datapoint is made of one of them with a generator; both are the same for all loaders
that take a function. flowfn, tf.data and TurboLoader have words of their own for some of it, and are given these.
"""

from __future__ import annotations

import random
import tarfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CROP, PADDING, ROW, WINDOW = 224, 4, 2048, 16_000
MEAN = np.array((123.675, 116.28, 103.53), np.float32)
STD = np.array((58.395, 57.12, 57.375), np.float32)
SHARDS = 4
"""Tar files that the records are written to, for those who read tar files."""

cv2.setNumThreads(1)  # of its own; the loaders bring theirs


@dataclass(frozen=True)
class Workload:
    """`made(records[index % len(records)], rng)` is a datapoint, where `rng.random()` is all that is asked of `rng`;
    `collate` puts `size` of them together, and a pass has `n`. `parsed` makes a record of its bytes."""

    records: Sequence[Any]
    made: Callable[[Any, Any], np.ndarray]
    size: int
    n: int
    collate: Callable[[Sequence[np.ndarray]], np.ndarray] = np.stack
    parsed: Callable[[bytes], Any] = bytes

    def datapoint(self, index: int, rng: Any) -> np.ndarray:
        """The datapoint of an index."""
        return self.made(self.records[index % len(self.records)], rng)

    def drawn(self, index: int) -> np.ndarray:
        """The same for loaders that leave it to the function where its randomness is from."""
        return self.datapoint(index, random)

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """The batch of some indices."""
        return self.collate([self.drawn(index) for index in indices])


class Files(Sequence):
    """The bytes of files."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return Path(self.paths[index]).read_bytes()


# Photographs: decoded, a random part of them cropped and resized, mirrored, normalized, channels first


def write_photographs(folder: Path, count: int) -> None:
    """Two photographs as many JPEG files: parts of them, from anywhere and of various sizes."""
    import sklearn.datasets

    originals = Path(sklearn.datasets.__file__).parent / "images"
    pictures = [cv2.imread(str(originals / name)) for name in ("china.jpg", "flower.jpg")]
    rng = random.Random(0)
    for number in range(count):
        height, width = rng.randint(256, 420), rng.randint(320, 600)
        top, left = rng.randint(0, 427 - height), rng.randint(0, 640 - width)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), pictures[number % 2][top : top + height, left : left + width])


def photographs(folder: Path) -> Workload:
    """Float32, as a model gets them; every file twice in a pass."""
    paths = 2 * sorted(map(str, folder.glob("*.jpg")))
    return Workload(Files(paths), normalized_photograph, 32, len(paths))


def photograph(data: bytes, rng: Any) -> np.ndarray:
    """A random part of a photograph, a 12th of it at least, 224x224, mirrored or not."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    area = image.shape[0] * image.shape[1] * (0.08 + 0.92 * rng.random())
    aspect = (3 / 4) * (16 / 9) ** rng.random()
    height = min(round((area / aspect) ** 0.5), image.shape[0])
    width = min(round((area * aspect) ** 0.5), image.shape[1])
    top, left = (int(rng.random() * (whole - part + 1)) for whole, part in zip(image.shape, (height, width)))
    image = cv2.resize(image[top : top + height, left : left + width], (CROP, CROP), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def normalized_photograph(data: bytes, rng: Any) -> np.ndarray:
    """The same with the fewest passes over memory that NumPy allows."""
    image, made = photograph(data, rng), np.empty((3, CROP, CROP), np.float32)
    for channel, plane in enumerate(made):
        np.subtract(image[..., channel], MEAN[channel], out=plane, dtype=np.float32)
        np.divide(plane, STD[channel], out=plane)
    return made


# Small images in memory: padded, cropped, mirrored


def small_images(folder: Path) -> Workload:
    """As those of CIFAR."""
    images = np.load(folder / "images.npy")
    return Workload(images, augmented, 128, len(images), parsed=_small_image)


def augmented(image: np.ndarray, rng: Any) -> np.ndarray:
    """Moved by up to four pixels, mirrored or not."""
    padded = cv2.copyMakeBorder(image, *[PADDING] * 4, cv2.BORDER_REFLECT_101)
    top, left = int(rng.random() * (2 * PADDING + 1)), int(rng.random() * (2 * PADDING + 1))
    image = padded[top : top + 32, left : left + 32]
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def _small_image(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(32, 32, 3)


# Tokens: rows of a file, in any order, as numbers that an embedding takes


def tokens(folder: Path) -> Workload:
    """Rows of 2048."""
    rows = np.memmap(folder / "train.bin", np.uint16, "r").reshape(-1, ROW)
    return Workload(rows, widened, 64, len(rows), parsed=partial(np.frombuffer, dtype=np.uint16))


def widened(row: np.ndarray, rng: Any = None) -> np.ndarray:
    """As int64."""
    return row.astype(np.int64)


# Audio: a second from anywhere in a recording, louder or quieter


def audio(folder: Path) -> Workload:
    """Recordings of a few seconds at 16 kHz, in memory."""
    flat, ends = np.load(folder / "waves.npy"), np.load(folder / "ends.npy")
    waves = np.split(flat, ends[:-1])
    return Workload(waves, louder, 64, 20_000, parsed=partial(np.frombuffer, dtype=np.float32))


def louder(wave: np.ndarray, rng: Any) -> np.ndarray:
    """A window, with a gain of up to 6 dB either way."""
    start = int(rng.random() * (len(wave) - WINDOW + 1))
    return wave[start : start + WINDOW] * np.float32(10 ** (0.6 * rng.random() - 0.3))


# Unequal: compressed series, a few of them very long, padded to the longest of their batch


def unequal(folder: Path) -> Workload:
    """Lengths are log-normal, and so is what a datapoint costs."""
    data, ends = (folder / "series.bin").read_bytes(), np.load(folder / "series_ends.npy").tolist()
    series = [data[start:end] for start, end in zip([0, *ends], ends)]
    return Workload(series, unpacked, 32, 20_000, padded)


def unpacked(data: bytes, rng: Any = None) -> np.ndarray:
    """A series as float32."""
    return np.frombuffer(zlib.decompress(data), np.int16).astype(np.float32)


def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Rows as long as the longest, filled up with zeros."""
    made = np.zeros((len(arrays), max(map(len, arrays))), np.float32)
    for row, array in zip(made, arrays):
        row[: len(array)] = array
    return made


WORKLOADS: dict[str, Callable[[Path], Workload]] = {
    "photographs": photographs,
    "small images": small_images,
    "tokens": tokens,
    "audio windows": audio,
    "unequal mix": unequal,
}


# On the disk


def write(name: str, folder: Path, quick: bool) -> None:
    """All that a workload is made of, and its records in tar files."""
    rng, few = np.random.default_rng(0), 10 if quick else 1
    if name == "photographs":
        write_photographs(folder, 1000 // few)
    elif name == "small images":
        np.save(folder / "images.npy", rng.integers(0, 256, (20_000 // few, 32, 32, 3), np.uint8))
    elif name == "tokens":
        rng.integers(0, 50_000, 20_000 // few * ROW, np.uint16).tofile(folder / "train.bin")
    elif name == "audio windows":
        ends = np.cumsum(rng.integers(2 * WINDOW, 8 * WINDOW, 200 // few))
        np.save(folder / "ends.npy", ends)
        np.save(folder / "waves.npy", rng.standard_normal(ends[-1], np.float32))
    else:
        lengths = np.clip(rng.lognormal(8, 1.2, 2000 // few), 16, 200_000).astype(int).tolist()
        parts = [
            zlib.compress(rng.integers(0, 64, length).cumsum().astype(np.int16).tobytes(), 1) for length in lengths
        ]
        (folder / "series.bin").write_bytes(b"".join(parts))
        np.save(folder / "series_ends.npy", np.cumsum(list(map(len, parts))))
    write_shards(folder, WORKLOADS[name](folder).records)


def write_shards(folder: Path, records: Iterable[Any]) -> None:
    """The records in tar files, for those who read such; all are named as if they were photographs."""
    with ExitStack() as stack:
        whole, *shards = (
            stack.enter_context(tarfile.open(folder / name, "w"))
            for name in ("whole.tar", *(f"shard-{number}.tar" for number in range(SHARDS)))
        )
        for number, record in enumerate(records):
            data = bytes(record)
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(data)
            for tar in (whole, shards[number % SHARDS]):
                tar.addfile(member, BytesIO(data))
