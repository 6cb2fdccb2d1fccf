"""Who does the work, how it is paced, and how a task that is out is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from flowfn.parallel.task import Reply
from flowfn.runs import BLOCK, Block

TASK_SECONDS = 0.02
"""How long a task should take: long enough to be worth sending, short enough to share the work out evenly."""

SPARE_BYTES = 1 << 20
"""How much a window may hold beyond `ahead`, where tasks are larger than that."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the work: how many workers, how far ahead, and how to get them."""

    workers: int
    ahead: int
    executor: Callable[[], Executor]
    release: Callable[[Executor], None]
    remote: bool  # whether tasks leave this process, and so have to be pickled


class Pace:
    """How many datapoints a task takes, from how long the last ones took."""

    def __init__(self, crew: Crew) -> None:
        self.crew, self.size = crew, 1

    def learn(self, reply: Reply, datapoints: int) -> None:
        """Aim at `TASK_SECONDS`, growing by at most four times at once."""
        fit = int(TASK_SECONDS * datapoints / max(reply.seconds, 1e-7))
        beyond = max(SPARE_BYTES // max(reply.size, 1), 1)
        self.size = max(1, min(fit, 4 * self.size, BLOCK, max(self.crew.ahead, beyond)))

    @property
    def window(self) -> int:
        """How many tasks may be out at once."""
        return self.crew.workers + max(-(-self.crew.ahead // self.size), 1)

    def pieces(self, series: Iterator[Block]) -> Iterator[Block]:
        """A series of blocks in pieces of the size of the moment."""
        for block in series:
            at = 0
            while at < len(block):
                size = self.size
                yield block[at : at + size]
                at += size


class Remote(Exception):
    """The traceback of an error in a worker, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Waiting:
    """A task that is out. A worker that does not know the tree is told it."""

    def __init__(self, future: Future[Any], again: Callable[[], Future[Any]] | None) -> None:
        self.future, self.again = future, again

    def __call__(self) -> Reply:
        reply = self.future.result()
        if reply is None and self.again is not None:
            self.future = self.again()
            reply = self.future.result()
        return reply

    def cancel(self) -> None:
        """Do not do it, unless it is being done."""
        self.future.cancel()
