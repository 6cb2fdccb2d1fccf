"""Flips, resizing, warps and deformation: where pixels land is where coordinates say,
and what they are is what others compute."""

import pickle

import numpy as np
import pytest
from marked import HEIGHT, WIDTH, blob, centres, centroid, inside, noise, numbered, rng, smooth
from scipy.ndimage import map_coordinates
from skimage.measure import block_reduce
from skimage.transform import AffineTransform, rotate, warp
from skimage.transform import resize as skimage_resize

from flowfn.image import (
    Identity,
    affine,
    center_crop,
    center_paste,
    flip,
    gaussian_deform,
    random_crop,
    random_crop_random_shape,
    random_paste,
    random_resize,
    random_resized_crop,
    resize,
    resize_shortest_edge,
    rotation,
    rotation_and_crop_valid,
    sequence,
    shift,
    shuffled,
    transpose,
)
from flowfn.image.deforming import largest_magnitude
from flowfn.image.resampling import resized
from flowfn.image.warping import largest_inside

SIZE = (HEIGHT, WIDTH)
WHOLE_PIXELS = [
    flip(horizontal=True, probability=1),
    flip(vertical=True, probability=1),
    flip(horizontal=True, vertical=True, probability=1),
    transpose(1),
    shift(0.3, 0.4, border="constant"),
    rotation((180, 180)),
    rotation((90, 90), border="constant"),
    rotation((-90, 270), step=90, border="constant"),
    rotation_and_crop_valid((0, 270), step=90),
    random_crop((30, 50)),
    center_crop((31, 45)),
    random_crop_random_shape((35, 40), (50, 70)),
    center_paste((71, 94)),
    random_paste(100),
]
BETWEEN_PIXELS = [
    resize((90, 100)),
    resize((48, 70), interpolation="cubic"),
    resize((45, 40), interpolation="area"),
    resize_shortest_edge((50, 70)),
    random_resize((0.8, 1.2), (0.7, 1.3)),
    rotation(40),
    rotation(180, center=(0.3, 0.7), interpolation="cubic", border="constant"),
    rotation_and_crop_valid(60),
    affine(30, scale=(0.8, 1.3), translate=(0.1, 0.1), shear=20),
    affine((80, 100), shear=(-30, -10), interpolation="lanczos", border="constant", fill=0),
    gaussian_deform(3, magnitude=0.03),
    gaussian_deform([(0.2, 0.3), (0.8, 0.5)], magnitude=0.1, sigma=0.3),
    random_resized_crop((64, 72), area=(0.5, 1)),
    sequence(
        [resize((70, 90)), rotation(20), flip(horizontal=True), center_crop(60), gaussian_deform(2, magnitude=0.02)]
    ),
    shuffled([affine(10, scale=(0.9, 1.1)), transpose(), resize((70, 90))]),
]
GEOMETRIC = WHOLE_PIXELS + BETWEEN_PIXELS


def seeds():
    return pytest.mark.parametrize("seed", range(3))


def every(augmentors):
    return pytest.mark.parametrize("augmentor", augmentors, ids=repr)


# Image, mask, coordinates and boxes agree


@seeds()
@every(WHOLE_PIXELS)
def test_every_pixel_lands_where_its_coordinate_says(augmentor, seed):
    image = numbered()
    transform = augmentor(SIZE, rng(seed))
    for made in (transform.image(image), transform.mask(image.astype(np.int32))):
        goes = np.floor(transform.coords(centres())).astype(int)
        np.testing.assert_allclose(transform.coords(centres()) % 1, 0.5, atol=1e-9)
        seen = inside(goes + 0.5, made.shape)
        assert seen.sum() >= 500
        np.testing.assert_array_equal(made[goes[seen, 1], goes[seen, 0]], image.ravel()[seen])
        assert np.isin(made, [0, *image.ravel()[seen]]).all()  # and nothing else is to be seen


