"""The order kind: output i is some input, and a route says which.

Over seekable sources the route maps whole blocks of indices; where it switches between sources or rounds, each has a
reader, and the readers take turns. Over other sources the stage's second form names sections to be read in a row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from flowfn.blocks import Block
from flowfn.kinds.nodes import Node, StageNode, fault
from flowfn.kinds.readers import Reader, Readers
from flowfn.kinds.routes import Span, as_route, strided
from flowfn.kinds.runs import Anchor, EpochForm, Length, Outputs, Run, naturals
from flowfn.kinds.sections import EMPTY_ROUNDS, Sections, nth
from flowfn.randomness.generators import generator

ROUTES = 8
"""How many routes of one node are remembered: an endless pass has a new one in every round."""


class Order(StageNode):
    """Output i is some input: a route says which."""

    orders = True
    retold = True

    def setup(self) -> None:
        """Seekable where all sources are, and in rounds only where each is as long as the others;
        a shard multiplies the world."""
        self.varies = self.part.traits.rounds and not self.steady
        self.seekable = all(source.seekable for source in self.sources) and not self.varies
        self.share = [self.part.arguments[name] for name in self.part.traits.shards]
        if self.share:
            rank, world = self.share
            self.rank, self.world = self.rank + self.world * rank, self.world * world

    def unknown(self) -> str:
        """Rounds of different lengths cannot be told apart by an index."""
        return f"what {self.part} reads has another length in every round" if self.varies else super().unknown()

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        """Whether whole blocks of rows can be had: where the one source can give them, in one round."""
        return len(self.sources) == 1 and self.sources[0].gathers and not self.part.traits.switches

    @property
    def random_order(self) -> bool:
        """Whether the route is another in every epoch."""
        return bool(self.part.random)

    def epoch_upstream(self, epoch: EpochForm) -> EpochForm:
        """In a round of it, where it gives its source in rounds."""
        return (*epoch, None) if self.part.traits.rounds else epoch

    def misfit(self, run: Run, anchor: Anchor) -> str:
        """Over streams: which section begins there, and how many inputs the one before found."""
        if self.seekable:
            return super().misfit(run, anchor)
        fits = naturals(anchor.inputs, 2) and self._has_section(anchor)
        return (
            ""
            if fits
            else "[epoch, outputs, [number of the section, how many inputs the one before had]], for one that there is"
        )

    def _has_section(self, anchor: Anchor) -> bool:
        """Whether there can be so many sections before some outputs; of rounds, most are not empty."""
        number, inputs = anchor.inputs
        if self.part.traits.rounds:
            return number == 0 or bool(
                number < self.part.arguments.get("count", math.inf) and number <= EMPTY_ROUNDS * (anchor.outputs + 1)
            )
        try:
            return number == 0 or nth(self.part.sections(len(self.sources)), number, inputs) is not None
        except StopIteration:
            return False

    def lengths(self, run: Run) -> tuple[Length, ...]:
        """Those of the sources."""
        return tuple(source.length(run) for source in self.sources)

    def route(self, run: Run) -> Any:
        """The route in a run, made once."""
        lengths = self.lengths(run)
        return run.once(("routes", self.place), (run.epoch, lengths), lambda: self.new_route(run, lengths), ROUTES)

    def new_route(self, run: Run, lengths: tuple[Length, ...]) -> Any:
        """The route over sources so long."""
        injected = {"rng": generator(self.key(run))} if self.part.random else {}
        n = lengths[0] if len(lengths) == 1 else None
        if self.foot and run.base:
            n = max(n - run.base, 0)  # type: ignore[operator]
        route = as_route(self.part.order(lengths if n is None else (n,), **injected), n)
        return _shifted(route, run.base) if self.foot and run.base else route

    def length(self, run: Run) -> Length:
        """That of the route."""
        if self.varies or any(source.length(run) is None for source in self.sources):
            return math.inf if self.part.traits.endless else None
        return self.route(run).length if self.seekable or not self.part.random else None

    def labels(self, run: Run) -> tuple[int, int]:
        """Taking every k-th from somewhere on, each datapoint keeps its label; otherwise outputs are counted anew."""
        if self.share:
            offset, stride = self.sources[0].labels(run)
            rank, world = self.share
            return offset + stride * (rank + (run.base if self.foot else 0)), stride * world
        if len(self.sources) == 1 and self.sources[0].length(run) is not None:
            route = self.route(run)
            if isinstance(route, Span):
                offset, stride = self.sources[0].labels(run)
                return offset + stride * route.start, stride * route.step
        return self.rank, self.world

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The route maps whole blocks; where it switches between sources or rounds, their readers take turns."""
        route = self.route(run)
        if not route.switches:
            return self.sources[0].read(_through(run, route), map(route.take, series))
        turns = Turns(self.sources, run, map(route.take, series))
        return Outputs(iter(turns), self, _Readers(turns.open))

    def upward(self, run: Run, block: Block) -> Iterator[tuple[int, Run, Block]]:
        """What the route says, source by source and round by round."""
        route = self.route(run)
        if not route.switches:
            yield 0, _through(run, route), route.take(block)
            return
        keys, _, pieces = _sorted_out(*route.take(block))
        for (source, number), piece in zip(keys, pieces):
            yield source, run if number < 0 else run.round(number), piece

    def left_out_above(self, run: Run, block: Block) -> np.ndarray:
        """Those that are an input which is left out; of streams, only what a shard gives is known by its index."""
        if self.share:
            return self._left_out_of_share(run, block)
        out = np.zeros(len(block), bool)
        if not self.seekable:
            return out
        route = self.route(run)
        if not route.switches:
            return self.sources[0].left_out(_through(run, route), route.take(block))
        keys, turns, pieces = _sorted_out(*route.take(block))
        places = np.split(np.argsort(turns, kind="stable"), np.cumsum([len(piece) for piece in pieces])[:-1])
        for (source, number), piece, there in zip(keys, pieces, places):
            above = run if number < 0 else run.round(number)
            out[there] = self.sources[source].left_out(above, piece)
        return out

    def _left_out_of_share(self, run: Run, block: Block) -> np.ndarray:
        """What is given again to fill up the last step counts as that step's: it is left out with it, and only then."""
        (source,), (rank, world) = self.sources, self.share
        dealt = strided(rank + (run.base if self.foot else 0), world, block)
        if not self.seekable:
            return source.left_out(run, dealt)
        inputs = self.route(run).take(block)
        if source.place != run.gaps.place:
            return source.left_out(run, inputs)
        return run.gaps.counted.covers(dealt) | source.left_out_above(run, inputs)

    def gather(self, run: Run, series: Iterator[Block], sizes: Iterable[int]) -> Iterator[Any]:
        """Whole groups of rows from the source."""
        return self.sources[0].gather(run, map(self.route(run).take, series), sizes)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Over sources that are not seekable: the sections of the stage's second form, one after the other."""
        if self.seekable:
            return super().stream(run, start, lineage)
        anchor = run.anchor(self.place, start, 2)
        walk = Sections(self, run, anchor, start, lineage)
        outputs = Outputs(iter(walk), self, walk.live, anchor.outputs, walk.tell)
        walk.ticks = outputs.ticks
        outputs.drop(start - anchor.outputs)
        if (trace := run.traced(self.place)) is not None:
            trace.used = walk.used
        return outputs.labelled(self.numbers(start), start) if lineage and not walk.lineage else outputs


