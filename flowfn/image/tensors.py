"""Points, boxes and masks for torchvision.transforms.v2 that go where their image goes.

torchvision finds what to do with a tensor by its class, and lets others add classes. Its own keypoints are centres of
pixels where it flips, and corners everywhere else; with `expand=True` points and boxes are moved by a rounded size;
where it is elastic they are moved as the pixel is that they are in; and masks are resized to the pixel above and left
of the one that is there. Only what is imported already is imported here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from flowfn.image.inverting import inverted
from flowfn.image.transforms import bounding, corners


@dataclass(frozen=True)
class Kinds:
    """The classes of tensors: the points of this package, boxes x1 y1 x2 y2, and masks of labels."""

    points: Any
    boxes: Any
    mask: Any


@cache
def kinds() -> Kinds:
    """The classes, made and told to torchvision once."""
    theirs, functional = import_module("torchvision.tv_tensors"), import_module("torchvision.transforms.v2.functional")
    points: Any = type("Points", (theirs.KeyPoints,), {})
    boxes: Any = type("Boxes", (theirs.BoundingBoxes,), {})
    mask: Any = type("Labels", (theirs.Mask,), {})
    functional.register_kernel("horizontal_flip", points)(_flipped)
    functional.register_kernel("vertical_flip", points)(_flipped_vertically)
    kernels: dict[str, Any] = {"rotate": _rotated, "elastic": _deformed}
    for function, kernel in kernels.items():
        functional.register_kernel(function, points)(kernel)
        functional.register_kernel(function, boxes)(_by_corners(kernel))
    functional.register_kernel("resize", mask)(_resized)
    functional.register_kernel("resized_crop", mask)(_resized_crop)
    return Kinds(points, boxes, mask)


def knowing(transform: Any) -> Any:
    """A transform for which what it says of torchvision's keypoints, boxes and masks,
    by class, is said of these too."""
    theirs, ours = import_module("torchvision.tv_tensors"), kinds()
    return _knowing(
        transform, {theirs.KeyPoints: ours.points, theirs.BoundingBoxes: ours.boxes, theirs.Mask: ours.mask}
    )


def as_boxes(boxes: Any) -> np.ndarray:
    """Boxes as they come out, whatever the format: an array x1 y1 x2 y2."""
    functional = import_module("torchvision.transforms.v2.functional")
    as_corners = functional.convert_bounding_box_format(boxes, new_format="XYXY") if hasattr(boxes, "format") else boxes
    return np.asarray(as_corners)


def _knowing(value: Any, kinds: dict[Any, Any]) -> Any:
    """A copy, however deep, in which dictionaries have our kinds beside theirs."""
    if isinstance(value, dict):
        inside = {key: _knowing(one, kinds) for key, one in value.items()}
        return (
            inside
            | {ours: inside[theirs] for theirs, ours in kinds.items() if theirs in inside}
            | _unsaid(inside, kinds)
        )
    if type(value) in (list, tuple):
        return type(value)(_knowing(one, kinds) for one in value)
    if isinstance(value, import_module("torch").nn.Module):
        made = copy.copy(value)
        vars(made).update(_knowing(dict(vars(value)), kinds))
        return made
    return value


def _unsaid(said: dict[Any, Any], kinds: dict[Any, Any]) -> dict[Any, Any]:
    """Points are there whenever boxes are, so nothing is done with them where nothing is said of them."""
    theirs = import_module("torchvision.tv_tensors")
    by_class = any(isinstance(key, type) and issubclass(key, theirs.TVTensor) for key in said)
    return {kinds[theirs.KeyPoints]: None} if by_class and not {"others", theirs.KeyPoints} & said.keys() else {}


# Points, and the corners of boxes


def _flipped(points: Any, axis: int = 0) -> Any:
    plain = _as_plain_tensor(points).clone()
    plain[..., axis] = points.canvas_size[1 - axis] - plain[..., axis]
    return _rewrapped(points, plain)


def _flipped_vertically(points: Any) -> Any:
    return _flipped(points, 1)


def _rotated(points: Any, angle: float, expand: bool = False, center: Any = None, **options: Any) -> Any:
    """Turned as in an image that is not made larger, whose centre then becomes that of the one that is."""
    functional = import_module("torchvision.transforms.v2.functional")
    size = points.canvas_size
    plain, _ = functional.rotate_keypoints(_as_plain_tensor(points), size, angle, center=center)
    larger = _size_after(functional.rotate, size, angle=angle, expand=expand, center=center)
    return _rewrapped(
        points, plain + import_module("torch").tensor([(larger[1] - size[1]) / 2, (larger[0] - size[0]) / 2]), larger
    )


def _deformed(points: Any, displacement: Any, **options: Any) -> Any:
    """Where the image looks up its pixels displaced, by shares of half its sides."""
    height, width = points.canvas_size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    across, down = np.moveaxis(displacement[0].numpy().astype(np.float64), -1, 0)
    found = (
        inverted(_as_plain_tensor(points).numpy() - 0.5, columns + across * width / 2, rows + down * height / 2) + 0.5
    )
    return _rewrapped(points, import_module("torch").from_numpy(found).to(points.dtype))


def _by_corners(kernel: Any) -> Any:
    """What holds the corners, wherever they go."""

    def moved(boxes: Any, *arguments: Any, **options: Any) -> Any:
        torch, functional = import_module("torch"), import_module("torchvision.transforms.v2.functional")
        plain = np.asarray(_as_plain_tensor(functional.convert_bounding_box_format(boxes, new_format="XYXY")))
        points = kinds().points(torch.from_numpy(corners(plain)), canvas_size=boxes.canvas_size)
        there = kernel(points, *arguments, **options)
        made = torch.from_numpy(bounding(_as_plain_tensor(there).numpy())).to(boxes.dtype)
        as_corners = import_module("torchvision.tv_tensors").wrap(
            made, like=boxes, format="XYXY", canvas_size=there.canvas_size
        )
        return functional.convert_bounding_box_format(as_corners, new_format=boxes.format)

    return moved


# Masks


def _resized(mask: Any, size: Any, interpolation: Any = "bilinear", max_size: Any = None, **options: Any) -> Any:
    """Each pixel is the one that is at its centre, whatever the dtype;
    if the image is given the one above and left, the mask is too."""
    functional, torch = import_module("torchvision.transforms.v2.functional"), import_module("torch")
    height, width = mask.shape[-2:]
    larger = _size_after(functional.resize, (height, width), size=size, max_size=max_size)
    at = 0.0 if getattr(interpolation, "value", interpolation) in ("nearest", 0) else 0.5
    rows, columns = (((torch.arange(new) + at) * old / new).long() for old, new in zip((height, width), larger))
    return _rewrapped(mask, _as_plain_tensor(mask)[..., rows[:, None], columns])


def _resized_crop(mask: Any, top: int, left: int, height: int, width: int, size: Any, **options: Any) -> Any:
    crop = import_module("torchvision.transforms.v2.functional").crop
    return _resized(crop(mask, top, left, height, width), size, **options)


def _size_after(function: Any, before: tuple[int, int], **options: Any) -> tuple[int, int]:
    """The size of what becomes of an image of a size; nothing is computed for that."""
    height, width = function(import_module("torch").empty(1, *before, device="meta"), **options).shape[-2:]
    return height, width


def _as_plain_tensor(tensor: Any) -> Any:
    return tensor.as_subclass(import_module("torch").Tensor)


def _rewrapped(original: Any, plain: Any, canvas_size: Any = None) -> Any:
    options = {} if canvas_size is None else {"canvas_size": canvas_size}
    return import_module("torchvision.tv_tensors").wrap(plain, like=original, **options)
