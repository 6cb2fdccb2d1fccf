#!/usr/bin/env bash
# loky 3.7.0, Python 3.11: does Queue.join_thread() wait for the thread that feeds the queue, as multiprocessing's does?
#
# Guess: yes; loky's queue is multiprocessing's, with other pickling.
# Seen: no, where the process that puts something in is the one that made the queue, which is so in every executor. CPython mended
# that in 3.7 (bpo-30886); loky starts the thread by a copy of the code from before. So an executor that was shut down with
# wait=True may leave its feeder running, and a program that ends meanwhile can cut it off between unlinking a semaphore and telling
# the resource tracker, which then complains of a file that is not there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check loky==3.7.0
cat >"$work/asked.py" <<'PYTHON'
import multiprocessing
import threading
import time

import loky
from loky.backend import get_context


class Slow:
    """Takes a moment to pickle, as a large datapoint does."""

    def __reduce__(self):
        time.sleep(0.5)
        return Slow, ()


def feeds_on(context):
    queue = context.Queue()
    queue.put(Slow())
    queue.close()
    queue.join_thread()
    alive = any(thread.name == "QueueFeederThread" for thread in threading.enumerate())
    time.sleep(1)
    return alive


if __name__ == "__main__":
    seen = {"multiprocessing": feeds_on(multiprocessing), "loky": feeds_on(get_context("loky"))}
    print(f"loky {loky.__version__}: the feeder runs after join_thread(): {seen}")
    raise SystemExit(seen != {"multiprocessing": False, "loky": True})
PYTHON
"$work/venv/bin/python" "$work/asked.py"