@seeds()
@every(GEOMETRIC)
def test_a_spot_lands_where_its_coordinate_says(augmentor, seed):
    transform = augmentor(SIZE, rng(seed))
    looked = 0
    for point in np.random.default_rng(seed).uniform([8, 8], [WIDTH - 8, HEIGHT - 8], (200, 2)):
        goes = transform.coords(point[None])
        if looked < 12 and inside(goes, transform.shape(SIZE), 9)[0]:
            looked += 1
            assert np.abs(centroid(transform.image(blob(*point))) - goes[0]).max() < 0.15
    assert looked == 12


@seeds()
@every(GEOMETRIC)
def test_image_and_mask_go_the_same_way(augmentor, seed):
    labels = (smooth(seed=seed) > 128).astype(np.uint8)
    transform = augmentor(SIZE, rng(seed))
    mask, image = transform.mask(labels), transform.image(labels * np.float32(255))
    assert mask.dtype == np.uint8
    assert mask.shape == image.shape == transform.shape(SIZE)
    assert np.isin(mask, [0, 1]).all()
    assert ((image > 127.5) == (mask == 1)).mean() > 0.97


@seeds()
@every(GEOMETRIC)
def test_a_mask_holds_the_label_of_the_point_that_went_there(augmentor, seed):
    labels = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((20, 20), int))
    points = np.random.default_rng(seed).uniform(0, [WIDTH, HEIGHT], (500, 2))
    points = points[(np.abs((points % 20) - 10) < 8).all(1)]  # not beside another label
    transform = augmentor(SIZE, rng(seed))
    goes, mask = transform.coords(points), transform.mask(labels)
    seen = inside(goes, mask.shape)
    assert seen.sum() > 50
    there = np.floor(goes[seen]).astype(int)
    here = np.floor(points[seen]).astype(int)
    np.testing.assert_array_equal(mask[there[:, 1], there[:, 0]], labels[here[:, 1], here[:, 0]])


@seeds()
@every(GEOMETRIC)
def test_boxes_hold_their_corners_wherever_they_went(augmentor, seed):
    transform = augmentor(SIZE, rng(seed))
    boxes = np.array([[3.5, 4, 30, 20], [0, 0, WIDTH, HEIGHT], [40, 10, 41, 50]])
    for box, made in zip(boxes, transform.boxes(boxes)):
        x1, y1, x2, y2 = box
        four = transform.coords(np.array([[x1, y1], [x2, y1], [x1, y2], [x2, y2]]))
        np.testing.assert_allclose(made, [*four.min(0), *four.max(0)], atol=1e-9)


# What every augmentor promises


@every(GEOMETRIC)
def test_the_same_numbers_give_the_same_transform(augmentor):
    drawn = [augmentor((*SIZE, 3), rng(seed)) for seed in range(5)]
    again = [pickle.loads(pickle.dumps(augmentor))((*SIZE, 3), rng(seed)) for seed in range(5)]
    assert drawn == again == [pickle.loads(pickle.dumps(transform)) for transform in drawn]
    assert eval(repr(augmentor)) == augmentor
    np.testing.assert_array_equal(drawn[0].image(noise()), again[0].image(noise()))


@every(GEOMETRIC)
def test_as_many_numbers_are_drawn_whatever_they_are(augmentor):
    def drawn(seed, shape):
        used, compared = np.random.PCG64(seed), np.random.PCG64(seed)
        augmentor(shape, np.random.Generator(used))
        for count in range(200):
            if used.state == compared.state:
                return count
            compared.advance(1)
        raise AssertionError("more than 200")

    assert len({drawn(seed, shape) for seed in range(20) for shape in (SIZE, (61, 62, 3))}) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 9])
@every(GEOMETRIC)
def test_any_number_of_channels_is_as_each_by_itself(augmentor, channels, dtype):
    image = noise((*SIZE, channels), dtype)
    transform = augmentor(image.shape, rng(1))
    made = transform.image(image)
    assert made.dtype == dtype
    assert made.shape == transform.shape(image.shape)
    alone = np.stack([transform.image(np.ascontiguousarray(image[..., c])) for c in range(channels)], -1)
    np.testing.assert_allclose(made.astype(float), alone.astype(float), atol=1 if dtype == np.uint8 else 1e-3)


