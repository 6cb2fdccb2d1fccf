"""Zarr: what zarr writes is read, zarr reads what is written, chunks are decoded once, damage is named."""

import contextlib
import json
import os
import pickle

import numpy as np
import pytest
import zarr

import flowfn as ff
from flowfn.formats.arrays import zarr_stores as chunked
from flowfn.formats.arrays.zarr_stores import read_zarr, write_zarr
from flowfn.testing import check, same

zarr.config.set(
    {"threading.max_workers": 1}
)  # its own threads, which it starts as it likes, are not to be taken for ours

in_workers = pytest.mark.parametrize(
    "workers",
    [({}, {"threads": 2}), pytest.param(({"processes": 2},), marks=pytest.mark.long)],
    ids=["threads", "processes"],
)
ARRAYS = {
    "uint8": np.arange(50 * 12, dtype=np.uint8).reshape(50, 3, 4) % 251,
    "float32": np.linspace(0, 1, 50, dtype=np.float32),
    "int64": np.arange(100).reshape(50, 2),
    "bool": np.arange(50) % 3 == 0,
    "complex": np.arange(50) * 1j,
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunk", [1, 7, 50])
@pytest.mark.parametrize("name", ARRAYS)
def test_what_zarr_wrote_is_read_in_any_order(tmp_path, name, chunk, version):
    array = ARRAYS[name]
    path = str(tmp_path / "a.zarr")
    made = zarr.create_array(
        path, shape=array.shape, dtype=array.dtype, chunks=(chunk, *array.shape[1:]), zarr_format=version
    )
    made[...] = array
    flow = read_zarr(path)
    order = [49, 0, 7, 7, 8, 21, 3, 48]
    assert len(flow) == 50
    assert all(map(same, flow, array))
    assert same(flow[17], array[17])
    assert all(map(same, ff.pipe(flow, ff.subset(order)), array[order]))
    assert all(map(same, ff.pipe(flow, ff.batch(8)), [array[i : i + 8] for i in range(0, 50, 8)]))
    assert same(next(iter(ff.pipe(flow, ff.subset(order), ff.batch(8)))), array[order])


def test_arrays_of_a_group_are_chosen_by_name(tmp_path):
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root["x"], root["y"] = np.arange(3), np.arange(3) * 2
    root.create_group("deep")["z"] = np.arange(3) * 3
    path = tmp_path / "a.zarr"
    assert read_zarr(path)[1] == {"x": 1, "y": 2}
    assert read_zarr(path, "deep/z")[1] == 3
    assert read_zarr(path, ["y", "deep/z"])[1] == [2, 3]
    with pytest.raises(ValueError, match=r"there is no 'deep' in .*; there are 'x', 'y'"):
        read_zarr(path, "deep")
    with pytest.raises(ValueError, match="is one array"):
        read_zarr(path / "x", "x")


def test_a_store_in_a_zip_file_is_read(tmp_path):
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as store:
        zarr.create_array(store, name="x", shape=(5,), dtype="i4", chunks=(2,))[...] = np.arange(5)
    flow = read_zarr(tmp_path / "a.zip")
    assert list(flow) == [{"x": i} for i in range(5)]
    assert pickle.loads(pickle.dumps(flow.part.object))[3] == {"x": 3}


def test_what_was_written_comes_back_and_zarr_reads_it(tmp_path):
    datapoints = [
        {"n": i, "f": i / 3, "s": np.float32(i), "image": np.full((2, 3), i, np.uint8), "flag": i > 3} for i in range(9)
    ]
    write_zarr(tmp_path / "a.zarr", datapoints, chunk=4)
    for given, read in zip(datapoints, read_zarr(tmp_path / "a.zarr", list(datapoints[0])), strict=True):
        assert all(np.array_equal(value, found) for value, found in zip(given.values(), read))
    write_zarr(tmp_path / "b.zarr", [1 << 63, (1 << 64) - 1])
    assert list(read_zarr(tmp_path / "b.zarr", "0")) == [1 << 63, (1 << 64) - 1]
    root = zarr.open(str(tmp_path / "a.zarr"), mode="r")
    assert (root["image"].dtype, root["image"].shape, root["image"].chunks) == (np.uint8, (9, 2, 3), (4, 2, 3))


@pytest.fixture
def calls(monkeypatch):
    """What the library is asked for: the first row of each stretch, or how many rows together."""
    asked = []
    whole = zarr.Array.__getitem__
    monkeypatch.setattr(
        zarr.Array, "__getitem__", lambda self, at: asked.append((at.start, at.stop)) or whole(self, at)
    )
    together = zarr.Array.get_orthogonal_selection

    def selected(self, at, **how):
        if not isinstance(at, slice):
            asked.append(len(at))
        return together(self, at, **how)

    monkeypatch.setattr(zarr.Array, "get_orthogonal_selection", selected)
    return asked


def test_chunks_are_decoded_once_where_rows_come_in_order(tmp_path, calls):
    write_zarr(tmp_path / "a.zarr", range(1000), chunk=100)
    flow = read_zarr(tmp_path / "a.zarr", "0")
    assert [int(x) for batch in ff.pipe(flow, ff.batch(30)) for x in batch] == list(range(1000))
    assert calls == [(start, start + 100) for start in range(0, 1000, 100)]


def test_scattered_rows_are_asked_for_together(tmp_path, calls):
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.arange(200), chunks=(2,))
    calls.clear()
    flow = ff.pipe(read_zarr(tmp_path / "a.zarr"), ff.shuffle(), ff.batch(50))
    assert sorted(int(x) for batch in flow for x in batch) == list(range(200))
    assert len(calls) <= 4


