"""`cache_to`: each datapoint is made once, whoever wants it first, and nothing but what was made ever comes out."""

import gc
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowfn as ff
from flowfn.flows.states import fingerprint
from flowfn.shelves import shelf as shelves
from flowfn.shelves.encoding import DATAPOINT_HEAD, datapoint_bytes, datapoint_of
from flowfn.shelves.records import MARKER, RECORD, SpotTable
from flowfn.testing import check, left_behind, same
from flowfn.vocabulary.keeping import storing

Pair = namedtuple("Pair", "image label")


@dataclass
class Record:
    image: np.ndarray


class Lines:
    """A sequence whose content cannot be told from outside."""

    def __init__(self, lines):
        self.lines = lines

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, index):
        return self.lines[index]


def stream():
    return iter(range(6))


def streamed(datapoints):
    return lambda: iter(datapoints)


def square(log, x):
    """A square; that it was made is written down."""
    with open(log, "a") as file:
        file.write(f"{x}\n")
    return x * x


def noisy(datapoint, rng):
    return [datapoint, np.arange(2) + rng.integers(1000)]


@pytest.fixture
def calls(tmp_path):
    """Which squares were made, in whatever process."""
    log = tmp_path / "calls"
    log.touch()

    def told():
        return [int(line) for line in log.read_text().split()]

    told.log = str(log)
    return told


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


def squares(source, calls, folder, *stages):
    return ff.pipe(source, ff.map(partial(square, calls.log)), ff.cache_to(folder), *stages)


SQUARES = [0, 1, 4, 9, 16, 25]
SOURCES = pytest.mark.parametrize("source", [range(6), stream], ids=["sequence", "stream"])


# Each is made once


@SOURCES
def test_every_datapoint_is_made_once(source, calls, folder):
    flow = squares(source, calls, folder)
    for again in (flow, flow, squares(source, calls, folder)):
        assert list(again) == SQUARES
    assert calls() == list(range(6))


@SOURCES
def test_an_unfinished_pass_is_useful_and_is_not_taken_for_a_whole_one(source, calls, folder):
    with iter(squares(source, calls, folder)) as iterator:
        assert list(islice(iterator, 2)) == [0, 1]
    assert calls() == [0, 1]
    assert list(squares(source, calls, folder)) == SQUARES
    assert calls() == list(range(6))


@SOURCES
def test_two_passes_at_once_share_what_is_known(source, calls, folder):
    both = list(itertools.chain.from_iterable(zip(squares(source, calls, folder), squares(source, calls, folder))))
    assert both[::2] == both[1::2] == SQUARES
    if source is not stream:
        assert sorted(calls()) == list(range(6))


@SOURCES
@pytest.mark.parametrize("known", [0, 2, 6])
@pytest.mark.parametrize("start", [0, 1, 4, 6, 9])
def test_a_pass_may_start_anywhere_whatever_is_known(source, known, start, calls, folder):
    flow = squares(source, calls, folder)
    with iter(flow) as iterator:
        list(islice(iterator, known))
    assert list(flow.run(start=start)) == SQUARES[start:]
    assert list(flow) == list(flow) == SQUARES
    assert sorted(calls()) == list(range(6))


def test_an_index_makes_only_its_own_datapoint(calls, folder):
    flow = squares(range(10**9), calls, folder)
    assert (flow[3], flow[3], flow[-1]) == (9, 9, (10**9 - 1) ** 2)
    assert flow[2:5][1] == 9
    assert calls() == [3, 10**9 - 1]


