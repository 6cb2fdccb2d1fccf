"""Plain functions hold their arguments against rules, and are otherwise what they were."""

import inspect
import pickle
import traceback

import numpy as np
import pytest

import flowfn as ff
from flowfn import datasets, formats, image, rules, testing


@rules.checked(n=rules.positive, words=rules.string)
def repeated(n, other=None, *, words="ab"):
    """So many words."""
    return type(n), words * n, other


def test_arguments_are_checked_in_the_order_of_the_rules():
    assert repeated(2) == (int, "abab", None)
    assert repeated(np.int64(1), "x", words="c") == (int, "c", "x")
    with pytest.raises(ValueError, match=r"^repeated\(\): n must be a positive integer, got 0$"):
        repeated(0, words=5)
    with pytest.raises(TypeError, match=r"^repeated\(\): words must be a string, got 5$"):
        repeated(n=3, words=5)


def test_a_call_that_does_not_fit_is_refused_as_that_of_any_function():
    with pytest.raises(TypeError, match=r"^repeated\(\) missing 1 required positional argument: 'n'$") as raised:
        repeated()
    assert raised.value.__context__ is None
    for args, kwargs, message in [
        ((0,), {"m": 1}, "got an unexpected keyword argument 'm'"),
        ((), {"m": 1}, "got an unexpected keyword argument 'm'"),
        ((0,), {"n": 1}, "got multiple values for argument 'n'"),
        ((0, 1, 2), {}, "takes from 1 to 2 positional arguments but 3 were given"),
    ]:
        with pytest.raises(TypeError, match=rf"^repeated\(\) {message}$"):
            repeated(*args, **kwargs)


@pytest.mark.parametrize("function", [ff.speed, image.decode_image, datasets.cifar10, ff.from_queue])
def test_a_function_is_to_others_what_it_was(function):
    assert pickle.loads(pickle.dumps(function)) is function
    assert function.__module__ in ("flowfn", "flowfn.image", "flowfn.datasets")
    assert function.__doc__ == inspect.unwrap(function).__doc__ != ""
    assert "args" not in inspect.signature(function).parameters


def test_a_refusal_is_two_frames_away():
    with pytest.raises(ValueError, match="channels") as raised:
        image.decode_image(b"", channels=2)
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert [frame.name for frame in frames[1:]] == ["checking", "check"]


def test_what_a_function_is_called_with_is_seen_through_the_check():
    with pytest.raises(TypeError, match=r"a function of \(lengths, capacity\); it is called with one datapoint"):
        ff.map(ff.first_fit)


def test_rules_are_of_parameters_that_have_names():
    public = {
        getattr(room, name)
        for room in (ff, datasets, formats, image, testing)
        for name in room.__all__
        if callable(getattr(room, name))
    }
    checked = [function for function in public if hasattr(function, "rules")]
    assert len(checked) > 40
    for function in checked:
        parameters = inspect.signature(function).parameters
        assert function.rules.keys() <= parameters.keys(), function
        assert {p.kind for p in parameters.values()} <= {
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        }, function
