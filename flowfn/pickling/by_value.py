"""How flows, stages and compositions are pickled: by name where that will do, by value where it will not.

What holds nothing but what is found again under its name is pickled as anything is. A lambda, and what is defined in a
function, a script or a notebook, is taken along, as on the way to workers: the pickle is good in any interpreter. Where
it is opened by the program that it comes from, the program's own functions and classes are those that it has.
"""

from __future__ import annotations

import copy
import functools
import io
import linecache
import pickle
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from flowfn.pickling import reducing
from flowfn.pickling.reducing import SCRIPTS

CACHED: Any = type(functools.cache(len))
"""The type of functions that remember."""


class Picklable:
    """What is pickled by value if it holds what cannot be found by its name;
    copies of it share what is pickled by name."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not _goes_by_name(self):
            try:
                return pickle.loads, (_taken_along(self),)
            except (
                Exception
            ):  # it may still go by name, to where the same program runs; otherwise that says why it cannot go
                pass
        return self.plainly(protocol)

    def plainly(self, protocol: Any = 5) -> Any:
        """What `pickle` makes of it, if all that it holds can be pickled."""
        return super().__reduce_ex__(protocol)

    def __copy__(self) -> Any:
        return _make_object(*self.plainly()[:3])

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _make_object(*copy.deepcopy(self.plainly()[:3], memo))


def _make_object(make: Callable[..., Any], arguments: tuple[Any, ...], state: Any = None) -> Any:
    made = make(*arguments)
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
    elif state is not None:
        vars(made).update(state)
    return made


# What goes by name


class _Asked(threading.local):
    """What this thread has just found to go by name, and will be asked again, one by one, while it is pickled."""

    def __init__(self) -> None:
        self.answers: dict[int, Picklable] = {}


_answers = _Asked()


def _goes_by_name(value: Picklable) -> bool:
    """Whether all that something holds is found again under its name, in other interpreters too."""
    if _answers.answers.pop(id(value), None) is not None:
        return True
    _answers.answers.clear()
    asking = _Asking(_Nowhere(), protocol=5, buffer_callback=lambda buffer: None)
    try:
        asking.dump(value)
    except Exception:  # whatever it is that goes by no name
        return False
    _answers.answers = asking.answers
    del _answers.answers[id(value)]
    return True


class _Asking(pickle.Pickler):
    """Finds out whether there is something that does not go by name."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.answers: dict[int, Picklable] = {}
        self.spawning = _spawning()

    def reducer_override(self, value: Any) -> Any:
        if issubclass(type(value), Picklable):
            self.answers[id(value)] = value
            return value.plainly()
        if not self.spawning and _is_scripts(value):
            raise LookupError
        return NotImplemented


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes


def _is_scripts(value: Any) -> bool:
    """Whether something is a function or a class of the program's script."""
    return issubclass(type(value), (FunctionType, type, CACHED)) and getattr(value, "__module__", None) in SCRIPTS


def _spawning() -> bool:
    """Whether somebody pickles for a child that will have run the script before it reads it."""
    context = sys.modules.get("multiprocessing.context")
    main = sys.modules.get("__main__")
    return context is not None and context.get_spawning_popen() is not None and hasattr(main, "__file__")


# What is taken along


@functools.cache
def by_value() -> Any:
    """A class of picklers that take along what cannot be found by name, with the lines that tracebacks show."""
    import cloudpickle  # it takes a while, and is seldom needed

    module: Any = sys.modules[cloudpickle.Pickler.__module__]  # what follows has no other name in any version
    reduced_class, skeletons = module._dynamic_class_reduce, (module._make_skeleton_class, module._make_skeleton_enum)

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: Any = ChainMap(reducing.OBJECTS, cloudpickle.Pickler.dispatch_table)  # noqa: RUF012

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.lines: set[tuple[str, int]] = set()

        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            if issubclass(kind, Picklable):
                return value.plainly()
            if kind is CodeType:
                return self.code(value)
            if _is_scripts(value):
                if kind is CACHED:
                    return cached, (value.__wrapped__, value.cache_parameters())
                reduced = self._dynamic_function_reduce(value) if kind is FunctionType else reduced_class(value)
            else:
                reduced = super().reducer_override(value)
            if not isinstance(reduced, tuple):
                return reduced
            if reducing.is_generic(value):
                return reducing.of_generic(value)
            return reducing.of_class(value, reduced) if reduced[0] in skeletons else reduced

        def code(self, code: CodeType) -> Any:
            """Code, and where it stands: what cloudpickle makes of it may say nothing of that."""
            first, lines = _source_lines(code)
            new = lines if (code.co_filename, first) not in self.lines else []
            self.lines.update((code.co_filename, first + number) for number in range(len(new)))
            return _code_at_its_place, (
                *cloudpickle.Pickler.dispatch_table[CodeType](code),
                code.co_filename,
                first,
                new,
            )

    return ByValue


