"""Batches of normalized images: the exact numbers, in one array, from any workers."""

import pickle
import time

import numpy as np
import pytest
from marked import noise

import flowfn as ff
from flowfn.datapoints import buffers
from flowfn.datasets import IMAGENET_STATISTICS, image_statistics
from flowfn.image import normalize
from flowfn.testing import check, same
from flowfn.vocabulary.batching import _rows_joined

SHAPES = [(13, 17), (13, 17, 1), (13, 17, 2), (13, 17, 3), (13, 17, 4), (13, 17, 5)]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def exactly(images, mean, std, to="chw"):
    """(x - mean) / std in float64, rounded once."""
    whole = np.stack([image.reshape(*image.shape[:2], -1) for image in images]).astype(np.float64)
    made = ((whole - np.asarray(mean)) / np.asarray(std)).astype(np.float32)
    return made.transpose(0, 3, 1, 2) if to == "chw" else made


def images(shape=(13, 17, 3), dtype=np.uint8, count=5):
    made = [noise(shape, dtype, seed=number) for number in range(count)]
    return [image / dtype(3) for image in made] if dtype == np.float32 else made


@pytest.mark.parametrize("to", ["chw", "hwc"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_is_the_float32_nearest_to_the_exact_one(shape, dtype, to):
    given = images(shape, dtype)
    channels = (*shape, 1)[2]
    each = tuple(np.random.default_rng(0).uniform(1, 255, channels).tolist())
    for mean, std in [(0, 255), (127.5, 63), (each, 3.7), (10, each), (each, each)]:
        made = normalize(mean, std, to=to)(given)
        assert made.flags.c_contiguous
        assert same(made, np.ascontiguousarray(exactly(given, mean, std, to)))


def test_all_256_values_are_exact():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert same(normalize(MEAN, STD)([ramp]), np.ascontiguousarray(exactly([ramp], MEAN, STD)))


def test_the_statistics_of_datasets_are_in_its_unit():
    photographs = images()
    made = normalize(*IMAGENET_STATISTICS)(photographs)
    in_shares = (np.stack(photographs) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(made, in_shares.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    own = normalize(*image_statistics([[image] for image in photographs]))(photographs)
    np.testing.assert_allclose([own.mean((0, 2, 3)), own.std((0, 2, 3))], [[0] * 3, [1] * 3], atol=1e-5)
    gray = images((8, 9))
    assert abs(normalize(*image_statistics([[image] for image in gray]))(gray).mean()) < 1e-5
    assert normalize(0, 255)(photographs).max() <= 1


def test_it_collates_the_component_that_is_named():
    data = [{"image": image, "label": number} for number, image in enumerate(images())]
    first, last = ff.batch(3, data, collate={"image": normalize(MEAN, STD)})
    assert same(first["image"], np.ascontiguousarray(exactly(images()[:3], MEAN, STD)))
    assert last["label"].tolist() == [3, 4]
    (batch,) = ff.batch(5, images(), collate=normalize(MEAN, STD))
    assert batch.shape == (5, 3, 13, 17)
    (pair,) = ff.batch(5, [(image, 1) for image in images()], collate=[normalize(MEAN, STD, to="hwc"), ff.stack])
    assert pair[0].shape == (5, 13, 17, 3)


def test_batches_of_images_are_normalized_alike():
    whole = np.stack(images())
    flow = ff.pipe(ff.from_arrays(image=whole), ff.batch(5), ff.map_component(normalize(MEAN, STD), "image"))
    assert same(next(iter(flow))["image"], normalize(MEAN, STD)(images()))
    straight = ff.batch(5, ff.from_arrays(image=whole), collate={"image": normalize(MEAN, STD)})
    assert same(next(iter(straight))["image"], normalize(MEAN, STD)(images()))


def test_images_may_lie_in_memory_as_they_like():
    wide = np.random.default_rng(0).integers(0, 256, (26, 40, 6), np.uint8)
    views = [wide[::-2, ::-2, ::2], wide[:13, 20:, 3:], wide[13:, :20, 2::-1], wide.transpose(1, 0, 2)[:13, :20, 1:4]]
    given = [view.copy() for view in views]
    for view in views:
        view.flags.writeable = False
    for to in ("chw", "hwc"):
        for dtype in (np.uint8, np.float32):
            made = normalize(MEAN, STD, to=to)([view.astype(dtype) if dtype == np.float32 else view for view in views])
            assert same(made, np.ascontiguousarray(exactly(given, MEAN, STD, to)))
    assert all(map(np.array_equal, views, given))


@pytest.mark.parametrize("to", ["chw", "hwc"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_writes_into_the_memory_of_the_batch(dtype, to, monkeypatch):
    """OpenCV takes memory of its own where it does not like what it is given, and says nothing."""
    made = []
    empty = buffers.empty
    monkeypatch.setattr(
        buffers, "empty", lambda *arguments: made.append(np.full_like(empty(*arguments), np.nan)) or made[-1]
    )
    for shape in [(9, 11), (9, 11, 1), (9, 11, 3), (600, 700, 3), (9, 11, 5)]:
        batch = normalize(100, 50, to=to)(images(shape, dtype, 2))
        assert batch is made[-1]
        assert not np.isnan(batch).any()


def test_batches_that_are_dropped_are_made_in_the_same_memory():
    flow = ff.pipe(
        range(120),
        ff.map(lambda number: np.full((100, 100, 3), number, np.uint8)),
        ff.batch(20, collate=normalize(0, 255)),
    )
    assert len({batch.ctypes.data for batch in flow}) <= 3


def picture(number):
    time.sleep(0.004)
    return {"image": np.random.default_rng(number).integers(0, 256, (64, 80, 3), np.uint8), "label": number}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_any_workers_give_the_serial_batches(workers):
    flow = ff.pipe(range(150), ff.map(picture), ff.batch(64, collate={"image": normalize(MEAN, STD)}))
    got, expected = list(ff.pipe(flow, ff.prefetch(2, **workers))), list(flow)
    assert len(got) == 3
    assert all(map(same, got, expected))
    ff.shut_down()


def test_parts_of_a_batch_are_joined_to_the_whole():
    collate = {"image": normalize(MEAN, STD)}
    data = [{"image": image, "name": str(number)} for number, image in enumerate(images())]
    parts = [next(iter(ff.batch(5, some, collate=collate))) for some in (data[:2], data[2:])]
    whole = next(iter(ff.batch(5, data, collate=collate)))
    assert same(_rows_joined(parts, collate), whole)
    assert same(_rows_joined(parts, {**collate, "name": ff.as_list}), whole)
    assert _rows_joined(parts, {**collate, "name": list}) is None  # whatever it does


def test_the_laws_hold():
    check(
        lambda: ff.pipe(
            range(7),
            ff.map(lambda number: [np.full((4, 5, 3), number, np.uint8), number]),
            ff.batch(3, collate=[normalize(MEAN, STD), ff.stack]),
        )
    )


# What is refused, and how it looks


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
            ValueError,
            r"std must be a number >= 1 of pixels in 0 to 255, or one for each channel, got \(0.229, 0.224, 0.225\); "
            "multiply mean and std of pixels in 0 to 1 by 255",
        ),
        ({"mean": 0, "std": 0}, ValueError, "std must be a number >= 1"),
        ({"mean": 0, "std": np.inf}, ValueError, "std must be a number >= 1"),
        ({"mean": np.inf, "std": 1}, ValueError, "mean must be a number of pixels in 0 to 255"),
        ({"mean": float("nan"), "std": 1}, TypeError, "mean must be a number of pixels in 0 to 255"),
        ({"mean": "x", "std": 1}, TypeError, "mean must be a number of pixels in 0 to 255"),
        ({"mean": (), "std": 1}, TypeError, "mean must be a number of pixels in 0 to 255"),
        ({"mean": np.zeros((2, 2, 3)), "std": 1}, TypeError, "mean must be a number of pixels in 0 to 255"),
        ({"mean": (1, 2), "std": (1, 2, 3)}, ValueError, "mean and std must be of as many channels, got 2 and 3"),
        ({"mean": 0, "std": 1, "to": "CHW"}, ValueError, "to must be 'chw' or 'hwc', got 'CHW'"),
    ],
)
def test_bad_arguments_fail_at_once(arguments, error, message):
    with pytest.raises(error, match=rf"^normalize\(\): {message}"):
        normalize(**arguments)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([np.zeros((4, 5, 4), np.uint8)], ValueError, r"mean must be a number, or one for each of the 4 channels"),
        ([np.zeros((4, 5), np.uint8)], ValueError, r"mean must be a number, or one for each of the 1 channels"),
        ([np.zeros((3, 64, 64), np.uint8)], ValueError, r"\(channels, height, width\)"),
        ([np.zeros((4, 5, 3))], TypeError, r"an image must be uint8 or float32, got float64; to_uint8\(\)"),
        (
            [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)],
            ValueError,
            r"of one shape, got \(4, 5, 3\), ",
        ),
        ([3, 4], TypeError, r"an image must be an array .*, got 3; name the component: batch\(size, collate="),
        ([np.ma.zeros((4, 5, 3), np.uint8)], TypeError, "an image must be an array"),
        (np.zeros((4, 5, 3), np.uint8), TypeError, r"images must be a list .* normalize\(...\)\(\[image\]\)\[0\]"),
    ],
)
def test_what_is_no_batch_of_images_is_shown(given, error, message):
    with pytest.raises(error, match=message):
        normalize(MEAN, STD)(given)


def test_a_collation_is_a_value():
    collate = normalize(np.array(MEAN), list(STD), to="hwc")
    assert repr(collate) == f"normalize({MEAN}, {STD}, to='hwc')"
    assert collate == pickle.loads(pickle.dumps(collate)) == normalize(MEAN, STD, to="hwc") != normalize(MEAN, STD)
    assert hash(collate) == hash(normalize(MEAN, STD, to="hwc"))
    assert repr(normalize(np.float64(0), 255)) == "normalize(0.0, 255)"
    assert repr(normalize(0, 255)) == "normalize(0, 255)"
    with pytest.raises(TypeError, match=r"write batch\(size, collate=\{index: normalize\(0, 255\)\}\)"):
        ff.pipe([1], normalize(0, 255))
