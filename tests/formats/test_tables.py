"""Parquet and Arrow: what pyarrow and pandas write is read, they read what is written,
values come back, damage is named."""

import datetime
import decimal
import gc
import math
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flowfn as ff
from flowfn.formats.tables import decoding
from flowfn.formats.tables import reading as tables
from flowfn.formats.tables.reading import read_arrow, read_parquet, write_arrow, write_parquet
from flowfn.testing import check, left_behind, same

in_workers = pytest.mark.parametrize(
    "workers",
    [({}, {"threads": 2}), pytest.param(({"processes": 2},), marks=pytest.mark.long)],
    ids=["threads", "processes"],
)
FORMATS = {"parquet": (write_parquet, read_parquet), "arrow": (write_arrow, read_arrow)}
COLUMNS = {
    "int8": pa.array([1, 2, -3], pa.int8()),
    "uint64": pa.array([1, 2**64 - 1, 3], pa.uint64()),
    "holes": pa.array([1, None, 3]),
    "float16": pa.array(np.array([1, 2, 3], np.float16)),
    "double": pa.array([0.5, float("inf"), -0.0]),
    "double_holes": pa.array([0.5, None, 1.5]),
    "bool": pa.array([True, None, False]),
    "text": pa.array(["a", None, "längere"]),
    "large_text": pa.array(["a", "", "längere"], pa.large_string()),
    "bytes": pa.array([b"a\0", None, b""]),
    "fixed": pa.array([b"ab", b"cd", b"ef"], pa.binary(2)),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "date": pa.array([datetime.date(2020, 1, 2), None, datetime.date(1969, 1, 1)]),
    "time": pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5, 6), None, datetime.datetime(1969, 1, 1)]),
    "zone": pa.array([datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)] * 3),
    "decimal": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.50")]),
    "list": pa.array([[1, 2], None, []]),
    "list_holes": pa.array([[1, None], [2], None]),
    "nested": pa.array([[["a"], []], [], None]),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": 2, "b": None}]),
    "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "null": pa.nulls(3),
}


def stored(path, table, kind, **options):
    if kind == "parquet":
        pq.write_table(table, path, **options)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=options.get("row_group_size"))
    return str(path)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", COLUMNS)
def test_what_pyarrow_wrote_is_read_as_pyarrow_reads_it(tmp_path, name, kind):
    table = pa.table({"x": COLUMNS[name], "number": [0, 1, 2]})
    path = stored(tmp_path / "a", table, kind, row_group_size=2)
    flow = FORMATS[kind][1](path)
    expected = table.to_pylist()
    assert all(map(same, list(flow), expected))
    assert same(flow[1], expected[1])
    assert all(map(same, ff.pipe(flow, ff.subset([2, 0, 2, 1])), [expected[i] for i in (2, 0, 2, 1)]))


