"""Formats: `read_X(path, ...)` is a flow over a file, `write_X(path, flow, ...)` writes a flow to one.

Each needs its own library, as an extra (`pip install "flowfn[lmdb]"`), and imports it when it is called. Nothing is
unpickled unless it is allowed (`allow_pickle=True`).

What a reader says of a file names it: a ValueError where its content is wrong, an OSError where the system cannot read.
What a writer cannot write is an OSError, and nothing half is ever under the final name: until a file is whole it lies in a
folder `.part-` and eight digits beside its place. A writer that is killed leaves that folder, and the next to write there
removes it (on systems and disks with locks on folders; elsewhere it stays).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flowfn.homes import publish as _publish

if TYPE_CHECKING:
    from flowfn.formats.array_writing import write_npy, write_npz
    from flowfn.formats.arrays import read_npy, read_npz
    from flowfn.formats.caffe import read_caffe_lmdb
    from flowfn.formats.chunked import read_zarr, write_zarr
    from flowfn.formats.csv_writing import write_csv
    from flowfn.formats.examples import as_example, from_example
    from flowfn.formats.hierarchical import read_hdf5, write_hdf5
    from flowfn.formats.json_lines import read_jsonl, write_jsonl
    from flowfn.formats.keyvalue import read_lmdb, write_lmdb
    from flowfn.formats.sharding import write_shards
    from flowfn.formats.sparse import read_svmlight, write_svmlight
    from flowfn.formats.table_writing import write_arrow, write_parquet
    from flowfn.formats.tables import read_arrow, read_parquet
    from flowfn.formats.tar import read_webdataset
    from flowfn.formats.tar_writing import write_webdataset
    from flowfn.formats.text import read_csv
    from flowfn.formats.tfrecord_writing import write_tfrecord
    from flowfn.formats.tfrecords import read_tfrecord

__all__ = [
    "as_example",
    "from_example",
    "read_arrow",
    "read_caffe_lmdb",
    "read_csv",
    "read_hdf5",
    "read_jsonl",
    "read_lmdb",
    "read_npy",
    "read_npz",
    "read_parquet",
    "read_svmlight",
    "read_tfrecord",
    "read_webdataset",
    "read_zarr",
    "write_arrow",
    "write_csv",
    "write_hdf5",
    "write_jsonl",
    "write_lmdb",
    "write_npy",
    "write_npz",
    "write_parquet",
    "write_shards",
    "write_svmlight",
    "write_tfrecord",
    "write_webdataset",
    "write_zarr",
]

_WHERE = {
    "as_example": "examples",
    "from_example": "examples",
    "read_arrow": "tables",
    "read_caffe_lmdb": "caffe",
    "read_csv": "text",
    "read_hdf5": "hierarchical",
    "read_jsonl": "json_lines",
    "read_lmdb": "keyvalue",
    "read_npy": "arrays",
    "read_npz": "arrays",
    "read_parquet": "tables",
    "read_svmlight": "sparse",
    "read_tfrecord": "tfrecords",
    "read_webdataset": "tar",
    "read_zarr": "chunked",
    "write_arrow": "table_writing",
    "write_csv": "csv_writing",
    "write_hdf5": "hierarchical",
    "write_jsonl": "json_lines",
    "write_lmdb": "keyvalue",
    "write_npy": "array_writing",
    "write_npz": "array_writing",
    "write_parquet": "table_writing",
    "write_shards": "sharding",
    "write_svmlight": "sparse",
    "write_tfrecord": "tfrecord_writing",
    "write_webdataset": "tar_writing",
    "write_zarr": "chunked",
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
