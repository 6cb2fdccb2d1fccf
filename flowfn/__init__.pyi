# The types of the public names, for type checkers: one declaration for each word, in the order of `__init__.py`.
#
# A word whose source is left out returns a plain `Callable[[Iterable[A]], Flow[B]]`: checkers then solve the type
# variables of all the stages in a `pipe` together, so that generic functions and lambdas get their types from what comes
# before them. (The parameters of a generic class of stages would be fixed too early.) Where the type of what comes out
# hangs on the form of the datapoints, as in `batch`, a word returns an object with an overloaded `__call__`. mypy knows
# the form only if that stage comes first in its pipe or is called on its source, and says Any elsewhere.

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import Executor
from typing import IO, Any, Literal, Protocol, SupportsIndex, TypeAlias, overload
from typing import TYPE_CHECKING as MYPY

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from typing_extensions import TypeVar

from flowfn.datapoints.collating import as_list as as_list
from flowfn.datapoints.collating import stack as stack
from flowfn.datapoints.padding import pad as pad
from flowfn.flows.flow import Flow as Flow
from flowfn.flows.iterating import FlowIterator as FlowIterator
from flowfn.flows.stages import stage as stage
from flowfn.kinds.tallies import Dropped as Dropped
from flowfn.parallel import WorkerDied as WorkerDied
from flowfn.parallel import shut_down as shut_down
from flowfn.parallel import warm_up as warm_up
from flowfn.seeing import Look as Look
from flowfn.seeing import Origin as Origin
from flowfn.seeing import Speed as Speed
from flowfn.seeing import balance as balance
from flowfn.seeing import describe as describe
from flowfn.seeing import describe_state as describe_state
from flowfn.seeing import explain as explain
from flowfn.seeing import look as look
from flowfn.seeing import origins as origins
from flowfn.seeing import print_datapoint as print_datapoint
from flowfn.seeing import speed as speed
from flowfn.seeing.profiling import Profile as Profile
from flowfn.seeing.profiling import monitor as monitor
from flowfn.seeing.profiling import profile as profile
from flowfn.seeing.profiling import tune as tune
from flowfn.seeing.replaying import replay as replay
from flowfn.vocabulary.balancing.costs import Cost
from flowfn.vocabulary.bucketing import shape_of as shape_of
from flowfn.vocabulary.combining import quotas as quotas
from flowfn.vocabulary.making import files as files
from flowfn.vocabulary.mixing.schedules import phases as phases
from flowfn.vocabulary.packing.balanced import balanced_fit as balanced_fit
from flowfn.vocabulary.packing.cutting import split_long as split_long
from flowfn.vocabulary.packing.cutting import with_ends as with_ends
from flowfn.vocabulary.packing.packers import Packer
from flowfn.vocabulary.packing.packers import best_fit as best_fit
from flowfn.vocabulary.packing.packers import concat_then_split as concat_then_split
from flowfn.vocabulary.packing.packers import first_fit as first_fit
from flowfn.vocabulary.packing.segments import cu_seqlens as cu_seqlens
from flowfn.vocabulary.transform import per_process as per_process
from flowfn.vocabulary.transform import seeded as seeded

__version__: str

# fmt: off
__all__ = [
    "Dropped", "Flow", "FlowIterator", "Look", "Origin", "Profile", "Speed", "WorkerDied", "as_list", "balance", "balanced_fit", "batch",
    "batch_by_cost", "batch_by_key", "batch_by_length", "best_fit", "cache", "cache_to", "check_inputs", "collate", "compose", "concat",
    "concat_then_split", "cu_seqlens", "cycle", "describe", "describe_state", "epoch_of", "explain", "fake", "files", "filter_map",
    "first_fit", "flat_map", "flow", "freeze", "from_arrays", "from_queue", "guard", "inside", "interleave", "look", "map_component", "mix",
    "monitor", "origins", "pack", "pad", "pad_to_multiple", "per_process", "phases", "pipe", "prefetch", "print_datapoint", "profile",
    "progress", "quotas", "rebatch", "repeat",
    "repeat_each", "replay", "sample", "scan", "seeded", "select", "shape_of", "shard", "shuffle", "shuffle_buffer", "shut_down", "skip",
    "speed", "split", "split_long", "stack", "stage", "subset", "take", "take_while", "tap", "tune", "unbatch", "unique", "warm_up", "window",
    "with_ends", "zip_components",
]
# fmt: on

_T = TypeVar("_T")
_U = TypeVar("_U")
_V = TypeVar("_V")
_W = TypeVar("_W")
_Y = TypeVar("_Y")
_K = TypeVar("_K")
_State = TypeVar("_State")
_T_co = TypeVar("_T_co", covariant=True)
_AnySized = TypeVar("_AnySized", bound=Sized)
_AnyStage = TypeVar("_AnyStage", bound=Callable[..., Any])
# What a function takes and returns while its source is not known; with this bound a lambda may do anything with it.
_X = TypeVar("_X", bound=Any, default=Any)
_R = TypeVar("_R", bound=Any, default=Any)

_Link: TypeAlias = Callable[[Iterable[_T]], Iterable[_U]] | None

# what a flow can start from

class _Indexed(Protocol[_T_co]):
    def __getitem__(self, index: int, /) -> _T_co: ...

class _Made(Protocol[_T_co]):
    def __call__(self, *args: Any, **kwargs: Any) -> Iterable[_T_co]: ...

class _DataFlow(Protocol[_T_co]):
    def get_data(self) -> Iterable[_T_co]: ...

class _Queue(Protocol[_T_co]):
    def get(self, *, timeout: float | None = ...) -> _T_co: ...

_Source: TypeAlias = Iterable[_T] | _Indexed[_T] | _Made[_T] | _DataFlow[_T]

