"""How fast do uint8 images become the batch that a model takes: float32, normalized, channels first?

128 images of 224x224x3 (19 MB) become 77 MB. The yardsticks: the two steps of NumPy that everybody writes (stack, then
subtract and divide, and turn the channels to the front), the same with the fewest passes over memory that NumPy allows,
torchvision's ToTensor and Normalize with torch.stack, and a copy of as many bytes into memory that was written before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import cv2
import numpy as np
import peers
from measuring import Contestant, Finding, fastest, ratio, report

import flowfn as ff
from flowfn.datasets import IMAGENET_STATISTICS
from flowfn.image import normalize

IMAGES = 128
BATCHES = 4
MEAN, STD = (np.array(one, np.float32) for one in IMAGENET_STATISTICS)


def two_steps(images: list[np.ndarray]) -> np.ndarray:
    """As it is written."""
    return np.ascontiguousarray(channels_last(images).transpose(0, 3, 1, 2))


def channels_last(images: list[np.ndarray]) -> np.ndarray:
    """The same, with the channels left where they are."""
    return (np.stack(images).astype(np.float32) - MEAN) / STD


def planes(images: list[np.ndarray]) -> np.ndarray:
    """As NumPy likes it: the channels first, each by itself, in place."""
    batch = np.stack(images)
    made = np.empty((len(batch), 3, *batch.shape[1:3]), np.float32)
    for channel in range(3):
        np.subtract(batch[..., channel], MEAN[channel], out=made[:, channel], dtype=np.float32)
        np.divide(made[:, channel], STD[channel], out=made[:, channel])
    return made


def of_torchvision(images: list[np.ndarray]) -> Callable[[], Any] | None:
    """ToTensor, Normalize and stack, if they are installed."""
    torch = peers.torch()
    try:
        from torchvision.transforms import Compose, Normalize, ToTensor
    except ImportError:
        return None
    shares = [[float(number) / 255 for number in one] for one in IMAGENET_STATISTICS]
    transform = Compose([ToTensor(), Normalize(*shares)])
    return lambda: torch.stack([transform(image) for image in images])


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    cv2.setNumThreads(1)
    images = list(np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), np.uint8))
    source = np.zeros((IMAGES, 3, 224, 224), np.float32)
    target = source.copy()
    theirs = of_torchvision(images)
    calls: dict[str, Callable[[], Any] | None] = {
        "numpy, two steps": partial(two_steps, images),
        "numpy, channels last": partial(channels_last, images),
        "numpy, plane by plane": partial(planes, images),
        "torchvision": theirs,
        "memory copy": partial(np.copyto, target, source),
    }
    batches: dict[str, Any] = {
        "flowfn": ff.pipe(images * BATCHES, ff.batch(IMAGES, collate=normalize(*IMAGENET_STATISTICS))),
        "flowfn, hwc": ff.pipe(images * BATCHES, ff.batch(IMAGES, collate=normalize(*IMAGENET_STATISTICS, to="hwc"))),
    }
    np.testing.assert_allclose(next(iter(batches["flowfn"])), two_steps(images), rtol=1e-4, atol=1e-5)
    contestants = {name: Contestant(partial(deque, made, 1), BATCHES) for name, made in batches.items()}
    contestants |= {
        name: Contestant(lambda call=call: deque((call() for _ in repeat(None, BATCHES)), 1), BATCHES)
        for name, call in calls.items()
        if call is not None
    }
    times = fastest(contestants, 1 if quick else 10)
    question = "a normalized batch of 77 MB: times as fast as"
    return [
        ratio(f"{question} numpy in two steps", times, "numpy, two steps", "flowfn", unit="ms", target=">= 3"),
        ratio(f"{question} numpy plane by plane", times, "numpy, plane by plane", "flowfn", unit="ms"),
        ratio(f"{question} torchvision", times, "torchvision", "flowfn", unit="ms"),
        ratio(f"{question} a memory copy", times, "memory copy", "flowfn", unit="ms"),
        ratio(f"{question} numpy, channels last both", times, "numpy, channels last", "flowfn, hwc", unit="ms"),
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
