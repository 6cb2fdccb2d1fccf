"""Arrays that are more than their numbers: with a mask, a unit, a calibration.
What they carry stays with them, or they are refused.

carries          whether arrays of a class are such ones
joined_arrays    several as one: masked arrays with their masks, others with what all of them carry alike
reduced          one as a pickle keeps it, where its class leaves that to NumPy, which keeps the numbers
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Join = Callable[[Sequence[Any]], Any]

_MASKED = frozenset({np.ma.MaskedArray, type(np.ma.masked)})


def carries(kind: type) -> bool:
    """Whether arrays of a class carry more than numbers.

    >>> carries(np.ma.MaskedArray), carries(np.ndarray), carries(np.memmap), carries(float)
    (True, False, False, False)
    """
    if kind is np.ndarray:
        return False
    if not issubclass(kind, np.ndarray) or issubclass(kind, np.ma.MaskedArray):
        return issubclass(kind, np.ma.MaskedArray)
    return (
        kind.__module__.partition(".")[0] != "numpy"
    )  # NumPy's own (memmap, matrix, recarray, ...) say how numbers are accessed


def joined_arrays(values: Sequence[Any], join: Join, masks: Join, function: str = "batch") -> Any:
    """Some arrays put together by `join`, their masks by `masks`.

    Raises:
        TypeError: they carry something that differs, or that cannot be carried on.

    >>> joined_arrays([np.ma.array([1, 2], mask=[False, True]), np.array([3, 4])], np.stack, np.stack).tolist()
    [[1, None], [3, 4]]
    """
    kinds = set(map(type, values))
    special = {kind for kind in kinds if carries(kind)}
    if special <= _MASKED:
        return _masked_array(values, join, masks)
    first = values[0]
    if len(kinds) > 1 or any(not _alike(_carried_beside(value), _carried_beside(first)) for value in values):
        raise TypeError(_carries_more(special, "not all of them alike", function))
    made = first.__array_wrap__(join([value.view(np.ndarray) for value in values]))
    if type(made) is not type(first) or not _alike(_carried_beside(made), _carried_beside(first)):
        raise TypeError(_carries_more(special, "which one for all of them does not take over", function))
    return made


def refuse_carrying(kinds: set[type], function: str) -> None:
    """Raise where one of these classes is of arrays that carry more than numbers, which would be lost.

    Raises:
        TypeError: one is.
    """
    special = {kind for kind in kinds if carries(kind)}
    if special:
        raise TypeError(_carries_more(special, "which an array made of it would lose", function))


def _carries_more(kinds: set[type], why: str, function: str) -> str:
    names = " and ".join(sorted(kind.__name__ for kind in kinds))
    return (
        f"{function}(): arrays of type {names} carry more than numbers, {why}; make plain arrays of them before "
        "(map(np.asarray)), "
        "or put them together by a function of your own (batch(size, collate=...))"
    )


def _masked_array(values: Sequence[Any], join: Join, masks: Join) -> Any:
    """A masked array of masked arrays, and of what has no mask."""
    arrays = [value for value in values if isinstance(value, np.ma.MaskedArray) and value is not np.ma.masked]
    plain = next((np.ma.getdata(value) for value in values if value is not np.ma.masked), np.zeros(()))
    nothing = np.zeros((), plain.dtype)  # of NumPy's `masked`, which has no dtype of its own
    data = join([nothing if value is np.ma.masked else np.asarray(np.ma.getdata(value)) for value in values])
    mask = masks([np.ma.getmaskarray(value) for value in values])
    fills = {repr(array.fill_value) for array in arrays if array.dtype == data.dtype}
    fill = arrays[0].fill_value if len(fills) == 1 and arrays[0].dtype == data.dtype else None
    return np.ma.MaskedArray(data, mask=mask, fill_value=fill, hard_mask=any(array.hardmask for array in arrays))


def _carried_beside(array: Any) -> dict[str, Any]:
    """What an array carries beside its numbers."""
    slots = (slot for kind in type(array).__mro__ for slot in _slots(kind) if hasattr(array, slot))
    return {slot: getattr(array, slot) for slot in slots} | getattr(array, "__dict__", {})


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else [slot for slot in slots if slot not in ("__dict__", "__weakref__")]


def _alike(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # such as arrays among it
        return False


# Pickles


def leaves_it_to_numpy(kind: type) -> bool:
    """Whether NumPy's own way is how arrays of a class are pickled: as numbers."""
    ways = ("__reduce__", "__reduce_ex__", "__setstate__")
    return (
        kind is not np.ndarray
        and issubclass(kind, np.ndarray)
        and all(getattr(kind, way) is getattr(np.ndarray, way) for way in ways)
    )


def reduced(array: Any) -> Any:
    """An array of a class that leaves it to NumPy, with what it carries;
    where a memory map comes from does not travel."""
    if type(array) is np.ma.MaskedArray:
        return _reduced_masked(array)
    return _array_of_class, (
        type(array),
        array.view(np.ndarray),
        _carried_beside(array) if carries(type(array)) else {},
    )


def _array_of_class(kind: type, numbers: np.ndarray, beside: dict[str, Any]) -> Any:
    array: Any = numbers.view(kind)
    for name, value in beside.items():
        setattr(array, name, value)
    return array


def _reduced_masked(array: Any) -> Any:
    """A masked array as two arrays; NumPy's own way is to write both out."""
    if array.baseclass is not np.ndarray or array._optinfo:
        return NotImplemented
    mask = None if array._mask is np.ma.nomask else array._mask
    return _made_masked, (np.ma.getdata(array), mask, array._fill_value, array.hardmask)


def _made_masked(data: np.ndarray, mask: np.ndarray | None, fill: Any, hard: bool) -> Any:
    return np.ma.MaskedArray(data, mask=np.ma.nomask if mask is None else mask, fill_value=fill, hard_mask=hard)
