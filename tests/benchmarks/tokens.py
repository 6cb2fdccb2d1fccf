"""What do tokens cost where they lie: rows of files of tokens and slices of Megatron-LM's documents, in shuffled batches;
the first row of very many files; lines of JSON whose index is kept; rows of a folder of Hugging Face's datasets?

Next to what one would write by hand, and to megatron-core and datasets where they are installed, in the same run.
A ratio of 1.2 says that the flow is 1.2 times as fast as what it is held against.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff
from flowfn.formats import read_hugging_face, read_jsonl, read_megatron, read_tokens, write_megatron
from flowfn.storage.bars import hushed

LENGTH = 2048


class Sizes(NamedTuple):
    """Tokens of the file, rows that are taken, files of which the first row is wanted, lines, rounds."""

    tokens: int
    picks: int
    files: int
    lines: int
    rounds: int


FULL, QUICK = Sizes(10**9, 20_480, 10_000, 300_000, 12), Sizes(10**7, 512, 100, 2_000, 2)


def cut(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Blocks of an order."""
    return (order[at : at + size] for at in range(0, len(order), size))


def some_of(count: int, picks: int) -> np.ndarray:
    """Numbers below a count, none of them twice."""
    order: np.ndarray = np.random.default_rng(0).permutation(count)[:picks]
    return order


def batches(flow: Any, order: np.ndarray, size: int) -> Callable[[], None]:
    """Batches of a flow, in an order that is known before the clock runs."""
    return partial(consume, ff.pipe(flow, ff.subset(order), ff.batch(size)))


