"""Zarr: arrays in chunks, each a file or an object of its own, as datapoints.

The format: https://zarr-specs.readthedocs.io
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import numpy as np

from flowfn import forks, rules
from flowfn.extras import needed
from flowfn.flows import Flow
from flowfn.formats import archives
from flowfn.formats.damage import tell
from flowfn.formats.files import call, is_url
from flowfn.formats.members import Fill, Form, equal_lengths, filled, form_of, names_in
from flowfn.formats.stored_rows import LARGEST, Kept, StoredRows, flow_of_rows
from flowfn.formats.writing import shown, written

CACHED = 1 << 26
"""Bytes of decoded chunks that are kept, because the next rows may lie in them."""

_CHUNK = rules.optional(rules.positive)


def read_zarr(path: Any, arrays: Any = None) -> Flow[Any]:
    """A flow of the rows of arrays in a Zarr store (a folder, a URL, a .zip): number i of each makes datapoint i.

    `arrays` is the name of one (datapoints are its rows), a list of names (lists), a dict of names by component (dicts),
    or None: all in the group (dicts), or the one array that the store is (its rows). Chunks are read when they are
    wanted, and those read last are kept; scattered rows of a block are sorted first. Versions 2 and 3 of the format.

    Raises:
        ValueError: it is no Zarr store, or a damaged one; there is no such array; lengths differ.
        FileNotFoundError: there is nothing at `path`.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/squares.zarr"
    >>> write_zarr(path, [[x, x * x] for x in range(5)])
    >>> read_zarr(path, {"square": "1"})[3]
    {'square': np.int64(9)}
    """
    needed("zarr", "read_zarr()", extra="zarr")
    return flow_of_rows(ZarrRows(path, arrays), "read_zarr", call("read_zarr", path, *[arrays] * (arrays is not None)))


class ZarrRows(StoredRows):
    """Arrays of a Zarr store."""

    def __init__(self, path: Any, arrays: Any) -> None:
        self.arrays = arrays
        super().__init__(path, "read_zarr")

    def stamped(self) -> str:
        """The file of the store that changes when it is written anew."""
        if is_url(self.path) or not os.path.isdir(self.path):
            return self.path
        told = (os.path.join(self.path, name) for name in ("zarr.json", ".zgroup", ".zarray"))
        return next((name for name in told if os.path.exists(name)), self.path)

    def open(self) -> _Zarr:
        """Open the store."""
        return _Zarr(self.path, [kept.name for kept in self.kept])

    def looked_at(self) -> tuple[Form, list[Kept]]:
        """The arrays as they say they are."""
        zarr: Any = needed("zarr", "read_zarr()", extra="zarr")
        opened = _Zarr(self.path, [])
        try:
            root = opened.root
            if isinstance(root, zarr.Array):
                if self.arrays is not None:
                    raise ValueError(f"read_zarr(): {self.path} is one array, in which there is none to choose; leave out arrays=")
                form, found = Form(None, True, [""]), {"": root}
            else:
                found = dict(root.arrays())
                for name in names_in(self.arrays):
                    if name not in found and isinstance(root.get(name), zarr.Array):
                        found[name] = root[name]
                form = form_of(self.arrays, sorted(found), "read_zarr", "arrays", self.path)
            equal_lengths({name: found[name].shape for name in form.names}, "read_zarr", "arrays", self.path)
            return form, [_kept(found[name], name) for name in form.names]
        finally:
            opened.close()

    def read(self, at: int, start: int, stop: int) -> np.ndarray:
        """Consecutive rows of an array: whole chunks as they are read, other rows out of chunks that are kept."""
        kept, opened = self.kept[at], self.handle
        whole = start % kept.chunk == 0 and (stop % kept.chunk == 0 or stop == kept.length)
        if whole or kept.chunk * kept.row_size > LARGEST:
            return np.asarray(opened.arrays[at][start:stop])
        made = np.empty((stop - start, *kept.shape), kept.dtype)
        self.read_into(at, start, stop, made)
        return made

    def read_into(self, at: int, start: int, stop: int, made: np.ndarray) -> None:
        """Consecutive rows of an array, chunk by chunk."""
        kept, opened = self.kept[at], self.handle
        if kept.chunk * kept.row_size > LARGEST:
            made[...] = opened.arrays[at][start:stop]
            return
        for number in range(start // kept.chunk, -(-stop // kept.chunk)):
            first = number * kept.chunk
            begin, end = max(start, first), min(stop, first + kept.chunk)
            made[begin - start : end - start] = opened.chunk(at, first, min(first + kept.chunk, kept.length))[begin - first : end - first]


class _Zarr:
    """An open store, the arrays that are read from it, and the chunks that were read last."""

    def __init__(self, path: str, names: list[str]) -> None:
        zarr: Any = needed("zarr", "read_zarr()", extra="zarr")
        if not is_url(path) and not os.path.exists(path):
            raise FileNotFoundError(f"read_zarr(): there is no {path}")
        try:
            zipped = not is_url(path) and os.path.isfile(path)
            if zipped:
                with open(path, "rb") as file:
                    archives.opened(file)
            self.root = zarr.open(zarr.storage.ZipStore(path, mode="r") if zipped else path, mode="r")
            self.arrays = [self.root[name] if name else self.root for name in names]
        except Exception as error:
            tell(error, path, f"read_zarr(): {path} is no Zarr store, or a damaged one")
        self._chunks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._size, self._turn = 0, forks.lock()

    def chunk(self, at: int, start: int, stop: int) -> np.ndarray:
        """The rows of a chunk, which are not to be changed."""
        with self._turn:
            found = self._chunks.get((at, start))
            if found is not None:
                self._chunks.move_to_end((at, start))
                return found
        found = np.asarray(self.arrays[at][start:stop])
        with self._turn:
            if (at, start) not in self._chunks:
                self._chunks[at, start] = found
                self._size += found.nbytes
                while self._size > CACHED and len(self._chunks) > 1:
                    self._size -= self._chunks.popitem(last=False)[1].nbytes
        return found

    def close(self) -> None:
        """Close the store."""
        close = getattr(self.root.store, "close", None)
        if close is not None:
            close()


def _kept(array: Any, name: str) -> Kept:
    dtype = array.dtype
    if not dtype.hasobject and dtype.kind == "T":
        dtype = np.dtype(object)
    return Kept(name, array.shape[0], dtype, array.shape[1:], max(min(array.chunks[0], array.shape[0]), 1))


def write_zarr(path: Any, flow: Any, *, chunk: int | None = None, overwrite: bool = False) -> None:
    """Write datapoints to a Zarr store (a folder, in version 3 of the format): an array for each component.

    Arrays are named by the keys of the datapoints (of lists, by their numbers: "0", "1"). Components are numbers, texts,
    or arrays of one dtype and shape each. `chunk` is how many rows make a chunk, which is a file (None: a
    megabyte of them); it is compressed with zstd, as Zarr does it. A bar is shown; the store appears at `path` when it
    is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or there are none.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/rows.zarr"
    >>> write_zarr(path, ({"x": [x, x + 0.5]} for x in range(3)))
    >>> read_zarr(path, "x")[2]
    array([2. , 2.5])
    """
    zarr: Any = needed("zarr", "write_zarr()", extra="zarr")
    _CHUNK.check("write_zarr", "chunk", chunk, {})
    rules.boolean.check("write_zarr", "overwrite", overwrite, {})
    with written(path, overwrite, "write_zarr", folder=True) as beside, shown(flow, "write_zarr") as datapoints:
        root = zarr.open_group(beside, mode="w")

        def begin(form: Form, parts: list[Any]) -> list[Fill]:
            return [_fill(root, name, part, chunk) for name, part in zip(form.names, parts)]

        filled(datapoints, "write_zarr", begin)


def _fill(root: Any, name: str, first: Any, chunk: int | None) -> Fill:
    array: Any = None

    def put(rows: np.ndarray) -> None:
        nonlocal array
        if array is None:
            dtype: Any = str if fill.kind is str else np.dtype(fill.dtype.str) if fill.dtype.names is None else fill.dtype
            array = root.create_array(name, shape=(0, *fill.shape), dtype=dtype, chunks=(len(fill.block), *(max(n, 1) for n in fill.shape)))
        start = array.shape[0]
        array.resize((start + len(rows), *fill.shape))
        array[start:] = rows

    fill = Fill(first, name, "write_zarr", put, chunk)
    if fill.kind is bytes:
        raise TypeError(
            f"write_zarr(): Zarr has no bytes of any length, of which component {name!r} is; give arrays of uint8 of one length"
        )
    return fill
