"""Looking: what datapoints are like, how fast they come, how far a pass is. It never changes what comes out."""

import dataclasses
import gc
import io
import pickle
import re
import subprocess
import sys
import threading
import time
from collections import namedtuple
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from sources import streamed

import flowfn as ff
from flowfn.seeing import Speed, describe, print_datapoint, progress, speed
from flowfn.seeing.progressing import bars
from flowfn.testing import check, same
from flowfn.vocabulary.making import fake

Pair = namedtuple("Pair", "image label")


@dataclasses.dataclass
class Record:
    image: np.ndarray
    label: int


def lines(datapoint, capsys):
    print_datapoint(datapoint)
    return capsys.readouterr().out.splitlines()


# What datapoints are like


def test_describe_shows_every_component(capsys):
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    boxes = np.array([[0.5, np.nan], [-1, 2]], np.float32)
    describe([[image, "img/7.jpg", {"boxes": boxes, "count": 2}], [image, "", {"boxes": boxes[:0], "count": 0}], None])
    assert capsys.readouterr().out == (
        "datapoint 0 of 3: list, length 3\n"
        "  0          uint8 array    (2, 4, 3)  0 to 23\n"
        "  1          str            length 9   'img/7.jpg'\n"
        "  2          dict           length 2\n"
        "    'boxes'  float32 array  (2, 2)     -1 to 2, 1 NaN\n"
        "    'count'  int                       2\n"
        "datapoint 1 of 3: list, length 3\n"
        "  0          uint8 array    (2, 4, 3)  0 to 23\n"
        "  1          str            length 0   ''\n"
        "  2          dict           length 2\n"
        "    'boxes'  float32 array  (0, 2)     empty\n"
        "    'count'  int                       0\n"
    )


class Unprintable:
    def __repr__(self):
        raise ValueError


class Remote:
    """An array on a device that numpy cannot look into."""

    dtype, shape = "torch.float16", (2, 3)

    def __array__(self, *_, **__):
        raise TypeError("it is on a device")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7, "int, 7"),
        (2.5, "float, 2.5"),
        (True, "bool, True"),
        (None, "None"),
        ("a\nb", "str, length 3, 'a\\nb'"),
        (b"\x00", "bytes, length 1, b'\\x00'"),
        ({1, 2}, "set, length 2, {1, 2}"),
        ([], "list, length 0"),
        (np.float32(0.1), "float32, 0.1"),
        (np.array(5), "int64 array, (), 5"),
        (np.full(3, 7), "int64 array, (3,), all 7"),
        (np.array([1, 2**40]), "int64 array, (2,), 1 to 1099511627776"),
        (np.array([0.123456789, 1e-20]), "float64 array, (2,), 1e-20 to 0.12346"),
        (np.array([np.inf, -np.inf]), "float64 array, (2,), -inf to inf"),
        (np.full(2, np.nan), "float64 array, (2,), all NaN"),
        (np.array([True, False, True]), "bool array, (3,), 2 of 3 true"),
        (np.array([1j, np.nan]), "complex128 array, (2,), 1 NaN"),
        (
            np.array(["2020-01-01", "NaT", "2021-01-01"], "M8[D]"),
            "datetime64[D] array, (3,), 2020-01-01 to 2021-01-01, 1 NaT",
        ),
        (np.array(["a", "bc"]), "<U2 array, (2,), ['a', 'bc']"),
        (np.array([None, "x"]), "object array, (2,), [None, 'x']"),
        (np.zeros(2, [("a", "f4"), ("b", "U3")]), "structured array, (2,)"),
        (Remote(), "float16 Remote, (2, 3)"),
        (range(3), "range, range(0, 3)"),
    ],
)
def test_a_value_of_any_type_is_shown_in_one_line(value, shown, capsys):
    assert lines(value, capsys) == [f"datapoint: {shown}"]


def test_what_cannot_be_printed_is_shown_all_the_same(capsys):
    assert lines(Unprintable(), capsys)[0].startswith("datapoint: Unprintable, <Unprintable")
    assert lines([10**5000, "x" * 10**6, b"x" * 10**6], capsys)[1] == "  0  int                    <int>"
    assert all(len(line) < 120 for line in lines([10**5000, "x" * 10**6, b"x" * 10**6, [[[["x" * 999]]]]], capsys))


