"""What the bytes of a file are, by the extension of its name:
the table by which samples in tar files are read and written.

| extension | datapoint |
|---|---|
| txt, text, transcript, html, htm | str (UTF-8) |
| cls, cls2, class, count, index, inx, id | int |
| json, jsn | what JSON holds |
| npy | array |
| npz | dict of arrays |
| jpg, jpeg, png, webp, bmp, tif, tiff, ppm, pgm, pbm | image (height, width[, channels]), if images are asked for |
| pyd, pkl, pickle | any object, if unpickling is allowed |
| any of these and .gz | the same, compressed |
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from flowfn.extras import needed
from flowfn.kinds.notes import add_note
from flowfn.showing import brief
from flowfn.storage import archives
from flowfn.storage.damage import error_words

Decoder: TypeAlias = Callable[[bytes], Any]

TEXTS = ("txt", "text", "transcript", "html", "htm")
INTEGERS = ("cls", "cls2", "class", "count", "index", "inx", "id")
JSONS = ("json", "jsn")
PICKLES = ("pyd", "pkl", "pickle")
IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pbm")

_OF_TIFF = ("uint8", "uint16", "int8", "int16", "int32", "float32", "float64")
_KEPT_WHOLE: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    **dict.fromkeys(("jpg", "jpeg", "bmp"), (("uint8",), (1, 3))),
    "webp": (("uint8",), (1, 3, 4)),
    "png": (("uint8", "uint16"), (1, 3, 4)),
    **dict.fromkeys(("tif", "tiff"), (_OF_TIFF, (1, 3, 4))),
    "ppm": (("uint8", "uint16"), (3,)),
    "pgm": (("uint8", "uint16"), (1,)),
    "pbm": (("uint8",), (1,)),
}
"""The dtypes and the numbers of channels that a picture file keeps, and OpenCV writes."""
_INSTEAD = {
    "f": "np.rint(image * 255).astype(np.uint8) of floats from 0 to 1, or floats as they are as tif or npy",
    "b": "image * np.uint8(255) for black and white, or image.astype(np.uint8) for labels",
    "uint16": "(image >> 8).astype(np.uint8), or all 16 bits as png",
}
"""What to write, by kind or name of a dtype."""
_LZW = 5


@dataclass(frozen=True)
class Decoding:
    """How files are decoded: not at all (`decode=False`), by the table, or first by functions of the user's."""

    decode: bool | Mapping[str, Decoder] = True
    images: bool = False
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        self.__setstate__({})

    def __call__(self, extension: str, data: bytes, where: Callable[[], str]) -> Any:
        """What the bytes of a file with this extension stand for; `where` tells which file that is.

        Raises:
            ValueError: they are not what the extension says, or it is a pickle. What a function of the user's raises is
                raised as it is, with a note.
        """
        known = vars(self)["_decoders"].get(extension)
        if known is None:
            known = vars(self)["_decoders"][extension] = self._decoder_for(extension)
        decoder, ours = known
        if decoder is None:
            return data
        try:
            return decoder(data)
        except Exception as error:
            if not ours:
                add_note(error, f"in decode[{extension!r}], of {where()}")
                raise
            raise ValueError(
                f"{where()} cannot be read as {extension}: {error_words(error)}; decode=False gives its bytes"
            ) from error

    def _decoder_for(self, extension: str) -> tuple[Decoder | None, bool]:
        """What decodes this extension, and whether that is of ours."""
        if not self.decode:
            return None, True
        last = extension.rpartition(".")[2]
        if isinstance(self.decode, Mapping):
            for name in (extension, last):
                if name in self.decode:
                    return self.decode[name], False
        if last == "gz" and extension != "gz":
            inner, ours = self._decoder_for(extension[:-3])
            return (inner and (lambda data: inner(gzip.decompress(data)))), ours
        return self._of_ours(last), True

    def _of_ours(self, last: str) -> Decoder | None:
        if last in PICKLES:
            return pickle.loads if self.allow_pickle else _refuse_pickle
        if last in IMAGES:
            return _image_decoder() if self.images else None
        if last in ("npy", "npz"):
            return self._arrays
        return bytes.decode if last in TEXTS else int if last in INTEGERS else json.loads if last in JSONS else None

    def _arrays(self, data: bytes) -> Any:
        """An array, or a dict of them."""
        found = np.load(io.BytesIO(data), allow_pickle=self.allow_pickle)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found, archives.open_zip(io.BytesIO(data)):
                return dict(found)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"decode": self.decode, "images": self.images, "allow_pickle": self.allow_pickle}

    def __setstate__(self, state: dict[str, Any]) -> None:
        decoders: dict[str, tuple[Decoder | None, bool]] = {}
        vars(self).update(state, _decoders=decoders)


