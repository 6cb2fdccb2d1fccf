"""Sources: what a flow can start from, told apart once, and the nodes that read it.

| what is given | how it is read |
|---|---|
| a sequence (`__len__` and integer `__getitem__`) or an array | by index, so the flow is seekable |
| a callable | called once in each pass; it may ask for `rng`, `epoch`, `start` |
| an object with `reset_state` or `get_data` (a DataFlow) | iterated, in this process only |
| a DataLoader of torch | iterated, its random order drawn as that of the pass |
| an IterableDataset of Hugging Face | iterated in the flow's epoch, resumed by its own state |
| any other iterable (an IterableDataset, whatever its index says; what has no length after all) | iterated |
| an iterator | iterated, once |

Nothing is opened before a pass begins. What is no source, tables and paths among it,
is refused (`flowfn.flows.refusals`).
"""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, compress, repeat
from time import perf_counter
from types import GeneratorType
from typing import Any

import numpy as np
from more_itertools import consume

from flowfn.blocks import Block, cut, ints
from flowfn.datapoints import subclasses
from flowfn.datapoints.collating import as_array
from flowfn.datapoints.columns import Columns, Rows
from flowfn.flows import hugging_face
from flowfn.flows.flow import Flow
from flowfn.flows.loaders import is_loader, loaded
from flowfn.flows.refusals import nothing, refuse_flow, refuse_source
from flowfn.kinds.nodes import Node
from flowfn.kinds.parts import Traits
from flowfn.kinds.ranges import Ranges
from flowfn.kinds.routes import strided
from flowfn.kinds.runs import Anchor, Length, Outputs, Run
from flowfn.randomness.generators import generator
from flowfn.showing import as_called, brief

