"""What is no source, told by what it is, and the conversion that makes it one.

Nothing is imported to tell: whoever has made a table of some library has imported it,
and its class says where it is from.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Set, ValuesView
from itertools import islice
from types import ModuleType
from typing import Any

from flowfn.flows.flow import Flow
from flowfn.functions import is_stage, makes_stages
from flowfn.showing import brief

FEW = 64
"""So many items of a container are looked at."""

MOST_COLUMNS = 8
"""More arrays in one container are not taken for the columns of a data set."""

_SPLITS = frozenset(
    {"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval", "unsupervised"}
)

_ROWS_ADVICE = "flowfn.interop.from_table(%s) for its rows as dicts"
_HOMES: Mapping[tuple[str, str], str] = {
    ("pyarrow", "Table"): f"an Arrow table; write {_ROWS_ADVICE % 'table'}",
    ("pyarrow", "RecordBatch"): f"an Arrow record batch; write {_ROWS_ADVICE % 'batch'}",
    ("pyarrow", "RecordBatchReader"): f"an Arrow reader; write {_ROWS_ADVICE % 'reader.read_all()'}",
    (
        "pyarrow",
        "Dataset",
    ): "an Arrow data set; write flowfn.formats.read_parquet(path), or flowfn.interop.from_table(dataset.to_table())",
    ("pyarrow", "Scanner"): f"an Arrow scanner; write {_ROWS_ADVICE % 'scanner.to_table()'}",
    ("pyarrow", "ChunkedArray"): "an Arrow array; write array.to_numpy(), or array.to_pylist()",
    ("pyarrow", "Array"): "an Arrow array; write array.to_numpy(zero_copy_only=False), or array.to_pylist()",
    ("polars", "DataFrame"): f"a polars DataFrame; write {_ROWS_ADVICE % 'df'}, df.rows() for tuples",
    ("polars", "LazyFrame"): f"a polars LazyFrame; write {_ROWS_ADVICE % 'lazy.collect()'}",
    (
        "duckdb",
        "DuckDBPyRelation",
    ): "a DuckDB relation; write from_arrays(**relation.fetchnumpy()), or relation.fetchall() for rows",
    (
        "_duckdb",
        "DuckDBPyRelation",
    ): "a DuckDB relation; write from_arrays(**relation.fetchnumpy()), or relation.fetchall() for rows",
    ("pyspark", "DataFrame"): "a Spark DataFrame; write flowfn.interop.from_table(df.toPandas()), or read its files",
    ("ray", "Dataset"): "a Ray data set; write flowfn.interop.from_ray(dataset)",
    (
        "xarray",
        "Dataset",
    ): "an xarray Dataset; write from_arrays(**{name: ds[name].to_numpy() for name in ds.data_vars})",
    ("xarray", "DataArray"): "an xarray DataArray; write array.to_numpy()",
    (
        "h5py",
        "Group",
    ): 'an HDF5 file or group; write flowfn.formats.read_hdf5(path, names), or from_arrays(x=file["x"])',
    ("zarr", "Group"): "a Zarr group; write flowfn.formats.read_zarr(path), or one of its arrays as array[:]",
    ("zarr", "Array"): "a Zarr array; write flowfn.formats.read_zarr(path), or array[:] for all of it",
    ("numpy", "NpzFile"): "an npz archive; write flowfn.formats.read_npz(path), or from_arrays(**archive)",
    (
        "scipy",
        "spmatrix",
    ): "a sparse matrix; write matrix.toarray(), or pipe(range(matrix.shape[0]), map(matrix.__getitem__))",
    (
        "scipy",
        "sparray",
    ): "a sparse array; write array.toarray(), or pipe(range(array.shape[0]), map(array.__getitem__))",
    ("pandas", "BaseGroupBy"): 'a pandas GroupBy; write [group.to_dict("records") for _, group in grouped]',
    ("sqlite3", "Connection"): "a connection; write lambda: connection.execute(query)",
    ("PIL", "Image"): "one image; write [image] for a source of one, np.asarray(image) for its rows",
    ("lmdb", "Environment"): "an LMDB environment; write flowfn.formats.read_lmdb(path)",
    ("queue", "Queue"): "a queue; write from_queue(queue)",
    ("multiprocessing", "Queue"): "a queue; write from_queue(queue)",
    ("multiprocessing", "SimpleQueue"): "a queue; write from_queue(queue)",
}
"""By the root of the module that a class is from, and its name; of this class or one that it inherits from."""

_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".jsonl": "read_jsonl",
    ".ndjson": "read_jsonl",
    ".npy": "read_npy",
    ".npz": "read_npz",
    ".h5": "read_hdf5",
    ".hdf5": "read_hdf5",
    ".zarr": "read_zarr",
    ".parquet": "read_parquet",
    ".arrow": "read_arrow",
    ".feather": "read_arrow",
    ".lmdb": "read_lmdb",
    ".mdb": "read_lmdb",
    ".tfrecord": "read_tfrecord",
    ".tfrecords": "read_tfrecord",
    ".tar": "read_webdataset",
    ".svm": "read_svmlight",
    ".libsvm": "read_svmlight",
    ".bin": "read_tokens",
    ".idx": "read_megatron",
    ".svmlight": "read_svmlight",
}

_FORMATS = "flowfn.formats.read_csv(path), read_parquet(path), ..."

_FOREIGN_DATA: tuple[tuple[Callable[[Any], Any], str], ...] = (
    (
        lambda s: type(s).__module__.split(".")[0] == "dask" and hasattr(s, "compute"),
        "a lazy collection of Dask; write x.compute() first",
    ),
    (lambda s: hasattr(s, "iloc") and hasattr(s, "columns"), f"a DataFrame; write {_ROWS_ADVICE % 'df'}"),
    (lambda s: hasattr(s, "iloc"), "a pandas Series; write series.to_numpy()"),
    (
        lambda s: isinstance(s, Mapping),
        "a mapping; write list(d.items()), or from_arrays(**d) for arrays of equal length",
    ),
    (
        lambda s: isinstance(s, Set) and not isinstance(s, (KeysView, ItemsView)),
        "a set, whose order is not reproducible; write sorted(s)",
    ),
    (lambda s: isinstance(s, type), "a class; write an instance of it"),
    (lambda s: isinstance(s, ModuleType), "a module; write what it holds"),
    (lambda s: getattr(s, "shape", None) == () and not callable(s), "an array without rows; write array.reshape(1)"),
    (
        lambda s: _has_method(s, "__arrow_c_stream__") and hasattr(s, "columns"),
        f"a table; write {_ROWS_ADVICE % 'table'}",
    ),
    (lambda s: _has_method(s, "__dataframe__"), "a table; write its rows as a list"),
    (
        lambda s: (
            callable(getattr(s, "keys", None)) and _has_method(s, "__getitem__") and not _has_method(s, "reset_state")
        ),
        "an object that is read by keys; write pipe(list(x.keys()), map(x.__getitem__))",
    ),
    (lambda s: _has_method(s, "__aiter__"), "asynchronous; write a function that returns an ordinary iterator"),
)


def refuse_source(source: Any, caller: str) -> None:
    """Raise the TypeError that names the conversion, if this is no source for a flow."""
    if isinstance(source, (list, tuple, deque)):
        _refuse_parts(source, caller)
        return
    if makes_stages(source):
        name = source.__name__
        raise TypeError(f"{caller}(): a source cannot be the function {name} itself; write pipe(source, {name}(...))")
    if is_stage(source):
        raise TypeError(f"{caller}(): source is the stage {source}, not data; write pipe(source, {source}, ...)")
    instead = (
        _text(source)
        or _split(source)
        or _homely(source)
        or _tabular(source)
        or next((instead for is_such, instead in _FOREIGN_DATA if is_such(source)), "")
    )
    if isinstance(source, (Mapping, Set, ValuesView)):
        _refuse_parts(source.values() if isinstance(source, Mapping) else source, caller)
    if instead:
        raise TypeError(f"{caller}(): a source cannot be {instead} (got {brief(source)})")


def refuse_flow(datapoint: Any, caller: str) -> None:
    """Raise if the first datapoint of an iterator is a flow: several were meant as sources."""
    if isinstance(datapoint, Flow):
        raise TypeError(
            f"{caller}(): the datapoints of this iterator are flows; {_joining(caller)}, or flow(f) if they are meant"
        )


def nothing(source: Any, caller: str) -> TypeError:
    """The error for what holds no datapoints at all."""
    hint = f"; range({source}) counts to it" if type(source) is int and source >= 0 else ""
    queue = "; from_queue(queue) reads one" if callable(getattr(source, "get", None)) and hasattr(source, "put") else ""
    return TypeError(
        f"{caller}(): a source is a sequence, an iterable or a function that returns one, got "
        f"{brief(source)}{hint or queue}"
    )


def columns(arrays: Iterable[Any]) -> bool:
    """Whether these are arrays of one first dimension, as the columns of a data set are.

    >>> import numpy as np
    >>> columns([np.zeros((4, 2)), np.zeros(4)]), columns([np.zeros(4), [1]])
    (True, False)
    """
    shapes = [tuple(getattr(array, "shape", ())) for array in arrays]
    return len(shapes) > 1 and all(shapes) and len({shape[0] for shape in shapes}) == 1 and shapes[0][0] > 1


def are_columns(source: Any) -> bool:
    """Whether a list or tuple of arrays is surely meant as the columns of a data set: (X, y), say.

    Arrays of one length, one of which is a row of numbers and another is not. In a tuple, any of different shapes.
    """
    if not 1 < len(source) <= MOST_COLUMNS or not columns(source):
        return False
    axes = {len(array.shape) for array in source}
    return (1 in axes and len(axes) > 1) or (
        isinstance(source, tuple) and len({tuple(array.shape) for array in source}) > 1
    )


def _refuse_parts(parts: Any, caller: str) -> None:
    """Raise if the items of a container are flows or stages, or the columns of a data set."""
    first = list(islice(parts, FEW))
    stage = next((one for one in first if is_stage(one) or makes_stages(one)), None)
    if stage is not None:
        shown = stage.__name__ if makes_stages(stage) else stage
        raise TypeError(
            f"{caller}(): a source cannot hold the stage {shown}; write pipe(source, stage, ...), one by one"
        )
    if any(isinstance(one, Flow) for one in first):
        raise TypeError(
            f"{caller}(): a source cannot hold flows; {_joining(caller)}, one by one, or flow(lambda: flows) if they "
            "are the datapoints"
        )
    if isinstance(parts, (list, tuple)) and are_columns(parts):
        raise TypeError(
            f"{caller}(): a source cannot be the columns {brief(parts)}; write from_arrays(*arrays) for their rows, "
            "or flow(lambda: arrays) if the arrays themselves are the datapoints"
        )


def _joining(caller: str) -> str:
    several = caller if caller in ("concat", "mix", "zip", "zip_components") else "concat"
    others = "" if several == caller else " (or mix, or zip)"
    return f"write {several}(*flows){others}"


def _text(source: Any) -> str:
    """What to write instead of a string or a path."""
    if isinstance(source, bytes):
        return "a string; write text.splitlines() for its lines, list(text) for its characters"
    if not isinstance(source, (str, os.PathLike)):
        return ""
    path = os.fspath(source)
    stem = str(path).lower().removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz").removesuffix(".zst")
    reader = _READERS.get(os.path.splitext(stem)[1], "")
    text = "text.splitlines() for its lines, list(text) for its characters"
    named = (
        f"flowfn.formats.{reader}(path)"
        if reader
        else f"files(path) for the files that match it, or a reader ({_FORMATS})"
    )
    if isinstance(source, str) and not reader and not any(sign in source for sign in "/\\*"):
        return f"a string; write {text}; or, for a path, {named}"
    return f"a path; write {named}" + f"; for a text, {text}" * isinstance(source, str)


def _homely(source: Any) -> str:
    """What to write instead of a thing of another library, by where its class is from."""
    for kind in type(source).__mro__:
        found = _HOMES.get((kind.__module__.split(".")[0], kind.__name__))
        if found:
            return found
    return ""


def _split(source: Any) -> str:
    """What to write instead of a dict of splits."""
    home = any(kind.__name__ in ("DatasetDict", "IterableDatasetDict") for kind in type(source).__mro__)
    names = [name for name in source if isinstance(name, str)] if isinstance(source, Mapping) else []
    if not home and not _SPLITS & set(names):
        return ""
    words = f", {', '.join(map(repr, names[:FEW]))}" * bool(names)
    first = next((name for name in names if name in _SPLITS), names[0] if names else "train")
    return f'a dict of splits{words}; name one of them: write d["{first}"], say, or concat(*d.values()) for all'


def _tabular(source: Any) -> str:
    """What to write instead of a Hugging Face dataset whose datapoints are tables of one row,
    which it cannot give several of."""
    kinds = {kind.__name__ for kind in type(source).__mro__ if kind.__module__.split(".")[0] == "datasets"}
    if "Dataset" in kinds:
        form = source.format["type"]
    else:
        form = (
            getattr(getattr(source, "_formatting", None), "format_type", None) if "IterableDataset" in kinds else None
        )
    if form not in ("arrow", "polars", "pandas") or (form == "pandas" and "Dataset" in kinds):
        return ""
    return (
        f"a Hugging Face dataset in the format {form!r}, which gives tables and no rows; write "
        "dataset.with_format(None) for rows of "
        'Python\'s values ("numpy", "torch" for others), or lambda: dataset if tables of one row are meant'
    )


def _has_method(source: Any, name: str) -> bool:
    return getattr(type(source), name, None) is not None
