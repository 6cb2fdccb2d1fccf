"""What is known about ILSVRC12 beside its images: synsets, their words, the mean image; as Caffe's archive has them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from flowfn.datasets.finding import Published, lines_of
from flowfn.storage.damage import reading

CAFFE = "http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz"
INNER = ("", "caffe_ilsvrc12", "ilsvrc_metadata")
"""Where, below the folder that a user names, the files may be."""


def ilsvrc12_synsets(metadata: Any) -> list[str]:
    """Read the WordNet ids of ILSVRC12's labels, in their order: "n01440764" is label 0.

    `metadata` is the folder with `synsets.txt` (or, without it, `synset_words.txt`) of Caffe's archive.

    Raises:
        FileNotFoundError: it is not there; nothing is downloaded, the message says where it is found.
    """
    published = Published("ilsvrc12_synsets", CAFFE)
    path = archive_file(published, published.folder(metadata, "metadata"), "synsets.txt", "synset_words.txt")
    return [line.split()[0] for line in lines_of(path, published.who)]


def ilsvrc12_labels(metadata: Any) -> list[str]:
    """Read what ILSVRC12's labels mean, in their order: label 0 is "tench, Tinca tinca".

    `metadata` is the folder with `synset_words.txt` of Caffe's archive.

    Raises:
        FileNotFoundError: it is not there; nothing is downloaded, the message says where it is found.
    """
    published = Published("ilsvrc12_labels", CAFFE)
    path = archive_file(published, published.folder(metadata, "metadata"), "synset_words.txt")
    return [line.partition(" ")[2].strip() for line in lines_of(path, published.who)]


def ilsvrc12_mean(metadata: Any) -> np.ndarray:
    """Read the mean image of ILSVRC12's training images: (256, 256, 3) float32, RGB, in 0..255.

    `metadata` is the folder with `imagenet_mean.binaryproto` of Caffe's archive (a BlobProto, which is BGR;
    it is turned round here).

    Raises:
        FileNotFoundError: it is not there; nothing is downloaded, the message says where it is found.
        ValueError: it is damaged.
    """
    published = Published("ilsvrc12_mean", CAFFE)
    path = archive_file(published, published.folder(metadata, "metadata"), "imagenet_mean.binaryproto")
    sizes, pixels = {1: 1, 2: 0, 3: 0, 4: 0}, b""
    with reading(path, f"ilsvrc12_mean(): {path!r} is damaged", f"; get it again from {CAFFE}"):
        with open(path, "rb") as file:
            message = file.read()
        for number, value in _message_fields(message):
            if number == 5:
                pixels += value if isinstance(value, bytes) else struct.pack("<I", value)
            elif number in sizes and isinstance(value, int):
                sizes[number] = value
        planes = np.frombuffer(pixels, "<f4").reshape(list(sizes.values()))[0]
        if len(planes) != 3:
            raise ValueError(f"it has {len(planes)} channels, and must have 3")
    return np.ascontiguousarray(planes[::-1].transpose(1, 2, 0), np.float32)


def archive_file(published: Published, folder: str, *names: str) -> str:
    """The path of a file of the archive, in the folder or in one that the archive makes there."""
    for inner in INNER:
        for name in names:
            path = os.path.join(folder, inner, name)
            if os.path.isfile(path):
                return path
    raise Published(published.who, CAFFE).missing(folder, *names)


def _message_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in protocol buffers' wire format: (number, value)."""
    at = 0
    while at < len(message):
        tag, at = _decoded_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _decoded_varint(message, at)
            yield number, value
        elif kind in (1, 2, 5):
            size, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _decoded_varint(message, at)
            if size > len(message) - at:
                raise ValueError(f"it ends within its field {number}")
            part, at = message[at : at + size], at + size
            yield number, struct.unpack("<I", part)[0] if kind == 5 else part
        else:
            raise ValueError(f"its field {number} is of the unknown kind {kind}")


def _decoded_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits in each byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number in it is too long")