def test_orders_and_batches_over_it_make_each_datapoint_once(calls, folder):
    flow = squares(range(20), calls, folder, ff.shuffle(), ff.batch(3))
    first, second = ([x for batch in flow for x in batch.tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == [x * x for x in range(20)]
    assert first != second
    assert sorted(calls()) == list(range(20))
    assert list(squares(range(20), calls, folder, ff.subset([3, 3, 1]), ff.repeat(2))) == [9, 9, 1] * 2
    assert len(calls()) == 20


def test_more_than_a_block_of_datapoints_is_made_once(calls, folder):
    flow = squares(range(9000), calls, folder)
    assert flow[7000] == 7000**2
    assert list(flow) == list(squares(range(9000), calls, folder)) == [x * x for x in range(9000)]
    assert sorted(calls()) == list(range(9000))


def test_a_stream_of_more_than_a_block_is_made_once(calls, folder):
    source = lambda: iter(range(9000))
    with iter(squares(source, calls, folder)) as iterator:
        list(islice(iterator, 5000))
    assert list(squares(source, calls, folder)) == list(squares(source, calls, folder)) == [x * x for x in range(9000)]
    assert calls() == list(range(9000))


def test_an_endless_source_is_kept_as_far_as_it_was_read(calls, folder):
    for source in (ff.cycle([1, 2, 3]), ff.cycle(lambda: iter([1, 2, 3]))):
        flow = squares(source, calls, folder)
        for _ in range(2):
            with iter(flow) as iterator:
                assert list(islice(iterator, 5)) == [1, 4, 9, 1, 4]
    assert calls() == [1, 2, 3, 1, 2] * 2


@pytest.mark.parametrize("datapoints", [[], [7], [None, None], [[]]], ids=repr)
@pytest.mark.parametrize("read", [list, streamed], ids=["sequence", "stream"])
def test_few_datapoints(datapoints, read, folder):
    for _ in range(3):
        assert list(ff.cache_to(folder, read(datapoints))) == datapoints


def test_a_failure_is_not_kept(folder, tmp_path):
    for number, source in enumerate((range(3), lambda: iter(range(3)))):
        flag = tmp_path / f"mended{number}"

        def flaky(x, flag=str(flag)):
            if x == 1 and not os.path.exists(flag):
                raise OSError("first time")
            return x

        flow = ff.pipe(source, ff.map(flaky), ff.cache_to(folder), ff.map(str))
        with pytest.raises(OSError, match="first time") as raised:
            list(flow)
        assert raised.value.__notes__[0].startswith("in map(flaky), its datapoint 1 (input 1), seed 0, epoch 0")
        flag.touch()
        assert ff.replay(flow, raised.value) == "1"
        assert list(flow) == ["0", "1", "2"]


def test_a_one_shot_source_can_be_read_again_and_by_others(folder):
    flow = ff.cache_to(folder, iter(range(5)), version="1")
    assert list(flow) == list(flow) == [0, 1, 2, 3, 4]
    assert list(ff.cache_to(folder, iter(range(50, 60)), version="1")) == [0, 1, 2, 3, 4]
    assert list(ff.cache_to(folder, iter([5]), version="2")) == [5]


def test_a_stage_upstream_that_gives_too_few_or_too_many_is_named(folder):
    @ff.stage.each
    def short(source):
        yield from islice(source, 2)

    @ff.stage.each
    def long(source):
        yield from source
        yield None

    for wrong in (short, long):
        with pytest.raises(ValueError, match=rf"{wrong.__name__}\(\) gave the wrong number of outputs"):
            list(ff.cache_to(folder, wrong(range(4))))


# What is upstream is frozen


def test_what_is_kept_is_frozen(folder):
    random = ff.pipe(range(20), ff.shuffle(), ff.map(lambda x, rng: (x, rng.random()), rng=True))
    flow = ff.cache_to(folder, random, seed=3)
    expected = list(random.run(seed=3, epoch=0))
    assert list(flow) == list(flow) == list(flow.run(seed=8, epoch=5)) == expected
    assert [ff.cache_to(folder, random, seed=3).reset_state(9)[i] for i in range(20)] == expected
    assert list(ff.cache_to(folder, random, seed=4)) == list(random.run(seed=4, epoch=0)) != expected


def test_random_stages_over_it_are_random_as_ever(folder):
    draw = lambda x, rng: rng.random()
    for source in (range(20), lambda: iter(range(20))):
        flow = ff.pipe(ff.cache_to(folder, source), ff.map(draw, rng=True))
        assert list(flow) != list(flow)
        for _ in range(2):
            assert list(flow.run(epoch=0)) == list(ff.map(draw, range(20), rng=True).run(epoch=0))


def test_one_folder_keeps_many_pipelines(folder):
    flows = [ff.cache_to(folder, ff.map(partial(pow, n), range(5))) for n in range(3)]
    flows.append(ff.pipe(flows[0], ff.map(str), ff.cache_to(folder), ff.shuffle(), ff.cache_to(folder)))
    expected = [[n**x for x in range(5)] for n in range(3)]
    for _ in range(2):
        assert list(map(list, flows[:3])) == expected
        assert sorted(flows[3]) == sorted(map(str, expected[0]))
    assert len(list(folder.iterdir())) == 6  # five keys and the marker


def test_ranks_do_not_mix(folder):
    for _ in range(2):
        assert [list(ff.cache_to(folder, ff.shard(rank, 3, range(7)))) for rank in range(3)] == [
            [0, 3, 6],
            [1, 4],
            [2, 5],
        ]
        flow = ff.cache_to(folder, range(7))
        assert [list(ff.shard(rank, 3, flow)) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]


# The laws

PIPELINES = {
    "sequence": lambda at: ff.pipe(
        range(13), ff.shuffle(), ff.map(noisy, rng=True), ff.cache_to(at), ff.map(noisy, rng=True)
    ),
    "stream": lambda at: ff.pipe(stream, ff.map(noisy, rng=True), ff.cache_to(at), ff.map(noisy, rng=True)),
    "expanded": lambda at: ff.pipe(
        range(9), ff.map(noisy, rng=True), ff.filter(lambda d: d[1][0] % 3), ff.cache_to(at), ff.shuffle_buffer(3)
    ),
    "twice": lambda at: ff.pipe(
        range(9), ff.cache_to(at), ff.shuffle(), ff.map(noisy, rng=True), ff.cache_to(at), ff.batch(2)
    ),
    "fetched": lambda at: ff.pipe(range(9), ff.map(noisy, rng=True), ff.prefetch(2, threads=2), ff.cache_to(at)),
    "both": lambda at: ff.zip(ff.cache_to(at, range(5)), ff.repeat(2, ff.cache_to(at, range(3))), strict=False),
}


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES)
def test_the_laws_hold_while_the_folder_fills_and_when_it_is_full(make, tmp_path):
    anew = map(str, itertools.count())
    check(lambda: make(tmp_path / next(anew)), epochs=(0,), stops=4)
    check(lambda: make(tmp_path / "one"), stops=4)
    check(lambda: make(tmp_path / "one"), epochs=(0,), stops=2)


@pytest.mark.parametrize("name", ["sequence", "expanded"])
def test_the_laws_hold_with_processes(name, tmp_path):
    check(lambda: PIPELINES[name](tmp_path), epochs=(0,), stops=2, workers=({"processes": 2},))


def test_a_pass_finds_all_that_was_kept_before_it_began(calls, folder, monkeypatch):
    monkeypatch.setattr(shelves, "WORK_PER_LOOK", 1e9)
    flow = squares(range(20), calls, folder)
    assert flow[3] == 9
    assert list(squares(range(20), calls, folder, ff.prefetch(2, processes=1))) == [x * x for x in range(20)]
    assert list(flow) == [x * x for x in range(20)]
    assert sorted(calls()) == list(range(20))
    ff.shut_down()


def test_workers_write_and_read_the_folder_themselves(calls, folder):
    flow = squares(range(200), calls, folder, ff.prefetch(2, processes=2))
    expected = [x * x for x in range(200)]
    assert list(flow) == list(flow) == expected
    assert list(squares(range(200), calls, folder)) == expected
    assert set(calls()) == set(range(200))
    before = len(calls())
    with iter(squares(range(200), calls, folder, ff.shuffle(), ff.prefetch(2, processes=2))) as iterator:
        assert sorted(iterator) == expected
    assert len(calls()) == before
    ff.shut_down()


# Many at once

PROGRAM = """
import os, sys, time
import flowfn as ff

log, folder, size, epoch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def made(x):
    time.sleep(float(os.environ["PAUSE"]))
    with open(log, "a") as file:
        file.write(f"{x}\\n")
    return [x, str(x) * (x % 50), bytes(x % 300)]

flow = ff.pipe(range(size), ff.map(made), ff.cache_to(folder))
shuffled = ff.pipe(flow, ff.shuffle()).run(epoch=epoch)
for x, text, rest in shuffled if epoch else flow:
    assert (text, rest) == (str(x) * (x % 50), bytes(x % 300)), x
    print(x, flush=True)
"""


def program(calls, folder, size, pause=0.0, epoch=0, hash_seed="random"):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, calls.log, str(folder), str(size), str(epoch)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PAUSE": str(pause)},
    )


