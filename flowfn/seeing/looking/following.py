"""Which outputs of every stage went into the first outputs of a flow, and into which of those of the next stage."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from flowfn.blocks import ints
from flowfn.flows.naming import Name
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import sources_first
from flowfn.kinds.runs import Run
from flowfn.seeing.looking.recording import SeenNode, Spot
from flowfn.seeing.tracing import Walk

PARTS, IN_CELL, IN_ROW = 6, 8, 48
"""How many parts of one thing are followed, how many for one output, and for all; of others it is said how many."""


@dataclass
class Ways:
    """The ways up from the outputs of a flow.

    `cells[place][column]` are the outputs of a node that went into output `column` of the flow, at most `PARTS`;
    `made_of` says which of them are parts of which, `others` how many more parts each has, `runs` in which run each is.
    `sources`: (name, index) of the records that a spot is made of, as far as they are followed.
    """

    cells: dict[int, list[list[Spot]]] = field(default_factory=dict)
    made_of: dict[Spot, list[Spot]] = field(default_factory=dict)
    others: Counter[Spot] = field(default_factory=Counter)
    runs: dict[Spot, Run] = field(default_factory=dict)
    sources: dict[Spot, list[tuple[Name, int]]] = field(default_factory=dict)


def shown_nodes(root: Node) -> list[Node]:
    """The stages and sources of a recorded tree, sources first, without what was put between them."""
    return [node for node in sources_first(root) if not isinstance(node, SeenNode)]


def stage_behind(node: Node) -> Node:
    """What stands above a node and changes something: the node itself, if it does."""
    while node.part.traits.transparent and len(node.sources) == 1:
        (node,) = node.sources
    return node


def ways_up(root: Node, run: Run, columns: int) -> Ways:
    """The ways from the first outputs of a recorded tree to the records they were made of."""
    walk, ways = Walk(root), Ways()
    cells: dict[int, list[list[Spot]]] = defaultdict(lambda: [[] for _ in range(columns)])
    last = stage_behind(root)
    length = root.length(run)
    for column in range(columns if length is None else int(min(columns, length))):
        spot = Spot(last.place, run.epoch, column)
        cells[last.place][column].append(spot)
        ways.runs[spot] = run
    for node in reversed(shown_nodes(root)):
        if not node.part.traits.transparent and node.sources:
            _follow(walk, node, cells, ways)
    ways.cells = dict(cells)
    names = walk.names
    for node in shown_nodes(root):
        for spot in _spots(cells, node):
            made = [ways.sources.get(part, []) for part in ways.made_of.get(spot, ())]
            known = [(names[node.place], spot.number)] if node.place in names else []
            ways.sources[spot] = list(dict.fromkeys([*known, *(one for several in made for one in several)]))
    return ways


def _spots(cells: dict[int, list[list[Spot]]], node: Node) -> list[Spot]:
    return list(dict.fromkeys(spot for cell in cells.get(node.place, ()) for spot in cell))


def _follow(walk: Walk, node: Node, cells: dict[int, list[list[Spot]]], ways: Ways) -> None:
    """One step up from all the outputs of a node that are shown."""
    by_epoch: dict[tuple[int, ...], list[Spot]] = defaultdict(list)
    for spot in _spots(cells, node):
        by_epoch[spot.epoch].append(spot)
    for spots in by_epoch.values():
        numbers = sorted(spot.number for spot in spots)
        for spot, part, run in _first_parts(walk, node, ways.runs[spots[0]], numbers, ways.others):
            ways.made_of.setdefault(spot, []).append(part)
            ways.runs[part] = run
    most = min(IN_ROW // len(cells[node.place]), IN_CELL)
    for column, whole in enumerate(cells[node.place]):
        for spot in whole:
            for part in ways.made_of.get(spot, ()):
                cell = cells[part.place][column]
                if part not in cell and len(cell) < most:
                    cell.append(part)


def _first_parts(
    walk: Walk, node: Node, run: Run, numbers: list[int], others: Counter[Spot]
) -> Iterator[tuple[Spot, Spot, Run]]:
    """(output, part, the part's run) for the first parts of some outputs of a node."""
    counted: Counter[Spot] = Counter()
    for number, source, above, inputs in walk.made_of(node, run, np.array(numbers, np.int64)):
        spot, behind = Spot(node.place, run.epoch, number), stage_behind(node.sources[source])
        free = max(PARTS - counted[spot], 0) if len(node.sources) == 1 else PARTS
        for index in islice(ints(inputs), free):
            yield spot, Spot(behind.place, above.epoch, index), above
        counted[spot] += len(inputs)
        others[spot] += max(len(inputs) - free, 0)
