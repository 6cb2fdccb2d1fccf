"""What leaves everything out, or nearly everything, is told once at the end of each pass, wherever it runs."""

import warnings

import pytest

import flowfn as ff

WORKERS = [None, {}, {"threads": 2}, {"processes": 1}, {"processes": 2}]
NOTHING = r"^filter\(never\) gave no output for 2000 inputs in epoch 0; is what it keeps what it should keep\?$"


def never(x):
    return False


def rarely(x):
    return x % 4000 == 3


def told(flow):
    """What a pass warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(flow)
    return [str(one.message) for one in caught]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", WORKERS, ids=str)
@pytest.mark.parametrize("source", [list(range(2000)), lambda: iter(range(2000))], ids=["list", "stream"])
def test_a_filter_that_drops_everything_is_told_in_every_epoch_and_where_it_is_used(workers, source):
    flow = ff.pipe(source, ff.filter(never), ff.map(str), None if workers is None else ff.prefetch(2, **workers))
    if workers == {"processes": 1} and callable(
        source
    ):  # a pass that the one worker keeps, and of which it counts nothing here
        assert told(flow) == []
        return
    with pytest.warns(UserWarning, match=NOTHING) as caught:
        assert list(flow) == []
    assert [one.filename for one in caught] == [__file__]
    assert told(flow) == [NOTHING[1:-2].replace("\\", "").replace("epoch 0", "epoch 1") + "?"]


STAGES = {
    "filter_map": (ff.filter_map(lambda x: None), "filter_map("),
    "flat_map": (ff.flat_map(lambda x: []), "flat_map("),
    "unbatch": (ff.compose(ff.map(lambda x: [[]]), ff.unbatch()), "unbatch()"),
    "guard": (ff.guard(ff.map(lambda x: 1 / 0), then="drop"), "guard("),
    "draws": (ff.filter(lambda x, rng: False, rng=True), "filter("),
    "before others": (ff.compose(ff.filter(never), ff.batch(3), ff.shuffle_buffer(4)), "filter(never)"),
    "behind others": (ff.compose(ff.shuffle_buffer(4), ff.batch(2), ff.filter(never)), "filter(never)"),
}


@pytest.mark.parametrize("name", STAGES)
def test_all_that_may_leave_inputs_out_tells(name):
    stage, begins = STAGES[name]
    (message,) = told(ff.pipe(range(30), stage))
    assert message.startswith(f"{begins}" if begins.endswith("(") else f"{begins} gave no output for ")


def test_one_in_a_thousand_is_few():
    assert told(ff.pipe(range(20_000), ff.filter(rarely))) == [
        "filter(rarely) gave 5 outputs for 20000 inputs in epoch 0; is what it keeps what it should keep?"
    ]
    assert told(ff.pipe(range(9_000), ff.filter(rarely))) == []
    assert told(ff.pipe(range(20_000), ff.filter(lambda x: x % 500 == 0))) == []


def test_what_is_empty_or_was_not_read_to_its_end_is_not_told():
    assert told(ff.pipe([], ff.filter(never))) == []
    assert told(ff.pipe(range(5), ff.filter(never))) == []
    assert told(ff.pipe(range(2000), ff.filter(lambda x: True))) == []
    with iter(ff.pipe(range(2000), ff.filter(lambda x: x > 30))) as iterator:
        next(iterator)


def test_a_resumed_pass_counts_what_was_before():
    flow = ff.pipe(range(20_000), ff.filter(rarely))
    with iter(flow) as iterator:
        next(iterator)
        state = iterator.state_dict()
    (message,) = told(ff.pipe(range(20_000), ff.filter(rarely)).load_state_dict(state))
    assert message.startswith("filter(rarely) gave 5 outputs for 20000 inputs")
