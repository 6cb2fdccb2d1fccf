"""The same pipeline in flowfn and in its peers: a function of an index, batches of what it returns, two workers.

Each loader is made as its documentation says for this case, reads ahead about as far as the others, and can be read
again and again; None stands for a peer that is not installed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import peers

import flowfn as ff

WORKERS = 2
AHEAD = 4
ENDLESS = 10**8
"""Datapoints of a pass that nobody reads to its end."""


@dataclass(frozen=True)
class Work:
    """What is to be done: `f(0)`, `f(1)`, ... up to `n`, in batches of `size`. `f` returns arrays of one shape."""

    f: Callable[[int], np.ndarray]
    size: int
    n: int = ENDLESS

    def batch(self, number: int) -> np.ndarray:
        """The batch of a number."""
        return np.stack([self.f(index) for index in range(number * self.size, (number + 1) * self.size)])


@dataclass(frozen=True)
class Passes:
    """Something that can be read again and again: `begin` is called for each pass."""

    begin: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.begin()


def serial(work: Work) -> Iterable[Any]:
    """What one writes without a library, in one thread."""
    return Passes(lambda: map(work.batch, range(work.n // work.size)))


def flowfn_processes(work: Work) -> Iterable[Any]:
    """flowfn, two processes."""
    return ff.pipe(range(work.n), ff.map(work.f), ff.batch(work.size), ff.prefetch(AHEAD, processes=WORKERS))


def flowfn_threads(work: Work) -> Iterable[Any]:
    """flowfn, two threads."""
    return ff.pipe(range(work.n), ff.map(work.f), ff.batch(work.size), ff.prefetch(AHEAD, threads=WORKERS))


def torch(work: Work) -> Iterable[Any] | None:
    """torch's DataLoader, whose workers stay from pass to pass, and stack straight into shared memory."""
    module = peers.torch()
    if module is None:
        return None

    class Dataset(module.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return work.n

        def __getitem__(self, index: int) -> Any:
            return module.from_numpy(work.f(index))

    options = {"num_workers": WORKERS, "prefetch_factor": AHEAD // WORKERS, "persistent_workers": True}
    loader: Iterable[Any] = module.utils.data.DataLoader(Dataset(), batch_size=work.size, **options)
    return loader


def tensorpack_processes(work: Work) -> Iterable[Any] | None:
    """DataFlow over ZeroMQ; each of its processes makes all batches, so that a pass is any of them."""
    dataflow = peers.tensorpack()
    if dataflow is None:
        return None
    batches = dataflow.BatchData(
        dataflow.MapData(dataflow.DataFromList(range(work.n), shuffle=False), _InList(work.f)), work.size
    )
    return _first_components(dataflow.MultiProcessRunnerZMQ(batches, WORKERS, hwm=AHEAD // WORKERS))


def tensorpack_threads(work: Work) -> Iterable[Any] | None:
    """DataFlow, the function in two threads."""
    dataflow = peers.tensorpack()
    if dataflow is None:
        return None
    source, buffered = dataflow.DataFromList(range(work.n), shuffle=False), AHEAD * work.size
    mapped = dataflow.MultiThreadMapData(source, WORKERS, _InList(work.f), buffer_size=buffered)
    return _first_components(dataflow.BatchData(mapped, work.size))


def grain_processes(work: Work) -> Iterable[Any] | None:
    """grain with two worker processes, and in each of them two read threads: its default,
    16 of them, is slower by far."""
    grain = peers.grain()
    if grain is None:
        return None
    dataset = grain.MapDataset.range(work.n).map(work.f).batch(work.size)
    options = grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=AHEAD // WORKERS)
    iterable = dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
    prefetched: Iterable[Any] = iterable.mp_prefetch(options)
    return prefetched


def grain_threads(work: Work) -> Iterable[Any] | None:
    """grain with two read threads."""
    grain = peers.grain()
    if grain is None:
        return None
    dataset = grain.MapDataset.range(work.n).map(work.f).batch(work.size)
    iterable: Iterable[Any] = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=AHEAD)
    )
    return iterable


def spdl_threads(work: Work) -> Iterable[Any] | None:
    """SPDL: the function in two threads, stacking in one more."""
    spdl = peers.spdl()
    if spdl is None:
        return None

    def begin() -> Iterator[Any]:
        builder = spdl.PipelineBuilder().add_source(range(work.n))
        builder = builder.pipe(work.f, concurrency=WORKERS, output_order="input").aggregate(work.size).pipe(np.stack)
        pipeline = builder.add_sink(AHEAD).build(num_threads=WORKERS + 1)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()

    return Passes(begin)


def loky(work: Work) -> Iterable[Any]:
    """Batches out of loky's futures, a few of them ahead. (joblib's own generator does not wait for who reads it.)"""
    from loky import get_reusable_executor

    def begin() -> Iterator[Any]:
        executor = get_reusable_executor(WORKERS, timeout=300)
        waiting: deque[Any] = deque()
        for number in range(work.n // work.size):
            waiting.append(executor.submit(work.batch, number))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    return Passes(begin)


LOADERS: dict[str, Callable[[Work], Iterable[Any] | None]] = {
    "serial": serial,
    "flowfn, processes": flowfn_processes,
    "flowfn, threads": flowfn_threads,
    "torch DataLoader": torch,
    "tensorpack, processes": tensorpack_processes,
    "tensorpack, threads": tensorpack_threads,
    "grain, processes": grain_processes,
    "grain, threads": grain_threads,
    "spdl, threads": spdl_threads,
    "plain loky": loky,
}


def look_at(batch: Any) -> int:
    """Read a byte of every page, of an array or a tensor: what nobody looks into need not have arrived."""
    array = np.asarray(batch)
    return int(array.reshape(-1).view(np.uint8)[::4096].sum())


class _InList:
    """A function whose result is a datapoint of one component."""

    def __init__(self, f: Callable[[int], Any]) -> None:
        self.f = f

    def __call__(self, index: int) -> list[Any]:
        return [self.f(index)]


def _first_components(dataflow: Any) -> Iterable[Any]:
    """The arrays of a DataFlow; it starts when it is first read."""
    started: list[Any] = []

    def begin() -> Iterator[Any]:
        if not started:
            dataflow.reset_state()
            started.append(dataflow)
        return map(itemgetter(0), dataflow)

    return Passes(begin)
