"""Variables out of MATLAB files of version 5 to 7: numbers, texts, cells and structs.

MathWorks: MAT-File format (https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf). The reader is our own
    because others crash on damaged files: here every size is compared with the bytes that are there before anything is
    made of it.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flowfn.storage.damage import reading

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED, _CELL, _STRUCT, _CHAR = 14, 15, 1, 2, 4
_DEEPEST = 16
_FRONT = 4096
"""Bytes of a packed variable within which its name has to stand."""


def matlab_variables(path: str, who: str, *names: str) -> Mapping[str, Any]:
    """The named variables of a MATLAB file: arrays, strings, lists for cells (column by column), dicts for structs.

    Raises:
        ValueError: it is no such file, is damaged, or lacks one of them.
    """
    there: dict[str, tuple[int, memoryview]] = {}
    with reading(path, f"{who}(): {path!r} cannot be read as a MATLAB file", "; get it again"):
        with open(path, "rb") as file:
            content = memoryview(file.read())
        if len(content) < 128 or bytes(content[126:128]) not in (b"IM", b"MI"):
            raise ValueError(f"it does not begin as one of version 5 to 7 does, but with {bytes(content[:16])!r}")
        order = "<" if bytes(content[126:128]) == b"IM" else ">"
        for kind, data in _elements(content[128:], order):
            front = _decompressed(data, order, _FRONT) if kind == _COMPRESSED else data if kind == _MATRIX else b""
            if front:
                there[_variable_name(memoryview(front), order)] = kind, data
        found = {name: _variable(*there[name], order) for name in names if name in there}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{who}(): {path!r} must hold the variable {missing[0]!r}, but it holds {sorted(there)}")
    return found


def matlab_arrays(path: str, who: str, *names: str) -> list[np.ndarray]:
    """The named variables of a MATLAB file, which are arrays of numbers.

    Raises:
        ValueError: as `matlab_variables`, or one of them is something else.
    """
    variables = matlab_variables(path, who, *names)
    for name in names:
        if not isinstance(variables[name], np.ndarray):
            raise ValueError(
                f"{who}(): {path!r} must hold numbers in the variable {name!r}, not text, cells or structs"
            )
    return [variables[name] for name in names]


def _elements(block: memoryview, order: str, cut: bool = False) -> Iterator[tuple[int, memoryview]]:
    """The elements in a stretch of bytes: (type, content); the last may be `cut` off."""
    at = 0
    while at + 8 <= len(block):
        kind, size = struct.unpack_from(f"{order}II", block, at)
        start, step = at + 8, -(-size // 8) * 8
        if kind >> 16:  # a small one, of which all is in eight bytes
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 0
            if size > 4:
                raise ValueError(f"a small element is said to have {size} bytes")
        if size > len(block) - start and not cut:
            raise ValueError(f"an element is said to have {size} bytes, and {len(block) - start} are left")
        yield kind, block[start : start + size]
        at += 8 + (size if kind == _COMPRESSED else step)


def _variable(kind: int, data: memoryview, order: str) -> Any:
    """The value of a variable, packed or not."""
    return _matrix(memoryview(_decompressed(data, order, None)) if kind == _COMPRESSED else data, order, 0)


def _decompressed(data: memoryview, order: str, limit: int | None) -> bytes | memoryview:
    """The matrix in a packed element: as much as is asked for, or all that its tag says,
    and then it must be at its end."""
    tag = zlib.decompressobj().decompress(data[:_FRONT], 8)
    if len(tag) < 8:
        raise ValueError("a packed variable ends at once")
    kind, size = struct.unpack(f"{order}II", tag)
    if kind != _MATRIX:
        raise ValueError(f"a packed element is of the type {kind}, and no matrix")
    packed = zlib.decompressobj()
    if limit is not None:
        return packed.decompress(data[:limit], 8 + min(size, limit))[8:]
    content = packed.decompress(data, 8 + size)
    if len(content) != 8 + size:
        raise ValueError(f"a packed variable is said to have {size} bytes, and has {len(content) - 8}")
    if packed.decompress(packed.unconsumed_tail, 64) or not packed.eof:
        raise ValueError(f"a packed variable does not end behind its {size} bytes")
    return memoryview(content)[8:]


def _variable_name(front: memoryview, order: str) -> str:
    """The name of a matrix, of which the front is there."""
    elements = _elements(front, order, cut=True)
    for _ in zip(range(2), elements):
        pass
    return bytes(next(elements, (0, memoryview(b"")))[1]).decode("latin-1")


def _matrix(block: memoryview, order: str, depth: int) -> Any:
    """The value of a matrix."""
    if depth > _DEEPEST:
        raise ValueError("its cells lie too deep in each other")
    if not len(block):
        return np.empty((0, 0))
    elements = _elements(block, order)

    def following(*kinds: int) -> tuple[int, memoryview]:
        kind, data = next(elements, (0, memoryview(b"")))
        if kind not in kinds:
            raise ValueError(f"where an element of type {kinds[0]} should be, there is one of type {kind}")
        return kind, data

    flags, _ = struct.unpack(f"{order}II", following(6)[1])
    sizes = np.frombuffer(following(5)[1], f"{order}i4").tolist()
    following(1)
    # small elements take a byte at least
    if len(sizes) < 2 or len(sizes) > 32 or min(sizes) < 0 or math.prod(sizes) > len(block):
        raise ValueError(f"a variable is said to be of shape {tuple(sizes)}, which cannot be in {len(block)} bytes")
    kind, count = flags & 0xFF, math.prod(sizes)
    if kind in _CLASSES:
        return _numeric_array(
            *following(*_NUMBERS), order, sizes, np.dtype(bool) if flags & 0x200 else np.dtype(_CLASSES[kind])
        )
    if kind == _CHAR:
        coded, data = following(4, 2, 1, *_TEXTS)
        codec = _TEXTS.get(coded, "utf-16" if coded == 4 else "latin-1")
        return bytes(data).decode(
            f"{codec}-{'le' if order == '<' else 'be'}" if codec in ("utf-16", "utf-32") else codec
        )
    if kind == _CELL:
        return [_matrix(following(_MATRIX)[1], order, depth + 1) for _ in range(count)]
    if kind == _STRUCT:
        width = int(np.frombuffer(following(5)[1], f"{order}i4")[0])
        names = bytes(following(1)[1])
        if width < 1 or len(names) % width:
            raise ValueError("the names of a struct's fields are cut off")
        fields = [names[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), width)]
        if not fields:
            return [{}] * min(count, 1)
        made = [{field: _matrix(following(_MATRIX)[1], order, depth + 1) for field in fields} for _ in range(count)]
        return made[0] if count == 1 else made
    raise ValueError(f"it holds something of MATLAB's class {kind}, which is not read")


def _numeric_array(kind: int, data: memoryview, order: str, sizes: list[int], dtype: np.dtype) -> np.ndarray:
    """An array of numbers, which may be written down in fewer bytes than they have."""
    stored = np.dtype(_NUMBERS[kind]).newbyteorder("<" if order == "<" else ">")
    if math.prod(sizes) * stored.itemsize != len(data):
        raise ValueError(f"an array of shape {tuple(sizes)} of {stored} has {len(data)} bytes")
    return np.frombuffer(data, stored).reshape(sizes, order="F").astype(dtype, copy=False)
