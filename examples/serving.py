"""Feed two trainings, in processes of their own, from one loader.

The loader runs once, in this process. Both trainings get the same batches in the same order; on one machine the arrays
cross in shared memory. One of them stops in the middle of an epoch and goes on from its saved state.

    pip install "flowfn[zmq]"
    python examples/serving.py
"""

import argparse
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import flowfn as ff

try:
    import zmq  # noqa: F401

    from flowfn.serving import connect, serve
except ImportError as error:
    raise SystemExit(
        f'This example needs {error.name}, which is not installed: pip install "flowfn[zmq]" brings it.'
    ) from error


def loader(made: list[int]) -> ff.Flow[Any]:
    """Batches of small images, in a new order in every epoch; `made` counts what was read."""

    def read(index: int) -> list[Any]:
        made.append(index)
        return [np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8), index % 10]

    return ff.pipe(range(512), ff.shuffle(), ff.map(read), ff.batch(64))


def train(address: str, name: str, stop: int, results: Any) -> None:
    """One epoch of something like a training, which is stopped after so many batches, and goes on."""
    flow = connect(address, timeout=30)
    total, count = 0, 0
    with iter(flow) as batches:
        for images, labels in batches:
            total, count = total + int(images.sum()) + int(labels.sum()), count + 1
            if count == stop:
                break
        state = batches.state_dict()
    if count == stop:  # as a new process would: all it needs is the state
        for images, labels in connect(address, timeout=30).load_state_dict(state):
            total, count = total + int(images.sum()) + int(labels.sum()), count + 1
    results.put((name, count, total))


def main() -> None:
    """Serve one epoch to two trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stop", type=int, default=3, help="after how many batches the second training is stopped")
    stop = parser.parse_args().stop
    context, made = multiprocessing.get_context("spawn"), []
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{Path(folder) / 'batches'}"
        trainings = [
            context.Process(target=train, args=(address, name, at, results))
            for name, at in (("first", 0), ("second", stop))
        ]
        for one in trainings:
            one.start()
        with serve(loader(made), address, mode="broadcast", window=8, consumers=2):
            got = sorted(results.get() for _ in trainings)
        for one in trainings:
            one.join()
    for name, count, total in got:
        print(f"the {name} training had {count} batches, which sum up to {total}")
    print(f"the loader read {len(made)} images for both")


if __name__ == "__main__":
    main()
