"""What is logged in workers: records go to the process that iterates, whose handlers they reach.

A worker has no handlers, unless a `setup` of the user gives it some, which then do what they are for. Records that no
handler in the worker takes go back with the reply to the task; levels are those of the process that iterates.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

from flowfn.parallel.tasks import asides

MOST_RECORDS = 1000
"""How many records of a task are kept: the newest."""


@dataclass(frozen=True)
class LogRecords:
    """Records on their way."""

    records: list[logging.LogRecord]

    def arrive(self) -> None:
        """Hand them to the handlers of this process."""
        for record in self.records:
            logging.getLogger(record.name).handle(record)


class Forwarding(logging.Handler):
    """Takes what nobody else takes in this process, to be handled where the flow is iterated."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records: deque[logging.LogRecord] = deque(maxlen=MOST_RECORDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record in a form that can travel: its message in words, its traceback as text."""
        sent = copy.copy(record)
        sent.msg, sent.args = record.getMessage(), None
        if record.exc_info:
            sent.exc_text = sent.exc_text or logging.Formatter().formatException(record.exc_info)
            sent.exc_info = None
        plain = {name: value for name, value in vars(sent).items() if _goes_as_is(value)}
        vars(sent).clear()
        vars(sent).update(plain)
        self.records.append(sent)

    def taken(self) -> LogRecords | None:
        """Those that came since."""
        return LogRecords([self.records.popleft() for _ in range(len(self.records))]) if self.records else None


def _goes_as_is(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def forward() -> None:
    """From now on send what nobody handles in this process to the one that iterates."""
    if not isinstance(logging.lastResort, Forwarding):
        handler = Forwarding()
        logging.lastResort = handler
        asides.has_to_say("logs", handler.taken)
