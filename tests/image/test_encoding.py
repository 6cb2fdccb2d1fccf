"""Images in tar files: written as they are given, or refused with what to write instead,
never as another image without a word."""

import cv2
import numpy as np
import pytest

from flowfn.formats import read_webdataset, write_webdataset
from flowfn.image import decode_image

SHAPES = {0: (10, 14), 1: (10, 14, 1), 2: (10, 14, 2), 3: (10, 14, 3), 4: (10, 14, 4), 5: (10, 14, 5)}
DTYPES = [
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "bool",
    "complex64",
]
EXACT = ["png", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "webp"]
WRITTEN = {
    "png": (["uint8", "uint16"], [0, 1, 3, 4]),
    "bmp": (["uint8"], [0, 1, 3]),
    **dict.fromkeys(
        ("tif", "tiff"), (["uint8", "uint16", "int8", "int16", "int32", "float32", "float64"], [0, 1, 3, 4])
    ),
    "ppm": (["uint8", "uint16"], [3]),
    "pgm": (["uint8", "uint16"], [0, 1]),
    "pbm": (["uint8"], [0, 1]),
    "webp": (["uint8"], [0, 1, 3, 4]),
    **dict.fromkeys(("jpg", "jpeg"), (["uint8"], [0, 1, 3])),
}


def image(dtype, channels, bits=False):
    rng = np.random.default_rng(0)
    if bits:
        return rng.choice([0, 255], SHAPES[channels]).astype(dtype)
    if np.dtype(dtype).kind == "f":
        return rng.random(SHAPES[channels]).astype(dtype)
    return (rng.integers(1, 2 if dtype == "bool" else 120, SHAPES[channels])).astype(dtype)


@pytest.mark.parametrize("extension", WRITTEN)
def test_every_dtype_and_shape_comes_back_or_is_refused(extension, tmp_path):
    path = str(tmp_path / "a.tar")
    dtypes, counts = WRITTEN[extension]
    for dtype in DTYPES:
        for channels in SHAPES:
            given = image(dtype, channels, bits=extension == "pbm")
            write = lambda given=given: write_webdataset(path, [{extension: given}], overwrite=True)
            if dtype not in dtypes or channels not in counts:
                with pytest.raises(TypeError, match=rf"cannot be written as '{extension}': .* write "):
                    write()
                continue
            write()
            seen = decode_image(read_webdataset(path)[0][extension], channels=None)
            expected = given[..., 0] if channels == 1 else given
            if extension == "webp" and channels < 3:
                expected = np.dstack([expected] * 3)
            assert (seen.dtype, seen.shape) == (expected.dtype, expected.shape)
            if extension in EXACT:
                np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(
    ("extension", "given", "message"),
    [
        (
            "png",
            np.full((4, 4, 3), 0.5),
            r"png keeps uint8 and uint16, got float64; write np\.rint\(image \* 255\)\.astype\(np\.uint8\)",
        ),
        (
            "jpg",
            np.ones((4, 4), bool),
            r"jpg keeps uint8, got bool; write image \* np\.uint8\(255\) for black and white, or image\.astype",
        ),
        (
            "jpg",
            np.full((4, 4, 3), 300, np.uint16),
            r"jpg keeps uint8, got uint16; write \(image >> 8\).* or all 16 bits as png",
        ),
        (
            "jpg",
            np.zeros((4, 4, 4), np.uint8),
            r"images must be \(height, width\) or \(height, width, 3\) for jpg, got .*; write alpha as png",
        ),
        ("png", np.zeros((4,), np.uint8), r"images must be .* for png, got \(4,\); .* other arrays as npy"),
        ("png", np.zeros((0, 4), np.uint8), r"images must be .* got \(0, 4\)"),
        ("pbm", np.full((4, 4), 7, np.uint8), r"pbm keeps black \(0\) and white \(255\) alone; write pgm or png"),
    ],
)
def test_what_a_picture_file_does_not_keep_is_refused_with_what_to_write(extension, given, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        write_webdataset(str(tmp_path / "a.tar"), [{f"left.{extension}": given}])
    assert not list(tmp_path.iterdir())


def test_what_is_told_to_be_written_is_as_bright_as_it_was(tmp_path):
    path, given = str(tmp_path / "a.tar"), np.full((8, 8, 3), 0.5, np.float32)
    write_webdataset(path, [{"png": np.rint(given * 255).astype(np.uint8)}])
    assert abs(read_webdataset(path, images=True)[0]["png"].mean() / 255 - 0.5) < 0.01


def test_jpegs_are_near_what_was_given(tmp_path):
    path = str(tmp_path / "a.tar")
    smooth = cv2.resize(image("uint8", 3), (96, 64))
    write_webdataset(path, [{"jpg": smooth}])
    assert np.abs(read_webdataset(path, images=True)[0]["jpg"].astype(float) - smooth).mean() < 10
