"""Augment a photograph, the mask of what is on it, points on that and a box around it, together;
and look whether they stay so.

The photograph is scikit-learn's dahlia. Its mask is found by colour, the points are the middle and the four outermost
points of the mask, and the box goes through these. All are turned, deformed, cropped and mirrored alike, and the image
alone changes its colours, in worker processes or without, with the same result. The picture that is written shows each
image with the outline of its mask, its points and its box: a point that was on the outline is still on it, which is
also measured. The box holds where its corners went and is clipped to the image, so about what was turned it is wider
than it need be.

    pip install "flowfn[examples]"
    python examples/segmentation.py

Images are RGB, as everywhere in flowfn.image; only OpenCV's files want them the other way round.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import flowfn as ff

try:
    import cv2
    import sklearn.datasets

    from flowfn.image import (
        augment,
        brightness_scale,
        flip,
        gaussian_deform,
        gaussian_noise,
        hue,
        random_resized_crop,
        read_image,
        rotation,
        saturation,
        shuffled,
    )
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples]" brings it.') from error

PHOTOGRAPH = Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg"
SIDE = 192


def main(options: argparse.Namespace) -> None:
    train = ff.pipe(
        [dahlia()],  # one datapoint: {"image": ..., "mask": ..., "points": ..., "boxes": ...}
        ff.repeat_each(options.images),
        augment(
            [
                rotation(40, border="constant"),
                gaussian_deform(2, magnitude=0.08, border="constant"),
                random_resized_crop(SIDE, area=(0.3, 1)),
                flip(horizontal=True),
                shuffled([hue(25), saturation(0.5), brightness_scale(0.3)]),
                gaussian_noise((0, 12)),
            ],
            image="image",
            mask="mask",
            coords="points",
            boxes="boxes",
            min_visible=0.2,
        ),
        ff.batch(options.images, collate={"boxes": ff.as_list}),  # a box may have left its image
        ff.prefetch(1, processes=options.processes) if options.processes else None,
    )

    batch = train[0]
    print(
        "a batch:", ", ".join(f"{name} {batch[name].dtype} {batch[name].shape}" for name in ("image", "mask", "points"))
    )
    seen, kept = points_on_outlines(batch)
    print(f"{seen} points of the outline can be seen, {kept} of them are on the outline of the augmented mask")
    print(f"{sum(map(len, batch['boxes']))} boxes can be seen, at least a fifth of each")
    write_image(options.picture, picture(batch, options.columns))
    print(f"picture: {options.picture.resolve()}")


def dahlia() -> dict[str, Any]:
    """Image uint8 [height, width, 3], mask uint8 [height, width] of 0 and 1, points float64 [5,
    2] and boxes [1, 4] in pixels."""
    image = read_image(PHOTOGRAPH)
    mask = largest_region(orange(image))
    left, top, right, bottom = outermost(mask)
    box = [left[0] - 0.5, top[1] - 0.5, right[0] + 0.5, bottom[1] + 0.5]  # around the pixels whose centres these are
    points = np.array([middle(mask), left, top, right, bottom])
    return {"image": image, "mask": mask, "points": points, "boxes": np.array([box])}


def orange(image: np.ndarray) -> np.ndarray:
    """Where an image is orange, as 0 and 1, without small holes and without stalks."""
    red, blue = image[..., 0].astype(int), image[..., 2].astype(int)
    mask = (red - blue > 60).astype(np.uint8)
    for operation, size in ((cv2.MORPH_CLOSE, 15), (cv2.MORPH_OPEN, 61)):
        mask = cv2.morphologyEx(mask, operation, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    return mask


def largest_region(mask: np.ndarray) -> np.ndarray:
    """The largest connected region of a mask."""
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(mask)
    return (regions == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)


def middle(mask: np.ndarray) -> np.ndarray:
    """The centre of gravity, x then y."""
    return (
        np.argwhere(mask)[:, ::-1].mean(0) + 0.5
    )  # the centre of the pixel in row i and column j is (j + 0.5, i + 0.5)


def outermost(mask: np.ndarray) -> list[np.ndarray]:
    """The leftmost, topmost, rightmost and lowest pixel's centres."""
    centers = np.argwhere(mask)[:, ::-1] + 0.5
    return [centers[index] for index in (*centers.argmin(0), *centers.argmax(0))]


def points_on_outlines(batch: dict[str, Any], tolerance: float = 3.0) -> tuple[int, int]:
    """How many of the outermost points are within their images,
    and how many of those are near the edge of the masks."""
    seen = kept = 0
    for mask, points in zip(batch["mask"], batch["points"]):
        distance = np.maximum(*(cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (mask, 1 - mask)))
        for x, y in points[1:]:
            if 0 <= x < SIDE and 0 <= y < SIDE:
                seen += 1
                kept += bool(distance[int(y), int(x)] <= tolerance)
    return seen, kept


def picture(batch: dict[str, Any], columns: int) -> np.ndarray:
    """All images, with the outlines of their masks in white,
    the points in blue and the boxes in green, in rows of `columns`."""
    rows = -(-len(batch["image"]) // columns)
    sheet = np.zeros((rows, columns, SIDE, SIDE, 3), np.uint8)
    for place, datapoint in enumerate(zip(batch["image"], batch["mask"], batch["points"], batch["boxes"])):
        sheet[divmod(place, columns)] = drawn(*datapoint)
    return sheet.swapaxes(1, 2).reshape(rows * SIDE, columns * SIDE, 3)


def drawn(image: np.ndarray, mask: np.ndarray, points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """An image in which the background is darker, with the outline of the mask, the points and the boxes."""
    image = np.where(mask[..., None] > 0, image, image // 2)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, (255, 255, 255), 1)
    for left, top, right, bottom in (
        np.rint(boxes).astype(int).tolist()
    ):  # the edges of pixels; OpenCV names pixels by their indices
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), (0, 220, 0), 1)
    for x, y in np.rint(points - 0.5).astype(int).tolist():
        cv2.circle(image, (x, y), 4, (0, 0, 0), -1)
        cv2.circle(image, (x, y), 3, (0, 160, 255), -1)
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB image in the format that the name says."""
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):  # a full disk is reported in no other way
        raise OSError(f"cannot write {path}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--images", type=int, default=24, help="how many augmented images to make (default: %(default)s)")
    add("--columns", type=int, default=8, help="how many of them to put in a row (default: %(default)s)")
    add(
        "--picture",
        type=Path,
        default=Path("segmentation.png"),
        help="where to write the picture (default: %(default)s)",
    )
    add("--processes", type=int, default=0, help="how many worker processes (default: none)")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
