"""The prefetch stage: it changes when and where, never what."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from flowfn import rules
from flowfn.kinds import Each, Node
from flowfn.parallel.background import ahead_of_time
from flowfn.parallel.crew import Crew
from flowfn.parallel.kept import Kept
from flowfn.parallel.plan import cut, stays, stretches, whole
from flowfn.parallel.pool import pool
from flowfn.parallel.spread import Spread
from flowfn.runs import Block, Outputs, Run
from flowfn.stages import stage

_WORKERS = rules.optional(rules.positive)
_THREADS = rules.Rule(
    "a positive integer, or left out where processes= is given",
    _WORKERS.fits_type,
    lambda value, others: value is None or (value > 0 and others["processes"] is None),
)


class PrefetchNode(Each):
    """Hands what is upstream to a thread or to workers, where the run allows it; otherwise it is not there at all."""

    boundary = True

    def crew(self, run: Run) -> Crew | None:
        """The workers for a run, or None for the one thread."""
        ahead, threads, processes = (self.part.arguments[name] for name in ("ahead", "threads", "processes"))
        if processes and run.engine == "processes":
            return Crew(processes, ahead, partial(pool, processes), lambda executor: None, remote=True)
        workers = threads or processes or 1
        if workers == 1:
            return None
        return Crew(workers, ahead, partial(ThreadPoolExecutor, workers, "flowfn-worker"), _dismiss, remote=False)

    def arranged(self, crew: Crew) -> Node:
        """The tree to run here, in which stretches are spread over the workers."""
        return cut(self.sources[0], lambda stretch: Spread(stretch, crew))

    def kept(self, crew: Crew) -> bool:
        """Whether all of it runs in the one worker that there is, as a pass that the worker keeps."""
        (source,) = self.sources
        if not crew.remote or crew.workers > 1 or not whole(source):
            return False
        found = stretches(source)
        return not (len(found) == 1 and found[0].top.place == source.place and found[0].bottom.seekable and not stays(found[0]))

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs at the indices of a series."""
        if run.engine == "none":
            return self.sources[0].read(run, series)
        crew = self.crew(run)
        tree = self.arranged(crew) if crew else self.sources[0]
        if isinstance(tree, Spread):
            return tree.read(run, series)
        return ahead_of_time(tree, run, lambda run: tree.read(run, series), self.part.arguments["ahead"])

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on."""
        if run.engine == "none":
            return self.sources[0].stream(run, start, lineage)
        crew = self.crew(run)
        if crew and self.kept(crew):
            return Kept(self.sources[0], crew).stream(run, start, lineage)
        if self.seekable:
            return Node.stream(self, run, start, lineage)
        tree = self.arranged(crew) if crew else self.sources[0]
        if isinstance(tree, Spread):
            return tree.stream(run, start, lineage)
        return ahead_of_time(tree, run, lambda run: tree.stream(run, start, lineage), self.part.arguments["ahead"], start)


def _dismiss(executor: Any) -> None:
    executor.shutdown(wait=True, cancel_futures=True)


@stage.each(
    where={"ahead": rules.positive, "processes": _WORKERS, "threads": _THREADS},
    reads=PrefetchNode,
    transparent=True,
    instead="prefetch(ahead, threads={0}) or prefetch(ahead, processes={0})",
)
def prefetch(ahead: int, source: Any, *, threads: int | None = None, processes: int | None = None) -> Iterator[Any]:
    """Run what is upstream ahead of time: `ahead` finished outputs wait. What comes out does not change.

    Alone it uses one background thread; `threads=n` and `processes=n` spread the work over n of them. Datapoints,
    their order, randomness and state are those of the pipeline without it. A stage runs in the workers of the first
    prefetch downstream of it; `explain(flow)` shows which, and what stays in this process. Functions may be lambdas,
    closures or defined in `__main__`. Worker processes use one BLAS or OpenMP thread each.

    Raises:
        ValueError: both `threads` and `processes` are given.
        TypeError: something cannot be sent to a worker process; the message names the stage.

    >>> import flowfn as ff
    >>> list(ff.pipe(range(5), ff.map(lambda x: x * x), ff.prefetch(2, threads=2)))
    [0, 1, 4, 9, 16]
    """
    yield from source
