"""LMDB environments: one of each file in a process, as LMDB demands; for reading,
and for writing with a map that grows."""

from __future__ import annotations

import contextlib
import gc
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flowfn.extras import needed
from flowfn.process import forks
from flowfn.storage.damage import errno_of
from flowfn.storage.signatures import other_kind

FIRST = 1 << 26
"""How large a map for writing is at first, in bytes; it doubles."""
_ROOT, _MAGIC = struct.Struct("<16xI124xQ"), 0xBEEFC0DE
"""A root, as far as it is looked at: what it begins with, and the number of its commit."""
_MAGICS = [_MAGIC.to_bytes(4, order) for order in ("little", "big")]
_DATABASE, DEEPEST = struct.Struct("<IHH5Q"), 32
"""A database within a database: padding, flags, depth; pages of branches, of leaves, beyond them; entries, root."""
SMALL_VALUE = 1 << 11
"""Bytes below which values are small, on an average."""


class Environment:
    """An LMDB file, open for reading; threads share it, each with a transaction of its own.

    A forked child reads in what its parent has opened, with transactions of its own: to close it there would wait for
    the threads that were reading. It is closed with the last reference that the child has.

    Large values are looked at where they lie in the map; to copy small ones is faster.
    """

    def __init__(self, path: str, who: str, status: os.stat_result) -> None:
        lmdb = needed("lmdb", f"{who}()", extra="lmdb")
        self.path, self.who, self.written, size = path, who, status.st_mtime_ns, status.st_size
        self.errors, self._local = lmdb.Error, threading.local()
        with self.clearly("cannot be opened"):
            if not size:
                raise ValueError(f"{who}(): {path} is empty; no LMDB database was written to it")
            self._environment = lmdb.open(path, subdir=False, readonly=True, lock=False, create=False)
            forks.finalize(self, self._environment.close)
            pages = self._environment.stat()
            needs = (self._environment.info()["last_pgno"] + 1) * pages["psize"]
            if needs > size:  # reading behind the end of a mapped file kills the process
                raise ValueError(
                    f"{who}(): {path} is truncated: it must have {needs} bytes, and has {size}; copy or write it again"
                )
            _check_roots(path, pages["psize"], size, f"{who}(): {path}")
            with self._environment.begin() as transaction:
                if self._environment.open_db(None, transaction, create=False).flags(transaction)["dupsort"]:
                    raise ValueError(
                        f"{who}(): {path} may hold several values under one key (dupsort), and only one is read; "
                        "write it anew"
                    )
            self.entries: int = pages["entries"]
            if self.entries > size:
                raise self.corrupt(f"it says that it has {self.entries} entries, in {size} bytes")
            filled = (pages["leaf_pages"] + pages["overflow_pages"]) * pages["psize"]
            self.small: bool = filled < SMALL_VALUE * self.entries

    @property
    def transaction(self) -> Any:
        """This thread's transaction."""
        try:
            return self._local.transaction
        except AttributeError:
            self._local.transaction = self._environment.begin(buffers=not self.small)
            return self._local.transaction

    def get(self, key: bytes) -> memoryview | bytes | None:
        """What is under a key."""
        with self.clearly("cannot be read"):
            return self.transaction.get(key)

    def following(self, key: bytes) -> Iterator[memoryview | bytes]:
        """What is under the keys from one on, in the order of the database."""
        cursor = self.transaction.cursor()
        return cursor.iternext(keys=False) if cursor.set_range(key) else iter(())

    def __iter__(self) -> Iterator[bytes]:
        """All keys in their order."""
        with self.clearly("cannot be read"):
            for key in self.transaction.cursor().iternext(values=False):
                yield bytes(key)

    def close(self) -> None:
        """Nothing: it is closed when nobody reads from it any more."""

    @contextlib.contextmanager
    def clearly(self, what: str) -> Iterator[None]:
        """LMDB's errors, with what to do."""
        try:
            yield
        except self.errors as error:
            raise self.error_for(what, error) from error

    def corrupt(self, why: str) -> ValueError:
        """The error for a database that contradicts itself."""
        return ValueError(f"{self.who}(): {self.path} is corrupt: {why}; copy or write it again")

    def error_for(self, what: str, error: Exception) -> ValueError:
        """An error of LMDB, with what to do."""
        foreign = _foreign(self.path) or other_kind(self.path, self.who)
        hint = "close the other first" if "already open" in str(error) else foreign or "is it a whole LMDB database?"
        return ValueError(f"{self.who}(): {self.path} {what} as LMDB: {error}; {hint}")


