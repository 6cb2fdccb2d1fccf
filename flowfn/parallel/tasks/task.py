"""What a worker does: run a stretch of stages over one block, and say what came of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from more_itertools import consume

from flowfn.blocks import Block, ints
from flowfn.kinds.failures import locate, uneven
from flowfn.kinds.nodes import Node
from flowfn.kinds.notes import trace
from flowfn.kinds.runs import NO_GAPS, Anchor, Epoch, Gaps, Length, Outputs, Run
from flowfn.kinds.tallies import Reached, Tallies
from flowfn.parallel.tasks.asides import Aside, said

REMEMBERED = 8
"""How many of each kind of thing a worker keeps: trees, passes, unfinished tasks."""


number_of_task = itertools.count(1).__next__


@dataclass(slots=True)
class Feed:
    """One task: which pass, which block of it, and the datapoints that go along."""

    seed: int
    epoch: Epoch
    base: int = 0
    block: Block | None = None
    datapoints: list[Any] | None = None
    labels: list[Any] | None = None
    opening: bool = False  # whether it goes on from anchors: behind output `first_output`, counted in the whole pass
    first_output: int = 0
    anchors: Mapping[int, Anchor] = field(default_factory=dict)
    supply: Mapping[tuple[int, Epoch], Mapping[int, Any]] = field(default_factory=dict)
    lineage: bool = False
    pass_id: str = ""  # whose task it is: what a worker remembers, it remembers for one
    number: int = 0  # which of that pass's tasks
    limit: int | None = None  # how many outputs are wanted now, of those behind the first `skip`
    skip: int = 0
    first_input: int = 0  # the number of the first datapoint, where they go along
    rows: Block | None = None  # which inputs, where the task is to make one part of one output
    share: float = 1.0  # how much of an output that is
    gaps: Gaps = NO_GAPS  # what the pass goes round
    lacking: bool = False  # whether what goes along is less than was wanted, because reading it was an error

    def __len__(self) -> int:
        if self.block is not None:
            return len(self.block)
        return len(self.datapoints) if self.datapoints is not None else self.limit or 1

    def singles(self) -> list[Feed]:
        """A task for each datapoint of this one, or for each output of a pass that its worker keeps."""
        if len(self) == 1 or self.opening or self.skip:
            return [self]
        if self.block is not None:
            return [replace(self, block=self.block[at : at + 1], number=number_of_task()) for at in range(len(self))]
        if self.datapoints is None:
            return [
                replace(self, first_output=self.first_output + at, first_input=self.first_output + at, limit=1)
                for at in range(len(self))
            ]
        labels = self.labels
        return [
            replace(
                self,
                datapoints=[datapoint],
                labels=labels and [labels[at]],
                first_input=self.first_input + at,
                number=number_of_task(),
            )
            for at, datapoint in enumerate(self.datapoints)
        ]


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
    more: bool = False  # whether the task may have more outputs than were wanted now
    last: dict[int, Anchor] = field(default_factory=dict)
    reached: list[dict[int, Reached]] = field(
        default_factory=list
    )  # how far guarded stages were at each output, and at the end
    events: list[Any] = field(default_factory=list)  # what had failed by then
    asides: Sequence[Aside] = ()


class TaskSource(Node):
    """The bottom of a stretch in a worker: the datapoints of one task, read from its source by block or sent along."""

    def setup(self) -> None:
        """It stands for its source, or for the node that stayed behind."""
        if self.sources:
            (self.source,) = self.sources

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The datapoints of the task, which are those from `start` on."""
        feed: Feed = run.feed
        if feed.block is None:
            return Outputs(zip(feed.datapoints, feed.labels) if lineage else feed.datapoints, None, (), start)  # type: ignore[arg-type]
        if feed.rows is not None:
            return self.source.read_part(run, feed.rows)  # type: ignore[attr-defined]
        outputs = self.source.read(run, iter((feed.block,)))
        outputs.first = start
        if lineage:
            return outputs.labelled(self.source.each_label(run, iter((feed.block,))), start)
        return outputs


class Unsupplied(Exception):
    """A datapoint did not come along: reading it was an error, or nobody knew that it would be wanted."""


