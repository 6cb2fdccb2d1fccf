"""Small files of every kind, made by the tools that make them; what damage does to them;
and whether reading them keeps its word.

The tests try a few damaged files of each kind. To search for faults, run it by hand: `python tests/formats/mutating.py
--seconds 5` tries all kinds for so long each (`--seed` goes on elsewhere), or those that are named ("npz compressed"
parquet); it prints what it found, and exits with 1 if that was anything.

Files are read by a process of its own (`Reader`), which is asked for one kind after the other, a line of JSON each:
whatever a damaged file does (a crash, a loop without end, all the memory) it does to that process. Every damaged file
gives datapoints, or a ValueError or an OSError whose message names it; what knows its own length, or has checksums,
gives those that were written and no others. (LMDB believes its pages, and pickles that are trusted are programs: what
damage does to these is not tried.)
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import itertools
import json
import lzma
import os
import pickle
import random
import re
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from written_by_others import saved_dataset

import flowfn as ff
from flowfn import datasets, formats, image

MOST, MEMORY = 5000, 6 << 30
"""How many datapoints are looked at, and how much memory there is for that."""
HUGE = (0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 10**13, 2**62, 2**63 - 1, 2**64 - 1)


class Kind(NamedTuple):
    """How a small file is made in a folder (what is returned is damaged), how the folder is read,
    what that cannot hide."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    exact: bool = False
    """Whether other datapoints than those that were written are a fault: there are checksums."""
    whole: bool = True
    """Whether fewer datapoints than were written are a fault if the file was cut."""
    lines: bool = False
    """Whether it may lack datapoints where it was cut, but not a part of one."""
    empty: bool = False
    """Whether a file of no bytes is one without datapoints."""


KINDS: dict[str, Kind] = {}


