"""Images out of files and bytes: RGB, upright, and whole, or an error that says what is wrong with which file.

OpenCV decodes. What it leaves open, or makes up, is decided by what the container says,
which a reader of ours for each kind asks
first: an image that has been cut off is an error and never half a picture, the rotation that a camera noted down is
carried out whatever is asked for, the order of colours is always red, green, blue, and what cannot be right is refused
for what it is.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from flowfn import rules
from flowfn.flows.stages import stage
from flowfn.image import bitmaps, boxes, chunks, jpegs, netpbm, tags, tiffs
from flowfn.image.pictures import Damaged, Picture, Refused, imdecode, in_rgb, upright
from flowfn.storage.damage import reading
from flowfn.storage.files import open_file

CHANNELS = rules.Rule(
    "1, 3, 4 or None",
    lambda value: value is None or rules.is_integer(value),
    lambda value, others: value in (None, 1, 3, 4),
)
_OPTIONS = {"channels": CHANNELS, "size": rules.optional(rules.positive)}
_REDUCED = {
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
}
_BEGINNING = 24
"""How many bytes of what is no image are shown."""
_ELSEWHERE = {
    "a HEIC image": (rb"....ftyp(?:hei|hev|mif1|msf1)", "pillow-heif reads it"),
    "a JPEG XL image": (rb"\xff\x0a|\0\0\0\x0cJXL ", "imagecodecs reads it"),
    "an OpenEXR image": (rb"v/1\x01", "the package OpenEXR reads it"),
    "a Photoshop image": (rb"8BPS", "psd-tools reads it"),
    "an icon": (rb"\0\0[\1\2]\0", "Pillow reads it"),
    "a JPEG XR image": (rb"II\xbc", "imagecodecs reads it"),
    "a PDF": (rb"%PDF", "make images of its pages first"),
    "a drawing (SVG)": (rb"\s*(?:<\?xml[^>]*>\s*)?<svg", "make an image of it first"),
}
"""What is an image, but none of OpenCV's."""


@dataclass(frozen=True)
class Container:
    """A kind of file: its name, how it begins, what reads it,
    and what reads the numbers that are labels, if it can hold any."""

    name: str
    begins: Callable[[bytes], Any]
    read: Callable[[bytes], Picture]
    numbers: Callable[[bytes], np.ndarray] | None = None

    def asked(self, read: Callable[[bytes], Any], data: bytes) -> Any:
        """What one of its readers makes of the bytes. Whatever it stumbles over is damage."""
        try:
            return read(data)
        except (ValueError, LookupError, ArithmeticError, MemoryError, struct.error) as error:
            if isinstance(error, Refused) and not isinstance(error, Damaged):
                raise
            raise Refused(f"{self.name}, but damaged or cut off ({len(data)} bytes)") from error


