"""Whatever ends a worker, a datapoint or the process that iterates: nothing is lost, repeated,
changed or left behind."""

import contextlib
import ctypes
import gc
import json
import multiprocessing.resource_tracker
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from itertools import islice
from pathlib import Path

import loky.backend.resource_tracker
import numpy as np
import pytest
from comparing import assert_same
from waiting import children, command, command_of, eventually, run_script

import flowfn as ff
from flowfn.parallel.workers.processes import since_ready
from flowfn.testing import left_behind

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc"),
]

counts = pytest.mark.parametrize("n", [1, 2, 4])
one_or_more = pytest.mark.parametrize("n", [1, 2])


# What is looked at


def told(error):
    """All that an error says."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def family_of(pid):
    """The worker processes of a process, and theirs."""
    return [member for child in children(pid) for member in (child, *family_of(child))]


def lives(pid):
    """Whether there is such a process, and not only its exit status for its parent to fetch."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def kill(*pids, by=signal.SIGKILL):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, by)


def shared_memory(pid):
    """The inodes of the nameless shared memory that a process has mapped or open."""
    found = set()
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        found.update(int(line.split()[4]) for line in lines if "/memfd:" in line)
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("/memfd:"):
                    found.add(os.stat(f"/proc/{pid}/fd/{descriptor}").st_ino)
    return found


def shared_memory_of_all():
    return set().union(*(shared_memory(pid) for pid in os.listdir("/proc") if pid.isdigit()))


def names_of(*pids):
    """The named shared memory and semaphores that these processes made."""
    return [name for name in os.listdir("/dev/shm") if any(re.search(rf"\b{pid}\b", name) for pid in pids)]


def holdings():
    """How much of everything this process holds."""
    maps = Path("/proc/self/maps").read_text()
    return left_behind() | {
        "processes": len(children(os.getpid())),
        "shared": len(shared_memory(os.getpid())) + maps.count("/dev/shm/"),
        "names": len(names_of(os.getpid())),
        "files": sum(len(files) for _, _, files in os.walk(tempfile.gettempdir())),
    }


