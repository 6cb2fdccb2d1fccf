"""Does anything differ, grow or hang when random pipelines run for hours under workers that are killed at random?

    python tests/benchmarks/soak.py --minutes 60

Every pass is held against the serial one: whole passes, passes that stop early and go on elsewhere, passes that end in
an error, several at once, with arrays that go through shared memory and are kept for a while. Once a minute it says how
far it is, and what it holds. It ends with a status other than 0 if anything differed, hung, or grew. A pass is
determined by the seed and its number: `--seed 3 --number 41` has that one again (the moments of the kills are the
clock's).

What grows is told from what is free. In a few minutes some 60 to 150 MB come to be resident, of which 8 to 12 MB are in
use, from beginning to end: much of the rest is what threads have freed, in the C library's arenas, of which there are
up to eight for each core. It is used again, and `malloc_trim` gives it back to the system. So what is in use has to be
flat, and the small objects of Python's own allocator; `--trace` names the lines that hold more.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

import flowfn as ff
from flowfn.showing import brief
from flowfn.testing import left_behind, same

HANGING = 600
"""Seconds after which a pass hangs; they take a few."""

FLAT = 0.05
"""By which share of it the memory that is in use may grow in the second half."""

GROWTH = 48e6
"""Bytes by which what is resident may grow meanwhile, most of which lies free in the arenas of the C library."""

KILLS = 2
"""How often workers are killed in one pass at most:
a datapoint that meets a third death is named and not tried again."""

KEPT = 30
"""How many outputs are kept, to see that nobody writes into them."""


# Random pipelines


class Stream:
    """A source that can only be iterated."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


class Record:
    """From a number to a datapoint with an array of `side` by `side`, in about `seconds`."""

    def __init__(self, side: int, seconds: float) -> None:
        self.side, self.seconds = side, seconds

    def __call__(self, number: int, rng: np.random.Generator) -> Any:
        time.sleep(self.seconds * rng.random() * 2)
        return {
            "number": int(number),
            "array": rng.integers(256, size=(self.side, self.side), dtype=np.uint8),
            "name": str(number),
        }


class Failing:
    """Raises an error at one datapoint."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, datapoint: Any) -> Any:
        if datapoint["number"] == self.number:
            raise LookupError("there is none", self.number)
        return datapoint


def turned(datapoint: Any) -> Any:
    """A datapoint whose array does not lie in a row."""
    return {**datapoint, "array": datapoint["array"].swapaxes(-1, -2)}


def noisy(datapoint: Any, rng: np.random.Generator) -> Any:
    """A datapoint changed by its own draw."""
    return {**datapoint, "array": datapoint["array"] ^ np.uint8(rng.integers(256))}


def kept(datapoint: Any) -> bool:
    """Four of five."""
    return bool(datapoint["number"] % 5)


def drawn(datapoint: Any, rng: np.random.Generator) -> bool:
    """Three of four, by their own draw."""
    return bool(rng.random() < 0.75)


def copies(datapoint: Any) -> list[Any]:
    """Nought to two of a datapoint."""
    return [datapoint] * (datapoint["number"] % 3)


def crops(datapoint: Any) -> Any:
    """A random flow made from a datapoint."""
    return ff.pipe([datapoint, datapoint], ff.map(noisy, rng=True))


def nested(datapoint: Any) -> Any:
    """A random flow made from a datapoint, which now and then asks for workers itself."""
    made = ff.pipe([datapoint, datapoint], ff.map(noisy, rng=True))
    return ff.pipe(made, ff.prefetch(1, processes=2)) if datapoint["number"] % 50 == 3 else made


def summed(datapoints: Iterator[Any]) -> Iterator[Any]:
    """A stage of one's own that sees the whole stream."""
    total = 0
    for datapoint in datapoints:
        total += int(datapoint["array"].sum())
        yield {**datapoint, "total": total}


def total(state: int, datapoint: Any) -> tuple[int, Any]:
    """A state, and an output that depends on it."""
    state = (state + datapoint["number"]) % 997
    return state, {**datapoint, "total": state}


