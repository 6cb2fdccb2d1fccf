"""What does profiling cost, while it is on, and when it is off?

Off: four trivial maps, read by a flow that was profiled before, and by one that never was. On: short passes over the
photographs of `photographs.py` by two processes, with and without, by turns; what counts are the processor's seconds of
all processes until the pass is over, since those of the clock depend on who else is there, in the quarter of passes
that were disturbed least. The same of a second way without tells how far two equals are apart here; what a profile
says itself that it took is counted, not measured beside others.
"""

from __future__ import annotations

import functools
import tempfile
from statistics import fmean
from typing import Any

import psutil
from measuring import Contestant, Finding, consume, fastest, ratio, report, shown
from photographs import prepared, written

import flowfn as ff

TARGETS = {"profiled": "<= 1.05", "monitored": "<= 1.01", "plain again": ""}


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


def plain(flow: Any) -> float:
    """The processor's seconds of a pass, the second one: in the first it is learned how large outputs are."""
    consume(flow)
    began = seconds_of_all()
    consume(flow)
    return seconds_of_all() - began


def profiled(flow: Any) -> float:
    """The same while every stage is timed; what comes of that is told afterwards."""
    with ff.profile(flow) as profiler:
        return plain(profiler)


def monitored(flow: Any) -> float:
    """The same with what may stay on in production."""
    with ff.monitor(flow) as monitor:
        return plain(monitor)


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
    files, size, turns = (64, 8, 1) if quick else (192, 16, 24)
    with tempfile.TemporaryDirectory() as folder:
        written(folder, files)
        read = functools.partial(prepared, folder, files)
        flow = ff.pipe(range(files), ff.shuffle(), ff.map(read), ff.batch(size), ff.prefetch(4, processes=2))
        ways = {"plain": plain, "profiled": profiled, "monitored": monitored, "plain again": plain}
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():  # workers begin, and learn what to do
            way(flow)
        for turn in range(turns):
            for name in list(ways)[:: 1 if turn % 2 else -1]:
                spent[name].append(ways[name](flow))
        found = ff.profile(flow, n=files // size)
        ff.shut_down()
    share = found.cost / sum(stage.cpu * stage.calls / 1000 for stage in found.stages)
    told = f"{shown(1e3 * found.cost)} ms for {sum(stage.calls for stage in found.stages)} outputs of stages"
    counted = Finding("photographs, profiled, as it says itself", told, 1 + share, "x", "<= 1.05")
    return [off, *(beside(spent, name, target) for name, target in TARGETS.items()), counted]


def beside(spent: dict[str, list[float]], name: str, target: str) -> Finding:
    """How many times as many of the processor's seconds a way took as the plain one."""
    ours, plain = (least(spent[one]) for one in (name, "plain"))
    said = f"plain {shown(1e3 * plain)} ms of a processor, {name} {shown(1e3 * ours)} ms"
    return Finding(f"photographs, {name}", said, ours / plain, "x", target)


def least(seconds: list[float]) -> float:
    """The mean of the least quarter."""
    return fmean(sorted(seconds)[: max(len(seconds) // 4, 1)])


if __name__ == "__main__":
    report(__doc__, benchmark)
