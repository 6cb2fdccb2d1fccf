"""Whatever ends a worker, a datapoint or the process that iterates: nothing is lost, repeated,
changed or left behind."""

import contextlib
import ctypes
import os
import random
import re
import resource
import signal
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same
from processes_and_pictures import (  # noqa: F401  # fixtures
    counts,
    filtered,
    holdings,
    kill,
    lives,
    nothing_left_behind,
    picture,
    seekable,
    settled,
    shuffled,
    shut_down,
    still_works,
    streamed,
)
from waiting import children, eventually

import flowfn as ff
from flowfn.parallel.links import Processes
from flowfn.parallel.workers.processes import since_ready

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for what is left in /proc"),
]


one_or_more = pytest.mark.parametrize("n", [1, 2])


# What is looked at


def told(error):
    """All that an error says."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


# What is iterated


def given(function=picture, size=160):
    return ff.pipe((number for number in range(1000, 1000 + size)), ff.map(function, rng=True), ff.batch(4))


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
def test_a_datapoint_that_cannot_travel_to_the_workers_is_named_after_what_was_made(n, what, monkeypatch):
    make_stuck = stuck[what]
    monkeypatch.setattr(Processes, "workers_informed", False)  # as long as one of them begins

    def source():
        for number in range(100):
            yield make_stuck() if number == 57 else number

    before = []
    with pytest.raises(TypeError, match=r"map\(whole\)"):
        before.extend(ff.pipe(source(), ff.map(whole), ff.prefetch(3, processes=n)))
    assert before == [True] * 57
    assert still_works(n)


def whole(value):
    if value in (55, 56):  # the others are refused before this is done
        time.sleep(0.2)
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
