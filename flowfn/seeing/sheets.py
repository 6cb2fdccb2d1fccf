"""A contact sheet: the images of many datapoints in one picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flowfn.extras import needed
from flowfn.seeing.cells import COMPONENTS, shown_parts
from flowfn.seeing.pictures import SIDE, images_in, shrunk

MOST, ACROSS, GAP = 64, 8, 4
"""How many images there are on it, how many of them beside each other, and how many pixels between them."""


class Sheet:
    """Images, as they are collected."""

    def __init__(self) -> None:
        self.cv2: Any = needed("cv2", "describe(sheet=)", extra="image")
        self.images: list[np.ndarray] = []

    def add(self, datapoint: Any) -> None:
        """Take the first image of a datapoint; of a batch, the first few."""
        if len(self.images) < MOST:
            self.images += [shrunk(self.cv2, image) for image in next(_images_in(datapoint, 0), [])]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file, the format of which its name says.

        Raises:
            ValueError: there are none; or OpenCV knows no such format.
        """
        if not self.images:
            raise ValueError("describe(): there is no image in these datapoints to put on the sheet")
        images, cell = self.images[:MOST], SIDE + GAP
        across = min(ACROSS, len(images))
        sheet = np.full((-(-len(images) // across) * cell + GAP, across * cell + GAP, 3), 255, np.uint8)
        for number, image in enumerate(images):
            height, width = image.shape[:2]
            y = number // across * cell + GAP + (SIDE - height) // 2
            x = number % across * cell + GAP + (SIDE - width) // 2
            sheet[y : y + height, x : x + width] = image[..., None] if image.ndim == 2 else image[..., :3]
        try:
            done, data = self.cv2.imencode(Path(path).suffix, sheet[..., ::-1])
        except self.cv2.error:
            done = False
        if not done:
            raise ValueError(f"describe(): sheet must end in .png or .jpg, got {str(path)!r}")
        Path(path).write_bytes(data.tobytes())


def _images_in(value: Any, depth: int) -> Iterator[list[np.ndarray]]:
    """The images in a value, those of each array together."""
    if getattr(value, "shape", ()):
        try:
            found, _ = images_in(np.asarray(value))
        except Exception:  # on a device, perhaps
            return
        if found:
            yield found
        return
    for _, (_, part) in zip(range(COMPONENTS), shown_parts(value, depth)):
        yield from _images_in(part, depth + 1)
