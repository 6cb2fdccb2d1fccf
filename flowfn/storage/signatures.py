"""What a file is by its first bytes, whatever its name says: told where another kind of file was wanted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

HEAD_LENGTH = 512
"""Bytes from which a kind is told."""

PACKED_READERS = ("read_csv", "read_jsonl", "read_svmlight")
"""The functions that take files that are compressed as a whole, by their names."""
PACKED_INSIDE = ("read_tfrecord", "read_webdataset")
"""Those that take them in ways of their own."""


class FileKind(NamedTuple):
    """A kind of file: how it begins, what it is called, and what to do with it;
    `readers` are the functions that take it, `program` is what has compressed it as a whole.

    It is `sure` if nothing else begins so, text least of all; the others are looked for where something is wrong.
    """

    begins: re.Pattern[bytes]
    called: str
    remedy: str = ""
    readers: tuple[str, ...] = ()
    program: str | None = None
    sure: bool = True


def _kind(
    begins: bytes, called: str = "", remedy: str = "", *readers: str, program: str | None = None, sure: bool = True
) -> FileKind:
    return FileKind(re.compile(begins, re.DOTALL), called, remedy, readers, program, sure)


GZIP = _kind(rb"\x1f\x8b", "compressed with gzip", "its name must end with .gz, or decompress it", program="gzip")
ZLIB = _kind(rb"\x78[\x01\x5e\x9c\xda]", program="zlib", sure=False)
COMPRESSED = (
    GZIP,
    _kind(
        rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)",
        "compressed with bzip2",
        "its name must end with .bz2, or decompress it",
        program="bzip2",
    ),
    _kind(rb"\xfd7zXZ\0", "compressed with xz", "its name must end with .xz, or decompress it", program="xz"),
    _kind(rb"\x28\xb5\x2f\xfd", "compressed with zstd (Zstandard)", "decompress it before: zstd -d", program="zstd"),
    _kind(rb"\x04\x22\x4d\x18", "compressed with lz4", "decompress it before: lz4 -d", program="lz4"),
    _kind(rb"BZh", program="bzip2", sure=False),
    _kind(rb"\]\0\0", program="lzma", sure=False),
    _kind(rb"P\*M\x18", program="zstd", sure=False),
    _kind(rb"LZIP", program="lzip", sure=False),
    _kind(rb"\x89LZO", program="lzop", sure=False),
    _kind(rb"\x1f\x9d", program="compress (.Z)", sure=False),
)
TABLES = (
    _kind(rb"PAR1[^\t\n\r -~]", "a Parquet file", "read_parquet reads it", "read_parquet"),
    _kind(rb"ARROW1\0", "an Arrow file", "read_arrow reads it", "read_arrow", "read_hugging_face"),
    _kind(rb"PARE", "an encrypted Parquet file", "decrypt it before", sure=False),
    _kind(
        rb"FEA1",
        "of the first version of Feather",
        "write pyarrow.feather.read_table(path), and write_feather what it returns",
        sure=False,
    ),
    _kind(rb"ORC", "an ORC file", "write pyarrow.orc.read_table(path).to_pylist() for its rows", sure=False),
)
ARCHIVES = (
    _kind(rb"PK\x03\x04", "a zip file", sure=False),
    _kind(rb"7z\xbc\xaf", "a 7-Zip archive", sure=False),
    _kind(rb"Rar!", "a RAR archive", sure=False),
    _kind(rb"07070", "a cpio archive", sure=False),
    _kind(rb"!<arch>", "an ar archive", sure=False),
    _kind(rb"version https://git-lfs", "a pointer of Git LFS, which stands for the file", sure=False),
)
KINDS = (
    *COMPRESSED,
    *TABLES,
    *ARCHIVES,
    _kind(rb"\x89HDF\r\n\x1a\n", "an HDF5 file", "read_hdf5 reads it", "read_hdf5"),
    _kind(rb"\x93NUMPY", "an .npy file", "read_npy reads it", "read_npy"),
    _kind(
        rb"PK[\x03\x05]", "a zip archive", "read_npz reads those of arrays, unzip opens others", "read_npz", "read_zarr"
    ),
    _kind(rb".{257}ustar", "a tar archive", "read_webdataset reads it", "read_webdataset"),
    _kind(rb".{16}\xde\xc0\xef\xbe", "an LMDB database", "read_lmdb reads it", "read_lmdb", "read_caffe_lmdb"),
    _kind(rb"MMIDIDX\0", "an index of Megatron-LM", "read_megatron reads it", "read_megatron"),
    _kind(rb"SQLite format 3\0", "an SQLite database", "read it with the module sqlite3"),
    _kind(rb"\x89PNG|\xff\xd8\xff", "a picture", "read_image reads it"),
    _kind(rb"%PDF", "a PDF document", "take its text out before"),
    _kind(
        rb"\xff\xfe|\xfe\xff|(?:[^\0]\0){8}|(?:\0[^\0]){8}", "text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"
    ),
)


_FUNCTIONS = {*PACKED_READERS, *PACKED_INSIDE, *(reader for kind in KINDS for reader in kind.readers)}


def kind_of(head: bytes) -> FileKind | None:
    """What surely is what begins like this, if it is one of those that are known.

    >>> kind_of(b"PAR1\\x15").called, kind_of(b"a,b")
    ('a Parquet file', None)
    """
    return likely_kind(head, filter(attrgetter("sure"), KINDS))


def likely_kind(head: bytes, kinds: Iterable[FileKind]) -> FileKind | None:
    """Which of these kinds begins like this, where it is known to be one of them, or to be nothing else.

    >>> likely_kind(b"Rar!", ARCHIVES).called, kind_of(b"Rar!")
    ('a RAR archive', None)
    """
    return next((kind for kind in kinds if kind.begins.match(head)), None)


def other_kind(path: str, who: str) -> str:
    """What a file is, if it is here, and what to do, if it is none that the function `who` reads;
    nothing, if nobody can tell."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(HEAD_LENGTH)
        kind = kind_of(head)
        return (
            ""
            if kind is not None and kind.program and who in (*PACKED_READERS, *PACKED_INSIDE)
            else unexpected_kind(head, who)
        )
    return ""


def unexpected_kind(head: bytes, who: str) -> str:
    """The same, of the first bytes.

    >>> unexpected_kind(b"PAR1\\x15", "read_npy"), unexpected_kind(b"PAR1\\x15", "read_parquet")
    ('it is a Parquet file: read_parquet reads it', '')
    """
    kind = kind_of(head)
    if kind is None or who in kind.readers or who not in _FUNCTIONS:
        return ""
    return (
        f"it is {kind.called}: {'decompress it before' if kind.program and who not in PACKED_READERS else kind.remedy}"
    )
