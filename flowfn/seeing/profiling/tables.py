"""A profile on a screen: in colours, as wide as it is."""

from __future__ import annotations

import sys
from typing import IO, Any

from flowfn.seeing.profiling.profiles import Profile, StageProfile, bytes_in_words, short
from flowfn.seeing.profiling.verdicts import brief_name


def print_profile(profile: Profile, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print a profile: with rich, if that is installed, in colours where the screen has them; otherwise plainly."""
    try:
        from rich.console import Console
    except ImportError:
        print(profile, file=file)
        return
    console = Console(file=file or sys.stdout, width=width, highlight=False)
    for line in profile.lines():
        console.print(_coloured(line, profile), soft_wrap=False)
    console.print(rich_table(profile, narrow=console.width < 110))
    for lane in profile.lanes:
        console.print(f"{lane.name}: at work {lane.busy:.0%} of the time", style="dim")


def rich_table(profile: Profile, narrow: bool = False) -> Any:
    """The stages as a table of rich; `narrow`: for 80 columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", overflow="ellipsis", no_wrap=True, ratio=1)
    heads = ["outputs", "mean", "p99", "cpu s/1000", "exposed s"]
    if not narrow:
        heads = ["runs in", "outputs", "own s", "mean", "p50", "p90", "p99", "bytes", "cpu s/1000", "exposed s"]
    for head in heads:
        table.add_column(head, justify="left" if head == "runs in" else "right", no_wrap=True)
    for one in profile.stages:
        holds = one.place == profile.verdict.place
        cells = _cells(one)
        name = Text(brief_name(one.stage, 28 if narrow else 40), style="bold yellow" if holds else "")
        table.add_row(name, *(cells[head] for head in heads))
    return table


def _cells(one: StageProfile) -> dict[str, str]:
    return {
        "runs in": one.runs_in,
        "outputs": str(one.calls),
        "own s": f"{one.own:.3f}",
        "mean": short(one.mean),
        "p50": short(one.p50),
        "p90": short(one.p90),
        "p99": short(one.p99),
        "bytes": bytes_in_words(one.bytes),
        "cpu s/1000": f"{one.cpu:.3g}",
        "exposed s": f"{one.exposed:.3f}",
    }


def _coloured(line: str, profile: Profile) -> Any:
    from rich.text import Text

    if line.startswith("Write "):
        return Text(line, style="bold green")
    if profile.verdict.waits and line.startswith(brief_name(profile.verdict.stage)):
        return Text(line, style="yellow")
    return Text(line)
