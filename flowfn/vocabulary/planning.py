"""Batches planned for all ranks, so that in every step all of them have nearly the same to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datapoints.collating import BATCHING, batched
from flowfn.datapoints.padding import pad
from flowfn.flows.stages import stage
from flowfn.kinds.runs import Anchor, naturals
from flowfn.kinds.streams import Mark
from flowfn.kinds.traces import Trace
from flowfn.randomness.generators import drawn_key, rekey
from flowfn.showing import brief
from flowfn.vocabulary.balancing import plans
from flowfn.vocabulary.balancing.costs import Cost, as_integers, costs_of
from flowfn.vocabulary.balancing.partitions import any_counts
from flowfn.vocabulary.balancing.plans import Batches, StepPlan
from flowfn.vocabulary.bucketing import LENGTH, measure

DATAPOINTS = 2048
"""How many datapoints there are for each rank in a window that nobody chose."""

STAKE = 256
"""Every so many inputs it is noted from where what is upstream could go on."""

_GIVEN = rules.Rule(
    "how many outputs of a window were given",
    lambda note: naturals(note, 1),
    lambda note, facts: note[0] <= facts["outputs"],
)


def _size_fits(value: Any, others: Mapping[str, Any]) -> bool:
    if value is None:
        return others["tokens"] is not None
    return value > 0 and value % others["ranks"] == 0


def _microbatches_fit(value: Any, others: Mapping[str, Any]) -> bool:
    size = others["size"]
    return value is None or (
        value > 0 and (size is None or (others["tokens"] is None and value * others["ranks"] <= size))
    )


_ZEROS = pad(0)

_PLANNED = {
    "cost": rules.function,
    "ranks": rules.positive,
    "length": LENGTH,
    "size": rules.Rule(
        "a multiple of ranks, how many datapoints all of them have in a step (or left out, where tokens= is given)",
        lambda value: value is None or rules.is_integer(value),
        _size_fits,
    ),
    "tokens": rules.optional(rules.positive),
    "microbatches": rules.Rule(
        "a positive integer, or None; with size= at most size / ranks, and None where tokens= says how many there are",
        lambda value: value is None or rules.is_integer(value),
        _microbatches_fit,
    ),
    "window": rules.Rule(
        "a positive integer, or None; with size= None, as a step is the window",
        lambda value: value is None or rules.is_integer(value),
        lambda value, others: value is None or (value > 0 and others["size"] is None),
    ),
    "padded": rules.boolean,
}


@stage.stream(where={**_PLANNED, **BATCHING}, note=_GIVEN)
def batch_by_cost(
    cost: Cost,
    source: Any,
    *,
    ranks: int,
    length: Any = len,
    size: int | None = None,
    tokens: int | None = None,
    microbatches: int | None = None,
    padded: bool = True,
    window: int | None = None,
    drop_remainder: bool = False,
    collate: Any = _ZEROS,
    rng: np.random.Generator,
    mark: Mark,
    trace: Trace | None,
) -> Iterator[Any]:
    """Plan batches for `ranks` ranks, so that in every step all of them have nearly the same to do.

    An output is what one rank does in one step: a batch, or a list of microbatches, as many as the others' of that
    step. Those of a step come one after the other, so that `shard(rank, world)` behind it deals them, to `ranks` ranks
    or any other number: a state that was saved in one world loads in another.

    `cost` says what datapoints cost, as a function of an array of their lengths (int64), such as
    `lambda n: n + n * n / 4096`. `length` is a function of a datapoint, or the position or key of the component whose
    `len` counts. What a step is:

    - `size=256`: the next 256 datapoints, equally many for each rank; the order stays what it was, and only who gets
      what is planned. With `tokens` each rank's come in microbatches of at most so many, as few as can be; with
      `microbatches` in so many.
    - `tokens=16384`: of a window, as many datapoints as fill whole steps of batches (or of `microbatches` each) of at
      most so many tokens. What is left begins the next window. The steps of a window come in an order of their own in
      each epoch. A window is of 2048 datapoints for each rank, and at least 4096, or what `window` says; it is larger
      where that makes no step.

    Tokens are counted as a batch's number of rows times its longest, and neighbours in length go together; or, where
    nothing is padded, with `padded=False`, as the sum of its lengths. A step of one padded batch for each rank has
    datapoints of about one length; with several microbatches lengths mix, and where nothing is padded all are in it.

    In the end there may be a smaller step, in which all ranks still have equally many outputs and microbatches; fewer
    datapoints than ranks are an output each, and what ranks do that have none is for `shard(remainder=)` to say.
    `drop_remainder` leaves out what makes no whole step. `collate` is that of `batch`, for each microbatch. Every rank
    plans for all, so `collate=None` before `shard`, and loading behind it (see `inside`, `collate`), spares it the
    others' batches. A window of datapoints is held; a state holds none of them.

    Raises:
        ValueError: a datapoint is longer than `tokens`; `cost` gives no cost for each.
        TypeError: a length is no integer; `cost` cannot be called with an array.

    >>> import flowfn as ff
    >>> texts = "aaaaaaa b bb ccccc dd ddd".split()
    >>> list(ff.batch_by_cost(lambda n: n * n, texts, ranks=2, size=4, collate=None))
    [['aaaaaaa', 'b'], ['bb', 'ccccc'], ['ddd'], ['dd']]
    """
    planner = Planner(cost, ranks, size, tokens, microbatches, padded, window)
    waiting = WaitingSteps(source, mark, length, tokens)
    mark.anywhere(waiting.note)
    while (plan := waiting.plan(planner, rng, drop_remainder)) is not None:
        for share in waiting.shares(plan):
            batches = [batched([waiting.datapoints[item] for item in batch.tolist()], collate) for batch in share]
            waiting.given += 1
            if trace is not None:
                trace(waiting.first + item for batch in share for item in batch.tolist())
            yield batches if planner.listed else batches[0]
        waiting.go_on(plan)


@dataclass(frozen=True)
class Planner:
    """What is asked of a plan."""

    cost: Cost
    ranks: int
    size: int | None
    tokens: int | None
    microbatches: int | None
    padded: bool
    window: int | None

    @property
    def listed(self) -> bool:
        """Whether what a rank does in a step is a list of microbatches."""
        return self.microbatches is not None or (self.size is not None and self.tokens is not None)

    @property
    def datapoints(self) -> int:
        """How many datapoints are looked at together, at least."""
        return self.size or self.window or max(4096, DATAPOINTS * self.ranks)

    def plan(self, lengths: np.ndarray, key: int, ended: bool) -> StepPlan | None:
        """The steps that datapoints of these lengths make; None if that is none, and more may come."""
        costs = as_integers(costs_of("batch_by_cost", self.cost, lengths))
        if self.size is not None:
            return self._step(lengths, costs, key) if ended or len(lengths) == self.size else None
        shape = plans.StepShape(self.ranks, self.microbatches or 1, np.array([self.tokens]))
        if self.padded:
            return plans.padded(lengths, costs, shape, key, ended)
        return plans.filled(
            np.maximum(lengths, 1)[:, None], costs, shape, key, ended
        )  # what is empty makes a step, too

    def _step(self, lengths: np.ndarray, costs: np.ndarray, key: int) -> StepPlan:
        """One step, of all datapoints if there are equally many for each rank."""
        taken = len(lengths) // self.ranks * self.ranks or len(lengths)
        shares = plans.dealt_shares(costs[:taken], self.ranks, key)
        return StepPlan(taken, [self._microbatches(lengths, costs, shares)])

    def _microbatches(self, lengths: np.ndarray, costs: np.ndarray, shares: np.ndarray) -> list[Batches]:
        if self.tokens is not None:
            some = plans.padded_microbatches if self.padded else plans.summed_microbatches
            return some(lengths, shares, self.tokens)
        count = min(self.microbatches or 1, shares.shape[1])
        return [[share[part] for part in any_counts(costs[share], count)] for share in shares]


class WaitingSteps:
    """The datapoints that have been read and are in no step yet, or in one of the steps that are being given.

    From the first of them on a pass can go on: they are planned again, and the outputs `given` of that plan left out.
    """

    def __init__(self, source: Any, mark: Mark, length: Any, tokens: int | None) -> None:
        self.source, self.mark, self.length, self.tokens = source, mark, length, tokens
        self.datapoints: list[Any] = []
        self.lengths: list[int] = []
        self.given: int = mark.note[0] if mark.note else 0
        self.outputs = mark.outputs.position - self.given
        self.first = int(source.position)
        self.stakes: list[tuple[int, dict[int, Anchor]]] = [(self.first, mark.upstream)]

    def note(self) -> tuple[int, int]:
        """How many inputs back the first is that waits, and how many outputs of its plan were given."""
        self.mark.upstream = self.stakes[0][1]
        return self.source.position - self.first, self.given

    def plan(self, planner: Planner, rng: np.random.Generator, drop_remainder: bool) -> StepPlan | None:
        """What the next datapoints make; None if there are none, or none that make a whole step."""
        size = planner.datapoints
        rekey(rng, self.outputs)
        key = drawn_key(rng)
        while True:
            self._read(size - len(self.datapoints))
            ended = len(self.datapoints) < size
            if not self.datapoints:
                return None
            plan = planner.plan(np.array(self.lengths[:size], np.int64), key, ended and not drop_remainder)
            if plan is not None or ended:
                return plan
            size *= 2

    def _read(self, count: int) -> None:
        """Take so many datapoints, or as many as there are."""
        first, length, most = self.first + len(self.datapoints), self.length, self.tokens
        for number, datapoint in enumerate(islice(self.source, max(count, 0)), first):
            measured: Any = length(datapoint) if callable(length) and length is not len else None
            if type(measured) is not int or measured < 0:  # it may be an integer of another type
                measured = measure("batch_by_cost", length, datapoint)
            if most is not None and measured > most:
                raise ValueError(
                    f"batch_by_cost(): a datapoint of length {measured} is longer than tokens={most}: "
                    f"{brief(datapoint)}; flat_map(split_long(...)) splits long ones before, filter leaves them out"
                )
            if number % STAKE == 0:
                self.stakes.append((number, self.source.facts(before_last=True)))
            self.datapoints.append(datapoint)
            self.lengths.append(measured)

    def shares(self, plan: StepPlan) -> Iterator[Batches]:
        """What each rank does in each step of a plan, without what was given."""
        shares = [share for step in plan.steps for share in step]
        if self.given > len(shares):
            raise ValueError(
                f"batch_by_cost(): the state says that {self.given} outputs of a window were given, but it makes "
                f"{len(shares)}: the data differs"
            )
        yield from shares[self.given :]

    def go_on(self, plan: StepPlan) -> None:
        """All of a plan is given: what it took is let go."""
        self.first, self.outputs, self.given = self.first + plan.taken, self.outputs + sum(map(len, plan.steps)), 0
        del self.datapoints[: plan.taken], self.lengths[: plan.taken]
        behind = sum(number <= self.first for number, _ in self.stakes)
        del self.stakes[: behind - 1]
