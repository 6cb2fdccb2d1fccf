"""Flows and their iterators: who decides the pass, where it stands, how it goes on, and what an error says."""

import dataclasses
import gc
import subprocess
import sys
import textwrap
import threading
import traceback
import types
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from flows_to_try import add_one, is_odd, shuffled
from sources import streamed

import flowfn as ff

# Who decides seed and epoch


def test_an_untouched_program_repeats_itself():
    assert [list(flow) for flow in [shuffled()] * 3] == [list(flow) for flow in [shuffled()] * 3]
    assert list(shuffled()) == list(shuffled().reset_state(0)) == list(shuffled().run(seed=0, epoch=0))


def test_every_pass_takes_the_next_epoch():
    flow = shuffled()
    passes = [list(flow) for _ in range(3)]
    assert passes == [list(flow.run(epoch=epoch)) for epoch in range(3)]
    assert len({tuple(one) for one in passes}) == 3


def test_reset_state_sets_seed_and_epoch_zero_and_returns_the_flow():
    flow = shuffled()
    list(flow)
    assert flow.reset_state(7) is flow
    assert list(flow) == list(shuffled().run(seed=7, epoch=0)) != list(shuffled())


def test_reset_state_without_a_seed_draws_one_and_remembers_it():
    flow = shuffled().reset_state()
    other = shuffled().reset_state()
    first = list(flow)
    assert first != list(other)
    assert (
        first
        == list(flow.set_epoch(0))
        == list(flow.run(epoch=0))
        == list(shuffled().run(seed=flow.state_dict()["seed"], epoch=0))
    )


@pytest.mark.parametrize("seed", [1.5, "a", [1]])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match=r"seed must be an integer, got "):
        shuffled().reset_state(seed)


def test_any_integer_is_a_seed():
    seeds = (0, -1, 2**63, 2**200, np.int64(5))
    assert len({tuple(shuffled().reset_state(seed)) for seed in seeds}) == len(seeds)
    assert list(shuffled().reset_state(np.int64(5))) == list(shuffled().reset_state(5))


def test_set_epoch_makes_the_next_pass_take_it_and_returns_the_flow():
    flow = shuffled()
    assert flow.set_epoch(5) is flow
    assert [iter(flow).epoch, iter(flow).epoch] == [5, 6]


@pytest.mark.parametrize("epoch", [-1, 1.5, "a", True])
def test_an_epoch_is_a_natural_number(epoch):
    with pytest.raises((ValueError, TypeError), match=r"^set_epoch\(\): epoch must be an integer >= 0, got "):
        shuffled().set_epoch(epoch)


def test_the_flow_that_is_iterated_decides_for_the_whole_tree():
    source = shuffled().reset_state(3)
    top = ff.map(tuple, source)
    top.reset_state(7).set_epoch(4)
    assert list(top) == list(shuffled().run(seed=7, epoch=4))
    assert list(source) == list(shuffled().run(seed=3, epoch=0))


def test_a_new_flow_starts_with_seed_and_epoch_of_its_first_source_that_was_reset():
    source = shuffled().reset_state(7)
    list(source)
    top = ff.pipe(source, ff.map(tuple), ff.take(10))
    assert list(top) == list(shuffled().run(seed=7, epoch=1))[:10]
    fresh = ff.zip([0] * 50, shuffled(), source)
    assert fresh.state_dict()["seed"] == 7
    assert fresh.state_dict()["epoch"] == 1
    assert ff.zip(shuffled().reset_state(1), source).state_dict()["seed"] == 1


def test_a_source_that_was_only_iterated_hands_nothing_on():
    source = shuffled()
    list(source)
    assert ff.map(tuple, source).state_dict()["epoch"] == 0


