"""The program's own script: what it defines is called as it would be where the same file is imported.

`python trainer.py`, `python -m package.trainer`, the interpreters that multiprocessing starts, debuggers and profilers
all run the file as `__main__`; a notebook, a test or a launcher imports it. Where there is no file, in a notebook, the
name is `__main__`.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any

from flowfn.pickling.homes import public
from flowfn.pickling.reducing import SCRIPTS

_script_name: list[str] = []
"""In a worker, the name of the script that it works for."""


def home(value: Any) -> str:
    """The module of a function or a class, by the name under which it is imported;
    the library's own by that of the public package.

    >>> import json
    >>> home(json.dumps), home(print)
    ('json', 'builtins')
    """
    module = getattr(value, "__module__", None) or "builtins"
    if module not in SCRIPTS:
        return public(str(module))
    names = _globals(value)
    return name() if names is None else _script_module(names)


def name() -> str:
    """The name under which the script of this program would be imported; `__main__` if there is no file."""
    return _script_name[0] if _script_name else _script_module(vars(sys.modules["__main__"]))


def tell(script: str) -> None:
    """Have this process work for another script than its own."""
    _script_name[:] = [script]


def _globals(value: Any) -> dict[str, Any] | None:
    """The names that a function sees, or a method of a class, if the script defines them:
    a debugger has another `__main__`."""
    parts = (
        vars(value).values()
        if isinstance(value, type)
        else (value, getattr(value, "__func__", None), getattr(value, "__wrapped__", None))
    )
    seen = (part.__globals__ for part in parts if isinstance(part, FunctionType))
    return next((names for names in seen if names.get("__name__") in SCRIPTS), None)


def _script_module(names: Mapping[str, Any]) -> str:
    """The name of the module that sees these names."""
    file, spec, package = (names.get(f"__{key}__") for key in ("file", "spec", "package"))
    if not isinstance(file, str):
        return "__main__"
    if spec is not None and spec.name not in SCRIPTS:  # which is what profilers say
        return str(spec.name)
    return f"{package}.{inspect.getmodulename(file)}" if package else _of_file(file)


@functools.lru_cache(maxsize=64)
def _of_file(file: str) -> str:
    """The name under which a file is imported: that of its packages, as far up as there are any, and its own."""
    folder, parts = os.path.dirname(os.path.abspath(file)), [inspect.getmodulename(file) or "__main__"]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return ".".join(parts) if parts != ["__main__"] else "__main__"
