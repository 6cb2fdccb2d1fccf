"""What functions, classes and modules do, shown to a digest: their code and all that it refers to, in turn.

What is installed (the standard library, what lies in site-packages) counts by its name and its version, flowfn by name
alone. A user's own functions and classes count by bytecode, constants, defaults, closures and the globals that they
name: the digest moves with what they do, not with where they stand.
"""

from __future__ import annotations

import builtins
import dis
import functools
import importlib.machinery
import importlib.util
import logging
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any, Protocol

from flowfn.flows.definitions import Definition
from flowfn.pickling import scripts
from flowfn.pickling.homes import PACKAGE, public
from flowfn.pickling.reducing import SCRIPTS

if TYPE_CHECKING:
    from importlib.metadata import Distribution

LIBRARY = "a library"
_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_NO_CODE = frozenset(
    {
        "__module__",
        "__qualname__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__firstlineno__",
        "__static_attributes__",
        "__slotnames__",  # what pickle remembers of a class whose objects it has seen
        "_abc_impl",
    }
    | {
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__orig_bases__",
        "__parameters__",
        "__type_params__",
    }
)


class Shower(Protocol):
    """What code is shown to (`flowfn.digests.pipelines`)."""

    modules: set[Any]

    def feed(self, *words: Any) -> None: ...

    def value(self, value: Any) -> None: ...

    def again(self, value: Any) -> bool: ...

    def within(self, word: str) -> AbstractContextManager[None]: ...

    def version(self, name: str) -> str | None: ...

    def imported(self, name: str, load: Callable[[], ModuleType], names: frozenset[str]) -> None: ...


def told(digest: Shower, value: Any) -> bool:
    """Show a function, a class or a part of one to a digest; False if it is none."""
    if _digest_by_name(digest, value):
        return True
    tell = _class if isinstance(value, type) else _TELLERS.get(type(value))
    if tell is not None:
        tell(digest, value)
    return tell is not None


def module(digest: Shower, value: ModuleType, names: frozenset[str] | None) -> None:
    """A module: an installed one by name and version, a user's own by those of its `names` that it has (None: all)."""
    version = digest.version(value.__name__)
    if version is not None or (value.__name__, names) in digest.modules:
        digest.feed("module", value.__name__, version)
        return
    digest.modules.add((value.__name__, names))
    file = getattr(value, "__file__", None) or ""
    if file.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
        digest.feed("compiled", blake2b(Path(file).read_bytes()).digest())
        return
    wanted = (
        vars(value).keys() & names if names is not None else {name for name in vars(value) if not name.startswith("__")}
    )
    digest.feed("own module", len(wanted))
    for name in sorted(wanted):
        digest.feed(name)
        with digest.within(name):
            _referred(digest, vars(value)[name], names)


@functools.cache
def installed(name: str) -> str | None:
    """The version of the distribution that a module is installed with, None for a user's own."""
    whose = origin(name)
    return _version(name.partition(".")[0]) if whose == LIBRARY else whose


@functools.cache
def origin(name: str) -> str | None:
    """Where a module comes from: `OURS`, Python's version, `LIBRARY` for what lies where packages are installed,
    None for a user's own."""
    top = name.partition(".")[0]
    if top == PACKAGE or top in SCRIPTS:
        return PACKAGE if top == PACKAGE else None
    place = _place_on_disk(top) or ""
    if {"site-packages", "dist-packages"} & set(Path(place).parts):
        return LIBRARY
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    if place in ("built-in", "frozen") or place.startswith(tuple(f"{path}{os.sep}" for path in standard)):
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    return None


def _place_on_disk(top: str) -> str | None:
    """The file, or the folder, of a module that stands at the top."""
    package = sys.modules.get(top)
    try:
        spec = importlib.util.find_spec(top) if package is None else package.__spec__
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return getattr(package, "__file__", None)
    return spec.origin or next(iter(spec.submodule_search_locations or ()), None)


def _version(top: str) -> str | None:
    """The versions of the distributions that a module comes with; without any, it is one's own wherever it lies."""
    from importlib import metadata  # it is slow to import, and seldom needed

    try:
        owners = [metadata.distribution(top)]
    except metadata.PackageNotFoundError:  # it comes with a distribution of another name
        owners = [metadata.distribution(name) for name in sorted(set(metadata.packages_distributions().get(top, [])))]
    return ", ".join(map(_release, owners)) or None


def _release(owner: Distribution) -> str:
    """The version of a distribution; of one that was installed from a folder,
    where versions are not kept, its files too."""
    files = owner.read_text("RECORD") or "" if owner.read_text("direct_url.json") else ""
    return (
        f"{owner.metadata['Name']} {owner.version} "
        f"{blake2b(files.encode(), digest_size=8).hexdigest() if files else ''}"
    )


def _digest_by_name(digest: Shower, value: Any) -> bool:
    """What is installed, and is found again under its name."""
    try:
        owner, home = getattr(value, "__self__", None), getattr(value, "__module__", None)
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    except Exception:  # an object with attributes of its own making
        return False
    if type(value) in (BuiltinFunctionType, MethodType) and not isinstance(owner, ModuleType | None):
        home, name = (
            type(owner).__module__,
            value.__name__,
        )  # such as random.random, which is a method of an object there
    elif isinstance(owner, ModuleType):
        home = owner.__name__
    if not isinstance(home, str) or not isinstance(name, str):
        return False
    called = scripts.home(value) if home in SCRIPTS else public(home)
    if digest.version(called) is None:
        return False
    found: Any = sys.modules.get(home)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value and not (type(value) in (BuiltinFunctionType, MethodType) and found == value):
        return False
    digest.feed("installed", called, digest.version(called), name)
    return True


