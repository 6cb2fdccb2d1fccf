"""What a mix is asked for, as users write it: read, and refused in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.showing import brief
from flowfn.vocabulary.mixing.plans import CYCLING
from flowfn.vocabulary.mixing.schedules import phases
from flowfn.vocabulary.mixing.units import UNIT


def refuse_weights(sources: tuple[Any, ...], weights: Any) -> None:
    """Raise if weights stand where one more source would: a number for each flow before them."""
    last = sources[-1] if sources else None
    listed = isinstance(last, (list, tuple)) and len(last) == len(sources) - 1 and all(map(rules.is_number, last))
    if listed and weights is None and sources[2:] and all(isinstance(source, Flow) for source in sources[:-1]):
        raise TypeError(
            f"mix(): weights are given by name, got {last!r} among the sources; write weights={last!r}, or "
            f"flow({last!r}) for a source"
        )


def read_weights(weights: Any, names: list[Any], flows: list[Flow[Any]]) -> Any:
    """The weights of a mix in the order of its sources, or an error that says what they must be."""
    if callable(weights):
        return weights
    if isinstance(weights, str) and weights == "length":
        for name, source in zip(names, flows):
            if source.node.length_or_none() in (None, math.inf):
                raise TypeError(
                    f'mix(): weights="length" needs the length of source {name!r}, which is not known or endless'
                )
        return weights
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise ValueError(f"mix(): weights must be given for {names}, got {list(weights)}")
        weights = [weights[name] for name in names]
    if weights is None:
        return [1] * len(names)
    due = [one.item() if hasattr(one, "item") else one for one in weights] if hasattr(weights, "__iter__") else []
    if len(due) != len(names) or not all(rules.is_number(weight) and 0 < weight < math.inf for weight in due):
        others = (
            ""
            if hasattr(weights, "__iter__") and not isinstance(weights, str)
            else ', "length" or a function of the step'
        )
        none = "; leave out who is to give nothing, or let phases(...) give it none for a while" if 0 in due else ""
        raise ValueError(
            f"mix(): weights must be a number > 0 for each of {len(names)} sources{others}, got {brief(weights)}{none}"
        )
    return due


def read_epochs(epochs: Any, until: Any, names: list[Any], flows: list[Flow[Any]]) -> list[float] | None:
    """How often each source may be read, or None where once is enough (or `until` says it)."""
    if epochs is None:
        return None
    if until in CYCLING:
        raise ValueError(
            f"mix(): epochs must be left out where until={until!r}, which says itself how often sources begin again; "
            'write until="all" (the others share what is left) or until="first" (the mix stops)'
        )
    named = epochs if isinstance(epochs, Mapping) else dict.fromkeys(names, epochs)
    if not set(named) <= set(names):
        raise ValueError(f"mix(): epochs must be for {names}, got {list(named)}")
    every = [one.item() if hasattr(one, "item") else one for one in (named.get(name, 1) for name in names)]
    for name, one, source in zip(names, every, flows):
        if not rules.is_number(one) or one <= 0:
            raise ValueError(f"mix(): epochs must be numbers > 0 (math.inf: no bound), got {brief(one)} for {name!r}")
        known = source.node.steady and source.node.length_or_none() is not None
        if one != math.inf and one != int(one) and not known:
            raise ValueError(
                f"mix(): epochs must be a whole number where the length of a source is not known, or another in each "
                f"epoch, got {one!r} for {name!r}"
            )
    return None if all(one == 1 for one in every) else every


def check_shares(unit: Any, random: Any, temperature: Any, weights: Any, names: list[Any], tag: Any) -> None:
    """Refuse a unit, a temperature or a tag that makes no sense, or phases of other sources."""
    try:
        hash(tag)
    except TypeError:
        raise TypeError(f'mix(): tag must be one key, as tag="from" is, got {brief(tag)}') from None
    if unit is not None:
        UNIT.check("mix", "unit", unit, {})
        if random is True:
            raise ValueError(
                "mix(): random must be False where unit= is given: how many datapoints of each source have their share "
                "of units is only known once they are read; to have them in no order, shuffle each source before, "
                "or put shuffle_buffer(size) behind the mix"
            )
    if not rules.is_number(temperature) or not 0 < temperature < math.inf:
        raise ValueError(f"mix(): temperature must be a number > 0, got {brief(temperature)}")
    if isinstance(weights, phases):
        for start, mixture in weights.mixtures.items():
            strange = set(mixture) - set(names) if isinstance(mixture, Mapping) else len(mixture) != len(names)
            if strange:
                raise ValueError(f"mix(): weights from {start} on must be for {names}, got {brief(mixture)}")
