"""A mix in a tree: by its route where that can be had, and otherwise with all its sources open at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.mix_rows import MixRow, SourceProgress, are_rows, first_of, packed_row, unpacked_row
from flowfn.flows.stages import stage
from flowfn.functions import renamed
from flowfn.kinds.nodes import MISSING, known_length
from flowfn.kinds.orders import Order
from flowfn.kinds.runs import Anchor, EpochForm, Length, Outputs, Run
from flowfn.kinds.traces import Use
from flowfn.randomness.drawing import words
from flowfn.randomness.generators import drawn_key, generator
from flowfn.vocabulary.mixing.plans import CYCLING, MixRoute, Plan, owed, since


class MixNode(Order):
    """Mixes its sources: by a route where all can be indexed and weights are numbers,
    by reading them in turn elsewhere."""

    names_sources = True

    def setup(self) -> None:
        """Weights that are a function of the step have to be followed step by step."""
        super().setup()
        until, steady = self.part.arguments["until"], all(source.steady for source in self.sources)
        self.scheduled = callable(self.part.arguments["weights"])
        self.cycles = until in CYCLING
        self.varies = self.cycles and not steady
        self.seekable = self.seekable and not self.scheduled and not self.varies
        self.steady = steady and not (self.part.random and until in ("first", "cycle_all"))

    @property
    def names(self) -> Any:
        """What the sources are called."""
        return self.part.arguments["names"]

    def unknown(self) -> str:
        """A schedule is to blame itself."""
        return "the weights of mix are a function of the step" if self.scheduled else super().unknown()

    def plan(self, run: Run) -> Plan:
        """What the stage asks for in a run."""
        made: Plan = self.part.order((), **({"rng": generator(self.key(run))} if self.part.random else {}))
        return made

    def lengths(self, run: Run) -> tuple[Length, ...]:
        """Those of the sources, where they are the same in every round."""
        return tuple(None if self.cycles and not source.steady else source.length(run) for source in self.sources)

    def first(self, run: Run) -> MixRow:
        """The row with which the pass began."""
        return first_of(run.anchors.get(self.place), run, len(self.sources))

    def new_route(self, run: Run, lengths: Any) -> MixRoute:
        """The route over sources so long."""
        return MixRoute(self.plan(run), lengths, unpacked_row(self.first(run), len(self.sources))[2])

    def length(self, run: Run) -> Length:
        """That of the route."""
        if self.scheduled or None in self.lengths(run):
            return math.inf if self.part.arguments["until"] == "forever" else None
        return self.route(run).length

    def labels(self, run: Run) -> tuple[int, int]:
        """Counted anew, after the steps of the mix that this one went on from."""
        return self.rank + self.world * unpacked_row(self.first(run), len(self.sources))[1], self.world

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Over streams all sources are open at once, each in its round."""
        if self.seekable:
            return super().stream(run, start, lineage)
        anchor = run.anchor(self.place, start, 0)
        if not anchor.outputs:
            anchor = anchor._replace(inputs=self.first(run))
        mixing = Mixing(self, run, anchor)
        outputs = mixing.outputs = Outputs(iter(mixing), self, mixing.live, anchor.outputs, mixing.tell)
        outputs.drop(start - anchor.outputs)
        if (trace := run.traced(self.place)) is not None:
            trace.used = mixing.uses()
        return outputs.labelled(self.numbers(start, self.labels(run)), start) if lineage else outputs

    def anchor(self, epoch: int, steps: int, sources: Mapping[str, list[Any]]) -> Anchor:
        """Where to begin so as to go on from a mix of other sources: those of the same names have come so far."""
        begun = [SourceProgress(*sources.get(str(name), ())) for name in self.names]
        return Anchor((epoch,), 0, packed_row(0, steps, zip(*(one._replace(before=one.datapoints) for one in begun))))

    def epoch_upstream(self, epoch: EpochForm) -> EpochForm:
        """In a round of it, where sources begin again."""
        return (*epoch, None) if self.cycles else epoch

    def misfit(self, run: Run, anchor: Anchor) -> str:
        """Where it stands, and where it began if it went on from another mix."""
        many = len(self.sources)
        fits = not (anchor.outputs and (self.seekable or not anchor.inputs)) and are_rows(
            anchor.inputs, many, anchor.outputs
        )
        if fits and anchor.inputs:
            begun, first = (unpacked_row(row, many)[2] for row in (anchor.inputs, first_of(anchor, run, many)))
            ends = [known_length(run, source) for source in self.sources]
            fits = all(one.position <= max(end, past.position) for end, one, past in zip(ends, begun, first))
        return (
            ""
            if fits
            else "[epoch, outputs, [start of the phase, steps before, and what each source has given]], which add up"
        )

    def progress(self, run: Run, k: int, size: int = 1) -> tuple[int, list[SourceProgress]] | None:
        """How many steps the mix has made, and how far each source has come, after k outputs, if that is known.

        At the end of a pass there may be up to `size` - 1 outputs less than k: the last batch is short.
        """
        anchor = run.anchors.get(self.place, Anchor(run.epoch, 0, ()))
        _, before, begun = unpacked_row(anchor.inputs, len(self.sources))
        if self.seekable:
            route = self.route(run)
            k = int(min(k, route.length))
            return before + k, route.begun(k)
        if not k - size < anchor.outputs <= k or anchor.epoch != run.epoch:
            return None
        plan, lengths, origin = self.plan(run), self.lengths(run), unpacked_row(self.first(run), len(self.sources))[2]
        active = [] if self.scheduled else plan.active(begun, lengths)
        if active:
            begun = owed(origin, begun, plan.picks(active, lengths, since(origin, [one.before for one in begun])))
        return before + anchor.outputs, begun