# what a component is collated with

_Unit: TypeAlias = Callable[[Any], float] | int | str | bytes | tuple[Any, ...]
_Collation: TypeAlias = Callable[[Sequence[Any]], Any]
_Collations: TypeAlias = _Collation | Sequence[_Collation] | Mapping[Any, _Collation]
_MayAdd: TypeAlias = pad | Sequence[_Collation]  # what may give components more: masks, lengths

# forms of datapoints

class _HasFields(Protocol):  # a namedtuple, whose fields change their types
    def _asdict(self) -> dict[str, Any]: ...

# datapoints put together
class _Batching(Protocol):
    @overload
    def __call__(self, source: Iterable[_HasFields], /) -> Flow[Any]: ...
    @overload
    def __call__(self, source: Iterable[complex | np.generic | np.ndarray], /) -> Flow[NDArray[Any]]: ...
    @overload
    def __call__(self, source: Iterable[str], /) -> Flow[list[str]]: ...
    @overload
    def __call__(self, source: Iterable[bytes], /) -> Flow[list[bytes]]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, Any]], /) -> Flow[tuple[Any, Any]]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, Any, Any]], /) -> Flow[tuple[Any, Any, Any]]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, Any, Any, Any]], /) -> Flow[tuple[Any, Any, Any, Any]]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, ...]], /) -> Flow[tuple[Any, ...]]: ...
    @overload
    def __call__(self, source: Iterable[Mapping[str, Any]], /) -> Flow[dict[str, Any]]: ...
    @overload
    def __call__(self, source: Iterable[list[Any]], /) -> Flow[list[Any]]: ...
    @overload
    def __call__(self, source: Iterable[Any], /) -> Flow[Any]: ...

# datapoints of the same form with other components
class _Changing(Protocol):
    @overload
    def __call__(self, source: Iterable[_HasFields], /) -> Flow[Any]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, Any]], /) -> Flow[tuple[Any, Any]]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, Any, Any]], /) -> Flow[tuple[Any, Any, Any]]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, Any, Any, Any]], /) -> Flow[tuple[Any, Any, Any, Any]]: ...
    @overload
    def __call__(self, source: Iterable[tuple[Any, ...]], /) -> Flow[tuple[Any, ...]]: ...
    @overload
    def __call__(self, source: Iterable[Mapping[str, Any]], /) -> Flow[dict[str, Any]]: ...
    @overload
    def __call__(self, source: Iterable[list[Any]], /) -> Flow[list[Any]]: ...
    @overload
    def __call__(self, source: Iterable[Any], /) -> Flow[Any]: ...

# datapoints of the same kind with other components, or more or fewer of them
class _Selecting(Protocol):
    @overload
    def __call__(self, source: Iterable[tuple[Any, ...]], /) -> Flow[tuple[Any, ...]]: ...
    @overload
    def __call__(self, source: Iterable[Mapping[str, Any]], /) -> Flow[dict[str, Any]]: ...
    @overload
    def __call__(self, source: Iterable[list[Any]], /) -> Flow[list[Any]]: ...
    @overload
    def __call__(self, source: Iterable[Any], /) -> Flow[Any]: ...

# composing

_After1 = TypeVar("_After1", default=_T)
_After2 = TypeVar("_After2", default=_After1)
_After3 = TypeVar("_After3", default=_After2)
_After4 = TypeVar("_After4", default=_After3)
_After5 = TypeVar("_After5", default=_After4)
_After6 = TypeVar("_After6", default=_After5)
_After7 = TypeVar("_After7", default=_After6)
_After8 = TypeVar("_After8", default=_After7)
_After9 = TypeVar("_After9", default=_After8)
_After10 = TypeVar("_After10", default=_After9)

# fmt: off
@overload
def pipe(source: _Source[_T], /) -> Flow[_T]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], /) -> Flow[_After1]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], /) -> Flow[_After2]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    /) -> Flow[_After3]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    stage4: _Link[_After3, _After4], /) -> Flow[_After4]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    stage4: _Link[_After3, _After4], stage5: _Link[_After4, _After5], /) -> Flow[_After5]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    stage4: _Link[_After3, _After4], stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], /) -> Flow[_After6]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    stage4: _Link[_After3, _After4], stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7],
    /) -> Flow[_After7]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    stage4: _Link[_After3, _After4], stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7],
    stage8: _Link[_After7, _After8], /) -> Flow[_After8]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    stage4: _Link[_After3, _After4], stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7],
    stage8: _Link[_After7, _After8], stage9: _Link[_After8, _After9], /) -> Flow[_After9]: ...
@overload
def pipe(source: _Source[_T], stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    stage4: _Link[_After3, _After4], stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7],
    stage8: _Link[_After7, _After8], stage9: _Link[_After8, _After9], stage10: _Link[_After9, _After10], /) -> Flow[_After10]: ...
@overload
def pipe(source: _Source[Any], stage1: _Link[Any, Any], stage2: _Link[Any, Any], stage3: _Link[Any, Any], stage4: _Link[Any, Any],
    stage5: _Link[Any, Any], stage6: _Link[Any, Any], stage7: _Link[Any, Any], stage8: _Link[Any, Any], stage9: _Link[Any, Any],
    stage10: _Link[Any, Any], stage11: _Link[Any, Any], /, *stages: _Link[Any, Any]) -> Flow[Any]: ...
