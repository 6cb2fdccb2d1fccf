"""Crops, cutout and pastes: what is kept, where it lies, how it is drawn."""

import math
import pickle

import numpy as np
import pytest
from marked import noise, numbered, rng

from flowfn.image import (
    Identity,
    center_crop,
    center_paste,
    random_crop,
    random_crop_random_shape,
    random_cutout,
    random_paste,
    random_resized_crop,
)
from flowfn.image.cropping import Cropped, Cutout
from flowfn.image.geometry import Resized
from flowfn.image.pasting import Pasted


def gray(image, shape, rng):
    return np.full(shape, 128, np.uint8)


def speckled(image, shape, rng):
    return rng.integers(0, 256, shape)


# Crops


def test_a_crop_is_numpys_slice():
    image = noise((20, 30, 3))
    transform = Cropped((20, 30), 3, 5, (10, 12))
    np.testing.assert_array_equal(transform.image(image), image[3:13, 5:17])
    assert transform.image(image).base is image  # a view: nothing is copied
    assert transform.coords(np.array([[5.5, 3.5], [0, 0]])).tolist() == [[0.5, 0.5], [-5, -3]]
    assert transform.boxes(np.array([[5, 3, 17, 13]])).tolist() == [[0, 0, 12, 10]]


def test_crops_come_from_everywhere_alike():
    draw = rng()
    places = np.zeros((4, 3), int)
    for _ in range(6000):
        transform = random_crop((5, 6))((8, 8), draw)
        places[transform.top, transform.left] += 1
    assert abs(places - 500).max() < 110


def test_the_middle_is_the_middle():
    image = numbered((7, 8))
    np.testing.assert_array_equal(center_crop((3, 4))((7, 8), rng()).image(image), image[2:5, 2:6])
    np.testing.assert_array_equal(center_crop((2, 3))((7, 8), rng()).image(image), image[2:4, 2:5])


def test_all_of_an_image_is_the_image():
    for augmentor in (
        random_crop((4, 6)),
        center_crop((4, 6)),
        random_crop_random_shape((4, 6)),
        center_paste((4, 6)),
        random_paste((4, 6)),
    ):
        assert augmentor((4, 6, 3), rng()) == Identity()


@pytest.mark.parametrize(
    "augmentor", [random_crop((5, 3)), center_crop((5, 3)), random_crop_random_shape((5, 3))], ids=repr
)
def test_an_image_too_small_to_crop_says_so(augmentor):
    name = type(augmentor).__name__
    with pytest.raises(
        ValueError,
        match=rf"{name}\(\): images must be at least 5 x 3 \(height x width\), got 4 x 6; resize_shortest_edge",
    ):
        augmentor((4, 6, 3), rng())


def test_random_shapes_keep_to_their_bounds():
    draw, shapes = rng(), set()
    for _ in range(3000):
        transform = random_crop_random_shape((2, 3), (4, 9))((5, 6), draw)
        shapes.add(transform.target if transform != Identity() else (5, 6))
    assert shapes == {(h, w) for h in (2, 3, 4) for w in (3, 4, 5, 6)}
    shapes = {getattr(random_crop_random_shape(1)((3, 3), draw), "target", (3, 3)) for _ in range(500)}
    assert len(shapes) == 9


@pytest.mark.parametrize("ratio", [1, 1.5, 3])
def test_random_shapes_keep_their_proportions(ratio):
    draw = rng()
    for _ in range(500):
        height, width = random_crop_random_shape(20, 90, max_aspect_ratio=ratio)((100, 120), draw).target
        assert max(height, width) <= ratio * min(height, width)


def test_proportions_give_way_to_bounds():
    height, width = random_crop_random_shape((10, 50), (20, 90), max_aspect_ratio=1.1)((100, 100), rng()).target
    assert 10 <= height <= 20
    assert width == 50


# The crop of the Inception networks


def parts(augmentor, shape, count=4000):
    draw = rng()
    for _ in range(count):
        transform = augmentor(shape, draw)
        crop = getattr(transform, "transforms", [transform])[0]
        yield crop if isinstance(crop, Cropped) else Cropped(shape[:2], 0, 0, shape[:2])


def test_resized_crops_cover_areas_and_proportions_evenly():
    found = [crop.target for crop in parts(random_resized_crop(10, area=(0.1, 0.4)), (1000, 1000))]
    areas = np.sort([height * width / 1e6 for height, width in found])
    logs = np.sort([math.log(width / height) for height, width in found])
    even = (np.arange(len(found)) + 0.5) / len(found)
    assert np.abs((areas - 0.1) / 0.3 - even).max() < 0.03  # Kolmogorov-Smirnov: 4000 draws rarely exceed it
    assert np.abs((logs - math.log(3 / 4)) / math.log(16 / 9) - even).max() < 0.03


