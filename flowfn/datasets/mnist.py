"""MNIST and Fashion-MNIST, and the IDX format that they and many others are written in.

LeCun, Cortes, Burges: The MNIST database of handwritten digits (http://yann.lecun.com/exdb/mnist/, which describes IDX
too). Xiao, Rasul, Vollgraf: Fashion-MNIST (https://arxiv.org/abs/1708.07747).
"""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO, cast

import numpy as np

from flowfn import rules
from flowfn.datasets.finding import Published
from flowfn.datasets.in_memory import in_memory_flow, labels_below
from flowfn.datasets.statistics import Statistics
from flowfn.flows.flow import Flow
from flowfn.storage.damage import reading
from flowfn.storage.files import call, file_path
from flowfn.storage.signatures import GZIP
from flowfn.storage.unpacking import unpacked_by

MNIST_LABELS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
"""What the labels of MNIST mean."""

FASHION_MNIST_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""What the labels of Fashion-MNIST mean."""

MNIST_STATISTICS = Statistics(33.3184, 78.5675)
"""Mean and standard deviation of the pixels of MNIST's training images, in 0..255."""

FASHION_MNIST_STATISTICS = Statistics(72.9404, 90.0212)
"""Mean and standard deviation of the pixels of Fashion-MNIST's training images, in 0..255."""

_SPLIT_PREFIXES = {"train": "train", "test": "t10k"}
_IMAGE_FILE, _LABEL_FILE = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE = 1032
"""How many times as long as itself a byte can become when it is unpacked, at most."""

_MNIST = Published(
    "mnist",
    "http://yann.lecun.com/exdb/mnist/ (the same files: https://ossci-datasets.s3.amazonaws.com/mnist/)",
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
_FASHION = Published(
    "fashion_mnist",
    "https://github.com/zalandoresearch/fashion-mnist",
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


@rules.checked(split=rules.one_of(*_SPLIT_PREFIXES))
def mnist(dir: Any, split: str = "train", *, verify: bool = False) -> Flow[Any]:
    """Read MNIST: [image (28, 28) uint8, label int64], 60 000 for training and 10 000 to test.

    `dir` holds `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`, `t10k-images-idx3-ubyte.gz` and
    `t10k-labels-idx1-ubyte.gz`, or the same without `.gz`, unpacked. `split` is "train" or "test". The files are read
    when the first datapoint (or the length) is wanted; images of any other size are as welcome. `batch` gathers whole
    batches in one call. With `verify=True` the packed files are compared with their published MD5 sums. `MNIST_LABELS`
    and `MNIST_STATISTICS` belong to it.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a file is not what it should be.

    >>> import os, tempfile
    >>> import flowfn as ff
    >>> folder = tempfile.mkdtemp()
    >>> with open(os.path.join(folder, "t10k-images-idx3-ubyte"), "wb") as file:
    ...     _ = file.write(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]) + bytes([10, 20, 30, 40]))
    >>> with open(os.path.join(folder, "t10k-labels-idx1-ubyte"), "wb") as file:
    ...     _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 2]) + bytes([7, 9]))
    >>> list(ff.batch(2, mnist(folder, "test")))
    [[array([[[10, 20]],
    <BLANKLINE>
           [[30, 40]]], dtype=uint8), array([7, 9])]]
    """
    return _mnist_flow(_MNIST, dir, split, verify)


@rules.checked(split=rules.one_of(*_SPLIT_PREFIXES))
def fashion_mnist(dir: Any, split: str = "train", *, verify: bool = False) -> Flow[Any]:
    """Read Fashion-MNIST: [image (28, 28) uint8, label int64],
    in files of the same names and form as MNIST's (see `mnist`).

    `FASHION_MNIST_LABELS` and `FASHION_MNIST_STATISTICS` belong to it.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a file is not what it should be.
    """
    return _mnist_flow(_FASHION, dir, split, verify)


def read_idx(path: Any) -> np.ndarray:
    """Read an IDX file, packed by gzip or not: an array of the shape and type that its header says,
    in native byte order.

    EMNIST, KMNIST and QMNIST are such files too: `from_arrays(read_idx(images), read_idx(labels))` is a flow of them.

    Raises:
        ValueError: it is not an IDX file, ends too early, or goes on behind its end.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 0x0B, 1, 0, 0, 0, 2]) + bytes([0, 1, 2, 0]))
    ...     file.flush()
    ...     read_idx(file.name)
    array([  1, 512], dtype=int16)
    """
    return _idx(file_path(path, "read_idx"), "read_idx")


def _mnist_flow(published: Published, dir: Any, split: str, verify: bool) -> Flow[Any]:
    who = published.who
    front = _SPLIT_PREFIXES[split]
    folder = published.folder(dir)
    paths = []
    for form in (_IMAGE_FILE, _LABEL_FILE):
        name = form.format(front)
        paths.append(published.file(folder, *((f"{name}.gz",) if verify else (name, f"{name}.gz")), verify=verify))
    return in_memory_flow(who, call(who, folder, split, verify=(verify, False)), _mnist_arrays, who, *paths)


def _mnist_arrays(who: str, images: str, labels: str) -> list[np.ndarray]:
    pixels, classes = _idx(images, who, axes=3), _idx(labels, who, axes=1)
    if len(pixels) != len(classes):
        raise ValueError(
            f"{who}(): there must be one label for each image, but {images!r} has {len(pixels)} and {labels!r} "
            f"{len(classes)}"
        )
    return [pixels, labels_below(10, classes, who, labels)]


def _idx(path: str, who: str, axes: int | None = None) -> np.ndarray:
    """The array in an IDX file; if it has to have so many axes, of bytes."""
    packed = os.path.getsize(path)
    with open(path, "rb") as plain:
        zipped = GZIP.begins.match(plain.read(2)) is not None
        plain.seek(0)
        file = cast(BinaryIO, unpacked_by("gzip", plain, f"{who}()")) if zipped else plain
        with reading(path, f"{who}(): {path!r} is damaged", "; get it again"):
            return _idx_array(file, path, who, packed * _DEFLATE if zipped else packed, axes)


def _idx_array(file: BinaryIO, path: str, who: str, limit: int, axes: int | None) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
        raise ValueError(
            f"{who}(): {path!r} is not an IDX file: it must begin with 0, 0 and the code of a type, got {magic!r}"
        )
    dtype, count = np.dtype(_IDX_TYPES[magic[2]]), magic[3]
    if axes is not None and (dtype != np.uint8 or count != axes):
        raise ValueError(f"{who}(): {path!r} must hold bytes in {axes} axes, but its header says {dtype} in {count}")
    sizes = file.read(4 * count)
    if len(sizes) < 4 * count:
        raise ValueError(f"{who}(): {path!r} ends within its header")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    size = math.prod(shape) * dtype.itemsize
    if size > limit or count > 32:
        raise ValueError(
            f"{who}(): {path!r} is damaged: its header says {shape}, {size} bytes, which cannot be in a file of its "
            "size"
        )
    buffer = np.empty(size, np.uint8)
    filled = 0
    while filled < size and (got := file.readinto(buffer[filled : filled + (1 << 24)].data)):  # type: ignore[attr-defined]
        filled += got
    if filled < size or file.read(1):
        behind = f"ends after {filled} of {size} bytes" if filled < size else f"goes on behind the {size} bytes"
        raise ValueError(f"{who}(): {path!r} is damaged: it {behind} that its header says; get it again")
    return buffer.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
