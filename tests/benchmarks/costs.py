"""What does each word cost, beside the loop that one would write by hand for the same job?

python tests/benchmarks/costs.py [WORD ...] [--quick] [--strict] [--write] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from measuring import Contestant, Finding, as_json, consume, fastest, machine, shown
from words import CASES, NOT_PER_DATAPOINT, Case

import flowfn as ff

TABLE = Path(__file__).with_name("COSTS.md")
DEAR = 1.3
"""A word that takes more than so many times as long as the loop by hand has to say why."""

SECONDS = 2.5
"""How long a line is measured."""


@dataclass(frozen=True)
class Cost:
    """A measured line: seconds for one unit, by hand and in flowfn."""

    word: str
    compared: str
    per: str
    by_hand: float
    flowfn: float
    reason: str

    @property
    def ratio(self) -> float:
        """How many times as long flowfn takes."""
        return self.flowfn / self.by_hand

    @property
    def unexplained(self) -> bool:
        """Whether it is dear, and nothing says why."""
        return self.ratio > DEAR and not self.reason

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as it is printed."""
        times = shown(self.by_hand * 1e9), shown(self.flowfn * 1e9)
        return (
            f"`{self.word}`",
            self.compared,
            self.per,
            *times,
            f"{self.ratio:.2f}",
            self.reason if self.ratio > DEAR else "",
        )


# Measuring


def measured(case: Case, quick: bool) -> Cost:
    """A line of the table."""
    race = case.make()
    contestants = {
        name: Contestant(lambda read=read: consume(read()), race.units)
        for name, read in zip(("by_hand", "flowfn"), race.sides())
    }
    times = fastest(contestants, 2 if quick else _rounds(contestants))
    return Cost(case.word, case.compared, case.per, **times, reason=case.reason)


def _rounds(contestants: Mapping[str, Contestant]) -> int:
    """How many rounds there is time for."""
    start = perf_counter()
    for contestant in contestants.values():
        contestant.run()
    return min(max(int(SECONDS / (perf_counter() - start)), 5), 300)


def chosen(words: Sequence[str]) -> list[Case]:
    """The lines of some words, or all of them."""
    unknown = set(words) - {case.word for case in CASES}
    if unknown:
        sys.exit(f"there is nothing to compare for {', '.join(sorted(unknown))}")
    return [case for case in CASES if not words or case.word in words]


# Reporting


def table(costs: Sequence[Cost]) -> str:
    """The lines as a Markdown table."""
    head = ("word", "what is compared", "per", "by hand, ns", "flowfn, ns", "ratio", "why")
    lines = [head, ("---", "---", "---", "--:", "--:", "--:", "---"), *(cost.cells for cost in costs)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(costs: Sequence[Cost]) -> str:
    """The table with what is to be said about it."""
    return PAGE.format(
        dear=DEAR,
        table=table(costs),
        machine=", ".join(f"{name} {version}" for name, version in machine().items() if version != "absent"),
        others="\n".join(f"- `{word}`: {why}" for word, why in NOT_PER_DATAPOINT.items()),
    )


PAGE = """# What a word costs

Beside the loop, the `itertools` function or the numpy call that one would write by hand for the same job, in nanoseconds. Both sides
take turns, and the fastest of many short rounds of each counts. Words that give datapoints one by one are read in lists of 1024, on
both sides, as they would be in front of `batch`; what the end of a pipeline costs is the line of `FlowIterator`. The work itself is
next to nothing (`x + 1`), so what is left is the word. Where it takes more than {dear} times as long, the table says why.

{table}

Measured with {machine}. Absolute times vary between machines, ratios less so.
`python tests/benchmarks/costs.py --write` writes this page.

These do nothing for each datapoint:

{others}
"""


def summary(costs: Sequence[Cost], quick: bool) -> list[Finding]:
    """What the table says, in two lines."""
    dear = sum(cost.ratio > DEAR for cost in costs)
    unexplained = sorted({cost.word for cost in costs if cost.unexplained})
    about = f"{len(costs)} comparisons, {dear} of them above {DEAR}: COSTS.md says why"
    return [
        Finding("what a word costs: times a loop by hand, the median", about, median(cost.ratio for cost in costs)),
        Finding(
            f"words above {DEAR} without a reason",
            ", ".join(unexplained) or "none",
            len(unexplained),
            target="" if quick else "<= 0",
        ),
    ]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="only these words")
    parser.add_argument(
        "--quick", action="store_true", help="few short rounds: to see that it runs, not to believe the figures"
    )
    parser.add_argument(
        "--strict", action="store_true", help=f"fail if a word takes more than {DEAR} times as long without a reason"
    )
    parser.add_argument("--write", action="store_true", help=f"write the table into {TABLE.name}")
    parser.add_argument("--json", metavar="PATH", help="also write the findings here")
    given = parser.parse_args()
    if given.quick and (given.strict or given.write):
        parser.error("--quick is not to be believed, so it goes neither with --strict nor with --write")
    if given.words and given.write:
        parser.error("--write writes all words")
    return given


def main() -> None:
    """Measure, and report."""
    given = arguments()
    costs = []
    for case in chosen(given.words):
        print(f"{case.word}: {case.compared} ...", file=sys.stderr, flush=True)
        costs.append(measured(case, given.quick))
    ff.shut_down()
    print(table(costs))
    if given.write:
        TABLE.write_text(page(costs))
    if given.json:
        found = {
            "machine": machine(),
            "findings": [as_json(one) for one in summary(costs, given.quick)],
            "costs": [*map(asdict, costs)],
        }
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")
    unexplained = [cost for cost in costs if cost.unexplained]
    if given.strict and unexplained:
        sys.exit(f"above {DEAR} without a reason:\n{table(unexplained)}")


if __name__ == "__main__":
    main()
