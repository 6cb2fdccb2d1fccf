"""Ray: the work of a prefetch done by the machines of a Ray cluster, and its data sets, both ways."""

from __future__ import annotations

import importlib
import signal
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.sources import SequenceNode, Source
from flowfn.flows.sources import flow as as_flow
from flowfn.functions import around_a_pipe
from flowfn.parallel.clusters import Cluster, ClusterCall
from flowfn.parallel.tasks.background import collecting
from flowfn.parallel.workers.answering import TREES
from flowfn.parallel.workers.processes import Gone
from flowfn.showing import brief

WATCH = 1.0
"""How often, in seconds, it is looked whether Ray is still there: it tells nobody who waits that it is not."""

OURS = frozenset({"max_retries", "retry_exceptions", "num_returns"})
"""Options of tasks that are for the pass to decide."""

GONE = (
    "Ray was shut down, or never started, in this process: ray.init(...) comes first, and ray.shutdown() behind the "
    "last pass; a flow's state goes on with another cluster"
)


def executor(**options: Any) -> Cluster:
    """The cluster that `ray.init` started or connected to, as a `concurrent.futures.Executor` for `prefetch`.

    `options` are those of a remote function of Ray: `num_cpus` (1, for each task), `num_gpus`, `memory`, `resources`,
    `runtime_env`, `scheduling_strategy`, ... As many tasks are out as there is room for in the cluster, and `ahead`
    datapoints more.

    A flow of up to 64 kB goes along with every task; a larger one is put into Ray's object store once, and each worker
    process fetches it once. Large arrays come back through the object store, where they are read-only, and are copied
    out of it once: they may be kept and written to. Tasks that nobody wants any more are cancelled, unless they were
    begun: those are finished. A task whose worker or node died is done again, its datapoints one by one if it was being
    worked on; so functions are called at least once for each datapoint, and each comes out once. The workers need
    flowfn and what the flow's functions import.

    Raises:
        ImportError: Ray is not installed.
        ValueError: an option that is for the pass to decide.
        RuntimeError: Ray was shut down, or never started; raised by the pass.

    >>> import flowfn as ff
    >>> import ray  # doctest: +SKIP
    >>> ray.init()  # doctest: +SKIP
    >>> flow = ff.pipe(range(100), ff.map(float), ff.prefetch(8, executor=executor(num_cpus=1)))  # doctest: +SKIP
    """
    ray = needed("ray", "flowfn.interop.ray.executor()", extra="ray")
    if wrong := OURS & set(options):
        raise ValueError(f"executor(): {', '.join(sorted(wrong))} must be left out: the pass sends again what was lost")
    return RayExecutor(ray, options)


def from_ray(dataset: Any) -> Flow[Any]:
    """A flow of the rows of a `ray.data.Dataset`, as dicts: {column: value}, read by index.

    The data set is made when the first row is asked for, all of it, and stays in Ray's object store as long as the
    flow is there; so shuffles, shards and resuming are those of a list. Its order is that of its source, whichever of
    Ray's tasks was done first: a state that was saved loads in another program as long as the data set is made of the
    same things and draws nothing. Rows are read in the process that iterates. For what is larger than the object stores
    and disks of the cluster there is `flow(dataset.iter_rows)`, a stream.

    Raises:
        ImportError: Ray is not installed, or what its data sets need.
        TypeError: it is no data set of Ray.
        RuntimeError: Ray was shut down; raised by the pass.

    >>> import ray.data  # doctest: +SKIP
    >>> from_ray(ray.data.range(10))[3]  # doctest: +SKIP
    {'id': 3}
    """
    data = _data("from_ray()")
    from flowfn.interop.ray_rows import DatasetRows

    if not isinstance(dataset, data.Dataset):
        raise TypeError(f"from_ray(): dataset must be a ray.data.Dataset, got {brief(dataset)}")
    return Flow(Source(DatasetRows(dataset, GONE), SequenceNode, shown="from_ray(ray.data.Dataset)"))


@around_a_pipe
def to_ray(flow: Any) -> Any:
    """A `ray.data.Dataset` of a flow of dicts, for work that is done once: to label, to embed, to write.

    Its rows are the datapoints of the flow's present epoch, made by the workers of Ray whenever the data set is read:
    by several at once if the flow can be indexed, by one if not. A random function draws for each datapoint what it
    draws here. Leave out `prefetch`: Ray's workers do its work. The rows keep their order where
    `ray.data.DataContext.get_current().execution_options.preserve_order` is set.

    Raises:
        ImportError: Ray is not installed, or what its data sets need.
        ValueError: the flow is endless.
        TypeError: a datapoint is no dict with texts as keys; raised by Ray, when it is read.

    >>> import flowfn as ff
    >>> to_ray(ff.map(lambda x: {"x": x}, range(3))).take_all()  # doctest: +SKIP
    [{'x': 0}, {'x': 1}, {'x': 2}]
    """
    _data("to_ray()")
    from flowfn.interop.ray_rows import dataset_of

    source = as_flow(flow, "to_ray")
    length = source.node.length_or_none()
    if length == float("inf"):
        raise ValueError(f"to_ray(): {source} is endless; write take(n)")
    return dataset_of(source, int(length or 0) if source.seekable else None)


