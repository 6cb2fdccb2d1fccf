"""One stream dealt out to several who take it in at the same time, each in a thread:
the one who deals waits for the slowest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import Any

from more_itertools import consume

from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow as as_flow

AHEAD = 16
"""How many datapoints wait for each at most."""
POLL_SECONDS = 0.1
"""Seconds after which one who waits for a datapoint, or for room, looks whether all is well with the others."""

_END = object()


class Abandoned(Exception):
    """What ends those who take in because something else has failed."""


class Dealer:
    """Deals the datapoints of one pass out: `take(number, flow)` is called for each of the numbers,
    in a thread of its own."""

    def __init__(self, take: Callable[[int, Flow[Any]], None], numbers: Sequence[int]) -> None:
        self.take, self.queues = take, {number: Queue[Any](AHEAD) for number in numbers}
        self.failed = threading.Event()
        self.futures: list[Future[None]] = []

    def deal(self, datapoints: Iterator[Any], world: int) -> None:
        """Give datapoint i to number i % world, if there is one.

        Raises:
            Exception: what the datapoints, or else the first that failed, raised. The others end too, by `Abandoned`.
        """
        with ThreadPoolExecutor(len(self.queues), "dealt") as threads:
            self.futures = [threads.submit(self._take, number) for number in self.queues]
            try:
                for number, datapoint in enumerate(datapoints):
                    if number % world in self.queues and not self._put(number % world, datapoint):
                        break
                for number in self.queues:
                    self._put(number, _END)
            except BaseException:
                self.failed.set()
                raise
        errors = [error for future in self.futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, Abandoned)):
            raise error

    def _put(self, number: int, item: Any) -> bool:
        """Hand something over, as soon as there is room; whether all is well."""
        while not self.failed.is_set():
            try:
                self.queues[number].put(item, timeout=POLL_SECONDS)
                return True
            except Full:
                continue
        return False

    def _take(self, number: int) -> None:
        hand = DealtFlow(self, number)
        try:
            self.take(number, as_flow(hand))
        except BaseException:
            self.failed.set()
            raise
        consume(hand)  # one who does not want all of them must not hold up the others


class DealtFlow:
    """The datapoints of one of them, as they are dealt; they can be read once."""

    def __init__(self, dealer: Dealer, number: int) -> None:
        self.dealer, self.queue, self.ended = dealer, dealer.queues[number], False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while not self.ended:
            try:
                item = self.queue.get(timeout=POLL_SECONDS)
            except Empty:
                if self.dealer.failed.is_set():
                    raise Abandoned("another file could not be written") from None
                continue
            if item is not _END:
                return item
            self.ended = True
        raise StopIteration
