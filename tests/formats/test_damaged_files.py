"""Damaged files of every kind: datapoints, or a ValueError or an OSError that names the file; see `mutating`."""

import json
import struct
import zipfile

import mutating
import numpy as np
import pytest

import flowfn as ff
from flowfn import formats


@pytest.fixture(scope="module")
def reader():
    made = mutating.Reader()
    yield made
    made.close()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("name", mutating.KINDS)
def test_a_damaged_file_is_read_or_named(name, reader):
    tried, faults = reader(name, 1, 12)
    assert faults == []
    assert tried >= 5


def read_all(kind, folder, in_worker):
    flow = kind.read(folder)
    return list(ff.prefetch(1, flow, processes=1) if in_worker else flow)


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    "name", ["csv", "jsonl", "svmlight", "npz compressed", "hdf5", "parquet", "tfrecord", "tar", "zarr metadata", "png"]
)
def test_what_is_told_of_a_damaged_file_comes_out_of_workers_as_it_is(name, tmp_path):
    kind = mutating.KINDS[name]
    target = kind.make(tmp_path)
    held = bytearray(target.read_bytes())
    held[len(held) // 2 :: 3] = b"\xff" * len(held[len(held) // 2 :: 3])
    target.write_bytes(held)
    told = []
    for in_worker in (False, True):
        with pytest.raises((ValueError, OSError), match=str(tmp_path)) as caught:
            read_all(kind, tmp_path, in_worker)
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]


ARCHIVES = {
    "npz": lambda folder: formats.read_npz(folder / "a.npz"),
    "npz compressed": lambda folder: formats.read_npz(folder / "a.npz"),
    "zarr.zip": lambda folder: formats.read_zarr(folder / "a.zip"),
    "npz in a tar": lambda folder: formats.read_webdataset(folder / "a.tar"),
}


def archive(name, folder):
    """A zip file, and how it is put where it is read."""
    if name == "zarr.zip":
        return mutating.KINDS[name].make(folder), None
    if name == "npz in a tar":
        np.savez(folder / "a.npz", x=np.arange(2), y=np.arange(3))
        return folder / "a.npz", lambda data: formats.write_webdataset(folder / "a.tar", [{"npz": data}])
    return mutating.KINDS[name].make(folder), None


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_zip_file_whose_directory_passes_over_a_member_is_refused(name, tmp_path):
    path, put = archive(name, tmp_path)
    held = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as whole:
        names, directory = whole.namelist(), whole.start_dir
    places = [at for at in range(directory, len(held)) if held[at : at + 4] == b"PK\x01\x02"]
    comment = places[-1] - places[-2]  # as if the last but one had a comment, which is all of the last
    held[places[-2] + 32 : places[-2] + 34] = struct.pack("<H", comment)
    path.write_bytes(held)
    with zipfile.ZipFile(path) as damaged:
        assert damaged.namelist() == names[:-1]
    if put:
        put(bytes(held))
    with pytest.raises(
        ValueError, match=rf"{tmp_path}.*its directory lists {len(names) - 1} members where its end says {len(names)}"
    ):
        list(ARCHIVES[name](tmp_path))


