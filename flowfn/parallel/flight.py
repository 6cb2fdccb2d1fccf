"""The tasks of a pass that are out: sent, waited for, and sent again when their worker has ended.

A task is pure, so it may be done twice. One whose worker ended is sent again; if it was being worked on, its datapoints
are sent one by one, each a task of its own. Since every worker is a process alone, the datapoint that ends its worker
again and again is to blame, and is named.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field, replace
from typing import Any

from flowfn.failures import brief
from flowfn.kinds import Node
from flowfn.parallel.crew import Crew, Pace
from flowfn.parallel.links import Call, Link, Sent
from flowfn.parallel.pool import Gone
from flowfn.parallel.serving import perform_here
from flowfn.parallel.task import Feed, Reply, number_of_task
from flowfn.runs import Anchor

TRIES = 3
"""How often a datapoint may end its worker."""


class WorkerDied(RuntimeError):
    """A datapoint ended the worker process that worked on it, again and again: it was killed, or crashed, or ran out of memory.

    >>> issubclass(WorkerDied, RuntimeError)
    True
    """


@dataclass(slots=True)
class Task:
    """A task that is out, and what was known of the source before it and behind each of its inputs."""

    feed: Feed
    told: list[dict[int, Anchor]]
    sent: Sent
    deaths: int = 0


@dataclass
class Flight:
    """The tasks that are out, the oldest first."""

    link: Link
    crew: Crew
    pace: Pace
    call: Call = perform_here
    singles: Callable[[Feed], list[Feed]] = Feed.singles
    tasks: deque[Task] = field(default_factory=deque)
    timed_out: bool = False

    def __post_init__(self) -> None:
        self.process = os.getpid()

    def __len__(self) -> int:
        return len(self.tasks)

    def send(self, feed: Feed, told: list[dict[int, Anchor]]) -> None:
        """Send a task behind the others."""
        feed = replace(feed, work=self.link.work, number=number_of_task())
        self.tasks.append(Task(feed, told, self._out(feed)))

    def send_first(self, feed: Feed, told: list[dict[int, Anchor]]) -> None:
        """Send a task before the others."""
        self.send(feed, told)
        self.tasks.rotate()

    def send_rest(self, task: Task, skip: int) -> None:
        """Ask for what a task has behind its first `skip` outputs, before anything else."""
        task.feed = replace(task.feed, skip=skip)
        task.sent = self._out(task.feed, task.sent.worker)
        self.tasks.appendleft(task)

    def take(self) -> tuple[Task, Reply]:
        """Wait for the oldest task, or for any if they may come as they like."""
        if self.process != os.getpid():
            raise RuntimeError("a pass with workers cannot go on in a forked child; iterate the flow there, or load its state")
        while True:
            index = self._next()
            task = self.tasks[index]
            try:
                reply = task.sent.reply(self.crew.timeout)
            except Gone as gone:
                self._again(index, gone)
            except TimeoutError as error:
                raise self._late(task, error) from None
            else:
                del self.tasks[index]
                self.pace.learn(reply, len(task.feed) * task.feed.share)
                return task, reply

    def close(self) -> None:
        """Nobody wants what is out."""
        for task in self.tasks:
            task.sent.cancel()
        self.tasks.clear()
        self.link.close(wait=not self.timed_out)

    def _out(self, feed: Feed, worker: int | None = None) -> Sent:
        return self.link.send(feed, self.call, short=self.pace.short, worker=worker)

    def _next(self) -> int:
        if self.crew.ordered:
            return 0
        futures = [task.sent.future for task in self.tasks]
        done = wait(futures, self.crew.timeout, FIRST_COMPLETED).done
        return next((index for index, future in enumerate(futures) if future in done), 0)

    def _again(self, index: int, gone: Gone) -> None:
        """Send a task again whose worker has ended, its datapoints one by one if it was at work on them."""
        task = self.tasks[index]
        feeds = self.singles(task.feed) if gone.guilty else [task.feed]
        task.deaths += gone.guilty and len(feeds) == 1
        if task.deaths == TRIES:
            raise self._died(task, gone) from None
        told = task.told if len(task.told) == 1 else None
        again = [Task(feed, told or task.told[number : number + 2], self._out(feed), task.deaths) for number, feed in enumerate(feeds)]
        self.tasks.rotate(-index)
        self.tasks.popleft()
        self.tasks.extendleft(reversed(again))
        self.tasks.rotate(index)

    def _died(self, task: Task, gone: Gone) -> WorkerDied:
        where = f"in {_worked_on(self.link.top, task.feed)}, its datapoint "
        shown = "" if not task.feed.datapoints else f" (input {brief(task.feed.datapoints[0])})"
        error = WorkerDied(
            f"{TRIES} worker processes ended, one after the other, at work on one datapoint. It may crash them, end them (os._exit), "
            f"or need more memory than there is: make it in this process to see (flow[i], or prefetch with threads=). {gone.why}".strip()
        )
        return _located(error, where, shown, task.feed)

    def _late(self, task: Task, error: TimeoutError) -> TimeoutError:
        """The error for an output that did not come in time. The worker is ended; a thread goes on."""
        self.timed_out = True
        task.sent.end()
        what = f"{len(task.feed)} datapoints from" if len(task.feed) > 1 else "datapoint"
        late = TimeoutError(f"prefetch(): nothing came for timeout={self.crew.timeout} seconds")
        return _located(late, f"in {_worked_on(self.link.top, task.feed)}, {what} ", "", task.feed)


def _worked_on(top: Node, feed: Feed) -> Any:
    """The stage that numbers the datapoints of a task as the task does."""
    return top.part if feed.rows is None else top.sources[0].sources[0].part


def _located(error: Any, where: str, shown: str, feed: Feed) -> Any:
    """An error that says at which datapoint it was (see `failures.locate`)."""
    text = where.replace("{", "{{").replace("}", "}}") + "{}" + shown.replace("{", "{{").replace("}", "}}")
    block = feed.rows if feed.rows is not None else feed.block
    index, counted = (0, None) if block is None else (int(block[0]), -1)
    error.__flowfn__ = {"text": text, "index": index, "counted": counted}
    return error
