"""What does profiling cost, while it is on, and when it is off?

Off: four trivial maps, read by a flow that was profiled before, and by one that never was. On: the photographs of
`photographs.py` by two processes, in turns with and without; the processor's seconds of all processes count, since
those of the clock depend on who else is there.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from typing import Any

import psutil
from measuring import Contestant, Finding, consume, fastest, ratio, report
from photographs import prepared, written

import flowfn as ff

REST = 0.5
"""Seconds after which workers have ended what they had begun: that is counted, too."""


def plus(x: int) -> int:
    """Next to nothing."""
    return x + 1


def chain(count: int) -> ff.Flow[int]:
    """Four trivial maps."""
    flow: Any = ff.pipe(range(count), *[ff.map(plus)] * 4)
    return flow


def seconds_of_all() -> float:
    """The processor's seconds of this process and its workers."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def spent(flow: Any, outputs: int, profiled: bool) -> float:
    """The processor's seconds of a pass."""
    began = seconds_of_all()
    if profiled:
        with ff.profile(flow) as profiler:
            consume(itertools.islice(profiler, outputs))
    else:
        with flow.run() as iterator:
            consume(itertools.islice(iterator, outputs))
    time.sleep(REST)
    return seconds_of_all() - began


def monitored(flow: Any, outputs: int) -> float:
    """The same with what may stay on in production."""
    began = seconds_of_all()
    with ff.monitor(flow) as monitor:
        consume(itertools.islice(monitor, outputs))
    time.sleep(REST)
    return seconds_of_all() - began


def benchmark(quick: bool) -> list[Finding]:
    """What both cost."""
    count, rounds = (2_000, 3) if quick else (100_000, 15)
    fresh, used = chain(count), chain(count)
    ff.profile(used, n=100)
    times = fastest(
        {
            "never profiled": Contestant(lambda: consume(fresh), count),
            "profiled before": Contestant(lambda: consume(used), count),
        },
        rounds,
    )
    off = ratio("a datapoint, when it is off", times, "profiled before", "never profiled", target="<= 1.02")
    files, outputs, turns = (100, 4, 2) if quick else (3000, 40, 6)
    with tempfile.TemporaryDirectory() as folder:
        written(folder, files)
        flow = ff.pipe(
            range(files),
            ff.shuffle(),
            ff.map(functools.partial(prepared, folder, files)),
            ff.batch(16 if quick else 64),
            ff.prefetch(4, processes=2),
        )
        ff.warm_up(2)
        spent(flow, outputs, False)
        plain, on, sampled = [], [], []
        for _ in range(turns):
            plain.append(spent(flow, outputs, False))
            on.append(spent(flow, outputs, True))
            sampled.append(monitored(flow, outputs))
        ff.shut_down()
    took = {"plain": min(plain), "profiled": min(on), "monitored": min(sampled)}
    return [
        off,
        ratio("photographs, profiled", took, "profiled", "plain", unit="ms", target="<= 1.05"),
        ratio("photographs, monitored", took, "monitored", "plain", unit="ms", target="<= 1.01"),
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