def test_resized_crops_are_inside_and_everywhere():
    tops = []
    for crop in parts(random_resized_crop(10, area=(0.25, 0.25), aspect=(1, 1)), (100, 100)):
        assert crop.target == (50, 50)
        assert 0 <= crop.top <= 50
        assert 0 <= crop.left <= 50
        tops.append(crop.top)
    assert len(set(tops)) == 51


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((10, 1000), (0, 493, (10, 13))),  # too wide: the full height, width 10 * 4 / 3
        ((1000, 10), (493, 0, (13, 10))),  # too tall: the full width, height 10 / (3 / 4)
        ((100, 100), (0, 0, (100, 100))),  # in proportion: all of it
    ],
)
def test_where_no_part_fits_it_is_the_largest_in_the_middle(shape, part):
    nothing_fits = [[2.0, 0.5]] * 10  # shares above 1 make areas that are larger than the image
    assert random_resized_crop(5, area=(0.9, 1.0))._part(shape, nothing_fits, [0.5, 0.5]) == part
    if shape[0] != shape[1]:
        transform = random_resized_crop(5, area=(0.9, 1.0))(shape, rng())
        crop, resizing = transform.transforms
        assert (crop.top, crop.left, crop.target) == part
        assert resizing == Resized(part[2], (5, 5))


def test_a_resized_crop_is_a_crop_that_is_resized():
    image = noise((40, 50, 3))
    transform = random_resized_crop((12, 14))(image.shape, rng(3))
    crop, resizing = transform.transforms
    np.testing.assert_array_equal(transform.image(image), resizing.image(crop.image(image)))
    assert resizing.target == (12, 14)


def test_the_whole_image_at_its_own_size_is_itself():
    assert random_resized_crop(8, area=(1, 1), aspect=(1, 1))((8, 8), rng()) == Identity()


# Cutout


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [None, 1, 3, 5])
def test_cutout_paints_a_rectangle_of_a_copy(channels, dtype):
    shape = (20, 30) if channels is None else (20, 30, channels)
    image = noise(shape, dtype).clip(1)
    image.flags.writeable = False
    transform = random_cutout((3, 5), (4, 8), fill=0)(shape, rng(1))
    made = transform.image(image)
    assert made.dtype == dtype
    painted = made == 0
    assert painted.sum() == transform.height * transform.width * (channels or 1)
    assert painted[
        transform.top : transform.top + transform.height, transform.left : transform.left + transform.width
    ].all()
    np.testing.assert_array_equal(made[~painted], image[~painted])


def test_cutout_leaves_masks_and_coordinates():
    transform = random_cutout(2, 2)((4, 4), rng())
    mask, coords, boxes = noise((4, 4)), np.zeros((1, 2)), np.zeros((1, 4))
    assert transform.mask(mask) is mask
    assert transform.coords(coords) is coords
    assert transform.boxes(boxes) is boxes


def test_cutout_is_drawn_from_everywhere_in_its_sizes():
    draw = rng()
    drawn = {(t.top, t.height, t.left, t.width) for t in (random_cutout((1, 2), 3)((3, 4), draw) for _ in range(500))}
    assert drawn == {(top, height, left, 3) for height in (1, 2) for top in range(4 - height) for left in (0, 1)}


def test_cutout_has_a_colour_for_each_channel():
    made = random_cutout(2, 2, fill=(1, 2, 3))((2, 2, 3), rng()).image(noise((2, 2, 3)))
    assert made.tolist() == [[[1, 2, 3]] * 2] * 2
    with pytest.raises(ValueError, match=r"fill must be one number, or one for each of 1 channels, got \(1, 2, 3\)"):
        Cutout((2, 2), 0, 0, 1, 1, (1, 2, 3)).image(noise((2, 2)))


# Pastes


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [None, 1, 3, 5])
def test_a_paste_is_numpys_padding(channels, dtype):
    shape = (4, 6) if channels is None else (4, 6, channels)
    image = noise(shape, dtype)
    image.flags.writeable = False
    transform = Pasted((4, 6), 2, 3, (9, 11), 7)
    sides = [(2, 3), (3, 2), (0, 0)][: image.ndim]
    np.testing.assert_array_equal(transform.image(image), np.pad(image, sides, constant_values=7))
    np.testing.assert_array_equal(transform.mask(image), np.pad(image, sides))
    assert transform.image(image).dtype == dtype
    assert transform.shape(shape) == (9, 11, *shape[2:])
    assert transform.boxes(np.array([[0, 0, 6, 4]])).tolist() == [[3, 2, 9, 6]]


def test_pastes_are_in_the_middle_or_everywhere():
    assert center_paste((7, 10))((4, 6), rng()) == Pasted((4, 6), 1, 2, (7, 10))
    draw = rng()
    places = {(t.top, t.left) for t in (random_paste((6, 8))((4, 6), draw) for _ in range(300))}
    assert places == {(top, left) for top in range(3) for left in range(3)}


