"""How a prefetch is paced: in which order outputs come, how much waits, who is waited for, and where it all runs."""

import os
import pickle
import random
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same
from sources import Stream, noisy
from waiting import children, eventually, run_script

import flowfn as ff
from flowfn.kinds.orders import Turns
from flowfn.kinds.readers import Wanted
from flowfn.kinds.runs import Run
from flowfn.parallel.flight import Flight
from flowfn.parallel.links import link_to
from flowfn.parallel.tasks.supply import Supply
from flowfn.testing import same

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

counts_seconds = pytest.mark.alone

SPREAD = [{"threads": 3}, {"processes": 2}, {"executor": ThreadPoolExecutor}]
EVERY_SETTING = [{}, {"threads": 3}, {"processes": 1}, {"processes": 2}]
settings = pytest.mark.parametrize("workers", EVERY_SETTING, ids=str)


@pytest.fixture(params=SPREAD, ids=["threads", "processes", "executor"])
def spread(request):
    """Settings with several workers."""
    if "executor" not in request.param:
        yield request.param
    else:
        with ThreadPoolExecutor(3) as executor:
            yield {"executor": executor}


def steady(count, seconds=0.12):
    """A count, once it has not changed for a while."""
    known, since = count(), time.monotonic()
    deadline = since + 10
    while time.monotonic() < min(since + seconds, deadline):
        time.sleep(0.01)
        if count() != known:
            known, since = count(), time.monotonic()
    return known


