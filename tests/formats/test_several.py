"""Several files as one, of every reader: by lists, patterns and braces, read in order, at random,
in batches and by workers."""

import copy
import gc
import os
import pickle

import numpy as np
import pytest

import flowfn as ff
from flowfn import formats
from flowfn.formats.joining import several
from flowfn.testing import check, same

pytestmark = pytest.mark.timeout(60)


def rows(start, stop):
    return [{"x": np.array([number, 7]), "y": np.full(3, number, np.float32)} for number in range(start, stop)]


def texts(start, stop):
    return [{"x": str(number), "y": "t" * number} for number in range(start, stop)]


def examples(start, stop):
    return [[(np.array([0, number + 1]), np.array([1.0, number])), float(number)] for number in range(start, stop)]


KINDS = {
    "a.jsonl": (formats.write_jsonl, formats.read_jsonl, texts),
    "a.csv": (formats.write_csv, formats.read_csv, texts),
    "a.svm": (formats.write_svmlight, formats.read_svmlight, examples),
    "a.npy": (formats.write_npy, formats.read_npy, lambda start, stop: [row["y"] for row in rows(start, stop)]),
    "a.npz": (formats.write_npz, formats.read_npz, rows),
    "a.h5": (formats.write_hdf5, formats.read_hdf5, rows),
    "a.zarr": (formats.write_zarr, formats.read_zarr, rows),
    "a.lmdb": (formats.write_lmdb, formats.read_lmdb, rows),
    "a.parquet": (formats.write_parquet, formats.read_parquet, rows),
    "a.arrow": (formats.write_arrow, formats.read_arrow, rows),
    "a.tfrecord": (formats.write_tfrecord, formats.read_tfrecord, rows),
}
ENDS = [(0, 4), (4, 5), (5, 11)]


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    """A reader, the files, and what is in them."""
    write, read, make = KINDS[request.param]
    ending = request.param.removeprefix("a.")
    paths = [str(tmp_path / f"{number}.{ending}") for number in (8, 9, 10)]
    for path, (start, stop) in zip(paths, ENDS):
        write(path, make(start, stop))
    return read, paths, make(0, 11)


def test_lists_patterns_and_braces_stand_for_the_rows_of_all_in_natural_order(made):
    read, paths, expected = made
    folder, ending = os.path.split(paths[0])[0], paths[0].rpartition(".")[2]
    for given in (
        paths,
        tuple(paths),
        f"{folder}/*.{ending}",
        f"{folder}/{{8..10}}.{ending}",
        [paths[0], f"{folder}/{{9,10}}.{ending}"],
    ):
        flow = read(given)
        assert len(flow) == 11
        assert same(list(flow), expected)
    assert same(list(read([paths[2], paths[0]])), expected[5:] + expected[:4])
    assert same(list(read([paths[1]])), expected[4:5])


def test_the_same_rows_come_in_every_way(made):
    read, paths, expected = made
    flow = read(paths)
    assert same([flow[index] for index in range(11)], expected)
    assert same(flow[-1], expected[-1])
    with pytest.raises(IndexError):
        flow[11]
    order = list(ff.pipe(range(11), ff.shuffle()))
    assert same(list(ff.pipe(flow, ff.shuffle())), [expected[number] for number in order])
    assert same(list(ff.pipe(flow, ff.shard(1, 3))), expected[1::3])
    assert same(list(flow[9:2:-2]), expected[9:2:-2])
    assert same(list(flow.run(start=3)), expected[3:])
    assert same(list(pickle.loads(pickle.dumps(flow))), expected)
    assert same(list(ff.pipe(flow, ff.prefetch(2, threads=2))), expected)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.zarr", "a.parquet", "a.arrow", "a.jsonl"])
