"""What goes along with tasks: the datapoints of nodes that stay in the process that iterates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from flowfn.failures import locate
from flowfn.kinds import Node
from flowfn.orders import Reader
from flowfn.runs import Block, Epoch, Run, ints


class Supply:
    """The datapoints that go along with tasks, of the nodes of a stretch that stay here: each is read in one series."""

    def __init__(self, bottom: Node, run: Run, stay: list[Node], series: Iterator[Block]) -> None:
        self.bottom, self.run, self.series = bottom, run, series
        self.stay = {node.place: node for node in stay}
        self.error: Exception | None = None
        self.readers: dict[tuple[tuple[int, ...], Epoch], Reader] = {}

    def wanted(self, block: Block) -> Iterator[tuple[tuple[int, ...], Node, Run, Block]]:
        """What the outputs at `block` need of the nodes that stay: on which way down the tree, in which run."""
        todo: list[tuple[tuple[int, ...], Node, Run, Block]] = [((), self.bottom, self.run, block)]
        while todo:
            way, node, run, part = todo.pop()
            if node.place in self.stay:
                yield way, node, run, part
            else:
                todo.extend(reversed([((*way, s), node.sources[s], above, needs) for s, above, needs in node.upward(run, part)]))

    def of(self, piece: Block) -> dict[tuple[int, Epoch], dict[int, Any]]:
        """The datapoints for one task, by node, epoch and index."""
        supply: dict[tuple[int, Epoch], dict[int, Any]] = {}
        used = set()
        for way, node, run, block in self.wanted(piece):
            while (way, run.epoch) not in self.readers:
                self._advance()
            used.add((way, run.epoch))
            outputs = self.readers[way, run.epoch].outputs
            found = supply.setdefault((node.place, run.epoch), {})
            try:
                found.update(zip(ints(block), itertools.islice(outputs, len(block))))
            except Exception as error:  # raised where what is missing would be read
                self.error = error
                locate(error, outputs)
                return supply
        for key in [key for key, reader in self.readers.items() if key not in used and not reader.queue]:
            self.readers.pop(key).close()
        return supply

    def _advance(self) -> bool:
        block = next(self.series, None)
        if block is None:
            return False
        for way, node, run, part in self.wanted(block):
            if (way, run.epoch) not in self.readers:
                self.readers[way, run.epoch] = Reader(node, run, self._advance)
            self.readers[way, run.epoch].queue.append(part)
        return True

    def close(self) -> None:
        """Close every reader."""
        for reader in self.readers.values():
            reader.close()
