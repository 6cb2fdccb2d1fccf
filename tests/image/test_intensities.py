"""Intensities: ranges, normalization, dtypes and blur, held against numpy's formulas and scikit-image."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.filters
from marked import noise, rng, smooth
from promises import draws_alike, keeps_its_promises

from flowfn.image.intensities import (
    Blurred,
    Clipped,
    Float32,
    MeanVarianceNormalized,
    MinMaxNormalized,
    Uint8,
    clip,
    gaussian_blur,
    mean_variance_normalize,
    min_max_normalize,
    to_float32,
    to_uint8,
)

ALL = [
    clip(),
    clip(10.4, 200),
    mean_variance_normalize(),
    mean_variance_normalize(per_channel=True),
    min_max_normalize(),
    min_max_normalize(-1, 1, per_channel=True),
    to_uint8(),
    to_float32(),
    gaussian_blur(),
    gaussian_blur(3, (0.5, 2), symmetric=False),
]
SHAPES = [(13, 17), (13, 17, 1), (13, 17, 2), (13, 17, 3), (13, 17, 4), (13, 17, 5)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("augmentor", ALL, ids=repr)
def test_intensities_are_values_that_change_nothing_but_intensities(augmentor, shape, dtype):
    keeps_its_promises(augmentor, shape, dtype)


@pytest.mark.parametrize("augmentor", ALL, ids=repr)
def test_every_drawing_takes_as_many_numbers(augmentor):
    draws_alike(augmentor)


def test_clip_is_numpys_and_rounds_its_bounds_for_uint8():
    image = np.array([[-7.5, 9.6, 30, 251, 400]], np.float32)
    assert np.array_equal(Clipped(9.75, 250.5).image(image), np.clip(image, 9.75, 250.5))
    assert np.array_equal(
        Clipped(9.6, 250.4).image(np.arange(256, dtype=np.uint8)[None]), np.clip(np.arange(256), 10, 250)[None]
    )
    assert np.array_equal(Clipped(-1e9, 1e9).image(noise()), noise())
    assert Clipped(300, 400).image(noise()).min() == 255
    image = noise()
    assert Clipped().image(image) is image
    assert Clipped(3, 5).image(image).dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_mean_variance_normalize_is_the_formula(shape, per_channel, dtype):
    image = noise(shape, dtype)
    axes = (0, 1) if per_channel else None
    values = image.astype(float)
    made = MeanVarianceNormalized(per_channel).image(image)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, (values - values.mean(axes)) / values.std(axes), atol=1e-5)
    np.testing.assert_allclose(made.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(made.std(axes), 1, atol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True])
def test_an_image_of_one_colour_becomes_zero_and_a_faint_one_is_not_blown_up(per_channel):
    assert not MeanVarianceNormalized(per_channel).image(np.full((30, 40, 3), 250, np.uint8)).any()
    faint = np.full((30, 40, 3), 100, np.float32)
    faint[0, 0] += 1e-3
    values = faint.astype(float)
    expected = (values - values.mean((0, 1))) * np.sqrt(faint.size)  # the least standard deviation is 1 / sqrt(size)
    np.testing.assert_allclose(MeanVarianceNormalized(per_channel).image(faint), expected, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (0.1, 0.7)])
def test_min_max_normalize_is_the_formula_and_goes_exactly_from_low_to_high(shape, per_channel, low, high, dtype):
    image = noise(shape, dtype, seed=4) // 2 + 30
    image = image.astype(dtype)
    axes = (0, 1) if per_channel else None
    values = image.astype(float)
    made = MinMaxNormalized(low, high, per_channel).image(image)
    assert made.dtype == np.float32
    least, greatest = values.min(axes), values.max(axes)
    np.testing.assert_allclose(made, (values - least) / (greatest - least) * (high - low) + low, atol=1e-4)
    assert made.min() == np.float32(low)
    assert made.max() == pytest.approx(high, rel=1e-6)
    assert made.max() <= np.float32(high)


@pytest.mark.parametrize("per_channel", [False, True])
def test_an_image_of_one_colour_is_stretched_to_low(per_channel):
    image = np.full((5, 6, 3), 77, np.uint8)
    assert (MinMaxNormalized(-2, 5, per_channel).image(image) == -2).all()
    image[0, 0, 1] = 80
    assert MinMaxNormalized(-2, 5, per_channel).image(image)[0, 0, 1] == 5


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_to_uint8_rounds_and_clips_and_never_wraps(dtype):
    values = np.array([[-np.inf, -1, -0.4, 0.4, 0.6, 1.5, 2.5, 254.4, 255, 255.6, 256, 300, 6e4, np.inf]], dtype)
    assert Uint8().image(values).tolist() == [[0, 0, 0, 0, 1, 2, 2, 254, 255, 255, 255, 255, 255, 255]]
    huge = np.array([[1e12, -1e12]], np.float32)
    assert Uint8().image(huge).tolist() == [[255, 0]]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_integers_become_uint8_exactly(dtype):
    values = np.array([[np.iinfo(dtype).min, 0, 1, 99, 127, np.iinfo(dtype).max]], dtype)
    assert Uint8().image(values).tolist() == [[0, 0, 1, 99, 127, min(255, np.iinfo(dtype).max)]]
    assert Float32().image(values).dtype == np.float32


def test_conversions_take_any_dtype_and_return_what_is_so_already():
    image = noise()
    assert Uint8().image(image) is image
    assert Uint8().image(image > 100).tolist() == (image > 100).astype(int).tolist()
    image = image.astype(np.float32)
    assert Float32().image(image) is image
    assert np.array_equal(Float32().image(noise()), image)
    with pytest.raises(TypeError, match=r"Uint8\(\): an image must hold real numbers, got complex128"):
        Uint8().image(np.zeros((2, 2), complex))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("radius", "sigma"), [(2, 0.8), (4, 1.3), (10, 2.5)])
def test_blur_is_scikit_images(radius, sigma, shape):
    image = smooth(shape)
    expected = skimage.filters.gaussian(
        image.astype(float), sigma, mode="nearest", truncate=radius / sigma, channel_axis=2 if len(shape) == 3 else None
    )
    np.testing.assert_allclose(Blurred((radius, radius), (sigma, sigma)).image(image), expected, atol=1e-3)
    whole = np.rint(image).astype(np.uint8)
    made = Blurred((radius, radius), (sigma, sigma)).image(whole)
    expected = skimage.filters.gaussian(
        whole.astype(float), sigma, mode="nearest", truncate=radius / sigma, channel_axis=2 if len(shape) == 3 else None
    )
    assert made.dtype == np.uint8
    assert np.abs(made - expected).max() <= 1.5


def test_a_blur_of_its_own_in_each_direction():
    image = smooth((20, 30))
    expected = scipy.ndimage.gaussian_filter(image.astype(float), (2, 0.7), mode="nearest", radius=(5, 1))
    np.testing.assert_allclose(Blurred((1, 5), (0.7, 2)).image(image), expected, atol=1e-3)
    assert np.array_equal(Blurred((1, 0)).image(image.T), Blurred((0, 1)).image(image).T)


def test_a_small_window_without_sigma_is_binomial():
    image = np.zeros((1, 9), np.float32)
    image[0, 4] = 160
    assert Blurred((1, 0)).image(image).tolist() == [[0, 0, 0, 40, 80, 40, 0, 0, 0]]
    assert Blurred((2, 0)).image(image).tolist() == [[0, 0, 10, 40, 60, 40, 10, 0, 0]]


def test_radius_and_sigma_are_drawn_from_their_ranges():
    drawn = [gaussian_blur((1, 4), (0.5, 2))((9, 9), rng(seed)) for seed in range(200)]
    assert {blur.radius[0] for blur in drawn} == {1, 2, 3, 4}
    assert all(blur.radius[0] == blur.radius[1] and blur.sigma[0] == blur.sigma[1] for blur in drawn)
    assert 0.5 <= min(blur.sigma[0] for blur in drawn) < 0.6
    assert 1.9 < max(blur.sigma[0] for blur in drawn) <= 2
    apart = [gaussian_blur((1, 4), (0.5, 2), symmetric=False)((9, 9), rng(seed)) for seed in range(200)]
    assert len({blur.radius for blur in apart}) == 16
    assert any(blur.sigma[0] != blur.sigma[1] for blur in apart)
    assert gaussian_blur(3, 1.5)((9, 9), rng()) == Blurred((3, 3), (1.5, 1.5))
    assert gaussian_blur([0, 2]) == gaussian_blur()


def test_no_radius_is_no_blur():
    image = noise()
    assert gaussian_blur(0)(image.shape, rng()).image(image) is image


@pytest.mark.parametrize(
    "transform", [Clipped(), MeanVarianceNormalized(), MinMaxNormalized(), Blurred((1, 1))], ids=repr
)
def test_other_dtypes_and_empty_images_are_refused(transform):
    with pytest.raises(
        TypeError,
        match=rf"{type(transform).__name__}\(\): an image must be uint8 or float32, got float64; to_uint8\(\) or",
    ):
        transform.image(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"an image must be an array .* that is not empty, got shape"):
        transform.image(np.zeros((0, 2), np.uint8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: clip(5, 5), ValueError, r"clip\(\): low must be less than high, got 5 and 5"),
        (lambda: clip("a"), TypeError, r"clip\(\): low must be a finite number, got 'a'"),
        (
            lambda: min_max_normalize(1, 0),
            ValueError,
            r"min_max_normalize\(\): low must be less than high, got 1 and 0",
        ),
        (
            lambda: min_max_normalize(per_channel=1),
            TypeError,
            r"min_max_normalize\(\): per_channel must be True or False, got 1",
        ),
        (
            lambda: mean_variance_normalize(per_channel="no"),
            TypeError,
            r"mean_variance_normalize\(\): per_channel must be True or False",
        ),
        (
            lambda: gaussian_blur(-1),
            ValueError,
            r"gaussian_blur\(\): radius must be an integer >= 0, or a pair .*, got -1",
        ),
        (lambda: gaussian_blur((3, 2)), ValueError, r"gaussian_blur\(\): radius must be .*low <= high, got \(3, 2\)"),
        (lambda: gaussian_blur(1.5), TypeError, r"gaussian_blur\(\): radius must be .*got 1.5"),
        (
            lambda: gaussian_blur(1, 0),
            ValueError,
            r"gaussian_blur\(\): sigma must be a positive number, .* or None, got 0",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
