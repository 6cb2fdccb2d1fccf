"""What does it cost to read one datapoint, to find its place in a shuffle, to resume, and to save where one is?

All of these must not depend on how much data there is, nor on how far one has come.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import peers
from measuring import Contestant, Finding, fastest, ratio, report, shown

import flowfn as ff
from flowfn.randomness.generators import generator, permutation

BLOCK = 4096
SIZES = {"65 535": 65_535, "65 537": 65_537, "10^6 + 3": 10**6 + 3, "10^9": 10**9, "2^40 + 1": 2**40 + 1}
POSITION = 10**6


def add_one(x: int) -> int:
    """A trivial function."""
    return x + 1


def is_even(x: int) -> bool:
    """A trivial predicate."""
    return x % 2 == 0


def twice(x: int) -> list[int]:
    """A trivial function that gives two outputs."""
    return [x, x]


def one_datapoint(quick: bool) -> list[Finding]:
    """What does `flow[i]` cost over three `each` stages, at places all over the source?"""
    data = list(range(100_000))
    at = random.Random(0).choices(data, k=500)
    flow = ff.pipe(data, *[ff.map(add_one)] * 3)
    contestants = {"flowfn": Contestant(partial(_read, flow, at), len(at))}
    if peers.grain() is not None:
        dataset = peers.grain().MapDataset.source(data).map(add_one).map(add_one).map(add_one)
        contestants["grain"] = Contestant(partial(_read, dataset, at), len(at))
    times = fastest(contestants, 5 if quick else 300)
    question = "flow[i] over three map stages"
    return [
        Finding(question, "at random places", times["flowfn"] * 1e6, "µs", "<= 8"),
        ratio(f"{question}: times as fast as grain", times, "grain", "flowfn", unit="µs"),
    ]


def one_place(quick: bool) -> list[Finding]:
    """What does one index of a shuffle cost, in blocks, making the permutation included?"""
    reached = 2**15 if quick else 2**18
    keys = count()
    contestants = {}
    for name, n in SIZES.items():
        contestants[name] = Contestant(partial(_shuffle_in_blocks, n, min(n, reached), keys), min(n, reached))
    rng = np.random.default_rng(0)
    contestants["numpy"] = Contestant(lambda: rng.permutation(10**6 + 3), 10**6 + 3)
    times = fastest(contestants, 3 if quick else 40)
    theirs = f"a numpy permutation of 10^6 + 3: {shown(times['numpy'] * 1e9)} ns"
    return [
        Finding(f"an index of shuffle, n = {name}", f"blocks of {BLOCK}; {theirs}", times[name] * 1e9, "ns", "<= 25")
        for name in SIZES
    ]


def resuming(quick: bool) -> list[Finding]:
    """What does it cost to go on at output 10^6, the first datapoint from there included, in a flow just built?"""
    rounds = 5 if quick else 200
    pipelines: dict[str, Callable[[], Any]] = {
        "shuffle, map": lambda: ff.pipe(range(10**7), ff.shuffle(), ff.map(add_one)),
        "shuffle, map, batch(128)": lambda: ff.pipe(range(10**9), ff.shuffle(), ff.map(add_one), ff.batch(128)),
    }
    findings = []
    for name, make in pipelines.items():
        state = make().run(start=POSITION).state_dict()
        contestants = {
            "resume": Contestant(partial(_resume, iter([make() for _ in range(rounds)]), state)),
            "start": Contestant(partial(_start, iter([make() for _ in range(rounds)]))),
        }
        times = fastest(contestants, rounds)
        measured = f"from the start {shown(times['start'] * 1e3)} ms"
        findings.append(Finding(f"resume at output 10^6: {name}", measured, times["resume"] * 1e3, "ms", "< 1"))
    return findings


def states(quick: bool) -> list[Finding]:
    """How large is a state as JSON?"""
    far = 1000 if quick else 100_000
    flows = {
        "a seekable flow": ff.pipe(range(10**9), ff.shuffle(), ff.map(add_one), ff.batch(128)).run(start=POSITION),
        "through filter, flat_map, shuffle_buffer, batch": ff.pipe(
            range(10**9), ff.shuffle(), ff.filter(is_even), ff.flat_map(twice), ff.shuffle_buffer(100), ff.batch(8)
        ).run(),
    }
    findings = []
    for name, iterator in flows.items():
        for _ in range(far // 8):
            next(iterator)
        size = len(json.dumps(iterator.state_dict()))
        findings.append(
            Finding(f"size of the state: {name}", f"at output {iterator.position}", size, "bytes", "< 1000")
        )
        iterator.close()
    return findings


def endless_data(quick: bool) -> list[Finding]:
    """How long does it take to shuffle a thousand million, and take ten?"""
    contestants = {"flowfn": Contestant(lambda: list(ff.pipe(range(10**9), ff.shuffle(), ff.take(10))))}
    seconds = fastest(contestants, 5 if quick else 100)["flowfn"]
    return [
        Finding("pipe(range(10**9), shuffle(), take(10))", "built, and read to its end", seconds * 1e3, "ms", "< 10")
    ]


def _read(dataset: Any, at: list[int]) -> None:
    for index in at:
        dataset[index]


def _shuffle_in_blocks(n: int, reached: int, keys: count[int]) -> None:
    order = permutation(n, generator(next(keys)))
    for start in range(0, reached, BLOCK):
        order[start : min(start + BLOCK, reached)]


def _resume(flows: Any, state: dict[str, Any]) -> None:
    next(iter(next(flows).load_state_dict(state)))


def _start(flows: Any) -> None:
    next(iter(next(flows)))


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    return [
        finding
        for question in (one_datapoint, one_place, resuming, states, endless_data)
        for finding in question(quick)
    ]


if __name__ == "__main__":
    report(__doc__, benchmark)
