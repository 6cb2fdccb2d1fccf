"""Colour: what comes out is what the formula says, in uint8 and float32, and nothing else moves."""

import colorsys

import numpy as np
import pytest
import skimage.color
import skimage.exposure
from marked import noise, rng
from promises import as_rounded, draws_alike, keeps_its_promises

from flowfn.image.color_spaces import Converted, Grayed, color_space, grayscale
from flowfn.image.colors import (
    IMAGENET_EIGENVALUES,
    IMAGENET_EIGENVECTORS,
    HueShifted,
    Saturated,
    hue,
    lighting,
    saturation,
)
from flowfn.image.tones import Contrasted, GammaCorrected, Scaled, brightness, brightness_scale, contrast, gamma

ANY_CHANNELS = [
    brightness(40),
    brightness((-20, 5.5), clip=False),
    brightness_scale(0.4),
    brightness_scale((0.5, 3), clip=False),
    contrast(0.4),
    contrast((0.2, 2), clip=False),
    gamma(),
    gamma((0.3, 3)),
]
RGB = [
    hue(),
    hue((10, 20)),
    saturation(),
    saturation((0, 3), clip=False),
    lighting(),
    lighting(3, clip=False),
    contrast(0.5, per_channel=False),
]
SPACES = [
    grayscale(),
    grayscale(3),
    grayscale(None),
    *(color_space(name) for name in ("bgr", "gray", "hsv", "hls", "lab", "ycrcb")),
]
WEIGHTS = np.array([0.299, 0.587, 0.114])


def exact(shape=(30, 40, 3), dtype=np.uint8, seed=0):
    """An image, and the same in float64."""
    image = noise(shape, dtype, seed)
    return image, image.astype(float)


def turned(image, degrees):
    return np.array([[255 * c for c in colorsys.hsv_to_rgb((h + degrees / 360) % 1, s, v)] for h, s, v in (
        colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in image.reshape(-1, 3)
    )]).reshape(image.shape)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("augmentor", ANY_CHANNELS + RGB + SPACES, ids=repr)
def test_colors_are_values_that_change_nothing_but_colors(augmentor, dtype):
    keeps_its_promises(augmentor, dtype=dtype)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1), (7, 9, 2), (7, 9, 4), (7, 9, 5), (1, 1, 3)])
@pytest.mark.parametrize("augmentor", ANY_CHANNELS, ids=repr)
def test_any_number_of_channels_where_colour_has_no_say(augmentor, shape):
    keeps_its_promises(augmentor, shape)
    keeps_its_promises(augmentor, shape, np.float32)


@pytest.mark.parametrize("augmentor", ANY_CHANNELS + [hue(), saturation(), contrast(0.5, per_channel=False)], ids=repr)
def test_every_drawing_takes_as_many_numbers(augmentor):
    draws_alike(augmentor)


@pytest.mark.parametrize("degrees", [-170, -90.5, -1, 0, 3.3, 60, 120, 181, 359.9, 720])
def test_hue_turns_hues_as_colorsys_does(degrees):
    image, values = exact()
    assert np.abs(HueShifted(degrees).image(image).astype(float) - turned(values, degrees)).max() <= 0.51
    made = HueShifted(degrees).image(values.astype(np.float32))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, turned(values, degrees), atol=2e-3)


@pytest.mark.parametrize("shape", [(301, 100, 3), (3, 30000, 3), (1, 1, 3), (219, 100, 3)])
def test_hue_is_the_same_in_strips(shape):
    image = noise(shape)
    colours = image.reshape(-1, 3)[:99]
    whole = np.concatenate([HueShifted(50).image(image[row : row + 1]) for row in range(len(image))])
    assert np.array_equal(HueShifted(50).image(image), whole)
    assert np.array_equal(
        HueShifted(50).image(colours[None]),
        np.concatenate([HueShifted(50).image(one[None, None]) for one in colours], 1),
    )
    exact = HueShifted(50).image(image.astype(np.float32))
    assert np.abs(exact - whole).max() <= 0.501


