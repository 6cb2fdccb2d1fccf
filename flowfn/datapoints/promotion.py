"""One dtype for values of several: it holds all of them as they are, or there is an error that says what to do.

NumPy rounds integers of 64 bits where they meet floats, or where one is unsigned and one is not; it wraps dates that
another unit cannot reach, and writes numbers out where they meet texts. Here values are looked at before such a dtype
is taken.
"""

from __future__ import annotations

from array import array as array_of
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
_WHOLE = 2**53
"""Up to here float64 holds every integer."""
_LISTS = {"batch", "pad", "collate"}
"""The functions to which a collation may be given."""


def common(arrays: Iterable[np.ndarray], function: str = "batch") -> np.dtype:
    """The dtype that holds the values of all arrays as they are, in this machine's order of bytes.

    Raises:
        ValueError: there is none.

    >>> common([np.array([2**63], np.uint64), np.array([1])]), common([np.array([1]), np.array([0.5])])
    (dtype('uint64'), dtype('float64'))
    >>> common([np.array([2**53 + 1]), np.array([0.5])])
    Traceback (most recent call last):
    ValueError: batch(): 9007199254740993 (int64) is no float64, in which values of int64 and float64 are put \
together; make all of them of one dtype before (map), or keep them as they are with collate=as_list
    """
    alike: dict[np.dtype, list[np.ndarray]] = defaultdict(list)
    for array in arrays:
        alike[array.dtype].append(array)
    if len(alike) == 1:
        (dtype,) = alike
        return np.promote_types(dtype, dtype)
    chosen = _of_integers(alike) or _of_kinds(alike, function)
    for dtype, some in alike.items():
        for array in some if _may_lose(dtype, chosen) else ():
            lost = _lost(array, chosen)
            if lost.size:
                one = lost.ravel()[0]
                raise ValueError(
                    f"{function}(): {one} ({dtype}) is no {chosen}, in which values of {_enumerated(alike)} are put "
                    f"together; {_mend(function)}"
                )
    return chosen


def parts(values: Sequence[Any]) -> list[np.ndarray] | None:
    """Numbers, dates and arrays as arrays, those of a type together;
    None if they are objects to NumPy, or texts among others.

    >>> parts([1, 0.5, 2, np.float32(3)])
    [array([1, 2]), array([0.5]), array([3.], dtype=float32)]
    """
    alike: dict[Any, list[Any]] = defaultdict(list)
    for value in values:
        alike[
            int if isinstance(value, int) and not isinstance(value, bool) else getattr(value, "dtype", type(value))
        ].append(value)
    made: list[np.ndarray] = []
    for key, some in alike.items():
        arrays: list[Any] = (
            some if isinstance(some[0], np.ndarray) else [integers(some) if key is int else np.asarray(some)]
        )
        if any(array is None or array.dtype == object for array in arrays):
            return None
        made += arrays
    kinds = {_dtype_family(array.dtype) for array in made}
    texts = kinds & {"T", "S"} and not any(isinstance(value, np.ndarray) for value in values)
    return None if texts and len(kinds) > 1 else made


def integers(values: Sequence[int]) -> np.ndarray | None:
    """Python's integers as int64, or as uint64 if they need it; None if neither holds them.

    >>> integers([1, -2]), integers([1, 2**63]), integers([-1, 2**63])
    (array([ 1, -2]), array([                  1, 9223372036854775808], dtype=uint64), None)
    """
    try:
        return np.frombuffer(array_of("q", values), INT64)  # faster than numpy's own look at every value
    except OverflowError:
        return np.array(values, UINT64) if min(values) >= 0 and max(values) < 2**64 else None


def _of_integers(alike: dict[np.dtype, list[np.ndarray]]) -> np.dtype | None:
    """The dtype for integers of which some are uint64 and some have signs, by what they are."""
    if (
        any(dtype.kind not in "biu" for dtype in alike)
        or UINT64 not in alike
        or all(dtype.kind in "bu" for dtype in alike)
    ):
        return None
    signed = [array for dtype, some in alike.items() if dtype.kind == "i" for array in some]
    if all(array.min(initial=0) >= 0 for array in signed):
        return UINT64
    return INT64 if all(array.max(initial=0) < 2**63 for array in alike[UINT64]) else None


def _of_kinds(alike: dict[np.dtype, list[np.ndarray]], function: str) -> np.dtype:
    """The dtype that NumPy has for several, all of them numbers, or texts, or dates, ..."""
    kinds = {_dtype_family(dtype) for dtype in alike} - {"O"}
    try:
        if len(kinds) > 1:
            raise TypeError
        return np.result_type(*alike)
    except TypeError:
        raise ValueError(
            f"{function}(): values of {_enumerated(alike)} cannot be put together; {_mend(function)}"
        ) from None


def _dtype_family(dtype: np.dtype) -> str:
    """Numbers are of one kind, those of other libraries (bfloat16) too."""
    return "number" if dtype.kind in "biufc" or dtype.isbuiltin == 2 else "T" if dtype.kind == "U" else dtype.kind


def _may_lose(dtype: np.dtype, chosen: np.dtype) -> bool:
    """Whether values of `dtype` may be others in the dtype that NumPy has chosen."""
    if dtype == chosen or chosen.hasobject:
        return False
    if dtype.kind in "iu" and chosen.kind in "fc":
        return dtype.itemsize == 8 and np.finfo(chosen).nmant < 63
    return dtype.kind in "mMV" or chosen.kind == "V"


def _lost(array: np.ndarray, chosen: np.dtype) -> np.ndarray:
    """The values of an array that are others in another dtype."""
    if array.dtype.names is not None and chosen.names is not None:
        lost = [_lost(array[one], chosen[other]) for one, other in zip(array.dtype.names, chosen.names)]
        return next((one for one in lost if one.size), array[:0] if array.ndim else array.reshape(1)[:0])
    if (
        array.dtype.kind in "iu"
        and chosen.kind in "fc"
        and -_WHOLE <= array.min(initial=0)
        and array.max(initial=0) <= _WHOLE
    ):
        return array.reshape(-1)[:0]
    flat = np.ascontiguousarray(array).reshape(-1)
    with np.errstate(all="ignore"):
        try:
            cast = flat.astype(chosen)
        except OverflowError:  # dates that it does not reach, of which NumPy says so since 2.5
            return flat[[not _reached(one, chosen) for one in flat]]
        same = _bits(
            cast.real.astype(flat.dtype)
            if cast.dtype.kind == "c" and flat.dtype.kind in "iu"
            else cast.astype(flat.dtype)
        ) == _bits(flat)
    if flat.dtype.kind in "iu":  # to round up to a bound is to go beyond it
        same &= cast.real < 2.0 ** (64 if flat.dtype.kind == "u" else 63)
    return flat[~same]


def _reached(value: Any, chosen: np.dtype) -> bool:
    try:
        return bool(value.astype(chosen) == value or np.isnat(value))
    except OverflowError:
        return False


def _bits(array: np.ndarray) -> np.ndarray:
    """What tells values apart, those that are no numbers and no times too."""
    return array if array.dtype.kind in "iu" else array.view(f"V{array.dtype.itemsize}")


def _enumerated(alike: Iterable[np.dtype]) -> str:
    names = list(dict.fromkeys(map(str, alike)))
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _mend(function: str) -> str:
    apart = ", or keep them as they are with collate=as_list" if function in _LISTS else ""
    return f"make all of them of one dtype before (map){apart}"
