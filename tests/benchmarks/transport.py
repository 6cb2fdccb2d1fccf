"""How fast do large batches come out of worker processes?

Batches of 128 uint8 images of 224x224x3 (19 MB), stacked in two processes from arrays that are ready there, looked at
in this one. The yardstick is a copy of as many bytes into memory that has been written before: always the same, which
stays in the processor's cache in part, and a different one each time, as the batches of a pipeline are.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import numpy as np
from lanes import Report, Round, best, held, steady
from loaders import LOADERS, Work, look_at
from measuring import Finding, ratio, report, shown

IMAGES = 128
SHAPE = (224, 224, 3)
ROUND = 8
"""More batches than a cache holds."""
MEGABYTES = IMAGES * int(np.prod(SHAPE)) / 1e6
TARGETS = {
    "torch DataLoader": ">= 5",
    "tensorpack, processes": ">= 10",
    "grain, processes": ">= 6",
    "plain loky": ">= 25",
}


@functools.cache
def ready() -> list[np.ndarray]:
    """The images, made once in each process."""
    return list(np.random.default_rng(0).integers(0, 256, (IMAGES, *SHAPE), np.uint8))


def image(index: int) -> np.ndarray:
    """An image that is ready."""
    return ready()[index % IMAGES]


def copying(places: int, seconds: float) -> Round:
    """The yardstick: copies of a batch into so many places, all of them written before."""
    source = np.stack(ready())
    targets = itertools.cycle([source.copy() for _ in range(places)])

    def one_round() -> Report:
        done, start = 0, perf_counter()
        while done < 4 or perf_counter() - start < seconds:
            np.copyto(next(targets), source)
            done += 1
        return {"seconds": (perf_counter() - start) / done}

    return one_round


def loading(loader: Callable[[Work], Iterable[Any] | None], seconds: float) -> Round | None:
    """Batches of a loader."""
    batches = loader(Work(image, IMAGES))
    return None if batches is None else steady(iter(batches), look_at, seconds)


CONTESTANTS = {
    "memory copy": functools.partial(copying, 1),
    "memory copy, going round": functools.partial(copying, ROUND),
    **{name: functools.partial(loading, LOADERS[name]) for name in ("flowfn, processes", *TARGETS)},
}


def benchmark(quick: bool) -> list[Finding]:
    """All contestants, turn by turn."""
    times = best(held("transport", tuple(CONTESTANTS), 1 if quick else 6, seconds=0.05 if quick else 0.5))
    question = f"batches of {shown(MEGABYTES)} MB from two processes"
    ours, copied, around = (
        MEGABYTES / 1e3 / times[name] for name in ("flowfn, processes", "memory copy", "memory copy, going round")
    )
    told = f"flowfn {shown(ours)} GB/s, memory copy {shown(copied)} GB/s"
    going = f"flowfn {shown(ours)} GB/s, memory copy {shown(around)} GB/s"
    return [
        Finding(f"{question}: share of the bandwidth of a memory copy", told, ours / copied, target=">= 0.8"),
        Finding(f"{question}: share of that of a copy going round {ROUND} places", going, ours / around),
        *(
            ratio(f"{question}: times as fast as {name}", times, name, "flowfn, processes", unit="ms", target=target)
            for name, target in TARGETS.items()
        ),
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
