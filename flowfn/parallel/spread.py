"""A stretch of stages spread over workers: blocks go out, outputs come back in order, and nothing else can be told."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

from flowfn.kinds import Node
from flowfn.orders import Reader
from flowfn.parallel.plan import Stretch, packed
from flowfn.parallel.task import Feed, Reply, continue_pass, end_pass, perform, perform_known
from flowfn.runs import BLOCK, Anchor, Block, Epoch, Length, Outputs, Run, blocks, ints

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


class Spread(Node):
    """Stands in a tree for a stretch that workers run."""

    def __init__(self, stretch: Stretch, crew: Crew) -> None:
        top = stretch.top
        super().__init__(top.part, (), top.place, None)
        self.stretch, self.crew = stretch, crew
        self.rank, self.world, self.seekable = top.rank, top.world, top.seekable

    def length(self, run: Run) -> Length:
        """That of the stretch."""
        return self.stretch.top.length(run)

    def labels(self, run: Run) -> tuple[int, int]:
        """Those of the stretch."""
        return self.stretch.top.labels(run)

    def unknown(self) -> str:
        """What the stretch says."""
        return self.stretch.top.unknown()

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs at the indices of a series, made by workers."""
        plain = Feed(run.seed, run.epoch, run.base)
        work = _Work(self, run, plain, 0, {})
        return Outputs(work.out(work.by_index(series)), None, (), 0, work.tell)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on, made by workers."""
        if self.seekable:
            return super().stream(run, start, lineage)
        position, standing = start, dict[int, int]()
        for node in reversed(self.stretch.counted()):
            known = run.anchor(node, position)
            standing[node.place] = known.outputs
            position = known.inputs[0]
        plain = Feed(run.seed, run.epoch, run.base, lineage=lineage)
        work = _Work(self, run, plain, position, standing)
        work.opening = {"start": start, "anchors": run.anchors}
        bottom = self.stretch.bottom
        if bottom.seekable:
            feeds = work.by_index(blocks(position, bottom.length(run)))  # type: ignore[arg-type]
        else:
            feeds = work.by_value(
                bottom.stream(run, position, lineage or self.stretch.wants_labels()), lineage or self.stretch.wants_labels()
            )
        return Outputs(work.out(feeds), None, (), start, work.tell)


class _Work:
    """One pass over a spread stretch: what has been handed out, what has come back, where the counting nodes stand."""

    opening: Mapping[str, Any] = {}

    def __init__(self, spread: Spread, run: Run, plain: Feed, position: int, standing: dict[int, int]) -> None:
        self.stretch, self.crew, self.run, self.plain = spread.stretch, spread.crew, run, plain
        self.pace = Pace(spread.crew)
        self.position, self.standing = position, standing
        self.counted = self.stretch.counted()
        self.facts: dict[int, Anchor] = {}
        self.told: deque[dict[int, Anchor]] = deque()
        self.closing: list[Callable[[], None]] = []
        self.top: Node
        self.tree: tuple[bytes, bytes] | None = None

    def tell(self) -> dict[int, Anchor]:
        """The anchors at the last output delivered."""
        return self.facts

    # Going out

    def by_index(self, series: Iterator[Block]) -> Iterator[Feed]:
        """A task for each piece of a series of indices of the bottom, with what the workers cannot read themselves."""
        self.top, stay = self.stretch.for_worker(self.run, self.crew.remote)
        if not stay:
            for piece in self.pace.pieces(series):
                yield replace(self.plain, block=piece)
            return
        series, again = itertools.tee(series)
        supply = Supply(self.stretch.bottom, self.run, stay, again)
        self.closing.append(supply.close)
        for piece in self.pace.pieces(series):
            yield replace(self.plain, block=piece, supply=supply.of(piece))

    def by_value(self, source: Outputs, labelled: bool) -> Iterator[Feed]:
        """A task for every few datapoints of the stream at the bottom, which is made here."""
        self.top, _ = self.stretch.for_worker(self.run, self.crew.remote)
        self.closing.append(source.close)
        while True:
            self.told.append(source.facts())
            taken = list(itertools.islice(source, self.pace.size))
            if not taken:
                return
            if labelled:
                yield replace(self.plain, datapoints=[d for d, _ in taken], labels=[label for _, label in taken])
            else:
                yield replace(self.plain, datapoints=taken)

    def _submit(self, executor: Executor, feed: Feed) -> Callable[[], Reply]:
        if not self.crew.remote:
            future: Future[Any] = executor.submit(perform, self.top, feed)
            return _Waiting(future, None)
        if self.tree is None:
            self.tree = packed(self.top)
        digest, pickled = self.tree
        return _Waiting(
            executor.submit(perform_known, digest, None, feed),
            lambda: executor.submit(perform_known, digest, pickled, feed),
        )

    # Coming back

    def out(self, feeds: Iterator[Feed]) -> Iterator[Any]:
        """The outputs, in order, while the next are being made."""
        executor = self.crew.executor()
        pending: deque[tuple[Any, Feed]] = deque()
        first = True
        try:
            while True:
                while len(pending) < self.pace.window:
                    feed = next(feeds, None)
                    if feed is None:
                        break
                    if first:
                        feed, first = replace(feed, **self.opening), False
                    pending.append((self._submit(executor, feed), feed))
                if not pending:
                    return
                waiting, feed = pending.popleft()
                reply = waiting()
                self.pace.learn(reply, len(feed))
                yield from self._arrived(reply, feed)
        finally:
            for waiting, _ in pending:
                waiting.cancel()
            for close in self.closing:
                close()
            self.crew.release(executor)

    def _arrived(self, reply: Reply, feed: Feed) -> Iterator[Any]:
        opening = bool(feed.anchors) or feed.start > 0
        facts, taken = dict(self.told.popleft()) if self.told else {}, self.position
        for node in self.counted:
            facts[node.place] = Anchor(self.run.epoch, self.standing[node.place], (taken,))
            taken = self.standing[node.place]
        self.facts = {**facts, **feed.anchors} if opening else facts
        yield from reply.outputs
        if reply.error is not None:
            self._fail(reply, opening)
        self.position += len(feed)
        for place, position in reply.positions.items():
            if place in self.standing:
                self.standing[place] = position if opening else self.standing[place] + position

    def _fail(self, reply: Reply, opening: bool) -> None:
        error = reply.error
        where = getattr(error, "__flowfn__", None)
        if where and where["counted"] != -1 and not opening:
            where["index"] += self.position if where["counted"] is None else self.standing.get(where["counted"], 0)
        if where:
            where["counted"] = -1
        if self.crew.remote:
            raise error from Remote(reply.text)  # type: ignore[misc]
        raise error  # type: ignore[misc]


class Remote(Exception):
    """The traceback of an error in a worker, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class _Waiting:
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


