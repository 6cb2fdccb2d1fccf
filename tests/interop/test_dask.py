"""The work of a prefetch on a Dask cluster, whose workers are killed, and which goes away."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same
from pages import failures
from sources import noisy
from waiting import eventually

import flowfn as ff
from flowfn.interop.dask import executor
from flowfn.parallel.workers.processes import Gone

distributed = pytest.importorskip("distributed")
from distributed.comm.core import CommClosedError  # noqa: E402

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.together,
    pytest.mark.filterwarnings("ignore"),  # sockets of killed workers, closed late
]
PAGE = Path(__file__).parents[2] / "examples" / "many_machines.md"


SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s",  # otherwise who asks one that has just died may wait for 30 s
}
CLUSTER = """
import asyncio, os, sys
from distributed import Nanny, Scheduler

async def forever(make):
    async with make() as one:
        print(os.getpid(), one.address, flush=True)
        await one.finished()

def start(make):
    if not os.fork():
        asyncio.run(forever(make))

start(lambda: Scheduler(host="127.0.0.1", port=0, dashboard=False))
for address in sys.stdin:
    start(lambda: Nanny(address.strip(), nthreads=1, memory_limit=0, silence_logs=100))
"""


class Cluster:
    """A scheduler and nodes, each a process that can be killed; a node is a nanny, and a worker that it starts again."""

    def __init__(self, folder):
        paths = os.pathsep.join(sys.path)
        self.program = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths, **SETTINGS},
            start_new_session=True,
        )
        self.scheduler, self.address = self.said()

    def said(self):
        number, address = self.program.stdout.readline().split()
        return int(number), address

    def add_node(self):
        """A further node; the number of its nanny's process."""
        self.program.stdin.write(f"{self.address}\n")
        self.program.stdin.flush()
        return self.said()[0]

    def close(self):
        os.killpg(self.program.pid, signal.SIGKILL)
        self.program.communicate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.closing(Cluster(tmp_path_factory.mktemp("dask"))) as cluster:
        for _ in range(2):
            cluster.add_node()
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    import dask

    with (
        dask.config.set(
            {
                "distributed.comm.retry.count": 0,
                "distributed.comm.timeouts.connect": "2s",
                "distributed.admin.log-format": "",
            }
        ),
        distributed.Client(cluster.address) as client,
    ):
        yield client


def make(*stages):
    return ff.pipe(range(80), ff.shuffle(), ff.map(noisy, rng=True), *stages, ff.filter(bool), ff.batch(4))


def slow(x):
    time.sleep(0.01)
    return [x, os.getpid()]


def on_node(x):
    return [*slow(x), os.getppid()]


def fatal(x):
    if x == 33:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_what_comes_out_is_the_same(client):
    flow = ff.pipe(make(), ff.prefetch(4, executor=executor(client)))
    assert_same(list(flow.run(epoch=1)), list(make().run(epoch=1)))
    with flow.run(epoch=1) as iterator:
        before = [next(iterator) for _ in range(5)]
        state = iterator.state_dict()
    assert_same([*before, *make().load_state_dict(state)], list(make().run(epoch=1)))


def test_where_it_runs_is_explained(client, capsys):
    ff.explain(ff.pipe(range(8), ff.map(float), ff.prefetch(4, executor=executor(client))))
    assert "Dask, 2 at a time" in capsys.readouterr().out


def test_large_arrays_may_be_written_to_and_what_workers_hold_stays_as_it_is(client):
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, dashboard_address=None, silence_logs=100, memory_limit=0
        ) as inside,
        distributed.Client(inside) as here,
    ):
        for one in (client, here):
            table = np.zeros(40_000)
            flow = ff.pipe(range(6), ff.map(lambda x: table[:]), ff.prefetch(3, executor=executor(one)))
            for _ in range(2):
                for array in flow:
                    assert not array.any()
                    array += 1


def test_what_dask_scattered_is_lost_with_its_worker_and_what_a_task_gives_is_not(client):
    """Only tasks are done again (distributed 2026.8, https://distributed.dask.org/en/stable/resilience.html)."""

    def killed(held):
        """What is held by one worker, which is killed."""
        distributed.wait(held)
        (where,) = client.who_has([held])[held.key]
        os.kill(client.run(os.getpid, workers=[where])[where], signal.SIGKILL)
        assert eventually(lambda: where not in client.nthreads())
        return held

    scattered = killed(client.scatter(b"four", hash=False))
    assert eventually(lambda: scattered.status in ("lost", "cancelled"))
    given = killed(client.submit(bytes, b"four", pure=False))
    assert client.submit(len, given, pure=False).result(timeout=20) == 4


def test_a_flow_is_shipped_once_whatever_workers_die(client):
    big, calls = np.random.default_rng(0).bytes(3 << 20), []
    own = executor(client)
    submit = client.submit

    def counted(function, *arguments, **keywords):
        calls.append(function)
        return submit(function, *arguments, **keywords)

    client.submit = counted
    try:
        got = []
        for x, pid in ff.pipe(
            range(60), ff.map(lambda x: [x + 0 * len(big), *slow(x)[1:]]), ff.prefetch(4, executor=own)
        ):
            got.append(x)
            if x == 20:
                os.kill(pid, signal.SIGKILL)
    finally:
        del client.submit
    assert got == list(range(60))
    assert calls.count(bytes) <= 2 < len(calls)


