"""The workers: processes that are kept warm, each with a loky executor of its own.

    submit --> waiting: [job, job, ...] --> worker 0: [running, next]
                                        --> worker 1: [running]

A job goes to the first worker that has room, and short jobs go one ahead, so that a worker need not wait for this
process between two of them. Since every worker is alone in its executor, one that dies takes along what it had, and
nothing else; who was at work on what is known; and a job may ask for the worker that did an earlier one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
import os
import random
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

from flowfn.parallel.crossing import slots
from flowfn.parallel.tasks import surroundings
from flowfn.parallel.tasks.background import collecting
from flowfn.parallel.tasks.task import REMEMBERED
from flowfn.parallel.workers.deaths import ends, status, tries, wait_before, why
from flowfn.parallel.workers.logs import forward
from flowfn.parallel.workers.program import Packed, Prepared, SetupFailed
from flowfn.parallel.workers.program import first as set_up
from flowfn.parallel.workers.starting import look_for_memory, possible
from flowfn.process import forks
from flowfn.process.interrupts import Deferred

IDLE = 300.0
"""Seconds after which an idle worker ends; it is started again when it is wanted."""

SURE = 0.8
"""For what part of that an idle worker is given jobs: later it may be about to end."""

PARENT_WATCH = 0.5
"""How often, in seconds, a worker looks whether the process that it works for is still there."""

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""What libraries ask for the number of their threads."""

