"""Large arrays are made in recycled memory: nobody can tell, but by the time that it takes."""

import contextlib
import ctypes
import datetime
import gc
import os
import pickle
import random
import threading
import time

import numpy as np
import pytest
from waiting import ended_well, in_child

import flowfn as ff
from flowfn.datapoints import buffers
from flowfn.testing import same

pytestmark = pytest.mark.timeout(40)

LARGE = (2, buffers.WORTH)
forks = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class Tagged(np.ndarray):
    """An array of a class of its own."""


@contextlib.contextmanager
def under_way():
    """A pass over some flow."""
    with iter(ff.pipe(range(2))) as iterator:
        next(iterator)
        yield


@pytest.fixture(autouse=True)
def nothing_is_held_before_and_after():
    gc.collect()
    assert not holds()
    yield
    gc.collect()
    assert not holds()


def holds():
    """How many blocks of memory the pool has."""
    return len(buffers.heap.blocks) + len(buffers.heap.free) + len(buffers.heap.leases)


def address(array):
    return array.__array_interface__["data"][0]


def filled(value, shape=LARGE, dtype=np.uint8):
    made = buffers.empty(shape, dtype)
    made.fill(value)
    return made


def dropped(array):
    """The address of an array that nobody has any more."""
    return address(array)


def overwritten(count=6, shape=LARGE, dtype=np.uint8):
    """Make arrays in whatever memory is free."""
    kept = [filled(0xAA, shape, dtype) for _ in range(count)]
    del kept
    for _ in range(count):
        filled(0xBB, shape, dtype)


def images(n=60, shape=(256, 256)):
    """Rows of 64 KiB, each of its own number."""
    return (np.arange(n) % 251).astype(np.uint8)[:, None, None] + np.zeros(shape, np.uint8)


def batches(n=600, size=20):
    """A flow of batches that are large, and what they should be."""
    x = images(n)
    return ff.pipe(ff.from_arrays(x=x), ff.batch(size)), [{"x": x[at : at + size]} for at in range(0, n, size)]


# Memory is used again


def test_the_memory_of_a_dropped_array_is_used_again():
    with under_way():
        first = dropped(filled(1))
        assert {dropped(filled(value)) for value in range(9)} == {first}


def test_batches_that_are_dropped_are_made_in_the_same_memory():
    flow, _ = batches()
    assert len({address(batch["x"]) for batch in flow}) <= 2


@pytest.mark.parametrize(
    "stages",
    [
        [ff.batch(20)],
        [ff.map(lambda d: d), ff.batch(20)],
        [ff.batch(20, collate=ff.pad(0))],
        [ff.batch(7), ff.rebatch(20)],
        [ff.shuffle(), ff.batch(20)],
    ],
    ids=["gathered", "stacked", "padded", "rebatched", "shuffled"],
)
def test_every_stage_that_makes_large_arrays_recycles_them(stages):
    flow = ff.pipe(ff.from_arrays(x=images(600)), *stages)
    assert len({address(batch["x"]) for batch in flow}) <= 3


def test_small_arrays_and_arrays_of_objects_are_ordinary():
    with under_way():
        for array in (
            buffers.empty((buffers.WORTH - 1,), np.uint8),
            buffers.empty((), np.float64),
            buffers.empty((0, 1 << 20), np.float64),
            buffers.empty((buffers.WORTH,), object),
            buffers.empty((buffers.WORTH,), [("x", np.int64), ("y", object)]),
        ):
            assert array.base is None
        assert not holds()


def test_outside_of_a_pass_memory_is_ordinary():
    assert filled(1).base is None
    assert ff.stack([np.zeros(1 << 16)] * 2).base is None
    assert not holds()


