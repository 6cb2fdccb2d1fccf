"""Datapoints given again so that their number comes out even, and a mask that tells which."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from flowfn import rules
from flowfn.blocks import Block
from flowfn.datapoints.components import LEAVES, Datapoints
from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow
from flowfn.flows.stages import stage
from flowfn.kinds.routes import Switch
from flowfn.kinds.sections import Section
from flowfn.showing import brief


@stage.composite(where={"n": rules.positive, "mask": rules.string})
def pad_to_multiple(n: int, source: Any, *, mask: str = "valid") -> Flow[Any]:
    """Make the number of datapoints a multiple of `n`, by giving some from the beginning again, and mask those.

    Every datapoint says whether it is a real one (True) or one that was added (False): a dict by the key `mask`, a list
    or tuple by one component more, anything else becomes a pair (datapoint, bool). Before `shard(rank, world)`, with
    `n = world * size`, it gives every rank the same number of full batches of `size`, so that an evaluation can leave
    out what was added and count every datapoint once. Of a stream, the beginning is read again; what comes out of an
    empty source is nothing.

    Raises:
        TypeError: a datapoint is a namedtuple or a dataclass, which have no place for the mask.
        ValueError: a dict has the key `mask` already.

    >>> import flowfn as ff
    >>> list(ff.pad_to_multiple(4, ["a", "b", "c"]))
    [('a', True), ('b', True), ('c', True), ('a', False)]
    >>> list(ff.pad_to_multiple(2, [{"x": 5}], mask="real"))
    [{'x': 5, 'real': True}, {'x': 5, 'real': False}]
    """
    whole = flow(source, "pad_to_multiple")
    return _rounded_up(n, _masks_added(mask, True, whole), _masks_added(mask, False, whole))


@stage.each(said="pad_to_multiple(mask={mask})")
def _masks_added(mask: str, real: bool, source: Any) -> Iterator[Any]:
    for datapoint in source:
        yield with_mask(datapoint, mask, real)


def with_mask(datapoint: Any, mask: str, real: bool) -> Any:
    """A datapoint that says whether it is a real one."""
    if type(datapoint) is list:
        return [*datapoint, real]
    if type(datapoint) in LEAVES or isinstance(datapoint, Datapoints):
        return (datapoint, real)
    if isinstance(datapoint, Mapping):
        if mask in datapoint:
            raise ValueError(f"pad_to_multiple(): datapoints have the key {mask!r} already; give another name: mask=")
        return {**datapoint, mask: real}
    if hasattr(datapoint, "_make") or (dataclasses.is_dataclass(datapoint) and not isinstance(datapoint, type)):
        raise TypeError(
            f"pad_to_multiple(): there is no place for the mask in {brief(datapoint)}; map it to a dict before"
        )
    if isinstance(datapoint, list):  # of a class of its own
        return [*datapoint, real]
    return (*datapoint, real) if isinstance(datapoint, tuple) else (datapoint, real)


def _filled_up(sources: int, multiple: int) -> Generator[Section, int, None]:
    found = yield Section(0)
    short = -found % multiple
    while short:
        again = yield Section(1, stop=min(short, found))
        if not again:
            raise ValueError(
                "pad_to_multiple(): the source gave datapoints, but none when it was read again from its beginning"
            )
        short -= again


@stage.order(stream=_filled_up, said="pad_to_multiple({multiple})")
def _rounded_up(multiple: int, *sources: float) -> Any:
    return RoundedUp(sources[0], multiple)


@dataclass(frozen=True, slots=True)
class RoundedUp:
    """All `size` inputs of the first source, and then of the second,
    from its beginning and over and over, what is short."""

    size: float
    multiple: int
    switches: ClassVar[bool] = True

    @property
    def length(self) -> float:
        """How many outputs there are."""
        return math.inf if self.size == math.inf else -(-int(self.size) // self.multiple) * self.multiple

    def take(self, block: Block) -> Switch:
        """(source, index, no round) of the outputs in `block`."""
        indices = np.asarray(block, np.int64)
        none = np.full_like(indices, -1)
        if self.size in (0, math.inf):
            return np.zeros_like(indices), indices, none
        return (indices >= self.size).astype(np.int64), indices % int(self.size), none
