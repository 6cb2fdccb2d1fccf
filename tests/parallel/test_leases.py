"""Memory is used again only when nothing looks into it any more, whatever way it is looked into, and wherever it is."""

import ctypes
import gc
import importlib.util
import pickle
import types
import weakref

import numpy as np
import pytest

import flowfn as ff

pytestmark = pytest.mark.timeout(60)

ROWS, WIDTH = 3, 1 << 19
"""A batch has 1.5 MiB: enough for recycled memory of either kind."""


def rows():
    """Enough for a batch of each view and some behind them, each of its own number."""
    return (np.arange(ROWS * (len(VIEWS) + 8)) % 251).astype(np.uint8)[:, None] + np.zeros(WIDTH, np.uint8)


KINDS = {
    "stacked": [ff.map_component(np.copy, 0), ff.batch(ROWS)],
    "padded": [ff.batch(ROWS, collate=ff.pad(0))],
    "gathered": [ff.batch(ROWS)],
    "gathered at random": [ff.shuffle(), ff.batch(ROWS)],
    "rebatched": [ff.batch(3), ff.rebatch(ROWS)],
    "in a thread": [ff.batch(ROWS), ff.prefetch(2)],
    "in threads": [ff.batch(ROWS), ff.prefetch(2, threads=2)],
    "in a process": [ff.batch(ROWS), ff.prefetch(2, processes=1)],
    "in processes": [ff.map_component(np.copy, 0), ff.batch(ROWS), ff.prefetch(2, processes=2)],
}


def links(batch):
    """A batch, and all that `.base` and `.obj` lead to from it."""
    found = [batch]
    while True:
        below = [getattr(found[-1], name, None) for name in ("base", "obj")]
        if not any(other is not None for other in below):
            return found
        found.append(next(other for other in below if other is not None))


class Struct:
    """What offers an array through numpy's protocols alone."""

    def __init__(self, array, name):
        self.array, self.name = array, name

    def __getattr__(self, name):
        if name != self.name:
            raise AttributeError(name)
        return getattr(self.array, name)


class Tagged(np.ndarray):
    """An array of a class of its own."""


def unpickled(batch):
    buffers = []
    data = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=buffers)


def out_of_band(batch):
    buffers = []
    pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    return buffers[0]


def in_cycle(batch):
    ring = [batch[1]]
    ring.append(ring)
    return ring


VIEWS = {
    "itself": lambda a: a,
    "its base": lambda a: a.base,
    "the bottom of its bases": lambda a: links(a)[-1],
    "the last but one": lambda a: links(a)[-2],
    "the bottom of a slice's bases": lambda a: links(a[1:, ::3])[-1],
    "the bottom below its data": lambda a: links(a.data)[-1],
    "the bottom below a view of its data": lambda a: links(np.asarray(a.data)[1:])[-1],
    "the object of its data": lambda a: a.data.obj,
    "a memoryview of the bottom": lambda a: memoryview(links(a)[-1]),
    "frombuffer of the bottom": lambda a: np.frombuffer(links(a)[-1], np.uint8),
    "a weak reference's bottom": lambda a: links(weakref.ref(a)())[-1],
    "the base of its flat": lambda a: a.flat.base,
    "its flat": lambda a: a.flat,
    "a slice": lambda a: a[:, 5:],
    "a row": lambda a: a[1],
    "a view of views of views": lambda a: a[1:][:, ::2][..., None].T[0],
    "a reshape": lambda a: a.reshape(-1),
    "a view of another dtype": lambda a: a.view(np.uint64),
    "a view of another class": lambda a: a.view(Tagged),
    "a matrix": lambda a: a.view(np.matrix),
    "records": lambda a: a.view([("x", np.uint16), ("y", np.uint16)]).view(np.recarray),
    "a field of records": lambda a: a.view([("x", np.uint16), ("y", np.uint16)])["y"],
    "read-only": lambda a: (lambda view: view.setflags(write=False) or view)(a[:]),
    "masked": np.ma.masked_array,
    "a broadcast": lambda a: np.broadcast_to(a[:, None], (ROWS, 3, WIDTH)),
    "strides": lambda a: np.lib.stride_tricks.as_strided(a[1], (WIDTH // 2, 4), (1, 2)),
    "a sliding window": lambda a: np.lib.stride_tricks.sliding_window_view(a[1], 5),
    "a memoryview": memoryview,
    "its data": lambda a: a.data,
    "a memoryview cast": lambda a: memoryview(a).cast("B")[7:],
    "frombuffer": lambda a: np.frombuffer(a, np.uint16)[3:],
    "asarray of a memoryview": lambda a: np.asarray(memoryview(a)),
    "dlpack": np.from_dlpack,
    "__array_interface__": lambda a: np.asarray(Struct(a, "__array_interface__")),
    "__array_struct__": lambda a: np.asarray(Struct(a, "__array_struct__")),
    "__array_struct__ alone": lambda a: np.asarray(type("Alone", (), {"__array_struct__": a[1:].__array_struct__})()),
    "a pickle buffer": pickle.PickleBuffer,
    "an out-of-band buffer": out_of_band,
    "unpickled out of band": unpickled,
    "ctypes": lambda a: (ctypes.c_uint8 * a.nbytes).from_buffer(a),
    "as_ctypes": lambda a: np.ctypeslib.as_ctypes(a),
    "a ctypes pointer": lambda a: a.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)),
    "a closure": lambda a: lambda: a[1],
    "a cycle": in_cycle,
    "a generator": lambda a: (lambda rows: (yield rows))(a),
}


