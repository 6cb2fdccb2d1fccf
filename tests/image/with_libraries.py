"""Transforms of albumentations and torchvision in the place of augmentors, with the libraries themselves."""

import os
import pickle
import random

import numpy as np
import pytest
from marked import blob, centroid, noise, rng

import flowfn as ff
from flowfn.image import flip, normalize, sequence
from flowfn.image.adapting import adapted
from flowfn.image.augmenting import augment
from flowfn.testing import check, same

os.environ["NO_ALBUMENTATIONS_UPDATE"] = (
    "1"  # here and in worker processes: it would ask the network for a newer version
)
import albumentations as A
import torch
import torchvision
from albumentations.pytorch import ToTensorV2
from torchvision.transforms import v2

v1 = torchvision.transforms

HEIGHT, WIDTH = 40, 60
IMAGE = noise((HEIGHT, WIDTH, 3))
MASK = noise((HEIGHT, WIDTH)) // 64
BOXES = np.array([[1.0, 2, 30, 20], [35, 10, 55, 35]])
POINTS = np.array([[8.5, 12.5], [47.25, 30.0]])
DATAPOINT = {"image": IMAGE, "mask": MASK, "points": POINTS, "boxes": BOXES, "ids": ["a", "b"]}

PIPELINES = {
    "albumentations": lambda: [
        A.HorizontalFlip(p=0.5),
        A.Compose([A.RandomCrop(24, 32), A.OneOf([A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1)], p=0.9)]),
        A.Affine(rotate=(-20, 20), p=0.5),
    ],
    "torchvision": lambda: [
        v2.RandomHorizontalFlip(),
        v2.Compose([v2.RandomCrop((24, 32)), v2.ColorJitter(0.4, 0.4, 0.4)]),
        v2.RandomChoice([v2.RandomRotation(20), v2.RandomVerticalFlip(1.0)]),
    ],
}


@pytest.fixture(params=PIPELINES)
def augmentors(request):
    torch.set_num_threads(1)
    return PIPELINES[request.param]()


def one(flow):
    (datapoint,) = flow
    return datapoint


def images(augmentors, image, count=1, **options):
    """What becomes of an image in as many datapoints."""
    return list(ff.pipe([image] * count, augment(augmentors, **options)))


def whole(augmentors, datapoint=DATAPOINT, **options):
    return augment(augmentors, image="image", mask="mask", coords="points", boxes="boxes", labels="ids", **options)


# Both


@pytest.mark.timeout(60)
def test_the_laws_hold(augmentors):
    check(lambda: ff.pipe([DATAPOINT] * 4, whole(augmentors)), epochs=(0,), stops=1)


@pytest.mark.timeout(120)
def test_worker_processes_and_threads_give_the_same(augmentors):
    flow = ff.pipe([DATAPOINT] * 12, whole(augmentors))
    expected = list(flow.run())
    assert len({made["image"].tobytes() for made in expected}) > 6
    assert same(list(ff.pipe(flow, ff.prefetch(2, threads=4)).run()), expected)
    assert same(list(ff.pipe(flow, ff.prefetch(2, processes=2)).run()), expected)


def test_the_state_of_the_process_has_no_say_and_does_not_move(augmentors):
    flow = ff.pipe([DATAPOINT] * 3, whole(augmentors))
    expected = list(flow.run())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert same(list(flow.run()), expected)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_the_users_object_is_not_touched(augmentors):
    before = [repr(augmentor) for augmentor in augmentors]
    list(ff.pipe([DATAPOINT] * 3, whole(augmentors)))
    assert [repr(augmentor) for augmentor in augmentors] == before
    if hasattr(augmentors[0], "py_random"):
        generators = [augmentor.random_generator.bit_generator.state for augmentor in augmentors]
        list(ff.pipe([DATAPOINT] * 3, whole(augmentors)))
        assert [augmentor.random_generator.bit_generator.state for augmentor in augmentors] == generators


def test_what_comes_in_is_not_changed_though_it_is_read_only(augmentors):
    frozen = pickle.loads(pickle.dumps(DATAPOINT))
    for part in frozen.values():
        if isinstance(part, np.ndarray):
            part.flags.writeable = False
    before = pickle.dumps(frozen)
    made = one(ff.pipe([frozen], whole(augmentors)))
    assert pickle.dumps(frozen) == before
    assert made["image"].flags.writeable


