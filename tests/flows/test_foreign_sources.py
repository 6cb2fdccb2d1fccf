"""What other libraries hold data in, as a source: its rows, or the conversion that gives them;
and no None of theirs."""

import contextlib

import numpy as np
import pytest

import flowfn
import flowfn as ff
import flowfn.interop


def said(call):
    """What the error says that a call raises."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return str(caught.value)


COLUMNS = {"x": [1, 2, 3], "y": [5.0, 6.0, 7.0]}
ROWS = [{"x": 1, "y": 5.0}, {"x": 2, "y": 6.0}, {"x": 3, "y": 7.0}]


def evaluated(text, **names):
    """What the conversion that a message names gives, evaluated as it is written there."""
    return eval(
        text,
        {"ff": ff, "flowfn": flowfn, "from_arrays": ff.from_arrays, "pipe": ff.pipe, "map": ff.map, "np": np, **names},
    )


def as_rows(flow):
    return [{key: getattr(value, "item", lambda value=value: value)() for key, value in row.items()} for row in flow]


def test_tables_name_a_conversion_that_gives_their_rows():
    pyarrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    table, frame = pyarrow.table(COLUMNS), pandas.DataFrame(COLUMNS)
    for name, source, words in [
        ("table", table, "flowfn.interop.from_table(table)"),
        ("batch", table.to_batches()[0], "flowfn.interop.from_table(batch)"),
        ("reader", table.to_reader(), "flowfn.interop.from_table(reader.read_all())"),
        ("df", frame, "flowfn.interop.from_table(df)"),
    ]:
        assert words in said(lambda source=source: ff.flow(source)).split("(got")[0]
        assert as_rows(ff.flow(evaluated(words, **{name: source}))) == ROWS
    for source in (table.slice(0, 2), table.slice(0, 0)):
        assert "write flowfn.interop.from_table(table)" in said(lambda source=source: ff.flow(source))
    for name, source, words in [
        ("array", table["x"], "array.to_numpy()"),
        ("array", pyarrow.array([1, 2, 3]), "array.to_numpy(zero_copy_only=False)"),
        ("series", frame["x"], "series.to_numpy()"),
    ]:
        assert words in said(lambda source=source: ff.flow(source))
        assert list(ff.flow(evaluated(words, **{name: source}))) == [1, 2, 3]
    assert list(ff.flow(pandas.Index([1, 2, 3]))) == [1, 2, 3]
    assert [row.y for row in ff.flow(frame.itertuples())] == COLUMNS["y"]
    assert "a pandas GroupBy" in said(lambda: ff.flow(frame.groupby("x")))


def test_files_that_are_open_name_their_reader(tmp_path):
    h5py, zarr, sparse = (pytest.importorskip(name) for name in ("h5py", "zarr", "scipy.sparse"))
    np.savez(tmp_path / "x.npz", x=np.arange(3))
    with h5py.File(tmp_path / "x.h5", "w") as file, np.load(tmp_path / "x.npz") as archive:
        file["x"] = np.arange(3)
        assert "flowfn.formats.read_hdf5(path, names)" in said(lambda: ff.flow(file))
        assert "flowfn.formats.read_npz(path)" in said(lambda: ff.flow(archive))
        assert list(ff.flow(file["x"])) == [0, 1, 2]
        assert (
            as_rows(ff.from_arrays(**archive)) == as_rows(ff.from_arrays(x=file["x"])) == [{"x": 0}, {"x": 1}, {"x": 2}]
        )
    for source in (zarr.array(np.arange(3)), zarr.group()):
        assert "flowfn.formats.read_zarr(path)" in said(lambda source=source: ff.flow(source))
    for matrix in (sparse.csr_matrix(np.eye(3)), sparse.csr_array(np.eye(3)), sparse.coo_array(np.eye(3))):
        assert "toarray()" in said(lambda matrix=matrix: ff.flow(matrix))
    assert list(ff.pipe(range(3), ff.map(sparse.csr_array(np.eye(3)).__getitem__), ff.map(lambda row: row.sum()))) == [
        1,
        1,
        1,
    ]


def of(home, name, **methods):
    """An object of another library's class, as far as it can be told from its class."""
    return type(name, (), {"__module__": home, **methods})()


def indexed(self, index):
    raise AssertionError("indexed")


