"""What do rows of tables cost: at random from a large Arrow file that is mapped,
and from arrays of which one holds strings?

Hugging Face's datasets reads the same file in the same run.
A ratio of 1.2 says that the flow is 1.2 times as fast as what it is held against.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff
from flowfn.formats import read_arrow

TEXT = "lorem ipsum" * 180


class Sizes(NamedTuple):
    """Rows of the Arrow file (2 kB each), how many are taken from it, rows of the arrays, and rounds."""

    rows: int
    picks: int
    arrays: int
    rounds: int


FULL, QUICK = Sizes(240_000, 20_000, 20_000, 20), Sizes(4_000, 400, 300, 2)


def written(path: str, rows: int) -> str:
    """An Arrow stream as Hugging Face's caches are, in batches of a thousand rows."""
    import pyarrow as pa

    schema, texts = pa.schema([("text", pa.string()), ("id", pa.int64())]), pa.array([TEXT] * 1000)
    with pa.ipc.new_stream(path, schema) as file:
        for first in range(0, rows, 1000):
            file.write_batch(pa.record_batch([texts, pa.array(range(first, first + 1000))], schema=schema))
    return path


def one_by_one(rows: Any, picks: list[int]) -> None:
    """Rows by their index."""
    for index in picks:
        rows[index]


def counted(rows: Any, picks: list[int]) -> None:
    """Rows as a shuffled pass reads them; they are those that were wanted."""
    assert [row["id"] for row in rows] == picks


def of_arrow(sizes: Sizes, folder: Path) -> list[Finding]:
    """Rows at random of an Arrow file: by index and shuffled next to datasets,
    and by two worker processes next to one."""
    path = written(str(folder / "a.arrow"), sizes.rows)
    picks = np.random.default_rng(0).permutation(sizes.rows)[: sizes.picks].tolist()
    flow = read_arrow(path)
    shuffled = ff.subset(picks, flow)
    contestants = {
        "flowfn, flow[i]": Contestant(partial(one_by_one, flow, picks), sizes.picks),
        "flowfn, shuffled": Contestant(partial(counted, shuffled, picks), sizes.picks),
    }
    try:
        import datasets

        held = datasets.Dataset.from_file(path)
        contestants["datasets, dataset[i]"] = Contestant(partial(one_by_one, held, picks), sizes.picks)
        contestants["datasets, shuffled"] = Contestant(partial(counted, held.select(picks), picks), sizes.picks)
    except ImportError:
        pass
    times, told = (
        fastest(contestants, sizes.rounds),
        f"Arrow file of {sizes.rows * len(TEXT) // 10**6} MB, rows at random",
    )
    findings = [
        ratio(f"{told}: one by one", times, "datasets, dataset[i]", "flowfn, flow[i]", unit="µs", target=">= 0.8"),
        ratio(f"{told}: a shuffled pass", times, "datasets, shuffled", "flowfn, shuffled", unit="µs", target=">= 0.8"),
    ]
    return [*findings, *by_workers(flow, picks, sizes, told)]


def worked(row: dict[str, Any]) -> int:
    """Some work for every row, of which the one number crosses to the trainer's process."""
    return sum(row["text"].count(letter) for letter in "abcdefghijklmnopqrstuvwxyz")


def by_workers(flow: Any, picks: list[int], sizes: Sizes, told: str) -> list[Finding]:
    """Two processes next to one: rows are read in the workers, and cross as they are,
    or their letters are counted there."""
    findings = []
    for what, work in (("in batches of 64", None), ("their letters counted", ff.map(worked))):
        contestants = {}
        for name, processes in (("1 process", 1), ("2 processes", 2)):
            made = ff.pipe(flow, ff.subset(picks), work, ff.batch(64), ff.prefetch(8, processes=processes))
            consume(made)  # the workers stay
            contestants[name] = Contestant(partial(consume, made), sizes.picks)
        times = fastest(contestants, max(sizes.rounds // 2, 1))
        findings.append(ratio(f"{told}: {what}", times, "1 process", "2 processes", unit="µs", target=">= 1.5"))
    return findings


def of_arrays(sizes: Sizes, folder: Path) -> list[Finding]:
    """Shuffled batches of 32 columns of numbers, with one of strings beside them and alone, next to a list of dicts."""
    numbers = {f"c{number}": np.random.default_rng(number).random(sizes.arrays) for number in range(32)}
    names = np.array([f"name {number}" for number in range(sizes.arrays)], object)
    columns = {
        "strings": numbers | {"name": names},
        "numbers": numbers,
        "texts of numpy": numbers | {"name": names.astype(str)},
    }
    sources: dict[str, Any] = {f"from_arrays, {name}": ff.from_arrays(**one) for name, one in columns.items()}
    sources["dicts"] = list(ff.from_arrays(**columns["strings"]))
    contestants = {
        name: Contestant(partial(consume, ff.pipe(source, ff.shuffle(), ff.batch(32))), sizes.arrays)
        for name, source in sources.items()
    }
    times, told = fastest(contestants, sizes.rounds), "32 columns of numbers, shuffled batches of 32"
    return [
        ratio(
            f"{told}: one of strings beside them", times, "dicts", "from_arrays, strings", unit="µs", target=">= 0.67"
        ),
        ratio(
            f"{told}: one of numpy's texts beside them",
            times,
            "dicts",
            "from_arrays, texts of numpy",
            unit="µs",
            target=">= 0.67",
        ),
        Finding(f"{told}: alone", "from_arrays", times["from_arrays, numbers"] * 1e6, "µs"),
    ]


QUESTIONS: list[Callable[[Sizes, Path], list[Finding]]] = [of_arrow, of_arrays]
"""Functions that write what they need to a folder, and tell."""


def answered(question: Callable[[Sizes, Path], list[Finding]], sizes: Sizes, folder: Path) -> list[Finding]:
    """What a question finds; a line says so where its library is absent."""
    try:
        return question(sizes, folder)
    except ImportError as error:
        return [Finding((question.__doc__ or "").partition(":")[0], f"{error.name} absent", None)]


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            finding for question in QUESTIONS for finding in answered(question, QUICK if quick else FULL, Path(folder))
        ]


if __name__ == "__main__":
    report(__doc__, benchmark)
