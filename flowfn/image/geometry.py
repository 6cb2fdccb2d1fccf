"""Flips, transposition and resizing: what moves whole pixels, and what changes how many there are."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np

from flowfn import rules
from flowfn.image import arguments
from flowfn.image.arguments import ImageSize, as_size, at_share, drawn_integer
from flowfn.image.resampling import flipped, resized, transposed
from flowfn.image.transforms import Augmentor, Identity, Shape, Transform, as_points, fitting, image_size

_SIDE_RANGE = arguments.interval(0, "positive numbers (integers: pixels; floats: factors)")
_ATTEMPTS = 10


@dataclass(frozen=True)
class Flipped(Transform):
    """An image of `size` (height, width), mirrored left to right (horizontal), upside down (vertical), or both."""

    size: tuple[int, int]
    horizontal: bool
    vertical: bool

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, mirrored."""
        return flipped(fitting(image, self.size), self.horizontal, self.vertical)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, mirrored."""
        return self.image(mask)

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, mirrored."""
        points = as_points(coords).copy()
        if self.horizontal:
            np.subtract(self.size[1], points[:, 0], out=points[:, 0])
        if self.vertical:
            np.subtract(self.size[0], points[:, 1], out=points[:, 1])
        return points


@dataclass(frozen=True, repr=False)
class flip(Augmentor):
    """Mirror left to right (`horizontal`), upside down (`vertical`), each with a probability;
    a mirrored copy comes out.

    Raises:
        ValueError: neither direction is asked for.

    >>> transform = flip(horizontal=True, probability=1)((1, 3), np.random.default_rng(0))
    >>> transform.image(np.array([[1, 2, 3]], np.uint8)), transform.coords(np.array([[0.5, 0.5]]))
    (array([[3, 2, 1]], dtype=uint8), array([[2.5, 0.5]]))
    """

    _: KW_ONLY
    horizontal: bool = False
    vertical: bool = False
    probability: float = 0.5

    def __post_init__(self) -> None:
        self.check(horizontal=rules.boolean, vertical=rules.boolean, probability=arguments.probability)
        if not (self.horizontal or self.vertical):
            raise ValueError("flip(): horizontal or vertical must be True, got neither; write flip(horizontal=True)")

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Decide."""
        size, (across, down) = image_size(image_shape), rng.random(2).tolist()
        horizontal = self.horizontal and across < self.probability
        vertical = self.vertical and down < self.probability
        return Flipped(size, horizontal, vertical) if horizontal or vertical else Identity()


@dataclass(frozen=True)
class Transposed(Transform):
    """An image of `size` (height, width) whose rows became columns."""

    size: tuple[int, int]

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, (width, height)."""
        return transposed(fitting(image, self.size))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, likewise."""
        return self.image(mask)

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, x and y exchanged."""
        return as_points(coords)[:, ::-1].copy()

    def shape(self, image_shape: Shape) -> Shape:
        """Height and width exchanged."""
        return (image_shape[1], image_shape[0], *image_shape[2:])


@dataclass(frozen=True, repr=False)
class transpose(Augmentor):
    """Exchange rows and columns (mirror at the main diagonal) with a probability: (height,
    width) becomes (width, height).

    >>> transform = transpose(probability=1)((1, 3), np.random.default_rng(0))
    >>> transform.image(np.array([[1, 2, 3]], np.uint8)).shape
    (3, 1)
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        self.check(probability=arguments.probability)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Decide."""
        size = image_size(image_shape)
        return Transposed(size) if rng.random() < self.probability else Identity()


@dataclass(frozen=True)
class Resized(Transform):
    """An image of `size` resized to `target`, both (height, width)."""

    size: tuple[int, int]
    target: tuple[int, int]
    interpolation: str = "linear"

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, resized."""
        return resized(fitting(image, self.size), self.target, self.interpolation)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, of which each pixel is one that was there."""
        return resized(fitting(mask, self.size), self.target, "nearest")

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, scaled."""
        points = as_points(coords)
        scales = np.array([self.target[1] / self.size[1], self.target[0] / self.size[0]])
        return (points * scales).astype(points.dtype, copy=False)

    def shape(self, image_shape: Shape) -> Shape:
        """The target's height and width."""
        return (*self.target, *image_shape[2:])


def _resizing(size: tuple[int, int], target: tuple[int, int], interpolation: str) -> Transform:
    return Identity() if size == target else Resized(size, target, interpolation)


