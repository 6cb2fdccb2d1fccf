"""Stages that see their source as one streamed, against itertools, more-itertools and tf.data;
and where they start again."""

import gc
import io
import itertools
import json
import os
import pickle
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import more_itertools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Counted, noisy, streamed

import flowfn as ff
from flowfn.flows.schema import sealed
from flowfn.testing import check

WORKERS = ({}, {"threads": 2}, {"processes": 2})
calm = settings(max_examples=100, deadline=None, derandomize=True)


def same(stage, data, expected, starts=(0, 1, 3)):
    """A stage gives what is expected over a sequence and over a streamed, from wherever it is started."""
    for flow in (stage(data), stage(streamed(data))):
        assert list(flow) == expected
        for start in starts:
            assert list(flow.run(start=start)) == expected[start:]


def explanation(flow):
    told = io.StringIO()
    ff.explain(flow, file=told)
    return told.getvalue()


def total(state, datapoint):
    return state + datapoint, state + datapoint


def small(datapoint):
    return datapoint < 5


def resumed(make_flow, k):
    """The state after k outputs as text, and a flow that goes on from it."""
    with iter(make_flow()) as iterator:
        assert len(list(islice(iterator, k))) == k
        text = json.dumps(iterator.state_dict())
    return text, make_flow().load_state_dict(json.loads(text))


# scan


@calm
@given(st.lists(st.integers(-9, 9)), st.integers(-9, 9))
def test_scan_is_accumulate(data, initial):
    same(ff.scan(total, initial), data, list(itertools.accumulate(data, initial=initial))[1:])


def test_scan_gives_what_tensorflow_says_it_gives():
    assert list(ff.scan(lambda state, i: (state + i, state + i), 0, range(10))) == [0, 1, 3, 6, 10, 15, 21, 28, 36, 45]


def test_scan_is_as_long_as_its_source_and_endless_with_it():
    assert len(ff.scan(total, 0, range(7))) == 7
    assert list(ff.pipe(count(1), ff.scan(total, 0), ff.take(4))) == [1, 3, 6, 10]
    assert list(ff.pipe([1, 2], ff.cycle(), ff.scan(total, 0), ff.take(4))) == [1, 3, 4, 6]
    same(ff.scan(total, 0), [], [])


def test_scan_keeps_none_and_takes_lists_for_pairs():
    assert list(ff.scan(lambda state, x: [x, state], None, [1, None, 2])) == [None, 1, None]


def grown(state, datapoint):
    state.append(datapoint)
    return state, len(state)


def test_a_state_that_is_changed_in_place_starts_anew_in_every_pass():
    initial = [0]
    flow = ff.scan(grown, initial, [7, 8, 9])
    assert list(flow) == list(flow) == [2, 3, 4]
    assert initial == [0]
    assert list(ff.pipe([7, 8], ff.scan(grown, initial), ff.repeat(2))) == [2, 3, 2, 3]
    with iter(flow) as one, iter(flow) as other:
        assert [next(one), next(other), next(one)] == [2, 2, 3]
    arrays = ff.scan(lambda state, x: (np.add(state, x, out=state), float(state.sum())), np.zeros(2), [1, 2])
    assert list(arrays) == list(arrays) == [2.0, 6.0]


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (3, "3"),
        (None, "None"),
        ((1,), "(1,)"),
        ((1, 2, 3), "(1, 2, 3)"),
        ("ab", "'ab'"),
        (np.zeros(2), "float64 array (2,)"),
        ({1: 2, 3: 4}, "{1: 2, 3: 4}"),
    ],
)
def test_what_scan_calls_must_return_a_pair(made, shown):
    with pytest.raises(TypeError) as raised:
        list(ff.scan(lambda state, x: made, 0, [1]))
    assert str(raised.value) == f"scan(): f must return a pair (state, output), got {shown}"
    assert raised.value.__notes__[0].startswith("in scan(<lambda>, 0), its datapoint 0 (input 1), seed 0, epoch 0")


# take_while


@calm
@given(st.lists(st.integers(0, 6)))
def test_take_while_is_takewhile(data):
    same(ff.take_while(small), data, list(itertools.takewhile(small, data)))


def test_take_while_reads_one_more_than_it_gives():
    read = []

    def source():
        for number in count():
            read.append(number)
            yield number

    assert list(ff.take_while(small, source)) == [0, 1, 2, 3, 4]
    assert read == [0, 1, 2, 3, 4, 5]


