"""What do shuffled batches of a table cost: gathered column by column, row by row of dicts,
and by Hugging Face's datasets?

100 000 rows of ten columns of numbers (and one of texts beside them), in batches of 128, in a new order in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff
from flowfn.interop import from_table

SIZE = 128
NUMBERS = ("f8", "f4", "i8", "i4", "u1", "?", "f8", "f4", "i8", "i2")


# The contestants


def columns(n: int, texts: bool) -> dict[str, Any]:
    """Ten columns, of which one holds texts."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {f"{name}{at}": (100 * rng.random(n)).astype(name) for at, name in enumerate(NUMBERS)}
    return {**dict(list(made.items())[:9]), "text": [f"text {i}" for i in range(n)]} if texts else made


def batches(source: Any) -> Any:
    """In flowfn."""
    return ff.pipe(source, ff.shuffle(), ff.batch(SIZE))


def with_datasets(dataset: Any, n: int) -> Iterator[Any]:
    """In Hugging Face's datasets, as its loaders do: the indices of a batch at once."""
    order = np.random.default_rng(0).permutation(n).tolist()
    for start in range(0, n, SIZE):
        yield dataset[order[start : start + SIZE]]


# The question


def of_tables(n: int, rounds: int, texts: bool) -> list[Finding]:
    """Tables of each library, beside the dicts that one would make of them."""
    made = columns(n, texts)
    sources = dict(_tables(made))
    contestants = {name: Contestant(partial(consume, batches(from_table(one))), n) for name, one in sources.items()}
    rows = sources["pandas"].to_dict("records")
    contestants["dicts"] = Contestant(partial(consume, batches(rows)), n)
    contestants["from_arrays"] = Contestant(
        partial(consume, batches(ff.from_arrays(**{name: np.asarray(one) for name, one in made.items()}))), n
    )
    try:
        import datasets

        held = datasets.Dataset.from_dict(made).with_format("numpy")
        contestants["datasets"] = Contestant(lambda: consume(with_datasets(held, n)), n)
    except ImportError:
        pass
    times = fastest(contestants, rounds)
    told = f"a table with {'nine columns of numbers and one of texts' if texts else 'ten columns of numbers'}"
    found = [
        ratio(f"{told}: times as fast as {peer}", times, peer, name, target=">= 3" if peer == "dicts" else "")
        for name in sources
        for peer in ("dicts", "datasets", "from_arrays")
    ]
    return found


def _tables(made: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    import pandas as pd
    import pyarrow as pa

    yield "pandas", pd.DataFrame(made)
    yield "Arrow", pa.table({name: pa.array(one) for name, one in made.items()})
    try:
        import polars as pl

        yield "polars", pl.DataFrame(made)
    except ImportError:
        pass


QUESTIONS: list[Callable[[int, int], list[Finding]]] = [partial(of_tables, texts=False), partial(of_tables, texts=True)]


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    return [one for question in QUESTIONS for one in question(*((5_000, 1) if quick else (100_000, 3)))]


if __name__ == "__main__":
    report(__doc__, benchmark)
