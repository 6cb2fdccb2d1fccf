"""Datapoints that cross, and the shared memory that they cross in."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

import flowfn as ff
from flowfn.testing import same

counts = pytest.mark.parametrize("n", [1, 2])


def files(pid):
    """Inode and size, as far as there are pages, of the nameless files that a process has open or mapped."""
    found = {}
    with contextlib.suppress(OSError):
        for folder in ("fd", "map_files"):
            for entry in os.scandir(f"/proc/{pid}/{folder}"):
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path).startswith("/memfd:flowfn"):
                        told = os.stat(entry.path)
                        found[told.st_ino] = told.st_blocks * 512
    return found


def family():
    """This process and its workers."""
    found = [os.getpid()]
    for listing in Path("/proc/self/task").glob("*/children"):
        found += map(int, listing.read_text().split())
    return [pid for pid in found if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def shared_bytes():
    """How much shared memory this process and its workers keep from being used otherwise."""
    return sum({inode: size for pid in family() for inode, size in files(pid).items()}.values())


def numbered(count=40, items=20_000):
    """A flow of large arrays that are made in the workers, each of its own number, and what they should be."""
    return ff.pipe(range(count), ff.map(lambda i: np.full(items, i, np.float64))), [
        np.full(items, i, np.float64) for i in range(count)
    ]


# What crosses


def contents(structures):
    return structures.tolist() if structures.dtype.hasobject else structures.tobytes()


def alike(a, b):
    """Whether two values are the same, in type, dtype and values; masks and attributes too."""
    if isinstance(a, np.ma.MaskedArray):
        return type(b) is type(a) and same(a.filled(), b.filled()) and same(np.asarray(a.mask), np.asarray(b.mask))
    if isinstance(a, np.void):
        return type(b) is type(a) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, np.ndarray) and a.dtype.names:
        return type(b) is type(a) and a.dtype == b.dtype and a.shape == b.shape and contents(a) == contents(b)
    if isinstance(a, np.ndarray) and type(a) is not np.ndarray:
        return type(b) is type(a) and same(np.asarray(a), np.asarray(b))
    if isinstance(a, np.ndarray) and a.dtype.kind == "V":
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return same(a, b)
