"""What does an augmentor cost beyond the OpenCV or numpy call that it stands on?

Both treat the same picture in the same way (which is compared before), OpenCV in one thread. An augmentor's time is
that of drawing a transform and of applying it. Where the bare call takes next to no time (a crop is a view), what is
told is not the ratio but the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from measuring import Contestant, Finding, fastest, report, shown

from flowfn import image as words
from flowfn.image.resampling import BORDERS, INTERPOLATIONS
from flowfn.image.transforms import Augmentor

SHAPE = (480, 640, 3)
SMALL = 50e-6
"""Bare calls that take less, in seconds, are compared by difference."""
Picture: TypeAlias = np.ndarray
Call: TypeAlias = Callable[[Picture], Picture]


class Case(NamedTuple):
    """An augmentor, and what makes of a transform of it a function of an image that does the same by hand."""

    augmentor: Augmentor
    by_hand: Callable[[Any], Call]
    like: str
    dtypes: Sequence[type] = (np.uint8, np.float32)
    tolerance: float = 1


def just(call: Call) -> Callable[[Any], Call]:
    """The same call, whatever was drawn."""
    return lambda transform: call


def resize(transform: Any) -> Call:
    """One call of resize."""
    return partial(cv2.resize, dsize=transform.target[::-1], interpolation=INTERPOLATIONS[transform.interpolation])


def warp(transform: Any) -> Call:
    """One call of warpAffine; the matrix between indices is at hand."""
    matrix, size = transform._for_indices(), transform.target[::-1]
    flag, mode = INTERPOLATIONS[transform.interpolation], BORDERS[transform.border]
    return lambda image: cv2.warpAffine(image, matrix, size, flags=flag, borderMode=mode)


def remap(transform: Any) -> Call:
    """The weights of the anchors for every pixel, which are at hand, times the pulls, and one call of remap."""
    height, width = transform.size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = (columns + 0.5) / width, (rows + 0.5) / height
    distances = [(x - along) ** 2 + (y - down) ** 2 for along, down in transform.anchors]
    weights = np.exp(np.stack(distances, -1) / (-2 * transform.sigma**2)).astype(np.float32)
    pulls = np.array(transform.pulls, np.float32) * np.array([width, height], np.float32)
    grid = np.stack([columns, rows], -1)
    return lambda image: cv2.remap(
        image, grid + weights @ pulls, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def crop(transform: Any) -> Call:
    """A slice."""
    top, left, (height, width) = transform.top, transform.left, transform.target
    return lambda image: image[top : top + height, left : left + width]


def crop_and_resize(transform: Any) -> Call:
    """A slice, and one call of resize."""
    crops, resizes = crop(transform.transforms[0]), resize(transform.transforms[1])
    return lambda image: resizes(crops(image))


def cut_out(transform: Any) -> Call:
    """A copy, and a slice of it painted."""
    where = (
        slice(transform.top, transform.top + transform.height),
        slice(transform.left, transform.left + transform.width),
    )

    def painted(image: Picture) -> Picture:
        made = image.copy()
        made[where] = 0
        return made

    return painted


def paste(transform: Any) -> Call:
    """One call of copyMakeBorder."""
    bottom = transform.target[0] - transform.top - transform.size[0]
    right = transform.target[1] - transform.left - transform.size[1]
    return lambda image: cv2.copyMakeBorder(
        image, transform.top, bottom, transform.left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )


def clip_floats(made: Picture) -> Picture:
    """Floats within 0 to 255; uint8 is so."""
    return made if made.dtype == np.uint8 else np.clip(made, 0, 255, out=made)


def scale(transform: Any) -> Call:
    """One call of addWeighted, with one offset, or of transform, with one for each channel."""
    if len(transform.offsets) == 1:
        return lambda image: clip_floats(cv2.addWeighted(image, transform.scale, image, 0, transform.offsets[0]))
    matrix = np.hstack([np.eye(3) * transform.scale, np.array(transform.offsets)[:, None]])
    return lambda image: clip_floats(cv2.transform(image, matrix))


def contrast(transform: Any) -> Call:
    """The means of the channels, and one call of transform."""
    factor, diagonal = transform.factor, np.eye(3) * transform.factor

    def contrasted(image: Picture) -> Picture:
        offsets = np.array(cv2.mean(image)[:3])[:, None] * (1 - factor)
        return clip_floats(cv2.transform(image, np.hstack([diagonal, offsets])))

    return contrasted


def saturation(transform: Any) -> Call:
    """The gray image, and one call of addWeighted."""

    def saturated(image: Picture) -> Picture:
        gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return clip_floats(cv2.addWeighted(image, transform.factor, gray, 1 - transform.factor, 0))

    return saturated


def hue(transform: Any) -> Call:
    """To HSV and back; for uint8 in OpenCV's 8 bits, where hue is 0 to 179."""

    def turned(image: Picture) -> Picture:
        spaced = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        turn = transform.degrees if image.dtype == np.float32 else transform.degrees / 2
        spaced[..., 0] = (spaced[..., 0] + turn) % (360 if image.dtype == np.float32 else 180)
        return cv2.cvtColor(spaced, cv2.COLOR_HSV2RGB)

    return turned