def test_arrays_have_the_shape_dtype_alignment_and_writability_of_numpys():
    with under_way():
        for dtype in (
            np.uint8,
            np.float32,
            np.complex128,
            np.longdouble,
            ">f8",
            "M8[ns]",
            "U7",
            "S3",
            [("a", np.int8), ("b", np.float64, 3)],
        ):
            made, ordinary = buffers.empty((3, 400_000), dtype), np.empty((3, 400_000), dtype)
            assert made.base is not None
            assert (made.shape, made.dtype, made.strides) == (ordinary.shape, ordinary.dtype, ordinary.strides)
            assert all(made.flags[name] for name in ("WRITEABLE", "ALIGNED", "C_CONTIGUOUS"))


# Nobody's array is overwritten

VIEWS = {
    "itself": lambda a: a,
    "a slice": lambda a: a[:, 1:],
    "a view of views of views": lambda a: a[1:][:, ::2][..., None].T[0],
    "a reshape": lambda a: a.reshape(-1),
    "a view of another dtype": lambda a: a.view(np.uint64),
    "a view of another class": lambda a: a.view(Tagged),
    "a masked array": lambda a: np.ma.masked_array(a),
    "a broadcast": lambda a: np.broadcast_to(a[:, None], (2, 3, a.shape[1])),
    "strides": lambda a: np.lib.stride_tricks.sliding_window_view(a, 5, axis=1),
    "a flat iterator": lambda a: a.flat,
    "a memoryview": memoryview,
    "a memoryview of a memoryview": lambda a: memoryview(memoryview(a)[1:])[:1],
    "asarray of a memoryview": lambda a: np.asarray(memoryview(a)),
    "frombuffer": lambda a: np.frombuffer(a, np.uint16)[3:],
    "dlpack": np.from_dlpack,
    "a pickle buffer": pickle.PickleBuffer,
    "ctypes": lambda a: (ctypes.c_uint8 * a.nbytes).from_buffer(a),
    "a closure": lambda a: lambda: a[1],
    "a cycle": lambda a: (lambda ring: ring.append(ring) or ring)([a[0]]),
}


def bytes_of(view):
    """The values that can be seen through a view."""
    if callable(view):
        view = view()
    if isinstance(view, (list, np.flatiter)):
        view = view[0] if isinstance(view, list) else view[:]
    return set(np.asarray(view).reshape(-1).view(np.uint8).tolist())


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_memory_is_not_used_again_while_anything_looks_into_it(view):
    with under_way():
        kept = view(filled(7))
        overwritten()
        assert bytes_of(kept) == {7}
    overwritten()
    assert bytes_of(kept) == {7}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_memory_is_used_again_when_nothing_looks_into_it_any_more(view):
    with under_way():
        array = filled(7)
        before = address(array)
        kept = view(array)
        del array, kept
        gc.collect()
        assert dropped(filled(8)) == before


def test_a_view_that_another_thread_holds_keeps_the_memory():
    held, release, seen = threading.Event(), threading.Event(), []

    def hold(arrays):
        view = arrays.pop()[:, 5:]
        held.set()
        release.wait(20)
        seen.append(bytes_of(view))

    with under_way():
        arrays = [filled(7)]
        thread = threading.Thread(target=hold, args=(arrays,))
        thread.start()
        held.wait(20)
        overwritten()
        release.set()
        thread.join()
    assert seen == [{7}]


def test_a_view_that_lives_on_after_its_batch_was_replaced_keeps_the_memory():
    flow, expected = batches()
    rows = [batch["x"][3] for batch in flow]
    assert all(np.array_equal(row, want["x"][3]) for row, want in zip(rows, expected))


def test_a_consumer_that_keeps_every_batch_has_every_batch():
    flow, expected = batches()
    assert same(list(flow), expected)


def test_a_consumer_that_keeps_some_batches_has_those():
    flow, expected = batches()
    rng = random.Random(0)
    kept = {}
    for index, batch in enumerate(flow):
        kept[index] = batch
        if len(kept) > 4:
            del kept[rng.choice(list(kept))]
        assert all(same(have, expected[at]) for at, have in kept.items())


