"""What do scattered rows of small chunks cost through flowfn, next to the best call of the library:
`oindex`, and lists of indices?

Batches of 32 rows at random, and in order, of arrays in HDF5 and Zarr.
A ratio of 1.5 says that the flow takes 1.5 times as long.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Contestant, Finding, consume, fastest, ratio, report

import flowfn as ff
from flowfn import formats

TARGET = "<= 1.5"
ROWS, BATCH = 4_000, 32
CHUNKS = {"1 row": 1, "7 rows": 7, "64 rows": 64}


def compared(question: str, library: Any, at_random: Any, flow: Any, count: int, rounds: int) -> list[Finding]:
    """How much longer the flow takes than the library, for batches at random and in order."""
    rng = np.random.default_rng(0)
    picks = [np.sort(rng.choice(ROWS, BATCH, replace=False)) for _ in range(count)]
    contestants = {
        "at random": (
            lambda: [at_random(pick) for pick in picks],
            partial(consume, ff.pipe(flow, ff.subset(np.concatenate(picks)), ff.batch(BATCH))),
        ),
        "in order": (
            lambda: [library[at * BATCH : (at + 1) * BATCH] for at in range(count)],
            partial(consume, ff.pipe(flow, ff.take(count * BATCH), ff.batch(BATCH))),
        ),
    }
    findings = []
    for how, (theirs, ours) in contestants.items():
        times = fastest({"library": Contestant(theirs, count), "flowfn": Contestant(ours, count)}, rounds)
        findings.append(
            ratio(
                f"{question}: batches {how}, time over the library's",
                times,
                "flowfn",
                "library",
                unit="µs",
                target=TARGET,
            )
        )
    return findings


def of_hdf5(folder: Path, count: int, rounds: int) -> list[Finding]:
    """HDF5: next to h5py."""
    import h5py

    findings = []
    for name, chunk in CHUNKS.items():
        path = folder / f"{chunk}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=np.arange(50 * ROWS).reshape(ROWS, 50), chunks=(chunk, 50))
        stored = h5py.File(path)["x"]
        flow = formats.read_hdf5(path, "x")
        findings += compared(f"HDF5, chunks of {name}", stored, stored.__getitem__, flow, count, rounds)
    return findings


def of_zarr(folder: Path, count: int, rounds: int) -> list[Finding]:
    """Zarr: next to zarr; chunks of one row in shards too."""
    import zarr

    findings = []
    for name, chunk, shards in [
        *((name, chunk, None) for name, chunk in CHUNKS.items()),
        ("1 row, in shards", 1, (1000, 50)),
    ]:
        path = str(folder / f"{chunk}-{bool(shards)}.zarr")
        stored = zarr.create_array(path, data=np.arange(50 * ROWS).reshape(ROWS, 50), chunks=(chunk, 50), shards=shards)
        flow = formats.read_zarr(path)
        findings += compared(
            f"Zarr, chunks of {name}", stored, lambda pick, of=stored: of.oindex[pick], flow, count, rounds
        )
    return findings


def benchmark(quick: bool) -> list[Finding]:
    """All findings; a line says so where a library is absent."""
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        for question in (of_hdf5, of_zarr):
            try:
                findings += question(Path(folder), *(2, 1) if quick else (20, 10))
            except ImportError as error:
                findings.append(
                    Finding((question.__doc__ or "").partition(":")[0], f"{error.name} absent", None, target=TARGET)
                )
    return findings


if __name__ == "__main__":
    report(__doc__, benchmark)
