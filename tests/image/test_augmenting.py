"""`augment`: what belongs to an image goes where the image goes, in datapoints of every form,
the same wherever it is computed."""

import pickle
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from marked import blob, centroid, noise, rng

import flowfn as ff
from flowfn.image import (
    Augmentor,
    Transform,
    apply_randomly,
    center_crop,
    center_paste,
    choose,
    flip,
    identity,
    random_crop,
    resize,
    rotation,
    sequence,
    shift,
    shuffled,
    transpose,
)
from flowfn.image.augmenting import augment
from flowfn.image.transforms import image_size
from flowfn.testing import check, same

HEIGHT, WIDTH = 40, 60
IMAGE = noise((HEIGHT, WIDTH, 3))
MIRROR = flip(horizontal=True, probability=1)
Labelled = namedtuple("Labelled", "image label")


def one(flow):
    (datapoint,) = flow
    return datapoint


def mirrored(image):
    return image[:, ::-1]


# Which components


def test_a_datapoint_may_be_the_image_itself():
    np.testing.assert_array_equal(one(ff.pipe([IMAGE], augment([MIRROR]))), mirrored(IMAGE))


@pytest.mark.parametrize(
    ("datapoint", "index"),
    [
        ([IMAGE, 7], 0),
        ((7, IMAGE), 1),
        ([7, IMAGE], -1),
        (Labelled(IMAGE, 7), 0),
        ({"image": IMAGE, "label": 7}, "image"),
        ({3: IMAGE}, 3),
    ],
)
def test_a_datapoint_keeps_its_form(datapoint, index):
    made = one(ff.pipe([datapoint], augment([MIRROR], index)))
    assert type(made) is type(datapoint)
    np.testing.assert_array_equal(made[index], mirrored(IMAGE))
    assert made is not datapoint
    rest = range(len(datapoint)) if not isinstance(datapoint, dict) else datapoint
    assert all(made[name] == 7 for name in rest if made[name] is not made[index])


def test_index_and_image_say_the_same():
    by_index, by_name = (
        list(ff.pipe([[IMAGE, 1]] * 3, stage))
        for stage in (augment([flip(horizontal=True)], 0), augment([flip(horizontal=True)], image=0))
    )
    assert same(by_index, by_name)


def test_several_images_and_masks_are_augmented_alike():
    left, right, mask = IMAGE, IMAGE[..., 0], (IMAGE[..., 1] > 128).astype(np.int32)
    augmentors = [flip(horizontal=True), random_crop(16), flip(vertical=True)]
    for a, b, c, d in ff.pipe([[left, right, mask, mask]] * 8, augment(augmentors, image=(0, 1), mask=(2, 3))):
        np.testing.assert_array_equal(a[..., 0], b)
        np.testing.assert_array_equal((a[..., 1] > 128).astype(np.int32), c)
        np.testing.assert_array_equal(c, d)


def test_a_mask_may_stand_alone():
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(one(ff.pipe([{"mask": mask}], augment([MIRROR], mask="mask")))["mask"], mask[:, ::-1])


def test_a_marked_pixel_lands_where_its_coordinate_says():
    points = np.array([[20.0, 12.0]])
    image = blob(*points[0], (HEIGHT, WIDTH))
    augmentors = [flip(horizontal=True), shift(horizontal=0.1), rotation(20), transpose(), resize((70, 50))]
    for picture, coords in ff.pipe([[image, points]] * 10, augment(augmentors, 0, coords=1)):
        np.testing.assert_allclose(centroid(picture), coords[0], atol=0.35)


def test_points_stay_where_they_leave_the_image_and_keep_their_dtype():
    points = np.array([[0.5, 0.5], [59.5, 39.5]], np.float32)
    made = one(ff.pipe([[IMAGE, points]], augment([center_crop(10)], 0, coords=1)))[1]
    np.testing.assert_array_equal(made, points - np.float32([25, 15]))
    assert made.dtype == np.float32


@pytest.mark.parametrize("none", [[], np.zeros((0, 2)), np.zeros((0, 2), np.float32)])
def test_no_points_are_no_points(none):
    assert one(ff.pipe([[IMAGE, none]], augment([MIRROR, rotation(10)], 0, coords=1)))[1].shape == (0, 2)


