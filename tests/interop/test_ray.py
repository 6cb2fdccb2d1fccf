"""The work of a prefetch on a Ray cluster of two nodes, whose workers and nodes are killed, and which goes away."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same
from pages import blocks, failures
from sources import noisy
from waiting import eventually

import flowfn as ff
from flowfn.interop.ray import executor

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore"),  # of Ray, for what it will do
]
PAGE = Path(__file__).parents[2] / "examples" / "many_machines.md"
STORE = 100 << 20


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, the second of which can be taken away."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.05")  # otherwise a report takes two seconds
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # whose thread writes to a log when the tests are over
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False},
        )
        cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def make(*stages):
    return ff.pipe(range(80), ff.shuffle(), ff.map(noisy, rng=True), *stages, ff.filter(bool), ff.batch(4))


def slow(x):
    time.sleep(0.01)
    return [x, os.getpid()]


def fatal(x):
    if x == 33:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.usefixtures("cluster")
class TestWithTwoNodes:
    def test_what_comes_out_is_the_same(self):
        flow = ff.pipe(make(), ff.prefetch(4, executor=executor()))
        assert_same(list(flow.run(epoch=1)), list(make().run(epoch=1)))
        with flow.run(epoch=1) as iterator:
            before = [next(iterator) for _ in range(5)]
            state = iterator.state_dict()
        assert_same([*before, *make().load_state_dict(state)], list(make().run(epoch=1)))

    def test_where_it_runs_is_explained(self, capsys):
        ff.explain(ff.pipe(range(8), ff.map(float), ff.prefetch(4, executor=executor())))
        assert "Ray, 2 at a time" in capsys.readouterr().out
        asked = [
            {"num_cpus": 0.5},
            {"num_gpus": 1},
            {"num_gpus": 0.5, "num_cpus": 0.1},
            {"num_cpus": 0},
            {"num_cpus": 2},
        ]
        assert [executor(**options).workers for options in asked] == [4, 1, 2, 2, 1]

    def test_large_arrays_are_read_only_in_ray_and_may_be_written_to_here(self):
        """Arrays look into the object store and are read-only (Ray 2.60,
        https://docs.ray.io/en/latest/ray-core/objects/serialization.html#numpy-arrays)."""
        theirs = ray.get(ray.remote(lambda: np.zeros(100_000)).remote())
        assert not theirs.flags.writeable
        flow = ff.pipe(range(6), ff.map(lambda x: np.full((300, 500), x, "f8")), ff.prefetch(2, executor=executor()))
        kept = []
        for number, array in enumerate(flow):
            assert (array == number).all()
            array += 1
            kept.append(array)
        assert [array[0, 0] for array in kept] == [1, 2, 3, 4, 5, 6]

    def test_a_flow_is_put_into_the_object_store_once(self, monkeypatch):
        big, puts, put = np.random.default_rng(0).bytes(3 << 20), [], ray.put
        monkeypatch.setattr(ray, "put", lambda value: puts.append(len(value)) or put(value))
        flow = ff.pipe(range(60), ff.map(lambda x: x + 0 * len(big)), ff.prefetch(4, executor=executor()))
        for _ in range(2):
            assert list(flow) == list(range(60))
        assert len([size for size in puts if size > len(big)]) <= 2

    def test_workers_killed_in_the_middle_lose_and_double_nothing(self):
        got = []
        for number, pid in ff.pipe(range(100), ff.map(slow), ff.prefetch(4, executor=executor())):
            got.append(number)
            if number == 30:
                os.kill(pid, signal.SIGKILL)
        assert got == list(range(100))

    def test_the_page_runs(self):
        pytest.importorskip("ray.data")
        assert failures(PAGE, "pycon ray") == 0

    @pytest.mark.timeout(180)  # Ray starts ten processes, and four anew
    @pytest.mark.resumes(
        "Ray Train: a loop of your own in 2 workers, with `shard`", "a length", "in an epoch", "other processes"
    )
    def test_a_trainer_of_ray_goes_on_where_a_worker_was_killed(self, tmp_path):
        """The page's; one of its workers is killed under way."""

        def noisy_and_once_fatal(x, rng):
            if x == 5 and (tmp_path / "epoch").exists() and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if x == 31:
                (tmp_path / "epoch").touch()
            return x + rng.random()

        data = ff.pipe(range(32), ff.map(noisy_and_once_fatal, rng=True))
        names = {"data": data, "path": str(tmp_path)}
        for block in blocks("python ray train", PAGE):
            exec(block, names)
        with names["done"].checkpoint.as_directory() as folder:
            weights = [json.loads(Path(folder, f"{rank}.json").read_text())["weights"] for rank in range(2)]
        assert (tmp_path / "killed").exists()
        expected = [0.0, 0.0]
        for rank in range(2):
            serial = ff.pipe(data, ff.shuffle(), ff.shard(rank, 2), ff.batch(4))
            for batch in [*serial.run(epoch=0), *serial.run(epoch=1)]:
                expected[rank] = expected[rank] / 2 + batch.sum()
        assert weights == expected

    def test_a_datapoint_that_kills_its_workers_is_named(self):
        """By itself Ray does a task again three times, and names none (Ray 2.60, `max_retries`, `WorkerCrashedError`)."""
        got = []
        with pytest.raises(ff.WorkerDied, match="3 worker processes ended") as caught:
            got.extend(ff.pipe(range(80), ff.map(fatal), ff.prefetch(4, executor=executor())))
        assert got == list(range(33))
        assert "in map(fatal), its datapoint 33," in str(caught.value.__notes__)
        assert "memory than a worker has; let fewer tasks share a machine: executor(num_cpus=" in str(caught.value)

    def test_a_node_killed_in_the_middle_loses_nothing(self, cluster):
        node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
        own, got, nodes = executor(), [], set()

        def on_node(x):
            time.sleep(0.02)
            return [x, ray.get_runtime_context().get_node_id(), np.zeros(30_000)]

        for number, where, _ in ff.pipe(range(120), ff.map(on_node), ff.prefetch(8, executor=own)):
            got.append(number)
            nodes.add(where)
            if node is not None and node.node_id in nodes:
                cluster.remove_node(node, allow_graceful=False)
                node = None
        assert got == list(range(120))
        assert node is None

    def test_what_is_cancelled_is_not_begun_and_what_was_begun_is_finished(self, tmp_path):
        """By itself `ray.cancel` raises KeyboardInterrupt in a task that runs (Ray 2.60,
        https://docs.ray.io/en/latest/ray-core/api/doc/ray.cancel.html)."""

        def touch(path):
            time.sleep(0.3)
            path.touch()

        def begun(path):
            path.with_suffix(".begun").touch()
            touch(path)

        theirs = ray.remote(max_retries=0)(begun).remote(tmp_path / "theirs")
        assert eventually((tmp_path / "theirs.begun").exists)
        ray.cancel(theirs)
        with pytest.raises(ray.exceptions.TaskCancelledError):
            ray.get(theirs)
        own = executor()
        calls = [own.submit(begun, tmp_path / str(number)) for number in range(8)]
        assert eventually(lambda: any(tmp_path.glob("[0-9].begun")))
        assert all(call.cancel() for call in calls)
        assert own.submit(abs, -1).result() == 1
        time.sleep(0.4)
        of = lambda pattern: {path.stem for path in tmp_path.glob(pattern)}
        assert of("[0-9]") == of("[0-9].begun")
        assert 1 <= len(of("[0-9]")) <= 4
        assert not (tmp_path / "theirs").exists()

    def test_errors_of_functions_are_their_own(self):
        with pytest.raises(LookupError) as caught:
            executor().submit({}.__getitem__, 1).result()
        assert type(caught.value) is KeyError
        with executor() as own:
            pass
        with pytest.raises(RuntimeError, match="after shutdown"):
            own.submit(abs, 1)

    @pytest.mark.parametrize("wrong", ["max_retries", "retry_exceptions", "num_returns"])
    def test_what_the_pass_decides_is_refused(self, wrong):
        with pytest.raises(ValueError, match=f"{wrong} must be left out"):
            executor(**{wrong: 1})

    def test_a_cluster_that_is_gone_is_said(self):
        """Ray tells nobody who waits, and would start another cluster with the next task (Ray 2.60, `auto_init_ray`)."""
        got, flow = [], ff.pipe(range(1000), ff.map(slow), ff.prefetch(4, executor=executor()))

        def train():
            for x, _ in flow:
                got.append(x)
                if x == 10:
                    ray.shutdown()

        with pytest.raises(RuntimeError, match="Ray was shut down"):
            train()
        assert got == list(range(len(got)))
        with pytest.raises(RuntimeError, match="Ray was shut down"):
            list(flow)
        assert not ray.is_initialized()
