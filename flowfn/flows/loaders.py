"""torch's DataLoader: where it is given a flow as it is, and where a flow reads from one, or from a sampler.

It reads a flow by index, and tells nobody when an epoch begins; that it is who reads is told by the frame that called.
What is drawn at random by one that is read, order and seeds of workers, is drawn when it begins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import copy
from itertools import chain, islice
from types import FrameType
from typing import Any

from flowfn.kinds.nodes import Node

_DATA, _FETCH = "torch.utils.data", "torch.utils.data._utils.fetch"

_AS_DATASET = "write DataLoader(flowfn.interop.as_dataset(flow), batch_size=None)"


def in_a_loader(caller: FrameType | None) -> str:
    """What to write instead, if it is torch's loader or a sampler of it that asks."""
    return f"; {_AS_DATASET}" if caller is not None and _module(caller).startswith(_DATA) else ""


def refuse_loader(node: Node) -> None:
    """Raise if it is torch's loader that calls who calls this, and reads by index what is another in each epoch,
    or cannot be indexed.

    A `Subset` and the like may be in between.

    Raises:
        TypeError: it is.
    """
    caller = sys._getframe(2) if _FETCH in sys.modules else None
    while caller is not None and _module(caller).startswith(_DATA):
        if _module(caller) == _FETCH:
            if not node.seekable:
                raise TypeError(f"a DataLoader reads by index, and {node.unknown()}; {_AS_DATASET}")
            if node.drawn:
                raise TypeError(
                    "a DataLoader does not tell a flow which epoch it is, so it would read the same order and the same "
                    f"random numbers in every epoch; {_AS_DATASET}, or freeze() at the end of the flow if that is meant"
                )
            return
        caller = caller.f_back


def is_loader(source: Any) -> bool:
    """Whether an object is a DataLoader of torch, or a sampler of one."""
    kinds = type(source).__mro__
    return any(kind.__name__ in ("DataLoader", "Sampler") and kind.__module__.startswith(_DATA) for kind in kinds)


def loaded(loader: Any, seed: int, epoch: int) -> Iterator[Any]:
    """What a loader gives in an epoch: its samplers draw from this seed, or know the epoch, if they are told it."""
    torch = sys.modules["torch"]
    state = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(seed)
        iterator = iter(_of_a_pass(loader, torch, seed, epoch))
        first = list(islice(iterator, 1))  # not before that do samplers draw
    finally:
        torch.default_generator.set_state(state)
    return chain(first, iterator)


def _of_a_pass(reader: Any, torch: Any, seed: int, epoch: int) -> Any:
    """A loader or a sampler, and the samplers within, with generators that no other pass draws from."""
    own = copy(reader)
    if getattr(reader, "persistent_workers", False):
        vars(own)["persistent_workers"] = False  # those that stay go on with what they drew for the first pass
    for name in ("batch_sampler", "sampler"):
        if (within := getattr(reader, name, None)) is not None:
            vars(own)[name] = _of_a_pass(within, torch, seed, epoch)
    if getattr(reader, "generator", None) is not None:
        vars(own)["generator"] = torch.Generator(reader.generator.device).manual_seed(seed)
    if callable(tell := getattr(own, "set_epoch", None)):
        tell(epoch)
    return own


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
