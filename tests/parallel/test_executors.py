"""Anybody's executor does the work of a prefetch: only `submit` and futures are asked of it,
and it stays its owner's."""

import contextlib
import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import loky
import numpy as np
import pytest
from comparing import assert_same
from sources import Stream, noisy
from waiting import eventually, run_script

import flowfn as ff
from flowfn.kinds.runs import Run
from flowfn.parallel.tasks.plan import stretches
from flowfn.parallel.tasks.task import Feed
from flowfn.parallel.workers import answering
from flowfn.parallel.workers.answering import perform_here, stop_here
from flowfn.testing import same

pytestmark = pytest.mark.timeout(60)


# Executors


class AtOnce:
    """The least that an executor can be: `submit`, which runs the call before it returns."""

    def __init__(self):
        self.calls = 0

    def submit(self, function, /, *arguments, **keywords):
        self.calls += 1
        future = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except BaseException as error:
            future.set_exception(error)
        return future


class EachInAThread:
    """`submit` alone as well; every call has a thread of its own, in this process."""

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        future.set_running_or_notify_cancel()
        threading.Thread(target=self.run, args=(future, function, arguments, keywords)).start()
        return future

    def run(self, future, function, arguments, keywords):
        try:
            future.set_result(function(*arguments, **keywords))
        except BaseException as error:
            future.set_exception(error)


@contextlib.contextmanager
def spawned():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@contextlib.contextmanager
def dask():
    """Two worker processes of Dask, each watched by a nanny that starts it again when it has died."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Dask warns of ports in use, slow ticks and sockets closed late, none of them ours
        import dask
        from distributed import Client, LocalCluster

        sparing = {
            "distributed.scheduler.allowed-failures": 1,
            "distributed.comm.retry.count": 0,
            "distributed.admin.log-format": "",
        }
        with (
            dask.config.set(sparing),
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=100,
                memory_limit=0,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor(pure=False)


MAKERS = {
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor(3),
    "ProcessPoolExecutor": spawned,
    "loky": lambda: loky.ProcessPoolExecutor(2, timeout=60),
    "reusable loky": lambda: loky.get_reusable_executor(2, timeout=60),
    "at once": lambda: contextlib.nullcontext(AtOnce()),
    "each in a thread": lambda: contextlib.nullcontext(EachInAThread()),
    "Dask": dask,
}
DASKS_OWN = (
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)  # sockets of killed workers, closed late


@pytest.fixture(scope="module", params=MAKERS)
def executor(request):
    with MAKERS[request.param]() as made:
        yield made
        if request.param == "reusable loky":
            made.shutdown(wait=True, kill_workers=True)


def quietly(test):
    """Without the warnings of Dask's own sockets, which are closed when they are collected."""
    for warning in DASKS_OWN:
        test = pytest.mark.filterwarnings(warning)(test)
    return test


# What is iterated


def fragile(pair):
    if pair[0] % 7 == 3:
        raise OSError("fragile", pair[0])
    return pair


def shuffled():
    return ff.pipe(
        range(60), ff.shuffle(), ff.map(noisy, rng=True), ff.batch(4), ff.map(lambda batch: [*batch, batch[0].sum()])
    )


def streamed():
    return ff.pipe(Stream(range(60)), ff.map(noisy, rng=True), ff.shuffle_buffer(5), ff.map(lambda pair: [*pair, 1]))


def expanded():
    return ff.pipe(
        range(60),
        ff.filter(lambda x: x % 3),
        ff.map(noisy, rng=True),
        ff.flat_map(lambda pair: [pair] * (pair[1] % 3)),
        ff.batch(4, collate=ff.as_list),
        ff.map(noisy, rng=True),
    )


def guarded():
    return ff.pipe(
        range(60),
        ff.map(noisy, rng=True),
        ff.guard(ff.map(fragile), errors=OSError, then="drop", budget=0.5),
        ff.map(noisy, rng=True),
    )


everywhere = pytest.mark.parametrize("make", [shuffled, streamed, expanded, guarded], ids=lambda make: make.__name__)


def submits(executor):
    """Whether an executor is as usable as ever."""
    return executor.submit(divmod, 17, 5).result(20) == (3, 2)


# The output is that of the pipeline without it


@quietly
@everywhere
def test_every_executor_gives_the_serial_output_and_stays_open(executor, make):
    flow = ff.pipe(make(), ff.prefetch(3, executor=executor))
    for epoch in (0, 1):
        assert_same(list(flow.run(epoch=epoch)), list(make().run(epoch=epoch)))
    assert submits(executor)


