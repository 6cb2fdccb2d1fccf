"""The workers: warm pools of loky processes, kept for the process until they idle, `shut_down()` or exit."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from concurrent.futures import Executor, Future
from typing import Any

IDLE = 300.0
"""Seconds after which an idle worker ends; it is started again when it is wanted."""

PARENT_WATCH = 0.5
"""How often, in seconds, a worker looks whether the process that it works for is still there."""

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
            known = _pools[key] = ProcessPoolExecutor(
                processes, timeout=IDLE, initializer=_begin, initargs=(os.getpid(),), env=SINGLE_THREADED
            )
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


def _begin(parent: int) -> None:
    """What a worker does first. Ctrl-C is for the process that iterates; when that has gone, so does the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "getppid") and os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), name="flowfn-parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_WATCH)
    os._exit(0)
