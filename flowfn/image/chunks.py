"""PNG and WebP: containers of named chunks, which are walked through for what OpenCV leaves out or cannot tell.

A palette is looked up by every decoder. Where what is stored is wanted, the palette is exchanged for one in which the
colour of each number is that number.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from flowfn.image.pictures import Damaged, Picture, Refused, imdecode, in_rgb, with_alpha
from flowfn.image.tags import exif_orientation

PNG = b"\x89PNG\r\n\x1a\n"
_GRAY, _INDEXED = 0, 3
_COLOUR_TYPES = {2: "RGB", 4: "gray and alpha", 6: "RGB and alpha"}
_DEFLATED = 1032
"""So many bytes at most can come of one byte that was deflated."""
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


def read_png(data: bytes) -> Picture:
    """A PNG; of an animated one what stands still: the first picture in the file."""
    chunks = list(_of_png(data))
    depth, kind = _png_header(data, chunks)
    parts = dict(chunks)
    image = imdecode(_png(part for part in chunks if part[0] not in _ANIMATION) if b"acTL" in parts else data)
    if image is None:
        raise _broken_png(data, chunks)
    most = (1 << depth) - 1
    if kind == _GRAY and b"tRNS" in parts and image.ndim == 2:  # one shade of gray is transparent
        shade = int.from_bytes(parts[b"tRNS"][:2], "big") & most
        largest = 0xFFFF if depth == 16 else 255
        image = with_alpha(image, np.where(image == shade * largest // most, 0, largest).astype(image.dtype))
    else:
        image = in_rgb(image)
    return Picture(image, max(most, 255)).turned(exif_orientation(parts.get(b"eXIf", b"")))


def numbers_of_png(data: bytes) -> np.ndarray:
    """The indices of a palette, or the numbers of a gray image, as they are stored: (height, width)."""
    chunks = list(_of_png(data))
    depth, kind = _png_header(data, chunks)
    if kind not in (_GRAY, _INDEXED):
        raise Refused(
            f"a PNG image of {_COLOUR_TYPES.get(kind, 'an unknown kind')}, which has no palette; decode_image gives "
            "its colours"
        )
    parts, most = dict(chunks), (1 << depth) - 1
    if kind == _INDEXED:
        own = bytes(np.repeat(np.arange(most + 1, dtype=np.uint8), 3))
        shown = _png(
            (name, own if name == b"PLTE" else part) for name, part in chunks if name not in (*_ANIMATION, b"tRNS")
        )
    else:
        shown = _png(part for part in chunks if part[0] not in (*_ANIMATION, b"tRNS"))
    image = imdecode(shown)
    if image is None:
        raise _broken_png(data, chunks)
    stored = np.ascontiguousarray(image[:, :, 0]) if image.ndim == 3 else image
    if kind == _GRAY and depth < 8:
        stored = stored // np.uint8(255 // most)
    return Picture(stored).turned(exif_orientation(parts.get(b"eXIf", b""))).values


def read_webp(data: bytes) -> Picture:
    """A WebP; of an animated one the first picture."""
    end = 8 + struct.unpack_from("<I", data, 4)[0] if len(data) >= 8 else 0
    if end > len(data) + 1:  # a byte that fills up may be missing
        raise Damaged
    image = imdecode(data)
    if image is None:
        raise Damaged
    at, orientation = 12, 0
    while at + 8 <= min(end, len(data)) and not orientation:
        (size,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    return Picture(in_rgb(image)).turned(orientation)


def _of_png(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of its chunks, up to the end."""
    at = len(PNG)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        if at + 12 + size > len(data):
            break
        yield name, data[at + 8 : at + 8 + size]
        if name == b"IEND":
            return
        at += 12 + size
    raise Damaged


def _png_header(data: bytes, parts: list[tuple[bytes, bytes]]) -> tuple[int, int]:
    """Bits of a number, and what the numbers are.

    Raises:
        Damaged: no data of this length can be unpacked to an image of these sides (memory would be
            taken for it all the same).
    """
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    packed = sum(len(content) for name, content in parts if name in (b"IDAT", b"fdAT"))
    if width * height * depth // 8 > packed * _DEFLATED:
        raise Damaged
    return depth, kind


def _png(parts: Iterator[tuple[bytes, bytes]]) -> bytes:
    """A file of these chunks."""
    return PNG + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
        for name, content in parts
    )


def _broken_png(data: bytes, parts: list[tuple[bytes, bytes]]) -> Refused:
    if _png(iter(parts)) == data[: len(_png(iter(parts)))] and _unzips(
        b"".join(part for name, part in parts if name == b"IDAT")
    ):
        return Refused(
            f"a whole PNG image, but of a kind that OpenCV {cv2.__version__} does not decode; Pillow may read it"
        )
    return Damaged()


def _unzips(packed: bytes) -> bool:
    unpacker, at = zlib.decompressobj(), packed
    try:
        while at and not unpacker.eof:  # in pieces: it may be of any size
            unpacker.decompress(at, 1 << 20)
            at = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return unpacker.eof
