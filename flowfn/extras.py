"""Optional libraries: imported where they are used, and missed in words that say how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


def needed(module: str, who: str, *, extra: str) -> ModuleType:
    """The module of an optional library, for `who` cannot do without it.

    Raises:
        ImportError: it is not installed; the message names the extra to install. What goes wrong inside a library that
            is installed is raised as it is.

    >>> needed("json", "read_json()", extra="files").__name__
    'json'
    >>> needed("no_such_library", "read_lmdb()", extra="lmdb")
    Traceback (most recent call last):
    ImportError: read_lmdb() needs no_such_library, which is not installed: pip install "flowfn[lmdb]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ImportError(
            f'{who} needs {module}, which is not installed: pip install "flowfn[{extra}]"', name=module
        ) from error
