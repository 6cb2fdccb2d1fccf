"""What arguments must be: how that is checked and said, and the rules that many words share."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from flowfn.functions import misplaced, mistaken
from flowfn.showing import brief

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Rule:
    """What an argument must be, in words and as tests of its type and (with the other arguments) of its value.

    `hint` is said at the end of its messages. `slip` says what is wrong with a value of the right type that is there by
    mistake, in words.
    """

    requirement: str
    fits_type: Callable[[Any], bool]
    fits: Callable[[Any, Mapping[str, Any]], bool] = lambda value, others: True
    hint: str = ""
    slip: Callable[[Any, Mapping[str, Any]], str] = lambda value, others: ""

    def check(self, function: str, name: str, value: Any, others: Mapping[str, Any]) -> Any:
        """The value (an integer of any type as an int), or an error that says what must hold and what was given."""
        error: type[Exception] | None = None
        if not self.fits_type(value):
            error = TypeError
        elif not self.fits(value, others):
            error = ValueError
        if error is not None:
            raise error(f"{function}(): {name} must be {self.requirement}, got {brief(value)}{self.hint}")
        slip = self.slip(value, others)
        if slip:
            raise TypeError(f"{function}(): {name} must be {self.requirement}, got {slip}")
        return operator.index(value) if is_integer(value) else value


def checked(**where: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Hold the arguments of a plain function against rules, in their order, before it runs; stages have `where=`.

    To all others the function is what it was. A call that does not fit its parameters (each of which has a name, none
    a star) is refused by Python.

    >>> @checked(n=positive)
    ... def halves(n: int = 2) -> list[float]:
    ...     return [0.5] * n
    >>> halves()
    [0.5, 0.5]
    >>> halves(0)
    Traceback (most recent call last):
    ValueError: halves(): n must be a positive integer, got 0
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        names = frozenset(p.name for p in parameters)
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        call: Callable[..., R] = function

        @functools.wraps(function)
        def checking(*args: P.args, **kwargs: P.kwargs) -> R:
            named = dict(zip(positional, args)) | kwargs
            arguments = defaults | named
            if len(named) < len(args) + len(kwargs) or arguments.keys() != names:
                return call(*args, **kwargs)
            for word, rule in where.items():
                arguments[word] = rule.check(function.__name__, word, arguments[word], arguments)
            return call(**arguments)

        vars(checking)["rules"] = where
        return checking

    return decorated


def check_fields(owner: Any, **where: Rule) -> None:
    """Hold the fields of a value against rules, each by itself and in their order; they stay as they are."""
    for word, rule in where.items():
        rule.check(type(owner).__name__, word, getattr(owner, word), {})


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of any library's type, and not a bool."""
    return hasattr(value, "__index__") and not isinstance(value, (bool, type)) and getattr(value, "shape", ()) == ()


def is_number(value: Any) -> bool:
    """Whether a value is a real number, and not a bool."""
    return (isinstance(value, float) or is_integer(value)) and not (isinstance(value, float) and math.isnan(value))


def one_of(*choices: Any) -> Rule:
    """One of a few words.

    >>> one_of("a", "b").requirement
    "'a' or 'b'"
    """
    words = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    return Rule(words, lambda value: True, lambda value, others: value in choices)


def optional(rule: Rule) -> Rule:
    """The rule, or None."""
    return Rule(
        f"{rule.requirement} or None",
        lambda value: value is None or rule.fits_type(value),
        lambda value, others: value is None or rule.fits(value, others),
        rule.hint,
        lambda value, others: "" if value is None else rule.slip(value, others),
    )


positive = Rule("a positive integer", is_integer, lambda value, others: value > 0)
natural = Rule("an integer >= 0", is_integer, lambda value, others: value >= 0)
integer = Rule("an integer", is_integer)
function = Rule("a function", callable, slip=misplaced)
of_datapoint = Rule("a function", callable, slip=mistaken)
of_two = Rule("a function", callable, slip=partial(mistaken, arguments=2))
seconds = Rule("a positive number of seconds", is_number, lambda value, others: value > 0)
string = Rule("a string", lambda value: isinstance(value, str))
folder = Rule(
    "the path of a folder",
    lambda value: isinstance(value, (str, os.PathLike)),
    lambda value, others: os.fspath(value) not in ("", b""),
)
boolean = Rule("True or False", lambda value: isinstance(value, bool))
