"""Noise: the same whenever a transform is applied, distributed as it says,
and without a trace in global random state."""

import io

import numpy as np
import PIL.Image
import pytest
import scipy.stats
from marked import noise, rng, smooth
from promises import as_rounded, draws_alike, keeps_its_promises

from flowfn.image.noise import (
    GaussianNoise,
    JpegCompressed,
    SaltAndPepper,
    gaussian_noise,
    jpeg_noise,
    salt_pepper_noise,
)

ADDED = [gaussian_noise(), gaussian_noise((5, 30), clip=False), salt_pepper_noise(), salt_pepper_noise(0.5, 0)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(13, 17), (13, 17, 1), (13, 17, 2), (13, 17, 3), (13, 17, 4), (13, 17, 5)])
@pytest.mark.parametrize("augmentor", ADDED, ids=repr)
def test_noise_is_a_small_value_for_any_number_of_channels(augmentor, shape, dtype):
    keeps_its_promises(augmentor, shape, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(13, 17), (13, 17, 1), (13, 17, 3), (1, 1, 3)])
@pytest.mark.parametrize("augmentor", [jpeg_noise(), jpeg_noise(0), jpeg_noise((90, 100))], ids=repr)
def test_jpeg_noise_is_a_value_for_gray_and_colour(augmentor, shape, dtype):
    keeps_its_promises(augmentor, shape, dtype)


@pytest.mark.parametrize("augmentor", [*ADDED, jpeg_noise()], ids=repr)
def test_every_drawing_takes_as_many_numbers(augmentor):
    draws_alike(augmentor)


def test_no_global_random_state_moves():
    before = np.random.get_state()[1].copy()
    for augmentor in ADDED:
        augmentor((5, 5), rng()).image(noise((5, 5)))
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("quality", [5, 40, 75, 95])
def test_jpeg_noise_is_what_pillow_makes_of_it(quality):
    image = as_rounded(smooth((64, 80, 3)))
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=quality)
    expected = np.asarray(PIL.Image.open(file)).astype(int)
    made = JpegCompressed(quality).image(image).astype(int)
    assert np.abs(made - expected).mean() < 0.5
    assert np.abs(made - image).mean() < 12


def test_jpeg_noise_knows_red_from_blue():
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 250
    made = JpegCompressed(90).image(red)
    assert np.abs(made.astype(int) - red).max() <= 3
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[:, 13:, 2] = 255  # blue has the least say in lightness: reversed channels would come out otherwise
    file = io.BytesIO()
    PIL.Image.fromarray(edge).save(file, "JPEG", quality=30)
    assert np.abs(JpegCompressed(30).image(edge).astype(int) - np.asarray(PIL.Image.open(file))).mean() < 1


def test_the_less_the_quality_the_more_the_noise():
    image = as_rounded(smooth((64, 80)) + 20 * rng().standard_normal((64, 80)))
    errors = [
        np.abs(JpegCompressed(quality).image(image).astype(int) - image).mean() for quality in (2, 20, 50, 80, 100)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


def test_jpeg_noise_of_float32_is_that_of_its_rounded_values():
    image = smooth((20, 30, 3)) * 1.2 - 20
    assert np.array_equal(
        JpegCompressed(50).image(image), JpegCompressed(50).image(as_rounded(image)).astype(np.float32)
    )


def test_quality_is_drawn_with_both_ends():
    assert {jpeg_noise((40, 43))((8, 8), rng(seed)).quality for seed in range(100)} == {40, 41, 42, 43}
    assert jpeg_noise(77)((8, 8), rng()) == JpegCompressed(77)


def test_gaussian_noise_is_normal():
    added = GaussianNoise(10, 7, clip=False).image(np.zeros((300, 300), np.float32)).ravel() / 10
    assert scipy.stats.kstest(added, "norm").pvalue > 0.01
    image = np.full((200, 200, 3), 128, np.float32)
    channels = (GaussianNoise(10, 7).image(image) - image).reshape(-1, 3)
    assert np.abs(np.corrcoef(channels.T) - np.eye(3)).max() < 0.02  # each has noise of its own


def test_gaussian_noise_of_uint8_is_that_of_float32_rounded_and_clipped():
    image = noise((50, 60, 3))
    for sigma in (0, 3, 200, 1e12):
        exact = GaussianNoise(sigma, 5, clip=False).image(image.astype(np.float32)).astype(float)
        made = GaussianNoise(sigma, 5).image(image)
        assert np.array_equal(made, as_rounded(exact)) or np.abs(made - exact.clip(0, 255)).max() < 0.501
    clipped = GaussianNoise(200, 5).image(image.astype(np.float32))
    assert clipped.min() == 0
    assert clipped.max() == 255


def test_sigma_is_drawn_and_seeds_differ():
    drawn = [gaussian_noise((5, 30))((8, 8), rng(seed)) for seed in range(200)]
    assert 5 <= min(one.sigma for one in drawn) < 6
    assert 29 < max(one.sigma for one in drawn) <= 30
    assert len({one.seed for one in drawn}) == 200
    assert gaussian_noise(4)((8, 8), rng()).sigma == 4


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("white", "black"), [(0.05, 0.05), (0.3, 0), (0, 0.2), (0.5, 0.5), (1, 0), (0, 1), (0, 0)])
def test_salt_and_pepper_come_as_often_as_asked_for(white, black, dtype):
    image = np.full((200, 200, 3), 128, dtype)
    made = SaltAndPepper(white, black, 3).image(image)
    assert made.dtype == dtype
    assert (made == 255).mean() == pytest.approx(white, abs=0.005)
    assert (made == 0).mean() == pytest.approx(black, abs=0.005)
    assert ((made == 128) | (made == 0) | (made == 255)).all()


