"""How some things are taken apart for pickle, so that what is made of them elsewhere is what it was here.

class               where it was defined it keeps what it has, whatever comes back; elsewhere it is what it was last
enumeration         with its aliases, and what its members were given
generic function    with all that is registered
sentinel            an `object()` is the one that stands under its name
new type            as that of the script, if it is
cached property     without its lock
context variable    holds unless it is set what it holds here
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import sys
import typing
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import FunctionType, MemberDescriptorType, ModuleType
from typing import Any

SCRIPTS = frozenset({"__main__", "__mp_main__"})
"""The names under which a program's own script is a module:
the second where multiprocessing has started an interpreter anew."""

_pickled_by_class: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
"""Whether a class that was pickled, or came in a pickle, is defined here."""

_sentinels: dict[tuple[str, str], object] = {}
"""Those that stand for one of a module which cannot be imported here."""

_DISPATCHER = functools.singledispatch(len).__code__  # type: ignore[attr-defined]


# Classes


def of_class(kind: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """What cloudpickle makes of a class, and what it leaves out."""
    _pickled_by_class.setdefault(kind, True)
    make, arguments, (content, slots), _, _, settle = reduced
    held = {name: one for name, one in content.items() if not _is_slot(kind, one)} | {"__qualname__": kind.__qualname__}
    of_members: dict[str, Any] = {}
    if issubclass(kind, enum.Enum):
        members = dict(kind.__members__)
        arguments = (*arguments[:3], {name: member._value_ for name, member in members.items()}, *arguments[4:])
        held = {name: one for name, one in held.items() if name not in members}
        of_members = {name: attributes for name, member in members.items() if (attributes := _own_attributes(member))}
    elif "__slots__" in vars(kind) and not hasattr(kind, "_fields"):  # named tuples make their own
        arguments[3]["__slots__"] = vars(kind)["__slots__"]
    return make, arguments, (settle, (held, slots), of_members), None, None, _settle


def _is_slot(kind: type, value: Any) -> bool:
    return isinstance(value, MemberDescriptorType) and value.__objclass__ is kind


def _own_attributes(member: enum.Enum) -> dict[str, Any]:
    """What an enumeration's own methods gave to a member."""
    return {name: one for name, one in vars(member).items() if not (name.startswith("_") and name.endswith("_"))}


def _settle(kind: Any, state: tuple[Callable[..., Any], Any, dict[str, Any]]) -> None:
    if _pickled_by_class.setdefault(kind, False):
        return
    settle, content, of_members = state
    settle(kind, content)
    for name, attributes in of_members.items():
        vars(kind[name]).update(attributes)


# Generic functions


def is_generic(function: Any) -> bool:
    """Whether something is a function of `functools.singledispatch`."""
    return type(function) is FunctionType and function.__code__ is _DISPATCHER


def of_generic(function: Any) -> tuple[Any, ...]:
    """A generic function by what is registered with it."""
    own = {
        name: one
        for name, one in vars(function).items()
        if name not in ("register", "dispatch", "registry", "_clear_cache")
    }
    return _generic, (), (list(function.registry.items()), own), None, None, _register


def _generic() -> Any:
    return functools.singledispatch(lambda value: None)


def _register(made: Any, state: tuple[list[tuple[type, Any]], dict[str, Any]]) -> None:
    registered, own = state
    for kind, function in registered:
        made.register(kind, function)
    functools.update_wrapper(made, dict(registered)[object])
    vars(made).update(own)


# Objects


def _of_sentinel(value: object) -> Any:
    place = _module_and_name(value)
    return (type(value), ()) if place is None else (_sentinel, (*place, type(value)))


def _module_and_name(value: object) -> tuple[str, str] | None:
    """The module and the name under which something stands."""
    for place, one in _sentinels.items():
        if one is value:
            return place
    for module, held in sorted(
        sys.modules.copy().items(), key=lambda item: item[0] in SCRIPTS
    ):  # which may have imported it
        if isinstance(held, ModuleType):
            for name, one in list(vars(held).items()):
                if one is value:
                    return ("__main__" if module in SCRIPTS else module), name
    return None


def _sentinel(module: str, name: str, kind: Callable[[], object]) -> object:
    try:
        held = vars(importlib.import_module(module)).get(name)
    except Exception:  # whatever a module does that is imported
        held = None
    return held if type(held) is kind else _sentinels.setdefault((module, name), kind())


def _reduced_by_name(make: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], Any]:
    """By name what is found under it, unless that is in a script."""

    def reduced(value: Any) -> Any:
        module, name = value.__module__, getattr(value, "__qualname__", value.__name__)
        found: Any = None if module in SCRIPTS else sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is value else make(value)

    return reduced


def _new_type() -> Any:
    return typing.NewType.__new__(typing.NewType)


def _of_property(value: Any) -> tuple[Any, ...]:
    return type(value), (value.func,), {name: one for name, one in vars(value).items() if name != "lock"}


def _of_context(variable: ContextVar[Any]) -> tuple[Any, ...]:
    try:
        return _context, (variable.name, variable.get())
    except LookupError:
        return ContextVar, (variable.name,)


def _context(name: str, value: Any) -> ContextVar[Any]:
    return ContextVar(name, default=value)


SENTINELS: dict[type, Callable[[Any], Any]] = {object: _of_sentinel, type(dataclasses.MISSING): _of_sentinel}

OBJECTS: dict[type, Callable[[Any], Any]] = {
    **SENTINELS,
    typing.NewType: _reduced_by_name(lambda value: (_new_type, (), dict(vars(value)))),
    typing.ParamSpec: _reduced_by_name(lambda value: (typing.ParamSpec, (value.__name__,))),
    typing.TypeVarTuple: _reduced_by_name(lambda value: (typing.TypeVarTuple, (value.__name__,))),
    functools.cached_property: _of_property,
    # without its cache
    functools.singledispatchmethod: lambda value: (type(value), (value.func,), {"dispatcher": value.dispatcher}),
    ContextVar: _of_context,
}
if hasattr(typing, "TypeAliasType"):
    alias: Any = vars(typing)["TypeAliasType"]  # since Python 3.12
    OBJECTS[alias] = _reduced_by_name(lambda value: (alias, (value.__name__, value.__value__)))
