"""Shared memory without names: files in memory that a worker opens through /proc, and that go with the last who has them.

A `Slot` is such a file on the side of the consumer, who says in a task which one it may use; a `Desk` is the same file
on the side of whoever works on the task. The arrays that came with the task lie at its front, those that the task makes
are put behind them, and the file grows as they need it. So an array crosses without being copied, and nothing has a
name that a crash could leave behind.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import warnings
import weakref
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from flowfn.buffers import Pool

ALIGNED = 64
GRAIN = 1 << 20
"""Bytes by which files grow."""

_serials = itertools.count()


class Name(NamedTuple):
    """How to find a slot: a path, and a number, since paths are used again."""

    path: str
    serial: int


class Memory:
    """A file in memory as one process sees it: it may be mapped several times, as it grew."""

    def __init__(self, fd: int) -> None:
        self.fd, self.maps = fd, [memoryview(b"")]
        weakref.finalize(self, os.close, fd).atexit = False
        self.look()

    @property
    def size(self) -> int:
        """How many bytes can be seen."""
        return self.maps[-1].nbytes

    @property
    def memory(self) -> memoryview:
        """All of it."""
        return self.maps[-1]

    def see(self, size: int) -> None:
        """Map the file as far as it reaches now."""
        if size > self.size:
            self.maps.append(memoryview(mmap.mmap(self.fd, size)))
            self.maps = self.maps[-4:]

    def look(self) -> None:
        """Map what others have made of the file by now."""
        self.see(os.fstat(self.fd).st_size)

    def reach(self, size: int) -> None:
        """Have at least `size` bytes, which are there: OSError comes here, and not when they are written."""
        if size > self.size:
            size = -(-size // GRAIN) * GRAIN
            os.posix_fallocate(self.fd, 0, size)
            self.see(size)

    def where(self, buffer: memoryview) -> int | None:
        """At which offset a buffer lies, if it does."""
        start = _address(buffer)
        for mapped in self.maps:
            if mapped.nbytes and 0 <= start - _address(mapped) <= mapped.nbytes - buffer.nbytes:
                return start - _address(mapped)
        return None


def _address(buffer: memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]) if buffer.nbytes else 0


class Slot(Memory):
    """A new file in memory, which others may open by its name."""

    def __init__(self) -> None:
        fd = os.memfd_create("flowfn", os.MFD_CLOEXEC)
        super().__init__(fd)
        self.name = Name(f"/proc/{os.getpid()}/fd/{fd}", next(_serials))

    def close(self) -> None:
        """Give its pages back now, whoever still has it mapped."""
        self.maps = [memoryview(b"")]
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, 0)


class Desk:
    """The memory of one task. `used` bytes of it came with the task."""

    def __init__(self, memory: Memory, used: int = 0) -> None:
        self.memory, self.used = memory, used
        self.denied = ""  # why there was no room, if there was none
        self.places: list[tuple[weakref.ref[np.ndarray], int]] = []

    def place(self, size: int) -> np.ndarray | None:
        """Room for `size` bytes, behind what somebody still looks at; None if there is no memory."""
        while self.places and self.places[-1][0]() is None:
            self.used = self.places.pop()[1]
        start = -(-self.used // ALIGNED) * ALIGNED
        try:
            self.memory.reach(start + size)
        except OSError as error:
            self.denied = str(error)
            return None
        room = np.frombuffer(self.memory.memory[start : start + size], np.uint8)
        self.look(room, start)
        self.used = start + size
        return room

    def look(self, room: np.ndarray, start: int) -> None:
        """Remember that `room`, which begins at `start`, is looked at."""
        self.places.append((weakref.ref(room), start))

    @property
    def watched(self) -> bool:
        """Whether somebody looks into it: then nobody may write there again."""
        return any(room() is not None for room, _ in self.places)


def most() -> int:
    """How many slots a process has open at most: each takes two descriptors, and others need some too."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8


slots = Pool(lambda size: Slot(), shared=True)
"""The slots of this process."""

_denied = ""


def take() -> Slot | None:
    """A slot for one task; None where none can be had."""
    if not _denied and not hasattr(os, "memfd_create"):
        deny("this platform has no files in memory")
    if _denied or (not slots.free and len(slots.blocks) >= most()):
        return None
    try:
        return slots.take(None)  # type: ignore[return-value]
    except OSError as error:
        deny(str(error))
        return None


def deny(why: str) -> None:
    """Do without shared memory from now on, and say so once."""
    global _denied
    if not _denied:
        _denied = why
        warnings.warn(
            f"prefetch(): shared memory cannot be had ({why}), so what comes from worker processes is pickled, which is slower; "
            "on Linux memfd_create and /proc must be allowed and memory be left; elsewhere threads= may be faster",
            RuntimeWarning,
            stacklevel=2,
        )


def denied() -> bool:
    """Whether shared memory cannot be had."""
    return bool(_denied)


def allow() -> None:
    """Try again to have shared memory."""
    global _denied
    _denied = ""


_opened: OrderedDict[int, Memory] = OrderedDict()


def opened(name: Name) -> Memory:
    """The memory of a slot, in a worker."""
    if name.serial not in _opened:
        _opened[name.serial] = Memory(os.open(name.path, os.O_RDWR | os.O_CLOEXEC))
        while len(_opened) > most():
            _opened.popitem(last=False)
    _opened.move_to_end(name.serial)
    memory = _opened[name.serial]
    memory.look()
    return memory