MALLOC_OPTIONS = {"MALLOC_TRIM_THRESHOLD_": 1 << 27, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
"""Up to which size glibc keeps free memory, and makes arrays in it: what a task frees, the next one needs,
and fresh pages are slow."""

HASHES = str(random.SystemRandom().randrange(1, 1 << 32))
"""What workers hash text by, so that all of them put it in the same places;
what this process hashes by nobody can ask."""

GROWTH = str(4 << 30)
"""Bytes by which a worker may grow before loky replaces it; the shared memory that it has seen is part of that."""


_is_worker = False  # whether this process is a worker


def inside_worker() -> bool:
    """Whether this process is a worker, or may have no children as torch's may not: it prefetches by threads."""
    return _is_worker or bool(multiprocessing.current_process().daemon)


class Gone(Exception):
    """The worker that had a job has ended. `guilty` says whether it was at work on this one."""

    def __init__(self, guilty: bool, how: str = "") -> None:
        super().__init__(guilty, how)
        self.guilty, self.how = guilty, how


class Job:
    """A call that waits for a worker, or has one."""

    __slots__ = ("arguments", "call", "executor", "future", "short", "since", "spared", "tree", "worker")

    def __init__(
        self, call: Callable[..., Any], arguments: tuple[Any, ...], tree: Packed | None, short: bool, worker: int | None
    ) -> None:
        self.call, self.arguments, self.tree, self.short, self.worker = call, arguments, tree, short, worker
        self.future: Future[Any] = Future()
        self.executor: Any = None
        self.since: float | None = None  # when its worker was ready for it
        self.spared = False  # whether its worker ended while it waited there for its turn


class Worker:
    """One process, what it does, and what it does next."""

    def __init__(self, number: int, environment: dict[str, str], setup: Prepared | None) -> None:
        self.number, self.environment, self.setup = number, environment, setup
        self.jobs: deque[Job] = deque()
        self.executor: Any = None
        self.ready = False  # whether it has begun to work
        self.rests = 0.0  # since when it has had nothing to do
        self.stillborn = 0  # how often in a row it ended before it had
        self.due = 0.0  # when it may be started again
        self.prepared: Future[Any] = Future()  # the newest of what it does before its tasks
        self.knows: deque[bytes] = deque(maxlen=REMEMBERED)  # the newest trees that were sent there

    def has_room(self, job: Job) -> bool:
        """Whether a job can go there: to a worker that has nothing to do, or behind one that is as short."""
        if job.worker not in (None, self.number) or time.monotonic() < self.due:
            return False
        return not self.jobs or (len(self.jobs) == 1 and job.short and self.jobs[0].short)

    @property
    def stale(self) -> bool:
        """Whether it has had nothing to do for so long that it may be about to end."""
        return not self.jobs and time.monotonic() > self.rests + SURE * IDLE

    @property
    def starting(self) -> bool:
        """Whether it has been started, or will be, and is not ready."""
        return not self.ready and (bool(self.jobs) or time.monotonic() < self.due)

    def begin(self, job: Job) -> Future[Any]:
        """Hand a job to the process, which is started if there is none, or none any more."""
        from loky.process_executor import BrokenProcessPool, ShutdownExecutorError

        if self.executor is not None and self.stale:
            _ending(self.executor)
            self.executor = None
        while True:
            if self.executor is None:
                self.start()
            job.executor, job.worker = self.executor, self.number
            try:
                begun: Future[Any] = self.executor.submit(job.call, *self._taught(job.tree), *job.arguments)
            except (BrokenProcessPool, ShutdownExecutorError):
                self.executor = None
            except OSError:  # it has ended, and loky cannot start it again (see below)
                _ending(self.executor)
                self.executor = None
            else:
                self.jobs.append(job)
                self.prepared.add_done_callback(partial(_prepared, job))
                return begun

    def start(self) -> None:
        """A new process, of which nothing is known.

        This process lets go of the ends of its pipes that only the worker needs. Otherwise who reads the results of a
        worker that was killed while it wrote one would wait for the rest for ever, and so would who writes to it. It
        does so before loky's thread is there, which closes them as well when the worker ends: a number that is closed
        twice may be somebody else's.
        """
        from loky import ProcessPoolExecutor, process_executor

        arguments = forks.process, tuple(self.environment)
        environment = {"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", HASHES), **self.environment}
        with possible():
            executor: Any = ProcessPoolExecutor(
                1, timeout=IDLE, initializer=_initialize_worker, initargs=arguments, env=environment
            )
            executor._call_queue._ignore_epipe = True
            executor._adjust_process_count()
        (executor.process,) = executor._processes.values()
        executor._result_queue._writer.close()
        executor._call_queue._reader.close()
        self.executor, self.ready, self.rests = executor, False, time.monotonic()
        self.knows.clear()
        self.prepared = executor.submit(ready, self.setup.pickled if self.setup else b"")
        self.prepared.add_done_callback(partial(_started, weakref.ref(self), weakref.ref(executor)))
        if process_executor.process_pool_executor_at_exit is None:  # it has registered its own, once; loky forgets that
            process_executor.process_pool_executor_at_exit = process_executor._python_exit
            threading._register_atexit(_end_workers)  # type: ignore[attr-defined]  # behind that, and so called before it

    def started(self, begun: Future[Any]) -> None:
        """Its process has begun to work, or has ended before."""
        self.ready = not begun.cancelled() and begun.exception() is None
        self.stillborn = 0 if self.ready else self.stillborn + 1
        self.due = time.monotonic() + wait_before(self.stillborn)

    def never_begins(self, how: str) -> RuntimeError:
        """The error when it has been tried often enough; the next one who wants it may try again."""
        tried, self.stillborn = self.stillborn, 0
        by = f" ({how})" if how else ""
        return RuntimeError(
            f"prefetch(): worker processes ended before they began to work{by}, {tried} times in a row; {why(how)}. "
            "Use fewer processes=, or threads="
        )

    def _taught(self, tree: Packed | None) -> tuple[Any, ...]:
        """What goes in front of a job's arguments: nothing, or the digest of the tree,
        told before to who may not know it."""
        if tree is None:
            return ()
        digest, pickled, _ = tree
        if digest in self.knows:
            self.knows.remove(digest)
        else:
            self.prepared = self.executor.submit(learn, digest, pickled)
        self.knows.append(digest)
        return (digest,)


