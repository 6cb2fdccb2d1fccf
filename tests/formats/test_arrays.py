"""npy and npz: numpy's own files, mapped where they can be, read and written as numpy does,
and nothing in them is run."""

import gc
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

import flowfn as ff
from flowfn.formats.arrays.npy import header_for, header_of
from flowfn.formats.arrays.numpy_reading import read_npy, read_npz, write_npy, write_npz
from flowfn.testing import check, left_behind, same

in_workers = pytest.mark.parametrize(
    "workers",
    [({}, {"threads": 2}), pytest.param(({"processes": 2},), marks=pytest.mark.long)],
    ids=["threads", "processes"],
)
ARRAYS = {
    "bool": np.array([True, False, True]),
    "uint8": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
    "big_endian": np.arange(6, dtype=">i4").reshape(3, 2),
    "float16": np.linspace(0, 1, 9, dtype=np.float16).reshape(3, 3),
    "complex": np.array([1j, 2, 3 + 1j]),
    "text": np.array(["a", "längere", ""]),
    "bytes": np.array([b"a", b"bc", b""]),
    "dates": np.array(["2020-01-01", "NaT", "1970-01-02"], "datetime64[D]"),
    "fields": np.array([(1, 2.5), (3, 4.5), (5, 6.5)], [("x", "i4"), ("ÿ", "f8")]),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "no_columns": np.zeros((3, 0), np.int16),
}


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ARRAYS)
def test_what_numpy_saved_is_read(tmp_path, name):
    array = ARRAYS[name]
    np.save(tmp_path / "a.npy", array)
    flow = read_npy(tmp_path / "a.npy")
    assert len(flow) == 3
    assert all(map(same, flow, array))
    assert same(flow[-1], array[-1])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ARRAYS)
def test_what_numpy_saved_in_an_npz_is_read_and_gathered(tmp_path, save, name):
    array, numbers = ARRAYS[name], np.arange(3)
    save(tmp_path / "a.npz", array=array, numbers=numbers)
    flow = read_npz(tmp_path / "a.npz", ["array", "numbers"])
    assert all(same(a, [row, n]) for a, row, n in zip(flow, array, numbers))
    if array.dtype.kind not in "USV":
        (batch,) = ff.pipe(flow, ff.subset([2, 0, 2]), ff.batch(3))
        assert same(batch, [np.stack([array[2], array[0], array[2]]), numbers[[2, 0, 2]]])
        (chosen,) = ff.pipe(flow, ff.shuffle(), ff.select([0]), ff.batch(3))
        assert sorted(map(bytes, chosen[0])) == sorted(map(bytes, array.astype(array.dtype.newbyteorder("="))))


def test_names_choose_values_lists_or_dicts(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(2), y=np.arange(2) * 2, other=np.zeros(5), one=np.float64(3))
    assert read_npz(path, "x")[1] == 1
    assert read_npz(path, ["y", "x"])[1] == [2, 1]
    assert read_npz(path, {"label": "y"})[1] == {"label": 2}
    with pytest.raises(ValueError, match=r"equal lengths.*'other' \(5,\).*choose some with arrays="):
        read_npz(path)
    with pytest.raises(ValueError, match=r"there is no 'z' in .*a.npz; there are 'x', 'y', 'other', 'one'"):
        read_npz(path, ["z"])
    with pytest.raises(TypeError, match="arrays must be a name, a list or dict of names, or None"):
        read_npz(path, 3)


