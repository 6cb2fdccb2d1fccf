"""Intensities: the range and the dtype of pixel values, and blur. Any number of channels;
masks and coordinates stay."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np

from flowfn.image.arguments import at_share, drawn_integer, finite_number, is_pair, ordered
from flowfn.image.pixels import Amount, as_amounts, channels, check_layout, check_pixels, flat, rounded
from flowfn.image.transforms import Augmentor, Shape, Transform, image_size
from flowfn.rules import Rule, boolean, is_integer, is_number, optional


@dataclass(frozen=True)
class Clipped(Transform):
    """Values below `low` made `low`, those above `high` made `high`."""

    low: float = 0
    high: float = 255

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, clipped; the bounds are rounded for uint8."""
        check_pixels(self, image)
        if image.dtype == np.float32:
            return np.clip(image, self.low, self.high)
        low, high = (round(max(0, min(bound, 255))) for bound in (self.low, self.high))
        return image if (low, high) == (0, 255) else np.clip(image, low, high)


@dataclass(frozen=True)
class MeanVarianceNormalized(Transform):
    """(x - mean) / standard deviation, of all numbers or of each channel: float32."""

    per_channel: bool = False

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image with mean 0 and variance 1."""
        check_pixels(self, image)
        mean, deviation = cv2.meanStdDev(image if self.per_channel else flat(image))
        return _normalized(image, mean, 1 / np.maximum(deviation, image.size**-0.5))


@dataclass(frozen=True)
class MinMaxNormalized(Transform):
    """From `low` (the least number of all, or of its channel) to `high` (the greatest): float32."""

    low: float = 0
    high: float = 255
    per_channel: bool = False

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, stretched."""
        check_pixels(self, image)
        if self.per_channel:  # row by row first, because numpy is slow along the axis of channels
            least, greatest = (
                row.reshape(-1, channels(image.shape)) for row in (flat(image).min(0), flat(image).max(0))
            )
            lows, highs = least.min(0).astype(float), greatest.max(0).astype(float)
        else:
            lows, highs = (np.array([bound], float) for bound in cv2.minMaxLoc(flat(image))[:2])
        spread = highs - lows
        scale = np.divide(self.high - self.low, spread, out=np.zeros_like(spread), where=spread > 0)
        made = _normalized(image, lows, scale)
        if self.low:
            made += np.float32(self.low)
        top = spread.astype(np.float32) * scale.astype(np.float32) + np.float32(self.low)
        # rounding may lead beyond `high`, but is monotonic: if the greatest number is not beyond, none is
        return np.clip(made, self.low, self.high, out=made) if (top > np.float32(self.high)).any() else made


@dataclass(frozen=True)
class Uint8(Transform):
    """Values rounded and clipped to 0..255: uint8."""

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image as uint8."""
        check_layout(self, image)
        if image.dtype == np.uint8:
            return image
        if image.dtype.kind == "f":
            return rounded(image.astype(np.float32, copy=False))
        if image.dtype.kind in "iu":
            image = np.clip(image, 0, min(255, np.iinfo(image.dtype).max))
        return image.astype(np.uint8)


@dataclass(frozen=True)
class Float32(Transform):
    """The same values: float32."""

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image as float32."""
        check_layout(self, image)
        return image.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Blurred(Transform):
    """Blurred by a Gaussian window of 2 radius + 1 pixels;
    `radius` and `sigma` are those of x and y, sigma None OpenCV's."""

    radius: tuple[int, int]
    sigma: tuple[float, float] | None = None

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, blurred; what is beyond its edge is like the edge."""
        check_pixels(self, image)
        if self.radius == (0, 0):
            return image
        window = (2 * self.radius[0] + 1, 2 * self.radius[1] + 1)
        across, down = self.sigma or (0, 0)
        made = cv2.GaussianBlur(image, window, sigmaX=across, sigmaY=down, borderType=cv2.BORDER_REPLICATE)
        return made.reshape(image.shape)


@dataclass(frozen=True, repr=False)
class clip(Augmentor):
    """Clip all values to `low`..`high`. The dtype, uint8 or float32, is kept; the bounds are rounded for uint8.

    >>> image = np.array([[-3, 20, 300]], np.float32)
    >>> clip()(image.shape, np.random.default_rng(0)).image(image)
    array([[  0.,  20., 255.]], dtype=float32)
    """

    low: float = 0
    high: float = 255

    def __post_init__(self) -> None:
        self.check(low=finite_number, high=finite_number)
        _check_order(self, self.low, self.high)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Clipped:
        """The transform; nothing is drawn."""
        image_size(image_shape)
        return Clipped(self.low, self.high)


@dataclass(frozen=True, repr=False)
class mean_variance_normalize(Augmentor):
    """Make the mean of all numbers 0 and their variance 1, or those of each channel (`per_channel`). float32 comes out.

    The standard deviation that is divided by is at least 1 / sqrt(height * width * channels), as in TensorFlow's
    `per_image_standardization`, so an image of one colour becomes 0.

    >>> image = np.array([[1, 3], [1, 3]], np.uint8)
    >>> mean_variance_normalize()(image.shape, np.random.default_rng(0)).image(image)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    _: KW_ONLY
    per_channel: bool = False

    def __post_init__(self) -> None:
        self.check(per_channel=boolean)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> MeanVarianceNormalized:
        """The transform; nothing is drawn."""
        image_size(image_shape)
        return MeanVarianceNormalized(self.per_channel)


