"""Values and calls in words."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_brief_repr = reprlib.Repr()
_brief_repr.maxstring = _brief_repr.maxother = 60
_SEQUENCES: tuple[Any, ...] = (list.__repr__, tuple.__repr__)
"""How lists and tuples show themselves, and classes of them that show themselves alike."""


def brief(value: Any, depth: int = 6) -> str:
    """A datapoint in one short line: arrays by dtype and shape.

    >>> import numpy as np
    >>> brief([np.zeros((2, 3)), "name", {"label": 1}])
    "[float64 array (2, 3), 'name', {'label': 1}]"
    """
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    if type(value).__repr__ not in _SEQUENCES and not isinstance(value, Mapping):
        return _brief_repr.repr(value)
    if not depth:
        return "..."
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {brief(v, depth - 1)}" for k, v in list(value.items())[:6]) + "}"
    items = ", ".join(brief(item, depth - 1) for item in value[:6]) + (", ..." if len(value) > 6 else "")
    return f"[{items}]" if isinstance(value, list) else f"({items}{',' if len(value) == 1 else ''})"


def as_called(name: str, /, *given: str, **options: str) -> str:
    """A call of a function, whose arguments are in words already.

    >>> as_called("map", "abs", rng="True")
    'map(abs, rng=True)'
    """
    return f"{name}({', '.join([*given, *(f'{option}={word}' for option, word in options.items())])})"


def as_written(value: Any) -> str:
    """A value as it was written in a call: functions by their names, also inside containers and partials."""
    if type(value) in (list, tuple) and any(map(callable, value)):
        items = ", ".join(map(as_written, value))
        return f"[{items}]" if type(value) is list else f"({items}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping) and any(map(callable, value.values())):
        return "{" + ", ".join(f"{key!r}: {as_written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, functools.partial):
        keywords = {name: as_written(one) for name, one in value.keywords.items()}
        return as_called("partial", *map(as_written, (value.func, *value.args)), **keywords)
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return brief(value)
