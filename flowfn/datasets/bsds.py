"""BSDS500: the Berkeley segmentation data set, photographs in which several people have drawn the boundaries.

Arbeláez, Maire, Fowlkes, Malik: Contour detection and hierarchical image segmentation (2011),
https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.datasets.finding import Published
from flowfn.datasets.listed import with_images
from flowfn.datasets.matlab import matlab_variables
from flowfn.flows.flow import Flow
from flowfn.storage.damage import reading
from flowfn.storage.files import call, file_path, flow_of
from flowfn.vocabulary.making import _in_natural_order
from flowfn.vocabulary.transform import map, map_component

_BSDS500_PAGE = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html (BSR_bsds500.tgz)"
_BELOW = ("BSR/BSDS500/data", "BSDS500/data", "data", "")


class GroundTruth(NamedTuple):
    """What k people have drawn: segments (k, height, width) uint16, and boundaries (k, height, width) bool."""

    segments: np.ndarray
    boundaries: np.ndarray


@rules.checked(split=rules.one_of("train", "val", "test"))
def bsds500_files(dir: Any, split: str = "train") -> Flow[Any]:
    """List BSDS500: [path of the image, path of its ground truth], in the order of the images' numbers.

    `dir` holds the unpacked folder `BSR` (or is `BSR`, `BSDS500` or its `data`); `split` is "train" (200), "val" (100)
    or "test" (200). `read_ground_truth` reads what a path of the second kind leads to.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
    """
    return _bsds500_pairs("bsds500_files", dir, split)


@rules.checked(split=rules.one_of("train", "val", "test"), landscape=rules.boolean)
def bsds500(dir: Any, split: str = "train", *, landscape: bool = False) -> Flow[Any]:
    """Read BSDS500: [image (h, w, 3) uint8 RGB, boundaries (h, w) float32], decoded as they are wanted.

    A pixel of the boundaries is the share of people who have drawn one there, in 0..1. Images are (321, 481) or (481,
    321); with `landscape=True` the upright ones are transposed, so that all are (321, 481) and can be stacked. `dir`
    and `split` are as in `bsds500_files`.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a file is not what it should be.
        ImportError: opencv is not installed.
    """
    files = with_images(_bsds500_pairs("bsds500", dir, split))
    read = map_component(read_boundaries, 1, files)
    return map(lying, read) if landscape else read


def read_ground_truth(path: Any) -> GroundTruth:
    """Read what people have drawn in one image of BSDS500, out of its MATLAB file.

    Raises:
        ValueError: it is not such a file.
    """
    name = file_path(path, "read_ground_truth")
    drawn = matlab_variables(name, "read_ground_truth", "groundTruth")["groundTruth"]
    parts: dict[str, list[np.ndarray]] = {"Segmentation": [], "Boundaries": []}
    with reading(
        name, f"read_ground_truth(): {name!r} must hold groundTruth, cells of Segmentation and Boundaries of one shape"
    ):
        for one in drawn if isinstance(drawn, list) else [drawn]:
            for field, found in parts.items():
                array = one[field]
                if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "biuf":
                    raise TypeError(f"{field} is no matrix of numbers")
                found.append(array)
        return GroundTruth(np.stack(parts["Segmentation"]).astype(np.uint16), np.stack(parts["Boundaries"]) != 0)


def read_boundaries(path: Any) -> np.ndarray:
    """Read the boundaries in one image of BSDS500: (height, width) float32,
    the share of people who have drawn one there.

    Raises:
        ValueError: as `read_ground_truth`.

    >>> import os, tempfile
    >>> from scipy.io import savemat
    >>> people = np.empty((1, 2), object)
    >>> for person, line in enumerate(([[1, 0]], [[1, 1]])):
    ...     people[0, person] = {"Segmentation": np.array([[1, 2]]), "Boundaries": np.array(line)}
    >>> path = os.path.join(tempfile.mkdtemp(), "100007.mat")
    >>> savemat(path, {"groundTruth": people})
    >>> read_boundaries(path)
    array([[1. , 0.5]], dtype=float32)
    """
    boundaries = read_ground_truth(path).boundaries
    return (boundaries.sum(0) / len(boundaries)).astype(np.float32)


def lying(datapoint: list[Any]) -> list[Any]:
    """An image and its boundaries, transposed if they are higher than they are wide."""
    image, boundaries = datapoint
    return (
        datapoint
        if image.shape[0] <= image.shape[1]
        else [np.ascontiguousarray(image.swapaxes(0, 1)), np.ascontiguousarray(boundaries.T)]
    )


@dataclass(frozen=True)
class Pairs:
    """Paths of images beside paths of their ground truth."""

    images: str
    truths: str
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> list[str]:
        name = self.names[index]
        return [os.path.join(self.images, f"{name}.jpg"), os.path.join(self.truths, f"{name}.mat")]


def _bsds500_pairs(who: str, dir: Any, split: str) -> Flow[Any]:
    published = Published(who, _BSDS500_PAGE)
    folder = published.folder(dir)
    for below in _BELOW:
        data = os.path.join(folder, *below.split("/"))
        images, truths = (os.path.join(data, kind, split) for kind in ("images", "groundTruth"))
        if os.path.isdir(images):
            break
    else:
        raise published.missing(folder, *(f"{below}/images/{split}".lstrip("/") for below in _BELOW))
    found = [
        os.path.splitext(name)[0] for name in os.listdir(images) if name.endswith(".jpg") and not name.startswith(".")
    ]
    names = tuple(_in_natural_order(dict.fromkeys(found)))
    for name in names:
        published.file(truths, f"{name}.mat")
    if not names:
        raise published.missing(images, "100007.jpg" if split != "train" else "100075.jpg")
    return flow_of(Pairs(images, truths, names), "bsds500_files", call("bsds500_files", folder, split))
