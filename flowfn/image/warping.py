"""Shifts, rotations and affine maps: a matrix takes every point of the image to where it goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias

import numpy as np

from flowfn import rules
from flowfn.image import arguments
from flowfn.image.arguments import FillColor, Range, as_range, at_share, drawn_integer, is_pair, ordered
from flowfn.image.resampling import warped
from flowfn.image.transforms import Augmentor, Identity, Shape, Transform, as_points, fitting, image_size

Matrix: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float]]
"""The rows of an affine map: x' = a x + b y + c, y' = d x + e y + f."""

_QUARTERS: Mapping[float, tuple[float, float]] = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}
_TRANSLATION = rules.Rule(
    "a pair (horizontal, vertical) of numbers from 0 to 1",
    is_pair,
    lambda value, others: all(0 <= share <= 1 for share in value),
)
_CENTER = rules.Rule(
    "a pair (low, high) of numbers from 0 to 1, low <= high",
    is_pair,
    lambda value, others: ordered(value) and 0 <= value[0] <= value[1] <= 1,
)
_SHEAR = rules.Rule(
    "a number of degrees n (from -n to n) or a pair (low, high), within -90 and 90",
    arguments.span.fits_type,
    lambda value, others: (
        arguments.span.fits(value, others) and -90 < min(np.ravel(value)) and max(np.ravel(value)) < 90
    ),
)


@dataclass(frozen=True)
class Warped(Transform):
    """An image of `size` sent through an affine map of its coordinates into one of `target`, both (height, width)."""

    size: tuple[int, int]
    matrix: Matrix
    target: tuple[int, int]
    interpolation: str = "linear"
    border: str = "edge"
    fill: FillColor = 0
    mask_fill: float = 0

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, warped; what comes from outside is as `border` says."""
        matrix = self._for_indices()
        return warped(fitting(image, self.size), matrix, self.target, self.interpolation, self.border, self.fill)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, of which each pixel is one that was there, or `mask_fill`."""
        return warped(
            fitting(mask, self.size), self._for_indices(), self.target, "nearest", self.border, self.mask_fill
        )

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, through the matrix."""
        points, matrix = as_points(coords), np.array(self.matrix)
        return (points @ matrix[:, :2].T + matrix[:, 2]).astype(points.dtype, copy=False)

    def shape(self, image_shape: Shape) -> Shape:
        """The target's height and width."""
        return (*self.target, *image_shape[2:])

    def _for_indices(self) -> np.ndarray:
        """The same map between indices, which lie half a pixel before the centres of their pixels."""
        (a, b, c), (d, e, f) = self.matrix
        return np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])


@dataclass(frozen=True, repr=False)
class shift(Augmentor):
    """Move the image by whole pixels, at most `horizontal` of its width and `vertical` of its height, either way.

    What comes in from outside is the `border`: "edge" (the last pixels again), "reflect" and "symmetric" (without and
    with the last pixel), "wrap", or "constant" (`fill`; masks: `mask_fill`), with numpy's words for padding.

    >>> transform = shift(0.5, border="constant")((1, 4), np.random.default_rng(0))
    >>> transform.image(np.array([[1, 2, 3, 4]], np.uint8)), transform.coords(np.array([[0.5, 0.5]]))
    (array([[0, 1, 2, 3]], dtype=uint8), array([[1.5, 0.5]]))
    """

    horizontal: float = 0.0
    vertical: float = 0.0
    _: KW_ONLY
    border: str = "edge"
    fill: FillColor = 0
    mask_fill: float = 0

    def __post_init__(self) -> None:
        self.check(
            horizontal=arguments.share,
            vertical=arguments.share,
            border=arguments.border,
            fill=arguments.fill,
            mask_fill=arguments.single_fill,
        )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw how far."""
        size, (across, down) = image_size(image_shape), rng.random(2).tolist()
        most = int(self.horizontal * size[1]), int(self.vertical * size[0])
        matrix = _moving(drawn_integer(-most[0], most[0], across), drawn_integer(-most[1], most[1], down))
        return _warping(size, matrix, size, "nearest", self.border, self.fill, self.mask_fill)


@dataclass(frozen=True, repr=False)
class rotation(Augmentor):
    """Rotate by an angle drawn from `degrees` (n: from -n to n, or a pair),
    counter-clockwise as one sees it; the size is kept.

    With `step` the angle is the lowest plus a multiple of it. The image turns about a point whose coordinates, as
    shares of its width and height, are both drawn from `center`. `border`, `fill` and `mask_fill` are those of `shift`;
    `interpolation` is "linear", "cubic", "lanczos" or "nearest".

    >>> transform = rotation((90, 90))((4, 4), np.random.default_rng(0))
    >>> transform.coords(np.array([[4.0, 0.0]]))
    array([[0., 0.]])
    """

    degrees: Range
    _: KW_ONLY
    step: float | None = None
    center: tuple[float, float] = (0.5, 0.5)
    interpolation: str = "linear"
    border: str = "edge"
    fill: FillColor = 0
    mask_fill: float = 0

    def __post_init__(self) -> None:
        self.check(
            degrees=arguments.span,
            step=rules.optional(arguments.positive_number),
            center=_CENTER,
            interpolation=arguments.interpolation,
            border=arguments.border,
            fill=arguments.fill,
            mask_fill=arguments.single_fill,
        )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw the angle and the point to turn about."""
        size, (turn, across, down) = image_size(image_shape), rng.random(3).tolist()
        center = at_share(self.center, across) * size[1], at_share(self.center, down) * size[0]
        matrix = _about(center, center, _turning(_angle(self.degrees, self.step, turn)))
        return _warping(size, matrix, size, self.interpolation, self.border, self.fill, self.mask_fill)


