"""OpenCV's resampling for any number of channels, and without interpolation for any dtype.

OpenCV's indices name pixels by their centres: index j is the coordinate j + 0.5 of the rest of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import cv2
import numpy as np

from flowfn.image.arguments import FillColor
from flowfn.image.transforms import Shape

_Resampler: TypeAlias = Callable[[np.ndarray, Any], np.ndarray]

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
}
_INTERPOLATED = frozenset("BHhfd")
_COPIED = frozenset("BHf")
"""OpenCV 5 warps these exactly, others on a grid of 1/1024 pixel: a mask would depend on its dtype."""
_UNITS: Mapping[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    4: np.dtype(np.float32),
    8: np.dtype(np.uint16),
}
_RESIZED = frozenset({1, 2, 3, 4})
_WARPED = frozenset({1, 3, 4})  # channels at once; two are again not warped exactly


def resized(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """An image resized to (height, width); one of that size is returned itself."""
    if image.shape[:2] == size:
        return image
    # INTER_NEAREST takes the pixel above and left of where it should look; the exact one takes the pixel that is there.
    flag = cv2.INTER_NEAREST_EXACT if interpolation == "nearest" else INTERPOLATIONS[interpolation]
    return _sampled(
        lambda part, fill: cv2.resize(part, size[::-1], interpolation=flag), image, interpolation, 0, _RESIZED
    )


def warped(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], interpolation: str, border: str, fill: FillColor
) -> np.ndarray:
    """An image of (height, width) to whose indices `matrix` (2, 3) takes the indices of the one given."""
    flag, mode, wanted, image = INTERPOLATIONS[interpolation], BORDERS[border], size[::-1], _reflectable(image, border)
    return _sampled(
        lambda part, fill: cv2.warpAffine(part, matrix, wanted, flags=flag, borderMode=mode, borderValue=fill),
        image,
        interpolation,
        fill,
    )


def remapped(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, interpolation: str, border: str, fill: FillColor
) -> np.ndarray:
    """An image whose every pixel comes from the index (x, y) of the one given; the maps are float32 (height, width)."""
    flag, mode, image = INTERPOLATIONS[interpolation], BORDERS[border], _reflectable(image, border)
    return _sampled(
        lambda part, fill: cv2.remap(part, x, y, flag, borderMode=mode, borderValue=fill), image, interpolation, fill
    )


def flipped(image: np.ndarray, horizontal: bool, vertical: bool) -> np.ndarray:
    """A flipped copy."""
    if _fits_opencv(image):
        return _with_channel_axis(cv2.flip(image, -1 if horizontal and vertical else int(horizontal)), image)
    return np.ascontiguousarray(image[:: -1 if vertical else 1, :: -1 if horizontal else 1])


def transposed(image: np.ndarray) -> np.ndarray:
    """A copy with rows and columns exchanged."""
    if _fits_opencv(image):
        return _with_channel_axis(cv2.transpose(image), image)
    return np.ascontiguousarray(image.swapaxes(0, 1))


def surrounded(image: np.ndarray, top: int, bottom: int, left: int, right: int, fill: FillColor) -> np.ndarray:
    """A copy with so many pixels of one colour on each side."""
    check_fill(fill, image.shape)
    if _fits_opencv(image):
        colour = fill if isinstance(fill, tuple) else (fill,) * 4
        return _with_channel_axis(
            cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=colour), image
        )
    height, width = image.shape[:2]
    made = np.empty((top + height + bottom, left + width + right, *image.shape[2:]), image.dtype)
    made[:top] = made[top + height :] = fill
    made[top : top + height, :left] = made[top : top + height, left + width :] = fill
    made[top : top + height, left : left + width] = image
    return made


def check_fill(fill: FillColor, shape: Shape) -> None:
    """Make sure that a colour has as many numbers as an image has channels."""
    channels = shape[2] if len(shape) == 3 else 1
    if isinstance(fill, tuple) and len(fill) != channels:
        raise ValueError(f"fill must be one number, or one for each of {channels} channels, got {fill}")


def _sampled(
    call: _Resampler, image: np.ndarray, interpolation: str, fill: FillColor, together: frozenset[int] = _WARPED
) -> np.ndarray:
    """What `call(image, fill)` gives, which can treat few dtypes, and so many channels `together`, for any."""
    kind = image.dtype.char
    if kind not in (_COPIED if interpolation == "nearest" else _INTERPOLATED):
        if interpolation != "nearest":
            raise TypeError(
                f"an image must be uint8 or float32 to be resampled, got {image.dtype}; convert it before, or give it "
                "as a mask"
            )
        return _copied(call, image, fill, together)
    if image.ndim == 2 or image.shape[2] in together:
        if type(fill) is tuple:
            check_fill(fill, image.shape)
            return _with_channel_axis(call(image, fill), image)
        return _with_channel_axis(call(image, (fill,) * 4), image)
    return _in_parts(call, image, fill, together)


def _in_parts(call: _Resampler, image: np.ndarray, fill: FillColor, together: frozenset[int]) -> np.ndarray:
    """As many channels at a time as can be."""
    check_fill(fill, image.shape)
    channels, done = image.shape[2], 0
    colours = fill if isinstance(fill, tuple) else (fill,) * channels
    parts = []
    while done < channels:
        size = max(size for size in together if size <= channels - done)
        part = np.ascontiguousarray(image[..., done : done + size])
        parts.append(_with_channel_axis(call(part, colours[done : done + size]), part))
        done += size
    return np.concatenate(parts, 2)


def _copied(call: _Resampler, image: np.ndarray, fill: FillColor, together: frozenset[int]) -> np.ndarray:
    """Elements as they are, whatever they mean: bits of a dtype that OpenCV copies exactly."""
    dtype, height, width = image.dtype, *image.shape[:2]
    unit = _UNITS.get(dtype.itemsize)
    if dtype.kind not in "biuf" or unit is None:
        raise TypeError(f"an image or mask must hold numbers, got {dtype}")
    check_fill(fill, image.shape)
    channels = 1 if image.ndim == 2 else image.shape[2]
    colours = np.ascontiguousarray(np.broadcast_to(np.asarray(fill, dtype), (channels,))).view(unit).tolist()
    plain = np.ascontiguousarray(image).reshape(height, width, channels).view(unit)
    done = _sampled(call, plain, "nearest", tuple(colours), together)
    made = np.ascontiguousarray(done).view(dtype)
    return made if image.ndim == 3 else made[..., 0]


def _reflectable(image: np.ndarray, border: str) -> np.ndarray:
    """The image, its only row or column twice if it is to be reflected: that looks the same,
    and OpenCV 5's cubic would not return."""
    if border == "reflect":
        for axis in (0, 1):
            image = image.repeat(2, axis) if image.shape[axis] == 1 else image
    return image


def _fits_opencv(image: np.ndarray) -> bool:
    """Whether every function of OpenCV can treat an image."""
    return image.dtype.char in "BbHhifd" and (image.ndim == 2 or image.shape[2] <= 4)


def _with_channel_axis(made: np.ndarray, image: np.ndarray) -> np.ndarray:
    """With the axis of a single channel, which OpenCV leaves out."""
    return made if made.ndim == image.ndim else made[..., None]
