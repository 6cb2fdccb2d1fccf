"""Datapoints as bytes that any language reads, and that nothing but data can come of: msgpack.

Arrays are written as the package msgpack-numpy writes them, so that files of tensorpack's serializers are read, and
ours are read by its msgpack form. Tuples, sets and integers of more than 64 bits, which msgpack does not know, are
extensions.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import prod
from operator import itemgetter
from types import ModuleType
from typing import Any

import numpy as np

from flowfn.extras import needed
from flowfn.kinds.notes import add_note
from flowfn.showing import brief
from flowfn.storage.damage import Unreadable, error_words

PICKLED = 0x80
"""What a pickle begins with."""
_TUPLE, _SET, _FROZENSET, _INTEGER = range(4)
"""The codes of the extensions."""
_EXTENSIONS: dict[type, int] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}


def packed_datapoint(datapoint: Any) -> bytes:
    """A datapoint as bytes: None, numbers, strings, bytes, lists, tuples, dicts, sets, arrays and scalars of numpy.

    Raises:
        TypeError: there is something else in it, or an array of objects.
        ImportError: msgpack is not installed.

    >>> unpacked_datapoint(packed_datapoint({"image": np.zeros((1, 2), "uint8"), "size": (1, 2)}))
    {'image': array([[0, 0]], dtype=uint8), 'size': (1, 2)}
    """
    pack: bytes = _msgpack().packb(
        datapoint, default=_packable, use_bin_type=True, strict_types=True, unicode_errors="surrogatepass"
    )
    return pack


def unpacked_datapoint(payload: Any, *, allow_pickle: bool = False) -> Any:
    """The datapoint again; its arrays cannot be written to, as they lie in the bytes that were read.

    Pickles, which tensorpack writes, are told by their first byte, and read only if they may be.

    Raises:
        Unreadable (a ValueError): the bytes are torn or are nothing that was packed; or they are a pickle,
            and pickles are not allowed.
    """
    return unpacker(allow_pickle)(payload)


@lru_cache(maxsize=2)
def unpacker(allow_pickle: bool) -> Callable[[Any], Any]:
    """`unpacked_datapoint`, for many payloads."""
    unpack = hasty(allow_pickle)

    def read(payload: Any) -> Any:
        try:
            if payload[0] != PICKLED or len(payload) < 2:  # in msgpack an empty dict, after which nothing may follow
                return unpack(payload)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(f"it is no datapoint that was packed: {error_words(error)}") from error
        return unpickled(payload, allow_pickle)

    return read


@lru_cache(maxsize=2)
def hasty(allow_pickle: bool) -> Callable[[Any], Any]:
    """What unpacks whatever is no pickle, with no Python code around it;
    a pickle is an error to it, as is all that is torn.

    Who reads many payloads uses it, and has `unpacker` say what is wrong if anything is.
    """
    return partial(
        _msgpack().unpackb,
        object_hook=_with_pickles if allow_pickle else _without,
        ext_hook=partial(_extension, allow_pickle),
        strict_map_key=False,
        unicode_errors="surrogatepass",
    )


def reader_of_all(payloads: Sequence[Any], allow_pickle: bool) -> Callable[[Any], Any]:
    """What reads all of these payloads, as fast as can be where they are of one kind."""
    if not allow_pickle:
        return hasty(False)
    if all(payloads):  # there, and not empty
        firsts = set(map(itemgetter(0), payloads))
        if PICKLED not in firsts:
            return hasty(True)
        if len(firsts) == 1 and min(map(len, payloads)) > 1:
            return pickle.loads
    return unpacker(True)


def unpickled(payload: Any, allow_pickle: bool) -> Any:
    """A pickled datapoint, if pickles are allowed.

    Raises:
        Unreadable: they are not, or it is torn.
    """
    if not allow_pickle:
        raise _Refused(_REFUSAL)
    try:
        return pickle.loads(payload)
    except Exception as error:
        raise Unreadable(f"its pickle cannot be read: {error_words(error)}") from error


def payload_of(encode: Callable[[Any], Any], datapoint: Any, number: int, who: str) -> bytes:
    """What `encode` makes of a datapoint.

    Raises:
        TypeError: that is not bytes.
    """
    try:
        payload = encode(datapoint)
    except Exception as error:
        add_note(error, f"in {who}(), datapoint {number}: {brief(datapoint)}")
        raise
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise TypeError(f"{who}(): encode must return bytes, got {brief(payload)} for datapoint {number}")
    return payload if type(payload) is bytes else bytes(payload)


class _Refused(Unreadable):
    """A pickle where none is allowed."""


_REFUSAL = (
    "it is a pickle, and whoever wrote it can run code here; pass allow_pickle=True if you trust where it comes from"
)


@lru_cache(maxsize=1)
def _msgpack() -> ModuleType:
    return needed("msgpack", "packing datapoints", extra="lmdb")


# To bytes


def _packable(value: Any) -> Any:
    """What msgpack does not know, in what it knows."""
    kind = type(value)
    if kind is np.ndarray or isinstance(value, np.memmap):
        return _array_map(np.asarray(value))
    if isinstance(value, np.generic) and _dtype_description(value.dtype) is not None:
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()} if value.nbytes else value.item()
    if kind is complex:
        return {b"complex": True, b"data": repr(value)}
    if kind in _EXTENSIONS:
        items = value if kind is tuple else sorted(value, key=repr)  # the same bytes for the same set
        return _msgpack().ExtType(_EXTENSIONS[kind], packed_datapoint(list(items)))
    if kind is int:
        return _msgpack().ExtType(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
    raise TypeError(
        "datapoints must be of None, numbers, strings, bytes, lists, tuples, dicts, sets and numpy arrays of numbers "
        "and "
        f"strings, got {brief(value)} of type {kind.__name__}; make it one of these first, or pass encode=pickle.dumps"
    )


def _array_map(array: np.ndarray) -> dict[bytes, Any]:
    described = _dtype_description(array.dtype)
    if described is None:
        raise TypeError(
            f"arrays must be of numbers, strings, bytes, times or structures of them, got {brief(array)}; "
            "make it a list, or pass encode=pickle.dumps"
        )
    held: Any = np.ascontiguousarray(array)
    data: Any = held.reshape(-1).view(np.uint8).data if held.size else b""
    structured = array.dtype.names is not None
    return {
        b"nd": True,
        b"type": described,
        b"kind": b"V" if structured else b"",
        b"shape": list(array.shape),
        b"data": data,
    }


@lru_cache(maxsize=256)
def _dtype_description(dtype: np.dtype) -> Any:
    """A dtype in plain words, or None if it cannot be had again from them."""
    if dtype.hasobject or dtype.metadata or (not dtype.itemsize and dtype.names is not None):
        return None
    described = np.lib.format.dtype_to_descr(dtype) if dtype.names is not None else dtype.str
    try:
        again = _dtype_described(described)
    except (TypeError, ValueError):
        return None
    if again != dtype or again.type is not dtype.type:
        return None
    return _as_lists(described)


def _as_lists(described: Any) -> Any:
    """Descriptions without tuples, which would be extensions."""
    return [_as_lists(one) for one in described] if isinstance(described, (list, tuple)) else described


# From bytes


def _restored(pickles: bool, read: dict[Any, Any]) -> Any:
    """A dict, or what one stands for."""
    if b"nd" in read and b"data" in read:
        if read[b"nd"] is False:
            return np.frombuffer(read[b"data"], _dtype_described(read[b"type"]), 1)[0]
        if read.get(b"kind") == b"O":
            return unpickled(read[b"data"], pickles)
        return _placed(read[b"data"], _dtype_described(read[b"type"]), tuple(read[b"shape"]))
    if b"complex" in read and len(read) == 2:
        told = read[b"data"]
        return complex(told.decode() if isinstance(told, bytes) else told)
    return read


_without: Callable[[dict[Any, Any]], Any] = partial(_restored, False)
_with_pickles: Callable[[dict[Any, Any]], Any] = partial(_restored, True)


def _placed(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array where its bytes lie."""
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(data):
        raise ValueError(
            f"an array of {dtype} and shape {shape} has {prod(shape) * dtype.itemsize} bytes, but there are {len(data)}"
        )
    return np.ndarray(shape, dtype, data)