def kind(
    name: str, read: Callable[[Path], Any], **told: bool
) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Tell how files of a kind are made."""

    def added(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        KINDS[name] = Kind(make, read, **told)
        return make

    return added


# Numpy's


@kind("npy", lambda folder: formats.read_npy(folder / "a.npy"))
def _npy(folder: Path) -> Path:
    np.save(folder / "a.npy", np.arange(12, dtype="<i4").reshape(4, 3))
    return folder / "a.npy"


@kind("npz", lambda folder: formats.read_npz(folder / "a.npz"))
def _npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", x=np.arange(4), y=np.arange(8.0).reshape(4, 2))
    return folder / "a.npz"


@kind("npz compressed", lambda folder: formats.read_npz(folder / "a.npz"), exact=True)
def _npz_compressed(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", x=np.arange(4), y=np.array(["a", "bb", "c", "d"]))
    return folder / "a.npz"


# Tokens


@kind("tokens of llm.c", lambda folder: formats.read_tokens(folder / "a.bin", None, 4))
def _tokens_llm_c(folder: Path) -> Path:
    formats.write_tokens(folder / "a.bin", [range(20)], "uint16", header="llm.c")
    return folder / "a.bin"


@kind("tokens npy", lambda folder: formats.read_tokens(folder / "a.npy", None, 4, stride=3))
def _tokens_npy(folder: Path) -> Path:
    formats.write_tokens(folder / "a.npy", [range(20)], "int32")
    return folder / "a.npy"


@kind("tokens alone", lambda folder: formats.read_tokens(folder / "a.bin", "uint32", 4), whole=False, lines=True)
def _tokens_alone(folder: Path) -> Path:
    formats.write_tokens(folder / "a.bin", [range(20)], "uint32")
    return folder / "a.bin"


def _megatron(folder: Path) -> None:
    formats.write_megatron(folder / "a", [[1, 2, 3], [[4, 5], [6]], [], range(7, 20)], "uint16")


@kind("megatron index", lambda folder: formats.read_megatron(folder / "a"))
def _megatron_index(folder: Path) -> Path:
    _megatron(folder)
    return folder / "a.idx"


@kind("megatron tokens", lambda folder: formats.read_megatron(folder / "a", 4))
def _megatron_tokens(folder: Path) -> Path:
    _megatron(folder)
    return folder / "a.bin"


@kind("megatron slices", lambda folder: formats.read_megatron(folder / "a", 4, order=[3, 0, 1], segments=True))
def _megatron_slices(folder: Path) -> Path:
    _megatron(folder)
    return folder / "a.idx"


# Texts

ROWS = [[1, "one", 0.5], [20, 'two, "2"', -1.25], [300, "three\nlines", 3e-5], [4000, "four é", 0.0]]


def _texts(folder: Path, name: str, text: bytes) -> Path:
    path = folder / name
    ends: dict[str, Callable[[bytes], bytes]] = {".gz": lambda data: gzip.compress(data, mtime=0), ".xz": lzma.compress}
    path.write_bytes(ends.get(path.suffix, bytes)(text))
    return path


def _csv_text() -> bytes:
    import csv
    import io

    made = io.StringIO(newline="")
    csv.writer(made).writerows([["n", "word", "x"], *ROWS])
    return made.getvalue().encode()


@kind("csv", lambda folder: formats.read_csv(folder / "a.csv"), whole=False, lines=True)
def _csv(folder: Path) -> Path:
    return _texts(folder, "a.csv", _csv_text())


@kind(
    "csv typed",
    lambda folder: formats.read_csv(folder / "a.csv", types={"n": int, "x": float}),
    whole=False,
    lines=True,
)
def _csv_typed(folder: Path) -> Path:
    return _texts(folder, "a.csv", _csv_text())


@kind("csv.gz", lambda folder: formats.read_csv(folder / "a.csv.gz"), exact=True)
def _csv_gz(folder: Path) -> Path:
    return _texts(folder, "a.csv.gz", _csv_text())


@kind("csv.gz held", lambda folder: formats.read_csv(folder / "a.csv.gz", hold=True), exact=True)
def _csv_held(folder: Path) -> Path:
    return _texts(folder, "a.csv.gz", _csv_text())


def _jsonl_text() -> bytes:
    return b"".join(
        json.dumps({"n": n, "word": word, "more": [x, None, {"a": True}]}).encode() + b"\n" for n, word, x in ROWS
    )


@kind("jsonl", lambda folder: formats.read_jsonl(folder / "a.jsonl"), whole=False, lines=True)
def _jsonl(folder: Path) -> Path:
    return _texts(folder, "a.jsonl", _jsonl_text())


@kind("jsonl index", lambda folder: formats.read_jsonl(folder / "a.jsonl", save_index=True), exact=True)
def _jsonl_index(folder: Path) -> Path:
    path = _texts(folder, "a.jsonl", _jsonl_text())
    os.utime(path, ns=(0, 0))  # copies have the same time
    len(formats.read_jsonl(path, save_index=True))
    return folder / "a.jsonl.index"


@kind("jsonl.xz", lambda folder: formats.read_jsonl(folder / "a.jsonl.xz"), exact=True)
def _jsonl_xz(folder: Path) -> Path:
    return _texts(folder, "a.jsonl.xz", _jsonl_text())


@kind("svmlight", lambda folder: formats.read_svmlight(folder / "a.svm"), whole=False, lines=True)
def _svmlight(folder: Path) -> Path:
    return _texts(folder, "a.svm", b"# of three\n1 1:0.5 7:-2.25\n-1 2:1e-3 # why\n1\n0.5 1:12 2:13 3:14\n")


@kind(
    "svmlight queries",
    lambda folder: formats.read_svmlight(folder / "a.svm", 9, queries=True, multilabel=True),
    whole=False,
    lines=True,
)
def _svmlight_queries(folder: Path) -> Path:
    return _texts(folder, "a.svm", b"1,2 qid:3 1:0.5 7:-2.25\n-1 qid:4 2:1e-3\n qid:5 1:12 2:13 3:14\n")


# Chunks


@kind("hdf5", lambda folder: formats.read_hdf5(folder / "a.h5"))
def _hdf5(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=np.arange(24.0).reshape(6, 4), chunks=(2, 4), compression="gzip")
        file.create_dataset("y", data=np.arange(6))
    return folder / "a.h5"


@kind("hdf5 texts", lambda folder: formats.read_hdf5(folder / "a.h5"))
def _hdf5_texts(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "a.h5", "w", libver="latest") as file:
        file.create_dataset(
            "t", data=["a", "bb", "ccc"], dtype=h5py.string_dtype(), maxshape=(None,), compression="gzip"
        )
    return folder / "a.h5"


def _zarr_store(folder: Path) -> None:
    import zarr

    root = zarr.open_group(str(folder / "a.zarr"), mode="w")
    x = root.create_array("x", shape=(5, 3), dtype="f4", chunks=(2, 3))
    x[:] = np.arange(15).reshape(5, 3)
    y = root.create_array("y", shape=(5,), dtype="i8", chunks=(2,))
    y[:] = np.arange(5)


@kind("zarr metadata", lambda folder: formats.read_zarr(folder / "a.zarr"))
def _zarr(folder: Path) -> Path:
    _zarr_store(folder)
    return folder / "a.zarr" / "x" / "zarr.json"


@kind("zarr group", lambda folder: formats.read_zarr(folder / "a.zarr", ["x", "y"]))
def _zarr_group(folder: Path) -> Path:
    _zarr_store(folder)
    return folder / "a.zarr" / "zarr.json"


@kind("zarr chunk", lambda folder: formats.read_zarr(folder / "a.zarr"))
def _zarr_chunk(folder: Path) -> Path:
    _zarr_store(folder)
    return folder / "a.zarr" / "x" / "c" / "1" / "0"


@kind("zarr.zip", lambda folder: formats.read_zarr(folder / "a.zip"))
def _zarr_zip(folder: Path) -> Path:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = zarr.storage.ZipStore(str(folder / "a.zip"), mode="w")
        x = zarr.open_group(store, mode="w").create_array("x", shape=(4,), dtype="i8", chunks=(2,))
        x[:] = np.arange(4)
        store.close()
    return folder / "a.zip"


# Tables


def _table() -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "n": [1, 2, 3, None],
            "word": ["a", "bb", None, "dddd"],
            "list": [[1.5], [], [2.5, 3.5], None],
            "f": [True] * 4,
        }
    )


@kind("parquet", lambda folder: formats.read_parquet(folder / "a.parquet"))
def _parquet(folder: Path) -> Path:
    import pyarrow.parquet

    pyarrow.parquet.write_table(_table(), folder / "a.parquet", row_group_size=2)
    return folder / "a.parquet"


@kind("arrow", lambda folder: formats.read_arrow(folder / "a.arrow"))
def _arrow(folder: Path) -> Path:
    import pyarrow as pa

    with pa.ipc.new_file(str(folder / "a.arrow"), _table().schema) as file:
        file.write_table(_table(), max_chunksize=2)
    return folder / "a.arrow"


@kind("arrow compressed", lambda folder: formats.read_arrow(folder / "a.arrow"))
def _arrow_zstd(folder: Path) -> Path:
    import pyarrow as pa

    with pa.ipc.new_file(
        str(folder / "a.arrow"), _table().schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(_table(), max_chunksize=2)
    return folder / "a.arrow"


@kind("arrow stream", lambda folder: formats.read_arrow(folder / "a.arrows"), whole=False)
def _arrow_stream(folder: Path) -> Path:
    import pyarrow as pa

    with pa.ipc.new_stream(str(folder / "a.arrows"), _table().schema) as file:
        file.write_table(_table(), max_chunksize=2)
    return folder / "a.arrows"


def _saved(folder: Path) -> Path:
    features = {"word": {"_type": "Value"}, "list": {"feature": {"_type": "Value"}, "_type": "List"}}
    return saved_dataset(
        folder / "a", _table().to_pylist(), features=features, schema=_table().schema, _format_columns=["n", "list"]
    )


@kind("hugging face state", lambda folder: formats.read_hugging_face(folder / "a"), whole=False)
def _hugging_face_state(folder: Path) -> Path:
    return _saved(folder) / "state.json"


@kind("hugging face info", lambda folder: formats.read_hugging_face(folder / "a"), whole=False)
def _hugging_face_info(folder: Path) -> Path:
    return _saved(folder) / "dataset_info.json"


@kind("hugging face stream", lambda folder: formats.read_hugging_face(folder / "a"), whole=False)
def _hugging_face_stream(folder: Path) -> Path:
    return _saved(folder) / "data-00000-of-00001.arrow"


# Records

DATAPOINTS: list[Any] = [
    [np.arange(6, dtype=np.uint8).reshape(2, 3), 1, "one", {"a": (1, 2.5)}],
    [None, 2**70, b"\0", {}],
    [{1, 2}, [], "", -1],
]


@kind("lmdb payloads", lambda folder: formats.read_lmdb(folder / "a.lmdb"), whole=False)
def _lmdb_payloads(folder: Path) -> Path:
    formats.write_lmdb(folder / "inner.lmdb", DATAPOINTS)
    (folder / "a.payload").write_bytes(formats.read_lmdb(folder / "inner.lmdb", decode=bytes, keys=["00000000"])[0])
    (folder / "inner.lmdb").unlink()
    return folder / "a.payload"


@kind("caffe", lambda folder: formats.read_caffe_lmdb(folder / "a.lmdb"), whole=False)
def _caffe_payload(folder: Path) -> Path:
    import cv2

    from flowfn.formats.encoding.messages import datum

    message = datum("test", "lmdb")(channels=3, height=2, width=2, label=7, encoded=True)
    message.data = cv2.imencode(".png", np.arange(12, dtype=np.uint8).reshape(2, 2, 3))[1].tobytes()
    (folder / "a.payload").write_bytes(message.SerializeToString())
    return folder / "a.payload"


def _tfrecord_of(name: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        formats.write_tfrecord(folder / name, DATAPOINTS, **options)
        return folder / name

    return make


KINDS["tfrecord"] = Kind(
    _tfrecord_of("a.tfrecord"), lambda folder: formats.read_tfrecord(folder / "a.tfrecord"), whole=False, lines=True
)
for _packing in ("gzip", "zlib"):
    KINDS[f"tfrecord {_packing}"] = Kind(
        _tfrecord_of("a.tfrecord", compression=_packing),
        lambda folder, packing=_packing: formats.read_tfrecord(folder / "a.tfrecord", compression=packing),
        exact=True,
        empty=_packing == "gzip",
    )


@kind("tfrecord index", lambda folder: formats.read_tfrecord(folder / "a.tfrecord", save_index=True), exact=True)
def _tfrecord_index(folder: Path) -> Path:
    path = _tfrecord_of("a.tfrecord")(folder)
    len(formats.read_tfrecord(path, save_index=True))
    return folder / "a.tfrecord.idx"


@kind("example", lambda folder: formats.read_tfrecord(folder / "a.tfrecord"), whole=False)
def _example(folder: Path) -> Path:
    made = formats.as_example({"image": bytes(range(6)), "label": [1, -2], "score": [0.5, 2.0]})
    (folder / "a.payload").write_bytes(made)
    return folder / "a.payload"


@kind("sequence example", lambda folder: formats.read_tfrecord(folder / "a.tfrecord"), whole=False)
def _sequence_example(folder: Path) -> Path:
    from flowfn.formats.encoding.messages import sequence_example

    message = sequence_example("test", "tfrecord")()
    message.context.feature["label"].int64_list.value.append(7)
    for step in ([1, 2], [300]):
        message.feature_lists.feature_list["tokens"].feature.add().int64_list.value.extend(step)
    (folder / "a.payload").write_bytes(message.SerializeToString(deterministic=True))
    return folder / "a.payload"


SAMPLES = [
    {"txt": "one", "cls": 1, "npy": np.arange(3), "json": {"a": [1]}},
    {"txt": "two", "cls": 2, "npz": {"x": np.arange(2.0)}, "txt.gz": "packed"},
]


@kind("tar", lambda folder: formats.read_webdataset(folder / "a.tar"), whole=True)
def _tar(folder: Path) -> Path:
    formats.write_webdataset(folder / "a.tar", SAMPLES)
    return folder / "a.tar"


@kind("tar streamed", lambda folder: formats.read_webdataset(folder / "a.tar", index=False))
def _tar_streamed(folder: Path) -> Path:
    return _tar(folder)


@kind("tar.gz", lambda folder: formats.read_webdataset(folder / "a.tar.gz"), exact=True)
def _tar_gz(folder: Path) -> Path:
    formats.write_webdataset(folder / "a.tar.gz", SAMPLES)
    return folder / "a.tar.gz"


@kind("tar index", lambda folder: formats.read_webdataset(folder / "a.tar", save_index=True), exact=True)
def _tar_index(folder: Path) -> Path:
    formats.write_webdataset(folder / "a.tar", SAMPLES, save_index=True)
    return folder / "a.tar.index"


def _member(name: str, value: Any, **options: Any) -> None:
    """A kind: the content of a member of a tar file that is whole."""

    def make(folder: Path) -> Path:
        formats.write_webdataset(folder / "inner.tar", [{name: value}])
        (folder / "a.payload").write_bytes(formats.read_webdataset(folder / "inner.tar", decode=False)[0][name])
        return folder / "a.payload"

    KINDS[f"tar of {name}"] = Kind(
        make, lambda folder: formats.read_webdataset(folder / "a.tar", **options), whole=False
    )


_member("npy", np.arange(6.0).reshape(2, 3))
_member("npz", {"x": np.arange(2.0)})
_member("json", {"a": [1, "b", None]})
_member("cls", 123)
_member("txt", "tëxt")
_member("txt.gz", "packed")
_member("png", np.arange(48, dtype=np.uint8).reshape(4, 4, 3), images=True)


# Data sets


def _idx_files(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 3, 2, 2) + bytes(range(12)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 3) + bytes([1, 2, 3]))


@kind("mnist", lambda folder: datasets.mnist(folder, "test"))
def _mnist(folder: Path) -> Path:
    _idx_files(folder)
    return folder / "t10k-images-idx3-ubyte"


@kind("mnist labels gz", lambda folder: datasets.mnist(folder, "test"), exact=True)
def _mnist_gz(folder: Path) -> Path:
    _idx_files(folder)
    plain = folder / "t10k-labels-idx1-ubyte"
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()
    return folder / "t10k-labels-idx1-ubyte.gz"


@kind("cifar10", lambda folder: datasets.cifar10(folder, "test"))
def _cifar10(folder: Path) -> Path:
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [3, 4]}, 2))
    return folder / "test_batch"


@kind("cifar10 binary", lambda folder: datasets.cifar10(folder, "test"), whole=False)
def _cifar10_binary(folder: Path) -> Path:
    (folder / "test_batch.bin").write_bytes((bytes([3]) + bytes(3072)) * 2)
    return folder / "test_batch.bin"


@kind("svhn", lambda folder: datasets.svhn(folder, "test"))
def _svhn(folder: Path) -> Path:
    from scipy.io import savemat

    savemat(
        folder / "test_32x32.mat", {"X": np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4), "y": [[7], [10], [1], [2]]}
    )
    return folder / "test_32x32.mat"


@kind("svhn compressed", lambda folder: datasets.svhn(folder, "test"))
def _svhn_packed(folder: Path) -> Path:
    from scipy.io import savemat

    variables = {"X": np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4), "y": [[7], [10], [1], [2]]}
    savemat(folder / "test_32x32.mat", variables, do_compression=True)
    return folder / "test_32x32.mat"


@kind("svhn numbers", lambda folder: datasets.svhn_numbers_files(folder, "train"))
def _svhn_numbers(folder: Path) -> Path:
    import h5py

    (folder / "train").mkdir()
    with h5py.File(folder / "train" / "digitStruct.mat", "w") as file:
        held = file.create_group("#refs#")
        names, boxes = [], []
        for number, digits in enumerate(([5], [1, 10])):
            names.append(
                held.create_dataset(f"n{number}", data=np.array([[ord(c)] for c in f"{number + 1}.png"], "u2")).ref
            )
            box = held.create_group(f"b{number}")
            for side in ("left", "top", "width", "height", "label"):
                if len(digits) == 1:
                    box.create_dataset(side, data=np.array([[float(digits[0])]]))
                    continue
                values = [
                    held.create_dataset(f"{side}{number}{at}", data=np.array([[float(d)]])).ref
                    for at, d in enumerate(digits)
                ]
                box.create_dataset(side, data=np.array(values, h5py.ref_dtype).reshape(-1, 1), dtype=h5py.ref_dtype)
            boxes.append(box.ref)
        struct_ = file.create_group("digitStruct")
        struct_.create_dataset("name", data=np.array(names, h5py.ref_dtype).reshape(-1, 1), dtype=h5py.ref_dtype)
        struct_.create_dataset("bbox", data=np.array(boxes, h5py.ref_dtype).reshape(-1, 1), dtype=h5py.ref_dtype)
    return folder / "train" / "digitStruct.mat"


@kind("bsds", lambda folder: [datasets.read_ground_truth(folder / "1.mat")], whole=False)
def _bsds(folder: Path) -> Path:
    from scipy.io import savemat

    people = np.empty((1, 2), object)
    for person, line in enumerate(([[1, 0]], [[1, 1]])):
        people[0, person] = {"Segmentation": np.array([[1, 2]]), "Boundaries": np.array(line)}
    savemat(folder / "1.mat", {"groundTruth": people})
    return folder / "1.mat"


@kind("annotation", lambda folder: [datasets.read_annotation(folder / "1.xml")], whole=False)
def _annotation(folder: Path) -> Path:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    size = "<size><width>50</width><height>40</height></size>"
    (folder / "1.xml").write_text(f"<annotation>{size}<object><name>n02119789</name>{box}</object></annotation>")
    return folder / "1.xml"


@kind("mean", lambda folder: [datasets.ilsvrc12_mean(folder)], whole=False)
def _mean(folder: Path) -> Path:
    pixels = np.arange(12, dtype="<f4").tobytes()
    made = bytes([8, 1, 16, 3, 24, 2, 32, 2, 0x2A, len(pixels)]) + pixels
    (folder / "imagenet_mean.binaryproto").write_bytes(made)
    return folder / "imagenet_mean.binaryproto"


@kind("synsets", lambda folder: [datasets.ilsvrc12_synsets(folder), datasets.ilsvrc12_labels(folder)], whole=False)
def _synsets(folder: Path) -> Path:
    (folder / "synset_words.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    return folder / "synset_words.txt"


@kind("places", lambda folder: datasets.places365_files(folder, "val"), whole=False)
def _places(folder: Path) -> Path:
    (folder / "val_256").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / "val_256" / name).touch()
    (folder / "places365_val.txt").write_text("a.jpg 165\nb.jpg 3\n")
    return folder / "places365_val.txt"


@kind("places labels", lambda folder: [datasets.places365_labels(folder)], whole=False)
def _places_labels(folder: Path) -> Path:
    (folder / "categories_places365.txt").write_text("/a/airfield 0\n/b/beach 1\n")
    return folder / "categories_places365.txt"


@kind("tiny imagenet", lambda folder: datasets.tiny_imagenet_files(folder, "val"), whole=False)
def _tiny(folder: Path) -> Path:
    (folder / "val").mkdir()
    (folder / "wnids.txt").write_text("n02124075\nn04067472\n")
    (folder / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn04067472\t0\t32\t44\t62\nval_1.JPEG\tn02124075\t0\t1\t2\t3\n"
    )
    return folder / "val" / "val_annotations.txt"


@kind("tiny imagenet labels", lambda folder: [datasets.tiny_imagenet_labels(folder)], whole=False)
def _tiny_labels(folder: Path) -> Path:
    (folder / "wnids.txt").write_text("n02124075\nn04067472\n")
    (folder / "words.txt").write_text("n02124075\tEgyptian cat\nn04067472\treel\n")
    return folder / "words.txt"


# Images


def _looked_at(pixels: np.ndarray) -> list[Any]:
    return [pixels.shape, pixels.dtype.str]


def _picture(ending: str) -> None:
    def make(folder: Path) -> Path:
        import cv2

        rows, columns = np.mgrid[:64, :64]
        image = np.stack([rows * 3, columns * 4, rows ^ columns], 2).astype(np.uint8)
        image = image[:, :, 0] if ending == "pgm" else image.astype(np.float32) if ending in ("pfm", "hdr") else image
        path = folder / f"a.{ending}"
        if ending == "gif":
            from PIL import Image

            Image.fromarray(image).save(path)
        else:
            assert cv2.imwrite(str(path), image)
        return path

    def read(folder: Path) -> Any:
        return ff.pipe(
            [str(folder / f"a.{ending}")],
            image.read_images(channels=None),
            ff.map(lambda image: [image.shape, image.dtype.str]),
        )

    KINDS[ending] = Kind(make, read, whole=False)


for _ending in ("jpg", "png", "webp", "tiff", "bmp", "gif", "avif", "jp2", "pgm", "pfm", "hdr"):
    _picture(_ending)


# What is kept


@kind("kept data", lambda folder: _kept(folder), exact=True)
def _kept_data(folder: Path) -> Path:
    list(_kept(folder))
    return next((folder / "kept").glob("*/*.data"))


@kind("kept index", lambda folder: _kept(folder), exact=True)
def _kept_index(folder: Path) -> Path:
    list(_kept(folder))
    return next((folder / "kept").glob("*/*.index"))


def _square(number: int) -> list[Any]:
    return [number, np.arange(number), "x" * number]


def _kept(folder: Path) -> Any:
    return ff.pipe(range(5), ff.map(_square), ff.cache_to(folder / "kept", version="1"))


# Damage


def damaged(data: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many damaged forms of a file, drawn from all, and an empty one; with `count` 0 all cuts,
    all bytes exchanged, many others."""
    draw = random.Random(seed)
    cuts = [("cut", at) for at in range(len(data))]
    flips = [("bit", at) for at in range(len(data))]
    others = [
        (name, at) for name in ("zeros", "huge", "digits", "garbage", "swap", "random", "twice") for at in range(300)
    ]
    if count:
        chosen = [
            cuts[0],
            *(draw.choice(group) for group in (cuts, flips, others, others) for _ in range(-(-count // 4))),
        ]
    else:
        chosen = [
            one for group in (cuts, flips) for one in (group if len(group) <= 4000 else draw.sample(group, 4000))
        ] + others
    for name, at in chosen:
        made = _damage(data, name, at, draw)
        if made != data:
            yield f"{name} {at} (seed {seed})", made


def _damage(data: bytes, name: str, at: int, draw: random.Random) -> bytes:
    if name == "cut":
        return data[:at]
    if name == "bit":
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if name == "garbage":
        return data + draw.randbytes(draw.choice([1, 3, 8, 100, 700]))
    if name == "twice":
        return data + data
    if name == "digits":  # the numbers that stand there as text, one of them made huge
        found = list(re.finditer(rb"\d+", data))
        if not found:
            return data
        one = draw.choice(found)
        return data[: one.start()] + str(draw.choice([-1, 0, *HUGE, 10**30])).encode() + data[one.end() :]
    place = draw.randrange(len(data))
    size = draw.choice([1, 2, 4, 8, 16, 64])
    if name == "zeros":
        return data[:place] + bytes(size) + data[place + size :]
    if name == "random":
        return data[:place] + draw.randbytes(size) + data[place + size :]
    if name == "swap":
        return data[:place] + data[place + size :]
    width = draw.choice([1, 2, 4, 8])
    told = (draw.choice(HUGE) & ((1 << 8 * width) - 1)).to_bytes(width, draw.choice(["little", "big"]))
    return data[:place] + told + data[place + width :]


def placed(name: str, folder: Path, target: Path, data: bytes) -> None:
    """Put damaged bytes where they are read: in the place of the file, or into a container that is whole."""
    if target.name != "a.payload":
        target.write_bytes(data)
        return
    for old in ("a.lmdb", "a.tfrecord", "a.tar"):
        (folder / old).unlink(missing_ok=True)
    if name in ("lmdb payloads", "caffe"):
        formats.write_lmdb(folder / "a.lmdb", [data, data], encode=bytes)
    elif name in ("example", "sequence example"):
        formats.write_tfrecord(folder / "a.tfrecord", [data], encode=bytes)
    else:
        formats.write_webdataset(folder / "a.tar", [{name.removeprefix("tar of "): data}])


# Reading

WAYS: dict[str, Callable[[Any], Any]] = {
    "in order": lambda flow: list(itertools.islice(flow, MOST)),
    "by index": lambda flow: (
        [flow[at] for at in range(min(len(flow), MOST))] + ([flow[-1]] if len(flow) > MOST else [])
    ),
    "at random": lambda flow: list(itertools.islice(ff.shuffle(flow), MOST)),
    "batched": lambda flow: list(itertools.islice(ff.batch(2, flow), 100)),
}


def tried(name: str, folder: Path) -> dict[str, Any]:
    """What comes of reading in every way: what there was, or the error."""
    read = KINDS[name].read
    found: dict[str, Any] = {}
    for way, of in WAYS.items():
        try:
            flow = read(folder)
            seekable = not isinstance(flow, list) and flow.seekable
            if way == "in order" or seekable:
                found[way] = of(flow)
        except Exception as error:
            found[way] = error
    return found


def faults(name: str, seed: int, count: int, before: Callable[[str], Any]) -> list[str]:
    """What was wrong; `before` is told what is tried next."""
    found = []
    with tempfile.TemporaryDirectory(prefix="mutated-") as temporary:
        folder = Path(temporary) / "whole"
        folder.mkdir()
        target = KINDS[name].make(folder)
        data = target.read_bytes()
        placed(name, folder, target, data)
        right = tried(name, folder)
        wrong = [
            f"{name}: {way} of the whole file: {error!r}"
            for way, error in right.items()
            if isinstance(error, Exception)
        ]
        wrong = [one for one in wrong if "batched" not in one]
        if wrong:
            return wrong
        for number, (what, content) in enumerate(damaged(data, seed, count)):
            before(f"{name}: {what}")
            again = Path(temporary) / str(number)  # a name of its own: what has been opened may be remembered
            shutil.copytree(folder, again)
            placed(name, again, again / target.relative_to(folder), content)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                for way, result in tried(name, again).items():
                    warned = any(str(again) in str(one.message) for one in said)
                    told = None if warned else fault(name, what, way, result, right.get(way), str(again))
                    if told:
                        found.append(f"{name}: {what}: {way}: {told}")
            shutil.rmtree(again, ignore_errors=True)
    return found


def fault(name: str, what: str, way: str, result: Any, right: Any, folder: str) -> str | None:
    """What is wrong with an outcome, None if nothing is."""
    if isinstance(result, Exception):
        if way == "batched" and isinstance(right, Exception):
            return None
        if way == "batched" and isinstance(result, ValueError) and str(result).startswith("batch()"):
            return None  # rows that are not alike
        if (
            not isinstance(result, (ValueError, OSError))
            or isinstance(result, UnicodeError)
            or type(result).__module__ != "builtins"
        ):
            told = type(result)
            if not (issubclass(told, ValueError) and told.__module__.startswith("flowfn") and folder in str(result)):
                return f"{told.__module__}.{told.__name__}: {result}" + _frame(result)
        return (
            None
            if folder in str(result)
            else f"the file is not named: {type(result).__name__}: {result}" + _frame(result)
        )
    if way == "batched" or (KINDS[name].empty and what.startswith("cut 0 ") and not result):
        return None
    plain = _plain(result)
    if KINDS[name].exact and plain != _plain(right) and not what.startswith("twice"):  # which may be two files in one
        return f"others than were written: {plain[:200]}"
    if KINDS[name].whole and what.startswith("cut") and len(result) < len(right):
        return f"{len(result)} of {len(right)} without a word"
    if (
        KINDS[name].lines
        and way != "at random"
        and what.startswith("cut")
        and _plain(result) != _plain(right[: len(result)])
    ):
        return f"half a datapoint without a word: {plain[-100:]}"
    return None


def _frame(error: BaseException) -> str:
    frames = [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)]
    return f" [{' '.join(frames[-4:])}]"


def _plain(value: Any) -> str:
    with np.printoptions(threshold=100):
        return repr(value)


SILENCE = 30
"""Seconds within which a damaged file has to be answered."""


class Reader:
    """A process that reads damaged files, and what it says of them; if one is its end, another takes its place."""

    def __init__(self) -> None:
        self.process: Any = None

    def __call__(self, name: str, seed: int, count: int) -> tuple[int, list[str]]:
        """How many damaged files were tried, and what was wrong."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--answer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        self.process.stdin.write(json.dumps([name, seed, count]).encode() + b"\n")
        self.process.stdin.flush()
        tried, rest, trying = 0, b"", name
        while True:
            said = os.read(self.process.stdout.fileno(), 1 << 16) if self._heard() else b""
            if not said:
                self.close()
                return tried, [f"{trying}: no answer within {SILENCE} seconds, or the process died"]
            *lines, rest = (rest + said).split(b"\n")
            for line in map(json.loads, lines):
                if "faults" in line:
                    return tried, line["faults"]
                tried, trying = tried + 1, line["trying"]

    def _heard(self) -> list[Any]:
        return select.select([self.process.stdout], [], [], SILENCE)[0]

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def answer() -> None:
    """Answer questions: [kind, seed, count] for its faults."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def before(what: str) -> None:
        answers.write(json.dumps({"trying": what}) + "\n")

    for line in sys.stdin:
        name, seed, count = json.loads(line)
        answers.write(json.dumps({"faults": faults(name, seed, count, before)}) + "\n")


def search(names: Sequence[str], seconds: float, seed: int) -> int:
    """Print what is wrong with kinds, so many seconds for each, and say how much that was."""
    reader, wrong = Reader(), 0
    for name in names:
        until, tried, at = time.monotonic() + seconds, 0, seed
        while time.monotonic() < until:
            more, found = reader(name, at, 200)
            tried, wrong, at = tried + more, wrong + len(found), at + 1
            print(*found, sep="\n", end="\n" * bool(found), flush=True)
        print(f"{name}: {tried} damaged files", file=sys.stderr)
    reader.close()
    return wrong


def main() -> None:
    """What is given on the command line."""
    parser = argparse.ArgumentParser(description="Damage small files, and see what is said of them.")
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(map(repr, KINDS))}; all, if none is given"
    )
    parser.add_argument("--seconds", type=float, default=5, help="for each kind (5)")
    parser.add_argument("--seed", type=int, default=100, help="of the first two hundred damaged files (100)")
    parser.add_argument("--answer", action="store_true", help="answer questions that come in, as the tests ask them")
    given = parser.parse_args()
    unknown = [name for name in given.kinds if name not in KINDS]
    if unknown:
        parser.error(f"there is no kind {unknown[0]!r}; there are {', '.join(map(repr, KINDS))}")
    if given.answer:
        answer()
    elif search(given.kinds or list(KINDS), given.seconds, given.seed):
        sys.exit(1)


if __name__ == "__main__":
    main()
