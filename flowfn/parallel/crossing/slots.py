"""Shared memory without names: files in memory that a worker opens through /proc,
and that go with the last who has them.

A `Slot` is such a file on the side of the consumer, who says in a task which one it may use; a `Desk` is the same file
on the side of whoever works on the task. The arrays that came with the task lie at its front, those that the task makes
are put behind them, and the file grows as they need it. So an array crosses without being copied, and nothing has a
name that a crash could leave behind.
"""

from __future__ import annotations

import bisect
import mmap
import os
import time
import warnings
import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from flowfn.datapoints.buffers import Pool, bottom
from flowfn.process import forks
from flowfn.process.interrupts import Deferred

CACHE_LINE = 64
EXTENT = 1 << 20
"""Bytes by which files grow."""

UNUSED_SECONDS = 1.0
"""Seconds after which a worker closes a slot that it has not used."""


class SlotName(NamedTuple):
    """How to find a slot: its path, the number of its file, since paths are used again,
    and the period in which it is used."""

    path: str
    file: int
    period: int


class Denied(OSError):
    """A slot cannot be opened."""


class MappedFile:
    """A file in memory as one process sees it: it may be mapped several times, as it grew."""

    def __init__(self, fd: int) -> None:
        self.fd, self.maps = fd, [UNMAPPED]
        weakref.finalize(self, os.close, fd).atexit = False
        self.look()

    @property
    def size(self) -> int:
        """How many bytes can be seen."""
        return self.memory.nbytes

    @property
    def memory(self) -> memoryview:
        """All of it."""
        return self.maps[-1][0]

    def see(self, size: int) -> None:
        """Map the file as far as it reaches now."""
        if size > self.size:
            memory = memoryview(mmap.mmap(self.fd, size))
            self.maps = [*self.maps[-3:], (memory, _address(memory))]

    def look(self) -> None:
        """Map what others have made of the file by now."""
        self.see(os.fstat(self.fd).st_size)

    def reach(self, size: int) -> None:
        """Have at least `size` bytes, which are there: OSError comes here, and not when they are written."""
        if size > self.size:
            size = -(-size // EXTENT) * EXTENT
            os.posix_fallocate(self.fd, 0, size)
            self.see(size)

    def where(self, buffer: memoryview) -> int | None:
        """At which offset a buffer lies, if it does."""
        start = _address(buffer)
        for mapped, first in self.maps:
            if mapped.nbytes and 0 <= start - first <= mapped.nbytes - buffer.nbytes:
                return start - first
        return None


def _address(buffer: memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]) if buffer.nbytes else 0


UNMAPPED = memoryview(bytearray()), 0
"""A memory and its address, where there is none."""


class Slot(MappedFile, forks.Owned):
    """A new file in memory, which others may open by its name."""

    def __init__(self, period: int = 0) -> None:
        fd = os.memfd_create("flowfn", os.MFD_CLOEXEC)
        super().__init__(fd)
        self.name = SlotName(f"/proc/{self.owner}/fd/{fd}", os.fstat(fd).st_ino, period)

    def close(self) -> None:
        """Give its pages back now, whoever still has it mapped.
        A forked child has only a copy of this, and does nothing."""
        self.maps = [UNMAPPED]
        if not self.inherited:
            os.ftruncate(self.fd, 0)


class Region(NamedTuple):
    """Part of a desk at which somebody may still look."""

    start: int
    stop: int
    seen: weakref.ref[Any]
    forks: int  # how many were over when it was made

    @property
    def watched(self) -> bool:
        """Whether somebody looks there, or a child may, which nobody hears of."""
        return self.seen() is not None or self.forks != forks.begun