def test_uncompressed_arrays_are_mapped_and_rows_are_views_that_nobody_writes_to(tmp_path):
    write_npz(tmp_path / "a.npz", ({"x": np.full(1000, i)} for i in range(10)))
    np.savez(tmp_path / "b.npz", x=np.zeros((10, 1000)))
    for name in ("a.npz", "b.npz"):
        flow = read_npz(tmp_path / name, "x")
        root = flow[0]
        while isinstance(root.base, np.ndarray):
            root = root.base
        assert isinstance(root, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            flow[0][:] = 1
    assert read_npz(tmp_path / "a.npz", "x")[0].flags.aligned


@pytest.mark.parametrize("compressed", [False, True])
def test_numpy_reads_what_is_written(tmp_path, compressed):
    datapoints = [
        {
            "n": i,
            "f": i / 3,
            "t": "x" * i,
            "b": bytes([1]) * i,
            "a": np.full((2, 3), i, np.uint8),
            "y": i > 1,
            "s": np.float32(i),
        }
        for i in range(9)
    ]
    write_npz(tmp_path / "a.npz", datapoints, compressed=compressed)
    found = np.load(tmp_path / "a.npz")
    assert {name: (array.dtype.str, array.shape) for name, array in found.items()} == {
        "n": ("<i8", (9,)),
        "f": ("<f8", (9,)),
        "t": ("<U8", (9,)),
        "b": ("|S8", (9,)),
        "a": ("|u1", (9, 2, 3)),
        "y": ("|b1", (9,)),
        "s": ("<f4", (9,)),
    }
    for i, (given, read) in enumerate(zip(datapoints, read_npz(tmp_path / "a.npz"))):
        assert given.keys() == read.keys()
        assert all(np.array_equal(given[key], read[key]) for key in given), i
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None


def test_lists_and_bare_values_are_named_as_numpy_does(tmp_path):
    write_npz(tmp_path / "a.npz", [[1, 2.0], [3, 4.0]])
    assert read_npz(tmp_path / "a.npz")[1] == {"arr_0": 3, "arr_1": 4.0}
    write_npz(tmp_path / "a.npz", [1, 2], overwrite=True)
    assert list(read_npz(tmp_path / "a.npz", "arr_0")) == [1, 2]


def test_texts_become_as_wide_as_the_longest_whenever_it_comes(tmp_path):
    texts = ["ab"] * 5000 + ["longest of all"] + ["c"] * 5000
    write_npy(tmp_path / "a.npy", texts)
    assert np.load(tmp_path / "a.npy").tolist() == texts
    with pytest.raises(ValueError, match="lose zeros at the end"):
        write_npy(tmp_path / "b.npy", ["a\0"])


def test_many_rows_are_written_in_blocks(tmp_path):
    write_npy(tmp_path / "a.npy", ff.pipe(range(10_000), ff.map(float)))
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.arange(10_000.0))
    assert os.listdir(tmp_path) == ["a.npy"]


@pytest.mark.parametrize(
    "datapoints", [[[1], [1, 2]], [1, 2.5], [1, "a"], ["a", b"a"], [np.zeros(2, np.float32), np.zeros(2)]]
)
def test_rows_that_differ_are_refused_and_leave_nothing(tmp_path, datapoints):
    with pytest.raises(
        ValueError,
        match=r"write_npy\(\): all rows of an array have one dtype and shape, but component 'a row' of datapoint 1",
    ):
        write_npy(tmp_path / "a.npy", datapoints)
    with pytest.raises(ValueError, match="of datapoint 1"):
        write_npz(tmp_path / "a.npz", [{"x": value} for value in datapoints])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [None, object(), {"a": 1}, [[1], [1, 2]], 1 << 70])
def test_what_is_no_row_is_refused(tmp_path, value):
    with pytest.raises(TypeError, match="components must be numbers, strings, bytes or arrays of them"):
        write_npz(tmp_path / "a.npz", [{"x": value}])


def test_no_datapoints_make_no_file(tmp_path):
    for write in (write_npy, write_npz):
        with pytest.raises(ValueError, match="there are no datapoints"):
            write(tmp_path / "a", [])
    with pytest.raises(ValueError, match=r"must have the components of the first, 'x', but datapoint 1 is \{'y': 2\}"):
        write_npz(tmp_path / "a", [{"x": 1}, {"y": 2}])
    assert os.listdir(tmp_path) == []


def test_a_file_is_not_replaced_unless_told(tmp_path):
    for write, path in ((write_npy, tmp_path / "a.npy"), (write_npz, tmp_path / "a.npz")):
        write(path, [1])
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            write(path, [2])
        write(path, [2, 3], overwrite=True)
    assert list(read_npy(tmp_path / "a.npy")) == [2, 3]


