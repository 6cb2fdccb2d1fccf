"""How arrays and tensors are taken apart for pickle, so that their bytes can stay where they are,
whatever they are bytes of.

A tensor crosses as an array of bytes, its dtype, shape and strides, and is a tensor over those bytes on the other side.
Libraries are known by their classes, so none is imported that is not there; what is not plain memory of this machine
(on another device, sparse, quantized, with gradients, with attributes of its own) is pickled as its library does it.
"""

from __future__ import annotations

import copyreg
import functools
import sys
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, NoReturn

import numpy as np

from flowfn.datapoints import subclasses
from flowfn.datapoints.buffers import SMALL

Reducer = Callable[[Any], Any]


@functools.lru_cache(maxsize=256)
def reducer(kind: Any) -> Reducer | None:
    """What takes apart values of a type; None if pickle knows how."""
    if kind in copyreg.dispatch_table:
        return None
    if issubclass(kind, np.dtype):
        return numpy_dtype
    if subclasses.leaves_it_to_numpy(kind) or kind is np.ma.MaskedArray:
        return subclasses.reduced
    return _REDUCERS.get(kind) or _FOREIGN.get((kind.__module__.partition(".")[0], kind.__name__))


def numpy_dtype(dtype: Any) -> Any:
    """One of NumPy's own by its letter, so that it is the very same object again: whoever asks which dtype an array
    has is answered at once."""
    own = dtype.isbuiltin == 1 and np.dtype(dtype.char) is dtype
    return (np.dtype, (dtype.char,)) if own else NotImplemented


def is_plain(dtype: np.dtype) -> bool:
    """Whether arrays of a dtype are their bytes, which others are shown, as this machine has them."""
    return bool(dtype.itemsize and dtype.isnative and not dtype.hasobject and _is_exported(dtype))


def array(value: np.ndarray) -> Any:
    """A large array as one that has its bytes in a row, so that they can stay where they are; NumPy may turn the bytes
    of others around. A small one as what one call makes again, where NumPy takes three."""
    dtype = value.dtype
    if dtype.hasobject or not dtype.itemsize:
        return value.__reduce_ex__(5)
    native = dtype.isnative
    if native and value.nbytes < SMALL:
        if value.flags.c_contiguous and _is_exported(dtype):
            return np.ndarray, (value.shape, dtype, PickleBuffer(value))  # type: ignore[arg-type]
        return value.__reduce_ex__(5)
    if not (value.flags.c_contiguous or value.flags.f_contiguous):
        value = np.ascontiguousarray(value)
    if native and _is_exported(dtype):
        return value.__reduce_ex__(5)
    order: Any = "C" if value.flags.c_contiguous else "F"
    return _typed, (value.reshape(-1, order=order).view(np.uint8), dtype, value.shape, order)


@functools.lru_cache(maxsize=256)
def _is_exported(dtype: np.dtype) -> bool:
    """Whether others are shown the bytes of such arrays: not those of dates, nor those of other libraries' numbers."""
    one: Any = np.empty(1, dtype)
    try:
        return memoryview(one).nbytes > 0
    except (ValueError, TypeError, BufferError):
        return False


def _typed(data: np.ndarray, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return data.view(dtype).reshape(shape, order=order)


def view(value: memoryview) -> Any:
    """A memory view as one of memory of its own, in the same format and shape."""
    if not value.c_contiguous:
        raise TypeError("cannot pickle a memoryview that is not contiguous")
    return _viewed, (bytes(value) if value.readonly else bytearray(value), value.format, value.shape)


def _viewed(data: bytes | bytearray, form: str, shape: tuple[int, ...]) -> memoryview:
    return memoryview(data).cast(form, shape)  # type: ignore[call-overload]


# Tensors


def torch_tensor(tensor: Any) -> Any:
    """A dense tensor of torch in this machine's memory by its bytes; of any other only what it shows,
    not all that it looks into."""
    torch: Any = sys.modules["torch"]
    if not _is_numbers_only(tensor, torch):
        return NotImplemented
    if not (tensor.is_contiguous() or _is_dense(tensor)):
        if tensor.untyped_storage().nbytes() <= tensor.nbytes:  # it is expanded, and torch keeps it so
            return NotImplemented
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    data = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()
    return _torch_made, (data, tensor.dtype, tuple(tensor.shape), tensor.stride())


def _is_numbers_only(tensor: Any, torch: Any) -> bool:
    """Whether a tensor is numbers in this machine's memory, and nothing else."""
    special = (
        tensor.requires_grad
        or tensor.is_quantized
        or tensor.is_nested
        or any(getattr(tensor, "names", ()))
        or tensor.is_conj()
        or tensor.is_neg()
    )
    return bool(tensor.device.type == "cpu" and tensor.layout == torch.strided and not special and not tensor.__dict__)


def _is_dense(tensor: Any) -> bool:
    """Whether the numbers of a tensor lie in a row, whichever of its axes comes first."""
    step = 1
    for stride, size in sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape) if size != 1):
        if stride != step:
            return False
        step *= size
    return True


def _torch_made(data: np.ndarray, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    import torch

    return torch.from_numpy(data).view(dtype).as_strided(shape, strides)


def jax_array(value: Any) -> Any:
    """An array of JAX in this machine's memory as one of NumPy that looks into it."""
    (device, *others) = value.devices()
    if others or device.platform != "cpu" or value.weak_type:
        return NotImplemented
    return _jax_made, (np.asarray(value),)


def _jax_made(data: np.ndarray) -> Any:
    import jax

    made = jax.device_put(data)  # without a copy, where it lies as JAX wants it
    if made.dtype != data.dtype:
        raise TypeError(
            f"jax makes {made.dtype} of {data.dtype} here, unlike where it was made; set jax_enable_x64 alike"
        )
    return made


def decoder(value: Any) -> NoReturn:
    """A decoder of torchcodec, whose pickle would be an address in the memory of this process.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        f"the {type(value).__name__} of torchcodec is of the process that made it; take what it decodes in a map "
        "there, or have bytes to decode behind: Audio(decode=False) and Video(decode=False) of datasets"
    )


_REDUCERS: dict[type, Reducer] = {np.ndarray: array, memoryview: view}
_FOREIGN: dict[tuple[str, str], Reducer] = {
    ("torch", "Tensor"): torch_tensor,
    ("jaxlib", "ArrayImpl"): jax_array,
    **{(library, f"{what}Decoder"): decoder for library in ("torchcodec", "datasets") for what in ("Audio", "Video")},
}