class Supplied(Node):
    """Stands in a worker for a sequence that stayed behind; the datapoints wanted of it come with the task."""

    seekable = True

    def __init__(self, node: Node, run: Run) -> None:
        super().__init__(None, (), node.place, None)
        self.rank, self.world, self.steady = node.rank, node.world, node.steady
        self._length, self._labels, self._has_gaps = node.length(run), node.labels(run), node.has_gaps(run)

    def length(self, run: Run) -> Length:
        """As it was when the pass began."""
        return self._length

    def labels(self, run: Run) -> tuple[int, int]:
        """Those of what it stands for."""
        return self._labels

    def gaps_within(self, run: Run) -> bool:
        """As it was when the pass began."""
        return self._has_gaps

    def left_out(self, run: Run, block: Block) -> np.ndarray:
        """What did not come along, unless that is for another reason."""
        here = run.feed.supply.get((self.place, run.epoch), {})
        return np.array([self._has_gaps and not run.feed.lacking and index not in here for index in ints(block)], bool)

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The datapoints that came along."""
        return Outputs(self._supplied(run.feed.supply.get((self.place, run.epoch), {}), series), self)

    def _supplied(self, here: Mapping[int, Any], series: Iterator[Block]) -> Iterator[Any]:
        for block in series:
            for index in ints(block):
                if index not in here:
                    raise Unsupplied
                yield here[index]


class UnfinishedTask(NamedTuple):
    """A task that has given some of its outputs."""

    outputs: Outputs
    tallies: Tallies
    made: list[Any]


def perform(top: Node, feed: Feed, memo: dict[Any, Any], unfinished: dict[Any, UnfinishedTask]) -> Reply:
    """Run a stretch over one block; of many outputs only so many as are wanted now, the others when it is asked again.

    What was made before an error is in the reply, as it would be in serial.
    """
    began = time.perf_counter()
    made: list[Any] = []
    reached: list[dict[int, Reached]] = []
    tallies = Tallies(made=made)
    outputs: Outputs | None = None
    error: BaseException | None = None
    more = False
    at = (feed.pass_id, feed.number, feed.skip)
    try:
        task = unfinished.pop(at) if at in unfinished else _started_task(top, feed, memo, tallies, made)
        outputs, tallies, made = task
        wanted = islice(task.outputs, feed.limit)
        for output in wanted if top.guarded else ():
            reached.append(tallies.reached())
            made.append(output)
        made.extend(wanted)
        more = len(made) == feed.limit
        error = (
            None
            if more
            else uneven(task.outputs, len(feed) if isinstance(top, TaskSource) else None, isinstance(top, TaskSource))
        )
    except BaseException as raised:  # given back in the reply, and raised where the flow is iterated
        error = raised
    if error is not None:
        locate(error, outputs)
    positions = {} if outputs is None else {p.node.place: p.position for p in outputs.walk() if p.node and p.tell}
    text = trace(error) if error is not None else ""
    reply = Reply(made, positions, time.perf_counter() - began, weight(made[0]) if made else 0, error, text, more=more)
    if top.guarded:
        reply.reached, reply.events = [*reached, tallies.reached()], tallies.events
    reply.asides = said()
    if more and outputs is not None:
        tallies.made, tallies.events = [], []
        unfinished[feed.pass_id, feed.number, feed.skip + len(made)] = UnfinishedTask(outputs, tallies, tallies.made)
    return reply


def _started_task(top: Node, feed: Feed, memo: dict[Any, Any], tallies: Tallies, made: list[Any]) -> UnfinishedTask:
    """A task from its beginning, without the outputs that it has given before."""
    run = Run(feed.seed, feed.epoch, "none", feed.base, feed.anchors, memo, feed, tallies, gaps=feed.gaps)
    outputs = top.stream(run, feed.first_output, feed.lineage)
    if feed.skip:
        consume(outputs, feed.skip)
        tallies.events.clear()
    return UnfinishedTask(outputs, tallies, made)


def stop_task(unfinished: dict[Any, UnfinishedTask], pass_id: str) -> None:
    """Nobody wants any more of what a pass has begun."""
    for key in [key for key in list(unfinished) if key[0] == pass_id or key[0].startswith(f"{pass_id}/")]:
        task = unfinished.pop(key, None)  # another thread may be at it
        if task is not None:
            task.outputs.close()


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
    size = getattr(value, "nbytes", None)  # a tensor of somebody's
    return size if isinstance(size, int) else 32
