"""The README says what is so: its tour is run, its table of kinds is checked."""

import doctest
import re
import tomllib
from pathlib import Path

import pytest

import flowfn as ff
import flowfn.datasets
import flowfn.formats
import flowfn.image

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


@pytest.mark.parametrize(
    "package", [flowfn.image, flowfn.formats, flowfn.datasets], ids=lambda package: package.__name__
)
def test_every_name_of_a_package_is_there(package):
    text = README.read_text(encoding="utf8")
    values = {
        "Composed",
        "Identity",
        "Annotation",
        "GroundTruth",
        "Statistics",
    }  # what calls give, described where they are
    assert [name for name in package.__all__ if name not in values and f"`{name}" not in text] == []


def test_extras_are_those_of_the_package_and_of_its_messages():
    table = set(re.findall(r'^\| `"flowfn\[(\w+)\]"`', README.read_text(encoding="utf8"), re.MULTILINE))
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf8"))["project"][
        "optional-dependencies"
    ]
    assert table == set(extras) - {"test", "libraries", "dev", "benchmarks"}  # which are for those who work on flowfn
    sources = [path.read_text(encoding="utf8") for path in Path(ff.__file__).parent.rglob("*.py")]
    assert {named for source in sources for named in re.findall(r'extra="(\w+)"', source)} <= table
