"""Several sources mixed in given proportions: what is asked for, and the route where all sources can be indexed.

The source of output k is a matter of k and of which sources have ended before it, whether the mix is read by index or
as a stream (`flowfn.vocabulary.mixing.blending`). A state remembers, by name, how far each source has come, so that a
mix with other sources can go on from it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import numpy as np

from flowfn.blocks import Block
from flowfn.flows.mix_rows import SourceProgress, Standing
from flowfn.kinds.routes import Switch
from flowfn.kinds.runs import Length
from flowfn.randomness.generators import hashed
from flowfn.vocabulary.mixing.deadlines import Deadlines
from flowfn.vocabulary.mixing.schedules import tempered
from flowfn.vocabulary.mixing.shares import STEPS_AT_ONCE, Picks, integer_weights, numbered

CYCLING = ("cycle_all", "forever")
"""When a mix that stops so finds that a source has ended, it begins it again."""

ONE_BLOCK = 1 << 16
"""Sources that have no more datapoints than this together, and are mixed by their lengths, are shuffled all at once."""


class Quota(NamedTuple):
    """How much of a source a mix should have given by now, and how much it has given: datapoints, or units."""

    expected: float
    delivered: float


@dataclass(frozen=True)
class MixPlan:
    """What is asked of a mix: weights (numbers, "length" or a function of the step) and their temperature,
    when to stop, how often each source may be read, whether shares are of units, the key of its draws."""

    names: Sequence[Any]
    weights: Any
    until: str
    key: int | None
    temperature: float = 1
    epochs: Sequence[float] | None = None
    measured: bool = False

    @property
    def cycles(self) -> bool:
        """Whether a source that has ended begins again, however often."""
        return self.until in CYCLING

    @property
    def in_rounds(self) -> bool:
        """Whether a source may be read more than once."""
        return self.cycles or self.epochs is not None

    def most(self, lengths: Sequence[Length]) -> list[float]:
        """How many datapoints each source may give: in cycles any number, otherwise all, in all its epochs."""
        if self.cycles:
            return [math.inf] * len(self.names)
        known = [math.inf if length is None else length for length in lengths]
        if self.epochs is None:
            return known
        return [_datapoints_of(epochs, length) for epochs, length in zip(self.epochs, known)]

    def limits(self, lengths: Sequence[Length]) -> list[float]:
        """The same for sources that are read in order: where their rounds end, they say themselves."""
        within_rounds = [one % 1 > 0 for one in self.epochs or [1] * len(self.names)]
        most = self.most(lengths) if any(within_rounds) else [math.inf] * len(self.names)
        return [limit if within else math.inf for limit, within in zip(most, within_rounds)]

    def active(self, begun: Sequence[SourceProgress], lengths: Sequence[Length]) -> list[int]:
        """The sources to pick from: under "all" those that have not ended;
        where they are weighed by length, not the empty ones.

        There are none where nothing is left to do, as it may be when a mix goes on from another.
        """
        if self.cycles and 0 in lengths:
            raise ValueError(f"mix(): source {self.names[lengths.index(0)]!r} is empty, it cannot begin again")
        if self.until == "cycle_all" and all(one.ended for one in begun):
            return []
        some = [source for source, length in enumerate(lengths) if length or self.weights != "length"]
        return [source for source in some if self.until != "all" or not begun[source].ended]

    def stops(self, source: int, ended: Sequence[bool]) -> bool:
        """Whether the mix is over when a source ends."""
        return self.until == "first" or (self.until != "forever" and all([*ended[:source], *ended[source + 1 :]]))

    def integers(self, lengths: Sequence[Any]) -> list[int]:
        """The weights as integers."""
        return integer_weights(tempered(lengths if self.weights == "length" else self.weights, self.temperature))

    def picks(self, active: Sequence[int], lengths: Sequence[Any], start_counts: Sequence[int]) -> Picks:
        """The picks while only the active sources are left, from where each has given so much since the mix began."""
        key = None if self.key is None else hashed(self.key, len(active))
        if self.weights != "length" or self.temperature != 1:
            return Picks(active, self.integers(lengths), key, start_counts=start_counts)
        total = sum(map(int, lengths))
        return Picks(
            active, integer_weights(lengths), key, total if total <= ONE_BLOCK else STEPS_AT_ONCE, start_counts
        )

    def deadlines(self, active: Sequence[int], lengths: Sequence[Any]) -> Deadlines:
        """Whose turn it is while only the active sources are left, where shares are of units."""
        return Deadlines(active, self.integers(lengths))

    def shares(self, at: float, active: Sequence[int]) -> list[float]:
        """What a function of the step says, as shares of 1 among the active sources."""
        said = self.weights(at)
        if isinstance(said, Mapping) and not set(said) <= set(self.names):
            raise ValueError(f"mix(): weights({at}) must be for {list(self.names)}, got {said!r}")
        try:
            weights = (
                [float(said.get(name, 0)) for name in self.names]
                if isinstance(said, Mapping)
                else [float(weight) for weight in said]
            )
        except (TypeError, ValueError):
            weights = []
        if len(weights) != len(self.names) or not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(
                f"mix(): weights({at}) must be a number >= 0 for each of {len(self.names)} sources, got {said!r}"
            )
        weights = tempered(weights, self.temperature) if any(weights) else weights
        total = math.fsum(weights[source] for source in active)
        if not total:
            left, wanted = ([self.names[one] for one in some] for some in (active, np.flatnonzero(weights).tolist()))
            over = f"; {wanted} have ended: give others a weight there, or let them begin again (epochs=)"
            raise ValueError(f"mix(): weights({at}) leave nothing for {left}, got {said!r}{over * bool(wanted)}")
        return [weight / total if source in active else 0.0 for source, weight in enumerate(weights)]

    def steady_before(self, at: float) -> float:
        """Up to where weights stay what they are; of a function, only it knows."""
        known = getattr(self.weights, "steady_before", None)
        return at if known is None else known(at)

    def is_over(self, at: float, ended: Sequence[bool]) -> bool:
        """Whether all that a schedule will ever ask for has ended."""
        settled = getattr(self.weights, "settled", None)
        if self.until != "all" or settled is None or not settled(at):
            return False
        every = self.shares(at, range(len(self.names)))
        return all(over or not share for over, share in zip(ended, every))


def _datapoints_of(epochs: float, length: float) -> float:
    """How many datapoints so many epochs are, to the nearest."""
    if not length or math.inf in (length, epochs):
        return math.inf if length else 0
    return round(Fraction(repr(epochs)) * int(length))


class Phase(NamedTuple):
    """Outputs from `start` on, until another source ends, and what had been given of each source before."""

    start: int
    picks: Any
    start_counts: tuple[int, ...]


class PickedAgain:
    """Picks that were made before: of which sources, one by one."""

    def __init__(self, picks: Sequence[int], sources: int) -> None:
        self.active = np.arange(sources)
        self.sources, self.before = numbered(picks, sources)

    def take(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each output, and how many outputs of that source come before it."""
        return self.sources[outputs], self.before[outputs]

    def counts(self, k: int) -> dict[int, int]:
        """How many of the first k outputs are of each source."""
        return dict(enumerate(np.bincount(self.sources[:k], minlength=len(self.active)).tolist()))