@every(GEOMETRIC)
def test_uint8_and_float32_are_the_same_picture(augmentor):
    image = noise()
    transform = augmentor(image.shape, rng(2))
    whole, real = transform.image(image).astype(float), transform.image(image.astype(np.float32)).clip(0, 255)
    assert np.abs(whole - real).mean() < 1
    assert np.abs(whole - real).max() < 8  # OpenCV weighs uint8 in steps of 1/32 of a pixel


@every(GEOMETRIC)
def test_what_is_given_is_never_changed(augmentor):
    image, points, boxes = noise(), centres().copy(), np.array([[1.0, 2, 3, 4]])
    transform = augmentor(image.shape, rng(1))
    held = image.copy(), points.copy(), boxes.copy()
    for given in (image, points, boxes):
        given.flags.writeable = False
    transform.image(image), transform.mask(image), transform.coords(points), transform.boxes(boxes)
    for given, copy in zip((image, points, boxes), held):
        np.testing.assert_array_equal(given, copy)


@every(GEOMETRIC)
def test_views_are_as_good_as_copies(augmentor):
    image = noise((2 * HEIGHT, 2 * WIDTH, 3))[::-2, ::2]
    transform = augmentor(image.shape, rng(1))
    np.testing.assert_array_equal(transform.image(image), transform.image(image.copy()))
    np.testing.assert_array_equal(transform.mask(image), transform.mask(image.copy()))


@pytest.mark.parametrize(
    "dtype", [bool, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float16, np.float64]
)
@every(GEOMETRIC)
def test_masks_may_have_any_dtype(augmentor, dtype):
    labels = noise(SIZE) % 2
    transform = augmentor(SIZE, rng(1))
    made = transform.mask(labels.astype(dtype))
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, transform.mask(labels).astype(dtype))
    several = np.stack([labels.astype(dtype)] * 5, -1)
    np.testing.assert_array_equal(transform.mask(several), np.stack([made] * 5, -1))


@every(GEOMETRIC)
def test_coordinates_keep_their_dtype(augmentor):
    transform = augmentor(SIZE, rng(1))
    for dtype in (np.float32, np.float64):
        assert transform.coords(np.ones((2, 2), dtype)).dtype == dtype
        assert transform.boxes(np.ones((2, 4), dtype)).dtype == dtype
    np.testing.assert_allclose(transform.coords(np.array([[3, 4]])), transform.coords(np.array([[3.0, 4.0]])))


def test_large_labels_are_copied_bit_for_bit():
    labels = np.array([[2**62 + 1, -(2**55) - 3]])
    for augmentor in (resize((4, 6)), rotation((180, 180)), gaussian_deform(1, magnitude=0)):
        assert set(augmentor((1, 2), rng()).mask(labels).ravel()) == set(labels.ravel())
    for dtype in (np.int16, np.int32, np.int64):
        made = rotation((45, 45), border="constant", mask_fill=-1)((9, 9), rng()).mask(
            np.full((9, 9), np.iinfo(dtype).min, dtype)
        )
        assert sorted(set(made.ravel())) == [np.iinfo(dtype).min, -1]
    bits = (
        np.random.default_rng(0).integers(-(2**31), 2**31, (64, 64)).astype(np.int32)
    )  # as floats, some are no numbers
    turned = affine((180, 180), scale=(2, 2))(bits.shape, rng()).mask(bits)
    assert np.isin(turned, bits).all()


def test_an_image_that_cannot_be_resampled_says_so():
    with pytest.raises(
        TypeError,
        match="an image must be uint8 or float32 to be resampled, got int64; convert it before, or give it as a mask",
    ):
        resize(3)((6, 6), rng()).image(np.zeros((6, 6), np.int64))
    with pytest.raises(TypeError, match="an image or mask must hold numbers, got object"):
        resize(3)((6, 6), rng()).mask(np.full((6, 6), None))


# Flips


