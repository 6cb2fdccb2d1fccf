"""An IterableDataset of Hugging Face as a source: in the flow's epoch, resumed by its own state, read as a whole.

Nothing is imported for it: whoever has made one has imported its library.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowfn.kinds.nodes import MISSING
from flowfn.kinds.runs import Anchor, Epoch, Outputs, Run, naturals

FORGETFUL = "BufferShuffledExamplesIterable"
"""What does not keep in its state what it has read and not yet given."""


def whole_again(dataset: Any) -> bool:
    """Whether a data set's own state says all that there is to say: not if a buffer of it is filled anew,
    nor if a function was given tables by it."""
    return all(
        type(part).__name__ != FORGETFUL and not getattr(getattr(part, "formatting", None), "is_table", False)
        for part in _stream_parts(dataset._ex_iterable)
    )


def in_epoch(dataset: Any, epoch: Epoch) -> Any:
    """A data set of which nothing is shared with others that read it; if it is random, in an epoch."""
    made = object.__new__(type(dataset))  # `copy` would make a second name of the same attributes
    vars(made).update(vars(dataset), _ex_iterable=_state_apart(dataset._ex_iterable))
    made._epoch = int(dataset._epoch)
    if any(hasattr(part, "shift_rngs") for part in _stream_parts(made._ex_iterable)):
        made.set_epoch(_example_number(epoch))
    return made


def datapoints(dataset: Any) -> Iterator[Any]:
    """All of them, in a worker of torch too, where it would give a share: the flow shares them out itself."""
    iterator = iter(dataset)
    with _in_no_worker_of_torch():
        first = next(iterator, MISSING)  # who it is for is asked once
    if first is not MISSING:
        yield first
        yield from iterator


def _example_number(epoch: Epoch) -> int:
    """The epoch, or (below `repeat` and the like) the round, as one number."""
    number = 0
    for part in epoch:
        number = number << 20 | part
    return number


def _stream_parts(part: Any) -> Iterator[Any]:
    yield part
    for inner in [*getattr(part, "ex_iterables", ()), *filter(None, [getattr(part, "ex_iterable", None)])]:
        yield from _stream_parts(inner)


def _state_apart(part: Any) -> Any:
    """A copy, to its leaves: where it stands is written in all of them."""
    made = copy.copy(part)
    if hasattr(made, "ex_iterable"):
        made.ex_iterable = _state_apart(made.ex_iterable)
    if hasattr(made, "ex_iterables"):
        made.ex_iterables = [*map(_state_apart, made.ex_iterables)]
    return made


@contextmanager
def _in_no_worker_of_torch() -> Iterator[None]:
    worker: Any = sys.modules.get("torch.utils.data._utils.worker")
    told = getattr(worker, "_worker_info", None)
    if told is None:
        yield
        return
    worker._worker_info = None
    try:
        yield
    finally:
        worker._worker_info = told


def stream(node: Any, run: Run, start: int) -> Outputs:
    """The datapoints from `start` on, from the last place before it that a state tells."""
    anchor = run.anchor(node.place, start)
    dataset, (state,) = in_epoch(node.part.object, run.epoch), anchor.inputs
    if state:
        dataset.load_state_dict(state)
    outputs = Outputs(datapoints(dataset), node, (), anchor.outputs)
    if whole_again(dataset):
        outputs.tell = lambda: {node.place: Anchor(run.epoch, outputs.position, (dataset.state_dict(),))}
    return outputs.drop(start - anchor.outputs)


def misfit(anchor: Anchor) -> str:
    """What an anchor must be, if it is something else."""
    (state,) = anchor.inputs if len(anchor.inputs) == 1 else (None,)
    fits = isinstance(state, dict) and set(state) == {"examples_iterable", "epoch"} and naturals([state["epoch"]], 1)
    return "" if fits else "[epoch, outputs, [state of the data set]]"
