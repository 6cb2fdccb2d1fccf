"""Caffe's image databases: LMDB files of `Datum` messages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.formats.encoding.messages import datum, parsed
from flowfn.formats.joining.several import open_paths
from flowfn.formats.lmdb.keyvalue import KEYS_RULE, Entries
from flowfn.storage.damage import Unreadable
from flowfn.storage.files import call, flow_of


@rules.checked(stored=rules.one_of("bgr", "rgb"), keys=KEYS_RULE)
def read_caffe_lmdb(path: Any, *, keys: Any = None, stored: str = "bgr") -> Flow[Any]:
    """A flow of [image, label] from an LMDB database of Caffe's: (height, width, channels)
    in RGB order, and an integer.

    Raw images are uint8, or float32 where the database holds floats; encoded ones (JPEG, PNG) are decoded, in their own
    depth. Caffe's tools store raw images of three channels as BGR; `stored="rgb"` says that these were stored
    otherwise. `keys` and several files as in `read_lmdb`; without them, the order is that of the database.

    The format is that of `message Datum` in Caffe's src/caffe/proto/caffe.proto.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no LMDB database; a datapoint is no Datum, or its image is not of the size that it tells.
        ImportError: lmdb or protobuf is not installed, or, for encoded images, opencv.
    """
    datum("read_caffe_lmdb()", "lmdb")
    decode = ImageOf(stored == "bgr")
    entries = open_paths(
        path, "read_caffe_lmdb", lambda one: Entries(one, "read_caffe_lmdb", keys, decode, False, False), folders=True
    )
    given = path if isinstance(path, (list, tuple)) else os.fspath(path)
    return flow_of(
        entries, "read_caffe_lmdb", call("read_caffe_lmdb", given, keys=(keys, None), stored=(stored, "bgr"))
    )


@dataclass(frozen=True)
class ImageOf:
    """Makes [image, label] of a Datum."""

    swapped: bool

    def __call__(self, payload: bytes) -> list[Any]:
        """The image as it is stored, in RGB order."""
        read = _parsed_datum(payload)
        return [_decoded_image(read.data) if read.encoded else _raw(read, self.swapped), read.label]


def _parsed_datum(payload: bytes) -> Any:
    return parsed(datum("read_caffe_lmdb()", "lmdb"), payload, "Datum")


def _raw(read: Any, swapped: bool) -> np.ndarray:
    shape = read.channels, read.height, read.width
    floats = not read.data and len(read.float_data)
    values = np.array(read.float_data, np.float32) if floats else np.frombuffer(read.data, np.uint8)
    if min(shape) < 0 or prod(shape) != len(values):
        raise Unreadable(f"its image is told to be {shape} (channels, height, width), but has {len(values)} values")
    planes = values.reshape(shape)
    return np.ascontiguousarray((planes[::-1] if swapped and len(planes) == 3 else planes).transpose(1, 2, 0))


def _decoded_image(data: bytes) -> np.ndarray:
    needed("cv2", "read_caffe_lmdb()", extra="image")
    from flowfn.image.reading import decode_image

    try:
        image = decode_image(data, channels=None)
    except ValueError as error:
        raise Unreadable(f"its encoded image is {str(error).partition(' is ')[2]}") from error
    return image if image.ndim == 3 else image[:, :, None]
