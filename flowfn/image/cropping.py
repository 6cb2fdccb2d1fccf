"""Crops, which are views of the image, and cutout."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np

from flowfn import rules
from flowfn.image import arguments
from flowfn.image.arguments import FillColor, ImageSize, as_size, at_share, drawn_integer, is_pair
from flowfn.image.geometry import Resized
from flowfn.image.resampling import check_fill
from flowfn.image.transforms import Augmentor, Composed, Identity, Shape, Transform, as_points, fitting, image_size

_ASPECT = rules.Rule("a number >= 1", rules.is_number, lambda value, others: 1 <= value < math.inf)
_AREA = rules.Rule(
    "a pair (low, high) of numbers above 0 and up to 1, low <= high",
    is_pair,
    lambda value, others: 0 < value[0] <= value[1] <= 1,
)
_CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Cropped(Transform):
    """A part of an image of `size` (height, width): `target` (height, width)
    pixels from row `top` and column `left` on."""

    size: tuple[int, int]
    top: int
    left: int
    target: tuple[int, int]

    def image(self, image: np.ndarray) -> np.ndarray:
        """The part, as a view."""
        return fitting(image, self.size)[self.top : self.top + self.target[0], self.left : self.left + self.target[1]]

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The same part."""
        return self.image(mask)

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, counted from the part's corner; those outside of it are kept."""
        points = as_points(coords)
        return points - np.array([self.left, self.top], points.dtype)

    def shape(self, image_shape: Shape) -> Shape:
        """The part's height and width."""
        return (*self.target, *image_shape[2:])


def _cropping(size: tuple[int, int], top: int, left: int, target: tuple[int, int]) -> Transform:
    return Identity() if size == target else Cropped(size, top, left, target)


def _check_target(who: str, size: tuple[int, int], target: tuple[int, int]) -> None:
    """Make sure that a part is no larger than the whole."""
    if size[0] < target[0] or size[1] < target[1]:
        raise ValueError(
            f"{who}(): images must be at least {target[0]} x {target[1]} (height x width), got {size[0]} x {size[1]}; "
            "resize_shortest_edge or center_paste before"
        )


