"""Where servers are, and the key without which none is reached from other machines."""

from __future__ import annotations

import re
from typing import Any

from flowfn import rules
from flowfn.extras import needed

HEARTBEAT, GIVEN_UP = 1000, 5000
"""Milliseconds after which the other end is asked for a sign of life, and from then on until a connection that gives
none is taken for cut."""

_FORM = re.compile(r"ipc://.+|tcp://(\[[^\]]+\]|[^:/\[\]]+):(\d+|\*)")
_LOOPBACK = re.compile(r"127(\.\d+){3}|localhost|\[::1\]")

ADDRESS = rules.Rule(
    "an address",
    lambda value: isinstance(value, str),
    lambda value, others: _FORM.fullmatch(value) is not None,
    "; such are 'ipc:///tmp/data' on one machine and 'tcp://10.0.0.5:5555'",
)
KEY = rules.optional(
    rules.Rule(
        "what new_key() gave, a string of 40 characters",
        lambda value: isinstance(value, str),
        lambda value, others: len(value) == 40 and value.isascii(),
    )
)


def new_key() -> str:
    """A secret of 40 characters for `serve` and `connect`: whoever has it may take part, and nobody else can read.

    Keep it where secrets are kept, in a file that only you can read or in the environment of the jobs.

    >>> len(new_key())
    40
    """
    secret: bytes = needed("zmq", "new_key()", extra="zmq").curve_keypair()[1]
    return secret.decode()


def is_local(address: str) -> bool:
    """Whether an address can be reached from this machine only.

    >>> is_local("ipc:///tmp/data"), is_local("tcp://127.0.0.1:5555"), is_local("tcp://0.0.0.0:5555")
    (True, True, False)
    """
    host = _FORM.fullmatch(address)
    return address.startswith("ipc://") or (host is not None and _LOOPBACK.fullmatch(host[1]) is not None)


def check_key(who: str, address: str, key: str | None) -> None:
    """Make sure that what goes over a network is for those who have a key."""
    if key is None and not is_local(address):
        raise ValueError(
            f"{who}(): {address!r} is reached from other machines, so it needs a key: key=new_key() (of "
            "flowfn.serving), the same at both ends; without one there are ipc:// and tcp://127.0.0.1"
        )


def public_half(key: str, who: str) -> bytes:
    """What is told to others of a key."""
    try:
        public: bytes = needed("zmq", f"{who}()", extra="zmq").curve_public(key.encode())
    except Exception as error:  # ZMQError, or what it says of letters that are none
        raise ValueError(f"{who}(): key must be what new_key() gave, a string of 40 characters") from error
    return public


def watch(socket: Any) -> None:
    """Let a socket find out that a connection is dead about which nobody says so."""
    socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT, GIVEN_UP


def encrypt(socket: Any, key: str, who: str, server: bool) -> None:
    """Let a socket speak with those who have the key only."""
    socket.curve_secretkey, socket.curve_publickey = key.encode(), public_half(key, who)
    if server:
        socket.curve_server = True
    else:
        socket.curve_serverkey = public_half(key, who)
