"""What a checkpoint holds, and the fingerprint that tells whether it fits.

A state is plain JSON: seed, epoch, position, fingerprint, and at most one anchor for each node that is not seekable.
It does not depend on how many workers made the datapoints, and where `shard` is the last order, not on how many ranks.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Set
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from flowfn.randomness import ORDER_VERSION
from flowfn.runs import Anchor, Place, Run

if TYPE_CHECKING:
    from flowfn.flows import Flow
    from flowfn.kinds import Node

READABLE = 240


def fingerprint(flow: Flow[Any]) -> str:
    """What fixes order and count, readable at its front and exact in its digest.

    Stages with their arguments, the lengths of the sources and the version of the library's orders; not ranks,
    workers, prefetching, or the bodies of functions.
    """
    text = _tree(flow)
    digest = blake2b(f"{ORDER_VERSION}:{text}".encode(), digest_size=8).hexdigest()
    return f"{text if len(text) <= READABLE else text[: READABLE - 3] + '...'} #{digest}"


def pack(flow: Flow[Any], seed: int, epoch: int, place: Place) -> dict[str, Any]:
    """The state of a pass over `flow` that stands at `place`."""
    if flow.node.loose:
        raise TypeError(f"{flow!r} gives outputs as they come (ordered=False), so a pass over it has no state to go on from")
    state: dict[str, Any] = {"seed": seed, "epoch": epoch, "position": place.position, "fingerprint": fingerprint(flow)}
    if place.anchors:
        state["anchors"] = {str(key): [list(a.epoch), a.outputs, [*map(_plain, a.inputs)]] for key, a in place.anchors.items()}
    node = flow.node
    mixed = mixture(flow, seed, epoch, place)
    if mixed is not None:
        steps, begun = mixed
        state["mix"] = {"steps": steps, "sources": {str(name): list(one) for name, one in begun.items()}}
    if any(part.shards for part in _parts(flow)):
        state |= {"rank": node.rank, "world": node.world}
        each = elastic(flow)
        if each is not None:  # datapoints that all ranks together have had; rank r of any world goes on from there
            state |= {"base": place.base, "count": place.base + place.position * each * node.world}
    return state


def unpack(flow: Flow[Any], state: Mapping[str, Any], strict: bool = True) -> tuple[int, int, Place]:
    """(seed, epoch, place) of a state, or an error that says why it does not fit `flow`."""
    if not isinstance(state, Mapping):
        raise TypeError(f"load_state_dict(): a state is a dict, got {type(state).__name__}; json.loads(text) makes one of its text")
    missing = {"seed", "epoch", "position", "fingerprint"} - set(state)
    if missing:
        raise ValueError(f"load_state_dict(): not a state of a flow: it lacks {', '.join(sorted(missing))}")
    ours = fingerprint(flow)
    if strict and state["fingerprint"] != ours:
        raise ValueError(
            "load_state_dict(): the state was saved by another pipeline.\n"
            f"  saved: {state['fingerprint']}\n  this:  {ours}\n"
            "Rebuild the pipeline as it was, or pass strict=False to go on at the saved position all the same."
        )
    told = state.get("anchors", {}) if state["fingerprint"] == ours else {}  # another tree has other places
    anchors = {int(k): Anchor(tuple(e), o, tuple(i)) for k, (e, o, i) in told.items()}
    position, base, node = state["position"], state.get("base", 0), flow.node
    if state.get("world", node.world) != node.world and "count" in state:
        position, base = 0, state["count"]
        anchors = {k: anchor for k, anchor in anchors.items() if 0 <= k < _shard_place(node)}  # nor what one rank has counted
    elif "count" not in state and (state.get("rank", 0), state.get("world", 1)) != (node.rank, node.world):
        raise ValueError(
            f"load_state_dict(): the state is of rank {state.get('rank', 0)} of {state.get('world', 1)}, this flow is "
            f"rank {node.rank} of {node.world}, and its state cannot be moved between worlds; it could if only map-like "
            "stages, batch and prefetch came after shard: put shard after shuffle, filter and repeat"
        )
    if "mix" in state and state["fingerprint"] != ours:
        found = _mix(node)
        if found is not None:
            position, anchors = 0, {found[0].place: found[0].anchor(state["epoch"], **state["mix"])}
    return state["seed"], state["epoch"], Place(position, base, anchors)


def _plain(number: Any) -> Any:
    """A number as JSON knows it."""
    return number.item() if isinstance(number, np.generic) else number


def mixture(flow: Flow[Any], seed: int, epoch: int, place: Place) -> tuple[int, dict[Any, Any]] | None:
    """(steps, how far each source has come, by name) of the mix in a flow, if there is one and its steps can be told."""
    found = _mix(flow.node)
    if found is None:
        return None
    mix, size = found
    told = mix.progress(Run(seed, (epoch,), anchors=place.anchors), place.position * size, size)
    return None if told is None else (told[0], dict(zip(mix.names, told[1])))


def _mix(node: Node) -> tuple[Any, int] | None:
    """The mix upstream of a node and how many of its outputs an output of the node takes, if no other order is between."""
    size = 1
    while not hasattr(node, "progress"):
        if len(node.sources) != 1 or not node.elastic or node.part.sizes[0] != node.part.sizes[1]:
            return None
        size *= node.part.sizes[0]
        (node,) = node.sources
    return node, size


def elastic(flow: Flow[Any]) -> int | None:
    """How many datapoints below its one `shard` an output of `flow` takes, or None if its state has a rank."""
    count = 1
    while not flow.part.shards:
        if len(flow.sources) != 1 or not flow.part.kind.elastic:
            return None
        size, step = flow.part.sizes
        if size != step:
            return None
        count *= size
        (flow,) = flow.sources
    return None if any(part.shards for part in _parts(flow.sources[0])) else count


def _shard_place(node: Node) -> int:
    """The place of the last shard; what is upstream has lower ones."""
    while not node.part.shards:
        (node,) = node.sources
    return node.place


def _parts(flow: Flow[Any]) -> list[Any]:
    return [flow.part, *(part for source in flow.sources for part in _parts(source))]


def _tree(flow: Flow[Any]) -> str:
    part = flow.part
    sources = [_tree(source) for source in flow.sources]
    if not sources:
        length = flow.node.length_or_none()
        start = f" from {part.arguments['start']}" if "start" in part.arguments else ""
        return f"source[{'endless' if length == math.inf else '' if length is None else length}{start}]"
    if part.transparent:
        return sources[0]
    arguments = (f"{name}={_token(value, part.kind.orders)}" for name, value in part.arguments.items() if name not in (part.shards or ()))
    call = f"{part.name}({', '.join(arguments)})"
    return f"{sources[0]} > {call}" if len(sources) == 1 else f"[{' + '.join(sources)}] > {call}"


def _token(value: Any, content: bool) -> str:
    """A value as it counts in a fingerprint; `content` says whether arrays count by what they hold."""
    if isinstance(value, functools.partial):
        arguments = [_token(a, content) for a in value.args] + [f"{k}={_token(a, content)}" for k, a in value.keywords.items()]
        return f"partial({', '.join([_token(value.func, content), *arguments])})"
    if isinstance(value, np.ndarray):
        held = ":" + blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).hexdigest() if content else ""
        return f"array({value.dtype}{list(value.shape)}{held})"
    if isinstance(value, np.generic):
        return repr(value.item())
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, range, slice)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_token(k, content)}: {_token(v, content)}" for k, v in value.items()) + "}"
    if isinstance(value, Set):
        return "{" + ", ".join(sorted(_token(v, content) for v in value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_token(v, content) for v in value) + "]"
    if hasattr(value, "sources") and hasattr(value, "part"):
        return _tree(value)
    if hasattr(value, "definition") and hasattr(value, "arguments"):
        inner = ", ".join(f"{k}={_token(v, content)}" for k, v in value.arguments.items())
        return f"{value.name}({inner})"
    if hasattr(value, "stages") and not isinstance(value, type):
        return f"compose({', '.join(_token(one, content) for one in value.stages)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{field.name}={_token(getattr(value, field.name), content)}" for field in dataclasses.fields(value))
        return f"{type(value).__qualname__}({inner})"
    if hasattr(value, "__qualname__"):
        return f"{getattr(value, '__module__', None) or 'builtins'}.{value.__qualname__}"
    return f"{type(value).__module__}.{type(value).__qualname__}"
