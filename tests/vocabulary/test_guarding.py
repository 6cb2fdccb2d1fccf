"""`guard`: what is tried again, left out or replaced when a stage fails, and the record of it."""

import itertools
import threading
import traceback

import pytest
from failing_stages import LOCAL, SETTINGS, SOURCES, bad, doubled, failing, minus, noisy, passed, raised, some
from hypothesis import given, settings
from hypothesis import strategies as st
from more_itertools import chunked
from sources import Stream

import flowfn as ff
from flowfn.testing import check, same


class Flaky:
    """Fails at the first few calls for each datapoint: `failures[datapoint]` times (for ever, if that is -1)."""

    def __init__(self, failures, error=ValueError):
        self.failures, self.error, self.calls = failures, error, []

    def __call__(self, datapoint, *rng):
        self.calls.append(datapoint)
        if not -1 < self.failures.get(datapoint, 0) < self.calls.count(datapoint):
            raise self.error(f"no {datapoint}")
        return (datapoint, *(int(one.integers(1 << 30)) for one in rng))


def is_odd(datapoint):
    return bad(datapoint) % 20 == 10


def sums(datapoints):
    return sum(map(bad, datapoints))


@ff.stage.each
def ahead(size, source):
    """Takes `size` datapoints before it gives the first."""
    for chunk in chunked(source, size):
        yield from [bad(datapoint) for datapoint in chunk]


@ff.stage.group(size="size")
def spans(size, source, *, indices):
    for datapoints, index in zip(source, indices):
        yield index, bad(datapoints[-1]), len(datapoints)


def place(error):
    (note,) = [note for note in error.__notes__ if "replay" in note]
    return note.partition(", seed")[0]


# The laws


PIPELINES = {
    "map, drop": lambda: [ff.guard(ff.map(bad), then="drop")],
    "map, function": lambda: [ff.guard(ff.map(bad), then=minus)],
    "random map, drop": lambda: [ff.guard(ff.map(noisy, rng=True), retry=1, then="drop", budget=100)],
    "random map, function": lambda: [ff.guard(ff.map(noisy, rng=True), then=minus)],
    "map_component": lambda: [ff.map(lambda x: [x, x]), ff.guard(ff.map_component(bad, 1), then="drop")],
    "select": lambda: [ff.map(lambda x: [x] * (1 + x % 2)), ff.guard(ff.select([1]), errors=IndexError, then=minus)],
    "tap": lambda: [ff.guard(ff.tap(bad), then="drop")],
    "flat_map, drop": lambda: [ff.guard(ff.flat_map(some), then="drop")],
    "flat_map, function": lambda: [ff.guard(ff.flat_map(some), then=minus)],
    "filter": lambda: [ff.guard(ff.filter(is_odd), then="drop")],
    "filter_map": lambda: [ff.guard(ff.filter_map(bad), then=minus)],
    "unbatch": lambda: [ff.map(lambda x: [[x] * (x % 3), [x]]), ff.guard(ff.unbatch(), then="drop")],
    "batch, raise": lambda: [ff.guard(ff.batch(3, collate=len), retry=2)],
    "batch, drop": lambda: [ff.guard(ff.batch(3, collate=sums), then="drop")],
    "batch, function": lambda: [ff.guard(ff.batch(3, collate=sums, drop_remainder=True), then=minus)],
    "window, drop": lambda: [ff.guard(ff.window(3, collate=sums), then="drop")],
    "window, function": lambda: [ff.guard(ff.window(3, step=2, collate=sums), then=minus)],
    "an own each": lambda: [ff.guard(ahead(4), then="drop")],
    "an own each, function": lambda: [ff.guard(ahead(4), then=minus)],
    "an own group": lambda: [ff.guard(spans(2), then="drop")],
    "an own expand": lambda: [ff.guard(doubled(), then="drop")],
    "in the middle": lambda: [
        ff.map(abs),
        ff.guard(ff.map(noisy, rng=True), then="drop", budget=0.9),
        ff.shuffle_buffer(4),
        ff.guard(ff.batch(2, collate=None), then="drop"),
        ff.prefetch(2),
        ff.guard(ff.map(lambda pair: pair[1][0] if pair[0][0] % 2 else len(pair)), errors=IndexError, then="drop"),
    ],
    "over rounds": lambda: [ff.guard(ff.map(noisy, rng=True), then="drop"), ff.repeat(2), ff.batch(4)],
}


