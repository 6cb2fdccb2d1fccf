"""What does it cost to read a file through flowfn, next to a bare loop over the library that the format stands on?

Sequential and random reading, images and small records.
A ratio of 0.9 says that the flow is at least 0.9 times as fast.
"""

from __future__ import annotations

import pickle
import random
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff
from flowfn import formats
from flowfn.storage.bars import hushed

TARGET = ">= 0.9"


class Sizes(NamedTuple):
    """How many datapoints of each kind there are, and how many rounds are run."""

    small: int
    files: int
    images: int
    rounds: int


FULL, QUICK = Sizes(5_000, 1_000, 300, 30), Sizes(500, 50, 10, 2)


def datapoints(kind: str, sizes: Sizes) -> list[Any]:
    """Small records, files of images as they are, or images of a usual size."""
    rng = np.random.default_rng(0)
    if kind == "small":
        return [[number, f"name{number}", [0.5, 1.5]] for number in range(sizes.small)]
    if kind == "files":
        return [[rng.bytes(20_000), number] for number in range(sizes.files)]
    return [[rng.integers(0, 256, (224, 224, 3), np.uint8), number] for number in range(sizes.images)]


def compared(
    question: str, bare: Callable[[], object], ours: Callable[[], object], count: int, sizes: Sizes
) -> Finding:
    """How many times as fast as the bare loop the flow is."""
    times = fastest({"bare": Contestant(bare, count), "flowfn": Contestant(ours, count)}, sizes.rounds)
    return ratio(question, times, "bare", "flowfn", unit="µs", target=TARGET)


def at_random(flow: Any, order: list[int]) -> None:
    """Read single datapoints."""
    for index in order:
        flow[index]


def in_any_order(flow: Any, order: list[int]) -> Callable[[], None]:
    """Read datapoints as a shuffled pass does; the order is known before the clock runs."""
    return partial(consume, ff.subset(order, flow))


def of_lmdb(sizes: Sizes, folder: Path) -> list[Finding]:
    """LMDB: next to a cursor, or `get`, and the decoder of the same payloads."""
    import lmdb
    import msgpack

    from flowfn.formats.encoding import payloads

    findings = []
    for kind, form in product(("small", "files", "images"), ("pickle", "msgpack")):
        held, path = datapoints(kind, sizes), str(folder / f"{kind}-{form}.lmdb")
        formats.write_lmdb(path, held, encode=pickle.dumps if form == "pickle" else None)
        flow = formats.read_lmdb(path, allow_pickle=form == "pickle")
        copy = str(folder / f"{kind}-{form}-bare.lmdb")
        Path(copy).write_bytes(Path(path).read_bytes())  # LMDB opens a file once in a process
        environment = lmdb.open(copy, subdir=False, readonly=True, lock=False)
        loads = pickle.loads if form == "pickle" else partial(msgpack.unpackb, object_hook=payloads._without)
        keys = [b"%08d" % number for number in range(len(held))]
        order = random.Random(0).sample(range(len(held)), len(held))

        def sequential(environment: Any = environment, loads: Any = loads) -> None:
            with environment.begin(buffers=True) as transaction:
                for key, value in transaction.cursor():
                    if key != b"__keys__":
                        loads(value)

        def anywhere(environment: Any = environment, loads: Any = loads, keys: Any = keys, order: Any = order) -> None:
            with environment.begin(buffers=True) as transaction:
                for index in order:
                    loads(transaction.get(keys[index]))

        named = f"LMDB, {kind}, {form}"
        findings.append(compared(f"{named}: in order", sequential, partial(consume, flow), len(held), sizes))
        findings.append(compared(f"{named}: shuffled", anywhere, in_any_order(flow, order), len(held), sizes))
        if kind == "images":
            findings.append(compared(f"{named}: flow[i]", anywhere, partial(at_random, flow, order), len(held), sizes))
    return findings


