"""Images as models want batches of them: float32, normalized, channels first; in one pass into the batch's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from flowfn.datapoints import buffers
from flowfn.datapoints.collating import shapes_of
from flowfn.datapoints.subclasses import carries
from flowfn.image.pixels import check_pixels
from flowfn.image.transforms import image_size
from flowfn.rules import Rule, check_fields, is_number, one_of
from flowfn.showing import as_called, brief


def _channel_numbers(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _are_numbers(value: Any) -> bool:
    return bool(_channel_numbers(value)) and all(map(is_number, _channel_numbers(value)))


_MEAN = Rule(
    "a number of pixels in 0 to 255, or one for each channel",
    _are_numbers,
    lambda value, others: bool(np.isfinite(_channel_numbers(value)).all()),
)
_DEVIATION = Rule(
    "a number >= 1 of pixels in 0 to 255, or one for each channel",
    _are_numbers,
    lambda value, others: 1 <= min(_channel_numbers(value)) and max(_channel_numbers(value)) < np.inf,
    hint="; multiply mean and std of pixels in 0 to 1 by 255",
)


@dataclass(frozen=True, repr=False)
class normalize:
    """Collate images into one float32 array of (x - mean) / std, by default with their channels first.

    `mean` and `std` are those of pixels in 0 to 255, as `flowfn.datasets` has them: `normalize(*IMAGENET_STATISTICS)`,
    `normalize(*image_statistics(flow))`. Each is a number, or one for each channel. Those of torchvision, which are of
    pixels in 0 to 1, are to be multiplied by 255; `normalize(0, 255)` only makes pixels 0 to 1. To tell the two apart,
    a `std` below 1 is refused.

    Images are uint8 or float32 (0 to 255 too), (height, width, channels) or (height, width), which is one channel, all
    of one shape. What comes out is (n, channels, height, width), or with `to="hwc"` (n, height, width, channels), each
    number computed in float64 and rounded once. Every image is written once, straight into the memory of the batch.
    Behind `batch`, `map_component(normalize(...), index)` does it to the images of a batch.

    Raises:
        TypeError: an image is no array of uint8 or float32.
        ValueError: images differ in shape, have another number of channels than `mean` and `std`, or seem to have their
            channels first already.

    >>> import flowfn as ff
    >>> images = [np.full((2, 3, 3), value, np.uint8) for value in (100, 200)]
    >>> batch = next(iter(ff.batch(2, images, collate=normalize((100, 110, 120), 50))))
    >>> batch.shape, batch.dtype, batch[:, :, 0, 0].tolist()
    ((2, 3, 2, 3), dtype('float32'), [[0.0, -0.20000000298023224, -0.4000000059604645], [2.0, 1.7999999523162842, \
1.600000023841858]])
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    _: KW_ONLY
    to: str = "chw"
    by_rows: ClassVar[bool] = True

    @property
    def instead(self) -> str:
        """What to write where this stands in the place of a stage."""
        return f"batch(size, collate={{index: {self}}})"

    def __post_init__(self) -> None:
        for word in ("mean", "std"):
            object.__setattr__(self, word, _plain_number(getattr(self, word)))
        check_fields(self, mean=_MEAN, std=_DEVIATION, to=one_of("chw", "hwc"))
        if isinstance(self.mean, tuple) and isinstance(self.std, tuple) and len(self.mean) != len(self.std):
            counts = f"{len(self.mean)} and {len(self.std)}"
            raise ValueError(f"normalize(): mean and std must be of as many channels, got {counts} numbers")

    def __call__(self, images: Sequence[Any]) -> np.ndarray:
        """The images of a batch, normalized."""
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise TypeError(
                f"normalize(): images must be a list of them, or an array (n, height, width, channels), got "
                f"{brief(images)}; normalize(...)([image])[0] is for one"
            )
        shape = self._shape(images)
        chw, channels = self.to == "chw", shape[2]
        made = buffers.empty((len(images), *((shape[2], *shape[:2]) if chw else shape)), np.float32)
        means, deviations = (np.broadcast_to(np.asarray(value, float), channels) for value in (self.mean, self.std))
        tables = np.ascontiguousarray(((np.arange(256) - means[:, None]) / deviations[:, None]).astype(np.float32))
        for image, place in zip(images, made):
            planes = place if chw else np.moveaxis(place, -1, 0)
            if image.dtype == np.float32:
                _divide(image.reshape(shape), means, deviations, planes)
            elif chw:
                _look_up_planes(image, tables, planes)
            else:
                _look_up(image, tables, place)
        return made

    def __repr__(self) -> str:
        options = {} if self.to == "chw" else {"to": repr(self.to)}
        return as_called("normalize", repr(self.mean), repr(self.std), **options)

    def _shape(self, images: Sequence[Any]) -> tuple[int, int, int]:
        """The shape of all of them, with channels; or an error that says what is none, or differs."""
        for image in images:
            if not isinstance(image, np.ndarray) or carries(type(image)):
                raise TypeError(
                    f"normalize(): an image must be an array (height, width[, channels]), got {brief(image)}; name the "
                    f"component: batch(size, collate={{index: {self}}})"
                )
            check_pixels(self, image)
            image_size(image.shape)
        if len({image.shape for image in images}) > 1:
            raise ValueError(
                f"normalize(): images of a batch must be of one shape, got {shapes_of(images)}; make them equal before "
                "(resize, crop)"
            )
        height, width, channels = (*images[0].shape, 1)[:3]
        for word in ("mean", "std"):
            value = getattr(self, word)
            if isinstance(value, tuple) and len(value) != channels:
                raise ValueError(
                    f"normalize(): {word} must be a number, or one for each of the {channels} channels of an image "
                    f"{images[0].shape}, got {value}"
                )
        return height, width, channels


def _plain_number(value: Any) -> Any:
    """A number, or a tuple of them, of Python's own."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    return tuple(map(_plain_number, value)) if isinstance(value, (list, tuple)) else value


def _look_up_planes(image: np.ndarray, tables: np.ndarray, planes: np.ndarray) -> None:
    """Write what the table of each channel says of its values, plane by plane."""
    for values, table, plane in zip(cv2.split(image) if image.ndim == 3 else [image], tables, planes):
        cv2.LUT(values, table[None], dst=plane)


def _look_up(image: np.ndarray, tables: np.ndarray, place: np.ndarray) -> None:
    """Write what the table of each channel says of its values, pixel by pixel."""
    place = place[..., 0] if place.shape[2] == 1 else place
    cv2.LUT(image.reshape(place.shape), np.ascontiguousarray(tables.T)[None], dst=place)


def _divide(image: np.ndarray, means: np.ndarray, deviations: np.ndarray, planes: np.ndarray) -> None:
    """Write (image - mean) / deviation, rounded once, plane by plane."""
    for channel, plane in enumerate(planes):
        centred = np.subtract(image[..., channel], means[channel], dtype=np.float64)
        np.divide(centred, deviations[channel], out=plane, casting="same_kind")
