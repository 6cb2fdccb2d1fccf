"""Does a training in torch lose time by its data: making tensors of them, getting them out of processes, waiting?

Tensors: batches of 128 uint8 images of 28x28 and their int64 labels, from arrays in memory, in this process.
Transport: batches of 32 float32 images of 3x224x224 and their labels (19 MB), stacked in two processes from arrays that
are ready there, and looked at in this one. DataLoader as it comes (num_workers=2); tuned: four batches ahead of each worker,
datapoints asked for together and stacked into shared memory; and that with memory shared by names (file_system).
All give these very batches: that is looked at before time is taken.
Steps: a network of three convolutions learns from batches of 32 uint8 images of 64x64x3, mirrored and cropped at
random elsewhere: forward, backward and SGD, on the CPU. The yardstick is the same step with batches that are ready in
memory; it takes turns with the other in the same process, and the figure is the median of what the rounds give.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import peers
from lanes import Report, Round, best, held, steady
from loaders import AHEAD, ENDLESS, WORKERS, look_at
from measuring import Contestant, Finding, consume, fastest, ratio, report, shown

import flowfn as ff
from flowfn.interop import to_torch

# Tensors


def by_hand(batch: list[np.ndarray]) -> list[Any]:
    """What one writes without a library."""
    return [peers.torch().from_numpy(array) for array in batch]


def tensors(quick: bool) -> list[Finding]:
    """What is added to the same flow without tensors."""
    torch, batches = peers.torch(), 100
    images = np.random.default_rng(0).integers(0, 256, (128 * batches, 28, 28), np.uint8)
    flow = ff.pipe(ff.from_arrays(images, np.arange(len(images))), ff.batch(128))
    from_numpy = torch.from_numpy
    flows = {
        "without tensors": flow,
        "to_torch()": to_torch(flow),
        "torch.from_numpy": ff.map(lambda batch: [from_numpy(array) for array in batch], flow),
        "default_convert": ff.map(torch.utils.data.default_convert, flow),
    }
    contestants = {name: Contestant(partial(consume, one), batches) for name, one in flows.items()}
    times = fastest(contestants, 2 if quick else 500)
    bare = times.pop("without tensors")
    return [
        Finding(
            f"tensors of a batch: what {name} adds",
            f"{shown(seconds * 1e6)} µs, without {shown(bare * 1e6)} µs",
            (seconds - bare) * 1e6,
            "µs",
            "<= 5" if name == "to_torch()" else "",
        )
        for name, seconds in times.items()
    ]


# Transport

LARGE = 32


@cache
def large() -> list[np.ndarray]:
    """Images, made once in each process."""
    return list(np.random.default_rng(0).random((LARGE * 2, 3, 224, 224), np.float32))


def large_image(index: int) -> tuple[np.ndarray, int]:
    """An image that is ready, and its label."""
    return large()[index % len(large())], index % 1000


class LargeImages:
    """The same as a data set, with torch's own tensors."""

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = large_image(index)
        return peers.torch().from_numpy(image), label


class LargeImagesTogether(LargeImages):
    """... which gives a batch at a time."""

    def __getitems__(self, indices: list[int]) -> Any:
        torch, images = peers.torch(), [large()[index % len(large())] for index in indices]
        storage = torch.UntypedStorage._new_shared(len(images) * images[0].nbytes)
        made = torch.empty(0).set_(storage).view(len(images), *images[0].shape)
        np.stack(images, out=made.numpy())
        return made, torch.tensor([index % 1000 for index in indices])


def same(batch: Any) -> Any:
    """A batch that is one already."""
    return batch


def large_with_flowfn() -> Iterable[Any]:
    """flowfn, two processes."""
    return ff.pipe(
        range(ENDLESS), ff.map(large_image), ff.batch(LARGE), ff.prefetch(AHEAD, processes=WORKERS), to_torch()
    )


def large_with_torch() -> Iterable[Any]:
    """DataLoader as it comes."""
    return peers.torch().utils.data.DataLoader(LargeImages(), batch_size=LARGE, num_workers=WORKERS)


