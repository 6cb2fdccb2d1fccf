"""The mechanism: what transforms promise, what augmentors are, and what they say when something does not fit."""

import pickle
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
from marked import noise, rng

import flowfn as ff
from flowfn.image import Augmentor, Composed, Identity, Transform, flip, resize, rotation, sequence
from flowfn.image.geometry import Flipped
from flowfn.image.transforms import as_points, bounding, composed, corners, fitting, image_size


@dataclass(frozen=True)
class Brighter(Transform):
    amount: int

    def image(self, image):
        return image + self.amount


@dataclass(frozen=True)
class Moved(Transform):
    x: float

    def image(self, image):
        return np.roll(image, int(self.x), 1)

    def coords(self, coords):
        return coords + [self.x, 0]


@dataclass(frozen=True)
class Doubled(Moved):
    """With boxes of its own."""

    def boxes(self, boxes):
        return boxes * 2


def test_a_transform_has_to_say_what_it_does_to_images():
    with pytest.raises(TypeError, match="abstract"):
        Transform()


def test_an_augmentor_has_to_say_what_it_draws():
    with pytest.raises(TypeError, match="abstract"):
        Augmentor()


def test_a_transform_of_colours_leaves_everything_else_itself():
    mask, coords, boxes = np.zeros((2, 2), int), np.zeros((3, 2)), np.zeros((1, 4))
    transform = Brighter(3)
    assert transform.image(mask).tolist() == [[3, 3], [3, 3]]
    assert transform.mask(mask) is mask
    assert transform.coords(coords) is coords
    assert transform.boxes(boxes) is boxes
    assert transform.shape((2, 2, 3)) == (2, 2, 3)


def test_identity_returns_what_it_is_given():
    image = noise()
    for method in (Identity().image, Identity().mask, Identity().coords, Identity().boxes):
        assert method(image) is image


def test_boxes_hold_their_corners():
    boxes = np.array([[0.0, 0, 10, 20], [5, 6, 7, 9]])
    transform = rotation((90, 90))((40, 40), rng())
    assert transform.boxes(boxes).tolist() == [[0, 30, 20, 40], [6, 33, 9, 35]]


@pytest.mark.parametrize("transform", [Moved(3), rotation(20)((40, 40), rng()), Composed((Moved(1), Brighter(2)))])
def test_no_points_and_no_boxes_stay_none(transform):
    assert transform.coords(np.empty((0, 2))).shape == (0, 2)
    assert transform.boxes(np.empty((0, 4))).shape == (0, 4)


def test_corners_go_round_a_box():
    assert corners([[1, 2, 3, 4]]).tolist() == [[1, 2], [3, 2], [3, 4], [1, 4]]
    assert bounding(corners([[1, 2, 3, 4], [5, 6, 7, 8]])).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


# Composition


def test_a_composition_is_one_after_the_other():
    image = np.arange(6).reshape(1, 6)
    both = Composed((Moved(1), Brighter(10)))
    assert both.image(image).tolist() == [[15, 10, 11, 12, 13, 14]]
    assert both.coords(np.array([[0.5, 0.5]])).tolist() == [[1.5, 0.5]]
    assert both.mask(image) is image


def test_a_composition_follows_shapes():
    transform = sequence([resize((10, 20)), resize((4, 5))])((7, 7, 3), rng())
    assert transform.shape((7, 7, 3)) == (4, 5, 3)
    assert transform.image(noise((7, 7, 3))).shape == (4, 5, 3)


def test_a_box_turned_there_and_back_is_itself():
    there, back = rotation((30, 30))((40, 40), rng()), rotation((-30, -30))((40, 40), rng())
    box = np.array([[10.0, 12, 20, 30]])
    np.testing.assert_allclose(Composed((there, back)).boxes(box), box, atol=1e-9)
    assert np.ptp(back.boxes(there.boxes(box))) > np.ptp(box)  # boxes of boxes grow


