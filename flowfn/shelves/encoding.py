"""Datapoints as bytes: a pickle, and beside it the arrays, which are read where they lie.

Plain data and arrays are read by a reader that knows no other names than those of arrays and scalars, so that nothing
else can come of it than data. Any other object makes it a pickle like all pickles.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import struct
import sys
from operator import attrgetter
from typing import Any

import numpy as np

from flowfn.datapoints import subclasses
from flowfn.datapoints.components import Datapoints
from flowfn.pickling import scripts
from flowfn.pickling.reducing import SCRIPTS

DATAPOINT_HEAD = struct.Struct("<?II")
"""Whether it is plain data, how many bytes the pickle has, how many arrays lie beside it. Then the sizes of those."""
LARGE_ARRAY = 1 << 12
"""Bytes from which on an array lies beside the pickle."""
ALIGNED = 16


def datapoint_bytes(datapoint: Any) -> bytes:
    """A datapoint as bytes.

    >>> datapoint_of(datapoint_bytes(("a", [1, None], np.arange(3))))
    ('a', [1, None], array([0, 1, 2]))
    """
    written = io.BytesIO()
    arrays: list[memoryview] = []
    encoder = _Encoder(written, protocol=5, buffer_callback=lambda buffer: arrays.append(buffer.raw()))
    encoder.dump(datapoint)
    pickled = written.getvalue()
    parts: list[Any] = [
        DATAPOINT_HEAD.pack(encoder.plain, len(pickled), len(arrays)),
        *(struct.pack("<Q", len(array)) for array in arrays),
        pickled,
    ]
    end = sum(map(len, parts))
    for array in arrays:
        parts += (bytes(-end % ALIGNED), array)
        end += -end % ALIGNED + len(array)
    return b"".join(parts)


def datapoint_of(payload: bytes | memoryview) -> Any:
    """The datapoint again: with containers of its own, and with arrays that nobody can write to."""
    view = memoryview(payload)
    plain, size, count = DATAPOINT_HEAD.unpack_from(view)
    start = DATAPOINT_HEAD.size + 8 * count
    arrays: list[memoryview] = []
    end = start + size
    for length in struct.unpack_from(f"<{count}Q", view, DATAPOINT_HEAD.size):
        end += -end % ALIGNED
        arrays.append(view[end : end + length])
        end += length
    decoder = _PlainDecoder if plain else _Decoder
    return decoder(io.BytesIO(view[start : start + size]), buffers=arrays).load()


def _array_over(buffer: Any, described: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """An array over bytes; as they cannot be changed, nor can it."""
    dtype = _dtype_by_name(described) if type(described) is str else np.lib.format.descr_to_dtype(described)
    return np.ndarray(shape, dtype, buffer, order=order)


def _objects(items: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    made = np.empty(len(items), object)
    for at, item in enumerate(items):
        made[at] = item
    made = made.reshape(shape)
    made.flags.writeable = False
    return made


def _scalar(buffer: bytes, described: Any) -> Any:
    return _array_over(buffer, described, (), "C")[()]


_KNOWN = (_array_over, _objects, _scalar, complex, range, slice, Datapoints)
_NAMES: dict[tuple[str, str], Any] = {(known.__module__, known.__name__): known for known in _KNOWN}
_IDS = frozenset(map(id, _KNOWN))
_dtype_by_name = functools.lru_cache(maxsize=256)(np.dtype)


class _Encoder(pickle.Pickler):
    """Pickles arrays as what they hold, and finds out whether there is anything but plain data."""

    plain = True

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is np.ndarray or isinstance(value, (np.generic, np.memmap)):
            described = None if value.dtype.metadata else _described(value.dtype)
            if described is not None:
                return (
                    (_scalar, (value.tobytes(), described))
                    if isinstance(value, np.generic)
                    else _taken_apart(value, described)
                )
            if value.dtype == object and kind is np.ndarray:
                return _objects, (value.ravel().tolist(), value.shape)
        elif kind is Datapoints:
            return Datapoints, (list(value),)
        elif id(value) in _IDS or kind in (complex, range, slice):
            return NotImplemented
        self.plain = False
        if isinstance(value, type) and value.__module__ in SCRIPTS and "<" not in value.__qualname__:
            named = (value.__qualname__, scripts.home(value))
            _program[named] = value
            return _of_program, named
        return subclasses.reduced(value) if subclasses.leaves_it_to_numpy(kind) else NotImplemented


class _PlainDecoder(pickle.Unpickler):
    """Reads plain data."""

    def find_class(self, module: str, name: str) -> Any:
        return _NAMES[module, name]


class _Decoder(pickle.Unpickler):
    """Reads what others have pickled; what is of a class of the program that runs,
    or that a worker works for, is so again."""

    def find_class(self, module: str, name: str) -> Any:
        return (
            _of_program(name, module)
            if module in SCRIPTS or module == scripts.name()
            else super().find_class(module, name)
        )


_program: dict[tuple[str, str], type] = {}
"""In a worker, the classes of the program that it works for, by name, as far as it has seen any of them."""


def _of_program(name: str, home: str) -> Any:
    """A class of the program that runs, or for which this process works;
    of a script that is imported now, of that module."""
    try:
        if home in SCRIPTS or home == scripts.name():
            return attrgetter(name)(sys.modules["__main__"])
        return attrgetter(name)(importlib.import_module(home))
    except (AttributeError, ImportError):
        if (name, home) not in _program:
            raise
        return _program[name, home]


def _taken_apart(array: np.ndarray, described: Any) -> tuple[Any, ...]:
    """How an array is made again: from its bytes in the order in which they lie, without a copy if they are many."""
    order = "F" if array.flags.fnc else "C"
    if array.nbytes < LARGE_ARRAY:
        return _array_over, (array.tobytes(order), described, array.shape, order)  # type: ignore[arg-type]
    whole = np.ascontiguousarray(array.T if order == "F" else array)
    held: Any = whole.reshape(-1).view(np.uint8)
    return _array_over, (pickle.PickleBuffer(held), described, array.shape, order)


@functools.lru_cache(maxsize=256)
def _described(dtype: np.dtype) -> Any:
    """A dtype in plain words, or None if it cannot be had again from them."""
    if dtype.hasobject or not dtype.itemsize:
        return None
    described = np.lib.format.dtype_to_descr(dtype)
    again = np.lib.format.descr_to_dtype(described)
    return described if again == dtype and again.type is dtype.type else None
