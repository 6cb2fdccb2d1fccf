"""prefetch changes when and where, never what."""

import atexit
import gc
import io
import itertools
import multiprocessing.util
import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest
from sources import Stream, noisy
from waiting import eventually, run_script

import flowfn as ff
from flowfn.parallel.tasks.background import collecting
from flowfn.parallel.tasks.plan import stays, stretches
from flowfn.testing import check, left_behind, same

EVERY_SETTING = [{}, {"threads": 1}, {"threads": 3}, {"processes": 1}, {"processes": 2}, {"processes": 3}]
settings = pytest.mark.parametrize("workers", EVERY_SETTING, ids=str)

pytestmark = pytest.mark.timeout(90)


def nothing_but(before):
    """Whether no more threads, processes and descriptors are left than there were."""
    return all(count <= before[kind] for kind, count in left_behind().items())


def pid(_):
    return os.getpid()


def everything(source):
    """A pipeline with two stages of every kind."""
    return ff.pipe(
        source,
        ff.map(lambda x: x + 1),
        ff.map(noisy, rng=True),
        ff.filter(lambda pair: pair[0] % 3 != 0),
        ff.map(noisy, rng=True),
        ff.flat_map(lambda pair: [pair] * (pair[1] % 3)),
        ff.batch(4, collate=ff.as_list),
        ff.map(noisy, rng=True),
        ff.shuffle_buffer(5),
        ff.map(lambda batch: batch),
        ff.take(17),
    )


# The output is that of the pipeline without it


@settings
@pytest.mark.parametrize("source", [range(150), list(range(150)), Stream(range(150))], ids=["range", "list", "stream"])
def test_every_setting_gives_the_serial_output_and_state(workers, source):
    serial = everything(source)
    parallel = ff.pipe(everything(source), ff.prefetch(3, **workers))
    for epoch in (0, 1):
        assert same(list(parallel.run(epoch=epoch)), list(serial.run(epoch=epoch)))
    for k in (0, 1, 8, 16):
        with parallel.run(epoch=1) as iterator:
            for _ in range(k):
                next(iterator)
            state = iterator.state_dict()
        rest = list(serial.run(epoch=1))[k:]
        assert same(list(everything(source).load_state_dict(state)), rest)
        assert same(list(parallel.load_state_dict(state)), rest)


@settings
def test_filter_batch_map_under_workers_is_right(workers):
    # the odd numbers below 40, five at a time, added up by hand: 1+3+5+7+9 = 25, 11+...+19 = 75, ...
    flow = ff.pipe(
        range(40), ff.filter(lambda x: x % 2), ff.batch(5), ff.map(lambda b: int(b.sum())), ff.prefetch(3, **workers)
    )
    assert list(flow) == [25, 75, 125, 175]


@settings
def test_the_laws_hold(workers):
    check(
        lambda: ff.pipe(range(23), ff.shuffle(), ff.map(noisy, rng=True), ff.batch(4)), workers=[workers], epochs=(1,)
    )


@settings
def test_an_endless_flow_is_prefetched(workers):
    flow = ff.pipe([1, 2, 3], ff.cycle(), ff.map(float), ff.prefetch(4, **workers), ff.take(7))
    assert list(flow) == [1, 2, 3, 1, 2, 3, 1]


@settings
def test_empty_and_single_sources(workers):
    assert list(ff.pipe([], ff.map(float), ff.prefetch(4, **workers))) == []
    assert list(ff.pipe([7], ff.map(float), ff.prefetch(4, **workers))) == [7.0]


def test_prefetch_in_prefetch_in_prefetch():
    inner = ff.pipe(
        range(50), ff.map(noisy, rng=True), ff.prefetch(2, threads=2), ff.shuffle(), ff.batch(3, collate=ff.as_list)
    )
    outer = ff.pipe(inner, ff.prefetch(2, processes=2), ff.map(lambda batch: len(batch[0])), ff.prefetch(2))
    assert list(outer) == [3] * 16 + [2]
    whole = ff.pipe(inner, ff.prefetch(2, processes=2))
    plain = ff.pipe(range(50), ff.map(noisy, rng=True), ff.shuffle(), ff.batch(3, collate=ff.as_list))
    assert same(list(whole.run(epoch=0)), list(plain.run(epoch=0)))


