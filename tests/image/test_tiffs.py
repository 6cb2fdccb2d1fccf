"""TIFF by tifffile, by Pillow and by hand: every layout, dtype and meaning of its samples,
with the very numbers that were put in."""

import io
import itertools
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from pictures import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GRAY,
    GRAY,
    LABELS,
    PALETTE,
    RGB,
    RGBA,
    SIDES,
    check_all,
    of_bits,
    refused,
    tripled,
    turned,
)
from writing import about, by_tifffile, encoded, packed, tiff

from flowfn.image.reading import decode_image, decode_mask

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def random(dtype, *shape):
    bits = np.random.default_rng(0).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    values = bits.view(dtype)[..., 0]
    return values if np.dtype(dtype).kind != "f" else np.arange(values.size).reshape(shape).astype(dtype) / 8


LAYOUTS = [{}, {"tile": (16, 16)}, {"tile": (32, 16)}, {"rowsperstrip": 5}, {"bigtiff": True}]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_all_numbers_of_all_bands_of_a_tiff(samples, dtype):
    array = random(dtype, *SIDES, samples)
    for order, compression, layout in itertools.product("<>", (None, "zlib"), LAYOUTS):
        for photometric, planes in itertools.product(
            ("minisblack", "rgb")[: 1 + (samples >= 3)], ("contig", "separate")
        ):
            written = array[..., 0] if samples == 1 else array.transpose(2, 0, 1) if planes == "separate" else array
            beyond = ["unspecified"] * (samples - (3 if photometric == "rgb" else 1))
            options = {"planarconfig": planes, "extrasamples": beyond} if samples > 1 else {}
            written = written.astype(np.dtype(dtype).newbyteorder(order))
            data = by_tifffile(
                written, byteorder=order, photometric=photometric, compression=compression, **options, **layout
            )
            check_all(data, array if samples > 1 else array[..., 0])
            if photometric == "rgb" and dtype in ("u1", "u2"):
                np.testing.assert_array_equal(decode_image(data), array[..., :3] >> (8 * (dtype == "u2")))
            elif samples > 1 and dtype in ("u1", "u2"):
                refused(data, f"an image of {samples} bands that are no colours; channels=None gives them", channels=3)


def differences(array, order):
    """What the second kind of prediction makes of rows: each number less the one before, of the same band."""
    before = np.zeros_like(array)
    before[:, 1:] = array[:, :-1]
    return (array - before).astype(array.dtype.newbyteorder(order))


def byte_planes(array):
    """What the third makes of rows of floats: first bytes, second bytes and so on, and of them the differences."""
    rows, columns, samples = array.shape
    planes = (
        array.astype(array.dtype.newbyteorder(">"))
        .view(np.uint8)
        .reshape(rows, columns * samples, -1)
        .transpose(0, 2, 1)
    )
    flat = planes.reshape(rows, -1, samples)
    return np.ascontiguousarray(differences(flat, "<"))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [1, 3])
def test_predicted_numbers_of_a_tiff(samples, dtype, order):
    array = random(dtype, *SIDES, samples)
    kind = np.dtype(dtype).kind
    content = byte_planes(array) if kind == "f" else differences(array, order)
    tags = about(SIDES, samples, array.dtype.itemsize * 8, 2 if samples == 3 else 1, compression=8, predictor=3
    if kind == "f" else 2,
                 format=[{"u": 1, "i": 2, "f": 3}[kind]] * samples)  # fmt: skip
    check_all(tiff([zlib.compress(content.tobytes())], tags, order=order), array if samples > 1 else array[..., 0])


@pytest.mark.parametrize("bits", [*range(1, 8), *range(9, 16)])
@pytest.mark.parametrize("samples", [1, 3])
def test_tiffs_of_any_number_of_bits(bits, samples):
    numbers = (random("u2", *SIDES, samples) >> (16 - bits)).astype("u1" if bits < 8 else "u2")
    whole = of_bits(numbers, bits) if bits < 8 else numbers
    colours = whole if bits < 8 else (numbers >> (bits - 8)).astype(np.uint8)
    colours = colours if samples == 3 else tripled(colours[..., 0])
    data = tiff([b"".join(packed(numbers, bits))], about(SIDES, samples, bits, 2 if samples == 3 else 1))
    check_all(data, whole if samples == 3 else whole[..., 0], colours)