def _dtype_described(described: Any) -> np.dtype:
    return (
        _simple(described)
        if type(described) is str
        else _without_objects(np.lib.format.descr_to_dtype(_numpy_description(described)))
    )


@lru_cache(maxsize=256)
def _simple(described: str) -> np.dtype:
    return _without_objects(np.dtype(described))


def _without_objects(dtype: np.dtype) -> np.dtype:
    if dtype.hasobject:
        raise ValueError("an array of objects can only be pickled")
    return dtype


def _numpy_description(described: Any) -> Any:
    """The description of a structure, as numpy wants it: a list of tuples."""
    if isinstance(described, (str, bytes)):
        return described if isinstance(described, str) else described.decode()
    return [
        (
            _numpy_description(name) if isinstance(name, (str, bytes)) else tuple(name),
            _numpy_description(kind),
            *map(tuple, more),
        )
        for name, kind, *more in described
    ]


def _extension(allow_pickle: bool, code: int, data: bytes) -> Any:
    """A tuple, a set or a large integer."""
    if code == _INTEGER:
        return int.from_bytes(data, "little", signed=True)
    items = unpacker(allow_pickle)(data)
    for kind, known in _EXTENSIONS.items():
        if known == code and type(items) is list:
            return kind(items)
    raise ValueError(f"there is an extension of code {code}, which is not one of ours")
