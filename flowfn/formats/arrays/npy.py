"""The header of an .npy file: parsed without running anything, and written when the number of rows is known.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import math
import re
import struct
import sys
from typing import BinaryIO, NamedTuple

import numpy as np

from flowfn.storage.signatures import unexpected_kind

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 1 << 16
"""Bytes of a header beyond which nobody believes it: it is Python text that has to be parsed."""
DIGITS = 21
"""Room for the number of rows, which is known at the end."""


class Header(NamedTuple):
    """What an .npy file says of its array, and the number of bytes before the array."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def header_of(file: BinaryIO, where: str) -> Header:
    """Read a header; `where` says of what file, for messages.

    Raises:
        ValueError: it is none.
    """
    start = file.read(len(MAGIC) + 2)
    if start[: len(MAGIC)] != MAGIC or len(start) < len(MAGIC) + 2:
        other = unexpected_kind(start, "read_npy")
        what = "is empty" if not start else "does not begin as an .npy file does" + f"; {other}" * bool(other)
        raise ValueError(f"{where} {what}")
    version = tuple(start[len(MAGIC) :])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(
            f"{where} is of version {version[0]}.{version[1]} of the .npy format; 1.0, 2.0 and 3.0 are known"
        )
    counted = struct.Struct("<H" if version == (1, 0) else "<I")
    count = file.read(counted.size)
    length = counted.unpack(count)[0] if len(count) == counted.size else 0
    if length > LONGEST_HEADER:
        raise ValueError(f"{where} has a header of {length} bytes, which cannot be; is it damaged?")
    text = file.read(length)
    if len(count) < counted.size or len(text) < length:
        raise ValueError(f"{where} ends in its header; it is not whole")
    dtype, shape, fortran = _header_fields(text.decode("utf8" if version == (3, 0) else "latin1", "replace"), where)
    return Header(dtype, shape, fortran, len(start) + len(count) + length)


def _header_fields(text: str, where: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    try:
        fields = ast.literal_eval(re.sub(r"\b(\d+)L\b", r"\1", text).strip())  # Python 2 wrote (10L,)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"{where} has a header that cannot be parsed: {text[:80]!r}") from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"{where} has a header that is no description of an array: {text[:80]!r}")
    shape, fortran = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 32:
        raise ValueError(f"{where} says that its array has the shape {str(shape)[:80]}, which is none")
    if not isinstance(fortran, bool):
        raise ValueError(f"{where} says fortran_order={fortran!r}, which must be True or False")
    try:
        dtype = np.lib.format.descr_to_dtype(fields["descr"])
    except Exception as error:
        raise ValueError(
            f"{where} says that its array has the dtype {str(fields['descr'])[:80]!r}, which numpy does not know"
        ) from error
    if 0 in shape and math.prod(filter(None, shape)) * max(dtype.itemsize, 1) > sys.maxsize:
        raise ValueError(
            f"{where} says that its array has the shape {str(shape)[:80]}, which is larger than any can be"
        )
    return dtype, shape, fortran


def header_for(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """A header; it has the same length whatever the number of rows.

    >>> one, other = header_for(np.dtype("f4"), (0, 2)), header_for(np.dtype("f4"), (10**9, 2))
    >>> len(one) == len(other), len(one) % 64
    (True, 0)
    """
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    text = repr(described) + " " * (DIGITS - len(str(shape[0])))
    try:
        body, version, counted = text.encode("latin1"), (1, 0), "<H"
    except UnicodeEncodeError:
        body, version, counted = text.encode("utf8"), (3, 0), "<I"
    before = len(MAGIC) + 2 + struct.calcsize(counted)
    if len(body) + before + 64 > LONGEST_HEADER:
        raise ValueError("an .npy header with so many fields would be too long")
    body += b" " * (-(len(body) + 1 + before) % 64) + b"\n"
    return MAGIC + bytes(version) + struct.pack(counted, len(body)) + body
