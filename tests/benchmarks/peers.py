"""The libraries that are measured beside flowfn: imported quietly, None where one is not installed.

All are given their fastest serial way that a user would find in their documentation.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import warnings
from typing import Any


def tensorpack() -> Any:
    """`tensorpack.dataflow`, or None."""
    return _imported("tensorpack.dataflow")


def torch() -> Any:
    """`torch` with `torch.utils.data`, or None; in one thread, since more of them slow such small work down."""
    module = _imported("torch") if _imported("torch.utils.data") else None
    if module is not None:
        module.set_num_threads(1)
    return module


def grain() -> Any:
    """`grain`, or None."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    return _imported("grain")


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