def test_integers_and_lists_of_points_become_floats():
    for points in ([[3, 4]], np.array([[3, 4]])):
        np.testing.assert_array_equal(one(ff.pipe([[IMAGE, points]], augment([MIRROR], 0, coords=1)))[1], [[57.0, 4.0]])


# Boxes


def boxes_after(augmentors, boxes, **options):
    return one(ff.pipe([[IMAGE, boxes]], augment(augmentors, 0, boxes=1, **options)))[1]


def test_boxes_are_clipped_to_the_image():
    boxes = np.array([[0.0, 0, 30, 20], [20, 10, 40, 30]])
    np.testing.assert_array_equal(boxes_after([center_crop(20)], boxes), [[0.0, 0, 10, 10], [0, 0, 20, 20]])


def test_boxes_that_leave_take_their_labels_along():
    datapoint = {
        "image": IMAGE,
        "boxes": np.array([[0.0, 0, 9, 9], [25, 15, 35, 25], [50, 30, 60, 40], [30, 20, 31, 21]]),
        "classes": ["far", "near", "far", "tiny"],
        "scores": np.array([0.1, 0.2, 0.3, 0.4]),
        "crowd": (False, True, False, True),
    }
    stage = augment([center_crop(20)], image="image", boxes="boxes", labels=("classes", "scores", "crowd"))
    made = one(ff.pipe([datapoint], stage))
    np.testing.assert_array_equal(made["boxes"], [[5.0, 5, 15, 15], [10, 10, 11, 11]])
    assert made["classes"] == ["near", "tiny"]
    np.testing.assert_array_equal(made["scores"], [0.2, 0.4])
    assert made["crowd"] == (True, True)


@pytest.mark.parametrize(("min_visible", "left"), [(0.0, 3), (0.25, 3), (0.26, 2), (0.5, 2), (0.51, 1), (1.0, 1)])
def test_boxes_of_which_too_little_is_left_leave(min_visible, left):
    boxes = np.array(
        [[20.0, 10, 40, 30], [10, 15, 30, 25], [10, 0, 30, 20], [0, 0, 20, 10]]
    )  # whole, a half, a quarter, nothing
    np.testing.assert_array_equal(boxes_after([center_crop(20)], boxes, min_visible=min_visible).shape, (left, 4))


def test_what_is_left_is_a_share_of_the_box_as_large_as_it_is_then():
    boxes = np.array([[10.0, 15, 30, 25]])  # a half of it stays
    augmentors = [resize((80, 120)), center_crop(40), resize(10)]
    np.testing.assert_allclose(boxes_after(augmentors, boxes, min_visible=0.5), [[0, 2.5, 5, 7.5]])
    assert len(boxes_after(augmentors, boxes, min_visible=0.51)) == 0


def test_what_a_crop_has_cut_away_does_not_come_back_with_a_border():
    boxes = np.array([[0.0, 0, 30, 20], [0, 0, 10, 10]])
    made = boxes_after([center_crop(20), center_paste(40)], boxes)
    np.testing.assert_array_equal(made, [[10.0, 10, 20, 20]])
    np.testing.assert_array_equal(boxes_after([sequence([center_crop(20), center_paste(40)])], boxes), made)


def test_boxes_stay_tight_through_several_turns():
    boxes = np.array([[25.0, 15, 35, 25]])
    turn_and_back = [rotation((30, 30)), rotation((-30, -30))]
    np.testing.assert_allclose(boxes_after(turn_and_back, boxes), boxes, atol=1e-3)


def test_boxes_without_area_leave():
    assert len(boxes_after([identity()], np.array([[3.0, 3, 3, 9]]))) == 0


def test_boxes_keep_their_dtype_and_become_floats():
    assert boxes_after([MIRROR], np.array([[1, 2, 3, 4]])).dtype == np.float64
    assert boxes_after([MIRROR], np.array([[1, 2, 3, 4]], np.float32)).dtype == np.float32
    assert boxes_after([MIRROR], [[1, 2, 3, 4]]).tolist() == [[57.0, 2.0, 59.0, 4.0]]


@pytest.mark.parametrize("none", [[], np.zeros((0, 4))])
def test_no_boxes_are_no_boxes(none):
    made = one(ff.pipe([[IMAGE, none, []]], augment([MIRROR, rotation(9)], 0, boxes=1, labels=2)))
    assert made[1].shape == (0, 4)
    assert made[2] == []


