"""`connect`: what a server gives, as a source of flows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from more_itertools import consume

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.sources import LiveNode, Source
from flowfn.kinds.runs import Run
from flowfn.serving.addresses import ADDRESS, KEY, check_key
from flowfn.serving.connection import Connection, Servers
from flowfn.showing import as_called, brief

WAIT = 0.1
"""Seconds after which one who waits looks whether anybody still wants what comes."""

_ADDRESSES = rules.Rule(
    "an address or a list of some",
    lambda value: isinstance(value, (str, list, tuple)),
    lambda value, others: (
        len(value) > 0
        and all(
            ADDRESS.fits_type(one) and ADDRESS.fits(one, others)
            for one in ([value] if isinstance(value, str) else value)
        )
    ),
    ADDRESS.hint,
)


@rules.checked(
    address=_ADDRESSES,
    key=KEY,
    ahead=rules.positive,
    timeout=rules.optional(rules.seconds),
    pickle=rules.boolean,
)
def connect(
    address: Any,
    *,
    key: str | None = None,
    ahead: int = 2,
    timeout: float | None = None,
    pickle: bool = False,
) -> Flow[Any]:
    """A flow of what is served at an address: `serve` says who gets what of it.

    A pass in epoch e reads epoch e of the served flow, whose own seed it runs under. `ahead` datapoints are on their
    way while one is worked on. Who waits can be interrupted; `timeout` is how many seconds to wait for a datapoint.
    Servers that are not there yet, or come back, are waited for.

    From a server in mode "broadcast" a pass is the same each time, and resumes from a state at the very datapoint.
    From one in mode "queue" it is whatever comes; one that goes on from a state gets what is left, and counts on.
    A datapoint is acknowledged when the next one is asked for, or the pass is closed; behind a `prefetch` that is
    earlier than it is used. With several addresses datapoints come from each in turn, or from "queue" servers as they
    come. Arrays are the consumer's own to write to.

    It is read in the process that iterates. With `pickle=True` what comes is unpickled: whoever sends it can run any
    code here.

    Raises:
        TimeoutError: no datapoint came in time.
        ConnectionError: the server refuses this consumer, or speaks another version.
        RuntimeError: the flow that is served has failed.
        ValueError: an address of another machine without a key; a datapoint that is pickled.
        ImportError: pyzmq is missing.

    >>> connect("ipc:///tmp/data", timeout=5)
    connect('ipc:///tmp/data', timeout=5)
    """
    addresses = [address] if isinstance(address, str) else [*address]
    for one in addresses:
        check_key("connect", one, key)
    words = {"timeout": brief(timeout)} if timeout is not None else {}
    shown = as_called("connect", brief(address), **words)
    return Flow(Source(Servers(addresses, key, ahead, timeout, pickle), ServedNode, name="connect", shown=shown))


class ServedNode(LiveNode):
    """What is served elsewhere, read in the process that iterates."""

    def opened(self, run: Run, start: int) -> Iterator[Any]:
        """Its datapoints from `start` on."""
        epoch = run.epoch[0] if len(run.epoch) == 1 else _number_of(run.epoch)
        alone = len(self.part.object.addresses) == 1
        with contextlib.closing(_Reader(self.part.object, epoch, start if alone else 0)) as reader:
            items = reader.items()
            consume(items, 0 if alone or reader.queued() else start)
            yield from items


def _number_of(epoch: tuple[int, ...]) -> int:
    """A number for a round of an epoch, that others find too."""
    return int.from_bytes(blake2b(repr(epoch).encode(), digest_size=7).digest(), "big")


class _Reader:
    """One pass over what one or several servers give."""

    def __init__(self, servers: Servers, epoch: int, start: int) -> None:
        zmq = self.zmq = needed("zmq", "connect()", extra="zmq")
        self.timeout = servers.timeout
        self.context = zmq.Context()
        self.poller = zmq.Poller()
        self.links: list[Connection] = []
        try:
            for address in servers.addresses:
                self.links.append(Connection(self.context, address, servers, epoch, start))
                self.poller.register(self.links[-1].socket, zmq.POLLIN)
        except BaseException:
            self.context.destroy(0)
            raise
        self.turn = 0

    def queued(self) -> bool:
        """Whether datapoints come from whoever has some."""
        self.wait(lambda: all(link.mode or link.failed for link in self.links))
        for link in self.links:
            if not link.mode:
                link.check()
        return all(link.mode == "queue" for link in self.links)

    def items(self) -> Iterator[Any]:
        """All that comes."""
        in_turn = len(self.links) > 1 and not self.queued()
        left = [*self.links]
        while left:
            self.wait(lambda: left[0].ready if in_turn else any(link.ready for link in left))
            link = next(link for link in left if link.ready)
            left.remove(link)
            if not link.inbox:
                if not link.over:
                    link.check()
                continue
            left.append(link)
            yield link.inbox.popleft()
            link.delivered()

    def wait(self, holds: Any) -> None:
        """Hear what comes until something holds."""
        began = time.monotonic()
        self.hear(0)
        while not holds():
            if self.timeout is not None and time.monotonic() - began > self.timeout:
                raise TimeoutError(
                    f"connect(): no datapoint came within {self.timeout:g} s from "
                    f"{', '.join(link.address for link in self.links)}; is the server there, and are all its consumers?"
                )
            wanted = getattr(threading.current_thread(), "wanted", None)
            if wanted is not None and not wanted():
                raise GeneratorExit  # as if the generators downstream were closed
            self.hear(WAIT)

    def hear(self, seconds: float) -> None:
        """What came, or comes within some seconds; who heard nothing asks again."""
        heard = {socket for socket, _ in self.poller.poll(int(seconds * 1000))}
        for link in self.links:
            if link.socket in heard:
                link.receive(self.zmq)
            link.ask_again()

    def close(self) -> None:
        """Say goodbye."""
        for link in self.links:
            link.leave()
            link.socket.close(200)  # a context that is garbage has forgotten its sockets, and waits for them
        self.context.destroy(200)
