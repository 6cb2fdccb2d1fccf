"""How equally work is divided: what each rank has to do in each step, told from lengths, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.datapoints.components import Datapoints
from flowfn.flows import sources
from flowfn.flows.definitions import Stage
from flowfn.flows.iterating import FlowIterator
from flowfn.flows.states import counting_of
from flowfn.kinds.nodes import Node, ending
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import EpochForm, Run
from flowfn.vocabulary.balancing.costs import Cost, costs_of
from flowfn.vocabulary.bucketing import measure
from flowfn.vocabulary.packing.balanced import balanced_fit

PLANNERS = ("batch_by_cost", "pack")
BATCHERS = ("batch", "batch_by_length", "batch_by_key")
EDGES = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
"""From where on the bars of a histogram count, in imbalance above 1; and how wide the longest is."""
BAR_WIDTH = 40


@dataclass(frozen=True, eq=False)
class Balance:
    """What each rank has to do in each step: arrays (steps, ranks) of costs (float64), and of tokens, and what they
    take up where they are padded (int64).

    Printed, it is a table with a histogram; of an iterator, with what each of `world` ranks was to do, and has done.
    """

    costs: np.ndarray
    tokens: np.ndarray
    space: np.ndarray
    delivered: np.ndarray | None = None

    @property
    def imbalance(self) -> np.ndarray:
        """Of each step, the cost of the rank that has most over the mean, (steps,) float64: 1 where all are equal."""
        mean = self.costs.mean(1)
        return np.divide(self.costs.max(1, initial=0), mean, out=np.ones_like(mean), where=mean > 0)

    @property
    def slowdown(self) -> float:
        """How many times as long all steps take as they would if all ranks had equal costs in each."""
        total = float(self.costs.mean(1).sum())
        return float(self.costs.max(1, initial=0).sum()) / total if total else 1.0

    @property
    def padding(self) -> np.ndarray:
        """Of each step, the share of what is laid out that is padding, (steps,) float64."""
        space = self.space.sum(1)
        return 1 - np.divide(self.tokens.sum(1), space, out=np.ones(len(space)), where=space > 0)

    @property
    def expected(self) -> float:
        """The cost that each rank should have been given: an equal share of what was delivered."""
        return 0.0 if self.delivered is None else float(self.delivered.mean())

    def histogram(self) -> str:
        """How many steps have which imbalance, as lines of text."""
        if not len(self.costs):
            return "no steps"
        counts = np.histogram(self.imbalance - 1, [*EDGES, np.inf])[0].tolist()
        width = max(len(str(count)) for count in counts)
        lines = [
            f"{1 + low:.3f} {f'to {1 + high:.3f}' if high else 'or more ':8}  {count:{width}}  "
            f"{'#' * -(-BAR_WIDTH * count // max(counts))}".rstrip()
            for low, high, count in zip(EDGES, [*EDGES[1:], 0], counts)
        ]
        return "\n".join(lines[: 1 + max(number for number, count in enumerate(counts) if count)])

    def __repr__(self) -> str:
        steps, ranks = self.costs.shape
        if not steps:
            return f"balance of 0 steps on {ranks} ranks"
        tokens = self.tokens.sum(1)
        lines = [
            f"balance of {steps} step{'s' * (steps != 1)} on {ranks} rank{'s' * (ranks != 1)}",
            f"  most over mean cost  {self.imbalance.mean():.4f} in the mean, {self.imbalance.max():.4f} at most, "
            f"{self.slowdown:.4f} of all",
            f"  padding              {1 - self.tokens.sum() / max(self.space.sum(), 1):.2%}",
            f"  tokens in a step     {tokens.mean():.0f} in the mean, {tokens.min()} to {tokens.max()}",
            *map("  {}".format, self.histogram().splitlines()),
        ]
        for rank, done in enumerate(() if self.delivered is None else self.delivered.tolist()):
            share = done / self.expected if self.expected else 1.0
            lines.append(f"  rank {rank:<4} expected {self.expected:.6g}, delivered {done:.6g} ({share:.4f})")
        return "\n".join(lines)


@rules.checked(
    steps=rules.optional(rules.positive),
    ranks=rules.optional(rules.positive),
    cost=rules.optional(rules.function),
)
def balance(
    flow: Any, steps: int | None = 100, *, ranks: int | None = None, cost: Cost | None = None, length: Any = None
) -> Balance:
    """Look how equally the work of the next epoch is divided among ranks, in the first `steps` steps (None: in all).

    `flow` has a `batch_by_cost` in it, or a `pack` with `ranks` (or `balanced_fit`), whose ranks and cost are meant,
    unless others are given. To see what a plan is worth, look at another: with `ranks` and `cost`, at any `pack`,
    `batch`, `batch_by_length` or `batch_by_key`, whose outputs go to the ranks in turn; `length` says what is a
    datapoint's, as there, and is `len` by default. Only what the plan is made of is read, in this process; nothing
    that comes behind it runs, no batch is collated, and the flow does not advance.

    Of an iterator, `iter(flow)`, it is looked at all steps so far: at what each rank has been given (if there are
    several, each has the same answer), and what its equal share would be. The plan is made again from the beginning of
    the epoch.

    Raises:
        ValueError: there is no plan, or it lies behind a `shard`; an iterator is over other stages behind it than
            map-like ones, batch, prefetch and one shard.

    >>> import flowfn as ff
    >>> lengths = [7, 1, 1, 5, 2, 2, 1, 9]
    >>> flow = ff.batch_by_cost(lambda n: n, lengths, length=lambda n: n, ranks=2, size=4, collate=None)
    >>> balance(flow).costs.tolist()
    [[8.0, 6.0], [10.0, 4.0]]
    >>> balance(ff.batch(2, lengths), ranks=2, cost=lambda n: n, length=lambda n: n).costs.tolist()
    [[8.0, 6.0], [4.0, 10.0]]
    """
    if not isinstance(flow, FlowIterator):
        whole = sources.flow(flow, "balance")
        work = _work_of(whole.node, ranks, cost, length)
        most = None if steps is None else steps * work.ranks * work.each
        return Balance(*_in_steps(_weighed(whole.node, work, whole.seed, whole.epoch, most), work))
    recipe, seed, epoch, checkpoint = flow.progress()
    work, counting, world = _work_of(recipe.node, ranks, cost, length), counting_of(recipe), recipe.node.world
    if not any(node is work.node for node in ending(counting.node)):
        raise ValueError(
            "balance(): what an iterator has delivered is known where nothing but map-like stages, batch, prefetch and "
            f"one shard comes after {work.node.part}; balance(flow) looks at the plan itself"
        )
    count = checkpoint.base + checkpoint.position * counting.each * counting.ranks(world)
    weighed = _weighed(recipe.node, work, seed, epoch, count)
    ranks = world if world > 1 else work.ranks
    return Balance(*_in_steps(weighed, work), np.array([weighed[rank::ranks, 0].sum() for rank in range(ranks)]))


class PlannedWork(NamedTuple):
    """The node that plans, and as it is read here; for how many ranks, how many outputs each has in a step, and what
    (cost, tokens, space) an output is."""

    node: Node
    plan: Node
    ranks: int
    each: int
    weigh: Callable[[Any], np.ndarray]


def _work_of(root: Node, ranks: int | None, cost: Cost | None, length: Any) -> PlannedWork:
    """The plan in a tree: that of a planner, or else what any word for batches makes."""
    nodes = list(top_down(root))
    found = [node for names in (PLANNERS, BATCHERS) for node in nodes if node.part and node.part.name in names]
    if not found:
        raise ValueError("balance(): there must be a batch_by_cost, a pack or another word for batches in the flow")
    node = found[0]
    options = asked_of(node.part)
    ranks, cost = ranks or options.get("ranks"), cost or options.get("cost")
    if ranks is None or (cost is None and node.part.name != "pack"):
        raise ValueError(f"balance(): {node.part} is planned for no ranks; write balance(flow, ranks=..., cost=...)")
    if node.world > 1:
        raise ValueError(f"balance(): {node.part} comes behind a shard, and so sees one rank alone; plan before shard")
    if node.part.name == "pack":
        return PlannedWork(node, node, ranks, options.get("rows", 1), partial(_weigh_row, cost, options["length"]))
    padded = options.get("padded", node.part.name == "batch_by_length")
    measured = options.get("length", len) if length is None else length
    as_longest = padded and options.get("size") is None
    part = Stage(node.part.definition, {**node.part.arguments, "collate": None}, node.part.pinned)
    plan = type(node)(part, node.sources, node.place, node.number)
    return PlannedWork(node, plan, ranks, 1, partial(_weigh_batches, cost, measured, padded, as_longest))


def asked_of(part: Any) -> dict[str, Any]:
    """What is asked of a plan: the options of its stage, and of its packer."""
    how = part.arguments.get("how")
    return {**part.arguments, **(how.keywords if isinstance(how, partial) and how.func is balanced_fit else {})}


def _weigh_batches(cost: Cost | None, length: Any, padded: bool, as_longest: bool, output: Any) -> np.ndarray:
    """Of a batch of datapoints, or a list of them."""
    weights = np.zeros(3)
    for batch in [output] if isinstance(output, Datapoints) else output:
        lengths = np.array([measure("balance", length, datapoint) for datapoint in batch], np.int64)
        costs = costs_of("balance", cost, lengths)
        work = len(costs) * costs.max() if as_longest else costs.sum()
        weights += work, lengths.sum(), len(lengths) * lengths.max() if padded else lengths.sum()
    return weights


def _weigh_row(cost: Cost | None, capacity: Any, output: Any) -> np.ndarray:
    """Of a packed row: of the segments in it."""
    if isinstance(capacity, Mapping):
        segments = [output[f"{name}_segment_ids"] for name in capacity]
        most = max(int(ids.max(initial=0)) for ids in segments)
        lengths = np.stack([np.bincount(ids, minlength=most + 1)[1:] for ids in segments], 1)
    else:
        lengths = np.bincount(output["segment_ids"] if isinstance(output, Mapping) else output[-2])[1:]
    space = sum(capacity.values()) if isinstance(capacity, Mapping) else capacity
    return np.array([costs_of("balance", cost, lengths).sum(), lengths.sum(), space])


def _weighed(root: Node, work: PlannedWork, seed: int, epoch: int, count: int | None) -> np.ndarray:
    """(cost, tokens, space) of the first outputs of a plan, (n, 3) float64."""
    outputs = work.plan.stream(run_at(root, work.node, seed, epoch))
    try:
        return np.array([work.weigh(output) for output in islice(outputs, count)]).reshape(-1, 3)
    finally:
        outputs.close()


def run_at(root: Node, node: Node, seed: int, epoch: int) -> Run:
    """The run in which a node of a tree is read, in its first round."""
    form: EpochForm = (epoch,)
    while root is not node:
        seed, form = (root.part.arguments["seed"], (0,)) if root.root else (seed, root.epoch_upstream(form))
        root = next(source for source in root.sources if any(one is node for one in top_down(source)))
    return Run(seed, tuple(round or 0 for round in form), "none")


def _in_steps(weighed: np.ndarray, work: PlannedWork) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs, tokens and space, (steps, ranks) each; what the last step lacks is nothing."""
    missing = -len(weighed) % (work.ranks * work.each)
    every = np.concatenate([weighed, np.zeros((missing, 3))]).reshape(-1, work.each, work.ranks, 3).sum(1)
    return every[..., 0], every[..., 1].astype(np.int64), every[..., 2].astype(np.int64)
