"""What a state must be, wherever it has been: types and ranges of what it holds,
anchors that fit the pipeline, and its digest.

A state is plain JSON. Whoever has kept it (JSON, YAML, msgpack, torch, numpy) may give its numbers and lists back as
other types; what means the same is taken as the same, and anything else is refused before it is used.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from flowfn import rules
from flowfn.flows.mix_rows import COUNTED, MEASURED, are_begun, is_amount
from flowfn.flows.picks import picks_of
from flowfn.kinds.ranges import are_bounds
from flowfn.kinds.runs import Anchor, Checkpoint, EpochForm, Run, naturals
from flowfn.kinds.tallies import can_count
from flowfn.showing import brief

if TYPE_CHECKING:
    from flowfn.kinds.nodes import Node

VERSION = 1
_BEHIND = ("at", "place")
_MIXES: list[set[str]] = [{"steps", "sources"}, {"steps", "sources", "over"}]
_MIXES += [{"steps", "sources", "held", "picks", "behind", *_BEHIND}]
"""What a state says of a mix; of one that has ended before what is behind it; of one of which something is held."""
SHORT = 4
"""So many bytes of a digest are kept for each key, so that it can be told which of them is damaged."""

_STATE_TEXT = rules.Rule("text", lambda value: isinstance(value, str))
_NATURAL = rules.Rule(rules.natural.requirement, lambda value: naturals((value,), 1))
_TABLE = rules.Rule("a dict", lambda value: isinstance(value, Mapping))
_NEEDED = {
    "fingerprint": _STATE_TEXT,
    "order": _STATE_TEXT,
    "seed": rules.Rule(rules.integer.requirement, lambda value: type(value) is int),
    "epoch": _NATURAL,
    "position": _NATURAL,
    "count": _NATURAL,
}
_OTHERS = {
    "base": _NATURAL,
    "rank": _NATURAL,
    "world": rules.Rule(rules.positive.requirement, lambda value: naturals((value,), 1) and value > 0),
    "anchors": _TABLE,
    "mix": _TABLE,
    "skip": rules.Rule(
        "{'counted': bounds, 'records': bounds by source, 'later': likewise}, bounds of ranges in order, none below 0",
        lambda value: isinstance(value, Mapping) and _is_skip_list(value),
    ),
}


def _is_skip_list(value: Mapping[str, Any]) -> bool:
    tables = [value.get(key, {}) for key in ("records", "later")]
    if not set(value) <= {"counted", "records", "later"} or not all(isinstance(table, Mapping) for table in tables):
        return False
    rows = [value.get("counted", []), *(row for table in tables for row in table.values())]
    return all(isinstance(row, list) and are_bounds(row) for row in rows)


def plain(value: Any) -> Any:
    """A value as JSON knows it: whole numbers of any type as int, others as float, sequences as lists, keys as text.

    >>> import numpy as np
    >>> plain({2: (np.int64(3), 4.0, np.array(0.5), True)})
    {'2': [3, 4, 0.5, True]}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(value)
    if isinstance(value, str):
        return str(value)
    return value if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)


def sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with its version and the digest of what it holds."""
    contents = {"version": VERSION, **{str(key): plain(value) for key, value in state.items() if key != "digest"}}
    return {**contents, "digest": "".join(_digests(contents).values())}


def checked_state(state: Any) -> dict[str, Any]:
    """A state as it was saved, or an error that names what is wrong with it.

    Raises:
        TypeError: it is no dict.
        ValueError: it lacks something, holds something else than a state does, or is not as it was saved.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"load_state_dict(): a state is a dict, got {type(state).__name__}; json.loads(text) makes one of its text"
        )
    contents = {str(key): _plain(key, value) for key, value in state.items()}
    needed = {"version", *_NEEDED, "digest"}
    if not needed <= set(contents):
        raise ValueError(
            f"load_state_dict(): not a state of a flow: it lacks {', '.join(sorted(needed - set(contents)))}"
        )
    if contents["version"] != VERSION or isinstance(contents["version"], bool):
        raise ValueError(
            f"load_state_dict(): version must be {VERSION}, got {brief(contents['version'])}: another release saved "
            "the state"
        )
    unknown = set(contents) - needed - set(_OTHERS)
    if unknown:
        raise ValueError(f"load_state_dict(): a state does not hold {', '.join(sorted(map(brief, unknown)))}")
    for key, rule in (_NEEDED | _OTHERS).items():
        if key in contents and not rule.fits_type(contents[key]):
            refuse_key(key, rule.requirement, contents[key])
    if ("rank" in contents) != ("world" in contents) or contents.get("rank", 0) >= contents.get("world", 1):
        refuse_key(
            "rank",
            f"an integer from 0 to world - 1 ({contents.get('world', 'which is missing')})",
            contents.get("rank", "none"),
        )
    for key, value in contents.get("anchors", {}).items():
        _check_anchor(key, value)
    if "mix" in contents:
        _check_mix(contents["mix"])
    damaged = damages(contents)
    if damaged:
        raise ValueError(
            f"load_state_dict(): the state was damaged or edited: {damaged}; load one as state_dict() gave it (where "
            "torch.distributed.checkpoint takes states apart, give it flowfn.interop.as_stateful(flow))"
        )
    return contents


def damages(contents: Mapping[str, Any]) -> str:
    """What of a state does not match its digest, in words; nothing if all of it does."""
    kept, ours = contents["digest"], _digests(contents)
    if not isinstance(kept, str) or len(kept) % (2 * SHORT):
        return f"its digest cannot be {brief(kept)}"
    parts = {kept[at : at + 2 * SHORT] for at in range(0, len(kept), 2 * SHORT)}
    changed = [key for key, part in ours.items() if part not in parts]
    if changed and len(changed) < len(ours):
        return f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what was saved"
    if kept == "".join(ours.values()):
        return ""
    missing = [key for key in _OTHERS if key not in contents]
    return (
        f"its digest is of something else (it may lack {' or '.join(missing)})"
        if not changed
        else "its digest is of something else"
    )


def check_anchors(root: Node, seed: int, epoch: int, checkpoint: Checkpoint) -> None:
    """Make sure that each anchor is one that a node at its place can have written."""
    forms = _by_place(root, epoch)
    for key, anchor in checkpoint.anchors.items():
        nodes = forms.get(key if key >= 0 else ~key, ())
        wrong = [_misfit(node, form, key, anchor, seed, checkpoint) for node, form in nodes]
        if not nodes or all(wrong):
            refuse_key(
                f"anchors[{str(key)!r}]",
                wrong[0] if wrong else "left out: there is no such place in this pipeline",
                _written(anchor),
            )


def of_epoch(root: Node, epoch: int, anchors: Mapping[int, Anchor]) -> dict[int, Anchor]:
    """Those anchors that a pass can use in an epoch."""
    forms = _by_place(root, epoch)
    return {
        place: one for place, one in anchors.items() if any(_is_of(one.epoch, form) for _, form in forms.get(place, ()))
    }


def _by_place(root: Node, epoch: int) -> dict[int, list[tuple[Node, EpochForm]]]:
    """The nodes of a tree by place, with the epochs in which they are read."""
    forms: dict[int, list[tuple[Node, EpochForm]]] = {}
    for node, form in _forms(root, (epoch,), set()):
        forms.setdefault(node.place, []).append((node, form))
    return forms


def _misfit(node: Node, form: EpochForm, key: int, anchor: Anchor, seed: int, checkpoint: Checkpoint) -> str:
    """What an anchor must be for a node, if it is something else."""
    if key < 0:
        known = any(_is_of(anchor.epoch, some) for some in (form, form[:1])) or (
            not anchor.epoch and not anchor.outputs
        )
        fits = node.guards and known and can_count(anchor)
        return (
            ""
            if fits
            else f"[epoch, datapoints, [failures, position]] of a guarded stage, in epoch {_epoch_words(form)}"
        )
    if not _is_of(anchor.epoch, form):
        return f"[epoch, outputs, inputs] of {node.part}, in epoch {_epoch_words(form)}"
    run = Run(seed, tuple(number or 0 for number in form), base=checkpoint.base, anchors=checkpoint.anchors)
    asked = node.misfit(run, anchor._replace(epoch=run.epoch))
    return f"{asked} of {node.part}" if asked else ""


