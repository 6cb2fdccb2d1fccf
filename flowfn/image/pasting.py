"""Images pasted on a larger background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias

import numpy as np

from flowfn import rules
from flowfn.image import arguments
from flowfn.image.arguments import FillColor, ImageSize, as_size, drawn_integer
from flowfn.image.resampling import surrounded
from flowfn.image.transforms import Augmentor, Identity, Shape, Transform, as_points, fitting, image_size

Background: TypeAlias = "FillColor | Callable[[np.ndarray, Shape, np.random.Generator], np.ndarray]"
"""What to paste on: a colour, or a function of the image,
the shape to make and a generator that gives an array of that shape."""

_BACKGROUND = rules.Rule(
    "a number, a tuple of one for each channel, or a function of (image, shape, rng)",
    lambda value: callable(value) or arguments.fill.fits_type(value),
)


@dataclass(frozen=True)
class Pasted(Transform):
    """An image of `size` on a background of `target`, both (height, width), from row `top` and column `left` on.

    The background is a colour, or made by a function, whose generator starts from `seed`.
    """

    size: tuple[int, int]
    top: int
    left: int
    target: tuple[int, int]
    background: Background = 0
    mask_fill: float = 0
    seed: int = 0

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image on its background."""
        if not callable(self.background):
            return self._on_colour(fitting(image, self.size), self.background)
        shape = self.shape(fitting(image, self.size).shape)
        made = np.asarray(self.background(image, shape, np.random.default_rng(self.seed)))
        if made.shape != shape:
            raise ValueError(
                f"the background must be an array of shape {shape}, got shape {made.shape} from {self.background}"
            )
        made = made.astype(image.dtype)  # a copy, since the function may give the same array each time
        made[self._inside] = image
        return made

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, with `mask_fill` around it."""
        return self._on_colour(fitting(mask, self.size), self.mask_fill)

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, counted from the background's corner."""
        points = as_points(coords)
        return points + np.array([self.left, self.top], points.dtype)

    def shape(self, image_shape: Shape) -> Shape:
        """The background's height and width."""
        return (*self.target, *image_shape[2:])

    @property
    def _inside(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.size[0]), slice(self.left, self.left + self.size[1])

    def _on_colour(self, image: np.ndarray, fill: FillColor) -> np.ndarray:
        bottom, right = self.target[0] - self.top - self.size[0], self.target[1] - self.left - self.size[1]
        return surrounded(image, self.top, bottom, self.left, right, fill)


@dataclass(frozen=True, repr=False)
class center_paste(Augmentor):
    """Paste the image in the middle of a `background` of `shape`: (height, width) in pixels,
    or one integer for a square.

    The background is a number, a tuple of one for each channel, or a function `background(image, shape, rng)` that
    returns an array of `shape`; around masks it is `mask_fill`. Where the room is odd, more of it is below and to the
    right.

    Raises:
        ValueError: the image is larger (when it is called).

    >>> transform = center_paste((1, 4), 9)((1, 2), np.random.default_rng(0))
    >>> transform.image(np.array([[1, 2]])), transform.coords(np.array([[0.5, 0.5]]))
    (array([[9, 1, 2, 9]]), array([[1.5, 0.5]]))
    """

    shape: ImageSize
    background: Background = 0
    _: KW_ONLY
    mask_fill: float = 0

    def __post_init__(self) -> None:
        self.check(shape=arguments.size, background=_BACKGROUND, mask_fill=arguments.single_fill)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw a seed, if the background is a function."""
        size = image_size(image_shape)
        rows, columns = _room(self, size)
        return _pasting(self, size, rows // 2, columns // 2, rng)


@dataclass(frozen=True, repr=False)
class random_paste(Augmentor):
    """Paste the image anywhere on a `background` of `shape`; both, and `mask_fill`, are those of `center_paste`.

    Raises:
        ValueError: the image is larger (when it is called).

    >>> random_paste((1, 4))((1, 2), np.random.default_rng(0)).image(np.array([[1, 2]]))
    array([[1, 2, 0, 0]])
    """

    shape: ImageSize
    background: Background = 0
    _: KW_ONLY
    mask_fill: float = 0

    def __post_init__(self) -> None:
        self.check(shape=arguments.size, background=_BACKGROUND, mask_fill=arguments.single_fill)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw where, and a seed, if the background is a function."""
        size, (down, across) = image_size(image_shape), rng.random(2).tolist()
        rows, columns = _room(self, size)
        return _pasting(self, size, drawn_integer(0, rows, down), drawn_integer(0, columns, across), rng)


def _room(paste: center_paste | random_paste, size: tuple[int, int]) -> tuple[int, int]:
    """How many rows and columns of the background are left over."""
    target = as_size(paste.shape)
    if target[0] < size[0] or target[1] < size[1]:
        raise ValueError(
            f"{type(paste).__name__}(): images must be at most {target[0]} x {target[1]} (height x width), got "
            f"{size[0]} x {size[1]}; "
            "resize or crop before"
        )
    return target[0] - size[0], target[1] - size[1]


def _pasting(
    paste: center_paste | random_paste, size: tuple[int, int], top: int, left: int, rng: np.random.Generator
) -> Transform:
    target = as_size(paste.shape)
    seed = int(rng.integers(1 << 62)) if callable(paste.background) else 0
    return Identity() if size == target else Pasted(size, top, left, target, paste.background, paste.mask_fill, seed)