@pytest.fixture(scope="module", autouse=True)
def settled(tmp_path_factory):
    """What is opened once for the life of a process is open, and temporary files are made where they are seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        patch.setattr(tempfile, "tempdir", None)
        for tracker in (multiprocessing.resource_tracker, loky.backend.resource_tracker):
            tracker.ensure_running()
        list(ff.pipe(range(3), ff.map(abs), ff.prefetch(1, processes=1)))
        yield


def shut_down():
    """It ends too, even if a test has not."""
    thread = threading.Thread(target=ff.shut_down, daemon=True)
    thread.start()
    thread.join(15)
    assert not thread.is_alive()
    gc.collect()


@pytest.fixture(autouse=True)
def nothing_left_behind(settled):
    """After every test, and `shut_down`, there is no more of anything than there was."""
    shut_down()
    before = holdings()
    yield
    shut_down()
    assert eventually(lambda: all(count <= before[kind] for kind, count in holdings().items())), (before, holdings())


# What is iterated


def picture(number, rng):
    """A datapoint that takes a while; four of them make a batch that goes through shared memory."""
    time.sleep(0.001)
    return {"number": number, "picture": rng.integers(256, size=(160, 160), dtype=np.uint8)}


def turned(batch):
    return {"number": batch["number"], "picture": batch["picture"].swapaxes(1, 2)}


def seekable(function=picture, size=160):
    return ff.pipe(range(1000, 1000 + size), ff.map(function, rng=True), ff.batch(4))


def shuffled(function=picture, size=160):
    return ff.pipe(range(1000, 1000 + size), ff.shuffle(), ff.map(function, rng=True), ff.batch(4), ff.map(turned))


def streamed(function=picture, size=160):
    """Stages of every kind, on both sides of one that sees the whole stream."""
    return ff.pipe(
        range(1000, 1000 + size),
        ff.filter(bool),
        ff.map(function, rng=True),
        ff.shuffle_buffer(6),
        ff.batch(4),
        ff.flat_map(lambda batch: [batch, turned(batch)][: 1 + int(batch["number"].sum()) % 2]),
    )


def filtered(function=picture, size=160):
    return ff.pipe(range(1000, 1000 + size), ff.filter(bool), ff.map(function, rng=True), ff.batch(4))


def given(function=picture, size=160):
    return ff.pipe((number for number in range(1000, 1000 + size)), ff.map(function, rng=True), ff.batch(4))


def still_works(n):
    """Whether the workers are usable."""
    return list(ff.pipe(range(20), ff.map(float), ff.prefetch(2, processes=n))) == [float(x) for x in range(20)]


# Workers that are killed


@counts
@pytest.mark.parametrize(("make", "victims"), [(shuffled, None), (streamed, 1)])
def test_killed_workers_lose_nothing(n, make, victims):
    got = []
    for output in ff.pipe(make(), ff.prefetch(3, processes=n)):
        got.append(output)
        if len(got) in (1, 15):
            kill(*children(os.getpid())[:victims])
    assert_same(got, list(make()))


@counts
def test_workers_killed_at_random_moments_of_a_long_pass_lose_nothing(n):
    rng = random.Random(n)
    moments = {start + rng.randrange(12) for start in range(0, 100, 33)}  # far enough apart to meet no task three times
    got = []
    for output in ff.pipe(shuffled(size=400), ff.prefetch(3, processes=n)):
        got.append(output)
        if len(got) in moments:
            kill(rng.choice(children(os.getpid())))
    assert_same(got, list(shuffled(size=400)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_workers_killed_by_the_clock_lose_nothing(seed):
    rng, over = random.Random(seed), threading.Event()

    def killer():
        for _ in range(2):  # a third death would be the datapoint's fault
            if over.wait(rng.uniform(0.05, 0.8)):
                return
            kill(*children(os.getpid())[:1])

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        got = list(ff.pipe(streamed(size=400), ff.prefetch(3, processes=2)))
    finally:
        over.set()
        thread.join()
    assert_same(got, list(streamed(size=400)))


@counts
def test_workers_killed_between_passes_are_replaced(n):
    flow = ff.pipe(shuffled(size=40), ff.prefetch(3, processes=n))
    for _ in range(2):
        assert_same(list(flow.run(epoch=1)), list(shuffled(size=40).run(epoch=1)))
        kill(*children(os.getpid()))


def test_a_worker_killed_while_it_starts_is_replaced():
    over = threading.Event()

    def killer():
        killed = set()
        while len(killed) < 2 and not over.is_set():
            for pid in children(os.getpid())[:1]:
                kill(pid)
                killed.add(pid)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        got = list(ff.pipe(shuffled(), ff.prefetch(3, processes=2)))
    finally:
        over.set()
        thread.join()
    assert_same(got, list(shuffled()))


def test_workers_killed_in_an_unordered_pass_lose_and_repeat_nothing():
    numbers = []
    for batch in ff.pipe(shuffled(), ff.prefetch(3, processes=2, ordered=False)):
        numbers.extend(batch["number"].tolist())
        if len(numbers) in (8, 80):
            kill(children(os.getpid())[0])
    assert sorted(numbers) == list(range(1000, 1160))


def test_workers_killed_under_a_bound_of_bytes_lose_nothing():
    got = []
    for output in ff.pipe(shuffled(), ff.prefetch(8, processes=2, max_bytes=300_000)):
        got.append(output)
        if len(got) in (2, 20):
            kill(*children(os.getpid()))
    assert_same(got, list(shuffled()))


def test_batches_stay_as_they_were_when_their_workers_are_gone():
    flow = ff.pipe(shuffled(), ff.prefetch(3, processes=2))
    held = list(islice(flow, 12))
    kill(*children(os.getpid()))
    ff.shut_down()
    assert still_works(2)
    list(flow)
    assert_same(held, list(shuffled())[:12])
    for batch in held:
        batch["picture"][:] = 7  # theirs to write to
    assert all((batch["picture"] == 7).all() for batch in held)


@one_or_more
def test_a_worker_killed_while_it_sends_loses_nothing(n, tmp_path):
    marker = tmp_path / "marker"
    marker.touch()

    def end_while_sending(thread):
        for _ in range(20_000):
            frame = sys._current_frames().get(thread)
            if frame is not None and frame.f_code.co_name.startswith("_send"):
                break
            time.sleep(0.0001)
        os.kill(os.getpid(), signal.SIGKILL)

    def text(number):
        if number == 11:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(marker)
                threading.Thread(target=end_while_sending, args=(threading.get_ident(),), daemon=True).start()
        return str(number) * (60_000_000 if number == 11 else 10)

    lengths = [len(output) for output in ff.pipe(range(10, 30), ff.map(text), ff.prefetch(3, processes=n))]
    assert lengths == [20, 120_000_000, *[20] * 18]
    assert not marker.exists()


@one_or_more
def test_a_worker_killed_while_large_inputs_are_on_their_way_loses_nothing(n):
    def large():
        for number in range(12):
            yield bytes([number]) * 5_000_000

    got = []
    for output in ff.pipe(large, ff.map(lambda data: data[:3] + data[-3:]), ff.prefetch(3, processes=n)):
        got.append(output)
        if len(got) in (1, 6):
            kill(*children(os.getpid()))
    assert got == [bytes([number]) * 6 for number in range(12)]


# User code that ends its worker


def crash():
    ctypes.string_at(0)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def terminate_self():
    os.kill(os.getpid(), signal.SIGTERM)


ends = {
    "exit": lambda: os._exit(0),
    "abort": os.abort,
    "kill": kill_self,
    "terminate": terminate_self,
    "segfault": crash,
}


def ending(marker, end, at, *, once):
    """`picture`, that ends its process at one input as long as a file is there."""
    marker.touch()

    def fatal(number, rng):
        if number == at and os.path.exists(marker):
            if once:
                os.unlink(marker)
            end()
        return picture(number, rng)

    return fatal


@pytest.mark.parametrize(("end", "n"), [*((end, 2) for end in ends), ("exit", 1), ("kill", 4)])
def test_user_code_that_ends_its_worker_once_is_run_again(n, end, tmp_path):
    fatal = ending(tmp_path / "marker", ends[end], 1037, once=True)
    got = list(ff.pipe(streamed(fatal), ff.prefetch(3, processes=n)))
    assert not (tmp_path / "marker").exists()
    assert_same(got, list(streamed(fatal)))


@pytest.mark.parametrize(
    ("make", "end", "n"), [(seekable, "exit", 1), (filtered, "abort", 2), (given, "exit", 2), (seekable, "abort", 4)]
)
def test_a_datapoint_that_always_ends_its_worker_is_named_after_what_was_made_before_it(n, make, end, tmp_path):
    marker = tmp_path / "marker"
    fatal = ending(marker, ends[end], 1037, once=False)
    iterator, before = iter(ff.pipe(make(fatal), ff.prefetch(3, processes=n))), []
    with pytest.raises(ff.WorkerDied) as caught:
        before.extend(iterator)
    assert re.search(r"in map\(.*fatal.*\)( or a stage before it)?, (its|at) datapoint 37\b", told(caught.value))
    assert make is not given or "(input 1037)" in told(caught.value)
    state = iterator.state_dict()
    marker.unlink()
    expected = list(make())
    assert_same(before, expected[:9])
    assert_same(list(ff.pipe(make(fatal), ff.prefetch(3, processes=n)).load_state_dict(state)), expected[9:])
    assert_same(list(make(fatal).load_state_dict(state)), expected[9:])


def test_a_fatal_datapoint_of_one_pass_does_not_end_another(tmp_path):
    fatal = ending(tmp_path / "marker", ends["exit"], 1009, once=False)
    other = iter(ff.pipe(shuffled(size=400), ff.prefetch(3, processes=2)))
    got = [next(other)]
    beside = ((got.append(next(other)), output) for output in ff.pipe(seekable(fatal), ff.prefetch(3, processes=2)))
    with pytest.raises(ff.WorkerDied):
        list(beside)
    got.extend(other)
    assert_same(got, list(shuffled(size=400)))


class Stop(BaseException):
    """Not an Exception."""


@one_or_more
@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt("now"), Stop("now")], ids=lambda error: type(error).__name__
)
def test_what_ends_a_program_is_raised_as_in_serial(n, error):
    def ended(number):
        if number == 57:
            raise error
        return number

    def reached(flow):
        before = []
        with pytest.raises(type(error)) as caught:
            before.extend(flow)
        return before, caught.value.args

    serial = ff.pipe(range(100), ff.map(ended), ff.batch(5, collate=ff.as_list))
    assert reached(ff.pipe(serial, ff.prefetch(3, processes=n))) == reached(serial)
    assert still_works(n)


# Memory


@one_or_more
def test_an_error_for_want_of_memory_is_raised_as_in_serial(n):
    def greedy(number):
        return np.zeros(1 << 57, np.uint8) if number == 37 else number

    def reached(flow):
        before = []
        with pytest.raises(MemoryError) as caught:
            before.extend(flow)
        return before, type(caught.value), caught.value.args

    serial = ff.pipe(range(100), ff.map(greedy))
    assert reached(ff.pipe(serial, ff.prefetch(3, processes=n))) == reached(serial)


@one_or_more
@pytest.mark.parametrize("margin", [0, 64 << 20])
def test_a_memory_limit_in_a_worker_is_a_memory_error(n, margin):
    def greedy(number):
        if number != 37:
            return number
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + margin, -1))
        return np.zeros(1 << 33, np.uint8)

    before = []
    with pytest.raises(MemoryError) as caught:
        before.extend(ff.pipe(range(100), ff.map(greedy), ff.prefetch(3, processes=n)))
    assert before == list(range(37))
    assert re.search(r"map\(.*greedy\), its datapoint 37", told(caught.value))


@pytest.mark.filterwarnings("ignore:.*shared memory cannot be had:RuntimeWarning")
def test_a_batch_beyond_the_memory_limit_of_its_worker_is_a_memory_error():
    def limited(number):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (96 << 20), -1))
        return np.zeros(20 << 20, np.uint8)

    with pytest.raises(MemoryError):
        list(ff.pipe(range(20), ff.map(limited), ff.batch(10), ff.prefetch(2, processes=2)))
    ff.shut_down()
    assert still_works(2)


# What cannot travel


class Picky(Exception):
    """Its constructor needs more than its `args`."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Holding(Exception):
    """It has something that cannot be pickled."""

    def __init__(self, *arguments):
        super().__init__(" and ".join(map(str, arguments)))
        self.lock = threading.Lock()


