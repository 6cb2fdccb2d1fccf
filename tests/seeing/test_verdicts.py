"""Verdicts on pipelines whose bottleneck is known: they are made of sleeps, so that little is computed."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import flowfn as ff
from flowfn.seeing.profiling.lanes import _held_by_lock, lanes_of
from flowfn.seeing.profiling.modelling import Lane
from flowfn.seeing.profiling.verdicts import Verdict, verdict_in_words

N = 25
LONG, SHORT = 0.010, 0.002
WORDS = [{"token": str(number)} for number in range(6000)]


class Slow:
    """A sequence whose datapoints take long."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 400

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return index


def decode(x):
    time.sleep(LONG)
    return x


def quick(x):
    time.sleep(SHORT)
    return x


def uneven(x):
    time.sleep(0.1 if x % 8 == 3 else SHORT)
    return np.empty(1 << 18)


def glue(datapoints):
    time.sleep(LONG)
    return datapoints


def odd(x):
    time.sleep(SHORT)
    return x % 4 == 1


def compute(x):
    until = time.thread_time() + 0.006
    while time.thread_time() < until:
        pass
    return x


def words(x):
    return WORDS


def image(x):
    return np.full((1000, 1000), x, np.float64)


def late(x):
    time.sleep(0.3 if x == 0 else SHORT)
    return x


def stream():
    for number in range(400):
        time.sleep(LONG)
        yield number


def fast():
    return iter(range(400))


class Case(NamedTuple):
    """A pipeline, the consumer's step in seconds, which stage holds it, and the knob: an option of a prefetch, "prefetch"
    for one to put last, "last" for one to move there, or None."""

    make: Any
    step: float
    stage: str
    knob: str | None
    exact: bool = True  # whether it sleeps: what is computed depends on who else computes
    said: str = ""  # what else is remarked on


def _pipe(*stages):
    return lambda: ff.pipe(*stages)


POOL = ThreadPoolExecutor(2)
CASES = {
    "a map, and no prefetch": Case(_pipe(range(400), ff.map(decode)), LONG, "map(decode)", "prefetch"),
    "a source, and no prefetch": Case(_pipe(Slow(LONG)), SHORT, "flow(", "prefetch"),
    "a map that waits, in one thread": Case(
        _pipe(range(400), ff.map(decode), ff.prefetch(4)), SHORT, "map(decode)", "threads"
    ),
    "too few threads": Case(
        _pipe(range(400), ff.map(decode), ff.prefetch(4, threads=2)), SHORT, "map(decode)", "threads", True, "a disk"
    ),
    "too few processes": Case(
        _pipe(range(400), ff.map(decode), ff.prefetch(4, processes=1)), SHORT, "map(decode)", "processes"
    ),
    "a source by index, in threads": Case(
        _pipe(Slow(LONG), ff.map(quick), ff.prefetch(4, threads=2)), SHORT, "flow(", "threads"
    ),
    "a map that computes, in threads": Case(
        _pipe(range(400), ff.map(compute), ff.prefetch(4, threads=2)), 0.0, "map(compute)", "processes", False, "lock"
    ),
    "a stream's head, threads behind it": Case(
        _pipe(stream, ff.map(quick), ff.prefetch(4, threads=2)), SHORT, "flow(stream)", None
    ),
    "a stream's head, processes behind it": Case(
        _pipe(stream, ff.map(quick), ff.prefetch(4, processes=2)), SHORT, "flow(stream)", None
    ),
    "a map behind a buffer, in one process": Case(
        _pipe(fast, ff.shuffle_buffer(4), ff.map(decode), ff.prefetch(4, processes=1)),
        SHORT,
        "map(decode)",
        "processes",
    ),
    "unequal datapoints, and little ahead": Case(
        _pipe(range(400), ff.map(uneven), ff.prefetch(1, threads=2)), LONG, "map(uneven)", "ahead"
    ),
    "collate behind the prefetch": Case(
        _pipe(range(400), ff.map(quick), ff.prefetch(8, threads=2), ff.batch(2, collate=glue)),
        SHORT,
        "batch(2, collate=glue)",
        "prefetch",
    ),
    "collate in workers": Case(
        _pipe(range(400), ff.map(quick), ff.batch(2, collate=glue), ff.prefetch(2, threads=2)),
        SHORT,
        "batch(2, collate=glue)",
        "threads",
    ),
    "a slow consumer": Case(_pipe(range(400), ff.map(quick), ff.prefetch(4, threads=2)), LONG, "the consumer", None),
    "a slow consumer of processes": Case(
        _pipe(range(400), ff.map(quick), ff.prefetch(4, processes=2)), LONG, "the consumer", None
    ),
    "a first output that takes long": Case(
        _pipe(range(400), ff.map(late), ff.prefetch(4, threads=2)), LONG, "the consumer", None
    ),
    "somebody's executor": Case(
        _pipe(range(400), ff.map(decode), ff.prefetch(4, executor=POOL)),
        SHORT,
        "map(decode)",
        None,
        True,
        "2 workers in an executor wait (",
    ),
    "datapoints that pickle slowly": Case(
        _pipe(range(400), ff.map(words), ff.prefetch(4, processes=2)),
        0.0,
        "hands over",
        None,
        False,
    ),
    "large outputs": Case(_pipe(range(400), ff.map(image)), 0.0, "map(image)", "prefetch", False, "is memory"),
    "a filter that lets little through": Case(
        _pipe(range(4000), ff.filter(odd), ff.prefetch(2, threads=2)), SHORT, "filter(odd)", "threads"
    ),
    "one of two sources": Case(
        lambda: ff.zip(ff.pipe(range(400), ff.map(decode)), ff.pipe(range(400), ff.map(quick))),
        LONG,
        "map(decode)",
        "prefetch",
    ),
    "the second of two prefetches": Case(
        _pipe(range(400), ff.map(quick), ff.prefetch(4), ff.map(decode), ff.prefetch(4, threads=2)),
        SHORT,
        "map(decode)",
        "threads",
    ),
    "a buffer over a slow stream": Case(
        _pipe(stream, ff.shuffle_buffer(4), ff.prefetch(2)), SHORT, "flow(stream)", None
    ),
}


