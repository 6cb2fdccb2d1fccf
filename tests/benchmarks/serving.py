"""What does it cost to get batches of images from a loader in another process: from `serve`, and from tensorpack's
`send_dataflow_zmq`? And what do three consumers get from one loader, beside a loader each?

Batches are 64 images of 224 x 224 x 3 bytes. The loader of the first question only hands out what it has, so that
transport is measured. That of the second reads, shrinks and crops photographs, as in photographs.py: the one that is
served by two processes, each of three others in the process of its consumer, or by two of its own, whichever is faster;
so all have more than the two cores can do. Figures are those of the slowest consumer; and what it takes of computing.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from measuring import Finding, report

import flowfn as ff
from flowfn.serving import connect, serve

SHAPE = (64, 224, 224, 3)
MEGABYTES = np.prod(SHAPE) / 1e6
PHOTOGRAPHS, CONSUMERS = 300, 3
SHARED = "one served"

# The loaders


def ready(n: int) -> ff.Flow[Any]:
    """Batches that lie there."""
    batches = [[np.full(SHAPE, i, np.uint8), np.arange(SHAPE[0])] for i in range(4)]
    return ff.pipe(range(n), ff.map(lambda i: batches[i % 4]))


def photographs(folder: str, n: int, **workers: Any) -> ff.Flow[Any]:
    """Batches of photographs that are read from files, made by workers if there are any."""
    from photographs import prepared

    read = functools.partial(prepared, folder, PHOTOGRAPHS)
    numbered = ff.pipe(range(n * SHAPE[0]), ff.map(lambda i: [read(i), i]), ff.batch(SHAPE[0]))
    return ff.pipe(numbered, ff.prefetch(4, **workers) if workers else None)


# The ways


def send_with_tensorpack(address: str, n: int) -> None:
    """tensorpack's sender."""
    from tensorpack.dataflow import DataFlow, send_dataflow_zmq

    class Endless(DataFlow):
        def __len__(self) -> int:
            return n

        def __iter__(self) -> Iterator[Any]:
            while True:
                yield from ready(n)

    send_dataflow_zmq(Endless(), address, hwm=4)


def receive_with_tensorpack(address: str, n: int) -> Iterator[Any]:
    """tensorpack's receiver."""
    from tensorpack.dataflow import RemoteDataZMQ

    flow = RemoteDataZMQ(address, hwm=4)
    flow.reset_state()
    received = iter(flow)
    for _ in range(n):
        yield next(received)


def serve_ready(address: str, n: int) -> None:
    """flowfn's server."""
    serve(ready(n), address).run()


def receive(address: str, n: int) -> Iterator[Any]:
    """flowfn's consumer."""
    yield from connect(address, timeout=60)


# The questions


def batches_per_second(make: Callable[[], Iterator[Any]]) -> float:
    """From the second batch on; each is looked at, once a page."""
    batches = make()
    next(batches)
    began, count = time.perf_counter(), 0
    for images, _ in batches:
        images.reshape(-1)[::4096].sum()
        count += 1
    return count / (time.perf_counter() - began)


def from_a_sender(send: Callable[..., None], get: Callable[..., Iterator[Any]], address: str, n: int) -> float:
    """What comes from a sender in a process of its own."""
    sender = multiprocessing.get_context("fork").Process(target=send, args=(address, n), daemon=True)
    sender.start()
    try:
        return batches_per_second(lambda: get(address, n))
    finally:
        sender.kill()
        sender.join()


def computing() -> float:
    """The seconds of CPU that this process and its children took."""
    every = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in every)


def _consume(make: Callable[[], Iterator[Any]], results: Any) -> None:
    rate = batches_per_second(make)
    ff.shut_down()
    results.put((rate, computing()))


def _serve(folder: str, address: str, n: int, over: Any, results: Any) -> None:
    with serve(photographs(folder, n, processes=2), address, mode="broadcast", consumers=CONSUMERS):
        over.wait()
    ff.shut_down()
    results.put((float("inf"), computing()))


