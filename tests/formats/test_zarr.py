"""Zarr: what zarr writes is read, zarr reads what is written, chunks are decoded once, damage is named."""

import json
import os
import pickle

import numpy as np
import pytest
import zarr

import flowfn as ff
from flowfn.formats import chunked
from flowfn.formats.chunked import read_zarr, write_zarr
from flowfn.testing import check, same

zarr.config.set({"threading.max_workers": 1})  # its own threads, which it starts as it likes, are not to be taken for ours

in_workers = pytest.mark.parametrize(
    "workers", [({}, {"threads": 2}), pytest.param(({"processes": 2},), marks=pytest.mark.alone)], ids=["threads", "processes"]
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
    made = zarr.create_array(path, shape=array.shape, dtype=array.dtype, chunks=(chunk, *array.shape[1:]), zarr_format=version)
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
    datapoints = [{"n": i, "f": i / 3, "s": np.float32(i), "image": np.full((2, 3), i, np.uint8), "flag": i > 3} for i in range(9)]
    write_zarr(tmp_path / "a.zarr", datapoints, chunk=4)
    for given, read in zip(datapoints, read_zarr(tmp_path / "a.zarr", list(datapoints[0])), strict=True):
        assert all(np.array_equal(value, found) for value, found in zip(given.values(), read))
    write_zarr(tmp_path / "b.zarr", [1 << 63, (1 << 64) - 1])
    assert list(read_zarr(tmp_path / "b.zarr", "0")) == [1 << 63, (1 << 64) - 1]
    root = zarr.open(str(tmp_path / "a.zarr"), mode="r")
    assert (root["image"].dtype, root["image"].shape, root["image"].chunks) == (np.uint8, (9, 2, 3), (4, 2, 3))


def test_chunks_are_decoded_once_where_rows_come_in_order(tmp_path, monkeypatch):
    write_zarr(tmp_path / "a.zarr", range(1000), chunk=100)
    decoded = []
    whole = chunked._Zarr.chunk
    monkeypatch.setattr(chunked._Zarr, "chunk", lambda self, at, start, stop: decoded.append(start) or whole(self, at, start, stop))
    flow = read_zarr(tmp_path / "a.zarr", "0")
    assert [int(x) for batch in ff.pipe(flow, ff.batch(30)) for x in batch] == list(range(1000))
    reads = flow.part.object.handle._chunks
    assert len(reads) == 10
    assert sorted(set(decoded)) == list(range(0, 1000, 100))


@pytest.mark.parametrize(
    ("datapoints", "message"),
    [([[1], [2.5]], "datapoint 1 is float64"), ([b"a"], "no bytes of any length"), ([], "there are no datapoints"), ([None], "is None")],
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