FIRST_CALL = 16
"""So many items are asked for in the first call; they may be pictures that are decoded at once."""
SOON = 0.01
"""What takes less seconds is fast."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Source:
    """The leaf of a tree: an object to read from, and the kind of node that knows how."""

    object: Any
    kind: type[Node]
    random: bool = False
    opened: int = 0
    shown: str = ""
    name: str = "source"
    arguments: dict[str, Any] = field(default_factory=dict)
    pinned: str | None = None
    travels: bool | None = None  # whether it goes to worker processes with the flow, once somebody has looked
    traits = Traits()

    @property
    def draws_as(self) -> str:
        """Its name."""
        return self.name

    def __repr__(self) -> str:
        return self.shown or f"flow({_source_name(self.object)})"


_opened: weakref.WeakValueDictionary[int, Source] = weakref.WeakValueDictionary()
"""Which source reads an iterator, by the iterator's id; a source keeps its iterator alive,
so an id is not used again."""


class SequenceNode(Node):
    """A sequence, read by index."""

    part: Source
    seekable = True

    def length(self, run: Run) -> Length:
        """Its length at this moment."""
        return len(self.part.object)

    def labels(self, run: Run) -> tuple[int, int]:
        """Datapoint i is labelled i."""
        return 0, 1

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """Items by index, or together where the sequence offers `__getitems__`."""
        return Outputs(chain.from_iterable(map(self.fetch, series)), self)

    def fetch(self, block: Block) -> Iterable[Any]:
        """The items at the indices of a block."""
        items = self.part.object
        if type(items) in (list, tuple, range):
            if type(block) is range and block.step > 0:
                return items[block.start : block.stop : block.step]
        elif getattr(items, "__getitems__", None) is not None:
            return self.together(block)
        return map(items.__getitem__, ints(block)) if self.begun else self.begin_reading(ints(block))

    def together(self, block: Block) -> Iterator[Any]:
        """The items at the indices of a block, more and more of them in one call as long as they come fast."""
        items, size, at = self.part.object, FIRST_CALL, 0
        while at < len(block):
            piece, began = list(ints(block[at : at + size])), perf_counter()
            made = items.__getitems__(piece)
            fast = perf_counter() - began < SOON
            at, size = at + len(piece), size * 4 if fast else size
            yield from made

    begun = False

    def begin_reading(self, indices: Iterable[int]) -> Iterator[Any]:
        """The first items of all, or the error that says how to read what knows other keys than integers."""
        items, rest = self.part.object, iter(indices)
        for index in rest:
            try:
                first = items[index]
            except KeyError as error:
                if error.args != (index,):
                    raise
                raise TypeError(
                    f"{self.part} is read by index, from 0 on, and does not know {index}; what is read by other keys "
                    "is "
                    "pipe(keys, map(x.__getitem__)), where keys is a list of them"
                ) from error
            self.begun = True
            yield first
            break
        yield from map(items.__getitem__, rest)


class HoledNode(SequenceNode):
    """A map-style data set of grain, in which None stands for a datapoint that was left out; its own loops skip it."""

    def fetch(self, block: Block) -> Iterator[Any]:
        """The items at the indices of a block, or an error where there is none."""
        for index, item in zip(ints(block), super().fetch(block)):
            if item is None:
                raise ValueError(
                    f"{self.part} gave None for index {index}, by which grain means a datapoint that was left out; "
                    "write "
                    "flow(lambda: dataset) to iterate it as grain does"
                )
            yield item


class ArraysNode(SequenceNode):
    """Arrays of equal length, read by row; whole blocks of rows can be gathered at once."""

    gathers = True

    def length(self, run: Run) -> Length:
        """The number of rows."""
        return len(self.part.object)

    def fetch(self, block: Block) -> Iterable[Any]:
        """Rows, as read-only views."""
        return self.part.object.each(block)

    def gather(self, run: Run, series: Iterator[Block], sizes: Iterable[int]) -> Iterator[Rows]:
        """Blocks of so many rows each."""
        return (Rows(self.part.object, block) for block in cut(series, sizes))


class CountingNode(SequenceNode):
    """0, 1, 2 and so on without end, from `start` on."""

    only_counts = True

    def length(self, run: Run) -> Length:
        """Endless."""
        return math.inf

    def fetch(self, block: Block) -> Iterable[Any]:
        """The indices themselves, from `start` on."""
        return ints(strided(self.part.object, 1, block))


class IterableNode(Node):
    """Anything that can be iterated again and again."""

    part: Source

    def length(self, run: Run) -> Length:
        """What it says of itself, if anything; without what is left out, behind which others move up."""
        for name in ("__len__", "size"):
            told = getattr(self.part.object, name, None)
            if callable(told):
                try:
                    length = int(told())
                except (TypeError, NotImplementedError):
                    continue
                gaps = run.gaps.records.get(self.place, Ranges())
                return length - sum(max(min(stop, length) - start, 0) for start, stop in gaps.pairs())
        return None

    def unknown(self) -> str:
        """It has no integer index."""
        return f"{self.part} can only be iterated; give a list, an array or an object with __len__ and __getitem__"

    def labels(self, run: Run) -> tuple[int, int]:
        """Datapoint i is labelled i."""
        return 0, 1

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Iterate it; what comes before `start` is dropped, what is to be left out is not counted."""
        gaps = run.gaps.records.get(self.place)
        if gaps is None:
            outputs, labels = Outputs(self.opened(run, start), self, (), start), self.numbers(start)
        else:
            first = gaps.beside(start)
            opened = Outputs(self.opened(run, first), None, (), first)
            outputs = Outputs(compress(opened, gaps.misses(first)), self, [opened], start)
            labels = compress(self.numbers(first), gaps.misses(first))
        return outputs.labelled(labels, start) if lineage else outputs

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """Its datapoints from `start` on."""
        iterator = iter(self.part.object)
        consume(iterator, start)
        yield from iterator


class LiveNode(IterableNode):
    """What somebody feeds while it is read, in the process that iterates."""

    here = True

    def length(self, run: Run) -> Length:
        """Not known."""
        return None

    def unknown(self) -> str:
        """It comes as it comes."""
        return f"{self.part} is read as it comes"


