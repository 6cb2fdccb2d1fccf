"""Which records of the sources an output was made of: found out afterwards, by index or by making it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from more_itertools import consume

from flowfn import rules
from flowfn.blocks import Block, each_index, ints
from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator
from flowfn.flows.naming import Name, source_names
from flowfn.flows.states import gaps, unpack_state
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import MISSING, Node
from flowfn.kinds.orders import Order
from flowfn.kinds.parts import top_down
from flowfn.kinds.ranges import Ranges
from flowfn.kinds.runs import Checkpoint, Epoch, Run, SkipList
from flowfn.kinds.streams import Stream
from flowfn.kinds.tallies import anchors
from flowfn.kinds.traces import Trace, Use
from flowfn.seeing.resuming import is_state
from flowfn.showing import brief


@dataclass(frozen=True, slots=True)
class Origin:
    """A record of a source that went into an output.

    `source`: its name in a mix, or its number among the sources of the flow, from left to right. `index`: which of its
    datapoints. `epoch`: in which epoch, and below `repeat` and the like in which round: (epoch, round, ...). `rank`: on
    which rank. `shown`: the source as it was written.

    >>> Origin("web", 7, (0,)) == Origin("web", 7, (0,), shown="flow([...])")
    True
    """

    source: Name
    index: int
    epoch: Epoch
    rank: int = 0
    shown: str = field(default="", compare=False, repr=False)


class Origins(list[Origin]):
    """Origins, and how they were found.

    `how` is "index" where arithmetic told, and "replay" where a part of the pass was made again. `exact` is False where
    a stage did not tell what its outputs are made of, or took batches apart: then these are all records that it may
    have held, or that were in the batch.
    """

    def __init__(self, every: Sequence[Origin] = (), how: str = "index", exact: bool = True) -> None:
        super().__init__(every)
        self.how, self.exact = how, exact


FLOW = rules.Rule(
    "a flow",
    lambda value: isinstance(value, Flow),
    hint="; flow(data) makes one, and state= takes an iterator over it",
)


@rules.checked(flow=FLOW, k=rules.natural, ranks=rules.one_of("own", "all"))
def origins(
    flow: Flow[Any],
    k: int,
    *,
    seed: int | None = None,
    epoch: int | None = None,
    state: Any = None,
    ranks: str = "own",
) -> Origins:
    """Which records of the sources made output `k` of a pass: by source, index and epoch, in the order of their use.

    Nothing has to be logged, and any rank can ask: the order is a function of the index. Below stages that have to be
    read in order (`filter`, `pack`, `shuffle_buffer`), as much as is needed of the pass is made again, from its
    beginning, or from the anchors of `state` (a state, or an iterator, of that pass from before output `k`). Built-in
    stages tell exactly what each output is made of, and so does a stage of yours that asks for `trace`; of any other,
    all is named that it may have held, and of a batch that is taken apart, all that is in it. `.how` of what is
    returned is "index" or "replay", `.exact` whether it is exact.

    The pass is the next one of the flow, unless `seed` and `epoch`, or a state, say another. Records that it leaves out
    (`skip=`) are not told; an output that it leaves out is. `ranks="all"`: the records of step `k` on all ranks, for a
    flow with one `shard`.

    Raises:
        IndexError: the pass has no output `k`.
        ValueError: `ranks="all"`, and there is no `shard`, or several.
        TypeError: outputs come in any order (`prefetch(ordered=False)`), or the source is one that can be read once.

    >>> import flowfn as ff
    >>> train = ff.pipe(ff.mix({"web": range(100), "code": range(9)}, weights=[2, 1]), ff.shard(0, 2), ff.batch(2))
    >>> ff.origins(train, 1)
    [Origin(source='code', index=1, epoch=(0,), rank=0), Origin(source='web', index=4, epoch=(0,), rank=0)]
    >>> [one.index for one in ff.origins(ff.pipe(range(9), ff.filter(lambda x: x % 2)), 2)]
    [5]
    """
    if flow.node.loose:
        raise TypeError(f"origins(): {flow!r} gives outputs as they come (ordered=False), so there is no output {k}")
    of_seed, of_epoch, known = pass_of(flow, seed, epoch, state, "origins")
    run = Run(of_seed, (of_epoch,), base=known.base, anchors=anchors(known.anchors), gaps=gaps(flow, known))
    found = Origins()
    for rank, one in _every_rank(flow) if ranks == "all" else [(flow.node.rank, flow)]:
        walk, run = Walk(one.node), replace(run, memo={})
        if _is_beyond(one.node, run, k):
            continue
        found.extend(walk.origins(run, k, rank))
        if walk.replayed:
            found.how = "replay"
        found.exact &= walk.exact
    run = replace(run, memo={})
    if not found and _has_none(flow.node, run, k):
        raise IndexError(f"origins(): the pass has no output {k}")
    return found


def pass_of(
    flow: Flow[Any], seed: int | None, epoch: int | None, state: Any, caller: str
) -> tuple[int, int, Checkpoint]:
    """(seed, epoch, what is known of it) of the pass that is meant; what it leaves out are records, not outputs."""
    if state is None:
        next_one = flow.seed, flow.epoch
        of_seed, of_epoch = next_one[0] if seed is None else seed, next_one[1] if epoch is None else epoch
        known = flow._coming if (of_seed, of_epoch) == next_one else Checkpoint(skip=flow._coming.skip.following())
        return of_seed, of_epoch, _with_outputs(known)
    if isinstance(state, FlowIterator):
        _, of_seed, of_epoch, checkpoint = state.progress()
    elif is_state(state):
        of_seed, of_epoch, checkpoint = unpack_state(flow, state)
    else:
        raise TypeError(f"{caller}(): state must be a state or an iterator over the flow, got {brief(state)}")
    if seed not in (None, of_seed) or epoch not in (None, of_epoch):
        raise ValueError(
            f"{caller}(): the state is of seed {of_seed}, epoch {of_epoch}; leave seed= and epoch= out, or state="
        )
    return of_seed, of_epoch, _with_outputs(checkpoint)


def _with_outputs(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint that leaves out no outputs, but the records that are not in them."""
    return checkpoint._replace(skip=SkipList(records=checkpoint.skip.records))


