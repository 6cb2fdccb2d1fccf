"""What is compressed as a whole, told by its first bytes and unpacked from its beginning to its end.

Several compressed streams one behind the other are one, as their own programs have it, and zeros may follow. Anything
else behind the end of a stream is an error, never passed over (`bz2.open` and `lzma.open` do).
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from flowfn.extras import needed
from flowfn.storage.signatures import ARCHIVES, COMPRESSED, likely_kind

LARGEST_READ = 1 << 24
"""How many bytes are read at once, so that no memory is set aside for bytes that are not there."""
LOOK = 262
"""How many of its first bytes tell what a file is."""
_PIECE, _BITE = 1 << 16, 1 << 12
"""How many compressed bytes are read at once, and given to zstd, which makes of them at most 128 MB."""
_WINDOW = 1 << 31
"""As far back as zstd looks at most (`--long=31`)."""
_UNPACKED_AT_ONCE = 1 << 20
"""How many bytes a zlib stream is unpacked to at once."""


class Compressor(NamedTuple):
    """How the names of files end that a program has compressed (first of any, then of tar files alone), and what gives
    their content, and writes it."""

    suffixes: tuple[str, ...]
    unpacking: Callable[[Any, str], Any]
    packing: Callable[[Any, int], Any] | None = None


COMPRESSORS = {
    "gzip": Compressor(
        (".gz", ".tgz"),
        lambda file, who: gzip.GzipFile(fileobj=file),
        lambda file, level: _PackingGzip("", "wb", level, file, mtime=0),
    ),
    "bzip2": Compressor(
        (".bz2", ".tbz2", ".tbz"),
        lambda file, who: _buffered_streams(file, bz2.BZ2Decompressor),
        lambda file, level: bz2.BZ2File(file, "wb"),
    ),
    "xz": Compressor(
        (".xz", ".txz"),
        lambda file, who: _buffered_streams(file, lzma.LZMADecompressor),
        lambda file, level: lzma.LZMAFile(file, "wb"),  # noqa: SIM115
    ),
    "lzma": Compressor((".lzma", ".tlz"), lambda file, who: _buffered_streams(file, lzma.LZMADecompressor)),
    "zstd": Compressor(
        (".zst", ".tzst"),
        lambda file, who: _buffered_streams(file, partial(_Zstd, needed("zstandard", who, extra="zstd"))),
    ),
    "zlib": Compressor((), lambda file, who: _UnpackingZlib(file), lambda file, level: _PackingZlib(file, level)),
}
PACKED = tuple(suffix for compressor in COMPRESSORS.values() for suffix in compressor.suffixes)
"""How names of compressed files end."""


def packing(first: bytes) -> str | None:
    """What has compressed a file that begins so, if that can be unpacked here; a tar file begins with any name.

    >>> packing(gzip.compress(b"")), packing(b"a.txt")
    ('gzip', None)
    """
    kind = None if first[257:LOOK] == b"ustar" else likely_kind(first, COMPRESSED)
    return kind.program if kind is not None and kind.program in COMPRESSORS else None


def known_as(first: bytes) -> str | None:
    """What a file is that begins so and is neither a tar file nor can be unpacked here, if that is known.

    >>> known_as(b"PK\\x03\\x04...")
    'a zip file'
    """
    kind = likely_kind(first, (*COMPRESSED, *ARCHIVES))
    if kind is None or kind.program in COMPRESSORS:
        return None
    return f"compressed by {kind.program}" if kind.program else kind.called


def unpacked(file: Any, who: str) -> tuple[Any, str | None]:
    """A file that gives what was compressed, or the file itself, from its first byte; and what has compressed it."""
    begun = _Begun(file)
    program = packing(begun.first)
    return (begun if program is None else unpacked_by(program, begun, who)), program


def unpacked_by(program: str, file: Any, who: str) -> Any:
    """A file that gives what a program has compressed."""
    return COMPRESSORS[program].unpacking(file, who)


def packed_by(program: str, file: Any, level: int = 6) -> Any:
    """A file that compresses what is written to it: the same bytes to the same ones, whenever, whatever its name."""
    pack: Any = COMPRESSORS[program].packing
    return pack(file, level)


def read_fully(file: Any, length: int) -> bytes:
    """So many bytes of a file that may give them in parts; fewer where it ends."""
    piece: bytes = file.read(min(length, LARGEST_READ))
    if len(piece) == length or not piece:
        return piece
    parts = [piece]
    left = length - len(piece)
    while left and (piece := file.read(min(left, LARGEST_READ))):
        parts.append(piece)
        left -= len(piece)
    return b"".join(parts)


class _Begun:
    """A file of which the first bytes have been looked at."""

    def __init__(self, file: Any) -> None:
        self.first = self.left = read_fully(file, LOOK)
        self.file = file

    def read(self, length: int = -1) -> bytes:
        """So many bytes, or perhaps fewer."""
        if not self.left:
            return self.file.read(length)
        found, self.left = (self.left, b"") if length < 0 else (self.left[:length], self.left[length:])
        return found

    def seekable(self) -> bool:
        """It is read in order."""
        return False


def _buffered_streams(file: Any, begin: Callable[[], Any]) -> io.BufferedReader:
    return io.BufferedReader(_Streams(file, begin), _PIECE)


class _Streams(io.RawIOBase):
    """Compressed streams one behind the other, with zeros between and behind them or not."""

    def __init__(self, file: Any, begin: Callable[[], Any]) -> None:
        self.file, self.begin, self.stream = file, begin, begin()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any) -> int:
        """So many bytes, or fewer; none at the end of the last stream.

        Raises:
            EOFError, OSError, or an error of the library: a stream is torn, or something else stands behind it.
        """
        found = b""
        while not found and (given := self._more()) is not None:
            found = self.stream.decompress(given, len(target))
        target[: len(found)] = found
        return len(found)

    def _more(self) -> bytes | None:
        """What is to be unpacked next; None where everything has been."""
        if not self.stream.eof:
            given: bytes = self.file.read(_PIECE) if self.stream.needs_input else b""
            if self.stream.needs_input and not given:
                raise EOFError("what is compressed ends before it is whole")
            return given
        behind = self.stream.unused_data
        while not behind.strip(b"\0"):
            behind = self.file.read(_PIECE)
            if not behind:
                return None
        self.stream = self.begin()
        return behind.lstrip(b"\0")


class _Zstd:
    """Unpacks a frame as `bz2.BZ2Decompressor` does a stream;
    the library's own reader takes a torn frame for its end."""

    def __init__(self, library: Any) -> None:
        self.frame = library.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self.pending, self.left = b"", io.BytesIO()

    @property
    def needs_input(self) -> bool:
        """Whether nothing comes without more of what is compressed."""
        return not self.pending and not self._waiting

    @property
    def eof(self) -> bool:
        """Whether everything has come."""
        return self.frame.eof and not self._waiting

    @property
    def unused_data(self) -> bytes:
        """What stands behind the end."""
        return self.frame.unused_data + self.pending

    @property
    def _waiting(self) -> bool:
        return self.left.tell() < self.left.getbuffer().nbytes

    def decompress(self, data: bytes, length: int) -> bytes:
        """At most so many bytes; perhaps none yet."""
        self.pending += data
        if not self._waiting:
            bite, self.pending = self.pending[:_BITE], self.pending[_BITE:]
            self.left = io.BytesIO(self.frame.decompress(bite))
        return self.left.read(length)