@pytest.mark.parametrize("stages", PIPELINES.values(), ids=PIPELINES)
@pytest.mark.parametrize(("source", "workers"), list(zip(SOURCES, ({}, {"threads": 2}))), ids=["list", "stream"])
def test_the_laws(source, workers, stages):
    check(lambda: ff.pipe(source(range(12)), *stages()), epochs=(0,), workers=(workers,), stops=4)


@pytest.mark.parametrize(
    "stages",
    [
        lambda: [ff.shuffle(), ff.guard(ff.map(noisy, rng=True), then="next"), ff.batch(3)],
        lambda: [ff.shard(1, 2), ff.guard(ff.map(noisy, rng=True), then="next")],
        lambda: [ff.guard(ff.map(bad), then=minus), ff.shuffle(), ff.take(9)],
        lambda: [ff.shuffle(), ff.guard(spans(2), then=minus), ff.repeat(2)],
        lambda: [ff.guard(ff.map(bad), then=minus), ff.cache()],
    ],
)
def test_the_laws_where_there_is_an_index(stages):
    check(lambda: ff.pipe(range(12), *stages()), stops=4)


@pytest.mark.parametrize("items", [[], [3], [0]])
@pytest.mark.parametrize("source", SOURCES)
def test_the_laws_of_few_datapoints(source, items):
    check(
        lambda: ff.pipe(source(items), ff.guard(ff.map(bad), then="drop"), ff.guard(ff.map(bad), then=minus)),
        epochs=(0,),
    )


def test_the_laws_in_processes():
    def make_flow():
        return ff.pipe(
            range(16),
            ff.shuffle(),
            ff.guard(ff.map(noisy, rng=True), then="drop", budget=100),
            ff.guard(ff.flat_map(lambda pair: [pair[0]] * (pair[1] % 3)), then=minus),
            ff.shuffle_buffer(3),
            ff.guard(ff.batch(2, collate=sums), then="drop"),
        )

    check(make_flow, epochs=(0,), stops=4, workers=({}, {"processes": 1}, {"processes": 2}))


@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")  # where all are hopeless
@given(
    items=st.lists(st.integers(0, 6), max_size=30),
    hopeless=st.sets(st.integers(0, 6)),
    then=st.sampled_from(["drop", "next", minus]),
    size=st.integers(1, 4),
    setting=st.sampled_from(LOCAL),
)
@settings(max_examples=50, deadline=None)
def test_guard_does_what_a_loop_with_try_does(items, hopeless, then, size, setting):
    def work(item):
        if item in hopeless:
            raise KeyError(item)
        return item

    expected = []
    for number, item in enumerate(items):
        if item not in hopeless:
            expected.append(item)
        elif then is minus:
            expected.append(-1)
        elif then == "next":
            expected.append(next((other for other in items[number:] + items[:number] if other not in hopeless), None))
    flow = ff.pipe(items, ff.guard(ahead_of(size, work), errors=KeyError, then=then), setting)
    given, error, dropped = passed(flow)
    if None in expected:
        assert isinstance(error, KeyError)
    else:
        assert (given, error) == (expected, None)
        assert [one.datapoint for one in dropped] == [item for item in items if item in hopeless]
        assert [one.index for one in dropped] == [number for number, item in enumerate(items) if item in hopeless]


@ff.stage.each
def ahead_of(size, work, source):
    for chunk in chunked(source, size):
        yield from [work(datapoint) for datapoint in chunk]


# What does not change