def test_batches_may_be_written_to():
    flow, expected = batches()
    previous = None
    for batch, want in zip(flow, expected):
        assert same(batch, want)
        batch["x"] += 100
        if previous is not None:
            assert np.array_equal(previous[0]["x"], previous[1]["x"] + 100)
        previous = batch, want


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_made_in_threads_are_kept(threads):
    flow, expected = batches()
    assert same(list(ff.pipe(flow, ff.prefetch(3, threads=threads))), expected)


def test_what_stages_keep_is_not_overwritten():
    flow, expected = batches()
    cached = ff.pipe(flow, ff.cache())
    assert same(list(cached), expected)
    assert same(list(cached), expected)
    shuffled = list(ff.pipe(flow, ff.shuffle_buffer(7)))
    assert same(
        sorted(shuffled, key=lambda batch: batch["x"][0, 0, 0].item()),
        sorted(expected, key=lambda b: b["x"][0, 0, 0].item()),
    )
    assert same(
        list(ff.pipe(flow, ff.batch(2, collate=None))), [expected[at : at + 2] for at in range(0, len(expected), 2)]
    )


# Nothing is held when no pass is under way


def test_an_exhausted_pass_holds_nothing_and_its_arrays_stay_valid():
    flow, expected = batches()
    kept = list(flow)
    assert not holds()
    overwritten()
    assert same(kept, expected)


def test_a_closed_pass_holds_nothing_and_its_arrays_stay_valid():
    flow, expected = batches()
    with iter(flow) as iterator:
        kept = [next(iterator) for _ in range(5)]
        assert holds()
    assert not holds()
    list(flow)
    assert same(kept, expected[:5])


def test_an_abandoned_pass_holds_nothing():
    flow, expected = batches()
    iterator = iter(flow)
    kept = next(iterator)
    assert holds()
    del iterator
    gc.collect()
    assert not holds()
    assert same(kept, expected[0])


def test_an_abandoned_pass_in_a_cycle_holds_nothing():
    flow, _ = batches()
    ring = [iter(flow)]
    next(ring[0])
    ring.append(ring)
    del ring
    gc.collect()
    assert not holds()


@pytest.mark.parametrize("how", ["map", "collate", "source", "opening"])
def test_a_pass_that_fails_holds_nothing(how):
    def fail(value):
        raise KeyError("in vain")

    def source():
        yield np.zeros(1 << 18)
        fail(0)

    flow = {
        "map": ff.pipe(ff.from_arrays(x=images()), ff.batch(20), ff.map(fail)),
        "collate": ff.pipe(ff.from_arrays(x=images()), ff.map(dict), ff.batch(20, collate=fail)),
        "source": ff.pipe(source, ff.batch(1)),
        "opening": ff.pipe(lambda: fail(0), ff.batch(1)),
    }[how]
    with pytest.raises(KeyError):
        list(flow)
    gc.collect()
    assert not holds()
    assert not buffers._passes


def test_a_pass_that_is_loaded_again_and_again_is_one_pass():
    flow, expected = batches()
    with iter(flow) as iterator:
        next(iterator)
        state = iterator.state_dict()
        for _ in range(3):
            iterator.load_state_dict(state)
            assert same(next(iterator), expected[1])
    assert not buffers._passes


def test_memory_is_held_until_the_last_of_several_passes_ends():
    flow, _ = batches()
    with iter(flow) as first, iter(flow) as second:
        next(first)
        next(second)
        first.close()
        first.close()
        assert holds()
    assert not holds()


def test_a_pass_inside_of_a_pass_does_not_disturb_it():
    flow, expected = batches()

    def inside(batch):
        assert same(list(flow), expected)
        return batch

    assert same(list(ff.pipe(flow, ff.take(4), ff.map(inside))), expected[:4])


def test_an_array_that_is_dropped_in_a_later_pass_is_not_used_for_it():
    with under_way():
        kept = filled(7)
    with under_way():
        before = dropped(filled(8))
        del kept
        made = [filled(9) for _ in range(3)]
        assert before in map(address, made)
        assert len(buffers.heap.blocks) == 3
        assert all(bytes_of(array) == {9} for array in made)


