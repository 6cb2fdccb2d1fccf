"""Formats: `read_X(path, ...)` is a flow over a file, `write_X(path, flow, ...)` writes a flow to one.

Each needs its own library, as an extra (`pip install "flowfn[lmdb]"`), and imports it when it is called. Nothing is
unpickled unless it is allowed (`allow_pickle=True`).

What a reader says of a file names it: a ValueError where its content is wrong, an OSError where the system cannot read.
What a writer cannot write is an OSError, and nothing half is ever under the final name: until a file is whole it lies
in a folder `.part-` and eight digits beside its place. A writer that is killed leaves that folder, and the next to
write there removes it (on systems and disks with locks on folders; elsewhere it stays).

A room for each kind of files: lmdb, tfrecord, tar, tables (Parquet, Arrow), arrays (npy, npz, HDF5, Zarr), text (CSV,
JSON lines, SVMlight), tokens (token files, Megatron-LM), shards (one flow in many files); encoding (datapoints as
bytes) and joining (several arrays or files as one) are for all of them, as `flowfn.storage` is: finding, opening,
writing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flowfn.pickling.homes import publish as _publish

if TYPE_CHECKING:
    from flowfn.formats.arrays.hdf5_reading import read_hdf5, write_hdf5
    from flowfn.formats.arrays.numpy_reading import read_npy, read_npz
    from flowfn.formats.arrays.numpy_writing import write_npy, write_npz
    from flowfn.formats.arrays.zarr_stores import read_zarr, write_zarr
    from flowfn.formats.lmdb.caffe import read_caffe_lmdb
    from flowfn.formats.lmdb.keyvalue import read_lmdb, write_lmdb
    from flowfn.formats.shards.sharding import write_shards
    from flowfn.formats.tables.hugging_face import read_hugging_face
    from flowfn.formats.tables.reading import read_arrow, read_parquet
    from flowfn.formats.tables.writing import write_arrow, write_parquet
    from flowfn.formats.tar.reading import read_webdataset
    from flowfn.formats.tar.writing import write_webdataset
    from flowfn.formats.text.csv_reading import read_csv
    from flowfn.formats.text.csv_writing import write_csv
    from flowfn.formats.text.json_lines import read_jsonl, write_jsonl
    from flowfn.formats.text.sparse import read_svmlight, write_svmlight
    from flowfn.formats.tfrecord.examples import as_example, from_example
    from flowfn.formats.tfrecord.reading import read_tfrecord
    from flowfn.formats.tfrecord.writing import write_tfrecord
    from flowfn.formats.tokens.megatron import read_megatron, write_megatron
    from flowfn.formats.tokens.reading import read_tokens, write_tokens

__all__ = [
    "as_example",
    "from_example",
    "read_arrow",
    "read_caffe_lmdb",
    "read_csv",
    "read_hdf5",
    "read_hugging_face",
    "read_jsonl",
    "read_lmdb",
    "read_megatron",
    "read_npy",
    "read_npz",
    "read_parquet",
    "read_svmlight",
    "read_tfrecord",
    "read_tokens",
    "read_webdataset",
    "read_zarr",
    "write_arrow",
    "write_csv",
    "write_hdf5",
    "write_jsonl",
    "write_lmdb",
    "write_megatron",
    "write_npy",
    "write_npz",
    "write_parquet",
    "write_shards",
    "write_svmlight",
    "write_tfrecord",
    "write_tokens",
    "write_webdataset",
    "write_zarr",
]

_WHERE = {
    "as_example": "tfrecord.examples",
    "from_example": "tfrecord.examples",
    "read_arrow": "tables.reading",
    "read_caffe_lmdb": "lmdb.caffe",
    "read_csv": "text.csv_reading",
    "read_hdf5": "arrays.hdf5_reading",
    "read_hugging_face": "tables.hugging_face",
    "read_jsonl": "text.json_lines",
    "read_lmdb": "lmdb.keyvalue",
    "read_megatron": "tokens.megatron",
    "read_npy": "arrays.numpy_reading",
    "read_npz": "arrays.numpy_reading",
    "read_parquet": "tables.reading",
    "read_svmlight": "text.sparse",
    "read_tfrecord": "tfrecord.reading",
    "read_tokens": "tokens.reading",
    "read_webdataset": "tar.reading",
    "read_zarr": "arrays.zarr_stores",
    "write_arrow": "tables.writing",
    "write_csv": "text.csv_writing",
    "write_hdf5": "arrays.hdf5_reading",
    "write_jsonl": "text.json_lines",
    "write_lmdb": "lmdb.keyvalue",
    "write_megatron": "tokens.megatron",
    "write_npy": "arrays.numpy_writing",
    "write_npz": "arrays.numpy_writing",
    "write_parquet": "tables.writing",
    "write_shards": "shards.sharding",
    "write_svmlight": "text.sparse",
    "write_tfrecord": "tfrecord.writing",
    "write_tokens": "tokens.reading",
    "write_webdataset": "tar.writing",
    "write_zarr": "arrays.zarr_stores",
}
"""In which module of the package each function is; they are imported when they are first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    _publish(__name__, {name: found})
    return found


def __dir__() -> list[str]:
    return __all__
