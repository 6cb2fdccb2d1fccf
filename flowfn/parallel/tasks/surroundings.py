"""What surrounds a function while it runs: the settings of its process, which workers take over from
the process that iterates.

read()         the settings of this process, as values that can travel
apply(values)  set them so here; what is so already is left alone
Setup          what a worker calls first, for all that cannot be read: states of libraries, what is registered
Context        what threads of this process take over
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from flowfn.pickling import scripts

Returned = TypeVar("Returned")

_own_variables: set[str] = set()
"""The variables of the environment that are this process's own."""

_own_settings: set[str] = set()
"""The settings that are."""

_waiting: list[Any] = []
"""Filters of warnings whose category nobody has imported here yet; with them, all that there are."""


class Setting(NamedTuple):
    """Something that is set for a whole process or thread: how it is read and written, where its module is in use."""

    name: str
    module: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def keep(variables: Iterable[str]) -> None:
    """Leave some variables of the environment as they are in this process, whatever others say."""
    _own_variables.update(variables)


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """What is set while this lasts stays as it is, whatever others say."""
    before = current_settings()
    try:
        yield
    finally:
        after = current_settings()
        old, new = before["environment"], after["environment"]
        keep(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        _own_settings.update(
            name for name in after if name != "environment" and not _equal_settings(before.get(name), after[name])
        )


def _environment() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name not in _own_variables and not name.startswith("LOKY_")
    }


def _set_environment(wanted: dict[str, str]) -> None:
    wanted = {name: value for name, value in wanted.items() if name not in _own_variables}
    here = _environment()
    for name in here.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if here.get(name) != value:
            os.environ[name] = value


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _set_arguments(arguments: list[str]) -> None:
    sys.argv[:] = arguments


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it is there no more
        return None


def _set_directory(directory: str | None) -> None:
    if directory is not None:
        os.chdir(directory)


def _filters() -> list[tuple[Any, ...]]:
    """The filters of warnings, their categories by name."""
    return [
        (action, _pattern(text), _category_named(kind), _pattern(module), line)
        for action, text, kind, module, line in warnings.filters
    ]


def _set_filters(wanted: list[tuple[Any, ...]]) -> None:
    """Filter as is wanted. What is of a category that nobody has imported here can be of no use before somebody has."""
    here = [(one, kind) for one in wanted if (kind := _category(one[2])) is not None]
    _waiting[:] = [wanted] if len(here) < len(wanted) else []
    warnings.resetwarnings()
    made = [
        (one[0], one[1] and re.compile(*one[1]), kind, one[3] and re.compile(*one[3]), one[4]) for one, kind in here
    ]
    warnings.filters[:] = made  # type: ignore[index]


def _pattern(text: Any) -> tuple[str, int] | None:
    return None if text is None else (text, 0) if isinstance(text, str) else (text.pattern, text.flags)


def _category_named(kind: Any) -> Any:
    """A category by its name, which may not have been imported where it is wanted;
    one of a script or a notebook itself."""
    return kind if kind.__module__ in ("__main__", "__mp_main__") else (kind.__module__, kind.__qualname__)


def _category(kind: Any) -> Any:
    return kind if isinstance(kind, type) else lookup(*kind)


def lookup(module: str, name: str) -> Any:
    """What stands under a name in a module that has been imported; None if there is nothing."""
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _floats() -> tuple[dict[str, str], Any]:
    modes: Any = np.geterr()
    return dict(modes), np.geterrcall() if {"call", "log"} & set(modes.values()) else None


def _set_floats(wanted: tuple[dict[str, str], Any]) -> None:
    modes, call = wanted
    if call is not None:
        np.seterrcall(call)
    np.seterr(**modes)  # type: ignore[arg-type]