def test_hue_keeps_value_and_saturation_of_scikit_image_and_turns_its_hue():
    _, values = exact()
    before = skimage.color.rgb2hsv(values / 255)
    after = skimage.color.rgb2hsv(HueShifted(75).image(values.astype(np.float32)).clip(0, 255) / 255.0)
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=1e-4)
    apart = (after[..., 0] - before[..., 0] - 75 / 360 + 0.5) % 1 - 0.5
    assert np.abs(apart[before[..., 1] > 0.05]).max() < 1e-3


def test_a_whole_turn_of_hue_is_the_image_itself_and_gray_has_no_hue():
    image = noise()
    assert HueShifted(0).image(image) is image
    assert HueShifted(-360).image(image) is image
    gray = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    assert np.array_equal(HueShifted(100).image(gray), gray)


def test_hue_is_drawn_from_its_range_and_a_number_means_both_ways():
    angles = [hue(30)((1, 1, 3), rng(seed)).degrees for seed in range(200)]
    assert -30 <= min(angles) < -25
    assert 25 < max(angles) <= 30
    angles = [hue((10, 20))((1, 1, 3), rng(seed)).degrees for seed in range(200)]
    assert 10 <= min(angles) < 11
    assert 19 < max(angles) <= 20


@pytest.mark.parametrize("shape", [(30, 40, 3), (30, 40), (30, 40, 2), (30, 40, 5)])
@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 12.25), (1, -300), (1, 1e12), (1.37, 0), (0, 0), (1e12, 0), (-1, 255), (0.5, 7)]
)
def test_scaling_and_shifting_is_rounded_and_clipped_and_never_wraps(shape, scale, offset):
    image, values = exact(shape)
    assert np.array_equal(Scaled(scale, (offset,)).image(image), as_rounded(values * scale + offset))
    expected = values * scale + offset
    np.testing.assert_allclose(
        Scaled(scale, (offset,), clip=False).image(values.astype(np.float32)), expected, rtol=2e-5, atol=1e-4
    )
    np.testing.assert_allclose(
        Scaled(scale, (offset,)).image(values.astype(np.float32)), expected.clip(0, 255), atol=1e-4
    )


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_an_offset_for_each_channel(count):
    image, values = exact((30, 40, count))
    offsets = tuple(rng().normal(0, 60, count).tolist())
    assert np.array_equal(Scaled(1.1, offsets).image(image), as_rounded(values * 1.1 + offsets))
    np.testing.assert_allclose(
        Scaled(1.1, offsets, clip=False).image(values.astype(np.float32)), values * 1.1 + offsets, atol=1e-4
    )
    with pytest.raises(
        ValueError, match=rf"Scaled\(\): an image must have {count} channels, one for each offset, got shape \(3, 4\)"
    ):
        Scaled(1.1, offsets).image(np.zeros((3, 4), np.uint8))


def test_brightness_adds_what_is_drawn_and_brightness_scale_multiplies():
    amounts = [brightness(63)((2, 2), rng(seed)).offsets[0] for seed in range(200)]
    assert -63 <= min(amounts) < -55
    assert 55 < max(amounts) <= 63
    factors = [brightness_scale(0.4)((2, 2), rng(seed)).scale for seed in range(200)]
    assert 0.6 <= min(factors) < 0.65
    assert 1.35 < max(factors) <= 1.4
    assert brightness_scale((0.6, 1.4))((2, 2), rng(1)).scale == pytest.approx(
        brightness_scale(0.4)((2, 2), rng(1)).scale
    )
    assert brightness(3, clip=False)((2, 2), rng()).clip is False


def test_no_change_is_the_image_itself():
    image = noise()
    assert Scaled().image(image) is image
    assert Saturated(1).image(image) is image
    assert Scaled(clip=False).image(image.astype(np.float32)).dtype == np.float32
    outside = np.full((2, 2, 3), 300, np.float32)
    assert Scaled().image(outside).max() == 255
    assert outside.max() == 300


@pytest.mark.parametrize("factor", [0, 0.3, 1, 1.8, 1e9])
@pytest.mark.parametrize("shape", [(30, 40, 3), (30, 40), (30, 40, 1), (30, 40, 4), (30, 40, 6)])
def test_contrast_multiplies_distances_from_the_mean_of_each_channel(factor, shape):
    image, values = exact(shape)
    mean = values.mean((0, 1))
    assert np.array_equal(Contrasted(factor).image(image), as_rounded((values - mean) * factor + mean))
    made = Contrasted(factor).image(values.astype(np.float32))
    np.testing.assert_allclose(made, ((values - mean) * factor + mean).clip(0, 255), atol=2e-3)