def seen(view):
    """What can be seen through a view, as bytes."""
    if isinstance(view, ctypes._Pointer):
        return ctypes.string_at(view, ROWS * WIDTH)
    if isinstance(view, types.FunctionType):
        view = view()
    if hasattr(view, "untyped_storage"):
        view = view.numpy()
    elif isinstance(view, np.flatiter):
        view = view[:]
    elif isinstance(view, list):
        view = view[0]
    elif isinstance(view, types.GeneratorType):
        view = view.gi_frame.f_locals["rows"]
    return np.array(view, copy=True).tobytes()


if importlib.util.find_spec("pyarrow"):
    import pyarrow as pa

    VIEWS |= {
        "an Arrow buffer": pa.py_buffer,
        "an Arrow array": lambda a: pa.array(a[1]),
        "a tensor of Arrow": lambda a: pa.Tensor.from_numpy(a),
        "a slice of an Arrow buffer": lambda a: pa.py_buffer(a)[100:],
    }
if importlib.util.find_spec("pandas"):
    import pandas as pd

    VIEWS |= {
        "a frame of pandas": lambda a: pd.DataFrame(a.T, copy=False),
        "a series of pandas": lambda a: pd.Series(a[1], copy=False),
    }
if importlib.util.find_spec("PIL"):
    from PIL import Image

    VIEWS |= {
        "an image of Pillow": Image.fromarray,
        "a buffer of Pillow": lambda a: Image.frombuffer("L", (WIDTH, ROWS), a, "raw", "L", 0, 1),
    }
if importlib.util.find_spec("cv2"):
    import cv2

    VIEWS |= {"a Mat of OpenCV": lambda a: cv2.Mat(a[..., None]), "a UMat of OpenCV": lambda a: UMat(a)}

    class UMat:
        """OpenCV's own handle, which an array is made of by `get`."""

        def __init__(self, array):
            self.held = cv2.UMat(array)

        def __array__(self, dtype=None, copy=None):
            return self.held.get()


if importlib.util.find_spec("h5py"):
    import h5py

    def stored(a):
        with h5py.File("held", "w", driver="core", backing_store=False) as file:
            file["x"] = a
            return file["x"][:]

    VIEWS |= {"what h5py wrote": stored}
if importlib.util.find_spec("torch"):
    import torch

    VIEWS |= {
        "a tensor": torch.from_numpy,
        "a view of a tensor": lambda a: torch.as_tensor(a)[1:, ::2],
        "a tensor by dlpack": torch.from_dlpack,
        "a tensor of a buffer": lambda a: torch.frombuffer(a, dtype=torch.uint8),
        "a tensor of the bottom": lambda a: torch.frombuffer(links(a)[-1], dtype=torch.uint8),
        "numpy's view of a tensor": lambda a: torch.from_numpy(a)[1:].numpy(),
    }


def unnested(batch):
    """The one array of a batch."""
    return batch[0] if isinstance(batch, (list, tuple)) else batch


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_memory_is_not_used_again_while_anything_looks_into_it(kind):
    held, expected = {}, {}
    with iter(ff.pipe(ff.from_arrays(rows()), *kind)) as iterator:
        for (name, view), batch in zip(VIEWS.items(), map(unnested, iterator)):
            held[name] = view(batch)
            expected[name] = seen(held[name])
            del batch
        for later in iterator:
            del later
        assert [name for name, view in held.items() if seen(view) != expected[name]] == []
    gc.collect()
    assert [name for name, view in held.items() if seen(view) != expected[name]] == []
    assert held.keys() == VIEWS.keys()
