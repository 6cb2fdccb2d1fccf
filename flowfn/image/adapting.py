"""What may stand in the place of an augmentor: functions of an image,
and the transforms of albumentations and torchvision.

Those libraries draw and apply in one call. So their transform is a seed, drawn as everything is from a datapoint's own
generator, and a call in which all that belongs to the datapoint goes `together`. Neither library is imported here:
whoever has made one of its objects has imported it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from flowfn.image.correcting import corrected
from flowfn.image.moving import Joint, MovingParts
from flowfn.image.tensors import as_boxes, kinds, knowing
from flowfn.image.transforms import Augmentor, Shape, bounding, corners
from flowfn.process.forks import cached_property
from flowfn.showing import brief
from flowfn.vocabulary.transform import seeded

SEEDS = 1 << 63
_LARGEST_IN_FLOAT32 = 1 << 24  # from here on float32, as which torchvision warps, does not hold every integer
_LARGEST_INT32 = (1 << 31) - 1  # OpenCV takes int64 for int32, and says nothing
_V2 = "torchvision.transforms.v2"


def adapted(value: Any) -> Augmentor | None:
    """The augmentor that a transform of albumentations or torchvision makes,
    told by where its class comes from; else None.

    Raises:
        TypeError: it is the class itself.

    >>> adapted(abs) is None
    True
    """
    kind = value if isinstance(value, type) else type(value)
    homes = [home.__module__ for home in kind.__mro__]
    albumentations = any(home.startswith("albumentations.") for home in homes)
    torchvision = [home for home in homes if home.startswith("torchvision.transforms.")]
    if not callable(value) or not (albumentations or torchvision):
        return None
    if value is kind:
        raise TypeError(f"augment(): {kind.__name__} is a class; write {kind.__name__}(...)")
    return (
        Albumentations(value)
        if albumentations
        else Torchvision(value, any(home.startswith(_V2) for home in torchvision))
    )


@dataclass(frozen=True)
class Foreign(Joint):
    """A call of another library's transform with a seed of its own."""

    augmentor: Albumentations | Torchvision
    seed: int
    image_shape: Shape

    def together(self, parts: MovingParts) -> MovingParts:
        """All of it, transformed by the other library."""
        return self.augmentor.together(self.seed, parts)


