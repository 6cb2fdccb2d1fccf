"""Files that say that they hold more than any file of their size can: they answer at once, or are refused at once."""

import itertools
import json
import struct
import time

import h5py
import numpy as np
import pytest
import zarr

import flowfn as ff
from flowfn import formats
from flowfn.formats.arrays.npy import header_for
from flowfn.formats.tfrecord import framing

MANY = 10**13
SECONDS = 20
"""Within which all of it is answered, on a machine that has other things to do: what counts to 10**13 takes days."""


def npy(path, dtype, shape):
    path.write_bytes(header_for(np.dtype(dtype), shape))
    return formats.read_npy(path)


def npz(path):
    np.savez(path, x=np.empty((10**9, 0), np.float32))
    return formats.read_npz(path, "x")


def hdf5(path, **how):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", dtype="f4", **how)
    return formats.read_hdf5(path, "x")


def zarr_store(path, **how):
    zarr.open_group(str(path), mode="w").create_array("x", dtype="f4", **how)
    return formats.read_zarr(path, "x")


LAZY = {
    "npy of empty rows": lambda path: npy(path / "a.npy", "f4", (MANY, 0)),
    "npy of nothing": lambda path: npy(path / "a.npy", "V0", (MANY,)),
    "npz of empty rows": lambda path: npz(path / "a.npz"),
    "hdf5 of empty rows": lambda path: hdf5(path / "a.h5", shape=(MANY, 0)),
    "hdf5 that was never written": lambda path: hdf5(path / "a.h5", shape=(MANY,), chunks=(1000,)),
    "hdf5 in huge chunks": lambda path: hdf5(path / "a.h5", shape=(MANY,), chunks=(10**9,)),
    "hdf5 compressed": lambda path: hdf5(path / "a.h5", shape=(MANY, 4), chunks=(10**6, 4), compression="gzip"),
    "zarr of empty rows": lambda path: zarr_store(path / "a.zarr", shape=(MANY, 0), chunks=(1000, 1)),
    "zarr that was never written": lambda path: zarr_store(path / "a.zarr", shape=(MANY,), chunks=(1000,)),
    "zarr in huge chunks": lambda path: zarr_store(path / "a.zarr", shape=(MANY,), chunks=(10**12,)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", LAZY)
def test_very_many_rows_are_read_one_by_one_and_never_counted(name, tmp_path):
    began = time.monotonic()
    flow = LAZY[name](tmp_path)
    count = 10**9 if name.startswith("npz") else MANY
    assert len(flow) == count
    row = np.asarray(flow[count - 1])
    assert [len(list(itertools.islice(flow, 100))), np.shape(flow[7]), np.shape(ff.shuffle(flow)[3])] == [
        100,
        row.shape,
        row.shape,
    ]
    assert np.shape(ff.batch(4, flow)[count // 4 - 1]) == (4, *row.shape)
    assert np.shape(ff.batch(4, ff.shuffle(flow))[5]) == (4, *row.shape)
    assert np.shape(ff.pipe(flow, ff.batch(4), ff.prefetch(1))[9]) == (4, *row.shape)
    assert time.monotonic() - began < SECONDS


def changed(path, old, new):
    held = path.read_bytes()
    assert held.count(old) >= 1
    path.write_bytes(held.replace(old, new))


def told_of_more(kind, folder):
    """A file whose count is changed to what cannot be."""
    if kind == "npy":
        (folder / "a.npy").write_bytes(header_for(np.dtype("f4"), (MANY,)) + bytes(64))
        return formats.read_npy(folder / "a.npy")
    if kind == "npy beyond all integers":
        (folder / "a.npy").write_bytes(header_for(np.dtype("f4"), (10**20, 0)))
        return formats.read_npy(folder / "a.npy")
    if kind == "hdf5":
        hdf5(folder / "a.h5", data=np.zeros(12345))
        changed(folder / "a.h5", struct.pack("<Q", 12345), struct.pack("<Q", MANY))
        return formats.read_hdf5(folder / "a.h5", "x")
    if kind == "zarr":
        zarr_store(folder / "a.zarr", shape=(12345,), chunks=(10,))
        changed(folder / "a.zarr" / "x" / "zarr.json", b"12345", b"1" + b"0" * 25)
        return formats.read_zarr(folder / "a.zarr", "x")
    if kind == "tfrecord":
        (folder / "a.tfrecord").write_bytes(
            framing.RECORD_HEAD.pack(2**62, framing.masked(_crc(struct.pack("<Q", 2**62))))
        )
        return formats.read_tfrecord(folder / "a.tfrecord")
    if kind == "tar":
        formats.write_webdataset(folder / "a.tar", [{"txt": "x"}])
        held = bytearray((folder / "a.tar").read_bytes())
        held[124:136] = b"77777777777\0"
        held[148:156] = b" " * 8
        held[148:156] = b"%06o\0 " % sum(held[:512])
        (folder / "a.tar").write_bytes(held)
        return formats.read_webdataset(folder / "a.tar")
    return formats.read_jsonl(_written(folder / "a.jsonl", b"[" * 10**6 + b"\n"))


def _crc(data):
    return framing.checksums("test")(data)


def _written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["npy", "npy beyond all integers", "hdf5", "zarr", "tfrecord", "tar", "jsonl"])
def test_counts_beyond_what_is_there_are_refused_at_once(kind, tmp_path):
    began = time.monotonic()
    with pytest.raises((ValueError, OSError), match=str(tmp_path)):
        list(itertools.islice(told_of_more(kind, tmp_path), 3))
    assert time.monotonic() - began < SECONDS


def test_the_number_of_rows_that_an_index_tells_is_held_against_its_file(tmp_path):
    formats.write_tfrecord(tmp_path / "a.tfrecord", [1, 2, 3])
    whole = list(formats.read_tfrecord(tmp_path / "a.tfrecord"))
    for text in (f"0 {MANY}\n", "0 -5\n" * 9, json.dumps([MANY]), "0 17\n17 99999999999999999999999\n"):
        (tmp_path / "a.tfrecord.idx").write_text(text)
        assert list(formats.read_tfrecord(tmp_path / "a.tfrecord", save_index=True)) == whole
        (tmp_path / "a.tfrecord.idx").unlink()
