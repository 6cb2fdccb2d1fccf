"""What an augmentor is: a value that draws a transform, which then treats image, mask, coordinates and boxes alike.

    transform = augmentor(image.shape, rng)      # everything random is decided here
    transform.image(image), transform.mask(mask), transform.coords(points), transform.boxes(boxes)

Images are arrays (height, width) or (height, width, channels), uint8 or float32, in RGB order.
Coordinates are x, then y, in
pixels: the image covers [0, width] x [0, height],
so the centre of the pixel in row i and column j is (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np

from flowfn.pickling.by_value import Picklable
from flowfn.rules import Rule
from flowfn.showing import as_written

Shape: TypeAlias = tuple[int, ...]
"""The shape of an image: (height, width) or (height, width, channels)."""

FEW_CHANNELS = 4
"""As many channels as a picture has at most (RGB and alpha)."""

SMALL_SIDE = 8
"""An image that is less high or wide is not taken for one whose channels come first:
it may be a strip with some channels."""


class Transform(ABC):
    """What is done to one image and all that belongs to it: nothing in it is random,
    nothing that it is given is changed.

    A subclass says `image`. One that moves pixels also says `mask` (nearest neighbour: no new labels), `coords`, and
    `shape` if it is not kept. Each returns its input itself where nothing is to be done.
    """

    @abstractmethod
    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, (height, width) or (height, width, channels), transformed;
        its dtype is kept unless that is the purpose."""

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask of labels, of the image's height and width, moved as the image is."""
        return mask

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """Where points go: (n, 2) floats, x then y, in pixels. Points may leave the image."""
        return coords

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Where boxes go: (n, 4) floats, x1 y1 x2 y2, in pixels:
        what holds the four corners wherever they went. Not clipped."""
        if type(self).coords is Transform.coords:
            return boxes
        return bounding(self.coords(corners(boxes)))

    def shape(self, image_shape: Shape) -> Shape:
        """The shape of what comes out for an image of this shape."""
        return image_shape


@dataclass(frozen=True)
class Identity(Transform):
    """Nothing: what is given is returned itself.

    >>> image = np.zeros((2, 2))
    >>> Identity().image(image) is image
    True
    """

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image itself."""
        return image


