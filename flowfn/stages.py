"""Stages: functions from flow to flow, made from generator functions by one word, and composed by `pipe`.

A decorated function is called with its options, and with its source or without: `batch(128, source)` is a flow,
`batch(128)` is the stage that is left of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import toolz

from flowfn.failures import brief
from flowfn.flows import Flow
from flowfn.kinds import Each, Expand, Group, Node, Stream
from flowfn.orders import Order
from flowfn.rules import Rule, is_number, positive
from flowfn.sources import flow

GIVES: dict[Any, frozenset[str]] = {
    Each: frozenset({"rngs", "indices"}),
    Group: frozenset({"rngs", "indices"}),
    Expand: frozenset({"rngs", "indices"}),
    Order: frozenset({"rng"}),
    Stream: frozenset({"rng", "mark"}),
    None: frozenset(),
}
INJECTED = frozenset().union(*GIVES.values())


class _NotGiven:
    def __repr__(self) -> str:
        return "..."

    def __reduce__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = _NotGiven()


@dataclass(frozen=True, eq=False)
class Definition:
    """A decorated function, read once: its kind, its options, what it asks for, and the rules for its arguments."""

    kind: type[Node] | None
    function: Callable[..., Any]
    public: Callable[..., Any]
    signature: inspect.Signature
    asks: frozenset[str]
    positional: tuple[str, ...]
    several: bool
    where: Mapping[str, Rule]
    size: Any = 1
    step: Any = None
    whole: Any = False
    shards: tuple[str, ...] = ()
    switches: bool = False
    stream: Callable[..., Any] | None = None
    remedy: str = ""
    instead: str = ""
    transparent: bool = False
    strict: str | None = None
    draws: str | None = "rng"
    endless: bool = False
    keeps_length: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A stage, or a flow if the source was given."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            hint = "; a flow has one seed for all its stages: reset_state(seed)" if "'seed'" in str(error) else ""
            raise TypeError(f"{self.name}(): {error}{hint}") from None
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        pinned = arguments.pop("name", None) if "name" not in self.function_options else None
        source = arguments.pop("sources" if self.several else "source", NOT_GIVEN)
        for name, rule in self.where.items():
            arguments[name] = rule.check(self.name, name, arguments[name], arguments)
        if self.instead and not self.several and is_number(source):
            raise TypeError(f"{self.name}(): {source!r} is no source; write {self.instead.format(source)}")
        made = Stage(self, arguments, pinned)
        if self.several:
            return made.over(source)
        return made if source is NOT_GIVEN else made(source)

    @functools.cached_property
    def function_options(self) -> frozenset[str]:
        """The names of the function's own options."""
        return frozenset(inspect.signature(self.function).parameters)


