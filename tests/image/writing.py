"""Image files byte by byte, in the forms that libraries do not write: whoever tests a reader knows what he put in."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import tifffile


def encoded(image, format, **options):
    """An image file, as bytes, by Pillow."""
    file = io.BytesIO()
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    picture.save(file, format, **options)
    return file.getvalue()


def by_tifffile(array, **options):
    """A TIFF, as bytes, by tifffile."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def packed(numbers, bits):
    """Rows of numbers of a few bits, as bytes, each row from a byte on."""
    flat = np.asarray(numbers).reshape(len(numbers), -1)
    return [np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)).tobytes() for row in flat]


# PNG

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(numbers, bits, kind, *chunks, interlaced=False):
    """A PNG of these numbers (height, width[, samples]): kinds are 0 gray, 2 RGB, 3 palette,
    4 gray and alpha, 6 RGBA."""
    numbers = np.asarray(numbers)
    pieces = [numbers[y::dy, x::dx] for x, y, dx, dy in _PASSES] if interlaced else [numbers]
    raw = b"".join(b"\0" + row for piece in pieces if piece.size for row in _png_rows(piece, bits))
    header = struct.pack(">IIBBBBB", numbers.shape[1], numbers.shape[0], bits, kind, 0, 0, interlaced)
    rest = [*chunks, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *rest])


def _png_rows(numbers, bits):
    return (
        packed(numbers, bits) if bits < 8 else [row.astype(">u2" if bits == 16 else "u1").tobytes() for row in numbers]
    )


# BMP


def bmp(rows, bits, sides, *, compression=0, masks=(), palette=b"", size=40, more=b"", used=0, upwards=True):
    """A BMP of these rows of bytes, the uppermost first; `sides` are (height, width)."""
    height, width = sides
    body = (
        rows
        if isinstance(rows, bytes)
        else b"".join(row + bytes(-len(row) % 4) for row in (rows[::-1] if upwards else rows))
    )
    about = (size, width, height if upwards else -height, 1, bits, compression, len(body), 2835, 2835, used, 0)
    head = struct.pack("<IiiHHIIiiII", *about) if size != 12 else struct.pack("<IHHHH", 12, width, height, 1, bits)
    head += struct.pack(f"<{len(masks)}I", *masks) + more + palette
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + body


def runs(numbers, bits):
    """Rows in BMP's lengths of runs: a run for every two pixels, and in each row one stretch as it is (of 8 bits)."""
    out = b""
    for row in np.asarray(numbers)[::-1]:
        at = 0
        if bits == 8:
            at = 6
            out += b"\0\6" + row[:6].tobytes()
        for first, second in row[at:].reshape(-1, 2):
            out += bytes([2, first << 4 | second]) if bits == 4 else bytes([1, first, 1, second])
        out += b"\0\0"
    return out + b"\0\1"


# TIFF

_FORMS = {"B": 1, "H": 3, "I": 4}


def tiff(strips, tags, *, order="<", next=b"", tiled=False):
    """A TIFF of these strips or tiles (bytes), and these tags: {number: (form, values)}."""
    start, places, body = 8, [], b""
    for strip in strips:
        places.append(start + len(body))
        body += strip + bytes(len(strip) % 2)
    entries = dict(tags)
    entries[324 if tiled else 273] = ("I", places)
    entries[325 if tiled else 279] = ("I", [len(strip) for strip in strips])
    at = start + len(body)
    behind, directory, more = at + 2 + 12 * len(entries) + 4, struct.pack(f"{order}H", len(entries)), b""
    for tag, (form, values) in sorted(entries.items()):
        value = struct.pack(f"{order}{len(values)}{form}", *values)
        directory += struct.pack(f"{order}HHI", tag, _FORMS[form], len(values))
        if len(value) <= 4:
            directory += value.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}I", behind + len(more))
            more += value + bytes(len(value) % 2)
    return {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, at) + body + directory + bytes(4) + more


def about(sides, samples, bits, photometric, **tags):
    """The tags of a TIFF of one strip, without compression."""
    named = {
        "compression": 259,
        "predictor": 317,
        "orientation": 274,
        "extra": 338,
        "format": 339,
        "subsampling": 530,
        "inks": 332,
    }
    named |= {
        "subfile": 254,
        "fill": 266,
        "planar": 284,
        "rows": 278,
        "tile_width": 322,
        "tile_height": 323,
        "depth": 32997,
    }
    found = {256: ("I", [sides[1]]), 257: ("I", [sides[0]]), 258: ("H", [bits] * samples), 259: ("H", [1])}
    found |= {262: ("H", [photometric]), 277: ("H", [samples]), 278: ("I", [sides[0]])}
    return found | {named[name]: ("H", value if isinstance(value, list) else [value]) for name, value in tags.items()}


def exif(orientation):
    """A block of EXIF that holds an orientation alone."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


# Boxes


def box(kind, content):
    return struct.pack(">I", len(content) + 8) + kind + content


def jp2(stream, sides, samples, space=16, *boxes, bits=8):
    """A JPEG 2000 stream in boxes: colour spaces are 16 sRGB, 17 gray, 18 sYCC, 12 CMYK."""
    header = box(b"ihdr", struct.pack(">IIHBBBB", *sides, samples, bits - 1, 7, 0, 0)) + box(
        b"colr", struct.pack(">BBBI", 1, 0, 0, space)
    )
    kinds = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return kinds + box(b"jp2h", header + b"".join(boxes)) + box(b"jp2c", stream)
