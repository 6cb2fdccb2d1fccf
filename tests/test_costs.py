"""The table of costs names every word, and compares like with like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from loky import get_reusable_executor

import flowfn as ff

BENCHMARKS = Path(__file__).with_name("benchmarks")
BESIDE_ALL = ("map", "filter", "zip", "enumerate", "slice")


@pytest.fixture(scope="module")
def costs() -> Iterator[ModuleType]:
    """The script, imported as it would be run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import costs

        ff.shut_down()  # workers that were started before would not find it
        yield costs
    ff.shut_down()


@pytest.fixture(scope="module")
def page(costs) -> str:
    """The page that it has written."""
    return costs.TABLE.read_text()


def rows(page: str) -> list[list[str]]:
    """The cells of the table."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]


def test_every_word_is_in_the_table_or_named_as_one_that_does_nothing_for_each_datapoint(costs):
    compared = {case.word for case in costs.CASES}
    assert compared | set(costs.NOT_PER_DATAPOINT) == {*ff.__all__, *BESIDE_ALL}
    assert not compared & set(costs.NOT_PER_DATAPOINT)


def test_no_line_is_there_twice(costs):
    lines = [(case.word, case.compared) for case in costs.CASES]
    assert len(set(lines)) == len(lines)


def test_the_written_table_has_these_lines(costs, page):
    assert [(row[0].strip("`"), row[1]) for row in rows(page)] == [(case.word, case.compared) for case in costs.CASES]
    assert re.findall(r"^- `(\w+)`: ", page, re.MULTILINE) == list(costs.NOT_PER_DATAPOINT)


def test_the_written_table_says_why_a_word_is_dear(costs, page):
    assert [row[0] for row in rows(page) if float(row[5]) > costs.DEAR and not row[6]] == []


def test_a_word_that_is_dear_without_a_reason_is_found(costs):
    dear = costs.Cost("map", "f(x)", "datapoint", by_hand=1e-7, flowfn=1.4e-7, reason="")
    assert dear.unexplained
    assert not costs.Cost("map", "f(x)", "datapoint", by_hand=1e-7, flowfn=1.2e-7, reason="").unexplained
    assert costs.summary([dear], quick=False)[1].reached is False
    assert costs.table([dear]).splitlines()[-1] == "| `map` | f(x) | datapoint | 100 | 140 | 1.40 |  |"


def test_both_sides_of_a_line_do_the_same_job(costs):
    try:
        for case in costs.CASES:
            race = case.make()
            by_hand, ours = list(race.by_hand()), list(race.flowfn())
            if race.same == "all":
                assert alike(by_hand, ours), f"{case.word}: {case.compared}"
            elif race.same == "count":
                assert len(by_hand) == len(ours), f"{case.word}: {case.compared}"
            assert race.units > 0
    finally:
        ff.shut_down()
        get_reusable_executor(2).shutdown(wait=True)


def alike(a: Any, b: Any) -> bool:
    """Whether two outputs are equal, also where they are arrays."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, (list, tuple)):
        return isinstance(a, list) is isinstance(b, list) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return type(b) is dict and a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    return a == b