def _of(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that need not be imported yet."""
    return lambda *arguments: getattr(__import__(module), name)(*arguments)


def _locale() -> str:
    import locale

    return locale.setlocale(locale.LC_ALL)


def _set_locale(wanted: str) -> None:
    import locale

    with contextlib.suppress(locale.Error):  # it is named in a way that only the one who set it knows
        locale.setlocale(locale.LC_ALL, wanted)


def _zone() -> tuple[Any, ...]:
    time = sys.modules["time"]
    return time.tzname, time.timezone, time.altzone


def _set_zone(_: Any) -> None:
    if hasattr(sys.modules["time"], "tzset"):
        sys.modules["time"].tzset()  # of the environment, which has been set


def _set_temporary(folder: str | None) -> None:
    vars(__import__("tempfile"))["tempdir"] = folder


def _decimals() -> Any:
    context = sys.modules["decimal"].getcontext().copy()  # what was flagged is no setting
    context.clear_flags()
    return context


def _levels() -> tuple[int, dict[str, tuple[int, bool]]]:
    """From which level on which logger logs, where that is set."""
    logging = sys.modules["logging"]
    named = {name: one for name, one in logging.Logger.manager.loggerDict.items() if hasattr(one, "level")}
    levels = {name: (one.level, one.disabled) for name, one in {"": logging.root, **named}.items()}
    return logging.Logger.manager.disable, {name: one for name, one in levels.items() if not name or any(one)}


def _set_levels(wanted: tuple[int, dict[str, tuple[int, bool]]]) -> None:
    import logging

    logging.disable(wanted[0])
    for name, (level, disabled) in wanted[1].items():
        logger = logging.getLogger(name or None)
        logger.setLevel(level)
        logger.disabled = disabled


SETTINGS = (
    Setting("directory", "os", _working_directory, _set_directory),
    Setting("environment", "os", _environment, _set_environment),
    Setting("zone", "time", _zone, _set_zone),
    Setting("temporary", "tempfile", lambda: vars(sys.modules["tempfile"])["tempdir"], _set_temporary),
    Setting("path", "sys", lambda: list(sys.path), _set_path),
    Setting("script", "flowfn", scripts.name, scripts.tell),
    Setting("arguments", "sys", lambda: list(sys.argv), _set_arguments),
    Setting("recursion", "sys", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("digits", "sys", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    Setting("floats", "numpy", _floats, _set_floats),
    Setting("printing", "numpy", np.get_printoptions, lambda options: np.set_printoptions(**options)),
    Setting("decimals", "decimal", _decimals, lambda context: _of("decimal", "setcontext")(context.copy())),
    Setting("warnings", "warnings", _filters, _set_filters),
    Setting("logging", "logging", _levels, _set_levels),
    Setting("fields", "csv", _of("csv", "field_size_limit"), _of("csv", "field_size_limit")),
    Setting("sockets", "socket", _of("socket", "getdefaulttimeout"), _of("socket", "setdefaulttimeout")),
    Setting("locale", "locale", _locale, _set_locale),
)


def current_settings() -> dict[str, Any]:
    """The settings of this process and thread, of those modules that are in use."""
    return {setting.name: setting.read() for setting in SETTINGS if setting.module in sys.modules}


def apply(values: dict[str, Any]) -> None:
    """Set what is not so already, in this process and thread."""
    for setting in SETTINGS:
        if (
            setting.name in values
            and setting.name not in _own_settings
            and (setting.module not in sys.modules or not _equal_settings(setting.read(), values[setting.name]))
        ):
            setting.write(values[setting.name])


def _equal_settings(one: Any, other: Any) -> bool:
    return bool(repr(one) == repr(other)) if type(one).__name__ == "Context" else bool(one == other)


def look_again() -> None:
    """Filter warnings of what has been imported since."""
    if _waiting and any(_category(one[2]) is not None for one in _waiting[0]):
        _set_filters(_waiting[0])


class Context:
    """What threads that work for this one take over from it: numpy's and decimal's settings,
    and all other context variables."""

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.floats = (
            _floats() if int(np.__version__.partition(".")[0]) < 2 else None
        )  # since then it is a context variable

    def run(self, function: Callable[..., Returned], *arguments: Any) -> Returned:
        """Call a function so; any number of threads may at a time."""
        return self.context.copy().run(self._run, function, *arguments)

    def _run(self, function: Callable[..., Returned], *arguments: Any) -> Returned:
        if self.floats is not None:
            _set_floats(self.floats)
        return function(*arguments)


@dataclass(frozen=True)
class Setup:
    """A function that each worker calls before anything else. Two are the same if their functions are."""

    function: Callable[[], Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setup) and self.function is other.function

    def __hash__(self) -> int:
        return id(self.function)
