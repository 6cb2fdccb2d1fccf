"""HDF5: datasets of a file as datapoints, read row by row, chunk by chunk, or batch by batch, never as a whole.

The format: https://docs.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.formats.arrays.hdf5_elsewhere import Beside, broken_link, open_hdf5
from flowfn.formats.arrays.hdf5_writing import BYTES, write_hdf5
from flowfn.formats.arrays.stored_rows import StoredArray, StoredRows, flow_of_rows
from flowfn.formats.joining.members import Makeup, equal_lengths, form_of, names_in
from flowfn.formats.joining.several import open_paths
from flowfn.storage.damage import raise_clearly
from flowfn.storage.files import call, is_url, open_file

__all__ = ["read_hdf5", "write_hdf5"]

CHUNK_CACHE = 1 << 25
"""Bytes of decoded chunks that HDF5 keeps for each dataset, at least."""
SMALL_ROW = 1 << 10
"""Bytes of a row up to which many rows are read together."""
TOGETHER = 1 << 6
"""How many scattered rows of chunks are read together."""
LARGEST_CACHE = 1 << 32
"""Bytes of decoded chunks that it keeps at most: no chunk can have more."""
_ENCODING = rules.Rule(
    "the name of an encoding, or None",
    lambda value: value is None or isinstance(value, str),
    lambda value, others: _is_known(value),
)


@rules.checked(encoding=_ENCODING)
def read_hdf5(path: Any, datasets: Any = None, *, encoding: str | None = "utf-8") -> Flow[Any]:
    """A flow of the rows of datasets in an HDF5 file: number i of each makes datapoint i.

    `datasets` is the name of one ("train/images"; datapoints are its rows), a list of names (lists), a dict of names by
    component (dicts), or None: all datasets directly in the file (dicts). They are read when they are wanted: in
    order, chunk by chunk; scattered, sorted, so that no chunk is read twice in a block; batched, as whole blocks
    (`batch` right after, or after `shuffle`, `shard`, `take`, `select`). `shuffle(window=n)` is the shuffle that
    compressed chunks like. Rows are new arrays (a row that is kept keeps what was read with it: a chunk, or a
    megabyte); variable-length texts are strings, decoded from `encoding` (None: they stay bytes, as texts of a fixed
    length and texts in fields do). `path` may be a URL, a glob pattern, a range in braces ("part-{00..07}.h5"), or a
    list of them: rows of one file come after those of the other.

    What HDF5 would fill in, it refuses: virtual datasets whose sources, and external storage whose files, are not all
    there. Elements that were never written are the fill value of the dataset. A file that is written in SWMR mode can
    be read meanwhile; filters beyond those of HDF5 are used where hdf5plugin is installed.

    Raises:
        ValueError: it is no HDF5 file, or a damaged one; there is no such dataset; lengths differ;
            something is missing that lies in another file.
        OSError: it is locked by who writes it.
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
    rows = open_paths(path, "read_hdf5", lambda one: Hdf5Rows(one, datasets, encoding))
    told = call("read_hdf5", path, *[datasets] * (datasets is not None), encoding=(encoding, "utf-8"))
    return flow_of_rows(rows, "read_hdf5", told)


class Hdf5Rows(StoredRows):
    """Datasets of an HDF5 file."""

    keeps_chunks = True

    def __init__(self, path: Any, datasets: Any, encoding: str | None) -> None:
        self.datasets, self.encoding = datasets, encoding
        super().__init__(path, "read_hdf5")

    def open(self) -> _Hdf5:
        """Open the file; a larger chunk does not fit into the usual cache, and would be decoded for each row."""
        chunks = [2 * kept.row_size * kept.chunk for kept in self.kept]
        return _Hdf5(
            self.path,
            [kept.name for kept in self.kept],
            max(CHUNK_CACHE, min(max(chunks), LARGEST_CACHE)),
            self.encoding,
        )

    def looked_at(self) -> tuple[Makeup, list[StoredArray]]:
        """The datasets as they say they are."""
        with _Hdf5(self.path, (), CHUNK_CACHE, None) as opened:
            there = [name for name in opened.file if opened.holds_rows(name)]
            there += [name for name in names_in(self.datasets) if name not in there and opened.holds_rows(name)]
            form = form_of(self.datasets, there, "read_hdf5", "datasets", self.path)
            found = {name: opened.dataset(name) for name in form.names}
            equal_lengths({name: dataset.shape for name, dataset in found.items()}, "read_hdf5", "datasets", self.path)
            return form, [
                StoredArray(name, len(d), d.dtype, d.shape[1:], d.chunks[0] if d.chunks else 0)
                for name, d in found.items()
            ]

    def hint(self, error: Exception) -> str:
        """What to do about an error in reading rows."""
        if isinstance(error, UnicodeError):
            return f"; it is not in {self.encoding}: pass encoding= to say in what, or encoding=None to have bytes"
        return super().hint(error)

    def read(self, at: int, start: int, stop: int) -> np.ndarray:
        """Consecutive rows of a dataset."""
        opened = self.handle
        rows = opened.datasets[at][start:stop]
        return opened.values[at](rows) if opened.values[at] is not None else rows

    def read_one(self, at: int, index: int) -> Any:
        """One row of a dataset, which HDF5 finds faster than a slice of one."""
        opened = self.handle
        return super().read_one(at, index) if self.kept[at].dtype.hasobject else opened.datasets[at][index]

    def read_into(self, at: int, start: int, stop: int, made: np.ndarray) -> None:
        """Consecutive rows of a dataset, without another copy."""
        self.handle.datasets[at].read_direct(made, np.s_[start:stop])

    def read_each(self, at: int, wanted: np.ndarray) -> np.ndarray | None:
        """Scattered small rows, some at a time: HDF5 takes longer for each of many,
        and of many chunks, or of large rows."""
        opened, kept = self.handle, self.kept[at]
        if (
            opened.values[at] is not None
            or kept.dtype.hasobject
            or kept.row_size > SMALL_ROW
            or len(wanted) <= 8
            or not kept.scattered(wanted)
        ):
            return None
        if kept.chunk:
            return opened.datasets[at][wanted] if kept.chunk > 1 and len(wanted) <= TOGETHER else None
        return np.concatenate(
            [opened.datasets[at][wanted[first : first + 128]] for first in range(0, len(wanted), 128)]
        )


