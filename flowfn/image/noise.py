"""Noise: what cameras, files and faulty pixels add to an image.

A transform of noise holds a seed, not the noise: it makes the same numbers whenever it is applied, and is small. Masks
and coordinates are left as they are.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np

from flowfn.image.arguments import at_share, drawn_integer, is_pair, probability
from flowfn.image.pixels import Amount, amount, as_amounts, channels, check_pixels, clipped, limited, rounded
from flowfn.image.transforms import Augmentor, Shape, Transform, image_size
from flowfn.rules import Rule, boolean, is_integer

_SEEDS = 2**63
_LONGEST = 65500  # libjpeg's


@dataclass(frozen=True)
class JpegCompressed(Transform):
    """What a JPEG file of some quality (0 to 100) makes of the image."""

    quality: int

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, encoded and decoded."""
        check_pixels(self, image)
        _check_encodable(self, image.shape)
        colored = channels(image.shape) == 3
        plain = image if image.dtype == np.uint8 else rounded(image)
        plain = cv2.cvtColor(plain, cv2.COLOR_RGB2BGR) if colored else plain  # OpenCV's order for files
        _, data = cv2.imencode(".jpg", plain, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        made = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR if colored else cv2.IMREAD_GRAYSCALE))
        made = cv2.cvtColor(made, cv2.COLOR_BGR2RGB) if colored else made
        return made.reshape(image.shape).astype(image.dtype, copy=False)


@dataclass(frozen=True)
class GaussianNoise(Transform):
    """Normal numbers of standard deviation `sigma`, made from `seed`, added to each value."""

    sigma: float
    seed: int
    clip: bool = True

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image with noise."""
        check_pixels(self, image)
        noise = _generator(self.seed).standard_normal(image.shape, np.float32)
        if image.dtype == np.uint8:
            return cv2.addWeighted(image, 1, noise, limited(self.sigma, image), 0, dtype=cv2.CV_8U).reshape(image.shape)
        noise *= np.float32(self.sigma)
        noise += image
        return clipped(noise, self.clip)


@dataclass(frozen=True)
class SaltAndPepper(Transform):
    """Values made 255 or 0 at random, with probabilities `white` and `black`, from `seed`."""

    white: float
    black: float
    seed: int

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image with salt and pepper."""
        check_pixels(self, image)
        made, shares = image.copy(), _generator(self.seed).random(image.shape, np.float32)
        np.copyto(made, 255, where=shares >= 1 - self.white)
        np.copyto(made, 0, where=shares < self.black)
        return made


@dataclass(frozen=True, repr=False)
class jpeg_noise(Augmentor):
    """Compress to JPEG and back, at a quality drawn from `quality`: an integer from 0 to 100,
    or (low, high) with both ends.

    Images are RGB or gray (1 channel). Shape and dtype are kept; float32 is rounded and clipped to 0..255.

    Raises:
        ValueError: the image has neither 1 nor 3 channels, or a side longer than JPEG's 65500 pixels.

    >>> image = np.full((8, 8, 3), 77, np.uint8)
    >>> jpeg_noise((90, 95))(image.shape, np.random.default_rng(0)).image(image)[0, 0]
    array([77, 77, 77], dtype=uint8)
    """

    quality: int | tuple[int, int] = (40, 100)

    def __post_init__(self) -> None:
        self.check(quality=_QUALITY)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> JpegCompressed:
        """Draw the quality."""
        _check_encodable(self, image_shape)
        low, high = self.quality if isinstance(self.quality, tuple) else (self.quality, self.quality)
        return JpegCompressed(drawn_integer(low, high, rng.random()))


@dataclass(frozen=True, repr=False)
class gaussian_noise(Augmentor):
    """Add normal noise to each value, of a standard deviation drawn from `sigma`: a number, or (low, high).

    Any number of channels, all with noise of their own; the dtype is kept. uint8 is rounded and clipped, float32
    clipped to 0..255 unless `clip=False`.

    >>> image = np.full((100, 100), 128, np.uint8)
    >>> gaussian_noise(10)(image.shape, np.random.default_rng(0)).image(image).std().round(1)
    np.float64(9.9)
    """

    sigma: Amount = 1.0
    _: KW_ONLY
    clip: bool = True

    def __post_init__(self) -> None:
        self.check(sigma=amount, clip=boolean)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> GaussianNoise:
        """Draw sigma, and the seed of the noise."""
        image_size(image_shape)
        return GaussianNoise(at_share(as_amounts(self.sigma), rng.random()), int(rng.integers(_SEEDS)), self.clip)


@dataclass(frozen=True, repr=False)
class salt_pepper_noise(Augmentor):
    """Make each value 255 with probability `white`, and 0 with probability `black`, whatever its channel.

    Any number of channels, uint8 or float32; the dtype is kept.

    >>> image = np.full((100, 100), 128, np.uint8)
    >>> noisy = salt_pepper_noise(0.1, 0.2)(image.shape, np.random.default_rng(0)).image(image)
    >>> (noisy == 255).mean().round(2), (noisy == 0).mean().round(2)
    (np.float64(0.1), np.float64(0.21))
    """

    white: float = 0.05
    black: float = 0.05

    def __post_init__(self) -> None:
        self.check(white=probability, black=probability)
        if self.white + self.black > 1:
            raise ValueError(f"salt_pepper_noise(): white + black must be at most 1, got {self.white} and {self.black}")

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> SaltAndPepper:
        """Draw the seed of the noise."""
        image_size(image_shape)
        return SaltAndPepper(self.white, self.black, int(rng.integers(_SEEDS)))


def _generator(seed: int) -> np.random.Generator:
    """The numbers of a seed; of numpy's bit generators this is the fastest."""
    return np.random.Generator(np.random.SFC64(seed))


def _check_encodable(owner: object, shape: Shape) -> None:
    if channels(shape) not in (1, 3) or max(image_size(shape)) > _LONGEST:
        raise ValueError(
            f"{type(owner).__name__}(): for JPEG an image must have 1 or 3 channels and sides of at most {_LONGEST} "
            "pixels, "
            f"got shape {tuple(shape)}"
        )


_QUALITY = Rule(
    "an integer from 0 to 100, or a pair (low, high) of them, low <= high",
    lambda value: is_integer(value) or is_pair(value, is_integer),
    lambda value, others: 0 <= value[0] <= value[1] <= 100 if isinstance(value, (tuple, list)) else 0 <= value <= 100,
)