def _forms(node: Node, epoch: EpochForm, seen: set[Any]) -> Iterator[tuple[Node, EpochForm]]:
    """The nodes of a tree with the epochs in which they are read."""
    if (id(node), epoch) not in seen:
        seen.add((id(node), epoch))
        yield node, epoch
        for source in node.sources:
            yield from _forms(source, node.epoch_upstream(epoch), seen)


def _is_of(epoch: tuple[int, ...], form: EpochForm) -> bool:
    return len(epoch) == len(form) and all(known is None or known == number for number, known in zip(epoch, form))


def _epoch_words(form: EpochForm) -> str:
    return "[" + ", ".join("any round" if number is None else str(number) for number in form) + "]"


def _written(anchor: Anchor) -> list[Any]:
    return [[*anchor[0]], anchor[1], [*anchor[2]]]


def _plain(key: Any, value: Any) -> Any:
    """A value of a state as JSON knows it, if there is such a thing."""
    try:
        told = plain(value)
        json.dumps(told)
        return told
    except Exception as error:  # of whatever type the value is
        raise ValueError(f"load_state_dict(): {key!r} must be plain JSON: {error}") from error


def _check_anchor(key: str, value: Any) -> None:
    number = isinstance(key, str) and key.removeprefix("-").isdecimal() and key == str(int(key))
    form = (
        number
        and isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], list)
        and isinstance(value[2], list)
    )
    if not form or not naturals((*value[0], value[1]), len(value[0]) + 1) or not all(map(_finite, value[2])):
        refuse_key(
            f"anchors[{key!r}]",
            "[[epoch, ...], outputs, [inputs, ...]] at the number of a place, all of them finite",
            value,
        )


def _check_mix(value: Mapping[str, Any]) -> None:
    counts, held = ("steps", *_BEHIND[:2]) if "at" in value else ("steps",), value.get("held", {})
    if (
        set(value) - {"units"} not in _MIXES
        or not naturals([value[key] for key in counts], len(counts))
        or not all(isinstance(one, Mapping) for one in (value["sources"], held))
        or not is_amount(value.get("units", 0))
        or ("at" in value and not _held_fits(value))
    ):
        refuse_key("mix", "{'steps': an integer >= 0, 'sources': how far each has come, by name}", value)
    for name, one in (*value["sources"].items(), *held.items()):
        if not isinstance(one, list) or len(one) != (MEASURED if "units" in value else COUNTED) or not are_begun(one):
            refuse_key(
                f"mix['sources'][{name!r}]",
                "[given, round, position, ended (0 or 1), expected, before], none below 0"
                + " (and units and the largest datapoint, where there are units)" * ("units" in value),
                one,
            )


def _held_fits(value: Mapping[str, Any]) -> bool:
    """Whether picks lead from what sources had given to what they have."""
    picks = picks_of(value["picks"], len(value["sources"]))
    return (
        picks is not None
        and len(picks) <= value["at"] <= value["steps"]
        and set(value["held"]) == set(value["sources"])
    )


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _digests(contents: Mapping[str, Any]) -> dict[str, str]:
    """The digest of every key and its value."""
    return {key: _state_digest([key, contents[key]]) for key in sorted(contents) if key != "digest"}


def _state_digest(value: Any) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=SHORT).hexdigest()


def refuse_key(key: str, requirement: str, value: Any) -> None:
    """Say which key of a state is wrong, what it must be, and what it is."""
    raise ValueError(f"load_state_dict(): {key} must be {requirement}, got {brief(value)}")
