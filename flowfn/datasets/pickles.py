"""Pickles of lists, dicts, strings, numbers and arrays, read without running anything that is in them.

A pickle is a program. Here only those of its instructions run that build plain values, and the few functions by which
numpy pickles arrays (under Python 2 too) are stood in for by our own, which check what they are given. Nothing is
imported. The instructions: `pickletools` in Python's library, and PEP 307, 3154 and 574.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any, ClassVar

import numpy as np

from flowfn.storage.damage import raise_clearly

_PLAIN_INSTRUCTIONS = b"".join(
    (
        pickle.PROTO,
        pickle.FRAME,
        pickle.STOP,
        pickle.MARK,
        pickle.POP,
        pickle.POP_MARK,
        pickle.NONE,
        pickle.NEWTRUE,
        pickle.NEWFALSE,
        pickle.INT,
        pickle.BININT,
        pickle.BININT1,
        pickle.BININT2,
        pickle.LONG,
        pickle.LONG1,
        pickle.FLOAT,
        pickle.BINFLOAT,
        pickle.STRING,
        pickle.BINSTRING,
        pickle.SHORT_BINSTRING,
        pickle.BINBYTES,
        pickle.SHORT_BINBYTES,
        pickle.BINBYTES8,
        pickle.UNICODE,
        pickle.BINUNICODE,
        pickle.SHORT_BINUNICODE,
        pickle.BINUNICODE8,
        pickle.EMPTY_LIST,
        pickle.LIST,
        pickle.APPEND,
        pickle.APPENDS,
        pickle.EMPTY_TUPLE,
        pickle.TUPLE,
        pickle.TUPLE1,
        pickle.TUPLE2,
        pickle.TUPLE3,
        pickle.EMPTY_DICT,
        pickle.PUT,
        pickle.BINPUT,
        pickle.LONG_BINPUT,
        pickle.MEMOIZE,
        pickle.GET,
        pickle.BINGET,
        pickle.LONG_BINGET,
        pickle.GLOBAL,
        pickle.STACK_GLOBAL,
        pickle.REDUCE,
    )
)
"""Instructions that do no more than build such values, and take no more memory than the file."""


class UnsafePickle(ValueError):
    """A pickle holds what it must not hold."""


def plain_pickle(path: str, who: str) -> Any:
    """What is in a pickle of plain values and arrays; strings of Python 2 are bytes.

    Raises:
        ValueError: it holds anything else (which is not run), or is damaged.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        return _Careful(io.BytesIO(content), encoding="bytes").load()
    except UnsafePickle as error:
        raise ValueError(
            f"{who}(): {path!r} is not read any further, for its pickle {error}; nothing in it was run"
        ) from None
    except Exception as error:
        raise_clearly(error, path, f"{who}(): {path!r} is damaged, it cannot be unpickled")


class _Dtype:
    """Stands in for numpy.dtype: of plain numbers only."""

    def __init__(self, code: Any, *ignored: Any) -> None:
        text = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or text.lstrip("|<>=") not in (
            "b1",
            "i1",
            "u1",
            "i2",
            "u2",
            "i4",
            "u4",
            "i8",
            "u8",
            "f4",
            "f8",
        ):
            raise UnsafePickle(f"holds an array of {text!r:.40}, and not of numbers")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        order: Any = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands in for an array while it is being built."""

    def __init__(self, *ignored: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_column, raw = state
        self.array = _rebuilt_array(raw, dtype, shape, "F" if by_column else "C")


def _rebuilt_array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if (
        not isinstance(raw, bytes)
        or not isinstance(dtype, _Dtype)
        or not all(type(size) is int and size >= 0 for size in shape)
    ):
        raise UnsafePickle("holds an array of something else than numbers")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise UnsafePickle(f"holds an array of shape {shape} that has {len(raw)} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C", *ignored: Any) -> _Array:
    """Stands in for numpy's `_frombuffer`, which protocol 5 calls."""
    made = _Array()
    made.array = _rebuilt_array(raw, dtype, shape, order)
    return made


def _latin1_encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, by which Python 3 writes bytes in old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1", "latin-1"):
        raise UnsafePickle("encodes a string in an unusual way")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """Stands in for `bytes`, by which Python 3 writes empty ones in old protocols."""
    return b""


_STANDING_IN: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1_encoded,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Careful(pickle._Unpickler):
    """Python's own unpickler without most of its instructions."""

    dispatch: ClassVar[dict[int, Any]] = {code: pickle._Unpickler.dispatch[code] for code in _PLAIN_INSTRUCTIONS}

    def find_class(self, module: str, name: str) -> Any:
        """What stands in for a function; nothing is imported."""
        try:
            return _STANDING_IN[module, name]
        except KeyError:
            raise UnsafePickle(f"asks for {module}.{name}") from None

    def load(self) -> Any:
        """Run the instructions, as far as they are allowed."""
        try:
            return _with_arrays(super().load())
        except KeyError as error:
            raise UnsafePickle(
                f"has an instruction that plain values do not need, or refers to what is not there ({error})"
            ) from None

    def build(self: Any) -> None:
        """BUILD: arrays and dtypes have a state, and nothing else."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _Dtype)):
            raise UnsafePickle("sets the state of something that has none")
        self.stack[-1].__setstate__(state)

    def set_items(self: Any) -> None:
        """SETITEMS: keys are strings. (Others can take for ever to hash.)"""
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def set_item(self: Any) -> None:
        """SETITEM"""
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def make_dict(self: Any) -> None:
        """DICT"""
        made: dict[Any, Any] = {}
        self._set(made, self.pop_mark())
        self.append(made)

    def take_bytes(self: Any) -> None:
        """BYTEARRAY8: no more than there is. (Python's own takes as much memory as it is told, before it looks.)"""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    @staticmethod
    def _set(target: Any, items: list[Any]) -> None:
        if type(target) is not dict or not all(isinstance(key, (str, bytes)) for key in items[::2]):
            raise UnsafePickle("has a dict with other keys than strings")
        target.update(zip(items[::2], items[1::2]))


_Careful.dispatch |= {
    pickle.BUILD[0]: _Careful.build,
    pickle.SETITEMS[0]: _Careful.set_items,
    pickle.SETITEM[0]: _Careful.set_item,
    pickle.DICT[0]: _Careful.make_dict,
    pickle.BYTEARRAY8[0]: _Careful.take_bytes,
}


def _with_arrays(value: Any) -> Any:
    """The value, with arrays in the places of what stood in for them, at the top or in a dict there."""
    if isinstance(value, dict):
        return {key: one.array if isinstance(one, _Array) else one for key, one in value.items()}
    return value.array if isinstance(value, _Array) else value
