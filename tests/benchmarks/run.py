"""What do all benchmarks find? Run them in turn, each in a process of its own, and print one Markdown table.

One command installs the peers, one runs all, and one draws a picture of it:

    pip install -e ".[benchmarks]"
    python tests/benchmarks/run.py [--quick] [--json findings.json]
    python tests/benchmarks/picture.py findings.json picture.svg

A peer that is not installed is left out, and a line says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import Finding, arguments, machine, table, write_json

BENCHMARKS = (
    "datapoints",
    "in_memory",
    "access",
    "memory",
    "costs",
    "stacking",
    "transport",
    "photographs",
    "spreading",
    "busy_consumer",
    "latency",
    "footprint",
    "augmentors",
    "formats",
)


def run(name: str, quick: bool) -> list[dict[str, Any]]:
    """The findings of one benchmark, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "findings.json")
        script = Path(__file__).with_name(f"{name}.py")
        command = [sys.executable, str(script), "--json", str(path), *["--quick"] * quick]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return [{"benchmark": name, **finding} for finding in json.loads(path.read_text())["findings"]]


def main() -> None:
    """Run them, and report."""
    given = arguments(__doc__)
    found = []
    for name in BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found += run(name, given.quick)
    print(table([Finding(*(finding[field] for field in Finding.__dataclass_fields__)) for finding in found]))
    print("\n" + ", ".join(f"{name} {version}" for name, version in machine().items()))
    if given.json:
        write_json(given.json, found)


if __name__ == "__main__":
    main()