def finished(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [int(line) for line in out.split()]


def test_another_program_on_another_day_makes_nothing_again(calls, folder):
    for hash_seed in ("1", "2"):
        assert finished(program(calls, folder, 50, hash_seed=hash_seed)) == list(range(50))
    assert calls() == list(range(50))


def test_four_programs_at_once_share_a_folder(calls, folder):
    running = [program(calls, folder, 400, 0.001, epoch) for epoch in range(1, 5)]
    orders = [finished(process) for process in running]
    assert all(sorted(order) == list(range(400)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert set(calls()) == set(range(400))
    before = len(calls())
    assert before < 4 * 400
    assert sorted(finished(program(calls, folder, 400))) == list(range(400))
    assert len(calls()) == before


def test_what_another_program_has_made_in_the_meantime_is_not_made_again(calls, folder, monkeypatch):
    monkeypatch.setattr(storing, "MADE_AT_FIRST", 1)
    flow = squares(range(6), calls, folder)
    with iter(flow) as iterator:
        assert next(iterator) == 0
        text = (
            f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_storing as t; from "
            "functools import partial\n"
        )
        text += (
            f"f = partial(t.square, {calls.log!r}); print(list(t.ff.cache_to({str(folder)!r}, t.ff.map(f, range(6)))))"
        )
        ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
        assert json.loads(ran.stdout) == SQUARES
        assert list(iterator) == SQUARES[1:]
    assert len(calls()) < 6 + 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that kills")
def test_a_killed_writer_loses_at_most_its_last_moment(calls, folder):
    killed = program(calls, folder, 300, 0.004)
    for _ in range(150):
        last = int(killed.stdout.readline())
    killed.kill()
    killed.communicate(timeout=60)
    assert (killed.returncode, last) == (-signal.SIGKILL, 149)
    before = calls()
    assert finished(program(calls, folder, 300)) == list(range(300))
    again = set(calls()[len(before) :]) & set(before)
    assert len(again) < 100
    assert len(calls()) == 300 + len(again)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_files_of_its_own(calls, folder):
    text = (
        PROGRAM[: PROGRAM.index("shuffled")]
        + """
iterator = iter(flow)
for _ in range(20):
    next(iterator)
child = os.fork()
assert [x for x, _, _ in iterator] == list(range(20, size))
iterator.close()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", text, calls.log, str(folder), "60", "0"],
            check=True,
            timeout=60,
            env={**os.environ, "PAUSE": "0"},
        )
    assert finished(program(calls, folder, 60)) == list(range(60))
    assert len(calls()) == 20 + 2 * 40
    assert len(files(folder, "data")) == 2


# Damage

KEPT = [[number, "text" * number, np.arange(number)] for number in range(4)]


def files(folder, ending):
    return sorted(folder.glob(f"*/*.{ending}"))


def forget():
    """Let nothing be remembered of the files."""
    shelves._shelves.clear()


def reread(folder):
    forget()
    return list(ff.cache_to(folder, KEPT))


@pytest.mark.parametrize("ending", ["data", "index"])
def test_no_flipped_bit_gives_a_wrong_datapoint(ending, folder):
    assert same(reread(folder), KEPT)
    (file,) = files(folder, ending)
    sound = file.read_bytes()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << at % 8
        file.write_bytes(damaged)
        assert same(reread(folder), KEPT)
        for other in set(files(folder, "*")) - {file, *file.parent.glob(f"{file.stem}.*")}:
            other.unlink()


@pytest.mark.parametrize("ending", ["data", "index"])
def test_no_torn_file_gives_a_wrong_datapoint(ending, folder):
    assert same(reread(folder), KEPT)
    (file,) = files(folder, ending)
    sound = file.read_bytes()
    for length in range(len(sound)):
        file.write_bytes(sound[:length])
        assert same(reread(folder), KEPT)
        for other in set(files(folder, "*")) - {*file.parent.glob(f"{file.stem}.*")}:
            other.unlink()


def test_damage_is_mended_once(calls, folder):
    list(squares(range(6), calls, folder))
    (file,) = files(folder, "data")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    for _ in range(4):
        forget()
        assert list(squares(range(6), calls, folder)) == SQUARES
    assert calls() == [*range(6), 5]


def test_a_damaged_stream_is_read_again_from_there(calls, folder):
    for _ in range(3):
        forget()
        assert list(squares(stream, calls, folder)) == SQUARES
    (file,) = files(folder, "data")
    file.write_bytes(file.read_bytes()[:120])
    for _ in range(3):
        forget()
        assert list(squares(stream, calls, folder)) == SQUARES
    assert len(calls()) < 12


def test_files_of_another_key_are_not_read(folder):
    mine, other = [[1, 2, 3], [7, 8, 9]]
    assert list(ff.cache_to(folder, mine)) == mine
    shelf = ff.cache_to(folder, other).node.part.arguments["shelf"]
    shutil.copytree(next(folder.glob("*/")), shelf.folder)
    assert list(ff.cache_to(folder, other)) == other


def test_a_folder_may_be_deleted_at_any_time(calls, folder):
    flow = squares(range(6), calls, folder)
    with iter(flow) as iterator:
        assert list(islice(iterator, 3)) == SQUARES[:3]
        shutil.rmtree(folder)
        assert list(iterator) == SQUARES[3:]
    for _ in range(2):
        assert list(flow) == list(flow) == SQUARES
        shutil.rmtree(folder)
    assert not folder.exists()


class Executed:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_what_is_marked_as_plain_data_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(Executed())
    with pytest.raises(KeyError, match="mkdir"):
        datapoint_of(DATAPOINT_HEAD.pack(True, len(pickled), 0) + pickled)
    assert not os.path.exists("executed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits")
def test_a_full_disk_is_told_and_what_is_there_is_read(calls, folder):
    text = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True  # or half a module might stay
got = []
for limit in (20000, 20000, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        got.append([])
        for x, _, _ in flow:
            got[-1].append(x)
    except OSError as error:
        print(str(error).replace(folder, "folder"))
assert all(numbers == [*range(len(numbers))] for numbers in got), got
print(len(got[0]) <= len(got[1]) < len(got[2]) == size)  # a slow pass has written more when the disk is full
"""
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            PROGRAM[: PROGRAM.index("shuffled")] + text,
            calls.log,
            str(folder),
            "1000",
            "0",
        ],
        env={**os.environ, "PAUSE": "0"},
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
    )
    told = "[Errno 27] cache_to() cannot keep more datapoints: File too large: 'folder'"
    assert ran.stdout.splitlines() == [told, told, "True"]


# Folders


@pytest.mark.parametrize("name", ["notes.txt", "folder/", ".hidden"])
def test_a_folder_with_other_things_in_it_is_refused_and_not_touched(name, tmp_path):
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_text("mine")
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        ff.cache_to(tmp_path, [1])
    assert str(raised.value) == (
        f"cache_to(): path must be a new folder, an empty one or one that cache_to has made, got {str(tmp_path)!r}, "
        f"which holds other things ({name.strip('/')})"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"got '.*file', which is no folder$"):
        ff.cache_to(path, [1])
    assert path.read_text() == "mine"


def test_what_comes_into_the_folder_between_the_call_and_the_first_datapoint_is_not_touched(folder):
    flow = ff.cache_to(folder, [1])
    assert not folder.exists()
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="which holds other things"):
        list(flow)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_an_empty_folder_and_one_that_was_made_before_will_do(tmp_path):
    for _ in range(2):
        assert list(ff.cache_to(tmp_path, [1])) == [1]
    (tmp_path / "another.txt").write_text("put there later")
    assert list(ff.cache_to(tmp_path, [2])) == [2]


def test_a_path_is_that_of_the_moment_of_the_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow = ff.cache_to("here", [1])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert list(flow) == [1]
    assert (tmp_path / "here" / MARKER).exists()


def test_what_a_key_stands_for_can_be_read_by_people(folder):
    flow = ff.cache_to(folder, ff.map(str, range(3)), version="first", seed=2)
    list(flow)
    told = json.loads(next(folder.glob("*/key.json")).read_text())
    assert told["pipeline"] == f"{fingerprint(ff.map(str, range(3)))}, seed 2, version 'first'"
    assert told["key"] == flow.node.part.arguments["shelf"].key.hex()


def test_the_fingerprint_does_not_hang_on_the_folder_or_the_version(tmp_path):
    make = lambda path, **options: ff.cache_to(tmp_path / path, range(5), **options)
    assert fingerprint(make("a")) == fingerprint(make("b", version="1")) != fingerprint(make("a", seed=1))
    iterator = iter(make("a"))
    list(islice(iterator, 2))
    assert list(make("b").load_state_dict(iterator.state_dict())) == [2, 3, 4]


def test_how_it_looks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow = ff.pipe(range(3), ff.cache_to("kept", seed=2))
    assert repr(flow) == "pipe(flow(range(0, 3)), cache_to('kept', seed=2))"
    assert repr(ff.cache_to("kept", version="1")) == "cache_to('kept', version='1')"
    ff.explain(flow)
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith("cache_to('/")
    assert row.split()[-6:] == ["each", "3", "this", "process", "at", "once"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.cache_to([1, 2]), TypeError, "cache_to(): path must be the path of a folder, got [1, 2]"),
        (lambda: ff.cache_to(""), ValueError, "cache_to(): path must be the path of a folder, got ''"),
        (lambda: ff.cache_to("a", seed=1.5), TypeError, "cache_to(): seed must be an integer, got 1.5"),
        (lambda: ff.cache_to("a", version=1), TypeError, "cache_to(): version must be a string, got 1"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


# What comes out


@dataclass
class Unpickled:
    value: int

    def __reduce__(self):
        return Unpickled.refuse, (self.value,)

    @staticmethod
    def refuse(value):
        raise ValueError("not again")


DATAPOINTS = [
    *(
        None,
        True,
        0,
        -(2**70),
        1.5,
        float("inf"),
        1j,
        "",
        "\ud800é",
        b"bytes",
        bytearray(b"array"),
        (),
        [],
        {},
        {1, 2},
        frozenset("ab"),
        range(5),
    ),
    *(slice(1, None), ..., [1, (2, {"a": [3.0]})], {"a": {"b": (1,)}, 2: None}, [None], Pair(1, [2])),
    *(
        np.float32(1.5),
        np.int64(-1),
        np.bool_(True),
        np.str_("é"),
        np.bytes_(b"a"),
        np.datetime64("2020-01-01"),
        np.complex64(1j),
        np.longdouble(1),
    ),
    *(
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.ones((40, 30))),
        np.ones((40, 30))[::2, ::3],
        np.zeros((0, 3)),
        np.array(1.5),
        np.array("text"),
    ),
    *(
        np.array(["a", "bcd"]),
        np.array([b"a"]),
        np.arange(3, dtype=">i2"),
        np.array(["2020", "NaT"], "M8[ns]"),
        np.array([1, 2], "m8[h]"),
    ),
    *(
        np.zeros(3, "i4,(2,)f8"),
        np.zeros(2, np.dtype("u1,f8", align=True)),
        np.zeros(1, "i4,f4")[0],
        np.array([[None, "a"], [1, {2}]]),
        np.ones(3, np.float16),
    ),
    *([np.ones(5000), {"x": np.arange(5000)}], Pair(np.ones(3), "label"), Record(np.ones((30, 50)))),
]


def arrays(datapoint):
    """All arrays in a datapoint."""
    if isinstance(datapoint, np.ndarray):
        yield datapoint
    elif isinstance(datapoint, (list, tuple)):
        for item in datapoint:
            yield from arrays(item)
    elif isinstance(datapoint, dict):
        yield from arrays(list(datapoint.values()))
    elif isinstance(datapoint, Record):
        yield datapoint.image


@pytest.mark.parametrize("datapoint", DATAPOINTS, ids=lambda datapoint: type(datapoint).__name__)
def test_a_datapoint_comes_out_as_it_went_in(datapoint, folder):
    for _ in range(2):
        for got in list(ff.cache_to(folder, [datapoint], version="1")) * 2:
            assert same(got, datapoint)
            for array, before in zip(arrays(got), arrays(datapoint)):
                assert array.flags.aligned
                assert array.flags.fnc == before.flags.fnc
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0
        forget()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
)