def gamma(transform: Any) -> Call:
    """One table for uint8; clipping, scaling and pow for float32."""
    power = 1 / transform.gamma

    def curved(image: Picture) -> Picture:
        if image.dtype == np.uint8:
            return cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8))
        return cv2.pow(np.clip(image, 0, 255) / np.float32(255), power) * np.float32(255)

    return curved


def blur(transform: Any) -> Call:
    """One call of GaussianBlur."""
    window = 2 * transform.radius[0] + 1, 2 * transform.radius[1] + 1
    return lambda image: cv2.GaussianBlur(image, window, 0, borderType=cv2.BORDER_REPLICATE)


def jpeg(transform: Any) -> Call:
    """Encoded and decoded, in OpenCV's order of colours."""

    def coded(image: Picture) -> Picture:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, transform.quality])[1]
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    return coded


def add_noise(transform: Any) -> Call:
    """Normal numbers of float32, scaled, added and clipped."""

    def noisy(image: Picture) -> Picture:
        noise = np.random.Generator(np.random.SFC64(transform.seed)).standard_normal(image.shape, np.float32)
        if image.dtype == np.uint8:
            return cv2.addWeighted(image, 1, noise, transform.sigma, 0, dtype=cv2.CV_8U)
        noise *= np.float32(transform.sigma)
        return np.clip(image + noise, 0, 255)

    return noisy


def salt_and_pepper(transform: Any) -> Call:
    """A copy, and two masks of uniform numbers of float32."""

    def noisy(image: Picture) -> Picture:
        made = image.copy()
        shares = np.random.Generator(np.random.SFC64(transform.seed)).random(image.shape, np.float32)
        made[shares >= 1 - transform.white] = 255
        made[shares < transform.black] = 0
        return made

    return noisy


def mean_variance(image: Picture) -> Picture:
    """numpy's formula, with OpenCV's statistics."""
    mean, deviation = cv2.meanStdDev(image.reshape(len(image), -1))
    made = image.astype(np.float32)
    made -= np.float32(mean.item())
    made *= np.float32(1 / deviation.item())
    return made


def min_max(image: Picture) -> Picture:
    """numpy's formula, with OpenCV's extremes; cv2.normalize is quicker still,
    but does not bring the minimum to 0 exactly."""
    low, high = cv2.minMaxLoc(image.reshape(len(image), -1))[:2]
    made = image.astype(np.float32)
    made -= np.float32(low)
    made *= np.float32(255 / (high - low))
    return made


