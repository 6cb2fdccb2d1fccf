"""Stages that let nothing through, or next to nothing: told at the end of a pass, so that an empty epoch is no riddle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from flowfn.runs import Anchor

if TYPE_CHECKING:
    from flowfn.kinds import Node

SOME = 10
"""From so many inputs on it is told that none of them gave an output."""

MANY = 10_000
"""From so many on, that fewer than one in `RARE` did."""

RARE = 1000


def warn_of_losses(root: Node, facts: Mapping[int, Anchor], epoch: int, stacklevel: int) -> None:
    """Warn of every stage with 0 to k outputs for an input that gave hardly any in the pass that has ended."""
    for node in _expanding(root):
        known = facts.get(node.place)
        if isinstance(known, Anchor) and known.epoch[0] == epoch:
            given, taken = known.outputs, known.inputs[0] + 1
            if (not given and taken >= SOME) or (taken >= MANY and given * RARE < taken):
                warnings.warn(
                    f"{node.part} gave {given or 'no'} output{'s' * (given > 1)} for {taken} inputs in epoch {epoch}; "
                    "is what it keeps what it should keep?",
                    stacklevel=stacklevel + 1,
                )


def _expanding(node: Node) -> Iterator[Node]:
    """The expand stages of a tree that may leave inputs out, sources first."""
    for source in node.sources:
        yield from _expanding(source)
    if node.leaves_out:
        yield node
