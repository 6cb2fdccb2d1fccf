"""Values of several dtypes that are put together are all held as they are,
or there is an error that says what to do."""

from decimal import Decimal

import numpy as np
import pytest

import flowfn as ff

BIG, ODD = 2**63, 2**53 + 1


def u64(*numbers):
    return np.array(numbers, np.uint64)


def dates(text, unit):
    return np.array([text], f"M8[{unit}]")


def records(number, dtype):
    return np.array([(number, 2)], [("a", dtype), ("b", "i4")])


def bits16(*numbers):
    return np.array(numbers, pytest.importorskip("ml_dtypes").bfloat16)


LIST, LOST = object(), object()
SCALARS = {
    "ids on both sides of 2**63": ([0x9E3779B97F4A7C15, 12345678901234567], np.uint64),
    "the small one first": ([1, BIG], np.uint64),
    "the largest of all": ([2**64 - 1, 0], np.uint64),
    "with a sign": ([-1, BIG + 1], LIST),
    "beyond 64 bits": ([1, 2**64], LIST),
    "truth values and large ids": ([True, BIG + 1], np.uint64),
    "truth values and integers": ([True, 5], np.int64),
    "truth values and floats": ([0.5, True], np.float64),
    "floats and integers": ([1.5, 3], np.float64),
    "floats and integers that are powers of two": ([1.5, 2**60], np.float64),
    "floats and large integers": ([1.5, ODD], LOST),
    "large integers and floats": ([ODD, 1.5], LOST),
    "the largest of int64 and floats": ([0.5, 2**63 - 1], LOST),
    "complex numbers and large integers": ([1j, ODD], LOST),
    "floats and integers beyond 64 bits": ([1.5, 2**70], LIST),
    "scalars of numpy": ([np.uint64(BIG + 1), 5], np.uint64),
    "scalars of numpy, the small one first": ([5, np.uint64(BIG + 1)], np.uint64),
    "scalars of numpy with a sign": ([np.uint64(BIG + 1), np.int64(-5)], LOST),
    "half floats and floats": ([np.float16(0.5), 1e6], np.float64),
    "half floats and integers": ([np.float16(0.5), 100_000], np.float64),
    "numbers and texts": ([1, "a"], LIST),
    "texts and numbers": (["a", 1], LIST),
    "floats and texts": ([0.5, "a"], LIST),
    "None among texts": (["a", None], LIST),
    "None first": ([None, "a"], LIST),
    "decimals among integers": ([1, Decimal("0.1")], LIST),
    "dates of two units": ([np.datetime64("1999-01-01", "s"), np.datetime64(7, "ns")], "M8[ns]"),
    "no date": ([np.datetime64("NaT", "s"), np.datetime64(7, "ns")], "M8[ns]"),
    "dates that another unit does not reach": ([np.datetime64("9999-01-01", "s"), np.datetime64(7, "ns")], LOST),
    "spans of time and numbers": ([np.timedelta64(1, "s"), 5], LOST),
    "numbers and spans of time": ([5, np.timedelta64(1, "s")], LOST),
}
ARRAYS = {
    "uint64 and int64": ([u64(BIG + 1), np.array([1])], np.uint64),
    "uint64 and int64 with signs": ([u64(7), np.array([-1])], np.int64),
    "both at once": ([u64(BIG + 1), np.array([-1])], LOST),
    "uint64 and int8": ([u64(BIG + 1), np.array([1], np.int8)], np.uint64),
    "uint64 and truth values": ([u64(BIG + 1), np.array([True])], np.uint64),
    "int64 and float32": ([np.array([3]), np.array([0.5], np.float32)], np.float64),
    "large int64 and float32": ([np.array([ODD]), np.array([0.5], np.float32)], LOST),
    "large uint64 and float64": ([u64(BIG + 1), np.array([0.5])], LOST),
    "large int64 and complex64": ([np.array([ODD]), np.array([0.5], np.complex64)], LOST),
    "large int64 and longdouble": (
        [np.array([ODD]), np.array([0.5], np.longdouble)],
        np.longdouble if np.finfo(np.longdouble).nmant > 62 else LOST,
    ),
    "float16 and int8": ([np.array([0.5], np.float16), np.array([100], np.int8)], np.float16),
    "float16 and int16": ([np.array([0.5], np.float16), np.array([30_001], np.int16)], np.float32),
    "float16 and large int64": ([np.array([0.5], np.float16), np.array([ODD])], LOST),
    "texts and numbers": ([np.array(["a"]), np.array([1])], LOST),
    "texts of two lengths": ([np.array(["a"]), np.array(["abc"])], "U3"),
    "bytes and texts": ([np.array([b"a"]), np.array(["a"])], LOST),
    "dates of two units": ([dates("1999-01-01", "s"), dates("2000-01-01", "ns")], "M8[ns]"),
    "dates that another unit does not reach": ([dates("9999-01-01", "s"), dates("2000-01-01", "ns")], LOST),
    "dates and numbers": ([dates("1999-01-01", "s"), np.array([1])], LOST),
    "spans of time and numbers": ([np.array([1], "m8[s]"), np.array([1])], LOST),
    "records": ([records(3, "i8"), records(0.5, "f8")], [("a", "f8"), ("b", "i4")]),
    "records with large integers": ([records(ODD, "i8"), records(0.5, "f8")], LOST),
    "objects and numbers": ([np.array([None]), np.array([ODD])], object),
    "two orders of bytes": ([np.array([ODD], ">i8"), np.array([1], "<i4")], np.int64),
}


