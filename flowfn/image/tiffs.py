"""TIFF: the numbers as they are stored, and what its tags say they mean (TIFF 6.0, its technical notes, and BigTIFF).

A TIFF can hold nearly anything, and decoders make a picture of it all: of several bands the first is left, planes apart
come out mixed up, colours multiplied by alpha. So a decoder (OpenCV's libtiff) only unpacks here: it is shown each
strip or tile as a gray image of bytes, and what the bytes are is read out of the tags.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flowfn.image.pictures import Damaged, Picture, Refused, imdecode, in_rgb, of_eight_bits, undone, with_alpha
from flowfn.image.tags import ORIENTATION, Tags

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION_SCHEME, _PHOTOMETRIC, _FILL = 254, 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _COLORMAP, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 317, 320, 322, 323, 324, 325
_INKS, _EXTRA_SAMPLES, _FORMAT, _DEPTH = 332, 338, 339, 32997
_OF_THE_CODER = (_FILL, 292, 293, 347)
"""Tags that whoever unpacks the bytes has to know too: the order of bits, options of faxes, tables of JPEG."""
_FAXES, _JPEG, _BYTEWISE, _LOGS = (2, 3, 4), 7, (1, 5, 8, 32773, 32946), (34676, 34677)
_COMPRESSIONS = {
    6: "old JPEG",
    **dict.fromkeys((22610, 34934), "JPEG XR"),
    **dict.fromkeys((33003, 33005, 34712), "JPEG 2000"),
    34661: "JBIG",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    **dict.fromkeys((34927, 50001), "WebP"),
    **dict.fromkeys((50002, 52546), "JPEG XL"),
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LUV = 0, 1, 2, 3, 5, 6, (32844, 32845)
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4}
_OTHER_PHOTOMETRICS = {
    4: "which is a mask of transparency",
    8: "in colours of CIE L*a*b*",
    9: "in colours of ICC L*a*b*",
    10: "in colours of ITU L*a*b*",
    32803: "of the mosaic that a camera's sensor saw",
    34892: "of linear raw values of a camera",
}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_AT_ONCE = 1 << 28
"""So many bytes are unpacked at once, in at most `_ROWS_AT_ONCE` rows:
OpenCV takes no image larger than 2^20 x 2^20 or 2^30 in all."""
_ROWS_AT_ONCE = 1 << 19
_TIFFFILE_HINT = "; tifffile reads it"


def read_tiff(data: bytes) -> Picture:
    """The first full page of a TIFF."""
    page = _page(data)
    if page.photometric == _YCBCR or page.photometric in _LUV or (page.compression == _JPEG and page.together > 1):
        return Picture(_by_libtiff(page))
    return _interpreted(_samples(page), page).turned(page.orientation)


def numbers_of_tiff(data: bytes) -> np.ndarray:
    """What is stored for each pixel of an image with a palette, or of a gray one of integers: (height, width)."""
    page = _page(data)
    if (
        page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE)
        or page.samples > 1
        or page.dtype.kind not in "iu"
    ):
        raise Refused(
            f"a TIFF image of {page.samples} samples of {page.dtype} for each pixel, which are no labels; use "
            "decode_image"
        )
    return Picture(_samples(page)[:, :, 0]).turned(page.orientation).values


@dataclass(frozen=True)
class Page:
    """What the tags of a page say."""

    tags: Tags
    width: int
    height: int
    samples: int
    bits: int
    dtype: np.dtype
    photometric: int
    compression: int
    predictor: int
    orientation: int
    apart: bool
    """Whether each sample of all pixels stands in a plane of its own."""

    @property
    def together(self) -> int:
        """How many samples of a pixel stand side by side."""
        return 1 if self.apart else self.samples

    @property
    def most(self) -> int:
        """The largest number that a sample can be; 0 of floats and signed integers."""
        return (1 << self.bits) - 1 if self.dtype.kind == "u" else 0


def _page(data: bytes) -> Page:
    """The first page that is no thumbnail and no mask of another one, if it can be read."""
    tags = next(_full(data), None)
    if tags is None:
        raise Refused("a TIFF image of nothing but thumbnails, as the raw files of cameras are; rawpy reads those")
    return _page_from_tags(tags)


def _full(data: bytes) -> Iterator[Tags]:
    seen, tags = set[int](), Tags(data)
    while True:
        if not tags.number(_SUBFILE, 0) & 0b101:
            yield tags
        if not tags.next or tags.next in seen:
            return
        seen.add(tags.next)
        tags = Tags(data, tags.next)


def _page_from_tags(tags: Tags) -> Page:
    width, height = tags.number(_WIDTH, 0), tags.number(_HEIGHT, 0)
    if not width or not height:
        raise Damaged
    samples, photometric, compression = (
        tags.number(_SAMPLES, 1),
        tags.number(_PHOTOMETRIC, -1),
        tags.number(_COMPRESSION_SCHEME, 1),
    )
    bits, formats = set(tags.values(_BITS).tolist() or [1]), set(tags.values(_FORMAT).tolist() or [1])
    if compression not in (*_BYTEWISE, *_FAXES, _JPEG, *_LOGS):
        name = _COMPRESSIONS.get(compression, f"scheme {compression}")
        raise Refused(f"a TIFF image that is compressed by {name}, which OpenCV does not unpack{_TIFFFILE_HINT}")
    if photometric in _OTHER_PHOTOMETRICS:
        raise Refused(f"a TIFF image {_OTHER_PHOTOMETRICS[photometric]}; make RGB of it first")
    if photometric not in (*_COLOURS, _YCBCR, *_LUV):
        raise Refused(
            f"a TIFF image of a kind that is not known (photometric interpretation {photometric}){_TIFFFILE_HINT}"
        )
    if len(bits) > 1 or len(formats) > 1:
        raise Refused(f"a TIFF image whose samples are of different kinds ({sorted(bits)} bits){_TIFFFILE_HINT}")
    if tags.number(_DEPTH, 1) > 1:
        raise Refused(f"a TIFF volume of {tags.number(_DEPTH, 1)} layers{_TIFFFILE_HINT}")
    (depth,), (kind,) = bits, formats
    return Page(
        tags, width, height, samples, depth, _sample_dtype(depth, kind), photometric, compression,
        tags.number(_PREDICTOR, 1), tags.number(ORIENTATION, 1), tags.number(_PLANAR, 1) == 2 and samples > 1,
    )  # fmt: skip


def _sample_dtype(bits: int, kind: int) -> np.dtype:
    """By sample format: 1 unsigned, 2 signed, 3 floats, 4 anything."""
    letter = {1: "u", 2: "i", 3: "f", 4: "u"}.get(kind)
    if letter and bits in (8, 16, 32, 64) and (letter, bits) != ("f", 8):
        return np.dtype(f"{letter}{bits // 8}")
    if letter == "u" and bits < 16:
        return np.dtype("u1" if bits <= 8 else "u2")
    what = {3: "floats", 2: "signed integers", 5: "complex integers", 6: "complex numbers"}.get(kind, "integers")
    raise Refused(f"a TIFF image of {what} of {bits} bits{_TIFFFILE_HINT}")


def _by_libtiff(page: Page) -> np.ndarray:
    """By libtiff, which knows how colours of video are made RGB, and logarithms of light."""
    if page.apart or page.samples != 3 or (page.bits != 8 and page.photometric not in _LUV):
        raise Refused(
            f"a TIFF image of {page.samples} samples of {page.bits} bits in video's colours or as JPEG{_TIFFFILE_HINT}"
        )
    _strip_places(page)
    image = imdecode(page.tags.data)
    if image is None:
        raise _unfit_page(page)
    return in_rgb(image)


def _samples(page: Page) -> np.ndarray:
    """The numbers that are stored: (height, width, samples)."""
    tags, together = page.tags, page.together
    tiled = len(tags.values(_TILES)) > 0
    if tiled:
        width, height = tags.number(_TILE_WIDTH, 0), tags.number(_TILE_HEIGHT, 0)
    else:
        width, height = page.width, min(tags.number(_ROWS_PER_STRIP, page.height), page.height)
    if not width or not height:
        raise _unfit_page(page)
    across, down = -(-page.width // width), -(-page.height // height)
    offsets, sizes = _strip_places(page)
    each, rows = across * down, across * down * height if tiled else page.height
    if len(offsets) < each * (page.samples // together):
        raise _unfit_page(page)
    planes = []
    for first in range(0, each * (page.samples // together), each):
        unpacked = _strip_bytes(page, offsets[first : first + each], sizes[first : first + each], width, height, rows)
        plane = _samples_from_bytes(unpacked, page, width)
        if tiled:
            plane = plane.reshape(down, across, height, width, together).transpose(0, 2, 1, 3, 4)
            plane = plane.reshape(down * height, across * width, together)[: page.height, : page.width]
        planes.append(plane)
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


def _strip_places(page: Page) -> tuple[np.ndarray, np.ndarray]:
    """Where strips or tiles are, and their sizes in bytes."""
    tags = page.tags
    tiled = _TILES in tags.places
    offsets = tags.values(_TILES if tiled else _STRIPS).astype(np.int64)
    sizes = tags.values(_TILE_SIZES if tiled else _STRIP_SIZES).astype(np.int64)
    if not len(sizes) and len(offsets) == 1:  # very old writers say nothing of one strip
        sizes = np.array([len(tags.data)]) - offsets
    if not len(offsets) or len(offsets) != len(sizes):
        raise _unfit_page(page)
    if not (offsets.all() and sizes.all()):
        raise Refused(f"a TIFF image some of whose strips or tiles were never written{_TIFFFILE_HINT}")
    if (offsets + sizes).max() > len(tags.data) or min(offsets.min(), sizes.min()) < 0:
        raise Damaged
    return offsets, sizes


def _strip_bytes(page: Page, offsets: np.ndarray, sizes: np.ndarray, width: int, height: int, rows: int) -> np.ndarray:
    """The bytes of strips or tiles, one below the other: (rows, bytes of a row)."""
    across = -(-width * page.together * page.bits // 8)
    fax = page.compression in _FAXES
    step = max(1, min(_AT_ONCE // (across * height), _ROWS_AT_ONCE // height))
    parts = []
    for first in range(0, len(offsets), step):
        some = slice(first, first + step)
        many = min(rows - first * height, step * height)
        shown = _as_gray(page, offsets[some], sizes[some], (width, 1) if fax else (across, 8), height, many)
        part = imdecode(shown)
        if part is None or part.shape != (many, width if fax else across):
            raise _unfit_page(page)
        parts.append(np.packbits(part > 0, axis=1) if fax else part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _as_gray(
    page: Page, offsets: np.ndarray, sizes: np.ndarray, across: tuple[int, int], height: int, rows: int
) -> bytes:
    """A TIFF of these strips alone, as a gray image of one sample, whose width and bits are given."""
    low, high = int(offsets.min()), int((offsets + sizes).max())
    tags, order = page.tags, page.tags.order
    entries: dict[int, tuple[str, Sequence[int]]] = {
        _WIDTH: ("I", [across[0]]),
        _HEIGHT: ("I", [rows]),
        _BITS: ("H", [across[1]]),
        _COMPRESSION_SCHEME: ("H", [page.compression]),
        _PHOTOMETRIC: ("H", [_BLACK_IS_ZERO]),
        _STRIPS: ("I", (offsets - low + 8).tolist()),
        _SAMPLES: ("H", [1]),
        _ROWS_PER_STRIP: ("I", [height]),
        _STRIP_SIZES: ("I", sizes.tolist()),
    }
    kinds = {"B": 1, "H": 3, "I": 4}
    for tag in set(_OF_THE_CODER) & set(tags.places):
        kind = {1: "B", 7: "B", 3: "H"}.get(tags.places[tag][0], "I")
        entries[tag] = (kind, tags.values(tag).tolist())
    at = 8 + high - low
    at += at % 2
    behind = at + 2 + 12 * len(entries) + 4
    directory, more = struct.pack(f"{order}H", len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        directory += struct.pack(f"{order}HHI", tag, kinds[kind], len(values))
        if len(packed) <= 4:
            directory += packed.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}I", behind + len(more))
            more += packed + bytes(len(packed) % 2)
    head = tags.data[:2] + struct.pack(f"{order}HI", 42, at)
    return b"".join([head, memoryview(tags.data)[low:high], bytes((high - low) % 2), directory, bytes(4), more])


def _samples_from_bytes(packed: np.ndarray, page: Page, width: int) -> np.ndarray:
    """Rows of bytes as numbers of this machine: (rows, width, samples side by side)."""
    rows, together, size = len(packed), page.together, page.dtype.itemsize
    if (
        page.predictor not in (1, 2, 3)
        or (page.predictor == 2 and page.bits < 8)
        or (page.predictor == 3 and page.dtype.kind != "f")
    ):
        raise Refused(
            f"a TIFF image that predicts its numbers in a way that is not known ({page.predictor}){_TIFFFILE_HINT}"
        )
    if page.bits not in (8, 16, 32, 64):
        return _samples_from_bits(packed, page, width)
    if page.predictor == 3:  # differences of bytes, the first of all numbers before the second ones (technical note 3)
        packed = np.cumsum(packed.reshape(rows, -1, together), axis=1, dtype=np.uint8)
        packed = np.ascontiguousarray(packed.reshape(rows, size, width * together).transpose(0, 2, 1))
        return packed.view(page.dtype.newbyteorder(">")).astype(page.dtype).reshape(rows, width, together)
    plain = packed.view(f"{page.tags.order}u{size}").reshape(rows, width, together)
    plain = plain.astype(f"u{size}", copy=False)
    if page.predictor == 2:
        plain = np.cumsum(plain, axis=1, dtype=plain.dtype)
    return plain.view(page.dtype)


def _samples_from_bits(packed: np.ndarray, page: Page, width: int) -> np.ndarray:
    """Numbers of any few bits, the upper ones first; each row begins with a byte."""
    if page.predictor != 1:
        raise Refused(f"a TIFF image that predicts numbers of {page.bits} bits{_TIFFFILE_HINT}")
    together = page.together
    bits = np.unpackbits(packed, axis=1, count=width * together * page.bits).reshape(
        len(packed), width, together, page.bits
    )
    return (bits @ (1 << np.arange(page.bits - 1, -1, -1))).astype(page.dtype)


def _interpreted(samples: np.ndarray, page: Page) -> Picture:
    """What the numbers mean, by the photometric interpretation and what is said of samples beyond its own."""
    count = _COLOURS[page.photometric]
    beyond, kinds, most = page.samples - count, page.tags.values(_EXTRA_SAMPLES).tolist(), page.most
    if beyond < 0:
        raise _unfit_page(page)
    colours, scale = _in_colours(samples[:, :, :count], page)
    as_opencv_writes = _UNASSOCIATED if beyond == 1 and page.photometric == _RGB else 0
    kind = kinds[0] if kinds else as_opencv_writes
    if not beyond:
        return Picture(colours, scale)
    if kind in (_ASSOCIATED, _UNASSOCIATED):
        alpha = samples[:, :, count]
        if scale == 255:  # so are the colours
            alpha = of_eight_bits(alpha, most) if most <= 255 else (alpha >> (page.bits - 8)).astype(np.uint8)
        colours = with_alpha(undone(colours, alpha, scale) if kind == _ASSOCIATED else colours, alpha)
        if beyond == 1:
            return Picture(colours, scale)
    elif count == 1:
        return Picture(samples, most, bands=True)
    return Picture(samples, most, colours=colours)


def _in_colours(samples: np.ndarray, page: Page) -> tuple[np.ndarray, int]:
    """Gray (height, width) or RGB, and the largest number there can be (0 of floats and signed integers)."""
    most = page.most
    if page.photometric == _PALETTE:
        return _palette(page)[samples[:, :, 0]], 255
    if page.photometric == _CMYK:
        if page.tags.number(_INKS, 1) != 1 or not most:
            raise Refused(f"a TIFF image of inks other than cyan, magenta, yellow and black{_TIFFFILE_HINT}")
        left = float(most) - samples
        return np.rint(left[:, :, :3] * left[:, :, 3:] / most).astype(samples.dtype), most
    gray = samples[:, :, 0] if samples.shape[2] == 1 else samples
    if page.photometric == _WHITE_IS_ZERO and most:
        gray = np.asarray(most, gray.dtype) - gray
    return (of_eight_bits(gray, most), 255) if 0 < most < 255 else (gray, most)


def _palette(page: Page) -> np.ndarray:
    """Its colours as uint8: (numbers, 3). They are of 16 bits, but for those of some writers."""
    found = page.tags.values(_COLORMAP)
    if page.dtype.kind != "u" or page.bits > 16 or len(found) != 3 << page.bits:
        raise _unfit_page(page)
    return (found >> 8 if found.max() > 255 else found).astype(np.uint8).reshape(3, -1).T


def _unfit_page(page: Page) -> Refused:
    return Refused(
        f"a TIFF image, but damaged or cut off, or of a kind that OpenCV does not unpack: {page.width} x "
        f"{page.height}, {page.samples} "
        f"samples of {page.bits} bits, compression {page.compression} ({len(page.tags.data)} bytes)"
    )
