"""The pictures that are written into files of every kind, and what is to come out of those."""

import numpy as np
import pytest

from flowfn.image.reading import decode_image

SIDES = HEIGHT, WIDTH = 22, 36
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([ROWS * 11, COLUMNS * 7, 255 - ROWS * 5 - COLUMNS * 3], -1).astype(np.uint8)
GRAY, ALPHA = RGB[..., 1], (COLUMNS * 6 + 9).astype(np.uint8)
DEEP = RGB.astype(np.uint16) * 256 + ROWS[..., None].astype(np.uint16)
RGBA, DEEP_GRAY, DEEP_ALPHA = np.dstack([RGB, ALPHA]), DEEP[..., 0], ALPHA.astype(np.uint16) * 256 + 3
LABELS = ((ROWS // 2 + COLUMNS) % 16).astype(np.uint8)
PALETTE = np.stack([np.arange(256) * 11 + 22, np.arange(256) * 7 + 11, 255 - np.arange(256) * 3], -1).astype(np.uint8)
SHOWN = PALETTE[LABELS]


def tripled(gray):
    return np.dstack([gray] * 3)


def of_bits(numbers, bits):
    """Numbers of few bits from 0 to 255."""
    return (numbers * (255 / ((1 << bits) - 1))).round().astype(np.uint8)


def check_all(data, whole, colours=None, alpha=None):
    """What `channels` give: the image as it is, RGB, gray, RGBA."""
    seen = decode_image(data, channels=None)
    assert (seen.dtype, seen.shape) == (whole.dtype, whole.shape)
    np.testing.assert_array_equal(seen, whole)
    if colours is None:
        return
    np.testing.assert_array_equal(decode_image(data), colours)
    np.testing.assert_array_equal(
        decode_image(data, channels=4), np.dstack([colours, np.full(SIDES, 255) if alpha is None else alpha])
    )
    gray = colours @ [0.299, 0.587, 0.114]
    assert np.abs(decode_image(data, channels=1)[..., 0] - gray).max() <= 1


def refused(data, *words, channels=None):
    with pytest.raises(ValueError, match=r"^decode_image\(\): data is ") as raised:
        decode_image(data, channels=channels)
    for word in words:
        assert word in str(raised.value)
    assert "damaged" not in str(raised.value)


def turned(image, orientation):
    """By EXIF, as Pillow turns: 2 mirrored, 3 by 180 degrees, 4 upside down, 5 transposed, 6 to the right,
    7 transverse, 8 to the left."""
    turns = (lambda x: x, np.fliplr, lambda x: x[::-1, ::-1], np.flipud, lambda x: x.swapaxes(0, 1),
    lambda x: np.rot90(x, -1),
             lambda x: x[::-1, ::-1].swapaxes(0, 1), np.rot90)  # fmt: skip
    return turns[orientation - 1](image)
