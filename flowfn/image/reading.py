"""Images out of files and bytes: RGB, upright, and whole, or an error that says what is wrong with which file.

OpenCV decodes. What it leaves open is decided here: an image that has been cut off is an error and never half a picture,
the rotation that a camera noted down is carried out whatever is asked for, and the order of colours is always red, green,
blue.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from flowfn import rules
from flowfn.formats.damage import reading
from flowfn.formats.files import open_file
from flowfn.stages import stage

CHANNELS = rules.Rule(
    "1, 3, 4 or None", lambda value: value is None or rules.is_integer(value), lambda value, others: value in (None, 1, 3, 4)
)
SIZE = rules.optional(rules.positive)
_REDUCED = {
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
}
_JPEG, _START, _END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_EXIF = re.compile(rb"(?:eXIf|EXIF....)(?:Exif\0\0)?(II\*\0|MM\0\*)", re.DOTALL)
"""In PNG and WebP: the name of the block, and the beginning of the TIFF header in it."""
_FLOATS = re.compile(rb"P[Ff]\s|#\?R")
"""How Portable FloatMaps and Radiance's images begin, which hold nothing but floats."""
_TIFF = re.compile(rb"II\*\0|MM\0\*")
_ORIENTATION, _SAMPLE_FORMAT = 0x0112, 0x0153
_SIGNED = 2
_TURNS = {2: (1, -1, 0), 3: (-1, -1, 0), 4: (-1, 1, 0), 5: (1, 1, 1), 6: (-1, 1, 1), 7: (-1, -1, 1), 8: (1, -1, 1)}
"""By EXIF orientation: the steps in which rows and columns are read, and whether they are exchanged after that."""
_KNOWN = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "WebP": rb"RIFF....WEBP",
    "TIFF": _TIFF.pattern,
    "BMP": rb"BM",
    "AVIF": rb"....ftypavi[fs]",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
}
_BEGINNING = 24
"""How many bytes of what is no image are shown."""


def decode_image(data: Any, *, channels: int | None = 3, size: int | None = None) -> np.ndarray:
    """Decode the bytes of an image file: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000 and what else OpenCV reads.

    Args:
        data: bytes, a bytearray, a memoryview, or a uint8 array of one axis.
        channels: 3 for RGB (gray is repeated, alpha is left out and not blended in), 1 for gray, 4 for RGB and alpha
            (255 where there is none): arrays (height, width, channels) of uint8; of 16 bits the upper eight are
            kept (in TIFF to within 1).
            None for the image as it is: (height, width) if it is gray, 3 or 4 channels otherwise, uint8, uint16 or another
            dtype, such as float32, that has to be asked for in this way.
        size: makes the image smaller while it is decoded, which takes a fraction of the time, if it is a JPEG: to
            1/2, 1/4 or 1/8 of each edge (rounded up), the smallest of these, or the whole, of which the shorter edge is
            still >= size. Other formats come whole. It is not a resize: what comes out has yet to be made as large as wanted.

    Returns:
        An array of one's own, in RGB order, upright: turned and mirrored as EXIF says. Of an animation, or a file of
        several pages, the first. CMYK is converted without a colour profile.

    Raises:
        ValueError: nothing is there, it is no image, it ends too early, or its numbers are signed or floats (and `channels` is not
            None). Damage inside a JPEG that its decoder can step over (it does, with a word on stderr) cannot be noticed.

    >>> red = cv2.imencode(".png", np.array([[[0, 0, 255]]], np.uint8))[1].tobytes()  # blue, green, red
    >>> decode_image(red)
    array([[[255,   0,   0]]], dtype=uint8)
    >>> decode_image(red, channels=1).shape
    (1, 1, 1)
    >>> decode_image(red[:-9])
    Traceback (most recent call last):
    ValueError: decode_image(): data is a PNG image, but damaged or cut off (60 bytes)
    """
    _check("decode_image", channels, size)
    return _decoded(_bytes(data), channels, size, "decode_image(): data is")


