"""How programs end while functions are under way, and how workers start, where little is there or much goes wrong."""

import contextlib
import dis
import functools
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from waiting import children, eventually

import flowfn as ff
from flowfn.datapoints import buffers
from flowfn.parallel import flight
from flowfn.parallel.workers import deaths
from flowfn.process import forks
from flowfn.testing import left_behind

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(100),
    pytest.mark.skipif(
        sys.platform != "linux", reason="looks for what is left in /proc, and closes what only POSIX has"
    ),
]

SETTINGS = {
    "one thread": "ff.prefetch(2)",
    "threads": "ff.prefetch(4, threads=2)",
    "one process": "ff.prefetch(4, processes=1)",
    "processes": "ff.prefetch(4, processes=2)",
    "inner": "ff.prefetch(2), ff.map(abs), ff.prefetch(2, threads=2)",
    "inner processes": "ff.prefetch(2), ff.map(abs), ff.prefetch(2, processes=2)",
}
settings = pytest.mark.parametrize("setting", SETTINGS)


# Programs that end while a function takes for ever

PROGRAM = """
    import multiprocessing, os, signal, sys, tempfile, threading, time
    import flowfn as ff

    begun = os.path.join(sys.argv[2], "begun")

    def stuck(x):
        if x > 0:
            open(begun, "w").close()
            time.sleep(90)
        return x

    def taken(held=[]):
        iterator = iter({flow})
        next(iterator)  # alone in its task, whatever else the machine does; the second need not be
        while not os.path.exists(begun):
            time.sleep(0.01)
        print("ends", flush=True)
        return iterator

    def main(how):
        global held
        if how == "break":
            for _ in [0]:
                taken()
                break
        if how == "global":
            held = taken()
        if how == "raise":
            iterator = taken()
            raise OSError("enough")
        if how == "exit":
            iterator = taken()
            sys.exit(3)
        if how == "exit at once":
            iterator = taken()
            os._exit(4)
        if how == "interrupt":
            iterator = taken()
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            list(iterator)
        if how == "daemon":
            iterator = taken()
            threading.Thread(target=list, args=(iterator,), daemon=True).start()
        if how == "child":
            child = multiprocessing.get_context("fork").Process(target=main, args=("break",))
            child.start()
            child.join()
            sys.exit(child.exitcode)

    if __name__ == "__main__":
        main(sys.argv[1])
    """

ENDS = {
    "break": 0,
    "global": 0,
    "raise": 1,
    "exit": 3,
    "exit at once": 4,
    "interrupt": -signal.SIGINT,
    "daemon": 0,
    "child": 0,
}

FLOWS = {
    **{
        name: f"ff.pipe(range(100), ff.map(stuck), {stages})"
        for name, stages in SETTINGS.items()
        if not name.startswith("inner")
    },
    "readers": "ff.pipe(range(100), ff.interleave(lambda x: map(stuck, [x]), cycle=2), ff.prefetch(2, threads=2))",
    "stream": "ff.pipe(range(100), ff.map(stuck), ff.filter(lambda x: True), ff.map(abs), ff.prefetch(2, threads=2))",
    "mixed": "ff.mix(*[ff.pipe(range(100), ff.map(stuck), ff.prefetch(2)) for _ in range(4)])",
    "cache": (
        "ff.pipe(range(100), ff.map(stuck), ff.cache_to(tempfile.mkdtemp(dir=sys.argv[2]) + '/held'), ff.prefetch(2))"
    ),
    "progress": "ff.pipe(range(100), ff.map(stuck), ff.progress(), ff.prefetch(2))",
}


def started(body, tmp_path, *arguments, **keywords):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}  # or a line read might take more along
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)], **pipes, start_new_session=True, **keywords
    )


def written(program, timeout):
    """What a program writes until it ends."""
    return [text.decode() for text in program.communicate(timeout=timeout)]


def ended(program):
    """(status, seconds, output, complaints) of a program from its first line on."""
    with program:
        try:
            first = program.stdout.readline().decode()
            began = time.monotonic()
            output, complaints = written(program, 40)
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
    assert first == "ends\n", complaints
    return program.returncode, time.monotonic() - began, output, complaints


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in ("one thread", "threads", "processes") for how in ENDS),
        *(
            (name, how)
            for name in FLOWS
            if name not in ("one thread", "threads", "processes")
            for how in ("global", "interrupt")
        ),
    ],
)
def test_a_program_ends_whatever_functions_are_under_way(name, how, tmp_path):
    status, seconds, _, complaints = ended(started(PROGRAM.replace("{flow}", FLOWS[name]), tmp_path, how, tmp_path))
    assert (status, seconds < 15) == (ENDS[how], True), complaints  # where it waited, it would be 90
    if "process" not in name and how not in ("exit at once", "child"):
        assert "is still at work in a thread, at stuck (" in complaints


