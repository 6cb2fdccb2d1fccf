"""What else a random stage would make of a datapoint: what it draws for it in other epochs."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice
from typing import Any

from flowfn.kinds.nodes import Each, Node
from flowfn.kinds.runs import Outputs, Run
from flowfn.parallel.tasks.task import weight

DRAWS, KEPT = 3, 1 << 28
"""How many draws are shown; and how many bytes the inputs of random stages may have that are kept for that."""


def draws(node: Node) -> bool:
    """Whether other draws of a node can be shown: of one that makes one output of one input."""
    return isinstance(node, Each) and node.part.random and len(node.sources) == 1


def kept(datapoint: Any, of: int) -> list[Any]:
    """A copy of what a random stage is given, in a list; none if it is too large as one `of` so many, or cannot be
    copied."""
    try:
        return [copy.deepcopy(datapoint)] if weight(datapoint) <= KEPT // of else []
    except Exception:  # somebody's object
        return []


def drawn_anew(node: Any, run: Run, number: int, datapoint: Any) -> list[Any]:
    """What a node makes of a datapoint in the next epochs; less, where it fails."""
    label = next(iter(node.each_label(run, [range(number, number + 1)]))) if node.seekable else number
    made: list[Any] = []
    for later in range(1, DRAWS + 1):
        other = replace(run, epoch=(*run.epoch[:-1], run.epoch[-1] + later), memo={})
        inputs = Outputs(iter([copy.deepcopy(datapoint)]))
        try:
            outputs = node.begin(other, (inputs,), iter([label]))
            made += islice(outputs, 1)
        except Exception:  # with other numbers it may fail, which is no reason not to show the rest
            continue
    return made