def test_flips_are_numpys():
    image = noise()
    assert np.array_equal(flip(horizontal=True, probability=1)(image.shape, rng()).image(image), np.fliplr(image))
    assert np.array_equal(flip(vertical=True, probability=1)(image.shape, rng()).image(image), np.flipud(image))
    assert np.array_equal(
        flip(horizontal=True, vertical=True, probability=1)(image.shape, rng()).image(image), np.rot90(image, 2)
    )
    assert np.array_equal(transpose(1)(image.shape, rng()).image(image), image.transpose(1, 0, 2))


def test_a_flip_is_as_frequent_as_it_says():
    draw = rng()
    both = [flip(horizontal=True, vertical=True, probability=0.3)((2, 2), draw) for _ in range(2000)]
    kinds = {True: 0, False: 0}
    for transform in both:
        if transform != Identity():
            kinds[transform.horizontal] += 1
    assert abs(sum(transform == Identity() for transform in both) - 2000 * 0.49) < 90
    assert abs(kinds[True] - 2000 * 0.3) < 80
    assert abs(sum(transpose(0.3)((2, 2), draw) != Identity() for _ in range(2000)) - 600) < 80


def test_no_flip_is_nothing():
    assert flip(horizontal=True, probability=0)((2, 2), rng()) == Identity()
    assert transpose(0)((2, 2), rng()) == Identity()


# Resizing


def half_pixel_linear(image, size):
    """Bilinear interpolation between the centres of pixels, from the formula."""

    def places(new, old):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.minimum(at.astype(int), old - 2)
        return low, at - low

    (i, v), (j, u) = places(size[0], image.shape[0]), places(size[1], image.shape[1])
    v = v[:, None]
    top = image[i][:, j] * (1 - u) + image[i][:, j + 1] * u
    return top * (1 - v) + (image[i + 1][:, j] * (1 - u) + image[i + 1][:, j + 1] * u) * v


@pytest.mark.parametrize("size", [(90, 100), (40, 33), (60, 20), (1, 1), (7, 200)])
def test_linear_resizing_is_the_formula(size):
    image = noise(SIZE, np.float32)
    made = resize(size)(SIZE, rng()).image(image)
    np.testing.assert_allclose(made, half_pixel_linear(image, size), atol=1e-2)
    ours = resize(size)(SIZE, rng()).image(image.astype(np.uint8))
    np.testing.assert_allclose(ours, half_pixel_linear(image, size), atol=1.01)


def test_linear_and_cubic_resizing_are_scikit_images():
    image = smooth()
    made = resize((97, 111))(SIZE, rng()).image(image)
    np.testing.assert_allclose(
        made, skimage_resize(image, (97, 111), order=1, mode="edge", preserve_range=True), atol=0.01
    )
    made = resize((97, 111), interpolation="cubic")(SIZE, rng()).image(image)
    reference = skimage_resize(image, (97, 111), order=3, mode="edge", preserve_range=True)
    np.testing.assert_allclose(made[8:-8, 8:-8], reference[8:-8, 8:-8], atol=0.5)


@pytest.mark.parametrize("size", [(90, 100), (40, 33), (119, 161), (9, 7), (7, 200)])
def test_masks_are_resized_to_the_pixel_that_is_there(size):
    labels = numbered(dtype=np.int32)
    rows = ((np.arange(size[0]) + 0.5) * HEIGHT / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * WIDTH / size[1]).astype(int)
    made = resize(size)(SIZE, rng()).mask(labels)
    between = [(np.arange(new) + 0.5) * old % new == 0 for new, old in zip(size, SIZE)]  # on the edge of two pixels
    clear = np.ix_(~between[0], ~between[1])
    assert made[clear].size
    np.testing.assert_array_equal(made[clear], labels[rows][:, columns][clear])
    np.testing.assert_array_equal(resize(size, interpolation="nearest")(SIZE, rng()).image(labels), made)


def test_area_is_the_mean_of_what_a_pixel_covers():
    image = noise(SIZE, np.float32)
    made = resize((15, 10), interpolation="area")(SIZE, rng()).image(image)
    np.testing.assert_allclose(made, block_reduce(image, (4, 8), np.mean), rtol=1e-5)


