"""Values in words."""

from __future__ import annotations

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