def _through(run: Run, route: Any) -> Run:
    """The run of what a route without switches leads to."""
    return run if isinstance(route, Span) and route.step == 1 else replace(run, ordered=False)


def _shifted(route: Span, base: int) -> Span:
    return Span(route.start + base, route.step, route.length) if isinstance(route, Span) else _Shifted(route, base)


class _Shifted:
    """A route over what follows the first `base` inputs."""

    switches = False

    def __init__(self, route: Any, base: int) -> None:
        self.route, self.base, self.length = route, base, route.length

    def take(self, block: Block) -> Block:
        return strided(self.base, 1, self.route.take(block))


class _Readers(Collection[Outputs]):
    """What is being read at the moment below a node whose sources take turns."""

    def __init__(self, readers: dict[tuple[int, int], Reader]) -> None:
        self.readers = readers

    def __iter__(self) -> Iterator[Outputs]:
        return iter([reader.outputs for reader in self.readers.values()])

    def __len__(self) -> int:
        return len(self.readers)

    def __contains__(self, item: object) -> bool:
        return any(item is outputs for outputs in self)


SourceRound: TypeAlias = tuple[int, int]
"""A source, and the round in which it is read (-1: none)."""


class Turns(Readers[SourceRound, "SortedOut"]):
    """The outputs of a switching route, whose sources and rounds take turns."""

    def __init__(self, sources: Sequence[Node], run: Run, switches: Iterator[Any]) -> None:
        super().__init__(_sorted_out(*switch) for switch in switches)
        self.sources, self.run = sources, run

    def parts(self, switch: SortedOut) -> Iterator[tuple[SourceRound, Node, Run, Block]]:
        """The pieces of a block, each of its source in its round."""
        for key, piece in zip(switch[0], switch[2]):
            source, number = key
            yield key, self.sources[source], self.run if number < 0 else self.run.round(number), piece

    def __iter__(self) -> Iterator[Any]:
        try:
            while (switch := self.next()) is not None:
                keys, turns, _ = switch
                live = [self.open[key].outputs for key in keys]
                before = sum(outputs.count for outputs in live)
                yield from map(next, map(live.__getitem__, turns)) if len(live) > 1 else islice(live[0], len(turns))
                delivered = sum(outputs.count for outputs in live) - before
                if delivered < len(turns):  # it ended at the one that ended too early
                    short = live[turns[delivered]]
                    raise fault(short, short.count + 1)
        finally:
            self.close()


SortedOut: TypeAlias = tuple[list[SourceRound], list[int], list[Block]]
"""The (source, round) pairs in a switching block, which of them each output is of, and the indices of each."""


def _sorted_out(sources: np.ndarray, indices: np.ndarray, rounds: np.ndarray) -> SortedOut:
    """A switching block, sorted out."""
    if len(sources) and (sources == sources[0]).all() and (rounds == rounds[0]).all():
        return [(int(sources[0]), int(rounds[0]))], [0] * len(indices), [_as_range(indices)]
    if not len(sources):
        return [], [], []
    codes = rounds * (int(sources.max()) + 1) + sources
    codes -= codes.min()
    by_key = np.argsort(
        codes.astype(np.uint16) if codes.max() < 1 << 16 else codes, kind="stable"
    )  # the short ones by a radix sort
    ends = np.flatnonzero(np.diff(codes[by_key])) + 1
    turns = np.empty_like(codes)
    turns[by_key] = np.repeat(np.arange(len(ends) + 1), np.diff(ends, prepend=0, append=len(codes)))
    firsts = by_key[[0, *ends]]
    keys = list(zip(sources[firsts].tolist(), rounds[firsts].tolist()))
    return keys, turns.tolist(), [_as_range(piece) for piece in np.split(indices[by_key], ends)]


def _as_range(indices: np.ndarray) -> Block:
    """Indices in a row as a range, which most sources read faster."""
    first, last = int(indices[0]), int(indices[-1])
    in_a_row = last - first == len(indices) - 1 and bool((indices[1:] > indices[:-1]).all())
    return range(first, last + 1) if in_a_row else indices
