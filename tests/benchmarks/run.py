"""What do all benchmarks find? Run them in turn, each in a process of its own, and print a Markdown table of each.

One command installs the peers, one runs all, and one draws a picture of it:

    pip install -e ".[benchmarks]"
    python tests/benchmarks/run.py --json findings.json > tests/benchmarks/RESULTS.md
    python tests/benchmarks/picture.py findings.json tests/benchmarks/results.svg

A peer that is not installed is left out, and a line says so.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from measuring import Finding, command_line, machine, table, write_json

BENCHMARKS = (
    "datapoints",
    "in_memory",
    "access",
    "memory",
    "stacking",
    "transport",
    "tensors",
    "training",
    "photographs",
    "efficient",
    "spreading",
    "busy_consumer",
    "latency",
    "footprint",
    "augmentors",
    "normalizing",
    "formats",
    "chunks",
    "tables",
    "tokens",
    "frames",
    "balancing",
    "language",
    "clusters",
    "serving",
)

ABOUT = """All contestants of a table are measured in the same run, turn by turn, and the fastest of many rounds of each counts. Absolute
times vary between machines, ratios less so. What each word costs is [a page of its own](COSTS.md)."""


def run(name: str, quick: bool) -> list[dict[str, Any]]:
    """The findings of one benchmark, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "findings.json")
        script = Path(__file__).with_name(f"{name}.py")
        command = [sys.executable, str(script), "--json", str(path), *["--quick"] * quick]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return [{"benchmark": name, **finding} for finding in json.loads(path.read_text())["findings"]]


def page(found: list[dict[str, Any]], versions: dict[str, Any]) -> str:
    """A page of all findings, under the question of each benchmark."""
    parts = ["# What the benchmarks find", ABOUT, ", ".join(f"{name} {version}" for name, version in versions.items())]
    for name, findings in groupby(found, key=itemgetter("benchmark")):
        question = (ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) or name).split(
            "\n"
        )[0]
        lines = [Finding(*(finding[field] for field in Finding.__dataclass_fields__)) for finding in findings]
        parts += [f"## {question}", f"`python tests/benchmarks/{name}.py`", table(lines)]
    return "\n\n".join(parts)


def main() -> None:
    """Run them, and report."""
    asked = command_line(__doc__)
    asked.add_argument("--turn", metavar="K/N", default="0/1", help="only every Nth benchmark, from number K on")
    given, found = asked.parse_args(), []
    first, step = map(int, given.turn.split("/"))
    for name in BENCHMARKS[first::step]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found += run(name, given.quick)
    print(page(found, machine()))
    if given.json:
        write_json(given.json, found)


if __name__ == "__main__":
    main()
