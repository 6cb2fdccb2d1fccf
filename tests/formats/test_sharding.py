"""Sharded writing: what is in the files depends on the flow alone, and an interrupted run can be finished."""

import functools
import glob
import json
import os
import signal
import threading
import time

import numpy as np
import pytest

import flowfn as ff
from flowfn import formats
from flowfn.formats.shards.sharding import write_shards
from flowfn.formats.tar.reading import read_webdataset
from flowfn.formats.tar.writing import write_webdataset
from flowfn.storage.writing import shown, written_whole
from flowfn.testing import left_behind, same

pytestmark = pytest.mark.timeout(60)


def write_lines(path, flow, *, overwrite=False):
    """A writer as small as can be."""
    with (
        written_whole(path, overwrite, "write_lines") as beside,
        open(beside, "w") as file,
        shown(flow, "write_lines") as datapoints,
    ):
        for datapoint in datapoints:
            file.write(json.dumps(datapoint) + "\n")


def read_lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def contents(folder):
    return [read_lines(path) for path in sorted(glob.glob(str(folder / "*.txt")))]


def names(folder):
    """What lies in a folder, but for the note of which flow it is."""
    return sorted(name for name in os.listdir(folder) if not name.endswith(".flow"))


def files(folder):
    return [folder / name for name in names(folder)]


def pattern(folder):
    return folder / "{shard:02d}-of-{shards:02d}.txt"


def noisy(number, rng):
    return [number, int(rng.integers(1000))]


def sources():
    """Flows that can be indexed, and streams, of random datapoints."""
    base = ff.pipe(range(11), ff.shuffle(), ff.map(noisy, rng=True))
    return {
        "indexed": base,
        "stream": ff.filter(lambda pair: pair[0] % 4, base),
        "generator": ff.flow(lambda rng: ([number, int(rng.integers(1000))] for number in range(7))),
        "reset": ff.pipe(range(11), ff.shuffle(), ff.map(noisy, rng=True)).reset_state(5).set_epoch(3),
        "entropic": ff.pipe(range(11), ff.shuffle()).reset_state(),
    }


@pytest.mark.parametrize("name", sources())
@pytest.mark.parametrize("processes", [None, 2])
def test_read_in_turns_the_files_give_the_flow(tmp_path, name, processes):
    flow = sources()[name]
    expected = [list(flow.run())[shard::3] for shard in range(3)]
    write_shards(write_lines, pattern(tmp_path), flow, shards=3, processes=processes)
    assert names(tmp_path) == ["00-of-03.txt", "01-of-03.txt", "02-of-03.txt"]
    assert contents(tmp_path) == expected
    paths = [str(pattern(tmp_path)).format(shard=shard, shards=3) for shard in range(3)]
    assert list(ff.interleave(read_lines, paths, cycle=3)) == list(flow.run())


def test_the_epoch_is_the_one_that_is_to_come_and_stays_so(tmp_path):
    flow = sources()["indexed"]
    list(flow)
    write_shards(write_lines, pattern(tmp_path), flow, shards=2)
    assert flow.epoch == 1
    assert contents(tmp_path) == [list(flow.run(epoch=1))[shard::2] for shard in range(2)]


def test_one_shot_iterators_are_dealt_out(tmp_path):
    write_shards(write_lines, pattern(tmp_path), iter(range(5)), shards=2)
    assert contents(tmp_path) == [[0, 2, 4], [1, 3]]


def test_there_may_be_more_files_than_datapoints(tmp_path):
    for folder, flow in (("a", [1, 2]), ("b", iter([1, 2]))):
        (tmp_path / folder).mkdir()
        write_shards(write_lines, pattern(tmp_path / folder), flow, shards=4)
        assert contents(tmp_path / folder) == [[1], [2], [], []]


def test_one_file_needs_no_number(tmp_path):
    write_shards(write_lines, tmp_path / "all.txt", range(3), shards=1)
    assert read_lines(tmp_path / "all.txt") == [0, 1, 2]


def test_processes_write_the_files(tmp_path):
    def where(path, flow):
        with open(path, "w") as file:
            file.write(str(os.getpid()))

    write_shards(where, tmp_path / "{shard}.txt", range(40), shards=4, processes=2)
    assert str(os.getpid()) not in {path.read_text() for path in files(tmp_path)}


def test_large_arrays_are_written_by_processes(tmp_path):
    images = np.arange(40 * 256 * 256, dtype=np.uint8).reshape(40, 256, 256)
    flow = ff.map(lambda row: {"npy": row[0]}, ff.from_arrays(images))
    write_shards(write_webdataset, tmp_path / "{shard}.tar", flow, shards=2, processes=2)
    found = [
        sample["npy"]
        for sample in ff.interleave(read_webdataset, [str(tmp_path / name) for name in names(tmp_path)], cycle=2)
    ]
    assert np.array_equal(found, images)


