"""Disks that are full, at whatever moment: one OSError that names the file, and nothing half of it anywhere."""

import asyncio
import errno
import functools
import io
import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

import flowfn as ff
from flowfn import formats
from flowfn.storage.bars import hushed
from flowfn.storage.files import file_path
from flowfn.storage.unpacking import packed_by

ROWS, LIMITS = 40, [0, 1, 90, 700, 3000, 9000, 20_000, 70_000]


def arrays(name="0"):
    draw = np.random.default_rng(0)
    return [{name: draw.integers(0, 2**62, 64)} for _ in range(ROWS)]


def texts():
    return [[str(row["0"].tolist())] for row in arrays()]


def examples():
    return [[row["0"], 1.0] for row in arrays()]


def samples():
    return arrays("npy")


def with_options(write, **options):
    return functools.partial(write, **options)


WRITERS = {
    "a.lmdb": (formats.write_lmdb, arrays),
    "a.tfrecord": (formats.write_tfrecord, arrays),
    "b.tfrecord": (with_options(formats.write_tfrecord, compression="gzip"), arrays),
    "c.tfrecord": (with_options(formats.write_tfrecord, compression="zlib"), arrays),
    "a.tar": (formats.write_webdataset, samples),
    "b.tar": (with_options(formats.write_webdataset, save_index=True), samples),
    "a.tar.gz": (formats.write_webdataset, samples),
    "{shard}.tar": (with_options(formats.write_webdataset, shard_size=8), samples),
    "a.h5": (formats.write_hdf5, arrays),
    "b.h5": (with_options(formats.write_hdf5, compression="gzip", chunk=4), arrays),
    "a.zarr": (formats.write_zarr, arrays),
    "a.npy": (formats.write_npy, lambda: [row["0"] for row in arrays()]),
    "b.npy": (with_options(formats.write_tokens, dtype="int64"), lambda: [row["0"] for row in arrays()]),
    "b.bin": (with_options(formats.write_tokens, dtype="int64"), lambda: [row["0"] for row in arrays()]),
    "c.idx": (with_options(formats.write_megatron, dtype="int64"), lambda: [row["0"] for row in arrays()]),
    "a.npz": (formats.write_npz, arrays),
    "b.npz": (with_options(formats.write_npz, compressed=True), arrays),
    "a.parquet": (with_options(formats.write_parquet, group=10), arrays),
    "a.arrow": (with_options(formats.write_arrow, group=10), arrays),
    "a.csv": (formats.write_csv, texts),
    "a.csv.gz": (formats.write_csv, texts),
    "a.csv.bz2": (formats.write_csv, texts),
    "a.csv.xz": (formats.write_csv, texts),
    "a.jsonl": (formats.write_jsonl, arrays),
    "a.svm": (formats.write_svmlight, examples),
    "{shard}.h5": (lambda path, rows: formats.write_shards(formats.write_hdf5, path, rows, shards=1), arrays),
    "{shard}.npy": (
        lambda path, rows: formats.write_shards(formats.write_npy, path, ff.filter(lambda row: True, rows), shards=1),
        lambda: [row["0"] for row in arrays()],
    ),
}


