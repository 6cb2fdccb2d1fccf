"""What datapoints cost: a user's function of their lengths, as integers whose sums are exact on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from flowfn.showing import as_written, brief

Cost: TypeAlias = "Callable[[np.ndarray], Any]"
"""A function of an array of lengths, (n,) int64, or (n, k) where a datapoint has k of them: n costs >= 0."""


def costs_of(word: str, cost: Cost | None, lengths: np.ndarray) -> np.ndarray:
    """The costs of datapoints of these lengths, (n,) float64; without a function, the lengths (or their sums).

    Raises:
        TypeError: the function fails on an array, or gives no array of numbers.
        ValueError: it gives another shape, or costs that are negative or not finite.

    >>> costs_of("pack", lambda n: n + n * n, np.array([1, 2, 3])).tolist()
    [2.0, 6.0, 12.0]
    """
    if cost is None:
        return lengths.reshape(len(lengths), -1).sum(1).astype(np.float64)
    says = (
        f"{word}(): cost must be a function of an array of lengths that returns as many costs, such as "
        f"lambda n: n + 0.001 * n * n; {as_written(cost)}"
    )
    try:
        costs = np.asarray(cost(lengths.copy()))
    except Exception as error:
        raise TypeError(f"{says} failed on {brief(lengths)}: {error}") from error
    if costs.dtype.kind not in "iufb":
        raise TypeError(f"{says} returned {brief(costs)}")
    if costs.shape != lengths.shape[:1]:
        raise ValueError(f"{says} returned shape {costs.shape} for {len(lengths)} lengths")
    costs = costs.astype(np.float64)
    if not np.all(np.isfinite(costs)) or costs.min(initial=0) < 0:
        raise ValueError(f"{says} returned {brief(costs)}: a cost must be finite and not negative")
    return costs


def as_integers(costs: np.ndarray) -> np.ndarray:
    """Costs in one unit, a power of two so small that their sums just fit, twice over: (n,) int64.

    Sums of floats depend on the order in which a processor adds them, and two ranks might come to different plans.

    >>> as_integers(np.array([1.0, 0.5])).tolist() == [2**58, 2**57]
    True
    """
    _, exponent = np.frexp(costs.max(initial=0.0))
    return np.rint(np.ldexp(costs, 61 - len(costs).bit_length() - int(exponent))).astype(np.int64)
