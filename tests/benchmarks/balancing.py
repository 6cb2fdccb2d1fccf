"""How equal is the work of 8 and 64 ranks, what does it cost in padding, in shuffling, in time and in memory?

Lengths are drawn: log-normal, as of web pages (median 403 tokens), and bimodal, as of chats with one document to four
    of them; at most 8192. The work of n tokens is n + n * n / 4096. "Most over mean" is what all steps take by the rank
    that has most, over what they would if all had the same; the last steps, where data runs out, are left out.
Mixed: of the tenths of all lengths, how evenly they are in a step, as entropy: 1 is as in all data, 0 is one tenth.
Moved: how far datapoints are from where they were, over what a uniform shuffle of as much would do: 1 is all.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from measuring import Finding, consume, report, shown

import flowfn as ff

CAPACITY = 8192
TOKENS = 16_384


def log_normal(n: int) -> np.ndarray:
    """Lengths of web pages."""
    draw = np.random.Generator(np.random.PCG64(1))
    return np.clip(np.exp(draw.normal(6, 1, n)), 1, CAPACITY).astype(np.int64)


def bimodal(n: int) -> np.ndarray:
    """Lengths of chats and documents."""
    draw = np.random.Generator(np.random.PCG64(2))
    long, short = draw.normal(8, 0.7, n), draw.normal(5.3, 0.6, n)
    return np.clip(np.exp(np.where(draw.random(n) < 0.2, long, short)), 1, CAPACITY).astype(np.int64)


SHAPES = {"log-normal": log_normal, "bimodal": bimodal}


def work(n: Any) -> Any:
    """What n tokens cost."""
    return n + n * n / 4096


def of(datapoint: tuple[int, int]) -> int:
    """The length of a datapoint."""
    return datapoint[1]


Step = list[list[list[int]]]
"""For each rank, its batches of datapoints, each by its number."""


class Way(NamedTuple):
    """A way to make steps: for each, what each rank gets; and whether what is shorter costs as much as the longest."""

    steps: list[Step]
    padded: bool = False


# Ways


def in_turn(batches: Iterable[Any], ranks: int) -> list[Step]:
    """Batches of (number, length) dealt to ranks as they come; what makes no whole step is left out."""
    numbered = [[number for number, _ in batch] for batch in batches]
    whole = len(numbered) // ranks * ranks
    return [[[batch] for batch in numbered[start : start + ranks]] for start in range(0, whole, ranks)]


def in_microbatches(shares: Iterable[Any], ranks: int) -> list[Step]:
    """Lists of batches of (number, length), the same."""
    numbered = [[[number for number, _ in batch] for batch in share] for share in shares]
    whole = len(numbered) // ranks * ranks
    return [numbered[start : start + ranks] for start in range(0, whole, ranks)]


def packed(rows: Iterable[Any], ranks: int) -> list[Step]:
    """The same of packed rows."""
    return in_turn([[(number, 0) for number, _, _ in row] for row in rows], ranks)


def ways(lengths: np.ndarray, ranks: int) -> dict[str, Way]:
    """All ways to make steps of the same data, those by flowfn's plans last."""
    source = list(enumerate(lengths.tolist()))
    plan = partial(ff.batch_by_cost, work, source, length=of, ranks=ranks, collate=None)
    sizes = [256, 512, 1024, 2048, 4096, CAPACITY]
    buckets = ff.batch_by_length(of, source, boundaries=sizes, tokens=TOKENS, collate=None)
    ordered = sorted(source, key=of)
    return {
        "batches of 64, as they come": Way(in_turn(ff.batch(64, source, collate=None), ranks)),
        "all sorted, batches by tokens": Way(
            in_turn(ff.batch_by_length(of, ordered, tokens=TOKENS, collate=None), ranks), padded=True
        ),
        "buckets by tokens, as they come": Way(in_turn(buckets, ranks), padded=True),
        "best_fit": Way(packed(ff.best_fit(lengths.tolist(), CAPACITY), ranks)),
        "batch_by_cost(size=)": Way(in_turn(plan(size=64 * ranks), ranks)),
        "batch_by_cost(tokens=)": Way(in_turn(plan(tokens=TOKENS), ranks), padded=True),
        "batch_by_cost(tokens=, microbatches=4)": Way(
            in_microbatches(plan(tokens=TOKENS, microbatches=4), ranks), padded=True
        ),
        "batch_by_cost(tokens=, padded=False)": Way(in_turn(plan(tokens=TOKENS, padded=False), ranks)),
        "balanced_fit": Way(packed(ff.balanced_fit(lengths.tolist(), CAPACITY, ranks=ranks, cost=work), ranks)),
    }


PLANS = 5
"""How many of them are flowfn's plans."""


# Measures


def most_over_mean(way: Way, lengths: np.ndarray) -> float:
    """What the dearest ranks take over the mean, in all steps but the last two."""
    costs = np.array(
        [[sum(_cost(lengths[batch], way.padded) for batch in rank) for rank in step] for step in way.steps[:-2]]
    )
    return float(costs.max(1).sum() / costs.mean(1).sum())


def _cost(lengths: np.ndarray, padded: bool) -> float:
    return float(len(lengths) * work(lengths.max()) if padded else work(lengths).sum())


def padding(way: Way, lengths: np.ndarray) -> float:
    """The share of what is laid out that is padding."""
    batches = [lengths[batch] for step in way.steps for rank in step for batch in rank]
    return 1 - sum(int(one.sum()) for one in batches) / sum(len(one) * int(one.max()) for one in batches)


