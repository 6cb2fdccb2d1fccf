"""The connection of a consumer to one server: what it says, what it is told, and what it has not yet given on."""

from __future__ import annotations

import contextlib
import secrets
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

from flowfn.extras import needed
from flowfn.serving.addresses import encrypt, is_local, watch
from flowfn.serving.memory import is_shared, open_block
from flowfn.serving.messages import Malformed, as_message, of_message, read

FIRST_RETRY, LAST_RETRY = 0.5, 4.0
"""Seconds after which one who got nothing asks again, at first and at last."""
LARGEST_MESSAGE = 1 << 32
"""Bytes of one buffer at most."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where to read, and how."""

    addresses: list[str]
    key: str | None
    ahead: int
    timeout: float | None
    pickled: bool


class Connection:
    """The connection to one server, and how far it is: `have` items came, `done` of them are done with."""

    def __init__(self, context: Any, address: str, servers: Servers, epoch: int, start: int) -> None:
        zmq: Any = needed("zmq", "connect()", extra="zmq")
        self.address, self.epoch, self.have, self.done = address, epoch, start, start
        self.pickled, self.credit = servers.pickled, servers.ahead + 1
        self.mode, self.shares, self.over = "", False, False
        self.failed: Exception | None = None  # to be raised behind what came before
        self.inbox: deque[Any] = deque()
        self.views: dict[int, weakref.ref[Any]] = {}
        self.rejected = 0
        socket = self.socket = context.socket(zmq.DEALER)
        socket.ipv6 = "[" in address
        socket.linger = 200
        socket.maxmsgsize = LARGEST_MESSAGE
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
        return bool(self.inbox) or self.over or self.failed is not None

    def check(self) -> None:
        """Raise what the server has said that went wrong."""
        if self.failed is not None:
            raise self.failed

    def say(self, kind: str, **fields: Any) -> None:
        """Tell the server; if it cannot be told now, it will be asked again."""
        self.asked = time.monotonic()
        with contextlib.suppress(Exception):  # the queue to a server that is away is full
            self.socket.send_multipart(as_message(kind, session=self.session, **fields), 1)

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
                    header, buffers = of_message([frame.buffer for frame in frames], session=str, number=int, mode=str)
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
            text = f"connect(): the flow that is served at {self.address} failed: {header.get('text')}"
            self.failed = self.failed or RuntimeError(text)
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
