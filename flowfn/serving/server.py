"""`serve`: one flow for several consumers.

    a consumer says         hello (epoch, position) -> want (have, done, credit) ... -> bye
    the server answers      welcome                    items, or the end

Nothing is sent that was not asked for: a consumer has at most as many items on their way as its credit. What is not
acknowledged is kept, and sent again when it is asked for again, so lost connections lose nothing. Who cannot be reached
for `GRACE` seconds is forgotten, and what it had is for others.
"""

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
from flowfn.serving.addresses import ADDRESS, KEY, check_key, encrypt, public_half
from flowfn.serving.memory import Lending
from flowfn.serving.messages import REQUEST_BYTES, VERSION, Malformed, packed, unpacked, write
from flowfn.serving.passes import Broadcast, Consumer, Item, Pass, Queue
from flowfn.storage.writing import written_whole

TICK = 0.1
"""Seconds after which the server looks whether it is to end."""
GRACE = 1.0
"""Seconds after which a consumer that cannot be reached is forgotten; so often it is tried, and the state saved."""
MOST = 256
"""Consumers at a time; a further one is refused."""
_FIELDS = {"epoch": int, "start": int, "have": int, "done": int, "credit": int, "again": bool, "shares": bool,
           "session": str, "free": list}  # fmt: skip


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
        self._flow, self._mode, self._window, self._starters, self._pickled = flow, mode, window, consumers, pickled
        begins = flow.state_dict()
        self._seed, self._fingerprint = begins["seed"], begins["fingerprint"]
        self._finished: set[int] = set()
        self._begun: dict[int, tuple[int, list[int]]] = {}  # epochs that go on from a state
        self._passes: list[Any] = []
        self._consumers: dict[bytes, Consumer] = {}
        self._at: dict[bytes, Any] = {}
        self._closing, self._lock = threading.Event(), threading.RLock()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._path = state
        self._saved: dict[str, Any] | None = None
        self.rejected = 0
        self.address = ""
        if state is not None and os.path.exists(state):
            with open(state, encoding="utf8") as file:
                try:
                    saved = json.load(file)
                except ValueError as error:
                    raise ValueError(f"serve(): state={os.fspath(state)!r} is no state of a server: {error}") from None
            self.load_state_dict(saved)

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
        socket.heartbeat_ivl, socket.heartbeat_timeout = 1000, 5000
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
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
            raise OSError(error.errno, f"serve(): {address} cannot be had: {error}") from error
        self.address = socket.last_endpoint.decode().rstrip("\0")
        self._lending = Lending(4 * self._window + 16)

    # How it runs

    def __enter__(self) -> Server:
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
                for socket, _ in self._poller.poll(int(TICK * 1000)):
                    self._receive(socket)
                while self._feed_each() and not self._closing.is_set():
                    for socket, _ in self._poller.poll(0):
                        self._receive(socket)
                if time.monotonic() - tried > GRACE / 2:
                    tried = time.monotonic()
                    with self._lock:
                        self._look_after()
                    self._save()
        except BaseException as error:
            self._error = error
            for consumer in [*self._consumers.values()]:
                self._send(consumer, packed("error", text=f"{type(error).__name__}: {error}"))
            raise
        finally:
            self._let_go()

    def close(self) -> None:
        """End it: connections, memory, files."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        elif not self._socket.closed:
            self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            for one in self._passes:
                one.close()
            for socket in (self._socket, self._guard):  # which a context that is collected as garbage has forgotten
                if socket is not None:
                    socket.close(500)
            self._context.destroy(500)
            if self.address.startswith("ipc://") and not self.address.startswith("ipc://@"):
                with contextlib.suppress(OSError):
                    os.unlink(self.address.removeprefix("ipc://"))
            self._save()
            self._passes.clear()
            self._consumers.clear()
            self._at.clear()
            self._lending.close()

    # What it remembers

    def state_dict(self) -> dict[str, Any]:
        """Where the server stands, as JSON: which datapoints of which epochs are done with."""
        with self._lock:
            state = {"fingerprint": self._fingerprint, "seed": self._seed, "mode": self._mode}
            if self._mode == "queue":
                begun = dict(self._begun) | {
                    one.epoch: (one.first, sorted(one.given)) for one in self._passes if one.epoch not in self._finished
                }
                state |= {"finished": sorted(self._finished)}
                state |= {"begun": {str(epoch): [first, given] for epoch, (first, given) in begun.items()}}
            return state

    def load_state_dict(self, state: Mapping[str, Any]) -> Server:
        """Go on from a state, before it serves; returns the server.

        Raises:
            ValueError: it is of another pipeline or mode, or no state of a server.
        """
        if self._passes:
            raise ValueError("load_state_dict(): the server has begun; load its state before anybody connects")
        try:
            fingerprint, seed, mode = state["fingerprint"], state["seed"], state["mode"]
            finished = {int(epoch) for epoch in state.get("finished", [])}
            begun = {int(epoch): (int(first), [*map(int, given)])
                     for epoch, (first, given) in state.get("begun", {}).items()}  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"load_state_dict(): that is no state of a server: {error!r}") from error
        if (fingerprint, mode) != (self._fingerprint, self._mode):
            raise ValueError(
                "load_state_dict(): the state is of another server\n"
                f"  saved: {mode}, {fingerprint}\n  this:  {self._mode}, {self._fingerprint}\n"
                "Serve the pipeline that saved it, or begin with another file"
            )
        self._seed, self._finished, self._begun = seed, finished, begun
        return self

    def _save(self) -> None:
        if self._path is not None and (state := self.state_dict()) != self._saved:
            with written_whole(self._path, True, "serve") as beside, open(beside, "w", encoding="utf8") as file:
                json.dump(state, file)
            self._saved = state

    # What it is told

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
                try:
                    self._handle(frames[0], *unpacked(frames[1:], **_FIELDS))
                except Malformed as error:
                    self.rejected += 1
                    self._forget(frames[0])
                    self._answer(frames[0], packed("refused", reason=str(error)))

    def _admit(self, frames: list[bytes]) -> None:
        """Whether one who wants to speak has the key (ZAP, ZeroMQ's RFC 27)."""
        known = len(frames) == 7 and frames[5] == b"CURVE" and self._encoded(frames[6]) == self._key
        number = frames[1] if len(frames) > 1 else b""
        self._guard.send_multipart([b"1.0", number, b"200" if known else b"400", b"", b"", b""])  # type: ignore[union-attr]
        self.rejected += not known

    def _handle(self, identity: bytes, header: dict[str, Any], buffers: Any) -> None:
        kind, session = header["kind"], header.get("session", "")
        if kind not in ("hello", "want", "bye") or buffers or not 0 < len(session) <= 64:
            raise Malformed(f"nothing that a consumer says: {kind[:20]!r}")
        consumer = self._consumers.get(identity)
        same = consumer is not None and consumer.session == session
        if kind == "hello":
            if not same:
                self._join(identity, session, header.get("epoch", 0), header.get("start", 0))
            if identity in self._consumers:
                self._send(self._consumers[identity], self._welcome(session))
        elif consumer is None or not same:
            if kind == "want":
                self._answer(identity, packed("who", session=session))
        else:
            consumer.gone = None
            self._note(consumer, header)
            if kind == "bye":
                self._forget(identity)

    def _welcome(self, session: str) -> list[bytes]:
        shared = {"probe": self._lending.probe, "secret": self._lending.secret} if self._lending.probe else {}
        return packed("welcome", session=session, mode=self._mode, **shared)

    def _join(self, identity: bytes, session: str, epoch: int, start: int) -> None:
        self._forget(identity)
        if len(self._consumers) >= MOST:
            self._answer(identity, packed("refused", reason=f"the server has {MOST} consumers already"))
            return
        start = start if self._mode == "broadcast" else 0
        consumer = self._consumers[identity] = Consumer(identity, session, start, start)
        self._enter(consumer, self._pass(epoch, start))

    def _enter(self, consumer: Consumer, one: Any) -> None:
        self._at[consumer.identity] = one
        one.members.add(consumer)

    def _pass(self, epoch: int, start: int) -> Any:
        fitting = [one for one in self._passes if one.epoch == epoch]
        if self._mode == "broadcast":
            fitting = [one for one in fitting if one.has(start)]
        if fitting:
            return max(fitting, key=lambda one: one.following)
        first, given = (start, []) if self._mode == "broadcast" else self._begun.pop(epoch, (0, []))
        run = self._flow.run(seed=self._seed, epoch=epoch, start=first)
        outputs = _nothing() if epoch in self._finished else run
        if self._mode == "broadcast":
            made: Pass = Broadcast(epoch, outputs, start, self._pack, window=self._window)
        else:
            made = Queue(epoch, outputs, first, self._pack, given=given)
        made.waits = first == 0
        self._passes.append(made)
        return made

    def _note(self, consumer: Consumer, header: dict[str, Any]) -> None:
        """What a consumer has, has done, and wants."""
        one, have, done = self._at[consumer.identity], header.get("have", 0), header.get("done", 0)
        if not done <= have <= consumer.following:
            raise Malformed("more than was sent")
        while consumer.done < done:
            one.acknowledged(consumer.held.popleft())
            consumer.done += 1
        for number in header.get("free", []):
            if type(number) is not int:
                raise Malformed("free must be a list of numbers")
            self._lending.freed(number, (consumer.identity, consumer.session))
        consumer.sent = have if header.get("again", False) else max(consumer.sent, have)
        consumer.credit = min(header.get("credit", 0), self._window + 1)
        consumer.shares = header.get("shares", False)
        if self._mode == "broadcast":
            further = self._pass(one.epoch, consumer.following) if len(self._passes) > 1 else one
            if further is not one and further.following > one.following:
                one.members.discard(consumer)
                self._enter(consumer, further)
                self._tidy(one)

    def _forget(self, identity: bytes) -> None:
        consumer = self._consumers.pop(identity, None)
        if consumer is not None:
            one = self._at.pop(identity)
            one.leave(consumer)
            self._lending.gone((consumer.identity, consumer.session))
            self._tidy(one)

    def _tidy(self, one: Any) -> None:
        """Close a pass that nobody reads; one whose datapoints are shared out stays until all are done with."""
        if self._mode == "broadcast" and not one.members:
            one.close()
            self._passes.remove(one)

    # What it sends

    def _feed_each(self) -> bool:
        """One item for each consumer that may have one; whether there was any."""
        fed = False
        for consumer in [*self._consumers.values()]:
            with self._lock:
                fed |= self._feed(consumer)
        return fed

    def _feed(self, consumer: Consumer) -> bool:
        if consumer.sent - consumer.done >= consumer.credit or self._consumers.get(consumer.identity) is not consumer:
            return False
        one = self._at[consumer.identity]
        if consumer.sent == consumer.following:
            if one.waits and len(one.members) < self._starters:
                return False
            one.waits = False
            item = one.next_for(consumer)
            if item is not None:
                consumer.held.append(item)
            elif one.ends_for(consumer):
                self._end(consumer, one)
                return False
            else:
                return False
        item = consumer.held[consumer.sent - consumer.done]
        if not self._send(consumer, self._message(consumer, item)):
            return False
        consumer.sent += 1
        return True

    def _end(self, consumer: Consumer, one: Any) -> None:
        if self._send(consumer, packed("end", session=consumer.session, number=consumer.following)):
            consumer.credit = 0  # until it asks again
        if self._mode == "queue" and one.epoch not in self._finished:
            self._finished.add(one.epoch)

    def _pack(self, position: int, value: Any) -> Item:
        tree, buffers = write(value, self._pickled)
        shared = any(consumer.shares for consumer in self._consumers.values())
        block = self._lending.put(buffers) if shared else None
        return Item(position, tree, [] if block else buffers, block)

    def _message(self, consumer: Consumer, item: Item) -> list[Any]:
        fields = {"session": consumer.session, "number": consumer.sent, "tree": item.tree}
        if item.block is None:
            return [*packed("item", **fields), *item.buffers]
        if consumer.shares:
            self._lending.shown(item.block, (consumer.identity, consumer.session))
            return packed("item", **fields, block=item.block.name)
        return [*packed("item", **fields), *map(bytes, item.block.buffers)]

    def _send(self, consumer: Consumer, message: list[Any]) -> bool:
        try:
            self._socket.send_multipart([consumer.identity, *message], self._zmq.NOBLOCK, copy=False)
        except self._zmq.Again:
            return False
        except self._zmq.ZMQError:
            consumer.gone = consumer.gone or time.monotonic()
            return False
        return True

    def _answer(self, identity: bytes, message: list[Any]) -> None:
        with contextlib.suppress(self._zmq.ZMQError):
            self._socket.send_multipart([identity, *message], self._zmq.NOBLOCK)

    def _look_after(self) -> None:
        """Forget those who cannot be reached, and epochs that are over."""
        for consumer in [*self._consumers.values()]:
            if self._send(consumer, [VERSION, b'{"kind":"ping"}']):
                consumer.gone = None
            elif consumer.gone is not None and time.monotonic() - consumer.gone > GRACE:
                self._forget(consumer.identity)
        for one in [one for one in self._passes if one.epoch in self._finished and not one.members]:
            one.close()
            self._passes.remove(one)


def _nothing() -> Any:
    """What is left of an epoch that is over."""
    yield from ()
