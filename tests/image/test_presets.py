"""Presets: the pipelines of the ResNet script, step by step as it computes them."""

import cv2
import numpy as np
import pytest
from marked import noise, rng, smooth
from promises import as_rounded

from flowfn.image.colors import Saturated
from flowfn.image.composing import sequence
from flowfn.image.cropping import Cropped
from flowfn.image.geometry import Flipped, Resized
from flowfn.image.intensities import to_float32
from flowfn.image.presets import fbresnet_train, fbresnet_val
from flowfn.image.tones import Contrasted, Scaled

BGR_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])[::-1] * 255.0
BGR_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])[
    ::-1, ::-1
]


def parts(shape=(300, 400, 3), seed=0):
    return fbresnet_train()(shape, rng(seed)).transforms


def test_training_images_are_224_by_224_and_uint8_whatever_they_were():
    for seed, shape in enumerate([(480, 640, 3), (224, 224, 3), (50, 1000, 3), (3, 3, 3)]):
        image = noise(shape)
        kept = image.copy()
        transform = fbresnet_train()(shape, rng(seed))
        made = transform.image(image)
        assert made.shape == transform.shape(shape) == (224, 224, 3)
        assert made.dtype == np.uint8
        assert np.array_equal(image, kept)
        assert np.array_equal(transform.image(image), made)
        assert fbresnet_train()(shape, rng(seed)) == transform
    assert fbresnet_train((96, 128), interpolation="linear")((480, 640, 3), rng()).shape((480, 640, 3)) == (96, 128, 3)


def test_training_crops_then_changes_colours_in_any_order_then_flips():
    kinds = [tuple(type(one) for one in parts(seed=seed)) for seed in range(200)]
    assert all(kind[:2] == (Cropped, Resized) for kind in kinds)
    assert all(
        sorted(map(str, kind[2:6])) == sorted(map(str, (Scaled, Contrasted, Saturated, Scaled))) for kind in kinds
    )
    assert len({kind[2:6] for kind in kinds}) == 12  # two of the four are of one type
    flipped = [kind[6:] == (Flipped,) for kind in kinds]
    assert 0.4 < np.mean(flipped) < 0.6


def test_training_draws_from_the_ranges_of_the_script():
    drawn = [one for seed in range(300) for one in parts(seed=seed)]
    scales = [one.scale for one in drawn if isinstance(one, Scaled) and one.scale != 1]
    contrasts = [one.factor for one in drawn if isinstance(one, Contrasted)]
    saturations = [one.factor for one in drawn if isinstance(one, Saturated)]
    for factors in (scales, contrasts, saturations):
        assert 0.6 <= min(factors) < 0.63
        assert 1.37 < max(factors) <= 1.4
    areas = [one.size[0] * one.size[1] / 120000 for one in drawn if isinstance(one, Resized)]
    assert 0.075 < min(areas) < 0.15
    assert 0.8 < max(areas) <= 1
    assert not any(one.per_channel for one in drawn if isinstance(one, Contrasted))
    assert all(one.interpolation == "cubic" for one in drawn if isinstance(one, Resized))


def test_every_colour_step_is_the_formula_of_the_script_on_bgr_images():
    image = noise((60, 80, 3))
    blue_first = image[..., ::-1].astype(float)
    gray = blue_first @ [0.114, 0.587, 0.299]
    expected = {
        Scaled(1.31): blue_first * 1.31,
        Contrasted(0.7, per_channel=False): blue_first * 0.7 + gray.mean() * 0.3,
        Saturated(1.35): blue_first * 1.35 + gray[..., None] * -0.35,
    }
    for transform, values in expected.items():
        made = transform.image(image)[..., ::-1]
        assert np.abs(made.astype(int) - as_rounded(values)).max() <= (1 if isinstance(transform, Saturated) else 0)
    normal = rng(8).standard_normal(3)
    (lighting,) = (one for one in fbresnet_train().augmentors[1].augmentors if type(one).__name__ == "lighting")
    offsets = BGR_EIGENVECTORS @ (normal[::-1] * 0.1 * BGR_EIGENVALUES)
    assert np.array_equal(lighting(image.shape, rng(8)).image(image)[..., ::-1], as_rounded(blue_first + offsets))


def test_after_to_float32_nothing_is_rounded():
    image = as_rounded(smooth((300, 400, 3)))
    whole = fbresnet_train()(image.shape, rng(1)).image(image)
    exact = sequence([to_float32(), fbresnet_train()])(image.shape, rng(1)).image(image)
    assert exact.dtype == np.float32
    assert not np.array_equal(exact, np.rint(exact))
    assert np.abs(exact - whole).mean() < 2


@pytest.mark.parametrize(
    "shape", [(300, 401, 3), (401, 300, 3), (256, 256, 3), (120, 90, 3), (257, 256), (300, 400, 1)]
)
def test_validation_is_the_middle_of_the_image_resized_to_256(shape):
    image = noise(shape)
    height, width = shape[:2]
    scale = 256 / min(height, width)
    target = (256, int(scale * width + 0.5)) if height < width else (int(scale * height + 0.5), 256)
    whole = image if target == (height, width) else cv2.resize(image, target[::-1], interpolation=cv2.INTER_CUBIC)
    top, left = (target[0] - 224) // 2, (target[1] - 224) // 2
    made = fbresnet_val()(shape, rng()).image(image)
    assert made.shape == (224, 224, *shape[2:])
    assert np.array_equal(made, whole[top : top + 224, left : left + 224].reshape(made.shape))


def test_validation_is_not_random():
    assert fbresnet_val()((300, 400, 3), rng(1)) == fbresnet_val()((300, 400, 3), rng(2))
    assert fbresnet_val(96, shortest_edge=128)((300, 400, 3), rng()).shape((300, 400, 3)) == (96, 96, 3)


def test_presets_are_sequences_that_say_what_they_are():
    assert repr(fbresnet_val()) == "sequence([resize_shortest_edge(256, interpolation='cubic'), center_crop(224)])"
    assert repr(fbresnet_train()) == (
        "sequence([random_resized_crop(224, interpolation='cubic'), shuffled([brightness_scale((0.6, 1.4)), "
        "contrast((0.6, 1.4), per_channel=False), saturation(), lighting()]), flip(horizontal=True)])"
    )
    assert fbresnet_train() == fbresnet_train()
    with pytest.raises(ValueError, match=r"lighting\(\)|saturation\(\)|contrast\(\)"):
        fbresnet_train()((300, 400), rng())
