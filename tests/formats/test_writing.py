"""Writing: nothing is at the final place before it is whole, what is there is not replaced unless told,
nothing is left beside."""

import errno
import functools
import os
import signal
import sys

import fsspec
import pytest

import flowfn as ff
from flowfn import formats
from flowfn.formats.lmdb import keyvalue
from flowfn.formats.tfrecord import writing as tfrecord_writing
from flowfn.storage import unfinished
from flowfn.storage.bars import hushed
from flowfn.storage.files import open_file
from flowfn.storage.writing import resumable, shown, written_whole


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.txt"


def fill(beside, text, folder=False):
    if folder:
        os.mkdir(os.path.join(beside, "inside"))
        beside = os.path.join(beside, "inside", "file")
    with open(beside, "w") as file:
        file.write(text)


def content(path):
    inside = path / "inside" / "file"
    return (inside if path.is_dir() else path).read_text()


FOLDER = pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])


@FOLDER
def test_it_is_at_its_place_when_it_is_whole(folder, path, tmp_path):
    with written_whole(path, False, "write_x", folder=folder) as beside:
        assert os.path.dirname(os.path.dirname(beside)) == str(tmp_path)
        assert os.path.basename(beside) == "data.txt"
        fill(beside, "new", folder)
        assert not path.exists()
    assert content(path) == "new"
    assert os.listdir(tmp_path) == ["data.txt"]


@FOLDER
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_nothing_is_left_when_something_is_raised(error, folder, path, tmp_path):
    with pytest.raises(error), written_whole(path, False, "write_x", folder=folder) as beside:  # noqa: PT012
        fill(beside, "half", folder)
        raise error
    assert os.listdir(tmp_path) == []


@FOLDER
def test_what_is_there_is_not_replaced_unless_told(folder, path, tmp_path):
    with written_whole(path, False, "write_x", folder=folder) as beside:
        fill(beside, "old", folder)
    with (
        pytest.raises(FileExistsError, match=r"^write_x\(\): '.*data\.txt' exists; pass overwrite=True to replace it$"),
        written_whole(path, False, "write_x", folder=folder),
    ):
        raise AssertionError("it was to be refused before anything is written")
    for again in ("newer", "newest"):
        with written_whole(path, True, "write_x", folder=folder) as beside:
            fill(beside, again, folder)
            assert content(path) != again
        assert content(path) == again
    assert os.listdir(tmp_path) == ["data.txt"]


@FOLDER
def test_what_was_there_stays_when_something_is_raised(folder, path, tmp_path):
    with written_whole(path, False, "write_x", folder=folder) as beside:
        fill(beside, "old", folder)
    with pytest.raises(OSError, match="full"), written_whole(path, True, "write_x", folder=folder) as beside:  # noqa: PT012
        fill(beside, "half", folder)
        raise OSError("full")
    assert content(path) == "old"
    assert os.listdir(tmp_path) == ["data.txt"]


def test_a_file_that_came_meanwhile_is_not_replaced(path, tmp_path):
    with pytest.raises(FileExistsError), written_whole(path, False, "write_x") as beside:  # noqa: PT012
        fill(beside, "ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["data.txt"]


def test_a_file_can_be_replaced_by_a_folder_and_back(path, tmp_path):
    for folder in (False, True, False):
        with written_whole(path, True, "write_x", folder=folder) as beside:
            fill(beside, "x", folder)
    assert content(path) == "x"
    assert os.listdir(tmp_path) == ["data.txt"]


@FOLDER
def test_what_does_not_reach_the_disk_is_not_moved_to_its_place(folder, path, tmp_path, monkeypatch):
    with written_whole(path, False, "write_x", folder=folder) as beside:
        fill(beside, "old", folder)

    def failing(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with (
        pytest.raises(OSError, match=r"could not be brought to the disk: Input/output error: '.*data\.txt"),
        written_whole(path, True, "write_x", folder=folder) as beside,
    ):
        fill(beside, "new", folder)
    assert content(path) == "old"
    assert os.listdir(tmp_path) == ["data.txt"]


@FOLDER
def test_a_system_that_cannot_be_asked_to_write_to_the_disk_is_taken_as_it_is(folder, path, monkeypatch):
    def refusing(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refusing)
    with written_whole(path, False, "write_x", folder=folder) as beside:
        fill(beside, "new", folder)
    assert content(path) == "new"


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"write_x\(\): the folder '.*none' does not exist; make it first"),
        written_whole(tmp_path / "none" / "data", False, "write_x"),
    ):
        pass


@pytest.mark.parametrize("name", [name for name in formats.__all__ if name.startswith("write_")])
def test_every_writer_knows_whether_to_overwrite(path, name):
    shards = functools.partial(formats.write_shards, formats.write_npy, shards=2)
    write = shards if name == "write_shards" else getattr(formats, name)
    if name in ("write_megatron", "write_tokens"):
        write = functools.partial(write, dtype="uint16")
    with pytest.raises(TypeError, match=rf"^{name}\(\): overwrite must be True or False, got 'yes'$"):
        write(path, [], overwrite="yes")
    assert not path.exists()


