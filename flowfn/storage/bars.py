"""Writing without bars: where many files are written at once, one bar is enough, and another shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_hushed: ContextVar[bool] = ContextVar("hushed", default=False)


def is_hushed() -> bool:
    """Whether no bar is to be shown here."""
    return _hushed.get()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """No bars in here.

    >>> with hushed():
    ...     is_hushed()
    True
    >>> is_hushed()
    False
    """
    before = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(before)
