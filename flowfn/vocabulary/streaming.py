"""Stages that see their source as one stream, one datapoint after the other."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.flows.opening import Opener, Opening, OpeningNode, close
from flowfn.flows.stages import stage
from flowfn.kinds.nodes import MISSING
from flowfn.kinds.runs import Anchor
from flowfn.kinds.streams import Mark
from flowfn.kinds.traces import Trace
from flowfn.randomness.generators import bounded, rekey
from flowfn.showing import brief


@stage.stream(where={"size": rules.positive, "reuse": rules.positive}, times="reuse", moves=True)
def shuffle_buffer(size: int, source: Any, *, reuse: int = 1, rng: np.random.Generator) -> Iterator[Any]:
    """Shuffle a stream through a buffer of `size` datapoints; all of them come out, each once (or `reuse` times).

    No state holds the buffer: a pass that is resumed reads its source again from the beginning, up to where it stood.

    >>> import flowfn as ff
    >>> sorted(ff.shuffle_buffer(3, range(6)))
    [0, 1, 2, 3, 4, 5]
    >>> sorted(ff.shuffle_buffer(3, "abc".split("b"), reuse=2))
    ['a', 'a', 'c', 'c']
    """
    draw = bounded(rng)
    next(draw)
    buffer: list[Any] = []
    for datapoint in source if reuse == 1 else chain.from_iterable(map(repeat, source, repeat(reuse))):
        if len(buffer) < size:
            buffer.append(datapoint)
            continue
        place = draw.send(size)
        out, buffer[place] = buffer[place], datapoint
        yield out
    while buffer:
        place = draw.send(len(buffer))
        buffer[place], buffer[-1] = buffer[-1], buffer[place]
        yield buffer.pop()


@stage.stream(where={"f": rules.of_two}, times=1, newest=True)
def scan(f: Callable[[Any, Any], Any], initial: Any, source: Any) -> Iterator[Any]:
    """Carry a state along the stream: `f(state, datapoint)` returns (the next state, the output).

    `initial` is the state before the first datapoint; every pass starts with a copy of it. To resume, the stream is
    read again from its start, because the state at any other place is known only then.

    Raises:
        TypeError: `f` returns something else than a pair.

    >>> import flowfn as ff
    >>> list(ff.scan(lambda total, x: (total + x, total + x), 0, [1, 2, 3]))
    [1, 3, 6]
    """
    state = copy.deepcopy(initial)
    for datapoint in source:
        pair = f(state, datapoint)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"scan(): f must return a pair (state, output), got {brief(pair)}")
        state, output = pair
        yield output


@stage.stream(
    where={"predicate": rules.of_datapoint},
    note=rules.Rule("and nothing else", lambda note: not note),
    newest=True,
)
def take_while(predicate: Callable[[Any], Any], source: Any, *, mark: Mark) -> Iterator[Any]:
    """The datapoints before the first for which `predicate(datapoint)` does not hold.

    >>> import flowfn as ff
    >>> list(ff.take_while(str.isupper, ["A", "B", "c", "D"]))
    ['A', 'B']
    """
    mark.anywhere(lambda: (source.position - mark.outputs.position,))  # one that it ended or failed at is read again
    for datapoint in source:
        if not predicate(datapoint):
            return
        yield datapoint


@stage.stream(where={"key": rules.optional(rules.of_datapoint)}, newest=True)
def unique(source: Any, *, key: Callable[[Any], Any] | None = None) -> Iterator[Any]:
    """Leave out every datapoint that was there before, or whose `key(datapoint)` was.

    It remembers the keys it has seen, so its memory grows with their number;
    a short key (a hash, an id) keeps it small.

    Raises:
        TypeError: a datapoint (or key) cannot be hashed.

    >>> import flowfn as ff
    >>> list(ff.unique([1, 2, 1, 3])), list(ff.unique(["a", "B", "b"], key=str.lower))
    ([1, 2, 3], ['a', 'B'])
    """
    seen = set()
    for datapoint in source:
        value = datapoint if key is None else key(datapoint)
        try:
            before = value in seen
        except TypeError:
            raise TypeError(
                f"unique(): datapoints or their keys must be hashable, got {brief(value)}; give key=, a function that "
                "returns "
                "a string, a number or a tuple of them"
            ) from None
        if not before:
            seen.add(value)
            yield datapoint


def _are_slots(note: tuple[Any, ...], facts: Mapping[str, Any]) -> bool:
    (inputs, at, within), cycle = note[:3], facts["cycle"]
    numbers, counts = note[3 : 3 + cycle], note[3 + cycle :]
    opened = [number for number in numbers if number >= 0]
    placed = at < cycle and within < facts["block"] and facts["start"] == min(opened, default=inputs)
    placed = placed and not any(some for number, some in zip(numbers, counts) if number < 0)
    return (
        placed
        and max(opened, default=-1) < inputs <= facts["length"]
        and len({*opened}) == len(opened)
        and sum(counts) <= facts["outputs"]
    )


_SLOTS = rules.Rule(
    "how many were taken, whose turn it is, and of each of `cycle` slots the number of its input (or -1) and what it "
    "has given]",
    lambda note: len(note) > 3 and len(note) % 2 == 1 and all(type(number) is int and number >= -1 for number in note),
    lambda note, facts: (
        len(note) == 3 + 2 * facts["cycle"]
        and min(*note[:3], *note[3 + facts["cycle"] :]) >= 0
        and _are_slots(note, facts)
    ),
)


@stage.stream(
    where={"f": rules.of_datapoint, "cycle": rules.positive, "block": rules.positive}, reads=OpeningNode, note=_SLOTS
)
def interleave(
    f: Callable[[Any], Any],
    source: Any,
    *,
    cycle: int = 16,
    block: int = 1,
    rng: np.random.Generator,
    mark: Mark,
    trace: Trace | None,
    opener: Opener,
) -> Iterator[Any]:
    """Open `f(datapoint)`, an iterable or a flow, for `cycle` datapoints at a time, and give `block` of each in turn.

    One that has ended makes room for the next datapoint's, as in `tf.data.Dataset.interleave`. Only `cycle` of them are
    open at any time, whatever their lengths. A flow runs under a seed that belongs to its datapoint. A state holds how
    far each has come (2 numbers for each of `cycle`); those that are open are opened again there, flows that can be
    indexed at no cost, others by reading over what was given.

    Upstream of a `prefetch` with workers these open and read what `f` returns, several at once, in bounded pieces. What
    is small costs least on its way from there as a batch: with `batch` in the flow that `f` returns, not behind this.

    >>> import flowfn as ff
    >>> "".join(ff.interleave(iter, ["aaaa", "bb", "ccc"], cycle=2, block=2))
    'aabbaaccc'
    """
    slots = Slots(opener, source, cycle, block, rng, mark, trace)
    try:
        slots.reopen(*mark.note)
        mark.anywhere(slots.note)
        yield from slots
    finally:
        slots.close()


class OpenInput(NamedTuple):
    """What was opened for one input, its number, and the anchors upstream from before it was read."""

    number: int
    made: Iterator[Any]
    upstream: dict[int, Anchor]


class Slots:
    """What is open in an `interleave`: a row of slots, and how much each has given."""

    def __init__(
        self,
        opener: Opener,
        source: Any,
        cycle: int,
        block: int,
        rng: np.random.Generator,
        mark: Mark,
        trace: Trace | None,
    ) -> None:
        self.opener, self.source, self.block, self.rng, self.mark = opener, source, block, rng, mark
        self.trace = trace
        self.open: list[OpenInput | None] = [None] * cycle
        self.counts = [0] * cycle
        self.at, self.within, self.inputs = 0, 0, source.position
        self.broken: Exception | None = None  # what the source raised when it was read early

    def note(self) -> tuple[int, ...]:
        """How many inputs back the oldest open one is, and all that is needed to open them again."""
        numbers = [one.number if one is not None else -1 for one in self.open]
        oldest = min(filter(None, self.open), default=None)  # numbers differ, so that nothing else is compared
        self.mark.upstream = oldest.upstream if oldest is not None else {}
        unused = self.source.position - (oldest.number if oldest is not None else self.inputs)
        return unused, self.inputs, self.at, self.within, *numbers, *self.counts

    def reopen(self, inputs: int = 0, at: int = 0, within: int = 0, *note: int) -> None:
        """Open again what was open, as `note` said it; by default nothing was."""
        cycle = len(self.open)
        slots = {number: slot for slot, number in enumerate(note[:cycle]) if number >= 0}
        self.at, self.within, self.counts = at, within, list(note[cycle:]) or self.counts
        while self.inputs < inputs and self._take(slots.get(self.inputs)):
            pass

    def _take(self, slot: int | None) -> bool:
        """Take one input and open what it makes in a slot, behind what has been given there;
        False if there is none."""
        if self.broken is not None:
            raise self.broken
        upstream = self.source.facts()
        datapoint = next(self.source, MISSING)
        if datapoint is MISSING:
            return False
        if slot is not None:
            self._start(slot, datapoint, upstream)
        self.inputs += 1  # not before: where f fails, it is to be called again
        return True

    def _start(self, slot: int, datapoint: Any, upstream: dict[int, Anchor]) -> None:
        rekey(self.rng, self.inputs)
        opening = Opening(datapoint, int(self.rng.bit_generator.random_raw()), self.counts[slot])
        self.open[slot] = OpenInput(self.inputs, self.opener(opening), upstream)

    def _take_early(self) -> None:
        """Fill the other empty slots as well, in the order in which they will be come to;
        an error waits for its turn."""
        cycle = len(self.open)
        try:
            for slot in [(self.at + step) % cycle for step in range(1, cycle)]:
                if self.open[slot] is None and not self._take(slot):
                    return
        except Exception as error:
            self.broken = error

    def _next_slot(self) -> None:
        self.at, self.within = (self.at + 1) % len(self.open), 0

    def __iter__(self) -> Iterator[Any]:
        ended = False
        while not ended or any(self.open):
            current = self.open[self.at]
            if current is None:
                ended = ended or not self._take(self.at)
                if self.opener.early and not ended:
                    self._take_early()
                if ended:
                    self._next_slot()
                continue
            try:
                output = next(current.made, MISSING)
            except Exception as error:
                self.opener.failed(error, current.number)
                raise
            if output is MISSING:
                self.open[self.at], self.counts[self.at] = None, 0
                close(current.made)
                self._next_slot()
                continue
            self.counts[self.at] += 1
            self.within += 1
            if self.within == self.block:
                self._next_slot()
            if self.trace is not None:
                self.trace((current.number,), parts=True)
            yield output

    def close(self) -> None:
        """Close what is open, all of it even if one cannot be closed."""
        with contextlib.ExitStack() as closing:
            closing.callback(self.opener.close)
            for one in self.open:
                if one is not None:
                    closing.callback(close, one.made)