class Workers:
    """So many workers, and the jobs that wait for them."""

    def __init__(self, count: int, threads: int | None, setup: Prepared | None = None) -> None:
        environment = {} if threads is None else dict.fromkeys(THREADS, str(threads))
        environment |= {name: os.environ.get(name, str(size)) for name, size in MALLOC_OPTIONS.items()}
        self.workers = [
            Worker(number, {**environment, "LOKY_MAX_MEMORY_LEAK_SIZE": GROWTH}, setup) for number in range(count)
        ]
        self.waiting: deque[Job] = deque()
        self.untold: deque[tuple[int, Callable[[], Any]]] = deque()
        self.closed = False
        self.timer: threading.Timer | None = None  # when jobs wait for workers that may not be started yet
        self.lock = forks.lock()  # a job may be done before it has been handed over
        _living().add(self)

    def submit(
        self,
        call: Callable[..., Any],
        *arguments: Any,
        tree: Packed | None = None,
        short: bool = False,
        worker: int | None = None,
    ) -> Job:
        """Have `call(*arguments)` done, by a certain worker if one is named.

        The digest of a `tree` goes in front of the arguments; a worker that may not know it is told before.
        """
        job = Job(call, arguments, tree, short, worker)
        self._tell()
        with Deferred(), self.lock:
            if self.closed or _main_ended:  # it is sent again, to the workers that there are then
                _resolve(job.future, None, RuntimeError(_OVER) if _main_ended else Gone(False))
            else:
                self.waiting.append(job)
                self._assign()
        return job

    def tell(self, worker: int, call: Callable[..., Any], *arguments: Any) -> None:
        """Have something done by a worker, if it is there, and do not ask what came of it."""
        self.untold.append((worker, partial(call, *arguments)))
        if not collecting():  # loky may be waiting for this thread; the next job tells it
            self._tell()

    def _tell(self) -> None:
        while True:
            try:
                worker, call = self.untold.popleft()
            except IndexError:
                return
            executor = self.workers[worker].executor
            if executor is not None and not self.workers[worker].stale:
                with (
                    Deferred(),
                    self.lock,
                    contextlib.suppress(RuntimeError, OSError),
                ):  # it has ended, or been shut down, and what it knew with it
                    executor.submit(call)

    def forget(self, worker: int | None) -> None:
        """A worker does not know what it was thought to know."""
        with self.lock:
            if worker is not None:
                self.workers[worker].knows.clear()

    def renew(self, job: Job) -> None:
        """Let the process that did a job be followed by a new one, unless it has been."""
        with self.lock:
            worker = self.workers[job.worker]  # type: ignore[index]
            if worker.executor is not None and worker.executor is job.executor:
                worker.executor = None
                _ending(job.executor)

    def end(self, job: Job) -> None:
        """End the worker that is at a job, if one is."""
        if job.executor is not None and not job.future.done():
            _shut_down(job.executor)

    def close(self) -> None:
        """End all workers, and what they do."""
        with Deferred():
            with self.lock:
                executors = [worker.executor for worker in self.workers if worker.executor is not None]
                waiting, self.waiting, self.closed = self.waiting, deque(), True
                self._wake()
            for job in waiting:
                _resolve(job.future, None, Gone(False, "the workers were shut down"))
            threads = [_ending(executor) for executor in executors]
        for thread in threads:
            if thread.ident is not None:
                thread.join()

    def _assign(self) -> None:
        """Give every job that can begin to the worker that has the least to do."""
        self._begin_all()
        self._wake()

    def _wake(self) -> None:
        """Look again when a worker may be started for which jobs wait, if some do."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        later = [worker.due for worker in self.workers if worker.due > time.monotonic()]
        if self.waiting and later:
            self.timer = threading.Timer(max(min(later) - time.monotonic(), 0), self._due)
            self.timer.daemon = True
            self.timer.start()

    def _due(self) -> None:
        with self.lock:
            self._assign()

    def _begin_all(self) -> None:
        for job in list(self.waiting):
            able = [worker for worker in self.workers if worker.has_room(job)]
            if not able and job.worker is None:
                return
            if able:
                self.waiting.remove(job)
                if job.future.set_running_or_notify_cancel():
                    self._begin(job, min(able, key=lambda worker: len(worker.jobs)))

    def _begin(self, job: Job, worker: Worker) -> None:
        try:
            begun = worker.begin(job)
        except Exception as error:  # no process can be started, or no more tasks be sent: the interpreter ends
            _resolve(job.future, None, error)
        else:
            begun.add_done_callback(partial(self._done, job))

    def _done(self, job: Job, inner: Future[Any]) -> None:
        from loky.process_executor import BrokenProcessPool, ShutdownExecutorError

        result, error = None, CancelledError() if inner.cancelled() else inner.exception()
        if error is None:
            result = inner.result()
        ended = status(job.executor.process) if isinstance(error, BrokenProcessPool) else None
        with self.lock:
            jobs = self.workers[job.worker].jobs  # type: ignore[index]
            if isinstance(error, (BrokenProcessPool, ShutdownExecutorError, CancelledError)):
                worker = self.workers[job.worker]  # type: ignore[index]
                guilty = isinstance(error, BrokenProcessPool) and jobs[0] is job and not job.spared and worker.ready
                how = ends(error, ended)
                error = Gone(guilty, how) if worker.stillborn < tries(how) + 2 else worker.never_begins(how)
                for other in jobs:
                    other.spared = other.spared or other.executor is job.executor
            jobs.remove(job)
            self.workers[job.worker].rests = time.monotonic()  # type: ignore[index]
        _resolve(job.future, result, error)
        with self.lock:
            self._assign()


_living: forks.Own[weakref.WeakSet[Workers]] = forks.Own(weakref.WeakSet)
_main_ended = False  # whether the main thread has

_OVER = (
    "prefetch(): the main thread of the program has ended, and the worker processes with it; "
    "let it wait for the threads that iterate (thread.join()), or prefetch with threads="
)


def _end_workers() -> None:
    """The main thread has ended: no worker is waited for, whatever it does, and none is started."""
    global _main_ended
    _main_ended = True
    for workers in list(_living()):
        workers.close()


def _ending(executor: Any) -> threading.Thread:
    """A thread that ends an executor, and waits until it has ended:
    what loky does in the meantime finds all that it needs."""
    thread = threading.Thread(target=_shut_down, args=(executor,), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter ends, and starts no more threads
        thread.run()
    return thread


def _shut_down(executor: Any) -> None:
    if not os.path.exists("/proc/self") and os.name == "posix":  # loky does not find what it is to end
        for process in list(executor._processes.values()):
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
    feeder = getattr(executor._call_queue, "_thread", None)  # loky does not wait for it where the queue was made here
    executor.shutdown(wait=True, kill_workers=True)
    if feeder is not None:  # it may be the last to hold semaphores, and has to tell their tracker of their end
        feeder.join(1)


def _started(worker: weakref.ref[Worker], executor: weakref.ref[Any], begun: Future[Any]) -> None:
    """Tell a worker of its process, if that is still its own. Who holds the future holds neither:
    nothing has to be collected."""
    started = worker()
    if started is not None and started.executor is not None and started.executor is executor():
        started.started(begun)


def _prepared(job: Job, _: Future[Any]) -> None:
    job.since = time.monotonic()


def since_ready() -> float | None:
    """When the last of the workers that have something to do was ready for it; None if one is not yet."""
    waited = [job.since for workers in list(_living()) for worker in workers.workers for job in list(worker.jobs)]
    waiting = any(workers.waiting and any(worker.starting for worker in workers.workers) for workers in list(_living()))
    return None if waiting or None in waited else max(waited, default=0.0)  # type: ignore[type-var]


def _resolve(future: Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def ready(setup: bytes = b"") -> None:
    """Import what tasks need, and call what is to be called first; if that fails, the first task says so."""
    import flowfn.parallel.workers.answering  # noqa: F401

    with contextlib.suppress(SetupFailed):
        set_up(setup)


def learn(digest: bytes, pickled: bytes) -> None:
    """Find out what a tree is, before the first task of it."""
    from flowfn.parallel.workers.answering import learn_tree

    learn_tree(digest, pickled)


def _initialize_worker(parent: int, variables: tuple[str, ...]) -> None:
    """What a worker does first. Ctrl-C is for the process that iterates; when that has gone, so does the worker."""
    global _is_worker
    _is_worker = True
    forward()
    surroundings.keep(variables)
    look_for_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "getppid") and os.name == "posix":
        threading.Thread(target=_end_with, args=(parent,), name="flowfn-parent", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_WATCH)
        slots.tidy()
    os._exit(0)