def test_batches_are_those_of_the_rows(name, tmp_path):
    write, read, make = KINDS[name]
    for number, (start, stop) in enumerate(ENDS):
        write(tmp_path / f"{number}.{name}", make(start, stop))
    flow = read(str(tmp_path / f"*.{name}"))
    for stages in ([], [ff.shuffle()], [ff.shard(0, 2)], [ff.shuffle(), ff.take(7)]):
        assert same(list(ff.pipe(flow, *stages, ff.batch(4))), list(ff.pipe(list(flow), *stages, ff.batch(4))))
    if name in ("a.npz", "a.h5", "a.zarr"):
        chosen = ff.pipe(flow, ff.select(["y"]), ff.shuffle(), ff.batch(4))
        assert same(list(chosen), list(ff.pipe(list(flow), ff.select(["y"]), ff.shuffle(), ff.batch(4))))
        with pytest.raises((KeyError, ValueError, IndexError)):
            list(ff.pipe(flow, ff.select(["z"]), ff.batch(4)))


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["a.jsonl", "a.npz", "a.h5", "a.lmdb"])
def test_the_laws_hold(name, tmp_path):
    write, read, make = KINDS[name]
    for number, (start, stop) in enumerate(ENDS):
        write(tmp_path / f"{number}.{name}", make(start, stop))
    check(lambda: ff.pipe(read(str(tmp_path / f"*.{name}")), ff.shuffle()), workers=({}, {"processes": 2}))


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.svm"])
def test_some_may_be_compressed(name, hold, tmp_path):
    write, read, make = KINDS[name]
    for number, ((start, stop), suffix) in enumerate(zip(ENDS, ["", ".gz", ".xz"])):
        write(tmp_path / f"{number}.{name}{suffix}", make(start, stop))
    flow, expected = read(str(tmp_path / "*"), hold=hold), make(0, 11)
    assert flow.seekable is hold
    assert same(list(flow), expected)
    for start in range(12):
        assert same(list(flow.run(start=start)), expected[start:])
    if hold:
        assert same(
            list(ff.pipe(flow, ff.shuffle())), [expected[number] for number in ff.pipe(range(11), ff.shuffle())]
        )


def open_files(folder):
    gc.collect()
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.islink(link) and os.readlink(link).startswith(str(folder)) for link in links)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="what is open is told by /proc")
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.h5", "a.lmdb", "a.tfrecord"])
def test_of_many_files_few_are_open(name, tmp_path, monkeypatch):
    monkeypatch.setattr(several, "FILES", 3)
    write, read, make = KINDS[name]
    for number in range(80):
        write(tmp_path / f"{number}.{name}", make(number, number + 1))
    flow, expected = read(str(tmp_path / "*")), make(0, 80)
    for stages in ([], [ff.shuffle()], [ff.shuffle(), ff.prefetch(2, threads=2)]):
        order = list(ff.pipe(range(80), *stages[:1]))
        assert same(list(ff.pipe(flow, *stages)), [expected[number] for number in order])
    assert open_files(tmp_path) <= (64 if name == "a.tfrecord" else 5)
    del flow
    assert open_files(tmp_path) == 0


def test_where_records_begin_is_kept_when_a_file_is_let_go_of(tmp_path, monkeypatch):
    monkeypatch.setattr(several, "FILES", 1)
    for number in range(3):
        formats.write_jsonl(tmp_path / f"{number}.jsonl", range(10 * number, 10 * number + 10))
    flow = formats.read_jsonl(str(tmp_path / "*"))
    assert len(flow) == 30
    indexes = [part.indexes[0] for part in flow.part.object.parts]
    assert list(ff.pipe(flow, ff.shuffle())) == list(ff.pipe(range(30), ff.shuffle()))
    assert all(part.indexes[0] is before for part, before in zip(flow.part.object.parts, indexes))
    assert copy.deepcopy(pickle.loads(pickle.dumps(flow)))[29] == 29


def test_an_empty_file_among_others_has_no_rows(tmp_path):
    for number, values in enumerate([[], [1, 2], [], [], [3], []]):
        formats.write_jsonl(tmp_path / f"{number}.jsonl", values)
    flow = formats.read_jsonl(str(tmp_path / "*"))
    assert list(flow) == [1, 2, 3]
    assert [flow[index] for index in (2, 0, 1)] == [3, 1, 2]
    assert list(ff.pipe(flow, ff.shuffle())) == list(ff.pipe([1, 2, 3], ff.shuffle()))


