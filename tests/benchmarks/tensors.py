"""What do tensors that cross processes cost, beside arrays?

Batches of 64 float32 images of 3x224x224 (38 MB), stacked in one process: there tensors are made of the stacked array,
or the collation gives them, or they are datapoints that go into the process and come back. The yardstick is the same
pipeline with arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff

IMAGES, BATCHES = 64, 10


def image(index: int) -> np.ndarray:
    """An image that has to be made."""
    return np.full((3, 224, 224), index % 250, np.float32)


def collated(make: Callable[[Any], Any], images: list[Any]) -> Any:
    """A batch by a function of one's own."""
    return make(np.stack(images))


def same(batch: Any) -> Any:
    """What comes goes."""
    return batch


def pipelines(make: Callable[[Any], Any]) -> dict[str, Any]:
    """The three ways, with batches of whatever is made of arrays."""
    images, ahead = ff.pipe(range(IMAGES * BATCHES), ff.map(image)), ff.prefetch(2, processes=1)
    made = [make(np.stack([image(index) for index in range(IMAGES)])) for _ in range(2)]
    return {
        "made of batches in a worker": ff.pipe(images, ff.batch(IMAGES), ff.map(make), ahead),
        "given by collate=": ff.pipe(images, ff.batch(IMAGES, collate=partial(collated, make)), ahead),
        "sent to a worker and back": ff.pipe(
            lambda: iter(made * (BATCHES // 2)), ff.map(same), ff.prefetch(2, processes=2)
        ),
    }


def benchmark(quick: bool) -> list[Finding]:
    """Arrays and tensors, turn by turn."""
    torch, jax = peers.torch(), peers.jax()
    makers: dict[str, Callable[[Any], Any]] = {"arrays": np.asarray}
    makers |= {"tensors of torch": torch.as_tensor} if torch is not None else {}
    makers |= {"arrays of JAX": jax.device_put} if jax is not None else {}
    ways = {(way, name): flow for name, make in makers.items() for way, flow in pipelines(make).items()}
    for flow in ways.values():  # the first pass starts workers, and imports libraries there
        consume(flow)
    times = fastest(
        {key: Contestant(partial(consume, flow), BATCHES) for key, flow in ways.items()}, 2 if quick else 12
    )
    return [
        ratio(
            f"{name} {way}: times the time of arrays",
            {one: times[way, one] for one in makers},
            name,
            "arrays",
            unit="ms",
            target="<= 1.3",
        )
        for way, name in ways
        if name != "arrays"
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
