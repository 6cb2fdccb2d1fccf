"""Resumed writing: what was begun is gone on with by the same flow and the same functions, and by no others."""

import functools
import json
import os
import subprocess
import sys

import pytest
from resuming import Calls

import flowfn as ff
from flowfn import formats
from flowfn.formats.lmdb import keyvalue
from flowfn.formats.shards.provenance import note_beside
from flowfn.formats.tfrecord import writing as tfrecord_writing

pytestmark = pytest.mark.timeout(60)

OTHERS = "with other functions|saved by another pipeline|are of another|belong together|of seed"


def read_all(read, paths):
    return sorted(datapoint for path in paths for datapoint in read(path))


class Shards:
    """Files of lines; what is begun are the first two of four."""

    name = "{shard}.jsonl"

    @staticmethod
    def write(folder, flow, shards=4, write=formats.write_jsonl, **options):
        formats.write_shards(write, folder / Shards.name, flow, shards=shards, **options)

    @staticmethod
    def begin(folder, flow):
        Shards.write(folder, flow)
        for shard in (2, 3):
            (folder / f"{shard}.jsonl").unlink()

    @staticmethod
    def read(folder):
        return read_all(formats.read_jsonl, sorted(folder.glob("*.jsonl")))


class One:
    """One file, of which four datapoints are written when it breaks off."""

    def __init__(self, write, read):
        self.writer, self.reader = write, read

    def write(self, folder, flow, **options):
        self.writer(folder / "data", flow, **options)

    def begin(self, folder, flow):
        calls = Calls()

        def breaking(datapoint):
            if len(calls.made) == 4 and not calls.broken:
                calls.broken = True
                raise OSError("broken off")
            calls.made.append(datapoint)
            return datapoint

        self.breaking = ff.map(breaking)
        with pytest.raises(OSError, match="broken off"):
            self.write(folder, self.breaking(flow), resume=True)

    def read(self, folder):
        return list(self.reader(folder / "data"))


KINDS = {
    "write_shards": Shards,
    "write_lmdb": One(formats.write_lmdb, formats.read_lmdb),
    "write_tfrecord": One(formats.write_tfrecord, formats.read_tfrecord),
}


def resume(kind, folder, flow, **options):
    kind.write(folder, kind.breaking(flow) if isinstance(kind, One) else flow, resume=True, **options)


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    monkeypatch.setattr(keyvalue, "TRANSACTION_BYTES", 1)
    monkeypatch.setattr(tfrecord_writing, "JOURNAL_SECONDS", -1)
    return KINDS[request.param]


def made(factor, source=range(12)):
    """A flow; the factor is in its function, under one name."""
    return ff.map(lambda x: x * factor, source)


def test_the_same_flow_is_finished(kind, tmp_path):
    kind.begin(tmp_path, made(1))
    resume(kind, tmp_path, made(1))
    assert kind.read(tmp_path) == list(range(12))


OTHER_FLOWS = {
    "a function that was mended": lambda: made(100),
    "another function of the same name": lambda: ff.map(lambda x: x + 1, range(12)),
    "another source of the same length": lambda: made(1, range(100, 112)),
    "another length": lambda: made(1, range(13)),
    "another stage": lambda: ff.pipe(made(1), ff.shuffle()),
}


@pytest.mark.parametrize("other", OTHER_FLOWS)
def test_another_flow_is_refused_and_what_is_there_stays(kind, other, tmp_path):
    kind.begin(tmp_path, made(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=OTHERS) as caught:
        resume(kind, tmp_path, OTHER_FLOWS[other]())
    assert str(tmp_path) in str(caught.value) or "saved by another pipeline" in str(caught.value)
    assert {name: data for name, data in before.items() if ".part" not in name} == {
        path.name: path.read_bytes() for path in tmp_path.iterdir() if ".part" not in path.name
    }
    resume(kind, tmp_path, made(1))
    assert kind.read(tmp_path) == list(range(12))


@pytest.mark.parametrize("name", ["write_lmdb", "write_tfrecord"])
def test_another_encode_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(keyvalue, "TRANSACTION_BYTES", 1)
    monkeypatch.setattr(tfrecord_writing, "JOURNAL_SECONDS", -1)
    kind = KINDS[name]
    kind.begin(tmp_path, made(1))
    with pytest.raises(ValueError, match=r"with other functions .* or as encode"):
        resume(kind, tmp_path, made(1), encode=lambda number: b"%d" % number)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": 3}, "are 4 files that belong together, and not 3"),
        ({"shards": 5}, "are 4 files that belong together, and not 5"),
        ({"write": functools.partial(formats.write_jsonl)}, "are of another write"),
    ],
)
def test_files_of_another_number_or_writer_are_refused(tmp_path, change, message, streams):
    flow = ff.filter(lambda x: True, range(12)) if streams else ff.flow(range(12))
    Shards.begin(tmp_path, flow)
    with pytest.raises(ValueError, match=message):
        Shards.write(tmp_path, flow, resume=True, **change)