def large_with_tuned_torch(strategy: str | None = None) -> Iterable[Any]:
    """DataLoader with what its documentation offers to those for whom it is too slow."""
    if strategy:
        peers.torch().multiprocessing.set_sharing_strategy(strategy)
    options = {"num_workers": WORKERS, "prefetch_factor": AHEAD, "collate_fn": same}
    return peers.torch().utils.data.DataLoader(LargeImagesTogether(), batch_size=LARGE, **options)


LOADING: dict[str, Callable[[], Iterable[Any]]] = {
    "flowfn": large_with_flowfn,
    "torch DataLoader": large_with_torch,
    "torch DataLoader, tuned": large_with_tuned_torch,
    "torch DataLoader, tuned, file_system": partial(large_with_tuned_torch, "file_system"),
}


def transporting(make: Callable[[], Iterable[Any]], seconds: float) -> Round:
    """Batches that are what they are to be."""
    peers.torch()
    batches = iter(make())
    for number in range(4):
        expected, labels = zip(*map(large_image, range(number * LARGE, (number + 1) * LARGE)))
        given = next(batches)
        if not (np.array_equal(given[0], np.stack(expected)) and given[1].tolist() == list(labels)):
            raise ValueError(f"batch {number} is not the one that it should be")
    return steady(batches, lambda batch: look_at(batch[0]), seconds)


def transport(quick: bool) -> list[Finding]:
    """How many times as fast as DataLoader."""
    times = best(held("training", tuple(LOADING), 1 if quick else 8, seconds=0.05 if quick else 0.5))
    return [
        ratio(
            f"batches of {shown(LARGE * 3 * 224 * 224 * 4 / 1e6)} MB as tensors: times as fast as {name}",
            times,
            name,
            "flowfn",
            unit="ms",
            target=">= 5" if name == "torch DataLoader" else "",
        )
        for name in LOADING
        if name != "flowfn"
    ]


# Steps

SMALL, PICTURES = 32, 4096


@cache
def pictures() -> np.ndarray:
    """Images, made once in each process."""
    return np.random.default_rng(0).integers(0, 256, (PICTURES, 64, 64, 3), np.uint8)


