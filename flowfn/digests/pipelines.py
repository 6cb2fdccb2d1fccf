"""What a pipeline's datapoints depend on, as one digest that is the same in every process and on every day.

It covers the stages and their arguments, the content of the sources, and the code of every function with what that
refers to (`flowfn.digests.codes`). Nothing in it hangs on addresses, on the hashes of strings, or on the order of sets.
"""

from __future__ import annotations

import copyreg
import marshal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from hashlib import blake2b
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from flowfn.datapoints import subclasses
from flowfn.datapoints.columns import Columns
from flowfn.digests import codes
from flowfn.flows.definitions import Definition, Stage
from flowfn.flows.flow import Flow
from flowfn.flows.sources import CallableNode
from flowfn.flows.stages import ComposedStages
from flowfn.flows.states import fingerprint
from flowfn.pickling.homes import PACKAGE, public
from flowfn.shelves.records import SEAL
from flowfn.shelves.shelf import Shelf

SCHEME = 1
"""Moves when digests change."""
CHUNK = 1 << 12
DEEP = 8
"""Levels of nesting down to which plain data is digested whole."""

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
_VIEWS = frozenset({type({}.keys()), type({}.values()), type({}.items())})
_OF_CALLS = frozenset({"public", "signature", "where", "remedy", "instead", "later"})
"""Fields of a definition that matter for calls of it, not for what comes out."""


class Unknown(Exception):
    """The content of something cannot be told from outside; the text says of what."""


def pipeline_key(flow: Flow[Any], seed: int, version: str) -> bytes:
    """16 bytes that tell what `flow` gives under `seed` from what any other pipeline gives.

    Raises:
        TypeError: there is something in it whose content cannot be told from outside, and no `version`.
    """
    digest = Digest(bool(version))
    try:
        digest.value((SCHEME, fingerprint(flow), seed, version))
        digest.flow(flow)
    except Unknown as unknown:
        raise TypeError(
            f"cache_to(): datapoints depend on {unknown}, whose content cannot be told from outside; "
            'give version="..." and change it whenever that content changes'
        ) from None
    return digest.hash.digest()


def pipeline_identity(flow: Flow[Any] | None, *also: Any) -> str:
    """A digest that differs where a flow has another source, stage, argument or function,
    or another value stands in `also`.

    What cannot be told from outside is called by its type. Seed and epoch of the flow are not in it.
    """
    digest = Digest(named=True)
    digest.value((SCHEME, None if flow is None else fingerprint(flow), also))
    if flow is not None:
        digest.flow(flow)
    return digest.hash.hexdigest()


