"""Datasets that fit into memory: arrays read from files when they are first wanted, and rows of them as datapoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flowfn.datapoints.columns import Columns
from flowfn.flows.flow import Flow
from flowfn.flows.sources import ArraysNode, Source
from flowfn.process import forks


class LazyColumns(Columns):
    """Arrays of equal length that `read(*arguments)` returns, read once in each process that wants them.

    It pickles as the function and its arguments, so it is small; rows are read-only views.
    """

    def __init__(self, read: Callable[..., Sequence[np.ndarray]], *arguments: Any) -> None:
        self.__setstate__((read, arguments))

    def __getattr__(self, name: str) -> Any:
        if name not in ("arrays", "stackables"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _reading_lock:
            if "arrays" not in vars(self):
                super().__init__(list(self.read(*self.arguments)))
        return vars(self)[name]

    def __getstate__(self) -> Any:
        return self.read, self.arguments

    def __setstate__(self, state: Any) -> None:
        self.read, self.arguments = state
        self.keys, self.bare = None, False


def in_memory_flow(name: str, shown: str, read: Callable[..., Sequence[np.ndarray]], *arguments: Any) -> Flow[Any]:
    """The flow of the rows of arrays that `read(*arguments)` returns."""
    return Flow(Source(LazyColumns(read, *arguments), ArraysNode, name=name, shown=shown))


def labels_below(count: int, labels: np.ndarray, who: str, path: str) -> np.ndarray:
    """Labels as int64.

    Raises:
        ValueError: one of them is no integer in [0, count).
    """
    wrong = np.flatnonzero(~((labels >= 0) & (labels < count) & (labels == np.trunc(labels))))  # NaN is wrong too
    if wrong.size:
        raise ValueError(
            f"{who}(): {path!r} is damaged: the label of datapoint {wrong[0]} is {labels[wrong[0]]}, "
            f"and must be an integer in 0..{count - 1}"
        )
    return labels.astype(np.int64)


_reading_lock = forks.lock()
