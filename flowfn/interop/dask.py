"""Dask: the work of a prefetch done by the workers of a Dask cluster."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from flowfn.extras import needed
from flowfn.parallel.clusters import Cluster, ClusterCall
from flowfn.parallel.workers.answering import TREES
from flowfn.parallel.workers.processes import Gone

OURS = frozenset({"pure", "key", "retries"})
"""Options of `client.submit` that are for the pass to decide."""

GONE = "the Dask cluster of {} is gone: its scheduler ended, or the client was closed; its state goes on with another"


def executor(client: Any, **options: Any) -> Cluster:
    """The cluster of a Dask client, as a `concurrent.futures.Executor` for `prefetch`.

    `client` is a `distributed.Client`; `options` are those of its `submit`: `workers`, `resources`, `priority`,
    `allow_other_workers`. As many tasks are out as there are threads in the cluster, and `ahead` datapoints more.

    A flow of up to 64 kB goes along with every task, since Dask gives tasks that need something to whoever has it;
    a larger one goes to the scheduler once, and to each worker once. Every task is one of its own: what Dask would
    take for a pure function, and do once for equal arguments, is never shared. Large arrays come back without being
    pickled, and may be kept and written to; with `Client(..., direct_to_workers=True)` they do not go by way of the
    scheduler. Tasks that nobody wants any more are not done, unless they were begun: those are finished. Dask does
    again what a worker that died had, on others (`distributed.scheduler.allowed-failures`); what it gives up is
    sent again by the pass, the datapoints one by one. So functions are called at least once for each datapoint, and
    each comes out once. A cluster that has no workers any more may get some: the pass waits, for as long as
    `timeout=` of `prefetch` says.

    Raises:
        ImportError: distributed is not installed.
        TypeError: `client` is no client, or an asynchronous one.
        ValueError: an option that is for the pass to decide.
        RuntimeError: the cluster is gone; raised by the pass.

    >>> import flowfn as ff
    >>> from distributed import Client  # doctest: +SKIP
    >>> client = Client("tcp://scheduler:8786")  # doctest: +SKIP
    >>> flow = ff.pipe(range(100), ff.map(float), ff.prefetch(8, executor=executor(client)))  # doctest: +SKIP
    """
    distributed = needed("distributed", "flowfn.interop.dask.executor()", extra="dask")
    if not isinstance(client, distributed.Client):
        raise TypeError(f"executor(): client must be a distributed.Client, got {type(client).__name__}")
    if client.asynchronous:
        raise TypeError("executor(): client must not be asynchronous; make one by Client(address)")
    if wrong := OURS & set(options):
        raise ValueError(f"executor(): {', '.join(sorted(wrong))} must be left out: every task is one of its own")
    return DaskExecutor(client, options)


class DaskExecutor(Cluster):
    """Dask's workers as an executor."""

    name = "Dask"
    relief = "give Dask's workers more memory, or fewer threads (memory_limit=, threads_per_worker=)"

    def __init__(self, client: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self.client, self.options = client, options
        self.shipped: OrderedDict[bytes, Any] = OrderedDict()
        self.address = str(client.scheduler.address)
        self.apart = not self.address.startswith("inproc")  # whose workers share memory with this process

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"executor(client{options})"

    @property
    def workers(self) -> int:
        """How many threads the workers have."""
        self.look()
        return max(1, sum(self.client.nthreads().values()))

    @property
    def where(self) -> str:
        """Where calls are done, in words."""
        return f"Dask, {self.workers} at a time" if self.client.status == "running" else "Dask, which is gone"

    @property
    def gone(self) -> RuntimeError:
        """The error where the cluster is gone."""
        return RuntimeError(GONE.format(self.address))

    def look(self) -> None:
        """Calls would wait, or fail in words of Dask."""
        if self.client.status != "running":
            raise self.gone

    def ship(self, digest: bytes, pickled: bytes) -> Any:
        """A future of Dask, which each worker fetches once. It is made by a task, since what `scatter` sent is lost
        with the workers that hold it, and with it every task that needs it."""
        self.look()
        shipped = self.shipped.get(digest)
        if shipped is None or shipped.status in ("error", "cancelled"):
            self.shipped[digest] = shipped = self.client.submit(bytes, pickled, pure=False)
            while len(self.shipped) > TREES:
                self.shipped.popitem(last=False)
        return shipped

    def begin(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> ClusterCall:
        """Hand out a call."""
        self.look()
        task = self.client.submit(function, *arguments, pure=False, **self.options, **keywords)
        call = ClusterCall(task.release)
        task.add_done_callback(partial(self.settle, weakref.ref(call)))
        return call

    def settle(self, wanted: weakref.ref[ClusterCall], task: Any) -> None:
        """Say what came of a task."""
        call = wanted()
        if call is None or call.cancelled():
            return
        try:
            call.settle(task.result())
        except BaseException as error:
            call.settle(None, self.translated(error, task.status))
        finally:
            task.release()

    def translated(self, error: BaseException, status: str) -> BaseException:
        """An error of Dask as one of ours, if it is of workers or the cluster; of a function, its own."""
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        if isinstance(error, KilledWorker):
            return Gone(True, f"KilledWorker of Dask: {error.allowed_failures + 1} of its workers each time")
        if self.client.status != "running":
            return self.gone
        unfetched = isinstance(error, CommClosedError) and status != "error"  # on its way from whoever has just ended
        return Gone(False) if unfetched or status in ("cancelled", "lost") else error
