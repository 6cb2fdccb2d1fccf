"""`connect`: what a server gives, as a source of flows."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from more_itertools import consume

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.sources import LiveNode, Source
from flowfn.kinds.runs import Run
from flowfn.serving.addresses import ADDRESS, KEY, check_key, encrypt, is_local, watch
from flowfn.serving.memory import is_shared, open_block
from flowfn.serving.messages import Malformed, packed, read, unpacked
from flowfn.showing import as_called, brief

WAIT = 0.1
"""Seconds after which one who waits looks whether anybody still wants what comes."""
FIRST_RETRY, LAST_RETRY = 0.5, 4.0
"""Seconds after which one who got nothing asks again, at first and at last."""
LARGEST = 1 << 32
"""Bytes of one buffer at most."""

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


@dataclass(frozen=True, slots=True)
class Servers:
    """Where to read, and how."""

    addresses: list[str]
    key: str | None
    ahead: int
    timeout: float | None
    pickled: bool


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
        self.links: list[_Link] = []
        try:
            for address in servers.addresses:
                self.links.append(_Link(self.context, address, servers, epoch, start))
                self.poller.register(self.links[-1].socket, zmq.POLLIN)
        except BaseException:
            self.context.destroy(0)
            raise
        self.turn = 0

    def queued(self) -> bool:
        """Whether datapoints come from whoever has some."""
        self.wait(lambda: all(link.mode for link in self.links))
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


class _Link:
    """The connection to one server, and how far it is: `have` items came, `done` of them are done with."""

    def __init__(self, context: Any, address: str, servers: Servers, epoch: int, start: int) -> None:
        zmq: Any = needed("zmq", "connect()", extra="zmq")
        self.address, self.epoch, self.have, self.done = address, epoch, start, start
        self.pickled, self.credit = servers.pickled, servers.ahead + 1
        self.mode, self.shares, self.over = "", False, False
        self.inbox: deque[Any] = deque()
        self.views: dict[int, weakref.ref[Any]] = {}
        self.rejected = 0
        socket = self.socket = context.socket(zmq.DEALER)
        socket.ipv6 = "[" in address
        socket.linger = 200
        socket.maxmsgsize = LARGEST
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
        watch(socket)
        socket.identity = secrets.token_bytes(16).replace(b"\0", b"\1")
        if servers.key is not None:
            encrypt(socket, servers.key, "connect", False)
        socket.connect(address)
        self.join()

    @property
    def ready(self) -> bool:
        """Whether it has something, or will never have."""
        return bool(self.inbox) or self.over

    def say(self, kind: str, **fields: Any) -> None:
        """Tell the server; if it cannot be told now, it will be asked again."""
        self.asked = time.monotonic()
        with contextlib.suppress(Exception):  # the queue to a server that is away is full
            self.socket.send_multipart(packed(kind, session=self.session, **fields), 1)

    def join(self) -> None:
        """Begin, or begin again with one who does not know us any more."""
        self.session, self.welcome, self.retry = secrets.token_hex(8), False, FIRST_RETRY
        self.views.clear()
        if self.mode == "queue":  # what is here and was not given on is given to somebody
            self.inbox.clear()
            self.have = self.done = 0
        self.say("hello", epoch=self.epoch, start=self.have)

    def ask(self, again: bool = False) -> None:
        """Say how far we are, and ask for more."""
        dead = [number for number, view in [*self.views.items()] if view() is None][:200]
        self.say("want", have=self.have, done=self.done, credit=self.credit, again=again, shares=self.shares, free=dead)
        for number in dead:
            del self.views[number]

    def ask_again(self) -> None:
        """If nothing came for long, what was said may be lost, or what was answered."""
        if not self.ready and time.monotonic() - self.asked > self.retry:
            self.retry = min(2 * self.retry, LAST_RETRY)
            if self.welcome:
                self.ask(again=True)
            else:
                self.say("hello", epoch=self.epoch, start=self.have)

    def delivered(self) -> None:
        """The oldest item is done with."""
        if self.have > self.done:  # otherwise the server has forgotten that it gave it
            self.done += 1
            self.ask()

    def receive(self, zmq: Any) -> None:
        """Hear everything that came."""
        with contextlib.suppress(zmq.Again):
            while True:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
                try:
                    header, buffers = unpacked([frame.buffer for frame in frames], session=str, number=int, mode=str)
                except Malformed as error:
                    self.rejected += 1
                    if "speaks" in str(error):
                        raise ConnectionError(f"connect(): {self.address}: {error}") from error
                    continue
                self.handle(header, buffers)

    def handle(self, header: dict[str, Any], buffers: Any) -> None:
        """One message."""
        kind = header["kind"]
        if kind == "refused":
            raise ConnectionError(f"connect(): {self.address} refuses this consumer: {header.get('reason')}")
        if kind == "error":
            raise RuntimeError(f"connect(): the flow that is served at {self.address} failed: {header.get('text')}")
        if header.get("session") != self.session:
            return
        if kind == "who":
            self.join()
        elif kind == "welcome" and not self.welcome:
            self.welcome, self.mode, self.retry = True, header.get("mode", "queue"), FIRST_RETRY
            if self.mode == "queue":
                self.have = self.done = 0
            self.shares = is_local(self.address) and is_shared(header.get("probe"), header.get("secret"))
            self.ask()
        elif kind == "end" and header.get("number") == self.have:
            self.over = True
        elif kind == "item" and self.welcome and header.get("number") == self.have:
            self.take(header, buffers)
        elif kind == "item" and self.welcome and header.get("number", 0) > self.have:
            self.ask(again=True)  # what came before it was lost on the way

    def take(self, header: dict[str, Any], buffers: Any) -> None:
        """An item that was waited for."""
        if "block" in header:
            try:
                mapped, buffers = open_block(header["block"])
            except OSError:
                self.shares = False  # let it come in messages
                self.ask(again=True)
                return
            self.views[header["block"][2]] = weakref.ref(mapped)
        self.inbox.append(read(header.get("tree"), buffers, self.pickled))
        self.have, self.retry = self.have + 1, FIRST_RETRY

    def leave(self) -> None:
        """Say that this was all; what was given on is done with."""
        if self.welcome:
            if self.have > self.done + len(self.inbox):
                self.done = self.have - len(self.inbox)
            self.say("bye", have=self.have, done=self.done)