@dataclass(frozen=True, repr=False)
class rotation_and_crop_valid(Augmentor):
    """Rotate about the centre, and crop the largest upright rectangle in which all comes from the
    image: its size varies.

    `degrees`, `step` and `interpolation` are those of `rotation`.

    >>> rotation_and_crop_valid((45, 45))((100, 100), np.random.default_rng(0)).target
    (70, 70)
    """

    degrees: Range
    _: KW_ONLY
    step: float | None = None
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        self.check(
            degrees=arguments.span,
            step=rules.optional(arguments.positive_number),
            interpolation=arguments.interpolation,
        )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw the angle."""
        height, width = image_size(image_shape)
        rows = _turning(_angle(self.degrees, self.step, rng.random()))
        tall, wide = largest_inside(height, width, rows)
        matrix = _about((width / 2, height / 2), (wide / 2, tall / 2), rows)
        return _warping((height, width), matrix, (tall, wide), self.interpolation)


@dataclass(frozen=True, repr=False)
class affine(Augmentor):
    """Shear, scale and rotate about the centre, then translate; the size is kept.

    Drawn are the angle from `degrees` (as in `rotation`), the factor from `scale` (low, high), the translation up to
    `translate`, shares of (width, height) either way, and the angle of `shear` from degrees n (-n to n) or a pair: a
    point y below the centre moves right by y tan(shear). `border`, `fill`, `mask_fill` and `interpolation` are those of
    `rotation`.

    >>> transform = affine(scale=(2, 2))((10, 10), np.random.default_rng(0))
    >>> transform.coords(np.array([[5.0, 5.0], [6.0, 4.0]]))
    array([[5., 5.],
           [7., 3.]])
    """

    degrees: Range = 0
    _: KW_ONLY
    scale: tuple[float, float] = (1, 1)
    translate: tuple[float, float] = (0, 0)
    shear: Range = 0
    interpolation: str = "linear"
    border: str = "edge"
    fill: FillColor = 0
    mask_fill: float = 0

    def __post_init__(self) -> None:
        self.check(
            degrees=arguments.span,
            scale=arguments.interval(0, "positive numbers"),
            translate=_TRANSLATION,
            shear=_SHEAR,
            interpolation=arguments.interpolation,
            border=arguments.border,
            fill=arguments.fill,
            mask_fill=arguments.single_fill,
        )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw angle, scale, shear and translation."""
        (height, width), (turn, grow, lean, across, down) = image_size(image_shape), rng.random(5).tolist()
        (a, b), (d, e) = _turning(_angle(self.degrees, None, turn))
        factor, slope = at_share(self.scale, grow), math.tan(math.radians(at_share(as_range(self.shear), lean)))
        rows = (a * factor, (a * slope + b) * factor), (d * factor, (d * slope + e) * factor)
        most = self.translate[0] * width, self.translate[1] * height
        center = width / 2, height / 2
        moved = center[0] + at_share((-most[0], most[0]), across), center[1] + at_share((-most[1], most[1]), down)
        matrix = _about(center, moved, rows)
        return _warping(
            (height, width), matrix, (height, width), self.interpolation, self.border, self.fill, self.mask_fill
        )


LinearMap: TypeAlias = tuple[tuple[float, float], tuple[float, float]]


def largest_inside(height: int, width: int, turn: LinearMap) -> tuple[int, int]:
    """Height and width of the largest upright rectangle within an image that was rotated about its centre.

    Either two corners touch the long sides at their middle, or all four touch: from the latter, two equations
    w' cos + h' sin = w and w' sin + h' cos = h.

    >>> largest_inside(30, 40, ((1, 0), (0, 1)))
    (30, 40)
    """
    cos, sin = abs(turn[0][0]), abs(turn[0][1])
    short, long = min(height, width), max(height, width)
    if short <= 2 * sin * cos * long or abs(sin - cos) < 1e-9:
        along, beside = short / (2 * sin), short / (2 * cos)
        wide, tall = (along, beside) if width >= height else (beside, along)
    else:
        wide = (width * cos - height * sin) / (cos * cos - sin * sin)
        tall = (height * cos - width * sin) / (cos * cos - sin * sin)
    return max(1, int(tall + 1e-9)), max(1, int(wide + 1e-9))


def _angle(degrees: Range, step: float | None, share: float) -> float:
    low, high = as_range(degrees)
    return (
        at_share((low, high), share)
        if step is None
        else low + step * drawn_integer(0, int((high - low) / step + 1e-9), share)
    )


def _turning(degrees: float) -> LinearMap:
    """Rotation counter-clockwise, where y points down; quarter turns are exact."""
    cos, sin = _QUARTERS.get(degrees % 360) or (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    return (cos, sin), (-sin, cos)


def _moving(x: float, y: float) -> Matrix:
    return (1, 0, x), (0, 1, y)


def _about(center: tuple[float, float], goes_to: tuple[float, float], rows: LinearMap) -> Matrix:
    """The linear map of `rows` about a point that goes to another."""
    ((a, b), (d, e)), (x, y) = rows, center
    return (a, b, goes_to[0] - a * x - b * y), (d, e, goes_to[1] - d * x - e * y)


def _warping(
    size: tuple[int, int],
    matrix: Matrix,
    target: tuple[int, int],
    interpolation: str,
    border: str = "edge",
    fill: FillColor = 0,
    mask_fill: float = 0,
) -> Transform:
    if size == target and matrix == _moving(0, 0):
        return Identity()
    return Warped(size, matrix, target, interpolation, border, fill, mask_fill)
