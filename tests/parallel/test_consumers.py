"""The processes that iterate: however one comes to an end, its workers do; and many at once keep out of each other's way."""

import contextlib
import json
import multiprocessing.resource_tracker
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
from comparing import assert_same
from processes_and_pictures import (  # noqa: F401  # fixtures
    counts,
    filtered,
    holdings,
    kill,
    lives,
    names_of,
    nothing_left_behind,
    seekable,
    settled,
    shared_memory,
    shuffled,
    shut_down,
    still_works,
    streamed,
)
from waiting import children, command, command_of, eventually, run_script

import flowfn as ff

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc"),
]


# What is looked at


def family_of(pid):
    """The worker processes of a process, and theirs."""
    return [member for child in children(pid) for member in (child, *family_of(child))]


def shared_memory_of_all():
    return set().union(*(shared_memory(pid) for pid in os.listdir("/proc") if pid.isdigit()))


# The process that iterates comes to an end


CONSUMER = """
    import os, sys, threading, time
    import numpy as np
    import flowfn as ff

    def picture(number):
        time.sleep(0.001)
        return np.full((200, 200), number)

    def everything(iterator):
        for _ in iterator:
            pass

    if __name__ == "__main__":
        how, processes = sys.argv[1], int(sys.argv[2])
        iterator = iter(ff.pipe(range(10**7), ff.map(picture), ff.batch(4), ff.prefetch(4, processes=processes)))
        held = [next(iterator) for _ in range(20)]
        print("there", flush=True)
        sys.stdin.readline()
        if how == "drop":
            del iterator
        if how == "raise":
            for batch in iterator:
                raise OSError("enough")
        if how == "exit":
            for batch in iterator:
                sys.exit(3)
        if how == "exit at once":
            os._exit(4)
        if how == "exit under a thread":
            threading.Thread(target=everything, args=(iterator,), daemon=True).start()
            sys.exit(5)
        if how == "signal":
            everything(iterator)
    """


def assert_all_gone(pids, memory, temporary):
    assert eventually(lambda: not any(map(lives, pids))), [command_of(pid) for pid in pids if lives(pid)]
    assert eventually(lambda: not memory & shared_memory_of_all())
    assert eventually(lambda: not names_of(*pids)), names_of(*pids)
    assert [files for _, _, files in os.walk(temporary) if files] == []


@pytest.mark.parametrize(
    ("how", "n", "status"),
    [
        ("break", 2, 0),
        ("drop", 2, 0),
        ("raise", 2, 1),
        ("exit", 2, 3),
        ("exit at once", 2, 4),
        ("exit under a thread", 2, 5),
        ("break", 4, 0),
        (signal.SIGINT, 2, -signal.SIGINT),
        (signal.SIGTERM, 2, -signal.SIGTERM),
        (signal.SIGKILL, 2, -signal.SIGKILL),
        (signal.SIGKILL, 4, -signal.SIGKILL),
    ],
)
def test_workers_and_shared_memory_end_with_the_consumer(how, n, status, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    by_signal = isinstance(how, signal.Signals)
    arguments = command(CONSUMER, tmp_path, "signal" if by_signal else how, n)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, **pipes, text=True, env={**os.environ, "TMPDIR": str(temporary)}) as consumer:
        try:
            assert consumer.stdout.readline() == "there\n"
            pids = [consumer.pid, *family_of(consumer.pid)]
            memory = set().union(*map(shared_memory, pids))
            assert len(pids) == 1 + n
            consumer.stdin.write("on\n")
            consumer.stdin.flush()
            if by_signal:
                assert eventually(lambda: Path(f"/proc/{consumer.pid}/wchan").exists() and waits_for_work(consumer.pid))
                consumer.send_signal(how)
            assert consumer.wait(20) == status
            complaints = consumer.stderr.read()
        finally:
            consumer.kill()
    assert_all_gone(pids, memory, temporary)
    assert complaints == "" or how in ("raise", "exit under a thread", signal.SIGINT), complaints


def waits_for_work(pid):
    """Whether the main thread of a process no longer waits for its standard input."""
    with contextlib.suppress(OSError):
        return "pipe_read" not in Path(f"/proc/{pid}/wchan").read_text()
    return True


