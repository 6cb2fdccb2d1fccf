#!/usr/bin/env bash
# distributed 2026.8.0 (dask 2026.8.0), Python 3.11, a LocalCluster of one worker process: how often is a worker that was killed started again?
#
# Guess: as often as it dies, since it has a nanny that starts it again, and does so within a second.
# Seen: each death is looked at once more when "distributed.deploy.lost-worker-timeout" (15 s) is over. If the worker is not there at
# that moment, because it has died again and is just being started, its nanny is closed for good (SpecCluster._update_worker_status).
# Nothing raises: tasks are queued for a cluster without workers. The same two deaths with a longer timeout do no harm.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile distributed==2026.8.0 dask==2026.8.0
cat >"$work/program.py" <<'PYTHON'
import os
import signal
import time

import dask
import distributed


def kill(client):
    ((where, pid),) = client.run(os.getpid).items()
    os.kill(pid, signal.SIGKILL)
    while where in client.nthreads():
        time.sleep(0.02)


def workers_after_two_deaths(timeout):
    """How many there are 8 s after a worker died twice, 3.7 s apart."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": timeout}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=100
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(1)
        kill(client)
        died = time.monotonic()
        client.wait_for_workers(1)
        time.sleep(died + 3.7 - time.monotonic())
        kill(client)
        time.sleep(8)
        return len(client.nthreads())


if __name__ == "__main__":
    seen = workers_after_two_deaths("4s"), workers_after_two_deaths("1 hour")
    print(f"distributed {distributed.__version__}: after two deaths {seen[0]} workers; with a longer timeout {seen[1]}")
    raise SystemExit(seen != (0, 1))
PYTHON
"$work/venv/bin/python" -W ignore "$work/program.py" 2>"$work/complaints" || { tail -5 "$work/complaints"; exit 1; }
