"""What a pass over a mix has come to, and what a state says of it, so that a mix of other sources can go on from there.

Between a mix and the end of a flow there may be stages that make each output of so many inputs. What they have not
given yet, they read again. There may also be stages that see the whole stream and hold some of it, like `pack`: those
begin again at their anchor, and for all that they had read since then, the mix has to pick the same sources again,
whatever it weighs them by now. So their anchors say how much they had `read` (`Node.followed`), and a mix over streams
remembers its newest picks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowfn.flows.mix_rows import MixProgress, SourceProgress, json_number
from flowfn.flows.picks import picks_text
from flowfn.kinds.nodes import Node, ending
from flowfn.kinds.runs import Anchor, Run
from flowfn.kinds.streams import Stream


def path_to_mix(root: Node) -> list[Node]:
    """The stages from the last of a tree up to a mix, and that; none where no mix is, or another order between but one
    `shard` that comes last."""
    path = [*_down_to_mix(root)]
    return path if hasattr(path[-1], "reached") else []


def in_the_way(root: Node) -> Node:
    """The last of a tree behind which nothing can be said of a mix."""
    *_, last = _down_to_mix(root)
    return last


def _down_to_mix(root: Node) -> Iterator[Node]:
    yield root
    while not hasattr(root, "reached") and len(root.sources) == 1:
        if not (isinstance(root, Stream) or _divides(root) or root.foot):
            return
        (root,) = root.sources
        yield root


def _divides(node: Node) -> bool:
    """Whether outputs of a node are made of so many inputs each."""
    return node.elastic and node.part.traits.size == node.part.traits.step


def follow(root: Node) -> Node:
    """A tree in which stages between it and a mix say how much they have read, if they may hold any of it."""
    path = path_to_mix(root)
    streams = [node for node in path if isinstance(node, Stream)]
    for node in [*streams, *path[-1:]] if streams else ():
        node.followed = True
    return root


def progress_of(root: Node, run: Run, position: int) -> MixProgress | None:
    """How far the mix in a tree has come, where `position` outputs were given, if there is one and that can be told."""
    path = path_to_mix(root)
    if not path:
        return None
    mix: Any = path[-1]
    if not mix.followed:
        size = inputs_of_each(path[:-1])
        made: MixProgress | None = mix.progress(run, run.base + position * size, size)
        return made
    number = _lowest(path)
    size, anchor = inputs_of_each(path[number + 1 : -1]), run.anchors.get(path[number].place)
    if anchor is None and not (run.base or position):
        anchor = Anchor(run.epoch, 0, (0,), 0)
    if anchor is None or anchor.read is None:
        return None
    reached: MixProgress | None = mix.reached(run, anchor.inputs[0] * size, anchor.read * size, size)
    return reached


def _lowest(path: list[Node]) -> int:
    """Which stage on a path is the first behind the mix that may hold any of it."""
    return max(number for number, node in enumerate(path) if isinstance(node, Stream))


def quotas_of(root: Node, run: Run, position: int) -> Mapping[Any, tuple[float, float]] | None:
    """What each source of a mix should have given, and what it has, by name."""
    made = progress_of(root, run, position)
    if made is None:
        return None
    given = ((one.expected, one.datapoints if made.units is None else one.units) for one in made.sources)
    return dict(zip(path_to_mix(root)[-1].names, given))  # type: ignore[attr-defined]


def entry(root: Node, run: Run, position: int) -> dict[str, Any] | None:
    """What a state says of the mix in a tree: enough for one of other sources to go on from there."""
    made = progress_of(root, run, position)
    if made is None:
        return None
    path = path_to_mix(root)
    mix: Any = path[-1]
    told = {"steps": made.steps, "sources": _table(mix, made.sources)}
    told |= {} if made.units is None else {"units": made.units}
    if not mix.followed:
        return told
    if made.over:
        return told | {"over": True}
    if made.picks is None or made.held is None or not all(_begins_again(node) for node in path[:-1]):
        return None
    order = sorted(range(len(mix.names)), key=lambda place: str(mix.names[place]))
    picks = picks_text([order.index(pick) for pick in made.picks], len(order))
    return told | {"at": made.outputs, "held": _table(mix, made.held), "picks": picks, "place": mix.place}


def anchors_told(root: Node, run: Run, told: Mapping[str, Any] | None) -> Mapping[int, Anchor]:
    """The anchors of a run; that of a mix is where the pass began, if stages behind it begin before it,
    and left out if that says nothing. What a state tells of the mix anyway stands in it once."""
    path = path_to_mix(root)
    if not path or not path[-1].followed or path[-1].place not in run.anchors:
        return run.anchors
    mix: Any = path[-1]
    number = _lowest(path)
    lowest, known = run.anchors.get(path[number].place), run.anchors[mix.place]
    start = lowest.inputs[0] * inputs_of_each(path[number + 1 : -1]) if lowest is not None else 0
    if known.outputs > start:
        known = mix.beginning(run)
    known = mix.told(run, known, start)
    if told is not None and "picks" in told and any(known.inputs):
        known = known._replace(inputs=mix.form.shortened(known.inputs, mix.held(told)))
    others = {place: anchor for place, anchor in run.anchors.items() if place != mix.place}
    return others | ({mix.place: known} if known.outputs or any(known.inputs) else {})


def _table(mix: Any, sources: Iterable[SourceProgress]) -> dict[str, list[Any]]:
    return {str(name): [*map(json_number, one[: mix.form.fields])] for name, one in zip(mix.names, sources)}


def _begins_again(node: Node) -> bool:
    """Whether a stage can be started in the middle of a stream."""
    return not isinstance(node, Stream) or "mark" in node.part.asks


def with_reads(
    root: Node, anchors: dict[int, Anchor], epoch: int, told: Mapping[str, Any], same: bool = True
) -> dict[int, Anchor]:
    """Anchors from a state, with how much had been read by then."""
    path = path_to_mix(root)
    if "picks" not in told or not path or not path[-1].followed:
        return anchors
    mix: Any = path[-1]
    if same and {*told["sources"]} != {*map(str, mix.names)}:
        return anchors
    number = _lowest(path)
    read = -(-told["at"] // inputs_of_each(path[number + 1 : -1]))
    reads = {path[number].place: read, mix.place: mix.recent(told, same)}
    if mix.place in anchors:
        inputs = mix.form.written_out(anchors[mix.place].inputs, mix.held(told))
        anchors = anchors | {mix.place: anchors[mix.place]._replace(inputs=inputs)}
    beginning = {} if mix.seekable else {mix.place: Anchor((epoch,), 0, ())}
    return {place: anchor._replace(read=reads.get(place)) for place, anchor in (beginning | anchors).items()}


def going_on(root: Node, anchors: Mapping[int, Anchor], epoch: int, told: Mapping[str, Any]) -> dict[int, Anchor]:
    """Anchors of a tree whose mix goes on from another's state: those of the stages behind the mix, and its own."""
    mix: Any = path_to_mix(root)[-1]
    moved = {_moved(key, mix.place - told["place"]): anchor for key, anchor in anchors.items()}
    behind = {key: anchor for key, anchor in moved.items() if (key if key >= 0 else ~key) > mix.place}
    return with_reads(root, {**behind, mix.place: mix.anchor(epoch, told)}, epoch, told, same=False)


def _moved(key: int, by: int) -> int:
    """The key of an anchor, or of a count, if places are others."""
    return key + by if key >= 0 else key - by


def mix_of(node: Node) -> Any:
    """The mix upstream of a node, if no other order and nothing that holds any of it is between."""
    *_, last = ending(node)
    return last if hasattr(last, "reached") else None


def inputs_of_each(stages: Iterable[Node]) -> int:
    """How many inputs of the first stages an output of the last one is made of, on all ranks if they are shared out."""
    return math.prod(stage.world if stage.part.traits.shards else stage.part.traits.size for stage in stages)