@quietly
@everywhere
def test_states_resume_under_every_executor(executor, make):
    rest = list(make().run(epoch=1))
    for k in (1, 7):
        with ff.pipe(make(), ff.prefetch(3, executor=executor)).run(epoch=1) as iterator:
            assert_same(list(islice(iterator, k)), rest[:k])
            state = iterator.state_dict()
        assert_same(list(make().load_state_dict(state)), rest[k:])
        assert_same(list(ff.pipe(make(), ff.prefetch(5, executor=executor)).load_state_dict(state)), rest[k:])
    assert submits(executor)


@quietly
def test_what_a_guarded_stage_dropped_is_told(executor):
    with ff.pipe(guarded(), ff.prefetch(3, executor=executor)).run() as iterator, guarded().run() as serial:
        assert len(list(iterator)) == len(list(serial))
        assert [(d.index, str(d.error)) for d in iterator.dropped] == [(d.index, str(d.error)) for d in serial.dropped]


@quietly
def test_large_arrays_come_through_every_executor_and_may_be_written_to(executor):
    flow = ff.pipe(range(6), ff.map(lambda x: np.full((300, 500), x, np.float64)), ff.prefetch(2, executor=executor))
    for number, array in enumerate(flow):
        assert (array == number).all()
        array += 1


@quietly
def test_unordered_outputs_come_from_every_executor(executor):
    flow = ff.pipe(expanded(), ff.prefetch(3, executor=executor, ordered=False))
    assert sorted(map(str, flow.run())) == sorted(map(str, expanded().run()))


# Errors


def broken(x):
    if x == 41:
        raise LookupError("broken", x)
    return x


@quietly
@pytest.mark.parametrize("between", [None, ff.filter(lambda x: True)], ids=["seekable", "expand"])
def test_errors_keep_type_and_note_and_come_after_what_was_made(executor, between):
    flow = ff.pipe(range(100), between, ff.map(broken), ff.prefetch(3, executor=executor))
    before = []
    with pytest.raises(LookupError) as caught:
        before.extend(flow)
    assert before == list(range(41))
    assert caught.value.args == ("broken", 41)
    (note,) = caught.value.__notes__
    assert note.startswith("in map(broken), its datapoint 41 (input 41), seed 0, epoch 0\n")
    assert submits(executor)


@quietly
def test_an_abandoned_pass_leaves_the_executor_usable(executor):
    flow = ff.pipe(range(10_000), ff.map(float), ff.prefetch(5, executor=executor))
    for _ in range(5):
        with iter(flow) as iterator:
            next(iterator)
    iterator = iter(flow)
    next(iterator)
    del iterator
    gc.collect()
    assert submits(executor)
    assert list(flow.run(start=9_990)) == [float(x) for x in range(9_990, 10_000)]


# One's own


def test_nothing_but_submit_is_asked_of_an_executor():
    own = AtOnce()
    assert {name for name in dir(own) if not name.startswith("_")} == {"submit", "calls"}
    assert list(ff.pipe(range(50), ff.map(float), ff.prefetch(2, executor=own))) == [float(x) for x in range(50)]
    assert own.calls > 1


def test_two_passes_at_once_on_one_executor_do_not_disturb_each_other():
    own, interval = EachInAThread(), sys.getswitchinterval()

    def make():
        source = ff.mix(ff.pipe(range(300), ff.shuffle()), ff.pipe(range(200), ff.shuffle()), weights=[0.5, 0.5])
        return ff.pipe(source, ff.map(noisy, rng=True), ff.batch(2))

    def compare(seed):
        for _ in range(3):
            equal.append(
                same(list(ff.pipe(make(), ff.prefetch(3, executor=own)).run(seed=seed)), list(make().run(seed=seed)))
            )

    equal = []
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=compare, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert equal == [True] * 12


@pytest.mark.parametrize("own", [AtOnce(), EachInAThread()], ids=["at once", "each in a thread"])
def test_what_was_begun_in_this_process_and_is_not_wanted_is_ended(own, tmp_path):
    def opened(number):
        (tmp_path / f"{number} begun").touch()
        try:
            for _ in range(10_000):
                yield number
        finally:
            os.close(os.open(tmp_path / f"{number} ended", os.O_CREAT))

    with iter(ff.pipe(range(3), ff.flat_map(opened), ff.prefetch(2, executor=own))) as iterator:
        next(iterator)
    begun = lambda how: sorted(path.name.split()[0] for path in tmp_path.glob(f"* {how}"))
    assert eventually(lambda: begun("ended") == begun("begun")), (begun("begun"), begun("ended"))


