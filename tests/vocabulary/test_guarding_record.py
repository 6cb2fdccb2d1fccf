"""What guards write down and allow: the record, budgets, and what `guard` itself takes and is."""

import gc
import itertools
import json
import math
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest
from failing_stages import LOCAL, SETTINGS, SOURCES, bad, doubled, minus, noisy, passed, raised, some
from sources import Stream

import flowfn as ff
from flowfn.flows.states import fingerprint
from flowfn.testing import same

# The record


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_the_record_says_what_failed(source, setting):
    flow = ff.pipe(source(range(20)), ff.guard(ff.map(bad), then="drop"), ff.batch(4), setting)
    for _ in range(2):
        iterator = iter(flow)
        assert iterator.dropped == []
        list(iterator)
        assert [(d.index, type(d.error), str(d.error), d.datapoint, d.stage) for d in iterator.dropped] == [
            (n, ValueError, f"bad {n}", n, "map(bad)") for n in (3, 10, 17)
        ]
        iterator.close()
        assert len(iterator.dropped) == 3


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_record_grows_with_what_is_given(setting):
    with iter(ff.pipe(range(12), ff.guard(ff.map(bad), then="drop"), setting)) as iterator:
        found = [(output, [one.index for one in iterator.dropped]) for output in iterator]
    assert found == [(n * 10, [3] * (n > 3) + [10] * (n > 10)) for n in range(12) if n % 7 != 3]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_newest_hundred_are_kept(setting):
    iterator = iter(ff.pipe(range(300), ff.guard(ff.map(lambda x: bad(3)), then=minus), setting))
    assert list(iterator) == [-1] * 300
    assert [one.index for one in iterator.dropped] == list(range(200, 300))


class Homebody:
    """A datapoint that does not travel."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        raise TypeError("it stays")

    def __repr__(self):
        return f"Homebody({self.number})"


class Two(Exception):
    """An error that does not travel."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


@pytest.mark.parametrize("setting", SETTINGS[3:], ids=str)
def test_what_cannot_travel_is_described(setting):
    def work(homebody):
        if homebody.number % 2:
            raise Two("one", homebody.number)
        return homebody.number

    iterator = iter(ff.pipe(range(4), ff.map(Homebody), ff.guard(ff.map(work), then="drop"), setting))
    assert list(iterator) == [0, 2]
    assert [one.datapoint for one in iterator.dropped] == ["Homebody(1)", "Homebody(3)"]
    assert [(type(one.error), str(one.error)) for one in iterator.dropped] == [(Two, f"one and {n}") for n in (1, 3)]


@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")
@pytest.mark.parametrize("source", SOURCES)
def test_an_index_is_the_datapoints_own(source):
    def indices(*stages):
        iterator = iter(ff.pipe(source(range(24)), *stages, ff.guard(ff.map(lambda x: bad(3)), then="drop")))
        list(iterator)
        return [one.index for one in iterator.dropped]

    assert indices() == list(range(24))
    assert indices(ff.skip(20)) == [20, 21, 22, 23]
    assert indices(ff.shard(1, 3), ff.shard(1, 2)) == [4, 10, 16, 22]
    assert indices(ff.take(3), ff.flat_map(lambda x: range(x))) == [(1, 0), (2, 0), (2, 1)]
    assert indices(ff.filter(lambda x: x % 8 == 0)) == [(0, 0), (8, 0), (16, 0)]
    assert indices(ff.batch(10)) == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")
def test_an_index_is_what_a_stage_is_told():
    @ff.stage.each
    def told(source, *, indices):
        for _, index in zip(source, indices):
            raise ValueError(index)
            yield

    for stages in ([], [ff.shard(1, 2)], [ff.flat_map(lambda x: [x, x])], [ff.shuffle(), ff.batch(2)]):
        iterator = iter(ff.pipe(range(6), *stages, ff.guard(told(), then="drop")))
        list(iterator)
        assert [one.index for one in iterator.dropped] == [one.error.args[0] for one in iterator.dropped] != []


