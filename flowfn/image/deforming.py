"""Smooth deformation: anchors in the image pull what is near them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

import numpy as np

from flowfn import rules
from flowfn.image import arguments
from flowfn.image.arguments import FillColor, is_pair
from flowfn.image.resampling import remapped
from flowfn.image.transforms import Augmentor, Shape, Transform, as_points, fitting, image_size

Points: TypeAlias = tuple[tuple[float, float], ...]

_ANCHORS = rules.Rule(
    "a positive integer n (for n x n anchors), or a list of points (x, y) from 0 to 1",
    lambda value: (
        rules.is_integer(value) or (isinstance(value, (list, tuple)) and bool(value) and all(map(is_pair, value)))
    ),
    lambda value, others: (
        value > 0 if rules.is_integer(value) else all(0 <= share <= 1 for point in value for share in point)
    ),
)


@dataclass(frozen=True)
class Deformed(Transform):
    """An image of `size` (height, width), each point of which comes from where the pulls of the anchors put it.

    Points are shares of width and height. What is at q in the result was at q + sum_k pull_k
    exp(-|q - anchor_k|^2 / (2 sigma^2)).
    """

    size: tuple[int, int]
    anchors: Points
    pulls: Points
    sigma: float
    interpolation: str = "linear"
    border: str = "edge"
    fill: FillColor = 0
    mask_fill: float = 0

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, deformed."""
        return remapped(fitting(image, self.size), *self._sources(), self.interpolation, self.border, self.fill)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, of which each pixel is one that was there, or `mask_fill`."""
        return remapped(fitting(mask, self.size), *self._sources(), "nearest", self.border, self.mask_fill)

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """Where the points go: the map is inverted by iteration, to some 1e-9 of the image."""
        points = as_points(coords)
        sides = np.array(self.size[::-1], np.float64)
        wanted = points / sides
        moved = wanted
        for _ in range(8):  # towards it: the map is a contraction about the identity
            moved = wanted - self._pull(moved)[0]
        for _ in range(4):  # Newton, which doubles the digits each time
            pull, slopes = self._pull(moved)
            moved = moved - np.linalg.solve(slopes + np.eye(2), (moved + pull - wanted)[..., None])[..., 0]
        return (moved * sides).astype(points.dtype, copy=False)

    def _pull(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far points are pulled (n, 2), and the derivatives of that by their coordinates (n, 2, 2)."""
        offsets = points[:, None] - np.array(self.anchors)
        weights = np.exp((offsets**2).sum(-1) / (-2 * self.sigma**2))
        pulls = np.array(self.pulls)
        return weights @ pulls, np.einsum("nk,ki,nkj->nij", weights, pulls, offsets) / -(self.sigma**2)

    def _sources(self) -> tuple[np.ndarray, np.ndarray]:
        """The index from which every pixel comes: columns and rows, float32 (height, width).

        A Gaussian is a product of one along x and one along y. So is the index itself,
        with ones: the last of the terms.
        """
        height, width = self.size
        anchors, pulls = np.array(self.anchors), np.array(self.pulls) * [width, height]
        columns, rows = np.arange(width), np.arange(height)
        along_x = np.exp(((columns + 0.5) / width - anchors[:, :1]) ** 2 / (-2 * self.sigma**2))
        along_y = np.exp(((rows + 0.5) / height - anchors[:, 1:]) ** 2 / (-2 * self.sigma**2))
        return (
            _summed([*(along_y * pulls[:, :1]), np.ones(height)], [*along_x, columns]),
            _summed([*(along_y * pulls[:, 1:]), rows], [*along_x, np.ones(width)]),
        )


@dataclass(frozen=True, repr=False)
class gaussian_deform(Augmentor):
    """Deform smoothly: each anchor pulls what is near it by a distance drawn from -`magnitude` to
    `magnitude`, in x and y.

    `anchors` are points (x, y) as shares of width and height, or n for a grid of n x n; `magnitude` and `sigma`, how
    far a pull is felt (the width of a Gaussian), are shares too. `border`, `fill`, `mask_fill` and `interpolation` are
    those of `rotation`. Coordinates follow exactly, so the image must not fold over itself: that bounds the magnitude.

    Raises:
        ValueError: the magnitude is so large, for these anchors and sigma, that the image could fold over itself.

    >>> transform = gaussian_deform(3, magnitude=0.02)((100, 100), np.random.default_rng(0))
    >>> transform.coords(np.array([[50.0, 50.0]])).round(2)
    array([[49.39, 49.37]])
    """

    anchors: int | Points
    _: KW_ONLY
    magnitude: float = 0.05
    sigma: float = 0.2
    interpolation: str = "linear"
    border: str = "edge"
    fill: FillColor = 0
    mask_fill: float = 0

    def __post_init__(self) -> None:
        self.check(
            anchors=_ANCHORS,
            magnitude=arguments.between(0, 1),
            sigma=arguments.positive_number,
            interpolation=arguments.interpolation,
            border=arguments.border,
            fill=arguments.fill,
            mask_fill=arguments.single_fill,
        )
        if isinstance(self.anchors, tuple):
            object.__setattr__(self, "anchors", tuple((float(x), float(y)) for x, y in self.anchors))
        bound = largest_magnitude(self._points(), self.sigma)
        if self.magnitude >= bound:
            raise ValueError(
                f"gaussian_deform(): magnitude must be below {math.floor(bound * 1e4) / 1e4} for these anchors and "
                "sigma, or the image "
                f"could fold over itself, got {self.magnitude}; give fewer anchors, or a larger sigma"
            )

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw the pulls."""
        size, points = image_size(image_shape), self._points()
        pulls = (2 * rng.random((len(points), 2)) - 1) * self.magnitude
        named: Any = tuple(map(tuple, pulls.tolist()))
        return Deformed(size, points, named, self.sigma, self.interpolation, self.border, self.fill, self.mask_fill)

    def _points(self) -> Points:
        if isinstance(self.anchors, tuple):
            return self.anchors
        middles = [(i + 0.5) / self.anchors for i in range(self.anchors)]
        return tuple((x, y) for y in middles for x in middles)


def _summed(down: Sequence[np.ndarray], across: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of outer products. It is too small for the threads of a matrix product,
    which would wait for each other."""
    return np.einsum("ki,kj->ij", np.array(down, np.float32), np.array(across, np.float32))


def largest_magnitude(anchors: Points, sigma: float) -> float:
    """Below which pulls never fold the image: where the slopes of all Gaussians together,
    pulled diagonally, stay below 1.

    >>> round(largest_magnitude(((0.5, 0.5),), 0.5), 2)
    0.58
    """
    grid = np.linspace(-sigma, 1 + sigma, 65)
    offsets = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 1, 2) - np.array(anchors)
    distances = np.sqrt((offsets**2).sum(-1))
    slopes = distances / sigma**2 * np.exp(distances**2 / (-2 * sigma**2))
    return float(1 / (1.01 * math.sqrt(2) * slopes.sum(1).max()))