def test_a_path_is_one():
    with (
        pytest.raises(TypeError, match=r"write_x\(\): path must be a path or a URL, got 3"),
        written_whole(3, True, "write_x"),
    ):
        pass


HERE, SEEN = os.getpid(), []


def in_a_process_that_is_killed(write):
    """Write a flow in a process of its own, which does not live to see datapoint 58."""
    child = os.fork()
    if not child:
        try:
            write(ff.map(fatal, range(100)))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def fatal(number):
    SEEN.append(number)
    if number == 57 and os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"cls": number}


WRITERS = {
    "lmdb": (formats.write_lmdb, formats.read_lmdb),
    "tfrecord": (formats.write_tfrecord, formats.read_tfrecord),
    "tfrecord.gz": (
        functools.partial(formats.write_tfrecord, compression="gzip"),
        functools.partial(formats.read_tfrecord, compression="gzip"),
    ),
    "tar": (formats.write_webdataset, formats.read_webdataset),
    "tar.gz": (formats.write_webdataset, formats.read_webdataset),
}
FORK = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@FORK
@pytest.mark.parametrize("name", WRITERS)
def test_a_killed_program_leaves_no_half_file_under_the_final_name(name, tmp_path):
    path, (write, read) = tmp_path / f"data.{name}", WRITERS[name]
    in_a_process_that_is_killed(lambda flow: write(path, flow))
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".part-")
    write(path, [{"cls": 1}])
    assert [one["cls"] for one in read(path)] == [1]
    assert os.listdir(tmp_path) == [path.name]


# What killed writers leave


def test_what_another_writer_is_at_is_left_alone(path, tmp_path):
    with written_whole(path, False, "write_x") as ours:
        fill(ours, "ours")
        with written_whole(tmp_path / "other.txt", False, "write_x") as theirs:
            fill(theirs, "theirs")
    assert (path.read_text(), (tmp_path / "other.txt").read_text()) == ("ours", "theirs")
    assert sorted(os.listdir(tmp_path)) == ["data.txt", "other.txt"]


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOTSUP])
def test_where_there_are_no_locks_nothing_is_swept(path, tmp_path, monkeypatch, number):
    def refusing(file, how):
        raise OSError(number, os.strerror(number))

    (tmp_path / ".part-0123abcd").mkdir()
    monkeypatch.setattr(unfinished.fcntl, "flock", refusing)
    with written_whole(path, False, "write_x") as beside:
        fill(beside, "x")
    assert sorted(os.listdir(tmp_path)) == [".part-0123abcd", "data.txt"]


