"""Where the records of a text file begin, kept beside it: looked for once, by one of all that start, and never believed
of another file."""

import json
import os
import subprocess
import sys
import warnings

import pytest

import flowfn as ff
from flowfn import formats
from flowfn.formats.text import kept_starts, record_files
from flowfn.testing import check

pytestmark = pytest.mark.timeout(120)

ROWS = [{"n": number, "text": "x" * (number % 7)} for number in range(50)]


@pytest.fixture
def path(tmp_path):
    formats.write_jsonl(tmp_path / "a.jsonl", ROWS)
    return str(tmp_path / "a.jsonl")


@pytest.fixture
def looked(monkeypatch):
    """The files that have been looked through."""
    made, real = [], record_files.record_blocks

    def noted(form, pieces, path, who):
        made.append(os.path.basename(path))
        return real(form, pieces, path, who)

    monkeypatch.setattr(record_files, "record_blocks", noted)
    return made


def kept(path, **options):
    return formats.read_jsonl(path, save_index=True, **options)


def test_it_is_looked_for_once(path, looked, tmp_path):
    assert list(kept(path)) == ROWS
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "a.jsonl.index"]
    assert looked == ["a.jsonl"]
    flow = kept(path)
    assert len(flow) == 50
    assert flow[31] == ROWS[31]
    assert sorted(row["n"] for row in ff.shuffle(flow)) == list(range(50))
    assert looked == ["a.jsonl"]
    assert repr(flow) == f"read_jsonl({path!r}, save_index=True)"


def test_nothing_is_kept_unless_asked_for(path, tmp_path):
    assert list(formats.read_jsonl(path)) == ROWS
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_each_of_several_files_has_its_own(path, looked, tmp_path):
    formats.write_jsonl(tmp_path / "b.jsonl", ROWS[:3])
    for _ in range(2):
        assert list(kept(f"{tmp_path}/*.jsonl")) == ROWS + ROWS[:3]
    assert sorted(looked) == ["a.jsonl", "b.jsonl"]


def longer(path):
    with open(path, "a") as file:
        file.write('{"n": 50, "text": ""}\n')


def later(path):
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [longer, later])
def test_it_is_looked_for_again_when_the_file_has_changed(change, path, looked):
    kept(path)[0]
    change(path)
    rows = list(kept(path))
    assert rows[:50] == ROWS
    assert len(rows) == (51 if change is longer else 50)
    assert len(looked) == 2
    assert list(kept(path)) == rows
    assert len(looked) == 2


@pytest.mark.parametrize(
    "damage",
    [lambda old: b"", lambda old: old[:-8], lambda old: old + bytes(8), lambda old: old[:90] + b"\7" + old[91:]],
    ids=["nothing", "shorter", "longer", "changed"],
)
def test_a_damaged_one_is_not_believed(damage, path, looked):
    kept(path)[0]
    with open(path + ".index", "rb") as file:
        whole = file.read()
    with open(path + ".index", "wb") as file:
        file.write(damage(whole))
    assert list(kept(path)) == ROWS
    with open(path + ".index", "rb") as file:
        assert file.read() == whole
    assert len(looked) == 2


def test_one_of_records_that_are_cut_otherwise_is_not_believed(tmp_path):
    path = str(tmp_path / "a.csv")
    with open(path, "w") as file:
        file.write('x,y\n1,"a\n2,b"\n3,c\n')
    quoted = formats.read_csv(path, save_index=True)
    assert [len(quoted), quoted[1]] == [2, {"x": "3", "y": "c"}]
    plain = formats.read_csv(path, quote=None, save_index=True)
    assert [len(plain), plain[1]] == [3, {"x": "2", "y": 'b"'}]
    assert len(formats.read_csv(path, save_index=True)) == 2


def test_compressed_files_are_read_as_without(path, tmp_path):
    formats.write_jsonl(tmp_path / "b.jsonl.gz", ROWS)
    assert list(kept(tmp_path / "b.jsonl.gz")) == ROWS
    assert kept(tmp_path / "b.jsonl.gz", hold=True)[7] == ROWS[7]
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "b.jsonl.gz"]
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe_file("/a.jsonl", b"1\n")
    with pytest.raises(ValueError, match=r"save_index=True needs local files, got 'memory://a\.jsonl'"):
        kept("memory://a.jsonl")
    memory.store.clear()