class _Hdf5:
    """An open file, and the datasets that are read from it."""

    def __init__(self, path: str, names: Sequence[str], cache: int, encoding: str | None) -> None:
        self.path, self.beside = path, Beside(path)
        self.file: Any = None
        self.h5py: Any = needed("h5py", "read_hdf5()", extra="hdf5")
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # tells HDF5 of its filters
        self.below = open_file(path, who="read_hdf5()") if is_url(path) else None
        try:
            self.file = open_hdf5(self.below or path, f"read_hdf5(): {path}", rdcc_nbytes=cache)
            found = [self.dataset(name) for name in names]
            self.datasets = [
                dataset.asstr(encoding) if encoding and self._is_text(dataset) else dataset for dataset in found
            ]
            self.values = [_bytes_of if dataset.attrs.get(BYTES) else None for dataset in found]
        except Exception as error:
            self.close()
            raise_clearly(error, path, f"read_hdf5(): {path} is no HDF5 file, or not a whole one")

    def holds_rows(self, name: str) -> bool:
        """Whether there is a dataset under a name, or should be:
        a link that leads nowhere is to be told, not passed over."""
        found = self.file.get(name)
        return isinstance(found, self.h5py.Dataset) or (found is None and broken_link(self.file, name) is not None)

    def dataset(self, name: str) -> Any:
        """A dataset of which nothing is missing.

        Raises:
            ValueError: something is, or it holds no data.
        """
        said = f"read_hdf5(): {name!r} in {self.path}"
        broken = broken_link(self.file, name)
        if broken is not None:
            raise ValueError(f"{said} {broken}; put back what it leads to, or choose others: datasets=[...]")
        dataset = self.file[name]
        try:
            dtype = dataset.dtype
        except TypeError as error:
            raise ValueError(f"{said} has a type that numpy does not know: {error}") from error
        if self._refers(dtype):
            raise ValueError(f"{said} holds references into the file, which are no data")
        self.beside.check(dataset, said)
        if dataset.shape is None:
            raise ValueError(
                f"{said} has no elements (a null dataspace), and so no rows; choose others: datasets=[...]"
            )
        return dataset

    def _is_text(self, dataset: Any) -> bool:
        """Whether rows are texts of any length."""
        told = self.h5py.check_string_dtype(dataset.dtype)
        return told is not None and told.length is None

    def _refers(self, dtype: np.dtype) -> bool:
        """Whether there are references in values of a type, however deep."""
        vlen = self.h5py.check_vlen_dtype(dtype)
        inner = (
            [dtype[name] for name in dtype.names or ()]
            + [dtype.base] * (dtype.base != dtype)
            + [np.dtype(vlen)] * (vlen is not None)
        )
        return self.h5py.check_ref_dtype(dtype) is not None or any(map(self._refers, inner))

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
        self.beside.close()
        if self.below is not None:
            self.below.close()

    def __enter__(self) -> _Hdf5:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _is_known(encoding: str | None) -> bool:
    with contextlib.suppress(LookupError):
        return encoding is None or bool(codecs.lookup(encoding))
    return False


def _bytes_of(rows: np.ndarray) -> np.ndarray:
    made = np.empty(len(rows), object)
    made[:] = [row.tobytes() for row in rows]
    return made
