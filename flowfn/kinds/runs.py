"""What fixes a pass, and what a pass looks like while it runs.

A `Run` says which pass is meant: seed, epoch, and what is known about where to start. `Outputs` is the iterator that
every node hands to the next one: it counts at C level what it has given, and so knows its position for nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from more_itertools import consume

from flowfn.kinds.parts import Part
from flowfn.kinds.ranges import Ranges
from flowfn.kinds.tallies import Tallies
from flowfn.kinds.traces import Trace

Length: TypeAlias = "int | float | None"
"""An int, `math.inf` (endless) or None (not known before it is read)."""
Epoch: TypeAlias = tuple[int, ...]
"""The epoch and, below `repeat` and the like, the round in it: (epoch, round, ...)."""
EpochForm: TypeAlias = tuple[int | None, ...]
"""An epoch as far as it is certain before it is read; None is any round."""


class Owner(Protocol):
    """What outputs ask of the node that gives them: its number in the tree, its stage,
    and whether each is of one input."""

    @property
    def place(self) -> int: ...

    @property
    def part(self) -> Part: ...

    @property
    def aligned(self) -> bool: ...


class Anchor(NamedTuple):
    """A fact about a node in one pass: after `outputs` outputs it can be started again, with what follows `inputs`.

    `inputs` are the positions in its sources, and then whatever numbers the node wants to find again. `read` is how
    much it had read by the time it was told, which may be later, where somebody asks for that (`Node.followed`): a
    number, or what can tell it `since` some output.
    """

    epoch: Epoch
    outputs: int
    inputs: tuple[Any, ...]
    read: Any = None


def overlaid(facts: dict[int, Anchor], earlier: Mapping[int, Anchor]) -> set[int]:
    """Put others that were told before over facts; what had been read by now stays. Where that is so is returned."""
    reads = {place: facts[place].read for place in earlier if place in facts and facts[place].read is not None}
    facts.update(earlier)
    for place, read in reads.items():
        facts[place] = facts[place]._replace(read=read)
    return {*reads}


def _as_needed(anchor: Anchor) -> Anchor:
    """An anchor with no more of what had been read than who goes on from there needs."""
    read = anchor.read
    return anchor if isinstance(read, int) else anchor._replace(read=read.since(anchor.outputs))


class SkipList(NamedTuple):
    """What a pass leaves out: `counted` datapoints, those that states count, in this pass; `records` of sources, by
    name, in every pass; `later`: in every one but this."""

    counted: Ranges = Ranges()
    records: Mapping[str, Ranges] = {}
    later: Mapping[str, Ranges] = {}

    def __bool__(self) -> bool:
        return bool(self.counted or self.records or self.later)

    def __or__(self, other: SkipList) -> SkipList:
        return SkipList(
            self.counted | other.counted, _union(self.records, other.records), _union(self.later, other.later)
        )

    def following(self) -> SkipList:
        """What the passes to come leave out."""
        return SkipList(records=_union(self.records, self.later))


def _union(some: Mapping[str, Ranges], others: Mapping[str, Ranges]) -> dict[str, Ranges]:
    return {name: some.get(name, Ranges()) | others.get(name, Ranges()) for name in {**some, **others}}


class Gaps(NamedTuple):
    """What a pass goes round: records, by the place of their source, and outputs of the node at one place, which are in
    the given `outputs` of the whole tree and in no others."""

    records: Mapping[int, Ranges] = {}
    place: int | None = None
    counted: Ranges = Ranges()
    outputs: Ranges = Ranges()

    def __bool__(self) -> bool:
        return bool(self.records or self.counted)

    def at(self, place: int) -> bool:
        """Whether there are any at a place."""
        return place in self.records or place == self.place


NO_GAPS = Gaps()


class Checkpoint(NamedTuple):
    """Where a pass starts: after `position` outputs, made of the datapoints from `base` on (see `groups.note_base`);
    and what it leaves out."""

    position: int = 0
    base: int = 0
    anchors: Mapping[int, Anchor] = {}
    skip: SkipList = SkipList()


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over a tree: its seed, its epoch, and facts that let it start late.

    `memo` holds what is made `once` in a pass (keys, routes), `feed` the task that a worker was handed, `tallies` what
    guarded stages count, `ordered` whether datapoints come in the order of their indices, none left out, `in_order`
    whether outputs have to come in order, whatever a prefetch was told. `engine` says what a prefetch may use:
    "processes", "threads", or "none" where one datapoint is looked at, or where this is a worker already. `opener`
    opens what a stage reads besides its source, if that is not left to the stage. `trace` asks one node what its
    outputs are made of. `gaps` is what the pass goes round. `unmade` is the place of a node whose outputs need not be
    made yet (see `flowfn.datapoints.unmade`).
    """

    seed: int
    epoch: Epoch
    engine: str = "none"
    base: int = 0
    anchors: Mapping[int, Anchor] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict)
    feed: Any = None
    tallies: Tallies = field(default_factory=partial(Tallies, counts=False))
    ordered: bool = True
    in_order: bool = False
    opener: Any = None
    trace: Trace | None = None
    gaps: Gaps = NO_GAPS
    unmade: int | None = None

    def traced(self, place: int) -> Trace | None:
        """Who wants to know what the outputs of the node at a place are made of, if somebody does."""
        return self.trace if self.trace is not None and self.trace.place == place else None

    def round(self, number: int) -> Run:
        """The run of round `number` in this one."""
        return replace(self, epoch=(*self.epoch, number))

    def once(self, what: Any, of: Any, make: Callable[[], Any], most: float = math.inf) -> Any:
        """What is made once in a pass, for each that it is made `of`. When there are `most` of it, all are let go."""
        values = self.memo.setdefault(what, {})
        made = values.get(of)
        if made is None:
            made = make()
            if len(values) >= most:
                values.clear()
            made = values.setdefault(of, made)  # another thread may have been faster
        return made

    def anchor(self, place: int, start: int, inputs: int = 1) -> Anchor:
        """The fact to start the node at `place` from so that it goes on after `start` outputs;
        its very beginning if none fits."""
        known = self.anchors.get(place)
        if known is not None and known.epoch == self.epoch and known.outputs <= start:
            return known
        return Anchor(self.epoch, 0, (0,) * inputs)


