"""Does flowfn copy a large source, and does anything stay behind of iterators that are not read to their end?

Memory is what `tracemalloc` sees in this process: all objects and arrays. Threads are counted,
since it does not see them.
"""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable
from itertools import islice
from typing import Any

from measuring import Finding, report, shown

import flowfn as ff

READ = 1000


def add_one(x: int) -> int:
    """A trivial function."""
    return x + 1


def large_source(quick: bool) -> list[Finding]:
    """How much is allocated at most to begin with a long list, and to read single datapoints of it?"""
    size, name = (10**6, "10^6") if quick else (10**7, "10^7")
    data = list(range(size))
    readings: dict[str, Callable[[], None]] = {
        "iterate": lambda: _first(ff.pipe(data, ff.map(add_one))),
        "flow[i]": lambda: _indexed(ff.pipe(data, ff.map(add_one)), size),
        "shuffle, iterate": lambda: _first(ff.pipe(data, ff.shuffle(), ff.map(add_one))),
        "prefetch(2)": lambda: _first(ff.pipe(data, ff.map(add_one), ff.prefetch(2))),
        "shuffle, prefetch(2, processes=2)": lambda: _first(
            ff.pipe(data, ff.shuffle(), ff.map(add_one), ff.prefetch(2, processes=2))
        ),
    }
    findings = []
    for way, read in readings.items():
        read()  # what is imported or cached at first use is no copy
        measured = f"at most at a time, for {READ} outputs; a copy is {shown(sys.getsizeof(data) / 1e6)} MB"
        findings.append(Finding(f"memory for a list of {name}: {way}", measured, _peak(read) / 1e6, "MB", "< 2"))
    ff.shut_down()
    return findings


def abandoned(quick: bool) -> list[Finding]:
    """How much memory do iterators hold that gave one datapoint and were dropped, one after the other?"""
    iterators = 100 if quick else 1000
    data = list(range(10_000))
    pipelines = {
        "shuffle, map, batch": ff.pipe(data, ff.shuffle(), ff.map(add_one), ff.batch(8)),
        "filter, shuffle_buffer": ff.pipe(data, ff.filter(add_one), ff.shuffle_buffer(10)),
        "shuffle, repeat": ff.pipe(data, ff.shuffle(), ff.repeat(2)),
        "prefetch(2)": ff.pipe(data, ff.shuffle(), ff.map(add_one), ff.prefetch(2)),
        "prefetch(2, threads=2)": ff.pipe(data, ff.shuffle(), ff.map(add_one), ff.prefetch(2, threads=2)),
    }
    findings = []
    for name, flow in pipelines.items():
        most, left, threads = _growth(flow, iterators)
        measured = f"at most at a time; left in the end {shown(left)} bytes each, {threads} threads"
        findings.append(
            Finding(f"memory for {iterators} abandoned iterators: {name}", measured, most / 1e6, "MB", "< 1")
        )
    return findings


def _first(flow: Any) -> None:
    with iter(flow) as iterator:
        for _ in islice(iterator, READ):
            pass


def _indexed(flow: Any, n: int) -> None:
    for index in range(0, n, n // READ):
        flow[index]


def _peak(read: Callable[[], Any]) -> int:
    """The most bytes that were held at one time while reading, over what was held before."""
    gc.collect()
    tracemalloc.start()
    read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _growth(flow: Any, iterators: int) -> tuple[int, float, int]:
    """Bytes at most while iterators are abandoned, bytes and threads in the end, after some iterators to warm up.

    Meanwhile the garbage collector works as it always does; in the end it is called.
    """
    tracemalloc.start()
    _abandon(flow, iterators // 4)
    gc.collect()
    before, running = tracemalloc.get_traced_memory()[0], threading.active_count()
    tracemalloc.reset_peak()
    _abandon(flow, iterators)
    most = tracemalloc.get_traced_memory()[1] - before
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return most, max(left, 0) / iterators, threading.active_count() - running


def _abandon(flow: Any, iterators: int) -> None:
    for _ in range(iterators):
        next(iter(flow))


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    return [*large_source(quick), *abandoned(quick)]


if __name__ == "__main__":
    report(__doc__, benchmark)
