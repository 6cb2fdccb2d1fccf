"""Two ways to the same rows give the same rows: all types of HDF5, Zarr and npy, read in every way,
are what their own library gives."""

import h5py
import numpy as np
import pytest
import zarr

import flowfn as ff
from flowfn.formats import read_hdf5, read_npy, read_npz, read_zarr
from flowfn.testing import same

zarr.config.set(
    {"threading.max_workers": 1}
)  # its own threads, which it starts as it likes, are not to be taken for ours

ROWS = 6
ORDER = [4, 0, 2, 2, 5, 1]
TEXTS = ["a", "ä", "", "def", "g", "h"]
RECORDS = np.dtype({"names": ["a", "b"], "formats": ["i1", ("f8", (2,))], "offsets": [1, 8], "itemsize": 32})


def numbers(codes):
    """Numbers of some types, in both orders of bytes, by themselves or in rows."""
    for code in codes:
        dtype = np.dtype(code)
        yield code, np.arange(ROWS).astype(dtype)
        yield f"rows of >{code}", np.arange(4 * ROWS).reshape(ROWS, 4).astype(dtype.newbyteorder(">"))


def records():
    made = np.zeros(ROWS, RECORDS)
    made["a"], made["b"] = np.arange(ROWS), np.arange(2 * ROWS).reshape(ROWS, 2)
    return made


def objects(values):
    made = np.empty(len(values), object)
    made[:] = values
    return made


FIELDS = np.array([((i, 2), (3.0, i)) for i in range(ROWS)], [("p", [("x", ">i4"), ("y", "i2")]), ("q", "f4", (2,))])
TITLED = np.array([(i, i / 2) for i in range(ROWS)], [(("Title", "x"), "i4"), ("y", ">f8")])
TIMES = np.array(["2020-01-01", "NaT", "1970-01-02"] * 2, "M8[s]")
FIXED = np.array([b"a", b"bc", b"", b"def", b"g", b"h"])
EMPTY = {
    "no rows": np.zeros((0, 3)),
    "no columns": np.zeros((ROWS, 0)),
    "no columns, big-endian": np.zeros((ROWS, 0, 2), ">i4"),
}

NPY = {
    **dict(numbers("?bBhHiIlLefdgFDG")),
    **{f"columns of {name}": np.asfortranarray(array) for name, array in numbers("fD") if array.ndim == 2},
    "S": FIXED,
    "U": np.array(TEXTS),
    ">U": np.array(TEXTS, ">U3"),
    "rows of S": np.stack([FIXED] * 2, 1),
    "rows of U": np.stack([np.array(TEXTS)] * 2, 1),
    "V": np.array([b"abc"] * ROWS, "V3"),
    "M": TIMES,
    ">M, of 25 seconds": TIMES.astype(">M8[25s]"),
    "m": np.arange(ROWS).astype("m8[ms]"),
    "offsets": records(),
    "titles": TITLED,
    "fields": FIELDS,
    **EMPTY,
}
HDF5 = {
    **dict(numbers("?bBhHiIlLefdgFD")),
    "S": FIXED,
    "rows of S": np.stack([FIXED] * 2, 1),
    "V": np.array([b"abc"] * ROWS, "V3"),
    "M": TIMES.astype(h5py.opaque_dtype("M8[s]")),
    "enum": (np.arange(ROWS) % 3).astype(h5py.enum_dtype({"R": 0, "G": 1, "B": 2}, basetype="i1")),
    "offsets": records(),
    "fields": FIELDS,
    "text": np.array(TEXTS, h5py.string_dtype()),
    "ascii": np.array(["a", "b", "", "c", "d", "e"], h5py.string_dtype("ascii")),
    "rows of text": np.stack([np.array(TEXTS, h5py.string_dtype())] * 2, 1),
    "text of one length": np.array([text.encode() for text in TEXTS], h5py.string_dtype("utf-8", 5)),
    "vlen": objects([np.arange(3, dtype="f4") + i for i in range(ROWS)]).astype(h5py.vlen_dtype("f4")),
    **EMPTY,
}
ZARR = {
    **dict(numbers("?bBhHiIlLefdFD")),
    "S": FIXED,
    "U": np.array(TEXTS),
    "rows of U": np.stack([np.array(TEXTS)] * 2, 1),
    "V": np.array([b"abc"] * ROWS, "V3"),
    "M": TIMES,
    "m": np.arange(ROWS).astype("m8[ms]"),
    "text": (objects(TEXTS), str),
    "rows of text": (np.stack([objects(TEXTS)] * 2, 1), str),
    "fields": np.array([(i, i / 2) for i in range(ROWS)], [("x", "i4"), ("y", "f8")]),
    **EMPTY,
}


