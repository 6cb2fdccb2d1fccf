"""What happens when a stage fails: the one policy for errors, as a stage around a stage.

A guarded stage runs as it would alone. When it fails, its generator is started again behind the datapoint in work, and
that datapoint is tried again by itself, with the random numbers it had. What has failed for good is counted in the
order of delivery, whoever ran it: the count travels with outputs, as anchors do, and is part of a state.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice, tee
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.definitions import Stage
from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow
from flowfn.flows.stages import as_stage
from flowfn.flows.stages import stage as kinds
from flowfn.flows.translating import speaks
from flowfn.functions import renamed
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import MISSING, Each, Node, Trail
from flowfn.kinds.parts import Traits
from flowfn.kinds.runs import Outputs, Run
from flowfn.kinds.streams import Expand
from flowfn.kinds.tallies import Dropped, Passage, Tallies
from flowfn.randomness.generators import Label

_ERRORS = rules.Rule(
    "a subclass of Exception or a tuple of them",
    lambda value: all(
        isinstance(one, type) and issubclass(one, Exception)
        for one in (value if isinstance(value, tuple) else (value,))
    ),
    lambda value, others: value != (),
)
_THEN = rules.Rule(
    "'raise', 'drop', 'next' or a function of the datapoint and the error",
    lambda value: callable(value) or isinstance(value, str),
    lambda value, others: callable(value) or value in ("raise", "drop", "next"),
)
_BUDGET = rules.Rule(
    "None, a number of datapoints (an integer >= 0) or a share of them (a float between 0 and 1)",
    lambda value: value is None or rules.is_number(value),
    lambda value, others: value is None or (value >= 0 if rules.is_integer(value) else 0 < value < 1),
)


@speaks
@rules.checked(errors=_ERRORS, retry=rules.natural, then=_THEN, budget=_BUDGET)
def guard(
    stage: Any, *, errors: Any = Exception, retry: int = 0, then: Any = "raise", budget: float | None = None
) -> Stage:
    """Decide what happens when a stage fails on a datapoint: try again, leave it out, or put something in its place.

    `errors` (a class, or a tuple of them) raised by the stage itself are handled; those from further up are not.
    The datapoint is tried `retry` times more, each time with the same random numbers; outputs that it has given before
    it failed stay, and are not given again. Then:
    "raise" raises; "drop" leaves it out, so the flow has no length any more; "next" takes the first datapoint behind it
    that works, cyclically (for stages like `map`, over a source that can be indexed); a function `then(datapoint,
    error)` gives what to put in its place.
    `budget`: how many may fail before the error is raised after all: a number, or a share of the datapoints so far,
    judged at each failure from datapoint 1/budget on. It does not depend on who does the work.
    What failed is in `iterator.dropped` (the newest 100): `index` (the datapoint's own, as in `indices`), `error`,
    `datapoint`, `stage`.

    Raises:
        TypeError: the stage is none that works datapoint by datapoint (or batch by batch).
        ValueError: "next" for a stage that is not like `map`; a budget for "raise".

    >>> import flowfn as ff
    >>> inverse = ff.guard(ff.map(lambda x: 1 / x), errors=ZeroDivisionError, then="drop")
    >>> with iter(ff.pipe([1, 0, 2], inverse)) as iterator:
    ...     list(iterator), iterator.dropped[0].index
    ([1.0, 0.5], 1)
    >>> list(ff.pipe([1, 0], ff.guard(ff.map(lambda x: 1 / x), then=lambda x, error: -1.0)))
    [1.0, -1.0]
    """
    inner = as_stage(stage, 1, "guard")
    if not isinstance(inner, Stage) or _guarding(inner) is None:
        raise TypeError(f"guard(): stage must work datapoint by datapoint (each, group or expand), got {inner!r}")
    if then == "next" and _guarding(inner) is not GuardedEach:
        raise ValueError(
            f"guard(): then='next' is for stages like map, that give one output for one datapoint, got {inner!r}"
        )
    if then == "raise" and budget is not None:
        raise ValueError(
            "guard(): budget counts what is dropped or replaced, so it needs then='drop', 'next' or a function"
        )
    return Guarded(inner, {"errors": errors, "retry": retry, "then": then, "budget": budget})


def _guarding(inner: Stage) -> type[Node] | None:
    """The kind of a stage, guarded; None if it is none that works datapoint by datapoint."""
    kind = inner.kind
    if kind is None or kind.boundary or kind.root or inner.traits.transparent or isinstance(inner, Guarded):
        return None
    return next((guarded for plain, guarded in _GUARDED_KINDS if issubclass(kind, plain)), None)


class Guarded(Stage):
    """A stage with a policy for its errors. It draws what the stage alone would draw."""

    __slots__ = ("inner",)

    def __init__(self, inner: Stage, policy: dict[str, Any]) -> None:
        super().__init__(_DEFINITION, {"stage": inner, **policy}, inner.pinned)
        self.inner, self.name = inner, "guard"
        self.kind = GuardedExpand if policy["then"] == "drop" else _guarding(inner)
        self.random, self.wants_labels = inner.random, True
        size, step = (inner.traits.size, inner.traits.step) if self.kind is GuardedGroup else (1, 1)
        entire = inner.traits.newest or not (inner.kind is not None and issubclass(inner.kind, Expand))
        self.traits = Traits(size=size, step=step, whole=inner.traits.whole, newest=entire)

    def over(self, sources: Sequence[Any]) -> Flow[Any]:
        """The flow of the stage over its source."""
        source = flow(sources[0], self.name)
        if self.arguments["then"] == "next" and not source.seekable:
            raise TypeError(f"{self}: then='next' needs a source that can be indexed, but {source.node.unknown()}")
        if self.kind is not GuardedExpand or self.inner.kind is None or not issubclass(self.inner.kind, Group):
            return super().over((source,))
        block = self.inner.traits
        made = super().over((guarded_groups(block.size, source, step=block.step, whole=block.whole),))
        return Flow(made.part, made.sources, made=(self, source))

    def call(self, sources: Sequence[Any] = ()) -> str:
        """The call that makes this stage over `sources`, as text. A pinned name is said inside."""
        text = super().call(sources)
        return text if self.pinned is None else f"{text.removesuffix(f', name={self.pinned!r})')})"

    @property
    def draws_as(self) -> str:
        """The name by which its random numbers are told apart."""
        return self.inner.name

    def __reduce__(self) -> Any:
        policy = {name: value for name, value in self.arguments.items() if name != "stage"}
        return Guarded, (self.inner, policy)


class _Guarding(Node):
    """Starts a guarded stage on its inputs, whatever its kind."""

    guards = True

    def setup(self) -> None:
        """`inner` is the node that the stage would be without its guard."""
        super().setup()
        inner: Any = self.part.inner
        self.inner = inner.kind(inner, self.sources, self.place, self.number)

    def begin(
        self, run: Run, inputs: Sequence[Outputs], labels: Iterable[Label], trail: Trail | None = None
    ) -> Outputs:
        """The guarded generator."""
        return Outputs(
            Guarding(self, run, inputs[0], labels, trail is not None).guarded(inputs[0]), self, inputs, trail=trail
        )


class GuardedEach(_Guarding, Each):
    """A guarded stage that gives one output for each input."""


class GuardedGroup(_Guarding, Group):
    """A guarded stage that gives one output for each group of inputs."""


class GuardedExpand(_Guarding, Expand):
    """A guarded stage that gives any number of outputs for each input, or that leaves some out."""


_GUARDED_KINDS: tuple[tuple[type[Node], type[Node]], ...] = (
    (Each, GuardedEach),
    (Group, GuardedGroup),
    (Expand, GuardedExpand),
)


class Guarding:
    """One guarded generator: the datapoints that the stage has taken and not yet answered,
    and what to do when it fails."""

    intake: Any = None
    pairs: Iterator[tuple[Any, ...]] | None = None
    passage: Passage

    def __init__(self, node: _Guarding, run: Run, source: Outputs, labels: Iterable[Label], indexed: bool) -> None:
        self.node, self.run, self.source, self.indexed = node, run, source, indexed
        self.stage, self.policy = node.part.inner, node.part.arguments
        self.labels = tee(labels, 1)[0]
        self.counts = not isinstance(node.inner, Expand)  # one output for one input: an output answers the oldest
        self.alone = self.counts and isinstance(node, Expand)
        self.unanswered: deque[tuple[Any, ...]] = (
            deque()
        )  # (datapoint, label, number), or (datapoint, label) if that is its number
        self.output_count = 0  # outputs of the input in work, where an input can have several
        self.over = self.again = self.looking = False

    @property
    def waiting(self) -> bool:
        """Whether it is for what is upstream that the stage waits: an error that comes now is not its own."""
        return self.looking or (self.intake.gi_frame is None and not self.over)

    def inputs(self) -> Generator[Any]:
        """The inputs, as the stage takes them."""
        if self.pairs is None:
            self.pairs = self._numbered()
        unanswered = self.unanswered
        for pair in self.pairs:
            if unanswered and not self.counts:
                self.passage.at = unanswered.popleft()[-1]
            unanswered.append(pair)
            self.output_count = 0
            yield pair[0]
            if self.alone and unanswered:
                self.again = True  # it reads ahead, but what is left out has to be known one by one: this was all
                break
        self.over = True

    def _numbered(self) -> Iterator[tuple[Any, ...]]:
        """The inputs with their labels and, where these do not number them in the order in which
        they come, with numbers."""
        tally = self.run.tallies.of(self.node.place)
        if self.indexed and self.run.ordered:
            first = next(copy.copy(self.labels), 0)
            self.passage = tally.begin(Passage(self.run.epoch, first, self.node.labels(self.run)))  # type: ignore[arg-type]
            return zip(self.source, self.labels)
        if self.indexed:
            self.passage = tally.begin(Passage(self.run.epoch[:1], tally.now().inputs[1], absolute=False))
        else:
            self.passage = tally.begin(Passage(self.run.epoch, self.source.position, absolute=self.run.feed is None))
        return zip(self.source, self.labels, count(self.passage.first))

    def guarded(self, source: Outputs) -> Iterator[Any]:
        """The outputs of the stage; when it fails it is started again behind what it failed on."""
        unanswered, answered = self.unanswered, self.unanswered.popleft
        while True:
            self.over = self.again = False
            failed = None  # what the one in work failed with, if it is known which one that was
            self.intake = self.inputs()
            try:
                made = self._start(self.intake, copy.copy(self.labels))
                if self.counts:
                    for output in made:
                        if not unanswered:
                            raise self._uneven()
                        self.passage.at = answered()[-1]
                        yield output
                else:
                    for output in made:
                        self.output_count += 1
                        yield output
            except Exception as error:
                if unanswered:
                    datapoint = unanswered[-1][0]  # for the note
                if self.waiting or not unanswered or not isinstance(error, self.policy["errors"]):
                    raise
                failed = error if len(unanswered) == 1 else None
            else:
                if (
                    self.counts
                    and not self.again
                    and (unanswered or (not self.over and next(self.source, MISSING) is not MISSING))
                ):
                    raise self._uneven()
                if not self.again:
                    if unanswered:
                        self.passage.at = answered()[-1]
                    return
            while unanswered:
                unit = answered()
                datapoint = unit[0]
                yield from self._settled(unit, failed)
                del datapoint  # the next error is another's

    def _start(self, inputs: Iterator[Any], labels: Iterator[Label]) -> Any:
        """The generator of the stage on some inputs, as it would be without its guard."""
        return self.node.inner.begin(self.run, [inputs], labels).source

    def _settled(self, unit: tuple[Any, ...], error: Exception | None) -> Iterator[Any]:
        """The outputs of one input on its own: tried again, dropped or replaced.
        `error` is what it failed with before."""
        datapoint, label = unit[:2]
        for _ in range(self.policy["retry"] + (error is None)):
            try:
                made = self._start(iter((datapoint,)), iter((label,)))
                if self.counts:
                    outputs = list(made)
                else:
                    for output in islice(made, self.output_count, None):
                        self.output_count += 1
                        yield output
                    self.passage.at = unit[-1]
                    return
            except self.policy["errors"] as again:
                error = again
            else:
                if len(outputs) != 1:
                    raise self._uneven()
                self.passage.at = unit[-1]
                yield outputs[0]
                return
        yield from self._instead(unit, error)  # type: ignore[arg-type]

    def _instead(self, unit: tuple[Any, ...], error: Exception) -> list[Any]:
        """What to give for an input that has failed for good."""
        (datapoint, label), then = unit[:2], self.policy["then"]
        if then == "raise":
            raise error
        outputs = [then(datapoint, error)] if callable(then) else []
        dropped = Dropped(label, error, datapoint, str(self.stage))
        self.run.tallies.failed(self.node.place, self.passage.reached(unit[-1]), dropped, self.policy["budget"])
        self.passage.at = unit[-1]
        return self._next(label, error) if then == "next" else outputs

    def _next(self, label: Label, error: Exception) -> list[Any]:
        """What the stage makes of the first datapoint behind one that works."""
        (source,) = self.node.sources
        offset, stride = source.labels(self.run)
        index, n = (label - offset) // stride, source.length(self.run)  # type: ignore[operator]
        aside = replace(
            self.run, engine="none", tallies=Tallies(counts=False)
        )  # nobody starts to work ahead there, and nobody counts
        for tried in count(index + 1) if n == math.inf else range(index + 1, index + int(n)):  # type: ignore[arg-type]
            self.looking = True
            (other,) = source.read(aside, iter((np.array([tried % n], np.int64),)))  # type: ignore[operator]
            self.looking = False
            with contextlib.suppress(self.policy["errors"]):
                return list(self._start(iter((other,)), iter((label,))))
        raise error

    def _uneven(self) -> ValueError:
        return ValueError(
            f"{self.stage} gave the wrong number of outputs: a stage.each or stage.group function yields exactly one "
            "output for each input"
        )


@kinds.group(size="size", step="step", whole="whole")
@renamed("blocks")
def guarded_groups(size: int, source: Any, *, step: int, whole: bool) -> Iterator[Any]:
    """Groups as they are, for a guarded stage to take one by one."""
    yield from source


@kinds.of_node(GuardedEach)
def _guarded(
    stage: Any, source: Any, *, errors: Any = Exception, retry: int = 0, then: Any = "raise", budget: Any = None
) -> Any:
    """What `guard` makes; the kind of the stage in it says which node it is."""


_DEFINITION = _guarded.definition
