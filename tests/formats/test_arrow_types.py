"""Every type that Arrow has, read in every way: the same values, those of pyarrow's own `to_pylist`."""

import datetime
import decimal
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flowfn as ff
from flowfn.formats import read_arrow, read_parquet
from flowfn.testing import same

NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
TEXTS = ["a", None, "b" * 20]
LISTS = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
}
DATES = [datetime.date(2020, 1, 2), None, datetime.date(1969, 1, 1)]
DECIMALS = [decimal.Decimal("1.25"), None, decimal.Decimal("-3.50")]
RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]))


def ticks(kind, step=1):
    return pa.array([step, None, 3 * step], pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(kind)


def extended(kind, values):
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


TYPES = {
    "null": pa.nulls(3),
    "bool": pa.array([True, None, False]),
    **{name: pa.array([1, None, 3], pa.float64()).cast(getattr(pa, name)()) for name in NUMBERS},
    **{name: pa.array(TEXTS, getattr(pa, name)()) for name in ("string", "large_string", "string_view")},
    **{
        name: pa.array([b"a", None, b"b" * 20], getattr(pa, name)())
        for name in ("binary", "large_binary", "binary_view")
    },
    "fixed_size_binary": pa.array([b"ab", None, b"ef"], pa.binary(2)),
    "date32": pa.array(DATES),
    "date64": pa.array(DATES, pa.date64()),
    **{f"time32 {unit}": ticks(pa.time32(unit)) for unit in ("s", "ms")},
    **{f"time64 {unit}": ticks(pa.time64(unit), 1000) for unit in ("us", "ns")},
    **{f"timestamp {unit}": ticks(pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    "timestamp, zone": ticks(pa.timestamp("us", "Europe/Berlin")),
    "timestamp, offset": ticks(pa.timestamp("ns", "+05:30")),
    **{f"duration {unit}": ticks(pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "months": pa.array([(1, 2, 3), None, (4, 5, 6)], pa.month_day_nano_interval()),
    **{f"decimal{bits}": pa.array(DECIMALS, getattr(pa, f"decimal{bits}")(5, 2)) for bits in (32, 64, 128, 256)},
    **{name: pa.array([[1, None], None, []], make(pa.int32())) for name, make in LISTS.items()},
    "fixed_size_list": pa.array([[1, None], None, [3, 4]], pa.list_(pa.int16(), 2)),
    "lists of lists": pa.array([[["a"], []], None, [None]]),
    "lists of views": pa.array([TEXTS, None, []], pa.list_(pa.string_view())),
    "lists of dictionary": pa.ListArray.from_arrays([0, 1, 2, 3], pa.array(["a", None, "a"]).dictionary_encode()),
    "lists of structs": pa.array([[{"a": 1}], None, [{"a": None}, None]]),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
    "struct of views": pa.array([{"a": "x" * 20}, None, {"a": None}], pa.struct([("a", pa.string_view())])),
    "struct of runs": pa.StructArray.from_arrays([RUNS], ["a"]),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of numbers": pa.array([1.5, None, 1.5]).dictionary_encode(),
    "run ends": RUNS,
    "run ends of numbers": pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int16()), pa.array([1, 2])),
    "sparse union": pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, None]), pa.array(["a", "b", "c"])]
    ),
    "dense union": pa.UnionArray.from_dense(
        pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, None]), pa.array(["b"])]
    ),
    "uuid": extended(pa.uuid(), [uuid.UUID(int=5).bytes, None, uuid.UUID(int=7).bytes]),
    "json": extended(pa.json_(), ['{"a": 1}', None, "2"]),
    "bool8": extended(pa.bool8(), [1, None, 0]),
    "opaque": extended(pa.opaque(pa.int32(), "type", "vendor"), [1, None, 0]),
}
NOT_IN_PARQUET = {"months", "struct of runs", "run ends", "run ends of numbers", "sparse union", "dense union"}
KINDS = ("file", "stream", "compressed", "parquet")
WAYS = {
    "in order": (list, None),
    "by index": (lambda flow: [flow[i] for i in range(len(flow))], None),
    "subset": (lambda flow: list(ff.subset([8, 0, 4, 4, 1], flow)), [8, 0, 4, 4, 1]),
    "backwards": (lambda flow: list(ff.slice(None, None, -1, source=flow)), range(8, -1, -1)),
    "slice": (lambda flow: list(flow[2:7]), range(2, 7)),
    "shards": (
        lambda flow: [row for rank in range(2) for row in ff.shard(rank, 2, source=flow)],
        [0, 2, 4, 6, 8, 1, 3, 5, 7],
    ),
    "shuffled": (lambda flow: sorted(ff.shuffle(source=flow), key=lambda row: row["number"]), None),
    "in batches": (lambda flow: list(ff.unbatch(ff.batch(2, flow, collate=ff.as_list))), None),
    "in batches at random": (
        lambda flow: list(ff.pipe(flow, ff.subset([8, 0, 4, 4, 1]), ff.batch(2, collate=ff.as_list), ff.unbatch())),
        [8, 0, 4, 4, 1],
    ),
    "saved and loaded": (lambda flow: [*flow[:4], *flow.run(start=4)], None),
}


