"""Sources that are no data set in memory: files, made-up arrays, queues."""

import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import flowfn as ff
from flowfn.testing import check, same
from flowfn.vocabulary.making import fake, files
from flowfn.vocabulary.receiving import ShutDown, from_queue

WORKERS = ({}, {"threads": 2}, {"processes": 2})


# Files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in (
        "img10.jpg",
        "img2.jpg",
        "img1.jpg",
        "notes.txt",
        "b/img3.jpg",
        "a10/x.jpg",
        "a9/x.jpg",
        "a9/deep/y.jpg",
        ".hidden.jpg",
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def inside(flow):
    return [path.removeprefix("data" + os.sep).replace(os.sep, "/") for path in flow]


def test_files_are_strings_in_natural_order(folder):
    flow = files("data/*.jpg")
    assert inside(flow) == ["img1.jpg", "img2.jpg", "img10.jpg"]
    assert flow.seekable
    assert (len(flow), flow[-1], type(flow[0])) == (3, os.path.join("data", "img10.jpg"), str)


def test_two_stars_stand_for_any_number_of_folders_and_folders_are_compared_one_by_one(folder):
    assert inside(files("data/**/*.jpg")) == [
        "a9/deep/y.jpg",
        "a9/x.jpg",
        "a10/x.jpg",
        "b/img3.jpg",
        "img1.jpg",
        "img2.jpg",
        "img10.jpg",
    ]


def test_only_files_count(folder):
    assert inside(files("data/*")) == ["img1.jpg", "img2.jpg", "img10.jpg", "notes.txt"]


def test_hidden_files_match_only_what_says_so(folder):
    assert inside(files("data/.*")) == [".hidden.jpg"]


def test_patterns_may_be_paths_or_several_and_each_path_comes_once(folder):
    several = [Path("data/notes.txt"), "data/img1*", Path("data") / "*.jpg"]
    assert inside(files(several)) == ["img1.jpg", "img2.jpg", "img10.jpg", "notes.txt"]
    assert inside(files(tuple(several))) == inside(files(several))


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    assert [os.path.basename(path) for path in files("~/n*.txt")] == ["notes.txt"]


def test_numbers_that_are_equal_are_told_apart_by_their_characters(folder):
    for name in ("v1.txt", "v01.txt", "v001.txt", "v2.txt", "w.txt"):
        (folder / name).write_text("")
    assert inside(files("data/[vw]*.txt")) == ["v001.txt", "v01.txt", "v1.txt", "v2.txt", "w.txt"]


def test_the_name_of_a_file_is_found_though_it_has_brackets(folder):
    (folder / "odd[1].txt").write_text("")
    assert inside(files("data/odd[1].txt")) == ["odd[1].txt"]


def test_files_are_listed_once_when_called(folder):
    flow = files("data/*.txt")
    (folder / "later.txt").write_text("")
    assert len(flow) == 1


def test_what_files_look_like(folder):
    assert repr(files("data/*.jpg")) == "files('data/*.jpg')"
    assert repr(files(Path("data/notes.txt"))) == f"files({os.path.join('data', 'notes.txt')!r})"
    assert repr(files(["data/*.jpg", "data/*.txt"])) == "files(['data/*.jpg', 'data/*.txt'])"


def test_files_keep_the_laws(folder):
    check(lambda: ff.pipe(files("data/**/*.jpg"), ff.shuffle(), ff.map(os.path.basename)), workers=WORKERS, stops=4)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("data/*.png", "files(): no file matches 'data/*.png'; the folder 'data' exists"),
        ("data/imgs/*.png", ("files(): no file matches 'data/imgs/*.png'; the folder 'data' exists, 'data/imgs' does "
"not")),
        ("data/c*/x/*.png", "files(): no file matches 'data/c*/x/*.png'; the folder 'data' exists"),
        ("data/b", "files(): no file matches 'data/b'; it is a folder: write 'data/b/*' for the files in it, "
         "'data/b/**' for those in its folders too"),
        (["data/*.jpg", "data/*.png"], "files(): no file matches 'data/*.png'; the folder 'data' exists"),
    ],
)  # fmt: skip
def test_a_pattern_that_matches_nothing_is_named_with_the_folder_that_exists(folder, pattern, message):
    with pytest.raises(FileNotFoundError) as told:
        files(pattern)
    assert str(told.value) == message.replace("/", os.sep) if os.sep != "/" else str(told.value) == message


