"""The libraries that are measured beside flowfn: imported quietly, None where one is not installed.

All are given the fastest way that a user would find in their documentation.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import os
import sys
import warnings
from typing import Any


def tensorpack() -> Any:
    """`tensorpack.dataflow`, or None; without tensorflow, which it would import where it is, and does not need."""
    hidden = "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        return _imported("tensorpack.dataflow")
    finally:
        if hidden:
            del sys.modules["tensorflow"]


def torch(threads: int | None = 1) -> Any:
    """`torch` with `torch.utils.data`, or None; in one thread, since more of them slow such small work down, unless
    others are named. None leaves as many as torch takes."""
    module = _imported("torch") if _imported("torch.utils.data") else None
    if module is not None and threads:
        module.set_num_threads(threads)
    return module


def jax() -> Any:
    """`jax`, or None."""
    return _imported("jax") if _imported("jax.numpy") else None


def grain() -> Any:
    """`grain`, or None."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    module = _imported("grain")
    if module is not None:
        importlib.import_module("absl.flags").FLAGS.mark_as_parsed()  # its worker processes ask for them
    return module


def datasets() -> Any:
    """Hugging Face's `datasets`, or None."""
    return _imported("datasets")


def spdl() -> Any:
    """`spdl.pipeline`, or None."""
    return _imported("spdl.pipeline")


def webdataset() -> Any:
    """`webdataset`, or None."""
    return _imported("webdataset")


def turboloader() -> Any:
    """`turboloader`, or None."""
    return _imported("turboloader")


def tensorflow() -> Any:
    """`tensorflow`, or None; without its messages, and on the CPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    return _imported("tensorflow")


@functools.cache
def _imported(name: str) -> Any:
    """A module, without what it says while it is imported (tensorpack misses tensorflow, grain misses jax)."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
            logging.getLogger("tensorpack").setLevel(logging.ERROR)
            return module
    except ImportError:
        return None
