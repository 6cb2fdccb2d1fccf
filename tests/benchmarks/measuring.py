"""How the benchmarks measure and report: contestants take turns, the fastest round of each counts, ratios are told.

A machine is never quiet. Turns (A B C A B C ...) let a busy moment hit everybody, and the fastest of many short rounds
is the one that was disturbed least.
"""

from __future__ import annotations

import argparse
import gc
import json
import operator
import platform
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

COMPARES = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}
PER = {"ns": 1e9, "µs": 1e6, "ms": 1e3}
COLUMNS = ("question", "measure", "target", "ratio or figure", "reached?")


class Contestant(NamedTuple):
    """Something to be timed, and how many datapoints (or calls) one run of it is."""

    run: Callable[[], object]
    datapoints: int = 1


@dataclass(frozen=True)
class Finding:
    """One line of a report: a question, what was measured, and the ratio (or figure) that is held against a target.

    `result` is None if it could not be measured, because a peer is absent. A `target` reads "<= 1.1".
    """

    question: str
    measured: str
    result: float | None
    unit: str = "x"
    target: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none, or nothing to hold against it."""
        if self.result is None or not self.target:
            return None
        compare, bound = self.target.split()
        return bool(COMPARES[compare](self.result, float(bound)))

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as it is printed."""
        result = "absent" if self.result is None else self._with_unit(shown(self.result))
        reached = {True: "yes", False: "**no**", None: ""}[self.reached]
        return self.question, self.measured, self._with_unit(self.target), result, reached

    def _with_unit(self, text: str) -> str:
        return text if not text or self.unit == "x" else f"{text} {self.unit}"


def fastest(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, float]:
    """The seconds that each contestant takes for one datapoint in its fastest round; they take turns.

    As in `timeit`, the garbage collector rests while the clock runs.
    """
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, contestant in contestants.items():
            gc.collect(0)
            gc.disable()
            start = perf_counter()
            contestant.run()
            seconds = perf_counter() - start
            gc.enable()
            best[name] = min(best[name], seconds / contestant.datapoints)
    return best


def consume(iterable: Iterable[Any]) -> None:
    """Read to the end, and keep nothing."""
    deque(iterable, 0)


def ratio(
    question: str, times: Mapping[str, float], above: str, below: str, *, unit: str = "ns", target: str = ""
) -> Finding:
    """One contestant's time over another's: how many times as fast the second is; absent where one of them is."""
    told = [
        f"{name} {shown(times[name] * PER[unit])} {unit}" if name in times else f"{name} absent"
        for name in (below, above)
    ]
    result = times[above] / times[below] if above in times and below in times else None
    return Finding(question, ", ".join(told), result, "x", target)


def shown(value: float) -> str:
    """A figure with as many digits as are worth reading.

    >>> [shown(value) for value in (0.0, 1.0444, 23.52, 180.4, 7512.0)]
    ['0', '1.04', '23.5', '180', '7510']
    """
    if value == 0:
        return "0"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{float(f'{value:.3g}'):.0f}"
    return f"{value:.2f}" if 1 <= abs(value) < 10 else text


def table(findings: Sequence[Finding]) -> str:
    """The findings as a Markdown table, its columns aligned."""
    lines = [COLUMNS, *(finding.cells for finding in findings)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    rows = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]])


def machine() -> dict[str, Any]:
    """What the figures depend on: the machine, and the versions of all who took part."""
    versions = {}
    for name in (
        "flowfn",
        "numpy",
        "loky",
        "tensorpack",
        "torch",
        "grain",
        "spdl",
        "tensorflow-cpu",
        "webdataset",
        "turboloader",
        "opencv-python-headless",
    ):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system(), **versions}


def write_json(path: str | Path, findings: Sequence[Mapping[str, Any]]) -> None:
    """Write findings, and where they were found, as JSON."""
    Path(path).write_text(json.dumps({"machine": machine(), "findings": list(findings)}, indent=1) + "\n")


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as plain JSON."""
    return {**asdict(finding), "reached": finding.reached}


def command_line(about: str | None) -> argparse.ArgumentParser:
    """What all benchmarks may be asked."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="few short rounds: to see that it runs, not to believe the figures"
    )
    parser.add_argument("--json", metavar="PATH", help="also write the findings here")
    return parser


def report(about: str | None, benchmark: Callable[[bool], list[Finding]]) -> None:
    """Run a benchmark as the command line asks: print its table, write its JSON."""
    given = command_line(about).parse_args()
    findings = benchmark(given.quick)
    print(table(findings))
    if given.json:
        write_json(given.json, [as_json(finding) for finding in findings])
