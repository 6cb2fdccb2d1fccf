"""What was decoded and what it means: numbers in RGB order and upright, and how they become 1,
3 or 4 channels of uint8.

Whoever reads a container of images gives a `Picture`, or raises `Refused`,
which says what the file is and what to do instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

_TURNS = {2: (1, -1, 0), 3: (-1, -1, 0), 4: (-1, 1, 0), 5: (1, 1, 1), 6: (-1, 1, 1), 7: (-1, -1, 1), 8: (1, -1, 1)}
"""By EXIF orientation: the steps in which rows and columns are read, and whether they are exchanged after that."""


class Refused(ValueError):
    """What an image is, and why it is not read: the rest of a sentence that begins with the name of
    the file and "is"."""


class Damaged(Refused):
    """The bytes are not what their beginning says, or not all of them are there."""


@dataclass(frozen=True)
class Picture:
    """Numbers (height, width[, bands]), the gray, RGB or RGBA among them (None: nobody knows which),
    and the largest they can be."""

    values: np.ndarray
    most: int = 0
    colours: np.ndarray | None = field(default=None, kw_only=True)
    bands: bool = field(default=False, kw_only=True)
    """Whether the numbers are of channels that have no colours."""

    def turned(self, orientation: int) -> Picture:
        """Upright, by its EXIF orientation."""
        if orientation not in _TURNS:
            return self
        colours = None if self.colours is None else upright(self.colours, orientation)
        return Picture(upright(self.values, orientation), self.most, colours=colours, bands=self.bands)

    def channels(self, wanted: int | None) -> np.ndarray:
        """As it is (None), or (height, width, 1, 3 or 4) of uint8."""
        if wanted is None:
            return np.ascontiguousarray(self.values)
        if self.values.dtype not in (np.uint8, np.uint16):
            raise Refused(
                f"an image of {self.values.dtype}, which is not turned into uint8; channels=None gives it as it is"
            )
        if self.bands:
            raise Refused(
                f"an image of {self.values.shape[2]} bands that are no colours; channels=None gives them as they are"
            )
        return _arranged(_of_eight_bits(self.values if self.colours is None else self.colours, self.most), wanted)


def imdecode(data: Any, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray | None:
    """What OpenCV makes of the bytes, in its order of colours and as they are stored: (height,
    width[, channels]), or None.

    Raises:
        Refused: it is beyond what OpenCV may decode, such as sides without bounds.
    """
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise Refused(f"nothing that OpenCV decodes: {str(error).strip()}") from None


def in_rgb(image: np.ndarray) -> np.ndarray:
    """OpenCV's blue, green, red (and alpha) the other way round."""
    if image.ndim == 3 and image.shape[2] in (3, 4):
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA, dst=image)
    return image


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image turned and mirrored as its EXIF orientation says (1 to 8; anything else is 1)."""
    if orientation not in _TURNS:
        return image
    rows, columns, exchanged = _TURNS[orientation]
    image = image[::rows, ::columns]
    return np.ascontiguousarray(image.swapaxes(0, 1) if exchanged else image)


def with_alpha(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """RGBA of gray (height, width) or RGB, and alpha (height, width)."""
    return np.dstack([colours if colours.ndim == 3 else np.dstack([colours] * 3), alpha])


def undone(colours: np.ndarray, alpha: np.ndarray, most: int) -> np.ndarray:
    """Colours that had been multiplied by their alpha, as they were before; black where alpha is 0."""
    scaled = colours * (float(most) if most else 1.0)
    divisor = alpha.reshape(*alpha.shape, *[1] * (colours.ndim - alpha.ndim)).astype(np.float64)
    plain = np.divide(scaled, divisor, out=np.zeros(scaled.shape), where=divisor != 0)
    return (np.minimum(np.rint(plain), most) if most else plain).astype(colours.dtype)


def of_eight_bits(values: np.ndarray, most: int) -> np.ndarray:
    """Numbers from 0 to `most`, which is less than 255, from 0 to 255."""
    return ((np.arange(most + 1) * 255 + most // 2) // most).astype(np.uint8)[values] if most < 255 else values


def _of_eight_bits(values: np.ndarray, most: int) -> np.ndarray:
    """Of more bits the upper eight."""
    if values.dtype == np.uint8:
        return values
    most = most or 0xFFFF
    if most & (most + 1):  # not all ones
        return np.rint(values * (255 / most)).astype(np.uint8)
    return (values >> (most.bit_length() - 8)).astype(np.uint8)


def _arranged(image: np.ndarray, wanted: int) -> np.ndarray:
    count = 1 if image.ndim == 2 else image.shape[2]
    image = np.ascontiguousarray(image)
    if wanted == 1:
        return (
            image if count == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if count == 3 else cv2.COLOR_RGBA2GRAY)
        ).reshape(*image.shape[:2], 1)
    if count == wanted:
        return image
    if count == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if wanted == 3 else cv2.COLOR_GRAY2RGBA)
    return cv2.cvtColor(image, cv2.COLOR_RGB2RGBA if wanted == 4 else cv2.COLOR_RGBA2RGB)