@pytest.mark.parametrize(
    "compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "group3", "group4", "tiff_ccitt"]
)
def test_black_and_white_tiffs(compression):
    bright = GRAY > 90
    data = encoded(bright, "TIFF", compression=compression)
    check_all(data, bright * np.uint8(255), tripled(bright * np.uint8(255)))


def test_white_may_be_zero_in_a_tiff():
    check_all(tiff([GRAY.tobytes()], about(SIDES, 1, 8, 0)), 255 - GRAY, tripled(255 - GRAY))
    check_all(
        tiff([DEEP_GRAY.astype("<u2").tobytes()], about(SIDES, 1, 16, 0)),
        65535 - DEEP_GRAY,
        tripled((65535 - DEEP_GRAY) >> 8),
    )
    check_all(tiff([b"".join(packed(LABELS, 4))], about(SIDES, 1, 4, 0)), 255 - LABELS * 17, tripled(255 - LABELS * 17))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("planar", [1, 2])
def test_alpha_in_a_tiff_is_never_blended_in(planar, deep):
    image = np.dstack([DEEP, DEEP_ALPHA]) if deep else RGBA
    most = 65535 if deep else 255
    of_planes = (lambda image: [image[..., i] for i in range(4)]) if planar == 2 else (lambda image: [image])
    tags = about(SIDES, 4, 16 if deep else 8, 2, extra=2, planar=planar)
    data = tiff([part.tobytes() for part in of_planes(image)], tags)
    check_all(data, image, image[..., :3] >> 8 * deep, image[..., 3] >> 8 * deep)
    blended = np.rint(image[..., :3] * (image[..., 3:] / most)).astype(image.dtype)
    tags = about(SIDES, 4, 16 if deep else 8, 2, extra=1, planar=planar)
    seen = decode_image(
        tiff([part.tobytes() for part in of_planes(np.dstack([blended, image[..., 3:]]))], tags), channels=None
    )
    np.testing.assert_array_equal(seen[..., 3], image[..., 3])
    assert (np.abs(seen[..., :3].astype(float) - image[..., :3]) <= most / image[..., 3:].astype(float)).all()


def test_gray_with_alpha_and_samples_beyond_alpha_in_a_tiff():
    pair = np.dstack([GRAY, ALPHA])
    check_all(
        tiff([pair.tobytes()], about(SIDES, 2, 8, 1, extra=2)), np.dstack([tripled(GRAY), ALPHA]), tripled(GRAY), ALPHA
    )
    five = np.dstack([RGBA, GRAY])
    check_all(tiff([five.tobytes()], about(SIDES, 5, 8, 2, extra=[2, 0])), five, RGB, ALPHA)
    check_all(tiff([five.tobytes()], about(SIDES, 5, 8, 2, extra=[0, 0])), five, RGB)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_palettes_in_a_tiff(bits):
    labels = LABELS.astype(np.uint16) & ((1 << bits) - 1)
    colours = np.resize(PALETTE, (1 << bits, 3)).astype(np.uint16)
    body = labels.astype("<u2").tobytes() if bits == 16 else b"".join(packed(labels, bits))
    for scale in (257, 1):  # of 16 bits, and as some write them
        tags = {**about(SIDES, 1, bits, 3), 320: ("H", (colours.T * scale).ravel().tolist())}
        check_all(tiff([body], tags), PALETTE[labels], PALETTE[labels])
        np.testing.assert_array_equal(decode_mask(tiff([body], tags)), labels)