class LoaderNode(IterableNode):
    """A DataLoader of torch: its order, and the seeds of its workers, are those of the pass."""

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """Its batches from `start` on."""
        key = self.key(run)
        epoch = run.epoch[0] if len(run.epoch) == 1 else key >> 97
        iterator = loaded(self.part.object, key >> 65, epoch)
        consume(iterator, start)
        yield from iterator


class FilteredNode(IterableNode):
    """A map-style data set of grain that leaves datapoints out: iterated as its own loops do, of unknown length."""

    def length(self, run: Run) -> Length:
        """Not known: what it says counts also what it leaves out."""
        return None


class StreamedNode(IterableNode):
    """An IterableDataset of Hugging Face."""

    countable = False

    def length(self, run: Run) -> Length:
        """Not known."""
        return None

    def misfit(self, run: Run, anchor: Anchor) -> str:
        """Its own state."""
        return hugging_face.misfit(anchor)

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Iterate it in its epoch, from where its own state says that it stood."""
        outputs = hugging_face.stream(self, run, start)
        return outputs.labelled(self.numbers(start), start) if lineage else outputs


class CallableNode(IterableNode):
    """A function called once in each pass; one that asks for `start` is not read from its beginning to resume."""

    def length(self, run: Run) -> Length:
        """Not known."""
        return None

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """Call it, with what it asks for."""
        asks = self.part.arguments["asks"]
        options: dict[str, Any] = {}
        if "rng" in asks:
            options["rng"] = generator(self.key(run))
        if "epoch" in asks:
            options["epoch"] = run.epoch if len(run.epoch) > 1 else run.epoch[0]
        if "start" in asks:
            options["start"] = start
        made = self.part.object(**options)
        iterator = made.run(seed=self.key(run), epoch=0) if isinstance(made, Flow) else _once(made)
        consume(iterator, 0 if "start" in asks else start)
        yield from iterator


class ForeignNode(IterableNode):
    """An object with a reset of its own: reset once, iterated in this process only."""

    here = True

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """Its datapoints, after its own reset the first time."""
        part = self.part
        if not part.opened and hasattr(part.object, "reset_state"):
            part.object.reset_state()
        part.opened += 1
        iterator = iter(part.object if hasattr(part.object, "__iter__") else part.object.get_data())
        consume(iterator, start)
        yield from iterator


class OneShotNode(IterableNode):
    """An iterator: it works for one pass."""

    here = True

    def length(self, run: Run) -> Length:
        """Not known."""
        return None

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """The iterator itself, the first time; one that begins anew whenever it is asked may be read again."""
        iterable = self.part.object
        iterator = iter(iterable)
        if iterator is iterable:
            if self.part.opened or _opened.setdefault(id(iterable), self.part) is not self.part:
                raise ValueError(
                    f"{self.part} is an iterator, which can be read once, and this is another pass over it (or "
                    "another place "
                    "in the same tree); give a list, or a callable that returns a new iterator"
                )
            self.part.opened = 1
            iterator = map(next, repeat(iterable))  # to ask it for its iterator once more may begin it anew
        consume(iterator, start)
        for first in iterator:
            refuse_flow(first, self.part.arguments["caller"])
            yield first
            break
        yield from iterator


def _once(iterable: Any) -> Iterator[Any]:
    """Its iterator. Some that are their own begin anew whenever they are asked for one: they are asked no more."""
    iterator = iter(iterable)
    return map(next, repeat(iterator)) if iterator is iterable and not isinstance(iterator, GeneratorType) else iterator


def flow(source: Any, caller: str = "flow") -> Flow[Any]:
    """Make a flow of anything that holds or makes datapoints; a flow is returned as it is.

    Sequences (with `__len__` and integer `__getitem__`: lists, ranges, arrays, torch datasets) are read by index.
    Callables are called once in each pass, with those of the keywords `rng` (a numpy Generator), `epoch` (int; below
    `repeat` and `cycle` a tuple, (epoch, round)) and `start` (int: how many datapoints to leave out) that they name.
    Other iterables are iterated. An iterator works for one pass. What a DataLoader of torch, or a sampler, draws when
    it begins (its order, seeds of workers) is fixed by the pass; samplers with `set_epoch` are told the epoch.

    Nothing of it is opened or read before a pass begins.

    The rows of an array are read-only views. What a list (or any other object) holds comes as it is, so a function that
    changes its datapoint in place changes the list: the next epoch gives other data.
    `check_inputs` finds such functions.

    Raises:
        TypeError: a dict, a string, a path, a set, a table, flows in a list, (X, y), or nothing iterable; the message
            names the conversion, or the word to use.

    >>> list(flow([3, 1, 2]))
    [3, 1, 2]
    >>> flow(range(10**12))[-1]
    999999999999
    >>> list(flow(lambda epoch: [epoch]).set_epoch(4))
    [4]
    """
    if isinstance(source, Flow):
        return source
    refuse_source(source, caller)
    if isinstance(source, np.ndarray):
        return Flow(Source(Columns(source), ArraysNode, shown=f"flow({brief(source)})"))
    kind = _reading_kind(source)
    if kind is None:
        raise nothing(source, caller)
    if kind is CallableNode:
        return Flow(Source(source, kind, random=True, arguments={"asks": frozenset(_keywords_asked(source))}))
    arguments = {"caller": caller} if kind is OneShotNode else {}
    return Flow(Source(source, kind, random=kind is LoaderNode, arguments=arguments))


def from_arrays(*arrays: Any, **named: Any) -> Flow[Any]:
    """A flow of the rows of arrays of equal length: lists of components, or dicts if the arrays are named.

    Rows are read-only views, so nobody edits the data set by accident; `batch` right after (or after `shuffle`,
    `shard`, `take`, `select`) gathers a whole batch in one call for each array.

    Raises:
        ValueError: the arrays have different lengths, or none is given;
            the numbers of a list have no dtype that holds all of them.

    >>> import numpy as np
    >>> list(from_arrays(np.arange(4).reshape(2, 2), np.array([7, 8])))
    [[array([0, 1]), np.int64(7)], [array([2, 3]), np.int64(8)]]
    >>> from_arrays(x=np.arange(3))[2]
    {'x': np.int64(2)}
    """
    _refuse_one(arrays)
    if bool(arrays) == bool(named):
        raise ValueError(
            "from_arrays(): give arrays, either all by position (datapoints are lists) or all by name (dicts)"
        )
    columns: Any = {k: _column(v) for k, v in named.items()} or [*map(_column, arrays)]
    shapes = {k: v.shape for k, v in (columns.items() if named else enumerate(columns))}
    if any(not shape for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) != 1:
        raise ValueError(f"from_arrays(): arrays must have equal lengths, got shapes {shapes}")
    words = {name: brief(array) for name, array in columns.items()} if named else {}
    shown = as_called("from_arrays", *([] if named else map(brief, columns)), **words)
    return Flow(Source(Columns(columns), ArraysNode, shown=shown))


def _column(value: Any) -> np.ndarray:
    """One array of rows; what masks and units it has stay with it."""
    kept = isinstance(value, np.memmap) or subclasses.carries(type(value))
    return value if kept else as_array(value, "from_arrays")


def _refuse_one(arrays: tuple[Any, ...]) -> None:
    """Raise if the arrays are given as one thing that holds them."""
    for one in arrays:
        if isinstance(one, Mapping):
            raise TypeError(f"from_arrays(): arrays are given by name, got {brief(one)}; write from_arrays(**arrays)")
        if isinstance(one, Flow):
            raise TypeError(f"from_arrays(): arrays must be arrays, got {one}; a flow is a source as it is")
    if (
        len(arrays) == 1
        and isinstance(arrays[0], (list, tuple))
        and len(arrays[0]) > 1
        and all(map(_is_array, arrays[0]))
    ):
        raise TypeError(
            f"from_arrays(): arrays are given one by one, got {brief(arrays[0])}; write from_arrays(*arrays), "
            "or from_arrays(np.stack(arrays)) if each of them is a row"
        )


def _is_array(value: Any) -> bool:
    return bool(getattr(value, "shape", ()))


def counting(start: int) -> Flow[int]:
    """start, start + 1, and so on without end."""
    return Flow(Source(start, CountingNode, shown=f"count({start})", arguments={"start": start}))


def _reading_kind(source: Any) -> type[Node] | None:
    """How an object is read, told by what its class has: nothing is opened to find out."""
    if _resets(source):
        return ForeignNode
    if _class_has(source, "__next__"):
        return OneShotNode
    indexed = _class_has(source, "__getitem__") and _class_has(source, "__len__")
    sized = indexed and _is_sized(source)
    if _filtered(source):
        return FilteredNode
    if is_loader(source):
        return LoaderNode
    if _library_of(source, "IterableDataset") == "datasets" and hasattr(source, "_ex_iterable"):
        return StreamedNode
    if (_class_has(source, "__iter__") and (not sized or _only_iterates(source))) or (indexed and not sized):
        return IterableNode
    if indexed:
        return HoledNode if _library_of(source, "MapDataset") == "grain" else SequenceNode
    if callable(source):
        return CallableNode
    return IterableNode if _class_has(source, "__getitem__") else None


def _resets(source: Any) -> bool:
    """Whether this is a DataFlow, of whatever library."""
    return callable(getattr(source, "reset_state", None)) or (hasattr(source, "get_data") and hasattr(source, "size"))


def _only_iterates(source: Any) -> bool:
    """Whether an object with an index is to be iterated all the same, as its own library's loops do."""
    kinds = type(source).__mro__
    indexed = next(kind for kind in (*kinds, object) if kind is object or "__getitem__" in vars(kind))
    abstract = indexed.__name__ == "Dataset" and indexed.__module__.startswith("torch.utils.data")
    lazy = indexed.__module__.startswith("lhotse.") and getattr(source, "is_lazy", False)  # its index is a search
    return abstract or lazy or any(kind.__name__ == "IterableDataset" for kind in kinds)


