"""torch: datapoints as tensors, on a device, and a flow as what a DataLoader takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.datapoints.components import with_leaves
from flowfn.extras import needed
from flowfn.flows.sources import flow as as_flow
from flowfn.flows.stages import pipe, stage
from flowfn.parallel import prefetch

_WIDER = {"g": np.float64, "G": np.complex128, "M": np.int64, "m": np.int64}
"""The dtypes that torch lacks, by their characters, and what `widen=True` makes of them."""

_DEVICE = rules.Rule('a device as torch has it, like "cuda" or torch.device("cuda:1")', lambda value: True)


@stage.each(where={"widen": rules.boolean})
def to_torch(source: Any, *, widen: bool = False) -> Iterator[Any]:
    """Arrays and NumPy's numbers become tensors of the same dtype, shape and memory, in datapoints of any form.

    Nothing is copied where torch can look into an array as it lies there, and the array's memory is not used again as
    long as a tensor lives. What may not be written to (rows of `from_arrays`, of a cache, of a memory map), runs
    backwards or is in another order of bytes is copied. bfloat16 and float8 of ml_dtypes are torch's. Strings, None,
    Python's numbers, and arrays of strings or objects stay as they are.

    torch has no dtype for datetime64, timedelta64 and extended precision: they are errors, or with `widen=True` int64
    (counts of their unit), float64 and complex128.

    Raises:
        ImportError: torch is not installed.
        TypeError: torch has no such dtype.

    >>> import flowfn as ff
    >>> flow = ff.pipe([[1, 2.5], [3, 4.5]], ff.batch(2), to_torch())
    >>> next(iter(flow))  # doctest: +SKIP
    [tensor([1, 3]), tensor([2.5000, 4.5000], dtype=torch.float64)]
    """
    tensor = partial(_tensor, needed("torch", "to_torch()", extra="torch"), widen)
    for datapoint in source:
        yield with_leaves(tensor, datapoint)


def _tensor(torch: Any, widen: bool, value: Any) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if type(value) is np.ndarray and value.flags.writeable:
        try:
            return torch.from_numpy(value)
        except (TypeError, ValueError):  # no such dtype, or it runs backwards
            pass
    return _tensor_of_copy(torch, widen, value)


def _tensor_of_copy(torch: Any, widen: bool, value: Any) -> Any:
    dtype = value.dtype
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("to_torch(): torch has no masked arrays; write map(...) with x.filled(value) before")
    if dtype.kind in "USOT":
        return value
    if dtype.char in _WIDER and not widen:
        wider = np.dtype(_WIDER[dtype.char])
        raise TypeError(f"to_torch(): torch has no dtype for {dtype}; to_torch(widen=True) makes it {wider}")
    own = np.array(value, _WIDER.get(dtype.char, dtype.newbyteorder("=")), order="C", subok=False)
    if dtype.kind == "V" and hasattr(torch, dtype.name):  # of ml_dtypes
        plain = torch.from_numpy(own.reshape(-1).view(f"u{dtype.itemsize}"))
        return plain.view(getattr(torch, dtype.name)).reshape(own.shape)
    try:
        return torch.from_numpy(own)
    except TypeError:
        raise TypeError(
            f"to_torch(): torch has no dtype for {dtype}; write map(...) to one that it has before"
        ) from None


@stage.composite(where={"device": _DEVICE, "ahead": rules.positive})
def to_device(device: Any, source: Any, *, ahead: int = 2) -> Any:
    """Tensors, and arrays as `to_torch` makes them, go to a device while those before them are computed with.

    `ahead` datapoints are on the device or on their way to it. To a GPU of CUDA they are copied out of pinned memory on
    a stream of their own, and the stream that is current where they are delivered waits for them: nothing else has to
    be waited for or synchronised. The state of a pass is that of what was delivered. On "cpu" nothing happens beyond
    `to_torch`, so the same line does everywhere.

    Raises:
        ImportError: torch is not installed.
        RuntimeError: torch does not know such a device, or it is not there.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(6), ff.batch(2), to_device("cpu"))
    >>> [batch.device.type for batch in flow]  # doctest: +SKIP
    ['cpu', 'cpu', 'cpu']
    """
    torch = needed("torch", "to_device()", extra="torch")
    place = torch.device(device)
    if place.type == "cpu":
        return to_torch(source)
    return pipe(source, to_torch(), _sent(str(place)), prefetch(ahead), _received())


class _OnItsWay(NamedTuple):
    """A datapoint whose tensors are being copied to a device, and what is done when they are there."""

    datapoint: Any
    copied: Any


@stage.each(transparent=True)
def _sent(device: str, source: Any) -> Iterator[Any]:
    """Begin to copy tensors to a device."""
    torch = needed("torch", "to_device()", extra="torch")
    place = torch.device(device)
    if place.type != "cuda":
        for datapoint in source:
            yield _OnItsWay(with_leaves(partial(_moved, torch, place, False), datapoint), None)
        return
    stream = torch.cuda.Stream(place)
    for datapoint in source:
        with torch.cuda.stream(stream):
            yield _OnItsWay(with_leaves(partial(_moved, torch, place, True), datapoint), stream.record_event())


@stage.each(transparent=True)
def _received(source: Any) -> Iterator[Any]:
    """Let what is computed here wait for the copies."""
    torch = needed("torch", "to_device()", extra="torch")
    for datapoint, copied in source:
        if copied is not None:
            with_leaves(partial(_awaited, torch, copied), datapoint)
        yield datapoint


def _moved(torch: Any, place: Any, pinned: bool, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return (value.pin_memory() if pinned and value.device.type == "cpu" else value).to(place, non_blocking=pinned)


def _awaited(torch: Any, copied: Any, value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_cuda:
        stream = torch.cuda.current_stream(value.device)
        stream.wait_event(copied)
        value.record_stream(stream)  # its memory is not given to another tensor before what runs there is done
    return value


def as_dataset(flow: Any) -> Any:
    """A flow as the `IterableDataset` that torch's DataLoader takes, with workers or without.

    Each pass of the loader is the flow's next epoch: with `num_workers`, `persistent_workers` and any start method too.
    Workers share the datapoints: each comes once, augmented as it would be without workers. Where the flow makes
    batches, write `DataLoader(as_dataset(flow), batch_size=None)`: then batches come in the flow's own order, whatever
    the number of workers. Each worker of a flow that cannot be indexed reads all of it, and gives its share;
    `prefetch(processes=n)` in the flow, and no workers of torch, does the work once.

    A `StatefulDataLoader` saves and resumes it exactly. `set_epoch` sets the epoch of the next pass. The order is the
    flow's: torch refuses `shuffle=True` here; write `shuffle()` into the flow.

    Raises:
        ImportError: torch is not installed.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(4), ff.shuffle(), ff.batch(2), to_torch())
    >>> from torch.utils.data import DataLoader  # doctest: +SKIP
    >>> loader = DataLoader(as_dataset(flow), batch_size=None, num_workers=2)  # doctest: +SKIP
    """
    needed("torch", "as_dataset()", extra="torch")
    from flowfn.interop.torch_datasets import FlowDataset

    return FlowDataset(as_flow(flow, "as_dataset"))
