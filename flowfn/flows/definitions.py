"""What a decorated function is: its definition, read once, and the stages that calls of it make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow
from flowfn.flows.translating import no_attribute, unknown_keyword
from flowfn.functions import is_stage
from flowfn.kinds.nodes import Node
from flowfn.kinds.orders import Order
from flowfn.kinds.parts import ANY_NOTE, NO_NOTE, Traits
from flowfn.pickling.by_value import Picklable
from flowfn.process import forks
from flowfn.rules import Rule, is_number
from flowfn.showing import as_called, as_written


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
    later: tuple[str, ...] = ()  # options that were not there at first: at their defaults they count nowhere
    switches: bool = False
    stream: Callable[..., Any] | None = None
    remedy: str = ""
    instead: str = ""
    said: str = ""  # how users wrote it, with its options in braces, if it is a part of something that they know
    transparent: bool = False
    strict: str | None = None
    draws: str | None = "rng"
    endless: bool = False
    times: Any = None
    joins: Callable[..., Any] | None = None
    newest: bool = False
    moves: bool = False
    together: bool = False
    note: Rule = ANY_NOTE  # what a stage that is marked notes beside its place in its sources

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A stage, or a flow if the source was given."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            unknown = next((word for word in kwargs if word not in self.signature.parameters), None)
            if unknown is None:
                raise TypeError(f"{self.name}(): {error}") from None
            said = unknown_keyword(self.name, unknown, self.signature.parameters)
            raise TypeError(f"{self.name}(): got an unexpected keyword argument {unknown!r}{said}") from None
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        pinned = arguments.pop("name", None) if "name" not in self.function_options else None
        source = arguments.pop("sources" if self.several else "source", NOT_GIVEN)
        for name, rule in self.where.items():
            try:
                arguments[name] = rule.check(self.name, name, arguments[name], arguments)
            except TypeError as error:
                if self.several or source is NOT_GIVEN or name not in self.positional[:1]:
                    raise
                if rule.fits_type(arguments[name]) or not rule.fits_type(source):
                    raise
                raise TypeError(
                    f"{error}; the source comes last: {self.name}({', '.join(self.positional)}, source)"
                ) from None
        if self.instead and not self.several and is_number(source):
            raise TypeError(f"{self.name}(): {source!r} is no source; write {self.instead.format(source)}")
        made = Stage(self, arguments, pinned)
        if self.several:
            return made.over(source)
        return made if source is NOT_GIVEN else made(source)

    def traits(self, arguments: Mapping[str, Any]) -> Traits:
        """How outputs come from inputs where these are the arguments."""

        def meant(value: Any) -> Any:
            return arguments[value] if isinstance(value, str) else value

        size, step = meant(self.size), meant(self.step)
        defaults = self.signature.parameters
        return Traits(
            transparent=self.transparent,
            strict=bool(meant(self.strict)),
            size=size,
            step=size if step is None else step,
            whole=bool(meant(self.whole)),
            shards=self.shards,
            left_out=tuple(name for name in self.later if _same(arguments[name], defaults[name].default)),
            rounds=self.switches,
            switches=self.switches or self.several,
            endless=self.endless,
            times=meant(self.times),
            newest=self.newest,
            moves=self.moves,
            together=self.together,
            note=self.note if "mark" in self.asks else NO_NOTE,
        )

    @forks.cached_property
    def function_options(self) -> frozenset[str]:
        """The names of the function's own options."""
        return frozenset(inspect.signature(self.function).parameters)