def _filtered(dataset: Any) -> bool:
    """Whether one of the stages of a map-style data set of grain leaves datapoints out:
    by its index such a one is None."""
    if _library_of(dataset, "MapDataset") != "grain":
        return False
    return type(dataset).__name__.startswith("Filter") or any(map(_filtered, getattr(dataset, "_parents", ())))


def _library_of(source: Any, name: str) -> str:
    """The library of the class of this name that an object's class is, or inherits from."""
    return next((kind.__module__.split(".")[0] for kind in type(source).__mro__ if kind.__name__ == name), "")


def _is_sized(source: Any) -> bool:
    """Whether an object tells its length. One that only says that it has none does not."""
    try:
        len(source)
    except (TypeError, NotImplementedError):
        return False
    except Exception:  # it is the object's own, and is raised where the length is wanted
        return True
    return True


def _class_has(source: Any, name: str) -> bool:
    """Whether an object's class has a method; None switches it off."""
    return getattr(type(source), name, None) is not None


def _keywords_asked(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    required = [
        p.name for p in parameters.values() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    strange = set(required) - {"rng", "epoch", "start"}
    if strange:
        names = ", ".join(sorted(strange))
        raise TypeError(
            f"flow(): a callable source may ask for rng, epoch and start, but {_source_name(function)} asks for {names}"
        )
    return [name for name in ("rng", "epoch", "start") if name in parameters]


def _source_name(value: Any) -> str:
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if isinstance(value, range):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return brief(value)
    return (
        brief(value) if not hasattr(value, "__iter__") and not hasattr(value, "__getitem__") else type(value).__name__
    )