@pytest.mark.parametrize("factor", [0, 0.6, 1.4])
def test_contrast_around_the_mean_of_the_gray_image(factor):
    image, values = exact()
    mean = (values @ WEIGHTS).mean()
    assert np.array_equal(
        Contrasted(factor, per_channel=False).image(image), as_rounded((values - mean) * factor + mean)
    )
    gray = noise((30, 40))
    assert np.array_equal(Contrasted(factor, per_channel=False).image(gray), Contrasted(factor).image(gray))


@pytest.mark.parametrize("factor", [0, 0.4, 1.6, 3, 1e9])
def test_saturation_multiplies_distances_from_gray(factor):
    image, values = exact()
    gray = (values @ WEIGHTS)[..., None]
    expected = gray + (values - gray) * factor
    if factor < 100:  # of more, fixed-point arithmetic cannot say what a hundredth of a level becomes
        assert np.abs(Saturated(factor).image(image).astype(int) - as_rounded(expected)).max() <= 1
        np.testing.assert_allclose(Saturated(factor, clip=False).image(values.astype(np.float32)), expected, atol=1e-3)
    np.testing.assert_allclose(
        Saturated(factor).image(values.astype(np.float32)), expected.clip(0, 255), atol=1e-3 * max(1, factor)
    )
    far = np.abs(values - gray) > 3
    direction = np.where(values > gray, 255, 0)
    assert factor < 100 or np.array_equal(Saturated(factor).image(image)[far], direction[far])


def test_saturation_leaves_gray_alone_and_without_it_all_is_gray():
    gray = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    for factor in np.linspace(0, 3, 31).tolist():
        assert np.array_equal(Saturated(factor).image(gray), gray)
    image = noise()
    assert np.abs(Saturated(0).image(image).astype(int) - Grayed(3).image(image)).max() <= 1


def test_lighting_adds_a_colour_along_the_principal_axes():
    draw = rng(5).standard_normal(3)
    offsets = np.array(lighting(0.1)((9, 9, 3), rng(5)).offsets)
    expected = sum(0.1 * draw[i] * IMAGENET_EIGENVALUES[i] * np.array(IMAGENET_EIGENVECTORS)[:, i] for i in range(3))
    np.testing.assert_allclose(offsets, expected)
    reverse = np.array(IMAGENET_EIGENVECTORS)[::-1, ::-1] @ (np.array(IMAGENET_EIGENVALUES)[::-1] * 0.1 * draw[::-1])
    np.testing.assert_allclose(offsets[::-1], reverse)  # as scripts for BGR images write it


def test_lighting_is_distributed_as_the_eigenvalues_say():
    colours = np.array([lighting(0.5)((9, 9, 3), rng(seed)).offsets for seed in range(4000)])
    axes = np.array(IMAGENET_EIGENVECTORS)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=2e-3)
    np.testing.assert_allclose((colours @ axes).std(0), 0.5 * np.array(IMAGENET_EIGENVALUES), rtol=0.05)