def read_image(file: Any, *, channels: int | None = 3, size: int | None = None) -> np.ndarray:
    """Read an image from a file: a path, a URL (through fsspec), or a file opened for reading bytes, from where it stands.

    What comes out, `channels` and `size` are as in `decode_image`. For one component of a datapoint write
    `map_component(read_image, 0)`.

    Raises:
        OSError: the file cannot be read (FileNotFoundError, IsADirectoryError, PermissionError).
        ValueError: it holds no whole image. The message names the file.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "gray.png")
    >>> cv2.imwrite(path, np.zeros((2, 3), np.uint8))
    True
    >>> read_image(path).shape, read_image(path, channels=None).shape
    ((2, 3, 3), (2, 3))
    """
    _check("read_image", channels, size)
    return _read(file, channels, size, "read_image()")


@stage.each(where={"channels": CHANNELS, "size": SIZE})
def read_images(source: Any, *, channels: int | None = 3, size: int | None = None) -> Iterator[np.ndarray]:
    """Read files: `source` gives paths, URLs or open files, and out come their images, as `read_image` reads them.

    `read_images(files)` is a flow, `read_images()` the stage. Where a datapoint is more than a file, as [file, label]
    is, write `map_component(read_image, 0)`.

    >>> import os, tempfile
    >>> import flowfn as ff
    >>> path = os.path.join(tempfile.mkdtemp(), "gray.png")
    >>> cv2.imwrite(path, np.zeros((2, 3), np.uint8))
    True
    >>> [image.shape for image in ff.pipe([path, path], read_images(channels=1))]
    [(2, 3, 1), (2, 3, 1)]
    """
    for file in source:
        yield _read(file, channels, size, "read_images()")


def _check(function: str, channels: Any, size: Any) -> None:
    CHANNELS.check(function, "channels", channels, {})
    SIZE.check(function, "size", size, {})


def _read(file: Any, channels: int | None, size: int | None, who: str) -> np.ndarray:
    if isinstance(file, (str, bytes, os.PathLike)):
        path = os.fsdecode(file)
        with open_file(path, "rb", who=who) as opened, reading(path, f"{who}: {path} cannot be read"):
            content, name = opened.read(), path
    elif hasattr(file, "read"):
        content, name = file.read(), str(getattr(file, "name", type(file).__name__))
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise TypeError(f'{who}: file must give bytes, but {name} gave {type(content).__name__}; open it with mode="rb"')
    else:
        raise TypeError(
            f"{who}: file must be a path, a URL or a file opened for reading bytes, got {type(file).__name__}; "
            "for one component of a datapoint write map_component(read_image, index), for bytes decode_image"
        )
    return _decoded(bytes(content), channels, size, f"{who}: {name} is")


def _bytes(data: Any) -> bytes | memoryview:
    """What is given, without a copy, as something of bytes."""
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 1:
            raise TypeError(f"decode_image(): an array must be uint8 of one axis, got {data.dtype} of shape {data.shape}")
        return np.ascontiguousarray(data).data
    if isinstance(data, (str, os.PathLike)) or not isinstance(data, (bytes, bytearray, memoryview)):
        hint = "; for a path write read_image" if isinstance(data, (str, os.PathLike)) else ""
        raise TypeError(f"decode_image(): data must be bytes, or a uint8 array, got {type(data).__name__}{hint}")
    return data if isinstance(data, bytes) else memoryview(data).cast("B") if memoryview(data).contiguous else bytes(data)