def test_a_fresh_seed_is_refused_where_ranks_would_disagree():
    flow = ff.pipe(range(10), ff.shuffle(), ff.shard(0, 2))
    with pytest.raises(ValueError, match=r"^reset_state\(\): ranks would disagree.*reset_state\(seed\)"):
        flow.reset_state()
    with pytest.raises(ValueError, match="ranks would disagree"):
        ff.batch(2, flow).reset_state()
    with pytest.raises(ValueError, match="ranks would disagree"):
        ff.zip([0], flow, strict=False).reset_state()
    flow.reset_state(1)
    ff.pipe(range(10), ff.shard(0, 1)).reset_state()


def test_a_shard_is_refused_over_a_fresh_seed():
    flow = ff.pipe(range(10), ff.shuffle()).reset_state()
    with pytest.raises(ValueError, match=r"^shard\(1, 2\): ranks would disagree.*reset_state\(seed\)"):
        ff.shard(1, 2, flow)
    with pytest.raises(ValueError, match="ranks would disagree"):
        ff.pipe(flow, ff.map(abs), ff.batch(2), ff.shard(1, 2))
    with pytest.raises(ValueError, match="ranks would disagree"):
        ff.zip(flow, ff.shard(0, 2, range(20)))
    assert len(ff.shard(0, 1, flow)) == 10
    assert len(ff.shard(1, 2, flow.reset_state(1))) == 5


# Iterators


def test_run_touches_nothing_of_the_flow():
    flow = shuffled().reset_state(7)
    state = flow.state_dict()
    whole = list(flow.run())
    assert list(flow.run(seed=1, epoch=3, start=20)) == list(shuffled().run(seed=1, epoch=3))[20:]
    assert flow.state_dict() == state
    assert list(flow) == whole


@pytest.mark.parametrize("make", [shuffled, lambda: ff.pipe(range(50), ff.filter(is_odd)), lambda: streamed(range(50))])
@pytest.mark.parametrize("start", [0, 1, 24, 50, 70])
def test_run_may_start_anywhere(make, start):
    whole = list(make().run(epoch=2))
    iterator = make().run(epoch=2, start=start)
    assert iterator.position == min(start, len(whole)) or start > len(whole)
    assert list(iterator) == whole[start:]


@pytest.mark.parametrize(("name", "value"), [("start", -1), ("epoch", -1), ("start", 1.5)])
def test_run_refuses_what_is_no_natural_number(name, value):
    with pytest.raises((ValueError, TypeError), match=rf"^run\(\): {name} must be an integer >= 0, got {value}"):
        shuffled().run(**{name: value})


def test_iterators_are_independent():
    flow = shuffled()
    first, second = iter(flow), iter(flow)
    assert (first.epoch, second.epoch) == (0, 1)
    mixed = list(chain.from_iterable(zip(first, second)))
    assert mixed[::2] == list(flow.run(epoch=0))
    assert mixed[1::2] == list(flow.run(epoch=1))


def test_taking_an_epoch_is_atomic():
    flow = ff.flow(range(3))
    epochs = []
    threads = [threading.Thread(target=lambda: epochs.extend(iter(flow).epoch for _ in range(200))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epochs) == list(range(1600))


def test_an_iterator_says_its_epoch_and_position():
    iterator = iter(ff.pipe(range(7), ff.batch(2)).set_epoch(3))
    seen = [(iterator.epoch, iterator.position)]
    for _ in iterator:
        seen.append((iterator.epoch, iterator.position))
    assert seen == [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4)]


def test_a_closed_iterator_is_finished_and_keeps_its_state():
    closed = []

    def source():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    with iter(ff.pipe(source, ff.map(add_one), ff.filter(bool))) as iterator:
        assert [next(iterator), next(iterator)] == [1, 2]
        assert not closed
    assert closed == [True]
    assert list(iterator) == []
    assert iterator.position == iterator.state_dict()["position"] == 2
    iterator.close()


def test_an_abandoned_iterator_closes_its_generators():
    closed = []

    @ff.stage
    def spy(source):
        try:
            yield from source
        finally:
            closed.append(True)

    for _ in spy(range(10)):
        break
    gc.collect()
    assert closed == [True]


def test_an_exhausted_iterator_stays_exhausted():
    iterator = iter(ff.flow([1]))
    assert (list(iterator), list(iterator), next(iterator, "end")) == ([1], [], "end")


