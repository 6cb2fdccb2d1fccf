"""Finding the stages that change their datapoints in place: what each stage is given is compared before and after.

    source --> given --> stage --> left --> given --> stage --> left --> given --> who reads the flow

A copy of the tree has a node on either side of every stage that runs somebody's function. The one in front takes a
digest of what the stage is given; whenever control leaves the stage (it gives an output, it asks for its next input, it
ends) the digests are taken again. Most changes do no harm: a stage may do as it likes with what was made for it. So one
that is found is judged: the datapoint is asked for once more, and if it is no longer what it was, somebody else had it
too.
"""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from flowfn.blocks import Block, each_index, shared
from flowfn.digests.pipelines import Digest
from flowfn.flows.definitions import Definition, Stage
from flowfn.flows.flow import Flow
from flowfn.flows.sources import ForeignNode
from flowfn.flows.stages import stage
from flowfn.kinds.failures import failure_place, mark
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import Each, Node
from flowfn.kinds.orders import Order
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Outputs, Run
from flowfn.kinds.streams import Expand
from flowfn.kinds.tallies import Tallies
from flowfn.pickling.homes import is_ours
from flowfn.showing import brief
from flowfn.vocabulary.keeping.caching import CacheNode

REACH = 16
"""How many inputs back it is looked for changes, in stages that may hold more than one:
streams, and those of others."""

_BY_NAME = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, Flow, Stage, Definition)


class InputChanged(ValueError):
    """A stage changes in place what it is given, and what it is given belongs to others too."""


@stage.composite
def check_inputs(source: Any) -> Flow[Any]:
    """Watch every stage upstream, and raise an error that names the one that changes its datapoint in place.

    A function that changes its datapoint (`x /= 2`, `d.pop("id")`, `items.sort()`) changes the list, the cache or the
    variable that holds it: the next epoch gives other data, and every number of workers others again. For finding such
    a function, put `check_inputs()` last, or where the datapoints are still right. Changes that reach nobody else (of
    an array that the stage before has just made, say) are no error. Who reads the flow is watched too.

    It compares digests of all that every stage is given (arrays, tensors, containers, objects by what pickle would keep
    of them), so it is slow: leave it out when the stage is found. What is upstream runs serially, in this process; its
    datapoints, random numbers and states are the same. Flows that functions make are not looked into.

    Raises:
        ValueError: when the datapoint is reached, with the stage and the datapoint.

    >>> import flowfn as ff
    >>> def label(record):
    ...     record["label"] = record["label"] + 1
    ...     return record
    >>> try:
    ...     list(ff.pipe([{"label": 6}], ff.map(label), ff.check_inputs()))
    ... except ValueError as error:
    ...     print(str(error)[:69])
    map(label) changes its datapoint in place (datapoint 0: {'label': 7})
    >>> list(ff.pipe([{"label": 6}], ff.map(dict), ff.map(label), ff.check_inputs()))
    [{'label': 7}]
    """
    return given("who reads this flow", watched(source))


def watched(flow: Flow[Any], copies: dict[int, Flow[Any]] | None = None) -> Flow[Any]:
    """A copy of a tree in which every stage that runs somebody's function is watched; a flow used twice stays one."""
    copies = {} if copies is None else copies
    if not flow.sources:
        return flow
    if id(flow) not in copies:
        made, sources = copy.copy(flow), [watched(source, copies) for source in flow.sources]
        looked_at = _runs_a_function(flow.part)
        made.sources = tuple(given(flow.part, source) for source in sources) if looked_at else tuple(sources)
        copies[id(flow)] = left(made) if looked_at else made
    return copies[id(flow)]


def _runs_a_function(part: Stage) -> bool:
    """Whether a stage can change anything: it is no built-in one, or was given something to call."""
    kind = part.kind
    if kind is None or part.traits.transparent or kind.root or kind.boundary or issubclass(kind, Order):
        return False
    return not _built_in(part) or any(map(_calls, part.arguments.values()))


def _built_in(part: Stage) -> bool:
    return is_ours(part.definition.function.__module__)


def _reach(to: Any) -> int:
    """How many of its last inputs a stage may still change."""
    kind = getattr(to, "kind", None)
    if kind is None or (issubclass(kind, (Each, Expand)) and _built_in(to)):
        return 1
    return int(to.traits.size) if issubclass(kind, Group) else REACH


