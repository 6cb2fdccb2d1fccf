"""Bounding boxes in the XML of PASCAL VOC, which ImageNet's are written in
(http://host.robots.ox.ac.uk/pascal/VOC/)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn
from xml.etree import ElementTree

import numpy as np

from flowfn.storage.damage import reading
from flowfn.storage.files import file_path

LARGEST_ANNOTATION = 1 << 22
"""Bytes beyond which a file is no annotation of one image."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Annotation(NamedTuple):
    """What is marked in one image: (height, width), the names of n objects, boxes (n, 4) float32 (x1, y1, x2, y2)."""

    shape: tuple[int, int]
    names: list[str]
    boxes: np.ndarray


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree of a document without a DOCTYPE: entities, which can unfold without end, are defined in one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        """Refuse it, before anything in it is read."""
        raise ValueError("it has a DOCTYPE, which annotations do not need and which is not read")


def read_annotation(path: Any) -> Annotation:
    """Read the boxes of one image from an XML file in the form of PASCAL VOC, with the numbers as they stand there.

    (ImageNet counts pixels from 0, and VOC from 1; in both, xmax and ymax are the last pixels inside.)

    Raises:
        ValueError: it is no such file, or has a DOCTYPE, where entities could unfold without end.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w") as file:
    ...     _ = file.write("<annotation><size><width>50</width><height>40</height></size><object><name>n02119789</name>"
    ...         "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>")
    ...     file.flush()
    ...     read_annotation(file.name)
    Annotation(shape=(40, 50), names=['n02119789'], boxes=array([[ 1.,  2., 30., 20.]], dtype=float32))
    """
    name = file_path(path, "read_annotation")
    with reading(name, f"read_annotation(): {name!r} is not an annotation in the form of PASCAL VOC"):
        with open(name, "rb") as file:
            content = file.read(LARGEST_ANNOTATION + 1)
        if len(content) > LARGEST_ANNOTATION:
            raise ValueError(f"it is larger than {LARGEST_ANNOTATION} bytes")
        parser = ElementTree.XMLParser(target=_Builder())
        parser.feed(content)
        return _annotation(parser.close())


def _annotation(root: Any) -> Annotation:
    height, width = (int(_number(root, f"size/{side}")) for side in ("height", "width"))
    names, boxes = [], []
    for thing in root.findall("object"):
        names.append((thing.findtext("name") or "").strip())
        boxes += [[_number(box, side) for side in _CORNERS] for box in thing.findall("bndbox")[:1]]
        if len(boxes) < len(names):
            raise ValueError(f"its object {len(names)} has no bndbox")
    return Annotation((height, width), names, np.array(boxes, np.float32).reshape(-1, 4))


def _number(element: Any, path: str) -> float:
    """The number in an element further down."""
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"its {path} is {text.strip()}")
    return number


@dataclass(frozen=True)
class with_boxes:
    """Appends the boxes of an image to [path, ...]: (n, 4) float32, out of the XML file of its name;
    none if there is no such file."""

    folder: str

    def __call__(self, datapoint: list[Any]) -> list[Any]:
        stem = os.path.splitext(datapoint[0])[0]
        inner, name = os.path.split(stem)
        for below in (os.path.join(os.path.basename(inner), name), name):  # in a folder for each synset, or all in one
            path = os.path.join(self.folder, f"{below}.xml")
            if os.path.isfile(path):
                return [*datapoint, read_annotation(path).boxes]
        return [*datapoint, np.empty((0, 4), np.float32)]