def test_generators_start_with_the_first_datapoint_and_not_before():
    started = []

    def source():
        started.append(True)
        yield 1

    iterator = iter(ff.pipe(source, ff.map(add_one)))
    assert not started
    assert next(iterator) == 2


# Looking


def test_looking_never_advances():
    flow = shuffled()
    before = flow.state_dict()
    for _ in range(3):
        flow[3], flow[-1], len(flow), repr(flow), bool(flow), flow[2:4], list(flow[2:4]), flow.seekable
    assert flow.state_dict() == before
    assert iter(flow).epoch == 0


def test_an_index_reads_the_epoch_that_the_next_pass_takes():
    flow = shuffled()
    for _ in range(3):
        looked = [flow[i] for i in range(50)]
        assert looked == list(flow)


def test_an_index_works_as_on_a_list():
    flow = ff.pipe(range(10), ff.map(add_one), ff.skip(2))
    data = list(range(3, 11))
    for i in range(-8, 8):
        assert flow[i] == flow[np.int64(i)] == data[i]
    for i in (8, -9, 10**30):
        with pytest.raises(IndexError, match=rf"^index {i} is out of range for a flow of length 8"):
            flow[i]
    with pytest.raises(TypeError):
        flow[1.5]


def test_a_negative_index_of_an_endless_flow_says_that_it_has_no_end():
    flow = ff.cycle([1, 2, 3])
    assert flow[10**12] == 2  # 10**12 = 3 * 333333333333 + 1
    with pytest.raises((IndexError, TypeError), match="endless"):
        flow[-1]


def test_what_cannot_be_indexed_says_why():
    flow = ff.pipe(range(3), ff.filter(bool), ff.map(add_one))
    with pytest.raises(TypeError, match=r"cannot be indexed.*how many outputs filter\(bool\) gives"):
        flow[0]
    with pytest.raises(
        TypeError, match=r"^the length of .* is not known before it is read: how many outputs filter\(bool\) gives"
    ):
        len(flow)
    with pytest.raises(TypeError, match=r"is endless, it has no length; take\(n\) makes it finite"):
        len(ff.cycle([1]))


SLICES = [
    slice(None),
    slice(2, 5),
    slice(None, None, -1),
    slice(-3, None),
    slice(None, -3),
    slice(7, 2, -2),
    slice(5, 5),
    slice(100, 200),
    slice(-100, 3),
    slice(None, None, 3),
]


@pytest.mark.parametrize("index", SLICES, ids=str)
def test_a_slice_is_a_flow_of_what_a_list_would_give(index):
    flow = shuffled(20).set_epoch(1)
    part = flow[index]
    assert isinstance(part, ff.Flow)
    assert list(part) == list(flow.run(epoch=1))[index]
    assert len(part) == len(range(20)[index])


def test_getitems_reads_several_together():
    flow = shuffled(20)
    whole = list(flow.run(epoch=0))
    assert flow.__getitems__([3, 1, 1, 19]) == [whole[i] for i in (3, 1, 1, 19)]


def test_iterating_leaves_no_reference_to_what_was_delivered():
    alive = Counter()

    class Datapoint:
        def __init__(self, _):
            alive["now"] += 1

        def __del__(self):
            alive["now"] -= 1

    for _ in ff.pipe(range(100), ff.map(Datapoint)):
        assert alive["now"] <= 3


# Errors


class MyError(Exception):
    pass


def fails_at_seven(x):
    if x == 7:
        raise MyError("seven")
    return x


def note(error):
    (one,) = error.__notes__
    return one


PASTE = "to see it again, serially: flowfn.replay(flow, error)"


@pytest.mark.parametrize("data", [range(10), lambda: iter(range(10))], ids=["sequence", "stream"])
def test_an_error_has_its_type_the_users_frames_and_one_note(data):
    flow = ff.pipe(data, ff.map(add_one), ff.map(fails_at_seven), ff.batch(2), ff.map(list)).reset_state(7).set_epoch(3)
    with pytest.raises(MyError) as caught:
        list(flow)
    assert caught.value.args == ("seven",)
    assert "fails_at_seven" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert note(caught.value) == f"in map(fails_at_seven), its datapoint 6 (input 7), seed 7, epoch 3\n{PASTE}"


