"""The same work in flowfn, by hand and in its peers: texts of three sources in JSON lines, taken in turn, as tokens in
packed rows with segment ids and positions, in batches.

Each gives batches of rows of the same documents, and where nothing cuts the stream in pieces the same rows; None stands
for a peer that is not installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import peers
from loaders import Passes
from more_itertools import chunked

import flowfn as ff
from flowfn.formats import read_jsonl

LENGTH, ROWS, BINS = 2048, 8, 64
NUMBERS = np.arange(LENGTH, dtype=np.int32)
SHARES = (0.5, 0.3, 0.2)
"""What the sources have of the tokens, where they are mixed by these."""
WORDS = ["the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "with", "his", "they", "from"]
MEANS = (5.0, 6.0, 6.5)
"""Logarithms of the median length of a text in each source, in bytes."""


@dataclass(frozen=True)
class Texts:
    """Sources, each in two files, and how a text becomes tokens."""

    paths: Sequence[Sequence[str]]
    tokens: Callable[[str], np.ndarray]

    def of_line(self, line: Any) -> np.ndarray:
        """The tokens of a line of JSON."""
        return self.of_record(json.loads(line))

    def of_record(self, record: Any) -> np.ndarray:
        """The tokens of a record."""
        return self.tokens(record["text"])


def written(folder: Path, texts: int) -> list[list[str]]:
    """Three sources of so many texts, the lengths of which are log-normal and shorter than a row."""
    rng = np.random.default_rng(0)
    paths: list[list[str]] = []
    for number, mean in enumerate(MEANS):
        lengths = np.clip(rng.lognormal(mean, 1, texts), 8, LENGTH - 48).astype(int)
        lines = [json.dumps({"id": i, "text": text_of(rng, n)}) + "\n" for i, n in enumerate(lengths.tolist())]
        paths.append([str(folder / f"{number}-{part}.jsonl") for part in range(2)])
        for part, path in enumerate(paths[-1]):
            Path(path).write_text("".join(lines[part * texts // 2 : (part + 1) * texts // 2]))
    return paths


def text_of(rng: np.random.Generator, length: int) -> str:
    """Words of English, so many letters."""
    return " ".join(np.asarray(WORDS)[rng.integers(len(WORDS), size=length // 3 + 1)].tolist())[:length]


def as_bytes(text: str) -> np.ndarray:
    """A text as the bytes of UTF-8."""
    return np.frombuffer(text.encode(), np.uint8)


def by_pairs() -> Callable[[str], np.ndarray]:
    """A tokenizer of byte pairs that was trained on the English that comes with Python, its reference."""
    from pydoc_data.topics import topics

    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(topics.values(), vocab_size=8000, show_progress=False)
    return partial(_of_pairs, tokenizer)


def _of_pairs(tokenizer: Any, text: str) -> np.ndarray:
    return np.array(tokenizer.encode(text).ids, np.uint16)


# flowfn


def flowfn(how: Any, texts: Texts) -> Iterable[Any]:
    """One process."""
    sources = [ff.pipe(read_jsonl(list(paths)), ff.map(texts.of_record)) for paths in texts.paths]
    return ff.pipe(ff.mix(*sources), ff.pack(LENGTH, how=how), ff.batch(ROWS))


def flowfn_by_tokens(texts: Texts) -> Iterable[Any]:
    """One process; sources have shares of the tokens, until one of them has ended."""
    sources = [ff.pipe(read_jsonl(list(paths)), ff.map(texts.of_record)) for paths in texts.paths]
    mixed = ff.mix(*sources, weights=SHARES, unit=len)
    return ff.pipe(mixed, ff.pack(LENGTH, how=ff.concat_then_split), ff.batch(ROWS))


def flowfn_processes(how: Any, texts: Texts, times: int = 1) -> Iterable[Any]:
    """Two processes, each of which packs half of every source and makes batches of it, as those of grain do; all of it
    so many times."""
    batches = ff.interleave(partial(_batches_of_part, how, texts), cycle=2)
    return ff.pipe(range(2 * times), batches, ff.prefetch(8, processes=2))


def _batches_of_part(how: Any, texts: Texts, number: int) -> Any:
    sources = [ff.pipe(read_jsonl(paths[number % 2]), ff.map(texts.of_record)) for paths in texts.paths]
    return ff.pipe(ff.mix(*sources), ff.pack(LENGTH, how=how), ff.batch(ROWS))


def seekable(steps: int) -> Any:
    """A mix of three sources that can be read from anywhere, packed into short rows, for more steps than those."""
    sources = [ff.pipe(range(number, 30 * steps, 3), ff.shuffle(), ff.map(_sequence)) for number in range(3)]
    return ff.pipe(ff.mix(*sources), ff.pack(64), ff.batch(ROWS))


def _sequence(number: int) -> np.ndarray:
    return np.full(number % 48 + 8, number)


# By hand


def by_loop(rows: Callable[[Iterable[np.ndarray]], Iterator[Any]], texts: Texts) -> Iterable[Any]:
    """What one writes without a library, in one thread."""

    def begin() -> Iterator[Any]:
        lines = zip(*(chain.from_iterable(map(open, paths)) for paths in texts.paths))
        return rows(texts.tokens(json.loads(line)["text"]) for line in chain.from_iterable(lines))

    return Passes(begin)


def filled_batches(documents: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Documents laid end to end, straight into the arrays of a batch."""
    batch = None
    row = used = segment = 0
    for document in documents:
        start = 0
        while start < len(document):
            if batch is None:
                batch = tokens, ids, positions = [
                    np.zeros((ROWS, LENGTH), dtype) for dtype in (document.dtype, np.int32, np.int32)
                ]
            n = min(len(document) - start, LENGTH - used)
            segment += 1
            tokens[row, used : used + n] = document[start : start + n]
            ids[row, used : used + n] = segment
            positions[row, used : used + n] = NUMBERS[:n]
            start, used = start + n, used + n
            if used == LENGTH:
                row, used, segment = row + 1, 0, 0
                if row == ROWS:
                    yield batch
                    batch, row = None, 0
    if batch is not None:
        yield [array[: row + (used > 0)] for array in batch]


