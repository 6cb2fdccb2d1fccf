"""A flow as a notebook shows it: the table of `explain`, and folded behind it what `look` sees."""

from __future__ import annotations

from typing import Any

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
        seen, why = _seen(flow)
        said = list(remarks(flow, flow._look()))
        return pages.rendered("flow.html", "a page", table=table(flow), remarks=said, seen=seen, why=why)
    except ImportError:
        return None


def _seen(flow: Flow[Any]) -> tuple[str, str]:
    """(a page in a frame, why there is none)."""
    try:
        refuse_one_shot(flow)
        return looked_at(flow, COLUMNS, Sight(), SECONDS)._repr_html_(), ""
    except TooSlow:
        return "", f"look(flow) takes longer than {SECONDS:.0f} s here"
    except ImportError:
        raise
    except Exception as error:  # of somebody's stage: iterating will raise it
        return "", f"{type(error).__name__}: {error}"
