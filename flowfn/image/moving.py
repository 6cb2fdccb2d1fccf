"""What moves with an image, on its way through transforms:
boxes are followed until nothing is left of them to be seen."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flowfn.image.transforms import ChannelsLast, Composed, Identity, Shape, Transform, composed

ROUNDING = 1e-6
"""Which share of a box may be lost to rounding and it still counts as whole."""


@dataclass
class MovingParts:
    """All of a datapoint that moves with its image; `region` is the box (1, 4)
    in which something of the image is to be seen.

    `kept` says of each box which of those that were there at first it is.
    """

    images: list[np.ndarray]
    masks: list[np.ndarray]
    coords: np.ndarray | None = None
    boxes: np.ndarray | None = None
    region: np.ndarray | None = None
    kept: np.ndarray | None = None
    _waiting: list[Transform] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        """The shape of the image, or else of the mask."""
        return ChannelsLast((self.images or self.masks)[0].shape)

    def follow_boxes(self) -> None:
        """Get ready for boxes that leave the image."""
        if self.boxes is not None:
            self.region, self.kept = image_box(self.shape), np.arange(len(self.boxes))

    def apply(self, transform: Transform) -> None:
        """Transform all of it."""
        if isinstance(transform, Composed):
            for one in transform.transforms:
                self.apply(one)
        elif isinstance(transform, Joint):
            self._apply_together(transform)
        elif not isinstance(transform, Identity):
            self._apply(transform)

    def _apply(self, transform: Transform) -> None:
        moved_shape = transform.shape(self.shape)
        self.images = [self._checked(transform.image(image), transform) for image in self.images]
        self.masks = [transform.mask(mask) for mask in self.masks]
        if (
            self.images
            and self.shape[:2] != moved_shape[:2]
            and (self.masks or self.coords is not None or self.boxes is not None)
        ):
            raise ValueError(
                f"augment(): {transform} has made an image of {moved_shape[:2]} one of {self.shape[:2]} (height, "
                "width), so it is not known where masks, coords and boxes have gone; write an augmentor for that, with "
                "a transform that says it"
            )
        if self.coords is not None:
            self.coords = transform.coords(self.coords)
        if (
            self.region is not None
            and type(transform).boxes is Transform.boxes
            and type(transform).coords is Transform.coords
        ):
            return  # nothing moves
        if self.region is not None:
            self._waiting.append(transform)
            self.region = clipped_boxes(transform.boxes(self.region), image_box(moved_shape))

    def _apply_together(self, transform: Joint) -> None:
        boxes, before = self._moved_boxes(), self.kept
        made = transform.together(replace(self, boxes=boxes, _waiting=[]))
        self.images = [self._checked(image, transform) for image in made.images]
        self.masks, self.coords, self.boxes, self._waiting = made.masks, made.coords, made.boxes, []
        if self.region is not None:
            self.region = (
                image_box(self.shape) if made.region is None else clipped_boxes(made.region, image_box(self.shape))
            )
            self.kept = before if made.kept is None or before is None else before[made.kept]

    def _moved_boxes(self) -> np.ndarray | None:
        """The boxes where they are now: in one go, so that they are tight, and not clipped."""
        return composed(self._waiting).boxes(self.boxes) if self._waiting and self.boxes is not None else self.boxes

    def visible_boxes(self, min_visible: float) -> tuple[np.ndarray, np.ndarray]:
        """The boxes of which enough is left, clipped, and which of those at first they are."""
        boxes = self._moved_boxes()
        if boxes is None or self.region is None or self.kept is None:
            raise ValueError("there are no boxes")
        seen = clipped_boxes(boxes, self.region)
        area = _area(seen)
        enough = (area > 0) & (area >= min_visible * (1 - ROUNDING) * _area(boxes))
        return seen[enough], self.kept[enough]

    @staticmethod
    def _checked(image: Any, transform: Transform) -> np.ndarray:
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            got = f"{image.dtype} array {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(
                f"augment(): {transform} must return an image, an array (height, width[, channels]), but returned {got}"
            )
        return image


class Joint(Transform):
    """A transform that has to see all that belongs to a datapoint in one call;
    it knows the shape that it was drawn for."""

    image_shape: Shape

    @abstractmethod
    def together(self, parts: MovingParts) -> MovingParts:
        """All of it, transformed: new parts, boxes not clipped,
        and `kept` the place of each box among those that are given."""

    def image(self, image: np.ndarray) -> np.ndarray:
        """The image."""
        return self.together(MovingParts([image], [])).images[0]

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask, beside a black image."""
        return self.together(MovingParts([self._black()], [mask])).masks[0]

    def coords(self, coords: np.ndarray) -> np.ndarray:
        """The points, on a black image."""
        made = self.together(MovingParts([self._black()], [], coords)).coords
        return coords if made is None else made

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """The boxes, on a black image.

        Raises:
            ValueError: some of them are gone; `augment(boxes=)` deals with that.
        """
        made = self.together(MovingParts([self._black()], [], None, boxes)).boxes
        if made is None or len(made) != len(boxes):
            raise ValueError(f"{self} takes boxes away; augment(augmentors, boxes=, labels=) takes their labels along")
        return made

    def shape(self, image_shape: Shape) -> Shape:
        """The shape of what comes out, which is found out on a black image."""
        return self.image(np.zeros(image_shape, np.uint8)).shape

    def _black(self) -> np.ndarray:
        return np.zeros(self.image_shape, np.uint8)


def image_box(shape: Shape) -> np.ndarray:
    """The box (1, 4) of an image.

    >>> image_box((2, 3, 3)).tolist()
    [[0.0, 0.0, 3.0, 2.0]]
    """
    return np.array([[0.0, 0.0, shape[1], shape[0]]])


def clipped_boxes(boxes: np.ndarray, within: np.ndarray) -> np.ndarray:
    """What of boxes (n, 4) is in a box (1, 4); what is outside has no area.

    >>> clipped_boxes(np.array([[-1.0, 0.0, 1.0, 1.0]]), image_box((2, 3))).tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    left, top, right, bottom = within[0].tolist()
    # np.clip takes twice as long for a few boxes
    seen = np.maximum(boxes, np.array((left, top, left, top), boxes.dtype))
    return np.minimum(seen, np.array((right, bottom, right, bottom), boxes.dtype), out=seen)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
