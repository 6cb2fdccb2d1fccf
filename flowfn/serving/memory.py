"""Datapoints in shared memory between one who serves and consumers on the same machine.

    server    Lending.put(buffers) -> Block    the bytes of a datapoint, copied once into a file in memory
    consumer  open_block(...) -> views         the same pages, of its own as soon as it writes to them
    consumer  (views die)                      it says so with its next request, and the file is used again

A file at which somebody may look who was not heard of again is never used again. Nothing has a name on a disk.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import re
import secrets
from collections.abc import Hashable, Sequence
from typing import Any

from flowfn.datapoints.buffers import SMALL
from flowfn.parallel.crossing.slots import CACHE_LINE, Slot

_PATH = re.compile(r"/proc/\d+/fd/\d+")


class SharedBlock:
    """One datapoint's bytes in shared memory; its slot is free again when nobody has the block and nobody looks."""

    def __init__(self, lending: Lending, slot: Slot, number: int, spans: list[tuple[int, int]]) -> None:
        self.lending, self.slot, self.number, self.spans = lending, slot, number, spans
        self.viewers: set[Hashable] = set()
        self.lost = False  # somebody may look who does not say when that ends

    @property
    def name(self) -> list[Any]:
        """How it is found: path, number of the file, its own number, size, and where the buffers lie."""
        return [self.slot.name.path, self.slot.name.file, self.number, self.slot.size, [*map(list, self.spans)]]

    @property
    def buffers(self) -> list[memoryview]:
        """Its bytes."""
        return [self.slot.memory[at : at + size] for at, size in self.spans]

    def __del__(self) -> None:
        if not self.lost and self.lending.most:
            self.lending.free.append(self.slot)
        self.lending.out -= 1


class Lending:
    """The blocks of a server: at most `most` at a time; what is beyond them travels in messages."""

    def __init__(self, most: int) -> None:
        self.most, self.out, self.numbers = most, 0, itertools.count(1)
        self.free: list[Slot] = []
        self.seen: dict[int, SharedBlock] = {}
        self.denied = not hasattr(os, "memfd_create")
        self.secret = secrets.token_hex(16)
        probe = self.put([memoryview(self.secret.encode())], small=0)
        self.probe = probe and probe.name
        self._kept = probe

    def close(self) -> None:
        """Let go of all memory; what somebody looks at stays as long as that one has it."""
        self.most, self._kept = 0, None
        self.seen.clear()
        self.free.clear()

    def put(self, buffers: Sequence[memoryview], small: int = SMALL) -> SharedBlock | None:
        """Copy buffers into shared memory; None if they are small, or none can be had."""
        size = sum(-(-one.nbytes // CACHE_LINE) * CACHE_LINE for one in buffers)
        if size < small or not size or self.denied or self.out >= self.most:
            return None
        try:
            slot = self.free.pop() if self.free else Slot()
            slot.reach(size)
        except OSError:
            return None
        spans, at = [], 0
        for one in buffers:
            slot.memory[at : at + one.nbytes] = one
            spans.append((at, one.nbytes))
            at += -(-one.nbytes // CACHE_LINE) * CACHE_LINE
        self.out += 1
        return SharedBlock(self, slot, next(self.numbers), spans)

    def shown(self, block: SharedBlock, viewer: Hashable) -> None:
        """Somebody is told of a block."""
        block.viewers.add(viewer)
        self.seen[block.number] = block

    def freed(self, number: int, viewer: Hashable) -> None:
        """Somebody looks at a block no more."""
        block = self.seen.get(number)
        if block is not None and viewer in block.viewers:
            block.viewers.discard(viewer)
            if not block.viewers:
                del self.seen[number]

    def gone(self, viewer: Hashable) -> None:
        """Somebody is not heard of any more."""
        for block in [block for block in self.seen.values() if viewer in block.viewers]:
            block.lost = True
            self.freed(block.number, viewer)


def open_block(name: Any) -> tuple[mmap.mmap, list[memoryview]]:
    """The bytes of a block of another process; what is written there stays here.

    Raises:
        OSError: there is no such block on this machine.
    """
    try:
        path, file, _, size, spans = name
        if not _PATH.fullmatch(path) or not all(0 <= at <= at + length <= size for at, length in spans):
            raise OSError("not the name of a block")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (TypeError, ValueError) as error:
        raise OSError("not the name of a block") from error
    try:
        if os.fstat(fd).st_ino != file or not os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:flowfn"):
            raise OSError("the block is another file by now")
        if os.fstat(fd).st_size < size:
            raise OSError("the block is smaller than it should be")
        mapped = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)
    view = memoryview(mapped)
    return mapped, [view[at : at + length] for at, length in spans]


def is_shared(name: Any, secret: Any) -> bool:
    """Whether this process sees the memory of the one who says that."""
    with contextlib.suppress(OSError):
        return bytes(open_block(name)[1][0]) == str(secret).encode()
    return False
