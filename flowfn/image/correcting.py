"""Transforms of albumentations in which points, boxes and masks go where their image goes.

Their points are centres of pixels where they flip and warp, and corners where they resize; where they distort, points
are drawn as pixels and looked for again. Boxes are warped about another centre than images, and masks resized to the
pixel above and left of the one that is there. A copy of the transform has that replaced, from outside, in all that it
is made of. Methods that are not the library's own are left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import cv2
import numpy as np

from flowfn.image.inverting import inverted

_Apply: TypeAlias = Callable[..., np.ndarray]

RESIZING = frozenset({"Resize", "_BaseRandomSizedCrop", "RandomSizedBBoxSafeCrop", "CropAndPad"})
"""The classes that resize to a size, by name: their subclasses do too."""

SCALING: dict[str, Callable[[float], int]] = {"RandomScale": int, "MaxSizeTransform": round}
"""Those that resize by a factor, and how they come to whole pixels."""

DRAWING = frozenset({"BaseDropout", "GridElasticDeform", "Morphological", "RandomGridShuffle"})
"""Those that move boxes as pixels, and round all their sides down."""


def corrected(transform: Any) -> Any:
    """A copy of a transform of albumentations, or a composition of them, whose parts move alike."""
    made = copy.deepcopy(transform)
    for one in _parts(made):
        kinds = {kind.__name__ for kind in type(one).__mro__ if kind.__module__.startswith("albumentations.")}
        if kinds & RESIZING:
            _resize_exactly(one)
            _replace(one, "apply_to_keypoints", _resized_points)
        elif kinds & SCALING.keys():
            _resize_exactly(one)
            _replace(one, "apply_to_keypoints", partial(_scaled_points, SCALING[min(kinds & SCALING.keys())]))
        elif "BaseDistortion" in kinds:
            _replace(one, "apply_to_keypoints", _distorted_points)
        elif "Affine" in kinds:
            _replace(one, "apply_to_bboxes", _affine_boxes)
        elif "Perspective" in kinds:
            _replace(one, "apply_to_bboxes", _perspective_boxes)
        elif kinds & DRAWING:
            _replace(one, "apply_to_bboxes", _boxes_of_pixels)
        if getattr(one, "border_mode", cv2.BORDER_CONSTANT) != cv2.BORDER_CONSTANT:
            _replace(one, "apply_to_keypoints", _points_themselves)
    return made


def _parts(transform: Any) -> list[Any]:
    """The transforms that a composition is made of, however deep."""
    inside = getattr(transform, "transforms", None)
    return [transform] if inside is None else [part for one in inside for part in _parts(one)]


def _replace(transform: Any, name: str, instead: Callable[[_Apply, Any], _Apply]) -> None:
    """Have a method of an object replaced, also where the library remembers it, unless it is not the library's own."""
    method = getattr(transform, name)
    if getattr(type(transform), name).__module__.startswith("albumentations."):
        made = instead(method, transform)
        setattr(transform, name, made)
        remembered = transform._key2func
        remembered |= {key: made for key, function in remembered.items() if getattr(function, "__name__", "") == name}


def _resize_exactly(transform: Any) -> None:
    """INTER_NEAREST takes the pixel above and left of where it should look; where the image is resized so,
    the mask has to be too."""
    if transform.mask_interpolation == cv2.INTER_NEAREST != transform.interpolation:
        transform.mask_interpolation = cv2.INTER_NEAREST_EXACT


def _resized_points(apply: _Apply, transform: Any) -> _Apply:
    return lambda points, **params: _offset_points(apply(_offset_points(points, 0.5), **params), -0.5)


def _scaled_points(whole: Callable[[float], int], apply: _Apply, transform: Any) -> _Apply:
    """By the factor of the sizes in whole pixels, which is not quite the one that was drawn."""

    def scaled(points: np.ndarray, scale: float, **params: Any) -> np.ndarray:
        sides = np.array(params["shape"][1::-1])
        made = apply(points, scale=scale, **params)
        made[:, :2] = (points[:, :2] + 0.5) * [max(1, whole(side * scale)) / side for side in sides.tolist()] - 0.5
        return made

    return scaled


def _distorted_points(apply: _Apply, transform: Any) -> _Apply:
    def distorted(points: np.ndarray, map_x: np.ndarray, map_y: np.ndarray, **params: Any) -> np.ndarray:
        return np.column_stack([inverted(points[:, :2], map_x, map_y), points[:, 2:]]).astype(np.float32)

    return distorted


def _affine_boxes(apply: _Apply, transform: Any) -> _Apply:
    return lambda boxes, matrix, **params: apply(
        boxes, **{**params, "matrix": matrix, "bbox_matrix": _of_edges(matrix)}
    )


def _perspective_boxes(apply: _Apply, transform: Any) -> _Apply:
    def moved(boxes: np.ndarray, matrix: np.ndarray, max_width: int, max_height: int, **params: Any) -> np.ndarray:
        height, width = params["shape"][:2]
        scale = (width / max_width, height / max_height) if transform.keep_size else (1, 1)  # done after the matrix
        params |= {"matrix_bbox": _of_edges(matrix, scale), "max_width": max_width, "max_height": max_height}
        return apply(boxes, matrix=matrix, **params)

    return moved


def _points_themselves(apply: _Apply, transform: Any) -> _Apply:
    """Not their reflections: coordinates stay as many as they are, whatever is to be seen twice."""

    def moved(points: np.ndarray, **params: Any) -> np.ndarray:
        mode, transform.border_mode = transform.border_mode, cv2.BORDER_CONSTANT
        try:
            return apply(points, **params)
        finally:
            transform.border_mode = mode

    return moved


def _boxes_of_pixels(apply: _Apply, transform: Any) -> _Apply:
    """As a mask, into which they are drawn after having been rounded down."""

    def moved(boxes: np.ndarray, **params: Any) -> np.ndarray:
        height, width = params["shape"][:2]
        sides = np.array([width, height] * 2)
        rounded = (np.round(boxes[:, :4] * sides) + 0.01) / sides
        return apply(np.column_stack([rounded, boxes[:, 4:]]), **params)

    return moved


def _of_edges(matrix: np.ndarray, scale: tuple[float, float] = (1, 1)) -> np.ndarray:
    """A matrix (3, 3) of pixels' indices as one of coordinates, for which the first pixel is from 0 to 1."""
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = np.divide(0.5, scale), -0.5
    return there @ np.vstack([matrix[:2], matrix[2] if len(matrix) > 2 else (0, 0, 1)]) @ back


def _offset_points(points: np.ndarray, by: float) -> np.ndarray:
    moved = np.array(points)
    moved[:, :2] += by
    return moved
