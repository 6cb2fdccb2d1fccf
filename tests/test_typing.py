"""The stub of the public names has every word with all its options.
What it says of types is checked in tests/typing."""

import ast
import inspect
from pathlib import Path

import pytest

import flowfn as ff

pytestmark = pytest.mark.everywhere

STUB = ast.parse(Path(ff.__file__).with_suffix(".pyi").read_text())
HIDING_BUILTINS = ["map", "filter", "zip", "enumerate", "slice"]
PUBLIC = sorted({*ff.__all__, *HIDING_BUILTINS})


def declared() -> dict[str, list[ast.FunctionDef]]:
    """The overloads of every function, also of those that are declared for one checker only."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for node in STUB.body:
        for one in [node, *node.orelse] if isinstance(node, ast.If) else [node]:
            if isinstance(one, ast.FunctionDef):
                found.setdefault(one.name, []).append(one)
    return found


OVERLOADS = declared()
WORDS = sorted(name for name in OVERLOADS if hasattr(getattr(ff, name), "definition"))


def options(overload: ast.FunctionDef) -> set[str]:
    """The names of what can be given by keyword."""
    return {argument.arg for argument in [*overload.args.args, *overload.args.kwonlyargs]}


def defaults(overload: ast.FunctionDef) -> dict[str, object]:
    """What an overload says is taken for an option that is left out; `...` says nothing."""
    arguments = overload.args
    last = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    said = [*zip(last, arguments.defaults), *zip(arguments.kwonlyargs, arguments.kw_defaults)]
    values = {argument.arg: ast.literal_eval(default) for argument, default in said if default is not None}
    return {name: value for name, value in values.items() if value is not ...}


def test_every_public_name_is_declared() -> None:
    imported = {alias.asname for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(PUBLIC) <= {*imported, *OVERLOADS}


def test_a_star_import_means_the_same_to_checkers() -> None:
    said = next(
        ast.literal_eval(node.value)
        for node in STUB.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"
    )
    assert said == ff.__all__


@pytest.mark.parametrize("word", WORDS)
def test_every_option_is_declared(word: str) -> None:
    there = {
        parameter.name
        for parameter in inspect.signature(getattr(ff, word)).parameters.values()
        if parameter.kind is not parameter.VAR_POSITIONAL
    }
    assert set.union(*map(options, OVERLOADS[word])) == there


@pytest.mark.parametrize(
    "word", [word for word in WORDS if "source" in inspect.signature(getattr(ff, word)).parameters]
)
def test_every_word_is_declared_with_and_without_its_source(word: str) -> None:
    assert {"source" in options(overload) for overload in OVERLOADS[word]} == {True, False}


@pytest.mark.parametrize("name", sorted(OVERLOADS))
def test_what_is_left_out_is_what_is_declared(name: str) -> None:
    parameters = inspect.signature(getattr(ff, name)).parameters
    for overload in OVERLOADS[name]:
        for option, value in defaults(overload).items():
            assert parameters[option].default == value, option
