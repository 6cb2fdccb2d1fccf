"""Seeing an error happen again, or an output come again."""

from __future__ import annotations

from typing import Any

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.kinds.failures import marked
from flowfn.kinds.runs import Checkpoint
from flowfn.seeing.tracing import FLOW, pass_of

_ERROR_OR_OUTPUT = rules.Rule(
    "an error that came out of a flow, or the number of an output",
    lambda value: isinstance(value, BaseException) or rules.is_integer(value),
    lambda value, others: isinstance(value, BaseException) or value >= 0,
)


@rules.checked(flow=FLOW, error=_ERROR_OR_OUTPUT)
def replay(
    flow: Flow[Any],
    error: BaseException | int,
    *,
    seed: int | None = None,
    epoch: int | None = None,
    state: Any = None,
) -> Any:
    """Make an output again in this process, one stage after the other: number `error`, or that at which it was raised.

    Call it in a debugger, or after a mend. An error is raised again if it happens again; otherwise the output of `flow`
    that failed is returned. Of an output that is given by its number, the pass is the next one of the flow, unless
    `seed` and `epoch`, or a state (or an iterator), say another; where the flow has to be read in order, it is read
    from the anchors of the state, or from its beginning.

    Raises:
        ValueError: `error` did not come out of iterating a flow.
        IndexError: the pass has no such output.

    >>> import flowfn as ff
    >>> inverse = ff.pipe([2, 1, 0], ff.map(lambda x: 1 // x))
    >>> try:
    ...     list(inverse)
    ... except ZeroDivisionError as error:
    ...     ff.replay(ff.pipe([2, 1, 4], ff.map(lambda x: 1 // x)), error)
    0
    >>> ff.replay(inverse, 1, epoch=5)
    1
    """
    if not isinstance(error, BaseException):
        return _output(flow, int(error), *pass_of(flow, seed, epoch, state, "replay"))
    told = marked(error)
    if not told or "checkpoint" not in told:
        raise ValueError(f"replay(): {type(error).__name__} was not raised by iterating a flow")
    with flow._serially(told["seed"], told["epoch"], told["checkpoint"]) as iterator:
        return next(iterator)


def _output(flow: Flow[Any], number: int, seed: int, epoch: int, checkpoint: Checkpoint) -> Any:
    """Output `number` of a pass of which some anchors are known."""
    with flow._serially(seed, epoch, checkpoint._replace(position=number)) as iterator:
        for output in iterator:
            if iterator.position == number + 1:  # else all that it was made of is left out
                return output
            break
    raise IndexError(f"replay(): the pass has no output {number}")
