"""Flows: lightweight, re-iterable recipes for datapoints that carry their reset state, and the iterators over them.

A flow is a part (a stage or a source) over flows. It holds no data. To iterate it is to bind its tree to nodes
(`flowfn.kinds.nodes`), which turn a run into an iterator.
"""

from __future__ import annotations

import math
import operator
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, SupportsIndex, TypeVar, overload

import numpy as np

from flowfn import rules
from flowfn.blocks import BLOCK
from flowfn.flows.iterating import FlowIterator, Progress, remember
from flowfn.flows.loaders import in_a_loader, refuse_loader
from flowfn.flows.mixtures import follow
from flowfn.flows.skipping import inherited
from flowfn.flows.states import gaps, skip_list, unpack_state
from flowfn.flows.translating import no_attribute
from flowfn.kinds.bypass import count_given, numbers
from flowfn.kinds.failures import annotate, uneven
from flowfn.kinds.groups import note_base
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import Part
from flowfn.kinds.runs import Checkpoint, Length, Outputs, Run, SkipList
from flowfn.pickling.by_value import Picklable
from flowfn.process import forks
from flowfn.showing import brief

T_co = TypeVar("T_co", covariant=True)

_epoch_turn = forks.lock()  # taking an epoch and moving the flow to the next is one step


