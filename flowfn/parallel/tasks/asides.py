"""What workers say beside what they were asked for: log records, how long their stages took.

Whoever has something to say in a worker process registers a function that returns it; what all of them return goes back
with the reply to a task, and is told in the process that iterates: each aside is asked to `arrive()` there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Aside(Protocol):
    """Something that was said in a worker, and is told in the process that iterates. It pickles."""

    def arrive(self) -> Any: ...


_speakers: dict[Any, Callable[[], Aside | None]] = {}


def has_to_say(key: Any, says: Callable[[], Aside | None]) -> None:
    """From now on ask `says`, when a task is done in this process, whether there is anything to say."""
    _speakers[key] = says


def hush(key: Any) -> None:
    """Ask no more."""
    _speakers.pop(key, None)


def said() -> Sequence[Aside]:
    """What there is to say now."""
    if not _speakers:
        return ()
    return [aside for says in list(_speakers.values()) if (aside := says()) is not None]
