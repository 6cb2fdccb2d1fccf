"""An interrupt (Ctrl-C) that comes while something is half done waits until it is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Deferred:
    """In `with`: what SIGINT does here it does when this has ended.
    Elsewhere than in the main thread there are no interrupts."""

    __slots__ = ("caught", "handler")

    def __enter__(self) -> None:
        self.caught: list[tuple[int, FrameType | None]] = []
        self.handler: Any = None
        if threading.get_ident() == threading.main_thread().ident:
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):  # otherwise no code of Python's runs
                self.handler = handler
                signal.signal(signal.SIGINT, self._catch)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught.append((number, frame))

    def __exit__(self, *_: object) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGINT, self.handler)
            for caught in self.caught[:1]:
                self.handler(*caught)
