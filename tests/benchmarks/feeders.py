"""The loaders that feed an accelerator: each is made for a workload as its own guide says, and gives batches without end.

All have two workers (threads or processes), read ahead four batches, shuffle, and go through the data again and again;
None stands for a peer that is not installed, or has nothing for such data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import peers
from by_tf_data import tf_data
from loaders import AHEAD, ENDLESS, WORKERS
from workloads import CROP, ROW, SHARDS, WORKLOADS, Workload, augmented, padded, photograph

import flowfn as ff


@dataclass(frozen=True)
class Job:
    """A workload by its name, and the folder that it lies in."""

    name: str
    folder: Path
    workload: Workload


def again_and_again(passes: Iterable[Any]) -> Iterator[Any]:
    """One pass after the other."""
    return chain.from_iterable(repeat(passes))


# flowfn


def flow(job: Job) -> Any:
    """Batches, in this process."""
    from flowfn.datasets import IMAGENET_STATISTICS
    from flowfn.formats import read_tokens
    from flowfn.image import normalize

    work = job.workload
    batch = partial(ff.batch, work.size, drop_remainder=True)
    if job.name == "photographs":
        read = ff.map(lambda path, rng: photograph(Path(path).read_bytes(), rng), rng=True)
        return ff.pipe(work.records.paths, ff.shuffle(), read, batch(collate=normalize(*IMAGENET_STATISTICS)))
    if job.name == "small images":
        return ff.pipe(work.records, ff.shuffle(), ff.map(augmented, rng=True), batch())
    if job.name == "tokens":
        rows = read_tokens(str(job.folder / "train.bin"), "uint16", ROW)
        return ff.pipe(rows, ff.shuffle(), batch(), ff.map(lambda rows: rows.astype(np.int64)))
    collate = ff.stack if work.collate is np.stack else ff.pad(0)
    return ff.pipe(range(work.n), ff.shuffle(), ff.map(work.datapoint, rng=True), batch(collate=collate))


def flowfn_processes(job: Job) -> Iterator[Any]:
    """flowfn, two processes."""
    return iter(ff.pipe(flow(job), ff.cycle(), ff.prefetch(AHEAD, processes=WORKERS)))


def flowfn_threads(job: Job) -> Iterator[Any]:
    """flowfn, two threads."""
    return iter(ff.pipe(flow(job), ff.cycle(), ff.prefetch(AHEAD, threads=WORKERS)))


# Those that take a function


def torch(job: Job) -> Iterator[Any] | None:
    """torch's DataLoader, whose workers stack straight into shared memory, and take whole batches of rows at once, by
    `__getitems__`, where nothing is done with a single one. It draws with replacement: its passes have no seam then."""
    module, work = peers.torch(), job.workload
    if module is None:
        return None

    class Dataset(module.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return work.n

        def __getitem__(self, index: int) -> Any:
            return module.from_numpy(np.ascontiguousarray(work.drawn(index)))

    class Rows(Dataset):
        def __getitems__(self, indices: list[int]) -> Any:
            return module.from_numpy(work.records[indices].astype(np.int64))

    collate: Any = None
    if job.name == "unequal mix":
        collate = _padded_by_torch
    elif job.name == "tokens":
        collate = _as_it_is
    dataset = Rows() if job.name == "tokens" else Dataset()
    sampler = module.utils.data.RandomSampler(dataset, replacement=True, num_samples=ENDLESS)
    options = {"sampler": sampler, "num_workers": WORKERS, "prefetch_factor": AHEAD // WORKERS}
    return iter(module.utils.data.DataLoader(dataset, work.size, collate_fn=collate, **options))


def _as_it_is(batch: Any) -> Any:
    return batch


def _padded_by_torch(tensors: Sequence[Any]) -> Any:
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(tensors, batch_first=True)


def _grain(job: Job) -> Any:
    grain, work = peers.grain(), job.workload
    if grain is None:
        return None
    batch_fn = None if work.collate is np.stack else work.collate
    dataset = grain.MapDataset.range(work.n).seed(0).shuffle().repeat().random_map(work.datapoint)
    return dataset.batch(work.size, batch_fn=batch_fn)


def grain_processes(job: Job) -> Iterator[Any] | None:
    """Grain, two processes, with two read threads in each: its default, 16 of them, is slower by far."""
    grain, batches = peers.grain(), _grain(job)
    if batches is None:
        return None
    options = grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=AHEAD // WORKERS)
    read = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    return iter(batches.to_iter_dataset(read).mp_prefetch(options))


def grain_threads(job: Job) -> Iterator[Any] | None:
    """Grain, two read threads."""
    grain, batches = peers.grain(), _grain(job)
    if batches is None:
        return None
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=AHEAD)))


@dataclass(frozen=True)
class Blocks:
    """The indices of each batch of a pass, in a new order every time, without end."""

    n: int
    size: int

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            order = np.random.permutation(self.n)[: self.n // self.size * self.size]
            yield from order.reshape(-1, self.size).tolist()


def _spdl(job: Job) -> Any:
    """Whole batches in each of two threads, as its guide advises for what is small: the fewest tasks."""
    spdl, work = peers.spdl(), job.workload
    if spdl is None:
        return None
    builder = spdl.PipelineBuilder().add_source(Blocks(work.n, work.size))
    return builder.pipe(work.batch, concurrency=WORKERS, output_order="input").add_sink(AHEAD)


def spdl_threads(job: Job) -> Iterator[Any] | None:
    """SPDL, two threads."""
    builder = _spdl(job)
    return None if builder is None else _read(builder.build(num_threads=WORKERS))


def _read(pipeline: Any) -> Iterator[Any]:
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()


def spdl_subprocess(job: Job) -> Iterator[Any] | None:
    """SPDL, two threads in a process of their own, where they keep nobody from computing."""
    builder = _spdl(job)
    if builder is None:
        return None
    return iter(peers.spdl().run_pipeline_in_subprocess(builder.get_config(), num_threads=WORKERS, buffer_size=AHEAD))


def webdataset(job: Job) -> Iterator[Any] | None:
    """webdataset: tar files drawn by chance, a buffer that is shuffled, batches made in two workers of WebLoader."""
    wds, module, work = peers.webdataset(), peers.torch(), job.workload
    if wds is None or module is None:
        return None

    def made(sample: Any) -> np.ndarray:
        return work.made(work.parsed(sample["jpg"]), random)

    def collated(arrays: Sequence[np.ndarray]) -> Any:
        return module.from_numpy(work.collate(arrays))

    shards = [str(job.folder / f"shard-{number}.tar") for number in range(SHARDS)]
    dataset = wds.WebDataset(shards, resampled=True, shardshuffle=False).shuffle(1000)
    dataset = dataset.map(made).batched(work.size, collation_fn=collated, partial=False)
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=WORKERS, prefetch_factor=AHEAD // WORKERS)
    return iter(loader)


def turboloader(job: Job) -> Iterator[Any] | None:
    """TurboLoader: photographs by its compiled pass, tokens by its reader of them, all else as any Python dataset."""
    turbo, work = peers.turboloader(), job.workload
    if turbo is None:
        return None
    if job.name == "photographs":
        options = {"image_size": (CROP, CROP), "output_format": "numpy_chw", "train_aug": True}
        transform = turbo.ImageNetNormalize()
        path, ahead = str(job.folder / "whole.tar"), {"num_workers": WORKERS, "prefetch_batches": AHEAD}
        loader = turbo.DataLoader(path, work.size, shuffle=True, transform=transform, **options, **ahead)
        return (images for images, _ in again_and_again(Epochs(loader)))
    if job.name == "tokens":
        loader = turbo.TokenDataLoader(str(job.folder / "train.bin"), ROW, work.size, return_targets=False)
    else:
        collate, ahead = work.collate, {"num_workers": WORKERS, "prefetch_batches": AHEAD}
        loader = turbo.MapDataLoader(Drawn(work), work.size, shuffle=True, collate_fn=collate, **ahead)
    return again_and_again(Epochs(loader))


@dataclass(frozen=True)
class Drawn:
    """A workload as a dataset of datapoints, over and over in one long pass."""

    workload: Workload

    def __len__(self) -> int:
        return 50 * self.workload.n

    def __getitem__(self, index: int) -> np.ndarray:
        return self.workload.drawn(int(index))


class Epochs:
    """Passes of a loader that is told their numbers."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.epoch = loader, 0

    def __iter__(self) -> Iterator[Any]:
        self.loader.set_epoch(self.epoch)
        self.epoch += 1
        return iter(self.loader)