def test_lighting_takes_arrays_and_stays_a_value():
    plain = lighting(0.2, np.array([1, 2, 3]), np.eye(3))
    assert plain == lighting(0.2, (1.0, 2.0, 3.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    np.testing.assert_allclose(plain((1, 1, 3), rng()).offsets, 0.2 * rng().standard_normal(3) * [1, 2, 3])


@pytest.mark.parametrize("value", [0.2, 0.5, 1, 1.7, 4])
def test_gamma_is_a_power_of_the_share_of_white(value):
    image, values = exact()
    assert np.array_equal(GammaCorrected(value).image(image), as_rounded(255 * (values / 255) ** (1 / value)))
    made = GammaCorrected(value).image(values.astype(np.float32))
    np.testing.assert_allclose(made, 255 * skimage.exposure.adjust_gamma(values / 255, 1 / value), atol=1e-3)
    outside = np.array([[-5, 300]], np.float32)
    assert GammaCorrected(value).image(outside).tolist() == [[0, 255]]


def test_gamma_is_drawn_around_one():
    values = [gamma(0.5)((2, 2), rng(seed)).gamma for seed in range(200)]
    assert 0.5 <= min(values) < 0.55
    assert 1.45 < max(values) <= 1.5


@pytest.mark.parametrize(
    ("name", "reference", "scale", "tolerance"),
    [
        ("hsv", skimage.color.rgb2hsv, (360, 1, 1), 1e-3),
        ("lab", skimage.color.rgb2lab, (1, 1, 1), 0.5),
        ("luv", skimage.color.rgb2luv, (1, 1, 1), 0.05),
    ],
)
def test_color_spaces_are_those_of_scikit_image(name, reference, scale, tolerance):
    _, values = exact()
    made = Converted(name).image(values.astype(np.float32))
    np.testing.assert_allclose(made, reference(values / 255) * scale, atol=tolerance)


@pytest.mark.parametrize("name", ["bgr", "hsv", "hls", "lab", "luv", "xyz", "ycrcb", "yuv"])
def test_color_spaces_lead_back(name):
    _, values = exact()
    image = values.astype(np.float32)
    np.testing.assert_allclose(Converted("rgb", name).image(Converted(name).image(image)), image, atol=1)
    assert Converted(name).image(noise()).dtype == np.uint8


def test_xyz_is_the_matrix_of_rec_709():
    _, values = exact()
    np.testing.assert_allclose(
        Converted("xyz").image(values.astype(np.float32)),
        values / 255 @ skimage.color.colorconv.xyz_from_rgb.T,
        atol=1e-3,
    )


def test_gray_is_what_bt_601_says_in_the_shape_asked_for():
    image, values = exact()
    gray = values @ WEIGHTS
    assert Grayed(None).image(image).shape == (30, 40)
    assert np.abs(Grayed(None).image(image) - gray).max() <= 0.51
    np.testing.assert_allclose(Grayed(1).image(values.astype(np.float32))[..., 0], gray, atol=1e-3)
    assert np.array_equal(Grayed(3).image(image), np.repeat(Grayed(1).image(image), 3, 2))
    assert np.array_equal(Converted("gray").image(image), Grayed(1).image(image))
    assert np.array_equal(Converted("gray", "bgr").image(image[..., ::-1]), Grayed(1).image(image))
    assert np.array_equal(Converted("rgb", "gray").image(Grayed(1).image(image)), Grayed(3).image(image))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_gray_images_are_only_given_the_shape(shape):
    image = noise(shape)
    for channels, wanted in ((None, (4, 5)), (1, (4, 5, 1)), (3, (4, 5, 3))):
        made = grayscale(channels)(shape, rng()).image(image)
        assert made.shape == wanted
        assert np.array_equal(made.reshape(4, 5, -1)[..., 0], image.reshape(4, 5))
    assert Grayed(None if len(shape) == 2 else 1).image(image) is image


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 4)])
@pytest.mark.parametrize(
    ("augmentor", "name"),
    [(hue(), "hue"), (saturation(), "saturation"), (lighting(), "lighting"), (color_space("hsv"), "color_space")],
)
def test_the_hue_of_a_gray_image_is_an_error(augmentor, name, shape):
    with pytest.raises(
        ValueError, match=rf"^{name}\(\): an image must have 3 channels, got shape \({', '.join(map(str, shape))}\)$"
    ):
        augmentor(shape, rng())


@pytest.mark.parametrize(
    "transform", [HueShifted(9), Saturated(2), Converted("lab"), Contrasted(2, per_channel=False)], ids=repr
)
def test_a_transform_for_colours_refuses_other_images(transform):
    with pytest.raises(
        ValueError, match=rf"{type(transform).__name__}\(\): an image must have .*3 channels.*got shape \(4, 5, 4\)"
    ):
        transform.image(np.zeros((4, 5, 4), np.uint8))


def test_wrong_numbers_of_channels_are_named():
    with pytest.raises(
        ValueError,
        match=r"contrast\(\): an image must have 1 or 3 channels for per_channel=False, got shape \(4, 5, 4\)",
    ):
        contrast(0.5, per_channel=False)((4, 5, 4), rng())
    with pytest.raises(ValueError, match=r"grayscale\(\): an image must have 3 channels, got shape \(4, 5, 2\)"):
        grayscale()((4, 5, 2), rng())
    with pytest.raises(ValueError, match=r"color_space\(\): a gray image must have 1 channel, got shape \(4, 5, 3\)"):
        color_space("rgb", origin="gray")((4, 5, 3), rng())
    with pytest.raises(ValueError, match=r"an image must be an array .* that is not empty, got shape"):
        brightness(3)((0, 5), rng())


