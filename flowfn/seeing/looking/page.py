"""What was looked at: rows of cells, as a page and as lines of text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flowfn.kinds.runs import Length
from flowfn.kinds.tallies import Dropped
from flowfn.seeing import pages
from flowfn.seeing.looking.text import lines, of_how_many
from flowfn.seeing.looking.views import View
from flowfn.showing import brief

MOST, EACH = 4_000_000, 400
"""About how many characters a page has, and each view in it beside what is drawn; views behind them are left out."""


@dataclass(frozen=True)
class Card:
    """An output of a stage: its number there, what is seen of it, how long it took; `parts` are the ids of the items
    above that it was made of, `others` how many more it was made of; `draws` what else would be drawn."""

    id: str
    number: int
    round: tuple[int, ...]
    view: View
    seconds: float
    parts: tuple[str, ...] = ()
    others: int = 0
    origins: tuple[str, ...] = ()
    more_origins: bool = False
    draws: tuple[View, ...] = ()
    call: str = ""


@dataclass(frozen=True)
class Cell:
    """What of a stage's outputs went into one output of the flow; `kept`: some was not made again, but kept."""

    items: tuple[Card, ...]
    kept: bool = False


@dataclass(frozen=True)
class Row:
    """A stage: how many outputs it gave, made of how many inputs (0: as many), and in how many seconds each."""

    name: str
    kind: str
    depth: int
    plain: bool
    given: int
    taken: int
    seconds: float
    cells: tuple[Cell, ...] = ()
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True, repr=False)
class Look:
    """Every datapoint after every stage: printed, lines of text; in a notebook, a page; `save` writes that to a file.

    `html` is the page: one file that needs nothing else. `rows` are the stages.

    >>> import flowfn as ff
    >>> view = ff.look([[1, 2.5]], 1)
    >>> [row.name for row in view.rows], view.rows[0].cells[0].items[0].view.parts[1].words
    (['flow([[1, 2.5]])'], ('float', '', '2.5'))
    """

    flow: str
    seed: int
    epoch: int
    count: int
    length: Length
    rows: tuple[Row, ...]

    @cached_property
    def html(self) -> str:
        """The page, as text."""
        budget = Budget(MOST, max(len(self.rows), 1))
        body = pages.rendered(
            "look.html",
            "look()",
            look=self,
            fits=budget.fits,
            spare=budget.spare,
            begin_row=budget.begin_row,
            time=time_in_words,
            size=size_in_words,
            brief=brief,
            total=of_how_many(self.length),
        )
        return pages.page(
            f"look: {self.flow}" if len(self.flow) < 120 else "look",
            body,
            style=pages.template_text("look.css"),
            script=pages.template_text("look.js"),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file; returns its path."""
        file = Path(path)
        file.write_text(self.html, encoding="utf8")
        return file

    def __repr__(self) -> str:
        return "\n".join(lines(self))

    def _repr_html_(self) -> str | None:
        try:
            return pages.in_frame(self.html, height=640)
        except ImportError:  # without jinja2 a notebook shows the lines of text
            return None


class Budget:
    """How many characters a page may still have: each row its share, and what those above it have left."""

    def __init__(self, most: int, rows: int) -> None:
        self.share, self.left = most / rows, 0.0

    def begin_row(self) -> str:
        """The next row begins; nothing is written for that."""
        self.left = max(self.left, 0) + self.share
        return ""

    def fits(self, view: View) -> bool:
        """Whether a view fits, without its parts; then it has its place."""
        self.left -= EACH + _drawn_length(view.drawn)
        return self.left >= 0

    def spare(self) -> bool:
        """Whether there is room for what has been seen before."""
        return self.left > self.share / 2


def _drawn_length(drawn: Any) -> int:
    """How many characters there are in what something is drawn with."""
    if isinstance(drawn, str):
        return len(drawn)
    return sum(
        map(_drawn_length, drawn.values() if isinstance(drawn, dict) else drawn if isinstance(drawn, list) else ())
    )


def time_in_words(seconds: float) -> str:
    """A time in the unit that reads best.

    >>> time_in_words(0.00123), time_in_words(2.5), time_in_words(4e-7)
    ('1.2 ms', '2.5 s', '0.4 µs')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale or unit == "µs":
            break
    return f"{seconds / scale:.1f} {unit}" if seconds < 10 * scale else f"{seconds / scale:.0f} {unit}"


def size_in_words(count: int) -> str:
    """So many bytes, in the unit that reads best.

    >>> size_in_words(12), size_in_words(4096), size_in_words(3_500_000)
    ('12 B', '4.1 kB', '3.5 MB')
    """
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
