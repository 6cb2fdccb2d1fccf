"""Tiny ImageNet: 200 classes of ImageNet, in images of 64 by 64 pixels (Stanford CS231n,
http://cs231n.stanford.edu/)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from flowfn import rules
from flowfn.datasets.finding import Published, lines_of
from flowfn.datasets.folders import EXTENSIONS, images_below
from flowfn.datasets.listed import labeled_files, listed_flow, with_images
from flowfn.flows.flow import Flow
from flowfn.storage.files import call

_TINY_IMAGENET_PAGE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


@rules.checked(split=rules.one_of("train", "val"))
def tiny_imagenet_files(dir: Any, split: str = "train") -> Flow[Any]:
    """List Tiny ImageNet: [path, label int in 0..199], 100 000 for training and 10 000 to validate; no image is opened.

    `dir` holds the unpacked folder `tiny-imagenet-200`, or is that folder. `split` is "train" or "val"; the test set
    has no labels (`files("tiny-imagenet-200/test/images/*")`). A label is the place of the synset in `wnids.txt`.
    Training images come label by label in natural order, those to validate in the order of `val_annotations.txt`.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a list is not what it should be.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> os.mkdir(os.path.join(folder, "val"))
    >>> lists = {"wnids.txt": "n02124075\\nn04067472", "val/val_annotations.txt": "val_0.JPEG n04067472 0 32 44 62"}
    >>> for name, text in lists.items():
    ...     with open(os.path.join(folder, name), "w") as file:
    ...         _ = file.write(text)
    >>> [(os.path.relpath(path, folder), label) for path, label in tiny_imagenet_files(folder, "val")]
    [('val/images/val_0.JPEG', 1)]
    """
    return _tiny_imagenet_paths("tiny_imagenet_files", dir, split)


@rules.checked(split=rules.one_of("train", "val"))
def tiny_imagenet(dir: Any, split: str = "train") -> Flow[Any]:
    """Read Tiny ImageNet: [image (64, 64, 3) uint8 RGB, label int], decoded as they are wanted.

    `dir` and `split` are as in `tiny_imagenet_files`, `tiny_imagenet_labels` belongs to it.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a list, or an image, is not what it should be.
        ImportError: opencv is not installed.
    """
    return with_images(_tiny_imagenet_paths("tiny_imagenet", dir, split))


def tiny_imagenet_labels(dir: Any) -> list[str]:
    """Read what the labels of Tiny ImageNet mean, in their order, out of `wnids.txt` and `words.txt`.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
    """
    published = Published("tiny_imagenet_labels", _TINY_IMAGENET_PAGE)
    folder = _inner(published, dir)
    synsets = lines_of(published.file(folder, "wnids.txt"), published.who)
    words = dict(
        line.split("\t", 1) for line in lines_of(published.file(folder, "words.txt"), published.who) if "\t" in line
    )
    return [words.get(synset, synset).strip() for synset in synsets]


def _inner(published: Published, dir: Any) -> str:
    folder = published.folder(dir)
    inner = os.path.join(folder, "tiny-imagenet-200")
    return inner if os.path.isdir(inner) else folder


def _tiny_imagenet_paths(who: str, dir: Any, split: str) -> Flow[Any]:
    published = Published(who, _TINY_IMAGENET_PAGE)
    folder = _inner(published, dir)
    synsets = list(lines_of(published.file(folder, "wnids.txt"), who))
    numbers = {synset: number for number, synset in enumerate(synsets)}
    entries = _training(published, folder, synsets) if split == "train" else _validating(published, folder, numbers)
    return listed_flow(
        "tiny_imagenet_files",
        call("tiny_imagenet_files", folder, split),
        labeled_files(os.path.join(folder, split), entries),
    )


def _training(published: Published, folder: str, synsets: list[str]) -> Iterator[tuple[bytes, int]]:
    images = os.path.join(folder, "train")
    for label, synset in enumerate(synsets):
        inner = f"{synset}/images"
        if not os.path.isdir(os.path.join(images, synset, "images")):
            raise published.missing(folder, f"train/{inner}")
        for name in images_below(images, inner, EXTENSIONS, published.who):
            yield os.fsencode(name), label


def _validating(published: Published, folder: str, numbers: dict[str, int]) -> Iterator[tuple[bytes, int]]:
    path = published.file(folder, "val/val_annotations.txt")
    for number, line in enumerate(lines_of(path, published.who), 1):
        words = line.split()
        if len(words) < 2 or words[1] not in numbers:
            raise ValueError(
                f"{published.who}(): line {number} of {path!r} must be a name and one of the synsets in wnids.txt, "
                f"got {line[:80]!r}"
            )
        yield os.fsencode(f"images/{words[0]}"), numbers[words[1]]