class MixRoute:
    """The route of a mix over sources of known lengths, from where it began.

    That is its first output, or else the output `first.start`, before which `again` is picked once more.
    """

    switches: ClassVar[bool] = True

    def __init__(
        self, plan: MixPlan, lengths: Sequence[float], first: Standing, again: Sequence[int] | None = None
    ) -> None:
        self.plan, self.lengths, self.origin = plan, tuple(lengths), first.sources
        active = plan.active(self.origin, lengths)
        totals = tuple(one.datapoints for one in self.origin)
        most = lengths if plan.cycles else plan.most(lengths)
        self.phases = [Phase(first.start, self._picks(active, totals), totals)] if active else []
        left = [max(n - past, 0) for n, past in zip(most, totals)]
        self.length = self._length(active, left) if active else first.start
        if again is not None:
            given = np.bincount(again, minlength=len(totals)).tolist()
            before = tuple(total - count for total, count in zip(totals, given))
            self.phases.insert(0, Phase(first.start - len(again), PickedAgain(again, len(totals)), before))
        self.starts = [phase.start for phase in self.phases]

    def _length(self, active: list[int], left: list[float]) -> float:
        """Where it stops; on the way the phases are found."""
        if self.plan.until == "forever":
            return math.inf
        phase = self.phases[0]
        if self.plan.until == "cycle_all":
            return phase.start + max(
                0 if self.origin[source].ended else phase.picks.output(source, left[source]) for source in active
            )
        while True:
            ends, ended = min((phase.picks.output(source, left[source]), source) for source in active)
            if self.plan.until == "first" or ends == math.inf or len(active) == 1:
                return phase.start + ends
            counts = phase.picks.counts(int(ends))
            left = [n - counts.get(source, 0) for source, n in enumerate(left)]
            start_counts = tuple(before + counts.get(source, 0) for source, before in enumerate(phase.start_counts))
            active.remove(ended)
            phase = Phase(phase.start + int(ends), self._picks(active, start_counts), start_counts)
            self.phases.append(phase)

    def _picks(self, active: list[int], start_counts: Sequence[int]) -> Picks:
        return self.plan.picks(active, self.lengths, since(self.origin, start_counts))

    def take(self, block: Block) -> Switch:
        """(source, index, round or -1) of the outputs in `block`."""
        outputs = np.asarray(block, np.int64)
        sources, indices = np.empty_like(outputs), np.empty_like(outputs)
        numbers = np.searchsorted(self.starts, outputs, side="right") - 1
        if (numbers < 0).any():
            raise given_before(int(outputs.min()))
        for number in np.unique(numbers).tolist():
            phase, here = self.phases[number], numbers == number
            sources[here], before = phase.picks.take(outputs[here] - phase.start)
            indices[here] = before + np.array(phase.start_counts)[sources[here]]
        if not self.plan.in_rounds:
            return sources, indices, np.full_like(indices, -1)
        sizes = np.array([min(max(n, 1), 2**62) for n in self.lengths], np.int64)[sources]
        return sources, indices % sizes, indices // sizes

    def begun(self, k: int) -> list[SourceProgress]:
        """How far each source has come after k outputs; that one has ended is found out when it is wanted again."""
        if not self.phases:
            return list(self.origin)
        number = max(bisect_left(self.starts, k) - 1, 0)
        phase, first = self.phases[number], self.plan.active(self.origin, self.lengths)
        counts, every = phase.picks.counts(k - phase.start), []
        for source, (n, one) in enumerate(zip(self.lengths, self.origin)):
            datapoints = phase.start_counts[source] + counts.get(source, 0)
            round = max(datapoints - 1, 0) // int(n) if self.plan.in_rounds and 0 < n < math.inf else 0
            over = round > 0 if self.plan.cycles else source in first and source not in phase.picks.active
            every.append(
                SourceProgress(
                    datapoints,
                    round,
                    datapoints - round * int(n) if round else datapoints,
                    one.ended or over,
                    before=phase.start_counts[source],
                )
            )
        if isinstance(phase.picks, PickedAgain):
            return [one._replace(expected=float(one.datapoints)) for one in every]
        return owed(self.origin, every, phase.picks.active.tolist(), phase.picks.weights)


def given_before(output: int) -> ValueError:
    """The error for an output that was given before a mix went on as another."""
    return ValueError(
        f"mix(): its datapoint {output} was given before its sources or weights became what they are; ask the pipeline "
        "that gave it, with a state from then"
    )


def since(origin: Sequence[SourceProgress], totals: Sequence[int]) -> list[int]:
    """What sources have given since a mix began."""
    return [count - one.datapoints for one, count in zip(origin, totals)]


def owed(
    origin: Sequence[SourceProgress],
    begun: Sequence[SourceProgress],
    active: Sequence[int],
    weights: Sequence[int],
    of: str = "datapoints",
) -> list[SourceProgress]:
    """With what is expected of each: of those that ended, what they had; of the others,
    their shares of all the rest."""
    totals = [getattr(one, of) - getattr(first, of) for one, first in zip(begun, origin)]
    due: list[float] = list(totals)
    rest, total = sum(totals[source] for source in active), sum(weights[source] for source in active)
    for source in active:
        due[source] = rest * weights[source] / total
    return [one._replace(expected=first.expected + more) for one, first, more in zip(begun, origin, due)]