class SmallDisk:
    """In here no file can have more bytes; Python would leave half of a module that it compiles (3.12, `_write_atomic`)."""

    def __init__(self, most):
        self.most, self.before = most, (resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode)

    def __enter__(self):
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.before[0][1]))

    def __exit__(self, *raised):
        limits, sys.dont_write_bytecode = self.before
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def open_below(folder):
    """What this process has open there."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.islink(link) and os.readlink(link).startswith(str(folder))]


def written_or_refused(name, folder, most):
    """Whether it was written; if not, that is told and nothing is left."""
    write, rows = WRITERS[name]
    path, refused = file_path(folder / name, "test"), None
    try:
        with SmallDisk(most), hushed():
            write(path, rows())
    except OSError as error:
        refused = error
    if refused is not None:
        assert type(refused) is OSError, refused
        assert refused.errno in (errno.EFBIG, *[errno.EIO, errno.ENOSPC] * name.endswith("lmdb")), (
            refused
        )  # as LMDB says it
        beside = (
            path.format(shard=0) + ".index",
            path.replace(".idx", ".bin"),
            os.path.join(folder, f".{name.format(shard='N')}.flow"),
        )
        assert refused.filename in (path, path.format(shard=0), *beside), refused
        assert os.listdir(folder) == [], refused
        assert open_below(folder) == []
        return False
    for written in folder.iterdir():
        shutil.rmtree(written) if written.is_dir() else written.unlink()
    return True


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_error_that_names_the_file_and_nothing_is_left(name, tmp_path):
    outcomes = [written_or_refused(name, tmp_path, most) for most in LIMITS]
    assert outcomes[0] is False
    assert written_or_refused(name, tmp_path, resource.RLIM_INFINITY)


def test_what_threads_of_a_library_still_write_when_it_raises_is_waited_for(tmp_path, monkeypatch):
    write = zarr.storage.LocalStore._set

    async def slow_or_full(store, key, value, *arguments, **options):
        if key == "zarr.json":
            await asyncio.to_thread(time.sleep, 0.3)
            return await write(store, key, value, *arguments, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.storage.LocalStore, "_set", slow_or_full)
    with hushed(), pytest.raises(OSError, match="cannot write: No space left"):
        formats.write_zarr(tmp_path / "a.zarr", arrays())
    time.sleep(0.5)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zlib"])
def test_what_could_not_be_compressed_is_not_tried_again(program):
    # gzip of Python 3.12 and later keeps a buffer, which is written when it is collected, and complains on stderr
    class Filling(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > 12:  # gzip begins with ten bytes
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    with pytest.raises(OSError, match="No space left"), packed_by(program, Filling()) as packed:
        packed.write(np.random.default_rng(0).bytes(30_000))
    buffer = getattr(packed, "_buffer", None)
    assert buffer is None or buffer.close() is None


@pytest.mark.parametrize("name", ["a.h5", "a.csv", "a.zarr", "a.lmdb", "c.idx"])
def test_what_was_there_stays_when_the_disk_is_full(name, tmp_path):
    write, rows = WRITERS[name]
    with hushed():
        write(tmp_path / name, rows()[:1])
        with pytest.raises(OSError, match="cannot write"), SmallDisk(3000):
            write(tmp_path / name, rows(), overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["c.bin"] * (name == "c.idx") + [name]
    assert (
        len(
            {
                "c.idx": formats.read_megatron,
                "a.h5": formats.read_hdf5,
                "a.zarr": formats.read_zarr,
                "a.lmdb": formats.read_lmdb,
            }.get(name, headless)(tmp_path / name)
        )
        == 1
    )


def headless(path):
    return formats.read_csv(path, header=False)


def test_errors_of_the_flow_are_its_own(tmp_path):
    def failing(number):
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")

    for write in (formats.write_csv, formats.write_hdf5, formats.write_lmdb):
        with hushed(), pytest.raises(OSError, match="elsewhere") as caught:
            write(tmp_path / "a", ff.map(failing, [1, 2]))
        assert caught.value.filename == "elsewhere"
    assert os.listdir(tmp_path) == []


def test_what_is_kept_before_the_disk_was_full_can_be_read(tmp_path):
    flow = ff.pipe(range(50), ff.map(np.arange), ff.cache_to(tmp_path / "kept", version="1"))
    with (
        pytest.raises(OSError, match=r"cache_to\(\) cannot keep more datapoints: File too large") as caught,
        SmallDisk(2000),
    ):
        list(flow)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "kept")
    assert [array.tolist() for array in flow] == [list(range(number)) for number in range(50)]
    assert open_below(tmp_path) == []


def test_a_program_whose_disk_was_full_goes_on_and_ends_well(tmp_path):
    code = f"""
import sys, pathlib
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_full_disks as here
for number, name in enumerate(here.WRITERS):
    folder = pathlib.Path({str(tmp_path)!r}, str(number))
    folder.mkdir()
    assert not here.written_or_refused(name, folder, 90), name
    assert here.written_or_refused(name, folder, -1), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
