"""What goes along with tasks: the datapoints of nodes that stay in the process that iterates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

from flowfn.blocks import Block, ints
from flowfn.kinds.failures import locate
from flowfn.kinds.nodes import Node
from flowfn.kinds.orders import Reader, Wanted
from flowfn.kinds.runs import Epoch, Run
from flowfn.process import forks

Way: TypeAlias = tuple[tuple[int, Epoch], ...]
"""How a node is reached from the bottom: at each step which source, in which epoch or round."""


class Supply:
    """The datapoints that go along with tasks, of the nodes of a stretch that stay here: each is read in one series."""

    def __init__(self, bottom: Node, run: Run, stay: list[Node], series: Iterator[Block]) -> None:
        self.bottom, self.run, self.series = bottom, run, series
        self.stay = {node.place: node for node in stay}
        self.error: Exception | None = None
        self.readers: dict[Way, Reader] = {}
        self.owed: dict[Way, int] = {}  # how much has been asked of a reader, and not been taken
        self.lock = forks.lock()  # a prefetch that stays asks for blocks from its own thread

    def wanted(self, block: Block) -> Iterator[tuple[Way, Node, Run, Block]]:
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
        """The datapoints for one task, by node, epoch and index."""
        supply: dict[tuple[int, Epoch], dict[int, Any]] = {}
        used = set()
        for way, node, run, block in self.wanted(piece):
            while self.owed.get(way, 0) < len(block):
                if not self._hand_out():
                    raise RuntimeError(f"{node.part} was asked for more than the outputs need")
            used.add(way)
            with self.lock:
                self.owed[way] -= len(block)
            outputs = self.readers[way].outputs
            found = supply.setdefault((node.place, run.epoch), {})
            try:
                found.update(zip(ints(block), itertools.islice(outputs, len(block))))
            except Exception as error:  # raised where what is missing would be read
                self.error = error
                locate(error, outputs)
                return supply
        past = []
        with self.lock:
            for way in [way for way in self.readers if way not in used and not self.owed[way]]:
                del self.owed[way]
                past.append(self.readers.pop(way))
        for reader in past:
            reader.close()
        return supply

    def more(self, wanted: Wanted) -> bool:
        """Whether a reader that reads ahead gets another block."""
        with self.lock:
            if not wanted.blocks:
                self._hand_out()
            return bool(wanted.blocks)

    def _hand_out(self) -> bool:
        """Ask the readers for what the next block of the whole series needs of them."""
        with self.lock:
            block = next(self.series, None)
            for way, node, run, part in self.wanted(block) if block is not None else ():
                if way not in self.readers:
                    self.readers[way] = Reader(node, run, self.more)
                self.owed[way] = self.owed.get(way, 0) + len(part)
                self.readers[way].wanted.blocks.append(part)
            return block is not None

    def close(self) -> None:
        """Close every reader; those that read ahead get no more blocks, for which others might be opened."""
        with self.lock:
            self.series = iter(())
        for reader in self.readers.values():
            reader.close()
