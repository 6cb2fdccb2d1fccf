"""What a part is: a stage or a source. A flow is a tree of parts, a node is a part that is bound for reading.

What a part is called, is given and draws, everybody may ask; what follows from its arguments is in its `Traits`. A
stage runs its function besides, for the nodes of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from flowfn.rules import Rule

NO_NOTE = Rule("0 everywhere: it starts at the beginning", lambda note: False)
ANY_NOTE = Rule("and what it noted there", lambda note: True)


@dataclass(frozen=True, slots=True)
class Traits:
    """How the outputs of a part come from its inputs, beyond its kind. A source has them as they stand here."""

    transparent: bool = False  # whether it changes nothing of what comes out, and when
    strict: bool = False  # whether its sources must be equally long
    size: int = 1  # how many inputs make an output
    step: int = 1  # how many inputs lie between the beginnings of two outputs
    whole: bool = False  # whether a short output at the end is left out
    shards: tuple[str, ...] = ()  # the names of the options that hold rank and world
    left_out: tuple[str, ...] = ()  # options that came later and are not used: as if there were none
    rounds: bool = False  # whether it reads its source in rounds
    switches: bool = False  # whether its route switches between sources or rounds
    endless: bool = False  # whether it has no end whatever its source
    times: int | None = None  # how many outputs an input gives, if that is certain
    newest: bool = False  # whether each output is made of the input that was taken last, as a whole
    moves: bool = False  # whether a stream stage only moves datapoints, and looks into none
    together: bool = False  # whether it has those of its inputs made together that are not made yet
    note: Rule = NO_NOTE  # what it notes beside its place in its sources


class Part(Protocol):
    """A stage or a source, as everybody asks for it."""

    name: str  # of the function that makes it
    kind: Any  # the class of its node, or None if it is made of other stages
    arguments: dict[str, Any]  # its options by name
    traits: Traits
    random: bool  # whether it draws random numbers,
    pinned: str | None  # ... and by which name they are told apart, if the user says so

    @property
    def draws_as(self) -> str: ...  # ... and if not


class StagePart(Part, Protocol):
    """A stage, as the nodes of its kind ask for it."""

    definition: Any  # its function, as it was read (`flowfn.flows.definitions`)
    asks: frozenset[str]  # what its function is given beside its options
    wants_labels: bool  # whether it has to know which inputs it is given

    def open(self, inputs: Sequence[Any], **injected: Any) -> Iterator[Any]: ...  # what it makes of its inputs
    def order(self, lengths: Sequence[Any], **injected: Any) -> Any: ...  # what it says of sources so long
    def sections(self, sources: int) -> Any: ...  # the same of streams, one section after the other
    def join(self, parts: Sequence[Any]) -> Any: ...  # its output, from those of parts of the inputs


class Tree(Protocol):
    """A flow, or a node."""

    @property
    def sources(self) -> Sequence[Tree]: ...


TreeT = TypeVar("TreeT", bound=Tree)


def top_down(*trees: TreeT, beyond: Callable[[TreeT], Any] = lambda tree: True) -> Iterator[TreeT]:
    """All of a tree, each once, before its sources; of those that `beyond` is not true of, the sources are left out."""
    todo: list[Any] = [*reversed(trees)]
    seen: set[int] = set()
    while todo:
        tree = todo.pop()
        if id(tree) not in seen:
            seen.add(id(tree))
            yield tree
            todo += reversed(tree.sources) if beyond(tree) else ()


def sources_first(tree: TreeT, seen: set[int] | None = None) -> Iterator[TreeT]:
    """All of a tree, each once, behind its sources."""
    seen = set() if seen is None else seen
    if id(tree) not in seen:
        seen.add(id(tree))
        for source in tree.sources:
            yield from sources_first(source, seen)  # type: ignore[misc]
        yield tree