def of_tfrecord(sizes: Sizes, folder: Path) -> list[Finding]:
    """TFRecord: next to a loop that reads the same frames, checks both checksums and decodes."""
    import struct

    import crc32c

    from flowfn.formats.tfrecord.examples import from_example

    def masked(crc: int) -> int:
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    def frame(file: Any) -> bytes:
        head = file.read(12)
        if head:
            length, checksum = struct.unpack("<QI", head)
            assert masked(crc32c.crc32c(head[:8])) == checksum
            payload = file.read(length)
            assert masked(crc32c.crc32c(payload)) == struct.unpack("<I", file.read(4))[0]
            return payload
        return b""

    def sequential(path: str, loads: Any) -> None:
        with open(path, "rb") as file:
            while payload := frame(file):
                loads(payload)

    def anywhere(path: str, loads: Any, places: list[int]) -> None:
        with open(path, "rb") as file:
            for place in places:
                file.seek(place)
                loads(frame(file))

    def as_dict(datapoint: Any) -> dict[str, Any]:
        return {
            str(number): value.tobytes() if isinstance(value, np.ndarray) else value
            for number, value in enumerate(datapoint)
        }

    findings = []
    for kind, form in (("small", "pickle"), ("small", "Example"), ("images", "pickle"), ("images", "Example")):
        held, path = datapoints(kind, sizes), str(folder / f"{kind}-{form}.tfrecord")
        encode: Any = pickle.dumps if form == "pickle" else lambda datapoint: formats.as_example(as_dict(datapoint))
        formats.write_tfrecord(path, held, encode=encode)
        flow, loads = (
            formats.read_tfrecord(path, allow_pickle=form == "pickle"),
            pickle.loads if form == "pickle" else from_example,
        )
        order = random.Random(0).sample(range(len(held)), len(held))
        starts = flow.part.object.index(0).tolist()
        places, named = [starts[index] for index in order], f"TFRecord, {kind}, {form}"
        findings.append(
            compared(f"{named}: in order", partial(sequential, path, loads), partial(consume, flow), len(held), sizes)
        )
        findings.append(
            compared(
                f"{named}: shuffled",
                partial(anywhere, path, loads, places),
                in_any_order(flow, order),
                len(held),
                sizes,
            )
        )
    return findings


def of_webdataset(sizes: Sizes, folder: Path) -> list[Finding]:
    """Tar shards in WebDataset's layout: next to a loop over Python's tarfile,
    whose files are not even put together to samples."""
    import tarfile

    findings = []
    for kind, size, count in (("small", 2_000, sizes.small), ("images", 150_000, sizes.images)):
        path = str(folder / f"{kind}.tar")
        data = np.random.default_rng(0).bytes(size)
        formats.write_webdataset(path, [{"jpg": data, "cls": number} for number in range(count)])
        order = random.Random(0).sample(range(count), count)

        def sequential(mode: str, path: str = path) -> None:
            with tarfile.open(path, mode) as archive:
                for member in archive:
                    archive.extractfile(member).read()  # type: ignore[union-attr]

        def anywhere(path: str = path, order: list[int] = order) -> None:
            with tarfile.open(path) as archive:
                members = archive.getmembers()
                for index in order:
                    for member in members[2 * index : 2 * index + 2]:
                        archive.extractfile(member).read()  # type: ignore[union-attr]

        named, read = f"WebDataset, {kind}", partial(formats.read_webdataset, path, decode=False)
        flow, stream = read(), read(index=False)
        findings.append(compared(f"{named}: in order", partial(sequential, "r"), partial(consume, flow), count, sizes))
        findings.append(
            compared(
                f"{named}: in order, the first time",
                partial(sequential, "r"),
                lambda read=read: consume(read()),
                count,
                sizes,
            )
        )
        findings.append(
            compared(f"{named}: as a stream", partial(sequential, "r|"), partial(consume, stream), count, sizes)
        )
        findings.append(compared(f"{named}: shuffled", anywhere, in_any_order(flow, order), count, sizes))
    return findings


