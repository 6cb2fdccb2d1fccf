"""How well is work spread over two workers where datapoints are tiny, and where some take much longer than others?

Tiny: 200 000 ints through a function of about 2 µs, against the same pipeline in this process. Unequal: 1 of 100
    datapoints, drawn at random, takes 50 times as long, against half the time that one worker takes. There the time is
    slept, so that cores are no limit.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import peers
from lanes import Round, best, held
from measuring import Contestant, Finding, consume, fastest, ratio, report, shown

import flowfn as ff

SHORT, LONG = 1e-3, 50e-3
AHEAD = 100
"""Outputs that may wait: what one worker does while the other one is at a long datapoint, and some more."""


# Tiny datapoints


def some_microseconds(x: int) -> int:
    """What takes about 2 µs."""
    return sum(range(x, x + 64))


def tiny(quick: bool) -> list[Finding]:
    """Are two processes ever much slower than none?"""
    n = 20_000 if quick else 200_000
    batches = (ff.batch(128),)
    pipelines: dict[str, tuple[Any, ...]] = {
        "in this process": (),
        "batches, in this process": batches,
        "two processes, 4 ahead": (ff.prefetch(4, processes=2),),
        "two processes, 1000 ahead": (ff.prefetch(1000, processes=2),),
        "batches, two processes, 4 ahead": (*batches, ff.prefetch(4, processes=2)),
    }
    contestants = {
        name: Contestant(partial(consume, ff.pipe(range(n), ff.map(some_microseconds), *stages)), n)
        for name, stages in pipelines.items()
    }
    for name in contestants:
        consume(ff.pipe(range(1000), ff.map(some_microseconds), *pipelines[name]))  # the workers are there
    times = fastest(contestants, 2 if quick else 8)
    ff.shut_down()
    findings = []
    for name in list(pipelines)[2:]:
        serial = "batches, in this process" if "batches" in name else "in this process"
        findings.append(
            ratio(f"tiny datapoints: times as fast as {serial}, {name}", times, serial, name, target=">= 0.8")
        )
    return findings


# Unequal datapoints


def long_ones(n: int) -> frozenset[int]:
    """Which datapoints take long: 1 of 100."""
    return frozenset(random.Random(0).sample(range(n), n // 100))


def slept(n: int, index: int) -> int:
    """Wait as long as a datapoint takes."""
    time.sleep(LONG if index in _long_ones(n) else SHORT)
    return index


_long_ones = functools.cache(long_ones)


def passes(make: Callable[[int], Iterable[Any] | None], n: int) -> Round | None:
    """Whole passes; the workers are started before."""
    loader = make(n)
    if loader is None:
        return None
    consume(loader)

    def one_round() -> dict[str, float]:
        start = time.perf_counter()
        consume(loader)
        return {"seconds": time.perf_counter() - start}

    return one_round


class InThisProcess:
    """One worker."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        return (slept(self.n, index) for index in range(self.n))


def with_flowfn(n: int, **options: Any) -> Iterable[Any]:
    """flowfn, two workers."""
    return ff.pipe(range(n), ff.map(partial(slept, n)), ff.prefetch(AHEAD, **options))


def with_torch(n: int) -> Iterable[Any] | None:
    """torch's DataLoader, which gives each of its workers every second datapoint."""
    torch = peers.torch()
    if torch is None:
        return None

    class Dataset(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return n

        def __getitem__(self, index: int) -> int:
            return slept(n, index)

    options = {"num_workers": 2, "prefetch_factor": AHEAD // 2, "persistent_workers": True}
    loader: Iterable[Any] = torch.utils.data.DataLoader(Dataset(), batch_size=None, **options)
    return loader


CONTESTANTS = {
    "one worker": partial(passes, InThisProcess),
    "flowfn, processes": partial(passes, partial(with_flowfn, processes=2)),
    "flowfn, threads": partial(passes, partial(with_flowfn, threads=2)),
    "flowfn, processes, in any order": partial(passes, partial(with_flowfn, processes=2, ordered=False)),
    "torch DataLoader": partial(passes, with_torch),
}


def unequal(quick: bool) -> list[Finding]:
    """How much longer than the ideal schedule does it take?"""
    times = best(held("spreading", tuple(CONTESTANTS), 1 if quick else 4, n=200 if quick else 2000))
    ideal = times["one worker"] / 2
    findings = []
    for name in list(CONTESTANTS)[1:]:
        target = "<= 1.1" if name.startswith("flowfn") else ""
        told = f"{name} {shown(times[name])} s, ideal {shown(ideal)} s" if name in times else f"{name} absent"
        result = times[name] / ideal if name in times else None
        findings.append(
            Finding(f"unequal datapoints: times as long as the ideal schedule, {name}", told, result, target=target)
        )
    return findings


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    return [*tiny(quick), *unequal(quick)]


if __name__ == "__main__":
    report(__doc__, benchmark)
