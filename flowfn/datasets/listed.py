"""Lists of image files with their labels, a million of them in some forty megabytes;
and the images that are in them."""

from __future__ import annotations

import operator
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from flowfn.flows.flow import Flow
from flowfn.storage.damage import reading, warn_of_end
from flowfn.storage.files import flow_of
from flowfn.vocabulary.transform import map_component


class LabeledFiles:
    """A sequence of [path, label]: the names below one folder in one string of bytes, and where each ends.

    It pickles as what it holds. (A worker that listed the folder for itself might find another list there.)
    """

    def __init__(self, folder: str, names: bytes, ends: np.ndarray, labels: np.ndarray) -> None:
        self.folder, self.names, self.ends, self.labels = folder, names, ends, labels

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> list[Any]:
        index = operator.index(index)
        if not 0 <= index < len(self.ends):
            raise IndexError(f"index {index} is out of range for {len(self.ends)} files")
        start = self.ends[index - 1] if index else 0
        return [
            os.path.join(self.folder, "") + os.fsdecode(self.names[start : self.ends[index]]),
            int(self.labels[index]),
        ]

    def __getitems__(self, indices: Sequence[int]) -> list[list[Any]]:
        """Several at once."""
        chosen = np.asarray(indices, np.int64)
        stops = self.ends[chosen].tolist()
        starts = np.where(chosen > 0, self.ends[chosen - 1], 0).tolist()
        names, front = self.names, os.path.join(self.folder, "")
        return [
            [front + os.fsdecode(names[start:stop]), label]
            for start, stop, label in zip(starts, stops, self.labels[chosen].tolist())
        ]

    def __iter__(self) -> Iterator[list[Any]]:
        for start in range(0, len(self), 4096):
            yield from self.__getitems__(range(start, min(start + 4096, len(self))))


def labeled_files(folder: str, entries: Iterable[tuple[bytes, int]]) -> LabeledFiles:
    """The list of (path below `folder`, label)."""
    names, ends, labels = bytearray(), array("q"), array("i")
    for name, label in entries:
        names += name
        ends.append(len(names))
        labels.append(label)
    return LabeledFiles(folder, bytes(names), np.array(ends, np.int64), np.array(labels, np.int32))


def listed_flow(name: str, shown: str, files: LabeledFiles) -> Flow[Any]:
    """The flow of a list of files."""
    return flow_of(files, name, shown)


def with_images(files: Flow[Any]) -> Flow[Any]:
    """The same flow with the images that are in the files: uint8 arrays (height, width, 3), RGB."""
    from flowfn.image.reading import read_image

    return map_component(read_image, 0, files)


def lines_of_list(path: str, who: str, labels: bool = True) -> Iterator[tuple[bytes, int]]:
    """The lines of a list file: a name, and behind the last space its label; -1 where there are no labels.

    Raises:
        ValueError: a line has no label; the message says which.

    Warns:
        UserWarning: no line break ends the last label, of which digits may be cut off.
    """
    with reading(path, f"{who}(): {path!r} cannot be read"), open(path, "rb") as file:
        for number, given in enumerate(file, 1):
            line = given.strip()
            if not line:
                continue
            if labels and not given.endswith(b"\n"):
                warn_of_end(path, who)
            if not labels:
                yield os.fsencode(line.decode("utf-8", "surrogateescape")), -1
                continue
            name, _, label = line.rpartition(b" ")
            if not name or not label.isdigit() or len(label) > 9:
                raise ValueError(f"{who}(): line {number} of {path!r} must be a name and a label, got {line[:80]!r}")
            yield name.rstrip(), int(label)