def test_the_folder_of_a_relative_pattern_is_the_current_one(folder):
    with pytest.raises(FileNotFoundError) as told:
        files("*.png")
    assert str(told.value) == f"files(): no file matches '*.png'; the folder {os.getcwd()!r} exists"


@pytest.mark.parametrize("pattern", [3, None, [], [3], b"data", ["a", b"b"], {"a": 1}])
def test_a_pattern_is_a_path_or_a_list_of_them(pattern):
    with pytest.raises(TypeError, match=r"^files\(\): pattern must be a path, a glob pattern, or a list of them, got "):
        files(pattern)
    with pytest.raises(ValueError, match=r"^files\(\): pattern must be"):
        files("")


# Made-up arrays


FAKES = {
    "bare": lambda: fake((2, 3), 13),
    "list": lambda: fake([(2,), ()], 13, dtype=["float64", "int16"], domain=[(-1, 1), (0, 9)]),
    "dict": lambda: fake({"x": (2,), "mask": (4,)}, 13, dtype={"mask": bool, "x": "float32"}),
    "the same": lambda: fake([(2,), (3,)], 13, random=False),
    "endless": lambda: fake((2,), None),
    "empty": lambda: fake((2,), 0),
    "shuffled": lambda: ff.pipe(
        fake((3,), 13), ff.shuffle(), ff.map(lambda x, rng: x + rng.random(), rng=True), ff.batch(5)
    ),
    "repeated": lambda: ff.pipe(fake((3,), 5), ff.repeat(3), ff.filter(lambda x: x[0] > 0.3)),
    "sharded": lambda: ff.pipe(fake((3,), 13), ff.shard(1, 3), ff.skip(1)),
    "joined": lambda: ff.zip(fake((3,), 5), fake((3,), 5)),
}


@pytest.mark.parametrize("name", FAKES)
def test_made_up_arrays_keep_the_laws(name):
    check(FAKES[name], workers=WORKERS if name in ("list", "the same", "repeated") else WORKERS[:2], stops=4)


def test_datapoints_have_the_form_of_the_shapes():
    assert fake((2, 3))[0].shape == (2, 3)
    assert [array.shape for array in fake([(2, 3), ()])[0]] == [(2, 3), ()]
    assert {key: array.shape for key, array in fake({"a": (1,), "b": (0, 2)})[0].items()} == {"a": (1,), "b": (0, 2)}
    assert type(fake([(1,)])[0]) is list
    assert all(isinstance(array, np.ndarray) for array in fake([(), ()], dtype=["int8", "float64"])[0])
    assert len(fake((1,))) == 1000


@pytest.mark.parametrize(
    ("dtype", "domain", "low", "high"),
    [
        ("float32", (0, 1), 0, 1),
        ("float64", (-3, 5), -3, 5),
        ("float16", (0, 1), 0, 1),
        ("float16", (1000, 1004), 1000, 1004),
        ("float32", (2**24, 2**24 + 4), 2**24, 2**24 + 4),
        (">f4", (0, 2), 0, 2),
        ("uint8", (0, 256), 0, 256),
        ("int8", (-128, 128), -128, 128),
        ("int64", (-(2**63), 2**63), -(2**63), 2**63),
        ("uint64", (0, 2**64), 0, 2**64),
        (">i2", (3, 5.0), 3, 5),
        ("bool", (7, 9), 0, 2),
    ],
)
def test_numbers_are_uniform_below_the_upper_end(dtype, domain, low, high):
    array = fake((20_000,), 1, dtype=dtype, domain=domain)[0]
    assert array.dtype == np.dtype(dtype)
    assert low <= int(np.floor(array.min())) <= int(np.floor(array.max())) < high
    middle = np.mean((array.astype(np.longdouble) - low) / (high - low))
    coarse = array.dtype.kind in "iub" or np.spacing(array.max()) > 1
    assert middle == pytest.approx(0.5 - coarse / (high - low) / 2, abs=0.02)


def test_every_datapoint_has_its_own_numbers_and_every_epoch_others():
    flow = fake((4,), 10).reset_state(3)
    first, second = list(flow), list(flow)
    assert len({array.tobytes() for array in first + second}) == 20
    assert same(list(flow.reset_state(3)), first)
    assert same(flow.set_epoch(1)[7], second[7])
    assert not same(list(flow.reset_state(4)), first)


def test_two_made_up_sources_in_one_tree_differ():
    assert all(not same(a, b) for a, b in ff.zip(fake((4,), 5), fake((4,), 5)))


def test_arrays_are_new_and_writable():
    flow = fake((4,), 3)
    for array in flow:
        array[:] = 0
    assert all(array.any() for array in flow)