def test_options_of_a_writer_are_given_by_partial(tmp_path):
    write = functools.partial(write_webdataset, save_index=True)
    write_shards(write, tmp_path / "{shard}.tar", [{"cls": number} for number in range(4)], shards=2)
    assert names(tmp_path) == ["0.tar", "0.tar.index", "1.tar", "1.tar.index"]


# What is there already


def test_existing_files_are_replaced_only_when_told(tmp_path):
    write_shards(write_lines, pattern(tmp_path), range(4), shards=2)
    with pytest.raises(
        FileExistsError, match=r"write_shards\(\): '.*00-of-02.txt' exists; pass overwrite=True .*, or resume=True"
    ):
        write_shards(write_lines, pattern(tmp_path), range(9), shards=2)
    assert contents(tmp_path) == [[0, 2], [1, 3]]
    for flow in (range(6), iter(range(6))):
        write_shards(write_lines, pattern(tmp_path), flow, shards=2, overwrite=True)
        assert contents(tmp_path) == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("name", ["indexed", "stream"])
@pytest.mark.parametrize("processes", [None, 2])
def test_an_interrupted_run_is_finished(tmp_path, name, processes):
    flow = sources()[name]
    write_shards(write_lines, pattern(tmp_path), flow, shards=4)
    whole = contents(tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in files(tmp_path)}
    (tmp_path / "01-of-04.txt").unlink()
    (tmp_path / "03-of-04.txt").unlink()
    (tmp_path / ".part-0123abcd").mkdir()  # what one who was killed has left
    (tmp_path / ".part-0123abcd" / "01-of-04.txt").write_text("half a fi")
    write_shards(write_lines, pattern(tmp_path), flow, shards=4, processes=processes, resume=True)
    assert contents(tmp_path) == whole
    assert {path.name: path.stat().st_mtime_ns for path in files(tmp_path) if path.name[:2] in ("00", "02")} == {
        name: moment for name, moment in times.items() if name[:2] in ("00", "02")
    }
    assert len(names(tmp_path)) == 4
    write_shards(write_lines, pattern(tmp_path), flow, shards=4, resume=True)  # nothing is left to do


# What goes wrong


class Mine(Exception):
    """An error of the user's."""


def failing(number):
    if number == 9:
        raise Mine("nine")
    return number


def failing_by(variable):
    """A function that fails as long as a variable of the environment is set."""

    def fail(number):
        return failing(number) if variable in os.environ else number

    return fail


@pytest.mark.parametrize("processes", [None, 2])
@pytest.mark.parametrize("streams", [False, True])
def test_an_error_of_the_flow_keeps_its_type_and_leaves_no_half_file(tmp_path, processes, streams):
    flow = ff.map(failing, range(40))
    if streams:
        flow = ff.filter(lambda number: True, flow)
    with pytest.raises(Mine, match="nine") as caught:
        write_shards(write_lines, pattern(tmp_path), flow, shards=4, processes=processes)
    assert any("in map(failing)" in note for note in caught.value.__notes__)
    assert all(name.endswith("-of-04.txt") and not name.startswith(".") for name in names(tmp_path))
    assert "01-of-04.txt" not in names(tmp_path)
    if streams:
        assert os.listdir(tmp_path) == []


def failing_writer(path, flow, *, overwrite=False):
    def first_three():
        for number, datapoint in enumerate(flow):
            if number == 3 and "02-of" in path:
                raise Mine("no room")
            yield datapoint

    write_lines(path, ff.flow(first_three), overwrite=overwrite)


@pytest.mark.parametrize("processes", [None, 2])
@pytest.mark.parametrize("streams", [False, True])
def test_an_error_of_the_writer_keeps_its_type_and_leaves_no_half_file(tmp_path, processes, streams):
    flow = ff.filter(lambda number: True, range(1000)) if streams else range(1000)
    with pytest.raises(Mine, match="no room"):
        write_shards(failing_writer, pattern(tmp_path), flow, shards=4, processes=processes)
    assert not [name for name in names(tmp_path) if name.startswith((".", "02"))]


@pytest.mark.parametrize("processes", [None, 2])
def test_after_a_failure_no_new_files_are_begun_and_the_rest_can_be_written(tmp_path, processes, monkeypatch):
    monkeypatch.setenv("SHARDS_FAIL", "yes")
    flow = ff.map(failing_by("SHARDS_FAIL"), range(64))
    with pytest.raises(Mine):
        write_shards(write_lines, pattern(tmp_path), flow, shards=32, processes=processes)
    assert len(names(tmp_path)) < 20
    monkeypatch.delenv("SHARDS_FAIL")
    write_shards(write_lines, pattern(tmp_path), flow, shards=32, processes=processes, resume=True)
    assert contents(tmp_path) == [[shard, shard + 32] for shard in range(32)]


def test_a_worker_that_is_killed_leaves_nothing_behind(tmp_path):
    marker = tmp_path / "killed"

    def killing(number):
        if number == 5 and not marker.exists():
            marker.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    write_shards(write_lines, pattern(tmp_path), ff.map(killing, range(40)), shards=4, processes=2)
    marker.unlink()
    assert len(names(tmp_path)) == 4
    assert contents(tmp_path) == [list(range(shard, 40, 4)) for shard in range(4)]


