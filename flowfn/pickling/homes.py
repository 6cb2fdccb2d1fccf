"""Where users find what is defined here: it is `flowfn.batch`, whichever file it lies in.

Saved states, keys of caches and pickles hold such names; files can move.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

PACKAGE = "flowfn"
PUBLIC = frozenset({PACKAGE, "flowfn.datasets", "flowfn.formats", "flowfn.image", "flowfn.interop", "flowfn.testing"})
"""The packages that users import."""


def is_ours(module: str | None) -> bool:
    """Whether a module is one of this library.

    >>> is_ours("flowfn"), is_ours("flowfn.image.colors"), is_ours("flowfnx"), is_ours(None)
    (True, True, False, False)
    """
    return (module or "").partition(".")[0] == PACKAGE


def public(module: str) -> str:
    """The public package in which a module lies; a module of somebody else is called as it is.

    >>> public("flowfn.parallel.work"), public("flowfn.image.colors"), public("json.decoder")
    ('flowfn', 'flowfn.image', 'json.decoder')
    """
    if not is_ours(module):
        return module
    package = ".".join(module.split(".")[:2])
    return package if package in PUBLIC else PACKAGE


def publish(package: str, names: Mapping[str, Any]) -> None:
    """Let the functions and classes that a public package offers under `names` say that they are found there."""
    for name, value in names.items():
        if not name.startswith("_") and isinstance(value, (FunctionType, type)) and public(value.__module__) == package:
            value.__module__ = package
