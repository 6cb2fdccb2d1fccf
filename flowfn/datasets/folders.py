"""Images in folders, a folder for each label: `dir/cat/1.jpg`, `dir/cat/2.jpg`, `dir/dog/1.jpg`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowfn import rules
from flowfn.datasets.finding import Published
from flowfn.datasets.listed import LabeledFiles, labeled_files, listed_flow, with_images
from flowfn.flows.flow import Flow
from flowfn.storage.files import call
from flowfn.vocabulary.making import _natural_order as natural

EXTENSIONS = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""How the names of images end, in small letters."""

_IMAGE_EXTENSIONS = rules.Rule(
    'a list of extensions such as ".jpg"',
    lambda value: isinstance(value, (list, tuple, set, frozenset)),
    lambda value, others: bool(value) and all(isinstance(one, str) and one.startswith(".") for one in value),
)
_FOLDER_LABELS = rules.optional(
    rules.Rule(
        "a list of the folders' names, or a dict from names to integers of 32 bits",
        lambda value: isinstance(value, (list, tuple, Mapping)),
        lambda value, others: (
            len(set(value)) == len(value) > 0
            and all(isinstance(name, str) for name in value)
            and (
                not isinstance(value, Mapping)
                or all(rules.is_integer(one) and -(2**31) <= one < 2**31 for one in value.values())
            )
        ),
    )
)


@rules.checked(extensions=_IMAGE_EXTENSIONS, labels=_FOLDER_LABELS)
def image_folder_files(dir: Any, *, extensions: Sequence[str] = EXTENSIONS, labels: Any = None) -> Flow[Any]:
    """List the images in a folder's folders: [path, label int]; no image is opened.

    Each folder in `dir` is a label, with all images in it and in its own folders. Labels are counted from 0 in the
    natural order of the folders' names ("2" before "10"); `labels` may be another order, as a list of names
    (`labels=sorted(names)` is torchvision's), or a dict from names to integers; folders that it leaves out are left
    out. Images come label by label, in natural order ("image2" before "image10"). Names that begin with a dot are left
    out, and images in `dir` itself, which have no label. Links are followed, and each folder is entered once for a
    label, so links in a circle do no harm.

    The folders are read once, in this call. What cannot be opened (a link to nothing, say) is an error when it is read.
    A hundred thousand files take less than a second and four megabytes.

    Raises:
        FileNotFoundError: there are no folders with images; the message says what there is.
        PermissionError: a folder cannot be read.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for name in ("dog/10.png", "dog/2.png", "cat/1.PNG", "cat/notes.txt"):
    ...     os.makedirs(os.path.join(folder, os.path.dirname(name)), exist_ok=True)
    ...     open(os.path.join(folder, name), "w").close()
    >>> [(os.path.relpath(path, folder), label) for path, label in image_folder_files(folder)]
    [('cat/1.PNG', 0), ('dog/2.png', 1), ('dog/10.png', 1)]
    >>> image_folder_labels(folder)
    ['cat', 'dog']
    """
    return _image_folder_paths("image_folder_files", dir, extensions, labels)


@rules.checked(extensions=_IMAGE_EXTENSIONS, labels=_FOLDER_LABELS)
def image_folder(dir: Any, *, extensions: Sequence[str] = EXTENSIONS, labels: Any = None) -> Flow[Any]:
    """Read the images in a folder's folders: [image (h, w, 3) uint8 RGB, label int], decoded as they are wanted.

    The arguments, and the order, are those of `image_folder_files`.

    Raises:
        FileNotFoundError: there are no folders with images; the message says what there is.
        PermissionError: a folder, or an image, cannot be read.
        ValueError: a file is no image.
        ImportError: opencv is not installed.
    """
    return with_images(_image_folder_paths("image_folder", dir, extensions, labels))


def image_folder_labels(dir: Any) -> list[str]:
    """The names of a folder's folders in natural order, which are the labels of `image_folder`."""
    return _names(Published("image_folder_labels").folder(dir))


def _image_folder_paths(who: str, dir: Any, extensions: Any, labels: Any) -> Flow[Any]:
    folder = Published(who).folder(dir)
    ends = tuple(sorted(one.lower() for one in extensions))
    names = _names(folder)
    files = of_folders(folder, names if labels is None else labels, ends, who)
    if not len(files):
        there = f"its folders are {_names_in_words(names)}" if names else "there are no folders in it"
        wanted = "any folder" if labels is None else f"the folders {_names_in_words(list(labels))}"
        raise FileNotFoundError(
            f"{who}(): no image ({', '.join(ends)}) lies in {wanted} of {folder!r}, and a folder stands for a label; "
            f"{there}. "
            f"For images without labels write files({os.path.join(folder, '**')!r})"
        )
    shown = call("image_folder_files", folder, extensions=(ends, EXTENSIONS), labels=(labels, None))
    return listed_flow("image_folder_files", shown, files)


def _names_in_words(names: list[str]) -> str:
    return ", ".join([*map(repr, names[:5]), *["..."] * (len(names) > 5)])


def _names(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry)), key=_natural_key
        )


def of_folders(
    folder: str, labels: Sequence[str] | Mapping[str, int], extensions: tuple[str, ...], who: str
) -> LabeledFiles:
    """The images below some of the folders in a folder, with their labels; a folder that is not there has no images."""
    numbered = labels if isinstance(labels, Mapping) else {name: number for number, name in enumerate(labels)}
    return labeled_files(
        folder,
        (
            (os.fsencode(path), int(label))
            for name, label in numbered.items()
            if os.path.isdir(os.path.join(folder, name))
            for path in images_below(folder, name, extensions, who)
        ),
    )


def images_below(folder: str, name: str, extensions: tuple[str, ...], who: str) -> Iterator[str]:
    """The images in a folder and in its folders, as paths below `folder` in natural order;
    nothing is opened but folders.

    Raises:
        OSError: a folder cannot be read.
    """
    entered = {_identity(folder)}
    todo = [name]
    while todo:
        inner = todo.pop()
        path = os.path.join(folder, inner)
        files, folders = [], []
        try:
            identity = _identity(path)
            if identity in entered:
                continue
            entered.add(identity)
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        folders.append(entry.name)
                    elif entry.name.lower().endswith(extensions) and _may_be_read(entry):
                        files.append(entry.name)
        except OSError as error:
            raise type(error)(
                f"{who}(): the folder {path!r} cannot be read ({error.strerror}), and what is in it would be missed"
            ) from error
        files.sort(key=_natural_key)
        folders.sort(key=_natural_key, reverse=True)
        yield from (f"{inner}/{file}" for file in files)
        todo += [f"{inner}/{one}" for one in folders]


def _identity(path: str) -> tuple[int, int]:
    """What a folder is known by, whatever links lead to it."""
    told = os.stat(path)
    return told.st_dev, told.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link to itself is neither."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _may_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to nothing, which is an error when it is read;
    a pipe would be waited for without end."""
    if entry.is_symlink():
        return os.path.isfile(entry.path) or not os.path.exists(entry.path)
    return entry.is_file()


def _natural_key(name: str) -> tuple[list[Any], str]:
    return natural(name), name