# What a user's own code is made of


def _function(digest: Shower, function: FunctionType) -> None:
    if isinstance(definition := function.__dict__.get("definition"), Definition):
        digest.value(definition)
        return
    if digest.again(function):
        return
    with digest.within(function.__name__):
        code = function.__code__
        parts = list(_nested_codes(code))
        names = frozenset(name for part in parts for name in part.co_names)
        _digest_code(digest, code)
        digest.value((function.__defaults__, function.__kwdefaults__, function.__dict__))
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            with digest.within(name):
                _cell(digest, cell, names)
        reads, imports = (
            {name for part in parts for name in _reads(part)},
            [one for part in parts for one in _imports(part)],
        )
        digest.feed("refers", len(reads), len(imports))
        for name in sorted(reads):
            digest.feed(name)
            with digest.within(name):
                if name == "__name__":
                    digest.feed(scripts.home(function))
                elif name in function.__globals__:
                    _referred(digest, function.__globals__[name], names)
                else:
                    digest.feed("builtin" if hasattr(builtins, name) else "missing")
        for wanted, level, chosen in imports:
            _imported(digest, function, wanted, level, chosen, names)


def _digest_code(digest: Shower, code: CodeType) -> None:
    """Bytecode and constants; not where it stands in which file."""
    digest.feed("code", code.co_code, code.co_exceptiontable, code.co_flags)
    digest.value((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
    digest.value((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_consts))


def _nested_codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested_codes(constant)


def _reads(code: CodeType) -> Iterator[str]:
    return (step.argval for step in dis.get_instructions(code) if step.opname in _READS)


def _imports(code: CodeType) -> Iterator[tuple[str, int, Any]]:
    """(name, level, names) of the imports in a code object."""
    level: Any = None
    chosen: Any = None
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            yield step.argval, level, chosen
        level, chosen = chosen, step.argval


def _imported(
    digest: Shower, function: FunctionType, wanted: str, level: int, chosen: Any, names: frozenset[str]
) -> None:
    """What a function imports when it runs: one's own modules are imported now, to see what they are."""
    package = function.__globals__.get("__package__") or ""
    full = importlib.util.resolve_name("." * level + wanted, package) if level and package else wanted
    version = digest.version(full)
    digest.feed("import", full, version)
    if version is None:
        digest.imported(full, partial(__import__, wanted, function.__globals__, None, chosen or (), level), names)


def imports(function: FunctionType) -> Iterator[str]:
    """The names of the modules of one's own that a function imports when it runs."""
    package = function.__globals__.get("__package__") or ""
    for code in _nested_codes(function.__code__):
        for wanted, level, _ in _imports(code):
            full = importlib.util.resolve_name("." * level + wanted, package) if level and package else wanted
            if origin(full) is None:
                yield full


def names(function: FunctionType) -> Iterator[str]:
    """All names that the code of a function may look for in a module."""
    for code in _nested_codes(function.__code__):
        yield from code.co_names


def _referred(digest: Shower, value: Any, names: frozenset[str] | None) -> None:
    """What a name stands for. Of one's own modules only what the code may name counts;
    Python's builtins are the same everywhere."""
    value = (
        builtins if value is vars(builtins) else value
    )  # so they stand in every module, with what a console has left in them
    module(digest, value, names) if isinstance(value, ModuleType) else digest.value(value)


def _cell(digest: Shower, cell: CellType, names: frozenset[str] | None = None) -> None:
    try:
        held = cell.cell_contents
    except ValueError:
        digest.feed("empty")
    else:
        _referred(digest, held, names)


def _class(digest: Shower, kind: type) -> None:
    if digest.again(kind):
        return
    with digest.within(kind.__name__):
        members = vars(kind).keys() - _NO_CODE
        digest.feed("class", kind.__name__, len(members))
        digest.value((type(kind), kind.__bases__))
        for name in sorted(members):
            digest.feed(name)
            with digest.within(name):
                _referred(digest, vars(kind)[name], None)


def _made_of(*attributes: str) -> Callable[[Shower, Any], None]:
    """How to tell something that is known by a few of its attributes."""

    def tell(digest: Shower, value: Any) -> None:
        digest.feed(type(value).__name__)
        digest.value(tuple(getattr(value, attribute) for attribute in attributes))

    return tell


_SLOT = _made_of("__name__", "__objclass__")
_BOUND_METHOD = _made_of("__name__", "__self__")
_TELLERS: dict[type, Callable[[Shower, Any], None]] = {
    FunctionType: _function,
    CodeType: _digest_code,
    CellType: _cell,
    MethodType: _made_of("__func__", "__self__"),
    BuiltinFunctionType: _BOUND_METHOD,
    MethodWrapperType: _BOUND_METHOD,
    WrapperDescriptorType: _SLOT,
    MethodDescriptorType: _SLOT,
    ClassMethodDescriptorType: _SLOT,
    GetSetDescriptorType: _SLOT,
    MemberDescriptorType: _SLOT,
    property: _made_of("fget", "fset", "fdel"),
    classmethod: _made_of("__func__"),
    staticmethod: _made_of("__func__"),
    functools.cached_property: _made_of("func"),
    type(functools.cache(_made_of)): _made_of("__wrapped__"),
    # what is logged is in no datapoint, and a logger is often called by the name of its module
    logging.Logger: _made_of(),
}
