"""What do all benchmarks find? Run them in turn, each in a process of its own, and print a Markdown table of each.

One command installs the peers, one runs all, one runs some anew, and one draws a picture of it:

    pip install -e ".[benchmarks]"
    python tests/benchmarks/run.py > tests/benchmarks/RESULTS.md
    python tests/benchmarks/run.py language serving --into tests/benchmarks/RESULTS.md
    python tests/benchmarks/picture.py tests/benchmarks/RESULTS.md tests/benchmarks/results.svg

A peer that is not installed is left out, and a line says so.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import Finding, command_line, shown, table, write_json

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
    "side_by_side",
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


def run(name: str, quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The findings of one benchmark as JSON, and the versions of all who took part."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "findings.json")
        script = Path(__file__).with_name(f"{name}.py")
        command = [sys.executable, str(script), "--json", str(path), *["--quick"] * quick]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        told = json.loads(path.read_text())
        return [{"benchmark": name, **finding} for finding in told["findings"]], told["machine"]


OTHERS = (
    "torch",
    "tensorpack",
    "grain",
    "Grain",
    "spdl",
    "tf.data",
    "datasets",
    "plain loky",
    "Ray",
    "Dask",
    "turboloader",
)
PEER = re.compile(r".*: times as (?:fast|little) as (?P<peer>.*)")
TOLD = 3
"""Missed targets that are named before the table."""


def answer(findings: Sequence[Finding]) -> str:
    """What the findings of a question come to: how many targets are reached, which are missed, and how others do."""
    aimed = [finding for finding in findings if finding.reached is not None]
    missed = [f"{finding.question} ({finding.cells[3]})" for finding in aimed if not finding.reached]
    said = []
    if aimed and not missed:
        said.append("The target is reached." if len(aimed) == 1 else f"All {len(aimed)} targets are reached.")
    elif aimed:
        others = f"; and {len(missed) - TOLD} more" if len(missed) > TOLD else ""
        said.append(f"Missed, {len(missed)} of {len(aimed)} targets: {'; '.join(missed[:TOLD])}{others}.")
    beside = [(finding.result, peer) for finding in findings if finding.result and (peer := peer_of(finding.question))]
    if len(beside) > 1:
        ahead, (low, slowest), (high, fastest) = sum(ratio >= 1 for ratio, _ in beside), min(beside), max(beside)
        said.append(
            f"Beside other libraries flowfn is ahead in {ahead} of {len(beside)} rows: from {shown(low)} times {slowest} to "
            f"{shown(high)} times {fastest}."
        )
    return " ".join(said)


def peer_of(question: str) -> str:
    """The other library that a question is about, or nothing."""
    found = PEER.fullmatch(question)
    return found["peer"] if found and found["peer"].startswith(OTHERS) else ""


def section(name: str, findings: Sequence[Mapping[str, Any]], versions: Mapping[str, Any], before: str = "") -> str:
    """The part of the page on one benchmark: its question, what it comes to, the table; and why something is missed, as
    somebody wrote it `before`."""
    lines = [Finding(*(finding[field] for field in Finding.__dataclass_fields__)) for finding in findings]
    about = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) or name
    there = ", ".join(f"{library} {version}" for library, version in versions.items() if version != "absent")
    question = " ".join(about.split("\n\n")[0].split())
    why = [part for part in before.split("\n\n") if part.startswith("Missed: ")]
    parts = [f"## {question}", answer(lines), table(lines), *why, f"`python tests/benchmarks/{name}.py`, with {there}"]
    return "\n\n".join(part for part in parts if part)


def sections(page: str) -> dict[str, str]:
    """The parts of a page, by the names of their benchmarks; what stands before them has none."""
    parts = re.split(r"^(?=## )", page.strip(), flags=re.MULTILINE)
    named = {
        (re.search(r"`python tests/benchmarks/(\w+)\.py`", part) or [""] * 2)[1]: part.strip() for part in parts[1:]
    }
    return {"": parts[0].strip(), **named}


def main() -> None:
    """Run them, and report."""
    asked = command_line(__doc__)
    asked.add_argument("names", nargs="*", metavar="BENCHMARK", help="only these")
    asked.add_argument("--turn", metavar="K/N", default="0/1", help="only every Nth benchmark, from number K on")
    asked.add_argument("--into", metavar="PAGE", help="put what is found into the place of what this page says of it")
    given, found = asked.parse_args(), []
    first, step = map(int, given.turn.split("/"))
    page = {"": f"# What the benchmarks find\n\n{ABOUT}"} if not given.into else sections(Path(given.into).read_text())
    for name in given.names or BENCHMARKS[first::step]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        findings, versions = run(name, given.quick)
        found += findings
        page[name] = section(name, findings, versions, page.get(name, ""))
    order = ["", *BENCHMARKS, *page]
    text = "\n\n".join(page[name] for name in sorted(page, key=order.index)) + "\n"
    if given.into:
        Path(given.into).write_text(text)
    else:
        print(text, end="")
    if given.json:
        write_json(given.json, found)


if __name__ == "__main__":
    main()
