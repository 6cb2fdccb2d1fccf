"""Executors over machines: what a pass may ask of them beside `submit`.

    ship(digest, pickled)  ->  what goes along with a task in the place of a tree; each worker fetches it once
    workers                    how many tasks are done at a time
    where                      in words, for explain

A call whose worker ended is an error of its future, `Gone`, and the pass sends it again; so whoever writes such an
executor switches off what its engine would do itself about errors of functions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from typing import Any
from weakref import WeakSet

from flowfn.process import forks


class ClusterCall(Future[Any]):
    """What comes of a call. One that nobody wants any more is not done, unless it has been begun: then it is finished,
    and nobody is told."""

    def __init__(self, stop: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.stop = stop

    def cancel(self) -> bool:
        """Nobody wants it any more; False if it is over."""
        before = self.cancelled()
        over = not super().cancel()
        if not before and not over:
            self.set_running_or_notify_cancel()
            if self.stop is not None:
                self.stop()
        return not over

    def settle(self, result: Any, error: BaseException | None = None) -> None:
        """Say what came of it, if somebody wants it and it has not been said."""
        with contextlib.suppress(InvalidStateError):
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(result)
        self.stop = None


class Cluster(Executor):
    """An executor whose calls are done on other machines. Shutting it down leaves the machines as they are."""

    name = "a cluster"
    relief = "give each worker more memory"
    """What helps where a datapoint needs more memory than a worker has."""
    apart = True
    """Whether large arrays travel as they are and come as what is nobody else's: then no pickle holds them."""

    def __init__(self) -> None:
        self.calls: WeakSet[ClusterCall] = WeakSet()
        self.lock, self.closed = forks.lock(), False

    @property
    def workers(self) -> int:
        """How many calls are done at a time."""
        return 1

    @property
    def where(self) -> str:
        """Where calls are done, in words."""
        return f"{self.name}, {self.workers} at a time"

    def ship(self, digest: bytes, pickled: bytes) -> Any:
        """What to give to a call in the place of bytes that every worker needs: they, or what fetches them."""
        return pickled

    def begin(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> ClusterCall:
        """Hand out a call."""
        raise TypeError(f"{type(self).__name__} has no way to hand out calls")

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> ClusterCall:
        """Have `function(*arguments, **keywords)` done."""
        with self.lock:
            if self.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            call = self.begin(function, arguments, keywords)
            self.calls.add(call)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. The cluster goes on; who made it ends it."""
        with self.lock:
            self.closed = True
        calls = self.unfinished()
        for call in calls if cancel_futures else ():
            call.cancel()
        for call in calls if wait else ():
            with contextlib.suppress(CancelledError):
                call.exception()

    def unfinished(self) -> list[ClusterCall]:
        """The calls that are out."""
        with self.lock:
            return [call for call in list(self.calls) if not call.done()]

    def lose(self, why: str) -> None:
        """The cluster is gone: nothing comes of what is out."""
        for call in self.unfinished():
            call.settle(None, RuntimeError(why))
