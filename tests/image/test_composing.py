"""Augmentors of augmentors."""

import pickle
from collections import Counter

import numpy as np
import pytest
from marked import noise, rng

from flowfn.image import (
    Composed,
    Identity,
    apply_randomly,
    choose,
    flip,
    identity,
    map_image,
    random_crop,
    resize,
    sequence,
    shuffled,
)
from flowfn.image.composing import Mapped
from flowfn.image.geometry import Flipped, Resized

MIRROR = flip(horizontal=True, probability=1)
SHAPE = (6, 8, 3)


def invert(image):
    return 255 - image


def test_a_sequence_hands_each_the_shape_it_will_see():
    transform = sequence([resize((10, 12)), random_crop((10, 3)), MIRROR])(SHAPE, rng())
    assert transform.transforms[0] == Resized((6, 8), (10, 12))
    assert transform.transforms[1].size == (10, 12)
    assert transform.transforms[2] == Flipped((10, 3), True, False)
    assert transform.image(noise(SHAPE)).shape == (10, 3, 3)


def test_a_sequence_of_nothing_does_nothing():
    assert sequence([])(SHAPE, rng()) == Identity()
    assert sequence([identity(), sequence([])])(SHAPE, rng()) == Identity()


def test_sequences_nest():
    inner = sequence([[MIRROR, resize(3)], resize(2)])
    assert inner == sequence([sequence([MIRROR, resize(3)]), resize(2)])
    assert inner(SHAPE, rng()) == sequence([MIRROR, resize(3), resize(2)])(SHAPE, rng())


def test_functions_are_augmentors_too():
    image = noise(SHAPE)
    transform = sequence([invert, MIRROR])(SHAPE, rng())
    assert transform == Composed((Mapped(invert), Flipped((6, 8), True, False)))
    np.testing.assert_array_equal(transform.image(image), 255 - image[:, ::-1])
    assert repr(sequence([invert])) == "sequence([map_image(invert)])"


def test_a_mapped_function_leaves_masks_and_coordinates():
    transform = map_image(invert)(SHAPE, rng())
    mask, coords = np.zeros((6, 8)), np.zeros((1, 2))
    assert transform.mask(mask) is mask
    assert transform.coords(coords) is coords
    assert pickle.loads(pickle.dumps(transform)) == transform


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_apply_randomly_is_as_frequent_as_it_says(probability):
    draw = rng()
    applied = sum(apply_randomly(MIRROR, probability)(SHAPE, draw) != Identity() for _ in range(2000))
    assert abs(applied - 2000 * probability) < 80 * (0 < probability < 1) + 1e-9


def test_apply_randomly_draws_the_same_either_way():
    after = [
        (draw := rng(seed), apply_randomly(random_crop(2), p)(SHAPE, draw), draw.random())[2]
        for seed in (1, 1)
        for p in (0, 1)
    ]
    assert len(set(after)) == 1


def test_choose_is_even_or_weighted():
    several = [resize(1), resize(2), resize(3)]
    draw = rng()
    even = Counter(choose(several)(SHAPE, draw).target[0] for _ in range(3000))
    assert sorted(even) == [1, 2, 3]
    assert max(abs(count - 1000) for count in even.values()) < 100
    weighted = Counter(choose(several, weights=[1, 0, 3])(SHAPE, draw).target[0] for _ in range(3000))
    assert sorted(weighted) == [1, 3]
    assert abs(weighted[3] - 2250) < 100


def test_what_comes_after_choose_draws_the_same_whatever_it_chose():
    after = set()
    for weights in ([1, 0], [0, 1]):
        draw = rng(5)
        choose([random_crop(2), identity()], weights=weights)(SHAPE, draw)
        after.add(draw.random())
    assert len(after) == 1


def test_shuffled_gives_every_order():
    several = shuffled([resize(1), resize(2), resize(3)])
    draw = rng()
    orders = Counter(tuple(transform.target[0] for transform in several(SHAPE, draw).transforms) for _ in range(1200))
    assert len(orders) == 6
    assert max(abs(count - 200) for count in orders.values()) < 60


@pytest.mark.parametrize(
    "augmentor",
    [
        sequence([random_crop(2), MIRROR]),
        apply_randomly(random_crop(2), 0.5),
        choose([random_crop(2), MIRROR]),
        shuffled([MIRROR, resize(3)]),
    ],
    ids=repr,
)
def test_the_same_numbers_give_the_same_transform(augmentor):
    drawn = [augmentor(SHAPE, rng(seed)) for seed in range(20)]
    assert drawn == [pickle.loads(pickle.dumps(augmentor))(SHAPE, rng(seed)) for seed in range(20)]
    assert eval(repr(augmentor)) == augmentor


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: sequence(MIRROR),
            TypeError,
            r"sequence\(\): augmentors must be a list of augmentors, got .*; write sequence\(\[...\]\)",
        ),
        (
            lambda: sequence([3]),
            TypeError,
            r"sequence\(\): augmentors must be augmentors, lists of them, or functions of an image, got 3",
        ),
        (
            lambda: shuffled([flip]),
            TypeError,
            r"shuffled\(\): flip is an augmentor without its arguments: write flip\(...\)",
        ),
        (lambda: choose([]), ValueError, r"choose\(\): augmentors must be a list of at least one augmentor, got \[\]"),
        (
            lambda: choose([MIRROR], weights=[1, 2]),
            ValueError,
            r"choose\(\): weights must be a list of numbers >= 0, one for each augmentor",
        ),
        (lambda: choose([MIRROR], weights=[-1]), ValueError, r"choose\(\): weights must be"),
        (lambda: choose([MIRROR], weights=[0]), ValueError, r"choose\(\): weights must be .* not all 0, got \[0\]"),
        (lambda: choose([MIRROR], weights="a"), TypeError, r"choose\(\): weights must be"),
        (
            lambda: apply_randomly(MIRROR, 2),
            ValueError,
            r"apply_randomly\(\): probability must be a number from 0 to 1, got 2",
        ),
        (
            lambda: apply_randomly(MIRROR, "a"),
            TypeError,
            r"apply_randomly\(\): probability must be a number from 0 to 1, got 'a'",
        ),
        (lambda: apply_randomly(None, 0.5), TypeError, r"apply_randomly\(\): augmentors must be augmentors"),
        (lambda: map_image(3), TypeError, r"map_image\(\): function must be a function, got 3"),
    ],
)
def test_wrong_arguments_say_what_must_hold(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_identity_is_nothing():
    image = np.zeros(SHAPE)
    assert identity()(SHAPE, rng()).image(image) is image
    assert repr(identity()) == "identity()"
