"""Images out of files and bytes: every kind of file, whole or broken, with files made here by Pillow and OpenCV."""

import io
import os
import pickle
import struct
import zlib

import cv2
import fsspec
import numpy as np
import PIL.Image
import pytest

import flowfn as ff
from flowfn.image.reading import decode_image, read_image, read_images
from flowfn.testing import check

HEIGHT, WIDTH = 48, 64
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
PICTURE = np.stack([ROWS * 5, COLUMNS * 3, 255 - ROWS * 2 - COLUMNS], -1).astype(np.uint8)
GRAY = PICTURE[..., 1]
ALPHA = (COLUMNS * 4).astype(np.uint8)
RGBA = np.dstack([PICTURE, ALPHA])
LOSSY = {"JPEG": 4, "WEBP": 4, "AVIF": 4, "GIF": 40}  # how far a value may be off, on average


def encoded(image, format, **options):
    """An image file, as bytes, by Pillow."""
    file = io.BytesIO()
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    picture.save(file, format, **options)
    return file.getvalue()


def close(a, b, format="PNG"):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return np.abs(a.astype(float) - b).mean() <= LOSSY.get(format, 0)


def exif(orientation):
    block = PIL.Image.Exif()
    block[0x0112] = orientation
    return block


# What comes out


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "JPEG", "WEBP", "AVIF", "GIF"])
def test_every_format_comes_out_in_rgb_order(format):
    assert close(decode_image(encoded(PICTURE, format)), PICTURE, format)


def test_opencv_writes_blue_first_and_it_is_read_as_it_was_meant():
    data = cv2.imencode(".png", PICTURE[..., ::-1])[1].tobytes()
    for channels in (3, None):
        np.testing.assert_array_equal(decode_image(data, channels=channels), PICTURE)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_bytes_of_any_kind_are_decoded_and_not_changed(kind):
    data = encoded(PICTURE, "PNG")
    given = kind(data)
    np.testing.assert_array_equal(decode_image(given), PICTURE)
    assert bytes(given) == data


def test_views_with_gaps_are_decoded():
    doubled = np.repeat(np.frombuffer(encoded(PICTURE, "PNG"), np.uint8), 2)
    np.testing.assert_array_equal(decode_image(doubled[::2]), PICTURE)
    np.testing.assert_array_equal(decode_image(memoryview(doubled)[::2]), PICTURE)


def test_what_comes_out_is_ones_own():
    data = np.frombuffer(encoded(PICTURE, "PNG"), np.uint8)
    for channels in (1, 3, 4, None):
        image = decode_image(data, channels=channels)
        image[:] = 0
        assert decode_image(data, channels=channels).any()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_gray_is_repeated_given_one_channel_or_left_as_it_is(format):
    data = encoded(GRAY, format)
    assert close(decode_image(data), np.dstack([GRAY] * 3), format)
    assert close(decode_image(data, channels=1), GRAY[..., None], format)
    assert close(decode_image(data, channels=4), np.dstack([GRAY] * 3 + [np.full_like(GRAY, 255)]), format)
    assert close(decode_image(data, channels=None), GRAY, format)


def test_colours_become_gray_by_the_weights_of_bt_601():
    expected = PICTURE @ [0.299, 0.587, 0.114]
    assert np.abs(decode_image(encoded(PICTURE, "PNG"), channels=1)[..., 0] - expected).max() <= 1


def test_alpha_is_left_out_and_not_blended_in():
    data = encoded(RGBA, "PNG")
    np.testing.assert_array_equal(decode_image(data), PICTURE)
    np.testing.assert_array_equal(decode_image(data, channels=4), RGBA)
    np.testing.assert_array_equal(decode_image(data, channels=None), RGBA)


def test_where_there_is_no_alpha_it_is_opaque():
    opaque = np.dstack([PICTURE, np.full_like(GRAY, 255)])
    np.testing.assert_array_equal(decode_image(encoded(PICTURE, "PNG"), channels=4), opaque)
    assert close(decode_image(encoded(PICTURE, "JPEG"), channels=4), opaque, "JPEG")


def test_gray_with_alpha_has_four_channels():
    picture = PIL.Image.merge("LA", [PIL.Image.fromarray(GRAY), PIL.Image.fromarray(ALPHA)])
    np.testing.assert_array_equal(decode_image(encoded(picture, "PNG"), channels=None), np.dstack([GRAY] * 3 + [ALPHA]))


def test_a_palette_is_looked_up():
    picture = PIL.Image.fromarray(PICTURE).quantize(16)
    colours = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode_image(encoded(picture, "PNG")), colours)
    np.testing.assert_array_equal(decode_image(encoded(picture, "PNG"), channels=None), colours)
    seen = decode_image(encoded(picture, "PNG", transparency=3), channels=None)
    np.testing.assert_array_equal(seen[..., 3] == 0, np.asarray(picture) == 3)


