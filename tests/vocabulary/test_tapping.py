"""`tap`, which looks at datapoints on their way, and `seeded`,
which lends a datapoint's own randomness to functions."""

import os
import pickle
import random
import sys
import threading
import types
from itertools import count, islice

import numpy as np
import pytest
from sources import noisy, streamed

import flowfn as ff
from flowfn.testing import check

WORKERS = ({}, {"threads": 2}, {"processes": 2})


def even(datapoint):
    return datapoint % 2 == 0


# tap


@pytest.mark.parametrize("data", [[], [None], [1, None, 2], [[1, 2], {"a": 3}, np.arange(3)]])
@pytest.mark.parametrize("first", [None, 0, 1, 2, 100])
def test_tap_gives_on_the_very_datapoints_and_calls_with_them(data, first):
    for source in (data, streamed(data)):
        seen = []
        given = list(ff.tap(seen.append, source, first=first))
        assert list(map(id, given)) == list(map(id, data))
        assert list(map(id, seen)) == list(map(id, data[:first]))


def test_tap_takes_no_notice_of_what_the_function_returns():
    assert list(ff.tap(lambda x: None, [1, 2])) == list(ff.tap(lambda x: x + 1, [1, 2])) == [1, 2]


def test_tap_calls_once_a_datapoint_in_order_and_before_it_is_given():
    seen = []
    for number, datapoint in enumerate(ff.tap(seen.append, range(5))):
        assert seen[-1] == datapoint == number
    assert seen == [0, 1, 2, 3, 4]


def test_tap_is_indexed_and_as_long_as_its_source():
    seen = []
    flow = ff.pipe(range(10), ff.tap(seen.append), ff.map(str))
    assert len(flow) == 10
    assert flow[7] == "7"
    assert list(flow[2:4]) == ["2", "3"]
    assert seen == [7, 2, 3]


def test_tap_counts_its_first_in_every_pass():
    for source in (range(5), streamed(range(5))):
        seen = []
        flow = ff.tap(seen.append, source, first=2)
        for number in range(1, 4):
            list(flow)
            assert seen == [0, 1] * number
        with iter(flow) as one, iter(flow) as other:
            list(zip(one, other))
        assert seen[6:] == [0, 0, 1, 1]


def test_tap_counts_its_first_over_all_rounds_of_a_pass():
    for source in (range(3), streamed(range(3))):
        seen = []
        flow = ff.pipe(source, ff.tap(seen.append, first=4), ff.repeat(3))
        assert list(flow) == [0, 1, 2] * 3
        assert seen == [0, 1, 2, 0]


def test_a_resumed_pass_is_tapped_as_a_pass():
    for source in (range(9), streamed(range(9))):
        seen = []

        def make_flow(source=source, seen=seen):
            return ff.pipe(source, ff.map(float), ff.tap(seen.append, first=2))

        with iter(make_flow()) as iterator:
            list(islice(iterator, 5))
            state = iterator.state_dict()
        assert seen == [0, 1]
        assert list(make_flow().load_state_dict(state)) == [5, 6, 7, 8]
        assert seen == [0, 1, 5, 6]


def test_tap_sees_what_a_filter_leaves_and_what_it_is_given():
    below, above = [], []
    flow = ff.pipe(
        range(10), ff.tap(below.append, first=3), ff.filter(even), ff.tap(above.append, first=3), ff.batch(2)
    )
    assert [batch.tolist() for batch in flow] == [[0, 2], [4, 6], [8]]
    assert (below, above) == ([0, 1, 2], [0, 2, 4])


def test_tap_over_batches_counts_batches():
    seen = []
    list(ff.pipe(range(10), ff.batch(3), ff.tap(lambda batch: seen.append(batch.tolist()), first=2)))
    assert seen == [[0, 1, 2], [3, 4, 5]]
    seen.clear()
    list(ff.pipe(range(10), ff.tap(seen.append, first=4), ff.batch(3), ff.shuffle()))
    assert len(seen) == 4


