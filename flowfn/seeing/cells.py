"""Values in cells: type, size and range of whatever a datapoint consists of, each in a few words."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from flowfn.showing import brief

COMPONENTS = 20
"""How many components of a datapoint are shown, and of what is nested in it `NESTED`, down to `DEPTH`."""
NESTED = 6
DEPTH = 4

_cell_repr = reprlib.Repr()
_cell_repr.maxstring = _cell_repr.maxother = 60
_cell_repr.maxlist = _cell_repr.maxtuple = _cell_repr.maxset = _cell_repr.maxfrozenset = _cell_repr.maxdict = (
    _cell_repr.maxdeque
) = 4


def shown_parts(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """The named parts of a value that is shown by its parts."""
    if depth >= DEPTH or (depth and is_row_of_numbers(value)):
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield one_line(key), part
    elif isinstance(value, (list, tuple)):
        yield from zip(getattr(value, "_fields", map(str, range(len(value)))), value)
    elif _is_record(value):
        for one in fields(value):
            yield one.name, getattr(value, one.name, None)


def cells_of(value: Any, depth: int) -> tuple[str, str, str]:
    """(type, size, value) of a value; what is shown by its parts has no third."""
    kind = type(value).__name__
    if isinstance(value, np.generic):
        return kind, "", number_word(value)
    if hasattr(value, "dtype") and isinstance(getattr(value, "shape", None), tuple):
        dtype = str(value.dtype).removeprefix("torch.")
        kind = "array" if isinstance(value, np.ndarray) else kind
        return f"{dtype if len(dtype) <= 20 else 'structured'} {kind}", str(tuple(value.shape)), range_of(value)
    if _is_record(value):
        count = len(fields(value))
        return kind, f"{count} field{'s' * (count != 1)}", "" if depth < DEPTH else one_line(value)
    if isinstance(value, (str, bytes, bytearray)):
        return kind, f"length {len(value)}", one_line(value)
    if isinstance(value, (list, tuple, Mapping)):
        return kind, f"length {len(value)}", _inside(value, depth)
    if isinstance(value, (set, frozenset)):
        return kind, f"length {len(value)}", one_line(value)
    return ("None", "", "") if value is None else (kind, "", one_line(value))


def _inside(value: Any, depth: int) -> str:
    """What is in a list or dict, where it is not shown by its parts."""
    if depth and is_row_of_numbers(value):
        return one_line(value) if len(value) <= 4 else range_of(np.asarray(value))
    return "" if depth < DEPTH else one_line(value, brief)


def range_of(array: Any) -> str:
    """From the least to the greatest of an array, and how many are not numbers."""
    try:
        array = np.asarray(array)
    except Exception:  # an array of some library that numpy cannot look into, on a device perhaps
        return ""
    if array.size == 0:
        return "empty"
    if array.dtype.kind in "OUS":
        return one_line(array.ravel()[:5].tolist() if array.ndim else array.item())
    if array.dtype.kind == "b":
        return f"{np.count_nonzero(array)} of {array.size} true"
    try:
        missing = array != array
        known = array[~missing]
        low, high = (known.min(), known.max()) if known.size else (None, None)
    except (TypeError, ValueError):  # structured dtypes have no order
        return ""
    word = "NaT" if array.dtype.kind in "mM" else "NaN"
    if low is None:
        return f"all {word}"
    reach = (
        "" if array.dtype.kind == "c" else number_word(low) if array.ndim == 0 else from_to(low, high, array.size > 1)
    )
    gaps = int(np.count_nonzero(missing))
    return ", ".join(text for text in (reach, f"{gaps} {word}" if gaps else "") if text)


def from_to(low: Any, high: Any, several: bool = False) -> str:
    """From one number to another."""
    if low == high:
        return f"all {number_word(low)}" if several else number_word(low)
    return f"{number_word(low)} to {number_word(high)}"


def number_word(value: Any) -> str:
    return f"{float(value):.5g}" if getattr(value, "dtype", np.dtype(int)).kind == "f" else one_line(value, str)


def is_row_of_numbers(value: Any) -> bool:
    """Whether a value is a list or tuple of plain numbers."""
    return isinstance(value, (list, tuple)) and bool(value) and set(map(type, value)) <= {int, float}


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def one_line(value: Any, form: Any = _cell_repr.repr) -> str:
    """A value in one short line, whatever its repr does."""
    try:
        text = " ".join(form(value).split()) if not isinstance(value, str) else form(value)
    except Exception:  # a user's __repr__, or an integer of too many digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= 72 else f"{text[:69]}..."