INDEXED = {"__len__": lambda self: 3, "__getitem__": indexed}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (of("polars.dataframe.frame", "DataFrame", **INDEXED), "from_table(df)"),
        (of("polars.lazyframe.frame", "LazyFrame", __getitem__=indexed), "from_table(lazy.collect())"),
        (of("pyarrow._dataset", "Dataset"), "flowfn.formats.read_parquet(path)"),
        (of("duckdb", "DuckDBPyRelation", **INDEXED), "from_arrays(**relation.fetchnumpy())"),
        (of("_duckdb", "DuckDBPyRelation", **INDEXED), "from_arrays(**relation.fetchnumpy())"),
        (of("pyspark.sql.dataframe", "DataFrame", __getitem__=indexed), "df.toPandas()"),
        (of("ray.data.dataset", "Dataset", __iter__=indexed), "flowfn.interop.from_ray(dataset)"),
        (of("xarray.core.dataset", "Dataset", **INDEXED), "ds.data_vars"),
        (of("xarray.core.dataarray", "DataArray", **INDEXED), "array.to_numpy()"),
        (of("dask.array.core", "Array", compute=indexed, **INDEXED), "x.compute()"),
        (of("dask.bag.core", "Bag", compute=indexed, __iter__=indexed), "x.compute()"),
        (of("datasets.dataset_dict", "IterableDatasetDict", **INDEXED), 'd["train"]'),
        (of("lmdb", "Environment"), "flowfn.formats.read_lmdb(path)"),
        (of("PIL.Image", "Image"), "[image]"),
        (of("somewhere", "Frame", __dataframe__=indexed, **INDEXED), "a table; write its rows"),
        (of("somewhere", "Frame", __arrow_c_stream__=indexed, columns=["x"], **INDEXED), "from_table(table)"),
        (of("somewhere", "Stream", __aiter__=indexed), "asynchronous"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__module__}.{type(value).__name__}",
)
def test_tables_are_told_by_where_their_class_is_from(source, words):
    for word in (ff.flow, ff.pipe, ff.batch(2), ff.concat):
        assert words in said(lambda word=word: word(source)).split("(got")[0]


class IterableDataset:
    """As torch has it, with the index of its base class, and as webdataset has it where there is no torch."""

    def __getitem__(self, index):
        raise NotImplementedError

    def __iter__(self):
        return iter(range(4))


class WithLength(IterableDataset):
    def __len__(self):
        return 4


def test_an_iterable_dataset_with_a_length_is_iterated():
    for source in (IterableDataset(), WithLength(), *map(torch_like, ("torch.utils.data.dataset", "torch.utils.data"))):
        flow = ff.flow(source)
        assert list(flow) == list(flow) == [0, 1, 2, 3]
        assert not flow.seekable
    assert len(ff.flow(WithLength())) == 4


def torch_like(home):
    """A data set that inherits the index of torch's own base class, and has a length and a loop of its own."""
    base = type("Dataset", (), {"__module__": home, "__getitem__": IterableDataset.__getitem__})
    return type("Mine", (base,), {"__len__": lambda self: 4, "__iter__": IterableDataset.__iter__})()


def grains(name, items, parents=()):
    """A map-style data set of grain: by index None stands for what was left out, its own loops skip it."""
    base = type("MapDataset", (), {"__module__": "grain._src.python.dataset.dataset"})
    methods = {"__len__": lambda self: len(items), "__getitem__": lambda self, i: items[i]}
    methods["__iter__"] = lambda self: (item for item in items if item is not None)
    made = type(name, (base,), methods)()
    made._parents = parents
    return made


def test_a_filtered_map_dataset_of_grain_gives_what_its_own_loop_gives():
    source = grains("SourceMapDataset", [0, 1, 2, 3])
    assert ff.flow(source).seekable
    assert list(ff.flow(source)) == [0, 1, 2, 3]
    filtered = grains("FilterMapDataset", [None, 1, None, 3], [source])
    for dataset in (filtered, grains("MapMapDataset", [None, 1, None, 3], [filtered])):
        flow = ff.flow(dataset)
        assert list(flow) == list(flow) == list(dataset) == [1, 3]
        assert not flow.seekable
        assert flow.node.length_or_none() is None
        assert list(ff.take(1, flow)) == [1]


def test_none_from_a_map_dataset_of_grain_is_never_a_datapoint():
    flow = ff.flow(grains("MapMapDataset", [0, None]))
    for read in (list, lambda flow: flow[1], lambda flow: list(ff.shuffle(flow))):
        with pytest.raises(
            ValueError, match=r"gave None for index 1, by which grain means .*write flow\(lambda: dataset\)"
        ):
            read(flow)
    assert list(ff.flow(lambda: grains("MapMapDataset", [0, None]))) == [0]
    assert list(ff.flow([0, None])) == [0, None]