def test_tap_over_endless_flows():
    seen = []
    assert list(ff.pipe(count(), ff.tap(seen.append, first=2), ff.take(4))) == [0, 1, 2, 3]
    assert list(ff.pipe([1], ff.cycle(), ff.tap(seen.append, first=2), ff.take(4))) == [1] * 4
    assert seen == [0, 1, 1, 1]


@pytest.mark.parametrize("keywords", [{}, {"threads": 2}])
@pytest.mark.parametrize("source", [range(50), streamed(range(50))])
def test_tap_sees_the_same_in_threads(source, keywords):
    seen = []
    flow = ff.pipe(source, ff.tap(seen.append), ff.prefetch(4, **keywords))
    list(flow)
    assert sorted(seen) == list(range(50))
    seen.clear()
    flow = ff.pipe(source, ff.tap(seen.append, first=3), ff.prefetch(4, **keywords))
    list(flow), list(flow)
    assert len(seen) == 6


@pytest.mark.parametrize("source", [range(4), streamed(range(4))])
def test_tap_counts_its_first_over_all_rounds_in_threads_too(source):
    seen = []
    list(ff.pipe(source, ff.tap(seen.append, first=3), ff.cycle(), ff.take(20), ff.prefetch(2, threads=2)))
    assert len(seen) == 3


def test_tap_counts_anew_in_worker_processes_in_every_pass(tmp_path):
    def note(datapoint):
        with open(tmp_path / "seen", "a") as file:
            file.write("x")

    for source in (range(10), streamed(range(10))):
        flow = ff.pipe(source, ff.tap(note, first=2), ff.prefetch(2, processes=2))
        for _ in range(3):
            (tmp_path / "seen").write_text("")
            list(flow.run(epoch=0))
            assert len((tmp_path / "seen").read_text()) >= 2


def test_in_worker_processes_tap_runs_there(tmp_path):
    def note(datapoint):
        with open(tmp_path / str(os.getpid()), "a") as file:
            file.write(f"{datapoint}\n")

    list(ff.pipe(range(20), ff.tap(note), ff.prefetch(2, processes=2)))
    assert str(os.getpid()) not in os.listdir(tmp_path)
    assert sorted(int(line) for file in tmp_path.iterdir() for line in file.read_text().split()) == list(range(20))


def test_an_error_in_what_tap_calls_is_located():
    for source in (range(-2, 3), streamed(range(-2, 3))):
        for first in (None, 4):
            with pytest.raises(ZeroDivisionError) as raised:
                list(ff.tap(lambda x: 1 / x, source, first=first))
            assert ", its datapoint 2 (input 0), seed 0, epoch 0" in raised.value.__notes__[0]
    assert list(ff.tap(lambda x: 1 / x, range(-2, 3), first=2)) == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.tap(3), TypeError, "tap(): f must be a function, got 3"),
        (lambda: ff.tap(), TypeError, "tap(): missing a required argument: 'f'"),
        (lambda: ff.tap(print, first=-1), ValueError, "tap(): first must be an integer >= 0 or None, got -1"),
        (lambda: ff.tap(print, first=1.5), TypeError, "tap(): first must be an integer >= 0 or None, got 1.5"),
        (lambda: ff.tap(print, first=True), TypeError, "tap(): first must be an integer >= 0 or None, got True"),
        (lambda: ff.tap(print, first="2"), TypeError, "tap(): first must be an integer >= 0 or None, got '2'"),
        (lambda: ff.tap(print, [1], tickets=[]), TypeError, "tap(): got an unexpected keyword argument 'tickets'"),
        (lambda: ff.seeded(3), TypeError, "seeded(): f must be a function, got 3"),
        (
            lambda: ff.seeded(abs)(3),
            TypeError,
            "seeded(f) is called with a datapoint and a generator; write map(seeded(f), rng=True)",
        ),
    ],
)
def test_wrong_arguments_are_named_at_once(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message


def test_tap_is_shown_compares_and_pickles():
    assert repr(ff.tap(print)) == "tap(print)"
    assert repr(ff.tap(print, [1], first=2)) == "pipe(flow([1]), tap(print, first=2))"
    assert ff.tap(print, first=2) == ff.tap(print, first=2) != ff.tap(print, first=3)
    assert pickle.loads(pickle.dumps(ff.tap(print, first=2))) == ff.tap(print, first=2)


@pytest.mark.parametrize("first", [None, 0, 3])
@pytest.mark.parametrize(
    "source", [lambda: list(range(17)), lambda: streamed(range(17)), lambda: ff.filter(even, range(20)), list]
)
def test_tap_keeps_the_laws(source, first):
    check(lambda: ff.pipe(source(), ff.tap(str, first=first), ff.map(noisy, rng=True)), workers=({}, {"threads": 2}))


@pytest.mark.parametrize("workers", WORKERS)
def test_tap_and_seeded_keep_the_laws_in_workers(workers):
    def make_flow():
        noise = ff.map(ff.seeded(drawn), rng=True)
        return ff.pipe(
            range(12), ff.shuffle(), ff.tap(str, first=4), noise, ff.filter(kept), ff.tap(str), noise, ff.batch(2)
        )

    check(make_flow, workers=(workers,), stops=5)


# seeded


def drawn(datapoint):
    """Draws from every global state there is without torch."""
    return [
        datapoint,
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.normal()),
        random.getrandbits(40),
    ]