def test_where_nothing_can_be_written_it_stays_in_memory_and_that_is_said(path, looked, monkeypatch, tmp_path):
    def refused(path, *given, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(kept_starts, "written_whole", refused)
    flow = kept(path)
    with pytest.warns(
        UserWarning, match=r"cannot be kept beside .*a\.jsonl \(Permission denied\); it is kept in memory"
    ):
        assert list(flow) == ROWS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert flow[7] == ROWS[7]
    assert looked == ["a.jsonl"]
    assert os.listdir(tmp_path) == ["a.jsonl"]


RANK = """
import json, sys, time
from flowfn import formats
from flowfn.formats.text import record_files
looked, real = [], record_files.record_blocks

def slow(*given):
    looked.append(1)
    print("looking", flush=True)
    if {wait}:
        sys.stdin.readline()
    return real(*given)

record_files.record_blocks = slow
print("ready", flush=True)
sys.stdin.readline()
flow = formats.read_jsonl(sys.argv[1], save_index=True)
rows = [row["n"] for row in flow]
print(json.dumps([len(looked), rows]), flush=True)
"""


def ranks(path, count, wait):
    """Processes that read the file when they are told to; with `wait`, whoever looks goes on when it is told again."""
    made = [
        subprocess.Popen(
            [sys.executable, "-c", RANK.format(wait=wait), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(count)
    ]
    for one in made:
        assert one.stdout.readline() == "ready\n"
    for one in made:
        told(one)
    return made


def told(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_all_ranks_start_at_once_and_one_of_them_looks(path, tmp_path):
    processes = ranks(path, 4, wait=False)
    said = [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in processes]
    assert [rows for _, rows in said] == [list(range(50))] * 4
    assert sum(looked for looked, _ in said) == 1
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "a.jsonl.index"]


def test_when_the_one_that_looks_is_killed_another_looks(path, tmp_path):
    first = ranks(path, 1, wait=True)[0]
    assert first.stdout.readline() == "looking\n"
    second = ranks(path, 1, wait=False)[0]
    first.kill()
    first.communicate(timeout=60)
    assert json.loads(second.communicate(timeout=60)[0].splitlines()[-1]) == [1, list(range(50))]
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "a.jsonl.index"]


def test_a_child_that_is_forked_meanwhile_holds_nobody_up(path, monkeypatch):
    real, children = record_files.record_blocks, []
    until, end = os.pipe()

    def forking(*given):
        child = os.fork()
        if not child:
            os.close(end)
            os.read(until, 1)
            os._exit(0)
        children.append(child)
        return real(*given)

    monkeypatch.setattr(record_files, "record_blocks", forking)
    assert len(kept(path)) == 50
    with open(path, "rb") as file:
        kept_starts.fcntl.flock(file, kept_starts.fcntl.LOCK_EX | kept_starts.fcntl.LOCK_NB)
    os.close(end)
    assert [os.waitpid(child, 0)[1] for child in children] == [0]
    os.close(until)


def test_without_locks_each_may_look_and_all_read_the_same(path, looked, monkeypatch, tmp_path):
    def none(*given):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(kept_starts.fcntl, "flock", none)
    both = kept(path), kept(path)
    assert [list(flow) for flow in both] == [ROWS, ROWS]
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "a.jsonl.index"]


def test_what_changes_while_it_is_looked_through_is_not_kept(path, monkeypatch, tmp_path):
    real = record_files.record_blocks

    def meanwhile(*given):
        later(path)
        return real(*given)

    monkeypatch.setattr(record_files, "record_blocks", meanwhile)
    assert len(kept(path)) == 50
    assert os.listdir(tmp_path) == ["a.jsonl"]


@pytest.mark.long
@pytest.mark.parametrize("workers", [[{}, {"threads": 2}], [{"processes": 2}]], ids=["threads", "processes"])
def test_flows_with_a_kept_index_keep_the_laws(workers, path):
    check(lambda: ff.pipe(kept(path), ff.shuffle()), workers=workers)
