"""Feed a training from a Dask cluster, kill one of its workers in an epoch, and get what one process makes.

Noisy images are made by two worker processes of a cluster that is started on this machine. In the middle of the second
epoch one worker process is killed; the state that is saved there is then loaded by a pipeline without a cluster.

    pip install "flowfn[dask]"
    python examples/dask_cluster.py
"""

import argparse
import os
import signal
from typing import Any

import numpy as np

import flowfn as ff
import flowfn.interop

try:
    from distributed import Client, LocalCluster
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[dask]" brings it.') from error


def main(options: argparse.Namespace) -> None:
    workers = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 100}
    with LocalCluster(**workers) as cluster, Client(cluster) as client:
        flow = ff.pipe(batches(options.images), ff.prefetch(4, executor=flowfn.interop.dask.executor(client)))
        ff.explain(flow)
        compare(flow, options.images)


def batches(images: int) -> ff.Flow[Any]:
    """Batches of noisy images, and the processes that made them."""
    return ff.pipe(range(images), ff.shuffle(), ff.map(noisy_image, rng=True), ff.batch(8))


def noisy_image(number: int, rng: np.random.Generator) -> tuple[np.ndarray, int, int]:
    """An image, its number, and who made it."""
    image = rng.normal(number, 8.0, (96, 96, 3)).clip(0, 255).astype(np.uint8)
    return image, number, os.getpid()


def compare(flow: ff.Flow[Any], images: int) -> None:
    """An epoch, and another in which a worker dies, are those of one process."""
    killed, middle = 0, len(flow) // 2
    for epoch in (0, 1):
        serial = iter(batches(images).run(epoch=epoch))
        with flow.run(epoch=epoch) as iterator:
            for number, (mine, alone) in enumerate(zip(iterator, serial)):
                assert_equal(mine, alone)
                if epoch == 1 and number == middle:
                    killed, state = int(mine[2][-1]), iterator.state_dict()
                    os.kill(killed, signal.SIGKILL)
        print(f"epoch {epoch}: {number + 1} batches, bit-identical to those of one process")
    print(f"killed behind batch {middle} of epoch 1: worker {killed}, and nothing was lost or came twice")
    rest = list(batches(images).load_state_dict(state))
    print(f"the state that was saved there gives the {len(rest)} batches left, without a cluster")


def assert_equal(one: Any, other: Any) -> None:
    if not all(np.array_equal(a, b) for a, b in zip(one[:2], other[:2])):
        raise SystemExit("a batch of the cluster is another than that of one process")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=int, default=800, help="how many there are in an epoch")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse())
