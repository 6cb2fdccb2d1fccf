"""What the arguments of augmentors must be, and what they mean where there are two ways to write one."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from flowfn.rules import Rule, is_integer, is_number, one_of

FillColor: TypeAlias = "float | tuple[float, ...]"
"""What to paint with: one number, or one for each channel."""
Range: TypeAlias = "float | tuple[float, float]"
"""From where a number is drawn: (low, high), or one number n for (-n, n)."""
ImageSize: TypeAlias = "int | tuple[int, int]"
"""(height, width) in pixels, or one integer for a square."""


def is_pair(value: Any, of: Any = is_number) -> bool:
    """Whether a value is a tuple (or list) of two numbers, or of two of another kind."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(of, value))


def ordered(value: Any) -> bool:
    """Whether a number, or a pair from low to high, is finite and in order."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    return bool(pair[0] <= pair[1] and np.isfinite(pair).all())


def between(low: float, high: float) -> Rule:
    """A number of an interval, its ends included."""
    return Rule(f"a number from {low} to {high}", is_number, lambda value, others: low <= value <= high)


def interval(low: float, words: str) -> Rule:
    """A pair (low, high) of numbers above a bound."""
    return Rule(
        f"a pair (low, high) of {words}, low <= high",
        is_pair,
        lambda value, others: low < value[0] and ordered(value),
    )


probability = between(0, 1)
share = between(0, 1)
finite_number = Rule("a finite number", is_number, lambda value, others: bool(np.isfinite(value)))
positive_number = Rule("a positive number", is_number, lambda value, others: 0 < value < np.inf)
size = Rule(
    "a positive integer, or (height, width) of two",
    lambda value: is_integer(value) or is_pair(value, is_integer),
    lambda value, others: min(value) > 0 if isinstance(value, (tuple, list)) else value > 0,
)
length = Rule(
    "a positive integer, or a pair (low, high) of two, low <= high",
    lambda value: is_integer(value) or is_pair(value, is_integer),
    lambda value, others: 0 < value[0] <= value[1] if isinstance(value, (tuple, list)) else value > 0,
)
span = Rule(
    "a number (n means -n to n) or a pair (low, high), low <= high",
    lambda value: is_number(value) or is_pair(value),
    lambda value, others: ordered(value) and (isinstance(value, (tuple, list)) or value >= 0),
)
fill = Rule(
    "a number, or a tuple of one for each channel",
    lambda value: is_number(value) or (isinstance(value, (tuple, list)) and bool(value) and all(map(is_number, value))),
)
single_fill = Rule("a number", is_number)
border = one_of("constant", "edge", "reflect", "symmetric", "wrap")
interpolation = one_of("nearest", "linear", "cubic", "lanczos")
resize_interpolation = one_of("nearest", "linear", "cubic", "area", "lanczos")


def as_size(value: ImageSize) -> tuple[int, int]:
    """Height and width.

    >>> as_size(3), as_size((3, 4))
    ((3, 3), (3, 4))
    """
    return (value[0], value[1]) if isinstance(value, tuple) else (value, value)


def as_range(value: Range) -> tuple[float, float]:
    """Low and high.

    >>> as_range(3), as_range((1, 4))
    ((-3, 3), (1, 4))
    """
    return (value[0], value[1]) if isinstance(value, tuple) else (-value, value)


def at_share(value: tuple[float, float], share: float) -> float:
    """A number of the interval, by a share from 0 to 1.

    >>> at_share((10, 20), 0.25)
    12.5
    """
    return value[0] + (value[1] - value[0]) * share


def drawn_integer(low: int, high: int, share: float) -> int:
    """One of the integers `low` to `high`, all alike, by a share from 0 to 1 (1 excluded).

    >>> [drawn_integer(3, 5, share) for share in (0.0, 0.34, 0.99)]
    [3, 4, 5]
    """
    return low + int(share * (high - low + 1))
