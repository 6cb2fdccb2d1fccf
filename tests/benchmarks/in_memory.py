"""How near does flowfn come to plain numpy, where all data are arrays in memory?

60 000 uint8 images of 28x28 and their labels (the size of MNIST), shuffled anew in every pass, in batches of 128.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import peers
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff

SIZE = 128


# The contestants


def with_numpy(images: np.ndarray, labels: np.ndarray, order: np.ndarray) -> Iterator[list[np.ndarray]]:
    """What one writes without a library, given the order."""
    for start in range(0, len(images), SIZE):
        chosen = order[start : start + SIZE]
        yield [images[chosen], labels[chosen]]


def with_flowfn(images: np.ndarray, labels: np.ndarray) -> Iterable[Any]:
    """The same in flowfn."""
    return ff.pipe(ff.from_arrays(images, labels), ff.shuffle(), ff.batch(SIZE))


def with_tensorpack(images: np.ndarray, labels: np.ndarray) -> Iterable[Any]:
    """In tensorpack, in this process."""
    dataflow = peers.tensorpack()
    flow = dataflow.BatchData(dataflow.DataFromList(list(zip(images, labels)), shuffle=True), SIZE, remainder=True)
    flow.reset_state()
    return flow


def with_torch(images: np.ndarray, labels: np.ndarray) -> Iterable[Any]:
    """In torch, as everybody writes it."""
    torch = peers.torch()
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    return torch.utils.data.DataLoader(dataset, batch_size=SIZE, shuffle=True)


def with_torch_batches(images: np.ndarray, labels: np.ndarray) -> Iterable[Any]:
    """In torch, as one writes it who knows: a sampler of batches, so that tensors are indexed a batch at a time."""
    torch = peers.torch()
    data = torch.utils.data
    dataset = data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    batches = data.BatchSampler(data.RandomSampler(dataset), SIZE, drop_last=False)
    return data.DataLoader(dataset, sampler=batches, batch_size=None)


def with_grain(images: np.ndarray, labels: np.ndarray) -> Iterable[Any]:
    """In grain, without its read threads, which only slow this down."""
    dataset = peers.grain().MapDataset.source(list(zip(images, labels))).shuffle(seed=0).batch(SIZE)
    return dataset.to_iter_dataset(peers.grain().ReadOptions(num_threads=0, prefetch_buffer_size=0))


# The question


def benchmark(quick: bool) -> list[Finding]:
    """How fast is a shuffled, batched pass? numpy's is measured with its order at hand, and drawing it in the pass."""
    n = 6_000 if quick else 60_000
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n)
    order = rng.permutation(n)
    contestants = {
        "numpy": Contestant(lambda: consume(with_numpy(images, labels, order)), n),
        "numpy drawing its order": Contestant(lambda: consume(with_numpy(images, labels, rng.permutation(n))), n),
        "flowfn": Contestant(partial(consume, with_flowfn(images, labels)), n),
    }
    for name, make, present, fewer in _peers():
        if present:
            contestants[name] = Contestant(
                partial(consume, make(images[: n // fewer], labels[: n // fewer])), n // fewer
            )
    times = fastest(contestants, 3 if quick else 25)
    return [
        ratio("arrays in memory: times as fast as numpy, order given", times, "numpy", "flowfn", target=">= 0.9"),
        ratio(
            "arrays in memory: times as fast as numpy, order drawn in the pass",
            times,
            "numpy drawing its order",
            "flowfn",
        ),
        *(ratio(f"arrays in memory: times as fast as {name}", times, name, "flowfn") for name, *_ in _peers()),
    ]


def _peers() -> list[tuple[str, Callable[..., Iterable[Any]], bool, int]]:
    """Name, maker, whether it is here, and by how much fewer rows it gets because it is slow."""
    torch = peers.torch() is not None
    return [
        ("tensorpack", with_tensorpack, peers.tensorpack() is not None, 2),
        ("torch DataLoader", with_torch, torch, 4),
        ("torch with a batch sampler", with_torch_batches, torch, 1),
        ("grain", with_grain, peers.grain() is not None, 8),
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
