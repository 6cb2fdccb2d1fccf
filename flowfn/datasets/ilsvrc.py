"""ILSVRC12: the 1000 classes of ImageNet, as files and as images, in both layouts of the validation set.

Russakovsky et al.: ImageNet large scale visual recognition challenge (2015),
https://www.image-net.org/challenges/LSVRC/2012/. Labels are those of Caffe's lists
(http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz), which everybody uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from flowfn import rules
from flowfn.datasets.annotations import with_boxes
from flowfn.datasets.finding import Published, lines_of
from flowfn.datasets.folders import EXTENSIONS, of_folders
from flowfn.datasets.listed import LabeledFiles, labeled_files, lines_of_list, listed_flow, with_images
from flowfn.datasets.synsets import CAFFE, archive_file
from flowfn.flows.flow import Flow
from flowfn.storage.files import call
from flowfn.vocabulary.transform import map

_ILSVRC12_PAGE = "https://www.image-net.org/challenges/LSVRC/2012/"
_ILSVRC12_SPLITS = ("train", "val", "test")
LOOKED_AT = 10
"""How many images of a list are looked for, to tell a wrong folder at once."""


@rules.checked(split=rules.one_of(*_ILSVRC12_SPLITS))
def ilsvrc12_files(dir: Any, split: str = "train", *, metadata: Any = None, boxes: Any = None) -> Flow[Any]:
    """List ILSVRC12: [path, label int], in the order of Caffe's lists; no image is opened.

    `dir` holds the unpacked folders `train/n01440764/*.JPEG`, `val` and `test`; `split` names one of them. The images
    of `val` (and `test`) lie in it side by side, as in the archive, or in a folder for each synset: it is seen which.
    `metadata` is the folder with `train.txt`, `val.txt`, `test.txt` and `synsets.txt` of Caffe's archive; left out,
    they are looked for in `dir` (and in `caffe_ilsvrc12` there). Folders of synsets can do without: labels are then the
    places of their names, sorted, among those in `train`, `val` and `test` together. The test set's labels are what
    `test.txt` says: 0.

    With `boxes`, a folder of XML files (`n01440764/n01440764_18.xml` or `ILSVRC2012_val_00000001.xml`), datapoints are
    [path, label, boxes (n, 4) float32] with x1, y1, x2, y2 as the file has them, n = 0 where there is no file.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a list is not what it should be.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for synset in ("n01443537", "n01440764"):
    ...     os.makedirs(os.path.join(folder, "train", synset))
    ...     open(os.path.join(folder, "train", synset, f"{synset}_18.JPEG"), "w").close()
    >>> [(os.path.basename(path), label) for path, label in ilsvrc12_files(folder)]
    [('n01440764_18.JPEG', 0), ('n01443537_18.JPEG', 1)]
    """
    return _ilsvrc12_paths("ilsvrc12_files", dir, split, metadata, boxes)


@rules.checked(split=rules.one_of(*_ILSVRC12_SPLITS))
def ilsvrc12(dir: Any, split: str = "train", *, metadata: Any = None, boxes: Any = None) -> Flow[Any]:
    """Read ILSVRC12: [image (h, w, 3) uint8 RGB, label int],
    decoded as they are wanted (with `boxes`: [image, label, boxes]).

    The arguments are those of `ilsvrc12_files`. `ilsvrc12_labels`, `ilsvrc12_synsets`, `ilsvrc12_mean` and
    `IMAGENET_STATISTICS` belong to it.

    Raises:
        FileNotFoundError: a file is missing; nothing is downloaded, the message says where it is found.
        ValueError: a list, or an image, is not what it should be.
        ImportError: opencv is not installed.
    """
    return with_images(_ilsvrc12_paths("ilsvrc12", dir, split, metadata, boxes))


def _ilsvrc12_paths(who: str, dir: Any, split: str, metadata: Any, boxes: Any) -> Flow[Any]:
    published = Published(who, f"{_ILSVRC12_PAGE} (ILSVRC2012_img_{split}*.tar)")
    folder = published.folder(dir)
    about = folder if metadata is None else published.folder(metadata, "metadata")
    marked = None if boxes is None else published.folder(boxes, "boxes")
    images = os.path.join(folder, split)
    if not os.path.isdir(images):
        raise published.missing(folder, split)
    shown = call("ilsvrc12_files", folder, split, metadata=(metadata and about, None))
    flow = listed_flow("ilsvrc12_files", shown, _image_list(published, images, about, split))
    return flow if marked is None else map(with_boxes(marked), flow)


def _image_list(published: Published, images: str, about: str, split: str) -> LabeledFiles:
    """The list that there is; without one, what is in folders of synsets."""
    try:
        path = archive_file(published, about, f"{split}.txt")
    except FileNotFoundError as error:
        inside = _folders(images)
        if not inside:
            raise FileNotFoundError(
                f"{error}; without it there must be folders of synsets such as 'n01440764' in {images!r}"
            ) from None
        return _in_synsets(published, images, inside, _synsets(published, about) or _of_all_splits(images))
    first = [name for name, _ in islice(lines_of_list(path, published.who), LOOKED_AT)]
    if not first:
        raise ValueError(f"{published.who}(): the list {path!r} is empty; get it again from {CAFFE}")
    lines: Iterable[tuple[bytes, int]] = lines_of_list(path, published.who)
    if not os.path.isfile(os.path.join(images, os.fsdecode(first[0]))):
        synsets = _synsets(published, about) or _of_all_splits(images)
        if synsets and not os.path.dirname(first[0]):
            lines = _in_folders(lines, synsets, path, published.who)
    files = labeled_files(images, lines)
    for name, _ in islice(files, LOOKED_AT):
        if not os.path.isfile(name):
            raise published.missing(images, os.path.relpath(name, images).replace(os.sep, "/"))
    return files


def _in_synsets(published: Published, images: str, inside: list[str], synsets: list[str]) -> LabeledFiles:
    """What is in the folders `inside`, labelled by their places among the synsets."""
    unknown = sorted(set(inside).difference(synsets))
    if unknown:
        raise ValueError(
            f"{published.who}(): the folder {unknown[0]!r} in {images!r} is none of the {len(synsets)} synsets in the "
            "metadata"
        )
    files = of_folders(images, synsets, EXTENSIONS, published.who)
    if not len(files):
        raise published.missing(images, f"{inside[0]}/*.JPEG")
    return files


def _folders(images: str) -> list[str]:
    """The synsets that have a folder, in their order."""
    with os.scandir(images) as entries:
        return sorted(entry.name for entry in entries if is_synset(entry.name) and entry.is_dir())


def _of_all_splits(images: str) -> list[str]:
    """The synsets that have a folder in any split, so that labels are the same in all of them,
    whichever a split lacks."""
    beside = (os.path.join(os.path.dirname(images), split) for split in _ILSVRC12_SPLITS)
    return sorted({synset for folder in beside if os.path.isdir(folder) for synset in _folders(folder)})


def is_synset(name: str) -> bool:
    """Whether a name is a WordNet id: "n01440764"."""
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _synsets(published: Published, about: str) -> list[str]:
    """The synsets in the order of their labels, if it is written down anywhere."""
    try:
        path = archive_file(published, about, "synsets.txt", "synset_words.txt")
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in lines_of(path, published.who)]


def _in_folders(
    lines: Iterable[tuple[bytes, int]], synsets: list[str], path: str, who: str
) -> Iterator[tuple[bytes, int]]:
    """The lines of a list of files side by side, each in the folder of its synset."""
    folders = [f"{synset}/".encode() for synset in synsets]
    for name, label in lines:
        if label >= len(folders):
            raise ValueError(
                f"{who}(): {path!r} gives {name.decode(errors='replace')!r} the label {label}, but there are "
                f"{len(folders)} synsets"
            )
        yield folders[label] + name, label