class Sour(Exception):
    """It cannot be pickled."""

    def __init__(self, *arguments):
        super().__init__(" and ".join(map(str, arguments)))

    def __reduce__(self):
        raise ZeroDivisionError("not me")


@one_or_more
@pytest.mark.parametrize("error", [Picky, Holding, Sour])
def test_an_error_that_does_not_pickle_is_itself_after_what_was_made(n, error):
    def wrong(number):
        if number == 57:
            raise error(1, 2)
        return number

    before = []
    with pytest.raises(error, match=r"^1 and 2(\n|$)") as caught:
        before.extend(ff.pipe(range(100), ff.map(wrong), ff.prefetch(3, processes=n)))
    assert before == list(range(57))
    assert re.search(r"map\(.*wrong\), its datapoint 57", told(caught.value))


class Reluctant:
    """It cannot be pickled."""

    def __reduce__(self):
        raise ZeroDivisionError("not me")


def refuse():
    raise ZeroDivisionError("not here")


class Unloadable:
    """It can be pickled, but not unpickled."""

    def __reduce__(self):
        return refuse, ()


stuck = {"lock": threading.Lock, "generator": lambda: (x for x in ()), "reluctant": Reluctant, "unloadable": Unloadable}


@one_or_more
@pytest.mark.parametrize("what", stuck)
def test_a_result_that_cannot_travel_names_its_stage_after_what_was_made(n, what):
    make_stuck = stuck[what]

    def made(number):
        return make_stuck() if number == 57 else number

    before = []
    with pytest.raises(TypeError) as caught:
        before.extend(ff.pipe(range(100), ff.map(made), ff.prefetch(3, processes=n)))
    assert before == list(range(57))
    assert re.search(r"map\(.*made\)", told(caught.value))
    assert still_works(n)