STAGES = [
    ff.map(abs),
    ff.map(lambda x, rng: rng.random(), rng=True),
    ff.filter(lambda x: x % 2),
    ff.flat_map(lambda x: ff.shuffle(range(x % 5))),
    ff.batch(3),
    ff.window(4, step=3, drop_remainder=True),
    doubled(),
    ff.tap(abs),
]


@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_where_nothing_fails_a_guard_is_not_there(stage, source):
    alone = ff.pipe(source([0, 1, 2, 4, 5, 6, 7, 8]), stage)
    for policy in ({}, {"retry": 2}, {"then": minus}):
        guarded = ff.pipe(source([0, 1, 2, 4, 5, 6, 7, 8]), ff.guard(stage, **policy))
        assert all(map(same, guarded, alone.run()))
        assert guarded.seekable == alone.seekable
        assert guarded.node.length_or_none() == alone.node.length_or_none()
    dropping = ff.pipe(source([0, 1, 2, 4, 5, 6, 7, 8]), ff.guard(stage, then="drop"))
    assert all(map(same, dropping, alone.run()))
    assert not dropping.seekable


def test_dropping_takes_the_length_away_and_replacing_leaves_it():
    flow = ff.guard(ff.map(bad), then="drop")(range(10))
    with pytest.raises(
        TypeError, match=r"how many outputs guard\(map\(bad\), then='drop'\) gives is only known once it has run"
    ):
        len(flow)
    assert len(ff.guard(ff.map(bad), then=minus)(range(10))) == 10
    assert ff.guard(ff.map(bad), then=minus)(range(10))[3] == -1
    assert ff.guard(ff.map(bad), then="next")(range(10))[3] == 40