def test_chunks_that_are_wanted_again_are_kept(tmp_path, calls):
    write_zarr(tmp_path / "a.zarr", range(1000), chunk=100)
    flow = ff.pipe(read_zarr(tmp_path / "a.zarr", "0"), ff.shuffle(), ff.batch(50))
    assert sorted(int(x) for batch in flow for x in batch) == list(range(1000))
    assert len(calls) <= 4


def test_chunks_that_are_kept_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(chunked, "STORE_CACHE", 3000)
    write_zarr(tmp_path / "a.zarr", range(1000), chunk=100)
    source = read_zarr(tmp_path / "a.zarr", "0")
    assert [source[index] for index in range(5, 1000, 10)] == list(range(5, 1000, 10))
    shelf = source.part.object.handle.decoded[0].shelf
    assert 0 < shelf.chunks.size <= 3000


@pytest.mark.parametrize(
    ("datapoints", "message"),
    [
        ([[1], [2.5]], "datapoint 1 is float64"),
        ([b"a"], "no bytes of any length"),
        ([], "there are no datapoints"),
        ([None], "is None"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, datapoints, message):
    with pytest.raises((ValueError, TypeError), match=rf"write_zarr\(\): .*{message}"):
        write_zarr(tmp_path / "a.zarr", datapoints)
    assert os.listdir(tmp_path) == []


def test_a_store_is_not_replaced_unless_told(tmp_path):
    write_zarr(tmp_path / "a.zarr", [1])
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_zarr(tmp_path / "a.zarr", [2])
    write_zarr(tmp_path / "a.zarr", [2, 3], overwrite=True)
    assert list(read_zarr(tmp_path / "a.zarr", "0")) == [2, 3]


def test_what_is_no_store_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.zarr"):
        read_zarr(tmp_path / "nothing.zarr")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "file.zarr").write_bytes(b"something else")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    for name in ("empty.zarr", "file.zarr", "bad.zarr"):
        with pytest.raises(ValueError, match=rf"{name} is no Zarr store, or a damaged one"):
            read_zarr(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*stored chunk shape")  # zarr says so too
def test_absurd_numbers_are_named(tmp_path):
    write_zarr(tmp_path / "a.zarr", range(10))
    described = tmp_path / "a.zarr" / "0" / "zarr.json"
    told = json.loads(described.read_text())
    described.write_text(json.dumps(told | {"shape": [1 << 70]}))
    with pytest.raises(ValueError, match=r"a\.zarr says that it has 1180591620717411303424 rows, which cannot be"):
        read_zarr(tmp_path / "a.zarr", "0")
    told["chunk_grid"]["configuration"]["chunk_shape"] = [0]
    described.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"a\.zarr"):
        list(read_zarr(tmp_path / "a.zarr", "0"))


def test_a_damaged_chunk_says_which_rows(tmp_path):
    write_zarr(tmp_path / "a.zarr", range(100), chunk=10)
    (place,) = (tmp_path / "a.zarr").glob("**/c/5")
    place.write_bytes(place.read_bytes()[:7])
    flow = read_zarr(tmp_path / "a.zarr", "0")
    assert flow[49] == 49
    with pytest.raises(ValueError, match=r"row 50 of '0' cannot be read: .*damaged"):
        flow[50]


@pytest.mark.timeout(180)
@in_workers
def test_all_laws_hold(tmp_path, workers):
    write_zarr(tmp_path / "a.zarr", ({"x": np.full((3, 2), i), "y": i} for i in range(13)), chunk=5)
    check(lambda: read_zarr(tmp_path / "a.zarr"), workers=workers)
    check(lambda: ff.pipe(read_zarr(tmp_path / "a.zarr", ["x", "y"]), ff.shuffle(), ff.batch(4)), workers=workers)


def test_flows_travel_as_their_paths(tmp_path):
    write_zarr(tmp_path / "a.zarr", range(1000))
    flow = read_zarr(tmp_path / "a.zarr")
    list(flow)
    held = pickle.dumps(flow.part.object)
    assert len(held) < 2000
    assert len(pickle.loads(held)) == 1000


def test_rows_are_memory_of_their_own(tmp_path):
    write_zarr(tmp_path / "a.zarr", (np.zeros(3) for _ in range(10)), chunk=4)
    flow = read_zarr(tmp_path / "a.zarr", "0")
    for row in flow:
        row += 1
    for index in (3, 4, 3):
        flow[index][:] = 7
    assert not np.any(np.array(list(flow)))


# What a store says, and what zarr makes of it


def unwritten(path, shape, chunks, **how):
    return zarr.create_array(str(path), shape=shape, chunks=chunks, dtype="f4", **how)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("store", ["folder", "zip"])
@pytest.mark.parametrize("version", [2, 3])
def test_rows_of_very_many_unwritten_chunks_answer_at_once(tmp_path, version, store):
    place = zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") if store == "zip" else str(tmp_path / "a.zarr")
    array = zarr.create_array(place, shape=(6, 100_000), chunks=(4, 2), dtype="f4", zarr_format=version, fill_value=-1)
    array[2:5, 7:10] = 5
    if store == "zip":
        array.store.close()
    expected = np.full((6, 100_000), -1, "f4")
    expected[2:5, 7:10] = 5
    flow = read_zarr(tmp_path / ("a.zip" if store == "zip" else "a.zarr"))
    assert all(map(same, flow, expected))
    assert same(flow[3], expected[3])
    assert same(next(iter(ff.pipe(flow, ff.subset([4, 0, 2]), ff.batch(3)))), expected[[4, 0, 2]])


@pytest.mark.parametrize("encoding", [("v2", "."), ("v2", "/"), ("default", "."), ("default", "/")])
def test_chunks_are_found_under_whatever_names(tmp_path, encoding):
    name, separator = encoding
    array = unwritten(tmp_path / "a.zarr", (4, 600), (2, 1), chunk_key_encoding={"name": name, "separator": separator})
    array[1, 5] = array[3, 599] = 1
    expected = np.zeros((4, 600), "f4")
    expected[1, 5] = expected[3, 599] = 1
    assert all(map(same, read_zarr(tmp_path / "a.zarr"), expected))


@pytest.mark.parametrize("version", [2, 3])
def test_what_was_consolidated_does_not_hide_what_was_written_since(tmp_path, version):
    path = str(tmp_path / "a.zarr")
    root = zarr.open_group(path, mode="w", zarr_format=version)
    root.create_array("x", data=np.arange(5), chunks=(2,))
    with (
        pytest.warns(UserWarning, match="[Cc]onsolidated") if version == 3 else contextlib.nullcontext()
    ):  # of its own format
        zarr.consolidate_metadata(path)
    array = zarr.open_array(path + "/x", mode="r+")
    array.resize((8,))
    array[5:] = 7
    assert list(read_zarr(path, "x")) == [0, 1, 2, 3, 4, 7, 7, 7]


def test_types_that_zarr_does_not_know_are_named_and_do_not_hide_others(tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    path = tmp_path / "a.zarr"
    zarr.open_group(str(path), mode="w")["x"] = np.arange(3)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "b")}}
    tensorstore.open(spec, create=True, dtype=tensorstore.bfloat16, shape=(3,)).result()
    assert list(read_zarr(path, "x")) == [0, 1, 2]
    with pytest.raises(
        ValueError, match=r"'b' of .*a\.zarr is of a kind that zarr does not read here: .*bfloat16.*write it anew"
    ):
        read_zarr(path, "b")
    with pytest.raises(
        ValueError, match=r"not all of the arrays that lie in .*bfloat16'; choose those that can: arrays="
    ):
        read_zarr(path)
    with pytest.raises(ValueError, match=r"a\.zarr/b is of a kind that zarr does not read here"):
        read_zarr(path / "b")


