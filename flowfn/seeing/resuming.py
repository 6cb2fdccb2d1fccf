"""What a state is, in words: of which pipeline, where it stands, and whether it is as it was saved."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.mixtures import quotas_of
from flowfn.flows.schema import checked_state
from flowfn.flows.states import counting_of, unpack_state
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import sources_first, top_down
from flowfn.kinds.ranges import Ranges
from flowfn.kinds.runs import Run
from flowfn.seeing.explaining import FROM_START, resumes
from flowfn.showing import brief

RANGES = 5
"""So many ranges of a skip list are shown."""

_FITS = "it can be loaded here"

_STATE = rules.Rule(
    "a state, something that holds some, or the path of a JSON file",
    lambda value: isinstance(value, (Mapping, list, str, os.PathLike)),
)
_FLOW = rules.Rule("a flow", lambda value: value is None or isinstance(value, Flow))


@rules.checked(state=_STATE, flow=_FLOW)
def describe_state(state: Any, flow: Flow[Any] | None = None, *, file: IO[str] | None = None) -> None:
    """Print what a saved state says: of which pipeline it is, where it stands, and whether it is as it was saved.

    `state` is a state, a path of a JSON file, or what a framework keeps around states (dicts and lists in each other,
    and texts of JSON in them): each state in it is described. With the flow also how far it is, what it costs to go on,
    and on how many ranks one can. `flowfn state FILE` does it from the command line.

    Raises:
        ValueError: there is no state in it; the file is no JSON.
        FileNotFoundError: there is no such file.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(100), ff.shard(1, 2), ff.batch(5))
    >>> iterator = flow.run(seed=7, skip=[4])
    >>> next(iterator), describe_state(iterator.state_dict(), flow)
    state of source[100] > shard(remainder='keep') > batch(size=5, drop_remainder=Fa...
      seed 7, epoch 0: 1 output given, 10 datapoints used
      rank 1 of 2
      left out: datapoints 40 to 49
      as it was saved: its digest is right
      it can be loaded here
      381 bytes of JSON
      10 % of the epoch: 1 of 10 outputs
      goes on at once
      any number of ranks can go on from it
    (array([1, 3, 5, 7, 9]), None)
    """
    where = f" in {os.fspath(state)}" if isinstance(state, (str, os.PathLike)) else ""
    states = list(_states_in(_from_file(state) if where else state, ""))
    if not states:
        raise ValueError(f"describe_state(): there is no state of a flow{where or f' in {brief(state)}'}")
    for path, one in states:
        lines = [
            *in_words(one, flow, sources=flow is None),
            f"  {len(json.dumps(one, default=repr))} bytes of JSON",
            *_in_flow(one, flow),
        ]
        head = [f"at {path}:"] if path else []
        print(*head, *lines, sep="\n", file=file, flush=True)


def _from_file(path: Any) -> Any:
    text = Path(path).read_text(encoding="utf8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"describe_state(): {os.fspath(path)} is no JSON: {error}") from error


def _states_in(value: Any, path: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The states in whatever holds them, and where in it they are."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return
    if is_state(value):
        yield path, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _states_in(one, f"{path}.{key}" if path else str(key))


def _in_flow(state: Mapping[Any, Any], flow: Flow[Any] | None) -> Iterator[str]:
    """How far a state is in a flow, and what it takes to go on."""
    if flow is None:
        return
    try:
        contents = checked_state(state)
        seed, epoch, checkpoint = unpack_state(flow, state, strict=False)
    except ValueError:
        return  # that has been said
    counting, run = counting_of(flow), Run(seed, (epoch,), base=checkpoint.base, anchors=checkpoint.anchors)
    for name, (due, given) in (quotas_of(flow.node, run, checkpoint.position) or {}).items():
        yield f"  source {name} of the mix: {given:,} given, {due:,.6g} due"
    length = flow.node.length(run)
    if length is not None and length != math.inf:
        done = f"{100 * checkpoint.position / length:.3g} %" if length else "all"
        yield f"  {done} of the epoch: {checkpoint.position} of {_many(int(length), 'output')}"
    yield f"  {_cost(flow.node)}"
    if "world" in contents:
        only = f"only rank {contents['rank']} of {contents['world']}"
        yield f"  {'any number of ranks' if counting.shared else only} can go on from it"


def _cost(root: Node) -> str:
    """What it costs to go on."""
    if root.seekable:
        return "goes on at once"
    again = next((node for node in sources_first(root) if not node.seekable and resumes(node) == FROM_START), None)
    return "goes on from its anchors" if again is None else f"reads the epoch again up to {again.part}"


def is_state(value: Any) -> bool:
    """Whether a value is meant as a state: a dict that says of which pipeline, and where in it."""
    return isinstance(value, Mapping) and {"fingerprint", "position"} <= set(value)


def in_words(state: Mapping[Any, Any], flow: Flow[Any] | None = None, sources: bool = True) -> Iterator[str]:
    """The lines on a state; with a flow, where in it the anchors are, and whether it can be loaded there."""
    yield f"state of {state['fingerprint']}"
    try:
        contents = checked_state(state)
    except ValueError as error:
        yield f"  {_reason(error)}"
        return
    outputs_given, used = _many(contents["position"], "output"), _many(contents["count"], "datapoint")
    yield f"  seed {contents['seed']}, epoch {contents['epoch']}: {outputs_given} given, {used} used"
    if "base" in contents:
        yield f"  it went on from datapoint {contents['base']}, and counts outputs from there"
    if "world" in contents:
        yield f"  rank {contents['rank']} of {contents['world']}"
    fits = "" if flow is None else _state_fits(flow, state)
    names = {node.place: str(node.part) for node in top_down(flow.node)} if flow is not None and fits == _FITS else {}
    for key, (_, outputs, inputs) in contents.get("anchors", {}).items():
        place, counts = (int(key), False) if int(key) >= 0 else (~int(key), True)
        says = (
            f"{inputs[0]} of {_many(outputs, 'datapoint')} failed"
            if counts
            else f"starts again after {_many(outputs, 'output')}"
        )
        yield f"  {names.get(place, f'stage {place}')}: {says}"
    for name, (many, *_) in contents["mix"]["sources"].items() if sources and "mix" in contents else ():
        yield f"  source {name} of the mix: {_many(many, 'datapoint')} given"
    for line in _left_out(contents.get("skip", {})):
        yield f"  left out{line}"
    yield "  as it was saved: its digest is right"
    if fits:
        yield f"  {fits}"


def _left_out(skip: Mapping[str, Any]) -> Iterator[str]:
    """What a state leaves out."""
    if "counted" in skip:
        yield f": datapoints {_ranges(skip['counted'])}"
    for key, when in (("records", ""), ("later", " from the next epoch on")):
        for name, bounds in skip.get(key, {}).items():
            yield f"{when}: records {_ranges(bounds)} of source {name}"


def _ranges(bounds: list[int]) -> str:
    pairs = list(Ranges(tuple(bounds)).pairs())
    shown = [str(start) if stop - start == 1 else f"{start} to {stop - 1}" for start, stop in pairs[:RANGES]]
    more = [f"{len(pairs) - RANGES} ranges more"] if len(pairs) > RANGES else []
    return ", ".join([*shown, *more])


def _state_fits(flow: Flow[Any], state: Mapping[Any, Any]) -> str:
    """Whether a state can be loaded into a flow."""
    for strict in (True, False):
        try:
            unpack_state(flow, state, strict)
        except ValueError as error:
            reason = _reason(error)
        else:
            return _FITS + ("" if strict else ", with strict=False")
    return f"it cannot be loaded here: {reason}"


def _reason(error: ValueError) -> str:
    return str(error).removeprefix("load_state_dict(): ").splitlines()[0]


def _many(number: int, what: str) -> str:
    return f"{brief(number)} {what}{'s' * (number != 1)}"
