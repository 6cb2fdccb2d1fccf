"""One thread that runs ahead: outputs wait in a queue, each with the anchors at which it was made."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowfn.failures import locate, uneven
from flowfn.runs import Anchor, Outputs

_END = object()
_alive: weakref.WeakSet[Channel] = weakref.WeakSet()


class Channel:
    """A bounded queue between the thread that makes outputs and the iterator that delivers them."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.waiting: deque[tuple[Any, dict[int, Anchor], BaseException | None]] = deque()
        self.changed = threading.Condition()
        self.closed = False
        self.thread: threading.Thread | None = None
        _alive.add(self)

    def put(self, output: Any, facts: dict[int, Anchor], error: BaseException | None = None) -> bool:
        """Wait for room and add an output; False if nobody wants it any more."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or len(self.waiting) < self.ahead)
            if not self.closed:
                self.waiting.append((output, facts, error))
                self.changed.notify_all()
            return not self.closed

    def get(self) -> tuple[Any, dict[int, Anchor], BaseException | None]:
        """Wait for the next output and take it."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting)
            taken = self.waiting.popleft()
            self.changed.notify_all()
            return taken

    def close(self) -> None:
        """Tell the thread to end, and wait until it has."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        thread = self.thread
        if thread is not None and thread is not threading.current_thread() and thread.ident is not None:
            thread.join()


def ahead_of_time(start: Callable[[], Outputs], ahead: int, seekable: bool, first: int, known: Mapping[int, Anchor]) -> Outputs:
    """What `start()` gives, made in a thread that is up to `ahead` outputs further."""
    facts: dict[int, Anchor] = dict(known)
    return Outputs(_delivered(start, ahead, seekable, facts), None, (), first, lambda: facts)


def _delivered(start: Callable[[], Outputs], ahead: int, seekable: bool, facts: dict[int, Anchor]) -> Iterator[Any]:
    channel = Channel(ahead)
    channel.thread = threading.Thread(target=_make, args=(channel, start, seekable), name="flowfn-prefetch", daemon=True)
    channel.thread.start()
    try:
        while True:
            output, told, error = channel.get()
            if output is _END:
                if error is not None:
                    raise error
                return
            facts.clear()
            facts.update(told)
            yield output
    finally:
        channel.close()


def _make(channel: Channel, start: Callable[[], Outputs], seekable: bool) -> None:
    """What the thread does. It knows the channel, never the iterator, so that an abandoned one can end it."""
    outputs: Outputs | None = None
    error: BaseException | None = None
    try:
        outputs = start()
        for output in outputs:
            if not channel.put(output, {} if seekable else outputs.facts()):
                break
        else:
            error = uneven(outputs, None, seekable)
    except BaseException as raised:  # raised again where the flow is iterated
        error = raised
        locate(error, outputs)
    try:
        if outputs is not None:
            outputs.close()
    finally:
        channel.put(_END, {}, error)


@atexit.register
def _end_all() -> None:
    for channel in list(_alive):
        channel.close()