def test_the_note_shows_the_input_briefly():
    flow = ff.pipe([[np.zeros((2, 3)), "a" * 1000]], ff.map_component(lambda x: 1 / 0, 1))
    with pytest.raises(ZeroDivisionError) as caught:
        list(flow)
    assert note(caught.value).startswith(
        "in map_component(<lambda>, 1), its datapoint 0 (input [float64 array (2, 3), 'aaa"
    )
    assert len(note(caught.value)) < 300


def test_the_number_in_the_note_is_the_one_that_shows_the_datapoint():
    flow = ff.pipe(range(10), ff.shuffle(), ff.map(fails_at_seven))
    with pytest.raises(MyError) as caught:
        list(flow)
    place = list(ff.pipe(range(10), ff.shuffle()).run(epoch=0)).index(7)
    assert f"its datapoint {place} (input 7)" in note(caught.value)
    with pytest.raises(MyError):
        flow.set_epoch(0)[place]


@pytest.mark.parametrize("start", [0, 5, 7])
@pytest.mark.parametrize("data", [range(10), lambda: iter(range(10))], ids=["sequence", "stream"])
def test_the_number_counts_from_the_start_of_the_pass_wherever_it_was_resumed(data, start):
    with pytest.raises(MyError) as caught:
        list(ff.pipe(data, ff.map(fails_at_seven)).run(start=start))
    assert "its datapoint 7 (input 7)" in note(caught.value)


@pytest.mark.parametrize("start", [0, 2, 3])
def test_the_number_is_right_behind_an_anchor(start):
    make = lambda: ff.pipe(range(20), ff.filter(is_odd), ff.map(fails_at_seven))
    iterator = iter(make())
    list(islice(iterator, start))
    with pytest.raises(MyError) as caught:
        list(make().load_state_dict(iterator.state_dict()))
    assert "in map(fails_at_seven), its datapoint 3 (input 7)" in note(caught.value)


def test_an_error_in_a_batch_names_the_stage_that_failed():
    flow = ff.pipe(range(10), ff.filter(lambda x: fails_at_seven(x) >= 0), ff.batch(4))
    with pytest.raises(MyError) as caught:
        list(flow)
    assert "in filter(<lambda>), its datapoint 7 (input 7)" in note(caught.value)


def test_an_index_that_fails_has_the_note_too():
    with pytest.raises(MyError) as caught:
        ff.pipe(range(10), ff.map(fails_at_seven))[7]
    assert note(caught.value) == f"in map(fails_at_seven), its datapoint 7 (input 7), seed 0, epoch 0\n{PASTE}"


def test_an_error_of_a_source_is_raised_as_it_is():
    class Dataset:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise MyError(index)

    with pytest.raises(MyError) as caught:
        list(ff.pipe(Dataset(), ff.map(abs)))
    assert len(caught.value.__notes__) == 1
    with pytest.raises(MyError):
        list(ff.flow(Dataset()))


def test_an_error_of_a_users_own_stage_is_named():
    @ff.stage.each
    def fragile(source):
        for number in source:
            yield 1 / (number - 3)

    with pytest.raises(ZeroDivisionError) as caught:
        list(ff.pipe(range(10), fragile, ff.batch(2)))
    assert note(caught.value).startswith("in fragile(), its datapoint 3")


def test_an_error_of_a_plain_callable_in_a_pipe_is_named():
    def wobbly(source):
        for number in source:
            yield 1 / (number - 3)

    with pytest.raises(ZeroDivisionError) as caught:
        list(ff.pipe(range(10), wobbly))
    assert len(caught.value.__notes__) == 1
    assert "wobbly" in note(caught.value)