def test_all_that_belongs_to_a_datapoint_goes_together(augmentors):
    marked = blob(*POINTS[0], (HEIGHT, WIDTH))
    picture = np.dstack([marked] * 3).astype(np.uint8)
    mask = (marked > 60).astype(np.uint8)
    geometric = [augmentors[0], augmentors[2]]
    datapoint = {"image": picture, "mask": mask, "points": POINTS, "boxes": BOXES, "ids": ["a", "b"]}
    for made in ff.pipe([datapoint] * 10, whole(geometric)):
        if made["mask"].sum() < mask.sum() - 2:
            continue  # it has been turned out of the image
        np.testing.assert_allclose(centroid(made["image"][..., 0]), made["points"][0], atol=0.4)
        np.testing.assert_allclose(centroid(made["mask"]), made["points"][0], atol=0.6)


def test_they_mix_with_augmentors_and_functions(augmentors):
    made = one(ff.pipe([DATAPOINT], whole([flip(vertical=True, probability=1), *augmentors, np.invert])))
    assert made["image"].shape == (24, 32, 3)
    assert made["mask"].shape == (24, 32)


def test_they_pickle_with_the_stage_and_are_shown_as_they_show_themselves(augmentors):
    stage = augment(augmentors, 0)
    again = pickle.loads(pickle.dumps(stage))
    data = [[IMAGE]] * 3
    assert same(list(ff.pipe(data, again).run()), list(ff.pipe(data, stage).run()))
    assert repr(stage).startswith("augment([")
    assert "HorizontalFlip(p=0.5)" in repr(stage)


def test_boxes_that_leave_take_their_labels_along():
    for crop in (A.Crop(0, 0, 20, 20), v2.Lambda(lambda part: v2.functional.crop(part, 0, 0, 20, 20), *MOVED)):
        made = one(ff.pipe([DATAPOINT], whole([crop])))
        np.testing.assert_allclose(made["boxes"], [[1, 2, 20, 20]], atol=1e-4)
        assert made["ids"] == ["a"]
        assert one(ff.pipe([DATAPOINT], whole([crop], min_visible=0.8)))["ids"] == []