def test_an_error_in_the_flow_leaves_nothing(tmp_path):
    for write in (write_npy, write_npz):
        with pytest.raises(ZeroDivisionError):
            write(tmp_path / "a", ff.map(lambda x: 1 // x, [1, 0]))
    assert os.listdir(tmp_path) == []


def test_an_empty_array_is_an_empty_flow(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 3)))
    assert list(read_npy(tmp_path / "a.npy")) == []


# Hostile and broken files


def test_objects_are_not_unpickled_unless_allowed(tmp_path):
    bomb = tmp_path / "exploded"
    objects = np.array([Bomb(bomb), None], object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=objects)
    np.savez_compressed(tmp_path / "c.npz", x=objects)
    for read, name in ((read_npy, "a.npy"), (read_npz, "a.npz"), (read_npz, "c.npz")):
        with pytest.raises(ValueError, match=rf"{name}.* holds Python objects.*pass allow_pickle=True if you trust"):
            read(tmp_path / name)
    assert not bomb.exists()
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, [2]], object), allow_pickle=True)
    np.savez_compressed(tmp_path / "a.npz", x=np.array([{"a": 1}, [2]], object))
    assert list(read_npy(tmp_path / "a.npy", allow_pickle=True)) == [{"a": 1}, [2]]
    assert list(read_npz(tmp_path / "a.npz", "x", allow_pickle=True)) == [{"a": 1}, [2]]


def test_a_pickle_is_no_npy_file(tmp_path):
    bomb = tmp_path / "exploded"
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Bomb(bomb)))
    for read in (read_npy, read_npz):
        with pytest.raises(ValueError, match=r"a\.npy"):
            read(tmp_path / "a.npy", allow_pickle=True)
    assert not bomb.exists()


