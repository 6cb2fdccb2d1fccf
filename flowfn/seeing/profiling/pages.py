"""A profile as a page: the verdict, the stages, and the pass over time, which can be zoomed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from flowfn.seeing.pages import page, rendered, template_text
from flowfn.seeing.profiling.logs import OUTSIDE
from flowfn.seeing.profiling.spans import spans_of
from flowfn.seeing.profiling.traces import name_of
from flowfn.seeing.profiling.verdicts import brief_name

MOST_DRAWN = 40_000
"""How many pieces of time a page shows at most, about."""

MOST_LANES = 64


def page_of(profile: Any) -> str:
    """The whole page."""
    heads, *rows = profile.rows()
    lines = list(profile.lines())
    body = rendered(
        "profile.html",
        "Profile.save()",
        lines=lines,
        heads=heads,
        rows=rows,
        holds=[stage.place == profile.verdict.place for stage in profile.stages],
        lanes=[replace(lane, stages=tuple(brief_name(one, 40) for one in lane.stages)) for lane in profile.lanes],
        write=None if profile.verdict.knob is None else profile.verdict.knob.words,
        timeline=json.dumps(timeline_of(profile)),
    )
    return page("profile", body, style=template_text("profile.css"), script=template_text("profile.js"))


def timeline_of(profile: Any) -> dict[str, Any]:
    """Threads with what they did, in microseconds; queues; when the consumer waited."""
    recording, plan = profile.recording, profile.plan
    if recording is None or plan is None:
        return {"names": [], "waits": [], "threads": [], "queues": [], "end": 0}
    threads = spans_of(recording, MOST_DRAWN)[:MOST_LANES]
    places = sorted({int(place) for spans in threads for place in np.unique(spans.place)} - {OUTSIDE})
    number = {place: at for at, place in enumerate(places)}
    rows = [
        {
            "name": f"{spans.name} ({'here' if spans.process == recording.here else spans.process})",
            "spans": np.stack(
                [
                    np.round(1e6 * spans.start),
                    np.maximum(np.round(1e6 * (spans.end - spans.start)), 1),
                    np.array([number[int(place)] for place in spans.place], float),
                ],
                1,
            )
            .astype(np.int64)
            .ravel()
            .tolist(),
        }
        for spans in threads
    ]
    queues = [
        {"name": f"queue of {lane.name}", "points": np.round(lane.queue, 4).ravel().tolist()}
        for lane in profile.lanes
        if len(lane.queue)
    ]
    ends = [float(spans.end[-1]) for spans in threads if len(spans.end)]
    return {
        "names": [brief_name(name_of(place, plan)) for place in places],
        "waits": [bool(plan.waits(place)) for place in places],
        "threads": rows,
        "queues": queues,
        "end": int(1e6 * max(ends, default=0.0)),
    }