def test_boxes_in_two_components_are_kept_apart():
    first, second = np.array([[0.0, 0, 9, 9], [25, 15, 35, 25]]), np.array([[28.0, 18, 30, 20]])
    made = one(ff.pipe([[IMAGE, first, second]], augment([center_crop(20)], 0, boxes=(1, 2))))
    np.testing.assert_array_equal(made[1], [[5.0, 5, 15, 15]])
    np.testing.assert_array_equal(made[2], [[8.0, 8, 10, 10]])


def test_points_in_two_components_are_kept_apart():
    made = one(ff.pipe([[IMAGE, [[1, 2]], [], [[3, 4], [5, 6]]]], augment([MIRROR], 0, coords=(1, 2, 3))))
    assert [part.tolist() for part in made[1:]] == [[[59.0, 2.0]], [], [[57.0, 4.0], [55.0, 6.0]]]


# What may stand as an augmentor


def test_none_is_skipped_and_one_need_not_be_a_list():
    for augmentors in (MIRROR, [MIRROR], (None, MIRROR), [[MIRROR]]):
        np.testing.assert_array_equal(one(ff.pipe([IMAGE], augment(augmentors))), mirrored(IMAGE))
    assert one(ff.pipe([IMAGE], augment([]))) is IMAGE


def test_functions_of_an_image_are_augmentors():
    made = one(ff.pipe([[IMAGE, [[1, 2]]]], augment([np.invert, MIRROR], 0, coords=1)))
    np.testing.assert_array_equal(made[0], mirrored(255 - IMAGE))
    np.testing.assert_array_equal(made[1], [[59.0, 2.0]])


def test_each_augmentor_sees_the_shape_that_comes_out_of_those_before():
    seen = []

    @dataclass(frozen=True, repr=False)
    class watch(Augmentor):
        def __call__(self, image_shape, rng):
            seen.append(image_shape)
            return identity()(image_shape, rng)

    one(ff.pipe([IMAGE], augment([watch(), center_crop(20), watch(), lambda image: image[:5, :, 0], watch()])))
    assert seen == [(HEIGHT, WIDTH, 3), (20, 20, 3), (5, 20)]


def test_a_function_that_moves_pixels_must_not_leave_points_behind():
    with pytest.raises(
        ValueError,
        match=r"has made an image of \(40, 60\) one of \(20, 60\).*so it is not known where masks, coords and boxes",
    ):
        one(ff.pipe([[IMAGE, [[1, 2]]]], augment([lambda image: image[:20]], 0, coords=1)))
    assert one(ff.pipe([[IMAGE, 1]], augment([lambda image: image[:20]], 0)))[0].shape == (20, 60, 3)


