"""The tasks of a pass that are out: sent, waited for, and sent again when they failed on the way.

A task is pure, so it may be done twice. One whose worker ended is sent again; if it was being worked on, its datapoints
are sent one by one, each a task of its own, and so are those of a task that cannot be pickled or made again. Since
every worker is a process alone, the datapoint that is to blame is found, after all before it have been delivered.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

from flowfn.kinds.failures import failure_place, mark
from flowfn.kinds.runs import Anchor
from flowfn.parallel.crew import Crew, Pace
from flowfn.parallel.links import Link, Performer, Sent, Unfit
from flowfn.parallel.tasks.task import Feed, Reply, number_of_task
from flowfn.parallel.workers.answering import perform_here
from flowfn.parallel.workers.deaths import from_outside, tries, verdict, wait_before
from flowfn.parallel.workers.processes import Gone
from flowfn.showing import brief

START = 120.0
"""Seconds that workers may take to be ready, if a pass has a time limit; that limit, if it is longer."""

POLL = 0.1
"""Seconds after which it is asked again whether they are."""


class WorkerDied(RuntimeError):
    """A datapoint ended the worker process that worked on it, again and again: it was killed,
    or crashed, or ran out of memory.

    >>> issubclass(WorkerDied, RuntimeError)
    True
    """


def task_place(feed: Feed, what: Any, of: Any = None) -> dict[str, Any]:
    """Where a task is: in `what`, counted by its datapoints, or by those `of`."""
    block = feed.rows if feed.rows is not None else feed.block
    first = feed.first_input if block is None else int(block[0])
    count = len(feed) if feed.rows is None else len(feed.rows)
    last = "" if count == 1 else f" to {first + count - 1 if block is None else int(block[-1])}"
    shown = f" (input {brief(feed.datapoints[0])})" if feed.datapoints and count == 1 else ""
    whose, of_what = ("its", "") if of is None else ("at", f" of {of}")
    return failure_place(f"in {what}, {whose} datapoint{'s' * (count > 1)} ", first, f"{last}{of_what}{shown}")


@dataclass(slots=True, eq=False)
class PendingTask:
    """A task that is out, and what was known of the source before it and behind each of its inputs."""

    feed: Feed
    anchors: list[dict[int, Anchor]]
    sent: Sent
    deaths: int = 0
    kills: int = 0  # deaths by what came from outside
    reply: Reply | None = None  # if it came early


@dataclass
class Flight:
    """The tasks that are out, the oldest first."""

    link: Link
    crew: Crew
    pace: Pace
    call: Performer = perform_here
    singles: Callable[[Feed], list[Feed]] = Feed.singles
    where: Callable[[Feed], dict[str, Any]] | None = None
    tasks: deque[PendingTask] = field(default_factory=deque)
    timed_out: bool = False

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def ready(self) -> bool:
        """Whether something could be delivered at once."""
        return bool(self.tasks) and self.tasks[0].sent.future.done()

    @property
    def occupied(self) -> int:
        """How many tasks of the present size are out. Those that were smaller, and came early, count for less:
        or a slow one at the front would keep the others from their size."""
        early = [len(task.feed) for task in self.tasks if task.reply is not None]
        return len(self.tasks) - len(early) + -(-sum(early) // self.pace.size)

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do."""
        return sum(not task.sent.future.done() for task in self.tasks) < self.crew.workers

    def send(self, feed: Feed, anchors: list[dict[int, Anchor]]) -> None:
        """Send a task behind the others."""
        self.stay()
        feed = replace(feed, pass_id=self.link.pass_id, number=number_of_task())
        self.tasks.append(PendingTask(feed, anchors, self._out(feed)))

    def send_first(self, feed: Feed, anchors: list[dict[int, Anchor]]) -> None:
        """Send a task before the others."""
        self.send(feed, anchors)
        self.tasks.rotate()

    def send_rest(self, task: PendingTask, skip: int) -> None:
        """Ask for what a task has behind its first `skip` outputs, before anything else."""
        task.feed, task.deaths, task.reply = replace(task.feed, skip=skip), 0, None
        task.kills = 0
        task.sent = self._out(task.feed, task.sent.worker)
        self.tasks.appendleft(task)

    def take(self, coming: Future[None] | None = None) -> tuple[PendingTask, Reply] | None:
        """Wait for the oldest task, or for any if they may come as they like.

        None if more could be sent before that: others are done, or `coming` is.
        """
        self.stay()
        while True:
            if self.crew.ordered and self.pace.growing and self._learned(coming):
                return None
            index = self._next(coming)
            if index is None:
                return None
            task = self.tasks[index]
            try:
                reply = task.reply or task.sent.reply(self.crew.timeout)
            except (Gone, Unfit) as failure:
                self._again(index, failure)
            except TimeoutError:
                raise self._late(task) from None
            except Exception as error:
                if self.crew.executor is not None:
                    self._at(error, task)
                raise
            else:
                if reply is None:
                    continue
                del self.tasks[index]
                if task.reply is None:
                    self._learn(task, reply)
                for aside in reply.asides:
                    aside.arrive()
                return task, reply

    def stay(self) -> None:
        """Raise an error in a forked child: the pass is its parent's."""
        if self.link.inherited:
            raise RuntimeError(
                "a pass with workers cannot go on in a forked child; iterate the flow there, or load its state"
            )

    def close(self) -> None:
        """Nobody wants what is out."""
        if self.link.inherited:
            return
        for task in self.tasks:
            task.sent.cancel()
        self.tasks.clear()
        self.link.close(wait=not self.timed_out)

    def _out(self, feed: Feed, worker: int | None = None) -> Sent:
        return self.link.send(feed, self.call, short=self.pace.short, worker=worker)

    def _next(self, coming: Future[None] | None) -> int | None:
        """Which task is to be taken, or None if `coming` is done before.
        One whose worker lacks something is taken at once."""
        if self.crew.ordered and coming is None and self.crew.timeout is None and self.link.workers_informed:
            return 0
        began = time.monotonic()
        while True:
            futures = {task.sent.future: index for index, task in enumerate(self.tasks) if self._matters(index, task)}
            done = self._done([*futures], coming, began)
            found = [index for future, index in futures.items() if future in done]
            found = [index for index in found if index == 0 or not self.crew.ordered or self.tasks[index].sent.lacking]
            if found or (coming is not None and coming.done()):
                return min(found, default=None)

    def _matters(self, index: int, task: PendingTask) -> bool:
        """Whether a task is waited for: where they come in order the oldest,
        and those of workers that may lack something."""
        sent = task.sent
        return (
            index == 0
            or not self.crew.ordered
            or (not self.link.workers_informed and (sent.lacking or not sent.future.done()))
        )

    def _done(self, futures: list[Future[Any]], coming: Future[None] | None, began: float) -> set[Future[Any]]:
        """Wait until one of them is done, or what is coming."""
        every: list[Future[Any]] = futures if coming is None else [*futures, coming]
        while not (done := wait(every, self._patience(began), FIRST_COMPLETED).done):
            if self._patience(began) == 0:
                raise self._late(self._waited_for())
        return done

    def _patience(self, began: float) -> float | None:
        """Seconds that there are left to wait, which is counted from when a worker is ready."""
        if self.crew.timeout is None:
            return None
        since = self._waited_for().sent.since
        if since is None:
            return POLL if time.monotonic() < began + max(START, self.crew.timeout) else 0
        return max(max(began, since) + self.crew.timeout - time.monotonic(), 0)

    def _waited_for(self) -> PendingTask:
        """The oldest task; where they may come as they like, that whose worker has been ready for the longest time."""
        ready = [(since, at) for at, task in enumerate(self.tasks) if (since := task.sent.since) is not None]
        return self.tasks[0 if self.crew.ordered or not ready else min(ready)[1]]

    def _learn(self, task: PendingTask, reply: Reply) -> None:
        self.pace.learn(reply, len(task.feed) * task.feed.share, reply.more or task.feed.skip > 0)

    def _learned(self, coming: Future[None] | None) -> bool:
        """Whether something was learned from a task behind the oldest while that goes on, or `coming` is done."""
        waiting = [task for task in self.tasks if task.reply is None]
        if len(waiting) < 2 or waiting[0] is not self.tasks[0]:
            return False
        done = self._done([task.sent.future for task in waiting], coming, time.monotonic())
        if self.tasks[0].sent.future in done:
            return False
        early = next((task for task in waiting if task.sent.future in done), None)
        if early is None:
            return True
        if early.sent.failed and not early.sent.innocent:  # told when its turn comes
            return False
        try:
            early.reply = early.sent.reply(0)
        except Gone as failure:
            self._again(self.tasks.index(early), failure)
            return self._learned(coming)
        except Unfit:  # told when its turn comes
            return False
        if early.reply is None:  # its worker lacked something
            return self._learned(coming)
        self._learn(early, early.reply)
        return True

    def _late(self, task: PendingTask) -> Any:
        """The error for an output that did not come in time. The workers are ended; a thread goes on."""
        self.timed_out = True
        late = f"prefetch(): nothing came for timeout={self.crew.timeout} seconds"
        if task.sent.since is None:
            seconds = max(START, self.crew.timeout or 0)
            late = (
                f"prefetch(): worker processes were not ready within {seconds:g} seconds: they did not start, or did "
                "not finish what the "
                "flow's functions import and what setup= does (timeout= counts from then on); start them before, with "
                "warm_up()"
            )
        for one in self.tasks:  # whoever has something of this pass may hang as well
            one.sent.end()
        return self._at(TimeoutError(late), task)

    def _again(self, index: int, failure: Gone | Unfit) -> None:
        """Send a task again that did not come back, its datapoints one by one if it may be to blame."""
        task = self.tasks[index]
        blamed = isinstance(failure, Unfit) or failure.guilty
        feeds = self.singles(task.feed) if blamed else [task.feed]
        if blamed and len(feeds) == 1:
            if isinstance(failure, Unfit):
                raise self._at(TypeError(str(failure)), task) from failure.__cause__
            self._died(task, failure.how)
        told = task.anchors if len(task.anchors) == 1 else None
        again = [
            PendingTask(feed, told or task.anchors[number : number + 2], self._out(feed), task.deaths, task.kills)
            for number, feed in enumerate(feeds)
        ]
        self.tasks.rotate(-index)
        self.tasks.popleft()
        self.tasks.extendleft(reversed(again))
        self.tasks.rotate(index)

    def _died(self, task: PendingTask, how: str) -> None:
        """Count a death to a datapoint. One that came from outside may have had another reason, which may pass."""
        killed = from_outside(how)
        task.deaths, task.kills = task.deaths + (not killed), task.kills + killed
        count = task.kills if killed else task.deaths
        if count >= tries(how):
            relief = getattr(self.crew.executor, "relief", "")
            raise self._at(WorkerDied(verdict(how, count, relief)), task) from None
        if killed:
            time.sleep(wait_before(count))

    def _at(self, error: Any, task: PendingTask) -> Any:
        """An error that says at which datapoint it was."""
        mark(error, self.where(task.feed) if self.where is not None else task_place(task.feed, self.link.top.part))
        return error