def check_all_ways(flow, rows):
    """Every way to read a flow gives these rows, as they are."""
    order = [index for index in ORDER if index < len(rows)]
    shuffled = list(ff.pipe(range(len(rows)), ff.shuffle()))
    ways = {
        "in order": (list(flow), rows),
        "by index": ([flow[index] for index in range(len(flow))], rows),
        "subset": (list(ff.pipe(flow, ff.subset(order))), [rows[index] for index in order]),
        "shuffle": (list(ff.pipe(flow, ff.shuffle())), [rows[index] for index in shuffled]),
        "shard": (list(ff.pipe(flow, ff.shard(1, 2))), rows[1::2]),
        "skip": (list(ff.pipe(flow, ff.skip(3))), rows[3:]),
        "batch": (list(ff.pipe(flow, ff.batch(4))), list(ff.pipe(rows, ff.batch(4)))),
        "subset, batch": (
            list(ff.pipe(flow, ff.subset(order), ff.batch(3))),
            list(ff.pipe(rows, ff.subset(order), ff.batch(3))),
        ),
        "threads": (list(ff.pipe(flow, ff.shuffle(), ff.prefetch(2, threads=2))), [rows[index] for index in shuffled]),
    }
    wrong = {
        way: (found, right)
        for way, (found, right) in ways.items()
        if not (len(found) == len(right) and all(map(same, found, right)))
    }
    assert not wrong


@pytest.mark.parametrize("name", NPY)
def test_npy(name, tmp_path):
    np.save(tmp_path / "a.npy", NPY[name])
    loaded = np.load(tmp_path / "a.npy")
    assert np.array_equal(loaded.view(NPY[name].dtype), NPY[name], equal_nan=NPY[name].dtype.kind == "M")
    check_all_ways(read_npy(tmp_path / "a.npy"), list(loaded))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_of_every_version(version, tmp_path):
    for array in NPY.values():
        with open(tmp_path / "a.npy", "wb") as file:
            np.lib.format.write_array(file, array, version)
        assert all(map(same, read_npy(tmp_path / "a.npy"), np.load(tmp_path / "a.npy")))


@pytest.mark.parametrize("name", NPY)
def test_npz(name, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=NPY[name])
    check_all_ways(read_npz(tmp_path / "a.npz", "x"), list(np.load(tmp_path / "a.npz")["x"]))


def in_hdf5(path, name, **options):
    array = HDF5[name]
    if options and array.size:
        options["chunks"] = (2, *array.shape[1:])
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, **(options if array.size else {}))
    with h5py.File(path) as file:
        dataset = file["x"]
        told = h5py.check_string_dtype(dataset.dtype)
        return list((dataset.asstr() if told is not None and told.length is None else dataset)[...])


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}], ids=["whole", "chunks"])
@pytest.mark.parametrize("name", HDF5)
def test_hdf5(name, options, tmp_path):
    rows = in_hdf5(tmp_path / "a.h5", name, **options)
    if HDF5[name].dtype.kind in "?biufcSmM" and rows:
        assert np.array_equal(np.stack(rows), HDF5[name], equal_nan=HDF5[name].dtype.kind == "M")
    check_all_ways(read_hdf5(tmp_path / "a.h5", "x"), rows)


