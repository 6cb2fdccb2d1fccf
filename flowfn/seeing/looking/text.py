"""What was looked at, in lines of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from flowfn.kinds.runs import Length
from flowfn.showing import brief

WIDTH, NAME, FAILED = 80, 48, 3
"""Of a line, and of the name of a stage in it; and so many failures are named."""
SIGNS = {"new": "+", "type": "~", "size": "~", "values": "~"}


def lines(look: Any) -> Iterator[str]:
    """The lines: for each stage, each datapoint; of what is not as before, "~" is what has changed, "+" what is new."""
    outputs = f"{look.count} output{'s' * (look.count != 1)}{of_how_many(look.length)}"
    yield f"look: {outputs}, seed {look.seed}, epoch {look.epoch}"
    for row in look.rows:
        indent = "  " * row.depth
        yield _heading(indent, row)
        for column, cell in enumerate(row.cells):
            if cell.items or cell.kept:
                said = _cell_in_short(cell) if cell.items else "kept: not made again"
                yield _shortened(f"{indent}  {column}  {said}")
        for one in row.dropped[:FAILED]:
            yield _shortened(
                f"{indent}  failed {one.index}: {type(one.error).__name__}: {one.error} ({brief(one.datapoint)})"
            )
        if len(row.dropped) > FAILED:
            yield f"{indent}  and {len(row.dropped) - FAILED} more failed"


def of_how_many(length: Length) -> str:
    """Of how many outputs those are that are shown, where that is known."""
    return "" if length is None else " of an endless flow" if length == math.inf else f" of {length}"


def _heading(indent: str, row: Any) -> str:
    name = indent + row.name
    if row.plain:
        return _shortened(f"{name}: changes nothing")
    made = f"{row.given} of {row.taken}" if row.taken else f"{row.given}"
    cost = f"{made} x {row.seconds * 1e6:.3g} µs" if row.seconds < 1e-3 else f"{made} x {row.seconds * 1e3:.3g} ms"
    return f"{_shortened(name, NAME):{NAME}}  {row.kind:6} {cost:>{WIDTH - NAME - 9}}"


def _cell_in_short(cell: Any) -> str:
    """The first part of a cell, from where it is, and how many others there are."""
    item, more = cell.items[0], len(cell.items) - 1
    origin = ", ".join(item.origins[:2]) + ", ..." * (len(item.origins) > 2 or item.more_origins)
    return f"{f'[{origin}] ' if origin else ''}{f'(and {more} more) ' if more else ''}{_view_in_line(item.view)}"


def _view_in_line(view: Any, depth: int = 0) -> str:
    """A view in one line: its parts, or its own words; where it was compared, those that are not as before."""
    if view.mark == "" and not depth:
        return "as before"
    sign = SIGNS.get(view.mark or "", "")
    if not view.parts or depth > 1:
        words = view.drawn[0] if view.form == "tokens" else " ".join(word for word in view.words if word)
        return sign + words
    shown = [part for part in view.parts if part.mark != ""] if view.mark else view.parts
    inner = [f"{part.name}: {_view_in_line(part, depth + 1)}" for part in shown]
    rest = ["..."] * (len(shown) < len(view.parts) + view.more)
    return f"{{{', '.join([*(f'-{name}' for name in view.gone), *inner, *rest])}}}"


def _shortened(text: str, width: int = WIDTH) -> str:
    text = " ".join(text.split("\n"))
    return text if len(text) <= width else f"{text[: width - 3]}..."
