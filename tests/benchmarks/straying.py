"""How far do points, boxes and masks stray from their image in the transforms of albumentations and torchvision?

One disc after the other, with its middle as a point, a box around it and a mask of it, goes through `augment`. Where
the disc is found again in the image is where all of that should be.

    python tests/benchmarks/straying.py            # prints the table
    python tests/benchmarks/straying.py --write    # writes it into examples/other_transforms.md
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import flowfn as ff
from flowfn.image import augment

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for a newer version
import albumentations as A
from torchvision.transforms import v2

PAGE = Path(__file__).parents[2] / "examples" / "other_transforms.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"
HEIGHT, WIDTH, RADIUS, SPOT = 97, 120, 7.0, 1.5
BILINEAR = v2.InterpolationMode.BILINEAR

TRANSFORMS: list[tuple[str, str, Callable[[], Any]]] = [
    ("A.Affine", "", lambda: A.Affine(scale=(0.8, 1.2), translate_px=(-6, 6), rotate=(-40, 40), shear=(-10, 10), p=1)),
    ("A.Affine", "fit_output=True", lambda: A.Affine(rotate=(-40, 40), fit_output=True, p=1)),
    ("A.AtLeastOneBBoxRandomCrop", "", lambda: A.AtLeastOneBBoxRandomCrop(60, 70, p=1)),
    ("A.BBoxSafeRandomCrop", "", lambda: A.BBoxSafeRandomCrop(p=1)),
    ("A.CenterCrop", "", lambda: A.CenterCrop(81, 100, p=1)),
    ("A.CenterCrop", "pad_if_needed=True", lambda: A.CenterCrop(131, 100, pad_if_needed=True, p=1)),
    ("A.Crop", "", lambda: A.Crop(5, 7, 110, 93, p=1)),
    ("A.CropAndPad", "", lambda: A.CropAndPad(px=(-12, 12), p=1)),
    ("A.CropAndPad", "keep_size=False", lambda: A.CropAndPad(px=(-12, 12), keep_size=False, p=1)),
    ("A.CropNonEmptyMaskIfExists", "", lambda: A.CropNonEmptyMaskIfExists(60, 70, p=1)),
    ("A.D4", "", lambda: A.D4(p=1)),
    ("A.ElasticTransform", "", lambda: A.ElasticTransform(alpha=60, sigma=10, p=1)),
    ("A.GridDistortion", "", lambda: A.GridDistortion(p=1)),
    ("A.GridElasticDeform", "", lambda: A.GridElasticDeform((4, 4), 3, p=1)),
    ("A.HorizontalFlip", "", lambda: A.HorizontalFlip(p=1)),
    ("A.LongestMaxSize", "smaller", lambda: A.LongestMaxSize(61, p=1)),
    ("A.LongestMaxSize", "larger", lambda: A.LongestMaxSize(301, p=1)),
    ("A.OpticalDistortion", "camera", lambda: A.OpticalDistortion((-0.3, 0.3), p=1)),
    ("A.OpticalDistortion", "fisheye", lambda: A.OpticalDistortion((-0.3, 0.3), mode="fisheye", p=1)),
    ("A.Morphological", "", lambda: A.Morphological((3, 3), p=1)),
    ("A.Morphological", "scale=2", lambda: A.Morphological((2, 2), p=1)),
    ("A.Pad", "", lambda: A.Pad((5, 7, 11, 2), p=1)),
    ("A.PadIfNeeded", "", lambda: A.PadIfNeeded(140, 141, p=1)),
    ("A.Perspective", "", lambda: A.Perspective((0.05, 0.1), p=1)),
    ("A.Perspective", "keep_size=False", lambda: A.Perspective((0.05, 0.1), keep_size=False, p=1)),
    ("A.Perspective", "fit_output=True", lambda: A.Perspective((0.05, 0.1), fit_output=True, p=1)),
    ("A.PiecewiseAffine", "", lambda: A.PiecewiseAffine(p=1)),
    ("A.RandomCrop", "", lambda: A.RandomCrop(60, 70, p=1)),
    ("A.RandomCropFromBorders", "", lambda: A.RandomCropFromBorders(p=1)),
    ("A.RandomGridShuffle", "", lambda: A.RandomGridShuffle((2, 2), p=1)),
    ("A.RandomResizedCrop", "", lambda: A.RandomResizedCrop((80, 80), scale=(0.3, 0.9), p=1)),
    ("A.RandomRotate90", "", lambda: A.RandomRotate90(p=1)),
    ("A.RandomScale", "smaller", lambda: A.RandomScale((-0.6, -0.4), p=1)),
    ("A.RandomScale", "larger", lambda: A.RandomScale((1.4, 1.6), p=1)),
    ("A.RandomSizedBBoxSafeCrop", "", lambda: A.RandomSizedBBoxSafeCrop(80, 80, p=1)),
    ("A.RandomSizedCrop", "", lambda: A.RandomSizedCrop((50, 90), (80, 80), p=1)),
    ("A.Resize", "smaller", lambda: A.Resize(47, 61, p=1)),
    ("A.Resize", "larger", lambda: A.Resize(311, 250, p=1)),
    ("A.Rotate", "", lambda: A.Rotate((-60, 60), p=1)),
    ("A.Rotate", "crop_border=True", lambda: A.Rotate((-30, 30), crop_border=True, p=1)),
    ("A.SafeRotate", "", lambda: A.SafeRotate((-60, 60), p=1)),
    ("A.ShiftScaleRotate", "", lambda: A.ShiftScaleRotate(p=1)),
    ("A.SmallestMaxSize", "smaller", lambda: A.SmallestMaxSize(47, p=1)),
    ("A.SmallestMaxSize", "larger", lambda: A.SmallestMaxSize(211, p=1)),
    ("A.SquareSymmetry", "", lambda: A.SquareSymmetry(p=1)),
    ("A.ThinPlateSpline", "scale_range=(0.05, 0.1)", lambda: A.ThinPlateSpline((0.05, 0.1), p=1)),
    ("A.ThinPlateSpline", "", lambda: A.ThinPlateSpline(p=1)),
    ("A.TimeReverse", "", lambda: A.TimeReverse(p=1)),
    ("A.Transpose", "", lambda: A.Transpose(p=1)),
    ("A.VerticalFlip", "", lambda: A.VerticalFlip(p=1)),
    ("T.CenterCrop", "", lambda: v2.CenterCrop((81, 100))),
    ("T.ElasticTransform", "", lambda: v2.ElasticTransform(90.0, 8.0)),
    ("T.Pad", "", lambda: v2.Pad([5, 7, 11, 2])),
    ("T.RandomAffine", "", lambda: v2.RandomAffine(40, (0.05, 0.05), (0.8, 1.2), 10, interpolation=BILINEAR)),
    ("T.RandomCrop", "", lambda: v2.RandomCrop((60, 70))),
    ("T.RandomHorizontalFlip", "", lambda: v2.RandomHorizontalFlip(1.0)),
    ("T.RandomIoUCrop", "", lambda: v2.RandomIoUCrop()),
    ("T.RandomPerspective", "", lambda: v2.RandomPerspective(0.2, 1.0)),
    ("T.RandomResize", "smaller", lambda: v2.RandomResize(40, 60)),
    ("T.RandomResize", "larger", lambda: v2.RandomResize(200, 260)),
    ("T.RandomResizedCrop", "", lambda: v2.RandomResizedCrop((80, 80), scale=(0.3, 0.9))),
    ("T.RandomRotation", "", lambda: v2.RandomRotation(60, interpolation=BILINEAR)),
    ("T.RandomRotation", "expand=True", lambda: v2.RandomRotation(60, interpolation=BILINEAR, expand=True)),
    (
        "T.RandomRotation",
        "center=, expand=True",
        lambda: v2.RandomRotation(60, interpolation=BILINEAR, expand=True, center=[40, 60]),
    ),
    ("T.RandomShortestSize", "smaller", lambda: v2.RandomShortestSize([41, 47])),
    ("T.RandomShortestSize", "larger", lambda: v2.RandomShortestSize([201, 211])),
    ("T.RandomVerticalFlip", "", lambda: v2.RandomVerticalFlip(1.0)),
    ("T.RandomZoomOut", "", lambda: v2.RandomZoomOut(p=1.0)),
    ("T.Resize", "smaller", lambda: v2.Resize((47, 61))),
    ("T.Resize", "larger", lambda: v2.Resize((311, 250))),
    ("T.ScaleJitter", "smaller", lambda: v2.ScaleJitter((97, 120), (0.4, 0.6))),
    ("T.ScaleJitter", "larger", lambda: v2.ScaleJitter((97, 120), (2.0, 2.5))),
]


MOVE_NOTHING = {
    *(
        "A.CoarseDropout",
        "A.ConstrainedCoarseDropout",
        "A.Erasing",
        "A.FrequencyMasking",
        "A.GridDropout",
        "A.MaskDropout",
        "A.NoOp",
    ),
    *("A.PixelDropout", "A.TimeMasking", "A.XYMasking"),
}
"""Transforms that are given masks, points or boxes too, and leave them where they are."""

CANNOT_STAND = {
    "A.Lambda": "moves what its functions say",
    "A.Mosaic": "needs other images",
    "A.OverlayElements": "needs what is to be laid over",
    "A.RandomCropNearBBox": "needs a box of its own",
    "T.FiveCrop": "makes several images",
    "T.TenCrop": "makes several images",
}
"""Why others are not in the table."""


@dataclass(frozen=True)
class Straying:
    """How far what belongs to an image is from where it should be: on an average over discs, and at most; in pixels."""

    transform: str
    points: tuple[float, float]
    boxes: tuple[float, float]
    masks: tuple[float, float]

    @property
    def line(self) -> str:
        """As a line of the table."""
        numbers = " | ".join(f"{mean:.2f} | {most:.2f}" for mean, most in (self.points, self.boxes, self.masks))
        return f"| {self.transform} | {numbers} |\n"


def marked(number: int) -> list[np.ndarray]:
    """A disc in red with a spot in its middle in green; the mask of the disc, its middle, and the box around it."""
    x, y = np.random.default_rng(number).uniform((WIDTH * 0.3, HEIGHT * 0.3), (WIDTH * 0.7, HEIGHT * 0.7))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    away = np.hypot(columns - x, rows - y)
    disc, spot = np.clip(RADIUS + 0.5 - away, 0, 1), np.exp(-(away**2) / (2 * SPOT**2))
    picture = np.round(np.stack([disc, spot, 0 * disc], -1) * 255).astype(np.uint8)
    return [
        picture,
        (away <= RADIUS).astype(np.uint8),
        np.array([[x, y]]),
        np.array([[x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]]),
    ]


def centre(picture: np.ndarray) -> np.ndarray:
    """The point (x, y) around which a picture is bright."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    weights = picture.astype(np.float64)
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def middle(picture: np.ndarray) -> np.ndarray:
    """The middle (x, y) of the box around what is bright, whose sides are where brightness falls to a half."""
    return np.array([_middle(picture.max(axis).astype(np.float64)) for axis in (0, 1)])