def test_a_transform_of_ones_own_is_enough():
    @dataclass(frozen=True)
    class Half(Transform):
        def image(self, image):
            return image[::2, ::2]

        def coords(self, coords):
            return coords / 2

        def shape(self, image_shape):
            return (-(-image_shape[0] // 2), -(-image_shape[1] // 2), *image_shape[2:])

    @dataclass(frozen=True, repr=False)
    class half(Augmentor):
        def __call__(self, image_shape, rng):
            return Half()

    made = one(ff.pipe([[IMAGE, [[10, 20]], [[10, 20, 30, 40]]]], augment([half()], 0, coords=1, boxes=2)))
    np.testing.assert_array_equal(made[0], IMAGE[::2, ::2])
    assert made[1].tolist() == [[5.0, 10.0]]
    assert made[2].tolist() == [[5.0, 10.0, 15.0, 20.0]]


# The same wherever it is computed

AUGMENTORS = [
    flip(horizontal=True),
    apply_randomly(rotation(15), 0.5),
    choose([flip(vertical=True), resize((30, 50))]),
    shuffled([transpose(), shift(vertical=0.1)]),
    random_crop(16),
]


def pictures():
    boxes = np.array([[5.0, 5, 30, 30], [40, 10, 55, 35]])
    return [
        {
            "image": noise((HEIGHT, WIDTH, 3), seed=i),
            "mask": noise((HEIGHT, WIDTH), seed=i),
            "points": boxes[:, :2],
            "boxes": boxes,
            "ids": [i, -i],
        }
        for i in range(7)
    ]


def everything():
    return augment(
        AUGMENTORS, image="image", mask="mask", coords="points", boxes="boxes", labels="ids", min_visible=0.1
    )


@pytest.mark.timeout(60)
def test_the_laws_hold():
    check(lambda: ff.pipe(pictures(), ff.shuffle(), everything()), stops=3)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_laws_hold_in_processes():
    check(lambda: ff.pipe(pictures(), everything()), workers=({"processes": 2},), epochs=(1,), stops=1)


def test_every_record_is_augmented_alike_in_every_world():
    whole = list(ff.pipe(pictures(), everything()))
    for world in (2, 3):
        for rank in range(world):
            share = list(ff.pipe(pictures(), ff.shard(rank, world), everything()))
            assert all(map(same, whole[rank::world], share))


def test_one_datapoint_is_augmented_as_in_its_pass_and_otherwise_in_the_next():
    flow = ff.pipe(pictures(), everything())
    first, second = list(flow.run(epoch=0)), list(flow.run(epoch=1))
    assert same(flow[4], first[4])
    assert not same(first, second)
    assert len({picture["image"].tobytes() for picture in first}) == 7


def test_streams_and_both_ways_of_writing_it_give_the_same():
    images = [picture["image"] for picture in pictures()]
    stage = augment(AUGMENTORS)
    expected = list(ff.pipe(images, stage))
    assert same(list(stage(images)), expected)
    assert same(list(augment(AUGMENTORS, source=images)), expected)
    assert same(list(augment(AUGMENTORS, None, images)), expected)
    assert same(list(ff.pipe(lambda: iter(images), stage)), expected)


def test_what_comes_in_is_not_changed():
    for part in (datapoint := pictures()[0]).values():
        if isinstance(part, np.ndarray):
            part.flags.writeable = False
    before = pickle.dumps(datapoint)
    made = one(ff.pipe([datapoint], everything()))
    assert pickle.dumps(datapoint) == before
    assert made is not datapoint


def test_the_augmentor_draws_from_the_datapoints_own_generator():
    seen = []

    @dataclass(frozen=True, repr=False)
    class watch(Augmentor):
        def __call__(self, image_shape, rng):
            seen.append(rng.integers(1 << 62))
            return identity()(image_shape, rng)

    list(ff.pipe([IMAGE] * 2, augment([watch(), watch()], name="drawn")))
    drawn = list(
        ff.pipe([0] * 2, ff.map(lambda _, rng: rng.integers(1 << 62, size=2).tolist(), rng=True, name="drawn"))
    )
    assert seen == [number for pair in drawn for number in pair]


def test_the_stage_compares_pickles_and_is_shown_as_it_was_called():
    stage = augment(
        [flip(horizontal=True), random_crop(16), np.invert], "image", boxes="boxes", min_visible=0.1, name="train"
    )
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert repr(stage) == (
        "augment([flip(horizontal=True), random_crop(16), map_image(invert)], 'image', boxes='boxes', "
        "min_visible=0.1, name='train')"
    )
    assert repr(augment([MIRROR])) == "augment([flip(horizontal=True, probability=1)])"
    assert stage != augment([flip(horizontal=True)], "image")


def test_a_failing_function_may_be_guarded():
    def picky(image):
        if image.sum() == 0:
            raise ValueError("all black")
        return image

    images = [IMAGE, np.zeros_like(IMAGE), IMAGE]
    assert len(list(ff.pipe(images, ff.guard(augment([picky]), errors=ValueError, then="drop")))) == 2


# What is said when something does not fit


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: augment([7]),
            TypeError,
            r"augment\(\): augmentors must be augmentors, lists of them, or functions of an image, got 7",
        ),
        (lambda: augment([flip]), TypeError, r"flip is an augmentor without its arguments: write flip\(...\)"),
        (lambda: augment(ff.shuffle()), TypeError, r"augmentors must be a list of augmentors.*, got stage shuffle\(\)"),
        (
            lambda: augment([ff.map(abs)]),
            TypeError,
            r"must not be stages, got map\(abs\); put it beside augment in the pipe",
        ),
        (
            lambda: augment([MIRROR], ff.flow([IMAGE])),
            TypeError,
            r"index must be .*; to give a source too, write augment\(augmentors, source=...\)",
        ),
        (
            lambda: augment([MIRROR], 1.5),
            TypeError,
            "index must be a component's position or key, a tuple of them, or None, got 1.5",
        ),
        (
            lambda: augment([MIRROR], 0, image=1),
            ValueError,
            "index and image both say which component is the image, got index=0 and image=1",
        ),
        (lambda: augment([MIRROR], 0, mask=(1, 0)), ValueError, "component 0 is named twice"),
        (lambda: augment([MIRROR], coords=0), ValueError, "coords and boxes belong to an image: name it"),
        (
            lambda: augment([MIRROR], 0, labels=1),
            ValueError,
            "labels belong to the boxes of one component, got boxes=None",
        ),
        (
            lambda: augment([MIRROR], 0, boxes=(1, 2), labels=3),
            ValueError,
            r"labels belong to the boxes of one component, got boxes=\(1, 2\)",
        ),
        (
            lambda: augment([MIRROR], 0, mask=[1]),
            TypeError,
            "mask must be a component's position or key, a tuple of them, or None",
        ),
        (lambda: augment([MIRROR], 0, min_visible=2), ValueError, "min_visible must be a number from 0 to 1, got 2"),
        (
            lambda: augment([MIRROR], 0, min_visible="half"),
            TypeError,
            "min_visible must be a number from 0 to 1, got 'half'",
        ),
    ],
)
def test_wrong_arguments_fail_in_the_call(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("datapoint", "options", "error", "message"),
    [
        (
            ["a.jpg"],
            {"index": 0},
            TypeError,
            r"image \(component 0\) must be an array .*'a.jpg'; decode it before: map_component\(read_image, 0\)",
        ),
        (
            [IMAGE, 7],
            {},
            TypeError,
            r"a datapoint must be an image, .*; name the component: augment\(augmentors, index\)",
        ),
        (
            [IMAGE[None]],
            {"index": 0},
            TypeError,
            r"image \(component 0\) must be an array .*uint8 array \(1, 40, 60, 3\)",
        ),
        ([IMAGE, None], {"index": 0, "mask": 1}, TypeError, r"mask \(component 1\) must be an array .*, got None"),
        (
            [IMAGE, IMAGE[:9]],
            {"index": 0, "mask": 1},
            ValueError,
            r"of one height and width, got \[\(9, 60\), \(40, 60\)\]",
        ),
        (
            [IMAGE, [1, 2]],
            {"index": 0, "coords": 1},
            ValueError,
            r"coords \(component 1\) must be numbers of shape \(n, 2\), got \[1, 2\]",
        ),
        (
            [IMAGE, [["a", "b"]]],
            {"index": 0, "coords": 1},
            ValueError,
            r"coords \(component 1\) must be numbers of shape \(n, 2\)",
        ),
        (
            [IMAGE, np.zeros((2, 5))],
            {"index": 0, "boxes": 1},
            ValueError,
            r"boxes \(component 1\) must be numbers of shape \(n, 4\)",
        ),
        (
            [IMAGE, [[9, 9, 4, 4]]],
            {"index": 0, "boxes": 1},
            ValueError,
            r"x1 y1 x2 y2 with x1 <= x2 .* got \[9.0, 9.0, 4.0, 4.0\]",
        ),
        (
            [IMAGE, [[1, 1, np.nan, 4]]],
            {"index": 0, "boxes": 1},
            ValueError,
            r"must be finite .* got \[1.0, 1.0, nan, 4.0\]",
        ),
        (
            [IMAGE, [[1, 1, np.inf, 4]]],
            {"index": 0, "boxes": 1},
            ValueError,
            r"must be finite .* got \[1.0, 1.0, inf, 4.0\]",
        ),
        (
            [IMAGE, [[1, 1, 4, 4]], {"a": 1}],
            {"index": 0, "boxes": 1, "labels": 2},
            ValueError,
            r"labels \(component 2\) must be a list, tuple or array, one for each of the 1 boxes, got {'a': 1}",
        ),
        (
            [IMAGE, [[1, 1, 4, 4]], [1, 2]],
            {"index": 0, "boxes": 1, "labels": 2},
            ValueError,
            r"one for each of the 1 boxes, got \[1, 2\]",
        ),
        ([IMAGE], {"index": 3}, IndexError, "no component 3 in a datapoint with 1 components"),
        ({"image": IMAGE}, {"index": "picture"}, KeyError, "no component 'picture' in a datapoint with keys"),
    ],
)
def test_datapoints_that_do_not_fit_are_shown(datapoint, options, error, message):
    with pytest.raises(error, match=message):
        one(ff.pipe([datapoint], augment([MIRROR], **options)))


