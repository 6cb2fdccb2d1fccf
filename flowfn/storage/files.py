"""Files to read from: opened by the process that reads them, here or behind a URL, and told apart by what they hold.

A sequence over a file (`Opened`) is its arguments and no more: it pickles small, so flows over it travel to worker
processes, and each of them opens the file for itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, ClassVar

from flowfn.blocks import Block
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.sources import IterableNode, SequenceNode, Source
from flowfn.kinds.runs import Run
from flowfn.process import forks
from flowfn.rules import Rule
from flowfn.showing import as_called
from flowfn.storage.damage import raise_clearly, reading

PATH = Rule(
    "a path or a URL",
    lambda value: isinstance(value, (str, os.PathLike)),
    lambda value, others: os.fspath(value) not in ("", b""),
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_TOLD = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems behind URLs may tell of a file, that changes with it."""


def is_url(path: Any) -> bool:
    """Whether a path is one that fsspec opens: `scheme://...`.

    >>> is_url("s3://bucket/train.tar"), is_url("/data/train.tar"), is_url("C:/train.tar")
    (True, False, False)
    """
    return isinstance(path, str) and _URL.match(path) is not None


def file_path(path: Any, who: str) -> str:
    """A user's path as a string: absolute, `~` expanded; URLs as they are.

    Raises:
        TypeError, ValueError: it is no path.
    """
    if type(path) is str and path[:1] == os.sep == "/" and os.path.normpath(path) == path:
        return path  # as those of long lists are
    PATH.check(who, "path", path, {})
    text = os.fsdecode(path)
    return text if is_url(text) else os.path.abspath(os.path.expanduser(text))


def open_file(path: str, mode: str = "rb", *, who: str = "open_file()") -> Any:
    """Open a local file plainly, and what is behind a URL through fsspec.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it is a URL, and fsspec is not installed.

    >>> needed("fsspec", "open_file()", extra="files").filesystem("memory").pipe_file("/greeting", b"hello")
    >>> with open_file("memory://greeting") as file:
    ...     file.read()
    b'hello'
    """
    if not is_url(path):
        return open(path, mode)
    return needed("fsspec", who, extra="files").open(path, mode).open()


def stamp(path: str, who: str = "stamp()") -> tuple[Any, ...]:
    """What tells a file from the one that was there before: its size and when it was written, as far as anybody tells.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not is_url(path):
        told = os.stat(path)
        return told.st_size, told.st_mtime_ns
    system, inside = needed("fsspec.core", who, extra="files").url_to_fs(path)
    info = system.info(inside)
    return tuple(str(info[name]) for name in _TOLD if info.get(name) is not None)


class Opened:
    """A sequence that is read from a file. Subclasses keep arguments only, and say how to `open`, and how to read.

    `self.handle` is what `open` returned, in the process that asks (in the thread that asks, with `per_thread`); it is
    opened when it is first wanted, again after a fork, never pickled, and closed when the sequence is thrown away.
    `self.stamp` tells the file from an older one under the same name, in the digests of `cache_to` too.
    """

    per_thread: ClassVar[bool] = False
    """Whether threads cannot share what `open` returns."""

    def __init__(self, path: Any, who: str) -> None:
        self.path, self.who = file_path(path, who), who
        self.stamp = stamp(self.stamped(), f"{who}()")
        self._handles: dict[tuple[int, int], Any] = {}

    def stamped(self) -> str:
        """The file whose size and time tell whether anything has changed."""
        return self.path

    def open(self) -> Any:
        """Open the file: something that has `close()`."""
        raise TypeError(f"{type(self).__name__} does not say how to open {self.path}")

    @property
    def handle(self) -> Any:
        """What this process reads from."""
        at = forks.process, threading.get_ident() if self.per_thread else 0
        handle = self._handles.get(at)
        return self._opened(at) if handle is None else handle

    def _opened(self, at: tuple[int, int]) -> Any:
        with _handles_lock:
            if at not in self._handles:
                with reading(self.path, f"{self.who}(): {self.path} cannot be opened"):
                    self._handles[at] = self.open()
                weakref.finalize(self, _close, self._handles, at)
            return self._handles[at]

    def fresh(self) -> Any:
        """The same, with all that it has found out, but not open;
        the file of this one is closed when nobody uses it any more."""
        made = object.__new__(type(self))
        vars(made).update(vars(self), _handles={})
        return made

    def within(self, index: int) -> int:
        """The index, if there is a datapoint there.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= index < len(self):  # type: ignore[arg-type]
            raise IndexError(f"{self.who}(): index {index} is out of range for {len(self)} datapoints in {self.path}")  # type: ignore[arg-type]
        return index

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _handles={})