class Mortal(list):
    pass


@pytest.mark.parametrize("setting", LOCAL, ids=str)
def test_nothing_is_kept_alive_but_the_newest_datapoints(setting):
    held = []

    def work(datapoint):
        large = Mortal()
        held.append(weakref.ref(large))
        try:
            try:
                raise KeyError
            except KeyError as error:
                raise OSError from error
        except OSError:
            raise ValueError from None

    iterator = iter(ff.pipe(range(20), ff.guard(ff.map(work), retry=1, then=minus), setting))
    list(iterator)
    gc.collect()
    assert len(iterator.dropped) == 20
    assert [one for one in held if one() is not None] == []


def test_what_was_kept_goes_with_the_iterator():
    made = []

    def make(number):
        datapoint = Mortal([number])
        made.append(weakref.ref(datapoint))
        return datapoint

    flow = ff.pipe(range(5), ff.map(make), ff.guard(ff.map(lambda d: bad(3)), then="drop"))
    iterator = iter(flow)
    list(iterator)
    assert sum(one() is not None for one in made) == 5
    del iterator
    list(flow)
    gc.collect()
    assert sum(one() is not None for one in made) <= 5


@pytest.mark.parametrize(("source", "then"), list(zip(SOURCES, (minus, "drop"))))
def test_memory_does_not_grow_with_the_failures(source, then):
    iterator = iter(
        ff.pipe(source(range(14_000)), ff.guard(ff.map(bad), retry=1, then=then), ff.guard(ff.flat_map(lambda x: [x])))
    )
    list(itertools.islice(iterator, 2000))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in itertools.islice(iterator, 10_000):
        pass
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 50_000


# Budgets


def judged(budget, failing, n):
    """The datapoint at which `budget` is used up, by the book."""
    failures = 0
    for number in range(n):
        failures += number in failing
        if number in failing:
            used_up = (
                failures > budget
                if isinstance(budget, int)
                else (number + 1 >= 1 / budget and failures / (number + 1) > budget)
            )
            if used_up:
                return number
    return None


BUDGETS = [0, 1, 3, 0.5, 0.2, 0.15, 0.1, 0.01]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("then", ["drop", minus])
def test_a_budget_is_judged_at_each_failure_and_a_share_from_its_inverse_on(source, then, budget):
    for failing in ({0, 1}, {3, 10, 17, 24, 31, 38}, {40, 41}, set(range(0, 60, 5)), set()):

        def work(datapoint):
            if datapoint in failing:
                raise ValueError
            return datapoint

        given, error, dropped = passed(ff.pipe(source(range(60)), ff.guard(ff.map(work), then=then, budget=budget)))
        last = judged(budget, failing, 60)
        assert given == [
            n if n not in failing else -1
            for n in range(60 if last is None else last)
            if n not in failing or then is minus
        ]
        assert (error is None) == (last is None)
        assert [one.index for one in dropped] == [n for n in sorted(failing) if last is None or n < last]


