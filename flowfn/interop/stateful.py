"""A flow in checkpoints that several ranks write together, each a part of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow as as_flow
from flowfn.flows.states import counting_of
from flowfn.flows.translating import speaks
from flowfn.functions import around_a_pipe
from flowfn.kinds.parts import top_down


@around_a_pipe
@speaks
def as_stateful(flow: Any) -> StatefulFlow:
    """A flow as the `Stateful` that `torch.distributed.checkpoint` saves and loads, under any number of ranks.

    Give it to `dcp.save` and `dcp.load` at the top level, beside the model, and iterate the flow itself:

        dcp.save({"model": model.state_dict(), "data": as_stateful(flow)}, checkpoint_id=folder)

    The state is one text under one key. If only map-like stages, `batch` and `prefetch` are behind `shard`, that of any
    rank stands for all, which have to save after the same number of steps, and it loads under any number of ranks: what
    is left of the epoch is shared out anew, and nothing is lost or comes twice. Otherwise each rank has a key of
    its own, as in "state of rank 1 of 4", and DCP says that it is missing when it is loaded under another number;
    `explain` says which stage that is due to.

    DCP would take a bare flow, or its `state_dict()`, too. But it takes a dict apart and lets ranks write its entries
    by turns, so that they come from several ranks, and when it loads, it passes over those that the flow to be loaded
    into does not have yet. Such a state is refused. What lies deeper in the dict than at its top level is not asked for
    a state: DCP pickles it, which this refuses.

    Raises:
        ValueError: the loaded state is of another pipeline, or of another rank.

    >>> import flowfn as ff
    >>> def ranks(world):
    ...     return [ff.pipe(range(12), ff.shard(rank, world), ff.batch(2)) for rank in range(world)]
    >>> two, four = ranks(2), ranks(4)
    >>> [next(iter(flow)).tolist() for flow in two]
    [[0, 2], [1, 3]]
    >>> state = as_stateful(two[1]).state_dict()
    >>> for flow in four:
    ...     as_stateful(flow).load_state_dict(state)
    >>> [[batch.tolist() for batch in flow] for flow in four]
    [[[4, 8]], [[5, 9]], [[6, 10]], [[7, 11]]]
    """
    return StatefulFlow(as_flow(flow, "as_stateful"))


class StatefulFlow:
    """A flow whose state is one text under one key, the same key in all ranks where the state stands for all."""

    def __init__(self, flow: Flow[Any]) -> None:
        self.flow = flow

    def state_dict(self) -> dict[str, str]:
        """Where the newest pass stands, or where the next one begins."""
        return {self._key: json.dumps(self.flow.state_dict())}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Let the next pass go on from there."""
        if self._key not in state:
            raise ValueError(f"load_state_dict(): there must be a {self._key!r}, got {', '.join(map(repr, state))}")
        self.flow.load_state_dict(json.loads(state[self._key]))

    @property
    def _key(self) -> str:
        node = self.flow.node
        shared = counting_of(self.flow).shared or not any(one.part.traits.shards for one in top_down(node))
        return "state" if shared else f"state of rank {node.rank} of {node.world}"

    def __repr__(self) -> str:
        return f"as_stateful({self.flow!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled; torch.distributed.checkpoint asks for a state only what is at the top level "
            'of the dict: dcp.save({"model": ..., "data": as_stateful(flow)})'
        )