@pytest.mark.parametrize("setting", ["one thread", "threads"])
def test_code_that_runs_in_a_thread_is_ended_with_the_program_and_cleans_up(setting, tmp_path):
    body = """
        import time, flowfn as ff

        def busy(x):
            try:
                while x:
                    time.sleep(0.001)
            finally:
                if x:
                    print("cleaned up\\n", end="", flush=True)
            return x

        iterator = iter(ff.pipe(range(100), ff.map(busy), {stages}))
        next(iterator)
        print("ends", flush=True)
        """
    status, seconds, output, complaints = ended(started(body.replace("{stages}", SETTINGS[setting]), tmp_path))
    assert (status, seconds < 15, complaints) == (0, True, "")
    assert set(output.splitlines()) == {"cleaned up"}


@settings
def test_a_pass_in_another_thread_does_not_hang_the_end(setting, tmp_path):
    body = """
        import threading, time, flowfn as ff

        def slow(x):
            time.sleep(0.001)
            return x

        def everything():
            try:
                got = list(iterator)
                print(got == list(range(1, 1500)))
            except RuntimeError as error:
                print("main thread of the program has ended" in str(error))

        iterator = iter(ff.pipe(range(1500), ff.map(slow), {stages}))
        next(iterator)
        threading.Thread(target=everything).start()
        print("ends", flush=True)
        """
    status, _, output, complaints = ended(started(body.replace("{stages}", SETTINGS[setting]), tmp_path))
    assert (status, output, complaints) == (0, "True\n", "")


# Interrupts


ASKING = ("CALL", "JUMP_BACKWARD", "RESUME", "BEFORE_WITH")
"""Instructions at which Python looks for signals; and the one behind which a `with` holds."""


@functools.cache
def ways_out(code):
    """Where a `with` is left, and Python does not look for signals until it has been: an interrupt cannot come there."""
    found = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    nones = [step.opname == "LOAD_CONST" and step.argval is None for step in found] + [False] * 3
    ways = set()
    for number, (step, following) in enumerate(itertools.pairwise(found)):
        if all(nones[number : number + 3]):
            leading = itertools.takewhile(lambda step: not step.opname.startswith(ASKING), reversed(found[:number]))
            ways |= {step.offset, *(step.offset for step in leading)}
        if step.opname == "PUSH_EXC_INFO" and following.opname == "WITH_EXCEPT_START":
            ways.add(step.offset)
    return ways


@pytest.fixture
def interrupted_at(monkeypatch):
    """Iterate a flow, and send an interrupt at a certain line of this library's; False if there are not so many."""
    root = os.path.dirname(ff.__file__)
    left, waits = 0, 1

    def step(frame, event, argument):
        nonlocal left
        ours = frame.f_code.co_filename.startswith(root)
        if ours and event == "line" and frame.f_lasti not in ways_out(frame.f_code):
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGINT)
        return step

    def at(line, make):
        nonlocal left
        left, iterator = line, None
        try:
            sys.settrace(step)
            iterator = iter(make())
            for _ in range(waits + 2):
                next(iterator)
            iterator.close()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        if iterator is not None:
            iterator.close()
        return left <= 0

    return at


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_interrupt_at_any_line_leaves_nothing(setting, interrupted_at):
    def make():
        return ff.pipe(range(8), ff.map(abs), *eval(f"[{SETTINGS[setting]}]"))

    ff.shut_down()
    others = threading.active_count()  # those of libraries that other tests have used
    for _ in range(2):
        assert list(make()) == list(range(8))
    before = left_behind()
    line, deadline = 1, time.monotonic() + 20  # some four seconds are enough
    while interrupted_at(line, make):
        assert not any(lock() and lock()._is_owned() for lock in forks._locks), line
        assert eventually(lambda: gc.collect() >= 0 and all(left_behind()[kind] <= before[kind] for kind in before)), (
            line,
            before,
            left_behind(),
        )
        assert not buffers._passes, line
        assert list(make()) == list(range(8)), line
        line += 37 if time.monotonic() < deadline else 10**6
    ff.shut_down()
    assert eventually(lambda: threading.active_count() <= others)


def test_an_interrupt_while_a_thread_starts_leaves_none(monkeypatch):
    start, before = threading.Thread.start, left_behind()["threads"]

    def interrupted(thread):
        monkeypatch.setattr(threading.Thread, "start", start)
        start(thread)
        raise KeyboardInterrupt

    for stages in (
        [ff.filter(bool), ff.prefetch(2)],
        [ff.prefetch(2, threads=2)],
        [ff.filter(bool), ff.map(abs), ff.prefetch(2, threads=2)],
    ):
        iterator = iter(ff.pipe(range(100), *stages))
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        del iterator
        assert eventually(lambda: gc.collect() >= 0 and left_behind()["threads"] <= before)


