"""Stages: functions from flow to flow, made from generator functions by one word, and composed by `pipe`.

A decorated function is called with its options, and with its source or without: `batch(128, source)` is a flow,
`batch(128)` is the stage that is left of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, overload

import toolz

from flowfn.flows.definitions import NOT_GIVEN, Definition, Stage, not_data
from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow
from flowfn.flows.translating import no_attribute
from flowfn.functions import misplaced
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import Each, Node
from flowfn.kinds.orders import Order
from flowfn.kinds.streams import Expand, Stream
from flowfn.pickling.by_value import Picklable
from flowfn.rules import Rule, positive
from flowfn.showing import as_called, as_written, brief

GIVES: dict[Any, frozenset[str]] = {
    Each: frozenset({"rngs", "indices"}),
    Group: frozenset({"rngs", "indices"}),
    Expand: frozenset({"rngs", "indices"}),
    Order: frozenset({"rng"}),
    Stream: frozenset({"rng", "mark", "trace", "unmade"}),
    None: frozenset(),
}
INJECTED = frozenset().union(*GIVES.values())


class ComposedStages(Picklable):
    """Several stages as one; it compares and pickles as they do."""

    is_stage = True

    def __init__(self, stages: tuple[Any, ...]) -> None:
        self.stages = stages

    def __call__(self, source: Any) -> Flow[Any]:
        return pipe(source, *self.stages)

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(not_data(self))

        def __getattr__(self, name: str) -> NoReturn:
            no_attribute(self, name)

    def __repr__(self) -> str:
        return as_called("compose", *map(repr, self.stages))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComposedStages) and self.stages == other.stages

    def __hash__(self) -> int:
        return hash(self.stages)

    def __reduce__(self) -> Any:
        return ComposedStages, (self.stages,)


def pipe(source: Any, /, *stages: Any) -> Flow[Any]:
    """Send a source through stages, one after the other: the sentence that a pipeline is.

    `source` is anything `flow` takes. A stage is what a flowfn function returns when its source is left out; None is
    skipped; any other callable is called, in each pass, with an iterator, and returns an iterable.

    Raises:
        TypeError: something that is no stage stands where a stage belongs; the message says what to write instead.

    >>> import flowfn as ff
    >>> list(ff.pipe([1, 2, 3], ff.map(float), ff.batch(2)))
    [array([1., 2.]), array([3.])]
    >>> train = False
    >>> ff.pipe([1, 2, 3], ff.shuffle() if train else None)
    flow([1, 2, 3])
    """
    if isinstance(source, (Stage, ComposedStages)):
        raise TypeError(
            f"pipe(): the first argument is the source, but it is the stage {source}; write pipe(source, {source}, ...)"
        )
    return toolz.pipe(
        flow(source, "pipe"), *(as_stage(stage, number) for number, stage in enumerate(stages, 2) if stage is not None)
    )


def compose(*stages: Any) -> ComposedStages:
    """Several stages as one, in the order in which `pipe` would run them.

    >>> import flowfn as ff
    >>> halves = ff.compose(ff.map(lambda x: x / 2), ff.batch(2))
    >>> list(halves([1, 2])), list(ff.pipe([3, 4], halves))
    ([array([0.5, 1. ])], [array([1.5, 2. ])])
    """
    return ComposedStages(
        tuple(as_stage(stage, number, "compose") for number, stage in enumerate(stages, 1) if stage is not None)
    )


def as_stage(stage: Any, number: int, caller: str = "pipe") -> Callable[[Any], Flow[Any]]:
    """A stage as such, a plain callable as a stream stage, or an error that says what to write."""
    if isinstance(stage, (Stage, ComposedStages)):
        return stage
    where = f"{caller}(): argument {number}"
    if isinstance(stage, Flow):
        name = stage.part.name
        if len(stage.sources) and stage.part.definition.several:
            raise TypeError(
                f"{where} is a flow, not a stage; to join flows write {name}(a, b), flows first: {name}(pipe(...), ...)"
            )
        raise TypeError(f"{where} is a flow, not a stage: {brief(stage)}; only the first argument of pipe is a source")
    definition = getattr(stage, "definition", None)
    if isinstance(definition, Definition):
        if definition.several:
            raise TypeError(f"{where} is {definition.name} itself; to join flows write {definition.name}(a, b)")
        if definition.positional:
            raise TypeError(
                f"{where} is {definition.name} without its arguments: write "
                f"{as_called(definition.name, *definition.positional)}"
            )
        return stage()
    if isinstance(getattr(stage, "instead", None), str):
        raise TypeError(f"{where} is not a stage: write {stage.instead}")
    if isinstance(stage, type) and misplaced(stage):
        raise TypeError(f"{where} is not a stage, but {misplaced(stage)}")
    if isinstance(stage, (list, tuple)) and any(callable(one) for one in stage):
        raise TypeError(f"{where} is a {type(stage).__name__} of stages: write them one by one, {caller}(..., *stages)")
    if not callable(stage):
        raise TypeError(f"{where} must be a stage or a function of an iterable, got {brief(stage)}")
    return Stage(_calling.definition, {"function": stage})  # type: ignore[attr-defined]


class Kind:
    """One word that makes a generator function a stage: `@stage.each`, `@stage.group(size="size")`, ..."""

    def __init__(self, kind: type[Node] | None, doc: str) -> None:
        self._kind, self.__doc__ = kind, doc

    @overload
    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]: ...

    @overload
    def __call__(
        self, function: None = None, /, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...

    def __call__(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        if function is None:
            return functools.partial(self, **options)
        return _define(self._kind, function, **options)


class _StageWords(Kind):
    """`@stage` (the same as `@stage.stream`) and the five kinds."""

    def __init__(self) -> None:
        super().__init__(Stream, "A generator function of `source` (its last positional parameter) becomes a stage.")
        self.each = Kind(Each, "Output i comes from input i alone: one output for each input.")
        self.group = Kind(
            Group,
            "Output i comes from a block of inputs; `size=`, `step=` and `whole=` name the options that say which.",
        )
        self.order = Kind(Order, "A function of n (the length of the source) that returns the indices of the outputs.")
        self.expand = Kind(Expand, "Each input gives 0 to k outputs, all of them before the next input is taken.")
        self.stream = Kind(Stream, "The stage sees the whole stream.")
        self.composite = Kind(None, "A function of a flow that returns a flow made of other stages.")

    def of_node(self, kind: type[Node], **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """A stage that is all in its node: the function gives it a name, options and help, and has no body."""
        return functools.partial(_define, kind, **options)


def _define(
    kind: type[Node] | None,
    function: Callable[..., Any],
    *,
    where: Mapping[str, Rule] | None = None,
    reads: type[Node] | None = None,
    **options: Any,
) -> Any:
    name = function.__name__
    parameters = inspect.signature(function).parameters
    gives = GIVES.get(kind, frozenset()) | (reads.gives if reads else frozenset())
    asks = frozenset(
        p.name
        for p in parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name in INJECTED | gives
    )
    word = kind.__name__.lower() if kind else "composite"
    if not asks <= gives:
        wanted, given = sorted(asks - gives)[0], " and ".join(sorted(gives)) or "nothing"
        raise TypeError(f"{name}: a stage.{word} function cannot have {wanted!r}; it can ask for {given}")
    front = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    star = next((p for p in parameters.values() if p.kind is p.VAR_POSITIONAL), None)
    if not front and star is None:
        raise TypeError(f"{name}: a stage function takes its source as its last positional parameter")
    options_first = front if star else front[:-1]
    if kind is not Order and any(p.name == "source" for p in options_first):
        raise TypeError(f"{name}: source is the last positional parameter of a stage function")
    first = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in options_first]
    source = (
        inspect.Parameter("sources", inspect.Parameter.VAR_POSITIONAL)
        if star
        else inspect.Parameter("source", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=NOT_GIVEN)
    )
    keywords = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in asks]
    if asks & {"rng", "rngs"} and "name" not in parameters:
        keywords.append(inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None))
    signature = inspect.Signature([*first, source, *keywords])

    @functools.wraps(function)
    def public(*args: Any, **kwargs: Any) -> Any:
        return definition.called(args, kwargs)

    positional = tuple(p.name for p in options_first)
    if kind is Group:
        where = {**_sizes(name, signature, options), **(where or {})}
    definition = Definition(
        reads or kind, function, public, signature, asks, positional, star is not None, where or {}, **options
    )
    del public.__wrapped__
    public.__signature__ = signature  # type: ignore[attr-defined]
    public.definition = definition  # type: ignore[attr-defined]
    return public


def _sizes(name: str, signature: inspect.Signature, options: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules for the options that hold a group's size and step."""
    if "size" not in options:
        raise TypeError(
            f'{name}: stage.group needs to know how many inputs make an output: @stage.group(size="name of the '
            'option"), or a number'
        )
    named = [value for word in ("size", "step") if isinstance(value := options.get(word), str)]
    for option in named:
        if option not in signature.parameters:
            raise TypeError(f"{name}: stage.group looks for the option {option!r}, which the function does not have")
    return dict.fromkeys(named, positive)


_PER_DATAPOINT = "to call it with one datapoint at a time, write map({})"
stage = _StageWords()


@stage.stream(said="{function}")
def _calling(function: Callable[[Any], Any], source: Any) -> Any:
    name = as_written(function)
    try:
        made = function(source)
    except TypeError as error:
        raise TypeError(
            f"{name} was called with an iterator over the whole stream: {error}; {_PER_DATAPOINT.format(name)}"
        ) from error
    if not hasattr(made, "__iter__"):
        raise TypeError(
            f"{name} was called with an iterator over the whole stream, and returned {brief(made)}; "
            f"{_PER_DATAPOINT.format(name)}"
        )
    return made
