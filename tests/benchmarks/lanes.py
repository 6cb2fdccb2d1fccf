"""Contestants in processes of their own, which still take turns.

A library must not pay for what another one imports, and its workers, memory and CPU time are to be told from the
others'. So each contestant gets a lane: a process that imports a benchmark's module, makes the contestant of that name
out of the module's `CONTESTANTS`, and runs one round whenever it is asked. A round answers with figures, as a dict.

python lanes.py MODULE CONTESTANT SETTINGS is such a process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

PATIENCE = 120.0
"""Seconds after which a round is given up."""

Report = dict[str, float]
Round = Callable[[], Mapping[str, float]]
Contestants = Mapping[str, Callable[..., Round | None]]
"""What makes contestants, by name: settings in, a round out; None where a peer is not installed."""


class LeftOut(Exception):
    """A contestant cannot take part; the message says why."""


class Lane:
    """The process of one contestant, seen from outside."""

    def __init__(self, module: str, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it is open as long as the lane)
        command = [sys.executable, __file__, module, name, json.dumps(settings)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said}
        self.process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)

    def ask(self) -> None:
        """Have it run a round."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("round\n")
            self.process.stdin.flush()

    def answer(self) -> Report:
        """What it says, when it has done what it was asked for."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.kill()
            raise LeftOut(
                f"it did not answer within {PATIENCE:.0f} s" if not ready else f"it ended: {self._last_words()}"
            )
        told: Report = json.loads(line)
        if not told.get("here", True):
            raise LeftOut("not installed")
        return told

    def end(self) -> float:
        """Let the process come to its end; the seconds until it is gone."""
        start = perf_counter()
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        seconds = perf_counter() - start
        self.kill()
        return seconds

    def kill(self) -> None:
        """End it, and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _last_words(self) -> str:
        self.said.seek(0)
        lines = [line for line in self.said.read().splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.process.wait()}"


def enter(module: str, names: Sequence[str], **settings: Any) -> dict[str, Lane]:
    """Lanes for all contestants that can take part. One who cannot is told on stderr, except flowfn, which has to."""
    lanes = {}
    for name in names:
        lanes[name] = Lane(module, name, settings)
        try:
            lanes[name].answer()
        except LeftOut as error:
            leave_out(lanes, name, error)
    return lanes


def leave_out(lanes: dict[str, Lane], name: str, error: LeftOut) -> None:
    """Go on without a peer; without flowfn there is nothing to go on with."""
    lanes.pop(name).end()
    if name.startswith("flowfn"):
        for lane in lanes.values():
            lane.kill()
        raise error
    print(f"{name} is left out: {error}", file=sys.stderr, flush=True)


def race(lanes: dict[str, Lane], rounds: int, groups: Sequence[Sequence[str]] = ()) -> dict[str, list[Report]]:
    """What each contestant says of its rounds. They take turns; those in a group run their rounds at the same time."""
    reports: dict[str, list[Report]] = {name: [] for name in lanes}
    alone = [[name] for name in lanes if not any(name in group for group in groups)]
    for _ in range(rounds):
        for names in (*alone, *groups):
            together = [name for name in names if name in lanes]
            for name in together:
                lanes[name].ask()
            for name in together:
                try:
                    reports[name].append(lanes[name].answer())
                except LeftOut as error:
                    leave_out(lanes, name, error)
                    reports.pop(name)
    return reports


def held(
    module: str, names: Sequence[str], rounds: int, groups: Sequence[Sequence[str]] = (), **settings: Any
) -> dict[str, list[Report]]:
    """A whole race: all enter, take turns, and leave."""
    lanes = enter(module, names, **settings)
    try:
        return race(lanes, rounds, groups)
    finally:
        for lane in lanes.values():
            lane.end()


def best(reports: Mapping[str, Sequence[Report]], figure: str = "seconds") -> dict[str, float]:
    """The smallest of a figure, of each contestant that tells it."""
    return {name: min(one[figure] for one in told) for name, told in reports.items() if told and figure in told[0]}


# Inside of a lane


def cpu_seconds() -> float:
    """What this process and all that it has started have computed until now, workers that have ended included."""
    here = psutil.Process()
    own = here.cpu_times()
    seconds = own.user + own.system + own.children_user + own.children_system
    for child in here.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return float(seconds)


def steady(batches: Iterator[Any], use: Callable[[Any], Any], seconds: float, waiting: int = 16) -> Round:
    """Rounds over a stream without end: so many seconds of it. What waited before the clock starts is read first.

    A report tells the seconds of time, and of computing by all processes, for one batch.
    """

    def one_round() -> Report:
        for _ in range(waiting):
            use(next(batches))
        done, cpu, start = 0, cpu_seconds(), perf_counter()
        while done < 4 or perf_counter() - start < seconds:
            use(next(batches))
            done += 1
        passed = perf_counter() - start
        return {"seconds": passed / done, "cpu": (cpu_seconds() - cpu) / done}

    return one_round


def main(module: str, name: str, settings: str) -> None:
    """Run rounds as they are asked for. What anybody prints goes where errors go: stdout is for the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(report: Mapping[str, float]) -> None:
        answers.write(json.dumps(report) + "\n")
        answers.flush()

    contestants: Contestants = importlib.import_module(module).CONTESTANTS
    one_round = contestants[name](**json.loads(settings))
    answer({"here": one_round is not None})
    for _ in sys.stdin:
        assert one_round
        answer(one_round())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
