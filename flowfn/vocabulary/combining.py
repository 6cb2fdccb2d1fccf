"""Stages of several sources. Flows come first, and are not left out: `concat(a, b)`."""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from operator import countOf
from typing import Any

from flowfn import rules
from flowfn.flows.definitions import Call
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator
from flowfn.flows.sources import flow
from flowfn.flows.stages import stage
from flowfn.flows.states import mixture
from flowfn.flows.translating import speaks
from flowfn.kinds.routes import Joined
from flowfn.kinds.sections import Section
from flowfn.showing import brief
from flowfn.vocabulary.mixing.blending import mixed
from flowfn.vocabulary.mixing.plans import Quota


def _in_turn(sources: int) -> Iterator[Section]:
    for source in range(sources):
        yield Section(source)


@stage.order(stream=_in_turn)
def concat(*sources: Any) -> Joined:
    """All datapoints of the first source, then all of the second, and so on.

    >>> import flowfn as ff
    >>> list(ff.concat([1, 2], [3]))
    [1, 2, 3]
    """
    return Joined(sources)


@speaks
def mix(
    *sources: Any,
    weights: Any = None,
    until: str = "first",
    random: bool = False,
    tag: Any = None,
    name: str | None = None,
) -> Flow[Any]:
    """Mix sources in given proportions: flows, or one dict of flows by name.

    `weights`: a number for each source (in order, or by name in a dict); "length" weighs them by their lengths; left
    out, all are alike. After every k outputs each source has given its share of k to within one datapoint (within two
    where the weights are no small whole numbers, or multiples of such). A function of the step (0, 1, 2, ...) that
    returns such weights, or zeros, changes them on the way.
    Weights are shares of datapoints, whatever their sizes. For shares of tokens, divide the share that each source is
    to have of them by the mean number of tokens of its datapoints (0.7 of texts of 460 and 0.3 of texts of 1550 tokens
    are `weights=[0.7 / 460, 0.3 / 1550]`), or make all equally long before they are mixed (`pack(length)` each source).
    `random=True` shuffles which source comes next, in blocks of 4096 outputs that have the shares exactly; the
    datapoints of each source stay in order. (With a function as weights, every step is a draw.)
    `until`: "first" stops where a source has ended and is wanted again; "all" goes on with the others until every
    datapoint was given once, and they share, by their weights, all but what those gave that have ended; "cycle_all"
    lets sources begin again, in rounds with new randomness, until each has ended once; "forever" does not stop. `tag`:
    adds the source's name (or its number): under this key to dicts, as one more component to lists and tuples, and as
    (datapoint, name) to anything else.

    Where all sources can be indexed and weights are numbers the mix can be indexed too. `quotas(iterator)` tells what
    has been given of what was due. A state loaded with `strict=False` into a mix of other sources lets those of the
    same names go on where they were, if only map-like stages, batch and prefetch come after the mix.

    Raises:
        ValueError: weights that are not positive, or not one for each source; a source that is empty and should begin
            again.
        TypeError: a source is no source, weights="length" and a length is not known.

    >>> import flowfn as ff
    >>> list(ff.mix([1, 2, 3, 4], [-1, -2], weights=[2, 1]))
    [1, -1, 2, 3, -2, 4]
    >>> list(ff.mix({"x": [1, 2], "y": [3]}, until="all", tag="from"))
    [(1, 'x'), (3, 'y'), (2, 'x')]
    """
    named = isinstance(sources[0], Mapping) if len(sources) == 1 else False
    names = list(sources[0]) if named else list(range(len(sources)))
    _refuse_weights(sources, weights)
    flows = [flow(source, "mix") for source in (sources[0].values() if named else sources)]
    if not flows:
        raise TypeError("mix() needs at least one source: flows, or one dict of flows by name")
    if len(set(map(str, names))) < len(names):
        raise ValueError(f"mix(): names must be different as text too, got {names}")
    if hasattr(weights, "tolist"):
        weights = weights.tolist()
    due = _weights(weights, names, flows)
    tagged = flows if tag is None else [_tagged(tag, name, source) for name, source in builtins.zip(names, flows)]
    made = mixed(*tagged, names=names, weights=due, until=until, random=random, name=name)
    options = {"weights": weights, "until": until, "random": random, "tag": tag, "name": name}
    named_flows = [dict(builtins.zip(names, flows))] if named else flows
    unless = {"weights": None, "until": "first", "random": False, "tag": None, "name": None}
    options = {
        key: value for key, value in options.items() if type(value) is not type(unless[key]) or value != unless[key]
    }
    return Flow(made.part, made.sources, made=Call("mix", named_flows, options))


mix.definition = mixed.definition  # type: ignore[attr-defined]  # so that pipe can say how to write it