@functools.cache
def _for_anybody() -> Any:
    """A class of picklers for whoever: what the script defines is what the program has,
    where it is opened by the same program."""

    class ForAnybody(by_value()):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            if not _is_scripts(value) or "<" in value.__qualname__:
                return super().reducer_override(value)
            if _spawning():
                return NotImplemented
            make, arguments, *rest = super().reducer_override(value)
            had = (value.__qualname__, _codes(value), make, arguments)
            return (_had_or_made, had, (rest[3], rest[0]), None, None, _settle_made) if rest else (_had_or_made, had)

    return ForAnybody


def _taken_along(value: Picklable) -> bytes:
    with io.BytesIO() as file:
        pickler = _for_anybody()(file, protocol=5)
        if _spawning():  # tensors and the like have a way of their own to such children
            reduction: Any = sys.modules["multiprocessing.reduction"]
            pickler.dispatch_table = ChainMap(reduction.ForkingPickler._extra_reducers, pickler.dispatch_table)
        pickler.dump(value)
        return file.getvalue()


def _had_or_made(name: str, codes: list[Any], make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A function or a class of the script: that of the program which runs here, if it has the same, or one like it."""
    had = _had(name)
    return had if _is_scripts(had) and _codes(had) == codes else make(*arguments)


def _settle_made(made: Any, state: tuple[Callable[..., Any], Any]) -> None:
    settle, content = state
    if made is not _had(made.__qualname__):
        settle(made, content)


def _had(name: str) -> Any:
    found: Any = sys.modules.get("__main__")
    for part in name.split("."):
        found = getattr(found, part, None)
    return found.__func__ if isinstance(found, MethodType) else found  # of a class method


def cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """A function with a cache; what it remembers stays where it was."""
    return functools.lru_cache(**parameters)(function)


def _codes(value: Any) -> list[Any]:
    """What a function or a class is told by: code, and the file that it stands in."""
    if isinstance(value, type):
        return [
            (name, _codes(one))
            for name, one in sorted(vars(value).items())
            if not name.startswith("__") or name == "__init__"
        ]
    value = (
        value.__wrapped__ if type(value) is CACHED else getattr(getattr(value, "definition", None), "function", value)
    )
    code = getattr(value, "__code__", None)
    return [code, code.co_filename] if isinstance(code, CodeType) else []


# Where code stands


def _code_at_its_place(
    make: Callable[..., CodeType], arguments: tuple[Any, ...], file: str, first: int, lines: list[str]
) -> CodeType:
    """Code at its place; tracebacks here show its lines, whether or not there is such a file."""
    if lines:
        known = linecache.getlines(file)
        if known[first - 1 : first - 1 + len(lines)] != lines:
            known = [*known, *["\n"] * (first - 1 - len(known))]
            known[first - 1 : first - 1 + len(lines)] = lines
            linecache.cache[file] = sum(map(len, known)), None, known, file
    return make(*arguments).replace(co_filename=file)


def _source_lines(code: CodeType) -> tuple[int, list[str]]:
    """The number of the first line of a function, and its lines, as far as they are known."""
    last = max(_ends(code), default=code.co_firstlineno)
    return code.co_firstlineno, linecache.getlines(code.co_filename)[max(code.co_firstlineno - 1, 0) : last]


def _ends(code: CodeType) -> Iterator[int]:
    yield from (end for _, end, _, _ in code.co_positions() if end is not None)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _ends(constant)
