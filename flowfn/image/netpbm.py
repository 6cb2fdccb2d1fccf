"""Portable bitmaps, graymaps, pixmaps, anymaps and floatmaps (P1 to P7, Pf, PF),
which are little more than their numbers.

Sources: the Netpbm manual's pages of pbm, pgm, ppm, pam and pfm.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import numpy as np

from flowfn.image.pictures import Damaged, Picture, Refused, of_eight_bits, with_alpha

BEGINNING = re.compile(rb"P[1-6][\s#]|P7\s|P[Ff]\s")
_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")
_PAM = re.compile(rb"P7\n(.*?)^ENDHDR[^\n]*\n", re.DOTALL | re.MULTILINE)
_COUNTS = {
    b"BLACKANDWHITE": 1,
    b"GRAYSCALE": 1,
    b"RGB": 3,
    b"BLACKANDWHITE_ALPHA": 2,
    b"GRAYSCALE_ALPHA": 2,
    b"RGB_ALPHA": 4,
}
_Stored: TypeAlias = tuple[np.ndarray, int, int, bool]
"""Numbers (height, width, samples), the largest there can be (0 of floats), how many are colours (0: unknown),
whether alpha follows."""


def read_netpbm(data: bytes) -> Picture:
    """Any of them; fewer than 255 shades are made 256, of more the numbers are as they are."""
    stored, most, colours, alpha = _stored(data)
    if data[1:2] in (b"1", b"4"):
        stored = 1 - stored  # 1 is black
    if 0 < most < 255:
        stored, most = of_eight_bits(stored, most), 255
    if not colours:
        return Picture(stored, most, bands=True)
    seen = stored[:, :, 0] if colours == 1 else stored[:, :, :3]
    return Picture(with_alpha(seen, stored[:, :, colours]) if alpha else seen, most)


def numbers_of_netpbm(data: bytes) -> np.ndarray:
    """What is stored for each pixel of an image of one integer a pixel: (height, width)."""
    stored, most, _, _ = _stored(data)
    if stored.shape[2] > 1 or not most:
        raise Refused(
            f"a portable map of {stored.shape[2]} numbers of {stored.dtype} for each pixel, which are no labels; use "
            "decode_image"
        )
    return np.array(stored[:, :, 0])


def _stored(data: bytes) -> _Stored:
    return _anymap(data) if data[1:2] == b"7" else _floatmap(data) if data[1:2] in b"Ff" else _map(data)


def _map(data: bytes) -> _Stored:
    kind = data[1:2]
    colours = 3 if kind in b"36" else 1
    words, at = _header_words(data, 2 if kind in b"14" else 3)
    width, height, most = (int(word) for word in (*words, b"1")[:3])
    if kind in b"123":
        found = _in_words(data[at:], kind == b"1", most)
        return _shaped(found[: width * height * colours], width, height, colours), most, colours, False
    if kind == b"4":
        rows = np.frombuffer(data, np.uint8, -(-width // 8) * height, at + 1).reshape(height, -1)
        return np.unpackbits(rows, axis=1, count=width)[:, :, None], 1, 1, False
    return _binary(data, at + 1, width, height, colours, most), most, colours, False


def _in_words(text: bytes, bits: bool, most: int) -> np.ndarray:
    text = re.sub(rb"#[^\r\n]*", b"", text)
    found = [int(word) for word in (re.findall(rb"[01]", text) if bits else text.split())]
    return np.array(found, np.uint8 if most < 256 else np.uint16)


def _anymap(data: bytes) -> _Stored:
    header = _PAM.match(data)
    if not header:
        raise Damaged
    lines = [line.split(None, 1) for line in header[1].splitlines() if line.strip() and not line.startswith(b"#")]
    head = dict(line for line in lines if len(line) == 2)
    width, height, samples, most = (
        int(head[name]) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL") if name in head
    )
    kind = head.get(b"TUPLTYPE", b"").strip()
    known = _COUNTS.get(kind) == samples
    alpha = known and kind.endswith(b"_ALPHA")
    colours = samples - alpha if known else samples if samples in (1, 3) and not kind else 0
    return _binary(data, header.end(), width, height, samples, most), most, colours, alpha


def _binary(data: bytes, at: int, width: int, height: int, samples: int, most: int) -> np.ndarray:
    if not 0 < most < 65536:
        raise Damaged
    dtype = np.dtype("u1" if most < 256 else ">u2")
    found = np.frombuffer(data, dtype, width * height * samples, at)
    return _shaped(found.astype(dtype.newbyteorder("=")), width, height, samples)


def _floatmap(data: bytes) -> _Stored:
    (width, height, scale), at = _header_words(data, 3)
    factor, samples = float(scale), 3 if data[1:2] == b"F" else 1
    if not factor:
        raise Damaged
    dtype = np.dtype("<f4" if factor < 0 else ">f4")
    found = np.frombuffer(data, dtype, int(width) * int(height) * samples, at + 1).astype(np.float32)
    return _shaped(found, int(width), int(height), samples)[::-1], 0, samples, False


def _header_words(data: bytes, count: int) -> tuple[list[bytes], int]:
    """So many words behind the first two bytes, and where they end; a single blank follows."""
    words, at = [], 2
    for _ in range(count):
        found = _TOKEN.match(data, at)
        if not found:
            raise Damaged
        words.append(found[1])
        at = found.end()
    return words, at


def _shaped(numbers: np.ndarray, width: int, height: int, samples: int) -> np.ndarray:
    if width < 1 or height < 1:
        raise Damaged
    return numbers.reshape(height, width, samples)
