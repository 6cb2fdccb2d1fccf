"""Tables of pandas, polars and Arrow as sources: what rows hold, what batches are, and what nobody can change."""

import datetime
import decimal
import pickle

import numpy as np
import pytest

import flowfn as ff
from flowfn.interop import from_table
from flowfn.interop.tables import ArrowColumn
from flowfn.testing import check

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

UTC, BERLIN = datetime.UTC, "Europe/Berlin"
NOON = datetime.datetime(2024, 7, 1, 12, 0, 0, 7)
N = 300

ARRAYS = {
    **{dtype: np.arange(N).astype(dtype) for dtype in "bBhHiIlLefd"},
    "truths": np.arange(N) % 3 == 0,
    **{f"M8[{unit}]": np.arange(N).astype(f"M8[{unit}]") for unit in ("s", "ms", "us", "ns")},
    **{f"m8[{unit}]": np.arange(N).astype(f"m8[{unit}]") for unit in ("s", "ms", "us", "ns")},
}
"""Columns for which numpy has a dtype."""

VALUES = {
    "texts": (["a", None, "ü"], pa.string()),
    "large texts": (["a", None, "ü"], pa.large_string()),
    "bytes": ([b"a", None, b""], pa.binary()),
    "integers with nulls": ([1, None, 2**63 - 1], pa.int64()),
    "unsigned with nulls": ([1, None, 2**64 - 1], pa.uint64()),
    "floats with nulls": ([0.1, None, float("inf")], pa.float64()),
    "truths with nulls": ([True, None, False], pa.bool_()),
    "decimals": ([decimal.Decimal("1.10"), None, decimal.Decimal("-0.01")], pa.decimal128(10, 2)),
    "lists": ([[1, 2], None, []], pa.list_(pa.int32())),
    "lists of texts": ([["a"], [], ["b", None]], pa.list_(pa.string())),
    "dicts": (
        [{"x": 1, "y": ["a"]}, None, {"x": None, "y": []}],
        pa.struct({"x": pa.int64(), "y": pa.list_(pa.string())}),
    ),
    "pairs": ([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "times with a zone": ([NOON.replace(tzinfo=UTC), None, NOON.replace(tzinfo=UTC)], pa.timestamp("us", "UTC")),
    "times of day": ([NOON.time(), None, datetime.time()], pa.time64("us")),
    "nothing": ([None, None, None], pa.null()),
    "categories": (["b", None, "a"], pa.dictionary(pa.int8(), pa.string())),
    "numbered categories": ([7, None, 3], pa.dictionary(pa.int8(), pa.int16())),
    "short lists": ([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "holes in lists": ([[1.0, None], [1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
}
"""Columns for which it has none, with the type that Arrow has for them."""


def polars():
    return pytest.importorskip("polars")


def exact(one, other):
    """Whether two values are the same, to the dtype and to the bits."""
    if isinstance(one, (np.ndarray, np.generic)):
        return type(one) is type(other) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def tables(columns):
    """The same columns as tables of every library."""
    frame = pd.DataFrame(columns)
    arrow = pa.table({name: pa.array(column) for name, column in columns.items()})
    return {
        "pandas": frame,
        "Arrow": arrow,
        "a record batch": arrow.to_batches()[0],
        "in pieces": pa.concat_tables([arrow[:100], arrow[100:]]),
    }


@pytest.mark.parametrize("kind", ["pandas", "Arrow", "a record batch", "in pieces"])
def test_a_column_with_a_dtype_of_numpy_is_what_from_arrays_gives(kind):
    flow, right = from_table(tables(ARRAYS)[kind]), ff.from_arrays(**ARRAYS)
    assert len(flow) == N
    assert flow.seekable
    for one, other in [(flow[7], right[7]), *zip(flow, right), *zip(ff.shuffle(flow), ff.shuffle(right))]:
        assert list(one) == list(other)
        assert all(map(exact, one.values(), other.values()))
    for stages in ([ff.batch(32)], [ff.shuffle(), ff.batch(32)], [ff.shuffle(), ff.select(["f", "l"]), ff.batch(7)]):
        for one, other in zip(ff.pipe(flow, *stages), ff.pipe(right, *stages), strict=True):
            assert all(map(exact, one.values(), other.values()))


def test_a_frame_of_polars_is_what_from_arrays_gives():
    columns = {name: column for name, column in ARRAYS.items() if name not in ("e", "M8[s]", "m8[s]")}
    flow = from_table(polars().DataFrame(columns))
    for one, other in zip(
        ff.pipe(flow, ff.shuffle(), ff.batch(32)), ff.pipe(ff.from_arrays(**columns), ff.shuffle(), ff.batch(32))
    ):
        assert all(map(exact, one.values(), other.values()))


@pytest.mark.parametrize("name", VALUES)
def test_a_column_without_one_holds_pythons_values(name):
    values, kind = VALUES[name]
    whole = pa.table({"x": pa.array(values * 100, kind), "i": np.arange(3 * 100)})
    for table in (whole, pa.concat_tables([whole[:50], whole[50:]]), whole.to_batches()[0], whole.slice(3)):
        flow = from_table(table)
        rows = list(flow)
        assert [row["x"] for row in rows[:3]] == values
        assert list(map(type, (row["x"] for row in rows[:3]))) == list(map(type, values))
        assert [flow[i]["x"] for i in range(3)] == values
        assert all(row["x"] == values[row["i"] % 3] for row in ff.shuffle(flow))
        lists = ff.pipe(flow, ff.shuffle(), ff.batch(32, collate={"x": ff.as_list}))
        assert all(x == values[i % 3] for batch in lists for x, i in zip(batch["x"], batch["i"], strict=True))
        assert [row["x"] for row in ff.slice(None, None, -1, source=flow)][:3] == values[::-1]


def test_rows_are_the_same_from_every_library():
    columns = {
        "t": ["a", None, "c"],
        "i": [1, 2, 3],
        "f": [0.1, 0.2, 0.3],
        "l": [[1], [2, 3], []],
        "b": [True, None, False],
    }
    frame = pd.DataFrame({**columns, "t": pd.array(columns["t"], "string"), "b": pd.array(columns["b"], "boolean")})
    arrow = pa.table(columns)
    rows = [{name: column[i] for name, column in columns.items()} for i in range(3)]
    assert list(from_table(arrow)) == list(from_table(polars().DataFrame(columns))) == list(from_table(frame)) == rows
    assert list(from_table(arrow.to_reader().read_all(), ["i", "t"])) == [{"i": r["i"], "t": r["t"]} for r in rows]


PANDAS = {
    "Int64": ([1, None, 3], [1, None, 3]),
    "Float32": ([1.5, None, 3.0], [1.5, None, 3.0]),
    "boolean": ([True, None, False], [True, None, False]),
    "string": (["a", None, "c"], ["a", None, "c"]),
    "category": (["b", "a", None], ["b", "a", None]),
    "int64[pyarrow]": ([1, None, 3], [1, None, 3]),
}


@pytest.mark.parametrize("dtype", PANDAS)
def test_pandas_own_dtypes_hold_none_where_something_is_missing(dtype):
    """In pandas it is NA, or NaN: `np.asarray` of such a column makes floats of its integers, and of integers of a
    categorical column of which one is missing (pandas 3.1.1)."""
    values, right = PANDAS[dtype]
    rows = [row["x"] for row in from_table(pd.DataFrame({"x": pd.array(values, dtype)}))]
    assert rows == right
    assert list(map(type, rows)) == list(map(type, right))
    assert np.asarray(pd.Series(pd.Categorical([1, None]))).dtype == float


@pytest.mark.parametrize(
    ("dtype", "right"),
    [
        ("Int8", np.int8),
        ("UInt64", np.uint64),
        ("Float32", np.float32),
        ("boolean", np.bool_),
        ("int16[pyarrow]", np.int16),
    ],
)
def test_pandas_own_dtypes_are_arrays_where_nothing_is_missing(dtype, right):
    frame = pd.DataFrame({"x": pd.array([1, 0, 1], dtype)})
    (batch,) = ff.batch(3, from_table(frame))
    assert exact(batch["x"], np.array([1, 0, 1], right))


def test_what_arrow_does_not_have_of_polars_is_python_objects():
    """polars gives Arrow the addresses of its objects, as eight bytes each, and says nothing of it (polars 2.1.0); whole
    numbers of 128 bits it gives in a form of its own, that pyarrow 26 does not know."""
    pl = polars()
    objects = [object(), None, [1]]
    frame = pl.DataFrame({"o": objects, "i": [2**100, None, 1]}, schema={"o": pl.Object, "i": pl.Int128})
    assert str(frame["o"].to_arrow().type) == "fixed_size_binary[8]"
    assert [row["o"] for row in from_table(frame)] == objects
    assert [row["i"] for row in from_table(frame)] == [2**100, None, 1]


def test_the_types_of_polars_are_read():
    pl = polars()
    values = {
        "c": (["x", "y"], pl.Categorical),
        "e": (["y", "x"], pl.Enum(["x", "y"])),
        "d": ([decimal.Decimal("1.50"), None], pl.Decimal(10, 2)),
        "time": ([datetime.time(1, 2, 3, 4), None], pl.Time),
        "z": ([NOON.replace(tzinfo=UTC), None], pl.Datetime("us", "UTC")),
        "l": ([["a", None], []], pl.List(pl.String)),
        "s": ([{"x": 1, "y": "a"}, {"x": None, "y": "b"}], pl.Struct({"x": pl.Int8, "y": pl.String})),
        "b": ([b"a", None], pl.Binary),
        "n": ([None, None], pl.Null),
    }
    frame = pl.DataFrame({name: pl.Series(one, dtype=kind) for name, (one, kind) in values.items()})
    assert list(from_table(frame)) == [{name: one[i] for name, (one, _) in values.items()} for i in range(2)]
    arrays = pl.DataFrame({"v": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Float32, 2)), "t": [NOON, None]})
    (batch,) = ff.batch(2, from_table(arrays))
    assert exact(batch["v"], np.array([[1, 2], [3, 4]], "f4"))
    assert exact(batch["t"], np.array([NOON, "NaT"], "M8[us]"))


def test_texts_are_texts_however_pandas_stores_them():
    """pandas 3 keeps texts as `str`, in which a missing one is NaN; before, as objects."""
    for dtype in ("str", "string", object, "string[python]", "string[pyarrow]"):
        rows = [row["x"] for row in from_table(pd.DataFrame({"x": pd.Series(["a", None, "ü"], dtype=dtype)}))]
        assert rows == ["a", None, "ü"], dtype


def test_categories_are_their_values():
    frame = pd.DataFrame(
        {"n": pd.Categorical([30, 10, 30]), "t": pd.Categorical(["x", "y", "x"]), "cut": pd.cut([1, 2, 3], [0, 2, 4])}
    )
    (batch,) = ff.batch(3, from_table(frame))
    assert exact(batch["n"], np.array([30, 10, 30]))
    assert batch["t"] == ["x", "y", "x"]
    assert batch["cut"] == [pd.Interval(0, 2), pd.Interval(0, 2), pd.Interval(2, 4)]


def test_what_only_pandas_has_stays_its_objects():
    periods = pd.period_range("2024-01", periods=2, freq="M")
    frame = pd.DataFrame({"p": periods, "s": pd.arrays.SparseArray([0, 1], dtype="int8"), "o": [{1}, None]})
    rows = list(from_table(frame))
    assert [row["p"] for row in rows] == list(periods)
    assert [row["o"] for row in rows] == [{1}, None]
    assert exact(next(iter(ff.batch(2, from_table(frame, ["s"]))))["s"], np.array([0, 1], "i1"))


def test_times_with_a_zone_keep_it():
    """numpy has no zones: `to_numpy` of such a column in Arrow is the time in UTC, and says nothing of it (pyarrow 26)."""
    times = pd.Series(pd.to_datetime(["2024-07-01 12:00", None])).dt.tz_localize(BERLIN)
    frame = pd.DataFrame({"t": times})
    for table in (frame, pa.Table.from_pandas(frame), polars().from_pandas(frame)):
        first, second = (row["t"] for row in from_table(table))
        assert first.isoformat() == "2024-07-01T12:00:00+02:00"
        assert second is None
    assert pa.array(times).to_numpy(zero_copy_only=False)[0] == np.datetime64("2024-07-01T10:00:00")


def test_a_missing_time_without_a_zone_is_nat():
    table = pa.table(
        {
            "t": pa.array([NOON, None], pa.timestamp("us")),
            "d": pa.array([NOON.date(), None]),
            "s": pa.array([None, 5], pa.duration("s")),
        }
    )
    (batch,) = ff.batch(2, from_table(table))
    assert [str(batch[name].dtype) for name in "tds"] == ["datetime64[us]", "datetime64[D]", "timedelta64[s]"]
    assert [np.isnat(batch[name]).tolist() for name in "tds"] == [[False, True], [False, True], [True, False]]


def test_lists_of_one_length_and_tensors_are_arrays_with_more_axes():
    grid = np.arange(24, dtype="f4").reshape(4, 3, 2)
    inner = pa.FixedSizeListArray.from_arrays(pa.array(grid.reshape(-1)), 2)
    table = pa.table(
        {"v": pa.FixedSizeListArray.from_arrays(inner, 3), "t": pa.FixedShapeTensorArray.from_numpy_ndarray(grid)}
    )
    for one in (table, table.slice(1), pa.concat_tables([table[:1], table[1:]])):
        (batch,) = ff.batch(4, from_table(one))
        assert exact(batch["v"], grid[4 - len(one) :])
        assert exact(batch["t"], grid[4 - len(one) :])


def test_lists_of_numbers_are_arrays_of_their_dtype_if_wanted():
    table = pa.table({"x": pa.array([[1, 2], [3], []], pa.list_(pa.int16()))})
    rows = [row["x"] for row in from_table(table, arrays=True)]
    assert all(map(exact, rows, [np.array([1, 2], "i2"), np.array([3], "i2"), np.array([], "i2")]))
    padded = next(iter(ff.batch(3, from_table(table, arrays=True), collate=ff.pad(0))))
    assert padded["x"].dtype == np.int16


def test_what_stands_for_a_missing_value_makes_an_array():
    table = pa.table(
        {
            "i": pa.array([1, None, 3], pa.int32()),
            "f": [0.5, None, 1.5],
            "t": ["a", None, "c"],
            "c": pa.array([7, None, 7]).dictionary_encode(),
        }
    )
    flow = from_table(table, missing={"i": -1, "f": 0.0, "t": ""})
    (batch,) = ff.batch(3, flow, collate={"c": ff.as_list})
    assert exact(batch["i"], np.array([1, -1, 3], "i4"))
    assert exact(batch["f"], np.array([0.5, 0, 1.5]))
    assert batch["t"] == ["a", "", "c"]
    assert exact(next(iter(ff.batch(3, from_table(table, ["i"], missing={"i": 0.5}))))["i"], np.array([1, 0.5, 3]))
    assert [row["c"] for row in from_table(table, missing={"c": 0})] == [7, 0, 7]
    frame = pd.DataFrame({"i": pd.array([1, None], "Int64"), "f": [0.5, np.nan]})
    assert exact(next(iter(ff.batch(2, from_table(frame, missing={"i": 0, "f": 1.0}))))["f"], np.array([0.5, 1]))
    with pytest.raises(ValueError, match=r"like the others of 'f', float64, got 'a'"):
        from_table(frame, missing={"f": "a"})
    with pytest.raises(ValueError, match=r"batch\(\): None is among values .*missing= of .*from_table"):
        list(ff.batch(3, from_table(table, ["i"])))


def test_pandas_index_is_a_column_if_wanted():
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([10, 20], name="key"))
    assert list(from_table(frame)) == [{"x": 1}, {"x": 2}]
    assert list(from_table(frame, index=True)) == [{"key": 10, "x": 1}, {"key": 20, "x": 2}]
    assert next(iter(from_table(frame.rename_axis(None), index=True))) == {"index": 10, "x": 1}
    several = pd.DataFrame({"x": [1]}, index=pd.MultiIndex.from_tuples([("a", 2)], names=["one", "two"]))
    assert list(from_table(several, index=True)) == [{"one": "a", "two": 2, "x": 1}]
    assert list(from_table(pd.DataFrame({"compute": [1], "iloc": [2]}))) == [{"compute": 1, "iloc": 2}]
    assert list(from_table(pd.DataFrame({("a", 1): [1], 5: [2]}))) == [{("a", 1): 1, 5: 2}]


def test_arrays_are_looked_into_where_they_lie():
    values = np.arange(1000.0)
    for table in (pa.table({"x": values}), pd.DataFrame({"x": values}, copy=False)):
        (column,) = from_table(table).part.object.arrays
        assert np.shares_memory(column, values)


def test_nobody_changes_a_table_by_its_rows():
    table = pa.table(
        {
            "v": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6.0)), 2),
            "l": [[1], [2], [3]],
            "t": ["a", "b", "c"],
        }
    )
    before = table.to_pylist()
    flow = from_table(table)
    for row in (flow[0], *flow, *ff.shuffle(flow)):
        with pytest.raises(ValueError, match="read-only"):
            row["v"][0] = 7
        row["l"].append(7)
        row["new"] = 1
    for batch in ff.pipe(flow, ff.shuffle(), ff.batch(3)):
        batch["v"][:] = 7
    assert table.to_pylist() == before
    assert [row["l"] for row in flow] == [[1], [2], [3]]


def test_an_edit_of_a_data_frame_is_not_seen():
    """pandas 3 copies a column when it is written to, as long as another DataFrame looks into it; an array that looks
    into it is not asked (https://pandas.pydata.org/docs/user_guide/copy_on_write.html)."""
    if int(pd.__version__.split(".")[0]) < 3:
        pytest.skip("pandas 3 copies on write")
    frame = pd.DataFrame({"x": np.arange(5.0), "t": list("abcde")})
    alone = pd.DataFrame({"x": np.arange(5.0)})
    flow, view = from_table(frame), alone["x"].to_numpy()
    frame.loc[0, "x"] = alone.loc[0, "x"] = 99
    frame.loc[0, "t"] = "z"
    assert flow[0] == {"x": 0.0, "t": "a"}
    assert view[0] == 99


@pytest.mark.parametrize("start", [0, 1, 4, 9])
def test_a_pass_goes_on_exactly(start):
    table = pa.table({"x": np.arange(100), "t": [str(i) for i in range(100)]})
    flow = ff.pipe(from_table(table), ff.shuffle(), ff.batch(10)).set_epoch(3)
    iterator = iter(flow)
    for _ in range(start):
        next(iterator)
    state = iterator.state_dict()
    again = iter(ff.pipe(from_table(table), ff.shuffle(), ff.batch(10)))
    again.load_state_dict(state)
    for one, other in zip(iterator, again, strict=True):
        assert exact(one["x"], other["x"])
        assert one["t"] == other["t"]


@pytest.mark.timeout(120)
def test_flows_of_a_table_keep_the_laws():
    table = pa.table({"x": np.arange(60), "t": [str(i) for i in range(60)], "l": [[i] for i in range(60)]})
    check(lambda: ff.pipe(from_table(table), ff.shuffle(), ff.batch(7)))


@pytest.mark.timeout(120)
def test_workers_get_the_same_batches():
    table = pa.table({"x": np.arange(1000), "t": [str(i) for i in range(1000)], "l": [[i] for i in range(1000)]})
    flow = ff.pipe(from_table(table), ff.shuffle(), ff.batch(50))
    for one, other in zip(flow, ff.pipe(flow, ff.prefetch(4, processes=2)), strict=True):
        assert exact(one["x"], other["x"])
        assert exact(one["l"], other["l"])
        assert one["t"] == other["t"]


@pytest.mark.timeout(120)
def test_a_table_is_packed_once_in_a_pass_for_all_workers(monkeypatch):
    packed = []
    stored = ArrowColumn.__getstate__
    monkeypatch.setattr(ArrowColumn, "__getstate__", lambda self: [packed.append(1), stored(self)][1])
    table = pa.table({"t": [str(i) for i in range(500)]})
    flow = ff.pipe(from_table(table), ff.shuffle(), ff.batch(10), ff.prefetch(4, processes=2))
    for epoch in range(3):
        assert len(list(flow.run(epoch=epoch))) == 50
    assert len(packed) == 3


def test_a_slice_travels_without_the_rest():
    """A slice of an Arrow array, pickled by itself, would take its whole memory along."""
    table = pa.table({"t": [f"text {i:050}" for i in range(20_000)]}).slice(5, 10)
    for values in (from_table(table).part.object, from_table(table.take([0, 1])).part.object):
        stored = pickle.dumps(values)
        assert len(stored) < 3000
        assert list(pickle.loads(stored)) == list(values)


def said(error, call):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_what_is_no_table_is_refused_in_words():
    table = pa.table({"x": [1, None], "y": [2, 3]})
    twice = pa.table([pa.array([1]), pa.array([2])], ["x", "x"])
    for source in (
        [1, 2],
        {"x": [1]},
        "path",
        pd.Series([1]),
        pa.array([1]),
        pa.chunked_array([[1]]),
        polars().Series([1]),
    ):
        assert "from_table(): a " in said(TypeError, lambda source=source: from_table(source))
    assert "write from_table(table.collect())" in said(
        TypeError, lambda: from_table(polars().DataFrame({"x": [1]}).lazy())
    )
    assert "columns must be some of 'x', 'y', each once, got ['z']" in said(
        ValueError, lambda: from_table(table, ["z"])
    )
    assert "each once, got ['x', 'x']" in said(ValueError, lambda: from_table(table, ["x", "x"]))
    assert "each once, got []" in said(ValueError, lambda: from_table(table, []))
    assert "columns must be a list of names" in said(TypeError, lambda: from_table(table, "x"))
    assert "different names, got 'x' more than once" in said(ValueError, lambda: from_table(twice))
    assert "must have columns" in said(ValueError, lambda: from_table(pa.table({})))
    assert "missing must name some of 'x', 'y', got 'z'" in said(
        ValueError, lambda: from_table(table, missing={"z": 0})
    )
    assert "missing must have a value like the others of 'x', int64, got 'a'" in said(
        ValueError, lambda: from_table(table, missing={"x": "a"})
    )
    assert "index is pandas'" in said(ValueError, lambda: from_table(table, index=True))
    assert repr(from_table(table)) == "from_table(pyarrow[2 rows of 2 columns])"


def test_an_empty_table_is_an_empty_flow():
    schema = pa.schema(
        {"x": pa.int64(), "t": pa.string(), "v": pa.list_(pa.float32(), 2), "c": pa.dictionary(pa.int8(), pa.string())}
    )
    for table in (schema.empty_table(), pa.table({"x": [1, 2], "t": ["a", "b"]}).slice(0, 0), pd.DataFrame({"x": []})):
        assert list(from_table(table)) == list(ff.batch(2, from_table(table))) == []


@pytest.mark.parametrize("name", ["views", "runs"])
def test_types_that_arrow_itself_cannot_gather_are_read_all_the_same(name):
    made = {
        "views": lambda: pa.array([[1, 2], [3], None] * 5, pa.list_view(pa.int64())),
        "runs": lambda: pa.RunEndEncodedArray.from_arrays([2, 15], ["a", "b"]),
    }[name]()
    flow = from_table(pa.table({"x": made, "i": np.arange(15)}))
    assert {row["i"]: row["x"] for row in ff.shuffle(flow)} == dict(enumerate(made.to_pylist()))
