"""One pass of the flow that is served, and who gets what of it.

`Queue` gives each datapoint to one consumer, and again to another if that one is not heard of any more. `Broadcast`
gives each datapoint to everyone: it keeps the last few, and waits for the slowest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flowfn.flows.iterating import FlowIterator
from flowfn.serving.memory import Block


@dataclass(slots=True, eq=False)
class Item:
    """A datapoint on its way: its place in the pass, its header, its bytes in shared memory or by themselves."""

    position: int
    tree: Any
    buffers: list[memoryview]
    block: Block | None


@dataclass(slots=True, eq=False)
class Consumer:
    """One who takes part in a pass. Its items are numbered: those before `done` are done with, those before
    `done + len(held)` are its own, those before `sent` are on their way."""

    identity: bytes
    session: str
    done: int = 0
    sent: int = 0
    credit: int = 0
    shares: bool = False
    held: deque[Item] = field(default_factory=deque)
    gone: float | None = None

    @property
    def following(self) -> int:
        """The number of the next item that it will have."""
        return self.done + len(self.held)


class Pass:
    """What both kinds have: the iterator, what it gave, whether it is over, and who takes part."""

    def __init__(self, epoch: int, outputs: FlowIterator[Any], start: int, pack: Callable[[int, Any], Item]) -> None:
        self.epoch, self.outputs, self.following, self.pack = epoch, outputs, start, pack
        self.members: set[Consumer] = set()
        self.waits = True  # for all who are to take part from the beginning on
        self.over = False

    def made(self) -> Item | None:
        """The next datapoint of the flow; None behind the last."""
        for value in self.outputs:
            self.following += 1
            return self.pack(self.following - 1, value)
        self.over = True
        return None

    def close(self) -> None:
        """Let go of what the flow holds."""
        self.outputs.close()


class Queue(Pass):
    """Each datapoint to one consumer."""

    def __init__(self, *args: Any, given: Iterable[int] = ()) -> None:
        super().__init__(*args)
        self.first = self.following  # everything before it is done with
        self.given = set(given)  # what else is
        self.again: deque[Item] = deque()

    def next_for(self, consumer: Consumer) -> Item | None:
        """A datapoint that nobody has; None if there is none now."""
        if self.again:
            return self.again.popleft()
        while not self.over:
            item = self.made()
            if item is not None and item.position not in self.given:
                return item
        return None

    def acknowledged(self, item: Item) -> None:
        """A datapoint is done with."""
        self.given.add(item.position)
        while self.first in self.given:
            self.given.discard(self.first)
            self.first += 1

    def ends_for(self, consumer: Consumer) -> bool:
        """Whether there is nothing left: all of it is done with, by whomever."""
        return self.over and self.first == self.following

    def leave(self, consumer: Consumer) -> None:
        """What a consumer had is for others."""
        self.members.discard(consumer)
        self.again.extend(consumer.held)
        self.again = deque(sorted(self.again, key=lambda item: item.position))
        consumer.held.clear()


class Broadcast(Pass):
    """Every datapoint to everyone."""

    def __init__(self, *args: Any, window: int) -> None:
        super().__init__(*args)
        self.window = window
        self.items: deque[Item] = deque()

    @property
    def first(self) -> int:
        """The oldest datapoint that is still there."""
        return self.following - len(self.items)

    def has(self, position: int) -> bool:
        """Whether one who wants this datapoint next can take part."""
        return self.first <= position <= self.following

    def next_for(self, consumer: Consumer) -> Item | None:
        """The datapoint behind the last one that it has; None if that would leave the slowest behind."""
        at = consumer.following - self.first
        if at < len(self.items):
            return self.items[at]
        slowest = min(member.done for member in self.members)
        if self.over or self.following - slowest >= self.window:
            return None
        item = self.made()
        if item is not None:
            self.items.append(item)
            while len(self.items) > self.window:
                self.items.popleft()
        return item

    def acknowledged(self, item: Item) -> None:
        """It is kept for those who come later, as long as there is room."""

    def ends_for(self, consumer: Consumer) -> bool:
        """Whether it has had all."""
        return self.over and consumer.following == self.following

    def leave(self, consumer: Consumer) -> None:
        """The others go on."""
        self.members.discard(consumer)
        consumer.held.clear()