def test_a_composition_asks_for_boxes_where_a_transform_has_its_own():
    box = np.array([[1.0, 2, 3, 4]])
    assert Composed((Moved(10), Doubled(0))).boxes(box).tolist() == [[22, 4, 26, 8]]
    assert Composed((Doubled(0), Moved(10))).boxes(box).tolist() == [[12, 4, 16, 8]]
    assert Composed((Brighter(1), Doubled(0), Brighter(1))).boxes(box).tolist() == [[2, 4, 6, 8]]
    assert Composed((Brighter(1), Brighter(1))).boxes(box) is box


def test_composed_leaves_out_what_does_nothing():
    assert composed([]) == Identity()
    assert composed([Identity(), Moved(1)]) == Moved(1)
    assert composed([Composed((Moved(1), Moved(2))), Identity(), Moved(3)]) == Composed((Moved(1), Moved(2), Moved(3)))


# Values


def test_transforms_are_values():
    transform = Flipped((2, 3), True, False)
    assert transform == Flipped((2, 3), True, False) != Flipped((2, 3), True, True)
    assert pickle.loads(pickle.dumps(transform)) == transform
    assert hash(transform) == hash(Flipped((2, 3), True, False))
    assert repr(transform) == "Flipped(size=(2, 3), horizontal=True, vertical=False)"
    with pytest.raises(FrozenInstanceError):
        transform.horizontal = False


def test_augmentors_are_the_calls_that_made_them():
    assert repr(flip(horizontal=True)) == "flip(horizontal=True)"
    assert repr(resize((2, 3), interpolation="area")) == "resize((2, 3), interpolation='area')"
    assert repr(resize(np.int64(2))) == "resize(2)"
    assert repr(resize((np.int64(2), np.uint8(3)))) == "resize((2, 3))"
    assert repr(rotation(np.float64(2.5))) == "rotation(2.5)"
    augmentor = sequence([resize([2, 3]), flip(vertical=True, probability=0.25)])
    assert repr(augmentor) == "sequence([resize((2, 3)), flip(vertical=True, probability=0.25)])"
    assert eval(repr(augmentor)) == augmentor == pickle.loads(pickle.dumps(augmentor))
    assert hash(eval(repr(augmentor))) == hash(augmentor)


def test_an_augmentor_in_the_place_of_a_stage_says_what_to_write():
    with pytest.raises(
        TypeError, match=r"argument 2 is not a stage: write augment\(\[flip\(horizontal=True\)\], index\)"
    ):
        ff.pipe([1], flip(horizontal=True))


# What does not fit


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5), (0, 3), (2, 2, 0), ()])
def test_what_is_no_image_says_so(shape):
    with pytest.raises(ValueError, match=r"an image must be an array \(height, width\) or"):
        image_size(shape)
    with pytest.raises(ValueError, match="an image must be"):
        flip(horizontal=True)(shape, rng())


def test_a_mask_of_another_size_says_so():
    transform = flip(horizontal=True, probability=1)((4, 6, 3), rng())
    with pytest.raises(
        ValueError, match=r"drawn for images and masks of height 4 and width 6, got an array of shape \(6, 4\)"
    ):
        transform.mask(np.zeros((6, 4)))
    assert fitting(noise((4, 6, 3)), (4, 6)).shape == (4, 6, 3)


@pytest.mark.parametrize("shape", [(2,), (4, 2, 1), (3, 3)])
def test_points_have_two_coordinates(shape):
    with pytest.raises(ValueError, match=r"coords must be an array of shape \(n, 2\): x then y, got shape"):
        flip(horizontal=True, probability=1)((4, 6), rng()).coords(np.zeros(shape))


@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 5), (1, 2, 2)])
def test_boxes_have_four_coordinates(shape):
    with pytest.raises(ValueError, match=r"boxes must be an array of shape \(n, 4\): x1 y1 x2 y2, got shape"):
        flip(horizontal=True, probability=1)((4, 6), rng()).boxes(np.zeros(shape))


def test_coordinates_are_floats_and_keep_their_dtype():
    assert as_points([[1, 2]]).dtype == np.float64
    for dtype in (np.float32, np.float64):
        assert as_points(np.zeros((1, 2), dtype)).dtype == dtype