def _middle(profile: np.ndarray) -> float:
    bright = np.flatnonzero(profile >= 128)
    first, last = int(bright[0]), int(bright[-1])
    low = first - (profile[first] - 127.5) / (profile[first] - profile[first - 1])
    high = last + (profile[last] - 127.5) / (profile[last] - profile[last + 1])
    return float(low + high + 1) / 2


def whole(picture: np.ndarray) -> bool:
    """Whether the disc is in one piece, and clear of the image's edges."""
    disc = (picture[:, :, 0] > 0).astype(np.uint8)
    return not (disc[[0, -1]].any() or disc[:, [0, -1]].any()) and cv2.connectedComponents(disc)[0] == 2


def measured(name: str, how: str, make: Callable[[], Any]) -> Straying:
    """What becomes of discs in a transform, as far as they are whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one is slow, and some are old
        discs = [marked(number) for number in range(5 if name == "A.PiecewiseAffine" else 40)]
        made = list(ff.pipe(discs, augment([make()], image=0, mask=1, coords=2, boxes=3)))
    off = np.array(
        [_off(*datapoint) for datapoint in made if whole(datapoint[0]) and len(datapoint[3]) and datapoint[1].any()]
    )
    means, most = np.hypot(*off.mean(0).T), np.hypot(off[..., 0], off[..., 1]).max(0)
    points, boxes, masks = ((float(a), float(b)) for a, b in zip(means, most))
    return Straying(f"{name}, {how}" if how else name, points, boxes, masks)


def _off(picture: np.ndarray, mask: np.ndarray, coords: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    disc, spot = picture[:, :, 0], picture[:, :, 1]
    return [coords[0] - centre(spot), boxes[0].reshape(2, 2).mean(0) - middle(disc), centre(mask) - centre(disc)]


def table(rows: list[Straying]) -> str:
    """All of it, with the versions of the libraries."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("albumentations", "torchvision"))
    return (
        f"{versions} (A. and T., transforms.v2); pixels of the image that comes out.\n\n"
        "| transform | points: mean | largest | boxes: mean | largest | masks: mean | largest |\n| --- |"
        + " --: |" * 6
        + "\n"
    ) + "".join(row.line for row in rows)


def published() -> dict[str, Straying]:
    """The rows of the page by their transforms."""
    lines = PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(("| A.", "| T."))
    ]
    numbers = {name: tuple(map(float, cells)) for name, *cells in rows}
    return {name: Straying(name, of[0:2], of[2:4], of[4:6]) for name, of in numbers.items()}  # type: ignore[arg-type]


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    made = table([measured(*row) for row in TRANSFORMS])
    if parser.parse_args().write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + made + END + rest.split(END)[1])
    print(made)


if __name__ == "__main__":
    main()
