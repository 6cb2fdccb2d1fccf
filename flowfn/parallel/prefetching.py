"""The prefetch stage: it changes when and where, never what."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from flowfn import rules
from flowfn.blocks import Block
from flowfn.flows.stages import stage
from flowfn.kinds.nodes import Each, Node
from flowfn.kinds.runs import Outputs, Run
from flowfn.parallel.clusters import Cluster
from flowfn.parallel.crew import Crew, Pace
from flowfn.parallel.kept import Kept
from flowfn.parallel.read_ahead import WorkerOpener
from flowfn.parallel.spread import Spread
from flowfn.parallel.tasks.background import Bounds, ahead_of_time
from flowfn.parallel.tasks.plan import cut_tree, leaves_whole, stays, stretches
from flowfn.parallel.tasks.surroundings import Setup
from flowfn.parallel.workers.pool import available
from flowfn.parallel.workers.processes import inside_worker, since_ready
from flowfn.parallel.workers.program import here
from flowfn.process.interpreter import threads_compute_at_once
from flowfn.showing import brief

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

GRACE = 1.0
"""Seconds that a thread is given to say what its workers did not do in time."""

_WORKERS = rules.optional(rules.positive)
_ALONE = "left out where another of workers=, threads=, processes= and executor= is given"


def _no_other(others: Mapping[str, Any], *names: str) -> bool:
    return all(others[name] is None for name in names)


_THREADS = rules.Rule(
    f"a positive integer, or {_ALONE}",
    _WORKERS.fits_type,
    lambda value, others: value is None or (value > 0 and _no_other(others, "processes", "executor")),
)
_PROCESSES = rules.Rule(
    f'a positive integer or "auto", or {_ALONE}',
    lambda value: value is None or rules.is_integer(value) or isinstance(value, str),
    lambda value, others: value is None or (_is_count(value) and _no_other(others, "executor")),
)
_ANY = replace(
    _PROCESSES,
    fits=lambda value, others: (
        value is None or (_is_count(value) and _no_other(others, "threads", "processes", "executor"))
    ),
)


def _is_count(value: Any) -> bool:
    return value == "auto" or (rules.is_integer(value) and value > 0)


def _no_executor(value: Any, others: Mapping[str, Any]) -> str:
    """What is given in the place of an executor, and what to write instead; nothing if it is one."""
    home = type(value).__module__.split(".")[0]
    if isinstance(value, type):
        return f"the class {value.__name__}; write an instance of it"
    if hasattr(value, "get_executor"):
        return "a Dask client; write executor=flowfn.interop.dask.executor(client), or client.get_executor(pure=False)"
    if home == "ipyparallel":
        return f"{type(value).__name__}; write executor=client.load_balanced_view().executor"
    if rules.is_integer(value) or isinstance(value, str):
        return f"{value!r}; write processes= or threads= for so many workers"
    if hasattr(value, "submit") or value is None:
        return ""
    pool = hasattr(value, "apply_async") or home == "joblib"
    return (
        f"{brief(value)}" + ", which has none; write processes=n, or concurrent.futures.ProcessPoolExecutor(n)" * pool
    )


_EXECUTOR = rules.Rule("a concurrent.futures.Executor: an object with submit()", lambda value: True, slip=_no_executor)
_BYTES = rules.Rule(
    'a positive integer, a size like "512MB", or None',
    lambda value: value is None or rules.is_integer(value) or isinstance(value, str),
    lambda value, others: value is None or (bytes_in(value) or 0) > 0,
)
_SETUP = rules.Rule(
    "a function of nothing that each worker process calls first, where processes= or executor= is given",
    lambda value: value is None or callable(value),
    lambda value, others: value is None or others["processes"] is not None or others["executor"] is not None,
)


_paces: WeakKeyDictionary[Node, dict[Crew, dict[int, Pace]]] = WeakKeyDictionary()
"""How the newest pass of each prefetch was paced, by the places of its stretches."""


def bytes_in(size: int | str) -> int | None:
    """How many bytes a size is, or None if it is none.

    >>> bytes_in("512MB"), bytes_in("1.5 GiB"), bytes_in(7), bytes_in("much")
    (512000000, 1610612736, 7, None)
    """
    if not isinstance(size, str):
        return size
    found = re.fullmatch(r"([0-9.]+) *([A-Za-z]*)", size.strip())
    unit = UNITS.get((found[2] or "B").upper()) if found else None
    try:
        return int(float(found[1]) * unit) if found and unit else None
    except (ValueError, OverflowError):
        return None


def count_of(workers: int | str | None) -> int:
    """How many workers are meant."""
    return available() if workers == "auto" else int(workers or 1)


class PrefetchNode(Each):
    """Hands what is upstream to a thread or to workers, where the run allows it; otherwise it is not there at all."""

    boundary = True

    def setup(self) -> None:
        """Outputs that may come in any order cannot be had by their index."""
        super().setup()
        if not self.part.arguments["ordered"]:
            self.loose, self.seekable = True, False

    def unknown(self) -> str:
        """Why it is not seekable."""
        return super().unknown() if not self.sources[0].seekable else f"{self.part} gives outputs as they come"

    def crew(self, run: Run) -> Crew | None:
        """The workers for a run, or None for the one thread."""
        options = self.part.arguments
        common = {name: options[name] for name in ("ahead", "executor", "timeout", "worker_threads")}
        common["timeout"] = options["timeout"] and min(options["timeout"], threading.TIMEOUT_MAX)
        common["max_bytes"] = bytes_in(options["max_bytes"]) if options["max_bytes"] is not None else None
        common["setup"] = Setup(options["setup"]) if options["setup"] is not None else None
        common["ordered"] = options["ordered"] or run.in_order or self.guarded
        if inside_worker() and options["setup"] is not None:
            here(options["setup"])
        threads, processes = self.workers
        if processes and run.engine == "processes" and not inside_worker():
            return Crew(processes, processes=True, **common)
        if options["executor"] is not None:
            executor = options["executor"]
            return Crew(executor.workers if isinstance(executor, Cluster) else available(), **common)
        workers = max(threads, processes)
        return Crew(workers, **common) if workers > 1 else None

    @property
    def workers(self) -> tuple[int, int]:
        """(threads, processes) that are asked for; of workers that may be either, those that compute at once."""
        options = self.part.arguments
        threads, processes = options["threads"], options["processes"]
        if options["workers"] is not None:
            threads, processes = (options["workers"], None) if threads_compute_at_once() else (None, options["workers"])
        return (threads and count_of(threads)) or 0, (processes and count_of(processes)) or 0

    def arranged(self, crew: Crew) -> Node:
        """The tree to run here, in which stretches are spread over the workers."""
        top, inner = self.sources[0].place, replace(crew, ordered=True, inner=True)
        paces = _paces.setdefault(self, {}).setdefault(crew, {})
        return cut_tree(
            self.sources[0], lambda stretch: Spread(stretch, crew if stretch.top.place == top else inner, paces)
        )

    def opening(self, run: Run, crew: Crew | None) -> Run:
        """A run in which the workers, if there are any, open what stages open that stay here.

        Not the threads of somebody's executor: what is opened may want them itself.
        """
        if crew is None or (crew.executor is not None and not crew.remote):
            return replace(run, opener=None)
        return replace(run, opener=partial(WorkerOpener, crew))

    def kept(self, crew: Crew) -> bool:
        """Whether all of it runs in the one worker that there is, as a pass that the worker keeps."""
        (source,) = self.sources
        if not crew.processes or crew.workers > 1 or not leaves_whole(source):
            return False
        found = stretches(source)
        return not (
            len(found) == 1 and found[0].top.place == source.place and found[0].bottom.seekable and not stays(found[0])
        )

    def read(self, run: Run, series: Iterator[Block]) -> Outputs:
        """The outputs at the indices of a series."""
        if run.engine == "none":
            return self.sources[0].read(run, series)
        crew = self.crew(run)
        tree, run = self.arranged(crew) if crew else self.sources[0], self.opening(run, crew)
        if isinstance(tree, Spread):
            return tree.read(run, series)
        return self.behind(tree, run, lambda run: tree.read(run, series))

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """All outputs from `start` on."""
        if run.engine == "none":
            return self.sources[0].stream(run, start, lineage)
        crew = self.crew(run)
        if crew and self.kept(crew):
            return Kept(self.sources[0], crew).stream(run, start, lineage)
        if self.seekable:
            return Node.stream(self, run, start, lineage)
        tree, run = self.arranged(crew) if crew else self.sources[0], self.opening(run, crew)
        if isinstance(tree, Spread):
            return tree.stream(run, start, lineage)
        return self.behind(tree, run, lambda run: tree.stream(run, start, lineage), start)

    def behind(self, tree: Node, run: Run, begin: Callable[[Run], Outputs], start: int = 0) -> Outputs:
        """What `begin` gives of a tree, made in a thread that runs ahead."""
        options = self.part.arguments
        most = bytes_in(options["max_bytes"]) if options["max_bytes"] is not None else None
        timeout = options["timeout"]
        if (
            timeout is not None and tree is not self.sources[0]
        ):  # its workers know better which datapoint it is, and say so before
            timeout += GRACE
        return ahead_of_time(tree, run, begin, Bounds(options["ahead"], most, timeout, since_ready), start)


@stage.of_node(
    PrefetchNode,
    where={
        "ahead": rules.positive,
        "workers": _ANY,
        "threads": _THREADS,
        "processes": _PROCESSES,
        "executor": _EXECUTOR,
        "ordered": rules.boolean,
        "max_bytes": _BYTES,
        "timeout": rules.optional(rules.seconds),
        "worker_threads": _WORKERS,
        "setup": _SETUP,
    },
    transparent=True,
    instead="prefetch(ahead, workers={0})",
)
def prefetch(
    ahead: int,
    source: Any,
    *,
    workers: int | str | None = None,
    threads: int | None = None,
    processes: int | str | None = None,
    executor: Any = None,
    ordered: bool = True,
    max_bytes: int | str | None = None,
    timeout: float | None = None,
    worker_threads: int | None = 1,
    setup: Callable[[], Any] | None = None,
) -> Any:
    """Run what is upstream ahead of time: `ahead` finished outputs wait. What comes out does not change.

    Alone it uses one background thread; `threads=n` and `processes=n` spread the work over n of them ("auto": as many
    as this process may use CPUs), `workers=n` over processes, or over threads where Python code runs in several of
    these at once (a free-threaded interpreter without its lock), `executor=` over any `concurrent.futures.Executor`,
    which is never shut down here (those of clusters are `flowfn.interop.ray.executor()` and
    `flowfn.interop.dask.executor(client)`).
    Datapoints, their order, randomness and state are those of the pipeline without it. A stage runs in the workers of
    the first prefetch downstream of it; `explain(flow)` shows which, and what stays in this process. Functions may be
    lambdas, closures or defined in `__main__`.

    Workers do what this process would do. What a flow names in your own modules is compared with what they imported:
    after a reload, or when a global was set, they are replaced, or it is sent to them. Their directory, `os.environ`,
    `sys.path`, `sys.argv`, limits of recursion and of digits, `np.seterr`, decimal context, filters of warnings,
    `csv.field_size_limit`, default timeout of sockets and locale are those of this process when the pass began; threads
    take over context variables (`np.seterr` is one). What cannot be seen from here (torch's default dtype, flags of PIL
    or OpenCV, what is registered in codecs or plug-ins, `os.umask`, limits of resources, objects of other libraries
    that are changed in place) is for `setup`: a function that each worker process calls before anything else.
    Workers with another `setup` are other workers; what it sets stays, and what it raises is raised here. What is
    logged in worker processes reaches the handlers of this one when the task is done, unless `setup` gives them
    handlers of their own.

    Worker processes are kept warm for the next pass, and for other flows that ask for as many with as many threads; in
    a process that is a worker itself, `processes=n` are threads. Large arrays cross in
    shared memory (on Linux; elsewhere they are pickled): they may be kept and written to. A worker that dies is
    replaced, and what it was doing is done again; so user functions are called at least once for each datapoint.

    `max_bytes` (a number, or "512MB") bounds the outputs that wait, beside `ahead`. `timeout` is how many seconds an
    output may be waited for. `worker_threads` is how many threads BLAS, OpenMP and OpenCV use in each worker process
    (one, because there are several workers; None leaves it to them). With `ordered=False` outputs are given as they
    come: then there is no state to save, and no index; guarded stages and what a cache or freeze reads keep their
    order.

    Raises:
        ValueError: two of `workers`, `threads`, `processes` and `executor` are given.
        TypeError: something cannot be sent to a worker process, or back; the message names the stage.
        WorkerDied: a datapoint ended every worker that worked on it.
        TimeoutError: an output did not come within `timeout` seconds; the note names the datapoints.

    >>> import flowfn as ff
    >>> list(ff.pipe(range(5), ff.map(lambda x: x * x), ff.prefetch(2, threads=2)))
    [0, 1, 4, 9, 16]
    """
