"""Decoders of images are believed in nothing: for each format and feature a file by another writer,
or by hand, and its very numbers."""

import contextlib
import io
import struct

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from pictures import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GRAY,
    GRAY,
    HEIGHT,
    LABELS,
    PALETTE,
    RGB,
    RGBA,
    SHOWN,
    SIDES,
    WIDTH,
    check_all,
    of_bits,
    refused,
    tripled,
    turned,
)
from writing import bmp, box, chunk, encoded, exif, jp2, packed, png, runs

from flowfn.image.reading import decode_image, decode_mask

# PNG


def shade(*numbers):
    return chunk(b"tRNS", struct.pack(f">{len(numbers)}H", *map(int, numbers)))


def clear(transparent, most=255):
    return np.where(transparent, 0, most).astype(np.uint8 if most == 255 else np.uint16)


LUMINOUS = (
    chunk(b"gAMA", struct.pack(">I", 100_000))
    + chunk(b"sBIT", b"\5\6\5\4")
    + chunk(b"bKGD", struct.pack(">HHH", 255, 0, 0))
)
IS_ONE, IS_DEEP, IS_RED = LABELS % 2 == 1, DEEP_GRAY == DEEP_GRAY[5, 7], (RGB == RGB[5, 7]).all(-1)
PNGS = {
    "gray": (png(GRAY, 8, 0), GRAY, tripled(GRAY)),
    "rgb": (png(RGB, 8, 2), RGB, RGB),
    "rgba": (png(RGBA, 8, 6), RGBA, RGB, ALPHA),
    "gray and alpha": (png(np.dstack([GRAY, ALPHA]), 8, 4), np.dstack([tripled(GRAY), ALPHA]), tripled(GRAY), ALPHA),
    "gray of 16 bits": (png(DEEP_GRAY, 16, 0), DEEP_GRAY, tripled(DEEP_GRAY >> 8)),
    "rgb of 16 bits": (png(DEEP, 16, 2), DEEP, DEEP >> 8),
    "rgba of 16 bits": (png(np.dstack([DEEP, DEEP_ALPHA]), 16, 6), np.dstack([DEEP, DEEP_ALPHA]), DEEP >> 8,
    DEEP_ALPHA >> 8),
    "interlaced": (png(RGB, 8, 2, interlaced=True), RGB, RGB),
    "interlaced palette": (png(LABELS, 4, 3, chunk(b"PLTE", PALETTE[:16].tobytes()), interlaced=True), SHOWN, SHOWN),
    "gamma and significant bits": (png(RGBA, 8, 6, LUMINOUS), RGBA, RGB, ALPHA),
    "a transparent gray": (png(LABELS % 2, 1, 0, shade(1)), np.dstack([tripled(IS_ONE * np.uint8(255)), clear(IS_ONE)]),
                           tripled(IS_ONE * np.uint8(255)), clear(IS_ONE)),
    "a transparent gray of 16 bits": (png(DEEP_GRAY, 16, 0, shade(DEEP_GRAY[5, 7])),
                                      np.dstack([tripled(DEEP_GRAY), clear(IS_DEEP, 65535)]), tripled(DEEP_GRAY >> 8),
                                      clear(IS_DEEP)),
    "a transparent colour": (png(RGB, 8, 2, shade(*RGB[5, 7])), np.dstack([RGB, clear(IS_RED)]), RGB, clear(IS_RED)),
    "turned": (png(np.ascontiguousarray(RGB[::-1, ::-1]), 8, 2, chunk(b"eXIf", exif(3))), RGB, RGB),
    "no EXIF, but the like of it in a text": (png(RGB, 8, 2, chunk(b"tEXt", b"x\0eXIf" + exif(3))), RGB, RGB),
}  # fmt: skip


@pytest.mark.parametrize("case", PNGS)
def test_every_kind_of_png(case):
    check_all(*PNGS[case])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_and_grays_of_few_bits_in_png(bits):
    labels = LABELS & ((1 << bits) - 1)
    check_all(png(labels, bits, 0), of_bits(labels, bits), tripled(of_bits(labels, bits)))
    colours = chunk(b"PLTE", PALETTE[: 1 << bits].tobytes())
    check_all(png(labels, bits, 3, colours), PALETTE[labels], PALETTE[labels])
    alpha = np.array([0, 200] + [255] * 254, np.uint8)[labels]
    check_all(
        png(labels, bits, 3, colours, chunk(b"tRNS", b"\0\xc8")),
        np.dstack([PALETTE[labels], alpha]),
        PALETTE[labels],
        alpha,
    )


