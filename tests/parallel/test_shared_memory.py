"""The memory in which datapoints cross: without it, after forks, for large sources, and that nothing piles up in it."""

import gc
import os
import random
import signal
import sys
import threading
import time
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from parcels import alike, counts, family, numbered, shared_bytes
from waiting import ended_well, eventually, in_child

import flowfn as ff
from flowfn.datapoints import buffers
from flowfn.parallel.crossing import slots, transport
from flowfn.parallel.crossing.transport import pack_value, unpack_value
from flowfn.parallel.tasks.versions import Ledger
from flowfn.testing import same

pytestmark = [
    pytest.mark.timeout(40),
    pytest.mark.skipif(sys.platform != "linux", reason="shared memory is had on Linux only"),
]


forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def shared_memory_may_be_had():
    assert not slots.denied()
    yield
    slots.allow()


def descriptors(pid="self", of=""):
    """How many files a process has open, or those that are called so."""
    return sum(of in name for name in map(linked, Path(f"/proc/{pid}/fd").iterdir()))


def linked(path):
    """What a descriptor is open for; that by which a folder is listed is gone then."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


# Forks of the process that iterates


@forks
@counts
def test_a_child_sees_the_batches_that_were_held_at_the_fork_as_they_were(n):
    flow, expected = numbered(120)
    with iter(ff.pipe(flow, ff.prefetch(4, processes=n))) as iterator:
        held = list(islice(iterator, 8))
        ready, go = os.pipe()

        def child():
            os.read(ready, 1)
            assert same(held, expected[:8])
            assert not slots.slots.blocks

        pid = in_child(child)
        del held[:]
        kept = []
        for array in iterator:
            kept = [*kept[-3:], array]
        os.write(go, b"x")
        assert ended_well(pid)
        assert same(kept, expected[-4:])
        os.close(ready)
        os.close(go)


@forks
@counts
def test_a_child_that_ends_its_copy_of_a_pass_takes_nothing_from_its_parent(n):
    flow, expected = numbered(60)
    with iter(ff.pipe(flow, ff.prefetch(8, processes=n))) as iterator:
        got = list(islice(iterator, 10))
        time.sleep(0.2)  # outputs lie in their slots now, and nobody has fetched them
        assert ended_well(in_child(iterator.close))
        got += iterator
    assert same(got, expected)


@forks
def test_a_child_reads_its_large_sources_whatever_its_parent_does_meanwhile():
    x, y = np.zeros((400, 1000)), np.full((400, 1000), 7.0)
    flow, other = sums(x), sums(y)
    assert list(flow) == [0.0] * 8
    ready, go = os.pipe()

    def child():
        os.read(ready, 1)
        assert list(flow) == [0.0] * 8
        ff.shut_down()

    pid = in_child(child)
    ff.shut_down()
    assert list(other) == [350_000.0] * 8
    with iter(other):  # whatever is open now may have the number of what was open at the fork
        os.write(go, b"x")
        assert ended_well(pid)
    os.close(ready)
    os.close(go)


# Without shared memory


def denied(flow, expected):
    """The warnings of two passes over a flow that have to be right."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert same(list(flow), expected)
    return [warning for warning in caught if "shared memory" in str(warning.message)]


def refuse(*_):
    raise OSError(28, "No space left on device")


