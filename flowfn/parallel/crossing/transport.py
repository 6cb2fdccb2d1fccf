"""How values cross between processes: pickle 5, with large buffers left in shared memory where there is some.

    sender     pack_value(value, desk)      -> Parcel: a few hundred bytes, and where the arrays lie
    receiver   unpack_value(parcel, memory) -> the value, its arrays looking into that memory

An array or a tensor that was made in the memory of the desk is not copied at all; one that was made elsewhere is copied
there once. Without a desk, or without memory, a parcel holds everything.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import pickle
import weakref
from collections import ChainMap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flowfn.datapoints.buffers import SMALL
from flowfn.parallel.crossing import reducers
from flowfn.parallel.crossing.reducers import reducer
from flowfn.parallel.crossing.slots import Desk, Slot, SlotName, open_array
from flowfn.parallel.tasks.versions import Ledger, goes_whole
from flowfn.pickling import by_value as pickling
from flowfn.pickling import reducing
from flowfn.process import forks

SHARED_BYTES = 1 << 20
"""Bytes from which an array in a flow is put into shared memory once, and not sent with it."""


class Parcel(NamedTuple):
    """A value on its way: its pickle, the (offset, size) of its large buffers, and how much of the memory is used.

    A large pickle lies there too, behind the buffers, and `data` is empty: a pipe would take it in small pieces.
    If it travels `apart`, its large buffers are arrays of bytes of their own, for who sends arrays without pickling.
    """

    data: bytes
    spans: tuple[tuple[int, int], ...] = ()
    used: int = 0
    apart: tuple[np.ndarray, ...] = ()


def pack_value(value: Any, desk: Desk | None = None, ledger: Ledger | None = None, apart: bool = False) -> Parcel:
    """A value as a parcel. With a `ledger`, what is defined in `__main__`, and lambdas, travel with it,
    and what goes by name is noted."""
    if ledger is None:
        with contextlib.suppress(Exception):  # what cannot be found by name goes by value, or says below why it cannot
            return _pack_with(_Pickler, value, desk, apart)
    return _pack_with(_pickler_by_value(reducers.array, ledger), value, desk, apart)


def _pack_with(pickler: Callable[..., Any], value: Any, desk: Desk | None, apart: bool) -> Parcel:
    if apart:
        return _pack_apart(pickler, value)
    spans: list[tuple[int, int]] = []
    rooms: list[np.ndarray] = []  # kept until all of it is there

    def keeps(buffer: pickle.PickleBuffer) -> bool:
        """Whether the pickle has to hold a buffer itself."""
        raw = buffer.raw()
        if desk is None or raw.nbytes < SMALL:
            return True
        offset = desk.memory.where(raw)
        if offset is None:
            room = desk.allocate(raw.nbytes)
            if room is None:
                return True
            room.data[:] = raw
            rooms.append(room)
            offset = desk.memory.where(room.data)
        spans.append((offset, raw.nbytes))  # type: ignore[arg-type]
        return False

    data = _dumps(pickler, value, keeps)
    if desk is None:
        return Parcel(data)
    room = desk.allocate(len(data)) if len(data) >= SMALL else None
    if room is not None:
        room.data[:] = data
        spans.append((desk.memory.where(room.data), len(data)))  # type: ignore[arg-type]
        data = b""
    return Parcel(data, tuple(spans), desk.used)


def _pack_apart(pickler: Callable[..., Any], value: Any) -> Parcel:
    buffers: list[np.ndarray] = []

    def keeps(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < SMALL:
            return True
        buffers.append(np.frombuffer(raw, np.uint8))
        return False

    data = _dumps(pickler, value, keeps)
    return Parcel(data, apart=tuple(buffers))


def unpack_value(parcel: Parcel, memory: memoryview | None = None, copied: bool = False) -> Any:
    """The value of a parcel; its large arrays look into `memory`, or are `copied` out of it. Those that came apart are
    copied if nobody may write to them, as in an object store."""
    if parcel.apart:
        return pickle.loads(parcel.data, buffers=[one if one.flags.writeable else one.copy() for one in parcel.apart])
    if memory is None:
        return pickle.loads(parcel.data)
    buffers = [memory[at : at + size] for at, size in parcel.spans]
    data = parcel.data or buffers.pop()
    return pickle.loads(data, buffers=map(bytearray, buffers) if copied else buffers)


def _dumps(pickler: Callable[..., Any], value: Any, keeps: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    with io.BytesIO() as file:
        pickler(file, protocol=5, buffer_callback=keeps).dump(value)
        return file.getvalue()


class _Pickler(pickle.Pickler):
    dispatch_table: Any = ChainMap(reducing.SENTINELS, copyreg.dispatch_table)  # noqa: RUF012

    def reducer_override(self, value: Any) -> Any:
        kind: Any = type(value)
        reduce = reducer(kind)
        return NotImplemented if reduce is None else reduce(value)


@functools.cache
def _by_value() -> Any:
    """The class of picklers that take along what cannot be found by name, and note what can. It is made once: a
    free-threaded interpreter keeps every class that it has seen, and all that this looks at."""

    class ByValue(pickling.by_value()):  # type: ignore[misc]
        def __init__(
            self, file: Any, reduced: Callable[[np.ndarray], Any], ledger: Ledger | None, **options: Any
        ) -> None:
            super().__init__(file, **options)
            self.reduced, self.ledger = reduced, ledger

        def reducer_override(self, value: Any) -> Any:
            if self.ledger is not None:
                self.ledger.note(value)
            if isinstance(value, pickling.CACHED) and goes_whole(value.__module__ or ""):
                return pickling.cached, (value.__wrapped__, value.cache_parameters())
            kind: Any = type(value)
            reduce = self.reduced if kind is np.ndarray else reducer(kind)
            made = NotImplemented if reduce is None else reduce(value)
            if made is not NotImplemented:
                return made
            return super().reducer_override(value)

    return ByValue


def _pickler_by_value(reduced: Callable[[np.ndarray], Any], ledger: Ledger | None) -> Callable[..., Any]:
    """A pickler of that class, with what it makes of arrays, and where it notes what goes by name."""
    return functools.partial(_by_value(), reduced=reduced, ledger=ledger)


def dumped(value: Any, ledger: Ledger | None = None) -> bytes:
    """A value as bytes, with what cannot be found by name."""
    return _dumps(_pickler_by_value(reducers.array, ledger), value, lambda buffer: True)


def pack_tree(tree: Any, shares: bool, ledger: Ledger) -> tuple[bytes, list[Slot]]:
    """A tree of stages as bytes; if it `shares`, the large arrays of its sources are put into slots, and only named.

    Whoever is to read them can, as long as the slots live.
    """
    slots: list[Slot] = []

    def shared(array: np.ndarray) -> Any:
        """An array that nobody is to write to, which is how sources hold theirs, by its name in shared memory."""
        fits = shares and array.nbytes >= SHARED_BYTES and not (array.dtype.hasobject or array.flags.writeable)
        slot = _slot_of(array, np.ascontiguousarray(array)) if fits else None
        if slot is None:
            return reducers.array(array)
        slots.append(slot)
        return _array_in, (slot.name, array.dtype, array.shape)

    return _dumps(_pickler_by_value(shared, ledger), tree, lambda buffer: True), slots


_shared: dict[int, tuple[weakref.ref[np.ndarray], Slot]] = {}
"""Arrays that were put into shared memory, by id, as long as they live."""


def _slot_of(array: np.ndarray, plain: np.ndarray) -> Slot | None:
    """The slot that holds what an array holds now; None if there is no memory for it."""
    former = _shared.get(id(array))
    content = plain.reshape(-1).view(np.uint8)
    if former is not None and former[0]() is array and _equal(former[1], content):
        return former[1]
    try:
        slot = Slot()
        slot.reach(content.nbytes)
    except (OSError, AttributeError):
        return None
    slot.memory[: content.nbytes] = content.data
    key = id(array)

    _shared[key] = weakref.ref(array, lambda _: _shared.pop(key, None)), slot  # not closed: a worker may look into it
    return slot


def _equal(slot: Slot, content: np.ndarray) -> bool:
    """Whether a slot holds some bytes, looked at in pieces that fit into a processor's cache."""
    there = np.frombuffer(slot.memory, np.uint8)[: content.nbytes]
    return all(
        np.array_equal(there[at : at + SHARED_BYTES], content[at : at + SHARED_BYTES])
        for at in range(0, content.nbytes, SHARED_BYTES)
    )


def _array_in(name: SlotName, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer=open_array(name))


forks.in_child(_shared.clear)  # its workers would look for them with its parent, who may have others there by then


def forget_shared() -> None:
    """Let go of every array that was put into shared memory."""
    _shared.clear()
