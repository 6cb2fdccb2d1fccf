"""What guarded stages count: the same for every number of workers, and after every resume."""

import json

import numpy as np
import pytest
from more_itertools import chunked
from sources import Stream

import flowfn as ff

SETTINGS = (None, ff.prefetch(2), ff.prefetch(3, threads=2), ff.prefetch(3, processes=1), ff.prefetch(3, processes=2))
N = 24


def bad(datapoint):
    number = int(np.ravel(datapoint)[0])
    if number % 7 == 3:
        raise ValueError(f"bad {number}")
    return datapoint


def some(datapoint):
    for number in range(datapoint % 4):
        if datapoint % 7 == 3 and number == 1:
            raise ValueError(f"bad {datapoint}")
        yield datapoint * 10 + number


def itself(datapoint, error):
    return datapoint


@ff.stage.each
def ahead(source):
    for chunk in chunked(source, 4):
        yield from chunk


@ff.stage.stream
def marked(source, *, mark):
    for number, datapoint in enumerate(source, 1):
        yield datapoint
        if number % 5 == 0:
            mark()


@ff.stage.stream
def lagging(source, *, mark):
    """Always one datapoint behind."""
    held = []
    mark.anywhere(lambda: (len(held),))
    for datapoint in source:
        held.append(datapoint)
        if len(held) == 2:
            yield held.pop(0)
    while held:
        yield held.pop(0)


SOURCES = {
    "list": lambda: range(N),
    "stream": lambda: Stream(range(N)),
    "shuffled": lambda: ff.shuffle(range(N)),
    "expanded": lambda: ff.filter(lambda x: x % 5, range(N)),
}
GUARDS = {
    "drop": lambda: ff.guard(ff.map(bad), then="drop", budget=100),
    "replace": lambda: ff.guard(ff.map(bad), then=itself, budget=0.9),
    "expand": lambda: ff.guard(ff.flat_map(some), then="drop", budget=100),
}
STAGES = {
    "nothing": [],
    "batch": [ff.batch(4)],
    "window": [ff.window(3)],
    "filter": [ff.filter(lambda x: x % 3 != 1)],
    "batches taken apart": [ff.batch(4), ff.unbatch()],
    "shuffle_buffer": [ff.shuffle_buffer(5)],
    "interleave": [ff.interleave(lambda x: [x] * (x % 3), cycle=3)],
    "take_while": [ff.take_while(lambda x: x < 150)],
    "marks": [marked()],
    "marks with something unused": [lagging()],
    "reading ahead": [ahead()],
    "rounds": [ff.repeat(2)],
    "take": [ff.take(9)],
    "prefetch": [ff.prefetch(3), ff.shuffle_buffer(3)],
    "another guard": [ff.filter(lambda x: x % 3 != 1), ff.guard(ff.map(bad), then=itself, budget=100), ff.batch(3)],
    "cache": [ff.cache()],
    "concat": [lambda flow: ff.concat(flow, range(1000, 1003))],
}


def made(source, guard, stages, setting=None):
    flow = ff.pipe(SOURCES[source](), GUARDS[guard]())
    for stage in STAGES[stages]:
        flow = stage(flow)
    return ff.pipe(flow, setting)


def counts(iterator):
    """(failures, datapoints) of each guarded stage, as the state holds them: the place of its anchor is negative."""
    anchors = iterator.state_dict()
    return {
        key: (inputs[0], outputs) for key, (_, outputs, inputs) in anchors["anchors"].items() if key.startswith("-")
    }


def finished(flow):
    """(how many outputs, the counts after the last one, the indices of what failed)."""
    iterator, number, last = iter(flow), 0, {}
    for _ in iterator:
        number += 1
    iterator._progress.exhausted = False  # the state of this pass, not of the next
    last = counts(iterator)
    return number, last, [one.index for one in iterator.dropped]


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_read_again_is_not_counted_again(source, guard, stages):
    whole, last, _ = finished(made(source, guard, stages))
    for k in range(0, whole, 3):
        with iter(made(source, guard, stages)) as iterator:
            for _ in range(k):
                next(iterator)
            state = json.loads(json.dumps(iterator.state_dict()))
        rest, after, _ = finished(made(source, guard, stages).load_state_dict(state))
        assert (k + rest, after) == (whole, last)


