"""Shelves: what is kept under one key in one folder, and the passes that read it and add to it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import time
import weakref
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flowfn.process import forks
from flowfn.shelves.records import FULL, LAYOUT, MARK, MARKER, OLD, RECORD, SEAL, RecordSpot, SpotTable, Writer

WORK_PER_LOOK = 10
"""Of a pass's time, at most one part in so many goes into looking for what others have written."""
MOST_OPEN = 64
"""How many files a pass has open at most."""


class Shelf:
    """What is kept under one key in one folder. A process has one of each, whatever the number of flows that use it."""

    def __init__(self, path: str, key: bytes, about: str) -> None:
        self.path, self.key, self.about = path, key, about
        self.folder, self.header = Path(path) / key.hex()[:16], LAYOUT + key
        self.sealing = blake2b(digest_size=SEAL, key=key)
        self.table, self.files = SpotTable(), list[Path]()
        self.indexes: dict[
            str, tuple[int, int] | None
        ] = {}  # of each writer: which file is its data, how much of its index is known
        self.looked = self.took = 0.0
        self.lock, self.visits = forks.lock(), 0  # a pass that is thrown away may leave in the midst of another's work
        self.writer: Writer | None = None

    def __repr__(self) -> str:
        return repr(self.path)

    def __reduce__(self) -> Any:
        return shelf, (self.path, self.key, self.about)

    def seal(self, number: int, payload: Any) -> bytes:
        """The checksum of a datapoint under this key."""
        sealing = self.sealing.copy()
        sealing.update(number.to_bytes(8, "little", signed=True))
        sealing.update(payload)
        return sealing.digest()

    def look(self, at_once: bool = False) -> None:
        """Take in what others have written since the last time, if that was long enough ago, or `at_once`."""
        with self.lock:
            began = time.monotonic()
            if not at_once and began - self.looked < WORK_PER_LOOK * self.took:
                return
            news: list[tuple[int, np.ndarray]] = []
            with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
                for entry in entries:
                    name, ending = os.path.splitext(entry.name)
                    if ending == ".index" and not (self.writer and self.writer.name == name):
                        with contextlib.suppress(FileNotFoundError, PermissionError):
                            news += self._news(name, entry)
            if news:
                self.table.add_all(news)
            self.looked = time.monotonic()
            self.took = self.looked - began

    def _news(self, name: str, entry: os.DirEntry[str]) -> Iterator[tuple[int, np.ndarray]]:
        """What has come to the index of a writer, up to where it is torn, if it is."""
        known = self.indexes.get(name, (len(self.files), 0))
        if known is None or entry.stat().st_size < max(known[1], len(self.header)) + RECORD.itemsize:
            return
        file, done = known
        with open(entry.path, "rb") as index:
            if not done and index.read(len(self.header)) != self.header:
                self.indexes[name] = None
                return
            index.seek(done or len(self.header))
            news = index.read()
        if not done:
            self.files.append(self.folder / f"{name}.data")
        records = np.frombuffer(news, RECORD, len(news) // RECORD.itemsize)
        self.indexes[name] = file, (done or len(self.header)) + records.nbytes
        yield file, records

    def add(self, number: int, payload: bytes) -> None:
        """Keep a datapoint."""
        seal = self.seal(number, payload)
        with self.lock:
            if self.writer is None:
                self.writer = Writer(self.folder, self.header, len(self.files))
                self.files.append(self.writer.paths[0])
            self.table.add(number, self.writer.add(number, seal, payload))
            if self.writer.waiting >= FULL or time.monotonic() - self.writer.written > OLD:
                self._write(self.writer)

    def write(self, file: int) -> None:
        """Write what waits, if it belongs into this file."""
        with self.lock:
            if self.writer is not None and self.writer.file == file:
                self._write(self.writer)

    def leave(self, failed: bool) -> None:
        """One pass less: what waits is written, and the last one closes the files.
        Of two failures the first is told."""
        with self.lock:
            self.visits = max(self.visits - 1, 0)
            if self.writer is None:
                return
            with contextlib.suppress(*[OSError] * failed):
                self._write(self.writer)
            if self.writer is not None and not self.visits:
                self.writer.close()

    def _write(self, writer: Writer) -> None:
        if not writer.index:
            return
        try:
            if not writer.begun:
                self._make_folder()
            writer.write()
        except BaseException as error:
            self.writer = None  # its files may be torn at their ends, so they are not continued
            writer.close()
            if (
                isinstance(error, FileNotFoundError) and writer.begun
            ):  # somebody has deleted them: what comes next is kept in others
                return
            if not isinstance(error, OSError):
                raise
            raise OSError(
                error.errno, f"cache_to() cannot keep more datapoints: {error.strerror}", self.path
            ) from error

    def _make_folder(self) -> None:
        refuse_foreign(self.path)
        os.makedirs(self.path, exist_ok=True)
        with (
            contextlib.suppress(FileExistsError),
            open(os.path.join(self.path, MARKER), "x", encoding="utf-8") as marker,
        ):
            marker.write(MARK)
        os.makedirs(self.folder, exist_ok=True)
        told = self.folder / "key.json"
        if not told.exists():
            begun = self.folder / f"{secrets.token_hex(8)}.begun"
            begun.write_text(json.dumps({"key": self.key.hex(), "pipeline": self.about}, indent=1), encoding="utf-8")
            os.replace(begun, told)

    def after_fork(self) -> None:
        """Begin in a process of one's own: what is open, and what waits to be written, is the other's."""
        if self.writer is not None:
            self.writer.close()
        self.writer, self.visits = None, 0


class Visit:
    """One pass over a shelf, and the files that it reads from, which nobody else uses."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._files: forks.Own[dict[int, tuple[BinaryIO, int] | None]] = forks.Own(dict)
        self.looked = False

    def __enter__(self) -> Visit:
        with self.shelf.lock:
            self.shelf.visits += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        while self.files:
            self._close(next(iter(self.files)))
        self.shelf.leave(failed=kind is not None)

    @property
    def files(self) -> dict[int, tuple[BinaryIO, int] | None]:
        """The open ones, with how long each is known to be. A forked process does not use those of the other."""
        return self._files()

    def look(self) -> None:
        """Take in what others have written: before anything is missed, whatever was there when the pass began."""
        self.shelf.look(at_once=not self.looked)
        self.looked = True

    def read(self, number: int, place: RecordSpot | None = None) -> memoryview | None:
        """The bytes of a number, from `place` or any other that has them whole; None if there is none."""
        found = None if place is None else self._read(number, place)
        if found is not None:
            return found
        return next(filter(None, (self._read(number, other) for other in self.shelf.table.all(number))), None)

    def _read(self, number: int, place: RecordSpot) -> memoryview | None:
        file, offset, length = place
        known = self._open(file)
        if known is None or offset < 0 or length < 0:
            return None
        handle, size = known
        if offset + SEAL + length > size:
            self.shelf.write(file)
            size = os.fstat(handle.fileno()).st_size
            self.files[file] = handle, size
            if offset + SEAL + length > size:
                return None
        handle.seek(offset)
        found = memoryview(handle.read(SEAL + length))
        payload = found[SEAL:]
        return payload if found[:SEAL] == self.shelf.seal(number, payload) else None

    def _open(self, file: int) -> tuple[BinaryIO, int] | None:
        """A file to read from and its length, or None if it is not there, or is not what it should be."""
        if file in self.files:
            return self.files[file]
        self.shelf.write(file)
        while len(self.files) >= MOST_OPEN:
            self._close(next(iter(self.files)))
        self.files[file] = None
        try:
            handle = open(self.shelf.files[file], "rb")  # noqa: SIM115
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return None
        self.files[file] = handle, os.fstat(handle.fileno()).st_size
        if handle.read(len(self.shelf.header)) != self.shelf.header:
            self._close(file)
            self.files[file] = None
        return self.files[file]

    def _close(self, file: int) -> None:
        known = self.files.pop(file)
        if known is not None:
            known[0].close()


_shelves: weakref.WeakValueDictionary[tuple[str, bytes], Shelf] = weakref.WeakValueDictionary()
_shelf_turn = forks.lock()  # a process makes one shelf of each


def shelf(path: str, key: bytes, about: str) -> Shelf:
    """The shelf for a key in a folder."""
    with _shelf_turn:
        found = _shelves.get((path, key))
        if found is None:
            found = _shelves[path, key] = Shelf(path, key, about)
        return found


def refuse_foreign(path: str) -> None:
    """Raise an error if there is something at `path` that `cache_to` did not make."""
    what = "cache_to(): path must be a new folder, an empty one or one that cache_to has made"
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ValueError(f"{what}, got {path!r}, which is no folder") from None
    if names and MARKER not in names:
        shown = ", ".join(sorted(names)[:3]) + ", ..." * (len(names) > 3)
        raise ValueError(f"{what}, got {path!r}, which holds other things ({shown})")


@forks.in_child
def _after_fork() -> None:
    for known in list(_shelves.values()):
        known.after_fork()