def test_a_task_that_begins_when_nobody_wants_it_any_more_is_not_kept():
    flow, feed = (
        ff.pipe(range(1), ff.flat_map(lambda _: range(100))),
        Feed(0, (0,), block=range(1), pass_id="late", number=1, limit=10),
    )
    top = stretches(flow.node)[0].for_worker(Run(0, (0,)), True)[0]
    stop_here("late")
    assert perform_here(top, feed).outputs == list(range(10))
    assert not [key for key in answering._unfinished_tasks if key[0] == "late"]
    assert perform_here(top, replace(feed, pass_id="wanted")).outputs == list(range(10))
    assert [key for key in answering._unfinished_tasks if key[0] == "wanted"]
    stop_here("wanted")
    assert not [key for key in answering._unfinished_tasks if key[0] == "wanted"]


def test_a_pass_inside_a_pass_on_the_same_executor():
    own = AtOnce()

    def total(x):
        return sum(
            pair[1]
            for pair in ff.pipe(range(x, x + 5), ff.map(noisy, rng=True), ff.prefetch(2, executor=own)).run(seed=x)
        )

    flow = ff.pipe(range(12), ff.map(total), ff.map(noisy, rng=True))
    assert list(ff.pipe(flow, ff.prefetch(3, executor=own)).run()) == list(flow.run())


# Where functions come from


MAIN = """
    import multiprocessing, os
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
    import loky
    import flowfn as ff

    def double(x):
        return 2 * x

    class Pair:
        def __init__(self, x):
            self.x = x

    def closing(offset):
        return lambda x: Pair(double(x) + offset)
"""


@pytest.mark.parametrize(
    "made",
    [
        'ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))',
        'ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))',
        "loky.ProcessPoolExecutor(2)",
        "ThreadPoolExecutor(2)",
    ],
)
def test_lambdas_closures_and_functions_of_main_work(made, tmp_path):
    body = f"""{MAIN}
    if __name__ == "__main__":
        with {made} as executor:
            flow = ff.pipe(range(5), ff.map(closing(1)), ff.prefetch(2, executor=executor))
            print([pair.x for pair in flow])
    """
    done = run_script(body, tmp_path)
    assert (done.stdout, done.stderr) == ("[1, 3, 5, 7, 9]\n", "")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="an affinity is something of Linux")