def component_bytes(extension: str, value: Any, who: str) -> bytes:
    """A component as the bytes of a file with this extension. Bytes are written as they are.

    Raises:
        TypeError: a value of this type cannot be written under this extension.

    >>> component_bytes("cls", 7, "write_webdataset()"), component_bytes("json", {"a": [1]}, "write_webdataset()")
    (b'7', b'{"a": [1]}')
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    last = extension.rpartition(".")[2]
    if last == "gz" and extension != "gz":
        return gzip.compress(component_bytes(extension[:-3], value, who), mtime=0)
    try:
        data = _encoded(last, value, who)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{who}: {brief(value)} cannot be written as {extension!r}: {error}") from error
    if data is None:
        raise TypeError(f"{who}: {brief(value)} cannot be written as {extension!r}; {_extension_wants(last, value)}")
    return data


def _encoded(last: str, value: Any, who: str) -> bytes | None:
    """The bytes, or None if the value is of a wrong type."""
    if isinstance(value, str) and (last in TEXTS or last not in (*INTEGERS, *JSONS, *PICKLES, *IMAGES, "npy", "npz")):
        return value.encode()
    if last in INTEGERS and isinstance(value, (int, np.integer)):
        return str(int(value)).encode()
    if last in JSONS:
        return json.dumps(value, ensure_ascii=False).encode()
    if last in PICKLES:
        return pickle.dumps(value)
    if last == "npy" and isinstance(value, (np.ndarray, np.generic)):
        return _npy_bytes(value)
    if last == "npz" and isinstance(value, Mapping):
        return _archived(value)
    if last in IMAGES and isinstance(value, np.ndarray):
        return _image(last, value, who)
    return None


def _npy_bytes(value: Any) -> bytes:
    array, file = np.asanyarray(value), io.BytesIO()
    if array.dtype.hasobject:
        raise ValueError("arrays of objects would have to be pickled; write them as pyd, or as json")
    np.save(file, array)
    return file.getvalue()


def _archived(arrays: Mapping[Any, Any]) -> bytes:
    """As `np.savez`, which takes some names for its own options."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            if not isinstance(name, str):
                raise TypeError(f"the names of arrays must be strings, got {name!r}")
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy_bytes(array))
    return file.getvalue()


def _image(last: str, image: np.ndarray, who: str) -> bytes:
    """An image in RGB order, as the bytes of a picture file."""
    cv2 = needed("cv2", who, extra="image")
    _check_image(last, image)
    if image.ndim == 3 and image.shape[2] in (3, 4):
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    lossless = [cv2.IMWRITE_TIFF_COMPRESSION, _LZW] if last in ("tif", "tiff") else []
    try:
        written, buffer = cv2.imencode(f".{last}", np.ascontiguousarray(image), lossless)
    except cv2.error as error:
        raise ValueError(str(error).strip()) from error
    if not written:
        raise ValueError(f"OpenCV {cv2.__version__} does not write it")
    return bytes(buffer.tobytes())


def _check_image(last: str, image: np.ndarray) -> None:
    """Refuse what OpenCV would write as another image, without a word: floats from 0 to 1 black,
    16 bits white, alpha left out."""
    depths, counts = _KEPT_WHOLE[last]
    if image.dtype.name not in depths:
        instead = _INSTEAD.get(image.dtype.kind if image.dtype.kind in "fb" else image.dtype.name, "it as npy")
        raise ValueError(f"{last} keeps {' and '.join(depths)}, got {image.dtype}; write {instead}")
    if image.ndim not in (2, 3) or 0 in image.shape or (image.shape[2] if image.ndim == 3 else 1) not in counts:
        wanted = " or ".join(f"(height, width, {count})" if count > 1 else "(height, width)" for count in counts)
        raise ValueError(
            f"images must be {wanted} for {last}, got {image.shape}; write alpha as png, other arrays as npy"
        )
    if last == "pbm" and not np.isin(image, (0, 255)).all():
        raise ValueError("pbm keeps black (0) and white (255) alone; write pgm or png")


def _image_decoder() -> Decoder:
    from flowfn.image.reading import decode_image

    return decode_image


def _refuse_pickle(data: bytes) -> Any:
    raise ValueError(
        "it is a pickle, which can run code when it is read; allow_pickle=True reads it, if you trust the file"
    )


def _extension_wants(last: str, value: Any) -> str:
    if last in TEXTS:
        return "it has to be a string"
    if last in INTEGERS:
        return "it has to be an integer"
    if last == "npy":
        return "it has to be an array"
    if last == "npz":
        return "it has to be a dict of arrays"
    if last in IMAGES:
        return "it has to be an array (height, width[, channels]), or the bytes of a picture file"
    return "it has to be bytes: encode it with map, or use an extension that says how (json, npy, pyd)"