@dataclass(frozen=True, repr=False)
class min_max_normalize(Augmentor):
    """Stretch all numbers, or each channel (`per_channel`), to go from `low` to `high`. float32 comes out.

    Where all are equal, `low` comes out.

    >>> image = np.array([[10, 20, 30]], np.uint8)
    >>> min_max_normalize(0, 1)(image.shape, np.random.default_rng(0)).image(image)
    array([[0. , 0.5, 1. ]], dtype=float32)
    """

    low: float = 0
    high: float = 255
    _: KW_ONLY
    per_channel: bool = False

    def __post_init__(self) -> None:
        self.check(low=finite_number, high=finite_number, per_channel=boolean)
        _check_order(self, self.low, self.high)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> MinMaxNormalized:
        """The transform; nothing is drawn."""
        image_size(image_shape)
        return MinMaxNormalized(self.low, self.high, self.per_channel)


@dataclass(frozen=True, repr=False)
class to_uint8(Augmentor):
    """Round all values, clip them to 0..255 and make them uint8. Images of any real dtype go in; values are not scaled.

    >>> image = np.array([[-1.0, 1.4, 1.6, 256.0]])
    >>> to_uint8()(image.shape, np.random.default_rng(0)).image(image)
    array([[  0,   1,   2, 255]], dtype=uint8)
    """

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Uint8:
        """The transform; nothing is drawn."""
        image_size(image_shape)
        return Uint8()


@dataclass(frozen=True, repr=False)
class to_float32(Augmentor):
    """Make all values float32, so that what follows does not round.
    Images of any real dtype go in; values are not scaled.

    >>> image = np.array([[1, 255]], np.uint8)
    >>> to_float32()(image.shape, np.random.default_rng(0)).image(image)
    array([[  1., 255.]], dtype=float32)
    """

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Float32:
        """The transform; nothing is drawn."""
        image_size(image_shape)
        return Float32()


@dataclass(frozen=True, repr=False)
class gaussian_blur(Augmentor):
    """Blur with a Gaussian window of 2 r + 1 pixels, with r drawn from `radius`: an integer,
    or (low, high) with both ends.

    `sigma`, in pixels, is a number or (low, high) to draw from; None is OpenCV's choice for the window, about
    0.3 (r - 1) + 0.8. With `symmetric=False` both are drawn anew for the vertical. Beyond its edge the image goes on as
    at the edge. Shape and dtype, uint8 (to within 1) or float32, are kept.

    >>> image = np.array([[0, 0, 160, 0, 0]], np.uint8)
    >>> gaussian_blur(1)(image.shape, np.random.default_rng(0)).image(image)
    array([[ 0, 40, 80, 40,  0]], dtype=uint8)
    """

    radius: int | tuple[int, int] = (0, 2)
    sigma: Amount | None = None
    _: KW_ONLY
    symmetric: bool = True

    def __post_init__(self) -> None:
        self.check(radius=_RADIUS, sigma=_SIGMA, symmetric=boolean)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Blurred:
        """Draw radius and sigma."""
        image_size(image_shape)
        shares = rng.random(4).tolist()  # of the horizontal, then of the vertical
        if self.symmetric:
            shares[2:] = shares[:2]
        low, high = self.radius if isinstance(self.radius, tuple) else (self.radius, self.radius)
        radius = drawn_integer(low, high, shares[0]), drawn_integer(low, high, shares[2])
        if self.sigma is None:
            return Blurred(radius)
        sigmas = as_amounts(self.sigma)
        return Blurred(radius, (at_share(sigmas, shares[1]), at_share(sigmas, shares[3])))


def _normalized(image: np.ndarray, origin: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(image - origin) * scale as float32; both have one number, or one for each channel."""
    rows = flat(image).astype(np.float32, copy=False)
    origins, scales = (_in_a_row(values.astype(np.float32).ravel(), rows.shape[1]) for values in (origin, scale))
    made = np.subtract(rows, origins, out=None if image.dtype == np.float32 else rows)
    return np.multiply(made, scales, out=made).reshape(image.shape)


def _in_a_row(values: np.ndarray, width: int) -> np.ndarray:
    """One number, or those of the channels again and again:
    numpy is slow where the last axis is as short as that of the channels."""
    return values if values.size == 1 else np.tile(values, width // values.size)


def _check_order(owner: object, low: float, high: float) -> None:
    if low >= high:
        raise ValueError(f"{type(owner).__name__}(): low must be less than high, got {low} and {high}")


_RADIUS = Rule(
    "an integer >= 0, or a pair (low, high) of them, low <= high",
    lambda value: is_integer(value) or is_pair(value, is_integer),
    lambda value, others: 0 <= value[0] <= value[1] if isinstance(value, (tuple, list)) else value >= 0,
)
_SIGMA = optional(
    Rule(
        "a positive number, or a pair (low, high) of them, low <= high",
        lambda value: is_number(value) or is_pair(value),
        lambda value, others: ordered(value) and 0 < (value[0] if isinstance(value, (tuple, list)) else value),
    )
)