def test_what_a_crop_has_cut_away_does_not_come_back_with_a_border():
    for crop_and_border in (
        [A.CenterCrop(20, 20), A.PadIfNeeded(40, 40)],
        [v2.CenterCrop(20), v2.Pad(10)],
        [A.Compose([A.CenterCrop(20, 20)]), v2.Pad(10)],
    ):
        boxes = one(ff.pipe([[IMAGE, [[0, 0, 30, 20], [0, 0, 10, 10]]]], augment(crop_and_border, 0, boxes=1)))[1]
        np.testing.assert_allclose(boxes, [[10, 10, 20, 20]], atol=1e-4)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1), (HEIGHT, WIDTH, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_keep_their_axes_and_dtype(shape, dtype):
    image = (noise(shape).astype(np.float32) / 255).astype(np.float32) if dtype is np.float32 else noise(shape)
    for mirror in (A.HorizontalFlip(p=1), v2.RandomHorizontalFlip(1.0)):
        (made,) = images([mirror], image)
        assert made.flags.c_contiguous
        assert same(made, np.ascontiguousarray(image[:, ::-1]))


def test_several_images_and_masks_are_treated_alike(augmentors):
    data = [[IMAGE, IMAGE, MASK, MASK]] * 6
    for a, b, c, d in ff.pipe(data, augment([augmentors[0], augmentors[2]], image=(0, 1), mask=(2, 3))):
        assert same(a, b)
        assert same(c, d)


def test_a_mask_and_nothing_at_all_are_enough():
    for mirror in (A.HorizontalFlip(p=1), v2.RandomHorizontalFlip(1.0)):
        assert same(one(ff.pipe([[MASK]], augment([mirror], mask=0)))[0], np.ascontiguousarray(MASK[:, ::-1]))
        made = one(ff.pipe([[IMAGE, [], []]], augment([mirror], 0, coords=1, boxes=2)))
        assert (made[1].shape, made[2].shape) == ((0, 2), (0, 4))


def test_their_transforms_can_be_had_like_any_other():
    for mirror in (A.HorizontalFlip(p=1), v2.RandomHorizontalFlip(1.0)):
        transform = adapted(mirror)(IMAGE.shape, rng())
        assert same(transform.image(IMAGE), np.ascontiguousarray(IMAGE[:, ::-1]))
        assert same(transform.mask(MASK), np.ascontiguousarray(MASK[:, ::-1]))
        np.testing.assert_allclose(transform.coords(POINTS), [WIDTH, 0] + POINTS * [-1, 1], atol=1e-4)
        np.testing.assert_allclose(transform.boxes(BOXES), [[30, 2, 59, 20], [5, 10, 25, 35]], atol=1e-4)
        assert transform.shape(IMAGE.shape) == IMAGE.shape
    crop = adapted(A.Crop(0, 0, 20, 20))(IMAGE.shape, rng())
    assert crop.shape(IMAGE.shape) == (20, 20, 3)


def test_one_draw_moves_all_that_is_asked_for_one_after_the_other(augmentors):
    for augmentor in augmentors:
        transform = adapted(augmentor)(IMAGE.shape, rng())
        together = one(ff.pipe([[IMAGE, MASK, POINTS]], augment([Held(transform)], 0, mask=1, coords=2)))
        assert same(transform.image(IMAGE), together[0])
        assert same(transform.mask(MASK), together[1])
        np.testing.assert_allclose(transform.coords(POINTS), together[2])


@pytest.mark.parametrize("nested", [lambda augmentor: sequence([augmentor]), lambda augmentor: [augmentor]])
def test_inside_other_augmentors_they_are_the_same(augmentors, nested):
    for augmentor in augmentors:
        assert same(
            list(ff.pipe([DATAPOINT], whole([nested(augmentor)]))), list(ff.pipe([DATAPOINT], whole([augmentor])))
        )


def test_classes_are_told_from_their_objects():
    for kind in (A.HorizontalFlip, v2.RandomHorizontalFlip):
        with pytest.raises(TypeError, match=rf"{kind.__name__} is a class; write {kind.__name__}\(...\)"):
            augment([kind], 0)


def test_subclasses_of_ones_own_are_known():
    class Brighter(A.ImageOnlyTransform):
        def apply(self, img, **params):
            return img // 2 + int(self.py_random.randint(100, 110))

    class Darker(v2.Transform):
        def transform(self, inpt, params):
            return inpt // 2 if isinstance(inpt, torchvision.tv_tensors.Image) else inpt

    assert images([Brighter(p=1)], np.zeros_like(IMAGE))[0].min() >= 100
    assert same(images([Darker()], IMAGE)[0], IMAGE // 2)


def test_labels_may_be_a_tensor():
    made = one(
        ff.pipe(
            [[IMAGE, [[90, 90, 99, 99], [0, 0, 9, 9]], torch.tensor([3, 5])]],
            augment([flip(horizontal=True)], 0, boxes=1, labels=2),
        )
    )
    assert made[2].tolist() == [5]


# albumentations


def test_albumentations_draws_from_the_datapoints_generator_and_from_nothing_else():
    noisy = A.Compose([A.GaussNoise(p=1)], seed=3)
    first, second = (images([noisy], IMAGE, 3) for _ in range(2))
    assert same(first, second)
    assert not same(first[0], first[1])


@pytest.mark.parametrize(
    "turn", [A.HorizontalFlip(p=1), A.VerticalFlip(p=1), A.Transpose(p=1), A.CenterCrop(20, 30), A.PadIfNeeded(80, 90)]
)
def test_albumentations_points_are_exact(turn):
    for x, y in ((20.5, 11.5), (30.5, 24.5)):
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        image[int(y), int(x)] = 255
        picture, points = one(ff.pipe([[image, [[x, y]]]], augment([turn], 0, coords=1)))
        np.testing.assert_array_equal(points, centroid(picture)[None])


@pytest.mark.parametrize("factor", [0.5, 2, 5])
def test_albumentations_resizes_points_with_the_image(factor):
    height, width = (int(side * factor) for side in IMAGE.shape[:2])
    points = one(ff.pipe([[IMAGE, POINTS]], augment([A.Resize(height, width)], 0, coords=1)))[1]
    np.testing.assert_allclose(points, POINTS * factor, atol=1e-3)


def test_albumentations_crops_where_boxes_are_and_gives_them_back():
    data = [DATAPOINT] * 10
    for made in ff.pipe(data, whole([A.BBoxSafeRandomCrop(p=1)])):
        assert made["ids"] == ["a", "b"]
        np.testing.assert_allclose(np.ptp(made["boxes"].reshape(-1, 2, 2), axis=1), [[29, 18], [20, 25]], atol=1e-4)
    assert len({made["image"].shape for made in ff.pipe(data, whole([A.BBoxSafeRandomCrop(p=1)]))}) > 1


def test_what_albumentations_makes_of_a_box_in_pieces_has_its_label_each():
    made = one(ff.pipe([DATAPOINT], whole([A.RandomGridShuffle((2, 2), p=1)])))
    assert len(made["boxes"]) == len(made["ids"]) > 2
    assert set(made["ids"]) == {"a", "b"}


def test_albumentations_own_rules_for_boxes_give_way_to_those_of_augment():
    strict = A.Compose([A.CenterCrop(20, 20)], bbox_params=A.BboxParams("coco", min_visibility=0.9, label_fields=["x"]))
    made = one(ff.pipe([DATAPOINT], whole([strict])))
    assert made["ids"] == ["a", "b"]
    assert same(images([strict], IMAGE)[0], np.ascontiguousarray(IMAGE[10:30, 20:40]))


def test_tensors_are_no_images():
    to_tensor = ToTensorV2()
    with pytest.raises(TypeError, match=r"must return an image, .* but returned Tensor"):
        images([to_tensor], IMAGE)


# torchvision


@pytest.mark.parametrize(
    "turn",
    [
        v2.RandomHorizontalFlip(1.0),
        v2.RandomVerticalFlip(1.0),
        v2.CenterCrop((20, 30)),
        v2.Pad(7),
        v2.RandomRotation((90, 90), expand=True),
    ],
)
def test_torchvision_points_are_exact(turn):
    for x, y in ((20.5, 11.5), (30.5, 24.5)):
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        image[int(y), int(x)] = 255
        picture, points = one(ff.pipe([[image, [[x, y]]]], augment([turn], 0, coords=1)))
        np.testing.assert_allclose(points, centroid(picture)[None], atol=1e-4)


@pytest.mark.parametrize(
    "turn",
    [
        v2.RandomAffine(20, (0.1, 0.1), (0.9, 1.1), 5),
        v2.RandomPerspective(0.2, 1.0),
        v2.Resize((70, 90)),
        v2.ElasticTransform(90.0, 8.0),
    ],
)
def test_torchvision_points_go_where_the_image_goes(turn):
    for made in ff.pipe(
        [[blob(25, 20, (HEIGHT, WIDTH), 2), np.array([[25.0, 20.0]])]] * 5, augment([turn], 0, coords=1)
    ):
        np.testing.assert_allclose(centroid(made[0]), made[1][0], atol=0.5)


def test_torchvision_takes_boxes_away_with_their_labels():
    for made in ff.pipe([DATAPOINT] * 12, whole([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes()])):
        assert len(made["boxes"]) == len(made["ids"])
        assert (made["boxes"][:, :2] >= 0).all()
        assert (made["boxes"][:, 2:] <= made["image"].shape[1::-1]).all()


def test_floats_come_out_with_channels_last():
    to_float = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
    (made,) = images([to_float], IMAGE)
    np.testing.assert_allclose(made, (IMAGE / 255 - 0.5) / 0.25, atol=1e-6)
    assert made.dtype == np.float32


def test_older_transforms_are_given_pictures():
    classic = v1.Compose(
        [v1.RandomResizedCrop(16), v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize([0.5] * 3, [0.5] * 3)]
    )
    first, second = (images([classic], IMAGE, 3) for _ in range(2))
    assert first[0].shape == (16, 16, 3)
    assert same(first, second)
    assert not same(first[0], first[1])
    assert images([v1.CenterCrop(10)], MASK)[0].shape == (10, 10)
    assert images([v1.CenterCrop(10)], MASK[..., None])[0].shape == (10, 10, 1)
    assert images([v1.CenterCrop(10)], IMAGE.astype(np.float32))[0].dtype == np.float32
    with pytest.raises(
        ValueError, match=r"is for one image; take torchvision.transforms.v2 for all that belongs to it"
    ):
        one(ff.pipe([[IMAGE, MASK]], augment([classic], 0, mask=1)))


def test_normalize_is_to_tensor_and_normalize_whose_mean_and_std_are_of_pixels_in_0_to_1():
    """torchvision 0.29: ToTensor divides by 255, so Normalize's mean and std are a 255th of those here."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = [noise((HEIGHT, WIDTH, 3), seed=number) for number in range(3)]
    theirs = torch.stack([v1.Compose([v1.ToTensor(), v1.Normalize(mean, std)])(image) for image in images])
    ours = normalize([255 * one for one in mean], [255 * one for one in std])(images)
    assert theirs.shape == ours.shape
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


MOVED = (
    torchvision.tv_tensors.Image,
    torchvision.tv_tensors.Mask,
    torchvision.tv_tensors.BoundingBoxes,
    torchvision.tv_tensors.KeyPoints,
)


class Held(flip):
    """An augmentor that gives one transform."""

    def __init__(self, transform):
        object.__setattr__(self, "transform", transform)

    def __call__(self, image_shape, rng):
        return self.transform