@dataclass(frozen=True)
class Composed(Transform):
    """Transforms, one after the other.

    >>> Composed((Identity(), Identity())).shape((2, 3))
    (2, 3)
    """

    transforms: tuple[Transform, ...]

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image, through all of them."""
        for transform in self.transforms:
            image = transform.image(image)
        return image

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, through all of them."""
        for transform in self.transforms:
            mask = transform.mask(mask)
        return mask

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, through all of them."""
        for transform in self.transforms:
            coords = transform.coords(coords)
        return coords

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """What holds the corners after all of them (tighter than a box of boxes),
        but for transforms with `boxes` of their own."""
        points: np.ndarray | None = None
        for transform in self.transforms:
            if type(transform).boxes is Transform.boxes:
                if type(transform).coords is not Transform.coords:
                    points = transform.coords(corners(boxes) if points is None else points)
            else:
                boxes, points = transform.boxes(boxes if points is None else bounding(points)), None
        return boxes if points is None else bounding(points)

    def shape(self, image_shape: Shape) -> Shape:
        """The shape that comes out of the last."""
        for transform in self.transforms:
            image_shape = transform.shape(image_shape)
        return image_shape


def composed(transforms: Iterable[Transform]) -> Transform:
    """Several transforms as one; what does nothing is left out.

    >>> composed([Identity(), composed([])])
    Identity()
    """
    flat: list[Transform] = []
    for transform in transforms:
        if isinstance(transform, Composed):
            flat += transform.transforms
        elif not isinstance(transform, Identity):
            flat.append(transform)
    return Composed(tuple(flat)) if len(flat) > 1 else flat[0] if flat else Identity()


class Augmentor(Picklable, ABC):
    """A recipe for transforms: `augmentor(image_shape, rng)` draws one for an image of this shape.

    Subclasses are frozen dataclasses (`repr=False`: theirs is the call that made them); they compare and pickle as
    their arguments do. What is drawn from `rng` is as many numbers, in the same order, whatever they turn out to be.
    """

    draws_transforms: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Transform:
        """Draw a transform for images of this shape."""

    @property
    def instead(self) -> str:
        """What to write where this stands in the place of a stage."""
        return f"augment([{self}], index)"

    def __repr__(self) -> str:
        words = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING:
                words.append(_as_in_call(value))
            elif value != field.default:
                words.append(f"{field.name}={_as_in_call(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def check(self, **rules: Rule) -> None:
        """Hold arguments against their rules (for `__post_init__`); lists become tuples, numpy's numbers Python's."""
        for name, rule in rules.items():
            value = rule.check(type(self).__name__, name, getattr(self, name), {})
            object.__setattr__(
                self, name, tuple(map(_python_number, value)) if type(value) in (list, tuple) else _python_number(value)
            )


def image_size(image_shape: Shape) -> tuple[int, int]:
    """The height and width of an image of this shape, or an error if it is not an image's.

    >>> image_size((480, 640, 3))
    (480, 640)
    """
    if len(image_shape) not in (2, 3) or not all(image_shape):
        raise ValueError(
            "an image must be an array (height, width) or (height, width, channels) that is not empty, got shape "
            f"{image_shape}"
        )
    if not isinstance(image_shape, ChannelsLast) and channels_first(image_shape):
        raise ValueError(
            f"an image must be (height, width, channels), but one of shape {tuple(image_shape)} looks like (channels, "
            "height, width); "
            "np.moveaxis(image, 0, -1) turns it"
        )
    return image_shape[0], image_shape[1]


class ChannelsLast(tuple[int, ...]):
    """The shape of an image of which it is known that its channels come last."""

    __slots__ = ()


def channels_first(shape: Shape) -> bool:
    """Whether a shape looks like (channels, height, width): no image has so few rows of pixels with so many channels.

    >>> [channels_first(shape) for shape in [(3, 224, 224), (1, 28, 28), (224, 224, 3), (3, 224, 3)]]
    [True, True, False, False]
    """
    return len(shape) == 3 and 0 < shape[0] <= FEW_CHANNELS and min(shape[1:]) >= SMALL_SIDE


def fitting(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image, or an error if a transform was drawn for another height and width."""
    if image.shape[:2] != size:
        raise ValueError(
            f"the transform was drawn for images and masks of height {size[0]} and width {size[1]}, got an array of "
            f"shape {image.shape}"
        )
    return image


def corners(boxes: np.ndarray) -> np.ndarray:
    """The corners of boxes (n, 4), four after each other: (4 n, 2).

    >>> corners(np.array([[1.0, 2.0, 3.0, 4.0]])).tolist()
    [[1.0, 2.0], [3.0, 2.0], [3.0, 4.0], [1.0, 4.0]]
    """
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be an array of shape (n, 4): x1 y1 x2 y2, got shape {boxes.shape}")
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)


def bounding(points: np.ndarray) -> np.ndarray:
    """The boxes (n, 4) that hold four points each: (4 n, 2)."""
    four = points.reshape(-1, 4, 2)
    return np.concatenate([four.min(1), four.max(1)], 1)


def as_points(coords: np.ndarray) -> np.ndarray:
    """Coordinates as floats, (n, 2), or an error; float32 stays float32.

    >>> as_points(np.array([[1, 2]])).dtype
    dtype('float64')
    """
    points = np.asarray(coords)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"coords must be an array of shape (n, 2): x then y, got shape {points.shape}")
    return points if points.dtype.kind == "f" else points.astype(np.float64)


def _python_number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _as_in_call(value: Any) -> str:
    """A value as it was written in the call."""
    if isinstance(value, Augmentor):
        return repr(value)
    if isinstance(value, (list, tuple)) and any(isinstance(one, Augmentor) for one in value):
        return f"[{', '.join(map(_as_in_call, value))}]"
    return repr(value) if isinstance(value, (tuple, list)) and not any(map(callable, value)) else as_written(value)
