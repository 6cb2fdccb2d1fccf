"""Recycled buffers: large arrays are made in memory that has been used before, because fresh pages are what costs.

    take      a block of memory that nobody looks into: one of the free ones, or a new one
    lend      its bytes as an array; the arrays that users see are views of it
    (dies)    when the last view is gone, a callback of what the array stands on puts the block on a list
    settle    before the next `take`, what is on that list is free again

A block is lent through an object of its own (`bottom`) on which the array stands. Whatever looks into it holds that
object: it is what `.base` and `.obj` lead to at last, and behind it they lead nowhere. The callback only appends to a
deque, so it may come in any thread, in the middle of anything. Blocks are kept while a pass is under way, up to a
bound; beyond it, and outside of passes, memory is ordinary memory. What was lent and shared at a fork is never used
again, since nobody hears when the child stops looking at it.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from flowfn.process import forks

SMALL = 1 << 16
"""Bytes below which an array never crosses in shared memory."""

WORTH = 1 << 20
"""Bytes below which memory of this process is never recycled: the C library does that well,
and to lend a block takes some 5 µs."""

BOUND = 1 << 30
"""Bytes of memory that a pool lends at most; what goes beyond it is ordinary memory."""

GRAIN = 1 << 16


class Slab(Protocol):
    """Memory of a pool."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    @property
    def memory(self) -> memoryview:
        """All of it, writable."""

    def close(self) -> None:
        """Give the memory back to the system; nobody looks into it."""


_size = attrgetter("size")


