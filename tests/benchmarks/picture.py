"""Draw what the benchmarks have found: how many times as fast as each peer flowfn is, as bars,
on a scale where each step doubles.

python tests/benchmarks/picture.py RESULTS.md PICTURE.svg [BENCHMARK ...]
"""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from measuring import shown
from run import sections

DRAWN = ("datapoints", "in_memory", "stacking", "transport", "photographs")
"""The benchmarks that are drawn unless others are named."""

PEERS = ("numpy", "np.stack", "torch", "tensorpack", "grain", "spdl", "tf.data", "plain loky")
RATIO = re.compile(r"(?P<topic>.*): times as (?:fast|little) as (?P<peer>.*)")

WIDTH, LABELS, MARGIN = 880, 250, 70
ROW, BAR, HEADING, TOP = 22, 14, 34, 56
FASTER, SLOWER, LINE, INK, PALE = "#2f7d5b", "#c2683a", "#d9d9d6", "#24292f", "#6a737d"
FONT = "13px -apple-system,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif"
STYLE = (
    f"text{{font:{FONT};fill:{INK}}}.topic{{font-weight:600}}.title{{font-size:17px;font-weight:600}}"
    f".pale{{fill:{PALE};font-size:12px}}.end{{text-anchor:end}}.middle{{text-anchor:middle}}"
)


class Bar(NamedTuple):
    """A peer, and how many times as fast as it flowfn is at something."""

    topic: str
    peer: str
    ratio: float


def bars(page: Mapping[str, str], benchmarks: Sequence[str] = DRAWN) -> list[Bar]:
    """The rows of a page that compare with a peer that took part."""
    found = []
    for name in benchmarks:
        for line in page.get(name, "").splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            match = RATIO.fullmatch(cells[0])
            if match and match["peer"].startswith(PEERS) and cells[3] != "absent":
                found.append(Bar(match["topic"], match["peer"], float(cells[3])))
    return found


def picture(found: Sequence[Bar], about: str) -> str:
    """An SVG with a bar for each; a bar to the left of the line at 1 says that the peer is faster."""
    low = min(0, *(math.floor(math.log2(bar.ratio)) for bar in found))
    high = max(1, *(math.ceil(math.log2(bar.ratio)) for bar in found))

    def place(ratio: float) -> float:
        return LABELS + (math.log2(ratio) - low) / (high - low) * (WIDTH - LABELS - MARGIN)

    drawn: list[str] = []
    y = TOP
    for topic, group in groupby(found, key=lambda bar: bar.topic):
        drawn.append(f'<text class="topic" x="16" y="{y + HEADING - 9}">{escape(topic)}</text>')
        y += HEADING
        for bar in group:
            drawn += _drawn(bar, y, place)
            y += ROW
    bottom = y + 6
    said = textwrap.wrap(about, 120)
    height = bottom + 24 + 16 * len(said)
    lines = [_line(2.0**step, place(2.0**step), bottom) for step in range(low, high + 1, max(1, (high - low) // 8))]
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'role="img">',
        f"<title>How many times as fast as its peers flowfn is</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text class="title" x="16" y="30">How many times as fast as its peers flowfn is</text>',
    ]
    foot = [
        f'<text class="pale" x="16" y="{bottom + 30 + 16 * number}">{escape(line)}</text>'
        for number, line in enumerate(said)
    ]
    return "\n".join([*head, *lines, *drawn, *foot, "</svg>"]) + "\n"


def _drawn(bar: Bar, y: float, place: Any) -> list[str]:
    """A peer's name, the bar, and the figure behind its end."""
    start, end = sorted((place(1.0), place(bar.ratio)))
    middle, colour = y + BAR - 3, FASTER if bar.ratio >= 1 else SLOWER
    return [
        f'<text class="end" x="{LABELS - 10}" y="{middle}">{escape(bar.peer)}</text>',
        f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        f'<text x="{end + 6:.1f}" y="{middle}">{shown(bar.ratio)}</text>',
    ]


def _line(ratio: float, x: float, bottom: float) -> str:
    """A line of the scale; the one at 1, where both are as fast, is darker."""
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="{PALE if ratio == 1 else LINE}"/>'
    return f'{line}<text class="pale middle" x="{x:.1f}" y="{TOP - 6}">{ratio:g}</text>'


def main(results: str, drawing: str, *benchmarks: str) -> None:
    """Read the page of results, write the picture."""
    page = sections(Path(results).read_text())
    found = bars(page, benchmarks or DRAWN)
    if not found:
        sys.exit("there is nothing to draw: no peer took part")
    versions = (re.search(r"`, with (.*)", page.get(name, "")) for name in benchmarks or DRAWN)
    Path(drawing).write_text(picture(found, max((told[1] for told in versions if told), key=len, default="")))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