class Stage:
    """A function from flow to flow: what is left of a call when its source is left out.

    Its repr is the call that made it. Stages compare by function and arguments, and pickle.
    """

    __slots__ = (
        "_front",
        "_function",
        "_options",
        "arguments",
        "asks",
        "definition",
        "kind",
        "memory",
        "name",
        "pinned",
        "random",
        "wants_labels",
    )

    def __init__(self, definition: Definition, arguments: Mapping[str, Any], pinned: str | None = None) -> None:
        self.definition, self.arguments, self.pinned = definition, dict(arguments), pinned
        self.kind, self.name, self.asks = definition.kind, definition.name, definition.asks
        self.random = bool(self.asks & {"rng", "rngs"}) and bool(arguments.get(definition.draws or "", True))
        self.wants_labels = self.random or "indices" in self.asks
        self.memory = None if self.kind is None else self.kind.remember()
        self._front = tuple(arguments[name] for name in definition.positional)
        self._options = {name: value for name, value in arguments.items() if name not in definition.positional}
        self._options |= dict.fromkeys(self.asks)  # what is asked for and not given is None
        self._function = definition.function

    def __call__(self, source: Any) -> Flow[Any]:
        if isinstance(source, (Stage, Composed)):
            raise TypeError(f"{self.name}(): source is the stage {source}, not data; write pipe(source, {source}, {self})")
        return self.over((source,))

    def over(self, sources: Sequence[Any]) -> Flow[Any]:
        """The flow of this stage over its sources."""
        if not sources:
            raise TypeError(f"{self.name}() needs at least one source")
        flows = tuple(flow(source, self.name) for source in sources)
        definition = self.definition
        if self.kind is None:
            made = definition.function(*self._front, *flows, **self._options)
            return Flow(made.part, made.sources, made=(self, flows[0]))
        if self.kind is Order and definition.stream is None:
            for source in flows:
                if not source.seekable:
                    remedy = definition.remedy or f"; put {self.name} before it, or give a list"
                    raise TypeError(f"{self.name}() needs a source that can be indexed, but {source.node.unknown()}{remedy}")
        if definition.shards:
            for source in flows:
                _agree(self, source)
        made = Flow(self if self.memory is None else Stage(definition, self.arguments, self.pinned), flows)
        if self.strict or (self.kind is Order and not self.random and made.node.seekable):
            made.node.length_or_none()  # what the lengths make impossible is an error here already
        elif self.kind is Order and not made.node.seekable:
            next(self.stretches(len(flows)), None)
        return made

    # What the kinds ask

    def open(self, inputs: Sequence[Any], **injected: Any) -> Iterator[Any]:
        """Start the function on its inputs."""
        made = self.order(inputs, **injected) if injected else self._function(*self._front, *inputs, **self._options)
        if made is None:
            raise TypeError(f"{self} returned None where an iterator was due; does its function yield?")
        return iter(made)

    def order(self, lengths: Sequence[Any], **injected: Any) -> Any:
        """Call the function on the lengths of its sources, as an order stage's is."""
        return self._function(*self._front, *lengths, **(self._options | injected))

    def stretches(self, sources: int) -> Any:
        """The second form of an order stage, for streams."""
        stream: Any = self.definition.stream
        return stream(sources, **self.arguments) if self.definition.several else stream(**self.arguments)

    @property
    def sizes(self) -> tuple[int, int]:
        """(size, step) of a group."""
        size = self._named(self.definition.size)
        step = self._named(self.definition.step)
        return size, size if step is None else step

    @property
    def whole(self) -> bool:
        """Whether a group wants whole blocks only."""
        return bool(self._named(self.definition.whole))

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the arguments that hold rank and world."""
        return self.definition.shards

    @property
    def switches(self) -> bool:
        """Whether the route of an order stage switches between sources or rounds."""
        return self.definition.switches or self.definition.several

    @property
    def strict(self) -> bool:
        """Whether sources of different lengths are an error."""
        return self.definition.strict is not None and bool(self.arguments[self.definition.strict])

    @property
    def endless(self) -> bool:
        """Whether an order stage is endless whatever its source."""
        return self.definition.endless

    @property
    def keeps_length(self) -> bool:
        """Whether a stream stage gives as many outputs as it has inputs."""
        return self.definition.keeps_length

    @property
    def transparent(self) -> bool:
        """Whether the stage changes nothing of what comes out, and when."""
        return self.definition.transparent

    def _named(self, value: Any) -> Any:
        return self.arguments[value] if isinstance(value, str) else value

    # How it looks

    def call(self, sources: Sequence[Any] = ()) -> str:
        """The call that makes this stage over `sources`, as text."""
        parameters = self.definition.signature.parameters
        words = [repr(source) for source in sources]
        for name, value in self.arguments.items():
            if name in self.definition.positional:
                if value is not parameters[name].default:
                    words.append(_shown(value))
            elif not _same(value, parameters[name].default):
                words.append(f"{name}={_shown(value)}")
        if self.pinned is not None:
            words.append(f"name={self.pinned!r}")
        return f"{self.name}({', '.join(words)})"

    def __repr__(self) -> str:
        return self.call()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and (
            (self.name, self.definition.function.__module__, self.pinned)
            == (other.name, other.definition.function.__module__, other.pinned)
            and _same(self.arguments, other.arguments)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.pinned))

    def __reduce__(self) -> Any:
        return _rebuilt, (self.definition.public, self.arguments, self.pinned)


class Composed:
    """Several stages as one; it compares and pickles as they do."""

    def __init__(self, stages: tuple[Any, ...]) -> None:
        self.stages = stages

    def __call__(self, source: Any) -> Flow[Any]:
        return pipe(source, *self.stages)

    def __repr__(self) -> str:
        return f"compose({', '.join(map(repr, self.stages))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Composed) and self.stages == other.stages

    def __hash__(self) -> int:
        return hash(self.stages)


def pipe(source: Any, *stages: Any) -> Flow[Any]:
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
    if isinstance(source, (Stage, Composed)):
        raise TypeError(f"pipe(): the first argument is the source, but it is the stage {source}; write pipe(source, {source}, ...)")
    return toolz.pipe(flow(source, "pipe"), *(as_stage(stage, number) for number, stage in enumerate(stages, 2) if stage is not None))


def compose(*stages: Any) -> Composed:
    """Several stages as one, in the order in which `pipe` would run them.

    >>> import flowfn as ff
    >>> halves = ff.compose(ff.map(lambda x: x / 2), ff.batch(2))
    >>> list(halves([1, 2])), list(ff.pipe([3, 4], halves))
    ([array([0.5, 1. ])], [array([1.5, 2. ])])
    """
    return Composed(tuple(as_stage(stage, number, "compose") for number, stage in enumerate(stages, 1) if stage is not None))


def as_stage(stage: Any, number: int, caller: str = "pipe") -> Callable[[Any], Flow[Any]]:
    """A stage as such, a plain callable as a stream stage, or an error that says what to write."""
    if isinstance(stage, (Stage, Composed)):
        return stage
    where = f"{caller}(): argument {number}"
    if isinstance(stage, Flow):
        name = stage.part.name
        if len(stage.sources) and stage.part.definition.several:
            raise TypeError(f"{where} is a flow, not a stage; to join flows write {name}(a, b), flows first: {name}(pipe(...), ...)")
        raise TypeError(f"{where} is a flow, not a stage: {brief(stage)}; only the first argument of pipe is a source")
    definition = getattr(stage, "definition", None)
    if isinstance(definition, Definition):
        if definition.several:
            raise TypeError(f"{where} is {definition.name} itself; to join flows write {definition.name}(a, b)")
        if definition.positional:
            raise TypeError(
                f"{where} is {definition.name} without its arguments: write {definition.name}({', '.join(definition.positional)})"
            )
        return stage()
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
    def __call__(self, function: None = None, /, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...

    def __call__(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        if function is None:
            return functools.partial(self, **options)
        return _define(self._kind, function, **options)


class _StageWords(Kind):
    """`@stage` (the same as `@stage.stream`) and the five kinds."""

    def __init__(self) -> None:
        super().__init__(Stream, "A generator function of `source` (its last positional parameter) becomes a stage.")
        self.each = Kind(Each, "Output i comes from input i alone: one output for each input.")
        self.group = Kind(Group, "Output i comes from a block of inputs; `size=`, `step=` and `whole=` name the options that say which.")
        self.order = Kind(Order, "A function of n (the length of the source) that returns the indices of the outputs.")
        self.expand = Kind(Expand, "Each input gives 0 to k outputs, all of them before the next input is taken.")
        self.stream = Kind(Stream, "The stage sees the whole stream.")
        self.composite = Kind(None, "A function of a flow that returns a flow made of other stages.")


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
    asks = frozenset(p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name in INJECTED)
    word = kind.__name__.lower() if kind else "composite"
    if not asks <= GIVES[kind]:
        wanted, given = sorted(asks - GIVES[kind])[0], " and ".join(sorted(GIVES[kind])) or "nothing"
        raise TypeError(f"{name}: a stage.{word} function cannot have {wanted!r}; it can ask for {given}")
    front = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    star = next((p for p in parameters.values() if p.kind is p.VAR_POSITIONAL), None)
    if not front and star is None:
        raise TypeError(f"{name}: a stage function takes its source as its last positional parameter")
    options_first = front if star else front[:-1]
    if kind is not Order and any(p.name == "source" for p in options_first):
        raise TypeError(f"{name}: source is the last positional parameter of a stage function")
    shown = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in options_first]
    source = (
        inspect.Parameter("sources", inspect.Parameter.VAR_POSITIONAL)
        if star
        else inspect.Parameter("source", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=NOT_GIVEN)
    )
    keywords = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in asks]
    if asks & {"rng", "rngs"} and "name" not in parameters:
        keywords.append(inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None))
    signature = inspect.Signature([*shown, source, *keywords])

    @functools.wraps(function)
    def public(*args: Any, **kwargs: Any) -> Any:
        return definition.called(args, kwargs)

    positional = tuple(p.name for p in options_first)
    if kind is Group:
        where = {**_sizes(name, signature, options), **(where or {})}
    definition = Definition(reads or kind, function, public, signature, asks, positional, star is not None, where or {}, **options)
    del public.__wrapped__
    public.__signature__ = signature  # type: ignore[attr-defined]
    public.definition = definition  # type: ignore[attr-defined]
    return public


def _sizes(name: str, signature: inspect.Signature, options: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules for the options that hold a group's size and step."""
    if "size" not in options:
        raise TypeError(
            f'{name}: stage.group needs to know how many inputs make an output: @stage.group(size="name of the option"), or a number'
        )
    named = [value for word in ("size", "step") if isinstance(value := options.get(word), str)]
    for option in named:
        if option not in signature.parameters:
            raise TypeError(f"{name}: stage.group looks for the option {option!r}, which the function does not have")
    return dict.fromkeys(named, positive)