CASES = [
    # geometry
    Case(words.flip(horizontal=True, probability=1), just(lambda image: cv2.flip(image, 1)), "cv2.flip"),
    Case(words.flip(vertical=True, probability=1), just(lambda image: cv2.flip(image, 0)), "cv2.flip"),
    Case(words.transpose(1), just(cv2.transpose), "cv2.transpose"),
    Case(words.resize(224), resize, "cv2.resize"),
    Case(words.resize(224, interpolation="area"), resize, "cv2.resize"),
    Case(words.resize_shortest_edge(256), resize, "cv2.resize"),
    Case(words.random_resize((0.5, 0.9)), resize, "cv2.resize"),
    Case(words.shift(0.2, 0.2), warp, "cv2.warpAffine"),
    Case(words.rotation((20, 30)), warp, "cv2.warpAffine"),
    Case(words.rotation_and_crop_valid((20, 30)), warp, "cv2.warpAffine"),
    Case(words.affine((20, 30), scale=(0.8, 1.2), shear=10), warp, "cv2.warpAffine"),
    Case(words.gaussian_deform(3, magnitude=0.03), remap, "weights @ pulls, cv2.remap"),
    Case(words.random_crop(224), crop, "a slice"),
    Case(words.center_crop(224), crop, "a slice"),
    Case(words.random_crop_random_shape(100, 300), crop, "a slice"),
    Case(words.random_resized_crop(224), crop_and_resize, "a slice, cv2.resize"),
    Case(words.random_cutout(100, 100), cut_out, "copy, a slice filled"),
    Case(words.center_paste((600, 800)), paste, "cv2.copyMakeBorder"),
    Case(words.random_paste((600, 800)), paste, "cv2.copyMakeBorder"),
    # colours and values
    Case(words.hue(90), hue, "cvtColor twice", tolerance=20),
    Case(words.brightness((10, 30)), scale, "cv2.addWeighted"),
    Case(words.brightness_scale((0.6, 0.9)), scale, "cv2.addWeighted"),
    Case(words.contrast((0.6, 0.9)), contrast, "cv2.mean, cv2.transform"),
    Case(words.saturation((0.6, 0.9)), saturation, "cv2.cvtColor, cv2.addWeighted", tolerance=2),
    Case(words.lighting(), scale, "cv2.transform"),
    Case(words.gamma((1.5, 2)), gamma, "cv2.LUT, cv2.pow"),
    Case(
        words.color_space("hsv"), just(lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2HSV)), "cv2.cvtColor", [np.uint8]
    ),
    Case(words.grayscale(None), just(lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)), "cv2.cvtColor"),
    Case(words.clip(10, 200), just(lambda image: np.clip(image, 10, 200)), "np.clip"),
    Case(words.mean_variance_normalize(), just(mean_variance), "cv2.meanStdDev, two numpy calls"),
    Case(words.min_max_normalize(), just(min_max), "cv2.minMaxLoc, two numpy calls"),
    Case(words.to_uint8(), just(lambda image: np.rint(image.clip(0, 255)).astype(np.uint8)), "np.rint", [np.float32]),
    Case(words.to_float32(), just(lambda image: image.astype(np.float32)), "astype", [np.uint8]),
    Case(words.gaussian_blur((2, 3)), blur, "cv2.GaussianBlur"),
    Case(words.jpeg_noise(), jpeg, "cv2.imencode, cv2.imdecode", [np.uint8]),
    Case(words.gaussian_noise(10), add_noise, "standard_normal, added"),
    Case(words.salt_pepper_noise(), salt_and_pepper, "random, two masks"),
]


def measured(case: Case, dtype: type, quick: bool) -> Finding:
    """One line: an augmentor against its bare call."""
    rng = np.random.Generator(np.random.Philox(key=1))
    picture = np.random.default_rng(0).integers(0, 256, SHAPE).astype(dtype)
    transform = case.augmentor(SHAPE, rng)
    bare = partial(case.by_hand(transform), picture)
    np.testing.assert_allclose(transform.image(picture), bare(), atol=case.tolerance)
    count = 3 if quick else 10
    times = fastest(
        {
            "bare": Contestant(partial(_again, bare, count), count),
            "applying": Contestant(partial(_again, partial(transform.image, picture), count), count),
            "drawing": Contestant(partial(_again, partial(case.augmentor, SHAPE, rng), 100), 100),
        },
        5 if quick else 25,
    )
    ours, question = times["applying"] + times["drawing"], f"{case.augmentor!r}, {np.dtype(dtype)}"
    told = (
        f"{case.like} {shown(times['bare'] * 1e6)} µs, {shown(times['applying'] * 1e6)} µs and "
        f"{shown(times['drawing'] * 1e6)} µs to draw"
    )
    if times["bare"] < SMALL:
        return Finding(f"{question}: more than the bare call", told, (ours - times["bare"]) * 1e6, "µs", "<= 10")
    return Finding(f"{question}: times the bare call", told, ours / times["bare"], target="<= 1.1")


def benchmark(quick: bool) -> list[Finding]:
    """Every augmentor, on images of uint8 and float32."""
    cv2.setNumThreads(1)
    return [measured(case, dtype, quick) for case in CASES for dtype in case.dtypes]


def _again(call: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        call()


if __name__ == "__main__":
    report(__doc__, benchmark)
