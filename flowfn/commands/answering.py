"""What is said to a command: each function makes the answer, as lines and as what JSON can hold."""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from flowfn.commands.targets import Wrong
from flowfn.flows.flow import Flow
from flowfn.seeing import describe, describe_state, explain, look, speed
from flowfn.seeing.profiling import Profile, profile, tune
from flowfn.testing import check
from flowfn.testing.laws import LawBroken
from flowfn.vocabulary.ordering import take

Make = Callable[[], Any]

PASSES, FEW = 90, 2
"""About how many passes all laws take; how many outputs tell little of them."""


class PrintedAnswer(NamedTuple):
    """What is printed: a text, or as JSON; and whether that is good."""

    text: str
    data: Any
    good: bool = True
    shown: Any = None  # what has a form in colours


def explained(make: Make, asked: argparse.Namespace) -> PrintedAnswer:
    """What the flow is made of."""
    flow = make()
    say = partial(explain, details=True, elements=asked.elements)
    if not asked.json:
        return PrintedAnswer(f"{_printed(say, flow, to=_Screen).rstrip()}\n", None)
    table = [re.split(r" {2,}", line.strip()) for line in _printed(explain, flow).splitlines()]
    stages = [dict(zip(table[0], row)) for row in table[1:] if len(row) == len(table[0])]
    more = [line for line in _printed(say, flow).splitlines()[1 + len(stages) :] if line]
    data = {
        "stages": stages,
        "remarks": [line[2:] for line in more if line.startswith("* ")],
        "details": [line for line in more if not line.startswith("* ")],
    }
    return PrintedAnswer("", data)


def summed_up(make: Make, asked: argparse.Namespace) -> PrintedAnswer:
    """What its datapoints look like."""
    text = _printed(describe, make(), asked.n)
    return PrintedAnswer(text, {"lines": text.splitlines()})


def looked(make: Make, asked: argparse.Namespace) -> PrintedAnswer:
    """Every datapoint after every stage."""
    view = look(make(), asked.n)
    if asked.output:
        view.save(asked.output)
    text = f"{asked.output}\n" if asked.output else f"{view}\n"
    return PrintedAnswer(text, {"lines": str(view).splitlines(), "page": asked.output})


def timed(make: Make, asked: argparse.Namespace) -> PrintedAnswer:
    """How fast they come."""
    found = speed(make(), asked.n, bar=False)
    data = {**dataclasses.asdict(found), "per_second": found.per_second, "bytes_per_second": found.bytes_per_second}
    return PrintedAnswer(f"{found}\n", data)


def profiled(make: Make, asked: argparse.Namespace) -> PrintedAnswer:
    """Why that is so."""
    found: Profile = profile(make(), step_of(asked), asked.n, seconds=asked.seconds)
    written = []
    for path, write in ((asked.output, found.save), (asked.trace, found.save_trace)):
        if path:
            write(path)
            written.append(str(path))
    text = "".join(f"{line}\n" for line in [str(found), *written])
    return PrintedAnswer(text, {**found.as_data(), "written": written}, shown=found)


def tuned(make: Make, asked: argparse.Namespace) -> PrintedAnswer:
    """What to write."""
    found = tune(make(), step_of(asked), seconds=asked.seconds)
    return PrintedAnswer(f"{found}\n", found.as_data())


def tested(make: Make, asked: argparse.Namespace) -> PrintedAnswer:
    """Whether it keeps the laws: for the first outputs, where there are many, or where they take long."""
    count, more, seconds = _some(make(), asked.n, asked.seconds / PASSES)
    some = (lambda: take(count, make())) if more else make
    which = f" for the first {count} outputs" if more else ""
    print(f"checking the laws{which}, for about {max(PASSES * seconds, 1):.0f} s ...", file=sys.stderr, flush=True)
    try:
        check(some)
    except LawBroken as error:
        return PrintedAnswer(f"broken: {error}\n", {"holds": False, "outputs": count, "why": str(error)}, good=False)
    return PrintedAnswer(f"all laws hold{which}\n", {"holds": True, "outputs": count, "all": not more})


def _some(flow: Flow[Any], most: int, seconds: float) -> tuple[int, bool, float]:
    """(how many outputs come in that time, at most so many and at least a few; whether there are more; seconds)."""
    count, began, spent = 0, None, 0.0
    with flow.run() as outputs:
        for _ in outputs:
            began = began or time.perf_counter()  # workers begin once
            spent = time.perf_counter() - began
            if count == most or (count >= FEW and spent > seconds):
                return count, True, spent
            count += 1
    return count, False, spent


def states(paths: Iterable[str]) -> Iterable[tuple[str, PrintedAnswer | None, str]]:
    """Saved states in words: each path with its answer, or with what is wrong."""
    for path in paths:
        try:
            text = _printed(describe_state, path)
        except (OSError, UnicodeError) as error:
            yield path, None, f"{path}: {getattr(error, 'strerror', None) or error}"
        except ValueError as error:  # which names the path
            yield path, None, str(error).removeprefix("describe_state(): ")
        else:
            yield path, PrintedAnswer(text, {"path": path, "lines": text.splitlines()}), ""


def step_of(asked: argparse.Namespace) -> Callable[[Any], Any] | None:
    """A consumer that takes so many milliseconds."""
    if asked.step is None:
        return None
    if not 0 <= asked.step < math.inf:
        raise Wrong("--step must be a number of milliseconds, 0 or more")
    seconds: float = asked.step / 1000
    return lambda _: time.sleep(seconds)


class _Screen(io.StringIO):
    """What is printed in the end, if that is a screen."""

    def isatty(self) -> bool:
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


def _printed(say: Callable[..., Any], *given: Any, to: type[io.StringIO] = io.StringIO) -> str:
    with to() as file:
        say(*given, file=file)
        return file.getvalue()
