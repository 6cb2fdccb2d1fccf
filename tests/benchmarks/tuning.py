"""How near does tune come to the best setting that is found by hand?

Five pipelines; by hand all settings of a grid are measured (no prefetch, one thread, 2 to 8 threads, 2 processes, two
or eight ahead), each as often as the one that tune says to write, in turns, and the fastest counts. The target is 0.95
of it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from measuring import Finding, report, shown

import flowfn as ff


class Problem(NamedTuple):
    """What is upstream of the prefetch to find, and the seconds of the consumer's step."""

    make: Callable[[], Any]
    step: float


def waits(x: Any) -> Any:
    """A disk, or a network."""
    time.sleep(0.004)
    return x


def computes(x: int) -> int:
    """Python that holds its lock."""
    return sum(number * number for number in range(20_000 + x % 7))


def inflates(x: int) -> np.ndarray:
    """Numpy, without the lock."""
    return np.sort(np.random.default_rng(x).random(60_000))


def jumps(x: int) -> int:
    """Some take much longer."""
    time.sleep(0.03 if x % 9 == 4 else 0.001)
    return x


PROBLEMS = {
    "a map that waits": Problem(lambda: ff.pipe(range(100_000), ff.map(waits), ff.batch(4)), 0.004),
    "a map that computes": Problem(lambda: ff.pipe(range(100_000), ff.map(computes), ff.batch(8)), 0.002),
    "numpy": Problem(lambda: ff.pipe(range(100_000), ff.map(inflates), ff.batch(4)), 0.002),
    "unequal datapoints": Problem(lambda: ff.pipe(range(100_000), ff.map(jumps), ff.batch(2)), 0.002),
    "next to nothing": Problem(lambda: ff.pipe(range(1_000_000), ff.map(float), ff.batch(64)), 0.0),
}


def by_hand(flow: Any) -> Iterator[tuple[str, Any]]:
    """All settings of the grid."""
    yield "no prefetch", flow
    for ahead in (2, 8):
        yield f"prefetch({ahead})", ff.pipe(flow, ff.prefetch(ahead))
        for count in (2, 4, 8):
            yield f"prefetch({ahead}, threads={count})", ff.pipe(flow, ff.prefetch(ahead, threads=count))
        yield f"prefetch({ahead}, processes=2)", ff.pipe(flow, ff.prefetch(ahead, processes=2))


def per_second(flow: Any, step: float, seconds: float) -> float:
    """Outputs a second, once it runs."""
    with flow.run() as iterator:
        list(itertools.islice(iterator, 3))
        began, count = time.perf_counter(), 0
        for _ in iterator:
            if step:
                time.sleep(step)
            count += 1
            if time.perf_counter() > began + seconds:
                break
        return count / (time.perf_counter() - began)


def benchmark(quick: bool) -> list[Finding]:
    """tune beside the grid."""
    seconds, turns, budget = (0.05, 1, 1.0) if quick else (1.0, 3, 30.0)
    findings = []
    for name, problem in PROBLEMS.items():
        consumer = (lambda _, step=problem.step: time.sleep(step)) if problem.step else None
        tuned = ff.tune(problem.make(), consumer, seconds=budget)
        settings = {**dict(by_hand(problem.make())), "tune": tuned.flow}
        rates = dict.fromkeys(settings, 0.0)
        for _ in range(turns):
            for setting, flow in settings.items():
                rates[setting] = max(rates[setting], per_second(flow, problem.step, seconds))
        ours = rates.pop("tune")
        best = max(rates, key=lambda setting: rates[setting])
        said = f"{best} {shown(rates[best])}, tune ({tuned.flow.part}) {shown(ours)} a second"
        findings.append(Finding(f"{name}: tune's rate over the best by hand", said, ours / rates[best], "x", ">= 0.95"))
        ff.shut_down()
    return findings


if __name__ == "__main__":
    report(__doc__, benchmark)