def stored(path, columns, kind):
    """A file of three groups of three rows each, with their number beside the columns."""
    batches = [pa.record_batch({**columns, "number": pa.array(range(start, start + 3))}) for start in (0, 3, 6)]
    schema = batches[0].schema
    if kind == "parquet":
        with pq.ParquetWriter(path, schema) as file:
            for batch in batches:
                file.write_batch(batch)
        return read_parquet(path)
    options = pa.ipc.IpcWriteOptions(compression="zstd" if kind == "compressed" else None)
    with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(str(path), schema, options=options) as file:
        for batch in batches:
            file.write_batch(batch)
    return read_arrow(path)


def expected(columns):
    once = pa.table(columns).to_pylist()
    return [row | {"number": 3 * repeat + at} for repeat in range(3) for at, row in enumerate(once)]


def test_all_types_that_arrow_has_are_here():
    """What tells types apart is `pa.types`: each of its words is true of one of those below,
    or of one of its names for many."""
    kinds = [column.type for column in TYPES.values()]
    asked = {
        name: getattr(pa.types, name)
        for name in dir(pa.types)
        if name.startswith("is_") and not name.endswith("_value")
    }
    unseen = {name for name, is_such in asked.items() if not any(is_such(kind) for kind in kinds)}
    assert not unseen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_the_same_values_in_every_way(tmp_path, name, kind):
    columns = {"x": TYPES[name]}
    if kind == "parquet" and name in NOT_IN_PARQUET:
        with pytest.raises(NotImplementedError):
            pq.write_table(pa.table(columns), tmp_path / "a")
        return
    flow, rows = stored(tmp_path / "a", columns, kind), expected(columns)
    for way, (read, order) in WAYS.items():
        found = read(flow)
        wanted = rows if order is None else [rows[at] for at in order]
        assert len(found) == len(wanted), way
        assert all(map(same, found, wanted)), way
        assert [type(row["x"]) for row in found] == [type(row["x"]) for row in wanted], way