def test_take_while_keeps_none_and_takes_any_truth():
    assert list(ff.take_while(lambda x: x is None, [None, None, 1])) == [None, None]
    assert list(ff.take_while(lambda x: x, [1, "a", [0], 0, 1])) == [1, "a", [0]]


def test_what_take_while_ended_at_stays_its_end_after_a_resume():
    data = [0, 1, 2, 9, 3, 4, 0, 1]
    for make_flow, k in [
        (lambda: ff.pipe(streamed(data), ff.take_while(small), ff.batch(2, collate=ff.as_list), ff.prefetch(2)), 2),
        (lambda: ff.pipe(streamed(data), ff.take_while(small), ff.batch(2, collate=ff.as_list)), 2),
        (lambda: ff.pipe(streamed(data), ff.take_while(small), ff.shuffle_buffer(5), ff.prefetch(2)), 3),
        (
            lambda: ff.pipe(
                data, ff.filter(lambda x: x != 1), ff.take_while(small), ff.batch(3, collate=ff.as_list), ff.prefetch(1)
            ),
            1,
        ),
    ]:
        assert list(resumed(make_flow, k)[1]) == []


def test_take_while_resumes_without_reading_again():
    read = []

    def make_flow():
        return ff.pipe(
            ff.map(lambda x: read.append(x) or x, range(1000)),
            ff.filter(lambda x: x % 2),
            ff.take_while(lambda x: x < 900),
        )

    _, flow = resumed(make_flow, 400)
    read.clear()
    assert list(flow) == list(range(801, 900, 2))
    assert read[0] == 799
    assert len(read) <= 105


# unique


@calm
@given(st.lists(st.sampled_from([0, 1, 1.0, True, "a", "A", None, (1, 2)])))
def test_unique_is_unique_everseen(data):
    same(ff.unique(), data, list(more_itertools.unique_everseen(data)))
    same(
        ff.unique(key=lambda x: repr(x).lower()),
        data,
        list(more_itertools.unique_everseen(data, key=lambda x: repr(x).lower())),
    )


def test_unique_gives_what_tensorflow_says_it_gives():
    assert sorted(ff.unique([1, 37, 2, 37, 2, 1])) == [1, 2, 37]