FEEDERS: dict[str, Callable[[Job], Iterator[Any] | None]] = {
    "flowfn, processes": flowfn_processes,
    "flowfn, threads": flowfn_threads,
    "torch DataLoader": torch,
    "grain, processes": grain_processes,
    "grain, threads": grain_threads,
    "spdl, threads": spdl_threads,
    "spdl, subprocess": spdl_subprocess,
    "tf.data": lambda job: tf_data(job.name, job.folder, job.workload),
    "webdataset": webdataset,
    "turboloader": turboloader,
}


def fed(loader: str, name: str, folder: Path) -> Iterator[Any] | None:
    """The batches of a loader for a workload, once it is certain that they are of its kind; it has started then."""
    work = WORKLOADS[name](folder)
    batches = FEEDERS[loader](Job(name, folder, work))
    if batches is None:
        return None
    first, wanted = np.asarray(next(batches)), work.batch(range(work.size))
    known = 1 if work.collate is padded else wanted.ndim  # axes whose length does not hang on what was drawn
    assert first.ndim == wanted.ndim, f"{loader}: {first.shape}"
    assert (first.dtype, first.shape[:known]) == (wanted.dtype, wanted.shape[:known]), f"{loader}: {first.shape}"
    assert np.allclose(first.std(), wanted.std(), rtol=0.5), f"{loader}: other numbers"
    return batches
