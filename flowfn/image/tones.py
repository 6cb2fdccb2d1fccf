"""Tones: brightness, contrast and gamma, drawn at random for each image. Any number of channels;
masks and coordinates stay.

Images are uint8 or float32 with values 0 to 255; shape and dtype are kept.
uint8 is rounded and clipped, and never wraps around.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np

from flowfn.image.arguments import Range, as_range, at_share, span
from flowfn.image.pixels import GRAY, Factor, as_factors, channels, check_pixels, factor, limited, linear
from flowfn.image.transforms import Augmentor, Shape, Transform, image_size
from flowfn.rules import Rule, boolean, is_number

_LEVELS = np.linspace(0, 1, 256)


@dataclass(frozen=True)
class Scaled(Transform):
    """Pixels times `scale` plus an offset, one for all channels or one for each;
    float32 is clipped to 0..255 if `clip`."""

    scale: float = 1.0
    offsets: tuple[float, ...] = (0.0,)
    clip: bool = True

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, scaled and shifted in one pass."""
        check_pixels(self, image)
        if len(self.offsets) not in (1, channels(image.shape)):
            raise ValueError(
                f"Scaled(): an image must have {len(self.offsets)} channels, one for each offset, got shape "
                f"{image.shape}"
            )
        if self.scale == 1 and not any(self.offsets) and not (self.clip and image.dtype == np.float32):
            return image
        return linear(image, self.scale, self.offsets, self.clip)


@dataclass(frozen=True)
class Contrasted(Transform):
    """Distances from the mean times `factor`: from that of each channel, or from the mean of the gray image."""

    factor: float
    per_channel: bool = True
    clip: bool = True

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image with more (factor > 1) or less contrast."""
        check_pixels(self, image)
        _check_contrast(self, image.shape, self.per_channel)
        count, factor = channels(image.shape), limited(self.factor, image)
        means = cv2.mean(image)[:count] if count <= 4 else cv2.meanStdDev(image)[0].ravel().tolist()
        if count == 3 and not self.per_channel:  # the mean of the gray image is the gray of the mean
            means = (float(GRAY @ means),)
        return linear(image, factor, [mean * (1 - factor) for mean in means], self.clip)


@dataclass(frozen=True)
class GammaCorrected(Transform):
    """255 (x / 255) ^ (1 / gamma) of every number."""

    gamma: float

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, lighter in its dark parts (gamma > 1) or darker."""
        check_pixels(self, image)
        if image.dtype == np.uint8:
            table = 255 * _LEVELS ** (1 / self.gamma)
            return np.asarray(cv2.LUT(image, np.rint(table).astype(np.uint8)), np.uint8).reshape(image.shape)
        made = np.clip(image, 0, 255)
        made *= np.float32(1 / 255)
        cv2.pow(made, 1 / self.gamma, dst=made)
        made *= np.float32(255)
        return made


@dataclass(frozen=True, repr=False)
class brightness(Augmentor):
    """Add a number to all pixels, drawn from `change`: (low, high), or a number n for (-n, n).

    Any number of channels; the dtype is kept. uint8 is rounded and clipped,
    float32 clipped to 0..255 unless `clip=False`.

    >>> image = np.array([[0, 100, 250]], np.uint8)
    >>> brightness((10, 10))(image.shape, np.random.default_rng(0)).image(image)
    array([[ 10, 110, 255]], dtype=uint8)
    """

    change: Range
    _: KW_ONLY
    clip: bool = True

    def __post_init__(self) -> None:
        self.check(change=span, clip=boolean)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Scaled:
        """Draw what is added."""
        image_size(image_shape)
        return Scaled(1.0, (at_share(as_range(self.change), rng.random()),), self.clip)


@dataclass(frozen=True, repr=False)
class brightness_scale(Augmentor):
    """Multiply all pixels by a number, drawn from `factor`: (low, high), or a number n for (1 - n, 1 + n).

    Any number of channels; the dtype is kept. uint8 is rounded and clipped,
    float32 clipped to 0..255 unless `clip=False`.

    >>> image = np.array([[0, 100, 250]], np.uint8)
    >>> brightness_scale((1.5, 1.5))(image.shape, np.random.default_rng(0)).image(image)
    array([[  0, 150, 255]], dtype=uint8)
    """

    factor: Factor
    _: KW_ONLY
    clip: bool = True

    def __post_init__(self) -> None:
        self.check(factor=factor, clip=boolean)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Scaled:
        """Draw the factor."""
        image_size(image_shape)
        return Scaled(at_share(as_factors(self.factor), rng.random()), (0.0,), self.clip)


@dataclass(frozen=True, repr=False)
class contrast(Augmentor):
    """Multiply the distance of all pixels from the mean by a number, drawn from `factor`: (low,
    high), or n for (1 - n, 1 + n).

    The mean is that of each channel, for any number of channels; with `per_channel=False` it is one number, the mean of
    the gray image (1 or 3 channels). The dtype is kept. uint8 is rounded and clipped, float32 clipped to 0..255 unless
    `clip=False`.

    Raises:
        ValueError: `per_channel=False` and an image of neither 1 nor 3 channels.

    >>> image = np.array([[90, 110]], np.uint8)
    >>> contrast((0.5, 0.5))(image.shape, np.random.default_rng(0)).image(image)
    array([[ 95, 105]], dtype=uint8)
    """

    factor: Factor
    _: KW_ONLY
    per_channel: bool = True
    clip: bool = True

    def __post_init__(self) -> None:
        self.check(factor=factor, per_channel=boolean, clip=boolean)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Contrasted:
        """Draw the factor."""
        _check_contrast(self, image_shape, self.per_channel)
        return Contrasted(at_share(as_factors(self.factor), rng.random()), self.per_channel, self.clip)


@dataclass(frozen=True, repr=False)
class gamma(Augmentor):
    """Make all pixels 255 (x / 255) ^ (1 / g), with g drawn from `gamma`: (low, high),
    or a number n for (1 - n, 1 + n).

    g > 1 makes an image lighter, as a display's or ImageMagick's gamma does (the gamma of scikit-image and torchvision
    is 1 / g). Any number of channels; the dtype is kept. uint8 is rounded, float32 is clipped to 0..255 first.

    >>> image = np.array([[0, 64, 255]], np.uint8)
    >>> gamma((2, 2))(image.shape, np.random.default_rng(0)).image(image)
    array([[  0, 128, 255]], dtype=uint8)
    """

    gamma: Factor = 0.5

    def __post_init__(self) -> None:
        self.check(gamma=_POSITIVE_FACTOR)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> GammaCorrected:
        """Draw gamma."""
        image_size(image_shape)
        return GammaCorrected(at_share(as_factors(self.gamma), rng.random()))


def _check_contrast(owner: object, shape: Shape, per_channel: bool) -> None:
    if not per_channel and channels(shape) not in (1, 3):
        raise ValueError(
            f"{type(owner).__name__}(): an image must have 1 or 3 channels for per_channel=False, got shape "
            f"{tuple(shape)}"
        )


_POSITIVE_FACTOR = Rule(
    "a number n >= 0 and < 1 (n means 1 - n to 1 + n) or a pair (low, high), 0 < low <= high",
    factor.fits_type,
    lambda value, others: factor.fits(value, others) and as_factors(value if is_number(value) else tuple(value))[0] > 0,
)
