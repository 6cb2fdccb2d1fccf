"""Which version of a program's own modules a flow was sent with.

Workers keep what they imported, while this process may reload a module, or set a global of it. So whatever goes to a
worker by its name goes along with a digest of what it is here, and the worker compares that with what it has under this
name. What is installed does not change; what is defined in a script or a notebook goes whole. Objects of other
libraries count by their type.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from flowfn.digests import codes
from flowfn.digests.pipelines import Digest
from flowfn.parallel.tasks.surroundings import lookup
from flowfn.pickling.by_value import CACHED
from flowfn.pickling.reducing import SCRIPTS
from flowfn.process import forks

FILE = "<file>"
"""Stands for the file of a module that has not been imported."""

IMPORT = "<import>"
"""Stands for a module that functions import when they run."""

STANDARD = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The version of what comes with Python."""

SUMMED_BYTES = 1 << 20
"""Bytes from which an array counts by sums over pieces as large: they see what is changed by accident,
and take a fifth of the time."""

differing: set[str] = set()
"""The modules that are here as no worker can import them: they go whole."""

accepted: set[tuple[str, str]] = set()
"""What is here as no worker has it, and cannot go there either; that was said."""

_registry = forks.lock()
_files: dict[str, bytes] = {}
"""What the file of a module was, as it was first told to this process."""


def forget() -> None:
    """New workers may import what the old ones could not."""
    differing.clear()
    accepted.clear()


class Version(NamedTuple):
    """What is told of a name in a module, or of those `names` of a module itself (`name` is empty)."""

    module: str
    name: str
    names: tuple[str, ...]
    digest: bytes

    @property
    def key(self) -> tuple[str, str]:
        """Of what it is a version."""
        return self.module, self.name


class Ledger:
    """What goes by its name into a pickle, of a program's own modules. A pickler shows it all that it comes to."""

    def __init__(self) -> None:
        self.named: dict[tuple[str, str], Any] = {}
        self.names: set[str] = set()
        self.imported: dict[str, set[str]] = {}

    def note(self, value: Any) -> None:
        """Take note of a function, a class or a module."""
        if isinstance(value, ModuleType):
            if self._goes_by_name(value.__name__):
                self.named[value.__name__, ""] = value
        elif isinstance(value, (FunctionType, type, CACHED)):
            home, name = _name_of(value)
            if not home and isinstance(value, FunctionType):
                names = set(codes.names(value))
                self.names |= names
                for module in codes.imports(value):
                    self.imported.setdefault(module, set()).update(names)
            elif home and self._goes_by_name(home):
                self.named[home, name] = value

    def versions(self) -> tuple[Version, ...]:
        """What there is to tell."""
        every, imported = [], {module: set(names) for module, names in self.imported.items()}
        for (module, name), value in self.named.items():
            if self._goes_by_name(module):
                names = () if name else tuple(sorted(self.names))
                digest, lazily = version_of(value, names)
                every.append(Version(module, name, names, digest))
                for other, wanted in lazily.items():
                    imported.setdefault(other, set()).update(wanted)
        every += [
            _import(module, tuple(sorted(names))) for module, names in sorted(imported.items()) if module not in SCRIPTS
        ]
        return tuple(version for version in every if version.key not in accepted)

    def _goes_by_name(self, module: str) -> bool:
        return codes.origin(module) is None and not goes_whole(module)


def _name_of(value: Any) -> tuple[str, str]:
    """(module, name) under which something is found, and goes; two empty ones if it goes whole."""
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    by_name = isinstance(home, str) and isinstance(name, str) and not goes_whole(home) and lookup(home, name) is value
    return (home, name) if by_name else ("", "")  # type: ignore[return-value]