def told(error):
    """All that an error says."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


class Marks:
    """A count that threads and processes share: a file to which each appends a line at once."""

    def __init__(self, path):
        self.path = str(path)
        open(self.path, "w").close()

    def add(self, mark="."):
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(file, f"{mark}\n".encode())
        os.close(file)

    def __len__(self):
        return len(self.all())

    def all(self):
        return Path(self.path).read_text().split()


@pytest.fixture
def marks(tmp_path):
    return Marks(tmp_path / "marks")


def pid(_):
    time.sleep(0.005)
    return os.getpid()


def jittery(x):
    time.sleep((x * 7919 % 11) / 2000)
    return x


# Arguments


WORKERS = "left out where another of workers=, threads=, processes= and executor= is given"
ANY = f'workers must be a positive integer or "auto", or {WORKERS}'
THREADS = f"threads must be a positive integer, or {WORKERS}"
PROCESSES = f'processes must be a positive integer or "auto", or {WORKERS}'
SIZE = 'max_bytes must be a positive integer, a size like "512MB", or None'
SECONDS = "timeout must be a positive number of seconds"
EXECUTOR = ThreadPoolExecutor(1)  # never starts a thread


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"ahead": 0}, ValueError, "ahead must be a positive integer, got 0"),
        ({"ahead": "2"}, TypeError, "ahead must be a positive integer, got '2'"),
        ({"threads": 0}, ValueError, f"{THREADS}, got 0"),
        ({"threads": "auto"}, TypeError, f"{THREADS}, got 'auto'"),
        ({"processes": -1}, ValueError, f"{PROCESSES}, got -1"),
        ({"processes": True}, TypeError, f"{PROCESSES}, got True"),
        ({"processes": "all"}, ValueError, f"{PROCESSES}, got 'all'"),
        ({"threads": 2, "processes": 2}, ValueError, f"{THREADS}, got 2"),
        ({"workers": 0}, ValueError, f"{ANY}, got 0"),
        ({"workers": 2, "threads": 2}, ValueError, f"{ANY}, got 2"),
        ({"threads": 2, "executor": EXECUTOR}, ValueError, f"{THREADS}, got 2"),
        ({"processes": "auto", "executor": EXECUTOR}, ValueError, f"{PROCESSES}, got 'auto'"),
        (
            {"executor": 3},
            TypeError,
            "executor must be a concurrent.futures.Executor: an object with submit(), got 3; "
            "write processes= or threads= for so many workers",
        ),
        ({"ordered": None}, TypeError, "ordered must be True or False, got None"),
        ({"max_bytes": 0}, ValueError, f"{SIZE}, got 0"),
        ({"max_bytes": 1e6}, TypeError, f"{SIZE}, got 1000000.0"),
        ({"max_bytes": True}, TypeError, f"{SIZE}, got True"),
        *(
            ({"max_bytes": bad}, ValueError, f"{SIZE}, got {bad!r}")
            for bad in ("much", "0MB", "-1MB", "1.5.2MB", "12 XB", "")
        ),
        ({"timeout": 0}, ValueError, f"{SECONDS} or None, got 0"),
        ({"timeout": -1.5}, ValueError, f"{SECONDS} or None, got -1.5"),
        ({"timeout": "5"}, TypeError, f"{SECONDS} or None, got '5'"),
        ({"worker_threads": 0}, ValueError, "worker_threads must be a positive integer or None, got 0"),
        ({"worker_threads": 1.5}, TypeError, "worker_threads must be a positive integer or None, got 1.5"),
    ],
)
def test_bad_arguments_are_told_at_once(arguments, error, says):
    with pytest.raises(error) as caught:
        ff.prefetch(**{"ahead": 2, **arguments})
    assert str(caught.value) == f"prefetch(): {says}"


@pytest.mark.parametrize("size", [1000, "1000", "1kB", "1 KB", "0.5MiB", "512MB", " 2 GiB ", np.int64(7)], ids=str)
def test_sizes_may_be_written_as_people_do(size):
    assert list(ff.pipe(range(9), ff.map(float), ff.prefetch(4, threads=2, max_bytes=size))) == [
        float(x) for x in range(9)
    ]


@settings
def test_an_endless_timeout_is_none(workers):
    assert list(ff.pipe(range(9), ff.map(float), ff.prefetch(4, timeout=float("inf"), **workers))) == [
        float(x) for x in range(9)
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((0,), ValueError, 'processes must be a positive integer or "auto", got 0'),
        ((-2,), ValueError, 'processes must be a positive integer or "auto", got -2'),
        (("all",), ValueError, "processes must be a positive integer or \"auto\", got 'all'"),
        ((1.5,), TypeError, 'processes must be a positive integer or "auto", got 1.5'),
        ((1, 0), ValueError, "worker_threads must be a positive integer or None, got 0"),
    ],
    ids=str,
)
def test_bad_arguments_of_warm_up_are_told(arguments, error, says):
    with pytest.raises(error) as caught:
        ff.warm_up(arguments[0], **dict(zip(["worker_threads"], arguments[1:])))
    assert str(caught.value) == f"warm_up(): {says}"


# Outputs as they come


def seekable():
    return ff.pipe(range(90), ff.shuffle(), ff.map(jittery), ff.map(noisy, rng=True), ff.batch(2, collate=ff.as_list))


def streamed():
    return ff.pipe(
        Stream(range(90)),
        ff.map(jittery),
        ff.map(noisy, rng=True),
        ff.shuffle_buffer(7),
        ff.map(lambda pair: [*pair, 1]),
    )


def expanded():
    return ff.pipe(
        range(90),
        ff.filter(lambda x: x % 3),
        ff.map(jittery),
        ff.flat_map(lambda x: [x] * (x % 4)),
        ff.map(noisy, rng=True),
        ff.batch(3, collate=ff.as_list),
        ff.map(noisy, rng=True),
    )


def mixed():
    return ff.pipe(
        ff.mix(
            ff.pipe(Stream(range(50)), ff.map(jittery), ff.cycle()),
            ff.pipe(range(50), ff.filter(bool), ff.cycle()),
            weights=[0.3, 0.7],
        ),
        ff.take(80),
        ff.map(noisy, rng=True),
    )


@pytest.mark.parametrize("make", [seekable, streamed, expanded, mixed], ids=lambda make: make.__name__)
def test_unordered_outputs_are_the_ordered_ones_in_any_order(spread, make):
    flow = ff.pipe(make(), ff.prefetch(4, ordered=False, **spread))
    for epoch in (0, 1):
        assert sorted(map(str, flow.run(epoch=epoch))) == sorted(map(str, make().run(epoch=epoch)))


@counts_seconds
@pytest.mark.parametrize("workers", [{"threads": 3}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("source", [range(200), Stream(range(200))], ids=["seekable", "stream"])
@pytest.mark.parametrize("stage", [ff.map, lambda f: ff.flat_map(lambda x: [f(x)])], ids=["map", "expand"])
def test_unordered_a_slow_datapoint_does_not_hold_back_the_others(workers, source, stage, marks):
    def waiting(x):
        time.sleep(0.001)
        if x == 60:
            eventually(lambda: len(marks) >= 1)
        return x

    flow = ff.pipe(source, stage(waiting), ff.prefetch(4, ordered=False, **workers))
    got = []
    for x in flow:
        got.append(x)
        if len(got) == 100:
            assert 60 not in got
            marks.add()
    assert sorted(got) == list(range(200))


def test_unordered_flows_have_no_state_and_no_index(spread):
    flow = ff.pipe(range(20), ff.map(abs), ff.prefetch(4, ordered=False, **spread))
    above = ff.pipe(flow, ff.map(float), ff.batch(2))
    for one in (flow, above, iter(flow), iter(above)):
        with pytest.raises(
            TypeError, match=r"gives outputs as they come \(ordered=False\), so a pass over it has no state"
        ):
            one.state_dict()
    for one in (flow, above):
        with pytest.raises(
            TypeError, match=r"cannot be indexed.*prefetch\(4, .*ordered=False\) gives outputs as they come"
        ):
            one[1]
    with pytest.raises(
        TypeError, match=r"shuffle\(\) needs a source that can be indexed, but prefetch.* gives outputs as they come"
    ):
        list(ff.pipe(flow, ff.shuffle()))
    assert len(flow) == 20


def test_what_holds_a_pass_fast_is_given_the_order(spread, tmp_path):
    flow = ff.pipe(range(60), ff.map(jittery), ff.prefetch(8, ordered=False, **spread))
    for hold in (ff.cache(), ff.freeze(), ff.cache_to(tmp_path / "kept")):
        held = ff.pipe(flow, hold)
        assert list(held) == list(held) == list(range(60))
        with iter(held) as iterator:
            assert list(islice(iterator, 7)) == list(range(7))
            state = iterator.state_dict()
        assert list(held.load_state_dict(state)) == list(range(7, 60))


def sometimes(x):
    time.sleep((x * 7919 % 11) / 2000)
    if x % 9 == 4:
        raise OSError("sometimes", x)
    return x


def test_guarded_stages_keep_the_order_and_so_their_budget(spread):
    def make(budget):
        return ff.pipe(range(60), ff.guard(ff.map(sometimes), errors=OSError, then="drop", budget=budget))

    unordered = ff.prefetch(8, ordered=False, **spread)
    assert list(ff.pipe(make(0.5), unordered)) == list(make(0.5))
    got = []
    with pytest.raises(OSError, match="sometimes") as caught:
        got.extend(iter(ff.pipe(make(3), unordered)))
    assert (got, caught.value.args) == ([x for x in range(31) if x % 9 != 4], ("sometimes", 31))


def test_unordered_errors_are_raised(spread):
    def broken(x):
        if x == 30:
            raise LookupError("broken", x)
        return x

    with pytest.raises(LookupError) as caught:
        list(ff.pipe(range(60), ff.map(broken), ff.prefetch(4, ordered=False, **spread)))
    assert "in map(broken), its datapoint 30 (input 30)" in told(caught.value)


# How much waits


def picture(marks):
    def make(_):
        marks.add()
        return np.zeros(100_000, np.uint8)

    return make


@settings
def test_no_more_than_ahead_wait(workers, marks):
    def slow(x):
        marks.add()
        time.sleep(0.03)
        return x

    with iter(ff.pipe(range(500), ff.map(slow), ff.prefetch(6, **workers))) as iterator:
        for delivered in (1, 7, 20):
            consumed = len(list(islice(iterator, delivered)))
            assert consumed == delivered
            assert steady(lambda: len(marks)) - {1: 1, 7: 8, 20: 28}[delivered] <= 6 + max(workers.values(), default=1)


@settings
@pytest.mark.parametrize(
    "stages",
    [
        lambda marks: [ff.map(picture(marks))],
        lambda marks: [ff.map(picture(marks)), ff.filter(lambda array: True)],
        lambda marks: [ff.flat_map(lambda x: map(picture(marks), range(50)))],
    ],
    ids=["map", "filter", "flat_map"],
)
def test_a_bound_of_bytes_holds_for_what_waits(workers, stages, marks):
    with iter(ff.pipe(range(500), *stages(marks), ff.prefetch(50, max_bytes="800kB", **workers))) as iterator:
        delivered = 0
        for more in (1, 2, 60):
            delivered += len(list(islice(iterator, more)))
            made = steady(lambda: len(marks))
            # eight wait; each worker has one in work besides, and one is not known to be too much until it is there
            assert made - delivered <= 8 + 2 * max(workers.values(), default=1), (delivered, made)


def test_one_output_beyond_the_bound_of_bytes_comes_all_the_same():
    for workers in EVERY_SETTING:
        flow = ff.pipe(
            range(6), ff.map(lambda x: np.full(100_000, x, np.uint8)), ff.prefetch(4, max_bytes=10, **workers)
        )
        assert [int(array[0]) for array in flow] == list(range(6))


# How long an output may be waited for


@counts_seconds
@settings
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize("between", [None, ff.filter(lambda x: True)], ids=["map", "expand"])
def test_an_output_that_does_not_come_in_time_is_named(workers, ordered, between, marks):
    def hanging(x):
        if x == 7:
            eventually(lambda: len(marks) >= 1)
        return x

    flow = ff.pipe(range(40), between, ff.map(hanging), ff.prefetch(2, timeout=0.3, ordered=ordered, **workers))
    began, got = time.monotonic(), []
    with pytest.raises(TimeoutError, match=r"prefetch\(\): nothing came for timeout=0\.3 seconds") as caught:
        got.extend(iter(flow))
    waited = time.monotonic() - began
    assert 7 not in got
    assert re.search(
        r"in map\(hanging\)( or a stage before it)?, (its|at) (datapoint|datapoints|output) \d", told(caught.value)
    )
    assert 0.3 <= waited < 0.3 + 5
    marks.add()
    assert list(ff.pipe(range(40), ff.map(float), ff.prefetch(2, timeout=20, **workers))) == [
        float(x) for x in range(40)
    ]
    assert sorted(flow) == list(range(40))


@counts_seconds
def test_a_timeout_is_waited_for_once():
    release = threading.Event()
    for ordered in (True, False):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            list(
                ff.pipe(
                    range(2), ff.map(lambda x: release.wait(20)), ff.prefetch(2, threads=2, timeout=1, ordered=ordered)
                )
            )
        assert time.monotonic() - began < 1.8
    release.set()


# Processes


@counts_seconds
def test_auto_is_as_many_processes_as_this_process_may_use_cpus(tmp_path):
    body = """
        import os, time
        from loky import cpu_count
        import flowfn as ff

        def pid(x):
            time.sleep(0.01)
            return os.getpid()

        if __name__ == "__main__":
            cpus = sorted(os.sched_getaffinity(0))
            for count in (1, min(2, len(cpus), cpu_count())):
                os.sched_setaffinity(0, cpus[:count])
                flow = ff.pipe(range(60), ff.map(pid), ff.prefetch(2, processes="auto"))
                print(len(set(flow)) == count)
                ff.shut_down()
    """
    done = run_script(body, tmp_path)
    assert done.stdout == "True\nTrue\n", done.stderr


@pytest.mark.parametrize("locked", [True, False])
def test_workers_are_those_that_compute_at_once(locked, monkeypatch, capsys):
    """Processes, or threads of an interpreter whose lock is off now: what is imported may switch it on."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: locked, raising=False)
    flow = ff.pipe(range(40), ff.map(lambda x: [x, os.getpid()]), ff.prefetch(2, workers=2))
    assert [x for x, _ in flow] == list(range(40))
    assert ({pid for _, pid in flow} == {os.getpid()}) != locked
    ff.explain(flow)
    assert f"2 {'processes' if locked else 'threads'} of prefetch(2, workers=2)" in capsys.readouterr().out