def test_a_prefetched_flow_is_still_read_by_index_without_workers():
    flow = ff.pipe(range(10), ff.map(pid), ff.prefetch(2, processes=2))
    assert len(flow) == 10
    assert flow[3] == os.getpid()


def test_states_move_between_any_two_settings():
    for saved_by in EVERY_SETTING:
        with ff.pipe(everything(range(150)), ff.prefetch(2, **saved_by)).run() as iterator:
            for _ in range(9):
                next(iterator)
            state = iterator.state_dict()
        for loaded_by in EVERY_SETTING:
            resumed = ff.pipe(everything(range(150)), ff.prefetch(5, **loaded_by)).load_state_dict(state)
            assert same(list(resumed), list(everything(range(150)).run(start=9)))


# Where stages run


def test_each_stage_runs_in_the_workers_of_the_first_prefetch_downstream():
    here = os.getpid()
    in_workers = list(ff.pipe(range(20), ff.map(pid), ff.prefetch(2, processes=2)))
    assert here not in in_workers
    assert set(ff.pipe(range(20), ff.map(pid), ff.prefetch(2, threads=2))) == {here}
    assert set(ff.pipe(range(20), ff.map(pid), ff.prefetch(2), ff.prefetch(2, processes=2))) == {here}


def test_stages_on_both_sides_of_a_stream_stage_run_in_workers():
    def stamped(pair):
        return [*pair, os.getpid()]

    def where(source):
        for pair in source:
            yield [*pair, os.getpid()]

    flow = ff.pipe(range(30), ff.map(lambda x: [os.getpid()]), where, ff.map(stamped), ff.prefetch(2, processes=2))
    for before, inside, after in flow:
        assert before != os.getpid()
        assert inside == os.getpid()
        assert after != os.getpid()


def test_with_one_process_everything_runs_there():
    def where(source):
        for _ in source:
            yield os.getpid()

    inner = ff.pipe(range(30), ff.map(pid), where, ff.prefetch(2, threads=2))
    flow = ff.pipe(inner, ff.map(lambda p: [p, os.getpid()]), ff.prefetch(2, processes=1))
    pids = {pid for pair in flow for pid in pair}
    assert len(pids) == 1
    assert os.getpid() not in pids


class Reading:
    """A DataFlow: it says in which process it is read."""

    resets = 0

    def reset_state(self):
        self.resets += 1

    def __iter__(self):
        return iter([os.getpid()] * 5)


@settings
def test_foreign_and_one_shot_sources_and_caches_stay_here(workers):
    foreign = Reading()
    assert set(ff.pipe(foreign, ff.map(abs), ff.prefetch(2, **workers))) == {os.getpid()}
    assert foreign.resets == 1
    once = (os.getpid() for _ in range(5))
    assert set(ff.pipe(once, ff.map(abs), ff.prefetch(2, **workers))) == {os.getpid()}
    made = []
    cached = ff.pipe(range(5), ff.map(lambda x: made.append(x) or x), ff.cache(), ff.prefetch(2))
    assert list(cached) == list(cached) == made == [0, 1, 2, 3, 4]


def test_explain_says_where(capsys):
    ff.explain(ff.pipe(range(9), ff.map(float), ff.filter(bool), ff.batch(2), ff.map(len), ff.prefetch(2, processes=3)))
    lines = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.replace("range(0, 9)", "range").splitlines()[1:]
    )
    for name in ("map(float)", "filter(bool)", "map(len)"):
        assert "3 processes of prefetch(2, processes=3)" in lines[name]
    assert "this process" in lines["batch(2)"]