@pytest.mark.parametrize("stage", ["filter(lambda x: x % 3)", "shuffle_buffer(3)", "map(double)"])
def test_an_executor_is_used_on_a_single_cpu(stage, tmp_path):
    body = f"""{MAIN}
    if __name__ == "__main__":
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
        with loky.ProcessPoolExecutor(2) as executor:
            flow = ff.pipe(range(30), ff.map(double), ff.{stage}, ff.map(double))
            print(list(ff.pipe(flow, ff.prefetch(2, executor=executor)).run()) == list(flow.run()))
    """
    done = run_script(body, tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")


# Executors that break


def fatal(x):
    if x == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("make", [spawned, lambda: loky.ProcessPoolExecutor(2)], ids=["ProcessPoolExecutor", "loky"])
@pytest.mark.parametrize("between", [None, ff.filter(lambda x: True)], ids=["seekable", "expand"])
def test_an_executor_whose_worker_is_killed_is_an_error_that_says_so(make, between):
    with make() as executor:
        flow = ff.pipe(range(100), between, ff.map(fatal), ff.prefetch(2, executor=executor))
        got = []
        with pytest.raises(BrokenExecutor) as caught:
            got.extend(iter(flow))
        assert got == list(range(len(got)))
        assert "terminated" in str(caught.value)
        assert_executors_own(caught.value)
        with pytest.raises(BrokenExecutor) as caught:  # it stays as it is; nobody here makes its owner another
            list(flow)
        assert_executors_own(caught.value)
    assert list(ff.pipe(range(30), ff.map(float), ff.prefetch(2, processes=1))) == [float(x) for x in range(30)]


def assert_executors_own(error):
    """The error of an executor says whose it is, and what can be done."""
    notes = "\n".join(getattr(error, "__notes__", ()))
    assert "in prefetch(2, executor=" in notes
    assert "processes=" in notes


def test_an_executor_that_was_shut_down_is_an_error_that_says_so():
    with ThreadPoolExecutor(2) as threads, AtOnceThenShut() as own:
        pass
    for executor in (threads, own):
        with pytest.raises(RuntimeError, match="after shutdown") as caught:
            list(ff.pipe(range(3), ff.map(abs), ff.prefetch(2, executor=executor)))
        assert_executors_own(caught.value)


class AtOnceThenShut(AtOnce):
    """It takes nothing after its block."""

    shut = False

    def submit(self, function, /, *arguments, **keywords):
        if self.shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return super().submit(function, *arguments, **keywords)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shut = True


def test_an_executor_shut_down_in_the_middle_of_a_pass_is_an_error():
    with ThreadPoolExecutor(2) as executor:
        iterator = iter(ff.pipe(range(10_000), ff.map(abs), ff.prefetch(2, executor=executor)))
        next(iterator)
        executor.shutdown(wait=True, cancel_futures=True)
        with pytest.raises((RuntimeError, CancelledError)):
            list(iterator)


@pytest.mark.parametrize("bad", [7, "threads", ThreadPoolExecutor, print], ids=str)
def test_what_is_no_executor_is_refused(bad):
    with pytest.raises(TypeError, match=r"prefetch\(\): executor must be a concurrent\.futures\.Executor"):
        ff.prefetch(2, executor=bad)


class SecondIsLost(AtOnce):
    """Its first call takes until the second has failed in the executor itself."""

    def submit(self, function, /, *arguments, **keywords):
        self.calls += 1
        future = Future()
        if self.calls == 1:
            self.first = future, lambda: function(*arguments, **keywords)
        elif self.calls == 2:
            future.set_exception(BrokenExecutor("lost"))
            held, call = self.first
            threading.Timer(0.3, lambda: held.set_result(call())).start()
        else:
            future.set_result(function(*arguments, **keywords))
        return future


def test_a_task_that_an_executor_lost_is_told_where_it_was_and_after_those_before_it():
    got = []
    with pytest.raises(BrokenExecutor, match="lost") as caught:
        got.extend(iter(ff.pipe(range(40), ff.map(abs), ff.prefetch(8, executor=SecondIsLost()))))
    assert got == [0]
    assert len(caught.value.__notes__) == 2
    assert "its executor ended, or could not do a task" in caught.value.__notes__[0]
    assert re.search(r"in map\(abs\), its datapoint 1\b", caught.value.__notes__[1])


# Dask


@pytest.fixture(scope="module")
def on_dask():
    with dask() as executor:
        yield executor


@quietly
def test_a_dask_worker_that_is_killed_in_the_middle_loses_nothing(on_dask, tmp_path):
    marker = tmp_path / "marker"
    marker.touch()

    def once_fatal(pair):
        if pair[0] == 33:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(marker)
                os.kill(os.getpid(), signal.SIGKILL)
        return pair

    def make(*stages):
        return ff.pipe(range(80), ff.shuffle(), ff.map(noisy, rng=True), *stages, ff.filter(bool), ff.batch(4))

    got = list(ff.pipe(make(ff.map(once_fatal)), ff.prefetch(4, executor=on_dask)).run(epoch=1))
    assert not marker.exists()
    assert_same(got, list(make().run(epoch=1)))
    assert submits(on_dask)


@quietly
def test_a_dask_worker_killed_from_outside_loses_nothing(on_dask):
    """Where it had a result that was not fetched yet, Dask's executor may end the pass with an error of its own
    (distributed 2026.8, `cfexecutor.py`: that of a future that is "lost" is taken for one that failed); then its state
    goes on."""

    def slow(x):
        time.sleep(0.01)
        return [x, os.getpid()]

    got, flow = [], ff.pipe(range(150), ff.map(slow), ff.prefetch(4, executor=on_dask))
    iterator = iter(flow)
    with contextlib.suppress(ValueError):
        for number, pid in iterator:
            got.append(number)
            if number == 40:
                assert pid != os.getpid()
                os.kill(pid, signal.SIGKILL)
    got += [number for number, _ in flow.load_state_dict(iterator.state_dict())] if len(got) < 150 else []
    assert got == list(range(150))


@quietly
def test_a_datapoint_that_kills_every_dask_worker_is_named(on_dask):
    from distributed import KilledWorker

    def fatal(x):
        if x == 33:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    got = []
    with pytest.raises(KilledWorker) as caught:
        got.extend(iter(ff.pipe(range(80), ff.map(fatal), ff.prefetch(4, executor=on_dask))))
    assert got == list(range(len(got)))
    assert len(got) <= 33
    assert "its executor ended, or could not do a task" in caught.value.__notes__[0]
    first, last = re.search(r"in map\(fatal\), its datapoints? (\d+)(?: to (\d+))?", caught.value.__notes__[1]).group(
        1, 2
    )
    assert int(first) <= 33 <= int(last or first)
    assert submits(on_dask)