def test_unique_is_lazy_and_gives_each_the_moment_it_comes():
    assert list(ff.pipe(count(), ff.unique(key=lambda x: x // 3), ff.take(4))) == [0, 3, 6, 9]


def test_every_pass_and_every_round_of_unique_starts_anew():
    flow = ff.unique([1, 2, 1])
    assert list(flow) == list(flow) == [1, 2]
    assert list(ff.repeat(2, flow)) == [1, 2, 1, 2]
    assert list(ff.pipe([1, 2, 1], ff.repeat(2), ff.unique())) == [1, 2]


@pytest.mark.parametrize(
    ("datapoint", "shown"),
    [(np.zeros(2), "float64 array (2,)"), ([1], "[1]"), ((1, np.zeros(1)), "(1, float64 array (1,))"), ({}, "{}")],
)
def test_unique_needs_something_to_hash_and_says_what_to_give(datapoint, shown):
    remedy = "give key=, a function that returns a string, a number or a tuple of them"
    with pytest.raises(TypeError) as raised:
        list(ff.unique([datapoint]))
    assert str(raised.value) == f"unique(): datapoints or their keys must be hashable, got {shown}; {remedy}"
    with pytest.raises(TypeError, match="or their keys must be hashable") as raised:
        list(ff.unique([3], key=lambda x: datapoint))
    assert raised.value.__notes__[0].startswith("in unique(key=<lambda>), its datapoint 0 (input 3)")
    assert list(ff.unique([datapoint, datapoint], key=repr)) == [datapoint]


# interleave


def by_the_letter(f, data, cycle, block):
    """The algorithm of tf.data's InterleaveDataset, step by step."""
    inputs, slots, at, within, out, end_of_input = iter(data), [None] * cycle, 0, 0, [], False
    while not end_of_input or any(slot is not None for slot in slots):
        if slots[at] is not None:
            values = list(islice(slots[at], 1))
            if values:
                out += values
                within += 1
                if within == block:
                    at, within = (at + 1) % cycle, 0
            else:
                slots[at] = None
                at, within = (at + 1) % cycle, 0
        elif not end_of_input:
            datapoint = list(islice(inputs, 1))
            if datapoint:
                slots[at] = iter(f(datapoint[0]))
            else:
                end_of_input = True
        else:
            at, within = (at + 1) % cycle, 0
    return out


def numbered(datapoint):
    return [(datapoint, number) for number in range(datapoint % 10)]


def generated(datapoint):
    yield from numbered(datapoint)


def test_interleave_gives_what_tensorflow_says_it_gives():
    flow = ff.interleave(lambda x: ff.repeat(6, [x]), range(1, 6), cycle=2, block=4)
    blocks = [
        [1, 1, 1, 1],
        [2, 2, 2, 2],
        [1, 1],
        [2, 2],
        [3, 3, 3, 3],
        [4, 4, 4, 4],
        [3, 3],
        [4, 4],
        [5, 5, 5, 5],
        [5, 5],
    ]
    assert list(flow) == [number for block in blocks for number in block]


@calm
@given(
    st.lists(st.integers(0, 99), max_size=12),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([numbered, generated]),
)
def test_interleave_is_tensorflows_algorithm(data, cycle, block, f):
    same(ff.interleave(f, cycle=cycle, block=block), data, by_the_letter(f, data, cycle, block), starts=(0, 1, 7))


@calm
@given(st.lists(st.lists(st.integers(), min_size=1, max_size=5), max_size=5))
def test_interleave_with_room_for_all_is_more_itertools_interleave_longest(data):
    assert list(ff.interleave(iter, data, cycle=max(len(data), 1))) == list(more_itertools.interleave_longest(*data))


@calm
@given(st.lists(st.lists(st.integers(), max_size=5), max_size=5), st.integers(1, 3))
def test_interleave_of_one_at_a_time_is_flat_map(data, block):
    assert (
        list(ff.interleave(iter, data, cycle=1, block=block))
        == list(ff.flat_map(iter, data))
        == list(itertools.chain(*data))
    )


def test_interleave_has_its_defaults_and_keeps_none():
    assert "".join(ff.interleave(iter, ["ab"] * 17)) == "a" * 16 + "b" * 16 + "ab"
    assert list(ff.interleave(lambda x: [None, x], [1, None])) == [None, None, 1, None]


@pytest.mark.parametrize("data", [[], [0], [0, 0, 0], [0, 2, 0, 0, 1, 0]])
def test_interleave_skips_what_is_empty(data):
    same(ff.interleave(numbered, cycle=2, block=2), data, by_the_letter(numbered, data, 2, 2))


def test_interleave_opens_what_it_needs_and_no_more():
    opened = []
    flow = ff.interleave(lambda x: opened.append(x) or count(), range(100), cycle=4, block=2)
    iterator = iter(flow)
    assert opened == []
    assert list(islice(iterator, 3)) == [0, 1, 0]
    assert opened == [0, 1]
    assert list(islice(iterator, 50))[-1] == 12
    assert opened == [0, 1, 2, 3]


def test_interleave_over_endless_streams_keeps_little():
    flow = ff.interleave(lambda x: count(), count(), cycle=4)
    tracemalloc.start()
    with iter(flow) as iterator:
        list(islice(iterator, 100))
        before = tracemalloc.get_traced_memory()[0]
        for _ in islice(iterator, 20000):
            pass
        assert tracemalloc.get_traced_memory()[0] - before < 20000
    tracemalloc.stop()


def random_flow(datapoint):
    return ff.pipe([(datapoint, i) for i in range(4)], ff.shuffle(), ff.map(noisy, rng=True))


def test_what_a_flow_gives_inside_interleave_belongs_to_its_datapoint():
    ways = [
        sorted(ff.interleave(random_flow, range(5), cycle=cycle, block=block))
        for cycle, block in [(1, 1), (2, 3), (5, 1), (9, 2)]
    ]
    assert ways.count(ways[0]) == 4
    assert len({noise for _, noise in ways[0]}) == 20
    alike = list(ff.interleave(random_flow, [0, 0], cycle=1))
    assert sorted(alike[:4]) != sorted(alike[4:])
    flow = ff.interleave(random_flow, range(5))
    assert list(flow) != list(flow)
    assert list(flow.run(epoch=3)) == list(flow.run(epoch=3))
    assert list(ff.interleave(random_flow, streamed(range(5))).run(epoch=3)) == list(flow.run(epoch=3))


def shuffled_words(number):
    return ff.pipe(range(7 * number), ff.shuffle(), ff.map(lambda x, rng: [number, x, int(rng.integers(99))], rng=True))


OPENERS = [{"threads": 2}, {"processes": 1}, {"processes": 2}]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", OPENERS, ids=str)
def test_what_interleave_opens_in_workers_is_that_of_serial(workers):
    make = lambda: ff.pipe(range(6), ff.shuffle(), ff.interleave(shuffled_words, cycle=3, block=2), ff.map(tuple))
    check(make, workers=[workers])
    assert "opens is read in" in explanation(ff.pipe(make(), ff.prefetch(3, **workers))) or workers == {"processes": 1}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", OPENERS, ids=str)
def test_an_error_in_what_interleave_opens_is_told_as_in_serial(workers):
    def fails(number):
        if number == 5:
            raise OSError("no such shard")
        yield from range(3 if number != 2 else 1)
        if number == 2:
            raise ValueError("a torn shard")

    for data in ([1, 2, 3, 4], [1, 3, 5, 4]):
        told, outputs = [], []
        for stages in ((), (ff.prefetch(4, **workers),)):
            got = []
            with pytest.raises((OSError, ValueError)) as caught:
                got.extend(iter(ff.pipe(data, ff.interleave(fails, cycle=2), *stages)))
            told.append((str(caught.value), [note.splitlines()[0] for note in caught.value.__notes__]))
            outputs.append(got)
        assert told[0] == told[1]
        assert f"its datapoint {1 if data[1] == 2 else 2}," in told[0][1][0]
        assert outputs[0] == outputs[1]


@pytest.mark.timeout(60)
def test_several_of_what_interleave_opens_are_read_at_once_in_workers():
    def pids(number):
        for _ in range(40):
            time.sleep(0.002)
            yield number, os.getpid()

    got = list(ff.pipe(range(4), ff.interleave(pids, cycle=4), ff.prefetch(8, processes=2)))
    assert [number for number, _ in got] == [0, 1, 2, 3] * 40
    assert len({pid for _, pid in got} - {os.getpid()}) == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [{}, *OPENERS], ids=str)
def test_an_opening_that_raises_stop_iteration_is_an_error_and_no_end(workers):
    def first_line(number):
        return iter([next(iter([] if number == 2 else [number]))] * 3)

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(ff.pipe(range(5), ff.interleave(first_line, cycle=2), ff.prefetch(2, **workers)))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [{"threads": 2}, {"processes": 2}], ids=str)
def test_each_input_of_interleave_is_opened_once_and_closed(workers, tmp_path):
    class Opened:
        def __init__(self, number):
            self.number, self.left = number, iter(range(60))
            with open(tmp_path / "opened", "a") as log:
                log.write(f"{number} ")

        def __iter__(self):
            return self

        def __next__(self):
            return np.full(20_000, next(self.left))

        def close(self):
            with open(tmp_path / "closed", "a") as log:
                log.write(f"{self.number} ")

    flow = ff.pipe(range(40), ff.interleave(Opened, cycle=20), ff.prefetch(2, **workers))
    assert sum(1 for _ in flow) == 2400
    numbers = lambda name: sorted(map(int, (tmp_path / name).read_text().split()))
    assert numbers("opened") == numbers("closed") == list(range(40))


@pytest.mark.timeout(60)
def test_short_inputs_of_interleave_are_read_at_once_in_workers():
    def slow(number):
        for _ in range(4):
            time.sleep(0.05)
            yield number

    flow = ff.pipe(range(8), ff.interleave(slow, cycle=8), ff.prefetch(8, threads=8))
    began = time.perf_counter()
    assert list(flow) == [0, 1, 2, 3, 4, 5, 6, 7] * 4
    assert time.perf_counter() - began < 0.5 * 8 * 4 * 0.05


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", OPENERS, ids=str)
def test_what_a_source_gave_before_it_failed_comes_first_however_early_it_is_read(workers):
    def source():
        yield from range(3)
        raise OSError("gone")

    outputs = []
    for stages in ((), (ff.prefetch(4, **workers),)):
        got = []
        with pytest.raises(OSError, match="gone"):
            got.extend(iter(ff.pipe(source, ff.interleave(lambda x: [x] * 2, cycle=8), *stages)))
        outputs.append(got)
    assert outputs[0] == outputs[1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", OPENERS, ids=str)
def test_an_error_in_a_flow_that_interleave_opened_is_told_once(workers):
    opened = lambda number: ff.pipe([1, 0], ff.map(lambda x: number // x))
    notes = []
    for stages in ((), (ff.prefetch(4, **workers),)):
        with pytest.raises(ZeroDivisionError) as caught:
            list(ff.pipe([5, 6], ff.interleave(opened), *stages))
        notes.append([note.splitlines()[0] for note in caught.value.__notes__])
    assert notes[0] == notes[1]


@pytest.mark.timeout(60)
def test_what_interleave_opens_may_use_the_threads_that_it_is_read_ahead_by():
    with ThreadPoolExecutor(2) as executor:
        opened = lambda number: ff.pipe(range(10), ff.map(float), ff.prefetch(2, executor=executor))
        flow = ff.pipe(range(6), ff.interleave(opened, cycle=3), ff.prefetch(2, executor=executor))
        assert sum(1 for _ in flow) == 60


@pytest.mark.timeout(60)
def test_what_cannot_come_back_from_where_interleave_opened_it_names_the_stage():
    with pytest.raises(
        TypeError, match=r"interleave\(unsendable.*\) gave .*, which cannot be sent back from its worker process"
    ):
        list(ff.pipe(range(3), ff.interleave(unsendable), ff.prefetch(2, processes=2)))


def unsendable(number):
    yield threading.Lock()


def test_a_flow_inside_interleave_keeps_a_state_of_its_own():
    inner = ff.pipe(range(3), ff.shuffle()).reset_state(5)
    before = inner.state_dict()
    list(ff.interleave(lambda x: inner, range(3)))
    assert inner.state_dict() == before


@pytest.mark.parametrize("k", [0, 1, 5000, 12345])
def test_interleave_resumes_where_it_stood(k):
    files, opened, read = Counted(1000), [], []

    def file(number):
        opened.append(number)
        return ff.map(lambda row: read.append(row) or row, range(1000 * number, 1000 * number + 100 + 7 * (number % 5)))

    def make_flow():
        return ff.pipe(files, ff.interleave(file, cycle=16, block=3))

    expected = list(islice(iter(make_flow()), k + 50))[k:]
    text, flow = resumed(make_flow, k)
    assert len(text) < 1000
    files.read.clear(), opened.clear(), read.clear()
    assert list(islice(iter(flow), 50)) == expected
    assert len(opened) <= 20
    assert len(files.read) <= 40
    assert read == expected


def test_what_cannot_be_indexed_inside_interleave_is_read_over_what_was_given():
    read = []

    def rows(number):
        for row in range(100):
            read.append((number, row))
            yield number, row

    def make_flow():
        return ff.interleave(rows, range(50), cycle=2)

    _, flow = resumed(make_flow, 500)
    read.clear()
    assert next(iter(flow)) == (4, 50)
    assert len(read) <= 102
    assert {number for number, _ in read} == {4, 5}


def test_the_state_of_interleave_stays_small_far_into_a_pass():
    def make_flow():
        return ff.interleave(lambda x: ff.flow(range(10**12)), range(10**9), cycle=16)

    with make_flow().run(start=0) as iterator:
        list(islice(iterator, 40))
        state = iterator.state_dict()
    (place,) = state["anchors"]
    epoch, _, (unused, taken, at, within, *slots) = state["anchors"][place]
    far = [number + 10**8 for number in slots[:16]] + [number + 10**10 for number in slots[16:]]
    state["position"], state["anchors"][place] = (
        10**14,
        [epoch, 10**14, [unused + 10**8, taken + 10**8, at, within, *far]],
    )
    state["count"] = 10**14
    text = json.dumps(sealed(state))
    assert len(text) < 1000
    with iter(make_flow().load_state_dict(json.loads(text))) as iterator:
        assert next(iterator) == 10**10 + 2


@pytest.mark.parametrize("stop", ["close", "leave", "drop", "prefetched", "end", "error"])
def test_interleave_closes_what_it_has_opened(stop):
    opened, closed = [], []

    def rows(number):
        opened.append(number)
        try:
            yield from range(50)
            if stop == "error" and number == 2:
                raise OSError("gone")
        finally:
            closed.append(number)

    flow = ff.pipe(range(6), ff.interleave(rows, cycle=3), ff.prefetch(2) if stop == "prefetched" else None)
    iterator = iter(flow)
    list(islice(iterator, 20))
    if stop in ("close", "prefetched"):
        iterator.close()
    elif stop == "leave":
        with iterator:
            pass
    elif stop == "drop":
        del iterator
        gc.collect()
    elif stop == "end":
        list(iterator)
    else:
        with pytest.raises(OSError, match="gone"):
            list(iterator)
    assert sorted(closed) == opened
    assert len(opened) >= 3


def test_files_are_closed_when_they_end_and_when_nobody_reads_on(tmp_path):
    for number in range(4):
        (tmp_path / str(number)).write_text("a\nb\n")
    paths, opened = sorted(tmp_path.iterdir()), []
    flow = ff.interleave(lambda path: opened.append(open(path)) or opened[-1], paths, cycle=2)  # noqa: SIM115
    with iter(flow) as iterator:
        assert list(islice(iterator, 5)) == ["a\n", "a\n", "b\n", "b\n", "a\n"]
        assert [file.closed for file in opened] == [True, True, False]
    assert all(file.closed for file in opened)


def test_one_that_cannot_be_closed_does_not_keep_the_others_open():
    closed = []

    class Stubborn:
        def __init__(self, number):
            self.number = number

        def __iter__(self):
            return self

        def __next__(self):
            return self.number

        def close(self):
            closed.append(self.number)
            raise OSError("stuck")

    iterator = iter(ff.interleave(Stubborn, range(3), cycle=3))
    assert list(islice(iterator, 3)) == [0, 1, 2]
    with pytest.raises(OSError, match="stuck"):
        iterator.close()
    assert sorted(closed) == [0, 1, 2]


def breaking(datapoint):
    if datapoint == 3:
        raise OSError("no such file")
    return [datapoint] * 4


@pytest.mark.parametrize("prefetched", [None, ff.prefetch(2), ff.prefetch(2, threads=2), ff.prefetch(2, processes=1)])
@pytest.mark.parametrize(
    ("stage", "name"),
    [
        (ff.interleave(breaking, cycle=3), "interleave(breaking, cycle=3)"),
        (ff.take_while(breaking), "take_while(breaking)"),
        (ff.unique(key=breaking), "unique(key=breaking)"),
        (ff.scan(lambda state, x: (state, breaking(x)), 0), "scan(<lambda>, 0)"),
    ],
)
def test_an_error_is_located_and_happens_again_when_it_is_replayed(stage, name, prefetched):
    flow = ff.pipe([1, 2, 3, 4], stage, prefetched)
    if "unique" in name:
        flow = ff.pipe([1, 2, 3, 4], ff.unique(key=lambda x: str(breaking(x))), prefetched)
        name = "unique(key=<lambda>)"
    with pytest.raises(OSError, match="no such file") as raised:
        list(flow)
    assert raised.value.__notes__[0].startswith(f"in {name}, its datapoint 2")
    with pytest.raises(OSError, match="no such file"):
        ff.replay(flow, raised.value)


def test_a_state_saved_after_an_error_goes_on_at_the_datapoint_that_failed():
    for stage in (ff.interleave(breaking, cycle=3), ff.take_while(breaking)):
        flow = ff.pipe([1, 2, 3, 4], stage)
        with pytest.raises(OSError, match="no such file"):
            list(flow)
        state = flow.state_dict()
        with pytest.raises(OSError, match="no such file"):
            list(ff.pipe([1, 2, 3, 4], stage).load_state_dict(state))


def test_what_interleave_opens_has_to_be_iterable():
    with pytest.raises(TypeError, match="'int' object is not iterable") as raised:
        list(ff.interleave(lambda x: x, [1]))
    assert raised.value.__notes__[0].startswith("in interleave(<lambda>), its datapoint 0, seed 0, epoch 0")


# What they have in common


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.scan(3, 0), TypeError, "scan(): f must be a function, got 3"),
        (lambda: ff.scan(total), TypeError, "scan(): missing a required argument: 'initial'"),
        (lambda: ff.take_while([1]), TypeError, "take_while(): predicate must be a function, got [1]"),
        (lambda: ff.unique([1], key="x"), TypeError, "unique(): key must be a function or None, got 'x'"),
        (lambda: ff.interleave([1], range(3)), TypeError, "interleave(): f must be a function, got [1]"),
        (lambda: ff.interleave(iter, cycle=0), ValueError, "interleave(): cycle must be a positive integer, got 0"),
        (lambda: ff.interleave(iter, cycle=1.5), TypeError, "interleave(): cycle must be a positive integer, got 1.5"),
        (
            lambda: ff.interleave(iter, cycle=True),
            TypeError,
            "interleave(): cycle must be a positive integer, got True",
        ),
        (lambda: ff.interleave(iter, block=-1), ValueError, "interleave(): block must be a positive integer, got -1"),
        (
            lambda: ff.interleave(iter, block=None),
            TypeError,
            "interleave(): block must be a positive integer, got None",
        ),
    ],
)
def test_wrong_arguments_are_named_at_once(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


STAGES = [
    ff.scan(grown, [0]),
    ff.take_while(os.fspath),
    ff.unique(),
    ff.unique(key=repr),
    ff.interleave(numbered),
    ff.interleave(numbered, cycle=3, block=2),
]


def test_stages_are_shown_as_they_were_written_compare_and_pickle():
    assert [repr(stage) for stage in STAGES] == [
        "scan(grown, [0])",
        "take_while(fspath)",
        "unique()",
        "unique(key=repr)",
        "interleave(numbered)",
        "interleave(numbered, cycle=3, block=2)",
    ]
    assert len(set(map(repr, STAGES))) == len({STAGES.index(stage) for stage in STAGES}) == len(STAGES)
    assert pickle.loads(pickle.dumps(STAGES)) == STAGES
    assert repr(ff.interleave(numbered, [1, 2], cycle=3)) == "pipe(flow([1, 2]), interleave(numbered, cycle=3))"


@pytest.mark.parametrize("stage", STAGES[2:])
def test_they_cannot_be_indexed_and_say_so(stage):
    with pytest.raises(TypeError, match="sees its source as one stream"):
        stage(range(3))[0]
    with pytest.raises(TypeError, match="is not known before it is read"):
        len(stage(range(3)))


def last_digit(datapoint):
    return datapoint % 10


@pytest.mark.parametrize(
    "source", [lambda: list(range(23)), lambda: streamed(range(23)), lambda: ff.filter(last_digit, range(26))]
)
@pytest.mark.parametrize(
    "stage",
    [
        lambda: ff.scan(grown, [0]),
        lambda: ff.take_while(lambda x: x < 17),
        lambda: ff.unique(key=last_digit),
        lambda: ff.interleave(generated, cycle=3, block=2),
        lambda: ff.interleave(random_flow, cycle=4),
    ],
)
def test_the_laws(stage, source):
    check(lambda: stage()(source()))


@pytest.mark.parametrize("workers", WORKERS)
def test_the_laws_all_together(workers):
    def make_flow():
        return ff.pipe(
            streamed(range(30)),
            ff.map(noisy, rng=True),
            ff.unique(key=lambda d: d[1] % 20),
            ff.interleave(lambda d: random_flow(d[0]), cycle=3, block=2),
            ff.take_while(lambda d: d[1] % 19),
            ff.filter(lambda d: d[1] % 3),
            ff.scan(lambda state, d: (state + d[1], (state, d)), 0),
            ff.map(noisy, rng=True),
            ff.batch(3, collate=ff.as_list),
        )

    check(make_flow, workers=(workers,), stops=5)


def test_a_pass_that_starts_late_and_is_left_at_once_leaves_nothing_open():
    flow = ff.pipe(
        streamed(range(9)),
        ff.map(noisy, rng=True),
        ff.shuffle_buffer(3),
        ff.map(noisy, rng=True),
        ff.prefetch(2, threads=2),
    )
    ff.shut_down()
    gc.collect()
    gc.disable()
    try:
        before = threading.active_count()
        with flow.run(start=5):
            pass
        assert threading.active_count() == before
    finally:
        gc.enable()


def test_interleave_resumes_without_reading_what_is_upstream_again():
    files = Counted(10000)

    def make_flow():
        return ff.pipe(files, ff.filter(lambda x: x % 2), ff.interleave(numbered, cycle=16))

    expected = list(islice(make_flow(), 5010))[5000:]
    _, flow = resumed(make_flow, 5000)
    files.read.clear()
    assert list(islice(flow, 10)) == expected
    assert len(files.read) < 100


# Stages of one's own that can be started again


@ff.stage.stream
def chunked(size, source, *, mark):
    """Lists of `size`; nothing is held between them."""
    mark()
    while chunk := list(islice(source, size)):
        yield chunk
        mark()


@ff.stage.stream
def paired(source, *, mark):
    """Every datapoint with the one after it, which stays unused."""
    last = list(islice(source, 1))
    mark(unused=len(last))
    for datapoint in source:
        yield last[0], datapoint
        last = [datapoint]
        mark(unused=1)


@ff.stage.stream
def held_back(count, source, *, mark):
    """Each datapoint after `count` more have been read."""
    held = []
    mark.anywhere(lambda: (len(held),))
    for datapoint in source:
        held.append(datapoint)
        if len(held) > count:
            yield held.pop(0)
    while held:
        yield held.pop(0)


@ff.stage.stream
def running(source, *, mark):
    """A count and a sum, which a note remembers."""
    seen, added = mark.note or (0, 0)
    mark.anywhere(lambda: (0, seen, added))
    for datapoint in source:
        seen, added = seen + 1, added + datapoint
        yield seen, added


@ff.stage.stream
def drawing(source, *, rng, mark):
    """Two at a time, with a number for both."""
    while pair := list(islice(source, 2)):
        number = int(rng.integers(1 << 40))
        for datapoint in pair:
            yield datapoint, number
        mark()


OWN = [chunked(3), paired(), held_back(4), running(), drawing()]
SOURCES = [
    lambda: range(40),
    lambda: streamed(range(40)),
    lambda: ff.filter(last_digit, range(45)),
    lambda: ff.pipe(streamed(range(45)), ff.filter(last_digit), ff.map(last_digit), ff.repeat(2)),
    lambda: ff.pipe(range(99), ff.filter(last_digit), ff.batch(2), ff.unbatch()),
    lambda: ff.pipe(range(99), ff.filter(last_digit), ff.batch(2), ff.map(lambda batch: int(batch.sum()))),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("own", OWN)
def test_a_stage_that_marks_keeps_the_laws(own, source):
    check(lambda: own(source()), workers=({"threads": 2},), epochs=(0,), stops=8)
    check(lambda: ff.pipe(source(), own, ff.map(str), ff.filter(lambda text: "7" not in text)), workers=(), epochs=(1,))


@pytest.mark.parametrize("own", OWN)
def test_a_stage_that_marks_resumes_without_reading_again(own):
    read = []

    def make_flow():
        return ff.pipe(ff.map(lambda x: read.append(x) or x, range(1000)), ff.filter(last_digit), own)

    expected = list(make_flow())
    for k in (200, 201, 202):
        _, flow = resumed(make_flow, k)
        read.clear()
        assert list(islice(iter(flow), 5)) == expected[k : k + 5]
        assert (
            len(read) < 40 if own != OWN[2] else read[0] == 0
        )  # more than one unused: what is upstream has no anchor for it


def test_marks_and_their_positions_are_in_the_state():
    def anchors(own, k):
        return list(json.loads(resumed(lambda: own(range(40)), k)[0])["anchors"].values())

    assert anchors(chunked(3), 0) == [[[0], 0, [0]]]
    assert anchors(chunked(3), 5) == [[[0], 4, [12]]]
    assert anchors(paired(), 5) == [[[0], 4, [4]]]
    assert anchors(held_back(4), 5) == [[[0], 5, [5]]]
    assert anchors(running(), 5) == [[[0], 5, [5, 5, 10]]]


def test_a_stage_started_at_a_mark_draws_what_it_would_have_drawn():
    whole = list(drawing(range(20)))
    assert len({number for _, number in whole}) == 10
    for k in range(21):
        assert list(resumed(lambda: drawing(range(20)), k)[1]) == whole[k:]


def test_a_mark_belongs_to_its_round():
    def make_flow():
        return ff.pipe(streamed(range(7)), running(), ff.repeat(3), ff.skip(2))

    whole = list(make_flow())
    for k in range(len(whole) + 1):
        assert list(resumed(make_flow, k)[1]) == whole[k:]
