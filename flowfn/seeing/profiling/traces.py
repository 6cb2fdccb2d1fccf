"""A profile as a trace: JSON that chrome://tracing and ui.perfetto.dev open (the Trace Event Format)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from flowfn.seeing.profiling.spans import is_wait, spans_of

MOST_EVENTS = 200_000
"""How many events a trace has at most, about."""


def trace_of(profile: Any) -> dict[str, Any]:
    """Slices of every thread, waits and steps of the consumer, and how many outputs waited in each queue."""
    return {"traceEvents": [*_events(profile)], "displayTimeUnit": "ms"}


def _events(profile: Any) -> Iterator[dict[str, Any]]:
    recording, plan = profile.recording, profile.plan
    if recording is None or plan is None:
        return
    named: set[int] = set()
    for spans in spans_of(recording, MOST_EVENTS):
        pid, tid = spans.process, spans.thread % (1 << 31)
        if pid not in named:
            named.add(pid)
            here = "this process" if pid == recording.here else "a worker process"
            yield _meta("process_name", pid, tid, here)
        yield _meta("thread_name", pid, tid, spans.name)
        for start, end, place in zip(spans.start.tolist(), spans.end.tolist(), spans.place.tolist()):
            yield {
                "name": name_of(place, plan),
                "cat": "wait" if plan.waits(place) else "stage",
                "ph": "X",
                "ts": 1e6 * start,
                "dur": 1e6 * (end - start),
                "pid": pid,
                "tid": tid,
            }
    for number, lane in enumerate(profile.lanes):
        for when, waiting in np.asarray(lane.queue).tolist():
            yield {
                "name": f"outputs of {lane.name} that wait",
                "ph": "C",
                "ts": 1e6 * max(when, 0.0),
                "pid": recording.here,
                "id": number,
                "args": {"outputs": waiting},
            }


def _meta(name: str, process: int, thread: int, value: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": process, "tid": thread, "args": {"name": value}}


def name_of(place: int, plan: Any) -> str:
    """What a thread did, in words."""
    if is_wait(place):
        return "wait for workers"
    node = plan.nodes.get(place)
    if node is None:
        return "?"
    return f"wait for {node.part}" if plan.waits(place) else str(node.part)
