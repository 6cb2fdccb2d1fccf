"""Masks: the numbers that are stored, whatever colours their palette shows them in."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
from writing import about, bmp, chunk, encoded, exif, packed, png, runs, tiff

import flowfn as ff
from flowfn.formats import read_webdataset, write_webdataset
from flowfn.image import decode_image, decode_mask, read_image, read_mask

SIDES = (12, 20)
LABELS = (np.arange(240, dtype=np.uint8).reshape(SIDES) * 7) % 21
LABELS[3:5, 4:9] = 255  # void
COLOURS = np.stack([np.arange(256) * 37, 128 - np.arange(256), np.arange(256) // 3], -1).astype(np.uint8)


def palette(bits, alpha=False):
    colours = COLOURS[: 1 << bits]
    return np.c_[colours[:, ::-1], np.zeros(len(colours), np.uint8)].tobytes() if alpha else colours.tobytes()


def by_pillow(format, **options):
    mask = PIL.Image.fromarray(LABELS)
    mask.putpalette(palette(8))
    return encoded(mask, format, **options)


@pytest.mark.parametrize("options", [{}, {"transparency": 0}, {"optimize": True}])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_the_labels_of_a_mask_of_voc_are_its_indices(format, options):
    data = by_pillow(format, **options)
    seen = decode_mask(data)
    assert (seen.dtype, seen.shape) == (np.uint8, SIDES)
    np.testing.assert_array_equal(seen, LABELS)
    np.testing.assert_array_equal(decode_image(data), COLOURS[LABELS])


@pytest.mark.skipif(
    cv2.imdecode(np.frombuffer(by_pillow("GIF"), np.uint8), cv2.IMREAD_COLOR) is None, reason="this OpenCV reads no GIF"
)
@pytest.mark.parametrize("options", [{}, {"transparency": 7}, {"interlace": 0}])
def test_the_labels_of_a_gif_are_its_indices(options):
    np.testing.assert_array_equal(decode_mask(by_pillow("GIF", optimize=False, **options)), LABELS)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_few_bits(bits):
    labels = (LABELS & ((1 << bits) - 1)).astype(np.uint8)
    rows, most = packed(labels, bits), (1 << bits) - 1
    colours = chunk(b"PLTE", palette(bits))
    files = [
        png(labels, bits, 3, colours), png(labels, bits, 3, colours, chunk(b"tRNS", b"\0"), interlaced=True), png(
        labels, bits, 0),
        png(labels, bits, 0, chunk(b"tRNS", b"\0\0")), bmp(rows, bits, SIDES, palette=palette(bits, True)),
        bmp(rows, bits, SIDES, palette=palette(bits, True), upwards=False), tiff([b"".join(rows)], about(SIDES, 1,
        bits, 1)),
        tiff([b"".join(rows)], about(SIDES, 1, bits, 0)), b"P5\n20 12\n%d\n" % most + labels.tobytes(),
    ]  # fmt: skip
    for data in files:
        np.testing.assert_array_equal(decode_mask(data), labels)


def test_labels_in_runs_of_a_bmp():
    few = LABELS % 16
    np.testing.assert_array_equal(
        decode_mask(bmp(runs(LABELS, 8), 8, SIDES, compression=1, palette=palette(8, True))), LABELS
    )
    np.testing.assert_array_equal(
        decode_mask(bmp(runs(few, 4), 4, SIDES, compression=2, palette=palette(4, True))), few
    )


def test_labels_beyond_eight_bits():
    many = LABELS.astype(np.uint16) * 251
    np.testing.assert_array_equal(decode_mask(png(many, 16, 0)), many)
    np.testing.assert_array_equal(decode_mask(b"P5\n20 12\n65535\n" + many.astype(">u2").tobytes()), many)
    signed = many.astype(np.int32) - 9
    seen = decode_mask(tiff([signed.tobytes()], about(SIDES, 1, 32, 1, format=2)))
    np.testing.assert_array_equal(seen, signed)
    assert seen.dtype == np.int32


def test_masks_come_out_upright():
    data = png(np.rot90(LABELS), 8, 3, chunk(b"PLTE", palette(8)), chunk(b"eXIf", exif(6)))
    np.testing.assert_array_equal(decode_mask(data), LABELS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(COLOURS[LABELS], 8, 2), "a PNG image of RGB, which has no palette; decode_image gives its colours"),
        (png(np.dstack([LABELS, LABELS]), 8, 4), "a PNG image of gray and alpha, which has no palette"),
        (bmp([row.tobytes() for row in COLOURS[LABELS]], 24, SIDES), "a BMP image of 24 bits, which has no palette"),
        (
            tiff([COLOURS[LABELS].tobytes()], about(SIDES, 3, 8, 2)),
            "a TIFF image of 3 samples of uint8 for each pixel, which are no labels",
        ),
        (
            tiff([LABELS.astype("f4").tobytes()], about(SIDES, 1, 32, 1, format=3)),
            "a TIFF image of 1 samples of float32",
        ),
        (encoded(LABELS, "JPEG"), "keeps numbers only roughly, so that there are no labels in it; write masks as PNG"),
        (encoded(LABELS, "WEBP"), "keeps numbers only roughly"),
        (
            b"P6\n20 12\n255\n" + COLOURS[LABELS].tobytes(),
            "a portable map of 3 numbers of uint8 for each pixel, which are no labels",
        ),
        (b"hello", "no image that OpenCV decodes"),
        (b"", r"empty \(0 bytes\)"),
        (png(LABELS, 8, 3, chunk(b"PLTE", palette(8)))[:-20], "a PNG image, but damaged or cut off"),
    ],
)
def test_what_holds_no_labels_is_named(data, message, tmp_path):
    with pytest.raises(
        ValueError, match=rf"^decode_mask\(\): data is {message}|^decode_mask\(\): data is an image of .*{message}"
    ):
        decode_mask(data)
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"^read_mask\(\): .*a\.bin is "):
        read_mask(tmp_path / "a.bin")


def test_images_and_masks_are_read_in_a_flow(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(COLOURS[LABELS], "PNG"))
    (tmp_path / "mask.png").write_bytes(by_pillow("PNG"))
    files = [[tmp_path / "a.png", tmp_path / "mask.png"]]
    ((image, mask),) = ff.pipe(files, ff.map_component(read_image, 0), ff.map_component(read_mask, 1))
    np.testing.assert_array_equal(image, COLOURS[LABELS])
    np.testing.assert_array_equal(mask, LABELS)
    np.testing.assert_array_equal(read_mask(io.BytesIO(by_pillow("PNG"))), LABELS)
    with pytest.raises(TypeError, match=r"map_component\(read_mask, index\), for bytes decode_mask"):
        read_mask(3)
    with pytest.raises(
        TypeError, match=r"^decode_mask\(\): data must be bytes, or a uint8 array, got str; for a path write read_mask"
    ):
        decode_mask("a.png")


def test_masks_are_read_out_of_tar_files(tmp_path):
    path = str(tmp_path / "a.tar")
    write_webdataset(path, [{"seg.png": by_pillow("PNG"), "cls": 1}])
    (sample,) = read_webdataset(path, decode={"seg.png": decode_mask})
    np.testing.assert_array_equal(sample["seg.png"], LABELS)
