"""How near does tune come to the best setting that is found by hand?

Five pipelines; by hand all settings of a grid are measured (no prefetch, one thread, 2 to 8 threads, 2 processes, two
or eight ahead), and those that come out best once more. Then the best of them and what tune says to write are read by
turns, a moment each, and the ratio is the middle one of all turns; so is that of the best beside itself, which tells
how far two equals are apart here. The target is 0.95.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
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
        began = time.perf_counter()
        until, count = began + seconds, -3
        for _ in iterator:
            if step:
                time.sleep(step)
            count += 1
            if not count:  # what was ready all at once is out
                began = time.perf_counter()
                until = began + seconds
            if count > 0 and time.perf_counter() > until:
                break
        return count / (time.perf_counter() - began)


def best_by_hand(settings: dict[str, Any], step: float, seconds: float, finalists: int = 3) -> str:
    """The name of the fastest."""
    rates: dict[str, list[float]] = {name: [] for name in settings}
    for name, flow in settings.items():
        rates[name].append(per_second(flow, step, seconds))
    for _ in range(3):
        for name in sorted(rates, key=lambda name: -median(rates[name]))[:finalists]:
            rates[name].append(per_second(settings[name], step, seconds))
    return max(rates, key=lambda name: (len(rates[name]) > 1, median(rates[name])))


def by_turns(flows: Sequence[Any], step: float, seconds: float, turns: int) -> list[list[float]]:
    """Outputs a second of each in each turn; who comes first in one comes last in the next."""
    rates: list[list[float]] = [[] for _ in flows]
    for turn in range(turns):
        for place in list(range(len(flows)))[:: 1 if turn % 2 else -1]:
            rates[place].append(per_second(flows[place], step, seconds))
    return rates


def benchmark(quick: bool) -> list[Finding]:
    """tune beside the grid."""
    seconds, turns, budget = (0.05, 2, 1.0) if quick else (0.25, 7, 10.0)
    findings = []
    for name, problem in PROBLEMS.items():
        consumer = (lambda _, step=problem.step: time.sleep(step)) if problem.step else None
        ff.warm_up(2)
        tuned = ff.tune(problem.make(), consumer, seconds=budget)
        settings = dict(by_hand(problem.make()))
        best = best_by_hand(settings, problem.step, seconds)
        ours, theirs, again = by_turns([tuned.flow, *[settings[best]] * 2], problem.step, seconds, turns)
        ratio, noise = (median(one / two for one, two in zip(some, theirs)) for some in (ours, again))
        said = (
            f"{best} {shown(median(theirs))}, tune ({tuned.flow.part}) {shown(median(ours))} a second; "
            f"the best beside itself {shown(noise)}"
        )
        findings.append(Finding(f"{name}: tune's rate over the best by hand", said, ratio, "x", ">= 0.95"))
        ff.shut_down()
    return findings


if __name__ == "__main__":
    report(__doc__, benchmark)
