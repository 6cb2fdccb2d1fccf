"""HDF5: what h5py and pandas write is read, h5py reads what is written,
rows come as they are wanted, damage is named."""

import os
import pickle

import h5py
import numpy as np
import pytest

import flowfn as ff
from flowfn.formats.arrays import stored_rows
from flowfn.formats.arrays.hdf5_reading import read_hdf5, write_hdf5
from flowfn.testing import check, left_behind, same

in_workers = pytest.mark.parametrize(
    "workers",
    [({}, {"threads": 2}), pytest.param(({"processes": 2},), marks=pytest.mark.long)],
    ids=["threads", "processes"],
)
ARRAYS = {
    "uint8": np.arange(50 * 12, dtype=np.uint8).reshape(50, 3, 4) % 251,
    "float16": np.linspace(0, 1, 50, dtype=np.float16),
    "big_endian": np.arange(100, dtype=">i8").reshape(50, 2),
    "bool": np.arange(50) % 3 == 0,
    "complex": np.arange(50) * 1j,
    "fields": np.array([(i, i / 2) for i in range(50)], [("x", "i4"), ("y", "f8")]),
    "fixed": np.array([b"%d" % i for i in range(50)]),
    "no_columns": np.zeros((50, 0)),
}
STORAGE = {
    "contiguous": {},
    "chunked": {"chunks": 7},
    "gzip": {"chunks": 7, "compression": "gzip"},
    "lzf": {"chunks": 50, "compression": "lzf"},
}