@settings(max_examples=50)
@given(PLAIN)
def test_plain_data_comes_out_as_it_went_in(datapoint):
    assert same(datapoint_of(datapoint_bytes(datapoint)), datapoint)


def test_a_row_of_a_memory_map_comes_out_as_an_array(tmp_path):
    mapped = np.memmap(tmp_path / "mapped", np.uint8, "w+", shape=(3, 5000))
    (row,) = ff.cache_to(tmp_path / "kept", ff.take(1, mapped))
    assert type(row) is np.ndarray
    assert row.tolist() == [0] * 5000


def test_containers_that_come_out_may_be_changed(folder):
    flow = ff.cache_to(folder, [[1, {"a": [2]}]])
    for _ in range(2):
        got = flow[0]
        got[0], got[1]["a"][0] = 9, 9
        got.append(9)
    assert flow[0] == [1, {"a": [2]}]


def test_what_comes_out_while_it_is_kept_is_not_what_went_in(folder):
    array, rows = np.zeros(3), [[1]]
    for got in (
        next(iter(ff.cache_to(folder, ff.map(lambda row: row, rows)))),
        next(iter(ff.cache_to(folder, [[array]]))),
    ):
        got.append(2)
    assert rows == [[1]]
    array[0] = 1
    assert got[0][0] == 0


