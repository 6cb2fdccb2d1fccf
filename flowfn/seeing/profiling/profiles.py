"""What came of profiling a pass."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowfn.kinds.tallies import Dropped
from flowfn.seeing.pages import in_frame
from flowfn.seeing.profiling.lanes import TreePlan
from flowfn.seeing.profiling.ranks import Ranks, beside
from flowfn.seeing.profiling.recording import Recording
from flowfn.seeing.profiling.verdicts import Verdict, brief_name, verdict_in_words

MOST_STEPS = 10_000
"""How many steps of a rank can be held beside those of others."""


MUCH = 0.5
"""The share of a pass from which on it says more of profiling than of stages."""


@dataclass(frozen=True)
class StageProfile:
    """What a stage cost.

    own: its seconds, without those of its sources; in all workers together       calls: outputs it gave
    mean, p50, p90, p99: own seconds of an output     bytes: of an output, about    cpu: processor's seconds of 1 000
    waited: seconds it waited for input or workers    exposed: seconds it was at work while the consumer waited
    """

    stage: str
    place: int
    runs_in: str
    calls: int
    own: float
    mean: float
    p50: float
    p90: float
    p99: float
    bytes: float
    cpu: float
    waited: float
    exposed: float


@dataclass(frozen=True)
class LaneProfile:
    """What ran beside the others: the workers of a prefetch, its thread, or the thread that iterates.

    busy: the share of its workers' time that they were at work     waits_for_input: seconds they waited for sources
    waits_for_room: seconds, while enough outputs waited            waits_for_tasks: seconds, while the consumer waited
    queue: (n, 2) seconds and how many finished outputs waited then
    """

    name: str
    workers: int
    stages: tuple[str, ...]
    busy: float
    waits_for_input: float
    waits_for_room: float
    waits_for_tasks: float
    queue: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Profile:
    """Where the time of a pass went.

    Printed, it is the verdict and a table; in colours, if rich is installed and the screen has them.

    outputs: how many came     seconds: in which `counted` of them came, when all workers were at work
    first: seconds to the first
    step: the consumer's seconds for an output   headroom: outputs a second that it takes from memory, if that was tried
    cost: seconds that profiling itself took     dropped: what guarded stages dropped or replaced, the newest

    >>> import flowfn as ff
    >>> found = ff.profile(ff.pipe(range(40), ff.map(float), ff.batch(4)), n=10)
    >>> found.outputs, [(stage.stage, stage.calls) for stage in found.stages]
    (10, [('flow(range(0, 40))', 40), ('map(float)', 40), ('batch(4)', 10)])
    """

    outputs: int
    seconds: float
    counted: int
    first: float
    step: float
    headroom: float | None
    stages: tuple[StageProfile, ...]
    lanes: tuple[LaneProfile, ...]
    verdict: Verdict
    cost: float
    dropped: tuple[Dropped, ...] = ()
    rank: int = 0
    recording: Recording | None = field(default=None, repr=False)
    plan: TreePlan | None = field(default=None, repr=False)

    @property
    def per_second(self) -> float:
        """Outputs a second, once it runs."""
        return self.counted / self.seconds if self.seconds else math.nan

    def lines(self) -> Iterator[str]:
        """The verdict in words."""
        yield from verdict_in_words(self.verdict, self.outputs, self.per_second, self.first, self.headroom)
        total = self.first + self.seconds
        if self.cost <= MUCH * total:
            yield f"Profiling took {self.cost:.3f} s of it ({self.cost / total if total else 0:.1%})."
        else:
            yield f"Profiling took about {self.cost:.3f} s, much of it: what takes so little looks slower than it is."
        for dropped in self.dropped[-3:]:
            yield f"Dropped: datapoint {dropped.index}, {type(dropped.error).__name__}: {dropped.error}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table, in words; the heads come first."""
        yield ("stage", "runs in", "outputs", "own s", "mean", "p50", "p90", "p99", "bytes", "cpu s/1000", "exposed s")
        for one in self.stages:
            times = (short(value) for value in (one.mean, one.p50, one.p90, one.p99))
            yield (
                brief_name(one.stage, 40),
                one.runs_in,
                str(one.calls),
                f"{one.own:.3f}",
                *times,
                bytes_in_words(one.bytes),
                f"{one.cpu:.3g}",
                f"{one.exposed:.3f}",
            )

    def __str__(self) -> str:
        rows = list(self.rows())
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
        return "\n".join([*self.lines(), "", *table])

    __repr__ = __str__

    def _repr_html_(self) -> str | None:
        """The page, in a notebook; the text, where jinja2 is not installed."""
        from flowfn.seeing.profiling.pages import page_of

        try:
            return in_frame(page_of(self), 640)
        except ImportError:
            return None

    def as_data(self) -> dict[str, Any]:
        """All but the recording, as JSON can hold it."""
        verdict = self.verdict
        return {
            "outputs": self.outputs,
            "seconds": self.seconds,
            "per_second": self.per_second,
            "first": self.first,
            "step": self.step,
            "headroom": self.headroom,
            "rank": self.rank,
            "cost": self.cost,
            "waits": [] if self.recording is None else _waits(self.recording),
            "verdict": {
                "words": [*self.lines()],
                "waits": verdict.waits,
                "waiting": verdict.waiting,
                "share": verdict.share,
                "stage": verdict.stage,
                "bound": verdict.bound,
                "write": None if verdict.knob is None else verdict.knob.words,
                "gain": verdict.gain,
                "next": verdict.next,
            },
            "stages": [asdict(stage) for stage in self.stages],
            "lanes": [{**asdict(lane), "queue": lane.queue.tolist()} for lane in self.lanes],
        }

    def beside(self, *others: Profile | Mapping[str, Any]) -> Ranks:
        """This rank's profile and those of others (or their `as_data`, from files, say): who is last, and whether it is
        always the same.

        Raises:
            ValueError: two are of one rank.
        """
        return beside([one.as_data() if isinstance(one, Profile) else one for one in (self, *others)])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a page of HTML that needs nothing else: the verdict, the stages, and the pass over time.

        Raises:
            ImportError: jinja2 is not installed: `pip install "flowfn[seeing]"`.
        """
        from flowfn.seeing.profiling.pages import page_of

        Path(path).write_text(page_of(self), encoding="utf8")

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write what every thread did when, as JSON that chrome://tracing and Perfetto show."""
        from flowfn.seeing.profiling.traces import trace_of

        Path(path).write_text(json.dumps(trace_of(self)), encoding="utf8")


def _waits(recording: Recording) -> list[float]:
    """How long each of the first outputs was waited for."""
    asked, got = recording.consumed
    return [round(float(wait), 6) for wait in (got - asked)[:MOST_STEPS]]


def short(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def bytes_in_words(count: float) -> str:
    """Bytes in the unit that reads best."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"