def test_an_interrupted_pass_leaves_workers_and_state_usable(tmp_path):
    body = """
        import signal, threading, time
        import flowfn as ff

        def slow(number):
            time.sleep(0.002)
            return number

        if __name__ == "__main__":
            flow = ff.pipe(range(1500), ff.map(slow), ff.prefetch(4, processes=2))
            got, interrupts = [], 0
            while len(got) < 1500:
                threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,)).start() if interrupts < 3 else None
                iterator = iter(flow)
                try:
                    for number in iterator:
                        got.append(number)
                except KeyboardInterrupt:
                    interrupts += 1
                    del got[iterator.position :]  # one that had been delivered, but not noted
                    flow.load_state_dict(iterator.state_dict())
            print(got == list(range(1500)), interrupts)
        """
    done = run_script(body, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("True 3\n", "", 0)


# Many consumers


@counts
def test_two_passes_at_once_do_not_disturb_each_other(n):
    one = ff.pipe(shuffled(size=80), ff.prefetch(3, processes=n)).run(epoch=0)
    two = ff.pipe(streamed(size=80), ff.prefetch(2, processes=n)).run(epoch=1)
    pairs = list(zip(one, two))
    assert_same([a for a, _ in pairs], list(shuffled(size=80).run(epoch=0))[: len(pairs)])
    assert_same([b for _, b in pairs], list(streamed(size=80).run(epoch=1))[: len(pairs)])
    assert len(pairs) == 20


@pytest.mark.parametrize("killed", [False, True])
def test_many_threads_share_the_workers(killed):
    makes = [shuffled, streamed, seekable, filtered]
    results = [[] for _ in range(8)]

    def consume(k):
        for output in ff.pipe(makes[k % 4](), ff.prefetch(2, processes=1 + k % 3)).run(epoch=k):
            results[k].append(output)
            if killed and k == 0 and len(results[k]) in (3, 25):
                kill(*children(os.getpid())[:2])

    threads = [threading.Thread(target=consume, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, result in enumerate(results):
        assert_same(result, list(makes[k % 4]().run(epoch=k)))


def test_threads_that_take_turns_at_one_iterator_get_every_output_once():
    iterator, turn, got = iter(ff.pipe(shuffled(), ff.prefetch(3, processes=2))), threading.Lock(), []

    def consume():
        while True:
            with turn:
                output = next(iterator, None)
                if output is None:
                    return
                got.append(output)

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(got, list(shuffled()))


def test_a_pass_may_end_in_another_thread_than_it_began():
    iterator = iter(ff.pipe(shuffled(), ff.prefetch(3, processes=2)))
    next(iterator)
    thread = threading.Thread(target=iterator.close)
    thread.start()
    thread.join()
    assert still_works(2)


def test_shut_down_in_one_thread_does_not_end_the_pass_of_another():
    over = threading.Event()

    def shutting_down():
        for _ in range(3):
            if not over.wait(1):
                ff.shut_down()

    thread = threading.Thread(target=shutting_down)
    thread.start()
    try:
        got = list(ff.pipe(shuffled(size=800), ff.prefetch(3, processes=2)))
    finally:
        over.set()
        thread.join()
    assert_same(got, list(shuffled(size=800)))


# Children of the process that iterates


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@counts
def test_forked_children_have_workers_of_their_own(n, tmp_path):
    flow = ff.pipe(shuffled(size=60), ff.prefetch(3, processes=n))
    expected, again = list(shuffled(size=60).run(epoch=0)), list(shuffled(size=60).run(epoch=1))
    iterator = flow.run(epoch=0)
    got, families = list(islice(iterator, 3)), []
    for child in range(2):
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            status = 1
            with contextlib.suppress(BaseException):
                assert_same(got, expected[: len(got)])
                assert_same(list(flow.run(epoch=1)), again)
                (tmp_path / str(child)).write_text(json.dumps(children(os.getpid())))
                status = 0
            os._exit(status)
        got.append(next(iterator))
        ended = []
        assert eventually(lambda: ended.append(os.waitpid(pid, os.WNOHANG)) or ended[-1][0] == pid, 25)
        assert ended[-1][1] == 0
        families += json.loads((tmp_path / str(child)).read_text())
    assert_same([*got, *iterator], expected)
    assert len(families) == 2 * n
    assert eventually(lambda: not any(map(lives, families)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_any_moment_of_a_pass_does_not_disturb_it():
    flow = ff.pipe(shuffled(size=400), ff.prefetch(3, processes=2))
    got, children = [], []
    for output in flow.run(epoch=0):
        got.append(output)
        if len(got) % 4 == 0:
            pid = os.fork()
            if not pid:
                signal.alarm(20)
                status = 1
                with contextlib.suppress(BaseException):
                    del output
                    got.clear()
                    assert list(ff.pipe(range(9), ff.map(float), ff.prefetch(2, threads=2))) == list(range(9))
                    status = 0
                os._exit(status)
            children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 25
    assert_same(got, list(shuffled(size=400).run(epoch=0)))


def iterate_in_child(n):
    assert_same(list(ff.pipe(shuffled(size=40), ff.prefetch(3, processes=n))), list(shuffled(size=40)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_children_of_multiprocessing_iterate(how, daemon):
    assert still_works(2)
    child = multiprocessing.get_context(how).Process(target=iterate_in_child, args=(2,), daemon=daemon)
    child.start()
    child.join(25)
    assert child.exitcode == 0
    child.close()
    assert still_works(2)


# Small limits, flows in flows, test runners


@counts
def test_a_limit_of_64_descriptors_is_enough(n, tmp_path):
    body = """
        import resource, sys
        import numpy as np
        import flowfn as ff

        if __name__ == "__main__":
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            flow = ff.pipe(range(800), ff.map(lambda x: np.full((160, 160), x)), ff.batch(4), ff.prefetch(8, processes=int(sys.argv[1])))
            held = list(flow)
            print(len(held), all((batch == np.arange(4 * k, 4 * k + 4)[:, None, None]).all() for k, batch in enumerate(held)))
            ff.shut_down()
        """
    done = run_script(body, tmp_path, n)
    assert (done.stdout, done.returncode) == ("200 True\n", 0), done.stderr


def inner_flow(number):
    return ff.pipe(range(number % 4), ff.map(float), ff.prefetch(2, processes=2))


def inner_pass(number):
    outputs = list(
        ff.pipe(range(number, number + 5), ff.map(lambda x: [2 * x, os.getpid()]), ff.prefetch(2, processes=2))
    )
    return [x for x, _ in outputs], [os.getpid(), *(pid for _, pid in outputs)]


@counts
def test_flows_with_workers_inside_flows_with_workers(n):
    nested = ff.pipe(range(30), ff.flat_map(inner_flow), ff.prefetch(2, processes=n))
    assert list(nested) == [float(x) for number in range(30) for x in range(number % 4)]


def test_passes_with_workers_of_their_own_inside_workers():
    outputs = list(ff.pipe(range(12), ff.map(inner_pass), ff.prefetch(2, processes=2)))
    assert [numbers for numbers, _ in outputs] == [list(range(2 * x, 2 * x + 10, 2)) for x in range(12)]
    pids = {pid for _, pids in outputs for pid in pids}
    ff.shut_down()
    assert eventually(lambda: not any(map(lives, pids)))


def test_a_worker_killed_with_workers_of_its_own_loses_and_leaves_nothing():
    outputs, family = [], set()
    for output in ff.pipe(range(30), ff.map(inner_pass), ff.prefetch(2, processes=2)):
        outputs.append(output)
        if len(outputs) == 5:
            family.update(family_of(os.getpid()))
            kill(children(os.getpid())[0])
    assert [numbers for numbers, _ in outputs] == [list(range(2 * x, 2 * x + 10, 2)) for x in range(30)]
    ff.shut_down()
    assert eventually(lambda: not any(map(lives, family | {pid for _, pids in outputs for pid in pids})))


def test_flows_are_iterated_under_a_parallel_test_runner(tmp_path):
    (tmp_path / "test_generated.py").write_text(
        textwrap.dedent("""
        import numpy as np
        import pytest
        import flowfn as ff

        @pytest.mark.parametrize("n", [1, 2, 3])
        @pytest.mark.parametrize("epoch", [0, 1])
        def test_workers(n, epoch):
            flow = ff.pipe(range(40), ff.shuffle(), ff.map(lambda x: np.full((160, 160), x)), ff.batch(4))
            got = list(ff.pipe(flow, ff.prefetch(2, processes=n)).run(epoch=epoch))
            assert np.array_equal(np.stack(got), np.stack(list(flow.run(epoch=epoch))))
        """)
    )
    arguments = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        str(tmp_path),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=55, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_workers_that_idled_until_they_ended_are_started_again(monkeypatch, caplog):
    monkeypatch.setattr("flowfn.parallel.workers.processes.IDLE", 1.0)
    flow = ff.pipe(range(40), ff.map(float), ff.prefetch(3, processes=2))
    for _ in range(3):
        assert list(flow) == [float(x) for x in range(40)]
        assert eventually(lambda: not children(os.getpid()))
    for rest in (0.85, 0.95, 1.0, 1.05):
        assert list(flow) == [float(x) for x in range(40)]
        time.sleep(rest)  # until they are about to end
    assert not caplog.records  # loky logs what its threads cannot do any more


def test_nobody_else_closes_the_ends_of_pipes_that_this_process_lets_go_of(monkeypatch):
    """A descriptor that two threads close at once may be somebody else's by then."""
    from loky.process_executor import _ExecutorManagerThread

    closed, start = [], _ExecutorManagerThread.start

    def noted(thread):
        closed.append((thread.result_queue._writer.closed, thread.call_queue._reader.closed))
        start(thread)

    monkeypatch.setattr(_ExecutorManagerThread, "start", noted)
    ff.shut_down()
    assert list(ff.pipe(range(10), ff.map(abs), ff.prefetch(4, processes=2))) == list(range(10))
    assert closed
    assert set(closed) == {(True, True)}
