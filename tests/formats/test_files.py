"""Files to read from: opened by whoever reads, closed by nobody else,
and optional libraries that are missed in clear words."""

import gc
import os
import pickle
import subprocess
import sys
import threading
import zlib

import pytest

import flowfn as ff
from flowfn import formats
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.formats import read_tfrecord, read_webdataset, write_tfrecord, write_webdataset
from flowfn.storage.damage import reading
from flowfn.storage.files import InOrder, Opened, ReadablePieces, call, file_path, flow_of, is_url, open_file, stamp

OPTIONAL = [
    "lmdb",
    "msgpack",
    "h5py",
    "pyarrow",
    "google.protobuf",
    "crc32c",
    "cv2",
    "sklearn",
    "scipy",
    "fsspec",
    "zarr",
    "tqdm",
    "PIL",
]


class Lines(Opened):
    """The lines of a file, which all have two characters."""

    opened = 0

    def open(self):
        type(self).opened += 1
        return open_file(self.path)

    def __len__(self):
        return self.stamp[0] // 3

    def __getitem__(self, index):
        self.handle.seek(3 * self.within(index))
        return self.handle.read(2)


class LinesOfThreads(Lines):
    per_thread = True


class Following(InOrder):
    """The lines of a file, one after the other."""

    def datapoints(self, start):
        with open_file(self.path) as file:
            for number, line in enumerate(file):
                if number >= start:
                    yield line.strip()


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "lines.txt"
    made.write_bytes(b"aa\nbb\ncc\n")
    Lines.opened = 0
    return made


@pytest.fixture
def memory():
    import fsspec

    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


# Sequences over files


def test_a_file_is_opened_when_it_is_first_wanted_and_once(path):
    flow = flow_of(Lines(path, "read_lines"), "read_lines", call("read_lines", str(path)))
    assert len(flow) == 3
    assert Lines.opened == 0
    assert list(flow) == [b"aa", b"bb", b"cc"]
    assert flow[1] == b"bb"
    assert Lines.opened == 1
    assert isinstance(flow, Flow)
    assert repr(flow) == f"read_lines({str(path)!r})"


def test_what_is_pickled_is_the_arguments(path):
    lines = Lines(path, "read_lines")
    assert lines[0] == b"aa"
    again = pickle.loads(pickle.dumps(lines))
    assert again._handles == {}
    assert again[2] == b"cc"
    assert len(pickle.dumps(lines)) < 500


