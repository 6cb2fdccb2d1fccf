"""What a worker does: run a stretch of stages over one block, and say what came of it."""

from __future__ import annotations

import pickle
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from flowfn.failures import brief, locate, uneven
from flowfn.kinds import Node
from flowfn.runs import Anchor, Block, Epoch, Length, Outputs, Run, ints
from flowfn.tallies import Dropped, Reached, Tallies, anchors

REMEMBERED = 8
"""How many trees, and how many passes, a worker keeps."""


@dataclass(slots=True)
class Feed:
    """One task: which pass, which block of it, and the datapoints that go along."""

    seed: int
    epoch: Epoch
    base: int = 0
    block: Block | None = None
    datapoints: list[Any] | None = None
    labels: list[Any] | None = None
    opening: bool = False  # whether it goes on from anchors: behind output `start`, counted in the whole pass
    start: int = 0
    anchors: Mapping[int, Anchor] = field(default_factory=dict)
    supply: Mapping[tuple[int, Epoch], Mapping[int, Any]] = field(default_factory=dict)
    lineage: bool = False
    work: int = 0  # whose task it is: what a worker remembers, it remembers for one

    def __len__(self) -> int:
        return len(self.datapoints) if self.block is None else len(self.block)  # type: ignore[arg-type]


@dataclass(slots=True)
class Reply:
    """What came of a task: its outputs, where each counting node stands, and the error that ended it, if any."""

    outputs: list[Any]
    positions: dict[int, int]
    seconds: float
    size: int
    error: BaseException | None = None
    text: str = ""
    facts: list[dict[int, Anchor]] | None = None
    ended: bool = False
    last: dict[int, Anchor] = field(default_factory=dict)
    reached: list[dict[int, Reached]] = field(default_factory=list)  # how far guarded stages were at each output, and at the end
    events: list[Any] = field(default_factory=list)  # what had failed by then


class Window(Node):
    """The bottom of a stretch in a worker: the datapoints of one task, read from its source by block or sent along."""

    def setup(self) -> None:
        """It stands for its source, or for the node that stayed behind."""
        if self.sources:
            (self.source,) = self.sources

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The datapoints of the task, which are those from `start` on."""
        feed: Feed = run.task
        if feed.block is None:
            return Outputs(zip(feed.datapoints, feed.labels) if lineage else feed.datapoints, None, (), start)  # type: ignore[arg-type]
        outputs = self.source.read(run, iter((feed.block,)))
        outputs.first = start
        if lineage:
            return Outputs(zip(outputs, self.source.each_label(run, iter((feed.block,)))), None, [outputs], start)
        return outputs


class Unsupplied(Exception):
    """A datapoint did not come along: reading it was an error, or nobody knew that it would be wanted."""


class Supplied(Node):
    """Stands in a worker for a sequence that stayed behind; the datapoints wanted of it come with the task."""

    seekable = True

    def __init__(self, node: Node, run: Run) -> None:
        super().__init__(None, (), node.place, None)
        self.rank, self.world, self.sharded, self.steady = node.rank, node.world, node.sharded, node.steady
        self.known, self.label = node.length(run), node.labels(run)

    def length(self, run: Run) -> Length:
        """As it was when the pass began."""
        return self.known

    def labels(self, run: Run) -> tuple[int, int]:
        """Those of what it stands for."""
        return self.label

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The datapoints that came along."""
        return Outputs(self._supplied(run.task.supply.get((self.place, run.epoch), {}), series), self)

    def _supplied(self, here: Mapping[int, Any], series: Iterator[Block]) -> Iterator[Any]:
        for block in series:
            for index in ints(block):
                if index not in here:
                    raise Unsupplied
                yield here[index]


def perform(top: Node, feed: Feed, memo: dict[Any, Any]) -> Reply:
    """Run a stretch over one block. What was made before an error is kept, as it would be in serial."""
    began = time.perf_counter()
    made: list[Any] = []
    run = Run(feed.seed, feed.epoch, "none", feed.base, feed.anchors, memo, feed, Tallies(made=made))
    reached: list[dict[int, Reached]] = []
    outputs: Outputs | None = None
    error: BaseException | None = None
    try:
        outputs = top.stream(run, feed.start, feed.lineage)
        for output in outputs if top.guarded else ():
            reached.append(run.tallies.reached())
            made.append(output)
        made.extend(outputs)
        error = uneven(outputs, len(feed) if isinstance(top, Window) else None, isinstance(top, Window))
    except BaseException as raised:  # given back in the reply, and raised where the flow is iterated
        error = raised
    if error is not None:
        locate(error, outputs)
    positions = {} if outputs is None else {p.node.place: p.position for p in outputs.walk() if p.node and p.tell}
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    reply = Reply(made, positions, time.perf_counter() - began, weight(made[0]) if made else 0, error, text)
    if top.guarded:
        reply.reached, reply.events = [*reached, run.tallies.reached()], run.tallies.events
    return reply


