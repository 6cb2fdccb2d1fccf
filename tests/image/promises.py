"""What every augmentor promises that leaves pixels where they are."""

import pickle

import numpy as np
from marked import noise, rng

import flowfn.image
from flowfn.image import color_spaces, colors, intensities, tones
from flowfn.image import noise as noises

NAMES = {
    name: value
    for module in (flowfn.image, colors, color_spaces, intensities, noises, tones)
    for name, value in vars(module).items()
}


def keeps_its_promises(augmentor, shape=(13, 17, 3), dtype=np.uint8):
    """The same for the same generator, small, and never a change to what it is given, however that lies in memory."""
    image = noise(shape, dtype)
    given = image.copy()
    given.flags.writeable = False
    transform = augmentor(image.shape, rng(3))
    made = transform.image(given)
    assert np.array_equal(given, image)
    assert np.array_equal(transform.image(given), made)
    assert made.shape == transform.shape(image.shape)
    assert made.dtype in (np.uint8, np.float32)

    again = eval(repr(augmentor), NAMES)
    assert again == augmentor
    assert hash(again) == hash(augmentor)
    assert pickle.loads(pickle.dumps(augmentor)) == augmentor
    assert again(image.shape, rng(3)) == transform
    assert eval(repr(transform), NAMES) == transform
    assert len(pickle.dumps(transform)) < 300
    assert np.array_equal(pickle.loads(pickle.dumps(transform)).image(image), made)

    wide = np.zeros((shape[0] * 2, shape[1] * 2, *shape[2:]), dtype)
    wide[::-2, ::2] = image
    assert np.array_equal(transform.image(wide[::-2, ::2]), made)

    mask, coords, boxes = np.zeros(shape[:2], np.int64), np.zeros((2, 2)), np.zeros((2, 4))
    assert transform.mask(mask) is mask
    assert transform.coords(coords) is coords
    assert transform.boxes(boxes) is boxes


def draws_alike(augmentor, shape=(5, 5, 3)):
    """As many random numbers, whatever they are."""

    def place(seed):
        generator = rng(seed)
        augmentor(shape, generator)
        state = generator.bit_generator.state
        return state["state"]["counter"].tolist(), state["buffer_pos"]

    assert len({str(place(seed)) for seed in range(20)}) == 1


def as_rounded(values):
    """Exact values as uint8: rounded and clipped."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
