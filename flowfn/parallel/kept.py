"""A whole tree in the one worker that there is, stages that see the whole stream included."""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from flowfn.kinds import Node
from flowfn.parallel.crew import Crew, Pace, Remote, Waiting
from flowfn.parallel.plan import packed
from flowfn.parallel.task import Feed, continue_pass, end_pass
from flowfn.runs import Anchor, Outputs, Run
from flowfn.tallies import anchors


class Kept(Node):
    """A whole tree in the one worker that there is: the pass is an iterator that the worker keeps."""

    def __init__(self, top: Node, crew: Crew) -> None:
        super().__init__(top.part, (), top.place, None)
        self.top, self.crew = top, crew
        self.rank, self.world, self.guarded = top.rank, top.world, top.guarded

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on; a worker that lost the pass makes it anew from the last anchors."""
        facts: dict[int, Anchor] = dict(run.anchors)
        return Outputs(self._out(run, start, lineage, facts), None, (), start, lambda: facts)

    def _out(self, run: Run, start: int, lineage: bool, facts: dict[int, Anchor]) -> Iterator[Any]:
        name, pace = uuid.uuid4().hex, Pace(self.crew)
        digest, pickled = packed(self.top)
        executor = self.crew.executor()
        pending: deque[tuple[Waiting, int]] = deque()
        known = {**run.anchors, **run.tallies.facts()}
        ended, window = False, 1  # one at first: it tells the worker the tree
        try:
            while True:
                while len(pending) < window and not ended:
                    feed = Feed(run.seed, run.epoch, run.base, start=start, anchors=known, lineage=lineage)
                    task = (name, feed, pace.size)
                    pending.append((self._submit(executor, digest, pickled, task), pace.size))
                    start += pace.size
                waiting, count = pending.popleft()
                reply = waiting()
                pace.learn(reply, count)
                ended, window = ended or reply.ended, pace.window
                for output, told in zip(reply.outputs, reply.facts or ()):
                    facts.clear()
                    facts.update(anchors(told))
                    run.tallies.take(told)
                    known = {**known, **told}
                    yield output
                run.tallies.take(reply.last)
                if reply.error is not None:
                    raise reply.error from Remote(reply.text)
                if reply.ended:
                    return
        finally:
            for waiting, _ in pending:
                waiting.cancel()
            with contextlib.suppress(RuntimeError):  # the pool is gone already, and the pass with it
                executor.submit(end_pass, name)

    def _submit(self, executor: Executor, digest: bytes, pickled: bytes, task: tuple[str, Feed, int]) -> Waiting:
        return Waiting(
            executor.submit(continue_pass, digest, None, *task),
            lambda: executor.submit(continue_pass, digest, pickled, *task),
        )