class Stage(Picklable):
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
        "traits",
        "wants_labels",
    )

    is_stage = True

    def __init__(self, definition: Definition, arguments: Mapping[str, Any], pinned: str | None = None) -> None:
        self.definition, self.arguments, self.pinned = definition, dict(arguments), pinned
        self.kind, self.name, self.asks = definition.kind, definition.name, definition.asks
        self.random = bool(self.asks & {"rng", "rngs"}) and bool(arguments.get(definition.draws or "", True))
        self.wants_labels = self.random or "indices" in self.asks
        self.traits = definition.traits(self.arguments)
        self.memory: Any = None if self.kind is None else self.kind.remember()
        self._front = tuple(arguments[name] for name in definition.positional)
        self._options = {name: value for name, value in arguments.items() if name not in definition.positional}
        self._options |= dict.fromkeys(self.asks)  # what is asked for and not given is None
        self._function = definition.function

    def __call__(self, source: Any) -> Flow[Any]:
        if is_stage(source):
            raise TypeError(
                f"{self.name}(): source is the stage {source}, not data; write pipe(source, {source}, {self})"
            )
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
                    raise TypeError(
                        f"{self.name}() needs a source that can be indexed, but {source.node.unknown()}{remedy}"
                    )
        if definition.shards:
            for source in flows:
                _agree(self, source)
        made = Flow(self if self.memory is None else Stage(definition, self.arguments, self.pinned), flows)
        if self.traits.strict or (issubclass(self.kind, Order) and made.node.seekable):
            made.node.length_or_none()  # what the lengths make impossible is an error here already
        elif self.kind is Order and not made.node.seekable:
            next(self.sections(len(flows)), None)
        return made

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            raise TypeError(not_data(self))

        def __getattr__(self, name: str) -> NoReturn:
            no_attribute(self, name)

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

    def sections(self, sources: int) -> Any:
        """The second form of an order stage, for streams."""
        stream: Any = self.definition.stream
        return stream(sources, **self.arguments) if self.definition.several else stream(**self.arguments)

    @property
    def draws_as(self) -> str:
        """The name by which its random numbers are told apart, if it is given no other."""
        return self.name

    def join(self, parts: Sequence[Any]) -> Any:
        """The output of a group, from what the stage made of consecutive parts of its inputs;
        None if that cannot be said."""
        return None if self.definition.joins is None else self.definition.joins(parts, **self.arguments)

    # How it looks

    def call(self, sources: Sequence[Any] = ()) -> str:
        """The call that makes this stage over `sources`, as text."""
        parameters = self.definition.signature.parameters
        positional, options = [*map(repr, sources)], {}
        for name, value in self.arguments.items():
            if name in self.definition.positional:
                if value is not parameters[name].default:
                    positional.append(as_written(value))
            elif not _same(value, parameters[name].default):
                options[name] = as_written(value)
        if self.pinned is not None:
            options["name"] = repr(self.pinned)
        return as_called(self.name, *positional, **options)

    def __repr__(self) -> str:
        said = self.definition.said
        return said.format(**{name: as_written(one) for name, one in self.arguments.items()}) if said else self.call()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and (
            (self.name, self.definition.function.__module__, self.pinned)
            == (other.name, other.definition.function.__module__, other.pinned)
            and _same(self.arguments, other.arguments)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.pinned))

    def __reduce__(self) -> Any:
        return _rebuilt_stage, (self.definition.public, self.arguments, self.pinned)


@dataclass(frozen=True)
class Call:
    """The call that made a flow, for one that is made of others."""

    name: str
    sources: Sequence[Any]
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        options = {name: as_written(value) for name, value in self.options.items()}
        return as_called(self.name, *map(_source, self.sources), **options)


def _source(source: Any) -> str:
    return (
        "{" + ", ".join(f"{k!r}: {v!r}" for k, v in source.items()) + "}"
        if isinstance(source, Mapping)
        else repr(source)
    )


def not_data(stage: Any) -> str:
    """What to say where a stage is taken for data."""
    return f"{stage} is a stage, which holds no datapoints; write pipe(source, {stage})"


def _rebuilt_stage(public: Any, arguments: dict[str, Any], pinned: str | None) -> Stage:
    return Stage(public.definition, arguments, pinned)


def _agree(stage: Stage, source: Flow[Any]) -> None:
    if source._entropic and stage.arguments[stage.traits.shards[1]] > 1:
        raise ValueError(
            f"{stage}: ranks would disagree, because the seed of this flow was drawn from this process's entropy; "
            "give one seed to all: reset_state(seed)"
        )


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
