"""Files behind URLs: in memory, and on a web server that gives pieces of files, or only whole ones."""

import contextlib
import functools
import http.server
import os
import re
import threading

import fsspec
import numpy as np
import pytest

import flowfn as ff
from flowfn.formats.arrays import numpy_reading as arrays
from flowfn.formats.arrays import numpy_writing as array_writing
from flowfn.formats.shards.sharding import write_shards
from flowfn.formats.tables import reading as tables
from flowfn.formats.tables import writing as table_writing
from flowfn.formats.tar.reading import read_webdataset
from flowfn.formats.tar.writing import write_webdataset
from flowfn.formats.text import csv_reading as text
from flowfn.formats.text import json_lines
from flowfn.formats.tfrecord import reading as tfrecords
from flowfn.formats.tfrecord import writing as tfrecord_writing
from flowfn.testing import same

pytestmark = pytest.mark.timeout(60)

ROWS = [{"name": f"row {number}", "value": number} for number in range(50)]
SAMPLES = [
    {"__key__": f"n{number:02d}", "txt": f"row {number}", "cls": number, "bin": bytes(number * 100)}
    for number in range(50)
]
TABLE = np.arange(100, dtype=np.float32).reshape(50, 2)
FORMATS = {
    "webdataset": ("a.tar", write_webdataset, read_webdataset, SAMPLES),
    "webdataset, indexed": ("a.tar", write_webdataset, functools.partial(read_webdataset, index=True), SAMPLES),
    "webdataset, compressed": ("a.tar.gz", write_webdataset, read_webdataset, SAMPLES),
    "tfrecord": ("a.tfrecord", tfrecord_writing.write_tfrecord, tfrecords.read_tfrecord, ROWS),
    "jsonl": ("a.jsonl", json_lines.write_jsonl, json_lines.read_jsonl, ROWS),
    "jsonl, compressed": ("a.jsonl.gz", json_lines.write_jsonl, json_lines.read_jsonl, ROWS),
    "csv": ("a.csv", text.write_csv, functools.partial(text.read_csv, types={"value": int}), ROWS),
    "npy": ("a.npy", array_writing.write_npy, arrays.read_npy, TABLE),
    "npz": ("a.npz", array_writing.write_npz, arrays.read_npz, [{"x": row, "y": np.float64(row[0])} for row in TABLE]),
    "parquet": ("a.parquet", table_writing.write_parquet, tables.read_parquet, ROWS),
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder; pieces of them if the server does, and nothing is said of it on stderr."""

    def do_GET(self):
        asked = self.headers.get("Range")
        if not (self.server.ranges and asked):
            return super().do_GET()
        with open(self.translate_path(self.path), "rb") as file:
            whole = file.read()
        first, last = (int(end) if end else None for end in asked.removeprefix("bytes=").split("-"))
        first, last = first or 0, min(len(whole) if last is None else last + 1, len(whole))
        self.server.pieces.append(last - first)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(whole)}")
        self.send_header("Content-Length", str(last - first))
        self.end_headers()
        self.wfile.write(whole[first:last])

    def end_headers(self):
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *said):
        pass


@contextlib.contextmanager
def served(folder, ranges):
    """A web server over the files of a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        server.ranges, server.pieces, server.daemon_threads = ranges, [], True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Refused(Exception):
    """A file was refused in words that say why."""


@contextlib.contextmanager
def refused(words):
    """Errors that say what they have to."""
    try:
        yield
    except (ValueError, OSError) as error:
        if re.search(words, str(error)):
            raise Refused from error
        raise


@pytest.fixture
def memory():
    """A file system in memory with nothing in it."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_to_memory_is_read_from_there(memory, name):
    file, write, read, datapoints = FORMATS[name]
    write(f"memory://folder/{file}", datapoints)
    assert memory.find("/") == [f"/folder/{file}"]
    flow = read(f"memory://folder/{file}")
    assert same(list(flow), list(datapoints))
    if flow.seekable:
        assert len(flow) == len(datapoints)
        assert same(flow[-3], datapoints[-3])
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(f"memory://folder/{file}", datapoints)
    write(f"memory://folder/{file}", datapoints[:5], overwrite=True)
    assert same(list(read(f"memory://folder/{file}")), list(datapoints[:5]))


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_web_server_gives_in_pieces_is_read(tmp_path, name):
    file, write, read, datapoints = FORMATS[name]
    write(tmp_path / file, datapoints)
    with served(tmp_path, ranges=True) as (_, address):
        flow = read(f"{address}/{file}")
        assert same(list(flow), list(datapoints))
        if flow.seekable:
            assert same(flow[-3], datapoints[-3])


STREAMED = ["webdataset", "webdataset, compressed", "jsonl, compressed"]


@pytest.mark.parametrize("name", STREAMED)
def test_what_a_web_server_gives_whole_is_read_in_order(tmp_path, name):
    file, write, read, datapoints = FORMATS[name]
    write(tmp_path / file, datapoints)
    with served(tmp_path, ranges=False) as (_, address):
        flow = read(f"{address}/{file}")
        assert not flow.seekable
        assert same(list(flow), list(datapoints))


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in STREAMED])
def test_what_a_web_server_gives_whole_is_read_or_refused_in_clear_words(tmp_path, name):
    file, write, read, datapoints = FORMATS[name]
    write(tmp_path / file, datapoints)
    with served(tmp_path, ranges=False) as (_, address), contextlib.suppress(Refused), refused("range requests|pieces"):
        assert same(list(read(f"{address}/{file}")), list(datapoints))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("where", ["memory", "http"])
def test_a_file_that_is_not_there_is_told(memory, tmp_path, name, where):
    file, _, read, _ = FORMATS[name]
    with served(tmp_path, ranges=True) as (_, address), pytest.raises(FileNotFoundError, match=file):
        list(read(f"memory://nowhere/{file}" if where == "memory" else f"{address}/{file}"))


def test_large_files_are_streamed_from_a_server_that_gives_them_whole(tmp_path):
    sample = {"bin": np.random.default_rng(0).bytes(3 << 19)}  # together more than fsspec asks for at once
    for name in ("a.tar", "a.tar.gz"):
        write_webdataset(tmp_path / name, [sample] * 6)
        with served(tmp_path, ranges=False) as (_, address):
            assert [found["bin"] == sample["bin"] for found in read_webdataset(f"{address}/{name}")] == [True] * 6
    for name, write, read in (
        ("a.tfrecord", tfrecord_writing.write_tfrecord, tfrecords.read_tfrecord),
        ("a.jsonl.gz", json_lines.write_jsonl, json_lines.read_jsonl),
    ):
        large = {"text": sample["bin"].hex()}
        write(tmp_path / name, [large] * 4)
        with served(tmp_path, ranges=False) as (_, address):
            assert [found == large for found in read(f"{address}/{name}")] == [True] * 4


def test_what_only_a_server_of_pieces_can_give_is_refused_in_clear_words(tmp_path):
    write_webdataset(tmp_path / "a.tar", [{"bin": bytes(7 << 20)}])
    tfrecord_writing.write_tfrecord(tmp_path / "a.tfrecord", [bytes(7 << 20)] * 2)
    assert len(tfrecords.read_tfrecord(tmp_path / "a.tfrecord", save_index=True)) == 2
    words = r"^read_\w+\(\): http.*/a\.\w+ cannot be read in pieces, which its server does not give; download it first"
    with served(tmp_path, ranges=False) as (_, address):
        with pytest.raises(OSError, match=words):
            read_webdataset(f"{address}/a.tar", index=True)
        with pytest.raises(OSError, match=words):
            tfrecords.read_tfrecord(f"{address}/a.tfrecord", save_index=True)[1]


def test_worker_processes_read_from_a_web_server(tmp_path):
    write_webdataset(tmp_path / "{shard}.tar", SAMPLES, shard_size=20)
    with served(tmp_path, ranges=True) as (_, address):
        for index in (True, None):
            flow = read_webdataset(f"{address}/{{0..2}}.tar", index=index)
            assert flow.seekable is bool(index)
            assert same(list(ff.prefetch(2, flow, processes=2)), SAMPLES)


def test_a_sample_behind_a_url_is_read_without_the_others(tmp_path):
    write_webdataset(tmp_path / "a.tar", [{"bin": bytes(1 << 20)} for _ in range(40)])
    with served(tmp_path, ranges=True) as (server, address):
        flow = read_webdataset(f"{address}/a.tar", index=True)
        server.pieces.clear()
        assert len(flow[35]["bin"]) == 1 << 20
        assert sum(server.pieces) < 20 << 20


def test_patterns_are_looked_for_behind_urls(memory):
    write_webdataset("memory://many/{shard:02d}.tar", SAMPLES, shard_size=20)
    assert same(list(read_webdataset("memory://many/*.tar")), SAMPLES)
    assert same(list(read_webdataset("memory://many/{00..02}.tar")), SAMPLES)
    for number, name in enumerate(("tfrecord", "parquet", "tfrecord", "parquet")):
        _, write, _, datapoints = FORMATS[name]
        write(f"memory://many/{number}.{name}", datapoints[25 * (number // 2) : 25 * (number // 2) + 25])
    assert same(list(tfrecords.read_tfrecord("memory://many/*.tfrecord")), ROWS)
    assert same(list(tables.read_parquet("memory://many/{1,3}.parquet")), ROWS)
    assert same(list(tables.read_parquet("memory://many/*.parquet")), ROWS)
    with pytest.raises(FileNotFoundError, match=r"no file matches 'memory://few/\*.tar'"):
        read_webdataset("memory://few/*.tar")


def test_an_index_is_kept_beside_local_files_only(memory):
    with pytest.raises(ValueError, match="save_index=True needs local files"):
        write_webdataset("memory://a.tar", SAMPLES, save_index=True)
    write_webdataset("memory://a.tar", SAMPLES)
    with pytest.raises(ValueError, match="save_index=True needs local files"):
        read_webdataset("memory://a.tar", save_index=True)


def test_a_failure_leaves_nothing_behind_a_url(memory):
    def fail(number):
        if number == 9:
            raise KeyError("mine")
        return {"cls": number}

    with pytest.raises(KeyError, match="mine"):
        write_webdataset("memory://half/{shard}.tar", ff.map(fail, range(20)), shard_size=2)
    assert memory.find("/half") == []


def test_shards_are_written_behind_urls(memory):
    write_shards(write_webdataset, "memory://shards/{shard}.tar", SAMPLES, shards=3)
    memory.rm("/shards/1.tar")
    with pytest.raises(FileExistsError, match=r"'memory://shards/0.tar' exists"):
        write_shards(write_webdataset, "memory://shards/{shard}.tar", SAMPLES, shards=3)
    write_shards(write_webdataset, "memory://shards/{shard}.tar", SAMPLES, shards=3, resume=True)
    paths = [f"memory://shards/{shard}.tar" for shard in range(3)]
    assert same(list(ff.interleave(read_webdataset, paths, cycle=3)), SAMPLES)


def test_a_commands_output_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_webdataset(f"pipe:touch {tmp_path}/done")
    assert os.listdir(tmp_path) == []