@overload
def compose() -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def compose(stage1: _Link[_T, _After1], /) -> Callable[[Iterable[_T]], Flow[_After1]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], /) -> Callable[[Iterable[_T]], Flow[_After2]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3],
    /) -> Callable[[Iterable[_T]], Flow[_After3]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3], stage4: _Link[_After3, _After4],
    /) -> Callable[[Iterable[_T]], Flow[_After4]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3], stage4: _Link[_After3, _After4],
    stage5: _Link[_After4, _After5], /) -> Callable[[Iterable[_T]], Flow[_After5]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3], stage4: _Link[_After3, _After4],
    stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], /) -> Callable[[Iterable[_T]], Flow[_After6]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3], stage4: _Link[_After3, _After4],
    stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7],
    /) -> Callable[[Iterable[_T]], Flow[_After7]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3], stage4: _Link[_After3, _After4],
    stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7], stage8: _Link[_After7, _After8],
    /) -> Callable[[Iterable[_T]], Flow[_After8]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3], stage4: _Link[_After3, _After4],
    stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7], stage8: _Link[_After7, _After8],
    stage9: _Link[_After8, _After9], /) -> Callable[[Iterable[_T]], Flow[_After9]]: ...
@overload
def compose(stage1: _Link[_T, _After1], stage2: _Link[_After1, _After2], stage3: _Link[_After2, _After3], stage4: _Link[_After3, _After4],
    stage5: _Link[_After4, _After5], stage6: _Link[_After5, _After6], stage7: _Link[_After6, _After7], stage8: _Link[_After7, _After8],
    stage9: _Link[_After8, _After9], stage10: _Link[_After9, _After10], /) -> Callable[[Iterable[_T]], Flow[_After10]]: ...
@overload
def compose(stage1: _Link[Any, Any], stage2: _Link[Any, Any], stage3: _Link[Any, Any], stage4: _Link[Any, Any], stage5: _Link[Any, Any],
    stage6: _Link[Any, Any], stage7: _Link[Any, Any], stage8: _Link[Any, Any], stage9: _Link[Any, Any], stage10: _Link[Any, Any],
    stage11: _Link[Any, Any], /, *stages: _Link[Any, Any]) -> Callable[[Iterable[Any]], Flow[Any]]: ...
# fmt: on

# sources

@overload
def flow(source: NDArray[Any], caller: str = "flow") -> Flow[Any]: ...
@overload
def flow(source: _Source[_T], caller: str = "flow") -> Flow[_T]: ...
@overload
def from_arrays(*arrays: ArrayLike) -> Flow[list[Any]]: ...
@overload
def from_arrays(**named: ArrayLike) -> Flow[dict[str, Any]]: ...
def from_queue(queue: _Queue[_T], *, sentinel: Any = None, timeout: float | None = None) -> Flow[_T]: ...
@overload
def fake(
    shapes: tuple[int, ...],
    size: SupportsIndex | None = 1000,
    *,
    random: bool = True,
    dtype: Any = "float32",
    domain: Any = (0, 1),
) -> Flow[NDArray[Any]]: ...
@overload
def fake(
    shapes: list[tuple[int, ...]],
    size: SupportsIndex | None = 1000,
    *,
    random: bool = True,
    dtype: Any = "float32",
    domain: Any = (0, 1),
) -> Flow[list[NDArray[Any]]]: ...
@overload
def fake(
    shapes: Mapping[_K, tuple[int, ...]],
    size: SupportsIndex | None = 1000,
    *,
    random: bool = True,
    dtype: Any = "float32",
    domain: Any = (0, 1),
) -> Flow[dict[_K, NDArray[Any]]]: ...

# one datapoint at a time

class _Printing(Protocol):  # what takes anything, as `print` does
    def __call__(self, *values: object) -> object: ...

class _Iter(Protocol):  # what `iter` is, whose overloads mypy cannot choose from
    def __call__(self, object: Iterable[Any], /) -> Iterable[Any]: ...

@overload
def map(
    f: Callable[[_X], _R], *, rng: Literal[False] = False, name: str | None = None
) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def map(
    f: Callable[[_X, Generator], _R], *, rng: Literal[True], name: str | None = None
) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def map(
    f: Callable[[_T], _U], source: _Source[_T], *, rng: Literal[False] = False, name: str | None = None
) -> Flow[_U]: ...
@overload
def map(
    f: Callable[[_T, Generator], _U], source: _Source[_T], *, rng: Literal[True], name: str | None = None
) -> Flow[_U]: ...
@overload
def map_component(f: Callable[..., Any], index: Any, *, rng: bool = False, name: str | None = None) -> _Changing: ...
@overload
def map_component(
    f: Callable[..., Any], index: Any, source: _Source[_HasFields], *, rng: bool = False, name: str | None = None
) -> Flow[Any]: ...
@overload
def map_component(
    f: Callable[..., Any], index: Any, source: _Source[tuple[Any, ...]], *, rng: bool = False, name: str | None = None
) -> Flow[tuple[Any, ...]]: ...
@overload
def map_component(
    f: Callable[..., Any], index: Any, source: _Source[Mapping[str, Any]], *, rng: bool = False, name: str | None = None
) -> Flow[dict[str, Any]]: ...
@overload
def map_component(
    f: Callable[..., Any], index: Any, source: _Source[list[Any]], *, rng: bool = False, name: str | None = None
) -> Flow[list[Any]]: ...
@overload
def map_component(
    f: Callable[..., Any], index: Any, source: _Source[Any], *, rng: bool = False, name: str | None = None
) -> Flow[Any]: ...

# mypy settles what a predicate takes before it looks at what comes before: after `filter(len)` it would know nothing but
# that datapoints have a length. So for mypy overloads for whatever takes any object, or anything with a length, come
# first. Pyright settles it in time, but would take these overloads for lambdas. Of two declarations mypy takes the one
# below MYPY, which it holds to be true, and pyright takes the last.

