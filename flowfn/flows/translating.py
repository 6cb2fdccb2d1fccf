"""Messages that name the word to use: of a keyword, an attribute or a name that is not there, but is one elsewhere.

Nothing is looked up before something is wrong.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from flowfn.flows.dialects import KEYWORDS, METHODS, NAMES
from flowfn.functions import is_stage
from flowfn.rules import P, R

_PACKAGES = ("datasets", "formats", "image", "interop", "serving", "testing")


def unknown_keyword(function: str, word: str, keywords: Iterable[str]) -> str:
    """What to say of a keyword that a function does not have: the word to use, if anything is like it.

    >>> unknown_keyword("batch", "drop_last", ["size"]), unknown_keyword("batch", "colate", ["size", "collate"])
    ('; drop_last is a word of torch: write drop_remainder=True', '; did you mean collate=?')
    """
    word_elsewhere = KEYWORDS.get(word)
    if word_elsewhere is not None:
        return f"; {word} is a word of {word_elsewhere.of}: {word_elsewhere.at.get(function, word_elsewhere.do)}"
    if word == "seed":
        return "; a flow has one seed for all its stages: reset_state(seed)"
    packer = _packer_with(word) if function == "pack" else ""
    if packer:
        return f"; {word}= is an option of packers: write how=partial({packer}, {word}=...)"
    near = _nearest(word, keywords)
    if near:
        return f"; did you mean {near}=?"
    others = [
        name for name, public in _words().items() if name != function and word in inspect.signature(public).parameters
    ]
    return f"; {word}= is an option of {' and '.join(others[:3])}" if others and word not in ("source", "name") else ""


def _packer_with(word: str) -> str:
    """A packer that has such an option."""
    public = vars(sys.modules["flowfn"])
    packers = ("first_fit", "best_fit", "balanced_fit", "concat_then_split")
    return next((name for name in packers if word in inspect.signature(public[name]).parameters), "")


def speaks(function: Callable[P, R]) -> Callable[P, R]:
    """Have a plain function say which word to use for a keyword that it does not have, as stages do."""
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def spoken(*args: P.args, **kwargs: P.kwargs) -> R:
        for word in kwargs.keys() - parameters.keys():
            name = function.__name__
            raise TypeError(
                f"{name}(): got an unexpected keyword argument {word!r}{unknown_keyword(name, word, parameters)}"
            )
        return function(*args, **kwargs)

    return spoken


def no_attribute(thing: Any, name: str) -> NoReturn:
    """Raise the AttributeError of a thing that has no such attribute,
    with the word to use if it is one of a data set elsewhere."""
    if name.startswith("_") or hasattr(type(thing), name):  # the latter: a property that failed, and says so again
        object.__getattribute__(thing, name)
    what, shown = ("stage", f"source, {thing}") if is_stage(thing) else ("flow", "flow")
    public, hint = _words().get(name), ""
    if name in METHODS:
        hint = f"; {METHODS[name].format(shown)}"
    elif public is not None:
        definition = getattr(public, "definition", None)
        several = getattr(definition, "several", False) or name == "mix"
        options = ", ".join(getattr(definition, "positional", ()))
        hint = f"; write {name}({shown}, other)" if several else f"; write pipe({shown}, {name}({options}))"
    raise AttributeError(f"a {what} has no attribute {name!r}{hint}", name=name, obj=thing)


def no_name(name: str) -> AttributeError:
    """The error for a name that the package does not have.

    >>> print(no_name("BatchData"))
    module 'flowfn' has no attribute 'BatchData'; what is called so elsewhere is batch(n) here
    """
    hint = ""
    if name in _PACKAGES:
        hint = f"; write import flowfn.{name}"
    elif name.startswith(("read_", "write_")):
        hint = f"; readers and writers are in flowfn.formats: from flowfn.formats import {name}"
    elif name in NAMES:
        hint = f"; what is called so elsewhere is {NAMES[name]} here"
    return AttributeError(f"module 'flowfn' has no attribute {name!r}{hint}", name=name, obj=sys.modules["flowfn"])


def _words() -> dict[str, Any]:
    """The public words that make stages."""
    package = sys.modules["flowfn"]
    return {name: public for name in dir(package) if hasattr(public := getattr(package, name), "definition")}


def _nearest(word: str, words: Iterable[str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(words), 1)), "")