def _calls(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return any(map(_calls, value)) if isinstance(value, (list, tuple)) else callable(value)


class _Between(Each):
    """Stands beside a stage; datapoints pass unchanged, and one by one."""

    here = True


class GivenNode(_Between):
    """In front of a stage: gives on what the stage takes, and remembers what it was."""

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The datapoints as they come, by index."""
        run, (series, again) = replace(run, engine="none"), shared(series, 2)
        inputs = self.sources[0].read(run, series)
        return Outputs(Given(self, run, inputs, each_index(again)), None, [inputs])

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The datapoints as they come, with their lineage if it is asked for."""
        run = replace(run, engine="none")
        inputs = self.sources[0].stream(run, start, lineage)
        return Outputs(Given(self, run, inputs, count(start), lineage), None, [inputs], start)


class LeftNode(_Between):
    """Behind a stage: gives on what the stage gives, and has what it was given looked at."""

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs as they come, by index."""
        return self.left(self.sources[0].read(run, series))

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """The outputs as they come, with their lineage if it is asked for."""
        return self.left(self.sources[0].stream(run, start, lineage), start)

    def left(self, outputs: Outputs, start: int = 0) -> Outputs:
        """The outputs of the stage, watched."""
        return Outputs(Left(outputs), None, [outputs], start)


@stage.of_node(GivenNode, transparent=True, said="check_inputs()")
def given(to: Any, source: Any) -> Any:
    """What a stage is given."""


@stage.of_node(LeftNode, transparent=True, said="check_inputs()")
def left(source: Any) -> Any:
    """What a stage gives."""


@dataclass(slots=True)
class Lent:
    """An input that a stage may still have: its number, what it was when it was given,
    and when the stage last got control."""

    number: int
    datapoint: Any
    digest: bytes
    before: bytes


class Given(Iterator[Any]):
    """The inputs of one generator. It holds on to those that the generator may still change."""

    def __init__(self, node: Node, run: Run, inputs: Outputs, numbers: Iterator[int], pairs: bool = False) -> None:
        self.to, self.source, self.inputs, self.numbers, self.pairs = (
            node.part.arguments["to"],
            node.sources[0],
            inputs,
            numbers,
            pairs,
        )
        self.aside = replace(run, tallies=Tallies(counts=False), memo={})  # what is made once more is counted by nobody
        self.stream: Outputs | None = None
        self.works_between = not issubclass(getattr(self.to, "kind", Each), Group)  # whose inputs are taken for it
        self.lent_inputs: deque[Lent] = deque(maxlen=_reach(self.to))

    def __next__(self) -> Any:
        if self.works_between:
            self.compare()
        item = next(self.inputs)
        if self.works_between:
            self.look()
        datapoint = item[0] if self.pairs else item
        digest = contents(datapoint)
        self.lent_inputs.append(Lent(next(self.numbers), datapoint, digest, digest))
        return item

    def look(self) -> None:
        """The stage gets control: what others did meanwhile is theirs."""
        for lent in self.lent_inputs:
            lent.before = contents(lent.datapoint)

    def compare(self) -> None:
        """The stage has left control: is what it holds what it was?"""
        for lent in self.lent_inputs:
            if contents(lent.datapoint) != lent.before and not self.made_for_it(lent):
                raise self.changed(lent)

    def made_for_it(self, lent: Lent) -> bool:
        """Whether nobody else has a datapoint: made once more, it is what it was.
        What comes only once is nobody else's; what is cached is not made."""
        read = top_down(self.source, beyond=lambda node: not isinstance(node, CacheNode))
        sources = [node for node in read if not node.sources]
        if any(isinstance(node, ForeignNode) for node in sources):
            return False
        return any(node.here for node in sources) or contents(self.again(lent.number)) == lent.digest

    def again(self, number: int) -> Any:
        """A datapoint once more."""
        if self.source.seekable:
            return next(self.source.read(self.aside, iter((range(number, number + 1),))))
        if self.stream is None or self.stream.position > number:
            self.stream = self.source.stream(self.aside, number)
        return next(self.stream.drop(number - self.stream.position))

    def close(self) -> None:
        """The pass is over."""
        if self.stream is not None:
            self.stream.close()

    def changed(self, lent: Lent) -> InputChanged:
        """The error that names stage and datapoint."""
        shown = " ".join(brief(lent.datapoint).split())
        error = InputChanged(
            f"{self.to} changes its datapoint in place (datapoint {lent.number}: {shown}), and others hold that too: "
            "the next epoch and other numbers of workers would give other data; let it work on a copy"
        )
        mark(error, failure_place(f"in {self.to}, its datapoint ", lent.number))
        return error


class Left(Iterator[Any]):
    """The outputs of one generator; when one is given, the inputs are looked at."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs, self.inputs = outputs, list(_givens(outputs))

    def __next__(self) -> Any:
        for inputs in self.inputs:
            inputs.look()
        output = next(self.outputs, self)
        for inputs in self.inputs:
            inputs.compare()
        if output is self:
            raise StopIteration
        return output


def _givens(outputs: Outputs) -> Iterator[Given]:
    """What stands in front of a stage, found from its outputs."""
    for part in outputs.inputs:
        if isinstance(part.source, Given):
            yield part.source
        else:
            yield from _givens(part)


def contents(datapoint: Any) -> bytes:
    """A digest of what is in a datapoint.

    >>> first, alike, other = ([1, {"x": np.arange(at, at + 2)}] for at in (0, 0, 1))
    >>> contents(first) == contents(alike) != contents(other)
    True
    """
    digest = _Contents(named=True)
    digest.value(datapoint)
    return digest.hash.digest()


class _Contents(Digest):
    """A digest of data: code counts by its name, for it is nobody's datapoint."""

    def value(self, value: Any) -> None:
        """Anything, by its type and its content."""
        if isinstance(value, _BY_NAME) or type(value).__module__ == "itertools":
            self.feed(type(value).__name__, id(value))
        elif isinstance(value, (bytearray, memoryview)):
            self.feed(type(value).__name__, bytes(value))
        elif isinstance(value, np.ma.MaskedArray):  # what pickle keeps of it moves when it is looked at
            self.feed("masked")
            self.array(np.asarray(value.data))
            self.array(np.ma.getmaskarray(value))
        elif (torch := sys.modules.get("torch")) is not None and isinstance(
            value, torch.Tensor
        ):  # what pickle keeps has names of its own
            self.feed("tensor", value.dtype, value.layout, value.requires_grad)
            if value.numel() and not value.is_meta:
                self.array(value.detach().cpu().to_dense().contiguous().reshape(-1).view(torch.uint8).numpy())
            self.value(tuple(value.shape))
        else:
            super().value(value)
