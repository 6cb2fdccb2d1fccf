"""Plain functions hold their arguments against rules, and are otherwise what they were."""

import inspect
import pickle
import traceback

import numpy as np
import pytest

import flowfn as ff
from flowfn import datasets, image, rules


@rules.checked(n=rules.positive, words=rules.string)
def repeated(n, *parts, words="ab", other=None):
    """So many words."""
    return type(n), words * n, parts


def test_arguments_are_checked_in_the_order_of_the_rules():
    assert repeated(2) == (int, "abab", ())
    assert repeated(np.int64(1), "x", "y", words="c") == (int, "c", ("x", "y"))
    with pytest.raises(ValueError, match=r"^repeated\(\): n must be a positive integer, got 0$"):
        repeated(0, words=5)
    with pytest.raises(TypeError, match=r"^repeated\(\): words must be a string, got 5$"):
        repeated(n=3, words=5)


def test_a_call_that_does_not_fit_is_refused_as_that_of_any_function():
    with pytest.raises(TypeError, match=r"^repeated\(\) missing 1 required positional argument: 'n'$") as raised:
        repeated()
    assert raised.value.__context__ is None
    with pytest.raises(TypeError, match="unexpected keyword argument 'm'"):
        repeated(0, m=1)


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