def test_hdf5_fields_that_hold_texts_and_arrays(tmp_path):
    """Compared field by field: numpy compares no arrays within fields."""
    dtype = [("s", h5py.string_dtype()), ("v", h5py.vlen_dtype("i4")), ("x", ">i4")]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.array([(f"t{i}", np.arange(i, dtype="i4"), i) for i in range(ROWS)], dtype)
    flow = read_hdf5(tmp_path / "a.h5", "x")
    for rows, order in (
        (list(flow), range(ROWS)),
        ([flow[index] for index in range(ROWS)], range(ROWS)),
        (list(ff.pipe(flow, ff.subset(ORDER))), ORDER),
        (list(ff.pipe(flow, ff.shuffle())), list(ff.pipe(range(ROWS), ff.shuffle()))),
        (list(ff.pipe(flow, ff.shard(1, 2))), range(1, ROWS, 2)),
    ):
        assert all(type(row) is np.void for row in rows)
        assert [(bytes(row["s"]), row["v"].tolist(), int(row["x"])) for row in rows] == [
            (b"t%d" % i, list(range(i)), i) for i in order
        ]


def test_hdf5_of_types_that_only_the_format_has(tmp_path):
    """Padded texts, bits, and floats of 16 bits of another kind."""
    padded = {"terminated": h5py.h5t.STR_NULLTERM, "nulls": h5py.h5t.STR_NULLPAD, "spaces": h5py.h5t.STR_SPACEPAD}
    texts = np.array([b"a   ", b"bc  ", b"    ", b"def ", b"ghij", b"h k "], "S4")
    brain = h5py.h5t.IEEE_F32LE.copy()
    brain.set_fields(15, 7, 8, 0, 7)
    brain.set_size(2)
    brain.set_ebias(127)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, how in padded.items():
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(4)
            kind.set_strpad(how)
            h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple((ROWS,))).write(
                h5py.h5s.ALL, h5py.h5s.ALL, texts, mtype=kind
            )
        bits = h5py.h5d.create(file.id, b"bits", h5py.h5t.STD_B16BE, h5py.h5s.create_simple((ROWS,)))
        bits.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(ROWS, dtype=">u2"), mtype=h5py.h5t.STD_B16BE)
        half = h5py.h5d.create(file.id, b"brain", brain, h5py.h5s.create_simple((ROWS,)))
        stored = (np.arange(ROWS) / 4).astype("f4")  # of which the upper half of the bits is all
        half.write(h5py.h5s.ALL, h5py.h5s.ALL, (stored.view("u4") >> 16).astype("u2"), mtype=brain)
        file.create_dataset("scaled", data=np.arange(ROWS) * 100, chunks=(2,), scaleoffset=0)
        file.create_dataset("checked", data=np.arange(ROWS), chunks=(2,), fletcher32=True)
        file.create_dataset("unwritten", (ROWS,), "f4", chunks=(2,), fillvalue=np.nan)
    with h5py.File(tmp_path / "a.h5") as file:
        rows = {name: list(dataset[...]) for name, dataset in file.items()}
    assert [bytes(row) for row in rows["terminated"]] == texts.tolist()
    assert rows["bits"] == list(range(ROWS))
    assert np.array_equal(rows["brain"], stored.astype("f4"))
    assert rows["scaled"] == list(range(0, 100 * ROWS, 100))
    assert np.isnan(rows["unwritten"]).all()
    for name, right in rows.items():
        check_all_ways(read_hdf5(tmp_path / "a.h5", name), right)