class _Filter(Protocol):
    @overload
    def __call__(
        self, predicate: Callable[[object], object], *, rng: Literal[False] = False, name: str | None = None
    ) -> Callable[[Iterable[_T]], Flow[_T]]: ...
    @overload
    def __call__(
        self, predicate: Callable[[Sized], object], *, rng: Literal[False] = False, name: str | None = None
    ) -> Callable[[Iterable[_AnySized]], Flow[_AnySized]]: ...
    @overload
    def __call__(
        self, predicate: Callable[[_X], object], *, rng: Literal[False] = False, name: str | None = None
    ) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def __call__(
        self, predicate: Callable[[_X, Generator], object], *, rng: Literal[True], name: str | None = None
    ) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def __call__(
        self,
        predicate: Callable[[_T], object],
        source: _Source[_T],
        *,
        rng: Literal[False] = False,
        name: str | None = None,
    ) -> Flow[_T]: ...
    @overload
    def __call__(
        self,
        predicate: Callable[[_T, Generator], object],
        source: _Source[_T],
        *,
        rng: Literal[True],
        name: str | None = None,
    ) -> Flow[_T]: ...

if MYPY:
    filter: _Filter
else:
    @overload
    def filter(
        predicate: Callable[[_X], object], *, rng: Literal[False] = False, name: str | None = None
    ) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def filter(
        predicate: Callable[[_X, Generator], object], *, rng: Literal[True], name: str | None = None
    ) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def filter(
        predicate: Callable[[_T], object], source: _Source[_T], *, rng: Literal[False] = False, name: str | None = None
    ) -> Flow[_T]: ...
    @overload
    def filter(
        predicate: Callable[[_T, Generator], object],
        source: _Source[_T],
        *,
        rng: Literal[True],
        name: str | None = None,
    ) -> Flow[_T]: ...

@overload
def filter_map(
    f: Callable[[_X], _R | None], *, rng: Literal[False] = False, name: str | None = None
) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def filter_map(
    f: Callable[[_X, Generator], _R | None], *, rng: Literal[True], name: str | None = None
) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def filter_map(
    f: Callable[[_X], Any], *, rng: Literal[False] = False, name: str | None = None
) -> Callable[[Iterable[_X]], Flow[Any]]: ...  # mypy takes a lambda that gives on what it was given for such a function
@overload
def filter_map(
    f: Callable[[_T], _U | None], source: _Source[_T], *, rng: Literal[False] = False, name: str | None = None
) -> Flow[_U]: ...
@overload
def filter_map(
    f: Callable[[_T, Generator], _U | None], source: _Source[_T], *, rng: Literal[True], name: str | None = None
) -> Flow[_U]: ...
@overload
def flat_map(
    f: Callable[[_X], Iterable[_R]], *, rng: Literal[False] = False, name: str | None = None
) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def flat_map(
    f: Callable[[_X, Generator], Iterable[_R]], *, rng: Literal[True], name: str | None = None
) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def flat_map(
    f: _Iter, *, rng: Literal[False] = False, name: str | None = None
) -> Callable[[Iterable[Iterable[_U]]], Flow[_U]]: ...
@overload
def flat_map(
    f: Callable[[_T], Iterable[_U]], source: _Source[_T], *, rng: Literal[False] = False, name: str | None = None
) -> Flow[_U]: ...
@overload
def flat_map(
    f: Callable[[_T, Generator], Iterable[_U]], source: _Source[_T], *, rng: Literal[True], name: str | None = None
) -> Flow[_U]: ...
@overload
def select(components: Sequence[Any]) -> _Selecting: ...
@overload
def select(components: Sequence[Any], source: _Source[tuple[Any, ...]]) -> Flow[tuple[Any, ...]]: ...
@overload
def select(components: Sequence[Any], source: _Source[Mapping[str, Any]]) -> Flow[dict[str, Any]]: ...
@overload
def select(components: Sequence[Any], source: _Source[list[Any]]) -> Flow[list[Any]]: ...
@overload
def select(components: Sequence[Any], source: _Source[Any]) -> Flow[Any]: ...
@overload
def enumerate(*, start: SupportsIndex = 0) -> Callable[[Iterable[_T]], Flow[tuple[int, _T]]]: ...
@overload
def enumerate(source: _Source[_T], *, start: SupportsIndex = 0) -> Flow[tuple[int, _T]]: ...

class _Tap(Protocol):
    @overload
    def __call__(
        self, f: Callable[[object], object], *, first: SupportsIndex | None = None
    ) -> Callable[[Iterable[_T]], Flow[_T]]: ...
    @overload
    def __call__(
        self, f: Callable[[Sized], object], *, first: SupportsIndex | None = None
    ) -> Callable[[Iterable[_AnySized]], Flow[_AnySized]]: ...
    @overload
    def __call__(
        self, f: Callable[[_X], object], *, first: SupportsIndex | None = None
    ) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def __call__(
        self, f: Callable[[_T], object], source: _Source[_T], *, first: SupportsIndex | None = None
    ) -> Flow[_T]: ...

if MYPY:
    tap: _Tap
else:
    @overload
    def tap(f: _Printing, *, first: SupportsIndex | None = None) -> Callable[[Iterable[_T]], Flow[_T]]: ...
    @overload
    def tap(f: Callable[[_X], object], *, first: SupportsIndex | None = None) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def tap(f: Callable[[_T], object], source: _Source[_T], *, first: SupportsIndex | None = None) -> Flow[_T]: ...

# batches