def test_without_randomness_the_same_read_only_arrays_come_again_and_again():
    flow = fake([(4,), (2,)], 3, random=False)
    once = list(flow)
    assert same(once[0], once[2])
    assert once[0][0] is once[2][0]
    assert once[0] is not once[2]
    assert same(list(flow), once)
    assert same(list(flow.reset_state(9)), once)
    with pytest.raises(ValueError, match="read-only"):
        once[0][0][0] = 1


def test_made_up_arrays_are_made_in_the_workers(capsys):
    ff.explain(ff.pipe(fake((8,), 10), ff.prefetch(2, processes=2)))
    assert (
        "fake((8,), 10)            source    10      2 processes of prefetch(2, processes=2)" in capsys.readouterr().out
    )


def test_what_made_up_arrays_look_like():
    assert repr(fake((2, 3))) == "fake((2, 3))"
    assert (
        repr(fake([(2,)], 7, random=False, dtype="int8", domain=(0, 9)))
        == "fake([(2,)], 7, random=False, dtype='int8', domain=(0, 9))"
    )
    assert repr(fake((), None)) == "fake((), None)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fake(3),
            TypeError,
            "shapes must be a shape (a tuple of integers >= 0), or a list or dict of shapes, got 3",
        ),
        (
            lambda: fake([3, 4]),
            ValueError,
            "shapes must be a shape (a tuple of integers >= 0), or a list or dict of shapes, got [3, 4]",
        ),
        (
            lambda: fake([]),
            ValueError,
            "shapes must be a shape (a tuple of integers >= 0), or a list or dict of shapes, got []",
        ),
        (
            lambda: fake((-1,)),
            ValueError,
            "shapes must be a shape (a tuple of integers >= 0), or a list or dict of shapes, got (-1,)",
        ),
        (lambda: fake((1,), -1), ValueError, "size must be an integer >= 0 or None, got -1"),
        (lambda: fake((1,), 1.5), TypeError, "size must be an integer >= 0 or None, got 1.5"),
        (lambda: fake((1,), random=1), TypeError, "random must be True or False, got 1"),
        (
            lambda: fake((1,), dtype="float31"),
            TypeError,
            "dtype must be a dtype of floats, integers or bools, got 'float31'",
        ),
        (lambda: fake((1,), dtype=None), TypeError, "dtype must be a dtype of floats, integers or bools, got None"),
        (lambda: fake((1,), dtype=str), TypeError, f"dtype must be a dtype of floats, integers or bools, got {str!r}"),
        (
            lambda: fake((1,), dtype=["int8"]),
            ValueError,
            "dtype must be a dtype of floats, integers or bools, got ['int8']",
        ),
        (
            lambda: fake([(1,), (2,)], dtype=["int8"]),
            ValueError,
            "dtype must be a dtype of floats, integers or bools, or one for each of the components [0, 1], got "
            "['int8']",
        ),
        (
            lambda: fake({"a": (1,)}, domain={"b": (0, 1)}),
            ValueError,
            "domain must be two numbers (low, high), or one for each of the components ['a'], got {'b': (0, 1)}",
        ),
        (lambda: fake([(1,)], domain=[3]), TypeError, "domain must be two numbers (low, high), got 3"),
        (
            lambda: fake((1,), domain=(1, 1)),
            ValueError,
            "domain must be two finite numbers low < high that float32 tells apart, got (1, 1)",
        ),
        (
            lambda: fake((1,), domain=(0, float("inf"))),
            ValueError,
            "domain must be two finite numbers low < high that float32 tells apart, got (0, inf)",
        ),
        (
            lambda: fake((1,), dtype="uint8", domain=(0, 257)),
            ValueError,
            "domain must be two integers low < high within 0 and 256 for uint8, got (0, 257)",
        ),
        (
            lambda: fake((1,), dtype="int8", domain=(0, 0.5)),
            ValueError,
            "domain must be two integers low < high within -128 and 128 for int8, got (0, 0.5)",
        ),
    ],
)
def test_what_cannot_be_made_up_is_an_error_at_once(call, error, message):
    with pytest.raises(error) as told:
        call()
    assert str(told.value) == f"fake(): {message}"


# Queues


def filled(*items, kind=queue.Queue):
    made = kind()
    for item in items:
        made.put(item)
    return made