@dataclass(frozen=True, repr=False)
class Albumentations(Augmentor):
    """A transform of albumentations 2, or a Compose of them, seeded from a datapoint's generator.

    The library takes images of float32 as 0 to 1. Where its points, boxes and masks stray from their image they are
    `corrected`; examples/other_transforms.md has measured what is left.
    """

    transform: Any

    def __post_init__(self) -> None:
        self.__dict__["_spare"] = {}  # what is not at work just now

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Foreign:
        """A seed for it."""
        return Foreign(self, int(rng.integers(SEEDS)), image_shape)

    def together(self, seed: int, parts: MovingParts) -> MovingParts:
        """What the library makes of a datapoint under a seed. Its objects have a state,
        so each call has one of its own."""
        spare = self.__dict__["_spare"].setdefault((len(parts.images), len(parts.masks)), [])
        try:
            compose = spare.pop()
        except IndexError:
            compose = self._composed(len(parts.images), len(parts.masks))
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        height, width = parts.shape[:2]
        targets: dict[str, Any] = {"image": parts.images[0] if parts.images else np.zeros((height, width, 3), np.uint8)}
        targets |= {f"image{i}": image for i, image in enumerate(parts.images[1:], 1)}
        targets |= {name: _as_carried(mask, self) for name, mask in zip(_masks(len(parts.masks)), parts.masks)}
        if parts.coords is not None:  # x, y, z, angle, scale and which of them it is
            targets["keypoints"] = np.zeros((len(parts.coords), 6), np.float32)
            targets["keypoints"][:, :2] = parts.coords - 0.5
            targets["keypoints"][:, 5] = np.arange(len(parts.coords))
        for name, boxes in (("bboxes", parts.boxes), ("region", parts.region)):
            if boxes is not None:
                targets[name] = np.column_stack([boxes / ([width, height] * 2), np.arange(len(boxes))]).astype(
                    np.float32
                )
        made = compose(**targets)
        spare.append(compose)
        return self._parts(parts, made)

    def _composed(self, images: int, masks: int) -> Any:
        """A copy of the transform that takes so many images and masks,
        and boxes and points in the library's own form."""
        albumentations = import_module("albumentations")
        targets = {f"image{i}": "image" for i in range(1, images)} | dict.fromkeys(_masks(masks)[1:], "mask")
        compose = albumentations.Compose(
            # NoOp takes all that there is, or there would be warnings
            [corrected(self.transform), albumentations.NoOp(p=0)],
            bbox_params=albumentations.BboxParams("albumentations", check_each_transform=False),
            keypoint_params=albumentations.KeypointParams("xy", remove_invisible=False, check_each_transform=False),
            additional_targets={**targets, "region": "bboxes"},
        )
        compose.disable_check_args_private()  # as for one inside another: boxes are not converted, clipped or left out
        return compose

    def _parts(self, parts: MovingParts, made: dict[str, Any]) -> MovingParts:
        """What the library has made, as what was given."""
        height, width = made["image"].shape[:2]
        images = [made["image"], *(made[f"image{i}"] for i in range(1, len(parts.images)))][: len(parts.images)]
        masks = [_as_given(made[name], mask) for name, mask in zip(_masks(len(parts.masks)), parts.masks)]
        coords = boxes = region = kept = None
        if parts.coords is not None:
            points = np.asarray(made["keypoints"]).reshape(-1, 6)
            if points[:, 5].tolist() != list(range(len(parts.coords))):
                raise ValueError(
                    f"augment(): {self!r} takes points away or changes their order, and coords have to stay"
                )
            coords = points[:, :2].astype(parts.coords.dtype) + 0.5
        if parts.boxes is not None:
            rows = np.asarray(made["bboxes"]).reshape(-1, 5)
            kept = rows[:, 4].astype(np.intp)
            boxes = (rows[:, :4] * ([width, height] * 2)).astype(parts.boxes.dtype)
        if parts.region is not None:
            rows = np.asarray(made["region"]).reshape(-1, 5)[:, :4]
            # also where it is reflected
            seen = np.concatenate([rows[:, :2].min(0), rows[:, 2:].max(0)]) if len(rows) else np.zeros(4)
            region = (seen * ([width, height] * 2))[None]
        return MovingParts(images, masks, coords, boxes, region, kept)

    def __reduce__(self) -> Any:
        return type(self), (self.transform,)

    def __repr__(self) -> str:
        return " ".join(brief(self.transform).split())


