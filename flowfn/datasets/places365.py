"""Places365: 365 kinds of places, small (256 by 256) and large, in both of its layouts.

Zhou, Lapedriza, Khosla, Oliva, Torralba: Places: a 10 million image database for scene recognition (2017),
http://places2.csail.mit.edu/download.html
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from flowfn import rules
from flowfn.datasets.finding import Published, lines_of
from flowfn.datasets.listed import labeled_files, lines_of_list, listed_flow, with_images
from flowfn.flows.flow import Flow
from flowfn.storage.damage import reading
from flowfn.storage.files import call

_PLACES365_PAGE = "http://places2.csail.mit.edu/download.html"
_PLACES365_SUMS = {
    "categories_places365.txt": "06c963b85866bd0649f97cb43dd16673",
    "places365_train_standard.txt": "30f37515461640559006b8329efbed1a",
    "places365_train_challenge.txt": "b2931dc997b8c33c27e7329c073a6b57",
    "places365_val.txt": "e9f2fd57bfd9d07630173f4e8708e4b1",
    "places365_test.txt": "2fce8233fe493576d724142e45d93653",
}
_LIST_NAMES = {"train": "train_standard", "train-challenge": "train_challenge", "val": "val", "test": "test"}
_IMAGE_FOLDERS = {
    "train": "data_{}_standard",
    "train-challenge": "data_{}_challenge",
    "val": "val_{}",
    "test": "test_{}",
}
_CATEGORIES = "categories_places365.txt"
_LOOKED_AT = 10


@rules.checked(split=rules.one_of(*_LIST_NAMES), size=rules.one_of(256, "large"))
def places365_files(dir: Any, split: str = "train", *, size: Any = 256, verify: bool = False) -> Flow[Any]:
    """List Places365: [path, label int in 0..364], in the order of its lists; no image is opened.

    `split` is "train" (the standard one), "train-challenge", "val" or "test" (whose labels are not published: they are
    -1). `dir` holds the official lists (`places365_train_standard.txt`, `places365_val.txt`, ...) and the unpacked
    archives: with `size=256` the folders `data_256_standard` (`data_256` is as good), `data_256_challenge`, `val_256`,
    `test_256`, with `size="large"` those called `large` instead. Or it is what `places365standard_easyformat.tar`
    unpacks (`train.txt`, `val.txt` and folders `train/airfield`, ...; 256 only): labels are then the places of the
    folders' names, sorted. With `verify=True` an official list is compared with its published MD5 sum.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a list is not what it should be.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> os.mkdir(os.path.join(folder, "val_256"))
    >>> open(os.path.join(folder, "val_256", "Places365_val_00000001.jpg"), "w").close()
    >>> with open(os.path.join(folder, "places365_val.txt"), "w") as file:
    ...     _ = file.write("Places365_val_00000001.jpg 165\\n")
    >>> [(os.path.relpath(path, folder), label) for path, label in places365_files(folder, "val")]
    [('val_256/Places365_val_00000001.jpg', 165)]
    """
    return _places365_paths("places365_files", dir, split, size, verify)


@rules.checked(split=rules.one_of(*_LIST_NAMES), size=rules.one_of(256, "large"))
def places365(dir: Any, split: str = "train", *, size: Any = 256, verify: bool = False) -> Flow[Any]:
    """Read Places365: [image uint8 RGB, label int], decoded as they are wanted; (256, 256, 3),
    or with `size="large"` (h, w, 3).

    The arguments are those of `places365_files`, `places365_labels` belongs to it.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a list, or an image, is not what it should be.
        ImportError: opencv is not installed.
    """
    return with_images(_places365_paths("places365", dir, split, size, verify))


def places365_labels(dir: Any) -> list[str]:
    """Read what the labels of Places365 mean, in their order: "airfield", "airplane_cabin", ...

    They are read from `categories_places365.txt`; of the easy layout, which has no such file,
    from `val.txt` (or `train.txt`).

    Raises:
        FileNotFoundError: the file is missing; nothing is downloaded, the message says where it is found.
        ValueError: it is not what it should be.
    """
    published = Published("places365_labels", _PLACES365_PAGE)
    folder = published.folder(dir)
    if not os.path.isfile(os.path.join(folder, _CATEGORIES)):
        for name in ("val.txt", "train.txt"):
            if os.path.isfile(os.path.join(folder, name)):
                return _kinds(os.path.join(folder, name), published.who)
    path = published.file(folder, _CATEGORIES)
    with reading(path, f"places365_labels(): {path!r} is not a text file in UTF-8"):
        numbered = {label: name.decode() for name, label in lines_of_list(path, published.who)}
    if sorted(numbered) != list(range(len(numbered))):
        raise ValueError(f"places365_labels(): {path!r} must number its categories from 0 on")
    return [numbered[label].removeprefix("/")[2:] for label in range(len(numbered))]


def _places365_paths(who: str, dir: Any, split: str, size: Any, verify: bool) -> Flow[Any]:
    published = Published(who, _PLACES365_PAGE, _PLACES365_SUMS)
    folder = published.folder(dir)
    easy = os.path.join(folder, f"{split}.txt")
    if size == 256 and not verify and os.path.isfile(easy):
        images, entries = folder, _easy(easy, who)
    else:
        path = published.file(folder, f"places365_{_LIST_NAMES[split]}.txt", verify=verify)
        images = _images(published, folder, split, size)
        entries = _below(lines_of_list(path, who, labels=split != "test"), path, who)
    files = labeled_files(images, entries)
    for name, _ in islice(files, _LOOKED_AT):
        if not os.path.isfile(name):
            raise published.missing(images, os.path.relpath(name, images).replace(os.sep, "/"))
    return listed_flow(
        "places365_files", call("places365_files", folder, split, size=(size, 256), verify=(verify, False)), files
    )


def _images(published: Published, folder: str, split: str, size: Any) -> str:
    """The folder that the archive of a split unpacks to."""
    name = _IMAGE_FOLDERS[split].format(size)
    for one in (name, name.removesuffix("_standard")):
        if os.path.isdir(os.path.join(folder, one)):
            return os.path.join(folder, one)
    raise published.missing(folder, name)


def _below(lines: Iterable[tuple[bytes, int]], path: str, who: str) -> Iterator[tuple[bytes, int]]:
    """The lines of an official list; training images begin with a slash, though they lie below a folder."""
    for name, label in lines:
        if label >= 365:
            raise ValueError(
                f"{who}(): {path!r} gives {name.decode(errors='replace')!r} the label {label}, and there are 365"
            )
        yield name.lstrip(b"/"), label


def _easy(path: str, who: str) -> Iterator[tuple[bytes, int]]:
    """The lines of a list in the easy layout, "train/airfield/00000001.jpg",
    with the place of the folder's name among all."""
    numbers = {kind: number for number, kind in enumerate(_kinds(path, who))}
    for line in lines_of(path, who):
        yield os.fsencode(line), numbers[line.split("/")[1]]


def _kinds(path: str, who: str) -> list[str]:
    kinds = set()
    for number, line in enumerate(lines_of(path, who), 1):
        parts = line.split("/")
        if len(parts) < 3:
            raise ValueError(
                f"{who}(): line {number} of {path!r} must be such as 'train/airfield/00000001.jpg', got {line[:80]!r}"
            )
        kinds.add(parts[1])
    return sorted(kinds)
