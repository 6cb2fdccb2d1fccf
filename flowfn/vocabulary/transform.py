"""Stages that work on one datapoint at a time."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from flowfn import rules
from flowfn.blocks import Block
from flowfn.datapoints.columns import Columns, Rows
from flowfn.datapoints.components import component, replaced, selected
from flowfn.flows.flow import Flow
from flowfn.flows.sources import counting
from flowfn.flows.stages import stage
from flowfn.kinds.nodes import Each, Trail
from flowfn.kinds.runs import Outputs, Run
from flowfn.pickling.by_value import Picklable
from flowfn.process import forks
from flowfn.randomness.generators import rekey
from flowfn.showing import as_written

T = TypeVar("T")

_FUNCTION = {"f": rules.of_datapoint, "rng": rules.boolean}


def _not_for(word: str) -> dict[str, rules.Rule]:
    """The rules of a word that is not called with what is made for another."""

    def slip(f: Any, others: Mapping[str, Any]) -> str:
        instead = getattr(type(f), "instead", "")
        other = isinstance(instead, str) and instead.startswith(f"{word}(")
        return f"{as_written(f)}; write {instead}" if other else rules.of_datapoint.slip(f, others)

    return {**_FUNCTION, "f": rules.Rule("a function", callable, slip=slip)}


_COMPONENTS = rules.Rule("a list of positions or keys", lambda value: isinstance(value, (list, tuple)))
_INDEX = rules.Rule(
    "a component's position or key", lambda value: rules.is_integer(value) or isinstance(value, (str, bytes, tuple))
)


@stage.each(where=_not_for("flat_map"))
def map(f: Callable[..., Any], source: Any, *, rng: bool = False, rngs: Any) -> Iterator[Any]:
    """Apply `f` to every datapoint. None is kept: it is an ordinary datapoint.

    With `rng=True` it is called as `f(datapoint, rng)`; the generator is the datapoint's own (the same wherever and
    in whatever order it is computed) and is valid until `f` returns.

    >>> import flowfn as ff
    >>> list(ff.map(abs, [-1, 2]))
    [1, 2]
    >>> noisy = ff.map(lambda x, rng: x + rng.random(), [0, 0], rng=True)
    >>> list(noisy.run(epoch=0)) == list(noisy.run(epoch=0)) != list(noisy.run(epoch=1))
    True
    """
    if rngs is None:
        for datapoint in source:
            yield f(datapoint)
    else:
        for datapoint, generator in zip(source, rngs):
            yield f(datapoint, generator)


@stage.each(where={**_FUNCTION, "index": _INDEX})
def map_component(f: Callable[..., Any], index: Any, source: Any, *, rng: bool = False, rngs: Any) -> Iterator[Any]:
    """Apply `f` to one component of every datapoint: `index` is a position, or a key of a dict.

    Lists, tuples, namedtuples and dicts keep their type; the datapoint that came in is not changed.
    With `rng=True`, `f(component, rng)`.

    Raises:
        TypeError, IndexError, KeyError: a datapoint has no such component.

    >>> import flowfn as ff
    >>> list(ff.map_component(str.upper, 0, [["a", 1], ["b", 2]]))
    [['A', 1], ['B', 2]]
    >>> list(ff.map_component(len, "text", [{"text": "four", "id": 7}]))
    [{'text': 4, 'id': 7}]
    """
    if rngs is None:
        for datapoint in source:
            if type(datapoint) is tuple:
                items = list(datapoint)
                try:
                    value = items[index]
                except (LookupError, TypeError):
                    value = component(datapoint, index)  # it says what there is
                items[index] = f(value)
                yield tuple(items)
                continue
            try:
                changed = datapoint.copy()
            except AttributeError:  # a namedtuple, say; what f raises is not in here
                pass
            else:
                changed[index] = f(changed[index])
                yield changed
                continue
            yield replaced(datapoint, index, f(component(datapoint, index)))
    else:
        for datapoint, generator in zip(source, rngs):
            yield replaced(datapoint, index, f(component(datapoint, index), generator))


@stage.expand(where={"predicate": rules.of_datapoint, "rng": rules.boolean}, newest=True)
def filter(predicate: Callable[..., Any], source: Any, *, rng: bool = False, rngs: Any) -> Iterator[Any]:
    """Keep the datapoints for which `predicate(datapoint)` holds (with `rng=True`, `predicate(datapoint, rng)`).

    >>> import flowfn as ff
    >>> list(ff.filter(str.isupper, ["A", "b", "C"]))
    ['A', 'C']
    """
    if rngs is None:
        for datapoint in source:
            if predicate(datapoint):
                yield datapoint
    else:
        for datapoint, generator in zip(source, rngs):
            if predicate(datapoint, generator):
                yield datapoint


@stage.expand(where=_FUNCTION, newest=True)
def filter_map(f: Callable[..., Any], source: Any, *, rng: bool = False, rngs: Any) -> Iterator[Any]:
    """Apply `f` to every datapoint and drop those for which it returns None.

    >>> import flowfn as ff
    >>> list(ff.filter_map({"a": 1}.get, ["a", "b"]))
    [1]
    """
    if rngs is None:
        for datapoint in source:
            if (result := f(datapoint)) is not None:
                yield result
    else:
        for datapoint, generator in zip(source, rngs):
            if (result := f(datapoint, generator)) is not None:
                yield result


@stage.expand(where=_not_for("map"), draws=None)
def flat_map(f: Callable[..., Any], source: Any, *, rng: bool = False, rngs: Any, indices: Any) -> Iterator[Any]:
    """Give all that `f(datapoint)`, an iterable, gives, one datapoint after the other.

    If `f` returns a flow, that flow runs under a seed which the datapoint's own generator draws. With `rng=True`,
    `f(datapoint, rng)`.

    >>> import flowfn as ff
    >>> list(ff.flat_map(str.split, ["a b", "", "c"]))
    ['a', 'b', 'c']
    """
    if rng:
        for datapoint, generator in zip(source, rngs):
            yield from _seeded_by(generator, f(datapoint, generator))
        return
    generator = None
    for datapoint, index in zip(source, indices):
        if generator is None:  # moved to a datapoint's own numbers only where a flow wants them
            generator = next(rngs)
            rngs.close()
        made = f(datapoint)
        if isinstance(made, Flow):
            rekey(generator, index)
            made = _seeded_by(generator, made)
        yield from made


def _seeded_by(generator: np.random.Generator, made: Any) -> Any:
    """A flow under a seed that a generator draws; anything else as it is."""
    return made.run(seed=int(generator.bit_generator.random_raw()), epoch=0) if isinstance(made, Flow) else made


class SelectNode(Each):
    """Selects components; over rows of arrays it selects the arrays, so that batches are still gathered."""

    def setup(self) -> None:
        """Gathers where the source does."""
        super().setup()
        self.gathers = self.sources[0].gathers

    def gather(self, run: Run, series: Iterator[Block], sizes: Iterable[int]) -> Iterator[Sequence[Any]]:
        """Blocks of rows of the selected arrays."""
        components = self.part.arguments["components"]
        columns: Columns | None = None
        for rows in self.sources[0].gather(run, series, sizes):
            if type(rows) is Rows and not rows.columns.bare:
                columns = columns or rows.columns.selected(components)
                yield Rows(columns, rows.block)
            else:
                yield [selected(row, components) for row in rows]


@stage.each(where={"components": _COMPONENTS}, reads=SelectNode)
def select(components: Sequence[Any], source: Any) -> Iterator[Any]:
    """Keep the named components of every datapoint, in the order given; components may be repeated.

    Lists and tuples are selected by position (a namedtuple becomes a tuple), dicts by key.

    >>> import flowfn as ff
    >>> list(ff.select([2, 0], [["a", "b", "c"]])), list(ff.select(["y"], [{"x": 1, "y": 2}]))
    ([['c', 'a']], [{'y': 2}])
    """
    chosen: Any
    for datapoint in source:
        try:
            if type(datapoint) is list:
                chosen = [datapoint[index] for index in components]
            elif type(datapoint) is dict:
                chosen = {key: datapoint[key] for key in components}
            else:
                chosen = selected(datapoint, components)
        except (LookupError, TypeError):
            chosen = selected(datapoint, components)  # it says what there is
        yield chosen


@stage.composite(where={"start": rules.integer})
def enumerate(source: Any, *, start: int = 0) -> Flow[Any]:
    """Pair every datapoint with its position in this stream: (start, first), (start + 1, second), ...

    >>> import flowfn as ff
    >>> list(ff.enumerate("ab".split() + ["c"], start=1))
    [(1, 'ab'), (2, 'c')]
    """
    from flowfn.vocabulary.combining import zip as zipped

    return zipped(counting(start), source)


class TapNode(Each):
    """Counts, in each pass and in each process, how many datapoints the function has seen."""

    gives = frozenset({"tickets"})

    def begin(self, run: Run, inputs: Sequence[Outputs], labels: Iterable[Any], trail: Trail | None = None) -> Outputs:
        """With one ticket for each datapoint that the function is still to see in this pass."""
        first = self.part.arguments["first"]
        if first is None:
            return super().begin(run, inputs, labels, trail)
        tickets = run.once("tickets", self.place, lambda: iter(range(first)))
        return Outputs(self.part.open(inputs, tickets=tickets), self, inputs, trail=trail)


@stage.each(where={"f": rules.of_datapoint, "first": rules.optional(rules.natural)}, reads=TapNode)
def tap(f: Callable[[Any], Any], source: Any, *, first: int | None = None, tickets: Any) -> Iterator[Any]:
    """Call `f(datapoint)` for what it does (print, count, draw), and give the datapoint on as it is.

    `first=n`: only for the first n datapoints of each pass. Worker processes count for themselves.

    >>> import flowfn as ff
    >>> list(ff.tap(print, ["a", "b", "c"], first=2))
    a
    b
    ['a', 'b', 'c']
    """
    if tickets is None:
        for datapoint in source:
            f(datapoint)
            yield datapoint
        return
    for datapoint in source:
        if next(tickets, None) is None:
            yield datapoint
            break
        f(datapoint)
        yield datapoint
    yield from source


@dataclass(frozen=True)
class seeded(Picklable, Generic[T]):
    """Let a function that draws from the global random state draw from a datapoint's own: `map(seeded(f), rng=True)`.

    While `f(datapoint)` runs, the global states of `random`, `numpy.random` and (if it is imported) torch on the CPU
    are set from the datapoint's generator; afterwards they are what they were. Threads take turns. It costs some 50 µs
    a call; a function that takes `rng` itself costs nothing.

    Raises:
        TypeError: it is called without a generator, because `rng=True` is missing.

    >>> import random
    >>> import flowfn as ff
    >>> flow = ff.map(seeded(lambda x: x + random.random()), [0, 0, 0], rng=True)
    >>> list(flow.run()) == list(flow.run()), len(set(flow.run()))
    (True, 3)
    """

    f: Callable[..., T]

    def __post_init__(self) -> None:
        rules.check_fields(self, f=rules.function)

    def __call__(self, datapoint: Any, rng: np.random.Generator | None = None) -> T:
        """`f(datapoint)`, drawing from numbers that `rng` fixes."""
        if rng is None:
            raise TypeError("seeded(f) is called with a datapoint and a generator; write map(seeded(f), rng=True)")
        seeds = rng.bit_generator.random_raw(2).tolist()
        torch = sys.modules.get("torch")
        with _global_state:
            states = random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None
            try:
                random.seed(seeds[0])
                np.random.seed([seeds[1] & 0xFFFFFFFF, seeds[1] >> 32])
                if torch:
                    torch.manual_seed(seeds[0] >> 1)
                return self.f(datapoint)
            finally:
                random.setstate(states[0])
                np.random.set_state(states[1])
                if torch:
                    torch.set_rng_state(states[2])

    def __repr__(self) -> str:
        return f"seeded({as_written(self.f)})"


_global_state = forks.lock()


class per_process(Picklable, Generic[T]):
    """Make a resource once in each process that needs it: a tokenizer, a client, an open file.

    Calling it gives this process's own, made by `factory()` at the first call. It pickles without the resource, so
    every worker makes one for itself; a forked child makes its own too.

    Raises:
        TypeError: `factory` is not callable.

    >>> import flowfn as ff
    >>> words = ff.per_process(dict)
    >>> words() is words()
    True
    """

    def __init__(self, factory: Callable[[], T]) -> None:
        self.factory: Callable[[], T] = rules.function.check("per_process", "factory", factory, {})
        self.__setstate__(self.factory)

    def __call__(self) -> T:
        """This process's resource."""
        return self._own()

    def __getstate__(self) -> Callable[[], T]:
        return self.factory

    def __setstate__(self, factory: Callable[[], T]) -> None:
        self.factory, self._own = factory, forks.Own(factory)

    def __repr__(self) -> str:
        return f"per_process({getattr(self.factory, '__name__', self.factory)})"