@dataclass(frozen=True, repr=False)
class Torchvision(Augmentor):
    """A transform of torchvision, seeded from a datapoint's generator: v2 for all of a datapoint,
    the older ones for images.

    v2 is given tensors (`tv_tensors`), the older ones PIL images; what comes out is an array (height, width, channels)
    again. torchvision draws from the global random state: it is put back after each call, and threads take turns. What
    moves with images are tensors of our own `kinds`, which go where the image goes; examples/other_transforms.md has
    measured it.
    """

    transform: Any
    v2: bool = field(default=True, compare=False)

    def __call__(self, image_shape: Shape, rng: np.random.Generator) -> Foreign:
        """A seed for it."""
        return Foreign(self, int(rng.integers(SEEDS)), image_shape)

    def together(self, seed: int, parts: MovingParts) -> MovingParts:
        """What the library makes of a datapoint while its global random state is set from a seed."""
        call = self._as_tensors if self.v2 else self._as_pictures
        return seeded(call)(parts, np.random.Generator(np.random.Philox(key=seed)))

    def _as_pictures(self, parts: MovingParts) -> MovingParts:
        if len(parts.images) != 1 or parts.masks or parts.coords is not None or parts.boxes is not None:
            raise ValueError(
                f"augment(): {self!r} is for one image; take torchvision.transforms.v2 for all that belongs to it"
            )
        (image,) = parts.images
        flat = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        picture = import_module("PIL.Image").fromarray(flat) if flat.dtype == np.uint8 else _tensor(image)
        return MovingParts([_as_array_like(self.transform(picture), image)], [])

    def _as_tensors(self, parts: MovingParts) -> MovingParts:
        torch, tv_tensors = import_module("torch"), import_module("torchvision.tv_tensors")
        height, width = parts.shape[:2]
        ours = kinds()
        images = parts.images or [np.zeros((height, width, 3), np.uint8)]
        canvas: Any = {"canvas_size": (height, width)}
        inputs: dict[str, Any] = {"images": [tv_tensors.Image(_tensor(image)) for image in images]}
        inputs["masks"] = [ours.mask(_tensor(_mask_within(mask, _LARGEST_IN_FLOAT32, self))) for mask in parts.masks]
        if parts.boxes is not None:
            boxes = torch.from_numpy(np.array(parts.boxes))
            inputs["boxes"] = ours.boxes(boxes, format="XYXY", clamping_mode=None, **canvas)
            inputs["labels"] = torch.arange(len(boxes))
        if parts.coords is not None:
            inputs["coords"] = ours.points(torch.from_numpy(np.array(parts.coords)), **canvas)
        if parts.region is not None:
            inputs["region"] = ours.points(torch.from_numpy(corners(parts.region)), **canvas)
        made = self._knowing(inputs)
        coords = made["coords"].numpy() if parts.coords is not None else None
        region = bounding(made["region"].numpy()) if parts.region is not None else None
        images = [_as_array_like(one, image) for one, image in zip(made["images"], parts.images)]
        masks = [_as_array_like(one, mask) for one, mask in zip(made["masks"], parts.masks)]
        if parts.boxes is None:
            return MovingParts(images, masks, coords, None, region)
        return MovingParts(images, masks, coords, as_boxes(made["boxes"]), region, made["labels"].numpy())

    @cached_property
    def _knowing(self) -> Any:
        return knowing(self.transform)

    def __reduce__(self) -> Any:
        return type(self), (self.transform, self.v2)

    def __repr__(self) -> str:
        return " ".join(brief(self.transform).split())


def _masks(count: int) -> list[str]:
    """What masks are called; some transforms look at the first under its own name."""
    return ["mask", *(f"mask{i}" for i in range(1, count))][:count]


def _mask_within(mask: np.ndarray, largest: int, transform: Augmentor) -> np.ndarray:
    """A mask, or an error if it has labels that the library would change into others."""
    if (
        mask.dtype.kind in "iu"
        and mask.dtype.itemsize >= 4
        and mask.size
        and not -largest <= mask.min() <= mask.max() <= largest
    ):
        raise ValueError(
            f"augment(): a mask must have labels from -{largest} to {largest}, since {transform!r} may change others, "
            f"got {mask.min()} to {mask.max()}; number them anew: labels, mask = np.unique(mask, return_inverse=True)"
        )
    return mask


def _as_carried(mask: np.ndarray, transform: Augmentor) -> np.ndarray:
    """A mask in a dtype that OpenCV warps."""
    if mask.dtype.kind in "iu" and mask.dtype.itemsize >= 4:
        return _mask_within(mask, _LARGEST_INT32, transform).astype(np.int32, copy=False)
    return mask.astype(np.uint8) if mask.dtype == bool else mask


def _as_given(made: Any, mask: np.ndarray) -> Any:
    """What has become of a mask, in its own dtype again unless that was the purpose."""
    carried = np.uint8 if mask.dtype == bool else np.int32
    return (
        made.astype(mask.dtype, copy=False)
        if mask.dtype.kind in "iub" and getattr(made, "dtype", None) == carried
        else made
    )


def _tensor(image: np.ndarray) -> Any:
    """An image as a tensor, channels first, without a copy where that can be."""
    if not image.flags.writeable or any(stride < 0 for stride in image.strides):
        image = image.copy()
    return import_module("torch").from_numpy(image if image.ndim == 2 else image.transpose(2, 0, 1))


def _as_array_like(made: Any, image: np.ndarray) -> np.ndarray:
    """What torchvision made of an image (a tensor or a PIL image), as an array with as many axes as it had."""
    array = made.numpy().transpose(1, 2, 0) if hasattr(made, "numpy") and made.ndim == 3 else np.asarray(made)
    if image.ndim == 2 and array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    elif image.ndim == 3 and array.ndim == 2:
        array = array[:, :, None]
    return np.ascontiguousarray(array)