def _foreign(path: str) -> str:
    """What to do about a database that is whole, and of another machine; nothing, if it is none."""
    with open(path, "rb") as file:
        begin = file.read(_ROOT.size)
    other = "32 bits" if begin[12:16] in _MAGICS else "another order of bytes" if begin[16:20] == _MAGICS[1] else ""
    return (
        f"it was written on a machine of {other}: dump it there (mdb_dump), and load it here (mdb_load)"
        if other
        else ""
    )


def is_database(value: Any) -> bool:
    """Whether a value is LMDB's own record of a database within the database (lmdb.c, `MDB_db`), and no data.

    >>> is_database(bytes(48)), is_database(b"any other value")
    (False, False)
    """
    if len(value) != _DATABASE.size:
        return False
    pad, flags, depth, branches, leaves, _, entries, root = _DATABASE.unpack(value)
    return (
        pad == 0
        and flags < 1 << 7
        and 0 < depth <= DEEPEST
        and branches + 1 >= depth
        and 0 < leaves <= entries
        and root > 1
    )


def _check_roots(path: str, page: int, size: int, called: str) -> None:
    """Make sure that the newest of the two roots is whole: LMDB falls back to the other,
    and to what was there before, in silence.

    Commits are numbered, and write one root and the other in turns (lmdb.c, `MDB_meta`), so the numbers are neighbours.

    Raises:
        ValueError: they are not; or nothing was ever committed to what is there.
    """
    with open(path, "rb") as file:
        roots = [(file.seek(number * page), file.read(_ROOT.size))[1] for number in range(2)]
    if min(map(len, roots)) < _ROOT.size or any(_ROOT.unpack(root)[0] != _MAGIC for root in roots):
        return  # of another layout than that of 64 bits
    even, odd = (_ROOT.unpack(root)[-1] for root in roots)
    if (even, odd) == (0, 0):
        if size > 2 * page:
            raise ValueError(
                f"{called} has {size} bytes, of which nothing was ever committed; it is damaged, or its writer was "
                "killed"
            )
    elif abs(even - odd) != 1 or even % 2:
        raise ValueError(
            f"{called} is corrupt: its two roots are of the commits {even} and {odd}; copy or write it again"
        )


def environment(path: str, who: str) -> Environment:
    """The environment of a file in this process."""
    with _environments_lock:
        status = os.stat(path)
        at = status.st_dev, status.st_ino
        shared = _environments.get(at)
        if shared is not None and shared.written != status.st_mtime_ns:  # it has been written to
            shared = None
            gc.collect()
        if shared is None:
            shared = _environments[at] = Environment(path, who, status)
        return shared


class Growing:
    """An LMDB file, open for writing by this process alone; its map grows as it is needed."""

    def __init__(self, path: str, who: str) -> None:
        self.path, self.who, self._lmdb = path, who, needed("lmdb", f"{who}()", extra="lmdb")
        size = os.path.getsize(path) if os.path.exists(path) else 0
        try:
            self._environment = self._lmdb.open(path, subdir=False, lock=False, map_size=max(FIRST, 2 * size))
        except self._lmdb.Error as error:
            if not size:
                raise self._error_for(error) from error
            raise ValueError(f"{who}(): {path} cannot be continued: {error}; remove it to begin anew") from error

    def put(self, items: Sequence[tuple[bytes, bytes]], beside: Mapping[bytes, bytes | None]) -> None:
        """Put numbered items behind those that are there, and others beside them,
        where None removes one; all or none."""

        def change(transaction: Any) -> None:
            for key, value in items:
                transaction.put(key, value, append=len(key) == 8)  # numbers of nine digits are not in order
            for key, other in beside.items():
                if other is None:
                    transaction.delete(key)
                else:
                    transaction.put(key, other)

        self._changed(change)

    def clear(self) -> None:
        """Have nothing in it."""
        everything = self._environment.open_db()
        self._changed(lambda transaction: transaction.drop(everything, delete=False))

    def _changed(self, change: Callable[[Any], None]) -> None:
        """Change it as a whole, or not at all."""
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    change(transaction)
                return
            except self._lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except self._lmdb.Error as error:
                raise self._error_for(error) from error

    def _error_for(self, error: Exception) -> OSError:
        number, hint = errno_of(error), "is there room on the disk?"
        if number is None:
            return OSError(f"{self.who}(): {self.path} cannot be written: {error}; {hint}")
        return OSError(number, f"{os.strerror(number)}; {hint}")

    def get(self, key: bytes) -> bytes | None:
        """What is under a key."""
        with self._environment.begin() as transaction:
            return transaction.get(key)

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.close()


_environments: weakref.WeakValueDictionary[tuple[int, int], Environment] = weakref.WeakValueDictionary()
"""By what the file is: LMDB would not open it a second time under any name."""
_environments_lock = forks.lock()