def npy(header, version=(1, 0), content=b""):
    held = header.encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(held)) + held + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"something else", "does not begin as an .npy file does"),
        (b"\x93NUMPY\x01\x00\xff", "ends in its header"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "ends in its header"),
        (b"\x93NUMPY\x09\x00", "version 9.0"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "header of 4294967295 bytes"),
        (
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10,)}", content=bytes(79)),
            "should hold 80 bytes of float64 \\(10,\\), but there are only 79",
        ),
        (
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000000000000,)}"),
            "should hold 8000000000000000000000000 bytes",
        ),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "the shape \\(-1,\\), which is none"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': 3}"), "the shape 3, which is none"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': ()}", content=bytes(8)), "holds a single value"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 0)}"), "larger than any can be"),
        (
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1180591620717411303424)}"),
            "larger than any can be",
        ),
        (
            npy("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}"),
            "dtype 'nonsense', which numpy does not know",
        ),
        (npy("{'descr': '<f8', 'fortran_order': 1, 'shape': (1,)}"), "fortran_order=1"),
        (npy("{'descr': '<f8', 'shape': (1,)}"), "no description of an array"),
        (npy("__import__('os').system('touch exploded')"), "cannot be parsed"),
        (npy("(" * 5000), "cannot be parsed"),
        (
            npy("{'descr': '<f8', 'fortran_order': False, 'shape': (%s)}" % ("1," * 40), content=bytes(8)),
            "which is none",
        ),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"read_npy\(\): .*a\.npy.*{message}"):
        read_npy(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ValueError, match=r"read_npz\(\): .*a\.npz"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


def test_rows_of_no_bytes_take_no_memory_however_many_there_are(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy("{'descr': '|S0', 'fortran_order': False, 'shape': (4611686018427387904,)}"))
    assert read_npy(tmp_path / "a.npy")[1 << 60] == b""


def test_headers_of_python_2_are_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(
        npy("{'descr': '<i2', 'fortran_order': False, 'shape': (2L,)}", content=bytes([1, 0, 2, 0]))
    )
    assert list(read_npy(tmp_path / "a.npy")) == [1, 2]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_cut_or_flipped_npz_gives_wrong_numbers_without_an_error_or_runs_anything(tmp_path, save):
    array = np.arange(200.0)
    save(tmp_path / "whole.npz", x=array)
    whole = (tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "a.npz"
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a\.npz"):
            read_npz(path)
    generator = np.random.Generator(np.random.PCG64(1))
    for place in generator.integers(0, len(whole), 120).tolist():
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(bytes(changed))
        try:
            flow = read_npz(path)
            rows = [row["x"] for row in flow]
        except ValueError as error:
            told = str(error)
        except KeyError:  # the name was hit
            told = "a.npz"
        else:  # checksums are not looked at in what is mapped
            told = "a.npz" if save is np.savez or rows == array.tolist() else "wrong numbers"
        assert "a.npz" in told, place


def test_a_compressed_array_that_claims_to_be_huge_is_refused(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header_for(np.dtype("f8"), (1 << 50,)) + bytes(100))
    (tmp_path / "a.npz").write_bytes(content.getvalue())
    with pytest.raises(ValueError, match="should hold 9007199254740992 bytes"):
        read_npz(tmp_path / "a.npz")


def test_a_file_that_became_shorter_is_an_error(tmp_path):
    write_npy(tmp_path / "a.npy", range(1000))
    flow = read_npy(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 500)
    with pytest.raises(ValueError, match="has become shorter"):
        list(flow)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npy"):
        read_npy(tmp_path / "nothing.npy")


# As flows


@pytest.mark.timeout(180)
@in_workers
@pytest.mark.parametrize("compressed", [False, True])
def test_all_laws_hold(tmp_path, compressed, workers):
    write_npz(tmp_path / "a.npz", ({"x": np.full((3, 2), i), "y": i} for i in range(23)), compressed=compressed)
    check(lambda: read_npz(tmp_path / "a.npz"), workers=workers)
    check(lambda: ff.pipe(read_npz(tmp_path / "a.npz"), ff.shuffle(), ff.batch(4)), workers=workers)


def test_flows_travel_as_their_paths(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 100)))
    np.save(tmp_path / "f.npy", np.asfortranarray(np.zeros((1000, 100))))
    for flow in (read_npz(tmp_path / "a.npz"), read_npy(tmp_path / "f.npy")):
        list(flow)
        held = pickle.dumps(flow.part.object)
        assert len(held) < 1000
        assert len(pickle.loads(held)) == 1000


def test_urls_are_loaded(tmp_path):
    import fsspec

    held = io.BytesIO()
    np.savez(held, x=np.arange(5))
    fsspec.filesystem("memory").pipe_file("/arrays/a.npz", held.getvalue())
    assert list(read_npz("memory://arrays/a.npz", "x")) == [0, 1, 2, 3, 4]
    write_npz("memory://arrays/b.npz", [{"x": 1}])
    assert list(read_npz("memory://arrays/b.npz")) == [{"x": 1}]


def test_a_flow_says_how_it_was_made(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert repr(read_npy(str(tmp_path / "a.npy"))) == f"read_npy('{tmp_path}/a.npy')"
    assert repr(read_npz(str(tmp_path / "a.npz"), ["x"])) == f"read_npz('{tmp_path}/a.npz', ['x'])"


def test_nothing_is_left_open(tmp_path):
    write_npy(tmp_path / "a.npy", range(10))
    before = left_behind()["descriptors"]
    for _ in range(20):
        list(read_npy(tmp_path / "a.npy"))
    gc.collect()
    assert left_behind()["descriptors"] <= before + 1


def test_the_header_is_numpys(tmp_path):
    for dtype in ("f4", [("ÿ", "i4"), ("é中", "f8", (2,))]):
        held = header_for(np.dtype(dtype), (5, 2))
        assert header_of(io.BytesIO(held), "it")[:3] == (np.dtype(dtype), (5, 2), False)
        array = np.load(io.BytesIO(held + bytes(10 * np.dtype(dtype).itemsize)))
        assert (array.dtype, array.shape) == (np.dtype(dtype), (5, 2))
