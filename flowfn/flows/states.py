"""What a checkpoint holds, and the fingerprint that tells whether it fits.

A state is plain JSON: seed, epoch, position, fingerprint, and at most one anchor for each node that is not seekable.
It does not depend on how many workers made the datapoints, and where `shard` is the last order, not on how many ranks.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence, Set
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import numpy as np

from flowfn.flows.mix_rows import json_number
from flowfn.flows.mixtures import anchors_told, entry, going_on, inputs_of_each, mix_of, path_to_mix, with_reads
from flowfn.flows.schema import check_anchors, checked_state, refuse_key, sealed
from flowfn.flows.skipping import asked, gaps_of, skips_of, skips_saved
from flowfn.kinds.nodes import Node, ending
from flowfn.kinds.parts import Part, top_down
from flowfn.kinds.runs import NO_GAPS, Anchor, Checkpoint, Gaps, Run, SkipList
from flowfn.pickling.scripts import home
from flowfn.randomness.generators import ORDER_VERSION
from flowfn.showing import as_called

READABLE = 240


class FlowTree(Protocol):
    """A flow, as far as states go: its stage or source, the flows before it, and the node that reads it."""

    @property
    def part(self) -> Part: ...

    @property
    def sources(self) -> Sequence[FlowTree]: ...

    @property
    def node(self) -> Node: ...


def fingerprint(flow: FlowTree) -> str:
    """What fixes order and count, readable at its front and exact in its digest.

    Stages with their arguments, the lengths of the sources and the version of the library's orders; not ranks,
    workers, prefetching, or the bodies of functions.
    """
    text = _tree_words(flow)
    return f"{text if len(text) <= READABLE else text[: READABLE - 3] + '...'} #{_tree_digest(text, 8)}"


class Counting(NamedTuple):
    """What a state counts: datapoints of which node, `each` of them in an output,
    of all `ranks` together if it is shared out.

    `order` is two digests: of what fixes which datapoints these are, and of the whole tree that gives them.
    """

    node: Node
    each: int
    shared: bool
    order: str

    def ranks(self, world: int) -> int:
        """How many ranks of a world go on from one count."""
        return world if self.shared else 1


def pack_state(flow: FlowTree, seed: int, epoch: int, checkpoint: Checkpoint) -> dict[str, Any]:
    """The state of a pass over `flow` that stands at `checkpoint`."""
    if flow.node.loose:
        raise TypeError(
            f"{flow!r} gives outputs as they come (ordered=False), so a pass over it has no state to go on from"
        )
    counting = counting_of(flow)
    state: dict[str, Any] = {"fingerprint": fingerprint(flow), "order": counting.order, "seed": seed, "epoch": epoch}
    state |= {
        "position": checkpoint.position,
        "count": checkpoint.base + checkpoint.position * counting.each * counting.ranks(flow.node.world),
    }
    if checkpoint.base:
        state["base"] = checkpoint.base
    if any(node.part.traits.shards for node in top_down(flow.node)):
        state |= {"rank": flow.node.rank, "world": flow.node.world}
    run = Run(seed, (epoch,), base=checkpoint.base, anchors=checkpoint.anchors)
    mixed = entry(flow.node, run, checkpoint.position)
    if anchors := anchors_told(flow.node, run, mixed):
        state["anchors"] = {key: [a.epoch, a.outputs, [*map(json_number, a.inputs)]] for key, a in anchors.items()}
    if checkpoint.skip:
        state["skip"] = skips_saved(checkpoint.skip)
    if mixed is not None:
        state["mix"] = mixed | ({"behind": behind_mix(flow)} if "picks" in mixed else {})
    return sealed(state)


def unpack_state(
    flow: FlowTree, state: Mapping[str, Any], strict: bool = True, skip: Any = None
) -> tuple[int, int, Checkpoint]:
    """(seed, epoch, checkpoint) of a state, or an error that says why it does not fit `flow`.

    `skip` is what is to be left out besides, outputs in the numbers of whoever saved the state.
    """
    contents = checked_state(state)
    same = contents["fingerprint"] == fingerprint(flow)
    if strict and not same:
        raise ValueError(
            f"{_of_another(flow, contents)}\nRebuild the pipeline as it was; strict=False goes on where the next "
            "datapoint is all the same, "
            "if only map-like stages, batch and prefetch at its end are others, or the sources of a mix."
        )
    checkpoint = _checkpoint_of(flow, contents, same)
    check_anchors(flow.node, contents["seed"], contents["epoch"], checkpoint)
    return contents["seed"], contents["epoch"], checkpoint._replace(skip=_skip_list(flow, contents, checkpoint, skip))


def _skip_list(flow: FlowTree, contents: Mapping[str, Any], checkpoint: Checkpoint, skip: Any) -> SkipList:
    """What a state leaves out, and what is to be left out besides."""
    saved = skips_of(contents.get("skip", {}))
    anew = contents["count"] > 0 and not checkpoint.position and not checkpoint.base  # another mix, which counts anew
    if anew:
        saved = saved._replace(counted=SkipList().counted)
    if skip is None:
        return saved
    base, begun = contents.get("base", 0), contents["count"] > 0
    size = _step_size(counting_of(flow), contents.get("world", 1))
    if contents["position"]:
        size = (contents["count"] - base) // contents["position"]
    more = asked(flow.node, skip, "load_state_dict", base, size, begun)
    if anew and more.counted:
        raise ValueError(
            "load_state_dict(): the state is of a mix of other sources, so skip cannot hold numbers of its outputs; "
            "name records, as origins() of the flow that saved it does"
        )
    return saved | more


def _step_size(counting: Counting, world: int) -> int:
    """How many datapoints are counted for an output."""
    return counting.each * counting.ranks(world)


def skip_list(flow: FlowTree, skip: Any, caller: str) -> SkipList:
    """What a user wants to be left out of a pass from its beginning on."""
    return asked(flow.node, skip, caller, 0, _step_size(counting_of(flow), flow.node.world))


def gaps(flow: FlowTree, checkpoint: Checkpoint) -> Gaps:
    """Where in a flow the gaps of a pass are."""
    if not checkpoint.skip:
        return NO_GAPS
    counting = counting_of(flow)
    ranks = counting.ranks(flow.node.world)
    return gaps_of(flow.node, checkpoint.skip, checkpoint.base, counting.node, counting.each, ranks)


def _checkpoint_of(flow: FlowTree, contents: Mapping[str, Any], same: bool) -> Checkpoint:
    """Where a pass over a flow goes on from a state; `same`: it was saved by the same pipeline."""
    node, counting = flow.node, counting_of(flow)
    facts = {
        int(key): Anchor(tuple(epoch), outputs, tuple(inputs))
        for key, (epoch, outputs, inputs) in contents.get("anchors", {}).items()
    }
    whole = same or contents["order"] == counting.order  # the whole tree that gives what is counted is the same
    mixed = contents.get("mix", {})
    if not whole and "over" in mixed:
        raise ValueError(
            "load_state_dict(): the mix had ended when the state was saved, and stages behind it were giving the last "
            "of what they held. Let the pipeline that saved it finish this pass, and begin the next one with this one: "
            "set_epoch(epoch + 1)"
        )
    mix = None if whole or not mixed or "picks" in mixed else mix_of(counting.node)
    behind = not whole and "picks" in mixed and mixed["behind"] == behind_mix(flow)
    if mix is not None or behind:
        _check_last_rank(contents)
    if mix is not None:
        return Checkpoint(0, 0, {mix.place: mix.anchor(contents["epoch"], mixed)})
    if behind:
        whole, facts = True, going_on(node, facts, contents["epoch"], mixed)
    elif whole:
        facts = with_reads(node, facts, contents["epoch"], mixed)
    orders = {order.partition(".")[0] for order in (contents["order"], counting.order)}
    if not whole and (len(orders) > 1 or any(hasattr(one, "progress") for one in top_down(counting.node))):
        raise ValueError(
            f"{_of_another(flow, contents)}\nIt cannot be told which datapoints are left for this one: "
            "strict=False goes on only where map-like stages, batch and prefetch at its end are others, "
            "or the sources of a mix."
        )
    _check_rank(flow, contents, counting)
    if same:
        _check_position(flow, contents, counting, facts)
    if same and (not counting.shared or contents.get("world", 1) == node.world):
        return Checkpoint(contents["position"], contents.get("base", 0), facts)
    there = {one.place for one in top_down(counting.node)} if whole else set()
    kept = {key: fact for key, fact in facts.items() if (key if key >= 0 or counting.shared else ~key) in there}
    position, within = divmod(contents["count"], counting.each * counting.ranks(node.world))
    return Checkpoint(0, contents["count"], kept) if within else Checkpoint(position, 0, kept)


def _check_last_rank(contents: Mapping[str, Any]) -> None:
    """Make sure that all ranks go on from where the last one had read a mix, if that has become another."""
    rank, world = contents.get("rank", 0), contents.get("world", 1)
    if rank != world - 1:
        raise ValueError(
            f"load_state_dict(): the state is of rank {rank} of {world}, and the mix has other sources or weights now; "
            f"load the state of rank {world - 1} on every rank: it has read furthest, and all have to change the mix "
            "at the same place"
        )


def _check_rank(flow: FlowTree, contents: Mapping[str, Any], counting: Counting) -> None:
    """Make sure that what a state counts is not the share of another rank."""
    saved, node = (contents.get("rank", 0), contents.get("world", 1)), flow.node
    if saved != (node.rank, node.world) and any(one.part.traits.shards for one in top_down(counting.node)):
        raise ValueError(
            f"load_state_dict(): the state is of rank {saved[0]} of {saved[1]}, this flow is "
            f"rank {node.rank} of {node.world}, and its state cannot be moved between worlds; it could if only "
            "map-like "
            "stages, batch and prefetch came after shard: put shard after shuffle, filter and repeat"
        )


def _check_position(
    flow: FlowTree, contents: Mapping[str, Any], counting: Counting, facts: Mapping[int, Anchor]
) -> None:
    """Make sure that a state of the same pipeline stands where a pass over it can stand."""
    position, base, each = (
        contents["position"],
        contents.get("base", 0),
        counting.each * counting.ranks(contents.get("world", 1)),
    )
    if base and not any(node.foot for node in ending(flow.node)):
        refuse_key("base", "0 in this pipeline, which has no batches and no ranks", base)
    if contents["count"] != base + position * each:
        refuse_key(
            "count",
            f"{base + position * each}, for position {position} of {each} datapoints each from {base} on",
            contents["count"],
        )
    run = Run(contents["seed"], (contents["epoch"],), base=base, anchors=facts)
    length = counting.node.length(run) if counting.shared else flow.node.length(run)
    if length is not None and (
        contents["count"] - each >= length and position > 0 if counting.shared else position > length
    ):
        refuse_key("position", f"at most the length of the pass, {length}", position)


def behind_mix(flow: FlowTree) -> str:
    """A digest of the stages between what a state counts and a mix upstream; empty if there is none."""
    parts, path = [], path_to_mix(counting_of(flow).node)
    for node in path[:-1]:
        parts += [_call(node.part)] if not node.part.traits.transparent else []
    return _tree_digest(f"behind a mix: {parts}", 6) if path else ""


def _of_another(flow: FlowTree, contents: Mapping[str, Any]) -> str:
    return (
        "load_state_dict(): the state was saved by another pipeline, as its fingerprint says.\n"
        f"  saved: {contents['fingerprint']}\n  this:  {fingerprint(flow)}"
    )


def counting_of(flow: FlowTree) -> Counting:
    """What the state of a flow counts: the outputs of what is before the map-like stages,
    batch and prefetch at its end.

    If that is the one `shard`, the datapoints that it shares out.
    """
    *stages, node = ending(flow.node)
    each = inputs_of_each(stages)
    for _ in stages:
        (flow,) = flow.sources
    shared = node.foot
    if shared:
        (flow,), (node,) = flow.sources, node.sources
    order = "source" if not flow.sources else _order(flow)
    return Counting(node, each, shared, f"{_tree_digest(order, 6)}.{_tree_digest(_tree_words(flow), 4)}")


def _order(flow: FlowTree) -> str:
    """What fixes which datapoints come, and in which order: below stages that only move them, map-like ones do not."""
    while len(flow.sources) == 1 and flow.part.kind.elastic and flow.part.traits.size == flow.part.traits.step == 1:
        (flow,) = flow.sources
    if not flow.sources or not flow.part.kind.orders or not flow.node.seekable:
        return _tree_words(flow)
    return f"{_call(flow.part)} of [{', '.join(map(_order, flow.sources))}]"


def _tree_digest(text: str, size: int) -> str:
    return blake2b(f"{ORDER_VERSION}:{text}".encode(), digest_size=size).hexdigest()


def _tree_words(flow: FlowTree) -> str:
    part = flow.part
    sources = [_tree_words(source) for source in flow.sources]
    if not sources:
        length = flow.node.length_or_none()
        start = f" from {part.arguments['start']}" if "start" in part.arguments else ""
        return f"source[{'endless' if length == math.inf else '' if length is None else length}{start}]"
    if part.traits.transparent:
        return sources[0]
    before = sources[0] if len(sources) == 1 else f"[{' + '.join(sources)}]"
    return f"{before} > {_call(part)}"


def _call(part: Part) -> str:
    """A stage with the arguments that count in a fingerprint."""
    unsaid = part.traits.shards + part.traits.left_out
    counting = {name: value for name, value in part.arguments.items() if name not in unsaid}
    return as_called(part.name, **_tokens(counting, part.kind.orders))


def _tokens(values: Mapping[str, Any], content: bool) -> dict[str, str]:
    return {name: _token(value, content) for name, value in values.items()}


def _token(value: Any, content: bool) -> str:
    """A value as it counts in a fingerprint; `content` says whether arrays count by what they hold."""
    if isinstance(value, functools.partial):
        given = [_token(one, content) for one in (value.func, *value.args)]
        return as_called("partial", *given, **_tokens(value.keywords, content))
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
        return _tree_words(value)
    if hasattr(value, "definition") and hasattr(value, "arguments"):
        return as_called(value.name, **_tokens(value.arguments, content))
    if hasattr(value, "stages") and not isinstance(value, type):
        return as_called("compose", *(_token(one, content) for one in value.stages))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return as_called(type(value).__qualname__, **_tokens(fields, content))
    if hasattr(value, "__qualname__"):
        return f"{home(value)}.{value.__qualname__}"
    return f"{home(type(value))}.{type(value).__qualname__}"
