"""Which keys an LMDB database has, and in which order: numbered as tensorpack numbers them, or listed."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from flowfn.blocks import Block, ints
from flowfn.formats.encoding.payloads import packed_datapoint, unpacked_datapoint
from flowfn.storage.damage import Unreadable

KEY_LIST = b"__keys__"
"""Where tensorpack's LMDBSerializer keeps the list of the keys."""
STATE = b"!flowfn"
"""Where an unfinished file keeps how far it has come; before all numbers."""
NUMBER = "{:08}"
SORTED = 10**8
"""Up to so many, numbers of eight digits are in the order of the keys."""

_OF_LISTS = re.compile("PROTO|FRAME|MEMOIZE|(LONG_)?BINPUT|EMPTY_LIST|MARK|APPENDS?|STOP|(SHORT_)?BIN(BYTES|UNICODE)8?")
"""The steps that make a list of strings out of a pickle."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """Keys that are made from their numbers; `sorted` says whether they are in the order of the database."""

    count: int
    template: str = NUMBER
    sorted: bool = False

    def key(self, index: int) -> bytes:
        """The key of a number."""
        return b"%08d" % index if self.template == NUMBER else self.template.format(index).encode()

    def keys(self, block: Block) -> Iterable[bytes]:
        """The keys of some numbers."""
        if self.template == NUMBER and self.count <= SORTED:
            return _digits(np.asarray(block, np.int32))
        return map(self.key, ints(block))


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Keys in a list, one after the other in memory."""

    joined: bytes
    ends: np.ndarray
    sorted: bool = False

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.ends) - 1

    def key(self, index: int) -> bytes:
        """The key at a place."""
        return self.joined[self.ends[index] : self.ends[index + 1]]

    def keys(self, block: Block) -> Iterable[bytes]:
        """The keys at some places."""
        return map(self.key, ints(block))


def _digits(numbers: np.ndarray) -> list[bytes]:
    """Numbers in eight digits, many at once."""
    digits = np.empty((len(numbers), 8), np.uint8)
    for place in range(7, -1, -1):
        rest = numbers // 10
        digits[:, place] = numbers - 10 * rest + ord("0")
        numbers = rest
    return digits.view("S8").ravel().tolist()


def listed(keys: Iterable[bytes], in_order: bool = False) -> Listed:
    """Keys in a list.

    >>> keys = listed([b"cat", b"horse"])
    >>> keys.count, keys.key(1)
    (2, b'horse')
    """
    held = list(keys)
    return Listed(b"".join(held), np.fromiter(accumulate(map(len, held), initial=0), np.int64, len(held) + 1), in_order)


def chosen_keys(keys: Any, entries: int) -> Numbered | Listed:
    """The keys that a user names: a template for their numbers, or a list."""
    if isinstance(keys, str):
        return Numbered(entries, keys)
    return listed(key.encode() if isinstance(key, str) else bytes(key) for key in keys)


def own_keys(payload: bytes, entries: int, allow_pickle: bool) -> Numbered | Listed | None:
    """The keys that a database lists itself, or None if they cannot be read without running what is in there."""
    numbers = [NUMBER.format(number).encode() for number in range(entries)]
    if payload == packed_datapoint(numbers) or (payload[:1] == b"\x80" and payload == _pickled(numbers, payload[1])):
        return Numbered(entries, sorted=entries <= SORTED)
    is_pickle = len(payload) > 1 and payload[0] == 0x80
    content = (
        list(_texts(payload))
        if is_pickle and not allow_pickle
        else unpacked_datapoint(payload, allow_pickle=allow_pickle)
    )
    if is_pickle and not allow_pickle and None in content:
        return None
    if type(content) is not list or not all(isinstance(key, (str, bytes)) for key in content):
        raise Unreadable(f"what is listed under {KEY_LIST.decode()} are not keys")
    keys = chosen_keys(content, entries)
    return Numbered(entries, sorted=entries <= SORTED) if content == numbers else keys


def _pickled(numbers: list[bytes], protocol: int) -> bytes | None:
    return pickle.dumps(numbers, protocol) if 2 <= protocol <= pickle.HIGHEST_PROTOCOL else None


def _texts(payload: bytes) -> Iterator[Any]:
    """The strings in a pickled list of strings, and None where there is anything else; nothing in it is run."""
    with contextlib.suppress(ValueError):
        for code, value, _ in pickletools.genops(payload):
            if not _OF_LISTS.fullmatch(code.name):
                yield None
                return
            if isinstance(value, (str, bytes)):
                yield value
        return
    yield None