def test_one_bit_is_black_and_white():
    picture = PIL.Image.fromarray(GRAY > 90)
    np.testing.assert_array_equal(decode_image(encoded(picture, "PNG"), channels=None), (GRAY > 90) * np.uint8(255))


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_of_sixteen_bits_the_upper_eight_are_kept_unless_all_are_wanted(extension):
    deep = PICTURE.astype(np.uint16) * 256 + 77
    data = cv2.imencode(extension, deep[..., ::-1])[1].tobytes()
    assert np.abs(decode_image(data).astype(int) - PICTURE).max() <= (extension == ".tiff")  # libtiff divides by 257
    np.testing.assert_array_equal(decode_image(data, channels=4)[..., :3], PICTURE)
    np.testing.assert_array_equal(decode_image(data, channels=None), deep)


@pytest.mark.parametrize(
    ("extension", "values"),
    [
        *(("." + kind, values.astype(np.float32) / 3) for kind in ("tiff", "pfm") for values in (PICTURE, GRAY)),
        *(
            (".tiff", values.astype(dtype) - dtype(99))
            for dtype in (np.int8, np.int16)
            for values in (PICTURE // 2, GRAY // 2)
        ),
        (".hdr", 2.0 ** (PICTURE // 64).astype(np.float32)),
    ],
)
def test_floats_and_signed_integers_come_only_as_they_are(extension, values):
    data = cv2.imencode(extension, values[..., ::-1] if values.ndim == 3 else values)[1].tobytes()
    np.testing.assert_allclose(
        decode_image(data, channels=None), values, rtol=0.01 * (extension == ".hdr")
    )  # of 8 bits and an exponent
    dtype = values.dtype
    for channels in (1, 3, 4):
        with pytest.raises(
            ValueError, match=f"an image of {dtype}, which is not turned into uint8; channels=None gives it as it"
        ):
            decode_image(data, channels=channels)


def test_cmyk_is_converted():
    data = encoded(PIL.Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "CMYK"
        expected = np.asarray(picture.convert("RGB"))
    assert close(decode_image(data), expected, "JPEG")
    assert decode_image(data, channels=None).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("channels", [3, 1, 4, None])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_come_out_upright(format, channels):
    lossless = {"lossless": True} if format == "WEBP" else {}
    upright = PIL.Image.fromarray(PICTURE)
    turned = [None, *(getattr(PIL.Image.Transpose, name) for name in TURNED)]
    for orientation, turn in enumerate(turned, 1):
        stored = upright if turn is None else upright.transpose(turn)
        data = encoded(stored, format, exif=exif(orientation), **lossless)
        image = decode_image(data, channels=channels)
        expected = PICTURE if channels != 1 else decode_image(encoded(PICTURE, "PNG"), channels=1)
        assert np.abs(image[..., :3].astype(int) - expected).mean() <= LOSSY.get(format, 0) + (channels == 1), (
            orientation
        )


TURNED = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
"""How a picture is stored, so that orientations 2 to 8 turn it back."""


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_images_with_alpha_come_out_upright(format):
    stored = np.ascontiguousarray(np.rot90(RGBA))
    data = encoded(stored, format, exif=exif(6), **({"lossless": True, "exact": True} if format == "WEBP" else {}))
    np.testing.assert_array_equal(decode_image(data, channels=None), RGBA)


def test_a_damaged_exif_block_says_nothing():
    data = encoded(RGBA, "PNG", exif=exif(6))
    start = data.index(b"eXIf")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    for block in (b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
        chunk = b"eXIf" + block
        broken = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        made = data[: start - 4] + broken + data[start + 4 + length + 4 :]
        np.testing.assert_array_equal(decode_image(made, channels=None), RGBA)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_picture_of_several_is_read(format):
    second = PIL.Image.new("RGB", (WIDTH, HEIGHT), "red")
    data = encoded(PICTURE, format, save_all=True, append_images=[second])
    assert close(decode_image(data), PICTURE, format)


# Smaller than they are


@pytest.mark.parametrize(
    ("size", "divisor"),
    [(None, 1), (1, 8), (100, 8), (107, 8), (108, 4), (214, 4), (215, 2), (427, 2), (428, 1), (854, 1), (5000, 1)],
)
def test_a_jpeg_is_reduced_as_long_as_its_shorter_edge_is_long_enough(size, divisor):
    height, width = 854, 1283
    data = encoded(np.zeros((height, width, 3), np.uint8), "JPEG")
    image = decode_image(data, size=size)
    assert image.shape == (-(-height // divisor), -(-width // divisor), 3)
    assert min(image.shape[:2]) >= min(size or 0, height)


@pytest.mark.parametrize("channels", [1, 3, 4, None])
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_a_reduced_jpeg_is_the_mean_of_its_blocks(divisor, channels):
    large = cv2.resize(PICTURE, (640, 480), interpolation=cv2.INTER_CUBIC)
    data = encoded(large, "JPEG", quality=95)
    image = decode_image(data, channels=channels, size=480 // divisor)
    blocks = (
        decode_image(data, channels=channels).reshape(480 // divisor, divisor, 640 // divisor, divisor, -1).mean((1, 3))
    )
    assert image.shape == blocks.shape
    assert np.abs(image - blocks).mean() < 1


def test_reduced_jpegs_come_out_gray_upright_and_converted():
    tall = np.zeros((400, 160), np.uint8)
    assert decode_image(encoded(tall, "JPEG"), channels=None, size=40).shape == (100, 40)
    assert decode_image(encoded(np.dstack([tall] * 3), "JPEG", exif=exif(6)), size=40).shape == (40, 100, 3)
    red = PIL.Image.new("RGB", (400, 160), "red")
    assert decode_image(encoded(red.convert("CMYK"), "JPEG"), size=40)[20, 50].argmax() == 0
    assert decode_image(encoded(red, "JPEG"), size=40)[20, 50].argmax() == 0
    assert decode_image(encoded(red, "JPEG", progressive=True), channels=4, size=40).shape == (40, 100, 4)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP"])
def test_other_formats_come_whole(format):
    assert decode_image(encoded(PICTURE, format), size=6).shape == PICTURE.shape


# What is no image


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": exif(6)}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_is_cut_off_is_an_error_and_not_half_a_picture(options):
    data = encoded(PICTURE, "JPEG", quality=95, **options)
    for length in (*range(3, len(data), 97), len(data) - 2, len(data) - 1):
        with pytest.raises(
            ValueError, match=rf"is a JPEG image that is cut off: its end is missing \({length} bytes\)"
        ):
            decode_image(data[:length])


def test_the_end_of_a_thumbnail_is_not_taken_for_the_end():
    thumbnail = encoded(PICTURE[:8, :8], "JPEG")
    segment = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail
    whole = encoded(PICTURE, "JPEG")
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]
    assert close(decode_image(data), PICTURE, "JPEG")
    for length in (len(data) - 2, len(data) - 100):
        with pytest.raises(ValueError, match="cut off"):
            decode_image(data[:length])


@pytest.mark.parametrize("behind", [b"\0" * 700, b"\r\n", b"a preview\xff\xda follows\xff\xd9"])
def test_other_things_may_stand_behind_a_jpeg(behind):
    assert close(decode_image(encoded(PICTURE, "JPEG") + behind), PICTURE, "JPEG")


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_other_images_that_are_cut_off_are_errors_too(format, capfd):
    data = encoded(PICTURE, format)
    name = {"WEBP": "WebP"}.get(format, format)
    for length in (len(data) // 2, len(data) * 9 // 10, len(data) - 3):
        with pytest.raises(ValueError, match=rf"data is an? {name} image, but damaged or cut off \({length} bytes\)"):
            decode_image(data[:length])


def test_a_changed_byte_in_a_png_is_noticed(capfd):
    data = bytearray(encoded(PICTURE, "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="is a PNG image, but damaged"):
        decode_image(data)


def test_nothing_is_said_to_be_nothing():
    with pytest.raises(ValueError, match=r"^decode_image\(\): data is empty \(0 bytes\)$"):
        decode_image(b"")


@pytest.mark.parametrize("data", [b"\0", b"\0" * 1000, b"<!DOCTYPE html>", b"hello\n" * 100, b"\xff\xd8", b"GIF"])
def test_what_is_no_image_is_shown(data):
    with pytest.raises(ValueError, match="no image that OpenCV decodes") as raised:
        decode_image(data)
    assert str(raised.value).endswith(f"{len(data)} bytes, which begin with {data[:24]!r}")


def test_absurd_sizes_are_refused_before_memory_is_asked_for(capfd):
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    for data in (png, b"P6 200000 200000 255\n" + bytes(100)):
        with pytest.raises(ValueError, match="data is "):
            decode_image(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.jpg", "must be bytes, or a uint8 array, got str; for a path write read_image"),
        ([1, 2], "must be bytes, or a uint8 array, got list"),
        (np.zeros(4), r"must be uint8 of one axis, got float64 of shape \(4,\)"),
        (PICTURE, r"must be uint8 of one axis, got uint8 of shape \(48, 64, 3\)"),
    ],
)
def test_what_cannot_be_decoded_is_said(data, message):
    with pytest.raises(TypeError, match=message):
        decode_image(data)


@pytest.mark.parametrize("channels", [0, 2, 5, -1])
def test_channels_are_checked(channels, tmp_path):
    for call in (
        lambda: decode_image(b"", channels=channels),
        lambda: read_image("a", channels=channels),
        lambda: read_images(channels=channels),
    ):
        with pytest.raises(ValueError, match=rf"channels must be 1, 3, 4 or None, got {channels}"):
            call()


def test_size_is_checked():
    for call in (lambda: decode_image(b"", size=0), lambda: read_image("a", size=0), lambda: read_images(size=0)):
        with pytest.raises(ValueError, match="size must be a positive integer or None, got 0"):
            call()


# Files


@pytest.fixture
def folder(tmp_path):
    for name, image in {"a.png": PICTURE, "b.png": PICTURE[::-1], "c.png": GRAY}.items():
        (tmp_path / name).write_bytes(encoded(image, "PNG"))
    return tmp_path


def test_a_path_an_open_file_and_a_url_give_the_same(folder):
    fsspec.filesystem("memory").pipe_file("/reading/a.png", (folder / "a.png").read_bytes())
    path = folder / "a.png"
    with open(path, "rb") as opened:
        files = [
            str(path),
            path,
            os.fsencode(path),
            np.str_(path),
            opened,
            io.BytesIO(path.read_bytes()),
            "memory://reading/a.png",
        ]
        for file in files:
            np.testing.assert_array_equal(read_image(file), PICTURE)


def test_an_open_file_is_read_from_where_it_stands(folder):
    file = io.BytesIO(b"header" + (folder / "a.png").read_bytes())
    file.seek(6)
    np.testing.assert_array_equal(read_image(file), PICTURE)


def test_names_with_spaces_and_other_alphabets_are_read(folder):
    path = folder / "an ümlaut, 猫.png"
    path.write_bytes((folder / "a.png").read_bytes())
    np.testing.assert_array_equal(read_image(path), PICTURE)


def test_what_cannot_be_read_is_named(folder):
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no image")
    (folder / "half.jpg").write_bytes(encoded(PICTURE, "JPEG")[:400])
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        read_image(folder / "none.jpg")
    with pytest.raises(IsADirectoryError):
        read_image(folder)
    for name, message in {
        "empty.jpg": r"is empty \(0 bytes\)",
        "notes.txt": "is no image that OpenCV decodes: 8 bytes, which begin with b'no image'",
        "half.jpg": r"is a JPEG image that is cut off: its end is missing \(400 bytes\)",
    }.items():
        with pytest.raises(ValueError, match=rf"^read_image\(\): .*{name} {message}"):
            read_image(folder / name)


def test_a_text_file_and_a_datapoint_are_told_what_to_write(folder):
    with (
        open(folder / "a.png", encoding="latin-1") as text,
        pytest.raises(TypeError, match=r'must give bytes, but .*a\.png gave str; open it with mode="rb"'),
    ):
        read_image(text)
    with pytest.raises(
        TypeError, match=r"got list; for one component of a datapoint write map_component\(read_image, index\)"
    ):
        list(read_images([[str(folder / "a.png"), 3]]))


def test_read_images_is_a_flow_over_files_and_a_stage(folder):
    files = [folder / name for name in ("a.png", "b.png", "c.png")]
    flow = read_images(files)
    assert len(flow) == 3
    np.testing.assert_array_equal(flow[1], PICTURE[::-1])
    assert [image.shape for image in ff.pipe(files, ff.shuffle(), read_images(channels=1))] == [(HEIGHT, WIDTH, 1)] * 3
    assert [image.ndim for image in read_images(files, channels=None)] == [3, 3, 2]
    assert repr(read_images(size=256, channels=1)) == "read_images(channels=1, size=256)"


def test_a_broken_file_in_a_flow_is_named_and_may_be_dropped(folder):
    (folder / "b.png").write_bytes(b"")
    files = [str(folder / name) for name in ("a.png", "b.png", "c.png")]
    with pytest.raises(ValueError, match=r"read_images\(\): .*b\.png is empty") as raised:
        list(read_images(files))
    assert "its datapoint 1" in "".join(raised.value.__notes__)
    assert len(list(ff.pipe(files, ff.guard(read_images(), errors=ValueError, then="drop")))) == 2


def test_the_laws_hold(folder):
    files = [str(folder / name) for name in ("a.png", "b.png")] * 3
    check(lambda: ff.pipe(files, ff.shuffle(), read_images()), workers=({},), stops=2, epochs=(0,))
    assert pickle.loads(pickle.dumps(read_images(channels=1))) == read_images(channels=1)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_the_laws_hold_in_threads_and_processes(folder):
    files = [str(folder / name) for name in ("a.png", "b.png")] * 3
    check(
        lambda: ff.pipe(files, ff.shuffle(), read_images()),
        workers=({"threads": 2}, {"processes": 2}),
        stops=2,
        epochs=(0,),
    )
