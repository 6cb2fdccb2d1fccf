"""Seeing an error happen again."""

from __future__ import annotations

from typing import Any

from flowfn.flows.flow import Flow
from flowfn.kinds.failures import marked


def replay(flow: Flow[Any], error: BaseException) -> Any:
    """Make the datapoint again at which `error` was raised, in this process, one stage after the other.

    Call it in a debugger, or after a mend. The error is raised again if it happens again; otherwise the output of
    `flow` that failed is returned.

    Raises:
        ValueError: `error` did not come out of iterating a flow.

    >>> import flowfn as ff
    >>> inverse = ff.pipe([2, 1, 0], ff.map(lambda x: 1 // x))
    >>> try:
    ...     list(inverse)
    ... except ZeroDivisionError as error:
    ...     ff.replay(ff.pipe([2, 1, 4], ff.map(lambda x: 1 // x)), error)
    0
    """
    told = marked(error)
    if not told or "checkpoint" not in told:
        raise ValueError(f"replay(): {type(error).__name__} was not raised by iterating a flow")
    with flow._serially(told["seed"], told["epoch"], told["checkpoint"]) as iterator:
        return next(iterator)
