"""SVHN, the Street View House Numbers: digits cut out, and whole numbers with the box of each digit.

Netzer, Wang, Coates, Bissacco, Wu, Ng: Reading digits in natural images with unsupervised feature learning (2011),
http://ufldl.stanford.edu/housenumbers/, which describes both formats.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datasets.finding import Published
from flowfn.datasets.in_memory import in_memory_flow, labels_below
from flowfn.datasets.listed import with_images
from flowfn.datasets.matlab import matlab_arrays
from flowfn.datasets.statistics import Statistics
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.storage.damage import reading
from flowfn.storage.files import Opened, call, flow_of

SVHN_STATISTICS = Statistics((111.609, 113.161, 120.565), (50.498, 51.259, 50.244))
"""Mean and standard deviation of each channel (RGB) of SVHN's training digits, in 0..255."""

_SVHN_PAGE = "http://ufldl.stanford.edu/housenumbers/"
_SVHN_SPLITS = ("train", "test", "extra")
_SVHN_SUMS = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
_SIDES = ("left", "top", "width", "height", "label")


@rules.checked(split=rules.one_of(*_SVHN_SPLITS))
def svhn(dir: Any, split: str = "train", *, verify: bool = False) -> Flow[Any]:
    """Read SVHN's cropped digits (format 2): [image (32, 32, 3) uint8 RGB, label int64].

    `dir` holds `train_32x32.mat` (73 257 digits), `test_32x32.mat` (26 032) and `extra_32x32.mat` (531 131); `split` is
    "train", "test" or "extra". A label is the digit; 0, which the files call 10, is 0. A file is read when the first
    datapoint (or the length) is wanted. With `verify=True` it is compared with its published MD5 sum. `SVHN_STATISTICS`
    belongs to it.

    Raises:
        FileNotFoundError: the file is missing; nothing is downloaded, the message says where it is found.
        ValueError: the file is not what it should be.

    >>> import os, tempfile
    >>> from scipy.io import savemat
    >>> folder = tempfile.mkdtemp()
    >>> savemat(os.path.join(folder, "test_32x32.mat"), {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[7], [10]]})
    >>> [(image.shape, int(label)) for image, label in svhn(folder, "test")]
    [((32, 32, 3), 7), ((32, 32, 3), 0)]
    """
    published = Published("svhn", _SVHN_PAGE, _SVHN_SUMS)
    folder = published.folder(dir)
    path = published.file(folder, f"{split}_32x32.mat", verify=verify)
    return in_memory_flow("svhn", call("svhn", folder, split, verify=(verify, False)), _cropped_digits, path)


@rules.checked(split=rules.one_of(*_SVHN_SPLITS))
def svhn_numbers_files(dir: Any, split: str = "train") -> Flow[Any]:
    """Read SVHN's whole numbers (format 1): [path of the image, boxes (n, 4) float32, labels (n,) int64].

    `dir` holds the unpacked folders `train`, `test` and `extra`, each with `digitStruct.mat` and the images `1.png`,
    `2.png` and so on; `split` is "train", "test" or "extra". There is a box and a label for each digit, in the file's
    order. Boxes are x1, y1, x2, y2 in pixels; the image covers [0, width] x [0, height], and some boxes reach beyond
    it. A label is the digit.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: the file is not what it should be.
        ImportError: h5py is not installed.
    """
    return _house_numbers("svhn_numbers_files", dir, split)


@rules.checked(split=rules.one_of(*_SVHN_SPLITS))
def svhn_numbers(dir: Any, split: str = "train") -> Flow[Any]:
    """Read SVHN's whole numbers with their images: [image (h, w, 3) uint8 RGB, boxes (n, 4), labels (n,)].

    As `svhn_numbers_files`, with the image in the place of its path; images are decoded as they are wanted.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: the file is not what it should be.
        ImportError: h5py or opencv is not installed.
    """
    return with_images(_house_numbers("svhn_numbers", dir, split))


def _house_numbers(who: str, dir: Any, split: str) -> Flow[Any]:
    published = Published(who, f"{_SVHN_PAGE} ({split}.tar.gz)")
    folder = published.folder(dir)
    path = published.file(folder, f"{split}/digitStruct.mat")
    needed("h5py", f"{who}()", extra="datasets")
    return flow_of(DigitStruct(path, who), "svhn_numbers_files", call("svhn_numbers_files", folder, split))


def _cropped_digits(path: str) -> list[np.ndarray]:
    images, labels = matlab_arrays(path, "svhn", "X", "y")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3 or labels.size != images.shape[3]:
        raise ValueError(
            f"svhn(): {path!r} must hold X, bytes in (height, width, 3, n), and y with n labels, "
            f"got X {images.dtype}{images.shape} and y {labels.dtype}{labels.shape}"
        )
    labels = labels_below(11, labels.ravel(), "svhn", path)
    return [np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels % 10]


class DigitStruct(Opened):
    """The images that `digitStruct.mat` (MATLAB's version 7.3, which is HDF5) names, with their boxes;
    each is read when wanted."""

    def __init__(self, path: str, who: str) -> None:
        super().__init__(path, who)
        self.count: int | None = None

    def open(self) -> Any:
        """The file."""
        with reading(self.path, f"{self.who}(): {self.path!r} cannot be read as HDF5", "; get it again"):
            return needed("h5py", f"{self.who}()", extra="datasets").File(self.path, "r")

    def __len__(self) -> int:
        if self.count is None:
            handle = self.handle
            with reading(self.path, f"{self.who}(): {self.path!r} must hold digitStruct with 'name'"):
                self.count = len(handle["digitStruct"]["name"])
        return self.count

    def __getitem__(self, index: int) -> list[Any]:
        index = self.within(index)
        handle = self.handle
        with reading(self.path, f"{self.who}(): {self.path!r} is damaged at its image {index}"):
            names, boxes_of = (handle["digitStruct"][name] for name in ("name", "bbox"))
            name = "".join(map(chr, np.ravel(handle[names[index, 0]][()]).tolist()))
            digits = handle[boxes_of[index, 0]]
            left, top, width, height, labels = (self._values(digits[side]) for side in _SIDES)
            boxes = np.stack([left, top, left + width, top + height], 1).astype(np.float32)
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise ValueError(
                f"{self.who}(): {self.path!r} must name images beside it, but its image {index} is called {name!r}"
            )
        return [os.path.join(os.path.dirname(self.path), name), boxes, labels.astype(np.int64) % 10]

    def _values(self, side: Any) -> np.ndarray:
        """One number for each digit: written down as such if there is one digit, as references if there are several."""
        entries = np.ravel(side[()])
        return np.array(
            [np.ravel(self.handle[one][()])[0] for one in entries] if entries.dtype == object else entries, np.float64
        )