def check(made, values, wanted):
    """Make sure that what was made of values holds each of them."""
    assert made.dtype == np.dtype(wanted)
    for one, value in zip(made, values, strict=True):
        assert one.dtype.kind in "OV" or value.dtype.kind in "OV" or bool((one == value).all())
        assert (
            one.tolist() == value.astype(wanted).tolist()
            if value.dtype.kind in "MV"
            else one.tolist() == value.tolist()
        )


def refused(run, function):
    with pytest.raises((ValueError, TypeError), match=rf"{function}\(\)") as caught:
        run()
    assert "make all of them of one dtype before (map)" in str(caught.value)


def batched(values, **words):
    (batch,) = ff.batch(len(values), values, **words)
    return batch


WAYS = {
    "stack": batched,
    "in a dict": lambda values: batched([{"x": {"y": value}} for value in values])["x"]["y"],
    "in a list": lambda values: batched([[value, 0] for value in values])[0],
    "pad": lambda values: batched(values, collate=ff.pad(0)),
    "window": lambda values: next(iter(ff.window(len(values), values))),
    "collate": lambda values: next(iter(ff.collate(ff.stack, [values]))),
    "threads": lambda values: next(iter(ff.pipe(values, ff.batch(len(values)), ff.prefetch(1, threads=2)))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCALARS)
def test_numbers_are_whole_or_refused(name, way):
    values, wanted = SCALARS[name]
    if wanted is LOST:
        refused(lambda: WAYS[way](values), "batch")
    elif wanted is LIST:
        assert [*map(repr, WAYS[way](values))] == [*map(repr, values)]
    else:
        made = WAYS[way](values)
        assert made.dtype == np.dtype(wanted)
        assert made.dtype.kind == "M" or made.tolist() == values
        assert made.dtype.kind != "M" or made.tolist() == [one.astype(wanted).item() for one in values]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_whole_or_refused(name, way, large):
    values, wanted = ARRAYS[name]
    values = [value.repeat(20_000) for value in values] if large and way in ("stack", "pad") else values
    if wanted is LOST:
        refused(lambda: WAYS[way](values), "pad" if way == "pad" else "batch")
    elif way != "pad" or wanted is not object:
        check(WAYS[way](values), values, wanted)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", ARRAYS)
def test_batches_of_two_dtypes_are_joined_whole_or_refused(name, large):
    values, wanted = ARRAYS[name]
    values = [value.repeat(20_000) for value in values] if large else values
    if wanted is LOST:
        refused(lambda: list(ff.rebatch(2 * len(values[0]), values)), "rebatch")
    else:
        (made,) = ff.rebatch(2 * len(values[0]), values)
        check(made.reshape(2, -1), values, wanted)


@pytest.mark.parametrize("name", [name for name, (values, _) in ARRAYS.items() if values[0].dtype.kind in "iufb"])
def test_sequences_are_packed_whole_or_refused(name):
    values, wanted = ARRAYS[name]
    if wanted is LOST:
        refused(lambda: list(ff.pack(2, values)), "pack")
    else:
        ((row, _, _),) = ff.pack(2, values)
        check(row.reshape(2, 1), values, wanted)


LISTS = {
    "stack": lambda rows: batched([{"x": row} for row in rows])["x"],
    "pad": lambda rows: batched([{"x": row} for row in rows], collate=ff.pad(0))["x"],
    "from_arrays": lambda rows: batched(list(ff.from_arrays(x=rows)))["x"],
}


@pytest.mark.parametrize("way", LISTS)
def test_lists_of_numbers_are_whole_or_refused(way):
    rows = [[1, BIG + 1], [2, 3]]
    made = LISTS[way](rows)
    assert (made.dtype, made.tolist()) == (np.uint64, rows)
    refused(lambda: LISTS[way]([[0.5, ODD], [1, 2]]), "batch|pad|from_arrays")


def test_lists_that_no_dtype_holds_stay_lists():
    rows = [[1, BIG + 1], [-2, 3]]
    assert batched([{"x": row} for row in rows])["x"] == rows
    assert [*ff.from_arrays(x=[-1, BIG + 1])] == [{"x": -1}, {"x": BIG + 1}]
    assert [*ff.from_arrays(x=["a", 1])] == [{"x": "a"}, {"x": 1}]


def test_packed_lists_are_whole_or_refused():
    ((row, _, _),) = ff.pack(3, [[1, BIG + 1], [3]])
    assert (row.dtype, row.tolist()) == (np.uint64, [1, BIG + 1, 3])
    refused(lambda: list(ff.pack(3, [[0.5, ODD]])), "pack")


def test_ragged_lists_are_padded_whole():
    made = batched([{"x": [[1], [BIG + 1, 2]]}, {"x": [[3]]}], collate=ff.pad(0))["x"]
    assert (made.dtype, made.tolist()) == (np.uint64, [[[1, 0], [BIG + 1, 2]], [[3, 0], [0, 0]]])


def test_numbers_of_other_libraries_are_numbers():
    assert batched([bits16(1.5), np.array([0.1], np.float32)]).tolist() == [[1.5], [np.float32(0.1)]]
    refused(lambda: batched([bits16(1.5), np.array([3], np.int32)]), "batch")


@pytest.mark.timeout(60)
def test_parts_of_a_batch_that_workers_make_agree_with_the_whole():
    ids = [1] * 40 + [BIG + 1] * 24
    (alone,) = ff.batch(64, ids)
    (made,) = ff.pipe(ids, ff.map(int), ff.batch(64), ff.prefetch(1, processes=2))
    assert (made.dtype, made.tolist()) == (alone.dtype, ids)
