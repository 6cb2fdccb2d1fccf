"""Stages that let nothing through, or next to nothing: told at the end of a pass,
so that an empty epoch is no riddle."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from flowfn.kinds.parts import sources_first

if TYPE_CHECKING:
    from flowfn.kinds.nodes import Node
    from flowfn.kinds.runs import Run

SOME_INPUTS = 10
"""From so many inputs on it is told that none of them gave an output."""

MANY_INPUTS = 10_000
"""From so many on, that fewer than one in `RARE` did."""

RARE = 1000


class NothingLeft(UserWarning):
    """A stage has let nothing through in a whole pass, or next to nothing."""


def note_passed(run: Run, node: Node, outputs: int, inputs: int) -> None:
    """Write down how many outputs a stage gave for how many inputs, now that it has come to the end of its source."""
    passed = _passed(run, node)  # by other rounds too
    passed[:] = passed[0] + outputs, passed[1] + inputs


def _passed(run: Run, node: Node) -> list[int]:
    """How many outputs a stage has given in a pass, and for how many inputs."""
    return run.once("passed", node.place, lambda: [0, 0])


def warn_of_losses(root: Node, run: Run, stacklevel: int) -> None:
    """Warn of every stage with 0 to k outputs for an input that gave hardly any in the pass that has ended."""
    for node in sources_first(root):
        if not node.leaves_out:
            continue
        outputs, inputs = _passed(run, node)
        if (not outputs and inputs >= SOME_INPUTS) or (inputs >= MANY_INPUTS and outputs * RARE < inputs):
            warnings.warn(
                f"{node.part} gave {outputs or 'no'} output{'s' * (outputs > 1)} for {inputs} inputs in epoch "
                f"{run.epoch[0]}; "
                "is what it keeps what it should keep?",
                NothingLeft,
                stacklevel=stacklevel + 1,
            )
