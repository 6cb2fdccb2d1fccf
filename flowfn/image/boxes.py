"""AVIF and JPEG 2000: boxes, which say how the picture is turned, how many bits a number has,
and what its channels are.

Sources: ISO/IEC 23008-12 (HEIF) and 14496-12; ISO/IEC 15444-1, annexes A and I. OpenCV decodes what is in the boxes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import cv2
import numpy as np

from flowfn.image.pictures import Damaged, Picture, Refused, imdecode, in_rgb

AVIF = re.compile(rb"....ftyp(?:avi[fs]|.{8}(?:.{4})*?avi[fs])", re.DOTALL)
_SIGNATURE, _STREAM = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
_WHOLE_BOXES = (b"meta", b"mdat", b"moov", b"iprp", b"ipco", b"ipma", b"jp2h", b"jp2c")
"""Boxes that have to be whole; what is behind them may be no box."""
_SRGB, _GRAYSCALE, _SYCC = 16, 17, 18


def is_jpeg2000(data: bytes) -> bool:
    """Whether these bytes begin as one, in boxes or without."""
    return data.startswith((_SIGNATURE, _STREAM))


def read_avif(data: bytes) -> Picture:
    """An AVIF as its boxes have it: cut out, turned, mirrored."""
    properties, bits = _properties(data)
    image = imdecode(data)
    if image is None:
        raise _unfit("an AVIF image", data, "an AV1 image")
    image = in_rgb(image)
    for name, content in properties:
        if name == b"clap":
            image = _cut_out(image, content)
        elif name == b"irot":  # so many quarters against the clock
            image = np.rot90(image, content[0] & 3)
        elif name == b"imir":
            image = image[:, ::-1] if content[0] & 1 else image[::-1]
    return Picture(np.ascontiguousarray(image), (1 << bits) - 1)


def _properties(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """What is said of the picture, in the order in which it is to be carried out, and the bits of its numbers."""
    parts = dict(_boxes(data, 0, len(data)))
    if b"meta" in parts:
        return _of_meta(data, parts[b"meta"])
    return [], 8 if not (found := re.search(rb"av1C\x81.(.)", data, re.DOTALL)) else _av1_bits(found[1])


def _of_meta(data: bytes, inside: tuple[int, int]) -> tuple[list[tuple[bytes, bytes]], int]:
    parts = dict(_boxes(data, inside[0] + 4, inside[1]))
    if b"pitm" not in parts or b"iprp" not in parts:
        return [], 8
    at = parts[b"pitm"][0]
    primary = struct.unpack_from(">I" if data[at] else ">H", data, at + 4)[0]
    about = list(_boxes(data, *parts[b"iprp"]))
    properties = [
        (kind, data[start:end])
        for name, place in about
        if name == b"ipco"
        for kind, (start, end) in _boxes(data, *place)
    ]
    used = [
        properties[index - 1]
        for name, place in about
        if name == b"ipma"
        for index in _associated(data, place, primary)
        if index
    ]
    configured = [_av1_bits(content[2:3]) for kind, content in [*used, *properties] if kind == b"av1C"]
    depths = [content[5] for kind, content in used if kind == b"pixi"]
    return used, (depths or configured or [8])[0]


def _associated(data: bytes, place: tuple[int, int], primary: int) -> Iterator[int]:
    """The numbers of the properties of the primary item."""
    at = place[0]
    version, wide = data[at], data[at + 3] & 1
    (items,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(items):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count, at = data[at], at + 1
        for entry in struct.unpack_from(f">{count}{'H' if wide else 'B'}", data, at):
            if item == primary:
                yield entry & (0x7FFF if wide else 0x7F)
        at += count * (2 if wide else 1)


def _av1_bits(configured: bytes) -> int:
    """Of the third byte of the configuration of AV1."""
    return 8 if not configured[0] & 0x40 else 12 if configured[0] & 0x20 else 10


def _cut_out(image: np.ndarray, content: bytes) -> np.ndarray:
    """A clean aperture: width, height, and how far its middle is off the image's, each as two numbers to be divided."""
    wide, by, high, of, x, x_by, y, y_by = struct.unpack(">8i", content[:32])
    width, height = wide / by, high / of
    left, top = (image.shape[1] - width) / 2 + x / x_by, (image.shape[0] - height) / 2 + y / y_by
    if any(number % 1 for number in (width, height, left, top)) or min(left, top) < 0:
        raise Refused(
            f"an AVIF image of which {width} x {height} pixels from {left}, {top} on are to be seen, parts of pixels; "
            "crop it anew"
        )
    return image[int(top) : int(top + height), int(left) : int(left + width)]


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Kinds of boxes, and where their contents begin and end; what is no box ends them."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        stop = at + size if size else end
        if stop > end or (size and size < head):
            if kind in _WHOLE_BOXES:
                raise Damaged
            return
        yield kind, (at + head, stop)
        at = stop


