"""Stages that run over the elements of each datapoint: a pipeline inside of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

from flowfn.datapoints.components import Datapoints
from flowfn.flows.definitions import NOT_GIVEN, Definition, Stage
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator, Progress
from flowfn.flows.sources import flow
from flowfn.flows.stages import as_stage, pipe, stage
from flowfn.flows.translating import speaks
from flowfn.kinds.parts import top_down
from flowfn.showing import as_called, brief


@speaks
def inside(*stages: Any, source: Any = NOT_GIVEN, name: str | None = None) -> Any:
    """Run stages over the elements of each datapoint, which is a list (or a tuple) of them: `inside(map(load))`.

    So a pipeline can plan on what is small, and load what is large afterwards, in the workers:
    `pipe(names, batch_by_length("length", ..., collate=None), inside(map(load)), collate(pad(0)))`. A list gives a list
    and a tuple a tuple, of as many elements as come out of the stages; an empty one stays empty. The stages are what
    `pipe` takes, and see each datapoint's elements as a sequence of their own: `shuffle` shuffles within a datapoint.
    They run under a seed that the datapoint's own generator draws; a `prefetch` among them uses threads.

    Raises:
        TypeError: a datapoint is no list or tuple; an argument is no stage; the stages never end, or are a `cache`,
            which would remember the elements of one datapoint for all.

    >>> import flowfn as ff
    >>> list(ff.inside(ff.map(abs), ff.take(2), source=[[-1, 2, -3], [], (4,)]))
    [[1, 2], [], (4,)]
    """
    made = Inside(
        tuple(as_stage(one, number, "inside") for number, one in enumerate(stages, 1) if one is not None), name
    )
    return made if source is NOT_GIVEN else made(source)


class Inside(Stage):
    """The stage that `inside` makes. It draws random numbers only if one of its stages may."""

    __slots__ = ()

    def __init__(self, stages: tuple[Any, ...], pinned: str | None = None) -> None:
        for one in stages:
            if getattr(one, "memory", None) is not None:
                raise TypeError(_remembers(one))
        super().__init__(_defined, {"stages": stages}, pinned)
        self.random = self.wants_labels = any(map(_may_draw, stages))

    def call(self, sources: Sequence[Any] = ()) -> str:
        """The call that makes this stage, as text."""
        options = {} if self.pinned is None else {"name": repr(self.pinned)}
        if sources:
            options = {"source": repr(sources[0]), **options}
        return as_called(self.name, *map(repr, self.arguments["stages"]), **options)

    def __reduce__(self) -> Any:
        return Inside, (self.arguments["stages"], self.pinned)


def _may_draw(one: Any) -> bool:
    """Whether a stage may draw random numbers: of one that is made of others,
    that is not known before it has a source."""
    if isinstance(one, Stage):
        return one.random or one.kind is None
    return any(map(_may_draw, one.stages))


def _definition() -> Definition:
    @stage.each
    def inside(stages: tuple[Any, ...], source: Any, *, rngs: Any) -> Iterator[Any]:
        elements = Elements()
        tree: Flow[Any] | None = None
        for datapoint, generator in zip(source, repeat(None) if rngs is None else rngs):
            if not isinstance(datapoint, (list, tuple)):
                raise TypeError(f"inside(): a datapoint must be a list or a tuple of elements, got {brief(datapoint)}")
            made: list[Any] = []
            if datapoint:
                elements.datapoint = datapoint
                tree = tree or _planted(elements, stages)
                seed = 0 if generator is None else int(generator.bit_generator.random_raw())
                iterator: FlowIterator[Any] = FlowIterator(tree, Progress(seed, 0), engine="threads")
                with iterator:
                    made.extend(iterator)
                elements.datapoint = ()
            yield (
                Datapoints(made)
                if isinstance(datapoint, Datapoints)
                else made
                if isinstance(datapoint, list)
                else tuple(made)
            )

    return inside.definition  # type: ignore[attr-defined]


class Elements:
    """The elements of one datapoint after the other, as one sequence: so the tree over it is made once."""

    datapoint: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.datapoint)

    def __getitem__(self, index: int) -> Any:
        return self.datapoint[index]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The elements at some indices."""
        return [self.datapoint[index] for index in indices]


def _planted(elements: Elements, stages: tuple[Any, ...]) -> Flow[Any]:
    """The stages over the elements, made when the first are there: some stages look at how many there are."""
    tree = pipe(flow(elements), *stages)
    if tree.node.length_or_none() == float("inf"):
        raise TypeError(f"inside(): the stages {', '.join(map(repr, stages))} never end; take(n) makes them")
    for one in top_down(tree):
        if getattr(one.part, "memory", None) is not None:
            raise TypeError(_remembers(one.part))
    return tree


def _remembers(one: Any) -> str:
    return f"inside(): {one!r} would remember the elements of one datapoint for all; put it before inside, or after"


_defined = _definition()
inside.definition = _defined  # type: ignore[attr-defined]
