"""What does it cost to feed a language model: JSON lines -> tokens -> a mix of three sources -> packed rows -> batches?

Next to the loop that one would write by hand, which makes segment ids and positions too, Grain and datasets, in one
process and with two. That all pack the same tokens, and the same rows, is looked at before anything is timed. A figure
in million tokens a second, a ratio of 1.2 says that flowfn is 1.2 times as fast.
"""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import texts
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff
from flowfn.parallel.crossing.transport import pack_value, unpack_value

Contestants = dict[str, Contestant]


class Sizes(NamedTuple):
    """Texts of each source, those that a tokenizer gets, sequences to be packed, the step to go on from, and rounds."""

    texts: int
    few: int
    sequences: int
    step: int
    rounds: int


FULL, QUICK = Sizes(8000, 1000, 40_000, 100_000, 3), Sizes(1000, 100, 2000, 300, 2)
UNIT = "ns"
LONG = 100
"""Times that all texts are read in a pass that nobody reads to its end."""


def joined(batches: Iterable[Any]) -> list[np.ndarray]:
    """All rows, ids and positions of some batches."""
    return [np.concatenate(arrays) for arrays in zip(*batches)]


def checked(made: Mapping[str, Iterable[Any] | None], others: set[str]) -> Contestants:
    """Those that are there, once it is certain that all pack the same tokens into rows of one length, and all but the
    `others` the same rows."""
    rows = {name: joined(batches) for name, batches in made.items() if batches is not None}
    first = next(iter(rows.values()))
    real = int((first[1] > 0).sum())
    for name, arrays in rows.items():
        assert int((arrays[1] > 0).sum()) == real, f"{name} packs other tokens"
        assert arrays[0][arrays[1] > 0].sum() == first[0][first[1] > 0].sum(), f"{name} packs other tokens"
        if name not in others:
            assert all(map(np.array_equal, arrays, first)), f"{name} packs other rows"
    return {name: Contestant(partial(consume, batches), real) for name, batches in made.items() if batches is not None}


def told(question: str, times: Mapping[str, float]) -> Finding:
    """How fast each was, without a target."""
    words = ", ".join(f"{name} {1e-6 / seconds:.3g}" for name, seconds in times.items())
    return Finding(f"{question}: million tokens a second", words, 1e-6 / times["flowfn"], "M/s")


def in_one_process(sizes: Sizes, folder: Path) -> list[Finding]:
    """Bytes as tokens, in one process."""
    work = texts.Texts(texts.written(folder, sizes.texts), texts.as_bytes)
    laid = checked(
        {
            "flowfn": texts.flowfn(ff.concat_then_split, work),
            "by hand": texts.by_loop(texts.filled_batches, work),
            "Grain": texts.grain("concat_then_split", work),
            "datasets": texts.datasets(work),
        },
        {"datasets"},  # it cuts the rows of each thousand records
    )
    times, question = fastest(laid, sizes.rounds), "bytes, laid end to end"
    findings = [
        told(question, times),
        ratio(question, times, "by hand", "flowfn", unit=UNIT, target=">= 0.6"),
        ratio(question, times, "Grain", "flowfn", unit=UNIT, target=">= 4"),
        ratio(question, times, "datasets", "flowfn", unit=UNIT, target=">= 4"),
    ]
    fitted = checked(
        {
            "flowfn": texts.flowfn(ff.first_fit, work),
            "by hand": texts.by_loop(texts.fitted_batches, work),
            "Grain": texts.grain("first_fit", work),
        },
        set(),
    )
    times, question = fastest(fitted, sizes.rounds), "bytes, whole texts by first fit"
    return [
        *findings,
        told(question, times),
        ratio(question, times, "by hand", "flowfn", unit=UNIT, target=">= 0.6"),
        ratio(question, times, "Grain", "flowfn", unit=UNIT, target=">= 5"),
    ]


def mixed_by_tokens(sizes: Sizes, folder: Path) -> list[Finding]:
    """Bytes as tokens, of which each source has a share, in one process; the other loops know no such mix."""
    work = texts.Texts(texts.written(folder, sizes.texts), texts.as_bytes)
    contestants = {
        name: Contestant(partial(consume, batches), sum(int((ids > 0).sum()) for _, ids, _ in batches))
        for name, batches in (("flowfn", texts.flowfn_by_tokens(work)), ("by hand", texts.by_loop_by_tokens(work)))
    }
    times, question = fastest(contestants, sizes.rounds), "bytes, mixed by tokens, laid end to end"
    return [told(question, times), ratio(question, times, "by hand", "flowfn", unit=UNIT, target=">= 0.6")]


def with_two_processes(sizes: Sizes, folder: Path) -> list[Finding]:
    """Bytes as tokens, two processes each, in the middle of a long pass: what it takes to start them is not counted."""
    work = texts.Texts(texts.written(folder, sizes.texts), texts.as_bytes)

    def made(times: int) -> dict[str, Iterable[Any] | None]:
        return {
            "flowfn": texts.flowfn_processes(ff.concat_then_split, work, times),
            "Grain": texts.grain("concat_then_split", work, 2, times),
            "datasets": texts.datasets(work, 2, times),
        }

    there = checked(made(1), {"flowfn", "Grain", "datasets"})
    stretch = next(iter(there.values())).datapoints // (texts.ROWS * texts.LENGTH)
    passes = {name: iter(batches) for name, batches in made(LONG).items() if batches is not None}
    contestants = {
        name: Contestant(lambda batches=batches: consume(islice(batches, stretch)), stretch * texts.ROWS * texts.LENGTH)
        for name, batches in passes.items()
    }
    fastest(contestants, 1)  # what was made before anybody looked
    times, question = fastest(contestants, sizes.rounds), "bytes, laid end to end, two processes"
    return [
        told(question, times),
        ratio(question, times, "Grain", "flowfn", unit=UNIT, target=">= 6"),
        ratio(question, times, "datasets", "flowfn", unit=UNIT, target=">= 6"),
    ]


