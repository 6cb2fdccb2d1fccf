"""A process may be forked at any moment: its children iterate flows, whatever its threads were doing."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import pytest

from flowfn.process import forks

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), pytest.mark.timeout(300)]

BUSY = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of forks with threads
import numpy as np
import flowfn as ff
from flowfn import formats
from flowfn.datasets.in_memory import in_memory_flow

folder = sys.argv[1]
forks = int(sys.argv[2])

def made():
    return [np.full(40, i) for i in range(60)]

def read(path):
    return [np.arange(60)[:, None] + np.zeros((60, 40))]

write = {
    "lmdb": formats.write_lmdb, "npy": formats.write_npy, "npz": formats.write_npz, "h5": formats.write_hdf5, "zarr": formats.write_zarr,
    "tfrecord": formats.write_tfrecord, "parquet": formats.write_parquet, "csv": formats.write_csv, "tar": formats.write_webdataset,
}
give = {
    "npz": lambda: [{"x": x} for x in made()], "h5": lambda: [{"x": x} for x in made()], "zarr": lambda: [{"x": x} for x in made()],
    "parquet": lambda: [{"x": i} for i in range(60)], "csv": lambda: [{"x": i} for i in range(60)],
    "tar": lambda: [{"__key__": str(i), "txt": str(i)} for i in range(60)],
}
for name, function in write.items():
    function(f"{folder}/a.{name}", give.get(name, made)())

flows = {
    "a list": lambda: ff.pipe(made(), ff.shuffle(), ff.batch(7)),
    "arrays": lambda: ff.pipe(ff.from_arrays(x=np.zeros((60, 50_000))), ff.shuffle(), ff.batch(7)),
    "stacked": lambda: ff.pipe([np.zeros(90_000)] * 30, ff.map(np.copy), ff.batch(5)),
    "padded": lambda: ff.pipe([np.zeros(90_000)] * 30, ff.batch(5, collate=ff.pad(0))),
    "held": lambda: ff.pipe(in_memory_flow("held", "held()", read, "x"), ff.batch(7)),
    "a cache": lambda: ff.pipe(made(), ff.cache(), ff.map(len)),
    "cache_to": lambda: ff.pipe(made(), ff.cache_to(f"{folder}/kept"), ff.map(len)),
    "a mix": lambda: ff.mix(ff.pipe(range(60), ff.prefetch(2)), range(60)),
    "a thread": lambda: ff.pipe(made(), ff.batch(7), ff.prefetch(2)),
    "threads": lambda: ff.pipe(made(), ff.shuffle(), ff.batch(7), ff.prefetch(2, threads=2)),
    "lmdb": lambda: ff.pipe(formats.read_lmdb(f"{folder}/a.lmdb"), ff.shuffle(), ff.batch(7)),
    "npy": lambda: ff.pipe(formats.read_npy(f"{folder}/a.npy"), ff.batch(7)),
    "npz": lambda: ff.pipe(formats.read_npz(f"{folder}/a.npz"), ff.batch(7)),
    "hdf5": lambda: ff.pipe(formats.read_hdf5(f"{folder}/a.h5", "x"), ff.batch(7)),
    "tfrecord": lambda: ff.pipe(formats.read_tfrecord(f"{folder}/a.tfrecord"), ff.batch(7)),
    "csv": lambda: ff.pipe(formats.read_csv(f"{folder}/a.csv"), ff.batch(7)),
    "tar": lambda: ff.pipe(formats.read_webdataset(f"{folder}/a.tar"), ff.take(20)),
    "parquet": lambda: ff.pipe(formats.read_parquet(f"{folder}/a.parquet"), ff.batch(7)),
    "zarr": lambda: ff.pipe(formats.read_zarr(f"{folder}/a.zarr", "x"), ff.batch(7)),
    "processes": lambda: ff.pipe([np.zeros(90_000)] * 30, ff.map(np.copy), ff.batch(5), ff.prefetch(2, processes=2)),
}
flows = {name: make() for name, make in flows.items()}
expected = {name: len(list(flow)) for name, flow in flows.items()}

def work(name):
    while True:
        for _ in flows[name]:
            pass
        time.sleep(0.0003 * (hash(name) % 7))

def come_and_go():
    while True:
        ff.warm_up(1)
        time.sleep(0.05)
        ff.shut_down()
        time.sleep(0.5)

for name in flows:
    threading.Thread(target=work, args=(name,), daemon=True).start()
threading.Thread(target=come_and_go, daemon=True).start()
names = [name for name in flows if name != "processes"]  # of its own, which take long to start: once
failed = []
for number in range(forks):
    time.sleep(0.001)
    checked = ["processes"] if number == forks // 2 else [names[(2 * number + k) % len(names)] for k in range(2)]
    if not (child := os.fork()):
        signal.alarm(40 if number == forks // 2 else 15)
        for name in checked:
            if len(list(flows[name])) != expected[name]:
                os._exit(1)
        os._exit(0)
    if status := os.waitpid(child, 0)[1]:
        failed.append((number, checked, status))
        if len(failed) > 3:
            break
print(failed, flush=True)
os._exit(bool(failed))
"""


def succeeds_in_a_child(function):
    """Whether a function returns true in a forked child."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if function() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_makes_one_of_its_own_and_a_forked_child_another():
    own = forks.Own(list)
    own().append("parent")
    assert own() == ["parent"]
    assert succeeds_in_a_child(lambda: own() == [] and own() is own())
    assert own() == ["parent"]


def test_where_it_is_unpickled_it_is_made_anew():
    own = forks.Own(list)
    own().append("here")
    assert pickle.loads(pickle.dumps(own))() == []


def test_an_own_value_is_made_once_and_after_an_error_again():
    made = []

    def make():
        made.append(None)
        return 1 // (len(made) - 1)

    own = forks.Own(make)
    with pytest.raises(ZeroDivisionError):
        own()
    assert (own(), own(), len(made)) == (1, 1, 2)


def test_what_a_child_has_of_its_parent_is_inherited():
    thing = forks.Owned()
    assert not thing.inherited
    assert succeeds_in_a_child(lambda: thing.inherited and copy.copy(thing).inherited and not forks.Owned().inherited)


def test_a_lock_that_another_thread_holds_is_free_in_a_child():
    lock, held, over = forks.lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        assert succeeds_in_a_child(lambda: lock.acquire(blocking=False))
    finally:
        over.set()
        thread.join()


@pytest.mark.long
def test_children_forked_while_everything_is_busy_iterate(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BUSY, str(tmp_path), "20"], capture_output=True, text=True, timeout=280, cwd=tmp_path
    )
    # a worker that starts at the moment when this ends, without a word to anybody, says so itself
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "[]"), done.stderr[-3000:]
