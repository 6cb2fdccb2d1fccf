"""What resumes exactly in whose loop: a table of examples/frameworks.md, made of what tests claim and of what became of them.

    @pytest.mark.resumes("torch, a loop of your own", "a length, or none", "in an epoch")

at a test, or at a case of one, is a row. `python tests/what_resumes.py --write` runs all that are so marked, or those of some files, with
the frameworks, and writes the table: a row says what is claimed if all of its tests passed. `tests/test_readme.py` sees to it that
no row lacks a test, and no claim its row.
"""

import argparse
import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent / "examples" / "frameworks.md"
BEGIN, END = "<!-- python tests/what_resumes.py --write -->\n", "<!-- to here -->\n"


class Row(NamedTuple):
    """What is claimed by a test that ends a training and goes on in another process, and holds if it passes."""

    loop: str
    flow: str
    saved: str
    others: str = "the same"
    outcome: str = "equal to the last bit"


HEAD = Row("loop", "flow with", "saved", "resumed with", "what comes then")


def marked():
    """The rows that tests are marked with, in the order of files and lines; no framework is needed to tell."""
    rows = {}
    for path in sorted((HERE / "interop").glob("test_*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda one: one.lineno):
            if ast.unparse(call.func) == "pytest.mark.resumes":
                given = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
                rows[Row(*map(ast.literal_eval, call.args), **given)] = None
    return [*rows]


def table(rows):
    """Rows as Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (HEAD, ["---"] * len(HEAD), *rows))


def on_page():
    """The table that is on the page."""
    return PAGE.read_text(encoding="utf8").partition(BEGIN)[2].partition(END)[0]


def of_page():
    """What comes then, by all that stands before it in a row of the page."""
    rows = [Row(*line.strip("| ").split(" | ")) for line in on_page().splitlines()]
    return {row[:-1]: row.outcome for row in rows}


class Outcomes:
    """A plugin of pytest: how the tests of each row ended."""

    def __init__(self):
        self.of = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.when == "call" or not report.passed:
            for mark in item.iter_markers("resumes"):
                self.of[Row(*mark.args, **mark.kwargs)].add(report.outcome)
        return report

    def seen(self, row):
        """The row as it turned out to be; if not all of its tests were run, as the page has it."""
        ended = self.of[row]
        if ended == {"passed"}:
            return row
        return row._replace(outcome="failed" if "failed" in ended else of_page().get(row[:-1], "not tried"))


def main():
    parser = argparse.ArgumentParser(description="Run the tests that kill and resume, and print the table of them.")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    parser.add_argument(
        "files", nargs="*", default=[str(HERE / "interop")], help="only these; other rows stay as they are"
    )
    given, outcomes = parser.parse_args(), Outcomes()
    status = pytest.main(["-q", "-o", "addopts=", "-m", "resumes", *given.files], [outcomes])
    made = table(map(outcomes.seen, marked()))
    print(made)
    if given.write:
        PAGE.write_text(PAGE.read_text(encoding="utf8").replace(BEGIN + on_page(), BEGIN + made), encoding="utf8")
    sys.exit(status)


if __name__ == "__main__":
    main()