def with_a_tokenizer(sizes: Sizes, folder: Path) -> list[Finding]:
    """Byte pairs as tokens, by a tokenizer that was trained on English."""
    work = texts.Texts(texts.written(folder, sizes.few), texts.by_pairs())
    contestants = checked(
        {
            "flowfn": texts.flowfn(ff.concat_then_split, work),
            "by hand": texts.by_loop(texts.filled_batches, work),
            "Grain": texts.grain("concat_then_split", work),
            "datasets": texts.datasets(work),
        },
        {"datasets"},
    )
    times, question = fastest(contestants, sizes.rounds), "byte pairs, laid end to end"
    return [
        told(question, times),
        ratio(question, times, "by hand", "flowfn", unit=UNIT),
        ratio(question, times, "Grain", "flowfn", unit=UNIT),
        ratio(question, times, "datasets", "flowfn", unit=UNIT),
    ]


def pack_alone(sizes: Sizes, folder: Path) -> list[Finding]:
    """pack over a list of arrays, next to its packer on a list of lengths, and to what makes the arrays of its rows."""
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 1, sizes.sequences), 1, texts.LENGTH).astype(int).tolist()
    data = [np.zeros(length, np.uint16) for length in lengths]
    findings = []
    for packer in (ff.first_fit, ff.best_fit, ff.concat_then_split):
        contestants = {
            "pack": Contestant(partial(consume, ff.pack(texts.LENGTH, data, how=packer)), len(data)),
            "its packer": Contestant(lambda packer=packer: consume(packer(lengths, texts.LENGTH)), len(data)),
            "its packer, and the rows by hand": Contestant(
                lambda packer=packer: consume(map(partial(texts.row_by_hand, data), packer(lengths, texts.LENGTH))),
                len(data),
            ),
        }
        times = fastest(contestants, sizes.rounds)
        question = f"pack alone, a sequence, {packer.__name__}"
        for other in ("its packer", "its packer, and the rows by hand"):
            findings.append(ratio(question, times, "pack", other, unit=UNIT, target="<= 1.3"))
    return findings


def crossing(sizes: Sizes, folder: Path) -> list[Finding]:
    """What a worker process sends of packed rows, as it is made there and made again here; their arrays are small."""
    rows = list(ff.pack(texts.LENGTH, [np.zeros(500, np.uint8)] * 4 * texts.ROWS, how=ff.concat_then_split))
    parcel, plain = pack_value(rows), pickle.dumps(rows, 5)
    contestants = {
        "sent": Contestant(lambda: [pack_value(rows) for _ in range(100)], 100 * len(rows)),
        "sent by pickle": Contestant(lambda: [pickle.dumps(rows, 5) for _ in range(100)], 100 * len(rows)),
        "received": Contestant(lambda: [unpack_value(parcel) for _ in range(100)], 100 * len(rows)),
        "received by pickle": Contestant(lambda: [pickle.loads(plain) for _ in range(100)], 100 * len(rows)),
    }
    times = fastest(contestants, 10 * sizes.rounds)
    question = "a packed row between processes"
    return [
        ratio(question, times, "sent by pickle", "sent", unit=UNIT),
        ratio(question, times, "received by pickle", "received", unit=UNIT),
    ]


def resuming(sizes: Sizes, folder: Path) -> list[Finding]:
    """A pass that goes on from a late step: how soon the next batch is there, and how large the state is."""
    whole = texts.seekable(sizes.step)
    with whole.run() as iterator:
        consume(islice(iterator, sizes.step))
        state = json.dumps(iterator.state_dict())
        expected = next(iterator)
    best = float("inf")
    for _ in range(max(sizes.rounds, 3)):
        start = perf_counter()
        made = next(iter(texts.seekable(sizes.step).load_state_dict(json.loads(state))))
        best = min(best, perf_counter() - start)
        assert all(map(np.array_equal, made, expected))
    return [
        Finding(f"going on at step {sizes.step}", "until the next batch is there", best * 1e3, "ms", "< 50"),
        Finding(f"going on at step {sizes.step}", "the state, as JSON", len(state) / 1e3, "kB", "< 2"),
    ]


QUESTIONS: list[Callable[[Sizes, Path], list[Finding]]] = [
    in_one_process,
    mixed_by_tokens,
    with_two_processes,
    with_a_tokenizer,
    pack_alone,
    crossing,
    resuming,
]
"""Functions that write what they need to a folder, and tell."""


def answered(question: Callable[[Sizes, Path], list[Finding]], sizes: Sizes) -> list[Finding]:
    """What a question finds; a line says so where its library is absent."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return question(sizes, Path(folder))
        except ImportError as error:
            return [Finding((question.__doc__ or "").partition(":")[0], f"{error.name} absent", None)]


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    return [finding for question in QUESTIONS for finding in answered(question, QUICK if quick else FULL)]


if __name__ == "__main__":
    report(__doc__, benchmark)
