"""What was wanted last, of more than there is room for: open files, and what has been decoded of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

from flowfn.process import forks

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """What was put here last, as long as all of it has at most the size `most`; threads may share it.

    What goes is only let go of, since another thread may be using it: it is closed with the last reference to it.

    >>> files = Recent(2)
    >>> [files.put(name, name.upper()) for name in "abc"], files.get("a"), files.get("b")
    ([[], [], ['A']], None, 'B')
    """

    def __init__(self, most: int) -> None:
        self.most, self.size, self._turn = most, 0, forks.lock()
        self._values: OrderedDict[Any, tuple[Value, int]] = OrderedDict()
        self._newest: Any = None  # what was wanted last is where it belongs, without a lock

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Any) -> Value | None:
        """What was put under a key, which is wanted again."""
        entry = self._values.get(key)
        if entry is None:
            return None
        if key != self._newest:
            with self._turn:
                if key in self._values:
                    self._values.move_to_end(key)
                    self._newest = key
        return entry[0]

    def put(self, key: Any, value: Value, size: int = 1) -> list[Value]:
        """Keep a value, and return those that have to go: what has not been wanted for the longest time."""
        gone = []
        with self._turn:
            self.size += size - self._values.pop(key, (None, 0))[1]
            self._values[key] = value, size
            self._newest = key
            while self.size > self.most and len(self._values) > 1:
                oldest, its_size = self._values.popitem(last=False)[1]
                self.size -= its_size
                gone.append(oldest)
        return gone

    def values(self) -> list[Value]:
        """All of it, what was wanted last at the end."""
        with self._turn:
            return [value for value, _ in self._values.values()]

    def clear(self) -> list[Value]:
        """Let go of all, and return it."""
        with self._turn:
            values, self.size = self.values(), 0
            self._values.clear()
        return values