class Flow(Picklable, Generic[T_co]):
    """A re-iterable recipe for datapoints: a stage over flows, or a source.

    Made by `flow`, `pipe` and the stages, not by hand. `for datapoint in flow`, `len(flow)`, `flow[i]`, `flow[a:b]`
    read it; `reset_state`, `set_epoch`, `run`, `state_dict` and `load_state_dict` say which pass that is.
    """

    _slicing: ClassVar[Callable[..., Any]]  # the stage that flow[a:b] is, which says so where it is defined
    _as_html: ClassVar[Callable[..., str | None]]  # how a notebook shows it, which the package says

    __slots__ = (
        "__weakref__",
        "_entropic",
        "_epoch",
        "_loaded",
        "_newest",
        "_node",
        "_peek",
        "_reset",
        "_seed",
        "_skip",
        "made",
        "part",
        "sources",
    )

    def __init__(self, part: Part, sources: tuple[Flow[Any], ...] = (), made: Any = None) -> None:
        self.part: Any = part
        self.sources, self.made = sources, made
        heir = next((source for source in sources if source._reset), None)
        self._seed: int = heir._seed if heir else 0
        self._epoch: int = heir._epoch if heir else 0
        self._reset: bool = heir is not None
        self._entropic: bool = any(source._entropic for source in sources)
        self._newest: Progress | None = None
        self._loaded: Progress | None = None
        self._node: Node | None = None
        self._peek: Run | None = None
        self._skip = SkipList()  # what all passes to come leave out
        if self._entropic:
            self._refuse_entropy(str(part))
        if any(source._skip for source in sources):
            self._skip = inherited(self.node, [(source.node, source._skip) for source in sources], part.name)

    # Reading

    def __iter__(self) -> FlowIterator[T_co]:
        with _epoch_turn:
            past = self._newest
            goes_on = past is not None and (past.seed, past.epoch + 1) == (self._seed, self._epoch)
            checkpoint = past.following(self) if past is not None and goes_on else Checkpoint(skip=self._skip)
            progress = self._loaded or Progress(self._seed, self._epoch, checkpoint)
            self._loaded, self._newest = None, progress
            self._epoch = progress.epoch + 1
        return FlowIterator(self, progress)

    def run(
        self, *, seed: int | None = None, epoch: int | None = None, start: int = 0, skip: Any = None
    ) -> FlowIterator[T_co]:
        """Iterate one pass from output `start` on, leaving the flow's own seed, epoch and position as they are.

        `skip` is what to leave out, as in `load_state_dict`.

        >>> import flowfn as ff
        >>> list(ff.flow("abcd".__iter__).run(start=2))
        ['c', 'd']
        """
        progress = Progress(
            self._seed if seed is None else _checked_seed(seed),
            self._upcoming if epoch is None else rules.natural.check("run", "epoch", epoch, {}),
        )
        left_out = self._skip if skip is None else self._skip | skip_list(self, skip, "run")
        progress.checkpoint = Checkpoint(rules.natural.check("run", "start", start, {}), skip=left_out)
        return FlowIterator(self, progress)

    def __len__(self) -> int:
        length = self._given(self._look_round())
        if length in (None, math.inf):
            instead = in_a_loader(sys._getframe(1))
        if length is None:
            raise TypeError(f"the length of {self!r} is not known before it is read: {self.node.unknown()}{instead}")
        if length == math.inf:
            raise TypeError(f"{self!r} is endless, it has no length; take(n) makes it finite{instead}")
        return int(length)

    def __bool__(self) -> bool:
        return True

    @overload
    def __getitem__(self, index: SupportsIndex) -> T_co: ...

    @overload
    def __getitem__(self, index: slice) -> Flow[T_co]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._sliced(index)
        if not hasattr(index, "__index__") or getattr(index, "shape", ()) != ():
            raise TypeError(f"a flow is indexed by an integer or a slice, got {brief(index)}{_meant(index)}")
        node, run = self.node, self._look_round()
        if node.drawn or not node.seekable:
            refuse_loader(node)
        if not node.seekable:
            raise TypeError(f"{self!r} cannot be indexed, it has to be read in order: {node.unknown()}")
        index = operator.index(index)
        length = self._given(run)
        if length == math.inf and index < 0:
            raise IndexError(f"index {index} counts from the end, but {self!r} is endless")
        if not -length <= index < length:  # type: ignore[operator]
            raise IndexError(f"index {index} is out of range for a flow of length {length}")
        at = index if index >= 0 else index + int(length)  # type: ignore[arg-type]
        at = int(numbers(node, run, np.array([at]))[0]) if run.gaps else at
        outputs: Outputs | None = None
        try:
            outputs = node.read(run, iter((range(at, at + 1),)))
            for datapoint in outputs:
                return datapoint
            raise uneven(outputs, 1, seekable=True) or IndexError(f"{self!r} gave nothing for index {index}")
        except Exception as error:
            annotate(error, outputs, run.seed, run.epoch[0])
            remember(error, Checkpoint(at))
            raise

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The datapoints at `indices`, read together; what torch's and Hugging Face's loaders call."""
        node, run = self.node, self._look_round()
        if node.drawn or not node.seekable:
            refuse_loader(node)
        if not node.seekable:
            raise TypeError(f"{self!r} cannot be indexed, it has to be read in order: {node.unknown()}")
        wanted, length = np.asarray(indices, np.int64), self._given(run)
        if len(wanted) and not -length <= wanted.min() <= wanted.max() < length:  # type: ignore[operator]
            raise IndexError(
                f"indices from {wanted.min()} to {wanted.max()} are out of range for a flow of length {length}"
            )
        if len(wanted) and wanted.min() < 0:
            wanted = np.where(wanted < 0, wanted + int(length), wanted)  # type: ignore[arg-type]
        wanted = numbers(node, run, wanted)
        return [
            datapoint
            for at in range(0, len(wanted), BLOCK)
            for datapoint in node.read(run, iter((wanted[at : at + BLOCK],)))
        ]

    # Which pass

    def reset_state(self, seed: int | None = None) -> Flow[T_co]:
        """Set the seed (a fresh one from the system's entropy if it is left out) and epoch 0; returns the flow.

        Raises:
            ValueError: no seed is given, but the flow holds a `shard` of several ranks, which would then disagree.
            TypeError: the seed is not an integer.

        >>> import flowfn as ff
        >>> len(set(ff.pipe(range(100), ff.shuffle()).reset_state(7)))
        100
        """
        if seed is None:
            self._refuse_entropy("reset_state()")
        with _epoch_turn:
            self._seed = secrets.randbits(63) if seed is None else _checked_seed(seed)
            self._epoch, self._reset, self._entropic = 0, True, seed is None
            self._newest, self._loaded, self._skip = None, None, SkipList()
        return self

    def set_epoch(self, epoch: int) -> Flow[T_co]:
        """Make the next `iter` take `epoch`; returns the flow.
        If that is the epoch of a state just loaded, its position stays."""
        epoch = rules.natural.check("set_epoch", "epoch", epoch, {})
        with _epoch_turn:
            ended = self._newest is not None and self._newest.exhausted
            if epoch != self._upcoming or not (self._loaded or ended):
                self._newest = self._loaded = None
            self._epoch, self._reset = epoch, True
        return self

    def state_dict(self) -> dict[str, Any]:
        """The state of the newest iterator, as plain JSON: what `load_state_dict` goes on from."""
        progress = self._newest or Progress(self._seed, self._epoch, Checkpoint(skip=self._skip))
        return progress.state(self)

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True, skip: Any = None) -> Flow[T_co]:
        """Let the next `iter` go on from `state`; returns the flow.

        `skip` is what to leave out, beside what the state leaves out already: numbers of outputs (of steps of all
        ranks, where `shard` comes last, as whoever saved the state counts them; give all ranks the same), ranges of
        them, or records: what `origins` returned, or pairs (source, index). An output that is left out is not given, in
        this pass; a record in none, and a batch is shorter by it. Everything else stays what it was: positions, random
        numbers, and what is in other batches. New states hold the list, so it is given once. What can be indexed is not
        read where it is left out. Where a flow has to be read in order, an output is made and not given, and a record
        is left out from the next pass on if this one has begun (a pass without end has none: there outputs have to be
        named); those behind it move up. `len(flow)` and `flow[i]` count what is given.

        Raises:
            ValueError: the state is of another pipeline (unless `strict=False`), or of another rank; `skip` holds what
                cannot be left out.

        >>> import flowfn as ff
        >>> flow = ff.pipe(range(5), ff.map(float))
        >>> iterator = iter(flow)
        >>> next(iterator), next(iterator)
        (0.0, 1.0)
        >>> list(ff.pipe(range(5), ff.map(float)).load_state_dict(iterator.state_dict()))
        [2.0, 3.0, 4.0]
        >>> list(flow.load_state_dict(iterator.state_dict(), skip=[3]))
        [2.0, 4.0]
        """
        seed, epoch, checkpoint = unpack_state(self, state, strict, skip)
        with _epoch_turn:
            self._skip = checkpoint.skip.following()
            self._seed, self._epoch, self._reset = seed, epoch, True
            self._newest = self._loaded = Progress(seed, epoch, checkpoint)
        return self

    @property
    def seed(self) -> int:
        """The seed of the passes to come."""
        return self._seed

    @property
    def epoch(self) -> int:
        """The epoch that the next `iter` takes."""
        return self._upcoming

    @property
    def seekable(self) -> bool:
        """Whether any output can be read without those before it."""
        return self.node.seekable

    # How it works

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            no_attribute(self, name)

    @property
    def node(self) -> Node:
        """The tree of nodes that reads this flow, bound once."""
        if self._node is None:
            self._node = bind(self)
        return self._node

    @property
    def _upcoming(self) -> int:
        return self._loaded.epoch if self._loaded else self._epoch

    @property
    def _coming(self) -> Checkpoint:
        """Where the next pass begins, and what it leaves out."""
        return self._loaded.checkpoint if self._loaded else Checkpoint(skip=self._skip)

    def _look(self) -> Run:
        """A run of the epoch that the next `iter` would take, for looking at single datapoints."""
        run = self._peek
        if run is None or run.seed != self._seed or run.epoch[0] != self._upcoming:
            self._peek = run = Run(self._seed, (self._upcoming,))
        return run

    def _look_round(self) -> Run:
        """The same, round what the next pass leaves out."""
        coming, run = self._coming, self._look()
        if not coming.skip:
            return run
        known: tuple[Checkpoint, Run] | None = run.memo.get("round")
        if known is None or known[0] != coming:
            run.memo["round"] = known = coming, replace(run, gaps=gaps(self, coming), memo={})
        return known[1]

    def _given(self, run: Run) -> Length:
        """How many outputs a pass gives; where it leaves some out, they are counted once."""
        return (
            count_given(self.node, run) if not run.gaps else run.once("given", 0, lambda: count_given(self.node, run))
        )

    @classmethod
    def _slice_by(cls, stage: Callable[..., Any]) -> None:
        """Tell which stage `flow[a:b]` is."""
        cls._slicing = staticmethod(stage)

    def _sliced(self, index: slice) -> Flow[T_co]:
        part: Flow[T_co] = self._slicing(index.start, index.stop, index.step, source=self)
        part._seed, part._epoch = self._seed, self._upcoming
        return part

    def _follow(self, progress: Progress) -> None:
        """Go on behind a pass that has become another, if it is the newest."""
        with _epoch_turn:
            if self._newest is progress:
                self._skip = progress.checkpoint.skip.following()
                self._seed, self._epoch, self._reset, self._loaded = progress.seed, progress.epoch + 1, True, None

    def _serially(self, seed: int, epoch: int, checkpoint: Checkpoint) -> FlowIterator[T_co]:
        return FlowIterator(self, Progress(seed, epoch, checkpoint), engine="none")

    def _refuse_entropy(self, what: str) -> None:
        if self.node.world > 1:
            raise ValueError(
                f"{what}: ranks would disagree, because the seed of each would come from its own entropy; "
                "give one seed to all: reset_state(seed)"
            )

    def __repr__(self) -> str:
        if self.made is not None and not isinstance(self.made, tuple):
            return repr(self.made)
        if self.made is not None:
            stage, source = self.made
        elif len(self.sources) == 1:
            stage, (source,) = self.part, self.sources
        else:
            return str(self.part) if not self.sources else self.part.call(self.sources)
        inner = repr(source)
        if inner.startswith("pipe(") and inner.endswith(")"):
            return f"{inner[:-1]}, {stage})"
        return f"pipe({inner}, {stage})"

    def _repr_html_(self) -> str | None:
        return self._as_html(self)

    def __getstate__(self) -> Any:
        return (self.part, self.sources, self.made, self._seed, self._epoch, self._reset, self._entropic, self._skip)

    def __setstate__(self, state: Any) -> None:
        self.part, self.sources, self.made, self._seed, self._epoch, self._reset, self._entropic, *skip = state
        self._skip = skip[0] if skip else SkipList()
        self._newest = self._loaded = self._node = self._peek = None


def bind(flow: Flow[Any]) -> Node:
    """The nodes of a tree: each flow object once, random ones numbered by name, sources first and left to right.

    What is upstream of a `freeze` is numbered as if it stood alone; what is upstream of a named source of a `mix`,
    under that name, so that sources may come and go.
    """
    return follow(note_base(_Binding().node_of(flow, {})))


class _Binding:
    """The nodes of a tree while they are made."""

    def __init__(self) -> None:
        self.places = count()
        self.beside = count(-2, -1)  # what changes nothing may come and go between saving and loading
        self.bound: dict[tuple[int, int], Node] = {}
        self.scopes: dict[int, dict[str, int]] = {}

    def node_of(self, flow: Flow[Any], numbers: dict[str, int], under: str = "") -> Node:
        """The node of a flow object, behind those of its sources."""
        known = self.bound.get((id(numbers), id(flow)))
        if known is not None:
            return known
        part = flow.part
        upstream = numbers if not part.kind.root else self.scopes.setdefault(id(flow), {})
        inside = under if not part.kind.root else ""
        names = (
            [f"{inside}{name}/" for name in part.arguments["names"]]
            if part.kind.names_sources
            else [inside] * len(flow.sources)
        )
        sources = tuple(self.node_of(source, upstream, name) for name, source in zip(names, flow.sources))
        number = None
        if part.random:
            name = under + part.draws_as
            ordinal = numbers.get(name, 0)
            numbers[name] = ordinal + 1
            number = (name, ordinal) if part.pinned is None else (part.pinned, -1)
        node: Node = part.kind(part, sources, next(self.beside if part.traits.transparent else self.places), number)
        self.bound[id(numbers), id(flow)] = node
        return node


def _meant(index: Any) -> str:
    """What to write for an index of another kind, as sequences elsewhere take them."""
    if isinstance(index, (str, bytes)):
        return f"; select([{index!r}], flow) gives a component of every datapoint, flow[i][{index!r}] that of one"
    if isinstance(index, tuple) and any(isinstance(one, slice) for one in index):
        return "; flow[a:b] gives datapoints, map(lambda x: x[...], flow) parts of each"
    if str(getattr(index, "dtype", "")).endswith("bool") or (
        isinstance(index, list) and index and all(type(one) is bool for one in index)
    ):
        return "; subset(np.flatnonzero(mask), flow) gives the datapoints where a mask is true"
    return "; subset(indices, flow) gives several datapoints" if hasattr(index, "__len__") else ""


def _checked_seed(seed: Any) -> int:
    try:
        return operator.index(seed)
    except TypeError:
        raise TypeError(f"seed must be an integer, got {seed!r}") from None