WAYS = {
    "no files in memory": lambda patch: patch.setattr(os, "memfd_create", refuse),
    "a platform without them": lambda patch: patch.delattr(os, "memfd_create"),
    "paths that workers cannot open": lambda patch, name=slots.SlotName: patch.setattr(
        slots, "SlotName", lambda path, *rest: name("/proc/self/no/such/file", *rest)
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize(
    ("n", "there"), [(1, False), (2, False), (2, True)], ids=["made in one", "made in two", "sent to two"]
)
def test_where_shared_memory_cannot_be_had_one_warning_says_what_to_do(n, way, there):
    flow, expected = numbered(30)
    if there:
        flow = ff.pipe(lambda: iter(expected), ff.map(lambda a: a))
    flow = ff.pipe(flow, ff.prefetch(3, processes=n))
    with pytest.MonkeyPatch.context() as patch:
        way(patch)
        (told,) = denied(flow, expected)
        assert told.category is RuntimeWarning
        for word in ("prefetch()", "pickled", "memfd_create", "/proc", "threads="):
            assert word in str(told.message)
    ff.shut_down()
    assert denied(flow, expected) == []
    with iter(flow) as iterator:
        next(iterator)
        assert slots.slots.blocks


@pytest.mark.parametrize("way", ["no files in memory", "paths that workers cannot open"])
def test_large_sources_cross_without_shared_memory(way):
    x = np.arange(400_000.0).reshape(-1, 1000)
    flow = ff.pipe(ff.from_arrays(x=x), ff.batch(50), ff.prefetch(2, processes=2))
    with pytest.MonkeyPatch.context() as patch:
        WAYS[way](patch)
        assert len(denied(flow, [{"x": x[at : at + 50]} for at in range(0, 400, 50)])) == 1


def test_workers_that_find_no_memory_left_send_what_they_made():
    def fail(i):
        import os

        def refused(*_):
            raise OSError(28, "No space left on device")

        setattr(os, "posix_fallocate", refused)  # noqa: B010  # in the worker
        return np.full(20_000, i, np.float64)

    expected = [np.full(20_000, i, np.float64) for i in range(30)]
    ff.shut_down()
    (told,) = denied(ff.pipe(range(30), ff.map(fail), ff.prefetch(3, processes=2)), expected)
    assert "No space left" in str(told.message)
    ff.shut_down()


def test_an_error_of_the_users_own_is_not_taken_for_a_lack_of_shared_memory():
    here = os.getpid()

    class Opens:
        def __getstate__(self):
            return {"name": "weights.bin"}

        def __setstate__(self, state):
            if os.getpid() != here:
                raise FileNotFoundError(2, "No such file or directory", state["name"])

        def __call__(self, value):
            return value

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Exception, match=r"weights\.bin"):
            list(ff.pipe(range(4), ff.map(Opens()), ff.prefetch(2, processes=2)))
    assert not slots.denied()


def test_more_slots_than_descriptors_allow_are_not_needed(monkeypatch):
    monkeypatch.setattr(slots, "most", lambda: 3)
    flow, expected = numbered(60)
    assert denied(ff.pipe(flow, ff.prefetch(8, processes=2)), expected) == []


# Large arrays of sources


@pytest.fixture
def made(monkeypatch):
    """The shared files that arrays of sources were put into."""
    found = []
    original = transport.Slot

    class Counted(original):
        def __init__(self):
            super().__init__()
            found.append(self.name)

    monkeypatch.setattr(transport, "Slot", Counted)
    return found


def sums(x, n=2, size=50):
    return ff.pipe(
        ff.from_arrays(x=x), ff.batch(size), ff.map(lambda batch: float(batch["x"].sum())), ff.prefetch(2, processes=n)
    )


def test_a_large_array_of_a_source_is_put_into_shared_memory_once(made):
    x, small = np.ones((400, 1000)), np.ones((400, 10))
    flow, other = sums(x), sums(small)
    for _ in range(3):
        assert list(flow) == [50_000.0] * 8
        assert list(ff.pipe(flow, ff.take(2))) == [50_000.0] * 2
        assert list(other) == [500.0] * 8
    assert len(made) == 1


def test_workers_see_what_was_written_to_an_array_between_two_passes(made):
    x = np.zeros((400, 1000))
    flow = sums(x)
    for value in range(4):
        x[:] = value
        assert list(flow) == [50_000.0 * value] * 8
    x[-1, -1] += 1
    assert list(flow)[-2:] == [50_000.0 * 3, 50_000.0 * 3 + 1]
    assert len(made) == 5


@pytest.mark.parametrize("order", ["C", "F", "strided", "dates", "structure"])
def test_large_arrays_of_sources_of_any_layout_are_right(order, made):
    x = np.arange(400_000.0).reshape(400, 1000)
    x = {
        "C": x,
        "F": np.asfortranarray(x),
        "strided": np.repeat(x, 2, 1)[:, ::2],
        "dates": x.astype("M8[s]"),
        "structure": x.view([("a", np.float32), ("b", np.int32)]),
    }[order]
    got = list(ff.pipe(ff.from_arrays(x=x), ff.shuffle(), ff.batch(100), ff.prefetch(2, processes=2)).run(seed=1))
    expected = list(ff.pipe(ff.from_arrays(x=x), ff.shuffle(), ff.batch(100)).run(seed=1))
    assert all(alike(a["x"], b["x"]) and a["x"].flags.writeable for a, b in zip(got, expected, strict=True))
    assert len(made) == 1


@counts
def test_rows_of_large_sources_are_read_only_in_workers_too(n):
    x = np.zeros((20, 50_000))
    got = list(
        ff.pipe(ff.from_arrays(x=x), ff.map(lambda d: [d["x"].flags.writeable, d["x"]]), ff.prefetch(2, processes=n))
    )
    assert [told for told, _ in got] == [False] * 20
    assert [array.flags.writeable for _, array in got] == [False] * 20


def test_large_arrays_of_sources_are_let_go_with_their_flow():
    list(sums(np.ones((400, 1000))))  # the workers are there
    gc.collect()
    before, open_before = set(transport._shared), descriptors(of="memfd")
    for _ in range(8):
        x = np.ones((400, 1000))
        flow = sums(x)
        list(flow)
        assert len(set(transport._shared) - before) == 1
        del flow, x
        assert eventually(lambda: gc.collect() >= 0 and set(transport._shared) <= before)
    assert eventually(lambda: descriptors(of="memfd") < open_before + 8)  # some are kept, and used again


@counts
def test_what_a_worker_keeps_of_a_large_source_outlives_its_flow(n):
    def keep(datapoint):
        import sys

        sys.modules["flowfn"].__dict__.setdefault("_kept_by_a_test", []).append(datapoint["x"])

    def kept(_):
        import sys

        return {float(row.sum()) for row in sys.modules["flowfn"].__dict__.get("_kept_by_a_test", [])}

    x = np.ones((40, 50_000))
    flow = ff.pipe(ff.from_arrays(x=x), ff.map(keep), ff.prefetch(2, processes=n))
    assert list(flow) == [None] * 40
    del flow, x
    gc.collect()
    seen = set().union(*ff.pipe(range(20), ff.map(kept), ff.prefetch(2, processes=n)))
    assert seen == {50_000.0}
    ff.shut_down()


def test_flows_that_come_and_go_do_not_pile_up_in_workers():
    ff.shut_down()
    for value in range(16):
        assert list(sums(np.full((400, 1000), float(value)))) == [50_000.0 * value] * 8
        gc.collect()
    assert shared_bytes() <= 12 * 3_200_000  # what the newest trees of a worker may hold


def test_a_pass_over_a_large_source_goes_on_after_a_shut_down():
    x = np.arange(4_000_000.0).reshape(400, -1)
    flow = ff.pipe(ff.from_arrays(x=x), ff.batch(10), ff.map(lambda batch: batch["x"] + 1), ff.prefetch(2, processes=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with iter(flow) as iterator:
            got = [next(iterator)]
            ff.shut_down()
            got += iterator
    assert same(got, [x[at : at + 10] + 1 for at in range(0, 400, 10)])


def test_a_pass_goes_on_over_what_its_source_was_when_another_shares_it_anew():
    x = np.zeros((400, 1000))
    flow = sums(x)
    with iter(flow) as first:
        assert next(first) == 0.0
        x[:] = 1
        assert list(flow) == [50_000.0] * 8
        assert list(sums(np.full((400, 1000), 7.0))) == [350_000.0] * 8
        for worker in family()[1:]:
            os.kill(worker, signal.SIGKILL)
        assert set(first) <= {0.0, 50_000.0}


# Nothing piles up


@counts
def test_descriptors_and_slots_do_not_grow_over_passes(n):
    flow, expected = numbered(12)
    flow = ff.pipe(flow, ff.prefetch(3, processes=n))
    for _ in range(4):
        list(flow)
    gc.collect()
    before, workers = descriptors(), {pid: descriptors(pid) for pid in family()[1:]}
    for _ in range(20):
        for i, array in enumerate(flow):
            assert array[0] == i
        del array
    gc.collect()
    assert not slots.slots.blocks
    assert descriptors() <= before
    grown = {pid: descriptors(pid) - count for pid, count in workers.items() if pid in family()}
    assert all(more <= 64 for more in grown.values()), grown
    assert expected


@counts
def test_shared_memory_that_nobody_looks_at_any_more_is_free(n):
    ff.shut_down()
    flow, expected = numbered(30, 100_000)
    flow = ff.pipe(flow, ff.prefetch(3, processes=n))
    for _ in range(5):
        kept = list(flow)
        assert same(kept[-1], expected[-1])
        del kept
        gc.collect()
    assert eventually(lambda: shared_bytes() <= 30 * 1_100_000, 5)


@counts
def test_a_pass_that_is_over_holds_no_slots(n):
    flow, expected = numbered(30)
    with iter(ff.pipe(flow, ff.prefetch(3, processes=n))) as iterator:
        kept = list(islice(iterator, 5))
        assert slots.slots.blocks
    assert eventually(lambda: not slots.slots.blocks)
    assert same(kept, expected[:5])
    list(ff.pipe(flow, ff.prefetch(3, processes=n)))
    assert same(kept, expected[:5])


def test_slots_of_tasks_whose_datapoints_cannot_travel_are_used_again():
    flow, expected = numbered(200)
    with iter(ff.pipe(flow, ff.prefetch(3, processes=2))) as iterator:
        got = [next(iterator)]
        before = len(slots.slots.blocks)
        for _ in range(20):
            with pytest.raises(TypeError, match="lock"):
                list(ff.pipe(lambda: iter([threading.Lock()]), ff.map(str), ff.prefetch(2, processes=2)))
        assert len(slots.slots.blocks) <= before + 2
        got += iterator
    assert same(got, expected)


BATCHES = ff.pipe(range(80), ff.map(lambda i: np.full(1 << 16, i, np.float32)), ff.batch(4))


@pytest.mark.parametrize(
    "flow",
    [
        ff.pipe(BATCHES, ff.cycle(), ff.take(80)),
        ff.pipe(BATCHES, ff.shuffle(), ff.map(lambda x, rng: x + 1, rng=True), ff.repeat(4)),
        ff.concat(BATCHES, BATCHES, BATCHES, BATCHES),
        ff.mix(BATCHES, BATCHES, BATCHES, BATCHES, weights=[1, 1, 1, 1]),
        ff.pipe(ff.zip(BATCHES, BATCHES), ff.repeat(2)),
    ],
    ids=["cycle", "repeat", "concat", "mix", "zip"],
)
def test_whatever_a_task_was_done_by_its_slot_is_used_again(flow, monkeypatch):
    made, make = [], slots.slots.make
    monkeypatch.setattr(slots.slots, "make", lambda size: made.append(make(size)) or made[-1])
    for number, _ in enumerate(ff.pipe(flow, ff.prefetch(2, processes=1))):
        if number == 20:
            before = len(made)
    assert len(made) <= before + 1


def test_many_threads_iterate_at_once_and_keep_what_they_get():
    flow, expected = numbered(60)
    flow, wrong = ff.pipe(flow, ff.prefetch(3, processes=2)), []

    def work(number):
        rng, kept = random.Random(number), {}
        try:
            for i, array in enumerate(flow.run(epoch=0)):
                kept[i] = array[rng.randrange(9) :]
                if len(kept) > 7:
                    del kept[rng.choice(list(kept))]
                wrong.extend((number, i, at) for at, have in kept.items() if not (have == at).all())
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert expected


# Parcels


def test_a_parcel_of_a_few_hundred_bytes_holds_what_lies_in_shared_memory():
    slot = slots.Slot()
    desk = slots.Desk(slot)
    value = {"a": np.arange(1_000_000), "b": np.asfortranarray(np.ones((500, 500)))}
    parcel = transport.pack_value(value, desk)
    assert len(parcel.data) < 1000
    assert len(parcel.spans) == 2
    assert alike(transport.unpack_value(parcel, slot.memory), value)
    assert alike(transport.unpack_value(parcel, slot.memory, copied=True), value)
    assert alike(transport.unpack_value(transport.pack_value(value)), value)


def test_an_array_that_was_made_at_the_desk_is_not_copied():
    slot = slots.Slot()
    desk = slots.Desk(slot)
    with buffers.allocated_by(desk.allocate):
        array = ff.stack([np.arange(50_000)] * 2)
    used = desk.used
    parcel = transport.pack_value([array, array[1:], array.reshape(-1)[100:60_000]], desk)
    assert desk.used == used
    got = transport.unpack_value(parcel, slot.memory)
    assert alike(got, [array, array[1:], array.reshape(-1)[100:60_000]])
    got[0][:] = 7
    assert set(got[1].reshape(-1).tolist()) == set(array.reshape(-1).tolist()) == {7}


def test_a_desk_gives_room_that_nobody_has():
    rng = random.Random(5)
    slot = slots.Slot()
    desk, kept = slots.Desk(slot), []
    for value in range(400):
        size = rng.randrange(1, 300_000)
        room = desk.allocate(size)
        room[:] = value % 256
        kept.append((value % 256, room))
        while len(kept) > rng.randrange(1, 7):
            del kept[rng.randrange(len(kept))]
        for have, room in kept:
            assert have == room[0] == room[-1]
            assert (room == have).all()
        del room
    assert desk.watched == bool(kept)
    kept.clear()
    assert not desk.watched
    assert slot.size < 30 << 20


@pytest.mark.parametrize("workers", [1, 2])
def test_large_pickles_lie_in_shared_memory_both_ways(workers):
    def photographs():
        for number in range(40):
            yield [bytes([number]) * 200_000, "x" * 100_000, list(range(5000))]

    echoed = list(ff.pipe(photographs, ff.map(lambda datapoint: datapoint), ff.prefetch(4, processes=workers)))
    assert echoed == list(photographs())


def test_a_large_pickle_takes_no_room_in_a_parcel():
    slot = slots.Slot()
    parcel = transport.pack_value([bytes(300_000), np.zeros(100_000), "small"], slots.Desk(slot), Ledger())
    assert parcel.data == b""
    assert len(parcel.spans) == 2
    held, array, text = transport.unpack_value(parcel, slot.memory)
    assert (held, array.sum(), text) == (bytes(300_000), 0, "small")
    assert transport.unpack_value(parcel, slot.memory, copied=True)[0] == bytes(300_000)


@pytest.mark.parametrize(
    "dtype", [">i2", ">f4", ">f8", ">c8", ">g", ">M8[s]", ">U3", [("a", ">i4"), ("b", "<f8")]], ids=str
)
@pytest.mark.parametrize("count", [0, 4, 100_000])
def test_the_order_of_bytes_stays(dtype, count):
    rows = np.zeros((count, 2), dtype)
    for value in (rows, rows[:, 1], rows[::2], rows.T, np.asfortranarray(rows)):
        (back,) = unpack_value(pack_value([value]))
        assert (back.dtype, back.shape) == (value.dtype, value.shape)
        assert back.tobytes() == value.tobytes()