def test_tuples_and_dataclasses_are_shown_by_their_names(capsys):
    assert lines(Pair(np.zeros(3), Record(np.ones(2), 4)), capsys) == [
        "datapoint: Pair, length 2",
        "  image    float64 array  (3,)      all 0",
        "  label    Record         2 fields",
        "    image  float64 array  (2,)      all 1",
        "    label  int                      4",
    ]


def test_nested_rows_of_numbers_are_shown_in_one_line(capsys):
    assert lines([[1, 2], list(range(100)), [0.5] * 9], capsys) == [
        "datapoint: list, length 3",
        "  0  list  length 2    [1, 2]",
        "  1  list  length 100  0 to 99",
        "  2  list  length 9    all 0.5",
    ]


def test_what_is_long_or_deep_or_endless_is_cut_short(capsys):
    assert lines(["x"] * 100, capsys)[-1] == "  ... and 80 more"
    assert lines([{str(i): i for i in range(9)}], capsys)[-1] == "    ... and 3 more"
    deep = lines([[[[[[[np.zeros(2)]]]]]]], capsys)
    assert deep[-1].split("  ")[-1] == "[[[float64 array (2,)]]]"
    endless = [1]
    endless.append(endless)
    assert len(lines(endless, capsys)) == 9


def test_describe_never_advances_anything(capsys):
    flow = ff.pipe(range(100), ff.shuffle(), ff.map(str)).reset_state(3)
    before = flow.state_dict()
    describe(flow, 5)
    assert (flow.state_dict(), flow.epoch) == (before, 0)
    assert list(flow) == list(ff.pipe(range(100), ff.shuffle(), ff.map(str)).reset_state(3))


def test_describe_shows_the_epoch_that_comes_next(capsys):
    flow = ff.pipe(range(100), ff.shuffle())
    list(flow)
    describe(flow, 1)
    assert capsys.readouterr().out == f"datapoint 0 of 100: int, {next(iter(flow))}\n"


def test_describe_says_when_there_are_fewer(capsys):
    describe([])
    describe([7])
    describe(streamed(range(2)), 3)
    assert capsys.readouterr().out.splitlines() == [
        "the flow is empty: there is no datapoint",
        "datapoint 0 of 1: int, 7",
        "that is all: there is one datapoint",
        "datapoint 0: int, 0",
        "datapoint 1: int, 1",
        "that is all: there are 2 datapoints",
    ]


def test_describe_takes_endless_flows_any_iterable_and_a_file(capsys):
    screen = io.StringIO()
    assert describe(ff.cycle([1]), file=screen) is None
    describe((x for x in "ab"), 1, file=screen)
    describe(np.arange(3), 1, file=screen)
    assert screen.getvalue().splitlines() == [
        "datapoint 0: int, 1",
        "datapoint 1: int, 1",
        "datapoint 0: str, length 1, 'a'",
    ] + ["datapoint 0 of 3: int64, 0"]
    assert capsys.readouterr() == ("", "")


def test_describe_needs_no_workers_and_shows_no_bar(capsys):
    here = threading.get_ident()
    seen = []
    flow = ff.pipe(
        range(9), ff.map(lambda x: seen.append(threading.get_ident())), progress(), ff.prefetch(2, threads=2)
    )
    describe(flow)
    assert seen == [here, here]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_describe_wants_a_positive_number(n, error):
    with pytest.raises(error, match=rf"^describe\(\): n must be a positive integer, got {n}$"):
        describe([1], n)


def test_describe_wants_a_source():
    with pytest.raises(TypeError, match=r"^describe\(\): a source cannot be a mapping"):
        describe({"a": 1})
    with pytest.raises(TypeError, match=r"^describe\(\): source is the stage batch\(2\)"):
        describe(ff.batch(2))


def test_an_error_in_the_flow_is_raised_with_its_note(capsys):
    with pytest.raises(ZeroDivisionError) as told:
        describe(ff.pipe([1, 0], ff.map(lambda x: 1 / x)))
    assert told.value.__notes__[0].startswith("in map(<lambda>), its datapoint 1")
    assert capsys.readouterr().out == "datapoint 0 of 2: float, 1.0\n"