def test_files_of_another_epoch_or_seed_are_refused(tmp_path):
    Shards.begin(tmp_path, ff.pipe(range(12), ff.shuffle()))
    with pytest.raises(ValueError, match="are of seed 0, epoch 0, and not of seed 0, epoch 1"):
        Shards.write(tmp_path, ff.pipe(range(12), ff.shuffle()).set_epoch(1), resume=True)
    with pytest.raises(ValueError, match="are of seed 0, epoch 0, and not of seed 7, epoch 0"):
        Shards.write(tmp_path, ff.pipe(range(12), ff.shuffle()).reset_state(7), resume=True)


def test_files_of_which_nothing_is_noted_are_refused(tmp_path):
    formats.write_jsonl(tmp_path / "0.jsonl", range(3))
    with pytest.raises(ValueError, match="are of a flow that nobody knows"):
        Shards.write(tmp_path, range(12), resume=True)
    Shards.write(tmp_path, range(12), overwrite=True)
    note = tmp_path / ".N.jsonl.flow"
    for damaged in (b"", b"\xff", b"5", b'{"shards": 4}'):
        note.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"are of a flow that nobody knows|are of another|belong together"):
            Shards.write(tmp_path, range(12), resume=True)
    assert Shards.read(tmp_path) == list(range(12))


def breaking_at(number):
    """A function that fails as long as a variable of the environment is set."""

    def broken(datapoint):
        if datapoint == number and "BROKEN_OFF" in os.environ:
            raise OSError("broken off")
        return datapoint

    return broken


def test_what_was_to_be_replaced_is_not_taken_for_what_replaces_it(tmp_path, monkeypatch):
    """Of the files that `overwrite=True` found, those that it did not come to are still to be written."""
    Shards.write(tmp_path, range(100, 112))
    monkeypatch.setenv("BROKEN_OFF", "yes")
    flow = ff.map(breaking_at(2), range(12))
    with pytest.raises(OSError, match="broken off"):
        Shards.write(tmp_path, flow, overwrite=True)
    assert Shards.read(tmp_path) == [0, 1, 4, 5, 8, 9, 102, 103, 106, 107, 110, 111]
    monkeypatch.delenv("BROKEN_OFF")
    times = {shard: (tmp_path / f"{shard}.jsonl").stat().st_mtime_ns for shard in (0, 1)}
    Shards.write(tmp_path, flow, resume=True)
    assert Shards.read(tmp_path) == list(range(12))
    assert times == {shard: (tmp_path / f"{shard}.jsonl").stat().st_mtime_ns for shard in (0, 1)}


SCRIPT = """
import sys
import flowfn as ff
from flowfn.formats import write_jsonl, write_shards

def f(x):
    return {{"x": x, "of": {value}}}

write_shards(write_jsonl, sys.argv[1] + "/{{shard}}.jsonl", ff.map(f, range(6)), shards=2, resume=True)
"""


def test_another_program_run_goes_on_where_its_function_is_the_same(tmp_path):
    script = tmp_path / "script.py"

    def run(value):
        script.write_text(SCRIPT.format(value=value))
        return subprocess.run(
            [sys.executable, "-P", str(script), str(tmp_path)], capture_output=True, text=True, timeout=50, check=False
        )

    assert run(1).returncode == 0
    (tmp_path / "1.jsonl").unlink()
    assert "are of another flow" in run(2).stderr
    assert run(1).returncode == 0
    assert [json.loads(line)["x"] for line in (tmp_path / "1.jsonl").read_text().split("\n")[:-1]] == [1, 3, 5]


@pytest.mark.parametrize(
    ("pattern", "beside"),
    [
        ("a-{shard:05d}.tar", ".a-N.tar.flow"),
        ("a-{shard}-of-{shards:03d}.tar", ".a-N-of-004.tar.flow"),
        ("{shard}/of-{shards}/a.tar", ".N-of-4-a.tar.flow"),
        ("x{{}}/{shard}.tar", "x{}/.N.tar.flow"),
        ("all.tar", ".all.tar.flow"),
    ],
)
def test_the_note_lies_in_the_folder_that_all_have_in_common(pattern, beside, tmp_path):
    assert note_beside(str(tmp_path / pattern), 4, "write_x").path == str(tmp_path / beside)
    assert note_beside(f"memory://resuming/{pattern}", 4, "write_x").path == f"memory://resuming/{beside}"


def test_behind_a_url_it_is_the_same():
    memory = pytest.importorskip("fsspec").filesystem("memory")
    try:
        formats.write_shards(formats.write_jsonl, "memory://resuming/{shard}.jsonl", range(6), shards=2)
        memory.rm("/resuming/1.jsonl")
        with pytest.raises(ValueError, match="are of another flow"):
            formats.write_shards(
                formats.write_jsonl, "memory://resuming/{shard}.jsonl", range(7), shards=2, resume=True
            )
        formats.write_shards(formats.write_jsonl, "memory://resuming/{shard}.jsonl", range(6), shards=2, resume=True)
        assert read_all(formats.read_jsonl, [f"memory://resuming/{shard}.jsonl" for shard in range(2)]) == list(
            range(6)
        )
    finally:
        memory.store.clear()