def test_an_image_of_the_right_size_is_itself():
    image = noise()
    for augmentor in (
        resize(SIZE),
        resize_shortest_edge(HEIGHT),
        random_resize((1.0, 1.0)),
        random_resize((60, 60), (80, 80)),
    ):
        assert augmentor(image.shape, rng()) == Identity()
    assert resized(image, SIZE, "linear") is image


@pytest.mark.parametrize(
    ("shape", "augmentor", "target"),
    [
        ((480, 640), resize_shortest_edge(256), (256, 341)),
        ((640, 480, 3), resize_shortest_edge(256), (341, 256)),
        ((100, 100), resize_shortest_edge(256), (256, 256)),
        ((480, 640), resize_shortest_edge(800, max_size=1333), (800, 1067)),
        ((480, 960), resize_shortest_edge(800, max_size=1333), (666, 1333)),
        ((2, 1000), resize_shortest_edge(10, max_size=100), (1, 100)),
    ],
)
def test_the_shortest_edge_is_as_asked_and_proportions_are_kept(shape, augmentor, target):
    assert augmentor(shape, rng()).target == target


def test_the_shortest_edge_may_be_drawn():
    drawn = {resize_shortest_edge((10, 13))((20, 30), rng(seed)).target for seed in range(50)}
    assert drawn == {(10, 15), (11, 17), (12, 18), (13, 20)}


def test_random_resize_keeps_to_its_ranges_and_proportions():
    draw = rng()
    for _ in range(300):
        tall, wide = random_resize((0.5, 2.0), (0.5, 2.0), max_aspect_change=0.2)((200, 300), draw).target
        assert 100 <= tall <= 400
        assert abs(wide / tall / 1.5 - 1) <= 0.21
        tall, wide = random_resize((100, 200), (50, 60), max_aspect_change=None)((200, 300), draw).target
        assert 100 <= tall <= 200
        assert 50 <= wide <= 60
        tall, wide = random_resize((0.1, 0.9), max_aspect_change=0, minimum=(50, 20))((200, 300), draw).target
        assert tall >= 50
        assert wide == max(20, wide)
        assert abs(wide - tall * 1.5) <= 1 or tall == 50


# Warps


@pytest.mark.parametrize("degrees", [10, -35, 90, 123])
def test_rotation_is_scikit_images(degrees):
    image = smooth((*SIZE, 3))
    made = rotation((degrees, degrees))(image.shape, rng()).image(image)
    reference = rotate(image, degrees, order=1, mode="edge", preserve_range=True)
    assert np.abs(made - reference)[2:-2, 2:-2].max() < 1.5


@seeds()
def test_affine_is_scikit_images(seed):
    image = smooth()
    transform = affine(40, scale=(0.7, 1.4), translate=(0.2, 0.2), shear=25)(SIZE, rng(seed))
    half = AffineTransform(translation=(0.5, 0.5))
    between_indices = half + AffineTransform(np.vstack([transform.matrix, [0, 0, 1]])) + half.inverse
    reference = warp(image, between_indices.inverse, order=1, mode="edge", preserve_range=True)
    assert np.abs(transform.image(image) - reference).max() < 1.5


def test_affine_shears_scales_turns_and_moves_in_that_order():
    transform = affine((30, 30), scale=(2, 2), shear=(10, 10))((40, 60), rng())
    for x, y in np.random.default_rng(0).normal(size=(5, 2)) * 20:
        sheared = 2 * (x + y * np.tan(np.radians(10))) + 2j * y
        turned = sheared * np.exp(-1j * np.radians(30))  # y points down: counter-clockwise is negative
        np.testing.assert_allclose(
            transform.coords(np.array([[30 + x, 20 + y]])), [[30 + turned.real, 20 + turned.imag]]
        )