def augmented(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored or not, and shifted by up to four pixels, as most who train on small images do; channels first."""
    place, mirror = rng.integers(0, 9, 2), rng.random() < 0.5
    padded = np.zeros((72, 72, 3), np.uint8)
    padded[4:68, 4:68] = image[:, ::-1] if mirror else image
    top, left = place
    return padded[top : top + 64, left : left + 64].transpose(2, 0, 1)


def made_by_flowfn(*stages: Any) -> Iterable[Any]:
    """Batches of augmented images and labels, in a new order each epoch."""
    data = ff.from_arrays(pictures(), np.arange(PICTURES) % 10)
    augmenting = ff.map_component(augmented, 0, rng=True)
    return ff.pipe(data, ff.shuffle(), ff.cycle(), augmenting, ff.batch(SMALL), *stages, to_torch())


class Pictures:
    """The same as a data set; each worker has random numbers of its own."""

    def __len__(self) -> int:
        return PICTURES

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return augmented(pictures()[index], _worker_rng()), index % 10


@cache
def _worker_rng() -> np.random.Generator:
    return np.random.default_rng(peers.torch().initial_seed())


def made_by_torch(workers: int) -> Iterator[Any]:
    """The same batches of a DataLoader, epoch after epoch."""
    pictures()  # workers that are forked find them
    data = peers.torch(None).utils.data
    options = {"num_workers": workers, "prefetch_factor": AHEAD // workers, "persistent_workers": True}
    loader = data.DataLoader(Pictures(), batch_size=SMALL, shuffle=True, drop_last=True, **options)
    return itertools.chain.from_iterable(itertools.repeat(loader))


FEEDING: dict[str, Callable[[], Iterable[Any]]] = {
    "flowfn, no worker": made_by_flowfn,
    "flowfn, one process": lambda: made_by_flowfn(ff.prefetch(AHEAD, processes=1)),
    "flowfn, two processes": lambda: made_by_flowfn(ff.prefetch(AHEAD, processes=2)),
    "torch DataLoader, one worker": lambda: made_by_torch(1),
    "torch DataLoader, two workers": lambda: made_by_torch(2),
}


def learner() -> Callable[[Any], None]:
    """A small network; what is returned is a step of it."""
    torch = peers.torch(None)
    torch.manual_seed(0)
    nn, layers, channels = torch.nn, [], 3
    for more in (16, 32, 64):
        layers += [nn.Conv2d(channels, more, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = more
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 8 * 8, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(batch: Any) -> None:
        images, labels = batch
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images.float().div_(255)), labels).backward()
        optimizer.step()

    return step


def learning(name: str, count: int) -> Round:
    """Rounds of so many steps with batches that are ready, and so many with batches that are made meanwhile."""
    torch = peers.torch(None)
    threads = {"one thread": 1, "its own": torch.get_num_threads()}
    step, batches, serial = learner(), iter(FEEDING[name]()), iter(made_by_flowfn())
    ready = [[part.clone() for part in batch] for batch in islice(batches, 4)]

    def one_round() -> Report:
        told = {"making": _cpu_seconds(serial, count, lambda batch: None)}
        torch.set_num_threads(1)
        told["stepping"] = _cpu_seconds(itertools.cycle(ready), count, step)
        for setting, number in threads.items():
            torch.set_num_threads(number)
            time.sleep(0.2)  # what is made ahead of time is made by now, so that the next loop is left alone
            alone = _seconds(itertools.cycle(ready), count, step)
            _seconds(batches, AHEAD + 1, step)
            fed = _seconds(batches, count, step)
            told |= {f"alone, {setting}": alone, f"fed, {setting}": fed, f"share, {setting}": alone / fed}
        return told

    return one_round


def _seconds(
    batches: Iterator[Any], count: int, use: Callable[[Any], None], clock: Callable[[], float] = time.perf_counter
) -> float:
    """How long it takes to get a batch, and to use it."""
    start = clock()
    for batch in islice(batches, count):
        use(batch)
    return (clock() - start) / count


_cpu_seconds = partial(_seconds, clock=time.process_time)


def steps(quick: bool) -> list[Finding]:
    """Which share of its speed a training keeps."""
    reports = held("training", tuple(FEEDING), 1 if quick else 7, count=2 if quick else 6)
    making, stepping = (
        min(one[which] for told in reports.values() for one in told) for which in ("making", "stepping")
    )
    told = f"a batch {shown(making * 1e3)} ms, a step {shown(stepping * 1e3)} ms"
    findings = [Finding("computing for a batch: of what a step takes", told, making / stepping * 100, "%")]
    for setting in ("one thread", "its own"):
        where = setting if setting == "one thread" else "as many threads as it takes"
        for name in FEEDING:
            findings.append(_kept(f"steps of a network in {where}", name, setting, reports.get(name)))
    return findings


def _kept(what: str, name: str, setting: str, told: list[Report] | None) -> Finding:
    question = f"{what}: share of the speed with batches in memory, {name}"
    if not told:
        return Finding(question, f"{name} absent", None)
    alone, fed = (min(one[f"{which}, {setting}"] for one in told) for which in ("alone", "fed"))
    measured = f"at best {shown(fed * 1e3)} ms, with batches in memory {shown(alone * 1e3)} ms"
    share = median(one[f"share, {setting}"] for one in told)
    return Finding(question, measured, share, target=">= 0.95" if "process" in name else "")


CONTESTANTS = {
    **{name: partial(transporting, make) for name, make in LOADING.items()},
    **{name: partial(learning, name) for name in FEEDING},
}


def benchmark(quick: bool) -> list[Finding]:
    """All findings; without torch there is nothing to compare."""
    if peers.torch() is None:
        return [Finding("data for a training in torch", "torch absent", None)]
    return [*tensors(quick), *transport(quick), *steps(quick)]


if __name__ == "__main__":
    report(__doc__, benchmark)