def mixed(way: Way, lengths: np.ndarray) -> float:
    """How evenly the tenths of all lengths are in a step, in the mean."""
    tenths = np.searchsorted(np.quantile(lengths, np.arange(1, 10) / 10), lengths)
    found = []
    for step in way.steps:
        counts = np.bincount(tenths[[item for rank in step for batch in rank for item in batch]], minlength=10)
        shares = counts[counts > 0] / counts.sum()
        found.append(-(shares * np.log(shares)).sum() / np.log(10))
    return float(np.mean(found))


def moved(way: Way, window: int) -> float:
    """How far datapoints are from where they were, over a third of a window, as in a uniform shuffle of it."""
    order = np.array([item for step in way.steps for rank in step for batch in rank for item in batch])
    return float(np.abs(order - np.arange(len(order))).mean() / (window / 3))


# Questions


def balanced(quick: bool) -> list[Finding]:
    """Of every way, for both shapes and both numbers of ranks."""
    findings = []
    for shape, draw in SHAPES.items():
        for ranks in (8, 64):
            n = 30_000 if quick else 400_000
            lengths = draw(n)
            every = ways(lengths, ranks)
            for number, (name, way) in enumerate(every.items()):
                target = "<= 1.02" if number >= len(every) - PLANS and not ("size" in name and ranks == 64) else ""
                said = f"mixed {mixed(way, lengths):.2f}, moved {moved(way, max(4096, 2048 * ranks)):.2f}"
                said += f", padding {padding(way, lengths):.1%}" if way.padded else ""
                result = most_over_mean(way, lengths)
                findings.append(Finding(f"most over mean: {shape}, {ranks} ranks, {name}", said, result, target=target))
            rows = {name: len(every[name].steps) * ranks for name in ("best_fit", "balanced_fit")}
            findings.append(
                Finding(
                    f"rows beside best_fit: {shape}, {ranks} ranks",
                    ", ".join(f"{name} {count}" for name, count in rows.items()),
                    rows["balanced_fit"] / rows["best_fit"],
                    target="<= 1.01",
                )
            )
    return findings


def planned_in_time(quick: bool) -> list[Finding]:
    """Lengths alone, a million of them: seconds."""
    n = 20_000 if quick else 1_000_000
    findings = []
    for shape, draw in SHAPES.items():
        lengths = draw(n).tolist()
        plans: dict[str, Callable[[], Iterable[Any]]] = {
            "balanced_fit": lambda lengths=lengths: ff.balanced_fit(lengths, CAPACITY, ranks=8, cost=work),
            "batch_by_cost(tokens=)": lambda lengths=lengths: _plan(lengths, tokens=TOKENS),
            "batch_by_cost(size=)": lambda lengths=lengths: _plan(lengths, size=512),
            "best_fit, not for ranks": lambda lengths=lengths: ff.best_fit(lengths, CAPACITY),
        }
        for name, plan in plans.items():
            seconds = min(_seconds(plan) for _ in range(1 if quick else 3)) * 1_000_000 / n
            target = "" if "not for" in name else "<= 2"
            findings.append(Finding(f"a million lengths planned: {shape}, {name}", "8 ranks", seconds, "s", target))
    return findings


def _plan(lengths: Iterable[int], **options: Any) -> Any:
    return ff.batch_by_cost(work, lengths, length=int, ranks=8, collate=None, **options)


def _seconds(plan: Callable[[], Iterable[Any]]) -> float:
    start = perf_counter()
    consume(plan())
    return perf_counter() - start


def flat(quick: bool) -> list[Finding]:
    """What a source of 10^9 datapoints costs at its beginning and in its middle; and memory over its length."""
    count = 5_000 if quick else 200_000
    seconds, peaks = {}, {}
    for name, skipped in (("the first", 0), ("in the middle", 500_000_000)):
        flow = ff.pipe(range(10**9), ff.shuffle(), ff.skip(skipped), ff.map(drawn_length), _plan_stage())
        seconds[name] = min(_seconds(lambda flow=flow: _outputs(flow, count)) for _ in range(3))
    for steps in (1, 5 if quick else 10):
        tracemalloc.start()
        consume(_outputs(ff.pipe(range(10**9), ff.shuffle(), ff.map(drawn_length), _plan_stage()), steps * 10_000))
        peaks[steps] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    state = _state_after(count // 10)
    return [
        Finding(
            "10^9 datapoints: in the middle over the first",
            f"{shown(seconds['the first'] / count * 1e6)} µs an output",
            seconds["in the middle"] / seconds["the first"],
            target="<= 1.2",
        ),
        Finding(
            "memory: many more outputs over 10 000",
            f"{peaks[1] / 1e6:.1f} MB",
            max(peaks.values()) / peaks[1],
            target="<= 1.1",
        ),
        Finding("a state", "after some steps", state, "bytes", "<= 2000"),
    ]


def drawn_length(index: int) -> int:
    """A length for each index, up to 8192."""
    return 1 + (index * 0x9E3779B97F4A7C15 >> 20 & 8191)


def _plan_stage() -> Any:
    return ff.batch_by_cost(work, length=int, ranks=8, tokens=TOKENS, collate=None)


def _outputs(flow: Any, count: int) -> Iterator[Any]:
    with flow.run() as iterator:
        yield from islice(iterator, count)


def _state_after(count: int) -> int:
    with ff.pipe(range(10**9), ff.shuffle(), ff.map(drawn_length), _plan_stage()).run() as iterator:
        consume(islice(iterator, count))
        return len(str(iterator.state_dict()))


def benchmark(quick: bool) -> list[Finding]:
    """All questions."""
    return [*balanced(quick), *planned_in_time(quick), *flat(quick)]


if __name__ == "__main__":
    report(__doc__, benchmark)