@pytest.mark.parametrize("setting", SETTINGS[1:], ids=str)
@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("source", ["list", "stream"])
def test_whoever_does_the_work_counts_the_same(source, guard, setting):
    for stages in STAGES:
        whole, last, dropped = finished(made(source, guard, stages))
        assert finished(made(source, guard, stages, setting)) == (whole, last, dropped)
        with iter(made(source, guard, stages, setting)) as iterator:
            for _ in range(whole // 2):
                next(iterator)
            state = json.loads(json.dumps(iterator.state_dict()))
        for resumed in (made(source, guard, stages), made(source, guard, stages, setting)):
            rest, after, _ = finished(resumed.load_state_dict(state))
            assert (whole // 2 + rest, after) == (whole, last)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_state_after_an_error_counts_what_came_before(setting):
    def make_flow(*stages, fails):
        def work(datapoint):
            if datapoint == fails:
                raise KeyError(datapoint)
            return bad(datapoint)

        return ff.pipe(
            range(40), ff.guard(ff.map(work), errors=ValueError, then="drop", budget=4), ff.batch(4), *stages
        )

    iterator = iter(make_flow(setting, fails=19))
    with pytest.raises(KeyError):
        list(iterator)
    state = json.loads(json.dumps(iterator.state_dict()))
    resumed = iter(make_flow(fails=None).load_state_dict(state))
    with pytest.raises(ValueError, match="bad 31"):
        list(resumed)
    assert iterator.position + len([one.index for one in resumed.dropped]) >= 4


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_budget_error_is_raised_again_by_whoever_goes_on_there(setting):
    for source in (range(30), ff.flow(Stream(range(N)))):
        flow = ff.pipe(source, ff.guard(ff.map(bad), then="drop", budget=1), ff.batch(4), setting)
        iterator = iter(flow)
        with pytest.raises(ValueError, match="bad 10") as first:
            list(iterator)
        for again in (lambda: list(flow.load_state_dict(iterator.state_dict())), lambda: ff.replay(flow, first.value)):
            with pytest.raises(ValueError, match="bad 10") as second:
                again()
            assert second.value.__notes__[0] == "guard(): 2 of 11 datapoints failed, which is more than budget=1 allows"


def test_the_record_holds_what_every_part_of_the_tree_left_out():
    def indices(flow):
        iterator = iter(flow)
        list(iterator)
        return [one.index for one in iterator.dropped]

    for guard in (ff.guard(ff.map(bad), then="drop"), ff.guard(ff.map(bad), then=itself)):
        assert indices(ff.concat(guard(range(9)), guard(range(5)), ff.flow([3]))) == [3, 3]
        assert indices(ff.pipe(range(9), guard, ff.repeat(3))) == [3, 3, 3]
        assert indices(ff.pipe(range(9), guard, ff.cache())) == [3]
        assert indices(ff.zip(guard(range(9)), guard(range(9)))) == [3, 3]
        assert indices(ff.pipe(range(9), guard, guard, ff.batch(2))) == (
            [3] if guard.arguments["then"] == "drop" else [3, 3]
        )


def test_the_record_is_in_the_order_of_the_stages():
    flow = ff.pipe(
        range(12),
        ff.guard(ff.map(bad), then="drop"),
        ff.guard(ff.map(lambda x: 1 // (x - 5)), then="drop"),
        ff.batch(20),
    )
    iterator = iter(flow)
    list(iterator)
    assert [type(one.error) for one in iterator.dropped] == [ValueError, ValueError, ZeroDivisionError]


def test_a_datapoint_that_is_read_twice_is_counted_once():
    for setting in SETTINGS:
        flow = ff.pipe(range(30), ff.guard(ff.map(bad), then=itself, budget=4), ff.window(5), setting)
        assert len(list(flow)) == 26


def test_an_endless_share_is_of_all_rounds():
    flow = ff.pipe(range(10), ff.guard(ff.map(bad), then=itself, budget=0.15), ff.repeat(5))
    assert finished(flow)[:2] == (50, {"-2": (5, 50)})


def test_counts_are_of_one_world():
    def make_flow(rank, world):
        return ff.pipe(range(32), ff.shard(rank, world), ff.guard(ff.map(bad), then=itself, budget=100), ff.batch(2))

    with iter(make_flow(0, 2)) as iterator:
        for _ in range(3):
            next(iterator)
        state = iterator.state_dict()
    resumed = iter(make_flow(1, 4).load_state_dict(state))
    assert [batch.tolist() for batch in resumed] == [[13, 17], [21, 25], [29]]
    assert [one.index for one in resumed.dropped] == [17]


class Imposter:
    """A datapoint that travels, and then cannot be unpacked."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return int, ("no number",)

    def __repr__(self):
        return f"Imposter({self.number})"


@pytest.mark.parametrize("setting", SETTINGS[3:], ids=str)
def test_a_datapoint_that_cannot_be_unpacked_is_described(setting):
    iterator = iter(
        ff.pipe(range(5), ff.map(Imposter), ff.guard(ff.map(lambda one: bad(one.number)), then="drop"), setting)
    )
    assert list(iterator) == [0, 1, 2, 4]
    assert [one.datapoint for one in iterator.dropped] == ["Imposter(3)"]


def test_epochs_that_go_on_in_a_stream_begin_to_count_anew():
    flow = ff.pipe(range(10), ff.guard(ff.map(bad), then="drop", budget=1), ff.prefetch(2), ff.epoch_of(9))
    for expected in ([0, 1, 2, 4, 5, 6, 7, 8, 9], [0, 1, 2, 4, 5, 6, 7, 8, 9]):
        iterator = iter(flow)
        assert list(iterator) == expected
        assert [one.index for one in iterator.dropped] == [3]
