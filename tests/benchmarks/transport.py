"""How fast do large batches come out of worker processes?

Batches of 128 uint8 images of 224x224x3 (19 MB), stacked in two processes from arrays that are ready there, looked at in this one.
The yardstick is a copy of as many bytes into memory that has been written before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import numpy as np
from lanes import Report, Round, best, held, steady
from loaders import LOADERS, Work, look_at
from measuring import Finding, ratio, report, shown

IMAGES = 128
SHAPE = (224, 224, 3)
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


def copying(seconds: float) -> Round:
    """The yardstick: copies of a batch into warm memory."""
    source = np.stack(ready())
    target = source.copy()

    def one_round() -> Report:
        done, start = 0, perf_counter()
        while done < 4 or perf_counter() - start < seconds:
            np.copyto(target, source)
            done += 1
        return {"seconds": (perf_counter() - start) / done}

    return one_round


def loading(loader: Callable[[Work], Iterable[Any] | None], seconds: float) -> Round | None:
    """Batches of a loader."""
    batches = loader(Work(image, IMAGES))
    return None if batches is None else steady(iter(batches), look_at, seconds)


CONTESTANTS = {
    "memory copy": copying,
    **{name: functools.partial(loading, LOADERS[name]) for name in ("flowfn, processes", *TARGETS)},
}


def benchmark(quick: bool) -> list[Finding]:
    """All contestants, turn by turn."""
    times = best(held("transport", tuple(CONTESTANTS), 1 if quick else 6, seconds=0.05 if quick else 0.5))
    question = f"batches of {shown(MEGABYTES)} MB from two processes"
    ours, copied = (MEGABYTES / 1e3 / times[name] for name in ("flowfn, processes", "memory copy"))
    told = f"flowfn {shown(ours)} GB/s, memory copy {shown(copied)} GB/s"
    return [
        Finding(f"{question}: share of the bandwidth of a memory copy", told, ours / copied, target=">= 0.8"),
        *(
            ratio(f"{question}: times as fast as {name}", times, name, "flowfn, processes", unit="ms", target=target)
            for name, target in TARGETS.items()
        ),
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