class _Content(Digest):
    """A digest of code and what it refers to, as far as that can be told quickly."""

    def __init__(self) -> None:
        super().__init__(named=True)
        self.lazily: dict[str, set[str]] = {}

    def version(self, name: str) -> str | None:
        """Where a module comes from: what is installed is the same here and in workers,
        and its version slow to find."""
        return codes.origin(name)

    def imported(self, name: str, load: Callable[[], ModuleType], names: frozenset[str]) -> None:
        """A module that a function imports when it runs is told of by itself:
        whoever imports it too early changes what runs."""
        self.lazily.setdefault(name, set()).update(names)

    def array(self, array: np.ndarray) -> None:
        """A large array counts by two sums over each piece, one of which sees the order."""
        if array.nbytes < SUMMED_BYTES or array.dtype.hasobject or array.dtype.names is not None:
            super().array(array)
            return
        self.dtype(array.dtype)
        self.value(array.shape)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for at in range(0, content.nbytes, SUMMED_BYTES):
            piece = content[at : at + SUMMED_BYTES]
            self.hash.update(zlib.adler32(piece.data).to_bytes(4, "little"))
            self.hash.update(piece[: len(piece) // 8 * 8].view(np.uint64).sum(dtype=np.uint64).tobytes())

    def object(self, value: Any) -> None:
        """An object of another library counts by its type: it may hold gigabytes.
        The environment is a setting (see `surroundings`)."""
        if value is os.environ:
            return
        if isinstance(
            value, BaseException
        ):  # some libraries tell pickle of errors what to do with them, where they are imported
            self.feed("error")
            self.value((type(value), value.args, vars(value)))
            return
        if isinstance(value, ContextVar):
            self.feed("context variable", value.name)
            with contextlib.suppress(LookupError):  # it holds nothing
                self.value(value.get())
            return
        home = type(value).__module__
        if self.version(home) in (None, STANDARD) and home != "itertools":  # pickle's word of those is on its way out
            super().object(value)
        else:
            self.feed("object of", home, type(value).__qualname__)


def version_of(value: Any, names: Iterable[str] = ()) -> tuple[bytes, dict[str, set[str]]]:
    """A digest of what something is and does here, and the modules that it imports when it runs.

    What cannot be told counts as the same everywhere.
    """
    digest = _Content()
    try:
        if isinstance(value, ModuleType):
            codes.module(digest, value, frozenset(names))
        else:
            digest.value(value)
    except Exception:  # whatever an object does that is looked at
        return b"", digest.lazily
    return digest.hash.digest(), digest.lazily


_finders = forks.lock()  # Python forgets them in one thread at a time (to 3.13, what two remove at once is a KeyError)


def _import(module: str, names: tuple[str, ...]) -> Version:
    """Of a module that functions import when they run: what it is here, or what its file is."""
    here = sys.modules.get(module)
    if here is None:
        return Version(module, FILE, (), _file_of(module))
    return Version(module, IMPORT, names, version_of(here, names)[0])


def outdated(versions: Iterable[Version]) -> list[Version]:
    """Those of which this process has others than was told."""
    with _finders:
        importlib.invalidate_caches()
    return [version for version in versions if _differs(version)]


def _differs(version: Version) -> bool:
    if version.name == FILE:
        return _files.setdefault(version.module, version.digest) != version.digest and version.module in sys.modules
    try:
        module = importlib.import_module(version.module)
    except Exception:  # it is not to be had by its name here; a function that imports it will say so
        return version.name != IMPORT
    here = module if version.name in ("", IMPORT) else lookup(version.module, version.name)
    return here is None or version_of(here, version.names)[0] != version.digest


def _file_of(module: str) -> bytes:
    """Which state of its file would be imported; of what lies in a package that nobody has imported, the package's."""
    above = module.rpartition(".")[0]
    if above and above not in sys.modules:
        return _file_of(above)
    try:
        found = importlib.util.find_spec(module)
        status = os.stat(found.origin)  # type: ignore[union-attr,arg-type]
    except (ImportError, AttributeError, ValueError, TypeError, OSError):
        return b""
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}".encode()


@contextlib.contextmanager
def pickled_whole(modules: Collection[str]) -> Iterator[None]:
    """While this lasts, what is defined in some modules goes into pickles whole, and not by its name."""
    if not modules:
        yield
        return
    import cloudpickle

    with _registry:
        there = cloudpickle.list_registry_pickle_by_value()
        registered = [
            sys.modules[module] for module in sorted(modules) if module in sys.modules and module not in there
        ]
        for module in registered:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)


def goes_whole(module: str) -> bool:
    """Whether what is defined in a module goes into pickles whole."""
    return module in SCRIPTS or _within(module, differing)


def _within(module: str, packages: set[str]) -> bool:
    """Whether a module is one of some, or lies in one."""
    return module in packages or any(module.startswith(f"{package}.") for package in packages)
