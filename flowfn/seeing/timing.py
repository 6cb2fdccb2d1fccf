"""How fast datapoints come."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from more_itertools import consume

from flowfn import rules
from flowfn.flows import sources
from flowfn.flows.iterating import FlowIterator
from flowfn.parallel.tasks.task import weight
from flowfn.seeing.progressing import bar as new_bar
from flowfn.seeing.progressing import bars, paced

_SCALES = {"B": ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")), "s": ((1, ""), (1e-3, "m"), (1e-6, "µ"))}


@dataclass(frozen=True, slots=True)
class Speed:
    """How many datapoints came, and about how many bytes they had; in how many seconds those behind the first of them
    did, and after how many that one, for which files are opened and workers begin.

    >>> print(Speed(5000, 2.0, 400_000_000, first=0.25))
    5000 datapoints in 2.00 s: 2500 datapoints/s, 200 MB/s; the first after 0.25 s
    """

    datapoints: int
    seconds: float
    bytes: int
    first: float = 0.0

    @property
    def per_second(self) -> float:
        """Datapoints per second, once they come."""
        return self._rate(self.datapoints)

    @property
    def bytes_per_second(self) -> float:
        """Bytes per second."""
        return self._rate(self.bytes)

    def _rate(self, count: int) -> float:
        timed = count * (1 - 1 / self.datapoints) if self.first else count  # the first came before the clock started
        return timed / self.seconds if self.seconds else math.inf if timed else 0.0

    def __str__(self) -> str:
        if not self.datapoints:
            return "no datapoints"
        ones = "1 datapoint" if self.datapoints == 1 else f"{self.datapoints} datapoints"
        if self.datapoints == 1 and self.first:
            return f"{ones}, after {_in_best_unit(self.first, 's')}"
        first = f"; the first after {self.first:.2f} s" if self.first else ""
        return (
            f"{ones} in {_in_best_unit(self.seconds, 's')}: {_three(self.per_second)} datapoints/s, "
            f"{_in_best_unit(self.bytes_per_second, 'B')}/s{first}"
        )


@rules.checked(n=rules.positive, warmup=rules.natural, bar=rules.optional(rules.boolean))
def speed(flow: Any, n: int = 5000, *, warmup: int = 0, bar: bool | None = None) -> Speed:
    """Read up to `n` datapoints as fast as they come, and say how long it took.

    `flow` is a flow, or anything that `flow` takes. What is read is the pass that the next `iter` would take, from its
    beginning, with its workers; the flow does not advance, so everything is still there afterwards (but an iterator or
    a queue gives each datapoint once). `warmup` datapoints come before, which are not counted, and the clock starts
    when the first of the others is there, so what it takes to begin, workers say, is told apart. It stops
    while datapoints are weighed: one in every few (at most 64) is, and stands for the others, so `bytes` is an estimate
    unless all are alike. A flow with less than `n` is read to its end.

    `bar=True` shows a bar on stderr, `bar=False` none; by default there is one if tqdm is installed.

    Raises:
        ImportError: `bar=True`, and tqdm is not installed: `pip install "flowfn[progress]"`.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(1000), ff.map(float), ff.batch(10))
    >>> measured = speed(flow, 50, warmup=5, bar=False)
    >>> measured.datapoints, measured.bytes, measured.per_second > 100, len(list(flow))
    (50, 4000, True, 100)
    """
    source = sources.flow(flow, "speed")
    length = source.node.length(source._look())
    begun = time.perf_counter()
    with source.run() as datapoints:
        consume(datapoints, warmup)
        with _perhaps_bar(bar, n if length is None else min(n, max(length - warmup, 0))) as shown:
            return _timed(datapoints, n, shown, begun)


def _timed(datapoints: FlowIterator[Any], n: int, shown: Any, begun: float) -> Speed:
    """The clock runs while datapoints come, in rows at C speed; the last one of a row is weighed."""
    read, seconds, size, step, first = 0, 0.0, 0, 1, 0.0
    while read < n:
        wanted, at = min(step, n - read), datapoints.position
        row = islice(datapoints, wanted)
        began = time.perf_counter()
        last = deque(row, maxlen=1)
        spent = time.perf_counter() - began
        count = datapoints.position - at
        if not read:
            first = began + spent - begun
        read, seconds, size = read + count, seconds + spent * bool(read), size + sum(map(weight, last)) * count
        shown.update(count)
        if count < wanted:
            break
        step = paced(step, spent)
    return Speed(read, seconds, size, first)


@contextlib.contextmanager
def _perhaps_bar(bar: bool | None, total: float) -> Iterator[Any]:
    """A bar; perhaps one that nobody sees."""
    if bar is None:
        with contextlib.suppress(ImportError):
            bars()
            bar = True
    if not bar:
        yield _Unseen()
        return
    with new_bar(total, desc="speed", unit=" datapoint") as shown:
        yield shown


class _Unseen:
    """A bar that nobody sees."""

    def update(self, count: int) -> None:
        """Show nothing."""


def _in_best_unit(value: float, unit: str) -> str:
    """A quantity in the unit that reads best: 12.3 MB, 4.56 ms.

    >>> _in_best_unit(12_345_678, "B"), _in_best_unit(0.00456, "s"), _in_best_unit(75, "s"), _in_best_unit(0, "B")
    ('12.3 MB', '4.56 ms', '75.0 s', '0 B')
    """
    for scale, prefix in _SCALES[unit]:
        if value >= scale:
            return f"{_three(value / scale)} {prefix}{unit}"
    return f"{_three(value)} {unit}"


def _three(value: float) -> str:
    """A number with three digits that count, none of them lost before the point."""
    if value in (0, math.inf) or value >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}"