def test_a_share_is_exact():
    """One of n is no more than 1 / n, and 29 of 100 no more than 0.29, whatever floats make of it."""
    for n in range(2, 100):
        flow = ff.guard(ff.map(lambda x: 1 // x), then="drop", budget=1 / n)([*[1] * (n - 1), 0])
        assert passed(flow)[1] is None
        flow = ff.guard(ff.map(lambda x: 1 // x), then="drop", budget=n / 100)([*[1] * (100 - n), *[0] * n])
        assert passed(flow)[1] is None


def test_the_message_of_a_budget():
    error = raised(ff.guard(ff.map(bad), then="drop", budget=1)(range(20)))
    assert str(error) == "bad 10"
    assert error.__notes__ == [
        "guard(): 2 of 11 datapoints failed, which is more than budget=1 allows",
        "in guard(map(bad), then='drop', budget=1), its datapoint 10 (input 10), seed 0, epoch 0\n"
        "to see it again, serially: flowfn.replay(flow, error)",
    ]
    error = raised(ff.guard(ff.map(bad), then="drop", budget=0.15)(range(20)))
    assert error.__notes__[0] == "guard(): 2 of 11 datapoints failed, which is more than budget=0.15 allows"


MORE = [
    lambda: [],
    lambda: [ff.batch(4)],
    lambda: [ff.filter(lambda x: x % 3), ff.batch(3)],
    lambda: [ff.map(abs), ff.guard(ff.map(lambda x: 10 // (x % 50 - 1)), then="drop", budget=3)],
]


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize(
    "source", [*SOURCES, lambda items: ff.shuffle(items), lambda items: ff.filter(lambda x: x % 5, items)]
)
def test_every_number_of_workers_fails_at_the_same_datapoint(source, more):
    for budget, then in itertools.product((0, 2, 0.12), ("drop", minus)):
        outcomes = []
        for setting in (*SETTINGS, ff.prefetch(5, threads=3)):
            flow = ff.pipe(source(range(60)), ff.guard(ff.map(bad), then=then, budget=budget), *more(), setting)
            given, error, dropped = passed(flow)
            told = [note.partition("\n")[0] for note in error.__notes__] if error else None
            outcomes.append((list(map(str, given)), str(error), told, [(one.index, str(one.error)) for one in dropped]))
        assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("then", ["drop", minus])
def test_the_count_is_in_the_state(source, then, setting):
    def make_flow(*stages):
        return ff.pipe(source(range(60)), ff.guard(ff.map(bad), then=then, budget=3), ff.batch(4), *stages)

    whole, error, _ = passed(make_flow())
    for k in range(0, len(whole) + 1, 1 if setting is None else 3):
        with iter(make_flow(setting)) as iterator:
            for _ in range(k):
                next(iterator)
            state = json.loads(json.dumps(iterator.state_dict()))
        assert len(json.dumps(state)) < 1000
        for resumed in (make_flow(), make_flow(setting)):
            given, again, _ = passed(resumed.load_state_dict(state))
            assert all(map(same, given, whole[k:]))
            assert len(given) == len(whole) - k
            assert (str(again), again.__notes__[0]) == (str(error), error.__notes__[0])


def test_budgets_begin_anew_in_every_epoch():
    flow = ff.guard(ff.map(bad), then="drop", budget=3)(range(20))
    for _ in range(3):
        assert len(list(flow)) == 17


def test_a_budget_is_for_all_rounds_of_a_pass():
    for then in ("drop", minus):
        flow = ff.pipe(range(9), ff.guard(ff.map(bad), then=then, budget=2), ff.repeat(3))
        given, error, _ = passed(flow)
        assert (len(given), str(error)) == (19 if then == "drop" else 21, "bad 3")


def test_looking_at_a_datapoint_uses_nothing_up():
    flow = ff.guard(ff.map(bad), then=minus, budget=0)(range(9))
    for _ in range(3):
        assert flow[3] == -1
    assert flow.__getitems__([3, 3, 4]) == [-1, -1, 40]
    assert isinstance(raised(flow), ValueError)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("policy", [{}, {"retry": 1}, {"then": "drop", "budget": 1}, {"then": minus, "budget": 1}])
def test_replay_makes_it_happen_again(setting, policy):
    flow = ff.pipe(range(30), ff.shuffle(), ff.guard(ff.map(bad), **policy), ff.batch(3), setting)
    error = raised(flow)
    with pytest.raises(ValueError, match="bad") as again:
        ff.replay(flow, error)
    assert str(again.value) == str(error)
    mended = ff.pipe(range(30), ff.shuffle(), ff.guard(ff.map(lambda x: x * 10), **policy), ff.batch(3), setting)
    assert len(ff.replay(mended, error)) == 3


# Arguments


NOT_SO = "guard(): stage must work datapoint by datapoint (each, group or expand), got "


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (ff.shuffle(), NOT_SO + "shuffle()"),
        (ff.take(3), NOT_SO + "take(3)"),
        (ff.shuffle_buffer(3), NOT_SO + "shuffle_buffer(3)"),
        (ff.prefetch(2), NOT_SO + "prefetch(2)"),
        (ff.cache(), NOT_SO + "cache()"),
        (ff.freeze(), NOT_SO + "freeze()"),
        (ff.enumerate(), NOT_SO + "enumerate()"),
        (ff.compose(ff.map(abs), ff.batch(2)), NOT_SO + "compose(map(abs), batch(2))"),
        (ff.guard(ff.map(abs)), NOT_SO + "guard(map(abs))"),
        (ff.guard(ff.batch(2), then="drop"), NOT_SO + "guard(batch(2), then='drop')"),
        (ff.map, "guard(): argument 1 is map without its arguments: write map(f)"),
        (ff.zip, "guard(): argument 1 is zip itself; to join flows write zip(a, b)"),
        (
            ff.pipe([1], ff.map(abs)),
            "guard(): argument 1 is a flow, not a stage: pipe(flow([1]), map(abs)); only the first argument of pipe "
            "is a source",
        ),
        (3, "guard(): argument 1 must be a stage or a function of an iterable, got 3"),
        (None, "guard(): argument 1 must be a stage or a function of an iterable, got None"),
    ],
)
def test_what_cannot_be_guarded(stage, message):
    with pytest.raises(TypeError) as caught:
        ff.guard(stage)
    assert str(caught.value) == message


def test_plain_functions_of_an_iterable_cannot_be_guarded():
    with pytest.raises(TypeError, match="stage must work datapoint by datapoint"):
        ff.guard(lambda source: source)


ERRORS = "guard(): errors must be a subclass of Exception or a tuple of them, got "


THEN = "guard(): then must be 'raise', 'drop', 'next' or a function of the datapoint and the error, got "


BUDGET = (
    "guard(): budget must be None, a number of datapoints (an integer >= 0) or a share of them (a float between "
    "0 and 1), got "
)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"errors": [OSError]}, TypeError, ERRORS + "[<class 'OSError'>]"),
        ({"errors": KeyboardInterrupt}, TypeError, ERRORS + "<class 'KeyboardInterrupt'>"),
        ({"errors": (OSError, BaseException)}, TypeError, ERRORS + "(<class 'OSError'>, <class 'BaseException'>)"),
        ({"errors": OSError()}, TypeError, ERRORS + "OSError()"),
        ({"errors": ()}, ValueError, ERRORS + "()"),
        ({"retry": -1}, ValueError, "guard(): retry must be an integer >= 0, got -1"),
        ({"retry": 1.5}, TypeError, "guard(): retry must be an integer >= 0, got 1.5"),
        ({"retry": True}, TypeError, "guard(): retry must be an integer >= 0, got True"),
        ({"then": "skip"}, ValueError, THEN + "'skip'"),
        ({"then": 3}, TypeError, THEN + "3"),
        ({"then": None}, TypeError, THEN + "None"),
        ({"then": "drop", "budget": -1}, ValueError, BUDGET + "-1"),
        ({"then": "drop", "budget": 0.0}, ValueError, BUDGET + "0.0"),
        ({"then": "drop", "budget": 1.0}, ValueError, BUDGET + "1.0"),
        ({"then": "drop", "budget": math.inf}, ValueError, BUDGET + "inf"),
        ({"then": "drop", "budget": math.nan}, TypeError, BUDGET + "nan"),
        ({"then": "drop", "budget": True}, TypeError, BUDGET + "True"),
        ({"then": "drop", "budget": "1%"}, TypeError, BUDGET + "'1%'"),
        (
            {"budget": 3},
            ValueError,
            "guard(): budget counts what is dropped or replaced, so it needs then='drop', 'next' or a function",
        ),
    ],
    ids=str,
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error) as caught:
        ff.guard(ff.map(abs), **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("stage", [ff.batch(2), ff.window(2), ff.filter(abs), ff.flat_map(abs), doubled()], ids=str)
def test_next_is_for_stages_like_map(stage):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ff.guard(stage, then="next")
    assert (
        str(caught.value)
        == f"guard(): then='next' is for stages like map, that give one output for one datapoint, got {stage}"
    )


def test_next_needs_a_source_that_can_be_indexed():
    for source, why in (
        (
            Stream([1]),
            "flow(Stream) can only be iterated; give a list, an array or an object with __len__ and __getitem__",
        ),
        (ff.filter(abs, [1]), "how many outputs filter(abs) gives is only known once it has run"),
    ):
        with pytest.raises(TypeError) as caught:
            ff.guard(ff.map(abs), then="next")(source)
        assert (
            str(caught.value)
            == f"guard(map(abs), then='next'): then='next' needs a source that can be indexed, but {why}"
        )


def test_integers_of_other_libraries_are_integers():
    guarded = ff.guard(ff.map(abs), retry=np.int64(2), then="drop", budget=np.int8(3))
    assert repr(guarded) == "guard(map(abs), retry=2, then='drop', budget=3)"


# As a value


GUARDED = [
    (lambda: ff.guard(ff.map(abs)), "guard(map(abs))"),
    (lambda: ff.guard(ff.map(abs), errors=OSError, retry=3), "guard(map(abs), errors=OSError, retry=3)"),
    (lambda: ff.guard(ff.map(abs), errors=(OSError, KeyError)), "guard(map(abs), errors=(OSError, KeyError))"),
    (lambda: ff.guard(ff.batch(3), then="drop", budget=0.1), "guard(batch(3), then='drop', budget=0.1)"),
    (lambda: ff.guard(ff.flat_map(some), then=minus), "guard(flat_map(some), then=minus)"),
    (lambda: ff.guard(ff.unbatch), "guard(unbatch())"),
    (
        lambda: ff.guard(ff.map(noisy, rng=True, name="mine"), then="next"),
        "guard(map(noisy, rng=True, name='mine'), then='next')",
    ),
]


@pytest.mark.parametrize(("make", "text"), GUARDED, ids=[text for _, text in GUARDED])
def test_a_guarded_stage_is_a_value(make, text):
    stage = make()
    assert repr(stage) == text
    assert stage == make()
    assert hash(stage) == hash(make())
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert all(stage != other() for other, words in GUARDED if words != text)
    flow = stage([1])
    assert repr(flow) == f"pipe(flow([1]), {stage})"
    assert repr(pickle.loads(pickle.dumps(flow))) == repr(flow)
    assert ff.pipe([1], stage).node.length_or_none() == flow.node.length_or_none()
    assert repr(ff.compose(stage, ff.take(1))) == f"compose({stage}, take(1))"
    assert fingerprint(flow) == fingerprint(make()([1]))
    assert fingerprint(flow) not in {fingerprint(other()([1])) for other, words in GUARDED if words != text}


def test_a_state_is_not_for_the_unguarded_pipeline():
    state = iter(ff.guard(ff.map(abs))(range(3))).state_dict()
    with pytest.raises(ValueError, match="saved by another pipeline"):
        ff.map(abs, range(3)).load_state_dict(state)


def test_explain_knows_guarded_stages(capsys):
    ff.explain(
        ff.pipe(
            range(9), ff.guard(ff.map(bad), then=minus), ff.guard(ff.batch(2), then="drop"), ff.prefetch(2, threads=2)
        )
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:4] == ["guard(map(bad),", "then=minus)", "each", "9"]
    assert [line.split()[2] for line in lines if line.startswith("guard(batch(2),")] == ["expand"]


def test_starting_a_stage_again_reads_nothing_again():
    seen = []
    flow = ff.pipe(range(200), ff.tap(seen.append), ff.guard(ff.map(bad), then="drop"))
    assert len(list(flow)) == 200 - len(range(3, 200, 7))
    assert seen == list(range(200))