def kept(datapoint):
    return datapoint[1] > 0.3


def states():
    algorithm, keys, *others = np.random.get_state()
    return random.getstate(), algorithm, keys.tolist(), others


def test_seeded_draws_the_same_for_the_same_datapoint_and_run():
    flow = ff.map(ff.seeded(drawn), range(20), rng=True)
    once = list(flow.run(epoch=2))
    random.seed(9)
    np.random.seed(9)
    assert list(flow.run(epoch=2)) == once
    assert list(ff.map(ff.seeded(drawn), streamed(range(20)), rng=True).run(epoch=2)) == once
    flow.set_epoch(2)
    assert [flow[i] for i in (7, 3)] == [once[7], once[3]]
    for other in (flow.run(epoch=3), flow.run(epoch=2, seed=1)):
        assert not {row[1] for row in once} & {row[1] for row in other}


def test_seeded_draws_other_numbers_for_every_datapoint_and_from_every_generator():
    rows = list(ff.map(ff.seeded(drawn), [0] * 50, rng=True))
    assert len({value for row in rows for value in row[1:]}) == 250


def test_seeded_leaves_the_global_states_as_they_were():
    random.gauss(0, 1), np.random.normal()  # both generators now keep half a pair
    before = states()
    flow = ff.map(ff.seeded(drawn), range(5), rng=True)
    list(flow), flow[2]
    assert states() == before
    expected = random.gauss(0, 1), np.random.normal()
    random.setstate(before[0])
    np.random.set_state((before[1], before[2], *before[3]))
    list(flow)
    assert (random.gauss(0, 1), np.random.normal()) == expected


def test_seeded_leaves_the_global_states_as_they_were_after_an_error():
    def failing(datapoint):
        raise OSError(f"drew {random.random()} {np.random.rand()}")

    before, messages = states(), []
    flow = ff.map(ff.seeded(failing), [1], rng=True)
    for _ in range(2):
        with pytest.raises(OSError, match="drew") as raised:
            list(flow.run())
        messages.append(str(raised.value))
        assert states() == before
    assert messages[0] == messages[1]
    assert raised.value.__notes__[0].startswith("in map(seeded(failing), rng=True), its datapoint 0 (input 1)")


def test_seeded_can_be_nested():
    def nested(datapoint):
        first = random.random()
        inner = list(ff.map(ff.seeded(drawn), [datapoint], rng=True).run(seed=5))
        return first, random.random(), inner

    before = states()
    flow = ff.map(ff.seeded(nested), range(3), rng=True)
    first, second, inner = list(flow.run())[1]
    assert first != second
    assert inner == list(ff.map(ff.seeded(drawn), [1], rng=True).run(seed=5))
    plain = list(ff.map(ff.seeded(lambda x: (random.random(), random.random())), range(3), rng=True).run())[1]
    assert (first, second) == plain
    assert states() == before