# The bound


def test_beyond_the_bound_memory_is_ordinary(monkeypatch):
    monkeypatch.setattr(buffers.heap, "bound", 3 * 2 * buffers.WORTH)
    with under_way():
        made = [filled(value) for value in range(9)]
        assert [array.base is None for array in made] == [False] * 3 + [True] * 6
        assert all(bytes_of(array) == {value} for value, array in enumerate(made))
        del made[1]
        assert [filled(1).base is None, len(buffers.heap.blocks)] == [False, 3]


def test_a_consumer_beyond_the_bound_has_every_batch(monkeypatch):
    monkeypatch.setattr(buffers.heap, "bound", 8_000_000)
    flow, expected = batches()
    assert same(list(flow), expected)


def test_batches_of_any_size_do_not_make_the_pool_grow():
    rng = random.Random(1)
    largest = 1 << 22
    with under_way():
        kept = []
        for _ in range(300):
            kept.append(buffers.empty((rng.randrange(buffers.WORTH, largest),), np.uint8))
            del kept[:-3]
            assert len(buffers.heap.blocks) <= 4
            assert sum(block.size for block in buffers.heap.blocks) <= 4 * 2 * largest


def test_an_array_does_not_take_a_block_that_is_much_too_large():
    with under_way():
        filled(0, (100, buffers.WORTH))
        small = filled(1, (2, buffers.WORTH))
        assert sum(block.size for block in buffers.heap.blocks) <= 4 * small.nbytes


# Threads


