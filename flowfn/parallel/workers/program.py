"""What a worker is told before its first task: the tree, and all that has to be so around it.

settings   those of the process that iterates (see `surroundings`); None leaves them as they are
setup      what the worker calls first, unless it has
versions   what the tree names in the program's own modules, and what that is where it was packed (see `versions`)
tree       the stages, pickled
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from flowfn.kinds.nodes import Node
from flowfn.parallel.crossing.slots import Slot
from flowfn.parallel.crossing.transport import dumped, pack_tree
from flowfn.parallel.tasks import surroundings, versions
from flowfn.parallel.tasks.plan import culprit
from flowfn.parallel.tasks.surroundings import Setup
from flowfn.parallel.tasks.versions import Ledger, Version


class Program(NamedTuple):
    """What a worker is told."""

    settings: dict[str, Any] | None
    setup: bytes
    versions: tuple[Version, ...]
    tree: bytes


class Packed(NamedTuple):
    """A program that can travel: a digest, what it is of, and the slots of its large arrays,
    which have to live as long as it does."""

    digest: bytes
    pickled: bytes
    slots: list[Slot]


class Prepared(NamedTuple):
    """A setup that can travel: a key that is the same for what does the same, and the function."""

    key: bytes
    pickled: bytes


class Outdated(Exception):
    """A worker has other versions of a program's own modules than the process that iterates."""

    def __init__(self, outdated: list[Version]) -> None:
        super().__init__(outdated)
        self.keys = tuple(version.key for version in outdated)


def packed(
    tree: Node, ledger: Ledger, setup: Prepared | None = None, *, follows: bool = False, shares: bool = False
) -> Packed:
    """A tree as a program; what cannot travel is named.

    If it `follows`, the settings of this process go along. See `pack_tree` for `shares`.
    """
    try:
        with versions.pickled_whole(versions.differing):
            stages, slots = pack_tree(tree, shares, ledger)
    except Exception as error:
        raise TypeError(
            f"{culprit(tree)} cannot be sent to a worker process: {error}; "
            "make what it holds in the worker (per_process), or prefetch with threads="
        ) from error
    settings = surroundings.current_settings() if follows else None
    pickled = dumped(tuple(Program(settings, setup.pickled if setup else b"", ledger.versions(), stages)))
    return Packed(hashlib.blake2b(pickled, digest_size=16).digest(), pickled, slots)


def prepared(setup: Setup | None, ledger: Ledger) -> Prepared | None:
    """A setup that can travel."""
    if setup is None:
        return None
    try:
        with versions.pickled_whole(versions.differing):
            pickled = dumped(setup.function, ledger)
    except Exception as error:
        raise TypeError(f"prefetch(): setup cannot be sent to a worker process: {error}") from error
    digest, _ = versions.version_of(setup.function)
    return Prepared(digest or hashlib.blake2b(pickled, digest_size=16).digest(), pickled)


def send_whole(keys: Collection[tuple[str, str]]) -> bool:
    """From now on send whole what no worker can import as it is here; False if all of it is, or cannot be."""
    modules = {module for module, name in keys if name not in (versions.FILE, versions.IMPORT)} - versions.differing
    versions.differing.update(modules)
    return bool(modules)


def accept(keys: Collection[tuple[str, str]], why: object = None) -> None:
    """From now on let workers have other versions of something, and say so."""
    modules = sorted({module for module, _ in keys})
    versions.differing.difference_update(modules)
    versions.accepted.update(keys)
    because = "" if why is None else f" ({why})"
    warnings.warn(
        f"prefetch(): worker processes import another version of {', '.join(modules)} than this process holds, and "
        "what it holds cannot "
        f"be sent to them{because}; save and reload the module, or have setup= do in each worker what was done here",
        RuntimeWarning,
        stacklevel=2,
    )


# In a worker

_taken: list[Any] = [None]
"""The settings that were taken over last."""

_setups: dict[bytes, BaseException | None] = {}


class SetupFailed(Exception):
    """What a worker calls first raised an error, which is the cause of this one."""


def first(setup: bytes) -> None:
    """Call what is to be called first, unless that was done."""
    if not setup:
        return
    if setup not in _setups:
        _setups[setup] = None
        try:
            with surroundings.keeping():
                pickle.loads(setup)()
        except BaseException as error:  # raised where the flow is iterated
            _setups[setup] = error
    if _setups[setup] is not None:
        raise SetupFailed from _setups[setup]


def here(function: Callable[[], Any]) -> None:
    """Call a setup in a process that is a worker already, unless that was done."""
    key = versions.version_of(function)[0] or repr(function).encode()
    if key not in _setups:
        _setups[key] = None
        function()


def load(pickled: bytes) -> tuple[dict[str, Any] | None, Node]:
    """(settings, tree) of a program.

    Raises:
        Outdated: this process has other versions of what the tree names.
        SetupFailed: what has to be called first raised an error.
    """
    program = Program(*pickle.loads(pickled))
    surround(program.settings)
    first(program.setup)
    outdated = versions.outdated(program.versions)
    if outdated:
        raise Outdated(outdated)
    return program.settings, pickle.loads(program.tree)


def surround(settings: dict[str, Any] | None) -> None:
    """Take over settings, unless they were the last."""
    if settings is not None and settings is not _taken[0]:
        surroundings.apply(settings)
        _taken[0] = settings
    surroundings.look_again()
