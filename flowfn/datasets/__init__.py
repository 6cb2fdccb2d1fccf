"""Datasets: `name(dir, split)` is a flow over the files that were published, with a length and random access.

Nothing is downloaded: a missing file's message says its name, the official page, and where to put it. Small sets
(MNIST, CIFAR, SVHN, silhouettes) are arrays in memory, whose batches are gathered in one call; of the others,
`name_files` lists [path, label], and `name` decodes the images as they are wanted (`pip install "flowfn[image]"`).
SVHN's whole numbers need h5py (`pip install "flowfn[datasets]"`). Images are uint8, in RGB order; labels count from 0.
"""

from flowfn.datasets.annotations import Annotation, read_annotation
from flowfn.datasets.bsds import GroundTruth, bsds500, bsds500_files, read_boundaries, read_ground_truth
from flowfn.datasets.cifar import (
    CIFAR10_LABELS,
    CIFAR10_STATISTICS,
    CIFAR100_COARSE_LABELS,
    CIFAR100_LABELS,
    CIFAR100_STATISTICS,
    cifar10,
    cifar100,
)
from flowfn.datasets.folders import image_folder, image_folder_files, image_folder_labels
from flowfn.datasets.ilsvrc import ilsvrc12, ilsvrc12_files
from flowfn.datasets.mnist import (
    FASHION_MNIST_LABELS,
    FASHION_MNIST_STATISTICS,
    MNIST_LABELS,
    MNIST_STATISTICS,
    fashion_mnist,
    mnist,
    read_idx,
)
from flowfn.datasets.places365 import places365, places365_files, places365_labels
from flowfn.datasets.silhouettes import caltech101_silhouettes, caltech101_silhouettes_labels
from flowfn.datasets.statistics import IMAGENET_STATISTICS, Statistics, image_statistics
from flowfn.datasets.svhn import SVHN_STATISTICS, svhn, svhn_numbers, svhn_numbers_files
from flowfn.datasets.synsets import ilsvrc12_labels, ilsvrc12_mean, ilsvrc12_synsets
from flowfn.datasets.tiny_imagenet import tiny_imagenet, tiny_imagenet_files, tiny_imagenet_labels
from flowfn.pickling.homes import publish as _publish

_publish(__name__, globals())

__all__ = [
    "CIFAR100_COARSE_LABELS",
    "CIFAR100_LABELS",
    "CIFAR100_STATISTICS",
    "CIFAR10_LABELS",
    "CIFAR10_STATISTICS",
    "FASHION_MNIST_LABELS",
    "FASHION_MNIST_STATISTICS",
    "IMAGENET_STATISTICS",
    "MNIST_LABELS",
    "MNIST_STATISTICS",
    "SVHN_STATISTICS",
    "Annotation",
    "GroundTruth",
    "Statistics",
    "bsds500",
    "bsds500_files",
    "caltech101_silhouettes",
    "caltech101_silhouettes_labels",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "ilsvrc12",
    "ilsvrc12_files",
    "ilsvrc12_labels",
    "ilsvrc12_mean",
    "ilsvrc12_synsets",
    "image_folder",
    "image_folder_files",
    "image_folder_labels",
    "image_statistics",
    "mnist",
    "places365",
    "places365_files",
    "places365_labels",
    "read_annotation",
    "read_boundaries",
    "read_ground_truth",
    "read_idx",
    "svhn",
    "svhn_numbers",
    "svhn_numbers_files",
    "tiny_imagenet",
    "tiny_imagenet_files",
    "tiny_imagenet_labels",
]
