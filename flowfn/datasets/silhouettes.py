"""Caltech 101 silhouettes: the outlines of Caltech 101's objects, filled.

Marlin, Swersky, Chen, de Freitas: Inductive principles for restricted Boltzmann machine learning (2010),
https://people.cs.umass.edu/~marlin/data.shtml
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datasets.finding import Published
from flowfn.datasets.in_memory import in_memory_flow, labels_below
from flowfn.datasets.matlab import matlab_arrays, matlab_variables
from flowfn.flows.flow import Flow
from flowfn.storage.files import call

_SILHOUETTES_PAGE = "https://people.cs.umass.edu/~marlin/data.shtml"


@rules.checked(split=rules.one_of("train", "val", "test"), size=rules.one_of(28, 16))
def caltech101_silhouettes(dir: Any, split: str = "train", *, size: int = 28) -> Flow[Any]:
    """Read the Caltech 101 silhouettes: [image (28, 28) uint8, label int64 in 0..100].

    `dir` holds `caltech101_silhouettes_28_split1.mat` (with `size=16`: `caltech101_silhouettes_16_split1.mat`); `split`
    is "train" (4100 images), "val" (2264) or "test" (2307). Pixels are 0 and 1, as in the file. MATLAB writes an image
    column by column: here it stands upright. The file is read when the first datapoint (or the length) is wanted.

    Raises:
        FileNotFoundError: the file is missing; nothing is downloaded, the message says where it is found.
        ValueError: the file is not what it should be.

    >>> import os, tempfile
    >>> from scipy.io import savemat
    >>> folder = tempfile.mkdtemp()
    >>> path = os.path.join(folder, "caltech101_silhouettes_28_split1.mat")
    >>> savemat(path, {"val_data": np.eye(2, 784), "val_labels": [[1], [101]]})
    >>> [(int(image[1, 0]), int(label)) for image, label in caltech101_silhouettes(folder, "val")]
    [(0, 0), (1, 100)]
    """
    folder, path = _file("caltech101_silhouettes", dir, size)
    shown = call("caltech101_silhouettes", folder, split, size=(size, 28))
    return in_memory_flow("caltech101_silhouettes", shown, _silhouette_arrays, path, split, size)


@rules.checked(size=rules.one_of(28, 16))
def caltech101_silhouettes_labels(dir: Any, *, size: int = 28) -> list[str]:
    """Read what the labels of the Caltech 101 silhouettes mean: 101 names, out of the same file.

    Raises:
        FileNotFoundError, ValueError: as `caltech101_silhouettes`.
    """
    who = "caltech101_silhouettes_labels"
    _, path = _file(who, dir, size)
    return list(map(str, matlab_variables(path, who, "classnames")["classnames"]))


def _file(who: str, dir: Any, size: int) -> tuple[str, str]:
    published = Published(who, _SILHOUETTES_PAGE)
    folder = published.folder(dir)
    return folder, published.file(folder, f"caltech101_silhouettes_{size}_split1.mat")


def _silhouette_arrays(path: str, split: str, size: int) -> list[np.ndarray]:
    pixels, labels = matlab_arrays(path, "caltech101_silhouettes", f"{split}_data", f"{split}_labels")
    if pixels.ndim != 2 or pixels.shape[1] != size * size or labels.size != len(pixels):
        raise ValueError(
            f"caltech101_silhouettes(): {path!r} must hold {split}_data (n, {size * size}) and n {split}_labels, "
            f"got {pixels.dtype}{pixels.shape} and {labels.dtype}{labels.shape}"
        )
    images = pixels.astype(np.uint8).reshape(-1, size, size).transpose(0, 2, 1)
    return [
        np.ascontiguousarray(images),
        labels_below(101, labels.ravel().astype(np.float64) - 1, "caltech101_silhouettes", path),
    ]
