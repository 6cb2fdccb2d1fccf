"""Where files are until they are whole: a folder beside their final place, which is locked by who writes in it.

A writer that is killed leaves the folder, `.part-` and eight digits, but not the lock. So whoever writes into the same
folder next can tell what is abandoned from what another program is at, and removes it. Where there are no such locks
(Windows, some network file systems), nothing is removed that is not one's own.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator

if sys.platform != "win32":
    import fcntl

_PART, _ASIDE = re.compile(r"\.part-[0-9a-f]{8}"), re.compile(r"\.old-[0-9a-f]{8}-(.+)", re.DOTALL)


@contextlib.contextmanager
def folder_beside(above: str) -> Iterator[str]:
    """A new folder in a folder, locked as long as this lasts, and then removed; before that,
    those that are abandoned are.

    >>> import tempfile
    >>> above = tempfile.mkdtemp()
    >>> with folder_beside(above) as folder, folder_beside(above) as another:
    ...     os.path.isdir(folder), len(os.listdir(above))
    (True, 2)
    >>> os.listdir(above)
    []
    """
    sweep(above)
    folder, lock = _new_folder(above)
    try:
        yield folder
    finally:
        remove(folder)
        if lock is not None:
            os.close(lock)


def aside_of(path: str) -> str:
    """A name beside `path` for what is to be replaced, until it is."""
    return os.path.join(os.path.dirname(path), f".old-{secrets.token_hex(4)}-{os.path.basename(path)}")


def sweep(above: str) -> None:
    """Remove what killed writers have left in a folder: unfinished files, and what they had put aside and replaced."""
    with contextlib.suppress(OSError), os.scandir(above) as entries:
        for entry in list(entries):
            aside = _ASIDE.fullmatch(entry.name)
            if _PART.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_abandoned(entry.path)
            elif aside and os.path.lexists(os.path.join(above, aside[1])):  # otherwise it is all that there is
                remove(entry.path)


def remove(path: str) -> None:
    """Remove a file, or a folder with all that is in it, as far as that is possible."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _new_folder(above: str) -> tuple[str, int | None]:
    """A new folder, and the lock on it, if there can be one."""
    while True:
        folder = os.path.join(above, f".part-{secrets.token_hex(4)}")
        os.mkdir(folder)
        lock, theirs = _lock_on(folder)
        if not theirs and os.path.isdir(folder):
            return folder, lock
        if lock is not None:  # somebody has swept it before it was locked
            os.close(lock)


def _remove_abandoned(folder: str) -> None:
    lock, _ = _lock_on(folder)
    if lock is not None:
        remove(folder)
        os.close(lock)


def _lock_on(folder: str) -> tuple[int | None, bool]:
    """A lock on a folder, None if there is none to be had; and whether that is because somebody else has it."""
    if sys.platform == "win32":
        return None, False
    lock = None
    try:
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock, False
    except OSError as error:  # also: a file system without locks
        if lock is not None:
            os.close(lock)
        return None, isinstance(error, (BlockingIOError, FileNotFoundError))