def test_stop_iteration_in_user_code_is_an_error_and_no_end():
    class Dataset:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise StopIteration
            return index

    def stops(x):
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(ff.pipe([1], ff.map(stops)))
    with pytest.raises((RuntimeError, ValueError)):
        list(ff.flow(Dataset()))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_through_and_closes(interrupt):
    def stop(x):
        raise interrupt

    flow = ff.pipe([1], ff.map(stop))
    with pytest.raises(interrupt) as caught:
        list(flow)
    assert not hasattr(caught.value, "__notes__")


def test_errors_that_take_no_attributes_come_through():
    @dataclasses.dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    def fails(x):
        raise FrozenError(x)

    with pytest.raises(FrozenError):
        list(ff.pipe([1], ff.map(fails)))


def abs_of(x):
    return abs(x)


def test_a_failed_pass_is_over_and_goes_on_at_the_failure_when_mended():
    mend = types.FunctionType(abs_of.__code__, globals(), "fails_at_seven")
    mend.__qualname__ = fails_at_seven.__qualname__
    flow = ff.pipe(range(10), ff.shuffle(), ff.filter_map(fails_at_seven))
    iterator = iter(flow)
    seen = []
    with pytest.raises(MyError):
        seen.extend(iterator)
    assert list(iterator) == []
    mended = ff.pipe(range(10), ff.shuffle(), ff.filter_map(mend))
    assert seen + list(mended.load_state_dict(iterator.state_dict())) == list(mended.run(epoch=0))


@pytest.mark.parametrize("data", [range(10), lambda: iter(range(10))], ids=["sequence", "stream"])
def test_replay_makes_the_failing_datapoint_again(data):
    calls = []
    flow = ff.pipe(
        data, ff.map(lambda x: calls.append(x) or fails_at_seven(x)), ff.filter(is_odd), ff.batch(2)
    ).set_epoch(2)
    with pytest.raises(MyError) as caught:
        list(flow)
    error = caught.value
    calls.clear()
    with pytest.raises(MyError):
        ff.replay(flow, error)
    assert 7 in calls
    mended = ff.pipe(data, ff.map(abs), ff.filter(is_odd), ff.batch(2))
    assert ff.replay(mended, error).tolist() == [5, 7]
    assert len(error.__notes__) == 1


def test_replay_draws_what_the_failed_pass_drew():
    drawn = []

    def noisy(x, rng):
        drawn.append(rng.random())
        return fails_at_seven(x)

    flow = ff.pipe(range(10), ff.shuffle(), ff.map(noisy, rng=True)).reset_state(9).set_epoch(4)
    with pytest.raises(MyError) as caught:
        list(flow)
    failed = drawn[-1]
    with pytest.raises(MyError):
        ff.replay(flow, caught.value)
    assert drawn[-1] == failed


def test_replay_of_an_index_that_failed():
    flow = ff.pipe(range(10), ff.map(fails_at_seven))
    with pytest.raises(MyError) as caught:
        flow[-3]
    assert ff.replay(ff.pipe(range(10), ff.map(str)), caught.value) == "7"


def test_replay_refuses_an_error_from_elsewhere():
    with pytest.raises(ValueError, match=r"^replay\(\): ValueError was not raised by iterating a flow$"):
        ff.replay(ff.flow([1]), ValueError())


def test_the_error_of_a_function_over_tuples_has_no_strange_context():
    with pytest.raises(ZeroDivisionError) as caught:
        list(ff.pipe([(1, 0)], ff.map_component(lambda x: 1 / x, 1)))
    assert caught.value.__context__ is None


def test_an_iterator_that_goes_after_the_modules_does_so_without_a_word():
    """Which names the interpreter has taken out of them by then is its own affair."""
    program = """
        import sys, flowfn as ff
        from flowfn.datapoints import buffers

        class Last:
            def __del__(self):
                vars(buffers).update(dict.fromkeys(vars(buffers)))
                self.iterator.__del__()

        last = Last()
        last.iterator = iter(ff.pipe(range(5), ff.filter(bool)))
        print(next(last.iterator))
        sys.modules["kept"] = last
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")
