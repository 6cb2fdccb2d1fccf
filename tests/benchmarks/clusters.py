"""How fast do a Ray and a Dask cluster do the work of a prefetch, beside worker processes and their own ways?

Batches of 32 images of 128 x 128 x 3, each made by drawing and scaling random bytes, by two workers on this machine in
every case: `prefetch(processes=2)`, `prefetch(executor=)` of each cluster, Ray Data's `iter_batches` over `map_batches`
in the order of the rows, and a bag of Dask, which is computed whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff
import flowfn.interop

BATCH, AHEAD = 32, 8
RAY, RAY_DATA = "Ray: prefetch(executor=)", "Ray Data: iter_batches"
DASK, BAG = "Dask: prefetch(executor=)", "Dask: a bag"
PROCESSES = "prefetch(processes=2)"


def image(number: int) -> np.ndarray:
    """An image of noise, scaled as before a network."""
    pixels = np.random.default_rng(number).integers(0, 256, (128, 128, 3), np.uint8)
    return (pixels - np.float32(127.5)) / np.float32(58.0)


def images(numbers: Any) -> np.ndarray:
    """A batch of them."""
    return np.stack([image(int(number)) for number in numbers])


def pipeline(n: int, **workers: Any) -> Any:
    """Batches of the first `n` images."""
    return ff.pipe(range(n), ff.map(image), ff.batch(BATCH), ff.prefetch(AHEAD, **workers))


@contextmanager
def with_ray(n: int) -> Iterator[dict[str, Callable[[], object]]]:
    """What Ray is asked to do; nothing where it is absent."""
    try:
        import ray
        import ray.data
    except ImportError:
        yield {}
        return
    os.environ |= {"RAY_worker_niceness": "0"}  # as those of the others
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=400 << 20,
        logging_level="ERROR",
        log_to_driver=False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.execution_options.preserve_order = False, True

    def data() -> None:
        rows = ray.data.range(n, override_num_blocks=max(2, n // BATCH))
        made = rows.map_batches(lambda batch: {"images": images(batch["id"])}, batch_size=BATCH)
        consume(made.iter_batches(batch_size=BATCH))

    try:
        yield {RAY: partial(consume, pipeline(n, executor=flowfn.interop.ray.executor())), RAY_DATA: data}
    finally:
        ray.shutdown()


@contextmanager
def with_dask(n: int) -> Iterator[dict[str, Callable[[], object]]]:
    """What Dask is asked to do; nothing where it is absent."""
    try:
        import dask.bag
        from distributed import Client, LocalCluster
    except ImportError:
        yield {}
        return
    options: dict[str, Any] = {"dashboard_address": None, "silence_logs": 100, "memory_limit": 0}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
        Client(cluster, direct_to_workers=True) as client,
    ):
        bag = dask.bag.from_sequence(range(n), partition_size=BATCH).map_partitions(lambda part: [images(part)])
        own = flowfn.interop.dask.executor(client)
        yield {DASK: partial(consume, pipeline(n, executor=own)), BAG: lambda: consume(bag.compute())}


def benchmark(quick: bool) -> list[Finding]:
    """Every contestant makes the same images, and they take turns."""
    n = 4 * BATCH if quick else 100 * BATCH
    with ExitStack() as stack:
        runs = {PROCESSES: partial(consume, pipeline(n, processes=2))}
        runs |= stack.enter_context(with_ray(n)) | stack.enter_context(with_dask(n))
        for run in runs.values():
            run()  # the workers are there
        times = fastest({name: Contestant(run, n) for name, run in runs.items()}, 1 if quick else 4)
        ff.shut_down()
    question = "images made by two workers: times as fast as {}, {}"
    pairs = [(RAY_DATA, RAY), (BAG, DASK), (PROCESSES, RAY), (PROCESSES, DASK)]
    return [ratio(question.format(*pair), times, *pair, unit="µs") for pair in pairs]


if __name__ == "__main__":
    report(__doc__, benchmark)
