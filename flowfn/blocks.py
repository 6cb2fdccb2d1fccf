"""Indices on their way to the sources: in blocks, in the order in which they are wanted."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, tee
from typing import Any, TypeAlias

import numpy as np

from flowfn.process import forks

Block: TypeAlias = "range | np.ndarray"
"""Some indices, in the order in which they are wanted: at most `BLOCK` of them."""

BLOCK = 4096


def blocks(start: int, stop: float) -> Iterator[range]:
    """The indices from `start` to `stop` (which may be `math.inf`) as a lazy series of blocks."""
    if stop == math.inf:
        stop = sys.maxsize
    while start < stop:
        yield range(start, min(start + BLOCK, int(stop)))
        start += BLOCK


def ints(block: Block) -> Iterable[int]:
    """The indices of a block as Python ints."""
    return block if type(block) is range else block.tolist()


def shared(series: Iterator[Block], count: int) -> tuple[Iterator[Block], ...]:
    """So many iterators over one series of blocks, which may be advanced in different threads (`tee` alone may not)."""
    lock = forks.lock()
    return tuple(_locked(copy, lock) for copy in tee(series, count))


def _locked(series: Iterator[Block], lock: Any) -> Iterator[Block]:
    while True:
        with lock:
            block = next(series, None)
        if block is None:
            return
        yield block


def cut(series: Iterable[Block], sizes: Iterable[int]) -> Iterator[Block]:
    """The indices of a series, cut anew into blocks of the given sizes."""
    series = iter(series)
    rest: Block = range(0)
    for size in sizes:
        while len(rest) < size:
            more = next(series)
            rest = more if not len(rest) else np.concatenate([np.asarray(rest, np.int64), np.asarray(more, np.int64)])
        yield rest[:size]
        rest = rest[size:]


def each_index(series: Iterable[Block]) -> Iterator[int]:
    """The indices of a series, one at a time."""
    return chain.from_iterable(map(ints, series))
