"""The fill-in tasks of the example: nothing of a text is lost, and as much is left out as is said."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TEXTS = st.lists(st.integers(0, 255), max_size=60).map(lambda tokens: np.array(tokens, np.uint16))
GENERATORS = st.integers(0, 2**32).map(np.random.default_rng)


@pytest.fixture(scope="module")
def tasks():
    """The example, imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent.parent / "examples")
        import language_tasks

        yield language_tasks
        sys.modules.pop("language_tasks")


def put_together(tasks, tokens):
    """The text that a task was made of, by what the paper says of its two forms."""
    at = {name: tokens.tolist().index(one) for name, one in (("s", tasks.SUFFIX), ("m", tasks.MIDDLE))}
    suffix, rest = tokens[at["s"] + 1 : at["m"]], tokens[at["m"] + 1 :]
    return np.concatenate([tokens[1 : at["s"]], rest, suffix])


@settings(deadline=None, derandomize=True)
@given(tokens=TEXTS, rng=GENERATORS, spm=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_text_is_still_there_when_its_middle_is_at_its_end(tasks, tokens, rng, spm):
    made = tasks.fill_in_the_middle(tokens, rng, rate=1.0, spm=spm)
    assert (made.dtype, len(made)) == (np.uint16, len(tokens) + 3)
    assert put_together(tasks, made).tolist() == tokens.tolist()
    assert made[0] == tasks.PREFIX


def test_forms_and_rates_are_as_frequent_as_is_said(tasks):
    tokens = np.arange(100, dtype=np.uint16)
    made = [tasks.fill_in_the_middle(tokens, np.random.default_rng(seed)) for seed in range(2000)]
    moved = [one for one in made if len(one) > 100]
    assert len(moved) / 2000 == pytest.approx(0.5, abs=0.05)
    assert np.mean([one[1] == tasks.SUFFIX for one in moved]) == pytest.approx(0.5, abs=0.06)
    middles = [len(one) - 1 - one.tolist().index(tasks.MIDDLE) for one in moved if one[1] != tasks.SUFFIX]
    assert np.mean(middles) == pytest.approx(100 / 3, abs=4)  # between two places drawn uniformly


@settings(deadline=None, derandomize=True)
@given(tokens=TEXTS, rng=GENERATORS, density=st.sampled_from([0.15, 0.5]))
def test_targets_fill_the_gaps_of_inputs(tasks, tokens, rng, density):
    made = tasks.corrupt_spans(tokens, rng, density)
    inputs, targets = made["inputs"].tolist(), made["targets"].tolist()
    missing, number = {}, 0
    for token in targets:
        if token > 255:
            assert token == tasks.SENTINEL - number
            missing[token], last, number = [], token, number + 1
        else:
            missing[last].append(token)
    assert not missing[last]  # the last sentinel only ends them
    assert all(missing[one] for one in missing if one != last)
    assert [other for one in inputs for other in missing.get(one, [one])] == tokens.tolist()
    assert made["inputs"].dtype == made["targets"].dtype == np.uint16


@pytest.mark.parametrize(("length", "noise", "spans"), [(100, 15, 5), (512, 77, 26), (20, 3, 1), (3, 1, 1)])
def test_as_much_is_left_out_as_by_t5(tasks, length, noise, spans):
    """round(length * 0.15) tokens in round(noise / 3) spans."""
    made = tasks.corrupt_spans(np.zeros(length, np.uint16), np.random.default_rng(0))
    assert (made["inputs"] > 255).sum() == spans
    assert len(made["targets"]) == noise + spans + 1
    assert len(made["inputs"]) == length - noise + spans


def test_texts_are_cut_elsewhere_in_every_epoch_and_the_same_after_a_resume(tasks):
    for task in (tasks.filled_in, tasks.corrupted):
        first, second = (list(task().run(epoch=epoch)) for epoch in range(2))
        assert repr(first) != repr(second)
        flow = task()
        with flow.run(epoch=1) as iterator:
            next(iterator)
            state = iterator.state_dict()
        assert repr(list(task().load_state_dict(state))) == repr(second[1:])
