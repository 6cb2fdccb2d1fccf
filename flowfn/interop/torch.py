"""torch: datapoints as tensors, on a device, and a flow as what a DataLoader takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.datapoints.components import places, with_leaves
from flowfn.datapoints.subclasses import carries
from flowfn.extras import needed
from flowfn.flows.sources import flow as as_flow
from flowfn.flows.stages import pipe, stage
from flowfn.flows.translating import speaks
from flowfn.functions import around_a_pipe
from flowfn.interop.epochs import loaded_within
from flowfn.parallel import prefetch
from flowfn.showing import brief

_WIDER = {"g": np.float64, "G": np.complex128, "M": np.int64, "m": np.int64}
"""The dtypes of NumPy that torch lacks, by their characters, and what `widen=True` makes of them."""

_SMALL = frozenset({"bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"})
"""The dtypes of ml_dtypes that torch has, under the same names."""

_here: ContextVar[int | None] = ContextVar("_here", default=None)
"""The GPU that was current where the newest pass began."""

_DEVICE = rules.Rule('a device as torch has it, like "cuda" or torch.device("cuda:1")', lambda value: True)


@stage.each(where={"widen": rules.boolean})
def to_torch(source: Any, *, widen: bool = False) -> Iterator[Any]:
    """Arrays and NumPy's numbers become tensors of the same dtype, shape and memory, in datapoints of any form.

    Nothing is copied where torch can look into an array as it lies there, and the array's memory is not used again as
    long as a tensor lives. What may not be written to (rows of `from_arrays`, of a cache, of a memory map), runs
    backwards, is not aligned or is in another order of bytes is copied. bfloat16 and float8 of ml_dtypes are torch's.
    Strings, None, Python's numbers, and arrays of strings or objects stay as they are; so do tensors.

    torch has no dtype for datetime64, timedelta64, extended precision and the smaller numbers of ml_dtypes: they are
    errors, or with `widen=True` int64 (counts of their unit), float64 and complex128, and int8, uint8 or float32.

    Raises:
        ImportError: torch is not installed.
        TypeError: torch has no such dtype, or the array has a mask or a unit; the message names the component.

    >>> import flowfn as ff
    >>> flow = ff.pipe([[1, 2.5], [3, 4.5]], ff.batch(2), to_torch())
    >>> next(iter(flow))  # doctest: +SKIP
    [tensor([1, 3]), tensor([2.5000, 4.5000], dtype=torch.float64)]
    """
    tensor = partial(_as_tensor, needed("torch", "to_torch()", extra="torch"), widen)
    for datapoint in source:
        try:
            made = with_leaves(tensor, datapoint)
        except TypeError as error:
            _name_component(tensor, datapoint)
            raise error
        yield made


def _name_component(tensor: Callable[[Any], Any], datapoint: Any) -> None:
    """Raise what is wrong with the first component that is no tensor, and say which it is."""
    for place, value in places(datapoint):
        try:
            tensor(value)
        except TypeError as error:
            raise TypeError(f"to_torch(): {f'component {place}: ' if place else ''}{error}") from None


def _as_tensor(torch: Any, widen: bool, value: Any) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if type(value) is np.ndarray and value.flags.behaved:  # aligned and writable
        try:
            return torch.from_numpy(value)
        except (TypeError, ValueError):  # no such dtype, or it runs backwards
            pass
    return _tensor_of_other(torch, widen, value)


def _tensor_of_other(torch: Any, widen: bool, value: Any) -> Any:
    """A tensor of what torch cannot look into as it is."""
    kind, dtype = type(value), value.dtype
    if carries(kind):
        raise TypeError(
            f"{kind.__name__} carries more than numbers, which a tensor would lose; write map(...) before to make "
            "a plain array of it (np.asarray, or masked.filled(0))"
        )
    if dtype.kind in "USOT":
        return value
    array = np.asarray(value)
    if dtype.type.__module__ == "ml_dtypes" and dtype.name in _SMALL:
        return _as_tensor(torch, widen, array.view(f"u{dtype.itemsize}")).view(getattr(torch, dtype.name))
    if kind is not np.ndarray and array.flags.behaved:  # a memory map, a number
        return _as_tensor(torch, widen, array)
    wider = _wider(dtype)
    if wider is not None and not widen:
        raise TypeError(f"torch has no dtype for {dtype}; to_torch(widen=True) makes it {np.dtype(wider)}")
    try:
        return torch.from_numpy(np.array(array, wider or dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise TypeError(f"torch has no dtype for {dtype}; write map(...) before, to one that it has") from None


def _wider(dtype: Any) -> Any:
    """A dtype of torch that holds what one holds that torch lacks; None if there is none, or no need."""
    if dtype.type.__module__ != "ml_dtypes":
        return _WIDER.get(dtype.char)
    return {"int": np.int8, "uin": np.uint8}.get(dtype.name[:3], np.float32)


@stage.composite(where={"device": _DEVICE, "ahead": rules.positive}, instead="to_device(device, ahead={})")
def to_device(device: Any, source: Any, *, ahead: int = 2) -> Any:
    """Tensors, and arrays as `to_torch` makes them, go to a device while those before them are computed with.

    `ahead` datapoints are on the device or on their way to it. To a GPU of CUDA they are copied out of pinned memory on
    a stream of their own, and the stream that is current where they are delivered waits for them: nothing else has to
    be waited for or synchronised. "cuda" is the GPU that is current there. It stands last, in the process that trains.
    The state of a pass is that of what was delivered. On "cpu" nothing happens beyond `to_torch`, so the same line
    does everywhere, and a state that was saved on the one is loaded on the other.

    Raises:
        ImportError: torch is not installed.
        RuntimeError: torch does not know such a device; or, in a pass, it is not there.
        TypeError: the device is neither a name, a number nor a torch.device.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(6), ff.batch(2), to_device("cpu"))  # doctest: +SKIP
    >>> [batch.device.type for batch in flow]  # doctest: +SKIP
    ['cpu', 'cpu', 'cpu']
    """
    torch = needed("torch", "to_device()", extra="torch")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise type(error)(
            f'to_device(): device must be {_DEVICE.requirement}, got {brief(device)}; "cuda" is a GPU of NVIDIA or AMD'
        ) from None
    if place.type == "cpu":
        return to_torch(source)
    return pipe(source, to_torch(), _sent_to_device(str(place)), prefetch(ahead), _received(str(place)))


class _OnItsWay(NamedTuple):
    """A datapoint whose tensors are being copied to a device, and what is done when they are there."""

    datapoint: Any
    copied: Any


@stage.each(transparent=True, said="to_device({device})")
def _sent_to_device(device: str, source: Any) -> Iterator[Any]:
    """Begin to copy tensors to a device."""
    torch = needed("torch", "to_device()", extra="torch")
    place = torch.device(device)
    if place.type != "cuda":
        try:
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError) as error:  # NotImplementedError is one of the former
            raise RuntimeError(
                f'to_device(): there is no {device!r} for torch here; to_device("cpu") does without'
            ) from error
        for datapoint in source:
            yield _OnItsWay(with_leaves(partial(_moved_tensor, torch, place), datapoint), None)
        return
    if not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count():
        raise RuntimeError(f'to_device(): there is no GPU of CUDA for {device!r} here; to_device("cpu") does without')
    if place.index is None and _here.get() is not None:
        place = torch.device("cuda", _here.get())
    stream = torch.cuda.Stream(place)
    for datapoint in source:
        with torch.cuda.stream(stream):  # pinned memory too belongs to the GPU that is current
            there = _OnItsWay(with_leaves(partial(_copied_tensor, torch, place), datapoint), stream.record_event())
        yield there


@stage.each(transparent=True, said="to_device({device})")
def _received(device: str, source: Any) -> Iterator[Any]:
    """Let what is computed here wait for the copies."""
    torch = needed("torch", "to_device()", extra="torch")
    place = torch.device(device)
    if place.type == "cuda" and torch.cuda.is_available():
        _here.set(torch.cuda.current_device())  # a thread that runs ahead has another, but knows what is known here
    for datapoint, copied in source:
        yield with_leaves(partial(_awaited, torch, place, copied), datapoint) if copied is not None else datapoint


def _moved_tensor(torch: Any, place: Any, value: Any) -> Any:
    return value.to(place) if isinstance(value, torch.Tensor) else value


def _copied_tensor(torch: Any, place: Any, value: Any) -> Any:
    """A copy that is on its way; torch keeps the pinned memory until it has arrived."""
    if not _is_dense_tensor(torch, value):
        return value
    return (value.pin_memory() if value.device.type == "cpu" else value).to(place, non_blocking=True)


def _awaited(torch: Any, place: Any, copied: Any, value: Any) -> Any:
    if not _is_dense_tensor(torch, value):
        return _moved_tensor(torch, place, value)
    stream = torch.cuda.current_stream(value.device)
    stream.wait_event(copied)
    value.record_stream(stream)  # its memory is not given to another tensor before what runs there is done
    return value


def _is_dense_tensor(torch: Any, value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided


@around_a_pipe
@speaks
def as_dataset(flow: Any) -> Any:
    """A flow as the `IterableDataset` that torch's DataLoader takes, with workers or without.

    Each pass of the loader is the flow's next epoch: with `num_workers`, `persistent_workers` and any start method too.
    Workers share the datapoints: each comes once, augmented as it would be without workers. Where the flow makes
    batches, write `DataLoader(as_dataset(flow), batch_size=None)`: then batches come in the flow's own order, whatever
    the number of workers; where torch makes them, each worker makes batches of its own share. Each worker of a flow
    that cannot be indexed reads all of it, and gives its share; `prefetch(processes=n)` in the flow, and no workers of
    torch, does the work once. In ranks of a training, `shard(rank, world)` stands in the flow.

    The data set has the seed and the epoch that the flow has now. `set_epoch` sets the epoch of the next pass; of two
    passes whose workers start at the same time, either may be the first. The order is the flow's: torch refuses
    `shuffle=True` here; write `shuffle()` into the flow.

    A `StatefulDataLoader` saves where it stands and goes on exactly, under as many workers. Give it
    `generator=torch.Generator()`: each pass draws a number, also one that goes on, and else from the generator that
    dropout draws from.

    In other loops, each exact when it is killed and started again:

    - Lightning's Trainer takes `as_loader(flow, trainer)`.
    - Accelerate needs no loader: `for epoch in range(flow.epoch, epochs): for batch in flow: ...`, with
      `register_for_checkpointing(flow)`, and in the flow `shard(accelerator.process_index, accelerator.num_processes)`
      behind `shuffle` and `filter`, and `to_device(accelerator.device)`. Only the end of an epoch is not told to
      `accumulate`: gradients that wait there go on with the next one. A loader that is prepared wants
      `DataLoaderConfiguration(dispatch_batches=False, use_stateful_dataloader=True)`, `loader.set_epoch(epoch)` before
      each pass, and `generator=torch.Generator()`, so that a pass draws nothing from the generator that a model uses;
      an epoch that is over is saved behind its loop, not after its last batch.
    - transformers' Trainer has `get_train_dataloader`: return
      `self.accelerator.prepare(DataLoader(as_dataset(flow), batch_size=None))` there, with
      `accelerator_config={"dispatch_batches": False}`. A flow without a length ends in `cycle()`, and `max_steps` says
      when training does.

    Raises:
        ImportError: torch is not installed.
        ValueError: the flow stands within an epoch, by a state that was loaded.
        TypeError: in a pass, where several workers cannot share what the flow reads: an iterator, a queue, an
            IterableDataset (which may itself give each worker a part).

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(4), ff.shuffle(), ff.batch(2), to_torch())
    >>> from torch.utils.data import DataLoader  # doctest: +SKIP
    >>> loader = DataLoader(as_dataset(flow), batch_size=None, num_workers=2)  # doctest: +SKIP
    """
    needed("torch", "as_dataset()", extra="torch")
    from flowfn.interop.torch_datasets import FlowDataset

    return FlowDataset(_at_a_beginning(as_flow(flow, "as_dataset")))


def _at_a_beginning(flow: Any) -> Any:
    state = loaded_within(flow)
    if state:
        raise ValueError(
            f"as_dataset(): the state of the flow is within epoch {flow.epoch} (position {state['position']}), and a "
            "loader begins epochs at their beginning; save and load the state of a StatefulDataLoader, or set_epoch()"
        )
    return flow