def test_what_pandas_wrote_is_read_and_pandas_reads_what_is_written(tmp_path):
    import pandas

    frame = pandas.DataFrame({"x": [1, 2, 3], "t": ["a", "b", "c"], "f": [0.5, 1.5, 2.5]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_feather(tmp_path / "a.feather")
    assert list(read_parquet(tmp_path / "a.parquet")) == frame.to_dict("records")
    assert list(read_arrow(tmp_path / "a.feather")) == frame.to_dict("records")
    for write, read in ((write_parquet, pandas.read_parquet), (write_arrow, pandas.read_feather)):
        write(tmp_path / "b", frame.to_dict("records"), overwrite=True)
        assert read(tmp_path / "b").equals(frame)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_streams_and_compressed_arrow_files_are_read(tmp_path, compression):
    table = pa.table({"x": range(100), "t": [str(i) for i in range(100)]})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    for new in (pa.ipc.new_file, pa.ipc.new_stream):
        with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, new(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=7)
        flow = read_arrow(tmp_path / "a.arrow")
        assert list(flow) == table.to_pylist()
        assert list(read_arrow(tmp_path / "a.arrow", ["t"])) == table.select(["t"]).to_pylist()
        assert flow[50] == {"x": 50, "t": "50"}


DATAPOINT = {
    "number": 1,
    "float": 0.1,
    "flag": True,
    "text": "ä",
    "bytes": b"\0\1",
    "none_yet": None,
    "list": [1, 2],
    "texts": ["a", "b"],
    "dict": {"a": 1, "b": [{"c": "d"}]},
    "date": datetime.date(2020, 2, 29),
    "vector": np.arange(3, dtype=np.uint8),
    "image": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
    "flags": np.array([True, False, True]),
    "grid": np.array([[True, False], [False, False]]),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("form", ["dict", "list", "bare"])
def test_what_was_written_comes_back(tmp_path, kind, form):
    write, read = FORMATS[kind]
    datapoints = [DATAPOINT | {"number": i, "vector": np.arange(i, dtype=np.uint8)} for i in range(5)]
    if form == "list":
        datapoints = [list(datapoint.values()) for datapoint in datapoints]
    if form == "bare":
        datapoints = [f"text {i}" for i in range(5)]
    for group in (None, 1, 2):
        write(tmp_path / "a", datapoints, group=group, overwrite=True)
        flow = read(tmp_path / "a")
        assert all(map(same, list(flow), datapoints))
        assert same(flow[3], datapoints[3])
        assert all(map(same, ff.pipe(flow, ff.subset([4, 1, 4])), [datapoints[i] for i in (4, 1, 4)]))


def test_pyarrow_reads_what_is_written(tmp_path):
    datapoints = [{"x": np.float32(i), "v": np.arange(i, dtype=np.int16), "m": np.full((2, 2), i)} for i in range(2500)]
    write_parquet(tmp_path / "a.parquet", datapoints, group=1200, compression="snappy")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [1200, 1200, 100]
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    table = file.read()
    assert table.schema.field("x").type == pa.float32()
    assert table.schema.field("v").type.value_type == pa.int16()
    assert table.column("x").to_pylist() == list(range(2500))
    assert table.column("v")[7].as_py() == list(range(7))
    assert table.column("m").combine_chunks().to_numpy_ndarray()[2400].tolist() == [[2400, 2400], [2400, 2400]]


def test_numbers_and_texts_of_numpy_come_back_as_pythons(tmp_path):
    write_parquet(
        tmp_path / "a.parquet",
        [
            {
                "i": np.int16(3),
                "f": np.float32(0.5),
                "t": np.str_("a"),
                "z": np.array(7),
                "d": np.datetime64("2020-01-01"),
            }
        ],
    )
    (row,) = read_parquet(tmp_path / "a.parquet")
    assert row == {"i": 3, "f": 0.5, "t": "a", "z": 7, "d": datetime.date(2020, 1, 1)}
    assert type(row["i"]) is int


def test_lists_of_numbers_are_arrays_if_asked(tmp_path):
    table = pa.table(
        {
            "v": pa.array([[0.5, 1], None, [], [2, None]], pa.list_(pa.float32())),
            "f": pa.array([[1, 2]] * 4, pa.list_(pa.int8(), 2)),
            "t": [["a"]] * 4,
        }
    )
    path = stored(tmp_path / "a", table, "parquet")
    first, second, third, fourth = read_parquet(path, arrays=True)
    assert same(first, {"v": np.array([0.5, 1], np.float32), "f": np.array([1, 2], np.int8), "t": ["a"]})
    assert second["v"] is None
    assert same(third["v"], np.array([], np.float32))
    assert fourth["v"] == [2, None]
    assert same(read_parquet(path, arrays=True)[0], first)
    assert same(next(iter(ff.pipe(read_parquet(path, arrays=True), ff.subset([1, 0, 3, 0]), ff.skip(1)))), first)


def test_vectors_that_are_missing_come_back(tmp_path):
    datapoints = [{"v": np.arange(2)}, {"v": None}, {"v": np.arange(5)}]
    write_parquet(tmp_path / "a", datapoints)
    assert all(map(same, read_parquet(tmp_path / "a"), datapoints))
    datapoints = [{"v": np.ones((2, 2))}, {"v": None}, {"v": np.zeros((2, 2))}]
    write_parquet(tmp_path / "a", datapoints, overwrite=True)
    assert all(map(same, read_parquet(tmp_path / "a"), datapoints))


def test_arrays_that_hold_nothing_come_back_or_are_refused(tmp_path):
    datapoints = [{"boxes": np.zeros((0, 4))}, {"boxes": None}, {"boxes": np.zeros((0, 4))}]
    write_arrow(tmp_path / "a", datapoints)
    assert all(map(same, read_arrow(tmp_path / "a"), datapoints))
    with pytest.raises(ValueError, match=r"write_parquet\(\): column 'boxes' holds arrays \(0, 4\), which are empty"):
        write_parquet(tmp_path / "b", datapoints)


def test_rows_are_memory_of_their_own(tmp_path):
    for write, read in FORMATS.values():
        write(tmp_path / "a", [[np.zeros(3), np.zeros((2, 2))] for _ in range(9)], overwrite=True)
        flow = read(tmp_path / "a")
        for vector, image in flow:
            vector += 1
            image += 1
        assert not any(np.any(part) for row in flow for part in row)


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_and_files_are_chosen(tmp_path, kind):
    read = FORMATS[kind][1]
    first = stored(tmp_path / "1", pa.table({"x": [0, 1], "y": ["a", "b"], "z": [0.5, 1.5]}), kind)
    second = stored(tmp_path / "2", pa.table({"y": ["c", "d", "e"], "x": [2, 3, 4]}), kind)
    flow = read([first, second], ["y", "x"])
    assert list(flow) == [{"y": y, "x": x} for x, y in enumerate("abcde")]
    assert flow[4] == {"y": "e", "x": 4}
    assert list(flow[3]) == ["y", "x"]
    for several in (ff.files(str(tmp_path / "*")), str(tmp_path / "*"), tmp_path / "{1..2}", str(tmp_path / "{1,2}")):
        assert list(read(several, ["x"])) == [{"x": x} for x in range(5)]
    with pytest.raises(FileNotFoundError, match=rf"{read.__name__}\(\): no file matches"):
        read(tmp_path / "3*")
    with pytest.raises(ValueError, match=r"files must have the same columns, but 'z' is missing in .*2, double in .*1"):
        read([first, second])
    with pytest.raises(ValueError, match=r"columns must be some of 'x', 'y', 'z' in .*1, got \['w'\]"):
        read(first, ["w"])
    with pytest.raises(TypeError, match="columns must be a list of names, or None for all, got 'x'"):
        read(first, "x")
    with pytest.raises(ValueError, match="got an empty list"):
        read([])


def test_groups_are_decoded_once_in_order_and_a_few_are_kept(tmp_path, monkeypatch):
    path = stored(tmp_path / "a", pa.table({"x": range(20_000)}), "parquet", row_group_size=1000)
    decoded = []
    whole = tables.ParquetRows.decoded
    monkeypatch.setattr(
        tables.ParquetRows,
        "decoded",
        lambda self, file, number, names: decoded.append(number) or whole(self, file, number, names),
    )
    assert [row["x"] for row in read_parquet(path)] == list(range(20_000))
    assert decoded == list(range(20))
    decoded.clear()
    monkeypatch.setattr(decoding, "GROUP_CACHE", 20_000)
    flow = read_parquet(path)
    assert [flow[i]["x"] for i in (5, 1005, 6, 1006, 7, 5000, 9000, 8)] == [5, 1005, 6, 1006, 7, 5000, 9000, 8]
    assert decoded == [0, 1, 5, 9, 0]
    assert len(flow.part.object.handle._groups) == 2


def test_many_files_are_not_all_held_open(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "FILES", 3)
    paths = [stored(tmp_path / f"{i}", pa.table({"x": [i]}), "parquet") for i in range(10)]
    before = left_behind()["descriptors"]
    flow = read_parquet(paths)
    assert [row["x"] for row in flow] == list(range(10))
    assert left_behind()["descriptors"] <= before + 3
    del flow
    gc.collect()
    assert left_behind()["descriptors"] <= before


@pytest.mark.parametrize(
    ("datapoints", "message"),
    [
        ([], "there are no datapoints"),
        ([{"x": 1}, {"x": "a"}], "column 'x' of datapoints 0 to 1 cannot be written as one type"),
        ([{"x": object()}], "column 'x' of datapoints 0 to 0"),
        ([{"x": np.zeros((2, 2))}, {"x": np.zeros((2, 3))}], "must have one dtype, and one axis or all the same shape"),
        ([{"x": np.zeros(2)}, {"x": np.zeros(2, int)}], "must have one dtype"),
        ([{"x": np.zeros(2)}, {"x": 3}], "must have one dtype"),
        ([{"x": np.zeros(2, complex)}], "arrays of complex128, which Arrow does not know"),
        ([{"x": 1}, {"y": 1}], r"must have the components of the first, \['x'\], but datapoint 1 has \['y'\]"),
        ([{"x": 1}, [1]], "must have the components of the first"),
        ([{}], "datapoints must have components"),
        ([{"x": 1 << 70}], "column 'x'"),
        ([{"x": [1]}] * 1500 + [{"x": [2.5]}], "column 'x' of datapoints 1000 to 1500 cannot be written as list"),
        (
            [{"x": np.zeros((2, 2), np.int8)}] * 1500 + [{"x": np.zeros((2, 2))}],
            "but datapoint 1500 has an array of float64",
        ),
        (
            [{"x": np.zeros(2, np.int8)}] * 1500 + [{"x": np.full(2, 0.5)}],
            "column 'x' of datapoints 1000 to 1500 cannot be written as list",
        ),
        ([{"x": 1}] * 1500 + [{"x": 2.5}], "column 'x' of datapoints 1000 to 1500 cannot be written as int64"),
        (
            [{"x": np.zeros((2, 2))}] * 1500 + [{"x": np.zeros((2, 3))}],
            r"arrays of float64 \(2, 2\), but datapoint 1500 has an array of float64 \(2, 3\)",
        ),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, kind, datapoints, message):
    with pytest.raises((ValueError, TypeError), match=rf"write_{kind}\(\): .*{message}"):
        FORMATS[kind][0](tmp_path / "a", datapoints)
    assert os.listdir(tmp_path) == []


def test_a_schema_may_be_given(tmp_path):
    schema = pa.schema([("x", pa.int8()), ("y", pa.string())])
    write_parquet(tmp_path / "a", [{"x": 1, "y": None}], schema=schema)
    assert pq.read_schema(tmp_path / "a").field("y").type == pa.string()
    with pytest.raises(TypeError, match=r"schema must be a pyarrow.Schema or None, got dict"):
        write_parquet(tmp_path / "b", [1], schema={})
    with pytest.raises(ValueError, match=r"schema must have the columns \['x'\]"):
        write_parquet(tmp_path / "b", [{"x": 1}], schema=schema)
    with pytest.raises(ValueError, match="column 'x' of datapoints 0 to 0 cannot be written as int8"):
        write_parquet(tmp_path / "b", [{"x": 1000, "y": "a"}], schema=schema)


def test_a_file_is_not_replaced_unless_told(tmp_path):
    for write, read in FORMATS.values():
        write(tmp_path / "a", [1], overwrite=True)
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            write(tmp_path / "a", [2])
        write(tmp_path / "a", [2, 3], overwrite=True)
        assert list(read(tmp_path / "a")) == [2, 3]
    with pytest.raises(
        ValueError, match="compression must be 'zstd', 'snappy', 'gzip', 'brotli', 'lz4' or None, got 'zip'"
    ):
        write_parquet(tmp_path / "b", [1], compression="zip")


# Broken files


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_no_such_file_is_named(tmp_path, kind):
    read = FORMATS[kind][1]
    for content in (
        b"",
        b"something else",
        b"PAR1" + bytes(100) + b"PAR1",
        b"ARROW1" + bytes(100) + b"ARROW1",
        bytes(100),
    ):
        (tmp_path / "a").write_bytes(content)
        if kind == "arrow" and not any(content):
            continue
        other = content.startswith(b"ARROW1" if kind == "parquet" else b"PAR1")
        with pytest.raises(ValueError, match=rf"read_{kind}\(\): {tmp_path}/a {'is a' if other else 'cannot be read'}"):
            read(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="nothing"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_an_error(tmp_path, kind):
    write, read = FORMATS[kind]
    write(tmp_path / "whole", ({"x": i, "t": str(i)} for i in range(3000)), group=500)
    whole = (tmp_path / "whole").read_bytes()
    for end in range(0, len(whole), len(whole) // 50):
        (tmp_path / "a").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=f"{tmp_path}/a"):
            list(read(tmp_path / "a"))


def test_a_damaged_group_says_which_datapoints(tmp_path):
    path = stored(
        tmp_path / "a",
        pa.table({"x": np.random.Generator(np.random.PCG64(0)).random(3000)}),
        "parquet",
        row_group_size=1000,
        compression="zstd",
        use_dictionary=False,
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    with open(path, "r+b") as file:
        file.seek(column.data_page_offset + 3)
        file.write(bytes([255]) * 200)
    flow = read_parquet(path)
    assert len(list(flow[:1000])) == 1000
    with pytest.raises(ValueError, match=r"(?s)group 1 of .*/a \(datapoints 1000 to 1999\) cannot be read: .*damaged"):
        flow[1500]


def test_an_arrow_file_cannot_make_anyone_read_other_memory(tmp_path):
    table = pa.table({"t": ["some", "words"] * 50})
    path = stored(tmp_path / "a", table, "arrow")
    whole = (tmp_path / "a").read_bytes()
    offsets = np.array(table.column("t").chunk(0).buffers()[1])[:40].tobytes()
    place = whole.index(offsets)
    (tmp_path / "a").write_bytes(whole[:place] + offsets[:4] + np.int32(1 << 30).tobytes() + whole[place + 8 :])
    flow = read_arrow(path)
    for read in (list, lambda flow: flow[0]):
        with pytest.raises(ValueError, match=r"(?s)group 0 of .*/a \(datapoints 0 to 99\) cannot be read: .*damaged"):
            read(flow)


def test_columns_of_the_same_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    path = stored(tmp_path / "a", table, "arrow")
    with pytest.raises(ValueError, match="columns of the same name"):
        read_arrow(path)


def test_an_empty_table_is_an_empty_flow(tmp_path):
    for kind, (_, read) in FORMATS.items():
        assert list(read(stored(tmp_path / kind, pa.table({"x": pa.array([], pa.int64())}), kind))) == []


# As flows


@pytest.mark.timeout(180)
@in_workers
@pytest.mark.parametrize("kind", FORMATS)
def test_all_laws_hold(tmp_path, kind, workers):
    write, read = FORMATS[kind]
    write(tmp_path / "a", ({"x": np.full((3, 2), i), "t": str(i)} for i in range(23)), group=5)
    check(lambda: read(tmp_path / "a"), workers=workers)
    check(lambda: ff.pipe(read(tmp_path / "a"), ff.shuffle(), ff.batch(4)), workers=workers)


def test_flows_travel_as_their_paths(tmp_path):
    for write, read in FORMATS.values():
        write(tmp_path / "a", ({"x": "a" * 100} for i in range(5000)), overwrite=True)
        flow = read(tmp_path / "a")
        list(flow)
        held = pickle.dumps(flow.part.object)
        assert len(held) < 3000
        assert len(pickle.loads(held)) == 5000


def test_urls_are_read():
    for kind, (write, read) in FORMATS.items():
        write(f"memory://tables/{kind}", [{"x": i} for i in range(10)], overwrite=True)
        assert [row["x"] for row in read(f"memory://tables/{kind}")] == list(range(10))


def test_a_flow_says_how_it_was_made(tmp_path):
    write_parquet(tmp_path / "a", [{"x": 1}])
    path = str(tmp_path / "a")
    assert repr(read_parquet(path)) == f"read_parquet({path!r})"
    assert repr(read_parquet([path], ["x"], arrays=True)) == f"read_parquet([{path!r}], columns=['x'], arrays=True)"


# What a library made of a file is what the file says


def test_a_stream_that_was_cut_off_between_batches_is_told(tmp_path):
    table = pa.table({"x": range(1000)})
    ends = [len(table.schema.serialize())]
    with pa.OSFile(str(tmp_path / "whole"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=100):
            writer.write_batch(batch)
            ends.append(file.tell())
    whole = (tmp_path / "whole").read_bytes()
    assert len(list(read_arrow(tmp_path / "whole"))) == 1000
    for rows, end in zip(range(0, 1100, 100), ends):
        (tmp_path / "cut").write_bytes(whole[:end])
        with pytest.warns(
            UserWarning, match=rf"read_arrow\(\): {tmp_path}/cut ends without the mark .*, after {rows} rows"
        ) as told:
            flow = read_arrow(tmp_path / "cut")
        assert told[0].filename == __file__
        assert len(list(flow)) == rows
    for end in range(1, len(whole), 97):
        if end not in ends:
            (tmp_path / "cut").write_bytes(whole[:end])
            with pytest.raises(ValueError, match=f"{tmp_path}/cut"):
                read_arrow(tmp_path / "cut")


def test_the_end_of_a_stream_is_known_in_its_old_form_too(tmp_path):
    table = pa.table({"x": range(10)})
    with pa.ipc.new_stream(
        str(tmp_path / "a"), table.schema, options=pa.ipc.IpcWriteOptions(use_legacy_format=True)
    ) as file:
        file.write_table(table)
    assert list(read_arrow(tmp_path / "a")) == table.to_pylist()
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:-4])
    with pytest.warns(UserWarning, match="ends without the mark"):
        read_arrow(tmp_path / "b")


def test_what_lies_behind_the_end_of_a_stream_is_refused(tmp_path):
    table = pa.table({"x": range(10)})
    with pa.ipc.new_stream(str(tmp_path / "a"), table.schema) as file:
        file.write_table(table)
    whole = (tmp_path / "a").read_bytes()
    for more in (whole, b"\0", b"something"):
        (tmp_path / "b").write_bytes(whole + more)
        with pytest.raises(
            ValueError, match=f"/b has {len(more)} bytes behind the end of its stream, after 1 record batches"
        ):
            read_arrow(tmp_path / "b")


@pytest.mark.parametrize("deltas", [False, True])
def test_dictionaries_may_grow_and_be_replaced_in_a_stream(tmp_path, deltas):
    schema = pa.schema([("word", pa.dictionary(pa.int8(), pa.string()))])
    parts = [
        (["a", "b"], [0, 1, None]),
        (["a", "b", "c"], [2, 1]),
        (["x", "b", "c"], [0]),
        ([], []),
        (["x", "b", "c", "d"], [3, 0]),
    ]
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(at, pa.int8()), pa.array(words, pa.string())) for words, at in parts
    ]
    with pa.ipc.new_stream(
        str(tmp_path / "a"), schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    ) as file:
        for column in columns:
            file.write_batch(pa.record_batch([column], schema=schema))
    rows = [{"word": word} for column in columns for word in column.to_pylist()]
    flow = read_arrow(tmp_path / "a")
    assert list(flow) == [flow[i] for i in range(len(rows))] == list(ff.subset(range(len(rows)), flow)) == rows
    assert list(ff.slice(None, None, -1, source=flow)) == rows[::-1]


def test_checksums_of_pages_are_looked_at(tmp_path):
    path = stored(
        tmp_path / "a",
        pa.table({"x": range(1000)}),
        "parquet",
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    assert len(list(read_parquet(path))) == 1000
    at = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset + 200
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff")
    with pytest.raises(ValueError, match=r"group 0 of .* cannot be read: .*CRC.*; is the file damaged\?"):
        list(read_parquet(path))


UNREADABLE = {
    "nanoseconds": (pa.array([1]).cast(pa.time64("ns")), "would lose data: 1"),
    "years": (pa.array([4 * 10**17]).cast(pa.timestamp("us")), ""),
    "zones": (pa.array([1]).cast(pa.timestamp("s", "Mars/Phobos")), ""),
    "names": (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), "duplicate field names"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_python_has_no_value_for_is_named_and_not_called_damaged(tmp_path, name, kind):
    column, message = UNREADABLE[name]
    path = stored(tmp_path / "a", pa.table({"x": [1], "y": column}), kind)
    for read in (list, lambda flow: flow[0], lambda flow: list(ff.subset([0, 0], flow))):
        with pytest.raises(
            ValueError, match=rf"(?s){message}.*; its column 'y' holds what cannot be a Python value"
        ) as caught:
            read(FORMATS[kind][1](path))
        assert "damaged" not in str(caught.value)
    assert list(FORMATS[kind][1](path, ["x"])) == [{"x": 1}]


def test_files_of_other_kinds_are_named(tmp_path):
    from pyarrow import orc

    table = pa.table({"x": [1]})
    stored(tmp_path / "a.parquet", table, "parquet")
    stored(tmp_path / "a.arrow", table, "arrow")
    orc.write_table(table, str(tmp_path / "a.orc"))
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(100) + b"FEA1")
    (tmp_path / "a.encrypted").write_bytes(b"PARE" + bytes(100) + b"PARE")
    for read, ends in (
        (read_arrow, ("parquet", "orc", "feather", "encrypted")),
        (read_parquet, ("arrow", "orc", "feather", "encrypted")),
    ):
        for end in ends:
            with pytest.raises(
                ValueError, match=rf"{read.__name__}\(\): .*/a.{end} is (a Parquet|an Arrow|an ORC|of the|an encrypted)"
            ) as caught:
                read(tmp_path / f"a.{end}")
            assert "damaged" not in str(caught.value)


def test_types_of_polars_that_arrow_does_not_know_are_not_called_damaged(tmp_path):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"x": polars.Series([1], dtype=polars.Int128)})
    frame.write_ipc(tmp_path / "a.arrow")
    frame.write_parquet(tmp_path / "a.parquet")
    for read, end in ((read_arrow, "arrow"), (read_parquet, "parquet")):
        with pytest.raises(ValueError, match=rf"{read.__name__}\(\): .*/a.{end} cannot be read: .*64 bits") as caught:
            read(tmp_path / f"a.{end}")
        assert "damaged" not in str(caught.value)


# Missing values


HOLES = {
    "i": [1, None, 3, None],
    "f": [0.5, 1.5, None, None],
    "t": ["a", None, None, "b"],
    "b": [True, None, True, True],
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_column_with_missing_values_has_one_form_in_every_batch(tmp_path, kind):
    path, read = stored(tmp_path / "a", pa.table(HOLES), kind), FORMATS[kind][1]
    for name in ("i", "f", "b"):
        with pytest.raises(
            ValueError,
            match=r"batch\(\): None is among values .*missing= of read_parquet, read_arrow and from_table.*as_list",
        ):
            list(ff.batch(4, read(path, [name])))
        assert [batch[name] for batch in ff.batch(2, read(path, [name]), collate=ff.as_list)] == [
            HOLES[name][:2],
            HOLES[name][2:],
        ]
    given = {"i": -1, "f": math.nan, "t": "", "b": False}
    expected = {
        "i": [1, -1, 3, -1],
        "f": [0.5, 1.5, math.nan, math.nan],
        "t": ["a", "", "", "b"],
        "b": [True, False, True, True],
    }
    for order in (ff.skip(0), ff.subset([0, 1, 2, 3]), ff.map(lambda row: row), ff.shuffle()):
        for batch in ff.pipe(read(path, missing=given), order, ff.batch(2)):
            assert {name: getattr(column, "dtype", type(column)) for name, column in batch.items()} == {
                "i": np.int64,
                "f": np.float64,
                "t": list,
                "b": np.bool_,
            }
    assert all(map(same, read(path, missing=given), pa.table(expected).to_pylist()))
    assert [row["i"] for row in read(path, missing={"i": 0.5})] == [1.0, 0.5, 3.0, 0.5]
    assert (
        {type(row["i"]) for row in read(path, missing={"i": 0.5})}
        == {type(row["f"]) for row in read(path, missing={"f": 0})}
        == {float}
    )


def test_what_stands_for_missing_values_must_be_like_the_others(tmp_path):
    path = stored(tmp_path / "a", pa.table(HOLES), "parquet")
    for given in ({"i": "x"}, {"f": True}, {"t": 0}, {"b": 1}):
        with pytest.raises(
            ValueError, match=r"read_parquet\(\): missing must have a value like the others of '\w', \w+, got"
        ):
            read_parquet(path, missing=given)
    with pytest.raises(ValueError, match="missing must name some of 'i', 'f', got 't'"):
        read_parquet(path, ["i", "f"], missing={"t": ""})
    with pytest.raises(
        TypeError, match=r"missing must be a dict, \{column: what stands there for a missing value\} or None, got 0"
    ):
        read_parquet(path, missing=0)
    assert repr(read_parquet(path, missing={"i": 0})) == f"read_parquet({path!r}, missing={{'i': 0}})"


# Costs


def counted(monkeypatch):
    decoded = []
    whole = tables.ArrowRows.decoded
    monkeypatch.setattr(
        tables.ArrowRows,
        "decoded",
        lambda self, file, number, names: decoded.append(number) or whole(self, file, number, names),
    )
    return decoded


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
def test_what_is_read_in_place_is_kept_however_large_and_checked_once(tmp_path, monkeypatch, new):
    table = pa.table({"x": range(20_000), "t": ["text" * 20] * 20_000})
    with new(str(tmp_path / "a"), table.schema) as file:
        file.write_table(table, max_chunksize=1000)
    monkeypatch.setattr(decoding, "GROUP_CACHE", 100_000)
    decoded, flow = counted(monkeypatch), read_arrow(tmp_path / "a")
    order = np.random.default_rng(0).permutation(20_000).tolist()
    assert [flow[i]["x"] for i in order[:100]] == order[:100]
    assert len(set(decoded)) == len(decoded) > 10
    assert not any(group.checked for group in flow.part.object.handle._groups.values())  # but rows of them were
    assert [flow[i]["x"] for i in order[:2000]] == order[:2000]
    assert all(group.checked for group in flow.part.object.handle._groups.values())
    assert [row["x"] for row in ff.subset(order, flow)] == order
    assert sorted(decoded) == list(range(20))


def test_what_has_to_be_decompressed_is_kept_within_bounds(tmp_path, monkeypatch):
    table = pa.table({"x": range(20_000)})
    with pa.ipc.new_file(str(tmp_path / "a"), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table, max_chunksize=1000)
    monkeypatch.setattr(decoding, "GROUP_CACHE", 30_000)
    decoded, flow = counted(monkeypatch), read_arrow(tmp_path / "a")
    assert [flow[i]["x"] for i in (5, 1005, 2005, 3005, 5)] == [5, 1005, 2005, 3005, 5]
    assert decoded == [0, 1, 2, 3, 0]
    assert len(flow.part.object.handle._groups) == 3


def test_a_damaged_row_is_found_among_others_that_are_sound(tmp_path):
    """Where few rows are wanted of many, they alone are checked."""
    table = pa.table({"t": ["some", "words"] * 500})
    path = stored(tmp_path / "a", table, "arrow")
    whole = (tmp_path / "a").read_bytes()
    offsets = np.array(table.column("t").chunk(0).buffers()[1])[:40].tobytes()
    place = whole.index(offsets)
    (tmp_path / "a").write_bytes(whole[:place] + offsets[:20] + np.int32(1 << 30).tobytes() + whole[place + 24 :])
    assert read_arrow(path)[900] == {"t": "some"}
    assert list(ff.subset([900, 901], read_arrow(path))) == [{"t": "some"}, {"t": "words"}]
    for read in (
        list,
        lambda flow: flow[4],
        lambda flow: flow[5],
        lambda flow: list(ff.subset([900, 5], flow)),
        ff.shuffle(),
    ):
        with pytest.raises(ValueError, match=r"(?s)group 0 of .*/a \(datapoints 0 to 999\) cannot be read: .*damaged"):
            list(read(read_arrow(path)))