def test_affine_keeps_to_its_ranges():
    draw = rng()
    for _ in range(200):
        transform = affine((10, 20), scale=(0.5, 2), translate=(0.1, 0.2), shear=5)((100, 200), draw)
        (a, b, _), (d, e, _) = transform.matrix
        scale = np.sqrt(a * a + d * d)
        assert 0.5 <= scale <= 2
        assert 10 <= np.degrees(np.arctan2(-d, a)) <= 20
        assert a * e - b * d == pytest.approx(scale * scale)
        moved = transform.coords(np.array([[100.0, 50.0]]))[0] - [100, 50]
        assert abs(moved[0]) <= 20
        assert abs(moved[1]) <= 20


def test_nothing_to_warp_is_nothing():
    for augmentor in (affine(), rotation(0), shift(), rotation_and_crop_valid(0), rotation((360, 360))):
        assert augmentor(SIZE, rng()) == Identity()


def test_rotation_turns_about_a_drawn_point_by_a_multiple_of_the_step():
    angles = set()
    for seed in range(60):
        transform = rotation((-20, 25), step=10, center=(0.2, 0.4))((100, 200), rng(seed))
        if transform == Identity():
            angles.add(0)
            continue
        (a, b, c), (d, e, f) = transform.matrix
        angles.add(round(float(np.degrees(np.arctan2(b, a))), 6))
        center = np.linalg.solve([[1 - a, -b], [-d, 1 - e]], [c, f])
        assert 40 <= center[0] <= 80
        assert 20 <= center[1] <= 40
    assert angles == {-20, -10, 0, 10, 20}


def test_a_quarter_turn_is_numpys():
    image = noise((50, 50, 3))
    assert np.array_equal(rotation((90, 90))(image.shape, rng()).image(image), np.rot90(image))
    image = noise()
    assert np.array_equal(rotation_and_crop_valid((90, 90))(image.shape, rng()).image(image), np.rot90(image))


@pytest.mark.parametrize("border", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_borders_are_numpys(border):
    image = noise()
    padded = np.pad(image, ((20, 20), (30, 30), (0, 0)), mode=border)
    for seed in range(5):
        transform = shift(0.3, 0.3, border=border)(image.shape, rng(seed))
        x, y = transform.coords(np.zeros((1, 2)))[0].astype(int)
        np.testing.assert_array_equal(transform.image(image), padded[20 - y : 20 - y + HEIGHT, 30 - x : 30 - x + WIDTH])


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7, 3), (7, 1)])
def test_a_single_row_or_column_is_reflected_and_does_not_take_forever(shape, interpolation):
    image = np.full(shape, 9, np.float32)
    how = {"border": "reflect", "interpolation": interpolation}
    for augmentor in (rotation((40, 40), **how), gaussian_deform(1, magnitude=0.5, sigma=1, **how)):
        np.testing.assert_allclose(augmentor(shape, rng()).image(image), image, rtol=1e-5)


def test_shifts_are_whole_pixels_in_their_range():
    draw = rng()
    moves = np.array([shift(0.1, 0.05)((100, 100), draw).coords(np.zeros((1, 2)))[0] for _ in range(1000)])
    assert sorted(set(moves[:, 0])) == list(range(-10, 11))
    assert sorted(set(moves[:, 1])) == list(range(-5, 6))


@pytest.mark.parametrize("channels", [3, 5])
def test_fills_are_for_each_channel(channels):
    colour = tuple(range(10, 10 + channels))
    for augmentor in (
        rotation((45, 45), border="constant", fill=colour),
        affine(scale=(0.5, 0.5), border="constant", fill=colour),
    ):
        made = augmentor((40, 40, channels), rng()).image(np.zeros((40, 40, channels), np.uint8))
        assert made[0, 0].tolist() == list(colour)
    one = rotation((45, 45), border="constant", fill=7)((40, 40, channels), rng()).image(
        np.zeros((40, 40, channels), np.uint8)
    )
    assert one[0, 0].tolist() == [7] * channels


def test_masks_have_a_fill_of_their_own():
    transform = rotation((45, 45), border="constant", fill=1, mask_fill=255)((40, 40), rng())
    assert transform.mask(np.zeros((40, 40), np.uint8))[0, 0] == 255


