"""A copy of a tree that is timed: whenever control enters or leaves a stage, that is written down (see `logs`).

A node of the copy is of a class that is made of its node's own, so where it runs, and how, is what it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from flowfn.blocks import Block
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Outputs, Run
from flowfn.parallel.spread import Spread
from flowfn.seeing.profiling.logs import Timer

WAITING = 1 << 24
"""What is added to the place of a stage where its outputs are waited for that workers make."""


class Probed:
    """What is mixed into the class of a node that is timed."""

    probe: str
    timed_as: int
    every: int = 1  # of so many tasks of workers one is timed; of others, all or none

    def arranged(self, crew: Any) -> Node:
        """The tree of a prefetch to run here, in which what stands for its workers is timed too."""
        tree: Node = super().arranged(crew)  # type: ignore[misc]
        for node in list(top_down(tree)):
            if isinstance(node, Spread) and self.every == 1:
                _as_probed(node, self.probe, WAITING + node.place)
        return tree

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs at the indices of a series, timed."""
        outputs: Outputs = super().read(run, series)  # type: ignore[misc]
        return self._timed(outputs) if self._is_meant(run) else outputs

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on, timed."""
        outputs: Outputs = super().stream(run, start, lineage)  # type: ignore[misc]
        return self._timed(outputs) if self._is_meant(run) else outputs

    def gather(self, run: Run, series: Iterator[Block], sizes: Iterable[int]) -> Iterator[Any]:
        """Blocks of rows, timed."""
        rows: Iterator[Any] = super().gather(run, series, sizes)  # type: ignore[misc]
        return Timer(rows, self.timed_as, self.probe) if self._is_meant(run) else rows

    def read_part(self, run: Run, inputs: Block) -> Outputs:
        """What a stage makes of some of the inputs of one output, timed."""
        part: Outputs = super().read_part(run, inputs)  # type: ignore[misc]
        return self._timed(part) if self._is_meant(run) else part

    def _is_meant(self, run: Run) -> bool:
        return self.every == 1 or (run.feed is not None and run.feed.number % self.every == 0)

    def _timed(self, outputs: Outputs) -> Outputs:
        inner: Outputs | None = outputs  # a stream may be read by index, and labelled
        while inner is not None:
            if isinstance(inner.source, Timer) and inner.source.place == self.timed_as:
                return outputs
            inner = next(iter(inner.inputs), None) if inner.node is None else None
        return Outputs(Timer(outputs, self.timed_as, self.probe), None, (outputs,), outputs.first)

    def __reduce__(self) -> Any:
        base = type(self).__mro__[2]
        state = self.__getstate__() if hasattr(self, "__getstate__") else vars(self)
        return _again, (base, state)


@cache
def _probed_class(base: Any) -> Any:
    return type(base.__name__, (Probed, base), {"__module__": base.__module__})


def _again(base: Any, state: Any) -> Any:
    """A node of the copy, in a worker."""
    kind = _probed_class(base)
    node = kind.__new__(kind)
    vars(node).update(state)
    return node


def _as_probed(node: Any, key: str, place: int) -> None:
    kind: Any = type(node)
    node.__class__ = _probed_class(kind)
    node.probe, node.timed_as = key, place


def probed(node: Node, key: str, copies: dict[int, Node] | None = None, *, every: int = 1) -> Node:
    """A timed copy of a tree; a node that is used twice stays one. With `every`, only of the tasks of workers one in so
    many is timed, and nothing else."""
    copies = {} if copies is None else copies
    if id(node) not in copies:
        made = copy.copy(node)
        _as_probed(made, key, node.place)
        vars(made)["every"] = every
        made.sources = tuple(probed(source, key, copies, every=every) for source in node.sources)
        made.setup()
        made.rank, made.world = node.rank, node.world
        copies[id(node)] = made
    return copies[id(node)]