def of_columns(sizes: Sizes, folder: Path) -> list[Finding]:
    """HDF5, Parquet, npz: next to loops over h5py, pyarrow and numpy that go piece by piece, as their manuals say."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows, numbers = np.random.default_rng(0).integers(0, 255, (sizes.small, 28, 28), np.uint8), np.arange(sizes.small)
    order = random.Random(0).sample(range(sizes.small), sizes.small)
    np.savez(folder / "a.npz", x=rows, y=numbers)
    loaded, flow = np.load(folder / "a.npz"), formats.read_npz(folder / "a.npz")
    x, y = loaded["x"], loaded["y"]

    def copied() -> None:
        consume({"x": x[at : at + 128].copy(), "y": y[at : at + 128].copy()} for at in range(0, sizes.small, 128))

    findings = [
        compared(
            "npz: in order",
            lambda: consume({"x": a, "y": b} for a, b in zip(x, y)),
            partial(consume, flow),
            sizes.small,
            sizes,
        ),
        compared("npz: batches", copied, partial(consume, ff.pipe(flow, ff.batch(128))), sizes.small, sizes),
    ]
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=rows, chunks=(64, 28, 28))
    stored, flow = h5py.File(folder / "a.h5")["x"], formats.read_hdf5(folder / "a.h5", "x")
    findings += [
        compared(
            "HDF5: in order",
            lambda: consume(row for at in range(0, sizes.small, 64) for row in stored[at : at + 64]),
            partial(consume, flow),
            sizes.small,
            sizes,
        ),
        compared(
            "HDF5: shuffled",
            lambda: consume(stored[i] for i in order[: sizes.small // 10]),
            in_any_order(flow, order[: sizes.small // 10]),
            sizes.small // 10,
            sizes,
        ),
    ]
    table = pa.Table.from_pylist([{"id": i, "text": f"some text {i}", "score": i / 3} for i in range(sizes.small)])
    parquet.write_table(table, folder / "a.parquet", row_group_size=1_000)
    opened, flow = parquet.ParquetFile(folder / "a.parquet"), formats.read_parquet(folder / "a.parquet")

    def batches() -> None:
        consume(row for batch in opened.iter_batches(1_000) for row in batch.to_pylist())

    def slices() -> None:
        consume(table.slice(i, 1).to_pylist()[0] for i in order)

    findings.append(compared("Parquet: in order", batches, partial(consume, flow), sizes.small, sizes))
    findings.append(
        compared("Parquet: shuffled, next to a table in memory", slices, in_any_order(flow, order), sizes.small, sizes)
    )
    return findings


def of_lines(sizes: Sizes, folder: Path) -> list[Finding]:
    """CSV and JSON lines: next to Python's own modules."""
    import csv
    import json

    rows = [{"id": str(i), "text": f"some text {i}", "score": str(i / 3)} for i in range(sizes.small)]
    order = random.Random(0).sample(range(sizes.small), sizes.small)
    formats.write_csv(folder / "a.csv", rows)
    formats.write_jsonl(folder / "a.jsonl", rows)
    texts, lines = formats.read_csv(folder / "a.csv"), formats.read_jsonl(folder / "a.jsonl")
    starts = lines.part.object.handle.starts.tolist()

    def csv_rows() -> None:
        with open(folder / "a.csv", newline="") as file:
            reader = csv.reader(file)
            names = next(reader)
            consume(dict(zip(names, row)) for row in reader)

    def json_rows() -> None:
        with open(folder / "a.jsonl", "rb") as file:
            consume(map(json.loads, file))

    def json_anywhere() -> None:
        with open(folder / "a.jsonl", "rb") as file:
            for index in order:
                file.seek(starts[index])
                json.loads(file.readline())

    return [
        compared("CSV: in order", csv_rows, partial(consume, texts), sizes.small, sizes),
        compared("JSON lines: in order", json_rows, partial(consume, lines), sizes.small, sizes),
        compared("JSON lines: shuffled", json_anywhere, in_any_order(lines, order), sizes.small, sizes),
    ]


QUESTIONS: list[Callable[[Sizes, Path], list[Finding]]] = [of_lmdb, of_tfrecord, of_webdataset, of_columns, of_lines]
"""One for each format; a function that writes a file to a folder, reads it both ways, and tells."""


def answered(question: Callable[[Sizes, Path], list[Finding]], sizes: Sizes, folder: Path) -> list[Finding]:
    """What there is to tell of a format; a line says so where its library is absent."""
    try:
        return question(sizes, folder)
    except ImportError as error:
        return [Finding((question.__doc__ or "").partition(":")[0], f"{error.name} absent", None, target=TARGET)]


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    with tempfile.TemporaryDirectory() as folder, hushed():
        return [
            finding for question in QUESTIONS for finding in answered(question, QUICK if quick else FULL, Path(folder))
        ]


if __name__ == "__main__":
    report(__doc__, benchmark)
