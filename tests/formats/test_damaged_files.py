"""Damaged files of every kind: datapoints, or a ValueError or an OSError that names the file; see `mutating`."""

import json
import os
import select
import subprocess
import sys
import time

import mutating
import pytest

import flowfn as ff
from flowfn import formats

SILENCE = 30
"""Seconds within which a damaged file has to be answered."""


class Reader:
    """A process that reads damaged files, and what it says of them; if one is its end, another takes its place."""

    def __init__(self):
        self.process = None

    def __call__(self, name, seed, count):
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, mutating.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        self.process.stdin.write(json.dumps([name, seed, count]).encode() + b"\n")
        self.process.stdin.flush()
        tried, rest, trying = 0, b"", name
        while True:
            said = os.read(self.process.stdout.fileno(), 1 << 16) if self._heard() else b""
            if not said:
                self.close()
                return tried, [f"{trying}: no answer within {SILENCE} seconds, or the process died"]
            *lines, rest = (rest + said).split(b"\n")
            for line in map(json.loads, lines):
                if "faults" in line:
                    return tried, line["faults"]
                tried, trying = tried + 1, line["trying"]

    def _heard(self):
        return select.select([self.process.stdout], [], [], SILENCE)[0]

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module")
def reader():
    made = Reader()
    yield made
    made.close()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("name", mutating.KINDS)
def test_a_damaged_file_is_read_or_named(name, reader):
    tried, faults = reader(name, 1, 12)
    assert faults == []
    assert tried >= 5


@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", mutating.KINDS)
def test_however_a_file_is_damaged_it_is_read_or_named(name, reader):
    began, seed = time.monotonic(), 100
    while time.monotonic() - began < 5:
        _, faults = reader(name, seed, 200)
        assert faults == []
        seed += 1


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
    with pytest.warns(UserWarning, match=rf"^{read.__name__}\(\): the last line of {path} has no line break at its end") as said:
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
