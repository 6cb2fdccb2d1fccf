"""What `explain` remarks on: prefetches that have nothing to do,
what is large on its way to workers, what never comes, ranks that differ."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from typing import Any

from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.flows.skipping import never_ends
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Run
from flowfn.kinds.streams import Expand, Stream
from flowfn.parallel.crew import Crew
from flowfn.parallel.prefetching import PrefetchNode
from flowfn.parallel.tasks.plan import does_work, stretches
from flowfn.seeing.weighing import PLANNERS, asked_of

LARGE_CLOSURE = 1_000_000
"""Bytes from which on it is said what a stage takes to the workers."""


def of_work(node: PrefetchNode, crew: Crew | None, workers: str, opens: bool, run: Run) -> Iterator[str]:
    """What a prefetch and its workers do not do."""
    if crew is None:
        if not does_work(node.sources[0]):
            yield f"{node.part} has nothing upstream to do ahead of time; put it behind the stages that take time"
        return
    found = stretches(node.sources[0])
    if not (found or opens or node.kept(crew)):
        yield (
            f"{node.part} has nothing upstream that its {workers} can do in parallel; put it behind the stages that "
            "take time "
            "(map, filter, batch)"
        )
    length = node.length(run)
    if length is not None and length < crew.workers:
        yield f"{node.part} has more workers than there are outputs, {length}"


def of_sizes(node: PrefetchNode, crew: Crew) -> Iterator[str]:
    """What is large, or cannot travel, on its way to the processes of a prefetch."""
    ends = (
        [(node.sources[0], None)]
        if node.kept(crew)
        else [(stretch.top, stretch.bottom) for stretch in stretches(node.sources[0])]
    )
    for part in dict.fromkeys(part for top, bottom in ends for part in _stages_to_send(top, bottom)):
        try:
            size, seconds = sent(part)
        except Exception as error:
            yield (
                f"{part} cannot be sent to a worker process ({error}): make what it holds there (per_process), or "
                "prefetch with threads="
            )
            continue
        if size >= LARGE_CLOSURE:
            yield (
                f"{part} holds {size / 1e6:.1f} MB, which every pass pickles ({seconds:.2f} s) and each worker of "
                f"{node.part} keeps; "
                "make it there (per_process), or map a file (np.memmap)"
            )


def sent(part: Any) -> tuple[int, float]:
    """(bytes, seconds): what a stage is on its way to a worker, and how long it takes to get it ready."""
    import cloudpickle

    counted, start = _Counted(), time.perf_counter()
    cloudpickle.Pickler(counted, protocol=5).dump(part)
    return counted.size, time.perf_counter() - start


class _Counted(io.RawIOBase):
    """A file that only counts."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        self.size += length
        return length


def _stages_to_send(node: Node, bottom: Node | None) -> Iterator[Any]:
    """The stages that go to workers; sources are no matter here, they cross in shared memory or stay."""

    def goes(node: Node) -> bool:
        return bool(node.sources) and not (node.boundary or node.here) and (node is not bottom or node.seekable)

    return (one.part for one in top_down(node, beyond=goes) if goes(one))


def of_lengths(node: Node, run: Run) -> Iterator[str]:
    """What is never reached, and what gives nothing of what there is."""
    lengths = [source.length(run) for source in node.sources]
    if node.part.name == "concat" and math.inf in lengths[:-1]:
        first = lengths.index(math.inf)
        never = ", ".join(str(source.part) for source in node.sources[first + 1 :])
        yield (
            f"{node.part} never comes to what follows its endless source {node.sources[first].part}: {never}; mix "
            "takes from all by turns"
        )
    if node.part.name == "repeat" and lengths == [math.inf]:
        yield f"{node.part} never comes to its second round, as its source is endless"
    if lengths and node.length(run) == 0 and 0 not in lengths and None not in lengths:
        had = min(length for length in lengths if length is not None)
        yield (
            f"{node.part} gives nothing of the {'endless' if had == math.inf else had} datapoint{'s' * (had != 1)} "
            "of its source"
        )


def of_plans(root: Node) -> Iterator[str]:
    """Where what is planned for all ranks goes to another number of them, or is made by each for all."""
    shards = (node for node in top_down(root) if node.part.traits.shards)
    plans = ((node, shard.world) for shard in shards for node in top_down(*shard.sources))
    for node, world in plans:
        if node.part.name not in PLANNERS:
            continue
        asked = asked_of(node.part)
        if asked.get("ranks") not in (None, world):
            yield (
                f"{node.part} is planned for {asked['ranks']} ranks, but {world} share it, so what they have in a step "
                "may differ"
            )
        if node.part.name == "batch_by_cost" and asked["collate"] is not None and world > 1:
            yield (
                f"each rank makes the batches of all that {node.part} plans; collate=None, and collate(...) behind "
                "shard, spares it those of others"
            )


def of_ranks(flow: Flow[Any], run: Run) -> Iterator[str]:
    """Where the ranks of a world may take other numbers of steps than this one."""
    root = flow.node
    if root.world == 1:
        return
    try:
        first, last = (_at_one_end(flow, end).node.length(Run(run.seed, run.epoch)) for end in (0, -1))
    except ValueError as error:  # so here all is well, but not there
        yield f"another rank cannot begin: {error}"
        return
    if never_ends(root):
        return
    if first is None or last is None:
        upstream = top_down(root, beyond=lambda node: node.length(run) is None and node.part.name != "take")
        yield from (_why_differing(node) for node in upstream if node.length(run) is None and _may_differ(node))
    elif first != last:
        yield (
            f'ranks differ in steps: rank 0 has {first}, rank {root.world - 1} has {last}; remainder="drop" or '
            '"pad" in shard, or epoch_of(n) behind it, makes them equal'
        )


def _at_one_end(flow: Flow[Any], end: int) -> Flow[Any]:
    """The same flow in the first rank of its world (0), or in the last (-1)."""
    if flow.node.world == 1:
        return flow
    part, sources = flow.part, tuple(_at_one_end(source, end) for source in flow.sources)
    if part.traits.shards:
        rank, world = part.traits.shards
        part = Stage(part.definition, {**part.arguments, rank: range(part.arguments[world])[end]}, part.pinned)
    return Flow(part, sources)


def _may_differ(node: Node) -> bool:
    """Whether ranks with equally long sources may get different numbers of outputs from a node of unknown length."""
    if node.part.traits.shards:
        return bool(node.part.arguments.get("remainder") == "keep")
    return node.world > 1 and isinstance(node, (Expand, Stream))


def _why_differing(node: Node) -> str:
    if node.part.traits.shards:
        return (
            f'ranks may differ in steps: {node.part} keeps a remainder of what has no known length; remainder="drop" '
            'or "pad" makes them equal'
        )
    return (
        f"ranks may differ in steps: how many datapoints {node.part} gives depends on the share of each; put it before "
        "shard, or epoch_of(n) or take(n) behind it to make them equal"
    )
