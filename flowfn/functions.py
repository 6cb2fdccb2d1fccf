"""What users give to be called, and what they give by mistake: a stage, a factory, a function of other arguments.

Nothing is called here; what is not certain is not said.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_GENERATORS = frozenset({"rng", "generator", "random_state", "random", "rnd"})


def misplaced(value: Any, others: Mapping[str, Any] | None = None) -> str:
    """What something of this package is, in words, if it makes something else of a call than a datapoint; else nothing.

    >>> import flowfn as ff
    >>> misplaced(ff.pad), misplaced(ff.pad(0)), misplaced(ff.batch(2))[:18]
    ('pad without its arguments; write pad(...)', '', 'the stage batch(2)')
    """
    if isinstance(value, type):
        makes_functions = isinstance(getattr(value, "instead", None), property)
        return f"{value.__name__} without its arguments; write {value.__name__}(...)" if makes_functions else ""
    if makes_stages(value):
        return (
            f"{value.__name__}, which makes stages; write {value.__name__}(...) in the pipe, or "
            f"inside({value.__name__}(...)) for lists"
        )
    if is_stage(value):
        return (
            f"the stage {value}; write it in the pipe, or inside({value}) to run it over the elements of each datapoint"
        )
    return f"the augmentor {value}; write {value.instead}" if getattr(value, "draws_transforms", False) else ""


def is_stage(value: Any) -> bool:
    """Whether something is a stage, or several as one."""
    return getattr(type(value), "is_stage", False) is True


def makes_stages(value: Any) -> bool:
    """Whether something is a function that makes stages: one of this package's words, without its call."""
    return isinstance(value, FunctionType) and hasattr(value, "definition")


def mistaken(f: Any, others: Mapping[str, Any], arguments: int = 1, gets: str = "") -> str:
    """What is wrong with a function that is called with so many arguments (and a generator,
    where `rng` is true), if that is certain.

    >>> mistaken(lambda x, rng: x, {"rng": False})
    "a function of (x, rng); write rng=True to have it called with the datapoint's generator too"
    >>> mistaken(lambda x: x, {}), mistaken(print, {}), mistaken(lambda x, y=1: x, {"rng": False})
    ('', '', '')
    """
    if misplaced(f) or _takes(f, arguments + (others.get("rng") is True)):
        return misplaced(f)
    wants = [p for p in _parameters(f) if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    what = f"a function of ({', '.join(p.name for p in wants)})"
    if others.get("rng") is True:
        return f"{what}; with rng=True it is called with the datapoint and its generator"
    if "rng" in others and wants and wants[-1].name in _GENERATORS:
        by_name = wants[-1].kind is inspect.Parameter.KEYWORD_ONLY
        return (
            f"{what}; write rng=True to have it called with the datapoint's generator too"
            + ", which comes second" * by_name
        )
    if gets or arguments > 1 or len(wants) < 2:
        return f"{what}; it is called with {gets or ('one datapoint' if arguments == 1 else f'{arguments} arguments')}"
    return f"{what}; it is called with one datapoint: write lambda datapoint: f(*datapoint) for lists and tuples"


def renamed(name: str) -> Callable[[Function], Function]:
    """Give a function the name that people know."""

    def rename(function: Function) -> Function:
        function.__name__ = name
        return function

    return rename


def around_a_pipe(function: Function) -> Function:
    """Have a function that is given a whole flow say so, should it stand in a pipe."""
    _, *others = inspect.signature(function).parameters.values()
    needed = ["pipe(...)", *(p.name for p in others if p.default is p.empty)]
    vars(function)["instead"] = f"{function.__name__}({', '.join(needed)})"
    return function


def _takes(f: Any, count: int) -> bool:
    """Whether a function can be called with so many arguments, for all that is known."""
    root = f
    while isinstance(root, (functools.partial, MethodType)):
        root = root.func if isinstance(root, functools.partial) else root.__func__
    if not isinstance(root, FunctionType) or hasattr(root, "__signature__"):
        return True
    try:
        _signature(f).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _parameters(f: Any) -> list[inspect.Parameter]:
    return list(_signature(f).parameters.values())


def _signature(f: Any) -> inspect.Signature:
    """What a function can be called with: a decorator may have changed it, but for one that only checks arguments."""
    return inspect.signature(f, follow_wrapped=hasattr(f, "rules"))