def test_a_function_that_returns_no_image_is_named():
    for function, got in (
        (lambda image: None, "NoneType"),
        (lambda image: image[None], r"uint8 array \(1, 40, 60, 3\)"),
    ):
        with pytest.raises(TypeError, match=rf"must return an image, .*, but returned {got}"):
            one(ff.pipe([IMAGE], augment([function])))


def test_transforms_do_not_change_what_they_are_given():
    picture = IMAGE.copy()
    for augmentor in AUGMENTORS:
        augmentor(picture.shape, rng()).image(picture)
    np.testing.assert_array_equal(picture, IMAGE)


# The order of axes

FIRST = [(3, 224, 224), (1, 28, 28), (4, 300, 300), (3, 8, 8), (2, 64, 48)]
LAST = [
    (224, 224, 3),
    (28, 28, 1),
    (3, 224, 3),
    (1, 640, 4),
    (4, 7, 9),
    (3, 224, 5),
    (5, 64, 64),
    (224, 3, 224),
    (3, 224),
]


@pytest.mark.parametrize("shape", FIRST, ids=str)
@pytest.mark.parametrize("augmentor", [flip(horizontal=True), lambda image: image], ids=["flip", "function"])
def test_an_image_whose_channels_come_first_is_refused(shape, augmentor):
    for datapoint, options in [
        (np.zeros(shape, np.uint8), {}),
        ([np.zeros(shape, np.uint8), 1], {"index": 0}),
        ({"x": np.zeros(shape, np.uint8)}, {"image": "x"}),
        ({"x": np.zeros(shape, np.uint8)}, {"mask": "x"}),
    ]:
        with pytest.raises(
            ValueError,
            match=r'looks like \(channels, height, width\); write augment\(\.\.\., channels="first"\) if it is',
        ):
            ff.pipe([datapoint], augment([augmentor], **options))[0]
    with pytest.raises(
        ValueError, match=r"looks like \(channels, height, width\); np\.moveaxis\(image, 0, -1\) turns it"
    ):
        image_size(shape)
    with pytest.raises(ValueError, match=r"looks like \(channels, height, width\)"):
        random_crop(5)(shape, np.random.default_rng(0))


