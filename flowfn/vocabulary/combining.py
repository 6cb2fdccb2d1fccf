"""Stages of several sources. Flows come first, and are not left out: `concat(a, b)`."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from itertools import chain
from operator import countOf
from typing import Any

from flowfn import rules
from flowfn.flows.definitions import Call
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator
from flowfn.flows.mixtures import in_the_way, quotas_of
from flowfn.flows.sources import flow
from flowfn.flows.stages import stage
from flowfn.flows.translating import speaks
from flowfn.kinds.routes import Joined
from flowfn.kinds.runs import Run
from flowfn.kinds.sections import Section
from flowfn.vocabulary.mixing.arguments import check_shares, read_epochs, read_weights, refuse_weights
from flowfn.vocabulary.mixing.blending import mixed, mixed_so
from flowfn.vocabulary.mixing.plans import Quota
from flowfn.vocabulary.mixing.units import measured, tagged


def _in_turn(sources: int) -> Iterator[Section]:
    for source in range(sources):
        yield Section(source, final=source == sources - 1)


@stage.order(stream=_in_turn)
def concat(*sources: Any) -> Joined:
    """All datapoints of the first source, then all of the second, and so on.

    >>> import flowfn as ff
    >>> list(ff.concat([1, 2], [3]))
    [1, 2, 3]
    """
    return Joined(sources)


_UNSAID: dict[str, Any] = {"weights": None, "until": "first", "random": False, "tag": None, "unit": None}
_UNSAID |= {"epochs": None, "temperature": 1, "name": None}


@speaks
def mix(
    *sources: Any,
    weights: Any = None,
    until: str = "first",
    random: bool = False,
    tag: Any = None,
    unit: Any = None,
    epochs: Any = None,
    temperature: float = 1,
    name: str | None = None,
) -> Flow[Any]:
    """Mix sources in given proportions: flows, or one dict of flows by name.

    `weights`: a number for each source (in order, or by name in a dict); "length" weighs them by their lengths; left
    out, all are alike. After every k outputs each source has given its share of k to within one datapoint (within two
    where the weights are no small whole numbers, or multiples of such). A function of the step (0, 1, 2, ...) that
    returns such weights, or zeros, changes them on the way; `phases(...)` makes one.
    Weights are shares of datapoints, whatever their sizes, unless there is a `unit`.
    `unit`: has weights be shares of units: of tokens, seconds, pixels. A function of a datapoint that says how many it
    has (`len`, say; any number >= 0), or the position or key of the component whose `len` counts. After every output
    each source has given its share of the units so far to within one datapoint, the largest so far, however many
    sources there are and whatever the sizes. (While weights change on the way, it has what it was owed to within two,
    in all that was tried.) Sizes are known once datapoints are read, so such a mix is read in order; functions as
    weights are called with the units given so far.
    `temperature`: weights count as weight ** (1 / temperature): 1 leaves them as they are, large ones make all alike.
    mT5 and XLM-R sampled languages by length ** 0.3: `weights="length", temperature=1 / 0.3`.
    `random=True` shuffles which source comes next, in blocks of 4096 outputs that have the shares exactly; the
    datapoints of each source stay in order. (With a function as weights, every step is a draw.)
    `until`: "first" stops where a source has ended and is wanted again; "all" goes on with the others until every
    datapoint was given once, and they share, by their weights, all but what those gave that have ended; "cycle_all"
    lets sources begin again, in rounds with new randomness, until each has ended once; "forever" does not stop.
    `epochs`: how often a source may be read before it has ended, for "first" and "all": a number, or numbers by name
    (the others once; math.inf for no bound; 2.5 where its length is known). `tag`: adds the source's name (or its
    number): under this key to dicts, as one more component to lists and tuples, and as (datapoint, name) to anything
    else.

    Where all sources can be indexed, weights are numbers and there is no unit, the mix can be indexed too.
    `quotas(iterator)` tells what has been given of what was due. A state loaded with `strict=False` into a mix of other
    sources or weights lets those of the same names go on where they were, if only map-like stages, batch and prefetch
    come after the mix, and stages that can be started again in a stream, as `pack`, `batch_by_length` and `interleave`
    can (`shuffle_buffer` cannot: put it before the mix). What such stages hold is not lost: the same datapoints are
    picked for them once more, and what is new comes behind these. So a source of which they may hold something has to
    stay; `phases` give it no weight from then on.

    On units, see `flowfn.vocabulary.mixing.deadlines`; on temperature, Arivazhagan et al., "Massively Multilingual
    Neural Machine Translation in the Wild", 2019, and Xue et al., "mT5", 2021.

    Raises:
        ValueError: weights that are not positive, or not one for each source; a source that is empty and should begin
            again; a function that gives weights only to sources that have ended; a unit below 0.
        TypeError: a source is no source, weights="length" and a length is not known.

    >>> import flowfn as ff
    >>> list(ff.mix([1, 2, 3, 4], [-1, -2], weights=[2, 1]))
    [1, -1, 2, 3, -2, 4]
    >>> list(ff.mix({"x": [1, 2], "y": [3]}, until="all", tag="from"))
    [(1, 'x'), (3, 'y'), (2, 'x')]
    >>> list(ff.mix(["aaaa", "aaaa"], ["b", "b", "b", "b"], unit=len, until="all"))
    ['aaaa', 'b', 'b', 'b', 'b', 'aaaa']
    >>> list(ff.mix([1, 2, 3, 4], ["few"], epochs={1: 3}, until="all"))
    [1, 'few', 2, 'few', 3, 'few', 4]
    """
    named = isinstance(sources[0], Mapping) if len(sources) == 1 else False
    if not named and any(type(source) is dict for source in sources):
        raise TypeError("mix(): sources are flows, or one dict of flows by name, which has all of them")
    names = list(sources[0]) if named else list(range(len(sources)))
    refuse_weights(sources, weights)
    flows = [flow(source, "mix") for source in (sources[0].values() if named else sources)]
    if not flows:
        raise TypeError("mix() needs at least one source: flows, or one dict of flows by name")
    if len(set(map(str, names))) < len(names):
        raise ValueError(f"mix(): names must be different as text too, got {names}")
    if hasattr(weights, "tolist"):
        weights = weights.tolist()
    check_shares(unit, random, temperature, weights, names, tag)
    asked = {"names": names, "weights": read_weights(weights, names, flows), "until": until, "random": random}
    rounds = read_epochs(epochs, until, names, flows)
    if unit is not None:
        inputs = [measured(unit, name, tag, source) for name, source in builtins.zip(names, flows)]
    else:
        inputs = flows if tag is None else [tagged(tag, name, source) for name, source in builtins.zip(names, flows)]
    if unit is None and rounds is None and temperature == 1:
        made = mixed(*inputs, **asked, name=name)
    else:
        more = {"temperature": temperature, "epochs": rounds, "measured": unit is not None}
        made = mixed_so(*inputs, **asked, **more, name=name)
    options = dict(builtins.zip(_UNSAID, (weights, until, random, tag, unit, epochs, temperature, name)))
    named_flows = [dict(builtins.zip(names, flows))] if named else flows
    said = {
        key: value for key, value in options.items() if type(value) is not type(_UNSAID[key]) or value != _UNSAID[key]
    }
    return Flow(made.part, made.sources, made=Call("mix", named_flows, said))


mix.definition = mixed.definition  # type: ignore[attr-defined]  # so that pipe can say how to write it


@rules.checked(iterator=rules.Rule("iter(flow) or flow.run()", lambda value: isinstance(value, FlowIterator)))
def quotas(iterator: FlowIterator[Any]) -> dict[Any, Quota]:
    """What each source of a mix should have given so far, and what it has given, by name: datapoints, or units.

    `iterator` is over a mix, or over stages behind one: map-like ones, batch, prefetch, a `shard` behind which no other
    order comes, and streams as `pack` is one; what those still hold has been given by the mix, and what other ranks
    have been given in the same steps.

    Raises:
        TypeError: `iterator` is no iterator over a flow.
        ValueError: there is no mix, or other stages than these come after it.

    >>> import flowfn as ff
    >>> with iter(ff.mix({"web": range(100), "code": range(100)}, weights=[3, 1])) as iterator:
    ...     _ = [next(iterator) for _ in range(10)]
    ...     ff.quotas(iterator)
    {'web': Quota(expected=7.5, delivered=8), 'code': Quota(expected=2.5, delivered=2)}
    """
    recipe, seed, epoch, checkpoint = iterator.progress()
    run = Run(seed, (epoch,), base=checkpoint.base, anchors=checkpoint.anchors)
    told = quotas_of(recipe.node, run, checkpoint.position)
    if told is None:
        last = in_the_way(recipe.node)
        raise ValueError(
            "quotas(): there must be a mix, and behind it nothing but map-like stages, batch, prefetch, one shard "
            "and streams, as pack is one" + f"; {last.part} is none of these" * (not hasattr(last, "reached"))
        )
    return {name: Quota(*one) for name, one in told.items()}


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
