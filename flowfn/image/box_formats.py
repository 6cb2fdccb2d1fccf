"""Boxes in the ways in which others write them: by corners, by a corner and a size, by the middle and a size."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowfn import rules
from flowfn.rules import is_integer
from flowfn.showing import brief

FORMATS = ("xyxy", "xywh", "cxcywh", "rel_xyxy", "rel_xywh", "rel_cxcywh")
"""Those in pixels, and those in shares of the image's width and height."""
NEARLY = 1e-3
"""How far a share may be beyond 0 or 1, for what rounding has done."""

_WORDS = {
    "xyxy": "x1 y1 x2 y2 with x1 <= x2 and y1 <= y2",
    "xywh": "x y width height with width >= 0 and height >= 0",
    "cxcywh": "the middle's x and y, width and height, with width >= 0 and height >= 0",
}

FORMAT = rules.Rule(
    ", ".join(map(repr, FORMATS[:-1])) + f" or {FORMATS[-1]!r}",
    lambda value: isinstance(value, str),
    lambda value, others: value in FORMATS,
    hint=" (COCO's are 'xywh', YOLO's 'rel_cxcywh')",
)
_SHAPE = rules.optional(
    rules.Rule(
        "the shape of an image, (height, width) or (height, width, channels)",
        lambda value: isinstance(value, (tuple, list)) and len(value) in (2, 3) and all(map(is_integer, value)),
        lambda value, others: min(value) > 0,
    )
)


@rules.checked(from_format=FORMAT, to_format=FORMAT, shape=_SHAPE)
def convert_boxes(boxes: Any, from_format: str, to_format: str, shape: Any = None) -> np.ndarray:
    """Write boxes (n, 4) in another way.

    - "xyxy": left, top, right, bottom, in pixels from the image's top left corner. `flowfn.image` has them so.
      (Pascal VOC's files count pixels from 1 and name the last that is inside: less [1, 1, 0, 0] they are these.)
    - "xywh": left, top, width, height, as COCO.
    - "cxcywh": the middle, width, height.
    - "rel_xyxy", "rel_xywh", "rel_cxcywh": the same in shares (0 to 1) of the image's width and height; YOLO's files
      have "rel_cxcywh". To go from pixels to shares or back takes the image's `shape`, (height, width[, channels]).

    Floats keep their dtype, anything else becomes float64. A new array is returned. There and back, between formats in
    pixels, integers and binary fractions (halves, quarters, ...) come out as they went in; other numbers, and those
    that are divided by an image's size, may differ in their last digit.

    Raises:
        ValueError: boxes are not (n, 4), or not finite; right is less than left, or bottom less than top; a width or
            height is negative; shares are below 0 or above 1 (by more than 0.001); `shape` is missing.

    >>> convert_boxes([[10, 20, 30, 40]], "xywh", "xyxy")
    array([[10., 20., 40., 60.]])
    >>> convert_boxes([[0.5, 0.5, 0.25, 1.0]], "rel_cxcywh", "xyxy", (100, 200))
    array([[ 75.,   0., 125., 100.]])
    """
    rows = checked_boxes(boxes, from_format, "convert_boxes(): boxes")
    if from_format.startswith("rel_") != to_format.startswith("rel_") and shape is None:
        raise ValueError(
            f"convert_boxes(): shape must be the (height, width) of the image, to go from {from_format!r} to "
            f"{to_format!r}, got None"
        )
    return converted(rows, from_format, to_format, shape)


def checked_boxes(value: Any, form: str, what: str, hint: str = "") -> np.ndarray:
    """Boxes as floats (n, 4), or an error that shows one that cannot be in this format; a list of none is (0, 4)."""
    boxes = np.asarray(value)
    if not boxes.size and boxes.ndim == 1:
        boxes = np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be numbers of shape (n, 4), got {brief(value)}")
    boxes = boxes if boxes.dtype.kind == "f" else boxes.astype(np.float64)
    right, required = _right(boxes, form)
    if not right.all():
        raise ValueError(f"{what} must be {required}, got {boxes[~right][0].tolist()}{hint}")
    return boxes


def _right(boxes: np.ndarray, form: str) -> tuple[np.ndarray, str]:
    """Which boxes can be in a format, and what that takes, in words."""
    kind = form.removeprefix("rel_")
    right = np.isfinite(boxes).all(1) & ((boxes[:, :2] if kind == "xyxy" else 0) <= boxes[:, 2:]).all(1)
    if form == kind:
        return right, f"finite {_WORDS[kind]}"
    inside = ((boxes >= -NEARLY) & (boxes <= 1 + NEARLY)).all(1)
    return right & inside, f"{_WORDS[kind]}, in shares of the image's width and height, from 0 to 1"


def converted(boxes: np.ndarray, before: str, after: str, shape: Any) -> np.ndarray:
    """Boxes of floats in another format; computed in float64, and rounded once."""
    made = np.array(boxes, np.float64)
    sides: Any = 1 if shape is None else np.array([shape[1], shape[0]] * 2, np.float64)
    kind, wanted = before.removeprefix("rel_"), after.removeprefix("rel_")
    if before != kind and after == wanted:
        made *= sides
    if kind != wanted:
        _from_corners(_to_corners(made, kind), wanted)
    if before == kind and after != wanted:
        made /= sides
    return made.astype(boxes.dtype, copy=False)


def _to_corners(boxes: np.ndarray, kind: str) -> np.ndarray:
    if kind == "cxcywh":
        boxes[:, :2] -= boxes[:, 2:] / 2
    if kind != "xyxy":
        boxes[:, 2:] += boxes[:, :2]
    return boxes


def _from_corners(boxes: np.ndarray, kind: str) -> np.ndarray:
    if kind != "xyxy":
        boxes[:, 2:] -= boxes[:, :2]
    if kind == "cxcywh":
        boxes[:, :2] += boxes[:, 2:] / 2
    return boxes
