"""Writing npy and npz: rows as they come, although their number stands at the beginning of the file."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import zipfile
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.formats.arrays.npy import header_for
from flowfn.formats.joining.members import Fill, Makeup, fill_columns
from flowfn.storage.writing import shown, written_whole

LOCAL = 30
"""Bytes of what stands before a member of a zip file, without its name and its extra field."""
ZIP64 = 20
"""Bytes of the extra field that lets a member have more than 4 GiB."""
PADDING = 0xD935
"""The name of an extra field that only fills space (as zipalign of Android uses it)."""
ALIGNMENT = 64


@rules.checked(overwrite=rules.boolean)
def write_npy(path: Any, flow: Any, *, overwrite: bool = False) -> None:
    """Write datapoints as the rows of one array to an .npy file: numbers, texts, bytes,
    or arrays of one dtype and shape.

    The dtype is that of the first (texts: as wide as the longest). Rows are written as they come. A bar is shown; the
    file appears at `path` when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or there are none.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/words.npy"
    >>> write_npy(path, ["some", "words"])
    >>> np.load(path)
    array(['some', 'words'], dtype='<U5')
    """
    with (
        shown(flow, "write_npy") as datapoints,
        written_whole(path, overwrite, "write_npy") as beside,
        _Growing(beside, "write_npy", "a row") as growing,
    ):
        fill: Fill | None = None
        for number, datapoint in enumerate(datapoints):
            fill = fill or Fill(datapoint, "a row", "write_npy", growing.put)
            fill.add(datapoint, number)
        if fill is None:
            raise ValueError("write_npy(): there are no datapoints, so nobody knows what array to write")
        fill.flush()


@rules.checked(compressed=rules.boolean, overwrite=rules.boolean)
def write_npz(path: Any, flow: Any, *, compressed: bool = False, overwrite: bool = False) -> None:
    """Write datapoints to an .npz file: an array for each component, named by its key (of lists: "arr_0", "arr_1").

    Components are numbers, texts, bytes, or arrays of one dtype and shape each. Rows are written as they come, to
    temporary files, which then become one. Without `compressed`, the file can be mapped into memory. A bar
    is shown; the file appears at `path` when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError, ValueError: datapoints are not alike, or there are none.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/squares.npz"
    >>> write_npz(path, ({"x": x, "y": x * x} for x in range(4)))
    >>> np.load(path)["y"]
    array([0, 1, 4, 9])
    """
    with (
        shown(flow, "write_npz") as datapoints,
        written_whole(path, overwrite, "write_npz") as beside,
        contextlib.ExitStack() as stack,
    ):
        growing: list[_Growing] = []

        def begin(form: Makeup, parts: list[Any]) -> list[Fill]:
            for number, name in enumerate(form.names):
                growing.append(stack.enter_context(_Growing(f"{beside}.{number}", "write_npz", name)))
            return [Fill(part, one.name, "write_npz", one.put) for one, part in zip(growing, parts)]

        form, _ = fill_columns(datapoints, "write_npz", begin)
        stack.close()
        with zipfile.ZipFile(beside, "w") as archive:
            for number, name in enumerate(form.names):
                _add_array(archive, f"{beside}.{number}", name if form.keys is not None else f"arr_{name}", compressed)


class _Growing:
    """An .npy file that grows by blocks of rows; how many they are is written into its header in the end."""

    def __init__(self, path: str, who: str, name: str) -> None:
        self.path, self.who, self.name = path, who, name
        self.file = open(path, "w+b")  # noqa: SIM115 - it lives as long as this does
        self.dtype: np.dtype | None = None
        self.count = 0
        self.shape: tuple[int, ...] = ()

    def __enter__(self) -> _Growing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        try:
            if kind is None and self.dtype is not None:
                self.file.seek(0)
                self.file.write(header_for(self.dtype, (self.count, *self.shape)))
        finally:
            self.file.close()

    def put(self, rows: np.ndarray) -> None:
        """Write a block of rows."""
        if rows.dtype.hasobject:
            rows = self._texts(rows.tolist())
        if self.dtype is None:
            self.dtype, self.shape = rows.dtype, rows.shape[1:]
            self.file.write(header_for(self.dtype, (0, *self.shape)))
        self.file.write(np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data)
        self.count += len(rows)

    def _texts(self, texts: list[Any]) -> np.ndarray:
        """Texts or bytes as an array as wide as the longest so far; what is written already becomes as wide."""
        rows = np.array(texts)
        if texts != rows.tolist():
            wrong = next(text for text, kept in zip(texts, rows.tolist()) if text != kept)
            raise ValueError(
                f"{self.who}(): numpy's arrays lose zeros at the end of texts and bytes, as {self.name!r} has them in "
                f"{wrong!r}"
            )
        if self.dtype is not None and rows.dtype.itemsize < self.dtype.itemsize:
            return rows.astype(self.dtype)
        if self.dtype is not None and rows.dtype != self.dtype:
            self._widen(rows.dtype)
        return rows

    def _widen(self, dtype: np.dtype) -> None:
        self.file.seek(0)
        old = np.dtype(self.dtype)
        with open(f"{self.path}.wider", "w+b") as wider:
            wider.write(header_for(dtype, (0,)))
            self.file.seek(len(header_for(old, (0,))))
            while held := self.file.read(old.itemsize * 4096):
                wider.write(np.frombuffer(held, old).astype(dtype).tobytes())
        self.file.close()
        os.replace(f"{self.path}.wider", self.path)
        self.file = open(self.path, "r+b")  # noqa: SIM115 - closed with the rest
        self.file.seek(0, os.SEEK_END)
        self.dtype = dtype


def _add_array(archive: zipfile.ZipFile, path: str, name: str, compressed: bool) -> None:
    """Put an .npy file into a zip file, where its array begins at a multiple of 64 bytes, so that it can be mapped."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    before = archive.start_dir + LOCAL + len(info.filename.encode()) + ZIP64 + 4
    info.extra = struct.pack("<HH", PADDING, -before % ALIGNMENT) + bytes(-before % ALIGNMENT)
    with open(path, "rb") as file, archive.open(info, "w", force_zip64=True) as member:
        shutil.copyfileobj(file, member, 1 << 20)
