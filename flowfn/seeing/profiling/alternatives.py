"""Other settings of a pipeline that may be faster, whatever a profile says: what many do well with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from flowfn.digests.pipelines import Digest
from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.parallel.prefetching import PrefetchNode, prefetch
from flowfn.parallel.workers.pool import available
from flowfn.seeing.profiling.knobs import Knob, delivery_of, turned_prefetch


def sibling(knob: Knob) -> Knob | None:
    """The same with threads in the place of processes, or the other way: which is faster shows when it is tried."""
    here = {"threads": "processes", "processes": "threads"}
    names = [name for name in here if knob.options.get(name)]
    if len(names) != 1 or knob.place is not None:
        return None
    name = names[0]
    count = min(int(knob.options[name]), available() if name == "threads" else int(knob.options[name]))
    options = {one: value for one, value in knob.options.items() if one != name} | {here[name]: count}
    return replace(
        knob, options=options, words=knob.words.replace(f"{name}={knob.options[name]}", f"{here[name]}={count}")
    )


def usual(flow: Flow[Any]) -> Iterator[tuple[Flow[Any], str, int]]:
    """A prefetch that comes last, in usual settings: the flow, words, and how many outputs may wait or be made."""
    delivery = delivery_of(flow)
    if delivery is not None:
        source, deliver = delivery
        for turned, words, waiting in usual(source):
            yield deliver(turned), words, waiting
        return
    old = flow.part if isinstance(flow.node, PrefetchNode) else None
    if old is not None and old.arguments["executor"] is not None:
        return
    base, cpus = flow if old is None else flow.sources[0], available()
    crews = [("threads", None), ("processes", cpus), *(("threads", times * cpus) for times in (2, 4, 1))]
    for how, count in crews:
        ahead = max(count or 0, 2)
        options: dict[str, Any] = {"ahead": ahead, "threads": None, "processes": None, how: count}
        if old is None:
            turned = prefetch(source=base, **options)
        else:
            turned = Flow(turned_prefetch(old, options), (base,))
        yield turned, f"{turned.part} last", ahead + (count or 1)


def reordered(flow: Flow[Any]) -> Iterator[tuple[Flow[Any], str]]:
    """A ufunc behind a batch in the place of before it, where both give the same."""
    chain = [flow]
    while len(chain[-1].sources) == 1:
        chain.append(chain[-1].sources[0])
    for number, (behind, before) in enumerate(pairwise(chain)):
        if not (_batches(behind) and _elementwise(before)):
            continue
        swapped: Flow[Any] = Flow(before.part, (Flow(behind.part, before.sources),))
        for above in reversed(chain[:number]):
            swapped = Flow(above.part, (swapped,))
        if _gives_same(flow, swapped):
            yield swapped, f"{before.part} behind {behind.part}"


def _batches(flow: Flow[Any]) -> bool:
    part = flow.part
    return (
        isinstance(part, Stage)
        and part.name == "batch"
        and getattr(part.arguments.get("collate"), "__name__", "") == "stack"
    )


def _elementwise(flow: Flow[Any]) -> bool:
    part = flow.part
    function = part.arguments.get("f") if isinstance(part, Stage) and part.name == "map" else None
    return isinstance(function, np.ufunc) and function.nin == function.nout == 1


def _gives_same(flow: Flow[Any], other: Flow[Any]) -> bool:
    """Whether two flows give the same first output."""
    digests = []
    for one in (flow, other):
        with one.run() as iterator:
            digest = Digest(named=True)
            digest.value(next(iterator, None))
            digests.append(digest.hash.digest())
    return digests[0] == digests[1]
