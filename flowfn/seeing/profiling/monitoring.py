"""Counters of a pass that may stay on: who iterates is timed, and of the tasks of workers a few."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows import sources
from flowfn.flows.flow import Flow
from flowfn.kinds.parts import top_down
from flowfn.seeing.profiling.logs import Chunk, Recorder
from flowfn.seeing.profiling.probing import probed
from flowfn.seeing.profiling.recording import track_of

EVERY = 64
"""Of so many tasks of workers one is timed."""

FAST = 1e-4
"""Seconds: where outputs come faster than that, one in `SAMPLED_OF` is timed."""

SAMPLED_OF = 16


@dataclass
class StageCounters:
    """About how many outputs a stage gave in workers, in how many seconds, and how many of a processor."""

    outputs: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0


@dataclass
class Counters:
    """What has been counted since the monitor was opened.

    outputs: of the whole     passes: that were begun      waiting: seconds that who iterates waited for outputs
    working: seconds it did something else between them    first: seconds to the first output, of all passes
    stages: by name, what workers did, as far as that is known from one task in `EVERY`
    """

    outputs: int = 0
    passes: int = 0
    waiting: float = 0.0
    working: float = 0.0
    first: float = 0.0
    stages: dict[str, StageCounters] = field(default_factory=dict)

    def openmetrics(self, **labels: str) -> str:
        """All counters as OpenMetrics text, which Prometheus and others read. `labels` are added to each.

        >>> print(Counters(outputs=3, waiting=0.5).openmetrics(job="train").splitlines()[1])
        flowfn_outputs_total{job="train"} 3
        """
        whole = {name: getattr(self, name) for name in ("outputs", "passes", "waiting", "working", "first")}
        lines = []
        for name, value in whole.items():
            unit = "" if name in ("outputs", "passes") else "_seconds"
            lines += [
                f"# TYPE flowfn_{name}{unit} counter",
                f"flowfn_{name}{unit}_total{_labelled(labels)} {value:.10g}",
            ]
        for name, unit in (("outputs", ""), ("seconds", ""), ("cpu", "_seconds")):
            lines.append(f"# TYPE flowfn_stage_{name}{unit} counter")
            for stage, counted in self.stages.items():
                told = _labelled({**labels, "stage": stage})
                lines.append(f"flowfn_stage_{name}{unit}_total{told} {getattr(counted, name):.10g}")
        return "\n".join([*lines, "# EOF", ""])


def _labelled(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    said = (
        (name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in said) + "}"


@rules.checked(report=rules.optional(rules.function), every=rules.seconds)
def monitor(flow: Any, report: Callable[[Counters], Any] | None = None, *, every: float = 10.0) -> Monitor:
    """Count outputs, waiting and work of a training that runs, at a cost that cannot be felt.

        with monitor(train, report=send) as monitored:
            for batch in monitored:
                step(batch)

    The passes are those of the flow: they advance it, and an iterator over `monitored` has all that those of flows
    have. Of the tasks of workers, one in 64 is timed stage by stage; who iterates is timed at each output, or at one in
    16 where they come faster than every 0.1 ms. `report` is called with the counters (see `Counters.openmetrics`) every
    so many seconds, by whoever iterates, and when all is over; `monitored.counters()` returns them at any time.

    >>> import flowfn as ff
    >>> with ff.monitor(ff.pipe(range(9), ff.batch(3))) as monitored:
    ...     batches = list(monitored)
    >>> monitored.counters().outputs, monitored.counters().passes
    (3, 1)
    """
    return Monitor(sources.flow(flow, "monitor"), report, every)


class _SampleSums:
    """What samples add up to, by place; it takes chunks as a list does."""

    def __init__(self) -> None:
        self.sums: dict[int, StageCounters] = {}

    def append(self, chunk: Chunk) -> None:
        """Add what a worker wrote down."""
        if not chunk.rows:
            return
        track = track_of([chunk])
        for place in np.unique(track.place):
            mine = track.place == place
            known = mine & ~np.isnan(track.cpu)
            counted = self.sums.setdefault(int(place), StageCounters())
            counted.seconds += EVERY * float(track.seconds[mine].sum())
            counted.cpu += EVERY * float(track.cpu[known].sum())
            counted.outputs += EVERY * int((track.given_by == place).sum())


class Monitor:
    """Counts while it is open (see `monitor`)."""

    def __init__(self, flow: Flow[Any], report: Callable[[Counters], Any] | None, every: float) -> None:
        self.flow, self.report, self.every = flow, report, every
        self._counters = Counters()
        self._sums = _SampleSums()

    def __enter__(self) -> Monitor:
        self._recorder = Recorder()
        self._recorder.chunks = self._sums  # type: ignore[assignment]
        self._node = self.flow.node
        self.flow._node = probed(self._node, self._recorder.key, every=EVERY)
        self._due = time.perf_counter() + self.every
        return self

    def __iter__(self) -> Metered:
        self._counters.passes += 1
        return Metered(iter(self.flow), self)

    def __exit__(self, *_: object) -> None:
        self.counters()
        self.flow._node = self._node
        self._recorder.close()
        if self.report is not None:
            self.report(self.counters())

    def counters(self) -> Counters:
        """What was counted so far."""
        self._recorder.collect()
        names = {place: str(node.part) for place, node in _places(self._node).items()}
        self._counters.stages = {names[place]: one for place, one in sorted(self._sums.sums.items()) if place in names}
        return self._counters

    def reported(self, now: float) -> None:
        """Report, if it is time."""
        if self.report is not None and now > self._due:
            self._due = now + self.every
            self.report(self.counters())


def _places(root: Any) -> dict[int, Any]:
    return {node.place: node for node in top_down(root)}


class Metered(Iterator[Any]):
    """An iterator over a flow whose outputs are counted; it has all that the iterator has."""

    def __init__(self, iterator: Any, monitor: Monitor) -> None:
        self._iterator, self._monitor, self._counters = iterator, monitor, monitor._counters
        self._got = 0.0  # when the last output was given; 0 if that was not looked at
        self._step, self._left = 1, 0

    def __next__(self) -> Any:
        if self._left:
            self._left -= 1
            output = next(self._iterator)
            self._counters.outputs += 1
            return output
        return self._timed()

    def _timed(self) -> Any:
        counters, asked = self._counters, time.perf_counter()
        output = next(self._iterator)
        got = time.perf_counter()
        counters.outputs += 1
        if not self._got:
            counters.first += got - asked
        else:
            since = asked - self._got
            between = (got - asked) * self._step
            counters.waiting += between
            counters.working += max(since - (between - (got - asked)), 0.0)
            self._step = SAMPLED_OF if got - self._got < FAST * self._step else 1
            self._left = self._step - 1
        self._got = got
        self._monitor.reported(got)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)

    def __enter__(self) -> Metered:
        return self

    def __exit__(self, *_: object) -> None:
        self._iterator.close()
