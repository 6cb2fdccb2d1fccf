"""What does it cost to get batches of images from a loader in another process: from `serve`, and from tensorpack's
`send_dataflow_zmq`? And what do three consumers get from one loader, beside a loader each?

Batches are 64 images of 224 x 224 x 3 bytes. The loader of the first question only hands out what it has, so that
transport is measured; that of the second works for each image. Figures are those of the slowest consumer.
"""

from __future__ import annotations

import multiprocessing
import os
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

# The loaders


def ready(n: int) -> ff.Flow[Any]:
    """Batches that lie there."""
    batches = [[np.full(SHAPE, i, np.uint8), np.arange(SHAPE[0])] for i in range(4)]
    return ff.pipe(range(n), ff.map(lambda i: batches[i % 4]))


def worked(n: int) -> ff.Flow[Any]:
    """Batches for which some work is done."""

    def batch(i: int) -> list[Any]:
        images = np.random.default_rng(i).integers(0, 256, SHAPE, np.uint8)
        return [255 - images[:, ::-1], np.arange(SHAPE[0])]

    return ff.pipe(range(n), ff.map(batch))


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


def _consume(make: Callable[[], Iterator[Any]], results: Any) -> None:
    results.put(batches_per_second(make))


def of_three(make: Callable[[], Iterator[Any]], server: Any = None) -> float:
    """What the slowest of three consumers gets."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    consumers = [context.Process(target=_consume, args=(make, results), daemon=True) for _ in range(3)]
    for one in consumers:
        one.start()
    if server is None:
        rates = [results.get() for _ in consumers]
    else:
        with server():
            rates = [results.get() for _ in consumers]
    for one in consumers:
        one.join()
    return min(rates)


def benchmark(quick: bool) -> list[Finding]:
    """Both questions."""
    n, rounds = (40, 1) if quick else (400, 4)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            ways = {
                "serve": (serve_ready, receive, f"ipc://{folder}/served{turn}"),
                "serve over TCP": (serve_ready, receive, f"tcp://127.0.0.1:{28100 + turn}"),
                "tensorpack": (send_with_tensorpack, receive_with_tensorpack, f"ipc://{folder}/sent{turn}"),
            }
            for name, way in ways.items():
                try:
                    rate = from_a_sender(*way, n)
                    found.setdefault(name, []).append(rate)
                except ImportError as error:
                    print(f"{name} cannot be measured: {error}")
            address = f"ipc://{folder}/shared{turn}"
            shared = of_three(
                lambda: iter(connect(address, timeout=60)),
                lambda: serve(worked(n // 4), address, mode="broadcast", consumers=3),
            )
            found.setdefault("three share", []).append(shared)
            found.setdefault("three loaders", []).append(of_three(lambda: iter(worked(n // 4))))
    best = {name: max(rates) for name, rates in found.items()}
    for name, rate in best.items():
        print(f"{name}: {rate:.0f} batches/s of {MEGABYTES:.1f} MB, {rate * MEGABYTES / 1e3:.2f} GB/s")
    return [
        Finding(
            "transport", "serve / tensorpack, batches a second", _ratio(best, "serve", "tensorpack"), target=">= 3"
        ),
        Finding(
            "transport",
            "serve over loopback TCP / tensorpack",
            _ratio(best, "serve over TCP", "tensorpack"),
            target=">= 3",
        ),
        Finding(
            f"three consumers, {os.cpu_count()} cores",
            "one loader served / three loaders, batches a second of the slowest",
            _ratio(best, "three share", "three loaders"),
            target=">= 1.5",
        ),
    ]


def _ratio(best: dict[str, float], above: str, below: str) -> float | None:
    return best[above] / best[below] if above in best and below in best else None


if __name__ == "__main__":
    report(__doc__, benchmark)
