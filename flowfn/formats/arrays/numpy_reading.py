"""npy and npz: numpy's own files, mapped into memory where they are not compressed, so that rows are read when wanted.

The formats: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, and zip.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.blocks import Block
from flowfn.datapoints import buffers
from flowfn.datapoints.columns import Columns, readonly, stackable
from flowfn.datapoints.components import component
from flowfn.flows.flow import Flow
from flowfn.flows.sources import ArraysNode, Source
from flowfn.formats.arrays.npy import Header, header_of
from flowfn.formats.arrays.numpy_writing import LOCAL, write_npy, write_npz
from flowfn.formats.joining.members import Makeup, RowKind, equal_lengths, form_of
from flowfn.formats.joining.several import open_paths
from flowfn.process import forks
from flowfn.storage import archives
from flowfn.storage.damage import error_words, reading
from flowfn.storage.files import call, is_url, open_file
from flowfn.storage.signatures import HEAD_LENGTH, unexpected_kind

__all__ = ["read_npy", "read_npz", "write_npy", "write_npz"]

DEFLATE = 1100
"""How many times smaller than its content a deflated member cannot be."""


class ArrayMember(NamedTuple):
    """An array in a file: where it begins and what it is; `packed` if it has to be decompressed."""

    name: str
    header: Header
    offset: int
    packed: bool


class ArrayFile(Columns):
    """Arrays of an .npy or .npz file, as rows: they are mapped, or loaded, by the process that reads, when it does."""

    def __init__(self, path: str, who: str, chosen: Any, allow_pickle: bool) -> None:
        self.path, self.who, self.chosen, self.allow_pickle = path, who, chosen, allow_pickle
        self.members, self.form = self._looked_at()
        self.keys, self.bare = self.form.keys, self.form.bare
        self._arrays: list[np.ndarray] | None = None
        self._turn = forks.lock()

    def __len__(self) -> int:
        return self.members[0].header.shape[0]

    @property
    def arrays(self) -> list[np.ndarray]:  # type: ignore[override]
        """The arrays, which nobody can write to."""
        if self._arrays is None:
            with self._turn:
                if self._arrays is None:
                    self._arrays = [readonly(self._array(member)) for member in self.members]
        return self._arrays

    @property
    def kinds(self) -> dict[str, RowKind]:
        """What the rows of each array are."""
        return {member.name: RowKind(member.header.dtype, member.header.shape[1:]) for member in self.members}

    @property
    def stackables(self) -> list[bool]:  # type: ignore[override]
        """Of each array, whether rows, taken together, are what stacking them one by one would give."""
        return [stackable(member.header.dtype, member.header.shape[1:]) for member in self.members]

    def each(self, block: Block) -> Iterator[Any]:
        """The datapoints at the indices of a block."""
        if type(block) is range and block.step > 0:
            return self.form.each([array[block.start : block.stop : block.step] for array in self.arrays])
        indices = np.asarray(block).tolist()
        return self.form.each([map(array.__getitem__, indices) for array in self.arrays])

    def selected(self, components: Sequence[Any]) -> Columns:
        """Some of the arrays, as `select` would select components of their rows."""
        columns = dict(zip(self.keys, self.arrays)) if self.keys is not None else self.arrays
        chosen = [component(columns, key) for key in components]
        return _Mapped(dict(zip(components, chosen)) if self.keys is not None else chosen)

    def rows(self, block: Block) -> Any:
        """The rows at the indices of a block, stacked, in new arrays."""
        return _rows(self, block)

    def __getstate__(self) -> Any:
        return self.path, self.who, self.chosen, self.allow_pickle, self.members, self.form

    def __setstate__(self, state: Any) -> None:
        self.path, self.who, self.chosen, self.allow_pickle, self.members, self.form = state
        self.keys, self.bare = self.form.keys, self.form.bare
        self._arrays, self._turn = None, forks.lock()

    def _looked_at(self) -> tuple[list[ArrayMember], Makeup]:
        where = f"{self.who}(): {self.path}"
        with open_file(self.path, who=f"{self.who}()") as file, reading(self.path, f"{where} cannot be read"):
            if self.who == "read_npy":
                members = {"": _member(file, "", 0, _file_size(file), where, self.allow_pickle)}
                form = Makeup(None, True, [""])
                if not members[""].header.shape:
                    raise ValueError(f"{where} holds a single value, and no rows")
            else:
                there = _members(file, self.path, whole=self.chosen is None)
                form = form_of(self.chosen, list(there), self.who, "arrays", self.path)
                members = {
                    name: _in_zip(file, there[name], name, f"{where}: {name!r}", self.allow_pickle)
                    for name in form.names
                }
        equal_lengths({name: members[name].header.shape for name in form.names}, self.who, "arrays", self.path)
        return [members[name] for name in form.names], form

    def _array(self, member: ArrayMember) -> np.ndarray:
        header, where = member.header, f"{self.who}(): {self.path}" + f": {member.name!r}" * bool(member.name)
        if not header.nbytes:
            return np.ndarray(header.shape, header.dtype, b"")
        order: Any = "F" if header.fortran else "C"
        if member.packed or header.dtype.hasobject or is_url(self.path):
            with (
                open_file(self.path, who=f"{self.who}()") as file,
                reading(self.path, f"{where} cannot be read", "; it is damaged"),
            ):
                return _loaded(file, member, where)
        if os.path.getsize(self.path) < member.offset + header.nbytes:
            raise ValueError(f"{where} has become shorter than it was when this flow was made")
        raw = np.memmap(self.path, np.uint8, "r", member.offset, (header.nbytes,))
        return np.ndarray(header.shape, header.dtype, raw, order=order)


class _Mapped(Columns):
    """Some of the arrays of a file."""

    def rows(self, block: Block) -> Any:
        """The rows at the indices of a block, stacked, in new arrays."""
        return _rows(self, block)


def _rows(columns: Columns, block: Block) -> Any:
    """Rows as `Columns` would take them, from arrays too that it would have to copy first:
    in columns, or not aligned."""
    if all(array.flags.c_contiguous and array.flags.aligned for array in columns.arrays) or (
        type(block) is range and block.step > 0
    ):
        return Columns.rows(columns, block)
    indices = np.asarray(block)
    gathered = []
    for array in columns.arrays:
        made = buffers.empty((len(indices), *array.shape[1:]), array.dtype)
        if array.flags.c_contiguous and array.size and not array.dtype.hasobject:
            flat = np.ndarray((len(array), array.nbytes // len(array)), np.uint8, array)
            flat.take(indices, axis=0, out=made.reshape(len(made), -1).view(np.uint8), mode="clip")
        else:
            made[...] = array[indices]
        gathered.append(made)
    return gathered[0] if columns.bare else dict(zip(columns.keys, gathered)) if columns.keys is not None else gathered


def _file_size(file: BinaryIO) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _member(
    file: BinaryIO, name: str, offset: int, size: int, where: str, allow_pickle: bool, packed: bool = False
) -> ArrayMember:
    """An array of which the header comes next in a file, and of which `size` bytes are there, header and all."""
    header = header_of(file, where)
    if header.dtype.hasobject:
        if not allow_pickle:
            raise ValueError(
                f"{where} holds Python objects, which only unpickling can read, and unpickling can run any code; "
                "pass allow_pickle=True if you trust the file as you trust a program"
            )
    elif header.size + header.nbytes > size:
        raise ValueError(
            f"{where} should hold {header.nbytes} bytes of {header.dtype} {header.shape}, but there are only "
            f"{size - header.size}; "
            "it is damaged, or not whole"
        )
    return ArrayMember(name, header, offset + header.size, packed)


def _members(file: BinaryIO, path: str, whole: bool) -> dict[str, zipfile.ZipInfo]:
    """The arrays in a zip file, by name; with `whole`, there must be nothing else in it."""
    try:
        infos = archives.open_zip(file).infolist()
    except Exception as error:
        hint = "it is empty" if not _file_size(file) else unexpected_kind(file.read(HEAD_LENGTH), "read_npz")
        raise ValueError(
            f"read_npz(): {path} is no .npz file, or not a whole one: {error_words(error)}" + f"; {hint}" * bool(hint)
        ) from error
    other = next((info.filename for info in infos if not info.filename.endswith(".npy")), None)
    if whole and other is not None:
        raise ValueError(
            f"read_npz(): {path} holds {other!r}, which is no array; it is damaged, or choose those that are: "
            "arrays=[...]"
        )
    return {info.filename.removesuffix(".npy"): info for info in infos if info.filename.endswith(".npy")}


def _in_zip(file: BinaryIO, info: zipfile.ZipInfo, name: str, where: str, allow_pickle: bool) -> ArrayMember:
    if info.flag_bits & 1:
        raise ValueError(f"{where} is encrypted")
    stored = info.compress_type == zipfile.ZIP_STORED
    if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > info.compress_size * DEFLATE + 1000:
        raise ValueError(
            f"{where} says that {info.compress_size} bytes hold {info.file_size}, which cannot be; it is damaged"
        )
    with zipfile.ZipFile(file) as archive, archive.open(info) as member:
        found: Any = member
        array = _member(found, name, 0, info.file_size, where, allow_pickle, packed=not stored)
    if not stored:
        return array
    file.seek(info.header_offset)
    local = file.read(LOCAL)
    if local[:4] != b"PK\x03\x04" or len(local) < LOCAL:
        raise ValueError(f"{where} does not lie where the file says; it is damaged")
    start = info.header_offset + LOCAL + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    if start + info.file_size > _file_size(file):
        raise ValueError(f"{where} ends behind the end of the file; it is not whole")
    return array._replace(offset=start + array.offset)


def _loaded(file: Any, member: ArrayMember, where: str) -> np.ndarray:
    """An array that cannot be mapped, read once."""
    header = member.header
    if member.packed or (member.name and header.dtype.hasobject):
        with zipfile.ZipFile(file) as archive, archive.open(f"{member.name}.npy") as found:
            return _content(found, header, where)
    file.seek(member.offset - header.size)
    return _content(file, header, where)


def _content(file: Any, header: Header, where: str) -> np.ndarray:
    if header.dtype.hasobject:
        return np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=True)  # the user allowed it
    file.read(header.size)
    made = np.empty(header.nbytes, np.uint8)
    held, at = made.data, 0
    while at < header.nbytes:
        count = file.readinto(held[at:])
        if not count:
            raise ValueError(f"{where} ends after {at} of {header.nbytes} bytes; it is not whole")
        at += count
    while file.read(1 << 16):  # to its end, where the checksum is
        pass
    return np.ndarray(header.shape, header.dtype, made, order="F" if header.fortran else "C")


# What users call


@rules.checked(allow_pickle=rules.boolean)
def read_npy(path: Any, *, allow_pickle: bool = False) -> Flow[Any]:
    """A flow of the rows of the array in an .npy file.

    The file is mapped into memory: rows are read when they are wanted, and are read-only views, as those of
    `from_arrays`; `batch` right after (or after `shuffle`, `shard`, `take`) gathers a whole batch at once. What is
    behind a URL is loaded. `path` may be a glob pattern, a range in braces ("part-{00..07}.npy"), or a list of paths:
    rows of one file come after those of the other.

    An array of Python objects is refused, because to unpickle it can run any code; with `allow_pickle=True` the file is
    trusted as a program is.

    Raises:
        ValueError: it is no .npy file, or a damaged one; its array has no rows; it holds objects.
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/squares.npy"
    >>> write_npy(path, [[x, x * x] for x in range(4)])
    >>> read_npy(path)[3]
    array([3, 9])
    """
    arrays = open_paths(path, "read_npy", lambda one: ArrayFile(one, "read_npy", None, allow_pickle))
    return Flow(
        Source(arrays, ArraysNode, name="read_npy", shown=call("read_npy", path, allow_pickle=(allow_pickle, False)))
    )


@rules.checked(allow_pickle=rules.boolean)
def read_npz(path: Any, arrays: Any = None, *, allow_pickle: bool = False) -> Flow[Any]:
    """A flow of the rows of arrays in an .npz file: number i of each makes datapoint i.

    `arrays` is the name of one (datapoints are its rows), a list of names (lists), a dict of names by component
    (dicts), or None: all (dicts). Arrays that lie there uncompressed (`numpy.savez`, `write_npz`) are mapped into
    memory, as by `read_npy`, and their checksums are not looked at; compressed ones are loaded by each process that
    reads them, once. `path` may be a URL, a pattern, a range in braces, or a list of them, as for `read_npy`.

    Raises:
        ValueError: it is no .npz file, or a damaged one; there is no such array; lengths differ; it holds objects,
            which only `allow_pickle=True` reads (the file is then trusted as a program is).
        FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/squares.npz"
    >>> np.savez_compressed(path, x=np.arange(4), y=np.arange(4) ** 2)
    >>> read_npz(path)[3]
    {'x': np.int64(3), 'y': np.int64(9)}
    >>> list(read_npz(path, ["y"]))[:2]
    [[np.int64(0)], [np.int64(1)]]
    """
    held = open_paths(path, "read_npz", lambda one: ArrayFile(one, "read_npz", arrays, allow_pickle))
    text = call("read_npz", path, *[arrays] * (arrays is not None), allow_pickle=(allow_pickle, False))
    return Flow(Source(held, ArraysNode, name="read_npz", shown=text))