def test_salt_and_pepper_fall_on_each_channel_by_itself_and_wherever_they_fall_once_they_fall_again():
    transform = SaltAndPepper(0.1, 0.1, 9)
    made = transform.image(np.full((100, 100, 3), 128, np.uint8))
    assert not np.array_equal(made[..., 0], made[..., 1])
    assert np.array_equal(transform.image(np.full((100, 100, 3), 7, np.float32)) == 255, made == 255)


@pytest.mark.parametrize("shape", [(4, 5, 2), (4, 5, 4), (1, 65501), (65501, 1, 3)])
def test_what_jpeg_cannot_hold_is_refused(shape):
    message = r"\(\): for JPEG an image must have 1 or 3 channels and sides of at most 65500 pixels, got shape \("
    with pytest.raises(ValueError, match="jpeg_noise" + message):
        jpeg_noise()(shape, rng())
    with pytest.raises(ValueError, match="JpegCompressed" + message):
        JpegCompressed(50).image(np.zeros(shape, np.uint8))


def test_the_longest_side_that_jpeg_can_hold():
    assert JpegCompressed(50).image(np.zeros((1, 65500), np.uint8)).shape == (1, 65500)


@pytest.mark.parametrize("transform", [JpegCompressed(50), GaussianNoise(3, 0), SaltAndPepper(0.1, 0.1, 0)], ids=repr)
def test_other_dtypes_are_refused_with_the_remedy(transform):
    with pytest.raises(
        TypeError,
        match=rf"{type(transform).__name__}\(\): an image must be uint8 or float32, got uint16; to_uint8\(\) or",
    ):
        transform.image(np.zeros((4, 5), np.uint16))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: jpeg_noise(101),
            ValueError,
            r"jpeg_noise\(\): quality must be an integer from 0 to 100, or a pair .*, got 101",
        ),
        (lambda: jpeg_noise((50, 40)), ValueError, r"jpeg_noise\(\): quality must be .*low <= high, got \(50, 40\)"),
        (lambda: jpeg_noise(0.5), TypeError, r"jpeg_noise\(\): quality must be .*got 0.5"),
        (
            lambda: gaussian_noise(-1),
            ValueError,
            r"gaussian_noise\(\): sigma must be a number >= 0 or a pair .*, got -1",
        ),
        (lambda: gaussian_noise(None), TypeError, r"gaussian_noise\(\): sigma must be .*got None"),
        (lambda: gaussian_noise(1, clip="no"), TypeError, r"gaussian_noise\(\): clip must be True or False, got 'no'"),
        (
            lambda: salt_pepper_noise(1.5),
            ValueError,
            r"salt_pepper_noise\(\): white must be a number from 0 to 1, got 1.5",
        ),
        (
            lambda: salt_pepper_noise(0.6, 0.6),
            ValueError,
            r"salt_pepper_noise\(\): white \+ black must be at most 1, got 0.6 and 0.6",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