def by_loop_by_tokens(texts: Texts) -> Iterable[Any]:
    """By hand: the source comes next that is furthest behind its share of the tokens."""

    def documents() -> Iterator[np.ndarray]:
        sources = [chain.from_iterable(map(open, paths)) for paths in texts.paths]
        given, heads = [0] * len(sources), [next(source) for source in sources]
        while True:
            turn = min(range(len(sources)), key=lambda source: given[source] / SHARES[source])
            tokens = texts.tokens(json.loads(heads[turn])["text"])
            given[turn] += len(tokens)
            yield tokens
            try:
                heads[turn] = next(sources[turn])
            except StopIteration:
                return

    return Passes(lambda: filled_batches(documents()))


def row_by_hand(data: Sequence[np.ndarray], row: list[tuple[int, int, int]]) -> list[np.ndarray]:
    """The arrays of a row of pieces."""
    tokens, ids, positions = (np.zeros(LENGTH, dtype) for dtype in (data[0].dtype, np.int32, np.int32))
    at = 0
    for segment, (index, start, stop) in enumerate(row, 1):
        end = at + stop - start
        tokens[at:end] = data[index][start:stop]
        ids[at:end] = segment
        positions[at:end] = NUMBERS[: stop - start]
        at = end
    return [tokens, ids, positions]


def fitted_batches(documents: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Whole documents by first fit."""
    for rows in chunked(by_hand.packed(LENGTH, documents, BINS), ROWS):
        yield [np.stack(arrays) for arrays in zip(*rows)]


# Grain


def grain(name: str, texts: Texts, workers: int = 0, times: int = 1) -> Iterable[Any] | None:
    """Grain: lines that are in memory, of which no thread reads ahead, packed by its own transformation; with workers,
    each of them packs its part."""
    module = peers.grain()
    if module is None:
        return None
    lines = [[line for path in paths for line in Path(path).read_bytes().splitlines()] for paths in texts.paths]
    parts = [module.MapDataset.source(one).map(partial(_named, texts)) for one in lines]
    options = module.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    dataset = module.MapDataset.mix(parts).repeat(times).to_iter_dataset(options)
    if name == "concat_then_split":
        packed = module.experimental.ConcatThenSplitIterDataset(dataset, length_struct={"tokens": LENGTH})
    else:
        packed = module.experimental.FirstFitPackIterDataset(
            dataset, length_struct={"tokens": LENGTH}, num_packing_bins=BINS, shuffle_bins=False
        )
    batches: Iterable[Any] = packed.batch(ROWS)
    if workers:
        batches = packed.batch(ROWS).mp_prefetch(
            module.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=4)
        )
    names = ("tokens", "tokens_segment_ids", "tokens_positions")
    return Passes(lambda: ([batch[one] for one in names] for batch in batches))


def _named(texts: Texts, line: bytes) -> dict[str, np.ndarray]:
    return {"tokens": texts.of_line(line)}


# datasets


def datasets(texts: Texts, workers: int = 0, times: int = 1) -> Iterable[Any] | None:
    """datasets, streaming: a batched map lays the texts of 1000 records end to end; with workers, torch's DataLoader
    reads a file of each source in each of them."""
    module = peers.datasets()
    if module is None:
        return None
    module.disable_progress_bars()
    parts = [
        module.load_dataset("json", data_files=list(paths), split="train", streaming=True) for paths in texts.paths
    ]
    mixed = module.interleave_datasets(parts, stopping_strategy="all_exhausted_without_replacement")
    rows = mixed.map(partial(_rows_of_many, texts), batched=True, batch_size=1000, remove_columns=["id", "text"])
    batches: Iterable[Any] = rows.repeat(times).batch(ROWS)
    if workers:
        loader = peers.torch().utils.data.DataLoader
        batches = loader(batches, batch_size=None, num_workers=workers, prefetch_factor=4)
    names = ("tokens", "segment_ids", "positions")
    return Passes(lambda: ([np.stack(batch[one]) for one in names] for batch in batches))


def _rows_of_many(texts: Texts, records: dict[str, list[Any]]) -> dict[str, list[Any]]:
    documents = list(map(texts.tokens, records["text"]))
    rows = [row for batch in filled_batches(documents) for row in zip(*batch)]
    return dict(zip(("tokens", "segment_ids", "positions"), map(list, zip(*rows))))