@overload
def batch(size: SupportsIndex, *, drop_remainder: bool = False) -> _Batching: ...
@overload
def batch(
    size: SupportsIndex, *, drop_remainder: bool = False, collate: None
) -> Callable[[Iterable[_T]], Flow[list[_T]]]: ...
@overload
def batch(  # type: ignore[overload-overlap]  # a pad is a function, too
    size: SupportsIndex, *, drop_remainder: bool = False, collate: _MayAdd
) -> _Selecting: ...
@overload
def batch(size: SupportsIndex, *, drop_remainder: bool = False, collate: _Collations) -> _Changing: ...
@overload
def batch(size: SupportsIndex, source: _Source[_HasFields], *, drop_remainder: bool = False) -> Flow[Any]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[complex | np.generic | np.ndarray], *, drop_remainder: bool = False
) -> Flow[NDArray[Any]]: ...
@overload
def batch(size: SupportsIndex, source: _Source[str], *, drop_remainder: bool = False) -> Flow[list[str]]: ...
@overload
def batch(size: SupportsIndex, source: _Source[bytes], *, drop_remainder: bool = False) -> Flow[list[bytes]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[tuple[Any, Any]], *, drop_remainder: bool = False
) -> Flow[tuple[Any, Any]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[tuple[Any, Any, Any]], *, drop_remainder: bool = False
) -> Flow[tuple[Any, Any, Any]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[tuple[Any, ...]], *, drop_remainder: bool = False
) -> Flow[tuple[Any, ...]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[Mapping[str, Any]], *, drop_remainder: bool = False
) -> Flow[dict[str, Any]]: ...
@overload
def batch(size: SupportsIndex, source: _Source[list[Any]], *, drop_remainder: bool = False) -> Flow[list[Any]]: ...
@overload
def batch(size: SupportsIndex, source: _Source[Any], *, drop_remainder: bool = False) -> Flow[Any]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[_T], *, drop_remainder: bool = False, collate: None
) -> Flow[list[_T]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[_HasFields], *, drop_remainder: bool = False, collate: _Collations
) -> Flow[Any]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[tuple[Any, ...]], *, drop_remainder: bool = False, collate: _Collations
) -> Flow[tuple[Any, ...]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[Mapping[str, Any]], *, drop_remainder: bool = False, collate: _Collations
) -> Flow[dict[str, Any]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[list[Any]], *, drop_remainder: bool = False, collate: _Collations
) -> Flow[list[Any]]: ...
@overload
def batch(
    size: SupportsIndex, source: _Source[Any], *, drop_remainder: bool = False, collate: _Collations
) -> Flow[Any]: ...
@overload
def window(size: SupportsIndex, *, step: SupportsIndex = 1, drop_remainder: bool = False) -> _Batching: ...
@overload
def window(
    size: SupportsIndex, *, step: SupportsIndex = 1, drop_remainder: bool = False, collate: None
) -> Callable[[Iterable[_T]], Flow[list[_T]]]: ...
@overload
def window(  # type: ignore[overload-overlap]
    size: SupportsIndex, *, step: SupportsIndex = 1, drop_remainder: bool = False, collate: _MayAdd
) -> _Selecting: ...
@overload
def window(
    size: SupportsIndex, *, step: SupportsIndex = 1, drop_remainder: bool = False, collate: _Collations
) -> _Changing: ...
@overload
def window(
    size: SupportsIndex, source: _Source[Any], *, step: SupportsIndex = 1, drop_remainder: bool = False
) -> Flow[Any]: ...
@overload
def window(
    size: SupportsIndex, source: _Source[_T], *, step: SupportsIndex = 1, drop_remainder: bool = False, collate: None
) -> Flow[list[_T]]: ...
@overload
def window(
    size: SupportsIndex,
    source: _Source[Any],
    *,
    step: SupportsIndex = 1,
    drop_remainder: bool = False,
    collate: _Collations,
) -> Flow[Any]: ...
@overload
def batch_by_key(key: Callable[[Any], Hashable], size: SupportsIndex, *, drop_remainder: bool = False) -> _Batching: ...
@overload
def batch_by_key(
    key: Callable[[Any], Hashable], size: SupportsIndex, *, drop_remainder: bool = False, collate: None
) -> Callable[[Iterable[_T]], Flow[list[_T]]]: ...
@overload
def batch_by_key(  # type: ignore[overload-overlap]
    key: Callable[[Any], Hashable], size: SupportsIndex, *, drop_remainder: bool = False, collate: _MayAdd
) -> _Selecting: ...
@overload
def batch_by_key(
    key: Callable[[Any], Hashable], size: SupportsIndex, *, drop_remainder: bool = False, collate: _Collations
) -> _Changing: ...
@overload
def batch_by_key(
    key: Callable[[Any], Hashable], size: SupportsIndex, source: _Source[Any], *, drop_remainder: bool = False
) -> Flow[Any]: ...
@overload
def batch_by_key(
    key: Callable[[Any], Hashable],
    size: SupportsIndex,
    source: _Source[_T],
    *,
    drop_remainder: bool = False,
    collate: None,
) -> Flow[list[_T]]: ...
@overload
def batch_by_key(
    key: Callable[[Any], Hashable],
    size: SupportsIndex,
    source: _Source[Any],
    *,
    drop_remainder: bool = False,
    collate: _Collations,
) -> Flow[Any]: ...
@overload
def batch_by_length(
    length: Any,
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: SupportsIndex | None = None,
    pad_to: Literal["longest", "bucket"] = "longest",
    drop_remainder: bool = False,
) -> _Batching: ...
@overload
def batch_by_length(
    length: Any,
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: SupportsIndex | None = None,
    pad_to: Literal["longest", "bucket"] = "longest",
    drop_remainder: bool = False,
    collate: None,
) -> Callable[[Iterable[_T]], Flow[list[_T]]]: ...
@overload
def batch_by_length(
    length: Any,
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: SupportsIndex | None = None,
    pad_to: Literal["longest", "bucket"] = "longest",
    drop_remainder: bool = False,
    collate: _MayAdd,
) -> _Selecting: ...
@overload
def batch_by_length(
    length: Any,
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: SupportsIndex | None = None,
    pad_to: Literal["longest", "bucket"] = "longest",
    drop_remainder: bool = False,
    collate: _Collations,
) -> _Changing: ...
@overload
def batch_by_length(
    length: Any,
    source: _Source[Any],
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: SupportsIndex | None = None,
    pad_to: Literal["longest", "bucket"] = "longest",
    drop_remainder: bool = False,
) -> Flow[Any]: ...
@overload
def batch_by_length(
    length: Any,
    source: _Source[_T],
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: SupportsIndex | None = None,
    pad_to: Literal["longest", "bucket"] = "longest",
    drop_remainder: bool = False,
    collate: None,
) -> Flow[list[_T]]: ...
@overload
def batch_by_length(
    length: Any,
    source: _Source[Any],
    *,
    boundaries: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    tokens: SupportsIndex | None = None,
    pad_to: Literal["longest", "bucket"] = "longest",
    drop_remainder: bool = False,
    collate: _Collations,
) -> Flow[Any]: ...
@overload
def batch_by_cost(
    cost: Callable[[NDArray[Any]], Any],
    *,
    ranks: SupportsIndex,
    length: Any = ...,
    size: SupportsIndex | None = None,
    tokens: SupportsIndex | None = None,
    microbatches: SupportsIndex | None = None,
    padded: bool = True,
    window: SupportsIndex | None = None,
    drop_remainder: bool = False,
    collate: _Collations | None = ...,
    name: str | None = None,
) -> Callable[[Iterable[Any]], Flow[Any]]: ...
@overload
def batch_by_cost(
    cost: Callable[[NDArray[Any]], Any],
    source: _Source[Any],
    *,
    ranks: SupportsIndex,
    length: Any = ...,
    size: SupportsIndex | None = None,
    tokens: SupportsIndex | None = None,
    microbatches: SupportsIndex | None = None,
    padded: bool = True,
    window: SupportsIndex | None = None,
    drop_remainder: bool = False,
    collate: _Collations | None = ...,
    name: str | None = None,
) -> Flow[Any]: ...
@overload
def collate(how: _Collations = ...) -> Callable[[Iterable[Sequence[Any]]], Flow[Any]]: ...
@overload
def collate(how: _Collations, source: _Source[Sequence[Any]]) -> Flow[Any]: ...
@overload
def collate(*, source: _Source[Sequence[Any]]) -> Flow[Any]: ...
@overload
def unbatch() -> _Changing: ...
@overload
def unbatch(source: _Source[_HasFields]) -> Flow[Any]: ...
@overload
def unbatch(source: _Source[tuple[Any, ...]]) -> Flow[tuple[Any, ...]]: ...
@overload
def unbatch(source: _Source[Mapping[str, Any]]) -> Flow[dict[str, Any]]: ...
@overload
def unbatch(source: _Source[list[Any]]) -> Flow[list[Any]]: ...
@overload
def unbatch(source: _Source[Any]) -> Flow[Any]: ...
@overload
def rebatch(size: SupportsIndex, *, drop_remainder: bool = False) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def rebatch(size: SupportsIndex, source: _Source[_T], *, drop_remainder: bool = False) -> Flow[_T]: ...
@overload
def inside(
    stage1: _Link[_T, _U], /, *, name: str | None = None
) -> Callable[[Iterable[Sequence[_T]]], Flow[list[_U]]]: ...
@overload
def inside(
    stage1: _Link[_T, _U], stage2: _Link[_U, _V], /, *, name: str | None = None
) -> Callable[[Iterable[Sequence[_T]]], Flow[list[_V]]]: ...
@overload
def inside(
    stage1: _Link[_T, _U], stage2: _Link[_U, _V], stage3: _Link[_V, _W], /, *, name: str | None = None
) -> Callable[[Iterable[Sequence[_T]]], Flow[list[_W]]]: ...
@overload
def inside(*stages: _Link[Any, Any], source: _Source[Sequence[Any]] = ..., name: str | None = None) -> Any: ...
@overload
def pack(
    length: int | Mapping[Any, int],
    *,
    how: Packer = ...,
    value: Any = 0,
    drop_remainder: bool = False,
    keep: str | SupportsIndex | Sequence[str | SupportsIndex] = (),
    multiple: SupportsIndex = 1,
    ranks: SupportsIndex | None = None,
    cost: Cost | None = None,
) -> _Selecting: ...
@overload
def pack(
    length: int | Mapping[Any, int],
    source: _Source[tuple[Any, ...]],
    *,
    how: Packer = ...,
    value: Any = 0,
    drop_remainder: bool = False,
    keep: str | SupportsIndex | Sequence[str | SupportsIndex] = (),
    multiple: SupportsIndex = 1,
    ranks: SupportsIndex | None = None,
    cost: Cost | None = None,
) -> Flow[tuple[Any, ...]]: ...
@overload
def pack(
    length: int | Mapping[Any, int],
    source: _Source[Mapping[str, Any]],
    *,
    how: Packer = ...,
    value: Any = 0,
    drop_remainder: bool = False,
    keep: str | SupportsIndex | Sequence[str | SupportsIndex] = (),
    multiple: SupportsIndex = 1,
    ranks: SupportsIndex | None = None,
    cost: Cost | None = None,
) -> Flow[dict[str, Any]]: ...
@overload
def pack(
    length: int | Mapping[Any, int],
    source: _Source[list[Any]],
    *,
    how: Packer = ...,
    value: Any = 0,
    drop_remainder: bool = False,
    keep: str | SupportsIndex | Sequence[str | SupportsIndex] = (),
    multiple: SupportsIndex = 1,
    ranks: SupportsIndex | None = None,
    cost: Cost | None = None,
) -> Flow[list[Any]]: ...
@overload
def pack(
    length: int | Mapping[Any, int],
    source: _Source[Any],
    *,
    how: Packer = ...,
    value: Any = 0,
    drop_remainder: bool = False,
    keep: str | SupportsIndex | Sequence[str | SupportsIndex] = (),
    multiple: SupportsIndex = 1,
    ranks: SupportsIndex | None = None,
    cost: Cost | None = None,
) -> Flow[Any]: ...
@overload
def pad_to_multiple(n: SupportsIndex, *, mask: str = "valid") -> _Selecting: ...
@overload
def pad_to_multiple(
    n: SupportsIndex, source: _Source[tuple[Any, ...]], *, mask: str = "valid"
) -> Flow[tuple[Any, ...]]: ...
@overload
def pad_to_multiple(
    n: SupportsIndex, source: _Source[Mapping[str, Any]], *, mask: str = "valid"
) -> Flow[dict[str, Any]]: ...
@overload
def pad_to_multiple(n: SupportsIndex, source: _Source[list[Any]], *, mask: str = "valid") -> Flow[list[Any]]: ...
@overload
def pad_to_multiple(n: SupportsIndex, source: _Source[Any], *, mask: str = "valid") -> Flow[Any]: ...

