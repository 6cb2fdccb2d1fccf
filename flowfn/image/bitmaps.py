"""GIF and BMP: indices, the palettes to look them up in, and the numbers of BMP's masks of bits.

OpenCV unpacks what is compressed, shown a palette in which the colour of each index is that index.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np

from flowfn.image.pictures import Damaged, Picture, Refused, imdecode, of_eight_bits, with_alpha

_LARGEST = 1 << 28
_INDEX_PALETTE = bytes(np.repeat(np.arange(256, dtype=np.uint8), 3))


# GIF


@dataclass(frozen=True)
class Gif:
    """The first picture of a GIF: where it lies on the canvas, its indices, their colours,
    and which of them is transparent."""

    canvas: tuple[int, int]
    place: tuple[int, int]
    indices: np.ndarray
    palette: np.ndarray
    background: int
    transparent: int

    @property
    def fills(self) -> bool:
        """Whether the picture fills the canvas."""
        return (
            self.place == (0, 0) and self.indices.shape[0] >= self.canvas[0] and self.indices.shape[1] >= self.canvas[1]
        )


def read_gif(data: bytes) -> Picture:
    """The first picture of a GIF on its canvas, transparent where nothing is."""
    gif = _gif(data)
    colours = gif.palette[gif.indices]
    if gif.transparent < 0 and gif.fills:
        return Picture(colours)
    seen = with_alpha(colours, np.where(gif.indices == gif.transparent, 0, 255).astype(np.uint8))
    if gif.fills:
        return Picture(seen)
    if gif.canvas[0] * gif.canvas[1] > _LARGEST:
        raise Refused(
            f"a GIF image with a small picture on a canvas of {gif.canvas[1]} x {gif.canvas[0]}, which would take "
            "gigabytes"
        )
    canvas = np.empty((*gif.canvas, 4), np.uint8)
    canvas[:] = (*gif.palette[gif.background], 0)
    top, left = gif.place
    part = canvas[top : top + seen.shape[0], left : left + seen.shape[1]]
    part[:] = seen[: part.shape[0], : part.shape[1]]
    return Picture(canvas)


def numbers_of_gif(data: bytes) -> np.ndarray:
    """The indices of the first picture: (height, width)."""
    gif = _gif(data)
    if not gif.fills:
        raise Refused(
            "a GIF image whose first picture leaves a part of the canvas empty, which has no indices; decode_image "
            "reads it"
        )
    return gif.indices


def _gif(data: bytes) -> Gif:
    width, height, flags, background = struct.unpack_from("<HHBB", data, 6)
    at = 13
    palette, at = _color_table(data, at, flags)
    transparent, first = -1, None
    while data[at] != 0x3B:
        if data[at] == 0x21 and data[at + 1] == 0xF9 and first is None and data[at + 3] & 1:
            transparent = data[at + 6]
        elif data[at] == 0x2C and first is None:
            left, top, wide, high, about = struct.unpack_from("<HHHHB", data, at + 1)
            palette, start = _color_table(data, at + 10, about) if about & 0x80 else (palette, at + 10)
            first = (top, left), (high, wide), about & 0x40, data[start : _behind_pieces(data, start + 1)]
        elif data[at] not in (0x21, 0x2C):
            raise Damaged
        at = _next(data, at)
    if first is None or not len(palette):
        raise Refused("a GIF image without a picture or without colours in it")
    place, (high, wide), interlaced, packed = first
    screen = struct.pack("<HHBBB", wide, high, 0xF7, 0, 0)
    image = imdecode(
        b"GIF89a" + screen + _INDEX_PALETTE + b"," + struct.pack("<HHHHB", 0, 0, wide, high, interlaced) + packed + b";"
    )
    if image is None:
        raise Refused(
            f"a GIF image, but damaged, or OpenCV {cv2.__version__} is one that reads no GIF ({len(data)} bytes); "
            "Pillow does"
        )
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    return Gif(
        (height or high, width or wide), place, np.ascontiguousarray(image[:, :, 0]), colours, background, transparent
    )


def _color_table(data: bytes, at: int, flags: int) -> tuple[np.ndarray, int]:
    """The colours that begin here, if there are any, and what is behind them."""
    size = 2 << (flags & 7) if flags & 0x80 else 0
    if at + 3 * size > len(data):
        raise Damaged
    return np.frombuffer(data, np.uint8, 3 * size, at).reshape(-1, 3), at + 3 * size


def _next(data: bytes, at: int) -> int:
    """Behind the block that begins here."""
    if data[at] == 0x21:
        return _behind_pieces(data, at + 2)
    flags = data[at + 9]
    return _behind_pieces(data, at + 11 + (6 << (flags & 7) if flags & 0x80 else 0))


def _behind_pieces(data: bytes, at: int) -> int:
    """Behind the pieces that begin here, each with its length before it, up to an empty one."""
    while data[at]:
        at += data[at] + 1
    return at + 1


# BMP

_UNCOMPRESSED, _RLE8, _RLE4, _MASKS, _MASKS_WITH_ALPHA = 0, 1, 2, 3, 6
_OTHER_COMPRESSIONS = {4: "a JPEG", 5: "a PNG", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
_USUAL = {16: (0x7C00, 0x3E0, 0x1F, 0), 24: (0xFF0000, 0xFF00, 0xFF, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


@dataclass(frozen=True)
class Bmp:
    """What the headers of a BMP say."""

    data: bytes
    width: int
    height: int
    upwards: bool
    bits: int
    compression: int
    masks: tuple[int, ...]
    palette: np.ndarray
    start: int


def read_bmp(data: bytes) -> Picture:
    """A BMP: gray where the palette is the 256 grays in their order, as writers of gray images have it."""
    bmp = _bmp(data)
    if bmp.bits > 8:
        return Picture(_colours(bmp))
    stored = _indices(bmp)
    if len(bmp.palette) == 256 and (bmp.palette == np.arange(256)[:, None]).all():
        return Picture(stored)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(bmp.palette)] = bmp.palette
    return Picture(colours[stored])


def numbers_of_bmp(data: bytes) -> np.ndarray:
    """The indices of a BMP with a palette: (height, width)."""
    bmp = _bmp(data)
    if bmp.bits > 8:
        raise Refused(f"a BMP image of {bmp.bits} bits, which has no palette; decode_image gives its colours")
    return _indices(bmp)


def _bmp(data: bytes) -> Bmp:
    start, size = struct.unpack_from("<II", data, 10)
    compression, used, masks, at, each = _UNCOMPRESSED, 0, (), 14 + size, 4
    if size == 12:  # of OS/2, with three bytes a colour
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        each = 3
    else:
        width, height, _, bits, compression, _, _, _, used = struct.unpack_from("<iiHHIIiiI", data, 18)
        if compression in (_MASKS, _MASKS_WITH_ALPHA):
            count = 4 if size >= 56 or compression == _MASKS_WITH_ALPHA else 3
            masks = struct.unpack_from(f"<{count}I", data, 54)
            at += 4 * count if size == 40 else 0
    if compression not in (_UNCOMPRESSED, _RLE8, _RLE4, _MASKS, _MASKS_WITH_ALPHA):
        held = _OTHER_COMPRESSIONS.get(compression, f"data of kind {compression}")
        raise Refused(f"a BMP image that holds {held}, which is not read; write it as PNG")
    if bits not in (1, 2, 4, 8, 16, 24, 32) or width <= 0 or not height or (compression in (_RLE8, _RLE4) and bits > 8):
        raise Damaged
    palette = _colours_from(data, at, min(used or 1 << bits, 256, max(start - at, 0) // each) if bits <= 8 else 0, each)
    return Bmp(
        data,
        width,
        abs(height),
        height > 0,
        bits,
        compression,
        (*masks, 0)[:4] if masks else _USUAL.get(bits, ()),
        palette,
        start,
    )


def _colours_from(data: bytes, at: int, count: int, each: int) -> np.ndarray:
    """So many colours, of three or four bytes, as RGB."""
    if at + count * each > len(data):
        raise Damaged
    return np.frombuffer(data, np.uint8, count * each, at).reshape(-1, each)[:, 2::-1]


def _indices(bmp: Bmp) -> np.ndarray:
    if bmp.compression in (_RLE8, _RLE4):
        return _from_runs(bmp)
    rows = _pixel_rows(bmp, -(-bmp.width * bmp.bits // 8))
    if bmp.bits == 8:
        return np.ascontiguousarray(rows)
    bits = np.unpackbits(rows, axis=1, count=bmp.width * bmp.bits).reshape(bmp.height, bmp.width, bmp.bits)
    return (bits @ (1 << np.arange(bmp.bits - 1, -1, -1))).astype(np.uint8)


def _from_runs(bmp: Bmp) -> np.ndarray:
    """What is compressed by the lengths of runs."""
    palette = np.zeros((256 if bmp.bits == 8 else 16, 4), np.uint8)
    palette[:, :3] = np.arange(len(palette))[:, None]
    body, start = bmp.data[bmp.start :], 54 + palette.size
    about = (40, bmp.width, bmp.height, 1, bmp.bits, bmp.compression, len(body), 0, 0, len(palette), 0)
    image = imdecode(
        b"BM"
        + struct.pack("<IHHI", start + len(body), 0, 0, start)
        + struct.pack("<IiiHHIIiiII", *about)
        + palette.tobytes()
        + body
    )
    if image is None:
        raise Damaged
    return np.ascontiguousarray(image[:, :, 0]) if image.ndim == 3 else image


def _colours(bmp: Bmp) -> np.ndarray:
    """RGB, or RGBA where there is a mask of alpha."""
    rows = _pixel_rows(bmp, bmp.width * bmp.bits // 8)
    if bmp.bits == 24:
        return np.ascontiguousarray(rows.reshape(bmp.height, bmp.width, 3)[:, :, ::-1])
    pixels = np.ascontiguousarray(rows).view(f"<u{bmp.bits // 8}").astype(np.uint32)
    masks = bmp.masks if bmp.masks[3] else bmp.masks[:3]
    return np.dstack([_masked(pixels, mask) for mask in masks])


def _masked(pixels: np.ndarray, mask: int) -> np.ndarray:
    """The bits of a mask, which are together, as numbers from 0 to 255."""
    low = (mask & -mask).bit_length() - 1 if mask else 0
    most = mask >> low
    if most & (most + 1) or not most:
        raise Refused(f"a BMP image with the mask {mask:#x}, whose bits do not lie together; write it as PNG")
    values = (pixels & np.uint32(mask)) >> np.uint32(low)
    return of_eight_bits(values, most) if most < 255 else (values >> np.uint32(most.bit_length() - 8)).astype(np.uint8)


def _pixel_rows(bmp: Bmp, width: int) -> np.ndarray:
    """Its rows of so many bytes, the uppermost first."""
    each = -(-bmp.width * bmp.bits // 32) * 4
    if bmp.start + each * (bmp.height - 1) + width > len(bmp.data):
        raise Damaged
    body = bmp.data[bmp.start : bmp.start + each * bmp.height].ljust(each * bmp.height, b"\0")
    rows = np.frombuffer(body, np.uint8).reshape(bmp.height, each)[:, :width]
    return rows[::-1] if bmp.upwards else rows