def test_seeded_works_wherever_a_generator_is_given():
    drew = ff.seeded(lambda x: random.random())
    flow = ff.pipe(
        [[1, 2]] * 30,
        ff.map_component(drew, 0, rng=True),
        ff.filter(ff.seeded(lambda d: random.random() < 0.5), rng=True),
    )
    assert list(flow.run()) == list(flow.run())
    assert 0 < len(list(flow.run())) < 30
    listed = ff.flat_map(ff.seeded(lambda x: [random.random()] * 2), range(3), rng=True)
    assert list(listed.run()) == list(listed.run())


@pytest.mark.parametrize("workers", [{}, {"threads": 4}, {"processes": 1}, {"processes": 2}])
def test_seeded_draws_the_same_in_workers(workers):
    before = states()
    for source in (range(40), streamed(range(40))):
        flow = ff.map(ff.seeded(drawn), source, rng=True)
        assert list(ff.prefetch(4, source=flow, **workers).run()) == list(flow.run())
    assert states() == before


def test_threads_take_turns_with_the_global_states():
    def slow(datapoint):
        first = random.random()
        for _ in range(200):
            np.random.rand()
        return first, random.random(), np.random.rand()

    flow = ff.map(ff.seeded(slow), range(100), rng=True)
    expected, got = list(flow.run()), {}

    def read(name):
        got[name] = list(flow.run())

    threads = [threading.Thread(target=read, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(got[name] == expected for name in range(4))


class FakeTorch(types.ModuleType):
    """The three functions of torch that matter here, over a generator of its own."""

    def __init__(self):
        super().__init__("torch")
        self.generator = random.Random(1)
        self.get_rng_state = lambda: self.generator.getstate()
        self.set_rng_state = lambda state: self.generator.setstate(state)
        self.rand = lambda: self.generator.random()

    def manual_seed(self, seed):
        if not 0 <= seed < 1 << 63:
            raise RuntimeError("Overflow when unpacking long")
        self.generator.seed(seed)


def test_seeded_reaches_torch_if_it_is_there(monkeypatch):
    torch = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    before = torch.get_rng_state()
    flow = ff.map(ff.seeded(lambda x: (torch.rand(), random.random())), range(20), rng=True)
    once = list(flow.run())
    assert once == list(flow.run())
    assert len({number for row in once for number in row}) == 40
    assert torch.get_rng_state() == before
    with pytest.raises(ZeroDivisionError):
        list(ff.map(ff.seeded(lambda x: torch.rand() / 0), [1], rng=True))
    assert torch.get_rng_state() == before


def test_seeded_does_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as it is where its import is forbidden
    assert len(list(ff.map(ff.seeded(drawn), range(3), rng=True))) == 3
    monkeypatch.delitem(sys.modules, "torch")
    assert len(list(ff.map(ff.seeded(drawn), range(3), rng=True))) == 3
    assert "torch" not in sys.modules


def test_seeded_without_rng_says_what_to_write():
    with pytest.raises(TypeError, match=r"write map\(seeded\(f\), rng=True\)") as raised:
        list(ff.map(ff.seeded(abs), [1]))
    assert raised.value.__notes__[0].startswith("in map(seeded(abs)), its datapoint 0 (input 1)")


def test_seeded_is_shown_compares_and_pickles():
    assert repr(ff.seeded(drawn)) == "seeded(drawn)"
    assert repr(ff.map(ff.seeded(drawn), rng=True)) == "map(seeded(drawn), rng=True)"
    assert ff.seeded(drawn) == ff.seeded(drawn) != ff.seeded(kept)
    assert len({ff.seeded(drawn), ff.seeded(drawn), ff.seeded(kept)}) == 2
    assert pickle.loads(pickle.dumps(ff.seeded(drawn))) == ff.seeded(drawn)
    with pytest.raises(AttributeError):
        ff.seeded(drawn).f = kept