class Desk:
    """The memory of one task. `used` bytes of it came with the task; `used` grows as more are needed."""

    def __init__(self, memory: MappedFile, used: int = 0) -> None:
        self.memory, self.used = memory, used
        self.denied = ""  # why there was no room, if there was none
        self.regions: list[Region] = []

    def allocate(self, size: int) -> np.ndarray | None:
        """Room for `size` bytes where nobody looks, as far in front as can be; None if there is no memory."""
        start = self._gap(size)
        try:
            self.memory.reach(start + _rounded_size(size))
        except OSError as error:
            self.denied = str(error)
            return None
        return self.room(start, size)

    def room(self, start: int, size: int) -> np.ndarray:
        """A part of the desk. Nothing else is put there as long as somebody looks at it."""
        over, memory = forks.ended, self.memory.memory
        seen = bottom(memory, start, max(size, min(_rounded_size(size), memory.nbytes - start)))
        bisect.insort(
            self.regions, Region(start, start + size, weakref.ref(seen), over), key=lambda region: region.start
        )
        self.used = max(self.used, start + size)
        return np.frombuffer(seen, np.uint8, size)

    @property
    def watched(self) -> bool:
        """Whether somebody looks into it: then nobody may write there again."""
        return any(region.watched for region in self.regions)

    def _gap(self, size: int) -> int:
        self.regions = [region for region in self.regions if region.watched]
        start = 0
        for region in self.regions:
            if region.start - start >= size:
                break
            start = max(start, -(-region.stop // CACHE_LINE) * CACHE_LINE)
        return start


def _rounded_size(size: int) -> int:
    """A size or a little more, of which there are few: for each the interpreter keeps a type."""
    grain = max(CACHE_LINE, 1 << max(size.bit_length() - 4, 0))
    return -(-size // grain) * grain


def most() -> int:
    """How many slots a process has open at most: each takes two descriptors, and others need some too."""
    import resource

    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8, 256)


slots: Pool = Pool(lambda size: Slot(slots.periods), shared=True)
"""The slots of this process."""

_denied = ""
_warned = False


def take_slot() -> Slot | None:
    """A slot for one task; None where none can be had."""
    if not _denied and not hasattr(os, "memfd_create"):
        deny("this platform has no files in memory")
    if _denied or (not slots.free and len(slots.blocks) >= most()):
        return None
    try:
        with Deferred():  # what was opened would stay so
            return slots.take(None)  # type: ignore[return-value]
    except OSError as error:
        deny(str(error))
        return None


def deny(why: str, lasting: bool = True) -> None:
    """Do without shared memory from now on, or this once, and say so once."""
    global _denied, _warned
    _denied = _denied or (why if lasting else "")
    if not _warned:
        _warned = True
        warnings.warn(
            f"prefetch(): shared memory cannot be had ({why}), so what comes from worker processes is pickled, which "
            "is slower; "
            "on Linux memfd_create and /proc must be allowed and memory be left; elsewhere threads= may be faster",
            RuntimeWarning,
            stacklevel=2,
        )


def denied() -> bool:
    """Whether shared memory cannot be had."""
    return bool(_denied)


def allow() -> None:
    """Try again to have shared memory."""
    global _denied, _warned
    _denied, _warned = "", False


class _OpenSlots:
    """The slots that a worker has open: those of the newest period, and of them those that were used of late."""

    def __init__(self) -> None:
        self.period = 0
        self.slots: OrderedDict[int, tuple[MappedFile, float]] = OrderedDict()
        self.lock = forks.lock()  # a thread looks after what is idle

    def get(self, name: SlotName) -> MappedFile:
        with self.lock:
            if name.period != self.period:
                self.slots.clear()
                self.period = name.period
            memory = self.slots.pop(name.file, (None, 0.0))[0] or _open(name)
            self.slots[name.file] = memory, time.monotonic()
            while len(self.slots) > most():
                self.slots.popitem(last=False)
        memory.look()
        return memory

    def tidy(self) -> None:
        """Close what has not been used for a while: it may be that nobody else has it any more."""
        with self.lock:
            while self.slots and next(iter(self.slots.values()))[1] < time.monotonic() - UNUSED_SECONDS:
                self.slots.popitem(last=False)


def _open(name: SlotName) -> MappedFile:
    """The memory of a slot, in another process than its own."""
    try:
        memory = MappedFile(os.open(name.path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Denied(f"{error} (in a worker)") from error
    if os.fstat(memory.fd).st_ino != name.file:
        raise Denied(f"{name.path} is another file by now")
    return memory


_open_slots = _OpenSlots()
open_slot, tidy = _open_slots.get, _open_slots.tidy


def open_array(name: SlotName) -> memoryview:
    """The bytes of a slot that holds an array, to be read only."""
    return _open(name).memory.toreadonly()
