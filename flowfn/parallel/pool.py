"""The workers: warm pools of loky processes, kept for the process until they idle, `shut_down()` or exit."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from concurrent.futures import Executor, Future
from typing import Any

IDLE = 300.0
"""Seconds after which an idle worker ends; it is started again when it is wanted."""

SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)

_pools: dict[tuple[int, int], Any] = {}
_lock = threading.Lock()


def pool(processes: int) -> Executor:
    """The warm pool of so many processes; every flow that asks for the same number shares it."""
    from loky import ProcessPoolExecutor

    with _lock:
        key = (os.getpid(), processes)  # a forked child has no part in its parent's pools
        known = _pools.get(key)
        if known is None or known._flags.broken is not None or known._flags.shutdown:
            known = _pools[key] = ProcessPoolExecutor(processes, timeout=IDLE, initializer=_ignore_interrupts, env=SINGLE_THREADED)
        return known


def shut_down() -> None:
    """End all workers of this process now. The next prefetch starts new ones.

    >>> import flowfn as ff
    >>> ff.shut_down()
    """
    with _lock:
        pid = os.getpid()
        mine = [_pools.pop(key) for key in list(_pools) if key[0] == pid]
    for executor in mine:
        for item in list(executor._pending_work_items.values()):
            if item.future.cancelled():  # loky 3.7 sets an exception on every pending future, which a cancelled one refuses
                item.future = Future()
        executor.shutdown(wait=True, kill_workers=True)


atexit.register(shut_down)


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that iterates; it tells its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