@pytest.mark.parametrize("source", SOURCES)
def test_a_guard_changes_no_random_number(source):
    def tagged(datapoint, rng):
        return datapoint, int(rng.integers(1000))

    whole = {pair[0]: pair for pair in ff.map(tagged, source(range(20)), rng=True).run()}

    def guarded(**policy):
        return ff.pipe(
            source(range(20)), ff.guard(ff.map(lambda x, rng: (bad(x), tagged(x, rng))[1], rng=True), **policy)
        )

    good = [pair for number, pair in whole.items() if number % 7 != 3]
    assert list(guarded(then="drop")) == good
    assert [pair for pair in guarded(then=minus) if pair != -1] == good
    downstream = ff.pipe(
        source(range(20)), ff.guard(ff.map(lambda x: bad(x) // 10), then="drop"), ff.map(tagged, rng=True)
    )
    assert list(downstream) == good


def test_guarded_and_unguarded_stages_are_numbered_together():
    def draws(*stages):
        return list(ff.pipe([0] * 5, *stages))

    def draw(datapoint, rng):
        return datapoint + rng.random()

    plain = ff.map(draw, rng=True)
    assert (
        draws(plain, plain)
        == draws(ff.guard(plain), plain)
        == draws(plain, ff.guard(plain))
        == draws(ff.guard(plain), ff.guard(plain))
    )
    pinned = ff.map(draw, rng=True, name="mine")
    assert draws(plain, pinned) == draws(plain, ff.guard(pinned)) != draws(plain, plain)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("setting", LOCAL, ids=str)
def test_a_retry_draws_the_same_numbers(source, setting):
    drawn = []

    def work(datapoint, rng):
        drawn.append((datapoint, rng.random()))
        if sum(number == datapoint for number, _ in drawn) <= datapoint % 3:
            raise OSError
        return datapoint

    assert list(ff.pipe(source(range(6)), ff.guard(ff.map(work, rng=True), retry=2), setting)) == list(range(6))
    assert sorted(number for number, _ in drawn) == [0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5]
    assert len(set(drawn)) == 6


def test_a_flow_made_in_a_retry_is_the_same_flow():
    tries = []

    def made(datapoint):
        def work(number):
            if number == 2 and tries.count(datapoint) < 2:
                tries.append(datapoint)
                raise OSError
            return number

        return ff.pipe(range(4), ff.shuffle(), ff.map(work))

    expected = list(ff.flat_map(lambda x: ff.shuffle(range(4)), range(3)))
    assert list(ff.guard(ff.flat_map(made), retry=2)(range(3))) == expected
    assert tries == [0, 0, 1, 1, 2, 2]


# Trying again


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("then", ["raise", "drop", minus])
def test_a_datapoint_is_tried_as_often_as_was_said(source, then):
    flaky = Flaky({1: 2, 2: 3, 4: 1})
    flow = ff.pipe(source([0, 1, 2, 3, 4]), ff.guard(ff.map(flaky), retry=2, then=then))
    given, error, dropped = passed(flow)
    kept = [(0,), (1,)] + {"raise": [], "drop": [(3,), (4,)], minus: [-1, (3,), (4,)]}[then]
    assert given == kept
    assert str(error) == ("no 2" if then == "raise" else "None")
    assert flaky.calls == [0, 1, 1, 1, 2, 2, 2] + ([] if then == "raise" else [3, 4, 4])
    assert [one.datapoint for one in dropped] == ([] if then == "raise" else [2])


@pytest.mark.parametrize("retry", [0, 1, 5])
def test_what_never_works_is_called_once_and_retry_times_more(retry):
    flaky = Flaky({1: -1})
    assert list(ff.guard(ff.map(flaky), retry=retry, then="drop")(range(3))) == [(0,), (2,)]
    assert flaky.calls == [0, *[1] * (retry + 1), 2]


def test_a_stage_that_reads_ahead_is_asked_once_more_to_know_who_failed():
    for then, expected in (("drop", [(0,), (1,), (3,)]), (minus, [(0,), (1,), -1, (3,)])):
        flaky = Flaky({2: -1})
        assert list(ff.guard(ahead_of(4, flaky), retry=1, then=then)(range(4))) == expected
        assert flaky.calls.count(2) == (2 if then == "drop" else 3)


def test_the_last_error_is_the_one_that_counts():
    errors = iter([OSError("first"), ValueError("second"), KeyError("third")])

    def work(datapoint):
        raise next(errors)

    iterator = iter(ff.guard(ff.map(work), errors=(OSError, ValueError), retry=1, then="drop")([0]))
    assert list(iterator) == []
    assert str(iterator.dropped[0].error) == "second"


def test_an_error_of_another_class_in_a_retry_is_raised():
    errors = iter([OSError("first"), KeyError("second")])

    def work(datapoint):
        raise next(errors)

    error = raised(ff.guard(ff.map(work), errors=OSError, retry=5, then="drop")([0]))
    assert isinstance(error, KeyError)
    assert place(error) == "in guard(map(work), errors=OSError, retry=5, then='drop'), its datapoint 0 (input 0)"


@pytest.mark.parametrize("source", SOURCES)
def test_what_an_expand_stage_gave_before_it_failed_stays_and_is_not_given_again(source):
    calls = []

    def work(datapoint):
        for number in range(4):
            calls.append((datapoint, number))
            if (datapoint, number) in {(1, 2), (2, 3)} and calls.count((datapoint, number)) == 1:
                raise OSError
            yield datapoint, number

    whole = [(datapoint, number) for datapoint in range(4) for number in range(4)]
    assert list(ff.pipe(source(range(4)), ff.guard(ff.flat_map(work), retry=1))) == whole
    calls.clear()
    assert list(ff.pipe(source(range(4)), ff.guard(ff.flat_map(work), then="drop"))) == [
        pair for pair in whole if pair not in {(1, 2), (1, 3), (2, 3)}
    ]
    calls.clear()
    replaced = list(ff.pipe(source(range(3)), ff.guard(ff.flat_map(work), then=lambda datapoint, error: "end")))
    assert replaced == [*whole[:6], "end", *whole[8:11], "end"]


def test_each_retry_of_an_expand_stage_may_come_further():
    calls = []

    def work(datapoint):
        calls.append(datapoint)
        for number in range(5):
            if number == len(calls):
                raise OSError
            yield number

    iterator = iter(ff.guard(ff.flat_map(work), retry=3, then="drop")([7]))
    assert list(iterator) == [0, 1, 2, 3]
    assert len(calls) == 4
    assert [one.datapoint for one in iterator.dropped] == [7]


def test_a_retry_gives_while_it_makes():
    def work(datapoint):
        if not made:
            made.append(None)
            raise OSError
        for number in itertools.count():
            made.append(number)
            yield number

    made = []
    with iter(ff.guard(ff.flat_map(work), retry=1)([0])) as iterator:
        assert list(itertools.islice(iterator, 3)) == [0, 1, 2]
    assert made == [None, 0, 1, 2]


# Which errors


@pytest.mark.parametrize("errors", [LookupError, KeyError, (OSError, KeyError), Exception])
def test_errors_of_the_classes_are_handled(errors):
    assert list(ff.guard(ff.map({1: 2}.__getitem__), errors=errors, then="drop")([0, 1])) == [2]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_others_pass_through_untouched(setting):
    def work(datapoint):
        if datapoint == 1:
            raise OSError
        return {0: 0, 2: 0}[datapoint]

    given, error, dropped = passed(
        ff.pipe(range(5), ff.guard(ff.map(work), errors=OSError, retry=3, then="drop"), setting)
    )
    assert given == [0, 0]
    assert type(error) is KeyError
    assert error.args == (3,)
    assert place(error) == "in guard(map(work), errors=OSError, retry=3, then='drop'), its datapoint 3 (input 3)"
    assert [one.datapoint for one in dropped] == [1]


class Failing:
    """A sequence that cannot be read at one place."""

    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index == 5:
            raise ValueError("source")
        return index


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(
    ("stage", "then"), [(ff.map(abs), "drop"), (ff.map(abs), minus), (ff.flat_map(lambda x: [x]), "drop")]
)
def test_errors_from_further_up_are_not_handled(stage, then, setting):
    def upstream(datapoint):
        if datapoint == 5:
            raise ValueError("upstream")
        return datapoint

    guarded = ff.guard(stage, retry=2, then=then)
    for source, message, where in (
        (Failing(), "source", None),
        (failing, "source", None),
        (ff.map(upstream, range(9)), "upstream", "in map(upstream), its datapoint 5 (input 5)"),
        (ff.map(upstream, Stream(range(9))), "upstream", "in map(upstream), its datapoint 5 (input 5)"),
        (ff.filter(upstream, range(1, 9)), "upstream", "in filter(upstream), its datapoint 4 (input 5)"),
    ):
        given, error, dropped = passed(ff.pipe(source, guarded, setting))
        assert given == [x for x in range(5) if x or "filter" not in str(where)]
        assert (type(error), str(error), dropped) == (ValueError, message, [])
        assert place(error) in {where or f"in what {guarded} reads, its datapoint 5", "in flow(failing)"}


@pytest.mark.parametrize("setting", LOCAL, ids=str)
def test_a_guard_upstream_and_one_downstream_see_to_their_own_stages(setting):
    first, second = Flaky({2: 1, 5: -1}), Flaky({(3,): 1, (7,): -1})
    flow = ff.pipe(
        range(9), ff.guard(ff.map(first), retry=1, then="drop"), ff.guard(ff.map(second), retry=2, then="drop"), setting
    )
    given, _, dropped = passed(flow)
    assert given == [((n,),) for n in range(9) if n not in (5, 7)]
    assert sorted(str(one.datapoint) for one in dropped) == ["(7,)", "5"]
    assert (first.calls.count(5), first.calls.count(7), second.calls.count((7,)), second.calls.count((3,))) == (
        2,
        1,
        3,
        2,
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_what_asks_to_stop_is_never_handled(setting, error):
    def work(datapoint):
        if datapoint == 3:
            raise error
        return datapoint

    with (
        pytest.raises(error),
        iter(ff.pipe(range(9), ff.guard(ff.map(work), retry=3, then="drop"), setting)) as iterator,
    ):
        list(iterator)


def test_errors_of_the_flow_below_a_datapoint_belong_to_the_stage():
    def made(datapoint):
        return ff.pipe([0, 1, 2], ff.map(lambda x: (x, datapoint / (x - 1))))

    assert list(ff.guard(ff.flat_map(made), errors=ZeroDivisionError, then="drop")([5, 6])) == [(0, -5.0), (0, -6.0)]


def test_raising_keeps_the_users_frames():
    for policy in ({}, {"retry": 2}, {"then": "drop", "budget": 0}):
        error = raised(ff.guard(ff.map(bad), **policy)(range(9)))
        assert traceback.extract_tb(error.__traceback__)[-1].name == "bad"


# Functions in place of datapoints


def test_the_function_has_the_datapoint_and_the_error_with_its_traceback():
    def then(datapoint, error):
        return datapoint, str(error), traceback.extract_tb(error.__traceback__)[-1].name

    for setting in SETTINGS:
        assert list(ff.pipe(range(2, 4), ff.guard(ff.map(bad), then=then), setting)) == [20, (3, "bad 3", "bad")]


def test_a_function_replaces_a_batch_as_a_whole():
    flow = ff.pipe(range(7), ff.guard(ff.batch(3, collate=sums), then=lambda datapoints, error: list(datapoints)))
    assert list(flow) == [30, [3, 4, 5], 60]
    assert len(flow) == 3


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_an_error_of_the_function_is_raised(setting):
    def then(datapoint, error):
        raise LookupError(f"nothing for {datapoint}")

    for stage in (ff.map(bad), ff.flat_map(some)):
        error = raised(ff.pipe(range(9), ff.guard(stage, then=then), setting))
        assert str(error) == "nothing for 3"
        assert place(error) == f"in guard({stage}, then=then), its datapoint 3 (input 3)"


def test_none_is_a_replacement():
    assert list(ff.guard(ff.map(bad), then=lambda datapoint, error: None)(range(2, 5))) == [20, None, 40]


# The next that works


def test_next_is_the_first_later_one_that_works_and_goes_round():
    def work(datapoint):
        return {1: "one", 2: "two", 5: "five"}[datapoint]

    flow = ff.pipe(range(8), ff.guard(ff.map(work), errors=KeyError, then="next"))
    assert list(flow) == ["one", "one", "two", "five", "five", "five", "one", "one"]
    assert flow[7] == "one"
    assert flow[3:5][1] == "five"


@pytest.mark.parametrize("items", [[3], [3, 10, 17]])
def test_where_nobody_works_next_raises(items):
    error = raised(ff.pipe(items, ff.guard(ff.map(bad), then="next")))
    assert str(error) == "bad 3"
    assert place(error) == "in guard(map(bad), then='next'), its datapoint 0 (input 3)"


def test_next_draws_the_numbers_of_the_one_that_failed():
    whole = dict(ff.map(lambda x, rng: (x, int(rng.integers(1 << 30))), range(30), rng=True))
    flow = ff.pipe(range(30), ff.guard(ff.map(noisy, rng=True), then="next"))
    assert list(flow) == [(number + (number % 7 == 3), whole[number]) for number in range(30)]


@pytest.mark.parametrize(
    "stages", [[ff.shuffle()], [ff.shard(1, 3)], [ff.shuffle(), ff.shard(2, 3)], [ff.skip(2), ff.repeat(2)]], ids=str
)
def test_next_is_next_in_the_order_of_the_pass(stages):
    order = list(ff.pipe(range(24), *stages))
    expected = [next(x * 10 for x in order[at:] + order[:at] if x % 7 != 3) for at in range(len(order))]
    assert list(ff.pipe(range(24), *stages, ff.guard(ff.map(bad), then="next"))) == expected


@pytest.mark.parametrize("setting", SETTINGS[1:], ids=str)
def test_next_finds_what_workers_were_not_given(setting):
    items = [(number, b"x" * 4000) for number in range(400)]  # too large to travel

    def work(item):
        if item[0] % 20 > 2:
            return item[0]
        raise ValueError

    def make_flow(*stages):
        return ff.pipe(items, ff.shuffle(), ff.guard(ff.map(work), then="next"), *stages)

    assert list(make_flow(setting)) == list(make_flow())


def test_next_goes_on_without_end_over_endless_sources():
    flow = ff.pipe(range(4), ff.cycle(), ff.guard(ff.map(bad), then="next"), ff.take(8))
    assert list(flow) == [0, 10, 20, 0, 0, 10, 20, 0]


def test_what_cannot_be_read_while_looking_for_the_next_is_not_handled():
    def upstream(datapoint):
        if datapoint == 4:
            raise ValueError("upstream")
        return datapoint

    for source in (range(9), ff.prefetch(2, range(9), threads=2)):
        error = raised(ff.pipe(source, ff.map(upstream), ff.guard(ff.map(bad), then="next")))
        assert str(error) == "upstream"
        assert place(error) == "in what guard(map(bad), then='next') reads, its datapoint 4"


def test_looking_for_the_next_starts_no_workers():
    started = []

    def upstream(datapoint):
        started.append(threading.current_thread().name)
        return datapoint

    flow = ff.pipe(range(4), ff.map(upstream), ff.prefetch(1, threads=2), ff.guard(ff.map(bad), then="next"))
    assert list(flow) == [0, 10, 20, 0]
    assert started.count("MainThread") == 1


# Stages that read ahead, or do not keep to the rules


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10, 100])
@pytest.mark.parametrize("source", SOURCES)
def test_reading_ahead_changes_nothing(source, size):
    numbers = list(range(24))
    good = [n * 10 for n in numbers if n % 7 != 3]

    def outcome(**policy):
        return passed(ff.pipe(source(numbers), ff.guard(ahead(size), **policy)))

    given, error, _ = outcome()
    assert (given, str(error)) == ([0, 10, 20], "bad 3")
    assert place(error) == f"in guard(ahead({size})), its datapoint {min(-(-4 // size) * size, 24) - 1} (input 3)"
    given, _, dropped = outcome(then="drop")
    assert given == good
    assert [(one.index, one.datapoint, str(one.error)) for one in dropped] == [(n, n, f"bad {n}") for n in (3, 10, 17)]
    given, _, dropped = outcome(then=minus)
    assert given == [-1 if n % 7 == 3 else n * 10 for n in numbers]
    assert [one.index for one in dropped] == [3, 10, 17]


@ff.stage.each
def early(source):
    yield from itertools.islice(source, 3)


@ff.stage.each
def generous(source):
    for datapoint in source:
        yield datapoint
        yield datapoint


@ff.stage.each
def sparing(source):
    for datapoint in source:
        if datapoint % 2:
            yield datapoint


@pytest.mark.parametrize("stage", [early(), generous(), sparing()], ids=str)
@pytest.mark.parametrize("policy", [{}, {"then": "drop"}, {"then": minus}, {"errors": IndexError, "then": "drop"}])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("setting", LOCAL, ids=str)
def test_a_stage_with_the_wrong_number_of_outputs_is_named(source, stage, policy, setting):
    error = raised(
        ff.pipe(source(range(300)), ff.guard(stage, **policy), setting)
    )  # enough for tasks of more than three
    assert str(error) == (
        f"{stage} gave the wrong number of outputs: a stage.each or stage.group function yields exactly one output "
        "for each input"
    )


def test_a_stage_that_asks_for_no_more_than_there_is_may_end():
    assert list(ff.guard(early(), then="drop")(range(3))) == [0, 1, 2]


def test_a_stage_may_take_what_other_kinds_of_node_give_it():
    seen = []
    assert list(ff.guard(ff.tap(seen.append, first=2))(range(5))) == list(range(5))
    assert seen == [0, 1]
