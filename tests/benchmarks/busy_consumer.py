"""By how much do workers slow down a consumer that computes in pure Python all the time?

Batches of 32 images of 224x224x3, mirrored and stacked elsewhere while this process computes for some 35 ms at each of
them and never lets go of the interpreter's lock of its own accord. The yardstick is the same computation over batches
that are ready in memory; it takes turns with the other in the same process. The workers need less than half a core, so
that two cores are enough for all.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
from lanes import Report, Round, held
from loaders import LOADERS, Work
from measuring import Finding, report, shown

IMAGES = 32
STEPS = 700_000
TARGETS = {
    "flowfn, processes": "< 5",
    "flowfn, threads": "",
    "torch DataLoader": "",
    "tensorpack, processes": "",
    "grain, processes": "",
    "grain, threads": "",
    "spdl, threads": "",
    "plain loky": "",
}


@functools.cache
def ready() -> list[np.ndarray]:
    """The images, made once in each process."""
    return list(np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), np.uint8))


def mirrored(index: int) -> np.ndarray:
    """An image, mirrored."""
    return np.ascontiguousarray(ready()[index % IMAGES][:, ::-1])


def computed(steps: int) -> int:
    """What the consumer does at every batch, whatever is in it."""
    total = 0
    for step in range(steps):
        total += step * step % 7
    return total


def seconds_with(batches: Iterable[Any], steps: int) -> float:
    """How long it takes to get the batches, and to compute at each of them."""
    start = time.perf_counter()
    for _ in batches:
        computed(steps)
    return time.perf_counter() - start


def computing(name: str, steps: int, count: int) -> Round | None:
    """Rounds of so many batches that are ready, and so many of a loader that has got into its stride."""
    loader = LOADERS[name](Work(mirrored, IMAGES))
    if loader is None:
        return None
    batches: Iterator[Any] = iter(loader)
    here = [np.stack(ready()) for _ in range(4)]
    next(batches)

    def one_round() -> Report:
        time.sleep(0.2)  # what the loader makes ahead of time is made by now, so that the next loop is left alone
        undisturbed = seconds_with(islice(cycle(here), count), steps)
        seconds_with(islice(batches, count // 3), steps)
        return {"undisturbed": undisturbed, "loading": seconds_with(islice(batches, count), steps)}

    return one_round


CONTESTANTS = {name: partial(computing, name) for name in TARGETS}


def benchmark(quick: bool) -> list[Finding]:
    """By how much longer the computation takes, in percent."""
    reports = held("busy_consumer", tuple(CONTESTANTS), 1 if quick else 10, steps=STEPS, count=3 if quick else 9)
    findings = []
    for name, target in TARGETS.items():
        question = f"a busy consumer: by how much it is slowed down, {name}"
        if name not in reports:
            findings.append(Finding(question, f"{name} absent", None, "%", target))
            continue
        undisturbed, loading = (min(one[which] for one in reports[name]) for which in ("undisturbed", "loading"))
        told = f"{shown(loading)} s, with batches in memory {shown(undisturbed)} s"
        findings.append(Finding(question, told, (loading / undisturbed - 1) * 100, "%", target))
    return findings


if __name__ == "__main__":
    report(__doc__, benchmark)
