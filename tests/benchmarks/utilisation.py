"""How many accelerators does a loader keep at least 90 % busy?

As MLPerf Storage does it: an accelerator is emulated, a sleep of known length for each batch that computes nothing, and
what counts is the share of time in which it sleeps. The shorter the step at which that share is 90 % still, the more
accelerators (or the faster ones) could be fed; it is searched for by trying one step after the other. Five workloads,
all loaders with two workers, and beside the accelerators what all processes of a loader compute and take of memory.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

from feeders import FEEDERS, fed
from footprint import memory_of
from lanes import Lane, LeftOut, Report, Round, cpu_seconds, leave_out
from loaders import AHEAD, look_at
from measuring import Finding, report, shown
from workloads import WORKLOADS, write

BUSY = 0.9
OURS = ("flowfn, processes", "flowfn, threads")
PEERS = tuple(name for name in FEEDERS if name not in OURS)
COLUMNS = ("loader", "accelerators", "step", "batches/s", "CPU for 1000 batches", "peak memory")
WAITING = 12
"""Batches that may wait when a round begins: those that hold the most have two workers with six of them each."""
PR_SET_TIMERSLACK = 29


class Sizes(NamedTuple):
    """Steps that are tried, and seconds for each of them."""

    steps: int
    seconds: float


FULL, QUICK = Sizes(4, 0.5), Sizes(2, 0.05)


# Inside of a lane


class Search:
    """The shortest step at which an accelerator is busy, by what was seen until now."""

    def __init__(self) -> None:
        self.enough, self.short = float("inf"), 0.0

    def after(self, step: float, period: float) -> float:
        """The step to try, after one that was so long, and came so often: where its share of that period would be just
        enough, if that lies between what is known to be enough and what is not, or else between these."""
        if step >= BUSY * period:
            self.enough = min(self.enough, step)
        else:
            self.short = max(self.short, step)
        guess = BUSY * period
        if self.enough == float("inf"):
            return max(guess, 1.02 * self.short)
        if self.short < guess < 0.99 * self.enough:
            return guess
        return (self.short * self.enough) ** 0.5 if self.short else 0.8 * self.enough


def feeding(loader: str, name: str, folder: str, seconds: float) -> Round | None:
    """Rounds with an accelerator: first as fast as can be, then with steps that come closer and closer to the limit."""
    batches = fed(loader, name, Path(folder))
    if batches is None:
        return None
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)  # sleeps are as long as they are said to be
    search, step = Search(), 0.0

    def one_round() -> Report:
        nonlocal step
        made, busy = round_with(batches, step, seconds)
        spent = busy / made["batches"]
        period = made["seconds"] / made["batches"]
        late = spent - step  # what a sleep takes longer than it is asked to
        step = max(search.after(spent, period) - late, 1e-6) if step else BUSY * period
        return {"step": spent, "busy": spent / period, "rate": 1 / period, **made}

    return one_round


def round_with(batches: Iterator[Any], step: float, seconds: float) -> tuple[Report, float]:
    """So many seconds of an accelerator, and those of them in which it was busy. What waited before the clock starts is
    read first, and the accelerator is busy with it."""
    for _ in range(WAITING):
        look_at(next(batches))
    for _ in range(AHEAD):
        look_at(next(batches))
        sleep(step)
    busy, done, cpu, start = 0.0, 0, cpu_seconds(), perf_counter()
    while done < 4 or perf_counter() - start < seconds:
        look_at(next(batches))
        begin = perf_counter()
        if step > 0:
            sleep(step)
            busy += perf_counter() - begin
        done += 1
    return {"seconds": perf_counter() - start, "batches": done, "cpu": cpu_seconds() - cpu}, busy


CONTESTANTS = {loader: partial(feeding, loader) for loader in FEEDERS}


# The question


class Fed(NamedTuple):
    """The most that a loader feeds: a step and its rate, computing for a batch, both in seconds, and memory in bytes."""

    step: float
    rate: float
    cpu: float
    memory: int


def chosen(rounds: Sequence[Report], memory: int) -> Fed:
    """The round with the shortest step at which the accelerator was busy; where there is none, the busiest, whose step
    is then taken for as much longer as it lacks. Computing is told of all rounds together."""
    enough = [one for one in rounds if one["busy"] >= BUSY]
    best = min(enough, key=lambda one: one["step"]) if enough else max(rounds, key=lambda one: one["busy"])
    step = best["step"] if enough else BUSY / best["rate"]
    computing = sum(one["cpu"] for one in rounds) / sum(one["batches"] for one in rounds)
    return Fed(step, best["rate"], computing, memory)


def entered(**settings: Any) -> dict[str, Lane]:
    """Lanes for all loaders that can take part; they start side by side."""
    lanes = {loader: Lane("utilisation", loader, settings) for loader in FEEDERS}
    for loader, lane in list(lanes.items()):
        try:
            lane.answer()
        except LeftOut as error:
            leave_out(lanes, loader, error)
    return lanes


def watched(lane: Lane) -> tuple[Report, int]:
    """A round, and the most memory that was seen in it: shares of what several processes have (PSS)."""
    seen, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            seen.append(memory_of(lane.process.pid)[1])

    watching = threading.Thread(target=look)
    watching.start()
    try:
        lane.ask()
        told = lane.answer()
    finally:
        done.set()
        watching.join()
    return told, max(*seen, memory_of(lane.process.pid)[1])


def held(name: str, folder: Path, quick: bool) -> dict[str, Fed]:
    """What each loader feeds. They take turns; memory is looked at in the first round, which decides nothing."""
    sizes = QUICK if quick else FULL
    lanes = entered(name=name, folder=str(folder), seconds=sizes.seconds)
    rounds: dict[str, list[Report]] = {loader: [] for loader in lanes}
    memory: dict[str, int] = {}
    try:
        for number in range(1 + sizes.steps):
            for loader, lane in list(lanes.items()):
                try:
                    if number:
                        lane.ask()
                        rounds[loader].append(lane.answer())
                    else:
                        memory[loader] = watched(lane)[1]
                except LeftOut as error:
                    leave_out(lanes, loader, error)
                    rounds.pop(loader)
    finally:
        with ThreadPoolExecutor() as together:
            list(together.map(Lane.end, lanes.values()))
    return {loader: chosen(told, memory[loader]) for loader, told in rounds.items()}


# What is told


def first_of(found: Mapping[str, Fed], names: Sequence[str]) -> str:
    """Who feeds the most."""
    return min((name for name in names if name in found), key=lambda name: found[name].step)


def rows(found: Mapping[str, Fed]) -> str:
    """A workload as a Markdown table; accelerators in those of the best peer."""
    best = found[first_of(found, PEERS if set(PEERS) & set(found) else OURS)].step
    lines = [
        (
            loader,
            shown(best / one.step),
            f"{shown(one.step * 1e3)} ms",
            shown(one.rate),
            f"{shown(one.cpu * 1e3)} s",
            f"{shown(one.memory / 1e6)} MB",
        )
        for loader, one in sorted(found.items(), key=lambda item: item[1].step)
    ]
    widths = [max(len(line[column]) for line in (COLUMNS, *lines)) for column in range(len(COLUMNS))]
    marked = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in (COLUMNS, *lines)
    ]
    return "\n".join([marked[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *marked[1:]])


def of_workload(name: str, found: Mapping[str, Fed]) -> list[Finding]:
    """flowfn beside the best peer in each respect, and beside TurboLoader where that computes in one compiled pass."""
    if not set(PEERS) & set(found):
        return [Finding(f"{name}: accelerators, times those of the best peer", "all peers absent", None, "x", ">= 1")]
    ours, best = first_of(found, OURS), first_of(found, PEERS)
    ratio, told = found[best].step / found[ours].step, f"{ours} {shown(1 / found[ours].step)}"
    findings = [
        Finding(
            f"{name}: accelerators, times those of the best peer",
            f"batches a second: {told}, {best} {shown(1 / found[best].step)}",
            ratio,
            "x",
            ">= 1",
        )
    ]
    least = min((peer for peer in PEERS if peer in found), key=lambda peer: found[peer].cpu)
    for peer in dict.fromkeys([least, *["turboloader"] * (name == "photographs" and "turboloader" in found)]):
        findings.append(
            Finding(
                f"{name}: batches per CPU second, times those of {peer}",
                f"ms a batch: {ours} {shown(found[ours].cpu * 1e3)}, {peer} {shown(found[peer].cpu * 1e3)}",
                found[peer].cpu / found[ours].cpu if found[ours].cpu else None,
                "x",
                ">= 1.1" if peer == least else ">= 1",
            )
        )
    return findings


def summed_up(findings: Sequence[Finding]) -> list[Finding]:
    """In how many workloads flowfn is first, and by how much."""
    ratios = [one.result for one in findings if "accelerators" in one.question and one.result is not None]
    told = ", ".join(map(shown, ratios))
    return [
        Finding("workloads in which flowfn feeds the most accelerators", told, sum(x >= 1 for x in ratios), "", ">= 5"),
        Finding("and 1.3 times those of the best peer", told, sum(x >= 1.3 for x in ratios), "", ">= 3"),
    ]


def benchmark(quick: bool) -> list[Finding]:
    """All workloads, each with a table of its own."""
    findings: list[Finding] = []
    for name in WORKLOADS:
        with tempfile.TemporaryDirectory(prefix="flowfn-utilisation-") as folder:
            write(name, Path(folder), quick)
            found = held(name, Path(folder), quick)
        print(f"{name}\n\n{rows(found)}\n", flush=True)
        findings += of_workload(name, found)
    return findings + summed_up(findings)


if __name__ == "__main__":
    report(__doc__, benchmark)
