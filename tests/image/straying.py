"""How far do points, masks and boxes stray from their image in the transforms of albumentations and torchvision?

One disc after the other, with a mask, its centre as a point and a box around it, goes through `augment`. Where the disc is found
in the image that comes out is where the rest should be.

    python tests/image/straying.py            # prints the table
    python tests/image/straying.py --write    # writes it into examples/other_transforms.md
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import flowfn as ff
from flowfn.image import augment

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
import torch
import torchvision
from torchvision.transforms import v2

PAGE = Path(__file__).parents[2] / "examples" / "other_transforms.md"
HEIGHT, WIDTH, RADIUS, SPOT, DISCS = 97, 120, 7.0, 1.5, 40
BILINEAR = v2.InterpolationMode.BILINEAR

ALBUMENTATIONS = [
    ("Affine", "", lambda: A.Affine(scale=(0.8, 1.2), translate_px=(-6, 6), rotate=(-40, 40), shear=(-10, 10), p=1)),
    ("Affine", "fit_output=True", lambda: A.Affine(rotate=(-40, 40), fit_output=True, p=1)),
    ("AtLeastOneBBoxRandomCrop", "", lambda: A.AtLeastOneBBoxRandomCrop(60, 70, p=1)),
    ("BBoxSafeRandomCrop", "", lambda: A.BBoxSafeRandomCrop(p=1)),
    ("CenterCrop", "", lambda: A.CenterCrop(81, 100, p=1)),
    ("CenterCrop", "pad_if_needed=True", lambda: A.CenterCrop(131, 100, pad_if_needed=True, p=1)),
    ("Crop", "", lambda: A.Crop(5, 7, 110, 93, p=1)),
    ("CropAndPad", "", lambda: A.CropAndPad(px=(-12, 12), p=1)),
    ("CropAndPad", "keep_size=False", lambda: A.CropAndPad(px=(-12, 12), keep_size=False, p=1)),
    ("CropNonEmptyMaskIfExists", "", lambda: A.CropNonEmptyMaskIfExists(60, 70, p=1)),
    ("D4", "", lambda: A.D4(p=1)),
    ("ElasticTransform", "", lambda: A.ElasticTransform(alpha=60, sigma=10, p=1)),
    ("GridDistortion", "", lambda: A.GridDistortion(p=1)),
    ("GridElasticDeform", "", lambda: A.GridElasticDeform((4, 4), 8, p=1)),
    ("HorizontalFlip", "", lambda: A.HorizontalFlip(p=1)),
    ("LongestMaxSize", "smaller", lambda: A.LongestMaxSize(61, p=1)),
    ("LongestMaxSize", "larger", lambda: A.LongestMaxSize(301, p=1)),
    ("OpticalDistortion", "camera", lambda: A.OpticalDistortion((-0.3, 0.3), p=1)),
    ("OpticalDistortion", "fisheye", lambda: A.OpticalDistortion((-0.3, 0.3), mode="fisheye", p=1)),
    ("Pad", "", lambda: A.Pad((5, 7, 11, 2), p=1)),
    ("PadIfNeeded", "", lambda: A.PadIfNeeded(140, 141, p=1)),
    ("Perspective", "", lambda: A.Perspective((0.05, 0.1), p=1)),
    ("Perspective", "keep_size=False", lambda: A.Perspective((0.05, 0.1), keep_size=False, p=1)),
    ("Perspective", "fit_output=True", lambda: A.Perspective((0.05, 0.1), fit_output=True, p=1)),
    ("PiecewiseAffine", "", lambda: A.PiecewiseAffine(p=1)),
    ("RandomCrop", "", lambda: A.RandomCrop(60, 70, p=1)),
    ("RandomCropFromBorders", "", lambda: A.RandomCropFromBorders(p=1)),
    ("RandomGridShuffle", "", lambda: A.RandomGridShuffle((2, 2), p=1)),
    ("RandomResizedCrop", "", lambda: A.RandomResizedCrop((80, 80), scale=(0.3, 0.9), p=1)),
    ("RandomRotate90", "", lambda: A.RandomRotate90(p=1)),
    ("RandomScale", "smaller", lambda: A.RandomScale((-0.6, -0.4), p=1)),
    ("RandomScale", "larger", lambda: A.RandomScale((1.4, 1.6), p=1)),
    ("RandomSizedBBoxSafeCrop", "", lambda: A.RandomSizedBBoxSafeCrop(80, 80, p=1)),
    ("RandomSizedCrop", "", lambda: A.RandomSizedCrop((50, 90), (80, 80), p=1)),
    ("Resize", "smaller", lambda: A.Resize(47, 61, p=1)),
    ("Resize", "larger", lambda: A.Resize(311, 250, p=1)),
    ("Rotate", "", lambda: A.Rotate((-60, 60), p=1)),
    ("Rotate", "crop_border=True", lambda: A.Rotate((-30, 30), crop_border=True, p=1)),
    ("SafeRotate", "", lambda: A.SafeRotate((-60, 60), p=1)),
    ("ShiftScaleRotate", "", lambda: A.ShiftScaleRotate(p=1)),
    ("SmallestMaxSize", "smaller", lambda: A.SmallestMaxSize(47, p=1)),
    ("SmallestMaxSize", "larger", lambda: A.SmallestMaxSize(211, p=1)),
    ("SquareSymmetry", "", lambda: A.SquareSymmetry(p=1)),
    ("ThinPlateSpline", "", lambda: A.ThinPlateSpline(p=1)),
    ("TimeReverse", "", lambda: A.TimeReverse(p=1)),
    ("Transpose", "", lambda: A.Transpose(p=1)),
    ("VerticalFlip", "", lambda: A.VerticalFlip(p=1)),
]
TORCHVISION = [
    ("CenterCrop", "", lambda: v2.CenterCrop((81, 100))),
    ("ElasticTransform", "", lambda: v2.ElasticTransform(90.0, 8.0)),
    ("Pad", "", lambda: v2.Pad([5, 7, 11, 2])),
    ("RandomAffine", "", lambda: v2.RandomAffine(40, (0.05, 0.05), (0.8, 1.2), 10, interpolation=BILINEAR)),
    ("RandomCrop", "", lambda: v2.RandomCrop((60, 70))),
    ("RandomHorizontalFlip", "", lambda: v2.RandomHorizontalFlip(1.0)),
    ("RandomIoUCrop", "", lambda: v2.RandomIoUCrop()),
    ("RandomPerspective", "", lambda: v2.RandomPerspective(0.2, 1.0)),
    ("RandomResize", "smaller", lambda: v2.RandomResize(40, 60)),
    ("RandomResize", "larger", lambda: v2.RandomResize(200, 260)),
    ("RandomResizedCrop", "", lambda: v2.RandomResizedCrop((80, 80), scale=(0.3, 0.9))),
    ("RandomRotation", "", lambda: v2.RandomRotation(60, interpolation=BILINEAR)),
    ("RandomRotation", "expand=True", lambda: v2.RandomRotation(60, interpolation=BILINEAR, expand=True)),
    ("RandomRotation", "center=, expand=True", lambda: v2.RandomRotation(60, interpolation=BILINEAR, expand=True, center=[40, 60])),
    ("RandomShortestSize", "smaller", lambda: v2.RandomShortestSize([41, 47])),
    ("RandomShortestSize", "larger", lambda: v2.RandomShortestSize([201, 211])),
    ("RandomVerticalFlip", "", lambda: v2.RandomVerticalFlip(1.0)),
    ("RandomZoomOut", "", lambda: v2.RandomZoomOut(p=1.0)),
    ("Resize", "smaller", lambda: v2.Resize((47, 61))),
    ("Resize", "larger", lambda: v2.Resize((311, 250))),
    ("ScaleJitter", "smaller", lambda: v2.ScaleJitter((97, 120), (0.4, 0.6))),
    ("ScaleJitter", "larger", lambda: v2.ScaleJitter((97, 120), (2.0, 2.5))),
]



def marked(number: int) -> list[np.ndarray]:
    """A disc in red, a spot in its middle in green; the mask of the disc, its middle and the box around it."""
    x, y = np.random.default_rng(number).uniform((WIDTH * 0.3, HEIGHT * 0.3), (WIDTH * 0.7, HEIGHT * 0.7))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    away = np.hypot(columns - x, rows - y)
    disc, spot = np.clip(RADIUS + 0.5 - away, 0, 1), np.exp(-(away**2) / (2 * SPOT**2))
    picture = np.round(np.stack([disc, spot, 0 * disc], -1) * 255).astype(np.uint8)
    return [picture, (away <= RADIUS).astype(np.uint8), np.array([[x, y]]), np.array([[x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]])]


def centre(picture):
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    weights = picture.astype(np.float64)
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


def middle(picture):
    """The middle of the box around what is bright."""
    edges = []
    for axis in (0, 1):
        profile = np.concatenate([[0.0], picture.max(axis), [0.0]])
        bright = np.flatnonzero(profile >= 128)
        first, last = bright[0], bright[-1]
        low = first - (profile[first] - 127.5) / (profile[first] - profile[first - 1])
        high = last + (profile[last] - 127.5) / (profile[last] - profile[last + 1])
        edges.append((low + high) / 2 - 0.5)
    return np.array(edges)


def whole(picture) -> bool:
    """Whether a disc is in one piece and clear of the edges."""
    disc = (picture[:, :, 0] > 0).astype(np.uint8)
    return not (disc[[0, -1]].any() or disc[:, [0, -1]].any()) and cv2.connectedComponents(disc)[0] == 2


def measure(transform, data):
    flow = ff.pipe(data, augment([transform], image=0, mask=1, coords=2, boxes=3))
    found = []
    for picture, mask, coords, boxes in flow:
        if whole(picture) and len(boxes) and mask.any():
            disc, spot = np.moveaxis(picture, -1, 0)[:2]
            found.append([coords[0] - centre(spot), centre(mask) - centre(disc), boxes[0].reshape(2, 2).mean(0) - middle(disc)])
    return np.array(found)

if __name__ == "__main__":
    import warnings, time, sys
    torch.set_num_threads(1)
    data = [marked(k) for k in range(DISCS)]
    for lib, name in ((ALBUMENTATIONS, "A."), (TORCHVISION, "T.")):
        for kind, how, make in lib:
            if len(sys.argv) > 1 and kind not in sys.argv[1:]: continue
            t=time.time()
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                try: found = measure(make(), data[:10] if kind == "PiecewiseAffine" else data)
                except Exception as e:
                    print(name+kind, how, type(e).__name__, str(e)[:150]); continue
            if not len(found): print(name+kind, how, "nothing"); continue
            m = np.linalg.norm(found.mean(0), axis=1); l = np.linalg.norm(found, axis=2).max(0)
            print(f"{name+kind+' '+how:45} {len(found):3} mean p {m[0]:.2f} m {m[1]:.2f} b {m[2]:.2f}  max p {l[0]:.2f} m {l[1]:.2f} b {l[2]:.2f}  {time.time()-t:.1f}s", {str(w.message)[:80] for w in told} or "", flush=True)
