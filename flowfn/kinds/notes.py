"""What is written on errors: notes for people, marks for those further down,
past whatever a class does when an attribute is set."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

written: Callable[[BaseException], dict[str, Any]] = BaseException.__dict__["__dict__"].__get__
"""All that is written on an error, as a dict that may be written to."""

frames: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
"""The traceback of an error."""


def add_note(error: BaseException, text: str) -> None:
    """Add a note to an error, of a class too that lets nobody add one.

    >>> error = KeyError("a")
    >>> add_note(error, "b")
    >>> error.__notes__
    ['b']
    """
    known = written(error).get("__notes__")
    written(error)["__notes__"] = [*(known if isinstance(known, (list, tuple)) else ()), text]


def trace(error: BaseException) -> str:
    """The traceback of an error, as Python would print it."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # what its class does when it is looked at
        return "".join([*traceback.format_tb(frames(error)), type(error).__name__])