@dataclass(frozen=True, repr=False)
class random_crop(Augmentor):
    """Crop `shape`, (height, width) in pixels or one integer for a square, from anywhere inside; a view comes out.

    Raises:
        ValueError: the image is smaller (when it is called).

    >>> transform = random_crop((1, 2))((1, 4), np.random.default_rng(0))
    >>> transform.image(np.array([[1, 2, 3, 4]])), transform.coords(np.array([[1.5, 0.5]]))
    (array([[1, 2]]), array([[1.5, 0.5]]))
    """

    shape: ImageSize

    def __post_init__(self) -> None:
        self.check(shape=arguments.size)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw where."""
        size, target, (down, across) = image_size(image_shape), as_size(self.shape), rng.random(2).tolist()
        _check_target("random_crop", size, target)
        top, left = drawn_integer(0, size[0] - target[0], down), drawn_integer(0, size[1] - target[1], across)
        return _cropping(size, top, left, target)


@dataclass(frozen=True, repr=False)
class center_crop(Augmentor):
    """Crop `shape`, (height, width) in pixels or one integer for a square, from the middle; a view comes out.

    Where the rest is odd, the larger half of it is below and to the right.

    Raises:
        ValueError: the image is smaller (when it is called).

    >>> center_crop((1, 2))((1, 5), np.random.default_rng(0)).image(np.array([[1, 2, 3, 4, 5]]))
    array([[2, 3]])
    """

    shape: ImageSize

    def __post_init__(self) -> None:
        self.check(shape=arguments.size)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Nothing is drawn."""
        size, target = image_size(image_shape), as_size(self.shape)
        _check_target("center_crop", size, target)
        return _cropping(size, (size[0] - target[0]) // 2, (size[1] - target[1]) // 2, target)


@dataclass(frozen=True, repr=False)
class random_crop_random_shape(Augmentor):
    """Crop a height and a width drawn from `smallest` to `largest` (both as in `random_crop`) from anywhere inside.

    `largest` ends at the image's own size, which it is if left out. The longer side is at most `max_aspect_ratio` times
    the shorter, as far as the bounds let it be. A view comes out.

    Raises:
        ValueError: the image is smaller than `smallest` (when it is called), or `smallest` larger than `largest`.

    >>> random_crop_random_shape(100, 300)((200, 400, 3), np.random.default_rng(0)).target
    (164, 154)
    """

    smallest: ImageSize
    largest: ImageSize | None = None
    _: KW_ONLY
    max_aspect_ratio: float | None = None

    def __post_init__(self) -> None:
        self.check(
            smallest=arguments.size, largest=rules.optional(arguments.size), max_aspect_ratio=rules.optional(_ASPECT)
        )
        if self.largest is not None and any(
            low > high for low, high in zip(as_size(self.smallest), as_size(self.largest))
        ):
            raise ValueError(
                f"random_crop_random_shape(): smallest must be at most largest, got smallest={self.smallest} and "
                f"largest={self.largest}"
            )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw a height, a width that goes with it, and where."""
        size, least = image_size(image_shape), as_size(self.smallest)
        most = size if self.largest is None else as_size(self.largest)
        _check_target("random_crop_random_shape", size, least)
        tall, wide, down, across = rng.random(4).tolist()
        height = drawn_integer(least[0], min(most[0], size[0]), tall)
        narrowest, widest = least[1], min(most[1], size[1])
        if self.max_aspect_ratio is not None:
            widest = max(narrowest, min(widest, int(height * self.max_aspect_ratio)))
            narrowest = min(widest, max(narrowest, math.ceil(height / self.max_aspect_ratio)))
        width = drawn_integer(narrowest, widest, wide)
        return _cropping(
            size, drawn_integer(0, size[0] - height, down), drawn_integer(0, size[1] - width, across), (height, width)
        )


@dataclass(frozen=True, repr=False)
class random_resized_crop(Augmentor):
    """Crop a part of random area and proportions, and resize it to `shape`: the augmentation of the Inception networks.

    The part's share of the area is drawn from `area`, its width over its height from `aspect` (evenly in the
    logarithm), up to ten times until it fits into the image; if it never does, it is the largest part in the middle
    whose proportions are in `aspect`. `interpolation` is that of `resize`. Szegedy et al., "Going deeper with
    convolutions", CVPR 2015, section 6, as torchvision has it.

    >>> random_resized_crop(224)((480, 640, 3), np.random.default_rng(0)).shape((480, 640, 3))
    (224, 224, 3)
    """

    shape: ImageSize
    _: KW_ONLY
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        self.check(
            shape=arguments.size,
            area=_AREA,
            aspect=arguments.interval(0, "positive numbers"),
            interpolation=arguments.resize_interpolation,
        )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw ten parts and where one would be, and take the first that fits."""
        size, target = image_size(image_shape), as_size(self.shape)
        *parts, where = rng.random((_CROP_ATTEMPTS + 1, 2)).tolist()
        top, left, part = self._part(size, parts, where)
        if part == target:
            return _cropping(size, top, left, part)
        resizing = Resized(part, target, self.interpolation)
        return resizing if part == size else Composed((Cropped(size, top, left, part), resizing))

    def _part(
        self, size: tuple[int, int], parts: list[list[float]], where: list[float]
    ) -> tuple[int, int, tuple[int, int]]:
        """Top, left, and (height, width) of the part."""
        height, width = size
        proportions = math.log(self.aspect[0]), math.log(self.aspect[1])
        for large, long in parts:
            area, aspect = height * width * at_share(self.area, large), math.exp(at_share(proportions, long))
            tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < tall <= height and 0 < wide <= width:
                return drawn_integer(0, height - tall, where[0]), drawn_integer(0, width - wide, where[1]), (tall, wide)
        aspect = min(max(width / height, self.aspect[0]), self.aspect[1])
        tall = min(height, max(1, round(width / aspect)))
        wide = min(width, max(1, round(height * aspect)))
        return (height - tall) // 2, (width - wide) // 2, (tall, wide)


@dataclass(frozen=True)
class Cutout(Transform):
    """An image of `size` (height, width) with a rectangle of it painted over; masks and coordinates stay."""

    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int
    fill: FillColor = 0

    def image(self, image: np.ndarray) -> np.ndarray:
        """A copy, painted."""
        check_fill(self.fill, image.shape)
        made = fitting(image, self.size).copy()
        made[self.top : self.top + self.height, self.left : self.left + self.width] = self.fill
        return made


@dataclass(frozen=True, repr=False)
class random_cutout(Augmentor):
    """Paint over a rectangle anywhere inside: `height` and `width` are pixels, or pairs (low, high)
    from which they are drawn.

    `fill` is a number, or one for each channel; masks and coordinates stay as they are. DeVries and Taylor, "Improved
    regularization of convolutional neural networks with cutout", 2017 (whose squares may leave the image in part).

    Raises:
        ValueError: the rectangle is larger than the image (when it is called).

    >>> random_cutout(1, 2, fill=9)((1, 4), np.random.default_rng(1)).image(np.array([[1, 2, 3, 4]]))
    array([[1, 2, 9, 9]])
    """

    height: int | tuple[int, int]
    width: int | tuple[int, int]
    _: KW_ONLY
    fill: FillColor = 0

    def __post_init__(self) -> None:
        self.check(height=arguments.length, width=arguments.length, fill=arguments.fill)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw how large, and where."""
        size, (tall, wide, down, across) = image_size(image_shape), rng.random(4).tolist()
        height, width = _length(self.height, tall), _length(self.width, wide)
        _check_target("random_cutout", size, (height, width))
        top, left = drawn_integer(0, size[0] - height, down), drawn_integer(0, size[1] - width, across)
        return Cutout(size, top, left, height, width, self.fill)


def _length(length: int | tuple[int, int], share: float) -> int:
    return drawn_integer(*length, share) if isinstance(length, tuple) else length
