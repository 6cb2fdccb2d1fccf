"""The table of examples/formats.md, cell by cell: readers and writers keep what is promised,
and what is not promised is not there."""

import functools
import inspect
import itertools
import os
import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_by_others import saved_dataset

import flowfn as ff
from flowfn import formats
from flowfn.formats.encoding.messages import datum
from flowfn.formats.lmdb import keyvalue
from flowfn.formats.tfrecord import writing as tfrecord_writing
from flowfn.testing import same

pytestmark = pytest.mark.timeout(60)

PAGE = Path(__file__).parents[2] / "examples/formats.md"
NUMBERS = range(9)


def table():
    """The cells of the page, by format and promise."""
    lines = [line for line in PAGE.read_text().split("## What each promises")[1].splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


TABLE = table()
CELLS = [(name, promise, said) for name, cells in TABLE.items() for promise, said in cells.items()]


def of(promise):
    """The cells of a column, for the formats for which it means something."""
    cells = [(name, said) for name, of_what, said in CELLS if of_what == promise and said != "-"]
    return pytest.mark.parametrize(("name", "said"), cells, ids=[name for name, _ in cells])


def kept(said, good):
    """Whether what was tried is what the table says."""
    assert said in ("yes", "no")
    assert good is (said == "yes")


def written_by_caffe(path, flow, overwrite=False):
    import lmdb

    message = datum("test", "lmdb")
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, label in enumerate(flow):
            one = message(channels=1, height=1, width=1, data=bytes([label]), label=label)
            transaction.put(b"%08d" % number, one.SerializeToString())


def saved_by_datasets(path, flow, overwrite=False):
    saved_dataset(path, [{"x": number} for number in flow])


def object_array(path):
    np.save(path, np.array([None, 1], object), allow_pickle=True)


def object_arrays(path):
    with open(path, "wb") as file:
        np.savez(file, x=np.array([None, 1], object))


@dataclass(frozen=True)
class Format:
    """A reader, a writer, and what they read and write;
    `number` finds the number in a datapoint that was made of it."""

    ending: str
    write: Callable[..., Any]
    read: Callable[..., Any]
    make: Callable[[int], Any] = lambda number: {"x": np.full(3, number, np.int64)}
    number: Callable[[Any], int] = lambda row: int(row["x"][0])
    packed: Callable[..., Any] | None = None  # writes what is compressed
    suffix: str = ""
    unpacked: Callable[..., Any] | None = None  # reads it
    pickled: Callable[[str], Any] | None = None
    makes: bool = True  # the writer is one of the package's

    def made(self, path, numbers=NUMBERS):
        self.write(path, [self.make(number) for number in numbers])
        return path

    def numbers(self, flow):
        return [self.number(datapoint) for datapoint in flow]


def text(name, write, read, **options):
    return Format(name, write, read, packed=write, suffix=".gz", **options)


def with_options(function, **options):
    """The same function, under its name."""
    return functools.update_wrapper(functools.partial(function, **options), function)


FORMATS = {
    "CSV": text("csv", formats.write_csv, formats.read_csv, make=lambda n: {"x": n}, number=lambda row: int(row["x"])),
    "JSON lines": text("jsonl", formats.write_jsonl, formats.read_jsonl, make=lambda n: n, number=int),
    "SVMlight": text(
        "svm",
        formats.write_svmlight,
        formats.read_svmlight,
        make=lambda n: [([0], [1.0]), n],
        number=lambda row: int(row[1]),
    ),
    "npy": Format(
        "npy",
        formats.write_npy,
        formats.read_npy,
        make=lambda n: np.full(3, n, np.int64),
        number=lambda row: int(row[0]),
        pickled=object_array,
    ),
    "npz": Format(
        "npz",
        formats.write_npz,
        formats.read_npz,
        packed=functools.partial(formats.write_npz, compressed=True),
        pickled=object_arrays,
    ),
    "tokens": Format(
        "bin",
        with_options(formats.write_tokens, dtype="uint16", header="llm.c"),
        with_options(formats.read_tokens, dtype=None, length=3),
        make=lambda n: np.full(3, n, np.uint16),
        number=lambda row: int(row[0]),
    ),
    "Megatron-LM": Format(
        "idx",
        with_options(formats.write_megatron, dtype="uint16"),
        formats.read_megatron,
        make=lambda n: np.full(3, n, np.uint16),
        number=lambda document: int(document[0]),
    ),
    "HDF5": Format(
        "h5", formats.write_hdf5, formats.read_hdf5, packed=functools.partial(formats.write_hdf5, compression="gzip")
    ),
    "Zarr": Format("zarr", formats.write_zarr, formats.read_zarr, packed=formats.write_zarr),
    "Parquet": Format("parquet", formats.write_parquet, formats.read_parquet, packed=formats.write_parquet),
    "Arrow": Format(
        "arrow",
        formats.write_arrow,
        formats.read_arrow,
        packed=functools.partial(formats.write_arrow, compression="zstd"),
    ),
    "Hugging Face's folders": Format(
        "saved",
        saved_by_datasets,
        formats.read_hugging_face,
        make=lambda n: n,
        number=lambda row: row["x"],
        makes=False,
    ),
    "TFRecord": Format(
        "tfrecord",
        formats.write_tfrecord,
        formats.read_tfrecord,
        packed=functools.partial(formats.write_tfrecord, compression="gzip"),
        unpacked=functools.partial(formats.read_tfrecord, compression="gzip"),
        pickled=lambda path: formats.write_tfrecord(path, [1], encode=pickle.dumps),
    ),
    "WebDataset": Format(
        "tar",
        formats.write_webdataset,
        formats.read_webdataset,
        make=lambda n: {"cls": n},
        number=lambda sample: sample["cls"],
        packed=formats.write_webdataset,
        suffix=".gz",
        pickled=lambda path: formats.write_webdataset(path, [{"pyd": 1}]),
    ),
    "LMDB": Format(
        "lmdb",
        formats.write_lmdb,
        formats.read_lmdb,
        pickled=lambda path: formats.write_lmdb(path, [1], encode=pickle.dumps),
    ),
    "Caffe's LMDB": Format(
        "mdb", written_by_caffe, formats.read_caffe_lmdb, make=lambda n: n, number=lambda row: row[1], makes=False
    ),
}


def test_the_page_has_a_row_for_every_reader_and_writer():
    assert set(TABLE) == {*FORMATS, "write_shards"}
    functions = {name for name in formats.__all__ if name.startswith(("read_", "write_"))}
    of_rows = {one.__name__ for kind in FORMATS.values() for one in (kind.read, kind.write)} | {"write_shards"}
    assert functions <= of_rows
    assert {promise for _, promise, _ in CELLS} == {
        *("lists", "patterns", "URLs", "compressed", "random access", "batched", "workers"),
        *("endless refused", "resume", "damaged", "pickles"),
    }


@of("lists")
def test_lists(name, said, tmp_path):
    kind = FORMATS[name]
    paths = [kind.made(tmp_path / f"{number}.{kind.ending}", [number, number + 10]) for number in (2, 1)]
    kept(said, kind.numbers(kind.read(paths)) == [2, 12, 1, 11])
    kept(said, kind.numbers(kind.read(list(map(str, paths)))) == [2, 12, 1, 11])


@of("patterns")
def test_patterns(name, said, tmp_path):
    kind = FORMATS[name]
    for number in (10, 9, 8):
        kind.made(tmp_path / f"{number}.{kind.ending}", [number, number + 10])
    for pattern in ("*", "?*", "[0-9]*", "{8..10}", "{8,9,10}"):
        kept(said, kind.numbers(kind.read(f"{tmp_path}/{pattern}.{kind.ending}")) == [8, 18, 9, 19, 10, 20])


@of("URLs")
def test_urls(name, said, tmp_path):
    kind, memory = FORMATS[name], pytest.importorskip("fsspec").filesystem("memory")
    urls = [f"memory://promises/{number}.{kind.ending}" for number in (1, 2)]
    try:
        if said == "no":
            with pytest.raises(ValueError, match="must be a local one"):
                kind.read(urls[0])
            if kind.makes:
                with pytest.raises(ValueError, match="must be a local one"):
                    kind.made(urls[0])
            return
        for number, url in enumerate(urls):
            kind.made(url, [number, number + 10])
        kept(said, kind.numbers(kind.read(urls[1])) == [1, 11])
        kept(said, kind.numbers(kind.read(urls)) == [0, 10, 1, 11])
        if name != "Zarr":  # a store is a folder, and what is behind a URL lists files
            kept(said, kind.numbers(kind.read(f"memory://promises/*.{kind.ending}")) == [0, 10, 1, 11])
    finally:
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


@of("compressed")
def test_compressed(name, said, tmp_path):
    kind = FORMATS[name]
    kept(said, kind.packed is not None)
    if kind.packed is None:
        assert "compression" not in inspect.signature(kind.read).parameters
        return
    path = tmp_path / f"a.{kind.ending}{kind.suffix}"
    kind.packed(path, [kind.make(number % 3) for number in range(3000)])
    assert kind.numbers((kind.unpacked or kind.read)(path)) == [number % 3 for number in range(3000)]
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    plain = tmp_path / f"plain.{kind.ending}"
    if name not in ("Zarr", "Parquet"):  # whose writers compress by themselves
        kind.write(plain, [kind.make(number % 3) for number in range(3000)])
        assert size < plain.stat().st_size


@of("random access")
def test_random_access(name, said, tmp_path):
    kind = FORMATS[name]
    flow = kind.read(kind.made(tmp_path / f"a.{kind.ending}"))
    kept(said, flow.seekable)
    assert len(flow) == len(NUMBERS)
    assert kind.numbers([flow[5], flow[-1], *flow[2:4]]) == [5, 8, 2, 3]
    assert kind.numbers(ff.pipe(flow, ff.shuffle())) == list(ff.pipe(NUMBERS, ff.shuffle()))


@of("batched")
def test_batched(name, said, tmp_path):
    kind = FORMATS[name]
    paths = [kind.made(tmp_path / f"{number}.{kind.ending}", range(3 * number, 3 * number + 3)) for number in range(3)]
    for flow in (kind.read(kind.made(tmp_path / f"all.{kind.ending}")), kind.read(paths)):
        for stages in ([], [ff.shuffle()], [ff.shard(0, 1)]):
            rows = ff.pipe(flow, *stages)
            assert kind.numbers(rows.run(epoch=0)) == list(ff.pipe(NUMBERS, *stages))
            batches = ff.pipe(list(rows.run(epoch=0)), ff.batch(4))
            assert same(list(ff.pipe(rows, ff.batch(4)).run(epoch=0)), list(batches))
            kept(said, rows.node.gathers)


@pytest.mark.long
@pytest.mark.timeout(120)
@of("workers")
def test_workers(name, said, tmp_path):
    kind = FORMATS[name]
    paths = [kind.made(tmp_path / f"{number}.{kind.ending}", range(3 * number, 3 * number + 3)) for number in range(3)]
    flow = kind.read(paths)
    kept(said, len(pickle.dumps(flow)) < 5000)
    here = list(ff.pipe(flow, ff.shuffle(), ff.map(kind.number)))
    assert sorted(here) == list(NUMBERS)
    assert list(ff.pipe(flow, ff.shuffle(), ff.map(kind.number), ff.prefetch(2, processes=2))) == here
    assert same(list(ff.pipe(flow, ff.prefetch(2, threads=2))), list(flow))


ENDLESS = {
    "cycle": lambda make: ff.cycle([make(1), make(2)]),
    "filtered": lambda make: ff.filter(lambda row: True, ff.cycle([make(1)])),
    "flat": lambda make: ff.flat_map(lambda row: [row], ff.cycle([make(1)])),
    "mapped": lambda make: ff.pipe(itertools.count(), ff.map(make)),
    "shared": lambda make: ff.pipe(ff.cycle([make(1)]), ff.filter(lambda row: True), ff.shard(0, 2), ff.prefetch(2)),
    "with others": lambda make: ff.concat([make(1)], ff.cycle([make(2)])),
}


@of("endless refused")
@pytest.mark.parametrize("how", ENDLESS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_endless_flows_are_refused_before_anything_is_written(name, said, how, overwrite, tmp_path):
    kind = FORMATS.get(name, FORMATS["JSON lines"])
    write = functools.partial(formats.write_shards, kind.write, shards=2) if name == "write_shards" else kind.write
    path = tmp_path / (f"{{shard}}.{kind.ending}" if name == "write_shards" else f"a.{kind.ending}")
    with pytest.raises(
        ValueError, match=r"write_\w+\(\): the flow must have an end, but .* is endless; take\(n\)"
    ) as caught:
        write(path, ENDLESS[how](kind.make), overwrite=overwrite)
    kept(said, os.listdir(tmp_path) == [])
    assert "__notes__" not in vars(caught.value)
    write(path, ff.take(3, ENDLESS[how](kind.make)))


@of("resume")
def test_resume(name, said, tmp_path, monkeypatch):
    """The functions of `test_resuming` try it; here, that there is such an option, or none, and that it finishes."""
    monkeypatch.setattr(keyvalue, "TRANSACTION_BYTES", 1)
    monkeypatch.setattr(tfrecord_writing, "JOURNAL_SECONDS", -1)
    write = formats.write_shards if name == "write_shards" else FORMATS[name].write
    kept(said, "resume" in inspect.signature(write).parameters)
    if said == "no":
        return
    monkeypatch.setenv("BROKEN_OFF", "yes")

    def breaking(number):
        if number == 7 and "BROKEN_OFF" in os.environ:
            raise OSError("broken off")
        return number

    flow, shards = ff.map(breaking, range(9)), name == "write_shards"
    write = functools.partial(write, formats.write_jsonl, shards=3) if shards else write
    path = tmp_path / ("{shard}.jsonl" if shards else "a")
    with pytest.raises(OSError, match="broken off"):
        write(path, flow, resume=True)
    monkeypatch.delenv("BROKEN_OFF")
    with pytest.raises(ValueError, match=r"saved by another pipeline|are of another"):
        write(path, ff.map(breaking, range(10)), resume=True)
    write(path, flow, resume=True)
    read = formats.read_jsonl if shards else FORMATS[name].read
    assert sorted(read(str(tmp_path / ("*.jsonl" if shards else "a")))) == list(range(9))


@of("damaged")
def test_what_is_cut_off_is_told(name, said, tmp_path):
    kind = FORMATS[name]
    path = kind.made(tmp_path / f"a.{kind.ending}", range(100))
    if path.is_dir():
        path = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    whole = path.read_bytes()
    for part in (0.3333, 0.8877):  # and not between records
        at = int(len(whole) * part)
        path.write_bytes(whole[: at + (whole[at - 1] == ord("\n"))])  # within a line, if there are lines
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                list(kind.read(tmp_path / f"a.{kind.ending}"))
                told = [str(one.message) for one in warned]
            except (ValueError, OSError) as error:
                told = [str(error)]
        kept(said, any(str(tmp_path) in one for one in told))


class Bomb:
    """Something that is found out when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@of("pickles")
def test_pickles(name, said, tmp_path, monkeypatch):
    kind = FORMATS[name]
    assert said == ("told" if kind.pickled else "no")
    assert ("allow_pickle" in inspect.signature(kind.read).parameters) is (said == "told")
    if kind.pickled:
        kind.pickled(str(tmp_path / f"a.{kind.ending}"))
        with pytest.raises(ValueError, match="allow_pickle=True"):
            list(kind.read(tmp_path / f"a.{kind.ending}"))
        assert list(kind.read(tmp_path / f"a.{kind.ending}", allow_pickle=True))


def bars(monkeypatch):
    """What every bar that is made is told."""
    from flowfn.seeing import progressing

    made, real = [], progressing.bar

    def bar(total, initial=0, **options):
        made.append((options["desc"], total, initial))
        return real(total, initial, **options)

    monkeypatch.setattr(progressing, "bar", bar)
    return made


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.makes])
@pytest.mark.parametrize("sized", ["a list", "an iterable with a length", "a generator"])
def test_every_writer_shows_a_bar_that_knows_its_total(name, sized, tmp_path, monkeypatch):
    kind, made = FORMATS[name], bars(monkeypatch)
    rows = [kind.make(number) for number in NUMBERS]
    flow = {"a list": rows, "an iterable with a length": Sized(rows), "a generator": iter(rows)}[sized]
    kind.write(tmp_path / f"a.{kind.ending}", flow)
    assert made == [(kind.write.__name__, None if sized == "a generator" else len(rows), 0)]


@pytest.mark.parametrize("processes", [None, 2])
def test_shards_have_one_bar_of_files_or_of_datapoints(tmp_path, monkeypatch, processes):
    made = bars(monkeypatch)
    formats.write_shards(formats.write_jsonl, tmp_path / "{shard}.jsonl", range(9), shards=3, processes=processes)
    formats.write_shards(
        formats.write_jsonl, tmp_path / "{shard}-of.jsonl", Sized(list(range(9))), shards=3, processes=processes
    )
    assert made == [("write_shards", 3, 0), ("write_shards", 9, 0)]


class Sized:
    """Something that can be iterated again and again, and says how much there is, but has no index."""

    def __init__(self, held):
        self.held = held

    def __len__(self):
        return len(self.held)

    def __iter__(self):
        return iter(self.held)


def test_the_page_says_what_each_column_means():
    page = PAGE.read_text()
    for promise in next(iter(TABLE.values())):
        assert re.search(rf"^- \*\*{promise}\*\*: ", page, re.MULTILINE)
