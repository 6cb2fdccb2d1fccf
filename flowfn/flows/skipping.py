"""What is to be left out of a pass: as users say it, as states hold it, and where it lies in a tree.

Outputs are left out by the datapoints of which they are made, in the numbers in which states count: so the same are
left out whoever goes on, on however many ranks. Records are left out by their source and their index in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.naming import source_names
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import Each, Node, ending
from flowfn.kinds.orders import Order
from flowfn.kinds.parts import top_down
from flowfn.kinds.ranges import Ranges
from flowfn.kinds.runs import Gaps, Length, SkipList
from flowfn.kinds.streams import Expand
from flowfn.showing import brief


def asked(root: Node, skip: Any, caller: str, base: int, size: int, begun: bool = False) -> SkipList:
    """What a user wants to be left out of a pass that counts outputs of `size` datapoints from `base` on.

    `begun`: the pass is under way. Where it has to be read in order, records are then left out from the next one on:
    what was given of this one depends on them.
    """
    outputs: list[tuple[int, int]] = []
    records: dict[str, list[tuple[int, int]]] = {}
    known = _lengths(root)
    for one in _listed(skip, caller):
        found = _record(one)
        if found is None:
            outputs.append(_range(one, caller))
            continue
        name, index = found
        if name not in known:
            called = ", ".join(map(repr, sorted(known)))
            raise ValueError(f"{caller}(): skip names source {name!r}, but those of the flow are called {called}")
        if index >= known[name]:
            raise ValueError(f"{caller}(): skip names record {index} of source {name!r}, which has {known[name]}")
        records.setdefault(name, []).append((index, index + 1))
    counted = Ranges.of((base + start * size, base + stop * size) for start, stop in outputs)
    named = {name: Ranges.of(pairs) for name, pairs in records.items()}
    late = begun and not root.seekable
    if late and named and never_ends(root):
        raise ValueError(
            f"{caller}(): records of source {next(iter(named))!r} cannot be left out, because that is done from the "
            "next pass on where this one has begun and has to be read in order, and it never ends; leave out the "
            "outputs that they are in, by their numbers"
        )
    _check_gaps(root, bool(outputs), named, caller)
    return SkipList(counted, {} if late else named, named if late else {})


def inherited(root: Node, sources: Iterable[tuple[Node, SkipList]], caller: str) -> SkipList:
    """The records that a tree leaves out because the flows that it is made of do, by their names in it."""
    names = {id(leaf.part): str(name) for leaf, name in _named(root)}
    records: dict[str, Ranges] = {}
    for source, skip in sources:
        for leaf, name in _named(source):
            if str(name) in skip.records and id(leaf.part) in names:
                here = names[id(leaf.part)]
                records[here] = records.get(here, Ranges()) | skip.records[str(name)]
    _check_gaps(root, False, records, caller)
    return SkipList(records=records)


def _named(root: Node) -> Iterable[tuple[Node, Any]]:
    """The sources of a tree, each with its name."""
    names = source_names(root)
    return ((leaf, names[leaf.place]) for leaf in top_down(root) if leaf.place in names)


def _lengths(root: Node) -> dict[str, float]:
    """How many records each source has, at most."""
    lengths = ((str(name), leaf.length_or_none()) for leaf, name in _named(root))
    return {name: math.inf if length is None else length for name, length in lengths}


GOES_ON = frozenset({"shard", "skip", "pack", "batch_by_cost", "batch_by_length", "batch_by_key", "rebatch"})
"""Orders and streams that give outputs as long as their source does, whatever it gives."""


def never_ends(node: Node) -> bool:
    """Whether it is certain that a pass has no end."""
    while (length := node.length_or_none()) is None and len(node.sources) == 1:
        if not (isinstance(node, (Each, Group, Expand)) or node.part.name in GOES_ON):
            return False
        (node,) = node.sources
    return length == math.inf


def _listed(skip: Any, caller: str) -> Iterable[Any]:
    if rules.is_integer(skip) or isinstance(skip, range) or hasattr(skip, "source"):
        return [skip]
    if not isinstance(skip, Iterable) or isinstance(skip, (str, bytes, Mapping)):
        raise TypeError(f"{caller}(): skip must be {_WANTED}, got {brief(skip)}")
    return skip


_WANTED = "numbers of outputs, ranges of them, what origins() returns, or pairs (source, index), in a list"


def _record(one: Any) -> tuple[str, int] | None:
    """(source, index) if a record is meant."""
    if hasattr(one, "source") and hasattr(one, "index") and rules.is_integer(getattr(one, "index", None)):
        return str(one.source), int(one.index)
    pair = isinstance(one, (tuple, list)) and len(one) == 2 and isinstance(one[0], (str, int))
    return (str(one[0]), int(one[1])) if pair and rules.is_integer(one[1]) and one[1] >= 0 else None


def _range(one: Any, caller: str) -> tuple[int, int]:
    """(start, stop) of some outputs in a row."""
    if isinstance(one, range) and one.step == 1 and one.start >= 0:
        return one.start, one.stop
    if rules.is_integer(one) and one >= 0:
        return int(one), int(one) + 1
    kind = ValueError if rules.is_integer(one) or isinstance(one, range) else TypeError
    raise kind(f"{caller}(): skip must hold {_WANTED}, none below 0, got {brief(one)}")


def _check_gaps(root: Node, counted: bool, records: Mapping[str, Ranges], caller: str) -> None:
    """Make sure that a pass can go round what is to be left out."""
    if root.loose and counted:
        raise TypeError(f"{caller}(): outputs come in any order (ordered=False), so none can be left out by its number")
    names = source_names(root)
    for node in top_down(root) if records else ():
        within = [str(names[leaf.place]) for leaf in top_down(node) if leaf.place in names]
        here = [name for name in within if name in records]
        why = _in_the_way(node) if here else ""
        if why:
            raise ValueError(
                f"{caller}(): records of source {here[0]!r} cannot be left out, because {why}; leave out the outputs "
                "that they are in, by their numbers"
            )


def _in_the_way(node: Node) -> str:
    """Why nothing can be left out upstream of a node, if it cannot."""
    if node.root and not node.aligned and (not node.seekable or any(isinstance(one, Group) for one in top_down(node))):
        return f"{node.part} remembers what they are in"
    if node.sources and node.seekable and not isinstance(node, (Each, Group, Order)):
        return f"{node.part} is made of all of them"
    if isinstance(node, Each) and len(node.sources) > 1 and not node.seekable:
        return f"{node.part} would put others beside each other"
    if not node.sources and not node.seekable and not node.countable:
        return f"{node.part} counts its datapoints itself"
    return ""


def gaps_of(root: Node, skip: SkipList, base: int, counted: Node, each: int, ranks: int) -> Gaps:
    """Where in a tree the gaps of a pass are. It counts outputs of a node, `each` of them in an output, and shared out
    to so many ranks."""
    names = source_names(root)
    records = {place: skip.records[str(name)] for place, name in names.items() if str(name) in skip.records}
    for leaf in top_down(root) if records else ():
        length = leaf.length_or_none() if leaf.place in records else None
        if length and length != math.inf and records[leaf.place].covers_all(int(length)):
            raise ValueError(
                f"skip leaves nothing of source {names[leaf.place]!r}, all {length} records of it are in the list; "
                "take the source out of the flow instead"
            )
    if not skip.counted:
        return Gaps(records)
    remainder = next((node.part.arguments.get("remainder") for node in ending(root) if node.foot and ranks > 1), "keep")
    length = _dealt_length(counted.length_or_none(), base, ranks, remainder)
    gone = _for_all_ranks(skip.counted, base, each, ranks, length)
    size, behind = each * ranks, [pair for pair in gone.pairs() if pair[1] > base]
    outputs = Ranges.of((max(start - base, 0) // size, -((base - stop) // size)) for start, stop in behind)
    return Gaps(records, counted.place, gone, outputs)


def _dealt_length(length: Length, base: int, ranks: int, remainder: str | None) -> Length:
    """Behind which datapoint nothing is dealt to ranks any more, where some are left over or given again."""
    if length is None or length == math.inf or remainder not in ("drop", "pad"):
        return length
    short = (int(length) - base) % ranks
    return int(length) - short + (ranks if short and remainder == "pad" else 0)


def _for_all_ranks(counted: Ranges, base: int, each: int, ranks: int, length: Length) -> Ranges:
    """Datapoints to be left out, and with them what is left of a step of which some rank would have nothing: so all
    ranks make as many steps as each other."""
    size, more = each * ranks, list[tuple[int, int]]()
    ends = {bound for start, stop in counted.pairs() for bound in (start, stop - 1) if bound >= base}
    for first in {base + (bound - base) // size * size for bound in ends} if ranks > 1 else ():
        every = np.arange(first, first + size)
        there = every < (first + size if length is None else length)
        left = there & ~counted.covers(every)
        of_rank, left_of_rank = (one.reshape(each, ranks).any(axis=0) for one in (there, left))
        if (of_rank & ~left_of_rank).any():
            more.append((first, first + size))
    return counted | Ranges.of(more)


# In states


def skips_saved(skip: SkipList) -> dict[str, Any]:
    """A skip list as a state holds it."""
    counted, records, later = skip
    named = {
        key: {name: [*ranges.bounds] for name, ranges in some.items()}
        for key, some in (("records", records), ("later", later))
        if some
    }
    return ({"counted": [*counted.bounds]} if counted else {}) | named


def skips_of(told: Mapping[str, Any]) -> SkipList:
    """A skip list from a state."""
    named = ({name: Ranges(tuple(one)) for name, one in told.get(key, {}).items()} for key in ("records", "later"))
    return SkipList(Ranges(tuple(told.get("counted", ()))), *named)