def pipeline(seed: str) -> Any:
    """A random pipeline; the same for the same seed."""
    rng = random.Random(seed)
    count = rng.choice([0, 1, 7, 60, 200, 600])
    sources: list[Callable[[], Any]] = [
        lambda: range(count),
        lambda: list(range(count)),
        lambda: Stream(count),
        lambda: ff.flow(lambda rng, start: iter(rng.permutation(count)[start:].tolist())),
        lambda: ff.pipe(range(count), ff.shuffle()),
        lambda: ff.concat(range(count), range(count // 2)),
    ]
    record = Record(rng.choice([2, 50, 200]), rng.choice([0, 0, 0.0005, 0.003]))
    flow = ff.pipe(rng.choice(sources)(), ff.map(record, rng=True))
    for _ in range(rng.randrange(5)):
        flow = step(rng, flow, count)
    if rng.random() < 0.8:
        size = rng.choice([1, 3, 16])
        if rng.random() < 0.3:
            flow = ff.pipe(flow, ff.batch(size, collate=ff.as_list))
        else:
            after = rng.choice(
                [[], [ff.map(turned)], [ff.map(noisy, rng=True)], [ff.shuffle_buffer(3), ff.map(turned)]]
            )
            flow = ff.pipe(flow, ff.batch(size), *after)
    return flow


def step(rng: random.Random, flow: Any, count: int) -> Any:
    """One more random stage."""
    stages: list[Callable[[], Any]] = [
        lambda: ff.map(turned),
        lambda: ff.map(noisy, rng=True),
        lambda: ff.filter(kept),
        lambda: ff.filter(drawn, rng=True),
        lambda: ff.flat_map(copies),
        lambda: ff.flat_map(crops),
        lambda: ff.flat_map(nested),
        lambda: ff.interleave(crops, cycle=rng.randint(1, 3)),
        lambda: ff.shuffle() if flow.seekable else ff.shuffle_buffer(8),
        lambda: ff.shuffle_buffer(rng.randint(2, 9)),
        lambda: ff.scan(total, 0),
        lambda: summed,
        lambda: ff.take(rng.randint(1, 300)),
        lambda: ff.skip(rng.randint(1, 20)),
        lambda: ff.repeat(2),
        lambda: ff.cache(),
        lambda: ff.prefetch(3),
        lambda: ff.prefetch(2, threads=2),
        lambda: ff.shard(rng.randrange(2), 2, remainder="keep"),
        lambda: ff.guard(ff.map(Failing(rng.randrange(1, 60))), errors=LookupError, then="drop"),
        lambda: ff.map(Failing(rng.randrange(1, 600))),
    ]
    return ff.pipe(flow, rng.choice(stages)())


# One pass


@dataclass
class Outcome:
    """What came of a pass: its outputs, and the error that ended it."""

    outputs: list[Any] = field(default_factory=list)
    error: str = ""

    def of(self, iterator: Iterator[Any]) -> Outcome:
        """All that an iterator gives."""
        try:
            self.outputs.extend(iterator)
        except LookupError as error:
            self.error = f"{type(error).__name__}{error.args}"
        return self

    def differs(self, other: Outcome) -> str:
        """Where this is not the other, if anywhere."""
        for number, (a, b) in enumerate(zip(self.outputs, other.outputs)):
            if not same(a, b):
                return f"output {number} should be {brief(a)}, it is {brief(b)}"
        if len(self.outputs) != len(other.outputs):
            return f"there should be {len(self.outputs)} outputs, there are {len(other.outputs)}"
        return f"it should end with {self.error!r}, it ends with {other.error!r}" if self.error != other.error else ""


class Killer:
    """Kills workers of this process at random moments while it is entered."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.kills, self.over = rng, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        """Wait, and kill; a worker is not yet at work when it is new, and at work when it is not."""
        for _ in range(self.rng.randint(0, KILLS)):
            if self.over.wait(self.rng.choice([0.01, 0.1, 0.4, 1.0]) * self.rng.random()):
                return
            there = workers()
            for pid in self.rng.sample(there, self.rng.randint(min(1, len(there)), len(there))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


class Soak:
    """All passes, and what was found."""

    def __init__(self, seed: int) -> None:
        self.seed, self.passes, self.kills, self.faults = seed, 0, 0, 0
        self.held: deque[tuple[Any, Any]] = deque(maxlen=KEPT)  # outputs of earlier passes, and what they were

    def turn(self, number: int) -> None:
        """One pass or several at once, of one pipeline."""
        name = f"{self.seed}:{number}"
        rng = random.Random(f"{name} settings")
        epoch = rng.randrange(3)
        serial = Outcome().of(pipeline(name).run(epoch=epoch))
        way = rng.choice([self.whole, self.whole, self.stopped, self.resumed, self.resumed, self.together])
        settings = {"ahead": rng.randint(1, 8), "processes": rng.randint(1, 4)}
        if rng.random() < 0.2:
            settings["max_bytes"] = rng.choice([10_000, 1_000_000])
        faulthandler.dump_traceback_later(HANGING, exit=True)
        with Killer(rng) as killer:
            try:
                said = way(name, epoch, settings, rng, serial)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
        faulthandler.cancel_dump_traceback_later()
        self.passes, self.kills = self.passes + 1, self.kills + killer.kills
        said = said or self.changed()
        if said:
            self.faults += 1
            print(
                f"{name} (epoch {epoch}, {way.__name__}, {settings}, {killer.kills} kills): {said}\n    "
                f"{pipeline(name)!r}",
                flush=True,
            )
        if rng.random() < 0.1:
            ff.shut_down()

    def whole(self, name: str, epoch: int, settings: dict[str, int], rng: random.Random, serial: Outcome) -> str:
        """A pass from its beginning to its end."""
        got = Outcome().of(fetched(name, settings).run(epoch=epoch))
        self.keep(rng, got, serial)
        return serial.differs(got)

    def stopped(self, name: str, epoch: int, settings: dict[str, int], rng: random.Random, serial: Outcome) -> str:
        """A pass that is left in the middle, closed or dropped."""
        count = rng.randint(0, len(serial.outputs))
        iterator = fetched(name, settings).run(epoch=epoch)
        got = Outcome().of(itertools.islice(iterator, count))
        self.keep(rng, got, serial)
        if rng.random() < 0.5:
            iterator.close()
        return Outcome(serial.outputs[:count]).differs(got)

    def resumed(self, name: str, epoch: int, settings: dict[str, int], rng: random.Random, serial: Outcome) -> str:
        """A pass that stops, and goes on under other workers, or none."""
        count = rng.randint(0, len(serial.outputs))
        with fetched(name, settings).run(epoch=epoch) as iterator:
            got = Outcome().of(itertools.islice(iterator, count))
            state = json.loads(json.dumps(iterator.state_dict()))
        other = pipeline(name) if rng.random() < 0.2 else fetched(name, {"ahead": 2, "processes": rng.randint(1, 4)})
        if count < len(serial.outputs) or serial.error:  # else the next pass begins
            got.of(iter(other.load_state_dict(state)))
            self.keep(rng, got, serial)
            return serial.differs(got)
        return Outcome(serial.outputs).differs(got)

    def together(self, name: str, epoch: int, settings: dict[str, int], rng: random.Random, serial: Outcome) -> str:
        """Three passes in threads of their own."""
        found = [Outcome() for _ in range(3)]
        raised: list[str] = []

        def consume(outcome: Outcome) -> None:
            try:
                outcome.of(fetched(name, settings).run(epoch=epoch))
            except Exception as error:
                raised.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=consume, args=(outcome,)) for outcome in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return next(filter(None, [*raised, *map(serial.differs, found)]), "")

    def keep(self, rng: random.Random, got: Outcome, serial: Outcome) -> None:
        """Hold on to some outputs, and to what they have to be."""
        pairs = list(zip(got.outputs, serial.outputs))
        self.held.extend(rng.sample(pairs, min(len(pairs), 5)))

    def changed(self) -> str:
        """Whether somebody wrote into what is kept."""
        return next((f"kept {brief(a)} is now another" for a, b in self.held if not same(a, b)), "")


def fetched(name: str, settings: dict[str, int]) -> Any:
    """A pipeline under workers."""
    return ff.pipe(pipeline(name), ff.prefetch(**settings))


# What is held


def children(pid: int) -> list[int]:
    """The child processes of all threads of a process, but for resource trackers, which stay."""
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in listing.read_text().split()]
    return [child for child in found if not is_tracker(child)]


def is_tracker(pid: int) -> bool:
    """Whether a process is a resource tracker."""
    with suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return True


def workers() -> list[int]:
    """The workers of this process."""
    return children(os.getpid())


def resident(pid: int) -> int:
    """The bytes that a process has in memory."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


@dataclass(frozen=True)
class Memory:
    """What this process has of memory, in bytes, and who has it.

    The C library gives freed memory back to the system only where it lies at the end of an arena, and every thread may
    have an arena of its own: so what is resident can grow while what is in use does not. Only the latter tells of a
    leak.
    """

    resident: int
    in_use: int  # what C, numpy and large objects have taken from the C library and not given back
    free: int  # what lies free in the C library's arenas, resident or not
    arenas: int
    objects: int  # blocks of Python's own allocator, which are small objects

    def __str__(self) -> str:
        return (
            f"{self.resident / 1e6:.0f} MB resident ({self.in_use / 1e6:.1f} MB in use and {self.free / 1e6:.1f} MB "
            "free in "
            f"{self.arenas} arenas of malloc, {self.objects:,} small objects)"
        )


def memory() -> Memory:
    """What this process has of memory; without glibc nothing is known but what is resident."""
    told = malloc_info()
    totals = {one.get("type"): int(one.get("size", 0)) for one in told.findall("total")}
    system = next((int(one.get("size", 0)) for one in told.findall("system") if one.get("type") == "current"), 0)
    free = totals.get("fast", 0) + totals.get("rest", 0)
    in_use = system - free + totals.get("mmap", 0)
    return Memory(resident(os.getpid()), in_use, free, len(told.findall("heap")), sys.getallocatedblocks())


def malloc_info() -> ElementTree.Element:
    """What glibc says of all its arenas."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_info"):
        return ElementTree.Element("malloc")
    libc.open_memstream.restype = ctypes.c_void_p
    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    file = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    libc.malloc_info(0, file)
    libc.fclose(file)
    told = ctypes.string_at(text.value or 0, size.value).decode()
    libc.free(text)
    return ElementTree.fromstring(told)


def holdings(soak: Soak) -> dict[str, int]:
    """What this process holds when nothing is under way, what was kept has been let go,
    and free memory has been given back."""
    soak.held.clear()
    ff.shut_down()
    deadline = time.monotonic() + 5
    while (workers() or threading.active_count() > 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    mapped = Path("/proc/self/maps").read_text()
    held = memory()
    return {
        **left_behind(),
        "processes": len(workers()),
        "shared memory": mapped.count("/memfd:") + mapped.count("/dev/shm/"),
        "bytes in use": held.in_use,
        "small objects": held.objects,
        "resident bytes": held.resident,
    }


def grown(before: dict[str, int], after: dict[str, int]) -> str:
    """What there is more of than there was."""
    bounds = {
        "bytes in use": FLAT * before["bytes in use"],
        "small objects": FLAT * before["small objects"],
        "resident bytes": GROWTH,
    }
    more = (kind for kind in before if after[kind] > before[kind] + bounds.get(kind, 0))
    return ", ".join(f"{kind} from {before[kind]:,} to {after[kind]:,}" for kind in more)


def line(soak: Soak, began: float) -> str:
    """How far it is, and what it holds."""
    there, own = workers(), left_behind()
    sizes = f"{memory()}, {sum(map(resident, there)) / 1e6:.0f} MB in {len(there)} workers"
    counts = f"{own.get('descriptors')} descriptors, {own['threads']} threads"
    return (
        f"{(time.monotonic() - began) / 60:.1f} min: {soak.passes} passes, {soak.kills} kills, {soak.faults} "
        f"faults, {sizes}, {counts}"
    )


# The whole


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--minutes", type=float, default=60, help="how long, after which the pass under way is finished"
    )
    parser.add_argument("--seed", type=int, default=0, help="which pipelines")
    parser.add_argument("--number", type=int, help="only the pass with this number")
    parser.add_argument(
        "--trace", action="store_true", help="say which lines hold more memory than in the middle; it is slower"
    )
    return parser.parse_args()


def main() -> None:
    """Run passes until the time is over; what is held in the middle is held against the end."""
    given = arguments()
    soak, began = Soak(given.seed), time.monotonic()
    if given.number is not None:
        soak.turn(given.number)
        ff.shut_down()
        sys.exit(bool(soak.faults))
    if given.trace:
        tracemalloc.start()
    end, middle = began + 60 * given.minutes, began + 30 * given.minutes
    before: dict[str, int] = {}
    traced = None
    said = began
    for number in itertools.count():
        soak.turn(number)
        now = time.monotonic()
        if now > end:
            break
        if not before and now > middle:
            before, traced = holdings(soak), snapshot()
        if now > said + 60:
            said = now
            print(line(soak, began), flush=True)
    print(line(soak, began), flush=True)
    after = holdings(soak)
    more = grown(before, after) if before else "unknown, there was only one pass"
    print(f"held in the middle {before}\nheld in the end    {after}")
    if traced is not None:
        print("lines that hold more than in the middle:", *snapshot().compare_to(traced, "lineno")[:10], sep="\n    ")
    if soak.faults or more:
        sys.exit(f"{soak.faults} of {soak.passes} passes were not as in serial; grown: {more or 'nothing'}")


def snapshot() -> Any:
    """Which line holds how much of Python's memory, if that is traced."""
    return tracemalloc.take_snapshot() if tracemalloc.is_tracing() else None


if __name__ == "__main__":
    main()