def test_a_fill_of_too_many_numbers_says_so():
    transform = rotation((45, 45), border="constant", fill=(1, 2))((40, 40, 3), rng())
    with pytest.raises(ValueError, match=r"fill must be one number, or one for each of 3 channels, got \(1, 2\)"):
        transform.image(noise((40, 40, 3)))


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (50, 50), (20, 90)])
@pytest.mark.parametrize("degrees", [5, 30, 45, 60, 89, 120, -20])
def test_the_valid_crop_is_valid_and_the_largest(size, degrees):
    transform = rotation_and_crop_valid((degrees, degrees))(size, rng())
    tall, wide = transform.target
    back = np.linalg.inv(np.vstack([transform.matrix, [0, 0, 1]]))
    corners = np.array([[0, 0, 1], [wide, 0, 1], [0, tall, 1], [wide, tall, 1]]) @ back.T
    assert inside(corners[:, :2], size, -1e-6).all()
    best = 0.0
    cos, sin = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    for w in np.linspace(1, max(size) * 1.5, 3000):  # the tallest rectangle of each width that has its corners inside
        h = min((size[1] - w * cos) / sin, (size[0] - w * sin) / cos)
        best = max(best, w * h)
    assert (tall + 1) * (wide + 1) >= best * 0.999
    assert tall * wide <= best * 1.001


def test_the_valid_crop_of_a_line_is_a_pixel():
    assert largest_inside(1, 100, ((0.7, 0.7), (-0.7, 0.7))) == (1, 1)


# Deformation


def test_deformation_is_its_formula():
    image = smooth()
    transform = gaussian_deform(3, magnitude=0.04, sigma=0.25)(SIZE, rng(3))
    points = centres() / [WIDTH, HEIGHT]
    pulled = points.copy()
    for anchor, pull in zip(transform.anchors, transform.pulls):
        pulled += np.exp(-((points - anchor) ** 2).sum(1) / (2 * 0.25**2))[:, None] * pull
    columns, rows = (pulled * [WIDTH, HEIGHT] - 0.5).T
    reference = map_coordinates(image, [rows, columns], order=1, mode="nearest").reshape(SIZE)
    assert np.abs(transform.image(image) - reference).max() < 0.6


@seeds()
def test_deformed_coordinates_invert_the_map_exactly(seed):
    bound = largest_magnitude(tuple((x / 4, y / 4) for x in range(5) for y in range(5)), 0.2)
    transform = gaussian_deform(
        [(x / 4, y / 4) for x in range(5) for y in range(5)], magnitude=bound * 0.99, sigma=0.2
    )(SIZE, rng(seed))
    points = np.random.default_rng(seed).uniform(-0.2, 1.2, (500, 2))
    goes = transform.coords(points * [WIDTH, HEIGHT]) / [WIDTH, HEIGHT]
    source = goes.copy()
    for anchor, pull in zip(transform.anchors, transform.pulls):
        source += np.exp(-((goes - anchor) ** 2).sum(1) / (2 * 0.2**2))[:, None] * pull
    np.testing.assert_allclose(source, points, atol=1e-9)


def test_anchors_are_a_grid_or_points():
    assert gaussian_deform(2)((4, 4), rng()).anchors == ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
    assert gaussian_deform([(0, 1)])((4, 4), rng()).anchors == ((0.0, 1.0),)


def test_no_pull_is_the_same_picture():
    image = noise()
    np.testing.assert_array_equal(gaussian_deform(2, magnitude=0)(image.shape, rng()).image(image), image)


