"""What guarded stages count in a pass: how many datapoints there were, how many failed, and the newest of those.

A count goes with the place in the stream up to which it was taken. So what is read again, after a resume or by another
worker, is known to have been counted, and a budget is used up in the order of delivery whoever does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flowfn.kinds.notes import add_note

KEPT = 100
"""So many of the newest failures are kept."""

_cause_of, _context_of = (BaseException.__dict__[name].__get__ for name in ("__cause__", "__context__"))
_exceptions_within = BaseExceptionGroup.__dict__["exceptions"].__get__


class Dropped(NamedTuple):
    """A datapoint on which a guarded stage failed: its own index, the error, the datapoint, the stage.

    >>> Dropped(3, OSError("no such file"), "a.jpg", "map(read)").datapoint
    'a.jpg'
    """

    index: Any
    error: Exception
    datapoint: Any
    stage: str


class Counted(NamedTuple):
    """The count of one guarded stage at one moment; its first three fields are written into states
    as an anchor's are."""

    epoch: tuple[int, ...]
    outputs: int  # datapoints so far
    inputs: tuple[Any, ...]  # how many of them failed, and the position in the stream
    newest: tuple[Dropped, ...] = ()


def can_count(count: Any) -> bool:
    """Whether a count read from a state is one: at most all datapoints failed."""
    whole = len(count.inputs) == 2 and all(type(number) is int and number >= 0 for number in count.inputs)
    return whole and bool(count.inputs[0] <= count.outputs)


class Reached(NamedTuple):
    """How far a guarded stage is in a stream: `position` datapoints of it are done,
    where work began with number `first`.

    `absolute`: they are counted from the beginning of the stream, and not from wherever work began.
    """

    epoch: tuple[int, ...]
    first: int
    position: int
    absolute: bool = True

    def behind(self, start: int) -> Reached:
        """The same, if work began behind `start` datapoints."""
        return self if self.absolute else Reached(self.epoch, start + 1, start + self.position - self.first + 1)


class Passage:
    """A stream of datapoints on its way through a guarded stage. They are numbered in steps;
    `at` is the last that is done."""

    __slots__ = ("absolute", "at", "epoch", "first", "scale")

    def __init__(
        self, epoch: tuple[int, ...], first: int, scale: tuple[int, int] = (0, 1), absolute: bool = True
    ) -> None:
        self.epoch, self.scale, self.absolute = epoch, scale, absolute
        self.first, self.at = first, first - scale[1]

    def reached(self, at: int) -> Reached:
        """How far it is when the datapoint numbered `at` is done."""
        offset, stride = self.scale
        return Reached(self.epoch, (self.first - offset) // stride + 1, (at - offset) // stride + 1, self.absolute)


def anchors(facts: Mapping[int, Any]) -> dict[int, Any]:
    """What was told beside counts."""
    return {key: anchor for key, anchor in facts.items() if key >= 0}


class Tally:
    """The running count of one guarded stage."""

    __slots__ = ("epoch", "failures", "newest", "passage", "position", "units")

    def __init__(self, count: Any = ((), 0, (0, 0))) -> None:
        self.epoch, self.units, (self.failures, self.position), *newest = count
        self.newest: tuple[Dropped, ...] = (newest and newest[0]) or ()  # an anchor of a state has none
        self.passage: Passage | None = None

    def begin(self, passage: Passage) -> Passage:
        """From now on datapoints come on another passage."""
        self.now()
        self.passage = passage
        return passage

    def see(self, reached: Reached) -> bool:
        """Count the datapoints that are done; False if they were counted before."""
        if (reached.epoch, reached.position) <= (self.epoch, self.position):
            return False
        self.units += reached.position - (self.position if reached.epoch == self.epoch else reached.first - 1)
        self.epoch, self.position = reached.epoch, reached.position
        return True

    def add(self, reached: Reached, dropped: Dropped, budget: float | None) -> None:
        """Count the failure of the last datapoint that is done, or raise it if the budget is used up."""
        before = self.now()
        if not self.see(reached):
            return
        failures, units = self.failures + 1, self.units
        if budget is not None and (
            failures > budget if isinstance(budget, int) else units >= 1 / budget and failures / units > budget
        ):
            self.epoch, self.units, (_, self.position), _ = before  # it is still to come, should somebody go on here
            add_note(
                dropped.error,
                f"guard(): {failures} of {units} datapoints failed, which is more than budget={budget} allows",
            )
            raise dropped.error
        let_go(dropped.error)
        self.failures, self.newest = failures, (*self.newest[1 - KEPT :], dropped)

    def now(self) -> Counted:
        """The count at this moment."""
        if self.passage is not None:
            self.see(self.passage.reached(self.passage.at))
        return Counted(self.epoch, self.units, (self.failures, self.position), self.newest)


def let_go(error: BaseException) -> None:
    """Take the tracebacks off an error and off those it came from: they would keep all that their frames hold."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            BaseException.with_traceback(one, None)  # its own class may let nobody set it
            todo += (
                _cause_of(one),
                _context_of(one),
                *(_exceptions_within(one) if issubclass(type(one), BaseExceptionGroup) else ()),
            )


class Tallies:
    """The tallies of a pass, or of the part of it that one thread or one task makes, by the places of their stages.

    Where a single datapoint is looked at, nobody counts. A task (`made` is given) does not judge: it notes what failed,
    and before which of its outputs, for who knows the rest.
    """

    def __init__(
        self,
        facts: Mapping[int, Any] | None = None,
        *,
        counts: bool = True,
        made: list[Any] | None = None,
        portable: Callable[[Dropped], Dropped] | None = None,
    ) -> None:
        self.counts_before = {key: count for key, count in (facts or {}).items() if key < 0}
        self.counts, self.made, self.portable = counts, made, portable
        self.live: dict[int, Tally] = {}
        self.events: list[tuple[int, int, Reached, Dropped, float | None]] = []

    def of(self, place: int) -> Tally:
        """The tally of the guarded stage at a place; there is one for all rounds of a pass."""
        if place not in self.live:
            self.live[place] = Tally(self.counts_before[~place]) if ~place in self.counts_before else Tally()
        return self.live[place]

    def failed(self, place: int, reached: Reached, dropped: Dropped, budget: float | None) -> None:
        """Count the failure of the last datapoint that is done."""
        if not self.counts:
            return
        if self.portable is not None:
            dropped = self.portable(dropped)
        if self.made is None:
            self.of(place).add(reached, dropped, budget)
        else:
            self.events.append((len(self.made), place, reached, dropped, budget))

    def news(self) -> dict[int, Any]:
        """The counts that were taken here, each (see `Counted`) by the key under which a state holds it."""
        return {~place: tally.now() for place, tally in self.live.items()}

    def facts(self) -> dict[int, Any]:
        """All counts."""
        return {**self.counts_before, **self.news()}

    def take(self, facts: Mapping[int, Any]) -> None:
        """Take over the counts of somebody who does the work."""
        self.live.update({~key: Tally(count) for key, count in facts.items() if key < 0})

    def reached(self) -> dict[int, Reached]:
        """How far each stage is."""
        return {
            place: passage.reached(passage.at)
            for place, tally in self.live.items()
            if (passage := tally.passage) is not None
        }
