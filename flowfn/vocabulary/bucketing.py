"""Batches of datapoints that go together: of one key, or of about one length."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datapoints.collating import BATCHING, batched, stack
from flowfn.datapoints.components import component, length_of
from flowfn.datapoints.padding import pad
from flowfn.flows.stages import stage
from flowfn.functions import mistaken
from flowfn.kinds.runs import Anchor, naturals
from flowfn.kinds.streams import Mark
from flowfn.kinds.traces import Trace
from flowfn.process import forks
from flowfn.showing import brief

_WAITING = rules.Rule(
    "how many inputs are read again, and which of them are the first of their group",
    lambda note: (
        naturals(note, len(note))
        and (not note or (note[1:2] == (0,) and all(a < b for a, b in pairwise((*note[1:], note[0])))))
    ),
    lambda note, facts: not note or facts["start"] + note[0] <= facts["length"],
)


@stage.stream(where={"key": rules.of_datapoint, "size": rules.positive, **BATCHING}, note=_WAITING)
def batch_by_key(
    key: Callable[[Any], Hashable],
    size: int,
    source: Any,
    *,
    drop_remainder: bool = False,
    collate: Any = stack,
    mark: Mark,
    trace: Trace | None,
) -> Iterator[Any]:
    """Put `size` datapoints of one key together: images of one shape, texts of one language.

    A batch is given as soon as `size` datapoints with the same `key(datapoint)` are there. What is left in the end
    comes in smaller batches, in the order in which their first datapoints came, unless it is dropped. It holds fewer
    than `size` datapoints of every key, and a state has one number for each key that is waiting. `collate` is that of
    `batch`. As tf.data's `group_by_window` and tensorpack's `BatchDataByShape`.

    Raises:
        TypeError: a key cannot be hashed.

    >>> import flowfn as ff
    >>> [batch.tolist() for batch in ff.batch_by_key(lambda x: x % 2, 2, range(7))]
    [[0, 2], [1, 3], [4, 6], [5]]
    """
    groups = Groups(source, mark, trace)
    mark.anywhere(groups.note)
    for datapoint in source:
        value = key(datapoint)
        if groups.add(value, datapoint) == size:
            yield groups.close(value, collate)
    while groups.open and not drop_remainder:
        yield groups.close(next(iter(groups.open)), collate)


@dataclass(frozen=True, repr=False)
class shape_of:
    """The shape of a datapoint, or of its component `index` (a position or key): a key for `batch_by_key`.

    >>> shape_of()(np.zeros((2, 3))), shape_of("image")({"image": np.zeros((4, 4, 3)), "label": 1})
    ((2, 3), (4, 4, 3))
    """

    index: Any = None

    @property
    def instead(self) -> str:
        """What to write where this stands in the place of a stage."""
        return f"batch_by_key({self}, size)"

    def __call__(self, datapoint: Any) -> tuple[int, ...]:
        """The shape."""
        return np.shape(datapoint if self.index is None else component(datapoint, self.index))

    def __repr__(self) -> str:
        return f"shape_of({'' if self.index is None else repr(self.index)})"


_ZEROS = pad(0)


def _integers(value: Any) -> bool:
    return (
        hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping)) and all(map(rules.is_integer, value))
    )


def _increasing(value: Any, others: Mapping[str, Any]) -> bool:
    return len(value) > 0 and value[0] > 0 and all(a < b for a, b in pairwise(value))


def _sizes_fit(value: Any, others: Mapping[str, Any]) -> bool:
    if value is None or others["tokens"] is not None:
        return (value is None) != (others["tokens"] is None)
    boundaries = 0 if others["boundaries"] is None else len(others["boundaries"])
    return len(value) in (boundaries or 1, boundaries + 1) and min(value) > 0


def _can_pad(value: Any, others: Mapping[str, Any]) -> bool:
    boundaries, tokens = others["boundaries"], others["tokens"]
    return value == "longest" or (
        value == "bucket" and boundaries is not None and (tokens is None or tokens >= boundaries[-1])
    )


LENGTH = rules.Rule(
    "a function of a datapoint, or a component's position or key",
    lambda value: callable(value) or rules.is_integer(value) or isinstance(value, (str, bytes, tuple)),
    slip=lambda value, others: mistaken(value, {}) if callable(value) else "",
)

_LENGTHS = {
    "length": LENGTH,
    "boundaries": rules.optional(rules.Rule("positive integers, each above the one before", _integers, _increasing)),
    "tokens": rules.optional(rules.positive),
    "sizes": rules.Rule(
        "positive integers, one for each boundary and perhaps one more for what is longer (or else tokens= be given, "
        "and sizes= left out)",
        lambda value: value is None or _integers(value),
        _sizes_fit,
    ),
    "pad_to": rules.Rule(
        "'longest', or 'bucket' where there are boundaries (none of them above tokens)", lambda value: True, _can_pad
    ),
}


@stage.stream(where={**_LENGTHS, **BATCHING}, note=_WAITING)
def batch_by_length(
    length: Any,
    source: Any,
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: int | None = None,
    pad_to: str = "longest",
    drop_remainder: bool = False,
    collate: Any = _ZEROS,
    mark: Mark,
    trace: Trace | None,
) -> Iterator[Any]:
    """Put sequences of about one length together, so that little is padded.

    `length` is a function of a datapoint, or the position or key of the component whose `len` counts. Bucket i holds
    the lengths up to and including `boundaries[i]`, and above the boundary before it: the bounds [2, 4] are those that
    `tf.data.Dataset.bucket_by_sequence_length`, whose bounds are exclusive, writes as [3, 5].

    `sizes` says how many datapoints of each bucket make a batch; one number more than boundaries is for what is longer
    than all of them. Or `tokens` says how large a batch may be, as its number of rows times their padded length: a
    batch is given when no datapoint, or not the one that has come, could be added. Then what is longer than all
    boundaries has a bucket of its own, and without boundaries batches are made of what comes in a row. What is left in
    the end comes in the order of the buckets, unless it is dropped.

    `collate` is that of `batch`. Sequences are padded to the longest in their batch; `pad_to="bucket"` makes every
    `pad` in `collate` pad its axis to the boundary of the bucket instead (in the bucket of what is longer, to the
    longest).

    Raises:
        ValueError: a datapoint is longer than the last boundary and there is no size for it, or longer than `tokens`.
        TypeError: a length is no integer.

    >>> import flowfn as ff
    >>> rows = [np.full(n, n) for n in (1, 3, 2, 4)]
    >>> [batch.tolist() for batch in ff.batch_by_length(len, rows, boundaries=[2, 4], sizes=[2, 2])]
    [[[1, 0], [2, 2]], [[3, 3, 3, 0], [4, 4, 4, 4]]]
    >>> [batch.shape for batch in ff.batch_by_length(len, rows, tokens=6)]
    [(2, 3), (1, 2), (1, 4)]
    """
    buckets = Buckets(length, boundaries, sizes, tokens, pad_to == "bucket")
    groups = Groups(source, mark, trace)
    mark.anywhere(groups.note)
    hows = buckets.collations(collate)
    for datapoint in source:
        measured = buckets.measure(datapoint)
        bucket = buckets.of(measured, datapoint)
        if buckets.overflows(bucket, groups.open.get(bucket), measured):
            yield groups.close(bucket, hows[bucket], first=(datapoint, measured))
        else:
            groups.add(bucket, datapoint, measured)
        if buckets.is_full(bucket, groups.open.get(bucket)):
            yield groups.close(bucket, hows[bucket])
    for bucket in sorted(groups.open) if not drop_remainder else ():
        yield groups.close(bucket, hows[bucket])


@dataclass(slots=True)
class Open:
    """A batch to be: the number of its first input, the anchors upstream to read that again from, its datapoints."""

    first: int
    upstream: dict[int, Anchor]
    datapoints: list[Any] = field(default_factory=list)
    longest: int = 0
    numbers: list[int] = field(default_factory=list)  # of its inputs, where somebody wants to know


class Groups:
    """Datapoints that wait for others of their key.

    From its first on, every input of a key that waits is in the group. So the numbers of the first ones say it all:
    read again from the oldest of them, an input that opens no group then, and whose key waits for nothing, has been
    given.
    """

    def __init__(self, source: Any, mark: Mark, trace: Trace | None) -> None:
        self.source, self.mark, self.trace, self.open = source, mark, trace, dict[Any, Open]()
        self.saved_upstream, self.saved_note = mark.upstream, mark.note
        self.start = self.position = int(source.position)
        self.until = self.start + (mark.note[0] if mark.note else 0)

    def note(self) -> tuple[int, ...]:
        """How many inputs back the oldest is, how many of those are to be sorted again,
        and which are first in a group."""
        back = self.source.position
        if self.position < self.until:  # not there yet
            self.mark.upstream = self.saved_upstream
            return back - self.start, *self.saved_note
        oldest = next(iter(self.open.values()), None)
        if oldest is None:
            self.mark.upstream = {}
            return (back - self.position,)
        self.mark.upstream = oldest.upstream
        return (
            back - oldest.first,
            self.position - oldest.first,
            *(group.first - oldest.first for group in self.open.values()),
        )

    def add(self, key: Any, datapoint: Any, length: int = 0) -> int:
        """Put the last input into its group, and say how many there are now; 0 if the input has been given before."""
        try:
            group = self.open.get(key)
        except TypeError:
            raise TypeError(
                f"batch_by_key(): keys must be hashable, got {brief(key)}; let key return a string, a number or a "
                "tuple of them"
            ) from None
        number, self.position = self.position, self.position + 1
        if group is None:
            if number < self.until and number - self.start not in self.saved_note[1:]:
                return 0
            group = self.open[key] = Open(number, self.source.facts(before_last=True))
        group.datapoints.append(datapoint)
        if self.trace is not None:
            group.numbers.append(number)
        group.longest = max(group.longest, length)
        return len(group.datapoints)

    def close(self, key: Any, how: Any, first: tuple[Any, int] | None = None) -> Any:
        """The batch of a group, which is no more; or which begins anew, with the last input as its `first`."""
        if self.trace is not None:
            self.trace(self.open[key].numbers)
        made = batched(self.open[key].datapoints, how)
        del self.open[key]
        if first is not None:
            self.add(key, *first)
        return made


@dataclass(frozen=True)
class Buckets:
    """Which lengths go together, and when a batch of them is full."""

    length: Any
    boundaries: Sequence[int] | None
    sizes: Sequence[int] | None
    tokens: int | None
    fixed: bool

    @forks.cached_property
    def bounds(self) -> list[int]:
        """The boundaries as Python ints."""
        return [] if self.boundaries is None else [int(boundary) for boundary in self.boundaries]

    def measure(self, datapoint: Any) -> int:
        """The length of a datapoint."""
        return measure("batch_by_length", self.length, datapoint)

    def of(self, length: int, datapoint: Any) -> int:
        """The bucket of a length."""
        if self.tokens is not None and length > self.tokens:
            raise ValueError(
                f"batch_by_length(): a datapoint of length {length} is longer than tokens={self.tokens}: "
                f"{brief(datapoint)}; flat_map(split_long(...)) splits long ones before, filter leaves them out"
            )
        bucket = bisect_left(self.bounds, length)
        if self.sizes is not None and bucket == len(self.sizes):
            raise ValueError(
                f"batch_by_length(): a datapoint of length {length} is longer than the last boundary, "
                f"{self.bounds[-1]}: "
                f"{brief(datapoint)}; one more number in sizes= makes a bucket for what is longer"
            )
        return bucket

    def padded(self, bucket: int, longest: int) -> int:
        """How long the rows of a batch will be, at least 1."""
        return self.bounds[bucket] if self.fixed and bucket < len(self.bounds) else max(longest, 1)

    def overflows(self, bucket: int, group: Open | None, length: int) -> bool:
        """Whether a batch has no room for a datapoint of that length."""
        if group is None or self.tokens is None:
            return False
        return (len(group.datapoints) + 1) * self.padded(bucket, max(group.longest, length)) > self.tokens

    def is_full(self, bucket: int, group: Open | None) -> bool:
        """Whether a batch has no room for any."""
        if group is None or self.sizes is None:
            return self.overflows(bucket, group, 0)
        return len(group.datapoints) == self.sizes[bucket]

    def collations(self, how: Any) -> list[Any]:
        """How each bucket is collated."""
        fixed = [_padding_to(how, boundary) if self.fixed else how for boundary in self.bounds]
        return [*fixed, how]


def measure(word: str, length: Any, datapoint: Any) -> int:
    """The length of a datapoint, as a function or a component's position or key says."""
    if not callable(length) or length is len:
        return length_of(datapoint, None if length is len else length)
    measured = length(datapoint)
    if type(measured) is int and measured >= 0:
        return measured
    if not rules.is_integer(measured) or measured < 0:
        raise TypeError(f"{word}(): a length must be an integer >= 0, got {brief(measured)} for {brief(datapoint)}")
    return operator.index(measured)


def _padding_to(how: Any, length: int) -> Any:
    """A collation, or those of the components, in which every `pad` pads to `length`."""
    if isinstance(how, pad):
        return replace(how, length=length, multiple=1)
    if isinstance(how, Mapping):
        return {name: _padding_to(one, length) for name, one in how.items()}
    return [_padding_to(one, length) for one in how] if isinstance(how, (list, tuple)) else how