def stored(path, array, name="x", **options):
    with h5py.File(path, "w") as file:
        if "chunks" in options:
            options = options | {"chunks": (options["chunks"], *(max(n, 1) for n in array.shape[1:]))}
        file.create_dataset(name, data=array, **(options if array.size else {}))
    return str(path)


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("name", ARRAYS)
def test_what_h5py_wrote_is_read_in_any_order(tmp_path, monkeypatch, name, storage):
    array = ARRAYS[name]
    path = stored(tmp_path / "a.h5", array, **STORAGE[storage])
    order = [49, 0, 7, 7, 8, 21, 3, 48]
    for piece in (1, 100, 1 << 20):
        monkeypatch.setattr(stored_rows, "CONSECUTIVE", piece)
        monkeypatch.setattr(stored_rows, "SCATTERED", 4 * piece)
        monkeypatch.setattr(stored_rows, "SMALL_GAP", piece // 2)
        flow = read_hdf5(path, "x")
        assert len(flow) == 50
        assert all(map(same, list(flow), array))
        assert same(flow[17], array[17])
        assert all(map(same, ff.pipe(flow, ff.subset(order)), array[order]))
        if array.dtype.kind not in "SV":
            stacked = np.stack(list(array))  # numbers in this machine's order of bytes
            assert all(map(same, ff.pipe(flow, ff.batch(8)), [stacked[i : i + 8] for i in range(0, 50, 8)]))
            assert same(next(iter(ff.pipe(flow, ff.subset(order), ff.batch(8)))), stacked[order])


def test_texts_bytes_and_arrays_of_any_length_are_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("text", data=["a", "längere", ""], dtype=h5py.string_dtype())
        vectors = file.create_dataset("vector", (3,), h5py.vlen_dtype(np.float32))
        for i in range(3):
            vectors[i] = np.arange(i)
    flow = read_hdf5(tmp_path / "a.h5", ["text", "vector"])
    assert all(
        map(
            same,
            flow,
            [["a", np.arange(0, dtype="f4")], ["längere", np.arange(1, dtype="f4")], ["", np.arange(2, dtype="f4")]],
        )
    )
    assert same(flow[1], ["längere", np.arange(1, dtype="f4")])
    assert next(iter(ff.pipe(flow, ff.subset([2, 0]), ff.select([0]), ff.batch(2)))) == [["", "a"]]


def test_datasets_are_chosen_by_name_wherever_they_lie(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.arange(3), np.arange(3) * 2
        file["deep/er/z"] = np.arange(3) * 3
        file["deep/long"] = np.arange(4)
    path = tmp_path / "a.h5"
    assert read_hdf5(path)[1] == {"x": 1, "y": 2}
    assert read_hdf5(path, "deep/er/z")[1] == 3
    assert read_hdf5(path, ["y", "deep/er/z"])[1] == [2, 3]
    assert read_hdf5(path, {"a": "/deep/er/z"})[1] == {"a": 3}
    with pytest.raises(ValueError, match=r"there is no 'deep' in .*a.h5; there are 'x', 'y'"):
        read_hdf5(path, "deep")
    with pytest.raises(ValueError, match=r"equal lengths.*'deep/long' \(4,\).*datasets="):
        read_hdf5(path, ["x", "deep/long"])
    with pytest.raises(TypeError, match="datasets must be a name"):
        read_hdf5(path, 5)


def test_what_was_written_comes_back_and_h5py_reads_it(tmp_path):
    datapoints = [
        {
            "number": i,
            "float": i / 3,
            "scalar": np.float32(i),
            "flag": i > 3,
            "text": "ä" * i,
            "bytes": bytes([0, i, 0]) * i,
            "image": np.full((2, 3), i, np.uint8),
            "list": [i, i + 1],
        }
        for i in range(9)
    ]
    for number, options in enumerate(({}, {"chunk": 4}, {"chunk": 2, "compression": "gzip"}, {"compression": "lzf"})):
        path = tmp_path / f"{number}.h5"
        write_hdf5(path, datapoints, **options)
        for given, read in zip(datapoints, read_hdf5(path), strict=True):
            assert read.keys() == given.keys()
            assert all(np.array_equal(given[key], read[key]) for key in given)
            assert type(read["text"]) is str
            assert type(read["bytes"]) is bytes
        with h5py.File(path) as file:
            assert file["image"].dtype == np.uint8
            assert file["image"].shape == (9, 2, 3)
            assert file["image"].compression == options.get("compression")
            assert file["image"].chunks[0] == options.get("chunk", 16)
            assert file["text"].asstr()[4] == "ääää"
            assert file["scalar"].dtype == np.float32
            assert file["flag"].dtype == bool


def test_tables_as_pandas_writes_them_are_read(tmp_path):
    """PyTables lays a frame out as a dataset of fields in a group."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frame/table"] = np.array(
            [(0, [1.5], [3]), (1, [2.5], [4])], [("index", "i8"), ("values_0", "f8", (1,)), ("values_1", "i8", (1,))]
        )
    row = read_hdf5(tmp_path / "a.h5", "frame/table")[1]
    assert (row["index"], row["values_0"].tolist()) == (1, [2.5])


@pytest.mark.parametrize("values", [[b"ab"] * 5, [b""] * 3, [b"", b"a\0"], [b"a" * 5000] * 20])
def test_bytes_of_any_lengths_come_back(tmp_path, values):
    for chunk in (None, 1, 2):
        write_hdf5(tmp_path / "a.h5", values, chunk=chunk, overwrite=True)
        assert list(read_hdf5(tmp_path / "a.h5", "0")) == values


def test_arrays_that_hold_nothing_come_back(tmp_path):
    for shape in ((0,), (0, 3), (2, 0)):
        write_hdf5(tmp_path / "a.h5", [np.zeros(shape, np.int16)] * 3, overwrite=True)
        assert all(map(same, list(read_hdf5(tmp_path / "a.h5", "0")), [np.zeros(shape, np.int16)] * 3))


@pytest.mark.parametrize(
    ("datapoints", "message"),
    [
        ([{"t": "a"}, {"t": "b\0"}], "component 't' of datapoints 0 to 1 cannot be written: .*NULL"),
        ([[1], [2.5]], "datapoint 1 is float64"),
        ([np.zeros(3), np.zeros(4)], r"datapoint 1 is float64 \(4,\), that of the first float64 \(3,\)"),
        ([{"a": None}], "component 'a' of datapoint 0 is None"),
        ([np.array(["a"])], "HDF5 has no <U1"),
        ([np.datetime64("2020-01-01")], "HDF5 has no datetime64"),
        ([], "there are no datapoints"),
        ([{1: 2}], "keys of datapoints must be strings"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, datapoints, message):
    with pytest.raises((ValueError, TypeError), match=rf"write_hdf5\(\): .*{message}"):
        write_hdf5(tmp_path / "a.h5", datapoints)
    assert os.listdir(tmp_path) == []


def test_arguments_are_checked(tmp_path):
    with pytest.raises(
        ValueError, match=r"write_hdf5\(\): compression must be 'gzip', 'lzf', 'szip' or None, got 'zip'"
    ):
        write_hdf5(tmp_path / "a.h5", [1], compression="zip")
    with pytest.raises(ValueError, match="chunk must be a positive integer or None, got 0"):
        write_hdf5(tmp_path / "a.h5", [1], chunk=0)


def test_a_file_is_not_replaced_unless_told(tmp_path):
    write_hdf5(tmp_path / "a.h5", [1])
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_hdf5(tmp_path / "a.h5", [2])
    write_hdf5(tmp_path / "a.h5", [2, 3], overwrite=True)
    assert list(read_hdf5(tmp_path / "a.h5", "0")) == [2, 3]


# Broken files


def test_what_is_no_hdf5_file_is_named(tmp_path):
    for content in (b"", b"something else", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        (tmp_path / "a.h5").write_bytes(content)
        with pytest.raises(ValueError, match=r"read_hdf5\(\): .*a.h5 is no HDF5 file, or not a whole one"):
            read_hdf5(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match=r"nothing\.h5"):
        read_hdf5(tmp_path / "nothing.h5")


def test_a_cut_file_is_an_error(tmp_path):
    stored(tmp_path / "whole.h5", np.arange(10_000.0), chunks=100, compression="gzip")
    whole = (tmp_path / "whole.h5").read_bytes()
    for end in range(0, len(whole), len(whole) // 40):
        (tmp_path / "a.h5").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a\.h5"):
            list(read_hdf5(tmp_path / "a.h5", "x"))


def test_a_damaged_chunk_says_which_rows(tmp_path):
    path = stored(
        tmp_path / "a.h5", np.random.Generator(np.random.PCG64(0)).random(10_000), chunks=1000, compression="gzip"
    )
    with h5py.File(path) as file:
        place = file["x"].id.get_chunk_info(5)
    with open(path, "r+b") as file:
        file.seek(place.byte_offset + 100)
        file.write(bytes(500))
    flow = read_hdf5(path, "x")
    assert flow[4999] == flow[4999]
    with pytest.raises(ValueError, match=r"row 5000 of 'x' cannot be read: .*damaged"):
        flow[5000]
    with pytest.raises(ValueError, match=r"rows \d+ to \d+ of 'x' cannot be read"):
        list(flow)
    with pytest.raises(ValueError, match=r"rows \d+ to \d+ of 'x' cannot be read"):
        list(ff.pipe(flow, ff.batch(100)))


def test_types_that_are_no_data_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
        file.create_dataset("references", (3,), h5py.ref_dtype)
        file["one"] = 5
    with pytest.raises(ValueError, match="holds references"):
        read_hdf5(tmp_path / "a.h5", "references")
    with pytest.raises(ValueError, match="equal lengths"):
        read_hdf5(tmp_path / "a.h5", "one")


def test_an_empty_dataset_is_an_empty_flow(tmp_path):
    stored(tmp_path / "a.h5", np.zeros((0, 3)))
    assert list(read_hdf5(tmp_path / "a.h5", "x")) == []


# As flows


@pytest.mark.timeout(180)
@in_workers
def test_all_laws_hold(tmp_path, workers):
    write_hdf5(
        tmp_path / "a.h5", ({"x": np.full((3, 2), i), "t": str(i)} for i in range(23)), chunk=5, compression="gzip"
    )
    check(lambda: read_hdf5(tmp_path / "a.h5"), workers=workers)
    check(
        lambda: ff.pipe(read_hdf5(tmp_path / "a.h5", ["x", "t"]), ff.shuffle(), ff.select([0]), ff.batch(4)),
        workers=workers,
    )


def test_flows_travel_as_their_paths(tmp_path):
    path = stored(tmp_path / "a.h5", np.zeros((1000, 100)))
    flow = read_hdf5(path, "x")
    list(flow)
    held = pickle.dumps(flow.part.object)
    assert len(held) < 2000
    assert len(pickle.loads(held)) == 1000


@pytest.mark.timeout(60)
def test_a_forked_process_opens_the_file_for_itself(tmp_path):
    flow = read_hdf5(stored(tmp_path / "a.h5", np.arange(1000), chunks=10, compression="gzip"), "x")
    assert flow[3] == 3
    child = os.fork()
    if not child:
        try:
            os._exit(0 if list(flow) == list(range(1000)) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert list(flow) == list(range(1000))


def test_rows_are_memory_of_their_own(tmp_path):
    flow = read_hdf5(stored(tmp_path / "a.h5", np.zeros((10, 3)), chunks=5), "x")
    for row in flow:
        row += 1
    flow[3][:] = 7
    assert not np.any(np.array(list(flow)))


def test_urls_are_read(tmp_path):
    import fsspec

    write_hdf5("memory://sets/a.h5", [1, 2, 3], overwrite=True)
    assert fsspec.filesystem("memory").exists("/sets/a.h5")
    assert list(read_hdf5("memory://sets/a.h5", "0")) == [1, 2, 3]


def test_a_flow_says_how_it_was_made(tmp_path):
    path = stored(tmp_path / "a.h5", np.zeros(3))
    assert repr(read_hdf5(path)) == f"read_hdf5({path!r})"
    assert repr(ff.pipe(read_hdf5(path, ["x"]), ff.batch(2))) == f"pipe(read_hdf5({path!r}, ['x']), batch(2))"


def test_nothing_is_left_open(tmp_path):
    path = stored(tmp_path / "a.h5", np.zeros(3))
    before = left_behind()["descriptors"]
    for _ in range(20):
        list(ff.pipe(read_hdf5(path, ["x"]), ff.select([0]), ff.batch(2)))
    assert left_behind()["descriptors"] <= before + 1


@pytest.mark.parametrize("chunks", [None, (1, 3), (7, 3), (64, 3), (1000, 3)])
def test_scattered_rows_of_small_chunks_are_those_that_are_wanted(tmp_path, chunks):
    """Repeated and unsorted ones too, which h5py 3.16 refuses, and many, for which it is slow (h5py 2536 and 293)."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 9**9, (20_000, 3))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=rows, chunks=chunks)
    flow = read_hdf5(tmp_path / "x.h5", "x")
    for count in (1, 8, 9, 33, 64, 65, 5000):
        wanted = rng.integers(0, len(rows), count)
        wanted[count // 2 :] = wanted[: count - count // 2]
        for order in (wanted, np.sort(wanted), np.unique(wanted)):
            (batch,) = ff.pipe(flow, ff.subset(order), ff.batch(len(order)))
            np.testing.assert_array_equal(batch, rows[order])