class Outputs(compress):
    """The outputs of a node in one pass: a C-level iterator that knows how many it has given.

    `position` is the number of the next output, counted from the start of the pass. `inputs` are the outputs it is
    made from, so a pass can be walked; `tell` tells its newest anchor, `trail` which indices were asked for.
    """

    if TYPE_CHECKING:
        node: Owner | None
        inputs: Collection[Outputs]
        first: int
        skipped: int
        source: Iterable[Any]
        ticks: repeat[bool]
        tell: Callable[[], Mapping[int, Anchor]] | None
        earlier: Mapping[int, Anchor] | Callable[[], Mapping[int, Anchor]] | None
        trail: Any

    __slots__ = ("__weakref__", "earlier", "first", "inputs", "node", "skipped", "source", "tell", "ticks", "trail")

    def __new__(
        cls,
        source: Iterable[Any],
        node: Owner | None = None,
        inputs: Collection[Outputs] = (),
        first: int = 0,
        tell: Callable[[], Mapping[int, Anchor]] | None = None,
        ticks: repeat[bool] | None = None,
        trail: Any = None,
    ) -> Outputs:
        ticks = ticks or repeat(True, sys.maxsize)
        self = super().__new__(cls, source, ticks)
        self.source, self.ticks, self.node, self.inputs, self.first, self.tell = (
            source,
            ticks,
            node,
            inputs,
            first,
            tell,
        )
        self.trail, self.skipped, self.earlier = trail, 0, None
        return self

    @property
    def count(self) -> int:
        """How many outputs have been given, those that were dropped not counted."""
        return ticked(self.ticks) - self.skipped

    @property
    def position(self) -> int:
        """The number of the next output."""
        return self.first + ticked(self.ticks)

    def walk(self) -> Iterator[Outputs]:
        """Every live part of the pass below and including this one, sources first."""
        for part in tuple(self.inputs):
            yield from part.walk()
        yield self

    def labelled(self, labels: Iterable[Any], start: int) -> Outputs:
        """The same from output `start` on, as (datapoint, label) pairs."""
        return Outputs(zip(self, labels), None, [self], start)

    def drop(self, count: int) -> Outputs:
        """Give `count` outputs to nobody."""
        consume(self, count)
        self.skipped = ticked(self.ticks)
        return self

    def facts(self, before_last: bool = False) -> dict[int, Anchor]:
        """The newest anchor of every node in the pass that has one, by place.

        With `before_last`, those from which the last output can be made again: a group has taken more since then.
        """
        facts, again = dict[int, Anchor](), set[int]()
        for part in self.walk():
            if part.tell is not None:
                again |= overlaid(facts, part.tell())
            if before_last and part.earlier is not None:
                again |= overlaid(facts, part.earlier() if callable(part.earlier) else part.earlier)
        for place in again:  # not before: the last that tells may go back furthest
            facts[place] = _as_needed(facts[place])
        return facts

    def close(self) -> None:
        """End the pass: close every generator in it, the last first."""
        for part in reversed(list(self.walk())):
            close = getattr(part.source, "close", None)
            if close is not None:
                close()
            part.tell = part.earlier = None  # they may lead back here


def naturals(values: Sequence[Any], count: int) -> bool:
    """Whether these are so many integers >= 0."""
    return len(values) == count and all(type(value) is int and value >= 0 for value in values)


def ticked(ticks: repeat[bool]) -> int:
    """How often a counter made by `repeat(True, sys.maxsize)` has been asked."""
    return sys.maxsize - ticks.__length_hint__()