def within(seconds, function):
    """What `function()` returns, or a failure if it takes longer."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"not done within {seconds} s"
    return results[0]


@pytest.mark.parametrize("kind", [queue.Queue, queue.SimpleQueue, queue.LifoQueue])
def test_a_pass_reads_until_the_sentinel_and_the_next_one_reads_on(kind):
    items = ["a", "b", None, "c", None, None]
    flow = from_queue(filled(*(items if kind is not queue.LifoQueue else items[::-1]), kind=kind))
    assert [list(flow), list(flow), list(flow)] == [["a", "b"], ["c"], []]


def test_a_multiprocessing_queue_ends_with_an_equal_sentinel():
    items = multiprocessing.Queue()
    for item in (np.arange(3), "end", ("end",), "end"):
        items.put(item)
    flow = from_queue(items, sentinel="end", timeout=20)
    assert same(list(flow), [np.arange(3)])
    assert list(flow) == [("end",)]
    items.close()
    items.join_thread()


@pytest.mark.parametrize(
    ("sentinel", "near"),
    [
        (None, [0, False, ""]),
        (0, [False, 0.0, None]),
        (np.array([1, 2]), [np.array([1, 2.0]), np.array([1, 3]), np.array([1]), [1, 2]]),
        (("end",), [(np.zeros(2),), ["end"], ("end", 1)]),
        (float("nan"), [float("nan"), 0.0]),
    ],
)
def test_only_the_sentinel_ends_a_pass(sentinel, near):
    flow = from_queue(filled(*near, sentinel, "more", sentinel), sentinel=sentinel)
    assert same(list(flow), near)
    assert list(flow) == ["more"]


def test_a_sentinel_is_equal_to_its_copy():
    assert list(from_queue(filled(1, np.arange(2)), sentinel=np.arange(2))) == [1]


def test_a_queue_that_was_shut_down_ends_the_pass():
    class Closing(Own):
        def get(self, **options):
            if not self.items:
                raise ShutDown
            return super().get(**options)

    assert list(from_queue(Closing(1, 2))) == [1, 2]


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (ff.prefetch(2),),
        (ff.map(str), ff.map(int), ff.prefetch(2, threads=2)),
        (ff.filter(lambda x: True), ff.shuffle_buffer(1), ff.prefetch(2, threads=2)),
        (ff.prefetch(2), ff.map(str), ff.map(int), ff.prefetch(2, processes=2)),
    ],
    ids=repr,
)
def test_workers_change_nothing(stages):
    flow = ff.pipe(from_queue(filled(*range(30), None, 7, None)), *stages)
    assert list(flow) == list(range(30))
    assert list(flow) == [7]


def test_two_passes_at_once_are_an_error():
    flow = from_queue(filled(1, 2, None, 3, None))
    first = iter(flow)
    assert next(first) == 1
    with pytest.raises(
        ValueError,
        match=r"^from_queue\(Queue\): another pass over this queue is under way, .* close it, or let it come",
    ):
        next(iter(flow))
    assert next(first) == 2
    first.close()
    assert list(flow) == []
    assert list(flow) == [3]


def test_a_queue_used_twice_in_a_tree_is_an_error():
    flow = from_queue(filled(1, 2, None))
    with pytest.raises(ValueError, match="another pass over this queue is under way"):
        list(ff.zip(flow, flow))


def test_no_datapoint_in_time_is_an_error_and_the_next_pass_goes_on():
    items = filled(1)
    flow = ff.pipe(from_queue(items, timeout=0.05), ff.map(str))
    iterator = iter(flow)
    assert next(iterator) == "1"
    with pytest.raises(TimeoutError) as told:
        next(iterator)
    assert str(told.value) == (
        "from_queue(): no datapoint came within 0.05 s; does the producer still run? "
        "A pass ends when None comes, and timeout=None waits for ever"
    )
    items.put(2)
    items.put(None)
    assert list(flow) == ["2"]


def test_the_time_is_that_of_one_datapoint():
    items = queue.Queue()

    def produce():
        for item in (1, 2, 3, None):
            time.sleep(0.15)
            items.put(item)

    producer = threading.Thread(target=produce)
    producer.start()
    assert list(from_queue(items, timeout=10)) == [1, 2, 3]
    producer.join()


def test_a_datapoint_is_there_as_soon_as_it_comes():
    items, times = queue.Queue(), []
    threading.Timer(0.3, lambda: (times.append(time.perf_counter()), items.put(1))).start()
    with iter(from_queue(items)) as iterator:
        assert next(iterator) == 1
    assert time.perf_counter() - times[0] < 0.05


def test_a_loaded_state_skips_what_was_delivered():
    def flow():
        return ff.pipe(from_queue(filled(*range(6), None)), ff.filter(lambda x: x != 1), ff.batch(2))

    with iter(flow()) as iterator:
        assert next(iterator).tolist() == [0, 2]
        state = iterator.state_dict()
    assert [batch.tolist() for batch in flow().load_state_dict(state)] == [[3, 4], [5]]


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (ff.prefetch(4),),
        (ff.prefetch(4), ff.map(str), ff.prefetch(4)),
        (ff.prefetch(4), ff.filter(bool), ff.prefetch(4), ff.map(str), ff.prefetch(4)),
        (ff.map(str), ff.shuffle_buffer(2), ff.prefetch(4, threads=2)),
        (ff.batch(2), ff.prefetch(4)),
    ],
    ids=repr,
)
def test_an_abandoned_pass_that_waits_ends_at_once(stages):
    threads = threading.active_count()
    items = filled(*range(1, 13))
    iterator = iter(ff.pipe(from_queue(items), *stages))
    next(iterator)
    deadline = time.monotonic() + 5
    while stages and not items.empty() and time.monotonic() < deadline:
        time.sleep(0.001)
        next(iterator)
    within(5, iterator.close)
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads


def test_a_cache_does_not_take_an_abandoned_pass_for_a_whole_one():
    items = filled(1, 2)
    flow = ff.pipe(from_queue(items), ff.cache(), ff.prefetch(2))
    iterator = iter(flow)
    assert [next(iterator), next(iterator)] == [1, 2]
    within(5, iterator.close)
    items.put(None)
    assert within(5, lambda: list(ff.pipe(flow.sources[0], ff.take(5)))) == [1, 2]


WAITING = """
import queue, sys, flowfn as ff
from flowfn.vocabulary.receiving import from_queue
items = queue.Queue()
items.put(1)
iterator = iter(ff.pipe(from_queue(items), {}))
next(iterator)
print("waiting", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("stage", ["None", "ff.prefetch(2)"])
def test_control_c_ends_the_waiting(stage):
    program = WAITING.format(stage) + "next(iterator)\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=20)
    assert "KeyboardInterrupt" in told
    assert child.returncode != 0


def test_a_program_ends_though_a_prefetch_waits():
    done = subprocess.run(
        [sys.executable, "-c", WAITING.format("ff.prefetch(2)")], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "waiting\n", "")


def test_a_queue_is_neither_indexed_nor_measured_and_stays_here(capsys):
    flow = from_queue(queue.SimpleQueue(), timeout=3)
    with pytest.raises(TypeError, match=r"from_queue\(SimpleQueue, timeout=3\) is read as it comes"):
        flow[0]
    with pytest.raises(TypeError, match="length"):
        len(flow)
    ff.explain(ff.pipe(flow, ff.map(str), ff.prefetch(2, processes=2)))
    assert "source    unknown  this process" in capsys.readouterr().out
    assert repr(from_queue(queue.Queue(), sentinel="end")) == "from_queue(Queue, sentinel='end')"


class Awaited:
    async def get(self, timeout=None):
        return None


class Impatient:
    def get(self):
        return None


class Own:
    """A queue of somebody's own."""

    def __init__(self, *items):
        self.items = list(items)

    def get(self, **options):
        if not self.items:
            raise queue.Empty
        return self.items.pop(0)


def test_anything_with_a_get_that_takes_a_timeout_will_do():
    assert list(from_queue(Own(1, 2, None))) == [1, 2]
    with pytest.raises(TimeoutError):
        list(from_queue(Own(1), timeout=0.001))


@pytest.mark.parametrize(
    "value", [[1], None, Awaited(), Impatient(), multiprocessing.get_context().SimpleQueue, queue.Queue]
)
def test_what_is_no_queue_is_an_error(value):
    with pytest.raises(
        TypeError, match=r"^from_queue\(\): queue must be a queue whose get\(\) takes a timeout, got .*; queue\.Queue, "
    ):
        from_queue(value)


@pytest.mark.parametrize(("timeout", "error"), [(0, ValueError), (-1, ValueError), ("5", TypeError), (True, TypeError)])
def test_a_timeout_is_a_positive_number(timeout, error):
    with pytest.raises(error, match=r"^from_queue\(\): timeout must be a positive number of seconds or None, got "):
        from_queue(queue.Queue(), timeout=timeout)


def test_an_endless_producer_is_read_as_far_as_wanted():
    class Endless:
        count = 0

        def get(self, timeout):
            self.count += 1
            return self.count

    source = Endless()
    assert list(islice(from_queue(source), 3)) == [1, 2, 3]
    assert source.count == 3