def of_three(folder: str, address: str, n: int, shared: bool, **workers: Any) -> tuple[float, float]:
    """What the slowest of three consumers gets, and the seconds of CPU for a batch, of all together."""
    context = multiprocessing.get_context("fork")
    results, over = context.SimpleQueue(), context.Event()
    make = functools.partial(receive, address, n) if shared else lambda: iter(photographs(folder, n, **workers))
    every = [context.Process(target=_consume, args=(make, results)) for _ in range(CONSUMERS)]
    if shared:
        every.append(context.Process(target=_serve, args=(folder, address, n, over, results)))
    for one in every:
        one.start()
    told = [results.get() for _ in range(CONSUMERS)]
    over.set()
    told += [results.get() for _ in every[CONSUMERS:]]
    for one in every:
        one.join()
    return min(rate for rate, _ in told), sum(seconds for _, seconds in told) / n


def transport(folder: str, n: int, rounds: int) -> list[Finding]:
    """The first question."""
    best: dict[str, float] = {}
    for turn in range(rounds):
        ways = {
            "serve": (serve_ready, receive, f"ipc://{folder}/served{turn}"),
            "serve over TCP": (serve_ready, receive, f"tcp://127.0.0.1:{28100 + turn}"),
            "tensorpack": (send_with_tensorpack, receive_with_tensorpack, f"ipc://{folder}/sent{turn}"),
        }
        for name, way in ways.items():
            try:
                best[name] = max(best.get(name, 0.0), from_a_sender(*way, n))
            except ImportError as error:
                print(f"{name} cannot be measured: {error}")
    for name, rate in best.items():
        print(f"{name}: {rate:.0f} batches/s of {MEGABYTES:.1f} MB, {rate * MEGABYTES / 1e3:.2f} GB/s")
    measures = {
        "serve": "serve / tensorpack, batches a second",
        "serve over TCP": "serve over loopback TCP / tensorpack",
    }
    return [
        Finding("transport", measure, _ratio(best, name, "tensorpack"), target=">= 3")
        for name, measure in measures.items()
    ]


def sharing(folder: str, n: int, rounds: int) -> list[Finding]:
    """The second one."""
    try:
        import photographs as files

        files.written(folder, PHOTOGRAPHS)
    except ImportError as error:
        print(f"photographs cannot be read: {error}")
    ways: dict[str, dict[str, Any]] = {
        SHARED: {"shared": True},
        "three alone": {"shared": False},
        "three with workers": {"shared": False, "processes": 2},
    }
    rates, seconds = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, float("inf"))
    for turn in range(rounds):
        for name, way in ways.items():
            rate, taken = of_three(folder, f"ipc://{folder}/shared{turn}", n, **way)
            rates[name], seconds[name] = max(rates[name], rate), min(seconds[name], taken)
    for name, rate in rates.items():
        print(f"{name}: {rate:.2f} batches/s for each of three, {seconds[name] * 1e3:.0f} ms of CPU for a batch")
    faster = max((name for name in ways if name != SHARED), key=lambda name: rates[name])
    question = f"{CONSUMERS} consumers, {os.cpu_count()} cores"
    return [
        Finding(
            question,
            f"one loader served / {faster}, batches a second of the slowest",
            rates[SHARED] / rates[faster],
            target=">= 1.5",
        ),
        Finding(
            question,
            "seconds of CPU for a batch: three alone / one loader served",
            seconds["three alone"] / seconds[SHARED],
        ),
    ]


def benchmark(quick: bool) -> list[Finding]:
    """Both questions."""
    with tempfile.TemporaryDirectory() as folder:
        first = transport(folder, *((40, 1) if quick else (400, 4)))
        return first + sharing(folder, *((4, 1) if quick else (100, 2)))


def _ratio(best: dict[str, float], above: str, below: str) -> float | None:
    return best[above] / best[below] if above in best and below in best else None


if __name__ == "__main__":
    report(__doc__, benchmark)
