"""Readers: who reads what a series of blocks wants, where several nodes or rounds are read in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from flowfn.blocks import Block
from flowfn.kinds.nodes import MISSING, Node, fault
from flowfn.kinds.runs import Run
from flowfn.process import forks

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Wanted:
    """Blocks on their way up to one reader. `more(self)` is asked for another when there is none; False is the end."""

    __slots__ = ("blocks", "more", "over", "size")

    def __init__(self, more: Callable[[Wanted], bool]) -> None:
        self.blocks: deque[Block] = deque()
        self.more, self.over, self.size = more, False, 0

    def __iter__(self) -> Iterator[Block]:
        while self.blocks or self.more(self):
            yield self.blocks.popleft()

    def add(self, block: Block) -> None:
        """One more is wanted."""
        self.blocks.append(block)
        self.size += len(block)


class Reader:
    """What is read of one node in one run."""

    __slots__ = ("outputs", "wanted")

    def __init__(self, node: Node, run: Run, more: Callable[[Wanted], bool]) -> None:
        self.wanted = Wanted(more)
        self.outputs = node.read(run, iter(self.wanted))

    @property
    def owes(self) -> int:
        """How much has been asked of it, and not been taken."""
        return self.wanted.size - self.outputs.count

    def close(self) -> None:
        """End it, and let go of what leads back here."""
        self.outputs.close()
        self.wanted.more = _no_more


def _no_more(wanted: Wanted) -> bool:
    return False


class Readers(Generic[Key, Item]):
    """Each key that the items of a series name is read by one reader, for as long as items in a row name it.

    A reader that reads ahead asks for blocks too, perhaps from a thread of its own, so handing them out is locked. It
    gets more only while the newest item names it: an endless series would be handed out without end.
    """

    def __init__(self, series: Iterator[Item]) -> None:
        self.series = series
        self.open: dict[Key, Reader] = {}  # those whose turn it is
        self.latest: dict[Key, Reader] = {}  # those that the last item handed out names
        self.coming: deque[tuple[dict[Key, Reader], Item]] = deque()
        self.lock = forks.lock()

    def parts(self, item: Item) -> Iterable[tuple[Key, Node, Run, Block]]:
        """What an item wants of which node, in which run."""
        raise TypeError(f"{type(self).__name__} does not say what an item wants")

    def more(self, wanted: Wanted) -> bool:
        """Whether a reader gets another block: only if the very next item names it."""
        with self.lock:
            if not wanted.blocks and not wanted.over:
                self._hand_out()
                wanted.over = not wanted.blocks
            return bool(wanted.blocks)

    def _hand_out(self) -> None:
        """Give the readers that the next item names their parts of it."""
        item = next(self.series, None)
        parts = [] if item is None else list(self.parts(item))
        self._retire(self.latest.keys() - {key for key, *_ in parts})
        for key, node, run, block in parts:
            if key not in self.latest:
                self.latest[key] = Reader(node, run, self.more)
            self.latest[key].wanted.add(block)
        if item is not None:
            self.coming.append((dict(self.latest), item))

    def _retire(self, keys: Iterable[Key]) -> None:
        """These get no more."""
        for key in keys:
            self.latest.pop(key).wanted.over = True

    def next(self) -> Item | None:
        """The next item, which the readers that are open then are for; those whose time is past are closed."""
        with self.lock:
            if not self.coming:
                self._hand_out()
            readers, item = self.coming.popleft() if self.coming else ({}, None)
        self._end([key for key, reader in self.open.items() if readers.get(key) is not reader])
        self.open.update(readers)
        return item

    def spare(self, keys: Iterable[Key]) -> None:
        """Close those of some that have given all that is wanted of them, as far as that is known."""
        done = [key for key in keys if key in self.open and not self.open[key].owes]
        with self.lock:
            self._retire([key for key in done if self.latest.get(key) is self.open[key]])
        self._end(done)

    def _end(self, keys: Iterable[Key]) -> None:
        for key in keys:
            past = self.open[key].outputs
            if next(past, MISSING) is not MISSING:
                raise fault(past, past.count - 1)
            self.open.pop(key).close()

    def close(self) -> None:
        """Close every reader; those that read ahead get no more blocks, for which others might be opened."""
        with self.lock:
            self.series = iter(())
        for reader in (*self.open.values(), *self.latest.values()):
            reader.close()
