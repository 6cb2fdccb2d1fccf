"""Who takes part in what is served: what each says, what it is told, and what it gets.

    a consumer says         hello (epoch, position) -> want (have, done, credit) ... -> bye
    the server answers      welcome                    items, or the end

Nothing is sent that was not asked for: a consumer has at most as many items on their way as its credit. What is not
acknowledged is kept, and sent again when it is asked for again, so lost connections lose nothing. Who cannot be reached
for `FORGOTTEN_AFTER` seconds is forgotten, and what it had is for others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flowfn.serving.memory import Lending
from flowfn.serving.messages import PROTOCOL, Malformed, as_message, of_message, write
from flowfn.serving.passes import Consumer, Passes, Shipment

FORGOTTEN_AFTER = 1.0
"""Seconds after which a consumer that cannot be reached is forgotten; so often it is tried, and the state saved."""
MOST_CONSUMERS = 256
"""Consumers at a time; a further one is refused."""
_FIELDS = {"epoch": int, "start": int, "have": int, "done": int, "credit": int, "again": bool, "shares": bool,
           "session": str, "free": list}  # fmt: skip


class Consumers:
    """Those who are there. `post(identity, message)` sends: False if there is no room now, None if nobody is there."""

    def __init__(
        self, passes: Passes, starters: int, pickled: bool, post: Callable[[bytes, list[Any]], bool | None]
    ) -> None:
        self.passes, self.starters, self.pickled, self.post = passes, starters, pickled, post
        passes.pack = self.pack
        self.lending = Lending(4 * passes.window + 16)
        self.known: dict[bytes, Consumer] = {}
        self.at: dict[bytes, Any] = {}
        self.rejected = 0

    def present(self) -> list[Consumer]:
        """Those who are there now."""
        return [*self.known.values()]

    def close(self) -> None:
        """Forget all, and let go of memory."""
        self.known.clear()
        self.at.clear()
        self.lending.close()

    def tell(self, message: list[Any]) -> None:
        """Tell all."""
        for consumer in self.present():
            self._send(consumer, message)

    def look_after(self) -> None:
        """Forget those who cannot be reached, and epochs that are over."""
        for consumer in self.present():
            if self._send(consumer, [PROTOCOL, b'{"kind":"ping"}']):
                consumer.gone = None
            elif consumer.gone is not None and time.monotonic() - consumer.gone > FORGOTTEN_AFTER:
                self._forget(consumer.identity)
        self.passes.tidy()

    # What they say

    def hear(self, identity: bytes, frames: list[bytes]) -> None:
        """A message, or what somebody sends in the place of one."""
        try:
            self._handle(identity, *of_message(frames, **_FIELDS))
        except Malformed as error:
            self.rejected += 1
            self._forget(identity)
            self.post(identity, as_message("refused", reason=str(error)))

    def _handle(self, identity: bytes, header: dict[str, Any], buffers: Any) -> None:
        kind, session = header["kind"], header.get("session", "")
        if kind not in ("hello", "want", "bye") or buffers or not 0 < len(session) <= 64:
            raise Malformed(f"nothing that a consumer says: {kind[:20]!r}")
        consumer = self.known.get(identity)
        same = consumer is not None and consumer.session == session
        if kind == "hello":
            if not same:
                self._join(identity, session, header.get("epoch", 0), header.get("start", 0))
            if identity in self.known:
                self._send(self.known[identity], self._welcome(session))
        elif consumer is None or not same:
            if kind == "want":
                self.post(identity, as_message("who", session=session))
        else:
            consumer.gone = None
            self._note(consumer, header)
            if kind == "bye":
                self._forget(identity)

    def _welcome(self, session: str) -> list[bytes]:
        shared = {"probe": self.lending.probe, "secret": self.lending.secret} if self.lending.probe else {}
        return as_message("welcome", session=session, mode=self.passes.mode, **shared)

    def _join(self, identity: bytes, session: str, epoch: int, start: int) -> None:
        self._forget(identity)
        if len(self.known) >= MOST_CONSUMERS:
            self.post(identity, as_message("refused", reason=f"the server has {MOST_CONSUMERS} consumers already"))
            return
        start = start if self.passes.mode == "broadcast" else 0
        consumer = self.known[identity] = Consumer(identity, session, start, start)
        self._enter(consumer, self.passes.get(epoch, start))

    def _enter(self, consumer: Consumer, one: Any) -> None:
        self.at[consumer.identity] = one
        one.members.add(consumer)

    def _note(self, consumer: Consumer, header: dict[str, Any]) -> None:
        """What a consumer has, has done, and wants."""
        one, have, done = self.at[consumer.identity], header.get("have", 0), header.get("done", 0)
        if not done <= have <= consumer.following:
            raise Malformed("more than was sent")
        while consumer.done < done:
            one.acknowledged(consumer.held.popleft())
            consumer.done += 1
        for number in header.get("free", []):
            if type(number) is not int:
                raise Malformed("free must be a list of numbers")
            self.lending.freed(number, (consumer.identity, consumer.session))
        consumer.sent = have if header.get("again", False) else max(consumer.sent, have)
        consumer.credit = min(header.get("credit", 0), self.passes.window + 1)
        consumer.shares = header.get("shares", False)
        if self.passes.mode == "broadcast" and len(self.passes.all) > 1:
            self._catch_up(consumer, one)

    def _catch_up(self, consumer: Consumer, one: Any) -> None:
        """One who has a pass of its own joins the others when it is as far as they are."""
        further = self.passes.get(one.epoch, consumer.following)
        if further is not one and further.following > one.following:
            one.members.discard(consumer)
            self._enter(consumer, further)
            self.passes.tidy()

    def _forget(self, identity: bytes) -> None:
        consumer = self.known.pop(identity, None)
        if consumer is not None:
            self.at.pop(identity).leave(consumer)
            self.lending.gone((consumer.identity, consumer.session))
            self.passes.tidy()

    # What they get

    def feed(self, consumer: Consumer) -> bool:
        """Send a consumer an item if it may have one; whether that was done."""
        if consumer.sent - consumer.done >= consumer.credit or self.known.get(consumer.identity) is not consumer:
            return False
        one = self.at[consumer.identity]
        if consumer.sent == consumer.following:
            if one.waits and len(one.members) < self.starters:
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
        if self._send(consumer, as_message("end", session=consumer.session, number=consumer.following)):
            consumer.credit = 0  # until it asks again
        if self.passes.mode == "queue":
            self.passes.finished.add(one.epoch)

    def pack(self, position: int, value: Any) -> Shipment:
        """A datapoint on its way: in shared memory, if anybody sees that."""
        tree, buffers = write(value, self.pickled)
        shared = any(consumer.shares for consumer in self.known.values())
        block = self.lending.put(buffers) if shared else None
        return Shipment(position, tree, [] if block else buffers, block)

    def _message(self, consumer: Consumer, item: Shipment) -> list[Any]:
        fields = {"session": consumer.session, "number": consumer.sent, "tree": item.tree}
        if item.block is None:
            return [*as_message("item", **fields), *item.buffers]
        if consumer.shares:
            self.lending.shown(item.block, (consumer.identity, consumer.session))
            return as_message("item", **fields, block=item.block.name)
        return [*as_message("item", **fields), *map(bytes, item.block.buffers)]

    def _send(self, consumer: Consumer, message: list[Any]) -> bool:
        sent = self.post(consumer.identity, message)
        if sent is None:
            consumer.gone = consumer.gone or time.monotonic()
        return bool(sent)
