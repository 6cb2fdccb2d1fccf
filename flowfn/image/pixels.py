"""Pixel values: what images may be, and how their values are scaled, rounded and clipped, for all augmentors of colour.

Values are 0 to 255, uint8 or float32. What is computed for uint8 is rounded to the nearest integer and clipped, and
never wraps around; float32 is clipped too where `clip` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np

from flowfn.image.arguments import is_pair, ordered
from flowfn.image.transforms import Shape, image_size
from flowfn.rules import Rule, is_number

GRAY = np.array([0.299, 0.587, 0.114])
"""How much of red, green and blue there is in gray, by ITU-R BT.601."""
Factor: TypeAlias = "float | tuple[float, float]"
"""From where a factor is drawn: (low, high), or one number n for (1 - n, 1 + n)."""
Amount: TypeAlias = "float | tuple[float, float]"
"""From where a number is drawn: (low, high), or the number itself."""

factor = Rule(
    "a number n from 0 to 1 (n means 1 - n to 1 + n) or a pair (low, high), 0 <= low <= high",
    lambda value: is_number(value) or is_pair(value),
    lambda value, others: ordered(value) and (0 <= value[0] if isinstance(value, (tuple, list)) else 0 <= value <= 1),
)
amount = Rule(
    "a number >= 0 or a pair (low, high), 0 <= low <= high",
    lambda value: is_number(value) or is_pair(value),
    lambda value, others: ordered(value) and 0 <= (value[0] if isinstance(value, (tuple, list)) else value),
)


def as_factors(value: Factor) -> tuple[float, float]:
    """Lowest and highest factor.

    >>> as_factors(0.25), as_factors((0.5, 2.0))
    ((0.75, 1.25), (0.5, 2.0))
    """
    return (value[0], value[1]) if isinstance(value, tuple) else (1 - value, 1 + value)


def as_amounts(value: Amount) -> tuple[float, float]:
    """Lowest and highest number.

    >>> as_amounts(3), as_amounts((3, 4))
    ((3, 3), (3, 4))
    """
    return (value[0], value[1]) if isinstance(value, tuple) else (value, value)


def check_pixels(owner: Any, image: np.ndarray) -> None:
    """Make sure that an image is (height, width) or (height, width, channels), not empty, uint8 or float32."""
    if image.dtype.char in "Bf" and image.size and 2 <= image.ndim <= 3:
        return
    check_layout(owner, image)
    raise TypeError(
        f"{type(owner).__name__}(): an image must be uint8 or float32, got {image.dtype}; to_uint8() or to_float32() "
        "before makes it so"
    )


def check_layout(owner: Any, image: np.ndarray) -> None:
    """Make sure that an image is (height, width) or (height, width, channels), not empty,
    of any kind of real number."""
    image_size(image.shape)
    if image.dtype.kind not in "biuf":
        raise TypeError(f"{type(owner).__name__}(): an image must hold real numbers, got {image.dtype}")


def check_rgb(owner: Any, shape: Shape) -> None:
    """Make sure that an image has red, green and blue."""
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"{type(owner).__name__}(): an image must have 3 channels, got shape {tuple(shape)}")


def channels(shape: Shape) -> int:
    """How many numbers a pixel has.

    >>> channels((4, 5)), channels((4, 5, 3))
    (1, 3)
    """
    return shape[2] if len(shape) == 3 else 1


def flat(image: np.ndarray) -> np.ndarray:
    """All numbers of an image as one channel, for statistics of all of them."""
    return image.reshape(len(image), -1)


def linear(image: np.ndarray, scale: float, offsets: Sequence[float], clip: bool) -> np.ndarray:
    """Pixels times `scale` plus an offset, one for all channels or one for each.

    >>> linear(np.array([[10, 200]], np.uint8), 1.5, [-20], True)
    array([[  0, 255]], dtype=uint8)
    """
    scale, offsets = limited(scale, image), [limited(offset, image, 1e9) for offset in offsets]
    if len(offsets) == 1:
        made = cv2.addWeighted(image, scale, image, 0, offsets[0])
    elif image.dtype == np.uint8 and len(offsets) != 3:  # of which OpenCV's transform makes float64 in between
        values = np.arange(256)[:, None] * scale + np.asarray(offsets)
        made = cv2.LUT(image, rounded(values)[None])
    else:
        matrix = np.zeros((len(offsets), len(offsets) + 1))
        matrix.flat[:: len(offsets) + 2] = scale
        matrix[:, -1] = offsets
        made = cv2.transform(image, matrix)
    return clipped(made.reshape(image.shape), clip)


def limited(value: float, image: np.ndarray, bound: float = 1e6) -> float:
    """A factor (or an offset) that OpenCV's arithmetic can bear.

    For uint8 it rounds to 32 bits, and wraps around beyond: with the bound itself all is 0 or 255 already.
    """
    return max(-bound, min(value, bound)) if image.dtype == np.uint8 else value


def clipped(image: np.ndarray, clip: bool = True) -> np.ndarray:
    """A new float32 image, clipped in its own memory to 0 to 255; uint8 is so already.

    >>> clipped(np.array([[-3, 300]], np.float32))
    array([[  0., 255.]], dtype=float32)
    """
    return np.clip(image, 0, 255, out=image) if clip and image.dtype != np.uint8 else image


def rounded(image: np.ndarray) -> np.ndarray:
    """Floats, rounded (halves to even) and clipped to uint8.

    >>> rounded(np.array([[-3, 2.5, 3.5, 1e12]], np.float32))
    array([[  0,   2,   4, 255]], dtype=uint8)
    """
    made = cv2.convertScaleAbs(np.clip(image, 0, 255))  # numpy's own rint and astype take ten times as long
    return np.asarray(made, np.uint8).reshape(image.shape)
