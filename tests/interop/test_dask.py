"""The work of a prefetch on a Dask cluster, whose workers are killed, and which goes away."""

import os
import signal
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

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore"),  # sockets of killed workers, closed late
]
PAGE = Path(__file__).parents[2] / "examples" / "many_machines.md"


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes, which nannies start again when they have died.

    A nanny is closed for good whose worker is being started at the moment when 15 seconds are over since it died before
    (distributed 2026.8, `SpecCluster._update_worker_status`).
    """
    import dask

    sparing = {
        "distributed.deploy.lost-worker-timeout": "1 hour",
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.retry.count": 0,
        "distributed.admin.log-format": "",
    }
    with (
        dask.config.set(sparing),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=100,
            memory_limit=0,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with distributed.Client(cluster) as client:
        yield client


def make(*stages):
    return ff.pipe(range(80), ff.shuffle(), ff.map(noisy, rng=True), *stages, ff.filter(bool), ff.batch(4))


def slow(x):
    time.sleep(0.01)
    return [x, os.getpid()]


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
    got = []
    for number, pid in ff.pipe(range(100), ff.map(slow), ff.prefetch(4, executor=executor(client))):
        got.append(number)
        if number == 30:
            os.kill(pid, signal.SIGKILL)
    assert got == list(range(100))


def test_the_page_runs(cluster):
    assert failures(PAGE, "pycon dask", address=cluster.scheduler_address) == 0


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


def test_a_cluster_that_is_gone_is_said(cluster, client):
    own, got = executor(client), []
    flow = ff.pipe(range(1000), ff.map(slow), ff.prefetch(4, executor=own))

    def train():
        for x, _ in flow:
            got.append(x)
            if x == 10:
                cluster.close()

    with pytest.raises(RuntimeError, match=r"the Dask cluster of tcp.* is gone"):
        train()
    assert got == list(range(len(got)))
    with pytest.raises(RuntimeError, match=r"the Dask cluster of tcp.* is gone"):
        list(flow)