@pytest.mark.parametrize("codec", ["compressor", "codecs"])
def test_a_codec_that_is_not_there_is_named(tmp_path, codec):
    unwritten(tmp_path / "a.zarr", (3,), (2,), zarr_format=2 if codec == "compressor" else 3)
    described = tmp_path / "a.zarr" / (".zarray" if codec == "compressor" else "zarr.json")
    told = json.loads(described.read_text())
    told[codec] = (
        {"id": "vendor_magic"}
        if codec == "compressor"
        else [*told[codec], {"name": "vendor_magic", "configuration": {}}]
    )
    described.write_text(json.dumps(told))
    with pytest.raises(
        ValueError, match=r"is of a kind that zarr does not read here: .*vendor_magic.*install what it needs"
    ):
        read_zarr(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore:The data type")  # has no specification, zarr says
def test_fields_that_are_big_endian_are_refused(tmp_path):
    """The bytes are those of the format's description; zarr takes them for little-endian."""
    rows = np.array([(1, 1.0), (2, 2.0)], [("x", ">i4"), ("y", ">f8")])
    (tmp_path / "a.zarr" / "c").mkdir(parents=True)
    (tmp_path / "a.zarr" / "c" / "0").write_bytes(rows.tobytes())
    told = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2],
        "data_type": {"name": "structured", "configuration": {"fields": [["x", "int32"], ["y", "float64"]]}},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": "AAAAAAAAAAAAAAAA",
        "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}],
        "attributes": {},
    }
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(told))
    with pytest.raises(
        ValueError,
        match="holds fields that are said to be big-endian, which zarr takes for little-endian; write it anew",
    ):
        read_zarr(tmp_path / "a.zarr")
