"""One pass of the flow that is served, and who gets what of it.

`Queue` gives each datapoint to one consumer, and again to another if that one is not heard of any more. `Broadcast`
gives each datapoint to everyone: it keeps the last few, and waits for the slowest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowfn.parallel.tasks.threads import wait_for
from flowfn.serving.making import EXHAUSTED, FlowThread
from flowfn.serving.memory import SharedBlock


@dataclass(slots=True, eq=False)
class Shipment:
    """A datapoint on its way: its place in the pass, its header, its bytes in shared memory or by themselves."""

    position: int
    tree: Any
    buffers: list[memoryview]
    block: SharedBlock | None


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
    held: deque[Shipment] = field(default_factory=deque)
    gone: float | None = None

    @property
    def following(self) -> int:
        """The number of the next item that it will have."""
        return self.done + len(self.held)


class Pass:
    """What both kinds have: the thread that reads the flow, whether it is over, and who takes part."""

    def __init__(self, epoch: int, flow: FlowThread, start: int, pack: Callable[[int, Any], Shipment]) -> None:
        self.epoch, self.flow, self.following, self.pack = epoch, flow, start, pack
        self.members: set[Consumer] = set()
        self.waits = True  # for all who are to take part from the beginning on
        self.over = False

    def made(self, ahead: int = 1) -> Shipment | None:
        """The next datapoint of the flow; None behind the last, and while it is being made.
        `ahead`: whether another may be made meanwhile."""
        for value in self.flow.take(ahead) if not self.over else ():
            if value is not EXHAUSTED:
                self.following += 1
                return self.pack(self.following - 1, value)
            self.over = True
        return None


class Queue(Pass):
    """Each datapoint to one consumer."""

    def __init__(self, *args: Any, given: Iterable[int] = ()) -> None:
        super().__init__(*args)
        self.first = self.following  # everything before it is done with
        self.given = set(given)  # what else is
        self.again: deque[Shipment] = deque()

    def next_for(self, consumer: Consumer) -> Shipment | None:
        """A datapoint that nobody has; None if there is none now."""
        if self.again:
            return self.again.popleft()
        while (item := self.made()) is not None:
            if item.position >= self.first and item.position not in self.given:
                return item
        return None

    def acknowledged(self, item: Shipment) -> None:
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
        self.items: deque[Shipment] = deque()

    @property
    def first(self) -> int:
        """The oldest datapoint that is still there."""
        return self.following - len(self.items)

    def has(self, position: int) -> bool:
        """Whether one who wants this datapoint next can take part."""
        return self.first <= position <= self.following

    def next_for(self, consumer: Consumer) -> Shipment | None:
        """The datapoint behind the last one that it has; None if that would leave the slowest behind."""
        at = consumer.following - self.first
        if at < len(self.items):
            return self.items[at]
        slowest = min(member.done for member in self.members)
        room = self.window - (self.following - slowest)
        if room < 1:
            return None
        item = self.made(min(1, room - 1))
        if item is not None:
            self.items.append(item)
            while len(self.items) > self.window:
                self.items.popleft()
        return item

    def acknowledged(self, item: Shipment) -> None:
        """It is kept for those who come later, as long as there is room."""

    def ends_for(self, consumer: Consumer) -> bool:
        """Whether it has had all."""
        return self.over and consumer.following == self.following

    def leave(self, consumer: Consumer) -> None:
        """The others go on."""
        self.members.discard(consumer)
        consumer.held.clear()


class Passes:
    """The passes that are under way, and what is known of the epochs before: a state, as JSON."""

    pack: Callable[[int, Any], Shipment]  # what makes an item of a datapoint

    def __init__(self, flow: Any, mode: str, window: int, ring: Callable[[], None]) -> None:
        self.flow, self.mode, self.window, self.ring = flow, mode, window, ring
        begins = flow.state_dict()
        self.seed, self.fingerprint = begins["seed"], begins["fingerprint"]
        self.all: list[Any] = []
        self.finished: set[int] = set()
        self.begun: dict[int, tuple[int, list[int]]] = {}  # epochs that go on from a state

    def get(self, epoch: int, start: int) -> Any:
        """The furthest pass of an epoch in which one who wants `start` next can take part, or a new one."""
        fitting = [one for one in self.all if one.epoch == epoch]
        if self.mode == "broadcast":
            fitting = [one for one in fitting if one.has(start)]
        return max(fitting, key=lambda one: one.following) if fitting else self._open(epoch, start)

    def _open(self, epoch: int, start: int) -> Any:
        first, given = (start, []) if self.mode == "broadcast" else self.begun.pop(epoch, (0, []))
        flow = FlowThread(partial(self.flow.run, seed=self.seed, epoch=epoch, start=first), self.ring)
        if self.mode == "broadcast":
            made: Pass = Broadcast(epoch, flow, start, self.pack, window=self.window)
        else:
            made = Queue(epoch, flow, first, self.pack, given=given)
        made.over = epoch in self.finished
        made.waits = first == 0 and not made.over
        self.all.append(made)
        return made

    def tidy(self) -> None:
        """Close what nobody reads; where datapoints are shared out, not before all of an epoch are done with."""
        for one in [one for one in self.all if not one.members]:
            if self.mode == "broadcast" or one.epoch in self.finished:
                self.all.remove(one)
                one.flow.close()

    def close(self) -> None:
        """Let go of what the flow holds, and wait a while for that."""
        for one in self.all:
            one.flow.close()
        wait_for([one.flow for one in self.all])
        self.all.clear()

    def state(self) -> dict[str, Any]:
        """Which datapoints of which epochs are done with."""
        state = {"fingerprint": self.fingerprint, "seed": self.seed, "mode": self.mode}
        if self.mode == "queue":
            under_way = [one for one in self.all if one.epoch not in self.finished]
            begun = self.begun | {one.epoch: (one.first, sorted(one.given)) for one in under_way}
            state |= {"finished": sorted(self.finished)}
            state |= {"begun": {str(epoch): [first, given] for epoch, (first, given) in begun.items()}}
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: it is of another pipeline or mode, or none.
        """
        try:
            fingerprint, seed, mode = state["fingerprint"], state["seed"], state["mode"]
            finished = {int(epoch) for epoch in state.get("finished", [])}
            begun = {int(epoch): (int(first), [*map(int, given)])
                     for epoch, (first, given) in state.get("begun", {}).items()}  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"load_state_dict(): that is no state of a server: {error!r}") from error
        if (fingerprint, mode) != (self.fingerprint, self.mode):
            raise ValueError(
                "load_state_dict(): the state is of another server\n"
                f"  saved: {mode}, {fingerprint}\n  this:  {self.mode}, {self.fingerprint}\n"
                "Serve the pipeline that saved it, or begin with another file"
            )
        self.seed, self.finished, self.begun = seed, finished, begun