def test_explain_says_of_a_flow_that_is_used_twice_only_once_what_it_is_made_of(capsys):
    flow = ff.pipe(range(10), ff.shuffle(), ff.map(float))
    ff.explain(ff.zip(flow, flow, ff.pad_to_multiple(2, flow)))
    names = [re.split(r"  +", line.strip())[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names[:4] == ["flow(range(0, 10))", "shuffle()", "map(float)", "map(float), as above"]
    assert [name for name in names if "map" in name] == ["map(float)", *["map(float), as above"] * 3]


# What travels


class Counted(list):
    """A list that counts how often it is pickled, and by which index it is read."""

    pickled = 0

    def __reduce__(self):
        Counted.pickled += 1
        return Counted, (list(self),)


def test_the_flow_travels_once_per_worker():
    Counted.pickled = 0
    flow = ff.pipe(Counted(range(200)), ff.map(lambda x: x + 1), ff.prefetch(2, processes=2))
    for _ in range(3):
        assert list(flow) == list(range(1, 201))
    assert Counted.pickled <= 2 * 3  # sizing it up and packing it, once in each pass, never once in each task


def test_of_a_large_sequence_only_the_wanted_datapoints_travel():
    words = [str(number) * 40 for number in range(40_000)]  # some seven megabytes
    flow = ff.pipe(words, ff.shuffle(), ff.take(1000), ff.map(len), ff.prefetch(2, processes=2))
    assert list(flow.run(epoch=0)) == [len(word) for word in ff.pipe(words, ff.shuffle(), ff.take(1000)).run(epoch=0)]
    assert [str(node.part)[:5] for stretch in stretches(flow.node.sources[0]) for node in stays(stretch)] == ["flow("]


def test_arrays_and_memory_maps_are_read_in_the_workers(tmp_path):
    array = np.arange(400_000, dtype=np.float32).reshape(1000, 400)
    path = tmp_path / "rows.npy"
    np.save(path, array)
    expected = array.sum(axis=1).tolist()
    for rows in (array, np.load(path, mmap_mode="r"), np.load(path, mmap_mode="r")[200:]):
        flow = ff.pipe(ff.from_arrays(rows), ff.map_component(np.sum, 0), ff.batch(64), ff.prefetch(2, processes=2))
        assert np.concatenate([sums for (sums,) in flow]).tolist() == expected[-len(rows) :]
    import cloudpickle

    assert len(cloudpickle.dumps(ff.from_arrays(np.load(path, mmap_mode="r")).node)) < 10_000


def test_a_sequence_that_cannot_be_pickled_is_read_here():
    class Locked:
        lock = None

        def __init__(self):
            self.lock = threading.Lock()

        def __len__(self):
            return 10

        def __getitem__(self, index):
            return os.getpid() if 0 <= index < 10 else [][index]

    assert set(ff.pipe(Locked(), ff.map(abs), ff.prefetch(2, processes=2))) == {os.getpid()}


def test_what_cannot_be_sent_is_named():
    lock = threading.Lock()

    def locked(x):
        with lock:
            return x

    with pytest.raises(TypeError, match=r"map\(locked\) cannot be sent to a worker process"):
        list(ff.pipe(range(3), ff.map(locked), ff.prefetch(2, processes=2)))


# Errors


def broken(x):
    if x == 57:
        raise OSError("broken", x)
    return x


@settings
def test_user_errors_keep_type_frames_and_note_and_come_after_what_was_made(workers):
    flow = ff.pipe(range(100), ff.map(broken), ff.batch(5), ff.prefetch(3, **workers))
    before = []
    with pytest.raises(OSError, match="broken") as caught:
        before.extend(flow)
    assert len(before) == 11
    assert caught.value.args == ("broken", 57)
    (note,) = caught.value.__notes__
    assert note.startswith("in map(broken), its datapoint 57 (input 57), seed 0, epoch 0\n")
    frames = "".join(str(caught.value.__cause__)) + "".join(entry.name for entry in caught.traceback)
    assert "broken" in frames
    with pytest.raises(OSError, match="broken"):
        ff.replay(flow, caught.value)


@settings
def test_an_error_below_a_filter_names_the_datapoint_of_its_stage(workers):
    flow = ff.pipe(range(100), ff.filter(lambda x: x % 2), ff.map(broken), ff.prefetch(3, **workers))
    with pytest.raises(OSError, match="broken") as caught:
        list(flow)
    assert caught.value.__notes__[0].startswith("in map(broken), its datapoint 28 (input 57)")


class Failing:
    """A large data set of one's own with a hole in it, which stays in this process because it holds a lock."""

    def __init__(self):
        self.lock = threading.Lock()

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return broken(index)


def failing_stream(source):
    for x in source:
        yield broken(x)


@settings
@pytest.mark.parametrize(
    "make",
    [
        lambda: ff.pipe(range(100), failing_stream, ff.map(float)),
        lambda: ff.pipe(Failing(), ff.map(float)),
        lambda: ff.pipe((broken(x) for x in range(100)), ff.map(float)),
        lambda: ff.pipe(range(100), ff.map(broken), ff.cache(), ff.map(float)),
        lambda: ff.pipe(range(100), ff.map(broken), ff.prefetch(2, threads=2), ff.map(float)),
    ],
    ids=["stream stage", "source", "iterator", "cache", "inner prefetch"],
)
def test_an_error_on_this_side_comes_after_what_was_made_too(workers, make):
    before = []
    with pytest.raises(OSError, match="broken") as caught:
        before.extend(ff.pipe(make(), ff.prefetch(3, **workers)))
    assert before == [float(x) for x in range(57)]
    assert len(caught.value.__notes__) == 1


class Picky(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def picky(x):
    raise Picky(1, 2)


def test_an_error_that_does_not_pickle_comes_as_it_is():
    with pytest.raises(Picky, match="1 and 2") as caught:
        list(ff.pipe(range(3), ff.map(picky), ff.prefetch(2, processes=2)))
    assert "in map(picky)" in caught.value.__notes__[0]


@pytest.mark.parametrize("arguments", [{"ahead": 0}, {"ahead": 2, "threads": 0}, {"ahead": 2, "processes": -1}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"prefetch\(\): .* must be a positive integer"):
        ff.prefetch(**arguments)


def test_threads_and_processes_exclude_each_other():
    with pytest.raises(
        ValueError, match=r"prefetch\(\): threads must be a positive integer, or left out where another"
    ):
        ff.prefetch(2, threads=2, processes=2)


# Nothing is left behind


def test_shut_down_waits_for_the_threads_that_feed_workers(monkeypatch):
    """One that the program's end overtakes has no time to tell the tracker that its semaphores are gone."""
    from loky.backend.queues import Queue

    feed = Queue._feed

    def slow(*arguments):
        feed(*arguments)
        time.sleep(0.3)

    ff.shut_down()
    monkeypatch.setattr(Queue, "_feed", slow)
    iterator = iter(ff.pipe(range(10**6), ff.map(abs), ff.batch(4), ff.prefetch(4, processes=2)))
    list(itertools.islice(iterator, 5))
    del iterator
    ff.shut_down()
    assert [thread.name for thread in threading.enumerate() if "Feeder" in thread.name] == []


@settings
@pytest.mark.parametrize("stop", ["close", "break", "with", "garbage", "error"])
def test_stopping_early_leaves_nothing(workers, stop):
    ff.shut_down()
    list(ff.pipe([1], ff.map(abs), ff.prefetch(1, processes=1)))  # the resource trackers stay
    ff.shut_down()
    gc.collect()
    before = left_behind()
    flow = ff.pipe(range(10_000), ff.map(float), ff.shuffle_buffer(10), ff.prefetch(5, **workers))
    if stop == "break":
        for _ in flow:
            break
    elif stop == "with":
        with iter(flow) as iterator:
            next(iterator)
    elif stop == "error":
        with pytest.raises(OSError, match="broken"):
            list(ff.pipe(flow, ff.map(broken)))
    else:
        iterator = iter(flow)
        next(iterator)
        if stop == "close":
            iterator.close()
        del iterator
    ff.shut_down()
    assert eventually(lambda: nothing_but(before)), (before, left_behind())


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
@pytest.mark.parametrize("stages", [[ff.shuffle(), ff.map(float)], [ff.filter(abs), ff.shuffle_buffer(4)]])
def test_what_a_flow_reads_is_let_go_with_the_flow(workers, stages):
    """At once, and not when garbage is collected: that may be late, and there may be much of it."""

    class Held(list):
        pass

    def read(source):
        flow = ff.pipe(source, *stages, ff.batch(2), ff.prefetch(2, **workers))
        for _ in flow:
            pass
        with iter(flow) as iterator:
            next(iterator)
        ff.explain(flow, file=io.StringIO())

    gc.disable()
    try:
        source = Held(range(40))
        held = weakref.ref(source)
        read(source)
        del source
        assert eventually(lambda: held() is None)
    finally:
        gc.enable()


def test_a_thousand_abandoned_iterators_leave_nothing():
    flow = ff.pipe(range(100), ff.map(float), ff.prefetch(2))
    before = left_behind()
    for _ in range(1000):
        next(iter(flow))
    assert eventually(lambda: nothing_but(before))


def test_an_iterator_that_is_never_asked_starts_nothing():
    before = left_behind()
    iterator = iter(ff.pipe(range(100), ff.map(float), ff.prefetch(2)))
    assert nothing_but(before)
    iterator.close()


def test_lambdas_closures_and_functions_of_main_work(tmp_path):
    done = run_script(
        """
        import flowfn as ff

        def double(x):
            return 2 * x

        class Pair:
            def __init__(self, x):
                self.x = x

        def closing(offset):
            return lambda x: Pair(double(x) + offset)

        if __name__ == "__main__":
            flow = ff.pipe(range(5), ff.map(closing(1)), ff.prefetch(2, processes=2))
            print([pair.x for pair in flow])
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("[1, 3, 5, 7, 9]\n", "")


def test_the_interpreter_ends_in_the_middle_of_a_pass(tmp_path):
    done = run_script(
        """
        import flowfn as ff
        held = [iter(ff.pipe(range(10**6), ff.map(float), ff.shuffle_buffer(3), ff.prefetch(2, **workers)))
                for workers in ({}, {"threads": 2}, {"processes": 2}, {"processes": 1})]
        print([next(iterator) < 10**6 for iterator in held])
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[True, True, True, True]\n", "", 0)


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_ctrl_c_ends_a_pass_and_leaves_the_workers_usable(workers, tmp_path):
    body = f"""
        import os, signal, sys, threading, time
        import flowfn as ff

        def slow(x):
            time.sleep(0.01)
            return x

        if __name__ == "__main__":
            flow = ff.pipe(range(100_000), ff.map(slow), ff.prefetch(4, **{workers!r}))
            iterator = iter(flow)
            next(iterator)
            threading.Timer(0.3, lambda: os.killpg(0, signal.SIGINT)).start()
            try:
                for _ in iterator:
                    pass
            except KeyboardInterrupt:
                print("interrupted")
            print(list(ff.pipe(range(3), ff.map(slow), ff.prefetch(4, **{workers!r}))))
        """
    done = run_script(body, tmp_path, start_new_session=True)
    assert (done.stdout, done.returncode) == ("interrupted\n[0, 1, 2]\n", 0), done.stderr


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_consumer(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, time
        import flowfn as ff

        def pid(x):
            time.sleep(0.05)
            return os.getpid()

        if __name__ == "__main__":
            for worker in ff.pipe(range(10_000), ff.map(pid), ff.prefetch(2, processes=2)):
                print(worker, flush=True)
        """)
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as consumer:
        workers = {int(consumer.stdout.readline()) for _ in range(8)}
        consumer.kill()
    assert workers
    assert eventually(lambda: not any(os.path.isdir(f"/proc/{worker}") for worker in workers))


def test_a_datapoint_that_always_ends_its_worker_is_named():
    def fatal(x):
        if x == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    flow = ff.pipe(range(100), ff.map(fatal), ff.prefetch(2, processes=2))
    got = []
    with pytest.raises(ff.WorkerDied, match="one datapoint") as raised:
        got.extend(x for x in flow)
    assert "in map(fatal), its datapoint 30" in "".join(raised.value.__notes__)
    assert list(ff.pipe(range(3), ff.map(float), ff.prefetch(2, processes=2))) == [0, 1, 2]


def pids(x):
    return list(ff.pipe(range(8), ff.map(lambda y: os.getpid()), ff.prefetch(2, processes=2)))


@pytest.mark.timeout(60)
def test_workers_that_come_and_go_leave_nothing_to_be_done_at_the_end():
    def registered():
        return len(threading._threading_atexits), len(multiprocessing.util._finalizer_registry), atexit._ncallbacks()

    def come_and_go():
        assert list(ff.pipe(range(4), ff.map(str), ff.prefetch(2, processes=2))) == list("0123")
        ff.shut_down()
        gc.collect()

    come_and_go()
    before = registered()
    for _ in range(3):
        come_and_go()
    assert eventually(lambda: gc.collect() >= 0 and all(now <= then for now, then in zip(registered(), before))), (
        before,
        registered(),
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_flow_inside_a_worker_prefetches_by_threads_there(workers):
    found = list(ff.pipe(range(4), ff.flat_map(pids), ff.prefetch(2, processes=workers)))
    assert len(found) == 32
    assert os.getpid() not in found
    assert len(set(found)) <= workers


def test_opencv_uses_one_thread_in_each_worker():
    def threads(x):
        import cv2

        return cv2.getNumThreads()

    assert list(ff.pipe(range(2), ff.map(threads), ff.prefetch(2, processes=2))) == [1, 1]


def test_workers_use_one_blas_thread_each():
    flow = ff.pipe(range(2), ff.map(lambda x: os.environ["OMP_NUM_THREADS"]), ff.prefetch(2, processes=2))
    assert list(flow) == ["1", "1"]


# Prefetch among orders, freezes and large sequences


def even(x):
    return x % 2 == 0


@settings
@pytest.mark.parametrize("k", [1, 17, 30])
def test_a_pass_resumes_under_workers_over_an_expand_stage(workers, k):
    def make():
        return ff.pipe(range(100), ff.filter(even), ff.flat_map(lambda x: [x] * (x % 3)), ff.map(float))

    whole = list(make())
    with ff.pipe(make(), ff.prefetch(2, **workers)).run() as iterator:
        assert [next(iterator) for _ in range(k)] == whole[:k]
        state = iterator.state_dict()
    resumed = ff.pipe(make(), ff.prefetch(2, **workers)).load_state_dict(state)
    with iter(resumed) as iterator:
        assert next(iterator) == whole[k]
        again = iterator.state_dict()
    assert list(make().load_state_dict(again)) == whole[k + 1 :]
    assert list(ff.pipe(make(), ff.prefetch(2, **workers)).run(start=k)) == whole[k:]


@settings
def test_a_freeze_over_a_stream_stays_frozen(workers):
    flow = ff.pipe(Stream(range(40)), ff.shuffle_buffer(4), ff.map(abs), ff.freeze(seed=5), ff.map(float))
    assert list(ff.pipe(flow, ff.prefetch(2, **workers)).run(epoch=1)) == list(flow.run(epoch=1))


WORDS = [str(number) * 300 for number in range(3000)]  # too large to travel


@pytest.mark.parametrize(
    "make",
    [
        lambda: ff.pipe(ff.concat(WORDS, WORDS[::-1]), ff.shuffle(), ff.take(700)),
        lambda: ff.pipe(WORDS, ff.take(300), ff.repeat(3), ff.shuffle()),
        lambda: ff.pipe(WORDS, ff.take(300), ff.freeze(), ff.repeat(2), ff.shuffle()),
        lambda: ff.pipe(ff.split(WORDS, 0.1)[0], ff.repeat(2)),
        lambda: ff.zip(ff.pipe(WORDS, ff.skip(2900)), ff.pipe(WORDS, ff.take(100), ff.shuffle())),
        lambda: ff.pipe(WORDS, ff.shuffle(), ff.take(500), ff.batch(7)),
    ],
    ids=["concat", "repeat", "freeze in repeat", "split in repeat", "zip", "batch"],
)
def test_large_sequences_are_supplied_under_every_order(make):
    flow = ff.pipe(make(), ff.map(str))
    assert list(ff.pipe(flow, ff.prefetch(2, processes=2)).run(epoch=1)) == list(flow.run(epoch=1))


@pytest.mark.parametrize("workers", [{}, {"threads": 2}], ids=str)
def test_rounds_of_a_prefetched_flow_end(workers):
    flow = ff.pipe(range(10), ff.map(float), ff.prefetch(2, **workers), ff.cycle(), ff.take(25))
    assert list(flow) == [float(x % 10) for x in range(25)]
    assert list(ff.pipe(range(10), ff.map(float), ff.prefetch(2, **workers), ff.repeat(3))) == [
        float(x % 10) for x in range(30)
    ]


def test_several_prefetches_below_one_order_do_not_disturb_each_other():
    def make(*stages):
        return ff.pipe(ff.concat(ff.pipe(range(5000), *stages), ff.pipe(range(5000, 9000), *stages)), ff.shuffle())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(3):
            assert list(make(ff.prefetch(50)).run()) == list(make().run())
            both = ff.zip(ff.pipe(range(5000), ff.prefetch(50)), ff.pipe(range(5000), ff.prefetch(50)))
            assert list(both) == [(x, x) for x in range(5000)]
            batches = ff.pipe(range(5000), ff.prefetch(50), ff.map(noisy, rng=True), ff.batch(10, collate=ff.as_list))
            assert len(list(batches)) == 500
    finally:
        sys.setswitchinterval(interval)


def test_windows_over_what_stays_here_are_the_same_in_workers():
    for here in (ff.cache(), ff.prefetch(2)):
        flow = ff.pipe(range(40), ff.map(abs), here, ff.window(3))
        fetched = ff.pipe(range(40), ff.map(abs), here, ff.window(3), ff.prefetch(3, threads=2))
        assert [w.tolist() for w in fetched] == [w.tolist() for w in flow]


# Sources that make one wait


@settings
def test_a_source_that_waits_for_what_came_of_its_datapoints_is_not_waited_for(workers):
    items = queue.SimpleQueue()
    items.put(0)
    got, sent = [], 1
    with iter(ff.pipe(ff.from_queue(items, timeout=20), ff.map(str), ff.prefetch(4, **workers))) as iterator:
        for number in range(1, 25):
            got.append(next(iterator))
            if items.empty() and len(got) == sent:  # all is back that was sent
                for _ in range(1 + number % 3):
                    items.put(sent)
                    sent += 1
    assert got == [str(number) for number in range(24)]


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_a_source_from_which_nothing_comes_in_time_is_named(workers):
    def stalls():
        yield from range(3)
        stalled.wait(30)

    stalled, got = threading.Event(), []
    list(ff.pipe(range(9), ff.map(float), ff.prefetch(4, **workers)))  # the workers are there
    try:
        with pytest.raises(TimeoutError, match=r"nothing came for timeout=1.5 seconds") as caught:
            got.extend(iter(ff.pipe(stalls, ff.map(float), ff.prefetch(4, timeout=1.5, **workers))))
        assert got == [0.0, 1.0, 2.0]
        assert "its output 3" in caught.value.__notes__[0]
    finally:
        stalled.set()


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_what_guards_count_below_a_stream_stage_is_that_of_serial_from_wherever_one_goes_on(workers):
    def make(*stages):
        fails = ff.guard(ff.map(lambda x: 1 // (x % 5) + x), errors=ZeroDivisionError, then="drop")
        return ff.pipe(range(60), fails, ff.shuffle_buffer(3), ff.map(float), *stages)

    def count_before_the_last(flow):
        with iter(flow) as iterator:
            *_, (_, state) = (
                (iterator.position, iterator.state_dict()) for _ in itertools.islice(iterator, 47 - iterator.position)
            )
            return state["position"], state["anchors"]["-2"]

    expected = count_before_the_last(make())
    with make(ff.prefetch(4, **workers)).run() as iterator:
        for position, _ in enumerate(iterator, 1):
            if position % 7 == 0:
                other = make()
                other.load_state_dict(iterator.state_dict())
                assert count_before_the_last(other) == expected
        assert [dropped.datapoint for dropped in iterator.dropped] == list(range(0, 60, 5))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_a_pass_that_goes_on_in_a_forked_child_is_an_error_there(workers):
    iterator = iter(ff.pipe(range(100), ff.map(float), ff.prefetch(2, **workers)))
    assert next(iterator) == 0
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            list(iterator)
        except RuntimeError as error:
            os._exit(0 if "cannot go on in a forked child" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert list(iterator) == [float(x) for x in range(1, 100)]


class Knot:
    """Something that only a collection of garbage ends."""

    def __init__(self, held):
        self.held, self.itself = held, self


def test_whether_garbage_is_collected_can_be_asked_whenever_it_is():
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert not any(collecting() for _ in range(1000))
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize("workers", [{}, {"threads": 2}, {"processes": 2}], ids=str)
def test_nobody_is_waited_for_while_garbage_is_collected(workers):
    """The thread that collects may hold what the one that it would wait for wants: here,
    a lock that a user's function takes."""

    def locked(x):
        with lock:
            return x

    lock = threading.RLock()
    knot = Knot(
        iter(
            ff.pipe(
                Stream(range(1000)),
                ff.shuffle_buffer(1),
                ff.map(float),
                ff.prefetch(2, **workers),
                ff.map(locked),
                ff.prefetch(1),
            )
        )
    )
    assert next(knot.held) == 0
    with lock:
        del knot
        gc.collect()
    ff.shut_down()
    assert eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("flowfn-")])