def test_only_what_is_surely_abandoned_is_swept(path, tmp_path):
    names = [".part-0123abcd", ".part-0123abcd-x", ".part-012", "part-0123abcd"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    (tmp_path / ".part-abcdef01").write_text("a file of somebody's")
    (tmp_path / ".old-01234567-gone").write_text("all that there is")
    (tmp_path / ".old-01234567-there").write_text("replaced")
    (tmp_path / "there").touch()
    with written_whole(path, False, "write_x") as beside:
        fill(beside, "x")
    kept = {*names[1:], ".part-abcdef01", ".old-01234567-gone", "there", "data.txt"}
    assert set(os.listdir(tmp_path)) == kept


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(path, tmp_path, monkeypatch):
    flock, swept = unfinished.fcntl.flock, []

    def late(file, how):
        flock(file, how)
        for name in os.listdir(tmp_path) if not swept else ():
            swept.append(name)
            os.rmdir(tmp_path / name)

    monkeypatch.setattr(unfinished.fcntl, "flock", late)
    with written_whole(path, False, "write_x") as beside:
        fill(beside, "x")
    assert len(swept) == 1
    assert path.read_text() == "x"


@FORK
@pytest.mark.parametrize("name", ["lmdb", "tfrecord"])
def test_what_a_killed_program_has_written_is_gone_on_with(name, tmp_path, monkeypatch):
    monkeypatch.setattr(keyvalue, "TRANSACTION_SECONDS", -1)
    monkeypatch.setattr(tfrecord_writing, "JOURNAL_SECONDS", -1)
    path, (write, read) = tmp_path / f"data.{name}", WRITERS[name]
    SEEN.clear()
    in_a_process_that_is_killed(lambda flow: write(path, flow, resume=True))
    assert not path.exists()
    SEEN.clear()
    write(path, ff.map(fatal, range(100)), resume=True)
    assert SEEN == list(range(57, 100))
    assert os.listdir(tmp_path) == [path.name]
    assert [one["cls"] for one in read(path)] == list(range(100))


def test_a_url_gets_it_when_it_is_whole():
    url, system = "memory://folder/data.txt", fsspec.filesystem("memory")
    try:
        with written_whole(url, False, "write_x") as beside:
            fill(beside, "new")
            assert not system.exists("/folder/data.txt")
        with open_file(url) as file:
            assert file.read() == b"new"
        with pytest.raises(FileExistsError, match="pass overwrite=True"), written_whole(url, False, "write_x"):
            pass
        with pytest.raises(OSError, match="torn"), written_whole(url, True, "write_x"):
            raise OSError("torn")
        with written_whole(url, True, "write_x") as beside:
            fill(beside, "newer")
        assert system.cat("/folder/data.txt") == b"newer"
        assert not os.path.exists(beside)
        with written_whole("memory://folder/more", False, "write_x", folder=True) as beside:
            fill(beside, "inside", folder=True)
        assert system.cat("/folder/more/inside/file") == b"inside"
        with written_whole("memory://folder/more", True, "write_x", folder=True) as beside:
            fill(beside, "other", folder=True)
        assert system.cat("/folder/more/inside/file") == b"other"
        with (
            pytest.raises(ValueError, match="only a local file can be resumed"),
            resumable(url, True, "write_x", resume=True),
        ):
            pass
    finally:
        system.store.clear()


def test_what_can_be_resumed_stays_and_is_found_again(path, tmp_path):
    with pytest.raises(KeyboardInterrupt), resumable(path, False, "write_x", resume=True) as beside:  # noqa: PT012
        fill(beside, "half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["data.txt.part"]
    with resumable(path, False, "write_x", resume=True) as beside, open(beside, "a") as file:
        file.write(" and half")
    assert path.read_text() == "half and half"
    with pytest.raises(FileExistsError), resumable(path, False, "write_x", resume=True):
        pass


def test_what_is_being_written_is_not_gone_on_with_by_another(path, tmp_path):
    with resumable(path, False, "write_x", resume=True) as beside:
        fill(beside, "ours")
        with (
            pytest.raises(
                FileExistsError, match=r"^write_x\(\): '.*data\.txt\.part' is being written by somebody else; wait"
            ),
            resumable(path, True, "write_x", resume=True),
        ):
            raise AssertionError("two would write to one file")
    assert path.read_text() == "ours"
    assert os.listdir(tmp_path) == ["data.txt"]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("there", [False, True])
def test_a_line_that_breaks_leaves_what_was_there(there, folder, monkeypatch):
    url, system = "memory://data", fsspec.filesystem("memory")

    def breaking(local, remote, **options):
        system.pipe_file(f"{remote}.half", b"half")
        raise ConnectionError("the line is down")

    try:
        if there:
            system.pipe_file("/data", b"old")
        monkeypatch.setattr(type(system), "put", lambda self, local, remote, **options: breaking(local, remote))
        with pytest.raises(ConnectionError), written_whole(url, there, "write_x", folder=folder) as beside:
            fill(beside, "new", folder)
        assert system.exists("/data") is (there and not folder)
        if there and not folder:
            assert system.cat("/data") == b"old"
    finally:
        system.store.clear()


# The bar


def test_a_bar_is_shown_where_there_is_one(capsys):
    with shown(range(5), "write_x") as datapoints:
        assert list(datapoints) == list(range(5))
    assert "write_x: 100%" in capsys.readouterr().err
    with shown(range(5), "write_x", "file") as datapoints:
        assert list(datapoints) == list(range(5))
    assert " file/s]" in capsys.readouterr().err


def test_it_is_done_without_a_bar_too(monkeypatch, capsys):
    from flowfn.seeing import progressing

    progressing.bars.cache_clear()
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with shown(range(5), "write_x") as datapoints:
        assert list(datapoints) == list(range(5))
    progressing.bars.cache_clear()
    assert capsys.readouterr().err == ""


def test_the_flow_that_is_written_stays_as_it_is():
    flow = ff.pipe(range(20), ff.shuffle())
    flow.set_epoch(3)
    with shown(flow, "write_x") as datapoints:
        assert list(datapoints) == list(flow.run(epoch=3))
        state = datapoints.state_dict()
    assert flow.epoch == 3
    assert state["fingerprint"] == flow.state_dict()["fingerprint"]


def test_the_pass_that_is_written_is_the_next_one_of_the_flow():
    flow = ff.pipe(range(20), ff.shuffle())
    list(flow)
    with shown(flow, "write_x") as datapoints:
        assert list(datapoints) == list(flow.run())
    assert flow.epoch == 1


def test_no_bar_is_shown_where_bars_are_hushed(capsys):
    flow = ff.pipe(range(20), ff.shuffle()).set_epoch(2)
    with hushed(), shown(flow, "write_x") as datapoints:
        assert list(datapoints) == list(flow.run(epoch=2))
    assert capsys.readouterr().err == ""


def test_what_is_no_source_is_told():
    with pytest.raises(TypeError, match=r"write_x\(\): a source cannot be a string"):
        shown("text", "write_x")
