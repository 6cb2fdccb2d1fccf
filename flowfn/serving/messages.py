"""How datapoints travel between machines: a plain header in JSON, and the bytes of arrays beside it as they are.

    value        written as                          value          written as
    None, bool, int, float, str   itself             dict           ["d", key, value, key, value, ...]
    list         ["l", item, ...]                    bytes          ["b", buffer]
    tuple        ["t", item, ...]                    NumPy array    ["a", dtype, shape, "C" or "F", buffer]
    datapoints   ["n", datapoint, ...]               NumPy scalar   ["s", dtype, buffer]
    pickled      ["p", buffer]

A buffer is the number of one of the buffers that come with the header. What comes from elsewhere is trusted in nothing:
whatever it is, `read` gives a value or raises `Malformed`, and makes nothing larger than what came. Nothing is
unpickled unless that was asked for.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flowfn.datapoints.components import Datapoints

PROTOCOL = b"flowfn/1"
REQUEST_BYTES = 1 << 12
"""What a consumer says is never longer."""

_PLAIN = (type(None), bool, int, float, str)
_LIST_CODES: dict[type, str] = {list: "l", tuple: "t", Datapoints: "n"}


class Malformed(ValueError):
    """What came is no message of ours."""


class Written(NamedTuple):
    """A datapoint as it travels."""

    tree: Any
    buffers: list[memoryview]


def write(value: Any, pickled: bool = False) -> Written:
    """A datapoint as a tree for JSON and buffers; what is none of the values above is pickled, or refused.

    >>> write([1, "a", b"bytes"]).tree
    ['l', 1, 'a', ['b', 0]]
    """
    buffers: list[memoryview] = []
    return Written(_tree(value, buffers, pickled), buffers)


def _tree(value: Any, buffers: list[memoryview], pickled: bool) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in _LIST_CODES:
        return [_LIST_CODES[kind], *(_tree(part, buffers, pickled) for part in value)]
    if kind is dict:
        return ["d", *(_tree(part, buffers, pickled) for item in value.items() for part in item)]
    if kind is bytes:
        return ["b", _number_along(value, buffers)]
    if kind is np.ndarray and (described := _dtype_told(value.dtype)):
        order: Any = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        return ["a", described, list(value.shape), order, _number_along(_array_bytes(value, order), buffers)]
    if isinstance(value, np.generic) and (described := _dtype_told(value.dtype)):
        return ["s", described, _number_along(value.tobytes(), buffers)]
    if pickled:
        return ["p", _number_along(pickle.dumps(value, protocol=5), buffers)]
    raise TypeError(
        f"serve(): {kind.__module__}.{kind.__qualname__} is not sent: datapoints are dicts, lists, tuples, str, "
        "bytes, int, float, bool, None and NumPy arrays of plain numbers; map it to those, or give pickle=True to "
        "serve() and to connect()"
    )


def _number_along(data: Any, buffers: list[memoryview]) -> int:
    """The number of a buffer that goes along."""
    buffers.append(memoryview(data).cast("B"))
    return len(buffers) - 1


def read(tree: Any, buffers: Sequence[Any], pickled: bool = False) -> Any:
    """The datapoint that was written; its arrays look into the buffers.

    Raises:
        Malformed: it is none.
    """
    try:
        return _read(tree, buffers, pickled)
    except Malformed:
        raise
    except Exception as error:  # there are many ways to be no message
        raise Malformed(f"no datapoint can be read from what came: {type(error).__name__}: {error}") from error


def _read(tree: Any, buffers: Sequence[Any], pickled: bool) -> Any:
    if type(tree) in _PLAIN:
        return tree
    tag, *parts = tree
    for kind, letter in _LIST_CODES.items():
        if tag == letter:
            return kind(_read(part, buffers, pickled) for part in parts)
    if tag == "d":
        items = [_read(part, buffers, pickled) for part in parts]
        return dict(zip(items[::2], items[1::2], strict=True))
    data = buffers[_natural(parts.pop())]
    if tag == "b":
        return bytes(data)
    if tag == "a":
        described, shape, order = parts
        if order not in ("C", "F"):
            raise Malformed("an array in no order")
        array = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
        return _array_viewed(array, described).reshape([_natural(extent) for extent in shape], order=order)
    if tag == "s":
        (scalar,) = _array_viewed(np.frombuffer(data, np.uint8), *parts)
        return scalar
    if tag == "p":
        if not pickled:
            raise Malformed("what comes is pickled, and nothing is unpickled here: connect(..., pickle=True) does it")
        return pickle.loads(data)
    raise Malformed(f"there is no {tag!r} among datapoints")


def _array_viewed(data: np.ndarray, described: Any) -> np.ndarray:
    dtype = np.lib.format.descr_to_dtype(_tuples(described))
    if dtype.hasobject or not dtype.itemsize:
        raise Malformed("an array of objects, or of nothing")
    return data.view(dtype)


def _tuples(described: Any) -> Any:
    """A dtype as NumPy wants it told: fields are tuples, where JSON has lists."""
    if isinstance(described, str):
        return described
    return [(field[0], _tuples(field[1]), *map(tuple, field[2:])) for field in described]


def _dtype_told(dtype: np.dtype) -> Any:
    """A dtype in JSON; nothing if it cannot be told in words."""
    if dtype.hasobject or not dtype.itemsize or dtype.metadata:
        return None
    described = dtype.str if dtype.fields is None else dtype.descr
    try:
        same = np.lib.format.descr_to_dtype(_tuples(json.loads(json.dumps(described)))) == dtype
    except (TypeError, ValueError):
        same = False
    return described if same else None


def _array_bytes(array: np.ndarray, order: Any) -> Any:
    return np.ascontiguousarray(array.reshape(-1, order=order)).view(np.uint8)


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise Malformed("a number below zero, or none")
    return value


def as_message(kind: str, **fields: Any) -> list[bytes]:
    """A message: what speaks the same language, and a header."""
    return [PROTOCOL, json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode()]


def of_message(frames: Sequence[Any], **types: type) -> tuple[dict[str, Any], Sequence[Any]]:
    """The header of a message, and the buffers that came with it; `types` are those that fields have if they are there.

    Raises:
        Malformed: it is none of ours, or of another version.
    """
    if len(frames) < 2:
        raise Malformed("half a message")
    if bytes(frames[0]) != PROTOCOL:
        raise Malformed(f"this end speaks {PROTOCOL.decode()}, the other one {bytes(frames[0][:20])!r}")
    try:
        header = json.loads(bytes(frames[1]))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a header that cannot be read: {error}") from error
    if type(header) is not dict or type(header.get("kind")) is not str:
        raise Malformed("a header that says nothing")
    for name, wanted in types.items():
        value = header.get(name)
        outside = isinstance(value, int) and wanted is int and not 0 <= value < 1 << 62
        if name in header and (type(value) is not wanted or outside):
            raise Malformed(f"{name} must be a {wanted.__name__}")
    return header, frames[2:]
