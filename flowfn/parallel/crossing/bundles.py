"""Many small arrays on their way: to take each apart for pickle costs far more than to copy its bytes.

Datapoints of one form travel by components, and the arrays of a component as a list of their bytes,
its numbers of NumPy's as one array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np

from flowfn.datapoints.buffers import SMALL
from flowfn.parallel.crossing.reducers import is_plain

CONTIGUOUS, WRITEABLE = 0x1, 0x400
"""Of the flags of an array, as NumPy counts them."""

FEW_TO_BUNDLE = 4
"""Up to so many datapoints go as they are."""

BUNDLED_LEVELS = 4
"""So many levels of lists, tuples and dicts are looked into."""


HOLDS_NOTHING = frozenset({bool, int, float, complex, str, bytes, type(None)})
"""Types of values in which nothing else is."""


class Bundle:
    """Datapoints that travel together: pickle makes a list of them again."""

    __slots__ = ("made",)

    def __init__(self, make: Callable[..., list[Any]], *arguments: Any) -> None:
        self.made = make, arguments

    def __reduce__(self) -> Any:
        return self.made


def bundled(datapoints: list[Any]) -> Any:
    """What to pickle in the place of datapoints, which is made a list of the same again: they, or a bundle.

    What is there more than once travels once, and so is once there again: that is left to pickle, and so is what may
    hold something that is elsewhere too.
    """
    met: list[int] = []
    if len(datapoints) <= FEW_TO_BUNDLE or not _holds_numpy(datapoints[0]):
        return datapoints
    try:
        made = _bundled(datapoints, met, 0)
    except _Other:
        return datapoints
    return made if len({*met}) == len(met) else datapoints


class _Other(Exception):
    """There is something that may hold anything."""


def _holds_numpy(datapoint: Any, depth: int = 0) -> bool:
    """Whether an array, or a number of NumPy's, is in a datapoint."""
    if type(datapoint) in (list, tuple, dict) and depth <= BUNDLED_LEVELS:
        inner = datapoint.values() if type(datapoint) is dict else datapoint
        return any(_holds_numpy(one, depth + 1) for one in inner)
    return isinstance(datapoint, (np.ndarray, np.generic))


def _bundled(values: list[Any], met: list[int], depth: int) -> Any:
    kinds = {*map(type, values)}
    if all(kind in HOLDS_NOTHING or issubclass(kind, np.generic) for kind in kinds):
        (kind, *others) = kinds
        plain = not others and issubclass(kind, np.generic) and np.dtype(kind).type is kind
        return Bundle(list, np.array(values)) if plain and is_plain(np.dtype(kind)) else values
    kind = kinds.pop()
    if kinds or depth > BUNDLED_LEVELS or kind not in (np.ndarray, list, tuple, dict):
        raise _Other
    met.extend(map(id, values))
    if kind is np.ndarray:
        return _bundled_arrays(values)
    keys = tuple(values[0]) if kind is dict else ()
    if len({*map(len, values)}) > 1 or (kind is dict and not all(map(partial(_has_keys, keys), values))):
        raise _Other
    columns = [*zip(*(map(dict.values, values) if kind is dict else values))]
    made = [_bundled([*column], met, depth + 1) for column in columns]
    return Bundle(_made_rows, kind, keys, made) if any(type(one) is Bundle for one in made) else values


def _has_keys(keys: tuple[Any, ...], value: dict[Any, Any]) -> bool:
    """Whether a dict has these names in this order; what equals a name, or a number, may be something else."""
    return tuple(value) == keys and {*map(type, value)} <= {str}


def _bundled_arrays(arrays: list[np.ndarray]) -> Any:
    """Arrays of one dtype as their shapes and their bytes."""
    dtypes, flags = {*map(id, map(attrgetter("dtype"), arrays))}, {*map(attrgetter("flags.num"), arrays)}
    alike = len(dtypes) == 1 and len({one & WRITEABLE for one in flags}) == 1 and is_plain(arrays[0].dtype)
    small = max(map(attrgetter("nbytes"), arrays)) < SMALL  # others may stay where they are
    if not (alike and small and all(one & CONTIGUOUS for one in flags)):
        return arrays
    stored = bytearray if arrays[0].flags.writeable else np.ndarray.tobytes
    return Bundle(_made_arrays, arrays[0].dtype, [*map(attrgetter("shape"), arrays)], [*map(stored, arrays)])


def _made_arrays(dtype: np.dtype, shapes: list[Any], stored: list[bytes]) -> list[Any]:
    return [*map(np.ndarray, shapes, repeat(dtype), stored)]  # type: ignore[arg-type]


def _made_rows(kind: Callable[..., Any], keys: Sequence[Any], columns: list[list[Any]]) -> list[Any]:
    rows = zip(*columns)
    if kind is dict:
        return [*map(dict, map(zip, repeat(keys), rows))]
    return [*rows] if kind is tuple else [*map(kind, rows)]