@pytest.mark.parametrize(("threads", "expected"), [(1, "1"), (3, "3"), (None, "7")])
def test_threads_of_numerical_libraries_in_the_workers_are_as_told(threads, expected, monkeypatch):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    for name in names:
        monkeypatch.setenv(name, "7")
    flow = ff.pipe(
        range(4),
        ff.map(lambda x: [os.environ[name] for name in names]),
        ff.prefetch(2, processes=2, worker_threads=threads),
    )
    assert list(flow) == [[expected] * len(names)] * 4
    assert os.environ["OMP_NUM_THREADS"] == "7"
    ff.shut_down()


@counts_seconds
def test_warm_up_starts_all_workers_at_once_and_does_not_wait(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "while not os.path.exists(os.environ['STARTED']) and 'resource_tracker' not in ' '.join(sys.orig_argv): "
        "time.sleep(0.01)\n"
    )
    body = """
        import os, sys, time
        from pathlib import Path
        import loky.backend.resource_tracker
        import flowfn as ff

        def children():
            found = [int(child) for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()]
            return {child for child in found if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()}

        def pid(x):
            time.sleep(0.01)
            return os.getpid()

        if __name__ == "__main__":
            loky.backend.resource_tracker.ensure_running()
            os.environ["PYTHONPATH"] = os.path.dirname(__file__)  # from now on nothing starts before it is told to
            ff.warm_up(2)
            deadline = time.monotonic() + 10
            while len(children()) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            warm = children()
            Path(os.environ["STARTED"]).touch()
            print(len(warm), set(ff.pipe(range(60), ff.map(pid), ff.prefetch(2, processes=2))) == warm)
            ff.warm_up(2)
            print(children() == warm)
            ff.shut_down()
    """
    started = tmp_path / "started"
    environment = {**os.environ, "STARTED": str(started)}
    done = run_script(body, tmp_path, env=environment)
    assert done.stdout == "2 True\nTrue\n", done.stderr