@counts
def test_what_cannot_travel_may_go_from_stage_to_stage(n):
    flow = ff.pipe(range(30), ff.map(lambda x: (y for y in range(x))), ff.map(sum), ff.prefetch(3, processes=n))
    assert list(flow) == [sum(range(x)) for x in range(30)]


@pytest.mark.parametrize("n", [2])
@pytest.mark.parametrize("what", stuck)
def test_a_flow_that_cannot_travel_names_its_stage(n, what):
    held = stuck[what]()

    def holding(number):
        return number, held

    with pytest.raises(TypeError, match=r"map\(.*holding\)"):
        list(ff.pipe(range(3), ff.map(abs), ff.map(holding), ff.map(len), ff.prefetch(2, processes=n)))
    assert still_works(n)


@pytest.mark.parametrize("n", [2])
@pytest.mark.parametrize("what", stuck)
def test_a_datapoint_that_cannot_travel_to_the_workers_is_named_after_what_was_made(n, what):
    make_stuck = stuck[what]

    def source():
        for number in range(100):
            yield make_stuck() if number == 57 else number

    before = []
    with pytest.raises(TypeError, match=r"map\(whole\)"):
        before.extend(ff.pipe(source(), ff.map(whole), ff.prefetch(3, processes=n)))
    assert before == [True] * 57
    assert still_works(n)