_CONTAINERS = (
    Container("a PNG image", lambda data: data.startswith(chunks.PNG), chunks.read_png, chunks.numbers_of_png),
    Container("a TIFF image", tags.is_tiff, tiffs.read_tiff, tiffs.numbers_of_tiff),
    Container("a WebP image", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", chunks.read_webp),
    Container("a GIF image", lambda data: data[:6] in (b"GIF87a", b"GIF89a"), bitmaps.read_gif, bitmaps.numbers_of_gif),
    Container("a BMP image", lambda data: data[:2] == b"BM", bitmaps.read_bmp, bitmaps.numbers_of_bmp),
    Container("an AVIF image", boxes.AVIF.match, boxes.read_avif),
    Container("a JPEG 2000 image", boxes.is_jpeg2000, boxes.read_jpeg2000),
    Container("a portable map (Netpbm)", netpbm.BEGINNING.match, netpbm.read_netpbm, netpbm.numbers_of_netpbm),
)
"""All but JPEG, which is decoded by ways of its own, and what OpenCV alone knows."""


@rules.checked(**_OPTIONS)
def decode_image(data: Any, *, channels: int | None = 3, size: int | None = None) -> np.ndarray:
    """Decode the bytes of an image file: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000,
    Netpbm and what else OpenCV reads.

    For the labels of a mask, which in files with a palette are not the colours, there is `decode_mask`.

    Args:
        data: bytes, a bytearray, a memoryview, or a uint8 array of one axis.
        channels: 3 for RGB (gray is repeated, alpha is left out and not blended in), 1 for gray, 4 for RGB and alpha
            (255 where there is none): arrays (height, width, channels) of uint8; of 16 bits the upper eight are
            kept, fewer are made 0 to 255.
            None for the image as it is: (height, width) if it is gray, 3 or 4 channels otherwise (in TIFF and PAM as
            many bands as there are), uint8, uint16 (numbers of 9 to 15 bits as they are) or another dtype, such as
            float32, that has to be asked for in this way.
        size: makes the image smaller while it is decoded, which takes a fraction of the time, if it is a JPEG: to
            1/2, 1/4 or 1/8 of each edge (rounded up), the smallest of these, or the whole, of which the shorter edge is
            still >= size. Other formats come whole. It is not a resize:
            what comes out has yet to be made as large as wanted.

    Returns:
        An array of one's own, in RGB order, upright: turned and mirrored as EXIF, or AVIF's boxes, say. Of an
        animation, or a file of several pages, the first (no thumbnail). CMYK is converted without a colour profile.
        Colours that are stored multiplied by their alpha are divided by it. What lies behind the end of a JPEG, a film
        or a preview, is left alone.

    Raises:
        ValueError: nothing is there, it is no image, it ends too early, it is of a kind that cannot be read as it is
            meant, which is named, or its numbers are signed, floats, or bands without colours (and `channels` is not
            None). Damage inside a JPEG that its decoder can step over (it does, with a word on stderr) cannot be
            noticed.

    >>> red = cv2.imencode(".png", np.array([[[0, 0, 255]]], np.uint8))[1].tobytes()  # blue, green, red
    >>> decode_image(red)
    array([[[255,   0,   0]]], dtype=uint8)
    >>> decode_image(red, channels=1).shape
    (1, 1, 1)
    >>> decode_image(red[:-9])
    Traceback (most recent call last):
    ValueError: decode_image(): data is a PNG image, but damaged or cut off (60 bytes)
    """
    return _whole_image(_image_bytes(data, "decode_image()", "read_image"), channels, size, "decode_image(): data is")


@rules.checked(**_OPTIONS)
def read_image(file: Any, *, channels: int | None = 3, size: int | None = None) -> np.ndarray:
    """Read an image from a file: a path, a URL (through fsspec),
    or a file opened for reading bytes, from where it stands.

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
    return _image_from(file, channels, size, "read_image()")


@stage.each(where=_OPTIONS)
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
        yield _image_from(file, channels, size, "read_images()")


def decode_mask(data: Any) -> np.ndarray:
    """Decode the labels in the bytes of a mask's file: for each pixel the number that is stored, and not its colour.

    Masks of PASCAL VOC, DAVIS, ADE20K and their like are images with a palette: what is stored for a pixel is an index,
    its label, and the palette has the colours in which a person is to see it. In gray images the number is the label
    itself.

    Args:
        data: bytes, a bytearray, a memoryview, or a uint8 array of one axis, of a PNG, GIF, BMP or TIFF (of 1, 2, 4, 8
            or more bits), or a portable graymap or bitmap (Netpbm).

    Returns:
        An array (height, width) of one's own, upright, of the integers in the file: uint8,
        or uint16 and others where they are larger.

    Raises:
        ValueError: as in `decode_image`; or an image whose pixels are several numbers or floats, or of a kind without
            palettes, which changes numbers (JPEG), so that they are no labels any more.

    >>> voc = cv2.imencode(".png", np.array([[0, 15, 255]], np.uint8))[1]
    >>> decode_mask(voc)
    array([[  0,  15, 255]], dtype=uint8)
    """
    return _labels(_image_bytes(data, "decode_mask()", "read_mask"), "decode_mask(): data is")


def read_mask(file: Any) -> np.ndarray:
    """Read the labels of a mask from a file: a path, a URL, or a file opened for reading bytes; see `decode_mask`.

    For datapoints [image file, mask file] write `map_component(read_image, 0)` and `map_component(read_mask, 1)`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no labels. The message names the file.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "mask.png")
    >>> cv2.imwrite(path, np.array([[0, 1], [2, 255]], np.uint8))
    True
    >>> read_mask(path).tolist()
    [[0, 1], [2, 255]]
    """
    content, name = _file_content(file, "read_mask()", "read_mask", "decode_mask")
    return _labels(content, f"read_mask(): {name} is")


def _image_from(file: Any, channels: int | None, size: int | None, who: str) -> np.ndarray:
    content, name = _file_content(file, who, "read_image", "decode_image")
    return _whole_image(content, channels, size, f"{who}: {name} is")


def _file_content(file: Any, who: str, function: str, of_bytes: str) -> tuple[bytes, str]:
    """The bytes of a file, and its name."""
    if isinstance(file, (str, bytes, os.PathLike)):
        path = os.fsdecode(file)
        with open_file(path, "rb", who=who) as opened, reading(path, f"{who}: {path} cannot be read"):
            return bytes(opened.read()), path
    if not hasattr(file, "read"):
        raise TypeError(
            f"{who}: file must be a path, a URL or a file opened for reading bytes, got {type(file).__name__}; "
            f"for one component of a datapoint write map_component({function}, index), for bytes {of_bytes}"
        )
    content, name = file.read(), str(getattr(file, "name", type(file).__name__))
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(
            f'{who}: file must give bytes, but {name} gave {type(content).__name__}; open it with mode="rb"'
        )
    return bytes(content), name


def _image_bytes(data: Any, who: str, of_path: str) -> bytes | memoryview:
    """What is given, without a copy, as something of bytes."""
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 1:
            raise TypeError(f"{who}: an array must be uint8 of one axis, got {data.dtype} of shape {data.shape}")
        return np.ascontiguousarray(data).data
    if isinstance(data, (str, os.PathLike)) or not isinstance(data, (bytes, bytearray, memoryview)):
        hint = f"; for a path write {of_path}" if isinstance(data, (str, os.PathLike)) else ""
        raise TypeError(f"{who}: data must be bytes, or a uint8 array, got {type(data).__name__}{hint}")
    return (
        data if isinstance(data, bytes) else memoryview(data).cast("B") if memoryview(data).contiguous else bytes(data)
    )


def _whole_image(data: bytes | memoryview, channels: int | None, size: int | None, what: str) -> np.ndarray:
    """The image in the bytes; `what` begins the message of an error, up to its verb."""
    try:
        if data[: len(jpegs.JPEG_START)] == jpegs.JPEG_START:
            return _of_jpeg(data, channels, size)
        content = bytes(data)
        found = _container(content)
        picture = found.asked(found.read, content) if found else _of_opencv(content)
        return picture.channels(channels)
    except Refused as refused:
        raise ValueError(f"{what} {refused}") from refused.__cause__


def _labels(data: bytes | memoryview, what: str) -> np.ndarray:
    try:
        found = _container(content := bytes(data))
        if found and found.numbers:
            return np.asarray(found.asked(found.numbers, content))
        if not found and data[: len(jpegs.JPEG_START)] != jpegs.JPEG_START:
            _of_opencv(content)  # which says what it is, if it is none
        raise Refused(
            "an image of a kind that has no palette, or keeps numbers only roughly, so that there are no labels in it; "
            "write masks as PNG, and read the colours of this one by decode_image or read_image"
        )
    except Refused as refused:
        raise ValueError(f"{what} {refused}") from refused.__cause__


def _container(data: bytes) -> Container | None:
    if not data:
        raise Refused("empty (0 bytes)")
    return next((kind for kind in _CONTAINERS if kind.begins(data)), None)


def _of_jpeg(data: bytes | memoryview, channels: int | None, size: int | None) -> np.ndarray:
    """A JPEG, which may be made smaller, and gray or RGB, while it is decoded."""
    frame = jpegs.frame(data)
    gray = channels == 1 or (channels is None and frame.components == 1)
    scale = next((n for n in _REDUCED if size and -(-min(frame.height, frame.width) // n) >= size), 1)
    flags = _REDUCED[scale][gray] if scale > 1 else cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    image = imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise Refused(f"a JPEG image, but damaged ({len(data)} bytes)")
    image = upright(in_rgb(image), frame.orientation)
    return image if channels in (None, 3) else Picture(image).channels(channels)


def _of_opencv(data: bytes) -> Picture:
    """What only OpenCV knows: Radiance's images, rasters of Sun."""
    kinds = (
        f"{name}, which OpenCV {cv2.__version__} does not decode; {instead}"
        for name, (beginning, instead) in _ELSEWHERE.items()
        if re.match(beginning, data, re.DOTALL)
    )
    other = next(kinds, "")
    try:
        image = imdecode(data)
    except Refused as refused:
        raise (Refused(other) if other else refused) from None
    if image is not None:
        return Picture(in_rgb(image))
    if other:
        raise Refused(other)
    if data.startswith(b"#?R"):
        known = b"32-bit_rle_xyze" not in data[:1000] and re.search(rb"\n-Y \d+ \+X \d+\n", data[:5000])
        kind = (
            "but damaged or cut off"
            if known
            else "but of colours (XYZ) or an order of rows that OpenCV does not decode"
        )
        raise Refused(f"a Radiance image, {kind} ({len(data)} bytes)")
    raise Refused(f"no image that OpenCV decodes: {len(data)} bytes, which begin with {data[:_BEGINNING]!r}")