def test_backgrounds_are_colours_or_functions():
    image = noise((4, 6, 3))
    assert center_paste((5, 6), (1, 2, 3))(image.shape, rng()).image(image)[4, 0].tolist() == [1, 2, 3]
    made = center_paste((5, 6), gray)(image.shape, rng()).image(image)
    assert (made[4] == 128).all()
    np.testing.assert_array_equal(made[:4], image)


@pytest.mark.parametrize("augmentor", [center_paste(9, speckled, mask_fill=255), random_paste(9, speckled)], ids=repr)
def test_a_random_background_is_fixed_by_the_transform(augmentor):
    image = noise((4, 6, 3))
    transform = augmentor(image.shape, rng(1))
    again = pickle.loads(pickle.dumps(augmentor))(image.shape, rng(1))
    assert transform == again
    made = transform.image(image)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, transform.image(image))
    np.testing.assert_array_equal(made, again.image(image))
    assert (made != augmentor(image.shape, rng(2)).image(image)).any()


def test_a_background_is_never_painted_on():
    held = np.zeros((5, 5), np.uint8)
    transform = center_paste(5, lambda image, shape, rng: held)((2, 2), rng())
    assert transform.image(np.ones((2, 2), np.uint8)).sum() == 4
    assert not held.any()


def test_a_background_of_another_shape_says_so():
    transform = center_paste(5, lambda image, shape, rng: np.zeros((3, 3)))((2, 2, 3), rng())
    with pytest.raises(ValueError, match=r"the background must be an array of shape \(5, 5, 3\), got shape \(3, 3\)"):
        transform.image(noise((2, 2, 3)))


def test_masks_have_a_fill_of_their_own():
    transform = center_paste((3, 1), 9, mask_fill=-1)((1, 1), rng())
    assert transform.mask(np.array([[5]])).tolist() == [[-1], [5], [-1]]


@pytest.mark.parametrize("augmentor", [center_paste((3, 9)), random_paste((3, 9))], ids=repr)
def test_an_image_too_large_to_paste_says_so(augmentor):
    with pytest.raises(
        ValueError,
        match=r"paste\(\): images must be at most 3 x 9 \(height x width\), got 4 x 6; resize or crop before",
    ):
        augmentor((4, 6, 3), rng())


# What arguments must be


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: random_crop(0),
            ValueError,
            r"random_crop\(\): shape must be a positive integer, or \(height, width\) of two, got 0",
        ),
        (lambda: center_crop("a"), TypeError, r"center_crop\(\): shape must be a positive integer, or"),
        (
            lambda: random_crop_random_shape(5, 4),
            ValueError,
            r"smallest must be at most largest, got smallest=5 and largest=4",
        ),
        (
            lambda: random_crop_random_shape(5, max_aspect_ratio=0.5),
            ValueError,
            r"max_aspect_ratio must be a number >= 1 or None, got 0.5",
        ),
        (
            lambda: random_resized_crop(5, area=(0, 1)),
            ValueError,
            r"random_resized_crop\(\): area must be .* above 0 and up to 1",
        ),
        (
            lambda: random_resized_crop(5, area=(0.5, 1.5)),
            ValueError,
            r"area must be a pair \(low, high\) .*, got \(0.5, 1.5\)",
        ),
        (
            lambda: random_resized_crop(5, aspect=(2, 1)),
            ValueError,
            r"aspect must be a pair \(low, high\) of positive numbers, low <= high",
        ),
        (lambda: random_resized_crop(5, aspect=1), TypeError, r"random_resized_crop\(\): aspect must be a pair"),
        (
            lambda: random_cutout(0, 1),
            ValueError,
            r"random_cutout\(\): height must be a positive integer, or a pair \(low, high\)",
        ),
        (
            lambda: random_cutout(1, (3, 2)),
            ValueError,
            r"random_cutout\(\): width must be .* low <= high, got \(3, 2\)",
        ),
        (
            lambda: random_cutout(1, 1, fill=[]),
            TypeError,
            r"random_cutout\(\): fill must be a number, or a tuple of one for each channel",
        ),
        (lambda: random_cutout(9, 1)((4, 4), rng()), ValueError, r"random_cutout\(\): images must be at least 9 x 1"),
        (
            lambda: center_paste(5, "red"),
            TypeError,
            r"center_paste\(\): background must be a number, a tuple .*, or a function of",
        ),
        (
            lambda: random_paste(5, mask_fill=(1, 2)),
            TypeError,
            r"random_paste\(\): mask_fill must be a number, got \(1, 2\)",
        ),
    ],
)
def test_wrong_arguments_say_what_must_hold(make, error, message):
    with pytest.raises(error, match=message):
        make()
