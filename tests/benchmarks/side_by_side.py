"""How fast is a map that computes in Python by two workers, where threads run side by side and where they take turns?

A function of some 100 µs in pure Python, batches of 64 arrays. Run it with a free-threaded interpreter as well as with
another: which lock there is stands in the findings. `.ci/without_gil` makes such an interpreter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from lanes import Round, best, held, steady
from loaders import AHEAD, LOADERS, WORKERS, Work, look_at
from measuring import Finding, ratio, report

import flowfn as ff
from flowfn.process.interpreter import threads_compute_at_once

SIZE = 64
BESIDE = ("serial, beside another", "serial, beside this")
OURS = ("flowfn, workers=2", "flowfn, threads", "flowfn, processes")
PEERS = ("torch DataLoader", "spdl, threads", "grain, threads", "grain, processes")


def computing(x: int) -> np.ndarray:
    """What takes some 100 µs of Python."""
    return np.array([sum(i * i % 7 for i in range(1000)) + x])


def either(work: Work) -> Iterable[Any]:
    """flowfn, two workers of the kind that computes at once."""
    return ff.pipe(range(work.n), ff.map(work.f), ff.batch(work.size), ff.prefetch(AHEAD, workers=WORKERS))


def loading(name: str, seconds: float) -> Round | None:
    """Batches of a loader."""
    makers: dict[str, Callable[[Work], Iterable[Any] | None]] = {**LOADERS, OURS[0]: either}
    batches = makers["serial" if name in BESIDE else name](Work(computing, SIZE))
    return None if batches is None else steady(iter(batches), look_at, seconds)


CONTESTANTS = {name: functools.partial(loading, name) for name in ("serial", *BESIDE, *OURS, *PEERS)}


def benchmark(quick: bool) -> list[Finding]:
    """Throughput beside one thread, two programs of one thread each, and peers."""
    settings = {"seconds": 0.05 if quick else 0.5}
    reports = held("side_by_side", tuple(CONTESTANTS), 1 if quick else 8, groups=[BESIDE], **settings)
    times = {name: seconds / SIZE for name, seconds in best(reports).items()}
    times["two such loops side by side"] = max(times[name] for name in BESIDE) / 2
    lock = "without a lock" if threads_compute_at_once() else "with a lock"
    findings = []
    for ours in OURS:
        question = f"a map in Python, {lock}, {ours}"
        targets = {"target": ">= 1.8"} if ours == OURS[0] else {}
        findings.append(ratio(f"{question}: times as fast as serial", times, "serial", ours, unit="µs", **targets))
        findings.append(
            ratio(f"{question}: share of two loops side by side", times, "two such loops side by side", ours, unit="µs")
        )
        findings += [ratio(f"{question}: times as fast as {name}", times, name, ours, unit="µs") for name in PEERS]
    return findings


if __name__ == "__main__":
    report(__doc__, benchmark)
