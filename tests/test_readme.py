"""README and pages say what is so: what they show is run, tables are checked, links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
import what_resumes
from pages import blocks, failures

import flowfn as ff
import flowfn.datasets
import flowfn.formats
import flowfn.image

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("examples/*.md"))]


def everything():
    return "\n".join(page.read_text(encoding="utf8") for page in PAGES)


def anchors(page):
    """The anchors that headings have, outside of code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_runs_and_prints_what_it_says(page):
    assert failures(page) == 0


def test_there_is_much_to_run():
    assert sum(block.count(">>> ") for page in PAGES for block in blocks("pycon", page)) > 60
    assert sum(block.count(">>> ") for block in blocks("pycon", README)) > 5


def test_the_front_page_is_short():
    assert len(README.read_text(encoding="utf8").splitlines()) <= 180


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / ".github" / "CONTRIBUTING.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_there_are_two_commands_that_do_their_own_setup():
    main, tests = blocks("sh", README)
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
    text = everything()
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
    assert table == set(extras) - {
        "test",
        "libraries",
        "frameworks",
        "dev",
        "benchmarks",
    }  # which are for those who work on flowfn
    sources = [path.read_text(encoding="utf8") for path in Path(ff.__file__).parent.rglob("*.py")]
    assert {named for source in sources for named in re.findall(r'extra="(\w+)"', source)} <= table


def test_what_is_said_to_resume_is_what_the_marked_tests_claim():
    """`python tests/what_resumes.py --write` runs them and writes what became of it."""
    assert what_resumes.on_page() == what_resumes.table(what_resumes.marked())
    assert len(what_resumes.marked()) > 20