_trees: OrderedDict[bytes, Any] = OrderedDict()
_memo: dict[Any, Any] = {}  # keys and routes of the last pass that this worker had a part in
_passes: OrderedDict[str, tuple[Outputs, Tallies] | int] = OrderedDict()  # an int: it has ended, after so many outputs


def perform_known(digest: bytes, pickled: bytes | None, feed: Feed) -> Reply | None:
    """`perform` in a worker process, on a tree that it has by digest; None says that it needs the tree."""
    top = known_tree(digest, pickled)
    if top is None:
        return None
    if _memo.get("of") != (at := (digest, feed.work)):
        _memo.clear()
        _memo["of"] = at
    return portable(perform(top, feed, _memo))


def continue_pass(digest: bytes, pickled: bytes | None, name: str, feed: Feed, count: int) -> Reply | None:
    """The next `count` outputs of a pass that this worker keeps, or makes anew from the feed's anchors."""
    top = known_tree(digest, pickled)
    if top is None:
        return None
    began = time.perf_counter()
    made: list[Any] = []
    facts: list[dict[int, Anchor]] = []
    error: BaseException | None = None
    outputs: Outputs | None = None
    tallies = Tallies(feed.anchors, portable=portable_record)
    known = _passes.get(name)
    try:
        if isinstance(known, int) and feed.start >= known:
            return Reply([], {}, 0.0, 0, facts=[], ended=True)
        if isinstance(known, tuple) and known[0].position == feed.start:
            outputs, tallies = known
        else:
            run = Run(feed.seed, feed.epoch, "threads", feed.base, anchors(feed.anchors), tallies=tallies)
            outputs = top.stream(run, feed.start, feed.lineage)
        _passes[name] = outputs, tallies
        _passes.move_to_end(name)
        while len(_passes) > REMEMBERED:
            end_pass(next(iter(_passes)))
            _passes.popitem(last=False)
        for output in islice(outputs, count):
            made.append(output)
            facts.append({} if top.seekable and not top.guarded else {**outputs.facts(), **tallies.news()})
        if len(made) < count:
            error = uneven(outputs, None, top.seekable)
    except BaseException as raised:  # as in `perform`
        error = raised
    if error is not None:
        locate(error, outputs)
    ended = error is not None or len(made) < count
    last = tallies.news() if ended else {}
    if ended:
        end_pass(name, feed.start + len(made))
    text = "".join(traceback.format_exception(error)) if error is not None else ""
    return portable(Reply(made, {}, time.perf_counter() - began, weight(made[0]) if made else 0, error, text, facts, ended, last))


def end_pass(name: str, position: int = 0) -> None:
    """Let go of a pass, and remember after how many outputs it ended (0: nobody wants any more)."""
    known = _passes.get(name)
    _passes[name] = position
    if isinstance(known, tuple):
        known[0].close()


def known_tree(digest: bytes, pickled: bytes | None) -> Any:
    """The tree of a digest, from memory or from its bytes."""
    if digest not in _trees:
        if pickled is None:
            return None
        _trees[digest] = pickle.loads(pickled)
        while len(_trees) > REMEMBERED:
            _trees.popitem(last=False)
    _trees.move_to_end(digest)
    return _trees[digest]


def portable(reply: Reply) -> Reply:
    """A reply whose errors can travel."""
    if reply.error is not None:
        reply.error = portable_error(reply.error)
    reply.events = [(at, place, reached, portable_record(dropped), budget) for at, place, reached, dropped, budget in reply.events]
    return reply


def portable_error(error: Any) -> Any:
    """An error that can travel: itself, or one that says the same."""
    try:
        error.__traceback__ = error.__cause__ = error.__context__ = None
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a user's exception does when it is pickled
        substitute = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            substitute.add_note(note)
        substitute.__flowfn__ = getattr(error, "__flowfn__", {})  # type: ignore[attr-defined]
        return substitute
    return error


def portable_record(dropped: Dropped) -> Dropped:
    """A failure that can travel: where the datapoint cannot, a description of it does."""
    try:
        pickle.loads(pickle.dumps(dropped.datapoint))
    except Exception:  # as above
        dropped = dropped._replace(datapoint=brief(dropped.datapoint))
    return dropped._replace(error=portable_error(dropped.error))


def weight(value: Any) -> int:
    """About how many bytes an output has."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(weight, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(weight, value))
    return 32
