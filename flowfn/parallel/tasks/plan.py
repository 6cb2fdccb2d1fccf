"""Which stage runs where: the tree of a prefetch, cut into stretches for its workers and what stays here.

A stage runs in the workers of the first prefetch downstream of it; except that stream stages, and group, order and
multi-source stages over a source that is not seekable, run in the process of that prefetch, and every stretch of stages
on either side of them in its workers.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flowfn.datapoints.columns import Columns
from flowfn.kinds.nodes import Each, Node
from flowfn.kinds.parts import sources_first
from flowfn.kinds.runs import Run
from flowfn.kinds.streams import Expand
from flowfn.parallel.tasks.task import Supplied, TaskSource
from flowfn.pickling.by_value import by_value

SENDABLE_BYTES = 1 << 20
"""Bytes up to which a sequence travels with the flow."""


@dataclass
class Stretch:
    """Stages that a worker can run on a block: a chain of each and expand stages over `bottom`.

    `bottom` is read by blocks in the worker if it is seekable; otherwise its datapoints are made here and sent.
    """

    top: Node
    bottom: Node

    def for_worker(self, run: Run, remote: bool | None) -> tuple[Node, list[Node]]:
        """The tree that workers run, and the nodes in it that stay behind and supply datapoints.

        A cache or a prefetch stays behind always, a large sequence where workers are processes (`remote`). None is for
        the process that iterates: nothing stays behind.
        """
        stay: dict[int, Node] = {}
        return self._moved(self.top, run, remote, stay), list(stay.values())

    def _moved(self, node: Node, run: Run, remote: bool | None, stay: dict[int, Node]) -> Node:
        if node is self.bottom and not node.seekable:
            return _over(TaskSource, node, ())
        if remote is not None and _stays(node, remote):
            stay[node.place] = node
            moved: Node = Supplied(node, run)
        else:
            moved = _with_sources(node, lambda source: self._moved(source, run, remote, stay))
        return _over(TaskSource, node, (moved,)) if node is self.bottom else moved

    def chain(self) -> Iterator[Node]:
        """The stages of the chain, the last one first."""
        node = self.top
        while node is not self.bottom:
            yield node
            (node,) = node.sources

    def counted(self) -> list[Expand]:
        """The expand stages of the chain, the first one first."""
        return [node for node in self.chain() if isinstance(node, Expand)][::-1]

    def wants_labels(self) -> bool:
        """Whether a stage of the chain asks for its datapoints' labels."""
        return any(node.part.wants_labels for node in self.chain())


def cut_tree(node: Node, stand_in: Callable[[Stretch], Node]) -> Node:
    """The tree to run here, in which `stand_in` takes the place of every stretch."""
    if _boundary(node):
        return node
    bottom = _bottom(node)
    if bottom.seekable and not bottom.here:
        if not does_work(node):
            return node
        return stand_in(Stretch(*_on_top(node, bottom, _cut_around(bottom, stand_in))))
    moved = _with_sources(bottom, lambda source: cut_tree(source, stand_in))
    return moved if bottom is node else stand_in(Stretch(*_on_top(node, bottom, moved)))


def _cut_around(node: Node, stand_in: Callable[[Stretch], Node]) -> Node:
    """A seekable tree in which what is upstream of a stage that stays here is cut in turn."""
    cut = cut_tree if node.here else _cut_around
    return _with_sources(node, lambda source: cut(source, stand_in))


def stretches(node: Node) -> list[Stretch]:
    """The stretches of a tree, for those who want to know where its stages run."""
    every: list[Stretch] = []

    def note(stretch: Stretch) -> Node:
        every.append(stretch)
        return stretch.top

    cut_tree(node, note)
    return every


def stays(stretch: Stretch) -> list[Node]:
    """The nodes of a stretch that stay behind when it goes to worker processes."""
    return stretch.for_worker(Run(0, (0,)), remote=True)[1] if stretch.bottom.seekable else []


def leaves_whole(node: Node) -> bool:
    """Whether a tree can leave this process altogether."""
    return not node.here and not (not node.sources and _stays(node)) and all(map(leaves_whole, node.sources))


def _boundary(node: Node) -> bool:
    """Whether what is upstream of a node is somebody else's: a prefetch's, or nobody's."""
    return node.boundary or (not node.sources and not node.seekable)


def _bottom(node: Node) -> Node:
    """Where the chain of each and expand stages that ends in `node` begins."""
    while not node.seekable and _passes_on(node):
        (node,) = node.sources
    return node


def _passes_on(node: Node) -> bool:
    """Whether a stage works on one datapoint after the other of one source, in the same run, wherever that is."""
    alone = isinstance(node, (Each, Expand)) and len(node.sources) == 1
    return alone and not (node.here or node.root or node.boundary)


def does_work(node: Node) -> bool:
    """Whether there is anything to do in a tree but to pick datapoints."""
    if not node.sources:
        return not (isinstance(getattr(node.part, "object", None), (list, tuple, range)) or node.gathers)
    if _boundary(node) or node.here:
        return False
    return not node.orders or any(map(does_work, node.sources))


def _stays(node: Node, remote: bool = True) -> bool:
    """Whether a node of a seekable stretch stays behind: a cache, a prefetch, a large sequence."""
    if node.here or node.boundary:
        return True
    return remote and not node.sources and not _travels(node.part)


def _travels(source: Any) -> bool:
    """Whether a sequence goes to the workers with the flow: arrays do, and what takes at most a megabyte."""
    if source.travels is None:
        source.travels = isinstance(source.object, (Columns, range, int)) or _is_small(source.object)
    return bool(source.travels)


def _is_small(sequence: Any) -> bool:
    try:
        by_value()(_Limited(), protocol=5).dump(sequence)
    except Exception:  # too large, or cannot be pickled: either way it stays
        return False
    return True


class _Limited(io.RawIOBase):
    """A file that takes no more than a megabyte."""

    size_written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.size_written += size
        if self.size_written > SENDABLE_BYTES:
            raise OverflowError("too large to travel")
        return size


def _with_sources(node: Node, visit: Callable[[Node], Node]) -> Node:
    if not node.sources:
        return node
    moved = copy.copy(node)
    moved.sources = tuple(map(visit, node.sources))
    moved.setup()
    moved.rank, moved.world = node.rank, node.world
    return moved


def _on_top(node: Node, bottom: Node, other: Node) -> tuple[Node, Node]:
    """(top, bottom) of a chain moved over another bottom."""
    if node is bottom:
        return other, other
    return _with_sources(node, lambda source: _on_top(source, bottom, other)[0]), other


def _over(kind: type[Node], node: Node, sources: tuple[Node, ...]) -> Node:
    made = kind(node.part if sources else None, sources, node.place, None)
    made.rank, made.world = node.rank, node.world
    return made


def unloadable(node: Node) -> str:
    """Which stage of a tree cannot be made again from its bytes."""
    return culprit(node, lambda part: pickle.loads(_dumped(part))) or "a stage or its source"


def _dumped(part: Any) -> bytes:
    with io.BytesIO() as file:
        by_value()(file, protocol=5).dump(part)
        return file.getvalue()


def culprit(node: Node, does: Callable[[Any], Any] = _dumped) -> str:
    """The first stage or source with which something cannot be done."""
    for one in sources_first(node):
        try:
            does(one.part)
        except Exception:
            return str(one.part)
    return ""