class Heap:
    """A block of this process's own memory."""

    def __init__(self, size: int) -> None:
        self.memory = np.empty(-(-size // GRAIN) * GRAIN, np.uint8).data
        self.size = self.memory.nbytes

    def close(self) -> None:
        """It goes with its last reference."""


@functools.lru_cache(maxsize=256)
def _bytes(size: int) -> Any:
    return ctypes.c_ubyte * size


def bottom(memory: memoryview, start: int = 0, size: int | None = None) -> Any:
    """An object that shows some bytes of a memory and says, by a weak reference to it,
    when nobody looks at them any more.

    What is made of it holds it, and not what lies below: it is where `.base` and `.obj` end.
    """
    return _bytes(memory.nbytes - start if size is None else size).from_buffer(memory, start)


class _Lease(weakref.ref[Any]):
    """What tells that a block is free again: dead when the object is through which it was lent."""

    __slots__ = ("block", "forks")
    block: Slab
    forks: int  # how many were over when it was lent


class Pool:
    """Blocks that are used again. `make(size)` makes one of at least so many bytes;
    `shared` says that others write there."""

    def __init__(self, make: Callable[[int], Slab], bound: int = BOUND, *, shared: bool = False) -> None:
        self.make, self.bound, self.shared = make, bound, shared
        self.periods = 0  # how often all of it was let go
        self.lock = forks.lock()  # an iterator may be collected, and its memory given back, anywhere
        self.forget()
        _pools.add(self)

    def forget(self) -> None:
        """Know of no block any more: those that are lent go with their last view, and are never used again."""
        self.blocks: set[Slab] = set()  # free, lent, and taken
        self.free: list[Slab] = []
        self.leases: dict[int, _Lease] = {}  # by id: whatever else they are equal to
        self.returned: deque[_Lease] = deque()
        self.lent = 0  # bytes

    def take(self, size: int | None) -> Slab:
        """A block of at least `size` bytes, for the caller alone; any block, the last that was used, if `size` is None.

        A new one takes the place of one that did not fit.
        """
        with self.lock:
            self._settle()
            if size is None:
                size = 0
                for block in reversed(list(self.free)):
                    if self._freed(block):
                        return block
            fitting = [block for block in reversed(self.free) if size <= block.size <= 2 * size + GRAIN]
            for block in sorted(fitting, key=_size):  # of equal ones, the last used: caches know it
                if self._freed(block):
                    return block
            for block in self.free[:1]:
                if self._freed(block):
                    self._drop(block)
            made = self.make(size)
            self.blocks.add(made)
            return made

    def may_lend(self, size: int) -> bool:
        """Whether `size` more bytes can be lent: the bound is for what users hold on to."""
        with self.lock:
            self._settle()
            return size + self.lent <= self.bound

    def lend(self, block: Slab) -> np.ndarray:
        """The bytes of a block that was taken. It is free again when nothing looks into them any more."""
        seen = bottom(block.memory)
        lease = _Lease(seen, self.returned.append)
        lease.block, lease.forks = block, forks.ended
        with self.lock:
            self.leases[id(lease)] = lease
            self.lent += block.size
        return np.frombuffer(seen, np.uint8)

    def give(self, block: Slab) -> None:
        """Put back a block that was taken and that nobody looks into."""
        with self.lock:
            if block in self.blocks and _passes:
                self.free.append(block)
            else:
                self._drop(block)

    def part_with(self, block: Slab) -> None:
        """Never use a block again that was taken: somebody looks into it, and nobody will say when that ends."""
        with self.lock:
            self.blocks.discard(block)

    def rest(self) -> None:
        """Let go of everything: no pass is under way."""
        with self.lock:
            self._settle()
            self.periods += 1
            free, self.free = self.free, []
            self.forget()
        for block in free:
            block.close()

    def _settle(self) -> None:
        while self.returned:
            lease = self.returned.popleft()
            if self.leases.pop(id(lease), None) is not None:
                self.lent -= lease.block.size
                if self.shared and lease.forks != forks.begun:  # a child may look into it
                    self.blocks.discard(lease.block)
                else:
                    self.free.append(lease.block)

    def _freed(self, block: Slab) -> bool:
        """Take a block off the free ones, unless somebody was quicker."""
        try:
            self.free.remove(block)
        except ValueError:
            return False
        return True

    def _drop(self, block: Slab) -> None:
        self.blocks.discard(block)
        block.close()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_passes: set[object] = set()
_pools_turn = forks.lock()
_local = threading.local()

heap = Pool(Heap)
"""The recycled memory of this process."""


def recycled(size: int) -> bool:
    """Whether `empty` would look for memory of so many bytes anywhere but at numpy's."""
    return (size >= WORTH and bool(_passes)) or (size >= SMALL and getattr(_local, "allocate", None) is not None)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be filled, in recycled memory if it is large; like `numpy.empty`.

    >>> empty((2, 3), np.float32).shape
    (2, 3)
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not recycled(size):
        return np.empty(shape, dtype)
    allocate: Callable[[int], np.ndarray | None] | None = getattr(_local, "allocate", None)
    if allocate is not None:
        memory = allocate(size)
    else:
        memory = heap.lend(heap.take(size)) if heap.may_lend(size) else None
    return np.empty(shape, dtype) if memory is None else np.ndarray(shape, dtype, buffer=memory)


@contextmanager
def allocated_by(allocate: Callable[[int], np.ndarray | None]) -> Iterator[None]:
    """Let `empty` ask `allocate(size)` for its memory, in this thread."""
    before = getattr(_local, "allocate", None)
    _local.allocate = allocate
    try:
        yield
    finally:
        _local.allocate = before


def begin_pass(name: object) -> None:
    """A pass has begun: memory is kept for it."""
    with _pools_turn:
        _passes.add(name)


def end_pass(name: object) -> None:
    """A pass has ended; after the last one, nothing is kept. Those that a forked child has of its parent are none."""
    with _pools_turn:
        if name in _passes:
            _passes.discard(name)
            if not _passes:
                for pool in list(_pools):
                    pool.rest()


@forks.in_child
def _forget_shared() -> None:
    """A forked child has a copy of its parent's heap, and no part in what is shared."""
    global _local
    _local = threading.local()  # the room for a task is its parent's
    _passes.clear()
    for pool in list(_pools):
        pool.forget()
