"""`serve`: one flow for several consumers."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from flowfn import rules
from flowfn.extras import needed
from flowfn.flows.sources import flow as as_flow
from flowfn.serving.addresses import ADDRESS, KEY, check_key, encrypt, public_half, watch
from flowfn.serving.consumers import FORGOTTEN_AFTER, Consumers
from flowfn.serving.making import Bell
from flowfn.serving.messages import REQUEST_BYTES, as_message
from flowfn.serving.passes import Passes
from flowfn.storage.writing import written_whole

TICK = 0.1
"""Seconds after which the server looks whether it is to end."""


@rules.checked(
    address=ADDRESS,
    mode=rules.one_of("queue", "broadcast"),
    key=KEY,
    window=rules.positive,
    consumers=rules.positive,
    pickle=rules.boolean,
    state=rules.optional(rules.folder),
)
def serve(
    flow: Any,
    address: str,
    *,
    mode: str = "queue",
    key: str | None = None,
    window: int = 4,
    consumers: int = 1,
    pickle: bool = False,
    state: Any = None,
) -> Server:
    """Serve the datapoints of a flow at an address, to all who `connect` to it.

    `with serve(...) as server:` serves in a thread, `serve(...).run()` in the calling one, until it is interrupted. In
    mode "queue" each datapoint of an epoch goes to one consumer: to exactly one as long as all of them live, and again
    to another one if a consumer dies, or cannot be reached for a second, before it asked for the next one (at least
    once). In mode "broadcast" every consumer gets every datapoint, in the flow's order, from one pass over the flow:
    the fastest is at most `window` datapoints ahead of the slowest. One who comes when the others are further gets a
    pass of its own, until it has caught up; `consumers` is how many must be there before an epoch begins.

    On one machine arrays cross in shared memory: they are copied into it once, whoever reads them. `address` is
    "ipc://path" (a file that this user can open) or "tcp://host:port" (port * takes a free one, see `.address`). One
    that other machines can reach needs a `key` (see `new_key`): what is sent is encrypted, and strangers are refused.

    Datapoints are dicts, lists and tuples of str, bytes, int, float, bool, None and NumPy arrays; others are sent with
    `pickle=True` here and in `connect`. `state` is a file from which the server goes on where one before it stood,
    however that ended: it is written each second, so what was acknowledged in the last second comes again.

    Raises:
        ValueError: the address can be reached from elsewhere and there is no key; the file is of another pipeline.
        OSError: the address is in use, or not of this machine.
        ImportError: pyzmq is missing.

    >>> import flowfn as ff
    >>> from flowfn.serving import connect, serve
    >>> with serve(ff.batch(2, range(6)), "tcp://127.0.0.1:*") as server:
    ...     list(connect(server.address))
    [array([0, 1]), array([2, 3]), array([4, 5])]
    """
    check_key("serve", address, key)
    server = Server(as_flow(flow, "serve"), mode, window, consumers, pickle, state)
    server.open(address, key)
    return server


class Server:
    """What `serve` gives. `.address` is where it is, `.rejected` how many messages were none."""

    def __init__(self, flow: Any, mode: str, window: int, consumers: int, pickled: bool, state: Any) -> None:
        self._bell = Bell()
        self._passes = Passes(flow, mode, window, self._bell.ring)
        self._consumers = Consumers(self._passes, consumers, pickled, self._post)
        self._closing, self._lock = threading.Event(), threading.RLock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._path = state
        self._saved: dict[str, Any] | None = None
        self._strangers = 0
        self.address = ""
        if state is not None and os.path.exists(state):
            with open(state, encoding="utf8") as file:
                try:
                    saved = json.load(file)
                except ValueError as error:
                    raise ValueError(f"serve(): state={os.fspath(state)!r} is no state of a server: {error}") from None
            self.load_state_dict(saved)

    @property
    def rejected(self) -> int:
        """How many messages were none, and how many had not the key."""
        return self._consumers.rejected + self._strangers

    # How it runs

    def open(self, address: str, key: str | None) -> None:
        """Take the address."""
        zmq = self._zmq = needed("zmq", "serve()", extra="zmq")
        self._encoded = needed("zmq.utils.z85", "serve()", extra="zmq").encode
        self._key = key and public_half(key, "serve")
        self._context = zmq.Context()
        self._socket = socket = self._context.socket(zmq.ROUTER)
        socket.linger = 500
        socket.ipv6 = "[" in address
        socket.router_mandatory = socket.router_handover = True
        socket.maxmsgsize = REQUEST_BYTES
        watch(socket)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._bell.ear.fileno(), zmq.POLLIN)
        self._guard = None
        try:
            if key is not None:
                self._guard = self._context.socket(zmq.REP)
                self._guard.bind("inproc://zeromq.zap.01")
                self._poller.register(self._guard, zmq.POLLIN)
                socket.zap_domain = b"flowfn"
                encrypt(socket, key, "serve", True)
            socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(0)
            self._bell.close()
            raise OSError(error.errno, f"serve(): {address} cannot be had: {error}") from error
        self.address = socket.last_endpoint.decode().rstrip("\0")

    def __enter__(self) -> Server:
        if self._socket.closed:
            raise ValueError(f"serve(): the server at {self.address} was closed; serve(...) makes another")
        self._thread = threading.Thread(target=self._in_thread, name="flowfn-serve", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self.close()
        if self._error is not None and kind is None:
            raise self._error

    def _in_thread(self) -> None:
        with contextlib.suppress(BaseException):  # it is raised where the `with` ends
            self.run()

    def run(self) -> None:
        """Serve until `close()` is called or this is interrupted; what the flow raises is raised."""
        tried = time.monotonic()
        try:
            while not self._closing.is_set():
                self._hear(TICK)
                while self._feed() and not self._closing.is_set():
                    self._hear(0)
                if time.monotonic() - tried > FORGOTTEN_AFTER / 2:
                    tried = time.monotonic()
                    with self._lock:
                        self._consumers.look_after()
                    self._save()
        except BaseException as error:
            self._error = error
            self._consumers.tell(as_message("error", text=f"{type(error).__name__}: {error}"))
            raise
        finally:
            self._let_go()

    def _hear(self, seconds: float) -> None:
        for one, _ in self._poller.poll(int(seconds * 1000)):
            if one is self._socket or one is self._guard:
                self._receive(one)
            else:
                self._bell.heard()

    def _feed(self) -> bool:
        """One item for each consumer that may have one; whether there was any."""
        fed = False
        for consumer in self._consumers.present():
            with self._lock:
                fed |= self._consumers.feed(consumer)
        return fed

    def close(self) -> None:
        """End it: connections, memory, files."""
        self._closing.set()
        self._bell.ring()
        if self._thread is not None:
            self._thread.join()
        elif not self._socket.closed:
            self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            for socket in (self._socket, self._guard):  # which a context that is collected as garbage has forgotten
                if socket is not None:
                    socket.close(500)
            self._context.destroy(500)
            if self.address.startswith("ipc://") and not self.address.startswith("ipc://@"):
                with contextlib.suppress(OSError):
                    os.unlink(self.address.removeprefix("ipc://"))
            self._save()
            self._consumers.close()
        self._passes.close()
        self._bell.close()

    # What it remembers

    def state_dict(self) -> dict[str, Any]:
        """Where the server stands, as JSON: which datapoints of which epochs are done with."""
        with self._lock:
            return self._passes.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> Server:
        """Go on from a state, before it serves; returns the server.

        Raises:
            ValueError: it is of another pipeline or mode, or no state of a server.
        """
        if self._passes.all:
            raise ValueError("load_state_dict(): the server has begun; load its state before anybody connects")
        self._passes.load(state)
        return self

    def _save(self) -> None:
        if self._path is not None and (state := self.state_dict()) != self._saved:
            with written_whole(self._path, True, "serve") as beside, open(beside, "w", encoding="utf8") as file:
                json.dump(state, file)
            self._saved = state

    # What comes and goes

    def _receive(self, socket: Any) -> None:
        for _ in range(1000):
            try:
                frames = socket.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.Again:
                return
            if socket is self._guard:
                self._admit(frames)
                continue
            with self._lock:
                self._consumers.hear(frames[0], frames[1:])

    def _admit(self, frames: list[bytes]) -> None:
        """Whether one who wants to speak has the key (ZAP, ZeroMQ's RFC 27)."""
        known = len(frames) == 7 and frames[5] == b"CURVE" and self._encoded(frames[6]) == self._key
        number = frames[1] if len(frames) > 1 else b""
        self._guard.send_multipart([b"1.0", number, b"200" if known else b"400", b"", b"", b""])  # type: ignore[union-attr]
        self._strangers += not known

    def _post(self, identity: bytes, message: list[Any]) -> bool | None:
        """Send; False if there is no room now, None if nobody is there."""
        try:
            self._socket.send_multipart([identity, *message], self._zmq.NOBLOCK, copy=False)
        except self._zmq.Again:
            return False
        except self._zmq.ZMQError:
            return None
        return True
