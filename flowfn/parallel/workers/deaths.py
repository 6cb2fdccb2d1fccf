"""How workers end that were not told to: by a signal from outside, or by what they did themselves;
and what is said of it."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from pathlib import Path
from typing import Any

CRASHES = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP"})
"""Signals that a process brings upon itself."""

FIRST_WAIT, LONGEST_WAIT = 0.1, 3.2
"""Seconds to wait before the second and any later try, of which each waits twice as long as the one before."""

KILLED, CRASHED = 8, 3
"""How often what ends by a signal from outside is tried, and what ends otherwise."""

EXIT_SECONDS = 2.0
"""Seconds within which a process whose pipes are closed has ended:
the system closes them before it tells how it ended."""


def status(process: Any, patience: float = EXIT_SECONDS) -> int | None:
    """The exit status of a process that ends; None if it is not told within `patience` seconds.

    >>> from types import SimpleNamespace
    >>> status(SimpleNamespace(exitcode=-9)), status(SimpleNamespace(exitcode=None), 0.01)
    (-9, None)
    """
    until = time.monotonic() + patience
    while process.exitcode is None and time.monotonic() < until:
        time.sleep(0.001)
    return process.exitcode


def ends(error: object, status: int | None = None) -> str:
    """How a worker ended, as loky says, or else its exit status: `SIGKILL(-9)`.

    >>> ends("... The exit codes of the workers are {SIGKILL(-9)}"), ends("no word of it", -15), ends("no word of it")
    ('SIGKILL(-9)', 'SIGTERM(-15)', '')
    """
    codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    if codes and codes[1]:
        return codes[1]
    if status is None:
        return ""
    name = signal.Signals(-status).name if -status in {int(one) for one in signal.Signals} else "EXIT"
    return f"{name}({status})"


def from_outside(how: str) -> bool:
    """Whether somebody else ended it, as the system does when memory runs short.

    >>> from_outside("SIGKILL(-9)"), from_outside("SIGSEGV(-11)"), from_outside("EXIT(3)")
    (True, False, False)
    """
    signals = set(re.findall(r"SIG[A-Z0-9]+", how))
    return bool(signals) and not signals & CRASHES


def tries(how: str) -> int:
    """How often what ended so is tried."""
    return KILLED if from_outside(how) else CRASHED


def wait_before(again: int) -> float:
    """Seconds to wait before a try, the first of which is number 0.

    >>> [wait_before(again) for again in range(1, 9)]
    [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2]
    """
    return min(FIRST_WAIT * 2 ** (again - 2), LONGEST_WAIT) if again > 1 else 0.0


def memory() -> str:
    """What memory there is now, as far as this system tells."""
    words = []
    with contextlib.suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        words.append(f"{_kilobytes(lines['MemAvailable'])} of {_kilobytes(lines['MemTotal'])} GB of memory are free")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            most, now = (int(Path("/sys/fs/cgroup", name).read_text()) for name in (limit, used))
            if most < 1 << 60:
                words.append(f"its container uses {now / 1e9:.1f} of {most / 1e9:.1f} GB")
    return f" (now {', '.join(words)})" if words else ""


def _kilobytes(line: str) -> str:
    return f"{int(line.split()[0]) / 1e6:.1f}"


def why(how: str) -> str:
    """What may have ended workers so."""
    if from_outside(how):
        return (
            f"something else ended them: the system does (SIGKILL) when memory runs short{memory()}, and so do "
            "schedulers"
        )
    return "they may crash (a library that cannot be loaded, or breaks), end themselves (os._exit), or lack memory"


def verdict(how: str, count: int, relief: str = "") -> str:
    """What is said of a datapoint that ended so many workers; `relief`: what spares the workers of a cluster.

    >>> verdict("", 3, "give it more")[:96]
    '3 worker processes ended, one after the other, at work on one datapoint. It may crash them, end '
    """
    by = f" ({how})" if how else ""
    lack = "need more memory than a worker has" if relief else "need more memory than there is"
    remedy = "make it in this process to see: flow[i], or prefetch with threads="
    if from_outside(how):
        ended, cause = f"were killed{by} from outside", f"{lack}{memory() if not relief else ''}"
        remedy = f"{relief or 'use fewer processes='}, or {remedy}"
    else:
        ended, cause = f"ended{by}", f"crash them, end them (os._exit), or {lack}"
        remedy = f"{relief}, or {remedy}" if relief else remedy
    return f"{count} worker processes {ended}, one after the other, at work on one datapoint. It may {cause}; {remedy}"
