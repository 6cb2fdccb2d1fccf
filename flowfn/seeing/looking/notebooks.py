"""A flow as a notebook shows it: the table of `explain`, and folded behind it what `look` sees."""

from __future__ import annotations

from typing import Any

from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.seeing import pages
from flowfn.seeing.explaining import remarks, table
from flowfn.seeing.looking.looking import looked_at, refuse_one_shot
from flowfn.seeing.looking.recording import TooSlow
from flowfn.seeing.looking.views import Sight

COLUMNS, SECONDS = 2, 2.0
"""How many datapoints are looked at, and how long at most."""


def as_html(flow: Flow[Any]) -> str | None:
    """The table with its fold; None without jinja2: then the notebook shows its repr."""
    try:
        needed("jinja2", "a page", extra="seeing")
    except ImportError:
        return None
    seen, why = _seen(flow)
    said = list(remarks(flow, flow._look()))
    return pages.rendered("flow.html", "a page", table=table(flow), remarks=said, seen=seen, why=why)


def _seen(flow: Flow[Any]) -> tuple[str, str]:
    """(a page in a frame, why there is none)."""
    try:
        refuse_one_shot(flow)
        return pages.in_frame(looked_at(flow, COLUMNS, Sight(), SECONDS).html, height=640), ""
    except TooSlow:
        return "", f"look(flow) takes longer than {SECONDS:.0f} s here"
    except Exception as error:  # of somebody's stage: iterating will raise it
        return "", f"{type(error).__name__}: {error}"
