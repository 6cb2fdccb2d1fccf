"""Stages that work on one datapoint at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from flowfn import rules
from flowfn.columns import Columns, Rows
from flowfn.components import component, replaced, selected
from flowfn.flows import Flow
from flowfn.kinds import Each
from flowfn.runs import Block, Run
from flowfn.sources import counting
from flowfn.stages import stage

T = TypeVar("T")

_FUNCTION = {"f": rules.function, "rng": rules.boolean}
_COMPONENTS = rules.Rule("a list of positions or keys", lambda value: isinstance(value, (list, tuple)))
_INDEX = rules.Rule("a component's position or key", lambda value: rules.is_integer(value) or isinstance(value, (str, bytes, tuple)))


@stage.each(where=_FUNCTION)
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
            try:
                changed = datapoint.copy()
            except AttributeError:  # a tuple; what f raises is not in here
                pass
            else:
                changed[index] = f(changed[index])
                yield changed
                continue
            yield replaced(datapoint, index, f(component(datapoint, index)))
    else:
        for datapoint, generator in zip(source, rngs):
            yield replaced(datapoint, index, f(component(datapoint, index), generator))


@stage.expand(where={"predicate": rules.function, "rng": rules.boolean})
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


@stage.expand(where=_FUNCTION)
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


@stage.expand(where=_FUNCTION, draws=None)
def flat_map(f: Callable[..., Any], source: Any, *, rng: bool = False, rngs: Any) -> Iterator[Any]:
    """Give all that `f(datapoint)`, an iterable, gives, one datapoint after the other.

    If `f` returns a flow, that flow runs under a seed which the datapoint's own generator draws. With `rng=True`,
    `f(datapoint, rng)`.

    >>> import flowfn as ff
    >>> list(ff.flat_map(str.split, ["a b", "", "c"]))
    ['a', 'b', 'c']
    """
    for datapoint, generator in zip(source, rngs):
        made = f(datapoint, generator) if rng else f(datapoint)
        if isinstance(made, Flow):
            made = made.run(seed=int(generator.bit_generator.random_raw()), epoch=0)
        yield from made


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
    for datapoint in source:
        yield selected(datapoint, components)


@stage.composite(where={"start": rules.integer})
def enumerate(source: Any, *, start: int = 0) -> Flow[Any]:
    """Pair every datapoint with its position in this stream: (start, first), (start + 1, second), ...

    >>> import flowfn as ff
    >>> list(ff.enumerate("ab".split() + ["c"], start=1))
    [(1, 'ab'), (2, 'c')]
    """
    from flowfn.combining import zip as zipped

    return zipped(counting(start), source)


class per_process(Generic[T]):
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
        if self._pid != os.getpid():
            self.__setstate__(self.factory)
        with self._lock:
            if not self._made:
                self._made.append(self.factory())
        return self._made[0]

    def __getstate__(self) -> Callable[[], T]:
        return self.factory

    def __setstate__(self, factory: Callable[[], T]) -> None:
        self.factory, self._pid, self._lock = factory, os.getpid(), threading.Lock()
        self._made: list[T] = []

    def __repr__(self) -> str:
        return f"per_process({getattr(self.factory, '__name__', self.factory)})"
