"""Tables for those who come from other libraries, as their rows."""

import re
from pathlib import Path

PAGES = Path(__file__).parent.parent / "examples"


def tables(page):
    """The rows of each table of a page, as (theirs, ours, what is different), by the library that heads it."""
    found = {}
    for cells in re.findall(r"^\| (.+?) \| (.+?) \| ?(.*?) ?\|$", (PAGES / page).read_text(encoding="utf8"), re.M):
        if cells[1] == "flowfn":
            rows = found.setdefault(cells[0], [])
        elif set(cells[0]) != {"-"}:
            rows.append(cells)
    return found