def test_workers_killed_in_the_middle_lose_and_double_nothing(client):
    got, rng = [], random.Random(0)
    for number, pid in ff.pipe(range(100), ff.map(slow), ff.prefetch(4, executor=executor(client))):
        got.append(number)
        if number in (30, 60):
            time.sleep(rng.random() / 20)
            with contextlib.suppress(ProcessLookupError):  # the one of before
                os.kill(pid, signal.SIGKILL)
    assert got == list(range(100))


def test_the_page_runs(cluster):
    assert failures(PAGE, "pycon dask", address=cluster.address) == 0


def test_a_datapoint_that_kills_its_workers_is_named(client):
    """By itself Dask names whatever task was on the worker: `KilledWorker`, after `allowed-failures` (3) more of them
    (distributed 2026.8, https://distributed.dask.org/en/stable/killed.html)."""
    got = []
    with pytest.raises(ff.WorkerDied, match="KilledWorker of Dask: 1 of its workers each time") as caught:
        got.extend(ff.pipe(range(80), ff.map(fatal), ff.prefetch(4, executor=executor(client))))
    assert got == list(range(33))
    assert "in map(fatal), its datapoint 33," in str(caught.value.__notes__)
    assert "memory than a worker has; give Dask's workers more memory" in str(caught.value)


def test_a_pure_function_of_dask_is_done_once_for_equal_arguments_and_here_always(client):
    """`Client.submit` has `pure=True` (distributed 2026.8, "Dask assumes that all functions are pure"): equal calls have
    one key, and are done once while anybody holds a future of it, though they draw random numbers or read a clock."""
    held = client.submit(time.time_ns)
    assert held.result() == client.submit(time.time_ns).result()
    own = executor(client)
    assert own.submit(time.time_ns).result() != own.submit(time.time_ns).result()
    for wrong in ({"pure": True}, {"key": "one"}, {"retries": 3}):
        with pytest.raises(ValueError, match="must be left out"):
            executor(client, **wrong)


def touch(path, seconds=0.3):
    time.sleep(seconds)
    path.touch()


def test_what_is_cancelled_is_not_begun_and_what_was_begun_is_finished(client, tmp_path):
    """Neither `cancel` nor `release` stops a task that runs (distributed 2026.8, `Client.cancel`: "stops future tasks
    from being scheduled")."""
    calls = [executor(client).submit(touch, tmp_path / str(number)) for number in range(12)]
    assert eventually(lambda: any(tmp_path.iterdir()))
    assert all(call.cancel() or call.done() for call in calls)
    executor(client).submit(abs, 1).result()
    time.sleep(0.4)
    assert 2 <= len(list(tmp_path.iterdir())) <= 6
    with executor(client) as own:
        pass
    with pytest.raises(RuntimeError, match="after shutdown"):
        own.submit(abs, 1)


def test_errors_of_functions_are_their_own(client):
    with pytest.raises(LookupError) as caught:
        executor(client).submit({}.__getitem__, 1).result()
    assert caught.value.args == (1,)


@pytest.mark.parametrize("wrong", [None, 3, "tcp://scheduler:8786"])
def test_what_is_no_client_is_refused(wrong):
    with pytest.raises(TypeError, match=r"client must be a distributed\.Client"):
        executor(wrong)


def test_a_node_killed_in_the_middle_loses_nothing(cluster, client):
    """The nanny with the worker, so that nobody starts it again."""
    node, got = cluster.add_node(), []
    flow = ff.pipe(range(100_000), ff.map(on_node), ff.prefetch(4, executor=executor(client)))
    assert eventually(lambda: sum(client.nthreads().values()) == 3, 20)
    for number, worker, nanny in flow:
        got.append(number)
        if nanny == node:  # which is given something sooner or later
            os.kill(nanny, signal.SIGKILL)
            os.kill(worker, signal.SIGKILL)
            node, last = None, number + 100
        if node is None and number == last:
            break
    assert got == list(range(last + 1))


def test_a_cluster_that_is_gone_is_said(cluster, client):
    """A result that was on its way raises CommClosedError (distributed 2026.8), before the client knows of the end."""
    own, got, killed = executor(client), [], []
    assert isinstance(own.translated(CommClosedError("reset by peer"), "finished"), Gone)
    assert isinstance(own.translated(CommClosedError("raised by a function"), "error"), CommClosedError)
    flow = ff.pipe(range(1000), ff.map(slow), ff.prefetch(4, executor=own))

    def train():
        for x, _ in flow:
            got.append(x)
            if x == 10:
                os.kill(cluster.scheduler, signal.SIGKILL)
                killed.append(time.monotonic())

    with pytest.raises(RuntimeError, match=r"the Dask cluster of tcp.* is gone"):
        train()
    assert time.monotonic() - killed[0] < 10
    assert got == list(range(len(got)))
    with pytest.raises(RuntimeError, match=r"the Dask cluster of tcp.* is gone"):
        list(flow)