def _rebuilt(public: Any, arguments: dict[str, Any], pinned: str | None) -> Stage:
    return Stage(public.definition, arguments, pinned)


def _agree(stage: Stage, source: Flow[Any]) -> None:
    if source._entropic and stage.arguments[stage.shards[1]] > 1:
        raise ValueError(
            f"{stage}: ranks would disagree, because the seed of this flow was drawn from this process's entropy; "
            "give one seed to all: reset_state(seed)"
        )


def _shown(value: Any) -> str:
    if type(value) in (list, tuple) and any(map(callable, value)):
        items = ", ".join(map(_shown, value))
        return f"[{items}]" if type(value) is list else f"({items}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping) and any(map(callable, value.values())):
        return "{" + ", ".join(f"{key!r}: {_shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, functools.partial):
        inner = [_shown(value.func), *map(_shown, value.args), *(f"{k}={_shown(v)}" for k, v in value.keywords.items())]
        return f"partial({', '.join(inner)})"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return brief(value)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "dtype") and hasattr(a, "shape"):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, functools.partial):
        return _same((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    return bool(a == b)


_PER_DATAPOINT = "to call it with one datapoint at a time, write map({})"
stage = _StageWords()


@stage.stream
def _calling(function: Callable[[Any], Any], source: Any) -> Any:
    name = _shown(function)
    try:
        made = function(source)
    except TypeError as error:
        raise TypeError(f"{name} was called with an iterator over the whole stream: {error}; {_PER_DATAPOINT.format(name)}") from error
    if not hasattr(made, "__iter__"):
        raise TypeError(
            f"{name} was called with an iterator over the whole stream, and returned {brief(made)}; {_PER_DATAPOINT.format(name)}"
        )
    return made
