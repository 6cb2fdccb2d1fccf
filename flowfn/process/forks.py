"""Forks: what a forked child has anew, and what it leaves to its parent.

A child has the memory of its parent as it was at the fork, and of its threads only the one that forked. So a lock that
another thread held would be held for ever, and what another thread had half done stays so. Everything here that is to
be put right in a child is told to this module, and done at one place, in this order:

    process      is the child's number
    lock()       locks are free, but those that the forking thread holds itself
    in_child     functions that modules have given are called

An `Own` value is made anew when the child asks for it; what is `Owned` says that it is the parent's (`inherited`).

At the fork itself nothing is waited for: it is only counted, so that memory which a child may look into is known.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")
InChild = TypeVar("InChild", bound=Callable[[], Any])

process = os.getpid()
"""The number of this process: to ask the system for it each time would be dear."""

begun = ended = 0
"""How many forks of this process have been begun, and how many of those are over. What is lent when so many were over
has been seen by no child as long as no more have begun."""

_locks: set[weakref.ref[Any]] = set()
_functions: list[Callable[[], Any]] = []


def lock() -> Any:
    """A lock (`threading.RLock`) that no thread of the parent holds in a forked child.

    It may be taken again by who has it: garbage may be collected, and an iterator closed, anywhere.
    """
    made = threading.RLock()
    _locks.add(weakref.ref(made, _locks.discard))
    return made


def in_child(function: InChild) -> InChild:
    """Have a function called in every forked child; returns it."""
    _functions.append(function)
    return function


def finalize(owner: Any, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function when `owner` is thrown away, in this process alone:
    what a child has of it is not for it to close."""
    weakref.finalize(owner, _finalized, process, function, arguments)


def _finalized(made: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if made == process:
        function(*arguments)


class Own(Generic[Made]):
    """What each process has one of, made by `make()` when it is first asked for: `own()`.

    >>> numbers = Own(list)
    >>> numbers().append(1)
    >>> numbers()
    [1]
    """

    __slots__ = ("_lock", "_made", "_process", "make")

    def __init__(self, make: Callable[[], Made]) -> None:
        self.make = make
        self._begin()

    def __reduce__(self) -> Any:
        return type(self), (self.make,)

    def _begin(self) -> None:
        self._lock, self._made, self._process = lock(), list[Made](), process

    def __call__(self) -> Made:
        if self._process != process:
            self._begin()
        elif self._made:
            return self._made[0]
        with self._lock:
            if not self._made:
                self._made.append(self.make())
        return self._made[0]


class Owned:
    """What belongs to the process that made it."""

    __slots__ = ("owner",)
    owner: int

    def __new__(cls, *_: Any, **__: Any) -> Any:
        made = super().__new__(cls)
        made.owner = process
        return made

    @property
    def inherited(self) -> bool:
        """Whether it is a forked child's copy: its parent's threads, which are not here,
        may have held anything that is asked."""
        return self.owner != process


class cached_property(functools.cached_property):
    """`functools.cached_property`, whose lock, which it has before Python 3.12, is free in a forked child."""

    if sys.version_info < (3, 12):

        def __init__(self, func: Callable[[Any], Any]) -> None:
            super().__init__(func)
            self.lock = lock()


def renew(lock_of_parent: Any) -> None:
    """Free a lock in a forked child that another thread may have held; one that this thread holds stays as it is."""
    owned = getattr(lock_of_parent, "_is_owned", None)
    if owned is None or not owned():
        lock_of_parent._at_fork_reinit()


def _fork_begins() -> None:
    global begun
    begun += 1


def _fork_is_over() -> None:
    global ended
    ended += 1


def _put_right_in_child() -> None:
    global process, ended
    process, ended = os.getpid(), begun
    for reference in tuple(_locks):
        held = reference()
        if held is not None:
            renew(held)
    for function in _functions:
        function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork_begins, after_in_parent=_fork_is_over, after_in_child=_put_right_in_child)