def test_workers_stay_warm_from_pass_to_pass_and_from_flow_to_flow():
    ff.shut_down()
    flow = ff.pipe(range(60), ff.map(pid), ff.prefetch(2, processes=2))
    first = set(flow)
    assert len(first) == 2
    assert set(flow) == first
    assert (
        set(ff.pipe(Stream(range(60)), ff.map(pid), ff.filter(bool), ff.prefetch(9, processes=2, ordered=False)))
        == first
    )
    assert {*children()} == first
    ff.shut_down()
    assert eventually(lambda: not children())


# How work is shared out


@counts_seconds
@pytest.mark.parametrize("workers", [{"threads": 2}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("slow", [0, 1, 40], ids="number {}".format)
@pytest.mark.parametrize("seconds", [0, 0.0005, 0.003], ids="others take {} s".format)
def test_a_slow_datapoint_does_not_stop_the_others_while_there_is_room(workers, slow, seconds, marks):
    def waiting(x):
        time.sleep(seconds)
        if x == slow:
            return eventually(lambda: len(marks) >= slow + 40)
        marks.add()
        return True

    assert all(ff.pipe(range(slow + 400), ff.map(waiting), ff.prefetch(90, **workers)))


@counts_seconds
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize("workers", [{"threads": 2}, {"processes": 2}], ids=str)
def test_unequal_costs_are_balanced(workers, ordered):
    costs = random.Random(0).choices([0.002, 0.05, 0.15, 0.3], [12, 1, 1, 1], k=80)
    ideal = max(sum(costs) / 2, 1.0)

    def spent(x):
        began = time.monotonic()
        time.sleep(costs[x])
        return began, time.monotonic()

    flow = ff.pipe(range(80), ff.map(spent), ff.prefetch(80, ordered=ordered, **workers))
    spans = list(flow)
    assert max(end for _, end in spans) - min(begin for begin, _ in spans) < 1.25 * ideal


# Large expansions


PIECE = 150
"""More outputs of ten kilobytes than one task of an expansion gives at once."""

READ = 450
"""More than one of two readers gives at once."""


def opened(marks, size=10_000):
    """Opens a source that says when it is opened, read, and closed."""

    def outputs(number):
        marks.add(f"begun-{number}")
        try:
            for index in range(size):
                marks.add("made")
                yield np.full(1250, index + number * size, np.int64)
        finally:
            marks.add(f"ended-{number}")

    return outputs


def flattened(marks, inputs=3, size=10_000):
    return ff.pipe(range(inputs), ff.flat_map(opened(marks, size)))


def interleaved(marks, inputs=3, size=10_000):
    return ff.pipe(range(inputs), ff.interleave(opened(marks, size), cycle=2, block=4), ff.map(lambda array: array))


everywhere = pytest.mark.parametrize("make", [flattened, interleaved], ids=lambda make: make.__name__)


@everywhere
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_large_expansions_come_whole(make, ordered, marks):
    got = [int(array[0]) for array in ff.pipe(make(marks, 2, 5_000), ff.prefetch(4, processes=2, ordered=ordered))]
    expected = list(range(10_000))
    assert len(got) == 10_000
    if ordered and make is flattened:
        assert got == expected
    assert sorted(got) == expected


@everywhere
def test_large_expansions_are_made_in_bounded_pieces(make, marks):
    with iter(ff.pipe(make(marks), ff.prefetch(4, processes=2))) as iterator:
        delivered = 0
        for more in (1, 500, 1000):
            delivered += len(list(islice(iterator, more)))
            made = steady(lambda: marks.all().count("made"))
            waiting = 0 if make is flattened else 2 * 2 * READ  # of two readers each, below the interleaving
            assert made - delivered <= 4 + 4 * PIECE + waiting


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_several_large_inputs_are_read_at_once(ordered, marks):
    with iter(ff.pipe(flattened(marks), ff.prefetch(4, processes=2, ordered=ordered))) as iterator:
        next(iterator)
        assert eventually(lambda: {"begun-0", "begun-1"} <= set(marks.all()))


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 1}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("delivered", [1, 300])
@everywhere
def test_an_abandoned_reader_stops(make, workers, delivered, marks):
    with iter(ff.pipe(make(marks), ff.prefetch(4, **workers))) as iterator:
        assert len(list(islice(iterator, delivered))) == delivered
    states = lambda how: sorted(mark for mark in marks.all() if mark.startswith(how))
    assert eventually(lambda: len(states("ended")) == len(states("begun"))), (states("begun"), states("ended"))
    made = marks.all().count("made")
    assert steady(lambda: marks.all().count("made")) == made


@everywhere
@pytest.mark.parametrize("k", [1, 700, 2500])
def test_a_state_in_the_middle_of_an_expansion_resumes_exactly(make, k, marks):
    flow = ff.pipe(make(marks, 2, 2000), ff.prefetch(4, processes=2))
    whole = [int(array[0]) for array in make(marks, 2, 2000).run()]
    with flow.run() as iterator:
        assert [int(array[0]) for array in islice(iterator, k)] == whole[:k]
        state = iterator.state_dict()
    assert [int(array[0]) for array in flow.load_state_dict(state)] == whole[k:]
    assert [int(array[0]) for array in make(marks, 2, 2000).load_state_dict(state)] == whole[k:]


@everywhere
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_workers_killed_in_the_middle_of_an_expansion_lose_nothing(make, ordered, marks):
    got = []
    for array in ff.pipe(make(marks, 2, 2000), ff.prefetch(4, processes=2, ordered=ordered)):
        got.append(int(array[0]))
        if len(got) in (150, 1500):
            for child in children():
                os.kill(child, signal.SIGKILL)
    whole = [int(array[0]) for array in make(marks, 2, 2000).run()]
    assert (got if ordered else sorted(got)) == (whole if ordered else sorted(whole))


def test_an_expansion_whose_workers_are_killed_again_and_again_is_not_to_blame(marks):
    got = []
    for array in ff.pipe(range(1), ff.flat_map(opened(marks, 3000)), ff.prefetch(4, processes=2)):
        got.append(int(array[0]))
        if len(got) % 500 == 0:  # between two of them much has come
            for child in children():
                os.kill(child, signal.SIGKILL)
    assert got == list(range(3000))


@pytest.mark.parametrize("workers", [{"threads": 2}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_many_expansions_are_shared_out_and_each_is_made_once(workers, ordered, marks):
    def outputs(number):
        for index in range(400):
            if index % 100 == 0:
                marks.add(f"{number}-{index}")
                time.sleep(0.005)
            yield number, os.getpid(), threading.get_ident()

    got = list(ff.pipe(range(40), ff.flat_map(outputs), ff.prefetch(16, ordered=ordered, **workers)))
    assert len(got) == 16_000
    marked = marks.all()
    assert len(marked) == len(set(marked)) == 160


@counts_seconds
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_no_worker_has_most_of_the_expansions(ordered):
    def outputs(number):
        for index in range(400):
            if index % 100 == 0:
                time.sleep(0.005)
            yield number, os.getpid()

    owners = dict(ff.pipe(range(40), ff.flat_map(outputs), ff.prefetch(16, processes=2, ordered=ordered)))
    shares = sorted(list(owners.values()).count(pid) for pid in set(owners.values()))
    assert len(shares) == 2
    assert shares[0] >= 10


# Prefetches in prefetches


def test_one_process_takes_everything_out_of_this_one():
    def where(source):
        for pair in source:
            yield [*pair, os.getpid()]

    def in_thread(_):
        return [os.getpid(), threading.current_thread().name]

    for inner in (ff.prefetch(2), ff.prefetch(2, threads=2), ff.prefetch(2, processes=2)):
        flow = ff.pipe(
            range(30),
            ff.map(in_thread),
            inner,
            where,
            ff.map(lambda row: [*row, os.getpid()]),
            ff.prefetch(2, processes=1),
        )
        rows = list(flow)
        assert len(rows) == 30
        pids = {row[at] for row in rows for at in (0, 2, 3)}
        assert len(pids) == 1
        assert os.getpid() not in pids
        assert all(row[1].startswith("flowfn") for row in rows)


@pytest.mark.parametrize("outer", EVERY_SETTING, ids=str)
@pytest.mark.parametrize("inner", EVERY_SETTING, ids=str)
def test_prefetches_in_prefetches_give_the_serial_output_and_state(outer, inner):
    def make(*prefetches):
        one, two = prefetches or (None, None)
        source = ff.pipe(
            range(40), ff.map(noisy, rng=True), one, ff.filter(lambda pair: pair[0] % 5), ff.shuffle_buffer(4)
        )
        return ff.pipe(source, one, ff.batch(3, collate=ff.as_list), ff.map(noisy, rng=True), two)

    serial = list(make().run(epoch=1))
    flow = make(ff.prefetch(3, **inner), ff.prefetch(2, **outer))
    assert_same(list(flow.run(epoch=1)), serial)
    with flow.run(epoch=1) as iterator:
        assert_same(list(islice(iterator, 5)), serial[:5])
        state = iterator.state_dict()
    assert_same(list(flow.load_state_dict(state)), serial[5:])
    assert_same(list(make().load_state_dict(state)), serial[5:])


# Large batches


both = pytest.mark.parametrize("workers", [{"threads": 2}, {"processes": 2}], ids=str)


def mixed(x):
    return {"image": np.full((20, 20), x, np.uint8), "name": str(x), "label": x if x < 70 else x / 2}


@both
@pytest.mark.parametrize(
    "make", [mixed, lambda x: [np.full(50, x), str(x)], float, str, lambda x: (x, None)], ids=range(5)
)
def test_a_batch_that_several_workers_fill_is_the_serial_one(workers, make):
    flow = ff.pipe(range(200), ff.map(make), ff.batch(64))
    got, expected = list(ff.pipe(flow, ff.prefetch(2, **workers))), list(flow)
    assert len(got) == len(expected)
    assert all(map(same, got, expected))


def padded(x):
    time.sleep(0.002)
    return {"ids": [x] * (1 + x % 5 if x < 128 else x % 3), "name": str(x)}


@both
@pytest.mark.parametrize(
    "collate", [ff.pad(0), ff.pad(-1, mask=True, lengths=True), {"ids": ff.pad(0, mask=True), "name": ff.as_list}]
)
def test_a_padded_batch_that_several_workers_fill_is_the_serial_one(workers, collate):
    flow = ff.pipe(range(200), ff.map(padded), ff.batch(64, collate=collate))
    got, expected = list(ff.pipe(flow, ff.prefetch(2, **workers))), list(flow)
    assert len(got) == len(expected)
    assert all(map(same, got, expected))


@counts_seconds
@both
def test_the_first_of_the_large_batches_takes_half_the_time(workers):
    flow = ff.pipe(range(160), ff.map(lambda x: time.sleep(0.01) or x), ff.batch(80), ff.prefetch(1, **workers))
    next(iter(flow))  # the workers are there
    began = time.monotonic()
    assert len(next(iter(flow))) == 80
    assert time.monotonic() - began < 0.8 * 0.75


@both
def test_shapes_that_do_not_stack_are_the_serial_error_in_a_large_batch_too(workers):
    flow = ff.pipe(range(128), ff.map(lambda x: np.zeros(3 if x < 100 else 4)), ff.batch(128))
    with pytest.raises(ValueError, match=r"cannot stack shapes .*pad"):
        list(ff.pipe(flow, ff.prefetch(1, **workers)))


def test_a_fatal_datapoint_of_a_large_batch_is_named_itself(marks):
    def fatal(x):
        if x == 37:
            os._exit(0)
        return x

    with pytest.raises(ff.WorkerDied) as caught:
        list(ff.pipe(range(100), ff.map(fatal), ff.batch(50), ff.prefetch(1, processes=2)))
    assert "in map(fatal), its datapoint 37" in told(caught.value)


# Slow streams


@counts_seconds
@both
def test_what_is_there_is_given_before_more_is_read_from_a_slow_stream(workers):
    def slow():
        for number in range(12):
            time.sleep(0.05)
            read.append(number)
            yield number

    read = []
    list(ff.pipe(range(3), ff.map(float), ff.prefetch(10, **workers)))  # the workers are there
    with iter(ff.pipe(slow, ff.map(float), ff.prefetch(10, **workers))) as iterator:
        next(iterator)
        assert len(read) < 6
        assert list(iterator) == [float(x) for x in range(1, 12)]


@counts_seconds
@both
def test_as_many_outputs_as_were_asked_for_are_made_while_the_consumer_rests(workers, marks):
    def made(x):
        marks.add()
        return x

    with iter(ff.pipe(range(1000), ff.map(made), ff.prefetch(20, **workers))) as iterator:
        for _ in range(60):
            next(iterator)
            time.sleep(0.002)
        assert eventually(lambda: len(marks) >= 80)


@both
def test_a_pass_begins_at_the_pace_that_the_one_before_it_had_in_the_end(workers, monkeypatch):
    sizes = []
    send = Flight.send
    monkeypatch.setattr(Flight, "send", lambda self, feed, told: sizes.append(len(feed)) or send(self, feed, told))
    flow = ff.pipe(range(20_000), ff.map(float), ff.prefetch(1000, **workers))
    list(flow)
    assert sizes[0] == 1
    assert max(sizes) > 100
    sizes.clear()
    list(flow)
    assert sizes[0] > 100
    assert list(pickle.loads(pickle.dumps(ff.pipe(range(9), ff.map(float), ff.prefetch(2, **workers))))) == list(
        map(float, range(9))
    )


def test_one_set_of_workers_serves_a_pass_however_narrow_its_window(monkeypatch):
    linked = []
    monkeypatch.setattr("flowfn.parallel.work.link_to", lambda *given: linked.append(1) or link_to(*given))
    flow = ff.pipe(range(50), ff.map(lambda x: np.zeros(10**6, np.uint8)), ff.prefetch(4, threads=2, max_bytes="1MB"))
    assert len(list(flow)) == 50
    assert len(linked) == 1


@settings
def test_a_source_that_exits_does_so_after_what_it_gave(workers):
    def source():
        yield from range(50)
        sys.exit(3)

    got = []
    with pytest.raises(SystemExit):
        got.extend(iter(ff.pipe(source, ff.map(float), ff.prefetch(4, **workers))))
    assert got == list(range(50))


class ReadsAhead:
    """A reader that asks for one more block, as a thread of its own does, while it is being closed."""

    def __init__(self, more):
        self.more = more

    def close(self):
        assert not self.more(Wanted(self.more))


def test_who_reads_a_round_ahead_has_no_more_handed_out_than_what_follows_it():
    """Of rounds without end, each would otherwise have the next thousands opened."""
    node, series = (
        ff.pipe(range(8), ff.prefetch(2), ff.cycle()).node,
        iter([range(at, at + 16) for at in range(0, 1600, 16)]),
    )
    supply = Supply(node, Run(0, (0,)), list(node.sources), series)
    assert [[*found.values()] for found in supply.of(range(16)).values()] == [[*range(8)]] * 2
    for reader in [*supply.open.values()] * 2:
        assert not supply.more(reader.wanted)
    assert next(series) == range(32, 48)
    assert [epoch for _, epoch in supply.of(range(16, 32))] == [(0, 2), (0, 3)]


def test_what_reads_ahead_while_a_pass_is_closed_opens_nothing():
    node, run = ff.flow(range(6)).node, Run(0, (0,))
    supply = Supply(node, run, [node], iter([range(3), range(3, 6)]))
    supply.open["ahead",] = ReadsAhead(supply.more)
    supply.close()
    assert not supply.latest
    turns = Turns([node], run, iter([(np.zeros(3, int), np.arange(3), np.zeros(3, int))] * 3))
    outputs = iter(turns)
    next(outputs)
    turns.open[9, 9] = ReadsAhead(turns.more)
    outputs.close()
    assert not turns.latest
