"""Zarr: arrays in chunks, each a file or an object of its own, as datapoints.

The format: https://zarr-specs.readthedocs.io
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.formats.arrays.stored_rows import StoredArray, StoredRows, flow_of_rows
from flowfn.formats.arrays.zarr_chunks import MANY_CHUNKS, ChunkCache, ChunkedArray, Stored
from flowfn.formats.joining.members import Fill, Makeup, equal_lengths, fill_columns, form_of, names_in
from flowfn.formats.joining.several import open_paths
from flowfn.storage import archives
from flowfn.storage.damage import raise_clearly
from flowfn.storage.files import call, is_url
from flowfn.storage.writing import shown, written_whole

STORE_CACHE = 1 << 26
"""Bytes of decoded chunks that are kept, because the next rows may lie in them."""

HINT = "; install what it needs (its codec), or write it anew with other ones"


def read_zarr(path: Any, arrays: Any = None) -> Flow[Any]:
    """A flow of the rows of arrays in a Zarr store (a folder, a URL, a .zip): number i of each makes datapoint i.

    `arrays` is the name of one (datapoints are its rows), a list of names (lists), a dict of names by component
    (dicts), or None: all in the group (dicts), or the one array that the store is (its rows). Chunks are read when they
    are wanted, and those read last are kept; scattered rows of a block are sorted first. Versions 2 and 3 of the
    format. `path` may be a glob pattern, a range in braces ("part-{00..07}.zarr"), or a list: rows of one store come
    after those of the other.

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
    rows = open_paths(path, "read_zarr", lambda one: ZarrRows(one, arrays), folders=True)
    return flow_of_rows(rows, "read_zarr", call("read_zarr", path, *[arrays] * (arrays is not None)))


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
        return _Zarr(self.path, self.kept)

    def looked_at(self) -> tuple[Makeup, list[StoredArray]]:
        """The arrays as they say they are."""
        zarr: Any = needed("zarr", "read_zarr()", extra="zarr")
        opened = _Zarr(self.path, [])
        try:
            root = opened.root
            if isinstance(root, zarr.Array):
                if self.arrays is not None:
                    raise ValueError(
                        f"read_zarr(): {self.path} is one array, in which there is none to choose; leave out arrays="
                    )
                form, arrays = Makeup(None, True, [""]), {"": opened.array("")}
            else:
                named = names_in(self.arrays)
                arrays = {name: opened.array(name) for name in named if isinstance(opened.member(name), zarr.Array)}
                listed = () if self.arrays is not None and len(arrays) == len(set(named)) else opened.names()
                form = form_of(self.arrays, sorted({*arrays, *listed}), "read_zarr", "arrays", self.path)
                arrays = {name: arrays.get(name) or opened.array(name) for name in form.names}
            equal_lengths({name: array.shape for name, array in arrays.items()}, "read_zarr", "arrays", self.path)
            return form, [_stored_array(arrays[name], name) for name in form.names]
        finally:
            opened.close()

    def read(self, at: int, start: int, stop: int) -> np.ndarray:
        """Consecutive rows of an array: many chunks in one go, and single rows out of chunks that are kept."""
        return self.handle.decoded[at].rows(start, stop)

    def read_each(self, at: int, wanted: np.ndarray) -> np.ndarray | None:
        """Scattered rows of an array, in one go."""
        return self.handle.decoded[at].scattered(wanted)


class _Zarr:
    """An open store, and the arrays that are read from it."""

    def __init__(self, path: str, chosen: Sequence[StoredArray]) -> None:
        self.zarr: Any = needed("zarr", "read_zarr()", extra="zarr")
        self.path = path
        if not is_url(path) and not os.path.exists(path):
            raise FileNotFoundError(f"read_zarr(): there is no {path}")
        zipped = not is_url(path) and os.path.isfile(path)
        try:
            if zipped:
                with open(path, "rb") as file:
                    archives.open_zip(file)
            store = self.zarr.storage.ZipStore(path, mode="r") if zipped else path
            self.root = self.zarr.open(store, mode="r")
            if not is_url(path) and isinstance(
                self.root, self.zarr.Group
            ):  # what was consolidated may be older than the arrays
                self.root = self.zarr.open_group(store, mode="r", use_consolidated=False)
        except Exception as error:
            raise_clearly(error, path, f"read_zarr(): {path} {_failing(path)}", HINT)
        shelf = ChunkCache(STORE_CACHE)
        self.decoded = [
            ChunkedArray(array, kept, shelf, at, self._stored(array, kept.name))
            for at, (array, kept) in enumerate((self.array(kept.name), kept) for kept in chosen)
        ]

    def names(self) -> list[str]:
        """The names of the arrays in the group."""
        try:
            return list(self.root.array_keys())
        except Exception as error:
            said = f"read_zarr(): not all of the arrays that lie in {self.path} can be read"
            raise_clearly(error, self.path, said, "; choose those that can: arrays=[...]")

    def member(self, name: str) -> Any:
        """The array, or group, of a name."""
        try:
            return self.root.get(name)
        except Exception as error:
            raise_clearly(
                error,
                self.path,
                f"read_zarr(): {name!r} of {self.path} {_failing(os.path.join(self.path, name))}",
                HINT,
            )

    def array(self, name: str) -> Any:
        """An array that is read as it was written.

        Raises:
            ValueError: it is not.
        """
        array = self.member(name) if name else self.root
        if array.dtype.names and _is_big(_codecs_of(os.path.join(self.path, name))):
            raise ValueError(
                f"read_zarr(): {name!r} of {self.path} holds fields that are said to be big-endian, which zarr takes "
                "for little-endian; "
                "write it anew in little-endian"
            )
        return array

    def _stored(self, array: Any, name: str) -> Stored | None:
        """Which chunks there are, where looking them up may save much."""
        stored = Stored(array, self.path, name)
        plain = not array.dtype.hasobject and array.fill_value is not None and not is_url(self.path)
        return stored if plain and stored.many > MANY_CHUNKS else None

    def close(self) -> None:
        """Close the store."""
        close = getattr(self.root.store, "close", None)
        if close is not None:
            close()