class Mixing:
    """One pass over a mix of streams: which sources are open, and how far each has come."""

    outputs: Outputs
    at_end: MixRow | None = None

    def __init__(self, node: MixNode, run: Run, anchor: Anchor) -> None:
        self.node, self.run, self.plan, self.step = node, run, node.plan(run), anchor.outputs
        self.lengths = node.lengths(run)
        self.start, self.before, begun = unpacked_row(anchor.inputs, len(node.sources))
        self.first = node.first(run)
        self.origin = unpacked_row(self.first, len(node.sources))[2]
        self.totals, self.rounds, positions, self.ended, self.expected, self.past = map(list, zip(*begun))
        self.positions = positions if self.plan.cycles else list(self.totals)
        self.live = [self._open(*one) for one in enumerate(self.positions)]
        self.shares: list[float] = []  # of this step, where they are a function of it
        self.pick = self._scheduled() if node.scheduled else self._by_quota()

    def _open(self, source: int, position: int) -> Outputs:
        return self.node.sources[source].stream(self._run_of(source), position)

    def _run_of(self, source: int) -> Run:
        return self.run.round(self.rounds[source]) if self.plan.cycles else self.run

    def active(self) -> list[int]:
        """The sources to pick from."""
        return self.plan.active(list(map(SourceProgress, *self._columns())), self.lengths)

    def _columns(self) -> tuple[list[Any], ...]:
        return self.totals, self.rounds, self.positions, self.ended, self.expected, self.past

    def tell(self) -> dict[int, Anchor]:
        """A mix holds nothing between its outputs, so it can go on from anywhere."""
        return {self.node.place: Anchor(self.run.epoch, self.outputs.position, self.at_end or self._row())}

    def _row(self) -> MixRow:
        return packed_row(self.start, self.before, self._columns(), self.first)

    def uses(self) -> Callable[[], list[Use]]:
        """What tells, after each output from here on, which input it is."""
        before = list(self.totals)

        def used() -> list[Use]:
            (source,) = (one for one, total in enumerate(self.totals) if total > before[one])
            before[source] = self.totals[source]
            return [Use(source, self._run_of(source), [self.positions[source] - 1])]

        return used

    def __iter__(self) -> Iterator[Any]:
        for source in self.pick:
            datapoint = self._next(source)
            if datapoint is MISSING:
                if self.plan.stops(source, self.ended):
                    return
                self.at_end = self.at_end or self._row()  # if nothing comes any more, this is where it stands
                self.ended[source] = True
                if not self.plan.cycles:
                    continue
                self._begin_again(source)
                datapoint = self._next(source)
            self.at_end = None
            self.totals[source] += 1
            self.positions[source] += 1
            self.step += 1
            if self.shares:
                self.expected = [due + share for due, share in zip(self.expected, self.shares)]
            yield datapoint

    def _next(self, source: int) -> Any:
        datapoint = next(self.live[source], MISSING)
        if datapoint is MISSING and self.plan.cycles and not self.positions[source]:
            raise ValueError(f"mix(): source {self.plan.names[source]!r} gave no datapoint, it cannot begin again")
        return datapoint

    def _begin_again(self, source: int) -> None:
        self.live[source].close()
        self.rounds[source] += 1
        self.positions[source] = 0
        self.live[source] = self._open(source, 0)

    def _by_quota(self) -> Iterator[int]:
        """The source of each output; when one has ended, the others share what follows."""
        while active := self.active():
            picks = self.plan.picks(active, self.lengths, since(self.origin, self.past))
            for source in picks.each(self.step - self.start):
                yield source
                if self.ended[source] and not self.plan.cycles:
                    break
            self.start, self.past = self.step, list(self.totals)

    def _scheduled(self) -> Iterator[int]:
        """The source that is furthest behind what the weights of all steps so far owe it;
        or a draw by those of this step."""
        source = -1
        while active := self.active():
            ended, source = source, active[0]
            while self.plan.cycles or not self.ended[source]:
                step = self.before + self.step
                self.shares = self.plan.shares(step, active)
                if ended >= 0:
                    self._bequeath(ended)
                    ended = -1
                if self.plan.key is not None:
                    source = _drawn(int(words(np.array([step], np.uint64), self.plan.key)[0]) / 2**64, self.shares)
                else:
                    behind = [due + share - given for due, share, given in zip(self.expected, self.shares, self.totals)]
                    source = max((one for one in active if self.shares[one]), key=lambda one: (behind[one], -one))
                yield source

    def _bequeath(self, ended: int) -> None:
        """What was still expected of a source that has ended is shared by the others."""
        left, self.expected[ended] = self.expected[ended] - self.totals[ended], float(self.totals[ended])
        self.expected = [due + left * share for due, share in zip(self.expected, self.shares)]


def _drawn(fraction: float, shares: list[float]) -> int:
    """The source whose share of [0, 1) a fraction falls into."""
    chosen = 0
    for source, share in enumerate(shares):
        if share and fraction >= 0:
            chosen, fraction = source, fraction - share
    return chosen


@stage.order(
    reads=MixNode,
    draws="random",
    where={"until": rules.one_of("first", "all", "cycle_all", "forever"), "random": rules.boolean},
)
@renamed("mix")
def mixed(*sources: Any, names: Any, weights: Any, until: str, random: bool, rng: np.random.Generator | None) -> Plan:
    """What a mix of sources is asked for; `flowfn.mix` is for users."""
    return Plan(names, weights, until, None if rng is None else drawn_key(rng))
