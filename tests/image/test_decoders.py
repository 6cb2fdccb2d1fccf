"""Decoders of images are believed in nothing: for each format and feature a file by another writer, or by hand, and its very numbers."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile
from writing import about, bmp, box, chunk, encoded, exif, jp2, packed, png, runs, tiff

from flowfn.image.reading import decode_image, decode_mask

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
    np.testing.assert_array_equal(decode_image(data, channels=4), np.dstack([colours, np.full(SIDES, 255) if alpha is None else alpha]))
    gray = colours @ [0.299, 0.587, 0.114]
    assert np.abs(decode_image(data, channels=1)[..., 0] - gray).max() <= 1


def refused(data, *words, channels=None):
    with pytest.raises(ValueError, match=r"^decode_image\(\): data is ") as raised:
        decode_image(data, channels=channels)
    for word in words:
        assert word in str(raised.value)
    assert "damaged" not in str(raised.value)


# PNG


def shade(*numbers):
    return chunk(b"tRNS", struct.pack(f">{len(numbers)}H", *map(int, numbers)))


def clear(transparent, most=255):
    return np.where(transparent, 0, most).astype(np.uint8 if most == 255 else np.uint16)


LUMINOUS = chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sBIT", b"\5\6\5\4") + chunk(b"bKGD", struct.pack(">HHH", 255, 0, 0))
IS_ONE, IS_DEEP, IS_RED = LABELS % 2 == 1, DEEP_GRAY == DEEP_GRAY[5, 7], (RGB == RGB[5, 7]).all(-1)
PNGS = {
    "gray": (png(GRAY, 8, 0), GRAY, tripled(GRAY)),
    "rgb": (png(RGB, 8, 2), RGB, RGB),
    "rgba": (png(RGBA, 8, 6), RGBA, RGB, ALPHA),
    "gray and alpha": (png(np.dstack([GRAY, ALPHA]), 8, 4), np.dstack([tripled(GRAY), ALPHA]), tripled(GRAY), ALPHA),
    "gray of 16 bits": (png(DEEP_GRAY, 16, 0), DEEP_GRAY, tripled(DEEP_GRAY >> 8)),
    "rgb of 16 bits": (png(DEEP, 16, 2), DEEP, DEEP >> 8),
    "rgba of 16 bits": (png(np.dstack([DEEP, DEEP_ALPHA]), 16, 6), np.dstack([DEEP, DEEP_ALPHA]), DEEP >> 8, DEEP_ALPHA >> 8),
    "interlaced": (png(RGB, 8, 2, interlaced=True), RGB, RGB),
    "interlaced palette": (png(LABELS, 4, 3, chunk(b"PLTE", PALETTE[:16].tobytes()), interlaced=True), SHOWN, SHOWN),
    "gamma and significant bits": (png(RGBA, 8, 6, LUMINOUS), RGBA, RGB, ALPHA),
    "a transparent gray": (png(LABELS % 2, 1, 0, shade(1)), np.dstack([tripled(IS_ONE * np.uint8(255)), clear(IS_ONE)]),
                           tripled(IS_ONE * np.uint8(255)), clear(IS_ONE)),
    "a transparent gray of 16 bits": (png(DEEP_GRAY, 16, 0, shade(DEEP_GRAY[5, 7])),
                                      np.dstack([tripled(DEEP_GRAY), clear(IS_DEEP, 65535)]), tripled(DEEP_GRAY >> 8), clear(IS_DEEP)),
    "a transparent colour": (png(RGB, 8, 2, shade(*RGB[5, 7])), np.dstack([RGB, clear(IS_RED)]), RGB, clear(IS_RED)),
    "turned": (png(np.ascontiguousarray(RGB[::-1, ::-1]), 8, 2, chunk(b"eXIf", exif(3))), RGB, RGB),
    "no EXIF, but the like of it in a text": (png(RGB, 8, 2, chunk(b"tEXt", b"x\0eXIf" + exif(3))), RGB, RGB),
}  # fmt: skip


@pytest.mark.parametrize("case", PNGS)
def test_every_kind_of_png(case):
    check_all(*PNGS[case])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_and_grays_of_few_bits_in_png(bits):
    labels = LABELS % (1 << bits)
    check_all(png(labels, bits, 0), of_bits(labels, bits), tripled(of_bits(labels, bits)))
    colours = chunk(b"PLTE", PALETTE[: 1 << bits].tobytes())
    check_all(png(labels, bits, 3, colours), PALETTE[labels], PALETTE[labels])
    alpha = np.array([0, 200] + [255] * 254, np.uint8)[labels]
    check_all(png(labels, bits, 3, colours, chunk(b"tRNS", b"\0\xc8")), np.dstack([PALETTE[labels], alpha]), PALETTE[labels], alpha)


@pytest.mark.parametrize("default", [False, True])
def test_of_an_animated_png_the_picture_that_stands_still_is_read(default):
    others = [PIL.Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    check_all(encoded(RGB, "PNG", save_all=True, default_image=default, append_images=others), RGB, RGB)


# BMP


def masked(bits):
    """Colours of so many bits each, in a number, the masks for them, and what they are from 0 to 255."""
    red, green, blue, alpha = bits
    shifts = green + blue, blue, 0, red + green + blue
    values = [(RGBA[..., i].astype(np.uint32) >> (8 - count) if count else RGBA[..., i] * 0) for i, count in enumerate(bits)]
    numbers = sum(value.astype(np.uint32) << np.uint32(shift) for value, shift in zip(values, shifts))
    masks = [((1 << count) - 1) << shift for count, shift in zip(bits, shifts)]
    return numbers, masks, np.dstack([of_bits(value, count) for value, count in zip(values, bits) if count])


def rows_of(numbers, dtype):
    return [row.astype(dtype).tobytes() for row in numbers]


BGR, BGRX = RGB[..., ::-1], np.dstack([RGB[..., ::-1], ALPHA])
FIVES, FIVE_MASKS, FIVE_COLOURS = masked((5, 5, 5, 0))
QUADS = (
    np.dstack([PALETTE[..., ::-1], np.zeros_like(PALETTE[:, :1])[:, None]]) if False else np.c_[PALETTE[:, ::-1], np.zeros(256, np.uint8)]
)
GRAYS = np.repeat(np.arange(256, dtype=np.uint8), 4).reshape(256, 4) * np.array([1, 1, 1, 0], np.uint8)
SRGB = b"BGRs" + bytes(48)
BMPS = {
    "24 bits": (bmp(rows_of(BGR, "u1"), 24, SIDES), RGB, RGB),
    "24 bits from above": (bmp(rows_of(BGR, "u1"), 24, SIDES, upwards=False), RGB, RGB),
    "24 bits of OS/2": (bmp(rows_of(BGR, "u1"), 24, SIDES, size=12), RGB, RGB),
    "32 bits, the last eight of no meaning": (bmp(rows_of(BGRX, "u1"), 32, SIDES), RGB, RGB),
    "32 bits with alpha": (bmp(rows_of(BGRX, "u1"), 32, SIDES, compression=3, size=108, more=SRGB, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
                           RGBA, RGB, ALPHA),
    "32 bits, red first": (bmp(rows_of(RGBA, "u1"), 32, SIDES, compression=3, masks=(0xFF, 0xFF00, 0xFF0000)), RGB, RGB),
    "32 bits of 10 each": (bmp(rows_of(masked((8, 8, 8, 0))[0] * 0 + (RGB.astype(np.uint32) @ np.array([1 << 22, 1 << 12, 4], np.uint32)), "<u4"),
                               32, SIDES, compression=3, masks=(0x3FF00000, 0xFFC00, 0x3FF)), RGB, RGB),
    "16 bits": (bmp(rows_of(FIVES, "<u2"), 16, SIDES), FIVE_COLOURS, FIVE_COLOURS),
    "gray": (bmp(rows_of(GRAY, "u1"), 8, SIDES, palette=GRAYS.tobytes()), GRAY, tripled(GRAY)),
    "a short palette": (bmp(rows_of(LABELS, "u1"), 8, SIDES, palette=QUADS[:16].tobytes(), used=16), SHOWN, SHOWN),
    "a palette of OS/2": (bmp(rows_of(LABELS, "u1"), 8, SIDES, palette=PALETTE[:, ::-1].tobytes(), size=12), SHOWN, SHOWN),
    "runs of 8 bits": (bmp(runs(LABELS, 8), 8, SIDES, compression=1, palette=QUADS.tobytes()), SHOWN, SHOWN),
    "runs of 4 bits": (bmp(runs(LABELS, 4), 4, SIDES, compression=2, palette=QUADS[:16].tobytes()), SHOWN, SHOWN),
}  # fmt: skip


@pytest.mark.parametrize("case", BMPS)
def test_every_kind_of_bmp(case):
    check_all(*BMPS[case])


@pytest.mark.parametrize("bits", [(5, 6, 5, 0), (5, 5, 5, 1), (4, 4, 4, 0), (4, 4, 4, 4), (3, 3, 2, 0)])
def test_masks_of_bits_in_bmp(bits):
    numbers, masks, colours = masked(bits)
    count = 4 if bits[3] else 3
    data = bmp(rows_of(numbers, "<u2"), 16, SIDES, compression=3 if count == 3 else 6, masks=masks[:count])
    check_all(data, colours, colours[..., :3], colours[..., 3] if count == 4 else None)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits_in_bmp(bits):
    labels = LABELS % (1 << bits)
    check_all(bmp(packed(labels, bits), bits, SIDES, palette=QUADS[: 1 << bits].tobytes()), PALETTE[labels], PALETTE[labels])


def test_what_bmp_can_hold_besides_is_named():
    refused(bmp(encoded(RGB, "JPEG"), 24, SIDES, compression=4), "a BMP image that holds a JPEG", "write it as PNG")
    refused(
        bmp(rows_of(FIVES, "<u2"), 16, SIDES, compression=3, masks=(0x7C00, 0x3E0, 0x15)), "the mask 0x15, whose bits do not lie together"
    )


# GIF


def paletted(labels=LABELS):
    picture = PIL.Image.fromarray(labels)
    picture.putpalette(PALETTE.tobytes())
    return picture


needs_gif = pytest.mark.skipif(
    cv2.imdecode(np.frombuffer(encoded(GRAY, "GIF"), np.uint8), cv2.IMREAD_COLOR) is None, reason="this OpenCV reads no GIF"
)


@needs_gif
@pytest.mark.parametrize(
    "options", [{"interlace": 0}, {"interlace": 1}, {"save_all": True, "append_images": [paletted(LABELS[::-1].copy())]}]
)
def test_gifs(options):
    check_all(encoded(paletted(), "GIF", **options), SHOWN, SHOWN)


@needs_gif
def test_transparent_gifs():
    check_all(encoded(paletted(), "GIF", transparency=3), np.dstack([SHOWN, clear(LABELS == 3)]), SHOWN, clear(LABELS == 3))


@needs_gif
def test_what_the_first_picture_of_a_gif_leaves_empty_is_transparent():
    data = encoded(paletted(), "GIF", interlace=0)
    at = data.index(b",\0\0\0\0")
    wide = data[:6] + struct.pack("<HH", WIDTH + 8, HEIGHT + 6) + data[10:at] + b"," + struct.pack("<HH", 5, 3) + data[at + 5 :]
    seen = decode_image(wide, channels=4)
    expected = np.zeros((HEIGHT + 6, WIDTH + 8), np.uint8)
    expected[3 : 3 + HEIGHT, 5 : 5 + WIDTH] = 255
    np.testing.assert_array_equal(seen[..., 3], expected)
    np.testing.assert_array_equal(seen[3 : 3 + HEIGHT, 5 : 5 + WIDTH, :3], SHOWN)


# TIFF

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def random(dtype, *shape):
    bits = np.random.default_rng(0).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    values = bits.view(dtype)[..., 0]
    return values if np.dtype(dtype).kind != "f" else np.arange(values.size).reshape(shape).astype(dtype) / 8


def by_tifffile(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"tile": (32, 16)}, {"rowsperstrip": 5}, {"bigtiff": True}])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_all_numbers_of_all_bands_of_a_tiff(samples, dtype, order, layout):
    array = random(dtype, *SIDES, samples)
    for photometric, planes in [(p, c) for p in ("minisblack", "rgb")[: 1 + (samples >= 3)] for c in ("contig", "separate")]:
        written = array.transpose(2, 0, 1) if planes == "separate" else array
        beyond = samples - (3 if photometric == "rgb" else 1)
        options = {"planarconfig": planes, "extrasamples": ["unspecified"] * beyond} if samples > 1 else {}
        written = written if samples > 1 else array[..., 0]
        for compression in (None, "zlib"):
            data = by_tifffile(written.astype(np.dtype(dtype).newbyteorder(order)), byteorder=order, photometric=photometric,
                               compression=compression, **options, **layout)  # fmt: skip
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
    planes = array.astype(array.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, columns * samples, -1).transpose(0, 2, 1)
    flat = planes.reshape(rows, -1, samples)
    return np.ascontiguousarray(differences(flat, "<"))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [1, 3])
def test_predicted_numbers_of_a_tiff(samples, dtype, order):
    array = random(dtype, *SIDES, samples)
    kind = np.dtype(dtype).kind
    content = byte_planes(array) if kind == "f" else differences(array, order)
    tags = about(SIDES, samples, array.dtype.itemsize * 8, 2 if samples == 3 else 1, compression=8, predictor=3 if kind == "f" else 2,
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


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "group3", "group4", "tiff_ccitt"])
def test_black_and_white_tiffs(compression):
    bright = GRAY > 90
    data = encoded(bright, "TIFF", compression=compression)
    check_all(data, bright * np.uint8(255), tripled(bright * np.uint8(255)))


def test_white_may_be_zero_in_a_tiff():
    check_all(tiff([GRAY.tobytes()], about(SIDES, 1, 8, 0)), 255 - GRAY, tripled(255 - GRAY))
    check_all(tiff([DEEP_GRAY.astype("<u2").tobytes()], about(SIDES, 1, 16, 0)), 65535 - DEEP_GRAY, tripled((65535 - DEEP_GRAY) >> 8))
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
    seen = decode_image(tiff([part.tobytes() for part in of_planes(np.dstack([blended, image[..., 3:]]))], tags), channels=None)
    np.testing.assert_array_equal(seen[..., 3], image[..., 3])
    assert (np.abs(seen[..., :3].astype(float) - image[..., :3]) <= most / image[..., 3:].astype(float)).all()


def test_gray_with_alpha_and_samples_beyond_alpha_in_a_tiff():
    pair = np.dstack([GRAY, ALPHA])
    check_all(tiff([pair.tobytes()], about(SIDES, 2, 8, 1, extra=2)), np.dstack([tripled(GRAY), ALPHA]), tripled(GRAY), ALPHA)
    five = np.dstack([RGBA, GRAY])
    check_all(tiff([five.tobytes()], about(SIDES, 5, 8, 2, extra=[2, 0])), five, RGB, ALPHA)
    check_all(tiff([five.tobytes()], about(SIDES, 5, 8, 2, extra=[0, 0])), five, RGB)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_palettes_in_a_tiff(bits):
    labels = LABELS.astype(np.uint16) % (1 << bits)
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


def turned(image, orientation):
    """By EXIF, as Pillow turns: 2 mirrored, 3 by 180 degrees, 4 upside down, 5 transposed, 6 to the right, 7 transverse, 8 to the left."""
    turns = (lambda x: x, np.fliplr, lambda x: x[::-1, ::-1], np.flipud, lambda x: x.swapaxes(0, 1), lambda x: np.rot90(x, -1),
             lambda x: x[::-1, ::-1].swapaxes(0, 1), np.rot90)  # fmt: skip
    return turns[orientation - 1](image)


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
    refused(tiff([RGB.tobytes(), b""], {**about(SIDES, 3, 8, 2), 278: ("I", [HEIGHT])}), "strips or tiles were never written")


# JPEG


def markers(data, *segments):
    return data[:2] + b"".join(segments) + data[2:]


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


JPEG = encoded(RGB, "JPEG", quality=95)
FRAME = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"subsampling": 0},
        {"subsampling": 1},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 1},
        {"keep_rgb": True},
    ],
)
def test_jpegs_are_read_as_pillow_reads_them(options):
    data = encoded(RGB, "JPEG", quality=95, **options)
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")).astype(float)
    assert np.abs(decode_image(data) - expected).mean() < 1


@pytest.mark.parametrize(
    "data",
    [
        markers(JPEG, segment(0xFE, b"\xff\xd9 \xff\xda \xff\xd8\xff \xff\xd9")),
        markers(JPEG, segment(0xE1, b"Exif\0\0" + exif(1) + encoded(RGB[:8, :8], "JPEG"))),
        JPEG.replace(b"\xff\xdb", b"\xff\xff\xff\xdb"),
        JPEG + b"\0\0\0\x18ftypmp42" + b"\xff\xda\xff\xd8\xff" * 99,
        JPEG + encoded(RGB[::-1], "JPEG")[:200],
        encoded(RGB, "MPO", quality=95, save_all=True, append_images=[PIL.Image.new("RGB", (WIDTH, HEIGHT), "red")]),
    ],
    ids=["a comment", "a thumbnail", "fill bytes", "a film", "half another", "several"],
)
def test_a_jpeg_ends_where_its_segments_say(data):
    np.testing.assert_array_equal(decode_image(data), decode_image(JPEG))


def test_a_jpeg_that_is_cut_off_within_its_thumbnail_or_before_another_image_is_refused():
    data = markers(JPEG, segment(0xE1, b"Exif\0\0" + exif(1) + encoded(RGB[:8, :8], "JPEG")))
    for cut in (data[: data.index(b"\xff\xd9") + 2], JPEG[:-40] + JPEG, JPEG[:-2], JPEG[:FRAME]):
        with pytest.raises(ValueError, match="is a JPEG image that is cut off"):
            decode_image(cut)
    with pytest.raises(ValueError, match="a JPEG image without an image in it"):
        decode_image(JPEG[:FRAME] + b"\xff\xd9")


def test_what_a_jpeg_can_be_besides_is_named():
    changed = lambda at, new: JPEG[: FRAME + at] + new + JPEG[FRAME + at + len(new) :]  # noqa: E731
    refused(changed(4, b"\x0c"), "a JPEG image of 12 bits", "PNG of 16 bits")
    refused(changed(1, b"\xc3"), "a lossless JPEG image", "imagecodecs")
    refused(changed(1, b"\xc5"), "a hierarchical JPEG image")
    refused(changed(5, b"\0\0"), "whose height stands behind its data")
    refused(changed(9, b"\2"), "a JPEG image of 2 components")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_first_exif_block_of_a_jpeg_turns_it(orientation):
    others = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(8))
    data = markers(JPEG, *others, segment(0xE1, b"Exif\0\0" + exif(orientation)))
    for channels in (1, 3, 4, None):
        np.testing.assert_array_equal(decode_image(data, channels=channels), turned(decode_image(JPEG, channels=channels), orientation))


# WebP

EXACT = {"lossless": True, "exact": True}


@pytest.mark.parametrize("several", [False, True])
def test_webps(several):
    more = {"save_all": True, "append_images": [PIL.Image.fromarray(RGBA[::-1].copy())]} if several else {}
    check_all(encoded(RGBA, "WEBP", **EXACT, **more), RGBA, RGB, ALPHA)
    check_all(encoded(RGB, "WEBP", **EXACT), RGB, RGB)
    check_all(encoded(RGB, "WEBP", **EXACT) + b"junk" * 9, RGB, RGB)


# AVIF

reads_avif = cv2.haveImageWriter(".avif") and PIL.features.check("avif")
needs_avif = pytest.mark.skipif(not reads_avif, reason="this OpenCV or this Pillow knows no AVIF")


def near(seen, expected, off):
    assert (seen.dtype, seen.shape) == (expected.dtype, expected.shape)
    assert np.abs(seen.astype(float) - expected).max() <= off


@needs_avif
@pytest.mark.parametrize("channels", [3, 1, 4, None])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avifs_come_out_upright(orientation, channels):
    exif_block = PIL.Image.Exif()
    exif_block[0x112] = orientation
    data = encoded(RGBA, "AVIF", exif=exif_block, quality=100, subsampling="4:4:4")
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))))
    near(expected, np.ascontiguousarray(turned(RGBA, orientation)), 5)
    gray = np.rint(expected[..., :3] @ [0.299, 0.587, 0.114])[..., None].astype(np.uint8)
    near(decode_image(data, channels=channels), {3: expected[..., :3], 1: gray, 4: expected, None: expected}[channels], 4)


@needs_avif
@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("samples", [3, 4])
def test_avifs_of_more_bits(samples, bits):
    image = (np.dstack([DEEP, DEEP_ALPHA])[..., :samples] >> (16 - bits)).astype(np.uint8 if bits == 8 else np.uint16)
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    data = cv2.imencode(".avif", np.ascontiguousarray(image[..., [2, 1, 0, 3][:samples]]), options)[1].tobytes()
    off = 1 << (bits - 6)  # colours of half the width, in AV1
    assert np.abs(decode_image(data, channels=None).astype(float) - image).mean() < off
    assert np.abs(decode_image(data).astype(float) - RGB).mean() < 4
    assert np.abs(decode_image(data, channels=4)[..., :samples].astype(float) - RGBA[..., :samples]).mean() < 4


# JPEG 2000


def stream(image, **options):
    """A JPEG 2000 image without boxes."""
    return encoded(image, "JPEG2000", no_jp2=True, **options)


@pytest.mark.parametrize("boxed", [True, False])
def test_jpeg_2000(boxed):
    written = lambda image: encoded(image, "JPEG2000", no_jp2=not boxed)  # noqa: E731
    check_all(written(GRAY), GRAY, tripled(GRAY))
    check_all(written(RGB), RGB, RGB)
    check_all(written(RGBA), RGBA, RGB, ALPHA)
    check_all(written(DEEP_GRAY), DEEP_GRAY, tripled(DEEP_GRAY >> 8))


def test_what_jpeg_2000_can_hold_besides_is_named():
    plain, gray = stream(RGB, mct=0), stream(GRAY)
    check_all(jp2(plain, SIDES, 3), RGB, RGB)
    refused(jp2(plain, SIDES, 3, 18), "a JPEG 2000 image in video's colours (sYCC)", "RGB")
    refused(jp2(stream(RGBA), SIDES, 4, 12), "CMYK")
    palette = box(b"pclr", struct.pack(">HB", 256, 3) + b"\7\7\7" + PALETTE.tobytes())
    refused(jp2(gray, SIDES, 1, 16, palette, box(b"cmap", b"\0\0\1\0\0\0\1\1\0\0\1\2")), "a JPEG 2000 image with a palette")
    backwards = box(b"cdef", struct.pack(">10H", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1))
    refused(jp2(plain, SIDES, 3, 16, backwards), "channels are in another order")
    blended = box(b"cdef", struct.pack(">13H", 4, 0, 0, 1, 1, 0, 2, 2, 0, 3, 3, 2, 0))
    refused(jp2(stream(RGBA), SIDES, 4, 16, blended), "channels are in another order")
    pair = PIL.Image.merge("LA", [PIL.Image.fromarray(GRAY), PIL.Image.fromarray(ALPHA)])
    refused(encoded(pair, "JPEG2000"), "a JPEG 2000 image of 2 components (8 bits", "imagecodecs")
    at = gray.index(b"\xff\x51") + 40
    refused(gray[:at] + b"\x87" + gray[at + 1 :], "a JPEG 2000 image of 1 components (signed 8 bits")


# Netpbm


def words(numbers):
    return b"\n".join(b" ".join(b"%d" % number for number in row.ravel()) for row in numbers)


def head(kind, most=b""):
    return kind + b"\n# made by hand\n%d %d\n" % (WIDTH, HEIGHT) + (most and most + b"\n")


def pam(array, most, kind):
    numbers = array.reshape(HEIGHT, WIDTH, -1)
    told = WIDTH, HEIGHT, numbers.shape[2], most, kind
    return (
        b"P7\n# made by hand\nWIDTH %d\nHEIGHT %d\nDEPTH %d\nMAXVAL %d\nTUPLTYPE %s\nENDHDR\n" % told
        + numbers.astype("u1" if most < 256 else ">u2").tobytes()
    )


BITS = (GRAY > 90).astype(np.uint8)
WHITE = (1 - BITS) * np.uint8(255)
TEN = (DEEP >> 6).astype(np.uint16)
FLOATS = RGB / np.float32(3)
PAIR, DEEP_PAIR = np.dstack([GRAY, ALPHA]), np.dstack([DEEP_GRAY, DEEP_ALPHA])
NETPBMS = {
    "P1": (head(b"P1") + words(BITS), WHITE, tripled(WHITE)),
    "P1, close together": (head(b"P1") + words(BITS).replace(b" ", b""), WHITE, tripled(WHITE)),
    "P2": (head(b"P2", b"255") + words(GRAY), GRAY, tripled(GRAY)),
    "P3": (head(b"P3", b"255") + words(RGB), RGB, RGB),
    "P4": (head(b"P4") + b"".join(packed(BITS, 1)), WHITE, tripled(WHITE)),
    "P5": (head(b"P5", b"255") + GRAY.tobytes(), GRAY, tripled(GRAY)),
    "P5 of 15": (head(b"P5", b"15") + LABELS.tobytes(), LABELS * 17, tripled(LABELS * 17)),
    "P5 of 65535": (head(b"P5", b"65535") + DEEP_GRAY.astype(">u2").tobytes(), DEEP_GRAY, tripled(DEEP_GRAY >> 8)),
    "P6": (head(b"P6", b"255") + RGB.tobytes(), RGB, RGB),
    "P6 of 1023": (head(b"P6", b"1023") + TEN.astype(">u2").tobytes(), TEN, RGB),
    "P6 of 1000": (head(b"P6", b"1000") + (DEEP // 66).astype(">u2").tobytes(), DEEP // 66, np.rint(DEEP // 66 * 0.255)),
    "P7 RGB": (pam(RGB, 255, b"RGB"), RGB, RGB),
    "P7 RGB of 16 bits": (pam(DEEP, 65535, b"RGB"), DEEP, DEEP >> 8),
    "P7 RGBA": (pam(RGBA, 255, b"RGB_ALPHA"), RGBA, RGB, ALPHA),
    "P7 gray": (pam(GRAY, 255, b"GRAYSCALE"), GRAY, tripled(GRAY)),
    "P7 gray and alpha": (pam(PAIR, 255, b"GRAYSCALE_ALPHA"), np.dstack([tripled(GRAY), ALPHA]), tripled(GRAY), ALPHA),
    "P7 gray and alpha of 16 bits": (pam(DEEP_PAIR, 65535, b"GRAYSCALE_ALPHA"), np.dstack([tripled(DEEP_GRAY), DEEP_ALPHA]),
                                     tripled(DEEP_GRAY >> 8), DEEP_ALPHA >> 8),
    "P7 black and white": (pam(BITS, 1, b"BLACKANDWHITE"), BITS * 255, tripled(BITS * 255)),
    "P7 of five bands": (pam(np.dstack([RGB, PAIR]), 255, b"x"), np.dstack([RGB, PAIR])),
    "Pf": (head(b"Pf", b"-1.0").replace(b"# made by hand\n", b"") + FLOATS[::-1, :, 0].astype("<f4").tobytes(), FLOATS[..., 0]),
    "PF, most significant bytes first": (head(b"PF", b"2.5").replace(b"# made by hand\n", b"") + FLOATS[::-1].astype(">f4").tobytes(), FLOATS),
}  # fmt: skip


@pytest.mark.parametrize("case", NETPBMS)
def test_every_portable_map(case):
    check_all(*NETPBMS[case])


@pytest.mark.parametrize("case", NETPBMS)
def test_a_portable_map_that_is_cut_off_is_told(case):
    data = NETPBMS[case][0]
    for length in (len(data) // 2, len(data) - 9):
        with pytest.raises(ValueError, match=rf"data is a portable map \(Netpbm\), but damaged or cut off \({length} bytes\)"):
            decode_image(data[:length], channels=None)


# Others


def test_light_of_radiance_and_rasters_of_sun():
    powers = 2.0 ** (LABELS % 4).astype(np.float32)
    light = cv2.imencode(".hdr", tripled(powers))[1].tobytes()
    np.testing.assert_allclose(decode_image(light, channels=None), tripled(powers), rtol=0.01)
    refused(light.replace(b"_rgbe", b"_xyze"), "a Radiance image", "XYZ") if b"_rgbe" in light else None
    check_all(cv2.imencode(".ras", BGR)[1].tobytes(), RGB, RGB)


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ["a HEIC image", "pillow-heif"]),
        (b"\xff\x0a", ["a JPEG XL image", "imagecodecs"]),
        (b"v/1\x01\2\0\0\0", ["an OpenEXR image"]),
        (b"8BPS\0\1", ["a Photoshop image", "psd-tools"]),
        (b"\0\0\1\0\1\0", ["an icon", "Pillow"]),
        (b"%PDF-1.7", ["a PDF"]),
        (b'<?xml version="1.0"?>\n<svg xmlns="', ["a drawing (SVG)"]),
    ],
)
def test_images_of_other_kinds_are_named(beginning, words):
    refused(beginning + bytes(60), *words)


FILES = {f"{name} {case}": files[case][0] for name, files in (("png", PNGS), ("bmp", BMPS), ("netpbm", NETPBMS)) for case in files} | {
    "jpeg": JPEG, "tiff": by_tifffile(DEEP, photometric="rgb", compression="zlib"), "gif": encoded(paletted(), "GIF"),
    "tiff in tiles": by_tifffile(RGB, photometric="rgb", tile=(16, 16)), "webp": encoded(RGBA, "WEBP"), "jp2": encoded(RGB, "JPEG2000"),
}  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FILES)
def test_whatever_is_wrong_with_a_file_is_a_value_error(name, capfd):
    rng = np.random.default_rng(0)
    for _ in range(40):
        data = np.frombuffer(FILES[name], np.uint8).copy()
        at = rng.integers(0, min(len(data), 120), 3)
        data[at] = rng.choice([0, 1, 127, 255, 42], 3)
        for read in (decode_image, lambda data: decode_image(data, channels=None), decode_mask):
            try:
                assert read(data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data).size
            except ValueError as error:
                assert str(error).startswith(("decode_image(): data is ", "decode_mask(): data is "))