# What arguments must be


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: flip(),
            ValueError,
            r"flip\(\): horizontal or vertical must be True, got neither; write flip\(horizontal=True\)",
        ),
        (lambda: flip(horizontal=1), TypeError, r"flip\(\): horizontal must be True or False, got 1"),
        (
            lambda: flip(horizontal=True, probability=-1),
            ValueError,
            r"flip\(\): probability must be a number from 0 to 1, got -1",
        ),
        (lambda: transpose(1.5), ValueError, r"transpose\(\): probability must be a number from 0 to 1, got 1.5"),
        (
            lambda: resize(0),
            ValueError,
            r"resize\(\): shape must be a positive integer, or \(height, width\) of two, got 0",
        ),
        (
            lambda: resize((2.5, 3)),
            TypeError,
            r"resize\(\): shape must be a positive integer, or \(height, width\) of two, got \(2.5, 3\)",
        ),
        (lambda: resize((2, 3, 3)), TypeError, r"resize\(\): shape must be"),
        (
            lambda: resize(3, interpolation="best"),
            ValueError,
            r"resize\(\): interpolation must be 'nearest', .* or 'lanczos', got 'best'",
        ),
        (
            lambda: resize_shortest_edge((5, 3)),
            ValueError,
            r"resize_shortest_edge\(\): size must be .* low <= high, got \(5, 3\)",
        ),
        (
            lambda: resize_shortest_edge(5, max_size=4),
            ValueError,
            r"max_size must be at least size, got size=5 and max_size=4",
        ),
        (
            lambda: random_resize((0, 1.5)),
            ValueError,
            r"random_resize\(\): height must be a pair \(low, high\) of positive numbers",
        ),
        (lambda: random_resize(2), TypeError, r"random_resize\(\): height must be a pair"),
        (
            lambda: random_resize((1, 2), max_aspect_change=2),
            ValueError,
            r"max_aspect_change must be a number from 0 to 1 or None, got 2",
        ),
        (lambda: shift(2), ValueError, r"shift\(\): horizontal must be a number from 0 to 1, got 2"),
        (
            lambda: shift(border="mirror"),
            ValueError,
            r"shift\(\): border must be 'constant', .* or 'wrap', got 'mirror'",
        ),
        (
            lambda: shift(fill="red"),
            TypeError,
            r"shift\(\): fill must be a number, or a tuple of one for each channel, got 'red'",
        ),
        (
            lambda: rotation("a"),
            TypeError,
            r"rotation\(\): degrees must be a number \(n means -n to n\) or a pair \(low, high\)",
        ),
        (lambda: rotation((5, 3)), ValueError, r"rotation\(\): degrees must be .* low <= high, got \(5, 3\)"),
        (lambda: rotation(-5), ValueError, r"rotation\(\): degrees must be"),
        (lambda: rotation(float("inf")), ValueError, r"rotation\(\): degrees must be"),
        (lambda: rotation(5, step=0), ValueError, r"rotation\(\): step must be a positive number or None, got 0"),
        (
            lambda: rotation(5, center=(0.5, 2)),
            ValueError,
            r"rotation\(\): center must be a pair \(low, high\) of numbers from 0 to 1",
        ),
        (
            lambda: rotation(5, interpolation="area"),
            ValueError,
            r"rotation\(\): interpolation must be 'nearest', 'linear', 'cubic' or",
        ),
        (
            lambda: affine(scale=(0, 1)),
            ValueError,
            r"affine\(\): scale must be a pair \(low, high\) of positive numbers, low <= high",
        ),
        (
            lambda: affine(translate=0.5),
            TypeError,
            r"affine\(\): translate must be a pair \(horizontal, vertical\) of numbers from 0 to 1",
        ),
        (lambda: affine(shear=90), ValueError, r"affine\(\): shear must be .* within -90 and 90, got 90"),
        (
            lambda: gaussian_deform(0),
            ValueError,
            r"gaussian_deform\(\): anchors must be a positive integer n \(for n x n anchors\)",
        ),
        (
            lambda: gaussian_deform([(2, 0)]),
            ValueError,
            r"gaussian_deform\(\): anchors must be .* points \(x, y\) from 0 to 1",
        ),
        (lambda: gaussian_deform([]), TypeError, r"gaussian_deform\(\): anchors must be"),
        (
            lambda: gaussian_deform(3, magnitude=0.5),
            ValueError,
            r"magnitude must be below 0\.\d+ for these anchors .* fold over itself, got 0.5",
        ),
        (
            lambda: gaussian_deform(3, sigma=0),
            ValueError,
            r"gaussian_deform\(\): sigma must be a positive number, got 0",
        ),
    ],
)
def test_wrong_arguments_say_what_must_hold(make, error, message):
    with pytest.raises(error, match=message):
        make()
