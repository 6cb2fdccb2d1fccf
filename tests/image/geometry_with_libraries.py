"""Where points, boxes and masks go in transforms of albumentations and torchvision, with the libraries themselves."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from marked import noise

import flowfn as ff
from flowfn.image import augment, convert_boxes

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for a newer version
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import albumentations as A
import straying
import torch
from torchvision import tv_tensors
from torchvision.ops import box_convert
from torchvision.transforms import v2

torch.set_num_threads(1)
BILINEAR = v2.InterpolationMode.BILINEAR
HEIGHT, WIDTH = straying.HEIGHT, straying.WIDTH
MOVING = {
    "A.Resize": lambda: A.Resize(311, 250),
    "A.RandomScale": lambda: A.RandomScale((-0.6, -0.4), p=1),
    "A.SafeRotate": lambda: A.SafeRotate((-60, 60), p=1),
    "A.ElasticTransform": lambda: A.ElasticTransform(alpha=60, sigma=10, p=1),
    "A.Perspective": lambda: A.Perspective(p=1),
    "T.Resize": lambda: v2.Resize((47, 61)),
    "T.RandomResizedCrop": lambda: v2.RandomResizedCrop((80, 80), scale=(0.5, 0.9)),
    "T.RandomRotation": lambda: v2.RandomRotation(60, BILINEAR, expand=True, center=[40, 60]),
    "T.ElasticTransform": lambda: v2.ElasticTransform(90.0, 8.0),
}


@pytest.fixture(params=MOVING)
def moving(request):
    return MOVING[request.param]()


def through(augmentors, *datapoints):
    """What becomes of datapoints of an image, a mask, points and boxes."""
    return list(ff.pipe(list(datapoints), augment(augmentors, image=0, mask=1, coords=2, boxes=3)))


# The table


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", straying.TRANSFORMS, ids=lambda row: "-".join(row[:2]))
def test_the_table_holds_for_the_versions_that_are_installed(row):
    found = straying.measured(*row)
    said = straying.published()[found.transform]
    for part in ("points", "boxes", "masks"):
        np.testing.assert_allclose(getattr(found, part), getattr(said, part), rtol=0.2, atol=0.1, err_msg=part)


def test_every_transform_that_moves_is_in_the_table_or_the_page_says_why_not():
    named = {name for name, _, _ in straying.TRANSFORMS} | straying.MOVE_NOTHING | straying.CANNOT_STAND.keys()
    moves = [kind for kind in vars(A).values() if isinstance(kind, type) and issubclass(kind, A.DualTransform)]
    flat = [
        f"A.{kind.__name__}" for kind in moves if not issubclass(kind, A.Transform3D) and kind is not A.DualTransform
    ]
    geometric = [
        f"T.{name}" for name, kind in vars(v2).items() if getattr(kind, "__module__", "").endswith("v2._geometry")
    ]
    assert set(flat + geometric) <= named
    assert straying.published().keys() == {f"{name}, {how}" if how else name for name, how, _ in straying.TRANSFORMS}
    page = straying.PAGE.read_text()
    assert all(name in page for name in straying.CANNOT_STAND if name != "A.Lambda")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_moves_nothing_leaves_all_where_it_is():
    for name in straying.MOVE_NOTHING:
        datapoint = straying.marked(0)
        ((_, _, coords, ((left, top, right, bottom),)),) = through([getattr(A, name[2:])(p=1)], datapoint)
        np.testing.assert_allclose(coords, datapoint[2], atol=1e-4)
        assert (
            np.array([left, top]) >= datapoint[3][0, :2] - 0.5
        ).all()  # what is dropped may be cut off, in whole pixels
        assert (np.array([right, bottom]) <= datapoint[3][0, 2:] + 0.5).all()


# However it is put together


COMPOSED = {
    "A.Compose": lambda: A.Compose([A.Compose([A.Resize(211, 250)]), A.ElasticTransform(alpha=60, sigma=10, p=1)]),
    "A.OneOf": lambda: A.OneOf([A.SafeRotate((-40, 40), p=1), A.GridDistortion(distort_limit=0.1, p=1)], p=1),
    "A.SomeOf": lambda: A.SomeOf([A.Resize(211, 250, p=1), A.SafeRotate((-40, 40), p=1), A.Perspective(p=1)], n=2, p=1),
    "A.Sequential": lambda: A.Sequential(
        [A.RandomScale((0.5, 0.7), p=0.5), A.OpticalDistortion((-0.2, 0.2), p=0.5)], p=0.7
    ),
    "A., by probability": lambda: A.Affine(rotate=(-30, 30), fit_output=True, p=0.5),
    "T.Compose": lambda: v2.Compose(
        [v2.Resize((211, 250)), v2.Compose([v2.RandomRotation(40, BILINEAR, expand=True)])]
    ),
    "T.RandomApply": lambda: v2.RandomApply([v2.RandomRotation(40, BILINEAR, expand=True), v2.Resize((71, 80))], p=0.5),
    "T.RandomApply, ModuleList": lambda: v2.RandomApply(
        torch.nn.ModuleList([v2.RandomRotation(40, BILINEAR, expand=True)]), p=0.5
    ),
    "T.RandomChoice": lambda: v2.RandomChoice([v2.RandomRotation(40, BILINEAR, expand=True), v2.Resize((171, 184))]),
    "T.RandomOrder": lambda: v2.RandomOrder(
        [v2.RandomRotation(40, BILINEAR, expand=True), v2.RandomHorizontalFlip(0.5)]
    ),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", COMPOSED.values(), ids=COMPOSED)
def test_in_compositions_and_by_probability_they_move_alike(make):
    found = straying.measured("", "", make)
    assert found.points[0] < 0.05
    assert found.points[1] < 0.7  # where an image is bent, a spot's centre is not quite its middle
    assert max(found.boxes[0], found.masks[0]) < 0.2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", ["gray", "one channel", "uint16", "float32", "float64"])
def test_whatever_the_form_of_the_image(moving, form):
    spots = []
    for number in range(8):
        picture, *rest = straying.marked(number)
        gray = np.round(picture[:, :, 1:2])
        image = {"gray": gray[:, :, 0], "one channel": gray, "uint16": gray.astype(np.uint16) * 256}.get(form)
        spots.append([(gray / 255).astype(form) if image is None else image, *rest])
    for before, after in zip(spots, through([moving], *spots)):
        assert (after[0].dtype, after[0].ndim) == (before[0].dtype, before[0].ndim)
        np.testing.assert_allclose(after[2][0], straying.centre(after[0].reshape(after[0].shape[:2])), atol=0.3)


def test_several_masks_are_moved_alike_whatever_their_dtype(moving):
    image, mask, coords, _ = straying.marked(3)
    dtypes = [bool, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
    flow = ff.pipe(
        [[image, coords, *(mask.astype(dtype) for dtype in dtypes)]],
        augment([moving], 0, coords=1, mask=tuple(range(2, 11))),
    )
    _, _, first, *others = flow[0]
    assert first.any()
    for dtype, other in zip(dtypes[1:], others):
        assert other.dtype == dtype
        np.testing.assert_array_equal(other, first)


def test_labels_that_a_library_would_change_are_refused():
    image, mask, coords, boxes = straying.marked(3)
    for turn, largest in ((A.HorizontalFlip(p=1), 2**31 - 1), (v2.RandomRotation(30), 2**24)):
        ((_, made, _, _),) = through([turn], [image, mask.astype(np.int64) * largest, coords, boxes])
        assert made.dtype == np.int64
        assert np.unique(made).tolist() == [0, largest]
        with pytest.raises(
            ValueError, match=rf"labels from -{largest} to {largest}, .* got 0 to {largest + 1}; number them anew"
        ):
            through([turn], [image, mask.astype(np.int64) * (largest + 1), coords, boxes])


# At the edges


def test_nothing_is_moved_as_nothing(moving):
    image, mask, _, _ = straying.marked(0)
    ((_, _, coords, boxes),) = through([moving], [image, mask, np.zeros((0, 2)), np.zeros((0, 4))])
    assert (coords.shape, boxes.shape) == ((0, 2), (0, 4))


def test_points_at_the_border_and_beyond_stay_and_stay_in_order(moving):
    image, mask, _, boxes = straying.marked(0)
    points = np.array([[0, 0], [0, 0], [0.3, 0.2], [WIDTH, HEIGHT], [WIDTH, 0], [60, 97], [-5, 40], [130.0, 110]])
    ((made, _, coords, _),) = through([moving], [image, mask, points, boxes])
    assert coords.shape == points.shape
    np.testing.assert_allclose(coords[0], coords[1])
    height, width = made.shape[:2]
    assert np.isfinite(coords).all()
    assert np.hypot(*(coords[2] - coords[0])) < 2 * max(height / HEIGHT, width / WIDTH)
    assert (coords[3] > coords[0]).any()


def test_points_that_share_a_pixel_stay_apart():
    image, mask, _, boxes = straying.marked(0)
    points = np.array([[50.2, 40.3], [50.4, 40.3], [50.4, 40.8]])
    for kind in (A.ElasticTransform, A.GridDistortion, A.OpticalDistortion, A.ThinPlateSpline):
        ((_, _, coords, _),) = through([kind(p=1)], [image, mask, points, boxes])
        assert len(np.unique(coords.round(3), axis=0)) == 3


def test_boxes_that_touch_the_border_stay_within_the_image(moving):
    image, mask, coords, _ = straying.marked(0)
    whole = np.array([[0.0, 0, WIDTH, HEIGHT], [0, 0, 60, 50], [70, 60, WIDTH, HEIGHT]])
    ((made, _, _, boxes),) = through([moving], [image, mask, coords, whole])
    height, width = made.shape[:2]
    assert len(boxes) == 3
    assert (boxes >= 0).all()
    assert (boxes <= [width, height] * 2).all()
    assert np.ptp(boxes[0].reshape(2, 2), axis=0).min() >= 0.9 * min(height, width)


@pytest.mark.parametrize("border", [cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101])
def test_where_a_border_reflects_points_are_themselves_and_boxes_all_that_is_to_be_seen(border):
    image, mask, _, _ = straying.marked(0)
    points, near = np.array([[3.0, 4.0], [60.5, 66.0], [119.9, 0.2]]), np.array([[2.0, 3, 20, 20]])
    for make in (
        lambda border: A.Affine(rotate=(20, 20), border_mode=border, p=1),
        lambda border: A.Rotate((20, 20), border_mode=border, p=1),
        lambda border: A.PadIfNeeded(140, 150, border_mode=border, p=1),
        lambda border: A.CenterCrop(140, 150, pad_if_needed=True, border_mode=border, p=1),
    ):
        datapoint = [image, mask, points, near]
        ((_, _, plain, (box,)),) = through([make(cv2.BORDER_CONSTANT)], datapoint)
        ((_, _, coords, boxes),) = through([make(border)], datapoint)
        np.testing.assert_allclose(coords, plain, atol=1e-3)
        assert len(boxes) > 1
        assert (np.abs(boxes - box).max(1) < 1e-3).sum() == 1


def test_a_mask_is_resized_as_an_image_that_is_resized_by_nearest_neighbour():
    picture = noise((HEIGHT, WIDTH, 1))
    nearest = v2.InterpolationMode.NEAREST
    for turn in (
        A.Resize(47, 250, interpolation=cv2.INTER_NEAREST),
        A.RandomResizedCrop((50, 140), interpolation=cv2.INTER_NEAREST),
        v2.Resize((47, 250), nearest),
        v2.RandomResizedCrop((50, 140), interpolation=nearest),
    ):
        image, mask = ff.pipe([[picture, picture[:, :, 0]]], augment([turn], image=0, mask=1))[0]
        np.testing.assert_array_equal(image[:, :, 0], mask)


@pytest.mark.parametrize("size", [(46, 256), (300, 64)])
def test_masks_are_resized_to_the_pixel_that_is_there(size):
    mask = noise((HEIGHT, WIDTH))
    rows, columns = (np.floor((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, mask.shape))
    for turn in (A.Resize(*size), v2.Resize(size)):
        (made,) = ff.pipe([[mask]], augment([turn], mask=0))[0]
        np.testing.assert_array_equal(made, mask[rows[:, None], columns])


# What users say


def test_what_is_said_of_masks_and_boxes_by_class_holds_for_ours():
    image, mask, coords, boxes = straying.marked(0)
    fill = {tv_tensors.Image: 3, tv_tensors.Mask: 255}
    for turn in (
        v2.Pad(5, fill=fill),
        v2.Compose([v2.RandomApply([v2.RandomRotation((20, 20), fill=fill, expand=True)], p=1.0)]),
    ):
        ((picture, made, _, _),) = through([turn], [image, mask, coords, boxes])
        assert (picture[0, 0].tolist(), made[0, 0]) == ([3, 3, 3], 255)
        assert fill.keys() == {tv_tensors.Image, tv_tensors.Mask}
    to = v2.ToDtype(
        {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, tv_tensors.BoundingBoxes: None}, scale=True
    )
    ((picture, made, _, _),) = through([to], [image, mask, coords, boxes])
    assert (picture.dtype, made.dtype) == (np.float32, np.int64)


def test_boxes_come_out_as_corners_whatever_their_format_in_between():
    datapoint = straying.marked(0)
    turn = v2.RandomRotation((30, 30), expand=True)
    ((_, _, _, expected),) = through([turn], datapoint)
    ((_, _, _, boxes),) = through([v2.Compose([v2.ConvertBoundingBoxFormat("CXCYWH"), turn])], datapoint)
    np.testing.assert_allclose(boxes, expected, atol=1e-3)


def test_a_transform_of_ones_own_that_says_where_points_go_is_believed():
    class Fixed(A.Resize):
        def apply_to_keypoints(self, keypoints, **params):
            return keypoints

    image, mask, coords, boxes = straying.marked(0)
    ((_, _, there, _),) = through([Fixed(50, 60)], [image, mask, coords, boxes])
    np.testing.assert_allclose(there, coords, atol=1e-4)


# Boxes in other formats


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("before", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("after", ["xyxy", "xywh", "cxcywh"])
def test_boxes_are_converted_as_torchvision_converts_them(before, after, dtype):
    rows = np.random.default_rng(0).integers(0, 4000, (50, 4)) / 8
    corners = np.concatenate([np.minimum(rows[:, :2], rows[:, 2:]), np.maximum(rows[:, :2], rows[:, 2:])], 1)
    boxes = box_convert(torch.from_numpy(corners.astype(dtype)), "xyxy", before)
    expected = box_convert(boxes, before, after).numpy()
    made = convert_boxes(boxes.numpy(), before, after)
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)
