"""Colours: hue, saturation and lighting, drawn at random for each image.

Images are RGB, uint8 or float32 with values 0 to 255; shape and dtype are kept. uint8 is rounded and clipped, and never
wraps around. Masks and coordinates are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np

from flowfn.image.arguments import Range, as_range, at_share, span
from flowfn.image.pixels import GRAY, Factor, as_factors, check_pixels, check_rgb, clipped, factor, limited
from flowfn.image.tones import Scaled
from flowfn.image.transforms import Augmentor, Shape, Transform
from flowfn.rules import Rule, boolean, is_number

IMAGENET_EIGENVALUES = (55.4625, 4.794, 1.1475)
"""Eigenvalues of the covariance of the colours of ImageNet's pixels, as fb.resnet.torch gives them, times 255."""
IMAGENET_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""Its eigenvectors, one in each column; the rows are red, green and blue."""

_ITSELF = np.eye(3)
_STRIP = 1 << 16  # numbers that are float32 at a time: they stay in the processor's cache, and fresh memory is slow


@dataclass(frozen=True)
class HueShifted(Transform):
    """Colours turned by `degrees` on the circle of hues; lightness (HSV's value) and saturation are kept."""

    degrees: float

    def image(self, image: np.ndarray) -> np.ndarray:
        """Through HSV in float32, which is more exact than OpenCV's 8-bit HSV and no slower."""
        check_pixels(self, image)
        check_rgb(self, image.shape)
        turn = self.degrees % 360
        if not turn:
            return image
        made = np.empty(image.shape, image.dtype)
        rows = max(1, _STRIP // (3 * image.shape[1]))
        colors = np.empty((min(rows, len(image)), *image.shape[1:]), np.float32)
        hues = np.empty_like(colors)
        for top in range(0, len(image), rows):
            _turn_hues(image[top : top + rows], turn, made[top : top + rows], colors, hues)
        return made


@dataclass(frozen=True)
class Saturated(Transform):
    """Distances from the gray image times `factor`: 0 is gray, 1 the image itself."""

    factor: float
    clip: bool = True

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image with more (factor > 1) or less colour."""
        check_pixels(self, image)
        check_rgb(self, image.shape)
        factor = limited(self.factor, image)
        if factor == 1 and not (self.clip and image.dtype == np.float32):
            return image
        return clipped(cv2.transform(image, factor * _ITSELF + (1 - factor) * GRAY), self.clip)


@dataclass(frozen=True, repr=False)
class hue(Augmentor):
    """Turn all colours by an angle, drawn from `degrees`: (low, high), or a number n for (-n, n).

    Red is at 0 degrees, green at 120, blue at 240, so the default gives any hue; value and saturation are those of the
    HSV hexcone model (Smith, "Color gamut transform pairs", 1978). RGB images only, uint8 or float32; both are kept.

    Raises:
        ValueError: the image does not have 3 channels.

    >>> red = np.array([[[255, 0, 0]]], np.uint8)
    >>> hue((120, 120))(red.shape, np.random.default_rng(0)).image(red)
    array([[[  0, 255,   0]]], dtype=uint8)
    """

    degrees: Range = 180

    def __post_init__(self) -> None:
        self.check(degrees=span)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> HueShifted:
        """Draw the angle."""
        check_rgb(self, image_shape)
        return HueShifted(at_share(as_range(self.degrees), rng.random()))


@dataclass(frozen=True, repr=False)
class saturation(Augmentor):
    """Multiply the distance of all pixels from their gray by a number, drawn from `factor`: (low,
    high), or n for (1 - n, 1 + n).

    Gray is 0.299 red + 0.587 green + 0.114 blue, as in fb.resnet.torch. RGB images only; the dtype is kept. uint8 is
    computed in OpenCV's 8-bit arithmetic (at most 1 off) and clipped, float32 clipped to 0..255 unless `clip=False`.

    Raises:
        ValueError: the image does not have 3 channels.

    >>> image = np.array([[[200, 100, 100]]], np.uint8)
    >>> saturation((0, 0))(image.shape, np.random.default_rng(0)).image(image)
    array([[[130, 130, 130]]], dtype=uint8)
    """

    factor: Factor = 0.4
    _: KW_ONLY
    clip: bool = True

    def __post_init__(self) -> None:
        self.check(factor=factor, clip=boolean)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Saturated:
        """Draw the factor."""
        check_rgb(self, image_shape)
        return Saturated(at_share(as_factors(self.factor), rng.random()), self.clip)


@dataclass(frozen=True, repr=False)
class lighting(Augmentor):
    """Add a colour to all pixels, drawn along the principal axes of the colours of a data set.

    The colour is the sum over the three axes of axis * eigenvalue * a, with each a drawn from a normal distribution of
    standard deviation `std` (Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks",
    2012, section 4.1). Eigenvalues are in units of the pixels (0..255); the rows of `eigenvectors` are red, green and
    blue, its columns the axes. The defaults are ImageNet's, as in fb.resnet.torch: in RGB order, where code for BGR
    images reverses both. RGB images only; the dtype is kept. uint8 is rounded and clipped, float32 clipped to 0..255
    unless `clip=False`.

    Raises:
        ValueError: the image does not have 3 channels.

    >>> lighting()((224, 224, 3), np.random.default_rng(0))  # doctest: +ELLIPSIS
    Scaled(scale=1.0, offsets=(-0.41..., -0.46..., -0.33...), clip=True)
    """

    std: float = 0.1
    eigenvalues: Sequence[float] = IMAGENET_EIGENVALUES
    eigenvectors: Sequence[Sequence[float]] = IMAGENET_EIGENVECTORS
    _: KW_ONLY
    clip: bool = True

    def __post_init__(self) -> None:
        self.check(std=_STD, eigenvalues=_VECTOR, eigenvectors=_AXES, clip=boolean)
        object.__setattr__(self, "eigenvalues", tuple(map(float, self.eigenvalues)))
        object.__setattr__(self, "eigenvectors", tuple(tuple(map(float, row)) for row in self.eigenvectors))

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Scaled:
        """Draw the colour."""
        check_rgb(self, image_shape)
        along = rng.standard_normal(3) * self.std * self.eigenvalues
        return Scaled(1.0, tuple((np.array(self.eigenvectors) @ along).tolist()), self.clip)


def _turn_hues(image: np.ndarray, degrees: float, made: np.ndarray, colors: np.ndarray, hues: np.ndarray) -> None:
    """Turn the hues of an image into `made`; the memory of `colors` and `hues` is used on the way."""
    plain, colors, hues = image, colors[: len(image)], hues[: len(image)]
    if image.dtype == np.uint8:
        colors[...] = image
        plain = colors
    cv2.cvtColor(plain, cv2.COLOR_RGB2HSV, dst=hues)
    angles = hues[..., 0]
    np.add(angles, degrees, out=angles)  # 360 and more means the same as from 0 on
    if image.dtype == np.uint8:
        cv2.cvtColor(hues, cv2.COLOR_HSV2RGB, dst=colors)
        cv2.convertScaleAbs(colors, dst=made)  # rounds; of turned colours none is beyond 0 to 255
    else:
        cv2.cvtColor(hues, cv2.COLOR_HSV2RGB, dst=made)


def _has_shape(value: object, shape: Shape) -> bool:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())


_STD = Rule("a finite number >= 0", is_number, lambda value, others: 0 <= value < np.inf)
_VECTOR = Rule("3 finite numbers", lambda value: True, lambda value, others: _has_shape(value, (3,)))
_AXES = Rule(
    "3 rows (red, green, blue) of 3 finite numbers, one axis in each column",
    lambda value: True,
    lambda value, others: _has_shape(value, (3, 3)),
)