def test_what_others_write_in_the_same_folder_is_left_alone(tmp_path):
    with written_whole(tmp_path / "val-0.txt", False, "write_x") as beside:
        (tmp_path / ".part-0123abcd").mkdir()  # left by one who was killed
        open(beside, "w").close()
        write_shards(write_lines, tmp_path / "{shard}.txt", range(4), shards=2)
    assert names(tmp_path) == ["0.txt", "1.txt", "val-0.txt"]


def test_a_writer_that_reads_only_the_first_does_not_hold_up_the_others(tmp_path):
    def first(path, flow):
        write_lines(path, ff.take(1, flow))

    write_shards(first, pattern(tmp_path), iter(range(500)), shards=3)
    assert contents(tmp_path) == [[0], [1], [2]]


def test_a_slow_writer_is_waited_for(tmp_path):
    gate = threading.Event()

    def waiting(path, flow):
        if "00-of" in str(path):
            assert gate.wait(20)
        write_lines(path, flow)

    def datapoints():
        yield from range(50)

    timer = threading.Timer(0.5, gate.set)
    timer.start()
    write_shards(waiting, pattern(tmp_path), datapoints, shards=2)
    timer.join()
    assert contents(tmp_path) == [list(range(0, 50, 2)), list(range(1, 50, 2))]


def test_no_threads_are_left(tmp_path):
    before = left_behind()
    with pytest.raises(Mine):
        write_shards(failing_writer, pattern(tmp_path), iter(range(1000)), shards=4)
    deadline = time.monotonic() + 10
    while left_behind() != before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert left_behind() == before


def test_a_writer_that_writes_elsewhere_is_told_of(tmp_path):
    with pytest.raises(
        ValueError, match="write must leave a file at the path that it is given, but elsewhere left none at"
    ):
        write_shards(elsewhere, pattern(tmp_path), range(4), shards=2)


def elsewhere(path, flow):
    list(flow)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"shards": 0}, ValueError, "shards must be a positive integer, got 0"),
        ({"processes": 0}, ValueError, "processes must be a positive integer or 'auto' or None, got 0"),
        ({"processes": "many"}, TypeError, "processes must be"),
        ({"overwrite": True, "resume": True}, ValueError, "not both"),
        ({"pattern": "all.txt"}, ValueError, "pattern must say where the number of the file goes"),
        ({"pattern": "{shards}.txt"}, ValueError, "pattern must say where the number of the file goes"),
        ({"pattern": "{shard}{rank}.txt"}, ValueError, "braces stand only for {shard} and {shards}"),
        ({"write": "tar"}, TypeError, "write must be a function"),
        ({"flow": {1: 2}}, TypeError, r"write_shards\(\): a source cannot be a mapping"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, options, error, words):
    given = {"write": write_lines, "pattern": "{shard}.txt", "flow": range(3), "shards": 2, **options}
    with pytest.raises(error, match=words):
        write_shards(given.pop("write"), tmp_path / given.pop("pattern"), given.pop("flow"), **given)
    assert names(tmp_path) == []


def test_an_endless_flow_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the flow must have an end, but .* is endless"):
        write_shards(write_lines, pattern(tmp_path), ff.cycle([1]), shards=2)


WRITERS = {
    "jsonl": (formats.write_jsonl, formats.read_jsonl),
    "csv": (formats.write_csv, functools.partial(formats.read_csv, types={"value": int})),
    "npz": (formats.write_npz, formats.read_npz),
    "parquet": (formats.write_parquet, formats.read_parquet),
    "hdf5": (formats.write_hdf5, formats.read_hdf5),
    "tfrecord": (formats.write_tfrecord, formats.read_tfrecord),
    "lmdb": (formats.write_lmdb, formats.read_lmdb),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("streams", [False, True])
def test_every_writer_writes_shards(tmp_path, name, streams):
    write, read = WRITERS[name]
    rows = [{"name": f"row {number}", "value": number} for number in range(20)]
    if name in ("npz", "hdf5"):
        rows = [{"value": np.array([row["value"]])} for row in rows]
    write_shards(
        write,
        tmp_path / ("{shard}." + name),
        iter(rows) if streams else rows,
        shards=3,
        processes=None if streams else 2,
    )
    assert len(names(tmp_path)) == 3
    assert same(list(ff.interleave(read, [str(tmp_path / f"{shard}.{name}") for shard in range(3)], cycle=3)), rows)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("processes", [None, 2])
def test_one_bar_is_shown_and_not_one_for_each_shard(tmp_path, streams, processes, capfd):
    rows = [{"value": number} for number in range(20)]
    write_shards(
        formats.write_jsonl, tmp_path / "{shard}.jsonl", iter(rows) if streams else rows, shards=3, processes=processes
    )
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("\rwrite_shards: ")
    assert (" datapoint/s]" if streams else " file/s]") in said
