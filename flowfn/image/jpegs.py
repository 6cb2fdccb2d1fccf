"""JPEG: its segments one by one up to its end, behind which anything may stand (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from flowfn.image.pictures import Refused
from flowfn.image.tags import exif_orientation

JPEG_START = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff([^\0\xff\xd0-\xd7])")
"""What ends the data of a scan: 0 behind 0xff is data, and so are restarts."""
_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_UNDECODED_KINDS = {0xC3: "lossless", 0xC7: "lossless", 0xCB: "lossless", 0xCF: "lossless"} | dict.fromkeys(
    (0xC5, 0xC6, 0xCD, 0xCE), "hierarchical"
)


@dataclass(frozen=True)
class Frame:
    """What a JPEG says of its image: sides in pixels, as stored, the number of components, the bits of each,
    and the kind of coding."""

    height: int = 0
    width: int = 0
    components: int = 0
    bits: int = 8
    kind: int = 0xC0
    orientation: int = 1


def frame(data: Any) -> Frame:
    """Walk through a JPEG up to its end.

    Raises:
        Refused: its end is missing, there is no image before it, or the image is of a kind that OpenCV does not decode.
    """
    at, sides, orientation, scans = 2, (0, 0, 0, 8, 0xC0), 1, 0
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker == _EOI:
            break
        if marker == _SOI:  # another one, before the end of this
            match = None
            break
        if marker == _TEM:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker in _FRAMES and not sides[2] and length >= 8:
            sides = (*_sides(data, at + 3), data[at + 7], data[at + 2], marker)
        elif marker == _APP1 and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 8 : at + length]) or orientation
        scans += marker == _SOS
        at += max(length, 2)
    if match is None:
        raise Refused(f"a JPEG image that is cut off: its end is missing ({len(data)} bytes)")
    height, width, components, bits, kind = sides
    if not scans or not components:
        raise Refused(f"a JPEG image without an image in it ({len(data)} bytes): its end comes first")
    return _decodable(Frame(height, width, components, bits, kind, orientation))


def _sides(data: Any, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")


def _decodable(header: Frame) -> Frame:
    if header.kind in _UNDECODED_KINDS:
        raise Refused(
            f"a {_UNDECODED_KINDS[header.kind]} JPEG image, which OpenCV does not decode; imagecodecs does, or "
            "write it as PNG"
        )
    if header.bits != 8:
        raise Refused(
            f"a JPEG image of {header.bits} bits, and OpenCV decodes 8; imagecodecs reads it, or write it as PNG of 16 "
            "bits"
        )
    if not header.height:
        raise Refused(
            "a JPEG image whose height stands behind its data, which OpenCV does not decode; write it anew with Pillow"
        )
    if header.components not in (1, 3, 4):
        raise Refused(
            f"a JPEG image of {header.components} components, which are no colours; imagecodecs reads it, or write it "
            "as TIFF"
        )
    return header
