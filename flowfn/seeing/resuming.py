"""What a state is, in words: of which pipeline, where it stands, and whether it is as it was saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowfn.flows.flow import Flow
from flowfn.flows.schema import checked_state
from flowfn.flows.states import unpack_state
from flowfn.kinds.parts import top_down
from flowfn.showing import brief


def is_state(value: Any) -> bool:
    """Whether a value is meant as a state: a dict that says of which pipeline, and where in it."""
    return isinstance(value, Mapping) and {"fingerprint", "position"} <= set(value)


def in_words(state: Mapping[Any, Any], flow: Flow[Any] | None = None) -> Iterator[str]:
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
    names = {node.place: str(node.part) for node in top_down(flow.node)} if flow is not None else {}
    for key, (_, outputs, inputs) in contents.get("anchors", {}).items():
        place, counts = (int(key), False) if int(key) >= 0 else (~int(key), True)
        says = (
            f"{inputs[0]} of {_many(outputs, 'datapoint')} failed"
            if counts
            else f"starts again after {_many(outputs, 'output')}"
        )
        yield f"  {names.get(place, f'stage {place}')}: {says}"
    for name, (many, *_) in contents["mix"]["sources"].items() if "mix" in contents else ():
        yield f"  source {name} of the mix: {_many(many, 'datapoint')} given"
    yield "  as it was saved: its digest is right"
    if flow is not None:
        yield f"  {_state_fits(flow, state)}"


def _state_fits(flow: Flow[Any], state: Mapping[Any, Any]) -> str:
    """Whether a state can be loaded into a flow."""
    for strict in (True, False):
        try:
            unpack_state(flow, state, strict)
        except ValueError as error:
            reason = _reason(error)
        else:
            return "it can be loaded here" + ("" if strict else ", with strict=False")
    return f"it cannot be loaded here: {reason}"


def _reason(error: ValueError) -> str:
    return str(error).removeprefix("load_state_dict(): ").splitlines()[0]


def _many(number: int, what: str) -> str:
    return f"{brief(number)} {what}{'s' * (number != 1)}"