def _data(who: str) -> Any:
    """Ray's data sets, which need more than Ray does."""
    needed("ray", who, extra="ray")
    try:
        return importlib.import_module("ray.data")
    except ImportError as error:
        raise ImportError(f'{who} needs Ray\'s data sets: pip install "ray[data]"', name="ray.data") from error


class RayExecutor(Cluster):
    """Ray's workers as an executor."""

    name = "Ray"
    relief = "let fewer tasks share a machine: executor(num_cpus=..., memory=...)"

    def __init__(self, ray: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self.ray, self.options = ray, {"num_cpus": 1, **options}
        self.remote = ray.remote(**self.options, max_retries=0)(done)
        self.shipped: OrderedDict[bytes, Any] = OrderedDict()
        self.watching: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"executor({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"

    @property
    def workers(self) -> int:
        """How many tasks there is room for, node by node."""
        self.look()
        asked = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
        wanted = {name: self.options.get(option) for name, option in asked.items()} | self.options.get("resources", {})
        amounts = {name: amount for name, amount in wanted.items() if amount} or {"CPU": 1}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        room = (min(node.get(name, 0) / amount for name, amount in amounts.items()) for node in nodes)
        return max(1, sum(int(tasks + 1e-6) for tasks in room))

    @property
    def where(self) -> str:
        """Where calls are done, in words."""
        return f"Ray, {self.workers} at a time" if self.ray.is_initialized() else "Ray, not started"

    def look(self) -> None:
        """Ray would start a cluster of its own where it was shut down."""
        if not self.ray.is_initialized():
            raise RuntimeError(GONE)

    def ship(self, digest: bytes, pickled: bytes) -> Callable[[], bytes]:
        """What fetches it from the object store."""
        self.look()
        key = self.ray.get_runtime_context().get_job_id().encode() + digest
        if key not in self.shipped:
            self.shipped[key] = self.ray.put(pickled)
            while len(self.shipped) > TREES:
                self.shipped.popitem(last=False)
        return partial(fetched, self.shipped[key])

    def begin(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> ClusterCall:
        """Hand out a call."""
        self.look()
        task = self.remote.remote(function, *arguments, **keywords)
        call = ClusterCall(partial(self.stop, task))
        task.future().add_done_callback(partial(self.settle, weakref.ref(call)))
        if self.watching is None or not self.watching.is_alive():
            self.watching = threading.Thread(
                target=_watch, args=(self.ray, weakref.ref(self)), name="flowfn-ray", daemon=True
            )
            self.watching.start()
        return call

    def stop(self, task: Any) -> None:
        """Nobody wants a task any more. Where garbage is collected, Ray may be in the middle of something."""
        if self.ray.is_initialized() and not collecting():
            self.ray.cancel(task, force=False, recursive=False)

    def settle(self, wanted: weakref.ref[ClusterCall], came: Any) -> None:
        """Say what came of a task."""
        call = wanted()
        if call is None or call.cancelled():
            return
        error = came.exception()
        if error is None:
            call.settle(came.result())
        else:
            call.settle(None, self.translated(error))

    def translated(self, error: BaseException) -> BaseException:
        """An error of Ray as one of ours, if it is of a worker; of a function, its own."""
        known = self.ray.exceptions
        if isinstance(error, known.RayTaskError):
            return error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(error, known.OutOfMemoryError):
            return Gone(True, "SIGKILL by Ray, whose node ran out of memory")
        if isinstance(error, known.NodeDiedError):
            return Gone(True, "SIGKILL, or its node died")
        if isinstance(error, known.WorkerCrashedError):
            return Gone(True)
        if isinstance(error, (known.ObjectLostError, known.LocalRayletDiedError)):  # the node that held it, later
            return Gone(False)
        return error


def done(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """A call in a worker of Ray, which would interrupt what was begun and is cancelled."""
    if threading.current_thread() is not threading.main_thread():
        return function(*arguments, **keywords)
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return function(*arguments, **keywords)
    finally:
        signal.signal(signal.SIGINT, former)


def fetched(reference: Any) -> bytes:
    """Bytes out of the object store."""
    import ray

    return ray.get(reference)


def _watch(ray: Any, own: weakref.ref[RayExecutor]) -> None:
    """Tell those who wait for calls that Ray is not there any more."""
    while True:
        time.sleep(WATCH)
        executor = own()
        if executor is None:
            return
        calls = executor.unfinished()
        if calls and not ray.is_initialized():
            executor.lose(GONE)
        if not calls:
            with executor.lock:
                if all(call.done() for call in list(executor.calls)):
                    executor.watching = None
                    return
        del executor, calls