def test_many_threads_take_and_drop_at_once():
    wrong, until = [], time.monotonic() + 2.5

    def work(number):
        rng, kept = random.Random(number), []
        try:
            while time.monotonic() < until:
                value = rng.randrange(256)
                array = filled(value, (rng.randrange(buffers.WORTH, 3 * buffers.WORTH),))
                kept.append((value, rng.choice([lambda a: a, lambda a: a[7:], memoryview])(array)))
                del array
                if len(kept) > rng.randrange(1, 9):
                    value, view = kept.pop(rng.randrange(len(kept)))
                    found = np.asarray(view)
                    if found[0] != value or not (found == value).all():
                        wrong.append((number, value, set(found.tolist())))
        except Exception as error:
            wrong.append(error)

    def come_and_go():
        try:
            while time.monotonic() < until:
                with under_way():
                    filled(3)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)] + [
        threading.Thread(target=come_and_go)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with under_way():
        pass


def test_views_that_die_in_other_threads_are_used_again():
    with under_way():
        for _ in range(200):
            arrays = [filled(5)]
            thread = threading.Thread(target=arrays.clear)
            thread.start()
            thread.join()
        assert len(buffers.heap.blocks) <= 2


def test_an_iterator_that_is_collected_while_memory_is_taken_does_not_block(monkeypatch):
    flow, expected = batches()
    make = buffers.heap.make
    ring = []

    def collecting(size):
        gc.collect()
        return make(size)

    gc.disable()
    try:
        ring = [iter(flow)]
        next(ring[0])
        ring.append(ring)
        monkeypatch.setattr(buffers.heap, "make", collecting)
        with iter(flow) as iterator:
            del ring
            assert same(list(iterator), expected)
    finally:
        gc.enable()


# Forks


class TestForks:
    pytestmark = forks

    def test_a_child_has_its_own_copies_and_an_empty_pool(self):
        with under_way():
            kept = [filled(7), filled(8)]
            filled(9)
            assert holds() > 0

            def child():
                assert not holds()
                assert [bytes_of(array) for array in kept] == [{7}, {8}]
                kept[0][:] = 1
                with under_way():
                    overwritten()
                    assert [bytes_of(array) for array in kept] == [{1}, {8}]
                assert not holds()

            assert ended_well(in_child(child))
            assert [bytes_of(array) for array in kept] == [{7}, {8}]

    def test_a_child_may_end_the_pass_that_it_was_born_in(self):
        flow, expected = batches()
        with iter(flow) as iterator:
            kept = [next(iterator)]

            def child():
                iterator.close()
                assert not buffers._passes
                assert same(list(flow), expected)
                assert not holds()
                assert filled(1).base is None

            assert ended_well(in_child(child))
            kept += iterator
        assert same(kept, expected)

    def test_a_child_may_go_on_with_the_pass_that_it_was_born_in(self):
        flow, expected = batches()
        iterator = iter(flow)
        kept = [next(iterator), next(iterator)]

        def child():
            assert same([*kept, *iterator], expected)
            assert not holds()

        pid = in_child(child)
        kept += iterator
        assert ended_well(pid)
        assert same(kept, expected)

    def test_a_child_forked_while_threads_take_memory_can_take_some(self):
        over = threading.Event()

        def work():
            while not over.is_set():
                filled(1)

        threads = [threading.Thread(target=work) for _ in range(3)]
        flow, expected = batches(100)
        with under_way():
            for thread in threads:
                thread.start()
            try:
                children = [in_child(lambda: same(list(flow), expected) or os.abort()) for _ in range(10)]
                assert all(list(map(ended_well, children)))
            finally:
                over.set()
                for thread in threads:
                    thread.join()


# The values are those of numpy


def values():
    rng = np.random.default_rng(0)
    n = 30_000
    day = datetime.date(2020, 1, 1)
    return {
        "bytes": [rng.integers(0, 256, (n, 3)).astype(np.uint8) for _ in range(3)],
        "floats": [rng.random(n) for _ in range(3)],
        "halves": [rng.random(n).astype(np.float16) for _ in range(3)],
        "complex": [rng.random(n) + 1j for _ in range(3)],
        "bools": [rng.random(n) < 0.5 for _ in range(3)],
        "mixed numbers": [np.arange(n, dtype=np.int32), np.arange(n, dtype=np.float32), np.arange(n, dtype=np.uint8)],
        "mixed signs": [np.arange(n, dtype=np.int64), np.arange(n, dtype=np.uint32)],
        "big-endian": [np.arange(n, dtype=">f8")] * 2,
        "mixed byte orders": [np.arange(n, dtype=">i4"), np.arange(n, dtype="<i4")],
        "big-endian structures": [np.ones(n, [("a", ">i2"), ("b", ">f8")])] * 2,
        "structures": [np.ones(n, [("a", np.int8), ("b", np.float64, 2)])] * 2,
        "dates": [np.full(n, day, "M8[D]"), np.full(n, day, "M8[D]")],
        "dates of several units": [np.full(n, day, "M8[D]"), np.full(n, day, "M8[s]")],
        "spans of time": [np.arange(n).astype("m8[s]")] * 2,
        "strings": [np.array(["a", "bcd"] * (n // 2)), np.array(["ef", "ghijk"] * (n // 2))],
        "byte strings": [np.array([b"a", b"bcd"] * n), np.array([b"ef", b"gh"] * n)],
        "objects": [np.array([None, "y"] * n, object), np.array(["x", (1,)] * n, object)],
        "Fortran order": [np.asfortranarray(rng.random((n // 100, 100))) for _ in range(3)],
        "strided": [rng.random((n, 4))[:, ::2] for _ in range(3)],
        "read-only": [np.broadcast_to(np.arange(3.0), (n, 3))] * 3,
        "empty": [np.empty((0, n))] * 3,
        "without axes": [np.array(1.5)] * n,
        "scalars": [np.float32(1.5)] * n,
        "numbers": list(range(n)),
        "rows of lists": [[0.5] * n, [1.5] * n],
        "an array and a list": [np.zeros(n), [1.5] * n],
        "masked": [np.ma.masked_array(np.arange(n), np.arange(n) % 2)] * 2,
        "of a class of its own": [np.ones((n, 2)).view(Tagged)] * 2,
    }


VALUES = values()
kinds = pytest.mark.parametrize("given", VALUES.values(), ids=VALUES.keys())


def assert_equal(got, expected):
    """In type, dtype, shape, values, and whether it may be written to."""
    assert type(got) is type(expected)
    assert (got.dtype, got.shape, got.flags.writeable) == (expected.dtype, expected.shape, expected.flags.writeable)
    assert same(np.asarray(got), np.asarray(expected))
    assert got.dtype.isnative == expected.dtype.isnative


@kinds
def test_stack_gives_what_numpy_gives(given):
    with under_way():
        overwritten()
        got = ff.stack(given)
        if type(given[0]) in (int, np.float32):
            expected = np.array(given)
            assert same(got, expected)
        else:
            assert_equal(got, np.stack(given).view(Tagged) if type(given[0]) is Tagged else np.stack(given))


@kinds
def test_large_stacks_have_the_dtype_of_small_ones(given):
    few = [value[:2] if np.ndim(value) else value for value in given[:2]]
    with under_way():
        small, large = ff.stack(few), ff.stack(given[:2])
        assert (type(small), small.dtype) == (type(large), large.dtype)


@pytest.mark.parametrize(
    "given",
    [
        value
        for name, value in VALUES.items()
        if name not in ("masked", "of a class of its own", "without axes", "scalars", "numbers")
    ],
)
def test_pad_gives_what_numpy_gives(given):
    first = np.asarray(given[0])
    zero = "" if first.dtype.kind in "US" else np.zeros((), first.dtype)[()] if first.dtype.kind in "mMV" else 0
    with under_way():
        overwritten()
        got = ff.pad(zero)(given)
        assert_equal(got, np.stack([np.asarray(value) for value in given]))
        if first.dtype.kind in "biufc" and len(first):
            shorter = [*given[:-1], given[-1][:-7]]
            expected = np.stack([np.asarray(value) for value in given])
            expected[-1, -7:] = 0
            assert_equal(ff.pad(zero)(shorter), expected)


ARRAYS = {
    name: given
    for name, given in VALUES.items()
    if isinstance(given[0], np.ndarray) and given[0].ndim and name != "of a class of its own"
}


@pytest.mark.parametrize(
    "given", [given for name, given in ARRAYS.items() if name not in ("masked", "an array and a list")]
)
def test_rebatch_gives_what_numpy_gives(given):
    given = [array for array in given if len(array)] or [np.ones((9, 9000))] * 2
    whole = np.concatenate(given)
    if whole.dtype.kind != "O":
        overwritten()
        (got,) = ff.pipe(given, ff.rebatch(len(whole)))
        assert_equal(got, whole)


@pytest.mark.parametrize("given", [given for name, given in ARRAYS.items() if name != "masked"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_gathering_gives_what_stacking_gives(given, shuffled):
    x = given[0] if len(given[0]) else np.ones((9, 0))
    flow = ff.pipe(
        ff.from_arrays(i=np.arange(len(x)), x=x), *([ff.shuffle()] if shuffled else []), ff.batch(len(x) // 2 + 1)
    )
    total = 0
    for batch in flow:
        expected = np.concatenate([x[:0], x[batch["i"]]])  # in this machine's order of bytes
        total += len(expected)
        if x.ndim == 1 and x.dtype.kind in "OUS":
            assert batch["x"] == list(expected)
        else:
            assert_equal(batch["x"], expected)
            assert batch["x"].flags.owndata or batch["x"].nbytes >= buffers.WORTH
    assert total == len(x)


def test_recycled_memory_does_not_shine_through():
    with under_way():
        overwritten(shape=(3, 1_000_000))
        padded = ff.pad(0)([np.ones(1_000_000, np.uint8), np.ones(10, np.uint8), np.ones(500_000, np.uint8)])
        assert padded.sum(axis=1).tolist() == [1_000_000, 10, 500_000]
