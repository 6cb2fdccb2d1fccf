"""`augment`: augmentors applied to datapoints, in which image, masks, coordinates and boxes stay together."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datapoints.components import component, replaced
from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.flows.stages import ComposedStages, stage
from flowfn.image import arguments
from flowfn.image.adapting import adapted
from flowfn.image.box_formats import FORMAT, checked_boxes, converted
from flowfn.image.composing import as_augmentor
from flowfn.image.moving import MovingParts
from flowfn.image.transforms import Augmentor, channels_first
from flowfn.process.forks import cached_property
from flowfn.showing import brief


class _Augmentors(rules.Rule):
    """A list of what may stand as an augmentor, or one; the argument becomes a list of augmentors."""

    __slots__ = ()

    def check(self, function: str, name: str, value: Any, others: Mapping[str, Any]) -> list[Augmentor]:
        """As augmentors, or an error that says what is none."""
        if isinstance(value, (Stage, ComposedStages, Flow)):
            raise TypeError(
                f"{function}(): {name} must be {self.requirement}, got "
                f"{'flow' if isinstance(value, Flow) else 'stage'} {value}"
            )
        return [
            _as_augmentor(one) for one in (value if isinstance(value, (list, tuple)) else [value]) if one is not None
        ]


class _Index(rules.Rule):
    """The names of components, which have to agree with each other."""

    __slots__ = ()

    def check(self, function: str, name: str, value: Any, others: Mapping[str, Any]) -> Any:
        """The index as it is, or an error that says what does not fit together."""
        value = rules.Rule.check(self, function, name, value, others)
        problem = Named(
            **{word: others[word] for word in ("image", "mask", "coords", "boxes", "labels", "boxes_format")},
            index=value,
        ).problem()
        if problem:
            raise ValueError(f"{function}(): {problem}")
        return value


_AUGMENTORS = _Augmentors(
    "a list of augmentors, transforms of albumentations or torchvision, or functions of an image", callable
)
_NAME = rules.Rule(
    "a component's position or key, a tuple of them, or None",
    lambda value: value is None or isinstance(value, Hashable),
)
_IMAGE_INDEX = _Index(
    _NAME.requirement,
    lambda value: (
        not isinstance(value, Flow)
        and (value is None or rules.is_integer(value) or isinstance(value, (str, bytes, tuple)))
    ),
    hint="; to give a source too, write augment(augmentors, source=...), or augment(augmentors, index, source)",
)
_RULES = {
    "augmentors": _AUGMENTORS,
    **dict.fromkeys(("image", "mask", "coords", "boxes", "labels"), _NAME),
    "index": _IMAGE_INDEX,
    "min_visible": arguments.share,
    "channels": rules.one_of(None, "last", "first"),
    "boxes_format": FORMAT,
}


@stage.each(where=_RULES)
def augment(
    augmentors: Any,
    index: Any = None,
    source: Any = None,
    *,
    image: Any = None,
    mask: Any = None,
    coords: Any = None,
    boxes: Any = None,
    labels: Any = None,
    min_visible: float = 0.0,
    channels: str | None = None,
    boxes_format: str = "xyxy",
    rngs: Any,
) -> Iterator[Any]:
    """Augment images, and alike all that belongs to them.

    `augment(augmentors)` augments datapoints that are images, `augment(augmentors, index)` the image that is component
    `index` of each (a position, or a key of a dict). `image`, `mask`, `coords`, `boxes` and `labels` name components of
    a datapoint, each one or a tuple of several; all are transformed alike, and images and masks have to be of one
    height and width. The datapoint keeps its form, and nothing of what comes in is changed.

    Args:
        augmentors: a list, applied in order; each sees the shape that comes out of those before it. Augmentors of
            `flowfn.image`, transforms of albumentations and torchvision (v2; older ones for images only), and functions
            of an image. None is skipped, so `flip(horizontal=True) if train else None` reads well. How exactly points,
            boxes and masks go with the image in each of the other libraries' transforms is measured in
            examples/other_transforms.md.
        index: the image; short for `image=index`.
        image: images, arrays (height, width) or (height, width, channels), in RGB order.
        mask: masks of labels (`read_mask` reads them): they are moved as the image is, by nearest neighbour,
            and their colours are left alone.
        coords: points, (n, 2), x then y, in pixels from the image's top left corner. They stay,
        also where they leave the image.
        boxes: boxes, (n, 4), x1 y1 x2 y2, likewise. They are clipped to what can still be seen of the image. Those of
            which less than `min_visible` of their area (0 to 1), or nothing, is left are taken out. Floats come out.
        boxes_format: how boxes are written, where not so: "xywh" (COCO), "cxcywh", or in shares of the image's width
            and height "rel_xyxy", "rel_xywh", "rel_cxcywh" (YOLO); see `convert_boxes`. They come out so, too, in
            shares of the image that comes out.
        labels: what belongs to the boxes one by one (arrays, lists or tuples of n): it is taken out with them.
        channels: "first" for images and masks that are (channels, height, width), as torch has them; they come out so.
            "last" for (height, width, channels). Left out, it is "last", and what looks like the other, (3, 224, 224),
            is refused.

    What an augmentor draws comes from the datapoint's own generator: it is the same with any number of workers and
    shards, and for `flow[i]`, and another in every epoch.

    Raises:
        TypeError, ValueError: a component is no image, mask, points or boxes; sizes disagree; a function of an image
            changes its height or width, so that it is not known where other components have gone; an image seems to be
            (channels, height, width), and `channels` does not say.

    >>> import flowfn as ff
    >>> from flowfn.image import flip
    >>> picture, points = np.arange(6, dtype=np.uint8).reshape(1, 6), np.array([[0.5, 0.5]])
    >>> mirror = flip(horizontal=True, probability=1)
    >>> ff.pipe([[picture, "label"]], augment([mirror], 0))[0]
    [array([[5, 4, 3, 2, 1, 0]], dtype=uint8), 'label']
    >>> together = augment([mirror], image="picture", coords="points")
    >>> ff.pipe([{"picture": picture, "points": points}], together)[0]["points"]
    array([[5.5, 0.5]])
    """
    named = Named(index, image, mask, coords, boxes, labels, channels, boxes_format)
    if named.nothing:
        for datapoint, rng in zip(source, rngs):
            parts = MovingParts([_picture(datapoint, channels)], [])
            for augmentor in augmentors:
                parts.apply(augmentor(parts.shape, rng))
            yield _turned_back(parts.images[0], channels)
    else:
        for datapoint, rng in zip(source, rngs):
            parts = named.parts_of(datapoint)
            for augmentor in augmentors:
                parts.apply(augmentor(parts.shape, rng))
            yield named.returned(datapoint, parts, min_visible)


def _as_augmentor(value: Any) -> Augmentor:
    if isinstance(value, (Stage, ComposedStages)):
        raise TypeError(f"augment(): augmentors must not be stages, got {value}; put it beside augment in the pipe")
    return adapted(value) or as_augmentor(value, "augment")


@dataclass(frozen=True)
class Named:
    """Which components are what."""

    index: Any = None
    image: Any = None
    mask: Any = None
    coords: Any = None
    boxes: Any = None
    labels: Any = None
    channels: str | None = None
    boxes_format: str = "xyxy"

    @cached_property
    def nothing(self) -> bool:
        """Whether no component is named: the datapoint is the image."""
        return not (self.images or self.masks)

    @cached_property
    def images(self) -> tuple[Any, ...]:
        """The names of images."""
        return _several(self.index) + _several(self.image)

    @cached_property
    def masks(self) -> tuple[Any, ...]:
        """The names of masks."""
        return _several(self.mask)

    @cached_property
    def points(self) -> tuple[Any, ...]:
        """The names of coordinates."""
        return _several(self.coords)

    @cached_property
    def rectangles(self) -> tuple[Any, ...]:
        """The names of boxes."""
        return _several(self.boxes)

    @cached_property
    def beside(self) -> tuple[Any, ...]:
        """The names of what belongs to boxes one by one."""
        return _several(self.labels)

    def problem(self) -> str:
        """What does not fit together, in words."""
        names = [*self.images, *self.masks, *self.points, *self.rectangles, *self.beside]
        twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
        if self.index is not None and self.image is not None:
            return (
                f"index and image both say which component is the image, got index={self.index!r} and "
                f"image={self.image!r}; leave one out"
            )
        if twice is not None:
            return f"component {twice!r} is named twice"
        if names and self.nothing:
            return "coords and boxes belong to an image: name it, or its mask, too (image=, mask=)"
        if self.boxes_format != "xyxy" and not self.rectangles:
            return (
                f"boxes_format={self.boxes_format!r} says how boxes are written, but none are named; name them: boxes="
            )
        if self.beside and len(self.rectangles) != 1:
            return f"labels belong to the boxes of one component, got boxes={self.boxes!r}; name it"
        return ""

    def parts_of(self, datapoint: Any) -> MovingParts:
        """What is to be augmented, out of a datapoint."""
        parts = MovingParts(
            [_picture(component(datapoint, name), self.channels, "image", name) for name in self.images],
            [_picture(component(datapoint, name), self.channels, "mask", name) for name in self.masks],
        )
        sizes = {one.shape[:2] for one in (*parts.images, *parts.masks)}
        if len(sizes) > 1:
            raise ValueError(
                f"augment(): images and masks of a datapoint must be of one height and width, got {sorted(sizes)}"
            )
        if self.points:
            parts.coords = _in_one_array([_points(component(datapoint, name), name) for name in self.points])
        if self.rectangles:
            parts.boxes = _in_one_array(
                [self._corners(component(datapoint, name), name, parts.shape) for name in self.rectangles]
            )
            parts.follow_boxes()
        return parts

    def returned(self, datapoint: Any, parts: MovingParts, min_visible: float) -> Any:
        """A copy of the datapoint with what has been made of it."""
        pictures = zip((*self.images, *self.masks), (*parts.images, *parts.masks))
        made: dict[Any, Any] = {name: _turned_back(picture, self.channels) for name, picture in pictures}
        start = 0
        for name in self.points:
            count = len(component(datapoint, name))
            made[name], start = parts.coords[start : start + count], start + count  # type: ignore[index]
        start = 0
        if self.rectangles:
            boxes, kept = parts.visible_boxes(min_visible)
            boxes = boxes if self.boxes_format == "xyxy" else converted(boxes, "xyxy", self.boxes_format, parts.shape)
        for name in self.rectangles:
            count = len(component(datapoint, name))
            made[name] = boxes[(kept >= start) & (kept < start + count)]
            for beside in self.beside:
                made[beside] = _kept_labels(component(datapoint, beside), kept, count, beside)
            start += count
        for name, value in made.items():
            datapoint = replaced(datapoint, name, value)
        return datapoint

    def _corners(self, value: Any, name: Any, shape: Sequence[int]) -> np.ndarray:
        """Boxes as x1 y1 x2 y2 in pixels of an image of a shape."""
        hint = "; boxes_format= says in which other way they are written" if self.boxes_format == "xyxy" else ""
        boxes = checked_boxes(value, self.boxes_format, f"augment(): boxes (component {name!r})", hint)
        return boxes if self.boxes_format == "xyxy" else converted(boxes, self.boxes_format, "xyxy", shape)


def _several(names: Any) -> tuple[Any, ...]:
    return names if isinstance(names, tuple) else () if names is None else (names,)


def _picture(value: Any, channels: str | None, what: str = "image", name: Any = None) -> np.ndarray:
    """An image or a mask, if it is one, with its channels last."""
    if isinstance(value, np.ndarray) and value.ndim in (2, 3):
        if channels is None and channels_first(value.shape):
            where = "a datapoint" if name is None else f"{what} (component {name!r})"
            raise ValueError(
                f"augment(): {where} must be (height, width[, channels]), but {brief(value)} looks like (channels, "
                "height, width); "
                'write augment(..., channels="first") if it is, and channels="last" if not'
            )
        return np.ascontiguousarray(np.moveaxis(value, 0, -1)) if channels == "first" and value.ndim == 3 else value
    if name is None:
        hint = "; name the component: augment(augmentors, index)" if isinstance(value, (list, tuple, Mapping)) else ""
        raise TypeError(
            f"augment(): a datapoint must be an image, an array (height, width[, channels]), got {brief(value)}{hint}"
        )
    hint = (
        f"; decode it before: map_component(read_image, {name!r})"
        if isinstance(value, (str, bytes, os.PathLike))
        else ""
    )
    raise TypeError(
        f"augment(): {what} (component {name!r}) must be an array (height, width[, channels]), got {brief(value)}{hint}"
    )


def _turned_back(picture: np.ndarray, channels: str | None) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(picture, -1, 0)) if channels == "first" and picture.ndim == 3 else picture


def _points(value: Any, name: Any) -> np.ndarray:
    """Points as floats; a list of none has two columns, too."""
    rows = np.asarray(value)
    if not rows.size and rows.ndim == 1:
        rows = np.zeros((0, 2))
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "biuf":
        raise ValueError(f"augment(): coords (component {name!r}) must be numbers of shape (n, 2), got {brief(value)}")
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def _in_one_array(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def _kept_labels(labels: Any, kept: np.ndarray, count: int, name: Any) -> Any:
    """The labels of the boxes that are kept, in the form in which labels come."""
    listed, shape = isinstance(labels, (list, tuple)), tuple(getattr(labels, "shape", ()))
    if (len(labels) if listed else shape[0] if shape else None) != count:
        required = f"a list, tuple or array, one for each of the {count} boxes"
        raise ValueError(f"augment(): labels (component {name!r}) must be {required}, got {brief(labels)}")
    return type(labels)(labels[index] for index in kept.tolist()) if listed else labels[kept]
