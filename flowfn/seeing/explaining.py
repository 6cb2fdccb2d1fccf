"""What a flow is made of: kinds, lengths, where each stage runs, and what it costs to resume."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from typing import IO, Any

from flowfn.flows.flow import Flow
from flowfn.flows.opening import OpeningNode
from flowfn.flows.refusals import MOST_COLUMNS, columns
from flowfn.flows.states import counting_of
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import Each, Node, ending
from flowfn.kinds.orders import Order
from flowfn.kinds.parts import sources_first, top_down
from flowfn.kinds.runs import Length, Run
from flowfn.kinds.streams import Expand, Stream
from flowfn.parallel.clusters import Cluster
from flowfn.parallel.prefetching import PrefetchNode
from flowfn.parallel.tasks.plan import Stretch, stays, stretches
from flowfn.seeing.detailing import details as in_detail
from flowfn.seeing.misplaced import of_places
from flowfn.seeing.remarking import of_lengths, of_plans, of_ranks, of_sizes, of_work
from flowfn.showing import as_written
from flowfn.vocabulary.mixing.blending import MixNode

IMMEDIATE = "at once"
AS_SOURCE = "with its source"
WIDTH, NARROWEST = 48, 20
FROM_START = "reads the pass again"

_KIND_WORDS = (
    (PrefetchNode, "prefetch"),
    (Each, "each"),
    (Group, "group"),
    (Order, "order"),
    (Expand, "expand"),
    (Stream, "stream"),
)


def explain(flow: Flow[Any], file: IO[str] | None = None, *, details: bool = False, elements: bool = False) -> None:
    """Print the stages of a flow, sources first: kind, length, where each runs, and what resuming costs. On a screen
    that is too narrow for all of that, names are cut.

    Nothing is read and nothing advances. Remarks below the table name what may surprise: orders that change, prefetches
    that have nothing to do, what is large on its way to workers, sources that are never reached, stages that would do
    better elsewhere.

    `details=True` also says how much each stage holds, why it is not spread over workers, and how many steps this rank
    has. `elements=True` says what each stage gives, too, and so how much memory all takes: then the first datapoint is
    made, serially, in this process (of a source that gives each datapoint once, none is).

    >>> import flowfn as ff
    >>> ff.explain(ff.pipe(range(10), ff.shuffle(), ff.map(float), ff.batch(4)))
    stage               kind    length  runs in       resumes
    flow(range(0, 10))  source  10      this process  at once
    shuffle()           order   10      this process  at once
    map(float)          each    10      this process  at once
    batch(4)            group   3       this process  at once
    """
    rows = _fitted_rows(table(flow), screen_width(sys.stdout if file is None else file))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), file=file)
    for remark in remarks(flow, flow._look()):
        print(f"* {remark}", file=file)
    if details or elements:
        print(*in_detail(flow, list(sources_first(flow.node)), elements), sep="\n", file=file)


TableRow = tuple[str, str, str, str, str]


def screen_width(file: IO[str]) -> int | None:
    """How wide a screen is; None of what is none."""
    return shutil.get_terminal_size().columns if file.isatty() else None


def _fitted_rows(rows: list[TableRow], columns: int | None) -> list[TableRow]:
    """Rows that fit onto a screen, if they can: without whose workers run a stage, then with shorter names."""
    if columns is None or _width(rows) <= columns:
        return rows
    rows = [(stage, kind, length, where.partition(" of ")[0], resumes) for stage, kind, length, where, resumes in rows]
    width = max(max(len(row[0]) for row in rows) - max(_width(rows) - columns, 0), NARROWEST)
    return [(_name_in_width(row[0], width), *row[1:]) for row in rows]


def _width(rows: list[TableRow]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(*rows)) - 2


def table(flow: Flow[Any]) -> list[TableRow]:
    """The lines of `explain`, the names of its columns first."""
    root, run = flow.node, flow._look()
    where = where_nodes_run(root)
    rows = [("stage", "kind", "length", "runs in", "resumes")]
    told = set[Node]()
    for depth, node in tree_lines(root, 0):
        rows.append(
            (
                "  " * depth + _name_in_width(_name(node)) + ", as above" * (node in told),
                kind_word(node),
                _length_word(node.length(run)),
                where[node.place],
                resumes(node),
            )
        )
        told.add(node)
    return rows


def where_nodes_run(root: Node) -> dict[int, str]:
    """Where each node of a tree runs, by its place."""
    where: dict[int, str] = {}
    _note_where(root, "this process", where)
    return where


def _note_where(node: Node, here: str, where: dict[int, str]) -> None:
    if isinstance(node, PrefetchNode):
        inside, spread = _upstream(node, here)
        for place in spread:
            where[place] = f"{_workers(node)} of {node.part}"
        here_now, here = here, inside
        where.setdefault(node.place, here_now)
    where.setdefault(node.place, here)
    for source in node.sources:
        _note_where(source, here, where)


def remarks(flow: Flow[Any], run: Run) -> Iterator[str]:
    """What may surprise about a flow."""
    nodes = list(sources_first(flow.node))
    for node in nodes:
        if isinstance(node, Order) and not (node.random_order or node.share or node.part.traits.switches):
            shuffled = _shuffled(node)
            if shuffled is not None:
                yield (
                    f"{node.part} picks from {shuffled.part}, which is new in every epoch, so it gives other "
                    "datapoints in every "
                    "epoch; for a fixed part (validation data, say) use split, or freeze() after the shuffle"
                )
        if not node.seekable and resumes(node) == FROM_START:
            yield (
                f"{_name(node)} has no anchor: to resume, everything up to it is read again from the start of the pass"
            )
        held = getattr(node.part, "object", None)
        if isinstance(held, (list, tuple)) and len(held) <= MOST_COLUMNS and columns(held):
            yield (
                f"{_name(node)} has {len(held)} datapoints, arrays of one length; if they are meant as columns, write "
                "from_arrays(*arrays) "
                "for their rows"
            )
        yield from of_lengths(node, run)
    for node in [node for node in nodes if isinstance(node, PrefetchNode)]:
        if not node.part.arguments["ordered"]:
            yield f"{node.part} gives outputs as they come, so a pass over this flow has no state to go on from"
        crew = node.crew(Run(0, (0,), "processes"))
        opens = crew is not None and not node.kept(crew) and node.opening(Run(0, (0,)), crew).opener
        found = list(_openings(node)) if opens else []
        yield from of_work(node, crew, _workers(node) if crew else "", bool(found), run)
        for opening in found:
            yield f"what {opening.part} opens is read in the {_workers(node)} of {node.part}, several at once"
        if crew is not None and crew.setup is not None:
            yield f"each worker of {node.part} calls {as_written(crew.setup.function)}() first"
        if crew is not None and crew.remote:
            yield from of_sizes(node, crew)
            for stretch in stretches(node.sources[0]):
                for left in stays(stretch):
                    yield (
                        f"{_name(left)} stays in this process; the datapoints that tasks name travel to the workers "
                        f"of {node.part}"
                    )
    yield from of_places(flow.node)
    yield from of_plans(flow.node)
    yield from of_ranks(flow, run)
    if any(node.part.traits.shards for node in nodes) and not counting_of(flow).shared:
        yield (
            "a saved state holds rank and world, and loads only under the same; it could be moved if only map-like "
            "stages, batch and "
            f"prefetch came after shard: put shard behind {_fixing(flow.node)}"
        )


def _fixing(root: Node) -> Any:
    """What comes last of that which ties a state to its rank: a stage behind shard, or a shard before a shard."""
    *_, last = ending(root)
    shards = (node.part for node in top_down(*last.sources) if node.part.traits.shards)
    return next(shards) if last.part.traits.shards else last.part


def _upstream(node: PrefetchNode, here: str) -> tuple[str, set[int]]:
    """Where the stages upstream of a prefetch run that are in no stretch, and the places of those that are."""
    crew = node.crew(Run(0, (0,), "processes"))
    if crew is None:
        return f"a thread of {node.part}", set()
    if node.kept(crew):
        return f"1 process of {node.part}", set()
    spread: set[int] = set()
    for stretch in stretches(node.sources[0]):
        spread |= _places_upstream(stretch)
    return here, spread


def _openings(prefetch: PrefetchNode) -> Iterator[OpeningNode]:
    """The stages upstream of a prefetch whose openings its workers read."""
    upstream = top_down(*prefetch.sources, beyond=lambda node: not node.boundary)
    return (node for node in upstream if isinstance(node, OpeningNode))


def _places_upstream(stretch: Stretch) -> set[int]:
    behind = {node.place for node in stays(stretch)}

    def goes(node: Node) -> bool:
        return node.place not in behind and (node is not stretch.bottom or node.seekable)

    return {node.place for node in top_down(stretch.top, beyond=goes) if goes(node)}


def _workers(node: PrefetchNode) -> str:
    options = node.part.arguments
    if options["executor"] is not None:
        executor = options["executor"]
        return executor.where if isinstance(executor, Cluster) else type(executor).__name__
    threads, processes = node.workers
    if processes:
        return f"{processes} process{'es' * (processes > 1)}"
    return f"{threads} thread{'s' * (threads > 1)}"


def tree_lines(root: Node, depth: int) -> Iterator[tuple[int, Node]]:
    """(how far in, stage or source), sources first; those of a stage of several are further in. Of one that is reached
    again, what is upstream was there already."""
    return _lines(root, depth, set())


def _lines(node: Node, depth: int, met: set[Node]) -> Iterator[tuple[int, Node]]:
    for source in () if node in met else node.sources:
        yield from _lines(source, depth + (len(node.sources) > 1), met)
    met.add(node)
    yield depth, node


def _name(node: Node) -> str:
    return repr(node.part)


def _name_in_width(name: str, width: int = WIDTH) -> str:
    return name if len(name) <= width else name[: width - 4] + "...)"


def kind_word(node: Node) -> str:
    """The kind, as one word."""
    if not node.sources:
        return "source"
    return next((word for kind, word in _KIND_WORDS if isinstance(node, kind)), "stage")


def _length_word(length: Length) -> str:
    return "unknown" if length is None else "endless" if length == math.inf else str(length)


def resumes(node: Node) -> str:
    """What it costs to go on in the middle."""
    if node.loose:
        return "never"
    if node.seekable:
        return IMMEDIATE
    if isinstance(node, (Each, Group)):
        return AS_SOURCE
    if isinstance(node, Expand):
        return "at its last input"
    if isinstance(node, Order):
        turns = node.part.traits.switches and not isinstance(node, MixNode)
        return "at its last round or source" if turns else AS_SOURCE
    if isinstance(node, Stream):
        return "at its last mark" if "mark" in node.part.asks else FROM_START
    return IMMEDIATE if "start" in node.part.arguments.get("asks", ()) else FROM_START


def _shuffled(node: Node) -> Node | None:
    """The random order upstream of a node that changes from epoch to epoch."""
    upstream = top_down(*node.sources, beyond=lambda source: not source.root)
    return next((one for one in upstream if isinstance(one, Order) and one.random_order), None)
