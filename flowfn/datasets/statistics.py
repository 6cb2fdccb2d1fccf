"""Mean and standard deviation of images: those published for a dataset, and those of any flow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.datapoints.components import component
from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow as flow_over


class Statistics(NamedTuple):
    """Mean and standard deviation of pixels in 0..255: numbers, one for each channel (RGB),
    or arrays of an image's shape."""

    mean: Any
    std: Any


IMAGENET_STATISTICS = Statistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Mean and standard deviation of each channel (RGB) of ILSVRC12's training images, in 0..255,
as everybody uses them."""


@rules.checked(per=rules.one_of("channel", "pixel"))
def image_statistics(flow: Any, index: Any = 0, *, per: str = "channel") -> Statistics:
    """Compute the mean and the standard deviation of the images of a flow, in one pass over it.

    `index` is the component that is the image. With `per="channel"` there is one number for each channel (images may
    have any sizes), with `per="pixel"` one for each place in images that have all the same shape: the mean image. Both
    are float64 arrays; sums of integers are exact. The flow is not advanced.

    Raises:
        ValueError: there are no images, or their shapes do not agree.

    >>> images = [[np.array([[0, 4]], np.uint8), 1], [np.array([[2, 6]], np.uint8), 0]]
    >>> image_statistics(images)
    Statistics(mean=array(3.), std=array(2.23606798))
    >>> image_statistics(images, per="pixel").mean
    array([[1., 5.]])
    """
    source: Flow[Any] = flow_over(flow, "image_statistics")
    sums = _Sums(per == "pixel")
    for number, datapoint in enumerate(source.run()):
        sums.add(np.asarray(component(datapoint, index)), number)
    if sums.shape is None:
        raise ValueError("image_statistics(): there are no images in the flow")
    return sums.statistics()


class _Sums:
    """Sums of pixels and of their squares; of floats, those of what is left of the first mean,
    so that nothing cancels."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.shape: tuple[int, ...] | None = None
        self.shift: Any = 0
        self.count, self.first, self.second = 0, 0, 0  # type: int, Any, Any

    def add(self, image: np.ndarray, number: int) -> None:
        """Take in an image."""
        if image.ndim not in (2, 3) or image.dtype.kind not in "biuf" or not image.size:
            raise ValueError(
                f"image_statistics(): the image of datapoint {number} must be numbers in (height, width) or (height, "
                "width, channels), "
                f"got {image.dtype}{image.shape}; index= says which component it is"
            )
        shape = image.shape if self.whole else image.shape[2:]
        if self.shape is None:
            self.shape = shape
            self.shift = image.mean((0, 1), np.float64) if image.dtype.kind == "f" else 0
        elif shape != self.shape:
            what = "shape" if self.whole else "channels"
            raise ValueError(
                f"image_statistics(): images must have the same {what}, but {self.shape} is followed by {shape} at "
                f"{number}"
            )
        pixels = image - self.shift if isinstance(self.shift, (np.ndarray, np.generic)) else image.astype(np.int64)
        axes = () if self.whole else (0, 1)
        self.first = self.first + pixels.sum(axes)
        self.second = self.second + (pixels * pixels).sum(axes)
        self.count += 1 if self.whole else image.shape[0] * image.shape[1]

    def statistics(self) -> Statistics:
        """Mean and standard deviation of all of them."""
        mean = self.first / self.count
        variance = self.second / self.count - mean * mean
        return Statistics(np.asarray(mean + self.shift), np.asarray(np.sqrt(np.maximum(variance, 0))))
