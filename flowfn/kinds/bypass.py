"""A pass that goes round what is left out: outputs keep their numbers, and those that are left out are not given.

What is left out is known by index (`Node.left_out`). Where indices go up, those of what is left out are taken from them
at two places: at the root, and where a group asks for its inputs. So everything else reads, draws and counts as ever,
and what is left out is not read. A stream has no index to take away: there an output that is left out is made, and
given to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from flowfn.blocks import BLOCK, Block, blocks, each_index, shared
from flowfn.kinds.nodes import MISSING, Node, fault
from flowfn.kinds.runs import Length, Outputs, Run

AT_ONCE = 256
"""Of so many outputs it is found out at once whether they are left out: each may be made of many inputs."""


class Passing(Outputs):
    """The outputs of a pass that goes round some. `position` is the number of the next, those left out counted."""

    __slots__ = ("place",)
    place: PassPlace

    @property
    def position(self) -> int:
        """The number of the output behind the last that was given."""
        return self.place.at


class PassPlace:
    """Where a pass stands: `at` is the number of the next output."""

    __slots__ = ("at",)

    def __init__(self, at: int) -> None:
        self.at = at


def outputs_of(node: Node, run: Run, start: int) -> Outputs:
    """The outputs of a tree from `start` on, without those that are left out."""
    if not run.gaps or node.loose:
        return node.stream(run, start)
    return _by_index(node, run, start) if node.seekable else _in_order(node, run, start)


def count_given(node: Node, run: Run, start: int = 0) -> Length:
    """How many outputs a pass gives from `start` on. Where single records are left out, that takes a look at all."""
    length = node.length(run)
    if length is None or length == math.inf:
        return length
    within = [(start, int(length))] if run.gaps.records else run.gaps.outputs.pairs() if node.has_gaps(run) else ()
    looked_at = (block for a, b in within for block in blocks(max(a, start), min(b, length)))
    return max(int(length) - start, 0) - sum(int(node.left_out(run, block).sum()) for block in looked_at)


def numbers(node: Node, run: Run, indices: np.ndarray) -> np.ndarray:
    """Which outputs are those at `indices` of all that a pass gives."""
    if not run.gaps or not len(indices):
        return indices
    ends: list[int] = run.memo.get(("given", node.place), [])  # after each block, how many were given so far
    series = blocks(len(ends) * BLOCK, node.length(run))  # type: ignore[arg-type]
    while not ends or ends[-1] <= indices.max():
        block = next(series)
        ends = [*ends, sum(ends[-1:]) + len(block) - int(node.left_out(run, block).sum())]
    run.memo["given", node.place] = ends
    every, at = np.empty_like(indices), np.searchsorted(ends, indices, side="right")
    for number in np.unique(at).tolist():
        kept = np.flatnonzero(~node.left_out(run, _block(node, run, number)))
        here = at == number
        every[here] = number * BLOCK + kept[indices[here] - (ends[number - 1] if number else 0)]
    return every


def _block(node: Node, run: Run, number: int) -> Block:
    """One of the blocks of all outputs."""
    return next(blocks(number * BLOCK, node.length(run)))  # type: ignore[arg-type]


def _pieces(start: int, stop: float) -> Iterator[Block]:
    return (block[at : at + AT_ONCE] for block in blocks(start, stop) for at in range(0, len(block), AT_ONCE))


def _by_index(node: Node, run: Run, start: int) -> Outputs:
    length: Any = node.length(run)
    upward, again = shared(node.without_gaps(run, _pieces(start, length)), 2)
    read, place = node.read(run, upward), PassPlace(start)
    return _passing(_numbered(read, each_index(again), length, place), read, place)


def _numbered(read: Outputs, indices: Iterator[int], length: float, place: PassPlace) -> Iterator[Any]:
    """Outputs as they come, with their numbers noted."""
    for index in indices:
        output = next(read, MISSING)
        if output is MISSING:
            raise fault(read, read.count + 1)
        place.at = index + 1
        yield output
    place.at = int(length)


def _in_order(node: Node, run: Run, start: int) -> Outputs:
    left_out = chain.from_iterable(node.left_out(run, block).tolist() for block in _pieces(start, math.inf))
    read, place = node.stream(run, start), PassPlace(start)
    return _passing(_kept(read, left_out, place), read, place)


def _kept(read: Outputs, left_out: Iterator[bool], place: PassPlace) -> Iterator[Any]:
    """The outputs that are not left out."""
    for output in read:
        place.at = read.position
        if not next(left_out):
            yield output


def _passing(outputs: Iterator[Any], read: Outputs, place: PassPlace) -> Passing:
    passing = Passing(outputs, None, [read], place.at)
    passing.place = place
    return passing