def test_a_file_is_closed_with_its_sequence(path):
    lines = Lines(path, "read_lines")
    handle = lines.handle
    del lines
    gc.collect()
    assert handle.closed


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_the_file_for_itself_and_leaves_the_other_alone(path):
    lines = Lines(path, "read_lines")
    handle = lines.handle
    child = os.fork()
    if not child:
        try:
            other = lines.handle
            fine = other is not handle and lines[1] == b"bb"
            del lines
            os._exit(0 if fine and other.closed and not handle.closed else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert lines.handle is handle
    assert lines[0] == b"aa"


def test_threads_have_files_of_their_own_where_they_need_to(path):
    shared, own = Lines(path, "read_lines"), LinesOfThreads(path, "read_lines")
    handles = []
    thread = threading.Thread(target=lambda: handles.extend([shared.handle, own.handle]))
    thread.start()
    thread.join()
    assert handles[0] is shared.handle
    assert handles[1] is not own.handle


@pytest.mark.parametrize("index", [-1, 3, 10**12])
def test_an_index_out_of_range_is_an_index_error(index, path):
    with pytest.raises(IndexError, match=r"read_lines\(\): index .* is out of range for 3 datapoints in .*lines\.txt"):
        Lines(path, "read_lines")[index]


def test_a_missing_file_is_missed_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        Lines(tmp_path / "none.txt", "read_lines")


@pytest.mark.parametrize("given", [None, 3, "", b""])
def test_a_path_must_be_one(given):
    with pytest.raises((TypeError, ValueError), match=r"read_lines\(\): path must be a path or a URL, got"):
        Lines(given, "read_lines")


def test_what_is_read_in_order_resumes_at_its_place(path):
    flow = flow_of(Following(path, "read_lines"), "read_lines", "read_lines(...)")
    assert list(flow) == [b"aa", b"bb", b"cc"]
    assert list(flow.run(start=2)) == [b"cc"]
    assert not flow.seekable
    with pytest.raises(TypeError, match="can only be read from its beginning"):
        flow[0]


def test_what_is_kept_is_not_taken_for_that_of_another_file(path, tmp_path):
    def kept():
        flow = flow_of(Lines(path, "read_lines"), "read_lines", "read_lines(...)")
        return list(ff.pipe(flow, ff.map(bytes.decode), ff.cache_to(tmp_path / "kept", version="1")))

    assert kept() == ["aa", "bb", "cc"]
    path.write_bytes(b"xx\nyy\n")
    assert kept() == ["xx", "yy"]


# Paths and URLs


def test_urls_are_told_from_paths(tmp_path):
    assert [
        is_url(one) for one in ("s3://b/k", "http://host/f", "memory://x", "/a/b", "a://", "C://x", "x:y", tmp_path)
    ] == [
        *[True] * 3,
        *[False] * 5,
    ]
    assert file_path("memory://x", "f") == "memory://x"
    assert file_path("x", "f") == os.path.join(os.getcwd(), "x")
    assert file_path("~/x", "f") == os.path.expanduser("~/x")


def test_what_is_behind_a_url_is_opened_through_fsspec(memory):
    memory.pipe_file("/lines.txt", b"aa\nbb\n")
    with open_file("memory://lines.txt") as file:
        assert file.read() == b"aa\nbb\n"
    before = stamp("memory://lines.txt")
    memory.pipe_file("/lines.txt", b"aa\nbb\ncc\n")
    assert stamp("memory://lines.txt") != before
    assert list(flow_of(Following("memory://lines.txt", "read_lines"), "read_lines", "...")) == [b"aa", b"bb", b"cc"]


@pytest.mark.parametrize("local", [True, False])
def test_pieces_are_read_from_anywhere_and_end_with_the_file(local, path, memory):
    memory.pipe_file("/lines.txt", path.read_bytes())
    pieces = ReadablePieces(str(path) if local else "memory://lines.txt", "a test")
    assert pieces.size == 9
    assert [pieces.read(3, 2), pieces.read(0, 100), pieces.read(9, 1), pieces.read(100, 1), pieces.read(0, 0)] == [
        b"bb",
        b"aa\nbb\ncc\n",
        b"",
        b"",
        b"",
    ]
    pieces.close()


def test_threads_share_pieces(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(b"".join(b"%04d" % i for i in range(4000)))
    pieces, wrong = ReadablePieces(str(path), "a test"), []
    pieces._descriptor = None  # as where a system cannot read from a place

    def read(which):
        wrong.extend(i for i in range(which, 4000, 4) if pieces.read(4 * i, 4) != b"%04d" % i)

    threads = [threading.Thread(target=read, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pieces.close()
    assert wrong == []


# Optional libraries


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(
        ImportError, match=r'^read_lmdb\(\) needs lmdb, which is not installed: pip install "flowfn\[lmdb\]"$'
    ):
        formats.read_lmdb("x")


def test_what_is_wrong_inside_a_library_is_told_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("import something_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_that_is_not_there"):
        needed("broken_library", "read_x()", extra="x")
    with pytest.raises(ImportError, match=r"read_x\(\) needs no\.such\.library, which is not installed"):
        needed("no.such.library", "read_x()", extra="x")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_importing_the_package_and_its_modules_needs_none_of_them():
    program = f"""
import importlib, sys
import flowfn.formats
for name in flowfn.formats.__all__:
    getattr(flowfn.formats, name)
print([name for name in {OPTIONAL!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=True)
    assert done.stdout == "[]\n"


def test_public_names_are_found_and_others_are_not():
    assert all(callable(getattr(formats, name)) for name in formats.__all__)
    assert dir(formats) == formats.__all__ == sorted(formats.__all__)
    assert set(formats.__all__) == set(formats._WHERE)
    with pytest.raises(AttributeError, match="has no attribute 'read_nothing'"):
        formats.read_nothing  # noqa: B018


@pytest.mark.parametrize("how", ["by index", "in order"])
def test_a_file_that_is_listed_twice_is_read_twice(tmp_path, how):
    write_tfrecord(tmp_path / "a.tfrecord", range(3))
    write_webdataset(tmp_path / "a.tar", [{"cls": x} for x in range(3)])
    records = read_tfrecord([tmp_path / "a.tfrecord"] * 2)
    samples = read_webdataset([tmp_path / "a.tar"] * 2, components=["cls"], index=how == "by index")
    read = (lambda flow: [flow[x] for x in range(len(flow))]) if how == "by index" else list
    assert read(records) == [0, 1, 2, 0, 1, 2]
    assert [sample["cls"] for sample in read(samples)] == [0, 1, 2, 0, 1, 2]


# What goes wrong


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (KeyError("shape"), ValueError, r"^read_x\(\): /a cannot be read: KeyError: 'shape'; hint$"),
        (RecursionError(), ValueError, r"^read_x\(\): /a cannot be read: RecursionError; hint$"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "in /a"),
            ValueError,
            r"^read_x\(\): /a cannot be read: 'utf-8' codec .*; hint$",
        ),
        (zlib.error("Error -3"), ValueError, r"^read_x\(\): /a cannot be read: error: Error -3; hint$"),
        (OSError("Can't read data (/b)"), ValueError, r"^read_x\(\): /a cannot be read: Can't read data \(/b\); hint$"),
        (OSError(5, "Input/output error"), OSError, r"^\[Errno 5\] Input/output error: '/a'$"),
        (RuntimeError("file read failed: errno = 5, buf"), OSError, r"^\[Errno 5\] Input/output error: '/a'$"),
        (PermissionError(13, "Permission denied"), PermissionError, r"^\[Errno 13\] Permission denied: '/a'$"),
        (TimeoutError("the line"), OSError, r"^read_x\(\): /a cannot be read: the line$"),
        (ValueError("/a is odd"), ValueError, "^/a is odd$"),
        (TypeError("read_x(): arrays must be a name"), TypeError, r"^read_x\(\): arrays must be a name$"),
        (FileNotFoundError(2, "No such file or directory", "/a"), FileNotFoundError, r"^\[Errno 2\] .*: '/a'$"),
        (ModuleNotFoundError("No module named 'x'"), ModuleNotFoundError, "^No module named 'x'$"),
    ],
    ids=repr,
)
def test_whatever_is_raised_is_told_as_one_of_two_that_name_the_file(raised, kind, message):
    with pytest.raises(kind, match=message) as caught, reading("/a", "read_x(): /a cannot be read", "; hint"):
        raise raised
    assert not isinstance(caught.value, UnicodeError)
    assert caught.value is raised or caught.value.__cause__ is raised


def test_interrupts_and_ends_are_no_damage():
    for kind in (KeyboardInterrupt, GeneratorExit, SystemExit):
        with pytest.raises(kind), reading("/a", "read_x(): /a cannot be read"):
            raise kind