@pytest.mark.parametrize(
    "transform",
    [HueShifted(9), Scaled(2), Contrasted(2), Saturated(2), GammaCorrected(2), Grayed(), Converted("hsv")],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [np.float64, np.uint16, np.int64, bool])
def test_other_dtypes_are_refused_with_the_remedy(transform, dtype):
    name = type(transform).__name__
    with pytest.raises(
        TypeError,
        match=rf"^{name}\(\): an image must be uint8 or float32, got {np.dtype(dtype)}; to_uint8\(\) or to_float32\(\)",
    ):
        transform.image(np.zeros((4, 5, 3), dtype))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hue((20, 10)), ValueError, r"hue\(\): degrees must be a number .*low <= high, got \(20, 10\)"),
        (lambda: hue("red"), TypeError, r"hue\(\): degrees must be a number .*, got 'red'"),
        (lambda: brightness(-3), ValueError, r"brightness\(\): change must be a number .*, got -3"),
        (lambda: brightness(float("inf")), ValueError, r"brightness\(\): change must be"),
        (lambda: brightness(3, clip=1), TypeError, r"brightness\(\): clip must be True or False, got 1"),
        (
            lambda: brightness_scale(1.4),
            ValueError,
            r"brightness_scale\(\): factor must be a number n from 0 to 1 .*, got 1.4",
        ),
        (
            lambda: brightness_scale((-1, 2)),
            ValueError,
            r"brightness_scale\(\): factor must be .*0 <= low <= high, got \(-1, 2\)",
        ),
        (lambda: contrast((1, 2, 3)), TypeError, r"contrast\(\): factor must be .*got \(1, 2, 3\)"),
        (
            lambda: contrast(0.5, per_channel=None),
            TypeError,
            r"contrast\(\): per_channel must be True or False, got None",
        ),
        (lambda: saturation(True), TypeError, r"saturation\(\): factor must be .*got True"),
        (lambda: gamma(1), ValueError, r"gamma\(\): gamma must be a number n >= 0 and < 1 .*, 0 < low <= high, got 1"),
        (lambda: gamma([0, 2]), ValueError, r"gamma\(\): gamma must be .*got \[0, 2\]"),
        (lambda: lighting(-1), ValueError, r"lighting\(\): std must be a finite number >= 0, got -1"),
        (
            lambda: lighting(0.1, (1, 2)),
            ValueError,
            r"lighting\(\): eigenvalues must be 3 finite numbers, got \(1, 2\)",
        ),
        (lambda: lighting(0.1, "abc"), ValueError, r"lighting\(\): eigenvalues must be 3 finite numbers, got 'abc'"),
        (
            lambda: lighting(eigenvectors=((1, 2, 3),) * 2),
            ValueError,
            r"lighting\(\): eigenvectors must be 3 rows \(red, green, blue\) of 3",
        ),
        (lambda: color_space("cmyk"), ValueError, r"color_space\(\): target must be 'rgb', .* or 'yuv', got 'cmyk'"),
        (
            lambda: color_space("hsv", origin="lab"),
            ValueError,
            r"target and origin must be two spaces, one of them 'rgb' or 'bgr', got 'hsv' and 'lab'",
        ),
        (lambda: color_space("rgb"), ValueError, r"target and origin must be two spaces, .*got 'rgb' and 'rgb'"),
        (lambda: grayscale(2), ValueError, r"grayscale\(\): channels must be 1, 3 or None, got 2"),
        (lambda: grayscale(True), TypeError, r"grayscale\(\): channels must be 1, 3 or None, got True"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_list_is_as_good_as_a_pair():
    assert hue([1, 2]) == hue((1, 2))
    assert brightness_scale([0.5, 1]) == brightness_scale((0.5, 1))
    assert gamma([0.5, 1])((2, 2), rng()) == gamma((0.5, 1))((2, 2), rng())
