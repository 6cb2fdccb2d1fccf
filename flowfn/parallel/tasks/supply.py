"""What goes along with tasks: the datapoints of nodes that stay in the process that iterates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

from flowfn.blocks import Block, ints
from flowfn.kinds.failures import locate
from flowfn.kinds.nodes import Node
from flowfn.kinds.readers import Readers
from flowfn.kinds.runs import Epoch, Run

Way: TypeAlias = tuple[tuple[int, Epoch], ...]
"""How a node is reached from the bottom: at each step which source, in which epoch or round."""


class Supply(Readers[Way, Block]):
    """The datapoints that go along with tasks, of the nodes of a stretch that stay here: each is read in one series."""

    def __init__(self, bottom: Node, run: Run, stay: list[Node], series: Iterator[Block]) -> None:
        super().__init__(series)
        self.bottom, self.run = bottom, run
        self.stay = {node.place: node for node in stay}
        self.error: Exception | None = None
        self.left = 0  # of the block in work, how much is still to go along with tasks
        self.used: set[Way] = set()  # by the newest task

    def parts(self, block: Block) -> Iterator[tuple[Way, Node, Run, Block]]:
        """What the outputs at `block` need of the nodes that stay: on which way, in which run."""
        todo: list[tuple[Way, Node, Run, Block]] = [((), self.bottom, self.run, block)]
        while todo:
            way, node, run, part = todo.pop()
            if node.place in self.stay:
                yield way, node, run, part
            else:
                steps = [
                    ((*way, (s, above.epoch)), node.sources[s], above, needs)
                    for s, above, needs in node.upward(run, part)
                ]
                todo.extend(reversed(steps))

    def of(self, piece: Block) -> dict[tuple[int, Epoch], dict[int, Any]]:
        """The datapoints for one task, by node, epoch and index; its outputs are the next of the series."""
        if not self.left:
            block = self.next()
            self.left = 0 if block is None else len(block)
        self.left -= len(piece)
        supply: dict[tuple[int, Epoch], dict[int, Any]] = {}
        past, self.used = self.used, set()
        for way, node, run, part in self.parts(piece):
            self.used.add(way)
            outputs = self.open[way].outputs
            found = supply.setdefault((node.place, run.epoch), {})
            try:
                found.update(zip(ints(part), itertools.islice(outputs, len(part))))
            except Exception as error:  # raised where what is missing would be read
                self.error = error
                locate(error, outputs)
                return supply
        self.spare(past - self.used)
        return supply
