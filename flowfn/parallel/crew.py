"""Who does the work of a prefetch, and how it is paced."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

from flowfn.blocks import BLOCK, Block
from flowfn.parallel.tasks.surroundings import Setup
from flowfn.parallel.tasks.task import Reply

TASK_SECONDS = 0.02
"""How long a task should take: long enough to be worth sending, short enough to share the work out evenly."""

SPARE_BYTES = 1 << 20
"""How much a window may hold beyond `ahead`, where tasks are larger than that."""


CACHED_BYTES = 8 << 20
"""How much a task may give where it could give less: what was just written is then still in a processor's cache."""

LONG_TASK_SECONDS = 0.1
"""How long a worker should be at a task that has very many outputs before it gives what it has."""

NEWEST = 9
"""From how many tasks it is learned what the next will take."""

PARTS = 4
"""Parts for each worker in which a large output is made."""

LIMIT = 16
"""Outputs that a task with any number of them gives at once at least."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the work: how many workers, how far ahead, and what else a prefetch was told."""

    workers: int
    ahead: int
    processes: bool = False
    executor: Executor | None = None
    ordered: bool = True
    max_bytes: int | None = None
    timeout: float | None = None
    worker_threads: int | None = 1
    setup: Setup | None = None
    inner: bool = False  # whether what they make goes to a stage here, and not to whoever iterates
    readers: int = 1  # how many there are of these at once, each of which reads something else

    @property
    def remote(self) -> bool:
        """Whether tasks leave this process, and so have to be pickled."""
        return self.processes or not (self.executor is None or isinstance(self.executor, ThreadPoolExecutor))


class Pace:
    """How many datapoints a task takes, and how many tasks are out, from what the last ones took."""

    def __init__(self, crew: Crew) -> None:
        self.crew, self.size = crew, 1
        self.costs: tuple[float, ...] = ()  # seconds for a datapoint, in the newest tasks
        self.growing = True  # whether tasks are still smaller than they might be
        self.weight = 0  # bytes of an output
        self.bytes = 0  # of what a task gives
        self.outputs = 0  # that would take `LONG_TASK_SECONDS`

    def again(self) -> Pace:
        """For the next pass, which need not learn it anew."""
        return copy.copy(self)

    def learn(self, reply: Reply, datapoints: float, large: bool = False) -> None:
        """Aim at `TASK_SECONDS`, growing by at most four times at once.
        A `large` datapoint gives more than is wanted at once."""
        self.costs = (*self.costs, max(reply.seconds, 1e-7) / datapoints)[-NEWEST:]  # another pass may be looking
        fit = int(TASK_SECONDS / self.cost)
        beyond = max((CACHED_BYTES if self.crew.inner else SPARE_BYTES) // max(reply.size, 1), 1)
        cached = max(CACHED_BYTES // max(reply.size, 1), 1)
        most = 1 if large else max(1, min(fit, BLOCK, cached, max(self.crew.ahead, beyond), self._bound(reply.size)))
        self.size = min(4 * self.size, most)
        self.growing = self.size < most
        self.outputs = min(int(LONG_TASK_SECONDS * len(reply.outputs) / max(reply.seconds, 1e-7)), cached)
        if reply.outputs:
            self.weight = reply.size
        self.bytes = self.weight * max(len(reply.outputs), self.size, self.limit if large else 1)

    def _bound(self, weight: int) -> int:
        """How many outputs a task may have, so that there is room for one of each worker."""
        if self.crew.max_bytes is None:
            return BLOCK
        return max(1, self.crew.max_bytes // (self.crew.workers + 1) // weight) if weight else 1

    @property
    def cost(self) -> float:
        """Seconds for a datapoint: what is in the middle, so that a few that take long change nothing."""
        return median(self.costs)

    @property
    def parts(self) -> int:
        """In how many parts an output is made that takes longer than a task should;
        as long as nobody knows, each is."""
        return PARTS * self.crew.workers if not self.costs or self.cost > 2 * PARTS * TASK_SECONDS else 1

    def window(self, parts: int = 1) -> int:
        """How many tasks may be out at once, where each output is made in so many parts."""
        ahead = 1 if self.growing and parts == 1 else -(-self.crew.ahead * parts // self.size)
        wanted = self.crew.workers + max(ahead, self.crew.workers if self.crew.inner else 1)
        return (
            wanted
            if self.crew.max_bytes is None
            else max(1, min(wanted, parts * self.crew.max_bytes // max(self.bytes, 1)))
        )

    @property
    def short(self) -> bool:
        """Whether a task takes so little time that a worker should have the next one at hand."""
        return bool(self.costs) and self.cost * self.size < 3 * TASK_SECONDS

    @property
    def limit(self) -> int:
        """How many outputs a task that may have any number of them gives at once."""
        most = max(self.crew.ahead, self.outputs, LIMIT)
        return most if self.crew.max_bytes is None else min(most, self._bound(self.weight))

    @property
    def reading_limit(self) -> int:
        """How many outputs one of several readers gives at once; the first that there are tell how large they are."""
        most = max(CACHED_BYTES // self.crew.readers, SPARE_BYTES)
        return (
            max(1, min(max(self.outputs, LIMIT), most // self.weight, self._bound(self.weight))) if self.weight else 1
        )

    def pieces(self, series: Iterator[Block]) -> Iterator[Block]:
        """A series of blocks in pieces of the size of the moment."""
        for block in series:
            at = 0
            while at < len(block):
                size = self.size
                yield block[at : at + size]
                at += size