def test_libraries_that_are_installed_agree():
    """The real classes, of those that there are."""
    made = []
    with contextlib.suppress(ImportError):
        import polars

        frame = polars.DataFrame(COLUMNS)
        made += [
            ff.flow(frame.to_dicts()),
            as_rows(flowfn.interop.from_table(frame)),
        ]
        assert "write flowfn.interop.from_table(df)" in said(lambda: ff.flow(frame))
        assert "write flowfn.interop.from_table(lazy.collect())" in said(lambda: ff.flow(frame.lazy()))
        assert list(ff.flow(frame["x"])) == [1, 2, 3]
    with contextlib.suppress(ImportError):
        from datasets import Dataset, DatasetDict  # which a folder of tests has the name of as well

        rows = Dataset.from_dict(COLUMNS)
        made += [ff.flow(rows), ff.flow(rows.to_iterable_dataset())]
        words = said(lambda: ff.flow(DatasetDict({"mine": rows, "yours": rows})))
        assert "a dict of splits, 'mine', 'yours'; name one of them: write d[\"mine\"]" in words
    with contextlib.suppress(ImportError):
        from torch.utils import data

        class Stream(data.IterableDataset):
            def __iter__(self):
                return iter(ROWS)

            def __len__(self):
                return 3

        made += [ff.flow(Stream()), ff.flow(data.Subset(ROWS, range(3))), ff.flow(data.DataLoader(ROWS, None))]
    with contextlib.suppress(ImportError):
        import grain

        made += [
            ff.flow(grain.MapDataset.source([*ROWS, {}]).filter(len).map(dict)),
            ff.flow(grain.MapDataset.source(ROWS)),
        ]
    assert all(list(flow) == ROWS for flow in made)


@pytest.mark.parametrize("name", [None, "numpy", "torch", "jax", "pandas", "custom"])
def test_a_hugging_face_dataset_has_the_same_rows_in_every_way_in_every_format(name):
    columns = {"x": [1, 2, 3], "s": ["a", "b", "c"], "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "r": [[1], [2, 3], []]}
    dataset = hugging_face(columns)
    dataset = dataset.with_transform(lambda batch: batch) if name == "custom" else dataset.with_format(name)
    flow = ff.flow(dataset)
    ways = {
        "in order": list(flow),
        "by index": [flow[i] for i in range(3)],
        "backwards": list(ff.slice(None, None, -1, source=flow))[::-1],
        "subset": list(ff.subset([2, 0, 1], flow))[1:] + list(ff.subset([2, 0, 1], flow))[:1],
        "shards": [row for rank in range(3) for row in ff.shard(rank, 3, source=flow)],
        "shuffled": sorted(ff.shuffle(source=flow), key=lambda row: int(row["x"])),
        "in threads": list(ff.prefetch(2, threads=2, source=flow)),
    }
    for way, rows in ways.items():
        assert [{key: np.asarray(value).tolist() for key, value in row.items()} for row in rows] == [
            dict(zip(columns, row)) for row in zip(*columns.values())
        ], way
        assert [list(map(type, row.values())) for row in rows] == [
            list(map(type, row.values())) for row in ways["in order"]
        ], way


@pytest.mark.parametrize("iterable", [False, True])
@pytest.mark.parametrize("name", ["arrow", "polars", "pandas"])
def test_a_hugging_face_dataset_of_tables_is_refused_by_the_name_of_its_format(name, iterable):
    dataset = hugging_face({"x": [1, 2, 3]}).with_format(name)
    if name == "pandas" and not iterable:
        assert [row["x"] for row in ff.flow(dataset)] == [1, 2, 3]
        return
    if iterable:
        dataset = dataset.to_iterable_dataset()
    with pytest.raises(
        TypeError,
        match=rf"flow\(\): a source cannot be a Hugging Face dataset in the format '{name}', .*with_format\(None\)",
    ):
        ff.flow(dataset)
    assert len(list(ff.flow(lambda: dataset))) == 3


def hugging_face(columns):
    """A dataset of Hugging Face, whose library a folder of tests has the name of as well."""
    library = pytest.importorskip("datasets")
    if library.__file__ is None:
        pytest.skip("could not import 'datasets'")
    return library.Dataset.from_dict(columns)