def of_rows(sizes: Sizes, folder: Path) -> list[Finding]:
    """Rows of a file of tokens without holes in memory: it is sparse, so the disk has no part in this."""
    path = folder / "train.bin"
    with open(path, "wb") as file:
        file.truncate(2 * sizes.tokens)
    rows = np.memmap(path, np.uint16, "r")[: sizes.tokens // LENGTH * LENGTH].reshape(-1, LENGTH)
    raw = memoryview(np.memmap(path, mode="r").data)  # type: ignore[arg-type]
    flat, places = np.memmap(path, np.uint16, "r"), 2 * LENGTH * np.arange(len(rows))
    order = some_of(len(rows), sizes.picks)
    flow, overlapping = read_tokens(path, "uint16", LENGTH), read_tokens(path, "uint16", LENGTH + 1, stride=LENGTH)

    def by_hand(size: int) -> None:
        for block in cut(order, size):
            rows[block]

    def as_megatron(size: int) -> None:
        for block in cut(order, size):
            parts = ([np.frombuffer(raw, np.uint16, LENGTH, int(places[at]))] for at in block)
            np.stack([np.concatenate(part, dtype=np.int64) for part in parts])

    def as_nanogpt(size: int) -> None:
        for block in cut(order, size):
            np.stack([flat[at * LENGTH : (at + 1) * LENGTH] for at in block.tolist()])

    findings = []
    for size in (8, 64, 512):
        contestants = {
            "bare gather": partial(by_hand, size),
            "row by row as Megatron-LM": partial(as_megatron, size),
            "row by row as nanoGPT": partial(as_nanogpt, size),
            "flowfn": batches(flow, order, size),
            "flowfn, one token more": batches(overlapping, order, size),
        }
        times = fastest({name: Contestant(run, len(order)) for name, run in contestants.items()}, sizes.rounds)
        named = f"rows of {LENGTH} tokens, batches of {size}"
        target = ">= 5" if size > 8 else ">= 3"  # of 8 rows, what a batch costs tells
        findings += [
            ratio(named, times, "bare gather", "flowfn", unit="µs", target=">= 0.8"),
            ratio(named, times, "bare gather", "flowfn, one token more", unit="µs", target=">= 0.8"),
            ratio(named, times, "row by row as Megatron-LM", "flowfn", unit="µs", target=target),
            ratio(named, times, "row by row as nanoGPT", "flowfn", unit="µs", target=target),
        ]
    return findings


def of_slices(sizes: Sizes, folder: Path) -> list[Finding]:
    """Slices across documents of some thousand tokens, shuffled: next to GPTDataset."""
    rng, prefix = np.random.default_rng(0), str(folder / "text")
    count = sizes.tokens // 100_000
    lengths = rng.lognormal(6.5, 1, count).astype(int) + 1
    with hushed():
        write_megatron(prefix, (np.append(rng.integers(1, 1000, length), 0) for length in lengths), "uint16")
    documents = rng.permutation(count)
    plain = read_megatron(prefix, LENGTH, order=documents)
    order = some_of(len(plain), sizes.picks)
    contestants = {
        "flowfn": batches(plain, order, 8),
        "flowfn, segments": batches(read_megatron(prefix, LENGTH, order=documents, segments=True), order, 8),
        "flowfn, as they lie": batches(read_megatron(prefix, LENGTH), order, 8),
        **gpt_dataset(prefix, folder, order, count),
    }
    times = fastest({name: Contestant(run, len(order)) for name, run in contestants.items()}, sizes.rounds)
    named = "slices across documents, batches of 8"
    return [
        ratio(named, times, "GPTDataset", name, unit="µs", target=target)
        for name, target in (("flowfn, as they lie", ">= 5"), ("flowfn", ">= 2"), ("flowfn, segments", ">= 1"))
    ]


def gpt_dataset(prefix: str, folder: Path, order: np.ndarray, count: int) -> dict[str, Callable[[], None]]:
    """megatron-core's own, if it is installed: tokens alone, stacked, without masks."""
    try:
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
        from megatron.core.datasets.indexed_dataset import IndexedDataset
        from megatron.core.datasets.utils import Split
    except ImportError:
        return {}

    class Tokenizer:
        vocab_size, eod, pad, unique_identifiers = 1000, 0, -1, {}

    config = GPTDatasetConfig(
        random_seed=0, sequence_length=LENGTH, blend=([prefix], None), split="1,0,0", tokenizer=Tokenizer(),
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
        path_to_cache=str(folder / "cache"), mid_level_dataset_surplus=0.005,
    )  # fmt: skip
    low, numbers = IndexedDataset(prefix), np.arange(count, dtype=np.int32)
    rows = GPTDataset(low, prefix, numbers, None, Split.train, config)

    def run() -> None:
        for block in cut(order, 8):
            np.stack([rows._query_document_sample_shuffle_indices(int(at))[0] for at in block])

    return {"GPTDataset": run}


def of_first_rows(sizes: Sizes, folder: Path) -> list[Finding]:
    """From when many files have been opened to the first row, and to a shuffled one; and opening them."""
    many = folder / "many"
    many.mkdir()
    paths = [str(many / f"{number:05d}.bin") for number in range(sizes.files)]
    for path in paths:
        with open(path, "wb") as file:
            file.truncate(20 * LENGTH)
    times: dict[str, float] = {}
    for _ in range(sizes.rounds):
        begun = perf_counter()
        flow = read_tokens(paths, "uint16", LENGTH)
        opened = perf_counter()
        flow[0]
        first = perf_counter()
        next(iter(ff.shuffle(flow)))
        for name, seconds in (
            ("opening", opened - begun),
            ("the first row", first - opened),
            ("a shuffled row", perf_counter() - first),
        ):
            times[name] = min(times.get(name, 9.0), seconds)
    targets = {"the first row": "<= 50", "a shuffled row": "<= 50"}
    return [
        Finding(f"{sizes.files} files of tokens", name, 1000 * seconds, "ms", targets.get(name, ""))
        for name, seconds in times.items()
    ]


def of_lines(sizes: Sizes, folder: Path) -> list[Finding]:
    """One line of many, by a process that starts: with the index kept, and without."""
    path = folder / "lines.jsonl"
    with open(path, "w") as file:
        file.writelines(json.dumps({"n": number, "text": "lorem ipsum " * 40}) + "\n" for number in range(sizes.lines))
    read_jsonl(path, save_index=True)[0]
    times = fastest(
        {
            "scan": Contestant(lambda: read_jsonl(path)[sizes.lines // 2]),
            "kept index": Contestant(lambda: read_jsonl(path, save_index=True)[sizes.lines // 2]),
        },
        sizes.rounds,
    )
    return [ratio(f"the first line wanted of {sizes.lines}", times, "scan", "kept index", unit="ms", target=">= 10")]


def of_saved(sizes: Sizes, folder: Path) -> list[Finding]:
    """Rows of tokens in a folder that datasets has saved, in order and at random."""
    try:
        import datasets
    except ImportError:
        return [Finding("a folder of datasets", "datasets absent", None)]
    datasets.disable_progress_bars()
    count = sizes.lines // 10
    ids = [list(range(number % 500)) for number in range(count)]
    datasets.Dataset.from_dict({"ids": ids, "n": list(range(count))}).save_to_disk(str(folder / "saved"))
    theirs, ours = datasets.load_from_disk(str(folder / "saved")), read_hugging_face(folder / "saved")
    order = some_of(count, sizes.picks // 10)

    def at_random(rows: Any) -> None:
        for index in order.tolist():
            rows[index]

    findings = []
    for named, run, taken in (("in order", consume, count), ("at random", at_random, len(order))):
        contestants = {
            "datasets": Contestant(partial(run, theirs), taken),
            "flowfn": Contestant(partial(run, ours), taken),
        }
        times = fastest(contestants, min(sizes.rounds, 3))
        findings.append(ratio(f"a folder of datasets: {named}", times, "datasets", "flowfn", unit="µs", target=">= 1"))
    return findings


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    sizes = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        findings = []
        for of in (of_rows, of_slices, of_first_rows, of_lines, of_saved):
            inner = Path(folder, of.__name__)
            os.mkdir(inner)
            findings += of(sizes, inner)
        return findings


if __name__ == "__main__":
    report(__doc__, benchmark)