class _UnpackingZlib:
    """Reads a zlib stream, as `gzip` does its own; but behind its end there may be nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._stream = file, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        """So many bytes; fewer where the stream ends."""
        parts: list[bytes] = []
        while size > 0 and not self._stream.eof:
            waiting = self._stream.unconsumed_tail or self._file.read(_PIECE)
            found = self._stream.decompress(waiting, min(size, _UNPACKED_AT_ONCE))
            if not waiting and not found:
                raise EOFError("the compressed stream ends before it is whole")
            parts.append(found)
            size -= len(found)
        if size > 0 and (self._stream.unused_data or self._file.read(1)):
            raise ValueError(
                f"there is more behind byte {self._file.tell() - len(self._stream.unused_data)} of it, where its zlib "
                "stream ends"
            )
        return b"".join(parts)


class _PackingGzip(gzip.GzipFile):
    """Writes a gzip file; what could not be written when it is closed is given up.

    Since Python 3.12 it would stay in a buffer, which tries again when garbage is collected, and complains on stderr.
    """

    def close(self) -> None:
        try:
            super().close()
        except BaseException:
            self.fileobj = io.BytesIO()
            with contextlib.suppress(Exception):
                super().close()
            raise


class _PackingZlib:
    """Writes a zlib stream, as `gzip` does its own."""

    def __init__(self, file: Any, level: int) -> None:
        self._file, self._stream = file, zlib.compressobj(level)

    def write(self, data: bytes) -> None:
        self._file.write(self._stream.compress(data))

    def __enter__(self) -> _PackingZlib:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write(self._stream.flush())