# which, and when

@overload
def shuffle(*, window: SupportsIndex | None = None, name: str | None = None) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def shuffle(source: _Source[_T], *, window: SupportsIndex | None = None, name: str | None = None) -> Flow[_T]: ...
@overload
def take(count: SupportsIndex) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def take(count: SupportsIndex, source: _Source[_T]) -> Flow[_T]: ...
@overload
def skip(count: SupportsIndex) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def skip(count: SupportsIndex, source: _Source[_T]) -> Flow[_T]: ...
@overload
def slice(
    start: SupportsIndex | None, stop: SupportsIndex | None, step: SupportsIndex | None
) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def slice(
    start: SupportsIndex | None, stop: SupportsIndex | None, step: SupportsIndex | None, source: _Source[_T]
) -> Flow[_T]: ...
@overload
def shard(
    rank: SupportsIndex, world: SupportsIndex, *, remainder: Literal["keep", "drop", "pad"] = "keep"
) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def shard(
    rank: SupportsIndex,
    world: SupportsIndex,
    source: _Source[_T],
    *,
    remainder: Literal["keep", "drop", "pad"] = "keep",
) -> Flow[_T]: ...
@overload
def subset(indices: Sequence[int] | NDArray[np.integer]) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def subset(indices: Sequence[int] | NDArray[np.integer], source: _Source[_T]) -> Flow[_T]: ...
@overload
def sample(
    count: SupportsIndex, *, weights: ArrayLike | None = None, replacement: bool = True, name: str | None = None
) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def sample(
    count: SupportsIndex,
    source: _Source[_T],
    *,
    weights: ArrayLike | None = None,
    replacement: bool = True,
    name: str | None = None,
) -> Flow[_T]: ...
def split(source: _Source[_T], *fractions: float, seed: SupportsIndex = 0) -> list[Flow[_T]]: ...
@overload
def repeat(count: SupportsIndex) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def repeat(count: SupportsIndex, source: _Source[_T]) -> Flow[_T]: ...
@overload
def cycle() -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def cycle(source: _Source[_T]) -> Flow[_T]: ...
@overload
def repeat_each(count: SupportsIndex) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def repeat_each(count: SupportsIndex, source: _Source[_T]) -> Flow[_T]: ...
@overload
def epoch_of(count: SupportsIndex) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def epoch_of(count: SupportsIndex, source: _Source[_T]) -> Flow[_T]: ...
@overload
def shuffle_buffer(
    size: SupportsIndex, *, reuse: SupportsIndex = 1, name: str | None = None
) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def shuffle_buffer(
    size: SupportsIndex, source: _Source[_T], *, reuse: SupportsIndex = 1, name: str | None = None
) -> Flow[_T]: ...
@overload
def scan(f: Callable[[_State, _X], tuple[_State, _R]], initial: _State) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def scan(f: Callable[[_State, _T], tuple[_State, _U]], initial: _State, source: _Source[_T]) -> Flow[_U]: ...

