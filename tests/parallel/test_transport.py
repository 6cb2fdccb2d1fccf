"""Whatever a datapoint is made of, it crosses to worker processes and back as it is,
and nothing is in the way of anything else."""

import contextlib
import copy
import dataclasses
import datetime
import math
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections import namedtuple
from itertools import islice
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from parcels import alike, counts, numbered, shared_bytes
from waiting import eventually

import flowfn as ff
from flowfn.datapoints import buffers
from flowfn.parallel.crossing import slots
from flowfn.parallel.crossing.bundles import Bundle, bundled
from flowfn.parallel.crossing.transport import pack_value, unpack_value
from flowfn.testing import same

pytestmark = [
    pytest.mark.timeout(40),
    pytest.mark.skipif(sys.platform != "linux", reason="shared memory is had on Linux only"),
]


N = 50_000
"""Items of an array that is large enough for shared memory, whatever its dtype is."""


@pytest.fixture(autouse=True)
def shared_memory_may_be_had():
    assert not slots.denied()
    yield
    slots.allow()


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


def arrays_in(value):
    """The arrays in lists, tuples and dicts."""
    if type(value) in (list, tuple, dict):
        inner = value.values() if type(value) is dict else value
        return [array for one in inner for array in arrays_in(one)]
    return [value] if type(value) is np.ndarray else []


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


def test_many_small_values_cross_together_as_they_are():
    few, flags = things(12), ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED")
    frozen = np.arange(3)
    frozen.flags.writeable = False
    few |= {"read only": frozen, "no items": np.empty((0, 3))}
    for name, thing in few.items():
        for form in (lambda one: one, lambda one: [one, 1], lambda one: (np.int8(2), {"x": one, "n": None})):
            every = [form(copy.copy(thing)) for _ in range(6)]
            if name == "read only":
                every = [form(frozen[:]) for _ in range(6)]
            got = unpack_value(pack_value(bundled(every)))
            assert type(got) is list
            assert all(map(alike, got, every)), name
            made, there = ([[one.flags[flag] for flag in flags] for one in arrays_in(some)] for some in (got, every))
            assert made == there, name
    assert type(bundled([np.arange(n) for n in range(6)])) is Bundle


def test_what_is_there_more_than_once_is_once_there_again():
    one, rows = np.arange(5), [np.arange(n) for n in range(6)]
    for every in (
        [one] * 6,
        [[one, n] for n in range(6)],
        [{"input": row, "target": row} for row in rows],
        [[1, one]] * 6,
    ):
        got = unpack_value(pack_value(bundled(every)))
        assert alike(got, every)
        assert len({*map(id, arrays_in(got))}) == len({*map(id, arrays_in(every))})
    held = unpack_value(pack_value(bundled([(SimpleNamespace(row=row), row) for row in rows])))
    assert all(one.row is row for one, row in held)


def test_keys_that_equal_others_stay_what_they_are():
    every = [{key: np.arange(3)} for key in (1, True, 1.0, "1", np.str_("1"), 1, True)]
    got = unpack_value(pack_value(bundled(every)))
    assert [type(*one) for one in got] == [type(*one) for one in every]
    every = [{key: np.arange(3)} for key in ("1", "1", "1", "1", np.str_("1"))]
    assert [type(*one) for one in unpack_value(pack_value(bundled(every)))] == [str] * 4 + [np.str_]


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


@pytest.mark.long
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
