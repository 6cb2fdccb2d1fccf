"""What several threads use at once: they take turns at any place, or, without a global lock, run side by side."""

import sys
import threading

import numpy as np
import pytest
from comparing import assert_same
from sources import Stream, noisy

import flowfn as ff

THREADS, PASSES = 8, 3
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def turns():
    """Threads that take turns do so often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(call):
    """What `call(number)` gives in each of several threads that begin together."""
    begin, came = threading.Barrier(THREADS), [None] * THREADS

    def run(number):
        begin.wait()
        try:
            came[number] = call(number)
        except BaseException as error:  # raised in the test
            came[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in came:
        if isinstance(one, BaseException):
            raise one
    return came


def large(x):
    """An array of the size from which on memory is used again."""
    return np.full((16, 1024), x, "f8")


def picky(x):
    if x % 7 == 3:
        raise ValueError(x)
    return x


FLOWS = {
    "memory that is used again": lambda: ff.pipe(range(40), ff.map(large), ff.batch(4)),
    "and by threads of its own": lambda: ff.pipe(range(40), ff.map(large), ff.batch(4), ff.prefetch(3, threads=2)),
    "orders": lambda: ff.pipe(ff.concat(range(90), range(50)), ff.shuffle(), ff.repeat(2), ff.batch(8)),
    "mixes": lambda: ff.pipe(
        ff.mix(ff.pipe(range(60), ff.cycle()), ff.pipe(range(40), ff.shuffle(), ff.cycle()), weights=[0.7, 0.3]),
        ff.take(300),
    ),
    "random numbers": lambda: ff.pipe(range(200), ff.shuffle(), ff.map(noisy, rng=True)),
    "buffers": lambda: ff.pipe(Stream(range(200)), ff.shuffle_buffer(20), ff.map(noisy, rng=True), ff.batch(3)),
    "what is left out": lambda: ff.pipe(
        range(100), ff.guard(ff.map(picky), errors=ValueError, then="drop"), ff.batch(4)
    ),
    "packs": lambda: ff.pipe(range(1, 60), ff.map(lambda x: np.arange(x)), ff.pack(64)),
}


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
def test_passes_side_by_side_are_those_of_one_alone(make):
    """Of one flow, and what came out is not written to while it is held."""
    expected = [list(make().run(epoch=epoch)) for epoch in range(PASSES)]
    flow = make()
    for came in at_once(lambda _: [list(flow.run(epoch=epoch)) for epoch in range(PASSES)]):
        assert_same(came, expected)


@pytest.mark.parametrize("kept", ["in memory", "in a folder"])
def test_what_is_kept_is_made_right_when_all_ask_first(kept, tmp_path):
    made = []
    stage = ff.cache() if kept == "in memory" else ff.cache_to(tmp_path / "kept")
    flow = ff.pipe(range(60), ff.map(lambda x: made.append(x) or large(x)), stage, ff.map(lambda a: float(a[0, 0])))
    for came in at_once(lambda _: [flow[index] for index in range(60)]):
        assert came == [float(x) for x in range(60)]
    assert set(made) == set(range(60))
    made.clear()
    assert list(flow) == [float(x) for x in range(60)]
    assert not made


def test_what_is_left_out_is_counted_by_each_pass():
    flow = ff.pipe(range(700), ff.guard(ff.map(picky), errors=ValueError, then="drop"), ff.prefetch(4, threads=2))

    def dropped(_):
        with iter(flow) as iterator:
            return len(list(iterator)), len(iterator.dropped)

    assert at_once(dropped) == [(600, 100)] * THREADS


@pytest.mark.parametrize("source", [range(40), Stream(range(40))], ids=["a sequence", "a stream"])
def test_an_iterator_is_read_by_one_thread_at_a_time_and_loses_nothing(source):
    """By itself Python says that a generator is already executing, as if the datapoint had failed."""
    refused = []

    def try_too():
        with pytest.raises(RuntimeError, match="being read already, by another thread") as caught:
            next(iterator)
        refused.append(caught.value)

    def meanwhile(x):
        if x == 20:
            other = threading.Thread(target=try_too)
            other.start()
            other.join()
            try_too()
        return x

    iterator = iter(ff.pipe(source, ff.map(meanwhile)))
    assert list(iterator) == list(range(40))
    assert len(refused) == 2
