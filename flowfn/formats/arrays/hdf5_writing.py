"""HDF5 files, written component by component.

The format: https://docs.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.extras import needed
from flowfn.formats.joining.members import BLOCK_BYTES, Fill, Makeup, fill_columns
from flowfn.storage.writing import shown, written_whole

BYTES = "flowfn_bytes"
"""The attribute of a dataset whose rows are bytes of any length: HDF5 knows such strings only without zeros in them."""


@rules.checked(
    chunk=rules.optional(rules.positive), compression=rules.one_of("gzip", "lzf", "szip", None), overwrite=rules.boolean
)
def write_hdf5(
    path: Any, flow: Any, *, chunk: int | None = None, compression: str | None = None, overwrite: bool = False
) -> None:
    """Write datapoints to an HDF5 file: a dataset for each component, named by its key (of lists,
    by its number: "0", "1").

    Components are numbers, texts, bytes, or arrays of one dtype and shape each. `chunk` is how many rows make a chunk
    (None: a megabyte of them); `compression` is "gzip", "lzf" or "szip". A bar is shown; the file appears at `path`
    when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or there are none.

    >>> import tempfile
    >>> from flowfn.formats import read_hdf5
    >>> path = tempfile.mkdtemp() + "/words.h5"
    >>> write_hdf5(path, ["some", "words"], compression="gzip")
    >>> list(read_hdf5(path, "0"))
    ['some', 'words']
    """
    h5py: Any = needed("h5py", "write_hdf5()", extra="hdf5")
    with (
        shown(flow, "write_hdf5") as datapoints,
        written_whole(path, overwrite, "write_hdf5") as beside,
        open(beside, "w+b", buffering=0) as below,
        _yielding(below) as yielding,
        h5py.File(yielding, "w") as file,
    ):

        def begin(form: Makeup, parts: list[Any]) -> list[Fill]:
            return [_dataset_fill(h5py, file, name, part, chunk, compression) for name, part in zip(form.names, parts)]

        fill_columns(datapoints, "write_hdf5", begin)


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


def _dataset_fill(h5py: Any, file: Any, name: str, first: Any, chunk: int | None, compression: str | None) -> Fill:
    dataset: Any = None

    def put(rows: np.ndarray) -> None:
        nonlocal dataset
        if dataset is None:
            kind = (
                h5py.string_dtype()
                if fill.kind is str
                else h5py.vlen_dtype(np.uint8)
                if fill.kind is bytes
                else _hdf5_dtype(fill, name)
            )
            size = max(int(np.prod(fill.shape)) * fill.dtype.itemsize, 1)
            length = chunk or max(min(BLOCK_BYTES // size, 4096, max(len(rows), 16)), 1)
            shape = tuple(max(side, 1) for side in fill.shape)
            most = (None, *(side or None for side in fill.shape))  # a chunk holds something, and fits
            dataset = file.create_dataset(
                name, (0, *fill.shape), kind, maxshape=most, chunks=(length, *shape), compression=compression
            )
            if fill.kind is bytes:
                dataset.attrs[BYTES] = True
        start = len(dataset)
        dataset.resize(start + len(rows), axis=0)
        if fill.kind is not bytes:
            try:
                dataset[start:] = rows
            except ValueError as error:
                raise ValueError(
                    f"write_hdf5(): component {name!r} of datapoints {start} to {start + len(rows) - 1} cannot be "
                    f"written: {error}"
                ) from error
            return
        for at, row in enumerate(rows, start):  # together, h5py would take those of one length for another array
            dataset[at] = np.frombuffer(row, np.uint8)

    fill = Fill(first, name, "write_hdf5", put, chunk)
    return fill


def _hdf5_dtype(fill: Fill, name: str) -> np.dtype:
    """The dtype of numbers, which HDF5 has to know."""
    if fill.dtype.kind in "UmM":
        hint = (
            "give texts as str, one by one"
            if fill.dtype.kind == "U"
            else 'view them as integers (array.astype("int64"))'
        )
        raise TypeError(f"write_hdf5(): HDF5 has no {fill.dtype}, of which component {name!r} is; {hint}")
    return fill.dtype
