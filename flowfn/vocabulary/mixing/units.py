"""What is done to the datapoints of a source of a mix: they are tagged with its name, and measured in units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.datapoints.components import length_of
from flowfn.flows.stages import stage
from flowfn.functions import mistaken, renamed
from flowfn.showing import brief

UNIT = rules.Rule(
    "a function of a datapoint that returns a number >= 0, or the position or key of the component whose len counts",
    lambda value: callable(value) or rules.is_integer(value) or isinstance(value, (str, bytes, tuple)),
    slip=lambda value, others: mistaken(value, {}) if callable(value) else "",
)


@stage.each(said="mix(tag={key}) of {name}")
@renamed("_tagged")
def tagged(key: Any, name: Any, source: Any) -> Iterator[Any]:
    """Each datapoint with the name of its source."""
    for datapoint in source:
        yield _with_name(datapoint, key, name)


@stage.each(said="mix(unit={unit}) of {name}")
def measured(unit: Any, name: Any, tag: Any, source: Any) -> Iterator[Any]:
    """Each datapoint with its number of units before it, and perhaps with a tag."""
    of = length_of if unit is len else unit if callable(unit) else partial(length_of, index=unit)
    for datapoint in source:
        plain = unit is len and type(datapoint) is np.ndarray and datapoint.ndim
        units = len(datapoint) if plain else of(datapoint)
        if type(units) is not int or units < 0:
            units = _count_checked(units, name, datapoint)
        yield units, datapoint if tag is None else _with_name(datapoint, tag, name)


def whole(units: Any) -> Any:
    """A number as JSON gives it back: an int where it is whole."""
    return int(units) if type(units) is float and units.is_integer() else units


def _count_checked(units: Any, name: Any, datapoint: Any) -> Any:
    """A number of units of any type as an int or a float."""
    plain = units.item() if getattr(units, "shape", None) == () else units
    if not rules.is_number(plain) or not 0 <= plain < math.inf:
        raise ValueError(
            f"mix(): unit must give a number >= 0, got {brief(units)} for {brief(datapoint)} of source {name!r}"
        )
    return whole(plain if isinstance(plain, float) else int(plain))


def _with_name(datapoint: Any, key: Any, name: Any) -> Any:
    if isinstance(datapoint, Mapping):
        if key in datapoint:
            raise ValueError(f"mix(): datapoints of source {name!r} already have the key {key!r}")
        return {**datapoint, key: name}
    if type(datapoint) in (list, tuple):
        return datapoint + type(datapoint)((name,))
    return (datapoint, name)
