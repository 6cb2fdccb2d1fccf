"""What does flowfn cost for each datapoint, beside a hand-written loop and beside its peers?

200 000 lists of two ints, one added to the first, batches of 128: next to no work, so all that is left is overhead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import peers
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff

SIZE = 128
STAGES = 5


def add_one(x: int) -> int:
    """The work."""
    return x + 1


def same(x: Any) -> Any:
    """No work at all."""
    return x


# The contestants


def by_hand(data: list[list[int]]) -> Iterator[list[np.ndarray]]:
    """What one writes without a library: a generator that copies and changes each list, another that stacks."""

    def changed() -> Iterator[list[int]]:
        for datapoint in data:
            datapoint = datapoint.copy()  # flowfn never changes its input; nor does this
            datapoint[0] = add_one(datapoint[0])
            yield datapoint

    source = changed()
    while chunk := list(islice(source, SIZE)):
        yield [np.array(column) for column in zip(*chunk)]


def with_flowfn(data: list[list[int]]) -> Iterable[Any]:
    """The same sentence in flowfn."""
    return ff.pipe(data, ff.map_component(add_one, 0), ff.batch(SIZE))


def with_tensorpack(data: list[list[int]]) -> Iterable[Any]:
    """In tensorpack, in this process."""
    dataflow = peers.tensorpack()
    source = dataflow.DataFromList(data, shuffle=False)
    flow = dataflow.BatchData(dataflow.MapDataComponent(source, add_one, 0), SIZE, remainder=True)
    flow.reset_state()
    return flow


def with_torch(data: list[list[int]]) -> Iterable[Any]:
    """In torch's DataLoader, over a map-style dataset, in this process."""

    class Dataset(peers.torch().utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> list[int]:
            first, second = data[index]
            return [add_one(first), second]

    return peers.torch().utils.data.DataLoader(Dataset(), batch_size=SIZE, num_workers=0)


def with_grain(data: list[list[int]]) -> Iterable[Any]:
    """In grain, without its read threads, which only slow this down."""

    def changed(datapoint: list[int]) -> list[int]:
        return [add_one(datapoint[0]), datapoint[1]]

    dataset = peers.grain().MapDataset.source(data).map(changed).batch(SIZE)
    return dataset.to_iter_dataset(peers.grain().ReadOptions(num_threads=0, prefetch_buffer_size=0))


# The questions


def overhead(quick: bool) -> list[Finding]:
    """What does a datapoint cost, by hand, in flowfn, and in the peers? Slow peers get fewer datapoints."""
    n = 20_000 if quick else 200_000
    data = [[i, i] for i in range(n)]
    makers: dict[str, tuple[Callable[[list[list[int]]], Iterable[Any]], int, bool]] = {
        "by hand": (by_hand, 1, True),
        "flowfn": (with_flowfn, 1, True),
        "tensorpack": (with_tensorpack, 2, peers.tensorpack() is not None),
        "torch DataLoader": (with_torch, 4, peers.torch() is not None),
        "grain": (with_grain, 40, peers.grain() is not None),
    }
    contestants = {
        name: Contestant(_reading(make, data[: n // fewer]), n // fewer)
        for name, (make, fewer, present) in makers.items()
        if present
    }
    times = fastest(contestants, 3 if quick else 40)
    return [
        ratio("a datapoint: flowfn's time over the hand-written loop's", times, "flowfn", "by hand", target="<= 1.1"),
        ratio("a datapoint: times as fast as tensorpack", times, "tensorpack", "flowfn", target=">= 2"),
        ratio("a datapoint: times as fast as torch's DataLoader", times, "torch DataLoader", "flowfn", target=">= 4"),
        ratio("a datapoint: times as fast as grain", times, "grain", "flowfn", target=">= 30"),
    ]


def further_stages(quick: bool) -> list[Finding]:
    """What does one more `each` stage cost, over one more bare generator?"""
    n = 20_000
    data = list(range(n))
    contestants = {
        f"{who} {stages}": Contestant(partial(_consume_made, make, data, stages), n)
        for who, make in (("by hand", _generators), ("flowfn", _maps))
        for stages in (1, STAGES)
    }
    times = fastest(contestants, 5 if quick else 300)
    hand, ours = ((times[f"{who} {STAGES}"] - times[f"{who} 1"]) / (STAGES - 1) * 1e9 for who in ("by hand", "flowfn"))
    measured = f"flowfn {ours:.1f} ns, by hand {hand:.1f} ns each"
    return [Finding("a further map stage: what it costs over a bare generator", measured, ours - hand, "ns", "<= 15")]


def _generators(data: list[int], stages: int) -> Iterable[int]:
    def stage(source: Iterable[int]) -> Iterator[int]:
        for datapoint in source:
            yield same(datapoint)

    source: Iterable[int] = data
    for _ in range(stages):
        source = stage(source)
    return source


def _maps(data: list[int], stages: int) -> Iterable[int]:
    return ff.pipe(data, *[ff.map(same)] * stages)


def _consume_made(make: Callable[..., Iterable[Any]], *args: Any) -> None:
    consume(make(*args))


def _reading(make: Callable[..., Iterable[Any]], data: Any) -> Callable[[], None]:
    """Something that reads it all; whatever can be read again is made once."""
    if make is by_hand:
        return partial(_consume_made, make, data)
    return partial(consume, make(data))


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    return [*overhead(quick), *further_stages(quick)]


if __name__ == "__main__":
    report(__doc__, benchmark)
