"""Whatever a datapoint is made of, it crosses to worker processes and back as it is,
and nothing is in the way of anything else."""

import contextlib
import dataclasses
import datetime
import gc
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import namedtuple
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from waiting import eventually

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

counts = pytest.mark.parametrize("n", [1, 2])
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

N = 50_000
"""Items of an array that is large enough for shared memory, whatever its dtype is."""


@pytest.fixture(autouse=True)
def shared_memory_may_be_had():
    assert not slots.denied()
    yield
    slots.allow()


def files(pid):
    """Inode and size, as far as there are pages, of the nameless files that a process has open or mapped."""
    found = {}
    with contextlib.suppress(OSError):
        for folder in ("fd", "map_files"):
            for entry in os.scandir(f"/proc/{pid}/{folder}"):
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path).startswith("/memfd:flowfn"):
                        told = os.stat(entry.path)
                        found[told.st_ino] = told.st_blocks * 512
    return found


def family():
    """This process and its workers."""
    found = [os.getpid()]
    for listing in Path("/proc/self/task").glob("*/children"):
        found += map(int, listing.read_text().split())
    return [pid for pid in found if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def shared_bytes():
    """How much shared memory this process and its workers keep from being used otherwise."""
    return sum({inode: size for pid in family() for inode, size in files(pid).items()}.values())


def descriptors(pid="self"):
    return len(os.listdir(f"/proc/{pid}/fd"))


def in_child(run):
    """Fork, and run something in the child; the child's process id."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(20)
    status = 1
    with contextlib.suppress(BaseException):
        run()
        status = 0
    os._exit(status)


def ended_well(pid):
    return os.waitpid(pid, 0)[1] == 0


def numbered(count=40, items=20_000):
    """A flow of large arrays that are made in the workers, each of its own number, and what they should be."""
    return ff.pipe(range(count), ff.map(lambda i: np.full(items, i, np.float64))), [
        np.full(items, i, np.float64) for i in range(count)
    ]


# What crosses


class Point(NamedTuple):
    x: Any
    y: Any


Old = namedtuple("Old", "a b")


@dataclasses.dataclass
class Sample:
    image: Any
    label: Any = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    image: Any


class Tagged(np.ndarray):
    """An array of a class of its own."""


class Plain:
    """Something with an attribute."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Plain and same(self.value, other.value)

    __hash__ = None


def things(n=N):
    """Values of every kind, with arrays of n items."""
    floats = np.arange(float(n))
    structure = np.zeros(n, [("a", np.int8), ("b", np.float64, 2), ("c", "U3")])
    structure["b"] = 1.5
    structure["c"] = "xyz"
    dates = np.datetime64("2020-01-01") + np.arange(n).astype("m8[D]")
    nested = np.zeros(n, [("when", "M8[s]"), ("at", [("x", np.int16), ("y", ">f4")])])
    nested["when"] = dates
    return {
        "an array": floats,
        "no items": np.empty((0, n)),
        "no axes": np.array(1.5),
        "every other item": np.arange(2.0 * n)[::2],
        "backwards": floats[::-1],
        "turned": np.arange(4.0 * n).reshape(4, n).T[::2].T,
        "Fortran order": np.asfortranarray(np.arange(4.0 * n).reshape(-1, 4)),
        "Fortran order of dates": np.asfortranarray(np.concatenate([dates] * 2).reshape(-1, 2)),
        "many axes": np.arange(float(n)).reshape(1, -1, 1, 2, 1),
        "broadcast": np.broadcast_to(np.arange(4.0), (n, 4)),
        "a structure": structure,
        "a structure with dates": nested,
        "a column of a structure": structure["b"],
        "records": structure.view(np.recarray),
        "dates": dates,
        "dates of the other byte order": dates.astype(">M8[s]"),
        "spans of time": np.arange(n).astype("m8[ms]"),
        "no dates": np.array(["NaT"] * n, "M8[ns]"),
        "big-endian": floats.astype(">f8"),
        "halves": floats.astype(np.float16),
        "long doubles": floats.astype(np.longdouble),
        "complex": floats + 1j,
        "bools": floats > 7,
        "NaN": np.full(n, np.nan),
        "objects": np.array([None, "x", 1] * (n // 3), object),
        "a structure of objects": np.array([(1, "x")] * n, [("a", int), ("b", object)]),
        "strings": np.array(["a", "bcdß"] * (n // 2)),
        "big-endian strings": np.array(["a", "bcdß"] * (n // 2)).astype(">U4"),
        "byte strings": np.array([b"a", b"bcd"] * (n // 2)),
        "voids": np.zeros(n, "V7"),
        "a masked array": np.ma.masked_array(floats, np.arange(n) % 3 == 0, fill_value=7),
        "of a class of its own": floats.view(Tagged),
        "a string": "ß" * n,
        "bytes": b"x" * n * 3,
        "a bytearray": bytearray(b"x" * n * 3),
        "a numpy scalar": np.float32(1.5),
        "a date": np.datetime64("2020-01-01"),
        "a structured scalar": structure[3],
        "a dtype": np.dtype(">f8"),
        "numbers": [1, -(2**70), 1.5, math.inf, 1j, True, None],
        "nested": {"a": [floats, (floats + 1, {"b": [floats + 2, "x"]})], 3: {4, 5}, None: frozenset({6})},
        "a namedtuple": Point(floats, Old([1], floats + 1)),
        "a dataclass": Sample(floats, Frozen(floats + 1)),
        "an object": Plain([floats, 1]),
        "dates and times": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1)],
        "an exception": [ValueError("x").args],
        "a slice": slice(1, None, 2),
        "a function": len,
    }


THINGS = things()
kinds = pytest.mark.parametrize("name", THINGS)


def contents(structures):
    return structures.tolist() if structures.dtype.hasobject else structures.tobytes()


def alike(a, b):
    """Whether two values are the same, in type, dtype and values; masks and attributes too."""
    if isinstance(a, np.ma.MaskedArray):
        return type(b) is type(a) and same(a.filled(), b.filled()) and same(np.asarray(a.mask), np.asarray(b.mask))
    if isinstance(a, np.void):
        return type(b) is type(a) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, np.ndarray) and a.dtype.names:
        return type(b) is type(a) and a.dtype == b.dtype and a.shape == b.shape and contents(a) == contents(b)
    if isinstance(a, np.ndarray) and type(a) is not np.ndarray:
        return type(b) is type(a) and same(np.asarray(a), np.asarray(b))
    if isinstance(a, np.ndarray) and a.dtype.kind == "V":
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return same(a, b)


@kinds
def test_values_made_in_workers_come_back_as_they_are(name):
    (got,) = ff.pipe([1], ff.map(lambda i: (i, things()[name])), ff.prefetch(2, processes=2))
    assert got[0] == 1
    assert alike(got[1], THINGS[name])


@counts
def test_values_of_every_kind_cross_to_workers_and_back(n):
    def source():
        yield from THINGS.values()

    got = list(ff.pipe(source, ff.map(lambda value: [value, type(value).__name__]), ff.prefetch(2, processes=n)))
    assert [name for name, (value, _) in zip(THINGS, got) if not alike(value, THINGS[name])] == []
    assert [told for _, told in got] == [type(value).__name__ for value in THINGS.values()]


@counts
@pytest.mark.parametrize("items", [7, N])
def test_what_workers_give_is_what_is_made_here(n, items):
    names = [
        name
        for name, thing in THINGS.items()
        if type(thing) is np.ndarray and thing.ndim and thing.dtype.kind != "O" and thing.size
    ]

    def source():
        for name in names:
            thing = THINGS[name]
            yield {"name": name, "value": thing[:items] if len(thing) >= items else thing}

    for stages in (
        [ff.batch(1)],
        [ff.batch(1), ff.unbatch()],
        [ff.map(dict), ff.batch(1, collate={"name": ff.as_list})],
    ):
        flow = ff.pipe(source, *stages)
        for got, expected in zip(ff.pipe(flow, ff.prefetch(2, processes=n)), flow, strict=True):
            assert got["name"] == expected["name"]
            assert alike(got["value"], expected["value"])


@counts
def test_contiguous_arrays_keep_their_order_in_memory(n):
    names = ["an array", "Fortran order", "Fortran order of dates", "many axes"]
    for name, got in zip(
        names, ff.pipe([THINGS[name] for name in names], ff.map(lambda a: a), ff.prefetch(2, processes=n))
    ):
        for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED"):
            assert got.flags[flag] == THINGS[name].flags[flag], (name, flag)


@counts
@pytest.mark.parametrize("items", [5, N])
def test_read_only_arrays_stay_read_only(n, items):
    def frozen(i):
        made = np.full(items, i)
        made.flags.writeable = False
        return [made, np.full(items, i)]

    for got in ff.pipe(range(3), ff.map(frozen), ff.prefetch(2, processes=n)):
        assert [array.flags.writeable for array in got] == [False, True]


@counts
@pytest.mark.parametrize("items", [5, N])
def test_an_array_that_is_twice_in_a_datapoint_is_there_once(n, items):
    def twice(i):
        array = np.full(items, i)
        return {"a": array, "b": [array, (array,)], "c": array[1:]}

    def source():
        yield from map(twice, range(5))

    for flow in (ff.pipe(range(5), ff.map(twice)), ff.pipe(source, ff.map(lambda d: d))):
        for i, got in enumerate(ff.pipe(flow, ff.prefetch(2, processes=n))):
            assert got["a"] is got["b"][0] is got["b"][1][0]
            assert alike(got, twice(i))


@counts
@pytest.mark.parametrize("way", ["back", "there"])
@pytest.mark.parametrize("what", ["a memoryview", "a lock"])
def test_what_does_not_pickle_is_an_error_that_names_the_stage(n, way, what):
    def odd(x):
        if x == 2:
            return memoryview(b"abc") if what == "a memoryview" else threading.Lock()
        return x

    def source():
        yield from map(odd, [1, 2])

    flow = ff.pipe(source, ff.map(type), ff.map(str)) if way == "there" else ff.pipe([1, 2], ff.map(odd))
    try:
        got = (
            list(map(type, ff.pipe(flow, ff.prefetch(2, processes=n))))
            if way == "back"
            else list(ff.pipe(flow, ff.prefetch(2, processes=n)))
        )
    except TypeError as error:
        told = "\n".join([str(error), *getattr(error, "__notes__", ())])
        assert what.split()[1] in told
        assert "map(odd)" in told or "map(type)" in told or "map(str)" in told
    else:
        assert got == (list(map(type, flow)) if way == "back" else list(flow))


MEMORY = {
    "nothing": lambda: memoryview(b""),
    "bytes": lambda: memoryview(b"abc"),
    "a bytearray": lambda: memoryview(bytearray(200_000)),
    "floats": lambda: memoryview(np.arange(30_000.0).reshape(3, -1)),
    "every other": lambda: memoryview(b"abcdef")[::2],
    "no rows": lambda: memoryview(np.zeros((0, 3))),
    "no axes": lambda: memoryview(np.array(1.5)),
    "halves": lambda: memoryview(np.arange(3, dtype=np.float16)),
    "complex": lambda: memoryview(np.arange(3) + 1j),
    "big-endian": lambda: memoryview(np.arange(3, dtype=">i4")),
    "structures": lambda: memoryview(np.zeros(3, [("a", np.int8), ("b", np.float64)])),
}


def travels(view):
    """Whether a memoryview can be made again of its bytes, its format and its shape."""
    try:
        return memoryview(view.tobytes()).cast(view.format, view.shape).format == view.format and view.c_contiguous
    except (TypeError, ValueError):
        return False


@counts
@pytest.mark.parametrize("what", MEMORY)
def test_memoryviews_come_back_as_they_are_or_are_an_error_that_names_the_stage(n, what):
    def made(_):
        return MEMORY[what]()

    expected = MEMORY[what]()
    got = []
    with contextlib.nullcontext() if travels(expected) else pytest.raises(TypeError, match=r"map\(.*made\)"):
        got.extend(ff.pipe([0], ff.map(made), ff.prefetch(2, processes=n)))
    for view in got:
        told = [type(view), view.format, view.shape, view.itemsize, view.readonly, view.tobytes()]
        assert told == [
            memoryview,
            expected.format,
            expected.shape,
            expected.itemsize,
            expected.readonly,
            expected.tobytes(),
        ]


def test_objects_of_classes_defined_in_a_script_are_of_the_same_class_afterwards(tmp_path):
    script = """
    import dataclasses, collections
    import numpy as np
    import flowfn as ff

    @dataclasses.dataclass
    class Sample:
        image: np.ndarray
        label: int

    class Own(np.ndarray):
        pass

    Pair = collections.namedtuple("Pair", "a b")

    def make(i):
        return [Sample(np.full(50_000, i), i), Pair(i, np.zeros(50_000).view(Own)), Sample]

    def source():
        for i in range(5):
            yield make(i)

    if __name__ == "__main__":
        for n in (1, 2):
            for flow in (ff.pipe(range(5), ff.map(make)), ff.pipe(source, ff.map(lambda d: [d[0], d[1]._replace(a=7 + d[1].a - 7), d[2]]))):
                for i, (sample, pair, cls) in enumerate(ff.pipe(flow, ff.prefetch(2, processes=n))):
                    assert type(sample) is Sample is cls, type(sample)
                    assert type(pair) is Pair and pair.a == i
                    assert type(pair.b) is Own, type(pair.b)
                    assert sample.label == i and (sample.image == i).all()
            for batch in ff.pipe(range(6), ff.map(lambda i: Sample(np.full(50_000, i), i)), ff.batch(2), ff.prefetch(2, processes=n)):
                assert type(batch) is Sample and batch.image.shape == (2, 50_000)
        print("well")
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("well\n", "")


@pytest.mark.alone
@pytest.mark.timeout(120)
def test_an_array_of_more_than_two_gibibytes_comes_back():
    size = (1 << 31) + (1 << 20)

    def make(i):
        made = np.zeros(size, np.uint8)
        made[[0, 1 << 31, -1]] = 1, 2, 3
        return made

    (got,) = ff.pipe([0], ff.map(make), ff.prefetch(1, processes=2))
    assert (got.nbytes, got[0], got[1 << 31], got[-1], got[5]) == (size, 1, 2, 3, 0)
    del got
    ff.shut_down()
    assert eventually(lambda: shared_bytes() < 1 << 20)


# What is kept


@counts
@pytest.mark.parametrize("bound", [buffers.BOUND, 1_000_000], ids=["within the bound", "beyond it"])
def test_200_outputs_that_all_are_kept_are_right(n, bound, monkeypatch):
    monkeypatch.setattr(slots.slots, "bound", bound)
    flow, expected = numbered(200)
    got = list(ff.pipe(flow, ff.prefetch(4, processes=n)))
    assert same(got, expected)
    assert all(array.flags.writeable for array in got)


@counts
def test_outputs_of_which_some_are_kept_are_right(n):
    rng, kept = random.Random(3), {}
    flow, expected = numbered(150)
    for i, array in enumerate(ff.pipe(flow, ff.prefetch(4, processes=n))):
        kept[i] = rng.choice(
            [lambda a: a, lambda a: a[5:], lambda a: memoryview(a), lambda a: a.reshape(2, -1)[1:].view(np.uint8)]
        )(array)
        if len(kept) > 12:
            del kept[rng.choice(list(kept))]
        del array
    for i, view in kept.items():
        assert set(np.asarray(view).view(np.float64).reshape(-1).tolist()) == {float(i)}
    assert expected


@counts
@pytest.mark.parametrize("items", [100, 20_000])
def test_outputs_that_are_written_to_do_not_disturb_others(n, items):
    flow, expected = numbered(60, items)
    got = []
    for array in ff.pipe(flow, ff.prefetch(4, processes=n)):
        array += 1
        got.append(array)
        for other in got[-3:]:
            other += 1
    assert all(set(array.tolist()) == {i + 1.0 + min(3, 60 - i)} for i, array in enumerate(got))
    assert same(list(ff.pipe(flow, ff.prefetch(4, processes=n))), expected)


@counts
def test_datapoints_that_a_worker_writes_to_are_not_those_of_others(n):
    arrays = [np.full(20_000, i, np.float64) for i in range(30)]

    def source():
        yield from arrays

    def double(array):
        array *= 2
        return array

    got = list(ff.pipe(source, ff.map(np.copy), ff.map(double), ff.prefetch(3, processes=n)))
    assert same(got, [array * 2 for array in arrays])
    assert same(arrays, [np.full(20_000, i, np.float64) for i in range(30)])


@counts
def test_what_a_worker_keeps_of_its_outputs_and_inputs_is_not_overwritten(n):
    def source():
        for i in range(60):
            yield [np.full(20_000, i, np.float64), i]

    def keep(datapoint):
        import sys

        kept = sys.modules["flowfn"].__dict__.setdefault("_kept_by_a_test", [])
        array, i = datapoint
        made = array + 1000
        kept += [(i, array), (i + 1000, made), (i, array[5:])]
        del kept[:-50]
        return [made, sum(not (array == value).all() for value, array in kept)]

    def forget(i):
        import sys

        return len(sys.modules["flowfn"].__dict__.pop("_kept_by_a_test", []))

    got = list(ff.pipe(source, ff.map(keep), ff.prefetch(3, processes=n)))
    assert [wrong for _, wrong in got] == [0] * 60
    assert all((array == i + 1000).all() for i, (array, _) in enumerate(got))
    list(ff.pipe(range(20), ff.map(forget), ff.prefetch(3, processes=n)))


@counts
def test_batches_that_a_worker_keeps_are_not_overwritten(n):
    def keep(batch):
        import sys

        kept = sys.modules["flowfn"].__dict__.setdefault("_kept_by_a_test", [])
        wrong = sum(len(set(old.reshape(-1).tolist())) != 1 for old in kept)
        kept.append(batch)
        return [batch, wrong]

    flow = ff.pipe(
        range(40), ff.map(lambda i: np.full(20_000, i // 4)), ff.batch(4), ff.map(keep), ff.prefetch(3, processes=n)
    )
    for _ in range(2):
        got = list(flow)
        assert [wrong for _, wrong in got] == [0] * 10
        assert all((array == i).all() for i, (array, _) in enumerate(got))
    ff.shut_down()


@counts
def test_slots_grow_as_outputs_do(n):
    sizes = [10, 20_000, 100_000, 1_000_000, 3, 3_000_000, 10_000, 5_000_000, 0, 8_000_000, 20_000]
    got = list(
        ff.pipe(
            sizes,
            ff.map(lambda size: [np.full(size, size % 251, np.uint8), np.full(size // 3, 1, np.uint8)]),
            ff.prefetch(2, processes=n),
        )
    )
    assert same(got, [[np.full(size, size % 251, np.uint8), np.full(size // 3, 1, np.uint8)] for size in sizes])


@counts
def test_a_task_with_many_large_arrays_finds_room_for_all_of_them(n):
    (got,) = ff.pipe(
        [30],
        ff.map(lambda count: [np.full(100_000 + i, i, np.int16) for i in range(count)]),
        ff.prefetch(1, processes=n),
    )
    assert same(got, [np.full(100_000 + i, i, np.int16) for i in range(30)])


def test_what_is_made_and_dropped_within_a_task_does_not_make_its_slot_grow():
    def totals(i):
        import flowfn

        inner = flowfn.pipe(range(300), flowfn.map(lambda k: np.full(50_000, k)), flowfn.batch(2))
        return [np.full(50_000, sum(float(batch[0, 0]) for batch in inner))]

    with iter(ff.pipe(range(4), ff.map(totals), ff.prefetch(2, processes=2))) as iterator:
        assert [output[0][0] for output in iterator.__class__.__iter__(iterator)] == [sum(range(0, 300, 2))] * 4
    with iter(ff.pipe(range(8), ff.map(totals), ff.prefetch(2, processes=2))) as iterator:
        list(islice(iterator, 4))
        assert max(block.size for block in slots.slots.blocks) < 16 << 20


def test_children_that_a_worker_forks_do_not_write_into_its_outputs():
    def work(i):
        import os

        import flowfn

        told, tell = os.pipe()
        done, say = os.pipe()
        child = os.fork()
        if not child:
            try:
                made = flowfn.stack([np.zeros(50_000)] * 2)
                os.read(told, 1)
                made.fill(-1)
                os.write(say, b"x")
            finally:
                os._exit(0)
        made = flowfn.stack([np.full(50_000, float(i))] * 2)
        os.write(tell, b"x")
        os.read(done, 1)
        os.waitpid(child, 0)
        for descriptor in (told, tell, done, say):
            os.close(descriptor)
        return made

    for i, array in enumerate(ff.pipe(range(4), ff.map(work), ff.prefetch(2, processes=2))):
        assert set(array.reshape(-1).tolist()) == {float(i)}


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
    "paths that workers cannot open": lambda patch, name=slots.Name: patch.setattr(
        slots, "Name", lambda path, *rest: name("/proc/self/no/such/file", *rest)
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
    before, open_before = set(transport._shared), descriptors()
    x = np.ones((400, 1000))
    flow = sums(x)
    list(flow)
    assert len(set(transport._shared) - before) == 1
    del flow, x
    gc.collect()
    assert set(transport._shared) <= before
    assert eventually(lambda: descriptors() <= open_before)


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