@pytest.mark.parametrize("default", [False, True])
def test_of_an_animated_png_the_picture_that_stands_still_is_read(default):
    others = [PIL.Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    check_all(encoded(RGB, "PNG", save_all=True, default_image=default, append_images=others), RGB, RGB)


# BMP


def masked(bits):
    """Colours of so many bits each, in a number, the masks for them, and what they are from 0 to 255."""
    shifts = bits[1] + bits[2], bits[2], 0, sum(bits[:3])
    values = [
        (RGBA[..., i].astype(np.uint32) >> (8 - count) if count else RGBA[..., i] * 0) for i, count in enumerate(bits)
    ]
    numbers = sum(value.astype(np.uint32) << np.uint32(shift) for value, shift in zip(values, shifts))
    masks = [((1 << count) - 1) << shift for count, shift in zip(bits, shifts)]
    return numbers, masks, np.dstack([of_bits(value, count) for value, count in zip(values, bits) if count])


def rows_of(numbers, dtype):
    return [row.astype(dtype).tobytes() for row in numbers]


BGR, BGRX = RGB[..., ::-1], np.dstack([RGB[..., ::-1], ALPHA])
FIVES, FIVE_MASKS, FIVE_COLOURS = masked((5, 5, 5, 0))
QUADS = np.c_[PALETTE[:, ::-1], np.zeros(256, np.uint8)]
GRAYS = np.repeat(np.arange(256, dtype=np.uint8), 4).reshape(256, 4) * np.array([1, 1, 1, 0], np.uint8)
MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
TENS = RGB.astype(np.uint32) @ np.array([1 << 22, 1 << 12, 4], np.uint32)
SRGB = b"BGRs" + bytes(48)
BMPS = {
    "24 bits": (bmp(rows_of(BGR, "u1"), 24, SIDES), RGB, RGB),
    "24 bits from above": (bmp(rows_of(BGR, "u1"), 24, SIDES, upwards=False), RGB, RGB),
    "24 bits of OS/2": (bmp(rows_of(BGR, "u1"), 24, SIDES, size=12), RGB, RGB),
    "32 bits, the last eight of no meaning": (bmp(rows_of(BGRX, "u1"), 32, SIDES), RGB, RGB),
    "32 bits with alpha": (bmp(rows_of(BGRX, "u1"), 32, SIDES, compression=3, size=108, more=SRGB, masks=MASKS),
                           RGBA, RGB, ALPHA),
    "32 bits, red first": (bmp(rows_of(RGBA, "u1"), 32, SIDES, compression=3, masks=(0xFF, 0xFF00, 0xFF0000)), RGB,
    RGB),
    "32 bits of 10 each": (bmp(rows_of(TENS, "<u4"),
                               32, SIDES, compression=3, masks=(0x3FF00000, 0xFFC00, 0x3FF)), RGB, RGB),
    "16 bits": (bmp(rows_of(FIVES, "<u2"), 16, SIDES), FIVE_COLOURS, FIVE_COLOURS),
    "gray": (bmp(rows_of(GRAY, "u1"), 8, SIDES, palette=GRAYS.tobytes()), GRAY, tripled(GRAY)),
    "a short palette": (bmp(rows_of(LABELS, "u1"), 8, SIDES, palette=QUADS[:16].tobytes(), used=16), SHOWN, SHOWN),
    "a palette of OS/2": (bmp(rows_of(LABELS, "u1"), 8, SIDES, palette=PALETTE[:, ::-1].tobytes(), size=12), SHOWN,
    SHOWN),
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
    labels = LABELS & ((1 << bits) - 1)
    check_all(
        bmp(packed(labels, bits), bits, SIDES, palette=QUADS[: 1 << bits].tobytes()), PALETTE[labels], PALETTE[labels]
    )


def test_what_bmp_can_hold_besides_is_named():
    refused(bmp(encoded(RGB, "JPEG"), 24, SIDES, compression=4), "a BMP image that holds a JPEG", "write it as PNG")
    refused(
        bmp(rows_of(FIVES, "<u2"), 16, SIDES, compression=3, masks=(0x7C00, 0x3E0, 0x15)),
        "the mask 0x15, whose bits do not lie together",
    )


# GIF


def paletted(labels=LABELS):
    picture = PIL.Image.fromarray(labels)
    picture.putpalette(PALETTE.tobytes())
    return picture


needs_gif = pytest.mark.skipif(
    cv2.imdecode(np.frombuffer(encoded(GRAY, "GIF"), np.uint8), cv2.IMREAD_COLOR) is None,
    reason="this OpenCV reads no GIF",
)


@needs_gif
@pytest.mark.parametrize(
    "options",
    [{"interlace": 0}, {"interlace": 1}, {"save_all": True, "append_images": [paletted(LABELS[::-1].copy())]}],
)
def test_gifs(options):
    check_all(encoded(paletted(), "GIF", **options), SHOWN, SHOWN)


@needs_gif
def test_transparent_gifs():
    check_all(
        encoded(paletted(), "GIF", transparency=3), np.dstack([SHOWN, clear(LABELS == 3)]), SHOWN, clear(LABELS == 3)
    )


@needs_gif
def test_what_the_first_picture_of_a_gif_leaves_empty_is_transparent():
    data = encoded(paletted(), "GIF", interlace=0)
    at = data.index(b",\0\0\0\0")
    wide = (
        data[:6]
        + struct.pack("<HH", WIDTH + 8, HEIGHT + 6)
        + data[10:at]
        + b","
        + struct.pack("<HH", 5, 3)
        + data[at + 5 :]
    )
    seen = decode_image(wide, channels=4)
    expected = np.zeros((HEIGHT + 6, WIDTH + 8), np.uint8)
    expected[3 : 3 + HEIGHT, 5 : 5 + WIDTH] = 255
    np.testing.assert_array_equal(seen[..., 3], expected)
    np.testing.assert_array_equal(seen[3 : 3 + HEIGHT, 5 : 5 + WIDTH, :3], SHOWN)


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
    changed = lambda at, new: JPEG[: FRAME + at] + new + JPEG[FRAME + at + len(new) :]
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
        np.testing.assert_array_equal(
            decode_image(data, channels=channels), turned(decode_image(JPEG, channels=channels), orientation)
        )


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
    near(
        decode_image(data, channels=channels), {3: expected[..., :3], 1: gray, 4: expected, None: expected}[channels], 4
    )


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
    written = lambda image: encoded(image, "JPEG2000", no_jp2=not boxed)
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
    refused(
        jp2(gray, SIDES, 1, 16, palette, box(b"cmap", b"\0\0\1\0\0\0\1\1\0\0\1\2")), "a JPEG 2000 image with a palette"
    )
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
    "P6 of 1000": (head(b"P6", b"1000") + (DEEP // 66).astype(">u2").tobytes(), DEEP // 66, np.rint(
    DEEP // 66 * 0.255)),
    "P7 RGB": (pam(RGB, 255, b"RGB"), RGB, RGB),
    "P7 RGB of 16 bits": (pam(DEEP, 65535, b"RGB"), DEEP, DEEP >> 8),
    "P7 RGBA": (pam(RGBA, 255, b"RGB_ALPHA"), RGBA, RGB, ALPHA),
    "P7 gray": (pam(GRAY, 255, b"GRAYSCALE"), GRAY, tripled(GRAY)),
    "P7 gray and alpha": (pam(PAIR, 255, b"GRAYSCALE_ALPHA"), np.dstack([tripled(GRAY), ALPHA]), tripled(GRAY), ALPHA),
    "P7 gray and alpha of 16 "
    "bits": (pam(DEEP_PAIR, 65535, b"GRAYSCALE_ALPHA"), np.dstack([tripled(DEEP_GRAY), DEEP_ALPHA]),
                                     tripled(DEEP_GRAY >> 8), DEEP_ALPHA >> 8),
    "P7 black and white": (pam(BITS, 1, b"BLACKANDWHITE"), BITS * 255, tripled(BITS * 255)),
    "P7 of five bands": (pam(np.dstack([RGB, PAIR]), 255, b"x"), np.dstack([RGB, PAIR])),
    "Pf": (head(b"Pf", b"-1.0").replace(b"# made by hand\n", b"") + FLOATS[::-1, :, 0].astype("<f4").tobytes(), FLOATS[
    ..., 0]),
    "PF of other bytes": (head(b"PF", b"2.5").replace(b"# made by hand\n", b"") + FLOATS[::-1].astype(">f4").tobytes(
    ), FLOATS),
}  # fmt: skip


@pytest.mark.parametrize("case", NETPBMS)
def test_every_portable_map(case):
    check_all(*NETPBMS[case])


@pytest.mark.parametrize("case", NETPBMS)
def test_a_portable_map_that_is_cut_off_is_told(case):
    data = NETPBMS[case][0]
    for length in (len(data) // 2, len(data) - 9):
        with pytest.raises(
            ValueError, match=rf"data is a portable map \(Netpbm\), but damaged or cut off \({length} bytes\)"
        ):
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


OURS = {
    f"{name} {case}": files[case][0]
    for name, files in (("bmp", BMPS), ("netpbm", NETPBMS))
    for case in files
    if "runs" not in case
}
"""Files of which every byte is read here, and not by a library."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", OURS)
def test_whatever_is_wrong_with_a_file_is_a_value_error(name):
    rng = np.random.default_rng(0)
    for _ in range(40):
        data = np.frombuffer(OURS[name], np.uint8).copy()
        at = rng.integers(0, min(len(data), 120), 3)
        data[at] = rng.choice([0, 1, 127, 255, 42], 3)
        for read in (decode_image, lambda data: decode_image(data, channels=None), decode_mask):
            with contextlib.suppress(ValueError):
                assert read(data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data).size


@pytest.mark.parametrize("behind", [b"junk" * 20, b"\0" * 50, b"\xff\xd8\xff" * 20])
def test_what_lies_behind_the_end_of_a_file_is_left_alone(behind):
    files = [
        encoded(RGB, "PNG"),
        encoded(RGB, "WEBP", **EXACT),
        encoded(RGB, "JPEG2000"),
        stream(RGB),
        JPEG,
        BMPS["24 bits"][0],
    ]
    for data in files + [encoded(RGB, "AVIF")] * reads_avif:
        np.testing.assert_array_equal(decode_image(data + behind), decode_image(data))
