"""The crews of this process: so many workers each, warm for every flow that asks for as many,
until it is time to end them."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import sys
from collections.abc import Callable
from typing import Any

from flowfn import rules
from flowfn.parallel.crossing import slots
from flowfn.parallel.crossing.transport import forget_shared
from flowfn.parallel.tasks import versions
from flowfn.parallel.tasks.surroundings import Setup
from flowfn.parallel.tasks.versions import Ledger
from flowfn.parallel.workers.processes import Workers, ready
from flowfn.parallel.workers.program import Prepared, prepared
from flowfn.process import forks

PROCESSES = rules.Rule(
    'a positive integer or "auto"',
    lambda value: rules.is_integer(value) or isinstance(value, str),
    lambda value, others: value == "auto" or (rules.is_integer(value) and value > 0),
)
"""How many processes there may be."""

_crews: forks.Own[dict[tuple[int, int | None, bytes], Workers]] = forks.Own(dict)
_lock = forks.lock()  # an iterator may be collected, and closed, anywhere


def crew_of(processes: int, threads: int | None = 1, setup: Prepared | None = None) -> Workers:
    """The warm workers of this process; every flow that asks for as many, set up alike, shares them."""
    with _lock:
        crews, key = _crews(), (processes, threads, setup.key if setup else b"")
        if key not in crews:
            _end_with_process()
            crews[key] = Workers(processes, threads, setup)
        return crews[key]


_end_with_process = forks.Own(lambda: multiprocessing.util.Finalize(None, shut_down, exitpriority=100))
"""Ends the workers before multiprocessing waits for the children that it knows of, in its own children too."""


def available() -> int:
    """How many CPUs this process may use: its affinity and its container's share count, not what the machine has."""
    from loky import cpu_count

    return int(cpu_count())


@rules.checked(processes=PROCESSES, worker_threads=rules.optional(rules.positive), setup=rules.optional(rules.function))
def warm_up(
    processes: int | str = "auto", *, worker_threads: int | None = 1, setup: Callable[[], Any] | None = None
) -> None:
    """Start worker processes now, and do not wait for them: the first `prefetch` that asks for them finds them there.

    `processes`, `worker_threads` and `setup` are those of `prefetch`. They are started side by side, and end with
    `shut_down`, when they have had nothing to do for five minutes, or with this process.

    >>> import flowfn as ff
    >>> ff.warm_up(2)
    >>> ff.shut_down()
    """
    told = prepared(Setup(setup) if setup else None, Ledger())
    workers = crew_of(available() if processes == "auto" else int(processes), worker_threads, told)
    for worker in range(len(workers.workers)):
        workers.submit(ready, worker=worker)


def shut_down() -> None:
    """End all workers of this process now. The next prefetch starts new ones.

    >>> import flowfn as ff
    >>> ff.shut_down()
    """
    with _lock:
        every = list(_crews().values())
        _crews().clear()
    for workers in every:
        workers.close()
    forget_shared()
    slots.allow()
    versions.forget()


atexit.register(shut_down)


@forks.in_child
def _in_child() -> None:
    """Loky would wait, when it lets go of its parent's,
    for threads that are not there."""
    known = getattr(sys.modules.get("loky.process_executor"), "_threads_wakeups", {})
    for shutdown_lock, _ in list(known.values()):
        forks.renew(shutdown_lock)
    known.clear()
