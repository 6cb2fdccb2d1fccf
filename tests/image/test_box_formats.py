"""Boxes in the ways of others: what they are, there and back, and what cannot be one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import noise

import flowfn as ff
from flowfn.image import augment, center_crop, convert_boxes, flip, resize, rotation
from flowfn.image.box_formats import FORMATS

SHAPE = (100, 200, 3)
BOX = {
    "xyxy": [20, 10, 60, 30],
    "xywh": [20, 10, 40, 20],
    "cxcywh": [40, 20, 40, 20],
    "rel_xyxy": [0.1, 0.1, 0.3, 0.3],
    "rel_xywh": [0.1, 0.1, 0.2, 0.2],
    "rel_cxcywh": [0.2, 0.2, 0.2, 0.2],
}
in_pixels = st.sampled_from([form for form in FORMATS if not form.startswith("rel_")])
formats = st.sampled_from(FORMATS)


@pytest.mark.parametrize("before", FORMATS)
@pytest.mark.parametrize("after", FORMATS)
def test_a_box_is_written_in_every_way(before, after):
    made = convert_boxes([BOX[before]], before, after, SHAPE)
    np.testing.assert_allclose(made, [BOX[after]], rtol=1e-15, atol=1e-15)


@st.composite
def boxes(draw, step=0.25):
    """Boxes x1 y1 x2 y2 in an image of 100 x 200, of whole quarters of pixels."""
    rows = draw(st.lists(st.tuples(*[st.integers(0, int(side / step)) for side in (200, 100, 200, 100)]), max_size=5))
    made = np.array(rows, float).reshape(-1, 4) * step
    return np.concatenate([np.minimum(made[:, :2], made[:, 2:]), np.maximum(made[:, :2], made[:, 2:])], 1)


@settings(deadline=None)
@given(boxes(), in_pixels, in_pixels, st.sampled_from([np.float32, np.float64]))
def test_there_and_back_in_pixels_is_exact(corners, before, after, dtype):
    given = convert_boxes(corners.astype(dtype), "xyxy", before)
    there = convert_boxes(given, before, after)
    back = convert_boxes(there, after, before)
    assert given.dtype == there.dtype == back.dtype == dtype
    np.testing.assert_array_equal(back, given)


@settings(deadline=None)
@given(boxes(0.1), formats, formats)
def test_there_and_back_is_right_to_a_rounding(corners, before, after):
    given = convert_boxes(corners, "xyxy", before, SHAPE)
    back = convert_boxes(convert_boxes(given, before, after, SHAPE), after, before, SHAPE)
    np.testing.assert_allclose(back, given, rtol=1e-13, atol=1e-13)


def test_a_new_array_of_floats_comes_out():
    for before in FORMATS:
        given = np.array([BOX[before]])
        kept = given.copy()
        given.flags.writeable = False
        for after in FORMATS:
            made = convert_boxes(given, before, after, SHAPE)
            assert made.dtype == np.float64
            assert not np.shares_memory(made, given)
        np.testing.assert_array_equal(given, kept)
    assert convert_boxes(np.array([BOX["xywh"]], np.int32), "xywh", "xyxy").tolist() == [[20.0, 10.0, 60.0, 30.0]]
    assert convert_boxes(np.array([BOX["xywh"]], np.float16), "xywh", "xyxy").dtype == np.float16


@pytest.mark.parametrize("none", [[], np.zeros((0, 4)), np.zeros((0, 4), int)])
def test_no_boxes_are_no_boxes(none):
    assert convert_boxes(none, "rel_cxcywh", "xyxy", SHAPE).shape == (0, 4)


def test_shares_may_be_beyond_the_image_by_a_rounding():
    made = convert_boxes([[0.5, 0.5, 1.0000001, 1]], "rel_cxcywh", "xyxy", SHAPE)
    np.testing.assert_allclose(made, [[0, 0, 200, 100]], atol=1e-4)


SHARES = "in shares of the image's width and height, from 0 to 1"


@pytest.mark.parametrize(
    ("form", "box", "message"),
    [
        ("xyxy", [20, 10, 15, 30], r"finite x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, got \[20.0, 10.0, 15.0, 30.0\]"),
        ("xywh", [20, 10, -1, 30], r"finite x y width height with width >= 0 and height >= 0, got \[20.0, 10.0, -1.0,"),
        ("cxcywh", [20, 10, 1, -3], "finite the middle's x and y, width and height, with width >= 0 and height >= 0"),
        ("xywh", [20, 10, np.nan, 30], "finite x y width height"),
        ("xyxy", [20, 10, np.inf, 30], "finite x1 y1 x2 y2"),
        ("xyxy", [np.inf, 10, np.inf, 30], "finite x1 y1 x2 y2"),
        ("rel_xyxy", [0.5, 0.5, 0.25, 1], f"x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, {SHARES}"),
        ("rel_xywh", [20, 10, 40, 20], rf"x y width height .*, {SHARES}, got \[20.0, 10.0, 40.0, 20.0\]"),
        ("rel_cxcywh", [0.5, 0.5, 1.01, 0.5], f".*{SHARES}"),
        ("rel_cxcywh", [-0.1, 0.5, 0.5, 0.5], f".*{SHARES}"),
        ("rel_cxcywh", [np.nan, 0.5, 0.5, 0.5], f".*{SHARES}"),
    ],
)
def test_a_box_that_cannot_be_in_the_format_is_shown(form, box, message):
    right = BOX[form]
    with pytest.raises(ValueError, match=rf"^convert_boxes\(\): boxes must be {message}"):
        convert_boxes([right, box], form, "xyxy", SHAPE)
    options = {} if form == "xyxy" else {"boxes_format": form}
    hint = "; boxes_format= says in which other way they are written" if form == "xyxy" else ""
    with pytest.raises(ValueError, match=rf"^augment\(\): boxes \(component 1\) must be {message}.*{hint}"):
        list(ff.pipe([[noise(SHAPE), [right, box]]], augment([], 0, boxes=1, **options)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2, 3, 4], "xyxy", "xywh"), ValueError, r"boxes must be numbers of shape \(n, 4\), got \[1, 2, 3, 4\]"),
        (([["a"] * 4], "xyxy", "xywh"), ValueError, r"boxes must be numbers of shape \(n, 4\)"),
        (
            ([[1, 2, 3, 4]], "coco", "xyxy"),
            ValueError,
            r"from_format must be 'xyxy', 'xywh', .* or 'rel_cxcywh', got 'coco' \(COCO's are 'xywh', YOLO's 'rel_cx",
        ),
        (([[1, 2, 3, 4]], "xyxy", None), TypeError, "to_format must be 'xyxy', 'xywh'"),
        (
            ([[1, 2, 3, 4]], "xyxy", "rel_xyxy"),
            ValueError,
            r"shape must be the \(height, width\) of the image, to go from 'xyxy' to 'rel_xyxy', got None",
        ),
        (([[0, 0, 1, 1]], "rel_xyxy", "xyxy", (1,)), TypeError, r"shape must be the shape of an image, \(height, wid"),
        (([[0, 0, 1, 1]], "rel_xyxy", "xyxy", (0, 4)), ValueError, "shape must be the shape of an image"),
    ],
)
def test_bad_arguments_fail_at_once(arguments, error, message):
    with pytest.raises(error, match=rf"^convert_boxes\(\): {message}"):
        convert_boxes(*arguments)


# In augment


@pytest.mark.parametrize("form", FORMATS)
def test_augment_takes_and_gives_boxes_in_their_format(form):
    image, corners = noise(SHAPE), np.array([[20.0, 10, 60, 30], [100, 40, 180, 90], [0, 0, 9, 9]])
    augmentors = [flip(horizontal=True), rotation(20), center_crop((80, 120)), resize((40, 90))]
    (plain,) = ff.pipe([[image, corners, "abc"]], augment(augmentors, 0, boxes=1, min_visible=0.2))
    written = convert_boxes(corners, "xyxy", form, SHAPE)
    kept = written.copy()
    flow = ff.pipe([[image, written, "abc"]], augment(augmentors, 0, boxes=1, min_visible=0.2, boxes_format=form))
    (made,) = flow
    np.testing.assert_array_equal(written, kept)
    np.testing.assert_array_equal(made[0], plain[0])
    assert len(plain[1])
    np.testing.assert_allclose(convert_boxes(made[1], form, "xyxy", (40, 90)), plain[1], rtol=1e-9, atol=1e-9)


def test_labels_leave_with_boxes_of_any_format():
    data = [[noise(SHAPE), np.array([[0.5, 0.5, 0.1, 0.1], [0.05, 0.05, 0.1, 0.1]], np.float32), [7, 8]]]
    (made,) = ff.pipe(data, augment([center_crop(50)], 0, boxes=1, labels=2, boxes_format="rel_cxcywh"))
    assert made[2] == [7]
    np.testing.assert_allclose(made[1], [[0.5, 0.5, 0.4, 0.2]], rtol=1e-6)
    assert made[1].dtype == np.float32


def test_images_with_their_channels_first_have_their_shares_right():
    data = [[noise((3, 100, 200)), [BOX["rel_xywh"]]]]
    options = {"boxes": 1, "channels": "first", "boxes_format": "rel_xywh"}
    (made,) = ff.pipe(data, augment([flip(horizontal=True, probability=1)], 0, **options))
    np.testing.assert_allclose(made[1], [[0.7, 0.1, 0.2, 0.2]])


def test_boxes_of_several_components_and_empty_ones_are_converted():
    data = [[noise(SHAPE), [BOX["xywh"]], []]]
    (made,) = ff.pipe(data, augment([flip(horizontal=True, probability=1)], 0, boxes=(1, 2), boxes_format="xywh"))
    assert made[1].tolist() == [[140.0, 10.0, 40.0, 20.0]]
    assert made[2].shape == (0, 4)


def test_a_format_of_no_boxes_and_an_unknown_one_are_refused_at_once():
    with pytest.raises(ValueError, match=r"^augment\(\): boxes_format='xywh' says how boxes are written, but none are"):
        augment([], 0, boxes_format="xywh")
    with pytest.raises(ValueError, match=r"^augment\(\): boxes_format must be 'xyxy', .*got 'yolo' \(COCO's are"):
        augment([], 0, boxes=1, boxes_format="yolo")
    assert repr(augment([], 0, boxes=1, boxes_format="xywh")) == "augment([], 0, boxes=1, boxes_format='xywh')"