class Digest:
    """A digest of all that it is shown. If it is `named`, a version stands for the content that cannot be told."""

    def __init__(self, named: bool) -> None:
        self.hash, self.named = blake2b(digest_size=SEAL), named
        self.seen: dict[int, tuple[int, Any]] = {}  # by id: its number, and itself, so that the id is not used again
        self.modules: set[Any] = set()  # those of one's own that were here, and for which names
        self.inside: list[int] = []  # the ids of the containers around
        self.trail: list[str] = []  # the way to what is looked at, in words

    def feed(self, *words: Any) -> None:
        """Take in words, each with its length, so that no two sentences read the same."""
        for word in words:
            held = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self.hash.update(len(held).to_bytes(8, "little"))
            self.hash.update(held)

    @contextmanager
    def within(self, word: str) -> Iterator[None]:
        """One step further on the way, in words; what is called by its own name is no further step."""
        self.trail, before = self.trail if self.trail[-1:] == [word] else [*self.trail, word], self.trail
        yield
        self.trail = before

    def again(self, value: Any) -> bool:
        """Whether an object was here before; it is then called by its number."""
        known = self.seen.get(id(value))
        if known is None:
            self.seen[id(value)] = len(self.seen), value
            return False
        self.feed("again", known[0])
        return True

    def unknown(self, value: Any) -> None:
        """Something whose content cannot be told: it is called by its type, or refused."""
        if not self.named:
            raise Unknown(f"{' of '.join(reversed(self.trail))} (an object of type {type(value).__name__})")
        self.feed("unknown", type(value).__qualname__)

    def version(self, name: str) -> str | None:
        """The version of what a module is installed with, None for a user's own."""
        return codes.installed(name)

    def imported(self, name: str, load: Callable[[], ModuleType], names: frozenset[str]) -> None:
        """A module of one's own that a function imports when it runs: it is imported now, to see what it is."""
        try:
            found = load()
        except ImportError:
            self.feed("missing")
            return
        with self.within(name):
            codes.module(self, found, names)

    # Flows

    def flow(self, flow: Flow[Any]) -> None:
        """A tree: its stages, what they are given, its sources."""
        part = flow.part
        if part.traits.transparent:
            self.flow(flow.sources[0])
            return
        if self.again(flow):
            return
        text = str(part)
        with self.within(text if len(text) < 60 else f"{part.name}(...)"):
            if isinstance(part.arguments.get("shelf"), Shelf):  # its key says all about what is upstream
                self.value(part.arguments["shelf"])
                return
            self.feed("flow", part.name, part.kind.__qualname__, len(flow.sources))
            self.value(part.pinned)
            if flow.sources:
                self.stage(part)
            else:
                self.source(part)
        for source in flow.sources:
            self.flow(source)

    def stage(self, stage: Stage) -> None:
        """A stage: the function and its arguments."""
        self.definition(stage.definition)
        counting = {name: value for name, value in stage.arguments.items() if name not in stage.traits.left_out}
        self.feed(len(counting))
        for name, value in counting.items():
            self.feed(name)
            self.value(value)

    def definition(self, definition: Definition) -> None:
        """A decorated function: the library's by name, others by their code and what makes them a stage."""
        function = definition.function
        self.feed("definition", function.__name__)
        if self.version(function.__module__ or "") != PACKAGE:
            self.value(
                {one.name: getattr(definition, one.name) for one in fields(definition) if one.name not in _OF_CALLS}
            )

    def source(self, source: Any) -> None:
        """What a flow starts from: functions by their code, plain sequences and arrays by their content."""
        content, kind = source.object, source.kind
        self.value(source.arguments)
        has_content = type(content) in (list, tuple, range, int) or codes.installed(type(content).__module__) == PACKAGE
        if kind.here or not (has_content or type(content) in _VIEWS or issubclass(kind, CallableNode)):
            self.unknown(content)
        elif type(content) in _VIEWS:
            self.feed(type(content).__name__)
            self.value(list(content))
        else:
            self.value(content)

    # Values

    def value(self, value: Any) -> None:
        """Anything, by its type and its content."""
        kind = type(value)
        if kind in _ATOMS:
            self.feed("atom", marshal.dumps(value, 2))
        elif kind in (list, tuple, dict, set, frozenset, MappingProxyType):
            self.container(value, kind)
        elif isinstance(value, (Flow, Stage, Definition, ComposedStages, Columns, Shelf)):
            self.ours(value)
        elif kind in (np.ndarray, np.memmap):
            self.array(np.asarray(value))
        elif isinstance(value, (np.generic, np.dtype)):
            self.dtype(value if isinstance(value, np.dtype) else value.dtype)
            self.array(np.asarray(value)) if isinstance(value, np.generic) else None
        elif isinstance(value, ModuleType):
            codes.module(self, value, None)
        elif not codes.told(self, value):
            self.object(value)

    def container(self, value: Any, kind: type) -> None:
        """A container, item by item; plain data in it at once."""
        if id(value) in self.inside:
            self.feed("inside", self.inside.index(id(value)))
            return
        self.inside.append(id(value))
        self.feed(kind.__name__, len(value))
        if kind in (set, frozenset):
            self.feed(*sorted(map(self.alone, value)))
        else:
            items = list(value.items()) if kind in (dict, MappingProxyType) else value
            for at in range(0, len(items), CHUNK):
                chunk = list(items[at : at + CHUNK])
                if _is_plain(chunk, DEEP):
                    self.feed("plain", marshal.dumps(chunk, 2))  # version 2 writes values, whatever else refers to them
                else:
                    for item in chunk:
                        self.value(item)
        self.inside.pop()

    def alone(self, value: Any) -> bytes:
        """The digest of an item of a set, which has no place in it."""
        digest = Digest(self.named)
        digest.seen, digest.inside, digest.trail, digest.modules = (
            dict(self.seen),
            list(self.inside),
            self.trail,
            set(self.modules),
        )
        digest.value(value)
        return digest.hash.digest()

    def ours(self, value: Any) -> None:
        """An object of the library's own."""
        self.feed(type(value).__name__)
        if isinstance(value, Flow):
            self.value((value.seed, value.epoch))
            self.flow(value)
        elif isinstance(value, Stage):
            self.value((value.pinned, value.kind.__qualname__ if value.kind else None))
            self.stage(value)
        elif isinstance(value, Definition):
            self.definition(value)
        elif isinstance(value, ComposedStages):
            self.value(value.stages)
        elif isinstance(value, Columns):
            self.value((value.keys, value.bare, value.arrays))
        else:
            self.value(value.key)

    def dtype(self, dtype: np.dtype) -> None:
        """A dtype, with its fields and where they lie."""
        self.feed("dtype", type(dtype).__name__, dtype.str, dtype.shape, len(dtype.names or ()))
        if dtype.subdtype is not None:
            self.dtype(dtype.base)
        for name in dtype.names or ():
            part, offset = dtype.fields[name][:2]  # type: ignore[index]
            self.feed(name, offset)
            self.dtype(part)

    def array(self, array: np.ndarray) -> None:
        """An array: dtype, shape and content; structured ones field by field, for there may be anything in between."""
        self.dtype(array.dtype)
        self.value(array.shape)
        if array.dtype.names is not None:
            for name in array.dtype.names:
                self.array(array[name])
        elif array.dtype.hasobject:
            self.value(array.ravel().tolist())
        elif array.size:
            rows = array.reshape(1) if array.ndim == 0 else array
            pace = max(len(rows) * (1 << 24) // array.nbytes, 1)
            for at in range(0, len(rows), pace):
                held: Any = np.ascontiguousarray(rows[at : at + pace]).reshape(-1).view(np.uint8)
                self.hash.update(held)

    def object(self, value: Any) -> None:
        """Any other object, by what pickle would keep of it."""
        if self.again(value):
            return
        try:
            reduce = copyreg.dispatch_table.get(type(value)) or (
                subclasses.reduced if subclasses.leaves_it_to_numpy(type(value)) else None
            )
            reduced: Any = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except Exception:
            self.unknown(value)
            return
        if isinstance(reduced, str):  # a name in a module
            module = getattr(value, "__module__", None) or type(value).__module__
            version = self.version(module)
            self.feed("name", public(module), version, reduced) if version is not None else self.unknown(value)
            return
        made, arguments, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
        self.feed("object")
        self.value((made, arguments, state, list(items or ()), list(pairs or ()), setter))


def _is_plain(value: Any, depth: int) -> bool:
    """Whether there are only atoms in lists, tuples and dicts, not too deep."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is dict and depth:
        return _is_plain(list(value), depth - 1) and _is_plain(list(value.values()), depth - 1)
    if kind not in (list, tuple) or not depth:
        return False
    return _ATOMS.issuperset(map(type, value)) or all(_is_plain(item, depth - 1) for item in value)