class _TakeWhile(Protocol):
    @overload
    def __call__(self, predicate: Callable[[object], object]) -> Callable[[Iterable[_T]], Flow[_T]]: ...
    @overload
    def __call__(self, predicate: Callable[[Sized], object]) -> Callable[[Iterable[_AnySized]], Flow[_AnySized]]: ...
    @overload
    def __call__(self, predicate: Callable[[_X], object]) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def __call__(self, predicate: Callable[[_T], object], source: _Source[_T]) -> Flow[_T]: ...

if MYPY:
    take_while: _TakeWhile
else:
    @overload
    def take_while(predicate: Callable[[_X], object]) -> Callable[[Iterable[_X]], Flow[_X]]: ...
    @overload
    def take_while(predicate: Callable[[_T], object], source: _Source[_T]) -> Flow[_T]: ...

@overload
def unique(*, key: Callable[[Any], Hashable] | None = None) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def unique(source: _Source[_T], *, key: Callable[[Any], Hashable] | None = None) -> Flow[_T]: ...
@overload
def interleave(
    f: Callable[[_X], Iterable[_R]], *, cycle: SupportsIndex = 16, block: SupportsIndex = 1, name: str | None = None
) -> Callable[[Iterable[_X]], Flow[_R]]: ...
@overload
def interleave(
    f: _Iter, *, cycle: SupportsIndex = 16, block: SupportsIndex = 1, name: str | None = None
) -> Callable[[Iterable[Iterable[_U]]], Flow[_U]]: ...
@overload
def interleave(
    f: Callable[[_T], Iterable[_U]],
    source: _Source[_T],
    *,
    cycle: SupportsIndex = 16,
    block: SupportsIndex = 1,
    name: str | None = None,
) -> Flow[_U]: ...