@pytest.mark.parametrize("planar", [1, 2])
def test_inks_in_a_tiff_are_converted(planar):
    inks = np.dstack([255 - RGB, 255 - ALPHA])
    expected = np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    strips = [inks.tobytes()] if planar == 1 else [inks[..., i].tobytes() for i in range(4)]
    check_all(tiff(strips, about(SIDES, 4, 8, 5, planar=planar)), expected, expected)
    refused(tiff([inks.tobytes()], about(SIDES, 4, 8, 5, inks=2)), "inks other than cyan, magenta, yellow and black")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "L"])
def test_colours_of_video_and_jpeg_in_a_tiff(mode, compression):
    smooth = cv2.resize(RGB, (96, 64))
    picture = PIL.Image.fromarray(smooth).convert(mode)
    seen = decode_image(encoded(picture, "TIFF", compression=compression), channels=3)
    assert np.abs(seen.astype(float) - np.asarray(picture.convert("RGB"))).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_of_every_kind_come_out_upright(orientation):
    upright = {
        "bands apart": (np.moveaxis(DEEP, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "floats": (GRAY / np.float32(7), {"photometric": "minisblack"}),
        "tiles": (RGB, {"photometric": "rgb", "tile": (16, 16)}),
    }
    for array, options in upright.values():
        tag = [(274, 3, 1, orientation, True)]
        data = by_tifffile(array, extratags=tag, **options)
        stored = np.moveaxis(array, 0, 2) if options.get("planarconfig") else array
        np.testing.assert_array_equal(decode_image(data, channels=None), turned(stored, orientation))
    video = encoded(PIL.Image.fromarray(RGB).convert("YCbCr"), "TIFF", tiffinfo={274: orientation})
    assert np.abs(decode_image(video).astype(float) - turned(RGB, orientation)).mean() < 2


def test_the_first_full_page_of_a_tiff_is_read():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB[::4, ::4], photometric="rgb", subfiletype=1)
        writer.write(GRAY > 9, photometric="minisblack", subfiletype=4)
        writer.write(DEEP, photometric="rgb", metadata=None)
        writer.write(RGB[::-1], photometric="rgb", metadata=None)
    check_all(file.getvalue(), DEEP, DEEP >> 8)
    refused(by_tifffile(RGB, photometric="rgb", subfiletype=1), "nothing but thumbnails", "rawpy")


def test_bits_may_be_in_the_other_order_in_a_tiff():
    turned_bits = np.packbits(np.unpackbits(np.frombuffer(RGB.tobytes(), np.uint8)).reshape(-1, 8)[:, ::-1])
    check_all(tiff([turned_bits.tobytes()], about(SIDES, 3, 8, 2, fill=2)), RGB, RGB)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"compression": 50000}, ["compressed by Zstandard", "tifffile"]),
        ({"compression": 34925}, ["compressed by LZMA", "tifffile"]),
        ({"compression": 34887}, ["compressed by LERC"]),
        ({"compression": 4711}, ["compressed by scheme 4711"]),
        ({"format": [6]}, ["complex numbers of 8 bits"]),
        ({"format": [3]}, ["floats of 8 bits"]),
        ({"photometric": 8}, ["in colours of CIE L*a*b*", "make RGB of it first"]),
        ({"photometric": 32803}, ["a camera's sensor"]),
        ({"photometric": 4711}, ["photometric interpretation 4711"]),
        ({"depth": 3}, ["a TIFF volume of 3 layers"]),
        ({"predictor": 9}, ["predicts its numbers in a way that is not known (9)"]),
    ],
)
def test_what_a_tiff_can_hold_besides_is_named(tags, words):
    tags = dict(tags)
    refused(tiff([GRAY.tobytes()], about(SIDES, 1, 8, tags.pop("photometric", 1), **tags)), "a TIFF ", *words)


def test_samples_of_different_kinds_and_tiles_that_were_never_written_are_named():
    unequal = {**about(SIDES, 3, 8, 2), 258: ("H", [5, 6, 5])}
    refused(tiff([RGB.tobytes()], unequal), "samples are of different kinds ([5, 6] bits)")
    refused(
        tiff([RGB.tobytes(), b""], {**about(SIDES, 3, 8, 2), 278: ("I", [SIDES[0]])}),
        "strips or tiles were never written",
    )
