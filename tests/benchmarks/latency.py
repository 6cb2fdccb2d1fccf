"""How long does one wait: for the first batch, at the change of epochs, for the end?

Epochs of 16 batches of 32 small images from two worker processes. Cold: the first batch of a process that has imported
the library and no more. Warm: the first of another pipeline in the same process, later. An epoch change: from the last
batch of a pass to the first of the next pass of the same pipeline. The end: how long a script takes to be gone, with
all its processes, when it ends within a pass.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from lanes import LeftOut, Report, Round, enter, leave_out
from loaders import LOADERS, Work
from measuring import Finding, ratio, report, shown

import flowfn as ff

IMAGES, EPOCH, CHANGES = 32, 16, 4
SHUT_DOWN = "flowfn, shut_down()"
OURS = "flowfn, processes"
PEERS = ("torch DataLoader", "tensorpack, processes", "grain, processes", "plain loky")
QUESTIONS = {
    "cold": "the first batch, cold",
    "warm": "the first batch of another pipeline, warm",
    "change": "a change of epochs",
    "end": "the end of a script within a pass",
}


@functools.cache
def ready() -> list[np.ndarray]:
    """The images, made once in each process."""
    return list(np.random.default_rng(0).integers(0, 256, (IMAGES, 64, 64, 3), np.uint8))


def image(index: int) -> np.ndarray:
    """An image that is ready."""
    return ready()[index % IMAGES]


def inverted(index: int) -> np.ndarray:
    """The image that the other pipeline makes."""
    return 255 - image(index)


def waiting(name: str) -> Round | None:
    """One round, which leaves a pass that has begun; after it flowfn may be asked for another, which shuts it down."""
    load = LOADERS[OURS if name == SHUT_DOWN else name]
    left: list[Iterator[Any]] = []

    def one_round() -> Report:
        if left and name == SHUT_DOWN:
            return {"shut down": _seconds(ff.shut_down)[0]}
        cold, (loader, batches) = _seconds(lambda: _begun(load, image))
        changes = []
        for _ in range(CHANGES):
            for _ in batches:
                pass
            seconds, batches = _seconds(lambda: _with_first(iter(loader)))
            changes.append(seconds)
        for _ in batches:
            pass
        warm, (_, batches) = _seconds(lambda: _begun(load, inverted))
        left.append(batches)
        return {"cold": cold, "warm": warm, "change": min(changes)}

    return None if load(Work(image, IMAGES, IMAGES * EPOCH)) is None else one_round


def _begun(load: Any, f: Any) -> tuple[Any, Iterator[Any]]:
    loader = load(Work(f, IMAGES, IMAGES * EPOCH))
    return loader, _with_first(iter(loader))


def _with_first(batches: Iterator[Any]) -> Iterator[Any]:
    """A pass that has given its first batch, as far as its end."""
    next(batches)
    return islice(batches, EPOCH - 1)


def _seconds(do: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = do()
    return time.perf_counter() - start, result


CONTESTANTS = {name: partial(waiting, name) for name in (OURS, SHUT_DOWN, *PEERS)}


def asked_once(name: str) -> Report | None:
    """What a contestant tells in a process of its own; None if it cannot take part."""
    lanes = enter("latency", [name])
    if name not in lanes:
        return None
    lane = lanes[name]
    try:
        lane.ask()
        told = lane.answer()
        if name == SHUT_DOWN:
            lane.ask()
            told |= lane.answer()
    except LeftOut as error:
        leave_out(lanes, name, error)
        return None
    return told | {"end": lane.end()}


def benchmark(quick: bool) -> list[Finding]:
    """All that is waited for; processes are started anew for every round."""
    reports: dict[str, list[Report]] = {}
    for turn in range(1 if quick else 5):
        for name in CONTESTANTS:
            if turn and name not in reports:
                continue
            told = asked_once(name)
            if told:
                reports.setdefault(name, []).append(told)
    findings = []
    for which, question in QUESTIONS.items():
        times = {name: min(one[which] for one in told) for name, told in reports.items() if name != SHUT_DOWN}
        if which == "change":
            times.pop("tensorpack, processes", None)  # it has no epochs: its workers go round and round
        findings.append(Finding(question, "flowfn, two processes", times[OURS] * 1e3, "ms"))
        findings += [
            ratio(f"{question}: times as fast as {name}", times, name, OURS, unit="ms")
            for name in PEERS
            if name in times
        ]
    least, *_, most = sorted([one["shut down"] for one in reports[SHUT_DOWN]] * 2)
    return [
        *findings,
        Finding("shut_down() within a pass, the longest", f"the shortest {shown(least)} s", most, "s", "< 0.2"),
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
