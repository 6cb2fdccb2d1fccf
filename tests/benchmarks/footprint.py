"""How much memory do all processes together take for a list of two million paths and four workers?

Each datapoint is the length of a path, in random order and batches of 256. Workers that are forked share the list at
first, and copy it bit by bit, since Python counts references inside of the objects. The figure is the largest sum that
was seen, while a pass is read, of what each process has to itself (USS); beside it the same with everybody's share of
what several of them have (PSS).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import peers
import psutil
from lanes import LeftOut, Round, enter, leave_out
from measuring import Finding, report, shown

import flowfn as ff

PATHS = 2_000_000
WORKERS, SIZE = 4, 256
EVERY = 0.1
"""Seconds between looks at the memory."""


def paths(n: int) -> list[str]:
    """A list of paths as datasets have them."""
    return [f"/data/photographs/train/n{i % 1000:08d}/n{i % 1000:08d}_{i:09d}.jpg" for i in range(n)]


def length(path: str) -> int:
    """What is done with a path."""
    return len(path)


# The contestants


def with_flowfn(held: list[str]) -> Iterable[Any]:
    """flowfn."""
    return ff.pipe(held, ff.shuffle(), ff.map(length), ff.batch(SIZE), ff.prefetch(16, processes=WORKERS))


def with_torch(held: list[str]) -> Iterable[Any] | None:
    """torch's DataLoader."""
    torch = peers.torch()
    if torch is None:
        return None

    class Dataset(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(held)

        def __getitem__(self, index: int) -> int:
            return length(held[index])

    loader: Iterable[Any] = torch.utils.data.DataLoader(
        Dataset(), batch_size=SIZE, shuffle=True, num_workers=WORKERS, prefetch_factor=4
    )
    return loader


def with_tensorpack(held: list[str]) -> Iterable[Any] | None:
    """DataFlow; each of its processes goes through the whole list, in an order of its own,
    so a pass reads a fourth of each."""
    dataflow = peers.tensorpack()
    if dataflow is None:
        return None
    mapped = dataflow.MapData(dataflow.DataFromList(held, shuffle=True), lambda path: [length(path)])
    flow: Any = dataflow.MultiProcessRunnerZMQ(dataflow.BatchData(mapped, SIZE), WORKERS, hwm=4)
    flow.reset_state()
    return flow


def no_workers(held: list[str]) -> Iterable[Any]:
    """The list, and no library: the least that there is to be had."""
    order = np.random.default_rng(0).permutation(len(held))
    return (
        np.array([length(held[index]) for index in order[start : start + SIZE]]) for start in range(0, len(held), SIZE)
    )


def reading(make: Callable[[list[str]], Iterable[Any] | None], n: int) -> Round | None:
    """A whole pass."""
    loader = make(paths(n))
    if loader is None:
        return None

    def one_round() -> dict[str, float]:
        return {"batches": sum(1 for _ in loader)}

    return one_round


MAKERS: dict[str, Callable[[list[str]], Iterable[Any] | None]] = {
    "no workers": no_workers,
    "flowfn": with_flowfn,
    "torch DataLoader": with_torch,
    "tensorpack": with_tensorpack,
}
CONTESTANTS = {name: partial(reading, make) for name, make in MAKERS.items()}


# The question


def memory_of(pid: int) -> tuple[int, int]:
    """(USS, PSS) of a process and all below it, in bytes."""
    uss = pss = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = process.memory_full_info()
                uss, pss = uss + memory.uss, pss + memory.pss
    return uss, pss


def peak(name: str, n: int) -> tuple[int, int] | None:
    """The largest (USS, PSS) of a contestant within a pass; None if it cannot take part."""
    lanes = enter("footprint", [name], n=n)
    if name not in lanes:
        return None
    lane = lanes[name]
    seen, done = [memory_of(lane.process.pid)], threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            seen.append(memory_of(lane.process.pid))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        lane.ask()
        lane.answer()
        seen.append(memory_of(lane.process.pid))
    except LeftOut as error:
        leave_out(lanes, name, error)
        return None
    finally:
        done.set()
        watching.join()
    lane.end()
    return max(uss for uss, _ in seen), max(pss for _, pss in seen)


def benchmark(quick: bool) -> list[Finding]:
    """The memory of each, and how much more that is than flowfn's."""
    n = 50_000 if quick else PATHS
    peaks = {name: found for name in CONTESTANTS if (found := peak(name, n)) is not None}
    about = f"memory for {n / 1e6:g} million paths and {WORKERS} workers"
    findings = []
    for name in CONTESTANTS:
        if name not in peaks:
            findings.append(Finding(f"{about}: {name}", f"{name} absent", None, "MB"))
            continue
        uss, pss = peaks[name]
        findings.append(
            Finding(f"{about}: {name}", f"with shares of what is common {shown(pss / 1e6)} MB", uss / 1e6, "MB")
        )
    for name in list(CONTESTANTS)[2:]:
        if name in peaks:
            told = f"flowfn {shown(peaks['flowfn'][0] / 1e6)} MB, {name} {shown(peaks[name][0] / 1e6)} MB"
            findings.append(Finding(f"{about}: times as little as {name}", told, peaks[name][0] / peaks["flowfn"][0]))
    return findings


if __name__ == "__main__":
    report(__doc__, benchmark)