@pytest.mark.filterwarnings("ignore:The data type", "ignore:The codec")  # has no specification, zarr says
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ZARR)
def test_zarr(name, version, tmp_path):
    array, dtype = ZARR[name] if isinstance(ZARR[name], tuple) else (ZARR[name], ZARR[name].dtype)
    path = str(tmp_path / "a.zarr")
    chunks = (2, *(max(side - 1, 1) for side in array.shape[1:]))
    made = zarr.create_array(path, shape=array.shape, dtype=dtype, chunks=chunks, zarr_format=version)
    made[...] = array
    whole = zarr.open_array(path, mode="r")[...]
    assert np.array_equal(whole.astype(array.dtype), array, equal_nan=array.dtype.kind == "M")
    check_all_ways(read_zarr(path), list(whole))


LAYOUTS = {
    "Fortran's order": {"zarr_format": 2, "order": "F"},
    "slashes": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "shards": {"shards": (4, 4)},
    "shards, transposed": {"shards": (4, 4), "filters": zarr.codecs.TransposeCodec(order=(1, 0))},
    "big-endian": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "gzip, checksum": {"compressors": [zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()]},
    "blosc": {"compressors": zarr.codecs.BloscCodec()},
    "bare": {"compressors": None},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_zarr_in_every_layout(name, tmp_path):
    """Some chunks are never written: they are the fill value."""
    right = np.full((ROWS, 4), np.nan, "f4")
    right[2:5, 1:3] = np.arange(6).reshape(3, 2)
    path = str(tmp_path / "a.zarr")
    zarr.create_array(path, shape=right.shape, dtype="f4", chunks=(2, 2), fill_value=np.nan, **LAYOUTS[name])[
        2:5, 1:3
    ] = right[2:5, 1:3]
    check_all_ways(read_zarr(path), list(right))


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64", "complex64", "complex128"]
)
def test_zarr_that_tensorstore_wrote(dtype, driver, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    right = np.arange(4 * ROWS).reshape(ROWS, 4).astype(dtype)
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(tmp_path / "a.zarr")}}
    layout = tensorstore.ChunkLayout(chunk_shape=[4, 3])
    tensorstore.open(spec, create=True, dtype=dtype, shape=right.shape, chunk_layout=layout).result()[...] = right
    check_all_ways(read_zarr(tmp_path / "a.zarr"), list(right))


SHARDED = {
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
    "codecs": [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [2, 2],
                "codecs": [
                    {"name": "transpose", "configuration": {"order": [1, 0]}},
                    {"name": "bytes", "configuration": {"endian": "big"}},
                    {"name": "zstd", "configuration": {"level": 3}},
                ],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            },
        }
    ],
}


def test_zarr_in_shards_that_tensorstore_wrote(tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    right = np.arange(4 * ROWS).reshape(ROWS, 4).astype("f4")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "a.zarr")}, "metadata": SHARDED}
    tensorstore.open(spec, create=True, dtype="float32", shape=right.shape).result()[...] = right
    check_all_ways(read_zarr(tmp_path / "a.zarr"), list(right))


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("batched", [False, True])
def test_processes_give_the_same(batched, tmp_path):
    """Of each format, all types at once."""
    by_npy = {name.replace("/", " "): array for name, array in NPY.items() if len(array)}
    np.savez(tmp_path / "a.npz", **by_npy)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in HDF5.items():
            if len(array):
                file[name] = array
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    for name, (array, dtype) in {
        name: held if isinstance(held, tuple) else (held, held.dtype) for name, held in ZARR.items()
    }.items():
        if len(array):
            root.create_array(name, shape=array.shape, dtype=dtype, chunks=(2, *(max(n, 1) for n in array.shape[1:])))[
                ...
            ] = array
    stages = [ff.shuffle(), *[ff.batch(3, collate=ff.as_list)] * batched]
    for flow in (read_npz(tmp_path / "a.npz"), read_hdf5(tmp_path / "a.h5"), read_zarr(tmp_path / "a.zarr")):
        right = list(ff.pipe(flow, *stages))
        found = list(ff.pipe(flow, *stages, ff.prefetch(2, processes=2)))
        assert len(found) == len(right)
        assert all(map(same, found, right))
