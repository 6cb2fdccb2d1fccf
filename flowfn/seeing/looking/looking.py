"""The pass that is looked at: one, serial, over a copy of the flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from flowfn import rules
from flowfn.flows import sources
from flowfn.flows.flow import Flow
from flowfn.flows.naming import source_names
from flowfn.flows.sources import LiveNode, OneShotNode
from flowfn.flows.states import gaps
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Run
from flowfn.kinds.streams import Expand
from flowfn.kinds.tallies import Dropped, anchors
from flowfn.seeing.explaining import kind_word, tree_lines
from flowfn.seeing.looking.calls import Calls
from flowfn.seeing.looking.drawing_anew import drawn_anew, draws, kept
from flowfn.seeing.looking.following import Ways, stage_behind, ways_up
from flowfn.seeing.looking.page import Card, Cell, Look, Row
from flowfn.seeing.looking.recording import SeenNode, Sighting, Spot, recorded
from flowfn.seeing.looking.views import Sight, View, compared
from flowfn.seeing.tracing import pass_of

MOST, ORIGINS = 24, 3
"""How many datapoints can stand beside each other; how many of the records are named that one was made of."""
COLUMNS = rules.Rule(f"an integer from 1 to {MOST}", rules.is_integer, lambda value, others: 0 < value <= MOST)
DECODE = rules.Rule(
    "a function, or functions by component",
    lambda value: callable(value) or (isinstance(value, Mapping) and all(map(callable, value.values()))),
)
RATE = rules.Rule("a positive number of samples a second", rules.is_number, lambda value, others: value > 0)


@rules.checked(n=COLUMNS, decode=rules.optional(DECODE), rate=rules.optional(RATE))
def look(
    flow: Any,
    n: int = 4,
    *,
    decode: Callable[[list[int]], str] | Mapping[Any, Callable[[list[int]], str]] | None = None,
    rate: float | None = None,
) -> Look:
    """See every datapoint after every stage: a row for each stage, a column for each of the first `n` outputs.

    At most 24 can stand beside each other. Printed, what is returned is a table in lines of text; in a notebook it is a
    page, which `.save("look.html")` writes to a file that needs nothing else: images with the masks, boxes and points
    that stand beside them, rows of numbers as lines, other numbers as histograms, texts, and what is nested folded.
    Where an output is made of several (of a batch, say), the first of them are shown, with lines from the parts to the
    whole. What differs from the stage before is marked, random stages show what else they would draw, guarded ones what
    failed. Every datapoint says which records it was made of, how long it took, and the call that makes it again.

    Nothing advances: a copy of the flow is read serially, in this process, from the beginning of the epoch. Where a
    stage has to be read in order, as much of the pass is made as the outputs need, once more for each such stage.

    `decode` makes text of a list of token ids; then rows of integers are shown as text. Functions in a dict are for the
    components of those names or numbers alone. `rate`: so many numbers of a row make a second; rows are then sound. A
    "rate" or "sample_rate" that stands beside them in a dict says the same.

    Raises:
        TypeError: a source is an iterator or a queue, which gives each datapoint once.
        ImportError: for the page: jinja2 is not installed: `pip install "flowfn[seeing]"`.

    >>> import flowfn as ff
    >>> view = ff.look(ff.pipe(range(9), ff.map(lambda x: [x, x / 2]), ff.batch(3)), 2)
    >>> print(str(view).split("  ")[0])
    look: 2 outputs of 3, seed 0, epoch 0
    flow(range(0, 9))
    >>> view.rows[2].cells[1].items[0].origins, view.rows[2].cells[1].items[0].call
    (('3', '4', '5'), 'flowfn.replay(flow, 1, seed=0, epoch=0)')
    """
    source = sources.flow(flow, "look")
    refuse_one_shot(source)
    return looked_at(source, n, Sight(decode, rate))


def refuse_one_shot(flow: Flow[Any]) -> None:
    """Refuse to look at what would be lost by it."""
    for node in top_down(flow.node):
        if isinstance(node, LiveNode) or (isinstance(node, OneShotNode) and hasattr(node.part.object, "__next__")):
            raise TypeError(
                f"look(): {node.part} gives each datapoint once, so what is looked at would be lost; give a list, or a "
                "callable that returns a new iterator"
            )


def looked_at(flow: Flow[Any], n: int, sight: Sight, seconds: float = math.inf) -> Look:
    """What is seen of the first `n` outputs; `TooSlow` is raised if that takes longer."""
    inputs: dict[Spot, list[Any]] = {}

    def note(spot: Spot, datapoint: Any) -> View:
        if spot in inputs:
            inputs[spot] = kept(datapoint, len(inputs))
        return sight.whatever(datapoint)

    recording = Sighting(note, seconds)
    copied = recorded(flow, recording)
    seed, epoch, known = pass_of(flow, None, None, None, "look")
    run = Run(seed, (epoch,), base=known.base, anchors=anchors(known.anchors), gaps=gaps(copied, known))
    ways = ways_up(copied.node, run, n)
    random = {node.place: node for node in top_down(copied.node) if draws(node)}
    firsts = [
        (cell[0], random[place]) for place, cells in ways.cells.items() if place in random for cell in cells if cell
    ]
    inputs.update((part, []) for spot, _ in firsts for part in ways.made_of.get(spot, ())[:1])
    recording.begin(set(ways.runs))
    with copied._serially(seed, epoch, known._replace(position=0)) as iterator:
        read = sum(1 for _ in islice(iterator, n))
        dropped = iterator.dropped
    others = {
        spot: [sight.whatever(one) for one in drawn_anew(node, ways.runs[spot], spot.number, *inputs[part])]
        for spot, node in firsts
        for part in ways.made_of.get(spot, ())[:1]
        if inputs[part]
    }
    rows = StageRows(flow, copied.node, recording, ways, others, dropped)
    return Look(repr(flow), seed, epoch, read, copied.node.length(run), tuple(rows.every(read)))


class StageRows:
    """What was found, stage by stage."""

    def __init__(
        self,
        flow: Flow[Any],
        root: Node,
        recording: Sighting,
        ways: Ways,
        others: dict[Spot, list[View]],
        dropped: list[Dropped],
    ) -> None:
        self.root, self.recording, self.ways, self.others, self.dropped = root, recording, ways, others, dropped
        self.calls, self.several = Calls(flow), len(set(source_names(root).values())) > 1
        self.ids: dict[tuple[int, Spot], str] = {}

    def every(self, columns: int) -> list[Row]:
        """A row for each stage and source."""
        depths: dict[Node, int] = {}  # a flow that is used twice has one row
        for depth, node in tree_lines(self.root, 0):
            if not isinstance(node, SeenNode):
                depths.setdefault(node, depth)
        return [self._row(node, depth, columns) for node, depth in depths.items()]

    def _row(self, node: Node, depth: int, columns: int) -> Row:
        cells = self.ways.cells.get(node.place, [])[:columns]
        given, taken = self.recording.passed[node.place], 0
        if isinstance(node, Expand) and len(node.sources) == 1:
            taken = self.recording.passed[stage_behind(node.sources[0]).place]
        return Row(
            name=repr(node.part),
            kind=kind_word(node),
            depth=depth,
            plain=node.part.traits.transparent,
            given=given,
            taken=taken,
            seconds=self.recording.spent[node.place] / given if given else 0.0,
            cells=tuple(self._cell(node, column, cell) for column, cell in enumerate(cells)),
            dropped=tuple(one for one in self.dropped if node.guards and one.stage in repr(node.part)),
        )

    def _cell(self, node: Node, column: int, spots: list[Spot]) -> Cell:
        noted = [spot for spot in spots if spot in self.recording.notes]
        return Cell(tuple(self._item(node, column, spot) for spot in noted), kept=len(noted) < len(spots))

    def _item(self, node: Node, column: int, spot: Spot) -> Card:
        ways, view = self.ways, self.recording.notes[spot]
        parts = [part for part in dict.fromkeys(ways.made_of.get(spot, ())) if part in self.recording.notes]
        if len(parts) == 1 and not ways.others[spot]:
            view = compared(view, self.recording.notes[parts[0]])
        self.ids[column, spot] = f"c{column}-{len(self.ids)}"
        origins = [f"{name} {index}" if self.several else f"{index}" for name, index in ways.sources[spot]]
        return Card(
            id=self.ids[column, spot],
            number=spot.number,
            round=spot.epoch[1:],
            view=view,
            seconds=self.recording.seconds[spot],
            parts=tuple(self.ids[column, part] for part in parts if (column, part) in self.ids),
            others=ways.others[spot],
            origins=tuple(origins[:ORIGINS]),
            more_origins=len(origins) > ORIGINS or ways.others[spot] > 0,
            draws=tuple(compared(one, view) for one in self.others.get(spot, ())),
            call=self.calls.of(spot.place, ways.runs[spot], spot.number),
        )