class Supply:
    """The datapoints that go along with tasks, of the nodes of a stretch that stay here: each is read in one series."""

    def __init__(self, bottom: Node, run: Run, stay: list[Node], series: Iterator[Block]) -> None:
        self.bottom, self.run, self.series = bottom, run, series
        self.stay = {node.place: node for node in stay}
        self.readers: dict[tuple[tuple[int, ...], Epoch], Reader] = {}

    def wanted(self, block: Block) -> Iterator[tuple[tuple[int, ...], Node, Run, Block]]:
        """What the outputs at `block` need of the nodes that stay: on which way down the tree, in which run."""
        todo: list[tuple[tuple[int, ...], Node, Run, Block]] = [((), self.bottom, self.run, block)]
        while todo:
            way, node, run, part = todo.pop()
            if node.place in self.stay:
                yield way, node, run, part
            else:
                todo.extend(reversed([((*way, s), node.sources[s], above, needs) for s, above, needs in node.upward(run, part)]))

    def of(self, piece: Block) -> dict[tuple[int, Epoch], dict[int, Any]]:
        """The datapoints for one task, by node, epoch and index."""
        supply: dict[tuple[int, Epoch], dict[int, Any]] = {}
        used = set()
        for way, node, run, block in self.wanted(piece):
            while (way, run.epoch) not in self.readers:
                self._advance()
            used.add((way, run.epoch))
            taken = itertools.islice(self.readers[way, run.epoch].outputs, len(block))
            supply.setdefault((node.place, run.epoch), {}).update(zip(ints(block), taken))
        for key in [key for key, reader in self.readers.items() if key not in used and not reader.queue]:
            self.readers.pop(key).close()
        return supply

    def _advance(self) -> bool:
        block = next(self.series, None)
        if block is None:
            return False
        for way, node, run, part in self.wanted(block):
            if (way, run.epoch) not in self.readers:
                self.readers[way, run.epoch] = Reader(node, run, self._advance)
            self.readers[way, run.epoch].queue.append(part)
        return True

    def close(self) -> None:
        """Close every reader."""
        for reader in self.readers.values():
            reader.close()


class Kept(Node):
    """A whole tree in the one worker that there is: the pass is an iterator that the worker keeps."""

    def __init__(self, top: Node, crew: Crew) -> None:
        super().__init__(top.part, (), top.place, None)
        self.top, self.crew = top, crew
        self.rank, self.world = top.rank, top.world

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on; a worker that lost the pass makes it anew from the last anchors."""
        facts: dict[int, Anchor] = {}
        return Outputs(self._out(run, start, lineage, facts), None, (), start, lambda: facts)

    def _out(self, run: Run, start: int, lineage: bool, facts: dict[int, Anchor]) -> Iterator[Any]:
        name, pace = uuid.uuid4().hex, Pace(self.crew)
        digest, pickled = packed(self.top)
        executor = self.crew.executor()
        pending: deque[tuple[_Waiting, int]] = deque()
        anchors, ended, window = dict(run.anchors), False, 1  # one at first: it tells the worker the tree
        try:
            while True:
                while len(pending) < window and not ended:
                    feed = Feed(run.seed, run.epoch, run.base, start=start, anchors=anchors, lineage=lineage)
                    task = (name, feed, pace.size)
                    pending.append((self._submit(executor, digest, pickled, task), pace.size))
                    start += pace.size
                waiting, count = pending.popleft()
                reply = waiting()
                pace.learn(reply, count)
                ended, window = ended or reply.ended, pace.window
                for output, told in zip(reply.outputs, reply.facts or ()):
                    facts.clear()
                    facts.update(told)
                    yield output
                anchors = dict(facts) or anchors
                if reply.error is not None:
                    raise reply.error from Remote(reply.text)
                if reply.ended:
                    return
        finally:
            for waiting, _ in pending:
                waiting.cancel()
            with contextlib.suppress(RuntimeError):  # the pool is gone already, and the pass with it
                executor.submit(end_pass, name)

    def _submit(self, executor: Executor, digest: bytes, pickled: bytes, task: tuple[str, Feed, int]) -> _Waiting:
        return _Waiting(
            executor.submit(continue_pass, digest, None, *task),
            lambda: executor.submit(continue_pass, digest, pickled, *task),
        )
