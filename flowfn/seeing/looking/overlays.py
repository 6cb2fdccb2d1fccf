"""What lies over an image: masks, boxes and points that stand beside it in a datapoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from flowfn.seeing.pictures import COLOURS, SIDE, coloured, encoded, images_in

_NAMED = {"boxes": re.compile(r"box", re.I), "points": re.compile(r"point|coord|landmark", re.I)}


def overlays_of(parts: Sequence[tuple[str, np.ndarray | None]]) -> dict[int, dict[str, Any]]:
    """How an image with masks, boxes or points beside it is drawn, and the masks: by their numbers among the parts."""
    arrays = [(number, name, array) for number, (name, array) in enumerate(parts) if array is not None and array.size]
    colour = (one for one in arrays if one[2].ndim == 3 and one[2].shape[-1] in (1, 3, 4) and images_in(one[2])[0])
    image = next(colour, None)
    if image is None:
        return {}
    shape = image[2].shape[:2]
    others = [(name, array) for number, name, array in arrays if number != image[0]]
    labels = {number: array for number, _, array in arrays if array.shape == shape and array.dtype.kind in "biu"}
    masks = list(labels.values())
    boxes = [array for name, array in others if _lies_on("boxes", name, array, shape)]
    points = [array for name, array in others if _lies_on("points", name, array, shape)]
    if not (masks or boxes or points):
        return {}

    def over(cv2: Any, small: np.ndarray, scale: float) -> np.ndarray:
        return _painted(cv2, small, scale, masks, boxes, points)

    files = {image[0]: encoded(image[2], over)}
    files |= {number: encoded(coloured(_nearly_small(mask))) for number, mask in labels.items()}
    return {number: {"form": "images", "drawn": {"files": [file], "more": 0}} for number, file in files.items() if file}


def _nearly_small(mask: np.ndarray) -> np.ndarray:
    """So many of the labels of a mask as may be seen, as bytes."""
    steps = [max(side // SIDE, 1) for side in mask.shape]
    return mask[:: steps[0], :: steps[1]].astype(np.uint8)


def _lies_on(what: str, name: str, array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether an array is boxes x1 y1 x2 y2 (or points x y) in an image: by its name, or by its numbers."""
    wide = {"boxes": 4, "points": 2}[what]
    if array.ndim != 2 or array.shape[1] != wide or array.dtype.kind not in "fiu" or len(array) > 1000:
        return False
    height, width = shape
    corners = array.reshape(-1, 2)
    inside = bool((corners >= -1).all() and (corners <= (width + 1, height + 1)).all())
    ordered = what == "points" or bool((array[:, :2] <= array[:, 2:]).all())
    return ordered and (bool(_NAMED[what].search(name)) or (inside and array.max() > 1))


def _painted(cv2: Any, small: np.ndarray, scale: float, masks: Any, boxes: Any, points: Any) -> np.ndarray:
    """A small image with all that lies on it."""
    small = cv2.cvtColor(small, cv2.COLOR_GRAY2RGB) if small.ndim == 2 else np.ascontiguousarray(small[..., :3])
    height, width = small.shape[:2]
    for mask in masks:
        labels = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        there = labels > 0
        small[there] = (0.55 * small[there] + 0.45 * coloured(labels)[there]).astype(np.uint8)
    for number, box in enumerate(box for several in boxes for box in several):
        x1, y1, x2, y2 = (round(float(side) * scale) for side in box)
        cv2.rectangle(small, (x1, y1), (x2, y2), COLOURS[number % len(COLOURS)], 2, cv2.LINE_AA)
    for x, y in (point for several in points for point in several):
        centre = round(float(x) * scale), round(float(y) * scale)
        cv2.circle(small, centre, 3, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(small, centre, 2, COLOURS[0], -1, cv2.LINE_AA)
    return small