def test_an_error_names_the_file_and_its_own_datapoint(tmp_path):
    formats.write_jsonl(tmp_path / "0.jsonl", range(4))
    (tmp_path / "1.jsonl").write_text("4\n{5\n6\n")
    flow = formats.read_jsonl(str(tmp_path / "*"))
    for read in (lambda: list(flow), lambda: flow[5], lambda: list(ff.pipe(flow, ff.shuffle()))):
        with pytest.raises(ValueError, match=r"datapoint 1 of .*1\.jsonl cannot be read"):
            read()


# What does not belong together


def test_columns_may_stand_in_another_order_but_must_be_the_same(tmp_path):
    (tmp_path / "0.csv").write_text("a,b\n1,2\n")
    (tmp_path / "1.csv").write_text("b,a\n4,3\n")
    flow = formats.read_csv(str(tmp_path / "*.csv"), types=int)
    assert [list(row.items()) for row in flow] == [[("a", 1), ("b", 2)], [("a", 3), ("b", 4)]]
    assert list(formats.read_csv(str(tmp_path / "*.csv"), ["b"])) == [{"b": "2"}, {"b": "4"}]
    (tmp_path / "2.csv").write_text("a,c\n5,6\n")
    with pytest.raises(ValueError, match=r"2\.csv has the columns \['a', 'c'\], where .*0\.csv has \['a', 'b'\]"):
        formats.read_csv(str(tmp_path / "*.csv"))
    (tmp_path / "2.csv").write_text("1,2,3\n")
    with pytest.raises(ValueError, match=r"2\.csv has the columns 3, where .*0\.csv has 2"):
        formats.read_csv(str(tmp_path / "*.csv"), header=False)


OTHER_ROWS = {
    "another shape": np.zeros((2, 4), np.float32),
    "another dtype": np.zeros((2, 3), np.float64),
    "another number of axes": np.zeros(2, np.float32),
}


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.zarr"])
@pytest.mark.parametrize("other", OTHER_ROWS)
def test_rows_of_another_kind_are_refused_and_both_files_are_named(name, other, tmp_path):
    write, read, _ = KINDS[name]
    bare = name == "a.npy"
    for number, array in enumerate([np.zeros((2, 3), np.float32), OTHER_ROWS[other]]):
        write(tmp_path / f"{number}.{name}", [row if bare else {"y": row} for row in array])
    with pytest.raises(ValueError, match=rf"1\.{name} has .*, where .*0\.{name} has .*; read them apart"):
        read(str(tmp_path / "*"))


def test_texts_may_be_of_any_width_and_bytes_in_any_order(tmp_path):
    for number, words in enumerate([["a", "bc"], ["defg"]]):
        formats.write_npy(tmp_path / f"{number}.npy", words)
    assert list(ff.pipe(formats.read_npy(str(tmp_path / "*.npy")), ff.batch(3))) == [["a", "bc", "defg"]]
    for number, order in enumerate("<>"):
        np.save(tmp_path / f"num{number}.npy", np.arange(number, number + 2, dtype=f"{order}i4"))
    (batch,) = ff.pipe(formats.read_npy(str(tmp_path / "num*.npy")), ff.batch(4))
    assert batch.tolist() == [0, 1, 1, 2]


def test_other_components_are_refused(tmp_path):
    formats.write_npz(tmp_path / "0.npz", [{"x": 1}])
    formats.write_npz(tmp_path / "1.npz", [{"y": 1}])
    with pytest.raises(ValueError, match=r"1\.npz has 'y' int64 \(\), where .*0\.npz has 'x' int64 \(\)"):
        formats.read_npz(str(tmp_path / "*.npz"))


def test_what_is_kept_is_of_these_files(tmp_path):
    """A file that has been written anew is not taken for the one that was there."""
    for number in range(2):
        formats.write_jsonl(tmp_path / f"{number}.jsonl", [number])

    def kept():
        return list(ff.pipe(formats.read_jsonl(str(tmp_path / "*.jsonl")), ff.cache_to(tmp_path / "kept")))

    assert kept() == kept() == [0, 1]
    formats.write_jsonl(tmp_path / "1.jsonl", [7], overwrite=True)
    os.utime(tmp_path / "1.jsonl", (1, 1))
    assert kept() == [0, 7]
