"""The README says what is so: its tour is run, its table of kinds is checked."""

import doctest
import re
from pathlib import Path

import pytest

import flowfn as ff

README = Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)


def test_the_tour_runs_and_prints_what_it_says():
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    names = {}
    for number, block in enumerate(blocks("pycon")):
        test = parser.get_doctest(block, names, f"README block {number}", str(README), 0)
        runner.run(test, clear_globs=False)
        names.update(test.globs)
    tried = runner.summarize(verbose=False)
    assert tried.attempted > 20
    assert tried.failed == 0


def test_there_are_two_commands_that_do_their_own_setup():
    main, tests = blocks("sh")
    assert main.startswith("python3 -m venv ")
    assert main.rstrip().endswith("examples/quickstart.py")
    assert tests.startswith("python3 -m venv ")
    assert tests.rstrip().endswith("python -m pytest")


@pytest.mark.parametrize("kind", ["each", "group", "order", "expand", "stream"])
def test_the_table_of_kinds_is_right(kind):
    (row,) = re.findall(rf"^\| `{kind}` \|.*\|(.*)\|$", README.read_text(encoding="utf8"), re.MULTILINE)
    for name in re.findall(r"`(\w+)`", row):
        definition = getattr(getattr(ff, name), "definition", None)
        if definition is not None and definition.kind is not None:
            assert kind in [base.__name__.lower() for base in definition.kind.__mro__], name