# several sources

def concat(*sources: _Source[_T]) -> Flow[_T]: ...
@overload
def mix(
    named: Mapping[Any, _Source[_T]],
    /,
    *,
    weights: Any = None,
    until: Literal["first", "all", "cycle_all", "forever"] = "first",
    random: bool = False,
    tag: None = None,
    unit: _Unit | None = None,
    epochs: float | Mapping[Any, float] | None = None,
    temperature: float = 1,
    name: str | None = None,
) -> Flow[_T]: ...
@overload
def mix(
    *sources: _Source[_T],
    weights: Any = None,
    until: Literal["first", "all", "cycle_all", "forever"] = "first",
    random: bool = False,
    tag: None = None,
    unit: _Unit | None = None,
    epochs: float | Mapping[Any, float] | None = None,
    temperature: float = 1,
    name: str | None = None,
) -> Flow[_T]: ...
@overload
def mix(
    *sources: Any,
    weights: Any = None,
    until: Literal["first", "all", "cycle_all", "forever"] = "first",
    random: bool = False,
    tag: Any,
    unit: _Unit | None = None,
    epochs: float | Mapping[Any, float] | None = None,
    temperature: float = 1,
    name: str | None = None,
) -> Flow[Any]: ...
@overload
def zip(source1: _Source[_T], /, *, strict: bool = True) -> Flow[tuple[_T]]: ...
@overload
def zip(source1: _Source[_T], source2: _Source[_U], /, *, strict: bool = True) -> Flow[tuple[_T, _U]]: ...
@overload
def zip(
    source1: _Source[_T], source2: _Source[_U], source3: _Source[_V], /, *, strict: bool = True
) -> Flow[tuple[_T, _U, _V]]: ...
@overload
def zip(
    source1: _Source[_T], source2: _Source[_U], source3: _Source[_V], source4: _Source[_W], /, *, strict: bool = True
) -> Flow[tuple[_T, _U, _V, _W]]: ...
@overload
def zip(
    source1: _Source[_T],
    source2: _Source[_U],
    source3: _Source[_V],
    source4: _Source[_W],
    source5: _Source[_Y],
    /,
    *,
    strict: bool = True,
) -> Flow[tuple[_T, _U, _V, _W, _Y]]: ...
@overload
def zip(*sources: _Source[Any], strict: bool = True) -> Flow[tuple[Any, ...]]: ...
@overload
def zip_components(*sources: _Source[Mapping[_K, Any]], strict: bool = True) -> Flow[dict[_K, Any]]: ...
@overload
def zip_components(*sources: _Source[list[_T]], strict: bool = True) -> Flow[list[_T]]: ...
@overload
def zip_components(*sources: _Source[tuple[Any, ...]], strict: bool = True) -> Flow[tuple[Any, ...]]: ...

# when a stage fails

@overload
def guard(
    stage: _AnyStage,
    *,
    errors: type[Exception] | tuple[type[Exception], ...] = ...,
    retry: SupportsIndex = 0,
    then: Literal["raise", "drop", "next"] = "raise",
    budget: float | None = None,
) -> _AnyStage: ...
@overload
def guard(
    stage: Callable[[Iterable[_T]], Flow[_U]],
    *,
    errors: type[Exception] | tuple[type[Exception], ...] = ...,
    retry: SupportsIndex = 0,
    then: Callable[[Any, Exception], _V],
    budget: float | None = None,
) -> Callable[[Iterable[_T]], Flow[_U | _V]]: ...

# held fast

@overload
def freeze(*, seed: SupportsIndex = 0) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def freeze(source: _Source[_T], *, seed: SupportsIndex = 0) -> Flow[_T]: ...
@overload
def cache(*, seed: SupportsIndex = 0) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def cache(source: _Source[_T], *, seed: SupportsIndex = 0) -> Flow[_T]: ...
@overload
def cache_to(
    path: str | os.PathLike[str], *, version: str = "", seed: SupportsIndex = 0
) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def cache_to(
    path: str | os.PathLike[str], source: _Source[_T], *, version: str = "", seed: SupportsIndex = 0
) -> Flow[_T]: ...

# in parallel, and seeing

@overload
def prefetch(
    ahead: SupportsIndex,
    *,
    workers: SupportsIndex | Literal["auto"] | None = None,
    threads: SupportsIndex | None = None,
    processes: SupportsIndex | Literal["auto"] | None = None,
    executor: Executor | None = None,
    ordered: bool = True,
    max_bytes: SupportsIndex | str | None = None,
    timeout: float | None = None,
    worker_threads: SupportsIndex | None = 1,
    setup: Callable[[], Any] | None = None,
) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def prefetch(
    ahead: SupportsIndex,
    source: _Source[_T],
    *,
    workers: SupportsIndex | Literal["auto"] | None = None,
    threads: SupportsIndex | None = None,
    processes: SupportsIndex | Literal["auto"] | None = None,
    executor: Executor | None = None,
    ordered: bool = True,
    max_bytes: SupportsIndex | str | None = None,
    timeout: float | None = None,
    worker_threads: SupportsIndex | None = 1,
    setup: Callable[[], Any] | None = None,
) -> Flow[_T]: ...
@overload
def progress(
    *, description: str | None = None, unit: str = "datapoint", leave: bool = True, file: IO[str] | None = None
) -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def progress(
    source: _Source[_T],
    *,
    description: str | None = None,
    unit: str = "datapoint",
    leave: bool = True,
    file: IO[str] | None = None,
) -> Flow[_T]: ...
@overload
def check_inputs() -> Callable[[Iterable[_T]], Flow[_T]]: ...
@overload
def check_inputs(source: _Source[_T]) -> Flow[_T]: ...