def whole(value):
    return isinstance(value, int)


# Workers that hang


@pytest.mark.parametrize(("make", "n"), [(seekable, 1), (filtered, 2), (given, 4)])
def test_a_worker_that_hangs_is_a_timeout_that_names_its_datapoints(n, make, tmp_path):
    marker = tmp_path / "marker"
    hanging = ending(marker, lambda: threading.Event().wait(), 1037, once=False)
    assert still_works(n)  # the workers are there
    iterator, before = iter(ff.pipe(make(hanging), ff.prefetch(3, processes=n, timeout=2))), []
    with pytest.raises(TimeoutError) as caught:
        before.extend(iterator)
    named = re.search(r"datapoints? (\d+)(?: to (\d+))?", told(caught.value))
    assert int(named[1]) <= (9 if "in batch(4)" in told(caught.value) else 37) <= int(named[2] or named[1])
    state = iterator.state_dict()
    marker.unlink()
    assert still_works(n)
    expected = list(make())
    assert_same(before, expected[: len(before)])
    assert len(before) <= 9
    assert_same(
        list(ff.pipe(make(hanging), ff.prefetch(3, processes=n)).load_state_dict(state)), expected[len(before) :]
    )


@one_or_more
def test_stopped_workers_are_a_timeout_and_are_replaced(n):
    assert still_works(n)  # the workers are there
    flow = ff.pipe(shuffled(), ff.prefetch(3, processes=n, timeout=2))
    iterator = iter(flow)
    got = [next(iterator)]
    assert eventually(lambda: since_ready() is not None)  # until then it is their start that is waited for
    stopped = children(os.getpid())
    kill(*stopped, by=signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            got.extend(iterator)
        assert still_works(n)
        assert_same([*got, *flow.load_state_dict(iterator.state_dict())], list(shuffled()))
    finally:
        kill(*stopped, by=signal.SIGCONT)


def test_shut_down_ends_stopped_workers():
    iterator = iter(ff.pipe(shuffled(), ff.prefetch(3, processes=2)))
    next(iterator)
    stopped = children(os.getpid())
    kill(*stopped, by=signal.SIGSTOP)
    ff.shut_down()
    assert eventually(lambda: not any(map(lives, stopped)))
    iterator.close()


def test_a_pass_goes_on_after_a_shut_down():
    iterator = iter(ff.pipe(shuffled(), ff.prefetch(3, processes=2)))
    got = list(islice(iterator, 5))
    ff.shut_down()
    assert_same([*got, *iterator], list(shuffled()))


def test_a_slow_datapoint_within_the_timeout_is_none():
    def slow(number):
        time.sleep(0.3 if number % 10 == 5 else 0)
        return number

    assert list(ff.pipe(range(20), ff.map(slow), ff.prefetch(2, processes=2, timeout=10))) == list(range(20))


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