def _is_beyond(node: Node, run: Run, k: int) -> bool:
    """Whether it is known that there is no output k."""
    length = node.length(run)
    return length is not None and k >= length


def _has_none(node: Node, run: Run, k: int) -> bool:
    """Whether a pass has no output k, which may take reading it."""
    if node.length(run) is not None:
        return _is_beyond(node, run, k)
    outputs = node.stream(run, k)
    try:
        return next(outputs, MISSING) is MISSING
    finally:
        outputs.close()


class Walk:
    """The way up from an output to the records of the sources."""

    def __init__(self, root: Node) -> None:
        self.root, self.names = root, source_names(root)
        self.replayed, self.exact = False, True

    def origins(self, run: Run, k: int, rank: int) -> Iterator[Origin]:
        """The records of output k."""
        shown = {leaf.place: repr(leaf.part) for leaf in top_down(self.root) if leaf.place in self.names}
        for leaf, above, index in self._records(self.root, run, range(k, k + 1)):
            yield Origin(self.names[leaf.place], index, above.epoch, rank, shown[leaf.place])

    def _records(self, node: Node, run: Run, outputs: Block) -> Iterator[tuple[Node, Run, int]]:
        """The records of some outputs of a node, in their order."""
        if not node.sources:
            left_out = run.gaps.records.get(node.place, Ranges())
            for index in ints(outputs) if node.place in self.names else ():
                if not node.seekable:
                    yield node, run, left_out.beside(index)
                elif index not in left_out:
                    yield node, run, index
            return
        for source, above, inputs in self._inputs(node, run, outputs):
            yield from self._records(node.sources[source], above, inputs)

    def _inputs(self, node: Node, run: Run, outputs: Block) -> Iterator[tuple[int, Run, Block]]:
        """One step up."""
        if len(node.sources) == 1 and not node.part.traits.switches and not self._is_retold(node):
            yield from self._upward(node, run, outputs)
        else:  # in the order of the outputs, and not source by source
            for _, source, above, inputs in self.made_of(node, run, outputs):
                yield source, above, inputs

    def made_of(self, node: Node, run: Run, outputs: Block) -> Iterator[tuple[int, int, Run, Block]]:
        """(output, source, its run, inputs): what each of some outputs of a node is made of, one step up."""
        if self._is_retold(node):
            yield from self._retold(node, run, outputs)
            return
        for index in ints(outputs):
            for source, above, inputs in self._upward(node, run, range(index, index + 1)):
                yield index, source, above, inputs

    def _is_retold(self, node: Node) -> bool:
        return not node.seekable and node.retold

    def _upward(self, node: Node, run: Run, outputs: Block) -> Iterator[tuple[int, Run, Block]]:
        """One step up where arithmetic tells."""
        if node.guards and node.part.arguments["then"] == "next":
            self.exact = False  # it may have taken a later one
        for source, above, inputs in node.upward(run, outputs):
            cut = isinstance(node, Group) and not node.seekable
            yield source, above, self._there(node, above, inputs) if cut else inputs

    def _there(self, node: Node, run: Run, inputs: Block) -> Block:
        """Those inputs that there are: a last batch may be short."""
        (source,), first, last = node.sources, int(min(inputs)), int(max(inputs))
        if source.length(run) is not None:
            return inputs
        self.replayed = True
        reading = source.stream(run, first)
        consume(reading, last + 1 - first)
        there = reading.position
        reading.close()
        return np.array([index for index in ints(inputs) if index < there], np.int64)

    def _retold(self, node: Node, run: Run, outputs: Block) -> Iterator[tuple[int, int, Run, Block]]:
        """What some outputs are made of, told while they are made again."""
        trace, wanted = Trace(node.place), list(ints(outputs))
        used: dict[int, list[Use]] = {}
        self.replayed = True
        reading = node.stream(replace(run, trace=trace, memo={}), min(wanted, default=0))
        try:
            for number in range(min(wanted, default=0), max(wanted, default=-1) + 1):
                if next(reading, MISSING) is MISSING:
                    break
                used[number] = trace.used()
        finally:
            reading.close()
        self.exact &= trace.exact and not (trace.parts and any(map(_makes_of_several, top_down(*node.sources))))
        for number in wanted:
            for source, above, inputs in used.get(number, ()):
                yield number, source, above, _indices_of(node.sources[source], above, np.asarray(inputs, np.int64))