def _decoded(data: bytes | memoryview, channels: int | None, size: int | None, what: str) -> np.ndarray:
    """The image in the bytes; `what` begins the message of an error, up to its verb."""
    if not len(data):
        raise ValueError(f"{what} empty (0 bytes)")
    jpeg = data[:3] == _JPEG
    if jpeg and _is_cut_off(data):
        raise ValueError(f"{what} a JPEG image that is cut off: its end is missing ({len(data)} bytes)")
    height, width, components = _jpeg_header(data) if jpeg and (size or channels is None) else (0, 0, 0)
    if channels in (1, 3):
        _check_unsigned(data, what)
    gray = channels == 1 or components == 1
    scale = next((n for n in _REDUCED if size and -(-min(height, width) // n) >= size), 1)
    if scale > 1:
        image = _imdecode(data, _REDUCED[scale][gray], channels, what)
        if not gray:
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    elif gray:
        image = _imdecode(data, cv2.IMREAD_GRAYSCALE, channels, what)
    elif channels == 3 or jpeg:
        image = _imdecode(data, cv2.IMREAD_COLOR_RGB, channels, what)
    else:
        image = _arranged(_imdecode(data, cv2.IMREAD_UNCHANGED, channels, what), _orientation(data))
    return image if channels in (None, 3) else image[:, :, None] if channels == 1 else _with_alpha(image, what)


def _imdecode(data: bytes | memoryview, flags: int, channels: int | None, what: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # sides beyond all bounds, for one
        raise ValueError(f"{what} nothing that OpenCV decodes: {str(error).strip()}") from None
    if image is not None:
        return image
    if channels is not None and (whole := cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)) is not None:
        raise _not_unsigned(whole, what)
    for name, beginning in _KNOWN.items():
        if re.match(beginning, data, re.DOTALL):
            raise ValueError(f"{what} a {name} image, but damaged or cut off ({len(data)} bytes)")
    raise ValueError(f"{what} no image that OpenCV decodes: {len(data)} bytes, which begin with {bytes(data[:_BEGINNING])!r}")


def _check_unsigned(data: bytes | memoryview, what: str) -> None:
    """Refuse what OpenCV would make uint8 of without a word: floats are cut to integers, and -1 becomes 255."""
    if _FLOATS.match(data) or (_TIFF.match(data) and _tag(data, _SAMPLE_FORMAT) == _SIGNED):
        raise _not_unsigned(_imdecode(data, cv2.IMREAD_UNCHANGED, None, what), what)


def _not_unsigned(image: np.ndarray, what: str) -> ValueError:
    return ValueError(f"{what} an image of {image.dtype}, which is not turned into uint8; channels=None gives it as it is")


def _is_cut_off(data: bytes | memoryview) -> bool:
    """Whether a JPEG has no end marker behind the last start of its data; other things may stand behind it.

    Decoders fill what is missing with gray, or with what happens to be in memory.
    """
    if data[-2:] == _END:
        return False
    content = bytes(data)
    return content.rfind(_END) <= content.rfind(_START)  # equal if there is neither


def _jpeg_header(data: bytes | memoryview) -> tuple[int, int, int]:
    """(height, width, components) of a JPEG, zeros if that cannot be told (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8], data[at + 9]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # alone, without a length
            at += 2
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return 0, 0, 0


def _orientation(data: bytes | memoryview) -> int:
    """The EXIF orientation of a PNG or WebP, which OpenCV minds unless it gives images unchanged; 1 of all else."""
    found = _EXIF.search(data) if data[:4] in (b"\x89PNG", b"RIFF") else None
    return 1 if found is None else _tag(data[found.start(1) :], _ORIENTATION) or 1


def _tag(tiff: bytes | memoryview, wanted: int) -> int | None:
    """The first of the 16-bit numbers of a tag of a TIFF, or of an EXIF block, which is one (TIFF 6.0, section 2); None without it."""
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * entries, 12):
            tag, _, count = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == wanted:  # up to two of them stand in the entry itself, more of them where it says
                place = entry + 8 if count <= 2 else struct.unpack_from(f"{order}I", tiff, entry + 8)[0]
                return int(struct.unpack_from(f"{order}H", tiff, place)[0])
    except struct.error:  # a damaged block says nothing
        pass
    return None


def _arranged(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image in OpenCV's order of colours, in ours and upright."""
    if image.ndim == 3 and image.shape[2] in (3, 4):
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    rows, columns, exchanged = _TURNS.get(orientation, (1, 1, 0))
    image = image[::rows, ::columns]
    return np.ascontiguousarray(image.swapaxes(0, 1) if exchanged else image)


def _with_alpha(image: np.ndarray, what: str) -> np.ndarray:
    """Four channels of uint8."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise _not_unsigned(image, what)
    count = 1 if image.ndim == 2 else image.shape[2]
    if count == 4:
        return image
    if count not in (1, 3):
        raise ValueError(f"{what} an image of {count} channels; channels=None gives them as they are")
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGBA if count == 1 else cv2.COLOR_RGB2RGBA)