@dataclass(frozen=True, repr=False)
class resize(Augmentor):
    """Resize to `shape`, (height, width) in pixels or one integer for a square, whatever the proportions were.

    `interpolation` is "linear", "area" (each pixel is the mean of those it covers: for much smaller images), "cubic",
    "lanczos" or "nearest", as OpenCV defines them; masks are always resized without interpolation.

    >>> resize((225, 225))((480, 640, 3), np.random.default_rng(0)).shape((480, 640, 3))
    (225, 225, 3)
    """

    shape: ImageSize
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        self.check(shape=arguments.size, interpolation=arguments.resize_interpolation)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Nothing is drawn."""
        return _resizing(image_size(image_shape), as_size(self.shape), self.interpolation)


@dataclass(frozen=True, repr=False)
class resize_shortest_edge(Augmentor):
    """Resize so that the shorter side is `size` pixels (drawn from low to high, if it is a pair); proportions are kept.

    If the longer side would be more than `max_size`, the image becomes as much smaller as that takes.

    >>> resize_shortest_edge(256)((480, 640, 3), np.random.default_rng(0)).shape((480, 640, 3))
    (256, 341, 3)
    >>> resize_shortest_edge((640, 800), max_size=1333)((480, 640), np.random.default_rng(0)).target
    (742, 989)
    """

    size: int | tuple[int, int]
    _: KW_ONLY
    max_size: int | None = None
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        self.check(
            size=arguments.length, max_size=rules.optional(rules.positive), interpolation=arguments.resize_interpolation
        )
        longest = self.size[1] if isinstance(self.size, tuple) else self.size
        if self.max_size is not None and self.max_size < longest:
            raise ValueError(
                f"resize_shortest_edge(): max_size must be at least size, got size={self.size} and "
                f"max_size={self.max_size}"
            )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw the size, if there is a choice."""
        height, width = image_size(image_shape)
        edge = drawn_integer(*self.size, rng.random()) if isinstance(self.size, tuple) else self.size
        short, long = sorted((height, width))
        scale = edge / short
        if self.max_size is not None and long * scale > self.max_size:
            scale, edge = self.max_size / long, max(1, round(short * self.max_size / long))
        rest = max(1, int(long * scale + 0.5))
        return _resizing((height, width), (edge, rest) if height <= width else (rest, edge), self.interpolation)


@dataclass(frozen=True, repr=False)
class random_resize(Augmentor):
    """Resize to a height and a width that are drawn from `height` and `width`: pairs (low, high), ends included.

    Pairs of integers are pixels, pairs with a float are factors of the image's own. The proportion of width to height
    may change by at most `max_aspect_change`, a share (0: it is kept, the width follows the height; None: anything
    goes): pairs are drawn up to ten times, and of the last the width is mended. No side becomes shorter than `minimum`.

    >>> random_resize((0.5, 1.0))((400, 600), np.random.default_rng(0)).target
    (208, 305)
    >>> random_resize((100, 200), max_aspect_change=0)((400, 600), np.random.default_rng(0)).target
    (130, 195)
    """

    height: tuple[float, float]
    width: tuple[float, float] | None = None
    _: KW_ONLY
    max_aspect_change: float | None = 0.15
    minimum: ImageSize = 1
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        self.check(
            height=_SIDE_RANGE,
            width=rules.optional(_SIDE_RANGE),
            max_aspect_change=rules.optional(arguments.between(0, 1)),
            minimum=arguments.size,
            interpolation=arguments.resize_interpolation,
        )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw ten pairs, and take the first that keeps the proportion well enough."""
        height, width = image_size(image_shape)
        change = self.max_aspect_change
        heights, widths = _pixels(self.height, height), _pixels(self.width or self.height, width)
        for down, across in rng.random((_ATTEMPTS, 2)).tolist():
            tall, wide = at_share(heights, down), at_share(widths, across)
            kept = tall * width / height
            if change is None or abs(wide / kept - 1) <= change:
                break
        if change is not None:
            wide = min(max(wide, kept * (1 - change)), kept * (1 + change))
        least = as_size(self.minimum)
        target = max(least[0], int(tall + 0.5)), max(least[1], int(wide + 0.5))
        return _resizing((height, width), target, self.interpolation)


def _pixels(side: tuple[float, float], whole: int) -> tuple[float, float]:
    """A range of lengths in pixels."""
    return side if all(map(rules.is_integer, side)) else (side[0] * whole, side[1] * whole)