# Workers that take long to start, or do not start


def test_a_time_limit_counts_from_when_a_worker_is_ready(tmp_path):
    (tmp_path / "heavy.py").write_text(
        "import time\ntime.sleep(3)\ndef work(x):\n    time.sleep(x > 5 and 60)\n    return x\n"
    )
    body = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import heavy, flowfn as ff
        print("ends", flush=True)
        for stages in ([], [ff.filter(lambda x: True), ff.shuffle_buffer(1)]):
            ff.shut_down()
            flow = ff.pipe(range(6), ff.map(heavy.work), *stages, ff.prefetch(2, processes=2, timeout=1.5))
            print(list(flow) == list(range(6)))
        try:
            list(ff.pipe(range(9), ff.map(heavy.work), ff.prefetch(2, processes=2, timeout=1.5)))
        except TimeoutError as error:
            print(error)
        """
    status, _, output, complaints = ended(started(body, tmp_path, tmp_path))
    told = ["True", "True", "prefetch(): nothing came for timeout=1.5 seconds"]
    assert (status, output.splitlines()) == (0, told), complaints


def test_workers_that_are_not_ready_in_their_time_say_so(monkeypatch):
    ff.shut_down()
    monkeypatch.setattr(flight, "START", 0.5)
    with pytest.raises(TimeoutError, match=r"worker processes were not ready within 0.5 seconds"):
        list(ff.pipe(range(9), ff.map(abs), ff.prefetch(2, processes=1, timeout=0.1, setup=lambda: time.sleep(30))))
    ff.shut_down()


def killing(signals):
    """Kill the first workers that are started, before they begin."""
    killed = []

    def kill():
        while len(killed) < len(signals):
            for child in children():
                if child not in killed and len(killed) < len(signals):
                    killed.append(child)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signals[len(killed) - 1])
            time.sleep(0.002)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_workers_that_are_killed_while_they_start_are_started_again(by):
    list(ff.pipe(range(3), ff.map(abs), ff.prefetch(2, processes=1)))  # the trackers stay
    ff.shut_down()
    assert eventually(lambda: not children())
    thread = killing([by] * 5)
    assert list(ff.pipe(range(20), ff.map(abs), ff.prefetch(2, processes=1))) == list(range(20))
    thread.join(10)
    ff.shut_down()


def test_workers_that_are_always_killed_while_they_start_are_told(monkeypatch):
    monkeypatch.setattr(deaths, "KILLED", 2)
    list(ff.pipe(range(3), ff.map(abs), ff.prefetch(2, processes=1)))
    ff.shut_down()
    assert eventually(lambda: not children())
    killing([signal.SIGKILL] * 4)
    with pytest.raises(
        RuntimeError,
        match=(
            r"ended before they began to work \(SIGKILL\(-9\)\), 4 times in a row; something else ended them: "
            r".*memory"
        ),
    ):
        list(ff.pipe(range(20), ff.map(abs), ff.prefetch(2, processes=1)))
    assert list(ff.pipe(range(20), ff.map(abs), ff.prefetch(2, processes=1))) == list(range(20))
    ff.shut_down()


def ended_often(x, path, by, often):
    with open(path, "a") as file:
        file.write("x" * (x == 3))
    if x == 3 and os.path.getsize(path) <= often:
        os.kill(os.getpid(), by)
    return x


@pytest.mark.parametrize(
    ("by", "often", "right"), [(signal.SIGTERM, 5, True), (signal.SIGKILL, 5, True), (signal.SIGSEGV, 5, False)]
)
def test_what_comes_from_outside_is_tried_more_often(by, often, right, tmp_path):
    flow = ff.pipe(
        range(6), ff.map(lambda x: ended_often(x, str(tmp_path / "tries"), by, often)), ff.prefetch(1, processes=2)
    )
    if right:
        assert list(flow) == list(range(6))
    else:
        with pytest.raises(ff.WorkerDied, match=r"3 worker processes ended \(SIGSEGV\(-11\)\)"):
            list(flow)
    ff.shut_down()


def closed_and_ended(x, by):
    if x == 3:  # as the system does it: the pipes first
        os.closerange(3, 1000)
        time.sleep(0.4)
        os.kill(os.getpid(), by)
    return x


@pytest.mark.parametrize(
    ("by", "often"), [(signal.SIGKILL, "8 worker processes were killed"), (signal.SIGSEGV, "3 worker processes ended")]
)
def test_how_a_worker_ended_is_told_if_its_pipes_end_before_it_does(by, often, monkeypatch):
    monkeypatch.setattr(deaths, "LONGEST_WAIT", 0.1)
    with pytest.raises(ff.WorkerDied, match=rf"{often} \({by.name}\(-{by}\)\)"):
        list(ff.pipe(range(6), ff.map(lambda x: closed_and_ended(x, by)), ff.prefetch(1, processes=1)))
    ff.shut_down()


REAPING = """
    import os, signal, sys
    import flowfn as ff

    def reap(*_):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    def work(x, path):
        if x == 3 and not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    if __name__ == "__main__":
        signal.signal(signal.SIGCHLD, {handler})
        print(list(ff.pipe(range(20), ff.map(lambda x: work(x, sys.argv[1])), ff.prefetch(4, processes=2))) == list(range(20)))
    """


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "reap"])
def test_programs_that_wait_for_all_children_themselves_get_all_outputs(handler, tmp_path):
    # Then no exit status is left for whoever started the child (https://github.com/python/cpython/issues/94661, 3.9 to
    # 3.13)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(REAPING).replace("{handler}", handler))
    done = subprocess.run([sys.executable, script, tmp_path / "died"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_a_datapoint_that_is_killed_again_and_again_is_told_with_the_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(deaths, "KILLED", 3)
    flow = ff.pipe(
        range(6),
        ff.map(lambda x: ended_often(x, str(tmp_path / "tries"), signal.SIGKILL, 99)),
        ff.prefetch(1, processes=2),
    )
    with pytest.raises(
        ff.WorkerDied, match=r"3 worker processes were killed \(SIGKILL\(-9\)\) from outside.*GB of memory are free"
    ):
        list(flow)
    ff.shut_down()


# Poor surroundings

POOR = """
    import os, resource, signal, sys, tempfile
    report = os.dup(1)
    {before}
    import numpy as np
    import flowfn as ff

    def work(x):
        return np.full(100_000, x)

    if __name__ == "__main__":
        {within}
        for stages in {settings}:
            try:
                told = [int(array[0]) for array in ff.pipe(range(6), ff.map(work), *stages)] == list(range(6))
            except Exception as error:
                told = error
            os.write(report, f"{told}\\n".encode())
    """

SURROUNDINGS = {
    "stdin closed": ("os.close(0)", ""),
    "stdout closed": ("os.close(1)", ""),
    "stderr closed": ("os.close(2)", ""),
    "all streams closed": ("os.close(0); os.close(1); os.close(2)", ""),
    "stderr closed later": ("", "os.close(2)"),
    "no streams": ("sys.stdin = sys.stdout = sys.stderr = None", ""),
    "streams closed in Python": ("", "sys.stdout.close(); sys.stderr.close()"),
    "little memory": ("resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))", ""),
    "small files": (
        "os.environ['PYTHONDONTWRITEBYTECODE'] = '1'; sys.dont_write_bytecode = True",  # or half a module might stay
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))",
    ),
    "no home": ("os.environ.update(HOME='/nowhere', TMPDIR='/nowhere')", ""),
    "no directory": ("os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())", ""),
    "no directory later": ("", "os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())"),
}


def poor(before, within, tmp_path, **keywords):
    body = POOR.replace("{before}", before).replace("{within}", within or "pass")
    body = body.replace("{settings}", f"[{', '.join(f'[{stages}]' for stages in SETTINGS.values())}]")
    program = started(body, tmp_path, **keywords)
    try:
        told, complaints = written(program, 60)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
    return program.returncode, told.splitlines(), complaints


@pytest.mark.parametrize("what", SURROUNDINGS)
def test_in_poor_surroundings_what_comes_is_right(what, tmp_path):
    status, told, complaints = poor(*SURROUNDINGS[what], tmp_path)
    assert (status, told) == (0, ["True"] * len(SETTINGS)), complaints


@pytest.mark.parametrize(
    ("within", "says"),
    [
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))", "no descriptors are left .*ulimit -n"),
        ("import _multiprocessing; _multiprocessing.SemLock = lacking(28)", "semaphores cannot be made .*/dev/shm"),
        ("import _multiprocessing; _multiprocessing.SemLock = lacking(2)", "semaphores cannot be made .*/dev/shm"),
    ],
)
def test_what_a_worker_lacks_to_be_started_is_said_once(within, says, tmp_path):
    before = (
        "def lacking(number):\n"
        "        def fails(*_): raise OSError(number, 'lacking')\n"
        "        return type('SemLock', (), {'SEM_VALUE_MAX': 2**31 - 1, '__init__': fails})"
    )
    status, told, complaints = poor(before, within, tmp_path)
    right = ["True" for name in SETTINGS if "process" not in name]
    assert (status, [line for line in told if line == "True"]) == (0, right), complaints
    errors = [line for line in told if line != "True"]
    assert len(errors) == len(SETTINGS) - len(right)
    assert all(re.match(rf"prefetch\(\): a worker process cannot be started: {says}", line) for line in errors), errors