def _failing(path: str) -> str:
    """What is to be said of something that zarr does not open: it may be whole,
    and of a kind that zarr does not know."""
    for name in ("zarr.json", ".zarray", ".zgroup"):
        with contextlib.suppress(OSError, ValueError), open(os.path.join(path, name), "rb") as file:
            if isinstance(json.load(file), dict):
                return "is of a kind that zarr does not read here"
    return "is no Zarr store, or a damaged one"


def _codecs_of(path: str) -> Iterable[Any]:
    """The codecs of an array in a folder, as its file tells them: zarr forgets the order of bytes of fields."""
    with contextlib.suppress(OSError, ValueError), open(os.path.join(path, "zarr.json"), "rb") as file:
        return json.load(file).get("codecs", ())
    return ()


def _is_big(codecs: Iterable[Any]) -> bool:
    """Whether any codec of an array, or of its shards, says that bytes are in big-endian order."""
    told = [codec.get("configuration") or {} for codec in codecs]
    return any(one.get("endian") == "big" or _is_big(one.get("codecs", ())) for one in told)


def _stored_array(array: Any, name: str) -> StoredArray:
    return StoredArray(name, array.shape[0], array.dtype, array.shape[1:], max(min(array.chunks[0], array.shape[0]), 1))


@rules.checked(chunk=rules.optional(rules.positive), overwrite=rules.boolean)
def write_zarr(path: Any, flow: Any, *, chunk: int | None = None, overwrite: bool = False) -> None:
    """Write datapoints to a Zarr store (a folder, in version 3 of the format): an array for each component.

    Arrays are named by the keys of the datapoints (of lists, by their numbers: "0", "1"). Components are numbers,
    texts, or arrays of one dtype and shape each. `chunk` is how many rows make a chunk, which is a file (None: a
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
    with (
        shown(flow, "write_zarr") as datapoints,
        written_whole(path, overwrite, "write_zarr", folder=True) as beside,
        _folder_store()(beside).settled() as store,
    ):
        root = zarr.open_group(store, mode="w")

        def begin(form: Makeup, parts: list[Any]) -> list[Fill]:
            return [_array_fill(root, name, part, chunk) for name, part in zip(form.names, parts)]

        fill_columns(datapoints, "write_zarr", begin)


@functools.cache
def _folder_store() -> Any:
    """The class of a store that is a folder, as zarr has it, in which nothing is written after `settled`.

    Zarr writes in threads. It raises what the first of them raises while others still write, and one of these would
    make a folder again that has been removed meanwhile.
    """
    zarr: Any = needed("zarr", "write_zarr()", extra="zarr")

    class FolderStore(zarr.storage.LocalStore):  # type: ignore[misc]
        def __init__(self, root: str) -> None:
            super().__init__(root)
            self.closed = False
            self.ends: set[Future[None]] = set()

        @contextlib.contextmanager
        def settled(self) -> Iterator[Any]:
            try:
                yield self
            finally:
                self.closed = True
                wait(self.ends.copy())

        async def set(self, *arguments: Any, **options: Any) -> None:
            await self._noted(super().set(*arguments, **options))

        async def set_if_not_exists(self, *arguments: Any, **options: Any) -> None:
            await self._noted(super().set_if_not_exists(*arguments, **options))

        async def _noted(self, write: Coroutine[Any, Any, None]) -> None:
            """Do a write to its end, whoever gives up waiting for it."""
            end: Future[None] = Future()
            self.ends.add(end)  # before it asks, so that who closes waits for what has not seen that

            async def whole() -> None:
                try:
                    if self.closed:
                        raise ValueError("write_zarr(): nothing more can be written")
                    await write
                finally:
                    write.close()
                    self.ends.discard(end)
                    end.set_result(None)

            await asyncio.shield(whole())

    return FolderStore


def _array_fill(root: Any, name: str, first: Any, chunk: int | None) -> Fill:
    array: Any = None

    def put(rows: np.ndarray) -> None:
        nonlocal array
        if array is None:
            dtype: Any = (
                str if fill.kind is str else np.dtype(fill.dtype.str) if fill.dtype.names is None else fill.dtype
            )
            array = root.create_array(
                name, shape=(0, *fill.shape), dtype=dtype, chunks=(len(fill.block), *(max(n, 1) for n in fill.shape))
            )
        start = array.shape[0]
        array.resize((start + len(rows), *fill.shape))
        array[start:] = rows

    fill = Fill(first, name, "write_zarr", put, chunk)
    if fill.kind is bytes:
        raise TypeError(
            f"write_zarr(): Zarr has no bytes of any length, of which component {name!r} is; give arrays of uint8 of "
            "one length"
        )
    return fill