def test_a_zip_file_of_more_members_than_its_end_has_room_to_count_is_whole(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for number in range(66000):
            file.writestr(zipfile.ZipInfo(f"{number}"), b"")
        with file.open("x.npy", "w") as member:
            np.save(member, np.arange(3))
    assert list(formats.read_npz(tmp_path / "a.npz", "x")) == [0, 1, 2]


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("count", [2**48, 2**62, 10**19, 10**30])
@pytest.mark.parametrize("place", ["shape", "chunk_shape"])
def test_a_row_for_which_there_is_no_memory_is_refused_and_a_chunk_is_no_longer_than_its_array(
    name, count, place, tmp_path
):
    path = mutating.KINDS["zarr metadata"].make(tmp_path).parent.parent / name / "zarr.json"
    told = json.loads(path.read_text())
    (told if place == "shape" else told["chunk_grid"]["configuration"])[place][-1] = count
    path.write_text(json.dumps(told))
    for way in mutating.WAYS.values():
        with pytest.raises((ValueError, OSError), match=str(tmp_path)):
            way(formats.read_zarr(tmp_path / "a.zarr"))


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_a_text_that_is_none_is_told_with_the_file(name, tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    ends, content = struct.pack("<3i", 0, 3, 6), b"oned\xffd"
    table = pa.table({"word": pa.StringArray.from_buffers(2, pa.py_buffer(ends), pa.py_buffer(content))})
    path = tmp_path / f"a.{name}"
    if name == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    read = {"parquet": formats.read_parquet, "arrow": formats.read_arrow}[name]
    for of in (list, lambda flow: flow[1], lambda flow: list(ff.shuffle(flow))):
        with pytest.raises(
            ValueError, match=rf"^read_{name}\(\): group 0 of {path} \(datapoints 0 to 1\) cannot be read: "
        ) as caught:
            of(read(path))
        assert type(caught.value) is ValueError


@pytest.mark.parametrize("name", ["arrow", "arrows"])
def test_rows_of_no_columns_are_refused(name, tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"a": [1, 2, 3]}).select([])
    path = tmp_path / f"a.{name}"
    if name == "parquet":
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_file if name == "arrow" else pa.ipc.new_stream)(str(path), table.schema) as file:
            file.write_batch(pa.table({"a": [1, 2, 3]}).to_batches()[0].select([]))
    with pytest.raises(ValueError, match=f"{path} cannot be read.* it says that it has 3 rows of no columns"):
        (formats.read_parquet if name == "parquet" else formats.read_arrow)(path)


def test_an_empty_file_is_one_without_records_unless_zlib_has_packed_it(tmp_path):
    (tmp_path / "a.tfrecord").touch()
    assert [list(formats.read_tfrecord(tmp_path / "a.tfrecord", compression=how)) for how in (None, "gzip")] == [[], []]
    with pytest.raises(ValueError, match=f"{tmp_path}.* the compressed stream ends before it is whole"):
        list(formats.read_tfrecord(tmp_path / "a.tfrecord", compression="zlib"))


@pytest.mark.parametrize("name", ["a.csv", "a.svm", "a.jsonl"])
def test_a_last_line_without_an_end_is_read_and_warned_of_unless_it_shows_that_it_is_whole(name, tmp_path, recwarn):
    read = {"a.csv": formats.read_csv, "a.svm": formats.read_svmlight, "a.jsonl": formats.read_jsonl}[name]
    whole = {
        "a.csv": [b"n\n1\n2\n", b"n\n1\n2\r", b"n\n1\n2\n  "],
        "a.svm": [b"1 1:2\n", b"1 1:2 # x", b"1 1:2\n# x"],
        "a.jsonl": [b"1\n", b"[1]", b'{"a": 1}\n"x"', b"1\nnull", b"1\n2\n "],
    }
    doubtful = {"a.csv": b"n\n1\n25", "a.svm": b"1 1:2\n3 4:5", "a.jsonl": b"1\n25"}
    for number, text in enumerate(whole[name]):
        path = tmp_path / f"{number}.{name}"
        path.write_bytes(text)
        read(path)
    assert [str(one.message) for one in recwarn] == []
    path = tmp_path / name
    path.write_bytes(doubtful[name])
    with pytest.warns(
        UserWarning, match=rf"^{read.__name__}\(\): the last line of {path} has no line break at its end"
    ) as said:
        flow = read(path)
    assert said[0].filename == __file__
    assert len(flow) == 2
    assert len(list(ff.prefetch(1, flow, processes=1))) == 2


@pytest.mark.parametrize("name", ["a.csv", "a.svm", "a.jsonl"])
def test_a_file_behind_a_url_is_warned_of_too(name):
    import fsspec

    system = fsspec.filesystem("memory")
    read = {"a.csv": formats.read_csv, "a.svm": formats.read_svmlight, "a.jsonl": formats.read_jsonl}[name]
    try:
        system.pipe_file(f"/{name}", {"a.csv": b"n\n1", "a.svm": b"1 1:2", "a.jsonl": b"12"}[name])
        flow = read(f"memory://{name}")
        with pytest.warns(UserWarning, match=f"memory://{name} has no line break"):
            assert len(flow) == 1
    finally:
        system.store.clear()