def test_print_datapoint_pickles_and_shows_at_once(capsys):
    flushed = []
    assert pickle.loads(pickle.dumps(print_datapoint)) is print_datapoint
    screen = SimpleNamespace(write=flushed.append, flush=lambda: flushed.append("flush"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        print_datapoint([1])
    assert [text for text in flushed if text] == ["datapoint: list, length 1\n  0  int  1\n", "flush"]


def test_print_datapoint_is_made_for_tap(capsys):
    assert list(ff.pipe(["abc"] * 3, ff.tap(print_datapoint, first=2))) == ["abc"] * 3
    assert capsys.readouterr().out == "datapoint: str, length 3, 'abc'\n" * 2


# How fast


def test_speed_counts_datapoints_seconds_and_bytes():
    flow = ff.pipe(range(100), ff.map(lambda x: time.sleep(0.001) or np.zeros(100, np.uint8)))
    measured = speed(flow, 20, bar=False)
    assert (measured.datapoints, measured.bytes) == (20, 2000)
    assert 0.019 < measured.seconds < 5
    assert measured.per_second == pytest.approx(19 / measured.seconds)
    assert measured.bytes_per_second == pytest.approx(1900 / measured.seconds)


def test_what_it_takes_to_begin_is_told_apart():
    measured = speed(ff.pipe(range(20), ff.map(lambda x: time.sleep(0.3 * (x < 1)) or x)), bar=False)
    assert measured.datapoints == 20
    assert measured.seconds < 0.3 <= measured.first
    assert str(measured).endswith(f"; the first after {measured.first:.2f} s")
    alone = speed([1], bar=False)
    assert (alone.per_second, str(alone)[:18]) == (0.0, "1 datapoint, after")


def test_speed_gives_the_data_back():
    flow = ff.pipe(range(50), ff.shuffle(), ff.prefetch(2)).reset_state(1)
    state = flow.state_dict()
    for n in (1, 10, 50, 80):
        assert speed(flow, n, bar=False).datapoints == min(n, 50)
    assert flow.state_dict() == state
    assert list(flow) == list(ff.pipe(range(50), ff.shuffle()).reset_state(1))


def test_speed_leaves_the_one_who_iterates_alone():
    flow = ff.pipe(range(50), ff.shuffle())
    iterator = iter(flow)
    first = [next(iterator) for _ in range(10)]
    speed(flow, 30, bar=False)
    assert sorted(first + list(iterator)) == list(range(50))
    assert flow.epoch == 1


def test_the_clock_starts_after_the_warm_up():
    slow = ff.pipe(range(20), ff.map(lambda x: time.sleep(0.2 * (x < 3)) or x))
    measured = speed(slow, 5, warmup=3, bar=False)
    assert measured.datapoints == 5
    assert measured.seconds < 0.2


@pytest.mark.parametrize(
    ("length", "n", "warmup", "read"), [(10, 20, 0, 10), (10, 20, 4, 6), (10, 5, 10, 0), (10, 5, 99, 0), (0, 5, 0, 0)]
)
@pytest.mark.parametrize("source", [range, lambda n: streamed(range(n))])
def test_speed_stops_at_the_end(source, length, n, warmup, read):
    assert speed(source(length), n, warmup=warmup, bar=False).datapoints == read


def test_speed_reads_no_further_than_it_says():
    taken = []
    speed(ff.flow(lambda: (taken.append(x) or x for x in range(1000))), 10, warmup=5, bar=False)
    assert taken == list(range(15))


def test_speed_takes_endless_flows():
    assert speed(ff.cycle([1, 2]), 1000, bar=False).datapoints == 1000


def test_speed_leaves_nothing_behind():
    threads = threading.active_count()
    speed(ff.pipe(range(1000), ff.prefetch(2, threads=2)), 10, bar=False)
    assert threading.active_count() == threads


def test_speed_can_show_a_bar(capsys):
    for bar in (None, True):
        speed(ff.pipe(range(100), ff.batch(10)), 8, warmup=4, bar=bar)
        assert "| 6/6 [" in capsys.readouterr().err
    speed(streamed(range(10)), 8, bar=True)
    assert "| 8/8 [" in capsys.readouterr().err
    speed(range(10), bar=False)
    assert capsys.readouterr() == ("", "")


def test_a_speed_is_one_line():
    assert str(Speed(5000, 2.0, 400_000_000)) == "5000 datapoints in 2.00 s: 2500 datapoints/s, 200 MB/s"
    assert str(Speed(1, 0.0123, 32)) == "1 datapoint in 12.3 ms: 81.3 datapoints/s, 2.60 kB/s"
    assert str(Speed(3, 60.0, 3)) == "3 datapoints in 60.0 s: 0.0500 datapoints/s, 0.0500 B/s"
    assert str(Speed(0, 0.0, 0)) == "no datapoints"
    assert (Speed(0, 0.0, 0).per_second, Speed(2, 0.0, 0).per_second) == (0.0, float("inf"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Speed(1, 1.0, 1).bytes = 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be a positive integer, got 0"),
        ({"n": 2.0}, TypeError, "n must be a positive integer, got 2.0"),
        ({"warmup": -1}, ValueError, "warmup must be an integer >= 0, got -1"),
        ({"bar": 1}, TypeError, "bar must be True or False or None, got 1"),
    ],
)
def test_speed_says_what_its_arguments_must_be(arguments, error, message):
    with pytest.raises(error) as told:
        speed([1], **arguments)
    assert str(told.value) == f"speed(): {message}"


# How far


@pytest.fixture
def screen():
    """A file that shows bars and cannot be sent to another process."""

    class Screen(io.StringIO):
        def __reduce__(self):
            raise TypeError("a screen stays where it is")

        @property
        def shown(self):
            """Every state of the bars, as far as their counts, without what is drawn."""
            states = re.split("[\r\n]+", self.getvalue().strip())
            return [re.sub(r"\|.*\|", "", state.partition(" [")[0]) for state in states]

    return Screen()


def own(x, rng):
    return x + rng.random()


SHOWN = {
    "alone": lambda: ff.pipe(range(11), progress(file=io.StringIO())),
    "empty": lambda: ff.pipe([], progress(file=io.StringIO())),
    "None": lambda: ff.pipe([None] * 3, progress(file=io.StringIO())),
    "first": lambda: ff.pipe(range(11), progress(file=io.StringIO()), ff.shuffle(), ff.map(own, rng=True), ff.batch(3)),
    "last": lambda: ff.pipe(range(11), ff.shuffle(), ff.map(own, rng=True), ff.batch(3), progress(file=io.StringIO())),
    "rows": lambda: ff.pipe(ff.from_arrays(x=np.arange(11)), progress(file=io.StringIO()), ff.shuffle(), ff.batch(3)),
    "round": lambda: ff.pipe(range(5), progress(file=io.StringIO()), ff.repeat(2), ff.shuffle()),
    "endless": lambda: ff.pipe(
        streamed(range(5)), progress(file=io.StringIO()), ff.cycle(), progress(file=io.StringIO())
    ),
    "stream": lambda: ff.pipe(
        range(11),
        ff.flat_map(lambda x: [x] * (x % 3)),
        progress(file=io.StringIO()),
        ff.map(own, rng=True),
        ff.shuffle_buffer(3),
    ),
    "below expand": lambda: ff.pipe(
        range(5), ff.shuffle(), progress(file=io.StringIO()), ff.flat_map(lambda x: [x] * x), ff.batch(2)
    ),
    "two": lambda: ff.zip(
        ff.pipe(range(5), progress(file=io.StringIO())), ff.pipe(streamed(range(5)), progress(file=io.StringIO()))
    ),
    "behind a prefetch": lambda: ff.pipe(
        range(9), ff.map(str), ff.prefetch(2), progress(file=io.StringIO()), ff.batch(2)
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_bar_keeps_the_laws(name):
    processes = name in ("first", "below expand", "stream", "round")
    check(SHOWN[name], workers=({}, {"threads": 2}, {"processes": 2})[: 2 + processes], stops=4)


def test_a_bar_shows_each_pass_under_its_epoch(screen):
    flow = ff.pipe(range(100), progress(file=screen))
    for epoch in (0, 1):
        assert list(flow) == list(range(100))
        assert screen.shown[-1] == f"epoch {epoch}: 100% 100/100"
    list(ff.pipe(range(3), progress(file=screen), ff.repeat(2)))
    assert screen.shown[-1] == "epoch 0, round 1: 100% 3/3"


def test_a_bar_can_be_described_and_can_disappear(screen):
    list(ff.pipe(range(3), progress(file=screen, description="train", unit="image")))
    assert screen.shown[-1] == "train: 100% 3/3"
    assert "image/s]" in screen.getvalue()
    assert screen.getvalue().endswith("\n")
    list(ff.pipe(range(3), progress(file=screen, leave=False)))
    assert screen.getvalue().endswith("\r")


@pytest.mark.parametrize(
    ("source", "said"),
    [(streamed(range(7)), "epoch 0: 7 datapoint"), (ff.take(7, ff.cycle(range(3))), "epoch 0: 100% 7/7")],
)
def test_the_total_is_the_length_where_it_is_known(source, said, screen):
    list(ff.pipe(source, progress(file=screen)))
    assert screen.shown[-1] == said


def test_an_endless_flow_has_no_total(screen):
    with iter(ff.pipe(ff.cycle([1]), progress(file=screen))) as iterator:
        assert len(list(islice(iterator, 5))) == 5
    assert screen.shown[-1] == "epoch 0: 5 datapoint"


@pytest.mark.parametrize("stages", [(), (ff.filter(lambda x: True),)], ids=["sequence", "stream"])
def test_a_resumed_pass_starts_where_it_was(stages, screen):
    iterator = iter(ff.pipe(range(10), *stages))
    for _ in range(4):
        next(iterator)
    flow = ff.pipe(range(10), *stages, progress(file=screen)).load_state_dict(iterator.state_dict())
    assert list(flow) == [4, 5, 6, 7, 8, 9]
    assert screen.shown[0] == ("epoch 0: 4 datapoint" if stages else "epoch 0:  40% 4/10")
    assert screen.shown[-1] == ("epoch 0: 10 datapoint" if stages else "epoch 0: 100% 10/10")


@pytest.mark.parametrize("source", [range(12), np.arange(12)], ids=["sequence", "rows"])
def test_a_bar_below_a_batch_starts_where_the_batch_does(source, screen):
    list(ff.pipe(source, progress(file=screen), ff.batch(4)).run(start=1))
    assert screen.shown[0] == "epoch 0:  33% 4/12"
    assert screen.shown[-1] == "epoch 0: 100% 12/12"


@pytest.mark.parametrize(
    "stages",
    [
        (ff.batch(2),),
        (ff.shuffle(), ff.map(str)),
        (ff.filter(lambda x: True),),
        (ff.prefetch(2),),
        (ff.map(str), ff.prefetch(2, threads=2)),
        (ff.map(str), ff.batch(2), ff.prefetch(2, processes=2)),
        (ff.map(str), ff.shuffle_buffer(3), ff.prefetch(2, processes=1)),
        (ff.cache(),),
    ],
    ids=repr,
)
@pytest.mark.parametrize("source", [range(20), np.arange(20)], ids=["sequence", "rows"])
def test_a_bar_is_shown_wherever_it_stands(stages, source, screen):
    flow = ff.pipe(source, progress(file=screen), *stages)
    without = ff.pipe(source, *stages)
    assert same(list(flow), list(without))
    assert screen.getvalue().count("20/20") == 1
    assert screen.shown[-1] == "epoch 0: 100% 20/20"


def test_batches_behind_a_bar_are_gathered(screen):
    flow = ff.pipe(ff.from_arrays(np.arange(10)), progress(file=screen), ff.shuffle(), ff.batch(4))
    assert flow.sources[0].node.gathers
    assert not ff.pipe(range(10), progress(file=screen)).node.gathers


def test_looking_at_single_datapoints_shows_no_bar(screen):
    flow = ff.pipe(range(10), progress(file=screen), ff.map(str), ff.prefetch(2))
    assert (flow[3], flow.__getitems__([1, 2]), len(flow), flow.seekable) == ("3", ["1", "2"], 10, True)
    describe(flow, file=io.StringIO())
    assert screen.getvalue() == ""


def test_a_bar_that_nobody_reads_is_not_shown(screen):
    iterator = iter(ff.pipe(range(10), progress(file=screen)))
    iterator.close()
    assert screen.getvalue() == ""


@pytest.mark.parametrize(
    "stages", [(), (ff.batch(1),), (ff.prefetch(2),), (ff.map(str), ff.prefetch(2, threads=2))], ids=repr
)
def test_a_bar_is_closed_however_the_pass_ends(stages, screen):
    threads = threading.active_count()
    flow = ff.pipe(range(100), ff.map(lambda x: 1 // (50 - x)), progress(file=screen), *stages)
    with pytest.raises(ZeroDivisionError) as told:
        list(flow)
    assert screen.shown[-1].endswith("50/100")
    iterator = iter(flow)
    list(islice(iterator, 10))
    iterator.close()
    assert screen.getvalue().endswith("\n")
    iterator = iter(flow)
    list(islice(iterator, 10))
    del iterator
    gc.collect()
    assert screen.getvalue().endswith("\n")
    assert not [bar for bar in bars()._instances if bar.fp is screen]
    assert threading.active_count() == threads
    assert told.value.__notes__[0].startswith("in map(<lambda>), its datapoint 50")


def test_a_bar_counts_what_was_delivered(screen):
    with iter(ff.pipe(range(1000), progress(file=screen))) as iterator:
        list(islice(iterator, 100))
    assert screen.shown[-1] == "epoch 0:  10% 100/1000"


def test_bars_are_shown_on_stderr(capsys):
    assert list(ff.pipe(range(3), progress())) == [0, 1, 2]
    told = capsys.readouterr()
    assert told.out == ""
    assert "epoch 0: 100%" in told.err
    assert " 3/3 [" in told.err


def test_a_bar_moves_while_datapoints_come_slowly(screen):
    flow = ff.pipe(range(2000), ff.map(lambda x: time.sleep(0.03 * (x >= 1990))), progress(file=screen))
    list(flow)
    assert {state.split()[-1] for state in screen.shown} - {"0/2000", "2000/2000"}


def test_a_state_moves_between_flows_with_a_bar_and_without(screen):
    def flow(*bar):
        return ff.pipe(range(60), *bar, ff.filter(lambda x: x % 3), ff.flat_map(lambda x: [x] * 3), *bar, ff.batch(4))

    plain, shown = flow(), flow(progress(file=screen))
    whole = list(plain.run())
    for saved, loaded in ((plain, shown), (shown, plain), (shown, shown)):
        with saved.run() as iterator:
            list(islice(iterator, 11))
            state = iterator.state_dict()
        assert same(list(loaded.load_state_dict(state)), whole[11:])


def test_a_bar_leaves_the_elastic_state_of_a_shard_alone(screen):
    def rank(r, world, *bar):
        return ff.pipe(range(24), ff.shard(r, world), *bar, ff.batch(2))

    iterator = iter(rank(0, 2, progress(file=screen)))
    next(iterator), next(iterator)
    state = iterator.state_dict()
    rest = [rank(r, 4, progress(file=screen)).load_state_dict(state) for r in range(4)]
    assert sorted(int(x) for flow in rest for batch in flow for x in batch) == list(range(8, 24))


def test_a_stage_with_a_file_compares_and_pickles_and_the_file_stays(screen):
    bar = progress(file=screen, unit="image")
    assert bar == progress(file=screen, unit="image") != progress(unit="image")
    assert pickle.loads(pickle.dumps(bar)) == progress(unit="image", file=None) or repr(
        pickle.loads(pickle.dumps(bar))
    ).endswith("None)")
    assert repr(progress()) == "progress()"
    assert repr(ff.pipe([1], progress)) == "pipe(flow([1]), progress())"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"description": 3}, "description must be a string or None, got 3"),
        ({"unit": None}, "unit must be a string, got None"),
        ({"leave": 1}, "leave must be True or False, got 1"),
        ({"file": 3}, "file must be a text file or None, got 3"),
    ],
)
def test_progress_says_what_its_arguments_must_be(arguments, message):
    with pytest.raises(TypeError) as told:
        progress(**arguments)
    assert str(told.value) == f"progress(): {message}"


def test_without_tqdm_the_stage_cannot_be_made_and_speed_shows_no_bar(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    bars.cache_clear()
    try:
        with pytest.raises(ImportError, match=r'pip install "flowfn\[progress\]"'):
            progress()
        with pytest.raises(ImportError, match=r'pip install "flowfn\[progress\]"'):
            speed([1, 2], bar=True)
        assert speed([1, 2]).datapoints == 2
        assert capsys.readouterr() == ("", "")
    finally:
        bars.cache_clear()


def test_importing_flowfn_does_not_import_tqdm():
    program = (
        "import sys, flowfn, flowfn.seeing; print([name for name in sys.modules if name.startswith(('tqdm', "
        "'asyncio'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_made_up_flow_is_described_measured_and_shown(capsys):
    flow = ff.pipe(
        fake({"image": (8, 8), "label": ()}, 64, dtype={"image": "float32", "label": "int64"}), ff.batch(16), progress()
    )
    describe(flow, 1)
    assert capsys.readouterr().out.splitlines()[0] == "datapoint 0 of 4: dict, length 2"
    assert speed(flow, bar=False).bytes == 64 * (8 * 8 * 4 + 8)


@pytest.mark.parametrize("slow", ["source", "consumer"])
def test_a_bar_says_who_waits_for_whom(slow):
    screen = io.StringIO()
    nap = {slow: lambda: time.sleep(0.01)}.get
    flow = ff.pipe(range(20), ff.map(lambda x: nap("source", int)()), progress(file=screen))
    for _ in flow:
        nap("consumer", int)()
    shares = [int(share) for share in re.findall(r"waiting (\d+)%", screen.getvalue())]
    assert shares
    assert (shares[-1] > 50) == (slow == "source")