ATTEMPTS = 6
"""What is measured while others work on this machine may be those."""


def profiled(flow, step, n=N):
    return ff.profile(flow, (lambda _: time.sleep(step)) if step else None, n)


def fastest(flow, step):
    """The profile of the pass that was disturbed least, long enough that what is made before the first does not count."""
    return max((profiled(flow, step, 3 * N) for _ in range(3)), key=lambda found: found.per_second)


def turned_as(verdict):
    """Which knob is meant."""
    knob = verdict.knob
    if knob is None:
        return None
    return "last" if knob.moved else "prefetch" if knob.place is None else [*knob.options][-1]


@pytest.fixture(scope="module", autouse=True)
def workers():
    ff.warm_up(1)
    ff.warm_up(2)
    yield
    ff.shut_down()
    POOL.shutdown()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if case.exact else pytest.mark.alone) for name, case in CASES.items()]
)
def test_a_verdict_names_the_stage_and_the_knob(name):
    case = CASES[name]
    for _ in range(ATTEMPTS):
        found = profiled(case.make(), case.step)
        said = case.said in " ".join(found.verdict.remarks)
        if case.stage in found.verdict.stage and turned_as(found.verdict) == case.knob and said:
            return
    raise AssertionError(f"not {case.stage!r} and {case.knob!r}:\n{found}")


@pytest.mark.alone
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.knob and case.exact])
def test_turning_the_knob_gains_what_was_said(name):
    case = CASES[name]
    found = fastest(case.make(), case.step)
    turned = fastest(found.verdict.turned(case.make()), case.step)
    gain = turned.per_second / found.per_second
    assert gain == pytest.approx(found.verdict.gain, rel=0.25), f"{found}\n\n{turned}"


def test_workers_that_make_parts_of_batches_are_not_held_by_room():
    flow = ff.pipe(range(4000), ff.map(quick), ff.batch(64), ff.prefetch(1, threads=2))
    found = ff.profile(flow, n=8)
    lane = lanes_of(found.recording, found.plan, 4)[0]
    assert lane.ratio > 1  # parts of a batch for each
    assert lane.window == 1 + 2
    assert found.verdict.bound >= found.per_second * 0.999
    assert "memory" not in str(found)  # which a sleep does not need


def test_a_consumer_that_hardly_waits_is_not_told_of_more_workers():
    flow = ff.pipe(range(400), ff.map(quick), ff.prefetch(4, threads=2))
    for _ in range(ATTEMPTS):
        found = profiled(flow, LONG, 8)
        if not found.verdict.waits:
            assert not any("help" in remark for remark in found.verdict.remarks)
            return
    raise AssertionError(found)


def test_a_remark_begins_with_a_stage_as_it_is_written():
    verdict = Verdict(0.0, 0.0, "", 1.0, None, 1.0, "", False, ("map(f) is slow", "more would help"))
    assert [*verdict_in_words(verdict, 2, 1.0, 0.0, None)][-2:] == ["map(f) is slow.", "More would help."]


@pytest.mark.parametrize(("delayed", "held"), [(0.0, True), (0.5, False)])
def test_threads_that_wait_for_a_processor_do_not_wait_for_the_lock(delayed, held):
    track = SimpleNamespace(process=os.getpid(), start=np.zeros(1), end=np.ones(1), place=np.array([3]))
    recording = SimpleNamespace(tracks=[track], cpu=lambda *_: 0.9, delayed=lambda _: delayed)
    lane = Lane(3, (3,), "threads", 2, np.ones(4), 0.6)
    assert _held_by_lock([lane], recording, 2, True)[0].waits_for_lock is held