class ReadablePieces:
    """A file of which pieces are read, from wherever, by any number of threads at once."""

    def __init__(self, path: str, who: str) -> None:
        self.path, self.who = path, who
        self.file: BinaryIO = open_file(path, "rb", who=who)
        self._turn = forks.lock()
        self.local = not is_url(path)
        self._descriptor = self.file.fileno() if self.local and hasattr(os, "preadv") else None
        with self._in_pieces():
            self.size: int = self.file.seek(0, os.SEEK_END)
        forks.finalize(self, self.file.close)

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes from there on; fewer where the file ends."""
        length = max(min(length, self.size - offset), 0)
        if self._descriptor is not None:
            try:
                found = os.pread(self._descriptor, length, offset)
            except OSError as error:
                raise_clearly(error, self.path, f"{self.who}: {self.path} cannot be read")
            if len(found) == length or not found:
                return found
        with self._turn, self._in_pieces():
            self.file.seek(offset)
            return self.file.read(length)

    @contextlib.contextmanager
    def _in_pieces(self) -> Iterator[None]:
        """What opens URLs raises a ValueError, and no other error, where a server gives nothing but whole files."""
        with reading(self.path, f"{self.who}: {self.path} cannot be read"):
            try:
                yield
            except ValueError as error:
                if self.local:
                    raise
                raise OSError(
                    f"{self.who}: {self.path} cannot be read in pieces, which its server does not give; download it "
                    "first"
                ) from error

    def close(self) -> None:
        """Close the file."""
        self._descriptor = None
        self.file.close()


class InOrder:
    """Datapoints that can only be read one after the other: subclasses give those from `start` on, in `datapoints`."""

    def __init__(self, path: Any, who: str) -> None:
        self.path, self.who = file_path(path, who), who
        self.stamp = stamp(self.path, f"{who}()")

    def datapoints(self, start: int) -> Iterator[Any]:
        """The datapoints from `start` on; what it opens, it closes."""
        raise TypeError(f"{type(self).__name__} does not say how to read {self.path}")

    def __iter__(self) -> Iterator[Any]:
        return self.datapoints(0)


class InOrderNode(IterableNode):
    """Reads a file from its beginning, or from where the file can be entered."""

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """Its datapoints from `start` on."""
        return self.part.object.datapoints(start)

    def unknown(self) -> str:
        """It is read in order."""
        return f"{self.part} can only be read from its beginning"


class BlocksNode(SequenceNode):
    """Reads a sequence block by block, as blocks come: ranges, or arrays of indices."""

    def fetch(self, block: Block) -> Iterable[Any]:
        """The datapoints at the indices of a block."""
        return self.part.object.each(block)


def flow_of(sequence: Any, name: str, shown: str) -> Flow[Any]:
    """The flow over a sequence (`Opened`, or anything with a length and an index), or over what is read `InOrder`.

    A sequence that has a method `each` is asked for whole blocks of indices.

    `name` is the function that the user called, `shown` the call as it stands in the flow's `repr`.
    """
    if hasattr(sequence, "__getitem__"):
        return Flow(Source(sequence, BlocksNode if hasattr(sequence, "each") else SequenceNode, name=name, shown=shown))
    return Flow(
        Source(sequence, InOrderNode if isinstance(sequence, InOrder) else IterableNode, name=name, shown=shown)
    )


def call(name: str, *arguments: Any, **options: tuple[Any, Any]) -> str:
    """A call as it was written, for a `repr`: positional arguments, and those options that are not as usual.

    >>> call("read_x", "a.x", keys=(["k"], None), allow_pickle=(False, False))
    "read_x('a.x', keys=['k'])"
    """
    words = {
        key: _argument_text(value) for key, (value, usual) in options.items() if value is not usual and value != usual
    }
    return as_called(name, *map(repr, arguments), **words)


def _argument_text(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


_handles_lock = forks.lock()
_handles_of_parent: list[Any] = []
"""Of a forked process: what the other has opened, which is not to be used or closed here."""


def _close(handles: dict[tuple[int, int], Any], at: tuple[int, int]) -> None:
    handle = handles.pop(at, None)
    if handle is None:
        return
    if at[0] == forks.process:
        handle.close()
    else:
        _handles_of_parent.append(handle)