@pytest.mark.timeout(180)
@pytest.mark.parametrize("workers", [{"threads": 2}, pytest.param({"processes": 2}, marks=pytest.mark.long)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_has_the_same_values_in_workers(tmp_path, kind, workers):
    columns = {name: column for name, column in TYPES.items() if kind != "parquet" or name not in NOT_IN_PARQUET}
    flow, rows = stored(tmp_path / "a", columns, kind), expected(columns)
    order = [8, 0, 4, 4, 1]
    assert all(map(same, ff.prefetch(2, source=flow, **workers), rows))
    assert all(map(same, ff.pipe(flow, ff.subset(order), ff.prefetch(2, **workers)), [rows[at] for at in order]))


@pytest.mark.parametrize("name", ["list", "large_list", "list_view", "large_list_view", "fixed_size_list"])
def test_all_lists_of_numbers_are_arrays_if_asked(tmp_path, name):
    kind = pa.list_(pa.int16(), 2) if name == "fixed_size_list" else LISTS[name](pa.int16())
    table = pa.table({"x": pa.array([[1, 2], None, [3, None], [5, 6]], kind)})
    with pa.ipc.new_file(str(tmp_path / "a"), table.schema) as file:
        file.write_table(table)
    flow, rows = (
        read_arrow(tmp_path / "a", arrays=True),
        [np.array([1, 2], np.int16), None, [3, None], np.array([5, 6], np.int16)],
    )
    assert all(map(same, flow, [{"x": row} for row in rows]))
    assert all(map(same, ff.subset([3, 1, 2, 0], flow), [{"x": rows[at]} for at in (3, 1, 2, 0)]))


# Files of several writers, read together


TEXT = pa.array(["b", None])
ALIKE = {
    "texts": [TEXT, TEXT.cast(pa.large_string()), TEXT.cast(pa.string_view()), TEXT.dictionary_encode(), RUNS[1:]],
    "bytes": [
        pa.array([b"ab", None], kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2))
    ],
    "integers": [pa.array([3, None], getattr(pa, name)()) for name in NUMBERS[:8]],
    "floats": [pa.array([1.5, None], getattr(pa, name)()) for name in NUMBERS[8:]],
    "times": [pa.array([datetime.datetime(2020, 1, 2), None], pa.timestamp(unit)) for unit in ("s", "ms", "us")],
    "dates": [pa.array(DATES[:2]), pa.array(DATES[:2], pa.date64())],
    "decimals": [pa.array(DECIMALS[:2], pa.decimal128(5, 2)), pa.array(DECIMALS[:2], pa.decimal256(40, 4))],
    "lists": [pa.array([[1], None], make(pa.int32())) for make in LISTS.values()]
    + [pa.array([[1], None], pa.list_(pa.int8(), 1))],
    "lists of texts": [pa.array([["a"], []], pa.list_(kind)) for kind in (pa.string(), pa.large_string())]
    + [pa.array([[], [None]])],
    "structs": [
        pa.array([{"a": 1, "b": "c"}]),
        pa.array([{"b": "c", "a": None}], pa.struct([("b", pa.large_string()), ("a", pa.null())])),
    ],
}


@pytest.mark.parametrize("name", ALIKE)
def test_columns_whose_values_are_alike_are_read_together(tmp_path, name):
    columns = [*ALIKE[name], pa.nulls(2), ALIKE[name][0]]
    for at, column in enumerate(columns):
        table = pa.table({"x": column})
        with pa.ipc.new_stream(str(tmp_path / f"{at:02}.arrow"), table.schema) as file:
            file.write_table(table)
    for paths in (sorted(tmp_path.glob("*.arrow")), sorted(tmp_path.glob("*.arrow"), reverse=True)):
        flow = read_arrow(paths)
        rows = [
            {"x": value}
            for column in (columns if paths[0].name == "00.arrow" else columns[::-1])
            for value in column.to_pylist()
        ]
        assert all(map(same, flow, rows))
        assert all(same(flow[at], row) for at, row in enumerate(rows))
        assert all(map(same, ff.slice(None, None, -1, source=flow), rows[::-1]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array(["a"]), pa.array([b"a"])),
        (pa.array([1]), pa.array([1.0])),
        (pa.array([1]), pa.array([True])),
        (pa.array([1]), pa.array(["a"])),
        (pa.array([[1]]), pa.array([["a"]])),
        (pa.array([[1]]), pa.array([1])),
        (pa.array([{"a": 1}]), pa.array([{"b": 1}])),
        (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": 1}])),
        (ticks(pa.timestamp("s")), ticks(pa.timestamp("s", "UTC"))),
        (ticks(pa.timestamp("s")), pa.array(DATES)),
        (TYPES["uuid"], TYPES["uuid"].storage),
        (TYPES["bool8"], pa.array([True])),
        (TYPES["sparse union"], TYPES["dense union"]),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_whose_values_are_others_are_refused(tmp_path, one, other):
    for at, column in enumerate([one, pa.nulls(1), other]):
        table = pa.table({"x": column})
        with pa.ipc.new_stream(str(tmp_path / f"{at}.arrow"), table.schema) as file:
            file.write_table(table)
    with pytest.raises(
        ValueError, match=r"files must have the same columns, but 'x' is .* in .*/2.arrow, .* in .*/0.arrow"
    ):
        read_arrow(str(tmp_path / "{0..2}.arrow"))
    with pytest.raises(
        ValueError, match=r"files must have the same columns, but 'x' is .* in .*/0.arrow, .* in .*/2.arrow"
    ):
        read_arrow([tmp_path / "1.arrow", tmp_path / "2.arrow", tmp_path / "0.arrow"])


def test_arrays_of_one_column_have_one_dtype_in_all_files(tmp_path):
    for at, kind in enumerate((pa.int8(), pa.int16())):
        pq.write_table(pa.table({"x": pa.array([[1, 2]], pa.list_(kind))}), tmp_path / f"{at}.parquet")
    assert [row["x"] for row in read_parquet(str(tmp_path / "*.parquet"))] == [[1, 2], [1, 2]]
    with pytest.raises(ValueError, match=r"'x' is list<element: int16> in .*, list<element: int8> in"):
        read_parquet(str(tmp_path / "*.parquet"), arrays=True)


def test_columns_that_other_files_lack_are_refused_unless_others_are_chosen(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"x": [2], "y": [3]}), tmp_path / "1.parquet")
    for order in ("{0..1}", "{1..0}"):
        with pytest.raises(ValueError, match=r"'y' is (int64|missing) in .*, (int64|missing) in"):
            read_parquet([tmp_path / f"{at}.parquet" for at in order[1:-1].split("..")])
    assert [row["x"] for row in read_parquet(str(tmp_path / "*.parquet"), ["x"])] == [1, 2]