# JPEG 2000


def read_jpeg2000(data: bytes) -> Picture:
    """A JPEG 2000 image of 8 to 16 bits, gray or of three colours, perhaps with alpha."""
    start, space = (0, 0) if data.startswith(_STREAM) else _of_boxes(data)
    components = _components(data, start)
    count, (sign, bits) = len(components), components[0][0]
    if len(set(components)) > 1 or sign or not 8 <= bits <= 16 or count not in (1, 3, 4):
        told = ", ".join(
            f"{'signed ' * sign}{bits} bits, 1/{across} x 1/{down}" for (sign, bits), across, down in components[:5]
        )
        raise Refused(
            f"a JPEG 2000 image of {count} components ({told}), which OpenCV does not decode as it is; imagecodecs "
            "reads it"
        )
    if space not in (0, _SRGB, _GRAYSCALE):
        name = {_SYCC: "video's colours (sYCC)", 12: "CMYK", 14: "CIE L*a*b*"}.get(space, f"colour space {space}")
        raise Refused(f"a JPEG 2000 image in {name}; make RGB of it first (glymur and imagecodecs read it)")
    image = imdecode(data)
    if image is None or (1 if image.ndim == 2 else image.shape[2]) != count:
        raise _unfit("a JPEG 2000 image", data, f"{count} components of {bits} bits")
    return Picture(in_rgb(image), (1 << bits) - 1)


def _of_boxes(data: bytes) -> tuple[int, int]:
    """Where the image begins, and its colour space by number (0 where none is given, or a profile)."""
    boxes = dict(_boxes(data, 0, len(data)))
    if b"jp2h" not in boxes or b"jp2c" not in boxes:
        raise Damaged
    inside = list(_boxes(data, *boxes[b"jp2h"]))
    for kind, (start, _) in inside:
        if kind == b"pclr":
            raise Refused("a JPEG 2000 image with a palette; write it as PNG")
        if kind == b"cdef" and not _colors_in_order(data, start):
            raise Refused(
                "a JPEG 2000 image whose channels are in another order than red, green, blue, alpha; imagecodecs "
                "reads it"
            )
    spaces = [start for kind, (start, _) in inside if kind == b"colr" and data[start] == 1]
    return boxes[b"jp2c"][0], struct.unpack_from(">I", data, spaces[0] + 3)[0] if spaces else 0


def _colors_in_order(data: bytes, start: int) -> bool:
    """Whether channels are colours in their order, and then alpha that colours are not multiplied by."""
    (count,) = struct.unpack_from(">H", data, start)
    told = sorted(struct.unpack_from(">HHH", data, start + 2 + 6 * number) for number in range(count))
    return all(
        (kind == 0 and which == channel + 1) or (kind == 1 and channel == count - 1) for channel, kind, which in told
    )


def _components(data: bytes, start: int) -> list[tuple[tuple[int, int], int, int]]:
    """Sign, bits and subsampling of each component."""
    if data[start : start + 4] != _STREAM:
        raise Damaged
    (count,) = struct.unpack_from(">H", data, start + 40)
    found = [struct.unpack_from("BBB", data, start + 42 + 3 * number) for number in range(count)]
    if not found:
        raise Damaged
    return [((depth >> 7, (depth & 0x7F) + 1), across, down) for depth, across, down in found]


def _unfit(name: str, data: bytes, what: str) -> Refused:
    version = cv2.__version__
    return Refused(
        f"{name}, but damaged inside, or OpenCV {version} does not decode its kind: {what} ({len(data)} bytes)"
    )
