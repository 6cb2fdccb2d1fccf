"""The flow that a command is about.

file.py:name       a flow, or a function that returns one, in a file
package.module:name     ... or in a module
file.py            the first flow that the program reads; it is run until then
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import runpy
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowfn.flows import sources
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator

OTHERS = ("flowfn.formats", "flowfn.datasets", "flowfn.storage", "flowfn.shelves", "flowfn.flows")
"""Where flows are read to be written into files, or for somebody else: such a one is not the one that is meant."""


class Wrong(Exception):
    """What was asked for is not there; the message says so in one line."""


class Done(BaseException):
    """The program has gone far enough."""


def with_target(target: str, arguments: Mapping[str, Any], program: Sequence[str], do: Callable[[Any], Any]) -> Any:
    """What `do` returns for a function that makes the flow that is meant."""
    home, _, name = target.rpartition(":")
    if home and not (len(home) == 1 and name.startswith("\\")):  # a drive of Windows
        paths = [*sys.path]
        try:
            return do(maker(named(imported(home), name, home), target, arguments))
        finally:
            sys.path[:] = paths
    if arguments:
        raise Wrong(f"{target} names no function that --arg could be for: write {target}:function")
    return run_until(target, program, do)


def imported(home: str) -> Any:
    """A module, by its name or its file."""
    path = Path(home)
    if path.suffix != ".py" and not path.exists():
        sys.path.insert(0, "")
        try:
            return importlib.import_module(home)
        except ModuleNotFoundError as error:
            raise Wrong(f"there is no module or file {home}: {error}") from error
    if not path.exists():
        raise Wrong(f"there is no file {home}")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Wrong(f"{home} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def named(module: Any, name: str, home: str) -> Any:
    """What a module has under a name, which may have dots."""
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [one for one, held in vars(module).items() if isinstance(held, Flow)]
            hint = f"; its flows are {', '.join(known)}" if known else ""
            raise Wrong(f"{home} has nothing named {name!r}{hint}")
        value = getattr(value, part)
    return value


def maker(found: Any, target: str, arguments: Mapping[str, Any]) -> Callable[[], Flow[Any]]:
    """A function that makes the flow: the one that was found, or one that returns the flow that was."""
    if isinstance(found, Flow) or not callable(found):
        if arguments:
            raise Wrong(f"{target} is {type(found).__name__}, no function that --arg could be for")
        return lambda: sources.flow(found, "flowfn")

    def make() -> Flow[Any]:
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise Wrong(f"{target}{inspect.signature(found)}: {error}; give it by --arg name=value") from error
        return sources.flow(found(**arguments), "flowfn")

    return make


def argument(text: str) -> tuple[str, Any]:
    """`name=value`; the value is what Python would read, or else text.

    >>> argument("size=4"), argument("path=/data/train"), argument("ranks=(0, 1)")
    (('size', 4), ('path', '/data/train'), ('ranks', (0, 1)))
    """
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise ValueError(f"write name=value, not {text}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def run_until(path: str, program: Sequence[str], do: Callable[[Any], Any]) -> Any:
    """Run a program until it first reads a flow, and do then what is to be done with that.

    What it reads in another thread, which the first would wait for, is looked at when the program has ended.
    """
    if not Path(path).is_file():
        raise Wrong(f"there is no file {path}; a flow in a module is module:name")
    answers: list[Any] = []
    elsewhere: list[Flow[Any]] = []

    def met(flow: Flow[Any]) -> None:
        if not _in_first_thread():
            elsewhere.append(flow)
            return
        answers.append(do(lambda: flow))
        raise Done

    arguments, paths = sys.argv, [*sys.path]
    sys.argv, sys.path[:0] = [path, *program], [str(Path(path).resolve().parent)]
    try:
        with watching(met):
            runpy.run_path(path, run_name="__main__")
    except Done:
        return answers[0]
    except SystemExit as error:
        if error.code not in (None, 0):
            raise Wrong(f"{path} ended before it read a flow: {error.code}") from error
    finally:
        sys.argv, sys.path[:] = arguments, paths
    if elsewhere:
        return do(lambda: elsewhere[0])
    raise Wrong(f"{path} ended, and read no flow; name a function that returns one: {path}:name")


def _in_first_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def watching(met: Callable[[Flow[Any]], None]) -> Iterator[None]:
    """While this lasts, the first flow that is read is met before; and those that other threads read earlier."""
    readings: list[tuple[type, str]] = [(Flow, name) for name in ("__iter__", "__getitem__", "__getitems__", "run")]
    readings.append((FlowIterator, "__init__"))  # what frameworks begin by themselves
    before = {reading: getattr(*reading) for reading in readings}
    asked: list[Flow[Any]] = []

    def watched(reading: tuple[type, str]) -> Callable[..., Any]:
        def read(one: Any, *given: Any, **options: Any) -> Any:
            whole = not (reading[1] == "__getitem__" and isinstance(given[0], slice))
            reader = sys._getframe(1).f_globals.get("__name__", "")
            if not asked and whole and not reader.startswith(OTHERS):
                flow = one if isinstance(one, Flow) else given[0]
                asked.extend([flow] if _in_first_thread() else ())
                met(flow)
            return before[reading](one, *given, **options)

        return read

    for reading in readings:
        setattr(*reading, watched(reading))
    try:
        yield
    finally:
        for reading, was in before.items():
            setattr(*reading, was)