def _refuse_weights(sources: tuple[Any, ...], weights: Any) -> None:
    """Raise if weights stand where one more source would: a number for each flow before them."""
    last = sources[-1] if sources else None
    listed = isinstance(last, (list, tuple)) and len(last) == len(sources) - 1 and all(map(rules.is_number, last))
    if listed and weights is None and sources[2:] and all(isinstance(source, Flow) for source in sources[:-1]):
        raise TypeError(
            f"mix(): weights are given by name, got {last!r} among the sources; write weights={last!r}, or "
            f"flow({last!r}) for a source"
        )


def _weights(weights: Any, names: list[Any], flows: list[Flow[Any]]) -> Any:
    """The weights of a mix in the order of its sources, or an error that says what they must be."""
    if callable(weights):
        return weights
    if isinstance(weights, str) and weights == "length":
        for name, source in builtins.zip(names, flows):
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
        raise ValueError(
            f"mix(): weights must be a number > 0 for each of {len(names)} sources{others}, got {brief(weights)}"
        )
    return due


@stage.each
def _tagged(key: Any, name: Any, source: Any) -> Iterator[Any]:
    for datapoint in source:
        if isinstance(datapoint, Mapping):
            if key in datapoint:
                raise ValueError(f"mix(): datapoints of source {name!r} already have the key {key!r}")
            yield {**datapoint, key: name}
        elif type(datapoint) in (list, tuple):
            yield datapoint + type(datapoint)((name,))
        else:
            yield (datapoint, name)


@rules.checked(iterator=rules.Rule("iter(flow) or flow.run()", lambda value: isinstance(value, FlowIterator)))
def quotas(iterator: FlowIterator[Any]) -> dict[Any, Quota]:
    """What each source of a mix should have given so far, and what it has given, by name.

    `iterator` is over a mix, or over map-like stages, batch and prefetch behind one.

    Raises:
        TypeError: `iterator` is no iterator over a flow.
        ValueError: there is no mix, or other stages than these come after it.

    >>> import flowfn as ff
    >>> with iter(ff.mix({"web": range(100), "code": range(100)}, weights=[3, 1])) as iterator:
    ...     _ = [next(iterator) for _ in range(10)]
    ...     ff.quotas(iterator)
    {'web': Quota(expected=7.5, delivered=8), 'code': Quota(expected=2.5, delivered=2)}
    """
    told = mixture(*iterator.progress())
    if told is None:
        raise ValueError("quotas(): there must be a mix, and behind it nothing but map-like stages, batch and prefetch")
    return {name: Quota(one.expected, one.datapoints) for name, one in told[1].items()}


@stage.each(where={"strict": rules.boolean}, strict="strict")
def zip(*sources: Any, strict: bool = True) -> Iterator[Any]:
    """Tuples of one datapoint of each source.

    Raises:
        ValueError: the sources have different lengths (endless ones are exempt); `strict=False` stops at the shortest.

    >>> import flowfn as ff
    >>> list(ff.zip([1, 2], ["a", "b"]))
    [(1, 'a'), (2, 'b')]
    """
    return builtins.zip(*sources)


@stage.each(where={"strict": rules.boolean}, strict="strict")
def zip_components(*sources: Any, strict: bool = True) -> Iterator[Any]:
    """Join the components of one datapoint of each source: lists (or tuples) end to end, dicts with all their keys.

    Raises:
        ValueError: the sources have different lengths (endless ones are exempt; `strict=False` stops at the shortest),
            or two dicts share a key.
        TypeError: datapoints of different forms.

    >>> import flowfn as ff
    >>> list(ff.zip_components([[1], [2]], [["a", "b"], ["c", "d"]]))
    [[1, 'a', 'b'], [2, 'c', 'd']]
    """
    for datapoint in builtins.zip(*sources):
        yield _joined_components(datapoint)


def _joined_components(datapoints: tuple[Any, ...]) -> Any:
    first = datapoints[0]
    if type(first) is list and countOf(builtins.map(type, datapoints), list) == len(datapoints):
        return [*chain.from_iterable(datapoints)]
    if all(isinstance(d, Mapping) for d in datapoints):
        joined: dict[Any, Any] = {}
        for datapoint in datapoints:
            twice = joined.keys() & datapoint.keys()
            if twice:
                raise ValueError(f"zip_components(): more than one source has the key {sorted(map(repr, twice))[0]}")
            joined.update(datapoint)
        return joined
    for form in (list, tuple):
        if all(isinstance(d, form) for d in datapoints):
            return form(component for datapoint in datapoints for component in datapoint)
    raise TypeError(
        "zip_components(): datapoints must be all lists, all tuples or all dicts, got "
        f"{', '.join(type(d).__name__ for d in datapoints)} (the first is {first!r:.60})"
    )
