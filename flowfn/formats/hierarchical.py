"""HDF5: datasets of a file as datapoints, read row by row, chunk by chunk, or batch by batch, never as a whole.

The format: https://docs.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows import Flow
from flowfn.formats.damage import tell
from flowfn.formats.files import call, is_url, open_file
from flowfn.formats.members import ENOUGH, Fill, Form, equal_lengths, filled, form_of, names_in
from flowfn.formats.stored_rows import Kept, StoredRows, flow_of_rows
from flowfn.formats.writing import shown, written

CACHED = 1 << 25
"""Bytes of decoded chunks that HDF5 keeps for each dataset, at least."""
LARGEST = 1 << 32
"""Bytes of decoded chunks that it keeps at most: no chunk can have more."""
BYTES = "flowfn_bytes"
"""The attribute of a dataset whose rows are bytes of any length: HDF5 knows such strings only without zeros in them."""

_COMPRESSION = rules.one_of("gzip", "lzf", "szip", None)
_CHUNK = rules.optional(rules.positive)


def read_hdf5(path: Any, datasets: Any = None) -> Flow[Any]:
    """A flow of the rows of datasets in an HDF5 file: number i of each makes datapoint i.

    `datasets` is the name of one ("train/images"; datapoints are its rows), a list of names (lists), a dict of names by
    component (dicts), or None: all datasets directly in the file (dicts). They are read when they are wanted: in
    order, chunk by chunk; scattered, sorted, so that no chunk is read twice in a block; batched, as whole blocks
    (`batch` right after, or after `shuffle`, `shard`, `take`, `select`). `shuffle(window=n)` is the shuffle that
    compressed chunks like. Rows are new arrays (a row that is kept keeps what was read with it: a chunk, or a megabyte);
    variable-length texts are strings. `path` may be a URL.

    Raises:
        ValueError: it is no HDF5 file, or a damaged one; there is no such dataset; lengths differ.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/squares.h5"
    >>> write_hdf5(path, [{"x": x, "y": [x * x, 0]} for x in range(5)])
    >>> read_hdf5(path)[3]
    {'x': np.int64(3), 'y': array([9, 0])}
    >>> list(read_hdf5(path, ["y"]))[:2]
    [[array([0, 0])], [array([1, 0])]]
    """
    needed("h5py", "read_hdf5()", extra="hdf5")
    return flow_of_rows(Hdf5Rows(path, datasets), "read_hdf5", call("read_hdf5", path, *[datasets] * (datasets is not None)))


class Hdf5Rows(StoredRows):
    """Datasets of an HDF5 file."""

    def __init__(self, path: Any, datasets: Any) -> None:
        self.datasets = datasets
        super().__init__(path, "read_hdf5")

    def open(self) -> _Hdf5:
        """Open the file; a larger chunk does not fit into the usual cache, and would be decoded for each row."""
        return _Hdf5(self.path, [kept.name for kept in self.kept], [2 * kept.row_size * kept.chunk for kept in self.kept])

    def looked_at(self) -> tuple[Form, list[Kept]]:
        """The datasets as they say they are."""
        h5py: Any = needed("h5py", "read_hdf5()", extra="hdf5")
        with _Hdf5(self.path, [], []) as opened:
            file = opened.file
            there = [name for name in file if isinstance(file.get(name), h5py.Dataset)]
            there += [name for name in names_in(self.datasets) if name not in there and isinstance(file.get(name), h5py.Dataset)]
            form = form_of(self.datasets, there, "read_hdf5", "datasets", self.path)
            equal_lengths({name: tuple(file[name].shape or ()) for name in form.names}, "read_hdf5", "datasets", self.path)
            return form, [self._kept(h5py, file[name], name) for name in form.names]

    def _kept(self, h5py: Any, dataset: Any, name: str) -> Kept:
        try:
            dtype = dataset.dtype
        except TypeError as error:
            raise ValueError(f"read_hdf5(): {name!r} in {self.path} has a type that numpy does not know: {error}") from error
        if h5py.check_ref_dtype(dtype) is not None:
            raise ValueError(f"read_hdf5(): {name!r} in {self.path} holds references into the file, which are no data")
        return Kept(name, len(dataset), dtype, dataset.shape[1:], dataset.chunks[0] if dataset.chunks else 0)

    def read(self, at: int, start: int, stop: int) -> np.ndarray:
        """Consecutive rows of a dataset."""
        opened = self.handle
        rows = opened.datasets[at][start:stop]
        return opened.values[at](rows) if opened.values[at] is not None else rows

    def read_into(self, at: int, start: int, stop: int, made: np.ndarray) -> None:
        """Consecutive rows of a dataset, without another copy."""
        self.handle.datasets[at].read_direct(made, np.s_[start:stop])

    def read_each(self, at: int, wanted: np.ndarray) -> np.ndarray | None:
        """Scattered rows, a hundred at a time: HDF5 takes longer for each of many."""
        opened = self.handle
        if opened.values[at] is not None or self.kept[at].dtype.hasobject:
            return None
        return np.concatenate([opened.datasets[at][wanted[first : first + 128]] for first in range(0, len(wanted), 128)])


class _Hdf5:
    """An open file, and the datasets that are read from it."""

    def __init__(self, path: str, names: Sequence[str], chunks: Sequence[int]) -> None:
        h5py: Any = needed("h5py", "read_hdf5()", extra="hdf5")
        self.below = open_file(path, who="read_hdf5()") if is_url(path) else None
        self.file: Any = None
        try:
            self.file = h5py.File(self.below or path, "r", rdcc_nbytes=max(CACHED, min(max(chunks, default=0), LARGEST)))
            found = [self.file[name] for name in names]
            self.datasets = [dataset.asstr() if _is_text(h5py, dataset) else dataset for dataset in found]
            self.values = [_bytes_of if dataset.attrs.get(BYTES) else None for dataset in found]
        except Exception as error:
            self.close()
            tell(error, path, f"read_hdf5(): {path} is no HDF5 file, or not a whole one")

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
        if self.below is not None:
            self.below.close()

    def __enter__(self) -> _Hdf5:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _is_text(h5py: Any, dataset: Any) -> bool:
    """Whether rows are texts of any length."""
    told = h5py.check_string_dtype(dataset.dtype)
    return told is not None and told.length is None


def _bytes_of(rows: np.ndarray) -> np.ndarray:
    made = np.empty(len(rows), object)
    made[:] = [row.tobytes() for row in rows]
    return made


def write_hdf5(path: Any, flow: Any, *, chunk: int | None = None, compression: str | None = None, overwrite: bool = False) -> None:
    """Write datapoints to an HDF5 file: a dataset for each component, named by its key (of lists, by its number: "0", "1").

    Components are numbers, texts, bytes, or arrays of one dtype and shape each. `chunk` is how many rows make a chunk
    (None: a megabyte of them); `compression` is "gzip", "lzf" or "szip". A bar is shown; the file appears at `path`
    when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or there are none.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/words.h5"
    >>> write_hdf5(path, ["some", "words"], compression="gzip")
    >>> list(read_hdf5(path, "0"))
    ['some', 'words']
    """
    h5py: Any = needed("h5py", "write_hdf5()", extra="hdf5")
    _CHUNK.check("write_hdf5", "chunk", chunk, {})
    _COMPRESSION.check("write_hdf5", "compression", compression, {})
    rules.boolean.check("write_hdf5", "overwrite", overwrite, {})
    with (
        written(path, overwrite, "write_hdf5") as beside,
        open(beside, "w+b", buffering=0) as below,
        _yielding(below) as yielding,
        h5py.File(yielding, "w") as file,
        shown(flow, "write_hdf5") as datapoints,
    ):

        def begin(form: Form, parts: list[Any]) -> list[Fill]:
            return [_fill(h5py, file, name, part, chunk, compression) for name, part in zip(form.names, parts)]

        filled(datapoints, "write_hdf5", begin)


class _Yielding:
    """A file to write to that takes everything once something could not be written, and remembers why.

    HDF5 writes what it holds when a file is closed, and cannot close one that it cannot write to.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or nothing from now on."""
        rest = memoryview(data).cast("B")
        while rest and self.failed is None:
            rest = rest[self._tried(self.file.write, rest) or 0 :]
        return memoryview(data).nbytes

    def truncate(self, size: int) -> None:
        """Set its length, as long as it can be written to."""
        if self.failed is None:
            self._tried(self.file.truncate, size)

    def _tried(self, function: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return function(argument)
        except OSError as error:
            self.failed = error
            return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextlib.contextmanager
def _yielding(file: Any) -> Iterator[_Yielding]:
    made = _Yielding(file)
    try:
        yield made
    finally:
        if made.failed is not None:
            raise made.failed


def _fill(h5py: Any, file: Any, name: str, first: Any, chunk: int | None, compression: str | None) -> Fill:
    dataset: Any = None

    def put(rows: np.ndarray) -> None:
        nonlocal dataset
        if dataset is None:
            kind = h5py.string_dtype() if fill.kind is str else h5py.vlen_dtype(np.uint8) if fill.kind is bytes else _plain(fill, name)
            size = max(int(np.prod(fill.shape)) * fill.dtype.itemsize, 1)
            length = chunk or max(min(ENOUGH // size, 4096, max(len(rows), 16)), 1)
            shape = tuple(max(side, 1) for side in fill.shape)
            most = (None, *(side or None for side in fill.shape))  # a chunk holds something, and fits
            dataset = file.create_dataset(name, (0, *fill.shape), kind, maxshape=most, chunks=(length, *shape), compression=compression)
            if fill.kind is bytes:
                dataset.attrs[BYTES] = True
        start = len(dataset)
        dataset.resize(start + len(rows), axis=0)
        if fill.kind is not bytes:
            try:
                dataset[start:] = rows
            except ValueError as error:
                raise ValueError(
                    f"write_hdf5(): component {name!r} of datapoints {start} to {start + len(rows) - 1} cannot be written: {error}"
                ) from error
            return
        for at, row in enumerate(rows, start):  # together, h5py would take those of one length for another array
            dataset[at] = np.frombuffer(row, np.uint8)

    fill = Fill(first, name, "write_hdf5", put, chunk)
    return fill


def _plain(fill: Fill, name: str) -> np.dtype:
    """The dtype of numbers, which HDF5 has to know."""
    if fill.dtype.kind in "UmM":
        hint = "give texts as str, one by one" if fill.dtype.kind == "U" else 'view them as integers (array.astype("int64"))'
        raise TypeError(f"write_hdf5(): HDF5 has no {fill.dtype}, of which component {name!r} is; {hint}")
    return fill.dtype