def _indices_of(node: Node, run: Run, numbers: np.ndarray) -> np.ndarray:
    """Which outputs of a node come as these numbers of a stream."""
    if not (node.seekable and node.has_gaps(run) and len(numbers)):
        return numbers
    first, last = int(numbers.min()), int(numbers.max())
    given = np.fromiter(islice(each_index(node.series(run, first)), last + 1 - first), np.int64)
    return given[numbers[numbers < first + len(given)] - first]


def _makes_of_several(node: Node) -> bool:
    """Whether an output of a node may be made of several inputs, and parts of it of some of them."""
    several = len(node.sources) > 1 and not isinstance(node, Order)
    return isinstance(node, Group) or several or (type(node) is Stream and not node.part.traits.newest)


# The flows of the other ranks


def _every_rank(flow: Flow[Any]) -> Iterator[tuple[int, Flow[Any]]]:
    """The flow as each rank has it."""
    shards = [one for one in top_down(flow) if one.part.traits.shards]
    if len(shards) != 1:
        raise ValueError(
            f"origins(): ranks='all' needs a flow with one shard, but this one has {len(shards) or 'none'}: {flow!r}"
        )
    part = shards[0].part
    name, world = part.traits.shards[0], part.arguments[part.traits.shards[1]]
    for rank in range(world):
        moved = Stage(part.definition, {**part.arguments, name: rank}, part.pinned)
        yield rank, _with_part(flow, part, moved, {})


def _with_part(flow: Flow[Any], part: Any, other: Any, known: dict[int, Flow[Any]]) -> Flow[Any]:
    """A flow in which another part stands in the place of one."""
    if id(flow) not in known:
        sources = tuple(_with_part(source, part, other, known) for source in flow.sources)
        known[id(flow)] = Flow(other if flow.part is part else flow.part, sources)
    return known[id(flow)]
