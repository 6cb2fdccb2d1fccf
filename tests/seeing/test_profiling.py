"""What a profile holds, what it leaves alone, and what comes of turning its knobs."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import flowfn as ff
from flowfn.interop import to_torch
from flowfn.seeing.profiling import Profiler
from flowfn.seeing.profiling.alternatives import reordered, usual
from flowfn.seeing.profiling.knobs import Knob, _spread
from flowfn.seeing.profiling.modelling import Lane, seconds_to_hand, simulated
from flowfn.seeing.profiling.racing import Racer, race, rate_of, told_apart
from flowfn.seeing.profiling.summing import _lane_name
from flowfn.seeing.profiling.tuning import Search


def slow(x):
    time.sleep(0.004)
    return x


def failing(x):
    if x == 5:
        raise OSError("gone")
    return x


def noisy(x, rng):
    return x + rng.random()


def everything(**how):
    """A pipeline with each kind of stage, in workers and out of them."""
    return ff.pipe(
        range(200),
        ff.shuffle(),
        ff.map(noisy, rng=True),
        ff.filter(lambda x: int(x) % 3),
        ff.shuffle_buffer(8),
        ff.map(float),
        ff.batch(4),
        ff.prefetch(3, **how),
    )


@pytest.mark.parametrize("how", [{}, {"threads": 2}, {"processes": 1}], ids=str)
def test_a_pass_that_is_profiled_gives_what_it_gives_and_saves_the_same_state(how):
    flow = everything(**how)
    expected = [batch.tolist() for batch in flow.run(epoch=0)]
    profiler = ff.profile(flow)
    assert isinstance(profiler, Profiler)
    with profiler as each:
        iterator = iter(each)
        given = [next(iterator).tolist() for _ in range(5)]
        state = iterator.state_dict()
    assert given == expected[:5]
    rest = [batch.tolist() for batch in everything(**how).load_state_dict(state)]
    assert rest == expected[5:]
    found = profiler.profile
    assert found.outputs == 5
    calls = {stage.stage: stage.calls for stage in found.stages}
    assert calls["map(noisy, rng=True)"] >= 20
    assert calls[f"{flow.part}"] == 5
    assert flow.epoch == 1
    ff.shut_down()


def test_own_seconds_are_those_of_the_stage_alone():
    flow = ff.pipe(range(60), ff.map(slow), ff.batch(4), ff.map(slow))
    found = ff.profile(flow, n=8)
    first, last = (next(one for one in found.stages if one.place == place) for place in (1, 3))
    assert (first.calls, last.calls) == (32, 8)
    assert 0.004 <= first.p50 < 0.05
    assert 0.004 <= last.p50 < 0.05
    assert last.own < first.own
    assert sum(one.exposed for one in found.stages) == pytest.approx(found.verdict.waiting, rel=0.1)
    assert found.verdict.share > 0.9
    assert flow.epoch == 0


def test_gathered_rows_are_counted_and_weighed():
    found = ff.profile(ff.pipe(ff.from_arrays(np.zeros((640, 100))), ff.shuffle(), ff.batch(64)), n=10)
    assert found.stages[-1].calls == 10
    assert found.stages[-1].bytes == 64 * 100 * 8


def test_what_was_dropped_is_told_from_workers_too():
    flow = ff.pipe(range(20), ff.guard(ff.map(failing), errors=OSError, then="drop"), ff.prefetch(2, threads=2))
    found = ff.profile(flow, n=20)
    assert [dropped.index for dropped in found.dropped] == [5]
    assert "Dropped: datapoint 5, OSError: gone" in str(found)


def test_the_consumer_alone_is_tried_from_memory():
    found = ff.profile(ff.pipe(range(30), ff.map(slow), ff.batch(2)), slow, n=10)
    assert 100 < found.headroom < 250
    with pytest.raises(ValueError, match="at least two outputs"):
        ff.profile([], n=10)
    assert ff.profile(range(1), n=5).outputs == 5  # of five passes
    with pytest.raises(ValueError, match="nothing was profiled yet"):
        ff.profile(range(9)).profile  # noqa: B018


def test_an_error_in_the_loop_is_that_error_and_the_flow_is_whole_again():
    flow = ff.pipe(range(9), ff.map(lambda x: 1 // (x - 3)))
    with pytest.raises(ZeroDivisionError, match="by zero") as raised, ff.profile(flow) as profiler:
        list(profiler)
    assert "in map(<lambda>), its datapoint 3 (input 3)" in raised.value.__notes__[0]
    assert type(flow.node).__mro__[1].__name__ != "Probed"


def test_tune_finds_workers_for_a_map_that_waits():
    flow = ff.pipe(range(4000), ff.map(slow), ff.batch(2))
    found = ff.tune(flow, slow, seconds=3)
    assert found.gain > 1.5
    assert "prefetch(" in found.sentence
    assert found.sentence in str(found)
    assert repr(flow) == "pipe(flow(range(0, 4000)), map(slow), batch(2))"
    assert len(found.trials) > 1


def test_tune_says_where_it_had_too_little():
    with pytest.raises(ValueError, match=r"tune\(\): a pass must give outputs to be measured, this one gave none"):
        ff.tune([])
    assert str(ff.tune(range(100), seconds=0.01)).startswith("Leave it as it is: there was no knob to try, or no time")


def test_what_races_is_measured_by_turns_and_the_simplest_of_the_near_wins():
    fast = {2: 100.0, 4: 300.0, 8: 305.0, 16: 50.0, 1: 90.0, 3: 299.0}
    turns = []

    def measured(flow, seconds):
        turns.append(flow.part.arguments["threads"])
        return fast[turns[-1]] * (0.2 if len(turns) == 11 else 1)  # a busy moment

    racers = [Racer(ff.prefetch(2, range(9), threads=count), str(count)) for count in fast]
    assert race(racers, measured, 1.0).words == "4"
    assert turns[:6] == list(fast)
    assert set(turns[-3:]) == {2, 4, 8}
    steady, jumpy = Racer(ff.flow([1]), "", [1.0] * 4), Racer(ff.flow([1]), "", [3.0, 3.0, 0.9, 0.9])
    assert jumpy.gain(steady) > 1.5
    assert not jumpy.beats(steady)  # it was not faster in most turns
    assert Racer(ff.flow([1]), "", [1.1, 1.1, 1.1, 0.9]).beats(steady)
    assert told_apart(12, 0.3) == 0
    assert told_apart(12, 60.0) == 12


def test_a_pass_that_is_short_counts_with_what_it_takes_to_begin():
    rate = rate_of(ff.pipe(range(4), ff.map(slow), ff.prefetch(4, threads=4)), None, 0.2)
    assert 50 < rate <= 4 / 0.004


def test_processes_are_not_promised_much_for_outputs_that_take_as_long_to_hand_over():
    lanes = [
        Lane(1, (1,), "thread", 1, np.full(9, 3e-5), 1.0, ahead=2, feeds=1, handed=seconds_to_hand(3e4)),
        Lane(2, (2,), "consumer", 1, np.zeros(1), 1.0),
    ]
    steps = np.zeros(1)
    now = simulated(lanes, steps, 2)
    assert simulated(_spread(lanes, 0, "processes", 2, 1.0), steps, 2) > now
    assert simulated(_spread(lanes, 0, "threads", 2, 1.0), steps, 2) < 0.6 * now


def test_a_thread_that_waits_for_the_lock_does_not_in_processes():
    lanes = [
        Lane(1, (1,), "thread", 1, np.full(9, 2e-2), 0.6, ahead=2, feeds=1, waits_for_lock=True),
        Lane(2, (2,), "consumer", 1, np.zeros(1), 1.0),
    ]
    assert simulated(_spread(lanes, 0, "processes", 2, 1.0), np.zeros(1), 2) == pytest.approx(6e-3, rel=0.05)


def test_a_prefetch_comes_before_what_makes_tensors():
    flow = ff.pipe(range(4), ff.batch(2), to_torch())
    assert repr(Knob({"ahead": 2}).turned(flow)) == "pipe(flow(range(0, 4)), batch(2), prefetch(2), to_torch())"
    assert all(repr(turned).endswith(", to_torch())") for turned, *_ in usual(flow))


@ff.stage.composite
def sent(source):
    return ff.pipe(source, ff.map(float), ff.prefetch(2))


def test_workers_come_before_what_sends_to_a_device_ahead_of_time():
    flow = ff.pipe(range(200), ff.map(slow), sent())
    turned = ff.profile(flow, n=40).verdict.turned(flow)
    assert repr(turned).startswith("pipe(flow(range(0, 200)), map(slow), prefetch(")
    assert repr(turned).endswith("), sent())")
    assert list(turned) == list(range(200))
    assert all(repr(one).endswith("), sent())") for one, *_ in usual(flow))


def test_what_is_done_once_does_not_hold_a_pass():
    begun = []

    def opens(x):
        if not begun:
            begun.append(time.sleep(0.5))
        return x

    assert ff.profile(ff.pipe(range(60), ff.map(opens), ff.map(slow)), n=60).verdict.stage == "map(slow)"


def test_an_expensive_map_behind_a_batch_is_remarked_on():
    remarks = ff.profile(ff.pipe(range(80), ff.batch(4), ff.map(slow)), n=20).verdict.remarks
    assert any(one.startswith("map(slow) works on whole outputs of batch(4); before it") for one in remarks)


def test_whole_outputs_wait_where_workers_make_parts_of_them():
    lane = Lane(3, (3,), "threads", 2, np.ones(4), 1.0, ahead=2, feeds=1, prefetch=SimpleNamespace(place=4))
    search = object.__new__(Search)
    search.profile = SimpleNamespace(recording=SimpleNamespace(sizes={3: 10.0, 4: 100.0}))
    for search.most, fits in ((400, True), (399, False)):
        assert search._fits([lane]) is fits


def test_a_ufunc_goes_behind_batch_only_where_that_gives_the_same():
    def swapped(source, *stages):
        return [repr(flow).partition(", ")[2] for flow, _ in reordered(ff.pipe(source, *stages))]

    rows = [np.full(8, row, np.float64) for row in range(9)]
    assert swapped(rows, ff.map(np.sqrt), ff.batch(5), ff.prefetch(2))[0].endswith("batch(5), map(sqrt), prefetch(2))")
    assert swapped(ff.from_arrays(np.ones((9, 8))), ff.map(np.sqrt), ff.batch(5)) == []
    assert swapped(rows, ff.map(np.copy), ff.batch(5)) == []
    assert swapped(rows, ff.map(np.sqrt), ff.batch(5, collate=None)) == []


def test_a_monitor_counts_and_reports_and_the_flow_advances():
    said = []
    flow = ff.pipe(range(400), ff.map(slow), ff.batch(4), ff.prefetch(4, threads=2))
    with ff.monitor(flow, said.append, every=0.05) as monitored:
        for _ in range(2):
            iterator = iter(monitored)
            for _ in range(20):
                next(iterator)
                time.sleep(0.002)
            state = iterator.state_dict()
            iterator.close()
    counted = monitored.counters()
    assert (counted.outputs, counted.passes, flow.epoch) == (40, 2, 2)
    assert state["position"] == 20
    assert 38 * 0.002 <= counted.working < 1
    assert counted.waiting > counted.first > 0
    assert len(said) > 2
    lines = counted.openmetrics(rank="0").splitlines()
    assert 'flowfn_outputs_total{rank="0"} 40' in lines
    assert lines[-1] == "# EOF"


def test_of_the_tasks_of_workers_a_monitor_times_some(monkeypatch):
    monkeypatch.setattr("flowfn.seeing.profiling.monitoring.EVERY", 2)
    with ff.monitor(ff.pipe(range(60), ff.map(slow), ff.prefetch(4, threads=2))) as monitored:
        assert list(monitored) == list(range(60))
    counted = monitored.counters().stages["map(slow)"]
    assert 10 <= counted.outputs <= 120
    assert counted.seconds >= 0.004 * counted.outputs
    assert 'stage="map(slow)"' in monitored.counters().openmetrics()


def test_profiles_of_ranks_say_who_is_last_and_whether_that_changes():
    def rank_of(number, seconds):
        def late(x):
            time.sleep(seconds(x))
            return x

        return ff.profile(ff.pipe(range(40), ff.shard(number, 2), ff.map(late)), n=20)

    always = rank_of(0, lambda _: 0.001).beside(rank_of(1, lambda _: 0.006).as_data())
    assert (always.slowest, always.changes) == (1, False)
    assert always.lost > 0.02
    assert "Rank 1 is last in" in str(always)
    by_turns = rank_of(0, lambda x: 0.006 * (x % 4 == 0)).beside(rank_of(1, lambda x: 0.006 * (x % 4 == 3)))
    assert by_turns.changes
    with pytest.raises(ValueError, match="each of another"):
        rank_of(0, lambda _: 0.001).beside()


def test_a_page_names_what_ran_beside_what_shortly_and_each_once(tmp_path):
    source = [f"folder/photograph-{number:05}.jpg" for number in range(40)]
    flow = ff.pipe(source, ff.map(str), ff.shuffle_buffer(4), ff.map(len), ff.prefetch(2, threads=2))
    found = ff.profile(flow, n=12)
    names = [lane.name for lane in found.lanes]
    assert len(set(names)) == len(names)
    assert {"2 threads of prefetch, to map(str)", "2 threads of prefetch, to map(len)"} <= {*names}
    found.save(tmp_path / "page.html")
    assert "photograph-00003" not in (tmp_path / "page.html").read_text()


def test_profiling_never_took_more_than_there_was():
    found = ff.profile(range(100), n=50)
    total = found.first + found.seconds
    quarter, twice = (" ".join(replace(found, cost=share * total).lines()) for share in (0.25, 2.0))
    assert "s of it (25.0%)." in quarter
    assert "much of it: what takes so little looks slower than it is." in twice
    assert "%" not in twice.partition("Profiling")[2]


@pytest.mark.parametrize(
    ("kind", "workers", "name"),
    [
        ("threads", 1, "a thread of prefetch"),
        ("processes", 1, "a process of prefetch"),
        ("processes", 3, "3 processes of prefetch"),
        ("executor", 2, "2 workers in an executor of prefetch"),
    ],
)
def test_workers_have_names_in_english(kind, workers, name):
    prefetch = SimpleNamespace(part=SimpleNamespace(name="prefetch"))
    assert _lane_name(Lane(3, (3,), kind, workers, np.ones(4), 1.0, prefetch=prefetch)) == name