@pytest.mark.parametrize("shape", LAST, ids=str)
def test_other_images_are_taken_as_they_are(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mirrored = ff.pipe([picture], augment([flip(horizontal=True, probability=1)]))[0]
    assert np.array_equal(mirrored, picture[:, ::-1])


def test_channels_may_be_said_to_be_last():
    strip = np.random.default_rng(0).integers(0, 256, (1, 40, 200), np.uint8)
    mirrored = ff.pipe([strip], augment([flip(horizontal=True, probability=1), lambda image: image], channels="last"))[
        0
    ]
    assert np.array_equal(mirrored, strip[:, ::-1])


@pytest.mark.parametrize("shape", [*FIRST, (3, 5, 7), (40, 30)], ids=str)
def test_channels_may_be_said_to_be_first(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    stage = augment([flip(horizontal=True, probability=1)], image="x", mask="m", coords="p", channels="first")
    made = ff.pipe([{"x": picture, "m": picture, "p": np.array([[0.5, 0.5]])}], stage)[0]
    assert np.array_equal(made["x"], picture[..., ::-1])
    assert np.array_equal(made["m"], picture[..., ::-1])
    assert made["p"].tolist() == [[shape[-1] - 0.5, 0.5]]
    assert made["x"].flags.c_contiguous
    bare = augment([flip(horizontal=True, probability=1)], channels="first")
    assert np.array_equal(ff.pipe([picture], bare)[0], made["x"])
    with pytest.raises(ValueError, match=r"^augment\(\): channels must be None, 'last' or 'first', got 'middle'$"):
        augment([], channels="middle")
