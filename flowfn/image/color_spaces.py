"""Colour spaces: images converted to another, or made gray.

Images are uint8 or float32 with values 0 to 255, and so are those that come out, unless said otherwise. Masks and
coordinates are left as they are.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np

from flowfn.image.pixels import channels, check_pixels, check_rgb
from flowfn.image.transforms import Augmentor, Shape, Transform, image_size
from flowfn.rules import Rule, is_integer, one_of

_SPACES = {
    "rgb": "RGB",
    "bgr": "BGR",
    "gray": "GRAY",
    "hsv": "HSV",
    "hls": "HLS",
    "lab": "Lab",
    "luv": "Luv",
    "xyz": "XYZ",
    "ycrcb": "YCrCb",
    "yuv": "YUV",
}
"""OpenCV's names of them."""
_IN_255 = frozenset({"rgb", "bgr", "gray"})
_CHANNELS = Rule(
    "1, 3 or None", lambda value: value is None or is_integer(value), lambda value, others: value in (1, 3, None)
)
_SPACE = one_of(*_SPACES)


@dataclass(frozen=True)
class Grayed(Transform):
    """0.299 red + 0.587 green + 0.114 blue, with `channels` channels, or without the axis of channels."""

    channels: int | None = 1

    def image(self, image: np.ndarray) -> np.ndarray:
        """The gray image; one that is gray is given the shape alone."""
        check_pixels(self, image)
        shape = self.shape(image.shape)
        if image.shape == shape and self.channels != 3:
            return image
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if channels(image.shape) == 3 else image
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB) if self.channels == 3 else gray.reshape(shape)

    def shape(self, image_shape: Shape) -> Shape:
        """(height, width, channels), or (height, width)."""
        _check_channels(self, image_shape, "gray" if channels(image_shape) == 1 else "rgb")
        return (*image_shape[:2], self.channels) if self.channels else tuple(image_shape[:2])


@dataclass(frozen=True)
class Converted(Transform):
    """From one colour space to another."""

    target: str
    origin: str = "rgb"

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image in the other space."""
        check_pixels(self, image)
        self.shape(image.shape)
        scaled = image.dtype == np.float32
        if scaled and self.target not in _IN_255:
            image = image * np.float32(1 / 255)
        made = cv2.cvtColor(image, getattr(cv2, f"COLOR_{_SPACES[self.origin]}2{_SPACES[self.target]}"))
        if scaled and self.origin not in _IN_255:
            made = np.multiply(made, 255, out=made)
        return made[..., None] if made.ndim == 2 else made

    def shape(self, image_shape: Shape) -> Shape:
        """(height, width, 3), or 1 channel for gray."""
        _check_channels(self, image_shape, self.origin)
        return (*image_shape[:2], 1 if self.target == "gray" else 3)


@dataclass(frozen=True, repr=False)
class color_space(Augmentor):
    """Convert to another colour space, `target`, from `origin`: one of the two is "rgb" or "bgr".

    Spaces are "rgb", "bgr", "gray" (1 channel), "hsv", "hls", "lab", "luv", "xyz", "ycrcb" and "yuv", as OpenCV defines
    them. uint8 stays uint8, in OpenCV's 8-bit ranges (hue is 0..179: two degrees each). float32 stays float32: "rgb",
    "bgr" and "gray" are 0..255, all others in their own units (hue 0..360, lightness of lab and luv 0..100, the rest
    about 1); OpenCV computes lab to within half a unit.

    Raises:
        ValueError: the image has not as many channels as its space.

    >>> green = np.array([[[0, 255, 0]]], np.uint8)
    >>> color_space("hsv")(green.shape, np.random.default_rng(0)).image(green)
    array([[[ 60, 255, 255]]], dtype=uint8)
    """

    target: str
    _: KW_ONLY
    origin: str = "rgb"

    def __post_init__(self) -> None:
        self.check(target=_SPACE, origin=_SPACE)
        if not {self.target, self.origin} & {"rgb", "bgr"} or self.target == self.origin:
            raise ValueError(
                "color_space(): target and origin must be two spaces, one of them 'rgb' or 'bgr', got "
                f"{self.target!r} and {self.origin!r}"
            )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Converted:
        """The conversion; nothing is drawn."""
        _check_channels(self, image_shape, self.origin)
        return Converted(self.target, self.origin)


@dataclass(frozen=True, repr=False)
class grayscale(Augmentor):
    """Make RGB images gray: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601), with 1 channel,
    3 equal ones, or none (None).

    The dtype is kept; uint8 is rounded. Images that are gray already are only given that shape.

    Raises:
        ValueError: the image has neither 1 nor 3 channels.

    >>> image = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
    >>> grayscale(None)(image.shape, np.random.default_rng(0)).image(image)
    array([[ 76, 150]], dtype=uint8)
    """

    channels: int | None = 1

    def __post_init__(self) -> None:
        self.check(channels=_CHANNELS)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Grayed:
        """The conversion; nothing is drawn."""
        _check_channels(self, image_shape, "gray" if channels(image_shape) == 1 else "rgb")
        return Grayed(self.channels)


def _check_channels(owner: object, shape: Shape, space: str) -> None:
    image_size(shape)
    if space != "gray":
        check_rgb(owner, shape)
    elif channels(shape) != 1:
        raise ValueError(f"{type(owner).__name__}(): a gray image must have 1 channel, got shape {tuple(shape)}")