@pytest.mark.parametrize(
    ("datapoint", "why"), [(lambda: 1, "pickle"), (Unpickled(1), "not again"), ((x for x in [1]), "generator")]
)
def test_a_datapoint_that_cannot_be_kept_is_named(datapoint, why, folder):
    flow = ff.cache_to(folder, [1, [datapoint]], version="1")
    with pytest.raises(
        TypeError, match=rf"^cache_to\(\): datapoints must be what pickle can keep, and \[.*\] is not: .*{why}.*"
    ):
        list(flow)
    assert flow[0] == 1


def test_what_can_no_longer_be_unpickled_is_made_again(folder, monkeypatch):
    flow = ff.cache_to(folder, ff.map(lambda x: Record(np.ones(x)), range(3)), version="1")
    list(flow)
    monkeypatch.setattr(Record, "__setstate__", lambda self, state: self.nothing, raising=False)
    with pytest.raises(TypeError, match="has no attribute 'nothing'"):
        list(flow)
    monkeypatch.undo()
    assert same(list(flow), [Record(np.ones(x)) for x in range(3)])


def test_classes_of_the_program_itself_pass_through_workers(tmp_path):
    text = """
import os, sys, dataclasses, collections
import flowfn as ff

Pair = collections.namedtuple("Pair", "x y")

@dataclasses.dataclass
class Record:
    pair: Pair

def made(x):
    open(os.path.join(sys.argv[1], str(x)), "a").write("made")
    return Record(Pair(x, [x]))

flow = ff.pipe(range(40), ff.map(made), ff.cache_to(sys.argv[2]))
for stage in (ff.prefetch(2, processes=2), None, ff.prefetch(2, processes=2)):
    got = list(ff.pipe(flow, stage))
    assert got == [Record(Pair(x, [x])) for x in range(40)]
    assert {type(one) for one in got} == {Record}
"""
    (tmp_path / "made").mkdir()
    (tmp_path / "program.py").write_text(text.replace("sys.argv[1]", repr(str(tmp_path / "made"))))
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-W", "error", tmp_path / "program.py", "", tmp_path / "kept"], check=True, timeout=60
        )
    assert sum(len(path.read_text()) // 4 for path in (tmp_path / "made").iterdir()) < 40 + 20


# Cleanliness


def test_nothing_is_open_between_passes(folder):
    gc.collect()
    before = left_behind()
    flow = ff.cache_to(folder, range(100))
    iterators = [iter(flow) for _ in range(5)]
    for _ in range(30):
        assert len(set(map(next, iterators))) == 1
    assert left_behind()["descriptors"] > before["descriptors"]
    del iterators
    gc.collect()
    assert all(count <= before[kind] for kind, count in left_behind().items())
    assert flow[70] == flow[3] + 67
    assert list(flow) == list(range(100))
    assert all(count <= before[kind] for kind, count in left_behind().items())


def test_many_files_are_not_all_open_at_once(folder):
    for number in range(100):
        forget()
        assert ff.cache_to(folder, range(100))[number] == number
    before = left_behind()["descriptors"]
    with iter(ff.cache_to(folder, range(100))) as iterator:
        for _ in iterator:
            assert left_behind()["descriptors"] < before + 80
    assert len(files(folder, "data")) == 100


def test_it_pickles_without_what_is_open(folder):
    flow = ff.cache_to(folder, ff.map(str, range(3)))
    with iter(flow) as iterator:
        next(iterator)
        assert len(pickle.dumps(flow)) < 3000
        other = pickle.loads(pickle.dumps(flow))
        assert other.node.part.arguments["shelf"] is flow.node.part.arguments["shelf"]
    assert list(other) == ["0", "1", "2"]


def test_a_state_goes_on_in_another_process_with_or_without_the_folder(tmp_path):
    def make(path):
        kept = ff.pipe(lambda: iter(range(9)), ff.filter(lambda x: x % 3), ff.cache_to(tmp_path / path))
        return ff.pipe(kept, ff.map(lambda x, rng: (x, rng.random()), rng=True))

    whole = list(make("whole").run(epoch=0))
    for k in range(len(whole)):
        iterator = iter(make(f"{k}"))
        list(islice(iterator, k))
        for path in (f"{k}", f"{k} anew", "whole"):
            assert list(make(path).load_state_dict(iterator.state_dict())) == whole[k:]


# The table


@settings(max_examples=60)
@given(st.data())
def test_a_table_finds_the_newest_place_of_every_number(data):
    table, model = SpotTable(), {}
    for _ in range(data.draw(st.integers(0, 6))):
        many = data.draw(st.booleans())
        numbers = data.draw(st.lists(st.integers(-1, 50), max_size=60))
        if many:
            records = np.array([(number, number * 10, 5) for number in numbers], RECORD)
            table.add_all([(7, records[::2]), (8, records[1::2])])
            numbers = numbers[::2] + numbers[1::2]
        for nth, number in enumerate(numbers):
            place = (7 + (nth >= (len(numbers) + 1) // 2), number * 10, 5) if many else (1, number, len(model))
            if not many:
                table.add(number, place)
            model.setdefault(number, []).append(place)
    wanted = data.draw(st.lists(st.integers(-1, 60), max_size=30))
    found = table.find(np.array(wanted, np.int64))
    assert [place if place is None else tuple(place) for place in found] == [
        model.get(number, [None])[-1] for number in wanted
    ]
